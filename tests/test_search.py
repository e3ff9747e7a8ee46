"""optun.py and optuna_finetuning.py on a small cohort, and the worker under them."""
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from conftest import ROOT, call, write_cohort
from optuna.trial import TrialState

import find_best_model
import optun
import optuna_finetuning
import train
import utils
from common import params
from common.files import InputError, sha256
from search import studies, trials, worker
from training import batches

pytestmark = pytest.mark.usefixtures("shallow")
COMMON = ("--threads", 1, "--device", "cpu", "--amp", "off")
SMALL = (*COMMON, "--weights", "none", "--image_size", "auto", "--pool", 2)
TIMES = ["datetime_start", "datetime_complete", "duration", "user_attrs_seconds", "user_attrs_training_seconds"]


def write_hard_cohort(folder):
    """Targets have little to do with the images, so that AUCs differ; the test images are gone."""
    table = write_cohort(folder, n_splits=2)
    scans = table["scan_id"].unique()
    shuffled = dict(zip(scans, np.random.default_rng(1).permutation(np.arange(len(scans)) % 2), strict=True))
    table["target"] = table["scan_id"].map(shuffled)
    table.to_csv(folder / "data.csv", index=False)
    for name in table.loc[table["split0"] == "test", "filename"]:
        (folder / name).unlink()


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    write_hard_cohort(tmp_path)
    monkeypatch.setattr(worker.report, "write_report", lambda *args: None)  # has its own tests
    return tmp_path


@pytest.fixture
def untrained(monkeypatch):
    """Trials without a network."""
    monkeypatch.setattr(trials.SplitTrials, "train", fake_training)


def fake_training(split_trials, args, trial, check):
    """Epochs whose AUC is higher with a higher learning rate."""
    for epoch in range(1, args.nepochs + 1):
        value = 0.9 + np.log10(args.lr) / 20 + epoch / 1000
        trial.report(value, epoch)
        check()
        if epoch < args.nepochs and trial.should_prune():
            raise optuna.TrialPruned("by the pruner")
    return SimpleNamespace(best={"epoch": epoch, "value": value})


def find(folder, *words, script=optun, output="results"):
    small = SMALL if script is optun else COMMON
    return call(script, "--data", folder / "data.csv", "--output", folder / output, "--splits", 0, 0, "--nepochs", 1,
                *small, *words)


def results(folder, output="results", name="optuna_results_split0.csv"):
    return pd.read_csv(folder / output / name)


def study_of(folder, name="optun_split0", output="results"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder / output / 'optuna.db'}")


def states(study):
    return Counter(trial.state.name for trial in study.trials)


# ---------------------------------------------------------------- a search and its files

