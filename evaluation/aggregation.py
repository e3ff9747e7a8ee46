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
    scales                                   {part of this file, column of ensemble_*.csv: what its probabilities are}
    validation                               where thresholds and recalibration come from: source (or null, with
                                             reason), n_scans, n_positive, n_patients, models_per_scan {models: scans},
                                             scans_per_model [fewest, most], fewest_of_class
                                             (scans of a class, in any of them), by (mean: they are of the models' mean;
                                             majority: of each model; or mean and majority), ...
    warnings, cautions                       texts; those of them that name no scan, patient or reader, for other
                                             centres: of `measure`
    scans_lacking_a_model                    {scan_id: models that have it}
    avg, max                                 a block each, its operating_points with `averaging.Ensemble.points`, and
                                             reliability (of `metrics.reliability_bins`), at_bounds (scans at a bound of
                                             isotonic recalibration), before_recalibration (a block and its
                                             reliability), ensemble_size (of `disagreement.auc_by_size`), selective
                                             {label: of `selective_summary`}, calibration_curve, decision_curve (of the
                                             modules of these names), and of `predictive_values` at each operating point
                                             lr_positive, lr_negative, at_prevalence
    views                                    {view: block}: the views alone, recalibrated as scans are
    folds                                    {split: {avg, max: block}} of --pooled_folds, else {}
    primary                                  of `primary.primary_entry`, where one was declared
    cohorts, differences, heterogeneity      of --cohort: see `centres`
    checkpoints                              {prediction file: SHA-256 of its checkpoint, or null}
    models                                   file, split, run, rank, n_scans, avg and max (blocks), each recalibrated
                                             alone
    subgroups                                {column: {value: {avg, max: block}}}
    contrasts                                {column: [a, b (values), auc, sensitivity, specificity (a less b, of avg,
                                             of `contrasts.differences`, with p_holm)]}
    selection                                what validation patients chose: of `selection.describe_selection`
    prognosis, readers                       of --survival, --readers: see `prognosis`, `readers`
    sites                                    of predict_loca.py's models: see `site_ensemble.measure_sites`
    files                                    what was written beside it, but for the checklists
    provenance                               version, commit, command, versions, inputs: of `provenance.this_run`
"""
import pandas as pd
from numpy import ndarray

from common.files import progress
from common.manifest import LEAKAGE, MARK, SYNTHETIC, written_twice
from common.text import counted, some
from evaluation import bootstrap, calibration_curve, contrasts, decision_curve, disagreement, predictive_values
from evaluation.averaging import Ensemble, average_models
from evaluation.cautions import few_in_parts, few_patients, high_aucs, rarer_class, swapped_labels
from evaluation.ensemble import ENSEMBLES, Model, folds, folds_text, patients, subgroups
from evaluation.estimates import no_estimate
from evaluation.metrics import THRESHOLD, all_metrics, reliability_bins
from evaluation.operating_points import MEASURED, checkpoints

THRESHOLDS_ON_TEST = "OPTIMISTIC: thresholds{} were derived from the very scans that they are measured on."
SHOWN = ("auc", "accuracy", "sensitivity", "specificity")


def describe(models: list[Model], scans: pd.DataFrame, ensembles: dict[str, Ensemble], wanted: str, about: dict,
             overlap: dict, how: str, resamples: int, seed: int, warnings: list[str]) -> dict:
    """The part of metrics.json that needs no target.

    Parameters
    ----------
    models, scans, ensembles
        Of `ensemble.read_models`, `ensemble.join_scans` and `averaging.average_models`.
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
    synthetic, method = bool(scans["synthetic"].any()), ensembles["avg"].recalibration
    labelled = scans[scans["target"].notna()]
    unit, n_patients = ("patient", labelled["patient_id"].nunique()) if "patient_id" in scans else ("scan", None)
    optimistic = [about["optimistic"]] if about.get("optimistic") else []  # of thresholds that are applied
    if about["source"] == MEASURED and not about.get("applied"):
        optimistic = [THRESHOLDS_ON_TEST.format(" and recalibration" if method else "")]
    optimistic += [f"OPTIMISTIC: {line}" for line in set_warnings(wanted, scans) if wanted != "all"]
    optimistic += [f"OPTIMISTIC: {overlap['optimistic']}"] if overlap["optimistic"] else []
    optimistic += [f"{MARK}: {overlap[LEAKAGE]}"] if overlap.get(LEAKAGE) else []
    by, voted = ensembles["avg"].by, ensembles["avg"].voted.sum()
    if by == "mean and majority":
        warnings.append(f"of {voted} of {counted(len(scans), 'scan')} not those models predicted for whose mean "
                        "thresholds (and recalibration) were derived; theirs are each model's own, and the majority "
                        "decides")
    lacking = scans.loc[scans["n_models"] < scans["n_asked"], "n_models"]
    return {"set": wanted, "synthetic": synthetic, "notice": SYNTHETIC if synthetic else None,
            "optimistic": " ".join(optimistic) or None, "n_scans": len(scans), "n_patients": n_patients,
            "folds_text": folds_text(models), "independent_unit": unit, "confidence": bootstrap.CONFIDENCE,
            "combine": how, "resamples": resamples, "seed": seed, "recalibrate": method,
            "scales": scales(method, by), "validation": about | {"by": by},
            "checkpoints": checkpoints(models), "overlap": overlap, "warnings": warnings,
            "scans_lacking_a_model": lacking.to_dict()}


