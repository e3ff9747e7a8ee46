"""`benchmark.py recipes`: train.py under several recipes on the same folds, each against the first.

recipes.csv has a row for each recipe: recipe, changed (against the first), networks (that are trained), asked, seconds
(their mean), and of each set (val_, test_) what `recipe_scores.measure` and `recipe_scores.difference` give.
"""
import argparse
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.recipe_runs import (
    SETS,
    machine_of,
    other_machines,
    read_scores,
    scans_of,
    seconds_of,
    train_and_predict,
)
from benchmarks.recipe_scores import Folds, difference, measure
from common.arguments import EXIT_SOME_FAILED, training_parser
from common.files import InputError, progress, read_json_object, replace_file, write_csv
from common.manifest import check_classes, read_manifest
from common.params import as_text, listed
from common.run_files import safe_name
from common.text import counted
from evaluation.figure_style import BLUE, FAINT, PAGE, RC, new_figure

ADAMW = "--optimizer adamw --wd 0.01 --lr_schedule onecycle"
RECIPES = {  # name: options of train.py; all but the first beside those of the first
    "SGD 0.01, batch 50, step": "--weights none --image_size auto --pool 2 --optimizer sgd --lr 0.01 --batch_size 50 "
                                "--nepochs 8",
    "AdamW 5e-4, batch 16, one cycle": f"{ADAMW} --lr 0.0005 --batch_size 16 --nepochs 8",
    "AdamW 1.5e-3, batch 8, one cycle": f"{ADAMW} --lr 0.0015 --batch_size 8 --nepochs 6 --augm 4",
    "the same, 160 x 160": f"{ADAMW} --lr 0.0015 --batch_size 8 --nepochs 6 --augm 4 --image_size 160",
    "SGD 0.01, batch 50, step; 310 x 310": "--nepochs 3 --image_size 310 --pool 1"}
OWN = ("data", "images", "split_index", "run", "output", "resume", "force_resume", "overwrite")  # the bench gives them
HEADINGS = ("set ", "one network", "ensemble", "pooled (95 % interval)", "difference (95 % interval)", "smallest")
LEGEND = ("one network: mean of the runs' and folds' AUCs; ensemble: the same of each scan's mean score over the runs; "
          "pooled: the scans of all folds ranked together; difference: of one network from recipe 1, on equal scans, "
          "by the chance of scans and networks; smallest: the true difference that 80 % of such benches tell from 0.")
ONE_FOLD = "warning: of one split: the intervals of differences hold the chance of its scans, not that of its networks"
WIDTH = 100  # columns


@dataclass(frozen=True)
class Recipe:
    """A recipe: its options of train.py, those of the first included, and what they change in it."""
    name: str
    options: tuple[str, ...]
    changed: str


def compare(data: str, images: str | None, splits: Sequence[int], runs: Sequence[int], recipes: Sequence[Recipe],
            output: Path, report_test: bool, device: dict) -> int | None:
    """Train and predict every network; write recipes.csv after each, and recipes.png -> the exit code.

    Parameters
    ----------
    data, images : str
        Manifest and images as train.py takes them; images None: the manifest's folder.
    splits, runs : sequence of int
    recipes : sequence of Recipe
        Of `read_recipes`.
    output : Path
        For the tables; each recipe's networks are in a folder of it.
    report_test : bool
        Measure the test sets, too.
    device : dict
        Arguments of train.py and predict.py; None: theirs.

    Raises
    ------
    InputError
        A faulty manifest, or one that has changed since; no network could be trained.
    """
    table = read_manifest(data, splits)
    for split in splits:
        check_classes(data, table, split)
    print("\n".join(f"{k} {each.name}: {each.changed or ' '.join(each.options)}" for k, each in enumerate(recipes, 1)))
    shared = [word for name, value in ({"data": data, "images": images} | device).items() if value is not None
              for word in (f"--{name}", str(value))]
    scans = {split: {name: scans_of(table, split, name) for name in SETS} for split in splits}
    jobs = [(recipe, split, run) for run in runs for recipe in recipes for split in splits]
    bench, failed = Bench(recipes, scans, SETS if report_test else SETS[:1], len(splits) * len(runs)), 0
    with progress(jobs, "recipes", "network") as bar:
        for recipe, split, run in bar:
            network = output / safe_name(recipe.name), recipe.options, split, run
            name = f"{recipe.name}, split {split} run {run}"
            bar.set_postfix_str(name[-40:], refresh=False)
            try:
                seconds = before = seconds_of(*network)
                if before is None:
                    seconds = train_and_predict(*network, shared)
            except InputError as error:
                tqdm.write(f"error: {name}: {error}", file=sys.stderr)
                failed += 1
                continue
            scores = read_scores(network[0], split, run, scans[split], table)
            bench.networks[recipe.name, split, run] = seconds, scores
            if before is None:
                tqdm.write(name + _number(seconds, ": {:.0f} s"))
                write_csv(bench.table(), output / "recipes.csv")
    if not bench.networks:
        raise InputError(f"none of {counted(len(jobs), 'network')} could be trained; the lines above say why")
    write_csv(rows := bench.table(), output / "recipes.csv")
    print(as_lines(rows, bench.sets) + f"\n{ONE_FOLD}" * (len(splits) == 1))
    for names in alike(recipes):
        trained = [(output / safe_name(of), split, run) for of, split, run in bench.networks if of in names]
        if found := other_machines(trained):
            print(f"warning: {', '.join(names)}: seconds do not compare: networks were trained with {found}")
    with matplotlib.rc_context(RC):
        draw(rows, output / "recipes.png")
    print(f"wrote {output / 'recipes.csv'}, {output / 'recipes.png'}")
    if failed:
        print(f"left out: {failed} of {counted(len(jobs), 'network')} failed; the same command tries again")
    return EXIT_SOME_FAILED if failed else None


