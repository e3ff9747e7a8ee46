"""One training epoch, evaluation, and the loop around them, which may be stopped at any moment."""
import contextlib
import signal
import time
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import nn

from common.files import InputError, progress
from dataset import NetworkInput
from training import distributed
from training.batches import batch_indices, epoch_order, step_seed
from training.device import autocast
from utils import Dropout, EarlyStopping, set_train_mode

BAR_SECONDS = 1.0  # between two looks at loss and AUC for the progress bar


@dataclass
class Trainer:
    """Everything that training changes, and what it is given.

    Attributes:
        network: the model as it is called in training (parallel.wrap); the model itself with one process.
        amp: torch.bfloat16, torch.float16 or None (float32).
        scaler: torch.amp.GradScaler, which scales the loss for float16 and does nothing for the others.
        ema: utils.build_ema's copy, which is validated and kept in the model's stead, or None.
    """
    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: object
    stopper: EarlyStopping
    given: NetworkInput
    amp: torch.dtype | None
    scaler: torch.amp.GradScaler
    ema: nn.Module | None = None

    def kept(self):
        """The model that is validated and kept."""
        return self.ema.module if self.ema else self.model

    def checkpoint(self):
        """LARS's keys, and the input."""
        return {"state_dict": self.kept().state_dict(), "optimizer": self.optimizer.state_dict(),
                "lr_scheduler": self.schedule.state_dict(), "early_stopping": self.stopper.state_dict(),
                "input": asdict(self.given)}

    def state_dict(self):
        """`checkpoint` and what else it takes to go on."""
        return self.checkpoint() | {"state_dict": self.model.state_dict(), "scaler": self.scaler.state_dict(),
                                    "ema": self.ema.state_dict() if self.ema else None}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["lr_scheduler"])
        self.stopper.load_state_dict(state["early_stopping"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])


@dataclass
class Position:
    """Where a run stands: the epoch that is trained, its batches done and their outputs, the log, the best epoch."""
    epoch: int = 1
    batches: int = 0
    outputs: torch.Tensor | None = None
    log: list = field(default_factory=list)
    best: dict = field(default_factory=lambda: {"epoch": 0, "value": float("-inf"), "auc": float("nan")})


class NotFinite(InputError):
    """The loss became infinite or NaN."""


class Interrupted(Exception):
    """A signal came: the run's state is to be saved."""




# ---------------------------------------------------------------- one pass

def train_one_epoch(trainer, feed, task, order, seed, batch_size, position=None, after_batch=None):
    """One pass over the images `order` in training mode.

    Args:
        feed (feed.Images | feed.Features): where the batches come from.
        task (Binary): the loss.
        order: (n,) int array, the epoch's images in their order.
        seed (tuple of int): of the epoch; placement, augmentation and dropout depend on it alone. Its last number is
            the epoch.
        position (Position): where to begin, for an epoch that was stopped in its middle.
        after_batch: called with (batches done, outputs so far of this process).

    Returns:
        (n, task.columns) float32 tensor, the outputs of the training pass itself.
    """
    position = position or Position()
    outputs = torch.zeros(len(order), task.columns, device=feed.device)
    batches = batch_indices(len(order), batch_size)
    if position.batches and distributed.is_main():
        outputs.copy_(position.outputs)
    if position.batches < len(batches):
        feed.begin(order, seed)
    set_train_mode(trainer.model)
    dropouts = [module for module in trainer.model.modules() if isinstance(module, Dropout)]
    looked, seen = time.monotonic(), []
    with progress(None, f"epoch {seed[-1]}", "image", len(order)) as bar:
        for number, positions in list(enumerate(batches))[position.batches:]:
            mine = distributed.share(len(positions))
            here = positions[mine]
            for module in dropouts:
                module.draw(step_seed(seed, positions[0]), len(positions), mine, feed.device)
            x = feed.batch(positions, mine)
            trainer.optimizer.zero_grad(set_to_none=True)
            with autocast(feed.device, trainer.amp):
                output = trainer.network(_channels_last(x), feed.start)
            output = output.to(torch.promote_types(output.dtype, torch.float32))
            # every process's gradient is averaged: this makes it that of the mean over the whole batch
            loss = task.loss(output, order[here]).sum() * (distributed.world() / len(positions))
            trainer.scaler.scale(loss).backward()
            trainer.scaler.step(trainer.optimizer)
            trainer.scaler.update()
            trainer.schedule.step_batch()
            if trainer.ema:
                trainer.ema.update_parameters(trainer.model)
            outputs[torch.as_tensor(here, device=outputs.device)] = output.detach().to(outputs)
            seen.append(here)
            bar.update(len(positions))
            if time.monotonic() - looked > BAR_SECONDS:
                bar.set_postfix(_so_far(task, outputs, order, np.concatenate(seen)), refresh=False)
                looked = time.monotonic()
            if after_batch:
                after_batch(number + 1, outputs)
    return distributed.total(outputs).cpu()


