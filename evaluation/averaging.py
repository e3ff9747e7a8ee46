"""Several models' scores of a scan -> one probability, and calls at the derived thresholds.

By the rules of operating_points.py: where there is a rule for exactly the models that a scan has, its recalibration and
thresholds are applied to their mean (or median). Else each model's score is recalibrated by the rule for this model
alone, then averaged; each model calls the scan at its own threshold, and the majority decides. As many calls for as
against: negative at the threshold that is to keep the specificity, else positive.
"""
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from common.files import InputError
from common.text import some
from evaluation.calibration import at_bounds, recalibrate
from evaluation.ensemble import Model, combine, score_models

Rules = dict[frozenset[str], dict[str, Any]]  # {files of models: rule}; {}: nothing was derived
NEGATIVE_TIES = ("specificity95",)


@dataclass
class Ensemble:
    """Several models' scores of the same scans, and their average.

    Attributes
    ----------
    scores : DataFrame
        As of `score_models`, each recalibrated by the rule for its model alone.
    averaged : DataFrame
        What is averaged: the same; as predicted where the mean is recalibrated.
    raw, prob : Series
        The average by scan_id, before and after recalibration.
    recalibration : str or None
        Its method.
    reversed : list of str
        The models, or "their mean", whose order of scores it reverses.
    by : str or None
        Whose rules were applied: mean, majority (each model's), or mean and majority; None: none.
    voted : Series of bool
        The scans to which each model's own were applied.
    at_bounds : Series of bool
        Whether `prob` lies at a bound of isotonic recalibration.
    points : dict
        {name of metrics.DERIVED: what metrics.json says of it}: threshold (of the mean; null where there are several),
        by, and where there are several thresholds ({files: probability or null}).
    calls : DataFrame
        By scan_id: bool, a column for each of `points` that can be reached.
    rules : dict
        As they were given.
    """
    scores: pd.DataFrame
    averaged: pd.DataFrame
    raw: pd.Series
    prob: pd.Series
    recalibration: str | None
    reversed: list[str]
    by: str | None
    voted: pd.Series
    at_bounds: pd.Series
    points: dict[str, dict]
    calls: pd.DataFrame
    rules: Rules

    def operating_points(self, scans: pd.Index) -> dict[str, tuple[dict, ndarray | None]]:
        """`points` of `metrics.all_metrics` of these scans."""
        return {name: (about, self.calls.loc[scans, name].to_numpy() if name in self.calls else None)
                for name, about in self.points.items()}


def average_models(models: list[Model], scans: pd.DataFrame, name: str, how: str, rules: Rules) -> Ensemble:
    """The ensemble `name` of ENSEMBLES; `how` is of `ensemble.combine`, `rules` of `operating_points.derive_rules`.

    Raises
    ------
    InputError
        A scan has not the models that a rule is for, and there are no rules for each of them alone.
    """
    raw, files = score_models(models, scans, name), [model.file for model in models]
    has, alone = raw.notna().to_numpy(), {file: rules.get(frozenset([file])) for file in files}
    whole = {key: (has == [file in key for file in files]).all(axis=1) for key in rules if key <= set(files)}
    whole = {key: rows for key, rows in whole.items() if rows.any()}
    voted = ~np.any([np.full(len(raw), not rules), *whole.values()], axis=0)
    for scan in raw.index[voted & (has & [rule is None for rule in alone.values()]).any(axis=1)][:1]:
        held = [file for file, there in zip(files, raw.loc[scan].notna(), strict=True) if there]
        raise InputError(f"scan {scan} has the predictions of {some(held, 3)}, for whose mean no operating points were "
                         f"derived, but for {' or '.join(some(sorted(key), 3) for key in rules)}: predict it with "
                         "those models, or derive operating points anew")
    # operating_points.json of an earlier version has no rules for single models: their columns get what the mean gets
    fits = [(rule or (rules[next(iter(whole))] if whole else {})).get("recalibration") for rule in alone.values()]
    own = pd.DataFrame({name: recalibrate(fit, raw[name].to_numpy()) for name, fit in zip(raw, fits, strict=True)},
                       index=raw.index)
    mean, prob = combine(raw, how), combine(own, how)
    bounds = np.stack([at_bounds(fit, own[name].to_numpy()) for name, fit in zip(own, fits, strict=True)])
    bound = np.abs(bounds.sum(axis=0)) == has.sum(axis=1)  # all models at the same
    for key, rows in whole.items():
        prob[rows] = recalibrate(rules[key]["recalibration"], mean[rows].to_numpy())
        bound[rows] = at_bounds(rules[key]["recalibration"], prob[rows].to_numpy()) != 0
    used = {some(sorted(key), len(key)): rules[key] for key in whole}
    used |= {file: rule for file, rule in alone.items() if rule} if voted.any() else {}
    fitted = {label: rule["recalibration"] for label, rule in used.items() if rule["recalibration"]}
    each = Ensemble(own, own if voted.any() else raw, mean, prob, rules=rules, points={},
                    calls=pd.DataFrame(index=raw.index),
                    recalibration=next((fit["method"] for fit in fitted.values()), None),
                    reversed=[label for label, fit in fitted.items() if fit.get("b", 1) <= 0],
                    by=" and ".join(["mean"] * bool(whole) + ["majority"] * bool(voted.any())) or None,
                    voted=pd.Series(voted, raw.index), at_bounds=pd.Series(bound, raw.index))
    call_scans(each, [(rules[key], rows) for key, rows in whole.items()], list(alone.values()), used)
    return each


def call_scans(each: Ensemble, whole: list[tuple[dict, ndarray]], alone: list[dict | None],
               used: dict[str, dict]) -> None:
    """Fill in `points` and `calls`.

    Parameters
    ----------
    each
        Of `average_models`.
    whole : list of (rule, (n,) bool)
        Rules for means, and the scans that each is applied to.
    alone : list of dict or None
        The rule for each model alone.
    used : dict
        {label: rule} of those that are applied.
    """
    cast = each.scores.notna().sum(axis=1)
    for name in dict.fromkeys(name for rule in used.values() for name in rule["thresholds"]):
        votes = (each.scores >= [cutoff(rule, name) for rule in alone]).sum(axis=1)
        positive = (2 * votes > cast) | ((2 * votes == cast) & (name not in NEGATIVE_TIES))
        for rule, rows in whole:
            positive[rows] = each.prob[rows] >= cutoff(rule, name)
        thresholds = {label: rule["thresholds"][name] for label, rule in used.items()}
        one = whole[0][0]["thresholds"][name] if len(whole) == 1 else None
        each.points[name] = {"threshold": one, "by": each.by} | ({"thresholds": thresholds} if len(used) > 1 else {})
        reached = [np.isfinite(cutoff(rule, name)) for rule in ([rule for rule, _ in whole] or alone)]
        if any(reached) and (whole or 2 * sum(reached) >= len(reached)):
            each.calls[name] = positive


def cutoff(rule: dict | None, name: str) -> float:
    """A rule's threshold; infinity where it could not be reached: no scan is predicted positive."""
    value = rule["thresholds"].get(name) if rule else None
    return np.inf if value is None else value
