"""What a reader must be warned of before believing an AUC: few patients of a class, labels that seem swapped."""
from collections.abc import Mapping

import numpy as np
from numpy import ndarray

from common.text import some
from evaluation.bootstrap import Groups

FEW = 20  # patients of the rarer class: below, the intervals hold the truth in clearly fewer than 95 % of studies
COVERAGE = ("with 8 patients in one class and 100 in the other 87 to 93 % of the AUC's intervals hold the truth, with "
            "15 patients 91 to 94 %, not 95 %")  # simulated: docs/reference/statistics.md


def rarer_class(y_true: ndarray, groups: Groups = None) -> int:
    """The number of patients (without `groups`: scans) with a scan of the class that fewer of them have."""
    y_true = np.asarray(y_true, dtype=bool)
    names = np.arange(len(y_true)) if groups is None else np.asarray(groups)
    return min(np.unique(names[y_true == value]).size for value in (True, False))


def few_patients(rarer: int, unit: str, parts: Mapping[str, int] | None = None) -> list[str]:
    """Warnings where a class has fewer than FEW patients.

    Parameters
    ----------
    rarer : int
        Of `rarer_class`.
    unit : str
        patient or scan.
    parts : mapping or None
        {name of a subgroup: the same of it}.
    """
    if 0 < rarer < FEW:
        return [f"only {rarer} {unit}s in one of the classes: the intervals are rough; {COVERAGE}"]
    few = [f"{name} ({count})" for name, count in (parts or {}).items() if 0 < count < FEW]
    return [f"fewer than {FEW} {unit}s in one of the classes of {some(few, 8)}: these intervals are rough; "
            f"{COVERAGE}"] * bool(few)


def swapped_labels(aucs: Mapping[str, dict]) -> list[str]:
    """A warning that names those of {name: estimate} whose whole interval is below 0.5."""
    below = [name for name, auc in aucs.items() if auc["ci_high"] is not None and auc["ci_high"] < 0.5]
    return [f"the AUC of {some(below)} is below 0.5 with its whole interval: are the labels swapped? target 1 is "
            "Deauville 4-5, and the score the probability of that"] * bool(below)
