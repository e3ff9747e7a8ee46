"""The statistics against published values, other libraries, independent formulas, and by their properties."""
import math

import numpy as np
import pytest
import sklearn.metrics as sk
from calibration_helpers import simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_helpers import binormal, share_inside
from scipy.special import expit
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import chi2, norm

from common.files import InputError
from evaluation import bootstrap, metrics, paired_tests

# DeLong ER et al. Biometrics 1988;44:837-45, the ovarian cancer data as SAS prints them in its documentation of PROC
# LOGISTIC, example "Comparing Receiver Operating Characteristic Curves": albumin, total protein, K-G score, outcome.
OVARIAN = np.array("""
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1 3.8 5.7 5 1 3.7 6.7 6 1
3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1
3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1
3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1
3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1""".split(), dtype=float).reshape(-1, 4)
ALBUMIN, PROTEIN, KG, POP = OVARIAN[:, 0], OVARIAN[:, 1], 10 - OVARIAN[:, 2], OVARIAN[:, 3].astype(int)


@st.composite
def studies(draw, most=14):
    """(y_true, probabilities with ties, groups), both classes there."""
    y = [1, 0] + draw(st.lists(st.integers(0, 1), min_size=2, max_size=most))
    p = draw(st.lists(st.integers(0, 20), min_size=len(y), max_size=len(y)))
    groups = draw(st.lists(st.integers(0, 5), min_size=len(y), max_size=len(y)))
    return np.array(y), np.array(p) / 20, np.array(groups)


# ---------------------------------------------------------------- DeLong, Obuchowski

@pytest.mark.parametrize("score, auc, error", [(ALBUMIN, 0.7366, 0.0927), (PROTEIN, 0.6478, 0.1000),
                                               (KG, 0.7258, 0.1028)])
def test_delong_of_the_papers_data(score, auc, error):
    value, variance = metrics.delong(POP, score)
    assert value == pytest.approx(auc, abs=5e-5) and math.sqrt(variance) == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize("score, difference, error, low, high, statistic, p", [
    (ALBUMIN, 0.0108, 0.0953, -0.1761, 0.1976, 0.0127, 0.9102),
    (PROTEIN, -0.0780, 0.1046, -0.2830, 0.1271, 0.5554, 0.4561)])
def test_delong_test_of_the_papers_data(score, difference, error, low, high, statistic, p):
    result = paired_tests.delong_test(POP, score, KG)
    shown = [result[key] for key in ("difference", "se", "ci_low", "ci_high")] + [result["z"] ** 2, result["p"]]
    assert shown == pytest.approx([difference, error, low, high, statistic, p], abs=6e-5)
    assert result["p"] == pytest.approx(chi2.sf(statistic, 1), abs=2e-3)


def obuchowski(y, score, groups):
    """The variance as the paper writes it: sums over clusters of the kernel of every pair."""
    kernel = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in score[y == 0]] for a in score[y == 1]])
    v10, v01, auc = kernel.mean(axis=1), kernel.mean(axis=0), kernel.mean()
    g1, g0, names = groups[y == 1], groups[y == 0], sorted(set(groups))
    x = [v10[g1 == g].sum() - (g1 == g).sum() * auc for g in names]
    z = [v01[g0 == g].sum() - (g0 == g).sum() * auc for g in names]
    m, n, i10, i01, i = len(v10), len(v01), len(set(g1)), len(set(g0)), len(names)
    s10 = i10 / ((i10 - 1) * m) * sum(a * a for a in x)
    s01 = i01 / ((i01 - 1) * n) * sum(a * a for a in z)
    s11 = i / (i - 1) * sum(a * b for a, b in zip(x, z, strict=True))
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@given(studies())
def test_clustered_variance_equals_obuchowskis_formula(study):
    y, p, groups = study
    variance = metrics.delong(y, p, groups)[1]
    if min(len(set(groups[y == 1])), len(set(groups[y == 0]))) < 2:
        assert math.isnan(variance)
    else:
        assert variance == pytest.approx(obuchowski(y, p, groups), abs=1e-12)
    assert metrics.delong(y, p, np.arange(len(y))) == pytest.approx(metrics.delong(y, p), nan_ok=True)


