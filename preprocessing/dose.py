"""What the activity is divided by: weight, injected dose, and its decay (rules 4 to 7 of docs/reference/suv_rules.md).

Times are seconds since year 0 of the calendar, on the clock of the files.
"""
import contextlib
import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from common.text import counted
from preprocessing import dicom_values as values
from preprocessing.dicom_reader import ENHANCED_PET
from preprocessing.dicom_values import DAY, MINUTE, Header, Refused, number, positive, text, time_of_day

Warn = Callable[[str], None]  # takes note of an assumption
GE = 0x0009, "GEMS_PETD_01"

# Radionuclide -> half-life in s (ENSDF), codes of CID 4020 (SNOMED RT and CT)
RADIONUCLIDES = {
    "F-18": (6586.2, "C-111A1", "77004003"), "C-11": (1221.8, "C-105A1", "40565003"),
    "N-13": (597.9, "C-107A1", "21576001"), "O-15": (122.24, "C-B1038", "129504001"),
    "Ga-68": (4062.6, "C-131A3", "35337001"), "Rb-82": (75.45, "C-159A2", "79197006"),
    "Cu-62": (580.2, "C-127A5", "422934004"), "Cu-64": (45721.0, "C-127A2", "3932008"),
    "Zr-89": (282276.0, "C-168A4", "63360001"), "I-124": (360806.0, "C-114A5", "40937006"),
    "Y-86": (53064.0, "C-162A3", "10738001"), "Br-76": (58320.0, "C-113A2", "79523006"),
    "Tc-99m": (21624.1, "C-163A8", "72454003"),  # no positron: SPECT that is stored as PT
}
SUV_TYPES = {"bw": "body weight", "lbm": "lean body mass by Janmahasatian", "lbm_james": "lean body mass by James",
             "bsa": "body surface area"}
DOSE_UNITS = {"mCi": 3.7e7, "µCi": 3.7e4, "GBq": 1e9, "kBq": 1e3}  # in Bq; what RadionuclideTotalDose was mistaken for
LEAST_DOSE, MOST_DOSE, USUAL_DOSE = 1e7, 2e9, 3e8  # of F-18, Bq
FDG = re.compile(r"fdg|glu[ck][oó][sz]|fludeoxygl", re.IGNORECASE)  # Fluordesoxyglukose, fluorodeoksyglukoza, ...
TRACERS = re.compile(r"\b(?:\w{0,3}PSMA|DOTA|FAPI|F?DOPA|(?:fluoro|methyl)?choline|glu[ck]ose|methionine|acetate|"
                     r"ammonia|water|fluciclovine|fluoride|NaF|FET|FLT|FES|FMISO|FAZA|PiB|florbeta|flutemetamol)"
                     r"[\w-]{0,8}|\b(?:F|C|N|O|Ga|Rb|Cu|Zr|I|Y|Br|Tc)-?\d{2,3}m?\b", re.IGNORECASE)
NO_TRACER = re.compile(r"([\W_]|18|f|fluor|fluorine|fluoro|solution|unknown|other)*", re.IGNORECASE)  # F-18 and no more
LATE_INJECTION = 15 * MINUTE  # about the start of an acquisition of which the image is a late window
DUMMY = 300 * DAY  # dates that differ by more are not those of one examination


def reference_mass(kind: str, weight: float, height: float, sex: str, warn: Warn) -> float:
    """The mass that an SUV is normalised to (rule 3; DICOM PS3.3 C.8.9.4.1.7).

    Parameters
    ----------
    kind : {"LBM", "LBMJAMES128", "LBMJANMA", "IBW"}
        SUVType.
    weight, height : float
        kg, cm.
    sex : str
        PatientSex.

    Returns
    -------
    float
        kg.

    Raises
    ------
    Refused
        The formula gives no positive mass.
    """
    ratio, bmi = (weight / height) ** 2, weight / (height / 100) ** 2
    both = {"LBM": (1.10 * weight - 120 * ratio, 1.07 * weight - 148 * ratio),
            "LBMJAMES128": (1.10 * weight - 128 * ratio, 1.07 * weight - 148 * ratio),
            "LBMJANMA": (9270 * weight / (6680 + 216 * bmi), 9270 * weight / (8780 + 244 * bmi)),
            "IBW": (48.0 + 1.06 * (height - 152), 45.5 + 0.91 * (height - 152))}[kind]
    if sex in ("M", "F"):
        mass = both[sex == "F"]
    else:
        sex = sex if values.harmless(sex) else values.WITHHELD
        warn(f"PatientSex {sex!r}: the mean of the male and female {kind} was taken")
        mass = sum(both) / 2
    if mass <= 0:
        raise Refused("PatientSize", f"{height:g} cm", f"gives a {kind} of {mass:.1f} kg", "correct height and weight")
    return mass


