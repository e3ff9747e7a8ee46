"""What the scripts share at the command line: the parser, argument groups, exit codes. Imports no torch."""
import argparse
import itertools
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from common import recipes
from common.faults import fault_line
from common.files import InputError, read_csv
from common.manifest import is_synthetic
from common.parser import Parser, loudness
from common.signals import interrupt_on_signals
from common.streams import last_line, lose_output, open_streams
from common.text import ranges

EXIT_DONE, EXIT_SOME_FAILED, EXIT_BAD_INPUT = 0, 1, 2
MOST_NUMBERS = 10_000  # splits or runs that one range may name
SEVERAL: dict[str, Any] = {"nargs": "+", "action": "extend"}  # of add_argument; the default must be [] or None
MODES = ("transfer_learning", "finetune", "full_retrain")  # of fine-tuning: what is trained


def run_script(get_args_parser: Callable[[], Parser], main: Callable[[argparse.Namespace], int | None]) -> None:
    """Parse the command line, run `main(args)`, and end the process.

    The exit code is 0 or what `main` returns (1: some items failed and are listed); 2 after bad input or a fault of the
    machine, with one line on stderr; 128 + signal after a signal, which `main` gets as KeyboardInterrupt, to save its
    state.
    """
    os.environ.pop("MPLBACKEND", None)  # a notebook's: figures go to files
    open_streams()
    parser, prints = get_args_parser(), os.environ.get("RANK", "0") == "0"  # torchrun's first process
    args = parser.parse_args()
    interrupt_on_signals()
    try:
        with loudness(parser, args):
            if prints:
                say_what_is_asked(args)
            code = main(args) or EXIT_DONE
        sys.stdout.flush()
        sys.exit(code)
    except InputError as error:
        if prints:
            last_line("error: " + " ".join(str(error).split()))
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt as interruption:
        signum = signal.Signals(interruption.args[0] if interruption.args else signal.SIGINT)
        last_line(f"\ninterrupted by {signum.name}")
        sys.exit(128 + signum)
    except BrokenPipeError:  # the reader of our output went away, as in `... | head`
        lose_output()
        sys.exit(EXIT_SOME_FAILED)
    except Exception as error:
        if (line := fault_line(error, args)) is None:
            raise
        last_line(f"error: {line}")
        sys.exit(EXIT_BAD_INPUT)


def say_what_is_asked(args: argparse.Namespace) -> None:
    """Print the manifest, and the splits or checkpoints, of a script that takes them."""
    splits = getattr(args, "splits", None) or getattr(args, "split_index", None)
    files = getattr(args, "checkpoints", None)
    if splits or hasattr(args, "splits"):
        asked = (f"checkpoints: {len(files)}" if files else
                 f"splits: {ranges(sorted(splits)) if splits else 'all that have a model'}")
        print(f"{cohort_line(args.data)}; {asked}", flush=True)


def cohort_line(data: str) -> str:
    """"manifest: data.csv", with ", SYNTHETIC" where phantom.py made any of its scans."""
    try:
        rows = read_csv(data, ["scan_id"], lambda name: name in ("scan_id", "synthetic", "series_description"))
    except InputError:  # said by the script, where it reads the manifest
        return f"manifest: {data}"
    return f"manifest: {data}" + ", SYNTHETIC" * bool(is_synthetic(rows).any())


# ---------------------------------------------------------------- types of arguments

def _number(kind: type, allowed: Callable[[float], bool], otherwise: str) -> Callable[[str], int | float]:
    """An argparse type: the allowed numbers of a kind. Of any other the message says `otherwise`: "is not above 0"."""
    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' * (kind is int)}number") from None
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text} {otherwise}")
        return value
    return convert


def at_least(least: int) -> Callable[[str], int | float]:
    """An argparse type: whole numbers from `least` on."""
    return _number(int, lambda value: value >= least, f"is not {least} or more")


natural_int, positive_int = at_least(0), at_least(1)
positive_float = _number(float, lambda value: 0 < value < math.inf, "is not above 0")
not_negative_float = _number(float, lambda value: 0 <= value < math.inf, "is not 0 or more")
share = _number(float, lambda value: 0 < value < 1, "is not between 0 and 1")
fraction = _number(float, lambda value: 0 <= value < 1, "is not in 0..1 (1 excluded)")


def side_or_auto(text: str) -> int | float | str:
    """An argparse type: a side in pixels, or auto."""
    return text if text == "auto" else positive_int(text)


