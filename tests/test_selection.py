"""What the page says of how epoch, run, trial, models and thresholds were chosen."""
import json
import shutil

import pandas as pd
import pytest
from conftest import call
from prediction_helpers import splits, write

import aggregate
from common.run_files import run_file
from evaluation import figures


@pytest.fixture(autouse=True)
def no_figure(monkeypatch):
    monkeypatch.setattr(figures, "score_figures", lambda *arguments: {})


def selected(folder, *options):
    call(aggregate, "--dir", folder, "--output", folder / "out", "--resamples", 20, *options)
    page = (folder / "out" / "report.html").read_text()
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    found = metrics["selection"]
    for text in [*found["steps"].values(), found["summary"] or ""]:
        assert text in page
    return found, page, metrics["warnings"]


def write_runs(folder, n=6, runs=2, search=None, **args):
    """best_run.csv, logs and settings of n splits, of whose runs the first is the best."""
    pd.DataFrame([(k, 1, 3, "auc", 0.9 - k / 100, k + 1) for k in range(n)],
                 columns=["split", "run", "epoch", "metric", "value", "rank"]).to_csv(
                     folder / "best_run.csv", index=False)
    for split in range(n):
        for number in range(1, runs + 1):
            run_file(folder, "convergence", split, number).write_text("epoch,split,metric,value\n")
        run_file(folder, "settings", split, 1).write_text(json.dumps(
            {"epoch": 3, "args": {"lr": 0.01} | args, "search": search}))


def test_nothing_is_claimed_that_no_file_says(tmp_path):
    write(tmp_path, *[table[table["set"] == "test"] for table in splits(2)])
    found, page, _ = selected(tmp_path)
    assert found["steps"] == {
        "Epoch": "not known: there are no settings", "Run": "not known: not in best_run.csv",
        "Trial": "no search is known that gave these settings", "Thresholds": "0.5 alone",
        "Models": "all 2 that have predictions"}
    assert found["summary"] is None and "2 models, combined" in page


def test_top_runs_epochs_and_thresholds(tmp_path):
    write(tmp_path, *splits(6))
    write_runs(tmp_path)
    found, page, _ = selected(tmp_path, "--top", 3)
    assert (found["models"], found["ranked"], found["top"], found["splits"]) == (3, 6, 3, [0, 1, 2, 3, 4, 5])
    assert found["runs"] == {"0": 2, "1": 2, "2": 2} and set(found["epochs"].values()) == {3}
    assert found["steps"]["Models"] == ("3 of 6 by validation AUC, each over the validation set of its own split "
                                        "(splits 0-5)")
    assert found["steps"]["Run"] == "the best of 2 by validation AUC, in splits 0-2"
    assert found["steps"]["Epoch"] == "the one with the best validation AUC, in 3 of 3 models"
    assert found["steps"]["Thresholds"] == "derived from validation predictions"
    assert found["summary"] == ("The validation patients of splits 0-5 (each split its own) chose epoch, run, models "
                                "and thresholds: on them the models look better than on others.")
    assert "3 of 6 models by validation AUC, combined" in page


def test_one_run_a_split_is_no_choice(tmp_path):
    write(tmp_path, *[table[table["set"] == "test"] for table in splits(2)])
    write_runs(tmp_path, n=2, runs=1, select="loc")
    found, _, _ = selected(tmp_path)
    assert found["steps"]["Run"] == "the only one of its split" and found["summary"] is None
    assert found["steps"]["Epoch"].startswith("the one with the best balanced accuracy of the site in validation, in 2")
    assert found["steps"]["Models"] == "all 2 that have predictions; best_run.csv ranks 2"
    every, page, _ = selected(tmp_path, "--top", 2)  # of two: no choice either
    assert every["steps"] == found["steps"] and every["summary"] is None and "2 models, combined" in page


