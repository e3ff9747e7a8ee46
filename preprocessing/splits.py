"""Split columns of a manifest: sets of patients, drawn or given, and their checks."""
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from common import manifest
from common.files import InputError, read_csv, without_na
from common.manifest import SETS, patient_column, read_manifest, written_twice
from common.text import counted, some

IN_ONE_WAY = "write it in one way; if not, give them names that differ by more than blanks, case or zeros"
IN_TEST, NOT_IN_TEST = {"test", "1", "1.0", "true"}, {"train", "val", "cal", "0", "0.0", "false", ""}


def read_sorted(path: Path) -> pd.DataFrame:
    """The manifest's own columns, rows sorted by patient, scan and file, so that the input's order is irrelevant.

    Raises InputError where the manifest is not in order, or a row has no patient.
    """
    table = read_manifest(path, need_images=False)
    patient = patient_column(table)
    if len(empty := table[table[patient] == ""]):
        raise InputError(f"{path} row {empty['row'].iloc[0]}: {patient} is empty or NA; fill it in or remove the "
                         "column")
    if len(twice := written_twice(table[patient])):
        raise InputError(f"{path} rows {' and '.join(str(table['row'][k]) for k in twice.index)}: {patient} "
                         f"{' and '.join(map(repr, twice))}: if this is one patient, {IN_ONE_WAY}")
    own = table.columns.intersection(read_csv(path).columns)
    return table[own].sort_values([patient, "scan_id", "filename"], ignore_index=True)


# ---------------------------------------------------------------- sets of patients

def partition(table: pd.DataFrame, n_splits: int, test: float, val: float, seed: int, test_from: str | None = None,
              cv: int | None = None, calibration: float | None = None, group: Sequence[str] = ()) -> pd.DataFrame:
    """Draw the sets of each split. The test set is drawn first, so that no other option changes it; the first splits do
    not depend on how many follow. With `cv` the calibration set is drawn first.

    Parameters
    ----------
    table : DataFrame
        Of `read_sorted`.
    n_splits : int
        How many partitions of the patients outside the test set.
    test, val : float
        Shares of all patients, between 0 and 1.
    seed : int
        The same seed gives the same sets.
    test_from : str or None
        Column that gives the test set, in place of `test`.
    cv : int or None
        In place of `n_splits` and `test`: so many folds, each the test set of one split.
    calibration : float or None
        Share of all patients that are cal in every split.
    group : sequence of str
        A column whose groups of patients are tested as a whole, and the names of those to test (none: drawn).

    Returns
    -------
    DataFrame
        split0, split1, ... (one of SETS) for the rows of `table`.

    Raises
    ------
    InputError
        A share that is none, or shares, folds or groups that the table does not give.
    """
    check_shares({"test": 1 / cv if cv else test, "val": val, "calibration": calibration}, bool(test_from or group[1:]))
    rng, patient = np.random.default_rng(seed), table[patient_column(table)]
    targets = table.drop_duplicates("scan_id").groupby(patient)["target"]
    patients = pd.DataFrame({"n_positive": targets.sum(), "n_scans": targets.size()})
    n_patients = (patients["n_positive"] > 0).value_counts()
    groups = groups_of(table, group[0]) if group else None

    def draw_calibration(tested):
        return draw(patients.drop(index=tested), calibration, n_patients, rng) if calibration else []

    if cv:
        cal = draw_calibration([])
        tests = draw_folds(patients.drop(index=cal), cv, groups, rng)
    else:
        tested = (given_test_set(table, test_from) if test_from else draw(patients, test, n_patients, rng)
                  if groups is None else held_out(groups, group[1:], test, rng))
        cal, tests = draw_calibration(tested), [tested] * n_splits
    drawn = {}
    for split, tested in enumerate(tests):
        sets = dict.fromkeys(patients.index, "train") | dict.fromkeys(tested, "test") | dict.fromkeys(cal, "cal")
        sets |= dict.fromkeys(draw(patients.drop(index=[*tested, *cal]), val, n_patients, rng), "val")
        drawn[f"split{split}"] = patient.map(sets)
    splits = pd.DataFrame(drawn)
    if repeats := len(tests) - len(splits.T.drop_duplicates()):
        print(f"warning: {repeats} of {counted(len(tests), 'split')} the same as an earlier one: too few patients for "
              "so many")
    return splits


