"""One training epoch, and evaluation."""
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from common.files import progress
from common.text import some
from training import distributed
from training.batches import Batch, Outputs, Pass
from training.device import autocast
from training.objectives import Binary
from training.state import TrainState
from utils import Dropout, ResNet34, set_train_mode

BAR_SECONDS = 1.0  # between two looks at loss and AUC for the progress bar


def train_one_epoch(network: nn.Module, objective: Binary, optimizer: torch.optim.Optimizer, batches: Pass,
                    state: TrainState, after_batch: Callable[[], None] = lambda: None) -> Outputs:
    """One pass over the training images.

    Parameters
    ----------
    network : nn.Module
        `distributed.wrap` of state.model: the model itself, unless there are several processes.
    objective : training.objectives.Binary
        The loss.
    batches : Pass
        Over the images of the epoch, without the first `state.batches` batches, which are done.
    state : TrainState
        Its schedule, scaler and moving average are stepped; `batches` and `outputs` are kept up to date.
    after_batch : callable, optional
        Called after every batch; may raise to stop.

    Returns
    -------
    Outputs
        The logits that the training steps gave: of augmented images, by weights that changed meanwhile.
    """
    model, device, n = state.model, objective.target.device, len(batches.index)
    outputs = torch.zeros(n, objective.columns, device=device)
    if state.outputs is not None and distributed.is_main():
        outputs.copy_(state.outputs)
    state.outputs = outputs
    set_train_mode(model)
    dropouts = [module for module in model.modules() if isinstance(module, Dropout)]
    looked, seen = time.monotonic(), []
    with progress(None, f"epoch {state.epoch}" + f"/{state.nepochs}" * bool(state.nepochs), "image", n) as bar:
        for batch in batches.batches:
            for module in dropouts:
                module.draw(batch.seed, batch.size, batch.share, device)
            optimizer.zero_grad(set_to_none=True)
            with autocast(batch.x, state.amp):
                output = network(_channels_last(batch.x), batch.start, batch.boxes)
            output = output.to(torch.promote_types(output.dtype, torch.float32))
            # every process's gradient is averaged: this makes it that of the mean over the whole batch
            loss = objective.loss(output, batch.index).sum() * (distributed.world() / batch.size)
            state.scaler.scale(loss).backward()
            state.scaler.step(optimizer)
            state.scaler.update()
            state.lr = optimizer.param_groups[0]["lr"]  # of this step
            state.schedule.step_batch()
            if state.ema:
                state.ema.update_parameters(model)
            outputs[torch.as_tensor(batch.places, device=device)] = output.detach().to(outputs)
            state.batches += 1
            seen.append(batch)
            bar.update(batch.size)
            if time.monotonic() - looked > BAR_SECONDS:
                if distributed.world() == 1:  # several must all stop at the same place
                    check_finite(outputs, batches.index, seen, objective, state)
                bar.set_postfix(_so_far(objective, outputs, seen), refresh=False)
                looked = time.monotonic()
            after_batch()
    outputs = distributed.total(outputs)
    check_finite(outputs, batches.index, seen, objective, state)
    return Outputs(batches.index, outputs.cpu().numpy())


def check_finite(outputs: torch.Tensor, order: np.ndarray, seen: list[Batch], objective: Binary,
                 state: TrainState) -> None:
    """Raise NotFinite, naming the batch and its images, where outputs of the batches `seen` are not finite.

    `outputs` are in the order of the images `order`. Checkpoints on the disk stay as they are.
    """
    if outputs.isfinite().all():
        return
    bad = np.flatnonzero(~outputs.isfinite().all(1).cpu().numpy())[0]
    for number, batch in enumerate(seen, state.batches - len(seen) + 1):
        first = batch.places[0] - batch.share.start
        if first <= bad < first + batch.size:
            files = objective.files[order[first:first + batch.size]]
            raise state.not_finite(f" from batch {number} on ({some(files, 3)})")
    raise state.not_finite()


@torch.inference_mode()
def evaluate(model: ResNet34, batches: Pass, amp: torch.dtype | None = None, description: str = "validation",
             check: Callable[[], None] = lambda: None) -> Outputs:
    """One pass over images in evaluation mode; with several processes each image is evaluated by one of them.

    Parameters
    ----------
    amp : torch.dtype or None
        Autocast to bfloat16 or float16; None: float32.
    check : callable, optional
        Called after every batch; may raise to stop.
    """
    model.eval()
    results, n = None, len(batches.index)
    with progress(None, description, "image", n) as bar:
        for batch in batches.batches:
            with autocast(batch.x, amp):
                embedded, output = model.outputs(_channels_last(batch.x), batch.start, batch.boxes)
            if results is None:
                results = [torch.zeros(n, t.shape[1], device=t.device) for t in (output, embedded)]
            for result, t in zip(results, (output, embedded), strict=True):
                result[torch.as_tensor(batch.places, device=t.device)] = t.float()
            bar.update(len(batch.x))
            check()
    return Outputs(batches.index, *(distributed.total(result).cpu().numpy() for result in results))


def _channels_last(x):
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _so_far(objective, outputs, seen):
    """Loss and AUC of this process's batches `seen`, for the progress bar."""
    places, index = (np.concatenate([getattr(batch, name) for batch in seen]) for name in ("places", "index"))
    rows = outputs[torch.as_tensor(places, device=outputs.device)]
    shown = {"loss": f"{objective.loss(rows, index).mean().item():.3f}"}
    if len(set(objective.y_true[index])) == 2 and rows.isfinite().all():
        shown["AUC"] = f"{objective.metrics(rows.cpu().numpy(), index)['auc']:.3f}"
    return shown
