"""Scores of new scans, their classes at each threshold and warnings: the middle of score.py.

The numbers are those of predict.py and aggregate.py with the same models: the same functions average them and apply
the thresholds, without files in between.
"""
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import dataset
import utils
from common import acquisition
from common.digests import BY_ID, NONE, SEEN, overlap
from common.files import InputError
from common.manifest import LEAKAGE, MARK, VIEWS
from common.mips import read_image
from common.model_files import checkpoint_file, is_export, read_settings
from common.run_files import run_file
from common.text import aligned, counted, some
from dataset import LARS, NetworkInput
from evaluation import disagreement, ensemble, operating_points, reference
from evaluation.averaging import Ensemble, average_models
from evaluation.metrics import DERIVED, THRESHOLD
from evaluation.report import thresholds_text
from inference.prediction import NO_SPACING, Model, best_runs, runs_of_files
from training.objectives import probabilities

SPACING_MM = 3.27  # of checkpoints that store none, such as LARS's
UNLIKE = 2.0  # factor between a scan's mean SUV and that of the training images, above which a warning is given
SHORT_NAMES = {"label": "at 0.5", "youden": "Youden", "sensitivity95": "sens95", "specificity95": "spec95"}  # of calls
SHORT = 0.5  # share of the frame's height, or of LARS's, that a body fills, below which a warning is given


@dataclass
class Scan:
    """A scan's score, and what is shown beside it.

    Attributes
    ----------
    scan_id : str
    probability : float
        Of Deauville 4-5, LARS-avg, recalibrated where the models' operating_points.json says so.
    predicted : float or None
        The probability before recalibration; None where there is none.
    sd : float
        Standard deviation over the models' scores; NaN of one.
    scores : list of float
        Each model's, in their order.
    calls : list of Call
    facts : list of acquisition.Fact
    warnings : list of str
    liver_mm : list of float or None
        Where the SUV of the liver was measured: (z, y, x); None also where the models use neither cor nor sag.
    rows : DataFrame
        Its rows of the manifest, and `place`: the index of each view among the models' images.
    """
    scan_id: str
    probability: float
    predicted: float | None
    sd: float
    scores: list[float]
    calls: list["Call"]
    facts: list[acquisition.Fact]
    warnings: list[str]
    liver_mm: list[float] | None
    rows: pd.DataFrame


@dataclass
class Call:
    """A scan's class at a threshold: the threshold's `key` (pred_KEY of ensemble_avg.csv), `name` and value as text
    (`threshold`), and whether the scan is `positive`; None where no score reaches the threshold."""
    key: str
    name: str
    threshold: str
    positive: bool | None

    @property
    def text(self) -> str:
        return "not reached" if self.positive is None else "DS 4–5" if self.positive else "DS 1–3"


@dataclass
class Scores:
    """The scans' scores, and what is common to all scans.

    Attributes
    ----------
    scans : list of Scan
        As the manifest has them.
    notices : list of str
        What no reader may miss: SYNTHETIC, LEAKAGE.
    warnings : list of str
        Of the models and their thresholds.
    reference : dict
        Of `evaluation.reference`.
    recalibration : str or None
        Its method.
    combine : str
        "mean" or "median" of the models' scores.
    """
    scans: list[Scan]
    notices: list[str]
    warnings: list[str] = field(default_factory=list)
    reference: dict[str, Any] = field(default_factory=dict)
    recalibration: str | None = None
    combine: str = "mean"


# ---------------------------------------------------------------- which models, and their input

def chosen_runs(home: Path | None, top: int | None, checkpoints: Sequence[str] | None) -> list[dict]:
    """The models to use, best first: rows of `prediction.best_runs`.

    Of a folder or zip `home` the `top` best of best_run.csv; without `top` those that its operating_points.json is of,
    so that its thresholds apply, or all. Or else the files `checkpoints`. Raises InputError.
    """
    if checkpoints:
        return runs_of_files(checkpoints, ["all"])
    runs = sorted(best_runs(home)[0], key=lambda run: (run.get("rank", 0), run["split"]))
    files = operating_points.stored_models(rules_path(home))[0]
    if top and top > len(runs):
        raise InputError(f"--top {top}: {home} ranks {len(runs)}")
    return runs[:top] if top else [run for run in runs if prediction_file(run) in files] or runs


