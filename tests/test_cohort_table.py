"""Table 1 and the flow of scans: standardized differences, groups, patients, missing values, boxes."""
import math

import numpy as np
import pandas as pd
import pytest
from conftest import call
from hypothesis import assume, given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from page_helpers import Page
from prediction_helpers import measured, predictions, splits, write

import aggregate
from common.manifest import read_manifest
from evaluation import cohort_table, figures, flow_diagram, provenance, report
from evaluation.cohort_table import smd_categories, smd_numbers
from evaluation.ensemble import Model

COUNTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=6).filter(
    lambda rows: all(map(sum, zip(*rows, strict=True))))
NUMBERS = st.lists(st.integers(-20, 20), min_size=2, max_size=12)


# ---------------------------------------------------------------- standardized mean differences

AGES = {"train": [31, 45, 52, 60, 38, 71], "test": [49, 66, 58, 74, 80], "cal": [20, 25, 30, 60]}
SEXES = {"train": "MFMMFM", "test": "FFMFF", "cal": "MMFM"}
SCANNERS = {"train": "AABBCA", "test": "BCCBA", "cal": "CCAB"}


@pytest.mark.parametrize(("groups", "age", "sex", "scanner"), [
    (("train", "test"), 1.172961, 1.06749, 0.722211), (("train", "cal"), 0.960637, 0.184115, 0.776363),
    (("test", "cal"), 2.052176, 1.319472, 0.324443)])
def test_differences_are_those_of_tableone(groups, age, sex, scanner):
    """As tableone 0.9.6 for Python prints them with smd=True, without the sign."""
    def counted(texts):
        return [[list(texts[name]).count(letter) for letter in sorted(set("".join(texts.values())))] for name in groups]

    assert smd_numbers(*(AGES[name] for name in groups)) == pytest.approx(age, abs=1e-6)
    assert smd_categories(*counted(SEXES)) == pytest.approx(sex, abs=1e-5)
    assert smd_categories(*counted(SCANNERS)) == pytest.approx(scanner, abs=1e-6)


def test_differences_that_are_infinite_or_unknown():
    assert smd_numbers([1, 1], [2, 2]) == math.inf and smd_numbers([1, 1], [1, 1]) == 0
    assert smd_numbers([1], [1, 2]) is None and smd_categories([0, 0], [1, 2]) is None
    assert smd_categories([4, 0], [0, 4]) == math.inf and smd_categories([3, 3, 0], [0, 0, 5]) == math.inf
    assert smd_categories([4], [5]) == 0 and smd_categories([4, 4, 0], [2, 2, 0]) == 0


@given(COUNTS)
def test_categories_equal_the_distance_by_dummy_variables(rows):
    a, b = np.array(rows).T
    got = smd_categories(a, b)
    dummies = [np.repeat(np.eye(len(rows))[:, 1:], each, axis=0) for each in (a, b)]
    covariance = sum(np.atleast_2d(np.cov(each.T, ddof=0)) for each in dummies) / 2
    difference = dummies[0].mean(axis=0) - dummies[1].mean(axis=0)
    assume(np.linalg.cond(covariance) < 1e8)
    assert got == pytest.approx(math.sqrt(difference @ np.linalg.solve(covariance, difference)), rel=1e-6, abs=1e-7)


@given(COUNTS, st.randoms())
def test_categories_do_not_depend_on_names_or_order_of_groups(rows, random):
    a, b = np.array(rows).T
    shuffled = random.sample(rows, len(rows))
    assert smd_categories(*np.array(shuffled).T) == pytest.approx(smd_categories(a, b), rel=1e-6, abs=1e-7)
    assert smd_categories(b, a) == pytest.approx(smd_categories(a, b), rel=1e-6, abs=1e-7)
    p, q = a / a.sum(), b / b.sum()
    if len(rows) == 2 and p[0] * p[1] + q[0] * q[1]:
        assert smd_categories(a, b) == pytest.approx(
            abs(p[0] - q[0]) / math.sqrt((p[0] * p[1] + q[0] * q[1]) / 2), abs=1e-9)


@given(NUMBERS, NUMBERS, st.sampled_from([-3, 0.5, 2]), st.integers(-9, 9))
def test_numbers_do_not_depend_on_their_unit(a, b, factor, shift):
    expected = smd_numbers(a, b)
    assert smd_numbers(b, a) == pytest.approx(expected)
    assert smd_numbers(factor * np.array(a) + shift, factor * np.array(b) + shift) == pytest.approx(expected)


