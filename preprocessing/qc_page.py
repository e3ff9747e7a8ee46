"""qc.html: a contact sheet of every study's MIPs, with metadata and warnings. Opens offline: nothing is loaded.

from preprocessing import qc_page
qc_page.write_qc(pandas.read_csv("mips/data.csv"), "mips", "mips/qc.html")

It names scans as data.csv does. Of errors.csv it shows neither folders nor values, which may name patients.
"""
import base64
import functools
import io
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from common.acquisition import UPTAKE_MIN, inside, number
from common.files import progress, read_csv
from common.html import write_page
from common.manifest import VIEW_NAMES, view_name
from common.mips import pooled, read_image
from common.text import ranges
from common.workers import Run, run_here

SUV_WHITE, SUV_BLACK = 0.0, 7.0  # inverted grey, as PET is read
LEVELS = 64  # of grey: fewer bytes than 256, and no band to be seen
FULL_SIDE, SMALL_SIDE = 310, 64  # pixels of a thumbnail's longer side, at most and at least
LOSSLESS_STUDIES, FULL_STUDIES = 100, 1000  # up to so many: exact; of FULL_SIDE. More are smaller, in as many bytes
QUALITY = 60  # of the WebP that are not exact: 5 kB instead of 19
PIXELS_PER_MM = 0.25  # on the page: the views of a card at one scale
SIDES = {"cor": ("R", "L"), "sag": ("A", "P")}  # left and right edge of the image: right, left; anterior, posterior
COLUMNS = (  # header, the manifest's column, digits after the point of a number or None for a text
    ("Scan", "scan_id", None), ("Target", "target", 0), ("SUV max", "suv_max", 2),
    ("Body mean SUV", "recorded_body", 2), ("Liver SUV", "recorded_liver", 2), ("Uptake (min)", "uptake_min", 0),
    ("Dose (MBq)", "recorded_MBq", 0), ("Weight (kg)", "recorded_kg", 1), ("MBq/kg", "MBq_per_kg", 1),
    ("Units", "units", None), ("Scanner", "scanner", None), ("Spacing (mm)", "spacing_mm", 2),
    ("Matrix", None, 0), ("Warnings", "warnings", None))


def write_qc(manifest_table: Any, folder: str | Path, path: str | Path, run: Run = run_here) -> None:
    """Write the page.

    Parameters
    ----------
    manifest_table : DataFrame
        data.csv, a row per view: scan_id, filename, view, matrix_size_1, matrix_size_2, spacing_mm and, where there,
        target, suv_max, uptake_min, recorded_body, recorded_MBq, recorded_kg, recorded_liver, units, scanner,
        warnings (separated by "; "). As numbers or as text.
    folder : str or Path
        What `filename` is relative to; its errors.csv, where there, gives the refused studies.
    path : str or Path
        The page, written whole or not at all; the same bytes for the same input.
    run : Run
        Of `common.workers.processes`.

    Raises
    ------
    InputError
        An image that is missing or does not have the size that the manifest says.
    """
    folder = Path(folder)
    errors = folder / "errors.csv"
    refused = read_csv(errors, ("attribute", "reason", "remedy")).to_dict("records") if errors.exists() else []
    columns = [column for column in COLUMNS if column[1] in (None, "MBq_per_kg", *manifest_table)]
    if not {"recorded_MBq", "recorded_kg"} <= set(manifest_table):
        columns = [column for column in columns if column[1] != "MBq_per_kg"]
    studies = [(str(scan), rows.to_dict("records")) for scan, rows in manifest_table.groupby("scan_id", sort=False)]
    kinds = set(map(_text, manifest_table.get("suv_type", ()))) - {"", "bw"}
    n_alike = len(manifest_table) / len(VIEW_NAMES)
    show = functools.partial(study_of, folder=folder, columns=columns, side=thumbnail_side(n_alike),
                             exact=n_alike <= LOSSLESS_STUDIES)
    with progress(run(show, studies, 1), "qc.html", "study", len(studies)) as bar:
        shown = list(bar)
    write_page(path, "qc.html", studies=shown, warned=sum(bool(study["warnings"]) for study in shown),
               off=sum(study["off"] for study in shown), n_refused=len(refused), refusals=refusals(refused),
               columns=[(name, digits is not None) for name, _, digits in columns],
               targets="target" in manifest_table, turned=not set(manifest_table["view"]) <= set(VIEW_NAMES),
               suv_type=", ".join(sorted(kinds)), white=f"{SUV_WHITE:g}", black=f"{SUV_BLACK:g}",
               uptake=f"{UPTAKE_MIN[0]}–{UPTAKE_MIN[1]}")


