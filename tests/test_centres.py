"""Several centres in one report: differences and heterogeneity by formulas of others, frozen thresholds, refusals."""
import json

import numpy as np
import pandas as pd
import pytest
from conftest import call
from hypothesis import given
from hypothesis import strategies as st
from prediction_helpers import measured, mislabelled, predictions, splits, with_cal, write
from scipy.special import expit, logit
from scipy.stats import binomtest, chi2, norm

import aggregate
from common.files import InputError
from evaluation.centres import difference, heterogeneity, report_tables
from evaluation.estimates import estimate, no_estimate
from evaluation.metrics import DERIVED, Z, auc_estimate
from evaluation.primary import read_primary


def proportion(count, n):
    return estimate(count / n, *binomtest(count, n).proportion_ci(method="wilson"), "Wilson")


def of_logit(value, se):
    return estimate(expit(value), expit(value - Z * se), expit(value + Z * se), "logit")


@pytest.mark.parametrize(("a", "n", "b", "m", "low", "high"), [
    (56, 70, 48, 80, 0.05243147, 0.33387265), (9, 10, 3, 10, 0.17052272, 0.80901797),  # and Newcombe 1998, table II
    (0, 40, 3, 25, -0.29955794, -0.00246949), (40, 40, 25, 25, -0.08762160, 0.13319225)])
def test_difference_of_proportions_is_newcomb_s(a, n, b, m, low, high):
    """confint_proportions_2indep(a, n, b, m, compare="diff", method="newcomb") of statsmodels 0.15.0."""
    found = difference(proportion(a, n), proportion(b, m))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((low, high), abs=1e-7)


@given(st.integers(0, 40), st.integers(0, 25))
def test_turned_round_the_difference_changes_its_sign(a, b):
    one, other = proportion(a, 40), proportion(b, 25)
    found, turned = difference(one, other), difference(other, one)
    assert (turned["ci_low"], turned["ci_high"]) == (-found["ci_high"], -found["ci_low"])
    assert found["ci_low"] <= found["difference"] <= found["ci_high"]


def test_difference_without_a_value_or_an_interval():
    assert difference(no_estimate("one class"), proportion(1, 2))["difference"] is None
    found = difference(estimate(0.75, None, None, None), proportion(1, 2))
    assert found == {"difference": 0.25, "ci_low": None, "ci_high": None}


def test_heterogeneity_is_dersimonian_and_laird_s():
    """combine_effects(y, se**2, method_re="chi2") of statsmodels 0.15.0."""
    centres = list(zip([2.0, 1.2, 0.4, 1.7, 2.9, 1.1], [0.3, 0.25, 0.4, 0.5, 0.35, 0.2], strict=True))
    found = heterogeneity([of_logit(*each) for each in centres])
    assert [found[key] for key in ("q", "tau2", "i2")] == pytest.approx([31.725615931835563, 0.48987471272463073,
                                                                         0.8423986468618039], rel=1e-9)
    assert found["p"] == pytest.approx(chi2.sf(31.725615931835563, 5))


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0.1, 1)), min_size=5, max_size=12), st.floats(-1, 1))
def test_heterogeneity_by_its_definition(centres, shift):
    """Whatever the order of the centres, and of logits that are all moved by the same."""
    y, weight = np.array([each[0] for each in centres]), 1 / np.array([each[1] for each in centres]) ** 2
    q = sum(w * (one - np.average(y, weights=weight)) ** 2 for one, w in zip(y, weight, strict=True))
    scale = weight.sum() - (weight**2).sum() / weight.sum()
    excess = max(0, q - len(y) + 1)
    expected = {"n_centres": len(y), "q": q, "p": chi2.sf(q, len(y) - 1), "i2": excess / q if q else 0,
                "tau2": excess / scale}
    for again in (centres, centres[::-1], [(value + shift, se) for value, se in centres]):
        found = heterogeneity([of_logit(*each) for each in again])
        assert found == {key: pytest.approx(value, rel=1e-6, abs=1e-6) for key, value in expected.items()}