def test_scans_copied_within_a_patient_add_no_certainty():
    y, p, _ = simulated()
    once = metrics.auc_interval(y, p)
    twice = metrics.auc_interval(np.tile(y, 2), np.tile(p, 2), groups=np.tile(np.arange(len(y)), 2))
    assert twice[:3] == pytest.approx(once[:3], abs=2e-3) and "Obuchowski" in twice[3]
    wrong = metrics.auc_interval(np.tile(y, 2), np.tile(p, 2))
    assert wrong[2] - wrong[1] < 0.75 * (once[2] - once[1])
    hits = p >= 0.5
    assert metrics.effective_trials(np.tile(hits, 2), np.tile(np.arange(len(y)), 2)) == pytest.approx(len(y), rel=0.01)


# ---------------------------------------------------------------- everything at once

def test_values_equal_sklearn():
    y, p, groups = simulated()
    result, predicted = metrics.all_metrics(y, p, 0.4, groups=groups, resamples=50), p >= 0.4
    expected = {
        "auc": sk.roc_auc_score(y, p), "average_precision": sk.average_precision_score(y, p),
        "brier": sk.brier_score_loss(y, p), "log_loss": sk.log_loss(y, p), "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted), "sensitivity": sk.recall_score(y, predicted),
        "specificity": sk.recall_score(1 - y, ~predicted), "ppv": sk.precision_score(y, predicted),
        "npv": sk.precision_score(1 - y, ~predicted), "f1": sk.f1_score(y, predicted),
        "mcc": sk.matthews_corrcoef(y, predicted)}
    for name, value in expected.items():
        assert result[name]["value"] == pytest.approx(value, abs=1e-12), name
        assert result[name]["ci_low"] < value < result[name]["ci_high"], name
    assert set(expected) | {"calibration_slope", "calibration_intercept", "ece"} == {
        *metrics.OVERALL, *metrics.AT_THRESHOLD}


@settings(max_examples=25)
@given(studies())
def test_resampled_metrics_equal_sklearn_on_the_repeated_rows(study):
    y, p, groups = study
    drawn = bootstrap.resample(y, p, [0.3, 0.5], groups, 12, seed=3)["resamples"]
    weights = np.concatenate(list(bootstrap.resample_weights(groups, len(y), 12, 3))).astype(int)
    assert (weights.sum(axis=1) > 0).all()
    for k, times in enumerate(weights):
        yy, pp = np.repeat(y, times), np.repeat(p, times)
        assert drawn["brier"][k] == pytest.approx(((pp - yy) ** 2).mean())
        assert drawn["log_loss"][k] == pytest.approx(sk.log_loss(yy, pp, labels=[0, 1]))
        if len(set(yy)) == 2:
            assert drawn["auc"][k] == pytest.approx(sk.roc_auc_score(yy, pp), abs=1e-12)
            assert drawn["average_precision"][k] == pytest.approx(sk.average_precision_score(yy, pp), abs=1e-12)
        else:
            assert np.isnan(drawn["auc"][k])
        for t, threshold in enumerate((0.3, 0.5)):
            predicted = pp >= threshold
            assert drawn["accuracy", t][k] == pytest.approx((predicted == yy).mean())
            if len(set(yy)) == 2 and predicted.any() and not predicted.all():
                assert drawn["mcc", t][k] == pytest.approx(sk.matthews_corrcoef(yy, predicted), abs=1e-12)
                assert drawn["f1", t][k] == pytest.approx(sk.f1_score(yy, predicted))
                assert drawn["balanced_accuracy", t][k] == pytest.approx(sk.balanced_accuracy_score(yy, predicted))
                assert drawn["ppv", t][k] == pytest.approx(sk.precision_score(yy, predicted))


def test_a_patients_scans_are_drawn_together():
    groups = np.array(list("aabbbc"))
    weights = np.concatenate(list(bootstrap.resample_weights(groups, 6, 200, 0)))
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 5]].sum(axis=1) == 3).all() and weights[:, 5].mean() == pytest.approx(1, abs=0.15)


