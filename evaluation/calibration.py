"""Whether a probability means what it says: calibration slope, intercept and error, recalibration, decision curve.

y_true is (n,) of 0 and 1, y_score (n,) probabilities in 0..1; weights is (b, n), one row a resample.
"""
import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit, xlogy
from sklearn.isotonic import IsotonicRegression

from common.files import InputError
from common.text import counted

BINS = 10  # of equal width
CLIP = 1e-9  # probabilities of exactly 0 or 1 have no logit
EPSILON = np.finfo(float).eps  # what scikit-learn's log_loss clips at
STEPS = 50


def clipped_logit(y_score: ndarray) -> ndarray:
    """The logit; of probabilities of exactly 0 or 1 that of CLIP and 1 - CLIP."""
    return logit(np.clip(np.asarray(y_score, dtype=float), CLIP, 1 - CLIP))


def row_log_loss(y_true: ndarray, y_score: ndarray) -> ndarray:
    """(n,) log loss of each scan."""
    p = np.clip(y_score, EPSILON, 1 - EPSILON)
    return -(xlogy(y_true, p) + xlogy(1 - np.asarray(y_true, dtype=float), 1 - p))


def fit(design: ndarray, y: ndarray, weights: ndarray, start: ndarray, offset: ndarray | float = 0.0) -> ndarray:
    """Maximum likelihood of P(y = 1) = expit(offset + design @ b) by Newton's method, for many weightings or y at once.

    Parameters
    ----------
    design : (n, c) float array
    y, weights : (n,) or (b, n) array
        y may be fractions of 1.
    start : (c,) array
        Not used where it is not finite.
    offset : (n,) array or 0

    Returns
    -------
    (b, c) float64 array
        NaN where it does not converge: classes apart, one class, columns that depend on each other.
    """
    y, weights = np.broadcast_arrays(np.atleast_2d(y), weights)
    c = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(-1, c * c)
    active, b = np.arange(len(y)), np.tile(start if np.isfinite(start).all() else np.zeros(c), (len(y), 1))
    result = np.full(b.shape, np.nan)
    for k in range(STEPS):
        mu, w = expit(b @ design.T + offset), weights[active]
        gradient = (w * (y[active] - mu)) @ design
        curvature = ((w * (mu * (1 - mu))) @ products).reshape(-1, c, c)
        spread = np.linalg.eigvalsh(curvature)
        good = spread[:, 0] > 1e-12 * spread[:, -1]
        curvature[~good] = np.eye(c)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1)
        b = b + step / np.maximum(1, longest)[:, None]  # short steps far from the optimum
        done = good & (longest < (1e-8 if k < STEPS - 1 else 1e-6))  # of few positives rounding may move it for ever
        result[active[done]] = b[done]
        keep = good & ~done
        active, b = active[keep], b[keep]
        if not active.size:
            break
    return result


def fit_logistic(x: ndarray, y: ndarray, weights: ndarray, start: ArrayLike = (0, 0)) -> ndarray:
    """`fit` of P(y = 1) = expit(a + b x): a and b, (2, b)."""
    return fit(np.stack([np.ones(len(x)), x], axis=1), y, weights, np.ravel(start)).T


def fit_intercept(x: ndarray, y: ndarray, weights: ndarray, start: ArrayLike = 0) -> ndarray:
    """`fit` of P(y = 1) = expit(a + x), slope held at 1: a, (b,)."""
    return fit(np.ones((len(x), 1)), y, weights, np.ravel(start), x)[:, 0]


def slope(y_true: ndarray, y_score: ndarray) -> float:
    """Slope of the logistic regression of y_true on the logit of y_score; 1 is calibrated, below 1 overconfident.

    Cox DR. Biometrika 1958;45:562-5; Van Calster B et al. BMC Med 2019;17:230. NaN without a finite solution.
    """
    y = np.asarray(y_true, dtype=float)
    return float(fit_logistic(clipped_logit(y_score), y, np.ones((1, len(y))))[1][0])


def intercept(y_true: ndarray, y_score: ndarray) -> float:
    """Calibration-in-the-large: the intercept with the slope held at 1; 0 is calibrated, below 0 the probabilities are
    too high.

    Sources as for `slope`. NaN without a finite solution.
    """
    y = np.asarray(y_true, dtype=float)
    return float(fit_intercept(clipped_logit(y_score), y, np.ones((1, len(y))))[0])


def bin_of(y_score: ndarray, bins: int = BINS) -> ndarray:
    """Index of the bin of equal width, 0..bins - 1; the last one includes 1."""
    return np.minimum((np.asarray(y_score) * bins).astype(int), bins - 1)


def expected_calibration_error(y_true: ndarray, y_score: ndarray, bins: int = BINS) -> float:
    """Mean over the scans of |share of 1 - mean probability| in their bin. No interval: resamples are biased upward.

    Naeini MP, Cooper GF, Hauskrecht M. AAAI 2015:2901-7; Guo C et al. ICML 2017.
    """
    order = np.lexsort((y_true, y_score))  # a sum of floats depends on its order
    gap = (np.asarray(y_true, dtype=float) - y_score)[order]
    sums = np.bincount(bin_of(y_score, bins)[order], weights=gap, minlength=bins)
    return float(np.abs(sums).sum() / len(gap))


