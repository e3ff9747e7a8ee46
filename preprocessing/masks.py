"""Masks of lesions -> boolean arrays on the voxels of their SUV volume, and where each lesion lies.

A NIfTI or NRRD mask belongs to the volume that its name says (`mask_names`), a DICOM one to the series that it refers
to, or to the one in its frame of reference. A voxel of the volume is in the mask where the voxel of the mask that is
nearest to its centre is.
"""
import os
import re
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from common.text import some
from preprocessing.archives import local_files, read_headers
from preprocessing.dicom_values import Header, Refused, text, unexpected
from preprocessing.dose import Warn
from preprocessing.geometry import Grid, make_grid
from preprocessing.suv import SuvVolume
from preprocessing.volumes import NNUNET, is_volume, read_array, stem

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # SOP classes: SEG, its label maps
LABELS = set("""segment segmentation lesion lesions tumor tumors tumour tumours lymphoma lymph node nodes nodal
extranodal metastasis uptake physiological liver spleen marrow bone brain heart bladder kidney kidneys lung lungs
mediastinum aorta blood pool gtv ctv ptv roi body left right""".split())  # words that identify nobody
LITRES = 5.0  # more is hardly lymphoma, and often organs or the body's outline among the segments


class MaskFile(NamedTuple):
    """A mask that the search found.

    Attributes
    ----------
    path : str
        Of the file.
    place : str
        What errors.csv calls it, relative to the searched folder.
    uid : str
        SOPInstanceUID of a DICOM mask.
    series, images, frames : tuple of str
        What it refers to: SeriesInstanceUIDs; where there are none, SOPInstanceUIDs; FrameOfReferenceUIDs.
    """

    path: str
    place: str = ""
    uid: str = ""
    series: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()


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
        chosen, refused = (found, []) if is_volume(found[0].path) else _choose(found, paths, warnings.append)
        if len(chosen) > 1:
            raise Refused("file", f"{len(chosen)} masks", "several masks of one PET series",
                          "keep one of them, or join them")
        if not chosen:
            return None, ["no mask was used, errors.csv says why"] if refused else [], refused
        with local_files([chosen[0].path]) as files:
            read = _read_volume_mask if is_volume(files[0]) else _read_segmentation
            return read(files[0], volume, warnings.append), warnings, refused
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
    from scipy.ndimage import label, maximum

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


# DICOM masks

def is_mask(header: Header) -> bool:
    """True where a header belongs to a DICOM segmentation."""
    return text(header, "SOPClassUID") in SEGMENTATION


def describe_mask(path: str, file: IO[bytes] | None = None) -> MaskFile:
    """What a DICOM mask refers to. `file`: the open member of an archive."""
    from pydicom import dcmread  # importing it takes longer than searching a study without masks

    if file:
        file.seek(0)
    dataset = dcmread(file or path, stop_before_pixels=True, force=True)
    series = "ReferencedSeriesSequence", "SeriesInstanceUID"
    referred = _values(dataset, *series)
    referred += _values(dataset, "StudiesContainingOtherReferencedInstancesSequence", *series)
    source = "DerivationImageSequence", "SourceImageSequence", "ReferencedSOPInstanceUID"
    images = [] if referred else [uid for groups in ("SharedFunctionalGroupsSequence",
                                                     "PerFrameFunctionalGroupsSequence")
                                  for uid in _values(dataset, groups, *source)]
    return MaskFile(path, "", str(dataset.get("SOPInstanceUID", "")), tuple(dict.fromkeys(referred)),
                    tuple(dict.fromkeys(images)), tuple(_values(dataset, "FrameOfReferenceUID")))


def _values(dataset: Any, keyword: str, *deeper: str) -> list[str]:
    """The values of an attribute, down through sequences; [] where it is missing."""
    found = dataset.get(keyword)
    if deeper:
        return [value for item in found or () for value in _values(item, *deeper)]
    return [str(found)] if found else []


def _choose(found: Sequence[MaskFile], paths: Sequence[str], warn: Warn
            ) -> tuple[list[MaskFile], list[tuple[str, Refused]]]:
    """Of a study's DICOM masks those of the PET series that is used, and those that fit no PET series.

    Those that refer to the series go before those that only share its frame of reference. Copies count once.
    """
    headers = read_headers(paths)
    uid, frame = (text(headers[0], keyword) for keyword in ("SeriesInstanceUID", "FrameOfReferenceUID"))
    names = {text(header, "SOPInstanceUID") for header in headers}
    own, others, strange = [], [], []
    for mask in {mask.uid or mask.path: mask for mask in found}.values():
        refers = uid in mask.series or not names.isdisjoint(mask.images)
        if mask.series and not refers:
            others.append(mask)
        elif frame in mask.frames if frame and mask.frames else refers:
            own.append((mask, refers))
        else:
            strange.append((mask.place, Refused("FrameOfReferenceUID", "", "the mask lies in another frame of "
                                                "reference than the PET series", "give a mask of this series")))
    chosen = [mask for mask, refers in own if refers == any(refers for _, refers in own)]
    if others and not chosen:
        strange += [(mask.place, Refused("ReferencedSeriesSequence", "", "the mask is of another PET series than the "
                                         "one used", "choose that one with --series")) for mask in others]
    elif left := len(others) + len(own) - len(chosen):
        warn(f"masks of other series of the study were left out: {left}")
    return chosen, strange


