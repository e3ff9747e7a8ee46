"""Where voxels are: slice positions, the patient's axes, isotropic resampling, projections."""
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import affine_transform

from common.text import counted
from preprocessing.dicom_values import Refused, required_numbers, text

MOST_MM = 1e5  # of a coordinate


class Grid(NamedTuple):
    """Where the voxels of an array lie.

    Attributes
    ----------
    shape : tuple of int
        Of the array.
    matrix : ndarray
        (4, 4): from indices to x, y, z (LPS) of the voxel's centre, mm.
    """

    shape: tuple[int, ...]
    matrix: np.ndarray


def make_grid(shape: Sequence[int], spacing: Sequence[float], axes: np.ndarray, origin: np.ndarray) -> Grid:
    """The Grid of an array by its spacing and the directions (3, 3) of its axes, in rows, and its first voxel's place.
    """
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (axes * np.array(spacing)[:, None]).T, origin
    return Grid(tuple(shape), matrix)


def slice_geometry(headers):
    """Sort the slices along their normal.

    Returns:
        headers in ascending position; positions (n,) in mm; spacing of (slice, row, column) in mm; axes (3, 3), the
        patient direction (x, y, z: left, back, head) of each of these three; origin (3,), the patient coordinates of
        the first voxel, mm.
    """
    keyword = "ImageOrientationPatient"
    orientation = np.array([required_numbers(header, keyword, 6) for header in headers])
    across, down = orientation[0, :3], orientation[0, 3:]
    if np.ptp(orientation, axis=0).max() > 1e-3:
        raise Refused(keyword, "", "differs between the slices of the series", "keep the slices of one orientation")
    if abs(np.linalg.norm(across) - 1) + abs(np.linalg.norm(down) - 1) + abs(across @ down) > 1e-2:
        raise Refused(keyword, text(headers[0], keyword), "is not two perpendicular unit vectors", "correct it")
    axes = np.array([np.cross(across, down), down, across])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    points = np.array([required_numbers(header, "ImagePositionPatient", 3) for header in headers])
    if np.abs(points).max() > MOST_MM:
        raise Refused("ImagePositionPatient", f"{np.abs(points).max():g} mm", "is no place in a scanner",
                      "correct the attribute")
    order = np.argsort(points @ axes[0], kind="stable")
    points, headers = points[order], [headers[i] for i in order]
    positions = points @ axes[0]
    _check_positions(positions, points @ axes[1:].T)
    rows, columns = required_numbers(headers[0], "PixelSpacing", 2)
    spacing = (float(np.median(np.diff(positions))), rows, columns)
    for name, value in zip(("ImagePositionPatient", "PixelSpacing", "PixelSpacing"), spacing, strict=True):
        if not 0.1 <= value <= 30:
            raise Refused(name, f"{value:g} mm", "is not a voxel spacing of a PET series", "correct the attribute")
    return headers, positions, spacing, axes, points[0]


def _check_positions(positions, in_plane):
    keyword = "ImagePositionPatient"
    if len(positions) < 2:
        raise Refused(keyword, "one slice", "no volume, and no slice spacing", "give all slices of the series")
    gaps = np.diff(positions)
    widest, narrowest, median = gaps.argmax(), gaps.argmin(), np.median(gaps)
    if gaps[narrowest] < 0.01:
        same = counted((gaps < 0.01).sum(), "slice lies", "slices lie")
        raise Refused(keyword, f"{positions[narrowest]:.2f} mm", f"{same} where another does",
                      "remove duplicates; of a dynamic series, choose time frames with --frames")
    for wrong, at, reason, remedy in (
            (gaps[widest] > 1.5 * median, widest, "slices are missing", "give all slices"),
            (gaps[narrowest] < 0.5 * median, narrowest, "slices overlap", "give one reconstruction")):
        if wrong:
            raise Refused(keyword, f"{positions[at]:.2f} to {positions[at + 1]:.2f} mm",
                          f"{reason}: the median spacing is {median:.3g} mm", remedy)
    if (shift := np.ptp(in_plane, axis=0).max()) > 1:
        raise Refused(keyword, f"{shift:.1f} mm", "the slices are shifted sideways against each other",
                      "give a series without gantry tilt")


def regular_slices(array, positions, spacing, warn):
    """Slices at uneven positions (off the regular grid by over a tenth of the spacing): interpolate along them."""
    grid = positions[0] + spacing * np.arange(round((positions[-1] - positions[0]) / spacing) + 1)
    if len(grid) == len(array) and np.abs(grid - positions).max() <= 0.1 * spacing:
        return array
    warn(f"uneven slice positions were interpolated to every {spacing:.4g} mm")
    place = np.interp(grid, positions, np.arange(len(positions)))
    low = np.minimum(place.astype(int), len(array) - 2)
    weight = (place - low).astype(np.float32)[:, None, None]
    return array[low] * (1 - weight) + array[low + 1] * weight