def rules_path(home: Path) -> Path:
    """operating_points.json of a folder, or the zip that may hold one."""
    return home if is_export(home) else home / operating_points.FILE


def prediction_file(run: Mapping[str, Any]) -> str:
    """The name of a model's prediction file, by which operating_points.json refers to the model."""
    return run_file("", "pred", run["split"], run["run"]).name


def inputs_of(runs: Sequence[dict]) -> list[NetworkInput]:
    """The input of each model. Raises InputError where they need different MIPs."""
    found = [_stored(run).get("input") for run in runs]
    inputs = [NetworkInput(**stored) if stored else LARS for stored in found]
    for name in ("spacing_mm", "suv_type"):
        first, *others = [getattr(each, name) or SPACING_MM for each in inputs]
        for run, value in zip(runs[1:], others, strict=True):
            if value != first:
                raise InputError(f"{run['path']} needs MIPs of {name} {value}, {runs[0]['path']} those of {first}; "
                                 "score with networks of one kind: --checkpoints names them")
    return inputs


def _stored(run: dict) -> dict:
    """A model's settings, from its file of settings or its exported header; else its checkpoint, read more slowly."""
    path = run["path"]
    settings = read_settings(path.parent, run["split"], run["run"]) if path.name == checkpoint_file(
        path.parent, run["split"], run["run"]).name else None
    return settings or utils.read_checkpoint(path)


def projections(views: Collection[str]) -> int:
    """The value of prepro_script.py --views that makes these views."""
    turned = {int(view[3:]) for view in views if view.startswith("rot")}
    return next((n for n in range(2, 181) if turned <= {round(180 * k / n) for k in range(n)}), 2)


