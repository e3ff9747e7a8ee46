"""`benchmark.py lars`: LARS's own training loop against this toolkit's, on the same images: an epoch, and to its AUC.

LARS's loop is what its train.py, dataset.py and utils.py do (github.com/haeggsti/lymphoma_classification_2023, of
Häggström et al. 2023, doi:10.1016/S2589-7500(23)00203-0): 310 x 310, float32, SUV less 2.13 by 3.39; in each pass every
image read from its file, by ten worker processes that are started for it; bodies at random places in training, in the
middle in evaluation; batches of 50; SGD, Nesterov momentum 0.9, weight decay 1e-4, learning rate 0.001, a tenth of it
from epoch 15 on, and again from epoch 30; after each epoch an evaluation of the training and one of the validation set.
Its evaluation before the first epoch and its checkpoints, which would cost it time, are left out.
"""
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import utils
from benchmarks import network
from benchmarks.measuring import SCRIPTS
from benchmarks.plain_loop import SQUARE, PlainLoop, load
from common.files import InputError
from common.manifest import LEARNED, check_classes, read_manifest
from common.recipes import values
from common.run_files import run_file
from common.text import counted
from dataset import NORMS, choose_frame, read_bodies
from training.objectives import scan_metrics

BATCH, ANNEAL = (values("lars")[name] for name in ("batch_size", "lr_anneal"))
WORKERS = 10  # processes that read images, LARS's default
EPOCH_LINE = re.compile(r"split \d+ run \d+ epoch \d+/\d+: ")


class LarsLoop(PlainLoop):
    """LARS's network and its loop over images in `folder`, rows `train` and `val` of a manifest.

    Parameters
    ----------
    lr : float
        Learning rate of the first epochs.
    weights : str
        Initial ones, as --weights of train.py.
    """

    def __init__(self, folder: Path, train: pd.DataFrame, val: pd.DataFrame, device: torch.device, lr: float,
                 weights: str):
        super().__init__(folder, train, BATCH, device, lr)
        if weights != "none":
            start = utils.ResNet34()
            utils.load_backbone(start, weights)
            self.model.load_state_dict(dict(zip(self.model.state_dict(), start.state_dict().values(), strict=True)))
        self.lr, given = lr, {"norm": NORMS["lars"], "num_workers": WORKERS}
        self.loader = load(folder, train, BATCH, device, at_random=True, shuffle=True, **given)
        self.train_set, self.val_set = (load(folder, rows, BATCH, device, **given) for rows in (train, val))

    def epoch(self, number: int) -> np.ndarray:
        """Train epoch `number`, from 1, evaluate both sets -> (n,) probabilities of the validation images."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * 0.1 ** (number // ANNEAL)
        self.train()
        self.evaluate(self.train_set)
        return self.evaluate(self.val_set).double().numpy()


@dataclass
class Curve:
    """Of a training, after each epoch: seconds since its start, and validation AUC (scans)."""
    seconds: list[float]
    auc: list[float]

    def reached(self, auc: float) -> int | None:
        """The first epoch, from 1, whose validation AUC is not less; None where there is none."""
        return next((epoch for epoch, found in enumerate(self.auc, 1) if found >= auc), None)


def compare(folder: Path, splits: Sequence[int], nepochs: int, lr: float, weights: str, recipe_options: str, data: str,
            images: str, device: str, amp: str, threads: int | None) -> None:
    """Print what an epoch costs, and the way to the best validation AUC of LARS's loop, in both ways.

    Parameters
    ----------
    folder : Path
        For temporary files.
    splits : sequence of int
        Of the manifest, each for itself.
    nepochs, lr, weights
        Of LARS's loop; the weights are train.py's, too.
    recipe_options : str
        What train.py is given for the way to the AUC.
    data, images, device, amp, threads
        Arguments of train.py.

    Raises
    ------
    InputError
        A body that LARS's frame does not hold, a file that it does not read; train.py fails.
    """
    shared = ["--data", data, "--images", images, "--device", device, "--amp", amp, "--weights", weights]
    shared += ["--threads", str(threads)] if threads else []
    device, amp, machine = network.start(device, amp, threads)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than cores, as LARS does
    for split in splits:
        table = read_manifest(data, (split,))
        check_classes(data, table, split)
        train, val = (table[table[f"split{split}"] == name] for name in LEARNED)
        print(f"split {split}, {len(train)} training and {counted(len(val), 'validation image')}: {machine}\n"
              f"LARS's loop: {SQUARE} x {SQUARE}, float32, batch {BATCH}, SGD {lr:g}, {WORKERS} workers, weights "
              f"{weights}", flush=True)
        plain = _both_epochs(Path(images), train, val, nepochs, lr, weights, device, amp)
        own = _train(folder / f"split{split}", split, [*shared, *recipe_options.split()])
        print(to_its_auc(plain, own, recipe_options), flush=True)


def _both_epochs(folder, train, val, nepochs, lr, weights, device, amp):
    """Train LARS's loop, time an epoch of this toolkit after each of its own; print -> its Curve."""
    table = pd.concat([train, val], ignore_index=True)
    bodies = read_bodies(table, folder)
    if bodies.sizes.max() > SQUARE or not table["filename"].str.endswith(".bin").all():
        raise InputError(f"LARS's loop reads .bin files alone, and bodies of {SQUARE} x {SQUARE} pixels at most: give "
                         "--data with such")
    frame = choose_frame("auto", bodies, np.arange(len(train)), 0)
    own = network.training_paths(table, bodies, len(train), frame, device, amp, BATCH)["epoch"]
    torch.manual_seed(0)
    loop, taken, curve = LarsLoop(folder, train, val, device, lr, weights), [], Curve([], [])
    print(f"train.py's epoch: {frame[0]} x {frame[1]}, batch {BATCH}\n"
          f"{'epoch':>5}{'LARS, s':>10}{'validation AUC':>16}{'train.py, s':>13}")
    for number in range(1, nepochs + 1):  # in turn, so that a busy moment meets both
        begin = time.perf_counter()
        probs = loop.epoch(number)
        middle = time.perf_counter()
        own()
        taken.append((middle - begin, time.perf_counter() - middle))
        curve.seconds.append(sum(seconds for seconds, _ in taken))
        curve.auc.append(scan_metrics(val["scan_id"], val["target"].to_numpy(), probs)["auc"])
        print(f"{number:5}{taken[-1][0]:10.1f}{curve.auc[-1]:16.4f}{taken[-1][1]:13.1f}", flush=True)
    plain, ours = map(min, zip(*taken, strict=True))
    print(f"an epoch, the fastest of {nepochs}: LARS's loop {plain:.1f} s, train.py {ours:.1f} s, {plain / ours:.2f} "
          "times as fast")
    return curve


