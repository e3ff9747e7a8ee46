"""DICOM masks: which PET series each is of, and its lesions: the segments of a SEG or the contours of an RTSTRUCT."""
import functools
import re
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from pydicom import dcmread

from common.text import counted, some
from preprocessing.archives import read_headers
from preprocessing.dicom_pixels import MOST_SIDE
from preprocessing.dicom_reader import readable
from preprocessing.dicom_values import Header, Refused, text
from preprocessing.dose import Warn
from preprocessing.geometry import make_grid
from preprocessing.suv import SuvVolume

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
MASKS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", RTSTRUCT)  # SOP classes; SEG, its label maps
LABELS = set("""segment segmentation lesion lesions tumor tumors tumour tumours lymphoma lymph node nodes nodal
extranodal metastasis uptake physiological liver spleen marrow bone brain heart bladder kidney kidneys lung lungs
mediastinum aorta blood pool gtv ctv ptv roi body external mass left right""".split())  # words that identify nobody
LESIONS = ("", "GTV", "TUMOR", "TUMOUR", "LESION")  # RTROIInterpretedType; CTV and PTV have a margin
OUTLINE = 0.006  # mm from a contour, whose points may be rounded to hundredths: a voxel's centre lies on it
WIDEST = 10.0  # mm between slices of whatever the contours were drawn on


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
    studies : tuple of str
        StudyInstanceUIDs: that it refers to, and its own.
    """

    path: str
    place: str = ""
    uid: str = ""
    series: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()


def is_mask(header: Header) -> bool:
    """True where a header belongs to a DICOM SEG or RTSTRUCT."""
    return text(header, "SOPClassUID") in MASKS


def describe_mask(path: str, file: IO[bytes] | None = None) -> MaskFile:
    """What a DICOM mask refers to. `file`: the open member of an archive."""
    dataset = dcmread(readable(path, file), stop_before_pixels=True, force=True)
    others, frames = "StudiesContainingOtherReferencedInstancesSequence", "ReferencedFrameOfReferenceSequence"
    series = [(*way, "SeriesInstanceUID") for way in (
        ("ReferencedSeriesSequence",), (others, "ReferencedSeriesSequence"),
        (frames, "RTReferencedStudySequence", "RTReferencedSeriesSequence"))]
    images = [(*way, "ReferencedSOPInstanceUID") for way in (
        ("SharedFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
        ("PerFrameFunctionalGroupsSequence", "DerivationImageSequence", "SourceImageSequence"),
        ("ROIContourSequence", "ContourSequence", "ContourImageSequence"))]
    same_space = [("FrameOfReferenceUID",), (frames, "FrameOfReferenceUID"),
                  ("StructureSetROISequence", "ReferencedFrameOfReferenceUID")]
    studies = [(others, "StudyInstanceUID"), (frames, "RTReferencedStudySequence", "ReferencedSOPInstanceUID"),
               ("StudyInstanceUID",)]

    def found(ways: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(uid for way in ways for uid in _values(dataset, *way)))

    referred = found(series)
    return MaskFile(path, "", str(dataset.get("SOPInstanceUID", "")), referred, () if referred else found(images),
                    found(same_space), found(studies))


def _values(dataset: Any, keyword: str, *deeper: str) -> list[str]:
    """The values of an attribute, down through sequences; [] where it is missing."""
    found = dataset.get(keyword)
    if deeper:
        return [value for item in found or () for value in _values(item, *deeper)]
    return [str(found)] if found else []


def choose_masks(found: Sequence[MaskFile], paths: Sequence[str], warn: Warn
                 ) -> tuple[list[MaskFile], list[tuple[str, Refused]]]:
    """Of a study's DICOM masks those of the PET series that is used, and those that fit no PET series.

    Those that refer to the series go before those that only share its frame of reference. Copies count once. The chosen
    ones' `series`, if they refer to it, and `frames` are those of the series.
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
            own.append((mask._replace(series=(uid,) * refers, frames=(frame,) * bool(frame)), refers))
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


def read_dicom_mask(path: str, mask: MaskFile, volume: SuvVolume, warn: Warn) -> tuple[np.ndarray, np.ndarray]:
    """What a DICOM mask holds.

    Parameters
    ----------
    path : str
        Of the file, or of the copy of an archive's member.
    mask : MaskFile
        Of `choose_masks`.
    volume : SuvVolume
        Of the PET series.
    warn : Warn

    Returns
    -------
    mask : ndarray
        (slice, row, column) bool.
    matrix : ndarray
        (4, 4): its indices to mm.
    """
    dataset = dcmread(readable(path), force=True)
    if dataset.SOPClassUID == RTSTRUCT:
        return _read_contours(dataset, mask, volume, warn), volume.stored.matrix
    return _read_segmentation(dataset, volume, warn)


