"""The files of a training run: its log and curve, its settings, the kept checkpoint, the state that --resume goes on
from."""
import contextlib
import hashlib
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import common
from common.digests import START_UNKNOWN, training_digests, with_earlier
from common.files import InputError, replace_file, write_csv, write_json
from common.manifest import LEAKAGE, LEARNED, is_synthetic, leakage_of
from common.parameter_names import FIRST, network_state
from common.run_files import run_file
from common.settings import commit, differences, plain, stored_args
from common.signals import Interrupted, deferred_signals
from common.text import counted, duration
from dataset import NetworkInput
from training import distributed
from training.device import precision_name
from training.images import SplitImages
from training.state import TrainState
from utils import read_checkpoint, save_checkpoint

FIGURE_SECONDS = 30  # between two drawings of the curve
# Options that a run may be resumed with, whatever they were before
MAY_CHANGE = ("resume", "force_resume", "overwrite", "output", "data", "images", "split_index", "run", "device",
              "threads", "amp", "checkpoint_minutes", "tensorboard", "params", "recipe", "given", "allow_leakage")
# Settings beside the options that a resumed run must share
SHARED = ("model", "device", "precision", "threads", "processes", "torch", "data_hash", "input")
# What --force_resume may change as well: it takes effect from there on
FORCED = ("device", "precision", "threads", "processes", "torch", "data_hash", "input", "nepochs", "early_stopping",
          "batch_size", "oversample", "augm", "balance", "label_smoothing", "image_size", "margin", "pool",
          "crop_bodies", "norm", "cached_placements", "eval_train", "compile", "site_lambda", "site_balance",
          "site_smoothing", "site_strict")
CHANGES_BATCHES = ("data_hash", "batch_size", "oversample")  # what an epoch's batches depend on
TO_THE_END = ("cosine", "onecycle")  # schedules that depend on nepochs
NO_FILE = ("imagenet", "none")  # values of --weights
WEIGHTS = ("state_dict", "optimizer", "lr_scheduler", "early_stopping")  # keys of a checkpoint that are no settings


class Pace:
    """How long a command's epochs take, and how long those will take that are left in all of its runs.

    Attributes
    ----------
    later : int
        Epochs of the runs that come after the one that is trained, at most.
    """

    def __init__(self):
        self.begun, self.epochs, self.later = time.monotonic(), 0, 0

    def left(self, here: int) -> str:
        """An epoch has ended, `here` are left in its run -> "12 min", for all runs."""
        self.epochs += 1
        return duration((time.monotonic() - self.begun) / self.epochs * (here + self.later))


