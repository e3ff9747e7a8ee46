"""Masks of lesions -> boolean arrays on the voxels of their SUV volume, and where each lesion lies.

A NIfTI or NRRD mask belongs to the volume that its name says (`mask_names`), a DICOM one to the series that it refers
to, or to the one in its frame of reference. A voxel of the volume is in the mask where the voxel of the mask that is
nearest to its centre is.
"""
import itertools
import os
import re
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import affine_transform, label, maximum

from common.text import counted
from preprocessing.archives import local_files
from preprocessing.dicom_masks import MaskFile, choose_masks, read_dicom_mask
from preprocessing.dicom_values import Refused, unexpected
from preprocessing.dose import Warn
from preprocessing.geometry import Grid, make_grid
from preprocessing.suv import SuvVolume
from preprocessing.volumes import NNUNET, is_volume, read_array, stem

LITRES = 5.0  # more is hardly lymphoma, and often organs or the body's outline among the segments


def mask_names(path: str, volumes: Sequence[str]) -> list[str]:
    """Of the volumes beside that of SUV, its masks by their names.

    CASE for nnU-Net's CASE_0001; else NAME_seg, NAME_mask and the like for NAME, NAME_suv and NAME_pet, and so SEG for
    SUV.

    Parameters
    ----------
    path : str
        Of the SUV volume.
    volumes : sequence of str
        Those of its folder, or for nnU-Net's imagesTr those of labelsTr.
    """
    name = stem(path)
    if NNUNET.fullmatch(os.path.basename(os.path.dirname(path))):
        return [volume for volume in volumes if stem(volume) == name[:-5]]
    short = re.sub(r"(^|[_\W])(suv|pet|pt)$", "", name, flags=re.IGNORECASE)
    pattern = "|".join(re.escape(base) + r"[_\W]" * bool(base) for base in {name, short})
    return [volume for volume in volumes
            if re.fullmatch(rf"({pattern})(seg|segmentation|masks?|labels?)", stem(volume), re.IGNORECASE)]


def study_mask(found: Sequence[MaskFile], paths: Sequence[str], volume: SuvVolume
               ) -> tuple[np.ndarray | None, list[str], list[tuple[str, Refused]]]:
    """The mask of a study.

    Parameters
    ----------
    found : sequence of MaskFile
        The study's.
    paths : sequence of str
        The files of the PET series that was used.
    volume : SuvVolume
        That series.

    Returns
    -------
    mask : ndarray or None
        (z, y, x) bool, the volume's voxels that are in a lesion; None where there is no mask, or a refused one.
    warnings : list of str
        Every assumption that was made.
    refused : list of (str, Refused)
        Place and reason.
    """
    warnings: list[str] = []
    chosen: Sequence[MaskFile] = ()
    refused: list[tuple[str, Refused]] = []
    if not found:
        return None, [], []
    try:
        chosen, refused = (found, []) if is_volume(found[0].path) else choose_masks(
            found, paths, warnings.append)
        if len(chosen) > 1:
            raise Refused("file", counted(len(chosen), "mask"), "several masks of one PET series",
                          "keep one of them, or join them")
        if not chosen:
            return None, ["no mask was used, errors.csv says why"] if refused else [], refused
        with local_files([chosen[0].path]) as files:
            array, matrix = _read_volume_mask(files[0], warnings.append) if is_volume(files[0]) else read_dicom_mask(
                files[0], chosen[0], volume, warnings.append)
        return _on_voxels(array, matrix, volume, warnings.append), warnings, refused
    except Exception as error:  # whatever a damaged file provokes: the study goes on without mask
        place = chosen[0].place if chosen else found[0].place
        return None, ["no mask was used, errors.csv says why"], [*refused, (place, unexpected(error))]


def lesions_of(mask: np.ndarray, volume: SuvVolume) -> str:
    """The lesions of a mask, its parts connected by face, edge or corner, as the manifest's column `lesions` has them.

    Parameters
    ----------
    mask : ndarray
        (z, y, x) bool, on the volume's voxels.
    volume : SuvVolume
        Gives places and SUV.

    Returns
    -------
    str
        `:x:y:z:diameter:SUV` for each, separated by ";", the hottest first: the mean of its voxels' centres (LPS, mm),
        diameter (mm) of a sphere of its size, SUV maximum. Before the first colon stands the site, which is unknown.
    """
    if not mask.any():
        return ""
    box = _box(mask)
    part = tuple(slice(low, high + 1) for low, high in box)
    labels, count = label(mask[part], np.ones((3, 3, 3)))
    numbers = np.arange(1, count + 1)
    hottest = maximum(volume.array[part], labels, numbers)
    voxels = np.argwhere(labels)
    of = labels[tuple(voxels.T)]
    sizes = np.bincount(of)[1:]
    indices = np.stack([np.bincount(of, along)[1:] / sizes for along in voxels.T], axis=1) + box[:, 0]
    centres = indices * volume.spacing + volume.origin
    diameters = np.cbrt(6 / np.pi * sizes * np.prod(volume.spacing))
    return ";".join(f":{centres[i][2]:.1f}:{centres[i][1]:.1f}:{centres[i][0]:.1f}:{diameters[i]:.1f}:{hottest[i]:.3f}"
                    for i in np.argsort(-hottest, kind="stable"))


