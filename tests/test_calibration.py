"""Calibration and recalibration of probabilities: by hand, by other fits, by scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics as sk
from calibration_helpers import simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from common.files import InputError
from evaluation import bootstrap, calibration, metrics

# ---------------------------------------------------------------- calibration

def test_slope_and_intercept_equal_other_fits():
    y, p, _ = simulated(2, 400)
    x = logit(p)
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x[:, None], y)
    assert calibration.slope(y, p) == pytest.approx(fit.coef_[0, 0], abs=1e-5)
    offset = brentq(lambda a: (y - expit(a + x)).sum(), -9, 9, xtol=1e-13)
    assert calibration.intercept(y, p) == pytest.approx(offset, abs=1e-9)


@settings(max_examples=20)
@given(st.floats(0.3, 3), st.floats(-1.5, 1.5))
def test_slope_and_intercept_undo_a_distortion(factor, shift):
    p = np.repeat(np.arange(1, 20) / 20, 20)
    y = np.concatenate([np.arange(20) < k for k in range(1, 20)])  # calibrated exactly
    assert calibration.slope(y, expit(factor * logit(p) + shift)) == pytest.approx(1 / factor, rel=1e-6)
    assert calibration.intercept(y, expit(logit(p) + shift)) == pytest.approx(-shift, abs=1e-6)


def test_doubled_logit_of_two_outputs_is_found():
    """Two logits of binary cross-entropy, read through a softmax: a true 0.80 reads 0.94, and the slope is a half."""
    assert expit(2 * logit(0.8)) == pytest.approx(0.94, abs=0.002)
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 4000)
    y = (rng.random(4000) < p).astype(int)
    doubled = expit(2 * logit(p))
    assert calibration.slope(y, doubled) == pytest.approx(0.5, abs=0.03)
    fit = calibration.fit_recalibration("platt", y, doubled)
    assert fit["b"] == pytest.approx(0.5, abs=0.03)
    corrected = calibration.recalibrate(fit, doubled)
    assert calibration.expected_calibration_error(y, corrected) < calibration.expected_calibration_error(y, doubled) / 2
    np.testing.assert_allclose(corrected, p, atol=0.03)


def test_resampled_slopes_equal_the_fits_on_repeated_rows():
    y, p, groups = simulated(3, 60, 30)
    drawn = bootstrap.resample(y, p, [0.5], groups, 6, seed=1)["resamples"]
    for k, times in enumerate(np.concatenate(list(bootstrap.resample_weights(groups, 60, 6, 1))).astype(int)):
        yy, pp = np.repeat(y, times), np.repeat(p, times)
        assert drawn["calibration_slope"][k] == pytest.approx(calibration.slope(yy, pp), abs=1e-7)
        assert drawn["calibration_intercept"][k] == pytest.approx(calibration.intercept(yy, pp), abs=1e-7)


def test_expected_calibration_error_by_hand():
    # bins: 0.0-0.1 {0.05: 0}, 0.6-0.7 {0.62: 1, 0.66: 0}, 0.9-1 {1.0: 1}: |0.05|/4 + |1.28 - 1|/4 + 0
    assert calibration.expected_calibration_error([0, 1, 0, 1], [0.05, 0.62, 0.66, 1.0]) == pytest.approx(0.0825)
    bins = metrics.reliability_bins([0, 1, 0, 1], [0.05, 0.62, 0.66, 1.0])
    assert [(each["n"], each["share_positive"]) for each in bins] == [(1, 0), (2, 0.5), (1, 1)]


def test_platt_equals_the_maximum_of_its_likelihood():
    y, p, _ = simulated(4, 80)
    fit = calibration.fit_recalibration("platt", y, p)
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    residual = target - expit(fit["a"] + fit["b"] * logit(p))
    assert residual.sum() == pytest.approx(0, abs=1e-7) and (residual * logit(p)).sum() == pytest.approx(0, abs=1e-6)
    apart = calibration.fit_recalibration("platt", [0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert np.isfinite([apart["a"], apart["b"]]).all()


def test_isotonic_by_hand_and_monotone():
    fit = calibration.fit_recalibration("isotonic", [0, 1, 0, 1], [0.1, 0.3, 0.5, 0.9])  # 0.3 and 0.5 are pooled
    np.testing.assert_allclose(calibration.recalibrate(fit, [0.0, 0.1, 0.3, 0.4, 0.5, 0.9, 1.0]),
                               [1 / 6, 1 / 6, 0.5, 0.5, 0.5, 5 / 6, 5 / 6])  # 4 scans: within 1 / 6 and 5 / 6
    found = calibration.recalibrate(fit, [0.1, 0.3, 0.95])
    np.testing.assert_array_equal(calibration.at_bounds(fit, found), [-1, 0, 1])


def test_logistic_and_temperature_equal_scikit_learn():
    y, p, _ = simulated(4, 80)
    x = logit(p)[:, None]
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, y)
    found = calibration.fit_recalibration("logistic", y, p)
    assert (found["a"], found["b"]) == pytest.approx((fit.intercept_[0], fit.coef_[0, 0]), abs=1e-5)
    assert calibration.slope(y, calibration.recalibrate(found, p)) == pytest.approx(1)
    assert calibration.intercept(y, calibration.recalibrate(found, p)) == pytest.approx(0, abs=1e-7)
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, y)
    found = calibration.fit_recalibration("temperature", y, p)
    assert found["b"] == pytest.approx(fit.coef_[0, 0], abs=1e-5) and found["a"] == 0
    temperature = minimize_scalar(lambda t: sk.log_loss(y, expit(logit(p) / t)), bounds=(0.01, 50), method="bounded",
                                  options={"xatol": 1e-9}).x  # as Guo 2017 defines it
    assert 1 / found["b"] == pytest.approx(temperature, abs=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 999), st.sampled_from(["platt", "logistic", "temperature", "isotonic"]))
def test_recalibration_keeps_the_order_and_does_not_depend_on_that_of_the_rows(seed, method):
    y, p, _ = simulated(seed, 60)
    fit, order, grid = calibration.fit_recalibration(method, y, p), np.random.default_rng(seed).permutation(60), (
        np.linspace(0, 1, 101))
    found = calibration.recalibrate(fit, grid)
    assert (np.diff(found) >= 0).all() and 0 <= found.min() <= found.max() <= 1
    assert found.min() >= 1 / 62 and found.max() <= 61 / 62 or method != "isotonic"
    again = calibration.fit_recalibration(method, y[order], p[order])
    np.testing.assert_allclose(calibration.recalibrate(again, grid), found, atol=1e-9)


@pytest.mark.parametrize("method", ["logistic", "temperature"])
@pytest.mark.parametrize("y, p", [([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]), ([0, 1, 1], [0.5] * 3)])
def test_classes_apart_have_no_unpenalised_fit(method, y, p):
    with pytest.raises(InputError, match=f"{method}: no finite fit on {len(y)} scans of m.csv: .*; use platt"):
        calibration.fit_recalibration(method, y, p, "m.csv")
    with pytest.raises(InputError, match="no finite fit"):
        calibration.fit_recalibration("temperature", [1, 1, 0, 0], [0.1, 0.6, 0.7, 0.8])  # the wrong way round


@pytest.mark.parametrize("method", ["platt", "isotonic", "logistic", "temperature"])
def test_recalibration_needs_both_classes(method):
    with pytest.raises(InputError, match="one class"):
        calibration.fit_recalibration(method, [1, 1], [0.2, 0.9])


def test_platt_refuses_equal_probabilities():
    with pytest.raises(InputError, match="no finite fit"):
        calibration.fit_recalibration("platt", [0, 1, 1], [0.5] * 3)


def test_net_benefit_by_hand():
    # at 0.5: tp 2, fp 1 of 5 -> (2 - 1) / 5; at 0.2: tp 3, fp 1 -> (3 - 0.25) / 5; at 0.75: tp 1, fp 0
    y, p = [1, 1, 1, 0, 0], [0.9, 0.6, 0.3, 0.7, 0.1]
    np.testing.assert_allclose(calibration.net_benefit(y, p, [0.5, 0.2, 0.75]), [0.2, 0.55, 0.2])