@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Two splits, three trials each."""
    folder = tmp_path_factory.mktemp("searched")
    write_hard_cohort(folder)
    assert find(folder, "--splits", 0, 1, "--trials", 3, "--nepochs", 2, "--pruner", "none") is None
    return folder


def test_trials_and_their_files(searched):
    for split in (0, 1):
        table, study = results(searched, name=f"optuna_results_split{split}.csv"), study_of(searched,
                                                                                            f"optun_split{split}")
        assert list(table["number"]) == [0, 1, 2] and set(table["state"]) == {"COMPLETE"}
        assert {"value", "datetime_start", "datetime_complete", "duration", "params_lr", "params_augm"} <= set(table)
        for trial, value in zip(study.trials, table["value"], strict=True):
            assert trial.value == value == max(trial.intermediate_values.values()), "the best epoch's"
            assert list(trial.intermediate_values) == [1, 2]
            assert trial.user_attrs["training_seconds"] <= trial.user_attrs["seconds"]
    assert "Hyperparameter search" in (searched / "results" / "optuna_report.html").read_text()
    assert not list((searched / "results").glob(".*"))


def test_splits_and_trials_draw_differently(searched):
    drawn = pd.concat([results(searched, name=f"optuna_results_split{split}.csv")["params_lr"] for split in (0, 1)])
    assert drawn.is_unique


def test_winner_is_trained_to_the_trial_s_bits(searched, capsys):
    summary = searched / "results" / "best_params_summary.csv"
    rows = pd.read_csv(summary)
    for split, row in rows.set_index("split").iterrows():
        table = results(searched, name=f"optuna_results_split{split}.csv")
        assert row["value"] == table["value"].max() and row["number"] == table["value"].idxmax()
        assert row["lr"] == table["params_lr"][row["number"]] and (row["image_size"], row["pool"]) == ("auto", 2)
    capsys.readouterr()
    call(train, "--params", summary, "--split_index", 1, "--nepochs", 2, "--data", searched / "data.csv", "--output",
         searched / "winner", *COMMON)
    assert f"split 1: from {summary}: " in capsys.readouterr().out
    content = utils.read_checkpoint(searched / "winner" / "checkpoint_split1_run1.pth")
    assert content["auc"] == rows.set_index("split")["value"][1]
    assert content["args"]["lr"] == rows.set_index("split")["lr"][1] and content["args"]["weights"] == "none"
    assert content["search"] == {"file": "best_params_summary.csv", "trials": 3}


def test_trials_that_keep_their_last_epoch_are_valued_by_it(cohort):
    find(cohort, "--trials", 2, "--nepochs", 3, "--pruner", "none", "--keep", "last")
    study, summary = study_of(cohort), cohort / "results" / "best_params_summary.csv"
    assert all(trial.value == trial.intermediate_values[3] for trial in study.trials)
    assert any(trial.value < max(trial.intermediate_values.values()) for trial in study.trials), "not their best"
    assert {trial.user_attrs["kept_epoch"] for trial in study.trials} == {3}
    call(train, "--params", summary, "--nepochs", 3, "--data", cohort / "data.csv", "--output", cohort / "winner",
         *COMMON)
    content = utils.read_checkpoint(cohort / "winner" / "checkpoint_split0_run1.pth")
    assert (content["epoch"], content["auc"]) == (3, study.best_value)
    with pytest.raises(InputError, match=r"other values of --keep \(last, now best\)"):
        find(cohort, "--trials", 3, "--nepochs", 3)


def test_same_seed_same_trials_to_the_bit(cohort, monkeypatch):
    """One search, and one in two parts that knows other targets of the test scans."""
    monkeypatch.setattr(studies, "STARTUP", 1)  # so that sampler and pruner rely on the trials before
    find(cohort, "--trials", 3, "--nepochs", 2, output="a")
    find(cohort, "--trials", 1, "--nepochs", 2, output="b")
    find(cohort, "--trials", 1, "--nepochs", 2, output="b")  # has what is asked for
    assert len(results(cohort, "b")) == 1
    table = pd.read_csv(cohort / "data.csv")
    table.loc[table["split0"] == "test", "target"] ^= 1
    table.to_csv(cohort / "data.csv", index=False)
    find(cohort, "--trials", 3, "--nepochs", 2, output="b")
    a, b = (results(cohort, name).drop(columns=TIMES) for name in "ab")
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert len(a) == 3 and a["value"].nunique() > 1


@pytest.mark.parametrize(("sampler", "pruner"), [("random", "hyperband"), ("cmaes", "none")])
def test_samplers_and_pruners(cohort, untrained, monkeypatch, sampler, pruner):
    monkeypatch.setattr(studies, "STARTUP", 1)
    for output in "ab":
        find(cohort, "--trials", 8, "--nepochs", 9, "--sampler", sampler, "--pruner", pruner, output=output)
    a, b = (results(cohort, name) for name in "ab")
    pd.testing.assert_series_equal(a["params_lr"], b["params_lr"], check_exact=True)
    assert len(a) == 8 and a["params_lr"].is_unique and ("PRUNED" in set(a["state"])) == (pruner == "hyperband")


# ---------------------------------------------------------------- fine-tuning

@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A split trained, and its fine-tuning searched in every mode; augmentation fixed."""
    folder = tmp_path_factory.mktemp("tuned")
    write_hard_cohort(folder)
    call(train, "--data", folder / "data.csv", "--output", folder / "results", "--nepochs", 1, "--cls_arch", "complex",
         "--hidden", 32, "--dropout", 0.25, "--batch_size", 12, *SMALL)
    call(find_best_model, "--dir", folder / "results")
    return folder


