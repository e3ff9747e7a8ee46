"""--overrides: weights, doses and times that the files lack or have wrong, from the site's own records."""
import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from common.files import InputError, read_csv
from preprocessing.dicom_values import Header, Refused, shown, text
from preprocessing.dose import Warn, body_height, body_weight

RADIO = "RadiopharmaceuticalInformationSequence"
RANGES = {"weight_kg": (1, 400), "height_m": (0.3, 2.5), "dose_MBq": (1, 5000)}  # what these columns may hold
TIMES = {"injection_time": "RadiopharmaceuticalStart", "series_time": "Series"}  # and their attributes' first words
MEASURES = ("PatientWeight", "PatientSize", "PatientSex")
PLAUSIBLE = {"PatientWeight": (body_weight, (20, 250)), "PatientSize": (body_height, (100, 220))}  # kg, cm
COLUMNS = (*RANGES, "sex", *TIMES)
MOMENT = re.compile(r"(?:(\d{4}-\d\d-\d\d)[T ]+)?(\d\d?):(\d\d)(?::(\d\d)(?:\.0+)?)?")


def read_overrides(path: str) -> dict[str, tuple[int, dict[str, str]]]:
    """Read --overrides.

    Parameters
    ----------
    path : str
        A table of StudyInstanceUID and any of `COLUMNS`; empty cells override nothing.

    Returns
    -------
    dict of str to (int, dict)
        StudyInstanceUID -> its line in the file; column -> value.

    Raises
    ------
    InputError
        Naming the line and column: an unknown column, a study twice, a value that is none.
    """
    table = read_csv(path, ("StudyInstanceUID",))
    columns = [name for name in table.columns if name != "StudyInstanceUID"]
    if unknown := set(columns) - set(COLUMNS):
        raise InputError(f"--overrides {path}: no such columns: {', '.join(sorted(unknown))}; known are "
                         f"{', '.join(COLUMNS)}")
    given: dict[str, tuple[int, dict[str, str]]] = {}
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        uid = row["StudyInstanceUID"].strip()
        if not uid or uid in given:
            raise InputError(f"--overrides {path}: line {line}: StudyInstanceUID is {'there twice' if uid else 'empty'}"
                             "; give each study one row")
        values = {name: row[name].strip() for name in columns if row[name].strip()}
        given[uid] = line, values
        for name, value in values.items():
            if fault := _fault(name, value):
                raise InputError(f"--overrides {path}: line {line}: {name} {value!r} is not {fault}; correct it")
    return given


def _fault(name: str, value: str) -> str:
    """What a value should be and is not, or ""."""
    if name == "sex":
        return "" if value in ("M", "F", "O") else "M, F or O"
    try:
        if name in TIMES and _date_and_time(value):
            return ""
        low, high = RANGES[name]
        return "" if low <= float(value) <= high else f"{low} to {high}"
    except ValueError:
        return "HH:MM, HH:MM:SS or YYYY-MM-DD HH:MM:SS" if name in TIMES else "a number"


def _date_and_time(value: str) -> tuple[str, str]:
    """As DICOM's DA, empty where there is none, and TM. Raises ValueError."""
    if not (match := MOMENT.fullmatch(value)):
        raise ValueError(value)
    day = match[1] or ""
    moment = datetime.fromisoformat(f"{day or '2000-01-01'} {match[2]:0>2}:{match[3]}:{match[4] or '00'}")
    return day.replace("-", ""), moment.strftime("%H%M%S")


def override(headers: Sequence[Header], given: Mapping[str, str], warn: Warn, suv_type: str = "bw",
             stored: str = "") -> None:
    """Write the values into the headers of a series, in place, and say so.

    Parameters
    ----------
    suv_type : str
        Of `dose.SUV_TYPES`: what is asked for.
    stored : str
        SUVType of the stored values, "" where they are no SUV. Those that are SUV hold the weight, height and sex that
        the scanner knew: the headers keep them for `dose.by_scanner`.
    """
    if stored:
        known = [{keyword: header[keyword] for keyword in MEASURES if _is_known(header, keyword)} for header in headers]
        shared = {keyword: value for own in reversed(known) for keyword, value in own.items()}
        for header, own in zip(headers, known, strict=True):
            header["own"] = [shared | own]  # a slice that lacks a value has that of the others
    first = headers[0]
    radio = (first.get(RADIO) or [{}])[0]
    places = {"weight_kg": (first, "PatientWeight", "kg"), "height_m": (first, "PatientSize", "m"),
              "sex": (first, "PatientSex", ""), "dose_MBq": (radio, "RadionuclideTotalDose", "Bq")}
    for name, value in given.items():
        why = _unused(name, first, suv_type, stored)
        why = why and f" (not used: {why})"
        if name in TIMES:  # without the values: dates may identify
            warn(f"{name} from --overrides{why}")
        else:
            where, keyword, unit = places[name]
            said = shown(where, keyword)
            warn(f"{name} {value} from --overrides, {keyword} is {f'{said} {unit}'.strip() if said else 'empty'}{why}")
    for header in headers:
        for name, value in given.items():
            if name in TIMES:
                _set_time(header, name, value)
            elif name == "dose_MBq":
                _set_radio(header, RadionuclideTotalDose=f"{float(value) * 1e6:.10g}")
            else:
                header[places[name][1]] = value.encode()


def _unused(name: str, first: Header, suv_type: str, stored: str) -> str:
    """Why a value changes no SUV; "" where it does, and for injection_time, which gives the uptake time."""
    if name == "series_time" and text(first, "DecayCorrection") != "START":
        return "DecayCorrection is not START"
    own = first["own"][0] if stored else {}
    to_bw, from_bw = stored != "BW", suv_type != "bw"  # which conversions need a mass
    used = {"weight_kg": (to_bw or from_bw) and "PatientWeight" not in own,
            "height_m": from_bw or to_bw and "PatientSize" not in own,
            "sex": from_bw and suv_type != "bsa" or to_bw and stored != "BSA" and "PatientSex" not in own,
            "injection_time": True}
    return "" if not stored or used.get(name) else f"Units {shown(first, 'Units')}"


def _is_known(header: Header, keyword: str) -> bool:
    """Whether the scanner knew the patient's sex, weight or height: not where a dummy stands in its place."""
    if keyword == "PatientSex":
        return text(header, keyword) in ("M", "F")
    read, (low, high) = PLAUSIBLE[keyword]
    with contextlib.suppress(Refused):
        return low <= read(header, lambda text: None) <= high
    return False


def _set_time(header: Header, name: str, value: str) -> None:
    date, time = _date_and_time(value)
    if name == "injection_time":
        _set_radio(header, RadiopharmaceuticalStartTime=time, RadiopharmaceuticalStartDateTime=date and date + time)
        return
    header["SeriesTime"], header["series_time given"] = time.encode(), b"dated" if date else b"time"
    if date:
        header["SeriesDate"] = date.encode()


def _set_radio(header: Header, **values: str) -> None:
    """Set attributes of the one injection; several are refused later, whatever they say."""
    items = header.get(RADIO) or [{}]
    header[RADIO] = [{**item, **{name: value.encode() for name, value in values.items()}} for item in items]
