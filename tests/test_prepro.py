"""Folders of DICOM studies -> MIPs, manifest and errors, as a user runs it."""
import os
import re
import shutil
import stat

import numpy as np
import pandas as pd
import pytest
from conftest import call, error_line, run
from hypothesis import given, settings
from hypothesis import strategies as st
from pet import BACKGROUND, COLD, FEET_FIRST, HOT, PRONE, REAL, datasets, needs_real_series, save, write_series
from scipy.ndimage import map_coordinates

import prepro_script
from common.files import InputError
from preprocessing import conversion, geometry, labels

COARSE = {"spacing": (20.0, 5.0, 4.0)}  # 7 slices
IDENTITIES = ("Doe", "Jane", "MRN4711", "19700101", "ACC0815", "1.2.3", "1.2.4", "PATIENT A")


def prepro(folder, *args, **kwargs):
    return call(prepro_script, "--input", folder / "dicom", "--output", folder / "out", "--workers", 1, *args)


def read_mip(folder, row):
    return np.fromfile(folder / row.filename, "<f4").reshape(row.matrix_size_1, row.matrix_size_2)


def text_of(folder):
    return "".join(path.read_text() for path in folder.glob("*.csv"))


@pytest.fixture
def two_studies(tmp_path):
    write_series(tmp_path / "dicom" / "A" / "1", **COARSE)
    write_series(tmp_path / "dicom" / "B" / "1", uid="1.2.4", PatientID="MRN4712", **COARSE)
    return tmp_path


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), spacing=st.tuples(*[st.floats(1, 9)] * 3), new=st.floats(1, 9))
def test_projections_are_those_of_the_resampled_volume(shape, spacing, new):
    volume = np.random.default_rng(0).random(shape, dtype=np.float32)
    size = [max(1, round(n * s / new)) for n, s in zip(shape, spacing, strict=True)]
    # centre of voxel k is at (k + 0.5) * spacing from the edge; both grids share their middle
    points = [((np.arange(m) + 0.5) * new + (n * s - m * new) / 2) / s - 0.5
              for m, n, s in zip(size, shape, spacing, strict=True)]
    expected = map_coordinates(volume.astype(float), np.meshgrid(*points, indexing="ij"), order=1, mode="nearest")
    coronal, sagittal = geometry.project(volume, spacing, new)
    np.testing.assert_allclose(coronal, expected.max(axis=1)[::-1], atol=1e-5)
    np.testing.assert_allclose(sagittal, expected.max(axis=2)[::-1], atol=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=st.tuples(*[st.integers(3, 9)] * 3), angle=st.floats(0, 180))
def test_turned_projections_are_those_of_the_turned_volume(shape, angle):
    volume = np.random.default_rng(0).random(shape, dtype=np.float32)
    volume[:, [0, -1]] = volume[:, :, [0, -1]] = 0  # as around a body; beyond the volume there is 0 too
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    wide, deep = (max(1, round(abs(a) * shape[2] + abs(b) * shape[1])) for a, b in ((cosine, sine), (sine, cosine)))
    u, v = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (wide, deep)), indexing="ij")
    x, y = u * cosine - v * sine + (shape[2] - 1) / 2, u * sine + v * cosine + (shape[1] - 1) / 2
    expected = [map_coordinates(plane.astype(float), (y, x), order=1).max(axis=1) for plane in volume[::-1]]
    turned = geometry.project(volume, (2.0, 2.0, 2.0), 2.0, [angle])[2]
    np.testing.assert_allclose(turned, expected, atol=1e-5)


def test_turning_by_nothing_is_coronal_and_by_a_right_angle_sagittal():
    volume = np.random.default_rng(1).random((6, 5, 4), dtype=np.float32)
    coronal, sagittal, *turned = geometry.project(volume, (3.0, 3.0, 3.0), 3.0, [0, 90, 180])
    np.testing.assert_allclose(turned[0], coronal, atol=1e-5)
    np.testing.assert_allclose(turned[1][:, 1:-1], sagittal[:, 1:-1], atol=1e-5)
    np.testing.assert_allclose(turned[2][:, 1:-1], coronal[:, ::-1][:, 1:-1], atol=1e-5)