def patient_axes(array, spacing, axes, origin, warn):
    """Turn (slice, row, column) into (z, y, x) from feet to head, front to back, right to left.

    Returns:
        the array; its spacing and the coordinates of its first voxel, both (z, y, x), mm.
    """
    main = np.abs(axes).argmax(axis=1)  # the patient axis, 0 to 2 for x to z, that each array axis is closest to
    steps = axes * np.array(spacing)[:, None]
    if sorted(main) == [0, 1, 2] and np.abs(axes).max(axis=1).min() > 1 - 1e-5:
        order = [int(np.flatnonzero(main == axis)[0]) for axis in (2, 1, 0)]
        backwards = [axes[i, main[i]] < 0 for i in range(3)]
        origin = origin + sum(steps[i] * (array.shape[i] - 1) for i in range(3) if backwards[i])
        flips = tuple(slice(None, None, -1 if backwards[i] else 1) for i in order)
        array = np.ascontiguousarray(array.transpose(order)[flips])
        return array, tuple(spacing[i] for i in order), tuple(origin[::-1].tolist())
    warn("an oblique series was resampled along the body")
    step = np.array([spacing[i] for i in np.abs(axes).argmax(axis=0)])[::-1]  # of z, y, x
    to_patient = steps.T[::-1]  # array index -> mm along z, y, x
    corners = to_patient @ np.array(np.meshgrid(*[(0, size - 1) for size in array.shape])).reshape(3, -1)
    low, high = corners.min(axis=1), corners.max(axis=1)
    back = np.linalg.inv(to_patient)
    shape = tuple(np.ceil((high - low) / step).astype(int) + 1)
    array = affine_transform(array, back * step, back @ low, shape, order=1)
    return array, tuple(step.tolist()), tuple((origin[::-1] + low).tolist())


def project(array, spacing, isotropic, angles=()):
    """Maximum intensity projections of a volume resampled to isotropic voxels, without keeping that volume.

    Linear interpolation between voxel centres. The new grid covers the old one edge to edge, centred on it; centres
    beyond the outermost old ones take their value.

    Args:
        array (ndarray): (z, y, x) float32 or bool, z from feet to head, y from front to back, x from right to left.
        spacing (tuple): (z, y, x), mm.
        isotropic (float): new spacing, mm.
        angles (iterable of float): of further projections, degrees about the body's axis; 0 would be the coronal and 90
            the sagittal one. Beyond the volume there is 0.

    Returns:
        coronal (z', x'), sagittal (z', y') and one (z', u) for each angle, float32: head at the top; the patient's
        right, and the front, on the left. Maximum over y, over x, and over the depth at that angle.
    """
    (z0, z1, zw), (y0, y1, yw), (x0, x1, xw) = map(_weights, array.shape, spacing, [isotropic] * 3)
    rotations = [_rotation((len(y0), len(x0)), angle) for angle in angles]
    widths = [len(x0), len(y0), *(rotation["output_shape"][1] for rotation in rotations)]
    views = [np.empty((len(z0), width), np.float32) for width in widths]

    @functools.lru_cache(2)  # neighbouring new slices share an old one
    def resampled(index):
        """Slice `index`, resampled within the plane."""
        plane = _between(array[index].astype(np.float32, copy=False), y0, y1, yw[:, None], 0)
        return _between(plane, x0, x1, xw, 1)

    for row, (low, high, weight) in enumerate(zip(z0, z1, zw, strict=True), start=1):
        below = resampled(low)
        plane = (resampled(high) - below) * weight + below
        plane.max(axis=0, out=views[0][-row])
        plane.max(axis=1, out=views[1][-row])
        for view, rotation in zip(views[2:], rotations, strict=True):
            affine_transform(plane, **rotation).max(axis=0, out=view[-row])
    return tuple(views)


def _between(values, low, high, weight, axis):
    """Linear interpolation along an axis."""
    below, result = (np.take(values, index, axis, mode="clip") for index in (low, high))
    result -= below
    result *= weight
    result += below
    return result


def _rotation(shape, angle):
    """What scipy.ndimage.affine_transform needs to turn a (y, x) plane about its middle into (depth, u)."""
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    turn = np.array([[cosine, sine], [-sine, cosine]])  # y = depth cos + u sin, x = u cos - depth sin
    size = np.maximum(1, np.rint(np.abs(turn) @ shape)).astype(int)
    offset = (np.array(shape) - 1) / 2 - turn @ (size - 1) / 2
    return {"matrix": turn, "offset": offset, "output_shape": tuple(size), "order": 1}


def first_centre(count, spacing, isotropic):
    """Number of isotropic voxels over `count` old ones, and the first one's centre, mm from the first old centre."""
    size = max(1, round(count * spacing / isotropic))
    return size, ((count - 1) * spacing - (size - 1) * isotropic) / 2


def _weights(count, spacing, isotropic):
    """Linear interpolation from `count` voxels to isotropic ones: lower and upper index, weight of the upper one."""
    size, first = first_centre(count, spacing, isotropic)
    centres = ((first + np.arange(size) * isotropic) / spacing).clip(0, count - 1)
    low = centres.astype(np.intp).clip(max=max(count - 2, 0))
    return low, np.minimum(low + 1, count - 1), (centres - low).astype(np.float32)
