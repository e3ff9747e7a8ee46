"""Small cohorts of MIPs for the tests, and the scripts run as a user runs them."""
import functools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import faults_helpers
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from pet import COARSE, write_series

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
os.environ["OMP_NUM_THREADS"] = "1"  # the tests run in two processes: make test
settings.register_profile("seeded", derandomize=True, deadline=None)  # the same examples every time
settings.load_profile("seeded")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def no_key_above(tmp_path_factory):
    """No key lies where every test's folder would find it."""
    for folder in tmp_path_factory.getbasetemp().parents:
        if (folder / "hash_key.txt").exists():
            pytest.fail(f"{folder} has a hash_key.txt, which would be every test's key: move it, or give --basetemp")


@pytest.fixture(autouse=True)
def own_key(tmp_path_factory):
    """No test leaves a hashing key where the next one's folder would find it."""
    yield
    key = tmp_path_factory.getbasetemp() / "hash_key.txt"
    if key.exists():
        key.unlink()
        pytest.fail("the test left hash_key.txt above its folder: give --key, or --output a folder below tmp_path")


def run(script, *args, cwd=ROOT, check=None, env=None):
    """Run a top-level script in a process of its own; `check` asserts its exit code. Returns the CompletedProcess.

    With `env`, which is added to the environment, it is `python SCRIPT`; without, it is forked from a process that has
    imported what the scripts import, which saves seconds.
    """
    words = [str(ROOT / script), *map(str, args)]
    if env is None:
        with tempfile.TemporaryDirectory() as folder:
            said, errors = Path(folder, "said"), Path(folder, "errors")
            process = faults_helpers.context.Process(
                target=faults_helpers.main,
                args=(script, words[1:], str(said), str(errors), functools.partial(os.chdir, cwd),
                      faults_helpers.shallow))
            process.start()
            process.join(300)
            if process.exitcode is None:
                process.kill()  # it would run on beside the tests that follow
                raise AssertionError(f"{words} does not end")
            done = subprocess.CompletedProcess(words, process.exitcode, said.read_text(), errors.read_text())
    else:
        done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": "1", **env}, timeout=300)
    if check is not None:
        assert done.returncode == check, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def call(module, *args):
    """A script in this process, as fast as the import it saves: parse `args`, run main -> its exit code (None: 0)."""
    return module.main(module.get_args_parser().parse_args([str(arg) for arg in args]))


def error_line(done):
    """The one `error: ...` line of a script that was given bad input."""
    assert done.returncode == 2, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    lines = [line for line in done.stderr.splitlines() if line.strip() and "\r" not in line]
    assert "Traceback" not in done.stderr and lines[-1].startswith("error: "), done.stderr
    return lines[-1]


def write_cohort(folder, n_scans=24, size=(60, 36), seed=0, n_splits=2):
    """Scans of two views with a bright square where the target is 1; data.csv and images/ in `folder`, as a table."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows = []
    for scan in range(n_scans):
        target = scan % 2
        part = "test" if scan < n_scans // 4 else None
        splits = [part or ("val" if (scan // 2 + split) % 3 == 0 else "train") for split in range(n_splits)]
        for view in ("cor", "sag"):
            shape = (size[0] - scan % 3, size[1] - scan % 2)
            image = rng.uniform(0.5, 1.5, shape).astype("<f4")
            if target:
                row, column = rng.integers(5, shape[0] - 15), rng.integers(5, shape[1] - 15)
                image[row:row + 8, column:column + 8] += 6
            image.tofile(folder / "images" / f"s{scan:03d}_{view}.bin")
            rows.append({"scan_id": f"s{scan:03d}", "filename": f"images/s{scan:03d}_{view}.bin", "target": target,
                         "matrix_size_1": shape[0], "matrix_size_2": shape[1], "patient_id": f"p{scan:03d}",
                         "spacing_mm": 3.27, "hospital": "007"} | {f"split{i}": s for i, s in enumerate(splits)})
    table = pd.DataFrame(rows)
    table.to_csv(folder / "data.csv", index=False)
    return table


@pytest.fixture(scope="module")
def shallow():
    """Networks of a quarter of the weights, here and in what `run` starts, by the same code: for tests that train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.models.resnet34", faults_helpers.shallow_resnet)
        patch.setattr(faults_helpers, "shallow", True)
        yield


@pytest.fixture
def cohort(tmp_path):
    """A folder with data.csv (24 scans, two splits) and its images."""
    write_cohort(tmp_path)
    return tmp_path


@pytest.fixture
def two_studies(tmp_path):
    """A folder with two small PET series, dicom/A/1 and dicom/B/1."""
    write_series(tmp_path / "dicom" / "A" / "1", **COARSE)
    write_series(tmp_path / "dicom" / "B" / "1", uid="1.2.4", **COARSE)
    return tmp_path


@pytest.fixture
def no_figure(monkeypatch):
    """Most of the time of a call goes into the figure."""
    monkeypatch.setattr("evaluation.figures.score_figures", lambda *arguments: {})


@pytest.fixture
def no_picture(monkeypatch):
    """Half of the time of a call of score.py goes into the picture."""
    monkeypatch.setattr("inference.scan_picture.draw", lambda *arguments: b"")


def pytest_addoption(parser):
    parser.addoption("--cases", type=int, help="how many hostile files test_robustness.py tries")


@pytest.fixture
def cases(request):
    """How many hostile files to try; None: as many as its tests say."""
    return request.config.getoption("--cases")
