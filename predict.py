"""Probabilities of Deauville 4-5 for every view, from the best run of each split of a range.

python predict.py --output results --chptfolder results --splits 0 19                      # test set of each split
python predict.py --output results --chptfolder results --splits 0 19 --set val test
python predict.py --output new --chptfolder results --splits 0 19 --data NEW.csv --set all  # new patients

Writes pred_splitS_runR.csv to --output: the manifest's columns, set, probs, F1..F512. Run find_best_model.py first: it
writes the best_run.csv that names each split's run.
"""
from common import arguments
from common.arguments import Parser, run_script


def get_args_parser():
    parser = Parser(__doc__)
    arguments.add_prediction_arguments(parser)
    arguments.add_data_arguments(parser)
    arguments.add_device_arguments(parser)
    return parser


def main(args):
    from common.manifest import read_manifest
    from inference.prediction import predict_all

    def read_table(args, splits):
        return read_manifest(args.data, splits, need_target=False)

    return predict_all(args, read_table)


if __name__ == "__main__":
    run_script(get_args_parser, main)
