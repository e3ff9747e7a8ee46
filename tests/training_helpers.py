"""Small training runs: arguments, a cohort with sites, an interrupt in mid-epoch, torchrun, are two runs the same?"""
import os
import signal
import subprocess
import sys

import numpy as np
import torch
from conftest import ROOT, call, write_cohort
from torchvision.models.resnet import BasicBlock

import train
import utils
from training.batches import ImageBatches

SMALL = ("--weights", "none", "--image_size", "auto", "--margin", 2, "--pool", 2, "--batch_size", 12, "--lr", 0.01,
         "--threads", 1, "--device", "cpu", "--amp", "off")
CODES = (1, 2, 5, 6, 7, 8)


def site_cohort(folder, n_scans=24):
    """write_cohort with target_loc: CODES in turn in the positive scans, 51 in the others."""
    table = write_cohort(folder, n_scans)
    number = table["scan_id"].str[1:].astype(int)
    table["target_loc"] = np.where(table["target"] == 1, np.array(CODES)[number // 2 % len(CODES)], 51)
    table.to_csv(folder / "data.csv", index=False)
    return table


def weights(path):
    return utils.read_checkpoint(path)["state_dict"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def signal_at(monkeypatch, epoch, batch):
    """SIGINT in the middle of a batch of an epoch."""
    whole = ImageBatches._training

    def signalled(self, order, seed, done):
        for number, each in enumerate(whole(self, order, seed, done), done):
            if seed[-1] == epoch and number == batch:
                signal.raise_signal(signal.SIGINT)
            yield each

    monkeypatch.setattr(ImageBatches, "_training", signalled)


def same_run(one, other, name="split0_run1"):
    assert (one / f"convergence_{name}.csv").read_bytes() == (other / f"convergence_{name}.csv").read_bytes()
    assert same(weights(one / f"checkpoint_{name}.pth"), weights(other / f"checkpoint_{name}.pth"))


def torchrun(processes, script, *args, timeout=240, check=0, env=None):
    done = subprocess.run(command(processes, script, *args), capture_output=True, text=True, timeout=timeout, cwd=ROOT,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})})
    assert done.returncode == check, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def command(processes, script, *args):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] * (processes > 1)
    return [sys.executable, *launcher, str(ROOT / script), *map(str, args)]


def steps(cohort, processes, dtype, number, *more, env=None):
    """What tests/steps.py writes; `more`: device, --augm."""
    out = cohort / "_".join(map(str, (processes, dtype, *more, "steps.pth")))
    torchrun(processes, "tests/steps.py", cohort, out, dtype, number, *more, env=env)
    return torch.load(out, weights_only=True)


def close_gradients(one, other, tolerance):
    """Two results of `steps` agree: each parameter's gradient, the difference's length by its own."""
    for name, gradient in one["gradients"].items():
        error = (gradient - other["gradients"][name]).norm() / gradient.norm().clamp(min=1e-12)
        assert error < tolerance or gradient.norm() < 1e-6, (name, error)


def quiet_branches(model):
    """Let every residual branch add nothing, as at the start of a zero-initialized network."""
    for module in model.modules():
        if isinstance(module, BasicBlock):
            torch.nn.init.zeros_(module.bn2.weight)


def fit(folder, *args, output="results"):
    return call(train, "--data", folder / "data.csv", "--output", folder / output, *SMALL, *args)
