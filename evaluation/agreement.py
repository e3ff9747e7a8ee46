"""Agreement of readers, or of a model and a reader: share, Cohen's kappa, Gwet's AC1, Fleiss' kappa. By the bootstrap.

Everywhere: ratings is (n, r) float64 of category numbers 0, 1, ..., NaN where a reader did not read the scan;
categories is how many there are. An index is (share that agrees - what
chance gives) / (1 - what chance gives); NaN where chance gives 1 or nothing was read twice.
"""
from collections.abc import Callable

import numpy as np
from numpy import ndarray

from evaluation import bootstrap
from evaluation.bootstrap import Groups
from evaluation.estimates import bootstrap_estimate, no_estimate

NAMES = {"agreement": "Agreement", "kappa": "Cohen's kappa", "ac1": "Gwet's AC1", "fleiss_kappa": "Fleiss' kappa"}
TWO, MANY = ("agreement", "kappa", "ac1"), ("agreement", "fleiss_kappa", "ac1")  # of two readers, of any number


def indices(ratings: ndarray, categories: int = 2) -> tuple[ndarray, Callable[[ndarray], dict[str, ndarray]]]:
    """What each scan adds to the sums that the indices are made of, (n, k), and a function of such sums, (b, k):
    {agreement, kappa (of two readers only), fleiss_kappa, ac1: (b,) float64}.

    Cohen J. Educ Psychol Meas 1960;20:37-46; Fleiss JL. Psychol Bull 1971;76:378-82; Gwet KL. Br J Math Stat Psychol
    2008;61:29-48, and with missing readings his Handbook of Inter-Rater Reliability, 4th ed. 2014, 2.6: agreement is
    over the scans that two or more have read, the categories' shares over all that were read.
    """
    counts = np.stack([(ratings == category).sum(axis=1) for category in range(categories)], axis=1).astype(float)
    read, two = counts.sum(axis=1), ratings.shape[1] == 2
    agree = np.divide((counts * (counts - 1)).sum(axis=1), read * (read - 1), out=np.zeros(len(read)), where=read > 1)
    shares = np.divide(counts, read[:, None], out=np.zeros_like(counts), where=read[:, None] > 0)
    both = [(ratings[:, [k]] == np.arange(categories)) * (read > 1)[:, None] for k in range(2)] if two else []
    features = np.column_stack([agree, read > 1, read > 0, shares, *both])

    def of_sums(sums):
        observed = _share(sums[:, 0], sums[:, 1])
        parts = np.split(sums[:, 3:], range(categories, sums.shape[1] - 3, categories), axis=1)
        share = _share(parts[0], sums[:, [2]])
        chance = {"fleiss_kappa": (share**2).sum(axis=1), "ac1": (share * (1 - share)).sum(axis=1) / (categories - 1)}
        if two:
            first, second = (_share(part, sums[:, [1]]) for part in parts[1:])
            chance["kappa"] = (first * second).sum(axis=1)
        return {"agreement": observed} | {name: _share(observed - by_chance, 1 - by_chance)
                                          for name, by_chance in chance.items()}

    return features, of_sums


def _share(part, whole):
    """part / whole, NaN where whole is 0, within rounding."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 1e-12)


def estimates(ratings: ndarray, groups: Groups, resamples: int, seed: int) -> dict:
    """n (scans that two or more have read) and estimates of TWO, or of more than two readers MANY; calls are 0 and 1.

    Intervals are the bootstrap's, by patient.
    """
    ratings = np.asarray(ratings, dtype=float)
    n, names = int(((~np.isnan(ratings)).sum(axis=1) > 1).sum()), TWO if ratings.shape[1] == 2 else MANY
    if not n:
        return {"n": 0} | {name: no_estimate("no scan was read by two") for name in names}
    features, of_sums = indices(ratings)
    drawn = bootstrap.distribution(lambda weights: of_sums(weights @ features), groups, len(ratings), resamples, seed)
    found: dict = {"n": n}
    for name in names:
        value = float(drawn["observed"][name][0])
        found[name] = no_estimate("all calls are the same") if np.isnan(value) else bootstrap_estimate(
            value, bootstrap.bca_interval(drawn, name))
    return found
