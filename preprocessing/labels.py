"""--labels: the target of each study, and which study a row is of; --labels_template, the table to fill in."""
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from common.files import InputError, read_csv, without_na, write_csv
from common.manifest import canonical
from common.text import counted, deauville_digits, some, whole_number
from preprocessing.dates import one_order, readings, to_date
from preprocessing.dicom_series import Study
from preprocessing.identifiers import hash_id

WAYS = ("StudyInstanceUID", "scan_id", "AccessionNumber", "patient_id")  # to name a study; the first counts
NAMES = "StudyInstanceUID, scan_id, AccessionNumber, or PatientID and StudyDate"
TEMPLATE = ["StudyInstanceUID", "PatientID", "StudyDate", "AccessionNumber", "deauville", "target"]


class Label(NamedTuple):
    """A row of --labels.

    Attributes
    ----------
    line : int
        In the file.
    names : dict of str to str
        Of `WAYS` and StudyDate, what it gives; the date as it stands there.
    values : dict
        For data.csv: target (0 or 1) and target_loc, patient_id (not hashed) where given, carried columns (texts).
    """

    line: int
    names: dict[str, str]
    values: dict[str, Any]


class Labels(NamedTuple):
    """What --labels says.

    Attributes
    ----------
    path : str
        The file.
    rows : list of Label
        In its order.
    carried : list of str
        Names of the carried columns.
    day_first : bool or None
        How its dates such as 03/10/2024 are read; None: they do not say.
    """

    path: str
    rows: list[Label]
    carried: list[str]
    day_first: bool | None


def read_labels(path: str, carry: Sequence[str] = (), made: Sequence[str] = (), need_target: bool = True) -> Labels:
    """Read and check --labels.

    Parameters
    ----------
    path : str
        Table with one of `WAYS` and target (0 or 1) or deauville (1 to 5), optionally target_loc and patient_id.
    carry : sequence of str
        Columns to carry into data.csv, beside deauville.
    made : sequence of str
        Columns of data.csv that are not --labels' to give.
    need_target : bool
        Every row must have a target or deauville.

    Raises
    ------
    InputError
        Naming the line and column, no value: it may identify a patient.
    """
    seen: dict[str, None] = {}

    def used(name):
        seen[name] = None
        return name in (*WAYS, "StudyDate", "target", "target_loc", "deauville", *carry)

    try:
        table = read_csv(path, usecols=used)
    except InputError as error:
        raise InputError(f"--labels {error}") from error
    names = list(seen)
    for name in table.columns.intersection([*WAYS, "StudyDate", "target", "target_loc", "deauville"]):
        table[name] = without_na(table[name])
    if not (set(WAYS[:3]) & set(names) or {"patient_id", "StudyDate"} <= set(names)):
        raise InputError(f"--labels {path}: has no column that names studies ({NAMES}); it has {', '.join(names)}")
    if need_target and not {"target", "deauville"} & set(names):
        raise InputError(f"--labels {path}: needs the column target or deauville, has {', '.join(names)}")
    if unknown := [name for name in carry if name not in names]:
        raise InputError(f"--carry {unknown[0]}: {path} has no such column; it has {', '.join(names)}")
    if own := [name for name in carry if name in made or re.fullmatch(r"split\d+", name)]:
        raise InputError(f"--carry {own[0]}: data.csv has a column of this name; rename that of {path}")
    carried = [name for name in names if name in carry or name == "deauville"]
    left_out = [name for name in names if name not in (*carried, *WAYS, "StudyDate", "target", "target_loc")]
    print(f"{path}: {counted(len(table), 'row')}; columns carried into data.csv: {', '.join(carried) or 'none'}; "
          f"left out: {', '.join(left_out) or 'none'}" + " (--carry COLUMN ... takes them)" * bool(left_out))
    try:
        day_first = one_order(table["StudyDate"]) if "StudyDate" in table else None
    except ValueError as error:
        raise InputError(f"--labels {path}: StudyDate holds {error}; write 2024-03-10") from None
    rows = [_label(row, line, f"--labels {path}: line {line}", carried, need_target)
            for line, row in zip(table.index, table.to_dict("records"), strict=True)]
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        way = next(name for name in WAYS if row.names.get(name))
        if way != "patient_id" and (line := first.setdefault((way, row.names[way]), row.line)) != row.line:
            raise InputError(f"--labels {path}: line {row.line}: {way} is on line {line} too; give each study one row")
        if way == "patient_id" and not to_date(row.names["StudyDate"], day_first):
            raise InputError(f"--labels {path}: line {row.line}: StudyDate may be two days; write 2024-03-10")
    return Labels(path, rows, carried, day_first)