# Onto the volume's voxels

def _read_volume_mask(path: str, warn: Warn) -> tuple[np.ndarray, np.ndarray]:
    """A NIfTI or NRRD mask, and the matrix from its indices to mm."""
    array, matrix = read_array(path)
    name = os.path.basename(path)
    if array.ndim != 3:
        raise Refused("file", name, f"has the shape {' x '.join(map(str, array.shape))}", "give one mask")
    mask = array >= 0.5
    values = np.unique(array[mask])
    whole = np.array_equal(values, np.round(values))
    if not array.min() >= 0 or not whole and values[-1] > 1:
        raise Refused("file", name, "holds values that are no labels", "give 0 and 1, or labels from 0")
    if not whole:
        warn("the mask holds probabilities: 0.5 and above counts")
    elif len(values) > 1:
        warn(f"the mask holds {counted(len(values), 'label')}: all were united")
    return mask, matrix


def _on_voxels(mask: np.ndarray, matrix: np.ndarray, volume: SuvVolume, warn: Warn) -> np.ndarray:
    """A mask of any grid (`matrix`: its indices to mm) on the volume's voxels, by the nearest of its own.

    Only the box around what is in it is looked at.
    """
    grid = make_grid(volume.array.shape, volume.spacing, np.eye(3)[::-1], np.array(volume.origin[::-1]))
    to_mask = np.linalg.inv(matrix) @ grid.matrix
    everything = _reach(np.array([(0, size - 1) for size in mask.shape]), to_mask, grid)
    if everything is None:
        raise Refused("file", "", "the mask lies beyond the PET", "give the mask of this PET")
    filled = np.zeros(grid.shape, bool)
    if mask.any() and (part := _reach(_box(mask), to_mask, grid)):
        start = np.array([side.start for side in part])
        filled[part] = affine_transform(mask.view(np.uint8), to_mask[:3, :3], (to_mask @ [*start, 1])[:3],
                                        filled[part].shape, order=0, mode="grid-constant")
    if mask.any() and not filled.any():
        raise Refused("file", "", "no voxel of the PET is in the mask, which is not empty", "give the mask of this PET")
    millilitres = [array.sum() * abs(np.linalg.det(of[:3, :3])) / 1000
                   for array, of in ((mask, matrix), (filled, grid.matrix))]
    between = np.linalg.inv(matrix) @ volume.stored.matrix
    if np.abs(between - between.round()).max() > 1e-3 or abs(np.linalg.det(between)) > 1.001:
        warn("the mask has other voxels than the PET, the nearest were taken: "
             f"{millilitres[0]:.1f} ml became {millilitres[1]:.1f} ml")
        if missed := _missed(mask, np.argwhere(filled) @ to_mask[:3, :3].T + to_mask[:3, 3]):
            warn(f"{missed} parts of the mask hold the centre of no voxel of the PET: left out")
    if millilitres[1] > 1000 * LITRES:
        warn(f"the mask holds {millilitres[1] / 1000:.1f} litres: lesions alone?")
    return filled


def _missed(mask: np.ndarray, places: np.ndarray) -> str:
    """"2 of 9": of a mask's parts, how many hold none of these places, (n, 3) in its indices; "" where all hold one."""
    if not mask.any():
        return ""
    box = _box(mask)
    labels, count = label(mask[tuple(slice(low, high + 1) for low, high in box)], np.ones((3, 3, 3)))
    nearest = np.concatenate([np.floor(places + 0.5 + shift) for shift in itertools.product((-1e-3, 1e-3), repeat=3)])
    nearest = np.clip(nearest.astype(int) - box[:, 0], 0, np.array(labels.shape) - 1)  # of those in the middle all
    missed = count - len(np.setdiff1d(labels[tuple(nearest.T)], 0))
    return f"{missed} of {count}" if missed else ""


def _box(mask: np.ndarray) -> np.ndarray:
    """First and last index along each axis, (3, 2), of what is in a mask."""
    return np.array([np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)])


def _reach(box: np.ndarray, to_mask: np.ndarray, grid: Grid) -> tuple[slice, ...] | None:
    """The part of a grid that a box of the mask's voxels, edges included, may touch; None where it touches none."""
    corners = np.array(np.meshgrid(*(box + (-0.5, 0.5)))).reshape(3, -1)
    places = np.linalg.solve(to_mask, np.vstack([corners, np.ones(8)]))[:3]
    low = np.maximum(np.ceil(places.min(axis=1) - 1e-3), 0).astype(int)
    high = np.minimum(np.floor(places.max(axis=1) + 1e-3) + 1, grid.shape).astype(int)
    return tuple(map(slice, low, high)) if (low < high).all() else None
