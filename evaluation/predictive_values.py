"""Likelihood ratios of a call, and its predictive values at another prevalence, with intervals.

Everywhere: y_true is (n,) of 0 and 1, predicted (n,) bool, groups (n,) patient ids or None. In metrics.json avg and max
and each of their operating_points hold RATIOS and, of --prevalence, `at_prevalence`: [{prevalence, ppv, npv}].
"""
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.special import expit, logit

from evaluation import bootstrap
from evaluation.averaging import Ensemble
from evaluation.bootstrap import Groups
from evaluation.ensemble import patients
from evaluation.estimates import estimate, long_text, no_estimate
from evaluation.metrics import THRESHOLD, Z, effective_trials, independent

RATIOS = {"lr_positive": "Positive likelihood ratio", "lr_negative": "Negative likelihood ratio"}


def likelihood_ratios(y_true: ndarray, predicted: ndarray, groups: Groups = None) -> dict[str, dict]:
    """{name of RATIOS: estimate}: sensitivity / (1 - specificity), and (1 - sensitivity) / specificity.

    Intervals on the log scale (Simel DL, Samsa GP, Matchar DB. J Clin Epidemiol 1991;44:763-70), by patient where they
    have several scans: see `log_error`. Where sensitivity or specificity is 0 or 1, it gets z^2 / 2 hits and misses
    more; both of them, as Mercaldo N et al. have it (Stat Med 2007;26:2170-83, adjusted), would hold the truth in as
    few as 70 % of such studies. A ratio that is infinite is null, with ci_low.
    """
    y, predicted = np.asarray(y_true, dtype=bool), np.asarray(predicted, dtype=bool)
    return {"lr_positive": _ratio(y, predicted, groups, "positive"),
            "lr_negative": _ratio(y, ~predicted, groups, "negative")}


def _ratio(y, hits, groups, called):
    """The share of `hits` in the positive scans over that in the negative ones, as an estimate."""
    if y.all() or not y.any():
        return no_estimate("it needs both classes")
    if not hits.any():
        return no_estimate(f"no scan is predicted {called}")
    if bootstrap.group_index(groups, len(y))[1] < 2:
        return no_estimate("one patient only")
    share = np.array([hits[y].mean(), hits[~y].mean()])
    bound = np.isin(share, (0, 1))
    if bound.any():
        names = np.arange(len(y)) if groups is None else np.asarray(groups)
        trials = np.array([effective_trials(hits[rows], names[rows]) for rows in (y, ~y)])
        moved = np.where(bound, (share * trials + Z**2 / 2) / (trials + Z**2), share)
        centre = np.log(moved[0] / moved[1])
        error = np.sqrt(((1 - moved) / moved / (trials + bound * Z**2)).sum())
        how = "log scale, share of 0 or 1 adjusted"
    else:
        centre, error, how = np.log(share[0] / share[1]), log_error(y, hits, groups), "log scale (Simel 1991)"
    low, high = (float(limit) for limit in np.exp(centre + np.array((-Z, Z)) * error))
    how += "" if independent(groups) else ", by patient"
    if share[1] == 0:
        reason = f"infinite, above {low:.2f}: no scan with target 0 is predicted {called}"
        return no_estimate(reason) | {"ci_low": low, "ci_method": how}
    value = share[0] / share[1]
    return estimate(value, 0.0 if value == 0 else min(low, value), max(high, value), how)


def log_error(y_true: ndarray, hits: ndarray, groups: Groups = None) -> float:
    """Standard error of the logarithm of the ratio of the shares of `hits` in both classes.

    Each scan's share in the error of log(share of the positive) - log(share of the negative) is summed by patient, so
    that a patient's scans of both classes count together; where all are independent it is Simel's.
    """
    y, hits = np.asarray(y_true, dtype=bool), np.asarray(hits, dtype=float)
    own = np.where(y, hits / hits[y].mean() - 1, 1 - hits / hits[~y].mean()) / np.where(y, y.sum(), (~y).sum())
    index, count = bootstrap.group_index(groups, len(y))
    factor = 1.0 if independent(groups) else count / (count - 1)
    return float(np.sqrt(factor * (np.bincount(index, own) ** 2).sum()))


def at_prevalence(ratios: dict[str, dict], prevalence: float) -> dict:
    """prevalence, and ppv and npv as estimates, by Bayes' rule from `likelihood_ratios` and their limits.

    logit(ppv) = logit(prevalence) + log(LR+) and logit(1 - npv) = logit(prevalence) + log(LR-): the intervals are those
    of Mercaldo 2007 on the logit scale.
    """
    def posterior(entry):
        """The probability of target 1 as an estimate."""
        if entry["value"] is None and entry["ci_low"] is None:
            return no_estimate(entry["reason"])
        limits = [np.inf if each is None else each for each in (entry["value"], entry["ci_low"], entry["ci_high"])]
        with np.errstate(divide="ignore"):
            value, low, high = expit(logit(prevalence) + np.log(limits)).tolist()
        return estimate(value, low, high, f"Bayes' rule; {entry['ci_method']}")

    ppv, npv = (posterior(ratios[name]) for name in RATIOS)
    if npv["value"] is not None:
        npv |= {"value": 1 - npv["value"], "ci_low": 1 - npv["ci_high"], "ci_high": 1 - npv["ci_low"]}
    return {"prevalence": prevalence, "ppv": ppv, "npv": npv}


def add(block: dict, each: Ensemble, labelled: pd.DataFrame, prevalences: list[float]) -> None:
    """Add likelihood ratios and `at_prevalence` to an ensemble's block of metrics.json, and to its operating points.

    Parameters
    ----------
    labelled : DataFrame
        Of `ensemble.join_scans`, the scans with a target.
    prevalences : list of float
        Shares of target 1, inside of 0..1.
    """
    y, groups = labelled["target"].to_numpy(dtype=int), patients(labelled)
    calls = [(block, each.prob[labelled.index].to_numpy() >= THRESHOLD)]
    calls += [(block["operating_points"][name], predicted)
              for name, (_, predicted) in each.operating_points(labelled.index).items() if predicted is not None]
    for point, predicted in calls:
        point |= likelihood_ratios(y, predicted, groups)
        point["at_prevalence"] = [at_prevalence(point, prevalence) for prevalence in sorted(set(prevalences))]


def rows(points: Sequence[dict]) -> list[list[str]]:
    """Rows of the report: RATIOS and the predictive values at each prevalence, a column for each of `points`."""
    found = [[heading, *(long_text(point[name], 2) for point in points)] for name, heading in RATIOS.items()]
    for k, first in enumerate(points[0]["at_prevalence"]):
        found += [[f"{name.upper()} where {100 * first['prevalence']:g} % have Deauville 4–5",
                   *(long_text(point["at_prevalence"][k][name]) for point in points)] for name in ("ppv", "npv")]
    return found
