"""How many patients a study needs for an interval of a wanted width: AUC, sensitivity, specificity.

One scan a patient is assumed: more scans of the same patient add less than as many patients.
"""
import bisect
import math
from collections.abc import Callable, Sequence

from common.files import InputError
from common.text import counted
from evaluation.metrics import Z, wilson_interval

METRICS = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity"}
MOST = 10_000_000  # patients


def auc_width(auc: float, prevalence: float, n: int) -> float:
    """Width of the 95 % interval of an AUC of n patients.

    With the variance of Hanley and McNeil 1982 as Newcombe modified it (Stat Med 2006;25:559-73), which Riley RD et al.
    (Stat Med 2021;40:4230-51) propose for planning.
    """
    others = n / 2 - 1
    spread = 1 + others * ((1 - auc) / (2 - auc) + auc / (1 + auc))
    return 2 * float(Z) * math.sqrt(auc * (1 - auc) * spread / (n**2 * prevalence * (1 - prevalence)))


def proportion_width(share: float, n: int) -> float:
    """Width of Wilson's 95 % interval of a share of n patients, which need not be a whole number of them."""
    low, high = wilson_interval(share * n, n)
    return high - low


def fewest(wide: Callable[[int], float], width: float) -> int:
    """The smallest n, 2 or more, with wide(n) <= width; wide falls with n."""
    if wide(MOST) > width:
        raise InputError(f"--plan: a width of {width:g} needs more than {MOST:,} patients; give a larger one")
    return 2 + bisect.bisect_left(range(2, MOST), True, key=lambda n: wide(n) <= width)


def patients_needed(metric: str, expected: float, width: float, prevalence: float) -> int:
    """The fewest patients whose 95 % interval of the metric is no wider than `width`.

    Parameters
    ----------
    metric : {"auc", "sensitivity", "specificity"}
    expected : float
        Its value, between 0 and 1.
    width : float
        Of the whole interval: upper less lower limit.
    prevalence : float
        Share of patients with target 1. A proportion is planned for the patients of its class (Buderer NM. Acad Emerg
        Med 1996;3:895-900), with Wilson's interval, which `metrics` reports.
    """
    if metric == "auc":
        return fewest(lambda n: auc_width(expected, prevalence, n), width)
    share = prevalence if metric == "sensitivity" else 1 - prevalence
    return math.ceil(fewest(lambda n: proportion_width(expected, n), width) / share - 1e-9)


def plan(texts: Sequence[str]) -> str:
    """A line for compare.py --plan METRIC EXPECTED WIDTH PREVALENCE.

    Raises
    ------
    InputError
        An unknown metric, or a number that is none or not between 0 and 1.
    """
    metric, *numbers = texts
    if metric not in METRICS:
        raise InputError(f"--plan {metric}: give one of {', '.join(METRICS)}")
    try:
        expected, width, prevalence = map(float, numbers)
    except ValueError as error:
        raise InputError(f"--plan {' '.join(texts)}: {error}; give numbers, such as --plan auc 0.9 0.1 0.3") from None
    for name, value in {"expected value": expected, "width": width, "prevalence": prevalence}.items():
        if not 0 < value < 1:
            raise InputError(f"--plan {' '.join(texts)}: {name} {value:g}; it must lie between 0 and 1")
    n = patients_needed(metric, expected, width, prevalence)
    return (f"{METRICS[metric]} {expected:g} with a 95 % interval of width {width:g}, prevalence {prevalence:g}: "
            f"{counted(n, 'patient')} with one scan each, of whom {round(n * prevalence)} with target 1")