def scales(method: str | None, by: str | None) -> dict[str, str]:
    """What the probabilities are, in parts of metrics.json and in columns of ensemble_avg.csv and ensemble_max.csv."""
    whole = alone = views = before = "as predicted"
    if method:
        alone = f"recalibrated ({method}), each model alone"
        mean, averaged = f"the models' mean, recalibrated ({method})", f"{alone}, then averaged"
        whole = {"mean": mean, "majority": averaged}.get(by or "", f"{mean}; of scans that lack a model {averaged}")
        views = f"{whole}, as whole scans are"
    return dict.fromkeys(("avg", "max", "folds", "subgroups", "ensemble_prob"), whole) | {
        "models": alone, "probs_0, probs_1, ...": alone, "views": views, "before_recalibration": before,
        "ensemble_prob_uncalibrated": before, "ensemble_size": alone if "majority" in (by or "") else before}


def set_warnings(wanted: str, scans: pd.DataFrame) -> list[str]:
    """What a reader of the numbers must know about the set they come from."""
    if scans["target"].isna().all():
        return []
    if wanted == "all":
        return ["set all: these numbers hold for new patients only if no model was trained or chosen on these scans"]
    done = {"train": "trained", "val": "chosen"}.get(wanted)
    return [f"set {wanted}: the models were {done} on these scans; the numbers are OPTIMISTIC"] if done else []


def measure(models: list[Model], scans: pd.DataFrame, ensembles: dict[str, Ensemble], by: list[str], how: str,
            resamples: int, seed: int, warnings: list[str], prevalences: list[float], thresholds: ndarray) -> dict:
    """The part of metrics.json that is measured: avg, max, views, folds, models, subgroups.

    Parameters
    ----------
    models, scans, ensembles
        Of `ensemble.read_models`, `ensemble.join_scans` and `averaging.average_models`.
    by : list of str
        Columns to make subgroups by.
    how : str
        As in `ensemble.combine`.
    resamples, seed : int
        Of the bootstrap; the seed of the subsets of models, too.
    warnings : list of str
        To which `cautions` are added.
    prevalences : list of float
        As of `predictive_values.add`.
    thresholds : (t,) float array
        Of `decision_curve.thresholds_of`.
    """
    labelled = scans[scans["target"].notna()]
    if "patient_id" in labelled:  # numbers are sorted sooner than names
        labelled = labelled.assign(patient_id=bootstrap.group_index(patients(labelled), len(labelled))[0])
    y, groups = labelled["target"].to_numpy(dtype=int), patients(labelled)
    views = subgroups(models, labelled, "view") if all("view" in model.rows for model in models) else {}
    of_columns = {column: subgroups(models, labelled, column) for column in by}
    cautions = two_spellings(of_columns)
    of_folds = {str(split): (models, labelled[labelled.index.isin(ids)]) for split, ids in folds(models).items()}
    if "patient_id" not in scans:
        cautions.append("the files have no patient_id: the intervals are too narrow where a patient has several scans")
    of_each = 1 + bool(ensembles["avg"].recalibration) + len(models)
    of_each += len(of_folds) + sum(map(len, of_columns.values()))
    with progress(None, "bootstrap", "set of scores", len(views) + len(ensembles) * of_each) as bar:
        def block(scores, each=None):
            bar.update()
            known = labelled.loc[labelled.index.intersection(scores.index)].sort_index()
            if known.empty:
                return {"n": 0, "n_positive": 0} | {name: no_estimate("no scan with a target") for name in SHOWN}
            target, values = known["target"].to_numpy(dtype=int), scores[known.index].to_numpy()
            points = each.operating_points(known.index) if each else None
            return all_metrics(target, values, THRESHOLD, points, patients(known), resamples, seed)

        def average(group, name):
            members, of_group = group
            return average_models(members, of_group, name, how, ensembles[name].rules).prob

        def of_groups(found, name):
            """(scores of each group, whose thresholds apply): none where a scan's rows are of several groups."""
            if sum(len(of_group) for _, of_group in found.values()) == len(labelled):
                each = ensembles[name]
                return {value: each.prob[of_group.index] for value, (_, of_group) in found.items()}, each
            return {value: average(group, name) for value, group in found.items()}, None

        def group_blocks(found):
            scores = {name: of_groups(found, name) for name in ensembles}
            return {value: {name: block(of_each[value], each) for name, (of_each, each) in scores.items()}
                    for value in found}

        result: dict = {name: block(each.prob, each) for name, each in ensembles.items()}
        result["views"] = {value: block(average(group, "avg")) for value, group in views.items()}
        result["folds"] = group_blocks(of_folds)
        result["models"] = [model.about() | {"n_scans": int(ensembles["avg"].scores.iloc[:, k].notna().sum())}
                            | {name: block(each.scores.iloc[:, k].dropna()) for name, each in ensembles.items()}
                            for k, model in enumerate(models)]
        result["subgroups"] = {column: group_blocks(found) for column, found in of_columns.items()}
        result["contrasts"] = contrasts.adjust({column: contrasts.differences(
            of_groups(found, "avg")[0], labelled["target"], labelled.get("patient_id"), resamples, seed)
            for column, found in of_columns.items()})
        if result["avg"]["auc"]["value"] is None:
            cautions.append(f"no AUC and no figures: {result['avg']['auc']['reason']}")
        for name, each in ensembles.items():
            result[name] |= details(each, labelled, how, seed, block(each.raw) if each.recalibration else None)
            predictive_values.add(result[name], each, labelled, prevalences)
            result[name]["decision_curve"] = decision_curve.measure(y, each.prob[labelled.index].to_numpy(), thresholds,
                                                                    groups, resamples, seed)
            if each.reversed:
                cautions.append(f"recalibration reversed the order of the scores of {ENSEMBLES[name]} "
                                f"({some(each.reversed, 3)}): on the scans that it was fitted to, a higher probability "
                                "was the less likely positive")
    cautions += doubtful(result, rarer_class(y, groups), "scan" if groups is None else "patient")
    warnings += cautions
    return result | {"cautions": cautions}


