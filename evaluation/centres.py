"""Other centres, measured by the same models with the same thresholds and recalibration: aggregate.py --cohort.

metrics.json then holds

    cohorts        {name: set, n_scans, n_patients, synthetic, overlap (with the models' training), avg, max (blocks)};
                   the first is INTERNAL, of --dir
    differences    {name: {avg, max: {metric of COMPARED: of `difference`, the centre less INTERNAL}}}
    heterogeneity  {metric of COMPARED: of `heterogeneity`}: LARS-avg, over all of cohorts
"""
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.special import logit
from scipy.stats import chi2

from common.digests import overlap, training_digests
from common.files import InputError, progress
from common.manifest import LEAKAGE, SYNTHETIC
from common.text import counted, some
from evaluation import cohorts, ensemble
from evaluation.averaging import Ensemble, Rules, average_models
from evaluation.cautions import few_in_parts, high_aucs, swapped_labels
from evaluation.ensemble import ENSEMBLES, Model, patients
from evaluation.estimates import difference_text, long_text, no_estimate, p_text
from evaluation.metrics import AT_THRESHOLD, COMPARED, DERIVED, OVERALL, THRESHOLD, UNREACHED, Z, all_metrics, reached
from evaluation.operating_points import checkpoints, identities
from evaluation.overlap import check_checkpoints, find_overlap

INTERNAL = "internal"
KEPT = ("n", "n_positive", "n_groups_rarer", *OVERALL, "threshold", *AT_THRESHOLD, "operating_points")  # of a block
FEWEST = 5  # centres, below which a variance between them says nothing


@dataclass
class Centre:
    """A cohort's predictions.

    Attributes
    ----------
    name : str
    wanted : str
        The set.
    models : list of Model
        With its rows.
    scans : DataFrame
        Of `ensemble.join_scans`.
    ensembles : dict
        {name of ENSEMBLES: Ensemble}.
    overlap : dict
        Of `overlap.find_overlap`.
    """
    name: str
    wanted: str
    models: list[Model]
    scans: pd.DataFrame
    ensembles: dict[str, Ensemble]
    overlap: dict


def read_centre(name: str, folder: Path, others: list[Centre], rules: dict[str, Rules], how: str, settings: Path,
                derived_from: pd.DataFrame | dict | None, warnings: list[str]) -> Centre:
    """Another centre's predictions by the models of the first.

    Parameters
    ----------
    folder : Path
        Of its prediction files.
    others : list of Centre
        The first, and those that were read before.
    rules : dict
        Of `operating_points.derive_rules` or `read_rules`.
    how : str
        As in `ensemble.combine`.
    settings : Path
        Folder of the settings beside the checkpoints.
    derived_from : DataFrame, dict or None
        What the rules were derived from: the rows, or their digests, which an earlier run stored; None: not known.
    warnings : list of str
        To which more are added, the name before each.

    Raises
    ------
    InputError
        A model's predictions are missing or of another checkpoint; there is no target; a scan or patient is in another
        centre, too, or a model was trained on it.
    """
    wanted_models = {model.file: model for model in others[0].models}
    found = {model.file: model for model in ensemble.find_models(folder)[0] if model.file in wanted_models}
    if lacking := sorted(set(wanted_models) - set(found)):
        raise InputError(f"--cohort {name}: {folder} lacks {some(lacking, 3)}; predict it with the same models")
    models, said = [found[file] for file in wanted_models], []
    wanted = ensemble.read_models(models, None, ())
    said += cohorts.check_cohort(models, False, None)
    now, before = checkpoints(models), checkpoints(others[0].models)
    for file in now:
        if None not in (now[file], before[file]) and now[file] != before[file]:
            raise InputError(f"--cohort {name}: {folder / file} is of another checkpoint than in the first cohort; "
                             "predict both with the same models")
    if unknown := [file for file in now if None in (now[file], before[file])]:
        said.append(f"whether {some(unknown, 2)} are of the same checkpoints as in the first cohort was not checked")
    check_checkpoints([found[file] for file in unknown], settings)
    seen, not_checked = find_overlap(models, wanted, settings)
    if wrong := seen["optimistic"] or LEAKAGE not in others[0].overlap and seen.get(LEAKAGE):
        raise InputError(f"--cohort {name}: {wrong}; leave them out of the manifest and predict again")
    scans, more = ensemble.join_scans(models)
    if scans["target"].isna().all():
        raise InputError(f"--cohort {name}: no scan of {folder} has a target; give its labels to prepro_script.py")
    rows = identities(model.rows for model in models)
    elsewhere: dict[str, pd.DataFrame | dict] = {
        f"cohort {other.name}": identities(model.rows for model in other.models) for other in others}
    if derived_from is not None:
        elsewhere["what the thresholds were derived from"] = derived_from
    for where, known in elsewhere.items():
        digests = known if isinstance(known, dict) else training_digests(known, ["train"] * len(known))
        shared = overlap(rows, digests) == "train"
        if shared.any():
            raise InputError(f"--cohort {name}: {some(rows['scan_id'][shared].unique(), 3)}, or their patients or "
                             f"images, are in {where}, too; should others have the same names, hash them under keys of "
                             "their own")
    if scans["synthetic"].any():
        said.append(SYNTHETIC)
    ensembles = {each: average_models(models, scans, each, how, rule) for each, rule in rules.items()}
    warnings += [f"cohort {name}: {line}" for line in dict.fromkeys(said + not_checked + more)]
    return Centre(name, wanted, models, scans, ensembles, seen)