@torch.inference_mode()
def evaluate(model, feed, index, batch_size, amp, description="validation", check=None):
    """The images `index` in the middle of the frame, in evaluation mode; each once, whatever the number of processes.

    Args:
        check: called after every batch; may raise.

    Returns:
        (n, columns) float32 outputs and (n, 512) float32 features, NumPy.
    """
    model.eval()
    feed.prepare(index)
    results = None
    mine = np.arange(len(index))[distributed.share(len(index))]
    with progress(None, description, "image", len(mine)) as bar:
        for positions in batch_indices(len(mine), batch_size) if len(mine) else ():
            here = mine[positions]
            x = feed.middle(index[here])
            with autocast(feed.device, amp):
                embedded, output = model.outputs(_channels_last(x), feed.start)
            if results is None:
                results = [torch.zeros(len(index), t.shape[1], device=t.device) for t in (output, embedded)]
            for result, t in zip(results, (output, embedded), strict=True):
                result[torch.as_tensor(here, device=t.device)] = t.float()
            bar.update(len(positions))
            if check:
                check()
    return [distributed.total(result).cpu().numpy() for result in results]


def _channels_last(x):
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _so_far(task, outputs, order, seen):
    """Loss and AUC of the epoch's places `seen`, for the progress bar."""
    rows = outputs[torch.as_tensor(seen, device=outputs.device)]
    shown = {"loss": f"{task.loss(rows, order[seen]).mean().item():.3f}"}
    if len(set(task.y_true[order[seen]])) == 2 and rows.isfinite().all():
        shown["AUC"] = f"{task.metrics(rows.cpu().numpy(), order[seen])['auc']:.3f}"
    return shown


# ---------------------------------------------------------------- the loop

def fit(trainer, feed, task, sets, args, seed, recorder, position):
    """Train until --nepochs or early stopping; the recorder keeps the weights of the best validation epoch.

    Args:
        sets (dict): "train" and "val", (n,) int arrays of images.
        args: nepochs, batch_size, oversample, early_stopping, eval_train, checkpoint_minutes, lr.
        seed (tuple of int): of the run.
        recorder: `epoch(position, rows, trainer, improved)` after every epoch, whose rows are {"train" and
            "validation": metrics}; `save(position, trainer)` wherever the run may be stopped; at its end
            `finish(position)` or `interrupted(position)` (record.Recorder writes files).
        position (Position): where to begin; what it is in the end is where the run stands.

    Returns:
        str: the reason why it ended.
    """
    saved = time.monotonic()
    with deferred_signals() as received:
        def after_batch(batches, outputs):
            nonlocal saved
            stop, due = distributed.any_true([bool(received), time.monotonic() - saved > 60 * args.checkpoint_minutes],
                                          feed.device)
            if stop or due:
                position.batches, position.outputs = batches, distributed.total(outputs.clone()).cpu()
                recorder.save(position, trainer)
                saved = time.monotonic()
            if stop:
                raise Interrupted

        def check():
            if received and distributed.world() == 1:  # with several, all must stop at the same place: after a batch
                recorder.save(position, trainer)
                raise Interrupted

        feed.check = check
        ended = None
        with contextlib.suppress(Interrupted):
            while not (ended := why_ended(position, trainer.stopper, args, task)):
                rows = run_epoch(trainer, feed, task, sets, args, (*seed, position.epoch), position, after_batch, check)
                end_epoch(position, rows, trainer, task, recorder)
                saved = time.monotonic()
                if distributed.any_true([bool(received)], feed.device)[0] and position.epoch <= args.nepochs:
                    raise Interrupted
            recorder.finish(position)
    if received or not ended:
        recorder.interrupted(position)
        signal.raise_signal(received[0] if received else signal.SIGTERM)  # none here: another process had it
        raise KeyboardInterrupt
    return ended