def test_rotating_views(tmp_path, capsys):
    write_series(tmp_path / "dicom" / "study", spacing=(5.0, 5.0, 4.0))
    assert prepro(tmp_path) is None
    both = pd.read_csv(tmp_path / "out" / "data.csv")
    assert prepro(tmp_path, "--views", 5) is None  # 0, 36, 72, 108, 144 degrees; and the sagittal one
    assert "1 study -> " in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert list(table["view"]) == ["cor", "sag", "rot036", "rot072", "rot108", "rot144"]
    assert table.iloc[:2].equals(both) and all(
        row.filename.endswith(f"_{row.view}.bin") for row in table.itertuples())
    for row in table.itertuples():
        angle = {"cor": 0, "sag": 90}[row.view] if row.view in ("cor", "sag") else int(row.view[3:])
        hot = np.argwhere(read_mip(tmp_path / "out", row) > 3.2).mean(axis=0)
        across = HOT[0] * np.cos(np.radians(angle)) + HOT[1] * np.sin(np.radians(angle))
        np.testing.assert_allclose(hot, ((row.row0_mm - HOT[2]) / 3.27, (across - row.column0_mm) / 3.27), atol=0.7)
    assert (tmp_path / "out" / "qc.html").read_text().count("<img ") == 6
    assert prepro(tmp_path) is None and len(pd.read_csv(tmp_path / "out" / "data.csv")) == 2  # other views: not skipped
    assert conversion.rotation_angles(2) == conversion.rotation_angles(1) == []
    assert conversion.rotation_angles(180) == [a for a in range(180) if a not in (0, 90)]


def test_projecting_onto_the_same_grid_changes_nothing():
    volume = np.random.default_rng(1).random((6, 5, 4), dtype=np.float32)
    coronal, sagittal = geometry.project(volume, (3.27, 3.27, 3.27), 3.27)
    assert (coronal == volume.max(axis=1)[::-1]).all() and (sagittal == volume.max(axis=2)[::-1]).all()


def test_mips_show_the_patient(tmp_path):
    write_series(tmp_path / "dicom" / "study", spacing=(5.0, 5.0, 4.0))
    assert prepro(tmp_path) is None
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert list(table["view"]) == ["cor", "sag"] and set(table["spacing_mm"]) == {3.27}
    assert {tuple(size) for size in table[["matrix_size_1", "matrix_size_2"]].to_numpy()} == {(43, 46), (43, 31)}
    coronal, sagittal = (read_mip(tmp_path / "out", row) for row in table.itertuples())
    x, y, z = (round(c / 3.27) for c in HOT)
    assert coronal[21 - z, 23 + x] == pytest.approx(4, rel=0.01)  # right and up: left and above the middle
    assert coronal[21 - z, 23 - x] == pytest.approx(1, rel=0.01)
    assert coronal[21 + z, 23 + x] == pytest.approx(1, rel=0.01)
    assert sagittal[21 - z, 15 + y] == pytest.approx(4, rel=0.01)  # front: left of the middle
    assert sagittal[21 - z, 15 - y] == pytest.approx(1, rel=0.01)
    for row, image, across in ((table.iloc[0], coronal, HOT[0]), (table.iloc[1], sagittal, HOT[1])):
        place = (row["row0_mm"] - HOT[2]) / 3.27, (across - row["column0_mm"]) / 3.27
        np.testing.assert_allclose(np.argwhere(image > 3).mean(axis=0), place, atol=0.6)
    assert table["suv_max"].tolist() == pytest.approx([4, 4], rel=1e-3) and set(table["units"]) == {"BQML"}
    assert set(table["uptake_min"]) == {60} and table["warnings"].isna().all()
    assert (tmp_path / "out" / table["filename"][0]).stat().st_size == 4 * 43 * 46
    assert HOT[2] == BACKGROUND[2] == -COLD[2]


