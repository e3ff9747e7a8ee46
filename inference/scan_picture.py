"""A scan's picture for score.py: each view's MIP, and beside it the same with the networks' mean heat map.

The views are coronal and sagittal; of networks that take neither, the first two of theirs.
"""
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.acquisition import LIVER_SPHERE_MM
from common.manifest import VIEWS, views_of
from common.mips import read_image
from common.text import counted
from inference import gradcam, heat_maps, overlays
from inference.prediction import Model
from inference.scoring import Scan, Scores

METHOD, LAYER = "hirescam", "layer1"  # of explain.py's defaults
SUV_BLACK = 7
DPI = 150


def draw(scan: Scan, scores: Scores, models: Sequence[Model], folder: Path) -> bytes:
    """The picture as a PNG; `folder`: of the MIPs."""
    views = views_of(scan.rows)
    views = [view for view in views if view in VIEWS] or views[:2]
    rows = scan.rows[scan.rows["view"].isin(views)].sort_values("view")
    images = {row.view: read_image(row, folder) for row in rows.itertuples()}
    maps = heat_maps.mean_maps(models, rows["place"].to_numpy(), np.full(len(rows), gradcam.BINARY),
                               list(images.values()), list(rows["filename"]), METHOD, LAYER)
    known = scores.reference.get("scores") or {"negative": [], "positive": []}  # do the networks' scores differ at all?
    probs = [scan.probability, *known["negative"], *known["positive"]]
    darkest = heat_maps.darkest([max(heat.max() for heat in maps)] * len(probs), probs)
    scale = {"suv_max": SUV_BLACK, "heat_max": darkest, "of": "a scale of this scan's own"}
    lines = [f"scan {scan.scan_id}; probability of DS 4–5: {scan.probability:.3f}, {counted(len(models), 'network')}",
             *scores.notices, "For research use only. Right and left are the patient's"]
    marks = {row.view: liver_mark(row, scan.liver_mm) for row in rows.itertuples()} if scan.liver_mm else {}
    figure = overlays.panel_figure(images, dict(zip(images, maps, strict=True)), scale,
                                   models[0].batches.network_input.spacing_mm, "DS 4–5", "\n".join(lines), marks)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return png.getvalue()


def liver_mark(row: Any, place: Sequence[float]) -> tuple[float, float, float]:
    """(line, column, radius) in pixels of the liver's sphere at (z, y, x) mm, on a view of the manifest."""
    z, y, x = place
    across = (x if row.view == "cor" else y) - float(row.column0_mm)
    return (float(row.row0_mm) - z) / row.spacing_mm, across / row.spacing_mm, LIVER_SPHERE_MM / 2 / row.spacing_mm
