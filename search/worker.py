"""The worker of optun.py and optuna_finetuning.py: runs trials until every study has as many as are asked for.

Any number of workers on any number of machines may share a storage; what they know of each other is in it alone.
"""
import math
import shlex
import signal
import time
import warnings
from argparse import Namespace
from collections import Counter
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from common import arguments, manifest, params, text
from common.faults import is_out_of_memory
from common.files import InputError
from common.model_files import checkpoints_in
from common.signals import deferred_signals
from common.text import counted
from search import report, studies
from search.space import doubts, read_space, suggest
from search.trials import IMPOSSIBLE, SplitTrials
from training.device import open_device
from training.distributed import say
from training.images import Cohort
from training.state import NotFinite

POLL_SECONDS = 2
OUT_OF_MEMORY = "out of memory"  # begins such reasons
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
TAKEN = (*FINISHED, TrialState.RUNNING)


def search(args: Namespace, default_space: dict, starts: dict, label: str = "") -> int | None:
    """Run trials of every split's study until each has --trials finished ones; write tables and report.

    Parameters
    ----------
    args : Namespace
        Of arguments.search_parser.
    default_space : dict
        space.SEARCH or space.FINETUNING, which --space changes.
    starts : dict
        Split -> train.py's arguments, of which a trial changes what it draws.
    label : str
        Part of the files' names.

    Returns
    -------
    int or None
        The exit code.

    Raises
    ------
    InputError
    """
    space, fixed = read_space(args, default_space)
    if args.recipe:
        say(params.recipe_line(args, space | fixed))
    starts = {split: params.with_values(own, fixed) for split, own in starts.items()}
    for line in doubts(args, default_space, space, fixed, starts.values()):
        say(line)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    device, amp = open_device(args.device, args.amp, args.threads)
    table = manifest.read_manifest(args.data, list(starts), allow_leakage=args.allow_leakage)
    cohort = Cohort(table, args.data, arguments.images_folder(args), list(starts), device, args.allow_leakage)
    files = report.Files(Path(args.output), label, args.study)
    url = args.storage or f"sqlite:///{files.folder / 'optuna.db'}"
    if not args.storage:
        files.folder.mkdir(parents=True, exist_ok=True)
    storage = studies.open_storage(url, args.heartbeat)
    try:
        report.check_tables(files, lambda: studies.all_studies(args.study, storage), studies.shown(url))
        worker = Worker(args, space, starts, cohort, amp, storage, files, studies.shown(url))
        try:
            worker.work()
        finally:
            found = studies.all_studies(args.study, storage)
            report.write_tables(files, found)
            say(f"this worker: {counted(worker.trials, 'trial')} in {time.monotonic() - worker.begun:.1f} s, of which "
                f"{worker.training_seconds:.1f} s were training")
        if found:
            report.write_report(files.report, "Fine-tuning search" if label else "Hyperparameter search", found)
    except StorageInternalError as error:
        raise InputError(f"--storage {studies.shown(url)}: {text.first_line(error.__cause__ or error)}") from None
    return print_summary(args, worker, files)


