"""Paired tests of two sets of scores on the same scans: AUC, errors at a threshold, reclassification.

y_true is (n,) of 0 and 1; a and b are (n,) scores, or (n,) bool calls; groups (n,) patient ids or None. A difference is
a - b. Every result is a dict ready for JSON; a number that cannot be given is None, with the reason.
"""
import numpy as np
from scipy.stats import binomtest, norm

from evaluation import bootstrap
from evaluation.metrics import CONFIDENCE, components_variance, delong_components, one_class


def delong_test(y_true, a, b, groups=None):
    """DeLong's test of two paired AUCs: difference, standard error, z, two-sided p, interval; by patient Obuchowski's.

    DeLong ER et al. Biometrics 1988;44:837-45; Obuchowski NA. Biometrics 1997;53:567-78.
    """
    if one_class(y_true):
        return {"difference": None, "se": None, "z": None, "p": None, "ci_low": None, "ci_high": None,
                "reason": one_class(y_true)}
    components = [delong_components(y_true, score) for score in (a, b)]
    v10, v01 = (first - second for first, second in zip(*components, strict=True))
    difference = float(components[0][0].mean() - components[1][0].mean())
    variance = components_variance(y_true, v10, v01, groups)
    result = {"difference": difference, "se": None, "z": None, "p": None, "ci_low": None, "ci_high": None}
    if not variance > 1e-24:
        same = difference == 0 and not (v10.any() or v01.any())
        return result | {"p": 1.0 if same else None,
                         "reason": "both rank every pair of scans alike" if same else
                         "the variance of the difference is 0 or undefined (too few scans or patients in a class)"}
    se = float(np.sqrt(variance))
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * se
    return result | {"se": se, "z": difference / se, "p": float(2 * norm.sf(abs(difference / se))),
                     "ci_low": difference - half, "ci_high": difference + half}


def bootstrap_auc_difference(y_true, a, b, groups=None, resamples=bootstrap.RESAMPLES, seed=0):
    """Difference of two paired AUCs with the centred bootstrap's interval and p, see `resampling.symmetric_test`."""
    empty = {"difference": None, "ci_low": None, "ci_high": None, "p": None}
    if one_class(y_true):
        return empty | {"reason": one_class(y_true)}
    if bootstrap.group_index(groups, len(y_true))[1] < 2:
        return empty | {"reason": "one patient only: nothing to resample"}
    drawn = []
    ranked = [bootstrap.Ranked(y_true, score) for score in (a, b)]
    for weights in bootstrap.resample_weights(groups, len(y_true), resamples, seed):
        first, second = (bootstrap.weighted_auc(*each.below(weights[:, each.order])) for each in ranked)
        drawn.append(first - second)
    whole = np.ones((1, len(y_true)))
    first, second = (float(bootstrap.weighted_auc(*each.below(whole))[0]) for each in ranked)
    drawn = np.concatenate(drawn) if drawn else np.zeros(0)
    undefined = int(np.isnan(drawn).sum())
    usable = undefined <= bootstrap.MOST_UNDEFINED * len(drawn)
    low, high, p = bootstrap.symmetric_test(first - second, drawn, CONFIDENCE) if usable else (np.nan,) * 3
    if not np.isfinite(low):
        return empty | {"difference": first - second, "reason": no_interval(drawn), "p": same(first - second, drawn)}
    unit = "scan" if groups is None else "patient"
    return {"difference": first - second, "ci_low": low, "ci_high": high, "p": p, "undefined": undefined,
            "method": f"paired bootstrap by {unit}, centred and symmetric"}


