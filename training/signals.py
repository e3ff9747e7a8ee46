"""Ctrl-C and SIGTERM while a network is trained: a flag, looked at after a batch."""
import contextlib
import signal
from collections.abc import Iterator


class Interrupted(Exception):
    """A signal came: the run's state is to be saved."""


@contextlib.contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Within: a first SIGINT or SIGTERM is only put on the list that this yields; a second one takes effect at once.

    Left by an exception, the signal takes effect then: whoever handles the exception shall not go on.
    """
    received, handlers = [], {}

    def note(signum, frame):
        received.append(signum)
        if len(received) > 1:
            signal.signal(signum, handlers[signum])
            signal.raise_signal(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        handlers[signum] = signal.signal(signum, note)
    try:
        yield received
    except BaseException:
        _restore(handlers)
        if received:
            signal.raise_signal(received[0])
        raise
    finally:
        _restore(handlers)


def _restore(handlers):
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
