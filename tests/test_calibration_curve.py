"""The smooth calibration curve, likelihood ratios, predictive values and the decision curve: against published values,
R's packages, independent formulas, and by their properties."""
import json

import numpy as np
import pandas as pd
import pytest
from calibration_helpers import coverage, r_simulation, study
from conftest import call
from hypothesis import given, settings
from hypothesis import strategies as st
from page_helpers import Page
from prediction_helpers import splits, write
from scipy.interpolate import CubicSpline
from scipy.special import expit, logit
from scipy.stats import beta, binom, norm
from sklearn.linear_model import LogisticRegression

import aggregate
from common.files import InputError
from evaluation import calibration, calibration_curve, decision_curve, outputs, predictive_values
from evaluation.calibration_curve import Curve
from evaluation.metrics import Z, effective_trials

SEEDS = st.integers(0, 10**6)


def simulated(seed=0, patients=120, most=1):
    return study(np.random.default_rng(seed), patients, most)


# ---------------------------------------------------------------- the curve

def test_curve_and_errors_of_pmcalibration():
    """README of the R package pmcalibration: pmcalibration(y, p, smooth = "rcs", nk = 5, transf = "logit")."""
    y, p = r_simulation()
    curve = Curve(y, p, knots=5)
    found = calibration_curve.errors(curve.fitted, p)
    assert [float(found[name]) for name in ("ici", "e50", "e90")] == pytest.approx([0.054, 0.059, 0.083], abs=5e-4)
    assert np.abs(curve.fitted - p).max() == pytest.approx(0.138, abs=5e-4)
    at = [0.005804309, 0.015274021, 0.024743733, 0.034213445, 0.043683157, 0.053152869]
    published = [0.14402182, 0.11541021, 0.10296340, 0.09521032, 0.08985188, 0.08642764]
    assert curve.at(np.array(at))[0] == pytest.approx(published, abs=5e-8)


def test_errors_are_like_those_of_lowess_in_val_prob():
    """The same README: rms::val.prob gives Eavg 0.044, E90 0.073, Emax 0.145 by lowess(p, y, iter = 0)."""
    y, p = r_simulation()
    found = calibration_curve.errors(Curve(y, p).fitted, p)
    assert (found["ici"], found["e90"]) == pytest.approx((0.044, 0.073), abs=0.015)


@pytest.mark.parametrize("knots", (3, 4, 5))
def test_curve_is_that_of_scipys_natural_spline_and_sklearns_regression(knots):
    y, p, _ = simulated(3, 300)
    x = logit(p)
    places = np.quantile(x, calibration_curve.KNOTS[knots])
    cubic = CubicSpline(places, np.eye(knots), bc_type="natural")

    def basis(x):
        inside = np.clip(x, places[0], places[-1])
        return cubic(inside) + cubic(inside, 1) * (x - inside)[:, None]  # straight beyond the outer knots

    other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000, fit_intercept=False).fit(basis(x), y)
    curve, grid = Curve(y, p, knots=knots), np.linspace(0.01, 0.99, 30)
    assert curve.fitted == pytest.approx(other.predict_proba(basis(x))[:, 1], abs=1e-4)
    assert curve.at(grid)[0] == pytest.approx(other.predict_proba(basis(logit(grid)))[:, 1], abs=1e-4)


def test_band_is_that_of_a_newton_step_without_each_patient():
    y, p, patient = simulated(5, 80, most=3)
    curve, grid = Curve(y, p, patient), np.array([0.1, 0.3, 0.5, 0.9])
    raw = calibration_curve.spline(logit(p), curve.knots)  # not orthonormal
    whole = LogisticRegression(C=np.inf, tol=1e-12, max_iter=20_000, fit_intercept=False, solver="newton-cg")
    mu, without = whole.fit(raw, y).predict_proba(raw)[:, 1], []
    for one in np.unique(patient):
        rows = patient != one
        step = np.linalg.solve((raw[rows].T * (mu * (1 - mu))[rows]) @ raw[rows], raw[rows].T @ (y - mu)[rows])
        without.append(calibration_curve.spline(logit(grid), curve.knots) @ step)
    error = np.sqrt((len(without) - 1) / len(without) * (np.array(without) ** 2).sum(axis=0))
    _, low, high = curve.at(grid)
    assert (logit(high) - logit(low)) / (2 * Z) == pytest.approx(error, rel=1e-4)


