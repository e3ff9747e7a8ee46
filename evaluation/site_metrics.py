"""Statistics of the site head, per scan: accuracy, balanced accuracy, top 3; of several sites a scan, AUC and AP.

Everywhere: truth is (n, k) bool, the true site or sites of each scan (at least one); scores is (n, k) float, the
highest is the predicted site, of equal ones the first; weights is (b, n), how often each scan counts in each of b
resamples.
"""
import functools

import numpy as np
from numpy import ndarray

from common.sites import truth_matrix
from evaluation import bootstrap
from evaluation.bootstrap import Groups
from evaluation.estimates import bootstrap_estimate, no_estimate
from evaluation.metrics import THRESHOLD, auc_estimate, proportion_estimate
from evaluation.weighted import Ranked, ratio

TOP = 3
SINGLE, MULTI = ("loc_acc", "loc_bacc", "loc_top3"), ("loc_acc", "loc_top3", "loc_auc", "loc_ap")
SELECTED = {False: "loc_bacc", True: "loc_ap"}  # what --select loc follows: of one, of several sites a scan
NAMES = {"loc_acc": "accuracy", "loc_bacc": "balanced accuracy", "loc_top3": "top-3 accuracy",
         "loc_auc": "mean AUC of the sites", "loc_ap": "mean average precision of the sites"}


def mean_by_scan(scan_ids: ndarray, values: ndarray) -> tuple[ndarray, ndarray]:
    """The rows' means by scan, scans in ascending order.

    Parameters
    ----------
    scan_ids : (rows,) array
    values : (rows, k) float array

    Returns
    -------
    first : (scans,) int array
        Index of each scan's first row.
    mean : (scans, k) float64 array
    """
    _, first, inverse, counts = np.unique(scan_ids, return_index=True, return_inverse=True, return_counts=True)
    total = np.zeros((len(first), values.shape[1]))
    np.add.at(total, inverse, values)
    return first, total / counts[:, None]


def hits(truth: ndarray, scores: ndarray, top: int = 1) -> ndarray:
    """(n,) bool: whether a true site is among the `top` highest scores."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return np.any(np.take_along_axis(truth, best, axis=1), axis=1)


def predicted_sites(scores: ndarray, multi: bool = False) -> list[str]:
    """The predicted class of each row of scores as text: the highest; with `multi` all of 0.5 or more, "0;2"."""
    if not multi:
        return [str(k) for k in np.argmax(scores, 1)]
    return [";".join(map(str, np.flatnonzero(row >= THRESHOLD))) for row in scores]


def name_of(text: str, names: list[str]) -> str:
    """"0;2" -> "cervical; axillary"."""
    return "; ".join(names[int(k)] for k in text.split(";") if k)


def weighted_metrics(truth: ndarray, scores: ndarray, weights: ndarray | None = None,
                     multi: bool = False) -> dict[str, ndarray]:
    """The metrics of every resample.

    Returns
    -------
    dict
        {name of SINGLE or MULTI: (b,) float64}; NaN where a resample cannot give it. loc_acc, loc_top3: the share of
        scans with a true site as, or among the three, highest. loc_bacc: the mean over the sites of the share of their
        scans that are predicted so (recall). loc_auc, loc_ap: the mean over the sites of AUC and average precision,
        each site against all other scans. Means are over the sites that the resample holds.
    """
    weights = np.ones((1, len(truth)), dtype=np.uint8) if weights is None else weights
    right, near = hits(truth, scores), hits(truth, scores, TOP)
    of_scan = np.column_stack([np.ones(len(truth)), right, near, truth, truth & right[:, None]])
    total, right, near, *of_sites = (weights.astype(float) @ of_scan).T
    found = {"loc_acc": ratio(right, total), "loc_top3": ratio(near, total)}
    if not multi:
        true, predicted = np.split(np.stack(of_sites, axis=1), 2, axis=1)
        return found | {"loc_bacc": _mean_known(ratio(predicted, true))}
    ranked = [Ranked(site, score) for site, score in zip(truth.T, scores.T, strict=True)]
    auc, precision = (np.stack(values, axis=1) for values in zip(
        *(site.measure(weights[:, site.order]) for site in ranked), strict=True))
    return found | {"loc_auc": _mean_known(auc), "loc_ap": _mean_known(precision)}


def all_metrics(truth: ndarray, scores: ndarray, names: list[str], multi: bool = False,
                groups: Groups = None, resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> dict:
    """Every site metric of one model or ensemble, ready for JSON; estimates as in `estimates`.

    Parameters
    ----------
    names : list of str
        Of the k sites.
    multi : bool
        Several sites a scan.
    groups : (n,) array or None
        Patient ids: what the bootstrap draws.

    Returns
    -------
    dict
        n, n_groups, multi; SINGLE or MULTI; sites: [{name, n (scans with it), called (scans predicted so), recall and
        precision by Wilson; multi: auc}]; with one site a scan `confusion`, (k, k) counts, a row a true site.
    """
    n, values_of = len(truth), functools.partial(weighted_metrics, truth, scores, multi=multi)
    drawn = bootstrap.distribution(values_of, groups, n, resamples, seed)
    result: dict = {"n": n, "n_groups": bootstrap.group_index(groups, n)[1], "multi": multi}
    for name, (value, *_) in drawn["observed"].items():
        interval = bootstrap.bca_interval(drawn, name)
        if name in ("loc_acc", "loc_top3"):
            right = hits(truth, scores, 1 if name == "loc_acc" else TOP)
            result[name] = proportion_estimate(right, "scan with a known site", groups, interval)
        else:
            known = np.isfinite(value)
            result[name] = bootstrap_estimate(value, interval) if known else no_estimate("no site can be measured")
    predicted = truth_matrix(predicted_sites(scores, multi), len(names))
    result["sites"] = []
    for name, true, called, score in zip(names, truth.T, predicted.T, scores.T, strict=True):
        entry = {"name": name, "n": int(true.sum()), "called": int(called.sum()),
                 "recall": proportion_estimate(called, "scan with this site", groups, rows=true),
                 "precision": proportion_estimate(true, "scan predicted so", groups, rows=called)}
        result["sites"].append(entry | ({"auc": auc_estimate(true.astype(int), score, groups)} if multi else {}))
    return result if multi else result | {"confusion": (truth.T.astype(int) @ predicted).tolist()}


def _mean_known(values):
    """(b, k) -> (b,) mean over what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(1), known.sum(1))
