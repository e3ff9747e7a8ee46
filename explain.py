"""Where the network looks: heat maps (Grad-CAM, HiResCAM), a panel per scan, contact sheets, the pointing game.

python explain.py --chptfolder results --splits 0 0                                       # test set of split 0
python explain.py --chptfolder results --splits 0 0 --method hirescam --cam_layer layer1 --max_scans 48
python explain.py --chptfolder results_loca --splits 0 0 --target site                    # the site called in each scan
python explain.py --chptfolder results_loca --splits 0 0 --target site:hilar --cam_layer layer2
python explain.py --chptfolder results --splits 0 0 --data NEW.csv --set all --scans A B  # two new scans

Writes for each model to OUTPUT/TARGET_splitS_runR: maps/SCAN_VIEW.npy, the heat map on the MIP's pixels (float32, SUV's
grid, in units of the score); panels/SCAN.png; sheet001.png, ..., highest probability first; peaks.csv. What is finished
is left alone, unless its MIP is newer.

Where the manifest has lesions' places (columns lesions, row0_mm, column0_mm, spacing_mm; the phantom's does), the
pointing game follows: the share of positive scans whose map peaks within 3 cm of a lesion, beside the same with random
weights and beside the brightest pixel of the MIP: pointing.csv, pointing.json. See pointing.py for what counts.
"""
import argparse

from common import arguments
from common.arguments import Parser, run_script


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("explanation")
    group.add_argument("--target", type=target, default="binary", metavar="binary|site|site:NAME",
                       help="what the map speaks for: Deauville 4-5; the site that the model calls in each scan; one "
                            "site, by its name or code")
    group.add_argument("--method", default="gradcam", choices=("gradcam", "hirescam"),
                       help="weigh the layer's channels by the mean gradient over the image, or each cell by its own")
    group.add_argument("--cam_layer", default="layer3", choices=("layer1", "layer2", "layer3", "layer4"),
                       help="a cell of these is 4, 8, 16, 32 pixels of the network's frame wide: 1.3, 2.6, 5.2, 10.5 "
                            "cm at 3.27 mm, with --pool 2 in training twice that")
    group.add_argument("--output", default="heatmaps", metavar="DIR", help="where the models' folders go")
    group.add_argument("--scans", nargs="+", metavar="ID", help="these scans alone")
    group.add_argument("--max_scans", type=arguments.natural_int, metavar="N",
                       help="pictures of the N scans with the highest probability alone; heat maps and pointing game "
                            "of all")
    group.add_argument("--suv_max", type=arguments.positive_int, default=7, metavar="SUV",
                       help="what is drawn black, g/ml")
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
    from inference.heat_maps import explain_all

    return explain_all(args)


if __name__ == "__main__":
    run_script(get_args_parser, main)
