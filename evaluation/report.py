"""report.html: what aggregate.py measured, on one page that needs no network, for a screen, a phone and paper."""
import base64
import re
from html import escape
from pathlib import Path

from common.files import replace_file
from evaluation import provenance, site_ensemble, site_metrics
from evaluation.metrics import AT_THRESHOLD, DERIVED, NO_ECE_INTERVAL, OVERALL

NAMES = {"auc": "AUC", "average_precision": "Average precision", "brier": "Brier score", "log_loss": "Log loss",
         "calibration_intercept": "Calibration intercept (ideal 0)", "calibration_slope": "Calibration slope (ideal 1)",
         "ece": "Expected calibration error", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy",
         "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "Positive predictive value",
         "npv": "Negative predictive value", "f1": "F1", "mcc": "Matthews correlation"}
FIGURES = {  # file -> (heading, what to read in it)
    "roc": ("ROC", "Sensitivity against false positive rate. Shaded: pointwise 95 % bootstrap band of LARS-avg."),
    "precision_recall": ("Precision and recall", "The dotted line is what chance gives: the share of Deauville 4–5."),
    "reliability": ("Reliability", "Observed share of Deauville 4–5 in ten bins of predicted probability, with Wilson "
                    "intervals; where it is below the diagonal, the probabilities are too high. Bottom: how many scans "
                    "have which probability."),
    "decision_curve": ("Decision curve", "Net benefit of acting on the score at each threshold probability, against "
                       "acting on all scans or on none."),
    "confusion": ("Confusion matrices", "Counts, and the share of the row, at each operating point."),
    "scores": ("Scores by class", "Where the classes overlap; lines are the thresholds."),
    "ensemble_size": ("Size of the ensemble", "AUC of ensembles of so many models; bars: 95 % of the subsets of these "
                      "models, not of patients."),
    "site_confusion": ("Called and true site", "Scans of each site (row) by the site called (column); the colour is "
                       "the share of the row."),
    "selective": ("Referral to a human", "Accuracy of the scans that are kept when the most doubtful are referred."),
}
WIDE = ("confusion", "reliability", "site_confusion")
METHODS = (
    ("AUC", "DeLong 1988 on the logit scale (Pepe 2003); with several scans of a patient, Obuchowski 1997; where its "
            "variance is 0, Newcombe 2006. The bootstrap's interval stands in metrics.json beside it."),
    ("Proportions", "Wilson 1927; with several scans of a patient on the effective sample size of Rao and Scott 1992."),
    ("Everything else", "Bias-corrected and accelerated bootstrap (Efron 1987), by {unit}."),
    ("Calibration", "Intercept and slope: Cox 1958, Van Calster 2019. Expected calibration error: ten bins of equal "
                    "width (Naeini 2015). Recalibration: Platt 1999, or isotonic (Zadrozny and Elkan 2002)."),
    ("Thresholds", "Youden 1950; the highest threshold of sensitivity 0.95 or more; the lowest of specificity 0.95 or "
                   "more. A scan is called positive at the threshold or above."),
    ("Decision curve", "Vickers and Elkin 2006."),
    ("Referral", "El-Yaniv and Wiener 2010."),
)
LISTED = 20  # scans where the models disagree most


def write_report(path, metrics, figures, disagreement, flow, settings, ensembles):
    """Write the page.

    Args:
        metrics (dict): what metrics.json holds; figures (list of Path): SVGs and PNGs, of which the SVGs are shown.
        disagreement (DataFrame): disagreement.csv; flow, settings: of provenance.cohort_flow and models_settings.
        ensembles (dict): key of `metrics` -> name.
    """
    parts = [head("Deauville 4–5 against 1–3: evaluation"), *heading(metrics),
             results(metrics, ensembles), operating_points(metrics, ensembles), calibration(metrics, ensembles),
             sites_part(metrics, figures), *figure_parts(figures), views_and_models(metrics, ensembles),
             subgroup_tables(metrics, ensembles), disagreement_part(metrics, disagreement, ensembles),
             cohort(metrics, flow), models_part(metrics, settings), methods(metrics), tripod(metrics, flow, settings),
             "</main>\n</body>\n</html>\n"]
    with replace_file(path) as file:
        file.write("".join(parts))


