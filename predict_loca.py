"""Probabilities of Deauville 4-5 and of every lesion site, from the best run of each split of a range.

python predict_loca.py --output results_loca --chptfolder results_loca --splits 0 19
python predict_loca.py --output results_loca --chptfolder results_loca --splits 0 0 --run 1-3 --set val test
python predict_loca.py --output new --chptfolder results_loca --splits 0 19 --data NEW.csv --set all  # new patients

Writes what predict.py writes and, after `probs`: L0..L13, the sites' probabilities of the view (0 for one that was not
trained); pred_loc, the class index of the largest mean over the scan's views (with several sites a scan all of 0.5 or
more, separated by semicolons); true_loc; both with their names. sites.json beside them says what the classes are.
"""
from common import arguments
from common.arguments import Parser, run_script


def get_args_parser():
    parser = Parser(__doc__)
    arguments.add_prediction_arguments(parser, "results_loca")
    arguments.add_data_arguments(parser)
    arguments.add_code_arguments(parser.add_argument_group("lesion site"))
    arguments.add_device_arguments(parser)
    return parser


def main(args):
    from pathlib import Path

    from common.files import InputError, write_json
    from common.run_files import run_file
    from dataset_loca import read_loca_manifest
    from inference.prediction import find_runs, predict_all
    from inference.sites import site_columns, stored_settings

    paths = [run_file(args.chptfolder, "checkpoint", run["split"], run["run"]) for run in find_runs(args)[0]]
    settings = stored_settings(paths[0], args.site_map)
    for path in paths[1:]:
        if stored_settings(path, args.site_map) != settings:
            raise InputError(f"{path}: its site head is for other sites, --site_on or --site_multi than that of "
                             f"{paths[0]}; predict them into two folders, with --splits or --run")
    sites = {int(code): name for code, name in settings["sites"].items()}

    def read_table(args, splits):
        table, warnings = read_loca_manifest(args.data, splits, sites, settings["site_multi"], args.site_strict,
                                             need_target=False)
        for line in warnings:
            print(f"warning: {line}")
        return table.rename(columns={"true_loc": "_true_loc"})

    def more_columns(outputs, model, content, rows):
        write_json(settings, Path(args.output) / "sites.json")
        return site_columns(outputs[:, 2:], settings, rows["scan_id"], rows.pop("_true_loc"))

    return predict_all(args, read_table, more_columns)


if __name__ == "__main__":
    run_script(get_args_parser, main)
