"""One PET DICOM series -> one volume of body-weight SUV (g/ml), or a refusal that says why.

from preprocessing import suv
volume = suv.suv_volume("study/series")
volume.array, volume.spacing, volume.warnings

Sources: DICOM PS3.3 C.8.9 (PET modules) and C.8.22 (Enhanced PET); the QIBA vendor-neutral SUV pseudo-code; the IBSI
manual for SUV computation. What was assumed is in `warnings`; what cannot be known is refused.
"""
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from common.mips import LEAST_SUV
from common.text import counted
from preprocessing import dicom_values as values
from preprocessing import dose
from preprocessing.dicom_pixels import read_pixels
from preprocessing.dicom_reader import LOSSY, is_dicomdir, is_pet, read_header, series_of, without_copies
from preprocessing.dicom_reader import frames as frames_of
from preprocessing.dicom_values import Header, NotDicom, Refused, integer, number, text
from preprocessing.dose import GE, Warn, body_height, body_weight, reference_mass
from preprocessing.geometry import Grid, make_grid, patient_axes, regular_slices, slice_geometry
from preprocessing.overrides import override
from preprocessing.time_frames import choose_frames

__all__ = ["Refused", "SuvVolume", "suv_volume"]

SAME = ("StudyInstanceUID", "PatientID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPClassUID", "Modality", "Units",
        "SUVType", "DecayCorrection", "DecayCorrected", "DecayCorrectionDateTime", "AttenuationCorrected",
        "CorrectedImage", "PatientWeight", "PatientSize", "PatientSex", "PixelSpacing", "SeriesDate",
        "SeriesTime", "RadiopharmaceuticalInformationSequence", "TimezoneOffsetFromUTC", "own")  # of `override`
SAME_INTEGER = ("Rows", "Columns", "PixelRepresentation")
PHILIPS = 0x7053, "Philips PET Private Group"
PRIVATE = (*GE, 0x0D), (*GE, 0x3B), (*PHILIPS, 0x00), (*PHILIPS, 0x09)
POSSIBLE_MEAN, USUAL_MEAN = (0.2, 15), (0.4, 2)  # SUV, of `body_mean`
Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass
class SuvVolume:
    """A PET series as SUV.

    Attributes
    ----------
    array : ndarray
        (z, y, x) float32, g/ml; z from feet to head, y from front to back, x from the patient's right to left.
    spacing : tuple of float
        (z, y, x) distance of voxel centres, mm.
    origin : tuple of float
        (z, y, x) patient coordinates of the first voxel's centre, mm.
    warnings : list of str
        Every assumption that was made.
    units : str
        Units as stored.
    uptake_min : float or None
        Minutes from injection to the time that the values are decay-corrected to.
    scanner, patient_id, study_uid, series_uid : str
        As stored; all but the first may identify.
    stored : Grid
        The series' own, before it was turned into (z, y, x).
    suv_type : str
        Of `dose.SUV_TYPES`: what the values are normalised to.
    recorded : dict of str to float
        Of `dose.recorded`.
    body_mean : float
        Of `body_mean`.
    synthetic : bool
        Whether phantom.py drew it, by its SeriesDescription.
    """

    array: np.ndarray
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    warnings: list[str]
    units: str
    uptake_min: float | None
    scanner: str
    patient_id: str = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    stored: Grid = field(repr=False)
    suv_type: str = "bw"
    recorded: dict[str, float] = field(default_factory=dict)
    body_mean: float = math.nan
    synthetic: bool = False


def suv_volume(folder_or_files: Files, allow_uncorrected: bool = False, suv_type: str = "bw",
               frames: str | None = None, overrides: Mapping[str, str] | None = None) -> SuvVolume:
    """Read one PET series and convert it to SUV.

    Parameters
    ----------
    folder_or_files : str, path or sequence of them
        A folder, searched with its subfolders for the files of one PET series (other objects are passed over), or just
        these files.
    allow_uncorrected : bool
        Take a series that is not attenuation corrected.
    suv_type : {"bw", "lbm", "lbm_james", "bsa"}
        Normalised to body weight, lean body mass (Janmahasatian; James) (g/ml), or body surface area (cm2/ml).
    frames : str or None
        Of a dynamic series: "last", "mean", or the number of a time frame, from 1.
    overrides : dict of str to str, optional
        Column of `overrides.COLUMNS` -> value to use instead of the files'.

    Raises
    ------
    Refused
        Naming the attribute, its value, the reason and a remedy.
    """
    try:
        headers, warnings = _read_series(folder_or_files)
        override(headers, overrides or {}, warnings.append, suv_type, _stored_type(headers[0]))
        parts, weights = choose_frames(headers, frames, warnings.append)
        volume = _convert(parts[0], allow_uncorrected, suv_type)
        if len(parts) > 1:
            volume.array *= np.float32(weights[0])
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            other = _convert(part, allow_uncorrected, suv_type)
            volume.array += np.multiply(other.array, np.float32(weight), out=other.array)
            volume.warnings += other.warnings
        volume.warnings = list(dict.fromkeys(warnings + volume.warnings))
        return volume
    except Refused as error:
        if isinstance(folder_or_files, str | os.PathLike):
            error.args = (f"{folder_or_files}: {error}",)
        raise