def test_runs_that_are_used_together_were_not_chosen(tmp_path):
    """Of two splits both runs, of the third the ranked one of two."""
    tables = splits(3)
    write(tmp_path, *tables)
    write(tmp_path, *tables[:2], run=2)
    write_runs(tmp_path, n=3)
    found, _, _ = selected(tmp_path)
    assert found["runs"] == {"2": 2} and found["together"] == [0, 1]
    assert found["steps"]["Run"] == "the best of 2 by validation AUC, in split 2; several together, in splits 0-1"
    (tmp_path / "pred_split2_run1.csv").unlink()
    found, _, _ = selected(tmp_path)
    assert found["steps"]["Run"] == "several together, in splits 0-1"
    assert "chose epoch and thresholds" in found["summary"]


def test_a_trial_is_claimed_where_the_settings_are_its_own(tmp_path):
    write(tmp_path, *splits(3))
    write_runs(tmp_path, n=3)
    pd.DataFrame({"split": [0, 1, 2], "number": 4, "value": 0.9, "lr": [0.01, 0.01, 0.3]}).to_csv(
        tmp_path / "best_params_summary.csv", index=False)
    for split in (0, 2):
        pd.DataFrame({"number": range(9), "state": ["COMPLETE"] * 5 + ["PRUNED"] * 2 + ["FAIL"] * 2}).to_csv(
            tmp_path / f"optuna_results_split{split}.csv", index=False)
    found, _, _ = selected(tmp_path)
    assert found["trials"] == {"0": 7, "1": None}
    assert found["steps"]["Trial"] == "the best of 7 of a search by validation AUC, in splits 0-1"
    assert "chose epoch, run, trial and thresholds" in found["summary"]
    for path in tmp_path.glob("*optuna_results_split*.csv"):  # of --study other
        path.rename(path.with_stem(f"{path.stem}_other"))
    (tmp_path / "best_params_summary.csv").rename(tmp_path / "best_params_summary_other.csv")
    assert selected(tmp_path)[0]["trials"] == {"0": 7, "1": None}
    for name in ("best_params_summary.csv", "best_params_summary-copy.csv"):  # of that study when it had one trial
        shutil.copy(tmp_path / "best_params_summary_other.csv", tmp_path / name)
    pd.DataFrame({"number": [0], "state": ["COMPLETE"]}).to_csv(tmp_path / "optuna_results_split0.csv", index=False)
    assert selected(tmp_path)[0]["trials"] == {"0": 7, "1": None}
    write_runs(tmp_path, n=3, lr=0.5)
    assert selected(tmp_path)[0]["trials"] == {}


def test_a_search_elsewhere_is_known_by_the_settings(tmp_path):
    """train.py --params search/best_params_summary.csv --output tuned"""
    write(tmp_path, *splits(2))
    for trials, said in ((12, "12"), (None, "an unknown number")):
        write_runs(tmp_path, n=2, search={"file": "best_params_summary.csv", "trials": trials})
        found = selected(tmp_path)[0]
        assert found["trials"] == {"0": trials, "1": trials} and "chose epoch, run, trial and" in found["summary"]
        assert found["steps"]["Trial"] == f"the best of {said} of a search by validation AUC, in splits 0-1"
    write(tmp_path, *splits(2), run=2)  # not of the search
    assert selected(tmp_path)[0]["trials"] == {"0": None, "1": None}


def test_a_fold_without_predictions_is_named(tmp_path):
    for k, table in enumerate(splits(3, n_val=0, n_test=60)):
        mine = table["patient_id"].str[1:].astype(int) % 3 == k
        columns = {f"split{split}": "test" if split == k else "train" for split in range(4)}
        table[mine].assign(**columns).to_csv(tmp_path / f"pred_split{k}_run1.csv", index=False)
    write_runs(tmp_path, n=4)
    _, _, warnings = selected(tmp_path, "--pooled_folds")
    assert any("no predictions of split 3, which the manifest has, too: if that is a fold" in line for line in warnings)


def test_a_call_that_is_cut_leaves_no_numbers_of_before(tmp_path, monkeypatch):
    write(tmp_path, *splits(2))
    selected(tmp_path)

    def cut(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, "write_figures", cut)
    with pytest.raises(KeyboardInterrupt):
        call(aggregate, "--dir", tmp_path, "--output", tmp_path / "out", "--resamples", 20, "--seed", 7)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["seed"] == 7
