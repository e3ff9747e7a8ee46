"""One PET DICOM series -> one volume of body-weight SUV (g/ml), or a refusal that says why.

from preprocessing import suv
volume = suv.suv_volume("study/series")
volume.array, volume.spacing, volume.warnings

Sources: DICOM PS3.3 C.8.9 (PET modules) and C.8.22 (Enhanced PET); the QIBA vendor-neutral SUV pseudo-code; the IBSI
manual for SUV computation. What was assumed is in `warnings`; what cannot be known is refused.
"""
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocessing.dicom_reader import (
    DAY,
    ENHANCED_PET,
    LOSSY,
    NotDicom,
    Refused,
    date_and_time,
    date_time,
    frames,
    integer,
    is_dicomdir,
    is_pet,
    number,
    private,
    read_header,
    read_pixels,
    required,
    series_of,
    text,
    time_of_day,
)
from preprocessing.geometry import patient_axes, regular_slices, slice_geometry

__all__ = ["Refused", "SuvVolume", "suv_volume"]

# Radionuclide -> half-life in s (ENSDF), codes of CID 4020 (SNOMED RT and CT)
RADIONUCLIDES = {
    "F-18": (6586.2, "C-111A1", "77004003"), "C-11": (1221.8, "C-105A1", "40565003"),
    "N-13": (597.9, "C-107A1", "21576001"), "O-15": (122.24, "C-B1038", "129504001"),
    "Ga-68": (4062.6, "C-131A3", "35337001"), "Rb-82": (75.45, "C-159A2", "79197006"),
    "Cu-62": (580.2, "C-127A5", "422934004"), "Cu-64": (45721.0, "C-127A2", "3932008"),
    "Zr-89": (282276.0, "C-168A4", "63360001"), "I-124": (360806.0, "C-114A5", "40937006"),
    "Y-86": (53064.0, "C-162A3", "10738001"), "Br-76": (58320.0, "C-113A2", "79523006"),
}
SAME = ("StudyInstanceUID", "PatientID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPClassUID", "Modality", "Units",
        "SUVType", "DecayCorrection", "DecayCorrected", "DecayCorrectionDateTime", "AttenuationCorrected",
        "CorrectedImage", "PatientWeight", "PatientSize", "PatientSex", "PixelSpacing", "SeriesDate",
        "SeriesTime", "RadiopharmaceuticalInformationSequence", "TimezoneOffsetFromUTC")
SAME_INTEGER = ("Rows", "Columns", "PixelRepresentation")
GE, PHILIPS = (0x0009, "GEMS_PETD_01"), (0x7053, "Philips PET Private Group")
MINUTE = 60.0


