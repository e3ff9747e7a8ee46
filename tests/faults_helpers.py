"""Scripts in processes of their own that need not import anything: forked from one that has (multiprocessing's
forkserver). They are real: they take signals, are killed, have their exit code."""
import builtins
import contextlib
import errno
import io
import itertools
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time

os.environ["PYTHONPATH"] = os.pathsep.join([*(p for p in sys.path if p), os.environ.get("PYTHONPATH", "")])
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["faults_imports"])
shallow = False  # what of the fixture `shallow` holds for scripts


def shallow_resnet(weights=None):
    """torchvision's resnet34 with a block in each layer in place of 3, 4, 6 and 3."""
    from torchvision.models import ResNet, resnet
    assert weights is None
    return ResNet(resnet.BasicBlock, [1, 1, 1, 1])


def main(script, words, said, errors, before, shallow):
    """What a process of its own does: the script, after `before`, with its output in the files `said` and `errors`."""
    os.setsid()
    if shallow:
        import torchvision
        torchvision.models.resnet34 = shallow_resnet
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)  # as in any other process
    for number, path in ((1, said), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (io.TextIOWrapper(open(number, "wb", 0), write_through=True) for number in (1, 2))
    sys.argv = [script, *words]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    if before:
        before()
    import importlib

    from common.arguments import run_script
    module = importlib.import_module(script.removesuffix(".py"))
    run_script(module.get_args_parser, module.main)


class Script:
    """A script that runs: `pid`, `kill(signal)`, `end()` -> its exit code, negative for the signal that killed it.

    `before` is called in its process first.
    """

    def __init__(self, folder, script, *words, before=None):
        self.said = folder / f"said_{time.monotonic_ns()}.txt"
        self.process = context.Process(target=main, args=(script, [str(word) for word in words], str(self.said),
                                                          str(self.said), before, shallow))
        self.process.start()
        self.pid = self.process.pid

    def alive(self):
        return self.process.is_alive()

    def kill(self, signum):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            if self.alive():
                os.kill(self.pid, signum)

    def end(self, seconds=120):
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()  # it would run on beside the tests that follow
            raise AssertionError(f"{self.output()}\n{self.pid} does not end")
        return self.process.exitcode

    def output(self):
        return self.said.read_text(errors="replace") if self.said.exists() else ""

    def last(self):
        """The one line of its error, after whatever it said before; no traceback."""
        said = self.output()
        assert "Traceback" not in said, said
        return said.replace("\r", "\n").strip().split("\n")[-1]


def done(folder, script, *words, code=0, before=None):
    """Run a script to its end, assert its exit code -> the Script."""
    process = Script(folder, script, *words, before=before)
    assert process.end() == code, f"exit code {process.end()}, not {code}\n{process.output()}"
    return process


# ---------------------------------------------------------------- what may happen before: `before`

def small_disk():
    """No file may grow beyond 4000 bytes, less than a MIP."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


def full_at(number, folder):
    """From the n-th write on, every write to a file that is opened in `folder` finds the disk full."""
    plain, count = open, itertools.count(1)

    class Full(io.FileIO):
        def write(self, data):
            if next(count) >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if not {"w", "x", "a"} & set(mode) or not str(file).startswith(folder):
            return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
        buffered = io.BufferedWriter(Full(file, mode.replace("b", ""), opener=opener))
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    builtins.open = opened


def few_files(number):
    """As `ulimit -n`."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def as_another_user(closed, right):
    """Root may read and write everything: become nobody, who really lacks a right (os.R_OK, os.W_OK) to a folder."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    assert not os.access(closed, right), closed


def clock_back():
    """The clock runs a day late."""
    plain = time.time
    time.time = lambda: plain() - 86400


def temporary_folder(folder):
    os.environ["TMPDIR"], tempfile.tempdir = folder, None


def ignore_hangup():
    """As nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


# ---------------------------------------------------------------- what a folder holds

def check_whole(folder):
    """Every file that stands under its own name can be read to its end."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    import utils
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file() or path.name.endswith(".lock"):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            pd.read_csv(path, dtype=str)
            assert path.read_bytes().endswith(b"\n"), path
        elif path.suffix == ".pth":
            utils.read_checkpoint(path)
        elif path.suffix == ".npy":
            np.load(path)
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>"), path


def leftovers(*folders):
    return [path for folder in folders for path in folder.rglob("*")
            if path.name.endswith((".tmp", ".lock")) or path.name.startswith("prepro-")]