def measure_centres(centres: list[Centre], internal: dict, resamples: int, seed: int, warnings: list[str]) -> dict:
    """The parts of metrics.json that the head of this module says.

    Parameters
    ----------
    centres
        The first is INTERNAL, of which `internal` holds the blocks avg and max.
    resamples, seed : int
        Of the bootstrap.
    warnings : list of str
        To which those of `cautions` are added.
    """
    found: dict[str, dict] = {}
    with progress(centres, "cohorts", "cohort") as bar:
        for each in bar:
            labelled = each.scans[each.scans["target"].notna()]
            y, groups = labelled["target"].to_numpy(dtype=int), patients(labelled)
            blocks = {name: internal[name] if each.name == INTERNAL else all_metrics(
                y, one.prob[labelled.index].to_numpy(), THRESHOLD, one.operating_points(labelled.index), groups,
                resamples, seed) for name, one in each.ensembles.items()}
            n_patients = None if groups is None else len(set(groups))
            found[each.name] = {
                "set": each.wanted, "n_scans": len(labelled), "n_patients": n_patients,
                "synthetic": bool(each.scans["synthetic"].any()), "overlap": each.overlap["text"],
                **{name: {key: block[key] for key in KEPT} for name, block in blocks.items()}}
    first, *others = found
    parts = {f"cohort {name}": found[name]["avg"] for name in others}
    unit = "scan" if any(found[name]["n_patients"] is None for name in others) else "patient"
    warnings += few_in_parts({name: block["n_groups_rarer"] for name, block in parts.items()}, unit)
    warnings += swapped_labels({name: block["auc"] for name, block in parts.items()})
    warnings += high_aucs({name: (block["auc"], block["n_groups_rarer"]) for name, block in parts.items()}, unit)
    differences = {name: {each: {metric: difference(found[name][each][metric], found[first][each][metric])
                                 for metric in COMPARED} for each in ENSEMBLES} for name in others}
    return {"cohorts": found, "differences": differences, "heterogeneity": {
        metric: heterogeneity([each["avg"][metric] for each in found.values()]) for metric in COMPARED}}


def cohorts_table(metrics: dict) -> pd.DataFrame:
    """cohorts.csv: a row for each cohort, ensemble, threshold and metric; differences from the first at 0.5."""
    rows = []
    for name, each in metrics["cohorts"].items():
        for kind, label in ENSEMBLES.items():
            differences = metrics["differences"].get(name, {}).get(kind, {})
            about = {"cohort": name, "set": each["set"], "scans": each[kind]["n"], "patients": each["n_patients"],
                     "positive": each[kind]["n_positive"], "ensemble": label}
            for point, block in reached(each[kind]).items():
                for metric in (*OVERALL, *AT_THRESHOLD) if block is each[kind] else AT_THRESHOLD:
                    row = {key: block[metric][key] for key in ("value", "ci_low", "ci_high")}
                    if block is each[kind] and metric in differences:
                        less = differences[metric].values()
                        row |= dict(zip(("difference", "difference_low", "difference_high"), less, strict=True))
                    rows.append(about | {"threshold": DERIVED.get(point, point), "metric": metric} | row)
    marks = {"synthetic": 1} if any(each["synthetic"] for each in metrics["cohorts"].values()) else {}
    marks |= {"notice": metrics["optimistic"]} if metrics["optimistic"] else {}
    return pd.DataFrame(rows).astype({"patients": "Int64"}).assign(**marks)


