"""benchmark.py: runs at a tiny size, and compares ways that do the same."""
import re

import numpy as np
import pytest
import torch
import torchvision
from conftest import error_line, run, write_cohort

from benchmarks.lars import Curve, LarsLoop, to_its_auc
from benchmarks.measuring import in_new_process
from benchmarks.plain_loop import NORM, PlainLoop
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


@pytest.mark.slow
def test_train_prints_every_ratio():
    done = run("benchmark.py", "train", "--n_images", 8, "--batch_sizes", 4, "--frozen_images", 8, "--scans", 4,
               "--repeats", 1, "--amp", "off", check=0)
    for frame in ("310 x 310", "auto"):
        ratios = (rf"{frame} .* real/ceiling \d+\.\d+ +real/plain loop \d+\.\d+ +real/LARS's epoch \d+\.\d+ +"
                  r"ceiling/in bfloat16 \d+\.\d+\n")
        assert re.search(ratios, done.stdout)
    assert re.search(r"--transfer_learning, 8 training .* cached: \d", done.stdout) and "--finetune, 8" in done.stdout
    assert re.search(r"an epoch of 4 scans of two views, validated on 4 images, auto, batch 50: \d+\.\d s; cpu",
                     done.stdout)


@pytest.mark.slow
def test_several_stages_are_measured_in_one_call():
    done = run("benchmark.py", "predict", "aggregate", "--n_images", 8, "--scans", 6, "--repeats", 1, "--amp", "off",
               check=0)
    for frame in ("310 x 310", "auto"):
        assert re.search(rf"{frame} .* images/s a model +10 models / 10 plain loops \d+\.\d+\n", done.stdout)
    assert "6 scans of two views, 10 models\n" in done.stdout  # aggregate's
    assert re.search(r"they differ by \de-1[5-7] at most", done.stdout)
    assert re.search(r"2 models over 6 scans of two views: \d+\.\d s; \d\.\d\d GB of the host at most", done.stdout)


def test_the_plain_loop_computes_what_prediction_computes(cohort):
    """The same images through the same weights: otherwise the two could not be compared in time."""
    table = read_manifest(cohort / "data.csv", (0,))[:6]
    loop = PlainLoop(cohort, table, 4, torch.device("cpu"))
    model = ResNet34().eval()
    model.features.load_state_dict(dict(zip(model.features.state_dict(), list(loop.model.state_dict().values())[:-2],
                                            strict=True)))
    model.fc.load_state_dict(loop.model.fc.state_dict())
    given = NetworkInput((310, 310), NORM)
    images = ImageBatches(read_bodies(table, cohort), given, 4)
    logits = engine.evaluate(model, images.centred(np.arange(6))).logits
    np.testing.assert_allclose(sorted(loop.evaluate()), sorted(objectives.probabilities(logits)), atol=1e-5)


@pytest.mark.slow
def test_lars_measures_both_ways_to_its_auc(tmp_path):
    write_cohort(tmp_path, 8)
    done = run("benchmark.py", "lars", "--data", tmp_path / "data.csv", "--nepochs", 2, "--threads", 1, "--amp", "off",
               "--recipe_options", "--image_size auto --nepochs 2", check=0)
    assert "LARS's loop: 310 x 310, float32, batch 50, SGD 0.001, 10 workers, weights none" in done.stdout
    epochs = re.findall(r"^ +\d +(\d+\.\d) +([01]\.\d{4}) +(\d+\.\d)$", done.stdout, re.MULTILINE)
    assert len(epochs) == 2
    fastest = re.search(r"fastest of 2: LARS's loop (\S+) s, train.py (\S+) s, (\S+) times as fast\n", done.stdout)
    assert [fastest[1], fastest[2]] == [min((row[k] for row in epochs), key=float) for k in (0, 2)]
    assert float(fastest[3]) == pytest.approx(float(fastest[1]) / float(fastest[2]), rel=0.2)
    best = max(float(auc) for _, auc, _ in epochs)
    assert re.search(rf"^validation AUC {best:.4f}: LARS's loop after \d+ s \(epoch [12]\), train.py --image_size auto "
                     r"--nepochs 2 (after \d+ s \(epoch [12]\), \S+ times|not in \d+ s: at most)", done.stdout,
                     re.MULTILINE)


def test_the_line_on_the_way_to_an_auc():
    """Sums by hand."""
    lars, own = Curve([100, 200, 300], [0.7, 0.9, 0.8]), Curve([8, 16, 24], [0.6, 0.92, 0.85])
    assert to_its_auc(lars, own, "--pool 2") == (
        "validation AUC 0.9000: LARS's loop after 200 s (epoch 2), train.py --pool 2 after 16 s (epoch 2), 12.5 times "
        "as fast; at most 0.9200, after 24 s 0.8500")
    assert to_its_auc(own, lars, "-x") == (
        "validation AUC 0.9200: LARS's loop after 16 s (epoch 2), train.py -x not in 300 s: at most 0.9000")


def test_lars_places_bodies_at_random_in_training_and_in_the_middle_else(cohort):
    table = read_manifest(cohort / "data.csv", (0,))[:6]
    loop = LarsLoop(cohort, table[:4], table[4:], torch.device("cpu"), 0.001, "none")
    rows = loop.loader.dataset[:1] * 40
    images = loop.loader.collate_fn(rows)[0] * 3.39 + 2.13  # SUV
    tops = {int(np.flatnonzero((image > 0.3).any(1))[0]) for image in images[:, 0].numpy()}
    assert len(tops) > 20 and max(tops) <= 310 - 60 + 3
    middle = loop.val_set.collate_fn(rows[:1])[0][0, 0] * 3.39 + 2.13
    body, frame = read_bodies(table[:1], cohort).images[0].numpy(), np.zeros((310, 310), "float32")
    top, left = (310 - body.shape[0]) // 2, (310 - body.shape[1]) // 2
    frame[top:top + body.shape[0], left:left + body.shape[1]] = body
    np.testing.assert_allclose(middle, frame, atol=1e-5)


def test_lars_learning_rate_falls_to_a_tenth_in_every_15th_epoch(cohort, monkeypatch):
    table, rates = read_manifest(cohort / "data.csv", (0,))[:2], []
    loop = LarsLoop(cohort, table, table, torch.device("cpu"), 0.001, "none")
    monkeypatch.setattr(loop, "train", lambda: rates.append(loop.optimizer.param_groups[0]["lr"]))
    monkeypatch.setattr(loop, "evaluate", lambda loader: torch.zeros(2))
    for epoch in range(1, 31):
        loop.epoch(epoch)
    assert rates == pytest.approx([1e-3] * 14 + [1e-4] * 15 + [1e-5])


def test_lars_starts_from_the_weights_that_train_py_starts_from(cohort, tmp_path):
    state = torchvision.models.resnet34(weights=None).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    table = read_manifest(cohort / "data.csv", (0,))[:2]
    model = LarsLoop(cohort, table, table, torch.device("cpu"), 0.001, str(tmp_path / "weights.pth")).model
    torch.testing.assert_close(model.conv1.weight, state["conv1.weight"].mean(1, keepdim=True))
    torch.testing.assert_close(model.layer4[2].conv2.weight, state["layer4.2.conv2.weight"])


@pytest.mark.slow
def test_aggregate_prints_time_and_memory():
    done = run("benchmark.py", "aggregate", "--scans", 60, check=0)
    for name in ("aggregate.py", "compare.py"):
        assert re.search(name + r": \S+ s, \S+ s of a processor, 0\.\d\d GB", done.stdout)
