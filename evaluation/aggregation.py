"""What metrics.json says of an ensemble: every number of it, of its models, views and subgroups.

A number is an estimate (see `estimates`). A block is what `metrics.all_metrics` returns: n, n_positive, n_groups,
n_groups_rarer, the metrics of OVERALL, a threshold with tn, fp, fn, tp and the metrics of AT_THRESHOLD,
operating_points; of no scan {n: 0, n_positive: 0} and SHOWN, none of them with a value. metrics.json holds

    set, synthetic, notice, optimistic       train, val, test, cal or all; bool; what no reader may miss, or null
    n_scans, n_patients, independent_unit    scans with or without target; patients of those that are measured, null
                                             without patient_id; scan or patient
    folds_text                               of `ensemble.folds_text`
    overlap                                  with the models' training: of `overlap.find_overlap`
    confidence, combine, resamples, seed, recalibrate       of the options; recalibrate: null without it
    validation                               where the thresholds come from: source (or null, with reason), n_scans,
                                             n_positive, n_patients, models_per_scan {models: scans}, ...
    warnings, scans_lacking_a_model          texts; {scan_id: models that have it}
    avg, max                                 a block each, and reliability (of `metrics.reliability_bins`),
                                             before_recalibration (a block and its reliability), ensemble_size (of
                                             `disagreement.auc_by_size`), selective {label: of `selective_summary`}
    views                                    {view: block}: the views alone, not recalibrated
    folds                                    {split: {avg, max: block}} of --pooled_folds, else {}
    models                                   file, split, run, rank, n_scans, avg and max (blocks), not recalibrated
    subgroups                                {column: {value: {avg, max: block}}}
    selection                                what validation patients chose: of `selection.describe_selection`
    prognosis, readers                       of --survival, --readers: see `prognosis`, `readers`
    sites                                    of predict_loca.py's models: see `site_ensemble.measure_sites`
    provenance                               version, commit, command, versions, inputs: of `provenance.this_run`
"""
import pandas as pd

from common.files import progress
from common.manifest import SYNTHETIC
from evaluation import bootstrap, disagreement
from evaluation.cautions import few_patients, rarer_class, swapped_labels
from evaluation.ensemble import (
    ENSEMBLES,
    Ensemble,
    Model,
    combine,
    folds,
    folds_text,
    patients,
    score_models,
    subgroups,
)
from evaluation.estimates import no_estimate
from evaluation.metrics import THRESHOLD, all_metrics, reliability_bins
from evaluation.operating_points import MEASURED

THRESHOLDS_ON_TEST = "OPTIMISTIC: thresholds{} were derived from the very scans that they are measured on."
SHOWN = ("auc", "accuracy", "sensitivity", "specificity")


def describe(models: list[Model], scans: pd.DataFrame, ensembles: dict[str, Ensemble], wanted: str, about: dict,
             overlap: dict, how: str, resamples: int, seed: int, warnings: list[str]) -> dict:
    """The part of metrics.json that needs no target.

    Parameters
    ----------
    models, scans, ensembles
        Of `ensemble.read_models`, `join_scans` and `average_models`.
    wanted : str
        The set that is measured.
    about : dict
        Where the thresholds come from, of `operating_points.derive_rules`.
    overlap : dict
        Of `overlap.find_overlap`.
    how, resamples, seed
        As in `measure`.
    warnings : list of str
    """
    synthetic, fit = bool(scans["synthetic"].any()), ensembles["avg"].recalibration
    labelled = scans[scans["target"].notna()]
    unit, n_patients = ("patient", labelled["patient_id"].nunique()) if "patient_id" in scans else ("scan", None)
    optimistic = [about["optimistic"]] if about.get("optimistic") else []  # of an earlier run's thresholds
    if about["source"] == MEASURED and not optimistic:
        optimistic = [THRESHOLDS_ON_TEST.format(" and recalibration" if fit else "")]
    optimistic += [f"OPTIMISTIC: {line}" for line in set_warnings(wanted, scans) if wanted != "all"]
    optimistic += [f"OPTIMISTIC: {overlap['optimistic']}"] if overlap["optimistic"] else []
    lacking = scans.loc[scans["n_models"] < scans["n_asked"], "n_models"]
    return {"set": wanted, "synthetic": synthetic, "notice": SYNTHETIC if synthetic else None,
            "optimistic": " ".join(optimistic) or None, "n_scans": len(scans), "n_patients": n_patients,
            "folds_text": folds_text(models), "independent_unit": unit, "confidence": bootstrap.CONFIDENCE,
            "combine": how, "resamples": resamples, "seed": seed, "recalibrate": fit and fit["method"],
            "validation": about, "overlap": overlap, "warnings": warnings, "scans_lacking_a_model": lacking.to_dict()}


def set_warnings(wanted: str, scans: pd.DataFrame) -> list[str]:
    """What a reader of the numbers must know about the set they come from."""
    if scans["target"].isna().all():
        return []
    if wanted == "all":
        return ["set all: these numbers hold for new patients only if no model was trained or chosen on these scans"]
    done = {"train": "trained", "val": "chosen"}.get(wanted)
    return [f"set {wanted}: the models were {done} on these scans; the numbers are OPTIMISTIC"] if done else []


