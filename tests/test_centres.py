"""Several centres in one report: differences and heterogeneity by formulas of others, frozen thresholds, refusals."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest, chi2

from evaluation.centres import difference, heterogeneity
from evaluation.estimates import estimate, no_estimate
from evaluation.metrics import Z


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