def test_heterogeneity_needs_five_centres_with_intervals():
    assert "5 centres" in heterogeneity([proportion(8, 10)] * 4)["reason"]
    assert "limit of 0 or 1" in heterogeneity([proportion(8, 10)] * 4 + [proportion(10, 10)])["reason"]
    same = heterogeneity([of_logit(logit(0.8), 0.3)] * 5)
    assert same["i2"] == same["tau2"] == 0 and same["p"] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_intervals_of_a_difference_hold_the_truth(several):
    """Two centres of 100 patients, 200 studies: 0.95, less four standard errors; statistics.md has 2000."""
    rng, held, apart = np.random.default_rng(0), 0, (1.8, 1.2)

    def auc(distance):
        of = np.repeat(np.arange(100), rng.integers(1, 4, 100) if several else 1)
        y = (rng.random(100) < 0.4)[of].astype(int)
        shared = rng.normal(0, 0.6, 100)[of] if several else 0
        noise = shared + rng.normal(0, 0.8 if several else 1, len(of))
        return auc_estimate(y, y * distance + noise, of if several else None)

    truth = norm.cdf(apart[0] / 2**0.5) - norm.cdf(apart[1] / 2**0.5)
    for _ in range(200):
        found = difference(*(auc(distance) for distance in apart))
        held += found["ci_low"] <= truth <= found["ci_high"]
    assert 0.888 <= held / 200 <= 1


# ---------------------------------------------------------------- aggregate.py --cohort

def centre(folder, name, n=40, seed=50, models=4, **columns):
    """The models' predictions of another centre's scans."""
    rng = np.random.default_rng(seed)
    scans = pd.DataFrame({"scan_id": [f"{name}{k}" for k in range(n)], "target": rng.integers(0, 2, n),
                          "patient_id": [f"{name}p{k // 2}" for k in range(n)]})
    write(folder / name, *(predictions(seed + k, scans, set="all", **columns) for k in range(models)))
    return f"{name}={folder / name}"


