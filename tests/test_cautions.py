"""What a reader is warned of: few patients of a class, labels that seem swapped; bars that allow for patients."""
import json

import numpy as np
import pandas as pd
import pytest
from conftest import call
from coverage_helpers import auc_coverage, bar_coverage
from hypothesis import given
from hypothesis import strategies as st
from prediction_helpers import measured, predictions, write
from scipy.stats import binomtest

import compare
from evaluation import cautions, metrics

pytestmark = pytest.mark.usefixtures("no_figure")  # they take most of the time


def cohort(positive, negative, scans_each=1):
    """Scans of so many patients, `scans_each` of each."""
    target = np.repeat([1] * positive + [0] * negative, scans_each)
    return pd.DataFrame({"scan_id": [f"s{k:03d}" for k in range(len(target))], "target": target,
                         "patient_id": [f"p{k // scans_each:03d}" for k in range(len(target))]})


def rough(lines):
    return [line for line in lines if "intervals are rough" in line]


def rough_aucs(lines):
    return [line for line in lines if line.startswith("the interval of the AUC of")]


# ---------------------------------------------------------------- few patients

@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=30), st.randoms())
def test_rarer_class_counts_patients_whatever_their_names_and_order(rows, random):
    expected = min(len({patient for target, patient in rows if target == value}) for value in (0, 1))
    names = list("abcdefg")
    random.shuffle(names)
    random.shuffle(rows)
    y, groups = np.array([target for target, _ in rows]), np.array([names[patient] for _, patient in rows])
    assert cautions.rarer_class(y, groups) == expected == cautions.rarer_class(1 - y, groups)
    assert cautions.rarer_class(y) == min((y == 0).sum(), (y == 1).sum())


def test_patients_of_the_rarer_class_are_counted_not_scans(tmp_path, capsys):
    write(tmp_path, predictions(0, cohort(8, 30, scans_each=3)))
    metrics_ = measured(tmp_path)
    assert (metrics_["avg"]["n_positive"], metrics_["avg"]["n_groups_rarer"]) == (24, 8)
    (line,) = rough(metrics_["warnings"])
    assert line.startswith("only 8 patients in one of the classes") and line in capsys.readouterr().out
    assert "only 8 patients" in (tmp_path / "out" / "report.html").read_text()
    out = tmp_path / "out"
    call(compare, out / "ensemble_avg.csv", out / "ensemble_max.csv", "--output", out, "--resamples", 20)
    assert rough(json.loads((out / "compare.json").read_text())["warnings"]) == [line]
    assert cautions.few_patients(1, "patient")[0].startswith("only 1 patient in one")
    write(tmp_path, predictions(0, cohort(20, 30)))
    assert rough(measured(tmp_path)["warnings"]) == []


def test_subgroups_of_few_patients_are_named(tmp_path):
    scans = cohort(30, 30).assign(sex=["F"] * 5 + ["M"] * 40 + ["F"] * 15, ward=["A"] * 30 + ["B"] * 30)
    write(tmp_path, predictions(0, scans))
    (line,) = rough(measured(tmp_path, "--by", "sex", "view", "ward")["warnings"])
    assert line.startswith("fewer than 20 patients in one of the classes of sex F (5), sex M (15): these intervals are")


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "low", "high"), [(8, 0.87, 0.93), (15, 0.91, 0.94)])
@pytest.mark.parametrize("auc", [0.75, 0.85, 0.95])
@pytest.mark.parametrize("clustered", [False, True])
def test_coverage_with_few_patients_is_what_the_warning_says(patients, low, high, auc, clustered):
    """1000 studies, against 100 patients of the other class; 3 standard errors of room."""
    assert low - 0.03 <= auc_coverage(1000, patients, 100, auc, clustered, seed=1)[0] <= high + 0.02


# ---------------------------------------------------------------- few patients for a high AUC

def test_a_high_auc_of_few_patients_is_named():
    aucs = {"a": ({"value": 0.95}, 59), "b": ({"value": 0.95}, 61), "c": ({"value": 0.99}, 19),
            "d": ({"value": None}, 20), "e": ({"value": 1.0}, 400)}
    (line,) = cautions.high_aucs(aucs, "patient")
    assert line.startswith("the interval of the AUC of a (59), e (400) is rough: few patients")
    assert cautions.high_aucs({"b": aucs["b"]}, "patient") == []


