"""The primary analysis that a user declares before looking: aggregate.py --primary. Imports no torch."""
import re
from collections.abc import Sequence
from typing import NamedTuple

from common.files import InputError
from evaluation.ensemble import ENSEMBLES
from evaluation.metrics import AT_THRESHOLD, DERIVED, OVERALL, THRESHOLD


class Primary(NamedTuple):
    """name of ENSEMBLES; a metric of metrics.json; a name of DERIVED, or None: at 0.5, or of no threshold; a name of
    --cohort, or None: of the scans of --dir."""
    ensemble: str
    metric: str
    point: str | None
    cohort: str | None = None


def read_primary(text: str, cohorts: Sequence[str] = ()) -> Primary:
    """"LARS-avg auc", "LARS-max sensitivity" (at 0.5), "LARS-avg specificity at youden", "LARS-avg auc in north".

    Raises
    ------
    InputError
        It names no such number, or a cohort that is not among `cohorts`.
    """
    labels = {label.lower(): name for name, label in ENSEMBLES.items()}
    what, _, cohort = text.strip().partition(" in ")
    found = re.fullmatch(r"(\S+) +(\S+)(?: +at +(\S+))?", what.strip().lower())
    label, metric, point = found.groups() if found else ("", "", None)
    point = None if point == str(THRESHOLD) else point
    if label not in labels or metric not in OVERALL + AT_THRESHOLD or point and (
            point not in DERIVED or metric not in AT_THRESHOLD):
        raise InputError(f"--primary {text!r}: give {' or '.join(ENSEMBLES.values())}, then one of "
                         f"{', '.join(OVERALL + AT_THRESHOLD)}; of the last {len(AT_THRESHOLD)} also at "
                         f"{', '.join(DERIVED)}")
    if cohort and cohort.strip() not in cohorts:
        raise InputError(f"--primary {text!r}: {cohort.strip()} is none of the cohorts of --cohort "
                         f"({', '.join(cohorts) or 'there are none'})")
    return Primary(labels[label], metric, point, cohort.strip() or None)


def primary_entry(primary: Primary, metrics: dict) -> dict:
    """`primary` of metrics.json: ensemble, metric, point, cohort, and its estimate."""
    block = (metrics["cohorts"][primary.cohort] if primary.cohort else metrics)[primary.ensemble]
    if primary.point:
        block = block["operating_points"].get(primary.point) or {"reason": "no such threshold was derived"}
    if "reason" in block:
        raise InputError(f"--primary: {DERIVED[primary.point or '']}: {block['reason']}")
    return primary._asdict() | block[primary.metric]
