"""What a search's trials train: one network a trial, as train.py --run 1 would with the same arguments."""
import copy
import gc
import itertools
from argparse import Namespace
from collections.abc import Callable

import optuna
import torch
from torch import nn

import utils
from common import params
from common.arguments import pick
from common.files import InputError
from common.model_files import checkpoint_sha256, only_checkpoint
from common.recipes import INPUT
from common.settings import stored_args
from common.text import as_text
from dataset import check_augmentation
from inference import prediction
from search.space import fixed_args, worth_keeping
from training.batches import RunBatches, SingleImage, check_batch_size, epoch_order, steps_per_epoch
from training.distributed import say
from training.engine import evaluate, train_one_epoch
from training.images import SplitImages
from training.objectives import Binary
from training.recorder import MAY_CHANGE, NO_FILE, labels_hash
from training.runs import check_start, seed_weights, start_model
from training.state import TrainState, build_ema

IMPOSSIBLE = (utils.NoSchedule, SingleImage)  # arguments that do not go together, or not with the number of images
_WITH_OTHERS = ("batch_size", "oversample", "lr_schedule", "warmup_epochs", "mode")  # which IMPOSSIBLE depends on
RUN = 1  # so that train.py --params with the same --nepochs gives the trial's bits


class SplitTrials:
    """What the trials of one split share: images, initial weights, output of frozen layers.

    Parameters
    ----------
    args : Namespace
        train.py's arguments, of which a trial changes what it draws.
    space : dict
        See search.space.
    images : SplitImages
    amp : torch.dtype or None

    Attributes
    ----------
    space : dict
        The part of it that the frame allows.

    Raises
    ------
    InputError
        Initial weights that cannot be had, or that know the validation scans (`check_start`), an augmentation that the
        frame does not allow, or whatever a trial draws is IMPOSSIBLE.
    """

    def __init__(self, args: Namespace, space: dict, images: SplitImages, amp: torch.dtype | None):
        self.args, self.images, self.amp, self.cache = args, images, amp, {}
        possible = _possible(space.get("augm", [args.augm]), images)
        self.space = space | ({"augm": possible} if "augm" in space else {})
        _check_together(args, space, images)
        check_start(args, images)
        seed_weights(args.seed, images.split, RUN)
        self.features, self.random_state = utils.random_features(), torch.get_rng_state()
        if not args.checkpoint:  # here, so that weights which cannot be had cost no trial
            utils.load_backbone(utils.ResNet34(features=self.features), args.weights)

    def train(self, args: Namespace, trial: optuna.Trial, check: Callable[[], None]) -> TrainState:
        """Train a trial's network.

        Parameters
        ----------
        args : Namespace
            train.py's arguments, with what the trial draws.
        trial : optuna.Trial
            Gets the validation AUC of each epoch.
        check : callable
            Called after every batch; may raise to stop.

        Raises
        ------
        optuna.TrialPruned
            By the pruner.
        NotFinite, NoRoom, OutOfMemoryError, or of IMPOSSIBLE
            The arguments do not work.
        """
        torch.set_rng_state(self.random_state)
        # a backbone that is not trained is shared, not copied
        features = self.features if args.transfer_learning else copy.deepcopy(self.features)
        model = utils.ResNet34(**pick(args, "cls_arch", "hidden", "dropout"), features=features.requires_grad_(True))
        images, device = self.images, self.images.bodies.device
        model = start_model(model, device, images.network_input,
                            **pick(args, "weights", "checkpoint", "transfer_learning", "finetune"))
        objective = Binary(images.table, images.train, device, **pick(args, "balance", "label_smoothing"))
        optimizer = utils.build_optimizer(model.parameters(), **pick(args, "optimizer", "lr", "wd", "momentum"))
        steps = steps_per_epoch(images.train, objective.y_true, **pick(args, "batch_size", "oversample"))
        schedule = utils.Schedule(optimizer, steps,
                                  **pick(args, "nepochs", "lr_schedule", "lr_anneal", "warmup_epochs"))
        state = TrainState(model, optimizer, schedule, utils.EarlyStopping(args.patience), images.network_input,
                           self.amp, build_ema(model, args.ema), keep=args.keep)
        batches = RunBatches(images, model, objective.y_true, (args.seed, images.split, RUN), self.amp,
                             cache=self.cache, check=check,
                             **pick(args, "batch_size", "augm", "oversample", "cached_placements"))
        for epoch in state.epochs(args.nepochs, args.early_stopping):
            train = train_one_epoch(model, objective, optimizer, batches.training(epoch), state, check)
            validation = evaluate(state.kept, batches.validation(), self.amp, check=check)
            state.end_epoch(objective, train, validation)
            logged = {(part, metric): value for _, part, metric, value in state.log}
            trial.report(logged["validation", "auc"], epoch)
            check()
            if epoch < args.nepochs and trial.should_prune():
                raise optuna.TrialPruned(f"by the pruner after epoch {epoch}")
        return state

    def free_memory(self) -> None:
        """Drop the output of frozen layers, and what PyTorch holds but does not use."""
        self.cache.clear()
        gc.collect()
        if self.images.bodies.device.type != "cpu":
            torch.accelerator.empty_cache()

    def settings(self) -> dict:
        """What the study's trials have in common; `fixed` goes into best_params_summary.csv beside the winner's.

        Raises
        ------
        InputError
            The file of --checkpoint or --weights cannot be read.
        """
        args, start, digest = self.args, self.args.checkpoint or self.args.weights, None
        if start not in NO_FILE:
            try:
                digest = checkpoint_sha256(only_checkpoint(start))
            except OSError as error:
                raise InputError(f"{start}: {error.strerror}") from None
        same = {name: value for name, value in stored_args(vars(args)).items()
                if name not in (*MAY_CHANGE, "checkpoint")}
        return {"space": self.space, "arguments": same, "data": self.images.hash,
                "checkpoint": digest if args.checkpoint else None, "weights": None if args.checkpoint else digest,
                "labels_hash": labels_hash(self.images.table, self.images.split),
                "fixed": {name: as_text(value) for name, value in worth_keeping(args).items()}}


