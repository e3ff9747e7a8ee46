"""Studies -> MIPs in SUV and their rows of data.csv; done.json tells the next run what need not be done again."""
import contextlib
import functools
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.files import InputError, open_file, parse_json, progress, replace_file, write_json
from common.text import counted, some
from common.workers import Run
from preprocessing.archives import local_files, split_member
from preprocessing.dicom_series import Refusals, Study
from preprocessing.dicom_values import Refused, unexpected
from preprocessing.geometry import first_centre, project
from preprocessing.identifiers import hash_id
from preprocessing.liver import find_liver
from preprocessing.masks import lesions_of, study_mask
from preprocessing.series_choice import choose_series
from preprocessing.suv import SuvVolume, body_mean, suv_volume
from preprocessing.volumes import is_volume, read_volume, write_volume

MAX_ROWS = 310  # the height of LARS's frame
ERROR_COLUMNS = ["study", "attribute", "value", "reason", "remedy"]
# A change in any module of this folder converts every study again, except in these
WITHOUT_INFLUENCE = {"tables.py", "labels.py", "qc_page.py", "splits.py", "studies.py"}
CODE = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name not in WITHOUT_INFLUENCE)

Row = dict[str, Any]  # of data.csv or errors.csv


class Options(NamedTuple):
    """What decides, beside its files, on the result of a study.

    Attributes
    ----------
    spacing : float
        Pixel size of the MIPs, mm.
    views : int
        Projections at so many angles over half a turn.
    allow_uncorrected : bool
        Take series without attenuation correction.
    save_suv : bool
        Write each study's SUV volume, too.
    suv_type : str
        Of `dose.SUV_TYPES`.
    frames : str or None
        Of dynamic series: "last", "mean", or a number from 1.
    """

    spacing: float
    views: int
    allow_uncorrected: bool
    save_suv: bool = False
    suv_type: str = "bw"
    frames: str | None = None


def rotation_angles(views: int) -> list[int]:
    """Degrees of the projections that --views asks for beside the coronal and the sagittal one."""
    return [angle for angle in (round(180 * k / views) for k in range(views)) if angle not in (0, 90)]


def error_row(where: str, error: Refused) -> Row:
    """The row of errors.csv for a refusal; `where` is a path relative to the searched folder."""
    return dict(zip(ERROR_COLUMNS, (where, error.attribute, error.value, error.reason, error.remedy), strict=True))


# All studies

def convert_studies(studies: dict[str, Study], folder: Path, output: Path, key: bytes | None, options: Options,
                    overwrite: bool, run: Run) -> tuple[dict[str, list[Row]], list[Row]]:
    """Convert the studies that are new or changed since the last run, and note in done.json what was done.

    Parameters
    ----------
    studies : dict of str to Study
        By StudyInstanceUID.
    folder, output : Path
        What was searched, and where images/ and done.json are.
    key : bytes or None
        Of `identifiers.read_key`.
    overwrite : bool
        Convert also what is done and unchanged.
    run : Run
        Of `processes`.

    Returns
    -------
    made : dict of str to list of dict
        StudyInstanceUID -> its rows of data.csv without labels, in the order of scan_id.
    errors : list of dict
        Rows of errors.csv.
    """
    ids = {hash_id(uid, key): uid for uid in studies}
    if alike := set(studies) - set(ids.values()):
        raise InputError(f"--keep_ids: study {sorted(alike)[0]} and another one would both be scan "
                         f"{hash_id(sorted(alike)[0], key)}; rename one, or leave out --keep_ids")
    jobs = [(scan_id, studies[uid]) for scan_id, uid in sorted(ids.items())]
    digests = {scan_id: _digest(study, folder, key, options) for scan_id, study in jobs}
    made = {} if overwrite else _read_done(output, digests)
    errors: list[Row] = []
    if made:
        print(f"{counted(len(made), 'study is done', 'studies are done')}, unchanged and left alone (--overwrite "
              "converts again)")
    todo = [job for job in jobs if job[0] not in made]

    def save() -> None:
        done = {scan_id: {"digest": digests[scan_id], "rows": rows, "places": _places(studies[ids[scan_id]], key)}
                for scan_id, rows in sorted(made.items())}
        write_json(done, output / "done.json")

    try:
        results = run(functools.partial(convert_study, output=output, key=key, options=options), todo, 1)
        with progress(results, "SUV and MIPs", "study", len(todo)) as bar:
            for rows, error in bar:
                errors += error
                if rows:
                    made[rows[0]["scan_id"]] = rows
                    if error:  # of its mask: the next run names it again
                        digests[rows[0]["scan_id"]] = ""
    except BaseException:  # Ctrl-C, say: the next run goes on from here
        with contextlib.suppress(OSError):
            save()
        raise
    save()
    return {ids[scan_id]: rows for scan_id, rows in sorted(made.items())}, errors