def check_shares(shares: dict[str, float | None], test_given: bool) -> None:
    """Refuse (InputError) a share of test, val or calibration that is none, or shares that leave none to train on."""
    given = {name: share for name, share in shares.items() if share is not None}
    for name, share in given.items():
        if not 0 < share < 1:
            raise InputError(f"--{name} {share}; it is a share, between 0 and 1")
    if sum(given.values()) - test_given * given["test"] >= 1:
        raise InputError(f"{' and '.join(f'--{name} {share:g}' for name, share in given.items())} leave nothing to "
                         "train on; lower one of them")


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
    for positive, kind in patients.groupby(patients["n_positive"] > 0):
        count = min(max(1, round(share * n_patients[positive])), len(kind))
        kind = shuffled(kind, rng)
        chosen += list(kind.index[(np.arange(count) * len(kind) + rng.integers(len(kind))) // count])
    return chosen


def shuffled(patients: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Sorted by n_positive, then n_scans; those that are equal in both in random order."""
    return patients.iloc[rng.permutation(len(patients))].sort_values(["n_positive", "n_scans"], kind="stable")


def draw_folds(patients: pd.DataFrame, k: int, groups: pd.Series | None, rng: np.random.Generator) -> list[list[str]]:
    """Deal the patients to k folds. Numbers of patients with, and without, a positive scan differ by one at most.

    With `groups` (by patient) each of them is in one fold, and those numbers are as even as `StratifiedGroupKFold` of
    scikit-learn makes them; as many folds as groups are one each, in the order of their names.

    Raises InputError where there are too few patients or groups.
    """
    positive = patients["n_positive"] > 0
    n_groups = len(patients) if groups is None else groups.nunique()
    if k > (most := min(n_groups, positive.value_counts().max())):
        enough = f"enough for {counted(most, 'fold')}; give fewer" if most > 1 else "too few for two folds"
        raise InputError(f"--cv {k}: {counted(n_groups, 'patient' if groups is None else 'group')}, "
                         f"{counted(positive.sum(), 'patient')} with and {(~positive).sum()} without a positive scan, "
                         f"are {enough}")
    if groups is None:
        order = list(shuffled(patients, rng).index)
        return [order[fold::k] for fold in range(k)]
    if k == n_groups:
        return [list(groups.index[groups == name]) for name in sorted(groups.unique())]
    dealer = StratifiedGroupKFold(k, shuffle=True, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings(action="ignore"):  # a fold without positive patients: `check_splits` says so
        return [list(patients.index[fold]) for _, fold in dealer.split(patients, positive, groups[patients.index])]


def groups_of(table: pd.DataFrame, column: str) -> pd.Series:
    """Each patient's group, by patient; InputError where there is no such column, a scan without group, a group under
    two spellings, a patient in two, or one group only."""
    if column not in table:
        raise InputError(f"--group {column}: there is no such column; the columns are {', '.join(table.columns)}")
    value = without_na(table[column].astype(str).str.strip())
    for scan in table.loc[value == "", "scan_id"]:
        raise InputError(f"--group {column}: is empty or NA for scan {scan}; fill it in")
    if len(twice := written_twice(value)):
        raise InputError(f"--group {column}: {' and '.join(map(repr, twice))}: if this is one group, {IN_ONE_WAY}")
    of_patient = value.groupby(table[patient_column(table)])
    several = of_patient.unique()[of_patient.nunique() > 1]
    for patient, names in several.items():
        raise InputError(f"--group {column}: {len(several)} of {counted(len(of_patient), 'patient')} in several "
                         f"groups, {patient_column(table)} {patient} in {' and '.join(sorted(names))}; leave them "
                         "out, or give a column that has one group for each patient")
    groups = of_patient.first()
    if groups.nunique() < 2:
        raise InputError(f"--group {column}: holds {groups.iloc[0]} only; there must be two groups or more")
    return groups


def held_out(groups: pd.Series, names: Sequence[str], share: float, rng: np.random.Generator) -> list[str]:
    """The patients of the groups `names`; without names, of those that together come nearest to a share of the patients
    (of several choices that are as near, one at random). InputError where a name is no group, or all are named."""
    sizes = groups.value_counts().sort_index()
    if unknown := [name for name in names if name not in sizes]:
        raise InputError(f"--group: there is no group {unknown[0]}; the groups are {some(sizes.index, 20)}")
    if len(set(names)) == len(sizes):
        raise InputError(f"--group: {' '.join(names)} are all groups there are; leave one to train on")
    aim = share * len(groups)
    reached: dict[int, list[str]] = {0: []}  # number of patients -> groups that have so many
    for name in rng.permutation(sizes.index):
        for count in [count for count in reached if count < aim]:
            reached.setdefault(count + sizes[name], [*reached[count], name])
    nearest = min((count for count in reached if 0 < count < len(groups)), key=lambda count: abs(count - aim))
    return list(groups.index[groups.isin(names or reached[nearest])])


def given_test_set(table: pd.DataFrame, column: str) -> list[str]:
    """The patients whose rows `column` puts into the test set; InputError where it splits a patient or says nothing."""
    if column not in table:
        raise InputError(f"--test_from {column}: there is no such column; the columns are {', '.join(table.columns)}")
    value = without_na(table[column].astype(str).str.strip().str.lower())
    if len(unknown := value[~value.isin(IN_TEST | NOT_IN_TEST)]):
        first = table.loc[unknown.index[0]]
        raise InputError(f"--test_from {column}: value {first[column]!r} of scan {first['scan_id']}; it must be test, "
                         "1, true, or train, val, cal, 0, false or empty")
    patient, test = table[patient_column(table)], value.isin(IN_TEST)
    if partly := sorted(set(patient[test]) & set(patient[~test])):
        raise InputError(f"--test_from {column}: {patient_column(table)} {partly[0]} has rows inside and outside the "
                         "test set; put all of them on one side")
    return sorted(set(patient[test]))


# ---------------------------------------------------------------- checks

def check_splits(table: pd.DataFrame, split_columns: Sequence[str]) -> None:
    """Refuse (InputError) a value that is none of SETS, a patient or an image in two sets, a scan that is cal in some
    splits only, a set with one class; warn of one image under two names, and of the one class of a fold's test set."""
    for column in split_columns:
        if len(unknown := table[~table[column].isin(SETS)]):
            raise InputError(f"{column} of scan {unknown['scan_id'].iloc[0]} is {unknown[column].iloc[0]!r}; it must "
                             f"be {', '.join(SETS)}")
    manifest.check_patients(table, split_columns)
    manifest.check_images(table, split_columns)
    manifest.warn_copies(table)
    in_cal = (table[list(split_columns)] == "cal").mean(axis=1)
    for scan in table.loc[in_cal.between(0, 1, inclusive="neither"), "scan_id"]:
        raise InputError(f"scan {scan} is cal in some splits only; a calibration set is common to all of them")
    scans = table.drop_duplicates("scan_id")
    for column in split_columns:
        for name in SETS if in_cal.any() else SETS[:-1]:
            target = scans.loc[scans[column] == name, "target"]
            if missing := [str(value) for value in (0, 1) if value not in set(target)]:
                text = (f"{column}: its {name} set of {counted(len(target), 'scan')} holds none with target "
                        f"{' and '.join(missing)}; change the shares, or add patients")
                if name != "test" or same_test_set(table, split_columns):
                    raise InputError(text)
                print(f"warning: {text}")


def same_test_set(table: pd.DataFrame, split_columns: Sequence[str]) -> bool:
    """Whether the test set is the same in all splits."""
    in_test = table[list(split_columns)] == "test"
    return bool(in_test.eq(in_test[split_columns[0]], axis=0).all(axis=None))


def print_sets(table: pd.DataFrame, split_columns: Sequence[str], group: str | None = None) -> None:
    """Print patients, scans and positive scans of every set, those that are the same in all splits once; which groups
    are tested; what an evaluation over the splits must know."""
    fixed = ("test", "cal") if same_test_set(table, split_columns) else ("cal",)
    sets = [("all", split_columns[0], name) for name in fixed]
    sets += [(column, column, name) for column in split_columns for name in SETS if name not in fixed]
    print(f"{'split':<10}{'set':<7}{'patients':>9}{'scans':>8}{'positive':>10}")
    for label, column, name in sets:
        rows = table[table[column] == name]
        target = rows.drop_duplicates("scan_id")["target"]
        if len(target):
            named = f"  {group}: {some(sorted(set(rows[group])), 9)}" if group and name == "test" else ""
            print(f"{label:<10}{name:<7}{rows[patient_column(table)].nunique():>9}{len(target):>8}{target.sum():>10}"
                  f" ({target.mean():.1%}){named}")
    n_tested = (table[list(split_columns)] == "test").sum(axis=1)[table[split_columns[0]] != "cal"]
    if "test" in fixed:
        return
    if (n_tested == 1).all():
        print("every scan is in the test set of one split: predict.py --set val test, then aggregate.py --pooled_folds")
    else:
        print("warning: the test set differs between the splits: an ensemble over them would be tested on scans that "
              "some of its models were trained on")
