"""Checks the types and ranges of a checkpoint's content, which scripts rely on. Imports no torch.

The same content is in settings_splitS_runR.json and in the header of an exported model.
"""
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.digests import are_digests
from common.files import InputError
from common.mips import BOXES
from common.text import short

MOST_SIDE = 20_000  # pixels of a frame
MOST_VALUES, MOST_DEPTH = 10**7, 50  # of a checkpoint, not counting those in tensors


def check_content(content: Mapping[Any, Any], path: str | Path) -> None:
    """Refuse (InputError) values that train.py does not write. Keys may be missing, unless `args` and `input` tell that
    the checkpoint is of train.py."""
    _check_size(content, path)
    wrong = {name: content[name] for name, right in _KINDS.items() if name in content and not right(content[name])}
    if {"args", "input"} <= content.keys() and "position" not in content:  # of last_*.pth
        wrong |= {name: content.get(name) for name, right in _OURS.items() if not right(content.get(name))}
    for name, value in wrong.items():
        raise InputError(f"{path}: its {name} is {short(repr(value))[:80]}, which train.py does not write: damaged, or "
                         "not what it seems; copy it again, or train again")


def _check_size(content, path):
    """A small pickle can hold one list a million times."""
    level, seen = [content], 0
    for _ in range(MOST_DEPTH):
        level = [each for value in level if isinstance(value, Mapping | list | tuple | set)
                 for each in (value.values() if isinstance(value, Mapping) else value)]
        if not level:
            return
        seen += len(level)
        if seen > MOST_VALUES:
            break
    raise InputError(f"{path}: holds more values, or deeper lists in lists, than a checkpoint can have")


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether it is a finite number in low..high, perhaps a NumPy scalar, but no bool."""
    return (isinstance(value, int | float) or hasattr(value, "dtype") and getattr(value, "shape", None) == ()
            ) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high


def is_whole(value: Any, low: int, high: float = math.inf) -> bool:
    """Whether it is a whole number in low..high."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_settings(value):
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _is_model(value):
    if isinstance(value, str):  # of other people's files, its name
        return True
    if not isinstance(value, Mapping):
        return False
    sites = value.get("sites")
    return is_number(value.get("dropout", 0.5), 0, 1) and (sites is None or _is_settings(sites) and bool(sites) and all(
        code.isdecimal() and isinstance(name, str) for code, name in sites.items()))


def _is_pair(value, right):
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(right, value))


def _is_input(value):
    return (_is_settings(value) and {"frame", "norm"} <= set(value) <= set(_INPUT)
            and all(_INPUT[name](each) for name, each in value.items()))


_INPUT = {  # of dataset.NetworkInput
    "frame": lambda value: _is_pair(value, lambda side: is_whole(side, 1, MOST_SIDE)),
    "norm": lambda value: _is_pair(value, is_number) and value[1] > 0,
    "pool": lambda value: is_whole(value, 1, MOST_SIDE),
    "spacing_mm": lambda value: value is None or is_number(value) and value > 0,
    "crop_bodies": lambda value: isinstance(value, bool),
    "views": lambda value: isinstance(value, list | tuple) and value and all(isinstance(view, str) for view in value),
    "suv_type": lambda value: isinstance(value, str),
    "box": lambda value: value in BOXES}
_KINDS = {"model": _is_model, "input": _is_input, "trained_on": lambda value: value is None or are_digests(value),
          "search": lambda value: value is None or _is_settings(value) and (
              value.get("trials") is None or is_whole(value["trials"], 1)),
          "export": _is_settings, "versions": _is_settings}
_OURS = {"args": _is_settings, "epoch": lambda value: is_whole(value, 0), "auc": lambda value: is_number(value, 0, 1)}
