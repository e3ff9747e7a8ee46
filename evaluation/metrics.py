"""The statistics of one set of scores: AUC with DeLong's variance, proportions, thresholds, and all of them at once.

Everywhere: y_true is (n,) of 0 and 1; y_score is (n,) of finite floats, higher = more likely 1; a scan is predicted
positive where y_score >= threshold; groups is (n,) of patient ids, or None where rows are independent of each other.
Wrong shapes or values raise InputError.
"""
import functools

import numpy as np
from numpy import ndarray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from sklearn import metrics

from common.files import InputError
from evaluation import bootstrap, calibration
from evaluation.bootstrap import Groups
from evaluation.cautions import rarer_class
from evaluation.estimates import NO_ECE_INTERVAL, bootstrap_estimate, estimate, no_estimate

Z = norm.ppf((1 + bootstrap.CONFIDENCE) / 2)
THRESHOLD = 0.5
DERIVED = {"youden": "Youden", "sensitivity95": "sensitivity ≥ 0.95", "specificity95": "specificity ≥ 0.95"}
COMPARED = {"auc": "AUC", "sensitivity": "Sensitivity", "specificity": "Specificity"}  # of subgroups and of centres
AT_THRESHOLD = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "mcc")
FUNCTIONS = {"average_precision": metrics.average_precision_score,
             "brier": functools.partial(metrics.brier_score_loss, pos_label=True),
             "log_loss": functools.partial(metrics.log_loss, labels=[False, True]),
             "calibration_intercept": calibration.intercept, "calibration_slope": calibration.slope}
OVERALL = ("auc", *FUNCTIONS, "ece")
UNREACHED = "not reached on these predictions"
NO_FIT = "the classes are apart, or every score is the same: the logistic fit has no finite solution"


def check_scores(y_true: ndarray, y_score: ndarray) -> tuple[ndarray, ndarray]:
    """Return y_true as (n,) bool and y_score as (n,) float64; InputError where they are not what the module needs."""
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if y_true.ndim != 1 or y_true.shape != y_score.shape or not y_true.size:
        raise InputError(f"y_true and y_score must be one-dimensional, equally long and not empty; they are of shape "
                         f"{y_true.shape} and {y_score.shape}")
    for value in y_true[~np.isin(y_true, (0, 1))]:
        raise InputError(f"y_true holds {value}; it must be 0 or 1")
    for index in np.flatnonzero(~np.isfinite(y_score)):
        raise InputError(f"y_score holds {y_score[index]} at index {index}; it must be finite")
    return y_true.astype(bool), y_score


def one_class(y_true: ndarray, what: str = "the AUC") -> str | None:
    """Why there is no AUC, where all of y_true is one class; else None."""
    classes = np.unique(y_true)
    return f"{what} needs both classes; all scans have target {int(classes[0])}" if len(classes) == 1 else None


def delong_components(y_true: ndarray, y_score: ndarray) -> tuple[ndarray, ndarray]:
    """DeLong's structural components: what each scan contributes to the AUC, which is the mean of either.

    Sun X, Xu W. Fast implementation of DeLong's algorithm. IEEE Signal Process Lett 2014;21:1389-93.

    Returns
    -------
    v10 : (m,) float64 array
        Of each positive, the share of negatives that score below it (ties count half).
    v01 : (n,) float64 array
        Of each negative, the share of positives that score above it.

    Raises
    ------
    InputError
        A class is empty.
    """
    y_true, y_score = check_scores(y_true, y_score)
    if one_class(y_true):
        raise InputError(one_class(y_true))
    midrank, m, n = rankdata(y_score), y_true.sum(), (~y_true).sum()
    return (midrank[y_true] - rankdata(y_score[y_true])) / n, 1 - (midrank[~y_true] - rankdata(y_score[~y_true])) / m


def components_variance(y_true: ndarray, v10: ndarray, v01: ndarray, groups: Groups = None) -> float:
    """Variance of an AUC, or of a difference of AUCs, from its structural components (or their differences).

    With each row its own group this is DeLong's; with groups it is Obuchowski's, which adds what the scans of a
    patient share. NaN where a class comes from fewer than two groups.

    Obuchowski NA. Nonparametric analysis of clustered ROC curve data. Biometrics 1997;53:567-78.
    """
    y_true = np.asarray(y_true, dtype=bool)
    index, count = bootstrap.group_index(groups, len(y_true))
    share = np.zeros((2, len(y_true)))  # of each row in the AUC's error; positives, negatives
    share[0, y_true] = (v10 - np.mean(v10)) / v10.size
    share[1, ~y_true] = (v01 - np.mean(v01)) / v01.size
    by_group = np.stack([np.bincount(index, weights=row, minlength=count) for row in share])
    n10, n01 = (np.unique(index[rows]).size for rows in (y_true, ~y_true))
    if min(n10, n01) < 2:
        return float("nan")
    s10, s01, s11 = (by_group[0] ** 2).sum(), (by_group[1] ** 2).sum(), (by_group[0] * by_group[1]).sum()
    return float(n10 / (n10 - 1) * s10 + n01 / (n01 - 1) * s01 + 2 * count / (count - 1) * s11)