def unusable(rows: Sequence[Mapping[str, Any]], images: Path, inputs: Sequence[NetworkInput],
             crop: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Which scans the models cannot be given, and of which they see a part.

    Parameters
    ----------
    rows : of `conversion.convert_study`
        `images`: folder of their files.
    inputs : of `inputs_of`
    crop : bool
        Larger bodies are cropped.

    Returns
    -------
    refused : dict
        {scan: why}: a view that is no SUV, or of theirs one without a body, or with one larger than a frame.
    cut : dict
        {scan: a warning}: a body that is cropped.
    """
    refused: dict[str, str] = {}
    cut: dict[str, str] = {}
    for row in pd.DataFrame(rows).assign(row=range(2, len(rows) + 2)).itertuples():  # as read_manifest counts
        try:
            image, known = read_image(row, images), [each for each in inputs if row.view in each.views]
            boxes = [dataset.body_box(image, row.view, each.box) for each in known]
        except InputError as error:  # its values are no SUV, or it has no body
            refused.setdefault(row.scan_id, str(error))
            continue
        for each, box in zip(known, boxes, strict=True):
            size = [-(-(part.stop - part.start) // each.pool) for part in box]
            if any(np.greater(size, each.frame)):
                larger = (f"{row.view}: the body of {size[0]} x {size[1]} pixels is larger than a network's frame, "
                          f"{each.frame[0]} x {each.frame[1]}")
                if crop or each.crop_bodies:
                    cut.setdefault(row.scan_id, f"{larger}, and was cut")
                else:
                    refused.setdefault(row.scan_id, f"{larger}; --crop_bodies cuts it")
    return refused, cut


# ---------------------------------------------------------------- the scores

def score(models: Sequence[Model], home: Path | None, converted: Mapping[str, Mapping[str, Any]],
          notes: Sequence[str]) -> Scores:
    """Predict the scans, average over views and models, and apply the stored thresholds.

    Parameters
    ----------
    models : sequence of Model
        Of `prediction.open_models`.
    home : Path or None
        Their folder or zip; None: only the threshold 0.5 is applied.
    converted : mapping
        {scan: a row of `conversion.convert_study`}.
    notes : sequence of str
        Of `open_models`. Its warnings are left out: `_seen` gives each scan its own.
    """
    predicted, known = [], []
    for model in models:
        rows = model.rows.assign(probs=probabilities(model.outputs().logits).astype(str))  # as the CSV has it
        file = prediction_file(vars(model))
        predicted.append(ensemble.Model(model.path, file, model.split, model.run,
                                        rows=ensemble.check_rows(rows, model.path)))
        known.append(model.rows.assign(place=model.index))
    table = pd.concat(known).drop_duplicates("place").sort_values("place", ignore_index=True)
    scans, _ = ensemble.join_scans(predicted)
    warnings = [note for note in notes if not note.startswith("warning: ")]
    warnings += [NO_SPACING.format(SPACING_MM)] * any(
        "input" in model.content and not model.batches.network_input.spacing_mm for model in models)
    how, rules, derived = _rules(home, predicted, warnings)
    try:
        averaged = average_models(predicted, scans, "avg", how, rules)
    except InputError as error:
        warnings.append(f"the stored thresholds were not applied: {error}")
        averaged = average_models(predicted, scans, "avg", how, {})
    synthetic = any(model.content.get("synthetic") for model in models)
    notices = ["The networks were trained on a SYNTHETIC cohort: the scores say nothing about patients."] * synthetic
    notices += [f"{MARK}: network split {model.split} run {model.run}: {model.content[LEAKAGE]}" for model in models
                if model.content.get(LEAKAGE)]
    checkpoints = {prediction_file(vars(model)): model.sha256 for model in models}
    found = [_scan(rows, averaged, models, converted[scan], derived)
             for scan, rows in table.groupby("scan_id", sort=False)]
    compared = reference.find_reference(home, checkpoints) if home else {}
    return Scores(found, notices, warnings, compared, averaged.recalibration, how)


def _rules(home, predicted, warnings):
    """From operating_points.json: how the models' scores are combined, the rules of LARS-avg (thresholds and
    recalibration), and digests of the scans that these were derived from. Adds to `warnings`."""
    if home is None:
        return "mean", {}, None
    path = rules_path(home)
    files, how = operating_points.stored_models(path)
    if not files:
        warnings.append(f"no {operating_points.FILE} in {home.name}: no threshold but 0.5; aggregate.py writes it")
        return "mean", {}, None
    try:
        rules, about = operating_points.read_rules(path, predicted, how, warnings)
    except InputError as error:
        warnings.append(f"the stored thresholds are not of these models and were not applied: {error}")
        return how, {}, None
    return how, rules["avg"], about["scans"]


def _scan(rows: pd.DataFrame, averaged: Ensemble, models: Sequence[Model], converted: Mapping[str, Any],
          derived: dict[str, Any] | None) -> Scan:
    scan = rows["scan_id"].iloc[0]
    scores, known = averaged.scores.loc[[scan]], acquisition.facts(converted)
    calls = [Call("label", "0.5", "0.500", bool(averaged.prob[scan] >= THRESHOLD))]
    calls += [Call(name, DERIVED[name], thresholds_text(point),
                   bool(averaged.calls.loc[scan, name]) if name in averaged.calls else None)
              for name, point in averaged.points.items()]
    warnings = [text for text in str(converted.get("warnings", "")).split("; ") if text]
    if derived and averaged.points and "train" in overlap(rows, derived):
        warnings.append("OPTIMISTIC: the thresholds were derived from this scan, or from another one of this patient")
    liver = converted.get("liver_mm") if rows["view"].isin(VIEWS).any() else None
    warnings += acquisition.outside(known) + _seen(scan, models) + _unlike(scan, models)
    return Scan(scan, float(averaged.prob[scan]), float(averaged.raw[scan]) if averaged.recalibration else None,
                float(disagreement.per_scan(scores, THRESHOLD)["sd"].iloc[0]), scores.iloc[0].tolist(), calls, known,
                warnings, liver, rows)


def _seen(scan: str, models: Sequence[Model]) -> list[str]:
    """Was the scan, its patient or its image in the models' training?"""
    values = [set(model.rows.loc[model.rows["scan_id"] == scan, "overlap"]) for model in models]
    found = []
    for learned, (done, _) in SEEN.items():
        if count := sum(learned in value for value in values):
            verb = f"{'was' if count == 1 else 'were'} {done}"
            found.append(f"OPTIMISTIC: {count} of {counted(len(models), 'network')} {verb} on this scan, or on this "
                         "patient")
    if any(value - {*SEEN, NONE, BY_ID} for value in values):
        found.append("whether the networks were trained on this patient could not be checked: the identifiers are of "
                     "another key than those of the training, or the networks do not say (--key)")
    return found


