"""One hostile case in a forked child: how it ended.

A class of cases is a function case(rng, folder) -> Case, which writes files into the empty `folder` and says what to do
with them. The same seed gives the same case. The parent has imported everything that the cases use, and started no
thread.
"""
import contextlib
import gc
import importlib
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.arguments import Parser, run_script

SECONDS, MEMORY, DISK = 10, 2 << 30, 1 << 28  # what a case may take
CANARY = "canary"  # a file that code from data would make
ANY, SAME, REFUSED = "any", "same", "refused"


@dataclass
class Case:
    """What to do with a folder's files.

    Attributes
    ----------
    name : str
        What was done to the files.
    read : callable
        Takes nothing and returns what was read, or raises InputError; or an exit code, 1 where items were refused.
    expected : str
        SAME: it must be read, as `right` says; REFUSED: it must not; ANY: either, but what is read must be `right`.
    right : callable or None
        Takes what was read: is it right? None: whatever it is.
    """
    name: str
    read: Callable[[], Any]
    expected: str = ANY
    right: Callable[[Any], bool] | None = None


class Unread(Exception):
    """What was to be read was listed as refused, as prepro_script.py does: exit code 1."""


def run_case(make: Callable[[np.random.Generator, Path], Case], seed: int, folder: Path) -> tuple[str, str]:
    """(name of the case, "" or what is wrong with how it ended)."""
    folder.mkdir()
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.close(reader)
        said = "?\x00ended without a verdict"
        try:
            said = _attempt(make, seed, folder)
        except BaseException:
            said = f"?\x00the case itself: {traceback.format_exc()[-600:]}"
        finally:
            os.write(writer, said.encode(errors="backslashreplace")[-4000:])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    status = os.waitpid(child, 0)[1]
    name, _, wrong = (said or f"seed {seed}\x00ended without a verdict").partition("\x00")
    if os.WIFSIGNALED(status):
        number = signal.Signals(os.WTERMSIG(status)).name
        wrong = f"over {SECONDS} s" if number == "SIGALRM" else f"killed by {number}"
    if (folder / CANARY).exists():
        wrong = "code from data ran"
    shutil.rmtree(folder, ignore_errors=True)
    return name, wrong


def _attempt(make, seed, folder):
    """In the child: make the case, read it within its limits, judge."""
    os.chdir(folder)
    case = make(np.random.default_rng(seed), folder)
    used = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line).split()[1])
    for what, most in ((resource.RLIMIT_AS, (used << 10) + MEMORY), (resource.RLIMIT_CORE, 0),
                       (resource.RLIMIT_FSIZE, DISK)):
        resource.setrlimit(what, (most, most))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    found: list[Any] = []

    def main(args):
        try:
            found.append(case.read())
        except Unread:
            return 1
        return None

    with open(folder / "said", "w+") as output:
        sys.argv = ["case"]
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            try:
                run_script(lambda: Parser("A case."), main)
            except SystemExit as ended:
                code = ended.code
            except BaseException:
                return f"{case.name}\x00traceback: {traceback.format_exc()[-900:]}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()]
    return f"{case.name}\x00{_verdict(case, code, found, lines)}"


def _verdict(case, code, found, lines):
    errors = [line for line in lines if line.startswith("error: ")]
    if code == 2 and (len(errors) != 1 or lines[-1] != errors[0]) or code not in (0, 1, 2):
        return f"exit code {code}, {' | '.join(lines[-3:])}"
    if any("weights_only" in line or "safe_globals" in line for line in lines):
        return f"advises to run code: {errors}"
    if code:
        return f"refused: {' | '.join(lines[-1:])}" if case.expected == SAME else ""
    if case.expected == REFUSED:
        return "was read without a word"
    return "a wrong result" if case.right and not case.right(found[0]) else ""


def prepare() -> None:
    """Before the first fork: no thread of torch's, whose locks a child would inherit; what is imported late; and keep a
    child's garbage collector away from what it shares with its parent, which would be copied."""
    torch.set_num_threads(1)
    for name in ("highdicom", "nibabel", "nrrd", "openpyxl", "pydicom.pixels", "pydicom.pixels.decoders"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def mutated(content: bytes, rng: np.random.Generator, most: int = 5) -> bytes:
    """A few bytes changed, taken out, put in or doubled, or all cut off from somewhere on."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, most + 1)):
        at, kind = int(rng.integers(len(changed) + 1)), rng.integers(6)
        if kind == 0:
            changed[at:at + 1] = rng.bytes(1)
        elif kind == 1:
            del changed[at:at + int(rng.integers(1, 9))]
        elif kind == 2:
            changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 3:
            changed[at:at] = changed[at:at + int(rng.integers(1, 200))]
        elif kind == 4 and at < len(changed):
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 5 and rng.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def pick(rng: np.random.Generator, items: list[Any]) -> Any:
    """One of them, of whatever kind they are."""
    return items[int(rng.integers(len(items)))]


def no_file(path: Path, rng: np.random.Generator) -> str:
    """Put something else in a file's place -> its name."""
    path.unlink(missing_ok=True)
    kind = pick(rng, ["missing", "empty", "random", "a folder", "a pipe", "a loop of links", "a device", "a picture"])
    if kind == "empty":
        path.touch()
    elif kind == "random":
        path.write_bytes(rng.bytes(int(rng.integers(1, 5000))))
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a loop of links":
        path.symlink_to(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a picture":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + rng.bytes(500))
    return kind
