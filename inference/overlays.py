"""Heat maps on MIPs, as pictures: a panel per scan (PNG, PDF), contact sheets per cohort (PNG).

The MIP is drawn in inverted grey; beside it again with the heat map, from transparent to dark red on one scale for the
cohort (`heat_maps.cohort_scale`), so that a map without high values looks empty. A cross marks each view's peak.
Functions take a scan as its rows of `heat_maps.describe`.
"""
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image

from common import mips
from common.files import progress, read_json_object, replace_file, write_json
from common.manifest import is_synthetic, view_name, views_of
from common.mips import read_image
from common.run_files import panel
from common.text import counted, some
from evaluation.figure_style import PLAIN_TEXT
from inference.pointing_game import peak

HEAT = LinearSegmentedColormap.from_list("heat", mips.HEAT)
SIDES = {"cor": ("R", "L"), "sag": ("front", "back")}  # left and right edge of the image
BAR_MM = 100.0  # the scale bar
ACROSS = 4  # views side by side in a panel
PER_SHEET, SHEET_COLUMNS = 12, 3  # scans on a page, and side by side, of the contact sheets
SHEET_VIEWS = 2  # of a scan on a contact sheet, the first
DPI, SHEET_DPI = 300, 150
COLOURS = 256  # of a PNG's palette
GAP = 4  # pixels between the views on a contact sheet
SHOWN_ID = 12  # characters of a scan_id on a contact sheet
LABELS = {0: ", label DS 1–3", 1: ", label DS 4–5"}


def by_probability(rows: pd.DataFrame, most: int | None = None) -> list[pd.DataFrame]:
    """The rows of each scan, highest probability first; only the first `most` scans."""
    scans = [scan for _, scan in rows.groupby("scan_id", sort=False)]
    return sorted(scans, key=lambda scan: -scan["scan_probs"].iloc[0])[:most]


def draw_panels(scans: list[pd.DataFrame], folder: Path, images: str | Path, source: str, scale: dict,
                spacing: float | None, suffixes: Sequence[str], overwrite: bool) -> None:
    """Write panels/SCAN.png (and .pdf, by `suffixes`) of each scan, where it is missing, its title has changed since
    (panels.json holds the titles) or with `overwrite`.

    Parameters
    ----------
    scans : of `by_probability`
    folder : Path
        Of the maps.
    images : str or Path
        Folder of the MIPs.
    source : str
        What made the maps, for titles.
    scale : dict
        suv_max, heat_max: the SUV that is black, the value of a map that is darkest.
    spacing : float or None
        mm per pixel.
    """
    path, titles = folder / "panels.json", {scan["scan_id"].iloc[0]: _title(scan, source) for scan in scans}
    before = read_json_object(path, "titles", "{}") if path.exists() else {}
    for name in titles:
        if overwrite or before.get(name, titles[name]) != titles[name]:
            for suffix in (".png", ".pdf"):
                panel(folder, name, suffix).unlink(missing_ok=True)
    write_json(before | titles, path)
    with progress(scans, "panels", "scan") as bar:
        for scan in bar:
            name = scan["scan_id"].iloc[0]
            if missing := [path for suffix in suffixes if not (path := panel(folder, name, suffix)).exists()]:
                figure = panel_figure(*_pictures(scan, images), scale, spacing, scan["speaks_for"].iloc[0],
                                      titles[name])
                for path in missing:
                    _save(figure, path)


def draw_sheets(scans: list[pd.DataFrame], folder: Path, images: str | Path, source: str, scale: dict) -> None:
    """Write sheet001.png, ... of PER_SHEET scans each, and remove those of before; parameters as `draw_panels`."""
    for old in folder.glob("sheet*.png"):
        old.unlink()
    pages = [scans[k:k + PER_SHEET] for k in range(0, len(scans), PER_SHEET)]
    with progress(pages, "contact sheets", "page") as bar:
        for number, page in enumerate(bar, 1):
            models = ", each the mean of its models" * any(scan["n_models"].iloc[0] > 1 for scan in scans)
            title = (f"{source}{models}, page {number} of {len(pages)}; probability of DS 4–5 after the scan's name"
                     + _notice(pd.concat(scans)))
            _save(_sheet(page, images, title, scale), folder / f"sheet{number:03d}.png")