def number_range(text: str) -> range:
    """An argparse type: "3" -> range(3, 4); "0-19" -> range(0, 20)."""
    found = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a range such as 0-19")
    numbers = range(int(found[1]), int(found[2] or found[1]) + 1)
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text}: the first number is larger than the last")
    if len(numbers) > MOST_NUMBERS:
        raise argparse.ArgumentTypeError(f"{text}: more than {MOST_NUMBERS} numbers")
    return numbers


class Numbers(argparse.Action):
    """Numbers and ranges (of type `number_range`) -> a list of numbers, each once: 0 3-5 is [0, 3, 4, 5]."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, list(dict.fromkeys(itertools.chain.from_iterable(values))))


NUMBERS: dict[str, Any] = {"nargs": "+", "type": number_range, "action": Numbers}  # of add_argument


class SplitRange(argparse.Action):
    """One range -> a list, both ends included: 0-2 and 0 2 are [0, 1, 2]; anything else is refused."""

    def __call__(self, parser, namespace, values, option_string=None):
        asked = " ".join(values)
        try:
            if not re.fullmatch(r"\d+[- ]\d+", asked):
                raise argparse.ArgumentTypeError(asked)
            splits = number_range(asked.replace(" ", "-"))
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, f"{error}: write 0-2 for splits 0, 1 and 2") from None
        setattr(namespace, self.dest, list(splits))


SPLITS: dict[str, Any] = {"nargs": "+", "action": SplitRange, "default": list(range(20)), "metavar": "A-B",
                          "help": "range of data splits, both ends included; 0 19 is read as 0-19 (default: 0-19)"}


def image_size(values: list) -> str | tuple[int, int]:
    """The frame that --image_size asks for.

    Parameters
    ----------
    values : list
        Of int or "auto", as parsed.

    Returns
    -------
    "auto" or (int, int)
        Rows and columns, pixels.

    Raises
    ------
    InputError
        The values do not go together.
    """
    if values == ["auto"]:
        return "auto"
    if "auto" in values or len(values) > 2:
        raise InputError(f"--image_size {' '.join(map(str, values))}: give one side, rows and columns, or auto")
    return values[0], values[-1]


def pick(args: argparse.Namespace, *names: str) -> dict:
    """Some of the arguments as a dict, for the keywords of a function."""
    return {name: getattr(args, name) for name in names}


def images_folder(args: argparse.Namespace) -> str:
    """The folder that the manifest's file names are relative to."""
    return args.images or os.path.dirname(args.data) or "."


# ---------------------------------------------------------------- groups of arguments

def add_run_arguments(parser: Parser, output: str = "results") -> argparse._ArgumentGroup:
    """Which splits and runs to train, where to, and what to do with existing ones; `output` is --output's default."""
    group = parser.add_argument_group("run")
    add = group.add_argument
    add("--split_index", **NUMBERS, default=[0], metavar="S",
        help="data splits to train, numbers and ranges: 0 19 is two splits, 0-19 is twenty (default: 0)")
    add("--run", **NUMBERS, default=[1], metavar="R",
        help="runs of each split, numbers and ranges; each run has its own random seed (default: 1)")
    add("-o", "--output", default=output, metavar="DIR", help="folder for the files of the runs")
    add("--tensorboard", metavar="DIR", help="also write TensorBoard event files to this folder")
    add("--resume", action="store_true", help="continue from last_splitS_runR.pth where it exists")
    add("--force_resume", action="store_true",
        help="as --resume, also with other data, device, precision, threads or PyTorch, and with other options that "
             "can take effect from there on, such as --augm or --batch_size; the weights differ then")
    add("--overwrite", action="store_true", help="train again the runs that --output already holds")
    add("--checkpoint_minutes", type=positive_float, default=10, metavar="MINUTES",
        help="how often to save the state within an epoch; it is always saved after an epoch")
    return group


def add_data_arguments(parser: Parser, leakage: bool = False) -> None:
    """The manifest and the folder of its images; `leakage` adds --allow_leakage."""
    add = parser.add_argument_group("data").add_argument
    add("--data", default="data.csv", metavar="CSV", help="manifest, one row per view")
    add("--images", metavar="DIR", help="folder of the manifest's relative filenames (default: the manifest's folder)")
    if leakage:
        add("--allow_leakage", action="store_true", help="go on where a patient or an image is in two sets, or a scan "
            "was trained on that is tested; checkpoints, predictions and pages are then marked LEAKAGE")


