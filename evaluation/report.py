"""report.html of aggregate.py and compare.html of compare.py: one page each, for a screen, a phone and paper.

The texts of the pages are in common/templates/report.html and compare.html; their tables are filled here.
"""
import base64
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from common.html import write_page
from common.text import counted
from evaluation import (
    calibration_curve,
    centres,
    cohort_table,
    contrasts,
    decision_curve,
    predictive_values,
    prognosis,
    readers,
    site_ensemble,
    site_metrics,
)
from evaluation.comparison import tests_of
from evaluation.ensemble import ENSEMBLES
from evaluation.estimates import NO_ECE_INTERVAL, difference_text, long_text, p_text
from evaluation.metrics import AT_THRESHOLD, DERIVED, OVERALL, THRESHOLD, reached
from evaluation.provenance import REMEDY

NAMES = {"auc": "AUC", "average_precision": "Average precision", "brier": "Brier score", "log_loss": "Log loss",
         "calibration_intercept": "Calibration intercept (ideal 0)", "calibration_slope": "Calibration slope (ideal 1)",
         "ece": "Expected calibration error", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy",
         "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "Positive predictive value",
         "npv": "Negative predictive value", "f1": "F1", "mcc": "Matthews correlation", "recall": "Recall",
         "precision": "Precision",
         **{name: text[0].upper() + text[1:] for name, text in site_metrics.NAMES.items()}}
FIGURES = {  # file -> (section of the page, heading, what to read in it)
    "roc": ("results", "ROC", "Sensitivity against false positive rate. Shaded: pointwise 95 % bootstrap band of "
            "LARS-avg. A mark lies beside its curve where calls are by majority, or fold by fold."),
    "precision_recall": ("results", "Precision and recall",
                         "The dotted line is what chance gives: the share of Deauville 4–5."),
    "scores": ("results", "Scores by class", "Where the classes overlap; lines are the thresholds."),
    "decision_curve": ("results", "Decision curve", "Net benefit of acting on the score at each threshold "
                       "probability, against acting on all scans or on none. Shaded: pointwise 95 % bootstrap interval "
                       "of LARS-avg."),
    "confusion": ("operating points", "Confusion matrices",
                  "Counts, and the share of the row, at each operating point."),
    "reliability": ("calibration", "Reliability", "Observed share of Deauville 4–5 at each predicted probability: "
                    "smooth, shaded with its pointwise 95 % interval, and as points in bins of equally many scans, "
                    "with 95 % intervals. Where it is below the diagonal, the probabilities are too high. Bottom: how "
                    "many scans have which probability."),
    "site_confusion": ("sites", "Predicted and true site", "Scans of each site (row) by the predicted site (column); "
                       "the colour is the share of the row."),
    "ensemble_size": ("disagreement", "Size of the ensemble", "AUC against the number of models; bars: 95 % of the "
                      "subsets of these models, not of patients. On the scans that all models have; a recalibration of "
                      "their mean comes after it."),
    "selective": ("disagreement", "Referral to a human",
                  "Accuracy of the scans that are kept when the most doubtful are referred."),
}
BY_COLUMN = {  # beginning of a file's name, before that of a column if there is one -> the same
    "cohorts": ("cohorts", "Cohorts", "LARS-avg; sensitivity and specificity at 0.5. Dotted: internal."),
    "flow": ("cohort", "Flow of scans", "From the manifest, and errors.csv where it is beside it, to the scans "
             "that are measured. Studies that prepro_script.py --skip_unlabelled passed over are in neither."),
    "forest": ("subgroups", "Subgroups",
               "LARS-avg; sensitivity and specificity at 0.5. Dotted: the estimate of all scans."),
    "survival_": ("prognosis", "Kaplan–Meier, {}", "Share of patients without event by call, pointwise 95 % intervals; "
                  "ticks: censored; below: patients at risk."),
}
WIDE = ("confusion", "reliability", "site_confusion", *BY_COLUMN)
METHODS = {
    "AUC": "DeLong 1988 on the logit scale (Pepe 2003); with several scans of a patient, Obuchowski 1997; where its "
           "variance is 0, Newcombe 2006. The bootstrap's interval is in metrics.json, too.",
    "Proportions": "Wilson 1927; with several scans of a patient on the effective sample size of Rao and Scott 1992.",
    "Everything else": "Bias-corrected and accelerated bootstrap (Efron 1987), by {unit}.",
    "Calibration": "Intercept with the slope at 1 (calibration in the large), and slope: Cox 1958, Van Calster 2019. "
                   "Expected calibration error: ten bins of equal width (Naeini 2015). Recalibration: logistic (Cox "
                   "1958), with Platt's targets (1999), by temperature (Guo 2017), or isotonic (Zadrozny and Elkan "
                   "2002) within 1/(n + 2) and 1 − 1/(n + 2).",
    "Calibration curve": "Logistic regression on a restricted cubic spline of the logit (Harrell 2015) with 4 knots, "
                         "or 3 where a class has fewer than 40 patients; band: jackknife by {unit}. ICI, E50, E90: "
                         "Austin and Steyerberg 2019; where every probability is right: 1000 simulations of outcomes "
                         "from the probabilities, scan by scan.",
    "Likelihood ratios": "On the log scale: Simel 1991, by {unit}. Predictive values at another prevalence: Bayes' "
                         "rule, as Mercaldo 2007.",
    "Thresholds": "Youden 1950; the highest threshold of sensitivity 0.95 or more; the lowest of specificity 0.95 or "
                  "more. A scan is predicted positive at the threshold or above; by a majority, where more models "
                  "predict it than not, or as many (not at specificity 0.95 or more).",
    "Decision curve": "Vickers and Elkin 2006; bootstrap by {unit}.",
    "Referral": "El-Yaniv and Wiener 2010.",
}
MANY_SPLITS = 4  # from this many on their sets are given by ranges
LISTED = 10  # scans where the models disagree most


