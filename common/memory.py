"""Errors for lack of memory, of the host or the GPU, as a line with what needs less of it. Imports no torch."""
import os
import re
from argparse import Namespace

from common.text import short

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|alloc_failed", re.IGNORECASE)
REMEDIES = {"batch_size": "give a smaller --batch_size", "pool": "--pool 2 (a quarter) and --image_size auto",
            "workers": "give fewer --workers"}  # of a script that has this argument


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: Python's, or PyTorch's for any device (a RuntimeError)."""
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def memory_line(error: BaseException, args: Namespace) -> str:
    """The line that a script with these arguments prints; it names the process where torchrun started several."""
    process = f" in process {os.environ['RANK']}" if "RANK" in os.environ else ""
    remedies = [text for name, text in REMEDIES.items() if hasattr(args, name)]
    return f"out of memory{process}: {short(error)}; {' or '.join([*remedies, 'end other programs'])}"
