"""The flow of scans as a diagram: studies found, refused by reason, labelled, in each set, measured."""
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from common.manifest import SETS
from common.text import counted
from evaluation import figure_style
from evaluation.cohort_table import ROLES

WIDTH, LINE, PAD, GAP = figure_style.PAGE, 0.145, 0.08, 0.25  # inches: of the page, of a line, within and between boxes
WIDEST, LETTERS = 2.4, 16.5  # inches of a box, letters of an inch
MOST_REASONS = 6


def levels(flow: dict, metrics: dict) -> list[dict]:
    """The boxes from top to bottom.

    Parameters
    ----------
    flow : dict
        Of `provenance.cohort_flow`, with a manifest.
    metrics : dict
        What metrics.json holds.

    Returns
    -------
    list of dict
        boxes: texts of the boxes beside each other, a list of lines each; aside: lines of the box of what leaves here;
        under: which box of the level above the only box stands under, None for all.
    """
    scans, excluded, source = flow["scans"], flow["excluded"], flow["source"]
    labelled, found = scans[scans["labelled"]], []
    if excluded is not None and flow["masks"] == 0:
        found.append(_level([["Studies found", f"{flow['refused'] + len(scans)} in {source} and errors.csv"]],
                            _reasons("Refused", flow["refused"], excluded)))
    elif excluded is not None:
        found.append(_level([["Studies found", "how many is not known: errors.csv lists masks, too"]],
                            _reasons("Lines of errors.csv", sum(excluded.values()), excluded)))
    unlabelled = len(scans) - len(labelled)
    found.append(_level([[f"Scans in {source}", *_counts(scans)]]))
    if unlabelled:
        found[-1]["aside"] = ["No label", f"{counted(unlabelled, 'scan')}"]
        found.append(_level([["Labelled", *_counts(labelled)]]))
    names = [name for name in scans["set"].cat.categories if name]
    if names:
        found.append(_level([[name, *_counts(labelled[labelled["set"] == name]), *_splits(flow["rows"], name)]
                             for name in names]))
    wanted, measured, models = metrics["set"], metrics["avg"], len(metrics["models"])
    own = [k for k, name in enumerate(names) if name == ROLES.get(wanted)]
    expected = labelled if wanted == "all" else labelled[labelled["set"] == ROLES[wanted]]
    lacking = len(expected) - measured["n"] if own or wanted == "all" else 0
    odd = [f"{lacking} without prediction"] if lacking > 0 else [f"more than {source} has"] if lacking else []
    lines = ["Measured" if own or wanted == "all" else f"Measured: {ROLES[wanted].lower()} set of each split",
             f"{counted(measured['n'], 'scan')}" + _of(metrics["n_patients"]),
             f"{counted(measured['n_positive'], 'scan')} with Deauville 4–5",
             f"by {counted(models, 'model')}", *odd]
    return [*found, _level([lines], under=own[0] if own else None)]


def _level(boxes, aside=(), under=None):
    return {"boxes": boxes, "aside": aside, "under": under}


def _of(patients):
    return "" if patients is None else f", {counted(patients, 'patient')}"


def _counts(scans):
    patients = scans["patient"].nunique() if scans["patient"].notna().any() else None
    positive = int(scans["positive"].sum())
    return [f"{counted(len(scans), 'scan')}" + _of(patients), f"{counted(positive, 'scan')} with Deauville 4–5"]


def _reasons(title, count, excluded):
    shown = dict(list(excluded.items())[:MOST_REASONS])
    rest = sum(excluded.values()) - sum(shown.values())
    return [f"{title}: {count}", *(f"{name}: {n}" for name, n in shown.items()), *([f"others: {rest}"] if rest else [])]


def _splits(rows, name):
    """Of several splits, how many scans each of them has in the sets of a role."""
    parts = [key for key in SETS if ROLES[key].lower() in name.lower().split(" or ")]
    if len(parts) < 2:
        return []
    counts = {key: [row["scans"] for row in rows if row["set"] == key] for key in parts}
    return [f"in each of {counted(len(counts[parts[0]]), 'split')}:"] + [
        f"{ROLES[key].lower()} {min(each)}" + (f" to {max(each)}" if max(each) > min(each) else "")
        for key, each in counts.items()]


# ---------------------------------------------------------------- drawing, in inches from the upper left corner

def diagram(levels: list[dict]) -> Figure:
    """The boxes of `levels` with arrows from each to those below it."""
    rows: list[tuple] = []  # of each level: width of its boxes, their lines, those of the box aside, height
    for level in levels:
        width = min(WIDEST, WIDTH / len(level["boxes"]) - GAP) if level["under"] is None else rows[-1][0]
        boxes, aside = [_wrapped(box, width) for box in level["boxes"]], _wrapped(level["aside"], WIDEST)
        rows.append((width, boxes, aside, max(map(len, (*boxes, aside))) * LINE + 2 * PAD))
    height = sum(row[-1] + GAP for row in rows)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    middle, side = (WIDTH * 0.36, WIDTH * 0.8) if any(row[2] for row in rows) else (WIDTH * 0.5, 0)
    top, above = 0.02, list[tuple[float, float]]()
    for level, (width, boxes, aside, tall) in zip(levels, rows, strict=True):
        centres = [WIDTH * (k + 0.5) / len(boxes) for k in range(len(boxes))]
        if len(boxes) == 1:
            centres = [middle if level["under"] is None else above[level["under"]][0]]
        for source in above if level["under"] is None else [above[level["under"]]]:
            for centre in centres:
                _arrow(axes, source, (centre, top))
        if aside:
            _box(axes, (side, top), WIDEST, tall, aside)
            _arrow(axes, (middle + width / 2, top + tall / 2), (side - WIDEST / 2, top + tall / 2))
        for centre, box in zip(centres, boxes, strict=True):
            _box(axes, (centre, top), width, tall, box)
        above, top = [(centre, top + tall) for centre in centres], top + tall + GAP
    return figure


def _wrapped(lines, width):
    return [part for line in lines for part in textwrap.wrap(line, int(width * LETTERS))]


def _box(axes: Axes, top: tuple[float, float], width: float, height: float, lines: list[str]) -> None:
    x, y = top
    axes.add_patch(Rectangle((x - width / 2, y), width, height, facecolor="white", edgecolor="0.3", linewidth=0.8))
    start = y + (height - len(lines) * LINE) / 2
    for k, line in enumerate(lines):
        axes.text(x, start + (k + 0.5) * LINE, line, ha="center", va="center", fontsize=figure_style.TEXT,
                  weight="normal" if k else "bold")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Straight, or down, across and down."""
    (x, y), (to_x, to_y) = start, end
    if x != to_x and y != to_y:
        bend = to_y - GAP / 2
        axes.plot((x, x, to_x), (y, bend, bend), color="0.3", linewidth=0.8)
        x, y = to_x, bend
    axes.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "-|>", "color": "0.3", "linewidth": 0.8,
                                                        "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7})
