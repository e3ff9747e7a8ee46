"""Figures for print: PNG (300 dpi) and SVG, colours of Okabe and Ito with dashes and shades that stay apart in grey.

Each function draws one Figure. Everywhere: curves is {ensemble: (y_true, y_score)}; blocks is {ensemble: its part of
metrics.json}; y_true is (n,) of 0 and 1, y_score (n,) probabilities. Text in SVG is drawn as paths: it looks the same
everywhere.
"""
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy import ndarray
from sklearn.metrics import precision_recall_curve, roc_curve

from common.files import progress, replace_file
from evaluation import bootstrap, calibration_curve, calibration_figures, disagreement, readers
from evaluation.averaging import Ensemble
from evaluation.ensemble import ENSEMBLES, patients
from evaluation.estimates import short_text
from evaluation.metrics import DERIVED, THRESHOLD

STYLES = tuple({"color": colour, "linestyle": dashes, "linewidth": 1.8} for colour, dashes in (
    ("#0072B2", "-"), ("#E69F00", (0, (5, 1.5))), ("#009E73", (0, (1.5, 1))), ("#CC79A7", (0, (6, 1, 1, 1)))))
BLUE = STYLES[0]["color"]
POINTS = {"0.5": "threshold 0.5"} | DERIVED
MARKS = {"0.5": "o", "youden": "s", "sensitivity95": "^", "specificity95": "v"}
MARKED = {"markeredgecolor": "black", "markersize": 6}
FAINT = {"color": "0.55", "linewidth": 0.8, "linestyle": ":"}  # chance and other lines to compare with
LEGEND = {"fontsize": 7, "title_fontsize": 7, "framealpha": 0.9}
FIXED: Any = {"font.size": 8.5, "axes.linewidth": 0.8, "svg.hashsalt": "deauville", "svg.fonttype": "path",
         "hatch.linewidth": 0.5, "pdf.fonttype": 42}


def write_figures(folder: Path, scans: pd.DataFrame, ensembles: dict[str, Ensemble], metrics: dict) -> list[Path]:
    """Draw and write every figure of an evaluation that its scans allow; the same bytes for the same numbers.

    Parameters
    ----------
    folder : Path
    scans, ensembles
        Of `ensemble.join_scans` and `averaging.average_models`.
    metrics : dict
        What metrics.json holds.

    Returns
    -------
    list of Path
        A PNG, an SVG and a PDF of each figure.
    """
    figures, sites = {}, metrics.get("sites", {})
    with matplotlib.rc_context(FIXED):
        if metrics["avg"]["auc"]["value"] is not None:
            figures = score_figures(scans, ensembles, metrics)
        if "confusion" in (sites.get("ensemble") or {}):
            whole, count = sites["ensemble"], len(sites["models"])
            figures["site_confusion"] = site_confusion(whole), (
                f"Lesion site, {metrics['set']} set: {whole['n']} scans, {count} model{'s' * (count > 1)}, balanced "
                f"accuracy {short_text(whole['loc_bacc'])}")
        with progress(figures.items(), "drawing", "figure", len(figures)) as bar:
            return [path for name, (figure, title) in bar
                    for path in write_figure(folder, name, figure, title, metrics)]


def score_figures(scans: pd.DataFrame, ensembles: dict[str, Ensemble], metrics: dict) -> dict[str, tuple[Figure, str]]:
    """{file: (figure, title)} of the scores, which are of scans of both classes; parameters as in `write_figures`."""
    labelled = scans[scans["target"].notna()]
    y, whole, fit = labelled["target"].to_numpy(dtype=int), metrics["avg"], metrics["recalibrate"]
    title = (f"{metrics['set'].capitalize()} set: {whole['n']} scans, {whole['n_positive']} Deauville 4–5; "
             f"{len(metrics['models'])} models" + f" of {len(metrics['folds'])} folds" * bool(metrics["folds"]))
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
    for column, groups in metrics["subgroups"].items():
        rows = [("all scans", whole), *((f"{column}: {value}", each["avg"]) for value, each in groups.items())]
        name = "forest_" + "".join(letter if letter.isalnum() else "_" for letter in column)
        found[name] = forest(rows), f"LARS-avg at {THRESHOLD} by {column}. {title}"
    return found


