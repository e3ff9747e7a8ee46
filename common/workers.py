"""Work in several processes. Imports no torch."""
import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from common.files import InputError
from common.processes import is_left_over, tag
from common.signals import ending_signals

PREFIX = "prepro-"  # of the folder for temporary files
Run = Callable[[Callable[[Any], Any], Sequence[Any], int], Iterable[Any]]


def run_here(function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> Iterable[Any]:
    """Results of `function` in the order of `items`, in this process."""
    return map(function, items)


@contextlib.contextmanager
def processes(workers: int) -> Iterator[Run]:
    """Start worker processes. They end with the `with`, which also removes their temporary files, however they ended,
    and those of earlier runs that were killed.

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
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if is_left_over(path, PREFIX):
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX + tag(), ignore_cleanup_errors=True) as folder:
        if workers == 1:
            before, tempfile.tempdir = tempfile.tempdir, folder
            try:
                yield run_here
            finally:
                tempfile.tempdir = before
            return
        pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(folder,))
        try:
            yield lambda function, items, chunk: pool.map(function, items, chunksize=chunk)
        except BrokenProcessPool as error:
            raise InputError(f"--workers {workers}: a process died, probably for lack of memory; use fewer") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(folder: str) -> None:
    tempfile.tempdir = folder
    for signum in ending_signals():  # the main process ends the run
        signal.signal(signum, signal.SIG_DFL if signum == signal.SIGTERM else signal.SIG_IGN)
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    """End this worker where the main process was killed: it would wait for work for ever, deaf to Ctrl-C."""
    if main := multiprocessing.parent_process():
        main.join()
        os._exit(1)
