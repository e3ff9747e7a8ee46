"""The bootstrap: whole patients drawn with replacement, every metric of all resamples at once. NumPy and SciPy only.

A resample is a weight per scan: how often its patient was drawn. Efron B, Tibshirani RJ. An Introduction to the
Bootstrap, 1993; by patient: Davison AC, Hinkley DV. Bootstrap Methods and their Application, 1997, 3.8.
"""
import functools
import os
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy import ndarray
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from common.text import counted
from evaluation.weighted import Weighted

Groups = ndarray | None  # (n,) patient ids; None: each row is its own
CONFIDENCE = 0.95  # of every interval
TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
RESAMPLES = 2000
BLOCK = 4_000_000  # weights in memory at a time
THREADS = min(4, os.cpu_count() or 1)
MOST_LEFT_OUT = 2000  # parts that the patients are left out in, where there are more of them
MOST_UNDEFINED = 0.05  # of the resamples; with more of them there is no interval


def group_index(groups: Groups, n: int) -> tuple[ndarray, int]:
    """((n,) int index of each row's group, number of groups); without groups each row is its own."""
    names, index = np.unique(np.arange(n) if groups is None else np.asarray(groups), return_inverse=True)
    return index, len(names)


@functools.lru_cache(maxsize=2)  # a patient is drawn as often for every set of scores: 200 MB of 100,000 patients
def draws(count: int, resamples: int, seed: int) -> ndarray:
    """(resamples, count) uint8: how often each group is drawn; a 256th time has a probability below 1e-500."""
    rng, drawn = np.random.default_rng(seed), np.empty((resamples, count), dtype=np.uint8)
    for times in drawn:
        times[:] = np.bincount(rng.integers(count, size=count), minlength=count)
    return drawn


def resample_weights(groups: Groups, n: int, resamples: int, seed: int) -> Iterator[ndarray]:
    """Yield blocks (b, n) uint8 of how often each row is drawn; the same for the same groups, n and seed."""
    index, count = group_index(groups, n)
    for block in in_blocks(draws(count, resamples, seed), n):
        yield np.take(block, index, axis=1)