def heading(metrics):
    counts = metrics["avg"]
    patients = f" of {metrics['n_patients']} patients" if metrics["n_patients"] is not None else ""
    yield "<h1>Deauville 4–5 against 1–3: evaluation of an ensemble</h1>\n"
    yield "<p class='notice'><b>For research use only.</b> Not a medical device; not for diagnosis or treatment.</p>\n"
    for line in filter(None, (metrics["optimistic"], metrics["notice"])):
        yield f"<p class='notice loud'><b>{escape(line)}</b></p>\n"
    yield (f"<p>{escape(metrics['set'].capitalize())} set: <b>{counts['n']} scans</b>{patients}, "
           f"{counts['n_positive']} with Deauville 4–5. {len(metrics['models'])} models, combined by their "
           f"{metrics['combine']}. Intervals are 95 % and take the <b>{metrics['independent_unit']}</b> as "
           f"independent.</p>\n")
    links = ("Results", "Operating points", "Calibration", *["Lesion sites"] * ("sites" in metrics), "Figures",
             "Views and models", "Subgroups", "Disagreement", "Cohort", "Models", "Methods", "TRIPOD+AI")
    yield "<nav>" + " ".join(f"<a href='#{anchor(name)}'>{escape(name)}</a>" for name in links) + "</nav>\n"
    if metrics["warnings"]:
        yield warning_list(metrics["warnings"])


def warning_list(lines):
    return "<h2>Warnings</h2>\n<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>\n"


def results(metrics, ensembles):
    rows = [[NAMES[name]] + [estimate(metrics[key][name]) for key in ensembles] for name in OVERALL]
    rows += [[f"{NAMES[name]} at 0.5"] + [estimate(metrics[key][name]) for key in ensembles] for name in AT_THRESHOLD]
    return section("Results") + table(["", *ensembles.values()], rows) + (
        "<p class='small'>LARS-avg: mean over the views of a scan, LARS-max: their maximum; then the models.</p>\n")


def operating_points(metrics, ensembles):
    """A table a threshold: the same metrics for each ensemble."""
    about, parts = metrics["validation"], [section("Operating points")]
    if about.get("source") is None:
        return "".join(parts) + f"<p>No threshold but 0.5: {escape(about['reason'])}.</p>\n"
    text = f"<p>Derived from: <b>{escape(about['source'])}</b>, {about['n_scans']} scans"
    if about.get("n_positive") is not None:
        text += f", {about['n_positive']} with Deauville 4–5"
    if about.get("models_per_scan"):
        counts = {int(size): n for size, n in about["models_per_scan"].items()}
        mean = sum(size * n for size, n in counts.items()) / sum(counts.values())
        text += (f". A scan's score comes from the models alone that did not train on it: {min(counts)} to "
                 f"{max(counts)} of {len(metrics['models'])} models a scan, {mean:.1f} on average; means of fewer "
                 "models spread more than those of all, so a threshold may be met somewhat off its aim")
    parts.append(text + ".</p>\n")
    keys = [*AT_THRESHOLD]
    for key, label in ensembles.items():
        blocks = {DERIVED[name]: block for name, block in metrics[key]["operating_points"].items()}
        reached = {name: block for name, block in blocks.items() if block["threshold"] is not None}
        rows = [["Threshold"] + [f"{block['threshold']:.3f}" for block in reached.values()]]
        rows += [[name] + [f"{block[count]}" for block in reached.values()]
                 for name, count in (("True positives", "tp"), ("False positives", "fp"), ("False negatives", "fn"),
                                     ("True negatives", "tn"))]
        rows += [[NAMES[name]] + [estimate(block[name]) for block in reached.values()] for name in keys]
        parts.append(f"<h3>{label}</h3>\n" + table(["", *reached], rows))
        parts += [f"<p>{escape(name)}: {escape(block['reason'])}.</p>\n" for name, block in blocks.items()
                  if block["threshold"] is None]
    return "".join(parts)


