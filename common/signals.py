"""Signals that end a script, and Ctrl-C while a network is trained: a flag, looked at after a batch."""
import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from common.streams import lose_dead_terminals


class Interrupted(Exception):
    """A signal came: the run's state is to be saved."""


def ending_signals() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM, a closed terminal (but not under nohup), and SIGUSR1, by which Slurm warns of a time limit."""
    names = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"]
    found = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows lacks the last two
    return [signum for signum in found if signum.name != "SIGHUP" or signal.getsignal(signum) != signal.SIG_IGN]


def interrupt_on_signals() -> None:
    """Let each of `ending_signals` raise KeyboardInterrupt(its number)."""
    def interrupt(signum, frame):
        lose_dead_terminals()
        raise KeyboardInterrupt(signum)

    for signum in ending_signals():
        signal.signal(signum, interrupt)


@contextlib.contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Within, the first of `ending_signals` is only added to the list that this yields; a second takes effect at once.

    If an exception leaves the `with`, the first takes effect then, so that no handler of the exception goes on.
    """
    received: list[int] = []
    handlers: dict[int, Any] = {}

    def note(signum, frame):
        lose_dead_terminals()
        received.append(signum)
        if len(received) > 1:
            signal.signal(signum, handlers[signum])
            signal.raise_signal(signum)

    for signum in ending_signals():
        handlers[signum] = signal.signal(signum, note)
    failed = True
    try:
        yield received
        failed = False
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if failed and received:
            signal.raise_signal(received[0])
