"""Everything that training changes: what `--resume` needs to go on, and what a checkpoint holds."""
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from common.files import InputError
from common.text import counted
from dataset import NetworkInput
from training.batches import Outputs
from utils import EarlyStopping, ResNet34, Schedule

NOWHERE = {"epoch": 0, "value": float("-inf"), "auc": float("nan")}


def build_ema(model: nn.Module, decay: float | None) -> nn.Module | None:
    """A copy of the model whose weights and batch-norm statistics follow its own: w = decay w + (1 - decay) new; None
    where `decay` is 0 or None.
    """
    if not decay:
        return None
    averaging = torch.optim.swa_utils
    return averaging.AveragedModel(model, multi_avg_fn=averaging.get_ema_multi_avg_fn(decay), use_buffers=True)


class NotFinite(InputError):
    """The loss became infinite or NaN."""


@dataclass
class TrainState:
    """A network in training, and where its run stands.

    Attributes
    ----------
    amp : torch.dtype or None
        bfloat16, float16 or None (float32); the scaler scales the loss for float16 and does nothing for the others.
    ema : nn.Module or None
        `build_ema`'s copy, which is validated and kept in the model's stead.
    compile : bool
        torch.compile the model (not its moving average).
    keep : {"best", "last"}
        Whether the epoch of the best validation is kept, or the last one.
    nepochs, epoch : int
        The epochs of the run, at most, and the one that is trained, from 1.
    batches, outputs : int, tensor or None
        How many of its batches are done, and what this process's share of them gave.
    lr : float
        The learning rate of the last step.
    log : list of (epoch, set, metric, value)
    best : dict
        Epoch, value of what early stopping follows, and validation AUC of the epoch that is kept.
    since : int
        The first epoch on the present data, where the run was begun on others; else 0. What is kept is chosen from then
        on, and logged as `selected`.
    ended : str
        Why the run ended.
    """
    model: ResNet34
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    stopper: EarlyStopping
    network_input: NetworkInput
    amp: torch.dtype | None
    ema: nn.Module | None = None
    compile: bool = False
    keep: str = "best"
    nepochs: int = 0
    epoch: int = 1
    batches: int = 0
    outputs: torch.Tensor | None = None
    lr: float = float("nan")
    log: list = field(default_factory=list)
    best: dict = field(default_factory=lambda: dict(NOWHERE))
    since: int = 0
    ended: str = ""

    def __post_init__(self):
        device = next(self.model.parameters()).device
        if self.compile:  # after the moving average was copied from it
            self.model.outputs = torch.compile(self.model.outputs)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp is torch.float16)

    @property
    def kept(self) -> ResNet34:
        """The model that is validated and kept."""
        return self.ema.module if self.ema else self.model

    def epochs(self, nepochs: int, early_stopping: bool) -> Iterator[int]:
        """The epochs that are left, up to `nepochs` or until early stopping."""
        self.nepochs = nepochs
        while not (stopped := early_stopping and self.stopper.stopped) and self.epoch <= nepochs:
            yield self.epoch
        self.ended = (f"no better validation for {counted(self.stopper.patience, 'epoch')}" if stopped
                      else counted(nepochs, "epoch"))

    def end_epoch(self, objective: Any, train: Outputs, validation: Outputs) -> bool:
        """Log the epoch's loss and metrics, and step schedule and early stopping.

        Parameters
        ----------
        objective : training.objectives.Binary
        train, validation : Outputs

        Returns
        -------
        bool
            Whether this is the epoch to keep so far.

        Raises
        ------
        NotFinite
        """
        rows = {}
        for name, outputs in (("train", train), ("validation", validation)):
            if not np.isfinite(outputs.logits).all():
                raise self.not_finite(" after its last batch")
            logits = torch.from_numpy(outputs.logits).to(objective.target.device)
            rows[name] = ({"loss": objective.mean_loss(logits, outputs.index)}
                          | objective.metrics(outputs.logits, outputs.index))
        value = float(rows["validation"][objective.select])
        if self.epoch == self.since:  # values of before are of other scans or labels
            self.best, self.stopper.best, self.stopper.waited = dict(NOWHERE), None, 0
            if plateau := self.schedule.per_epoch:
                plateau.best, plateau.num_bad_epochs = float("-inf"), 0
            self.log = [row for row in self.log if row[2] != "selected"]
        if self.since:
            rows["validation"]["selected"] = value
        self.schedule.step_epoch(value)
        self.stopper.step(value)
        if self.keep == "last":
            rows["validation"]["selected"] = self.epoch  # for find_best_model.py, as in objectives
        self.log += [(self.epoch, name, key, float(number)) for name, row in rows.items()
                     for key, number in row.items()]
        kept = self.keep == "last" or value > self.best["value"]
        if kept:
            self.best = {"epoch": self.epoch, "value": value, "auc": float(rows["validation"]["auc"])}
        self.epoch, self.batches, self.outputs = self.epoch + 1, 0, None
        return kept

    def not_finite(self, where: str = "") -> NotFinite:
        """The error to raise where the loss is not finite; `where`: at which place of the epoch."""
        remedy = f"lower --lr {self.optimizer.defaults['lr']}" + ", or give --amp off" * (self.amp is torch.float16)
        return NotFinite(f"the loss is not finite in epoch {self.epoch}{where}; {remedy}")

    def checkpoint(self) -> dict:
        """LARS's keys, and the input. Only `state_dict` holds optimizer and schedule, which are two thirds of it."""
        return {"state_dict": self.kept.state_dict(), "optimizer": {}, "lr_scheduler": {},
                "early_stopping": self.stopper.state_dict(), "input": asdict(self.network_input)}

    def state_dict(self) -> dict:
        """`checkpoint` and all else that resuming needs; `outputs` must be those of all processes."""
        position = {name: getattr(self, name) for name in ("epoch", "batches", "outputs", "lr", "log", "best", "since")}
        return self.checkpoint() | {"state_dict": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                                    "lr_scheduler": self.schedule.state_dict(), "scaler": self.scaler.state_dict(),
                                    "ema": self.ema.state_dict() if self.ema else None, "position": position}

    def load_state_dict(self, state: dict, restart_epoch: bool = False, other_data: bool = False) -> None:
        """`restart_epoch`: epochs have other batches than before; an interrupted one starts again, from these weights.
        `other_data`: since the epoch to continue with.
        """
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        if not self.optimizer.param_groups[0].get("fused"):  # an earlier version's: the scaler must unscale gradients
            self.optimizer._step_supports_amp_scaling = False
        self.schedule.load_state_dict(state["lr_scheduler"], state["position"]["epoch"] if restart_epoch else None)
        self.stopper.load_state_dict(state["early_stopping"])
        if state["scaler"]:  # empty unless float16
            self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        for name, value in state["position"].items():
            setattr(self, name, value)
        if restart_epoch:
            self.batches, self.outputs = 0, None
        if other_data:
            self.since = self.epoch