class Recorder:
    """Writes the files of one run, in the main process only, each whole or not at all.

    A run has a last_splitS_runR.pth from before its first step until it is finished: a checkpoint_splitS_runR.pth
    without one is that of a finished run.

    Parameters
    ----------
    state : TrainState
        What is recorded.
    settings : dict
        Of `run_settings`; stored in every checkpoint, and beside it as JSON.
    output : str
        The folder.
    pace : Pace
        Of the command's runs.
    tensorboard : str or None
        Folder of TensorBoard's event files.
    checkpoint_minutes : float
        Between two states within an epoch.
    overwrite : bool
        Start anew.
    """

    def __init__(self, state: TrainState, split: int, run: int, settings: dict, output: str, pace: Pace,
                 tensorboard: str | None = None, checkpoint_minutes: float = 10, overwrite: bool = False):
        self.state, self.name, self.settings, self.pace = state, f"split {split} run {run}", settings, pace
        self.seconds = 60 * checkpoint_minutes
        self.files = {kind: run_file(output, kind, split, run)
                      for kind in ("checkpoint", "last", "convergence", "figure", "settings")}
        self.board = tensorboard and Path(tensorboard) / f"split{split}_run{run}"
        self.received, self.writer, self.anew = [], None, overwrite
        self.saved = self.drawn = time.monotonic()
        if overwrite and distributed.is_main():
            for path in self.files.values():
                path.unlink(missing_ok=True)

    # ------------------------------------------------------------ start, stop, go on

    def start_or_resume(self, images: SplitImages, force: bool = False) -> None:
        """Load last_*.pth into the state, or, where there is none, write the first.

        Raises InputError where it was trained with other settings, unless `force` allows all of them to change.
        """
        if not distributed.from_main(self.files["last"].exists()):
            self.save()
            return
        path = self.files["last"]
        stored = read_checkpoint(path)
        if "input" in stored:
            stored["input"] = asdict(NetworkInput(**stored["input"]))  # an earlier version stored fewer values
        now = self.settings | {"input": asdict(self.state.network_input)}
        try:
            changed = changed_settings(stored, now)
            fixed = changed_settings(stored, now, forced_settings(stored, now))
            restart_epoch = changed != changed_settings(stored, now, CHANGES_BATCHES)
            if changed and (fixed or not force):
                remedy = (f"--checkpoint {path} and another --output to start from its weights" if fixed
                          else "--force_resume to go on all the same")
                raise InputError(f"{path} was trained with other values of {', '.join(fixed if force else changed)}"
                                 + ", which --force_resume cannot change" * force
                                 + f"; give the same, {remedy}, or --overwrite to train from the start")
            other_data = stored.get("data_hash") != now["data_hash"]
            self.state.load_state_dict(stored, restart_epoch, other_data)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: does not fit this run ({error}); --overwrite trains from the start") from None
        if other_data or stored.get("trained_on"):
            self.settings = self.settings | data_of_both(stored, now, images)
        if changed:
            tqdm.write(f"warning: {path} goes on with other values of {', '.join(changed)}: not to the weights of an "
                       "undisturbed run" + f"; epoch {self.state.epoch} starts anew" * restart_epoch
                       + ", and the best one is chosen from there on" * other_data, file=sys.stderr)
        distributed.wait()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within, a signal that ends the script waits for the next batch; the state is saved, then it takes effect.

        Without a signal the run is finished at the end.
        """
        interrupted = False
        with deferred_signals() as self.received:
            self.saved = time.monotonic()
            try:
                yield
                self.finish()
            except Interrupted:
                interrupted = True
        if interrupted and distributed.is_main():
            print(f"\n{self.files['last']} holds epoch {self.state.epoch} after "
                  f"{counted(self.state.batches, 'batch', 'batches')}: the same command with --resume"
                  + " in place of --overwrite" * self.anew + " goes on from there", file=sys.stderr)
        if interrupted or self.received:
            signal.raise_signal(self.received[0] if self.received else signal.SIGTERM)  # another process had it
            raise KeyboardInterrupt

    def after_batch(self) -> None:
        """Save the state where a signal came or it is time to; raise Interrupted where a signal came to any process."""
        due = time.monotonic() - self.saved > self.seconds
        stop, due = distributed.any_true([bool(self.received), due], self.state.outputs.device)
        if stop or due:
            self.save()
        if stop:
            raise Interrupted

    def check(self) -> None:
        """Outside of training batches: raise Interrupted where a signal came. Several processes, which must all stop at
        the same place, go on to the next training batch.
        """
        if self.received and distributed.world() == 1:
            self.save()
            raise Interrupted

    def save(self) -> None:
        """Write last_*.pth, from which --resume goes on. Raises NotFinite where the outputs are not finite."""
        state, own = self.state, self.state.outputs
        if own is not None:
            outputs = distributed.total(own.clone()).cpu()
            if not outputs.isfinite().all():
                raise state.not_finite()
            state.outputs = outputs
        if distributed.is_main():
            save_checkpoint(self.files["last"], state.state_dict() | self.settings)
        state.outputs, self.saved = own, time.monotonic()

    # ------------------------------------------------------------ what an epoch gave

    def epoch(self, kept: bool) -> None:
        """Write and show the epoch that ended; `kept`: of `TrainState.end_epoch`."""
        if not distributed.is_main():
            return
        state, epoch, table = self.state, self.state.epoch - 1, log_table(self.state)
        improved = kept and state.keep == "best"
        if improved:
            self.keep()
        write_csv(table, self.files["convergence"])
        self.save()
        if time.monotonic() - self.drawn > FIGURE_SECONDS:
            self.draw(table)
        rows = {name: dict(zip(part["metric"], part["value"], strict=True))
                for name, part in table[table["epoch"] == epoch].groupby("split", sort=False)}
        self._tensorboard(epoch, rows)
        train, validation = rows["train"], rows["validation"]
        line = (f"loss {train['loss']:.3f} AUC {train['auc']:.3f}, "
                f"val. {validation['loss']:.3f} {validation['auc']:.3f}")
        line += "".join(f" {key} {value:.3f}" for key, value in validation.items() if key.startswith("loc_"))
        left = self.pace.left(state.nepochs - epoch)
        tqdm.write(f"{self.name} epoch {epoch}/{state.nepochs}: {line}" + " *" * improved + f", {left} left",
                   file=sys.stdout)

    def keep(self) -> None:
        """Write the checkpoint of the epoch that ended, and its settings."""
        kept = {"epoch": self.state.best["epoch"], "auc": self.state.best["auc"]}
        kept |= self.state.checkpoint() | self.settings
        save_checkpoint(self.files["checkpoint"], kept)
        write_settings(self.files["settings"], kept)

    def finish(self) -> None:
        """Write what is written once, then remove last_*.pth."""
        if distributed.is_main():
            if self.state.keep == "last":
                self.keep()
            self.draw(log_table(self.state))
            if not self.files["checkpoint"].exists():
                self.files["last"].unlink(missing_ok=True)
                raise InputError(f"{self.files['checkpoint']}: is gone, removed while the run was trained; give the "
                                 "same command again")
            if not self.files["settings"].exists():  # begun by an earlier version
                write_settings(self.files["settings"], read_checkpoint(self.files["checkpoint"]))
            self.files["last"].unlink(missing_ok=True)
            if self.writer:
                self.writer.close()
        distributed.wait()

    def draw(self, table: pd.DataFrame) -> None:
        draw_convergence(table, self.files["figure"], self.name, self.state.best["epoch"])
        self.drawn = time.monotonic()

    def _tensorboard(self, epoch, rows):
        if not self.board:
            return
        if not self.writer:
            from torch.utils.tensorboard import SummaryWriter  # seconds
            self.writer = SummaryWriter(self.board, purge_step=epoch)
        for name, row in rows.items():
            for key, value in row.items():
                self.writer.add_scalar(f"{key}/{name}", value, epoch)
        self.writer.add_scalar("lr", self.state.lr, epoch)
        self.writer.flush()


def changed_settings(stored: dict, now: dict, allowed: tuple = ()) -> list[str]:
    """What differs between the stored `run_settings` and those of now, as `settings.differences` words it.

    `allowed`: options, and names of SHARED, that may differ.
    """
    before, after = ({name.replace("_", " "): each.get(name) for name in SHARED if name not in allowed}
                     for each in (stored, now))
    return (differences(stored_args(stored.get("args", {})), now["args"], (*MAY_CHANGE, *allowed), "--")
            + differences(before, after))


def forced_settings(stored: dict, now: dict) -> tuple[str, ...]:
    """What --force_resume may change.

    Not what the loaded state sets, such as the learning rate: it would be recorded without taking effect. And not
    nepochs, where the schedule depends on it or more epochs are begun already.
    """
    args, position = now["args"], stored["position"]
    begun = position["epoch"] if position["batches"] else position["epoch"] - 1
    fixed = args["lr_schedule"] in TO_THE_END or args["nepochs"] < begun
    return tuple(name for name in FORCED if name != "nepochs" or not fixed)


def data_of_both(stored: dict, now: dict, images: SplitImages) -> dict:
    """The part of `run_settings` that must speak of all data a run has seen: those before it was resumed, and since."""
    learned = stored.get("trained_on")
    return {"trained_on": learned and with_earlier(learned, images.table, images.table[f"split{images.split}"])
            } | {name: stored.get(name) or now[name] for name in (LEAKAGE, "synthetic")}


def log_table(state: TrainState) -> pd.DataFrame:
    """convergence_splitS_runR.csv."""
    return pd.DataFrame(state.log, columns=["epoch", "split", "metric", "value"])


def write_settings(path: str | Path, checkpoint: dict) -> None:
    """settings_splitS_runR.json: what a checkpoint says of its run, without the weights; read by the report."""
    write_json(plain({name: value for name, value in checkpoint.items() if name not in WEIGHTS}), path)


def run_settings(options: Namespace, model: dict, images: SplitImages, device: torch.device,
                 amp: torch.dtype | None) -> dict:
    """What a checkpoint says about its making, and what a resumed run must share; plain values.

    Parameters
    ----------
    options : Namespace
        train.py's arguments.
    model : dict
        What the network is built from.
    amp : torch.dtype or None
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"version": common.__version__, "model": model, "args": stored_args(vars(options)), "commit": commit(),
            "data_hash": images.hash,
            "labels_hash": labels_hash(images.table, images.split, hasattr(options, "site_lambda")),
            "images_hash": images_hash(images.table),
            LEAKAGE: leakage_of(images.table) or None, "synthetic": bool(is_synthetic(images.table).any()),
            "trained_on": trained_on(options, images.table, images.table[f"split{images.split}"]),
            "device": f"{device.type} ({name})", "precision": precision_name(amp), "threads": torch.get_num_threads(),
            "processes": distributed.world(), "torch": str(torch.__version__),
            "versions": {"python": sys.version.split()[0], "torch": str(torch.__version__), "numpy": np.__version__,
                         "pandas": pd.__version__}}


