"""Find the best run of every split by validation AUC, and rank the splits by it.

python find_best_model.py --dir results

Reads convergence_splitS_runR.csv, writes best_run.csv (split,run,epoch,metric,value,rank) beside them. Of equal AUCs
the first epoch, the lowest run and the lowest split win; a run with --keep last, or of train_loca.py --select loc or
sum, counts with the AUC of the epoch that it kept. A run without its checkpoint_splitS_runR.pth is left out; one
that is not finished yet (there is a last_splitS_runR.pth) counts as far as it came, and is named.
"""
import sys
from pathlib import Path

from common.arguments import EXIT_SOME_FAILED, Parser, run_script
from common.files import InputError, write_csv
from common.run_files import run_file
from common.text import counted


def get_args_parser():
    parser = Parser(__doc__)
    add = parser.add_argument_group("input and output").add_argument
    add("--dir", type=Path, default=Path("results"), help="folder of train.py's runs; best_run.csv is written into it")
    return parser


def main(args):
    from evaluation import ranking

    runs, left_out = ranking.read_runs(args.dir)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    for split, run in zip(runs["split"], runs["run"], strict=True):
        if run_file(args.dir, "last", split, run).exists():
            print(f"warning: split {split} run {run} is not finished; train.py --resume finishes it", file=sys.stderr)
    for line in ranking.other_validations(args.dir, runs):
        print(line, file=sys.stderr)
    if runs.empty:
        raise InputError(f"{args.dir}: none of its {counted(len(left_out), 'run')} is usable (no checkpoint or no "
                         "validation AUC)")
    table = ranking.rank_runs(runs)
    write_csv(table, args.dir / "best_run.csv")
    print(table.to_string(index=False))
    print(f"best runs of {counted(len(table), 'split')}, out of {counted(len(runs), 'run')}: "
          f"{args.dir / 'best_run.csv'}")
    return EXIT_SOME_FAILED if left_out else None


if __name__ == "__main__":
    run_script(get_args_parser, main)
