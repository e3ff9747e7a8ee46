"""Out of memory, real and injected: one line that says what needs less, and in a sweep the next run."""
import re
import signal
import sys

import pytest
import torch
from conftest import call, error_line, run
from training_helpers import SMALL

import aggregate
import train
from common.arguments import run_script
from common.faults import is_out_of_memory, memory_line
from common.files import InputError
from training import engine
from training.batches import NoRoom

CUDA = "CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 7.79 GiB"
LINE = (rf"error: split 0 run 1: out of memory: {CUDA}; give a smaller --batch_size or --pool 2 \(a quarter\) and "
        r"--image_size auto or end other programs")


@pytest.fixture
def full_once(monkeypatch):
    """The first training epoch finds no memory on the GPU."""
    whole, errors = engine.train_one_epoch, [torch.OutOfMemoryError(CUDA)]

    def train_one_epoch(*arguments):
        if errors:
            raise errors.pop()
        return whole(*arguments)

    monkeypatch.setattr(engine, "train_one_epoch", train_one_epoch)


def test_what_says_that_memory_is_missing():
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60)
    for error in (real.value, torch.OutOfMemoryError(CUDA), MemoryError(), NoRoom("9 GB"),
                  RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), RuntimeError("MPS backend out of memory")):
        assert is_out_of_memory(error)
    for error in (RuntimeError("size mismatch"), ValueError("out of memory"), InputError("out of memory")):
        assert not is_out_of_memory(error)


def test_the_line_names_what_the_script_has_and_the_process(monkeypatch):
    options = aggregate.get_args_parser().parse_args([])
    assert memory_line(MemoryError(), options) == "out of memory: MemoryError; end other programs"
    monkeypatch.setenv("RANK", "3")
    assert memory_line(MemoryError(), options).startswith("out of memory in process 3: ")


def test_memory_of_the_host_ends_in_one_line(cohort):
    """A frame that no address space holds."""
    done = run("train.py", "--data", cohort / "data.csv", *SMALL, "--image_size", 5_000_000, "--batch_size", 2,
               "--output", cohort / "results")
    assert "out of memory: [enforce fail" in error_line(done) and "give a smaller --batch_size" in error_line(done)


def test_memory_of_a_gpu_ends_in_one_line(cohort, full_once, monkeypatch, capsys):
    words = ["train.py", "--data", cohort / "data.csv", *SMALL, "--output", cohort / "results"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as ended:
            run_script(train.get_args_parser, train.main)
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    assert ended.value.code == 2
    assert re.fullmatch(LINE, capsys.readouterr().err.strip().split("\n")[-1])


def test_a_sweep_goes_on_with_its_next_run(cohort, full_once, capsys):
    code = call(train, "--data", cohort / "data.csv", *SMALL, "--nepochs", 1, "--run", "1-2", "--output",
                cohort / "results")
    said = capsys.readouterr()
    assert code == 1 and "failed: out of memory: CUDA" in said.out and "error: split 0 run 1: out of memory" in said.err
    assert (cohort / "results" / "checkpoint_split0_run2.pth").exists()