def trained_before(options: Namespace) -> dict | None:
    """`training_digests` of the network that a run starts from; None where there is none, or its file holds none."""
    start = options.checkpoint or options.weights
    return None if start in NO_FILE else read_checkpoint(start).get("trained_on")


def trained_on(options: Namespace, table: pd.DataFrame, sets: pd.Series) -> dict:
    """`training_digests` of a run's rows and of those that the network it starts from was trained on."""
    if earlier := trained_before(options):
        return with_earlier(earlier, table, sets)
    unknown = options.checkpoint or options.weights not in NO_FILE and is_grey(options.weights)  # such as LARS's
    return training_digests(table, sets) | ({START_UNKNOWN: True} if unknown else {})


def is_grey(path: str) -> bool:
    """Whether the weights in a file take one channel: they may know patients, as those for photographs do not."""
    return network_state(read_checkpoint(path), path)[FIRST].shape[1] == 1


def labels_hash(table: pd.DataFrame, split: int, sites: bool = False) -> str:
    """SHA-256 (hex) over the training and validation scans of a split, their labels, with `sites` those of the lesion,
    too, and sets, in any order."""
    rows = table[table[f"split{split}"].isin(LEARNED)].sort_values("filename")
    columns = ["scan_id", "filename", "target", *["target_loc"] * (sites and "target_loc" in rows), f"split{split}"]
    return hashlib.sha256(rows[columns].to_csv(index=False).encode(errors="surrogateescape")).hexdigest()