def mcnemar_exact(y_true, called_a, called_b):
    """Exact McNemar test of two paired error rates: who alone is right, two-sided p of the binomial distribution.

    McNemar Q. Psychometrika 1947;12:153-7. Takes scans as independent.
    """
    right_a, right_b = (np.asarray(called) == np.asarray(y_true, dtype=bool) for called in (called_a, called_b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a_right": only_a, "only_b_right": only_b, "both_right": int((right_a & right_b).sum()),
            "both_wrong": int((~right_a & ~right_b).sum()), "p": p}


def net_reclassification(y_true, called_a, called_b):
    """Net reclassification from b to a at a threshold each: a's sensitivity and specificity less b's, summed.

    Counts of scans that a calls positive and b does not (up) and the reverse (down), z and p by their asymptotic test.
    Pencina MJ, D'Agostino RB Sr, D'Agostino RB Jr, Vasan RS. Stat Med 2008;27:157-72. The two parts are given too,
    since their sum hides which of them changed (Leening MJG et al. Ann Intern Med 2014;160:122-31).
    """
    y, a, b = (np.asarray(values, dtype=bool) for values in (y_true, called_a, called_b))
    n1, n0 = int(y.sum()), int((~y).sum())
    up1, down1, up0, down0 = (int(np.sum((y == of) & moved)) for of in (True, False) for moved in (a & ~b, b & ~a))
    return nri_of_counts(up1, down1, n1, up0, down0, n0)


def nri_of_counts(up1, down1, n1, up0, down0, n0):
    """`net_reclassification` from its counts: up and down among n1 scans with target 1 and n0 with target 0."""
    result = {"positives_up": up1, "positives_down": down1, "negatives_up": up0, "negatives_down": down0,
              "positives": None, "negatives": None, "nri": None, "z": None, "p": None}
    if not (n1 and n0):
        return result | {"reason": "it needs both classes"}
    result |= {"positives": (up1 - down1) / n1, "negatives": (down0 - up0) / n0}
    result["nri"] = result["positives"] + result["negatives"]
    se = np.sqrt((up1 + down1) / n1**2 + (up0 + down0) / n0**2)
    if not se:
        return result | {"p": 1.0}
    z = float(result["nri"] / se)
    return result | {"z": z, "p": float(2 * norm.sf(abs(z)))}


def bootstrap_call_differences(y_true, called_a, called_b, groups=None, resamples=bootstrap.RESAMPLES, seed=0):
    """a's accuracy less b's, and the net reclassification, with the centred bootstrap's interval and p.

    By patient it holds where McNemar's test, which takes scans as independent, does not.
    """
    y, a, b = (np.asarray(values, dtype=bool) for values in (y_true, called_a, called_b))
    gain = np.where(y, a * 1.0 - b, b * 1.0 - a)  # 1: a alone is right; -1: b alone
    classes = np.stack([y, ~y], axis=1).astype(float)

    def differences(weights):
        counts, gains = weights @ classes, weights @ (classes * gain[:, None])
        with np.errstate(invalid="ignore"):
            return gains.sum(axis=1) / counts.sum(axis=1), (gains / counts).sum(axis=1)

    drawn = [differences(weights) for weights in bootstrap.resample_weights(groups, len(y), resamples, seed)]
    result = {}
    for k, name in enumerate(("accuracy", "nri")):
        observed = float(differences(np.ones((1, len(y))))[k][0])
        values = np.concatenate([each[k] for each in drawn]) if drawn else np.zeros(0)
        usable = np.isfinite(observed) and np.isnan(values).sum() <= bootstrap.MOST_UNDEFINED * len(values)
        low, high, p = bootstrap.symmetric_test(observed, values, CONFIDENCE) if usable else (np.nan,) * 3
        known = bool(np.isfinite(low)) and bootstrap.group_index(groups, len(y))[1] > 1
        result[name] = {"difference": observed if np.isfinite(observed) else None, "ci_low": low if known else None,
                        "ci_high": high if known else None, "p": p if known else same(observed, values)}
        result[name] |= {} if known else {"reason": no_interval(values)}
    return result


def same(observed, values):
    """p of a difference that has no interval: 1 where nothing ever differs, else none."""
    return 1.0 if observed == 0 and len(values) and not values.any() else None


def no_interval(values):
    known = values[~np.isnan(values)]
    if len(known) < (1 - bootstrap.MOST_UNDEFINED) * len(values):
        return f"{len(values) - len(known)} of {len(values)} resamples hold one class only"
    return "every resample gives the same difference" if np.ptp(known) == 0 else f"too few resamples ({len(values)})"


def holm(p_values):
    """Holm's step-down adjustment; None stays None and counts for nothing. Holm S. Scand J Stat 1979;6:65-70."""
    known = [k for k, p in enumerate(p_values) if p is not None]
    adjusted, largest = [None] * len(p_values), 0.0
    for step, k in enumerate(sorted(known, key=lambda k: p_values[k])):
        largest = max(largest, min(1.0, (len(known) - step) * p_values[k]))
        adjusted[k] = largest
    return adjusted
