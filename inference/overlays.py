"""Heat maps on MIPs, as pictures: a panel per scan, contact sheets per cohort (PNG).

The MIP is grey, inverted, in SUV; the heat map lies over it, from clear to dark red, as a share of the highest value of
the scan's views; a cross marks each view's peak. A scan is given as its rows of `heat_maps.describe`.
"""
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from common import mips
from common.files import progress, replace_file
from common.manifest import is_synthetic, views_of
from common.mips import read_image
from common.run_files import panel
from inference.pointing_game import peak

HEAT = LinearSegmentedColormap.from_list("heat", mips.HEAT)
VIEW_NAMES = {"cor": "coronal", "sag": "sagittal"}
SIDES = {"cor": ("R", "L"), "sag": ("front", "back")}  # left and right edge of the image
BAR_MM = 100.0  # the scale bar
PER_SHEET, SHEET_COLUMNS = 24, 6  # scans of a contact sheet's page, and of one of its lines
DPI = 130
GAP = 4  # pixels between the views on a contact sheet
SHOWN_ID = 12  # characters of a scan_id on a contact sheet
LABELS = {0: ", label DS 1–3", 1: ", label DS 4–5"}


def by_probability(rows: pd.DataFrame, most: int | None = None) -> list[pd.DataFrame]:
    """Each scan's rows, the highest probability first; the first `most`."""
    scans = [scan for _, scan in rows.groupby("scan_id", sort=False)]
    return sorted(scans, key=lambda scan: -scan["scan_probs"].iloc[0])[:most]


def draw_panels(scans: list[pd.DataFrame], folder: Path, images: str | Path, source: str, suv_max: float,
                spacing: float | None, overwrite: bool) -> None:
    """panels/SCAN.png of each scan; those that are there stay, unless `overwrite` says otherwise.

    Parameters
    ----------
    scans : of `by_probability`
    folder : Path
        The model's.
    images : str or Path
        Folder of the MIPs.
    source : str
        What made the maps, for titles.
    suv_max : float
        The SUV that is black.
    spacing : float or None
        mm per pixel.
    """
    with progress(scans, "panels", "scan") as bar:
        for scan in bar:
            path = panel(folder, scan["scan_id"].iloc[0])
            if overwrite or not path.exists():
                _draw_panel(path, scan, images, source, suv_max, spacing)


def draw_sheets(scans: list[pd.DataFrame], folder: Path, images: str | Path, source: str, suv_max: float) -> None:
    """sheet001.png, ..., PER_SHEET scans each, in place of those that are there; parameters as of `draw_panels`."""
    for old in folder.glob("sheet*.png"):
        old.unlink()
    pages = [scans[k:k + PER_SHEET] for k in range(0, len(scans), PER_SHEET)]
    with progress(pages, "contact sheets", "page") as bar:
        for number, page in enumerate(bar, 1):
            title = f"{source}, page {number} of {len(pages)}; probability of DS 4–5 after the scan's name"
            _draw_sheet(folder / f"sheet{number:03d}.png", page, images, title + _notice(pd.concat(scans)), suv_max)


# ---------------------------------------------------------------- a scan's pictures and texts

def _pictures(scan, images):
    """({view: MIP}, {view: heat map}), coronal and sagittal first."""
    rows = {view: scan[scan["view"] == view].iloc[0] for view in views_of(scan)}
    return ({view: read_image(row, images) for view, row in rows.items()},
            {view: np.load(row["map"]) for view, row in rows.items()})


def _title(scan, source):
    """Of a panel: scan, probability, sites, model."""
    first = scan.iloc[0]
    views = ", ".join(f"{_view_name(row.view)} {row.probs:.2f}" for row in scan.itertuples())
    lines = [f"scan {first['scan_id']}", f"probability of DS 4–5: {first['scan_probs']:.2f} ({views}){_label(scan)}",
             first["sites"], source + _notice(scan)]
    return "\n".join(filter(None, lines))


def _caption(scan):
    """Of a scan on a contact sheet."""
    first, name = scan.iloc[0], scan["scan_id"].iloc[0]
    short = name if len(name) <= SHOWN_ID else "…" + name[1 - SHOWN_ID:]
    sites = first["sites"].replace("predicted site", "predicted").replace(", true", "\ntrue")
    return "\n".join(filter(None, [f"{short}  {first['scan_probs']:.2f}{_label(scan)}", sites]))


def _label(scan):
    return LABELS.get(pd.to_numeric(scan["target"]).iloc[0], "") if "target" in scan else ""