def suv_type_factor(suv_type: str, header: Header, warn: Warn) -> float:
    """What body-weight SUV is multiplied by for another type of SUV.

    Parameters
    ----------
    suv_type : str
        Of `SUV_TYPES`.

    Raises
    ------
    Refused
        The type needs PatientWeight or PatientSize, and it is missing.
    """
    if suv_type == "bw":
        return 1.0
    weight, height = body_weight(by_scanner(header), warn), body_height(header, warn)
    if suv_type == "bsa":
        return 10 * body_surface(weight, height) / weight
    kind = "LBMJANMA" if suv_type == "lbm" else "LBMJAMES128"
    return reference_mass(kind, weight, height, text(header, "PatientSex"), warn) / weight


def by_scanner(header: Header) -> Header:
    """The header with the weight, height and sex that stored SUV hold: those of before --overrides, where known."""
    return header | header.get("own", [{}])[0]


def body_surface(weight: float, height: float) -> float:
    """Body surface area, m2, by Du Bois; kg, cm."""
    return 0.007184 * height ** 0.725 * weight ** 0.425


def body_weight(header: Header, warn: Warn) -> float:
    """PatientWeight in kg (rule 4). Raises Refused where it is missing or not positive."""
    weight = positive(header, "PatientWeight", "give weight_kg in --overrides")
    if weight > 1000:
        weight /= 1000
        warn(f"PatientWeight read as grams: {weight:g} kg")
    if not 20 <= weight <= 250:
        warn(f"PatientWeight {weight:g} kg is unusual")
    height = number(header, "PatientSize") or 0
    height = height / 100 if height > 3 else height
    if height > 1 and not 12 <= (bmi := weight / height ** 2) <= 45:
        warn(f"PatientWeight {weight:g} kg at {100 * height:g} cm is a BMI of {bmi:.0f}: is it in kg, not in pounds?")
    return weight


def body_height(header: Header, warn: Warn) -> float:
    """PatientSize in cm (rule 4). Raises Refused where it is missing or not positive."""
    height = positive(header, "PatientSize", "give height_m in --overrides")
    if height > 3:
        warn(f"PatientSize read as centimetres: {height:g} cm")
    else:
        height *= 100
    if not 100 <= height <= 220:
        warn(f"PatientSize {height:g} cm is unusual")
    return height


def radiopharmaceutical(header: Header) -> Header:
    """The item of RadiopharmaceuticalInformationSequence (PS3.3 C.8.9.2); Refused where there are several."""
    items = header.get("RadiopharmaceuticalInformationSequence") or [{}]
    if len(items) > 1:
        raise Refused("RadiopharmaceuticalInformationSequence", counted(len(items), "item"), "more than one injection",
                      "keep the item that the images show")
    return items[0]


def injected_dose(radio: Header, warn: Warn) -> float:
    """RadionuclideTotalDose in Bq (rule 4).

    Raises Refused where it is missing, not positive, or of F-18 and impossible: the unit that would fit is named.
    """
    stored = dose = positive(radio, "RadionuclideTotalDose", "give dose_MBq in --overrides")
    if dose < 1e4:
        dose *= 1e6
        warn(f"RadionuclideTotalDose read as MBq: {dose / 1e6:g} MBq")
    if not LEAST_DOSE <= dose <= MOST_DOSE:
        if tracer_of(radio)[0] == "F-18":
            unit = min(DOSE_UNITS, key=lambda name: abs(math.log(stored * DOSE_UNITS[name] / USUAL_DOSE)))
            raise Refused("RadionuclideTotalDose", f"{stored:g}", f"is {dose / 1e6:g} MBq, not a dose of F-18 (10 to "
                          f"2000 MBq); in {unit} it would be {stored * DOSE_UNITS[unit] / 1e6:.4g} MBq",
                          "give dose_MBq in --overrides, or correct the files")
        warn(f"RadionuclideTotalDose {dose / 1e6:g} MBq is unusual")
    return dose


