"""The mean SUV of the liver, where a PET volume alone shows it beyond doubt; else nothing.

In FDG PET the liver is the one large organ on the patient's right that is warm and even. Looked for is a sphere of
3 cm, as EANM's guideline 2.0 asks for in the right lobe, whose surroundings of 6 cm are the evenest there, and it
counts only where what is connected to it at about its SUV has a liver's volume. Nothing here depends on the SUV's
scale: a wrong weight or dose shows in the result.
"""
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from common.acquisition import LIVER_SPHERE_MM

GRID_MM = 8.0
AROUND_MM = 60.0  # side of the cube around the sphere
LEAST, MOST = 1.2, 6.0  # times the mean SUV of the body
EVEN = 0.20  # standard deviation of the cube, in its mean
ABOUT = 0.75, 1.35  # of the sphere's mean: voxels of the same organ, smoothed
VOLUME_ML = 500.0, 3500.0


class Liver(NamedTuple):
    """Mean SUV of the sphere, and the place of its centre: (z, y, x) patient coordinates, mm."""

    suv: float
    place: tuple[float, float, float]


def find_liver(array: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...], body_mean: float
               ) -> Liver | None:
    """Find it.

    Parameters
    ----------
    array : ndarray
        (z, y, x) SUV; z from feet to head, x from the patient's right to left.
    spacing, origin : tuple of float
        (z, y, x), mm.
    body_mean : float
        Mean SUV of the body, of `suv.body_mean`.

    Returns
    -------
    Liver or None
        None where no place is even enough, or its organ has not a liver's volume.
    """
    steps = [max(1, round(GRID_MM / step)) for step in spacing]
    size = [n // step * step for n, step in zip(array.shape, steps, strict=True)]
    blocks = array[:size[0], :size[1], :size[2]].reshape([n for pair in zip(
        [n // step for n, step in zip(size, steps, strict=True)], steps, strict=True) for n in pair])
    coarse = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    grid = [step * space for step, space in zip(steps, spacing, strict=True)]
    width = [max(3, round(AROUND_MM / step) | 1) for step in grid]
    mean = ndimage.uniform_filter(coarse, width)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(coarse ** 2, width) - mean ** 2, 0))
    body = coarse > 0.3 * body_mean
    if not body.any():
        return None
    middle = np.flatnonzero(body.any(axis=(0, 1))).mean()
    uneven = spread / np.maximum(mean, 1e-6)
    wrong = (mean < LEAST * body_mean) | (mean > MOST * body_mean) | (uneven > EVEN)
    wrong[:, :, int(np.ceil(middle)):] = True
    if wrong.all():
        return None
    centre = np.unravel_index(np.where(wrong, np.inf, uneven).argmin(), mean.shape)
    value = ndimage.uniform_filter(coarse, 3)
    organ, _ = ndimage.label((value > ABOUT[0] * mean[centre]) & (value < ABOUT[1] * mean[centre]))
    volume = (organ == organ[centre]).sum() * np.prod(grid) / 1000
    if not organ[centre] or not VOLUME_ML[0] <= volume <= VOLUME_ML[1]:
        return None
    place = [(k + 0.5) * step - 0.5 for k, step in zip(centre, steps, strict=True)]  # in voxels
    apart = [(np.arange(n) - at) * space for n, at, space in zip(array.shape, place, spacing, strict=True)]
    near = [np.flatnonzero(np.abs(each) <= LIVER_SPHERE_MM / 2) for each in apart]
    distance = sum(np.ix_(*(each[index] ** 2 for each, index in zip(apart, near, strict=True))))
    found = array[np.ix_(*near)][distance <= (LIVER_SPHERE_MM / 2) ** 2]
    z, y, x = (float(start + at * space) for start, at, space in zip(origin, place, spacing, strict=True))
    return Liver(float(found.mean()), (z, y, x))
