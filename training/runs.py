"""Which runs to train: splits x runs, with each split's arguments; what is finished is left alone."""
import contextlib
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

import utils
from common import arguments, recipes
from common.arguments import pick
from common.digests import name_scans, overlap, training_digests
from common.effects import odd_together, without_effect
from common.faults import is_out_of_memory, memory_line
from common.files import InputError
from common.locks import is_held, locked
from common.manifest import LEARNED, leakage
from common.params import for_split, read_search, recipe_line
from common.run_files import run_file
from common.settings import differences, stored_args
from common.text import counted, whole_number
from dataset import NORMS, NetworkInput
from training import distributed
from training.batches import RunBatches, step_seed
from training.device import precision_name
from training.distributed import say
from training.images import SplitImages
from training.objectives import Binary
from training.recorder import MAY_CHANGE, Pace, Recorder, labels_hash, run_settings, trained_before, write_settings
from training.state import NotFinite, TrainState, build_ema


@dataclass
class Run:
    """One network to train.

    Attributes
    ----------
    options : Namespace
        The arguments of train.py, with the values that --params has for the split.
    pace : Pace
        Common to all runs of a command.
    search : dict or None
        Whose best trial --params has: its `file`, of how many `trials` (None: unknown).
    """
    split: int
    run: int
    options: Namespace
    pace: Pace
    search: dict | None = None

    @property
    def seed(self) -> tuple:
        """(seed, split, run): with the epoch, the seed of every random choice."""
        return self.options.seed, self.split, self.run


class Runs:
    """The runs of a command: each of --run for each of --split_index.

    Attributes
    ----------
    todo : list of Run
        Those that are not finished yet.
    splits : list of int
        The splits of `todo`.
    rows : dict
        (split, run) -> its row of the summary; None until it is finished.

    Raises
    ------
    InputError
        Arguments that contradict each other; a run that --output holds already, unfinished or with other settings.
    """

    def __init__(self, args: Namespace, device: torch.device, amp: torch.dtype | None, table: pd.DataFrame):
        if args.overwrite and (args.resume or args.force_resume):
            raise InputError("--resume goes on with a run, --overwrite starts it anew: leave one of them out")
        options = {split: for_split(args, split, say) for split in args.split_index}
        for each in options.values():
            arguments.image_size(each.image_size)
            if each.batch_size < distributed.world():
                raise InputError(f"--batch_size {each.batch_size}: no image for some of the "
                                 f"{counted(distributed.world(), 'process', 'processes')}")
        self.output, self.table, self.pace = args.output, table, Pace()
        searches = {split: _search(args.params, split) for split in args.split_index}
        runs = [Run(split, run, options[split], self.pace, searches[split]) for split in args.split_index
                for run in args.run]
        if args.overwrite:
            refuse_own_start(runs)
        # of a run that another process is training, `claim` says so
        self.rows = {(run.split, run.run): distributed.from_main(
            None if is_held(_lock(run)) else find_result(run, table)) for run in runs}
        self.todo = [run for run in runs if self.rows[run.split, run.run] is None]
        self.splits = sorted({run.split for run in self.todo})
        if args.recipe and not args.params:  # with --params, `for_split` has said it
            say(recipe_line(args))
        if self.todo:
            for line in (*without_effect(args.given, options.values()), *odd_together(args.given, options.values()),
                         recipes.advice(args), *other_searches(args, table)):
                if line:
                    say(line)
            say(f"device {device}, {precision_name(amp)}"
                + f", {counted(distributed.world(), 'process', 'processes')}" * (distributed.world() > 1))

    @contextlib.contextmanager
    def failures_listed(self, run: Run) -> Iterator[None]:
        """Within, a run is trained. If it fails and is one of several, the summary lists it and the others go on.

        Not so with several processes when one runs out of memory: it must end, so that torchrun ends the others, which
        would wait for it.
        """
        self.begun = time.monotonic()
        self.pace.later = sum(each.options.nepochs for each in self.todo[self.todo.index(run) + 1:])
        try:
            with contextlib.ExitStack() as self.claimed:
                yield
            return
        except FinishedMeanwhile as finished:
            self.rows[run.split, run.run], = finished.args
            return
        except InputError as error:
            message = str(error) + ", and train again with --overwrite" * isinstance(error, NotFinite)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or distributed.world() > 1:
                raise
            message = memory_line(error, run.options)
        if len(self.rows) == 1:
            raise InputError(f"split {run.split} run {run.run}: {message}")
        if distributed.is_main():
            print(f"error: split {run.split} run {run.run}: {message}", file=sys.stderr)
        self._add_row(run, "", "", float("nan"), f"failed: {message}")

    def claim(self, run: Run) -> None:
        """Take the run's lock, within `failures_listed`.

        Raises
        ------
        InputError
            Another process is training the run, or left it unfinished.
        FinishedMeanwhile
            Another process has finished it since the command was started.
        """
        reason = None
        if distributed.is_main():
            try:
                self.claimed.enter_context(locked(_lock(run), f"split {run.split} run {run.run} is trained"))
                if row := find_result(run, self.table):
                    reason = FinishedMeanwhile(row)
            except InputError as error:
                reason = error
        if reason := distributed.from_main(reason):
            raise reason

    def finished(self, run: Run, state: TrainState) -> None:
        """Add a finished run to the summary."""
        self._add_row(run, state.epoch - 1, state.best["epoch"], state.best["auc"], state.ended)

    def _add_row(self, run, epochs, kept_epoch, auc, ended):
        self.rows[run.split, run.run] = {"epochs": epochs, "kept_epoch": kept_epoch, "auc": auc, "ended": ended,
                                         "seconds": f"{time.monotonic() - self.begun:.0f}"}

    def summary(self) -> int | None:
        """Print the runs as a table -> the exit code."""
        say(f"{'split':>5} {'run':>3} {'epochs':>6} {'kept':>5} {'val. AUC':>8} {'seconds':>8}  ")
        for (split, run), row in self.rows.items():
            say(f"{split:5} {run:3} {row['epochs']:>6} {row['kept_epoch']:>5} {row['auc']:8.4f} {row['seconds']:>8}  "
                f"{row['ended']}")
        say(f"checkpoints: {run_file(self.output, 'checkpoint', 'S', 'R')}; find_best_model.py --dir {self.output} "
            "ranks them")
        failed = any(row["ended"].startswith("failed") for row in self.rows.values())
        return arguments.EXIT_SOME_FAILED if failed else None


