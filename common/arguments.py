"""What the scripts share at the command line: the parser, argument groups, exit codes. Imports no torch."""
import argparse
import os
import signal
import sys

from common.files import InputError
from common.renamed import current_words

EXIT_DONE, EXIT_SOME_FAILED, EXIT_BAD_INPUT = 0, 1, 2
_NOT_GIVEN = object()


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose --help shows the script's docstring and every default, and whose errors are one line."""

    def __init__(self, doc):
        """`doc` is the script's `__doc__`: one line of what it does, then the commands to run it."""
        super().__init__(description=doc, formatter_class=_HelpFormatter, allow_abbrev=False)

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's, but for options under former names; with --params or --space, `given` lists the names that
        were given on the command line.
        """
        args = current_words(sys.argv[1:] if args is None else args)
        names = dict.fromkeys(action.dest for action in self._actions if action.dest != "help")
        if not names.keys() & {"params", "space"}:
            return super().parse_known_args(args, namespace)
        parsed, rest = super().parse_known_args(args, argparse.Namespace(**dict.fromkeys(names, _NOT_GIVEN)))
        given = [name for name in names if getattr(parsed, name) is not _NOT_GIVEN]
        defaults = {name: self.get_default(name) for name in names if name not in given}
        return argparse.Namespace(**vars(parsed) | defaults, given=given), rest

    def error(self, message):
        self.exit(EXIT_BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action):
        if action.default in (None, False, True) or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def run_script(get_args_parser, main):
    """Parse the command line, run `main(args)`, and end the process with the exit code of the design.

    0 done; what `main` returns (1: some items failed and are listed); 2 bad input, one line on stderr; 130/143 after
    SIGINT/SIGTERM, which arrive in `main` as KeyboardInterrupt so that it can save what it has.
    """
    received = []

    def interrupt(signum, frame):
        received.append(signum)
        raise KeyboardInterrupt

    args = get_args_parser().parse_args()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, interrupt)
    try:
        sys.exit(main(args) or EXIT_DONE)
    except InputError as error:
        sys.exit(_fail(error))
    except KeyboardInterrupt:
        print(f"\ninterrupted by {signal.Signals((received or [signal.SIGINT])[0]).name}", file=sys.stderr)
        sys.exit(128 + (received or [signal.SIGINT])[0])
    except BrokenPipeError:  # the reader of our output went away, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_SOME_FAILED)


def _fail(error):
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return EXIT_BAD_INPUT


def add_run_arguments(parser, output="results"):
    group = parser.add_argument_group("run")
    group.add_argument("--split_index", nargs="+", type=number_range, action=_Flat, default=[0], metavar="S",
                       help="data splits to train: 0 1 2 or 0-19 (default: 0)")
    group.add_argument("--run", nargs="+", type=number_range, action=_Flat, default=[1], metavar="R",
                       help="numbers of the runs of each split, part of the seed: 1 2 or 1-5 (default: 1)")
    group.add_argument("--output", default=output, metavar="DIR", help="where the runs' files go")
    group.add_argument("--tensorboard", metavar="DIR", help="write TensorBoard's event files here, too")
    group.add_argument("--resume", action="store_true", help="go on from last_splitS_runR.pth where there is one")
    group.add_argument("--force_resume", action="store_true",
                       help="the same, also with other arguments, data, device, precision or thread count, though it "
                            "then does not lead to the weights of an undisturbed run")
    group.add_argument("--overwrite", action="store_true", help="train again what --output holds already")
    group.add_argument("--checkpoint_minutes", type=_positive_float, default=10, metavar="MINUTES",
                       help="save the state within an epoch this often; after every epoch in any case")
    return group


def add_data_arguments(parser):
    group = parser.add_argument_group("data")
    group.add_argument("--data", default="data.csv", metavar="CSV", help="manifest: one row per view (see README)")
    group.add_argument("--images", metavar="DIR", help="what `filename` is relative to (default: the CSV's folder)")
    return group


def add_device_arguments(parser, compile=False):
    group = parser.add_argument_group("device")
    group.add_argument("--device", default="auto", help="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1, mps")
    group.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: PyTorch's choice)")
    group.add_argument("--amp", default="auto", choices=("auto", "bf16", "fp16", "off"),
                       help="autocast to bfloat16 or float16; auto: bfloat16 where the processor (AMX, AMD's AVX-512 "
                            "BF16) or GPU gains by it; off: float32")
    if compile:
        group.add_argument("--compile", action="store_true", help="torch.compile the backbone (needs a C++ compiler)")
    return group


def add_input_arguments(parser, note=""):
    group = parser.add_argument_group(f"network input{note}")
    group.add_argument("--image_size", nargs="+", type=side_or_auto, default=[310], metavar="PIXELS",
                       help="frame of the network, after --pool: a side, rows and columns, or auto: the smallest "
                            "box of multiples of 32 that holds every training body and --margin (default: 310)")
    group.add_argument("--margin", type=natural_int, default=0, metavar="PIXELS",
                       help="with auto: room to move the largest body in, per axis; smaller ones have more")
    group.add_argument("--pool", type=positive_int, default=1, metavar="K",
                       help="max-pool each MIP K x K first (a MIP of K times the spacing): 1/K^2 of the work")
    group.add_argument("--crop_bodies", action="store_true",
                       help="cut bodies larger than the frame to its size, about their middle; else they are refused")
    group.add_argument("--norm", default="auto", choices=("auto", "lars", "thesis", "none"),
                       help="mean to subtract and standard deviation to divide by, SUV. auto: of the training split's "
                            "body pixels, SUV clipped to 0..30; lars: 2.13, 3.39; thesis: 0.6089, 1.8575; none: 0, 1")
    return group


def add_model_arguments(parser, note=""):
    group = parser.add_argument_group(f"model{note}")
    group.add_argument("--cls_arch", default="simple", choices=("simple", "complex"),
                       help="head: Linear, or Linear-ReLU-Dropout-Linear")
    group.add_argument("--hidden", type=positive_int, default=256, metavar="UNITS", help="of the complex head")
    group.add_argument("--dropout", type=_fraction, default=0.5, metavar="P", help="dropout of the complex head, 0..1")
    group.add_argument("--weights", default="imagenet", metavar="imagenet|none|PATH",
                       help="where the ResNet34 starts: torchvision's ImageNet weights, random, or a file of a "
                            "torchvision ResNet34's state_dict")
    group.add_argument("--checkpoint", metavar="FILE", help="start from this checkpoint's weights instead")
    exclusive = group.add_mutually_exclusive_group()
    exclusive.add_argument("--transfer_learning", action="store_true", help="train the head only")
    exclusive.add_argument("--finetune", action="store_true", help="train layer4 and the head only")
    add_cache_argument(group)
    return group


def add_cache_argument(group):
    group.add_argument("--cached_placements", type=natural_int, default=1, metavar="K",
                       help="with frozen layers: compute them for K random placements and augmentations of each image "
                            "and take them in turn; 0: new ones in every epoch, at full cost")


def add_training_arguments(parser, nepochs=40, note=""):
    group = parser.add_argument_group(f"training{note}")
    group.add_argument("--nepochs", type=positive_int, default=nepochs, metavar="N", help="epochs at most")
    group.add_argument("--early_stopping", action="store_true",
                       help="stop after --patience epochs without 0.001 more validation AUC")
    group.add_argument("--patience", type=positive_int, default=5, metavar="EPOCHS", help="of --early_stopping")
    group.add_argument("--seed", type=natural_int, default=0, help="of every random choice, with split, run and epoch")
    group.add_argument("--batch_size", type=positive_int, default=50, metavar="N", help="images per step, at most")
    group.add_argument("--optimizer", default="sgd", choices=("sgd", "adam", "adamw"),
                       help="sgd: with Nesterov momentum")
    group.add_argument("--lr", type=_positive_float, default=0.001, help="learning rate (onecycle: its highest)")
    group.add_argument("--momentum", type=_fraction, default=0.9, help="of sgd")
    group.add_argument("--wd", type=_not_negative_float, default=0.0001, help="weight decay")
    group.add_argument("--lr_schedule", default="step", choices=("step", "plateau", "cosine", "onecycle", "none"),
                       help="step: a tenth every --lr_anneal epochs; plateau: a tenth after an epoch without better "
                            "validation AUC (patience 1, cooldown 1, floor 1e-5); cosine: to 0 at the last epoch")
    group.add_argument("--lr_scheduler", dest="lr_schedule", action="store_const", const="plateau",
                       default=argparse.SUPPRESS, help="the same as --lr_schedule plateau")
    group.add_argument("--lr_anneal", type=positive_int, default=15, metavar="EPOCHS", help="of --lr_schedule step")
    group.add_argument("--warmup_epochs", type=natural_int, default=0, metavar="N",
                       help="let the learning rate rise linearly first (onecycle: 0 means 30 %% of the epochs)")
    group.add_argument("--augm", type=int, default=0, choices=(0, 1, 2, 3, 4, 5, 12, 14, 34, 45), metavar="CODE",
                       help="augmentation: 0 none, 1 flip along either axis, 2 turn by multiples of 90 degrees, 3 left-"
                            "right flip, 4 intensity x U(0.85, 1.15), 5 noise (0.1 SUV); 12, 14, 34, 45: both digits")
    group.add_argument("--balance", action=argparse.BooleanOptionalAction, default=False,
                       help="weigh the loss by the classes of the training split")
    group.add_argument("--oversample", action=argparse.BooleanOptionalAction, default=False,
                       help="repeat the rarer class's images till it has as many")
    group.add_argument("--label_smoothing", type=_fraction, default=0.0, metavar="S", help="targets S/2 and 1 - S/2")
    group.add_argument("--ema", type=_fraction, metavar="DECAY",
                       help="validate and keep an exponential moving average of the weights, for example 0.99 a step")
    group.add_argument("--eval_train", action="store_true",
                       help="log the training set as evaluated after the epoch (LARS), not as met in training: a "
                            "second pass")
    return group


def search_parser(doc, study, trials, nepochs, finetuning=False):
    """A Parser with the arguments of optun.py, or of optuna_finetuning.py.

    Args:
        study (str): the studies' name.
        trials (int), nepochs (int): how many of each there are by default.
    """
    parser = Parser(doc)
    group = parser.add_argument_group("search")
    group.add_argument("--splits", nargs=2, type=natural_int, default=[0, 19], metavar=("A", "B"),
                       help="first and last split, both included: one study each (default: 0 19)")
    group.add_argument("--trials", type=positive_int, default=trials, metavar="N",
                       help="finished trials (complete or pruned) that each study is to have, those of earlier and of "
                            "other processes included")
    group.add_argument("--timeout", type=_positive_float, metavar="SECONDS", help="start no trial after this time")
    group.add_argument("--space", metavar="FILE.json",
                       help='changes to the search space: {"lr": {"low": 1e-4, "high": 1e-2, "log": true}, '
                            '"batch_size": [16, 32], "optimizer": "adam", "dropout": null}: a range, choices, a '
                            "fixed value, the default below")
    group.add_argument("--sampler", default="tpe", choices=("tpe", "random", "cmaes"),
                       help="how parameters are proposed; cmaes draws choices at random")
    group.add_argument("--pruner", default="median", choices=("median", "hyperband", "none"),
                       help="how trials are given up early")
    group.add_argument("--storage", metavar="URL",
                       help="database of the studies, as Optuna takes it: postgresql://user@host/name for several "
                            "machines (default: sqlite, optuna.db in --output)")
    group.add_argument("--study", default=study, metavar="NAME", help="the studies are called NAME_splitS")
    group.add_argument("--heartbeat", type=positive_int, default=30, metavar="SECONDS",
                       help="a worker that was not heard of for three times as long is taken for dead and its trial "
                            "is done again")
    group.add_argument("--output", default="results", metavar="DIR", help="where tables and report go")
    add_data_arguments(parser)
    if finetuning:
        group = parser.add_argument_group("start")
        group.add_argument("--chptfolder", default="results", metavar="DIR",
                           help="folder of checkpoints and best_run.csv: each split starts from its own best")
        group.add_argument("--mode", choices=("transfer_learning", "finetune", "full_retrain"),
                           help="train the head only, layer4 and the head, or everything (default: searched)")
        add_cache_argument(group)
    fixed = " (what is given is fixed for all trials; else the space or, beyond it, the default)"
    add_input_arguments(parser, " (default: that of the checkpoint)" if finetuning else "")
    if not finetuning:
        add_model_arguments(parser, fixed)
    add_training_arguments(parser, nepochs, fixed)
    add_device_arguments(parser)
    return parser


def add_site_arguments(parser):
    group = parser.add_argument_group("lesion site")
    group.add_argument("--site_head", default="grid", choices=("grid", "linear"),
                       help="the site from layer2 and layer3, field by field of a grid over the body, or from layer4's "
                            "mean, as the binary head; with a grid the output of frozen layers is not kept")
    group.add_argument("--site_lambda", type=_not_negative_float, default=1.0, metavar="LAMBDA",
                       help="weight of the site's loss beside the binary one")
    group.add_argument("--site_detach", action="store_true", help="the site head does not move the backbone")
    group.add_argument("--site_on", default="positive", choices=("positive", "all"),
                       help="site loss on positive scans only (51 is neither trained nor scored), or on all, with 51, "
                            "no lesion, as a class")
    group.add_argument("--site_balance", action="store_true", help="weigh the sites by their rarity in the training "
                       "split")
    group.add_argument("--site_smoothing", type=_fraction, default=0.0, metavar="S",
                       help="label smoothing of the sites")
    group.add_argument("--site_multi", action="store_true", help="several sites a scan: target_loc holds codes "
                       "separated by semicolons, the site head gives a probability for each (sigmoid)")
    group.add_argument("--select", default="auc", choices=("auc", "loc", "sum"), help="early stopping and the kept "
                       "checkpoint follow the validation AUC, the balanced site accuracy (with --site_multi the mean "
                       "average precision), or their sum")
    add_code_arguments(group)
    return group


def add_code_arguments(group):
    group.add_argument("--site_map", metavar="FILE.json", help='names of the codes in target_loc, {"1": "cervical", '
                       '...}; 51 is no lesion (default: the 14 codes in README.md)')
    group.add_argument("--site_strict", action="store_true",
                       help="refuse positive scans with code 51 and negative ones with another, instead of naming them")


def training_parser(doc, output="results"):
    """A Parser with all of train.py's arguments."""
    parser = Parser(doc)
    group = add_run_arguments(parser, output)
    group.add_argument("--params", metavar="FILE",
                       help="best_params_summary.csv of optun.py or optuna_finetuning.py: each split's row takes the "
                            "place of the defaults below; arguments given here win over it")
    add_data_arguments(parser)
    add_input_arguments(parser)
    add_model_arguments(parser)
    add_training_arguments(parser)
    add_device_arguments(parser, compile=True)
    return parser


