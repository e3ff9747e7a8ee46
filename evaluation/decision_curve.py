"""The decision curve: net benefit over a range of threshold probabilities, with pointwise bootstrap intervals.

metrics.json's `decision_curve` of avg and max holds [{threshold, net_benefit (an estimate), all}]: `all` is the net
benefit of calling every scan positive; that of calling none is 0.
"""
import numpy as np
from numpy import ndarray

from common.files import InputError
from evaluation import bootstrap
from evaluation.bootstrap import Groups
from evaluation.calibration import net_benefit
from evaluation.estimates import bootstrap_estimate, long_text
from evaluation.weighted import ratio


def thresholds_of(low: float, high: float) -> ndarray:
    """Both ends and the whole percents between them.

    Raises
    ------
    InputError
        They are no range inside of 0..1.
    """
    if not 0 < low < high < 1:
        raise InputError(f"--decision_range {low:g} {high:g}: give two probabilities, 0 < LOW < HIGH < 1")
    percents = np.arange(1, 100) / 100
    return np.array([low, *percents[(percents > low + 1e-9) & (percents < high - 1e-9)], high])


def measure(y_true: ndarray, y_score: ndarray, thresholds: ndarray, groups: Groups, resamples: int, seed: int
            ) -> list[dict]:
    """`decision_curve` of metrics.json at (t,) thresholds of `thresholds_of`.

    Intervals are the bootstrap's by patient (BCa), as Vickers AJ et al. BMC Med Inform Decis Mak 2008;8:53 propose.
    """
    y, p = np.asarray(y_true, dtype=float), np.asarray(y_score)
    odds = thresholds / (1 - thresholds)
    of_scan = (p[:, None] >= thresholds) * (y[:, None] - (1 - y[:, None]) * odds)  # what each scan brings

    def values_of(weights):
        return dict(enumerate(ratio((weights.astype(float) @ of_scan).T, weights.sum(axis=1))))

    drawn = bootstrap.distribution(values_of, groups, len(y), resamples, seed)
    benefit, everyone = (net_benefit(y_true, score, thresholds) for score in (p, np.ones(len(y))))
    return [{"threshold": float(threshold), "all": float(everyone[k]),
             "net_benefit": bootstrap_estimate(benefit[k], bootstrap.bca_interval(drawn, k))}
            for k, threshold in enumerate(thresholds)]


def table(curves: dict[str, list[dict]]) -> tuple[list[str], list[list[str]]]:
    """(headings, rows) of the report: few round thresholds of {ensemble: its curve}."""
    first = next(iter(curves.values()))
    thresholds = [point["threshold"] for point in first]
    for step in (0.2, 0.1, 0.05, 0.02, 0.01):
        shown = [k for k, each in enumerate(thresholds) if abs(each / step - round(each / step)) < 1e-6]
        if len(shown) >= 4:
            break
    else:
        shown = list(range(len(thresholds)))
    rows = [[f"{thresholds[k]:g}", *(long_text(curve[k]["net_benefit"]) for curve in curves.values()),
             f"{first[k]['all']:z.3f}".replace("-", "−")] for k in shown]
    return ["Threshold probability", *curves, "All positive"], rows