def recorded(header: Header) -> dict[str, float]:
    """What is known of how a scan was acquired, whether the SUV needs it or not: weight_kg, dose_MBq, frame_min
    (minutes per bed position, or of the frame); what is missing or refused is left out.
    """
    found = {}
    with contextlib.suppress(Refused):
        found["weight_kg"] = body_weight(header, lambda text: None)
    with contextlib.suppress(Refused):
        found["dose_MBq"] = injected_dose(radiopharmaceutical(header), lambda text: None) / 1e6
    with contextlib.suppress(Refused):
        found["frame_min"] = positive(header, "ActualFrameDuration", "") / 1000 / MINUTE
    return found


def tracer_of(radio: Header) -> tuple[str, str]:
    """(radionuclide, such as "F-18", "" where it is not known; what was injected, "FDG", "" or another name)."""
    try:
        name = half_life_of(radio)[0]
    except Refused:
        name = ""
    said = text(radio, "Radiopharmaceutical")
    fdg = FDG.search(said) and name in ("F-18", "")
    named = " ".join(dict.fromkeys(TRACERS.findall(said))) or "another tracer"  # no more of a free text than that
    return name, "FDG" if fdg else "" if NO_TRACER.fullmatch(said) else named


def half_life_of(radio: Header) -> tuple[str, float]:
    """Radionuclide and half-life, from the attribute, else from the code (rule 5).

    Parameters
    ----------
    radio : dict
        The item of RadiopharmaceuticalInformationSequence.

    Returns
    -------
    name : str
        Such as "F-18", "" where it is not known.
    half_life : float
        s.

    Raises
    ------
    Refused
        Neither is there, or the two disagree.
    """
    code = text((radio.get("RadionuclideCodeSequence") or [{}])[0], "CodeValue")
    given = number(radio, "RadionuclideHalfLife") or 0
    name = next((n for n, (_, *codes) in RADIONUCLIDES.items() if code in codes), "")
    known = RADIONUCLIDES[name][0] if name else 0
    if given < 0 or not given and not known:
        raise Refused("RadionuclideHalfLife", text(radio, "RadionuclideHalfLife"), "missing, and the radionuclide code "
                      "is not known", "add the half-life in s")
    if given and known and abs(given / known - 1) > 0.05:
        raise Refused("RadionuclideHalfLife", f"{given:g} s", f"{name} has {known:g} s", "correct one of the two")
    if not name and abs(given / RADIONUCLIDES["F-18"][0] - 1) < 0.02:
        name = "F-18"
    return name, given or known


# Times and decay

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
    if text(first, "SOPClassUID") != ENHANCED_PET and ("DECY" in values.corrections(first)) != (kind != "NONE"):
        warn(f"CorrectedImage and DecayCorrection {kind} disagree about DECY, DecayCorrection was followed")
    if kind == "ADMIN":
        return 1.0, uptake_if_known(headers, radio)
    name, half_life = half_life_of(radio)
    if number(radio, "RadionuclideHalfLife") == 0:
        warn(f"RadionuclideHalfLife is 0: that of {name}, {half_life:g} s, was taken, which its code names")
    rate = math.log(2) / half_life
    reference = _start_time(headers, rate, warn) if kind == "START" else _required_times(headers)
    factor = 1.0 if kind == "START" else _exposure_factor(headers, rate)
    times = acquisition_times(headers, warn)
    acquired = np.min(reference) if times is None else max(times.min(), np.min(reference))
    injection = _injection_time(first, radio, acquired, half_life, warn)
    begun = np.min(reference) - injection
    uptake = (acquired - injection if begun < LATE_INJECTION else begun) / MINUTE
    longest = np.max(reference) - injection
    if uptake < 0 or longest > 6 * half_life or begun < -LATE_INJECTION:
        before = f"{uptake:.1f} min before the image" if uptake < 0 else (
            f"{(begun if begun < 0 else longest) / MINUTE:.1f} min before the time that the decay is corrected to")
        raise Refused("RadiopharmaceuticalStartTime", text(radio, "RadiopharmaceuticalStartDateTime") or text(
            radio, "RadiopharmaceuticalStartTime"), f"{before}, is not within 0 and six half-lives "
            f"({6 * half_life / MINUTE:.0f} min)", "give the true times in --overrides, or correct the files")
    same = uptake == 0 and np.ptp(reference) == 0 and "dynamic" not in first
    if same or injection % DAY == 0 == np.min(reference) % DAY:
        raise Refused("RadiopharmaceuticalStartTime", text(radio, "RadiopharmaceuticalStartTime"),
                      "injection and acquisition have the same time", "give the true times in --overrides")
    if name == "F-18" and not 30 <= uptake <= 120:
        warn(f"uptake time of {uptake:.0f} min is outside 30 to 120 min")
    return factor * np.exp(rate * (reference - injection)), uptake