def _convert(headers: list[Header], allow_uncorrected: bool, suv_type: str) -> SuvVolume:
    warnings: list[str] = []
    _check_same(headers)
    first = headers[0]
    if "ATTN" not in values.corrections(first) and not allow_uncorrected:
        raise Refused("CorrectedImage", text(first, "CorrectedImage"), "not attenuation corrected (no ATTN)",
                      "choose the corrected series, or allow uncorrected ones")
    announced = max((integer(h, "NumberOfSlices") for h in headers if h.get("NumberOfSlices")), default=0)
    if "frame" not in first and announced > len(headers):
        warnings.append(f"NumberOfSlices says {announced}, {counted(len(headers), 'slice is', 'slices are')} there")
    if "REPROJECTION" in text(first, "SeriesType"):
        raise Refused("SeriesType", text(first, "SeriesType"), "projections, no volume", "give the axial series")
    if text(first, "ImageType").startswith("DERIVED"):
        warnings.append(f"ImageType is {values.shown(first, 'ImageType')}: not as reconstructed")
    if text(first, "SeriesType").split("\\")[0] in ("DYNAMIC", "GATED") and "dynamic" not in first:
        warnings.append(f"SeriesType is {values.shown(first, 'SeriesType')}: one time frame or gate of a longer scan?")
    if any(text(h, "LossyImageCompression") == "01" or h["syntax"] in LOSSY for h in headers):
        warnings.append("the pixels were compressed with loss")
    if irregular := [h["irregular"] for h in headers if "irregular" in h]:
        warnings.append(f"{len(irregular)} irregular DICOM files were read by pydicom: {irregular[0]}")
    headers, positions, spacing, axes, origin = slice_geometry(headers)
    nuclide, tracer = dose.tracer_of(dose.radiopharmaceutical(first))
    if nuclide not in ("F-18", "") or tracer not in ("FDG", ""):
        warnings.append(f"not FDG: {tracer if nuclide in tracer else f'{nuclide} {tracer}'.strip()}")
    scale, uptake, by_dose = _suv_scale(headers, math.prod(spacing) / 1000, warnings.append)
    factor = dose.suv_type_factor(suv_type, first, warnings.append)
    array = _read_array(headers, scale * factor)
    _clear_padding(array, factor, warnings.append)
    array = regular_slices(array, positions, spacing[0], warnings.append)
    mean = body_mean(array)
    if nuclide in ("F-18", "") and tracer in ("FDG", ""):
        _check_body(mean / factor, first, by_dose)
        warn_of_mean(mean / factor, "are dose, weight and times right?" if by_dose else "are its values SUV?",
                     warnings.append)
    stored = make_grid(array.shape, spacing, axes, origin)
    array, spacing, origin = patient_axes(array, spacing, axes, origin, warnings.append)
    if not 1 <= (highest := float(array.max()) / factor) <= 1000:
        warnings.append(f"SUV maximum {highest:.3g} is unusual")
    scanner = " ".join(filter(None, (text(first, k) for k in ("Manufacturer", "ManufacturerModelName"))))
    patient, study, series = (text(first, k) for k in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"))
    synthetic = "SYNTHETIC" in text(first, "SeriesDescription")
    return SuvVolume(array, spacing, origin, warnings, text(first, "Units"), uptake, scanner, patient, study,
                     series, stored, suv_type, dose.recorded(first), mean, synthetic)


def body_mean(array: np.ndarray) -> float:
    """The mean of what is above 5 % of a volume's 99th percentile: the body's, at any scale. NaN where all is 0."""
    step = max(1, round((array.size / 2e5) ** (1 / 3)))  # a sample says as much, in milliseconds
    sample = array[::step, ::step, ::step]
    return float(sample[sample > 0.05 * np.percentile(sample, 99)].mean()) if (sample > 0).any() else math.nan


def warn_of_mean(mean: float, question: str, warn: Warn) -> None:
    """Ask a question where the mean SUV of a body is possible, but unusual (rule 4)."""
    if not USUAL_MEAN[0] <= mean <= USUAL_MEAN[1]:
        warn(f"the mean SUV of the body is {mean:.2g}, not near 1: {question}")


def _check_body(mean: float, first: Header, by_dose: bool) -> None:
    """Rule 4: the mean SUV of an FDG-injected body is about 1 by construction. Raises Refused where it cannot be."""
    if not POSSIBLE_MEAN[0] <= mean <= POSSIBLE_MEAN[1]:
        injected = text(dose.radiopharmaceutical(first), "RadionuclideTotalDose")
        attribute, value, remedy = (
            "RadionuclideTotalDose", f"{injected} Bq, PatientWeight {text(first, 'PatientWeight')} kg",
            "correct dose_MBq and weight_kg in --overrides: their units?") if by_dose else (
            "Units", text(first, "Units"), "export the series in BQML: its values are not SUV")
        raise Refused(attribute, value, f"give the body a mean SUV of {mean:.2g}, not near 1", remedy)


# The series

def _read_series(folder_or_files: Files) -> tuple[list[Header], list[str]]:
    """The headers of every frame of one PET series, and warnings."""
    if not isinstance(folder_or_files, str | os.PathLike):
        headers = [read_header(path) for path in folder_or_files]
    elif Path(folder_or_files).is_dir():
        headers = _search(Path(folder_or_files))
    else:
        headers = [read_header(folder_or_files)]
    series = {series_of(header)[1] for header in headers if is_pet(header)}
    headers = [header for header in headers if is_pet(header) or series_of(header)[1] in series]
    if not headers:
        raise Refused("Modality", "", "no PET image found", "give the folder or the files of one PET series")
    if len(series) > 1:
        raise Refused("SeriesInstanceUID", "", f"{len(series)} PET series found", "give the files of one of them")
    kept = without_copies(headers)
    copied = len(headers) - len(kept)
    return [frame for header in kept for frame in frames_of(header)], [
        f"{counted(copied, 'file is a copy of another', 'files are copies of others')} (same SOPInstanceUID): each "
        "slice was used once"] * bool(copied)


def _search(folder: Path) -> list[Header]:
    headers = []
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file() and not path.name.startswith(".") and not is_dicomdir(path):
                headers.append(read_header(path))
        except NotDicom as error:
            if error.suspect:
                raise
    return headers


def _check_same(headers: Sequence[Header]) -> None:
    first = headers[0]
    private_tags = [tag for place in PRIVATE if (tag := values.private(first, *place))]
    for keyword in SAME_INTEGER + SAME + tuple(private_tags):
        for header in [h for h in headers if h.get(keyword) != first.get(keyword)]:
            differs = (keyword, integer(first, keyword), integer(header, keyword)) if keyword in SAME_INTEGER else \
                _difference(keyword, first.get(keyword), header.get(keyword))
            if differs:
                raise Refused(differs[0], f"{differs[1]} and {differs[2]}", "differs between the slices of the series",
                              "remove the slices of another patient or series, or correct the attribute")


def _difference(keyword: str | int, one: Any, other: Any) -> tuple[Any, ...] | None:
    """(the attribute, its two values as text) where two values of an attribute differ, in sequences item by item.

    Numbers are compared by value, text without padding.
    """
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for a, b in zip(one, other, strict=True):
            for key in sorted(a.keys() | b.keys(), key=str):
                if a.get(key) != b.get(key) and (differs := _difference(key, a.get(key), b.get(key))):
                    return differs
        return None
    if isinstance(one, list) or isinstance(other, list):
        return keyword, *("no item" if not v else counted(len(v), "item") if isinstance(v, list) else "a value"
                          for v in (one, other))
    one, other = ((value or b"").strip(b"\0 ") for value in (one, other))
    return None if _comparable(one) == _comparable(other) else (keyword, *(_shown(v) for v in (one, other)))


def _comparable(value: bytes) -> list[float] | bytes:
    try:
        return [float(part) for part in value.split(b"\\")]
    except ValueError:
        return value


def _shown(value: bytes) -> str:
    return value.decode("latin-1") if value.isascii() and value.decode().isprintable() else f"0x{value.hex()}"


# SUV

def _read_array(headers: Sequence[Header], scale: np.ndarray) -> np.ndarray:
    """SUV of every slice, float32: stored value x scale. One allocation; each file's pixels are read once."""
    shape = len(headers), integer(headers[0], "Rows"), integer(headers[0], "Columns")
    if 4 * math.prod(shape) > (free := psutil.virtual_memory().available):
        raise Refused("Rows/Columns", f"{shape[1]}/{shape[2]}", f"{shape[0]} slices of them need more memory than the "
                      f"{free >> 30} GiB that are free", "correct the attributes, or use a machine with more")
    array = np.empty(shape, np.float32)
    for slice_, header, factor in zip(array, headers, scale, strict=True):
        np.multiply(read_pixels(header), np.float32(factor), out=slice_, casting="unsafe")
    return array


def _clear_padding(array: np.ndarray, factor: float, warn: Warn) -> None:
    """Set to 0, in place, what is no SUV, such as PixelPaddingValue around a field of view. `factor`: of SUV bw."""
    if array.min() < LEAST_SUV * factor:
        padding = array < LEAST_SUV * factor
        warn(f"{counted(padding.sum(), 'voxel is', 'voxels are')} below SUV {LEAST_SUV}: taken for padding, and for 0")
        array[padding] = 0


def _suv_scale(headers: Sequence[Header], voxel_ml: float, warn: Warn) -> tuple[np.ndarray, float | None, bool]:
    """What a stored value is multiplied by, slice by slice (rules 2 to 7).

    Returns scale (n,) float64; the uptake time in minutes, None where the formula needs no times and they are missing;
    whether weight and dose were used.
    """
    first = headers[0]
    slope = np.array([_slope(header) for header in headers])
    to_activity, to_suv = _unit_factors(headers, _units(first), voxel_ml, warn)
    radio = dose.radiopharmaceutical(first)
    if to_activity is None:
        scale, uptake = slope * to_suv, dose.uptake_if_known(headers, radio)
    else:
        weight, activity = body_weight(first, warn), dose.injected_dose(radio, warn)
        decay, uptake = dose.decay_factor(headers, radio, warn)
        scale = slope * to_activity * weight * 1000 / activity * decay
    if not (np.isfinite(scale) & (scale > 0) & (scale < 1e30)).all():
        raise Refused("RescaleSlope", f"{slope.min():g}", "gives an SUV that is no number", "correct the attribute")
    return scale, uptake, to_activity is not None


def convertible(header: Header) -> bool:
    """Whether the Units of a series, of which this is a header, give SUV (rule 3)."""
    try:
        _unit_factors([header], _units(header), 1.0, lambda text: None)
    except Refused:
        return False
    return True


def _units(header: Header) -> str:
    return text(header, "Units").upper().replace("/", "")  # as some write it: Bq/ml


def _stored_type(header: Header) -> str:
    """SUVType of the stored values; "" where they are no SUV."""
    if _units(header) == "CNTS":
        factor = values.private(header, *PHILIPS, 0x00)
        return "BW" if factor and number(header, factor) else ""
    return {"GML": text(header, "SUVType") or "BW", "CM2ML": "BSA"}.get(_units(header), "")


def _slope(header: Header) -> float:
    if number(header, "RescaleIntercept"):
        raise Refused("RescaleIntercept", text(header, "RescaleIntercept"), "must be 0 in PET (PS3.3 C.8.9.4)",
                      "export the series again")
    return values.positive(header, "RescaleSlope", "export the series again")


def _unit_factors(headers: Sequence[Header], units: str, voxel_ml: float, warn: Warn
                  ) -> tuple[float | np.ndarray | None, float | None]:
    """Rule 3: (factor to Bq/ml, None) or (None, factor to body-weight SUV)."""
    first, kind = headers[0], text(headers[0], "SUVType")
    scanner = dose.by_scanner(first)
    if units == "BQML":
        return 1.0, None
    if units == "GML" and kind in ("", "BW"):
        return None, 1.0
    if units == "GML" and kind in ("LBM", "LBMJAMES128", "LBMJANMA", "IBW"):
        weight, height = body_weight(scanner, warn), body_height(scanner, warn)
        return None, weight / reference_mass(kind, weight, height, text(scanner, "PatientSex"), warn)
    if units == "CM2ML" and kind in ("", "BSA"):
        weight = body_weight(scanner, warn)
        return None, weight / (10 * dose.body_surface(weight, body_height(scanner, warn)))
    if units in ("GML", "CM2ML"):
        raise Refused("SUVType", kind, f"not a type of SUV in {units}", "export the series in BQML")
    if units == "CNTS":
        for element, name in ((0x00, "SUV factor"), (0x09, "activity factor")):
            tag = values.private(first, *PHILIPS, element)
            if tag and (factor := number(first, tag)):
                warn(f"CNTS converted with Philips {name} (7053,10{element:02X})")
                return (None, factor) if element == 0 else (factor, None)
        raise Refused("Units", units, "counts without Philips (7053,1000) or (7053,1009)", "export it in BQML, or keep "
                      "private group 7053 when de-identifying")
    if units == "CPS":
        if "DCAL" in values.corrections(first):
            return 1 / voxel_ml, None
        factors = np.array([number(header, "DoseCalibrationFactor") or 0 for header in headers])
        if (factors <= 0).any():
            raise Refused("DoseCalibrationFactor", f"{factors.min():g}", "counts per second that nothing calibrates",
                          "export the series in BQML")
        return factors / voxel_ml, None
    raise Refused("Units", units, "cannot be converted to SUV", "export the series in BQML")
