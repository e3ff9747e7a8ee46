"""train.py's arguments from the best values that a search found, a CSV with a row per split. Imports no torch.

Its columns are named as train.py's arguments. `mode` is none of them but stands for two: transfer_learning, finetune,
or full_retrain for neither. SEARCH are none either, but say of which trial the values are, of how many, on which data,
from which start.
"""
import argparse
from collections.abc import Callable, Container

from common import arguments, recipes, renamed
from common.files import InputError, read_csv
from common.model_files import checkpoint_sha256, only_checkpoint
from common.text import as_text

SEARCH = ("split", "number", "value", "trials", "labels_hash", "checkpoint_sha256")  # best trial, data, start


def for_split(args: argparse.Namespace, split: int, say: Callable[[str], object] = print) -> argparse.Namespace:
    """train.py's arguments for one split: the split's row of --params FILE replaces defaults and recipe.

    Parameters
    ----------
    args : Namespace
        As train.py's parser made it.
    split : int
    say : callable
        Called with a line on the values that come from the file, and one on those that the command line replaces.

    Returns
    -------
    Namespace
        Without `params` and `given`, so that a run is the same whether its values came from a file or not.

    Raises
    ------
    InputError
        See `read_values`; the checkpoint that the file names is not the one of the search.
    """
    own = argparse.Namespace(**{name: value for name, value in vars(args).items() if name not in ("params", "given")})
    if not args.params:
        return own
    values, given = read_values(args.params, split), dict(args.given)
    if mode := given.keys() & {"transfer_learning", "finetune"}:
        given |= {"transfer_learning": args.transfer_learning, "finetune": args.finetune, "mode": mode.pop()}
    taken = {name: value for name, value in values.items() if name not in given}
    start = "checkpoint" if "checkpoint" in taken else "weights"
    if start in taken and not args.checkpoint:
        _check_start(args.params, split, start, taken[start])
    say(f"split {split}: from {args.params}: {listed(taken) or 'nothing'}")
    if args.recipe:
        say(f"split {split}: from {recipe_line(args, taken)}")
    replaced = [f"{name} {as_text(given[name])} (file: {as_text(value)})" for name, value in values.items()
                if name in given]
    if replaced:
        say(f"split {split}: from the command line: {', '.join(replaced)}")
    return with_values(own, taken)


def read_values(path: str, split: int) -> dict:
    """The row of one split in best_params_summary.csv -> {name: value}; empty fields and SEARCH are left out.

    Raises
    ------
    InputError
        As `_read_row`, and where train.py does not take a value.
    """
    texts = _read_row(path, split)
    try:
        return convert({name: text for name, text in texts.items() if name not in SEARCH})
    except ValueError as error:
        raise InputError(f"{path}, split {split}: {error}") from None


def read_search(path: str, split: int) -> dict[str, str]:
    """What that row says of SEARCH. Raises InputError as `_read_row`."""
    return {name: text for name, text in _read_row(path, split).items() if name in SEARCH}


def _check_start(path, split, name, file):
    """Refuse another file, of --checkpoint or --weights (`name`), than the trials of the split began from."""
    searched = read_search(path, split).get("checkpoint_sha256")
    try:
        same = not searched or checkpoint_sha256(only_checkpoint(file)) == searched
    except OSError as error:
        raise InputError(f"{path}, split {split}: {name} {file}: {error.strerror}; give its path as --{name}") from None
    if not same:
        raise InputError(f"{path}, split {split}: {file} is not the file that the search started from: trained again "
                         f"since? search again with another --study, or give --{name} to start from it all the same")


def _read_row(path, split):
    """Texts of the row of a split by present names, without empty ones; InputError where it has no row or more than
    one, or a column is no argument."""
    table = read_csv(path, ("split",))
    rows = table[table["split"] == str(split)]
    if len(rows) != 1:
        held = ", ".join(table["split"]) or "none"
        raise InputError(f"{path}: {'no' if rows.empty else 'more than one'} row of split {split}; it has {held}; "
                         "search that split, or leave it out of --split_index")
    texts = renamed.current_names(rows.iloc[0].to_dict())
    if unknown := [name for name in texts if name not in (*defaults(), *SEARCH)]:
        raise InputError(f"{path}: unknown column {', '.join(unknown)}; it may hold {', '.join(SEARCH)}, mode and "
                         "train.py's arguments on network input, model and training")
    return {name: text for name, text in texts.items() if text}


def convert(texts: dict[str, str]) -> dict:
    """Values as train.py's parser would make them: {"lr": "0.1"} -> {"lr": 0.1}.

    Parameters
    ----------
    texts : dict
        Of names in `defaults`; texts as `as_text` writes them.

    Raises
    ------
    ValueError
        Says which value is wrong, and why.
    """
    known, words = defaults(), []
    for name, text in texts.items():
        if isinstance(known[name], bool):
            if text not in ("True", "False"):
                raise ValueError(f"{name}: {text!r} is not true or false")
            words += [f"--{name}"] * (text == "True")
        else:
            words += [f"--{name}", *text.split()] if isinstance(known[name], list) else [f"--{name}={text}"]
    try:
        parsed = _parser().parse_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(str(error).removeprefix("argument --")) from None
    return {name: getattr(parsed, name) for name in texts}


def defaults() -> dict:
    """{name: train.py's default} of the arguments that a file of parameters may hold, and mode (None)."""
    return {name: value for name, value in vars(_parser().parse_args([])).items() if name != "given"}


def _parser() -> arguments.Parser:
    parser = arguments.Parser("", exit_on_error=False)
    for add in (arguments.add_input_arguments, arguments.add_model_arguments, arguments.add_training_arguments):
        add(parser)
    parser.add_argument("--mode", choices=arguments.MODES)
    return parser


def with_values(args: argparse.Namespace, values: dict) -> argparse.Namespace:
    """A copy of the arguments with these values; `mode` is replaced by the two arguments that it stands for."""
    values = dict(values)
    if mode := values.pop("mode", None):
        values |= {"transfer_learning": mode == "transfer_learning", "finetune": mode == "finetune"}
    return argparse.Namespace(**vars(args) | values)


def recipe_line(args: argparse.Namespace, others: Container[str] = ()) -> str:
    """"recipe small: lr 0.0005, ...": the values that --recipe gives, but those of the names in `others`."""
    chosen = {name: value for name, value in recipes.taken(args).items() if name not in others}
    return f"recipe {args.recipe}: {listed(chosen) or 'nothing'}"


def listed(values: dict) -> str:
    """{"lr": 0.1, "augm": 4} -> "lr 0.1, augm 4"."""
    return ", ".join(f"{name} {as_text(value)}" for name, value in values.items())