def _search(path, split):
    """`Run.search` of --params."""
    found = read_search(path, split) if path else {}
    return {"file": Path(path).name, "trials": whole_number(found.get("trials", ""))} if "value" in found else None


def refuse_own_start(runs: list[Run]) -> None:
    """Raise InputError where one of the runs starts from a checkpoint that --overwrite would remove."""
    own = {run_file(run.options.output, kind, run.split, run.run).resolve() for run in runs
           for kind in ("checkpoint", "last")}
    for run in runs:
        for start in filter(None, (run.options.checkpoint, run.options.weights)):
            if Path(start).resolve() in own:
                raise InputError(f"{start}: split {run.split} run {run.run} starts from it, and --overwrite would "
                                 "replace it: give another --output or --run")


def other_searches(args: Namespace, table: pd.DataFrame) -> list[str]:
    """A warning for each split whose values in --params are of a search on other scans, labels or sets than the
    manifest `table` has."""
    found = {split: read_search(args.params, split).get("labels_hash") if args.params else None
             for split in args.split_index}
    return [f"warning: split {split}: {args.params} is of a search on other scans, labels or sets than {args.data} "
            "has: scans that it chose these values by may be tested now"
            for split, digest in found.items() if digest and digest != labels_hash(table, split)]


class FinishedMeanwhile(Exception):
    """Another process has finished the run; the argument is its row of the summary."""


def _lock(run):
    return run_file(run.options.output, "running", run.split, run.run)


def find_result(run: Run, table: pd.DataFrame) -> dict | None:
    """The summary's row of a finished run; None for a run to train.

    Writes settings_splitS_runR.json of a finished run that lacks it (of an earlier version). Raises InputError where
    --output holds the run, unfinished and without --resume, or trained with other arguments or on other scans, labels
    or sets than the manifest `table` has.
    """
    options = run.options
    done, last, settings = (run_file(options.output, kind, run.split, run.run) for kind in ("checkpoint", "last",
                                                                                            "settings"))
    if not distributed.is_main() or options.overwrite:
        return None
    if last.exists() or not done.exists():
        if last.exists() and not (options.resume or options.force_resume):
            raise InputError(f"{last} exists: --resume goes on with it, --overwrite trains it again, or give another "
                             "--run")
        return None
    content, sites = utils.read_checkpoint(done), hasattr(options, "site_lambda")
    if ("sites" in content.get("model", {})) != sites:
        other = "train.py" if sites else "train_loca.py"
        raise InputError(f"{done} exists, a network of {other}: give another --output, or --overwrite")
    differing = differences(stored_args(content.get("args", {})), stored_args(vars(options)), MAY_CHANGE, "--")
    if differing or "args" not in content:
        raise InputError(f"{done} exists, trained with other values of {', '.join(differing) or 'its arguments'}: "
                         "--overwrite trains it again, or give another --run or --output")
    known = [labels_hash(table, run.split, each) for each in dict.fromkeys((sites, True))]  # binary ones had True once
    if content.get("labels_hash", known[0]) not in known:
        raise InputError(f"{done} exists, trained on other scans, labels or sets than {options.data} has for split "
                         f"{run.split} now: give that manifest, --overwrite to train again, or another --output")
    if on_other_images(content.get("trained_on"), table, run.split):
        say(f"warning: split {run.split} run {run.run} was trained on other images than {options.data} has now "
            "(image_sha256): --overwrite trains it again")
    if not settings.exists():
        write_settings(settings, content)
    return {"epochs": "", "kept_epoch": content["epoch"], "auc": float(content["auc"]), "seconds": "",
            "ended": "finished before"}


