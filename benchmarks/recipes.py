"""`benchmark.py recipes`: train.py under several recipes, as validation AUC against seconds of training."""
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from common.files import InputError, progress, replace_file, write_csv

SCRIPTS = Path(__file__).resolve().parents[1]
SGD = "--optimizer sgd --lr 0.01 --batch_size 50 --lr_schedule step"
ADAMW_16 = "--optimizer adamw --lr 0.0005 --wd 0.01 --batch_size 16 --lr_schedule onecycle"
ADAMW_8 = "--optimizer adamw --lr 0.0015 --wd 0.01 --batch_size 8 --lr_schedule onecycle --augm 4"
RECIPES = {  # name: what train.py is given
    "SGD 0.01, batch 50, step; auto, pool 2": f"{SGD} --nepochs 8 --image_size auto --pool 2",
    "AdamW 5e-4, batch 16, one cycle; auto, pool 2": f"{ADAMW_16} --nepochs 8 --image_size auto --pool 2",
    "AdamW 1.5e-3, batch 8, one cycle; auto, pool 2": f"{ADAMW_8} --nepochs 6 --image_size auto --pool 2",
    "AdamW 1.5e-3, batch 8, one cycle; 160 x 160, pool 2": f"{ADAMW_8} --nepochs 6 --image_size 160 --pool 2",
    "SGD 0.01, batch 50, step; 310 x 310": f"{SGD} --nepochs 3 --image_size 310",
}
EPOCH_LINE = re.compile(r"split \d+ run \d+ epoch (\d+): .*validation loss \S+ AUC ([\d.]+)")


def compare(args):
    """Train every recipe from random weights; write recipes.csv and recipes.png to args.output.

    Args:
        args: data, images, split_index, only (text that a recipe's name must hold, or None), output.
    """
    chosen = {name: options for name, options in RECIPES.items() if not args.only or args.only in name}
    if not chosen:
        raise InputError(f"--only {args.only}: no recipe has it in its name; there are " + "; ".join(RECIPES))
    rows = []
    with progress(list(chosen.items()), "recipes", "recipe") as bar:
        for name, options in bar:
            for split in args.split_index or [0]:
                rows += [{"recipe": name, "split": split} | row for row in train(args, name, options, split)]
                write_csv(pd.DataFrame(rows), args.output / "recipes.csv")
    table = pd.DataFrame(rows)
    best = table.groupby(["recipe", "split"], sort=False).agg(
        epochs=("epoch", "max"), seconds=("seconds", "max"), validation_auc=("auc", "max")).reset_index()
    print(best.to_string(index=False, float_format="{:.3f}".format))
    draw(table, args.output / "recipes.png")
    print(f"wrote {args.output / 'recipes.csv'}, {args.output / 'recipes.png'}")


def train(args, name, options, split):
    """One run of train.py -> [{"epoch", "seconds" (since its first step, saving included), "auc"}]."""
    folder = args.output / re.sub(r"\W+", "_", name)
    command = [sys.executable, SCRIPTS / "train.py", "--data", args.data, "--split_index", str(split), "--weights",
               "none", "--output", folder, "--overwrite", *options.split()]
    command += ["--images", args.images] if args.images else []
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


def draw(table, path):
    """Validation AUC of the best epoch so far against seconds, a line a recipe and split."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#999999")
    figure = Figure((9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (number, name), marker in zip(enumerate(table["recipe"].unique()), "osD^vP*X", strict=False):
        for split, rows in table[table["recipe"] == name].groupby("split"):
            axes.plot(rows["seconds"], rows["auc"].cummax(), marker=marker, color=colours[number % len(colours)], ms=5,
                      label=name if split == table["split"].min() else None)
    axes.set(xlim=(0, None), xlabel="Seconds of training", ylabel="Validation AUC, best epoch so far", ylim=(None, 1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=140)
