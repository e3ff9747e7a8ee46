"""The one style of every figure: as wide as a journal's column or page, 7 pt text at that width, colours for all eyes.

Draw inside `matplotlib.rc_context(RC)`, on a `new_figure`, and write it with `write_figure`. The colours are those of
Okabe and Ito, with dashes and shades that stay apart in grey. Text in SVG and PDF stays text, to be edited.
"""
import io
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, Bbox

from common.files import replace_file

COLUMN, PAGE = 85 / 25.4, 174 / 25.4  # inches: width of a figure on one column, on two
TEXT = 7  # points, of every text
STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "linestyle": dashes, "linewidth": 1.3} for colour, dashes in (
        ("#0072B2", "-"), ("#E69F00", (0, (5, 1.5))), ("#009E73", (0, (1.5, 1))), ("#CC79A7", (0, (6, 1, 1, 1)))))
BLUE = STYLES[0]["color"]
MARKED = {"markeredgecolor": "black", "markeredgewidth": 0.7, "markersize": 4.5, "clip_on": False}
FAINT = {"color": "0.55", "linewidth": 0.7, "linestyle": ":"}  # chance and other lines to compare with
PLAIN_TEXT = {"text.parse_math": False}  # a $ in the name of a scan, a site or a subgroup is a $
RC: Any = {
    **PLAIN_TEXT, "font.sans-serif": "DejaVu Sans", "font.size": TEXT,
    **dict.fromkeys(("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize",
                     "legend.title_fontsize"), TEXT),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "axes.labelpad": 2.5, "axes.titlepad": 4, "lines.markersize": 3.5,
    "axes.spines.top": False, "axes.spines.right": False, "legend.framealpha": 0.9, "legend.borderpad": 0.3,
    "legend.labelspacing": 0.25, "legend.handlelength": 2.2, "legend.handletextpad": 0.5, "hatch.linewidth": 0.4,
    **dict.fromkeys(("figure.autolayout", "figure.constrained_layout.use"), False),  # as a matplotlibrc may
    "figure.constrained_layout.wspace": 0, "figure.constrained_layout.hspace": 0,
    "svg.hashsalt": "deauville", "svg.fonttype": "none", "pdf.fonttype": 42}
DRAWN_IN, SHOWN_IN = b"'DejaVu Sans'", b"Arial, Helvetica, 'DejaVu Sans'"  # in SVG: what journals ask for is narrower


def new_figure(width: float, height: float, grid: tuple[int, int] | None = None, **options: Any) -> tuple[Figure, Any]:
    """A figure and its axes.

    Parameters
    ----------
    width, height : float
        Inches; width is COLUMN or PAGE.
    grid : (rows, columns) or None
        None: one Axes; else an array of them.
    **options
        Of `Figure.subplots`.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(*(grid or (1, 1)), squeeze=False, **options)
    return figure, axes if grid else axes[0, 0]


def text_marker(text: str) -> Outline:
    """A marker that is this text: "$1$" would be drawn with its dollars (PLAIN_TEXT)."""
    path = TextPath((0, 0), text)
    return path.transformed(Affine2D().translate(*-path.get_extents().get_points().mean(axis=0)))


def unit_square(axes: Axes, x: str, y: str) -> None:
    """Both axes from 0 to 1, equally long, with their labels."""
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=x, ylabel=y)


def write_figure(folder: Path, name: str, figure: Figure, title: str, metrics: dict) -> list[Path]:
    """Write a figure as PNG, SVG and PDF, exactly as wide as it was made, and below it what no reader may miss.

    Parameters
    ----------
    title : str
        Goes into the files' metadata: a caption says it on paper.
    metrics : dict
        Its notice and optimistic, see `aggregation`.

    Returns
    -------
    list of Path
    """
    width, height = figure.get_size_inches()
    note = textwrap.wrap(" ".join(filter(None, (metrics["notice"], metrics["optimistic"]))), int(width * 17))
    if note:
        figure.text(0.5, -0.02 / height, "\n".join(note), ha="center", va="top", fontsize=TEXT)
    area = Bbox.from_extents(0, -len(note) * TEXT * 1.25 / 72 - 0.03 * bool(note), width, height)
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # laid out once, alike in every file; "none" would draw once more for each
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
        made = io.BytesIO()
        figure.savefig(made, format=suffix, dpi=600, metadata=metadata | {"Title": title}, bbox_inches=area)
        content = made.getvalue()
        paths.append(folder / f"{name}.{suffix}")
        with replace_file(paths[-1], "wb") as file:
            file.write(content.replace(DRAWN_IN, SHOWN_IN) if suffix == "svg" else content)
    return paths
