"""Keeps standard output and error from ending a script, whatever they are connected to. Imports no torch."""
import contextlib
import io
import os
import sys

_terminals: list[int] = []  # which of standard output and error were terminals at the start


def open_streams() -> None:
    """What cp1252 or ascii lacks is written as \\u2265; what goes to a closed stream is lost."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        stream = getattr(sys, name)
        if stream is None:  # closed: else the next file that is opened would be taken for it
            setattr(sys, name, open(os.devnull, mode))
        elif isinstance(stream, io.TextIOWrapper) and mode == "w":
            stream.reconfigure(errors="backslashreplace")
    _terminals[:] = [number for number in (1, 2) if os.isatty(number)]


def last_line(line: str) -> None:
    """Write a line to standard error and flush standard output; what cannot be written is dropped."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        lose_output()


def lose_output() -> None:
    """Drop all further standard output: its reader has gone, or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def lose_dead_terminals() -> None:
    """`lose_output` of terminals that were closed: writing to them would fail while the state is saved."""
    for number in _terminals:
        if not os.isatty(number):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
