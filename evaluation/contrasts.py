"""Differences between subgroups in AUC, sensitivity and specificity: interval by patient, p adjusted by Holm.

Groups may share patients, or scans, as views do. AUC: the centred bootstrap of `paired_tests`, which draws a patient's
scans in all groups together. Sensitivity and specificity: `proportion_difference`, since the bootstrap's interval is
too narrow (it held 0.917 of the differences, at 100 patients with several scans).
"""
import itertools

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.optimize import brentq
from scipy.stats import norm, t

from evaluation import bootstrap, paired_tests
from evaluation.ensemble import MISSING
from evaluation.estimates import difference_text, p_text
from evaluation.metrics import COMPARED, THRESHOLD, effective_trials, wilson_interval
from evaluation.weighted import Ranked

MOST_PAIRS = 4  # values of a column of which all pairs are compared; of more each with the largest
HIGHEST_Z = 38.0  # beyond it p is 0


def proportion_difference(a: ndarray, b: ndarray, patients_a: ndarray, patients_b: ndarray) -> dict:
    """The share of True in a less that in b, by the limits of Wilson squared and added.

    Newcombe RG. Stat Med 1998;17:873-90, method 10; with patients in both groups as 1998;17:2635-50, their correlation
    taken from the sums of residuals by patient. Several scans of a patient count as `metrics.effective_trials`, with t
    quantiles (degrees of freedom: patients of both groups less 2), since the design effect is an estimate.

    Parameters
    ----------
    a, b : (n,), (m,) bool arrays
    patients_a, patients_b : (n,), (m,) arrays
        Ids, of one kind.

    Returns
    -------
    dict
        difference, ci_low, ci_high, p (two-sided: the level at which a limit is 0)[, reason].
    """
    if not (len(a) and len(b)):
        return {"difference": None, "ci_low": None, "ci_high": None, "p": None, "reason": "a group has no such scan"}
    shares = [float(np.mean(each)) for each in (a, b)]
    index, count = bootstrap.group_index(np.concatenate([patients_a, patients_b]), len(a) + len(b))
    residuals = [np.bincount(of, weights=hits - share, minlength=count)
                 for of, hits, share in zip(np.split(index, [len(a)]), (a, b), shares, strict=True)]
    sizes = [effective_trials(a, patients_a), effective_trials(b, patients_b)]
    both = np.sqrt((residuals[0] ** 2).sum() * (residuals[1] ** 2).sum())
    phi = float((residuals[0] * residuals[1]).sum() / both) if both > 0 else 0.0
    difference = shares[0] - shares[1]
    patients = [len(np.unique(each)) for each in (patients_a, patients_b)]
    alone = patients == [len(a), len(b)]
    quantiles = norm() if alone else t(max(1, sum(patients) - 2))

    def limits(z):
        (low_a, high_a), (low_b, high_b) = (wilson_interval(share * size, size, z)
                                            for share, size in zip(shares, sizes, strict=True))
        down = shares[0] - low_a, high_b - shares[1]
        up = high_a - shares[0], shares[1] - low_b
        return [difference + sign * np.sqrt(max(0, x**2 - 2 * phi * x * y + y**2))
                for sign, (x, y) in ((-1, down), (1, up))]

    def nearest(z):  # above 0 as long as 0 lies outside
        return limits(z)[0] if difference > 0 else -limits(z)[1]

    p = 1.0
    if difference:
        p = float(2 * quantiles.sf(brentq(nearest, 1e-9, HIGHEST_Z))) if nearest(HIGHEST_Z) < 0 else 0.0
    low, high = map(float, limits(quantiles.isf(bootstrap.TAILS[0])))
    return {"difference": difference, "ci_low": low, "ci_high": high, "p": p}


def differences(scores: dict[str, pd.Series], target: pd.Series, patients: pd.Series | None, resamples: int,
                seed: int) -> list[dict]:
    """Each subgroup less another one; scans whose field is empty, MISSING, are no side of any.

    Parameters
    ----------
    scores : dict
        {value of a column: probabilities by scan_id}.
    target, patients : Series
        0 or 1, and ids, by scan_id; patients None: scans are independent.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        a, b (values), and of each of COMPARED difference, ci_low, ci_high, p[, reason].
    """
    scores = {value: score for value, score in scores.items() if len(score) and value != MISSING}
    if len(scores) < 2:
        return []
    rows = pd.concat(scores.values())
    y, p = target[rows.index].to_numpy() == 1, rows.to_numpy()
    ids = bootstrap.group_index((rows.index if patients is None else patients[rows.index]).to_numpy(), len(rows))[0]
    ends = np.cumsum([0, *map(len, scores.values())])
    parts = {value: slice(*pair) for value, pair in zip(scores, itertools.pairwise(ends), strict=True)}
    ranked = [Ranked(y[part], p[part]) for part in parts.values()]
    pairs = list(itertools.combinations(scores, 2))
    if len(scores) > MOST_PAIRS:
        largest = max(scores, key=lambda value: len(scores[value]))
        pairs = [(value, largest) for value in scores if value != largest]
    one, other = ([list(scores).index(pair[k]) for pair in pairs] for k in (0, 1))

    def aucs(weights: ndarray) -> ndarray:  # (b, rows) -> (b, pairs)
        by_group = np.array([each.measure(weights[:, part][:, each.order])[0]
                             for part, each in zip(parts.values(), ranked, strict=True)])
        return (by_group[one] - by_group[other]).T

    _, of_auc = paired_tests.tested(aucs, ids, len(rows), resamples, seed)
    found = []
    for (a, b), auc in zip(pairs, of_auc, strict=True):
        entry: dict = {"a": a, "b": b, "auc": auc}
        for name, of_class in (("sensitivity", y), ("specificity", ~y)):
            (right_a, ids_a), (right_b, ids_b) = (
                (((p >= THRESHOLD) == y)[part][of_class[part]], ids[part][of_class[part]])
                for part in (parts[a], parts[b]))
            entry[name] = proportion_difference(right_a, right_b, ids_a, ids_b)
        found.append(entry)
    return found


def adjust(contrasts: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Add p_holm to `differences` of each column: over the contrasts of all columns, for each metric by itself."""
    every = [pair for pairs in contrasts.values() for pair in pairs]
    for name in COMPARED:
        paired_tests.holm([pair[name] for pair in every])
    return contrasts


def report_table(contrasts: dict[str, list[dict]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the report's table."""
    rows = []
    for column, pairs in contrasts.items():
        for pair in pairs:
            cells = [(difference_text(pair[name]), p_text(pair[name]["p_holm"])) for name in COMPARED]
            rows.append([f"{column}: {pair['a']} less {pair['b']}", *itertools.chain(*cells)])
    return ["", *itertools.chain(*((name, "p, Holm") for name in COMPARED.values()))], rows
