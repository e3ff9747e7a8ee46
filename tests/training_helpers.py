"""Small training runs: arguments, a cohort with sites, an interrupt in mid-epoch, are two runs the same?"""
import signal

import numpy as np
import torch
from conftest import write_cohort

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

    def signalled(self, order, seed, done, share):
        for number, each in enumerate(whole(self, order, seed, done, share), done):
            if seed[-1] == epoch and number == batch:
                signal.raise_signal(signal.SIGINT)
            yield each

    monkeypatch.setattr(ImageBatches, "_training", signalled)


def same_run(one, other, name="split0_run1"):
    assert (one / f"convergence_{name}.csv").read_bytes() == (other / f"convergence_{name}.csv").read_bytes()
    assert same(weights(one / f"checkpoint_{name}.pth"), weights(other / f"checkpoint_{name}.pth"))
