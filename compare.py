"""Compare two or more ensembles on the same scans: AUC, errors at a threshold, reclassification, with paired tests.

python compare.py results/ensemble_avg.csv results/ensemble_max.csv --output results
python compare.py a/ensemble_avg.csv b/ensemble_avg.csv c/ensemble_avg.csv --threshold youden --output comparison
python compare.py a/ensemble_avg.csv b/ensemble_avg.csv --primary auc --margin 0.05     # is a no worse than b?
python compare.py --plan auc 0.90 0.10 0.30            # patients for an interval of width 0.10, prevalence 0.30

Reads scan_id, target and ensemble_prob (or probs: one model's predictions, a scan's views averaged), joined by
scan_id. Every pair of files is compared; a difference is the first less the second. Writes compare.json, compare.csv
and compare.html, a table of one page. Bootstrap by patient where every file has patient_id, else by scan.
"""
from pathlib import Path

from common.arguments import SEVERAL, Parser, natural_int, positive_int, run_script
from common.files import InputError, write_csv, write_json
from common.text import counted


def get_args_parser():
    parser = Parser(__doc__)
    add = parser.add_argument_group("input").add_argument
    add("files", nargs="*", type=Path, metavar="CSV",
        help="two or more ensemble_avg.csv, ensemble_max.csv or pred_splitS_runR.csv")
    add("--names", **SEVERAL, metavar="NAME", help="of the files (default: from their paths)")
    add("--set", default="test", choices=("train", "val", "test", "cal", "all"),
        help="rows to use of files with column `set`")
    add = parser.add_argument_group("statistics").add_argument
    add("--threshold", nargs="+", default=["0.5"], metavar="T",
        help="positive at this probability or more; one for all files or one for each; or the name of one that "
             "aggregate.py derived: youden, sensitivity95, specificity95 (default: 0.5)")
    add("--primary", choices=("auc", "accuracy", "sensitivity", "specificity"),
        help="the difference that was declared beforehand: first in the tables, all others being exploratory")
    add("--margin", type=float, metavar="M", help="the largest primary difference that does not matter, such as "
        "0.05: is the first non-inferior, are both equivalent, by the 95 %% interval?")
    add("--resamples", type=positive_int, default=2000, metavar="N", help="of the bootstrap")
    add("--seed", type=natural_int, default=0, help="of the bootstrap")
    add = parser.add_argument_group("planning").add_argument
    add("--plan", nargs=4, metavar=("METRIC", "EXPECTED", "WIDTH", "PREVALENCE"), help="instead of comparing files: "
        "the patients needed for a 95 %% interval of that width of auc, sensitivity or specificity")
    add = parser.add_argument_group("output").add_argument
    add("-o", "--output", type=Path, default=Path("results"), help="folder to write to")
    return parser


def main(args):
    from evaluation import comparison, margins, planning, report

    if args.plan:
        return print(planning.plan(args.plan))
    if len(args.files) < 2:
        raise InputError(f"{args.files[0]}: one file; give two or more to compare" if args.files else
                         "no files: give two or more to compare, or --plan")
    margins.check_primary(args.primary, args.margin)
    names = args.names or names_of(args.files)
    if len(names) != len(args.files) or len(set(names)) < len(names):
        raise InputError(f"--names {' '.join(names)}: give {len(args.files)} different ones, as many as files")
    thresholds = args.threshold * len(args.files) if len(args.threshold) == 1 else args.threshold
    if len(thresholds) != len(args.files):
        raise InputError(f"--threshold: {counted(len(thresholds), 'value')} for {counted(len(args.files), 'file')}; "
                         "give one, or one each")

    models = [comparison.read_scores(*each, args.set) for each in zip(args.files, names, thresholds, strict=True)]
    if "set" in args.given and not any("set" in model.rows for model in models):
        raise InputError(f"--set {args.set}: no file has a column set, as those of predict.py have; leave it out")
    scans, warnings = comparison.join(models, thresholds)
    result = comparison.compare(models, thresholds, scans, args.resamples, args.seed, warnings, args.primary,
                                args.margin)

    for line in [*(f"warning: {line}" for line in result["warnings"]), *result["notices"]]:
        print(line)
    comparison.print_comparison(result)
    write_json(result, args.output / "compare.json")
    write_csv(comparison.comparison_table(result), args.output / "compare.csv")
    report.write_comparison(args.output / "compare.html", result)
    print(f"\nwrote {args.output}/: compare.json, compare.csv, compare.html")


def names_of(files):
    """A different name for each file: its stem, with as many folders before it as tell the files apart."""
    paths = [path.resolve() for path in files]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise InputError(f"{twice[0]}: is given twice; give different files")
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join((*path.parts[-depth:-1], path.stem)) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in files]  # differ in their endings only


if __name__ == "__main__":
    run_script(get_args_parser, main)