# ---------------------------------------------------------------- what is trained

def read_recipes(file: Path | None, only: Sequence[str] = ()) -> list[Recipe]:
    """The recipes of a JSON file, {name: options of train.py}, or RECIPES; the first is the baseline.

    Parameters
    ----------
    file : Path or None
        The options of all but the first are beside those of the first: of an option in both, theirs counts.
    only : sequence of str
        Keep, beside the first, those whose names hold one of these.

    Raises
    ------
    InputError
        The file cannot be read; train.py does not take an option, or the bench gives it; two recipes' folders would be
        one; no name holds `only`.
    """
    texts, example = RECIPES, '{"baseline": "--lr 0.01", "batch 8": "--batch_size 8"}'
    if file and not (texts := read_json_object(file, "--recipes", example)):
        raise InputError(f"--recipes {file}: holds no recipe; write some, such as {example}")
    recipes: list[Recipe] = []
    first: dict = {}
    for name, text in texts.items():
        if not isinstance(text, str) or not re.search(r"\w", name):
            raise InputError(f"--recipes {file}: {name!r}: {text!r}; write names and options of train.py as texts, "
                             f"such as {example}")
        options = ([*recipes[0].options] if recipes else []) + _words(file, name, text)
        values = _parsed(file, name, options)
        changed = {key: value for key, value in values.items() if first and as_text(value) != as_text(first[key])}
        first = first or values
        if twin := [each.name for each in recipes if safe_name(each.name) == safe_name(name)]:
            raise InputError(f"--recipes {file}: {twin[0]!r} and {name!r} would have one folder; rename one")
        recipes.append(Recipe(name, tuple(options), listed(changed)))
    kept = [each for each in recipes[1:] if not only or any(text in each.name for text in only)]
    if only and not kept:
        raise InputError(f"--only {' '.join(only)}: no recipe beside the first has it in its name; there are "
                         + "; ".join(each.name for each in recipes[1:]))
    return [recipes[0], *kept]


def _words(file, name, text):
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"--recipes {file}: {name!r}: {error}") from None


def _parsed(file, name, options):
    """{argument: value} of train.py."""
    parser = training_parser(None)
    parser.exit_on_error = False
    try:
        parsed, rest = parser.parse_known_args(options)
    except argparse.ArgumentError as error:
        raise InputError(f"--recipes {file}: {name!r}: {error}") from None
    if rest:
        raise InputError(f"--recipes {file}: {name!r}: train.py has no {' '.join(rest)}")
    if own := [each for each in OWN if each in parsed.given]:
        raise InputError(f"--recipes {file}: {name!r}: leave out --{own[0]}, which the bench gives")
    return {key: value for key, value in vars(parsed).items() if key != "given"}


def alike(recipes: Sequence[Recipe]) -> list[list[str]]:
    """The names of recipes that ask for the same device, threads and precision."""
    groups: dict[str, list[str]] = {}
    for recipe in recipes:
        groups.setdefault(listed(machine_of(recipe.options)), []).append(recipe.name)
    return list(groups.values())


# ---------------------------------------------------------------- what it gave

