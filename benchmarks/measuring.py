"""What the benchmarks measure with: a function in a process of its own, and that process's memory."""
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil

SCRIPTS = Path(__file__).resolve().parents[1]


def in_new_process(function: Callable, *args: object) -> object:
    """What `function(*args)` returns in a process that has imported nothing before; all of it must be picklable."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_memory() -> float:
    """The process's largest resident size so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone; ru_maxrss may hold its parent's
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e6
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