def calibration(metrics, ensembles):
    names = ("brier", "log_loss", "calibration_intercept", "calibration_slope", "ece")
    states = [("", key, metrics[key]) for key in ensembles]
    if metrics["recalibrate"]:
        states = [(state, key, block) for key in ensembles
                  for state, block in ((", before", metrics[key]["before_recalibration"]),
                                       (f", after {metrics['recalibrate']}", metrics[key]))]
    rows = [[NAMES[name]] + [estimate(block[name]) for _, _, block in states] for name in names]
    text = ("Recalibrated by the same scans as the thresholds." if metrics["recalibrate"] else
            "Not recalibrated (--recalibrate platt or isotonic).")
    return (section("Calibration") + table(["", *(ensembles[key] + state for state, key, _ in states)], rows)
            + f"<p class='small'>{text} A slope below 1 says that the probabilities are too far from 0.5: two logits "
              "trained by binary cross-entropy and read through a softmax double the logit. The expected calibration "
              f"error has no interval: it is {NO_ECE_INTERVAL}.</p>\n")


def sites_part(metrics, figures):
    """What predict_loca.py's models say of the lesion's site; "" for binary models."""
    result = metrics.get("sites")
    if not result:
        return ""
    if not result["ensemble"]:
        return section("Lesion sites") + "<p>Predicted, not measured: no scan has a known site.</p>\n"
    whole, several = result["ensemble"], result["multi"]
    scans = "all scans with a known site, no lesion among them" if result["site_on"] == "all" else \
        "the positive scans with a known site; the site head says nothing of the others"
    text = (f"<p>{whole['n']} scans: {scans}. A scan's probabilities are the mean over its views, then over the "
            "models; " + ("every site of 0.5 or more is called" if several else "the site with the highest is called")
            + "." + (f" {site_ensemble.chance(result).capitalize()}." * (not several)) + "</p>\n")
    shown = site_ensemble.shown(result)
    blocks = [("All models", whole)] * (len(result["models"]) > 1)
    blocks += [(model_name(model), model) for model in result["models"]]
    rows = [[label, str(block["n"])] + [estimate(block.get(name)) for name in shown] for label, block in blocks]
    names = ("recall", "precision") + ("auc",) * several
    sites = [[site["name"], str(site["n"]), str(site["called"])] + [estimate(site[name]) for name in names]
             for site in whole["sites"]]
    parts = [section("Lesion sites"), text,
             table(["", "Scans", *(site_metrics.NAMES[name].capitalize() for name in shown)], rows)]
    parts += [figure_part(path) for path in figures if path.name == "site_confusion.svg"]
    parts.append("<h3>Each site" + ", all models" * (len(result["models"]) > 1) + "</h3>\n" + table(
        ["Site", "Scans", "Called", "Recall", "Precision", "AUC"][:3 + len(names)], sites))
    return "".join(parts) + ("<p class='small'>Top-3 accuracy: a true site is among the three highest. Intervals: "
                             "Wilson for shares, bootstrap for means over the sites.</p>\n")


def figure_parts(figures):
    yield section("Figures")
    svgs = [path for path in figures if path.suffix == ".svg" and path.stem != "site_confusion"]
    if not svgs:
        yield "<p>None: they need scans of both classes.</p>\n"
        return
    yield "<div class='figures'>\n"
    yield from map(figure_part, svgs)
    yield "</div>\n"


def figure_part(path):
    name, text = FIGURES.get(path.stem, (f"Subgroups by {path.stem.removeprefix('forest_')}",
                                         "AUC, sensitivity and specificity at 0.5, 95 % intervals."))
    data = base64.b64encode(path.read_bytes()).decode()
    wide = " class='wide'" if path.stem in WIDE or path.stem.startswith("forest_") else ""
    return (f"<figure{wide}><div class='scroll'><img alt='{escape(name)}: {escape(text)}' "
            f"src='data:image/svg+xml;base64,{data}'></div>"
            f"<figcaption><b>{escape(name)}.</b> {escape(text)} <code>{escape(path.stem)}.png, .svg</code>"
            "</figcaption></figure>\n")