def _start_time(headers: Sequence[Header], rate: float, warn: Warn) -> float | np.ndarray:
    """The time that START refers to, float or (n,) for each slice."""
    first = headers[0]
    given = first.get("series_time given")
    if text(first, "SOPClassUID") == ENHANCED_PET and not given:
        return values.date_time(first, "DecayCorrectionDateTime")
    candidates: dict[str, float | np.ndarray] = {}
    acquired = acquisition_times(headers, warn)
    tag, series = values.private(first, *GE, 0x0D), values.date_and_time(first, "SeriesDate", "SeriesTime")
    if tag and text(first, tag):
        candidates["GE (0009,100D)"] = _real_day(values.date_time(first, tag), acquired, "(0009,100D)", warn, DAY / 2)
    if given:
        if series is None:
            raise Refused("SeriesDate", "", "is missing, so series_time of --overrides is of no day",
                          "give it as YYYY-MM-DD HH:MM:SS")
        days = 0 if acquired is None or given == b"dated" else round((acquired.min() - series) / DAY)
        return series + DAY * days
    if series is not None:
        series = _real_day(series, acquired, "SeriesDate", warn)
        if acquired is None or series <= acquired.min() + 1:  # written to the second
            candidates["SeriesTime"] = series
    if acquired is not None:
        shift = [number(header, "FrameReferenceTime") or 0 for header in headers]
        if all(shift) and all(number(header, "ActualFrameDuration") for header in headers):
            average = np.log(_exposure_factor(headers, rate)) / rate
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


def _real_day(time: float, acquired: np.ndarray | None, attribute: str, warn: Warn, latest: float = DUMMY) -> float:
    """The time on the day of the acquisition, where de-identification moved its date: to over half a day before, or
    over `latest` s after. A series may be written days after its acquisition, not before."""
    if acquired is None or -DAY / 2 <= time - acquired.min() <= latest:
        return time
    warn(f"the date of {attribute} is not the acquisition's: only its time of day was used")
    moved = math.floor(acquired.min() / DAY) * DAY + time % DAY
    return moved - DAY * (moved > acquired.min() + DAY / 2)


def _injection_time(header: Header, radio: Header, reference: float, half_life: float, warn: Warn) -> float:
    """Rule 6: the injection's date and time, given the (earliest) reference time."""
    start, day = text(radio, "RadiopharmaceuticalStartTime"), math.floor(reference / DAY) * DAY
    stamp = text(radio, "RadiopharmaceuticalStartDateTime")
    if not _is_date(stamp):  # a date alone is no time
        injection = values.date_time(radio, "RadiopharmaceuticalStartDateTime", header)
        if start and injection % DAY == 0 and (of_day := time_of_day(radio, "RadiopharmaceuticalStartTime")):
            warn("RadiopharmaceuticalStartDateTime has no time of day: RadiopharmaceuticalStartTime was used")
            injection += of_day
        if lacks_zone := values.lacks_zone(stamp, header):
            warn("the injection's offset from UTC was ignored: TimezoneOffsetFromUTC is missing")
        if start and _differ(injection, of_day := time_of_day(radio, "RadiopharmaceuticalStartTime")):
            warn(_which("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime", lacks_zone))
            injection += ((of_day - injection + DAY / 2) % DAY - DAY / 2) * lacks_zone
        if not 0 <= reference - injection <= 6 * half_life and abs(day - math.floor(injection / DAY) * DAY) > DAY:
            moved = day + injection % DAY
            moved -= DAY * (moved > reference)
            if reference - moved <= 6 * half_life:
                warn("the injection's date is not the scan's: only its time of day was used")
                return moved
        return injection
    if start:
        injection = day + time_of_day(radio, "RadiopharmaceuticalStartTime")
        before = injection > reference
        warn(f"injection has no date: the day {'before' if before else 'of'} the scan was assumed")
        return injection - DAY * before
    if (tag := values.private(header, *GE, 0x3B)) and text(header, tag):
        warn("injection time from GE (0009,103B)")
        return values.date_time(header, tag)
    raise Refused("RadiopharmaceuticalStartTime", "", "the injection time is missing",
                  "give injection_time in --overrides")


