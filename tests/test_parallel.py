"""Two gloo processes are one: gradients, weights, evaluation, files, a signal and a resume."""
import os
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from training_helpers import SMALL, close_gradients, command, same, steps, torchrun, weights

import utils
from training import distributed


def test_two_processes_have_the_gradients_of_one(cohort):
    close_gradients(*(steps(cohort, processes, "float64", 1) for processes in (1, 2)), 1e-9)


@pytest.mark.slow
def test_two_processes_have_the_weights_of_one_after_twenty_steps(cohort):
    one, two = (steps(cohort, processes, "float64", 20) for processes in (1, 2))
    assert one["weights"].keys() == two["weights"].keys()
    for name, tensor in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], tensor, rtol=0, atol=1e-8)
    torch.testing.assert_close(two["scores"], one["scores"], rtol=0, atol=1e-6)


def options_of(cohort):
    return ("--data", cohort / "data.csv", *SMALL, "--nepochs", 2, "--augm", 34, "--cls_arch", "complex", "--lr", 1e-4)


@pytest.mark.slow
def test_two_processes_train_alike_and_write_once(cohort):
    options = options_of(cohort)
    torchrun(1, "train.py", *options, "--output", cohort / "one")
    done = torchrun(2, "train.py", *options, "--output", cohort / "two")
    assert done.stdout.count("epoch 1/") == 1 and "2 processes" in done.stdout
    one, two = (pd.read_csv(cohort / name / "convergence_split0_run1.csv") for name in ("one", "two"))
    assert one[["epoch", "split", "metric"]].equals(two[["epoch", "split", "metric"]])
    loss = one["metric"] == "loss"
    np.testing.assert_allclose(two[loss]["value"], one[loss]["value"], rtol=1e-3)


@pytest.mark.slow
def test_two_processes_stop_at_a_signal_and_go_on_to_the_same_bits(cohort):
    torchrun(2, "train.py", *options_of(cohort), "--output", cohort / "two")
    options = (*options_of(cohort), "--output", cohort / "cut")
    process = subprocess.Popen(command(2, "train.py", *options), cwd=ROOT, stderr=subprocess.PIPE, text=True,
                               stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (cohort / "cut" / "last_split0_run1.pth").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    torchrun(2, "train.py", *options, "--resume")
    assert same(weights(cohort / "cut" / "checkpoint_split0_run1.pth"),
                weights(cohort / "two" / "checkpoint_split0_run1.pth"))
    assert not list((cohort / "cut").glob("last_*")) and not list((cohort / "cut").glob(".*.tmp"))


def test_shares_hold_every_row_once_in_order(monkeypatch):
    for world in (1, 2, 3, 7):
        monkeypatch.setattr(distributed, "world", lambda world=world: world)
        for n in (7, 8, 50):
            rows = []
            for rank in range(world):
                monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
                mine = np.arange(n)[distributed.share(n)]
                assert n // world <= len(mine) <= -(-n // world)
                rows += mine.tolist()
            assert rows == list(range(n))


def test_synchronized_batch_norm_of_one_process_is_batch_norm():
    """The combination of means and variances, against torch, forward, backward and running statistics."""
    torch.manual_seed(0)
    x = torch.randn(6, 5, 4, 3, dtype=torch.float64, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    plain, own = torch.nn.BatchNorm2d(5).double(), distributed.SyncBatchNorm(5).double()
    for module, images in ((plain, x), (own, other)):
        for _ in range(2):
            (module(images) * torch.linspace(0, 1, 360, dtype=torch.float64).view(6, 5, 4, 3)).sum().backward()
    torch.testing.assert_close(other.grad, x.grad, atol=1e-10, rtol=1e-10)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(own.state_dict()[name], value)
    torch.testing.assert_close(own.eval()(x), plain.eval()(x), atol=1e-12, rtol=0)


def test_batch_norms_are_replaced_for_several_processes_alone(monkeypatch):
    model, device = utils.ResNet34().train(False), torch.device("cpu")
    names = list(model.state_dict())
    kinds = {type(module) for module in distributed.synchronize_batch_norm(model, device).modules()}
    assert torch.nn.BatchNorm2d in kinds and distributed.SyncBatchNorm not in kinds
    monkeypatch.setattr(distributed, "world", lambda: 2)
    kinds = {type(module) for module in distributed.synchronize_batch_norm(model, device).modules()}
    assert torch.nn.BatchNorm2d not in kinds and distributed.SyncBatchNorm in kinds
    assert list(model.state_dict()) == names