# ---------------------------------------------------------------- the table

def manifest(folder, **columns):
    """Six scans, two views each, of four patients: p0 and p1 have two."""
    scans = pd.DataFrame({"scan_id": list("abcdef"), "patient_id": ["p0", "p0", "p1", "p1", "p2", ""],
                          "target": [0, 1, 1, 0, 1, ""]} | columns).astype(str)
    table = scans.loc[scans.index.repeat(2)].assign(view=["cor", "sag"] * len(scans))
    table["filename"] = table["scan_id"] + table["view"]
    table.to_csv(folder / "data.csv", index=False)
    return read_manifest(folder / "data.csv", (), need_target=False, need_images=False)


def rows_by(table, columns):
    """Of the measured scans, here all."""
    return {column: table.reindex(columns=["scan_id", column], fill_value="") for column in columns}


def made(table, splits=(0,), by=()):
    found = cohort_table.of_manifest(table, splits, rows_by(table, by))
    return found["table_one"].set_index(["variable", "value"]), found


SETS = ["train", "train", "train", "train", "test", "test"]


def test_table_by_hand(tmp_path):
    table = manifest(tmp_path, split0=SETS, sex=["F", "F", "M", "M", "M", "NA"], centre=["x"] * 6)
    one, found = made(table)
    assert list(one.columns) == ["counted", "All", "Training", "Test", "SMD, set"]
    assert list(one.loc[("Scans", "")])[1:4] == ["6", "4", "2"]
    assert list(one.loc[("Patients", "")])[1:4] == ["4", "2", "2"]
    assert list(one.loc[("target", "Deauville 4–5")])[:4] == ["scans", "3 (60 %)", "2 (50 %)", "1 (100 %)"]
    assert list(one.loc[("target", "missing")])[1:4] == ["1 (17 %)", "0 (0 %)", "1 (50 %)"]
    assert list(one.loc[("sex", "M")])[:4] == ["patients", "2 (67 %)", "1 (50 %)", "1 (100 %)"]
    assert list(one.loc[("sex", "missing")])[1:4] == ["1 (25 %)", "0 (0 %)", "1 (50 %)"]
    assert one.loc[("sex", "M"), "SMD, set"] == f"{smd_categories([1, 1], [0, 1]):.2f}"
    assert found["left_out"] == {"the same in all scans": ["centre"]}


def test_numbers_by_median_and_quartiles(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"s{k:02d}" for k in range(40)]
    values = rng.normal(70, 20, 40).round(2)
    table = pd.DataFrame({"scan_id": ids, "filename": ids, "view": "cor", "kg": [*map(str, values[:-1]), ""],
                          "code": [f"{k % 12:03d}" for k in range(40)], "split0": ["train"] * 25 + ["test"] * 15})
    one, _ = made(table)
    low, middle, high = np.quantile(values[:25], (0.25, 0.5, 0.75))
    assert one.loc[("kg", ""), "Training"] == f"{middle:.0f} ({low:.0f} to {high:.0f})"
    assert one.loc[("kg", ""), "SMD, set"] == f"{smd_numbers(values[:25], values[25:-1]):.2f}"
    assert one.loc[("kg", "missing"), "Test"] == "1 (7 %)"
    codes = one.loc["code"]  # leading zeros: names, the seven most frequent and the others
    assert list(codes.index) == ["000", "001", "002", "003", "004", "005", "006", "others (5)"]
    assert codes["All"].str.split().str[0].astype(int).sum() == 40


def test_categories_are_in_the_order_of_the_subgroups(tmp_path):
    """Stages by their letters, not by their length (I, II, IV, III), and numbers by their value (0.5 before 2)."""
    stages, grades = ["I", "II", "III", "IV", "IV", "I"], ["10", "2", "0.5", "-1", "2", "10"]
    table = manifest(tmp_path, split0=SETS, stage=stages, grade=grades)
    one, _ = made(table, by=["stage", "grade"])
    assert list(one.loc["stage"].index) == ["I", "II", "III", "IV"]
    assert list(one.loc["grade"].index) == ["-1", "0.5", "2", "10"]
    for column in ("stage", "grade"):
        groups = [name.removeprefix(f"{column}: ") for name in one.columns if name.startswith(f"{column}: ")]
        assert groups == list(one.loc[column].index)