def test_band_of_many_scans_is_that_of_the_regression():
    y, p, _ = simulated(1, 20_000)
    curve, grid = Curve(y, p), np.array([0.1, 0.3, 0.5, 0.9])
    information = (curve.design * (curve.fitted * (1 - curve.fitted))[:, None]).T @ curve.design
    at = curve.design_at(grid)
    error = np.sqrt(np.einsum("ij,jk,ik->i", at, np.linalg.inv(information), at))
    _, low, high = curve.at(grid)
    assert (logit(high) - logit(low)) / (2 * Z) == pytest.approx(error, rel=0.05)


@settings(max_examples=15)
@given(SEEDS, st.floats(0.3, 3), st.floats(-1, 1))
def test_curve_follows_any_straight_recalibration(seed, factor, shift):
    y, p, patient = simulated(seed % 50, 100, most=2)
    one, other = Curve(y, p, patient), Curve(y, expit(factor * logit(p) + shift), patient)
    assert other.fitted == pytest.approx(one.fitted, abs=1e-6)
    assert other.covariance.trace() == pytest.approx(one.covariance.trace(), rel=1e-3)


@settings(max_examples=10)
@given(SEEDS)
def test_order_of_scans_names_of_patients_and_of_classes_change_nothing(seed):
    y, p, patient = simulated(seed % 50, 60, most=3)
    order, names = np.random.default_rng(seed).permutation(len(y)), np.random.default_rng(seed).permutation(60)
    one, other = (calibration_curve.measure(*each, 0) for each in (
        (y, p, patient), (y[order], p[order], names[patient][order])))
    mirrored = calibration_curve.measure(1 - y, 1 - p, patient, 0)
    for name in calibration_curve.INDICES:
        assert other[name]["value"] == pytest.approx(one[name]["value"], abs=1e-7)
        assert mirrored[name]["value"] == pytest.approx(one[name]["value"], abs=1e-6)
        assert other[name]["if_perfect"] == pytest.approx(one[name]["if_perfect"], abs=1e-6)
    for mine, others in zip(one["curve"] + one["bins"], other["curve"] + other["bins"], strict=True):
        assert {**others, "ci_method": ""} == pytest.approx({**mine, "ci_method": ""}, abs=1e-6)


def test_values_under_perfect_calibration_are_those_of_simulated_studies():
    rng, values = np.random.default_rng(0), []
    p = beta.rvs(0.8, 0.9, size=300, random_state=1)
    found = calibration_curve.measure((rng.random(300) < p).astype(int), p, None, 0)
    for _ in range(400):
        curve = Curve(rng.random(300) < p, p)
        values.append(calibration_curve.errors(curve.fitted, p)["ici"])
    assert found["ici"]["if_perfect"]["median"] == pytest.approx(np.median(values), rel=0.1)
    assert found["ici"]["if_perfect"]["high"] == pytest.approx(np.quantile(values, 0.95), rel=0.12)
    assert found["ici"]["ci_low"] is None and found["ici"]["reason"]


def test_cells_stand_for_many_scans(monkeypatch):
    p = beta.rvs(0.8, 0.9, size=4000, random_state=1)
    curve = Curve(np.random.default_rng(0).random(4000) < p, p)
    whole = calibration_curve.if_perfect(curve, p, 0)
    monkeypatch.setattr(calibration_curve, "CELLS", 400)
    for name, entry in calibration_curve.if_perfect(curve, p, 0).items():
        assert entry == pytest.approx(whole[name], rel=0.08)


@pytest.mark.parametrize("y, p, reason", [
    ([1] * 12, np.linspace(0.1, 0.9, 12), "both classes"), ([0, 1] * 10, [0.5] * 20, "no finite solution"),
    ([0] * 10 + [1] * 10, [0.1] * 10 + [0.9] * 10, "no finite solution"),
    ([0] * 20 + [1] * 4, np.linspace(0.1, 0.9, 24), "fewer than 5 scans of a class")])
