"""Heat maps on MIPs, as pictures: a panel per scan, contact sheets per cohort (PNG).

The MIP is grey, inverted, in SUV; the heat map lies over it, from clear to dark red, as a share of the highest value of
the scan's views; a cross marks each view's peak.
"""
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from common.files import replace_file
from inference.pointing_game import peak

CLEAR = 0.08  # share of the maximum below which the heat map does not show
HEAT = LinearSegmentedColormap.from_list("heat", [(0, (1, 0.8, 0.2, 0)), (CLEAR, (1, 0.8, 0.2, 0.1)),
                                                  (0.5, (1, 0.45, 0, 0.5)), (1, (0.75, 0, 0.1, 0.75))])
VIEW_NAMES = {"cor": "coronal", "sag": "sagittal"}
SIDES = {"cor": ("R", "L"), "sag": ("front", "back")}  # left and right edge of the image
BAR_MM = 100.0  # the scale bar
PER_SHEET, SHEET_COLUMNS = 24, 6  # scans of a contact sheet's page, and of one of its lines
DPI = 130


def view_name(view):
    return VIEW_NAMES.get(view) or f"{int(view[3:])}°"


def draw_panel(path, images, heats, title, heat_label, suv_max, spacing=None):
    """One scan: its views side by side, two colour bars.

    Args:
        path (Path): the PNG, written whole or not at all.
        images, heats (dict): view -> (rows, columns) float32: SUV; heat map.
        title (str): one line or several.
        heat_label (str): what the heat map says.
        suv_max (float): the SUV that is black.
        spacing (float | None): mm per pixel.
    """
    highest, rows = max(heat.max() for heat in heats.values()), max(image.shape[0] for image in images.values())
    widths = [image.shape[1] for image in images.values()]
    height = 6.0
    figure = Figure((height * sum(widths) / rows + 1.9, height + 1.3), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(images), width_ratios=widths, squeeze=False)[0]
    for place, (view, image) in zip(axes, images.items(), strict=True):
        show(place, image, heats[view], highest, suv_max)
        place.set_title(view_name(view), fontsize=9)
        for x, side in zip((0.02, 0.98), SIDES.get(view, ("", "")), strict=True):
            place.text(x, 0.99, side, transform=place.transAxes, ha="left" if x < 0.5 else "right", va="top",
                       fontsize=8)
        row, column, _ = peak(heats[view])
        if row is not None:
            place.plot(column, row, "+", color="#0072B2", markersize=11, markeredgewidth=1.6)
    if spacing:
        scale_bar(axes[0], next(iter(images.values())).shape, spacing)
    colour_bars(figure, axes, suv_max, heat_label)
    figure.suptitle(title, fontsize=8, x=0.02, ha="left")
    save(figure, path)


def draw_sheet(path, scans, title, suv_max, heat_label):
    """A page of scans: [(caption, images, heats), ...], at most PER_SHEET; all at one scale."""
    gap = 4
    pictures = []
    for caption, images, heats in scans:
        highest = max(heat.max() for heat in heats.values())
        rows = max(image.shape[0] for image in images.values())

        def beside(parts, rows=rows):
            parts = [np.pad(part, ((0, rows - part.shape[0]), (0, gap))) for part in parts.values()]
            return np.concatenate(parts, 1)[:, :-gap]

        pictures.append((caption, beside(images), beside(heats), highest))
    sides = np.max([image.shape for _, image, _, _ in pictures], axis=0)
    lines = -(-len(pictures) // SHEET_COLUMNS)
    figure = Figure((SHEET_COLUMNS * 2.05 + 1.7, lines * (2.0 * sides[0] / sides[1] + 0.4) + 0.4),
                    layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, SHEET_COLUMNS, squeeze=False)
    for place in axes.flat[len(pictures):]:
        place.set_axis_off()
    for place, (caption, image, heat, highest) in zip(axes.flat, pictures, strict=False):
        room = np.subtract(sides, image.shape)
        padding = ((0, room[0]), (room[1] // 2, room[1] - room[1] // 2))
        show(place, np.pad(image, padding), np.pad(heat, padding), highest, suv_max)
        place.set_title(caption, fontsize=6.5)
    colour_bars(figure, axes, suv_max, heat_label, shrink=min(1, 1.6 / lines))
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    save(figure, path)


def show(axes, image, heat, highest, suv_max):
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=suv_max, interpolation="nearest")
    if highest > 0:
        axes.imshow(heat / highest, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("0.8")


def scale_bar(axes, shape, spacing):
    length, row = BAR_MM / spacing, shape[0] - 6
    axes.plot((6, 6 + length), (row, row), color="black", linewidth=2, solid_capstyle="butt")
    axes.text(6 + length / 2, row - 3, f"{BAR_MM / 10:g} cm", ha="center", va="bottom", fontsize=8)


def colour_bars(figure, axes, suv_max, heat_label, shrink=0.7):
    for cmap, highest, label in (("gray_r", suv_max, f"SUV (g/ml), {suv_max:g} and above black"),
                                 (HEAT, 1, heat_label)):
        bar = figure.colorbar(ScalarMappable(Normalize(0, highest), cmap), ax=axes, shrink=shrink, pad=0.01, aspect=25)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=8)


def save(figure, path):
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
