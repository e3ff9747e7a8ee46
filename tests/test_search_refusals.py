"""What a search prunes, refuses, or says of the runs that it starts from."""
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
import torch
from conftest import call

import optun
import train
import utils
from common.files import InputError
from search import report, studies, trials

pytestmark = pytest.mark.usefixtures("shallow")
SMALL = ("--weights", "none", "--image_size", "auto", "--pool", 2, "--threads", 1, "--device", "cpu", "--amp", "off")


def find(folder, *words):
    return call(optun, "--data", folder / "data.csv", "--output", folder / "results", "--splits", 0, 0, "--nepochs", 1,
                *SMALL, *words)


def test_warm_up_that_one_cycle_cannot_take_prunes(cohort):
    (cohort / "space.json").write_text('{"warmup_epochs": [0, 2]}')
    find(cohort, "--trials", 4, "--sampler", "random", "--lr_schedule", "onecycle", "--nepochs", 2,
         "--space", cohort / "space.json")
    found = pd.read_csv(cohort / "results" / "optuna_results_split0.csv")
    assert set(found["params_warmup_epochs"]) == {0, 2}
    assert ((found["state"] == "PRUNED") == (found["params_warmup_epochs"] == 2)).all()
    assert found["user_attrs_reason"].dropna().str.contains("--warmup_epochs 2: onecycle").all()


@pytest.fixture
def untrained(monkeypatch):
    """Trials without a network, and a page without content."""
    def train(self, args, trial, check):
        trial.report(0.9, 1)
        return SimpleNamespace(best={"epoch": 1, "value": 0.9})

    monkeypatch.setattr(trials.SplitTrials, "train", train)
    monkeypatch.setattr(report, "write_report", lambda path, *args: path.write_text("page"))


def test_another_study_leaves_the_tables_of_the_first(cohort, untrained):
    find(cohort, "--trials", 1, "--optimizer", "adam")
    first = {path: path.read_bytes() for path in (cohort / "results").iterdir() if path.suffix != ".db"}
    with pytest.raises(InputError, match=r"--optimizer \(adam, now sgd\); give the same, or another --study$"):
        find(cohort, "--trials", 2, "--optimizer", "sgd")
    find(cohort, "--trials", 1, "--optimizer", "sgd", "--study", "with sgd")
    assert all(path.read_bytes() == content for path, content in first.items()) and len(first) == 3
    summary = pd.read_csv(cohort / "results" / "best_params_summary_with_sgd.csv")
    assert summary["split"].tolist() == [0] and "optimizer" not in summary, "train.py's default"
    for name in ("optuna_results_split0_with_sgd.csv", "optuna_report_with_sgd.html"):
        assert (cohort / "results" / name).exists()


def test_another_storage_leaves_the_tables_of_the_first(cohort, untrained):
    find(cohort, "--trials", 2)
    other, results = f"sqlite:///{cohort / 'other.db'}", cohort / "results"
    first = {path: path.read_bytes() for path in results.iterdir() if path.suffix != ".db"}
    for words in (("--lr", 0.1), ("--splits", 1, 1)):  # the summary is of all splits
        with pytest.raises(InputError, match=r"results_split0.csv: has trials that no study in sqlite:.*other.db has"):
            find(cohort, "--trials", 1, "--storage", other, *words)
    find(cohort, "--trials", 1, "--storage", other, "--study", "b")
    assert all(path.read_bytes() == content for path, content in first.items()) and len(first) == 3
    find(cohort, "--trials", 1, "--splits", 1, 1)
    find(cohort, "--trials", 3)
    assert pd.read_csv(results / "best_params_summary.csv")["split"].tolist() == [0, 1]
    (results / "optuna.db").unlink()
    with pytest.raises(InputError, match="or deleted there; give another --study or --output, or move that"):
        find(cohort, "--trials", 1)


