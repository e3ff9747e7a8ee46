"""MIPs as files, and the colours of heat maps over them. Imports no torch."""
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from common.files import InputError, open_file
from common.text import short

BODY_SUV = 0.3  # pixels above it belong to the body: muscle has about 0.5 in a MIP, air less than 0.2
BOXES = ("suv", "lars")  # ways to find the body: see `dataset.body_box`
LEAST_SUV, MOST_SUV = -1, 1e6  # limits of SUV: the whole dose in 1 ml of a body of 70 kg would be 70,000
MOST_MEDIAN = 30  # SUV, of the pixels of a body

CLEAR = 0.08  # share of the darkest value below which a heat map hardly shows
HEAT: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0, (1, 0.8, 0.2, 0)), (CLEAR, (1, 0.8, 0.2, 0.1)), (0.5, (1, 0.45, 0, 0.5)), (1, (0.75, 0, 0.1, 0.75)),
)  # share of the darkest value; red, green, blue, opacity


def read_image(row: Any, folder: str | Path, name: str = "") -> np.ndarray:
    """Read a MIP, `.bin` (little-endian float32, row-major) or `.npy` -> (rows, columns) float32, SUV. Or InputError.

    `name`: a file to read instead of the row's `filename`, of the same shape; its values need not be SUV.
    """
    path, shape = Path(folder) / (name or row.filename), (row.matrix_size_1, row.matrix_size_2)
    says = f"row {_line(row)} of the manifest says"
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix == ".npy":
                stored, by_columns, dtype = _npy_header(file)
                if dtype.kind not in "biuf":
                    raise ValueError(f"its values are {dtype}, not numbers")
                if stored != shape:
                    raise InputError(f"{path}: {stored}, but {says} {shape}")
                if size - file.tell() != dtype.itemsize * shape[0] * shape[1]:
                    raise ValueError(f"{size - file.tell()} bytes for {shape[0]} x {shape[1]} {dtype}")
            else:
                dtype, by_columns, need = np.dtype("<f4"), False, 4 * shape[0] * shape[1]
                if size != need:
                    raise InputError(f"{path}: {size} bytes, but {says} {shape[0]} x {shape[1]} float32, {need} bytes")
            values = np.fromfile(file, dtype)
    except FileNotFoundError:
        raise InputError(f"{path}: missing (row {_line(row)} of the manifest); give their folder with --images, or "
                         "make them: prepro_script.py for DICOM, make demo-data for the demo") from None
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable image: {short(error)}") from None
    with np.errstate(over="ignore"):
        image = np.ascontiguousarray(values.reshape(shape, order="F" if by_columns else "C"), np.float32)
    if not np.isfinite(image).all():
        raise InputError(f"{path}: holds NaN or infinity; make it again with prepro_script.py")
    if not name and (reason := no_suv(image)):
        raise InputError(f"{path}: {reason}; a MIP is little-endian float32, row by row, SUV: make it again with "
                         f"prepro_script.py, or correct row {_line(row)} of the manifest")
    return image


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The header of a `.npy` file: shape, whether its order is Fortran's, dtype. Raises ValueError."""
    formats = np.lib.format
    try:
        version = formats.read_magic(file)
        return {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}[version](file)
    except Exception as error:  # whatever its text provokes in Python's parser
        raise ValueError(f"no header of a .npy file: {short(error)}") from None


def no_suv(image: np.ndarray) -> str:
    """Why (rows, columns) float32 cannot be a MIP in SUV, often since its file has another layout; "" where it can."""
    body, flat, raw = image[image > BODY_SUV], image.ravel(), image.view(np.uint8)
    if raw.min() >= 9 and raw.max() < 127:
        return "it is text"
    if image.min() < LEAST_SUV:
        return f"its minimum is {image.min():.3g}"
    if not len(body):
        return ""  # said where the body is cut out
    if image.max() > MOST_SUV:
        return f"its maximum is {image.max():.3g}"
    if (median := np.median(body)) > MOST_MEDIAN:
        return f"the median of its body is {median:.3g}: are the values Bq/ml?"
    if image.size > 2 and not flat[::2].any() and flat[1::2].any():
        return "every second value is 0, as if it were float64"
    if image.shape[0] != image.shape[1] and min(image.shape) > 1:
        across, down = (np.abs(flat[step:] - flat[:-step]).mean() for step in image.shape)
        if across < 0.5 * down:
            return f"its rows have {image.shape[0]} values, as if rows and columns were swapped"
    return ""


def read_mask(row: Any, folder: str | Path, name: str) -> np.ndarray:
    """Read the file `name`, the lesion mask of a MIP with values 0 and 1 -> (rows, columns) bool. Or InputError."""
    mask = read_image(row, folder, name)
    if len(other := mask[(mask != 0) & (mask != 1)]):
        raise InputError(f"{Path(folder) / name}: holds {other[0]:g} (mask of row {_line(row)} of the manifest); a "
                         "mask is 1 in a lesion, 0 elsewhere")
    return mask > 0


def greys(image: np.ndarray, suv_max: float) -> np.ndarray:
    """A MIP in inverted grey: (rows, columns) float from 1, white, at SUV 0 to 0, black, at `suv_max` and above."""
    return 1 - np.clip(image / suv_max, 0, 1)


def heat_colours(share: np.ndarray) -> np.ndarray:
    """Values of a heat map as shares of the darkest, 0..1 -> red, green, blue and opacity, 0..1, as a last axis."""
    channels = np.array([colour for _, colour in HEAT]).T
    return np.stack([np.interp(share, [at for at, _ in HEAT], channel) for channel in channels], axis=-1)


def under_heat(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`greys` with a heat map over them: (rows, columns, 3) float, 0..1; `share` as of `heat_colours`."""
    colour, opacity = np.split(heat_colours(share), [3], axis=2)
    return grey[:, :, None] * (1 - opacity) + colour * opacity


def pooled(image: np.ndarray, step: int, pool: Callable[..., np.ndarray] = np.max) -> np.ndarray:
    """The highest (or by `pool` np.min lowest) of each step x step pixels, so that a small hot spot stays.

    From the top left corner; cells over the other edges hold fewer pixels.
    """
    if step == 1:
        return image
    padded = np.pad(image, [(0, -size % step) for size in image.shape], mode="edge")
    return pool(padded.reshape(len(padded) // step, step, -1, step), axis=(1, 3))


def _line(row):
    """The row's line in the manifest; "?" of a table that was not read from one."""
    return getattr(row, "row", "?")
