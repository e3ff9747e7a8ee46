"""DICOM PET studies -> coronal and sagittal MIPs in SUV (.bin) and their manifest, data.csv.

python prepro_script.py --input dicom --output mips
python prepro_script.py --input dicom --output mips --labels labels.csv --workers 8   # for training
python prepro_script.py --input dicom --list                                          # what is there; writes nothing

Studies that give no trustworthy SUV are listed in errors.csv with the reason and a remedy; the others go on. The same
command again converts what is new or changed, and leaves the rest.
"""
import contextlib
import functools
import hashlib
import importlib
import json
import math
import os
import re
import secrets
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from common.arguments import EXIT_SOME_FAILED, Parser, positive_int, run_script
from common.files import InputError, progress, replace_file, write_csv, write_json
from preprocessing.dicom_reader import Refused
from preprocessing.dicom_series import (
    choose_series,
    find_studies,
    format_table,
    list_files,
    list_series,
    local_files,
    read_checksums,
    split_member,
    unexpected,
    want_series,
)
from preprocessing.geometry import first_centre, project
from preprocessing.qc_page import write_qc
from preprocessing.suv import suv_volume

MAX_ROWS = 310  # the height of LARS's frame
CODE = ("prepro_script.py", "preprocessing/suv.py", "preprocessing/geometry.py", "preprocessing/dicom_reader.py",
        "preprocessing/dicom_series.py")  # what makes a study's result
ERROR_COLUMNS = ["study", "attribute", "value", "reason", "remedy"]
QUALITY_COLUMNS = ["suv_max", "suv_mean", "uptake_min", "units", "scanner", "warnings"]
MANIFEST_COLUMNS = ["scan_id", "filename", "target", "matrix_size_1", "matrix_size_2", "patient_id", "view",
                    "target_loc", "spacing_mm", "row0_mm", "column0_mm"]
IDENTIFYING = re.compile(r"patient|study|name|birth|dob|date|time|accession|mrn|uid|address|phone|mail|path|folder|"
                         r"file|comment|note|description|ssn|(^|_|\b)(id|ids|nr|number)($|_|\b)", re.IGNORECASE)


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("input")
    group.add_argument("--input", required=True, metavar="FOLDER", help="searched with its subfolders and the .zip "
                       "archives in them for PET series; or one .zip, or a DICOMDIR (its folder is searched)")
    group.add_argument("--series", action="append", default=[], metavar="UID", help="SeriesInstanceUID to use in its "
                       "study; may be given several times (default, and in other studies: attenuation corrected, then "
                       "the longest from head to feet, then the one with the most slices)")
    group.add_argument("--checksums", metavar="FILE", help="SHA-256 sums as sha256sum writes them, names relative to "
                       "--input: files that are changed, missing or not listed are refused")
    group.add_argument("--labels", metavar="CSV", help="StudyInstanceUID and target (0 or 1) or deauville (1 to 5), "
                       "optionally target_loc; further columns are carried into data.csv, identifying ones are not")
    group.add_argument("--allow_uncorrected", action="store_true", help="take series without attenuation correction")
    group = parser.add_argument_group("output")
    group.add_argument("--output", metavar="FOLDER",
                       help="gets images/*.bin, data.csv, errors.csv, qc.html, done.json")
    group.add_argument("--list", action="store_true", help="print the studies and PET series that are there, and which "
                       "would be used and why; convert and write nothing")
    group.add_argument("--spacing", type=float, default=3.27, help="pixel size of the MIPs, mm")
    group.add_argument("--views", type=positive_int, default=2, metavar="N", help="projections at N angles, in whole "
                       "degrees, evenly over half a turn about the body's axis (the other half are mirror images): "
                       "coronal (cor, 0) and sagittal (sag, 90) always, the others as rot030 for 30 degrees")
    group.add_argument("--key", metavar="FILE", help="secret, 16 bytes or more, for hashing StudyInstanceUID and "
                       "PatientID into scan_id and patient_id (default: hash_key.txt in --output, made where missing)")
    group.add_argument("--keep_ids", action="store_true", help="write StudyInstanceUID, PatientID and every column of "
                       "--labels as they are")
    group = parser.add_argument_group("running")
    group.add_argument("--overwrite", action="store_true", help="convert again what done.json in --output says is done "
                       "and unchanged")
    group.add_argument("--workers", type=positive_int, default=os.cpu_count() or 1, help="processes")
    return parser


