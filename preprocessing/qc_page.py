"""qc.html: one page with every study's MIPs, metadata and warnings. Opens offline: nothing is loaded from outside.

from preprocessing import qc_page
qc_page.write_qc(pandas.read_csv("mips/data.csv"), "mips", "mips/qc.html")

It names scans as data.csv does. Of errors.csv it shows neither folders nor values, which may name patients.
"""
import base64
import functools
import math
import re
import struct
import zlib
from html import escape
from pathlib import Path

import numpy as np

from common.files import InputError, progress, read_csv, replace_file
from common.text import ranges

SUV_WHITE, SUV_BLACK = 0.0, 7.0  # inverted grey, as PET is read
LEVELS = 64  # of grey: fewer bytes than 256, and no band to be seen
FULL_SIDE, SMALL_SIDE = 310, 64  # pixels of a thumbnail's longer side, at most and at least
FULL_STUDIES = 100  # up to so many have thumbnails of FULL_SIDE; more of them smaller ones, in as many bytes together
PIXELS_PER_MM = 0.25  # on the page: all patients at one scale
VIEWS = {"cor": "coronal", "sag": "sagittal"}  # further ones are shown beside them at half the size
# header, whether it sorts as a number
COLUMNS = [("Scan", False), ("Target", True), ("SUV max (g/ml)", True), ("Uptake (min)", True), ("Units", False),
           ("Scanner", False), ("Spacing (mm)", True), ("Matrix (rows × columns)", True), ("Warnings", False)]


def write_qc(manifest_table, folder, path, run=lambda function, items, chunk: map(function, items)):
    """Write the page.

    Args:
        manifest_table (DataFrame): data.csv, a row per view: scan_id, filename, view, matrix_size_1, matrix_size_2,
            spacing_mm and, where there, target, suv_max, uptake_min, units, scanner, warnings (separated by "; "). As
            numbers or as text.
        folder (str | Path): what `filename` is relative to; its errors.csv, where there, gives the refused studies.
        path (str | Path): the page, written whole or not at all; the same bytes for the same input.
        run: run(function, items, chunk) -> results in order; a pool of processes, say.

    Raises:
        InputError: an image that is missing or does not have the size that the manifest says.
    """
    folder = Path(folder)
    studies = [(str(scan), rows.to_dict("records")) for scan, rows in manifest_table.groupby("scan_id", sort=False)]
    errors = folder / "errors.csv"
    refused = read_csv(errors, ("attribute", "reason", "remedy")).to_dict("records") if errors.exists() else []
    columns = [column for column in COLUMNS if column[0] != "Target" or "target" in manifest_table]
    show = functools.partial(thumbnails, folder=folder, side=thumbnail_side(len(manifest_table) / len(VIEWS)))
    turned = "" if set(manifest_table["view"]) <= set(VIEWS) else (
        " Below them at half the size the further projections; a tooltip gives the angle.")
    warned = sum(bool(_text(rows[0].get("warnings"))) for _, rows in studies)
    with replace_file(path) as file, progress(run(show, studies, 1), "qc.html", "study", len(studies)) as bar:
        file.write(HEAD)
        file.write(f"<h1>PET quality control</h1>\n<p>{_count(len(studies))}; <b>{warned}</b> with warnings, "
                   f"<a href='#refused'><b>{len(refused)}</b> refused</a>. Coronal and sagittal maximum intensity "
                   f"projections, SUV {SUV_WHITE:g} (white) to {SUV_BLACK:g} (black); the patient's right, and the "
                   f"front, on the left.{turned}</p>\n")
        file.write("<table id='studies'>\n<thead><tr><th>MIPs</th>" + "".join(
            f"<th data-number='{int(number)}'><button>{escape(name)}</button></th>" for name, number in columns
        ) + "</tr></thead>\n<tbody>\n")
        for (scan, rows), images in zip(studies, bar, strict=True):
            file.write(study_row(scan, rows, images, [name for name, _ in columns]))
        file.write("</tbody>\n</table>\n" + refused_list(refused) + SCRIPT)


