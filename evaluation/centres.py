"""Differences between centres that are measured with one ensemble, and how much they vary. Imports no torch."""
import math

import numpy as np
from scipy.special import logit
from scipy.stats import chi2

from evaluation.estimates import no_estimate
from evaluation.metrics import Z

FEWEST = 5  # centres, below which a variance between them says nothing


def difference(one: dict, other: dict) -> dict:
    """The difference of two independent estimates, with the interval that theirs give by the square-and-add method.

    Newcombe RG. Stat Med 1998;17:873-90, method 10, for proportions; for any two intervals Zou GY, Donner A. Stat Med
    2008;27:1693-702 (MOVER).

    Parameters
    ----------
    one, other : dict
        Of `estimates`, of different patients.

    Returns
    -------
    dict
        difference, ci_low, ci_high; None where an estimate, or its interval, is missing.
    """
    if None in (one["value"], other["value"]):
        return {"difference": None, "ci_low": None, "ci_high": None}
    found = one["value"] - other["value"]
    if None in (one["ci_low"], other["ci_low"]):
        return {"difference": found, "ci_low": None, "ci_high": None}
    down = math.hypot(one["value"] - one["ci_low"], other["ci_high"] - other["value"])
    up = math.hypot(one["ci_high"] - one["value"], other["value"] - other["ci_low"])
    return {"difference": found, "ci_low": found - down, "ci_high": found + up}


def heterogeneity(estimates: list[dict]) -> dict:
    """How much an AUC or a proportion varies between centres, beyond what their sizes explain.

    On the logit scale, each centre's variance being that of its interval there: Cochran's Q, I² (Higgins JPT, Thompson
    SG. Stat Med 2002;21:1539-58) and τ² (DerSimonian R, Laird N. Control Clin Trials 1986;7:177-88).

    Parameters
    ----------
    estimates : list of dict
        Of `estimates`, a centre each.

    Returns
    -------
    dict
        n_centres, q, p, i2 (share, 0 to 1), tau2 (of the logit); or an entry of `estimates.no_estimate`.
    """
    if len(estimates) < FEWEST:
        return no_estimate(f"needs {FEWEST} centres or more")
    known = [each for each in estimates if each["ci_low"] is not None and 0 < each["value"] < 1
             and 0 < each["ci_low"] and each["ci_high"] < 1]
    if len(known) < len(estimates):
        return no_estimate("some centre has no interval, or a value or limit of 0 or 1")
    y = logit([each["value"] for each in known])
    weight = (2 * Z / (logit([each["ci_high"] for each in known]) - logit([each["ci_low"] for each in known]))) ** 2
    q = float(np.sum(weight * (y - np.average(y, weights=weight)) ** 2))
    freedom = len(known) - 1
    scale = weight.sum() - (weight**2).sum() / weight.sum()
    return {"n_centres": len(known), "q": q, "p": float(chi2.sf(q, freedom)),
            "i2": max(0.0, 1 - freedom / q) if q else 0.0, "tau2": max(0.0, float((q - freedom) / scale))}