@dataclass
class Bench:
    """The networks that are there.

    Attributes
    ----------
    recipes : sequence of Recipe
    scans : dict
        {split: {set: `scans_of` the manifest}}.
    sets : sequence of str
        Those to measure.
    asked : int
        Networks of each recipe.
    networks : dict
        {(recipe's name, split, run): (seconds, {set: score of each scan})}.
    """
    recipes: Sequence[Recipe]
    scans: dict[int, dict[str, pd.DataFrame]]
    sets: Sequence[str]
    asked: int
    networks: dict[tuple[str, int, int], tuple[float, dict[str, pd.Series]]] = field(default_factory=dict)

    def folds(self, recipe: Recipe, name: str) -> Folds:
        """A recipe's scores of one set."""
        found: Folds = {}
        for (of, split, run), (_, scores) in self.networks.items():
            if of == recipe.name:
                found.setdefault(split, self.scans[split][name].copy())[run] = scores[name]
        return found

    def table(self) -> pd.DataFrame:
        """recipes.csv."""
        rows = []
        for recipe in self.recipes:
            taken = np.array([seconds for (of, _, _), (seconds, _) in self.networks.items() if of == recipe.name])
            known = taken[np.isfinite(taken)]
            row: dict = {"recipe": recipe.name, "changed": recipe.changed, "networks": len(taken), "asked": self.asked,
                         "seconds": round(known.mean(), 1) if known.size else np.nan}
            for name in self.sets:
                own, first = self.folds(recipe, name), self.folds(self.recipes[0], name)
                found = measure(own) | (difference(own, first) if recipe is not self.recipes[0] else {})
                row |= {f"{name}_{key}": value for key, value in found.items()}
            rows.append(row)
        return pd.DataFrame(rows)


def as_lines(rows: pd.DataFrame, sets: Sequence[str]) -> str:
    """A table of `Bench` as text of 100 columns."""
    def padded(cells):
        return "  " + "  ".join(map(str.ljust, cells, map(len, HEADINGS))).rstrip()

    lines = [padded(HEADINGS)]
    for k, row in enumerate(rows.to_dict("records"), 1):
        trained = f"{row['networks']} of {counted(row['asked'], 'network')}" + _number(row["seconds"], ", {:.0f} s "
                                                                                                       "each")
        about = f"{k} {row['recipe']}: {trained}" + f"; {row['changed']}" * bool(row["changed"])
        lines += textwrap.wrap(about, WIDTH, subsequent_indent="  ")
        lines += [padded(_cells(row, name)) for name in sets if row["networks"]]
    return "\n".join(lines + textwrap.wrap(LEGEND, WIDTH))


def _cells(row, name):
    """The texts under HEADINGS of a recipe's set."""
    has = {key: row.get(f"{name}_{key}", np.nan) for key in (
        "auc", "ensemble", "pooled", "pooled_low", "pooled_high", "difference", "low", "high", "smallest")}
    limits = f"({has['low']:+.3f} to {has['high']:+.3f})" if np.isfinite(has["low"]) else "(no interval)"
    return (name, _number(has["auc"]), _number(has["ensemble"]),
            _number(has["pooled"], f"{{:.3f}} ({has['pooled_low']:.3f}–{has['pooled_high']:.3f})"),
            _number(has["difference"], f"{{:+.3f}} {limits}").replace("-", "−"), _number(has["smallest"]))


def _number(value, form="{:.3f}"):
    return form.format(value) if np.isfinite(value) else ""


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Validation AUC of one network against seconds: a numbered point a recipe, filled where it differs from the first.

    Call it inside `matplotlib.rc_context(RC)`.
    """
    figure, grid = new_figure(PAGE, max(3.0, 0.13 * len(rows) + 0.4), (1, 2), width_ratios=(3, 2))
    axes, names = grid[0]
    for k, row in enumerate(rows.to_dict("records"), 1):
        point = row["seconds"], row["val_auc"]
        if not np.isfinite(point).all():
            continue
        if k == 1:
            axes.axhline(point[1], **FAINT)
        told = k == 1 or row["val_low"] > 0 or row["val_high"] < 0
        axes.plot(*point, "s" if k == 1 else "o", color=BLUE, markerfacecolor=BLUE if told else "white")
        axes.annotate(str(k), point, xytext=(3, 2), textcoords="offset points")
    axes.margins(x=0.1, y=0.1)
    axes.set(xlim=(0, None), xlabel="Seconds of training a network", ylabel="Validation AUC of one network")
    axes.grid(alpha=0.3)
    key = [textwrap.shorten(f"{k} {name}", 48, placeholder=" ...") for k, name in enumerate(rows["recipe"], 1)]
    names.text(0, 1, "\n".join(["Filled: differs from 1 (95 % interval)", *key]), va="top")
    names.set_axis_off()
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=200)