def test_where_there_is_no_curve_the_reason_is_said(y, p, reason):
    found = calibration_curve.measure(np.array(y), np.array(p), None, 0)
    assert found["curve"] == [] and found["bins"]
    for name in calibration_curve.INDICES:
        assert found[name]["value"] is None and reason in found[name]["reason"]
        assert calibration_curve.error_text(found[name]).startswith("none: ")


def test_a_curve_that_one_patient_decides_is_none():
    y, p, patient = np.tile([0, 1], 11), np.repeat([0.5, 0.9], [20, 2]), np.append(np.arange(21), 20)
    found = calibration_curve.measure(y, p, patient, 0)
    assert "one patient alone" in found["ici"]["reason"] and found["curve"] == []


def test_few_different_probabilities_have_a_straight_line():
    y, p = np.array([0, 0, 1, 0, 1, 1] * 6), np.array([0.2, 0.2, 0.2, 0.7, 0.7, 0.7] * 6)
    found = calibration_curve.measure(y, p, None, 0)
    assert found["knots"] == 2 and len(found["bins"]) == 2
    ends = [found["curve"][0]["share_positive"], found["curve"][-1]["share_positive"]]
    assert ends == pytest.approx([1 / 3, 2 / 3])
    assert found["ici"]["value"] == pytest.approx((1 / 3 - 0.2 + 0.7 - 2 / 3) / 2)


def test_bins_hold_equally_many_scans_and_ties_stay_together():
    y, p, patient = simulated(2, 150, most=2)
    bins = calibration_curve.equal_bins(y, p, patient)
    assert sum(each["n"] for each in bins) == len(y) and sum(each["n_positive"] for each in bins) == y.sum()
    assert max(each["n"] for each in bins) - min(each["n"] for each in bins) <= 1 and len(bins) == min(10, len(y) // 20)
    tied = calibration_curve.equal_bins(y, p.round(1))
    assert all(before["high"] < after["low"] for before, after in zip(tied, tied[1:], strict=False))
    assert len(calibration_curve.equal_bins(y[:30], p[:30])) == 3


# ---------------------------------------------------------------- likelihood ratios, predictive values

def counts(tp, fp, fn, tn):
    """y, predicted."""
    return np.repeat([1, 0, 1, 0], [tp, fp, fn, tn]), np.repeat([True, True, False, False], [tp, fp, fn, tn])


def test_likelihood_ratios_of_epir():
    """epiR's manual, epi.tests, example 1 (Scott et al. 2008, table 1): 3.75 (3.32 to 4.24)."""
    entry = predictive_values.likelihood_ratios(*counts(670, 202, 74, 640))["lr_positive"]
    assert [entry[key] for key in ("value", "ci_low", "ci_high")] == pytest.approx([3.75, 3.32, 4.24], abs=5e-3)


@pytest.mark.parametrize("prevalence", (0.03, 0.5))
def test_predictive_values_by_mercaldos_formulas(prevalence):
    """Of the e4 allele in Alzheimer's disease: Mercaldo 2007, table VIII; their equations of logit(PPV), logit(NPV)."""
    se, sp, n1, n0 = 240 / 418, 288 / 375, 418, 375
    found = predictive_values.at_prevalence(predictive_values.likelihood_ratios(*counts(240, 87, 178, 288)), prevalence)
    ppv = se * prevalence / (se * prevalence + (1 - sp) * (1 - prevalence))
    npv = sp * (1 - prevalence) / ((1 - se) * prevalence + sp * (1 - prevalence))
    errors = {"ppv": np.sqrt((1 - se) / se / n1 + sp / (1 - sp) / n0),
              "npv": np.sqrt(se / (1 - se) / n1 + (1 - sp) / sp / n0)}
    for name, value in (("ppv", ppv), ("npv", npv)):
        low, high = expit(logit(value) + np.array((-1, 1)) * norm.ppf(0.975) * errors[name])
        entry = found[name]
        assert [entry[key] for key in ("value", "ci_low", "ci_high")] == pytest.approx([value, low, high])


def test_predictive_values_at_the_prevalence_of_the_sample_are_the_samples():
    y, p, _ = simulated(4, 200)
    found = predictive_values.at_prevalence(predictive_values.likelihood_ratios(y, p >= 0.5), y.mean())
    assert found["ppv"]["value"] == pytest.approx(y[p >= 0.5].mean())
    assert found["npv"]["value"] == pytest.approx(1 - y[p < 0.5].mean())


def test_scans_copied_within_a_patient_add_no_certainty_to_a_ratio():
    y, p, _ = simulated(4, 200)
    once = predictive_values.likelihood_ratios(y, p >= 0.5)
    twice = predictive_values.likelihood_ratios(np.tile(y, 2), np.tile(p >= 0.5, 2), np.tile(np.arange(len(y)), 2))
    for name, entry in once.items():
        assert [twice[name][key] for key in ("value", "ci_low", "ci_high")] == pytest.approx(
            [entry[key] for key in ("value", "ci_low", "ci_high")], rel=2e-3)
        assert twice[name]["ci_method"].endswith("by patient")


@settings(max_examples=30)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=4))
def test_ratios_of_any_counts_are_inside_of_their_limits_and_mirror_each_other(cells):
    tp, fp, fn, tn = cells
    y, predicted = counts(tp, fp, fn, tn)
    if not len(y):
        return
    found = predictive_values.likelihood_ratios(y, predicted)
    mirrored = predictive_values.likelihood_ratios(1 - y, ~predicted)  # LR+ and 1 / LR- change places
    for name, other in (("lr_positive", "lr_negative"), ("lr_negative", "lr_positive")):
        entry, across = found[name], mirrored[other]
        if entry["value"] is None:
            assert entry["reason"] and (across["value"] in (None, 0))
            continue
        assert 0 <= entry["ci_low"] <= entry["value"] <= entry["ci_high"] < np.inf
        if entry["value"] and across["value"]:
            assert across["value"] == pytest.approx(1 / entry["value"])
            assert across["ci_low"] == pytest.approx(1 / entry["ci_high"])
    values = predictive_values.at_prevalence(found, 0.2)
    for entry in (values["ppv"], values["npv"]):
        assert entry["value"] is None or 0 <= entry["ci_low"] <= entry["value"] <= entry["ci_high"] <= 1