@pytest.mark.parametrize("cal", [pytest.param(False, marks=pytest.mark.slow), True])
def test_other_centres_are_measured_with_frozen_thresholds(tmp_path, monkeypatch, cal):
    write(tmp_path, *(with_cal(splits()) if cal else splits()))
    north, south = centre(tmp_path, "north"), centre(tmp_path, "south", n=30, seed=80)
    metrics = measured(tmp_path, "--cohort", north, south, "--recalibrate", "platt")
    assert list(metrics["cohorts"]) == ["internal", "north", "south"]
    assert metrics["cohorts"]["internal"]["avg"]["auc"] == metrics["avg"]["auc"]
    assert any("in one of the classes of cohort north (" in line for line in metrics["warnings"])
    monkeypatch.setattr("evaluation.figures.score_figures", lambda *arguments: {})
    call(aggregate, "--dir", tmp_path / "north", "--output", tmp_path / "alone", "--resamples", 50,
         "--operating_points", tmp_path / "out" / "operating_points.json")  # the same in two steps
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    for name in ("avg", "max"):
        block = metrics["cohorts"]["north"][name]
        assert {key: alone[name][key] for key in ("auc", "brier", "sensitivity", "tp")} == {
            key: block[key] if key in block else alone[name][key] for key in ("auc", "brier", "sensitivity", "tp")}
        for point, at in block["operating_points"].items():
            assert at["specificity"] == alone[name]["operating_points"][point]["specificity"]
    assert "north/pred_split2_run1.csv" in metrics["provenance"]["inputs"]
    less = metrics["differences"]["south"]["avg"]["auc"]
    assert less == difference(metrics["cohorts"]["south"]["avg"]["auc"], metrics["avg"]["auc"])
    assert "needs 5 centres" in metrics["heterogeneity"]["auc"]["reason"]
    table = pd.read_csv(tmp_path / "out" / "cohorts.csv")
    row = table.query("cohort == 'south' and ensemble == 'LARS-avg' and metric == 'auc'").iloc[0]
    assert (row["value"], row["difference"]) == (metrics["cohorts"]["south"]["avg"]["auc"]["value"], less["difference"])
    assert {"0.5", "Youden"} <= set(table["threshold"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "south less internal" in page and (tmp_path / "out" / "cohorts.pdf").exists()
    measured(tmp_path)
    assert not (tmp_path / "out" / "cohorts.csv").exists() and not list((tmp_path / "out").glob("cohorts.*"))


@pytest.mark.usefixtures("no_figure")
def test_the_table_says_what_no_reader_may_miss(tmp_path):
    write(tmp_path, *(table.assign(leakage="patient p00 is in test and train") for table in splits(2)))
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--resamples", 20, "--cohort",
         centre(tmp_path, "north", models=2))
    for name in ("cohorts.csv", "failures.csv"):
        assert pd.read_csv(tmp_path / name)["notice"].str.startswith("LEAKAGE: ").all()


@pytest.mark.usefixtures("no_figure")
def test_five_centres_have_a_heterogeneity(tmp_path):
    write(tmp_path, *mislabelled(splits(n_test=80)))
    others = []
    for k, name in enumerate("abcd"):
        others.append(centre(tmp_path, name, seed=90 + k, n=60))
        tables = [pd.read_csv(path) for path in sorted((tmp_path / name).glob("pred_*.csv"))]
        write(tmp_path / name, *mislabelled(tables))
    found = measured(tmp_path, "--cohort", *others)["heterogeneity"]["auc"]
    assert found["n_centres"] == 5 and 0 <= found["i2"] <= 1 and found["tau2"] >= 0
    assert "I² " in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("no_figure")
def test_cohorts_that_do_not_belong_are_refused(tmp_path, capsys):
    write(tmp_path, *(table.assign(checkpoint_sha256=f"{k:064x}") for k, table in enumerate(splits())))
    with pytest.raises(InputError, match="lacks pred_split3_run1.csv; predict it with the same models"):
        measured(tmp_path, "--cohort", centre(tmp_path, "few", models=3))
    with pytest.raises(InputError, match="pred_split0_run1.csv is of another checkpoint"):
        measured(tmp_path, "--cohort", centre(tmp_path, "other", checkpoint_sha256="f" * 64))
    measured(tmp_path, "--cohort", centre(tmp_path, "unsaid"))
    assert "cohort unsaid: whether pred_split0_run1.csv, pred_split1_run1.csv and 2 more are of the same check" in (
        capsys.readouterr().out)
    with pytest.raises(InputError, match="no scan of .* has a target"):
        measured(tmp_path, "--cohort", centre(tmp_path, "blind", target=""))
    again = centre(tmp_path, "again")
    write(tmp_path / "again", *(table[table["set"] == "test"].assign(set="all") for table in splits()))
    with pytest.raises(InputError, match="--cohort again: s040, s041, s042 and 21 more, or their patients or images, "
                                         "are in cohort internal, too"):
        measured(tmp_path, "--cohort", again)
    known = with_cal(splits())
    write(tmp_path, *known)
    write(tmp_path / "again", *(table[table["set"] == "cal"].assign(set="all", scan_id="v" + table["scan_id"])
                                for table in known))
    with pytest.raises(InputError, match="are in what the thresholds were derived from, too"):
        measured(tmp_path, "--cohort", again)
    call(aggregate, "--dir", tmp_path, "--output", tmp_path / "out", "--resamples", 20)
    with pytest.raises(InputError, match="are in what the thresholds were derived from, too"):  # applied: by digest
        measured(tmp_path, "--cohort", again, "--operating_points", tmp_path / "out" / "operating_points.json")
    with pytest.raises(InputError, match="--cohort seen: 40 of 40 scans, or their patients, were trained"):
        measured(tmp_path, "--cohort", centre(tmp_path, "seen", overlap="train"))
    capsys.readouterr()
    metrics = measured(tmp_path, "--cohort", centre(tmp_path, "drawn", synthetic=1))
    assert "cohort drawn: The cohort is SYNTHETIC" in capsys.readouterr().out
    assert metrics["cohorts"]["drawn"]["synthetic"] and not metrics["cohorts"]["internal"]["synthetic"]
    with pytest.raises(InputError, match="--cohort drawn: is given twice"):
        measured(tmp_path, "--cohort", centre(tmp_path, "drawn"), "--cohort", f"drawn={tmp_path / 'again'}")
    for text in ("north", "=x", "internal=x", "a="):
        with pytest.raises(SystemExit):
            measured(tmp_path, "--cohort", text)


def test_a_cohort_may_reach_a_threshold_that_another_misses():
    """By the majority, say, of models whose mean does not reach it: the columns stay those of their headings."""
    def block(**points):
        at = {name: dict.fromkeys(("sensitivity", "specificity"), proportion(count, 10))
              for name, count in {"0.5": 5, **points}.items()}
        whole = at.pop("0.5") | dict.fromkeys(("auc", "brier", "calibration_intercept", "calibration_slope"))
        missed = {name: {"reason": "not reached"} for name in DERIVED if name not in points}
        return {"n": 20, "n_positive": 10, "operating_points": {name: (at | missed)[name] for name in DERIVED}, **whole}

    blocks = {"internal": block(sensitivity95=7), "north": block(youden=6, specificity95=9)}
    none = dict.fromkeys(("auc", "sensitivity", "specificity"), no_estimate("none"))
    head, rows = report_tables({"cohorts": {name: {"set": "all", "n_patients": None, "overlap": "none", "avg": each}
                                            for name, each in blocks.items()},
                                "differences": {}, "heterogeneity": none})["calls"]
    assert head[1:] == ["0.5", *DERIVED.values()]
    assert [[next((k for k in range(10) if f"0.{k}00 (" in cell), None) for cell in row[1:]] for row in rows] == [
        [5, None, 7, None], [5, 6, None, 9]]


# ---------------------------------------------------------------- aggregate.py --primary

@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize(("text", "ensemble", "metric", "point"), [
    ("LARS-avg auc", "avg", "auc", None), ("lars-max  Sensitivity", "max", "sensitivity", None),
    ("LARS-avg specificity at youden", "avg", "specificity", "youden"), ("LARS-avg ppv at 0.5", "avg", "ppv", None)])
def test_the_declared_number_comes_first(tmp_path, text, ensemble, metric, point):
    write(tmp_path, *splits())
    metrics = measured(tmp_path, "--primary", text)
    block = metrics[ensemble]["operating_points"][point] if point else metrics[ensemble]
    assert metrics["primary"]["value"] == block[metric]["value"] and metrics["primary"]["metric"] == metric
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("Primary analysis: ") < page.index("<nav>") and "exploratory" in page


@pytest.mark.usefixtures("no_figure")
def test_the_declared_number_may_be_of_a_cohort(tmp_path, capsys):
    write(tmp_path, *splits())
    metrics = measured(tmp_path, "--cohort", centre(tmp_path, "North A"), "--primary", "LARS-avg auc in North A")
    printed, auc = capsys.readouterr().out, metrics["primary"]["value"]
    assert f"cohort North A: 40 scans; LARS-avg: AUC {auc:.3f} (" in printed
    assert f"primary analysis: LARS-avg, AUC in cohort North A, {auc:.3f} (" in printed
    assert metrics["primary"]["value"] == metrics["cohorts"]["North A"]["avg"]["auc"]["value"]
    assert "LARS-avg, AUC in cohort North A, " in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(InputError, match="south is none of the cohorts of --cohort"):
        read_primary("LARS-avg auc in south", ["north"])


@pytest.mark.parametrize("text", ["auc", "LARS auc", "LARS-avg area", "LARS-avg auc at youden", "LARS-avg ppv at 0.7"])
def test_what_is_no_primary_analysis(text):
    with pytest.raises(InputError, match="--primary"):
        read_primary(text)
