"""The model card of export_models.py: what the networks are, were trained on, reach, and are not for.

After Mitchell et al., FAT* 2019, doi:10.1145/3287560.3287596. Its texts are in common/templates/model_card.md; every
number is of the run. What the files do not say is said to be unknown.
"""
from collections.abc import Iterable
from typing import Any

import pandas as pd

from common import __version__
from common.files import InputError
from common.html import render_text
from common.manifest import VIEWS, leakage_unnamed, view_name
from evaluation.ensemble import ENSEMBLES
from evaluation.metrics import DERIVED
from evaluation.report import by_metric, calibration_table, operating_points

RANKING = ("auc", "average_precision")  # what depends on the order of the scores alone
OF_NO_NETWORK = ("output", "data", "images", "split_index", "run", "overwrite", "resume", "force_resume", "device",
                 "threads", "checkpoint_minutes", "tensorboard", "params")  # of train.py's options
INPUT = {"views": "views", "spacing_mm": "pixels of the MIPs, mm", "suv_type": "SUV normalised to (--suv)",
         "pool": "max-pooling", "frame": "frame, pixels", "norm": "mean and standard deviation, SUV",
         "crop_bodies": "cut bodies larger than the frame", "box": "body: pixels above SUV 0.3 (suv) or LARS's"}


def write_card(models: list[dict], metrics: dict | None, rules: dict | None, precision: str) -> str:
    """The card as Markdown.

    Parameters
    ----------
    models : list of dict
        Of `export.add_model`, best first.
    metrics, rules : dict or None
        metrics.json and operating_points.json of these models.
    precision : {"half", "float32"}

    Raises
    ------
    InputError
        metrics.json is of an earlier version.
    """
    ensembles = {label: metrics[key] for key, label in ENSEMBLES.items()} if metrics else {}
    try:
        measured = {"results": by_metric(RANKING, ensembles.values()),
                    "points": {label: operating_points(block) for label, block in ensembles.items()},
                    "calibration": calibration_table(metrics) if metrics else None,
                    "optimistic": leakage_unnamed(metrics["optimistic"]) if metrics else None,
                    "cautions": metrics["cautions"] if metrics else []}  # other warnings name scans, patients, readers
    except KeyError as error:
        raise InputError(f"metrics.json: lacks {error}: is it of an earlier version? run aggregate.py again, then "
                         "this") from None
    inputs = {shown: values_text(model.get("input", {}).get(name) for model in models) for name, shown in INPUT.items()}
    return render_text(
        "model_card.md", models=models, metrics=metrics, rules=rules, precision=precision, version=__version__,
        synthetic=any(model.get("synthetic") for model in models), trained=[trained_row(model) for model in models],
        inputs=list(inputs.items()), options=_options(models),
        versions=values_text(model.get("version") for model in models),
        views=values_text([view_name(view) for view in model.get("input", {}).get("views", VIEWS)] for model in models),
        combine=(rules or metrics or {}).get("combine", "mean"),
        commits=values_text(model.get("commit") for model in models),
        ensembles=list(ensembles), **measured,
        thresholds=[[label, *(_threshold(rules[key], name) for name in DERIVED)] for key, label in ENSEMBLES.items()]
        if rules else [], derived=list(DERIVED.values()), recalibrated=_recalibrated(rules) if rules else None)


def values_text(values: Iterable[Any]) -> str:
    """What all models have, as text; of several values each once."""
    texts = [", ".join(map(_text, value)) if isinstance(value, list) else _text(value) for value in values]
    return "; ".join(dict.fromkeys(texts))


def _text(value):
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def trained_row(model):
    """Name, epoch, validation AUC, then how many scans and patients it was trained and validated on."""
    about = model.get("trained_on") or {}
    counts = [len(about[name][column]) or "unknown" if name in about else "unknown"
              for name in ("train", "val") for column in ("scan_id", "patient_id")]
    auc = "unknown" if pd.isna(model["value"]) else f"{float(model['value']):.3f}"
    return [f"split {model['split']} run {model['run']}", model.get("epoch"), auc, *counts]


def _options(models):
    """The options that the networks were trained with, as far as they were given, by the models that have them."""
    found: dict[str, list[str]] = {}
    for model in models:
        given = model.get("args", {}).get("given") or model.get("args", {})
        words = [f"--{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
                 for name, value in given.items()
                 if name not in OF_NO_NETWORK and value is not None and value is not False]  # 0 is a value: --augm 0
        found.setdefault(" ".join(words), []).append(f"split {model['split']} run {model['run']}")
    return list(found.items())


def _recalibrated(rules):
    """How scores are recalibrated before the thresholds: "platt, each network alone", "none"."""
    rule = rules["avg"]
    if rule["thresholds"]:
        return rule["recalibration"]["method"] if rule["recalibration"] else "none"
    methods = {each["recalibration"]["method"] if each["recalibration"] else "none" for each in rule["of_models"]}
    return " or ".join(sorted(methods)) + ", each network alone" * (methods != {"none"})


def _threshold(rule, name):
    """The threshold of the mean of all models, or the range of their own."""
    if name in rule["thresholds"]:
        values = [rule["thresholds"][name]]
    else:
        values = [each["thresholds"].get(name) for each in rule.get("of_models", ())]
    known = sorted({f"{value:.3f}" for value in values if value is not None})
    return " to ".join(dict.fromkeys((known[0], known[-1]))) if known else "not reached"
