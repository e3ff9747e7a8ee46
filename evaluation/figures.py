"""Figures of an evaluation, for print: PNG, SVG and PDF in the style of `figure_style`.

Each function draws one Figure. Everywhere: curves is {ensemble: (y_true, y_score)}; blocks is {ensemble: its part of
metrics.json}; y_true is (n,) of 0 and 1, y_score (n,) probabilities.
"""
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from sklearn.metrics import precision_recall_curve, roc_curve

from common.files import progress
from common.text import counted, file_stems, shortened
from evaluation import (
    bootstrap,
    calibration_curve,
    disagreement,
    figure_style,
    flow_diagram,
    readers,
    survival_figures,
)
from evaluation.averaging import Ensemble
from evaluation.ensemble import ENSEMBLES, patients
from evaluation.estimates import short_text
from evaluation.figure_style import BLUE, COLUMN, FAINT, MARKED, PAGE, STYLES, new_figure, text_marker, unit_square
from evaluation.metrics import COMPARED, DERIVED, THRESHOLD, reached
from evaluation.prognosis import Endpoint

POINTS = {"0.5": "threshold 0.5"} | DERIVED
MARKS = {"0.5": "o", "youden": "s", "sensitivity95": "^", "specificity95": "v"}
MOST_ROWS = 40  # of one forest plot


def write_figures(folder: Path, scans: pd.DataFrame, ensembles: dict[str, Ensemble], metrics: dict,
                  endpoints: dict[str, Endpoint], flow: dict) -> list[Path]:
    """Draw and write every figure of an evaluation that its scans allow; the same bytes for the same numbers.

    Parameters
    ----------
    folder : Path
    scans, ensembles
        Of `ensemble.join_scans` and `averaging.average_models`.
    metrics : dict
        What metrics.json holds.
    endpoints, flow
        Of `prognosis.read_endpoints` and `provenance.cohort_flow`.

    Returns
    -------
    list of Path
        A PNG, an SVG and a PDF of each figure.
    """
    figures, sites = {}, metrics.get("sites", {})
    with matplotlib.rc_context(figure_style.RC):
        if metrics["avg"]["auc"]["value"] is not None:
            figures = score_figures(scans, ensembles, metrics)
        if "confusion" in (sites.get("ensemble") or {}):
            whole, count = sites["ensemble"], len(sites["models"])
            figures["site_confusion"] = site_confusion(whole), (
                f"Lesion site, {metrics['set']} set: {counted(whole['n'], 'scan')}, {counted(count, 'model')}, "
                f"balanced accuracy {short_text(whole['loc_bacc'])}")
        figures |= survival_figures.figures(endpoints, scans, ensembles, metrics)
        if flow["manifest"]:
            figures["flow"] = flow_diagram.diagram(flow_diagram.levels(flow, metrics)), "Flow of scans"
        with progress(figures.items(), "drawing", "figure", len(figures)) as bar:
            return [path for name, (figure, title) in bar
                    for path in figure_style.write_figure(folder, name, figure, title, metrics)]


def score_figures(scans: pd.DataFrame, ensembles: dict[str, Ensemble], metrics: dict) -> dict[str, tuple[Figure, str]]:
    """{file: (figure, title)} of the scores, which are of scans of both classes; parameters as in `write_figures`."""
    labelled = scans[scans["target"].notna()]
    y, whole, fit = labelled["target"].to_numpy(dtype=int), metrics["avg"], metrics["recalibrate"]
    title = (f"{metrics['set'].capitalize()} set: {counted(whole['n'], 'scan')}, {whole['n_positive']} Deauville 4–5; "
             f"{counted(len(metrics['models']), 'model')}"
             + f" of {counted(len(metrics['folds']), 'fold')}" * bool(metrics["folds"]))
    blocks, curves, states = {}, {}, {}
    for name, label in ENSEMBLES.items():
        raw, p = (scores[labelled.index].to_numpy() for scores in (ensembles[name].raw, ensembles[name].prob))
        blocks[label], curves[label] = metrics[name], (y, p)
        before = metrics[name].get("before_recalibration")
        states[label] = {"before": (raw, before)} if before else {}
        states[label][fit or "as predicted"] = p, metrics[name]
    figures = {"roc": roc(curves, blocks, patients(labelled), metrics["seed"],
                      readers.points(metrics["readers"]) if "readers" in metrics else {}),
               "precision_recall": precision_recall(curves, blocks), "decision_curve": decision_curve(blocks),
               "reliability": reliability(states), "confusion": confusion_matrices(blocks),
               "scores": score_distribution(curves, blocks)}
    if len(metrics["models"]) > 1 and all(block["ensemble_size"] for block in blocks.values()):
        figures["ensemble_size"] = ensemble_size(blocks)
    found = {name: (figure, title) for name, figure in figures.items()}
    p = curves[ENSEMBLES["avg"]][1]
    doubts = disagreement.doubts(ensembles["avg"].scores.loc[labelled.index], p, THRESHOLD)
    found["selective"] = selective((p >= THRESHOLD) == y, doubts), f"LARS-avg at {THRESHOLD}. {title}"
    if "cohorts" in metrics:
        rows = [(name, each["avg"]) for name, each in metrics["cohorts"].items()]
        found["cohorts"] = forest(rows), f"LARS-avg at {THRESHOLD}: cohorts. {title}"
    for name, rows in forests(whole, metrics["subgroups"]).items():
        found[name] = forest(rows), f"LARS-avg at {THRESHOLD}: subgroups. {title}"
    return found


