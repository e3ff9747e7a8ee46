"""The files of a training run: its log and curve, the kept checkpoint, and the state that --resume goes on from."""
import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from common.files import InputError, replace_file, write_csv
from common.run_files import run_file
from training import distributed
from training.engine import Position
from utils import read_checkpoint, save_checkpoint

FIGURE_SECONDS = 30  # between two drawings of the curve
MAY_CHANGE = ("resume", "force_resume", "overwrite", "output", "data", "images", "split_index", "run", "device",
              "threads", "amp", "checkpoint_minutes", "tensorboard")  # of the arguments, when a run goes on


class Recorder:
    """Writes the files of one run, in the main process only, each whole or not at all.

    A run has a last_splitS_runR.pth from before its first step until it is finished: a checkpoint_splitS_runR.pth
    without one is that of a finished run.

    Args:
        args: output, tensorboard, force_resume.
        provenance (dict): stored in every checkpoint (`provenance`).
    """

    def __init__(self, args, split, run, provenance):
        self.args, self.split, self.run, self.provenance = args, split, run, provenance
        self.files = {kind: run_file(args.output, kind, split, run)
                      for kind in ("checkpoint", "last", "convergence", "figure")}
        self.drawn, self.board = 0.0, None
        if distributed.is_main():
            for path in self.files.values():  # what a killed process was writing
                for leftover in path.parent.glob(f".{path.name}.*.tmp"):
                    leftover.unlink(missing_ok=True)
                if args.overwrite:
                    path.unlink(missing_ok=True)

    def restore(self, trainer):
        """Load last_*.pth into the trainer -> the Position to go on from. Raises InputError for another run's."""
        path = self.files["last"]
        state = read_checkpoint(path)
        differing = differences(state, self.provenance | {"input": asdict(trainer.given)})
        if differing and self.args.force_resume:
            tqdm.write(f"warning: {path} goes on with other values of {', '.join(differing)}: not to the weights of an "
                       "undisturbed run", file=sys.stderr)
        elif differing:
            raise InputError(f"{path} was trained with other values of {', '.join(differing)}; give the same, "
                             "--force_resume to go on all the same, or --overwrite to train from the start")
        try:
            trainer.load_state_dict(state)
            position = Position(**state["position"])
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: does not fit this run ({error}); --overwrite trains from the start") from None
        position.log = [tuple(row) for row in position.log]
        return position

    def save(self, position, trainer):
        """Write last_*.pth: the run goes on from here."""
        if distributed.is_main():
            save_checkpoint(self.files["last"], trainer.state_dict() | {"position": vars(position)} | self.provenance)

    def epoch(self, position, rows, trainer, improved):
        """Write and show what an epoch gave. `position.epoch` is the next one."""
        if not distributed.is_main():
            return
        epoch = position.epoch - 1
        if improved:
            save_checkpoint(self.files["checkpoint"], {"epoch": epoch, "auc": np.float64(position.best["auc"])}
                            | trainer.checkpoint() | self.provenance)
        table = log_table(position)
        write_csv(table, self.files["convergence"])
        self.save(position, trainer)
        if time.monotonic() - self.drawn > FIGURE_SECONDS:
            draw_convergence(table, self.files["figure"], f"split {self.split} run {self.run}")
            self.drawn = time.monotonic()
        self._tensorboard(epoch, rows, trainer)
        said = ", ".join(f"{name} loss {each['loss']:.3f} AUC {each['auc']:.3f}" for name, each in rows.items())
        said += "".join(f" {key} {value:.3f}" for key, value in rows["validation"].items() if key.startswith("loc_"))
        tqdm.write(f"split {self.split} run {self.run} epoch {epoch}: {said}" + " *" * improved, file=sys.stdout)

    def finish(self, position):
        if distributed.is_main():
            draw_convergence(log_table(position), self.files["figure"], f"split {self.split} run {self.run}")
            self.files["last"].unlink(missing_ok=True)
            if self.board:
                self.board.close()
        distributed.wait()

    def interrupted(self, position):
        if distributed.is_main():
            print(f"\n{self.files['last']} holds epoch {position.epoch} after {position.batches} batches: the same "
                  "command with --resume goes on from there", file=sys.stderr)

    def _tensorboard(self, epoch, rows, trainer):
        if not self.args.tensorboard:
            return
        if not self.board:
            from torch.utils.tensorboard import SummaryWriter
            folder = Path(self.args.tensorboard) / f"split{self.split}_run{self.run}"
            self.board = SummaryWriter(folder, purge_step=epoch)
        for name, each in rows.items():
            for key, value in each.items():
                self.board.add_scalar(f"{key}/{name}", value, epoch)
        self.board.add_scalar("lr", trainer.optimizer.param_groups[0]["lr"], epoch)
        self.board.flush()


def log_table(position):
    return pd.DataFrame(position.log, columns=["epoch", "split", "metric", "value"])


def differences(state, now):
    """What keeps a run from going on to the same bits: ["--lr (0.01, now 0.1)", "threads (2, now 1)", ...]."""
    old = state.get("args", {})
    names = [name for name in old if name not in MAY_CHANGE and name in now["args"]]
    pairs = [(f"--{name}", old[name], now["args"][name]) for name in names]
    pairs += [(name.replace("_", " "), state.get(name), now[name])
              for name in ("model", "device", "precision", "threads", "processes", "torch", "data_hash", "input")]
    return [f"{name} ({was}, now {value})" for name, was, value in pairs if plain(was) != plain(value)]


def plain(value):
    """As it would come back from JSON: tuples are lists."""
    return json.loads(json.dumps(value))


def provenance(args, model_settings, device, amp, data_hash):
    """What a checkpoint says about its making, and what a resumed run must share (dict of plain values).

    commit is git's, with "+" where files differ from it; None outside git.
    """
    def git(*words):
        return subprocess.run(["git", *words], cwd=Path(__file__).parents[1], capture_output=True, text=True,
                              check=True).stdout.strip()

    commit = None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"model": model_settings, "args": plain(vars(args)), "commit": commit, "data_hash": data_hash,
            "device": f"{device.type} ({name})", "precision": str(amp or torch.float32).removeprefix("torch."),
            "threads": torch.get_num_threads(), "processes": distributed.world(), "torch": str(torch.__version__),
            "versions": {"python": sys.version.split()[0], "torch": str(torch.__version__), "numpy": np.__version__,
                         "pandas": pd.__version__}}


def draw_convergence(table, path, title):
    """Loss, AUC and what else chose the kept epoch, against the epoch: training dashed, validation solid; a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {"loss": "Loss", "auc": "AUC (scans)", "loc_bacc": "Balanced accuracy of the site (scans)",
              "loc_ap": "Mean average precision of the sites (scans)"}
    panels = {metric: label for metric, label in panels.items() if (table["metric"] == metric).any()}
    figure = Figure((4 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (metric, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name, style in (("train", "--"), ("validation", "-")):
            rows = table[(table["split"] == name) & (table["metric"] == metric)]
            axes.plot(rows["epoch"], rows["value"], style, color="black" if name == "train" else "#0072B2", label=name,
                      marker="." if len(rows) < 30 else None)
        axes.set(xlabel="Epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        if metric != "loss" and rows["value"].notna().any():
            best = rows.loc[rows["value"].idxmax()]
            axes.plot(best["epoch"], best["value"], "o", mfc="none", color="#D55E00", ms=10,
                      label=f"highest: {best['value']:.3f}")
        axes.legend(frameon=False)
    figure.suptitle(title)
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
