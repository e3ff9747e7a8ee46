"""Reader study: the model's call against those of readers and of their majority, from CSVs of calls.

A CSV has scan_id and a column for each reader: 0 and 1, or Deauville scores 1 to 5, also as "DS 4" (4 and 5 are
positive); empty where a reader did not read the scan. Or it is one of the reading room's (review.html), a row a
reading: scan_id, deauville, reader, and blind, which is 1 where the reader saw neither label nor score. The consensus
is the majority of two or more readers; a tie has none. The reference is the target of the prediction files.
metrics.json's `readers` holds

    file, scale, names                       of --readers; texts of SCALES; the readers
    n_scans, n_not_read, n_unknown           scans measured and read by anyone; measured only; read only
    ties, n_alone                            scans without majority; scans read by one reader only
    readers                                  {name or CONSENSUS: n, n_positive, n_groups_rarer (patients of the
                                             rarer class), and of the same scans reader and model (tn, fp, fn, tp,
                                             sensitivity, specificity), differences (model less reader, of
                                             `paired_tests`, with p_holm); with_model: of `agreement`}
    pairs, all                               [a, b, and of `agreement`]; that of all readers, from three on
"""
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from common.files import InputError, read_csv, without_na
from common.text import counted, deauville_digits, some
from evaluation import agreement, paired_tests
from evaluation.averaging import Ensemble
from evaluation.cautions import FEW, rarer_class
from evaluation.cohorts import check_ids
from evaluation.ensemble import ENSEMBLES, Model, number, patients
from evaluation.estimates import difference_text, long_text, p_text
from evaluation.metrics import THRESHOLD, confusion, proportion_estimate

SCALES = {"calls": "calls 0 and 1", "deauville": "Deauville scores 1 to 5, of which 4 and 5 are positive"}
CONSENSUS = "consensus"
MODEL = f"{ENSEMBLES['avg']} at {THRESHOLD}"
CLASSES = ("sensitivity", "specificity")


@dataclass
class Readers:
    """Calls of readers.

    Attributes
    ----------
    calls : DataFrame
        By scan_id, in the order of the scans that are measured: a column for each reader, 1.0, 0.0 or NaN.
    about : dict
        file, scale, names, n_unknown of metrics.json.
    """
    calls: pd.DataFrame
    about: dict


def read_calls(paths: Sequence[Path], scans: pd.DataFrame, warnings: list[str]) -> Readers:
    """Read the readers' calls of the scans that are measured.

    Parameters
    ----------
    paths : sequence of Path
        Each with other readers.
    scans : DataFrame
        Of `ensemble.join_scans`.
    warnings : list of str
        To which more are added.

    Raises
    ------
    InputError
        No reader, or one in two files; a scan twice or written in another way than in the prediction files, a value
        that is no call, a scale that cannot be told, no scan in common.
    """
    found = [_calls_of(path, warnings) for path in paths]
    names = [name for calls, _ in found for name in calls]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{some(paths)}: reader {twice[0]} is in two of them; keep one, or rename one of them")
    calls = pd.concat([calls for calls, _ in found], axis=1)
    calls.index.name = "scan_id"
    files = ", ".join(path.name for path in paths)
    measured = Model(paths[0], "the prediction files", rows=scans.reset_index()[["scan_id"]])
    warnings += check_ids([Model(paths[0], files, rows=calls.reset_index()[["scan_id"]]), measured])
    unknown = calls.index.difference(scans.index)
    if len(unknown) == len(calls):
        raise InputError(f"{files}: holds none of the scans that are measured (its first: {some(unknown, 2)}; theirs: "
                         f"{some(scans.index, 2)}); write the same scan_id")
    if len(unknown):
        warnings.append(f"left out, not measured: {len(unknown)} of {counted(len(calls), 'scan')} of {files}: "
                        f"{some(unknown)}")
    calls = calls.reindex(scans.index)
    never = calls.isna().all(axis=1)
    if never.any():
        warnings.append(f"without a reader's call in {files}: {never.sum()} of {counted(len(scans), 'scan')}: "
                        f"{some(scans.index[never])}")
    scales = " and ".join(dict.fromkeys(SCALES[scale] for _, scale in found))
    return Readers(calls, {"file": files, "scale": scales, "names": names, "n_unknown": len(unknown)})