def add_device_arguments(parser: Parser, compile: bool = False) -> None:
    """Device and precision; `compile` adds --compile."""
    add = parser.add_argument_group("device").add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:1 or mps; auto: cuda where available, else mps, else cpu")
    add("--threads", type=positive_int, metavar="N", help="CPU threads (default: PyTorch's choice)")
    add("--amp", default="auto", choices=("auto", "bf16", "fp16", "off"),
        help="bfloat16, float16 or float32 (off); auto: bfloat16 on a GPU or CPU (AMX, AVX-512 BF16) that gains by it")
    if compile:
        add("--compile", action="store_true", help="torch.compile the backbone (needs a C++ compiler)")


def add_input_arguments(parser: Parser, note: str = "") -> None:
    """How an image becomes the network's input; `note` ends the group's title."""
    add = parser.add_argument_group(f"network input{note}").add_argument
    add("--image_size", nargs="+", type=side_or_auto, default=[310], metavar="PIXELS",
        help="frame of the network, after --pool: one side, rows and columns, or auto: the smallest multiples of 32 "
             "that hold every training body and --margin (default: 310)")
    add("--margin", type=natural_int, default=0, metavar="PIXELS",
        help="with --image_size auto: free rows and columns around the largest body, to place it at random in")
    add("--pool", type=positive_int, default=1, metavar="K",
        help="first max-pool each MIP by K x K, to pixels K times as large: 1/K^2 of the computation")
    add("--crop_bodies", action="store_true", help="crop bodies larger than the frame at their centre (else refused)")
    add("--norm", default="auto", choices=("auto", "lars", "thesis", "none"),
        help="mean and standard deviation of the normalization, SUV. auto: of the body pixels of the training split, "
             "clipped to 0..30; lars: 2.13, 3.39; thesis: 0.6089, 1.8575; none: 0, 1")


CACHED: dict[str, Any] = {"type": natural_int, "default": 1, "metavar": "K", "help": "with frozen layers: compute "
                          "their output once, for K random placements and augmentations of each image, and use these "
                          "in turn; 0: compute it anew in every epoch"}


def add_model_arguments(parser: Parser, note: str = "") -> None:
    """Architecture, initial weights and frozen layers; `note` ends the group's title."""
    group = parser.add_argument_group(f"model{note}")
    add = group.add_argument
    add("--cls_arch", default="simple", choices=("simple", "complex"), help="head: Linear, Linear-ReLU-Dropout-Linear")
    add("--hidden", type=positive_int, default=256, metavar="UNITS", help="hidden units of the complex head")
    add("--dropout", type=fraction, default=0.5, metavar="P", help="dropout of the complex head, 0..1")
    add("--weights", default="imagenet", metavar="imagenet|none|PATH",
        help="initial weights: torchvision's of ImageNet, random ones, or a file of a ResNet34's, whatever its head")
    add("--checkpoint", metavar="FILE",
        help="start from this checkpoint instead, its head included, or the weights of another ResNet34")
    either = group.add_mutually_exclusive_group().add_argument
    either("--transfer_learning", action="store_true", help="train the head only")
    either("--finetune", action="store_true", help="train layer4 and the head only")
    add("--cached_placements", **CACHED)