@dataclass
class SuvVolume:
    """A PET series as SUV.

    Attributes:
        array (ndarray): (z, y, x) float32, g/ml; z from feet to head, y from front to back, x from the patient's right
            to left.
        spacing (tuple[float, float, float]): (z, y, x) distance of voxel centres, mm.
        origin (tuple[float, float, float]): (z, y, x) patient coordinates of the first voxel's centre, mm.
        warnings (list[str]): every assumption that was made.
        units (str): Units as stored. uptake_min (float | None): minutes from injection to the decay reference.
        scanner, patient_id, study_uid, series_uid, description (str): as stored; all but the first may identify.
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
    description: str = field(repr=False)


def suv_volume(folder_or_files, allow_uncorrected=False):
    """Read one PET series and convert it to SUV.

    Args:
        folder_or_files (str | Path | list): a folder, searched with its subfolders for the files of one PET series
            (other objects are passed over), or just these files.
        allow_uncorrected (bool): take a series that is not attenuation corrected.

    Returns:
        SuvVolume.

    Raises:
        Refused: naming the attribute, its value, the reason and a remedy.
    """
    try:
        return _convert(_read_series(folder_or_files), allow_uncorrected)
    except Refused as error:
        if isinstance(folder_or_files, str | os.PathLike):
            error.args = (f"{folder_or_files}: {error}",)
        raise


def _convert(headers, allow_uncorrected):
    warnings = []
    _check_same(headers)
    first = headers[0]
    if "ATTN" not in _corrections(first) and not allow_uncorrected:
        raise Refused("CorrectedImage", text(first, "CorrectedImage"), "not attenuation corrected (no ATTN)",
                      "choose the corrected series, or allow uncorrected ones")
    announced = max((integer(h, "NumberOfSlices") for h in headers if h.get("NumberOfSlices")), default=0)
    if "frame" not in first and announced > len(headers):
        warnings.append(f"NumberOfSlices says {announced}, {len(headers)} slices are there")
    if any(text(h, "LossyImageCompression") == "01" or h["syntax"] in LOSSY for h in headers):
        warnings.append("the pixels were compressed with loss")
    headers, positions, spacing, axes, origin = slice_geometry(headers)
    scale, uptake = _suv_scale(headers, math.prod(spacing) / 1000, warnings.append)
    array = regular_slices(_read_array(headers, scale), positions, spacing[0], warnings.append)
    array, spacing, origin = patient_axes(array, spacing, axes, origin, warnings.append)
    if not 1 <= (highest := float(array.max())) <= 1000:
        warnings.append(f"SUV maximum {highest:.3g} is unusual")
    scanner = " ".join(filter(None, (text(first, k) for k in ("Manufacturer", "ManufacturerModelName"))))
    names = [text(first, k) for k in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription")]
    return SuvVolume(array, spacing, origin, warnings, text(first, "Units"), uptake, scanner, *names)


# The series

def _read_series(folder_or_files):
    """The headers of every frame of one PET series."""
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
    return [frame for header in headers for frame in frames(header)]


def _search(folder):
    headers = []
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file() and not path.name.startswith(".") and not is_dicomdir(path):
                headers.append(read_header(path))
        except NotDicom as error:
            if error.suspect:
                raise
    return headers


def _check_same(headers):
    first, differs = headers[0], None
    for keyword in SAME_INTEGER + SAME + tuple(_private_tags(first)):
        for header in headers:
            if header.get(keyword) == first.get(keyword):
                continue
            if keyword in SAME_INTEGER:
                differs = keyword, integer(first, keyword), integer(header, keyword)
            else:
                differs = _difference(keyword, first.get(keyword), header.get(keyword))
            if differs:
                raise Refused(differs[0], f"{differs[1]} and {differs[2]}", "differs between the slices of the series",
                              "remove the slices of another patient or series, or correct the attribute")


def _private_tags(header):
    found = (private(header, *GE, 0x0D), private(header, *GE, 0x3B), private(header, *PHILIPS, 0x00),
             private(header, *PHILIPS, 0x09))
    return [tag for tag in found if tag]


def _difference(keyword, one, other):
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
        return keyword, *("no item" if not v else f"{len(v)} items" if isinstance(v, list) else "a value"
                          for v in (one, other))
    one, other = ((value or b"").strip(b"\0 ") for value in (one, other))
    return None if _comparable(one) == _comparable(other) else (keyword, *(_shown(v) for v in (one, other)))


def _comparable(value):
    try:
        return [float(part) for part in value.split(b"\\")]
    except ValueError:
        return value


def _shown(value):
    return value.decode("latin-1") if value.isascii() and value.decode().isprintable() else f"0x{value.hex()}"


def _corrections(header):
    return [part.strip() for part in text(header, "CorrectedImage").split("\\")]


# SUV

def _read_array(headers, scale):
    """SUV of every slice, float32: stored value x scale. One allocation; each file's pixels are read once."""
    array = np.empty((len(headers), integer(headers[0], "Rows"), integer(headers[0], "Columns")), np.float32)
    for slice_, header, factor in zip(array, headers, scale, strict=True):
        np.multiply(read_pixels(header), np.float32(factor), out=slice_, casting="unsafe")
    return array


def _suv_scale(headers, voxel_ml, warn):
    """What a stored value is multiplied by, slice by slice (suv.md rules 2 to 7).

    Returns:
        scale (n,) float64; the uptake time in minutes, or None where the formula needs no times and they are missing.
    """
    first, units = headers[0], text(headers[0], "Units")
    slope = np.array([_slope(header) for header in headers])
    to_activity, to_suv = _unit_factors(headers, units, voxel_ml, warn)
    radio = _radiopharmaceutical(first)
    if to_activity is None:
        scale, uptake = slope * to_suv, _uptake_if_known(headers, radio)
    else:
        weight, dose = _weight(first, warn), _dose(radio, warn)
        decay, uptake = _decay(headers, radio, warn)
        scale = slope * to_activity * weight * 1000 / dose * decay
    if not (np.isfinite(scale) & (scale > 0) & (scale < 1e30)).all():
        raise Refused("RescaleSlope", f"{slope.min():g}", "gives an SUV that is no number", "correct the attribute")
    return scale, uptake


