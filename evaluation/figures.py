"""Figures for print: PNG (300 dpi) and SVG, colours of Okabe and Ito with dashes and shades that stay apart in grey.

Each function draws one figure and returns [PNG path, SVG path]. `curves` is {label: (y_true, y_score)}; `note`
(SYNTHETIC, OPTIMISTIC) is printed under the figure. Text in SVG is drawn as paths: it looks the same everywhere.
"""
import contextlib
import textwrap

import numpy as np

from common.files import replace_file
from evaluation import bootstrap, calibration
from evaluation.disagreement import selective_accuracy
from evaluation.metrics import DERIVED, wilson_interval

# colour, dashes, width: dark blue, orange and more; their greys differ too
STYLES = (("#0072B2", "-", 1.8), ("#E69F00", (0, (5, 1.5)), 1.8), ("#009E73", (0, (1.5, 1)), 1.8),
          ("#CC79A7", (0, (6, 1, 1, 1)), 1.8))
MARKS = {"0.5": "o", "youden": "s", "sensitivity95": "^", "specificity95": "v"}
GREY = "0.55"


def roc(folder, curves, labels, points, groups, title, note, seed=0):
    """ROC curves; a pointwise 95 % band around the first, and the operating points {label: {name: (fpr, tpr)}}."""
    from sklearn.metrics import roc_curve

    with canvas(folder, "roc", note, (4.6, 4.9)) as (figure, axes, paths):
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.8, linestyle=":", label="chance")
        grid = np.linspace(0, 1, 201)
        first = next(iter(curves))  # one band: two of them hide each other
        band = bootstrap.roc_band(*curves[first], grid, groups, seed=seed)
        if band is not None:
            axes.fill_between(grid, *band, facecolor=STYLES[0][0], alpha=0.15, linewidth=0)
        for (name, (y, p)), (colour, dashes, width) in zip(curves.items(), STYLES, strict=False):
            fpr, tpr, _ = roc_curve(y, p)
            axes.plot(fpr, tpr, color=colour, linestyle=dashes, linewidth=width, clip_on=False, zorder=3,
                      label=labels[name])
            for point, (x, height) in points[name].items():
                axes.plot(x, height, MARKS[point], color=colour, markeredgecolor="black", markersize=6, zorder=4,
                          clip_on=False)
        shown = dict.fromkeys(point for marks in points.values() for point in marks)
        for point in shown:
            axes.plot([], [], MARKS[point], color="white", markeredgecolor="black", markersize=6,
                      label=point_name(point))
        unit_square(axes, "False positive rate (1 − specificity)", "True positive rate (sensitivity)")
        axes.legend(loc="lower right", fontsize=7, framealpha=0.9, title_fontsize=7,
                    title=f"shaded: pointwise 95 % band of {first}")
        axes.set_title(title, fontsize=9)
    return paths


def precision_recall(folder, curves, labels, title, note):
    from sklearn.metrics import precision_recall_curve

    with canvas(folder, "precision_recall", note, (4.4, 4.6)) as (figure, axes, paths):
        for (name, (y, p)), (colour, dashes, width) in zip(curves.items(), STYLES, strict=False):
            precision, recall, _ = precision_recall_curve(y, p)
            axes.step(recall, precision, where="post", color=colour, linestyle=dashes, linewidth=width,
                      label=labels[name], clip_on=False)
        share = np.mean(next(iter(curves.values()))[0])
        axes.axhline(share, color=GREY, linewidth=0.8, linestyle=":", label=f"chance: {share:.2f} have Deauville 4–5")
        unit_square(axes, "Recall (sensitivity)", "Precision (positive predictive value)")
        axes.legend(loc="lower left", fontsize=7, framealpha=0.9)
        axes.set_title(title, fontsize=9)
    return paths