def in_blocks(drawn: ndarray, n: int) -> list[ndarray]:
    """The rows of `draws` in parts small enough for BLOCK when they become weights of n scans."""
    size = max(1, BLOCK // n)
    return [drawn[start:start + size] for start in range(0, len(drawn), size)]


def resample(y_true: ndarray, y_score: ndarray, thresholds: list, groups: Groups, resamples: int, seed: int) -> dict:
    """`distribution` of every metric of `metrics.all_metrics`.

    Parameters
    ----------
    y_true, y_score, groups
        As in `metrics`.
    thresholds : list of float or (n,) bool array
        Probabilities, or which rows are predicted positive.

    Returns
    -------
    dict
        As of `distribution`; {metric: values} and {(metric, k): values at thresholds[k]}.
    """
    return distribution(Weighted(y_true, y_score, thresholds).measure, groups, len(y_true), resamples, seed)


def distribution(values_of: Callable[[ndarray], dict], groups: Groups, n: int, resamples: int, seed: int) -> dict:
    """What `values_of` gives in the sample, without each group in turn, and in each resample.

    Of more than MOST_LEFT_OUT groups so many parts of them are left out, which gives BCa the same skewness.

    Parameters
    ----------
    values_of : callable
        (b, n) uint8 weights -> {metric: (b,) float64}.

    Returns
    -------
    dict
        unit: patient, scan, or None where there is one only. observed, jackknife, resamples: {metric: (1,), (groups,),
        (resamples,) float64}; NaN where the number cannot be had (a class not drawn, nothing predicted positive, no
        finite fit).
    """
    index, count = group_index(groups, n)
    unit = None if count < 2 else "scan" if groups is None else "patient"
    parts = min(count, MOST_LEFT_OUT)

    def measured(weights_of, rows):
        blocks = list(pool.map(lambda block: values_of(weights_of(block)), in_blocks(rows, n)))
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    # every thread calls NumPy for itself: BLAS's own would wait for each other
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(THREADS) as pool:
        return {"unit": unit, "observed": values_of(np.ones((1, n), dtype=np.uint8)),
                "jackknife": measured(lambda left_out: (index % parts != left_out).astype(np.uint8),
                                      np.arange(parts)[:, None]),
                "resamples": measured(lambda times: np.take(times, index, axis=1), draws(count, resamples, seed))}


def bca_interval(drawn: dict, metric: Hashable) -> dict:
    """Bias-corrected and accelerated interval of a bootstrap distribution.

    The percentile interval of an AUC misses mostly on one side (59 and 16 of 1000 studies of 80 patients); this one
    shifts its percentiles by the bias and the skewness, the latter from the jackknife. Efron B. J Am Stat Assoc
    1987;82:171-85.

    Parameters
    ----------
    drawn : dict
        Of `distribution`.
    metric
        One of its metrics.

    Returns
    -------
    dict
        low, high, method, undefined (number of resamples), reason (why there is no interval): there is one patient
        only, more than 5 % of the resamples are undefined, or all of them agree, since a width of 0 would claim a
        certainty that is not there.
    """
    (observed,), jackknife, values = (drawn[key][metric] for key in ("observed", "jackknife", "resamples"))
    known = values[~np.isnan(values)]
    undefined = len(values) - len(known)
    low, high, method, reason = None, None, None, None
    if drawn["unit"] is None:
        reason = "one patient or scan only: nothing to resample"
    elif undefined > MOST_UNDEFINED * len(values):
        reason = f"{undefined} of {counted(len(values), 'resample')} cannot give it"
    elif np.ptp(known) == 0:
        reason = "every resample gives the same value"
    else:
        low, high = np.quantile(known, bca_levels(observed, jackknife, known)).tolist()
        method = f"bootstrap by {drawn['unit']}, BCa"
    return {"low": low, "high": high, "method": method, "undefined": undefined, "reason": reason}


def bca_levels(observed: float, jackknife: ndarray, values: ndarray) -> ndarray:
    """The two levels of the bootstrap distribution that BCa takes in place of 0.025 and 0.975."""
    away = np.nanmean(jackknife) - jackknife if not np.isnan(jackknife).all() else np.zeros(1)
    away = away[~np.isnan(away)]
    scale = (away**2).sum() ** 1.5
    acceleration = (away**3).sum() / (6 * scale) if scale > 0 else 0.0
    margin = 1e-12 * (1 + abs(observed))  # ties with the sample count half
    below = (np.mean(values < observed - margin) + np.mean(values <= observed + margin)) / 2
    bias = norm.ppf(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    z = bias + norm.ppf(TAILS)
    return norm.cdf(bias + z / np.maximum(1 - acceleration * z, 1e-3))


def symmetric_test(observed: float, replicates: ndarray) -> tuple[float, float, float]:
    """Centred bootstrap test of observed = 0 and the interval of all values it does not reject: (low, high, p).

    The distribution of replicates - observed stands for that of observed - truth. p(d) = (1 + number of resamples with
    |replicate - observed| >= |observed - d|) / (1 + number of resamples); the interval is the set of d with
    p(d) >= 0.05, so 0 lies outside of it exactly where p < 0.05. Hall P, Wilson SR. Biometrics
    1991;47:757-62 (why to centre); Davison AC, Hinkley DV, 1997, 4.4 and 5.4.
    """
    known = replicates[~np.isnan(replicates)]
    away = np.sort(np.abs(known - observed))[::-1]
    p = (1 + np.sum(away >= abs(observed))) / (1 + len(away))
    needed = int(np.ceil((1 - CONFIDENCE) * (1 + len(away)) - 1 - 1e-9))  # resamples that far away or further
    if not 1 <= needed <= len(away) or away[0] == 0:  # too few, or all the same: a width of 0 is no interval
        return float("nan"), float("nan"), float(p)
    half = away[needed - 1]
    return float(observed - half), float(observed + half), float(p)


def roc_band(y_true: ndarray, y_score: ndarray, fpr: ndarray, groups: Groups = None, seed: int = 0) -> ndarray | None:
    """Pointwise percentile band, (low, high), of the sensitivity at each of the false positive rates `fpr`.

    Of 500 resamples; None where none of them has both classes.
    """
    order, curves = np.argsort(y_score, kind="stable"), []
    y, ends = np.asarray(y_true)[order], np.append(np.flatnonzero(np.diff(np.asarray(y_score)[order])), len(order) - 1)
    for weights in resample_weights(groups, len(y), 500, seed):
        for times in weights:
            positive, negative = (np.append(0, np.cumsum(times[order] * (y == of), dtype=float)[ends]) for of in (1, 0))
            if positive[-1] and negative[-1]:
                curves.append(np.interp(fpr, 1 - negative[::-1] / negative[-1], 1 - positive[::-1] / positive[-1]))
    return np.quantile(curves, TAILS, axis=0) if curves else None