def test_what_every_trial_would_be_pruned_for_is_refused(cohort, untrained):
    space, onecycle = cohort / "space.json", ("--lr_schedule", "onecycle", "--nepochs", 2)
    space.write_text('{"warmup_epochs": [2, 3]}')
    for words in (("--warmup_epochs", 2), ("--space", space)):
        with pytest.raises(InputError, match="--warmup_epochs 2: onecycle needs"):
            find(cohort, *onecycle, *words)
    space.write_text('{"lr_schedule": ["onecycle", "step"], "batch_size": {"low": 1, "high": 7}}')
    find(cohort, "--trials", 1, "--warmup_epochs", 2, "--space", space, "--study", "some")
    space.write_text('{"batch_size": {"low": 1, "high": 2}, "oversample": false}')
    odd(cohort)
    with pytest.raises(InputError, match="--batch_size 1: a batch of one image of 32 x 32"):
        find(cohort, "--space", space, "--study", "one image")
    find(cohort, "--trials", 1, "--space", space, "--study", "head", "--transfer_learning")


def odd(cohort):
    """Leave an odd number of training images."""
    table = pd.read_csv(cohort / "data.csv")
    table.drop(table.index[table["split0"] == "train"][:1]).to_csv(cohort / "data.csv", index=False)


def test_single_image_prunes_its_trial_alone(cohort):
    odd(cohort)
    (cohort / "space.json").write_text('{"batch_size": [2, 50], "oversample": false}')
    assert find(cohort, "--trials", 4, "--sampler", "random", "--space", cohort / "space.json") is None
    found = pd.read_csv(cohort / "results" / "optuna_results_split0.csv")
    assert set(found["params_batch_size"]) == {2, 50}
    assert ((found["state"] == "PRUNED") == (found["params_batch_size"] == 2)).all()
    assert found["user_attrs_reason"].dropna().str.contains("--batch_size 2: a batch of one image").all()


def test_a_search_that_is_done_is_not_taken_for_one_with_other_settings(cohort, untrained):
    find(cohort, "--trials", 1, "--splits", 0, 1)
    find(cohort, "--trials", 1, "--splits", 0, 1)
    with pytest.raises(InputError, match=r"optun_split1 in .* was started with other values of space, --lr"):
        find(cohort, "--trials", 1, "--splits", 1, 1, "--lr", 0.1)
    table = pd.read_csv(cohort / "data.csv")
    table.loc[table["split1"] == "val", "target"] ^= 1
    table.to_csv(cohort / "data.csv", index=False)
    with pytest.raises(InputError, match="optun_split1 in .* was started with other values of data;"):
        find(cohort, "--trials", 2, "--splits", 0, 1)  # before split 0 is searched


def test_a_worker_of_another_heartbeat_is_refused(cohort, untrained):
    find(cohort, "--trials", 1, "--heartbeat", 60)
    with pytest.raises(InputError, match=r"started with other values of --heartbeat \(60, now 30\); give the same, or"):
        find(cohort, "--trials", 2)
    find(cohort, "--trials", 2, "--heartbeat", 60)


def test_trials_of_another_program_are_not_taken_for_ours(cohort, untrained):
    (cohort / "results").mkdir()
    storage = f"sqlite:///{cohort / 'results' / 'optuna.db'}"
    study = optuna.create_study(study_name="optun_split0", storage=storage)  # minimizes
    study.optimize(lambda trial: trial.suggest_float("learning_rate", 0.1, 1), n_trials=2)
    for count in (2, 3):
        with pytest.raises(InputError, match="study optun_split0 in .* is of another program: .*another --study"):
            find(cohort, "--trials", count)
    find(cohort, "--trials", 1, "--splits", 1, 1)
    assert pd.read_csv(cohort / "results" / "best_params_summary.csv")["split"].tolist() == [1]
    assert len(study.trials) == 2 and not (cohort / "results" / "optuna_results_split0.csv").exists()


