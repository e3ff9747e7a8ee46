"""What prepro_script.py writes of its studies: data.csv, errors.csv and qc.html; and what it says of them."""
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from common.files import InputError, read_csv, write_csv
from common.manifest import spelled_alike
from common.text import counted, some
from common.workers import Run
from preprocessing.conversion import ERROR_COLUMNS, Row
from preprocessing.dicom_series import Study
from preprocessing.identifiers import fingerprint, hash_id
from preprocessing.labels import Label
from preprocessing.qc_page import without_names, write_qc

# What describes a view's image, and its study, in data.csv
MANIFEST_COLUMNS = ["scan_id", "filename", "target", "matrix_size_1", "matrix_size_2", "patient_id", "view",
                    "target_loc", "spacing_mm", "suv_type", "row0_mm", "column0_mm", "mask", "lesions"]
OF_MASKS_AND_PHANTOMS = ("mask", "lesions", "synthetic")
OPTIONAL_COLUMNS = ("target", "target_loc", *OF_MASKS_AND_PHANTOMS)
QUALITY_COLUMNS = ["synthetic", "suv_max", "suv_mean", "uptake_min", "units", "scanner", "warnings", "image_sha256",
                   "id_key"]
MANY = 20  # studies of a patient, who hardly has so many
RECORDED = {"recorded_MBq": "dose_MBq", "recorded_kg": "weight_kg", "recorded_liver": "liver_suv",
            "recorded_body": "suv_body"}  # for qc.html: a column of --labels may have the second name
FILLED = {"lesions", "synthetic"}  # columns of data.csv that --labels may give, too
OWN_COLUMNS = sorted({*MANIFEST_COLUMNS, *QUALITY_COLUMNS, *RECORDED, "row", "set"} - FILLED)  # not --labels'


def with_labels(made: Mapping[str, Sequence[Row]], labelled: Mapping[str, Label] | None, key: bytes | None,
                from_masks: bool) -> list[Row]:
    """The rows of data.csv with what --labels says of their studies; a patient_id of its own is hashed.

    Empty cells of `FILLED` leave what a row has. `from_masks`: target 1 where the mask holds a lesion, 0 where it is
    empty.
    """
    rows, of_key = [], fingerprint(key)
    for uid, several in made.items():
        given = dict(labelled[uid].values) if labelled is not None else {}
        if "patient_id" in given:
            given["patient_id"] = hash_id(given["patient_id"], key)
        for row in several:
            row = row | {"id_key": of_key} | {name: row.get(stored) for name, stored in RECORDED.items()}
            target = {"target": int(row["lesions"] != "")} if from_masks and "mask" in row else {}
            rows.append(row | target | {name: value for name, value in given.items()
                                        if value != "" or name not in FILLED or name not in row})
    if from_masks:
        targets = Counter({row["scan_id"]: row["target"] for row in rows if "mask" in row}.values())
        print(f"target from masks: 1 in {counted(targets[1], 'study', 'studies')}, 0 in {targets[0]}; "
              f"{len(made) - targets.total()} have no mask")
    return rows


def print_alike(made: Mapping[str, Sequence[Row]], studies: Mapping[str, Study],
                labelled: Mapping[str, Label] | None) -> None:
    """Name the scans whose PatientIDs, or patient_ids of --labels, are `spelled_alike`: hashes no longer show it."""
    names = pd.Series({rows[0]["scan_id"]: (labelled[uid].values if labelled else {}).get(
        "patient_id", studies[uid].patient) for uid, rows in made.items()}, dtype=str)
    names = names[names != ""]
    alike = [f"({some(group.index)})" for _, group in names.groupby(spelled_alike(names)) if group.nunique() > 1]
    if alike:
        print("warning: PatientIDs that differ in blanks, case or zeros only count as several patients: scans "
              f"{some(alike, 3)}. Where they are one, give them one patient_id, a new one, in --labels")


def write_results(rows: Sequence[Row], errors: Sequence[Row], carried: Sequence[str], output: Path, overwrite: bool,
                  run: Run) -> None:
    """Write what `write_tables` writes, and qc.html.

    Parameters
    ----------
    rows, errors, carried, output, overwrite
        As `write_tables` takes them.
    run : Run
        Of `common.workers.processes`.
    """
    manifest = write_tables(rows, errors, carried, output, overwrite)
    seen = pd.DataFrame(rows, manifest.index, columns=list(RECORDED))
    write_qc(pd.concat([manifest, seen], axis=1), output, output / "qc.html", run)


