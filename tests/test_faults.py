"""The machine fails: disks, rights, signals, kills, two at once. Nothing is lost, every fault is one line."""
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, error_line, write_cohort
from faults_helpers import Script, done, ignore_hangup, leftovers, small_disk
from pet import write_series
from training_helpers import SMALL

import utils
from common import files, locks, processes
from common.faults import REMEDIES, fault_line
from common.files import InputError, replace_file
from common.locks import is_held, locked
from common.processes import Process, this_process

COARSE = {"spacing": (20.0, 5.0, 4.0)}  # 7 slices


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Eight scans of two views."""
    folder = tmp_path_factory.mktemp("small")
    write_cohort(folder, 8)
    return folder


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Four studies."""
    folder = tmp_path_factory.mktemp("dicom")
    for number in range(4):
        write_series(folder / f"S{number}", uid=f"1.2.{number}", PatientID=f"P{number}", **COARSE)
    return folder


def training(cohort, output, *more):
    return ("--data", cohort / "data.csv", *SMALL, "--pool", 4, "--nepochs", 2, "--output", output, *more)


def wait_for(condition, script, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert script.alive() and time.monotonic() < until, script.output()
        time.sleep(0.005)


# ---------------------------------------------------------------- disks and rights

@pytest.fixture
def full_disk():
    """No file can grow beyond 8 KiB: the kernel refuses the write, as on a full disk (EFBIG for ENOSPC)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _text(path):
    with replace_file(path) as file:
        file.write("x" * 100_000)


def _array(path):
    with replace_file(path, "wb") as file:
        np.save(file, np.zeros(100_000))


def _checkpoint(path):
    utils.save_checkpoint(path, {"state_dict": {"weight": torch.zeros(100_000)}})


@pytest.mark.parametrize("write", [_text, _array, _checkpoint])
def test_a_full_disk_is_named_and_the_old_file_stays(write, tmp_path, full_disk):
    path = tmp_path / "results.bin"
    path.write_text("old")
    with pytest.raises(OSError) as fault:
        write(path)
    assert fault.value.filename == str(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["results.bin"]
    said = "100000 requested and 1008 written" if write == _array else "File too large"  # of NumPy
    assert fault_line(fault.value, None) == f"{path}: {said}; free some room there, or give a folder on another disk"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EMFILE])
def test_every_fault_of_the_machine_has_a_line(number):
    said = fault_line(OSError(number, os.strerror(number), "results/a.csv"), None)
    assert said.startswith(f"results/a.csv: {os.strerror(number)}; ")
    assert said.endswith(REMEDIES.get(number, "then give the same command again"))
    assert fault_line(ValueError("a fault of ours"), None) is None
    with pytest.raises(RuntimeError) as over:  # as a library that hides it
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598") from None
    assert fault_line(over.value, None).startswith("No space left on device; ")


def test_an_output_that_is_a_file_is_one_line(small, dicom, tmp_path):
    place = tmp_path / "results"
    place.touch()
    for script, words in (("train.py", training(small, place)),
                          ("prepro_script.py", ("--input", dicom, "--output", place, "--keep_ids"))):
        said = done(tmp_path, script, *words, code=2).last()
        assert said.startswith(f"error: {place}") and "a file stands where a folder is needed" in said, said
    assert place.read_bytes() == b""


def test_a_full_disk_is_no_study_that_is_refused(dicom, tmp_path):
    """A study's own faults are rows of errors.csv; this one is every study's, and ends the run."""
    said = done(tmp_path, "prepro_script.py", "--input", dicom, "--output", tmp_path / "out", "--keep_ids", "--workers",
                2, code=2, before=small_disk).last()
    assert "out/images/1.2." in said and "File too large; free some room" in said
    assert not (tmp_path / "out" / "errors.csv").exists() and not leftovers(tmp_path)


def test_output_that_cannot_be_written_is_no_traceback(tmp_path):
    code = ("import sys; sys.argv = ['x']\nfrom common.arguments import Parser, run_script\n"
            "run_script(lambda: Parser('doc'), lambda args: print('said'))")
    with open("/dev/full", "w") as full:
        said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert error_line(said).startswith("error: No space left on device; ")
    closed = subprocess.run(f"{sys.executable} -c \"{code}\" >&- 2>&- <&-", cwd=ROOT, shell=True)
    head = subprocess.run(f"{sys.executable} -c \"{code.replace('said', 'said' * 20_000)}\" | head -c 1", cwd=ROOT,
                          shell=True, capture_output=True)
    assert closed.returncode == 0 and head.stderr == b"" and head.stdout == b"s"


def test_names_that_are_not_utf8(tmp_path):
    """A folder named in Latin-1: prepro_script.py converts, lists and refuses in it, by its name."""
    place = tmp_path / os.fsdecode("Käse".encode("latin-1"))
    write_series(place / "A", **COARSE)
    write_series(place / "B", uid="1.2.4", PatientWeight=None, **COARSE)
    out = place / "out"
    for more in ((), ("--list",)):
        done(tmp_path, "prepro_script.py", "--input", tmp_path, "--output", out, "--workers", 1, *more, code=not more)
    assert "K\\udce4se/B" in (out / "errors.csv").read_text()
    assert (out / "data.csv").read_text().count("\n") == 3


# ---------------------------------------------------------------- locks

def test_a_lock_names_its_holder_and_goes(tmp_path):
    path = tmp_path / "out" / "running.lock"
    with locked(path, "it is written"):
        assert json.loads(path.read_text()) == this_process()._asdict() and is_held(path)
        refusal = rf"it is written by process {os.getpid()} on .+; wait .* delete {path}"
        with pytest.raises(InputError, match=refusal), locked(path, "it is written"):
            pass
        assert path.exists()
    assert not path.parent.exists() and not is_held(path)  # a folder that held nothing else goes, too


@pytest.mark.parametrize(("holder", "age", "stale"), [
    (Process("HERE", os.getpid(), "other-1"), 0, True),  # its number is another process's now
    (Process("HERE", 2**22 + 1, "other-1"), 0, True), (Process("elsewhere", 1, "a-1"), 700, True),
    (Process("elsewhere", 1, "a-1"), 500, False), (None, 500, False), (None, 700, True)])
def test_what_is_stale_is_replaced(holder, age, stale, tmp_path):
    path = tmp_path / "running.lock"
    if holder and holder.host == "HERE":
        holder = holder._replace(host=this_process().host)
    path.write_text(json.dumps(holder._asdict()) if holder else "")
    os.utime(path, (time.time() - age,) * 2)
    assert is_held(path) != stale
    if stale:
        with locked(path, "it is written"):
            assert json.loads(path.read_text())["number"] == os.getpid()
    else:
        with pytest.raises(InputError, match="elsewhere" if holder else "that has not said which"), locked(path, "it"):
            pass
    assert os.listdir(tmp_path) == [] if stale else [path.name]


def test_a_lock_is_touched_and_one_that_is_anothers_now_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "TOUCHED", 0.01)
    path = tmp_path / "running.lock"
    with locked(path, "it"):
        os.utime(path, (1e9, 1e9))
        until = time.monotonic() + 10
        while path.stat().st_mtime < 1.1e9 and time.monotonic() < until:
            time.sleep(0.01)
        assert path.stat().st_mtime > time.time() - 60
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_one_of_many_takes_a_stale_lock(tmp_path):
    """Twelve at once find a dead process's lock; each holds it alone."""
    path = tmp_path / "running.lock"
    path.write_text(json.dumps(Process(this_process().host, 2**22 + 1, "a-1")._asdict()))
    children = []
    for _ in range(12):
        if not (child := os.fork()):
            try:
                with locked(path, "it", wait=30):
                    with open(tmp_path / "inside", "x"):
                        time.sleep(0.01)
                    os.remove(tmp_path / "inside")
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 12
    assert os.listdir(tmp_path) == []


def test_two_trainings_of_one_run(small, tmp_path):
    output = tmp_path / "results"
    words = training(small, output, "--nepochs", 1000)
    first = Script(tmp_path, "train.py", *words)
    lock = output / "running_split0_run1.lock"
    wait_for((output / "last_split0_run1.pth").exists, first)
    for more in ((), ("--resume",), ("--overwrite", "--lr", 0.1)):
        said = done(tmp_path, "train.py", *words, *more, code=2).last()
        assert said.startswith(f"error: split 0 run 1: split 0 run 1 is trained by process {first.pid} on ")
        assert said.endswith(f"delete {lock}")
    other = done(tmp_path, "train.py", *words, "--nepochs", 1, "--run", 1, 2, code=1)  # a sweep goes on with the next
    assert "failed: split 0 run 1 is trained by" in other.output()
    assert (output / "checkpoint_split0_run2.pth").exists()
    first.kill(signal.SIGTERM)
    assert first.end() == 143 and not leftovers(output)


def test_two_preprocessings_of_one_output(dicom, tmp_path):
    output = tmp_path / "out"
    words = ("--output", output, "--workers", 1, "--keep_ids")
    with locked(output / "running.lock", "it"):
        said = done(tmp_path, "prepro_script.py", "--input", dicom, *words, code=2).last()
        done(tmp_path, "prepro_script.py", "--input", dicom, *words, "--list")
    assert said.startswith(f"error: {output} is written by process {os.getpid()} on "), said
    for name in ("S0", "S1"):
        process = done(tmp_path, "prepro_script.py", "--input", dicom / name, *words, code=2 * (name == "S1"))
    assert "data.csv holds 1 study that --input lacks" in process.last() and "1.2.0" in process.last()
    assert (output / "data.csv").read_text().count("1.2.0_") == 2
    done(tmp_path, "prepro_script.py", "--input", dicom / "S0", "--input", dicom / "S1", *words)
    assert (output / "data.csv").read_text().count("_cor.bin") == 2


# ---------------------------------------------------------------- signals

@pytest.mark.parametrize("name", ["SIGHUP", pytest.param("SIGUSR1", marks=pytest.mark.slow)])
def test_a_closed_terminal_and_slurms_warning_save_the_state(name, small, tmp_path):
    output = tmp_path / "results"
    words = training(small, output, "--nepochs", 1000, "--checkpoint_minutes", 1000)
    process = Script(tmp_path, "train.py", *words)
    wait_for((output / "convergence_split0_run1.csv").exists, process)
    process.kill(getattr(signal, name))
    assert process.end() == 128 + getattr(signal, name) and process.last() == f"interrupted by {name}"
    state = utils.read_checkpoint(output / "last_split0_run1.pth")["position"]
    assert state["epoch"] > 1 and "--resume goes on from there" in process.output()
    assert not leftovers(output)


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_ends_nothing(small, tmp_path):
    process = Script(tmp_path, "train.py", *training(small, tmp_path / "r", "--nepochs", 2),
                     before=ignore_hangup)
    wait_for((tmp_path / "r" / "last_split0_run1.pth").exists, process)
    process.kill(signal.SIGHUP)
    assert process.end() == 0


# ---------------------------------------------------------------- what is left behind

def test_temporary_files_of_dead_processes_go(tmp_path):
    other_host = f"00000000-1-a-1-{'0' * 8}"
    dead = f"{processes._host_code()}-{2**22 + 1}-a-1-{'0' * 8}"
    names = {f".data.csv.{dead}.tmp": False, f".data.csv.{processes.tag()}0.tmp": True,
             f".data.csv.{other_host}.tmp": True, f".old.csv.{other_host}.tmp": False, ".mine.tmp": True,
             f"data.csv.{dead}.tmp": True}
    for name in names:
        (tmp_path / name).touch()
    os.utime(tmp_path / f".old.csv.{other_host}.tmp", (1e9, 1e9))
    files._searched.clear()
    with replace_file(tmp_path / "new.csv") as file:
        file.write("a\n")
    assert set(os.listdir(tmp_path)) == {name for name, stays in names.items() if stays} | {"new.csv"}
