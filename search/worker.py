"""The worker of optun.py and optuna_finetuning.py: does trials until every study has the finished ones asked for.

Any number of workers on any number of machines may share a storage; what they know of each other is in it alone.
"""
import copy
import gc
import hashlib
import re
import signal
import time
import warnings
from collections import Counter
from pathlib import Path

import optuna
import pandas as pd
import torch
from optuna.trial import TrialState
from torch import nn

import utils
from common import arguments, params
from common.arguments import pick
from common.files import InputError, write_csv
from common.manifest import read_manifest
from common.run_files import run_file
from common.text import first_line
from dataset import check_augmentation
from inference import prediction
from search import report, studies
from search.space import INPUT, fixed_args, read_space, suggest, worth_keeping
from training import recorder
from training.batches import NoRoom, RunBatches, step_seed, steps_per_epoch
from training.device import choose_amp, choose_device, set_threads
from training.distributed import say
from training.engine import evaluate, train_one_epoch
from training.images import Cohort
from training.objectives import Binary
from training.runs import start_model
from training.signals import deferred_signals
from training.state import NotFinite, TrainState

RUN = 1  # trials have the seeds of train.py --run 1, so that --params with the same --nepochs gives the trial's bits
POLL_SECONDS = 2
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|alloc_failed", re.IGNORECASE)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def from_checkpoint(args, split, best):
    """train.py's arguments that start from a split's checkpoint, with its head, and its input where none is given.

    Args:
        best (dict): the split's row of best_run.csv.
    """
    path = run_file(args.chptfolder, "checkpoint", split, best["run"])
    model, content = utils.load_model(path)
    prediction.check_best(path, content, best, args.chptfolder)
    values = {"checkpoint": str(path), "cls_arch": "simple"}
    if not isinstance(model.fc, nn.Linear):
        values |= {"cls_arch": "complex", "hidden": model.fc[0].out_features, "dropout": model.fc[2].p}
    stored = {name: value for name, value in content.get("args", {}).items() if name in INPUT}
    if "input" in content:
        stored["image_size"] = list(content["input"]["frame"])
    values |= {name: value for name, value in stored.items() if name not in args.given}
    return params.with_values(fixed_args(args), values)


def search(args, default_space, starts, label=""):
    """Do trials of every split's study until each has --trials finished ones; write tables and report.

    Args:
        args: of arguments.search_parser.
        default_space (dict): space.SEARCH or space.FINETUNING, which --space changes.
        starts (dict): split -> train.py's arguments, of which a trial changes what it draws.
        label (str): part of the files' names.

    Returns:
        int or None: the exit code.
    """
    space, fixed = read_space(args, default_space)
    starts = {split: params.with_values(own, fixed) for split, own in starts.items()}
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    set_threads(args.threads)
    device = choose_device(args.device)
    amp = choose_amp(args.amp, device)
    cohort = Cohort(read_manifest(args.data, list(starts)), args.data, arguments.images_folder(args), list(starts),
                    device)
    storage, files = studies.open_storage(args), Files(args, label)
    try:
        worker = Worker(args, space, starts, cohort, amp, storage)
        try:
            worker.work(files)
        finally:
            files.write_tables(storage)
            worker.print_times()
        files.write_report(storage)
    except optuna.exceptions.StorageInternalError as error:
        raise InputError(f"--storage {studies.shown(args)}: {first_line(error.__cause__ or error)}") from None
    return print_summary(worker, files)


# ---------------------------------------------------------------- trials

def settings_of(args, space, data):
    """What the trials of one study have in common; `fixed` goes into best_params_summary.csv beside the winner's."""
    checkpoint = None
    if args.checkpoint:
        try:
            with open(args.checkpoint, "rb") as file:
                checkpoint = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"--checkpoint {args.checkpoint}: {error.strerror}") from None
    same = {name: value for name, value in vars(args).items() if name not in (*recorder.MAY_CHANGE, "checkpoint")}
    return {"space": space, "arguments": same, "data": data.hash, "checkpoint": checkpoint,
            "fixed": {name: params.as_text(value) for name, value in worth_keeping(args).items()}}


class Surplus(Exception):
    """Another worker took the last trial at the same moment."""


