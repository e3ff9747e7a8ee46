"""train.py's arguments as data: the spaces that the searches draw from, and the best values that they found.

Imports no torch. A space is {name: {"low", "high"[, "step"][, "log"]} or [choices]}, by the names of train.py's
arguments; `mode` is none of them but stands for two: transfer_learning, finetune, or full_retrain for neither.
"""
import argparse
import math
from argparse import Namespace

from common import arguments
from common.files import InputError, read_csv, read_json_object
from common.renamed import RENAMED

MODES = ("transfer_learning", "finetune", "full_retrain")
_SWITCHES = {"batch_size": [16, 32, 64, 128], "optimizer": ["sgd", "adam"], "lr_schedule": ["step", "plateau"],
             "balance": [False, True], "oversample": [False, True], "augm": [0, 1, 2, 3, 4, 5, 12, 14, 34, 45]}
SEARCH = {"lr": {"low": 1e-5, "high": 1e-2, "log": True}, "wd": {"low": 1e-5, "high": 1e-2, "log": True}, **_SWITCHES,
          "cls_arch": ["simple", "complex"], "hidden": {"low": 64, "high": 512, "step": 64},
          "dropout": {"low": 0.0, "high": 0.5}}
FINETUNING = {"lr": {"low": 1e-5, "high": 1e-3, "log": True}, "wd": {"low": 1e-6, "high": 1e-3, "log": True},
              **_SWITCHES, "mode": list(MODES)}
ONLY_WITH = {"hidden": ("cls_arch", "complex"), "dropout": ("cls_arch", "complex"), "momentum": ("optimizer", "sgd"),
             "lr_anneal": ("lr_schedule", "step")}  # a parameter that has no effect elsewhere is not drawn there
# of the network's and training's arguments, what is the same for every trial and set at the command line, if at all
INPUT = ("image_size", "margin", "pool", "crop_bodies", "norm")
_LENGTH = ("nepochs", "early_stopping", "patience")
_START = ("weights", "checkpoint", "seed", "cached_placements")
_NOT_DRAWN = (*INPUT, *_LENGTH, *_START, "transfer_learning", "finetune", "eval_train")


def _actions():
    """{name: argparse action} of what a file of parameters may hold."""
    parser = arguments.Parser("")
    for add in (arguments.add_input_arguments, arguments.add_model_arguments, arguments.add_training_arguments):
        add(parser)
    first = {}
    for action in parser._actions:
        first.setdefault(action.dest, action)
    return {name: action for name, action in first.items() if name not in ("help", "version")}


def convert(name, text):
    """A text as train.py would take it at --name. Raises ValueError, which says what is wrong with it."""
    if name == "mode":
        action = argparse.Action([], "mode", choices=MODES)
    else:
        action = _actions()[name]
    if isinstance(action.default, bool):
        if text not in ("True", "False"):
            raise ValueError(f"{text!r} is not true or false")
        return text == "True"
    if action.nargs == "+":
        return [action.type(each) for each in text.split()]
    try:
        value = action.type(text) if action.type else text
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error)) from None
    if action.choices and value not in action.choices:
        raise ValueError(f"{text!r} is none of {', '.join(map(str, action.choices))}")
    return value


# ---------------------------------------------------------------- the space

def read_space(args, default):
    """The default space with the changes of --space FILE.json, less what the command line fixes.

    Returns:
        (space, {name: fixed value}). Raises InputError.
    """
    path = args.space
    changes = read_json_object(path, "--space", '{"lr": {"low": 1e-4, "high": 1e-2}}') if path else {}
    known = [name for name in (*_actions(), "mode") if name not in _NOT_DRAWN and (name != "mode" or name in default)]
    known = [name for name in known if hasattr(args, name)]
    space = {name: given for name, given in default.items() if name not in args.given}
    fixed = {"mode": args.mode} if "mode" in args.given else {}
    for name, given in changes.items():
        if name not in known:
            raise InputError(f"--space {path}: unknown name {name!r}; it may hold {', '.join(known)}")
        if name in args.given:
            raise InputError(f"--{name} fixes what --space {path} searches; leave one of them out")
        space.pop(name, None)
        try:
            if isinstance(given, dict):
                space[name] = _range(name, given)
            elif isinstance(given, list):
                space[name] = _choices(name, given)
            elif given is not None:
                fixed[name] = convert(name, str(given))
        except (ValueError, TypeError) as error:
            raise InputError(f"--space {path}: {name}: {error}") from None
    if not space:
        raise InputError("nothing is left to search: " + (f"--space {path}" if path else "every parameter is fixed"))
    return space, fixed


def _choices(name, values):
    if not values:
        raise ValueError("an empty list of choices")
    taken = [convert(name, str(value)) for value in values]
    if len(set(taken)) < len(taken):
        raise ValueError(f"{values}: a choice is there twice")
    return taken