def _slope(header):
    if number(header, "RescaleIntercept"):
        raise Refused("RescaleIntercept", text(header, "RescaleIntercept"), "must be 0 in PET (PS3.3 C.8.9.4)",
                      "export the series again")
    slope = required(header, "RescaleSlope")
    if slope <= 0:
        raise Refused("RescaleSlope", f"{slope:g}", "must be positive", "export the series again")
    return slope


def _unit_factors(headers, units, voxel_ml, warn):
    """(factor to Bq/ml, None) or (None, factor to body-weight SUV)."""
    first, kind = headers[0], text(headers[0], "SUVType")
    if units == "BQML":
        return 1.0, None
    if units == "GML" and kind in ("", "BW"):
        return None, 1.0
    if units == "GML" and kind in ("LBM", "LBMJAMES128", "LBMJANMA", "IBW"):
        weight = _weight(first, warn)
        return None, weight / _mass(kind, weight, _height_cm(first, warn), text(first, "PatientSex"), warn)
    if units == "CM2ML" and kind in ("", "BSA"):
        weight = _weight(first, warn)
        return None, weight / (10 * 0.007184 * _height_cm(first, warn) ** 0.725 * weight ** 0.425)
    if units in ("GML", "CM2ML"):
        raise Refused("SUVType", kind, f"not a type of SUV in {units}", "export the series in BQML")
    if units == "CNTS":
        for element, name in ((0x00, "SUV factor"), (0x09, "activity factor")):
            tag = private(first, *PHILIPS, element)
            if tag and (factor := number(first, tag)):
                warn(f"CNTS converted with Philips {name} (7053,10{element:02X})")
                return (None, factor) if element == 0 else (factor, None)
        raise Refused("Units", units, "counts without Philips (7053,1000) or (7053,1009)", "export it in BQML, or keep "
                      "private group 7053 when de-identifying")
    if units == "CPS":
        if "DCAL" in _corrections(first):
            return 1 / voxel_ml, None
        factors = np.array([number(header, "DoseCalibrationFactor") or 0 for header in headers])
        if (factors <= 0).any():
            raise Refused("DoseCalibrationFactor", f"{factors.min():g}", "counts per second that nothing calibrates",
                          "export the series in BQML")
        return factors / voxel_ml, None
    raise Refused("Units", units, "cannot be converted to SUV", "export the series in BQML")


def _mass(kind, weight, height, sex, warn):
    """The mass, kg, that an SUV was normalised to, from weight in kg and height in cm (suv.md rule 3)."""
    ratio, bmi = (weight / height) ** 2, weight / (height / 100) ** 2
    both = {"LBM": (1.10 * weight - 120 * ratio, 1.07 * weight - 148 * ratio),
            "LBMJAMES128": (1.10 * weight - 128 * ratio, 1.07 * weight - 148 * ratio),
            "LBMJANMA": (9270 * weight / (6680 + 216 * bmi), 9270 * weight / (8780 + 244 * bmi)),
            "IBW": (48.0 + 1.06 * (height - 152), 45.5 + 0.91 * (height - 152))}[kind]
    if sex in ("M", "F"):
        mass = both[sex == "F"]
    else:
        warn(f"PatientSex {sex!r}: the mean of the male and female {kind} was taken")
        mass = sum(both) / 2
    if mass <= 0:
        raise Refused("PatientSize", f"{height:g} cm", f"gives a {kind} of {mass:.1f} kg", "correct height and weight")
    return mass


def _weight(header, warn):
    weight = number(header, "PatientWeight") or 0
    if weight <= 0:
        raise Refused("PatientWeight", text(header, "PatientWeight"), "missing or not positive",
                      "add the weight in kg to the files")
    if weight > 1000:
        weight /= 1000
        warn(f"PatientWeight read as grams: {weight:g} kg")
    if not 20 <= weight <= 250:
        warn(f"PatientWeight {weight:g} kg is unusual")
    return weight


def _height_cm(header, warn):
    height = number(header, "PatientSize") or 0
    if height <= 0:
        raise Refused("PatientSize", text(header, "PatientSize"), "missing or not positive",
                      "add the height in m to the files")
    if height > 3:
        warn(f"PatientSize read as centimetres: {height:g} cm")
    else:
        height *= 100
    if not 100 <= height <= 220:
        warn(f"PatientSize {height:g} cm is unusual")
    return height


