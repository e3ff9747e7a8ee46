"""Faults of the machine (disk, rights, memory of host or GPU) as a line with a remedy. Imports no torch."""
import errno
import os
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from common.text import short

NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
OF_MACHINE = NO_ROOM | {errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # whatever file is read or written
REMEDIES = {
    **dict.fromkeys(NO_ROOM, "free some room there, or give a folder on another disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give this user the right to it, or give another folder"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "a file stands where a folder is needed: remove it, or give another "
                                                   "folder"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n), or give fewer --workers"),
    errno.EISDIR: "a folder stands where a file is needed: remove it, or give another path",
    errno.ENOENT: "it, or its folder, is not there or was removed meanwhile: give the same command again",
    errno.ENAMETOOLONG: "give shorter names"}
EXTRAS = {"optuna": "search", "cmaes": "search", "plotly": "search", "sqlalchemy": "search", "psycopg": "postgres",
          "psycopg2": "postgres", "highdicom": "dicom", "tensorboard": "tensorboard"}  # package: extra that brings it
LESS_MEMORY = {"batch_size": "give a smaller --batch_size", "pool": "--pool 2 (a quarter) and --image_size auto",
               "workers": "give fewer --workers"}  # argument of a script -> what needs less
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|alloc_failed", re.IGNORECASE)
LOST = re.compile(r"gloo/transport|connection (closed|reset) by peer", re.IGNORECASE)
OTHERWISE = "see whether the disk or file server works, then give the same command again"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: Python's, or PyTorch's for any device (a RuntimeError)."""
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))


def memory_line(error: BaseException, args: Namespace) -> str:
    """The line that a script with these arguments prints; it names the process where torchrun started several."""
    process = f" in process {os.environ['RANK']}" if "RANK" in os.environ else ""
    remedies = [text for name, text in LESS_MEMORY.items() if hasattr(args, name)]
    return f"out of memory{process}: {short(error)}; {' or '.join([*remedies, 'end other programs'])}"


def machine_fault(error: BaseException) -> OSError | None:
    """The fault of the machine behind an error: itself, or where another one was raised over it, one of OF_MACHINE."""
    if isinstance(error, OSError):
        return error
    return next((each for each in _behind(error) if each.errno in OF_MACHINE), None)


def of_file(error: BaseException, path: Path, temporary: Path) -> OSError | None:
    """The fault of writing `path` by a `temporary` file, naming the path; None where an error is another one.

    torch and zipfile raise errors of their own over it; NumPy, of a write that was cut short, one without errno.
    """
    if isinstance(error, OSError | RuntimeError | ValueError):
        for fault in _behind(error):
            if fault.filename in (None, str(temporary)):
                return OSError(fault.errno or errno.ENOSPC, fault.strerror or str(fault), str(path))
    return None


def _behind(error: BaseException | None) -> Iterator[OSError]:
    while error:
        if isinstance(error, OSError):
            yield error
        error = error.__cause__ or error.__context__


def fault_line(error: BaseException, args: Namespace) -> str | None:
    """The line that a script with these arguments prints for an error; None where it is no fault of the machine."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get(package)):
        return f"{package} is not installed: pip install 'deauville-scoring[{extra}]', or -r requirements.txt"
    if is_out_of_memory(error):
        return memory_line(error, args)
    if type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):
        said = short(str(error).partition("\n\n")[0])  # before hints to PyTorch's developers
        return f"--compile: {said}; leave it out, or install a C++ compiler"
    process = f" (process {os.environ['RANK']})" if "RANK" in os.environ else ""
    if process and isinstance(error, RuntimeError) and LOST.search(str(error)):
        return f"another process of torchrun has ended{process}: see its message; train again with --resume"
    if (fault := machine_fault(error)) is None:
        return None
    where = f"{os.fsdecode(fault.filename)}: " if isinstance(fault.filename, str | bytes | os.PathLike) else ""
    reason = " ".join((fault.strerror or str(fault) or type(fault).__name__).split())
    return f"{where}{reason}{process}; {REMEDIES.get(fault.errno or 0, OTHERWISE)}"