def _unlike(scan: str, models: Sequence[Model]) -> list[str]:
    """Warnings where the scan differs from what the models were trained on: views, mean SUV, height of the body."""
    found: dict[str, str] = {}  # one of each kind
    for model in models:
        of_scan = (model.rows["scan_id"] == scan).to_numpy()
        if not of_scan.any():
            found.setdefault("views", f"split {model.split} run {model.run} knows none of the scan's views")
            continue
        given, bodies, own = model.batches.network_input, model.batches.bodies, model.index[of_scan]
        if missing := sorted(set(given.views) - set(model.rows["view"][of_scan])):
            found.setdefault("views", f"the networks were trained on views that the scan lacks: {some(missing)}")
        mean, trained = dataset.norm_constants(bodies, own)[0], given.norm[0]
        named = "input" in model.content and given.norm in dataset.NORMS.values()  # by --norm, not of the training
        if trained and not named and not 1 / UNLIKE <= mean / trained <= UNLIKE:
            found.setdefault("mean", f"the mean SUV of the scan's images is {mean:.1f}, of the training images it was "
                             f"{trained:.1f}")
        height = min(given.frame[0], LARS.frame[0] / given.pool)  # that of prepro_script.py's MIPs at most
        if (share := float(bodies.sizes[own, 0].max()) / height) < SHORT:
            found.setdefault("share", f"the body fills {share:.0%} of the height that the networks were trained for: "
                             "is it a whole-body scan?")
    return list(found.values())


# ---------------------------------------------------------------- table and terminal

def table_of(scores: Scores) -> pd.DataFrame:
    """scores.csv: a row for each scan."""
    rows = []
    for scan in scores.scans:
        row = {"scan_id": scan.scan_id, "ensemble_prob": scan.probability}
        row |= {"ensemble_prob_uncalibrated": scan.predicted} if scores.recalibration else {}
        row |= {"sd": scan.sd, "n_models": int(np.isfinite(scan.scores).sum())}
        row |= {f"pred_{call.key}": "" if call.positive is None else int(call.positive) for call in scan.calls}
        warnings = [text.replace("; ", ", ") for text in (*scan.warnings, *scores.warnings)]
        rows.append(row | {"notice": " ".join(scores.notices), "warnings": "; ".join(warnings)})
    return pd.DataFrame(rows)


def lines_of(scores: Scores) -> list[str]:
    """What the terminal shows: a line for each scan, notices, then each warning once with the scans that have it."""
    heads = [SHORT_NAMES.get(call.key, call.key) for call in scores.scans[0].calls]
    rows = [["scan", "DS 4-5", "sd", *heads, "warn"]]
    rows += [[scan.scan_id, f"{scan.probability:.3f}", "" if np.isnan(scan.sd) else f"{scan.sd:.3f}",
              *(call.text.replace("–", "-").removeprefix("DS ") for call in scan.calls), str(len(scan.warnings) or "")]
             for scan in scores.scans]
    warned: dict[str, list[str]] = {}
    for scan in scores.scans:
        for text in scan.warnings:
            warned.setdefault(text, []).append(scan.scan_id)
    several = len(scores.scans) > 1
    lines = [text + f" ({counted(len(scans), 'scan')}: {some(scans, 3)})" * several
             for text, scans in warned.items()]
    return [aligned(rows), *(f"warning: {line}" for line in scores.notices + scores.warnings + lines)]
