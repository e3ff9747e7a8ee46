"""What a new scan's score is looked at beside: scores of both classes, and what the same models were measured to reach.

Of the folder where predict.py and aggregate.py wrote, or in a zip of models as reference.json, which holds

    models                  the prediction files that all of it is of
    scores                  source (CALIBRATION or VALIDATION of `derivation`), models_per_scan [fewest, most], negative
                            and positive: the scores of a class, sorted, without names; null where there are none
    results                 of metrics.json: set, n_scans, n_patients, n_positive (those measured), notice, optimistic,
                            folds_text, auc (a text), points (headings, rows of texts); null where it is not of these
                            models

The scores are LARS-avg, recalibrated as new ones are. A model was not trained on its validation scans, but chosen on
them, and few models share one: their means are spread wider than means over all, of which a calibration set has enough.
"""
from pathlib import Path
from typing import Any

from common.files import InputError, parse_json, read_csv, read_json_object
from common.manifest import leakage_unnamed
from common.model_files import exists, is_export, read_file
from evaluation.averaging import average_models
from evaluation.derivation import CALIBRATION, VALIDATION
from evaluation.ensemble import COLUMNS, Model, check_rows, find_models, join_scans
from evaluation.estimates import long_text
from evaluation.operating_points import FILE as RULES
from evaluation.operating_points import read_rules, stored_models
from evaluation.report import operating_points

FILE = "reference.json"
SETS = {"cal": CALIBRATION, "val": VALIDATION}
POINTS = ("Threshold", "Sensitivity", "Specificity")  # rows of the table of operating points that are kept


def find_reference(home: Path, checkpoints: dict[str, str]) -> dict[str, Any]:
    """`collect` of a folder, or what a zip of models, or the folder that it was unpacked to, holds of it.

    Parameters
    ----------
    home : Path
        Folder or zip of the models.
    checkpoints : dict
        {prediction file: SHA-256 of its checkpoint} of the models that are used.

    Raises
    ------
    InputError
        A file of the folder cannot be read.
    """
    nothing = {"models": sorted(checkpoints), "scores": None, "results": None}
    if not exists(home / FILE):
        return nothing if is_export(home) else collect(home, checkpoints)
    try:
        found = parse_json(read_file(home / FILE))
        return found if found["models"] == sorted(checkpoints) else nothing
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{home / FILE}: cannot be read ({error}); export the models again") from None


def collect(folder: Path, checkpoints: dict[str, str]) -> dict[str, Any]:
    """Reference of the models in a folder: see the top of this file. Parameters as of `find_reference`."""
    files = sorted(checkpoints)
    found: dict[str, Any] = {"models": files, "scores": None, "results": None}
    try:
        models = {model.file: model for model in find_models(folder)[0] if model.file in checkpoints}
    except InputError:  # no predictions
        return found
    tables = {file: read_csv(models[file].path, ("scan_id", "probs"), COLUMNS.__contains__) for file in models}
    if set(tables) != set(files) or any(set(tables[file].get("checkpoint_sha256", ())) != {checkpoints[file]}
                                        for file in files):
        return found
    for name, source in SETS.items():
        rows = {file: table[table["set"] == name] for file, table in tables.items() if "set" in table}
        if len(rows) == len(files) and all(map(len, rows.values())):
            for file in files:
                models[file].rows = check_rows(rows[file], models[file].path)
            found["scores"] = scores_of([models[file] for file in files], folder / RULES, source)
            break
    if (folder / "metrics.json").is_file():
        metrics = read_json_object(folder / "metrics.json", "metrics", '{"checkpoints": {}}')
        if metrics.get("checkpoints") == checkpoints:
            found["results"] = results_of(metrics)
    return found


def scores_of(models: list[Model], path: Path, source: str) -> dict[str, Any] | None:
    """`scores` of reference.json, of the models' rows; `path`: of the thresholds and recalibration, there or not.

    None where these scores cannot be recalibrated as those of new scans are.
    """
    scans, _ = join_scans(models)
    scans = scans[scans["target"].notna()]
    how, rules = stored_models(path)[1], {}
    try:
        if path.is_file():
            rules = read_rules(path, models, how, [])[0]["avg"]
        each = average_models(models, scans, "avg", how, rules)
    except InputError:  # rules for the mean of all, and scans that have fewer models
        if any(rule["recalibration"] for rule in rules.values()):
            return None
        each = average_models(models, scans, "avg", how, {})
    scores = {label: sorted(each.prob[scans["target"] == value].round(4).tolist())
              for value, label in enumerate(("negative", "positive"))}
    return {"source": source, "models_per_scan": [int(scans["n_models"].min()), int(scans["n_models"].max())], **scores}


def results_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """`results` of reference.json."""
    block = metrics["avg"]
    head, rows, _ = operating_points(block)
    return {**{name: metrics[name] for name in ("set", "n_patients", "notice")},
            "optimistic": leakage_unnamed(metrics["optimistic"]),
            "folds_text": metrics.get("folds_text", ""), "n_scans": block["n"], "n_positive": block["n_positive"],
            "auc": long_text(block["auc"]),
            "points": [head, [row for row in rows if row[0] in POINTS]]}