def _read_segmentation(dataset: Any, volume: SuvVolume, warn: Warn) -> tuple[np.ndarray, np.ndarray]:
    """A DICOM SEG (PS3.3 A.51), all its segments; frames that are not there are empty."""
    from highdicom.seg import Segmentation

    seg = Segmentation.from_dataset(dataset, copy=False)
    _united("segments", [(item.SegmentNumber, item.get("SegmentLabel")) for item in seg.SegmentSequence], warn)
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
    if max(slices.max(), seg.Rows, seg.Columns) > MOST_SIDE:
        raise Refused("PlanePositionSequence", f"{slices.max() + 1} x {seg.Rows} x {seg.Columns}",
                      "is not the size of a mask", "export the mask again")
    mask = np.zeros((slices.max() + 1, seg.Rows, seg.Columns), bool)
    least = 0.5 * seg.MaximumFractionalValue if seg.SegmentationType == "FRACTIONAL" else 1
    for number, at in enumerate(slices, start=1):
        mask[at] |= seg.get_stored_frame(number) >= least
    grid = make_grid(mask.shape, (step, *spacing[0]), axes, points[along.argmin()])
    return mask, grid.matrix


def _slice_spacing(along: np.ndarray, first: Sequence[float], last: Sequence[float]) -> float:
    """The spacing that slices at these places, mm, have: `first`, the smallest gap or `last`; what fits to a tenth.

    Empty slices may be missing, so that the smallest gap alone does not say it.
    """
    gap = np.diff(np.unique(along.round(2))).min(initial=np.inf)
    for step in (*first, gap, *last):
        if 0.01 < step < np.inf and np.abs(along / step - np.round(along / step)).max() < 0.1:
            return float(step)
    return float(last[-1])


def _united(kind: str, parts: Sequence[tuple[int, Any]], warn: Warn) -> None:
    if len(parts) > 1:
        warn(f"the mask holds {len(parts)} {kind}, {_names(parts)}: all were united")


def _names(parts: Sequence[tuple[int, Any]]) -> str:
    """Parts of a mask by their numbers, and by their names where these are of words that identify nobody."""
    words = [re.findall(r"\w+", re.sub(r"[\d_]", " ", str(name).lower())) for _, name in parts]
    return some([f"{number}" + f" ({' '.join(found)})" * (0 < len(found) and LABELS >= set(found))
                 for (number, _), found in zip(parts, words, strict=True)], 10)


# Contours

def _read_contours(dataset: Any, mask: MaskFile, volume: SuvVolume, warn: Warn) -> np.ndarray:
    """The lesions of an RTSTRUCT (PS3.3 A.19) on the slices of the PET series.

    Of each ROI a slice takes the contours of the plane that is nearest to it: within half the distance of slices, or of
    planes, where these are further apart.
    """
    lesions = _lesions(dataset, mask.frames, warn)
    kinds = {str(contour.get("ContourGeometricType", "")) for contours in lesions.values() for contour in contours}
    if wrong := sorted(kinds - {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}):
        raise Refused("ContourGeometricType", ", ".join(wrong), "is no closed planar contour",
                      "export the lesions as closed planar contours")
    _united("ROIs", list(lesions), warn)
    grid = volume.stored
    height, *pixel = np.linalg.norm(grid.matrix[:3, :3], axis=0)
    rois = {roi: _planes(contours, np.linalg.inv(grid.matrix), height) for roi, contours in lesions.items()}
    places = np.array([place for planes in rois.values() for place, _ in planes])
    step = _slice_spacing((places - places.min()) * height, [height] * len(mask.series), [height])
    reach = max(step / height, 1) / 2 if step <= WIDEST else 0.5
    if places.min() < -reach or places.max() > grid.shape[0] - 1 + reach:
        raise Refused("ContourData", "", "a contour lies beyond the slices of the PET", "give the mask of this PET")
    if reach > 0.55 or np.abs(places - places.round()).max() > 0.1:
        warn(f"the contours are not on the PET's slices, which took the nearest within {reach * height:.3g} mm")

    fill = functools.partial(fill_polygons, shape=grid.shape[1:], tolerance=OUTLINE / np.array(pixel))
    filled, missed, overlap = np.zeros(grid.shape, bool), [], False
    for roi, planes in rois.items():
        distance, size = np.abs(np.arange(len(filled))[:, None] - [place for place, _ in planes]), 0
        for level in np.flatnonzero(distance.min(axis=1) <= reach):
            polygons = planes[distance[level].argmin()][1]
            inside = fill(polygons)
            filled[level] |= inside
            size += inside.sum()
            overlap |= len(polygons) > 1 and bool((np.any([fill([one]) for one in polygons], axis=0) & ~inside).any())
        if not size:
            missed.append(roi)
    if len(missed) == len(rois):
        raise Refused("ContourData", "", "the centre of no voxel of the PET lies in a contour",
                      "give the mask of this PET")
    if missed:
        warn(f"the centre of no voxel of the PET lies in ROI {_names(missed)}: left out")
    if overlap and "CLOSED_PLANAR" in kinds:
        warn("contours of one ROI lie over one another: where an even number does was taken for a hole")
    corners = np.array([end(axis=0) for planes in rois.values() for _, several in planes for one in several
                        for end in (one.min, one.max)])
    if corners.min() < -0.51 or (corners > np.array(grid.shape[1:]) - 0.49).any():
        warn("contours reach beyond the PET's pixels: what lies there was left out")
    return filled