def write_report(path: Path, metrics: dict, figures: Iterable[Path], disagreement: pd.DataFrame, wrong: dict,
                 flow: dict, settings: list[dict], checklists: list[dict]) -> None:
    """Write report.html.

    Parameters
    ----------
    path : Path
    metrics : dict
        What metrics.json holds.
    figures : iterable of Path
        SVGs and PNGs, of which the SVGs are shown.
    disagreement : DataFrame
        What disagreement.csv holds.
    wrong
        Of `failures.on_page`.
    flow, settings
        Of `provenance.cohort_flow` and `provenance.models_settings`.
    checklists
        Of `checklists.write_checklists`.
    """
    blocks, names = [metrics[key] for key in ENSEMBLES], [model_name(model) for model in metrics["models"]]
    differing, primary = [row for row in settings if len(set(row["values"])) > 1], metrics.get("primary")
    write_page(
        path, "report.html", metrics=metrics, ensembles=ENSEMBLES, flow=flow, settings=settings, remedy=REMEDY,
        no_ece_interval=NO_ECE_INTERVAL, slopes={
            label: long_text(metrics[key]["calibration_slope"]) for key, label in ENSEMBLES.items()
            if metrics[key]["calibration_slope"]["value"] is not None},
        results=by_metric(OVERALL, blocks),
        operating_points={label: operating_points(metrics[key]) for key, label in ENSEMBLES.items()},
        calibration=calibration_table(metrics),
        net_benefit=decision_curve.table({label: metrics[key]["decision_curve"] for key, label in ENSEMBLES.items()}),
        **site_tables(metrics.get("sites")),
        table_one=cohort_table.on_page(flow["table_one"]) if flow["manifest"] else None,
        figures=[figure(image) for image in figures if image.suffix == ".svg"],
        folds=fold_table(metrics), views_and_models=views_and_models(metrics),
        primary=primary and {"name": primary_name(primary), "estimate": long_text(primary)},
        cohorts=centres.report_tables(metrics),
        subgroups=subgroup_table(metrics["subgroups"]),
        contrasts=contrasts.report_table(metrics["contrasts"]), failures=wrong,
        disagreement=[disagreement_row(row) for row in disagreement.head(LISTED).itertuples()],
        referral=referral_table(metrics["avg"]["selective"]),
        cohort=sets_table(flow["rows"]), checklists=checklists, provenance=provenance_table(metrics["provenance"]),
        prognosis=prognosis.report_tables(metrics.get("prognosis", {})),
        **readers.report_tables(metrics.get("readers")),
        same=[(row["name"], row["values"][0]) for row in settings if row not in differing],
        differing=(["Model", *(row["name"] for row in differing)],
                   [[name, *(row["values"][k] for row in differing)] for k, name in enumerate(names)]),
        methods=[(name, text.format(unit=metrics["independent_unit"])) for name, text in METHODS.items()])