def _range(name, given):
    unknown = set(given) - {"low", "high", "step", "log"}
    if unknown or not {"low", "high"} <= set(given):
        raise ValueError(f"{given}: a range has low and high, and may have step or log")
    if any(isinstance(given[key], bool) or not isinstance(given[key], int | float) for key in given if key != "log"):
        raise ValueError(f"{given}: low, high and step are numbers")
    if not isinstance(given.get("log", False), bool):
        raise ValueError(f"{given}: log is true or false")
    action = _actions().get(name)
    if action is None or action.choices or isinstance(action.default, bool):
        raise ValueError("takes a list of choices, not a range")
    low, high = (convert(name, str(given[key])) for key in ("low", "high"))
    if low > high:
        raise ValueError(f"an empty range: low {low} is above high {high}")
    log, step = given.get("log", False), given.get("step")
    if log and (step or low <= 0):
        raise ValueError(f"{given}: log needs low above 0 and no step")
    if step is not None and not (0 < step < math.inf and isinstance(step, type(low) | int)):
        raise ValueError(f"step {step} is not above 0" if step <= 0 else f"step {step} is not a whole number")
    return {"low": low, "high": high} | ({"step": step} if step else {}) | ({"log": True} if log else {})


def suggest(trial, space, args):
    """Draw a trial's parameters -> dict; one that has no effect, with the others or with `args`, is left out."""
    drawn = {}
    for name in sorted(space, key=lambda name: (name in (*ONLY_WITH, "augm"), list(space).index(name))):
        if not _matters(name, drawn, args):
            continue
        given = space[name]
        if isinstance(given, list):
            drawn[name] = trial.suggest_categorical(name, given)
        else:
            draw = trial.suggest_int if isinstance(given["low"], int) else trial.suggest_float
            drawn[name] = draw(name, **given)
    return drawn


def _matters(name, drawn, args):
    """Whether a parameter has an effect, given those drawn before.

    Augmentation has none where frozen layers see each image once: it would be one fixed change of it, not several.
    """
    now = with_values(args, drawn)
    if name == "augm":
        return now.cached_placements != 1 or not (now.transfer_learning or now.finetune)
    return name not in ONLY_WITH or getattr(now, ONLY_WITH[name][0]) == ONLY_WITH[name][1]


# ---------------------------------------------------------------- from parameters to arguments

def fixed_args(args):
    """train.py's arguments for a search's trials: its defaults, and what the search's own arguments say of them."""
    base = vars(arguments.training_parser("").parse_args([]))
    return Namespace(**{name: getattr(args, name, value) for name, value in base.items()
                        if name not in ("params", "given")})


def with_values(args, values):
    """A copy of the arguments with other values of some; `mode` is resolved."""
    values = dict(values)
    if "mode" in values:
        mode = values.pop("mode")
        values |= {"transfer_learning": mode == "transfer_learning", "finetune": mode == "finetune"}
    return Namespace(**vars(args) | values)


def worth_keeping(args):
    """Of a search's fixed arguments, what a training of the winner needs: those that are not train.py's defaults."""
    defaults = vars(arguments.training_parser("").parse_args([]))
    names = [name for name in _actions() if name not in _LENGTH]
    return {name: value for name in names if (value := getattr(args, name)) != defaults[name]}


def as_text(value):
    """A value as `convert` reads it."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def of_split(args, split, say=print):
    """train.py's arguments for one split: with --params FILE, the values of the split's row where none was given.

    `params` and `given` are left out, so that a run is the same run whether its values came from a file or not.
    """
    own = Namespace(**{name: value for name, value in vars(args).items() if name not in ("params", "given")})
    if not getattr(args, "params", None):
        return own
    values = read_values(args.params, split)
    given = set(args.given)
    if given & {"transfer_learning", "finetune"}:
        given |= {"mode", "transfer_learning", "finetune"}
    taken = {name: value for name, value in values.items() if name not in given}
    say(f"split {split}: from {args.params}: {listed(taken) or 'nothing'}")
    kept = {name: getattr(own, name, "") for name in values if name in given and name != "mode"}
    instead = [f"{name} {as_text(value)} (file: {as_text(values[name])})" for name, value in kept.items()]
    if "mode" in values and "mode" in given:
        instead.append(f"mode of the command line (file: {values['mode']})")
    if instead:
        say(f"split {split}: from the command line: {', '.join(instead)}")
    return with_values(own, taken)


def listed(values):
    return ", ".join(f"{name} {as_text(value)}" for name, value in values.items())


def read_values(path, split):
    """The row of one split in best_params_summary.csv -> {name: value}; empty fields are left out. Or InputError."""
    table = read_csv(path, ("split",)).rename(columns=RENAMED)
    known = _actions()
    unknown = [name for name in table if name not in (*known, "mode", "split", "number", "value")]
    if unknown:
        raise InputError(f"{path}: unknown column {', '.join(unknown)}; it may hold split, number, value, mode and "
                         "train.py's arguments on network input, model and training")
    rows = table[table["split"] == str(split)]
    if len(rows) != 1:
        held = ", ".join(table["split"]) or "none"
        raise InputError(f"{path}: {'no' if rows.empty else 'more than one'} row of split {split}; it has {held}; "
                         "search that split, or leave it out of --split_index")
    values = {}
    for name, text in rows.iloc[0].items():
        if text and name not in ("split", "number", "value"):
            try:
                values[name] = convert(name, text)
            except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
                raise InputError(f"{path}, split {split}: {name} = {text!r}: {error}") from None
    return values
