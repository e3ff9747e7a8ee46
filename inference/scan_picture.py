"""A scan's picture for score.py: each view's MIP, and beside it the same with the networks' mean heat map."""
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from common import acquisition
from common.manifest import VIEWS
from common.mips import read_image
from inference import gradcam
from inference.overlays import BAR_MM, HEAT, SIDES, VIEW_NAMES
from inference.pointing_game import peak
from inference.prediction import Model
from inference.scoring import Scan, Scores

METHOD, LAYER = "hirescam", "layer1"  # of explain.py's defaults
SUV_BLACK = 7
FAINT = 0.05  # heat that is drawn darkest at least, so that a network without any looks empty
DPI, HEIGHT = 150, 4.5  # inches
BLUE = "#0072B2"


def draw(scan: Scan, scores: Scores, models: Sequence[Model], folder: Path) -> bytes:
    """The picture as a PNG; `folder`: of the MIPs."""
    rows = scan.rows[scan.rows["view"].isin(VIEWS)].sort_values("view")
    images = [read_image(row, folder) for row in rows.itertuples()]
    maps = mean_maps(models, rows["place"].to_numpy(), images, list(rows["filename"]))
    highest, spacing = max(FAINT, *(heat.max() for heat in maps)), models[0].batches.network_input.spacing_mm
    widths = [image.shape[1] for image in images for _ in range(2)]
    figure = Figure((HEIGHT * sum(widths) / max(map(len, images)) + 1.9, HEIGHT + 1.1), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    for (plain, overlaid), row, image, heat in zip(axes.reshape(-1, 2), rows.itertuples(), images, maps, strict=True):
        for place, title in ((plain, VIEW_NAMES[row.view]), (overlaid, f"highest: {heat.max():.2g}")):
            _show(place, image, row.view, title)
        overlaid.imshow(heat / highest, cmap=HEAT, vmin=0, vmax=1, interpolation="none")
        line, across, _ = peak(heat)
        if line is not None:
            overlaid.plot(across, line, "+", color=BLUE, markersize=11, markeredgewidth=1.6, clip_on=False)
        if scan.liver_mm:
            place, radius = liver_mark(row, scan.liver_mm)
            plain.add_patch(Circle(place, radius, fill=False, color=BLUE, linewidth=1))
    if spacing:
        _scale_bar(axes[0], len(images[0]), spacing)
    for cmap, most, label in (("gray_r", SUV_BLACK, f"SUV (g/ml), {SUV_BLACK} and above black"),
                              (HEAT, highest, "speaks for DS 4–5 (units of the score);\nthis scan's own scale")):
        bar = figure.colorbar(ScalarMappable(Normalize(0, most), cmap), ax=axes, shrink=0.7, pad=0.01, aspect=25)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=8)
    title = f"scan {scan.scan_id}; probability of DS 4–5: {scan.probability:.3f}, mean of {len(models)} networks"
    lines = [title, *scores.notices, "For research use only. Right and left are the patient's"]
    figure.suptitle("\n".join(lines), fontsize=8, x=0.02, ha="left")
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def mean_maps(models: Sequence[Model], places: np.ndarray, images: Sequence[np.ndarray], names: Sequence[str]
              ) -> list[np.ndarray]:
    """The means over the models of the heat maps of some images, on the MIPs' pixels.

    Parameters
    ----------
    places : (n,) int array
        Which of the models' images; each is given to the models that have it.
    images : n arrays (rows, columns) float32, SUV
        The MIPs; `names`: their files.
    """
    sums, counts = [np.zeros(image.shape, "float32") for image in images], np.zeros(len(places), int)
    for model in models:
        own = np.flatnonzero(np.isin(places, model.index))
        cells = gradcam.heat_maps(model.network, model.batches, places[own], np.full(len(own), gradcam.BINARY), METHOD,
                                  LAYER, model.amp)
        for k, cell in zip(own, cells, strict=True):
            sums[k] += gradcam.to_mip(cell, LAYER, images[k], names[k], model.batches.network_input)
        counts[own] += 1
    return [total / count for total, count in zip(sums, counts, strict=True)]


def liver_mark(row: Any, place: Sequence[float]) -> tuple[tuple[float, float], float]:
    """(column, line) and radius in pixels of the liver's sphere at (z, y, x) mm, on a view of the manifest."""
    z, y, x = place
    across = (x if row.view == "cor" else y) - float(row.column0_mm)
    return (across / row.spacing_mm, (float(row.row0_mm) - z) / row.spacing_mm), acquisition.LIVER_SPHERE_MM / (
        2 * row.spacing_mm)


def _show(axes, image, view, title):
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=SUV_BLACK, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")
    axes.set_title(title, fontsize=9)
    for x, side in zip((0.02, 0.98), SIDES[view], strict=True):
        axes.text(x, 0.99, side, transform=axes.transAxes, ha="left" if x < 0.5 else "right", va="top", fontsize=8)


def _scale_bar(axes, rows, spacing):
    axes.plot((6, 6 + BAR_MM / spacing), (rows - 6, rows - 6), color="black", linewidth=2, solid_capstyle="butt")
    axes.text(6 + BAR_MM / spacing / 2, rows - 9, f"{BAR_MM / 10:g} cm", ha="center", va="bottom", fontsize=8)
