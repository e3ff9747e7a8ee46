"""Small pieces of what scripts say. Imports no torch."""
from collections.abc import Sequence


def ranges(numbers):
    """[2, 3, 4, 7] -> "2-4, 7"."""
    known = set(numbers)
    starts = [n for n in numbers if n - 1 not in known]
    ends = [n for n in numbers if n + 1 not in known]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def some(names, count=5):
    names = [str(name) for name in names]
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def first_line(error):
    return str(error).strip().split("\n")[0][:200]


def short(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines of the rows' texts, their columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
