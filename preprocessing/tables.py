"""The tables: --labels, the target of each study; data.csv, errors.csv and qc.html; what the script says of them."""
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from common.files import InputError, read_csv, write_csv
from common.text import counted, some
from common.workers import Run
from preprocessing.conversion import ERROR_COLUMNS, Row
from preprocessing.dicom_series import Study
from preprocessing.identifiers import fingerprint, hash_id
from preprocessing.qc_page import write_qc

# What describes a view's image, and its study, in data.csv
MANIFEST_COLUMNS = ["scan_id", "filename", "target", "matrix_size_1", "matrix_size_2", "patient_id", "view",
                    "target_loc", "spacing_mm", "suv_type", "row0_mm", "column0_mm", "mask", "lesions"]
OPTIONAL_COLUMNS = ("target", "target_loc", "mask", "lesions")
QUALITY_COLUMNS = ["suv_max", "suv_mean", "uptake_min", "units", "scanner", "warnings", "image_sha256",
                   "id_key"]
IDENTIFYING = re.compile(r"patient|study|name|birth|dob|date|time|accession|mrn|uid|address|phone|mail|path|folder|"
                         r"file|comment|note|description|ssn|(^|_|\b)(id|ids|nr|number)($|_|\b)", re.IGNORECASE)


class Labels(NamedTuple):
    """What --labels says.

    Attributes
    ----------
    path : str
        The file.
    rows : dict of str to dict
        StudyInstanceUID -> columns for data.csv: target (0 or 1), target_loc (int) and patient_id (not hashed) where
        given, carried columns (text).
    lines : dict of str to int
        StudyInstanceUID -> line in the file.
    carried : list of str
        Names of the carried columns.
    """

    path: str
    rows: dict[str, dict[str, Any]]
    lines: dict[str, int]
    carried: list[str]


def read_labels(path: str, keep_ids: bool, need_target: bool = True) -> Labels:
    """Read and check --labels.

    Parameters
    ----------
    path : str
        CSV with StudyInstanceUID and target (0 or 1) or deauville (1 to 5), optionally target_loc.
    keep_ids : bool
        Carry identifying columns, too.
    need_target : bool
        Every row must have a target or deauville.

    Raises
    ------
    InputError
        Naming the line and column.
    """
    try:
        table = read_csv(path, ("StudyInstanceUID",))
    except InputError as error:
        raise InputError(f"--labels {error}") from error
    names = list(map(str, table.columns))
    if need_target and not {"target", "deauville"} & set(names):
        raise InputError(f"--labels {path}: needs the column target or deauville, has {', '.join(names)}")
    own = {"StudyInstanceUID", *MANIFEST_COLUMNS, *QUALITY_COLUMNS} - {"lesions"}
    others = [c for c in names if c not in own and not re.fullmatch(r"split\d+", c)]
    carried = [c for c in others if keep_ids or not IDENTIFYING.search(c)]
    dropped = [c for c in names if c not in carried + ["StudyInstanceUID", "target", "target_loc", "patient_id"]]
    print(f"{path}: {counted(len(table), 'row')}; columns carried into data.csv: {', '.join(carried) or 'none'}; "
          f"left out: {', '.join(dropped) or 'none'}" + "; patient_id replaces PatientID" * ("patient_id" in names))
    labels = Labels(path, {}, {}, carried)
    for line, row in enumerate(table.to_dict("records"), start=2):
        uid, where = row["StudyInstanceUID"].strip(), f"--labels {path}: line {line}"
        if not uid or uid in labels.lines:
            fault = f"on line {labels.lines[uid]} too" if uid else "empty"
            raise InputError(f"{where}: StudyInstanceUID is {fault}; give each study one row")
        labels.lines[uid] = line
        labels.rows[uid] = {name: row[name] for name in carried}
        if (target := _target(row, where, need_target)) is not None:
            labels.rows[uid]["target"] = target
        if (site := _whole(row, "target_loc", range(1000), where)) is not None:
            labels.rows[uid]["target_loc"] = site
        if patient := row.get("patient_id", "").strip():
            labels.rows[uid]["patient_id"] = patient
    return labels


def _target(row: dict[Any, Any], where: str, needed: bool) -> int | None:
    target, score = _whole(row, "target", (0, 1), where), _whole(row, "deauville", range(1, 6), where)
    if needed and target is None and score is None:
        raise InputError(f"{where}: no target and no deauville; fill in one, or remove the row")
    scored = target if score is None else int(score >= 4)
    if target not in (None, scored):
        raise InputError(f"{where}: target {target} contradicts deauville {score} (1 to 3 is 0, 4 and 5 are 1); "
                         "correct one of them")
    return scored


def _whole(row: dict[Any, Any], column: str, allowed: Sequence[int], where: str) -> int | None:
    """The number in a column; None where it is empty or there is no such column."""
    if not row.get(column):
        return None
    value = row[column].strip()
    if not re.fullmatch(r"\d+(\.0+)?", value) or int(float(value)) not in allowed:
        raise InputError(f"{where}: {column} {value!r} is not {allowed[0]} to {allowed[-1]}; correct it")
    return int(float(value))


