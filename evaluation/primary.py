"""The primary analysis that a user declares before looking: aggregate.py --primary. Imports no torch."""
import re
from typing import NamedTuple

from common.files import InputError
from evaluation.ensemble import ENSEMBLES
from evaluation.metrics import AT_THRESHOLD, DERIVED, OVERALL, THRESHOLD


class Primary(NamedTuple):
    """name of ENSEMBLES; a metric of metrics.json; a name of DERIVED, or None: at 0.5, or of no threshold."""
    ensemble: str
    metric: str
    point: str | None


def read_primary(text: str) -> Primary:
    """"LARS-avg auc", "LARS-max sensitivity" (at 0.5), "LARS-avg specificity at youden". Raises InputError."""
    labels = {label.lower(): name for name, label in ENSEMBLES.items()}
    found = re.fullmatch(r"(\S+) +(\S+)(?: +at +(\S+))?", text.strip().lower())
    label, metric, point = found.groups() if found else ("", "", None)
    point = None if point == str(THRESHOLD) else point
    if label not in labels or metric not in OVERALL + AT_THRESHOLD or point and (
            point not in DERIVED or metric not in AT_THRESHOLD):
        raise InputError(f"--primary {text!r}: give {' or '.join(ENSEMBLES.values())}, then one of "
                         f"{', '.join(OVERALL + AT_THRESHOLD)}; of the last {len(AT_THRESHOLD)} also at "
                         f"{', '.join(DERIVED)}")
    return Primary(labels[label], metric, point)


def primary_entry(primary: Primary, metrics: dict) -> dict:
    """`primary` of metrics.json: ensemble, metric, point, and its estimate."""
    block = metrics[primary.ensemble]
    if primary.point:
        block = block["operating_points"].get(primary.point) or {"reason": "no such threshold was derived"}
    if "reason" in block:
        raise InputError(f"--primary: {DERIVED[primary.point or '']}: {block['reason']}")
    return primary._asdict() | block[primary.metric]
