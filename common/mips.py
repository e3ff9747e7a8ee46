"""MIPs as files, and the colours of heat maps over them. Imports no torch."""
from pathlib import Path
from typing import Any

import numpy as np

from common.files import InputError

CLEAR = 0.08  # share of the maximum below which a heat map does not show
HEAT: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0, (1, 0.8, 0.2, 0)), (CLEAR, (1, 0.8, 0.2, 0.1)), (0.5, (1, 0.45, 0, 0.5)), (1, (0.75, 0, 0.1, 0.75)),
)  # share of the maximum, then red, green, blue, opacity


def read_image(row: Any, folder: str | Path, name: str = "") -> np.ndarray:
    """One MIP, `.bin` (little-endian float32, row-major) or `.npy` -> (rows, columns) float32, SUV; or InputError.

    `name`: another file of the row's than its `filename`.
    """
    path, shape = Path(folder) / (name or row.filename), (row.matrix_size_1, row.matrix_size_2)
    try:
        if path.suffix == ".npy":
            image = np.load(path, allow_pickle=False)
            if image.dtype.kind not in "biuf":
                raise ValueError(f"its values are {image.dtype}, not numbers")
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
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable image: {error}") from None
    if not np.isfinite(image).all():
        raise InputError(f"{path}: holds NaN or infinity; make it again with prepro_script.py")
    return image.astype(np.float32)


def read_mask(row: Any, folder: str | Path, name: str) -> np.ndarray:
    """The file `name`, a lesion mask of one MIP, as `read_image`: 0 and 1 -> (rows, columns) bool; or InputError."""
    mask = read_image(row, folder, name)
    if len(other := mask[(mask != 0) & (mask != 1)]):
        raise InputError(f"{Path(folder) / name}: holds {other[0]:g} (mask of row {row.row} of the manifest); a "
                         "mask is 1 in a lesion, 0 elsewhere")
    return mask > 0
