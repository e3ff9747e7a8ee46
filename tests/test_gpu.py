"""What only a CUDA device can show: make gpu-check. Skipped where there is none."""
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, call, error_line
from training_helpers import SMALL, close_gradients, same_run, signal_at, steps, torchrun

import find_best_model
import predict
import train
import utils
from training import engine
from training.state import TrainState

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
TF32_OFF = {"NVIDIA_TF32_OVERRIDE": "0"}  # float32 as the CPU has it


def fit(folder, *args, output="results"):
    return call(train, "--data", folder / "data.csv", "--output", folder / output, *SMALL, "--device", DEVICE, *args)


def log_of(folder):
    return pd.read_csv(folder / "convergence_split0_run1.csv").set_index(["epoch", "split", "metric"])["value"]


# ---------------------------------------------------------------- the same numbers as on a CPU

@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-3)])
def test_a_steps_gradients_are_the_cpus(cohort, dtype, tolerance):
    close_gradients(*(steps(cohort, 1, dtype, 1, device, 4, env=TF32_OFF) for device in ("cpu", DEVICE)), tolerance)


def test_weights_are_the_cpus_after_ten_steps_in_float64(cohort):
    cpu, gpu = (steps(cohort, 1, "float64", 10, device, 4) for device in ("cpu", DEVICE))
    for name, tensor in cpu["weights"].items():
        torch.testing.assert_close(gpu["weights"][name], tensor, rtol=0, atol=1e-7, msg=name)
    torch.testing.assert_close(gpu["scores"], cpu["scores"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("amp", "tf32", "tolerance"), [("off", False, 1e-4), ("off", True, 0.01), ("bf16", True, 0.05),
                                                        ("fp16", True, 0.02)])
def test_a_checkpoints_probabilities_are_the_cpus(cohort, monkeypatch, amp, tf32, tolerance):
    fit(cohort, "--nepochs", 2, "--device", "cpu")
    call(find_best_model, "--dir", cohort / "results")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    probs = {}
    for device, precision in (("cpu", "off"), (DEVICE, amp)):
        call(predict, "--data", cohort / "data.csv", "--chptfolder", cohort / "results", "--output", cohort / device,
             "--splits", 0, 0, "--set", "val", "test", "--device", device, "--amp", precision)
        probs[device] = pd.read_csv(cohort / device / "pred_split0_run1.csv")["probs"]
    np.testing.assert_allclose(probs[DEVICE], probs["cpu"], rtol=0, atol=tolerance)
    assert probs["cpu"].nunique() > 10


@pytest.mark.parametrize(("amp", "precision"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_autocast_trains_as_float32_does(cohort, amp, precision):
    options = ("--nepochs", 2, "--lr", 0.001, "--augm", 3)
    fit(cohort, *options, "--amp", "off", output="float32")
    fit(cohort, *options, "--amp", amp, output=amp)
    content = utils.read_checkpoint(cohort / amp / "checkpoint_split0_run1.pth")
    assert content["precision"] == precision and content["state_dict"]["fc.weight"].dtype == torch.float32
    losses = [log_of(cohort / name)[1, "train", "loss"] for name in ("float32", amp)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


# ---------------------------------------------------------------- the same bits

@pytest.mark.parametrize("options", [("--amp", "off", "--augm", 45, "--cls_arch", "complex"),
                                     ("--amp", "auto", "--optimizer", "adamw", "--lr_schedule", "onecycle"),
                                     ("--amp", "fp16", "--ema", 0.9, "--pool", 1)])
def test_resumed_run_is_the_undisturbed_one_to_the_bit(cohort, monkeypatch, options):
    options = (*options, "--nepochs", 3)
    fit(cohort, *options, output="whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_at(patch, 2, 1)
        fit(cohort, *options, output="cut")
    fit(cohort, *options, "--resume", output="cut")
    same_run(cohort / "cut", cohort / "whole")


# ---------------------------------------------------------------- several devices

@needs_two
def test_two_devices_have_the_gradients_of_one(cohort):
    close_gradients(*(steps(cohort, processes, "float64", 1, DEVICE, 4) for processes in (1, 2)), 1e-8)


@needs_two
def test_two_devices_train_alike_and_write_once(cohort):
    options = ("--data", cohort / "data.csv", *SMALL, "--device", DEVICE, "--nepochs", 2, "--lr", 1e-4)
    torchrun(1, "train.py", *options, "--output", cohort / "one")
    done = torchrun(2, "train.py", *options, "--output", cohort / "two")
    assert done.stdout.count("epoch 1/") == 1 and "2 processes" in done.stdout
    one, two = (log_of(cohort / name) for name in ("one", "two"))
    loss = one.index.get_level_values("metric") == "loss"
    np.testing.assert_allclose(two[loss], one[loss], rtol=0.01)


# ---------------------------------------------------------------- memory

def test_epochs_keep_no_memory(cohort, monkeypatch):
    held, end_epoch = [], TrainState.end_epoch

    def noted(state, *outputs):
        held.append(torch.cuda.memory_allocated())
        return end_epoch(state, *outputs)

    monkeypatch.setattr(TrainState, "end_epoch", noted)
    fit(cohort, "--nepochs", 6)
    assert held[0] > 0 and held[-1] == held[1]  # after the first the optimizer holds its momentum


def test_runs_and_models_keep_no_memory(cohort, monkeypatch):
    held, evaluate = [], engine.evaluate

    def noted(*args, **options):
        held.append(torch.cuda.memory_allocated())
        return evaluate(*args, **options)

    monkeypatch.setattr(engine, "evaluate", noted)
    fit(cohort, "--nepochs", 1, "--run", "1-4")
    call(predict, "--data", cohort / "data.csv", "--chptfolder", cohort / "results", "--output", cohort / "results",
         "--splits", 0, 0, "--run", "1-4", "--device", DEVICE)
    runs, models = held[:4], held[4:]
    assert len(models) == 4 and min(held) > 0
    assert runs[3] <= runs[1] and models[3] <= models[1]  # the first is alone; later the one before may be there


@pytest.mark.parametrize("megabytes", [20, 400])  # the network does not fit; its batch does not
def test_memory_that_runs_out_is_one_line(cohort, megabytes):
    code = ("import runpy, sys, torch\n"
            "share = float(sys.argv[1]) * 1e6 / torch.cuda.get_device_properties(0).total_memory\n"
            "torch.cuda.set_per_process_memory_fraction(share)\n"
            "del sys.argv[:2]\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n")
    words = (megabytes, "train.py", "--data", cohort / "data.csv", "--output", cohort / "results", *SMALL, "--device",
             DEVICE, "--image_size", 1024)
    line = error_line(subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, capture_output=True,
                                     text=True, timeout=300))
    assert "out of memory: CUDA out of memory" in line and "give a smaller --batch_size or --pool 2" in line
