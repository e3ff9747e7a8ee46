"""The MIPs of a manifest in memory, cropped to the body; what the network is given of them; augmented batches."""
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from common.files import InputError, progress
from common.manifest import VIEWS, suv_type_of
from common.mips import BODY_SUV, pooled, read_image
from common.text import counted

CLIP_SUV = (0.0, 30.0)
NORMS = {"lars": (2.13, 3.39), "thesis": (0.6089, 1.8575), "none": (0.0, 1.0)}  # mean and standard deviation, SUV
FRAME_MULTIPLE = 32  # the network halves its input five times
NOISE_SUV = 0.1
MEMORY_SHARE = 0.5  # of the free memory, for the images


# ---------------------------------------------------------------- the images

@dataclass
class Bodies:
    """MIPs cropped to their bodies, in one array, top left aligned.

    Attributes
    ----------
    images : (N, H, W) float32 tensor, SUV
        0 outside the body's box; on `device` if it fits there, else in host memory.
    sizes : (N, 2) int64 tensor on the CPU
        Rows and columns of each box.
    names : list of N file names
    device : torch.device
        Of the batches that are made from them.
    """
    images: torch.Tensor
    sizes: torch.Tensor
    names: list
    device: torch.device = torch.device("cpu")

    def to(self, device: torch.device) -> "Bodies":
        fits = self.images.nbytes < MEMORY_SHARE * available_memory(device)
        return Bodies(self.images.to(device) if fits else self.images, self.sizes, self.names, device)

    def subset(self, index: np.ndarray) -> "Bodies":
        """The images `index` (int array); not copied where these are all, in their order."""
        if len(index) == len(self.names) and (np.diff(index) > 0).all():
            return self
        return Bodies(self.images[torch.as_tensor(index)], self.sizes[torch.as_tensor(index)],
                      [self.names[i] for i in index], self.device)


