"""Metrics of weighted and of condensed scans, and without each patient, against the same from the scans themselves."""
import numpy as np
import pytest
from scipy.special import expit

from evaluation import bootstrap, calibration, decision_curve, site_metrics
from evaluation.weighted import NODES, Condensed, Ranked, Weighted


def study(n, seed, patients=None, decimals=8):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.35
    p = expit(1.5 * rng.normal(1.5 * y - 0.75)).round(decimals)
    return y.astype(int), p, None if patients is None else rng.integers(patients, size=n)


@pytest.mark.parametrize("most", [2000, 12])
def test_jackknife_leaves_out_patients_or_parts_of_them(most, monkeypatch):
    monkeypatch.setattr(bootstrap, "MOST_LEFT_OUT", most)
    y, p, groups = study(80, 1, 30, 1)
    index, count = bootstrap.group_index(groups, 80)
    found = bootstrap.resample(y, p, [0.5], groups, 1, 0)["jackknife"]
    assert {len(values) for values in found.values()} == {min(count, most)}
    for part in range(min(count, most)):
        kept = index % most != part
        for name, (value,) in Weighted(y[kept], p[kept], [0.5]).measure(np.ones((1, kept.sum()), np.uint8)).items():
            assert found[name][part] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("multi", [False, True])
def test_weights_of_site_metrics_leave_scans_out(multi):
    rng = np.random.default_rng(0)
    truth = np.eye(4, dtype=bool)[rng.integers(3, size=50)]  # the fourth site has no scan
    if multi:
        truth |= rng.random(truth.shape) < 0.2
    scores, every = rng.random(truth.shape).round(1), rng.random((20, 50)) < 0.8
    found = site_metrics.weighted_metrics(truth, scores, every.astype(np.uint8), multi)
    for k, kept in enumerate(every):
        for name, value in site_metrics.weighted_metrics(truth[kept], scores[kept], multi=multi).items():
            assert found[name][k] == pytest.approx(value[0], abs=1e-12)


@pytest.mark.parametrize("noise", [False, True])
def test_fits_of_condensed_scans_equal_those_of_the_scans(noise):
    y, p, _ = study(5000, 2)
    y = np.random.default_rng(0).permutation(y) if noise else y
    scores, weights = Weighted(y, p, []), next(bootstrap.resample_weights(None, 5000, 40, 0))
    assert not scores.condensed.whole and len(scores.condensed.x) < 5000 / 4
    found, times = scores.measure(weights), weights[:, scores.ranked.order].astype(float)
    _, slope = calibration.fit_logistic(scores.x, scores.y, times)
    assert (np.abs(slope) < scores.condensed.steepest).all()
    np.testing.assert_allclose(found["calibration_slope"], slope, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found["calibration_intercept"], calibration.fit_intercept(scores.x, scores.y, times),
                               atol=1e-12)


def test_resamples_far_steeper_than_the_sample_are_fitted_on_the_scans():
    y, p, _ = study(3000, 3)
    scores = Weighted(y, p, [])
    weights = np.zeros((1, 3000), dtype=np.uint8)
    confident = np.flatnonzero((y == 1) & (p > 0.8) | (y == 0) & (p < 0.2))
    weights[0, [*confident, *np.flatnonzero((y == 1) & (p < 0.35))[:1], *np.flatnonzero((y == 0) & (p > 0.65))[:1]]] = 1
    (slope,) = scores.measure(weights)["calibration_slope"]
    assert slope > scores.condensed.steepest > 1.4 * scores.fit[1][0]
    assert slope == pytest.approx(calibration.slope(y[weights[0] > 0], p[weights[0] > 0]), rel=1e-12)


def test_condensing_keeps_weights_and_means():
    y, p, _ = study(4000, 4)
    order = Ranked(y, p).order
    x, points = calibration.clipped_logit(p[order]), Condensed(calibration.clipped_logit(p[order]), y[order], 1.0)
    assert len(points.x) % NODES == 0
    total = np.concatenate([basis.sum(axis=0) for _, basis in points.cells])  # what each weighs where every scan has 1
    for of in (0, 1):
        part = points.y == of
        assert total[part].sum() == pytest.approx((y == of).sum())
        assert total[part] @ points.x[part] == pytest.approx(x[y[order] == of].sum())


def test_draws_are_those_of_one_call_of_the_generator():
    times = np.stack([np.bincount(row, minlength=7) for row in np.random.default_rng(5).integers(7, size=(30, 7))])
    assert (bootstrap.draws(7, 30, 5) == times).all()


@pytest.mark.parametrize("n", [20, 1000])
def test_perfectly_separated_scores_have_the_intercept_of_each_patient_left_out(n):
    y, p = (np.arange(n) >= 0.7 * n).astype(int), np.linspace(0.05, 0.95, n)
    found = bootstrap.resample(y, p, [0.5], None, 1, 0)["jackknife"]
    assert np.isnan(found["calibration_slope"]).all()
    for k in range(0, n, n // 20):
        assert found["calibration_intercept"][k] == pytest.approx(
            calibration.intercept(np.delete(y, k), np.delete(p, k)), abs=1e-9)
    assert Weighted(y, p, []).condensed.whole == (n < 500)


def test_a_single_patient_is_measured_without_a_warning(recwarn):
    y, p, _ = study(20, 1)
    (point,) = decision_curve.measure(y, p, np.array([0.3]), np.zeros(20, int), 10, 0)
    assert point["net_benefit"]["ci_low"] is None and not recwarn.list