def test_table_does_not_depend_on_the_order_of_rows_or_the_names_of_scans(tmp_path):
    table = manifest(tmp_path, split0=SETS, sex=[*"FFMMM", ""], vendor=["ge", "ph", "ge", "ge", "ph", "ph"])
    one, _ = made(table, by=["vendor"])
    names = dict(zip("abcdef", "fdbace", strict=True))
    renamed = table.sample(frac=1, random_state=1)
    renamed = renamed.assign(scan_id=renamed["scan_id"].map(names),
                             patient_id=renamed["patient_id"].map({"p0": "p9", "p1": "p0", "p2": "x", "": ""}))
    pd.testing.assert_frame_equal(made(renamed, by=["vendor"])[0], one)


def test_a_column_of_by_makes_groups_and_one_of_views_does_not(tmp_path):
    table = manifest(tmp_path, split0=SETS, centre=["A", "B", "C", "A", "", "B"], grade=[1, 1, 2, 2, 1, 2])
    one, _ = made(table, by=["centre", "view", "nowhere"])
    assert [name[8:] for name in one if name.startswith("centre: ")] == ["A", "B", "C", "(missing)"]
    assert one.loc[("grade", "2"), "SMD, centre"] == "no overlap (C, (missing))"
    assert not any("view" in name for name in one) and (one.loc["centre"]["SMD, centre"] == "").all()


def test_other_cohorts_stand_beside_the_sets(tmp_path):
    table = manifest(tmp_path, split0=SETS, sex=["F", "F", "M", "M", "M", "NA"], centre=["x"] * 6)
    north = pd.DataFrame({"scan_id": ["n1", "n1", "n2", "a"], "patient_id": ["q", "q", "q", "p0"], "sex": ["M"] * 4,
                          "target": ["1", "1", "0", "0"]})
    found = cohort_table.of_manifest(table, (0,), rows_by(table, ["sex"]), cohorts={"north": north})
    one = found["table_one"].set_index(["variable", "value"])
    assert list(one.columns)[:6] == ["counted", "All", "Training", "Test", "cohort north", "SMD, set"]
    assert list(one.loc[("Scans", "")])[1:5] == ["8", "4", "2", "2"]  # scan a is in the manifest
    assert list(one.loc[("Patients", "")])[1:5] == ["5", "2", "2", "1"]
    assert list(one.loc[("sex", "M")])[:5] == ["patients", "3 (75 %)", "1 (50 %)", "1 (100 %)", "1 (100 %)"]
    assert one.loc[("Scans", ""), "sex: M"] == "3" and len(found["scans"]) == 6  # groups of --by: of the manifest
    assert one.loc[("centre", "missing"), "cohort north"] == "1 (100 %)"  # of patients


def test_numbers_are_cut_at_the_tertiles_of_the_measured_scans(tmp_path):
    ids = [f"s{k:02d}" for k in range(40)]
    table = pd.DataFrame({"scan_id": ids, "filename": ids, "view": "cor", "age": [str(k) for k in range(40)]})
    groups = cohort_table.by_column(table, "age", table[:9])
    assert list(groups.cat.categories) == ["up to 2", "above 2, up to 5", "above 5"] and groups["s39"] == "above 5"
    assert list(cohort_table.by_column(table, "age", table).cat.categories)[0] == "up to 13"


