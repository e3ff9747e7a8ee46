"""`benchmark.py recipes`: train.py under several recipes, as validation AUC against seconds of training."""
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from benchmarks.measuring import SCRIPTS
from common.files import InputError, progress, replace_file, write_csv
from evaluation.figure_style import PAGE, RC, new_figure

SGD = "--optimizer sgd --lr 0.01 --batch_size 50 --lr_schedule step"
ADAMW_16 = "--optimizer adamw --lr 0.0005 --wd 0.01 --batch_size 16 --lr_schedule onecycle"
ADAMW_8 = "--optimizer adamw --lr 0.0015 --wd 0.01 --batch_size 8 --lr_schedule onecycle --augm 4"
RECIPES = {  # name: what train.py is given
    "SGD 0.01, batch 50, step; auto, pool 2": f"{SGD} --nepochs 8 --image_size auto --pool 2",
    "AdamW 5e-4, batch 16, one cycle; auto, pool 2": f"{ADAMW_16} --nepochs 8 --image_size auto --pool 2",
    "AdamW 1.5e-3, batch 8, one cycle; auto, pool 2": f"{ADAMW_8} --nepochs 6 --image_size auto --pool 2",
    "AdamW 1.5e-3, batch 8, one cycle; 160 x 160, pool 2": f"{ADAMW_8} --nepochs 6 --image_size 160 --pool 2",
    "SGD 0.01, batch 50, step; 310 x 310": f"{SGD} --nepochs 3 --image_size 310"}
EPOCH_LINE = re.compile(r"split \d+ run \d+ epoch (\d+): .*validation loss \S+ AUC ([\d.]+)")


def compare(data: str, images: str | None, splits: Sequence[int], only: str | None, output: Path) -> None:
    """Train every recipe from random weights; write recipes.csv and recipes.png.

    Parameters
    ----------
    data, images : str
        Manifest and images as train.py takes them; images None: the manifest's folder.
    splits : sequence of int
        Data splits to train.
    only : str or None
        What a recipe's name must hold.
    output : Path
        For tables and models.

    Raises
    ------
    InputError
        No recipe's name holds `only`; train.py fails.
    """
    chosen = {name: options for name, options in RECIPES.items() if not only or only in name}
    if not chosen:
        raise InputError(f"--only {only}: no recipe has it in its name; there are " + "; ".join(RECIPES))
    common = ["--data", data, "--weights", "none", "--overwrite", *(["--images", images] if images else [])]
    rows = []
    with progress(list(chosen.items()), "recipes", "recipe") as bar:
        for name, options in bar:
            folder = output / re.sub(r"\W+", "_", name)
            for split in splits:
                rows += [{"recipe": name, "split": split} | row
                         for row in _train(name, split, [*common, "--output", folder, *options.split()])]
                write_csv(pd.DataFrame(rows), output / "recipes.csv")
    table = pd.DataFrame(rows)
    best = table.groupby(["recipe", "split"], sort=False).agg(
        epochs=("epoch", "max"), seconds=("seconds", "max"), validation_auc=("auc", "max")).reset_index()
    print(best.to_string(index=False, float_format="{:.3f}".format))
    with matplotlib.rc_context(RC):
        _draw(table, output / "recipes.png")
    print(f"wrote {output / 'recipes.csv'}, {output / 'recipes.png'}")


def _train(name, split, options):
    """One run of train.py -> [{"epoch", "seconds" (since its first step, saving included), "auc"}]."""
    command = [sys.executable, SCRIPTS / "train.py", "--split_index", str(split), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    start, rows = None, []
    for line in process.stdout:
        if line.startswith(f"split {split}: "):  # the images are read, training begins
            start = time.monotonic()
        if match := EPOCH_LINE.match(line):
            rows.append({"epoch": int(match[1]), "seconds": time.monotonic() - start, "auc": float(match[2])})
    if process.wait():
        raise InputError(f"train.py ({name}) ended with {process.returncode}: {process.stderr.read()[-300:]}")
    return rows


def _draw(table, path):
    """Validation AUC of the best epoch so far against seconds, a line a recipe and split."""
    colours = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#999999")
    figure, axes = new_figure(PAGE, 3.0)
    for name, marker, colour in zip(table["recipe"].unique(), "osD^vP*X", colours, strict=False):
        for split, rows in table[table["recipe"] == name].groupby("split"):
            label = name if split == table["split"].min() else None
            axes.plot(rows["seconds"], rows["auc"].cummax(), marker=marker, color=colour, label=label)
    axes.set(xlim=(0, None), xlabel="Seconds of training", ylabel="Validation AUC, best epoch so far", ylim=(None, 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=200)