def write_figure(folder, name, figure, title, metrics):
    """Write a figure, its title above and what no reader may miss below it; its paths."""
    first = figure.axes[0]
    (figure.suptitle if first.get_title() else first.set_title)(title, fontsize=9)
    note = " ".join(filter(None, (metrics["notice"], metrics["optimistic"])))
    if note:
        figure.text(0.5, -0.01, textwrap.fill(note, int(figure.get_figwidth() * 17)), ha="center", va="top", fontsize=7)
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
        paths.append(folder / f"{name}.{suffix}")
        with replace_file(paths[-1], "wb") as file:
            figure.savefig(file, format=suffix, dpi=300, metadata=metadata, bbox_inches="tight")
    return paths


# ---------------------------------------------------------------- the figures

def roc(curves: dict[str, tuple], blocks: dict, groups: ndarray | None, seed: int = 0,
        points: dict[str, tuple] | None = None) -> Figure:
    """ROC curves; a pointwise 95 % band around the first, and a mark at each operating point.

    points: {reader: (false positive rate, sensitivity)}.
    """
    figure, axes = new_figure((4.6, 4.9))
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
        for point, block in operating_points(blocks[name]).items():
            axes.plot(block["fp"] / (block["fp"] + block["tn"]), block["tp"] / (block["tp"] + block["fn"]),
                      MARKS[point], color=style["color"], zorder=4, clip_on=False, **MARKED)
    for k, (name, (x, y)) in enumerate((points or {}).items(), 1):
        mark = "P" if name == readers.CONSENSUS else f"${k}$"
        axes.plot(x, y, marker=mark, color="black", markersize=6, linewidth=0, zorder=5, clip_on=False, label=name)
    shown = {point: at for block in blocks.values() for point, at in operating_points(block).items()}
    for point, at in shown.items():
        beside = "" if at["threshold"] is not None else f" ({point_text(at)})"  # need not lie on the curve
        axes.plot([], [], MARKS[point], color="white", label=POINTS[point] + beside, **MARKED)
    unit_square(axes, "False positive rate (1 − specificity)", "True positive rate (sensitivity)")
    axes.legend(loc="lower right", title=f"shaded: pointwise 95 % band of {first}", **LEGEND)
    return figure


def precision_recall(curves: dict, blocks: dict) -> Figure:
    """Precision against recall, and the share of positive scans, which is what chance gives."""
    figure, axes = new_figure((4.4, 4.6))
    for (name, (y, p)), style in zip(curves.items(), STYLES, strict=False):
        precision, recall, _ = precision_recall_curve(y, p)
        axes.step(recall, precision, where="post", clip_on=False, **style,
                  label=f"{name}: average precision {short_text(blocks[name]['average_precision'])}")
    axes.axhline(y.mean(), label=f"chance: {y.mean():.2f} have Deauville 4–5", **FAINT)
    unit_square(axes, "Recall (sensitivity)", "Precision (positive predictive value)")
    axes.legend(loc="lower left", **LEGEND)
    return figure


def reliability(states: dict[str, dict[str, tuple]]) -> Figure:
    """Share of Deauville 4-5 at each probability, as a smooth curve and in bins, and how many scans have which.

    states: {ensemble: {state: (y_score, block of metrics.json)}}, a column an ensemble, a line a state (before, after
    recalibration); the last is shaded.
    """
    figure, axes = new_figure((4.2 * len(states), 5.4), (2, len(states)), height_ratios=(3, 1))
    for (name, shown), upper, lower in zip(states.items(), *axes, strict=True):
        upper.plot((0, 1), (0, 1), label="perfect calibration", **FAINT)
        for k, ((state, (p, block)), mark, style) in enumerate(zip(shown.items(), "os", STYLES, strict=False), 1):
            found = block["calibration_curve"]
            label = f"{state}: ICI {calibration_curve.error_text(found['ici'], short=True)}"
            calibration_figures.draw_calibration(upper, found, label, style, mark, shaded=k == len(shown))
            lower.hist(p, bins=np.linspace(0, 1, 21), histtype="step", **style | {"linewidth": 1.3})
        unit_square(upper, "", "Share with Deauville 4–5")
        upper.set_title(name, fontsize=9)
        upper.legend(loc="upper left", **LEGEND)
        lower.set(xlim=(0, 1), xlabel="Predicted probability of Deauville 4–5", ylabel="Scans")
    return figure


def decision_curve(blocks: dict) -> Figure:
    """Net benefit of acting on the score, on everyone, on no one; Vickers and Elkin 2006."""
    figure, axes = new_figure((5, 3.8))
    curves = {name: block["decision_curve"] for name, block in blocks.items()}
    calibration_figures.draw_net_benefit(axes, curves, STYLES, FAINT)
    axes.legend(title=f"shaded: pointwise 95 % band of {next(iter(curves))}", **LEGEND)
    return figure


