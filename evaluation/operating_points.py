"""Thresholds and recalibration of the ensembles: derived here, or those of an earlier run's operating_points.json.

A rule is {"recalibration": of `calibration.fit_recalibration` or None, "thresholds": {name of metrics.DERIVED:
probability, or None where it cannot be reached}}, and is for the mean of certain models, or for one model alone; see
`derivation` for which there are, `averaging` for how they are applied. operating_points.json holds combine, models
(their files), checkpoints ({file: SHA-256 or null}), derived_from (source, n_scans, ..., optimistic, synthetic),
derived_scans (their digests, of `common.digests`) and for each of `ensemble.ENSEMBLES` the rule for the
mean of all models (null and {} where there is none) and of_models, the other rules: each a rule and its models.
"""
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from common.checkpoint_content import is_number, is_whole
from common.digests import BY_IMAGE, COLUMNS, NOT_CHECKED, are_digests, overlap, training_digests
from common.files import InputError, parse_json, replace_file, write_json
from common.model_files import exists, inside, read_file
from common.text import counted, some
from evaluation.averaging import Rules
from evaluation.calibration import fit_recalibration, recalibrate
from evaluation.derivation import MEASURED, find_bases
from evaluation.ensemble import ENSEMBLES, Model, combine, score_models
from evaluation.metrics import DERIVED, choose_thresholds

FILE = "operating_points.json"
COUNTS = ("n_scans", "n_positive", "n_patients", "left_out_because_measured", "fewest_of_class")
FITTED = ("platt", "logistic", "temperature")
FEW = 20  # scans of a class, below which a sensitivity or specificity of 0.95 or more is that of every one of them


def derive_rules(models: list[Model], scans: pd.DataFrame, how: str, recalibration: str | None, on_test: bool,
                 warnings: list[str]) -> tuple[dict[str, Rules], dict]:
    """Derive the rules of each ensemble.

    Parameters
    ----------
    models, scans
        Of `ensemble.read_models` and `ensemble.join_scans`.
    how : str
        As in `ensemble.combine`.
    recalibration : {None, "platt", "logistic", "temperature", "isotonic"}
    on_test : bool
        Derive them from the scans that are measured, not from the calibration set or validation predictions.
    warnings : list of str
        To which more are added.

    Returns
    -------
    rules : dict
        {name of ENSEMBLES: {files of models: rule}}, {} where there is nothing to derive them from.
    about : dict
        Where they come from: `validation` of metrics.json.

    Raises
    ------
    InputError
        The scans that were asked for are missing, or of one class.
    """
    bases, about = find_bases(models, scans, on_test)
    if not bases:
        remedy = about.pop("remedy")
        if on_test:
            raise InputError("--threshold_on_test: the scans that are measured are not of both classes")
        if recalibration:
            raise InputError(f"--recalibrate {recalibration}: {about['reason']}; {remedy}")
        if scans["target"].notna().any():
            warnings.append(f"no threshold but 0.5 is used, since {about['reason']}; {remedy} (--threshold_on_test "
                            "would be optimistic)")
        return {name: {} for name in ENSEMBLES}, about
    if about["left_out_because_measured"]:
        warnings.append(f"left out of the {about['source']}: {counted(about['left_out_because_measured'], 'scan')} "
                        "measured here, or of a patient who is")
    fewest = int(min(basis.scans["target"].value_counts().min() for basis in bases.values()))
    warnings += _few(fewest)
    rules: dict[str, Rules] = {name: {} for name in ENSEMBLES}
    for name in ENSEMBLES:
        for key, basis in bases.items():
            y = basis.scans["target"].to_numpy(dtype=int)
            p = combine(score_models(basis.models, basis.scans, name), how).to_numpy()
            of = some(sorted(key), 1)
            fit = fit_recalibration(recalibration, y, p, of) if recalibration else None
            rules[name][key] = {"recalibration": fit, "thresholds": choose_thresholds(y, recalibrate(fit, p))}
    alone = [len(bases[frozenset([model.file])].scans) for model in models]
    used = identities(model.rows[model.rows["scan_id"].isin(basis.scans.index)]
                       for basis in bases.values() for model in basis.models)
    return rules, about | {"scans_per_model": [min(alone), max(alone)], "fewest_of_class": fewest, "scans": used}