def study_row(scan, rows, images, columns):
    """One table row: the images (HTML), then a cell for each of `columns`. `rows`: the manifest's rows of the scan."""
    first, warnings = rows[0], _text(rows[0].get("warnings"))
    sizes = [(int(row["matrix_size_1"]), int(row["matrix_size_2"])) for row in rows if row["view"] in VIEWS]
    cells = {  # what is shown (HTML), what it sorts by
        "Scan": (f"<code>{escape(scan)}</code>", scan),
        "Warnings": (";<br>".join(map(escape, warnings.split("; "))) or "none", warnings),
        "Matrix (rows × columns)": ("<br>".join(f"{r} × {c}" for r, c in sizes), max(sizes, default=("",))[0]),
    }
    for name, column, digits in (("Target", "target", 0), ("SUV max (g/ml)", "suv_max", 2), ("Units", "units", None),
                                 ("Uptake (min)", "uptake_min", 0), ("Scanner", "scanner", None),
                                 ("Spacing (mm)", "spacing_mm", 2)):
        text = _text(first.get(column))
        shown = f"{float(text):.{digits}f}" if text and digits is not None else text
        cells[name] = escape(shown), text
    shown = "".join(f"<td data-name='{escape(name)}' data-sort='{escape(str(cells[name][1]))}'>{cells[name][0]}</td>"
                    for name in columns)
    return f"<tr{' class=warned' if warnings else ''}><td class='mips'>{images}</td>{shown}</tr>\n"


def thumbnails(study, folder, side):
    """The images of a study (scan, its rows of the manifest): coronal, sagittal, and the further ones below them."""
    scan, rows = study
    views = {row["view"]: row for row in rows}
    both = [thumbnail(views[view], folder, side, f"{name}, {scan}") if view in views else
            f"<span class='absent'>no {name} view</span>" for view, name in VIEWS.items()]
    others = [thumbnail(row, folder, math.ceil(side / 2), f"{view_name(view)}, {scan}", PIXELS_PER_MM / 2)
              for view, row in views.items() if view not in VIEWS]
    return "".join(both) + (f"<div class='others'>{''.join(others)}</div>" if others else "")


def view_name(view):
    """rot030 -> 30 degrees; another view's own name."""
    return f"{int(view[3:])} degrees" if re.fullmatch(r"rot\d{3}", view) else VIEWS.get(view, view)