def check_targets(labels: Labels, studies: dict[str, Study]) -> None:
    """Refuse a target in --labels where the study's mask is to give it (InputError)."""
    lines = sorted(labels.lines[uid] for uid, row in labels.rows.items()
                   if "target" in row and uid in studies and studies[uid].masks)
    if lines:
        raise InputError(f"--labels {labels.path}: line {some(lines, 10)}: has a target, and its study a mask: leave "
                         "the one empty, or --target_from_masks out")


# Results

def with_labels(made: Mapping[str, Sequence[Row]], labels: Labels | None, key: bytes | None, from_masks: bool
                ) -> list[Row]:
    """The rows of data.csv with what --labels says of their studies; a patient_id of its own is hashed.

    Empty cells leave what a row has. `from_masks`: target 1 where the mask holds a lesion, 0 where it is empty.
    """
    rows, of_key = [], fingerprint(key)
    for uid, several in made.items():
        given = dict(labels.rows[uid]) if labels else {}
        if "patient_id" in given:
            given["patient_id"] = hash_id(given["patient_id"], key)
        for row in several:
            row = row | {"id_key": of_key}
            target = {"target": int(row["lesions"] != "")} if from_masks and "mask" in row else {}
            rows.append(row | target | {name: value for name, value in given.items() if value != "" or name not in row})
    if from_masks:
        targets = Counter({row["scan_id"]: row["target"] for row in rows if "mask" in row}.values())
        print(f"target from masks: 1 in {counted(targets[1], 'study', 'studies')}, 0 in {targets[0]}; "
              f"{len(made) - targets.total()} have no mask")
    return rows


def write_results(rows: Sequence[Row], errors: Sequence[Row], carried: Sequence[str], output: Path, run: Run) -> None:
    """Write what `write_tables` writes, and qc.html.

    Parameters
    ----------
    rows, errors, carried, output
        As `write_tables` takes them.
    run : Run
        Of `conversion.processes`.
    """
    write_qc(write_tables(rows, errors, carried, output), output, output / "qc.html", run)


def write_tables(rows: Sequence[Row], errors: Sequence[Row], carried: Sequence[str], output: Path) -> pd.DataFrame:
    """Write data.csv and errors.csv.

    Parameters
    ----------
    rows, errors : sequence of dict
        Of data.csv and errors.csv; without errors, errors.csv goes.
    carried : sequence of str
        Columns of --labels that go into data.csv.
    output : Path
        Folder, with images/ in it.

    Returns
    -------
    DataFrame
        data.csv.
    """
    columns = [c for c in MANIFEST_COLUMNS if c not in carried and (
        c not in OPTIONAL_COLUMNS or any(c in row for row in rows))]
    manifest = pd.DataFrame(rows, columns=[*columns, *carried, *QUALITY_COLUMNS])
    if "target" in manifest:
        manifest["target"] = manifest["target"].astype("Int64")  # where some have none, too
    write_csv(manifest, output / "data.csv")
    if errors:
        write_csv(pd.DataFrame(errors, columns=ERROR_COLUMNS), output / "errors.csv")
    else:
        (output / "errors.csv").unlink(missing_ok=True)
    return manifest


def print_results(rows: Sequence[Row], errors: Sequence[Row], labels: Labels | None, studies: dict[str, Study],
                  passed_over: Sequence[tuple[str, str]], output: Path) -> None:
    """Say what was made and passed over, which labels have no study, what is odd, and what was refused."""
    scans = {row["scan_id"]: row["warnings"] for row in rows}
    print(f"{counted(len(scans), 'study', 'studies')} -> {output / 'data.csv'} and {len(rows)} MIPs in "
          f"{output / 'images'}")
    if warned := sum(map(bool, scans.values())):
        print(f"{counted(warned, 'study has', 'studies have')} warnings: column `warnings` of data.csv")
    patients = {row["patient_id"] for row in rows}
    if len(patients) == 1 < len(scans) and patients != {""}:
        print(f"warning: all {counted(len(scans), 'study', 'studies')} have one PatientID: are they of one patient? If "
              "not, no split can keep patients apart; give each study its own in the column patient_id of --labels")
    if passed_over:
        where = some(sorted(folder for folder, _ in passed_over), 10)
        print(f"passed over, without a label: {counted(len(passed_over), 'study', 'studies')}: {where}")
    missing = sorted(line for uid, line in labels.lines.items() if uid not in studies) if labels else []
    if labels and missing:
        print(f"without a study in --input: {counted(len(missing), 'row')} of {labels.path}: line {some(missing, 10)}")
    print(f"MIPs and warnings to look at: {output / 'qc.html'}")
    print_refused(errors, output)


def print_refused(errors: Sequence[Row], output: Path) -> None:
    """Say what was refused, and where all of it is listed."""
    for row in errors[:5]:
        print(f"refused: {row['study']}: {row['attribute']} {row['value']!r}: {row['reason']}; {row['remedy']}")
    if errors:
        print(f"{len(errors)} refused: {output / 'errors.csv'} (it names folders of --input: share it with care)")
