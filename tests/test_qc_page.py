"""qc.html: the page of MIPs, metadata and warnings that prepro_script.py writes."""
import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from browser_helpers import Browser, needs_chromium
from conftest import call, write_cohort
from pet import write_series
from PIL import Image

import prepro_script
from common.files import InputError
from preprocessing import qc_page

NASTY = "<script>alert('x')</script> & \"Doe\""


class Page(HTMLParser):
    """The page's tags as (name, attributes), its text, and what makes a browser load something."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.source = [], [], path.read_text()
        self.feed(self.source)
        self.names = [name for name, _ in self.tags]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def images(self):
        """(alternative text, pixels 0..255) of each image, decoded."""
        found = [attrs for tag, attrs in self.tags if tag == "img"]
        files = (io.BytesIO(base64.b64decode(attrs["src"].split(",")[1])) for attrs in found)
        grey = [np.asarray(Image.open(file).convert("L"), int) for file in files]
        return [(attrs["alt"], image) for attrs, image in zip(found, grey, strict=True)]

    def sort_values(self, column):
        return [attrs["data-sort"] for tag, attrs in self.tags if attrs.get("data-name") == column]


@pytest.fixture
def mips(tmp_path):
    """A folder of four scans' MIPs, and their manifest."""
    table = write_cohort(tmp_path, n_scans=4)
    view = table["filename"].str.extract("(cor|sag)")[0]
    warnings = ["", ""] * 2 + ["dose in MBq; no date"] * 2 + ["no date"] * 2
    return tmp_path, table.assign(view=view, suv_max=[1.25, 1.25, 10, 10, 9, 9, 3, 3], uptake_min=61.4, units="BQML",
                                  scanner="ACME", warnings=warnings)


def written(mips, table=None, name="qc.html"):
    folder, whole = mips
    qc_page.write_qc(whole if table is None else table, folder, folder / name)
    return Page(folder / name)


def test_both_views_of_every_study_in_inverted_grey(mips):
    folder, table = mips
    page = written(mips)
    assert [name for name, _ in page.images()] == [f"{view}, s00{n}" for n in range(4)
                                                   for view in qc_page.VIEW_NAMES.values()]
    for (_, grey), row in zip(page.images(), table.itertuples(), strict=True):
        suv = np.fromfile(folder / row.filename, "<f4").reshape(row.matrix_size_1, row.matrix_size_2)
        np.testing.assert_allclose(grey, 255 * (1 - np.clip(suv / 7, 0, 1)), atol=3)  # 64 levels: 2 of 255 off at most


def test_window_ends_are_white_and_black(mips):
    folder, table = mips
    image = np.zeros((60, 36), "<f4")
    image[0, 0], image[0, 1] = 7, 50
    image.tofile(folder / table["filename"][0])
    grey = written(mips).images()[0][1]
    assert grey[0, :2].tolist() == [0, 0] and (grey[1:] == 255).all()


def test_thumbnails_shrink_by_maximum(tmp_path, monkeypatch):
    monkeypatch.setattr(qc_page, "FULL_SIDE", 20)
    monkeypatch.setattr(qc_page, "SMALL_SIDE", 20)
    image = np.zeros((60, 37), "<f4")
    image[59, 36] = 7  # one hot pixel in the last row and column
    image.tofile(tmp_path / "a_cor.bin")
    row = {"scan_id": "a", "view": "cor", "filename": "a_cor.bin", "matrix_size_1": 60, "matrix_size_2": 37,
           "spacing_mm": 4.0}
    page = written((tmp_path, pd.DataFrame([row])))
    (_, grey), attrs = page.images()[0], next(attrs for tag, attrs in page.tags if tag == "img")
    assert grey.shape == (20, 13) and grey[19, 12] == 0 and (grey == 0).sum() == 1
    assert (attrs["height"], attrs["width"]) == ("60", "39")  # 20 and 13 pixels of 12 mm, a quarter pixel each