def report_tables(metrics: dict) -> dict | None:
    """The tables of the report's section; None without cohorts."""
    if "cohorts" not in metrics:
        return None
    found, head = metrics["cohorts"], ["Cohort", "Set", "Scans (Deauville 4–5)", "Patients"]
    shown = {"auc": "AUC", "brier": "Brier score", "calibration_intercept": "Calibration intercept",
             "calibration_slope": "Calibration slope"}
    rows = [[name, each["set"], f"{each['avg']['n']} ({each['avg']['n_positive']})",
             "not known" if each["n_patients"] is None else str(each["n_patients"]),
             *(long_text(each["avg"][metric]) for metric in shown)] for name, each in found.items()]
    points = {name: reached(each["avg"]) for name, each in found.items()}
    names = [point for point in (str(THRESHOLD), *DERIVED) if any(point in each for each in points.values())]
    at = [[name, *(Markup("<span>{}</span><br><span>{}</span>").format(
        *(long_text(each[point][metric]) for metric in ("sensitivity", "specificity")))
        if point in each else UNREACHED for point in names)] for name, each in points.items()]
    less = [[f"{name} less {next(iter(found))}", *(difference_text(each["avg"][metric]) for metric in COMPARED)]
            for name, each in metrics["differences"].items()]
    overlaps: dict[str, list[str]] = {}
    for name, each in found.items():
        alike = re.fullmatch(r"none; compared: \d+ scans ([^,]*)", each["overlap"])  # of all its scans
        overlaps.setdefault(f"none, compared {alike[1]}" if alike else each["overlap"], []).append(name)
    return {"others": others_text(metrics),
            "overlaps": [f"of {', '.join(of)}: {text}" for text, of in overlaps.items()],
            "whole": ([*head, *shown.values()], rows),
            "calls": (["Sensitivity, below it specificity", *(DERIVED.get(point, point) for point in names)], at),
            "differences": (["Difference at 0.5", *COMPARED.values()], less),
            "heterogeneity": varied_text(metrics["heterogeneity"])}


def others_text(metrics: dict) -> str:
    """"north (40 scans), south (30 scans)": the cohorts but INTERNAL; "" without."""
    return ", ".join(f"{name} ({counted(each['avg']['n'], 'scan')})"
                     for name, each in metrics.get("cohorts", {}).items() if name != INTERNAL)


def varied_text(found: dict) -> str:
    """How much the cohorts vary, or why that is not known."""
    reasons = {each["reason"] for each in found.values() if "reason" in each}
    if len(reasons) == 1 and all("reason" in each for each in found.values()):
        return f"not given: {reasons.pop()}"
    return "; ".join(f"{label} {each['reason']}" if "reason" in each else
                     f"{label} I² {100 * each['i2']:.0f} %, τ² {each['tau2']:.3f}, p {p_text(each['p'])}"
                     for label, each in zip(COMPARED.values(), found.values(), strict=True))


def difference(one: dict, other: dict) -> dict:
    """The difference of two independent estimates, with the interval that theirs give by the square-and-add method.

    Newcombe RG. Stat Med 1998;17:873-90, method 10, for proportions; for any two intervals Zou GY, Donner A. Stat Med
    2008;27:1693-702 (MOVER).

    Parameters
    ----------
    one, other : dict
        Of `estimates`, of different patients.

    Returns
    -------
    dict
        difference, ci_low, ci_high; None where an estimate, or its interval, is missing.
    """
    if None in (one["value"], other["value"]):
        return {"difference": None, "ci_low": None, "ci_high": None}
    found = one["value"] - other["value"]
    if None in (one["ci_low"], other["ci_low"]):
        return {"difference": found, "ci_low": None, "ci_high": None}
    down = math.hypot(one["value"] - one["ci_low"], other["ci_high"] - other["value"])
    up = math.hypot(one["ci_high"] - one["value"], other["value"] - other["ci_low"])
    return {"difference": found, "ci_low": found - down, "ci_high": found + up}


def heterogeneity(estimates: list[dict]) -> dict:
    """How much an AUC or a proportion varies between centres, beyond what their sizes explain.

    On the logit scale, each centre's variance being that of its interval there: Cochran's Q, I² (Higgins JPT, Thompson
    SG. Stat Med 2002;21:1539-58) and τ² (DerSimonian R, Laird N. Control Clin Trials 1986;7:177-88).

    Parameters
    ----------
    estimates : list of dict
        Of `estimates`, a centre each.

    Returns
    -------
    dict
        n_centres, q, p, i2 (share, 0 to 1), tau2 (of the logit); or an entry of `estimates.no_estimate`.
    """
    if len(estimates) < FEWEST:
        return no_estimate(f"needs {FEWEST} centres or more")
    known = [each for each in estimates if each["ci_low"] is not None and 0 < each["value"] < 1
             and 0 < each["ci_low"] and each["ci_high"] < 1]
    if len(known) < len(estimates):
        return no_estimate("some centre has no interval, or a value or limit of 0 or 1")
    y = logit([each["value"] for each in known])
    weight = (2 * Z / (logit([each["ci_high"] for each in known]) - logit([each["ci_low"] for each in known]))) ** 2
    q = float(np.sum(weight * (y - np.average(y, weights=weight)) ** 2))
    freedom = len(known) - 1
    scale = weight.sum() - (weight**2).sum() / weight.sum()
    return {"n_centres": len(known), "q": q, "p": float(chi2.sf(q, freedom)),
            "i2": max(0.0, 1 - freedom / q) if q else 0.0, "tau2": max(0.0, float((q - freedom) / scale))}