# ---------------------------------------------------------------- a scan's pictures and texts

def _pictures(scan, images, most=None):
    """({view: MIP}, {view: heat map}) of the first `most` views, coronal and sagittal first."""
    rows = {view: scan[scan["view"] == view].iloc[0] for view in views_of(scan)[:most]}
    return ({view: read_image(row, images) for view, row in rows.items()},
            {view: np.load(row["map"]) for view, row in rows.items()})


def _title(scan, source):
    """Title of a panel: scan, probability, sites, models."""
    first = scan.iloc[0]
    views = ", ".join(f"{view_name(row.view)} {row.probs:.2f}" for row in scan.itertuples())
    lines = [f"scan {first['scan_id']}", f"probability of DS 4–5: {first['scan_probs']:.2f} ({views}){_label(scan)}",
             first["sites"], f"{source}, {models_text(first)}{_notice(scan)}"]
    return "\n".join(filter(None, lines))


def models_text(row: pd.Series) -> str:
    """Of a row of `describe`: "split 0 run 1", or "mean of 3 models (split 0 run 1, split 1 run 1, ...)"."""
    names = row["models"].split(", ")
    return names[0] if len(names) == 1 else f"mean of {counted(len(names), 'model')} ({some(names, 3)})"


def _caption(scan):
    """Caption of a scan on a contact sheet."""
    first, name = scan.iloc[0], scan["scan_id"].iloc[0]
    short = name if len(name) <= SHOWN_ID else "…" + name[1 - SHOWN_ID:]
    sites = first["sites"].replace("predicted site", "predicted").replace(", true", "\ntrue")
    return "\n".join(filter(None, [f"{short}  {first['scan_probs']:.2f}{_label(scan)}", sites]))


def _label(scan):
    return LABELS.get(pd.to_numeric(scan["target"]).iloc[0], "") if "target" in scan else ""


def _notice(scan):
    return " – SYNTHETIC" * bool(is_synthetic(scan).any())


# ---------------------------------------------------------------- figures