def _digest(study: Study, folder: Path, key: bytes | None, options: Options) -> str:
    """What the result of a study depends on: its files by name, size and time, options, code; "" if it is refused."""
    parts: list[Any] = [_code_version(), MAX_ROWS, options, key is None, study.wanted, study.overrides]
    try:
        for uid, paths in [*sorted(study.series.items()), ("mask", [mask.path for mask in study.masks])]:
            for path in sorted(paths):
                stat = os.stat(split_member(path)[0])
                parts.append((uid, path.removeprefix(str(folder)), stat.st_size, stat.st_mtime_ns))
    except OSError:  # gone meanwhile: converting says so
        return ""
    return "" if study.refused else hashlib.blake2b(json.dumps(parts).encode(), digest_size=32, key=key or b""
                                                    ).hexdigest()


@functools.cache
def _code_version() -> str:
    return hashlib.blake2b(b"".join(path.read_bytes() for path in CODE)).hexdigest()


def _done(output: Path) -> dict[str, Any]:
    """done.json: scan_id -> digest and rows of data.csv without labels; empty where there is none."""
    path = output / "done.json"
    try:
        with open_file(path) as file:
            done = parse_json(file.read())
        if all(entry["rows"] and isinstance(entry["digest"], str) and all(
                row["filename"] and row["scan_id"] == scan_id and row["matrix_size_1"] * row["matrix_size_2"]
                for row in entry["rows"]) for scan_id, entry in done.items()):
            return done
        raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); remove it, or give --overwrite") from error


def refuse_dropping(output: Path, folder: Path, studies: Mapping[str, Study], refused: Refusals,
                    key: bytes | None) -> None:
    """Refuse to take studies out of data.csv that an earlier run wrote, because --input has them no more.

    Those that are there and refused now may go: errors.csv lists where they lie.

    Parameters
    ----------
    output : Path
        Where done.json is.
    folder, studies, refused
        Of `dicom_series.find_studies`.
    key : bytes or None
        Of `read_key`.

    Raises
    ------
    InputError
    """
    ids = {hash_id(uid, key) for uid in studies}
    places = [os.path.abspath(folder / where) for where, _ in refused]
    there = {_place_id(place, key) for path in places for place in (path, os.path.dirname(path))}
    gone = [scan_id for scan_id, entry in _done(output).items()
            if scan_id not in ids and not there & set(entry.get("places", ()))]
    if gone:
        raise InputError(f"{output}: data.csv holds {counted(len(gone), 'study', 'studies')} that --input lacks, or "
                         f"names otherwise (--key, --keep_ids): {some(gone, 2)}; give their folder, too (--input A "
                         "--input B), another --output, or --overwrite, which drops them")


def _places(study: Study, key: bytes | None) -> list[str]:
    """Where a study's files lie, folders and archives, each as a hash."""
    folders = {os.path.dirname(path) for paths in study.series.values() for path in paths}
    return sorted({_place_id(os.path.abspath(split_member(folder)[0]), key) for folder in folders})


def _place_id(place: str, key: bytes | None) -> str:
    return hashlib.blake2b(os.fsencode(place), digest_size=12, key=key or b"").hexdigest()


def _read_done(output: Path, digests: dict[str, str]) -> dict[str, list[Row]]:
    """scan_id -> rows of data.csv without labels, of the studies in done.json whose digest and images are unchanged."""
    return {scan_id: entry["rows"] for scan_id, entry in _done(output).items() if entry["digest"] and entry[
        "digest"] == digests.get(scan_id) and all(_is_whole(output, row) for row in entry["rows"])}


def _is_whole(output: Path, row: Row) -> bool:
    size = 4 * row["matrix_size_1"] * row["matrix_size_2"]
    images = [output / row[column] for column in ("filename", "mask") if column in row]
    return all(image.is_file() and image.stat().st_size == size for image in images)


# One study

def convert_study(job: tuple[str, Study], output: Path, key: bytes | None, options: Options
                  ) -> tuple[list[Row], list[Row]]:
    """Write the MIPs of one study.

    Parameters
    ----------
    job : (str, Study)
        scan_id and the study.
    output, key, options
        As `convert_studies` takes them.

    Returns
    -------
    rows, errors : list of dict
        Rows of data.csv without labels, one a view, and of errors.csv: the study's, or its mask's. The first hold what
        is known of `dose.recorded` and the liver (`_liver`), too.

    Raises
    ------
    OSError
        The output cannot be written, or the machine lacks something else.
    """
    scan_id, study = job
    try:
        if study.refused:
            raise study.refused
        paths, warnings = choose_series(study, options.frames is not None)
        if is_volume(paths[0]):
            if study.overrides or options.suv_type != "bw":
                raise Refused("file", Path(paths[0]).name, "is SUV by body weight, without weight, dose and times: "
                              "--overrides and --suv cannot change it", "give the study in DICOM")
            volume = read_volume(paths[0], study.patient)
        else:
            with local_files(paths) as files:
                volume = suv_volume(files, options.allow_uncorrected, options.suv_type, options.frames,
                                    study.overrides)
        if options.save_suv:
            write_volume(volume, output / "suv" / f"{scan_id}.nii.gz")
        mask, said, wrong = study_mask(study.masks, paths, volume)
        rows = _write_mips(volume, mask, scan_id, warnings + volume.warnings + said, output, key, options)
        return rows, [error_row(where, error) for where, error in wrong]
    except Exception as error:  # whatever a damaged file provokes is that study's refusal, not the run's end
        if isinstance(error, OSError) and str(error.filename or "").startswith(str(output)):
            raise
        return [], [error_row(study.folder, unexpected(error))]