def write_comparison(path: Path, result: dict) -> None:
    """Write compare.html; `result` is what compare.json holds."""
    ensembles = [(each["name"], long_text(result["auc"][each["name"]]), each["threshold"])
                 for each in result["ensembles"]]
    test, pairs = (result["primary"] or {}).get("test"), []
    for pair in result["pairs"]:
        verdict = pair[test].get("verdict") if test else None
        said = f": {verdict['text']}" if verdict else ""  # above the table
        pairs.append((pair["a"], pair["b"], verdict, [
            (row["test"], difference_text(row), p_text(row["p"]), p_text(row["p_holm"]),
             row["detail"].replace(said, "", 1)) for row in tests_of(pair)]))
    primary = result["primary"] and NAMES[result["primary"]["metric"]]
    write_page(path, "compare.html", result=result, ensembles=ensembles, pairs=pairs, primary=primary,
               provenance=provenance_table(result["provenance"]))


# ---------------------------------------------------------------- tables: headings, then a list of texts for each row

def by_metric(names: Sequence[str], blocks: Iterable[dict]) -> list[list[str]]:
    """A row for each metric, a column for each block of metrics.json."""
    return [[NAMES[name], *(long_text(block[name]) for block in blocks)] for name in names]


def by_block(head: list[str], names: Sequence[str], blocks: Iterable[tuple]) -> tuple:
    """A row for each (label, how many scans, ..., block of metrics.json), a column for each metric."""
    rows = [[*map(str, about), *(long_text(block.get(name)) for name in names)] for *about, block in blocks]
    return [*head, *(NAMES[name] for name in names)], rows


def operating_points(block):
    """Of one ensemble, a column for each threshold: (headings, rows, [(threshold not reached, why)])."""
    names, points = zip(*reached(block).items(), strict=True)
    rows = [["Threshold", *map(thresholds_text, points)]] * (len(points) > 1)
    rows.append(["True / false positives", *(f"{point['tp']} / {point['fp']}" for point in points)])
    rows.append(["True / false negatives", *(f"{point['tn']} / {point['fn']}" for point in points)])
    rows += by_metric(AT_THRESHOLD, points) + predictive_values.rows(points)
    missed = [(DERIVED[name], at["reason"]) for name, at in block["operating_points"].items() if "reason" in at]
    return ["", *(DERIVED.get(name, name) for name in names)], rows, missed


def thresholds_text(point):
    """"0.431"; of several, their range and whose they are; how many models have none."""
    values = point.get("thresholds", {}).values()
    if "by" not in point:
        return f"{point['threshold']:.3f}"
    known = sorted(value for value in values if value is not None)
    one = "" if point["threshold"] is None else f"{point['threshold']:.3f}"
    of, missed = "fold" if point["by"] == "mean" else "model", len(values) - len(known)
    ends = " to ".join(f"{value:.3f}" for value in (*known[:1], *known[1:][-1:]))
    several = f"{ends} of {f'the {of}s' if len(known) > 1 else f'one {of}'}" if known else ""
    return "; ".join(filter(None, (one, several, f"not reached by {missed} of {len(values)}" if missed else "")))


def calibration_table(metrics):
    """A column for each ensemble, with recalibration before and after it."""
    states, method = {}, metrics["recalibrate"]
    for key, label in ENSEMBLES.items():
        if method:
            states[f"{label}, before"] = metrics[key]["before_recalibration"]
        states[f"{label}, after {method}" if method else label] = metrics[key]
    names = ("brier", "log_loss", "calibration_intercept", "calibration_slope", "ece")
    curves = [block["calibration_curve"] for block in states.values()]
    rows = [[heading, *(calibration_curve.error_text(curve[name]) for curve in curves)]
            for name, heading in calibration_curve.INDICES.items()]
    return ["", *states], by_metric(names, states.values()) + rows


def site_tables(sites):
    """The tables of the section on lesion sites, as values of the template; {} where nothing was measured."""
    if not sites or not sites["ensemble"]:
        return {}
    whole, guess = sites["ensemble"], site_ensemble.chance(sites)
    names = ("recall", "precision") + ("auc",) * sites["multi"]
    blocks = [("All models", whole["n"], whole)] * (len(sites["models"]) > 1)
    blocks += [(model_name(model), model["n"], model) for model in sites["models"]]
    rows = [(site["name"], site["n"], site["called"], site) for site in whole["sites"]]
    return {"site_chance": f"{guess[0].upper()}{guess[1:]}." if guess else "",
            "site_models": by_block(["", "Scans"], site_ensemble.shown(sites), blocks),
            "each_site": by_block(["Site", "Scans", "Predicted"], names, rows)}


