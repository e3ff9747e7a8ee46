"""Batches: of images, or of the output of frozen layers, computed once for each placement of an image."""
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from common.files import InputError, progress
from common.text import counted
from dataset import (
    FRAME_MULTIPLE,
    Bodies,
    NetworkInput,
    available_memory,
    check_augmentation,
    eval_batch,
    train_batch,
)
from training import distributed
from training.device import autocast
from utils import ResNet34, first_trained

RESERVE = 0.8  # of the free memory, for the output of frozen layers
FILL_BATCH = 32  # images that go through frozen layers at a time: the same bits whatever --batch_size is


def batch_indices(n: int, batch_size: int) -> list:
    """Places 0..n-1 in batches of at most `batch_size`, as even as they go: none is left with a single image."""
    return np.array_split(np.arange(n), max(1, -(-n // batch_size)))


def steps_per_epoch(index: np.ndarray, y_true: np.ndarray, batch_size: int, oversample: bool = False) -> int:
    """How many batches `epoch_order` gives."""
    return len(batch_indices(len(epoch_order(index, y_true, 0, oversample)), batch_size))


def epoch_order(index: np.ndarray, y_true: np.ndarray, seed: int | tuple[int, ...],
                oversample: bool = False) -> np.ndarray:
    """The images of one training epoch: `index` shuffled; with `oversample` the rarer class is drawn again until the
    classes are balanced.

    Parameters
    ----------
    index : (n,) int array
        Images of the training split.
    y_true : int array of 0/1
        Targets of all images.
    seed : sequence of int
        For example (seed, split, run, epoch).
    """
    rng = np.random.default_rng(seed)
    if oversample:
        classes = [index[y_true[index] == c] for c in (0, 1)]
        rare = min(classes, key=len)
        missing = abs(len(classes[0]) - len(classes[1]))
        index = np.concatenate([index, rng.permutation(np.resize(rng.permutation(rare), missing))])
    return rng.permutation(index)


class SingleImage(InputError):
    """A batch of one image, of which layer4 leaves one pixel: batch normalization needs two."""


def check_batch_size(batch_size: int, n: int, frame: tuple[int, int]) -> None:
    """Refuse n images in batches of at most `batch_size` whose smallest has none for some process (InputError) or, with
    one process, leaves one image alone in a frame of one pixel of layer4, which is trained (SingleImage)."""
    smallest, processes = n // len(batch_indices(n, batch_size)), distributed.world()
    if smallest < processes:
        raise InputError(f"--batch_size {batch_size}: {counted(n, 'image')} leave a batch of {smallest} for "
                         f"{processes} processes; give {2 * processes - 1} or more, or start fewer processes")
    if max(frame) <= FRAME_MULTIPLE and smallest == processes == 1:
        raise SingleImage(f"--batch_size {batch_size}: a batch of one image of {frame[0]} x {frame[1]} pixels cannot "
                          "be normalized; give 3 or more, or a larger --image_size")


def step_seed(seed: tuple[int, ...], place: int) -> int:
    """One int for the batch that starts at `place` of the epoch `seed` (tuple of int)."""
    return int(np.random.SeedSequence((*seed, int(place))).generate_state(1)[0])


@dataclass
class Batch:
    """One process's share of a batch.

    Attributes
    ----------
    x : (b, 1, rows, columns) images, or (b, ...) output of frozen layers.
    boxes : (b, 2, 2) float32 tensor or None
        Where the bodies lie, see `dataset.eval_batch`.
    index : (b,) int array of images.
    places : (b,) int array
        Their places in the pass.
    size : int
        Images of the whole batch, of all processes.
    share : slice
        This process's part of them.
    seed : int
        Of what is random in the whole batch.
    start : int
        The first layer of ResNet34.features that `x` enters.
    """
    x: torch.Tensor
    boxes: torch.Tensor | None
    index: np.ndarray
    places: np.ndarray
    size: int
    share: slice
    seed: int = 0
    start: int = 0


@dataclass
class Pass:
    """One pass over images: `index` (n,) int array, in their order, and the batches, an iterator of Batch."""
    index: np.ndarray
    batches: Iterator[Batch]


@dataclass
class Outputs:
    """What a pass gave, in its order.

    Attributes
    ----------
    index : (n,) int array of images.
    logits : (n, columns) float32 array
    embeddings : (n, 512) float32 array, of `engine.evaluate` only
    """
    index: np.ndarray
    logits: np.ndarray
    embeddings: np.ndarray | None = None


def own_batches(n: int, batch_size: int, share: Callable[[int], slice]) -> list[np.ndarray]:
    """This process's share of the places 0..n-1, in batches; [] where it has none."""
    own = np.arange(n)[share(n)]
    return [own[places] for places in batch_indices(len(own), batch_size)] if len(own) else []


class ImageBatches:
    """Images placed in the frame, augmented and normalized.

    What happens to an image depends on the epoch's seed and its place in the epoch, not on the number of processes.

    Parameters
    ----------
    bodies : Bodies
        On the device of the batches.
    batch_size : int
        Images of a batch at most, of all processes together.
    augm : int
        Code of --augm.
    share : callable
        How many images -> the slice of them that this process takes.
    """

    def __init__(self, bodies: Bodies, network_input: NetworkInput, batch_size: int, augm: int = 0,
                 share: Callable[[int], slice] = distributed.share):
        check_augmentation(augm, network_input.frame)
        self.bodies, self.network_input, self.batch_size, self.augm = bodies, network_input, batch_size, augm
        self.share = share

    def training(self, order: np.ndarray, seed: tuple[int, ...], done: int = 0) -> Pass:
        """The images `order` (n,) of one epoch, at random places, without the first `done` batches.

        `seed`: tuple of int, its last number the epoch.
        """
        return Pass(order, self._training(order, seed, done))

    def centred(self, index: np.ndarray) -> Pass:
        """The images `index` (n,) in the middle of the frame, for evaluation."""
        return Pass(index, self._centred(index))

    def _training(self, order, seed, done):
        frame, device = self.network_input.frame, self.bodies.device
        draws = torch.from_numpy(np.random.default_rng(seed).random((len(order), 6)))
        for places in batch_indices(len(order), self.batch_size)[done:]:
            part, batch_seed, noise = self.share(len(places)), step_seed(seed, places[0]), None
            own = places[part]
            if "5" in str(self.augm):
                generator = torch.Generator(device).manual_seed(batch_seed)
                noise = torch.randn((len(places), *frame), generator=generator, device=device)[part]
            x, boxes = train_batch(self.bodies, order[own], draws[own], frame, self.network_input.norm, self.augm,
                                   noise)
            yield Batch(x, boxes, order[own], own, len(places), part, batch_seed)

    def _centred(self, index):
        for places in own_batches(len(index), self.batch_size, self.share):
            x, boxes = eval_batch(self.bodies, index[places], self.network_input.frame, self.network_input.norm)
            yield Batch(x, boxes, index[places], places, len(places), slice(None))


class NoRoom(InputError, MemoryError):
    """The output of frozen layers does not fit into memory."""


class FrozenBatches:
    """Batches of the output of frozen layers, which is computed once for each placement of each image.

    Parameters
    ----------
    images : ImageBatches
        What it is computed from.
    model : ResNet34
        Its features[:start] is frozen.
    placements : int
        How many random placements each image gets; the epochs take them in turn.
    amp : torch.dtype or None
    seed : tuple of int
        Of the placements.
    cache : dict, optional
        The outputs, the least recently used first; runs of one backbone and seed may share it.
    check : callable, optional
        Called after every batch that is computed; may raise to stop.
    """

    def __init__(self, images: ImageBatches, model: ResNet34, start: int, placements: int, amp: torch.dtype | None,
                 seed: tuple[int, ...], cache: dict | None = None, check: Callable[[], None] = lambda: None):
        self.images, self.model, self.start, self.placements = images, model, start, placements
        self.amp, self.seed, self.check = amp, seed, check
        self.cache, self.used = {} if cache is None else cache, set()
        # every process computes the output of all images
        self.fill = ImageBatches(images.bodies, images.network_input, FILL_BATCH, images.augm, lambda n: slice(0, n))

    def training(self, order: np.ndarray, seed: tuple[int, ...], done: int = 0) -> Pass:
        """As of ImageBatches."""
        return Pass(order, self._training(order, seed, done))

    def centred(self, index: np.ndarray) -> Pass:
        """As of ImageBatches."""
        return Pass(index, self._centred(index))

    def _training(self, order, seed, done):
        placement, images = (seed[-1] - 1) % self.placements, np.unique(order)
        parts = batch_indices(len(order), self.images.batch_size)[done:]
        if not parts:
            return
        outputs = self.computed((self.images.augm, placement), self.fill.training(images, (*self.seed, placement)),
                                f"frozen layers, placement {placement + 1}")
        rows = np.searchsorted(images, order)
        for places in parts:
            share = distributed.share(len(places))
            own = places[share]
            yield Batch(outputs[rows[own]], None, order[own], own, len(places), share, step_seed(seed, places[0]),
                        self.start)

    def _centred(self, index):
        outputs = self.computed("centred", self.fill.centred(index), "frozen layers")
        for places in own_batches(len(index), self.images.batch_size, distributed.share):
            yield Batch(outputs[places], None, index[places], places, len(places), slice(None), start=self.start)

    def computed(self, placement: Any, images: Pass, description: str) -> torch.Tensor:
        """The frozen layers' output of the images of a pass, one row each, from the cache or computed.

        `placement`: a name of what places and augments them; `description`: of the progress bar.
        """
        key = (self.start, placement, images.index.tobytes())
        self.used.add(key)
        if key not in self.cache:
            self.cache[key] = self._compute(images, description)
        self.cache[key] = self.cache.pop(key)  # so that the least recently used come first
        return self.cache[key]

    @torch.no_grad()
    def _compute(self, images, description):
        frozen, outputs, n = self.model.features[:self.start].eval(), None, len(images.index)
        with progress(None, description, "image", n) as bar:
            for batch in images.batches:
                with autocast(batch.x, self.amp):
                    x = frozen(batch.x.contiguous(memory_format=torch.channels_last))
                if outputs is None:
                    self._make_room(x[0].numel() * x.element_size() * n, n, x.device)
                    outputs = x.new_empty((n, *x.shape[1:]))
                outputs[batch.places] = x
                bar.update(len(x))
                self.check()
        return outputs

    def _make_room(self, need, n, device):
        """Drop outputs of other runs, the least recently used first, until `need` bytes fit; or raise NoRoom."""
        while need > RESERVE * (free := available_memory(device)):
            other = next((key for key in self.cache if key not in self.used), None)
            if other is None:
                raise NoRoom(f"the frozen layers' output of {counted(n, 'image')} needs {need / 1e9:.1f} GB, "
                             f"{free / 1e9:.1f} are free; --cached_placements 0 computes it in every epoch")
            del self.cache[other]
            if device.type == "cuda":
                torch.cuda.empty_cache()


class RunBatches:
    """The passes of one run: its training epochs, its training and its validation set.

    Parameters
    ----------
    images : training.images.SplitImages
    model : ResNet34
        Its frozen layers are computed once for each of `cached_placements`; 0: in every epoch.
    y_true : (n,) int array of 0/1
        Of all images.
    seed : tuple of int
        (seed, split, run).
    batch_size, augm, oversample, cached_placements
        Arguments of train.py.
    amp, cache, check
        Of FrozenBatches.

    Raises
    ------
    InputError
        Of `check_batch_size`.
    """

    def __init__(self, images: Any, model: ResNet34, y_true: np.ndarray, seed: tuple[int, ...], amp: torch.dtype | None,
                 batch_size: int, augm: int = 0, oversample: bool = False, cached_placements: int = 1,
                 cache: dict | None = None, check: Callable[[], None] = lambda: None):
        self.images, self.y_true, self.seed, self.oversample = images, y_true, seed, oversample
        if first_trained(model) < len(model.features):  # a head alone learns from a share of 0, or 1, too
            check_batch_size(batch_size, len(epoch_order(images.train, y_true, 0, oversample)),
                             images.network_input.frame)
        self.source, start = ImageBatches(images.bodies, images.network_input, batch_size, augm), first_trained(model)
        if start and cached_placements:
            self.source = FrozenBatches(self.source, model, start, cached_placements, amp, seed[:2], cache, check)

    def training(self, epoch: int, done: int = 0) -> Pass:
        """The training images of an epoch, shuffled, without the first `done` batches."""
        seed = (*self.seed, epoch)
        return self.source.training(epoch_order(self.images.train, self.y_true, seed, self.oversample), seed, done)

    def training_set(self) -> Pass:
        """The training images for evaluation."""
        return self.source.centred(self.images.train)

    def validation(self) -> Pass:
        """The validation images."""
        return self.source.centred(self.images.val)