def add_training_arguments(parser: Parser, nepochs: int = 40, note: str = "") -> None:
    """Epochs, optimizer, schedule, augmentation and loss; `nepochs` is --nepochs' default, `note` ends the title."""
    add = parser.add_argument_group(f"training{note}").add_argument
    add("--nepochs", type=positive_int, default=nepochs, metavar="N", help="maximum number of epochs")
    add("--early_stopping", action="store_true",
        help="stop when the validation AUC has not improved by 0.001 for --patience epochs")
    add("--patience", type=positive_int, default=5, metavar="EPOCHS", help="patience of --early_stopping")
    add("--keep", default="best", choices=("best", "last"), help="epoch whose weights are kept: that of the best "
        "validation AUC, or the last one trained, with --early_stopping the one it stops after (for a schedule to 0)")
    add("--seed", type=natural_int, default=0, help="random seed, combined with split, run and epoch")
    add("--batch_size", type=positive_int, default=50, metavar="N", help="images per step, at most")
    add("--optimizer", default="sgd", choices=("sgd", "adam", "adamw"), help="sgd: with Nesterov momentum")
    add("--lr", type=positive_float, default=0.001, help="learning rate; with onecycle, its maximum")
    add("--momentum", type=fraction, default=0.9, help="momentum of sgd")
    add("--wd", type=not_negative_float, default=0.0001, help="weight decay")
    add("--lr_schedule", default="step", choices=("step", "plateau", "cosine", "onecycle", "none"),
        help="step: divide by 10 every --lr_anneal epochs; plateau (or --lr_scheduler): where validation AUC does not "
             "improve (patience 1, cooldown 1, minimum 1e-5); cosine: to 0 at the end; onecycle: up to --lr, down to "
             "0, adam's and adamw's beta1 from 0.95 to 0.85 and back")
    add("--lr_anneal", type=positive_int, default=15, metavar="EPOCHS", help="interval of --lr_schedule step")
    add("--warmup_epochs", type=natural_int, default=0, metavar="N",
        help="epochs in which the learning rate first increases (with onecycle, 0 means 30 %% of all)")
    add("--augm", type=int, default=0, choices=(0, 1, 2, 3, 4, 5, 12, 14, 34, 45), metavar="CODE",
        help="augmentation: 0 none, 1 flip along either axis, 2 rotation by multiples of 90 degrees, 3 left-right "
             "flip, 4 intensity times U(0.85, 1.15), 5 noise of SD 0.1 SUV; 12, 14, 34, 45: both digits")
    switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": False}
    add("--balance", **switch, help="weight the loss by the inverse class frequencies of the training split")
    add("--oversample", **switch, help="oversample the rarer class until the classes are balanced")
    add("--label_smoothing", type=fraction, default=0.0, metavar="S", help="targets S/2 and 1 - S/2")
    add("--ema", type=fraction, metavar="DECAY",
        help="validate and save an exponential moving average of the weights, with this decay per step (such as 0.99)")
    add("--eval_train", action="store_true",
        help="log training metrics of a second pass after each epoch, as LARS does, not of the training steps")


def add_site_arguments(parser: Parser) -> None:
    """The head for the lesion's site and its loss."""
    group = parser.add_argument_group("lesion site")
    add = group.add_argument
    add("--site_head", default="grid", choices=("grid", "linear"),
        help="grid: predicts the site from layer2 and layer3, in each cell of a grid over the body (frozen layers are "
             "then computed in every epoch); linear: from the mean of layer4, as the binary head does")
    add("--site_lambda", type=not_negative_float, default=1.0, help="weight of the site loss; the binary loss has 1")
    add("--site_detach", action="store_true", help="keep the site loss from changing the backbone")
    add("--site_on", default="positive", choices=("positive", "all"),
        help="scans with a site loss: positive ones, without code 51 (no lesion); or all, with 51 as a class")
    add("--site_balance", action="store_true", help="weight the sites by their inverse training frequencies")
    add("--site_smoothing", type=fraction, default=0.0, metavar="S", help="label smoothing of the sites")
    add("--site_multi", action="store_true",
        help="several sites per scan: target_loc holds codes separated by semicolons, each predicted by a sigmoid")
    add("--select", default="auc", choices=("auc", "loc", "sum"), help="what --keep best and --early_stopping follow: "
        "validation AUC, balanced accuracy of the site (--site_multi: mean average precision), or their sum")
    add_code_arguments(group)


def add_code_arguments(group: argparse._ArgumentGroup) -> None:
    """How target_loc is read."""
    group.add_argument("--site_map", metavar="FILE.json", help='names of the codes in target_loc: {"1": "cervical", '
                       "...}; 51 is always no lesion (default: the 14 sites of the documentation)")
    group.add_argument("--site_strict", action="store_true",
                       help="refuse positive scans with code 51 and negative scans with a site, instead of warning")


def add_prediction_arguments(parser: Parser, output: str = "results") -> None:
    """Models, rows and --output of the prediction scripts; `output` is the default of --output and --chptfolder."""
    add = add_model_range_arguments(parser, output).add_argument
    add("-o", "--output", default=output, metavar="DIR", help="folder for pred_splitS_runR.csv")
    add("--no_features", action="store_true", help="leave out the columns F1..F512")