def _possible(codes, images):
    """The --augm codes that the frame allows; raises InputError where there is none."""
    refused = {}
    for code in codes:
        try:
            check_augmentation(code, images.network_input.frame)
        except InputError as error:
            refused[code] = error
    if len(refused) == len(codes):
        raise refused[codes[0]]
    if refused:
        say(f"split {images.split}: augm {', '.join(map(str, refused))} left out: {next(iter(refused.values()))}")
    return [code for code in codes if code not in refused]


def _check_together(args, space, images):
    """Raise what is IMPOSSIBLE in every combination of what is drawn; of a range both ends are looked at."""
    drawn = {name: space[name] if isinstance(space[name], list) else [space[name]["low"], space[name]["high"]]
             for name in _WITH_OTHERS if name in space}
    y_true, refused = images.table["target"].to_numpy(), None
    for values in itertools.product(*drawn.values()):
        each = params.with_values(args, dict(zip(drawn, values, strict=True)))
        n = len(epoch_order(images.train, y_true, 0, each.oversample))
        steps = steps_per_epoch(images.train, y_true, **pick(each, "batch_size", "oversample"))
        try:
            if not each.transfer_learning:
                check_batch_size(each.batch_size, n, images.network_input.frame)
            utils.Schedule(torch.optim.SGD([torch.zeros(1)]), steps,
                           **pick(each, "nepochs", "lr_schedule", "lr_anneal", "warmup_epochs"))
            return
        except IMPOSSIBLE as error:
            refused = refused or error
    raise refused


def from_checkpoint(args: Namespace, best: dict) -> Namespace:
    """train.py's arguments that start from a split's checkpoint, with its head, and its input where none is given; of
    `norm` what the checkpoint was trained with, auto, say, which is of this manifest's training split as in train.py.

    Parameters
    ----------
    args : Namespace
        Of arguments.search_parser.
    best : dict
        The split's row of `prediction.best_runs`.

    Raises
    ------
    InputError
        The checkpoint cannot be read, or is not the one that best_run.csv ranks.
    """
    path = best["path"]
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
