"""benchmark.py prepro: runs at a tiny size, and compares ways that do the same."""
import re

import numpy as np
import pytest
import torch
from conftest import error_line, run

from benchmarks import network
from benchmarks.measuring import in_new_process
from benchmarks.prepro import build_series, measure, ours, plain
from common.manifest import read_manifest
from dataset import NetworkInput, read_bodies
from preprocessing.suv import suv_volume
from training import engine, objectives
from training.batches import ImageBatches
from utils import ResNet34


def test_prints_every_measure():
    done = run("benchmark.py", "prepro", "--size", 12, 16, 20, "--studies", 2, "--repeats", 1, check=0)
    table = dict(re.findall(r"^(files read raw|suv\.py \+ geometry\.py) +(\S+)", done.stdout, re.MULTILINE))
    assert len(table) == 2 and float(table["suv.py + geometry.py"]) > 0
    assert re.search(r"prepro_script.py, 2 studies.* with two: \d+\.\d\d times the throughput", done.stdout)
    assert ("times as fast as pydicom + SimpleITK" in done.stdout) != ("SimpleITK is not installed" in done.stdout)


def test_series_has_the_size_and_the_suv_it_is_drawn_with(tmp_path):
    build_series(tmp_path / "series", (12, 16, 20), 1)
    volume = suv_volume(tmp_path / "series")
    assert volume.array.shape == (12, 16, 20) and volume.spacing == pytest.approx((1.65,) * 3)
    assert volume.array.max(axis=(1, 2)) == pytest.approx(8 * (1 + 0.1 * (np.arange(12) % 3)), rel=1e-4)  # hot spots


def test_both_ways_give_the_same_mips(tmp_path):
    pytest.importorskip("SimpleITK")
    build_series(tmp_path / "series", (30, 24, 20), 1)
    for own, other in zip(ours(tmp_path / "series"), plain(tmp_path / "series"), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


def test_memory_is_that_of_the_conversion(tmp_path):
    (tmp_path / "000").mkdir()
    grown = in_new_process(measure, hundred_megabytes, tmp_path / "000")[2]
    assert grown == pytest.approx(100, abs=10)


def hundred_megabytes(folder):
    return (b"x" * 100_000_000)[:1]


def test_bad_size_is_one_line():
    assert "--size 2 9 9" in error_line(run("benchmark.py", "prepro", "--size", 2, 9, 9))


def test_train_prints_every_ratio():
    done = run("benchmark.py", "train", "--n_images", 8, "--batch_sizes", 4, "--frozen_images", 8, "--repeats", 1,
               "--amp", "off", check=0)
    for frame in ("310 x 310", "auto"):
        ratios = (rf"{frame} .* real/ceiling \d+\.\d+ +real/plain loop \d+\.\d+ +real/LARS's epoch \d+\.\d+ +"
                  r"ceiling/in bfloat16 \d+\.\d+\n")
        assert re.search(ratios, done.stdout)
    assert re.search(r"--transfer_learning, 8 training .* cached: \d", done.stdout) and "--finetune, 8" in done.stdout


def test_the_plain_loop_computes_what_prediction_computes(cohort):
    """The same images through the same weights: otherwise the two could not be compared in time."""
    table = read_manifest(cohort / "data.csv", (0,))[:6]
    loop = network.PlainLoop(cohort, table, 4, torch.device("cpu"))
    model = ResNet34().eval()
    model.features.load_state_dict(dict(zip(model.features.state_dict(), list(loop.model.state_dict().values())[:-2],
                                            strict=True)))
    model.fc.load_state_dict(loop.model.fc.state_dict())
    given = NetworkInput((310, 310), network.NORM)
    images = ImageBatches(read_bodies(table, cohort), given, 4)
    logits = engine.evaluate(model, images.centred(np.arange(6))).logits
    np.testing.assert_allclose(sorted(loop.evaluate()), sorted(objectives.probabilities(logits)), atol=1e-5)


def test_aggregate_prints_time_memory_and_the_jackknifes_ratio():
    done = run("benchmark.py", "aggregate", "--scans", 60, check=0)
    for name in ("aggregate.py", "compare.py"):
        assert re.search(name + r": \S+ s, \S+ s of a processor, 0\.\d\d GB", done.stdout)
    assert re.search(r"times as fast; they differ by \de-1[5-7] at most", done.stdout)
