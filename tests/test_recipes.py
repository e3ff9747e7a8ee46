"""benchmark.py recipes: AUCs over folds and their paired differences; networks trained, stopped, gone on."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, call, run, write_cohort
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from sklearn.metrics import roc_auc_score

import benchmark
from benchmarks.recipe_runs import other_machines, read_scores, scans_of, seconds_of, train_and_predict
from benchmarks.recipe_scores import difference, measure
from benchmarks.recipes import HEADINGS, RECIPES, alike, as_lines, read_recipes
from common.digests import training_digests
from common.files import InputError, write_json
from evaluation.metrics import auc_interval, delong
from evaluation.paired_tests import delong_test
from training.recorder import labels_hash

FIRST = "--weights none --image_size auto --pool 2 --batch_size 12 --lr 0.01 --nepochs 2"


def study(rng, k=5, n=90, runs=1, of_networks=0.0, gain=0.0, patients=1):
    """Two recipes' folds: binormal scores whose errors the recipes share in part; a network is better or worse by
    chance; so many scans a patient."""
    folds = {}, {}
    for split in range(k):
        y, base = np.arange(n) % 3 == 0, np.repeat(rng.normal(size=-(-n // patients)), patients)[:n]
        for found, mean in zip(folds, (2 + gain, 2), strict=True):
            found[split] = pd.DataFrame({
                "target": y.astype(int), "patient": [f"{split} {i // patients}" for i in range(n)],
                **{r: 0.8 * base + 0.6 * rng.normal(size=n) + y * (mean + rng.normal(0, of_networks))
                   for r in range(1, runs + 1)}}, index=[f"{split} {i}" for i in range(n)])
    return folds


def auc(fold, scores):
    return roc_auc_score(fold["target"], scores)


# ---------------------------------------------------------------- AUCs and differences

def test_aucs_are_those_of_scikit_learn():
    a, _ = study(np.random.default_rng(0), k=3, runs=2)
    found = measure(a)
    assert found["auc"] == pytest.approx(np.mean([auc(fold, fold[r]) for fold in a.values() for r in (1, 2)]))
    assert found["ensemble"] == pytest.approx(np.mean([auc(fold, fold[1] + fold[2]) for fold in a.values()]))
    whole = pd.concat(a.values())
    assert found["pooled"] == pytest.approx(np.mean([auc(whole, whole[r]) for r in (1, 2)]))
    one = {split: fold.drop(columns=2) for split, fold in a.items()}
    expected = auc_interval(whole["target"].to_numpy(), whole[1].to_numpy(), whole["patient"].to_numpy())
    assert tuple(measure(one)[key] for key in ("pooled", "pooled_low", "pooled_high")) == pytest.approx(expected[:3])


def test_scans_of_several_folds_are_not_pooled():
    (a, _) = study(np.random.default_rng(0), k=1)
    assert np.isnan(measure({0: a[0], 1: a[0]})["pooled"]) and np.isfinite(measure({0: a[0], 1: a[0]})["auc"])


def test_runs_that_a_fold_lacks_are_not_pooled():
    a, _ = study(np.random.default_rng(0), k=2, runs=2)
    a[1] = a[1].drop(columns=2)
    whole = pd.concat(a.values())
    assert measure(a)["pooled"] == pytest.approx(auc(whole, whole[1]))
    of_folds = (auc(a[0], a[0][1]) + auc(a[0], a[0][2])) / 2, auc(a[1], a[1][1])
    assert measure(a)["auc"] == pytest.approx(np.mean(of_folds))


@pytest.mark.parametrize("patients", [1, 3])
def test_of_one_fold_it_is_delongs_or_obuchowskis_test(patients):
    a, b = study(np.random.default_rng(1), k=1, patients=patients)
    groups = a[0]["patient"].to_numpy()
    expected = delong_test(a[0]["target"].to_numpy(), a[0][1].to_numpy(), b[0][1].to_numpy(), groups)
    found = difference(a, b)
    # Obuchowski's cross-term has its own finite-sample factor
    tolerance = 1e-9 if patients == 1 else 2e-3
    for mine, theirs in (("difference", "difference"), ("low", "ci_low"), ("high", "ci_high")):
        assert found[mine] == pytest.approx(expected[theirs], abs=tolerance)
    assert found["smallest"] == pytest.approx((1.959964 + 0.841621) * expected["se"], abs=tolerance * 2 + 1e-7)


def test_of_disjoint_folds_it_is_the_larger_of_both_variances():
    rng, seen = np.random.default_rng(2), set()
    for of_networks in (0, 0, 0, 0, 0.6):
        a, b = study(rng, of_networks=of_networks)
        tests = [delong_test(a[s]["target"].to_numpy(), a[s][1].to_numpy(), b[s][1].to_numpy()) for s in a]
        gains = [auc(a[s], a[s][1]) - auc(b[s], b[s][1]) for s in a]
        by_scans, by_folds = sum(test["se"]**2 for test in tests) / 25, np.var(gains, ddof=1) / 5
        found = difference(a, b)
        assert found["difference"] == pytest.approx(np.mean(gains))
        if by_folds <= by_scans:
            half = 1.959964 * np.sqrt(by_scans)
        else:  # Satterthwaite, the scans' part being known
            half = t.ppf(0.975, 4 * (by_folds / (by_folds - by_scans))**2) * np.sqrt(by_folds)
        seen.add(by_folds > by_scans)
        assert found["high"] - found["difference"] == pytest.approx(half, rel=1e-6)
    assert seen == {True, False}


def test_it_agrees_with_resampling_the_scans():
    """Without chance of the networks: the standard deviation of the mean difference over bootstrap samples."""
    rng = np.random.default_rng(3)
    a, b = study(rng, k=2, n=150, runs=2, gain=0.3)
    for each in (a, b):  # other scans with the same scores
        each[1][[1, 2]] = each[0][[1, 2]].to_numpy()
    drawn = []
    for _ in range(800):
        gains = []
        for split in a:
            rows = rng.integers(150, size=150)
            y = a[split]["target"].to_numpy(bool)[rows]
            for r in (1, 2):
                x, z = (each[split][r].to_numpy()[rows] for each in (a, b))
                gains.append((x[y, None] > x[~y]).mean() - (z[y, None] > z[~y]).mean())
        drawn.append(np.mean(gains))
    found = difference(a, b)
    assert (found["high"] - found["difference"]) / 1.959964 == pytest.approx(np.std(drawn), rel=0.12)


def test_folds_with_the_same_scans_add_nothing_but_their_networks():
    a, b = study(np.random.default_rng(4), k=1)
    one, twice = difference(a, b), difference({0: a[0], 1: a[0]}, {0: b[0], 1: b[0]})
    assert [twice[key] for key in ("low", "high", "smallest")] == pytest.approx(
        [one[key] for key in ("low", "high", "smallest")])
    worse = b[0][["target", "patient"]].copy()
    worse[1] = np.random.default_rng(5).normal(size=len(worse)) + 0.5 * b[0][1]
    apart = difference({0: a[0], 1: a[0]}, {0: b[0], 1: worse})
    assert apart["high"] - apart["low"] > 2 * (one["high"] - one["low"])


def test_intervals_hold_no_difference_though_networks_differ():
    """At the size of 450 scans in five folds."""
    rng = np.random.default_rng(6)
    for of_networks, runs in ((0, 1), (0.3, 1), (0.3, 3)):
        found = pd.DataFrame([difference(*study(rng, runs=runs, of_networks=of_networks)) for _ in range(60)])
        assert 0.8 < ((found["low"] <= 0) & (found["high"] >= 0)).mean() <= 1


def test_the_smallest_difference_is_shown_in_four_of_five():
    rng = np.random.default_rng(7)
    found = pd.DataFrame([difference(*study(rng, n=300, gain=0.23)) for _ in range(60)])
    assert found["smallest"].mean() == pytest.approx(found["difference"].mean(), rel=0.15)  # 0.23 is of that size
    assert (found["low"] > 0).mean() == pytest.approx(0.8, abs=0.12)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_exchanging_the_recipes_changes_the_sign(seed, k, runs, patients):
    a, b = study(np.random.default_rng(seed), k, 12, runs, 1, 0, patients)
    one, other = difference(a, b), difference(dict(reversed(b.items())), dict(reversed(a.items())))
    assert one["difference"] == pytest.approx(-other["difference"], abs=1e-12)
    for low, high in (("low", "high"), ("high", "low"), ("smallest", "smallest")):
        assert abs(one[low]) == pytest.approx(abs(other[high]), abs=1e-9, nan_ok=True)


def test_only_what_both_have_is_compared():
    a, b = study(np.random.default_rng(8), k=3, runs=2)
    del b[0]
    b[1] = b[1].drop(columns=2)
    found = difference(a, b)
    assert found["compared"] == 3
    second = (auc(a[2], a[2][1]) + auc(a[2], a[2][2]) - auc(b[2], b[2][1]) - auc(b[2], b[2][2])) / 2
    assert found["difference"] == pytest.approx((auc(a[1], a[1][1]) - auc(b[1], b[1][1]) + second) / 2)


def test_without_scores_or_classes_or_differences_there_is_no_number():
    a, b = study(np.random.default_rng(9), k=1)
    assert np.isnan([*measure({}).values()]).all() and np.isnan(difference(a, {})["difference"])
    negative = {0: a[0].assign(target=0)}
    assert np.isnan(measure(negative)["auc"]) and difference(negative, b)["compared"] == 0
    same = difference(a, {0: a[0].copy()})
    assert same["difference"] == 0 and np.isnan([same["low"], same["high"], same["smallest"]]).all()
    y = np.zeros(len(a[0]), dtype=int)
    y[4] = 1  # one positive: DeLong's variance is undefined
    single = difference({0: a[0].assign(target=y)}, {0: b[0].assign(target=y)})
    assert np.isfinite(single["difference"]) and np.isnan(single["low"])
    assert np.isnan(delong(y, a[0][1].to_numpy())[1])


# ---------------------------------------------------------------- recipes

def write_recipes(folder, **texts):
    (folder / "recipes.json").write_text(json.dumps(texts))
    return folder / "recipes.json"


def test_options_are_added_to_the_first_and_only_keeps_it(tmp_path):
    file = write_recipes(tmp_path, base="--lr 0.1 --balance", other="--lr 0.2 --no-balance", same="--lr 0.1")
    base, other, same = read_recipes(file)
    assert base.options == ("--lr", "0.1", "--balance") and base.changed == same.changed == ""
    assert other.options == ("--lr", "0.1", "--balance", "--lr", "0.2", "--no-balance")
    assert other.changed == "lr 0.2, balance False"
    assert [each.name for each in read_recipes(file, ["oth"])] == ["base", "other"]
    assert [each.name for each in read_recipes(None)] == list(RECIPES)


@pytest.mark.parametrize(("texts", "says"), [
    ({}, "holds no recipe"), ({"a": 3}, "options of train.py as texts"), ({"a": "--lr 'x"}, "No closing quotation"),
    ({"a": "--lr x"}, "--lr: 'x' is not a number"), ({"a": "--learning 1"}, "train.py has no --learning 1"),
    ({"a": "--run 2"}, "leave out --run"), ({"a b": "", "a_b": "--lr 1"}, "'a b' and 'a_b' would have one folder"),
    ({"..": ""}, "options of train.py as texts")])
def test_faulty_recipes_are_refused_before_the_first_network(tmp_path, texts, says):
    file = write_recipes(tmp_path, **texts)
    with pytest.raises(InputError, match=r"--recipes .*recipes\.json") as error:
        read_recipes(file)
    assert says in str(error.value)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="--only nothing: no recipe"):
        read_recipes(None, ["nothing"])


def test_the_table_fits_100_columns():
    row = {"recipe": "a name of many words " * 4, "changed": "lr 0.1, optimizer adamw, " * 5, "networks": 15,
           "asked": 15, "seconds": 163.4} | {f"{name}_{key}": -0.1234 for name in ("val", "test") for key in (
               "auc", "ensemble", "pooled", "pooled_low", "pooled_high", "difference", "low", "high", "smallest")}
    text = as_lines(pd.DataFrame([row] * 12), ("val", "test"))
    assert max(map(len, text.splitlines())) <= 100 and all(heading in text for heading in HEADINGS)
    assert "15 of 15 networks, 163 s each" in " ".join(text.split()) and "−0.123 (−0.123 to −0.123)" in text


def test_seconds_of_other_threads_are_warned_of(tmp_path):
    for split, threads in enumerate((2, 2, 1)):
        settings = {"device": "cpu (AVX2)", "precision": "float32", "threads": threads}
        write_json(settings, tmp_path / f"settings_split{split}_run1.json")
    one, same, other = ((tmp_path, split, 1) for split in range(3))
    assert other_machines([one, same]) == other_machines([]) == ""
    assert other_machines([one, other]) == "cpu (AVX2), float32, 1 thread; cpu (AVX2), float32, 2 threads"
    asked = {"base": "--lr 0.1", "--lr 0.2": "--lr 0.2", "off": "--amp off", "2": "--threads 2", "off, 1": "--amp off"}
    assert alike(read_recipes(write_recipes(tmp_path, **asked))) == [["base", "--lr 0.2"], ["off", "off, 1"], ["2"]]


def test_a_finished_network_of_another_precision_is_refused(tmp_path):
    options, other = ["--lr", "0.1", "--amp", "off", "--threads", "2"], ["--lr", "0.1", "--threads", "2"]
    write_json({"options": options, "seconds": 3.0, "done": True}, tmp_path / "bench_split0_run1.json")
    assert seconds_of(tmp_path, options, 0, 1) == 3 and seconds_of(tmp_path, other, 0, 1) is None
    with pytest.raises(InputError, match=r"other values of --amp \(off, now auto\): give the recipe another name, or"):
        train_and_predict(tmp_path, other, 0, 1, [])


def test_scores_of_a_network_of_other_images_are_refused(tmp_path):
    table = pd.DataFrame({"scan_id": ["a", "b", "c"], "filename": ["a", "b", "c"], "target": [0, 1, 1],
                          "split0": ["train", "train", "val"], "image_sha256": ["1", "2", "3"]})
    table[["scan_id", "target", "split0"]].assign(set=table["split0"], probs=0.5).to_csv(
        tmp_path / "pred_split0_run1.csv", index=False)
    write_json({"labels_hash": labels_hash(table, 0), "trained_on": training_digests(table, table["split0"])},
               tmp_path / "settings_split0_run1.json")
    scans = {name: scans_of(table, 0, name) for name in ("train", "val")}
    assert read_scores(tmp_path, 0, 1, scans, table)["val"].to_dict() == {"c": 0.5}
    with pytest.raises(InputError, match="trained on other scans, images, labels or sets than the manifest has, which"):
        read_scores(tmp_path, 0, 1, scans, table.assign(image_sha256=["1", "4", "3"]))


# ---------------------------------------------------------------- networks

@pytest.mark.slow
def test_each_network_is_trained_once_and_compared(tmp_path, capsys):
    table = write_cohort(tmp_path)

    def bench(flips, *more):
        """-> exit code, recipes.csv, what was said."""
        file = write_recipes(tmp_path, base=FIRST, flips=flips)
        code = call(benchmark, "recipes", "--data", tmp_path / "data.csv", "--recipes", file, "--output",
                    tmp_path / "out", "--split_index", "0-1", "--threads", 1, "--device", "cpu", "--amp", "off", *more)
        return code, pd.read_csv(tmp_path / "out" / "recipes.csv").set_index("recipe"), capsys.readouterr()

    code, rows, said = bench("--augm 3")
    assert not code and rows["networks"].to_dict() == {"base": 2, "flips": 2} and (rows["asked"] == 2).all()
    assert rows.loc["flips", "changed"] == "augm 3" and (rows["seconds"] > 0.01).all()
    assert not [name for name in rows if name.startswith("test")] and "  test" not in said.out
    aucs = {}
    for name in rows.index:
        logs = [pd.read_csv(tmp_path / "out" / name / f"convergence_split{split}_run1.csv") for split in (0, 1)]
        aucs[name] = np.mean([log.query("split == 'validation' and metric == 'auc'")["value"].max() for log in logs])
        assert rows.loc[name, "val_auc"] == pytest.approx(aucs[name], abs=1e-6)  # what train.py measured
    assert rows.loc["flips", "val_difference"] == pytest.approx(aucs["flips"] - aucs["base"], abs=1e-6)
    assert rows.loc["flips", "val_compared"] == 2 and np.isnan(rows.loc["base", "val_difference"])
    assert (tmp_path / "out" / "recipes.png").stat().st_size > 10_000

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*")}
    code, more, said = bench("--augm 3", "--report_test")
    assert not code and before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*")}
    assert {"test_auc", "test_difference"} <= {*more} and "  test  " in said.out
    assert more["test_pooled"].isna().all()  # the same scans in both splits
    pd.testing.assert_frame_equal(more[[*rows]], rows)

    code, rows, said = bench("--augm 1", "--split_index", 1)
    assert code == 1 and "error: flips, split 1 run 1: train.py ended with 2: " in said.err
    assert "trained with other values of --augm (3, now 1)" in said.err
    assert "left out: 1 of 2 networks failed" in said.out and rows["networks"].tolist() == [1, 0]

    swapped = table["target"].where(~table["scan_id"].isin(["s008", "s009"]), 1 - table["target"])  # of training scans
    table.assign(target=swapped).to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(InputError, match="trained on other scans, images, labels or sets than the manifest has, which"):
        bench("--augm 3", "--split_index", 0)
    table.loc[table["scan_id"].isin(["s006", "s007"]), "target"] = 1
    table.to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(InputError, match="has changed since; give another --output"):
        bench("--augm 3")


@pytest.mark.slow
def test_stopped_and_gone_on_it_is_the_same_bench(tmp_path):
    write_cohort(tmp_path)
    file, whole = write_recipes(tmp_path, base=f"{FIRST} --nepochs 6"), tmp_path / "whole"
    options = ["recipes", "--data", tmp_path / "data.csv", "--recipes", file, "--threads", 1, "--amp", "off"]
    command = [sys.executable, ROOT / "benchmark.py", *map(str, options), "--output", tmp_path / "out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    record = tmp_path / "out" / "base" / "bench_split0_run1.json"
    for _ in range(2000):
        if record.exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    first = json.loads(record.read_text())
    assert not first["done"] and first["seconds"] > 0
    assert (record.parent / "last_split0_run1.pth").exists()  # train.py saved its state and has ended
    run("benchmark.py", *options, "--output", tmp_path / "out", check=0)
    second = json.loads(record.read_text())
    assert second["done"] and second["seconds"] > first["seconds"]
    assert not (record.parent / "last_split0_run1.pth").exists()
    run("benchmark.py", *options, "--output", whole, check=0)
    one, other = (pd.read_csv(folder / "recipes.csv").drop(columns="seconds") for folder in (tmp_path / "out", whole))
    pd.testing.assert_frame_equal(one, other)
    predictions = [(folder / "base" / "pred_split0_run1.csv") for folder in (tmp_path / "out", whole)]
    one, other = (pd.read_csv(path)["probs"] for path in predictions)
    pd.testing.assert_series_equal(one, other)