def views_and_models(metrics, ensembles):
    shown = ("auc", "accuracy", "sensitivity", "specificity", "brier", "calibration_slope")
    head = ["", "Scans", *(NAMES[name] for name in shown)]
    views = [[f"View {name}", str(block["n"])] + [estimate(block.get(metric)) for metric in shown]
             for name, block in metrics["views"].items()]
    models = [[model_name(model) + (f", rank {model['rank']}" if model["rank"] else ""), str(model["avg"]["n"])]
              + [estimate(model["avg"].get(metric)) for metric in shown]
              for model in metrics["models"]]
    return (section("Views and models") + "<p>Each alone, at 0.5, not recalibrated; a model's score is the mean over "
            "the views.</p>\n" + table(head, views + models))


def model_name(model):
    return Path(model["file"]).stem.removeprefix("pred_")


def subgroup_tables(metrics, ensembles):
    parts = [section("Subgroups")]
    if not metrics["subgroups"]:
        parts.append("<p>None asked for (--by COLUMN).</p>\n")
    shown = ("auc", "sensitivity", "specificity", "brier", "calibration_slope")
    for column, groups in metrics["subgroups"].items():
        rows = [[value, f"{blocks['avg']['n']} ({blocks['avg']['n_positive']})"]
                + [estimate(blocks["avg"].get(metric)) for metric in shown] for value, blocks in groups.items()]
        parts.append(f"<h3>By {escape(column)}</h3>\n"
                     + table([column, "Scans (Deauville 4–5)", *(NAMES[name] for name in shown)], rows))
    if metrics["subgroups"]:
        parts.append(f"<p class='small'>{ensembles['avg']} at 0.5. Differences between subgroups are not tested; "
                     "intervals that overlap do not show that they are equal.</p>\n")
    return "".join(parts)


def disagreement_part(metrics, table_of_scans, ensembles):
    parts = [section("Disagreement")]
    if len(metrics["models"]) < 2:
        return "".join(parts) + "<p>One model only.</p>\n"
    top = table_of_scans.head(LISTED)
    label = {"0": "1–3", "1": "4–5"}
    rows = [[f"<code>{escape(str(row.scan_id))}</code>", label.get(str(row.target), ""), f"{row.ensemble_prob:.3f}",
             "none" if row.sd != row.sd else f"{row.sd:.3f}", f"{100 * row.vote_share:.0f} %",
             f"{100 * row.consistency:.0f} %", str(row.n_models)] for row in top.itertuples()]
    parts.append(f"<p>The {len(top)} scans where the models disagree most ({ensembles['avg']}), for a second reading; "
                 "all scans stand in disagreement.csv. Vote share: models at 0.5 or above; consistency: models with "
                 "the majority.</p>\n")
    parts.append(table(["Scan", "Deauville", "Probability", "SD of models", "Vote share", "Consistency", "Models"],
                       rows, raw=True))
    rows = [[label] + [f"{100 * each['referred']:.0f} %: {each['accuracy']:.3f} of {each['n_kept']}" for each in curve]
            for label, curve in metrics["avg"]["selective"].items()]
    parts.append("<h3>Accuracy of the scans that are kept, by the share referred</h3>\n"
                 + table(["Referred first", *[""] * max(len(row) - 1 for row in rows)], rows))
    return "".join(parts)


