"""The machine fails: disks, rights, signals, kills, two at once. Nothing is lost, every fault is one line."""
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, error_line, write_cohort
from faults_helpers import (
    Script,
    as_another_user,
    clock_back,
    done,
    few_files,
    ignore_hangup,
    leftovers,
    small_disk,
    temporary_folder,
)
from pet import write_series
from training_helpers import SMALL, same

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


def test_process_of_torchrun_that_lost_another_says_so(monkeypatch):
    error = RuntimeError("[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer "
                         "[127.0.0.1]:59546. This is typically caused by a remote worker crashing.")
    assert fault_line(error, None) is None
    monkeypatch.setenv("RANK", "1")
    said = fault_line(error, None)
    assert said == "another process of torchrun has ended (process 1): see its message; train again with --resume"
    assert fault_line(RuntimeError("a fault of ours"), None) is None


def test_compilation_that_fails_is_one_line():
    error = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})
    said = fault_line(error("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1"), None)
    assert said == ("--compile: InvalidCxxCompiler: No working C++ compiler found; leave it out, or install a C++ "
                    "compiler")


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

    def left():
        path.write_text(json.dumps(holder._asdict()) if holder else "")
        os.utime(path, (time.time() - age,) * 2)

    left()
    assert is_held(path) != stale and path.exists() != stale  # one of a finished run would stay for ever
    left()
    if stale:
        with locked(path, "it is written"):
            assert json.loads(path.read_text())["number"] == os.getpid()
    else:
        with pytest.raises(InputError, match="elsewhere" if holder else "that has not said which"), locked(path, "it"):
            pass
    assert os.listdir(tmp_path) == ([] if stale else [path.name])


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


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_unpacked_files_go_with_the_processes(signum, tmp_path):
    """The signal goes to the workers, too; after SIGKILL, which lets nobody clean up, the next run does."""
    packed, temporary, output = tmp_path / "packed", tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    for number in range(12):
        write_series(tmp_path / f"S{number}", uid=f"1.2.{number}", spacing=(1.0, 5.0, 4.0))
        shutil.make_archive(packed / f"S{number}", "zip", tmp_path / f"S{number}")
    words = ("--input", packed, "--output", output, "--workers", 2, "--keep_ids")
    before = partial(temporary_folder, str(temporary))
    process = Script(tmp_path, "prepro_script.py", *words, before=before)
    wait_for(lambda: any(temporary.glob("prepro-*/*/*")), process)
    os.killpg(process.pid, signum)
    assert process.end() == (-signum if signum == signal.SIGKILL else 128 + signum), process.output()
    assert bool(list(temporary.iterdir())) == (signum == signal.SIGKILL)
    again = Script(tmp_path, "prepro_script.py", *words, before=before)
    assert again.end() in (0, 1) and not list(temporary.iterdir()) and not leftovers(output)