def _write_mips(volume: SuvVolume, mask: np.ndarray | None, scan_id: str, warnings: Sequence[str], output: Path,
                key: bytes | None, options: Options) -> list[Row]:
    """Project a volume and its mask, write the images. Returns the rows of data.csv."""
    spacing, angles, warnings = options.spacing, rotation_angles(options.views), list(warnings)
    if not volume.patient_id:
        warnings.append("PatientID is empty")
    images = project(volume.array, volume.spacing, spacing, angles)
    masks = [None] * len(images) if mask is None else project(mask, volume.spacing, spacing, angles)
    if (rows := len(images[0])) > MAX_ROWS:
        warnings.append(f"{counted(rows - MAX_ROWS, 'row')} ({(rows - MAX_ROWS) * spacing:.0f} mm) at the feet end "
                        "cropped")
    common = {"scan_id": scan_id, "patient_id": volume.patient_id and hash_id(volume.patient_id, key),
              "spacing_mm": spacing, "suv_type": volume.suv_type,
              "suv_max": round(float(volume.array.max()), 3), "suv_mean": round(float(volume.array.mean()), 4),
              "suv_body": round(volume.body_mean, 3),
              "uptake_min": "" if volume.uptake_min is None else round(volume.uptake_min, 1),
              "units": volume.units, "scanner": volume.scanner,
              **{name: round(value, 2) for name, value in volume.recorded.items()}, **_liver(volume),
              "warnings": "; ".join(text.replace("; ", ", ") for text in warnings)}
    if volume.synthetic:
        common["synthetic"] = 1
    if mask is not None:
        common["lesions"] = lesions_of(mask, volume)
    made = []
    views = {"cor": 0, "sag": 90} | {f"rot{angle:03d}": angle for angle in angles}
    for (view, angle), image, lesions in zip(views.items(), images, masks, strict=True):
        row0, column0 = pixel_origin(volume, spacing, angle, image.shape)
        image, name = image[:MAX_ROWS], f"images/{scan_id}_{view}.bin"
        digest = _write_image(output / name, image)
        made.append(common | {"filename": name, "view": view, "image_sha256": digest,
                              "matrix_size_1": image.shape[0], "matrix_size_2": image.shape[1],
                              "row0_mm": round(row0, 2), "column0_mm": round(column0, 2)})
        if lesions is not None:
            made[-1]["mask"] = name = f"images/{scan_id}_{view}_mask.bin"
            _write_image(output / name, lesions[:MAX_ROWS] >= 0.5)
    return made


def _liver(volume: SuvVolume) -> Row:
    """liver_suv and where it was taken, liver_mm (z, y, x); {} where it was not found, or is no SUV by body weight."""
    found = find_liver(volume.array, volume.spacing, volume.origin, body_mean(volume.array)
                       ) if volume.suv_type == "bw" else None
    return {"liver_suv": round(found.suv, 2), "liver_mm": [round(each, 1) for each in found.place]} if found else {}


def _write_image(path: Path, image: np.ndarray) -> str:
    """Write float32, little-endian, row by row; return the file's SHA-256."""
    content = image.astype("<f4").tobytes()
    with replace_file(path, "wb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def pixel_origin(volume: SuvVolume, spacing: float, angle: float, shape: tuple[int, ...]) -> tuple[float, float]:
    """Patient coordinates of a projection's first pixel: row r lies at row0_mm - r * spacing, column c at
    column0_mm + c * spacing.

    Parameters
    ----------
    volume : SuvVolume
        What was projected.
    spacing : float
        Pixel size, mm.
    angle : float
        Degrees: 0 coronal, 90 sagittal.
    shape : tuple of int
        (rows, columns), before rows were cropped.

    Returns
    -------
    row0_mm, column0_mm : float
        mm; z of row 0, and x cos(angle) + y sin(angle) of column 0.
    """
    first = [start + first_centre(n, step, spacing)[1] for start, n, step in zip(
        volume.origin, volume.array.shape, volume.spacing, strict=True)]
    if angle in (0, 90):
        return first[0] + (shape[0] - 1) * spacing, first[1 if angle else 2]
    y, x = (start + (n - 1) * step / 2 for start, n, step in zip(
        volume.origin[1:], volume.array.shape[1:], volume.spacing[1:], strict=True))  # the middle, as the projection's
    across = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    return first[0] + (shape[0] - 1) * spacing, across - (shape[1] - 1) * spacing / 2