class Bench:
    """What the trials of one split share in this process: images, start weights, features of frozen layers.

    Attributes:
        space (dict): what its frame allows of the space.
    """

    def __init__(self, args, space, cohort, split, amp):
        self.args, self.split, self.amp = args, split, amp
        self.data, self.cache = cohort.split_images(split, arguments.image_size(args.image_size), **pick(
            args, "margin", "pool", "crop_bodies", "norm")), {}
        self.space = space | ({"augm": self._possible(space["augm"])} if "augm" in space else {})
        if "augm" not in space:
            check_augmentation(args.augm, self.data.network_input.frame)
        torch.manual_seed(step_seed((args.seed, split), RUN))
        self.features, self.random_state = utils.random_features(), torch.get_rng_state()
        if not args.checkpoint:  # here, so that weights which cannot be had cost no trial
            utils.load_backbone(utils.ResNet34(features=self.features), args.weights)

    def _possible(self, codes):
        """The --augm codes that the frame can take."""
        frame, possible = self.data.network_input.frame, []
        for code in codes:
            try:
                check_augmentation(code, frame)
                possible.append(code)
            except InputError as error:
                refused = error
        if not possible:
            raise refused
        if len(possible) < len(codes):
            say(f"split {self.split}: augm {', '.join(map(str, set(codes) - set(possible)))} left out: turns by "
                     f"90 degrees need a square frame, not {frame[0]} x {frame[1]}")
        return possible

    def train(self, args, reporter):
        """Train one network, as train.py --run 1 would -> its TrainState at the end.

        A backbone that is not trained is shared, not copied.
        """
        torch.set_rng_state(self.random_state)
        features = self.features if args.transfer_learning else copy.deepcopy(self.features)
        model = utils.ResNet34(**pick(args, "cls_arch", "hidden", "dropout"), features=features.requires_grad_(True))
        images, device = self.data, self.data.bodies.device
        model = start_model(model, device, images.network_input,
                            **pick(args, "weights", "checkpoint", "transfer_learning", "finetune"))
        objective = Binary(images.table, images.train, device, **pick(args, "balance", "label_smoothing"))
        optimizer = utils.build_optimizer(model.parameters(), **pick(args, "optimizer", "lr", "wd", "momentum"))
        steps = steps_per_epoch(images.train, objective.y_true, **pick(args, "batch_size", "oversample"))
        schedule = utils.Schedule(optimizer, steps, **pick(args, "nepochs", "lr_schedule", "lr_anneal",
                                                           "warmup_epochs"))
        state = TrainState(model, optimizer, schedule, utils.EarlyStopping(args.patience), images.network_input,
                           self.amp, utils.build_ema(model, args.ema))
        batches = RunBatches(images, model, objective.y_true, (args.seed, self.split, RUN), self.amp, cache=self.cache,
                             check=reporter.stop_if_asked,
                             **pick(args, "batch_size", "augm", "oversample", "cached_placements"))
        reporter.begin()
        for epoch in state.epochs(args.nepochs, args.early_stopping):
            train = train_one_epoch(model, objective, optimizer, batches.training(epoch), state,
                                    reporter.stop_if_asked)
            validation = evaluate(state.kept, batches.validation(), self.amp, check=reporter.stop_if_asked)
            state.end_epoch(objective, train, validation)
            reporter.epoch(state)
        reporter.stop_if_asked()
        return state

    def forget(self):
        """Give back what memory there is to give."""
        self.cache.clear()
        gc.collect()
        if self.data.bodies.device.type != "cpu":
            torch.accelerator.empty_cache()


class Reporter:
    """Each epoch's validation AUC to the pruner.

    Attributes:
        training, storage (float): seconds of training without the storage; seconds in storage and sampler.
    """

    def __init__(self, trial, nepochs, received, storage):
        self.trial, self.nepochs, self.received = trial, nepochs, received
        self.begun, self.storage = None, storage

    def begin(self):
        self.stop_if_asked()
        self.begun = time.perf_counter()

    def stop_if_asked(self):
        if self.received:
            raise KeyboardInterrupt

    @property
    def training(self):
        return time.perf_counter() - self.begun if self.begun else 0.0

    def epoch(self, state):
        self.stop_if_asked()
        begun, epoch = time.perf_counter(), state.epoch - 1
        value = next(value for number, name, metric, value in reversed(state.log)
                     if (number, name, metric) == (epoch, "validation", "auc"))
        self.trial.report(value, epoch)
        worse = epoch < self.nepochs and self.trial.should_prune()
        taken = time.perf_counter() - begun
        self.storage, self.begun = self.storage + taken, self.begun + taken
        if worse:
            raise optuna.TrialPruned(f"by the pruner after epoch {epoch}")