def _train(output, split, options):
    """A run of train.py -> its Curve, counted from the start of its process: reading and saving included."""
    begin, errors = time.perf_counter(), output.with_suffix(".err")
    command = [sys.executable, "-u", SCRIPTS / "train.py", "--split_index", str(split), "--output", output, *options]
    with open(errors, "w") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as run:
        seconds = [time.perf_counter() - begin for line in run.stdout if EPOCH_LINE.match(line)]
    if run.returncode:
        raise InputError(f"train.py {' '.join(options)} ended with {run.returncode}: {errors.read_text()[-300:]}")
    log = pd.read_csv(run_file(output, "convergence", split, 1))
    return Curve(seconds, list(log.loc[(log["split"] == "validation") & (log["metric"] == "auc"), "value"]))


def to_its_auc(plain: Curve, own: Curve, recipe_options: str) -> str:
    """The line on the way to the best AUC of LARS's loop, its Curve `plain`, and train.py's, `own`."""
    best = max(plain.auc)
    theirs, ours = plain.reached(best), own.reached(best)
    said = f"validation AUC {best:.4f}: LARS's loop after {plain.seconds[theirs - 1]:.0f} s (epoch {theirs}), train.py "
    if ours is None:
        return f"{said}{recipe_options} not in {own.seconds[-1]:.0f} s: at most {max(own.auc):.4f}"
    ratio = plain.seconds[theirs - 1] / own.seconds[ours - 1]
    return (f"{said}{recipe_options} after {own.seconds[ours - 1]:.0f} s (epoch {ours}), {ratio:.1f} times as fast; at "
            f"most {max(own.auc):.4f}, after {own.seconds[-1]:.0f} s {own.auc[-1]:.4f}")
