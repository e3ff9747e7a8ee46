import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import confusion_matrix, roc_auc_score

from common.files import InputError
from evaluation.metrics import (
    all_metrics,
    auc_estimate,
    auc_interval,
    confusion,
    delong,
    delong_components,
    newcombe_interval,
    one_class,
    wilson_interval,
)

# Hanley JA, McNeil BJ. Radiology 1982;143:29-36, table I: ratings 1..5 of 58 normal and 51 abnormal CT scans.
HANLEY = (np.repeat([0, 1], [58, 51]),
          np.concatenate([np.repeat(range(1, 6), counts) for counts in ([33, 6, 6, 11, 2], [3, 2, 2, 11, 33])]))


@st.composite
def scored(draw, smallest=1):
    """(y_true, y_score) with both classes and, mostly, ties."""
    m, n = draw(st.integers(smallest, 12)), draw(st.integers(smallest, 12))
    scores = draw(st.lists(st.integers(-4, 4), min_size=m + n, max_size=m + n))
    return np.repeat([1, 0], [m, n]), np.array(scores, dtype=float)


def brute_force(y_true, y_score):
    """AUC and DeLong's variance straight from the paper: the kernel of every pair."""
    positive, negative = y_score[y_true == 1], y_score[y_true == 0]
    kernel = [[1.0 if p > q else 0.5 if p == q else 0.0 for q in negative] for p in positive]
    auc = sum(map(sum, kernel)) / (len(positive) * len(negative))
    v10 = [sum(row) / len(negative) for row in kernel]
    v01 = [sum(row[j] for row in kernel) / len(positive) for j in range(len(negative))]
    s10 = sum((v - auc) ** 2 for v in v10) / (len(positive) - 1)
    s01 = sum((v - auc) ** 2 for v in v01) / (len(negative) - 1)
    return auc, s10 / len(positive) + s01 / len(negative)


def test_delong_of_published_ratings():
    auc, variance = delong(*HANLEY)
    assert auc == pytest.approx(0.8932, abs=5e-5)  # the paper prints 0.893
    assert math.sqrt(variance) == pytest.approx(0.0307, abs=5e-5)  # Stata's manual, roctab: 0.0307, 0.83295 to 0.95339
    assert auc - 1.959964 * math.sqrt(variance) == pytest.approx(0.83295, abs=5e-6)
    assert auc + 1.959964 * math.sqrt(variance) == pytest.approx(0.95339, abs=5e-6)


def test_delong_by_hand():
    # positives 0.8 0.6 0.4, negatives 0.4 0.2: V10 = 1, 1, 3/4; V01 = 5/6, 1; AUC = 11/12
    # variances (1/48)/3 + (1/72)/2
    y_true, y_score = [1, 1, 1, 0, 0], [0.8, 0.6, 0.4, 0.4, 0.2]
    v10, v01 = delong_components(y_true, y_score)
    np.testing.assert_allclose(v10, [1, 1, 3 / 4])
    np.testing.assert_allclose(v01, [5 / 6, 1])
    assert delong(y_true, y_score) == pytest.approx((11 / 12, 1 / 144 + 1 / 144))


@given(scored(smallest=2))
def test_delong_equals_the_formula_over_all_pairs(data):
    assert delong(*data) == pytest.approx(brute_force(*data), abs=1e-12)


@given(scored())
def test_auc_equals_sklearn(data):
    assert delong(*data)[0] == pytest.approx(roc_auc_score(*data), abs=1e-12)


@given(scored())
def test_auc_and_interval_do_not_change_with_a_monotone_map(data):
    y_true, y_score = data
    assert auc_interval(y_true, np.exp(y_score / 3) - 7) == auc_interval(y_true, y_score)


@given(scored())
def test_swapped_labels_mirror_the_interval(data):
    y_true, y_score = data
    auc, low, high, method = auc_interval(y_true, y_score)
    swapped = auc_interval(1 - y_true, y_score)
    assert swapped[:3] == pytest.approx((1 - auc, 1 - high, 1 - low), abs=1e-7)
    assert swapped[3] == method
    assert auc_interval(1 - y_true, -y_score)[:3] == pytest.approx((auc, low, high), abs=1e-7)


@given(scored())
def test_interval_holds_the_auc_and_has_a_width(data):
    auc, low, high, _ = auc_interval(*data)
    assert 0 <= low <= auc <= high <= 1
    assert high - low > 0.01


def test_logit_interval_by_the_formula():
    auc, low, high, method = auc_interval(*HANLEY)
    half = 1.959963984540054 * 0.030724408379381122 / (auc * (1 - auc))
    odds = auc / (1 - auc)
    assert (low, high) == pytest.approx((odds * math.exp(-half) / (1 + odds * math.exp(-half)),
                                         odds * math.exp(half) / (1 + odds * math.exp(half))), rel=1e-9)
    assert method == "DeLong, logit scale"