def _label(row: dict[Any, Any], line: int, where: str, carried: Sequence[str], need_target: bool) -> Label:
    names = {name: row[name] for name in (*WAYS, "StudyDate") if row.get(name)}
    if not set(WAYS) & set(names):
        raise InputError(f"{where}: names no study; fill in {NAMES}")
    if not set(WAYS[:3]) & set(names) and "StudyDate" not in names:
        raise InputError(f"{where}: PatientID alone names no study; fill in StudyDate, too")
    if "StudyDate" in names and not readings(names["StudyDate"]):
        raise InputError(f"{where}: StudyDate is no date such as 2024-03-10; correct it")
    values: dict[str, Any] = {name: row[name] for name in carried}
    if (target := _target(row, where, need_target)) is not None:
        values["target"] = target
    if codes := [text.strip() for text in row.get("target_loc", "").split(";") if text.strip()]:
        if None in map(whole_number, codes):
            raise InputError(f"{where}: target_loc {row['target_loc']!r} is no code of a site, such as 6, or of "
                             "several, 6;20; correct it")
        values["target_loc"] = ";".join(str(whole_number(code)) for code in codes)
    if patient := row.get("patient_id"):
        if re.fullmatch(r"\d([.,]\d+)?E\+\d+", patient, re.IGNORECASE):
            raise InputError(f"{where}: PatientID is a number that Excel has shortened, as 2.02401E+11; format the "
                             "column as text and fill it in again")
        values["patient_id"] = patient
    return Label(line, names, values)


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
    text = row[column].strip()
    if (value := whole_number(deauville_digits(text) if column == "deauville" else text)) not in allowed:
        raise InputError(f"{where}: {column} {text!r} is not {allowed[0]} to {allowed[-1]}; correct it")
    return value


# Which study a row is of

def join_labels(labels: Labels, studies: Mapping[str, Study], key: bytes | None) -> dict[str, Label]:
    """The rows by the StudyInstanceUID of their studies; a line says which have none.

    Of the columns that a row fills in, the first of `WAYS` names its study; what the others say must agree with it, but
    for zeros, blanks and case, and patient_id may replace a PatientID.

    Parameters
    ----------
    labels : Labels
        Of `read_labels`.
    studies : dict of str to Study
        By StudyInstanceUID.
    key : bytes or None
        Of the hashes, for rows that give scan_id.

    Raises
    ------
    InputError
        Naming the lines: of several studies, of a study that another row has, or that agree with theirs only in part.
    """
    index: dict[tuple[str, ...], list[str]] = {}
    loose = set()  # what is written otherwise: Excel drops leading zeros
    for uid, study in studies.items():
        for name in (("StudyInstanceUID", uid), ("scan_id", hash_id(uid, key)), ("AccessionNumber", study.accession),
                     ("patient_id", study.patient, study.date), ("patient_id", study.patient)):
            if all(name):
                index.setdefault(name, []).append(uid)
                loose.add((name[0], _loosely(name[1])))
    found: dict[str, Label] = {}
    faults, missing, other_days = [], [], []
    for row in labels.rows:
        way = next(name for name in WAYS if row.names.get(name))
        name = (way, row.names[way])
        by_day = (*name, to_date(row.names["StudyDate"], labels.day_first)) if way == "patient_id" else name
        uids = index.get(by_day, [])
        if len(uids) == 1:
            fault = _disagreement(row, studies[uids[0]], hash_id(uids[0], key)) or (
                uids[0] in found and f"is of the same study as line {found[uids[0]].line}; keep one")
        else:
            fault = f"several studies have its {_said(way)}; give StudyInstanceUID" if uids else (
                name not in index and (way, _loosely(name[1])) in loose and way != "StudyInstanceUID"
                and f"{_said(way, day=False)} is a study's but for zeros, blanks or case; write it as DICOM has it")
            missing += [row.line] * (not uids)
            other_days += [row.line] * (not uids and name in index)
        if fault:
            faults.append(f"line {row.line}: {fault}")
        elif uids:
            found[uids[0]] = _as_stored(row, studies[uids[0]])
    if faults:
        raise InputError(f"--labels {labels.path}: {faults[0]}" + (
            f" (and {len(faults) - 1} more lines like it)" if len(faults) > 1 else ""))
    if missing:
        print(f"without a study in --input: {counted(len(missing), 'row')} of {labels.path}: line "
              f"{some(missing, 10)}" + (
            f"; of these the patient has one on another day: line {some(other_days, 10)}" if other_days else ""))
    _say_replaced(labels, found, studies)
    return found


