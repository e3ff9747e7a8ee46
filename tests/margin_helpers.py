"""Simulated comparisons, how often the intervals of paired differences hold the truth, and how often non-inferiority is
claimed where the first ensemble is worse by exactly the margin.

python tests/margin_helpers.py [N]: in N studies (default 1000) of 100 patients, for the reference page.
"""
import functools
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import margins, paired_tests
from evaluation.weighted import Ranked


def compared(rng, patients=100, most=1):
    """(target, the first and the better second ensemble's scores, patient): 1 to `most` scans a patient."""
    patient = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
    shared, n = 0.7 * rng.normal(size=patients)[patient], len(patient)
    target = rng.random(n) < 0.4
    common = shared + rng.normal(0, 0.7, n)
    first, second = (common + rng.normal(0, 0.7, n) + apart * (target - 0.5) for apart in (1.8, 2.3))
    return target, first, second, patient


@functools.cache
def truths(most):
    target, first, second, _ = compared(np.random.default_rng(1), 500_000, most)
    areas = []
    for score in (first, second):
        ranked = Ranked(target, score)
        areas.append(ranked.measure(np.ones((1, len(target)), dtype=np.uint8))[0][0])
    gain = (first > 0) * 1.0 - (second > 0)
    right = np.where(target, gain, -gain)
    return {"auc": areas[0] - areas[1], "accuracy": right.mean(), "sensitivity": right[target].mean(),
            "specificity": right[~target].mean()}


def intervals(rng, most, resamples, seed):
    """{difference: (low, high)} of one study."""
    target, first, second, patient = compared(rng, 100, most)
    groups = patient if most > 1 else None
    found = paired_tests.bootstrap_prediction_differences(target, first > 0, second > 0, groups, resamples, seed)
    found["auc"] = paired_tests.delong_test(target, first, second, groups)
    return {name: (found[name]["ci_low"], found[name]["ci_high"]) for name in truths(most)}


def coverage(n, most=1, resamples=599):
    """{difference: (share of n studies whose interval holds the truth, share that claim non-inferiority wrongly)}."""
    rng, hits = np.random.default_rng(0), {}
    for seed in range(n):
        for name, (low, high) in intervals(rng, most, resamples, seed).items():
            truth = truths(most)[name]
            if low is not None:
                claimed = margins.verdict(low, high, -truth)["non_inferior"]
                hits.setdefault(name, []).append((low <= truth <= high, claimed))
    return {name: tuple(np.mean(each, axis=0).tolist()) for name, each in hits.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    once, often = coverage(count), coverage(count, most=3)
    for label in once:
        print("|", " | ".join([label, *(f"{100 * share:.1f} %" for share in once[label] + often[label])]), "|")