def reliability(folder, panels, title, note):
    """Share of Deauville 4-5 against the mean probability, Wilson intervals, and how many scans have which.

    panels: {ensemble: {state: (y_true, y_score)}}, a column an ensemble, a line a state (before, after recalibration).
    """
    with canvas(folder, "reliability", note, (4.2 * len(panels), 5.4), grid=(2, len(panels)),
                heights=(3, 1)) as (figure, axes, paths):
        for (name, curves), upper, lower in zip(panels.items(), *axes, strict=True):
            upper.plot((0, 1), (0, 1), color=GREY, linewidth=0.8, linestyle=":", label="perfect calibration")
            for (state, (y, p)), mark, (colour, dashes, width) in zip(curves.items(), "os", STYLES, strict=False):
                bins = calibration.reliability(y, p)
                x, share = (np.array([each[key] for each in bins]) for key in ("mean_probability", "share_positive"))
                limits = np.array([wilson_interval(each["n_positive"], each["n"]) for each in bins]).T
                upper.errorbar(x, share, np.abs(limits - share), color=colour, linestyle=dashes, linewidth=width,
                               marker=mark, markersize=4, elinewidth=0.8, capsize=2, clip_on=False,
                               label=f"{state}: ECE {calibration.expected_calibration_error(y, p):.3f}")
                lower.hist(p, bins=np.linspace(0, 1, 21), histtype="step", color=colour, linestyle=dashes,
                           linewidth=1.3)
            unit_square(upper, "", "Share with Deauville 4–5")
            upper.set_title(name, fontsize=9)
            upper.legend(loc="lower right", fontsize=7, framealpha=0.9)
            lower.spines[["top", "right"]].set_visible(False)
            lower.set(xlim=(0, 1), xlabel="Predicted probability of Deauville 4–5", ylabel="Scans")
        figure.suptitle(title, fontsize=9)
    return paths


def decision_curve(folder, curves, title, note):
    """Net benefit of acting on the score, on everyone, on no one; Vickers and Elkin 2006."""
    with canvas(folder, "decision_curve", note, (5, 3.8)) as (figure, axes, paths):
        grid = np.linspace(0.01, 0.99, 197)
        highest = 0
        for (name, (y, p)), (colour, dashes, width) in zip(curves.items(), STYLES, strict=False):
            benefit = calibration.net_benefit(y, p, grid)
            highest = max(highest, benefit.max())
            axes.plot(grid, benefit, color=colour, linestyle=dashes, linewidth=width, label=name)
        y = next(iter(curves.values()))[0]
        axes.plot(grid, calibration.net_benefit(y, np.ones(len(y)), grid), color=GREY, linewidth=1,
                  label="call all scans positive")
        axes.axhline(0, color="black", linewidth=1, linestyle=":", label="call none positive")
        axes.set(xlim=(0, 1), ylim=(-0.15 * highest - 0.02, highest * 1.1 + 0.02), ylabel="Net benefit (per scan)",
                 xlabel="Threshold probability of Deauville 4–5")
        axes.legend(fontsize=7, framealpha=0.9)
        axes.set_title(title, fontsize=9)
    return paths


def confusion_matrices(folder, blocks, title, note):
    """A matrix per ensemble (row) and threshold (column): blocks {ensemble: [(name, metrics at it), ...]}."""
    columns = max(len(each) for each in blocks.values())
    with canvas(folder, "confusion", note, (2.15 * columns + 0.6, 2.75 * len(blocks) + 0.4),
                grid=(len(blocks), columns)) as (figure, axes, paths):
        for row, (name, each) in zip(axes, blocks.items(), strict=True):
            for k, cell in enumerate(row):
                cell.set_visible(k < len(each))
            for cell, (label, block) in zip(row, each, strict=False):
                counts = np.array([[block["tn"], block["fp"]], [block["fn"], block["tp"]]])
                shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
                cell.imshow(shares, cmap="Blues", vmin=0, vmax=1)
                for i in range(2):
                    for j in range(2):
                        cell.text(j, i, f"{counts[i, j]}\n{100 * shares[i, j]:.0f} %", ha="center", va="center",
                                  color="white" if shares[i, j] > 0.6 else "black", fontsize=9)
                cell.set_xticks((0, 1), ("DS 1–3", "DS 4–5"))
                cell.set_yticks((0, 1), ("DS 1–3", "DS 4–5"), rotation=90, va="center")
                cell.set_xlabel("called", fontsize=8)
                cell.set_title(f"{name}\n{point_name(label)}"
                               + (f" (at {block['threshold']:.3f})" if label != "0.5" else ""), fontsize=8)
                cell.tick_params(length=0, labelsize=8)
            row[0].set_ylabel("reader's label", fontsize=8)
        figure.suptitle(title, fontsize=9)
    return paths