@pytest.mark.usefixtures("no_figure")
def test_table_one_has_the_groups_of_the_subgroups(tmp_path):
    """What training scans alone have makes no group and does not change how numbers are cut."""
    scans = pd.DataFrame({"scan_id": [f"s{k:03d}" for k in range(90)], "target": np.arange(90) % 2,
                          "grade": np.arange(90) % 9 + 1,  # nine of all, eight of those measured
                          "dose": [*map(str, range(12)), *["not known"] * 78],  # texts in training alone
                          "scanner": [f"m{k:02d}" for k in range(90)]})
    in_test = (scans["grade"] < 9) & (scans.index < 12)
    table = predictions(0, scans)
    table["sex"] = np.where(table["view"] == "cor", table["scan_id"].map(lambda scan: "FM"[int(scan[1:]) % 2]), "")
    table["split0"] = np.where(table["scan_id"].isin(scans["scan_id"][in_test]), "test", "train")
    table["matrix_size_1"] = table["matrix_size_2"] = 10
    table.drop(columns=["set", "probs", "F1", "F2", "F512"]).to_csv(tmp_path / "data.csv", index=False)
    write(tmp_path, table[table["split0"] == "test"])
    found = measured(tmp_path, "--by", "grade", "dose", "scanner", "sex", "--data", tmp_path / "data.csv")["subgroups"]
    columns = list(pd.read_csv(tmp_path / "out" / "table1.csv"))
    assert list(found["grade"]) == list("12345678")
    assert list(found["dose"]) == ["up to 3", "above 3, up to 6", "above 6"]  # 0 to 7 and 9 to 11
    assert len(found["scanner"]) == 11 and list(found["sex"]) == ["F", "M"]
    for column, groups in found.items():
        assert [name for name in columns if name.startswith(f"{column}: ")] == [f"{column}: {name}" for name in groups]


def test_a_page_shows_the_sets_and_what_else_has_room():
    columns = ["variable", "value", "counted", "All", "Training", "Test", "SMD, set", *(f"a: {k}" for k in range(6)),
               "SMD, a", "b: 1", "b: 2", "SMD, b"]
    table = pd.DataFrame([["sex", "M", "patients", *columns[3:]]], columns=columns)
    head, rows, hidden = cohort_table.on_page(table)
    assert head == ["", "All", "Training", "Test", "SMD, set", "b: 1", "b: 2", "SMD, b"] and hidden == ["a"]
    assert rows == [["sex: M, patients", *head[1:]]]
    wide = pd.DataFrame([["sex", "M", "scans", *"123456789", "0.51 (a, b)"]],
                        columns=["variable", "value", "counted", "All", *"BCDEFGHI", "SMD, set"])
    assert cohort_table.on_page(wide) == (["", "All", *"BCDEFGHI", "SMD, set"], [["sex: M", *"123456789", "0.51"]], [])


TWO = "Training or validation"


@pytest.mark.parametrize(("columns", "expected"), [
    ([SETS], {"Training": 4, "Test": 2}), ([], {"": 6}),
    ([["train", "val", "cal", "cal", "test", "test"]], {"Training": 1, "Validation": 1, "Test": 2, "Calibration": 2}),
    ([SETS, ["val", "val", "train", "train", "test", "test"]], {TWO: 4, "Test": 2}),
    ([SETS, ["test", "test", "train", "train", "val", "val"]], {f"{TWO} or test": 4, TWO: 2})])  # folds
def test_roles(tmp_path, columns, expected):
    table = manifest(tmp_path, **{f"split{k}": column for k, column in enumerate(columns)})
    assert cohort_table.roles(table, range(len(columns))).value_counts().to_dict() == expected


# ---------------------------------------------------------------- the flow

def flow_of(folder, wanted, n, **about):
    models = [Model(folder / "m", "m", 0, 1)]
    flow = provenance.cohort_flow(models, wanted, folder / "data.csv")
    metrics = {"set": wanted, "avg": {"n": n, "n_positive": 1}, "models": models, "n_patients": None} | about
    return flow_diagram.levels(flow, metrics)


def test_flow_of_scans(tmp_path):
    manifest(tmp_path, split0=SETS)
    pd.DataFrame({"study": list("xyz"), "attribute": ["Units", "Units", "Dose"]}).to_csv(tmp_path / "errors.csv")
    found, scans, labelled, sets, measured = flow_of(tmp_path, "test", 1)
    assert found["boxes"] == [["Studies found", "9 in data.csv and errors.csv"]]
    assert found["aside"] == ["Refused: 3", "Units: 2", "Dose: 1"] and scans["aside"] == ["No label", "1 scan"]
    assert scans["boxes"] == [["Scans in data.csv", "6 scans, 4 patients", "3 scans with Deauville 4–5"]]
    assert labelled["boxes"][0][1] == "5 scans, 3 patients"
    assert sets["boxes"] == [["Training", "4 scans, 2 patients", "2 scans with Deauville 4–5"],
                             ["Test", "1 scan, 1 patient", "1 scan with Deauville 4–5"]]
    assert measured["boxes"] == [["Measured", "1 scan", "1 scan with Deauville 4–5", "by 1 model"]]
    assert measured["under"] == 1


