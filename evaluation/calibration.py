"""Whether a probability means what it says: calibration slope, intercept and error, recalibration, decision curve.

y_true is (n,) of 0 and 1, y_score (n,) probabilities in 0..1; weights is (b, n), one row a resample.
"""
import numpy as np
from numpy import ndarray
from scipy.optimize import brentq
from scipy.special import expit, logit, xlogy
from sklearn.isotonic import IsotonicRegression

from common.files import InputError
from common.text import counted

BINS = 10  # of equal width
CLIP = 1e-9  # probabilities of exactly 0 or 1 have no logit
EPSILON = np.finfo(float).eps  # what scikit-learn's log_loss clips at
STEPS, TOLERANCE = 50, 1e-9


def clipped_logit(y_score: ndarray) -> ndarray:
    """The logit; of probabilities of exactly 0 or 1 that of CLIP and 1 - CLIP."""
    return logit(np.clip(np.asarray(y_score, dtype=float), CLIP, 1 - CLIP))


def row_log_loss(y_true: ndarray, y_score: ndarray) -> ndarray:
    """(n,) log loss of each scan."""
    p = np.clip(y_score, EPSILON, 1 - EPSILON)
    return -(xlogy(y_true, p) + xlogy(1 - np.asarray(y_true, dtype=float), 1 - p))


def fit_logistic(x: ndarray, y: ndarray, weights: ndarray, start: tuple | None = None) -> tuple[ndarray, ndarray]:
    """Maximum likelihood of P(y = 1) = expit(a + b x) under each row of weights, by Newton's method.

    Parameters
    ----------
    x, y : (n,) float array
        y may be fractions of 1.
    weights : (b, n) float array
    start : pair of arrays or None
        Start of the iteration, the first of each; not used where it is not finite.

    Returns
    -------
    a, b : (b,) float64 array
        NaN where it does not converge: classes apart, one class, x all the same.
    """
    a, b = np.zeros((2, len(weights))) + (start if start is not None and np.isfinite(start).all() else 0)
    active, result = np.arange(len(a)), np.full((2, len(a)), np.nan)
    for _ in range(STEPS):
        w = weights[active]
        mu = expit(a[:, None] + b[:, None] * x)
        residual, curvature = w * (y - mu), w * (mu * (1 - mu))
        g0, h0 = residual.sum(axis=1), curvature.sum(axis=1)
        g1, h1, h2 = (np.einsum("bn,n->b", *each) for each in ((residual, x), (curvature, x), (curvature, x * x)))
        determinant = h0 * h2 - h1 * h1
        good = determinant > 1e-12 * h0 * h2
        safe = np.where(good, determinant, 1)
        step_a, step_b = (h2 * g0 - h1 * g1) / safe, (h0 * g1 - h1 * g0) / safe
        longest = np.maximum(1, np.maximum(np.abs(step_a), np.abs(step_b)))  # short steps far from the optimum
        a, b = a + step_a / longest, b + step_b / longest
        done = good & (np.maximum(np.abs(step_a), np.abs(step_b)) < TOLERANCE * (1 + np.abs(a) + np.abs(b)))
        result[:, active[done]] = a[done], b[done]
        keep = good & ~done
        active, a, b = active[keep], a[keep], b[keep]
        if not active.size:
            break
    return result[0], result[1]


def fit_intercept(x: ndarray, y: ndarray, weights: ndarray, start: ndarray | None = None) -> ndarray:
    """Maximum likelihood of P(y = 1) = expit(a + x), slope held at 1, under each row of weights: (b,) a, or NaN."""
    a = np.full(len(weights), 0.0 if start is None or not np.isfinite(start[0]) else float(start[0]))
    wanted, step = weights @ y, np.zeros(len(weights))
    inside = (wanted > 0) & (wanted < weights.sum(axis=1))
    for _ in range(STEPS):
        mu = expit(a[:, None] + x)
        expected, curvature = (np.einsum("bn,bn->b", weights, each) for each in (mu, mu * (1 - mu)))
        step = np.clip((wanted - expected) / np.maximum(curvature, 1e-300), -1, 1)
        a = np.where(inside, a + step, np.nan)
        if not (np.abs(step[inside]) > TOLERANCE).any():
            return a
    return np.where(np.abs(step) < 1e-6, a, np.nan)


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