def add_model_range_arguments(parser: Parser, output: str = "results") -> argparse._ArgumentGroup:
    """Models, rows, and the network input of checkpoints that store none -> the group "models"."""
    models = parser.add_argument_group("models")
    add = models.add_argument
    either = models.add_mutually_exclusive_group().add_argument
    either("--chptfolder", default=output, metavar="DIR", help="folder of checkpoints and best_run.csv, or the zip "
           "of export_models.py")
    either("--checkpoints", **SEVERAL, metavar="FILE", help="these checkpoints instead, of this toolkit or of LARS, by "
           "whatever name")
    add("--splits", **SPLITS | {"default": None, "help": "range of data splits, both ends included; 0 19 is read as "
        "0-19 (default: all that have a model)"})
    add("--run", **NUMBERS, metavar="R", help="runs of each split, numbers and ranges (default: that of best_run.csv)")
    add("--set", nargs="+", default=["test"], choices=("train", "val", "test", "cal", "all"),
        help="rows to predict, by the split's column (cal: calibration set); all: all rows, also of a manifest "
             "without splits (default: test)")
    add("--batch_size", type=positive_int, default=50, metavar="N", help="images per batch")
    add = parser.add_argument_group("network input (only for checkpoints that store none, such as LARS's)").add_argument
    add("--image_size", nargs="+", type=side_or_auto, metavar="PIXELS",
        help="frame: one side, or rows and columns (default: 310, as LARS)")
    add("--norm", choices=("lars", "thesis"),
        help="mean and SD in SUV. lars: 2.13, 3.39; thesis: 0.6089, 1.8575 (default: lars)")
    add("--crop_bodies", action="store_true",
        help="for any checkpoint: crop bodies that are larger than the frame, instead of refusing them")
    return models


# ---------------------------------------------------------------- whole parsers

def training_parser(doc: str | None, output: str = "results") -> Parser:
    """A Parser with all of train.py's arguments; `output` is --output's default."""
    parser = Parser(doc)
    add_run_arguments(parser, output).add_argument("--params", metavar="FILE",
        help="best_params_summary.csv of a search: each split's row replaces defaults and recipe, not what is given")
    recipes.add_recipe_argument(parser, "--params")
    add_data_arguments(parser, leakage=True)
    add_input_arguments(parser)
    add_model_arguments(parser)
    add_training_arguments(parser)
    add_device_arguments(parser, compile=True)
    return parser


def search_parser(doc: str | None, study: str, trials: int, nepochs: int, finetuning: bool = False) -> Parser:
    """A Parser with the arguments of optun.py or optuna_finetuning.py; study, trials and nepochs are defaults."""
    parser = Parser(doc)
    add = parser.add_argument_group("search").add_argument
    add("--splits", **SPLITS)
    add("--trials", type=positive_int, default=trials, metavar="N",
        help="finished trials (complete or pruned) per study, with those of earlier searches and other processes")
    add("--timeout", type=positive_float, metavar="SECONDS", help="start no trial after this time")
    add("--space", metavar="FILE.json",
        help='changes to the search space: {"lr": {"low": 1e-4, "high": 1e-2, "log": true}, "augm": [0, 4], "wd": 0, '
             '"dropout": null}: a range, choices, a fixed value, the default below')
    add("--sampler", default="tpe", choices=("tpe", "random", "cmaes"),
        help="how parameters are proposed; cmaes draws categorical ones at random")
    add("--pruner", default="median", choices=("median", "hyperband", "none"), help="how weak trials are ended early")
    add("--storage", metavar="URL",
        help="database: postgresql://user@host/name for several machines (default: SQLite, optuna.db in --output)")
    add("--study", default=study, metavar="NAME", help="prefix of the studies' names, NAME_splitS; another "
        "than the default also ends the names of tables and report, best_params_summary_NAME.csv")
    add("--heartbeat", type=positive_int, default=30, metavar="SECONDS",
        help="how often workers report that they are alive; after three missed reports a worker's trial is repeated "
             "(the same for all workers of a study)")
    add("-o", "--output", default="results", metavar="DIR", help="folder for tables and report")
    add_data_arguments(parser, leakage=True)
    recipes.add_recipe_argument(parser, "--space")
    fixed = " (arguments that are given here, or by --recipe, are fixed in all trials, not searched)"
    add_input_arguments(parser, " (default: the options that the checkpoint was trained with)" if finetuning else "")
    if finetuning:
        add = parser.add_argument_group("start").add_argument
        add("--chptfolder", default="results", metavar="DIR",
            help="folder of checkpoints and best_run.csv, or the zip of export_models.py: each split starts from its "
                 "own best run")
        add("--mode", choices=MODES, help="train the head, layer4 and the head, or all layers (default: searched)")
        add("--cached_placements", **CACHED)
    else:
        add_model_arguments(parser, fixed)
    add_training_arguments(parser, nepochs, fixed)
    add_device_arguments(parser)
    return parser