def _read_segmentation(path: str, volume: SuvVolume, warn: Warn) -> np.ndarray:
    """A DICOM SEG (PS3.3 A.51), all its segments; frames that are not there are empty."""
    from highdicom.seg import Segmentation
    from pydicom import dcmread

    seg = Segmentation.from_dataset(dcmread(path, force=True), copy=False)
    if len(seg.SegmentSequence) > 1:
        segments = _names([(item.SegmentNumber, item.get("SegmentLabel")) for item in seg.SegmentSequence])
        warn(f"the mask holds {len(seg.SegmentSequence)} segments, {segments}: all were united")
    shared = (seg.get("SharedFunctionalGroupsSequence") or [{}])[0]

    def of_frames(group: str, keyword: str) -> np.ndarray:
        """The values of every frame; empty rows where there is none."""
        found = [(frame.get(group) or shared.get(group) or [{}])[0].get(keyword)
                 for frame in seg.PerFrameFunctionalGroupsSequence]
        return np.array([[] if value is None else value for value in found], float).reshape(len(found), -1)

    points, turned = (of_frames(*pair) for pair in (("PlanePositionSequence", "ImagePositionPatient"),
                                                    ("PlaneOrientationSequence", "ImageOrientationPatient")))
    spacing, said, thickness = (of_frames("PixelMeasuresSequence", keyword) for keyword in (
        "PixelSpacing", "SpacingBetweenSlices", "SliceThickness"))
    if points.shape[1] != 3 or turned.shape[1] != 6 or spacing.shape[1] != 2:
        raise Refused("PerFrameFunctionalGroupsSequence", "", "a frame has no position, orientation or pixel spacing",
                      "export the mask again")
    axes = np.array([np.cross(turned[0, :3], turned[0, 3:]), turned[0, 3:], turned[0, :3]])
    places = points @ axes.T
    if max(np.ptp(turned, axis=0).max(), np.ptp(spacing, axis=0).max(), np.ptp(places[:, 1:], axis=0).max()) > 0.01:
        raise Refused("PlanePositionSequence", "", "the frames are no stack of slices", "export the mask again")
    along = places[:, 0] - places[:, 0].min()
    own = float(np.linalg.norm(volume.stored.matrix[:3, 0]))
    same = (seg.Rows, seg.Columns) == volume.stored.shape[1:]
    step = _slice_spacing(along, [*np.abs(said[:1].ravel()), *[own] * same], [*thickness[:1].ravel(), own])
    slices = np.round(along / step).astype(int)
    mask = np.zeros((slices.max() + 1, seg.Rows, seg.Columns), bool)
    least = 0.5 * seg.MaximumFractionalValue if seg.SegmentationType == "FRACTIONAL" else 1
    for number, at in enumerate(slices, start=1):
        mask[at] |= seg.get_stored_frame(number) >= least
    grid = make_grid(mask.shape, (step, *spacing[0]), axes, points[along.argmin()])
    return _on_voxels(mask, grid.matrix, volume, warn)


def _slice_spacing(along: np.ndarray, first: Sequence[float], last: Sequence[float]) -> float:
    """The spacing that slices at these places, mm, have: `first`, the smallest gap or `last`; what fits to a tenth.

    Empty slices may be missing, so that the smallest gap alone does not say it.
    """
    gap = np.diff(np.unique(along.round(2))).min(initial=np.inf)
    for step in (*first, gap, *last):
        if 0.01 < step < np.inf and np.abs(along / step - np.round(along / step)).max() < 0.1:
            return float(step)
    return float(last[-1])


def _names(parts: Sequence[tuple[int, Any]]) -> str:
    """Parts of a mask by their numbers, and by their names where these are of words that identify nobody."""
    words = [re.findall(r"\w+", re.sub(r"[\d_]", " ", str(name).lower())) for _, name in parts]
    return some([f"{number}" + f" ({' '.join(found)})" * (0 < len(found) and LABELS >= set(found))
                 for (number, _), found in zip(parts, words, strict=True)], 10)


# Onto the volume's voxels

def _read_volume_mask(path: str, volume: SuvVolume, warn: Warn) -> np.ndarray:
    """A NIfTI or NRRD mask."""
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
        warn(f"the mask holds {len(values)} labels: all were united")
    return _on_voxels(mask, matrix, volume, warn)


def _on_voxels(mask: np.ndarray, matrix: np.ndarray, volume: SuvVolume, warn: Warn) -> np.ndarray:
    """A mask of any grid (`matrix`: its indices to mm) on the volume's voxels, by the nearest of its own.

    Only the box around what is in it is looked at.
    """
    from scipy.ndimage import affine_transform

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
    if millilitres[1] > 1000 * LITRES:
        warn(f"the mask holds {millilitres[1] / 1000:.1f} litres: lesions alone?")
    return filled


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