def test_flow_of_new_patients_without_splits(tmp_path):
    manifest(tmp_path)
    *_, labelled, measured = flow_of(tmp_path, "all", 4)
    assert labelled["boxes"][0][0] == "Labelled" and measured["boxes"][0][-1] == "1 without prediction"


def test_flow_tells_neither_studies_from_masks_nor_hides_another_manifest(tmp_path):
    manifest(tmp_path, split0=SETS, warnings=["no mask was used, errors.csv says why"] + [""] * 5)
    pd.DataFrame({"study": list("xyz"), "attribute": ["Units", "file", "Dose"]}).to_csv(tmp_path / "errors.csv")
    found, *_, measured = flow_of(tmp_path, "test", 2)
    assert "not known" in found["boxes"][0][1] and found["aside"][0] == "Lines of errors.csv: 3"
    assert measured["boxes"][0][-1] == "more than data.csv has"


@pytest.mark.parametrize("sets", [1, 2, 4])
def test_no_box_of_the_diagram_lies_over_another_or_beyond_the_page(sets):
    boxes = [[f"Set {k}", "1234 scans, 1234 patients", "345 scans with Deauville 4–5"] for k in range(sets)]
    aside = ["Refused: 9", "RadiopharmaceuticalInformationSequence, and more words that do not fit: 9"]
    figure = flow_diagram.diagram([{"boxes": [["Found", "9"]], "aside": aside, "under": None},
                                   {"boxes": boxes, "aside": (), "under": None},
                                   {"boxes": [["Measured", "9 scans"]], "aside": (), "under": sets - 1}])
    canvas, axes = FigureCanvasAgg(figure), figure.axes[0]
    rectangles = [patch.get_bbox() for patch in axes.patches if hasattr(patch, "get_bbox")]
    texts = [text.get_window_extent(canvas.get_renderer()).transformed(axes.transData.inverted())
             for text in axes.texts if text.get_text()]
    width, height = figure.get_size_inches()
    assert len(rectangles) == sets + 3
    for k, one in enumerate(rectangles):
        assert one.x0 > 0 and one.x1 < width and one.y1 <= height
        assert not any(one.overlaps(other) for other in rectangles[k + 1:])
    for text in texts:
        assert any(box.x0 <= text.x0 and text.x1 <= box.x1 for box in rectangles), text


def test_report_with_a_manifest_shows_both(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "score_figures", lambda *arguments: {})
    tables = splits(2)
    tables[1]["set"] = tables[0]["set"]
    for table in tables:
        table["sex"] = np.where(table["patient_id"].str[-1].astype(int) % 2, "F", "M")
    write(tmp_path, *tables)
    columns = ["scan_id", "filename", "target", "patient_id", "view", "sex"]
    sets = {f"split{k}": tables[0]["set"] for k in range(2)}
    tables[0][columns].assign(**sets).to_csv(tmp_path / "data.csv", index=False)
    out = tmp_path / "out"
    options = ("--dir", tmp_path, "--output", out, "--resamples", 20, "--by", "sex")
    call(aggregate, *options, "--data", tmp_path / "data.csv")
    one = pd.read_csv(out / "table1.csv", keep_default_na=False)
    assert list(one.columns)[4:] == ["Training or validation", "Test", "SMD, set", "sex: F", "sex: M", "SMD, sex"]
    assert all((out / f"flow.{suffix}").stat().st_size > 1000 for suffix in ("png", "svg", "pdf"))
    page = Page((out / "report.html").read_text())
    assert len(page.sources) == 1 and page.open == [] and "Table 1" in "".join(page.words)
    call(aggregate, *options)
    assert not list(out.glob("flow.*")) and not (out / "table1.csv").exists()


def test_sets_of_many_splits_are_given_by_ranges():
    rows = [{"split": "manifest", "set": "all", "scans": 9, "patients": None, "positive": 4}]
    rows += [rows[0] | {"split": f"split {k}", "set": "train", "scans": 5 + k % 2, "positive": 2} for k in range(5)]
    head, lines = report.sets_table(rows)
    assert head == ["", "all", "train"] and lines == [["manifest", "9 / 4", ""], ["split 0 to 4", "", "5 to 6 / 2"]]
    assert [line[0] for line in report.sets_table(rows[:4])[1]] == ["manifest", "split 0", "split 1", "split 2"]