class Worker:
    """One process's work on the studies.

    Parameters
    ----------
    args : Namespace
        Of arguments.search_parser.
    space : dict
    starts : dict
        Split -> train.py's arguments.
    cohort : Cohort
    amp : torch.dtype or None
    storage : optuna.storages.RDBStorage
    files : Files
    where : str
        The storage as messages name it.
    """

    def __init__(self, args, space, starts, cohort, amp, storage, files, where):
        self.args, self.space, self.starts, self.cohort, self.amp = args, space, starts, cohort, amp
        self.storage, self.files, self.where, self.split_trials = storage, files, where, None
        self.studies = {split: optuna.create_study(
            study_name=f"{args.study}_split{split}", storage=storage, direction="maximize", load_if_exists=True,
            sampler=studies.build_sampler(args.sampler, (args.seed, split)),
            pruner=studies.build_pruner(args.pruner, own.nepochs)) for split, own in starts.items()}
        self.begun, self.trials, self.training_seconds, self.seen = time.monotonic(), 0, 0.0, {}
        self.deadline = self.begun + (args.timeout or math.inf)
        self.ended = None  # the trial whose objective came to its end

    def work(self) -> None:
        """Run trials; where none is left to take but others run elsewhere, wait for their end."""
        for split, study in reversed(self.studies.items()):  # the first at the end: its images are wanted next
            if study.user_attrs or study.get_trials(deepcopy=False):  # refused now, though none may be left to run
                self.split_trials_of(split, study)
        while self.unfinished() and time.monotonic() <= self.deadline:
            taking = [(split, study) for split, study in self.studies.items() if self.missing(study, TAKEN) > 0]
            for split, study in taking:
                if time.monotonic() <= self.deadline:
                    self.run_trials(split, study)
            if not taking:
                self.wait()

    def unfinished(self) -> list[int]:
        """The splits whose studies lack finished trials."""
        return [split for split, study in self.studies.items() if self.missing(study, FINISHED) > 0]

    def missing(self, study: optuna.Study, states: tuple) -> int:
        """How many trials the study lacks, those in `states` counted as there."""
        return self.args.trials - len(study.get_trials(deepcopy=False, states=states))

    def run_trials(self, split: int, study: optuna.Study) -> None:
        """Run trials of a study until it has --trials finished or running ones, or the time is over."""
        split_trials = self.split_trials_of(split, study)

        def after_trial(study, trial):
            report.write_results(self.files.results(split), study)
            if received:
                study.stop()

        with deferred_signals() as received:
            try:
                study.optimize(lambda trial: self.objective(trial, study, split_trials, received), catch=(Surplus,),
                               timeout=max(0.0, self.deadline - time.monotonic()),
                               callbacks=[optuna.study.MaxTrialsCallback(self.args.trials, TAKEN), after_trial])
            except (UpdateFinishedTrialError, ValueError):  # of Optuna, when it stores the end of such a trial
                if self.ended is None:
                    raise
                say(f"split {split} trial {self.ended}: another worker has taken it over: this one was silent for "
                    f"{studies.GRACE * self.args.heartbeat} s")
        if received:
            signal.raise_signal(received[0])

    def split_trials_of(self, split: int, study: optuna.Study) -> SplitTrials:
        """The SplitTrials of a split; the last one is kept."""
        if self.split_trials is None or self.split_trials.images.split != split:
            self.split_trials, own = None, self.starts[split]  # free the memory of the last one first
            images = self.cohort.split_images(split, arguments.image_size(own.image_size),
                                              **arguments.pick(own, "margin", "pool", "crop_bodies", "norm"))
            self.split_trials = SplitTrials(own, self.space, images, self.amp)
            settings = self.split_trials.settings()
            settings["arguments"]["heartbeat"] = self.args.heartbeat  # a shorter one would take over trials that run
            studies.agree(study, settings, self.where)
            studies.mark(study, self.split_trials.images.table)
        return self.split_trials

    def objective(self, trial: optuna.Trial, study: optuna.Study, split_trials: SplitTrials, received: list) -> float:
        """Train a trial -> the validation AUC of the epoch that it keeps.

        A signal in `received` interrupts it; its parameters are then queued again.
        """
        def check():
            if received:
                raise KeyboardInterrupt

        begun, split, reason, self.ended = time.perf_counter(), split_trials.images.split, "", None
        refuse_surplus(trial, study, self.args.trials)
        values = suggest(trial, split_trials.space, split_trials.args)
        training_begun = time.perf_counter()
        try:
            check()
            state = split_trials.train(params.with_values(split_trials.args, values), trial, check)
        except (optuna.TrialPruned, NotFinite, *IMPOSSIBLE) as pruned:
            reason = text.first_line(pruned)
        except KeyboardInterrupt:
            trial.set_user_attr("reason", "interrupted")
            say(f"split {split} trial {trial.number}: interrupted; queued to be repeated")
            studies.again(study, study.get_trials()[trial.number], None)
            raise
        except UpdateFinishedTrialError:
            self.ended = trial.number
            raise
        except Exception as error:
            reason = f"{OUT_OF_MEMORY if is_out_of_memory(error) else type(error).__name__}: {text.first_line(error)}"
            if not is_out_of_memory(error):
                trial.set_user_attr("reason", reason)
                if isinstance(error, InputError):
                    raise InputError(f"split {split} trial {trial.number} ({params.listed(values)}): {error}") from None
                raise
        if reason.startswith(OUT_OF_MEMORY):  # not above, where the error still refers to what filled it
            split_trials.free_memory()
        self.ended, self.trials, ended = trial.number, self.trials + 1, time.perf_counter()
        self.training_seconds += ended - training_begun
        outcome = {"training_seconds": round(ended - training_begun, 3), "seconds": round(ended - begun, 3)}
        outcome |= {"reason": reason} if reason else {"kept_epoch": state.best["epoch"]}
        for name, value in outcome.items():
            trial.set_user_attr(name, value)
        said = f"pruned: {reason}" if reason else f"AUC {state.best['value']:.4f} in epoch {state.best['epoch']}"
        say(f"split {split} trial {trial.number}: {said}; {outcome['seconds']:.1f} s; {params.listed(values)}")
        if reason:
            raise optuna.TrialPruned(reason)
        return state.best["value"]

    def wait(self) -> None:
        """Wait for trials that run elsewhere; those of dead workers fail, and are queued again."""
        running = [(split, trial) for split, study in self.studies.items()
                   for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
        grace = studies.GRACE * self.args.heartbeat
        if running and not self.seen:
            names = ", ".join(f"split {split} trial {trial.number}" for split, trial in running)
            say(f"waiting for trials of other workers: {names}; one is taken over if its worker is silent {grace} s")
        time.sleep(POLL_SECONDS)
        for split, trial in running:
            if time.monotonic() - self.seen.setdefault(trial._trial_id, time.monotonic()) > grace:
                self.storage.record_heartbeat(trial._trial_id)  # its worker may have died before the first one
                self.seen[trial._trial_id] = math.inf  # once
            optuna.storages.fail_stale_trials(self.studies[split])


class Surplus(Exception):
    """Another worker took the last trial at the same moment."""


def refuse_surplus(trial: optuna.Trial, study: optuna.Study, trials: int) -> None:
    """Raise Surplus where the study has its `trials` without this one: the first of them that did not fail."""
    earlier = [each for each in study.get_trials(deepcopy=False)[:trial.number] if each.state != TrialState.FAIL]
    if len(earlier) >= trials:
        trial.set_user_attr("reason", "one too many: another worker took the last one at the same moment")
        raise Surplus


def print_summary(args: Namespace, worker: Worker, files: report.Files) -> int | None:
    """Print the studies as a table -> the exit code."""
    best = {split: report.best_trials(study)[:1] for split, study in worker.studies.items()}
    say(f"{'split':>5} {'best AUC':>8} {'trial':>5}  " + " ".join(f"{state.name.lower():>8}" for state in TrialState))
    for split, study in worker.studies.items():
        counts = Counter(trial.state for trial in study.get_trials(deepcopy=False))
        found = f"{best[split][0].value:8.4f} {best[split][0].number:5}" if best[split] else f"{'none':>8} {'':5}"
        say(f"{split:5} {found}  " + " ".join(f"{counts[state]:8}" for state in TrialState))
    if worker.unfinished():
        say(f"--timeout {args.timeout:g} s has passed: the same command continues to {counted(args.trials, 'trial')} "
            "per split")
    if without := [split for split in best if not best[split]]:
        say(f"error: no complete trial of split {', '.join(map(str, without))}" +
            f": reasons are in {files.report}" * files.report.exists())
    if winners := [split for split in best if best[split]]:
        more = ("--images", args.images) * bool(args.images) + ("--allow_leakage",) * args.allow_leakage
        words = "--params", files.summary, "--split_index", winners[0], "--data", args.data, *more, "--output"
        output = files.folder / "tuned" if checkpoints_in(files.folder) else args.output  # not into runs of before
        say(f"to train the best trial: python train.py {shlex.join(map(str, (*words, output)))}")
    made = [path.name for path in (files.summary, files.report) if path.exists()]  # none where no trial has begun
    say(f"wrote {files.results('S')}, {', '.join(made)}; " * bool(made) + f"storage {worker.where}")
    return arguments.EXIT_SOME_FAILED if without else None
