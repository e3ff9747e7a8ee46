"""Find the best run of every split by validation AUC, and rank the splits by it.

python find_best_model.py --dir results

Reads convergence_splitS_runR.csv, writes best_run.csv (split,run,epoch,metric,value,rank) beside them. Of equal AUCs
the first epoch, the lowest run and the lowest split win; a run of train_loca.py --select loc or sum counts with the
AUC of the epoch that it kept. A run without its checkpoint_splitS_runR.pth is left out; one
that is not finished yet (there is a last_splitS_runR.pth) counts as far as it came, and is named.
"""
import math
import re
import sys
from pathlib import Path

from common.arguments import EXIT_SOME_FAILED, Parser, run_script
from common.files import InputError, read_csv, write_csv

RUN_FILE = re.compile(r"convergence_split(\d+)_run(\d+)\.csv")


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("input and output")
    group.add_argument("--dir", type=Path, default=Path("results"),
                       help="folder with the runs of train.py; best_run.csv is written into it")
    return parser


def main(args):
    import pandas as pd

    runs, left_out = read_runs(args.dir)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    for run in runs:
        if (args.dir / f"last_split{run['split']}_run{run['run']}.pth").exists():
            print(f"warning: split {run['split']} run {run['run']} is not finished; train.py --resume goes on with it",
                  file=sys.stderr)
    if not runs:
        raise InputError(f"{args.dir}: none of its {len(left_out)} runs is usable (no checkpoint or no validation AUC)")
    table = pd.DataFrame(rank_runs(runs))
    write_csv(table, args.dir / "best_run.csv")
    print(table.to_string(index=False))
    print(f"best runs of {len(table)} splits, out of {len(runs)} runs: {args.dir / 'best_run.csv'}")
    return EXIT_SOME_FAILED if left_out else None


def read_runs(folder):
    """(runs, left_out): a dict split, run, epoch, value per usable run; a line per run that is not."""
    names = sorted((int(match[1]), int(match[2]), path) for path in Path(folder).glob("convergence_split*_run*.csv")
                   if (match := RUN_FILE.fullmatch(path.name)))
    if not names:
        raise InputError(f"{folder}: holds no convergence_splitS_runR.csv; run train.py first, or mend --dir")
    runs, left_out = [], []
    for split, run, path in names:
        epoch, value = best_epoch(path)
        checkpoint = path.with_name(f"checkpoint_split{split}_run{run}.pth")
        if not checkpoint.is_file():
            left_out.append(f"{path.name}: there is no {checkpoint.name}")
        elif epoch is None:
            left_out.append(f"{path.name}: no epoch has a validation AUC")
        else:
            runs.append({"split": split, "run": run, "epoch": epoch, "value": value})
    return runs, left_out


def best_epoch(path):
    """(epoch, AUC) of the first epoch with the highest validation AUC; (None, None) where every AUC is NaN or none is.

    Where the file has the metric `selected` (multitask.Sites), its highest value chooses the epoch.

    Raises:
        InputError: not a CSV, a column missing, an epoch that is no integer or comes twice, an AUC outside 0..1.
    """
    import pandas as pd

    best, seen = (None, None), {}
    table = read_csv(path, ("epoch", "split", "metric", "value"))
    table = table[table["split"] == "validation"]
    selected = table[table["metric"] == "selected"]
    kept = selected.loc[[pd.to_numeric(selected["value"], errors="coerce").idxmax()], "epoch"] if len(selected) else ()
    for row in table[(table["metric"] == "auc") & (table["epoch"].isin(kept) | (len(kept) == 0))].itertuples():
        line = f"{path}, line {row.Index + 2}"
        try:
            epoch, value = int(row.epoch), float(row.value or "nan")
        except ValueError:
            raise InputError(f"{line}: epoch {row.epoch!r}, value {row.value!r}; they must be an integer and a number; "
                             "train that run again") from None
        if epoch in seen:
            raise InputError(f"{line}: the validation AUC of epoch {epoch} stands in line {seen[epoch]} already; "
                             "remove one of the two")
        if not math.isnan(value) and not 0 <= value <= 1:
            raise InputError(f"{line}: validation AUC {value}; it must lie in 0..1; train that run again")
        seen[epoch] = row.Index + 2
        if not math.isnan(value) and (best[0] is None or (-value, epoch) < (-best[1], best[0])):
            best = epoch, value
    return best


def rank_runs(runs):
    """Rows of best_run.csv, best first: per split its best run, rank 1 for the highest AUC over the splits."""
    best = {}
    for run in sorted(runs, key=lambda run: (-run["value"], run["run"])):
        best.setdefault(run["split"], run)
    ranked = sorted(best.values(), key=lambda run: (-run["value"], run["split"]))
    return [{"split": run["split"], "run": run["run"], "epoch": run["epoch"], "metric": "auc", "value": run["value"],
             "rank": rank} for rank, run in enumerate(ranked, start=1)]


if __name__ == "__main__":
    run_script(get_args_parser, main)