def cohort(metrics, flow):
    """What was measured, refused, and how many scans each split has in each set: a row a split."""
    def cell(row):
        if row is None:
            return ""
        known = [f"{row[key]} {name}" for key, name in (("patients", "patients"), ("positive", "Deauville 4–5"))
                 if row[key] is not None]
        return f"{row['scans']} scans" + (f": {', '.join(known)}" if known else "")

    if flow["excluded"] is None:
        text = "<p>Exclusions before the manifest: not known here.</p>\n"
    else:
        text = f"<p>Refused by prepro_script.py: {sum(flow['excluded'].values())} studies.</p>\n" + table(
            ["Attribute", "Studies"], [[name, str(count)] for name, count in flow["excluded"].items()])
    sets = list(dict.fromkeys(row["set"] for row in flow["rows"]))
    by_split = {row["split"]: {} for row in flow["rows"]}
    for row in flow["rows"]:
        by_split[row["split"]][row["set"]] = row
    rows = [[split, *(cell(found.get(name)) for name in sets)] for split, found in by_split.items()]
    measured = (f"<p>Measured here: {metrics['avg']['n']} of {metrics['n_scans']} scans; "
                f"{metrics['n_scans'] - metrics['avg']['n']} left out for want of a label.</p>\n")
    return (section("Cohort") + measured + text + f"<p class='small'>Counted from {escape(flow['source'])}.</p>\n"
            + table(["", *sets], rows))


def models_part(metrics, settings):
    """What is the same for all models once, what differs as a table."""
    parts = [section("Models")]
    if not settings:
        return "".join(parts) + "<p>No checkpoints found; --chptfolder DIR names their folder.</p>\n"
    same = [[row["name"], row["values"][0]] for row in settings if len(set(row["values"])) == 1]
    differing = [row for row in settings if len(set(row["values"])) > 1]
    names = [model_name(model) for model in metrics["models"]]
    if differing:
        parts.append("<h3>What differs</h3>\n" + table(
            ["Model", *(row["name"] for row in differing)],
            [[name, *(row["values"][k] for row in differing)] for k, name in enumerate(names)]))
    parts.append(f"<h3>The same for all {len(names)} models</h3>\n" + table(["Setting", "Value"], same))
    return "".join(parts)


def methods(metrics):
    rows = [[name, text.format(unit=metrics["independent_unit"])] for name, text in METHODS]
    return (section("Methods") + f"<p>{metrics['resamples']} resamples by {metrics['independent_unit']}, seed "
            f"{metrics['seed']}; the same input gives the same numbers. An interval is left out where more than 5 % of "
            "the resamples cannot give the number, or all of them give the same.</p>\n" + table(["", "Method"], rows))


def tripod(metrics, flow, settings):
    answers = provenance.tripod_answers(metrics, flow, settings)
    rows = [[item, text, answers.get(key, "") or "The author."] for item, text, key in provenance.TRIPOD_AI]
    done = sum(bool(answers.get(key)) for _, _, key in provenance.TRIPOD_AI)
    return (section("TRIPOD+AI") + "<p>Items in short words (Collins et al., BMJ 2024;385:e078378). To "
            f"{done} of {len(rows)} this run can say something, in part or in whole; the author must fill in the "
            "rest.</p>\n"
            + table(["Item", "What", "This run"], rows))


def write_comparison(path, result, pairs):
    """compare.html. result: compare.json; pairs: (pair, rows of test, difference, p, p by Holm, detail as texts)."""
    parts = [head("Comparison of ensembles"), "<h1>Comparison of ensembles</h1>\n",
             "<p class='notice'><b>For research use only.</b></p>\n"]
    parts += [f"<p class='notice loud'><b>{escape(line)}</b></p>\n" for line in result["notices"]]
    patients = f" of {result['n_patients']} patients" if result["n_patients"] is not None else ""
    parts.append(f"<p>{result['n_scans']} scans{patients}, {result['n_positive']} with Deauville 4–5, paired by scan. "
                 f"Intervals are 95 %; the bootstrap ({result['resamples']} resamples) draws by the "
                 f"{result['independent_unit']}.</p>\n")
    parts.append(table(["Ensemble", "AUC", "Positive at"], [[each["name"], estimate(result["auc"][each["name"]]),
                                                             each["threshold"]] for each in result["ensembles"]]))
    for pair, rows in pairs:
        parts.append(f"<h2>{escape(pair['a'])} less {escape(pair['b'])}</h2>\n"
                     + table(["", "Difference", "p", "p, Holm", ""], rows))
    parts += [warning_list(result["warnings"])] if result["warnings"] else []
    parts.append("<p class='small'>DeLong 1988, with several scans of a patient Obuchowski 1997. Bootstrap: centred; "
                 "its p is below 0.05 exactly where its interval leaves out 0 (Davison and Hinkley 1997). McNemar "
                 "1947, exact. Net reclassification: Pencina 2008, the change of sensitivity plus that of "
                 "specificity. Holm 1979, over the pairs, for each test by itself.</p>\n</main>\n</body>\n</html>\n")
    with replace_file(path) as file:
        file.write("".join(parts))


