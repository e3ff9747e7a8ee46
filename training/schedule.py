"""The learning rate over a run."""
import numpy as np
import torch

from common.files import InputError
from common.text import counted

OF_STEPS = ("total_steps", "_schedule_phases")  # of OneCycleLR, what follows from the number of steps


class NoSchedule(InputError):
    """The arguments give no schedule."""


class Schedule:
    """The learning rate over a run: `step_batch` after every step, `step_epoch` after every epoch.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its learning rate is the highest.
    steps : int
        Steps of an epoch.
    nepochs : int
        Epochs of the run, at most.
    lr_schedule : {"step", "plateau", "cosine", "onecycle", "none"}
        onecycle also takes the beta1 of Adam and AdamW from 0.95 to 0.85 and back (torch's OneCycleLR, after Smith and
        Topin 2019, https://arxiv.org/abs/1708.07120); the momentum of SGD stays as it was asked for.
    lr_anneal : int
        Epochs between two steps of "step".
    warmup_epochs : int
        Epochs of a linear rise at the start.

    Raises
    ------
    NoSchedule
        A warm-up that onecycle cannot take.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int, nepochs: int, lr_schedule: str = "step",
                 lr_anneal: int = 15, warmup_epochs: int = 0):
        schedulers, warmup = torch.optim.lr_scheduler, warmup_epochs * steps
        self.steps, self.per_epoch = steps, None
        if lr_schedule == "onecycle":  # has a warm-up of its own
            if warmup_epochs and not 1 < warmup < nepochs * steps:
                raise NoSchedule(f"--warmup_epochs {warmup_epochs}: onecycle needs a warm-up of two steps or more that "
                                 f"ends before its {counted(nepochs, 'epoch')} of {counted(steps, 'step')}; 0 is 30 % "
                                 "of all")
            self.per_batch = schedulers.OneCycleLR(optimizer, optimizer.defaults["lr"], total_steps=nepochs * steps,
                                                   pct_start=warmup_epochs / nepochs if warmup_epochs else 0.3,
                                                   cycle_momentum="betas" in optimizer.defaults)
            return
        if lr_schedule == "plateau":
            self.per_epoch = schedulers.ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=1, cooldown=1,
                                                          min_lr=1e-5)
            self.per_batch = schedulers.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1) if warmup > 1 else None
            return

        def factor(step):  # of the learning rate, for the step that comes
            if step < warmup:
                return (step + 1) / warmup
            if lr_schedule == "step":
                return 0.1 ** (step // steps // lr_anneal)
            if lr_schedule == "cosine":
                return 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, nepochs * steps - warmup)))
            return 1.0

        self.per_batch = schedulers.LambdaLR(optimizer, factor)

    def step_batch(self) -> None:
        if self.per_batch:
            self.per_batch.step()

    def step_epoch(self, value: float) -> None:
        """`value`: what --lr_schedule plateau watches."""
        if self.per_epoch:
            self.per_epoch.step(value)

    def state_dict(self) -> dict:
        return {name: each.state_dict() for name in ("per_epoch", "per_batch") if (each := getattr(self, name))}

    def load_state_dict(self, state: dict, epoch: int | None = None) -> None:
        """`epoch`: epochs have another number of steps than before; stand at the first step of this one."""
        if self.per_epoch:
            self.per_epoch.load_state_dict(state["per_epoch"])
        if not self.per_batch:
            return
        own = {name: value for name, value in self.per_batch.state_dict().items() if name in OF_STEPS}
        self.per_batch.load_state_dict(state["per_batch"])
        if epoch is not None and not self.per_epoch:  # a warm-up before plateau goes on in steps as before
            vars(self.per_batch).update(own, last_epoch=(epoch - 1) * self.steps - 1, _step_count=2)
            self.per_batch.step()
