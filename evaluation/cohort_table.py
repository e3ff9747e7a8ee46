"""Table 1: what the scans of a cohort are like, by set and by the columns of --by, from the manifest.

Numbers: median and quartiles; categories: how many and their share of the known. A column with one value for each
patient is counted by patient, others by scan. Differences: standardized mean difference.
"""
import itertools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from common.files import BLANK, without_na
from common.manifest import SETS
from evaluation.ensemble import MOST_GROUPS, MOST_VALUES, by_value, label_values

TECHNICAL = re.compile(r"split\d+|matrix_size_\d|row|(row|column)0_mm|scan_id|filename|patient_id|view|spacing_mm|mask|"
                       r"lesions|image_sha256|id_key|synthetic|warnings")  # columns that describe files, not patients
CODES = ("target_loc",)  # numbers that are names
ROLES = {"train": "Training", "val": "Validation", "test": "Test", "cal": "Calibration"}
TARGET = {"0": "Deauville 1–3", "1": "Deauville 4–5"}
OTHERS = "others"
MOST_COLUMNS = 9  # of groups and differences on a page


def smd_numbers(a: ArrayLike, b: ArrayLike) -> float | None:
    """Standardized mean difference of a number in two groups, 0 or more: Austin 2009 (doi:10.1002/sim.3697).

    Parameters
    ----------
    a, b : (n,), (m,) array-like
        Known values.

    Returns
    -------
    float or None
        |mean a - mean b| / sqrt((var a + var b) / 2), the variances with n - 1; infinity where both are 0 and the means
        differ; None where a group has fewer than two values.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if min(len(a), len(b)) < 2:
        return None
    difference, spread = abs(a.mean() - b.mean()), math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    return 0.0 if difference == 0 else float(difference / spread) if spread else math.inf


def smd_categories(a: ArrayLike, b: ArrayLike) -> float | None:
    """Standardized difference of a category in two groups, 0 or more: Yang, Dalton 2012 (SAS Global Forum 335).

    Parameters
    ----------
    a, b : (K,) array-like of int
        How many of each group have which category. Of two categories it is |p - q| / sqrt((p(1 - p) + q(1 - q)) / 2).

    Returns
    -------
    float or None
        The Mahalanobis distance of the shares of all categories but one; infinity where the groups have none of some
        combination in common that tells them apart for certain; None where a group is empty.
    """
    counts = np.array([a, b], dtype=float)
    if not counts.sum(axis=1).all():
        return None
    p, q = (counts / counts.sum(axis=1, keepdims=True))[:, counts.any(axis=0)][:, 1:]
    covariance = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    solved = np.linalg.pinv(covariance, hermitian=True) @ (p - q)
    if not np.allclose(covariance @ solved, p - q):
        return math.inf
    return math.sqrt(max(0.0, float((p - q) @ solved)))


# ---------------------------------------------------------------- of a manifest

def of_manifest(table: pd.DataFrame, splits: Sequence[int], by: Mapping[str, pd.DataFrame],
                cohorts: Mapping[str, pd.DataFrame] | None = None) -> dict:
    """Table 1 of a manifest, and its scans as a diagram of their flow needs them.

    Parameters
    ----------
    table : DataFrame
        Of `manifest.read_manifest`.
    splits : sequence of int
        Of the models; their columns are in the table.
    by : mapping
        {column of further groups: its rows of the measured scans, of `ensemble.rows_of`}: the groups are the subgroups
        of these; columns that the manifest lacks, or that differ between views, are passed over.
    cohorts : mapping or None
        {name: rows of another cohort, of the manifest's columns}: a group each beside the sets.

    Returns
    -------
    dict
        scans: DataFrame by scan_id: set (of `roles`), labelled, positive (bool), patient (None: not known); table_one,
        left_out: of `table_one` and `described`.
    """
    scans = table.drop_duplicates("scan_id").set_index("scan_id")
    target = scans["target"].astype(str).str.strip() if "target" in scans else pd.Series("", scans.index)
    found = roles(table, splits)
    groupings = {"set": found} | {
        column: groups for column, rows in by.items() if (groups := by_column(table, column, rows)) is not None}
    flow = pd.DataFrame({"set": found, "labelled": target != "", "positive": target.isin(("1", "1.0")),
                         "patient": patients_of(scans)}, index=scans.index)
    if cohorts:
        parts = {f"cohort {name}": rows[~rows["scan_id"].isin(scans.index)].reindex(
            columns=table.columns, fill_value="") for name, rows in cohorts.items()}
        table = pd.concat([table, *parts.values()])
        scans = table.drop_duplicates("scan_id").set_index("scan_id")
        groupings = {name: groups.reindex(scans.index) for name, groups in groupings.items()}
        groupings["set"] = groupings["set"].cat.add_categories(list(parts))
        for name, rows in parts.items():
            groupings["set"][rows["scan_id"].unique()] = name
    groupings = {name: groups for name, groups in groupings.items() if len(groups.cat.categories) > 1}
    columns, left_out = described(table)
    return {"scans": flow, "table_one": table_one(columns, groupings, patients_of(scans)), "left_out": left_out}


def patients_of(scans: pd.DataFrame) -> pd.Series | None:
    """By scan_id; a scan without patient is a patient of its own; None without the column."""
    return scans["patient_id"].where(scans["patient_id"] != "", "  " + scans.index) if "patient_id" in scans else None


# ---------------------------------------------------------------- groups, columns

def roles(table: pd.DataFrame, splits: Sequence[int]) -> pd.Series:
    """By scan_id "Training", "Test", ... or, where the splits differ, "Training or validation"; "" without splits.

    Of several splits training and validation are one role: nearly every scan is in both. Categorical, in the order of
    training, validation, test.
    """
    scans = table.drop_duplicates("scan_id").set_index("scan_id")
    there = pd.DataFrame({name: (scans[[f"split{split}" for split in splits]] == name).any(axis=1) for name in SETS})
    if len(splits) > 1:
        there["train"] = there["val"] = there["train"] | there["val"]
    names = {which: " or ".join(ROLES[name] for name, held in zip(SETS, which, strict=True) if held).capitalize()
             for which in itertools.product((True, False), repeat=len(SETS))}
    found = pd.Series(pd.Categorical([names[which] for which in there.itertuples(index=False, name=None)],
                                     list(names.values())), there.index)
    return found.cat.remove_unused_categories()


def described(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """The columns that Table 1 describes, and why others are left out.

    Parameters
    ----------
    table : DataFrame
        Of `manifest.read_manifest`.

    Returns
    -------
    scans : DataFrame
        By scan_id: float64 (numbers of more than eight values) or text (categories); unknown is NaN or None.
    left_out : dict
        {why: columns}.
    """
    scan, _ = pd.factorize(table["scan_id"])
    scans = table.drop_duplicates("scan_id").set_index("scan_id")
    found: dict[str, pd.Series] = {}
    left_out: dict[str, list[str]] = {}
    for name in [name for name in ("target", *table.columns.drop("target", errors="ignore"))
                 if name in table and not TECHNICAL.fullmatch(name)]:
        if (table[name].to_numpy() != scans[name].to_numpy()[scan]).any():
            left_out.setdefault("differ between views", []).append(name)
            continue
        texts = scans[name].astype(str).str.strip()
        known = texts[~texts.str.lower().isin(BLANK)]
        numbers = pd.to_numeric(known, errors="coerce")
        coded = name in CODES or known.str.fullmatch(r"0\d+").any()
        if known.nunique() < 2 and len(known) in (0, len(texts)):
            left_out.setdefault("the same in all scans", []).append(name)
        elif numbers.notna().all() and np.isfinite(numbers).all() and numbers.nunique() > MOST_VALUES and not coded:
            found[name] = numbers.astype(float).reindex(texts.index)
        elif known.nunique() > max(MOST_VALUES, min(MOST_GROUPS, len(known) / 2)):
            left_out.setdefault("too many values", []).append(name)
        else:
            known = known if numbers.isna().any() or coded else numbers.map("{:g}".format)
            found[name] = known.replace(TARGET if name == "target" else {}).reindex(texts.index)
    return pd.DataFrame(found, index=scans.index), left_out


def by_column(table: pd.DataFrame, column: str, measured: pd.DataFrame) -> pd.Series | None:
    """By scan_id the subgroup of --by, one of those that `ensemble.subgroups` makes of the rows `measured`, or NaN.
    None where the column is missing or of views."""
    if column not in table:
        return None
    texts = without_na(table[column].astype(str))
    known = texts[texts != ""].groupby(table["scan_id"])
    if known.nunique().max() > 1:
        return None
    values = known.first().reindex(table["scan_id"].unique(), fill_value="")
    names = label_values(measured, column, values)
    return pd.Series(pd.Categorical(values.map(names), list(dict.fromkeys(names.values()))), values.index)


# ---------------------------------------------------------------- the table

def table_one(scans: pd.DataFrame, groupings: dict[str, pd.Series], patients: pd.Series | None) -> pd.DataFrame:
    """Table 1 as texts, ready for a paper.

    Parameters
    ----------
    scans : DataFrame
        Of `described`.
    groupings : dict
        {name: by scan_id, the group that a scan belongs to, categorical in the order of the groups}.
    patients : Series or None
        By scan_id; None: not known.

    Returns
    -------
    DataFrame
        variable; value: a category, "missing" or ""; counted: scans or patients; All; of each grouping a column a group
        and, of two groups or more, "SMD, NAME": of more than two the largest, and between which.
    """
    ids = pd.Series(scans.index, scans.index) if patients is None else patients
    codes, repeated = pd.factorize(ids)[0], bool(ids.duplicated().any())
    rows = [{"variable": "Scans"} | _each(groupings, scans.index, lambda index: str(len(index)))]
    if patients is not None:
        rows.append({"variable": "Patients"} | _each(groupings, scans.index, lambda index: str(ids[index].nunique())))
    for column, values in scans.items():
        by_patient = repeated and values.groupby(codes).nunique().max() <= 1
        if by_patient:
            values = values.groupby(codes).transform("first")
            parts = _each(groupings, scans.index, lambda index, of=values: of[index[~ids[index].duplicated()]])
        else:
            parts = _each(groupings, scans.index, lambda index, of=values: of[index])
        about = {"variable": column, "counted": "patients" if by_patient else "scans"}
        rows += [about | row for row in _rows(parts, {name: groups for name, groups in groupings.items()
                                                      if name != column})]
    table = pd.DataFrame(rows).fillna("")
    order = [name for grouping, groups in groupings.items()
             for name in (*_names(grouping, groups).values(), f"SMD, {grouping}")]
    return table[["variable", "value", "counted", "All", *(name for name in order if name in table)]]


def _names(grouping, groups):
    """{group: its column of the table}."""
    return {name: name if grouping == "set" else f"{grouping}: {name}" for name in groups.cat.categories}


def _each(groupings, index, make):
    """What `make` says of all scans and of each group: {column of the table: value}."""
    return {"All": make(index)} | {column: make(groups.index[groups == name]) for grouping, groups in groupings.items()
                                   for name, column in _names(grouping, groups).items()}


def _rows(parts, groupings):
    """Of a number one row, of a category one for each value (of two: for the second), and one of what is missing."""
    rows, whole = [], parts["All"]
    if whole.dtype == float:
        known, smd, digits = {name: values.dropna() for name, values in parts.items()}, smd_numbers, _digits(whole)
        rows.append({name: _quartiles(values, digits) for name, values in known.items()})
    else:
        counts, smd = _counts(parts), smd_categories
        known = dict(counts.items())
        shown = counts[1:] if len(counts) == 2 else counts
        rows += [{"value": value} | {name: _share(count, known[name].sum()) for name, count in row.items()}
                 for value, row in shown.iterrows()]
    for grouping, groups in groupings.items():
        names = _names(grouping, groups)
        if len(names) > 1:
            rows[0][f"SMD, {grouping}"] = _largest({name: known[column] for name, column in names.items()}, smd)
    if whole.isna().any():
        rows.append({"value": "missing"} | {name: _share(values.isna().sum(), len(values))
                                            for name, values in parts.items()})
    return rows


def _share(count, total):
    return f"{count} ({100 * count / total:.0f} %)" if total else "none known"


def _counts(groups):
    """How many of each group (column) have which value (row), beyond MOST_VALUES the rarer ones together."""
    counts = pd.DataFrame({name: values.value_counts() for name, values in groups.items()}).fillna(0).astype(int)
    counts = counts.loc[sorted(counts.index, key=by_value)]
    if len(counts) <= MOST_VALUES:
        return counts
    kept = counts["All"].sort_values(ascending=False, kind="stable").index[:MOST_VALUES - 1]
    rest = counts.drop(kept)
    return pd.concat([counts.loc[counts.index.isin(kept)], rest.sum().to_frame(f"{OTHERS} ({len(rest)})").T])


def _largest(parts, smd):
    """The largest difference between two groups as text, of more than two with their names; "" where none is known."""
    found = {f"{one}, {other}": smd(parts[one], parts[other]) for one, other in itertools.combinations(parts, 2)}
    found = {pair: value for pair, value in found.items() if value is not None}
    if not found:
        return ""
    pair = max(found, key=found.__getitem__)
    text = "no overlap" if math.isinf(found[pair]) else f"{found[pair]:.2f}"
    return f"{text} ({pair})" if len(parts) > 2 else text


def _digits(values):
    """Digits behind the point so that the distance of the quartiles shows two digits."""
    low, high = np.nanquantile(values, (0.25, 0.75)) if values.notna().any() else (0, 0)
    return max(0, 1 - math.floor(math.log10(high - low))) if high > low else 2


def _quartiles(values, digits):
    if not len(values):
        return "none known"
    low, middle, high = (f"{value:.{digits}f}" for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return f"{middle} ({low} to {high})"


def on_page(table: pd.DataFrame) -> tuple[list[str], list[list[str]], list[str]]:
    """Of `table_one` what a page has room for: headings, rows, and the groupings that are in the file only."""
    blocks: list[list[str]] = [[]]
    hidden, shown = [], ["All"]
    for name in table.columns[4:]:
        blocks[-1].append(name)
        if name.startswith("SMD, "):
            blocks.append([])
    for block in filter(None, blocks):
        if len(shown) + len(block) <= MOST_COLUMNS or block is blocks[0]:
            shown += block
        else:
            hidden.append(block[-1].removeprefix("SMD, "))
    labels = table["variable"].str.cat(table["value"].map(lambda text: f": {text}" if text else ""))
    labels += table["counted"].map(lambda unit: ", patients" if unit == "patients" else "")
    cells = table[shown].copy()
    for name in cells.columns[cells.columns.str.startswith("SMD, ")]:
        cells[name] = cells[name].str.replace(r" \(.*", "", regex=True)  # between which groups: in the file
    return ["", *shown], [[label, *row] for label, row in zip(labels, cells.to_numpy(), strict=True)], hidden