def delong(y_true: ndarray, y_score: ndarray, groups: Groups = None) -> tuple[float, float]:
    """The AUC and its variance; the variance is NaN where a class comes from a single scan or patient.

    DeLong ER, DeLong DM, Clarke-Pearson DL. Biometrics 1988;44:837-45; for `groups` see `components_variance`.
    """
    v10, v01 = delong_components(y_true, y_score)
    return float(v10.mean()), components_variance(y_true, v10, v01, groups)


def newcombe_interval(auc: float, n_positive: int, n_negative: int) -> tuple[float, float]:
    """Score interval (low, high) of an AUC from the class sizes alone; it has a width at an AUC of 0 or 1 too.

    The limits are the areas t with |auc - t| = z sqrt(V(t)), V being the variance of Hanley and McNeil with both
    of their counts replaced by the mean. Newcombe RG. Stat Med 2006;25:559-73, method 5.
    """
    others = (n_positive + n_negative) / 2 - 1

    def distance(t, area):
        spread = 1 + others * ((1 - t) / (2 - t) + t / (1 + t))
        return (area - t) ** 2 - Z**2 * t * (1 - t) * spread / (n_positive * n_negative)

    def lower(area):  # V is 0 at t = 1, a root of no interest where the area is 1: stop just short of it
        return brentq(distance, 0, area * (1 - 1e-9), args=(area,)) if area > 0 else 0.0

    return lower(auc), 1 - lower(1 - auc)


def auc_interval(y_true: ndarray, y_score: ndarray, groups: Groups = None) -> tuple[float, float, float, str]:
    """The AUC, its interval and the interval's method: (auc, low, high, method), see `interval_of`."""
    auc, variance = delong(y_true, y_score, groups)
    return auc, *interval_of(auc, variance, y_true, groups)


def interval_of(auc: float, variance: float, y_true: ndarray, groups: Groups = None) -> tuple[float, float, str]:
    """The interval of an AUC from its variance, and its method: (low, high, method).

    DeLong's variance on the logit scale, which keeps the limits inside 0..1 (Pepe MS. The Statistical Evaluation of
    Medical Tests, 2003, 5.2). Where that variance is 0 (classes apart, or every score the same) or undefined
    (one scan in a class) it would claim a certainty that is not there; Newcombe's interval takes its place, with the
    number of patients in each class instead of the scans.
    """
    if variance > 0 and 0 < auc < 1:
        half = Z * np.sqrt(variance) / (auc * (1 - auc))
        low, high = expit(logit(auc) + np.array((-half, half)))
        clusters = "" if independent(groups) else " with Obuchowski's clusters"
        return float(low), float(high), f"DeLong{clusters}, logit scale"
    index, _ = bootstrap.group_index(groups, len(y_true))
    n_positive, n_negative = (np.unique(index[np.asarray(y_true) == value]).size for value in (1, 0))
    low, high = newcombe_interval(auc, n_positive, n_negative)
    return low, high, "Newcombe 2006, method 5 (DeLong's variance is 0 or undefined)"


def independent(groups: Groups) -> bool:
    """Whether every row is its own group."""
    return groups is None or np.unique(groups).size == len(groups)