def tune(folder, *words, output="tuned"):
    return find(folder, "--chptfolder", folder / "results", *words, script=optuna_finetuning, output=output)


def test_fine_tuning_starts_from_the_split_s_checkpoint(tuned, capsys):
    assert tune(tuned, "--trials", 3, "--nepochs", 2, "--pruner", "none", "--splits", 0, 1, "--augm", 3) == 1
    assert "split 1: no model in" in capsys.readouterr().out
    table = results(tuned, "tuned", "optuna_resultsfinetuning_split0.csv")
    assert list(table["number"]) == [0, 1, 2] and {"params_mode", "params_lr"} <= set(table)
    assert not {"params_hidden", "params_augm"} & set(table)
    assert (tuned / "tuned" / "optuna_finetuning_report.html").exists()
    summary = tuned / "tuned" / "best_params_finetuning_summary.csv"
    row = pd.read_csv(summary).iloc[0]
    assert (row["cls_arch"], row["hidden"], row["dropout"], row["pool"]) == ("complex", 32, 0.25, 2)
    assert row["image_size"] == "32 32" and row["checkpoint"].endswith("checkpoint_split0_run1.pth")
    assert row["checkpoint_sha256"] == sha256(row["checkpoint"])
    call(train, "--params", summary, "--nepochs", 2, "--data", tuned / "data.csv", "--output", tuned / "winner",
         *COMMON)
    assert utils.read_checkpoint(tuned / "winner" / "checkpoint_split0_run1.pth")["auc"] == row["value"]
    assert "left random" not in capsys.readouterr().out, "the head is the checkpoint's"


def test_frozen_features_are_computed_once_for_all_trials(tuned, monkeypatch):
    filled, compute = [], batches.FrozenBatches._compute
    monkeypatch.setattr(batches.FrozenBatches, "_compute", lambda self, images, description:
                        filled.append(description) or compute(self, images, description))
    assert tune(tuned, "--mode", "transfer_learning", "--trials", 4, "--study", "a", output="a") is None
    assert filled == ["frozen layers, placement 1", "frozen layers"], "training set and validation set"


@pytest.mark.slow
def test_transfer_learning_shares_a_backbone_that_stays_as_it_is(tuned):
    """A trial's result does not depend on the trials before it, whatever their modes."""
    space = tuned / "space.json"
    space.write_text('{"mode": ["transfer_learning", "full_retrain", "finetune"], "augm": [0], "lr": [0.01]}')
    tune(tuned, "--trials", 6, "--pruner", "none", "--sampler", "random", "--space", space, output="mixed")
    study = study_of(tuned, "finetuning_split0", "mixed")
    modes = [trial.params["mode"] for trial in study.trials]
    assert len(set(modes)) == 3 and any(mode == "transfer_learning" for mode in modes[1:])
    for trial in study.trials[1:]:
        words = [word for name, value in trial.params.items() if name not in ("mode", "balance", "oversample")
                 for word in (f"--{name}", value)]
        words += [f"--{name}" for name in ("balance", "oversample") if trial.params[name]]
        words += [f"--{trial.params['mode']}"] * (trial.params["mode"] != "full_retrain")
        alone = tuned / f"alone{trial.number}"
        call(train, "--data", tuned / "data.csv", "--output", alone, "--nepochs", 1, "--cls_arch", "complex",
             "--hidden", 32, "--dropout", 0.25, "--checkpoint", tuned / "results" / "checkpoint_split0_run1.pth",
             *SMALL, *words)
        assert utils.read_checkpoint(alone / "checkpoint_split0_run1.pth")["auc"] == trial.value


def test_retrained_checkpoint_is_refused(tuned, tmp_path):
    best = pd.read_csv(tuned / "results" / "best_run.csv")
    (tmp_path / "checkpoint_split0_run1.pth").symlink_to(tuned / "results" / "checkpoint_split0_run1.pth")
    best.assign(value=0.123).to_csv(tmp_path / "best_run.csv", index=False)
    with pytest.raises(InputError, match="trained again since"):
        find(tuned, "--chptfolder", tmp_path, script=optuna_finetuning, output="none")
    assert not (tuned / "none").exists()