def confusion_matrices(blocks: dict) -> Figure:
    """A matrix for each ensemble (row) and threshold (column)."""
    points = {name: operating_points(block) for name, block in blocks.items()}
    columns = max(map(len, points.values()))
    figure, axes = new_figure((2.15 * columns + 0.6, 2.75 * len(points) + 0.4), (len(points), columns))
    for row, (name, each) in zip(axes, points.items(), strict=True):
        for cell in row[len(each):]:
            cell.set_visible(False)
        for cell, (point, block) in zip(row, each.items(), strict=False):
            counts = np.array([[block["tn"], block["fp"]], [block["fn"], block["tp"]]])
            show_shares(cell, counts, lambda count, share: f"{count}\n{100 * share:.0f} %", fontsize=9)
            cell.spines[:].set_visible(True)
            cell.set_xticks((0, 1), ("DS 1–3", "DS 4–5"))
            cell.set_yticks((0, 1), ("DS 1–3", "DS 4–5"), rotation=90, va="center")
            cell.set_xlabel("predicted", fontsize=8)
            at = "" if point == "0.5" else f" ({point_text(block)})"
            cell.set_title(f"{name}\n{POINTS[point]}{at}", fontsize=8)
            cell.tick_params(length=0, labelsize=8)
        row[0].set_ylabel("reader's label", fontsize=8)
    return figure


def site_confusion(result: dict) -> Figure:
    """Counts of true against predicted site, coloured by the share of the row; on the right each site's recall.

    result: of `site_metrics.all_metrics`.
    """
    sites = result["sites"]
    side, places = 0.36 * len(sites), range(len(sites))
    figure, axes = new_figure((side + 3.2, side + 1.9))
    image = show_shares(axes, np.array(result["confusion"]), lambda count, share: str(count), fontsize=7.5, zero="0.75")
    axes.set_xticks(places, [site["name"] for site in sites], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, [f"{site['name']} ({site['n']})" for site in sites])
    axes.set(xlabel="predicted", ylabel="true site (scans)")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(np.arange(len(sites) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [_percent(site["recall"]) for site in sites])
    right.tick_params(length=0, labelsize=8)
    right.spines[:].set_visible(False)
    right.set_ylabel("recall, % (95 % CI)")
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.4, aspect=40, label="share of the row")
    bar.outline.set_visible(False)
    return figure


def score_distribution(curves: dict, blocks: dict) -> Figure:
    """Histogram of the probabilities by class, one panel an ensemble, and its thresholds as lines."""
    figure, axes = new_figure((4.8, 2.3 * len(curves) + 0.5), (len(curves), 1))
    bins = np.linspace(0, 1, 26)
    for cell, (name, (y, p)) in zip(axes[:, 0], curves.items(), strict=True):
        cell.hist(p[y == 0], bins, color=BLUE, alpha=0.75, label=f"Deauville 1–3 ({(y == 0).sum()} scans)")
        cell.hist(p[y == 1], bins, facecolor="none", edgecolor="black", hatch="////", linewidth=0.8,
                  label=f"Deauville 4–5 ({y.sum()} scans)")
        top = cell.get_ylim()[1]
        cell.set_ylim(0, top * 1.15)
        for point, block in operating_points(blocks[name]).items():
            if block["threshold"] is None:  # a majority: no line
                continue
            cell.axvline(block["threshold"], color="0.25", linewidth=0.9, linestyle="--", ymax=0.93)
            cell.plot(block["threshold"], top * 1.08, MARKS[point], color="white", label=POINTS[point],
                      **MARKED | {"markersize": 5})
        cell.set(xlim=(0, 1), ylabel="Scans")
        cell.set_title(name, fontsize=9)
        cell.yaxis.get_major_locator().set_params(integer=True)
    axes[-1, 0].set_xlabel("Predicted probability of Deauville 4–5")
    shown = axes[0, 0].get_legend_handles_labels()
    axes[-1, 0].legend(*shown, fontsize=7, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.28))
    return figure