def images_hash(table: pd.DataFrame) -> str:
    """SHA-256 (hex) over scan_id, view and image_sha256 of rows, in any order, whatever the input is made of them."""
    rows = table[["scan_id", "view", "image_sha256"]].sort_values(["scan_id", "view"])
    return hashlib.sha256(rows.to_csv(index=False).encode(errors="surrogateescape")).hexdigest()


def draw_convergence(table: pd.DataFrame, path: str | Path, title: str, kept: int) -> None:
    """Loss, AUC and what else chose the epoch `kept`, against the epoch: training dashed, validation solid; a PNG.

    The kept epoch is marked but for the loss.
    """
    import matplotlib

    from evaluation import figure_style

    panels = {"loss": "Loss", "auc": "AUC (scans)", "loc_bacc": "Balanced accuracy of the site (scans)",
              "loc_ap": "Mean average precision of the sites (scans)"}
    panels = {metric: label for metric, label in panels.items() if (table["metric"] == metric).any()}
    with matplotlib.rc_context(figure_style.RC), replace_file(path, "wb") as file:
        figure, grid = figure_style.new_figure(figure_style.COLUMN * len(panels), 2.5, (1, len(panels)))
        for axes, (metric, label) in zip(grid[0], panels.items(), strict=True):
            rows = table[table["metric"] == metric]
            for name, style, colour in (("train", "--", "black"), ("validation", "-", figure_style.BLUE)):
                part = rows[rows["split"] == name]
                axes.plot(part["epoch"], part["value"], style, color=colour, label=name, linewidth=1.3,
                          marker="." if len(part) < 30 else None)
            found = part[(part["epoch"] == kept) & part["value"].notna()]
            if metric != "loss" and len(found):
                axes.plot(found["epoch"], found["value"], "o", mfc="none", color="#D55E00", ms=7,
                          label=f"kept, epoch {kept}: {found['value'].item():.3f}")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="Epoch", ylabel=label)
            axes.legend()
        figure.suptitle(title)
        figure.savefig(file, format="png", dpi=200)
