"""Simulated reader studies, and how often the intervals of `evaluation.agreement` and of paired differences hold the
truth.

python tests/readers_helpers.py [N]: coverage in N studies (default 1000) of 100 patients, for the reference page.
"""
import functools
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import agreement, paired_tests


def reading(rng, patients=100, most=1):
    """(target, model's call, calls of three readers, patient): 1 to `most` scans a patient, more alike than others."""
    patient = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
    shared = rng.normal(size=patients)[patient] * (most > 1)
    n = len(patient)
    lesion = shared + rng.normal(size=n)
    target = lesion > 0.4
    model = lesion + rng.normal(size=n) * 0.6 > 0.3
    readers = [lesion + rng.normal(size=n) * spread > cut for spread, cut in ((0.5, 0.5), (0.7, 0.2), (0.6, 0.4))]
    return target, model, np.stack(readers, axis=1), patient


def values(target, model, readers):
    """{interval: value} of very many scans."""
    def of(ratings, names):
        features, of_sums = agreement.indices(ratings.astype(float))
        found = of_sums(features.sum(axis=0)[None])
        return {name: float(found[name][0]) for name in names}

    two = of(np.stack([model, readers[:, 0]], axis=1), agreement.TWO)
    found = {f"{name}, model and reader": value for name, value in two.items()}
    found |= {f"{name}, three readers": value for name, value in of(readers, agreement.MANY[1:]).items()}
    gain = model.astype(float) - readers[:, 0]
    return found | {"sensitivity, difference": float(gain[target].mean()),
                    "specificity, difference": float(-gain[~target].mean())}


@functools.cache
def truths(most):
    return values(*reading(np.random.default_rng(1), 1_000_000, most)[:3])


def intervals(rng, most, resamples, seed):
    """{interval: (low, high)} of one study."""
    target, model, readers, patient = reading(rng, 100, most)
    groups = patient if most > 1 else None
    two = agreement.estimates(np.stack([model, readers[:, 0]], axis=1), groups, resamples, seed)
    three = agreement.estimates(readers, groups, resamples, seed)
    found = {f"{name}, model and reader": two[name] for name in agreement.TWO}
    found |= {f"{name}, three readers": three[name] for name in agreement.MANY[1:]}
    differences = paired_tests.bootstrap_prediction_differences(target, model, readers[:, 0], groups, resamples, seed)
    return found | {f"{name}, difference": differences[name] for name in ("sensitivity", "specificity")}


def coverage(n, most=1, resamples=599):
    """{interval: share of n studies whose interval holds the truth}."""
    rng, hits = np.random.default_rng(0), {}
    for seed in range(n):
        for name, entry in intervals(rng, most, resamples, seed).items():
            if entry["ci_low"] is not None:
                hits.setdefault(name, []).append(entry["ci_low"] <= truths(most)[name] <= entry["ci_high"])
    return {name: float(np.mean(each)) for name, each in hits.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    once, often = coverage(count), coverage(count, most=3)
    for label in once:
        print(f"| {label} | {100 * once[label]:.1f} % | {100 * often[label]:.1f} % |")