def test_blocks_do_not_change_the_draw(monkeypatch):
    y, p, groups = simulated(n=40)
    whole = bootstrap.resample(y, p, [0.5], groups, 30, 1)
    assert len(whole["jackknife"]["auc"]) == len(set(groups)) and len(whole["resamples"]["auc"]) == 30
    monkeypatch.setattr(bootstrap, "BLOCK", 100)
    again = bootstrap.resample(y, p, [0.5], groups, 30, 1)
    for part in ("observed", "jackknife", "resamples"):
        for name, values in again[part].items():
            np.testing.assert_allclose(values, whole[part][name], rtol=1e-9, atol=1e-12, err_msg=f"{part} {name}")


@pytest.mark.parametrize("name, statistic", [
    ("auc", sk.roc_auc_score), ("brier", sk.brier_score_loss), ("average_precision", sk.average_precision_score),
    (("mcc", 0), lambda y, p: sk.matthews_corrcoef(y, p >= 0.5))])
def test_bca_interval_equals_scipys(name, statistic):
    """SciPy draws other resamples, so the limits agree to their Monte Carlo error; a tenth of the width is allowed."""
    y, p, _ = simulated(6, 80)
    drawn = bootstrap.resample(y, p, [0.5], None, 4000, 1)
    entry = bootstrap.bca_interval(drawn, name)
    scipys = scipy_bootstrap((y, p), statistic, paired=True, vectorized=False, n_resamples=2000, method="BCa", rng=5)
    low, high = scipys.confidence_interval
    assert (entry["low"], entry["high"]) == pytest.approx((low, high), abs=0.1 * (high - low))
    for k in range(5):
        keep = np.arange(80) != k
        assert drawn["jackknife"][name][k] == pytest.approx(statistic(y[keep], p[keep]))


@given(studies(), st.randoms())
def test_evaluate_does_not_depend_on_the_order_of_rows(study, random):
    y, p, groups = study
    order = list(range(len(y)))
    random.shuffle(order)
    a, b = (metrics.all_metrics(y[k], p[k], groups=None, resamples=1) for k in (range(len(y)), order))
    for name in (*metrics.OVERALL, *metrics.AT_THRESHOLD):
        assert (a[name]["value"] is None) == (b[name]["value"] is None), name
        assert a[name]["value"] == pytest.approx(b[name]["value"], abs=1e-7), name


NEED_BOTH = ("auc", "average_precision", "balanced_accuracy", "calibration_intercept", "calibration_slope", "mcc")


@pytest.mark.parametrize("y, p, nothing", [
    ([1], [0.7], (*NEED_BOTH, "specificity", "npv")),
    ([1, 1, 1], [0.2, 0.6, 0.9], (*NEED_BOTH, "specificity")),
    ([0, 1, 0, 1], [0.5] * 4, ("calibration_slope", "npv", "mcc")),
    ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], ("calibration_slope",))])
def test_numbers_that_the_scans_cannot_give_are_null_with_a_reason(y, p, nothing):
    result = metrics.all_metrics(y, p, resamples=200)
    for name in (*metrics.OVERALL, *metrics.AT_THRESHOLD):
        entry = result[name]
        assert (entry["value"] is None) == (name in nothing), (name, entry)
        if entry["value"] is None or entry["ci_low"] is None:
            assert entry["reason"]
        else:
            assert entry["ci_low"] < entry["ci_high"], name


@pytest.mark.parametrize("p", [[0.1, float("nan")], [0.1, 1.2], [-0.1, 0.5]])
def test_evaluate_refuses_what_is_no_probability(p):
    with pytest.raises(InputError, match="y_score holds"):
        metrics.all_metrics([0, 1], p)


def test_all_right_has_no_bootstrap_interval_of_width_0():
    result = metrics.all_metrics([0] * 10 + [1] * 10, [0.1] * 10 + [0.9] * 10)
    assert result["accuracy"]["bootstrap"]["low"] is None and result["auc"]["bootstrap"]["reason"]
    assert result["accuracy"]["ci_low"] < 0.9 and result["mcc"]["ci_low"] is None