def main(args):
    if not args.list and not args.output:
        raise InputError("--output: missing; give the folder to write to, or --list")
    if not 0.5 <= args.spacing <= 20:
        raise InputError(f"--spacing {args.spacing:g}: must be 0.5 to 20 mm")
    if args.views > 180:
        raise InputError(f"--views {args.views}: must be at most 180, one a degree")
    folder, paths = list_files(args.input)
    labels, carried = read_labels(args.labels, args.keep_ids) if args.labels and not args.list else (None, [])
    sums = read_checksums(args.checksums, folder, paths) if args.checksums else None
    with _processes(args.workers) as run:
        studies, refused = find_studies(folder, paths, sums, run)
        if not studies and not refused:
            raise InputError(f"--input {args.input}: no PET image (Modality PT) among {len(paths)} files; give the "
                             "folder that holds the DICOM studies")
        want_series(studies, args.series)
        if args.list:
            return print_list(studies, refused, run)
        key = None if args.keep_ids else read_key(args.key, Path(args.output))
        errors = [error_row(where, error) for where, error in refused]
        jobs, missing = [], [] if labels is None else sorted(
            row["row"] for uid, row in labels.items() if uid not in studies)
        for uid, study in studies.items():
            if labels is not None and uid not in labels:
                errors.append(error_row(study["folder"], Refused("StudyInstanceUID", uid, f"no row in {args.labels}",
                                                                 "add a row for this study, or remove the study")))
            else:
                jobs.append((hash_id(uid, key), study, labels[uid] if labels else {}))
        jobs.sort(key=lambda job: job[0])
        made, failed = convert_studies(jobs, folder, key, args, run)
        rows = [row | {k: v for k, v in label.items() if k != "row"} for scan_id, _, label in jobs
                for row in made.get(scan_id, ())]
        return report(rows, errors + failed, missing, carried, args, run)


def print_list(studies, refused, run):
    """--list. Returns the exit code."""
    rows = []
    with progress(run(list_series, sorted(studies.items()), 1), "reading headers", "study", len(studies)) as bar:
        for found, error in bar:
            rows += found
            refused += error
    print(format_table(rows))
    print(f"{len(studies)} studies, {len(rows)} PET series; nothing was written")
    for where, error in sorted(refused, key=lambda one: one[0]):
        print(f"refused: {where}: {error}")
    return EXIT_SOME_FAILED if refused else None


def report(rows, errors, missing, carried, args, run):
    """Write data.csv, errors.csv and qc.html, and say what happened. Returns the exit code."""
    import pandas as pd
    output = Path(args.output)
    columns = [c for c in MANIFEST_COLUMNS if c not in ("target", "target_loc") or any(c in row for row in rows)]
    manifest = pd.DataFrame(rows, columns=columns + carried + QUALITY_COLUMNS)
    write_csv(manifest, output / "data.csv")
    scans = {row["scan_id"]: row["warnings"] for row in rows}
    warned = sum(map(bool, scans.values()))
    print(f"{len(scans)} studies -> {output / 'data.csv'} and {len(rows)} MIPs in {output / 'images'}")
    if warned:
        print(f"{warned} studies have warnings: column `warnings` of data.csv")
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        print(f"{len(missing)} rows of {args.labels} have no study under {args.input}: line {shown}")
    errors = sorted(errors, key=lambda row: row["study"])
    if errors:
        write_csv(pd.DataFrame(errors, columns=ERROR_COLUMNS), output / "errors.csv")
    else:
        (output / "errors.csv").unlink(missing_ok=True)
    write_qc(manifest, output, output / "qc.html", run)
    print(f"MIPs and warnings to look at: {output / 'qc.html'}")
    if not errors:
        return None
    for row in errors[:5]:
        print(f"refused: {row['study']}: {row['attribute']} {row['value']!r}: {row['reason']}; {row['remedy']}")
    print(f"{len(errors)} refused: {output / 'errors.csv'} (it names folders of --input: share it with care)")
    return EXIT_SOME_FAILED