def test_page_size_is_bounded(mips, monkeypatch):
    """Pixels of all thumbnails, of two square views a study: 4000 studies have no more than 1000."""
    pixels = {n: 2 * n * qc_page.thumbnail_side(n) ** 2 for n in (100, 1000, 4000, 20000)}
    assert qc_page.thumbnail_side(1000) == 310 and pixels[4000] <= pixels[1000] and pixels[20000] <= pixels[1000]
    exact = written(mips).images()
    monkeypatch.setattr(qc_page, "LOSSLESS_STUDIES", 3)
    page = written(mips)
    assert page.source.count("data:image/webp;base64,") == 8 and "image/png" not in page.source
    for (_, lossy), (_, grey) in zip(page.images(), exact, strict=True):
        assert np.abs(lossy - grey).mean() < 6  # of 255, in a MIP of noise


def test_sort_values_and_marks(mips):
    page = written(mips)
    assert page.sort_values("Scan") == ["s000", "s001", "s002", "s003"]
    assert page.sort_values("SUV max") == ["1.25", "10.0", "9.0", "3.0"]
    assert page.sort_values("Matrix") == ["60", "59", "58", "60"]
    assert page.sort_values("Warnings") == ["", "", "dose in MBq; no date", "no date"]
    marked = ["warned" in attrs["class"].split() for tag, attrs in page.tags if tag == "article"]
    assert marked == [False, False, True, True]
    assert re.findall(r'<option data-number="(\d)">(.*?)</option>', page.source) == [
        ("0", "Scan"), ("1", "Target"), ("1", "SUV max"), ("1", "Uptake (min)"), ("0", "Units"), ("0", "Scanner"),
        ("1", "Spacing (mm)"), ("1", "Matrix"), ("0", "Warnings")]


def test_uptake_dose_and_sides(mips):
    _, table = mips
    page = written(mips, table.assign(uptake_min=[54.4, 54.4, 54.6, 54.6, 75.4, 75.4, None, None], recorded_body=1.25,
                                      recorded_MBq=[280, 280, 280, 280, None, None, 300, 300], recorded_kg=80.0))
    assert page.sort_values("MBq/kg") == ["3.5", "3.5", "", "3.75"]
    assert page.sort_values("Body mean SUV") == ["1.25"] * 4
    off = ["off" in attrs["class"].split() for tag, attrs in page.tags if tag == "article"]
    assert off == [True, False, False, False] and page.texts.count("54!") == 1 and "55–75" in page.source
    assert re.findall("<b>([RLAP])</b>", page.source) == ["R", "L", "A", "P"] * 4


def test_everything_is_escaped(mips):
    folder, table = mips
    pd.DataFrame([{"study": NASTY, "attribute": NASTY, "value": NASTY, "reason": NASTY, "remedy": NASTY}]).to_csv(
        folder / "errors.csv", index=False)
    plain = [name for name in written(mips, table.iloc[:2], "plain.html").names if name != "br"]
    named = {column: NASTY for column in ("scan_id", "scanner", "units", "warnings")}
    page = written(mips, table.iloc[:2].assign(**named))
    assert [name for name in page.names if name != "br"] == plain and "<script>alert" not in page.source
    assert "".join(page.texts).count("alert('x')") == 4 + 2  # scan, scanner, units, warnings; attribute and remedy


def test_nothing_is_loaded_from_outside(mips):
    page = written(mips)
    assert not re.search(r"https?:|@import|url\(|fetch|XMLHttp", page.source)
    assert {"link", "iframe", "object"}.isdisjoint(page.names)
    assert all(attrs["src"].startswith("data:image/png;base64,") for _, attrs in page.tags if "src" in attrs)


def test_same_input_same_bytes_from_numbers_and_from_text(mips):
    folder, table = mips
    first = written(mips).source
    assert written(mips).source == first
    text = table.assign(suv_max=table["suv_max"].map(str), uptake_min=table["uptake_min"].map(str))
    assert written(mips, text.astype(str)).source == first


