"""Thresholds and recalibration of the ensembles: derived here, or those of an earlier run's operating_points.json.

A rule is {"recalibration": of `calibration.fit_recalibration` or None, "thresholds": {name of metrics.DERIVED:
probability, or None where it cannot be reached}}. operating_points.json holds combine, models (their files),
derived_from (source, n_scans, ..., optimistic) and a rule for each of `ensemble.ENSEMBLES`.
"""
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from common.files import InputError, write_json
from common.text import some
from evaluation.calibration import fit_recalibration, recalibrate
from evaluation.ensemble import ENSEMBLES, Model, combine, score_models, validation_scans
from evaluation.metrics import choose_thresholds

MEASURED = "the scans that are measured"  # a source, beside validation predictions


def derive_rules(models: list[Model], scans: pd.DataFrame, how: str, recalibration: str | None, on_test: bool,
                 warnings: list[str]) -> tuple[dict[str, dict], dict]:
    """Derive a rule for each ensemble.

    Parameters
    ----------
    models, scans
        Of `ensemble.read_models` and `ensemble.join_scans`.
    how : str
        As in `ensemble.combine`.
    recalibration : {None, "platt", "isotonic"}
    on_test : bool
        Derive it from the scans that are measured, not from validation predictions.
    warnings : list of str
        To which more are added.

    Returns
    -------
    rules : dict
        {name of ENSEMBLES: rule}, without thresholds where there is nothing to derive them from.
    about : dict
        Where they come from: `validation` of metrics.json.

    Raises
    ------
    InputError
        The scans that were asked for are missing, or of one class.
    """
    known = scans[scans["target"].notna()]
    about = {"source": MEASURED, "n_scans": len(known)}
    if not on_test:
        models = [replace(model, rows=model.val_rows) for model in models]
        known, about = validation_scans(models, scans)
    elif known["target"].nunique() < 2:
        raise InputError("--threshold_on_test: the scans that are measured are not of both classes")
    if known.empty:
        if recalibration:
            raise InputError(f"--recalibrate {recalibration}: {about['reason']}; run predict.py --set val test")
        if scans["target"].notna().any():
            warnings.append(f"no threshold but 0.5 is used, since {about['reason']}; predict.py --set val test writes "
                            "validation predictions (--threshold_on_test would be optimistic)")
        return {name: {"recalibration": None, "thresholds": {}} for name in ENSEMBLES}, about
    if about.get("left_out_because_measured"):
        warnings.append(f"{about['left_out_because_measured']} validation scans are measured here, or are of patients "
                        "who are; no threshold was derived from them")
    rules, y = {}, known["target"].to_numpy(dtype=int)
    for name in ENSEMBLES:
        p = combine(score_models(models, known, name), how).to_numpy()
        fit = fit_recalibration(recalibration, y, p) if recalibration else None
        rules[name] = {"recalibration": fit, "thresholds": choose_thresholds(y, recalibrate(fit, p))}
    return rules, about


def read_rules(path: Path, models: list[Model], how: str, warnings: list[str]) -> tuple[dict[str, dict], dict]:
    """The same from an earlier run's operating_points.json.

    Raises
    ------
    InputError
        The file is another, or its ensembles were combined in another way.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rules = {name: {"recalibration": stored[name]["recalibration"], "thresholds": dict(stored[name]["thresholds"])}
                 for name in ENSEMBLES}
        combined, files = stored["combine"], list(stored["models"])
        about = {"source": stored["derived_from"]["source"], **stored["derived_from"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an operating_points.json of aggregate.py ({error})") from None
    if combined != how:
        raise InputError(f"{path}: was made with --combine {combined}, this run has {how}; give the same")
    if files != [model.file for model in models]:
        warnings.append(f"{path.name} was made with other models ({some(files, 3)}): its thresholds may not fit these")
    return rules, about


def write_rules(path: Path, models: list[Model], rules: dict[str, dict], metrics: dict) -> None:
    """Write operating_points.json."""
    about = metrics["validation"] | {"optimistic": metrics["optimistic"]}
    files = [model.file for model in models]
    write_json({"combine": metrics["combine"], "models": files, "derived_from": about, **rules}, path)
