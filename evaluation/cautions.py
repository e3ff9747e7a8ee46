"""What a reader must be warned of before believing an AUC: few patients of a class, or few for so high an AUC; labels
that seem swapped."""
from collections.abc import Mapping

import numpy as np
from numpy import ndarray

from common.text import counted, some
from evaluation.bootstrap import Groups

FEW = 20  # patients of the rarer class: below, the intervals hold the truth in clearly fewer than 95 % of studies
FEW_WRONG = 3  # patients of the rarer class x (1 - AUC): below, those of the AUC do so from FEW patients on, too
COVERAGE = ("with 8 patients in one class and 100 in the other 87 to 93 % of the AUC's intervals hold the truth, with "
            "15 patients 91 to 94 %, not 95 %")  # simulated: docs/reference/statistics.md, as are the following
NEAR_ONE = "for an AUC this near to 1; mostly 89 to 94 % of such intervals hold the truth, not 95 %"


def rarer_class(y_true: ndarray, groups: Groups = None) -> int:
    """The number of patients (without `groups`: scans) with a scan of the class that fewer of them have."""
    y_true = np.asarray(y_true, dtype=bool)
    names = np.arange(len(y_true)) if groups is None else np.asarray(groups)
    return min(np.unique(names[y_true == value]).size for value in (True, False))


def few_patients(rarer: int, unit: str) -> list[str]:
    """A warning where a class has fewer than FEW patients; `rarer` of `rarer_class`, `unit` patient or scan."""
    few = counted(rarer, unit)
    return [f"only {few} in one of the classes: the intervals are rough; {COVERAGE}"] * (0 < rarer < FEW)


def few_in_parts(parts: Mapping[str, int], unit: str) -> list[str]:
    """The same in one line for {name of a fold, subgroup or cohort: patients of the rarer class}."""
    few = [f"{name} ({count})" for name, count in parts.items() if 0 < count < FEW]
    return [f"fewer than {FEW} {unit}s in one of the classes of {some(few, 8)}: these intervals are rough; "
            f"{COVERAGE}"] * bool(few)


def high_aucs(aucs: Mapping[str, tuple[dict, int]], unit: str) -> list[str]:
    """A warning that names AUCs so high that their intervals are rough although no class has fewer than FEW patients.

    Parameters
    ----------
    aucs : mapping
        {name: (estimate, patients of the rarer class)}.
    unit : str
        patient or scan.
    """
    high = [f"{name} ({rarer})" for name, (auc, rarer) in aucs.items()
            if rarer >= FEW and auc["value"] is not None and rarer * (1 - auc["value"]) < FEW_WRONG]
    return [f"the interval of the AUC of {some(high, 8)} is rough: few {unit}s of the rarer class "
            f"{NEAR_ONE}"] * bool(high)


def swapped_labels(aucs: Mapping[str, dict]) -> list[str]:
    """A warning that names those of {name: estimate} whose whole interval is below 0.5."""
    below = [name for name, auc in aucs.items() if auc["ci_high"] is not None and auc["ci_high"] < 0.5]
    return [f"the AUC of {some(below)} is below 0.5 with its whole interval: are the labels swapped? target 1 is "
            "Deauville 4-5, and the score the probability of that"] * bool(below)
