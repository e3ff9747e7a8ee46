"""The raw MIPs of a manifest (`manifest.read_manifest`) -> images in memory, and batches for the network."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from files import InputError, progress

BODY_SUV = 0.3  # a pixel above it belongs to the body: muscle reads 0.5 in a MIP, air below 0.2
CLIP_SUV = (0.0, 30.0)
NORMS = {"lars": (2.13, 3.39), "thesis": (0.6089, 1.8575)}  # mean and standard deviation, SUV
FRAME_MULTIPLE = 32  # the network halves its input five times
NOISE_SUV = 0.1


# ---------------------------------------------------------------- the images

@dataclass
class Bodies:
    """MIPs cropped to their bodies, in one array, top left aligned.

    Attributes:
        images: (N, H, W) float32 tensor, SUV, 0 outside the body's box.
        sizes: (N, 2) int64 tensor on the CPU, rows and columns of each box.
        names: N file names.
    """
    images: torch.Tensor
    sizes: torch.Tensor
    names: list

    def to(self, device):
        return Bodies(self.images.to(device), self.sizes, self.names)

    def subset(self, index):
        """The images `index` (int array); all of them: no copy."""
        if len(index) == len(self.names):
            return self
        return Bodies(self.images[torch.as_tensor(index)], self.sizes[torch.as_tensor(index)],
                      [self.names[i] for i in index])


def read_bodies(table, folder, pool=1):
    """Read every image of `table` once, check it, crop it to its body and max-pool it.

    Args:
        table (DataFrame): rows of `read_manifest`.
        folder (str | Path): what `filename` is relative to.
        pool (int): max-pool K x K, from the body's top left corner.

    Raises:
        InputError: a missing image, one of another size, one that is not SUV.
    """
    with progress(list(table.itertuples()), "reading MIPs", "image") as rows:
        crops = [_pool(crop_body(read_image(row, folder), row.filename), pool) for row in rows]
    sizes = torch.tensor([crop.shape for crop in crops])
    images = torch.zeros(len(crops), *sizes.amax(0).tolist())
    for image, crop in zip(images, crops, strict=True):
        image[:crop.shape[0], :crop.shape[1]] = torch.from_numpy(crop)
    return Bodies(images, sizes, list(table["filename"]))


def read_image(row, folder):
    """One MIP, `.bin` (little-endian float32, row-major) or `.npy` -> (rows, columns) float32, SUV; or InputError."""
    path, shape = Path(folder) / row.filename, (row.matrix_size_1, row.matrix_size_2)
    try:
        if path.suffix == ".npy":
            image = np.load(path, allow_pickle=False)
            if image.shape != shape:
                raise InputError(f"{path}: {image.shape}, but row {row.row} of the manifest says {shape}")
        else:
            image = np.fromfile(path, dtype="<f4")
            if path.stat().st_size != 4 * shape[0] * shape[1]:
                raise InputError(f"{path}: {path.stat().st_size} bytes, but row {row.row} of the manifest says "
                                 f"{shape[0]} x {shape[1]} float32, {4 * shape[0] * shape[1]} bytes")
            image = image.reshape(shape)
    except FileNotFoundError:
        raise InputError(f"{path}: missing (row {row.row} of the manifest); give the images' folder with --images, or "
                         "make them: prepro_script.py for DICOM, make demo-data for the demo") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable image: {error}") from None
    if not np.isfinite(image).all():
        raise InputError(f"{path}: holds NaN or infinity; make it again with prepro_script.py")
    return image.astype(np.float32)


def crop_body(image, name):
    """The box of the pixels above BODY_SUV, last row and column included. Raises InputError where there are none."""
    rows, columns = (np.flatnonzero((image > BODY_SUV).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise InputError(f"{name}: no pixel above SUV {BODY_SUV} (maximum {image.max():.3g}); are the values SUV?")
    return image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def _pool(image, k):
    if k == 1:
        return image
    image = np.pad(image, [(0, -size % k) for size in image.shape])
    return image.reshape(image.shape[0] // k, k, -1, k).max((1, 3))


def choose_frame(size, bodies, margin):
    """("auto" or (rows, columns)) -> (rows, columns); auto: multiples of 32 that hold every body plus the margin."""
    if size != "auto":
        return size
    return tuple(int(-(-(side + margin) // FRAME_MULTIPLE) * FRAME_MULTIPLE) for side in bodies.sizes.amax(0).tolist())


def fit_bodies(bodies, frame, crop=False):
    """Refuse bodies larger than the frame by name (InputError), or with `crop` cut them to it about their middle."""
    too_large = (bodies.sizes > torch.tensor(frame)).any(1)
    if not too_large.any():
        return bodies
    if not crop:
        first = int(too_large.nonzero()[0])
        raise InputError(f"{bodies.names[first]}: body of {' x '.join(map(str, bodies.sizes[first].tolist()))} pixels "
                         f"is larger than the frame {frame[0]} x {frame[1]} ({int(too_large.sum())} such images); use "
                         "a larger --image_size in training, or --crop_bodies")
    start = (bodies.sizes - torch.tensor(frame)).clamp(min=0) // 2
    index = torch.arange(len(bodies.sizes))
    size = (min(frame[0], bodies.images.shape[1]), min(frame[1], bodies.images.shape[2]))
    images = _shifted(bodies.images, index, -start, size)
    return Bodies(images, bodies.sizes.minimum(torch.tensor(frame)), bodies.names)


def norm_constants(bodies, index):
    """Mean and standard deviation of the body boxes' pixels, no padding, of the images `index`; SUV clipped first."""
    pixels = int(bodies.sizes[index].prod(1).sum())
    clipped = bodies.images[index].clamp(*CLIP_SUV).double()  # padding is 0: it adds nothing to either sum
    mean = clipped.sum() / pixels
    variance = (clipped.square().sum() / pixels - mean.square()).clamp(min=0)
    return float(mean), float(variance.sqrt())