# All studies

def convert_studies(jobs, folder, key, args, run):
    """Convert the studies that are new or changed since the last run, and note in done.json what was done.

    Args:
        jobs: list of (scan_id, study as `find_studies` gives it, anything). folder (Path): what was searched.

    Returns:
        scan_id -> its rows of data.csv without labels; rows of errors.csv.
    """
    output, errors = Path(args.output), []
    digests = {scan_id: digest_study(study, folder, key, args) for scan_id, study, _ in jobs}
    made = {} if args.overwrite else read_done(output, digests)
    if made:
        print(f"{len(made)} studies are done and unchanged: left as they are (--overwrite converts them again)")
    todo = [(scan_id, study) for scan_id, study, _ in jobs if scan_id not in made]
    convert = functools.partial(convert_study, output=output, key=key, spacing=args.spacing,
                                angles=rotation_angles(args.views), allow_uncorrected=args.allow_uncorrected)

    def save():
        done = {scan_id: {"digest": digests[scan_id], "rows": rows} for scan_id, rows in sorted(made.items())}
        write_json(done, output / "done.json")

    try:
        results = run(convert, todo, 1)
        importlib.import_module("pandas")  # for the report: a tenth of a second, while the workers convert
        with progress(results, "SUV and MIPs", "study", len(todo)) as bar:
            for rows, error in bar:
                errors += error
                if rows:
                    made[rows[0]["scan_id"]] = rows
    except BaseException:  # Ctrl-C, say: the next run goes on from here
        with contextlib.suppress(OSError):
            save()
        raise
    save()
    return made, errors


def digest_study(study, folder, key, args):
    """What the result of a study hangs on: its files by name, size and time, the arguments, the code; "" if refused."""
    parts = [_code_version(), MAX_ROWS, args.spacing, args.views, args.allow_uncorrected, key is None,
             study.get("wanted")]
    try:
        for uid, paths in sorted(study["series"].items()):
            for path in sorted(paths):
                stat = os.stat(split_member(path)[0])
                parts.append((uid, path.removeprefix(str(folder)), stat.st_size, stat.st_mtime_ns))
    except OSError:  # gone meanwhile: converting says so
        return ""
    return "" if study["refused"] else hashlib.blake2b(json.dumps(parts).encode(), digest_size=32, key=key or b""
                                                       ).hexdigest()


@functools.cache
def _code_version():
    return hashlib.blake2b(b"".join((Path(__file__).parent / name).read_bytes() for name in CODE)).hexdigest()


