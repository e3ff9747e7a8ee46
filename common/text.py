"""Small texts: formatted for messages, and read. Imports no torch."""
import re
from collections.abc import Iterable, Sequence


def ranges(numbers: Sequence[int]) -> str:
    """[2, 3, 4, 7] -> "2-4, 7"."""
    known = set(numbers)
    starts = [n for n in numbers if n - 1 not in known]
    ends = [n for n in numbers if n + 1 not in known]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things: "1 scan", "2 scans", "3 studies have warnings".

    Parameters
    ----------
    one, many : str
        What 1 and other numbers are followed by; by default `many` is `one` and an s.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 20 min", "2 d 3 h"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def some(names: Iterable[object], count: int = 5) -> str:
    """The first of them: "a, b, c, d, e and 7 more"."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:count]) + (f" and {len(texts) - count} more" if len(texts) > count else "")


def whole_number(text: str) -> int | None:
    """ "3", or "3.0" as spreadsheets write it, as an int; None of a text that is no whole number, or has 19 digits."""
    return int(text.partition(".")[0]) if re.fullmatch(r"\d{1,18}(\.0+)?", text) else None


def deauville_digits(text: str) -> str:
    """ "DS 4", "ds4" or "Deauville score: 4" -> "4"; any other text without its outer blanks."""
    return re.sub(r"(?i)^(ds|deauville)( score)?[ :=_]*(?=\d)", "", text.strip())


def first_line(error: BaseException) -> str:
    """What an error says, its first 200 characters up to the first line feed."""
    return str(error).strip().split("\n")[0][:200]


def short(error: object) -> str:
    """What an error says, on one line of at most 200 characters; its class where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines of the rows' texts, their columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def as_text(value: object) -> str:
    """A value as the command line and `params.convert` read it."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def file_stems(before: str, names: Iterable[str]) -> dict[str, str]:
    """{name: `before` and its letters and digits, for a file}; none is another's, on no file system."""
    found: dict[str, str] = {}
    for name in names:
        stem = before + "".join(letter if letter.isalnum() else "_" for letter in name)
        while stem.casefold() in map(str.casefold, found.values()):
            stem += "_"
        found[name] = stem
    return found


def shortened(text: str, most: int) -> str:
    """A text of at most so many letters: of a longer one its beginning and its end."""
    head = (most - 1) * 3 // 7
    return text if len(text) <= most else f"{text[:head]}…{text[head + 1 - most:]}"
