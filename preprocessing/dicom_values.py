"""Values of DICOM elements: text, numbers, dates and times, private elements; Refused, where they are wrong."""
import math
import os
import re
import struct
import traceback
from datetime import date
from typing import Any

from common.faults import OF_MACHINE, machine_fault
from common.files import InputError

Header = dict[Any, Any]  # keyword, or tag of a private element -> bytes as stored, or a list of headers (a sequence)
DAY, MINUTE = 86400.0, 60.0
IDENTIFYING = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
OWN_VALUES = ("file", "archive", "TransferSyntaxUID")  # attributes whose values are names of files and of syntaxes
WITHHELD = "(withheld)"
DAY_IN_TEXT = re.compile(r"(?<![\d.])(19|20)\d\d[-./]?[01]\d[-./]?[0-3]\d")
WORDS = frozenset("a and Bq bytes cm counts g item items James Janma kg list masks ml mm more no numbers one "
                  "PatientWeight s slice SUV SUVbsa SUVbw SUVibw SUVlbm to value x "  # our own
                  # DICOM's codes in the attributes that are read: PS3.3 C.8.9.1.1, C.8.9.4, C.7.6.1, C.8.8.6, C.8.8.8
                  "BQML CNTS CM2 PCNT CPS MGMINML UMOLMINML MLMING MLG UMOLML PROPCNTS PROPCPS MLMINML MLML GML "
                  "STDDEV CM2ML NONE BW LBM LBMJAMES128 LBMJANMA BSA IBW START ADMIN DECY ATTN SCAT DTIM MOTN PMOT CLN "
                  "RAN RADL DCAL NORM STATIC DYNAMIC GATED WHOLE BODY IMAGE REPROJECTION ORIGINAL DERIVED PRIMARY "
                  "SECONDARY AXIAL LOCALIZER MIP MPR SUM AVERAGE M F O POINT CLOSED_PLANAR OPEN_PLANAR "
                  "OPEN_NONPLANAR GTV CTV PTV TREATED_VOLUME IRRAD_VOLUME BOLUS AVOIDANCE ORGAN MARKER REGISTRATION "
                  "ISOCENTER CONTRAST_AGENT CAVITY EXTERNAL SUPPORT FIXATION DOSE_REGION CONTROL PT CT MR NM".split())


class Refused(InputError):
    """A file or series that gives no trustworthy SUV.

    Values of identifying attributes are withheld, and so is what may be a date or a name in whatever attribute.

    Parameters
    ----------
    attribute : str or int
        DICOM keyword, the tag of a private element, or "file" or "archive".
    value : object
        The attribute's value.
    reason, remedy : str
        Why the value is refused, and what would fix it.
    """

    def __init__(self, attribute: str | int, value: Any, reason: str, remedy: str) -> None:
        if isinstance(attribute, int):
            attribute = f"({attribute >> 16:04X},{attribute & 0xFFFF:04X})"
        text = " ".join(str(value).split())[:120]
        if attribute in IDENTIFYING or attribute not in OWN_VALUES and not harmless(text):
            text = WITHHELD
        super().__init__(f"{attribute} {text!r}: {reason}; {remedy}")
        self.attribute, self.value, self.reason, self.remedy = attribute, text, reason, remedy

    def __reduce__(self) -> tuple[Any, ...]:  # crosses process boundaries
        return Refused, (self.attribute, self.value, self.reason, self.remedy)


def harmless(text: str) -> bool:
    """Whether a text holds no date and no word but `WORDS`."""
    return not DAY_IN_TEXT.search(text) and set(re.findall(r"[^\W\d_]\w*", text)) <= WORDS


class NotDicom(Refused):
    """The file has no DICOM preamble. `suspect`: by its name or its bytes it should have one."""

    def __init__(self, path: str | os.PathLike[str], suspect: bool = False) -> None:
        super().__init__("file", os.path.basename(path), "has no DICOM preamble" if suspect else "is not a DICOM file",
                         "copy it again from its source, or remove it")
        self.suspect = suspect

    def __reduce__(self) -> tuple[Any, ...]:
        return NotDicom, (self.value, self.suspect)


def damaged(path: str | os.PathLike[str], reason: str) -> Refused:
    """The refusal for a file that another copy would mend."""
    return Refused("file", os.path.basename(path), reason, "copy it again from its source")


def unexpected(error: Exception, name: str = "") -> Refused:
    """The refusal for an exception that nothing foresaw; a Refused itself.

    A full disk and the like, which no other file would survive either, is raised again.
    """
    if (fault := machine_fault(error)) and fault.errno in OF_MACHINE:
        raise fault
    if isinstance(error, Refused):
        return error
    said = getattr(error, "strerror", None) or _place(error)
    return Refused("file", name, f"cannot be converted ({type(error).__name__}: {said})",
                   "check that the series is complete and undamaged")