# ---------------------------------------------------------------- HTML

def head(title, style="", scripts=False):
    """A page up to its <main>: with more CSS, and allowed to run the scripts that stand in it (never to load any)."""
    policy = "script-src 'unsafe-inline'; img-src data: blob:" if scripts else "img-src data:"
    return HEAD.format(title=escape(title), style=style, policy=policy)


def anchor(name):
    return name.lower().replace(" ", "-").replace("+", "-")


def section(name):
    return f"<h2 id='{anchor(name)}'>{escape(name)}</h2>\n"


def estimate(entry):
    """An estimate as `0.951 (0.877 to 0.981)`; why there is none, in words."""
    if entry is None or entry["value"] is None:
        return f"none: {entry['reason']}" if entry else "none"
    value, low, high = ("" if entry[key] is None else f"{entry[key]:.3f}".replace("-", "−")
                        for key in ("value", "ci_low", "ci_high"))
    if low:
        return f"{value} ({low} to {high})"
    return value if entry["reason"] == NO_ECE_INTERVAL else f"{value} (no interval: {entry['reason']})"


def table(head, rows, raw=False):
    """An HTML table that scrolls by itself where it is wider than the page; texts are escaped unless `raw`."""
    text = str if raw else escape

    def cell(value):  # an interval stays in one line
        return re.sub(r"(\([^()]* to [^()]*\))", r"<span>\1</span>", text(value))

    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr><th scope='row'>{text(row[0])}</th>" + "".join(f"<td>{cell(value)}</td>" for value in row[1:])
                   + "</tr>\n" for row in rows)
    return (f"<div class='scroll' tabindex='0'><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n"
            "</table></div>\n")


HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; {policy}; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ --line: #8886; --mark: #a34a00; --soft: #8881; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 0; background: #fff; color: #111; }}
main {{ max-width: 1160px; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.5rem; line-height: 1.2; }} h2 {{ font-size: 1.2rem; margin: 2rem 0 .5rem; }}
h3 {{ font-size: 1rem; margin: 1.2rem 0 .3rem; }}
nav {{ display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: .4rem 0; }}
nav a {{ padding: .2rem 0; color: #0057a3; }}
.notice {{ border-left: 4px solid var(--line); padding: .4rem .7rem; background: var(--soft); }}
.loud {{ border-color: var(--mark); color: var(--mark); }}
.small {{ font-size: .87rem; color: #444; }}
.scroll {{ overflow-x: auto; margin: .4rem 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }}
tbody th {{ font-weight: normal; }} td span {{ white-space: nowrap; }}
code {{ font-size: .85em; overflow-wrap: anywhere; }} th code {{ display: inline-block; min-width: 11rem; }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1.5rem; }}
figure {{ margin: 0; break-inside: avoid; }} figure.wide {{ grid-column: 1 / -1; }}
figure img {{ width: 100%; max-width: 560px; height: auto; }} figure.wide img {{ max-width: 860px; }}
figcaption {{ font-size: .87rem; max-width: 60ch; }}
@media (max-width: 600px) {{
 main {{ padding: .7rem; }} figure.wide img {{ min-width: 640px; }}
 th, td {{ padding-right: .5rem; font-size: .87rem; }}
}}
@media print {{
 body {{ font-size: 9.5pt; }} nav {{ display: none; }} main {{ max-width: none; padding: 0; }}
 .scroll {{ overflow: visible; }} table {{ font-size: 8pt; }} h2, h3 {{ break-after: avoid; }}
 tr {{ break-inside: avoid; }}
 .figures {{ grid-template-columns: 1fr 1fr; }} th, td {{ padding-right: .35rem; }}
}}
{style}</style>
</head>
<body>
<main>
"""