def available_memory(device: torch.device) -> int:
    """Free memory of a device, bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def read_bodies(table: pd.DataFrame, folder: str | Path, pool: int = 1, box: str = "suv") -> Bodies:
    """Read every image of a manifest, check it, crop it to its body and max-pool it.

    Parameters
    ----------
    table : DataFrame
        Rows of `common.manifest.read_manifest`.
    folder : str or Path
        What `filename` is relative to.
    pool : int
        Max-pool K x K, from the body's top left corner.
    box : of BOXES

    Raises
    ------
    InputError
        An image is missing, of another size than the manifest says, or not in SUV; SUV by body surface area; images
        that do not fit into the free memory.
    """
    check_suv_type(suv_type_of(table))
    largest = (int(table["matrix_size_1"].max()), int(table["matrix_size_2"].max()))
    with progress(list(table.itertuples()), "reading MIPs", "image") as rows:
        return stack_bodies((read_image(row, folder) for row in rows), list(table["filename"]), largest, pool, box)


def stack_bodies(images: Iterable[np.ndarray], names: Sequence[str], largest: tuple[int, int], pool: int = 1,
                 box: str = "suv") -> Bodies:
    """`read_bodies` of MIPs that are in memory.

    Parameters
    ----------
    images : iterable of (rows, columns) float32 arrays, SUV
    names : sequence of str
        Their names in messages.
    largest : (rows, columns)
        Which no image exceeds.
    """
    rows, columns = (-(-side // pool) for side in largest)
    stack, sizes = np.zeros((len(names), rows, columns), "float32"), np.empty((len(names), 2), "int64")  # resident
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        body = pooled(image[body_box(image, name, box)], pool)
        if i == 0 and 4 * len(names) * body.size > available_memory(torch.device("cpu")):
            raise InputError(f"{counted(len(names), 'image')} of {body.shape[0]} x {body.shape[1]} pixels do not "
                             "fit into the free memory; use --pool 2 (a quarter of it), or fewer splits at once")
        sizes[i] = body.shape
        stack[i, :body.shape[0], :body.shape[1]] = body
    stack = stack[:, :sizes[:, 0].max(), :sizes[:, 1].max()]
    return Bodies(torch.from_numpy(stack), torch.from_numpy(sizes), list(names))


def data_hash(bodies: Bodies, table: pd.DataFrame, split: int) -> str:
    """SHA-256 (hex) over what a run of this split learns from: the images, their scans, targets and sets."""
    digest = hashlib.sha256(bodies.sizes.numpy().tobytes())
    for image, (rows, columns) in zip(bodies.images, bodies.sizes.tolist(), strict=True):
        digest.update(image[:rows, :columns].contiguous().numpy())
    columns = [name for name in ("scan_id", "filename", "target", "target_loc", f"split{split}") if name in table]
    digest.update(table[columns].to_csv(index=False).encode())
    return digest.hexdigest()


def body_pixels(image: np.ndarray, box: str = "suv") -> np.ndarray:
    """Which pixels of a MIP belong to the body: (rows, columns) bool. By `box`, those above BODY_SUV ("suv") or those
    that are not 0 ("lars")."""
    return image > BODY_SUV if box == "suv" else image != 0


def body_box(image: np.ndarray, name: str, box: str = "suv") -> tuple[slice, slice]:
    """The box of `body_pixels` as (rows, columns) slices.

    Parameters
    ----------
    box : of BOXES
        "lars": without its last row and column, as LARS cuts them off.

    Raises
    ------
    InputError
        It is empty.
    """
    inside, last = body_pixels(image, box), int(box == "suv")  # whether the last row and column belong to the box
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not len(rows) or min(np.ptp(rows), np.ptp(columns)) + last == 0:
        what = f"pixel above SUV {BODY_SUV}" if box == "suv" else "body of two rows and columns or more"
        raise InputError(f"{name}: no {what} (maximum {image.max():.3g}); are the values SUV?")
    return slice(rows[0], rows[-1] + last), slice(columns[0], columns[-1] + last)


def choose_frame(size: str | tuple[int, int], bodies: Bodies, train: np.ndarray, margin: int) -> tuple[int, int]:
    """--image_size -> (rows, columns).

    auto: the smallest multiples of 32 that hold every body, and those of the images `train` with `margin` pixels more.
    """
    if size != "auto":
        return size
    needed = torch.maximum(bodies.sizes[train].amax(0) + margin, bodies.sizes.amax(0))
    return tuple(-(-side // FRAME_MULTIPLE) * FRAME_MULTIPLE for side in needed.tolist())


def check_augmentation(augm: int, frame: tuple) -> None:
    """Raises InputError for an --augm that the frame cannot take."""
    if "2" in str(augm) and frame[0] != frame[1]:
        raise InputError(f"--augm {augm} turns by 90 degrees: it needs a square frame, not {frame[0]} x {frame[1]}; "
                         "give --image_size one side")


def fit_bodies(bodies: Bodies, frame: tuple, crop: bool = False, index: np.ndarray | slice = slice(None)) -> Bodies:
    """Refuse bodies larger than the frame (InputError, which names one), or with `crop` cut them to it at their centre.

    `index` (int array): the images that are going to be used; others are not refused.
    """
    too_large = (bodies.sizes > torch.tensor(frame)).any(1).numpy()
    if not too_large[index].any():
        return bodies
    if not crop:
        first = int(np.arange(len(too_large))[index][too_large[index]][0])
        raise InputError(f"{bodies.names[first]}: body of {' x '.join(map(str, bodies.sizes[first].tolist()))} pixels "
                         f"is larger than the frame {frame[0]} x {frame[1]} "
                         f"({counted(int(too_large[index].sum()), 'such image')}); use a larger --image_size in "
                         "training, or --crop_bodies")
    start = (bodies.sizes - torch.tensor(frame)).clamp(min=0) // 2
    index = torch.arange(len(bodies.sizes))
    size = (min(frame[0], bodies.images.shape[1]), min(frame[1], bodies.images.shape[2]))
    images = _shifted(bodies.images, index, -start, size)
    return Bodies(images, bodies.sizes.minimum(torch.tensor(frame)), bodies.names, bodies.device)


def norm_constants(bodies: Bodies, index: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the body boxes' pixels, no padding, of the images `index`; SUV clipped first.

    To the bit the same whatever other images lie beside these in `bodies`, whose padding follows the largest.
    """
    pixels = int(bodies.sizes[index].prod(1).sum())
    total, squares = 0.0, 0.0
    for i in index:  # one at a time: no second copy of them all
        rows, columns = bodies.sizes[i].tolist()
        clipped = bodies.images[i, :rows, :columns].cpu().clamp(*CLIP_SUV).double()  # MPS has no float64
        total, squares = total + clipped.sum().item(), squares + clipped.square().sum().item()
    mean = total / pixels
    sd = max(0.0, squares / pixels - mean**2) ** 0.5
    if not sd > 0:
        raise InputError(f"every pixel of the training images' bodies is {mean:g} SUV; give other images, or --norm")
    return mean, sd


@dataclass
class NetworkInput:
    """How an image becomes the network's input; stored in the checkpoint as "input".

    Attributes
    ----------
    frame : (rows, columns) in pixels, after pooling
    norm : (mean, standard deviation), SUV
    pool : int
        K of the K x K max-pooling of each MIP.
    spacing_mm : float or None
        Pixel spacing of the MIPs before pooling; None where the manifest does not say.
    crop_bodies : bool
        Whether bodies larger than the frame are cut to it.
    views : tuple of str
        The views that it was trained on.
    suv_type : str
        What the SUV is normalised to: a value of prepro_script.py --suv.
    box : of BOXES
    """
    frame: tuple
    norm: tuple
    pool: int = 1
    spacing_mm: float | None = None
    crop_bodies: bool = False
    views: tuple = VIEWS
    suv_type: str = "bw"
    box: str = "suv"

    def __post_init__(self):  # a checkpoint may give lists
        self.frame, self.norm, self.views = tuple(self.frame), tuple(self.norm), tuple(self.views)
        check_suv_type(self.suv_type)


