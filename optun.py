"""Search architecture and training of the binary network: one Optuna study per data split.

python optun.py --output results
python optun.py --splits 0-0 --trials 40 --weights none --image_size auto --pool 2 --augm 4 --output results
python optun.py --space space.json --storage postgresql://user@host/optuna --output results    # on any number of hosts
python train.py --params results/best_params_summary.csv --split_index 0 --output results    # then trains the winner

The objective is the validation AUC (scans, mean over the views) of the epoch that a trial keeps, its best one or by
--keep its last; test rows are not read. The same command again continues to --trials finished trials; started several
times at once, the processes share them. Writes optuna_results_splitS.csv, best_params_summary.csv and
optuna_report.html to --output.
"""
from common import arguments
from common.arguments import run_script


def get_args_parser():
    return arguments.search_parser(__doc__, "optun", trials=20, nepochs=10)


def main(args):
    from search import space, worker

    return worker.search(args, space.SEARCH, dict.fromkeys(args.splits, space.fixed_args(args)))


if __name__ == "__main__":
    run_script(get_args_parser, main)