def ensemble_size(blocks: dict) -> Figure:
    """AUC against the number of models, of `disagreement.auc_by_size`."""
    figure, axes = new_figure((4.8, 3.6))
    for k, ((name, block), style) in enumerate(zip(blocks.items(), STYLES, strict=False)):
        size, mean, low, high = (np.array([row[key] for row in block["ensemble_size"]])
                                 for key in ("size", "mean", "low", "high"))
        bars = np.maximum(0, (mean - low, high - mean))  # of few scans the mean may lie outside of 95 % of the subsets
        axes.errorbar(size + (k - (len(blocks) - 1) / 2) * 0.12, mean, bars, marker="os"[k % 2], markersize=4,
                      elinewidth=1, capsize=2, label=name, **style)
    axes.set(xlabel="Models in the ensemble", ylabel="AUC")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right", title="mean; bars: 95 % of the subsets of models", **LEGEND)
    return figure


def selective(correct: ndarray, doubts: dict[str, ndarray]) -> Figure:
    """Accuracy of the scans that are kept against the share referred.

    correct is (n,) bool; doubts is {label: (n,)}, the larger the sooner referred.
    """
    figure, axes = new_figure((4.8, 3.6))
    for (name, doubt), style in zip(doubts.items(), STYLES, strict=False):
        referred, accuracy = disagreement.selective_accuracy(correct, doubt)
        shown = np.arange(1, len(referred) + 1)[::-1] >= min(10, len(referred))  # fewer scans: noise
        axes.plot(100 * referred[shown], accuracy[shown], label=name, **style)
    axes.set(xlim=(0, 100), xlabel="Scans referred to a human (%)", ylabel="Accuracy of the others")
    axes.set_ylim(top=1.01)
    axes.legend(loc="lower right", title="referred first: scans with", **LEGEND)
    return figure


def forest(rows: list[tuple[str, dict]]) -> Figure:
    """AUC, sensitivity and specificity of subgroups beside each other.

    rows: (label, block of metrics.json), the first of all scans, whose estimate is the dotted line.
    """
    names = {"auc": "AUC", "sensitivity": "Sensitivity", "specificity": "Specificity"}
    figure, axes = new_figure((7.2, 0.36 * len(rows) + 1.1), (1, 3))
    for cell, (metric, heading) in zip(axes[0], names.items(), strict=True):
        for place, (_, block) in enumerate(rows):
            entry, colour = block[metric], BLUE if place else "black"
            if entry["value"] is None:
                beside = cell.get_yaxis_transform()
                cell.text(0.02, place, "none", va="center", fontsize=7, color="0.35", transform=beside)
                continue
            if entry["ci_low"] is not None:
                cell.plot((entry["ci_low"], entry["ci_high"]), (place, place), color=colour, linewidth=1.5)
            cell.plot(entry["value"], place, "o" if place else "D", color=colour, markersize=5)
            if place == 0:
                cell.axvline(entry["value"], zorder=0, **FAINT)
        cell.set(xlim=(0, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel=f"{heading} [95 % CI]")
        cell.set_title(heading, fontsize=9)
        cell.set_xticks((0, 0.5, 1))
        cell.set_yticks(range(len(rows)), [""] * len(rows), fontsize=7)
        cell.tick_params(axis="y", length=0)
        cell.spines["left"].set_visible(False)
    axes[0, 0].set_yticklabels([f"{textwrap.shorten(label, 34, placeholder='…')}\n{block['n']} scans, "
                                f"{block['n_positive']} DS 4–5" for label, block in rows])
    return figure


# ---------------------------------------------------------------- parts of figures

def new_figure(size, grid=None, **options):
    """A figure and its axes: one, or with `grid` (rows, columns) an array of them."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(*(grid or (1, 1)), squeeze=False, **options)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes if grid else axes[0, 0]


def operating_points(block):
    """{name of a threshold: block of metrics.json}: 0.5, and those that were reached."""
    return {"0.5": block} | {name: point for name, point in block["operating_points"].items()
                             if "reason" not in point}


def point_text(point):
    """The threshold of an operating point, "at 0.431", or where there are several, how they are applied."""
    if point["threshold"] is not None:
        return f"at {point['threshold']:.3f}"
    return "fold by fold" if point["by"] == "mean" else f"by {point['by']}"



def unit_square(axes, x, y):
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=x, ylabel=y)


def show_shares(axes, counts, text, fontsize, zero="black"):
    """A matrix of counts, coloured by the share of the row; the image."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, text(count, shares[i, j]), ha="center", va="center", fontsize=fontsize,
                  color=zero if not count else "white" if shares[i, j] > 0.6 else "black")
    return axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)


def _percent(entry):
    """A share as "83 (61–94)"."""
    if entry["value"] is None:
        return "none"
    return f"{100 * entry['value']:.0f} ({100 * entry['ci_low']:.0f}–{100 * entry['ci_high']:.0f})"