def study_of(study: tuple[str, list], folder: Path, columns: list, side: int, exact: bool = True) -> dict[str, Any]:
    """What the page shows of a study (scan, its rows of the manifest): warnings, whether its uptake time is `off`,
    `both` views, `others`, `cells`.

    A cell is (header, (lines of text, what it sorts by)).
    """
    scan, rows = study
    views, first = {row["view"]: row for row in rows}, rows[0] | {"MBq_per_kg": _ratio(rows[0])}
    sizes = [(int(row["matrix_size_1"]), int(row["matrix_size_2"])) for row in rows if row["view"] in VIEW_NAMES]
    cells, warnings = [], _text(first.get("warnings"))
    for name, column, digits in columns:
        text = _text(first.get(column))
        lines, key = [f"{float(text):.{digits}f}" if text and digits is not None else text], text
        if column is None:
            lines, key = list(dict.fromkeys(f"{r} × {c}" for r, c in sizes)), max(sizes, default=("",))[0]
        elif name == "Warnings":
            lines = [f"{line};" for line in text.split("; ")[:-1]] + [text.split("; ")[-1] or "none"]
        cells.append((name, (lines, key)))
    off = inside(number(first, "uptake_min"), UPTAKE_MIN, 0) is False
    both = [(name, thumbnail(views[view], folder, side, f"{name}, {scan}", exact=exact) if view in views else None)
            for view, name in VIEW_NAMES.items()]
    # further views are shown beside them at half the size
    others = [thumbnail(row, folder, math.ceil(side / 2), f"{view_name(view)}, {scan}", PIXELS_PER_MM / 2, exact)
              for view, row in views.items() if view not in VIEW_NAMES]
    return {"scan": scan, "warnings": warnings, "off": off, "both": both, "others": others, "cells": cells}


def _ratio(row: dict) -> str:
    """MBq per kg; "" where dose or weight is not known."""
    dose, weight = (_text(row.get(name)) for name in ("recorded_MBq", "recorded_kg"))
    return str(round(float(dose) / float(weight), 2)) if dose and weight and float(weight) > 0 else ""


def thumbnail(row: dict, folder: Path, side: int, name: str, pixels_per_mm: float = PIXELS_PER_MM, exact: bool = True
              ) -> dict[str, Any]:
    """One MIP as an image in base64, with its size on the page, at a fixed scale in mm.

    Pooled by maximum, so that a small hot spot stays; at most `side` pixels along the longer side. `exact`: PNG, else
    WebP with a loss.
    """
    shape = (int(row["matrix_size_1"]), int(row["matrix_size_2"]))
    sizes = SimpleNamespace(matrix_size_1=shape[0], matrix_size_2=shape[1], row=row["scan_id"])
    step = math.ceil(max(shape) / side)
    # whatever its values: the page is to show them
    image = pooled(read_image(sizes, folder, str(row["filename"])), step)
    level = np.round(np.clip((image - SUV_WHITE) / (SUV_BLACK - SUV_WHITE), 0, 1) * (LEVELS - 1)).astype(np.uint16)
    grey = (255 - level * 255 // (LEVELS - 1)).astype(np.uint8)
    file, kind = io.BytesIO(), "png" if exact else "webp"
    Image.fromarray(grey).save(file, kind.upper(), **({} if exact else {"quality": QUALITY}))
    scale = float(_text(row.get("spacing_mm")) or 3.27) * step * pixels_per_mm
    height, width = (round(size * scale) for size in grey.shape)
    return {"name": name, "title": name.split(",")[0], "sides": SIDES.get(str(row["view"]), ("", "")), "width": width,
            "height": height, "data": f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"}


def thumbnail_side(n_studies: float) -> int:
    """Pixels of the longer side, so that the bytes of all thumbnails stay about the same above FULL_STUDIES."""
    return int(np.clip(FULL_SIDE * math.sqrt(FULL_STUDIES / max(n_studies, 1)), SMALL_SIDE, FULL_SIDE))


def refusals(rows: list[dict]) -> list[tuple[str, ...]]:
    """The refusals, equal ones together: lines of errors.csv, attribute, reason, remedy.

    Not the folder and the value: they may identify a patient.
    """
    lines: dict[tuple, list[int]] = {}
    for line, row in enumerate(rows, start=2):
        lines.setdefault((row["attribute"], without_names(row), row["remedy"]), []).append(line)
    return [(ranges(numbers), *refusal) for refusal, numbers in lines.items()]


def without_names(row: dict) -> str:
    """The reason of a refusal without names of files, which messages of the operating system and of libraries hold."""
    if row["attribute"] in ("file", "archive"):
        return re.split("[:(]", row["reason"])[0].strip()
    return re.sub(r"\S*[/\\]\S*", "...", row["reason"])


def _text(value):
    """A cell of the manifest as text; "" where it is empty."""
    return "" if value is None or value != value else str(value)