def _place(error: BaseException) -> str:
    """Where in this code an exception came from; not its text, which may quote the file."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "preprocessing" in frame.filename]
    return f"{os.path.basename(places[-1].filename)}, line {places[-1].lineno}" if places else "outside preprocessing"


# Values


def text(header: Header, keyword: str | int) -> str:
    """The value as text without padding; "" where the attribute is missing or empty."""
    value = header.get(keyword, b"")
    if not isinstance(value, bytes):
        raise Refused(keyword, type(value).__name__, "is a sequence, not a value", "export the series again")
    try:
        return value.decode("utf-8").strip("\0 ")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip("\0 ")


def numbers(header: Header, keyword: str | int, count: int) -> list[float] | None:
    """`count` finite numbers of a DS or IS attribute, or None where it is missing or empty. Raises Refused."""
    value = text(header, keyword)
    if not value:
        return None
    try:
        result = [float(part) for part in value.split("\\")]
    except ValueError:
        result = []
    if "_" in value or not value.isascii() or len(result) != count or not all(map(math.isfinite, result)):
        raise Refused(keyword, value, f"is not {count} number{'s'[:count > 1]}", "correct the attribute")
    return result


def number(header: Header, keyword: str | int) -> float | None:
    """One finite number, or None where the attribute is missing or empty. Raises Refused."""
    value = numbers(header, keyword, 1)
    return value[0] if value else None


def required_numbers(header: Header, keyword: str, count: int) -> list[float]:
    """As `numbers`, but Refused where the attribute is missing or empty."""
    value = numbers(header, keyword, count)
    if value is None:
        raise Refused(keyword, "", "is missing", "export the series again")
    return value


def positive(header: Header, keyword: str, remedy: str) -> float:
    """As `number`, but Refused where it is missing, empty, 0 or less."""
    value = number(header, keyword) or 0
    if value <= 0:
        raise Refused(keyword, text(header, keyword), "missing or not positive", remedy)
    return value


def integer(header: Header, keyword: str) -> int:
    """A US attribute. Raises Refused where it is missing."""
    value = header.get(keyword, b"")
    if not isinstance(value, bytes) or len(value) != 2:
        raise Refused(keyword, "" if not value else value, "missing or not one 16-bit integer", "export the series "
                      "again")
    return int(struct.unpack(header["order"] + "H", value)[0])


def corrections(header: Header) -> list[str]:
    """The values of CorrectedImage (PS3.3 C.8.9.1), such as DECY and ATTN."""
    return [part.strip() for part in text(header, "CorrectedImage").split("\\")]


def private(header: Header, group: int, creator: str, element: int) -> int | None:
    """A private element's tag in `header`, found by its creator (PS3.5 7.8.1); None where it is missing.

    Where de-identification removed every creator of the group, block 10 is taken, as all known files have it.
    """
    creators = {tag & 0xFF: text(header, tag) for tag in header
                if isinstance(tag, int) and tag >> 16 == group and 0x10 <= tag & 0xFFFF <= 0xFF}
    blocks = [block for block, name in creators.items() if name == creator] or ([] if creators else [0x10])
    return next((tag for block in blocks if (tag := group << 16 | block << 8 | element) in header), None)


def shown(header: Header, keyword: str) -> str:
    """The value as text for a warning: withheld unless `harmless`."""
    value = text(header, keyword)
    return value if harmless(value) else WITHHELD


# Dates and times, in s since year 0 of the calendar

def date_and_time(header: Header, date_keyword: str, time_keyword: str) -> float | None:
    """Seconds since year 0 from a date and a time, or None where one is missing. Another date of the series will do."""
    dated = next((k for k in (date_keyword, "SeriesDate", "AcquisitionDate", "StudyDate") if text(header, k)), None)
    if not dated or not text(header, time_keyword):
        return None
    return _day(header, dated, text(header, dated)) + time_of_day(header, time_keyword)


def date_time(header: Header, keyword: str | int, zone_header: Header | None = None) -> float:
    """A DT value as wall-clock time of the files' own zone (PS3.5 6.2; TimezoneOffsetFromUTC where the DT has one)."""
    value = text(header, keyword)
    sign = max(value.find("+"), value.find("-"))
    stamp, offset = (value, "") if sign < 0 else (value[:sign], value[sign:])
    seconds = _day(header, keyword, stamp[:8]) + time_of_day(header, keyword, stamp[8:])
    local = text(zone_header or header, "TimezoneOffsetFromUTC")
    if offset and local:
        seconds += _offset(keyword, local) - _offset(keyword, offset)
    return seconds


def lacks_zone(stamp: str, header: Header) -> bool:
    """Whether a DT's offset from UTC cannot be applied."""
    return bool(re.search("[+-]", stamp)) and not text(header, "TimezoneOffsetFromUTC")


def time_of_day(header: Header, keyword: str | int, value: str | None = None) -> float:
    """A TM value, HHMMSS.FFFFFF with at least the hour, in s since midnight. Raises Refused."""
    value = text(header, keyword) if value is None else value
    whole, _, fraction = value.replace(":", "").partition(".")
    if value.isascii() and len(whole) in (2, 4, 6) and whole.isdecimal() and (not fraction or fraction.isdecimal()):
        hour, minute, second = int(whole[:2]), int(whole[2:4] or 0), int(whole[4:] or 0)
        if hour < 24 and minute < 60 and second < 61:
            return hour * 3600 + minute * 60 + second + float(f"0.{fraction or 0}")
    raise Refused(keyword, text(header, keyword), "is not a time of day", "correct the attribute")


def _offset(keyword: str | int, value: str) -> float:
    if len(value) != 5 or value[0] not in "+-" or not value[1:].isdecimal():
        raise Refused(keyword, value, "is not an offset from UTC", "correct the attribute")
    return float(value[0] + "1") * (int(value[1:3]) * 3600 + int(value[3:]) * 60)


def _day(header: Header, keyword: str | int, value: str) -> float:
    try:
        digits = value.replace(".", "")  # 2000.09.07: ACR-NEMA
        if len(digits) != 8 or not digits.isdecimal() or not digits.isascii():
            raise ValueError
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).toordinal() * DAY
    except ValueError as error:
        raise Refused(keyword, text(header, keyword), "is not a date", "correct the attribute") from error
