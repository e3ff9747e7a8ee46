"""Statistics of the site head, per scan: accuracy, balanced accuracy, top 3; of several sites a scan, AUC and AP.

Everywhere: truth is (n, k) bool, the true site or sites of each scan (at least one); scores is (n, k), the highest is
the predicted site, of equal ones the first; weights is (b, n), how often each scan counts in each of b resamples.
"""
import numpy as np

from common.sites import truth_matrix
from evaluation import bootstrap
from evaluation.estimates import bootstrap_estimate
from evaluation.metrics import THRESHOLD, auc_estimate, proportion_estimate

TOP = 3
SINGLE, MULTI = ("loc_acc", "loc_bacc", "loc_top3"), ("loc_acc", "loc_top3", "loc_auc", "loc_ap")
SELECTED = {False: "loc_bacc", True: "loc_ap"}  # what --select loc follows: of one, of several sites a scan
NAMES = {"loc_acc": "accuracy", "loc_bacc": "balanced accuracy", "loc_top3": "top-3 accuracy",
         "loc_auc": "mean AUC of the sites", "loc_ap": "mean average precision of the sites"}


def mean_by_scan(scan_ids, values):
    """(index of each scan's first row, (scans, k) mean of `values` over its rows), scans in ascending order."""
    _, first, inverse, counts = np.unique(scan_ids, return_index=True, return_inverse=True, return_counts=True)
    total = np.zeros((len(first), values.shape[1]))
    np.add.at(total, inverse, values)
    return first, total / counts[:, None]


def hits(truth, scores, top=1):
    """(n,) bool: whether a true site is among the `top` highest scores."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(truth, best, axis=1).any(1)


def called(scores, multi=False):
    """Class indices that each row of scores calls, as text: the highest; with `multi` all of 0.5 or more, "0;2"."""
    if not multi:
        return [str(k) for k in np.argmax(scores, 1)]
    return [";".join(map(str, np.flatnonzero(row >= THRESHOLD))) for row in scores]


def name_of(text, names):
    """"0;2" -> "cervical; axillary"."""
    return "; ".join(names[int(k)] for k in text.split(";") if k)


def measure(truth, scores, weights=None, multi=False):
    """{name of SINGLE or MULTI: (b,) float64}; NaN where a resample cannot give it.

    loc_acc, loc_top3: the share of scans with a true site among the highest, the three highest scores. loc_bacc: the
    mean over sites of the share of their scans that are called so (recall). loc_auc, loc_ap: the mean over the sites of
    AUC and average precision, site by site against all other scans. Means are over the sites that the resample holds.
    """
    weights = np.ones((1, len(truth))) if weights is None else weights
    right, total = hits(truth, scores), weights.sum(1)
    found = {"loc_acc": _ratio(weights @ right, total), "loc_top3": _ratio(weights @ hits(truth, scores, TOP), total)}
    if not multi:
        recall = _ratio(weights @ (truth & right[:, None]), weights @ truth)
        return found | {"loc_bacc": _mean_known(recall)}
    auc, precision = np.full((2, len(weights), truth.shape[1]), np.nan)
    for k in np.flatnonzero(truth.any(0)):
        ranked = bootstrap.Ranked(truth[:, k], scores[:, k])
        below = ranked.below(weights[:, ranked.order])
        auc[:, k] = bootstrap.weighted_auc(*below)
        precision[:, k] = bootstrap.weighted_average_precision(*below)
    return found | {"loc_auc": _mean_known(auc), "loc_ap": _mean_known(precision)}


def evaluate(truth, scores, names, multi=False, groups=None, resamples=bootstrap.RESAMPLES, seed=0):
    """Every site metric of one model or ensemble, ready for JSON; estimates as in metrics.evaluate.

    Args:
        names (list of str): of the k sites.
        groups: (n,) patient ids or None; what the bootstrap draws.

    Returns:
        dict: n, n_groups, multi; SINGLE or MULTI; sites: [{name, n (scans with it), called (scans called so, see
        `called`), recall and precision by Wilson; multi: auc}]; with one site a scan `confusion`, (k, k) counts, a row
        a true site.
    """
    n, groups = len(truth), None if groups is None else np.asarray(groups)
    observed = measure(truth, scores, None, multi)
    blocks = [[measure(truth, scores, weights, multi) for weights in drawn] for drawn in (
        bootstrap.jackknife_weights(groups, n), bootstrap.resample_weights(groups, n, resamples, seed))]
    unit = None if bootstrap.group_index(groups, n)[1] < 2 else "scan" if groups is None else "patient"

    def interval(name):
        return bootstrap.bca_interval(observed[name][0], *(np.concatenate([block[name] for block in drawn])
                                                            for drawn in blocks), unit)

    result = {"n": n, "n_groups": bootstrap.group_index(groups, n)[1], "multi": multi}
    for name, of in (("loc_acc", 1), ("loc_top3", TOP)):
        result[name] = proportion_estimate(hits(truth, scores, of), "scan with a known site", groups, interval(name))
    for name in MULTI[2:] if multi else ("loc_bacc",):
        value = observed[name][0]
        result[name] = bootstrap_estimate(value, None if np.isfinite(value) else "no site can be measured",
                                          interval(name))
    is_called = truth_matrix(called(scores, multi), len(names))
    result["sites"] = []
    for k, name in enumerate(names):
        entry = {"name": name, "n": int(truth[:, k].sum()), "called": int(is_called[:, k].sum())}
        for share, of, hit, reason in (("recall", truth, is_called, "scan with this site"),
                                       ("precision", is_called, truth, "scan called so")):
            rows = of[:, k]
            entry[share] = proportion_estimate(hit[rows, k], reason, None if groups is None else groups[rows])
        if multi:
            entry["auc"] = auc_estimate(truth[:, k].astype(int), scores[:, k], groups)
        result["sites"].append(entry)
    if not multi:
        result["confusion"] = (truth.T.astype(int) @ is_called).tolist()
    return result


def _ratio(numerator, denominator):
    denominator = np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def _mean_known(values):
    """(b, k) -> (b,) mean over what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(1), known.sum(1))
