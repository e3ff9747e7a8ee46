"""Simulated follow-up, and how often the intervals of `evaluation.survival` hold the truth.

python tests/prognosis_helpers.py [N]: coverage in N studies (default 1000) of 100 patients, for the reference page.
"""
import functools
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import survival

YEAR, TWO = 12.0, 24.0  # months
RATIO = 3.0  # hazard ratio of a positive call
FEW = 0.15  # of the hazards: 3 events within 12 months


def follow_up(rng, n=100, censored=True, rate=1.0):
    """(time, event, call, score): exponential times in months; a third of the calls are positive; rate: of hazards."""
    call = rng.random(n) < 1 / 3
    score = rng.normal(size=n) + 2 * call
    hazard = rate * np.log(2) / 60 * RATIO**call * np.exp(0.3 * (score - 2 * call))
    time, end = rng.exponential(1 / hazard), rng.uniform(6, 72, n)
    return (np.minimum(time, end), time <= end, call, score) if censored else (time, time < np.inf, call, score)


def proportional(rng, n=100, rate=1.0):
    """(time, event, call) with hazards in the ratio RATIO, which those of `follow_up` are within a call and score."""
    call = rng.random(n) < 1 / 3
    time, end = rng.exponential(1 / (rate * np.log(2) / 60 * RATIO**call)), rng.uniform(6, 72, n)
    return np.minimum(time, end), time <= end, call


@functools.cache
def truths(rate):
    """{interval: the true value}, of very many patients."""
    rng = np.random.default_rng(1)
    time, _, call, score = follow_up(rng, 1_000_000, False, rate)
    found = {f"survival at {t:.0f} months, {name}": float((time[group] > t).mean())
             for t in (YEAR, TWO) for name, group in (("negative", ~call), ("positive", call))}
    found |= {f"AUC at {t:.0f} months": survival.auc_at(time, np.ones(len(time)), score, t)["value"]
              for t in (YEAR, TWO)}
    found["median, positive"] = float(np.median(time[call]))
    studies = [follow_up(rng, 3000, rate=rate) for _ in range(40)]
    c = [survival.concordance(time, event, score)[0] for time, event, _, score in studies]
    return found | {"C-index": float(np.mean(c)), "hazard ratio": RATIO}


def intervals(rng, rate):
    """{interval: estimate} of one study."""
    time, event, call, score = follow_up(rng, rate=rate)
    curves = {"negative": (~call, survival.kaplan_meier(time[~call], event[~call])),
              "positive": (call, survival.kaplan_meier(time[call], event[call]))}
    found = {f"survival at {t:.0f} months, {name}": survival.survival_at(curve, t, time[group].max())
             for t in (YEAR, TWO) for name, (group, curve) in curves.items()}
    found |= {f"AUC at {t:.0f} months": survival.auc_at(time, event, score, t) for t in (YEAR, TWO)}
    return found | {"median, positive": survival.median_time(curves["positive"][1]),
                    "C-index": survival.concordance_estimate(time, event, score),
                    "hazard ratio": survival.cox(*proportional(rng, rate=rate))}


def coverage(n, rate=1.0):
    """{interval: (share of n studies whose interval holds the truth, studies without an interval)}."""
    rng, hits, none = np.random.default_rng(0), {}, {}
    for _ in range(n):
        for name, entry in intervals(rng, rate).items():
            low, high = entry["ci_low"], entry["ci_high"]
            if name.startswith("median") and high is None:  # not reached
                high = np.inf
            if low is None:
                none[name] = none.get(name, 0) + 1
            else:
                hits.setdefault(name, []).append(low <= truths(rate)[name] <= high)
    return {name: (float(np.mean(each)), none.get(name, 0)) for name, each in hits.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    columns = [coverage(count), coverage(count, FEW)]
    for label in columns[0]:
        print(f"| {label} | " + " | ".join(f"{100 * share:.1f} %" + f" (of {count - without})" * bool(without)
                                           for share, without in (column[label] for column in columns)) + " |")
