"""Paired tests of two sets of scores on the same scans: AUC, errors at a threshold, reclassification.

y_true is (n,) of 0 and 1; a and b are (n,) scores, or (n,) bool predictions; groups (n,) patient ids or None. A
difference is a - b. Every result is a dict ready for JSON; a number that these scans cannot give is None, with the
reason.
"""
import numpy as np
from numpy import ndarray
from scipy.stats import binomtest, norm

from common.text import counted
from evaluation import bootstrap
from evaluation.bootstrap import Groups
from evaluation.metrics import Z, components_variance, delong_components, one_class
from evaluation.weighted import Ranked


def delong_test(y_true: ndarray, a: ndarray, b: ndarray, groups: Groups = None) -> dict:
    """DeLong's test of two paired AUCs; by patient Obuchowski's.

    DeLong ER et al. Biometrics 1988;44:837-45; Obuchowski NA. Biometrics 1997;53:567-78.

    Returns
    -------
    dict
        difference, se (standard error), z, p (two-sided), ci_low, ci_high[, reason].
    """
    result: dict = dict.fromkeys(("difference", "se", "z", "p", "ci_low", "ci_high"))
    if one_class(y_true):
        return result | {"reason": one_class(y_true)}
    (a10, a01), (b10, b01) = (delong_components(y_true, score) for score in (a, b))
    v10, v01 = a10 - b10, a01 - b01
    difference = result["difference"] = float(a10.mean() - b10.mean())
    variance = components_variance(y_true, v10, v01, groups)
    if difference == 0 and not (v10.any() or v01.any()):
        return result | {"p": 1.0, "reason": "both rank every pair of scans alike"}
    if not variance > 1e-24:
        return result | {"reason": "the difference's variance is 0 or undefined (few scans or patients in a class)"}
    se = float(np.sqrt(variance))
    half = float(Z) * se
    return result | {"se": se, "z": difference / se, "p": float(2 * norm.sf(abs(difference / se))),
                     "ci_low": difference - half, "ci_high": difference + half}