def measure(models: list[Model], scans: pd.DataFrame, ensembles: dict[str, Ensemble], by: list[str], how: str,
            resamples: int, seed: int, warnings: list[str]) -> dict:
    """The part of metrics.json that is measured: avg, max, views, folds, models, subgroups.

    Parameters
    ----------
    models, scans, ensembles
        Of `ensemble.read_models`, `join_scans` and `average_models`.
    by : list of str
        Columns to make subgroups by.
    how : str
        As in `ensemble.combine`.
    resamples, seed : int
        Of the bootstrap; the seed of the subsets of models, too.
    warnings : list of str
        To which more are added.
    """
    labelled = scans[scans["target"].notna()]
    if "patient_id" in labelled:  # numbers are sorted sooner than names
        labelled = labelled.assign(patient_id=bootstrap.group_index(patients(labelled), len(labelled))[0])
    y, groups = labelled["target"].to_numpy(dtype=int), patients(labelled)
    views = subgroups(models, labelled, "view") if all("view" in model.rows for model in models) else {}
    of_columns = {column: subgroups(models, labelled, column) for column in by}
    of_folds = {str(split): (models, labelled[labelled.index.isin(ids)]) for split, ids in folds(models).items()}
    if "patient_id" not in scans:
        warnings.append("the files have no patient_id: the intervals are too narrow where a patient has several scans")
    of_each = 1 + bool(ensembles["avg"].recalibration) + len(models)
    of_each += len(of_folds) + sum(map(len, of_columns.values()))
    with progress(None, "bootstrap", "set of scores", len(views) + len(ensembles) * of_each) as bar:
        def block(scores, thresholds=None):
            bar.update()
            known = labelled.loc[labelled.index.intersection(scores.index)].sort_index()
            if known.empty:
                return {"n": 0, "n_positive": 0} | {name: no_estimate("no scan with a target") for name in SHOWN}
            target, values = known["target"].to_numpy(dtype=int), scores[known.index].to_numpy()
            return all_metrics(target, values, THRESHOLD, thresholds, patients(known), resamples, seed)

        def average(group, name):
            members, of_group = group
            return combine(score_models(members, of_group, name), how)

        def group_blocks(found):
            if sum(len(of_group) for _, of_group in found.values()) == len(labelled):
                return {value: {name: block(each.prob[of_group.index], each.thresholds)
                                for name, each in ensembles.items()} for value, (_, of_group) in found.items()}
            # a scan's rows are of several groups: recalibration and thresholds, which are for whole scans, do not apply
            return {value: {name: block(average(group, name)) for name in ensembles} for value, group in found.items()}

        result: dict = {name: block(each.prob, each.thresholds) for name, each in ensembles.items()}
        result["views"] = {value: block(average(group, "avg")) for value, group in views.items()}
        result["folds"] = group_blocks(of_folds)
        result["models"] = [model.about() | {"n_scans": int(ensembles["avg"].scores.iloc[:, k].notna().sum())}
                            | {name: block(each.scores.iloc[:, k].dropna()) for name, each in ensembles.items()}
                            for k, model in enumerate(models)]
        result["subgroups"] = {column: group_blocks(found) for column, found in of_columns.items()}
        if result["avg"]["auc"]["value"] is None:
            warnings.append(f"no AUC and no figures: {result['avg']['auc']['reason']}")
        for name, each in ensembles.items():
            raw, scores, entry = each.raw[labelled.index], each.scores.loc[labelled.index], result[name]
            p = each.prob[labelled.index].to_numpy()
            entry["reliability"] = reliability_bins(y, p, groups)
            if each.recalibration:
                entry["before_recalibration"] = block(raw) | {
                    "reliability": reliability_bins(y, raw.to_numpy(), groups)}
                if each.recalibration.get("b", 1) <= 0:
                    warnings.append(f"recalibration reversed the order of the scores of {ENSEMBLES[name]}: on the "
                                    "validation scans a higher probability was the less likely positive")
            entry["ensemble_size"] = disagreement.auc_by_size(scores, y, how, seed)
            entry["selective"] = {label: disagreement.selective_summary((p >= THRESHOLD) == y, doubt)
                                  for label, doubt in disagreement.doubts(scores, p, THRESHOLD).items()}
    warnings += doubtful(result, rarer_class(y, groups), "scan" if groups is None else "patient")
    return result


def doubtful(result: dict, rarer: int, unit: str) -> list[str]:
    """`cautions` of what `measure` returns."""
    parts = {f"fold {split}": blocks["avg"] for split, blocks in result["folds"].items()}
    parts |= {f"{column} {value}": blocks["avg"] for column, found in result["subgroups"].items()
              for value, blocks in found.items()}
    aucs = {label: result[name]["auc"] for name, label in ENSEMBLES.items()}
    aucs |= {model["file"]: model["avg"]["auc"] for model in result["models"]}
    return (few_patients(rarer, unit, {name: block.get("n_groups_rarer", 0) for name, block in parts.items()})
            + swapped_labels(aucs))