def test_one_view_and_missing_values(mips):
    _, table = mips
    page = written(mips, table.iloc[[1]].assign(uptake_min=None, warnings=float("nan"), target=None))
    assert [name for name, _ in page.images()] == ["sagittal, s000"] and "no coronal view" in page.texts
    assert page.sort_values("Uptake (min)") == [""] and page.sort_values("Target") == [""] and "none" in page.texts


def test_suv_that_is_not_of_body_weight_is_said(mips):
    """SUL in a window of SUV looks like too little uptake, and its maximum like an SUV."""
    _, table = mips
    assert "--suv lbm, not by body weight" in written(mips, table.assign(suv_type="lbm")).source
    assert "not by body weight" not in written(mips).source + written(mips, table.assign(suv_type="bw")).source


def test_no_study(mips):
    folder, table = mips
    page = written(mips, table.iloc[:0])
    assert page.images() == [] and "Nothing was refused." in page.texts


def test_columns_that_may_identify_are_left_out(mips):
    folder, table = mips
    rows = [{"study": f"Doe^Jane/{n}", "attribute": attribute, "value": "MRN4711", "reason": reason, "remedy": "copy"}
            for n, (attribute, reason) in enumerate([
                ("Units", "cannot be converted"), ("file", "cannot be converted (OSError: '/scans/Doe^Jane/1')"),
                ("Units", "cannot be converted"), ("Units", "cannot be converted"),
                ("StudyInstanceUID", "no row in /home/jane/labels.csv")])]
    pd.DataFrame(rows).to_csv(folder / "errors.csv", index=False)
    page = written(mips, table.assign(patient="Doe^Jane", hospital="MRN4711"))
    assert "Jane" not in page.source and "jane" not in page.source and "MRN4711" not in page.source
    lines = page.texts[page.texts.index("Refused: 5"):]
    assert "2, 4-5" in lines and lines.count("cannot be converted") == 2 and "no row in ..." in lines


def test_an_image_of_another_size_is_named(mips):
    folder, table = mips
    with pytest.raises(InputError, match="s000_cor.bin: 8640 bytes, but row s000 of the manifest says 61 x 36"):
        written(mips, table.assign(matrix_size_1=61))
    (folder / table["filename"][0]).unlink()
    with pytest.raises(InputError, match="s000_cor.bin: missing"):
        written(mips)
    assert not (folder / "qc.html").exists()


def test_prepro_writes_the_page_with_its_refusals(tmp_path):
    coarse = {"spacing": (20.0, 5.0, 4.0)}
    write_series(tmp_path / "dicom" / "Doe_Jane", **coarse)
    write_series(tmp_path / "dicom" / "B", uid="1.2.4", PatientWeight=0, **coarse)
    args = ("--input", tmp_path / "dicom", "--output", tmp_path / "out", "--workers", 1)
    assert call(prepro_script, *args) == 1
    page, table = Page(tmp_path / "out" / "qc.html"), pd.read_csv(tmp_path / "out" / "data.csv")
    assert page.sort_values("Scan") == [table["scan_id"][0]] and len(page.images()) == 2
    assert {"PatientWeight", "Refused: 1"} <= set(page.texts)
    assert not re.search("Doe|Jane|MRN4711|ACC0815|1970|20240310", page.source)
    write_series(tmp_path / "dicom" / "B", uid="1.2.4", **coarse)
    assert call(prepro_script, *args) is None
    page = Page(tmp_path / "out" / "qc.html")
    assert len(page.images()) == 4 and "Nothing was refused." in page.texts


@needs_chromium
def test_names_of_values_stand_before_them(tmp_path, mips):
    """Of values over the whole card, such as a scanner's name, too."""
    written(mips, mips[1].assign(recorded_body=1.25))  # units are left of the scanner then
    with Browser(tmp_path / "browser") as browser:
        tab = browser.open(mips[0] / "qc.html")
        assert tab.run("""[...document.querySelectorAll("dt")].filter(dt => dt.getBoundingClientRect().top
            != dt.nextElementSibling.getBoundingClientRect().top).map(dt => dt.textContent)""") == []