def wilson_interval(successes: float, trials: float, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a proportion, without continuity correction; InputError without trials.

    Written out because SciPy's takes whole trials only. Wilson EB. J Am Stat Assoc 1927;22:209-12.
    """
    if not trials > 0:
        raise InputError("a proportion of 0 scans has no interval")
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return (0.0 if share == 0 else float(centre - half)), (1.0 if share == 1 else float(centre + half))


def effective_trials(hits: ndarray, groups: Groups) -> float:
    """How many independent trials the (n,) bool `hits` of several scans per patient are worth: n / design effect.

    A design effect below 1 counts as 1; where all trials agree it cannot be estimated, and the number of patients is
    taken. Rao JNK, Scott AJ. A simple method for the analysis of clustered binary data. Biometrics 1992;48:577-85.
    """
    hits = np.asarray(hits, dtype=float)
    index, count = bootstrap.group_index(groups, len(hits))
    share, n = hits.mean(), len(hits)
    if count == n:
        return n
    if count == 1 or share in (0, 1):
        return count
    residual = np.bincount(index, weights=hits - share)
    variance = count / (count - 1) * (residual**2).sum() / n**2
    return n / max(1.0, float(variance / (share * (1 - share) / n)))


def confusion(y_true: ndarray, y_score: ndarray, threshold: float = THRESHOLD) -> tuple[int, ...]:
    """(tn, fp, fn, tp) as int, in the order of `sklearn.metrics.confusion_matrix(...).ravel()`."""
    y_true, y_score = check_scores(y_true, y_score)
    y_pred = y_score >= threshold
    return tuple(int(np.sum((y_true == actual) & (y_pred == predicted))) for actual in (0, 1) for predicted in (0, 1))


def choose_thresholds(y_true: ndarray, y_score: ndarray) -> dict[str, float | None]:
    """Thresholds among the scores: {name of DERIVED: threshold, or None where it cannot be reached}.

    youden: largest sensitivity + specificity - 1 (Youden WJ. Cancer 1950;3:32-5), of several the highest threshold;
    sensitivity95, specificity95: at least 0.95 of the one, and the most of the other.

    Raises
    ------
    InputError
        All scans are of one class.
    """
    if one_class(y_true):
        raise InputError(f"no threshold can be derived: every scan ({len(y_true)}) has target {int(np.max(y_true))}")
    y_true, y_score = check_scores(y_true, y_score)
    fpr, tpr, scores = metrics.roc_curve(y_true, y_score, drop_intermediate=False)  # scores fall from infinity
    chosen = {"youden": np.argmax(np.round(tpr - fpr, 12)), "sensitivity95": np.flatnonzero(tpr >= 0.95)[0],
              "specificity95": np.flatnonzero(fpr <= 1 - 0.95 + 1e-12)[-1]}
    return {name: float(scores[k]) if np.isfinite(scores[k]) else None for name, k in chosen.items()}


# ---------------------------------------------------------------- estimates, as in metrics.json

def auc_estimate(y_true: ndarray, y_score: ndarray, groups: Groups = None, interval: dict | None = None) -> dict:
    """`auc_interval` as an estimate; no scan or one class only gives null and the reason."""
    reason = one_class(y_true) if len(y_true) else "no scan with a target"
    return no_estimate(reason) if reason else estimate(*auc_interval(y_true, y_score, groups), interval)


def proportion_estimate(hits: ndarray, of: str, groups: Groups = None, interval: dict | None = None,
                        rows: ndarray | slice = slice(None)) -> dict:
    """The share of True in the `rows` of `hits` with Wilson's interval; `of` names them, for the reason why there are
    none."""
    hits, groups = hits[rows], None if groups is None else np.asarray(groups)[rows]
    if not len(hits):
        return no_estimate(f"no {of}")
    share, trials = float(np.mean(hits)), effective_trials(hits, groups)
    method = "Wilson" if independent(groups) else "Wilson, Rao-Scott effective sample size"
    return estimate(share, *wilson_interval(share * trials, trials), method, interval)


def in_bins(y_true: ndarray, y_score: ndarray, index: ndarray, groups: Groups = None) -> list[dict]:
    """Of each bin that holds a scan: low and high (the lowest and the highest probability), n, n_positive,
    mean_probability, share_positive and its ci_low, ci_high, ci_method, as of `proportion_estimate`.

    index is (n,) int, each scan's bin.
    """
    found = []
    for rows in (index == k for k in np.unique(index)):
        p, share = y_score[rows], proportion_estimate(y_true, "scan", groups, rows=rows)
        found.append({"low": float(p.min()), "high": float(p.max()), "n": len(p), "n_positive": int(y_true[rows].sum()),
                      "mean_probability": float(p.mean()), "share_positive": share["value"]}
                     | {key: share[key] for key in ("ci_low", "ci_high", "ci_method")})
    return found


def reliability_bins(y_true: ndarray, y_score: ndarray, groups: Groups = None) -> list[dict]:
    """`in_bins` of BINS of equal width; low and high are their edges."""
    y_true, y_score = check_scores(y_true, y_score)
    index = calibration.bin_of(y_score)
    return [each | {"low": k / calibration.BINS, "high": (k + 1) / calibration.BINS}
            for k, each in zip(np.unique(index), in_bins(y_true, y_score, index, groups), strict=True)]


def all_metrics(y_true: ndarray, y_score: ndarray, threshold: float = THRESHOLD, points: dict | None = None,
                groups: Groups = None, resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> dict:
    """Every metric of one set of probabilities, ready for JSON.

    Parameters
    ----------
    y_score : (n,) float array
        Probabilities, 0..1.
    points : dict
        {name: (about, predicted)}: further operating points, what metrics.json says of each ({"threshold": ...}), and
        (n,) bool, which scans are predicted positive; None where it could not be reached.
    groups : (n,) array or None
        Patient ids: what the bootstrap draws, and what the intervals take as independent.

    Returns
    -------
    dict
        n, n_positive, n_groups, n_groups_rarer (of `cautions.rarer_class`); OVERALL; threshold, tn, fp, fn, tp and
        AT_THRESHOLD at `threshold`; operating_points: the same at each of `points`. Each metric is an estimate (see
        `estimates`).
    """
    y_true, y_score = check_scores(y_true, y_score)
    for value in y_score[(y_score < 0) | (y_score > 1)]:
        raise InputError(f"y_score holds {value}; a probability lies in 0..1")
    wanted = {None: ({"threshold": threshold}, y_score >= threshold), **(points or {})}
    reached = {name: point for name, point in wanted.items() if point[1] is not None}
    drawn = bootstrap.resample(y_true, y_score, [calls for _, calls in reached.values()], groups, resamples, seed)
    at = {name: about | {"threshold": None, "reason": UNREACHED} for name, (about, _) in wanted.items()}
    at |= {name: about | _at_threshold(y_true, calls, groups, drawn, k)
           for k, (name, (about, calls)) in enumerate(reached.items())}
    single = one_class(y_true, "it")
    found = {"n": len(y_true), "n_positive": int(y_true.sum()),
             "n_groups": bootstrap.group_index(groups, len(y_true))[1], "n_groups_rarer": rarer_class(y_true, groups),
             "auc": auc_estimate(y_true, y_score, groups, bootstrap.bca_interval(drawn, "auc"))}
    for name, function in FUNCTIONS.items():
        value = np.nan if single and name not in ("brier", "log_loss") else function(y_true, y_score)
        found[name] = bootstrap_estimate(value, bootstrap.bca_interval(drawn, name))
        if not np.isfinite(value):
            found[name] = no_estimate(single or NO_FIT)
    ece = estimate(calibration.expected_calibration_error(y_true, y_score), None, None, None)
    return found | {"ece": ece | {"reason": NO_ECE_INTERVAL}, **at.pop(None), "operating_points": at}


def reached(block: dict) -> dict[str, dict]:
    """{name of a threshold: what `all_metrics` says of it}: 0.5, and those of DERIVED that could be reached."""
    return {str(THRESHOLD): block} | {name: at for name, at in block["operating_points"].items() if "reason" not in at}


def _at_threshold(y_true, predicted, groups, drawn, k):
    """tn, fp, fn, tp and AT_THRESHOLD; the intervals are of `bootstrap.resample` at its k-th threshold."""
    (tn, fp, fn, tp), single = confusion(y_true, predicted), one_class(y_true, "it")

    def share(name, hits, rows, of):
        return proportion_estimate(hits, of, groups, bootstrap.bca_interval(drawn, (name, k)), rows)

    def other(name, function, reason):
        interval = bootstrap.bca_interval(drawn, (name, k))
        return no_estimate(reason) if reason else bootstrap_estimate(function(y_true, predicted), interval)

    no_f1 = None if tp + fp + fn else "no scan has target 1 or is predicted positive"
    no_mcc = single or (None if (tp + fp) * (tn + fn) else "all scans are predicted the same")
    return {"tn": tn, "fp": fp, "fn": fn, "tp": tp,
            "accuracy": share("accuracy", predicted == y_true, slice(None), "scan"),
            "balanced_accuracy": other("balanced_accuracy", metrics.balanced_accuracy_score, single),
            "sensitivity": share("sensitivity", predicted, y_true, "scan with target 1"),
            "specificity": share("specificity", ~predicted, ~y_true, "scan with target 0"),
            "ppv": share("ppv", y_true, predicted, "scan predicted positive"),
            "npv": share("npv", ~y_true, ~predicted, "scan predicted negative"),
            "f1": other("f1", metrics.f1_score, no_f1), "mcc": other("mcc", metrics.matthews_corrcoef, no_mcc)}
