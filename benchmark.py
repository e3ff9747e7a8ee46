"""What a stage costs, against its own ceiling.

python benchmark.py prepro                                              # 600 x 400 x 400: 1.6 GB of temporary files
python benchmark.py prepro --size 60 100 100 --studies 2 --repeats 1    # a quick look
python benchmark.py train                                               # minutes; quiet, or the ratios mean little
python benchmark.py predict --chptfolder demo/results --data demo/data_resplit.csv      # 2 GB of temporary files
python benchmark.py aggregate --scans 100000                            # 300 MB of temporary files
python benchmark.py lars --data mips/data_resplit.csv --nepochs 6       # a quick look; all 40 epochs take hours
python benchmark.py train predict --device cuda --n_images 2048         # several stages; see make gpu-check
python benchmark.py recipes --data demo/data_resplit.csv --split_index 0 1 --output results_recipes     # an hour
python benchmark.py recipes --data demo/data_resplit.csv --split_index 0-4 --run 1-3 --recipes FILE.json   # hours

prepro: PET series to SUV to both MIPs, files in the page cache, against reading the same files raw and against the same
steps written plainly with pydicom and SimpleITK (pip install -r requirements-benchmark.txt; for that line only).
train: images/s against the same model on tensors in memory (the ceiling), against a plain loop (one file read per image
and epoch, worker processes, float32, 310 x 310) and against that loop with LARS's evaluation of the training set after
it; the ceiling in --amp's precision against the other one; and an epoch with frozen layers, cached and not.
predict: ten models in one go against ten plain loops; memory; with --chptfolder, bfloat16 against float32.
aggregate: aggregate.py and compare.py on the predictions of ten models.
lars: LARS's own training loop (310 x 310, float32, a file read for each image, two evaluations an epoch) against this
toolkit on the same images: seconds of an epoch, and to the best validation AUC of LARS's loop.
recipes: train.py under several recipes on the same folds: validation AUC and its paired difference from the first
recipe, with intervals, against seconds. Stopped at any moment, the same command goes on.
"""
import tempfile
from pathlib import Path

from common import arguments
from common.arguments import Parser, at_least, pick, positive_float, positive_int, run_script
from common.files import InputError
from common.recipes import values

LARS = values("lars")


def get_args_parser():
    parser = Parser(__doc__)
    parser.add_argument("stage", nargs="+", choices=("prepro", "train", "predict", "aggregate", "lars", "recipes"),
                        help="what to measure")
    add = parser.add_argument_group("prepro").add_argument
    add("--size", type=positive_int, nargs=3, default=[600, 400, 400], metavar=("SLICES", "ROWS", "COLUMNS"),
        help="of each int16 series, voxels")
    add("--studies", type=positive_int, default=8, help="for the throughput of two workers")
    add = parser.add_argument_group("train, predict, aggregate").add_argument
    add("--batch_sizes", type=positive_int, nargs="+", default=[16, 50], metavar="N",
        help="of training, images a step (default: 16 50)")
    add("--n_images", type=at_least(8), default=100, metavar="N", help="per round")
    add("--frozen_images", type=at_least(8), default=1000, metavar="N", help="of an epoch with frozen layers")
    add("--scans", type=at_least(2), metavar="N", help="of an epoch, which a CPU trains only where this is given; of "
        "predicting, and of aggregate.py (default: 3000)")
    add("--chptfolder", metavar="DIR", help="trained models whose bfloat16 predictions are compared")
    add = parser.add_argument_group("lars").add_argument
    add("--nepochs", type=positive_int, default=LARS["nepochs"], metavar="N", help="of LARS's loop")
    add("--lr", type=positive_float, default=LARS["lr"], help="of LARS's loop")
    add("--weights", default="none", metavar="imagenet|none|PATH", help="initial weights of both, as of train.py")
    add("--recipe_options", default="--recipe small", metavar="TEXT",
        help="what train.py is given for the way to its AUC")
    add = parser.add_argument_group("lars, recipes").add_argument
    add("--split_index", **arguments.NUMBERS, metavar="S", help="data splits to train (default: 0)")
    add = parser.add_argument_group("recipes").add_argument
    add("--run", **arguments.NUMBERS, metavar="R", help="runs of each split, as of train.py (default: 1)")
    add("--recipes", type=Path, metavar="FILE.json",
        help='{"name": "options of train.py", ...}; the first is what the others are compared with, and their options '
             "are added to its own (default: a table of five)")
    add("--only", **arguments.SEVERAL, metavar="TEXT",
        help="beside the first, the recipes whose names hold one of these")
    add("--report_test", action="store_true",
        help="also measure the test sets: when the choice is made, which is for validation sets to make")
    add("-o", "--output", type=Path, default="results_recipes", metavar="DIR", help="for tables and models, 85 MB each")
    add = parser.add_argument_group("running").add_argument
    add("--folder", metavar="FOLDER", help="where the temporary files go (default: the system's)")
    add("--repeats", type=positive_int, default=3, help="the fastest counts")
    arguments.add_data_arguments(parser)
    arguments.add_device_arguments(parser)
    return parser


def main(args):
    if args.folder and not Path(args.folder).is_dir():
        raise InputError(f"--folder {args.folder}: no such folder; make it, or leave it out")
    return max(measure(stage, args) or 0 for stage in args.stage)


def measure(stage, args):
    """Measure a stage -> the exit code."""
    from benchmarks import evaluating, lars, network, prepro, recipes

    device, splits = pick(args, "device", "amp", "threads"), args.split_index or [0]
    data = {"data": args.data, "images": arguments.images_folder(args)}
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=args.folder) as folder:
        if stage == "prepro":
            return prepro.compare(args.size, args.studies, args.repeats, Path(folder))
        if stage == "train":
            return network.train(Path(folder), **device,
                                 **pick(args, "batch_sizes", "n_images", "frozen_images", "scans", "repeats"))
        if stage == "predict":
            return network.predict(Path(folder), **pick(args, "scans", "chptfolder", "n_images", "repeats"), **data,
                                   **device)
        if stage == "aggregate":
            return evaluating.compare(Path(folder), args.scans or network.SCANS)
        if stage == "lars":
            return lars.compare(Path(folder), splits,
                                **pick(args, "nepochs", "lr", "weights", "recipe_options"), **data, **device)
    return recipes.compare(args.data, args.images, splits, args.run or [1],
                           recipes.read_recipes(args.recipes, args.only or ()), args.output, args.report_test, device)


if __name__ == "__main__":
    run_script(get_args_parser, main)