def on_other_images(learned: dict | None, table: pd.DataFrame, split: int) -> bool:
    """Whether a split of the manifest names images by image_sha256 that a run did not learn from; `learned`: its
    `training_digests`, None of an earlier version."""
    if not learned or not learned["train"]["image_sha256"]:
        return False
    now = training_digests(table, table[f"split{split}"], learned["salt"])
    return any(not set(now[name]["image_sha256"]) <= set(learned[name]["image_sha256"]) for name in LEARNED)


def start_model(model: utils.ResNet34, device: torch.device, network_input: NetworkInput, weights: str = "none",
                checkpoint: str | None = None, transfer_learning: bool = False,
                finetune: bool = False) -> utils.ResNet34:
    """The network with its start weights, its frozen layers and its place on the device.

    Parameters
    ----------
    weights : str
        "imagenet", "none" (random), or the file of a torchvision ResNet34's state_dict.
    checkpoint : str or None
        A checkpoint to start from instead.
    transfer_learning, finetune : bool
        Train the head, or layer4 and the head, only.
    """
    if checkpoint:
        trained, taken = utils.load_weights(model, checkpoint)
        say(taken)
        warn_other_input(checkpoint, trained, network_input)
    else:
        utils.load_backbone(model, weights)
    utils.freeze(model, transfer_learning, finetune)
    distributed.synchronize_batch_norm(model, device)
    return model.to(device, memory_format=torch.channels_last)


def begin(run: Run, images: SplitImages, model: utils.ResNet34, objective: Binary, optimizer: torch.optim.Optimizer,
          schedule: utils.Schedule, settings: dict, device: torch.device,
          amp: torch.dtype | None) -> tuple[TrainState, Recorder, RunBatches]:
    """What the epochs of a run need: its state (new, or with --resume as it was left), its files and its batches.

    Parameters
    ----------
    objective : training.objectives.Binary
    settings : dict
        What the network is built from, for its checkpoints.

    Raises
    ------
    InputError
        As `check_start`, and as Recorder and RunBatches.
    """
    options = run.options
    check_start(options, images)
    state = TrainState(model, optimizer, schedule, utils.EarlyStopping(options.patience), images.network_input, amp,
                       build_ema(model, options.ema), **pick(options, "compile", "keep"))
    recorder = Recorder(state, run.split, run.run,
                        run_settings(options, settings, images, device, amp) | {"search": run.search},
                        pace=run.pace, **pick(options, "output", "tensorboard", "checkpoint_minutes", "overwrite"))
    batches = RunBatches(images, model, objective.y_true, run.seed, amp, check=recorder.check,
                         **pick(options, "batch_size", "augm", "oversample", "cached_placements"))
    recorder.start_or_resume(images, options.force_resume)
    return state, recorder, batches


def check_start(options: Namespace, images: SplitImages) -> None:
    """Refuse a start from a network that was trained on validation scans of the split: early stopping, kept epoch and
    best run would follow an AUC that is too good.

    Raises
    ------
    InputError
        Unless --allow_leakage, which marks `images.table`.
    """
    if not (earlier := trained_before(options)):
        return
    table, column = images.table, f"split{images.split}"
    wrong = (overlap(table, earlier) == "train") & (table[column] == "val").to_numpy()
    with leakage(table, options.allow_leakage):
        if wrong.any():
            raise InputError(f"{options.checkpoint or options.weights}: was trained on {name_scans(table, wrong)} of "
                             f"{column} val, or on their patients; start from that split's own checkpoint, by the "
                             "manifest of its training")


def seed_weights(seed: int, split: int, run: int) -> None:
    """Seed what draws the random weights of a run."""
    torch.manual_seed(step_seed((seed, split), run))


def warn_other_input(path: str, trained: dict, network_input: NetworkInput) -> None:
    """Say in what the input that a checkpoint was `trained` with differs from the run's: pixel size after pooling, type
    of SUV, normalization."""
    if trained.get("spacing_mm") and network_input.spacing_mm:
        before, now = trained["spacing_mm"] * trained["pool"], network_input.spacing_mm * network_input.pool
        if abs(before - now) > 1e-3:
            say(f"warning: {path}: trained on pixels of {before:g} mm, this run has {now:g} mm (spacing_mm x --pool): "
                "bodies have another size than its weights know")
    if (suv_type := trained.get("suv_type", "bw")) != network_input.suv_type:
        say(f"warning: {path}: trained on SUV of type {suv_type}, this run has {network_input.suv_type}")
    before, now = (f"{norm[0]:.4f} and {norm[1]:.4f} SUV" for norm in (trained.get("norm", network_input.norm),
                                                                    network_input.norm))
    if not trained and network_input.norm != NORMS["lars"]:
        say(f"{path}: does not say how its input was normalized, LARS's by --norm lars; this run: mean and standard "
            f"deviation {now}")
    if before != now:
        say(f"{path}: normalized by mean and standard deviation {before}, this run by {now} (--norm)")
