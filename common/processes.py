"""Which process wrote a file or holds a lock, and whether it still runs. Imports no torch."""
import contextlib
import os
import re
import socket
import time
import zlib
from pathlib import Path
from typing import NamedTuple

DAY = 86400  # seconds


class Process(NamedTuple):
    """A process of some machine; `started` is a text that no later process of its number has."""

    host: str
    number: int
    started: str


def this_process() -> Process:
    return Process(socket.gethostname(), os.getpid(), start_of(os.getpid()) or "")


def start_of(number: int) -> str | None:
    """`Process.started` of a process of this machine; None where it does not run, or is a zombie.

    On Linux it is counted in ticks since the machine was started, so that setting the clock does not change it.
    """
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(") ")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return None if state in "ZX" else f"{boot}-{fields[18]}"
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(number)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"0-{process.create_time():.0f}"
    return None


def is_gone(process: Process) -> bool:
    """Whether a process of this machine has ended; False for those of other machines, which cannot be seen."""
    return process.host == socket.gethostname() and start_of(process.number) != process.started


# ---------------------------------------------------------------- names of temporary files and folders

_TAG = r"([0-9a-f]{8})-(\d+)-(\w+-\d+)-"


def tag() -> str:
    """Part of a temporary file's name that identifies this process."""
    process = this_process()
    return f"{_host_code()}-{process.number}-{process.started}-"


def is_left_over(path: Path, prefix: str) -> bool:
    """Whether `path`, named by `prefix` (a regular expression) and a `tag`, was left by a process that has ended.

    Files of other machines count as left over after a day.
    """
    found = re.match(prefix + _TAG, path.name)
    if not found:
        return False
    if found[1] == _host_code():
        return start_of(int(found[2])) != found[3]
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > DAY
    return False


def _host_code():
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"