def test_the_command_for_the_best_trial_can_be_pasted(cohort, untrained, capsys):
    folder = cohort / "the results"
    find(cohort, "--trials", 1, "--output", folder, "--images", cohort)
    assert (f"python train.py --params '{folder}/best_params_summary.csv' --split_index 0 --data {cohort}/data.csv "
            f"--images {cohort} --output '{folder}'\n") in capsys.readouterr().out
    (folder / "checkpoint_split0_run1.pth").touch()  # what a fine-tuning search starts from, by default in its --output
    find(cohort, "--trials", 1, "--output", folder, "--images", cohort)
    assert f" --output '{folder}/tuned'\n" in capsys.readouterr().out


def test_values_of_a_search_on_other_labels_are_warned_of(cohort, untrained, capsys):
    find(cohort, "--trials", 1, "--splits", 0, 1)

    def said(*words):
        capsys.readouterr()
        call(train, "--params", cohort / "results" / "best_params_summary.csv", "--data", cohort / "data.csv",
             "--nepochs", 1, "--output", cohort / "winner", *SMALL, *words)
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: split")]

    table = pd.read_csv(cohort / "data.csv")
    table.loc[table["split0"] == "test", "target"] ^= 1  # no search reads them
    table.to_csv(cohort / "data.csv", index=False)
    assert not said()
    table.loc[table["split1"] == "val", "split1"] = "test"
    table.loc[table["scan_id"].isin(table.loc[table["split1"] == "train", "scan_id"].unique()[:4]), "split1"] = "val"
    table.to_csv(cohort / "data.csv", index=False)
    found = said("--split_index", 0, 1, "--overwrite")
    assert len(found) == 1 and found[0].startswith("warning: split 1: ")
    assert "on other scans, labels or sets" in found[0]


def test_weights_of_another_content_than_the_search_had_are_refused(cohort, untrained):
    file = cohort / "weights.pth"
    torch.save(utils.ResNet34().state_dict(), file)
    find(cohort, "--weights", file, "--trials", 1)
    words = ("--data", cohort / "data.csv", "--output", cohort / "tuned", *SMALL[2:], "--nepochs", 1,
             "--params", cohort / "results" / "best_params_summary.csv")
    torch.save(utils.ResNet34().state_dict(), file)
    with pytest.raises(InputError, match="split 0: .*weights.pth is not the file that the search started from"):
        call(train, *words)
    for own in ("none", file):
        call(train, *words, "--weights", own, "--run", 1 + (own == file))
    with pytest.raises(InputError, match="was started with other values of --weights"):
        find(cohort, "--weights", file, "--trials", 2)


def test_leak_is_let_through_and_marked_where_asked_for(cohort, untrained, capsys):
    table = pd.read_csv(cohort / "data.csv")
    trained = table.loc[table["split0"] == "train", "patient_id"].iloc[0]
    table.loc[table["split0"] == "val", "patient_id"] = trained
    table.to_csv(cohort / "data.csv", index=False)
    with pytest.raises(InputError, match=f"patient_id {trained} is in train and val of split0.*--allow_leakage"):
        find(cohort, "--trials", 1)
    find(cohort, "--trials", 1, "--allow_leakage")
    out = capsys.readouterr().out
    assert "warning: LEAKAGE: " in out and f"--data {cohort}/data.csv --allow_leakage --output" in out
    study = optuna.load_study(study_name="optun_split0", storage=f"sqlite:///{cohort / 'results' / 'optuna.db'}")
    assert study.user_attrs["notices"] == ["LEAKAGE: patients or images are in two sets (--allow_leakage)"]


@pytest.mark.parametrize(("words", "said"), [
    (("--splits", 0, 5), "split2"),
    (("--storage", "nonsense"), "--storage nonsense: "), (("--storage", "oracle9://host/name"), "--storage oracle9://"),
    (("--storage", "sqlite:////missing/folder/a.db"), "may this user write there"),
    (("--storage", "postgresql://me:secret@127.0.0.1:1/none"), r"me:\*\*\*@127.0.0.1.* is the server running"),
])
def test_bad_arguments_are_one_line(cohort, words, said, monkeypatch):
    monkeypatch.setattr(studies.time, "sleep", lambda seconds: None)
    with pytest.raises(InputError, match=said) as error:
        find(cohort, *words)
    assert "secret" not in str(error.value)