def _calls_of(path, warnings):
    """(calls of one file by scan_id: 1.0, 0.0 or NaN, a column a reader; of SCALES)."""
    table = read_csv(path, ["scan_id"])
    if {"deauville", "reader"} <= set(table):
        table = _by_reader(path, table, warnings)
    names = [name for name in table.columns if name not in ("scan_id", "patient_id")]
    if not names:
        raise InputError(f"{path}: has no reader's column; give scan_id, reader1, reader2, ...")
    if CONSENSUS in names or "target" in names:
        raise InputError(f"{path}: column {CONSENSUS if CONSENSUS in names else 'target'} is no reader; leave it out "
                         "(the majority is formed here, the reference is the prediction files' target)")
    for row in table.index[table["scan_id"].duplicated() | (table["scan_id"] == "")][:1]:
        raise InputError(f"{path}, line {row}: scan_id {table.loc[row, 'scan_id']!r} is empty or there twice; keep "
                         "one row a scan")
    written = table[names].apply(lambda column: without_na(column.str.strip()))
    texts = written.map(deauville_digits)
    values = texts.map(number)
    present = set(values.to_numpy()[(texts != "").to_numpy()].tolist())
    scale = "deauville" if (
        present & {2, 3, 4, 5} or table.attrs.get("room") or (texts != written).any(axis=None)) else "calls"
    allowed = (0, 1) if scale == "calls" else (1, 2, 3, 4, 5)
    wrong = (texts != "") & ~values.isin(allowed)
    for row, name in zip(*np.nonzero(wrong.to_numpy()), strict=True):
        raise InputError(f"{path}, line {table.index[row]} (scan {table['scan_id'].iloc[row]}): {names[name]} "
                         f"{texts.iloc[row, name]!r}; the file was read as {SCALES[scale]}: correct it, write one "
                         "scale for all readers, and leave out columns that are no reader's")
    if present == {1} and scale == "calls":
        raise InputError(f"{path}: every call is 1, which is Deauville 1 or a positive call; add a scan with another")
    calls = (values >= 4 if scale == "deauville" else values == 1).astype(float).where(values.notna())
    return calls.set_axis(table["scan_id"]), scale


def _by_reader(path, table, warnings):
    """Readings of the reading room, a row each -> scan_id and a column a reader; attrs["room"]: it was such a file."""
    for row in table.index[(table["reader"] == "") | ~table["deauville"].isin(list("12345"))
                           | table.duplicated(["scan_id", "reader"])][:1]:
        each = table.loc[row]
        raise InputError(f"{path}, line {row} (scan {each['scan_id']}): reader {each['reader']!r}, deauville "
                         f"{each['deauville']!r}: give each reader's score of a scan, 1 to 5, once")
    seen = table[table["blind"] != "1"] if "blind" in table else table[:0]
    for reader, rows in seen.groupby("reader"):
        count = counted((table["reader"] == reader).sum(), "reading")
        warnings.append(f"not blind: {len(rows)} of {count} of {reader}: label and score may have been followed")
    wide = table.pivot(index="scan_id", columns="reader", values="deauville").fillna("").reset_index()
    wide.columns.name = None
    wide.attrs["room"] = True
    return wide


def majority(calls: pd.DataFrame) -> pd.Series:
    """1.0 or 0.0 where more of two or more readers call it so; NaN of a tie or fewer readers."""
    share = calls.mean(axis=1)
    return (share > 0.5).astype(float).where((share != 0.5) & (calls.notna().sum(axis=1) > 1))


def measure(readers: Readers, scans: pd.DataFrame, each: Ensemble, resamples: int, seed: int,
            warnings: list[str]) -> dict:
    """`readers` of metrics.json.

    Parameters
    ----------
    scans : DataFrame
        Of `ensemble.join_scans`.
    each : Ensemble
        Whose call at THRESHOLD is compared.
    resamples, seed : int
        Of the bootstrap.
    warnings : list of str
        To which more are added.
    """
    calls, names = readers.calls, readers.about["names"]
    count, consensus = calls.notna().sum(axis=1), majority(calls)
    ties = calls.index[(count > 1) & consensus.isna()].tolist()
    if ties:
        warnings.append(f"readers: no consensus, as many for as against, of {some(ties)} ({len(ties)} in all)")
    call = (each.prob >= THRESHOLD).astype(float)
    columns = calls if len(names) == 1 else calls.assign(**{CONSENSUS: consensus})
    found = {name: _against(column, call, scans, resamples, seed) for name, column in columns.items()}
    few = [name for name, entry in found.items() if entry["n_groups_rarer"] < FEW]
    if few:
        unit = "patients" if "patient_id" in scans else "scans"
        warnings.append(f"{some(few)}: fewer than {FEW} {unit} of a class were read; these intervals are rough")
    for of in CLASSES:
        paired_tests.holm([entry["differences"][of] for entry in found.values()])
    pairs = [{"a": a, "b": b} | _agreement(calls[[a, b]], scans, resamples, seed)
             for a, b in itertools.combinations(names, 2)]
    everyone = _agreement(calls, scans, resamples, seed, both=False) if len(names) > 2 else None
    return readers.about | {"n_scans": int((count > 0).sum()), "n_not_read": int((count == 0).sum()),
                            "ties": ties, "n_alone": int((count == 1).sum()), "readers": found, "pairs": pairs,
                            "all": everyone}


