"""Where the networks look: heat maps (HiResCAM, Grad-CAM), a panel per scan, contact sheets, the pointing game.

python explain.py --chptfolder results                                    # mean over the networks, each one's test set
python explain.py --chptfolder results --splits 0-9 --each                # a folder for each network
python explain.py --chptfolder results --method gradcam --cam_layer layer3 --max_scans 48 --pdf --output coarse
python explain.py --chptfolder results_loca --splits 0-0 --target site:hilar --cam_layer layer2
python explain.py --chptfolder results --data NEW.csv --set all --scans A B                           # two new scans

Writes to OUTPUT/TARGET_ensemble (of one network, and with --each, to OUTPUT/TARGET_splitS_runR): maps/SCAN_VIEW.npy,
the mean heat map on the MIP's pixels (float32, SUV's grid, in units of the score, 0 outside the body); models.csv, the
networks that each is the mean of: those that have the scan in the sets asked for; panels/SCAN.png, the MIPs and again
with their maps, on one scale for the cohort (scale.json); sheet001.png, ..., highest probability first; peaks.csv. What
is finished is left alone, unless its MIP or (panels.json) its title is another or it is the mean over others of the
networks. Networks that were trained again, and other settings, are refused without --overwrite.

Where the manifest has lesion masks (column mask) or lesions' places (columns lesions, row0_mm, column0_mm, spacing_mm;
of masks or the phantom), the pointing game follows: the share of positive scans whose map peaks within 3 cm of a
lesion, beside the same with random weights and of the brightest pixel of the MIP, with masks beside a random pixel of
the body and false alarms, too: pointing.csv, pointing.json. What counts is said in inference/pointing_game.py.
"""
import argparse
from dataclasses import replace

import numpy as np

from common import arguments
from common.arguments import Parser, pick, run_script
from common.text import counted

METHODS = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}
PEAK_COLUMNS = ("scan_id", "view", "filename", "probs", "n_models", "peak_row", "peak_column", "heat", "distance_mm",
                "distance_pixels")


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("explanation")
    group.add_argument("--target", type=target, default="binary", metavar="binary|site|site:NAME",
                       help="what the map speaks for: Deauville 4-5; the predicted site of each scan; one site, by "
                            "its name or code")
    group.add_argument("--method", default="hirescam", choices=("gradcam", "hirescam"),
                       help="gradcam weights each channel of the layer by its mean gradient over the image, "
                            "hirescam each cell by its own gradient")
    group.add_argument("--cam_layer", default="layer1", choices=("layer1", "layer2", "layer3", "layer4"),
                       help="a cell of these is 4, 8, 16, 32 pixels of the network's frame wide: 1.3, 2.6, 5.2, 10.5 "
                            "cm at 3.27 mm, with --pool 2 in training twice that")
    group.add_argument("-o", "--output", default="heatmaps", metavar="DIR", help="where the folders of maps go")
    group.add_argument("--each", action="store_true", help="a folder for each model, not one for the mean over them")
    group.add_argument("--scans", **arguments.SEVERAL, metavar="ID", help="these scans alone; in a folder that holds "
                       "others, too, their maps, panels and lines of peaks.csv, and nothing else")
    group.add_argument("--max_scans", type=arguments.natural_int, metavar="N",
                       help="pictures of the N scans with the highest probability alone; heat maps and pointing game "
                            "of all")
    group.add_argument("--suv_max", type=arguments.positive_int, default=7, metavar="SUV",
                       help="what is drawn black, g/ml")
    group.add_argument("--pdf", action="store_true", help="panels as PDF, too, for print")
    group.add_argument("--review", action="store_true", help="write review.html, the page to read and score scans in")
    group.add_argument("--random", type=arguments.natural_int, default=3, metavar="N",
                       help="networks with random weights in the pointing game")
    group.add_argument("--no_pointing", action="store_true", help="no pointing game")
    group.add_argument("--overwrite", action="store_true", help="make again what is there")
    arguments.add_model_range_arguments(parser)
    arguments.add_data_arguments(parser)
    arguments.add_device_arguments(parser)
    return parser