# ---------------------------------------------------------------- thresholds

def test_thresholds_by_hand():
    y = [0, 0, 0, 0, 1, 1, 1, 1]
    p = [0.1, 0.2, 0.3, 0.7, 0.25, 0.6, 0.8, 0.9]
    # Youden: at 0.6 sensitivity 3/4, specificity 3/4; at 0.8 1/2, 1; at 0.25: 1, 2/4. All 0.5: the highest threshold
    assert metrics.choose_thresholds(y, p) == {"youden": 0.8, "sensitivity95": 0.25, "specificity95": 0.8}


@given(studies())
def test_thresholds_reach_what_they_promise(study):
    y, p, _ = study
    chosen = metrics.choose_thresholds(y, p)
    predicted = {name: p >= value for name, value in chosen.items() if value is not None}
    assert predicted["sensitivity95"][y == 1].mean() >= 0.95
    if chosen["specificity95"] is None:
        assert (p[y == 0] == p.max()).mean() > 0.05  # not even the highest score alone
    else:
        assert (~predicted["specificity95"][y == 0]).mean() >= 0.95
    def youden(t):
        return (p >= t)[y == 1].mean() - (p >= t)[y == 0].mean()
    best = max([0.0] + [youden(t) for t in p])
    assert (0.0 if chosen["youden"] is None else youden(chosen["youden"])) == pytest.approx(best, abs=1e-9)


@given(studies())
def test_calls_at_derived_thresholds_do_not_change_with_a_monotone_map(study):
    y, p, _ = study
    mapped = p**3 / 2 + p / 4
    for name, value in metrics.choose_thresholds(y, p).items():
        other = metrics.choose_thresholds(y, mapped)[name]
        assert (value is None) == (other is None)
        if value is not None:
            np.testing.assert_array_equal(p >= value, mapped >= other)