# ---------------------------------------------------------------- trials that do not end well

def failing(monkeypatch, error, when):
    """Trials without a network; those for which when(count) holds raise what `error()` raises."""
    count = []

    def train_or_fail(*args):
        count.append(1)
        if when(len(count)):
            error()
        return fake_training(*args)

    monkeypatch.setattr(trials.SplitTrials, "train", train_or_fail)


def raise_(error):
    raise error


@pytest.mark.parametrize("error", [
    lambda: torch.empty(1 << 60), lambda: np.ones(1 << 50),
    lambda: raise_(torch.OutOfMemoryError("CUDA out of memory")),
    lambda: raise_(batches.NoRoom("the frozen layers' output needs 9 GB"))])
def test_out_of_memory_prunes_the_trial_alone(cohort, monkeypatch, error, capsys):
    failing(monkeypatch, error, lambda count: count == 1)
    assert find(cohort, "--trials", 2) is None
    first, second = study_of(cohort).trials
    assert first.state == TrialState.PRUNED and first.user_attrs["reason"].startswith("out of memory: ")
    assert second.state == TrialState.COMPLETE and "trial 0: pruned: out of memory" in capsys.readouterr().out


def test_loss_that_is_not_finite_prunes(cohort, capsys):
    assert find(cohort, "--trials", 2, "--lr", 1e30, "--optimizer", "sgd") == 1
    assert states(study_of(cohort)) == {"PRUNED": 2} and "no complete trial of split 0" in capsys.readouterr().out
    assert "the loss is not finite" in study_of(cohort).trials[0].user_attrs["reason"]
    assert not (cohort / "results" / "best_params_summary.csv").exists()


@pytest.mark.parametrize("error", [ValueError("a bug"), InputError("bad row"), RuntimeError("shapes do not fit")])
def test_other_errors_end_the_search(cohort, monkeypatch, error):
    failing(monkeypatch, lambda: raise_(error), lambda count: count == 2)
    with pytest.raises(type(error), match=str(error)) as raised:
        find(cohort, "--trials", 3)
    assert type(error) is not InputError or str(raised.value).startswith("split 0 trial 1 (lr ")
    assert [trial.state.name for trial in study_of(cohort).trials] == ["COMPLETE", "FAIL"]
    assert str(error) in study_of(cohort).trials[1].user_attrs["reason"]
    assert list(results(cohort)["state"]) == ["COMPLETE", "FAIL"], "files are written"
    failing(monkeypatch, None, lambda count: False)
    assert find(cohort, "--trials", 3) is None and states(study_of(cohort)) == {"COMPLETE": 3, "FAIL": 1}


def reporting(monkeypatch, before=lambda trial: None, after=lambda trial: None):
    """Do something before or after each epoch that a trial reports."""
    report = optuna.Trial.report

    def report_too(trial, value, epoch):
        before(trial)
        report(trial, value, epoch)
        after(trial)

    monkeypatch.setattr(optuna.Trial, "report", report_too)


