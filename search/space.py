"""The spaces that the searches draw train.py's arguments from. Imports no torch.

A space is {name: {"low", "high"[, "step"][, "log"]} or [choices]}, with the names of train.py's arguments and `mode`
(see common.params).
"""
import itertools
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution

from common import arguments, params, recipes, renamed
from common.effects import ONLY_WITH, has_effect, odd_together, without_effect
from common.files import InputError, read_json_object

_CHOICES = {"batch_size": [16, 32, 64, 128], "optimizer": ["sgd", "adam"], "lr_schedule": ["step", "plateau"],
            "balance": [False, True], "oversample": [False, True], "augm": [0, 1, 2, 3, 4, 5, 12, 14, 34, 45]}
SEARCH = {"lr": {"low": 1e-5, "high": 1e-2, "log": True}, "wd": {"low": 1e-5, "high": 1e-2, "log": True}, **_CHOICES,
          "cls_arch": ["simple", "complex"], "hidden": {"low": 64, "high": 512, "step": 64},
          "dropout": {"low": 0.0, "high": 0.5}}
FINETUNING = {"lr": {"low": 1e-5, "high": 1e-3, "log": True}, "wd": {"low": 1e-6, "high": 1e-3, "log": True},
              **_CHOICES, "mode": list(arguments.MODES)}
_LENGTH = ("nepochs", "early_stopping", "patience")
_DECIDE = (*(other for other, _ in ONLY_WITH.values()), "mode", "balance", "oversample")  # others' effects depend on it
# arguments that no space may hold: all trials have the same
_NOT_DRAWN = (*recipes.INPUT, *_LENGTH, "keep", "weights", "checkpoint", "seed", "cached_placements",
              "transfer_learning", "finetune", "eval_train")


def read_space(args: Namespace, default: dict) -> tuple[dict, dict]:
    """The default space without what command line or --recipe fix, with the changes of --space FILE.json.

    Parameters
    ----------
    args : Namespace
        Of arguments.search_parser.
    default : dict
        SEARCH or FINETUNING.

    Returns
    -------
    space : dict
    fixed : dict
        {name: value} of what the file fixes, and `mode` where the command line does.

    Raises
    ------
    InputError
        The file is not such an object, or nothing is left to search.
    """
    path = args.space
    changes = read_json_object(path, "--space", '{"lr": {"low": 1e-4, "high": 1e-2}}') if path else {}
    known = [name for name in params.defaults() if name not in _NOT_DRAWN and hasattr(args, name)]
    fixes = args.given | recipes.taken(args)
    space = {name: drawn for name, drawn in default.items() if name not in fixes}
    fixed = {"mode": args.mode} if "mode" in args.given else {}
    for name, change in changes.items():
        name = renamed.RENAMED.get(name, name)
        if name not in known:
            raise InputError(f"--space {path}: unknown name {name!r}; it may hold {', '.join(known)}")
        if name in args.given:
            raise InputError(f"--{name} fixes what --space {path} searches; leave one of them out")
        space.pop(name, None)
        try:
            if isinstance(change, dict):
                space[name] = _range(name, change)
            elif isinstance(change, list):
                space[name] = _choices(name, change)
            elif change is not None:
                fixed[name] = _value(name, change)
        except ValueError as error:
            raise InputError(f"--space {path}: {error}") from None
    if not space:
        raise InputError("nothing is left to search: " + (f"--space {path}" if path else "every parameter is fixed"))
    return space, fixed


def _value(name: str, value: object) -> Any:
    return params.convert({name: str(value)})[name]


def _choices(name: str, values: list) -> list:
    if not values:
        raise ValueError(f"{name}: an empty list of choices")
    taken = [_value(name, value) for value in values]
    if len(set(taken)) < len(taken):
        raise ValueError(f"{name}: {values}: a choice is there twice")
    return taken


def _range(name: str, asked: dict) -> dict:
    log = asked.get("log", False)
    if not {"low", "high"} <= set(asked) <= {"low", "high", "step", "log"} or not isinstance(log, bool):
        raise ValueError(f"{name}: {asked}: a range has low and high, and may have step or log (true or false)")
    taken = {key: _value(name, asked[key]) for key in ("low", "high", "step") if key in asked}
    if name == "augm" or isinstance(taken["low"], bool):
        raise ValueError(f"{name}: takes a list of choices, not a range")
    taken |= {"log": True} if log else {}
    try:
        (IntDistribution if isinstance(taken["low"], int) else FloatDistribution)(**taken)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return taken


def suggest(trial: Any, space: dict, args: Namespace) -> dict:
    """Draw a trial's parameters.

    Parameters
    ----------
    trial : optuna.trial.BaseTrial
    space : dict
    args : Namespace
        train.py's arguments of the trial, before anything is drawn.

    Returns
    -------
    dict
        Without parameters that have no effect together with the others or with `args`.
    """
    drawn: dict = {}
    for name in sorted(space, key=lambda name: (name in (*ONLY_WITH, "augm"), list(space).index(name))):
        if not _matters(name, params.with_values(args, drawn)):
            continue
        if isinstance(space[name], list):
            drawn[name] = trial.suggest_categorical(name, space[name])
        else:
            draw = trial.suggest_int if isinstance(space[name]["low"], int) else trial.suggest_float
            drawn[name] = draw(name, **space[name])
    return drawn


def _matters(name: str, args: Namespace) -> bool:
    """Whether a parameter has an effect with these arguments.

    Augmentation has none where frozen layers see each image once: it would be one fixed change of it, not several.
    """
    if name == "augm":
        return args.cached_placements != 1 or not (args.transfer_learning or args.finetune)
    return has_effect(name, args)


def doubts(args: Namespace, default: dict, space: dict, fixed: dict, starts: Iterable[Namespace]) -> list[str]:
    """Warnings of options, and of names in --space, without effect in all trials, or whose effect together is hardly
    meant in any.

    Parameters
    ----------
    args, default
        Of `read_space`, which gives space and fixed.
    starts : iterable of Namespace
        train.py's arguments of each split, of which a trial changes what it draws.
    """
    asked = args.given | fixed | {name: True for name in space if space[name] != default.get(name)}
    drawn = {name: choices for name, choices in space.items() if name in _DECIDE and isinstance(choices, list)}
    runs = [params.with_values(own, dict(zip(drawn, values, strict=True)))
            for own in starts for values in itertools.product(*drawn.values())]
    odd = [set(odd_together(asked, [run])) for run in runs]
    once = "augm" in asked.keys() & space.keys() and not any(_matters("augm", run) for run in runs)
    return [*without_effect(asked, runs), *sorted(set.intersection(*odd)),
            *["warning: --augm is not searched: where layers are frozen each image is seen once; give "
              "--cached_placements 4, or 0"] * once]


def fixed_args(args: Namespace) -> Namespace:
    """train.py's arguments for a search's trials: its defaults, and what the search's own arguments say of them."""
    base = vars(arguments.training_parser("").parse_args([]))
    return Namespace(**{name: getattr(args, name, value) for name, value in base.items()
                        if name not in ("params", "given")})


def worth_keeping(args: Namespace) -> dict:
    """Of a search's fixed arguments, what training the winner needs: a recipe's, and what is not train.py's default."""
    recipe = recipes.values(args.recipe)
    return {name: getattr(args, name) for name, default in params.defaults().items()
            if name != "mode" and (name in recipe or getattr(args, name) != default)
            and (name not in _LENGTH or getattr(args, name) == recipe.get(name))}
