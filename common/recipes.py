"""--recipe: values of train.py's options that go together, by name. Imports no torch."""
import argparse
import textwrap
from typing import Any

from common.text import as_text

INPUT = ("image_size", "margin", "pool", "crop_bodies", "norm")  # options of the network input
_ADAMW = {"image_size": ["auto"], "augm": 3, "nepochs": 20, "batch_size": 16, "optimizer": "adamw", "wd": 0.01,
          "lr_schedule": "onecycle", "keep": "last"}
_SMALL = {"weights": "none", "lr": 0.0005, **_ADAMW}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {  # name: what it is for, {option: value}
    "small": ("no pretrained weights, 100 to 1000 scans", _SMALL),
    "fast": ("as small, on pixels twice as large: a quarter of the work", {**_SMALL, "pool": 2}),
    "imagenet": ("ImageNet weights; not measured here: no weights could be downloaded",
                 {"weights": "imagenet", "lr": 0.0001, **_ADAMW}),
    "lars": ("LARS's values, which are train.py's defaults",
             {"weights": "imagenet", "image_size": [310], "augm": 0, "nepochs": 40, "batch_size": 50,
              "optimizer": "sgd", "lr": 0.001, "momentum": 0.9, "wd": 0.0001, "lr_schedule": "step", "lr_anneal": 15,
              "keep": "best"})}
_OPTIMIZER = ("optimizer", "lr", "wd", "momentum", "lr_schedule")
FOR_RANDOM = ("training starts from random weights: on real MIPs the defaults had a test AUC of 0.75 from there, "
              "--recipe small 0.85 (docs/results/recipes.md)")


def values(name: str | None) -> dict[str, Any]:
    """{option: value} of a recipe; {} of None."""
    return RECIPES[name][1] if name else {}


def taken(args: argparse.Namespace) -> dict[str, Any]:
    """{option: value} of --recipe for the options that the command line does not give.

    Parameters
    ----------
    args : Namespace
        Of a Parser. With `chptfolder` (optuna_finetuning.py) without those of INPUT, which are the checkpoint's.
    """
    others = args.given.keys() | set(INPUT if "chptfolder" in args else ())
    return {name: value for name, value in values(getattr(args, "recipe", None)).items()
            if name in args and name not in others}


def advice(args: argparse.Namespace) -> str | None:
    """FOR_RANDOM where random weights are to be trained with train.py's default optimizer and nobody asked for it."""
    asked = args.recipe or args.params or args.checkpoint or args.given.keys() & set(_OPTIMIZER)
    return None if asked or args.weights != "none" else FOR_RANDOM


def add_recipe_argument(parser: argparse.ArgumentParser, option: str) -> None:
    """Add --recipe, whose help lists all recipes; `option` is the other one that replaces their values."""
    shown = ["their values:"]
    for name, (_, chosen) in RECIPES.items():
        words = " ".join(f"--{each} {as_text(value)}" for each, value in chosen.items())
        shown += textwrap.wrap(words, 105, initial_indent=f"  {name}: ", subsequent_indent="    ",
                               break_on_hyphens=False)
    parser.add_argument_group("recipe", "\n".join(shown)).add_argument(
        "--recipe", choices=tuple(RECIPES), help="values that go together, instead of the defaults; the command line "
        f"and {option} replace them. " + "; ".join(f"{name}: {purpose}" for name, (purpose, _) in RECIPES.items())
        + " (default: none)")
