"""The statistics themselves: AUC with DeLong's variance, intervals, what a threshold gives. NumPy and SciPy only.

Everywhere: y_true is (n,) of 0 and 1; y_score is (n,) of finite floats, higher = more likely 1; a scan is called
positive where y_score >= threshold. Rows count as independent. Wrong shapes or values raise InputError.
"""
import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, rankdata

from files import InputError

CONFIDENCE = 0.95


def check_scores(y_true, y_score):
    """Return y_true as (n,) bool and y_score as (n,) float64; InputError where they are not what the module needs."""
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if y_true.ndim != 1 or y_true.shape != y_score.shape or not y_true.size:
        raise InputError(f"y_true {y_true.shape} and y_score {y_score.shape} must be one-dimensional, equally long "
                         "and not empty")
    if not np.isin(y_true, (0, 1)).all():
        raise InputError(f"y_true holds {y_true[~np.isin(y_true, (0, 1))][0]}; it must be 0 or 1")
    if not np.isfinite(y_score).all():
        raise InputError(f"y_score holds {y_score[~np.isfinite(y_score)][0]} at index "
                         f"{np.flatnonzero(~np.isfinite(y_score))[0]}; it must be finite")
    return y_true.astype(bool), y_score


def one_class(y_true):
    """Why there is no AUC, where all of y_true is one class; else None."""
    classes = np.unique(y_true)
    return f"the AUC needs both classes; all scans have target {int(classes[0])}" if len(classes) == 1 else None


def delong_components(y_true, y_score):
    """DeLong's structural components: what each scan contributes to the AUC.

    Returns:
        v10 (m,): per positive, the share of negatives that score below it (ties count half);
        v01 (n,): per negative, the share of positives that score above it. The mean of either is the AUC.

    Raises:
        InputError: fewer than one scan in a class.

    Sun X, Xu W. Fast implementation of DeLong's algorithm. IEEE Signal Process Lett 2014;21:1389-93.
    """
    y_true, y_score = check_scores(y_true, y_score)
    if one_class(y_true):
        raise InputError(one_class(y_true))
    m, n = y_true.sum(), (~y_true).sum()
    midrank = rankdata(y_score)
    v10 = (midrank[y_true] - rankdata(y_score[y_true])) / n
    v01 = 1 - (midrank[~y_true] - rankdata(y_score[~y_true])) / m
    return v10, v01


def delong(y_true, y_score):
    """The AUC and its variance; the variance is NaN where a class has a single scan.

    DeLong ER, DeLong DM, Clarke-Pearson DL. Biometrics 1988;44:837-45.
    """
    v10, v01 = delong_components(y_true, y_score)
    if min(v10.size, v01.size) < 2:
        return float(v10.mean()), float("nan")
    return float(v10.mean()), float(v10.var(ddof=1) / v10.size + v01.var(ddof=1) / v01.size)


def newcombe_interval(auc, n_positive, n_negative, confidence=CONFIDENCE):
    """Score interval (low, high) of an AUC from the class sizes alone; it has a width at an AUC of 0 or 1 too.

    The limits are the areas t with |auc - t| = z sqrt(V(t)), V being the variance of Hanley and McNeil with both
    of their counts replaced by the mean. Newcombe RG. Stat Med 2006;25:559-73, method 5.
    """
    z, others = norm.ppf((1 + confidence) / 2), (n_positive + n_negative) / 2 - 1

    def distance(t, area):
        spread = 1 + others * ((1 - t) / (2 - t) + t / (1 + t))
        return (area - t) ** 2 - z**2 * t * (1 - t) * spread / (n_positive * n_negative)

    def lower(area):  # V is 0 at t = 1, a root of no interest where the area is 1: stop just short of it
        return brentq(distance, 0, area * (1 - 1e-9), args=(area,)) if area > 0 else 0.0

    return lower(auc), 1 - lower(1 - auc)


def auc_interval(y_true, y_score, confidence=CONFIDENCE):
    """The AUC, its interval and the interval's method: (auc, low, high, method).

    DeLong's variance on the logit scale, which keeps the limits inside 0..1 (Pepe MS. The Statistical Evaluation of
    Medical Tests, 2003, 5.2). Where that variance is 0 (classes apart, or every score the same) or undefined
    (one scan in a class) it would claim a certainty that is not there; Newcombe's interval takes its place.
    """
    auc, variance = delong(y_true, y_score)
    if variance > 0:
        half = norm.ppf((1 + confidence) / 2) * np.sqrt(variance) / (auc * (1 - auc))
        low, high = expit(logit(auc) + np.array((-half, half)))
        return auc, float(low), float(high), "DeLong, logit scale"
    n_positive = int(np.sum(y_true))
    low, high = newcombe_interval(auc, n_positive, len(y_true) - n_positive, confidence)
    return auc, low, high, "Newcombe 2006, method 5 (DeLong's variance is 0 or undefined)"


def wilson_interval(successes, trials, confidence=CONFIDENCE):
    """Wilson's score interval (low, high) of a proportion, without continuity correction; InputError without trials.

    Wilson EB. J Am Stat Assoc 1927;22:209-12.
    """
    if trials < 1:
        raise InputError("a proportion of 0 scans has no interval")
    low, high = binomtest(int(successes), int(trials)).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def confusion(y_true, y_score, threshold=0.5):
    """(tn, fp, fn, tp) as int, in the order of `sklearn.metrics.confusion_matrix(...).ravel()`."""
    y_true, y_score = check_scores(y_true, y_score)
    y_pred = y_score >= threshold
    return tuple(int(np.sum((y_true == actual) & (y_pred == called))) for actual in (0, 1) for called in (0, 1))


def estimate(value, low, high, method):
    """An estimate with its interval, as it stands in metrics.json."""
    return {"value": value, "ci_low": low, "ci_high": high, "ci_method": method}


def no_estimate(reason):
    """The same for a number that these scans cannot give."""
    return {"value": None, "ci_low": None, "ci_high": None, "ci_method": None, "reason": reason}


def auc_estimate(y_true, y_score):
    """`auc_interval` as an estimate; no scan or one class only gives null and the reason."""
    reason = one_class(y_true) if len(y_true) else "no scan with a target"
    return no_estimate(reason) if reason else estimate(*auc_interval(y_true, y_score))


def proportion_estimate(successes, trials, of):
    """A proportion with Wilson's interval as an estimate; `of` names the trials, for the reason why there are none."""
    if not trials:
        return no_estimate(f"no {of}")
    return estimate(successes / trials, *wilson_interval(successes, trials), "Wilson")


def evaluate(y_true, y_score, threshold=0.5):
    """Every metric of one set of scores, ready for JSON: counts, then name -> {value, ci_low, ci_high, ci_method}."""
    tn, fp, fn, tp = confusion(y_true, y_score, threshold)
    return {
        "n": tn + fp + fn + tp, "n_positive": tp + fn, "threshold": threshold,
        "tn": tn, "fp": fp, "fn": fn, "tp": tp,
        "auc": auc_estimate(y_true, y_score),
        "accuracy": proportion_estimate(tp + tn, tn + fp + fn + tp, "scan"),
        "sensitivity": proportion_estimate(tp, tp + fn, "scan with target 1"),
        "specificity": proportion_estimate(tn, tn + fp, "scan with target 0"),
    }
