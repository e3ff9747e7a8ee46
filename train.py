"""Train the binary Deauville network (DS 1-3 against DS 4-5) on one or several data splits.

python train.py --split_index 0 --run 1 --output results --cls_arch complex --optimizer sgd --lr 0.01 --early_stopping
python train.py --split_index 0-19 --run 1 2 --output results --weights none --image_size auto --pool 2   # a sweep
python train.py --split_index 0-19 --run 1 2 --output results --weights none --image_size auto --pool 2 --resume
python train.py --params results/best_params_summary.csv --split_index 0 --output results    # the best of optun.py
torchrun --nproc_per_node 4 train.py --split_index 0 --run 1 --output results    # on four GPUs, or CPU processes

Writes convergence_splitS_runR.csv and .png, and checkpoint_splitS_runR.pth (the best validation epoch) to --output.
Stopped at any moment, the same command with --resume goes on to the same bits; finished runs are left alone.
"""
from common import arguments
from common.arguments import run_script


def get_args_parser():
    return arguments.training_parser(__doc__)


def main(args):
    import utils
    from common.manifest import read_manifest
    from training import objectives, runs

    def read_table(args, splits):
        return read_manifest(args.data, splits)

    def build_model(args):
        settings = utils.head_settings(args)
        return utils.ResNet34(**settings), settings

    return runs.train_all(args, read_table, build_model, objectives.build_binary)


if __name__ == "__main__":
    run_script(get_args_parser, main)
