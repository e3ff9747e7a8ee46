"""Every metric of many weightings of the same scans at once: what the bootstrap needs, for 100,000 scans in seconds.

Everywhere: y_true is (n,) of 0 and 1; y_score is (n,) of finite floats; weights is (b, n) whole numbers, one row a
weighting: how often each scan counts.
"""
import numpy as np
from numpy import ndarray
from numpy.polynomial.chebyshev import chebvander

from evaluation import calibration

BLOCK = 100_000  # numbers at a time that the processor's cache holds
NODES = 14  # of a cell of `Condensed`
STEEPER = 1.5  # than the slope that its cells are made for, the steepest fit that `Condensed` is used for


def ratio(numerator: ndarray, denominator: ndarray) -> ndarray:
    """Their quotient, float64; NaN where the denominator is not above 0."""
    shape = np.broadcast(numerator, denominator).shape
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator > 0)


def from_counts(total: ndarray, positives: ndarray, tp: ndarray, predicted: ndarray) -> dict[str, ndarray]:
    """metrics.AT_THRESHOLD from arrays of counts: of scans, of positive ones, of true positives, of those predicted
    positive. NaN for 0 / 0."""
    fp, fn, negatives = predicted - tp, positives - tp, total - positives
    tn = negatives - fp
    sensitivity, specificity = ratio(tp, positives), ratio(tn, negatives)
    return {"accuracy": ratio(tp + tn, total), "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity, "specificity": specificity, "ppv": ratio(tp, predicted),
            "npv": ratio(tn, total - predicted), "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "mcc": ratio(tp * tn - fp * fn, np.sqrt(positives * negatives * predicted * (total - predicted)))}


class Ranked:
    """The scans sorted, and where the positive ones stand among the negative ones: what ROC statistics need.

    Attributes
    ----------
    order : (n,) int array
        The negative scans by score, then the positive ones by score. Weights are given in this order.
    negatives : int
        How many there are.
    scores : (levels,) array
        The distinct scores of positive scans.
    first : (levels,) int array
        The first positive scan at each of them, counted from the first positive one.
    under, up_to : (levels,) int array
        How many negative scans score below it, and below it or the same.
    """

    def __init__(self, y_true: ndarray, y_score: ndarray):
        y, score = np.asarray(y_true, dtype=bool), np.asarray(y_score)
        self.order, self.negatives = np.lexsort((score, y)), int((~y).sum())
        negative, positive = np.split(score[self.order], [self.negatives])
        self.scores, self.first = np.unique(positive, return_index=True)
        self.under, self.up_to = (np.searchsorted(negative, self.scores, side) for side in ("left", "right"))

    def measure(self, weights: ndarray) -> tuple[ndarray, ndarray]:
        """(b,) AUC, ties counting half, and (b,) average precision of each row of integer weights, in `order`.

        Average precision is the sum of precision times the step in recall, as sklearn.metrics.average_precision_score.
        NaN where a class has no weight; of average precision where the positives have none.
        """
        size = max(1, BLOCK // max(1, weights.shape[1]))
        found = [self._measure(weights[k:k + size]) for k in range(0, len(weights), size)]
        auc, precision = zip(*found, strict=True)
        return np.concatenate(auc), np.concatenate(precision)

    def _measure(self, weights):
        if not len(self.scores):
            return np.full((2, len(weights)), np.nan)
        lower = np.zeros((len(weights), self.negatives + 1), dtype=np.int32)
        np.cumsum(weights[:, :self.negatives], axis=1, dtype=np.int32, out=lower[:, 1:])
        below, total = lower[:, self.under], lower[:, -1:]
        here = weights[:, self.negatives:]
        if len(self.scores) < here.shape[1]:
            here = np.add.reduceat(here, self.first, axis=1, dtype=np.int32)
        here = here.astype(float)
        above = np.cumsum(here[:, ::-1], axis=1)[:, ::-1]  # positives with this score or a higher one
        tied = below if np.array_equal(self.under, self.up_to) else lower[:, self.up_to]
        pairs = np.einsum("bl,bl->b", here, (below + tied).astype(float)) / 2
        positives, predicted = above[:, 0], above + (total - below)
        precision = np.einsum("bl,bl->b", here, above / np.maximum(predicted, 1))
        return ratio(pairs, positives * total[:, 0]), ratio(precision, positives)


class Condensed:
    """Scans condensed to fewer points for sums of smooth functions of x, such as a logistic fit makes.

    The x of each class are cut into cells; in a cell a function stands as its interpolation through NODES Chebyshev
    points, so that a sum over scans is one over points, whose weights are linear in those of the scans. On cells of
    width 1 of a + b x, whose expit has its poles at a distance of pi, the interpolation is exact to 1e-14, and to 1e-12
    where b is STEEPER (Trefethen LN. Approximation Theory and Approximation Practice, 2013, theorem 8.2). Few scans
    stay as they are.

    Attributes
    ----------
    x, y : (points,) float array
    steepest : float
        Slope up to which fits are exact.
    cells : list of (slice of the scans, (scans, points) array, or None where its scans are the points)
    """

    def __init__(self, x: ndarray, y: ndarray, slope: float):
        """x and y are sorted as by `Ranked`; slope is the sample's."""
        self.x, self.y, self.whole = x, y, True  # the scans themselves
        self.cells: list[tuple[slice, ndarray | None]] = [(slice(0, len(x)), None)]
        width = 1 / max(1.0, abs(slope))
        self.steepest = STEEPER / width
        cell = np.floor(x / width)
        starts = np.flatnonzero((np.diff(cell, prepend=np.nan) != 0) | (np.diff(y, prepend=np.nan) != 0))
        if 4 * NODES * len(starts) < len(x):
            self.whole = False
            points = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
            parts = [slice(*ends) for ends in zip(starts, [*starts[1:], len(x)], strict=True)]
            self.cells = [(part, lagrange(2 * (x[part] / width - cell[part]) - 1, points)) for part in parts]
            self.x = ((cell[starts, None] + (points + 1) / 2) * width).ravel()
            self.y = y[starts].repeat(NODES)


def lagrange(x: ndarray, points: ndarray) -> ndarray:
    """(n, k) values at x, in -1..1, of the polynomials that are 1 at one of k Chebyshev points and 0 at the others."""
    degree = len(points) - 1
    scale = np.where(np.arange(degree + 1) == 0, 1, 2) / len(points)
    return (chebvander(x, degree) * scale) @ chebvander(points, degree).T


class Weighted:
    """What is measured of one set of probabilities, ready for many weightings.

    Attributes
    ----------
    ranked : Ranked
    y, x : (n,) float array
        In the order of `ranked`: target, logit of the probability.
    features : (n, 4 + 2 thresholds) float array
        Each scan's part in the sums that `measure` takes.
    condensed : Condensed
    fit : (a, b) arrays (1,)
        Logistic fit of the sample.
    offset : (1,) array
        Its intercept at slope 1.
    """

    def __init__(self, y_true: ndarray, y_score: ndarray, thresholds: list):
        self.ranked = Ranked(y_true, y_score)
        y, p = (np.asarray(values, dtype=float)[self.ranked.order] for values in (y_true, y_score))
        self.y, self.x, whole = y, calibration.clipped_logit(p), np.ones((1, len(y)))
        calls = [np.asarray(y_score) >= each if np.ndim(each) == 0 else each for each in thresholds]
        predicted = np.array(calls, dtype=bool).reshape(-1, len(y)).T[self.ranked.order]
        losses = (p - y) ** 2, calibration.row_log_loss(y, p)
        self.features = np.column_stack([np.ones(len(y)), y, *losses, predicted, predicted * y[:, None]])
        self.fit, self.offset = calibration.fit_logistic(self.x, y, whole), calibration.fit_intercept(self.x, y, whole)
        self.fitted = bool(np.isfinite(self.fit).all())
        self.condensed = Condensed(self.x, y, self.fit[1][0] if self.fitted else 1.0)

    def measure(self, weights: ndarray) -> dict:
        """{metric: (b,) float64} of (b, n) integer weights, in the order of the scans; {(metric, k): of threshold k}.

        NaN where the number cannot be had: no scan of a class, nothing predicted positive, no finite fit.
        """
        weights = np.take(weights, self.ranked.order, axis=1)
        sums, points = np.zeros((len(weights), self.features.shape[1])), []
        for part, basis in self.condensed.cells:
            block = weights[:, part].astype(float)
            sums += block @ self.features[part]
            points.append(block if basis is None else block @ basis)
        total, positives, brier, log_loss = sums.T[:4]
        auc, precision = self.ranked.measure(weights)
        values: dict = {"auc": auc, "average_precision": precision, "brier": ratio(brier, total),
                        "log_loss": ratio(log_loss, total)}
        for k, (above, hits) in enumerate(zip(*np.split(sums.T[4:], 2), strict=True)):
            values |= {(name, k): value for name, value in from_counts(total, positives, hits, above).items()}
        both, (slope, intercept) = (positives > 0) & (positives < total), self._fits(weights, np.hstack(points))
        return values | {"calibration_slope": np.where(both, slope, np.nan),
                         "calibration_intercept": np.where(both, intercept, np.nan)}

    def _fits(self, weights, points):
        """(b,) slope and intercept at slope 1; weights are those of the scans, points those of the condensed ones."""
        x, y, slope = self.condensed.x, self.condensed.y, np.full(len(weights), np.nan)
        if self.fitted:  # classes that are apart are so in every resample
            slope = calibration.fit_logistic(x, y, points, self.fit)[1]
        if self.fitted and not self.condensed.whole:
            unsure = np.flatnonzero(~(np.abs(slope) <= self.condensed.steepest))
            if unsure.size:
                slope[unsure] = calibration.fit_logistic(self.x, self.y, weights[unsure].astype(float), self.fit)[1]
        return slope, calibration.fit_intercept(x, y, points, self.offset)
