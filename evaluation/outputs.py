"""What aggregate.py writes beside figures and report, and what it prints."""
from pathlib import Path

import pandas as pd

from common.files import InputError, read_json_object
from common.text import aligned, counted
from evaluation import prognosis, readers, site_ensemble
from evaluation.aggregation import SHOWN
from evaluation.averaging import Ensemble
from evaluation.calibration_curve import error_text
from evaluation.disagreement import disagreement_list
from evaluation.ensemble import ENSEMBLES
from evaluation.estimates import difference_text, short_text
from evaluation.failures import list_failures
from evaluation.metrics import DERIVED, THRESHOLD
from evaluation.report import primary_name
from evaluation.site_metrics import NAMES


def ensemble_table(scans: pd.DataFrame, each: Ensemble) -> pd.DataFrame:
    """The table of ensemble_avg.csv or ensemble_max.csv."""
    table = each.scores.assign(ensemble_prob=each.prob, pred_label=(each.prob >= THRESHOLD).astype(int))
    table.insert(0, "target", scans["target"].astype("Int64"))
    if each.recalibration:
        table["ensemble_prob_uncalibrated"] = each.raw
    for name in each.points:  # empty where it could not be reached, as in scores.csv of score.py
        table[f"pred_{name}"] = each.calls[name].astype(int) if name in each.calls else ""
    if "patient_id" in scans:
        table["patient_id"] = scans["patient_id"].str.strip()
    return table.reset_index(names="scan_id")


def tables(scans: pd.DataFrame, ensembles: dict[str, Ensemble], sites: site_ensemble.Sites | None,
           metrics: dict) -> dict[str, pd.DataFrame]:
    """The tables to write, {file: table}: of the ensembles, where the models disagree and, if there are, lesion sites.

    Parameters
    ----------
    scans, ensembles
        Of `ensemble.join_scans` and `average_models`.
    sites
        Of `site_ensemble.join_sites`.
    metrics : dict
        What metrics.json holds.
    """
    found = {f"ensemble_{name}.csv": ensemble_table(scans, each) for name, each in ensembles.items()}
    found["disagreement.csv"] = disagreement_list(scans, ensembles["avg"].scores, ensembles["avg"].prob, THRESHOLD)
    if scans["target"].notna().any():
        found["failures.csv"] = list_failures(scans, ensembles["avg"])
    if sites:
        found["ensemble_sites.csv"] = site_ensemble.scan_table(sites, scans)
    if metrics.get("sites", {}).get("ensemble"):
        found["site_metrics.csv"] = site_ensemble.metrics_table(metrics["sites"])
    if metrics.get("prognosis"):
        found["prognosis.csv"] = prognosis.csv_table(metrics["prognosis"])
    if metrics.get("readers"):
        found["reader_study.csv"] = readers.csv_table(metrics["readers"])
    if metrics["synthetic"]:  # marked as the predictions are, so that compare.py and a reader of one table alone know
        marks = scans["synthetic"].astype(int)
        found = {name: table.assign(synthetic=table["scan_id"].map(marks) if "scan_id" in table else 1)
                 for name, table in found.items()}
    if metrics["optimistic"]:
        found = {name: table.assign(notice=metrics["optimistic"]) for name, table in found.items()}
    return found


def earlier_files(folder: Path) -> list[Path]:
    """The files in a folder that an earlier call of aggregate.py wrote, as its metrics.json names them."""
    try:
        stored = read_json_object(folder / "metrics.json", "--output", "{}")
    except InputError:  # there is none: the earlier call, if any, had no targets
        stored = {}
    names = stored.get("files", [])
    names = [name for name in names if isinstance(name, str) and Path(name).name == name] * isinstance(names, list)
    return [folder / name for name in dict.fromkeys((*names, "metrics.json", "operating_points.json",
                                                     "ensemble_sites.csv"))]


def remove_stale(earlier: list[Path], written: list[Path]) -> None:
    """Remove, and say so, what an earlier call wrote (of `earlier_files`) and this one did not."""
    for path in earlier:
        if path not in written and path.is_file():
            path.unlink()
            print(f"removed {path}: it belonged to earlier predictions")


def print_metrics(metrics: dict) -> None:
    """The ensembles at each threshold, then the lesion sites, of all models together and of each."""
    for name, label in ENSEMBLES.items():
        print(f"\n{label}: AUC {short_text(metrics[name]['auc'])}")
        for split, each in metrics["folds"].items():
            print(f"AUC of fold split{split}: {short_text(each[name]['auc'])}")
        print(_line("", SHOWN[1:]))
        print(_line("at 0.5", (short_text(metrics[name][metric]) for metric in SHOWN[1:])))
        for point, block in metrics[name]["operating_points"].items():
            if "reason" in block:
                print(f"{DERIVED[point]}: {block['reason']}")
            else:
                print(_line(DERIVED[point], (short_text(block[metric]) for metric in SHOWN[1:])))
        ici, e90 = (error_text(metrics[name]["calibration_curve"][error], short=True) for error in ("ici", "e90"))
        print(f"calibration: ICI {ici}, E90 {e90}")
        for each in metrics[name]["at_prevalence"]:
            print(f"at 0.5, where {100 * each['prevalence']:g} % have Deauville 4–5: PPV {short_text(each['ppv'])}, "
                  f"NPV {short_text(each['npv'])}")
    source, unit = metrics["validation"].get("source"), metrics["independent_unit"]
    majority = ", calls by majority" if metrics["validation"].get("by") == "majority" else ""
    thresholds = f"thresholds: {source}{majority}; " if source else ""
    print(f"\n95 % intervals: DeLong and Wilson, by {unit}\n{thresholds}everything else: report.html\n")
    for name, each in list(metrics.get("cohorts", {}).items())[1:]:
        auc, less = short_text(each["avg"]["auc"]), difference_text(metrics["differences"][name]["avg"]["auc"])
        print(f"cohort {name}: {counted(each['avg']['n'], 'scan')}; {ENSEMBLES['avg']}: AUC {auc}, less internal "
              f"{less}")
    if "primary" in metrics:
        print(f"primary analysis: {primary_name(metrics['primary'])}, {short_text(metrics['primary'])}\n")
    for name, block in metrics.get("prognosis", {}).items():
        ratio, c = (short_text(block["markers"]["avg"][key]) for key in ("hazard_ratio", "c_index"))
        print(f"{name}: {counted(block['n_patients'], 'patient')}, {counted(block['n_events'], 'event')}; "
              f"{ENSEMBLES['avg']}: hazard ratio of a positive call {ratio}, C-index {c}\n")
    if study := metrics.get("readers"):
        print(f"readers: {', '.join(study['names'])}, read as {study['scale']}; {counted(study['n_scans'], 'scan')}\n")
    sites = metrics.get("sites", {})
    if not sites.get("ensemble"):
        return
    shown, guess = site_ensemble.shown(sites), site_ensemble.chance(sites)
    blocks = {"all models": sites["ensemble"]} if len(sites["models"]) > 1 else {}
    blocks |= {Path(each["file"]).stem.removeprefix("pred_"): each for each in sites["models"]}
    print(aligned([["site by", "scans", *(NAMES[name] for name in shown)],
                   *([label, str(block["n"]), *(short_text(block[name]) if block["n"] else "" for name in shown)]
                     for label, block in blocks.items())]))
    print(f"{counted(len(sites['names']), 'lesion site')}; " + (guess and f"{guess}; ")
          + "each site's recall: site_metrics.csv, report.html\n")


def _line(label, cells):
    return (f"{label:<20}" + "".join(f"{cell:<20}" for cell in cells)).rstrip()
