"""Every script killed at twenty random moments, or on a disk that is full from some write on: every file whole, nothing
left, and the same command ends the job with an undisturbed one's results."""
import json
import os
import shutil
import signal
import time
from functools import partial

import numpy as np
import optuna
import pandas as pd
import prediction_helpers
import pytest
from faults_helpers import Script, check_whole, done, full_at, leftovers, temporary_folder
from pet import write_series
from training_helpers import SMALL, same, site_cohort, weights

KILLS = 20
# What two undisturbed runs have not in common, by name
DATES = {"trained_on", "date", "started", "seconds", "datetime_start", "datetime_complete", "duration",
         "user_attrs_seconds", "user_attrs_training_seconds"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Four DICOM studies, one of them packed; a cohort; a network; predictions."""
    folder = tmp_path_factory.mktemp("kills")
    for number in range(4):
        write_series(folder / "dicom" / f"S{number}", uid=f"1.2.{number}", PatientID=f"P{number}",
                     spacing=(20.0, 5.0, 4.0))
    shutil.make_archive(folder / "dicom" / "packed", "zip", folder / "dicom" / "S3")
    shutil.rmtree(folder / "dicom" / "S3")
    site_cohort(folder / "cohort", 8)
    done(folder, "train.py", *training(folder), "--output", folder / "models")
    done(folder, "find_best_model.py", "--dir", folder / "models")
    (folder / "key.txt").write_text("secret of 16 bytes")
    prediction_helpers.write(folder / "predictions", *prediction_helpers.splits(2))
    return folder


def training(place):
    return ("--data", place / "cohort" / "data.csv", *SMALL, "--pool", 4, "--nepochs", 2)


def predicting(place):
    return ("--data", place / "cohort" / "data.csv", "--chptfolder", place / "models", "--set", "val", "test",
            "--threads", 1, "--device", "cpu", "--amp", "off")


# script -> its arguments but --output, what is added when it runs again
SCRIPTS = {
    "prepro_script.py": lambda place: ("--input", place / "dicom", "--keep_ids", "--workers", 2),
    "train.py": lambda place: (*training(place), "--checkpoint_minutes", 1e-4, "--resume"),
    "train_loca.py": lambda place: (*training(place), "--checkpoint_minutes", 1e-4, "--resume"),
    "predict.py": predicting,
    "explain.py": lambda place: (*predicting(place), "--no_pointing"),
    "aggregate.py": lambda place: ("--dir", place / "predictions", "--resamples", 50),
    "score.py": lambda place: ("--input", place / "dicom", "--models", place / "models", "--key", place / "key.txt",
                               "--workers", 2, "--threads", 1, "--device", "cpu", "--amp", "off"),
    "optun.py": lambda place: (*training(place), "--splits", "0-0", "--trials", 2, "--nepochs", 1, "--heartbeat", 1)}


def plain(path):
    """What a file says, without what differs between two undisturbed runs."""
    def without(value):
        if isinstance(value, dict):
            return {name: without(each) for name, each in value.items() if name not in DATES}
        return [without(each) for each in value] if isinstance(value, list) else value

    if path.suffix == ".json":
        return without(json.loads(path.read_text()))
    return path.read_bytes()


def same_results(one, other):
    """CSV, JSON, maps and MIPs to the byte, weights to the bit."""
    names = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert names == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    for name in sorted(names):
        if name.suffix in (".csv", ".json", ".npy", ".bin"):
            assert plain(one / name) == plain(other / name), name
        elif name.suffix == ".pth":
            assert same(weights(one / name), weights(other / name)), name


def same_search(one, other):
    """As many finished trials as were asked for."""
    for folder in (one, other):
        study, = optuna.study.get_all_study_summaries(f"sqlite:///{folder}/optuna.db")
        trials = optuna.load_study(study_name=study.study_name, storage=f"sqlite:///{folder}/optuna.db").trials
        assert sum(trial.state.is_finished() and trial.state.name != "FAIL" for trial in trials) == 2, trials
        assert len(pd.read_csv(folder / "optuna_results_split0.csv")) == len(trials)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_killed_twenty_times(script, place, tmp_path):
    output, whole, before = tmp_path / "output", tmp_path / "whole", partial(temporary_folder, str(tmp_path))
    words = (*SCRIPTS[script](place), "--output", output)
    begun = time.monotonic()
    done(tmp_path, script, *words, before=before)
    seconds, met, rng = time.monotonic() - begun, 0, np.random.default_rng(KILLS)
    output.rename(whole)
    for _ in range(4 * KILLS):
        process, begun = Script(tmp_path, script, *words, before=before), time.monotonic()
        process.process.join(rng.uniform(0.05, 1) * seconds)
        if process.alive():
            os.killpg(process.pid, signal.SIGKILL)
            met += 1
        else:
            seconds = min(seconds, time.monotonic() - begun)
        process.end()
        if output.exists():
            check_whole(output)
        done(tmp_path, script, *words, before=before)
        assert not leftovers(tmp_path)
        (same_search if script == "optun.py" else same_results)(output, whole)
        shutil.rmtree(output)
        if met == KILLS:
            return
    pytest.fail(f"it was at work in {met} of {4 * KILLS} kills only")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["prepro_script.py", "train.py", "predict.py", "explain.py", "aggregate.py"])
def test_disk_full_at_any_write(script, place, tmp_path):
    output, whole = tmp_path / "output", tmp_path / "whole"
    words = (*SCRIPTS[script](place), "--output", output)
    if script == "prepro_script.py":
        words = (*words, "--workers", 1)  # each process counts its own writes
    done(tmp_path, script, *words)
    output.rename(whole)
    for number in sorted({1} | {2 ** k + half * 2 ** (k - 1) for k in range(1, 15) for half in (0, 1)}):
        process = Script(tmp_path, script, *words, before=partial(full_at, number, str(output)))
        if process.end() == 0:
            break
        assert process.end() == 2, process.output()
        said = process.last()
        assert said.startswith("error: ") and str(output) in said and "No space left on device" in said, said
        if output.exists():
            check_whole(output)
            assert not leftovers(output)
        done(tmp_path, script, *words)
        same_results(output, whole)
        shutil.rmtree(output)
    else:
        pytest.fail("more writes than were tried")
    assert number > 3
