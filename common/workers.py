"""Work in several processes. Imports no torch."""
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from common.files import InputError

Run = Callable[[Callable[[Any], Any], Sequence[Any], int], Iterable[Any]]


def run_here(function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> Iterable[Any]:
    """Results of `function` in the order of `items`, in this process."""
    return map(function, items)


@contextlib.contextmanager
def processes(workers: int) -> Iterator[Run]:
    """Start worker processes; they end with the `with`.

    Parameters
    ----------
    workers : int
        How many; 1 works in this process.

    Yields
    ------
    Run
        run(function, items, chunk) -> results in the order of the items; a worker takes `chunk` items at a time.

    Raises
    ------
    InputError
        A worker died.
    """
    if workers == 1:
        yield run_here
        return
    pool = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        yield lambda function, items, chunk: pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool as error:
        raise InputError(f"--workers {workers}: a process died, probably for lack of memory; use fewer") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
