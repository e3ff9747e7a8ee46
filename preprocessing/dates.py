"""Dates as DICOM, people and spreadsheets write them -> 2024-03-10."""
import contextlib
import re
from collections.abc import Iterable
from datetime import date

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
TIME = r"(?:[T ]+\d\d?:\d\d(?::\d\d(?:\.\d+)?)?)?"  # which says nothing of the day
YEAR_FIRST = re.compile(r"(\d{4})(?P<mark>[-./]?)(\d\d?)(?P=mark)(\d\d?)" + TIME)
YEAR_LAST = re.compile(r"(\d\d?)(?P<mark>[-./])(\d\d?)(?P=mark)(\d{4})" + TIME)
NAMED = re.compile(r"(\d\d?)[- .]+([a-z]{3})[a-z]*[- .,]+(\d{4})|([a-z]{3})[a-z]*[ .]+(\d\d?),?[ ]+(\d{4})",
                   re.IGNORECASE)


def readings(text: str) -> set[str]:
    """The days that a text may mean, YYYY-MM-DD: none, one, or two, as of 03/04/2024 or 03-04-2024.

    With points the day comes first, as wherever dates are written so.
    """
    text = text.strip()
    if match := YEAR_FIRST.fullmatch(text):
        if not match["mark"] and not re.match(r"\d{8}(?!\d)", text):
            return set()
        return _days((match[1], match[3], match[4]))
    if match := YEAR_LAST.fullmatch(text):
        day_first, month_first = (match[4], match[3], match[1]), (match[4], match[1], match[3])
        return _days(day_first) if match["mark"] == "." else _days(day_first, month_first)
    if match := NAMED.fullmatch(text):
        day, month, year = match.group(1, 2, 3) if match[1] else match.group(5, 4, 6)
        if month.lower() in MONTHS:
            return _days((year, str(MONTHS.index(month.lower()) + 1), day))
    return set()


def _days(*parts: tuple[str, str, str]) -> set[str]:
    found = set()
    for year, month, day in parts:
        with contextlib.suppress(ValueError):
            found.add(date(int(year), int(month), int(day)).isoformat())
    return found


def one_order(texts: Iterable[str]) -> bool | None:
    """Whether in these texts (of one column) the day stands before the month; None where they do not say.

    Raises ValueError where some say so and others the opposite.
    """
    said = {int(match[1]) > 12 for text in texts if (match := YEAR_LAST.fullmatch(text.strip()))
            and match["mark"] != "." and len(readings(text)) == 1 and match[1] != match[3]}
    if len(said) > 1:
        raise ValueError("dates with the day first and with the month first")
    return said.pop() if said else None


def to_date(text: str, day_first: bool | None = None) -> str:
    """The one day that a text means, YYYY-MM-DD; "" where it is none, or may be two and `day_first` is None."""
    found = readings(text)
    if len(found) == 2 and day_first is not None:
        match = YEAR_LAST.fullmatch(text.strip())
        assert match is not None
        found = _days((match[4], match[3], match[1]) if day_first else (match[4], match[1], match[3]))
    return found.pop() if len(found) == 1 else ""
