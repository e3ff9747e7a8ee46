"""Add split columns to a manifest: repeated random train/validation partitions around one fixed test set.

python make_splits.py --data data.csv --n_splits 20          # writes data_resplit.csv beside data.csv
python make_splits.py --data data.csv --check                # checks the split columns that data.csv has

All scans of a patient go into the same set. Patients are drawn separately from those with and those without a
positive scan (target 1), spread evenly over their numbers of positive scans and of scans.
"""
import re
from pathlib import Path

from common.arguments import Parser, natural_int, positive_int, run_script
from common.files import InputError, read_csv, write_csv
from common.manifest import SETS, check_patients, patient_column, read_manifest

SPLIT_COLUMN = re.compile(r"split\d+")
IN_TEST, NOT_IN_TEST = {"test", "1", "true"}, {"train", "val", "0", "false", ""}


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("input and output")
    group.add_argument("--data", type=Path, default=Path("data.csv"), help="manifest: scan_id, filename, target, "
                       "and patient_id (without it every scan counts as a patient of its own)")
    group.add_argument("--output", type=Path, help="CSV file or folder to write (default: data_resplit.csv beside "
                       "--data)")
    group.add_argument("--overwrite", action="store_true", help="replace the split columns that --data has")
    group.add_argument("--check", action="store_true", help="write nothing: check the split columns that --data has")
    group = parser.add_argument_group("partition")
    group.add_argument("--n_splits", type=positive_int, default=20, help="number of train/validation partitions")
    group.add_argument("--test", type=float, default=0.2, help="share of all patients in the test set")
    group.add_argument("--val", type=float, default=0.2, help="share of all patients in each validation set")
    group.add_argument("--test_from", metavar="COLUMN", help="keep the test set that this column of --data gives: rows "
                       "with test, 1 or true; replaces --test")
    group.add_argument("--seed", type=natural_int, default=0,
                       help="the same seed gives the same file, whatever the row order")
    return parser


def main(args):
    table = read_sorted(args.data)
    if "patient_id" not in table:
        print(f"{args.data} has no column patient_id: every scan_id counts as a patient of its own")
    existing = [name for name in table.columns if SPLIT_COLUMN.fullmatch(name)]
    if args.check:
        if not existing:
            raise InputError(f"{args.data}: no column split0, split1, ... to check; make them without --check")
        check_splits(table, existing)
        print_sets(table, existing)
        print(f"{args.data}: in each of its {len(existing)} splits every {patient_column(table)} is in one set and "
              "every set holds both classes; nothing was written")
        return
    if existing and not args.overwrite:
        raise InputError(f"{args.data}: has {existing[0]} already; give --overwrite to replace all its "
                         f"{len(existing)} split columns")
    check_shares(args)
    splits = partition(table, args)
    table = table.drop(columns=existing).join(splits)
    check_splits(table, list(splits.columns))
    print_sets(table, list(splits.columns))
    path = output_path(args)
    write_csv(table, path)
    print(f"{len(splits.columns)} splits of {len(table)} rows, seed {args.seed}: {path}")
    if path.parent.resolve() != args.data.parent.resolve():
        print(f"filename in it is relative to --images, as before: give --images {args.data.parent} with it")


def check_shares(args):
    for name in ("test", "val"):
        if not 0 < getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}; it is a share, between 0 and 1")
    if args.test_from is None and args.test + args.val >= 1:
        raise InputError(f"--test {args.test} and --val {args.val} leave nothing to train on; lower one of them")


def output_path(args):
    if args.output is None:
        return args.data.with_name("data_resplit.csv")
    return args.output if args.output.suffix.lower() == ".csv" else args.output / "data_resplit.csv"


def read_sorted(path):
    """The manifest's own columns, rows sorted by patient, scan and file, so that the input's order is irrelevant."""
    table = read_manifest(path, need_images=False)
    patient = patient_column(table)
    empty = table[table[patient] == ""]
    if len(empty):
        raise InputError(f"{path} row {empty['row'].iloc[0]}: {patient} is empty; fill it in or remove the column")
    own = table.columns.intersection(read_csv(path).columns)
    return table[own].sort_values([patient, "scan_id", "filename"], ignore_index=True)


