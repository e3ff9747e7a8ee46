"""Dates as DICOM, people and spreadsheets write them -> 2024-03-10."""
import contextlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

TIME = re.compile(r"[T ]+\d\d?:\d\d(:\d\d(\.\d+)?)?$")  # which says nothing of the day
PLAIN = ("%Y-%m-%d", "%Y.%m.%d", "%Y/%m/%d", "%d.%m.%Y", "%d %b %Y", "%b %d %Y")
DAY_FIRST, MONTH_FIRST = ("%d/%m/%Y", "%d-%m-%Y"), ("%m/%d/%Y", "%m-%d-%Y")


def readings(text: str, forms: Sequence[str] = (*PLAIN, *DAY_FIRST, *MONTH_FIRST)) -> set[str]:
    """The days that a text may mean, YYYY-MM-DD: none, one, or two, as of 03/04/2024 or 03-04-2024.

    With points the day comes first, as wherever dates are written so.
    """
    day = TIME.sub("", text.strip())
    day = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", day)  # 20240310
    if re.search("[A-Za-z]", day):  # 10. March 2024
        day = re.sub(r"([A-Za-z]{3})[A-Za-z]*", r"\1", re.sub("[- .,]+", " ", day))
    found = set()
    for form in forms:
        with contextlib.suppress(ValueError):
            found.add(datetime.strptime(day, form).date().isoformat())
    return found


def one_order(texts: Iterable[str]) -> bool | None:
    """Whether in these texts (of one column) the day stands before the month; None where they do not say.

    Raises ValueError where some say so and others the opposite.
    """
    pairs = [(bool(readings(text, DAY_FIRST)), bool(readings(text, MONTH_FIRST))) for text in texts]
    said = {day_first for day_first, month_first in pairs if day_first != month_first}
    if len(said) > 1:
        raise ValueError("dates with the day first and with the month first")
    return said.pop() if said else None


def to_date(text: str, day_first: bool | None = None) -> str:
    """The one day that a text means, YYYY-MM-DD; "" where it is none, or may be two and `day_first` is None."""
    found = readings(text)
    if len(found) == 2 and day_first is not None:
        found = readings(text, DAY_FIRST if day_first else MONTH_FIRST)
    return found.pop() if len(found) == 1 else ""
