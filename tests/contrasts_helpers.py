"""Coverage of the intervals of differences between subgroups: python tests/contrasts_helpers.py [STUDIES]."""
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from evaluation import contrasts

TRUTH = {"auc": norm.cdf(1.5 / 2**0.5) - norm.cdf(2 / 2**0.5), "sensitivity": norm.cdf(0.5) - norm.cdf(1.0),
         "specificity": 0.0}


def study(rng, patients=100, clustered=False):
    """Scores, targets, which half of the patients, ids: binormal, one scan a patient or one to three that are alike."""
    sizes = rng.integers(1, 4, patients) if clustered else np.ones(patients, dtype=int)
    ids = np.repeat(np.arange(patients), sizes)
    group = (rng.random(patients) < 0.5)[ids]
    y = rng.random(len(ids)) < (np.where(rng.random(patients) < 0.5, 0.7, 0.1)[ids] if clustered else 0.4)
    rho = 0.6 if clustered else 0
    noise = np.sqrt(rho) * rng.normal(size=patients)[ids] + np.sqrt(1 - rho) * rng.normal(size=len(ids))
    p = pd.Series(norm.cdf(y * np.where(group, 1.5, 2.0) - 1 + noise), [f"s{k}" for k in range(len(ids))])
    return p, pd.Series(y.astype(float), p.index), group, pd.Series(ids, p.index)


def coverage(n, clustered, resamples=500):
    """{metric: share of n studies whose interval holds the truth}."""
    rng, inside = np.random.default_rng(1), {name: [] for name in TRUTH}
    for seed in range(n):
        p, y, group, ids = study(rng, clustered=clustered)
        (found,) = contrasts.differences({"a": p[group], "b": p[~group]}, y, ids, resamples, seed)
        for name, value in TRUTH.items():
            inside[name].append(found[name]["ci_low"] <= value <= found[name]["ci_high"])
    return {name: float(np.mean(held)) for name, held in inside.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    once, often = coverage(count, False, 1000), coverage(count, True, 1000)
    for name in TRUTH:
        print(f"| {name} | {100 * once[name]:.1f} % | {100 * often[name]:.1f} % |")
