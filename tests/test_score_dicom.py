"""score.py --dicom of studies whose headers are not as the standard has them."""
import io
import warnings

import highdicom
import pandas as pd
import pydicom
import pytest
from pet import write_series
from PIL import Image
from score_helpers import COARSE, save_model, scored_by

from inference import dicom_report, scoring
from preprocessing.suv import suv_volume


def png():
    picture = io.BytesIO()
    Image.new("RGB", (20, 10)).save(picture, "PNG")
    return picture.getvalue()


@pytest.mark.parametrize(("attributes", "emptied"), [
    ({"PatientSex": "W"}, "PatientSex"), ({"PatientSex": "f"}, "PatientSex"), ({"PatientSex": "O"}, None),
    ({"PatientBirthDate": "1970"}, "PatientBirthDate"), ({"StudyTime": "9:30"}, "StudyTime"),
    ({"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}, None),
    ({"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞=홍^길동"}, None),
    ({"SpecificCharacterSet": "ISO_IR 6", "PatientName": "Doe^Jane"}, None), ({"PatientName": "STS_001"}, None),
    ({"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Ψ^山"}, None)])
def test_what_the_standard_does_not_know_is_left_empty_and_names_are_kept(tmp_path, attributes, emptied):
    write_series(tmp_path / "in", **COARSE | attributes)
    files = sorted((tmp_path / "in").iterdir())
    scan = scoring.Scan("s", 0.6, None, 0.1, [0.5, 0.7], [scoring.Call("label", "0.5", "0.500", True)], [], [], None,
                        pd.DataFrame())
    with warnings.catch_warnings(action="error"):  # highdicom's quote the names of patients
        picture, numbers = dicom_report.write_objects(scan, scoring.Scores([scan], []), png(), files, tmp_path / "out")
    study = pydicom.dcmread(files[0])
    for found in (pydicom.dcmread(picture), highdicom.sr.srread(numbers)):
        for name in ("PatientName", "PatientID", "PatientSex", "PatientBirthDate", "StudyTime", "SpecificCharacterSet"):
            assert (found.get(name) or "") == ("" if name == emptied else study.get(name) or ""), name


def test_files_without_preamble_are_written_for_as_they_are_scored(tmp_path):
    write_series(tmp_path / "in", **COARSE)
    files = sorted((tmp_path / "in").iterdir())
    for path in files:
        path.write_bytes(path.read_bytes()[132:])
    assert suv_volume(files).array.max() > 3
    scan = scoring.Scan("s", 0.6, None, 0.1, [0.5, 0.7], [], [], [], None, pd.DataFrame())
    for path in dicom_report.write_objects(scan, scoring.Scores([scan], []), png(), files, tmp_path / "out"):
        assert pydicom.dcmread(path).StudyInstanceUID == "1.2.3"


def test_a_study_that_cannot_be_written_to_leaves_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("inference.scan_picture.draw", lambda *arguments: png())
    whole = dicom_report.capture
    monkeypatch.setattr(dicom_report, "capture", lambda picture, image: whole(
        picture, pydicom.Dataset() if image.StudyInstanceUID == "1.2.3" else image))
    write_series(tmp_path / "dicom" / "A", **COARSE)
    write_series(tmp_path / "dicom" / "B", uid="1.2.4", **COARSE)
    (tmp_path / "models").mkdir()
    save_model(tmp_path / "models", 0)
    (tmp_path / "models" / "best_run.csv").write_text("split,run,epoch,metric,value\n0,1,1,auc,0.75\n")
    assert scored_by(tmp_path, tmp_path / "models", "--dicom") == 1
    scans = set(pd.read_csv(tmp_path / "out" / "scores.csv")["scan_id"])
    written = {path.name.split("_")[0] for path in (tmp_path / "out" / "dicom").iterdir()}
    (failed,) = scans - written
    assert written < scans == {path.stem for path in (tmp_path / "out" / "scans").glob("*.html")}
    assert f"warning: {failed}: no DICOM objects were written: " in capsys.readouterr().out