def figure(path):
    prefix = next((name for name in BY_COLUMN if path.stem.startswith(name)), "")
    section, heading, text = FIGURES.get(path.stem) or BY_COLUMN[prefix]
    heading = heading.format(path.stem.removeprefix(prefix))
    return {"stem": path.stem, "section": section, "heading": heading, "text": text,
            "data": base64.b64encode(path.read_bytes()).decode(),
            "wide": path.stem.startswith(WIDE)}


def views_and_models(metrics):
    shown = ("auc", "sensitivity", "specificity", "brier", "calibration_slope")
    blocks = [(f"View {name}", block["n"], block) for name, block in metrics["views"].items()]
    blocks += [(model_name(model) + (f", rank {model['rank']}" if model["rank"] else ""), model["avg"]["n"],
                model["avg"]) for model in metrics["models"]]
    return by_block(["", "Scans"], shown, blocks)


def fold_table(metrics):
    """The AUC of each fold beside that of all scans."""
    of_folds = [(f"Fold split{split}", blocks) for split, blocks in metrics["folds"].items()]
    rows = [(label, str(blocks["avg"]["n"]), *(long_text(blocks[key]["auc"]) for key in ENSEMBLES))
            for label, blocks in [("All folds, pooled", metrics), *of_folds]]
    return ["", "Scans", *(f"AUC, {label}" for label in ENSEMBLES.values())], rows


def model_name(model):
    return Path(model["file"]).stem.removeprefix("pred_")


def primary_name(entry: dict) -> str:
    """"LARS-avg, Sensitivity at Youden in cohort north", of `primary.primary_entry`."""
    at = f" at {DERIVED[entry['point']]}" if entry["point"] else f" at {THRESHOLD}" * (entry["metric"] in AT_THRESHOLD)
    of = f" in cohort {entry['cohort']}" if entry["cohort"] else ""
    return f"{ENSEMBLES[entry['ensemble']]}, {NAMES[entry['metric']]}{at}{of}"


def subgroup_table(subgroups):
    """What the forest plot does not show; None without subgroups."""
    rows = [(f"{column}: {value}", f"{each['avg']['n']} ({each['avg']['n_positive']})", each["avg"])
            for column, groups in subgroups.items() for value, each in groups.items()]
    return by_block(["", "Scans (Deauville 4–5)"], ("brier", "calibration_slope"), rows) if rows else None


def disagreement_row(row):
    return [Markup("<code>{}</code>").format(row.scan_id), {"0": "1–3", "1": "4–5"}.get(str(row.target), ""),
            f"{row.ensemble_prob:.3f}", "none" if row.sd != row.sd else f"{row.sd:.3f}",
            f"{100 * row.vote_share:.0f} %", f"{100 * row.consistency:.0f} %", str(row.n_models)]


def referral_table(curves):
    """A row for each order of referral, a column for each share of the scans."""
    shares = [f"{100 * each['referred']:.0f} % referred" for each in next(iter(curves.values()))]
    return ["Referred first", *shares], [
        [label, *(f"{each['accuracy']:.3f} of {counted(each['n_kept'], 'scan')}" for each in curve)]
        for label, curve in curves.items()]


def provenance_table(made):
    """Of `provenance.this_run`, and today's date, which only pages have."""
    inputs = ", ".join(f"{name} {digest[:12]}" for name, digest in made["inputs"].items())
    return [["Date", datetime.date.today().isoformat()], ["Version", made["version"]],
            ["Commit", Markup("<code>{}</code>").format(made["commit"] or "not known (outside git)")],
            ["Command", made["command"]],
            ["Libraries", ", ".join(f"{name} {version}" for name, version in made["versions"].items())],
            ["Input files, start of their SHA-256", inputs]]


def sets_table(rows):
    """A row for each split, of many splits one with ranges; a column for each set: scans / patients / Deauville 4–5."""
    sets, splits = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "split"))
    lines = [(split, [split]) for split in splits]
    if len(splits) > MANY_SPLITS and splits[0] == "manifest":
        lines = [("manifest", splits[:1]), (f"{splits[1]} to {splits[-1].removeprefix('split ')}", splits[1:])]
    return ["", *sets], [[label, *(_counts([row for row in rows if row["split"] in members and row["set"] == name])
                                   for name in sets)] for label, members in lines]


def _counts(rows):
    """Of several splits from the smallest to the largest; what is not known is left out."""
    found = []
    for key in ("scans", "patients", "positive"):
        values = [row[key] for row in rows if row[key] is not None]
        if values:
            found.append(str(min(values)) + f" to {max(values)}" * (max(values) > min(values)))
    return " / ".join(found)