@pytest.mark.slow
def test_a_series_in_many_archives_needs_few_open_files(tmp_path):
    write_series(tmp_path / "plain", spacing=(0.5, 10.0, 10.0))
    slices = sorted((tmp_path / "plain").iterdir())
    assert len(slices) >= 267
    (tmp_path / "packed").mkdir()
    for path in slices:
        with zipfile.ZipFile(tmp_path / "packed" / f"{path.stem}.zip", "w") as archive:
            archive.write(path, path.name)
    for name, before in (("plain", None), ("packed", partial(few_files, 64))):
        done(tmp_path, "prepro_script.py", "--input", tmp_path / name, "--output", tmp_path / f"{name}_out",
             "--keep_ids", "--workers", 1, before=before)
    one, other = (sorted((tmp_path / f"{name}_out" / "images").iterdir()) for name in ("plain", "packed"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.fixture
def open_place():
    """A folder that another user reaches, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="faults_"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_folders_without_rights_and_broken_links_are_counted(dicom, open_place):
    """As another user, whom rights stop: each is a row of errors.csv, the rest is converted."""
    source = open_place / "dicom"
    shutil.copytree(dicom, source)
    source.chmod(0o755)
    (source / "gone").symlink_to(source / "nowhere")
    (source / "S2").chmod(0)
    (source / "S3" / "003.dcm").chmod(0)
    script = Script(open_place, "prepro_script.py", "--input", source, "--output", open_place / "out", "--keep_ids",
                    "--workers", 2, before=partial(as_another_user, str(source / "S2"), os.R_OK))
    assert script.end() == 1 and script.last().startswith("3 refused: "), script.output()
    errors = files.read_csv(open_place / "out" / "errors.csv")
    assert sorted(errors["study"]) == ["S2", "S3", "gone"], errors
    assert errors["reason"].str.contains("Permission denied|No such file").all()
    assert "2 studies -> " in script.output() and "3 refused: " in script.output()


@pytest.mark.slow
def test_an_output_without_rights_is_one_line(small, dicom, open_place):
    closed = open_place / "closed"
    closed.mkdir(0o555)
    copy = shutil.copytree(small, open_place / "small")
    copy.chmod(0o755)
    for script, words in (("train.py", training(copy, closed)), ("train.py", training(copy, closed / "new")),
                          ("prepro_script.py", ("--input", dicom, "--output", closed, "--keep_ids"))):
        process = Script(open_place, script, *words, before=partial(as_another_user, str(closed), os.W_OK))
        assert process.end() == 2, process.output()
        assert process.last().startswith(f"error: {closed}/") and "Permission denied; give this user" in process.last()


@pytest.mark.slow
def test_an_output_removed_while_running(small, tmp_path):
    """The checkpoint of an earlier epoch is gone: nothing says that the run was finished."""
    output = tmp_path / "results"
    words, log = training(small, output, "--nepochs", 12), output / "convergence_split0_run1.csv"
    process = Script(tmp_path, "train.py", *words)

    def at_best():  # no later epoch can be better, and write its checkpoint
        rows = files.read_csv(log) if log.exists() else []
        return len(rows) and ((rows["metric"] == "auc") & (rows["split"] == "validation") & (
            rows["value"].str.startswith("1"))).any()

    wait_for(at_best, process)
    output.rename(tmp_path / "moved")
    assert process.end() == 2, process.output()
    assert any(said in process.last() for said in (
        "checkpoint_split0_run1.pth: is gone, removed while the run was trained", "was removed meanwhile"))
    done(tmp_path, "train.py", *words, "--nepochs", 1)
    assert (output / "checkpoint_split0_run1.pth").exists() and not leftovers(output)


@pytest.mark.slow
def test_a_clock_set_back_changes_nothing(small, dicom, tmp_path):
    for name, before in (("now", None), ("late", clock_back)):
        words = training(small, tmp_path / name, "--checkpoint_minutes", 1e-4, "--resume")
        process = Script(tmp_path, "train.py", *words)
        wait_for((tmp_path / name / "convergence_split0_run1.csv").exists, process)
        process.kill(signal.SIGKILL)
        process.end()
        done(tmp_path, "train.py", *words, before=before)
        done(tmp_path, "prepro_script.py", "--input", dicom, "--output", tmp_path / name / "mips", "--keep_ids")
        again = done(tmp_path, "prepro_script.py", "--input", dicom, "--output", tmp_path / name / "mips", "--keep_ids",
                     before=before)
        assert "4 studies are done, unchanged and left alone" in again.output()
    one, other = (utils.read_checkpoint(tmp_path / name / "checkpoint_split0_run1.pth")["state_dict"]
                  for name in ("now", "late"))
    assert same(one, other)
    assert (tmp_path / "now/mips/data.csv").read_bytes() == (tmp_path / "late/mips/data.csv").read_bytes()


def test_what_is_written_is_on_the_disk_before_its_name_is(small, tmp_path, monkeypatch):
    """Power loss: fsync of the file, its new name, fsync of the folder; only then does the state to resume from go."""
    calls, plain = [], {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

    def note(name, *words):
        where = os.readlink(f"/proc/self/fd/{words[0]}") if name == "fsync" else str(words[-1])
        calls.append((name, os.path.basename(where)))
        return plain[name](*words)

    for name in plain:
        monkeypatch.setattr(os, name, lambda *words, name=name: note(name, *words))
    with replace_file(tmp_path / "a.csv") as file:
        file.write("a\n")
    temporary = calls[0][1]
    assert temporary.startswith(".a.csv.") and temporary.endswith(".tmp")
    assert calls == [("fsync", temporary), ("replace", "a.csv"), ("fsync", tmp_path.name)]
