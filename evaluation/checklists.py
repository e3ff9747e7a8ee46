"""Reporting checklists beside a report, TRIPOD+AI and CLAIM 2024: what the run can say, and room for the author.

tripod_ai.csv and claim.csv hold the items: numbers as published, what they ask for in short words of our own.
"""
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import docx
import pandas as pd
from docx.enum.section import WD_ORIENT
from docx.opc.exceptions import OpcError
from docx.oxml import OxmlElement
from docx.shared import Mm, Pt

from common.files import InputError, read_csv, replace_file, write_csv
from evaluation.checklist_answers import answers

SOURCES = {  # the file's stem -> what it is, where it was published
    "tripod_ai": ("TRIPOD+AI", "Collins GS et al. BMJ 2024;385:e078378; D: asked of studies that develop a model, E: "
                  "that evaluate one"),
    "claim": ("CLAIM 2024", "Tejani AS et al. Radiology: Artificial Intelligence 2024;6(4):e240300")}
COLUMNS = {"item": ("Item", 11), "section": ("Section", 27), "applies": ("D, E", 12), "asks_for": ("Asks for", 72),
           "this_run": ("This run", 78), "page": ("Page", 15), "author": ("Author", 47)}  # heading and width, mm
BY_AUTHOR = ["item", "page", "author"]  # an item and what a later run keeps of it
HOW = ("Items in short words; the published list has them in full. Fill in the columns page and author: aggregate.py "
       "keeps them when it writes this file again.")


def write_checklists(folder: Path, metrics: dict, flow: dict, settings: list[dict]) -> list[dict]:
    """Write checklist_tripod_ai and checklist_claim, .csv and .docx, keeping what an author has filled into them.

    Parameters
    ----------
    folder : Path
    metrics, flow, settings
        As in `checklist_answers.answers`.

    Returns
    -------
    list of dict
        Of each checklist: name, source, files, items (how many), answered (to how many the run says something).

    Raises
    ------
    InputError
        A file of that name is there and is not such a checklist.
    """
    found, written = answers(metrics, flow, settings), []
    notices = [line for line in (metrics["optimistic"], metrics["notice"]) if line]
    for stem, (name, source) in SOURCES.items():
        table = read_csv(Path(__file__).with_name(f"{stem}.csv"))
        table["this_run"] = table.pop("answer").map(found).fillna("")
        for suffix, read in READERS.items():
            path = folder / f"checklist_{stem}{suffix}"
            filled = _filled(path, read)
            whole = table.merge(filled, "left", "item").fillna("")
            if suffix == ".csv":
                write_csv(whole, path)
            else:
                _write_docx(whole, path, name, [f"{source}.", HOW, *notices])
        written.append({"name": name, "source": source, "file": f"checklist_{stem}", "items": len(table),
                        "answered": int((table["this_run"] != "").sum())})
    return written


def remove_stale(folder: Path) -> None:
    """Remove, and say so, checklists of an earlier call; what an author has filled in is kept, and said."""
    for stem in SOURCES:
        for suffix, read in READERS.items():
            path = folder / f"checklist_{stem}{suffix}"
            if (_filled(path, read)[BY_AUTHOR[1:]] != "").any(axis=None):
                print(f"kept {path}: it belonged to earlier predictions, and is filled in")
            elif path.exists():
                path.unlink()
                print(f"removed {path}: it belonged to earlier predictions")


def _filled(path, read):
    """What an author has filled in: the columns BY_AUTHOR of a checklist, of a file that is not there without rows."""
    if not path.exists():
        return pd.DataFrame(columns=BY_AUTHOR)
    table = read(path)
    if missing := [name for name in BY_AUTHOR if name not in table]:
        raise InputError(f"{path}: has no column {', '.join(missing)}; aggregate.py keeps what is filled into its "
                         "checklists: put the column back, or move the file away")
    return table[BY_AUTHOR].drop_duplicates("item")


def _read_docx(path):
    """The first table of a document, as texts."""
    try:
        head, *rows = ([cell.text for cell in row.cells] for row in docx.Document(str(path)).tables[0].rows)
    except (OSError, ValueError, KeyError, IndexError, SyntaxError, OpcError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as a document with a checklist ({error}); move it away") from None
    names = {heading: name for name, (heading, _) in COLUMNS.items()}
    return pd.DataFrame(rows, columns=[names.get(text, text) for text in head])


def _write_docx(table: pd.DataFrame, path: Path, title: str, texts: Sequence[str]) -> None:
    """Write a document on A4 across: title, texts, table; the same bytes for the same content."""
    document = docx.Document()
    document.core_properties.title, document.core_properties.author = title, ""
    page = document.sections[0]
    page.orientation, page.page_width, page.page_height = WD_ORIENT.LANDSCAPE, Mm(297), Mm(210)
    page.left_margin = page.right_margin = page.top_margin = page.bottom_margin = Mm(15)
    document.styles["Normal"].font.size = Pt(8.5)
    document.add_heading(title, 1)
    for text in texts:
        document.add_paragraph(text)
    grid = document.add_table(1 + len(table), len(table.columns), style="Table Grid")
    grid.autofit = False
    for name, column in zip(table.columns, grid.columns, strict=True):
        column.width = Mm(COLUMNS[name][1])  # for LibreOffice; Word reads the cells'
    rows = [[COLUMNS[name][0] for name in table.columns], *table.itertuples(index=False)]
    for row, cells in zip(grid.rows, rows, strict=True):
        row._tr.get_or_add_trPr().append(OxmlElement("w:cantSplit"))
        for name, cell, text in zip(table.columns, row.cells, cells, strict=True):
            cell.width, cell.text = Mm(COLUMNS[name][1]), text
    grid.rows[0]._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))  # on every page
    for cell in grid.rows[0].cells:
        cell.paragraphs[0].runs[0].bold = True
    content = io.BytesIO()
    document.save(content)
    with replace_file(path, "wb") as file, zipfile.ZipFile(content) as dated, zipfile.ZipFile(file, "w") as undated:
        for part in dated.infolist():  # a zip archive holds the time of each part
            undated.writestr(zipfile.ZipInfo(part.filename), dated.read(part), zipfile.ZIP_DEFLATED)


READERS = {".csv": read_csv, ".docx": _read_docx}