def test_an_infinite_ratio_has_a_lower_limit_and_a_predictive_value():
    y, predicted = counts(8, 0, 2, 20)
    found = predictive_values.likelihood_ratios(y, predicted)
    share, other = 0.8, Z**2 / 2 / (20 + Z**2)
    error = np.sqrt((1 - share) / share / 10 + (1 - other) / other / (20 + Z**2))
    low = share / other * np.exp(-Z * error)
    assert found["lr_positive"]["value"] is None and found["lr_positive"]["ci_low"] == pytest.approx(low)
    assert "infinite, above" in found["lr_positive"]["reason"]
    ppv = predictive_values.at_prevalence(found, 0.3)["ppv"]
    assert (ppv["value"], ppv["ci_high"]) == (1, 1) and ppv["ci_low"] == pytest.approx(expit(logit(0.3) + np.log(low)))
    assert effective_trials(predicted[y == 0], np.arange(20)) == 20


@pytest.mark.parametrize("sensitivity, specificity", [(0.97, 0.9), (0.97, 0.98), (0.8, 0.98)])
@pytest.mark.parametrize("n1, n0", [(50, 50), (30, 70), (15, 85)])
def test_ratios_hold_the_truth_where_counts_are_often_0(sensitivity, specificity, n1, n0):
    """Exactly, over all counts; without Mercaldo's adjustment of both shares, which gives 0.74 to 0.97."""
    hits, misses = (binom.pmf(np.arange(n + 1), n, share) for n, share in ((n1, sensitivity), (n0, 1 - specificity)))
    held, whole = {"lr_positive": 0.0, "lr_negative": 0.0}, {"lr_positive": 0.0, "lr_negative": 0.0}
    truth = {"lr_positive": sensitivity / (1 - specificity), "lr_negative": (1 - sensitivity) / specificity}
    for tp, fp in zip(*np.nonzero(np.outer(hits, misses) > 1e-5), strict=True):
        found = predictive_values.likelihood_ratios(*counts(tp, fp, n1 - tp, n0 - fp))
        for name, entry in found.items():
            if entry["ci_low"] is not None:
                inside = entry["ci_low"] <= truth[name] <= (np.inf if entry["ci_high"] is None else entry["ci_high"])
                held[name] += inside * hits[tp] * misses[fp]
                whole[name] += hits[tp] * misses[fp]
    for name in truth:
        assert 0.925 < held[name] / whole[name] < 0.98, (name, held[name] / whole[name])


