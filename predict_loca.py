"""Probabilities of Deauville 4-5 and of every lesion site, from the best run of each split of a range.

python predict_loca.py --output results_loca --chptfolder results_loca --splits 0 19
python predict_loca.py --output results_loca --chptfolder results_loca --splits 0 0 --run 1-3 --set val test
python predict_loca.py --output new --chptfolder results_loca --data NEW.csv --set all  # new patients

Writes what predict.py writes and, after `probs`: L0..L13, the sites' probabilities of the view (0 for one that was not
trained); pred_loc, the class index of the largest mean over the scan's views (with several sites a scan all of 0.5 or
more, separated by semicolons); true_loc; both with their names. sites.json beside them says what the classes are.
"""
from common import arguments
from common.arguments import Parser, pick, run_script


def get_args_parser():
    parser = Parser(__doc__)
    arguments.add_prediction_arguments(parser, "results_loca")
    arguments.add_data_arguments(parser, leakage=True)
    arguments.add_code_arguments(parser.add_argument_group("lesion site"))
    arguments.add_device_arguments(parser)
    return parser


def main(args):
    from pathlib import Path

    from common.files import write_json
    from dataset_loca import read_loca_manifest
    from inference.prediction import asked_runs, open_models, rows_to_predict, say_missing, splits_of, write_predictions
    from inference.sites import common_settings, refuse_other_sites, site_columns
    from training.device import open_device

    device, amp = open_device(args.device, args.amp, args.threads)
    runs, missing = asked_runs(args)
    images = arguments.images_folder(args)
    settings = common_settings(runs, args.site_map)  # what the models' site heads mean
    refuse_other_sites(args.output, settings, runs)
    sites = {int(code): name for code, name in settings["sites"].items()}
    table, warnings = read_loca_manifest(args.data, splits_of(runs, args.set), sites, settings["site_multi"],
                                         args.site_strict, need_target=False, allow_leakage=args.allow_leakage)
    for line in warnings:
        print(f"warning: {line}")
    table = rows_to_predict(table, args.data, images, args.set, runs, args.output)
    for model in open_models(runs, table, args.chptfolder, args.data, images, args.set, device, amp,
                             **pick(args, "batch_size", "norm", "image_size", "crop_bodies", "allow_leakage")):
        write_json(settings, Path(args.output) / "sites.json")
        outputs, true_loc = model.outputs(), model.rows.pop("true_loc")
        columns = site_columns(outputs.logits[:, 2:], settings, model.rows["scan_id"], true_loc)
        write_predictions(model, outputs, args.set, args.output, not args.no_features, columns)
    return say_missing(missing)


if __name__ == "__main__":
    run_script(get_args_parser, main)