def add_prediction_arguments(parser, output="results"):
    group = add_model_range_arguments(parser, output)
    group.add_argument("--output", default=output, metavar="DIR", help="where pred_splitS_runR.csv go")
    group.add_argument("--no_features", action="store_true", help="leave out the columns F1..F512")


def add_model_range_arguments(parser, output="results"):
    """Which models, which rows -> the group "models"."""
    group = models = parser.add_argument_group("models")
    group.add_argument("--chptfolder", default=output, metavar="DIR", help="folder of checkpoints and best_run.csv")
    group.add_argument("--splits", nargs=2, type=natural_int, default=[0, 19], metavar=("A", "B"),
                       help="first and last split, both included (default: 0 19)")
    group.add_argument("--run", nargs="+", type=number_range, action=_Flat, metavar="R",
                       help="runs of each split: 1 2 or 1-5 (default: the best one, by best_run.csv)")
    group.add_argument("--set", nargs="+", default=["test"], choices=("train", "val", "test", "all"),
                       help="rows to predict, by the split's own column; all: every row, no split columns needed "
                            "(default: test)")
    group.add_argument("--batch_size", type=positive_int, default=50, metavar="N", help="images at a time")
    group = parser.add_argument_group("network input (only for checkpoints that store none, such as LARS's)")
    group.add_argument("--image_size", nargs="+", type=side_or_auto, metavar="PIXELS",
                       help="frame: a side or rows and columns")
    group.add_argument("--norm", choices=("lars", "thesis"), help="lars: 2.13, 3.39; thesis: 0.6089, 1.8575 (SUV)")
    group.add_argument("--crop_bodies", action="store_true",
                       help="for any checkpoint: cut bodies larger than the frame instead of refusing them")
    return models


def images_folder(args):
    """The folder that the manifest's file names are relative to."""
    return args.images or os.path.dirname(args.data) or "."


def image_size(values):
    """--image_size as given -> "auto" or (rows, columns). Raises InputError where the values do not go together."""
    if values == ["auto"]:
        return "auto"
    if "auto" in values or len(values) > 2:
        raise InputError(f"--image_size {' '.join(map(str, values))}: give one side, rows and columns, or auto")
    return values[0], values[-1]


def natural_int(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive_int(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def number_range(text):
    """"3" -> range(3, 4); "0-19" -> range(0, 20)."""
    first, _, last = text.partition("-")
    numbers = range(natural_int(first), natural_int(last or first) + 1)
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text}: the first is larger than the last")
    return numbers


class _Flat(argparse.Action):
    """Several ranges -> one list of their numbers, each once."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, list(dict.fromkeys(number for numbers in values for number in numbers)))


def side_or_auto(text):
    return text if text == "auto" else positive_int(text)


def _positive_float(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _not_negative_float(text):
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def _fraction(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1 (1 excluded)")
    return value
