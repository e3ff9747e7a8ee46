"""Lock files, which name the process that holds them. Imports no torch."""
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from common.files import InputError
from common.processes import Process, is_gone, tag, this_process

TOUCHED = 60.0  # seconds after which a lock that is held is touched again
SILENT = 600.0  # seconds without a touch after which the lock of another machine is stale


@contextlib.contextmanager
def locked(path: Path, doing: str, wait: float = 0) -> Iterator[None]:
    """Hold the lock `path` within.

    A stale lock is replaced: one of a process of this machine that has ended, or one of another machine that was not
    touched for ten minutes, by the clock of the file server.

    Parameters
    ----------
    path : Path
        The file; its folder is made where it is missing, and removed again if nothing else was written to it.
    doing : str
        What the holder does, for messages: "split 0 run 1 is trained".
    wait : float
        Seconds to wait while another process holds it.

    Raises
    ------
    InputError
        Another process holds it.
    """
    new_folder = not path.parent.exists()
    content, until = json.dumps(this_process()._asdict()), time.monotonic() + wait
    while not _made(path, content):
        found = _holder(path)
        if not found or found[1]:  # it is gone
            continue
        time.sleep(min(0.05, wait))
        if time.monotonic() >= until:
            raise InputError(f"{doing} by {found[0]}; wait for its end, or if it runs no more, delete {path}")
    ended = threading.Event()

    def touch():
        while not ended.wait(TOUCHED):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=touch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == content:
                path.unlink()
                if new_folder:
                    path.parent.rmdir()  # refused by a folder that holds anything


def is_held(path: Path) -> bool:
    """Whether a process holds the lock `path`; a stale lock is removed."""
    found = _holder(path)
    return found is not None and not found[1]


def _made(path: Path, content: str) -> bool:
    """Create the lock file; False where there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = open(path, "x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
    except OSError as error:
        path.unlink(missing_ok=True)
        error.filename = str(path)
        raise
    return True


def _holder(path: Path) -> tuple[str, bool] | None:
    """(its holder in words, whether it is stale) of a lock; None where there is none. A stale lock is removed."""
    try:
        content, changed = path.read_bytes(), path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        holder = Process(**json.loads(content))
        named, gone = f"process {holder.number} on {holder.host}", is_gone(holder)
        here = holder.host == this_process().host
    except (ValueError, TypeError):  # it was killed, or its disk was full, before it could write its name
        named, gone, here = "a process that has not said which", False, False
    stale = gone or not here and _now(path) - changed > SILENT
    if stale:
        _take_away(path, content)
    return named, stale


def _take_away(path: Path, content: bytes) -> None:
    """Remove the lock, unless another process has replaced it meanwhile by one of other content."""
    aside = path.with_name(f".{path.name}.{tag()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, aside)
        if aside.read_bytes() == content:
            aside.unlink()
        else:
            os.replace(aside, path)


def _now(path: Path) -> float:
    """The time by the clock of the file server that holds `path`."""
    probe = path.with_name(f".{path.name}.{tag()}.tmp")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