def target(text):
    if text not in ("binary", "site") and not (text.startswith("site:") and text[5:].strip()):
        raise argparse.ArgumentTypeError(f"{text}: give binary, site or site:NAME")
    return text


def main(args):
    from common.manifest import read_manifest
    from inference.heat_maps import chosen_scans
    from inference.pointing_game import add_lesions
    from inference.prediction import asked_rows, asked_runs, open_models, say_missing, splits_of
    from training.device import open_device

    device, amp = open_device(args.device, args.amp, args.threads)
    runs, missing = asked_runs(args)
    table = read_manifest(args.data, splits_of(runs, args.set), need_target=False)
    table = chosen_scans(table, args.scans, args.data)
    if not args.no_pointing:
        table = add_lesions(table, args.data, arguments.images_folder(args), args.target)
    table = asked_rows(table, args.data, args.set, runs)
    models = open_models(runs, table, args.chptfolder, args.data, arguments.images_folder(args), args.set, device, amp,
                         **pick(args, "batch_size", "norm", "image_size", "crop_bodies"))
    for some in ([model] for model in models) if args.each else [list(models)]:
        explain(some, args)
    return say_missing(missing)


def explain(models, args):
    """The heat maps of a model, or the means over several, and what follows from them, in a folder of their own."""
    from common.manifest import LEAKAGE, MARK
    from common.run_files import heat_folder
    from inference import gradcam, heat_maps, overlays, pointing_game, review

    name, method, images = heat_maps.names_of(models), METHODS[args.method], arguments.images_folder(args)
    heat_maps.check_scans(args.scans, models, args.set)
    folder = heat_folder(args.output, args.target, [(model.split, model.run) for model in models])
    asked = heat_maps.find_class(args.target, args.cam_layer, models)
    heat_maps.claim_folder(folder, pick(args, "target", "method", "cam_layer", "suv_max", "image_size", "norm",
                                        "crop_bodies"), models, args.overwrite)
    rows = heat_maps.describe(models, asked, folder)
    heat_maps.write_maps(models, rows, folder, args.method, args.cam_layer, images, args.overwrite)
    peaks = pointing_game.find_peaks(method, enumerate(map(np.load, rows["map"])), rows, images)
    others = heat_maps.write_peaks(peaks[[name for name in PEAK_COLUMNS if name in peaks]].replace(np.inf, np.nan),
                                   folder / "peaks.csv", bool(args.scans))
    highest = heat_maps.cohort_scale(folder, peaks, bool(args.scans))

    scans, source = overlays.by_probability(rows, args.max_scans), f"{method} of {args.cam_layer}"
    marks = {"synthetic": "trained on a SYNTHETIC cohort", LEAKAGE: f"{MARK}: trained with --allow_leakage"}
    for key, said in marks.items():
        source += f", {said}" * any(model.content.get(key) for model in models)
    scale = {"suv_max": args.suv_max, "heat_max": highest}
    overlays.draw_panels(scans, folder, images, source, scale, models[0].batches.network_input.spacing_mm,
                         (".png", ".pdf") if args.pdf else (".png",), args.overwrite)
    print(f"{name}: {counted(len(rows), 'heat map')} of {counted(rows['scan_id'].nunique(), 'scan')} -> {folder}"
          + f"; {heat_maps.models_line(rows)}" * (len(models) > 1))
    if others:
        print("--scans: sheets, review.html and the pointing game are of the folder's other scans, too, and stay as "
              "they are; another --output makes them of these")
        return
    overlays.draw_sheets(scans, folder, images, source, scale)
    if args.review:
        review.write_review(rows, images, folder / "review.html", scale, source)
        print(f"page to read and score scans in: {folder / 'review.html'}")
    if {"known_lesions", "known_mask"} & set(rows):
        def random_maps(draw, places):
            untrained = [replace(model, network=gradcam.random_network(model.network, (draw, model.split, model.run)))
                         for model in models]
            return heat_maps.compute(untrained, rows, places, args.method, args.cam_layer, images,
                                     f"random weights {draw + 1} of {args.random}")

        pointing_game.play(peaks, rows, images, args.random, random_maps,
                           pick(args, "target", "method", "cam_layer", "set"), folder)


if __name__ == "__main__":
    run_script(get_args_parser, main)
