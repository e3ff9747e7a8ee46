"""Split columns of a manifest: sets of patients, drawn or given, and their checks."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, read_csv
from common.manifest import SETS, check_patients, patient_column, read_manifest

IN_TEST, NOT_IN_TEST = {"test", "1", "true"}, {"train", "val", "0", "false", ""}


def read_sorted(path: Path) -> pd.DataFrame:
    """The manifest's own columns, rows sorted by patient, scan and file, so that the input's order is irrelevant.

    Raises InputError where the manifest is not in order, or a row has no patient.
    """
    table = read_manifest(path, need_images=False)
    patient = patient_column(table)
    if len(empty := table[table[patient] == ""]):
        raise InputError(f"{path} row {empty['row'].iloc[0]}: {patient} is empty; fill it in or remove the column")
    own = table.columns.intersection(read_csv(path).columns)
    return table[own].sort_values([patient, "scan_id", "filename"], ignore_index=True)


def partition(table: pd.DataFrame, n_splits: int, test: float, val: float, test_from: str | None, seed: int
              ) -> pd.DataFrame:
    """Draw the sets of each split. The test set is drawn first, so that neither `n_splits` nor `val` changes it; the
    first splits do not depend on how many follow.

    Parameters
    ----------
    table : DataFrame
        Of `read_sorted`.
    n_splits : int
        How many partitions of the patients outside the test set.
    test, val : float
        Shares of all patients, between 0 and 1.
    test_from : str or None
        Column that gives the test set, in place of `test`.
    seed : int
        The same seed gives the same sets.

    Returns
    -------
    DataFrame
        split0, split1, ... (train, val, test) for the rows of `table`.

    Raises
    ------
    InputError
        A share that is none; `test_from` is no column, splits a patient or holds another value.
    """
    for name, share in (("test", test), ("val", val)):
        if not 0 < share < 1:
            raise InputError(f"--{name} {share}; it is a share, between 0 and 1")
    if test_from is None and test + val >= 1:
        raise InputError(f"--test {test} and --val {val} leave nothing to train on; lower one of them")
    rng = np.random.default_rng(seed)
    patient = table[patient_column(table)]
    targets = table.drop_duplicates("scan_id").groupby(patient)["target"]
    patients = pd.DataFrame({"n_positive": targets.sum(), "n_scans": targets.size()})
    n_patients = (patients["n_positive"] > 0).value_counts()
    tested = given_test_set(table, test_from) if test_from else draw(patients, test, n_patients, rng)
    rest = patients.drop(index=tested)
    drawn = {}
    for split in range(n_splits):
        sets = dict.fromkeys(patients.index, "train") | dict.fromkeys(tested, "test")
        sets |= dict.fromkeys(draw(rest, val, n_patients, rng), "val")
        drawn[f"split{split}"] = patient.map(sets)
    splits = pd.DataFrame(drawn)
    if repeats := n_splits - len(splits.T.drop_duplicates()):
        print(f"warning: {repeats} of the {n_splits} splits repeat an earlier one; there are too few patients "
              "for so many")
    return splits


def draw(patients: pd.DataFrame, share: float, n_patients: pd.Series, rng: np.random.Generator) -> list[str]:
    """Draw patients at random, stratified: every patient of a kind is equally likely. Systematic sampling along the
    shuffled list sorted by n_positive and n_scans keeps those in proportion, too (Cochran. Sampling Techniques, 1977,
    chapter 8).

    Parameters
    ----------
    patients : DataFrame
        Those to draw from: index patient, columns n_positive and n_scans.
    share : float
        How many to draw, as a share of `n_patients`; at least one of either kind.
    n_patients : Series
        Number of patients with (True) and without (False) a positive scan, in the whole table.
    rng : numpy.random.Generator
    """
    chosen: list[str] = []
    for positive, group in patients.groupby(patients["n_positive"] > 0):
        count = min(max(1, round(share * n_patients[positive])), len(group))
        group = group.iloc[rng.permutation(len(group))].sort_values(["n_positive", "n_scans"], kind="stable")
        chosen += list(group.index[(np.arange(count) * len(group) + rng.integers(len(group))) // count])
    return chosen


def given_test_set(table: pd.DataFrame, column: str) -> list[str]:
    """The patients whose rows `column` puts into the test set; InputError where it splits a patient or says nothing."""
    if column not in table:
        raise InputError(f"--test_from {column}: there is no such column; the columns are {', '.join(table.columns)}")
    value = table[column].astype(str).str.strip().str.lower()
    if len(unknown := value[~value.isin(IN_TEST | NOT_IN_TEST)]):
        first = table.loc[unknown.index[0]]
        raise InputError(f"--test_from {column}: value {first[column]!r} of scan {first['scan_id']}; it must be test, "
                         "1, true, or train, val, 0, false or empty")
    patient, test = table[patient_column(table)], value.isin(IN_TEST)
    if partly := sorted(set(patient[test]) & set(patient[~test])):
        raise InputError(f"--test_from {column}: {patient_column(table)} {partly[0]} has rows inside and outside the "
                         "test set; put all of them on one side")
    return sorted(set(patient[test]))


def check_splits(table: pd.DataFrame, split_columns: Sequence[str]) -> None:
    """Refuse (InputError) other values than train, val and test, a patient in two sets, or a set with one class."""
    for column in split_columns:
        if len(unknown := table[~table[column].isin(SETS)]):
            raise InputError(f"{column} of scan {unknown['scan_id'].iloc[0]} is {unknown[column].iloc[0]!r}; it must "
                             f"be {', '.join(SETS)}")
    check_patients(table, split_columns)
    scans = table.drop_duplicates("scan_id")
    for column in split_columns:
        for name in SETS:
            target = scans.loc[scans[column] == name, "target"]
            if missing := [str(value) for value in (0, 1) if value not in set(target)]:
                raise InputError(f"{column}: its {name} set of {len(target)} scans holds none with target "
                                 f"{' and '.join(missing)}; change --test or --val, or add patients")


def print_sets(table: pd.DataFrame, split_columns: Sequence[str]) -> None:
    """Print patients, scans and positive scans of every set; the test set once where it is the same in all splits."""
    in_test = table[list(split_columns)] == "test"
    fixed = in_test.eq(in_test[split_columns[0]], axis=0).all(axis=None)
    sets = [("all", split_columns[0], "test")] if fixed else []
    sets += [(column, column, name) for column in split_columns for name in SETS if not (fixed and name == "test")]
    print(f"{'split':<10}{'set':<7}{'patients':>9}{'scans':>8}{'positive':>10}")
    for label, column, name in sets:
        rows = table[table[column] == name]
        target = rows.drop_duplicates("scan_id")["target"]
        print(f"{label:<10}{name:<7}{rows[patient_column(table)].nunique():>9}{len(target):>8}{target.sum():>10}"
              f" ({target.mean():.1%})")
    if not fixed:
        print("warning: the test set differs between the splits: an ensemble over them would be tested on scans that "
              "some of its models were trained on")