def test_a_high_auc_is_named_on_the_page_of_a_run_and_of_a_comparison(tmp_path):
    table = predictions(0, cohort(30, 30))
    apart = np.where(np.arange(len(table)) % 20 == 0, 0.5, np.where(table["target"] == 1, 0.8, 0.2))
    write(tmp_path, table.assign(probs=np.clip(table["probs"] / 50 + apart, 0, 1)))
    (line,) = rough_aucs(measured(tmp_path)["warnings"])
    assert "LARS-avg (30)" in line and "rough" in (tmp_path / "out" / "report.html").read_text()
    out = tmp_path / "out"
    call(compare, out / "ensemble_avg.csv", out / "ensemble_max.csv", "--output", out, "--resamples", 20)
    assert "ensemble_avg (30)" in rough_aucs(json.loads((out / "compare.json").read_text())["warnings"])[0]


@pytest.mark.slow
@pytest.mark.parametrize(("positive", "negative", "auc"), [(30, 100, 0.95), (60, 100, 0.98), (30, 300, 0.98)])
@pytest.mark.parametrize("clustered", [False, True])
def test_coverage_of_high_aucs_is_what_the_warning_says(positive, negative, auc, clustered):
    assert 0.86 <= auc_coverage(1000, positive, negative, auc, clustered, seed=1)[0] <= 0.96


# ---------------------------------------------------------------- swapped labels

def test_an_auc_below_one_half_hints_at_swapped_labels(tmp_path, capsys):
    tables = [predictions(k, cohort(30, 30)) for k in range(2)]
    write(tmp_path, *tables)
    assert not any("swapped" in line for line in measured(tmp_path)["warnings"])
    write(tmp_path, tables[0], tables[1].assign(probs=1 - tables[1]["probs"]))
    (line,) = (line for line in measured(tmp_path)["warnings"] if "swapped" in line)
    assert line.startswith("the AUC of pred_split1_run1.csv is below 0.5 with its whole interval: are the labels")
    write(tmp_path, *(table.assign(target=1 - table["target"]) for table in tables))
    (line,) = (line for line in measured(tmp_path)["warnings"] if "swapped" in line)
    assert line.startswith("the AUC of LARS-avg, LARS-max, pred_split0_run1.csv, pred_split1_run1.csv is below 0.5")
    out = tmp_path / "out"
    capsys.readouterr()
    call(compare, out / "ensemble_avg.csv", out / "ensemble_max.csv", "--output", out, "--resamples", 20)
    assert "warning: the AUC of ensemble_avg, ensemble_max is below 0.5" in capsys.readouterr().out


def test_an_interval_that_holds_one_half_is_no_hint():
    assert cautions.swapped_labels({"a": {"ci_high": 0.5}, "b": {"ci_high": None}}) == []


# ---------------------------------------------------------------- reliability

def test_bars_without_patients_are_wilsons():
    y, p = np.array([0, 1, 1, 0, 1]), np.array([0.02, 0.05, 0.07, 0.91, 0.99])
    first, last = metrics.reliability_bins(y, p)
    expected = binomtest(2, 3).proportion_ci(method="wilson")
    assert (first["ci_low"], first["ci_high"]) == pytest.approx((expected.low, expected.high))
    assert (first["n"], last["n"], first["ci_method"]) == (3, 2, "Wilson")


def test_bars_do_not_shrink_where_scans_are_copied_within_a_patient():
    rng = np.random.default_rng(3)
    y, p = rng.integers(0, 2, 60), rng.random(60)
    once = metrics.reliability_bins(y, p, np.arange(60))
    copied = metrics.reliability_bins(np.repeat(y, 4), np.repeat(p, 4), np.repeat(np.arange(60), 4))
    for one, four in zip(once, copied, strict=True):
        assert four["n"] == 4 * one["n"] and four["share_positive"] == pytest.approx(one["share_positive"])
        assert four["ci_high"] - four["ci_low"] >= one["ci_high"] - one["ci_low"] - 1e-9
    assert "Rao-Scott" in copied[0]["ci_method"]


@pytest.mark.parametrize("clustered", [False, True])
def test_coverage_of_the_bars(clustered):
    """One bin of 80 patients whose scans share much; without patients the bar would hold the truth too seldom."""
    by_patient, blind = bar_coverage(1000, clustered)
    assert 0.93 <= by_patient <= 0.97 and (not clustered or blind < 0.93)