def _notice(scan):
    return " – SYNTHETIC" * bool(is_synthetic(scan).any())


def _view_name(view):
    return VIEW_NAMES.get(view) or f"{int(view[3:])}°"


# ---------------------------------------------------------------- figures

def _draw_panel(path, scan, images, source, suv_max, spacing):
    """One scan: its views side by side, two colour bars."""
    (images, heats), speaks_for = _pictures(scan, images), scan["speaks_for"].iloc[0]
    highest, rows = max(heat.max() for heat in heats.values()), max(image.shape[0] for image in images.values())
    widths = [image.shape[1] for image in images.values()]
    height = 6.0
    figure = Figure((height * sum(widths) / rows + 1.9, height + 1.3), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(images), width_ratios=widths, squeeze=False)[0]
    for place, (view, image) in zip(axes, images.items(), strict=True):
        _show(place, image, heats[view], highest, suv_max)
        place.set_title(_view_name(view), fontsize=9)
        for x, side in zip((0.02, 0.98), SIDES.get(view, ("", "")), strict=True):
            place.text(x, 0.99, side, transform=place.transAxes, ha="left" if x < 0.5 else "right", va="top",
                       fontsize=8)
        row, column, _ = peak(heats[view])
        if row is not None:
            place.plot(column, row, "+", color="#0072B2", markersize=11, markeredgewidth=1.6)
    if spacing:
        _scale_bar(axes[0], next(iter(images.values())).shape, spacing)
    heat_label = (f"speaks for {speaks_for},\nshare of this scan's maximum ({highest:.2g})" if highest
                  else f"nothing speaks for {speaks_for}")
    _colour_bars(figure, axes, suv_max, heat_label)
    figure.suptitle(_title(scan, source), fontsize=8, x=0.02, ha="left")
    _save(figure, path)


def _draw_sheet(path, scans, images, title, suv_max):
    """A page of scans, all at one scale."""
    pictures = [[_beside(views) for views in _pictures(scan, images)] for scan in scans]
    sides = np.max([image.shape for image, _ in pictures], axis=0)
    lines = -(-len(pictures) // SHEET_COLUMNS)
    figure = Figure((SHEET_COLUMNS * 2.05 + 1.7, lines * (2.0 * sides[0] / sides[1] + 0.4) + 0.4),
                    layout="constrained", dpi=DPI)
    axes = figure.subplots(lines, SHEET_COLUMNS, squeeze=False)
    for place in axes.flat[len(pictures):]:
        place.set_axis_off()
    for place, scan, (image, heat) in zip(axes.flat, scans, pictures, strict=False):
        room = np.subtract(sides, image.shape)
        padding = ((0, room[0]), (room[1] // 2, room[1] - room[1] // 2))
        _show(place, np.pad(image, padding), np.pad(heat, padding), heat.max(), suv_max)
        place.set_title(_caption(scan), fontsize=6.5)
    names = {name for scan in scans for name in scan["speaks_for"]}
    speaks_for = names.pop() if len(names) == 1 else "the predicted site"
    _colour_bars(figure, axes, suv_max, f"speaks for {speaks_for},\nshare of each scan's maximum",
                 shrink=min(1, 1.6 / lines))
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    _save(figure, path)


def _beside(pictures):
    """{view: array} -> one array, GAP columns of 0 between them, their tops in line."""
    rows = max(map(len, pictures.values()))
    padded = [np.pad(picture, ((0, rows - len(picture)), (0, GAP))) for picture in pictures.values()]
    return np.concatenate(padded, 1)[:, :-GAP]


def _show(axes, image, heat, highest, suv_max):
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=suv_max, interpolation="nearest")
    if highest > 0:
        axes.imshow(heat / highest, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")


def _scale_bar(axes, shape, spacing):
    length, row = BAR_MM / spacing, shape[0] - 6
    axes.plot((6, 6 + length), (row, row), color="black", linewidth=2, solid_capstyle="butt")
    axes.text(6 + length / 2, row - 3, f"{BAR_MM / 10:g} cm", ha="center", va="bottom", fontsize=8)


def _colour_bars(figure, axes, suv_max, heat_label, shrink=0.7):
    for cmap, highest, label in (("gray_r", suv_max, f"SUV (g/ml), {suv_max:g} and above black"),
                                 (HEAT, 1, heat_label)):
        bar = figure.colorbar(ScalarMappable(Normalize(0, highest), cmap), ax=axes, shrink=shrink, pad=0.01, aspect=25)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=8)


def _save(figure, path):
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
