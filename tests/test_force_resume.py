"""--force_resume: what takes effect from there on does, and is recorded; what the state fixes is refused by name."""
import pandas as pd
import pytest
import torch
from conftest import call, write_cohort
from training_helpers import fit, signal_at, weights

import find_best_model
import utils
from common.digests import overlap
from common.files import InputError
from common.manifest import read_manifest
from training import batches

pytestmark = pytest.mark.usefixtures("shallow")
LAST = "last_split0_run1.pth"


@pytest.fixture
def small(tmp_path):
    """Sixteen training images."""
    write_cohort(tmp_path, n_scans=16)
    return tmp_path


def cut(folder, monkeypatch, *args, epoch=2, batch=0):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_at(patch, epoch, batch)
        fit(folder, *args)


def content(folder, name="checkpoint_split0_run1.pth"):
    return utils.read_checkpoint(folder / "results" / name)


def epochs(folder):
    return (folder / "results" / "convergence_split0_run1.csv").read_text().count("validation,auc")


def test_what_the_state_fixes_is_refused_by_name(small, monkeypatch):
    options = ("--nepochs", 3)
    cut(small, monkeypatch, *options)
    before = (small / "results" / LAST).read_bytes()
    for option, old, new in (("lr", 0.01, 1e-6), ("wd", 0.0001, 0.5), ("momentum", 0.9, 0.0), ("patience", 5, 1),
                             ("keep", "best", "last"), ("optimizer", "sgd", "adam"), ("lr_schedule", "step", "none"),
                             ("lr_anneal", 15, 1), ("warmup_epochs", 0, 1), ("seed", 0, 1), ("ema", None, 0.9)):
        with pytest.raises(InputError) as refused:
            fit(small, *options, "--force_resume", "--augm", 3, f"--{option}", new)
        assert (f"{LAST} was trained with other values of --{option} ({old}, now {new}), which --force_resume cannot "
                "change; give the same, --checkpoint ") in str(refused.value)
    assert (small / "results" / LAST).read_bytes() == before
    with pytest.raises(InputError, match=r"--augm \(0, now 3\); give the same, --force_resume to go on all the same"):
        fit(small, *options, "--resume", "--augm", 3)
    with pytest.raises(InputError, match=r"--lr \(0.01, now 0.1\); give the same, --checkpoint "):
        fit(small, *options, "--resume", "--lr", 0.1)
    fit(small, *options, "--lr", 1e-9, "--checkpoint", small / "results" / LAST, output="lower")  # the remedy
    started, trained = content(small, LAST)["state_dict"], weights(small / "lower" / "checkpoint_split0_run1.pth")
    torch.testing.assert_close(trained["fc.weight"], started["fc.weight"], rtol=0, atol=1e-6)


def test_more_epochs_are_trained_unless_the_schedule_ends_with_them(small, monkeypatch):
    cut(small, monkeypatch, "--nepochs", 2, "--keep", "last")
    with pytest.raises(InputError, match=r"--nepochs \(2, now 1\), which --force_resume cannot change"):
        fit(small, "--nepochs", 1, "--keep", "last", "--force_resume")  # the second one is trained already
    fit(small, "--nepochs", 3, "--keep", "last", "--force_resume")
    assert epochs(small) == 3 and content(small)["args"]["nepochs"] == 3
    for schedule in ("onecycle", "cosine"):
        cut(small, monkeypatch, "--nepochs", 3, "--lr_schedule", schedule, "--overwrite")
        with pytest.raises(InputError, match=r"--nepochs \(3, now 5\), which --force_resume cannot change"):
            fit(small, "--nepochs", 5, "--lr_schedule", schedule, "--force_resume")


@pytest.mark.parametrize(("before", "now", "schedule"), [(4, 8, "onecycle"), (8, 4, "step")])
def test_other_batches_start_the_cut_epoch_anew(small, monkeypatch, capsys, before, now, schedule):
    options, trained = ("--nepochs", 2, "--keep", "last", "--lr_schedule", schedule), []
    cut(small, monkeypatch, *options, "--batch_size", before)
    whole = batches.train_batch
    monkeypatch.setattr(batches, "train_batch", lambda bodies, index, *args: trained.extend(index) or whole(
        bodies, index, *args))
    fit(small, *options, "--batch_size", now, "--force_resume")
    assert len(trained) == 16 == len(set(trained)), "each image once"
    assert "epoch 2 starts anew" in capsys.readouterr().err
    assert epochs(small) == 2 and content(small)["args"]["batch_size"] == now


def test_other_data_go_on_and_are_recorded_beside_the_first(small, monkeypatch):
    options = ("--nepochs", 3, "--keep", "last")
    cut(small, monkeypatch, *options)
    table = read_manifest(small / "data.csv", [0])
    left = table["scan_id"][table["split0"] == "train"].iloc[-1]
    table[table["scan_id"] != left].to_csv(small / "less.csv", index=False)
    options = (*options, "--data", small / "less.csv")
    cut(small, monkeypatch, *options, "--force_resume", epoch=3)
    fit(small, *options, "--resume")  # the data are the same now: those of before still count
    assert epochs(small) == 3
    found = overlap(table, content(small)["trained_on"])
    assert (found[table["split0"] == "train"] == "train").all(), "also the scan that the first epoch had"
    assert (found[table["split0"] == "test"] != "train").all()


def test_the_best_epoch_is_of_the_labels_that_the_run_ended_with(small, monkeypatch, capsys):
    options = ("--nepochs", 4, "--early_stopping", "--patience", 3, "--lr", 1e-9,  # no epoch is better than the first
               "--lr_schedule", "plateau", "--seed", 1)
    cut(small, monkeypatch, *options, epoch=3)
    assert content(small)["epoch"] == 1
    first = content(small)["auc"]
    table = pd.read_csv(small / "data.csv")
    scan = table.loc[(table["split0"] == "val") & (table["target"] == 1), "scan_id"].iloc[0]
    table.loc[table["scan_id"] == scan, "target"] = 0
    table.to_csv(small / "data.csv", index=False)
    cut(small, monkeypatch, *options, "--force_resume", epoch=4)
    assert "epoch 3 starts anew, and the best one is chosen from there on" in capsys.readouterr().err
    assert content(small, LAST)["lr_scheduler"]["per_epoch"]["best"] == content(small)["auc"] < first
    fit(small, *options, "--resume")
    kept = content(small)
    assert kept["epoch"] == 3 and kept["early_stopping"]["waited"] == 0
    call(find_best_model, "--dir", small / "results")
    row = pd.read_csv(small / "results" / "best_run.csv").iloc[0]
    assert (row["epoch"], row["value"]) == (3, kept["auc"])
    fit(small, *options, "--resume")
    assert "finished before" in capsys.readouterr().out, "it is one of the manifest's labels"


def test_float16_goes_on_in_float32_and_the_other_way_round(small, monkeypatch):
    options = ("--nepochs", 2, "--keep", "last", "--lr", 1e-4)
    for before, now, precision in (("fp16", "off", "float32"), ("off", "fp16", "float16")):
        cut(small, monkeypatch, *options, "--amp", before, "--overwrite")
        fit(small, *options, "--amp", now, "--force_resume")
        assert content(small)["precision"] == precision and epochs(small) == 2
