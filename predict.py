"""Probabilities of Deauville 4-5 for every view, from the best run of each split of a range.

python predict.py --output results --chptfolder results --splits 0 19                      # test set of each split
python predict.py --output results --chptfolder results --set val test
python predict.py --output new --chptfolder results --data NEW.csv --set all  # new patients
python predict.py --output new --checkpoints lars/A.pth lars/B.pth --data NEW.csv --set all   # LARS's own networks

Writes pred_splitS_runR.csv to --output: the manifest's columns, set, probs, F1..F512. Run find_best_model.py first: it
writes the best_run.csv that names each split's run.
"""
from common import arguments
from common.arguments import Parser, pick, run_script


def get_args_parser():
    parser = Parser(__doc__)
    arguments.add_prediction_arguments(parser)
    arguments.add_data_arguments(parser, leakage=True)
    arguments.add_device_arguments(parser)
    return parser


def main(args):
    from common.manifest import read_manifest
    from inference.prediction import asked_runs, open_models, rows_to_predict, say_missing, splits_of, write_predictions
    from training.device import open_device

    device, amp = open_device(args.device, args.amp, args.threads)
    runs, missing = asked_runs(args)
    images = arguments.images_folder(args)
    table = read_manifest(args.data, splits_of(runs, args.set), need_target=False, allow_leakage=args.allow_leakage)
    table = rows_to_predict(table, args.data, images, args.set, runs, args.output)
    for model in open_models(runs, table, args.chptfolder, args.data, images, args.set, device, amp,
                             **pick(args, "batch_size", "norm", "image_size", "crop_bodies", "allow_leakage")):
        write_predictions(model, model.outputs(), args.set, args.output, not args.no_features)
    return say_missing(missing)


if __name__ == "__main__":
    run_script(get_args_parser, main)
