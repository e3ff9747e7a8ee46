"""Decay between injection and image (rules 6 and 7 of docs/reference/suv_rules.md).

Times are seconds since year 0 of the calendar, on the clock of the files.
"""
import math
import re
from collections.abc import Sequence

import numpy as np

from preprocessing.dicom_reader import ENHANCED_PET
from preprocessing.dicom_values import (
    DAY,
    MINUTE,
    Header,
    corrections,
    date_and_time,
    date_time,
    number,
    private,
    required_number,
    text,
    time_of_day,
)
from preprocessing.dose import Warn, half_life_of
from preprocessing.refusal import Refused

GE = 0x0009, "GEMS_PETD_01"


def decay_factor(headers: Sequence[Header], radio: Header, warn: Warn) -> tuple[float | np.ndarray, float | None]:
    """What Bq/ml / dose is multiplied by, for decay (rule 7; PS3.3 C.8.9.4.1.5).

    Parameters
    ----------
    headers : sequence of dict
        Of every slice of one series.
    radio : dict
        The item of RadiopharmaceuticalInformationSequence.

    Returns
    -------
    factor : float or ndarray (n,)
        For all slices, or slice by slice; 1 for ADMIN.
    uptake : float or None
        Minutes from injection to the time that the values refer to; None where ADMIN lacks the times.

    Raises
    ------
    Refused
        A time is missing, or the injection is after the image or over six half-lives before it.
    """
    first, kind = headers[0], text(headers[0], "DecayCorrection")
    if kind not in ("NONE", "START", "ADMIN"):
        raise Refused("DecayCorrection", kind, "not NONE, START or ADMIN", "correct the attribute")
    if text(first, "SOPClassUID") != ENHANCED_PET and ("DECY" in corrections(first)) != (kind != "NONE"):
        warn(f"CorrectedImage and DecayCorrection {kind} disagree about DECY, DecayCorrection was followed")
    if kind == "ADMIN":
        return 1.0, uptake_if_known(headers, radio)
    name, half_life = half_life_of(radio)
    rate = math.log(2) / half_life
    factor: float | np.ndarray = 1.0
    if kind == "START":
        reference = _start_time(headers, rate, warn)
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


def _start_time(headers: Sequence[Header], rate: float, warn: Warn) -> float | np.ndarray:
    """The time that START refers to, float or (n,) for each slice."""
    first = headers[0]
    candidates: dict[str, float | np.ndarray] = {}
    if text(first, "SOPClassUID") == ENHANCED_PET:
        return date_time(first, "DecayCorrectionDateTime")
    times = [_acquisition_time(header) for header in headers]
    acquired = None if None in times else np.array(times, float)
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


def _injection_time(header: Header, radio: Header, reference: float, half_life: float, warn: Warn) -> float:
    """Rule 6: the injection's date and time, given the (earliest) reference time."""
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


def uptake_if_known(headers: Sequence[Header], radio: Header) -> float | None:
    """Minutes from injection to the first acquisition, or None: for the record, where the SUV does not need it."""
    try:
        acquired = min(_required_time(header) for header in headers)
        half_life = half_life_of(radio)[1]
        uptake = (acquired - _injection_time(headers[0], radio, acquired, half_life, lambda text: None)) / MINUTE
        return uptake if 0 <= uptake <= 6 * half_life / MINUTE else None
    except Refused:
        return None


def _acquisition_time(header: Header) -> float | None:
    if text(header, "AcquisitionDateTime"):
        return date_time(header, "AcquisitionDateTime")
    return date_and_time(header, "AcquisitionDate", "AcquisitionTime")


def _required_time(header: Header) -> float:
    time = _acquisition_time(header)
    if time is None:
        raise Refused("AcquisitionTime", text(header, "AcquisitionTime"), "missing, or without a date",
                      "add AcquisitionDate and AcquisitionTime")
    return time


def _duration(header: Header) -> float:
    duration = required_number(header, "ActualFrameDuration") / 1000
    if duration <= 0:
        raise Refused("ActualFrameDuration", f"{duration:g} s", "must be positive", "correct the attribute")
    return duration
