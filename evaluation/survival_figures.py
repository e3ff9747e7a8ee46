"""Kaplan-Meier curves by call, with numbers at risk: a figure for each endpoint of `prognosis`."""
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.text import counted, file_stems
from evaluation import figure_style, prognosis, survival
from evaluation.averaging import Ensemble
from evaluation.ensemble import ENSEMBLES
from evaluation.estimates import p_text, short_text

STYLES = dict(zip(prognosis.CALLS, figure_style.STYLES, strict=False))


def figures(endpoints: dict[str, prognosis.Endpoint], scans: pd.DataFrame, ensembles: dict[str, Ensemble],
            metrics: dict) -> dict[str, tuple[Figure, str]]:
    """{survival_TIME: (figure, title)} of each endpoint.

    Parameters
    ----------
    endpoints
        Of `prognosis.read_endpoints`.
    scans, ensembles
        Of `ensemble.join_scans` and `averaging.average_models`.
    metrics : dict
        What metrics.json holds.
    """
    found, stems = {}, file_stems("survival_", endpoints)
    for name, endpoint in endpoints.items():
        block = metrics["prognosis"][name]
        title = (f"{metrics['set'].capitalize()} set: {counted(block['n_patients'], 'patient')}, "
                 f"{counted(block['n_events'], 'event')} ({block['event']})")
        found[stems[name]] = kaplan_meier(endpoint, scans, ensembles, block, name), title
    return found


def kaplan_meier(endpoint: prognosis.Endpoint, scans: pd.DataFrame, ensembles: dict[str, Ensemble], block: dict,
                 name: str) -> Figure:
    """A panel for LARS-avg and one for the reader's label: curves with pointwise 95 % limits, censorings as ticks.

    block: of `prognosis.measure`.
    """
    shown = [each for each in prognosis.markers(endpoint, scans, ensembles) if each[0] != "max"]
    figure, axes = figure_style.new_figure(figure_style.PAGE, 3.1, (1, len(shown)), sharey=True)
    time, event = (endpoint.patients[column].to_numpy() for column in ("time", "event"))
    end = float(time.max()) or 1.0
    for cell, (marker, _, call) in zip(axes[0], shown, strict=True):
        ticks = [tick for tick in MaxNLocator(6, integer=True).tick_values(0, end) if 0 <= tick <= end]
        if block["unit"] == "months":  # halves of a year, years
            ticks = np.arange(0, end, next((step for step in (6, 12, 24, 60) if end < 8 * step), 120)).tolist()
        for k, (group, scores) in enumerate(prognosis.CALLS.items()):
            rows, style = call == (group == "positive"), STYLES[group]
            _curve(cell, time[rows], event[rows], f"Deauville {scores}", style)
            _below(cell, -0.09 * end, k + 1, scores, "right")
            for tick in ticks:
                _below(cell, tick, k + 1, str(int((time[rows] >= tick).sum())), "center")
        _below(cell, -0.09 * end, 0, "at risk", "right")
        cell.set(xlim=(0, end * 1.02), ylim=(0, 1.02), xticks=ticks, xlabel=f"{name} ({block['unit']})")
        ratio = block["markers"][marker]["hazard_ratio"]
        label = ENSEMBLES[marker] + " at 0.5" if marker in ENSEMBLES else prognosis.MARKERS[marker]
        cell.set_title(f"{label}\nhazard ratio {short_text(ratio)}\n"
                       f"log-rank p {p_text(block['markers'][marker]['log_rank']['p'])}")
        cell.legend(loc="lower left")
    axes[0, 0].set_ylabel("Share without event")
    return figure


def _below(axes, x, line, text, side):
    """Write under the axis' label, in lines of its size."""
    axes.annotate(text, (x, 0), (0, -27 - 1.35 * figure_style.TEXT * line), xycoords=axes.get_xaxis_transform(),
                  textcoords="offset points", ha=side, va="top", annotation_clip=False)


def _curve(axes, time, event, label, style):
    """One call's curve; nothing of no patient but its place in the legend."""
    axes.plot([], [], label=label, **style)
    if not len(time):
        return
    curve = survival.kaplan_meier(time, event)
    steps = np.concatenate([[0], curve.time, [time.max()]])

    def step(values, first=1.0):
        values = np.nan_to_num(values)
        return np.concatenate([[first], values, values[-1:] if len(values) else [first]])

    axes.step(steps, step(curve.survival), where="post", **style)
    axes.fill_between(steps, step(curve.low), step(curve.high), step="post", color=style["color"], alpha=0.15,
                      linewidth=0)
    censored = np.unique(time[~event])
    at = np.append(1.0, curve.survival)[np.searchsorted(curve.time, censored, side="right")]
    axes.plot(censored, at, "|", color=style["color"], markersize=5, markeredgewidth=0.8)