def bootstrap_auc_difference(y_true: ndarray, a: ndarray, b: ndarray, groups: Groups = None,
                             resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> dict:
    """Difference of two paired AUCs with the centred bootstrap's interval and p, see `bootstrap.symmetric_test`.

    Returns
    -------
    dict
        difference, ci_low, ci_high, p; then undefined (resamples of one class) and method, or the reason.
    """
    result: dict = dict.fromkeys(("difference", "ci_low", "ci_high", "p"))
    if one_class(y_true):
        return result | {"reason": one_class(y_true)}
    if bootstrap.group_index(groups, len(y_true))[1] < 2:
        return result | {"reason": "one patient only: nothing to resample"}
    ranked = [Ranked(y_true, score) for score in (a, b)]

    def differences(weights):
        first, second = (each.measure(weights[:, each.order])[0] for each in ranked)
        return (first - second)[:, None]

    values, (result,) = tested(differences, groups, len(y_true), resamples, seed)
    if "reason" not in result:
        result |= {"undefined": int(np.isnan(values).sum()),
                   "method": f"paired bootstrap by {'scan' if groups is None else 'patient'}, centred and symmetric"}
    return result


def mcnemar_exact(y_true: ndarray, a: ndarray, b: ndarray) -> dict:
    """Exact McNemar test of two paired error rates: who alone is right, two-sided p of the binomial distribution.

    McNemar Q. Psychometrika 1947;12:153-7. Takes scans as independent.

    Returns
    -------
    dict
        only_a_right, only_b_right, both_right, both_wrong (numbers of scans), p.
    """
    right_a, right_b = (np.asarray(predicted) == np.asarray(y_true, dtype=bool) for predicted in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a_right": only_a, "only_b_right": only_b, "both_right": int((right_a & right_b).sum()),
            "both_wrong": int((~right_a & ~right_b).sum()), "p": p}


def net_reclassification(y_true: ndarray, a: ndarray, b: ndarray) -> dict:
    """Net reclassification from b to a at a threshold each: a's sensitivity and specificity less b's, summed.

    Counts of scans that a predicts positive and b does not (up) and the reverse (down), z and p by their asymptotic
    test. Pencina MJ, D'Agostino RB Sr, D'Agostino RB Jr, Vasan RS. Stat Med 2008;27:157-72. The two parts are given
    too, since their sum hides which of them changed (Leening MJG et al. Ann Intern Med 2014;160:122-31).
    """
    y, a, b = (np.asarray(values, dtype=bool) for values in (y_true, a, b))
    counts = [int(np.sum((y == of) & which)) for of in (True, False) for which in (a & ~b, b & ~a, a == a)]
    return nri_of_counts(*counts)


def nri_of_counts(up1: int, down1: int, n1: int, up0: int, down0: int, n0: int) -> dict:
    """`net_reclassification` from its counts: up and down among n1 scans with target 1 and n0 with target 0."""
    result: dict = {"positives_up": up1, "positives_down": down1, "negatives_up": up0, "negatives_down": down0,
                    "positives": None, "negatives": None, "nri": None, "z": None, "p": None}
    if not (n1 and n0):
        return result | {"reason": "it needs both classes"}
    positives, negatives = (up1 - down1) / n1, (down0 - up0) / n0
    nri, se = positives + negatives, np.sqrt((up1 + down1) / n1**2 + (up0 + down0) / n0**2)
    z = float(nri / se) if se else None
    p = 1.0 if z is None else float(2 * norm.sf(abs(z)))
    return result | {"positives": positives, "negatives": negatives, "nri": nri, "z": z, "p": p}


def bootstrap_prediction_differences(y_true: ndarray, a: ndarray, b: ndarray, groups: Groups = None,
                                     resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> dict[str, dict]:
    """a's accuracy, sensitivity and specificity less b's, and the net reclassification, their sum; centred bootstrap.

    By patient it holds where McNemar's test, which takes scans as independent, does not.

    Returns
    -------
    dict
        accuracy, nri, sensitivity, specificity: difference, ci_low, ci_high, p[, reason].
    """
    y, a, b = (np.asarray(values, dtype=bool) for values in (y_true, a, b))
    gain = np.where(y, a * 1.0 - b, b * 1.0 - a)  # 1: a alone is right; -1: b alone
    classes = np.stack([y, ~y], axis=1).astype(float)

    def differences(weights):
        counts, gains = weights @ classes, weights @ (classes * gain[:, None])
        with np.errstate(invalid="ignore"):
            by_class = gains / counts
            return np.column_stack([gains.sum(axis=1) / counts.sum(axis=1), by_class.sum(axis=1), by_class])

    _, results = tested(differences, groups, len(y), resamples, seed)
    return dict(zip(("accuracy", "nri", "sensitivity", "specificity"), results, strict=True))


def tested(differences, groups, n, resamples, seed):
    """Of differences((b, n) weights), (b, k): its (resamples, k) values, and each with the centred bootstrap's test."""
    observed = differences(np.ones((1, n), dtype=np.uint8))[0].tolist()
    drawn = np.concatenate([differences(rows) for rows in bootstrap.resample_weights(groups, n, resamples, seed)])
    several = bootstrap.group_index(groups, n)[1] > 1
    return drawn, [_difference(value, values, several) for value, values in zip(observed, drawn.T, strict=True)]


def _difference(observed, values, several):
    """A difference with the centred bootstrap's interval and p; without several patients there is no interval."""
    known = values[~np.isnan(values)]
    undefined = len(values) - len(known)
    usable = several and np.isfinite(observed) and undefined <= bootstrap.MOST_UNDEFINED * len(values)
    low, high, p = bootstrap.symmetric_test(observed, values) if usable else (np.nan,) * 3
    if np.isfinite(low):
        return {"difference": observed, "ci_low": low, "ci_high": high, "p": p}
    reason = f"too few resamples ({len(values)})"
    if len(known) < (1 - bootstrap.MOST_UNDEFINED) * len(values):
        reason = f"{undefined} of {counted(len(values), 'resample')} hold one class only"
    elif np.ptp(known) == 0:
        reason = "every resample gives the same difference"
    never = observed == 0 and not values.any()  # differs
    return {"difference": observed if np.isfinite(observed) else None, "ci_low": None, "ci_high": None,
            "p": 1.0 if never else None, "reason": reason}


def holm(tests: list[dict]) -> None:
    """Add p_holm to tests, their p after Holm's step-down adjustment; None stays None and counts for nothing.

    Holm S. Scand J Stat 1979;6:65-70.
    """
    known = sorted((test["p"], k) for k, test in enumerate(tests) if test["p"] is not None)
    for test in tests:
        test["p_holm"] = None
    largest = 0.0
    for step, (p, k) in enumerate(known):
        tests[k]["p_holm"] = largest = max(largest, min(1.0, (len(known) - step) * p))
