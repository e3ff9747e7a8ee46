"""--overrides: weights, doses and times that the files lack or have wrong, from the site's own records."""
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from common.files import InputError, read_csv
from preprocessing.dicom_values import Header, shown, text
from preprocessing.dose import Warn

RADIO = "RadiopharmaceuticalInformationSequence"
RANGES = {"weight_kg": (1, 400), "height_m": (0.3, 2.5), "dose_MBq": (1, 5000)}  # what these columns may hold
TIMES = {"injection_time": "RadiopharmaceuticalStart", "series_time": "Series"}  # and their attributes' first words
COLUMNS = (*RANGES, "sex", *TIMES)
MOMENT = re.compile(r"(?:(\d{4}-\d\d-\d\d)[T ]+)?(\d\d?):(\d\d)(?::(\d\d)(?:\.0+)?)?")


def read_overrides(path: str) -> dict[str, dict[str, str]]:
    """Read --overrides.

    Parameters
    ----------
    path : str
        A table of StudyInstanceUID and any of `COLUMNS`; empty cells override nothing.

    Returns
    -------
    dict of str to dict
        StudyInstanceUID -> column -> value.

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
    given: dict[str, dict[str, str]] = {}
    for line, row in enumerate(table.to_dict("records"), start=2):
        uid = row["StudyInstanceUID"].strip()
        if not uid or uid in given:
            raise InputError(f"--overrides {path}: line {line}: StudyInstanceUID is {'there twice' if uid else 'empty'}"
                             "; give each study one row")
        given[uid] = {name: row[name].strip() for name in columns if row[name].strip()}
        for name, value in given[uid].items():
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


def override(headers: Sequence[Header], given: Mapping[str, str], warn: Warn) -> None:
    """Write the values into the headers of a series, in place, and say so."""
    first = headers[0]
    radio = (first.get(RADIO) or [{}])[0]
    places = {"weight_kg": (first, "PatientWeight", "kg"), "height_m": (first, "PatientSize", "m"),
              "sex": (first, "PatientSex", ""), "dose_MBq": (radio, "RadionuclideTotalDose", "Bq")}
    for name, value in given.items():
        if name in TIMES:  # without the values: dates may identify
            warn(f"{name} from --overrides" + " (not used: DecayCorrection is not START)" * (
                name == "series_time" and text(first, "DecayCorrection") != "START"))
        else:
            where, keyword, unit = places[name]
            stored = shown(where, keyword)
            warn(f"{name} {value} from --overrides, {keyword} is {f'{stored} {unit}'.strip() if stored else 'empty'}")
    for header in headers:
        for name, value in given.items():
            if name in TIMES:
                _set_time(header, name, value)
            elif name == "dose_MBq":
                _set_radio(header, RadionuclideTotalDose=f"{float(value) * 1e6:.10g}")
            else:
                header[places[name][1]] = value.encode()


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