def check_suv_type(suv_type: str) -> None:
    """Raises InputError for a type of SUV in which BODY_SUV does not separate the body from air."""
    if suv_type == "bsa":
        raise InputError(f"suv_type bsa: no network reads such MIPs: the body is what is above SUV {BODY_SUV} of body "
                         "weight, which cuts half of it off in SUV of body surface area; make the MIPs with "
                         "prepro_script.py --suv bw or lbm")


LARS = NetworkInput((310, 310), NORMS["lars"], box="lars")  # of LARS's own checkpoints, which store none


# ---------------------------------------------------------------- the batches

def eval_batch(bodies: Bodies, index: np.ndarray, frame: tuple, norm: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in the middle of the frame, normalized.

    Returns
    -------
    x : (B, 1, rows, columns) float32 tensor on the bodies' device.
    boxes : (B, 2, 2) float32 tensor on the same device
        Where the body lies, in shares of the frame: first and end row, first and end column.
    """
    index = torch.as_tensor(index)
    offset = (torch.tensor(frame) - bodies.sizes[index]) // 2
    x = _normalized(_shifted(bodies.images, index, offset, frame).to(bodies.device), norm)
    return x, _in_shares(torch.stack([offset, offset + bodies.sizes[index]], 2), frame).to(bodies.device)


def train_batch(bodies: Bodies, index: np.ndarray, draws: torch.Tensor, frame: tuple, norm: tuple, augm: int = 0,
                noise: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images at random places of the frame, augmented in SUV, then normalized.

    Parameters
    ----------
    index : (B,) int array of images.
    draws : (B, 6) float64 tensor on the CPU
        Uniform in 0..1: row, column, whether and along which axis to flip, turn, intensity.
    frame : (rows, columns)
    norm : (mean, standard deviation), SUV
    augm : int
        Code of --augm, one or two digits.
    noise : (B, rows, columns) standard normal tensor on the bodies' device, for code 5.

    Returns
    -------
    x, boxes
        As of `eval_batch`.
    """
    index, codes = torch.as_tensor(index), {int(digit) for digit in str(augm)}
    room = torch.tensor(frame) - bodies.sizes[index]
    offset = (draws[:, :2] * (room + 1)).long()
    boxes = torch.stack([offset, offset + bodies.sizes[index]], 2)  # pixels: (B, axis, first and end)
    x = _shifted(bodies.images, index, offset, frame).to(bodies.device)
    if 1 in codes or 3 in codes:
        flip = draws[:, 2] < 0.5
        axis = torch.where(draws[:, 3] < 0.5, 1, 2) if 1 in codes else torch.full_like(index, 2)
        for dim in (1, 2):
            chosen = (flip & (axis == dim)).nonzero().flatten()
            x[chosen.to(x.device)] = x[chosen.to(x.device)].flip(dim)
            boxes[chosen, dim - 1] = frame[dim - 1] - boxes[chosen, dim - 1].flip(1)
    if 2 in codes:
        turns = (draws[:, 4] * 4).long()
        for k in (1, 2, 3):
            chosen = (turns == k).nonzero().flatten()
            x[chosen.to(x.device)] = x[chosen.to(x.device)].rot90(k, (1, 2))
            for _ in range(k):  # the columns, from the last to the first, become the rows
                rows, columns = boxes[chosen].unbind(1)
                boxes[chosen] = torch.stack([frame[0] - columns.flip(1), rows], 1)
    if 4 in codes:
        x = x * (0.85 + 0.3 * draws[:, 5]).to(x)[:, None, None]
    if 5 in codes:  # in the body alone: the frame around it stays 0
        x = torch.where(x > 0, x + NOISE_SUV * noise.to(x), x)
    return _normalized(x, norm), _in_shares(boxes, frame).to(bodies.device)


def _shifted(images, index, offset, frame):
    """images[index], each moved by its (row, column) offset into a frame of zeros: (B, rows, columns)."""
    device = images.device
    index, offset = index.to(device), offset.to(device)
    rows = torch.arange(frame[0], device=device) - offset[:, :1]
    columns = torch.arange(frame[1], device=device) - offset[:, 1:]
    inside_rows = (rows >= 0) & (rows < images.shape[1])
    inside_columns = (columns >= 0) & (columns < images.shape[2])
    x = images[index[:, None, None], rows.clamp(0, images.shape[1] - 1)[:, :, None],
               columns.clamp(0, images.shape[2] - 1)[:, None, :]]
    return x * (inside_rows[:, :, None] & inside_columns[:, None, :])


def _in_shares(boxes, frame):
    return boxes.float() / torch.tensor(frame)[:, None]


def _normalized(x, norm):
    return ((x.clamp(*CLIP_SUV) - norm[0]) / norm[1]).unsqueeze(1)
