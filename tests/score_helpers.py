"""Small networks of random weights with thresholds and metrics, and score.py by them."""
from dataclasses import asdict

import pandas as pd
import pytest
import torch
from conftest import call
from prediction_helpers import splits, write

import aggregate
import score
import utils
from common.digests import training_digests
from common.files import sha256
from dataset import NetworkInput

CPU = ("--device", "cpu", "--amp", "off", "--threads", 1, "--workers", 1)
COARSE = {"spacing": (10.0, 5.0, 4.0)}
INPUT = NetworkInput((64, 64), (1.0, 1.0), spacing_mm=3.27)


def save_model(folder, split, trained_on=None, **changed):
    """A network of random weights whose scores differ from scan to scan, as train.py stores one."""
    torch.manual_seed(split)
    network = utils.ResNet34()
    torch.nn.init.normal_(network.fc.weight, std=0.01)
    content = {"epoch": 1, "auc": 0.75, "state_dict": network.state_dict(), "optimizer": {}, "lr_scheduler": {},
               "early_stopping": {}, "input": asdict(INPUT) | changed, "version": "1.0.0", "synthetic": False,
               "model": {"cls_arch": "simple"}, "args": {"data": "some/where/cohort.csv"}, "trained_on": trained_on}
    utils.save_checkpoint(folder / f"checkpoint_split{split}_run1.pth", content)


def write_results(folder, *options, networks=2, tables=None, **changed):
    """Networks, their validation and test predictions (made up), thresholds and metrics, in `folder`.

    `options`: of aggregate.py; `tables`: the predictions; `changed`: the networks' input.
    """
    folder.mkdir()
    other = pd.DataFrame({"scan_id": ["x"], "patient_id": ["y"], "image_sha256": ["z"], "id_key": ["abc"]})
    for split in range(networks):
        save_model(folder, split, training_digests(other, ["train"]), **changed)
    rows = "".join(f"{split},1,1,auc,0.75,{networks - split}\n" for split in range(networks))
    (folder / "best_run.csv").write_text("split,run,epoch,metric,value,rank\n" + rows)
    write(folder, *(table.assign(checkpoint_sha256=sha256(folder / f"checkpoint_split{split}_run1.pth"))
                    for split, table in enumerate(tables or splits(networks))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.figures.score_figures", lambda *arguments: {})
        call(aggregate, "--dir", folder, "--output", folder, "--resamples", 20, *options)
    return folder


def scored_by(folder, models, *more, out="out", study="dicom"):
    return call(score, "--input", folder / study, "--models", models, "--output", folder / out, *CPU, *more)
