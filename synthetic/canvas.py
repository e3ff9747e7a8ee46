"""A SUV volume on which shapes are painted, and its place in the standard body.

Standard coordinates: x to the patient's left, y to the back, depth below the vertex, all in mm of a body with 840 mm
from vertex to crotch.
"""
import math
from collections.abc import Sequence

import numpy as np

STANDARD_TRUNK = 840.0  # mm from vertex to crotch in the standard body


class Canvas:
    """A SUV volume, and its place in the standard body.

    Parameters
    ----------
    patient : dict
        From `cohort.plan_patient`: `grid`; `long` stretches depth, `wide` x and y; `thigh`, mm below the crotch.
    origin : (3,) float array
        The vertex, LPS mm.

    Attributes
    ----------
    volume : (z, y, x) float32 array
        SUV, feet to head, front to back, the patient's right to left.
    x, y, z : float arrays
        Voxel centres, LPS mm.
    pixel, distance : float
        Size of a voxel in its slice, and from slice to slice; mm.
    """

    def __init__(self, patient: dict, origin: np.ndarray) -> None:
        columns, self.pixel, self.distance = patient["grid"]
        length = min(928.0, STANDARD_TRUNK * patient["long"] + 12 + patient["thigh"])
        slices = int(length / self.distance)
        self.origin, self.long, self.wide = origin, patient["long"], patient["wide"]
        half = (columns - 1) / 2 * self.pixel
        self.x = self.y = np.linspace(-half, half, columns)  # LPS mm, voxel centres
        self.z = origin[2] + 12 - self.distance * (np.arange(slices)[::-1] + 0.5)
        self.volume = np.zeros((slices, columns, columns), np.float32)
        self.axes = [((axis - o) / s).astype(np.float32) for axis, o, s in zip(
            (self.z, self.y, self.x), origin[::-1], (self.long, self.wide, self.wide), strict=True)]
        self.edge = np.float32(self.pixel)  # mm over which a border is smoothed

    def to_mm(self, point: Sequence[float]) -> np.ndarray:
        """Standard (x, y, depth) -> (x, y, z), LPS mm."""
        x, y, depth = point
        return np.array([self.origin[0] + x * self.wide, self.origin[1] + y * self.wide,
                         self.origin[2] - depth * self.long])

    def _blend(self, cut, inside, value):
        """Paint `value` over a box, `inside` being the distance in mm inwards from the border."""
        cover = np.clip(inside / self.edge + np.float32(0.5), 0, 1)
        part = self.volume[cut]
        part += cover * (np.float32(value) - part)

    def ellipsoid(self, centre: Sequence[float], radii: Sequence[float], value: float, tilt: float = 0.0) -> None:
        """Paint an ellipsoid of SUV `value`.

        Parameters
        ----------
        centre, radii : (x, y, depth)
            mm of the standard body.
        tilt : float
            Radians by which it is turned in the coronal plane.
        """
        x, y, depth = centre
        rx, ry, rz = radii
        reach = max(rx, rz) if tilt else 0
        bounds = np.array([max(rz, reach), ry, max(rx, reach)])
        centre = np.array([-depth, y, x])
        cut, (dz, dy, dx) = box(self.axes, centre - bounds - self.edge, centre + bounds + self.edge)
        dz, dy, dx = dz - np.float32(-depth), dy - np.float32(y), dx - np.float32(x)
        if tilt:
            dz, dx = dz * math.cos(tilt) - dx * math.sin(tilt), dz * math.sin(tilt) + dx * math.cos(tilt)
        radius = np.sqrt((dz * np.float32(1 / rz)) ** 2 + (dx * np.float32(1 / rx)) ** 2
                         + (dy * np.float32(1 / ry)) ** 2)
        self._blend(cut, (1 - radius) * np.float32(min(radii)), value)

    def tube(self, points: Sequence[Sequence[float]], radii: float | Sequence[float],
             values: float | Sequence[float]) -> None:
        """Paint capsules from each point (x, y, depth) to the next; radii (mm) and values (SUV): one, or one a segment.
        """
        points = np.array([(-depth, y, x) for x, y, depth in points], float)
        segments = len(points) - 1
        for a, b, r, value in zip(points[:-1], points[1:], np.broadcast_to(radii, segments),
                                  np.broadcast_to(values, segments), strict=True):
            cut, (dz, dy, dx) = box(self.axes, np.minimum(a, b) - r - self.edge, np.maximum(a, b) + r + self.edge)
            axis = (b - a).astype(np.float32)
            dz, dy, dx = (d - np.float32(start) for d, start in zip((dz, dy, dx), a, strict=True))
            along = np.clip((dz * axis[0] + dy * axis[1] + dx * axis[2]) / max(float(axis @ axis), 1e-6), 0, 1)
            distance = np.sqrt((dz - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dx - along * axis[2]) ** 2)
            self._blend(cut, np.float32(r) - distance, value)


def box(axes: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray) -> tuple[tuple[slice, ...], tuple]:
    """The voxels between two points (z, y, x): slices of their volume, and their coordinates as open grids."""
    cut = tuple(slice(*np.searchsorted(axis, ends)) for axis, *ends in zip(axes, low, high, strict=True))
    return cut, np.ix_(*[axis[part] for axis, part in zip(axes, cut, strict=True)])


def squared_distance(grids: Sequence[np.ndarray], point: Sequence[float]) -> np.ndarray:
    """Of the places of `box` from a point (z, y, x), mm^2."""
    return sum((grid - c) ** 2 for grid, c in zip(grids, point, strict=True))


def voi(volume: np.ndarray, axes: Sequence[np.ndarray], sphere: Sequence[float]) -> np.ndarray:
    """The voxels whose centres lie in a sphere.

    Parameters
    ----------
    volume : (z, y, x) array
    axes : three float arrays
        z, y, x of the voxel centres, LPS mm.
    sphere : (x, y, z, diameter)
        LPS mm.

    Returns
    -------
    (n,) array
    """
    centre, radius = np.array(sphere[2::-1]), sphere[3] / 2  # z, y, x
    cut, grids = box(axes, centre - radius, centre + radius)
    return volume[cut][squared_distance(grids, centre) <= radius ** 2]
