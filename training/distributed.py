"""Several training processes as one: which one writes, each one's share of the rows, sums and batch norm over all.

Without torchrun every function acts as for a single process. Backend: nccl between GPUs, gloo between CPUs.
"""
import os
from typing import Any

import numpy as np
import torch
from torch import distributed, nn


def start(device: torch.device) -> torch.device:
    """Join the processes that torchrun started, if it did -> this process's device (a GPU of its own, or `device`)."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def world() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def say(text: str) -> None:
    """Print, in the main process."""
    if is_main():
        print(text, flush=True)


def share(n: int) -> slice:
    """This process's slice of n rows; the slices of all processes hold each row once, in order."""
    if world() == 1:
        return slice(0, n)
    bounds = np.linspace(0, n, world() + 1).round().astype(int)
    return slice(bounds[rank()], bounds[rank() + 1])


def total(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor summed over the processes, in place."""
    if world() > 1:
        distributed.all_reduce(tensor)
    return tensor


def any_true(flags: list[bool], device: torch.device) -> list[bool]:
    """A list of bools -> for each, whether it is True in any process."""
    if world() == 1:
        return flags
    counts = torch.tensor(flags, dtype=torch.int32, device=device)
    return total(counts).bool().tolist()


def from_main(value: Any) -> Any:
    """The main process's value, in every process; any object that can be pickled."""
    if world() == 1:
        return value
    holder = [value]
    distributed.broadcast_object_list(holder, src=0)
    return holder[0]


def wait() -> None:
    if world() > 1:
        distributed.barrier()


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its gradients averaged over the processes; itself where there is one process."""
    if world() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, [device] if device.type == "cuda" else None,
                                               forward_sync_buffers=False)


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Make every batch normalization use the images of all processes; parameter names stay."""
    if world() == 1:
        return model
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SyncBatchNorm  # the same parameters and statistics
    return model


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over the images of all processes, for devices that torch's own SyncBatchNorm refuses: all but CUDA.

    The processes' means and variances are combined as in Chan, Golub and LeVeque (1983, doi:10.2307/2683386), which
    takes no difference of large squares.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, rows, columns) -> the same shape and dtype."""
        if not self.training:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
        own = torch.cat([values.new_full((1,), values.numel() // self.num_features), mean, variance])
        rows = values.new_zeros(world(), len(own)).index_put((torch.tensor([rank()], device=x.device),), own[None])
        rows = _Total.apply(rows)
        count, means, variances = rows[:, :1], rows[:, 1:self.num_features + 1], rows[:, self.num_features + 1:]
        n = count.sum()
        mean = (count * means).sum(0) / n
        variance = (count * (variances + (means - mean).square())).sum(0) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((variance * n / (n - 1)).to(self.running_var), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (values * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(x.dtype)


class _Total(torch.autograd.Function):
    """Sum over the processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx, x):
        return total(x.clone())

    @staticmethod
    def backward(ctx, gradient):
        return total(gradient.clone())
