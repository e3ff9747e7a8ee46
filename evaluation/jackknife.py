"""Every metric without each patient in turn, in closed form: what BCa intervals need, in O(n log n) instead of O(n^2).

y_true is (n,) of 0 and 1, y_score (n,) floats; index is (n,) int, each scan's patient, 0..count - 1; a result is
(count,) float64, NaN where the other patients cannot give the number.
"""
import numpy as np
from numpy import ndarray
from scipy.special import expit

from evaluation import calibration
from evaluation.weighted import BLOCK, Weighted, by_name, ratio


def without_each(scores: Weighted, index: ndarray, count: int) -> dict:
    """What `Weighted.measure` gives without each patient in turn; index is in the order of the scans."""
    y, rank, index = scores.y.astype(bool), ranks(scores.score), index[scores.ranked.order]  # in that of `scores`
    sums = scores.features.sum(axis=0) - grouped(scores.features, index, count)
    return by_name(sums, auc(y, rank, index, count), average_precision(y, rank, index, count),
                   *fits(scores, index, count))


def grouped(values: ndarray, index: ndarray, count: int) -> ndarray:
    """(n, k) values summed by patient: (count, k)."""
    return np.stack([np.bincount(index, column, count) for column in values.T], axis=1)


def ranks(score: ndarray) -> ndarray:
    """(n,) int: which of the distinct scores, in ascending order, is each scan's."""
    return np.unique(score, return_inverse=True)[1]


def auc(y: ndarray, rank: ndarray, index: ndarray, count: int) -> ndarray:
    """AUC without each patient: the won pairs of all, less those of its positives with any negative scan and of its
    negatives with any positive one, plus those inside of it, which were taken off twice. Exact.

    y is (n,) bool; rank of `ranks`.
    """
    def won(mine, others, sign):
        """Of each of `mine`, how many of `others` it outranks (sign 1) or is outranked by (-1), ties counting half."""
        ordered = np.sort(sign * others)
        return (np.searchsorted(ordered, sign * mine) + np.searchsorted(ordered, sign * mine, "right")) / 2

    positive, negative = index[y], index[~y]
    of_positive, of_negative = won(rank[y], rank[~y], 1), won(rank[~y], rank[y], -1)
    key = index * (rank.max() + 1) + rank  # patients one after the other, by rank in each
    inside = won(key[y], key[~y], 1) - np.searchsorted(np.sort(negative), positive)
    pairs = of_positive.sum() - np.bincount(positive, of_positive - inside, count)
    pairs -= np.bincount(negative, of_negative, count)
    return ratio(pairs, (y.sum() - np.bincount(positive, minlength=count))
                 * ((~y).sum() - np.bincount(negative, minlength=count)))


def average_precision(y: ndarray, rank: ndarray, index: ndarray, count: int) -> ndarray:
    """Average precision without each patient.

    Taking off a patient with `a` positive scans and `b` in all at or above a level turns its precision A / B into
    (A - a) / (B - b). Between two scans of the patient a and b stay, so that its sum over the levels is one of a few
    running sums there: one for each pair (a, b) that occurs. y is (n,) bool; rank of `ranks`.
    """
    levels, level_of = np.unique(rank[y], return_inverse=True)  # distinct scores of positive scans
    if not len(levels):
        return np.full(count, np.nan)
    here = np.bincount(level_of)
    above = here[::-1].cumsum()[::-1]
    both = len(y) - np.searchsorted(np.sort(rank), levels)
    reached = np.searchsorted(levels, rank, "right")  # levels at or below a scan
    # the scans of a patient that reach as many levels are one entry, the one that reaches most first
    entries, entry_of = np.unique(index * (len(levels) + 1) + (len(levels) - reached), return_inverse=True)
    patient, top = entries // (len(levels) + 1), len(levels) - entries % (len(levels) + 1)
    bottom = np.where(np.diff(patient, append=-1) == 0, np.append(top[1:], 0), 0)
    start = np.searchsorted(patient, patient)
    a, b = (np.append(0, np.bincount(entry_of, each).cumsum()).astype(int) for each in (y, np.ones(len(y))))
    own = np.diff(a)  # positive scans of the entry: all at its highest level
    a, b = a[1:] - a[start], b[1:] - b[start]

    def precision(a, b):
        return np.divide(above - a, both - b, out=np.zeros(len(levels)), where=both > b)

    whole = np.append(0, (here * precision(0, 0)).cumsum())
    total = np.full(count, whole[-1])
    total -= np.bincount(patient, np.where(start == np.arange(len(start)), whole[top], 0), count)
    part = np.zeros(len(entries))
    pairs, pair_of = np.unique(a * (b.max() + 1) + b, return_inverse=True)
    for k, pair in enumerate(pairs):
        which = np.flatnonzero(pair_of == k)
        changed = precision(*divmod(pair, b.max() + 1))
        running = np.append(0, (here * changed).cumsum())
        part[which] = running[top[which]] - running[bottom[which]] - own[which] * changed[top[which] - 1]
    total += np.bincount(patient, np.where(top > 0, part, 0), count)
    return ratio(total, y.sum() - np.bincount(index[y], minlength=count))


def fits(scores: Weighted, index: ndarray, count: int) -> tuple[ndarray, ndarray]:
    """Calibration slope and intercept without each patient, from the sample's.

    The sums over all scans are taken at the points of `Condensed`; those over the patient's own are taken off.
    """
    points, at_point = np.unique(scores.condensed.x, return_inverse=True)  # both classes have the same points
    moments = np.bincount(at_point, scores.condensed.total)[:, None] * points[:, None] ** np.arange(3)
    own_x, y = scores.x, scores.y
    (a0,), (b0,), (c0,) = *scores.fit, scores.offset
    positives = np.stack([y, y * own_x], axis=1)
    wanted = positives.sum(axis=0) - grouped(positives, index, count)

    def sums(which, a, b, powers):
        """For the fits `which` at a and b: sums of mu x^k, k < powers, and of mu (1 - mu) x^k, k < 2 powers - 1."""
        at = np.zeros((2, count))
        at[:, which] = a, b
        mu = expit(at[0, index] + at[1, index] * own_x)
        columns = [mu * own_x**k for k in range(powers)]
        columns += [mu * (1 - mu) * own_x**k for k in range(2 * powers - 1)]
        own = grouped(np.stack(columns, axis=1), index, count)[which]
        same = len(a) > 1 and np.ptp(a) == 0 and np.ptp(b) == 0  # at the start: once for all
        total, size = [], max(1, BLOCK // len(points))
        for k in range(0, 1 if same else len(a), size):
            rows = slice(k, 1 if same else k + size)
            with np.errstate(over="ignore"):  # faster than expit
                mu = 1 / (1 + np.exp(-a[rows, None] - b[rows, None] * points))
            total.append(np.hstack([mu @ moments[:, :powers], (mu * (1 - mu)) @ moments[:, :2 * powers - 1]]))
        return (np.concatenate(total) - own).T

    def logistic(which, a, b):
        m0, m1, h0, h1, h2 = sums(which, a, b, 2)
        return wanted[which, 0] - m0, wanted[which, 1] - m1, h0, h1, h2

    everyone = np.arange(count)
    slope = calibration.solve_logistic(logistic, np.full(count, a0), np.full(count, b0))[1]
    inside = (wanted[:, 0] > 0) & (wanted[:, 0] < len(y) - np.bincount(index, minlength=count))
    intercept = calibration.solve_intercept(lambda a: sums(everyone, a, np.ones(count), 1), np.full(count, c0),
                                            wanted[:, 0], inside)
    return slope, intercept
