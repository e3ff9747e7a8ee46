"""The learning rate over a run."""
import numpy as np
import torch


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
    lr_anneal : int
        Epochs between two steps of "step".
    warmup_epochs : int
        Epochs of a linear rise at the start.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int, nepochs: int, lr_schedule: str = "step",
                 lr_anneal: int = 15, warmup_epochs: int = 0):
        schedulers, warmup = torch.optim.lr_scheduler, warmup_epochs * steps
        self.per_epoch = None
        if lr_schedule == "onecycle":  # has a warm-up of its own
            share = warmup_epochs / nepochs if warmup_epochs else 0.3
            self.per_batch = schedulers.OneCycleLR(optimizer, optimizer.defaults["lr"], total_steps=nepochs * steps,
                                                   pct_start=share)
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
        return {name: each.state_dict() for name, each in vars(self).items() if each}

    def load_state_dict(self, state: dict) -> None:
        for name, each in vars(self).items():
            if each:
                each.load_state_dict(state[name])
