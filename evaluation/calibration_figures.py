"""What the reliability figure and the decision curve draw, onto axes that `figures` made."""
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from evaluation.figure_style import FAINT, STYLES

BINS: dict[str, Any] = {"linewidth": 0, "elinewidth": 0.7, "capsize": 1.5, "clip_on": False, "zorder": 3}


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
                  label=None if found["curve"] else label, **BINS)


def draw_net_benefit(axes: Axes, curves: dict[str, list[dict]]) -> None:
    """Net benefit of acting on the score, on everyone, on no one; the pointwise band of the first ensemble.

    curves: {ensemble: `decision_curve` of metrics.json}.
    """
    highest, first = 0.0, next(iter(curves))
    for (name, points), style in zip(curves.items(), STYLES, strict=False):
        threshold, everyone = _columns(points, "threshold", "all")
        benefit, low, high = _columns([point["net_benefit"] for point in points], "value", "ci_low", "ci_high")
        highest = max(highest, benefit.max(), everyone.max())
        axes.plot(threshold, benefit, label=name, **style)
        if name == first:  # two bands hide each other
            highest = np.nanmax((highest, *high))
            axes.fill_between(threshold, low, high, facecolor=style["color"], alpha=0.15, linewidth=0)
    axes.plot(threshold, everyone, label="all scans predicted positive", color=FAINT["color"], linewidth=1)
    axes.axhline(0, color="black", linewidth=1, linestyle=":", label="none predicted positive")
    axes.set(xlim=(threshold[0], threshold[-1]), ylim=(-0.15 * highest - 0.02, highest * 1.1 + 0.02),
             ylabel="Net benefit (per scan)", xlabel="Threshold probability of Deauville 4–5")


def _columns(rows, *keys):
    """The values of each key, NaN where it is null."""
    return [np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float) for key in keys]