def two_spellings(of_columns: dict[str, dict]) -> list[str]:
    """A caution for each column, {column: {value: its subgroup}}, that has one value under two spellings."""
    return [f"--by {column}: {' and '.join(map(repr, twice))} are a subgroup each; if they are one, write it in one "
            "way in the manifest, and predict again"
            for column, values in of_columns.items() if len(twice := written_twice(pd.Series([*values])))]


def details(each: Ensemble, labelled: pd.DataFrame, how: str, seed: int, before: dict | None) -> dict:
    """What avg and max hold that no other block does: reliability, calibration_curve, ensemble_size, selective and, of
    recalibrated scores, at_bounds, before_recalibration, which is `before` and the first two of what was predicted."""
    y, groups = labelled["target"].to_numpy(dtype=int), patients(labelled)
    raw, p = (scores[labelled.index].to_numpy() for scores in (each.raw, each.prob))
    doubts = disagreement.doubts(each.scores.loc[labelled.index], p, THRESHOLD)
    found: dict = {"at_bounds": int(each.at_bounds[labelled.index].sum())} if before else {}
    found |= {"reliability": reliability_bins(y, p, groups),
              "ensemble_size": disagreement.auc_by_size(each.averaged.loc[labelled.index], y, how, seed),
              "selective": {label: disagreement.selective_summary((p >= THRESHOLD) == y, doubt)
                            for label, doubt in doubts.items()}}
    if before:
        found["before_recalibration"] = before | {"reliability": reliability_bins(y, raw, groups),
                                                  "calibration_curve": calibration_curve.measure(y, raw, groups, seed)}
    return found | {"calibration_curve": calibration_curve.measure(y, p, groups, seed)}


def doubtful(result: dict, rarer: int, unit: str) -> list[str]:
    """`cautions` of what `measure` returns."""
    parts = {f"fold {split}": blocks["avg"] for split, blocks in result["folds"].items()}
    parts |= {f"{column} {value}": blocks["avg"] for column, found in result["subgroups"].items()
              for value, blocks in found.items()}
    whole = {label: result[name] for name, label in ENSEMBLES.items()}
    aucs = {label: block["auc"] for label, block in whole.items()}
    aucs |= {model["file"]: model["avg"]["auc"] for model in result["models"]}
    sizes = {name: block.get("n_groups_rarer", 0) for name, block in parts.items()}
    few = few_patients(rarer, unit) or few_in_parts(sizes, unit)
    return few + swapped_labels(aucs) + high_aucs(
        {name: (block["auc"], block.get("n_groups_rarer", 0)) for name, block in (whole | parts).items()}, unit)