def write_tables(rows: Sequence[Row], errors: Sequence[Row], carried: Sequence[str], output: Path,
                 overwrite: bool = True) -> pd.DataFrame:
    """Write data.csv and errors.csv.

    Parameters
    ----------
    rows, errors : sequence of dict
        Of data.csv and errors.csv; without errors, errors.csv goes.
    carried : sequence of str
        Columns of --labels that go into data.csv.
    output : Path
        Folder, with images/ in it.
    overwrite : bool
        Replace a data.csv that holds what the new one does not: `refuse_losing`.

    Returns
    -------
    DataFrame
        data.csv.
    """
    columns, quality = ([c for c in names if c not in carried and (
        c not in OPTIONAL_COLUMNS or any(c in row for row in rows))] for names in (MANIFEST_COLUMNS, QUALITY_COLUMNS))
    manifest = pd.DataFrame(rows, columns=[*columns, *carried, *quality])
    if "target" in manifest:
        manifest["target"] = manifest["target"].astype("Int64")  # where some have none, too
    path = output / "data.csv"
    before = None
    if path.is_file():
        with contextlib.suppress(InputError) if overwrite else contextlib.nullcontext():  # or none that can be read
            before = read_csv(path, ("filename",))
        if not overwrite:
            refuse_losing(path, before, manifest)
    write_csv(manifest, path)
    if before is not None:
        print_changes(path, before, ["target", "target_loc", "patient_id", *carried])
    if errors:
        write_csv(pd.DataFrame(errors, columns=ERROR_COLUMNS), output / "errors.csv", private=True)
    else:
        (output / "errors.csv").unlink(missing_ok=True)
    return manifest


def print_changes(path: Path, before: pd.DataFrame, columns: Sequence[str]) -> None:
    """Name the scans of which the data.csv at `path` says something else in `columns` than `before` it was replaced."""
    both = before.merge(read_csv(path, ("filename",)), on="filename", suffixes=("", " now"))
    for name in columns:
        if f"{name} now" in both and (changed := both[both[name] != both[f"{name} now"]]["scan_id"].unique()).size:
            print(f"warning: {name} of {counted(len(changed), 'scan')} ({some(changed)}) is not what it was in {path}: "
                  "what was corrected there by hand is lost, and belongs in the table of --labels")


def refuse_losing(path: Path, before: pd.DataFrame, manifest: pd.DataFrame) -> None:
    """Refuse (InputError) to replace the data.csv at `path`, `before`, where it holds columns, such as splits or those
    of an earlier run's --labels, or masks of somebody's own, that the new one lacks."""
    lost = [name for name in before if name not in manifest and name not in OF_MASKS_AND_PHANTOMS
            and before[name].any()]
    made = before["filename"].str.replace(".bin", "_mask.bin")
    lost += ["mask"] * ("mask" in before and not before["mask"].isin(["", *made]).all())
    if lost:
        raise InputError(f"{path}: {some(lost)} in it would be lost, put there since or by --labels, --carry or "
                         "--target_from_masks of an earlier run; rename it and run again, or give --overwrite, which "
                         "drops that")


def print_results(rows: Sequence[Row], errors: Sequence[Row], passed_over: int, output: Path) -> None:
    """Say what was made and passed over, what is odd, and what was refused; names of folders are in errors.csv only."""
    scans = {row["scan_id"]: row["warnings"] for row in rows}
    print(f"{counted(len(scans), 'study', 'studies')} -> {output / 'data.csv'} and {len(rows)} MIPs in "
          f"{output / 'images'}")
    if warned := sum(map(bool, scans.values())):
        print(f"{counted(warned, 'study has', 'studies have')} warnings: column `warnings` of data.csv")
    patients = Counter({row["scan_id"]: row["patient_id"] for row in rows if row["patient_id"]}.values())
    most = max(patients.values(), default=0)
    if most == len(scans) > 1 or most >= MANY:
        print(f"warning: {f'{most} of' if most < len(scans) else 'all'} {counted(len(scans), 'study', 'studies')} have "
              "one PatientID (of NIfTI, one folder): are they of one patient? If not, no split can keep patients "
              "apart; give each study its own in the column patient_id of --labels")
    if passed_over:
        print(f"passed over, without a label: {counted(passed_over, 'study', 'studies')} (errors.csv names them "
              "without --skip_unlabelled)")
    print(f"MIPs and warnings to look at: {output / 'qc.html'}")
    print_refused(errors, output)


def print_refused(errors: Sequence[Row], output: Path) -> None:
    """Say what was refused, without names, and where all of it is listed."""
    for line, row in enumerate(errors[:5], start=2):
        print(f"refused (line {line} of errors.csv): {row['attribute']}: {without_names(row)}; {row['remedy']}")
    if errors:
        print(f"{len(errors)} refused: {output / 'errors.csv'} (it names folders of --input: share it with care)")
