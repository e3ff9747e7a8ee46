"""How often the AUC's interval holds the truth where a class has few patients, and the bars of the reliability figure.

python tests/coverage_helpers.py [N]: both in N studies (default 3000), for the reference page.
"""
import sys
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, t

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from prediction_helpers import binormal, share_inside

from evaluation import metrics

HIGH = ((30, 100), (40, 100), (60, 100), (80, 100), (40, 40), (60, 60), (100, 100), (30, 300), (60, 300))
SHARE = 0.45 * 0.8 + 0.55 * 0.2  # of positive scans in `prediction_helpers.binormal`


def few(rng, positive, negative, auc, clustered=False):
    """y, score, patients of a study: binormal; with clusters of 1 to 3 scans that share much of their error."""
    sizes = rng.integers(1, 4, positive + negative) if clustered else np.ones(positive + negative, dtype=int)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y, rho = (groups < positive).astype(int), 0.6 if clustered else 0
    noise = np.sqrt(rho) * rng.normal(size=len(sizes))[groups] + np.sqrt(1 - rho) * rng.normal(size=len(y))
    return y, y * norm.ppf(auc) * np.sqrt(2) + noise, groups


def auc_coverage(studies, positive, negative, auc, clustered=False, seed=0):
    """Share of the AUC's intervals that hold the truth: as `metrics.auc_interval` gives them, and with t quantiles."""
    rng, limits, with_t = np.random.default_rng((seed, positive, negative, clustered)), [], []
    ratio = t.ppf(0.975, min(positive, negative) - 1) / metrics.Z
    for _ in range(studies):
        y, score, groups = few(rng, positive, negative, auc, clustered)
        value, low, high, method = metrics.auc_interval(y, score, groups)
        limits.append((low, high))
        if method.startswith("DeLong"):
            low, high = expit(logit(value) + ratio * (logit([low, high]) - logit(value)))
        with_t.append((low, high))
    return share_inside(limits, auc), share_inside(with_t, auc)


def bar_coverage(studies, clustered, seed=11):
    """Share of the bars of one bin that hold the truth: by patient, and as though scans were independent."""
    rng, bars, blind = np.random.default_rng(seed), [], []
    for _ in range(studies):
        y, _, _, groups = binormal(rng, clustered)
        (bar,), (other,) = (metrics.reliability_bins(y, np.full(len(y), 0.45), each) for each in (groups, None))
        bars.append((bar["ci_low"], bar["ci_high"]))
        blind.append((other["ci_low"], other["ci_high"]))
    return share_inside(bars, SHARE), share_inside(blind, SHARE)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    for sizes in [(n, 100) for n in (5, 8, 10, 15, 20, 30)] + [(n, n) for n in (8, 10, 15, 20)]:
        found = [[auc_coverage(count, *sizes, auc, clustered) for clustered in (False, True)]
                 for auc in (0.75, 0.85, 0.95)]
        cells = [f"{one[k]:.3f} ({several[k]:.3f})" for k in (0, 1) for one, several in found]
        print(f"| {sizes[0]} against {sizes[1]} | {' | '.join(cells)} |", flush=True)
    for sizes in HIGH:
        cells = [f"{min(sizes) * (1 - auc):.1f}: {' '.join(f'{each:.3f}' for each in one)}" for auc in (0.9, 0.95, 0.98)
                 for one in [[auc_coverage(count, *sizes, auc, clustered)[0] for clustered in (False, True)]]]
        print(f"| {sizes[0]} against {sizes[1]} | {' | '.join(cells)} |", flush=True)
    for clustered in (False, True):
        print("bars, several scans a patient:" if clustered else "bars:", *bar_coverage(count, clustered))
