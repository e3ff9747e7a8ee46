"""ResNet34 for one-channel MIPs, optimizers, schedules, early stopping, checkpoints."""
import functools
import pickle
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import safetensors.torch
import torch
import torchvision
from torch import nn

from common.checkpoint_content import check_content
from common.files import InputError, replace_file
from common.model_files import SUFFIX, check_records, only_checkpoint, read_file, read_header
from common.parameter_names import find_sites, fitting, head_options, network_state, one_channel
from common.renamed import current_args, current_names
from common.text import counted, short, some

FEATURES = 512
LAYER3, LAYER4 = 6, 7  # their indices in ResNet34.features
DEPEND_ON_STEPS = ("total_steps", "_schedule_phases")  # attributes of OneCycleLR


# ---------------------------------------------------------------- the network

class ResNet34(nn.Module):
    """torchvision's ResNet34 with one input channel; the parameters have the names of LARS.

    Parameters
    ----------
    cls_arch : {"simple", "complex"}
        The head: fc = Linear(512, 2), or Linear, ReLU, Dropout, Linear.
    hidden : int
        Units between the two layers of the complex head.
    dropout : float
        Of the complex head.
    features : nn.Sequential, optional
        A `random_features` to take; by default a new one.
    """
    sites: dict | None = None
    site_head: str | None = None

    def __init__(self, cls_arch: str = "simple", hidden: int = 256, dropout: float = 0.5,
                 features: nn.Sequential | None = None):
        super().__init__()
        self.features = random_features() if features is None else features
        if cls_arch == "simple":
            self.fc = nn.Linear(FEATURES, 2)
        else:
            self.fc = nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), Dropout(dropout, hidden),
                                    nn.Linear(hidden, 2))

    def embed(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Images (B, 1, rows, columns), or with `start` the output of features[:start] -> (B, 512), F1..F512."""
        return (self.features[start:] if start else self.features)(x).flatten(1)

    def outputs(self, x: torch.Tensor, start: int = 0,
                boxes: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The arguments of `embed` -> the embedding (B, 512), and the logits (B, 2) of Deauville 1-3 and 4-5.

        `boxes`: where each body lies, of `dataset.eval_batch`; only the grid of SiteResNet34 needs them.
        """
        embedded = self.embed(x, start)
        return embedded, self.fc(embedded)

    def forward(self, x: torch.Tensor, start: int = 0, boxes: torch.Tensor | None = None) -> torch.Tensor:
        return self.outputs(x, start, boxes)[1]


class SiteResNet34(ResNet34):
    """ResNet34 with a second head, fc_loc, for the lesion's site; its logits follow the two of the score.

    Parameters
    ----------
    sites : dict
        Code -> name of the lesion sites, one logit each.
    site_head : {"grid", "linear"}
        `SiteGrid`, from layer2 and layer3; or Linear(512, sites), from the embedding, as in the thesis.
    site_detach : bool
        The site head's gradient does not reach the backbone.
    **options
        Of ResNet34.
    """

    def __init__(self, sites: dict, site_head: str = "grid", site_detach: bool = False, **options):
        super().__init__(**options)
        self.sites, self.site_head, self.site_detach = sites, site_head, site_detach
        self.fc_loc = SiteGrid(len(sites)) if site_head == "grid" else nn.Linear(FEATURES, len(sites))

    def outputs(self, x: torch.Tensor, start: int = 0,
                boxes: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """As ResNet34.outputs, with logits (B, 2 + sites). The grid needs images (`start` 0) and `boxes`."""
        if self.site_head == "grid":
            layer2 = self.features[:LAYER3](x)
            layer3 = self.features[LAYER3](layer2)
            embedded, seen = self.embed(layer3, LAYER4), [layer2, layer3, boxes]
        else:
            embedded = self.embed(x, start)
            seen = [embedded]
        if self.site_detach:
            seen = [each.detach() for each in seen]
        return embedded, torch.cat([self.fc(embedded), self.fc_loc(*seen)], 1)


class SiteGrid(nn.Module):
    """The site of a lesion, from layer2 and layer3 in each field of a grid over the body.

    Both layers are reduced to CHANNELS, averaged over the fields of the grid and added; batch norm, ReLU and a linear
    layer follow. The grid lies over the body's box, since bodies are placed in the frame at random; the embedding, a
    mean over the whole image, does not say where a lesion is.
    """
    CHANNELS, GRID = 32, (20, 12)  # fields of about 5 cm

    def __init__(self, sites: int):
        super().__init__()
        self.layer2 = nn.Conv2d(128, self.CHANNELS, 1, bias=False)
        self.layer3 = nn.Conv2d(256, self.CHANNELS, 1, bias=False)
        self.norm = nn.BatchNorm2d(self.CHANNELS)
        self.linear = nn.Linear(self.CHANNELS * self.GRID[0] * self.GRID[1], sites)

    def forward(self, layer2: torch.Tensor, layer3: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """(B, 128, ...), (B, 256, ...) maps, and (B, 2, 2) `boxes` (`dataset.eval_batch`) -> (B, sites) logits."""
        x = sum(field_means(conv(cells), boxes, self.GRID)
                for conv, cells in ((self.layer2, layer2), (self.layer3, layer3)))
        return self.linear(self.norm(x).relu().flatten(1))


def field_means(cells: torch.Tensor, boxes: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The mean of a map (B, C, H, W) over each field of a grid over each body's box -> (B, C, *grid).

    Cells are weighted by how much of them lies in the field. `boxes`: (B, 2, 2) float32, of `dataset.eval_batch`.
    """
    def shares(ends, fields, count):  # (B, fields, count)
        first, end = (ends * count).unbind(1)
        edges = first[:, None] + (end - first)[:, None] * torch.linspace(0, 1, fields + 1, device=ends.device)
        below = (edges[:, :, None] - torch.arange(count, device=ends.device)).clamp(0, 1)  # of each cell, each edge
        return (below.diff(dim=1) * fields / (end - first)[:, None, None]).to(cells.dtype)

    rows, columns = boxes.unbind(1)
    return torch.einsum("bki,bcij,blj->bckl", shares(rows, grid[0], cells.shape[2]), cells,
                        shares(columns, grid[1], cells.shape[3]))


class Float32Conv2d(nn.Conv2d):
    """A convolution that in evaluation runs in float32 even under autocast: SUV rounded to bfloat16 cost most of the
    precision. In training it follows autocast: rounding errors average out.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


def random_features() -> nn.Sequential:
    """ResNet34 but for its last layer, with random weights: the `features` of ResNet34."""
    net = torchvision.models.resnet34(weights=None)
    net.conv1 = Float32Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(*list(net.children())[:-1])


class Dropout(nn.Dropout):
    """Dropout whose mask is drawn for the whole batch, so that it does not depend on the number of processes.

    Parameters
    ----------
    p : float
        Share that is dropped.
    units : int
        Columns of its (B, units) input.
    """

    def __init__(self, p: float, units: int):
        super().__init__(p)
        self.units, self.mask = units, None

    def draw(self, seed: int, size: int, share: slice, device: torch.device) -> None:
        """Draw the mask of the next batch of `size` images, and keep the rows of this process's `share`."""
        generator = torch.Generator().manual_seed(seed)
        kept = torch.rand((size, self.units), generator=generator)[share] >= self.p
        self.mask = (kept / (1 - self.p)).to(device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.mask is None:
            return super().forward(x)
        return x * self.mask.to(x)


def load_backbone(model: ResNet34, weights: str) -> None:
    """Start `model.features` from "imagenet", "none" (random) or the file of a torchvision ResNet34's state_dict.

    The first convolution's three colour channels are averaged to one. Raises InputError where it cannot be done.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        try:
            state = torchvision.models.ResNet34_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        except (URLError, OSError, RuntimeError) as error:
            raise InputError(f"ImageNet weights cannot be downloaded ({error}); use --weights none, or --weights PATH "
                             "with a file of torchvision's ResNet34 weights") from None
    else:
        state = read_checkpoint(weights)
    state = one_channel(network_state(state, f"--weights {weights}"))
    taken = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    try:
        model.features.load_state_dict(taken)
    except RuntimeError as error:
        raise InputError(f"--weights {weights}: not a state_dict of torchvision's ResNet34: {short(error)}") from None


def freeze(model: ResNet34, transfer_learning: bool = False, finetune: bool = False) -> None:
    """Leave only the head (transfer_learning) or layer4 and the head (finetune) to be trained."""
    if transfer_learning or finetune:
        model.features.requires_grad_(False)
    if finetune:
        model.features[LAYER4].requires_grad_(True)


def set_train_mode(model: ResNet34) -> None:
    """Training mode, but evaluation mode for what is frozen: its batch-norm statistics stay as they are."""
    model.train()
    for module in model.features:
        if not any(p.requires_grad for p in module.parameters()):
            module.eval()


def first_trained(model: ResNet34) -> int:
    """Index of the first layer of `model.features` that is trained: the output of those below it can be cached.

    0 where the site head reads intermediate layers, which a cache does not hold.
    """
    if model.site_head == "grid":
        return 0
    trained = (i for i, module in enumerate(model.features) if any(p.requires_grad for p in module.parameters()))
    return next(trained, len(model.features))


# ---------------------------------------------------------------- optimizers, schedules, early stopping

def build_optimizer(parameters: Iterable[nn.Parameter], optimizer: str = "sgd", lr: float = 0.001, wd: float = 0.0001,
                    momentum: float = 0.9) -> torch.optim.Optimizer:
    """sgd (with Nesterov momentum), adam or adamw over the parameters that are trained; wd: weight decay.

    Fused kernels halve the time of AdamW's step. An optimizer that loads the state of one without them does without.
    """
    parameters = [p for p in parameters if p.requires_grad]
    if optimizer == "sgd":
        return torch.optim.SGD(parameters, lr, momentum, weight_decay=wd, nesterov=momentum > 0, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    return kind(parameters, lr, weight_decay=wd, fused=True)


class NoSchedule(InputError):
    """onecycle cannot have this warm-up."""


class Schedule:
    """The learning rate over a run: `step_batch` after every step, `step_epoch` after every epoch.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its learning rate is the maximum of the schedule.
    steps : int
        Steps of an epoch.
    nepochs : int
        Epochs of the run, at most.
    lr_schedule : {"step", "plateau", "cosine", "onecycle", "none"}
        onecycle (Smith and Topin 2019, https://arxiv.org/abs/1708.07120) also cycles beta1 of Adam and AdamW between
        0.95 and 0.85, but not SGD's momentum.
    lr_anneal : int
        Epochs after which "step" divides the learning rate by 10.
    warmup_epochs : int
        Epochs of a linear rise at the start.
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

    def step_epoch(self, value: float) -> None:  # what plateau watches
        if self.per_epoch:
            self.per_epoch.step(value)

    def state_dict(self) -> dict:
        return {name: each.state_dict() for name in ("per_epoch", "per_batch") if (each := getattr(self, name))}

    def load_state_dict(self, state: dict, epoch: int | None = None) -> None:
        """`epoch`: where an epoch has another number of steps than before, the one to continue with, at its first step.
        """
        own = {name: value for name, value in vars(self.per_batch or self).items() if name in DEPEND_ON_STEPS}
        for name, stored in state.items():
            getattr(self, name).load_state_dict(stored)
        if epoch is not None and not self.per_epoch:  # a warm-up before plateau goes on in steps as before
            vars(self.per_batch).update(own, last_epoch=(epoch - 1) * self.steps - 1, _step_count=2)
            self.per_batch.step()


class EarlyStopping:
    """`stopped` after `patience` epochs that do not exceed the best value by more than `min_delta`."""

    def __init__(self, patience: int = 5, min_delta: float = 0.001):
        self.patience, self.min_delta, self.best, self.waited = patience, min_delta, None, 0

    @property
    def stopped(self) -> bool:
        return self.waited >= self.patience

    def step(self, value: float) -> bool:
        """Take the epoch's value of the metric that is followed; True where training should stop."""
        if self.best is None or value > self.best + self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.stopped

    def state_dict(self) -> dict:
        return dict(vars(self))

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)


# ---------------------------------------------------------------- checkpoints

def save_checkpoint(path: str | Path, content: dict) -> None:
    """torch.save, whole or not at all."""
    with replace_file(path, "wb") as file:
        torch.save(content, file)


def read_checkpoint(path: str | Path) -> dict:
    """A checkpoint's content on the CPU, read as data only: tensors, numbers and texts (`weights_only`), no code.

    A .safetensors file gives what its header holds, and the tensors as `state_dict`; a zip of models its only model.
    NumPy scalars are allowed: LARS stores its AUC as one, under the name of NumPy 1 or 2. Raises InputError.
    """
    scalar = np._core.multiarray.scalar
    allowed = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype,
               np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
    path = only_checkpoint(path)
    try:
        if path.suffix == SUFFIX:  # of export_models.py, or of others
            content = read_header(path) | {"state_dict": safetensors.torch.load(read_file(path))}
        else:
            check_records(path)
            with torch.serialization.safe_globals(allowed), warnings.catch_warnings(action="ignore"):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch goes on with how to run it
        raise InputError(f"{path}: holds {named[1] if named else 'something'} beside tensors, numbers and texts, which "
                         "may be code: it was not read; give a checkpoint of train.py or LARS, or a file of the "
                         "state_dict alone") from None
    except Exception as error:  # whatever damage provokes in torch
        raise InputError(f"{path}: not a readable checkpoint: {short(error)}; give one of train.py or LARS") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint: it holds a {type(content).__name__}")
    check_content(content, path)
    if isinstance(content.get("model"), str):
        del content["model"]
    current = {"args": current_args, "model": current_names}
    return content | {name: current[name](content[name]) for name in current if isinstance(content.get(name), dict)}


def load_model(path: str | Path) -> tuple[ResNet34, dict]:
    """A checkpoint of this toolkit or of LARS -> (model in evaluation mode, the checkpoint's content).

    The architecture follows from the parameters' names and shapes: LARS's files say nothing else of it.
    """
    content = read_checkpoint(path)
    state, settings = network_state(content, path), content.get("model", {})
    head, (site_head, sites) = head_options(state, settings), find_sites(state, settings)
    if not head:
        raise InputError(f"{path}: no checkpoint of a ResNet34 with a head `fc`; it has "
                         f"{some(content, 5) or 'nothing'}")
    with torch.device("meta"):  # no random numbers for weights that are replaced at once: half of the loading
        features = random_features()
    head["features"] = features.to_empty(device="cpu")
    model = SiteResNet34(sites, site_head, **head) if site_head else ResNet34(**head)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit ResNet34: {short(error)}") from None
    return model.eval(), content


def load_weights(model: ResNet34, path: str | Path) -> tuple[dict, str]:
    """Load a checkpoint of this toolkit, of LARS or of another ResNet34 into the model. A head of another shape, or for
    other sites, stays random.

    Returns
    -------
    dict
        The checkpoint's "input", the values of `dataset.NetworkInput`; {} where it stores none.
    str
        Which keys were taken.
    """
    state, sites, given = _trained_weights(str(path), Path(path).stat().st_mtime_ns if Path(path).exists() else None)
    taken, text = fitting(state, model.state_dict(), sites == model.sites, path)
    model.load_state_dict(taken, strict=False)
    return given, text


@functools.lru_cache(maxsize=1)  # a sweep or a search starts many runs from one checkpoint
def _trained_weights(path, changed):
    content = read_checkpoint(path)
    state = one_channel(network_state(content, path))
    return state, find_sites(state, content.get("model", {}))[1], content.get("input", {})