class Worker:
    """One process's work on the studies.

    Args:
        starts (dict): split -> train.py's arguments.
    """

    def __init__(self, args, space, starts, cohort, amp, storage):
        self.args, self.space, self.starts, self.cohort, self.amp = args, space, starts, cohort, amp
        self.storage, self.bench = storage, None
        self.studies = {split: studies.build_study(args, split, own.nepochs, storage) for split, own in starts.items()}
        self.seconds, self.seen, self.begun, self.waited = Counter(), {}, time.perf_counter(), False
        self.last, self.ended = None, False  # the trial that is done, or was, and whether it is done

    def work(self, files):
        """Do trials; where none is left to take but others run elsewhere, wait for their end."""
        while self.unfinished() and not self.timed_out():
            done = 0
            for split, study in self.studies.items():
                while self.missing(study) > 0 and not self.timed_out():
                    self.do_trial(split, study)
                    done += 1
                    written = time.perf_counter()
                    report.write_results(files.results(split), study)
                    self.seconds["tables"] += time.perf_counter() - written
            if not done:
                self.wait()

    def unfinished(self):
        """The splits whose studies lack finished trials."""
        return [split for split, study in self.studies.items() if self.missing(study, FINISHED) > 0]

    def timed_out(self):
        return bool(self.args.timeout) and time.perf_counter() - self.begun > self.args.timeout

    def missing(self, study, states=(*FINISHED, TrialState.RUNNING)):
        """How many trials the study lacks, those in `states` counted as there."""
        return self.args.trials - len(study.get_trials(deepcopy=False, states=states))

    def wait(self):
        """Look after trials that run elsewhere: those of dead workers fail, and are queued again."""
        running = [(split, trial) for split, study in self.studies.items()
                   for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
        if running and not self.waited:
            self.waited = True
            names = [f"split {split} trial {trial.number}" for split, trial in running]
            say(f"waiting for trials of other workers: {', '.join(names)}; one whose worker is dead is taken over "
                     f"after {studies.GRACE * self.args.heartbeat} s")
        time.sleep(POLL_SECONDS)
        for _, trial in running:
            first = self.seen.setdefault(trial._trial_id, time.monotonic())
            if first and time.monotonic() - first > studies.GRACE * self.args.heartbeat:
                self.storage.record_heartbeat(trial._trial_id)  # its worker may have died before it gave the first one
                self.seen[trial._trial_id] = 0.0
        for split in {split for split, _ in running}:
            optuna.storages.fail_stale_trials(self.studies[split])

    def do_trial(self, split, study):
        """Take a trial and do it."""
        begun = time.perf_counter()
        bench = self.bench_of(split, study)
        self.seconds["reading"] += time.perf_counter() - begun
        begun, before = time.perf_counter(), self.seconds["objective"]
        self.last, self.ended = None, False
        with deferred_signals() as received:
            try:
                study.optimize(lambda trial: self.objective(trial, study, bench, received), 1, catch=(Surplus,))
            except KeyboardInterrupt:
                failed = self.last and study.get_trials()[self.last.number]
                if failed and failed.state == TrialState.FAIL:
                    say(f"split {split} trial {failed.number}: interrupted; it is to be done again")
                    studies.again(study, failed, None)
                raise
            except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
                if not self.ended:
                    raise
                say(f"split {split} trial {self.last.number}: another worker does it: this one was not heard of "
                         f"for {studies.GRACE * self.args.heartbeat} s")
        if received:
            signal.raise_signal(received[0])
        self.seconds["storage"] += time.perf_counter() - begun - (self.seconds["objective"] - before)

    def bench_of(self, split, study):
        """The Bench of a split; the last one is kept."""
        if self.bench is None or self.bench.split != split:
            self.bench = None
            self.bench = Bench(self.starts[split], self.space, self.cohort, split, self.amp)
            studies.agree(study, settings_of(self.starts[split], self.bench.space, self.bench.data),
                          studies.shown(self.args))
        return self.bench

    def objective(self, trial, study, bench, received):
        """Train a trial -> its best epoch's validation AUC, or raise."""
        self.last, begun = trial, time.perf_counter()
        self.refuse_surplus(trial, study)
        values = suggest(trial, bench.space, bench.args)
        args = params.with_values(bench.args, values)
        reporter = Reporter(trial, args.nepochs, received, time.perf_counter() - begun)
        position, reason, broken = None, None, False
        try:
            position = bench.train(args, reporter)
        except optuna.TrialPruned as pruned:
            reason = str(pruned)
        except KeyboardInterrupt:
            trial.set_user_attr("reason", "interrupted")
            raise
        except optuna.exceptions.UpdateFinishedTrialError:
            self.ended = True
            raise
        except Exception as error:
            reason = reason_to_prune(error)
            broken = not isinstance(error, NotFinite)
            if not reason:
                trial.set_user_attr("reason", f"{type(error).__name__}: {first_line(error)}")
                if isinstance(error, InputError):
                    raise InputError(f"split {bench.split} trial {trial.number} ({params.listed(values)}): "
                                     f"{error}") from None
                raise
        if broken:  # out of memory; here, since the error held on to what filled it
            bench.forget()
        return self.end(trial, bench.split, values, reporter, begun, position, reason)

    def refuse_surplus(self, trial, study):
        """Raise Surplus where the study has its trials without this one: the first --trials that did not fail."""
        earlier = [each for each in study.get_trials(deepcopy=False)[:trial.number] if each.state != TrialState.FAIL]
        if len(earlier) >= self.args.trials:
            trial.set_user_attr("reason", "one too many: another worker took the last one at the same moment")
            raise Surplus

    def end(self, trial, split, values, reporter, begun, position, reason):
        """Store and show how a trial went -> its value. Raises TrialPruned where there is a reason."""
        training, stored = reporter.training, time.perf_counter()
        attributes = {"reason": reason} if reason else {"best_epoch": position.best["epoch"]}
        attributes |= {"training_seconds": round(training, 3), "seconds": round(stored - begun, 3)}
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        storage = reporter.storage + time.perf_counter() - stored
        self.seconds.update(training=training, trials=1, objective=time.perf_counter() - begun - storage)
        ended = f"pruned: {reason}" if reason else f"AUC {position.best['value']:.4f} in epoch {position.best['epoch']}"
        say(f"split {split} trial {trial.number}: {ended}; {attributes['seconds']:.1f} s; {params.listed(values)}")
        self.ended = True
        if reason:
            raise optuna.TrialPruned(reason)
        return position.best["value"]

    def print_times(self):
        """Where this worker's time went."""
        spent = self.seconds
        other = spent["objective"] - spent["training"] + spent["tables"]
        share = f" ({100 * other / spent['training']:.1f} % of training)" if spent["training"] else ""
        say(f"this worker: {spent['trials']} trials; {spent['training']:.1f} s training, {other:.2f} s besides"
                 f"{share}, {spent['storage']:.2f} s storage and sampler, {spent['reading']:.1f} s reading images")


def reason_to_prune(error):
    """Why a trial ends, where its parameters alone are to blame; None: the search ends, too."""
    if isinstance(error, NotFinite):
        return first_line(error)
    if isinstance(error, MemoryError | NoRoom) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        return f"out of memory: {first_line(error)}"
    return None


# ---------------------------------------------------------------- results

class Files:
    """The files of a search in --output."""

    def __init__(self, args, label):
        self.args, self.label, self.folder = args, label, Path(args.output)
        part = f"_{label}" if label else ""
        self.summary = self.folder / f"best_params{part}_summary.csv"
        self.report = self.folder / f"optuna{part}_report.html"
        self.title = "Fine-tuning search" if label else "Hyperparameter search"

    def results(self, split):
        return self.folder / f"optuna_results{self.label}_split{split}.csv"

    def write_tables(self, storage):
        """Of the storage's studies, by this search and by earlier ones of other splits."""
        found = studies.all_studies(self.args, storage)
        for split, study in found.items():
            report.write_results(self.results(split), study)
        rows = [winner(split, study) for split, study in found.items() if studies.best_trial(study)]
        if rows:
            write_csv(pd.DataFrame(rows), self.summary)

    def write_report(self, storage):
        """The page of the same studies."""
        if found := studies.all_studies(self.args, storage):
            report.write_report(self.report, self.title, found)


def winner(split, study):
    """A row of best_params_summary.csv, as params.read_values reads it."""
    best = studies.best_trial(study)
    drawn = {name: params.as_text(value) for name, value in best.params.items()}
    return {"split": split, "number": best.number, "value": best.value} | drawn | study.user_attrs["settings"]["fixed"]


def print_summary(worker, files):
    """The studies as a table -> exit code."""
    args, without = worker.args, []
    names = " ".join(f"{state.name.lower():>8}" for state in TrialState)
    say(f"{'split':>5} {'best AUC':>8} {'trial':>5}  {names}")
    for split, study in worker.studies.items():
        best, counts = studies.best_trial(study), Counter(trial.state for trial in study.get_trials(deepcopy=False))
        found = f"{best.value:8.4f} {best.number:5}" if best else f"{'none':>8} {'':5}"
        say(f"{split:5} {found}  " + " ".join(f"{counts[state]:8}" for state in TrialState))
        without += [] if best else [split]
    if worker.unfinished():
        say(f"--timeout {args.timeout:g} s is over: the same command goes on to {args.trials} trials a split")
    if without:
        say(f"no complete trial of split {', '.join(map(str, without))}: reasons are in {files.report}")
    if len(without) < len(worker.studies):
        split = next(split for split in worker.studies if split not in without)
        say(f"the winner in full: python train.py --params {files.summary} --split_index {split} --data "
                 f"{args.data} --output {args.output}")
    say(f"wrote {files.results('S')}, {files.summary.name}, {files.report.name}; storage {studies.shown(args)}")
    return arguments.EXIT_SOME_FAILED if without else None