# ---------------------------------------------------------------- the batches

def batch_indices(index, batch_size):
    """Positions of `index` in batches of at most `batch_size`, as even as they go: none is left with a single image."""
    return np.array_split(np.arange(len(index)), max(1, -(-len(index) // batch_size)))


def epoch_order(index, targets, seed, oversample=False):
    """The images of one training epoch: `index` shuffled, with `oversample` the rarer class filled up by repeats.

    Args:
        index: (n,) int array, images of the training split.
        targets: (n,) int array of 0/1.
        seed (sequence of int): for example (seed, split, run, epoch).
    """
    rng = np.random.default_rng(seed)
    if oversample:
        classes = [index[targets == c] for c in (0, 1)]
        rare = min(classes, key=len)
        missing = abs(len(classes[0]) - len(classes[1]))
        index = np.concatenate([index, rng.permutation(np.resize(rng.permutation(rare), missing))])
    return rng.permutation(index)


def eval_batch(bodies, index, frame, norm):
    """Images in the middle of the frame, normalized: (B, 1, rows, columns) float32 on the bodies' device."""
    index = torch.as_tensor(index)
    offset = (torch.tensor(frame) - bodies.sizes[index]) // 2
    return _normalized(_shifted(bodies.images, index, offset, frame), norm)


def train_batch(bodies, index, frame, norm, augm, seed, positions):
    """Images at random places of the frame, augmented in SUV, then normalized.

    What happens to an image depends on (seed, its position in the epoch) alone, not on the batch it is in.

    Args:
        index: (B,) int array of images.
        frame: (rows, columns).
        norm: (mean, standard deviation), SUV.
        augm (int): code of --augm, one or two digits.
        seed (tuple of int): of the epoch.
        positions: (B,) int array, places in the epoch.

    Returns:
        (B, 1, rows, columns) float32 tensor on the bodies' device.
    """
    index, codes = torch.as_tensor(index), {int(digit) for digit in str(augm)}
    if 2 in codes and frame[0] != frame[1]:
        raise InputError(f"--augm {augm} turns by 90 degrees: it needs a square frame, not {frame[0]} x {frame[1]}")
    generators = [np.random.default_rng((*seed, int(position))) for position in positions]
    draws = torch.from_numpy(np.stack([g.random(6) for g in generators]))
    room = torch.tensor(frame) - bodies.sizes[index]
    x = _shifted(bodies.images, index, (draws[:, :2] * (room + 1)).long(), frame)
    if 1 in codes or 3 in codes:
        flip = draws[:, 2] < 0.5
        axis = torch.where(draws[:, 3] < 0.5, 1, 2) if 1 in codes else torch.full_like(index, 2)
        for dim in (1, 2):
            chosen = (flip & (axis == dim)).nonzero().flatten().to(x.device)
            x[chosen] = x[chosen].flip(dim)
    if 2 in codes:
        turns = (draws[:, 4] * 4).long()
        for k in (1, 2, 3):
            chosen = (turns == k).nonzero().flatten().to(x.device)
            x[chosen] = x[chosen].rot90(k, (1, 2))
    if 4 in codes:
        x = x * (0.85 + 0.3 * draws[:, 5]).to(x)[:, None, None]
    if 5 in codes:  # in the body alone: the frame around it stays 0
        noise = np.stack([g.standard_normal(frame, dtype=np.float32) for g in generators])
        x = torch.where(x > 0, x + NOISE_SUV * torch.from_numpy(noise).to(x), x)
    return _normalized(x, norm)


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


def _normalized(x, norm):
    return ((x.clamp(*CLIP_SUV) - norm[0]) / norm[1]).unsqueeze(1)