def test_interrupted_trial_is_done_again(cohort, monkeypatch):
    with monkeypatch.context() as patched:
        reporting(patched, after=lambda trial: trial.number == 1 and signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            find(cohort, "--trials", 3)
    assert [trial.state.name for trial in study_of(cohort).trials] == ["COMPLETE", "FAIL", "WAITING"]
    assert list(results(cohort)["state"]) == ["COMPLETE", "FAIL", "WAITING"]
    assert find(cohort, "--trials", 3) is None
    _, failed, again, last = study_of(cohort).trials
    assert failed.user_attrs["reason"] == "interrupted" and "reason" not in again.user_attrs
    assert again.params == failed.params != last.params and again.state == last.state == TrialState.COMPLETE


def test_signal_between_trials_starts_no_further_one(cohort, untrained, monkeypatch):
    monkeypatch.setattr(worker.report, "write_results", lambda path, study: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        find(cohort, "--trials", 3)
    assert [trial.state.name for trial in study_of(cohort).trials] == ["COMPLETE"]


def test_trial_that_was_taken_for_dead_is_left_to_others(cohort, untrained, monkeypatch, capsys):
    def take_over(trial):
        if trial.number == 0:  # another worker fails and queues it
            other = study_of(cohort)
            other._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            studies.again(other, other.trials[0])

    reporting(monkeypatch, before=take_over)
    assert find(cohort, "--trials", 2) is None
    assert states(study_of(cohort)) == {"FAIL": 1, "COMPLETE": 2}
    assert "trial 0: another worker has taken it over" in capsys.readouterr().out


def test_trial_without_a_heartbeat_is_taken_over(cohort, untrained, monkeypatch, capsys):
    """Its worker died between taking it and its first heartbeat."""
    monkeypatch.setattr(studies, "GRACE", 1)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)
    find(cohort, "--trials", 1, "--heartbeat", 1)
    study_of(cohort).ask()
    assert find(cohort, "--trials", 2, "--heartbeat", 1) is None
    assert states(study_of(cohort)) == {"COMPLETE": 2, "FAIL": 1}
    assert "waiting for trials of other workers: split 0 trial 1" in capsys.readouterr().out


def test_the_trial_too_many_is_refused():
    study = optuna.create_study(direction="maximize")
    taken = [study.ask() for _ in range(3)]
    worker.refuse_surplus(taken[1], study, trials=2)
    with pytest.raises(worker.Surplus):
        worker.refuse_surplus(taken[2], study, trials=2)
    study.tell(taken[0], state=TrialState.FAIL)
    worker.refuse_surplus(taken[2], study, trials=2)


# ---------------------------------------------------------------- several processes

def start(folder, *words):
    """A worker in a process of its own."""
    command = [sys.executable, ROOT / "optun.py", "--data", folder / "data.csv", "--output", folder / "results",
               "--splits", 0, 0, *SMALL, *words]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for(condition, process, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate(timeout=60)
        time.sleep(0.05)


def in_trial(folder):
    """Whether a trial runs and has reported an epoch."""
    try:
        return any(trial.state == TrialState.RUNNING and trial.intermediate_values for trial in study_of(folder).trials)
    except Exception:  # the worker is making the tables
        return False


@pytest.mark.slow
def test_two_processes_share_the_trials(cohort):
    workers = [start(cohort, "--trials", 6, "--nepochs", 2) for _ in range(2)]
    said = [process.communicate(timeout=600) for process in workers]
    assert [process.returncode for process in workers] == [0, 0], said
    done = [trial for trial in study_of(cohort).trials if trial.state in worker.FINISHED]
    assert len(done) == 6 and len({trial.params["lr"] for trial in done}) == 6
    assert all(trial.state in (*worker.FINISHED, TrialState.FAIL) for trial in study_of(cohort).trials)
    assert (results(cohort)["state"] != "FAIL").sum() == 6
    shares = [int(re.search(r"this worker: (\d+) trials", out)[1]) for out, _ in said]
    assert sum(shares) == 6 and min(shares) > 0


@pytest.mark.slow
def test_killed_worker_s_trial_is_done_again(cohort):
    words = ("--trials", 2, "--nepochs", 20, "--heartbeat", 1, "--pruner", "none")
    process = start(cohort, *words)
    wait_for(lambda: in_trial(cohort), process)
    process.kill()
    process.communicate()
    assert states(study_of(cohort)) == {"RUNNING": 1}
    process = start(cohort, *words)
    assert process.communicate(timeout=600) and process.returncode == 0
    killed = study_of(cohort).trials[0]
    again = [trial for trial in study_of(cohort).trials if trial.params == killed.params][1:]
    assert killed.state == TrialState.FAIL and [trial.state for trial in again] == [TrialState.COMPLETE]
    assert states(study_of(cohort)) == {"FAIL": 1, "COMPLETE": 2}


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_worker_with_its_files_written(cohort, signum, code):
    process = start(cohort, "--trials", 2, "--nepochs", 50, "--pruner", "none")
    wait_for(lambda: in_trial(cohort), process)
    process.send_signal(signum)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code and "Traceback" not in err, err
    assert "trial 0: interrupted; queued to be repeated" in out
    assert list(results(cohort)["state"]) == ["FAIL", "WAITING"]


# ---------------------------------------------------------------- refusals

def test_other_settings_do_not_join_a_study(cohort, untrained):
    find(cohort, "--trials", 1)
    for words, said in ((("--nepochs", 3), r"--nepochs \(1, now 3\)"), (("--seed", 1), r"--seed \(0, now 1\)"),
                        (("--lr", 0.1), "space, --lr")):
        with pytest.raises(InputError, match=f"was started with other values of .*{said}.*another --study"):
            find(cohort, "--trials", 2, *words)
    table = pd.read_csv(cohort / "data.csv")
    table.loc[table["split0"] == "val", "target"] ^= 1
    table.to_csv(cohort / "data.csv", index=False)
    with pytest.raises(InputError, match="other values of data;"):
        find(cohort, "--trials", 2)
    assert len(study_of(cohort).trials) == 1
    assert find(cohort, "--trials", 1, "--study", "other") is None


def test_study_of_before_the_renaming_goes_on(cohort, untrained):
    """--no-normalize is --norm none today."""
    find(cohort, "--trials", 1, "--norm", "none")
    settings = study_of(cohort).user_attrs["settings"]
    old = settings | {"arguments": settings["arguments"] | {"norm": "auto", "normalize": False},
                      "fixed": {name: value for name, value in settings["fixed"].items() if name != "norm"}
                      | {"normalize": "False"}}
    study_of(cohort).set_user_attr("settings", old)
    with pytest.raises(InputError, match=r"other values of --norm \(none, now auto\);"):
        find(cohort, "--trials", 2)
    assert find(cohort, "--trials", 2, "--norm", "none") is None
    summary = pd.read_csv(cohort / "results" / "best_params_summary.csv")
    assert list(summary["norm"]) == ["none"] and "normalize" not in summary


def test_turns_need_a_square_frame(cohort, untrained, capsys):
    find(cohort, "--trials", 1, "--image_size", 32, 64)
    assert "split 0: augm 2, 12 left out" in capsys.readouterr().out
    assert not {2, 12} & set(study_of(cohort).user_attrs["settings"]["space"]["augm"])
    with pytest.raises(InputError, match="needs a square frame"):
        find(cohort, "--augm", 12, "--image_size", 32, 64, output="b")
    (cohort / "space.json").write_text('{"augm": [2, 12]}')
    with pytest.raises(InputError, match="needs a square frame"):
        find(cohort, "--space", cohort / "space.json", "--image_size", 32, 64, output="b")


def test_timeout_starts_no_further_trial(cohort, untrained, capsys):
    assert find(cohort, "--trials", 50, "--timeout", 1e-9) == 1
    out = capsys.readouterr().out
    assert "--timeout 1e-09 s has passed" in out and not study_of(cohort).trials
    assert "wrote" not in out and "reasons are in" not in out  # there is no table and no page


def test_space_of_the_trials_is_that_of_the_file(cohort, untrained):
    (cohort / "space.json").write_text('{"lr": {"low": 0.01, "high": 0.02}, "wd": 0.5, "dropout": null, '
                                       '"cls_arch": "complex", "lr_schedule": ["cosine"]}')
    find(cohort, "--trials", 6, "--space", cohort / "space.json", "--batch_size", 12)
    for trial in study_of(cohort).trials:
        assert 0.01 <= trial.params["lr"] <= 0.02 and trial.params["lr_schedule"] == "cosine"
        assert "hidden" in trial.params and not {"wd", "dropout", "batch_size", "cls_arch"} & set(trial.params)
    args = train.get_args_parser().parse_args(["--params", str(cohort / "results" / "best_params_summary.csv")])
    args = params.for_split(args, 0, lambda text: None)
    best = study_of(cohort).best_trial.params
    assert (args.wd, args.batch_size, args.cls_arch, args.hidden, args.lr) == (0.5, 12, "complex", best["hidden"],
                                                                               best["lr"])
