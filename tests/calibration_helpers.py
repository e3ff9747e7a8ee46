"""Simulated studies for `evaluation.calibration_curve`, `predictive_values` and `decision_curve`; R's random numbers.

python tests/calibration_helpers.py [N]: coverage in N studies (default 1000) of 100 patients, for the reference page.
"""
import functools
import sys
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import calibration, calibration_curve, decision_curve, predictive_values

AT, THRESHOLDS, PREVALENCE = (0.2, 0.5, 0.8), (0.2, 0.5), 0.1


def study(rng, patients=100, most=1):
    """(y, probability, patient): 1 to `most` scans a patient, alike in score and in outcome; overconfident scores."""
    patient = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
    n, shared = len(patient), 0.5 * (most > 1)

    def noise():
        return np.sqrt(shared) * rng.normal(size=patients)[patient] + np.sqrt(1 - shared) * rng.normal(size=n)

    x = 1.8 * noise()
    return (norm.cdf(noise()) < share_at(x)).astype(int), expit(x), patient


def share_at(x):
    """The true share of 1 at a logit."""
    return expit(x - 0.4 + 0.6 * np.tanh(x))


@functools.cache
def truths(most):
    """{interval: the true value}, of very many patients."""
    y, p, _ = study(np.random.default_rng(1), 2_000_000, most)
    found = {f"calibration curve at {at}": float(share_at(logit(at))) for at in AT}
    ratios = predictive_values.likelihood_ratios(y, p >= 0.5)
    found |= {heading: ratios[name]["value"] for name, heading in predictive_values.RATIOS.items()}
    values = predictive_values.at_prevalence(ratios, PREVALENCE)
    found |= {f"{name.upper()} at a prevalence of {PREVALENCE}": values[name]["value"] for name in ("ppv", "npv")}
    benefit = calibration.net_benefit(y, p, np.array(THRESHOLDS))
    return found | {f"net benefit at {at}": float(each) for at, each in zip(THRESHOLDS, benefit, strict=True)}


def intervals(rng, most, resamples, seed):
    """{interval: (low, high)} of one study; the curve's are left out where it has no fit."""
    y, p, patient = study(rng, 100, most)
    groups = patient if most > 1 else None
    try:
        _, low, high = calibration_curve.Curve(y, p, groups).at(np.array(AT))
    except ValueError:
        low = high = ()
    found = {f"calibration curve at {at}": limits for at, *limits in zip(AT, low, high, strict=False)}
    ratios = predictive_values.likelihood_ratios(y, p >= 0.5, groups)
    entries = {heading: ratios[name] for name, heading in predictive_values.RATIOS.items()}
    values = predictive_values.at_prevalence(ratios, PREVALENCE)
    entries |= {f"{name.upper()} at a prevalence of {PREVALENCE}": values[name] for name in ("ppv", "npv")}
    points = decision_curve.measure(y, p, np.array(THRESHOLDS), groups, resamples, seed)
    entries |= {f"net benefit at {point['threshold']}": point["net_benefit"] for point in points}
    return found | {name: (entry["ci_low"], entry["ci_high"]) for name, entry in entries.items()}


def coverage(n, most=1, resamples=999):
    """{interval: share of n studies whose interval holds the truth}."""
    rng, hits = np.random.default_rng(0), {}
    for seed in range(n):
        for name, (low, high) in intervals(rng, most, resamples, seed).items():
            if low is not None:
                hits.setdefault(name, []).append(low <= truths(most)[name] <= (np.inf if high is None else high))
    return {name: float(np.mean(each)) for name, each in hits.items()}


def r_uniform(seed, count):
    """What R gives for set.seed(seed); runif(count): Mersenne Twister, seeded by R's congruential generator."""
    state = []
    for _ in range(50 + 625):
        seed = (69069 * seed + 1) % 2**32
        state.append(seed)
    twister = np.random.MT19937()
    key = np.array(state[51:], dtype=np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
    return twister.random_raw(count) * 2.3283064365386963e-10


def r_simulation():
    """(y, p) of set.seed(2345); sim_dat(1000, a1 = -1, a3 = 1) of the R package pmcalibration, as its README has it."""
    n = 1000
    uniform = r_uniform(2345, 5 * n)
    first, second = uniform[:4 * n].reshape(-1, 2).T
    x1, x2 = norm.ppf((np.floor(2**27 * first) + second) / 2**27).reshape(2, n)  # rnorm: inversion
    share, last = expit(-1 + x1 + x2 + x1 * x2), uniform[4 * n:]
    return np.where(share <= 0.5, last >= 1 - share, last < share).astype(int), expit(-1 + x1 + x2)  # rbinom


def simulated(seed=0, n=120, patients=50):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return y, expit(rng.normal(size=n) + 1.5 * y - 0.7).round(2), rng.integers(0, patients, n)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    once, often = coverage(count), coverage(count, most=3)
    for label in once:
        print(f"| {label} | {100 * once[label]:.1f} % | {100 * often[label]:.1f} % |")