def site_confusion(folder, result, title, note):
    """Counts of true against called site, coloured by the share of the row; on the right each site's recall.

    result: of site_metrics.evaluate.
    """
    sites, counts = result["sites"], np.array(result["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.36 * len(sites)
    with canvas(folder, "site_confusion", note, (side + 3.2, side + 1.9)) as (figure, axes, paths):
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(counts):
            axes.text(j, i, count, ha="center", va="center", fontsize=7.5,
                      color="0.75" if not count else "white" if shares[i, j] > 0.6 else "black")
        axes.set_xticks(range(len(sites)), [site["name"] for site in sites], rotation=45, ha="right",
                        rotation_mode="anchor")
        axes.set_yticks(range(len(sites)), [f"{site['name']} ({site['n']})" for site in sites])
        axes.set(xlabel="called", ylabel="true site (scans)", title=title)
        axes.title.set_fontsize(9)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8)
        axes.set_xticks(np.arange(len(sites) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(sites) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.85", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(sites)), [_percent(site["recall"]) for site in sites])
        right.tick_params(length=0, labelsize=8)
        right.spines[:].set_visible(False)
        right.set_ylabel("recall, % (95 % CI)")
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.4, aspect=40, label="share of the row")
        bar.outline.set_visible(False)
    return paths


def _percent(entry):
    """A share as "83 (61–94)"."""
    if entry["value"] is None:
        return "none"
    return f"{100 * entry['value']:.0f} ({100 * entry['ci_low']:.0f}–{100 * entry['ci_high']:.0f})"


def score_distribution(folder, curves, thresholds, title, note):
    """Histogram of the probabilities by class, one panel an ensemble; thresholds {label: {name: value}} as lines."""
    with canvas(folder, "scores", note, (4.8, 2.3 * len(curves) + 0.5), grid=(len(curves), 1)) as (figure, axes, paths):
        for cell, (name, (y, p)) in zip(axes[:, 0], curves.items(), strict=True):
            y = np.asarray(y, dtype=bool)
            bins = np.linspace(0, 1, 26)
            cell.hist(p[~y], bins=bins, color=STYLES[0][0], alpha=0.75, label=f"Deauville 1–3 ({(~y).sum()} scans)")
            cell.hist(p[y], bins=bins, facecolor="none", edgecolor="black", hatch="////", linewidth=0.8,
                      label=f"Deauville 4–5 ({y.sum()} scans)")
            top = cell.get_ylim()[1]
            cell.set_ylim(0, top * 1.15)
            for point, value in thresholds[name].items():
                cell.axvline(value, color="0.25", linewidth=0.9, linestyle="--", ymax=0.93)
                cell.plot(value, top * 1.08, MARKS[point], color="white", markeredgecolor="black", markersize=5,
                          label=point_name(point))
            cell.set(xlim=(0, 1), ylabel="Scans", title=name)
            cell.title.set_fontsize(9)
            cell.yaxis.get_major_locator().set_params(integer=True)
            cell.spines[["top", "right"]].set_visible(False)
        axes[-1, 0].set_xlabel("Predicted probability of Deauville 4–5")
        axes[-1, 0].legend(*axes[0, 0].get_legend_handles_labels(), fontsize=7, loc="upper center", ncols=2,
                           bbox_to_anchor=(0.5, -0.28))
        figure.suptitle(title, fontsize=9)
    return paths


def ensemble_size(folder, curves, title, note):
    """AUC against the number of models: {label: disagreement.auc_by_size(...)}."""
    with canvas(folder, "ensemble_size", note, (4.8, 3.6)) as (figure, axes, paths):
        for k, ((name, curve), (colour, dashes, width)) in enumerate(zip(curves.items(), STYLES, strict=False)):
            size, mean, low, high = (np.array([row[key] for row in curve]) for key in ("size", "mean", "low", "high"))
            shift = (k - (len(curves) - 1) / 2) * 0.12
            axes.errorbar(size + shift, mean, (mean - low, high - mean), color=colour, linestyle=dashes,
                          linewidth=width, marker="os"[k % 2], markersize=4, elinewidth=1, capsize=2, label=name)
        axes.set(xlabel="Models in the ensemble", ylabel="AUC")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="lower right", fontsize=7, framealpha=0.9, title_fontsize=7,
                    title="mean; bars: 95 % of the subsets of models")
        axes.set_title(title, fontsize=9)
    return paths


def selective(folder, curves, title, note):
    """Accuracy of the scans that are kept against the share referred: {label: (correct, doubt)}."""
    with canvas(folder, "selective", note, (4.8, 3.6)) as (figure, axes, paths):
        for (name, (correct, doubt)), (colour, dashes, width) in zip(curves.items(), STYLES, strict=False):
            referred, accuracy = selective_accuracy(correct, doubt)
            shown = np.arange(1, len(referred) + 1)[::-1] >= min(10, len(referred))  # fewer scans: noise
            axes.plot(100 * referred[shown], accuracy[shown], color=colour, linestyle=dashes, linewidth=width,
                      label=name)
        axes.set(xlim=(0, 100), xlabel="Scans referred to a human (%)", ylabel="Accuracy of the others")
        axes.set_ylim(top=1.01)
        axes.legend(loc="lower right", fontsize=7, framealpha=0.9, title="referred first: scans with", title_fontsize=7)
        axes.set_title(title, fontsize=9)
    return paths


def forest(folder, column, rows, title, note):
    """Subgroups of a column: [(label, metrics block or None as a gap)], AUC, sensitivity and specificity beside each
    other; the first row is all scans, whose estimate is the dotted line."""
    names = {"auc": "AUC", "sensitivity": "Sensitivity", "specificity": "Specificity"}
    height = 0.36 * len(rows) + 1.1
    with canvas(folder, f"forest_{file_name(column)}", note, (7.2, height), grid=(1, 3)) as (figure, axes, paths):
        for k, (cell, (metric, heading)) in enumerate(zip(axes[0], names.items(), strict=True)):
            for place, (_, block) in enumerate(rows):
                entry = block[metric]
                if entry["value"] is None:
                    cell.text(0.02, place, "none", va="center", fontsize=7, color="0.35",
                              transform=cell.get_yaxis_transform())
                    continue
                colour, mark = ("black", "D") if place == 0 else (STYLES[0][0], "o")
                if entry["ci_low"] is not None:
                    cell.plot((entry["ci_low"], entry["ci_high"]), (place, place), color=colour, linewidth=1.5)
                cell.plot(entry["value"], place, mark, color=colour, markersize=5)
                if place == 0:
                    cell.axvline(entry["value"], color=GREY, linewidth=0.8, linestyle=":", zorder=0)
            cell.set(xlim=(0, 1.02), ylim=(len(rows) - 0.5, -0.5), title=heading, xlabel=f"{heading} [95 % CI]")
            cell.title.set_fontsize(9)
            cell.set_xticks((0, 0.5, 1))
            cell.set_yticks(range(len(rows)), [f"{textwrap.shorten(label, 34, placeholder='…')}\n{block['n']} scans, "
                                               f"{block['n_positive']} DS 4–5" for label, block in rows]
                            if k == 0 else [""] * len(rows), fontsize=7)
            cell.tick_params(axis="y", length=0)
            cell.spines[["top", "right", "left"]].set_visible(False)
        figure.suptitle(title, fontsize=9)
    return paths


# ---------------------------------------------------------------- canvas

def point_name(point):
    return "threshold 0.5" if point == "0.5" else DERIVED[point]


def file_name(column):
    return "".join(letter if letter.isalnum() else "_" for letter in column)


def unit_square(axes, x, y):
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)


@contextlib.contextmanager
def canvas(folder, name, note, size, grid=None, heights=None):
    """Yield (figure, axes, paths); at the end save to `paths`, the same bytes for the same drawing.

    Args:
        grid: (rows, columns) of a 2-D array of axes, of rows with the ratios `heights`; None: one axes.
    """
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 8.5, "axes.linewidth": 0.8, "svg.hashsalt": "deauville", "svg.fonttype": "path",
                         "hatch.linewidth": 0.5}):
        figure, paths = plt.figure(figsize=size, layout="constrained"), []
        try:
            if grid:
                axes = figure.subplots(*grid, squeeze=False, height_ratios=heights)
            else:
                axes = figure.subplots()
                axes.spines[["top", "right"]].set_visible(False)
            yield figure, axes, paths
            if note:
                figure.text(0.5, -0.01, textwrap.fill(note, int(size[0] * 17)), ha="center", va="top", fontsize=7)
            for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                paths.append(folder / f"{name}.{suffix}")
                with replace_file(paths[-1], "wb") as file:
                    figure.savefig(file, format=suffix, dpi=300, metadata=metadata, bbox_inches="tight")
        finally:
            plt.close(figure)