# ---------------------------------------------------------------- paired tests
def paired(seed, n=100, same=False):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], n // 2)
    common = rng.normal(size=n) + 1.2 * y
    a, b = common + rng.normal(0, 0.6, n), common + rng.normal(0, 0.6 if same else 1.4, n)
    return y, a, b, rng.integers(0, n // 2, n)


@settings(max_examples=15)
@given(st.integers(0, 99), st.booleans())
def test_swapping_the_ensembles_mirrors_every_test(seed, same):
    y, a, b, groups = paired(seed, 40, same)
    for test in (paired_tests.delong_test, lambda *args: paired_tests.bootstrap_auc_difference(*args, resamples=200)):
        first, second = test(y, a, b, groups), test(y, b, a, groups)
        assert first["difference"] == pytest.approx(-second["difference"])
        assert first["p"] == pytest.approx(second["p"])
        assert (first["ci_low"], first["ci_high"]) == pytest.approx((-second["ci_high"], -second["ci_low"]))
    one, two = (paired_tests.mcnemar_exact(y, s > 0.5, t > 0.5) for s, t in ((a, b), (b, a)))
    assert one["p"] == two["p"] and one["only_a_right"] == two["only_b_right"]
    one, two = (paired_tests.net_reclassification(y, s > 0.5, t > 0.5) for s, t in ((a, b), (b, a)))
    assert one["nri"] == pytest.approx(-two["nri"]) and one["p"] == pytest.approx(two["p"])
    one, two = (paired_tests.bootstrap_prediction_differences(y, s > 0.5, t > 0.5, groups, 200)
                for s, t in ((a, b), (b, a)))
    assert one["accuracy"]["difference"] == -two["accuracy"]["difference"]
    assert one["nri"]["p"] == two["nri"]["p"]


@given(st.integers(0, 500), st.booleans())
@settings(max_examples=40)
def test_bootstrap_p_and_interval_never_contradict(seed, same):
    """The fault of the notebooks: p = 0.48 beside a 95 % interval without 0."""
    y, a, b, groups = paired(seed, 40, same)
    result = paired_tests.bootstrap_auc_difference(y, a, b, groups, 199)
    assert (result["p"] < 0.05) == (not result["ci_low"] <= 0 <= result["ci_high"])
    assert result["difference"] == pytest.approx(sk.roc_auc_score(y, a) - sk.roc_auc_score(y, b))


@given(st.floats(-2, 2), st.integers(0, 30))
def test_interval_is_the_set_of_values_that_the_test_keeps(observed, seed):
    replicates = np.random.default_rng(seed).normal(observed, 0.5, 99).round(2)
    low, high, _ = bootstrap.symmetric_test(observed, replicates)
    for value in np.linspace(observed - 3, observed + 3, 41):
        p = bootstrap.symmetric_test(observed - value, replicates - value)[2]
        if min(abs(value - low), abs(value - high)) > 1e-9:
            assert (p >= 0.05) == (low <= value <= high)


def test_bootstrap_and_delong_agree_in_a_large_sample():
    y, a, b, _ = paired(1, 2000)
    drawn, delong = paired_tests.bootstrap_auc_difference(y, a, b, None, 1000), paired_tests.delong_test(y, a, b)
    assert drawn["difference"] == pytest.approx(delong["difference"], abs=1e-12)
    for limit in ("ci_low", "ci_high"):
        assert drawn[limit] == pytest.approx(delong[limit], abs=0.003)


def test_identical_scores_give_p_1_and_no_interval():
    y, a, _, groups = paired(0)
    assert paired_tests.delong_test(y, a, np.exp(a))["p"] == 1 and paired_tests.delong_test(y, a, a)["z"] is None
    result = paired_tests.bootstrap_auc_difference(y, a, a * 2, groups, 100)
    assert (result["difference"], result["p"], result["ci_low"]) == (0, 1, None) and result["reason"]
    same = paired_tests.bootstrap_prediction_differences(y, a > 0, a > 0, groups, 100)["accuracy"]
    assert (same["difference"], same["p"], same["ci_low"]) == (0, 1, None)


def test_one_class_one_patient():
    for result in (paired_tests.delong_test([1, 1], [0.1, 0.2], [0.2, 0.1]),
                   paired_tests.bootstrap_auc_difference([1, 1], [0.1, 0.2], [0.2, 0.1]),
                   paired_tests.bootstrap_auc_difference([0, 1], [0.1, 0.2], [0.2, 0.1], ["p", "p"]),
                   paired_tests.net_reclassification([1, 1], [True, False], [False, False])):
        assert result["p"] is None and result["reason"]
    assert math.isnan(metrics.delong([0, 1, 1], [0.1, 0.4, 0.2])[1])  # one scan in a class


@pytest.mark.parametrize("a, b, p", [(10, 2, 2 * 79 / 4096), (0, 5, 2 / 32), (3, 3, 1), (0, 0, 1)])
def test_mcnemar_by_hand(a, b, p):
    """p = 2 P(X <= min) of the binomial distribution: 1 + 12 + 66 = 79 of 2**12."""
    y = np.ones(a + b + 4, dtype=int)
    predicted_a = np.array([True] * a + [False] * b + [True] * 4)
    predicted_b = np.array([False] * a + [True] * b + [True] * 4)
    result = paired_tests.mcnemar_exact(y, predicted_a, predicted_b)
    assert result["p"] == pytest.approx(p) and (result["only_a_right"], result["only_b_right"]) == (a, b)


def test_net_reclassification_of_framingham():
    """Pencina 2008: 183 events, 29 up, 7 down; 3081 others, 173 up, 174 down: NRI 0.121, z = 3.616, p < 0.001."""
    result = paired_tests.nri_of_counts(29, 7, 183, 173, 174, 3081)
    assert result["nri"] == pytest.approx(0.121, abs=6e-4) and result["z"] == pytest.approx(3.616, abs=2e-3)
    assert result["p"] < 0.001


def test_net_reclassification_is_the_change_of_sensitivity_and_specificity():
    y, a, b, _ = paired(5)
    result = paired_tests.net_reclassification(y, a > 0.5, b > 0.5)
    sensitivity, specificity = (sk.recall_score(y == k, (a > 0.5) == k) - sk.recall_score(y == k, (b > 0.5) == k)
                                for k in (1, 0))
    assert (result["positives"], result["negatives"]) == pytest.approx((sensitivity, specificity))
    drawn = paired_tests.bootstrap_prediction_differences(y, a > 0.5, b > 0.5, resamples=50)
    assert drawn["nri"]["difference"] == pytest.approx(result["nri"])


@pytest.mark.parametrize("p, adjusted", [([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
                                         ([0.5, None, 0.7], [1.0, None, 1.0]), ([], [])])
def test_holm_by_hand(p, adjusted):
    tests = [{"p": each} for each in p]
    paired_tests.holm(tests)
    assert [test["p_holm"] for test in tests] == pytest.approx(adjusted)


# ---------------------------------------------------------------- coverage

@pytest.mark.parametrize("clustered", [False, True])
def test_coverage_of_the_intervals_of_auc_and_sensitivity(clustered):
    """Between 93 and 97 % of 1000 studies hold the truth; two scans of a patient are seldom compared: AUC 0.85."""
    rng, aucs, sensitivities, differences = np.random.default_rng(7), [], [], []
    cut = norm.ppf(0.85) * math.sqrt(2) - norm.ppf(0.8)
    for _ in range(1000):
        y, a, b, groups = binormal(rng, clustered)
        aucs.append(metrics.auc_interval(y, a, groups=groups)[1:3])
        entry = metrics.proportion_estimate((a >= cut)[y == 1], "scan", groups[y == 1])
        sensitivities.append((entry["ci_low"], entry["ci_high"]))
        test = paired_tests.delong_test(y, a, b, groups)
        differences.append((test["ci_low"], test["ci_high"]))
    assert 0.93 <= share_inside(aucs, 0.85) <= 0.97
    assert 0.93 <= share_inside(sensitivities, 0.8) <= 0.97
    assert 0.93 <= share_inside(differences, 0) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_coverage_of_the_bootstrap(clustered):
    """The same of the bootstrap by patient: AUC (BCa), and the difference of two AUCs with its test."""
    rng, aucs, differences, p_values = np.random.default_rng(8), [], [], []
    for seed in range(1000):
        y, a, b, groups = binormal(rng, clustered)
        interval = metrics.all_metrics(y, expit(a), groups=groups, resamples=600, seed=seed)["auc"]["bootstrap"]
        aucs.append((interval["low"], interval["high"]))
        test = paired_tests.bootstrap_auc_difference(y, a, b, groups, 399, seed)
        differences.append((test["ci_low"], test["ci_high"]))
        p_values.append(test["p"])
    assert 0.93 <= share_inside(aucs, 0.85) <= 0.97
    assert 0.93 <= share_inside(differences, 0) <= 0.97
    assert 0.03 <= np.mean(np.array(p_values) < 0.05) <= 0.07


# ---------------------------------------------------------------- the band of the ROC curve

def test_roc_band_is_that_of_scikit_learns_curves_of_the_resamples():
    rng = np.random.default_rng(5)
    y, groups = rng.integers(0, 2, 40), np.arange(40) // 2
    score = (y + rng.normal(0, 1, 40)).round(1)  # with ties
    grid, curves = np.linspace(0.0131, 0.9871, 21), []  # beside the steps, where a curve has two values
    for weights in bootstrap.resample_weights(groups, 40, 500, 3):
        for times in weights:
            fpr, tpr, _ = sk.roc_curve(y, score, sample_weight=times, drop_intermediate=False)
            curves.append(np.interp(grid, fpr, tpr))
    np.testing.assert_allclose(bootstrap.roc_band(y, score, grid, groups, seed=3),
                               np.quantile(curves, (0.025, 0.975), axis=0), atol=1e-12)
    assert bootstrap.roc_band(np.ones(5), np.arange(5.0), grid) is None