@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200))
def test_newcombe_limits_solve_hanley_and_mcneils_variance(auc, m, n):
    """Var = (t(1-t) + (m-1)(Q1-t^2) + (n-1)(Q2-t^2)) / mn at the limits, with m-1 and n-1 replaced by their mean."""
    def z(t):
        q1, q2, others = t / (2 - t), 2 * t * t / (1 + t), (m + n) / 2 - 1
        return abs(auc - t) / math.sqrt((t * (1 - t) + others * (q1 - t * t) + others * (q2 - t * t)) / (m * n))

    low, high = newcombe_interval(auc, m, n)
    assert low <= auc <= high
    for limit in (low, high):
        if 1e-6 < limit < 1 - 1e-6 and abs(limit - auc) > 1e-6:
            assert z(limit) == pytest.approx(1.959964, rel=1e-4)


@pytest.mark.parametrize("y_true, y_score, auc", [
    ([0] * 10 + [1] * 10, range(20), 1.0),      # apart
    ([1] * 10 + [0] * 10, range(20), 0.0),      # apart, the wrong way round
    ([0] * 10 + [1] * 10, [0.3] * 20, 0.5),     # every score the same
    ([0] * 10 + [1], [*range(10), 4.5], 0.5),   # one positive scan
])
def test_no_false_certainty_where_delong_gives_no_variance(y_true, y_score, auc):
    value, low, high, method = auc_interval(y_true, np.array(list(y_score), dtype=float))
    assert value == pytest.approx(auc)
    assert high - low > 0.15 and "Newcombe" in method


def test_coverage_of_the_auc_interval():
    """Between 93 and 97 % of 1000 simulated studies hold the true AUC, binormal model."""
    rng, truth = np.random.default_rng(1), 0.9
    y_true = np.repeat([1, 0], [50, 100])
    inside = 0
    for _ in range(1000):
        _, low, high, _ = auc_interval(y_true, rng.normal(size=150) + y_true * norm.ppf(truth) * math.sqrt(2))
        inside += low <= truth <= high
    assert 930 <= inside <= 970


@pytest.mark.parametrize("successes, trials, low, high", [
    # Newcombe RG. Stat Med 1998;17:857-72, table I, method 3
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)])
def test_wilson_of_published_examples(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 3000), st.data())
def test_wilson_equals_the_closed_form(trials, data):
    successes, z = data.draw(st.integers(0, trials)), 1.959963984540054
    centre = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(successes * (trials - successes) / trials + z * z / 4)
    assert wilson_interval(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-9)


@given(scored(), st.integers(-5, 5))
def test_confusion_equals_sklearn(data, threshold):
    y_true, y_score = data
    assert confusion(y_true, y_score, threshold) == tuple(
        confusion_matrix(y_true, y_score >= threshold, labels=[0, 1]).ravel())


def test_a_score_at_the_threshold_is_positive():
    assert confusion([0, 0, 1, 1], [0.5, 0.4, 0.5, 0.3]) == (1, 1, 1, 1)


def test_evaluate_by_hand():
    result = all_metrics([1, 1, 1, 0, 0], [0.8, 0.6, 0.4, 0.4, 0.2])
    assert (result["n"], result["n_positive"], result["tp"], result["tn"]) == (5, 3, 2, 2)
    assert result["accuracy"]["value"] == 4 / 5 and result["specificity"]["value"] == 1
    assert result["sensitivity"]["value"] == 2 / 3
    interval = result["sensitivity"]["ci_low"], result["sensitivity"]["ci_high"]
    assert interval == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert result["auc"]["value"] == pytest.approx(11 / 12)


@pytest.mark.parametrize("target, missing", [(0, "sensitivity"), (1, "specificity")])
def test_one_class_gives_no_auc_and_says_why(target, missing):
    result = all_metrics([target] * 4, [0.1, 0.2, 0.6, 0.7])
    assert result["auc"]["value"] is None and f"target {target}" in result["auc"]["reason"]
    assert result[missing]["value"] is None and result[missing]["reason"]
    assert result["accuracy"]["value"] == 0.5
    with pytest.raises(InputError, match="both classes"):
        delong([target] * 4, [0.1, 0.2, 0.6, 0.7])


@pytest.mark.parametrize("y_true, y_score, text", [
    ([0, 1], [0.1, float("nan")], "finite"), ([0, 2], [0.1, 0.2], "0 or 1"), ([0, 1], [0.1], "equally long"),
    ([], [], "not empty"), ([[0, 1]], [[0.1, 0.2]], "one-dimensional")])
def test_wrong_input_is_refused(y_true, y_score, text):
    with pytest.raises(InputError, match=text):
        confusion(y_true, y_score)


def test_a_wrong_score_is_no_missing_estimate():
    with pytest.raises(InputError, match="finite"):
        auc_estimate([0, 1], [0.1, float("inf")])
    assert one_class([0, 1]) is None


@settings(max_examples=20)
@given(scored(), st.randoms())
def test_order_of_rows_is_irrelevant(data, random):
    y_true, y_score = data
    order = list(range(len(y_true)))
    random.shuffle(order)
    shuffled = auc_interval(y_true[order], y_score[order])
    assert shuffled[:3] == pytest.approx(auc_interval(y_true, y_score)[:3], abs=1e-12)
