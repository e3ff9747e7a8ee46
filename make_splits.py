"""Add split columns to a manifest: repeated random train/validation partitions around one fixed test set, or folds.

python make_splits.py --data data.csv --n_splits 20          # writes data_resplit.csv beside data.csv
python make_splits.py --data data.csv --cv 5                 # cross-validation: each scan is tested in one split
python make_splits.py --data data.csv --calibration 0.1      # a tenth of the patients kept apart, for calibration
python make_splits.py --data data.csv --group scanner_site   # whole centres are tested, and not trained on
python make_splits.py --data data.csv --check                # checks the split columns that data.csv has

All scans of a patient go into the same set. Patients are drawn separately from those with and those without a
positive scan (target 1), spread evenly over their numbers of positive scans and of scans. image_sha256, by which the
same image under two names is found, is written of the images as they are.
"""
import io
import re
from pathlib import Path

from common.arguments import Parser, images_folder, natural_int, pick, positive_int, run_script
from common.files import InputError, to_csv, write_csv
from common.text import counted


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("input and output")
    group.add_argument("--data", type=Path, default=Path("data.csv"), help="manifest: scan_id, filename, target, "
                       "and patient_id (without it every scan counts as a patient of its own)")
    group.add_argument("--images", metavar="DIR", help="folder that filename is relative to (default: that of --data)")
    group.add_argument("-o", "--output", type=Path, help="CSV file or folder to write (default: data_resplit.csv "
                                                         "beside "
                       "--data)")
    group.add_argument("--overwrite", action="store_true", help="replace the split columns that --data has, and an "
                       "output that is there")
    group.add_argument("--check", action="store_true", help="write nothing: check the split columns that --data has")
    group = parser.add_argument_group("partition")
    group.add_argument("--n_splits", type=positive_int, default=20, help="number of train/validation partitions")
    group.add_argument("--test", type=float, default=0.2, help="share of all patients in the test set")
    group.add_argument("--val", type=float, default=0.2, help="share of all patients in each validation set")
    group.add_argument("--test_from", metavar="COLUMN", help="keep the test set that this column of --data gives: rows "
                       "with test, 1 or true; replaces --test")
    group.add_argument("--cv", type=positive_int, metavar="K", help="K splits, to whose test sets the patients are "
                       "dealt: each scan is tested once; replaces --n_splits and --test")
    group.add_argument("--calibration", type=float, metavar="SHARE", help="share of all patients that are cal in every "
                       "split: neither trained on nor validated nor tested")
    group.add_argument("--group", nargs="+", default=[], metavar=("COLUMN", "NAME"), help="test whole groups of "
                       "patients, such as centres: those named, or those that come nearest to --test; with --cv each "
                       "group is in one fold, as many folds as groups being one each (default: no groups)")
    group.add_argument("--seed", type=natural_int, default=0,
                       help="the same seed gives the same file, whatever the row order")
    return parser


def main(args):
    from common.manifest import add_digests, patient_column
    from preprocessing.splits import check_splits, partition, print_sets, read_sorted

    check_arguments(args)
    table = read_sorted(args.data)
    if "patient_id" not in table:
        print(f"{args.data} has no column patient_id: every scan_id counts as a patient of its own")
    columns = [name for name in table.columns if re.fullmatch(r"split\d+", name)]
    if args.check and not columns:
        raise InputError(f"{args.data}: no column split0, split1, ... to check; make them without --check")
    if columns and not (args.check or args.overwrite):
        raise InputError(f"{args.data}: has {columns[0]} already; give --overwrite to replace its "
                         f"{counted(len(columns), 'split column')}")
    images = Path(images_folder(args))
    table = add_digests(table, images)
    if not args.check:
        splits = partition(table, **pick(args, "n_splits", "test", "val", "seed", "test_from", "cv", "calibration",
                                         "group"))
        table, columns = table.drop(columns=columns).join(splits), list(splits)
    check_splits(table, columns)
    path = args.output or args.data.with_name("data_resplit.csv")
    if path.suffix.lower() != ".csv":
        path /= "data_resplit.csv"
    to_csv(table, now := io.StringIO())
    unchanged = path.exists() and path.read_bytes() == now.getvalue().encode(errors="backslashreplace")
    if path.exists() and not (unchanged or args.check or args.overwrite):
        raise InputError(f"{path}: is there, with other rows or splits; give another --output, or --overwrite to "
                         "replace it: what was trained on its splits must then be trained again")
    print_sets(table, columns, args.group[0] if args.group else None)
    if args.check:
        print(f"{args.data}: in each of its {counted(len(columns), 'split')} every {patient_column(table)} is in one "
              "set and every set holds both classes; nothing was written")
        return
    write_csv(table, path)
    print(f"{counted(len(columns), 'split')} of {counted(len(table), 'row')}, seed {args.seed}: {path}")
    if path.parent.resolve() != images.resolve():
        print(f"filename in it is relative to --images, as before: give --images {images} with it")


def check_arguments(args):
    """Refuse options of which one would be ignored beside another, and a calibration set that is tested."""
    for name, other in (("cv", "n_splits"), ("cv", "test"), ("cv", "test_from"), ("group", "test_from"),
                        ("test_from", "test")):
        if {name, other} <= set(args.given):
            raise InputError(f"--{name} and --{other}: both say what is tested; leave out one")
    made = {"n_splits", "test", "val", "test_from", "cv", "calibration", "group", "seed", "output"} & set(args.given)
    if args.check and made:
        raise InputError(f"--check with --{sorted(made)[0]}: the splits are those that --data has; leave out one")
    if args.cv == 1:
        raise InputError("--cv 1: give two folds or more")
    if args.group[1:] and {"cv", "test"} & set(args.given):
        raise InputError(f"--group {' '.join(args.group)}: names what is tested; leave out --cv and --test")
    if args.group and args.cv and args.calibration:
        raise InputError("--calibration with --group and --cv: each group is tested once, so that a calibration set "
                         "would hold patients of groups that are tested; leave out one of the three")


if __name__ == "__main__":
    run_script(get_args_parser, main)
