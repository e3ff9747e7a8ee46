"""Thousands of hostile files, by seed: each is read rightly or refused in one line, soon and in little memory.

pytest tests/test_robustness.py --cases 5000    # make test-robustness
"""
import os
import time

import fuzz_harness
import fuzz_images
import fuzz_json
import fuzz_models
import fuzz_tables
import fuzz_volumes
import pytest
from fuzz_harness import REFUSED, SAME, Case, prepare, run_case

from common.files import InputError

CLASSES = {"manifests": (fuzz_tables.manifest, 24), "predictions": (fuzz_tables.prediction_file, 16),
           "MIPs": (fuzz_images.mip, 24), "checkpoints": (fuzz_models.checkpoint, 4),
           "model zips": (fuzz_models.model_zip, 4), "DICOM": (fuzz_volumes.dicom, 8),
           "archives": (fuzz_volumes.archive, 4), "NIfTI, NRRD": (fuzz_volumes.volume, 8),
           "JSON": (fuzz_json.parameters, 8)}  # name: the maker of a case, its share of them in per cent
DEFAULT, SLOW = 300, 500  # cases of make test, of make test-slow


@pytest.fixture(scope="module", autouse=True)
def imported():
    """What cases share, made once, in the process that they are forked from."""
    prepare()
    for shared in (fuzz_models.saved, fuzz_volumes.files, fuzz_volumes.mips):
        shared()


@pytest.mark.parametrize("name", CLASSES)
def test_hostile_files(name, tmp_path, cases):
    count = round((cases or DEFAULT) * CLASSES[name][1] / 100)
    try_seeds(name, range(count), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_more_hostile_files(name, tmp_path, cases):
    if cases is None:  # else all of them were asked for
        first, last = (round(total * CLASSES[name][1] / 100) for total in (DEFAULT, SLOW))
        try_seeds(name, range(first, last), tmp_path)


def try_seeds(name, seeds, folder):
    ended = {seed: run_case(CLASSES[name][0], seed, folder / str(seed)) for seed in seeds}
    wrong = [f"seed {seed}: {said}: {text}" for seed, (said, text) in ended.items() if text]
    assert not wrong, f"{len(wrong)} of {len(seeds)}:\n" + "\n".join(wrong[:20])


def refuse(text):
    raise InputError(text)


@pytest.mark.parametrize(("read", "expected", "verdict"), [
    (lambda: 1 / 0, "any", "traceback: "), (lambda: time.sleep(3), "any", "over 0.5 s"),
    (lambda: bytearray(3 << 30), SAME, "refused: error: "), (lambda: os.mkdir("canary"), "any", "code from data ran"),
    (lambda: 2, SAME, "a wrong result"), (lambda: 1, REFUSED, "was read without a word"),
    (lambda: os.kill(os.getpid(), 9), "any", "killed by SIGKILL"), (lambda: os._exit(3), "any", "ended without"),
    (lambda: refuse("torch.serialization.add_safe_globals"), REFUSED, "advises to run code"),
    (lambda: print("error: 1") or refuse("2"), REFUSED, "exit code 2, "),
    (lambda: refuse("x"), SAME, "refused: error: x"), (lambda: 1, SAME, ""), (lambda: refuse("x"), REFUSED, "")])
def test_the_harness_sees_every_wrong_end(tmp_path, monkeypatch, read, expected, verdict):
    monkeypatch.setattr(fuzz_harness, "SECONDS", 0.5)
    _, wrong = run_case(lambda rng, folder: Case("a", read, expected, lambda found: found == 1), 0, tmp_path / "case")
    assert wrong.startswith(verdict) and bool(wrong) == bool(verdict)