@pytest.mark.parametrize("orientation", [FEET_FIRST, PRONE])
def test_position_on_the_table_makes_no_difference(orientation, tmp_path):
    mips = []
    for name, chosen in (("a", (1, 0, 0, 0, 1, 0)), ("b", orientation)):
        write_series(tmp_path / name / "dicom", orientation=chosen)
        prepro(tmp_path / name)
        table = pd.read_csv(tmp_path / name / "out" / "data.csv")
        mips.append([read_mip(tmp_path / name / "out", row) for row in table.itertuples()])
    for one, other in zip(*mips, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_labels_and_hashes(two_studies, capsys):
    table = pd.DataFrame({"StudyInstanceUID": ["1.2.4", "1.2.3", "1.2.99"], "patient": "PATIENT A",
                           "deauville": [5, 3, 4], "target_loc": [7, 51, 2], "lesions": ["neck:1:2:3", "", ""],
                           "StudyDate": "20240310", "split0": "test", "liver_suv": 2.5})
    table.to_csv(two_studies / "labels.csv", index=False)
    given = ("--labels", two_studies / "labels.csv", "--carry", "liver_suv", "lesions")
    assert prepro(two_studies, *given) is None
    table = pd.read_csv(two_studies / "out" / "data.csv")
    assert list(table.columns) == [
        "scan_id", "filename", "target", "matrix_size_1", "matrix_size_2", "patient_id", "view", "target_loc",
        "spacing_mm", "suv_type", "row0_mm", "column0_mm", "deauville", "lesions", "liver_suv", "suv_max", "suv_mean",
        "uptake_min", "units", "scanner", "warnings", "image_sha256", "id_key"]
    by_target = table.set_index("target")
    assert set(by_target.loc[1, "target_loc"]) == {7} and set(by_target.loc[0, "target_loc"]) == {51}
    assert table["scan_id"].nunique() == table["patient_id"].nunique() == 2
    assert all(re.fullmatch("[0-9a-f]{24}", value) for value in table["scan_id"])
    assert all(identity not in text_of(two_studies / "out") for identity in IDENTITIES)
    printed = capsys.readouterr().out
    assert "1 row of" in printed and "line 4" in printed and not any(i in printed for i in IDENTITIES[:5])
    key = two_studies / "hash_key.txt"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and "hash_key.txt" in printed
    before = (two_studies / "out" / "data.csv").read_bytes()
    prepro(two_studies, *given)  # the key is used again
    assert (two_studies / "out" / "data.csv").read_bytes() == before
    (two_studies / "other").write_text("another key, long enough")
    other = ("--labels", two_studies / "labels.csv", "--key", two_studies / "other")
    with pytest.raises(InputError, match="was hashed with another key"):
        prepro(two_studies, *other)
    prepro(two_studies, *other, "--overwrite")
    assert not set(pd.read_csv(two_studies / "out" / "data.csv")["scan_id"]) & set(table["scan_id"])


def test_keep_ids(two_studies):
    prepro(two_studies, "--keep_ids")
    table = pd.read_csv(two_studies / "out" / "data.csv")
    assert set(table["scan_id"]) == {"1.2.3", "1.2.4"} and set(table["patient_id"]) == {"MRN4711", "MRN4712"}
    assert "target" not in table and not list(two_studies.rglob("hash_key.txt"))


def test_scans_of_one_patient_share_the_patient(two_studies):
    write_series(two_studies / "dicom" / "A" / "2", uid="1.2.5", **COARSE)
    prepro(two_studies)
    table = pd.read_csv(two_studies / "out" / "data.csv")
    assert table["scan_id"].nunique() == 3 and table["patient_id"].nunique() == 2


def test_bad_studies_are_listed_and_the_others_go_on(two_studies):
    root = two_studies / "dicom"
    write_series(root / "C", uid="1.2.5", PatientWeight=0, **COARSE)
    write_series(root / "D", uid="1.2.6", **COARSE)
    path = root / "D" / "003.dcm"
    path.write_bytes(path.read_bytes()[:-50])
    write_series(root / "E", uid="1.2.7", **COARSE)
    (root / "E" / "007.dcm").write_bytes(b"\0" * 1000)  # the last slice: no gap would show it
    save([*datasets(uid="1.2.8", **COARSE)[:6], *datasets(uid="1.2.8", Modality="CT", **COARSE)[6:]], root / "F")
    (root / "G").mkdir()
    (root / "G" / "a.dcm").write_bytes(b"\0" * 128 + b"DICM\2\0")
    (root / "readme.txt").write_text("no DICOM")
    done = run("prepro_script.py", "--input", root, "--output", two_studies / "out", "--workers", 2, check=1)
    assert "Traceback" not in done.stderr and "2 studies" in done.stdout
    assert pd.read_csv(two_studies / "out" / "data.csv")["scan_id"].nunique() == 2
    errors = pd.read_csv(two_studies / "out" / "errors.csv", keep_default_na=False)
    assert list(errors.columns) == ["study", "attribute", "value", "reason", "remedy"]
    found = dict(zip(errors["study"], errors["attribute"], strict=True))
    assert found == {"C": "PatientWeight", "D": "PixelData", "E": "file", "F": "Modality", "G/a.dcm": "file"}
    assert (errors["reason"] != "").all() and (errors["remedy"] != "").all()
    for name in "CDEFG":
        shutil.rmtree(root / name)
    assert prepro(two_studies) is None and not (two_studies / "out" / "errors.csv").exists()


def test_whatever_goes_wrong_is_one_study_refused(two_studies, monkeypatch):
    real = conversion.suv_volume
    monkeypatch.setattr(conversion, "suv_volume", lambda paths, *_: real(paths) if "/A/" in paths[0] else 1 / 0)
    assert prepro(two_studies) == 1
    errors = pd.read_csv(two_studies / "out" / "errors.csv")
    assert errors["study"].tolist() == ["B/1"] and "ZeroDivisionError" in errors["reason"][0]
    assert len(pd.read_csv(two_studies / "out" / "data.csv")) == 2


def test_what_is_no_study_is_passed_over(two_studies):
    folder = two_studies / "dicom" / "A" / "1"
    (folder / "._001.dcm").write_bytes(b"resource fork")
    (folder / "report.pdf").write_bytes(b"%PDF")
    os.mkfifo(folder / "pipe")
    write_series(two_studies / "dicom" / "A" / "ct", uid="1.2.3", SeriesInstanceUID="1.2.3.7", Modality="CT", **COARSE)
    for path in (two_studies / "dicom" / "B" / "1").iterdir():
        path.rename(path.with_suffix(""))  # DICOM needs no extension
    assert prepro(two_studies) is None
    table = pd.read_csv(two_studies / "out" / "data.csv")
    assert table["scan_id"].nunique() == 2 and table["warnings"].isna().all()


def test_patient_without_an_id(tmp_path):
    write_series(tmp_path / "dicom", PatientID="", **COARSE)
    prepro(tmp_path)
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert table["patient_id"].isna().all() and table["warnings"][0] == "PatientID is empty"


def test_study_without_label_is_listed(two_studies):
    (two_studies / "labels.csv").write_text("StudyInstanceUID,target\n1.2.3,1\n")
    assert prepro(two_studies, "--labels", two_studies / "labels.csv") == 1
    errors = pd.read_csv(two_studies / "out" / "errors.csv")
    assert errors["study"].tolist() == ["B/1"] and "no row in" in errors["reason"][0]
    assert "1.2.4" not in errors.to_csv()
    assert pd.read_csv(two_studies / "out" / "data.csv")["target"].tolist() == [1, 1]


def test_attenuation_corrected_series_with_most_slices_is_taken(tmp_path):
    def series(number, **kwargs):
        write_series(tmp_path / "dicom" / number, SeriesInstanceUID=f"1.2.3.{number}", SeriesNumber=int(number),
                     **kwargs)

    series("1", CorrectedImage=["DECY"], spacing=(10.0, 5.0, 4.0))
    series("2", spacing=(20.0, 5.0, 4.0))
    series("3", spacing=(28.0, 5.0, 4.0))
    assert prepro(tmp_path) is None
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert table["warnings"][0] == ("3 PET series: number 2 (7 slices, 120 mm) was used, not number 3 (fewer slices), "
                                    "number 1 (not attenuation corrected)")
    series("4", spacing=(20.0, 5.0, 4.0))
    prepro(tmp_path)
    assert "number 2 (7 slices, 120 mm) was used (equal: number 4)" in pd.read_csv(tmp_path / "out" / "data.csv")[
        "warnings"][0]


def test_rows_beyond_310_are_cropped_from_the_feet(tmp_path):
    write_series(tmp_path / "dicom", **COARSE)
    assert prepro(tmp_path) is None
    whole = pd.read_csv(tmp_path / "out" / "data.csv")
    assert whole["matrix_size_1"].tolist() == [43, 43]
    kept = [read_mip(tmp_path / "out", row) for row in whole.itertuples()]
    conversion.MAX_ROWS = 40
    try:
        prepro(tmp_path)
    finally:
        conversion.MAX_ROWS = 310
    cropped = pd.read_csv(tmp_path / "out" / "data.csv")
    assert cropped["matrix_size_1"].tolist() == [40, 40]
    assert "3 rows (10 mm) at the feet end cropped" in cropped["warnings"][0]
    for row, before in zip(cropped.itertuples(), kept, strict=True):
        assert (read_mip(tmp_path / "out", row) == before[:40]).all()


def test_workers_change_nothing(two_studies):
    prepro(two_studies)
    first = {path.name: path.read_bytes() for path in (two_studies / "out").rglob("*") if path.is_file()}
    call(prepro_script, "--input", two_studies / "dicom", "--output", two_studies / "out", "--workers", 2)
    assert first == {path.name: path.read_bytes() for path in (two_studies / "out").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("content", "words"), [
    ("StudyInstanceUID,target\n1.2.3,1\n1.2.4,2\n", "line 3: target '2' is not 0 to 1"),
    ("StudyInstanceUID,deauville\n1.2.3,6\n", "line 2: deauville '6' is not 1 to 5"),
    ("StudyInstanceUID,target,deauville\n1.2.3,1,3\n", "line 2: target 1 contradicts deauville 3"),
    ("StudyInstanceUID,target,deauville\n1.2.3,,\n", "line 2: no target and no deauville"),
    ("StudyInstanceUID,target\n1.2.3,1\n1.2.3,1\n", "line 3: StudyInstanceUID is on line 2 too"),
    ("StudyInstanceUID,target\n,1\n", "line 2: names no study; fill in"),
    ("StudyInstanceUID,target,target_loc\n1.2.3,1,neck\n", "target_loc 'neck'"),
    ("uid,target\n1.2.3,1\n", "has no column that names studies"), ("", "labels.csv"),
    (None, "no such file; correct its name"),
])
def test_bad_labels(content, words, tmp_path):
    (tmp_path / "dicom").mkdir()
    if content is not None:
        (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(InputError, match=re.escape(words)):
        prepro(tmp_path, "--labels", tmp_path / "labels.csv")
    assert not (tmp_path / "out").exists()


def test_target_from_deauville(tmp_path):
    (tmp_path / "l.csv").write_text("StudyInstanceUID,deauville,target\n" + "".join(
        f"1.{score},{score},\n" for score in range(1, 6)) + "1.6,4.0,1\n1.7,,0\n")
    found = labels.read_labels(tmp_path / "l.csv")
    assert [row.values["target"] for row in found.rows] == [0, 0, 0, 1, 1, 1, 0] and found.carried == ["deauville"]


def test_bad_input_is_one_line(two_studies):
    empty = two_studies / "empty"
    empty.mkdir()
    out = ("--output", two_studies / "out")
    assert "no PET image" in error_line(run("prepro_script.py", "--input", empty, *out))
    assert "no such folder" in error_line(run("prepro_script.py", "--input", empty / "x", *out))
    (two_studies / "short").write_text("1234")
    with pytest.raises(InputError, match="at least 16"):
        prepro(two_studies, "--key", two_studies / "short")
    with pytest.raises(InputError, match="--spacing 0"):
        prepro(two_studies, "--spacing", 0)
    assert "workers: 0 is not 1" in error_line(run("prepro_script.py", "--input", empty, *out, "--workers", 0))
    with pytest.raises(InputError, match="--views 181"):
        prepro(two_studies, "--views", 181)


@needs_real_series
def test_real_series(tmp_path):
    out = tmp_path / "mips"
    call(prepro_script, "--input", REAL, "--output", out, "--workers", 1)
    table = pd.read_csv(out / "data.csv")
    assert table["suv_max"][0] == pytest.approx(66.5, abs=0.05)
    assert table["suv_mean"][0] == pytest.approx(0.149, abs=5e-4)
    coronal, sagittal = (read_mip(out, row) for row in table.itertuples())
    assert coronal.shape == sagittal.shape == (267, 183)
    for mip in (coronal, sagittal):
        bladder = np.unravel_index(mip.argmax(), mip.shape)[0]
        assert 190 < bladder < 215 and mip[:5].max() > 7  # the brain is at the top, above the bladder
    liver, spleen = coronal[105:125, 50:80].mean(), coronal[105:125, 125:155].mean()
    assert liver > 1.3 * spleen  # the patient's right is on the left


def test_every_module_that_conversion_uses_is_in_its_code():
    code = {path.stem for path in conversion.CODE}
    for path in conversion.CODE:
        used = re.findall(r"^from preprocessing\.(\w+) import", path.read_text(), re.MULTILINE)
        assert set(used) <= code, path


def test_unlabelled_studies_are_listed_where_asked(two_studies, capsys):
    """Every study is in data.csv, in errors.csv or in the list of what was passed over."""
    (two_studies / "labels.csv").write_text("StudyInstanceUID,deauville\n1.2.3,5\n")
    given = ("--labels", two_studies / "labels.csv")
    assert prepro(two_studies, *given) == 1
    errors = pd.read_csv(two_studies / "out" / "errors.csv")
    assert errors["study"].tolist() == ["B/1"] and "--skip_unlabelled" in errors["remedy"][0]
    capsys.readouterr()
    assert prepro(two_studies, *given, "--skip_unlabelled") is None
    assert "passed over, without a label: 1 study (" in capsys.readouterr().out
    assert not (two_studies / "out" / "errors.csv").exists()
    assert pd.read_csv(two_studies / "out" / "data.csv")["scan_id"].nunique() == 1
    with pytest.raises(InputError, match="--skip_unlabelled: needs --labels"):
        prepro(two_studies, "--skip_unlabelled")


def test_several_inputs(two_studies):
    dicom = two_studies / "dicom"
    once = ("--output", two_studies / "one", "--keep_ids", "--workers", 1)
    inputs = [arg for folder in ("A", "B", "A/1") for arg in ("--input", dicom / folder)]
    assert call(prepro_script, *inputs, *once) is None
    assert prepro(two_studies, "--keep_ids") is None
    one, other = (pd.read_csv(two_studies / name / "data.csv") for name in ("one", "out"))
    pd.testing.assert_frame_equal(one, other)
    assert one["warnings"].isna().all()
    with pytest.raises(InputError, match="no such folder"):
        call(prepro_script, "--input", dicom, "--input", dicom / "C", *once)


def test_one_patient_id_for_all_is_said_and_can_be_mended(two_studies, capsys):
    for folder, uid in (("A", "1.2.3"), ("B", "1.2.4")):
        write_series(two_studies / "dicom" / folder / "1", uid=uid, PatientID="ANON", **COARSE)
    assert prepro(two_studies) is None
    assert "all 2 studies have one PatientID" in capsys.readouterr().out
    (two_studies / "labels.csv").write_text("StudyInstanceUID,deauville,patient_id\n1.2.3,5,007\n1.2.4,2,8\n")
    assert prepro(two_studies, "--labels", two_studies / "labels.csv") is None
    said = capsys.readouterr().out
    assert "have one PatientID" not in said and "patient_id replaces PatientID" in said
    patients = pd.read_csv(two_studies / "out" / "data.csv")["patient_id"]
    assert patients.nunique() == 2 and patients.str.fullmatch("[0-9a-f]{24}").all()
    assert prepro(two_studies, "--labels", two_studies / "labels.csv", "--keep_ids", "--overwrite") is None
    assert set(pd.read_csv(two_studies / "out" / "data.csv", dtype=str)["patient_id"]) == {"007", "8"}


def test_every_study_is_somewhere(tmp_path, capsys):
    """Nine studies in: in data.csv, errors.csv or passed over, each once, whatever is odd about it."""
    odd = [{}, {"PatientWeight": None}, {"CorrectedImage": ["DECY"]}, {"RadionuclideTotalDose": 8.1},
           {"SeriesType": ["DYNAMIC", "IMAGE"]}, {"RadiopharmaceuticalStartDateTime": "20240310120000"}, {}, {}]
    for number, changed in enumerate(odd):
        write_series(tmp_path / "dicom" / f"S{number}", uid=f"1.2.{number}", **COARSE, **changed)
    (tmp_path / "dicom" / "S7" / "003.dcm").write_bytes(b"none")
    (tmp_path / "dicom" / "S8").mkdir()
    (tmp_path / "dicom" / "S8" / "SUV.nii.gz").write_bytes(b"none")
    names = [f"1.2.{number}" for number in range(8)] + ["S8"]
    (tmp_path / "labels.csv").write_text("StudyInstanceUID,target\n" + "".join(
        f"{name},1\n" for name in names if name != "1.2.6"))
    assert prepro(tmp_path, "--labels", tmp_path / "labels.csv", "--skip_unlabelled", "--keep_ids") == 1
    made = set(pd.read_csv(tmp_path / "out" / "data.csv")["scan_id"].str.replace("1.2.", "S"))
    refused = pd.read_csv(tmp_path / "out" / "errors.csv")["study"].str.split("/").str[0]
    assert "passed over, without a label: 1 study (" in capsys.readouterr().out and made == {"S0", "S4"}
    assert sorted([*made, *refused, "S6"]) == [f"S{number}" for number in range(9)]