def _lesions(dataset: Any, frames: Sequence[str], warn: Warn) -> dict[tuple[int, Any], list[Any]]:
    """The contours of each ROI, (number, name), that is a lesion by its type and in the frame of reference."""
    described = {roi.ROINumber: roi for roi in dataset.get("StructureSetROISequence") or ()}
    types = {item.ReferencedROINumber: str(item.get("RTROIInterpretedType") or "").strip().upper()
             for item in dataset.get("RTROIObservationsSequence") or ()}
    lesions: dict[tuple[int, Any], list[Any]] = {}
    said: dict[str, list[tuple[int, Any]]] = {}
    for item in dataset.get("ROIContourSequence") or ():
        number = item.ReferencedROINumber
        roi, kind, contours = described.get(number, {}), types.get(number, ""), item.get("ContourSequence")
        frame = roi.get("ReferencedFrameOfReferenceUID")
        why = "of another frame of reference were left out" if frame and frames and frame not in frames else \
            f"of type {kind}, no lesions, were left out" if kind not in LESIONS else ""
        if contours and not why:
            lesions.setdefault((number, roi.get("ROIName")), []).extend(contours)
        if contours and (why or not kind):
            said.setdefault(why or "without type were taken for lesions", []).append((number, roi.get("ROIName")))
    for what, parts in said.items():
        warn(f"ROIs {what}: {_names(parts)}")
    if not lesions:
        raise Refused("RTROIInterpretedType", ", ".join(sorted(set(types.values()))), "no ROI that has contours is a "
                      "lesion", "give lesions the type GTV, or none")
    return lesions


def _planes(contours: Sequence[Any], to_index: np.ndarray, height: float) -> list[tuple[float, list[np.ndarray]]]:
    """Contours by the plane that they lie on: its place, in slices from the first, and polygons of (row, column)."""
    polygons = {}
    for contour in contours:
        stored = contour.get_item("ContourData")  # bytes: pydicom is slow, and leaves those over 64 KiB
        value = (stored and stored.value or b"").decode().strip("\0 ")
        points = np.array(value.split("\\") if value else [], float)
        if not points.size or points.size % 3 or not np.isfinite(points).all():
            raise Refused("ContourData", counted(points.size, "number"), "is no list of points",
                          "export the mask again")
        points = points.reshape(-1, 3) + np.array(contour.get("ContourOffsetVector") or (0, 0, 0), float)
        indices = points @ to_index[:3, :3].T + to_index[:3, 3]
        if np.ptp(indices[:, 0]) > 0.5:
            raise Refused("ContourData", "", "a contour is not parallel to the slices of the PET",
                          "give a mask whose contours are")
        polygons[indices.tobytes()] = indices  # copies count once
    several = sorted(polygons.values(), key=lambda polygon: float(polygon[:, 0].mean()))
    places = np.array([polygon[:, 0].mean() for polygon in several]) - 1e-3  # halfway counts for the lower slice
    parts = np.split(np.arange(len(several)), np.flatnonzero(np.diff(places) * height > 0.1) + 1)
    return [(float(places[part].mean()), [several[i][:, 1:] for i in part]) for part in parts]


def fill_polygons(polygons: Sequence[np.ndarray], shape: Sequence[int], tolerance: Sequence[float] | np.ndarray
                  ) -> np.ndarray:
    """The pixels whose centre lies in an odd number of polygons, or on the outline of one (PS3.3 C.8.8.6.3).

    Parameters
    ----------
    polygons : sequence of ndarray
        (n, 2): row and column of each corner; a pixel's centre has whole ones.
    shape : sequence of int
        Rows and columns.
    tolerance : (float, float)
        In rows and in columns: what is nearer to an outline lies on it.

    Returns
    -------
    ndarray
        (rows, columns) bool.
    """
    filled = np.zeros(shape, bool)
    starts, ends = np.concatenate(polygons), np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    down, across = tolerance
    low, high = np.ceil(starts[:, 0].min() - down), np.floor(starts[:, 0].max() + down)
    for row in range(max(int(low), 0), min(int(high), shape[0] - 1) + 1):
        for line in (row - down, row, row + down):
            crossing = (starts[:, 0] <= line) != (ends[:, 0] <= line)
            (from_row, from_column), (to_row, to_column) = starts[crossing].T, ends[crossing].T
            columns = from_column + (line - from_row) / (to_row - from_row) * (to_column - from_column)
            for left, right in np.sort(columns).reshape(-1, 2):
                filled[row, max(int(np.ceil(left - across)), 0):max(int(np.floor(right + across)) + 1, 0)] = True
    return filled