def _radiopharmaceutical(header):
    items = header.get("RadiopharmaceuticalInformationSequence") or [{}]
    if len(items) > 1:
        raise Refused("RadiopharmaceuticalInformationSequence", f"{len(items)} items", "more than one injection",
                      "keep the item that the images show")
    return items[0]


def _dose(radio, warn):
    dose = number(radio, "RadionuclideTotalDose") or 0
    if dose <= 0:
        raise Refused("RadionuclideTotalDose", text(radio, "RadionuclideTotalDose"), "missing or not positive",
                      "add the injected dose in Bq to the files")
    if dose < 1e4:
        dose *= 1e6
        warn(f"RadionuclideTotalDose read as MBq: {dose / 1e6:g} MBq")
    if not 1e7 <= dose <= 2e9:
        warn(f"RadionuclideTotalDose {dose / 1e6:g} MBq is unusual")
    return dose


def _half_life(radio):
    """(radionuclide name or "", half-life in s); from the attribute, else from the code. They must not disagree."""
    code = text((radio.get("RadionuclideCodeSequence") or [{}])[0], "CodeValue")
    given = number(radio, "RadionuclideHalfLife") or 0
    name = next((n for n, (_, *codes) in RADIONUCLIDES.items() if code in codes), "")
    known = RADIONUCLIDES[name][0] if name else 0
    if given < 0 or not given and not known:
        raise Refused("RadionuclideHalfLife", text(radio, "RadionuclideHalfLife"), "missing, and the radionuclide code "
                      f"{code!r} is not known", "add the half-life in s")
    if given and known and abs(given / known - 1) > 0.05:
        raise Refused("RadionuclideHalfLife", f"{given:g} s", f"{name} has {known:g} s", "correct one of the two")
    if not name and abs(given / RADIONUCLIDES["F-18"][0] - 1) < 0.02:
        name = "F-18"
    return name, given or known


# Times, in s since year 0 of the calendar

def _decay(headers, radio, warn):
    """What Bq/ml / dose is multiplied by, for decay (suv.md rule 7).

    Returns:
        factor, float or (n,): one for ADMIN; the uptake time in minutes, or None where ADMIN lacks the times.
    """
    first, kind = headers[0], text(headers[0], "DecayCorrection")
    if kind not in ("NONE", "START", "ADMIN"):
        raise Refused("DecayCorrection", kind, "not NONE, START or ADMIN", "correct the attribute")
    if text(first, "SOPClassUID") != ENHANCED_PET and ("DECY" in _corrections(first)) != (kind != "NONE"):
        warn(f"CorrectedImage and DecayCorrection {kind} disagree about DECY, DecayCorrection was followed")
    if kind == "ADMIN":
        return 1.0, _uptake_if_known(headers, radio)
    name, half_life = _half_life(radio)
    rate = math.log(2) / half_life
    if kind == "START":
        reference, factor = _start_time(headers, rate, warn), 1.0
    else:
        reference = np.array([_required_time(header) for header in headers])
        exposure = rate * np.array([_duration(header) for header in headers])
        factor = exposure / -np.expm1(-exposure)
    earliest, latest = np.min(reference), np.max(reference)
    injection = _injection_time(first, radio, earliest, half_life, warn)
    uptake = (earliest - injection) / MINUTE
    if earliest < injection or latest - injection > 6 * half_life:
        raise Refused("RadiopharmaceuticalStartTime", f"{uptake:.1f} min before the image",
                      f"is not within 0 and six half-lives ({6 * half_life / MINUTE:.0f} min)",
                      "correct the times of injection and acquisition")
    if name == "F-18" and not 30 <= uptake <= 120:
        warn(f"uptake time of {uptake:.0f} min is outside 30 to 120 min")
    return factor * np.exp(rate * (reference - injection)), uptake


