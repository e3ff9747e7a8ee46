"""Numbers on odd hardware: threads, denormals, float16, losses that are not finite."""
import contextlib
import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, error_line, run, write_cohort
from training_helpers import SMALL, close_gradients

import dataset
import find_best_model
import predict
import train
import utils
from common.manifest import read_manifest
from training import engine
from training.batches import ImageBatches
from training.objectives import Binary, probabilities

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network of two epochs on eight scans."""
    folder = tmp_path_factory.mktemp("numbers")
    write_cohort(folder, 8)
    call(train, "--data", folder / "data.csv", "--output", folder / "results", *SMALL, "--nepochs", 2)
    call(find_best_model, "--dir", folder / "results")
    return folder


def bodies_of(folder):
    table = read_manifest(folder / "data.csv", (0,))
    return table, dataset.read_bodies(table, folder)


def first_gradients(folder, count):
    """Of every parameter, after the first step's backward pass, with so many threads."""
    with threads(count):
        table, bodies = bodies_of(folder)
        torch.manual_seed(0)
        model = utils.ResNet34("simple").train()
        batch = next(ImageBatches(bodies, dataset.NetworkInput((64, 64), (1.5, 1.0)), 16).training(
            np.arange(16), (0, 1)).batches)
        objective = Binary(table, np.arange(16), torch.device("cpu"))
        objective.loss(model(batch.x), batch.index).mean().backward()
        return {"gradients": {name: p.grad.clone() for name, p in model.named_parameters()}}


def scores(folder, checkpoint, count=1):
    with threads(count):
        table, bodies = bodies_of(folder)
        model, content = utils.load_model(checkpoint)
        batches = ImageBatches(bodies, dataset.NetworkInput((64, 64), (1.5, 1.0)), 16)
        return probabilities(engine.evaluate(model, batches.centred(np.arange(len(table)))).logits)


def test_two_threads_give_one_threads_gradients_and_probabilities(trained):
    close_gradients(first_gradients(trained, 1), first_gradients(trained, 2), 1e-4)
    checkpoint = trained / "results" / "checkpoint_split0_run1.pth"
    np.testing.assert_allclose(scores(trained, checkpoint, 2), scores(trained, checkpoint, 1), rtol=0, atol=1e-5)


def test_denormals_change_nothing(trained, tmp_path):
    """A processor may take numbers below 1e-38 for 0: weights that small change no probability, and none is NaN."""
    content = utils.read_checkpoint(trained / "results" / "checkpoint_split0_run1.pth")
    weight = content["state_dict"]["features.4.0.conv1.weight"]
    weight[::2] *= 1e-39
    assert ((weight != 0) & (weight.abs() < 1.1e-38)).any()
    torch.save(content, tmp_path / "checkpoint_split0_run1.pth")
    exact = scores(trained, tmp_path / "checkpoint_split0_run1.pth")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        flushed = scores(trained, tmp_path / "checkpoint_split0_run1.pth")
    finally:
        torch.set_flush_denormal(False)
    assert np.isfinite(exact).all()
    np.testing.assert_allclose(flushed, exact, rtol=0, atol=1e-5)


def test_float16_that_overflows_is_refused_in_training(trained, tmp_path):
    """Weights that float32 still takes: in float16, as frames of over 32 columns have it, their sums are infinite."""
    content = utils.read_checkpoint(trained / "results" / "checkpoint_split0_run1.pth")
    content["state_dict"]["fc.weight"] *= 1e6
    torch.save(content, tmp_path / "large.pth")
    words = ("--data", trained / "data.csv", *SMALL, "--nepochs", 1, "--checkpoint", tmp_path / "large.pth", "--output",
             tmp_path / "results", "--lr", 1e-12, "--pool", 1)
    said = error_line(run("train.py", *words, "--amp", "fp16"))
    assert "not finite in epoch 1 from batch 1 on (images/s0" in said
    assert said.endswith("or give --amp off, and train again with --overwrite")
    assert call(train, *words, "--amp", "off", "--overwrite") is None


def test_a_loss_that_is_not_finite_keeps_what_was_good(trained, tmp_path, monkeypatch):
    """In the third epoch: the checkpoint and the state of the second stay, and --resume goes on from there."""
    output, words = tmp_path / "results", ("--data", trained / "data.csv", *SMALL, "--nepochs", 3)
    whole, step = Binary.loss, {"count": 0}

    def loss(self, outputs, index):
        step["count"] += outputs.requires_grad  # one step an epoch
        return whole(self, outputs, index) * (math.nan if step["count"] > 2 else 1)

    monkeypatch.setattr(Binary, "loss", loss)
    with pytest.raises(Exception, match=r"split 0 run 1: the loss is not finite in epoch \d"):
        call(train, *words, "--output", output)
    monkeypatch.undo()
    for name in ("checkpoint", "last"):
        state = utils.read_checkpoint(output / f"{name}_split0_run1.pth")["state_dict"]
        assert all(value.isfinite().all() for value in state.values())
    call(train, *words, "--output", output, "--resume")
    log = pd.read_csv(output / "convergence_split0_run1.csv")
    assert np.isfinite(log["value"]).all() and log["epoch"].max() == 3


def test_probabilities_do_not_depend_on_the_batch(trained, tmp_path):
    words = ("--data", trained / "data.csv", "--chptfolder", trained / "results", "--set", "all", "--no_features")
    for size in (1, 50):
        call(predict, *words, "--batch_size", size, "--output", tmp_path / str(size), "--amp", "off", "--device", "cpu")
    one, fifty = (pd.read_csv(tmp_path / size / "pred_split0_run1.csv")["probs"] for size in ("1", "50"))
    np.testing.assert_allclose(one, fifty, rtol=0, atol=1e-5)