def _say_replaced(labels: Labels, found: Mapping[str, Label], studies: Mapping[str, Study]) -> None:
    """Say where a row's patient_id is another one than DICOM's; warn where it divides the studies of a PatientID that
    other rows keep (of a slip, a patient would be two), and where it is that of another study, which the row may mean.
    """
    replaced = {uid: row for uid, row in found.items()
                if row.values.get("patient_id", studies[uid].patient) != studies[uid].patient}
    if replaced:
        print(f"patient_id replaces PatientID in {len(replaced)} of "
              f"{counted(len(found), 'labelled study', 'labelled studies')}: line "
              f"{some(sorted(row.line for row in replaced.values()), 10)}")
    kept = {studies[uid].patient for uid in found.keys() - replaced.keys()}
    if slips := sorted(row.line for uid, row in replaced.items() if studies[uid].patient in kept - {""}):
        print(f"warning: {labels.path}: line {some(slips, 10)}: PatientID is another one than DICOM's, which other "
              "rows of this patient keep: these studies will count as another patient's; correct it where it is a slip")
    patients = {study.patient for study in studies.values()}
    if others := sorted(row.line for row in replaced.values() if row.values["patient_id"] in patients):
        print(f"warning: {labels.path}: line {some(others, 10)}: PatientID is not that of the study which the row "
              "names, but that of another one: is the score of that one? Correct the row, unless both are one patient")


def _disagreement(row: Label, study: Study, scan_id: str) -> str:
    """What a row says of its study and the study does not; "" where they agree."""
    names = row.names
    if study.date and "StudyDate" in names and study.date not in readings(names["StudyDate"]):
        return "StudyDate is another one than its study's; correct it, or leave it empty"
    for name, stored in (("AccessionNumber", study.accession), ("scan_id", scan_id)):
        if stored and _loosely(names.get(name, stored)) != _loosely(stored):
            return f"{name} is another one than its study's; correct it, or leave it empty"
    return ""


def _as_stored(row: Label, study: Study) -> Label:
    """The row with the study's PatientID where its own is that but for what spreadsheets change."""
    given = row.values.get("patient_id", "")
    return row._replace(values=row.values | {"patient_id": study.patient}) if given and _loosely(given) == _loosely(
        study.patient) else row


def _loosely(value: str) -> str:
    """An id without what spreadsheets change: 007, 7 and 7.0 are one, as 00A3 and a3."""
    return canonical(value).lstrip("0")


def _said(way: str, day: bool = True) -> str:
    return way if way != "patient_id" else "PatientID and StudyDate" if day else "PatientID"


def check_targets(labels: Labels, labelled: Mapping[str, Label], studies: Mapping[str, Study]) -> None:
    """Refuse a target in --labels where the study's mask is to give it (InputError)."""
    lines = sorted(row.line for uid, row in labelled.items() if "target" in row.values and studies[uid].masks)
    if lines:
        raise InputError(f"--labels {labels.path}: line {some(lines, 10)}: has a target, and its study a mask: leave "
                         "the one empty, or --target_from_masks out")


# The table to fill in

def write_template(studies: Mapping[str, Study], path: str | Path) -> None:
    """Write --labels_template: a row a study, sorted by patient and date, without scores. Raises InputError where the
    file is there: it may be filled in."""
    if os.path.lexists(path):
        raise InputError(f"--labels_template {path}: is there, and may be filled in; name a new file")
    rows = sorted((study.patient, study.date, uid, study.accession) for uid, study in studies.items())
    table = pd.DataFrame([(uid, patient, day, accession, "", "") for patient, day, uid, accession in rows],
                         columns=TEMPLATE)
    write_csv(table, path, private=True)
    print(f"{counted(len(table), 'study', 'studies')} -> {path}: fill in deauville (1 to 5) or target (0 or 1), remove "
          "the rows of studies without, and give it as --labels. It names patients")
