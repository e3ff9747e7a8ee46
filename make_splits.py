"""Add split columns to a manifest: repeated random train/validation partitions around one fixed test set.

python make_splits.py --data data.csv --n_splits 20          # writes data_resplit.csv beside data.csv
python make_splits.py --data data.csv --check                # checks the split columns that data.csv has

All scans of a patient go into the same set. Patients are drawn separately from those with and those without a
positive scan (target 1), spread evenly over their numbers of positive scans and of scans.
"""
import re
from pathlib import Path

from common.arguments import Parser, natural_int, positive_int, run_script
from common.files import InputError, write_csv
from common.manifest import patient_column
from preprocessing.splits import check_splits, partition, print_sets, read_sorted


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
    columns = [name for name in table.columns if re.fullmatch(r"split\d+", name)]
    if args.check and not columns:
        raise InputError(f"{args.data}: no column split0, split1, ... to check; make them without --check")
    if columns and not (args.check or args.overwrite):
        raise InputError(f"{args.data}: has {columns[0]} already; give --overwrite to replace all its {len(columns)} "
                         "split columns")
    if not args.check:
        splits = partition(table, args.n_splits, args.test, args.val, args.test_from, args.seed)
        table, columns = table.drop(columns=columns).join(splits), list(splits)
    check_splits(table, columns)
    print_sets(table, columns)
    if args.check:
        print(f"{args.data}: in each of its {len(columns)} splits every {patient_column(table)} is in one set and "
              "every set holds both classes; nothing was written")
        return
    path = args.output or args.data.with_name("data_resplit.csv")
    if path.suffix.lower() != ".csv":
        path /= "data_resplit.csv"
    write_csv(table, path)
    print(f"{len(columns)} splits of {len(table)} rows, seed {args.seed}: {path}")
    if path.parent.resolve() != args.data.parent.resolve():
        print(f"filename in it is relative to --images, as before: give --images {args.data.parent} with it")


if __name__ == "__main__":
    run_script(get_args_parser, main)