def partition(table, args):
    """Columns split0..split{N-1} (train/val/test) for the rows of `table`. The test set is drawn first, so that
    neither --n_splits nor --val changes it; the first splits do not depend on how many follow."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(args.seed)
    patient = table[patient_column(table)]
    patients = table.drop_duplicates("scan_id").groupby(patient)["target"].agg(n_positive="sum", n_scans="size")
    n_patients = (patients["n_positive"] > 0).value_counts()
    if args.test_from:
        test = given_test_set(table, args.test_from)
    else:
        test = draw(patients, args.test, n_patients, rng)
    rest = patients.drop(index=test)
    splits = {}
    for split in range(args.n_splits):
        sets = dict.fromkeys(patients.index, "train") | dict.fromkeys(test, "test")
        sets |= dict.fromkeys(draw(rest, args.val, n_patients, rng), "val")
        splits[f"split{split}"] = patient.map(sets)
    splits = pd.DataFrame(splits)
    repeats = len(splits.columns) - len(splits.T.drop_duplicates())
    if repeats:
        print(f"warning: {repeats} of the {args.n_splits} splits repeat an earlier one; there are too few patients "
              "for so many")
    return splits


def draw(patients, share, n_patients, rng):
    """Draw patients at random, stratified.

    Args:
        patients (DataFrame): index = patient, columns n_positive and n_scans; those to draw from.
        share (float): how many to draw, as a share of `n_patients`; at least one of either kind.
        n_patients (Series): number of patients with (True) and without (False) a positive scan, in the whole table.
        rng (numpy.random.Generator)

    Returns:
        list of patients. Every patient of a kind is equally likely; systematic sampling along the shuffled list sorted
        by n_positive and n_scans keeps those in proportion too (Cochran. Sampling Techniques, 1977, chapter 8).
    """
    import numpy as np

    chosen = []
    for positive, group in patients.groupby(patients["n_positive"] > 0):
        count = min(max(1, round(share * n_patients[positive])), len(group))
        group = group.iloc[rng.permutation(len(group))].sort_values(["n_positive", "n_scans"], kind="stable")
        chosen += list(group.index[(np.arange(count) * len(group) + rng.integers(len(group))) // count])
    return chosen


def given_test_set(table, column):
    """The patients whose rows `column` puts into the test set; InputError where it splits a patient or says nothing."""
    if column not in table:
        raise InputError(f"--test_from {column}: there is no such column; the columns are {', '.join(table.columns)}")
    value = table[column].astype(str).str.strip().str.lower()
    unknown = value[~value.isin(IN_TEST | NOT_IN_TEST)]
    if len(unknown):
        raise InputError(f"--test_from {column}: value {table.at[unknown.index[0], column]!r} of scan "
                         f"{table.at[unknown.index[0], 'scan_id']}; it must be test, 1, true, or train, val, 0, false "
                         "or empty")
    patient, test = table[patient_column(table)], value.isin(IN_TEST)
    partly = sorted(set(patient[test]) & set(patient[~test]))
    if partly:
        raise InputError(f"--test_from {column}: {patient_column(table)} {partly[0]} has rows inside and outside the "
                         "test set; put all of them on one side")
    return sorted(set(patient[test]))


def check_splits(table, split_columns):
    """Refuse split columns with other values than train/val/test, a patient in two sets, or a set with one class."""
    for column in split_columns:
        unknown = table.index[~table[column].isin(SETS)]
        if len(unknown):
            raise InputError(f"{column} of scan {table.at[unknown[0], 'scan_id']} is {table.at[unknown[0], column]!r}; "
                             f"it must be {', '.join(SETS)}")
    check_patients(table, split_columns)
    scans = table.drop_duplicates("scan_id")
    for column in split_columns:
        for name in SETS:
            target = scans.loc[scans[column] == name, "target"]
            missing = [str(value) for value in (0, 1) if value not in set(target)]
            if missing:
                raise InputError(f"{column}: its {name} set of {len(target)} scans holds none with target "
                                 f"{' and '.join(missing)}; change --test or --val, or add patients")


def print_sets(table, split_columns):
    """Print patients, scans and positive scans of every set; the test set once where it is the same in all splits."""
    in_test = table[split_columns] == "test"
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


if __name__ == "__main__":
    run_script(get_args_parser, main)