def thumbnail(row, folder, side, name, pixels_per_mm=PIXELS_PER_MM):
    """An <img> of one MIP, embedded. Pooled by maximum, so that a small hot spot stays; at a fixed scale in mm."""
    path, shape = folder / str(row["filename"]), (int(row["matrix_size_1"]), int(row["matrix_size_2"]))
    try:
        image = np.load(path) if path.suffix == ".npy" else np.fromfile(path, "<f4")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}; make the MIPs again") from error
    if image.size != math.prod(shape):
        raise InputError(f"{path}: {image.size} pixels, the manifest says {shape[0]} x {shape[1]}; make the MIPs again")
    step = math.ceil(max(shape) / side)
    image = np.pad(image.reshape(shape), [(0, -size % step) for size in shape])
    image = image.reshape(image.shape[0] // step, step, -1, step).max(axis=(1, 3))
    grey = np.clip((image - SUV_WHITE) / (SUV_BLACK - SUV_WHITE), 0, 1) * (LEVELS - 1)
    grey = 255 - np.round(grey).astype(np.uint8).astype(np.uint16) * 255 // (LEVELS - 1)
    data = base64.b64encode(png(grey.astype(np.uint8))).decode()
    scale = float(_text(row.get("spacing_mm")) or 3.27) * step * pixels_per_mm
    height, width = (round(size * scale) for size in grey.shape)
    return (f"<img alt='{escape(name)}' title='{escape(name.split(',')[0])}' "
            f"width='{width}' height='{height}' src='data:image/png;base64,{data}'>")


def thumbnail_side(n_studies):
    """Pixels of the longer side, so that the bytes of all thumbnails stay about the same above FULL_STUDIES."""
    return int(np.clip(FULL_SIDE * math.sqrt(FULL_STUDIES / max(n_studies, 1)), SMALL_SIDE, FULL_SIDE))


def png(grey):
    """A PNG file (ISO/IEC 15948) of an image (rows, columns) uint8; one IDAT, no filter."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows, columns = grey.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)  # 8 bits of grey
    lines = np.pad(grey, ((0, 0), (1, 0))).tobytes()  # each row begins with its filter: 0, none
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 6)) + chunk(b"IEND", b"")


def refused_list(rows):
    """The refusals, equal ones together: lines of errors.csv, attribute, reason, remedy.

    Not the folder and the value: they may identify a patient.
    """
    if not rows:
        return "<h2 id='refused'>Refused</h2>\n<p>Nothing was refused.</p>\n"
    lines: dict[tuple, list[int]] = {}
    for line, row in enumerate(rows, start=2):
        lines.setdefault((row["attribute"], _without_paths(row), row["remedy"]), []).append(line)
    names = ("Lines", "Attribute", "Reason", "Remedy")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td data-name='{name}'>{escape(text)}</td>" for name, text in zip(
        names, (ranges(numbers), *refusal), strict=True)) + "</tr>\n" for refusal, numbers in lines.items())
    return (f"<h2 id='refused'>Refused: {len(rows)}</h2>\n<p>These studies and files give no SUV that can be trusted, "
            "so no image. Their folders and values are in errors.csv, at the lines given here.</p>\n"
            f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n")


def _without_paths(row):
    """The reason of a refusal without file names, which messages of the operating system hold."""
    if row["attribute"] == "file":
        return re.split("[:(]", row["reason"])[0].strip()
    return re.sub(r"\S*[/\\]\S*", "...", row["reason"])


def _text(value):
    """A cell of the manifest as text; "" where it is empty."""
    return "" if value is None or value != value else str(value)


def _count(studies):
    return f"<b>{studies}</b> {'study' if studies == 1 else 'studies'}"


HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>PET quality control</title>
<style>
:root { color-scheme: light dark; --line: #8886; --mark: #a34a00; }
@media (prefers-color-scheme: dark) { :root { --mark: #ffb066; } }
body { font: 15px/1.4 system-ui, sans-serif; margin: 1rem; background: Canvas; color: CanvasText; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; }
th, td { padding: .4rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
#studies thead { position: sticky; top: 0; background: Canvas; z-index: 1; }
button { font: inherit; font-weight: bold; padding: .1rem 0; border: 0; background: none; color: inherit;
 text-align: left; cursor: pointer; text-decoration: underline dotted; }
[aria-sort=ascending] button::after { content: " \\2191"; } [aria-sort=descending] button::after { content: " \\2193"; }
code { display: inline-block; min-width: 8rem; font-size: .85em; overflow-wrap: anywhere; }
.mips { white-space: nowrap; }
.others { white-space: normal; max-width: 27rem; margin-top: 4px; }
.others img { max-width: 23%; height: auto; }
.mips img { background: white; margin-right: 4px; vertical-align: top; }
.absent { display: inline-block; padding: 2rem .5rem; opacity: .7; }
.warned { box-shadow: inset 4px 0 var(--mark); }
.warned td:last-child { max-width: 30rem; color: var(--mark); }
@media (max-width: 900px) {
 table, tbody, thead, tr { display: block; }
 td:not(:empty) { display: flex; gap: .6rem; border: 0; padding: .15rem .6rem; }
 td:empty { display: none; }
 td[data-name]::before { content: attr(data-name); flex: 0 0 7.5rem; opacity: .7; }
 tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
 thead tr { display: flex; flex-wrap: wrap; } thead th { border: 0; padding: .2rem .6rem; font-size: .9rem; }
 #studies thead { position: static; } #studies thead::before { content: "Sort by"; margin-left: .6rem; opacity: .7; }
 table:not(#studies) thead, #studies th:first-child { display: none; }
 .mips { flex-wrap: wrap; }
 .mips img { height: auto; max-width: 47%; }
 .others { flex: 0 0 100%; }
}
</style>
</head>
<body>
"""

SCRIPT = """<script>
// A click sorts by the column, the next one the other way; numbers begin with the largest; empty cells stay last.
for (const button of document.querySelectorAll("#studies th button")) button.onclick = () => {
  const th = button.parentElement, number = th.dataset.number == "1", body = document.querySelector("#studies tbody");
  const was = th.getAttribute("aria-sort") ?? (number ? "ascending" : "descending");
  const up = was == "descending", key = row => row.children[th.cellIndex].dataset.sort;
  const order = (a, b) => number ? a - b : a.localeCompare(b);
  const rows = [...body.rows].sort((a, b) =>
    (key(a) == "") - (key(b) == "") || (up ? 1 : -1) * order(key(a), key(b)));
  for (const other of th.parentElement.children) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
};
</script>
</body>
</html>
"""