# ---------------------------------------------------------------- recalibration

def fit_recalibration(method: str, y_true: ndarray, y_score: ndarray, of: str = "") -> dict:
    """Fit `platt`, `logistic`, `temperature` or `isotonic`: what `recalibrate` needs, ready for JSON.

    platt, logistic: expit(a + b logit(p)) by maximum likelihood (Cox DR. Biometrika 1958;45:562-5), platt with the
    targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), which keep the fit finite where the classes are apart (Platt JC.
    Advances in Large Margin Classifiers, 1999:61-74). temperature: expit(logit(p) / T), T above 0 (Guo C et al. ICML
    2017). isotonic: scikit-learn's (Zadrozny B, Elkan C. KDD 2002:694-9), linear between its points, level beyond them,
    within 1 / (n + 2) and 1 - 1 / (n + 2): n scans of one class do not make a probability 0 or 1.

    Parameters
    ----------
    of : str
        Whose scans these are, for messages.

    Returns
    -------
    dict
        method, and a, b (temperature: a is 0, b is 1 / T) or, isotonic, x, y and n.

    Raises
    ------
    InputError
        One class only, or no finite fit.
    """
    y, x = np.asarray(y_true, dtype=float), clipped_logit(y_score)
    who = f"{counted(len(y_true), 'scan')}{of and f' of {of}'}"
    n1, n0, n = y.sum(), (1 - y).sum(), len(y)
    if not n1 or not n0:
        raise InputError(f"--recalibrate {method}: the {who} to fit it on are all of one class")
    if method == "isotonic":
        fit = IsotonicRegression(y_min=1 / (n + 2), y_max=1 - 1 / (n + 2), out_of_bounds="clip")
        fit.fit(np.asarray(y_score, dtype=float), y)
        return {"method": method, "x": fit.X_thresholds_.tolist(), "y": fit.y_thresholds_.tolist(), "n": n}
    if method == "temperature":
        a, b = 0.0, fit_slope(x, y)
    else:
        target = np.where(y == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2)) if method == "platt" else y
        a, b = (float(value[0]) for value in fit_logistic(x, target, np.ones((1, n))))
    if not np.isfinite(b):
        raise InputError(f"--recalibrate {method}: no finite fit on {who}: " + (
            "are all their probabilities the same?" if method == "platt" else
            "their classes are apart, or in the wrong order, or all probabilities the same; use platt or isotonic"))
    return {"method": method, "a": a, "b": b}


def fit_slope(x: ndarray, y: ndarray) -> float:
    """Maximum likelihood of P(y = 1) = expit(b x), b above 0; NaN where there is none. x, y: (n,) float."""
    def score(b):
        return float((x * (y - expit(b * x))).sum())

    wrong = (x[y == 1] < 0).any() or (x[y == 0] > 0).any()  # else the steeper, the likelier
    if score(0) <= 0 or not wrong:
        return np.nan
    high = 1.0
    while score(high) > 0:
        high *= 2
    return float(brentq(score, 0, high, xtol=1e-12))


def recalibrate(fit: dict | None, y_score: ndarray) -> ndarray:
    """Apply what `fit_recalibration` returned; None leaves the probabilities as they are."""
    if fit is None:
        return np.asarray(y_score, dtype=float)
    if fit["method"] == "isotonic":
        return np.interp(y_score, fit["x"], fit["y"])
    return expit(fit["a"] + fit["b"] * clipped_logit(y_score))


def at_bounds(fit: dict | None, probability: ndarray) -> ndarray:
    """Which recalibrated probabilities lie at a bound of an isotonic fit: (n,) int, -1 the lower, 1 the upper, else
    0."""
    if fit is None or fit["method"] != "isotonic":
        return np.zeros(np.shape(probability), dtype=int)
    low = 1 / (fit["n"] + 2) if "n" in fit else 0.0  # fits of earlier versions reach 0 and 1
    return np.greater_equal(probability, 1 - low).astype(int) - np.less_equal(probability, low)


# ---------------------------------------------------------------- decision curve

def net_benefit(y_true: ndarray, y_score: ndarray, thresholds: ndarray) -> ndarray:
    """Net benefit (true positives - odds x false positives) / n at each threshold probability below 1.

    Vickers AJ, Elkin EB. Med Decis Making 2006;26:565-74.
    """
    y, p, thresholds = np.asarray(y_true, dtype=bool), np.asarray(y_score), np.asarray(thresholds, dtype=float)
    predicted = p[None, :] >= thresholds[:, None]
    tp, fp = (predicted & y).sum(axis=1), (predicted & ~y).sum(axis=1)
    return (tp - fp * thresholds / (1 - thresholds)) / len(y)