def why_ended(position, stopper, args, task):
    """The reason to stop training, or None."""
    if args.early_stopping and stopper.waited >= stopper.patience:
        return f"no better validation {task.select} for {stopper.patience} epochs"
    return f"{args.nepochs} epochs" if position.epoch > args.nepochs else None


def end_epoch(position, rows, trainer, task, recorder):
    """Step schedule and early stopping, log the epoch, hand it to the recorder."""
    value = float(rows["validation"][task.select])
    trainer.schedule.step_epoch(value)
    trainer.stopper.step(value)
    position.log += [(position.epoch, name, key, float(number))
                     for name, each in rows.items() for key, number in each.items()]
    improved = value > position.best["value"]
    if improved:
        position.best = {"epoch": position.epoch, "value": value, "auc": float(rows["validation"]["auc"])}
    position.epoch, position.batches, position.outputs = position.epoch + 1, 0, None
    recorder.epoch(position, rows, trainer, improved)


def run_epoch(trainer, feed, task, sets, args, seed, position, after_batch=None, check=None):
    """Train one epoch, then validate -> {"train" and "validation": dict of loss and the task's metrics}."""
    train, val = sets["train"], sets["val"]
    order = epoch_order(train, task.y_true[train], seed, args.oversample)
    outputs = train_one_epoch(trainer, feed, task, order, seed, args.batch_size, position, after_batch).numpy()
    position.batches, position.outputs = len(batch_indices(len(order), args.batch_size)), torch.from_numpy(outputs)
    if args.eval_train:
        order = train
        outputs, _ = evaluate(trainer.kept(), feed, train, args.batch_size, trainer.amp, "training set", check)
    val_outputs, _ = evaluate(trainer.kept(), feed, val, args.batch_size, trainer.amp, check=check)
    if not (np.isfinite(outputs).all() and np.isfinite(val_outputs).all()):
        raise NotFinite(f"the loss is not finite in epoch {seed[-1]}; lower --lr {args.lr}")
    rows = {}
    for name, out, index in (("train", outputs, order), ("validation", val_outputs, val)):
        loss = task.loss(torch.from_numpy(out).to(feed.device), index).cpu().double().mean().item()
        rows[name] = {"loss": loss} | task.metrics(out, index)
    return rows


@contextlib.contextmanager
def deferred_signals():
    """Within: a first SIGINT or SIGTERM is only put on the list that this yields; a second one takes effect at once.

    Left by an exception, it takes effect then: whoever handles the exception shall not go on.
    """
    received, handlers = [], {}

    def note(signum, frame):
        received.append(signum)
        if len(received) > 1:
            signal.signal(signum, handlers[signum])
            signal.raise_signal(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        handlers[signum] = signal.signal(signum, note)
    try:
        yield received
    except BaseException:
        _restore(handlers)
        if received:
            signal.raise_signal(received[0])
        raise
    finally:
        _restore(handlers)


def _restore(handlers):
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
