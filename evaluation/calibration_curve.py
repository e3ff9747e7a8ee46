"""The smooth calibration curve with its band, how far the probabilities are from it, and bins of equal size.

The curve is the logistic regression of the target on a restricted cubic spline of the logit of the probability. ICI,
E50 and E90 are the mean, the median and the 90th percentile over the scans of |curve - probability|. They are never 0
in a sample, so that beside them stands what they are where every probability is right. metrics.json's
`calibration_curve` holds

    knots                  of the spline; 2: a straight line
    ici, e50, e90          estimates without interval, and if_perfect {median, high: below it are 95 % of simulations}
    curve                  [{probability, share_positive, ci_low, ci_high}]: pointwise, equally spaced probabilities
    bins                   [of `metrics.in_bins`], each of as many scans

Everywhere: y_true is (n,) of 0 and 1, y_score (n,) probabilities in 0..1, groups (n,) patient ids or None.
"""
import numpy as np
from numpy import ndarray
from scipy.special import expit
from scipy.stats import rankdata

from evaluation import bootstrap
from evaluation.bootstrap import Groups
from evaluation.calibration import BINS, clipped_logit, fit
from evaluation.cautions import rarer_class
from evaluation.estimates import estimate, no_estimate
from evaluation.metrics import NO_FIT, Z, check_scores, in_bins, one_class

KNOTS = {5: (0.05, 0.275, 0.5, 0.725, 0.95), 4: (0.05, 0.35, 0.65, 0.95), 3: (0.1, 0.5, 0.9)}  # quantiles: Harrell
ENOUGH = 40  # patients of the rarer class for 4 knots, 10 for each coefficient; with fewer of them 3
FEWEST_PATIENTS = 5  # of the rarer class: with fewer there is no curve
INDICES = {"ici": "ICI (mean error)", "e50": "E50 (median error)", "e90": "E90 (90th percentile)"}
NO_INTERVAL = "too high in samples, and higher in resamples of them: see if_perfect"
SIMULATIONS, CELLS = 1000, 4000  # more scans than CELLS are simulated in so many cells of neighbouring probabilities
POINTS = 101  # of the curve
FEWEST = 20  # scans in a bin


