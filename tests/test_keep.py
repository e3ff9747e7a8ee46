"""--keep last: the checkpoint, the log, best_run.csv and the report's words are of the last epoch that was trained."""
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call
from training_helpers import SMALL, same, same_run, signal_at, site_cohort, weights

import find_best_model
import predict
import train
import train_loca
import utils
from common.files import InputError
from evaluation import selection
from training import recorder

pytestmark = pytest.mark.usefixtures("shallow")
OPTIONS = ("--nepochs", 3, "--keep", "last", "--lr_schedule", "onecycle", "--optimizer", "adamw")


def fit(folder, *args, output="results", script=train):
    return call(script, "--data", folder / "data.csv", "--output", folder / output, *SMALL, *args)


def validation(folder):
    log = pd.read_csv(folder / "convergence_split0_run1.csv")
    return log[log["split"] == "validation"].pivot(index="epoch", columns="metric", values="value")


def kept(folder):
    """A run's checkpoint, which its settings and best_run.csv agree with."""
    content = utils.read_checkpoint(folder / "checkpoint_split0_run1.pth")
    settings = json.loads((folder / "settings_split0_run1.json").read_text())
    assert call(find_best_model, "--dir", folder) is None
    best = pd.read_csv(folder / "best_run.csv").iloc[0]
    for other in (settings["epoch"], best["epoch"]):
        assert other == content["epoch"]
    assert best["value"] == settings["auc"] == content["auc"] == validation(folder)["auc"][content["epoch"]]
    return content


def die_at_the_end(cohort, monkeypatch, *options, output):
    def killed(self):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(recorder.Recorder, "finish", killed)
        fit(cohort, *options, output=output)


def test_checkpoint_is_the_state_after_the_last_epoch(cohort, monkeypatch, capsys):
    die_at_the_end(cohort, monkeypatch, *OPTIONS, output="results")
    folder = cohort / "results"
    assert not (folder / "checkpoint_split0_run1.pth").exists(), "written once, at the end"
    state = weights(folder / "last_split0_run1.pth")
    fit(cohort, *OPTIONS, "--resume")
    content = kept(folder)
    assert content["epoch"] == 3 and same(content["state_dict"], state)
    rows = validation(folder)
    assert rows["auc"].idxmax() < 3, "the best is another one"
    assert rows["selected"].tolist() == [1, 2, 3] and content["args"]["keep"] == "last"
    assert f"3 {content['auc']:.4f}" in " ".join(capsys.readouterr().out.split())
    assert not same(state, best_of_the_same_run(cohort))
    call(predict, "--data", cohort / "data.csv", "--output", cohort / "pred", "--chptfolder", folder, "--splits", 0, 0)


def best_of_the_same_run(cohort):
    """The weights that --keep best keeps, of a run that is the same otherwise."""
    fit(cohort, *OPTIONS, "--keep", "best", output="best")
    assert kept(cohort / "best")["epoch"] < 3 and "selected" not in validation(cohort / "best")
    pd.testing.assert_frame_equal(validation(cohort / "best"), validation(cohort / "results").drop(columns="selected"))
    return weights(cohort / "best" / "checkpoint_split0_run1.pth")


def test_a_signal_in_the_last_epoch_loses_nothing(cohort, monkeypatch):
    fit(cohort, *OPTIONS, "--ema", 0.9, output="whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_at(patch, 3, 1)
        fit(cohort, *OPTIONS, "--ema", 0.9, output="cut")
    fit(cohort, *OPTIONS, "--ema", 0.9, "--resume", output="cut")
    same_run(cohort / "cut", cohort / "whole")
    assert not (cohort / "cut" / "last_split0_run1.pth").exists()


def test_early_stopping_keeps_the_epoch_that_it_stops_after(cohort):
    fit(cohort, *OPTIONS, "--nepochs", 30, "--early_stopping", "--patience", 1, "--lr", "1e-9")
    epochs = validation(cohort / "results").index
    assert kept(cohort / "results")["epoch"] == epochs[-1] < 30


@pytest.mark.slow
def test_a_run_of_before_kept_its_best_epoch(cohort, monkeypatch):
    options = ("--nepochs", 2)
    fit(cohort, *options, output="whole")
    die_at_the_end(cohort, monkeypatch, *options, output="cut")
    for path in (cohort / "cut" / "last_split0_run1.pth", cohort / "cut" / "checkpoint_split0_run1.pth",
                 cohort / "whole" / "checkpoint_split0_run1.pth"):
        content = utils.read_checkpoint(path)
        del content["args"]["keep"]
        torch.save(content, path)
    for output in ("cut", "whole"):
        with pytest.raises(InputError, match=r"other values of --keep \(best, now last\)"):
            fit(cohort, *options, "--keep", "last", "--resume", output=output)
        fit(cohort, *options, "--resume", output=output)
    same_run(cohort / "cut", cohort / "whole")


def test_the_site_network_keeps_its_last_epoch_whatever_is_selected(tmp_path):
    site_cohort(tmp_path)
    fit(tmp_path, "--nepochs", 3, "--keep", "last", "--select", "sum", script=train_loca)
    assert kept(tmp_path / "results")["epoch"] == 3


def test_curve_marks_the_kept_epoch(cohort, monkeypatch):
    fit(cohort, "--nepochs", 1)
    from matplotlib.figure import Figure
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: drawn.append(figure))
    table = pd.DataFrame([(epoch, part, metric, value) for epoch, value in enumerate((0.6, 0.9, 0.7), start=1)
                          for part in ("train", "validation") for metric in ("loss", "auc")],
                         columns=["epoch", "split", "metric", "value"])
    for epoch, said in ((2, "kept, epoch 2: 0.900"), (3, "kept, epoch 3: 0.700")):
        recorder.draw_convergence(table, cohort / "curve.png", "run", epoch)
        axes = drawn[-1].axes[1]
        mark = axes.lines[-1]
        assert mark.get_label() == said and mark.get_xdata().tolist() == [epoch]
        np.testing.assert_array_equal(mark.get_ydata(), table["value"][table["epoch"] == epoch].iloc[:1])


@pytest.mark.parametrize(("args", "said", "by_validation"), [
    ([{}, {}], "the one with the best validation AUC, in 2 of 2 models", True),
    ([{"keep": "last"}, {"keep": "last"}], "the last one, whatever its validation, in 2 of 2 models", False),
    ([{"keep": "last", "early_stopping": True}, {"keep": "last", "early_stopping": False}],
     "the last one, under early stopping by validation AUC, in 1 of 2 models; "
     "the last one, whatever its validation, in 1 of 2 models", True),
    ([{"keep": "best", "select": "sum"}], "the one with the best sum of both, in 1 of 2 models", True)])
def test_the_report_says_what_chose_the_epoch(tmp_path, args, said, by_validation):
    from prediction_helpers import splits, write

    from evaluation.ensemble import find_models
    write(tmp_path, *splits(2))
    for split, each in enumerate(args):
        (tmp_path / f"settings_split{split}_run1.json").write_text(json.dumps({"epoch": 3, "args": each}))
    models, _ = find_models(tmp_path)
    found = selection.describe_selection(models, None, tmp_path / "best_run.csv", tmp_path, "validation predictions")
    assert found["steps"]["Epoch"] == said
    assert ("epoch" in (found["summary"] or "")) == by_validation