# ---------------------------------------------------------------- the figures

def roc(curves: dict[str, tuple], blocks: dict, groups: ndarray | None, seed: int = 0,
        points: dict[str, tuple] | None = None) -> Figure:
    """ROC curves; a pointwise 95 % band around the first, and a mark at each operating point.

    points: {reader: (false positive rate, sensitivity)}, whose names stand below the axes.
    """
    names = [shortened(name, 48) for name in points or {}]
    columns = 2 if max(map(len, names), default=0) <= 22 else 1
    figure, axes = new_figure(COLUMN, 3.1 + (0.2 + 0.145 * -(-len(names) // columns)) * bool(names))
    axes.plot((0, 1), (0, 1), label="chance", **FAINT)
    grid = np.linspace(0, 1, 201)
    first = next(iter(curves))  # one band: two of them hide each other
    y, p = curves[first]
    band = bootstrap.roc_band(y, p, grid, groups, seed=seed)
    if band is not None:
        axes.fill_between(grid, *band, facecolor=BLUE, alpha=0.15, linewidth=0)
    for (name, (y, p)), style in zip(curves.items(), STYLES, strict=False):
        fpr, tpr, _ = roc_curve(y, p)
        axes.plot(fpr, tpr, clip_on=False, zorder=3, label=f"{name}: AUC {short_text(blocks[name]['auc'])}", **style)
        for point, block in reached(blocks[name]).items():
            axes.plot(block["fp"] / (block["fp"] + block["tn"]), block["tp"] / (block["tp"] + block["fn"]),
                      MARKS[point], color=style["color"], zorder=4, **MARKED)
    style = {"markersize": 5, "markeredgewidth": 0.4, "linewidth": 0, "zorder": 5, "clip_on": False}
    marks = [axes.plot(x, y, marker="P" if name == readers.CONSENSUS else text_marker(str(k)), color="black",
                       label="_", **style)[0] for k, (name, (x, y)) in enumerate((points or {}).items(), 1)]
    shown = {point: at for block in blocks.values() for point, at in reached(block).items()}
    for point, at in shown.items():
        beside = "" if at["threshold"] is not None else f" ({point_text(at)})"  # need not lie on the curve
        axes.plot([], [], MARKS[point], color="white", label=POINTS[point] + beside, **MARKED)
    unit_square(axes, "False positive rate (1 − specificity)", "True positive rate (sensitivity)")
    inside = axes.legend(loc="lower right")
    if names:
        axes.add_artist(inside)
        axes.legend(marks, names, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns)
    return figure


def precision_recall(curves: dict, blocks: dict) -> Figure:
    """Precision against recall, and the share of positive scans, which is what chance gives."""
    figure, axes = new_figure(COLUMN, 3.1)
    for (name, (y, p)), style in zip(curves.items(), STYLES, strict=False):
        precision, recall, _ = precision_recall_curve(y, p)
        axes.step(recall, precision, where="post", clip_on=False, **style,
                  label=f"{name}: average precision {short_text(blocks[name]['average_precision'])}")
    axes.axhline(y.mean(), label=f"chance: {y.mean():.2f} have Deauville 4–5", **FAINT)
    unit_square(axes, "Recall (sensitivity)", "Precision (positive predictive value)")
    axes.legend(loc="lower left")
    return figure


def reliability(states: dict[str, dict[str, tuple]]) -> Figure:
    """Share of Deauville 4-5 at each probability, as a smooth curve and in bins, and how many scans have which.

    states: {ensemble: {state: (y_score, block of metrics.json)}}, a column an ensemble, a line a state (before, after
    recalibration); the last is shaded.
    """
    figure, axes = new_figure(PAGE, 3.6, (2, len(states)), height_ratios=(4, 1), sharex="col")
    for (name, shown), upper, lower in zip(states.items(), *axes, strict=True):
        upper.plot((0, 1), (0, 1), **FAINT)
        for k, ((state, (p, block)), mark, style) in enumerate(zip(shown.items(), "os", STYLES, strict=False), 1):
            found = block["calibration_curve"]
            label = f"{state}: ICI {calibration_curve.error_text(found['ici'], short=True)}"
            draw_calibration(upper, found, label, style, mark, shaded=k == len(shown))
            lower.hist(p, bins=np.linspace(0, 1, 21), histtype="step", **style | {"linewidth": 1})
        upper.set(ylim=(0, 1), title=name)
        lower.set(xlim=(0, 1), xlabel="Predicted probability of Deauville 4–5")
        lower.legend(*upper.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, -0.75))
    axes[0, 0].set_ylabel("Share with Deauville 4–5")
    axes[1, 0].set_ylabel("Scans")
    return figure


def decision_curve(blocks: dict) -> Figure:
    """Net benefit of acting on the score, on everyone, on no one; the pointwise band of the first ensemble.

    Vickers and Elkin 2006.
    """
    figure, axes = new_figure(COLUMN, 2.5)
    highest, first = 0.0, next(iter(blocks))
    for (name, block), style in zip(blocks.items(), STYLES, strict=False):
        threshold, everyone = _columns(block["decision_curve"], "threshold", "all")
        benefit, low, high = _columns([point["net_benefit"] for point in block["decision_curve"]], "value", "ci_low",
                                      "ci_high")
        highest = max(highest, benefit.max(), everyone.max())
        axes.plot(threshold, benefit, label=name, **style)
        if name == first:  # two bands hide each other
            highest = np.nanmax((highest, *high))
            axes.fill_between(threshold, low, high, facecolor=style["color"], alpha=0.15, linewidth=0)
    axes.plot(threshold, everyone, label="all scans predicted positive", color=FAINT["color"], linewidth=1)
    axes.axhline(0, color="black", linewidth=1, linestyle=":", label="none predicted positive")
    axes.set(xlim=(threshold[0], threshold[-1]), ylim=(-0.15 * highest - 0.02, highest * 1.1 + 0.02),
             ylabel="Net benefit (per scan)", xlabel="Threshold probability of Deauville 4–5")
    axes.legend()
    return figure


def confusion_matrices(blocks: dict) -> Figure:
    """A matrix for each ensemble (row) and threshold (column)."""
    points = {name: reached(block) for name, block in blocks.items()}
    columns = list(dict.fromkeys(point for each in points.values() for point in each))
    width = PAGE if len(columns) > 2 else COLUMN
    shape = len(points), len(columns)
    figure, axes = new_figure(width, len(points) * min(1.35, width / len(columns)) + 0.2, shape, sharex=True)
    for row, (name, each) in zip(axes, points.items(), strict=True):
        for cell, point in zip(row, columns, strict=True):
            if point not in each:
                cell.set_visible(False)
                continue
            block = each[point]
            counts = np.array([[block["tn"], block["fp"]], [block["fn"], block["tp"]]])
            show_shares(cell, counts, lambda count, share: f"{count}\n{100 * share:.0f} %")
            cell.spines[:].set_visible(True)
            cell.set_xticks((0, 1), ("DS 1–3", "DS 4–5"))
            cell.set_yticks((0, 1), ("DS 1–3", "DS 4–5") if cell is row[0] else ("", ""), rotation=90, va="center")
            cell.set_title(POINTS[point] + ("" if point == "0.5" else f" ({point_text(block)})"))
            cell.tick_params(length=0)
        row[0].set_ylabel(f"{name}\nreader's label")
    for cell in axes[-1]:
        cell.set_xlabel("predicted")
    return figure


def site_confusion(result: dict) -> Figure:
    """Counts of true against predicted site, coloured by the share of the row; on the right each site's recall.

    result: of `site_metrics.all_metrics`.
    """
    sites = result["sites"]
    places = range(len(sites))
    figure, axes = new_figure(PAGE, 0.27 * len(sites) + 1.7)
    image = show_shares(axes, np.array(result["confusion"]), lambda count, share: str(count), zero="0.75")
    axes.set_xticks(places, [site["name"] for site in sites], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, [f"{site['name']} ({site['n']})" for site in sites])
    axes.set(xlabel="predicted", ylabel="true site (scans)")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(np.arange(len(sites) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [_percent(site["recall"]) for site in sites])
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    right.set_ylabel("recall, % (95 % CI)")
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.4, aspect=40, label="share of the row")
    bar.outline.set_visible(False)
    return figure


def score_distribution(curves: dict, blocks: dict) -> Figure:
    """Histogram of the probabilities by class, one panel an ensemble, and its thresholds as lines."""
    figure, axes = new_figure(COLUMN, 1.15 * len(curves) + 0.5, (len(curves), 1))
    bins = np.linspace(0, 1, 26)
    for cell, (name, (y, p)) in zip(axes[:, 0], curves.items(), strict=True):
        cell.hist(p[y == 0], bins, color=BLUE, alpha=0.75, label=f"Deauville 1–3 ({counted((y == 0).sum(), 'scan')})")
        cell.hist(p[y == 1], bins, facecolor="none", edgecolor="black", hatch="////", linewidth=0.8,
                  label=f"Deauville 4–5 ({counted(y.sum(), 'scan')})")
        top = cell.get_ylim()[1]
        cell.set_ylim(0, top * 1.15)
        for point, block in reached(blocks[name]).items():
            if block["threshold"] is None:  # a majority: no line
                continue
            cell.axvline(block["threshold"], color="0.25", linewidth=0.9, linestyle="--", ymax=0.93)
            cell.plot(block["threshold"], top * 1.08, MARKS[point], color="white", label=POINTS[point], **MARKED)
        cell.set(xlim=(0, 1), ylabel="Scans")
        cell.set_title(name)
        cell.yaxis.get_major_locator().set_params(integer=True)
    axes[-1, 0].set_xlabel("Predicted probability of Deauville 4–5")
    shown = axes[0, 0].get_legend_handles_labels()  # below the axes: one of the figure would lie on write_figure's note
    axes[-1, 0].legend(*shown, loc="upper center", bbox_to_anchor=(0.5, -0.5), ncols=2)
    return figure


def ensemble_size(blocks: dict) -> Figure:
    """AUC against the number of models, of `disagreement.auc_by_size`."""
    figure, axes = new_figure(COLUMN, 2.4)
    for k, ((name, block), style) in enumerate(zip(blocks.items(), STYLES, strict=False)):
        size, mean, low, high = (np.array([row[key] for row in block["ensemble_size"]])
                                 for key in ("size", "mean", "low", "high"))
        bars = np.maximum(0, (mean - low, high - mean))  # of few scans the mean may lie outside of 95 % of the subsets
        axes.errorbar(size + (k - (len(blocks) - 1) / 2) * 0.12, mean, bars, marker="os"[k % 2], elinewidth=0.7,
                      capsize=1.5, label=name, **style)
    axes.set(xlabel="Models in the ensemble", ylabel="AUC")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    return figure


def selective(correct: ndarray, doubts: dict[str, ndarray]) -> Figure:
    """Accuracy of the scans that are kept against the share referred.

    correct is (n,) bool; doubts is {label: (n,)}, the larger the sooner referred.
    """
    figure, axes = new_figure(COLUMN, 2.4)
    for (name, doubt), style in zip(doubts.items(), STYLES, strict=False):
        referred, accuracy = disagreement.selective_accuracy(correct, doubt)
        kept = np.arange(len(referred), 0, -1)
        shown = kept >= min(10, len(referred) // 2)  # of fewer scans: noise
        axes.plot(100 * referred[shown], accuracy[shown], label=name, **style)
    axes.set(xlim=(0, 100), xlabel="Scans referred to a human (%)", ylabel="Accuracy of the others")
    axes.set_ylim(top=1.01)
    axes.legend(loc="best", title="referred first: scans with")
    return figure


def forests(whole: dict, subgroups: dict) -> dict[str, list[tuple[str, dict | None]]]:
    """{file: rows of `forest`}: all subgroups in one figure; where they are too many, a figure for each column."""
    sections = {column: [(str(value), blocks["avg"]) for value, blocks in groups.items()]
                for column, groups in subgroups.items()}
    first = ("all scans", whole)
    if 0 < len(sections) + sum(map(len, sections.values())) <= MOST_ROWS:
        return {"forest": [first, *(row for column, rows in sections.items() for row in [(column, None), *rows])]}
    stems = file_stems("forest_", sections)
    return {stems[column]: [first, (column, None), *rows] for column, rows in sections.items()}


def forest(rows: list[tuple[str, dict | None]]) -> Figure:
    """AUC, sensitivity and specificity of groups, each with its numbers, on axes that fit them.

    rows: (label, block of metrics.json), the first of all scans, whose estimate is the dotted line; (heading, None).
    """
    figure, axes = new_figure(PAGE, 0.165 * len(rows) + 0.55, (1, 7), sharey=True, width_ratios=(172, *(44, 57) * 3))
    about, cells = axes[0, 0], axes[0, 1:].reshape(3, 2)
    about.set_title("Scans (DS 4–5)", loc="right")
    for place, (label, block) in enumerate(rows):
        about.text(0.05 * bool(block and place), place, shortened(label, 22), va="center",
                   weight="normal" if block else "bold")
        if block:
            about.text(1, place, f"{block['n']} ({block['n_positive']})", ha="right", va="center")
    for (cell, beside), (metric, heading) in zip(cells, COMPARED.items(), strict=True):
        cell.set_title(f"{heading} (95 % CI)", loc="left").set_in_layout(False)  # it stands over both columns
        entries = {place: block[metric] for place, (_, block) in enumerate(rows) if block}
        for place, entry in entries.items():
            beside.text(0, place, _interval(entry), va="center")
            if entry["value"] is not None:
                colour = BLUE if place else "black"
                if entry["ci_low"] is not None:
                    cell.plot((entry["ci_low"], entry["ci_high"]), (place, place), color=colour, linewidth=1)
                cell.plot(entry["value"], place, "o" if place else "D", color=colour, clip_on=False)
        if entries[0]["value"] is not None:
            cell.axvline(entries[0]["value"], zorder=0, **FAINT)
        ends = [entry[key] for entry in entries.values() for key in ("value", "ci_low", "ci_high")
                if entry[key] is not None]
        low, high = (np.floor(10 * min(ends)) / 10, np.ceil(10 * max(ends)) / 10) if ends else (0, 1)
        cell.set(xlim=(low, max(high, low + 0.1)), ylim=(len(rows) - 0.5, -0.5))
        cell.xaxis.set_major_locator(MaxNLocator(2, steps=(1, 2, 5, 10)))
        cell.tick_params(axis="y", length=0, labelleft=False)
        cell.spines["left"].set_visible(False)
    for cell in (about, *cells[:, 1]):
        cell.axis("off")
    return figure


# ---------------------------------------------------------------- parts of figures

def draw_calibration(axes: Axes, found: dict, label: str, style: dict, mark: str, shaded: bool) -> None:
    """The smooth curve over the probabilities that occur, shaded with its band, and bins of equal size as points.

    found: `calibration_curve` of metrics.json.
    """
    if found["curve"]:
        x, y, *band = _columns(found["curve"], "probability", "share_positive", "ci_low", "ci_high")
        axes.plot(x, y, clip_on=False, label=label, **style)
        if shaded:
            axes.fill_between(x, *band, facecolor=style["color"], alpha=0.15, linewidth=0)
    x, y, low, high = _columns(found["bins"], "mean_probability", "share_positive", "ci_low", "ci_high")
    axes.errorbar(x, y, np.maximum(0, (y - low, high - y)), color=style["color"], marker=mark,
                  label=None if found["curve"] else label, linewidth=0, elinewidth=0.7, capsize=1.5, clip_on=False,
                  zorder=3)


def _columns(rows, *keys):
    """The values of each key, NaN where it is null."""
    return [np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float) for key in keys]


def point_text(point):
    """The threshold of an operating point, "at 0.431", or where there are several, how they are applied."""
    if point["threshold"] is not None:
        return f"at {point['threshold']:.3f}"
    return "fold by fold" if point["by"] == "mean" else f"by {point['by']}"


def show_shares(axes, counts, text, zero="black"):
    """A matrix of counts, coloured by the share of the row; the image."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, text(count, shares[i, j]), ha="center", va="center",
                  color=zero if not count else "white" if shares[i, j] > 0.6 else "black")
    return axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)


def _percent(entry):
    """A share as "83 (61–94)"."""
    if entry["value"] is None:
        return "none"
    return f"{100 * entry['value']:.0f} ({100 * entry['ci_low']:.0f}–{100 * entry['ci_high']:.0f})"


def _interval(entry):
    """An estimate as "0.93 (0.90–0.95)"."""
    value, low, high = (entry[key] for key in ("value", "ci_low", "ci_high"))
    return "none" if value is None else f"{value:.2f}" + ("" if low is None else f" ({low:.2f}–{high:.2f})")