@matplotlib.rc_context(PLAIN_TEXT)
def panel_figure(images: dict[str, np.ndarray], heats: dict[str, np.ndarray], scale: dict, spacing: float | None,
                 speaks_for: str, title: str, marks: dict[str, tuple[float, float, float]] | None = None) -> Figure:
    """A scan's figure: each view's MIP, beside it again with its heat map, ACROSS views a line, and two colour bars.

    Parameters
    ----------
    images, heats : dict
        View -> (rows, columns) float32 array, SUV and heat.
    scale, spacing
        As `draw_panels`; scale["of"]: the colour bar's note, where the scale is not the cohort's.
    speaks_for : str
        The class that the heat maps explain, such as "DS 4–5".
    marks : dict, optional
        View -> (row, column, radius) in pixels of a circle on the plain MIP.
    """
    shapes = np.array([image.shape for image in images.values()])
    lines = -(-len(shapes) // ACROSS)
    across = -(-len(shapes) // lines)
    widths = np.repeat([shapes[k::across, 1].max() for k in range(across)], 2)  # each MIP, and beside it again
    height = 4.5
    figure = Figure((height * widths.sum() / shapes[:, 0].max() + 1.9, height * lines + 1.1), layout="constrained",
                    dpi=DPI)
    axes = figure.subplots(lines, 2 * across, width_ratios=widths, squeeze=False)
    places = axes.reshape(-1, 2)
    for place in places[len(shapes):].flat:
        place.set_axis_off()
    for (plain, overlaid), (view, image) in zip(places, images.items(), strict=False):
        for place, heat in ((plain, None), (overlaid, heats[view])):
            _show(place, image, heat, scale)
            for x, side in zip((0.02, 0.98), SIDES.get(view, ("", "")), strict=True):
                place.text(x, 0.99, side, transform=place.transAxes, ha="left" if x < 0.5 else "right", va="top",
                           fontsize=8)
        plain.set_title(view_name(view), fontsize=9)
        if marks and view in marks:
            line, across, radius = marks[view]
            plain.add_patch(Circle((across, line), radius, fill=False, color="#0072B2", linewidth=1))
        row, column, value = peak(heats[view])
        overlaid.set_title(f"highest: {value:.2g}", fontsize=9)
        if row is not None:
            overlaid.plot(column, row, "+", color="#0072B2", markersize=11, markeredgewidth=1.6, clip_on=False)
    if spacing:
        _scale_bar(axes[0, 0], shapes[0], spacing)
    _colour_bars(figure, axes, scale, speaks_for, 0.7 / lines)
    figure.suptitle(title, fontsize=8, x=0.02, ha="left")
    return figure


@matplotlib.rc_context(PLAIN_TEXT)
def _sheet(scans, images, title, scale):
    """A page of scans, all with pixels of one size: MIPs of SHEET_VIEWS, and again with the heat maps."""
    pictures = [[_beside(views) for views in _pictures(scan, images, SHEET_VIEWS)] for scan in scans]
    pictures = [(_beside({0: image, 1: image}), _beside({0: np.zeros_like(heat), 1: heat})) for image, heat in pictures]
    sides = np.max([image.shape for image, _ in pictures], axis=0)
    lines = -(-len(pictures) // SHEET_COLUMNS)
    figure = Figure((SHEET_COLUMNS * 4.1 + 1.7, lines * (4.1 * sides[0] / sides[1] + 0.4) + 0.4),
                    layout="constrained", dpi=SHEET_DPI)
    axes = figure.subplots(lines, SHEET_COLUMNS, squeeze=False)
    for place in axes.flat[len(pictures):]:
        place.set_axis_off()
    for place, scan, (image, heat) in zip(axes.flat, scans, pictures, strict=False):
        room = np.subtract(sides, image.shape)
        padding = ((0, room[0]), (room[1] // 2, room[1] - room[1] // 2))
        _show(place, np.pad(image, padding), np.pad(heat, padding), scale)
        place.set_title(_caption(scan), fontsize=6.5)
    names = {name for scan in scans for name in scan["speaks_for"]}
    _colour_bars(figure, axes, scale, names.pop() if len(names) == 1 else "the predicted site", min(1, 1.6 / lines))
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def _beside(pictures):
    """{view: array} -> one array: side by side, aligned at the top, with GAP columns of 0 between them."""
    rows = max(map(len, pictures.values()))
    padded = [np.pad(picture, ((0, rows - len(picture)), (0, GAP))) for picture in pictures.values()]
    return np.concatenate(padded, 1)[:, :-GAP]


def _show(axes, image, heat, scale):
    """Draw a MIP, and its heat map over it where there is one, without interpolation."""
    grey = mips.greys(image, scale["suv_max"])
    shown = mips.under_heat(grey, np.zeros_like(grey) if heat is None else (heat / scale["heat_max"]).clip(0, 1))
    axes.imshow(np.round(255 * shown).astype(np.uint8), interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")


def _scale_bar(axes, shape, spacing):
    length, row = BAR_MM / spacing, shape[0] - 6
    axes.plot((6, 6 + length), (row, row), color="black", linewidth=2, solid_capstyle="butt")
    axes.text(6 + length / 2, row - 3, f"{BAR_MM / 10:g} cm", ha="center", va="bottom", fontsize=8)


def _colour_bars(figure, axes, scale, speaks_for, shrink):
    for cmap, highest, label in (
            ("gray_r", scale["suv_max"], f"SUV (g/ml), {scale['suv_max']:g} and above black"),
            (HEAT, scale["heat_max"], f"speaks for {speaks_for}\n(units of the score);\n"
             + scale.get("of", "one scale for the cohort"))):
        bar = figure.colorbar(ScalarMappable(Normalize(0, highest), cmap), ax=axes, shrink=shrink, pad=0.01, aspect=25,
                              extend="max")
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=8)


def _save(figure, path):
    """Save the figure as a PDF, or as a PNG of COLOURS colours, which is half of the size.

    Every colour is near one of them, however few pixels have it: most are grey, hot spots and crosses are small.
    """
    if path.suffix == ".pdf":
        with replace_file(path, "wb") as file:
            figure.savefig(file, format="pdf", metadata={"Producer": None, "Creator": None, "CreationDate": None})
        return
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    picture = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    with replace_file(path, "wb") as file:
        picture.save(file, "PNG", dpi=(figure.dpi,) * 2)