@pytest.mark.parametrize("cells, reason", [((5, 0, 5, 0), "both classes"), ((0, 0, 5, 5), "predicted positive")])
def test_where_there_is_no_ratio_the_reason_is_said(cells, reason):
    found = predictive_values.likelihood_ratios(*counts(*cells))
    assert found["lr_positive"]["value"] is None and reason in found["lr_positive"]["reason"]
    ppv = predictive_values.at_prevalence(found, 0.1)["ppv"]
    assert ppv["value"] is None and reason in ppv["reason"]


# ---------------------------------------------------------------- decision curve

def test_net_benefit_of_dcurves():
    """Tests of the R package dcurves: cancerpredmarker of df_binary (750, 105 with cancer) has 0.064 at 0.25, treating
    all -0.1466667; at or above 0.25 are 72 with and 72 without cancer."""
    y = np.repeat([1, 0, 1, 0], [72, 72, 33, 573])
    p = np.repeat([0.4, 0.1], [144, 606])
    (point,) = decision_curve.measure(y, p, np.array([0.25]), None, 50, 0)
    assert (point["net_benefit"]["value"], point["all"]) == pytest.approx((0.064, -0.1466667), abs=1e-7)


def test_interval_of_net_benefit_is_about_that_of_a_mean():
    y, p, _ = simulated(7, 400)
    at = np.array([0.2, 0.5])
    for point, threshold in zip(decision_curve.measure(y, p, at, None, 2000, 0), at, strict=True):
        each = (p >= threshold) * np.where(y == 1, 1, -threshold / (1 - threshold))
        error = each.std(ddof=1) / 20
        entry = point["net_benefit"]
        assert [entry["ci_low"], entry["ci_high"]] == pytest.approx(
            [each.mean() - Z * error, each.mean() + Z * error], abs=0.2 * error)
        assert entry["ci_method"] == "bootstrap by scan, BCa"


@settings(max_examples=10)
@given(SEEDS)
def test_net_benefit_does_not_depend_on_the_order_of_scans(seed):
    y, p, patient = simulated(seed % 50, 40, most=3)
    order, at = np.random.default_rng(seed).permutation(len(y)), np.array([0.1, 0.5, 0.9])
    for one, other in zip(*(decision_curve.measure(y[k], p[k], at, patient[k], 200, 0) for k in (range(len(y)), order)),
                          strict=True):
        for key in ("value", "ci_low", "ci_high"):
            assert other["net_benefit"][key] == pytest.approx(one["net_benefit"][key], abs=1e-9)


def test_without_anyone_called_there_is_no_interval():
    (point,) = decision_curve.measure(np.array([0, 1] * 5), np.full(10, 0.2), np.array([0.5]), None, 100, 0)
    assert point["net_benefit"]["value"] == 0 and point["net_benefit"]["ci_low"] is None
    assert calibration.net_benefit(np.array([0, 1] * 5), np.full(10, 0.2), np.array([0.5]))[0] == 0


@pytest.mark.parametrize("limits, count, first, last", [((0.01, 0.99), 99, 0.01, 0.99), ((0.1, 0.155), 7, 0.1, 0.155)])
def test_thresholds_of_a_range(limits, count, first, last):
    found = decision_curve.thresholds_of(*limits)
    assert (len(found), found[0], found[-1]) == (count, first, last) and (np.diff(found) > 0).all()
    with pytest.raises(InputError, match="0 < LOW < HIGH < 1"):
        decision_curve.thresholds_of(*limits[::-1])


