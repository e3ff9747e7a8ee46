"""Is a file's content what operating_points.py writes, in this version or an earlier one?"""
from typing import Any

from common.checkpoint_content import is_number, is_whole
from common.digests import are_digests
from evaluation.ensemble import ENSEMBLES
from evaluation.metrics import DERIVED

COUNTS = ("n_scans", "n_positive", "n_patients", "left_out_because_measured", "fewest_of_class")
METHODS = ("platt", "logistic", "temperature")


def check_stored(stored: Any) -> None:
    """Raises ValueError, which says what is wrong, before anything relies on it."""
    _need(isinstance(stored, dict), "it is no object")
    models, checkpoints, about = (stored.get(name) for name in ("models", "checkpoints", "derived_from"))
    _need(stored.get("combine") in ("mean", "median"), f"combine is {stored.get('combine')!r}")
    _need(_texts(models) and models and len(set(models)) == len(models), "models is no list of different files")
    _need(checkpoints is None or isinstance(checkpoints, dict) and all(
        value is None or isinstance(value, str) for value in checkpoints.values()), "checkpoints holds no digests")
    _check_about(about)
    digests = stored.get("derived_scans")
    _need(digests is None or are_digests(digests), "derived_scans holds no digests")
    for name in ENSEMBLES:
        entry = stored.get(name)
        _need(isinstance(entry, dict) and isinstance(entry.get("of_models", []), list), f"{name} is no rule")
        _check_rule(entry, name)
        for rule in entry.get("of_models", []):
            known = isinstance(rule, dict) and _texts(rule.get("models")) and set(rule["models"]) <= set(models)
            _need(known and rule["models"], f"{name} has a rule for models that are not listed")
            _check_rule(rule, f"{name}, of_models")


def _need(right, otherwise):
    if not right:
        raise ValueError(otherwise)


def _texts(value):
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _check_about(about):
    _need(isinstance(about, dict) and isinstance(about.get("source"), str), "derived_from names no source")
    for name in COUNTS:
        _need(about.get(name) is None or is_whole(about[name], 0), f"{name} is {about.get(name)!r}")
    for name in ("optimistic", "reason", "by"):
        _need(about.get(name) is None or isinstance(about[name], str), f"{name} is no text")
    _need(isinstance(about.get("synthetic", False), bool), "synthetic is neither true nor false")
    counts, span = about.get("models_per_scan", {}), about.get("scans_per_model", [0, 0])
    _need(isinstance(counts, dict) and all(size.isdecimal() and is_whole(n, 0) for size, n in counts.items()),
          "models_per_scan is no count")
    _need(isinstance(span, list) and len(span) == 2 and all(is_whole(n, 0) for n in span), "scans_per_model is no pair")


def _check_rule(rule, where):
    thresholds, fit = rule.get("thresholds"), rule.get("recalibration")
    _need(isinstance(thresholds, dict) and set(thresholds) <= set(DERIVED) and all(
        value is None or is_number(value, 0, 1) for value in thresholds.values()),
        f"{where}: thresholds are not of {', '.join(DERIVED)}, each null or in 0..1")
    if fit is None:
        return
    _need(isinstance(fit, dict), f"{where}: recalibration is {fit!r}")
    if fit.get("method") == "isotonic":
        x, y = fit.get("x"), fit.get("y")
        points = all(isinstance(each, list) and each for each in (x, y)) and all(is_number(v, 0, 1) for v in x + y)
        _need(points and len(x) == len(y) and x == sorted(x) and y == sorted(y) and is_whole(fit.get("n", 1), 1),
              f"{where}: recalibration has no rising points x, y")
    else:
        _need(fit.get("method") in METHODS and is_number(fit.get("a")) and is_number(fit.get("b")),
              f"{where}: recalibration is not of {', '.join(METHODS)}, with a and b")