def read_done(output, digests):
    """scan_id -> rows of data.csv without labels, of the studies in done.json whose digest and images are unchanged."""
    path = output / "done.json"
    try:
        done = json.loads(path.read_text(encoding="utf-8"))
        return {scan_id: entry["rows"] for scan_id, entry in done.items() if entry["digest"] and entry[
            "digest"] == digests.get(scan_id) and all(_is_whole(output, row) for row in entry["rows"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); remove it, or give --overwrite") from error


def _is_whole(output, row):
    image = output / row["filename"]
    return image.is_file() and image.stat().st_size == 4 * row["matrix_size_1"] * row["matrix_size_2"]


# One study

def rotation_angles(views):
    """Degrees of the projections that --views asks for beside the coronal and the sagittal one."""
    return [angle for angle in (round(180 * k / views) for k in range(views)) if angle not in (0, 90)]


def convert_study(job, output, key, spacing, angles, allow_uncorrected):
    """Write the MIPs of one study.

    Args:
        job: (scan_id, study as `find_studies` gives it). angles: as `rotation_angles` gives them.

    Returns:
        (rows of data.csv without labels, rows of errors.csv): one a view and none, or none and one.
    """
    scan_id, study = job
    try:
        if study["refused"]:
            raise study["refused"]
        paths, warnings = choose_series(study)
        with local_files(paths) as files:
            volume = suv_volume(files, allow_uncorrected)
        warnings += volume.warnings
        if not volume.patient_id:
            warnings.append("PatientID is empty")
        images = project(volume.array, volume.spacing, spacing, angles)
        if (rows := len(images[0])) > MAX_ROWS:
            warnings.append(f"{rows - MAX_ROWS} rows ({(rows - MAX_ROWS) * spacing:.0f} mm) at the feet end cropped")
        common = {"scan_id": scan_id, "patient_id": volume.patient_id and hash_id(volume.patient_id, key),
                  "spacing_mm": spacing,
                  "suv_max": round(float(volume.array.max()), 3), "suv_mean": round(float(volume.array.mean()), 4),
                  "uptake_min": "" if volume.uptake_min is None else round(volume.uptake_min, 1),
                  "units": volume.units, "scanner": volume.scanner,
                  "warnings": "; ".join(text.replace("; ", ", ") for text in warnings)}
        made = []
        views = {"cor": 0, "sag": 90} | {f"rot{angle:03d}": angle for angle in angles}
        for (view, angle), image in zip(views.items(), images, strict=True):
            row0, column0 = pixel_origin(volume, spacing, angle, image.shape)
            image, name = image[:MAX_ROWS], f"images/{scan_id}_{view}.bin"
            with replace_file(output / name, "wb") as file:
                file.write(image.astype("<f4").tobytes())
            made.append(common | {"filename": name, "view": view, "matrix_size_1": image.shape[0], "matrix_size_2":
                                  image.shape[1], "row0_mm": round(row0, 2), "column0_mm": round(column0, 2)})
        return made, []
    except Refused as error:
        return [], [error_row(study["folder"], error)]
    except OSError as error:
        if error.filename and str(error.filename).startswith(str(output)):
            raise InputError(f"--output {output}: {error.strerror}; give a folder that can be written") from error
        return [], [error_row(study["folder"], unexpected(error))]
    except Exception as error:  # whatever a damaged file provokes is that study's refusal, not the run's end
        return [], [error_row(study["folder"], unexpected(error))]


def pixel_origin(volume, spacing, angle, shape):
    """Patient coordinates, mm, of a projection's first pixel: z of row 0, and of column 0 x cos(angle) + y sin(angle).

    Row r lies at row0_mm - r * spacing_mm, column c at column0_mm + c * spacing_mm.
    """
    first = [start + first_centre(n, step, spacing)[1] for start, n, step in zip(
        volume.origin, volume.array.shape, volume.spacing, strict=True)]
    if angle in (0, 90):
        return first[0] + (shape[0] - 1) * spacing, first[1 if angle else 2]
    y, x = (start + (n - 1) * step / 2 for start, n, step in zip(
        volume.origin[1:], volume.array.shape[1:], volume.spacing[1:], strict=True))  # the middle, as the projection's
    across = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    return first[0] + (shape[0] - 1) * spacing, across - (shape[1] - 1) * spacing / 2


def error_row(where, error):
    return dict(zip(ERROR_COLUMNS, (where, error.attribute, error.value, error.reason, error.remedy), strict=True))


# Identifiers and labels

def read_key(path, output):
    """The key of the hashes: from --key, else from hash_key.txt in the output folder, made there the first time."""
    default = output / "hash_key.txt"
    if path is None:
        with contextlib.suppress(FileExistsError):
            output.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(default, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
            print(f"new key {default}: with it, scan_id and patient_id can be traced to studies and patients. Keep it "
                  "from whoever gets the images, and give it as --key wherever the same patients must match")
    try:
        secret = Path(path or default).read_bytes().strip()
    except OSError as error:
        raise InputError(f"--key {path or default}: {error.strerror}; give a readable file") from error
    if len(secret) < 16:
        raise InputError(f"--key {path or default}: {len(secret)} bytes; a key needs at least 16")
    return hashlib.blake2b(secret).digest()


def hash_id(value, key):
    """Keyed BLAKE2b (RFC 7693) of an identifier, 24 hexadecimal digits; the identifier itself where key is None."""
    return value if key is None else hashlib.blake2b(value.encode(), digest_size=12, key=key).hexdigest()


def read_labels(path, keep_ids):
    """Read and check --labels.

    Returns:
        dict: StudyInstanceUID -> {"row": line in the file, "target": 0 or 1, "target_loc": int (optional), carried
        columns}; list of the carried columns' names.

    Raises:
        InputError: naming the line and column.
    """
    import pandas as pd
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--labels {path}: {reason}; give a readable CSV") from error
    if "StudyInstanceUID" not in table or not {"target", "deauville"} & set(table):
        raise InputError(f"--labels {path}: needs the column StudyInstanceUID and target or deauville, has "
                         f"{', '.join(table)}")
    own = {"StudyInstanceUID", "target", "target_loc", *MANIFEST_COLUMNS, *QUALITY_COLUMNS}
    others = [c for c in table if c not in own and not re.fullmatch(r"split\d+", c)]
    carried = [c for c in others if keep_ids or not IDENTIFYING.search(c)]
    dropped = [c for c in table if c not in carried + ["StudyInstanceUID", "target", "target_loc"]]
    print(f"{path}: {len(table)} rows; columns carried into data.csv: {', '.join(carried) or 'none'}; "
          f"left out: {', '.join(dropped) or 'none'}")
    labels = {}
    for line, row in enumerate(table.to_dict("records"), start=2):
        uid, where = row["StudyInstanceUID"].strip(), f"--labels {path}: line {line}"
        if not uid or uid in labels:
            fault = f"on line {labels[uid]['row']} too" if uid else "empty"
            raise InputError(f"{where}: StudyInstanceUID is {fault}; give each study one row")
        labels[uid] = {"row": line, "target": _target(row, where), **{name: row[name] for name in carried}}
        if row.get("target_loc"):
            labels[uid]["target_loc"] = _whole(row, "target_loc", range(1000), where)
    return labels, carried


def _target(row, where):
    target = _whole(row, "target", (0, 1), where) if row.get("target") else None
    score = _whole(row, "deauville", range(1, 6), where) if row.get("deauville") else None
    if target is None and score is None:
        raise InputError(f"{where}: no target and no deauville; fill in one, or remove the row")
    if None not in (target, score) and target != (score >= 4):
        raise InputError(f"{where}: target {target} contradicts deauville {score} (1 to 3 is 0, 4 and 5 are 1); "
                         "correct one of them")
    return int(score >= 4) if target is None else target


def _whole(row, column, allowed, where):
    value = row[column].strip()
    if not re.fullmatch(r"\d+(\.0+)?", value) or int(float(value)) not in allowed:
        raise InputError(f"{where}: {column} {value!r} is not {allowed[0]} to {allowed[-1]}; correct it")
    return int(float(value))


# Processes

@contextlib.contextmanager
def _processes(workers):
    """Yields run(function, items, chunk): results in the order of the items, from `workers` processes."""
    if workers == 1:
        yield lambda function, items, chunk: map(function, items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        yield lambda function, items, chunk: pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise InputError(f"--workers {workers}: a process died, probably for lack of memory; use fewer") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    run_script(get_args_parser, main)