@pytest.mark.parametrize("limits, shown", [((0.01, 0.99), "0.2 0.4 0.6 0.8"), ((0.1, 0.5), "0.1 0.2 0.3 0.4 0.5"),
                                           ((0.1, 0.13), "0.1 0.11 0.12 0.13"), ((0.301, 0.309), "0.301 0.309")])
def test_the_table_shows_a_few_round_thresholds(limits, shown):
    y, p, _ = simulated(1, 60)
    points = decision_curve.measure(y, p, decision_curve.thresholds_of(*limits), None, 20, 0)
    head, rows = decision_curve.table({"LARS-avg": points})
    assert " ".join(row[0] for row in rows) == shown and len(head) == len(rows[0]) == 3


# ---------------------------------------------------------------- aggregate.py

@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("use")
    write(folder, *splits(3, n_val=60, n_test=90))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.figures.score_figures", lambda *arguments: {})
        call(aggregate, "--dir", folder, "--output", folder / "out", "--resamples", 200, "--recalibrate", "platt",
             "--prevalence", 0.3, 0.1, "--decision_range", 0.1, 0.5)
    return folder / "out"


def test_metrics_json_holds_what_the_modules_give(out):
    metrics, table = json.loads((out / "metrics.json").read_text()), pd.read_csv(out / "ensemble_max.csv")
    y, p, block = table["target"].to_numpy(), table["ensemble_prob"].to_numpy(), metrics["max"]
    for name, entry in predictive_values.likelihood_ratios(y, p >= 0.5, table["patient_id"]).items():
        assert block[name] == pytest.approx(entry)
    assert [each["prevalence"] for each in block["at_prevalence"]] == [0.1, 0.3]
    youden = block["operating_points"]["sensitivity95"]
    assert youden["at_prevalence"][0] == predictive_values.at_prevalence(youden, 0.1)
    assert youden["lr_positive"]["value"] == pytest.approx(
        youden["sensitivity"]["value"] / (1 - youden["specificity"]["value"]))
    points = {point["threshold"]: point["net_benefit"] for point in block["decision_curve"]}
    assert len(points) == 41
    assert points[0.3]["value"] == pytest.approx(calibration.net_benefit(y, p, np.array([0.3]))[0])
    for state in (block, block["before_recalibration"]):
        assert state["calibration_curve"]["ici"]["if_perfect"]["median"] > 0
    assert len(block["calibration_curve"]["curve"]) == calibration_curve.POINTS
    again = calibration_curve.measure(y, p, table["patient_id"].to_numpy(), 0)
    assert again["e90"]["value"] == pytest.approx(block["calibration_curve"]["e90"]["value"])


def test_page_and_terminal_show_them(out, capsys):
    words = " ".join(Page((out / "report.html").read_text()).words)
    for text in ("Positive likelihood ratio", "NPV where 30 % have Deauville 4–5", "ICI (mean error)",
                 "(if perfect 0.", "Net benefit", "All positive", "restricted cubic spline"):
        assert text in words, text
    outputs.print_metrics(json.loads((out / "metrics.json").read_text()))
    printed = capsys.readouterr().out
    assert "calibration: ICI 0." in printed and "at 0.5, where 10 % have Deauville 4–5: PPV 0." in printed


@pytest.mark.parametrize("option, message", [(("--prevalence", "1"), "not between 0 and 1"),
                                             (("--decision_range", "0.5", "0.2"), "0 < LOW < HIGH < 1")])
def test_impossible_ranges_are_refused(tmp_path, option, message):
    write(tmp_path, splits(1)[0])
    with pytest.raises((InputError, SystemExit)) as refused:
        call(aggregate, "--dir", tmp_path, "--output", tmp_path / "out", *option)
    assert isinstance(refused.value, SystemExit) or message in str(refused.value)


# ---------------------------------------------------------------- coverage

@pytest.mark.slow
@pytest.mark.parametrize("most", (1, 3))
def test_intervals_hold_the_truth(most):
    """Of 200 studies; four standard errors of a share of 0.95 are 0.06."""
    for name, share in coverage(200, most).items():
        assert 0.89 <= share <= 1, (name, share)
