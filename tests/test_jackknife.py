"""Every metric without each patient in turn, and of condensed scans, against the same from the scans themselves."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from evaluation import bootstrap, calibration, jackknife, site_metrics
from evaluation.weighted import NODES, Condensed, Ranked, Weighted


def study(n, seed, patients=None, decimals=8):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.35
    p = expit(1.5 * rng.normal(1.5 * y - 0.75)).round(decimals)
    return y.astype(int), p, None if patients is None else rng.integers(patients, size=n)


def both(y, p, groups):
    """The jackknife in closed form, and by measuring the scans without each patient."""
    closed = bootstrap.resample(y, p, [0.3, 0.5], groups, 1, 0)["jackknife"]
    index, count = bootstrap.group_index(groups, len(y))
    scans = Weighted(y, p, [0.3, 0.5]).measure((np.arange(count)[:, None] != index).astype(np.uint8))
    assert set(closed) == set(scans)
    return {name: (values, scans[name]) for name, values in closed.items()}


@settings(max_examples=100)
@given(st.data())
def test_jackknife_equals_leaving_patients_out(data):
    n = data.draw(st.integers(2, 30))
    y, rank, groups = (np.array(data.draw(st.lists(st.integers(0, most), min_size=n, max_size=n)))
                       for most in (1, 10, 6))
    for name, (closed, scans) in both(y, rank / 10, groups).items():
        if name in ("calibration_slope", "calibration_intercept"):  # nearly separated: both may end elsewhere
            known = np.isfinite(closed) & np.isfinite(scans) & (np.abs(scans) < 10)
            closed, scans = closed[known], scans[known]
        exact = name == "auc" or isinstance(name, tuple)
        np.testing.assert_allclose(closed, scans, rtol=0 if exact else 1e-9, atol=0 if exact else 1e-12, err_msg=name)


@pytest.mark.parametrize("n, patients, decimals", [(60, None, 8), (289, 120, 1), (1500, 600, 8), (3000, None, 2)])
def test_jackknife_equals_leaving_patients_out_in_larger_studies(n, patients, decimals):
    for name, (closed, scans) in both(*study(n, 1, patients, decimals)).items():
        np.testing.assert_allclose(closed, scans, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("multi", [False, True])
def test_jackknife_of_site_metrics_equals_leaving_patients_out(multi):
    rng = np.random.default_rng(0)
    truth = np.eye(4, dtype=bool)[rng.integers(3, size=50)]  # the fourth site has no scan
    if multi:
        truth |= rng.random(truth.shape) < 0.2
    scores, index = rng.random(truth.shape).round(1), rng.integers(20, size=50)
    index, count = bootstrap.group_index(index, 50)
    closed = site_metrics.without_each(truth, scores, multi, index, count)
    for patient in range(count):
        kept = index != patient
        for name, value in site_metrics.weighted_metrics(truth[kept], scores[kept], multi=multi).items():
            assert closed[name][patient] == pytest.approx(value[0], abs=1e-12)


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
    for of in (0, 1):
        part = points.y == of
        assert points.total[part].sum() == pytest.approx((y == of).sum())
        assert points.total[part] @ points.x[part] == pytest.approx(x[y[order] == of].sum())


def test_draws_are_those_of_one_call_of_the_generator():
    times = np.stack([np.bincount(row, minlength=7) for row in np.random.default_rng(5).integers(7, size=(30, 7))])
    assert (bootstrap.draws(7, 30, 5) == times).all()


@pytest.mark.parametrize("n", [20, 1000])
def test_perfectly_separated_scores_have_the_intercept_of_each_patient_left_out(n):
    y = np.arange(n) >= 0.7 * n
    scores, weights = Weighted(y, np.linspace(0.05, 0.95, n), [0.5]), (1 - np.eye(n)).astype(np.uint8)
    found, plain = jackknife.without_each(scores, np.arange(n), n), scores.measure(weights)
    times = weights[:, scores.ranked.order].astype(float)
    for each in (found, plain):
        np.testing.assert_allclose(each["calibration_intercept"],
                                   calibration.fit_intercept(scores.x, scores.y, times), atol=1e-12)
        assert np.isnan(each["calibration_slope"]).all()
    assert scores.condensed.whole == (n < 500)


def test_jackknife_of_100000_scans_takes_seconds():
    y, p, groups = study(100_000, 6, 60_000)
    index, count = bootstrap.group_index(groups, len(y))
    scores = Weighted(y, p, [0.5])
    found = jackknife.without_each(scores, index, count)
    for patient in range(0, count, 20_000):
        kept = index != patient
        alone = Weighted(y[kept], p[kept], [0.5]).measure(np.ones((1, kept.sum()), dtype=np.uint8))
        for name, (value,) in alone.items():
            assert found[name][patient] == pytest.approx(value, abs=1e-12), name