class Curve:
    """A fitted curve.

    Attributes
    ----------
    knots : (k,) float64 array
        Of the logit; none: a straight line.
    fitted : (n,) float64 array
        Its value at each scan.
    design : (n, c) float64 array
        Orthonormal columns times the square root of n.
    """

    def __init__(self, y_true: ndarray, y_score: ndarray, groups: Groups = None, knots: int | None = None):
        """Fit it; `knots` is 5, 4 or 3, or None: as many as there are patients for.

        Raises
        ------
        ValueError
            There is no finite fit, or none without one of the patients, or a class has fewer than FEWEST_PATIENTS.
        """
        y, x, rarer = np.asarray(y_true, dtype=float), clipped_logit(y_score), rarer_class(y_true, groups)
        if rarer < FEWEST_PATIENTS:
            raise ValueError(f"fewer than {FEWEST_PATIENTS} {'scans' if groups is None else 'patients'} of a class")
        wanted = knots or (4 if rarer >= ENOUGH else 3)
        for count in [each for each in KNOTS if each <= wanted] + [0]:
            self.knots = np.unique(np.quantile(x, KNOTS[count])) if count else np.empty(0)
            if count in (0, len(self.knots)):  # ties leave fewer
                q, self.triangle = np.linalg.qr(spline(x, self.knots))
                if np.abs(np.diag(self.triangle)).min() > 1e-7 * np.sqrt(len(x)):
                    break
        else:
            raise ValueError(NO_FIT)
        self.design = q * np.sqrt(len(x))
        self.coefficients = fit(self.design, y, np.ones(len(y)), np.zeros(self.design.shape[1]))[0]
        if np.isnan(self.coefficients).any():
            raise ValueError(NO_FIT)
        self.fitted = expit(self.design @ self.coefficients)
        self.covariance = self._covariance(y, groups)

    def _covariance(self, y, groups):
        curvature = self.fitted * (1 - self.fitted)
        products = self.design[:, :, None] * self.design[:, None, :] * curvature[:, None, None]
        information = products.sum(axis=0)
        index, count = bootstrap.group_index(groups, len(y))
        columns = np.hstack([self.design * (y - self.fitted)[:, None], products.reshape(len(y), -1)])
        sums = np.stack([np.bincount(index, column, count) for column in columns.T], axis=1)
        score, own = sums[:, :len(information)], sums[:, len(information):].reshape(-1, *information.shape)
        if np.linalg.eigvalsh(information - own).min() < 1e-6 * np.linalg.eigvalsh(information).min():
            raise ValueError(f"one {'scan' if groups is None else 'patient'} alone decides where the curve goes")
        away = np.linalg.solve(information - own, score[:, :, None])[:, :, 0]
        return away.T @ away * (count - 1) / count

    def design_at(self, probabilities: ndarray) -> ndarray:
        """The columns of `design` at (m,) probabilities: (m, c)."""
        columns = spline(clipped_logit(probabilities), self.knots)
        return np.linalg.solve(self.triangle.T, columns.T).T * np.sqrt(len(self.design))

    def at(self, probabilities: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        """The curve at (m,) probabilities and its pointwise limits: three (m,) arrays.

        On the logit scale, by the jackknife over patients in one Newton step each (CR3 of Bell RM, McCaffrey DF. Surv
        Methodol 2002;28:169-81): in 100 patients the sandwich is too narrow, the model's own covariance too wide.
        """
        design = self.design_at(probabilities)
        centre = design @ self.coefficients
        half = Z * np.sqrt(np.einsum("ij,jk,ik->i", design, self.covariance, design))
        return expit(centre), expit(centre - half), expit(centre + half)


def spline(x: ndarray, knots: ndarray) -> ndarray:
    """Columns 1, x and, from 3 knots on, the truncated cubes that are linear beyond the outer knots: (n, c) float64.

    Stone CJ, Koo CY. Proc Stat Comput Sect ASA 1985:45-8; Harrell FE. Regression modelling strategies, 2nd ed.
    2015, 2.4.
    """
    columns = [np.ones(len(x)), x]
    if len(knots) > 2:
        cubes = np.maximum(x[:, None] - knots, 0) ** 3
        *_, last, end = knots
        columns += [(cubes[:, j] - cubes[:, -2] * (end - knots[j]) / (end - last)
                     + cubes[:, -1] * (last - knots[j]) / (end - last)) / (end - knots[0]) ** 2
                    for j in range(len(knots) - 2)]
    return np.stack(columns, axis=1)


def errors(fitted: ndarray, y_score: ndarray) -> dict[str, ndarray]:
    """ICI, E50 and E90 of (..., n) values of a curve at (n,) probabilities: {name of INDICES: (...) array}.

    Austin PC, Steyerberg EW. Stat Med 2019;38:4051-65.
    """
    away = np.abs(fitted - y_score)
    return {"ici": away.mean(axis=-1), "e50": np.median(away, axis=-1), "e90": np.quantile(away, 0.9, axis=-1)}


def if_perfect(curve: Curve, y_score: ndarray, seed: int) -> dict[str, dict | None]:
    """ICI, E50, E90 of outcomes drawn from the probabilities, scan by scan: {name: {median, high}}, or None.

    None where more than `bootstrap.MOST_UNDEFINED` of the simulated curves have no finite fit.
    """
    cells = np.array_split(np.sort(y_score), min(CELLS, len(y_score)))  # sorted: whatever the order of the scans
    p, count = np.array([cell.mean() for cell in cells]), np.array([len(cell) for cell in cells])
    design, rng, found = curve.design_at(p), np.random.default_rng(seed), []
    start = np.linalg.lstsq(design, clipped_logit(p), rcond=None)[0]  # the line of perfect calibration
    size = max(1, bootstrap.BLOCK // len(p))
    for begin in range(0, SIMULATIONS, size):
        outcomes = rng.binomial(count, p, (min(size, SIMULATIONS - begin), len(p))) / count
        found.append(errors(expit(fit(design, outcomes, count, start) @ design.T), p))
    result: dict[str, dict | None] = {}
    for name in INDICES:
        values = np.concatenate([each[name] for each in found])
        known = values[~np.isnan(values)]
        many = len(known) >= (1 - bootstrap.MOST_UNDEFINED) * SIMULATIONS
        result[name] = {"median": float(np.median(known)), "high": float(np.quantile(known, 0.95))} if many else None
    return result


def equal_bins(y_true: ndarray, y_score: ndarray, groups: Groups = None) -> list[dict]:
    """Bins of as many scans each, BINS or so few that each has FEWEST, but 3; scans of one probability stay together.

    As of `metrics.in_bins`.
    """
    y, p = check_scores(y_true, y_score)
    count = int(np.clip(len(y) // FEWEST, 3, BINS))
    return in_bins(y, p, ((rankdata(p) - 0.5) * count / len(p)).astype(int), groups)


def measure(y_true: ndarray, y_score: ndarray, groups: Groups, seed: int) -> dict:
    """`calibration_curve` of metrics.json; where there is no curve, its numbers are null, with the reason."""
    found: dict = {"bins": equal_bins(y_true, y_score, groups)}
    try:
        if reason := one_class(y_true, "it"):
            raise ValueError(reason)
        curve = Curve(y_true, y_score, groups)
    except ValueError as reason:
        return found | {"knots": None, "curve": []} | {name: no_estimate(str(reason)) for name in INDICES}
    grid, perfect = np.linspace(np.min(y_score), np.max(y_score), POINTS), if_perfect(curve, y_score, seed)
    keys, columns = ("probability", "share_positive", "ci_low", "ci_high"), np.stack([grid, *curve.at(grid)], axis=1)
    found["curve"] = [dict(zip(keys, row, strict=True)) for row in columns.tolist()]
    return found | {"knots": max(2, len(curve.knots))} | {
        name: estimate(float(value), None, None, None) | {"reason": NO_INTERVAL, "if_perfect": perfect[name]}
        for name, value in errors(curve.fitted, np.asarray(y_score)).items()}


def error_text(entry: dict, short: bool = False) -> str:
    """ICI, E50 or E90 with what it is under perfect calibration, for pages or (short) terminal and figures."""
    if entry["value"] is None:
        return "none" if short else f"none: {entry['reason']}"
    perfect = entry["if_perfect"]
    if perfect is None:
        return f"{entry['value']:.3f}"
    if short:
        return f"{entry['value']:.3f} ({perfect['median']:.3f} if perfect)"
    return f"{entry['value']:.3f} (if perfect {perfect['median']:.3f}, up to {perfect['high']:.3f})"
