"""Search how to fine-tune each data split's own best checkpoint: one Optuna study per split.

python optuna_finetuning.py --chptfolder results --output results
python optuna_finetuning.py --splits 0-4 --chptfolder results --mode transfer_learning --trials 30 --output results
python train.py --params results/best_params_finetuning_summary.csv --split_index 0 --output finetuned    # the winner

Each split starts from its checkpoint in --chptfolder, by best_run.csv, with that checkpoint's head, frame and --norm,
whose auto is measured on the training split of --data, as by train.py --checkpoint; `mode` is transfer_learning (head
only), finetune (layer4 and head) or full_retrain. Otherwise as optun.py. Writes
optuna_resultsfinetuning_splitS.csv, best_params_finetuning_summary.csv and optuna_finetuning_report.html to --output.
"""
from common import arguments
from common.arguments import run_script


def get_args_parser():
    return arguments.search_parser(__doc__, "finetuning", trials=10, nepochs=12, finetuning=True)


def main(args):
    from inference import prediction
    from search import space, trials, worker

    best, missing = prediction.best_runs(args.chptfolder, args.splits)
    starts = {row["split"]: trials.from_checkpoint(args, row) for row in best}
    code = worker.search(args, space.FINETUNING, starts, "finetuning")
    return prediction.say_missing(missing) or code


if __name__ == "__main__":
    run_script(get_args_parser, main)