def _agreement(calls, scans, resamples, seed, both=True):
    """Of `agreement.estimates`: of the scans that all have read, or without `both` that anyone has."""
    known = calls.dropna(how="any" if both else "all")
    return agreement.estimates(known.to_numpy(), patients(scans.loc[known.index]), resamples, seed)


def _against(reader, call, scans, resamples, seed):
    """One entry of metrics.json's `readers`: a reader's calls against the model's, on the scans that were read."""
    known = reader.index[reader.notna() & scans["target"].notna()]
    y, groups = scans.loc[known, "target"].to_numpy() == 1, patients(scans.loc[known])
    of_reader, of_model = (calls[known].to_numpy() == 1 for calls in (reader, call))
    differences = {name: {"difference": None, "ci_low": None, "ci_high": None, "p": None, "reason": "no scan"}
                   for name in CLASSES}
    if len(known):
        tested = paired_tests.bootstrap_prediction_differences(y, of_model, of_reader, groups, resamples, seed)
        differences = {name: tested[name] for name in CLASSES}
    both = pd.DataFrame({"model": call, "reader": reader})
    return {"n": len(known), "n_positive": int(y.sum()), "n_groups_rarer": rarer_class(y, groups),
            "reader": _shares(y, of_reader, groups),
            "model": _shares(y, of_model, groups), "differences": differences,
            "with_model": _agreement(both, scans, resamples, seed)}


def _shares(y: ndarray, positive: ndarray, groups: ndarray | None) -> dict:
    """Counts, sensitivity and specificity of calls."""
    counts = dict(zip(("tn", "fp", "fn", "tp"), confusion(y, positive.astype(float)), strict=True)) if len(y) else {}
    return counts | {"sensitivity": proportion_estimate(positive, "scan with target 1", groups, rows=y),
                     "specificity": proportion_estimate(~positive, "scan with target 0", groups, rows=~y)}


# ---------------------------------------------------------------- figure and tables

def points(study: dict) -> dict[str, tuple[float, float]]:
    """{name: (false positive rate, sensitivity)} of readers and consensus, for the ROC figure."""
    found = {name: [entry["reader"][of]["value"] for of in CLASSES] for name, entry in study["readers"].items()}
    return {name: (1 - specificity, sensitivity) for name, (sensitivity, specificity) in found.items()
            if sensitivity is not None and specificity is not None}


def _sizes(entry: dict) -> dict[str, int]:
    """{name of CLASSES: scans that it is a share of}."""
    return dict(zip(CLASSES, (entry["n_positive"], entry["n"] - entry["n_positive"]), strict=True))


def csv_table(study: dict) -> pd.DataFrame:
    """The table of reader_study.csv: a row for each number."""
    rows = []

    def add(who, against, n, statistic, entry):
        rows.append({"who": who, "against": against, "n": n, "statistic": statistic,
                     "value": entry.get("difference", entry.get("value"))}
                    | {key: entry.get(key) for key in ("ci_low", "ci_high", "p", "p_holm", "reason")})

    for name, each in study["readers"].items():
        for of, n in _sizes(each).items():
            add(name, "target", n, of, each["reader"][of])
            add("model", "target", n, of, each["model"][of])
            add("model", name, n, f"{of}_difference", each["differences"][of])
        for index in agreement.TWO:
            add("model", name, each["with_model"]["n"], index, each["with_model"][index])
    for pair in study["pairs"]:
        for index in agreement.TWO:
            add(pair["a"], pair["b"], pair["n"], index, pair[index])
    for index in agreement.MANY if study["all"] else ():
        add("all readers", "", study["all"]["n"], index, study["all"][index])
    return pd.DataFrame(rows)


def report_tables(study: dict | None) -> dict:
    """Values of the report's template: (headings, rows) of accuracy and agreement; {} without a study."""
    if not study:
        return {}
    accuracy = []
    for name, each in study["readers"].items():
        for of, n in _sizes(each).items():
            difference = each["differences"][of]
            accuracy.append([f"{name}: {of}", str(n), long_text(each["reader"][of]),
                             long_text(each["model"][of]), difference_text(difference), p_text(difference["p"]),
                             p_text(difference["p_holm"])])
    pairs = [[f"model, {name}", each["with_model"]] for name, each in study["readers"].items()]
    pairs += [[f"{pair['a']}, {pair['b']}", pair] for pair in study["pairs"]]
    rows = [[name, str(each["n"]), *(long_text(each[index]) for index in agreement.TWO)] for name, each in pairs]
    head = ["", "Scans", *(agreement.NAMES[index] for index in agreement.TWO)]
    everyone = study["all"] and ", ".join(f"{agreement.NAMES[index]} {long_text(study['all'][index])}"
                                          for index in agreement.MANY)
    return {"reader_accuracy": (["", "Scans", "Reader", MODEL, "Model less reader", "p", "p (Holm)"], accuracy),
            "reader_agreement": (head, rows), "all_readers": everyone}