def uptake_if_known(headers: Sequence[Header], radio: Header) -> float | None:
    """Minutes from injection to the first acquisition, or None: for the record, where the SUV does not need it."""
    try:
        acquired, half_life = _required_times(headers).min(), half_life_of(radio)[1]
        uptake = (acquired - _injection_time(headers[0], radio, acquired, half_life, lambda text: None)) / MINUTE
        return uptake if 0 <= uptake <= 6 * half_life / MINUTE else None
    except Refused:
        return None


def acquisition_times(headers: Sequence[Header], warn: Warn) -> np.ndarray | None:
    """When each slice was acquired, (n,) s; None where one does not say.

    Times of one date, or without a date of their own, that lie on both sides of midnight: the later beds are a day on
    (rule 7).
    """
    times = [_acquisition_time(header, warn) for header in headers]
    if None in times:
        return None
    found = np.array(times, float)
    if np.ptp(found) > DAY / 2 and np.ptp(found // DAY) == 0:
        undated = not any(text(header, key) for header in headers for key in ("AcquisitionDate", "AcquisitionDateTime"))
        warn(f"AcquisitionDate is {'missing' if undated else 'the same at times over 12 h apart'}: the beds after "
             "midnight were taken for a day later")
        split, series = found.max() % DAY - DAY / 2, values.date_and_time(headers[0], "SeriesDate", "SeriesTime")
        begun_late = series is not None and series // DAY == found[0] // DAY and series % DAY < split  # the date is
        found += DAY * ((found % DAY < split) - np.float64(begun_late))  # that of the late
    return found


def _acquisition_time(header: Header, warn: Warn) -> float | None:
    parts = values.date_and_time(header, "AcquisitionDate", "AcquisitionTime")
    stamp = text(header, "AcquisitionDateTime")
    if _is_date(stamp):
        return parts
    whole = values.date_time(header, "AcquisitionDateTime")
    if parts is not None and whole % DAY == 0 != parts % DAY:
        return parts
    if lacks_zone := values.lacks_zone(stamp, header):
        warn("the acquisition's offset from UTC was ignored: TimezoneOffsetFromUTC is missing")
    if parts is not None and _differ(whole, parts):
        warn(_which("AcquisitionTime", "AcquisitionDateTime", lacks_zone))
        return parts if lacks_zone else whole
    return whole


def _is_date(stamp: str) -> bool:
    """Whether a DT is cut to a date, with or without an offset, or missing."""
    return len(re.sub(r"[+-]\d{4}$", "", stamp)) <= 8


def _which(time: str, stamp: str, lacks_zone: bool) -> str:
    """That two differ, and which was used: a time is on the clock of the files, a DT with an unknown offset is not."""
    return f"{time}, which was used, differs from {stamp}" if lacks_zone else (
        f"{time} differs from {stamp}, which was used")


def _differ(one: float, other: float) -> bool:
    """Whether two times differ by over a minute in their time of day."""
    return MINUTE < (one - other) % DAY < DAY - MINUTE


def _required_times(headers: Sequence[Header]) -> np.ndarray:
    times = acquisition_times(headers, lambda text: None)
    if times is None:
        missing = next(header for header in headers if _acquisition_time(header, lambda text: None) is None)
        raise Refused("AcquisitionTime", text(missing, "AcquisitionTime"), "missing, or without a date",
                      "add AcquisitionDate and AcquisitionTime")
    return times


def _exposure_factor(headers: Sequence[Header], rate: float) -> np.ndarray:
    """(n,) The activity when a frame begins, by its mean during the frame."""
    x = rate * np.array([positive(h, "ActualFrameDuration", "correct the attribute") / 1000 for h in headers])
    return x / -np.expm1(-x)