def _start_time(headers, rate, warn):
    """The time that START refers to, float or (n,) for each slice."""
    first, candidates = headers[0], {}
    if text(first, "SOPClassUID") == ENHANCED_PET:
        return date_time(first, "DecayCorrectionDateTime")
    acquired = [_acquisition_time(header) for header in headers]
    acquired = None if None in acquired else np.array(acquired)
    tag, series = private(first, *GE, 0x0D), date_and_time(first, "SeriesDate", "SeriesTime")
    if tag and text(first, tag):
        candidates["GE (0009,100D)"] = date_time(first, tag)
    if series is not None and (acquired is None or series <= acquired.min() + 1):  # written to the second
        candidates["SeriesTime"] = series
    if acquired is not None:
        shift = [number(header, "FrameReferenceTime") for header in headers]
        if None not in shift and all(number(header, "ActualFrameDuration") for header in headers):
            x = rate * np.array([_duration(header) for header in headers])
            average = np.log(x / -np.expm1(-x)) / rate
            candidates["FrameReferenceTime"] = acquired + average - np.array(shift) / 1000
        candidates["earliest AcquisitionTime"] = acquired.min()
    if not candidates:
        raise Refused("AcquisitionTime", "", "no date and time that the decay correction refers to",
                      "add SeriesDate and SeriesTime, or AcquisitionDate and AcquisitionTime")
    used, reference = next(iter(candidates.items()))
    others = [f"{name} {(np.min(time) - np.min(reference)) / MINUTE:+.1f} min" for name, time in candidates.items()
              if name != used and abs(np.min(time) - np.min(reference)) > MINUTE]
    if others:
        warn(f"decay reference is {used}, others disagree: {', '.join(others)}")
    elif used == "earliest AcquisitionTime":
        warn(f"decay reference assumed to be the {used}")
    elif acquired is None:
        warn(f"decay reference is {used}, with no AcquisitionTime to compare it with")
    if (spread := np.ptp(reference)) > MINUTE:
        warn(f"decay reference by {used} differs between slices by up to {spread / MINUTE:.1f} min")
    return reference


def _injection_time(header, radio, reference, half_life, warn):
    """suv.md rule 6: the injection's date and time, given the (earliest) reference time."""
    start, day = text(radio, "RadiopharmaceuticalStartTime"), math.floor(reference / DAY) * DAY
    if len(text(radio, "RadiopharmaceuticalStartDateTime")) > 8:  # a date alone is no time
        injection = date_time(radio, "RadiopharmaceuticalStartDateTime", header)
        if re.search("[+-]", text(radio, "RadiopharmaceuticalStartDateTime")) and not text(
                header, "TimezoneOffsetFromUTC"):
            warn("the injection's offset from UTC was ignored: TimezoneOffsetFromUTC is missing")
        if start and MINUTE < (injection - time_of_day(radio, "RadiopharmaceuticalStartTime")) % DAY < DAY - MINUTE:
            warn("RadiopharmaceuticalStartTime differs from RadiopharmaceuticalStartDateTime, which was used")
        if abs(day - math.floor(injection / DAY) * DAY) > DAY:
            moved = day + injection % DAY
            moved -= DAY * (moved > reference)
            if reference - moved <= 6 * half_life:
                warn("the injection's date is not the scan's: only its time of day was used")
                return moved
        return injection
    if start:
        injection = day + time_of_day(radio, "RadiopharmaceuticalStartTime")
        if injection > reference:
            warn("injection has no date: the day before the scan was assumed")
            return injection - DAY
        warn("injection has no date: the day of the scan was assumed")
        return injection
    tag = private(header, *GE, 0x3B)
    if tag and text(header, tag):
        warn("injection time from GE (0009,103B)")
        return date_time(header, tag)
    raise Refused("RadiopharmaceuticalStartTime", "", "the injection time is missing",
                  "add RadiopharmaceuticalStartDateTime to the files")


def _uptake_if_known(headers, radio):
    """Minutes from injection to the first acquisition, or None: for the record, where the SUV does not need it."""
    try:
        acquired = min(_required_time(header) for header in headers)
        half_life = _half_life(radio)[1]
        uptake = (acquired - _injection_time(headers[0], radio, acquired, half_life, lambda text: None)) / MINUTE
        return uptake if 0 <= uptake <= 6 * half_life / MINUTE else None
    except Refused:
        return None


def _acquisition_time(header):
    if text(header, "AcquisitionDateTime"):
        return date_time(header, "AcquisitionDateTime")
    return date_and_time(header, "AcquisitionDate", "AcquisitionTime")


def _required_time(header):
    time = _acquisition_time(header)
    if time is None:
        raise Refused("AcquisitionTime", text(header, "AcquisitionTime"), "missing, or without a date",
                      "add AcquisitionDate and AcquisitionTime")
    return time


def _duration(header):
    duration = required(header, "ActualFrameDuration") / 1000
    if duration <= 0:
        raise Refused("ActualFrameDuration", f"{duration:g} s", "must be positive", "correct the attribute")
    return duration