def _few(fewest: int) -> list[str]:
    return [f"thresholds were derived from as few as {counted(fewest, 'scan')} of a class; of fewer than {FEW} a "
            "sensitivity or specificity of 0.95 or more is that of every one"] * (fewest < FEW)


def read_rules(path: Path, models: list[Model], how: str, warnings: list[str]) -> tuple[dict[str, Rules], dict]:
    """The same from an earlier run's operating_points.json, or a zip of models that holds it.

    Rules go with a checkpoint, by its SHA-256 where both runs know it, whatever its prediction file is called. `about`
    is what the file says of itself, with applied (its name), scans (their digests) and, in place of what was
    optimistic there, what is here: that they were derived from scans, or scans of patients, which are measured.

    Raises
    ------
    InputError
        The file is another, its ensembles were combined in another way, or it has no rule for a model; it is of an
        earlier version, and its rules are for means over fewer models.
    """
    try:
        stored = parse_json(read_file(inside(path, FILE)))
        check_stored(stored)
        combined, about = stored["combine"], {"source": stored["derived_from"]["source"], **stored["derived_from"]}
        before, now = stored.get("checkpoints") or {}, checkpoints(models)
        files = [_now_called(file, before.get(file), now) for file in stored["models"]]
        rules = {name: _read_rules(stored[name], dict(zip(stored["models"], files, strict=True))) for name in ENSEMBLES}
        counts = sorted(map(int, about.get("models_per_scan", ())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an operating_points.json of aggregate.py ({error})") from None
    if combined != how:
        raise InputError(f"{path}: was made with --combine {combined}, this run has {how}; give the same")
    if "of_models" not in stored["avg"] and about["source"] != MEASURED and counts != [len(files)]:
        raise InputError(f"{path}: is of an earlier version, which derived it from means over "
                         f"{' or '.join(counted(n, 'model') for n in counts) or 'unknown models'}; means over "
                         f"{len(files)} need others: derive it anew with aggregate.py, from the same prediction files")
    known = frozenset().union(*rules["avg"])
    for model in models:
        if model.file not in known:
            raise InputError(f"{path}: has no thresholds for {model.file}, but for {some(sorted(known), 3)}; give the "
                             "predictions of those models alone (--top and --best_run as that run had them), or derive "
                             "it anew")
    if lacking := sorted(set(files) - set(now)):
        warnings.append(f"{path.name} was made with {counted(len(files), 'model')}; {len(lacking)} of them are not "
                        f"here: {some(lacking, 3)}")
    if not all(before.get(file) for file in stored["models"]) or not all(now.values()):
        warnings.append(f"{path.name}: whether its models are these was checked by their files' names alone")
    fewest = about.get("fewest_of_class")  # earlier versions did not store it
    warnings += _few(FEW if fewest is None else fewest)
    return rules, about | {"scans": stored.get("derived_scans"), "applied": path.name,
                           "optimistic": _measured_again(path, stored, models, warnings)}


def stored_models(path: Path) -> tuple[list[str], str]:
    """The prediction files that an operating_points.json is of, and how it combines them; ([], "mean") without it."""
    if not exists(inside(path, FILE)):
        return [], "mean"
    try:
        stored = parse_json(read_file(inside(path, FILE)))
        return list(map(str, stored["models"])), stored["combine"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an operating_points.json of aggregate.py ({error})") from None


def identities(rows: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """What scans, patients and images are known by, each once, as text."""
    known = pd.concat([each.reindex(columns=[*COLUMNS, "id_key"]) for each in rows])
    return known.drop_duplicates().astype(object).fillna("")


def checkpoints(models: list[Model]) -> dict[str, str | None]:
    """The SHA-256 of the checkpoint that each prediction file is of; None where it does not say."""
    found = {model.file: set(model.rows.get("checkpoint_sha256", ())) for model in models}
    return {file: next(iter(values)) if len(values) == 1 else None for file, values in found.items()}


def _now_called(file: str, checkpoint: str | None, now: dict[str, str | None]) -> str:
    """The prediction file of a checkpoint today; where it is not among them, a name that no file has."""
    same = [name for name, other in now.items() if checkpoint and other == checkpoint]
    other = checkpoint and now.get(file)
    return same[0] if same else f"{file} of another checkpoint" if other else file


def _measured_again(path: Path, stored: dict, models: list[Model], warnings: list[str]) -> str | None:
    """What a reader must know where scans are measured that the rules were derived from, or scans of their patients."""
    rows = identities(model.rows for model in models)
    found = pd.Series(overlap(rows, stored.get("derived_scans")), rows["scan_id"])
    doubts = {NOT_CHECKED: "was not checked: it holds no digests of them",
              BY_IMAGE: "was checked by their images alone: patients could not be compared, other key"}
    warnings += [f"{path.name}: whether its thresholds were derived from the scans or patients measured here {text}"
                 for value, text in doubts.items() if (found == value).any()]
    if stored["derived_from"].get("synthetic"):
        warnings.append(f"the thresholds of {path.name} were derived from a SYNTHETIC cohort")
    same = found.index[found == "train"].unique()
    return (f"OPTIMISTIC: thresholds were derived from {len(same)} of the scans that are measured, or from their "
            "patients' scans.") if len(same) else None


def _read_rules(entry: dict, names: dict[str, str]) -> Rules:
    """The rules of one ensemble, of this version or an earlier one, whose only rule is for the mean of all models."""
    stored: list[dict[str, Any]] = [{"models": list(names), **entry}] * bool(entry["thresholds"])
    stored += entry.get("of_models", [])
    return {frozenset(names[file] for file in rule["models"]): {
        "recalibration": rule["recalibration"], "thresholds": dict(rule["thresholds"])} for rule in stored}


def write_rules(path: Path, models: list[Model], rules: dict[str, Rules], metrics: dict, scans: pd.DataFrame | None,
                applied: Path | None) -> None:
    """Write operating_points.json: that which was applied as it stands, else `rules`, derived from `scans`."""
    if applied:
        content = read_file(inside(applied, FILE))
        with replace_file(path, "wb") as file:
            file.write(content)
        return
    about = metrics["validation"] | {name: metrics[name] for name in ("optimistic", "synthetic")}
    files = [model.file for model in models]
    entries = {name: {"recalibration": None, "thresholds": {}, **each.get(frozenset(files), {}), "of_models": [
        {"models": sorted(key), **rule} for key, rule in each.items() if key != frozenset(files)]}
        for name, each in rules.items()}
    digests = None
    if scans is not None:  # the same run writes the same file
        salt = hashlib.sha256("\0".join(sorted(scans["scan_id"])).encode(errors="surrogateescape")).hexdigest()[:32]
        digests = training_digests(scans, ["train"] * len(scans), salt)
    write_json({"combine": metrics["combine"], "models": files, "checkpoints": checkpoints(models),
                "derived_from": about, "derived_scans": digests, **entries}, path)


# ---------------------------------------------------------------- is a file what write_rules writes?

def check_stored(stored: Any) -> None:
    """Raise ValueError, which says what is wrong, where an operating_points.json is not of this version or an earlier
    one, before anything relies on it."""
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
        _need(fit.get("method") in FITTED and is_number(fit.get("a")) and is_number(fit.get("b")),
              f"{where}: recalibration is not of {', '.join(FITTED)}, with a and b")
