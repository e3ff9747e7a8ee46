"""review.html, the reading room: one page that asks no network, to look at scans, score them and save that as a CSV.

The page holds each view's MIP and heat map as bytes that its script unpacks when the scan is shown: SUV 0 to SUV_MOST
in LEVELS steps, fine where SUV is low, and the map in cells of STEP pixels, as a share of what pictures draw darkest.
"""
import base64
import hashlib
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import progress
from common.html import write_page
from common.manifest import SYNTHETIC, is_synthetic, view_name, views_of
from common.mips import BODY_SUV, heat_colours, pooled, read_image
from inference.overlays import SIDES

SUV_MOST, LEVELS = 20.0, 127
STEP = 4
TECHNICAL = {"scan_id", "filename", "target", "matrix_size_1", "matrix_size_2", "row", "view", "place", "models",
             "probs", "scan_probs", "sd", "n_models", "class", "code", "speaks_for", "sites", "map", "mask", "lesions",
             "known_mask", "known_lesions", "row0_mm", "column0_mm", "image_sha256", "id_key", "synthetic",
             "spacing_mm", "suv_type", "overlap"}


def write_review(rows: pd.DataFrame, images: str | Path, path: Path, scale: dict, source: str) -> None:
    """Write the page.

    Parameters
    ----------
    rows : DataFrame
        Of `heat_maps.describe`, their maps written.
    images : str or Path
        Folder of the MIPs.
    path : Path
        The page's.
    scale : dict
        suv_max, heat_max, as of `overlays.draw_panels`.
    source : str
        What made the maps.
    """
    columns = [name for name in rows if name not in TECHNICAL and not re.fullmatch(r"split\d+", name)
               and (rows[name].astype(str) != "").any()]
    scans, pictures = [], []
    with progress([scan for _, scan in rows.groupby("scan_id", sort=False)], "review.html", "scan") as bar:
        for scan in bar:
            views = []
            for view in views_of(scan):
                row = scan[scan["view"] == view].iloc[0]
                image = read_image(row, images)
                views.append({"name": view_name(view), "sides": SIDES.get(view, ("", "")), "prob": float(row["probs"]),
                              "rows": image.shape[0], "columns": image.shape[1], "picture": len(pictures)})
                pictures.append(packed(image, np.load(row["map"]) / scale["heat_max"]))
            first = scan.iloc[0]
            target, sd = (pd.to_numeric(first.get(name, ""), errors="coerce") for name in ("target", "sd"))
            scans.append({"id": first["scan_id"], "prob": float(first["scan_probs"]), "models": first["models"],
                          "sd": None if pd.isna(sd) else float(sd), "target": None if pd.isna(target) else int(target),
                          "sites": first["sites"], "views": views, "values": [str(first[name]) for name in columns]})
    ramp = np.round(255 * heat_colours(np.linspace(0, 1, 256))).astype(int)
    write_page(path, "review.html", pictures=pictures, notice=SYNTHETIC if is_synthetic(rows).any() else "", room={
        "cohort": hashlib.sha256("\n".join(sorted(set(rows["scan_id"]))).encode()).hexdigest()[:16],
        "columns": columns, "scans": scans, "ramp": ramp.tolist(), "step": STEP, "levels": LEVELS, "most": SUV_MOST,
        "body": BODY_SUV, "black": scale["suv_max"], "heat": scale["heat_max"], "source": source,
        "spacing": float(rows["spacing_mm"].iloc[0]) if "spacing_mm" in rows else None})


def packed(image: np.ndarray, share: np.ndarray) -> str:
    """A view's bytes, compressed, in base64: level by level the MIP, each row less the row above it, then the map.

    Parameters
    ----------
    image : (rows, columns) float32 array, SUV
        Level k is SUV_MOST * (k / LEVELS)^2.
    share : (rows, columns) float array
        The map, 0 to 1 (and above, drawn as 1); each cell holds its highest pixel, in 255 steps.
    """
    levels = np.round(np.sqrt(image.clip(0, SUV_MOST) / SUV_MOST) * LEVELS).astype(np.uint8)
    cells = pooled(share.clip(0, 1), STEP)
    below = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))  # modulo 256
    content = below.tobytes() + np.round(255 * cells).astype(np.uint8).tobytes()
    return base64.b64encode(zlib.compress(content, 9)).decode()
