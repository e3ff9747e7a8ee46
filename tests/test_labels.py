"""Which study a row of --labels is of; what is carried; the table to fill in."""
import re
import stat

import pandas as pd
import pytest
from conftest import call
from pet import write_series

import prepro_script
from common.files import InputError, read_csv
from preprocessing.dicom_series import Study
from preprocessing.identifiers import hash_id
from preprocessing.labels import Label, join_labels, read_labels, write_template
from preprocessing.tables import print_alike, print_results, with_labels

KEY = b"k" * 64
STUDIES = {"1.1": Study(patient="007", date="2024-03-10", accession="A1"),
           "1.2": Study(patient="007", date="2024-10-03", accession="A2"),
           "1.3": Study(patient="Ab8", date="2024-03-10", accession="00A3"),
           "1.4": Study(patient="9", date="2024-05-01"), "1.5": Study(patient="9", date="2024-05-01"),
           "P/S": Study()}
SECRETS = ("007", "Ab8", "00A3", "2024-03")


def joined(text, tmp_path, studies=STUDIES):
    """The lines of the labels by study."""
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return {uid: row.line for uid, row in join_labels(read_labels(path), studies, KEY).items()}


@pytest.mark.parametrize(("text", "expected"), [
    ("StudyInstanceUID,target\n1.3,1\nP/S,0\n", {"1.3": 2, "P/S": 3}),
    (f"scan_id,deauville,comment\n{hash_id('1.2', KEY)},5,hot\n", {"1.2": 2}),
    ("Accession Number,target\n00A3,1\nA2,0\n", {"1.3": 2, "1.2": 3}),
    ("PatientID;StudyDate;target\n007;10.03.2024;1\n007;03.10.2024;0\n", {"1.1": 2, "1.2": 3}),
    ("patient_id,study date,target\n007,03/10/2024,1\n007,10/03/2024,0\nX,05/13/2024,0\n", {"1.1": 2, "1.2": 3}),
    ("patient_id,StudyDate,target\n007,03/10/2024,1\n007,10/03/2024,0\nX,13/05/2024,0\n", {"1.2": 2, "1.1": 3}),
    ("StudyInstanceUID,AccessionNumber,PatientID,StudyDate,target\n1.1,A1,007,2024-03-10,1\n,A2,,,0\n"
     ",,Ab8,20240310,1\n", {"1.1": 2, "1.2": 3, "1.3": 4}),
    ("StudyInstanceUID,StudyDate,target\n1.1,10/03/2024,1\n", {"1.1": 2}),  # one of its two readings agrees
    ("StudyInstanceUID,patient_id,target\n1.1,true id,1\n", {"1.1": 2}),
    ("StudyInstanceUID,AccessionNumber,patient_id,StudyDate,target,deauville\n1.1,NA,NA,NA,NA,4\n", {"1.1": 2})])
def test_a_row_finds_its_study(text, expected, tmp_path):
    assert joined(text, tmp_path) == expected


@pytest.mark.parametrize(("text", "words"), [
    ("patient_id,StudyDate,target\n9,2024-05-01,1\n", "line 2: several studies have its PatientID and StudyDate"),
    ("patient_id,StudyDate,target\n007,03/10/2024,1\n", "line 2: StudyDate may be two days; write 2024-03-10"),
    ("patient_id,StudyDate,target\n007,13/05/2024,1\n7,05/13/2024,1\n", "StudyDate holds dates with the day first and"),
    ("patient_id,StudyDate,target\n007,soon,1\n", "line 2: StudyDate is no date such as 2024-03-10"),
    ("patient_id,StudyDate,target\n7,2024-03-10,1\n", "line 2: PatientID is a study's but for zeros, blanks or case"),
    ("patient_id,StudyDate,target\n7.0,2024-03-10,1\n", "line 2: PatientID is a study's but for zeros, blanks or case"),
    ("AccessionNumber,target\n00 a3,1\n", "line 2: AccessionNumber is a study's but for zeros, blanks or case"),
    ("AccessionNumber,target\nA1,1\na3,1\n", "line 3: AccessionNumber is a study's but for zeros, blanks or case"),
    ("StudyInstanceUID,StudyDate,target\n1.1,2024-03-11,1\n1.2,2024-03-11,1\n", "line 2: StudyDate is another one than "
     "its study's; correct it, or leave it empty (and 1 more lines like it)"),
    ("StudyInstanceUID,AccessionNumber,target\n1.1,A2,1\n", "line 2: AccessionNumber is another one"),
    ("StudyInstanceUID,AccessionNumber,target\n1.1,,1\n,A1,1\n", "line 3: is of the same study as line 2"),
    ("\nAccessionNumber,target\nA1,1\n\nA1,1\n", "line 5: AccessionNumber is on line 3 too"),
    ("StudyInstanceUID,patient_id,target\n,007,1\n", "line 2: PatientID alone names no study; fill in StudyDate"),
    ("StudyInstanceUID;PatientID;target\n1.1;2,02401E+11;1\n", "line 2: PatientID is a number that Excel has"),
    ("patient_id,target\n007,1\n", "has no column that names studies")])
def test_what_is_ambiguous_or_fits_in_part_is_named_and_refused(text, words, tmp_path, capsys):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        joined(text, tmp_path)
    said = str(caught.value).replace("write 2024-03-10", "").replace("such as 2024-03-10", "") + capsys.readouterr().out
    assert not any(secret in said for secret in SECRETS)


@pytest.mark.parametrize(("rows", "replaced", "slips"), [
    ("1.1,007\n1.2,007\n1.3,Ab8\n", 0, ""), ("1.1,OO7\n1.2,007\n1.3,Ab8\n", 1, "2"), ("1.1,\n1.2,x\n", 1, "3"),
    ("P/S,x\n1.4,\n", 1, ""), ("1.1,NA\n1.3,NA\n1.4,NA\n", 0, ""),
    ("1.1,a\n1.2,b\n1.3,1E10\n", 3, "")])  # one PatientID for all after de-identification
def test_a_patient_id_that_tears_a_patient_apart_is_warned_of(rows, replaced, slips, tmp_path, capsys):
    joined("StudyInstanceUID,PatientID,target\n" + rows.replace("\n", ",1\n"), tmp_path)
    said = capsys.readouterr().out
    assert re.findall(r"patient_id replaces PatientID in (\d+) of", said) == [str(replaced)] * (replaced > 0)
    assert ("warning" in said) == (f"labels.csv: line {slips}: PatientID is another one than" in said) == bool(slips)


@pytest.mark.parametrize(("text", "lines"), [
    ("StudyInstanceUID,PatientID,target\n1.1,Ab8,1\n1.3,007,0\n", "2, 3"),  # one column was sorted alone
    ("AccessionNumber,PatientID,target\nA1,9,1\nA2,007,0\n", "2"),  # two hospitals' AccessionNumber
    ("StudyInstanceUID,PatientID,target\n1.1,x,1\n1.2,x,0\n", "")])
def test_a_patient_id_of_another_study_is_warned_of(text, lines, tmp_path, capsys):
    joined(text, tmp_path)
    said = capsys.readouterr().out
    assert re.findall(r"line (.*): PatientID is not that of the study which the row", said) == [lines] * bool(lines)
    assert f"labelled studies: line {lines or '2, 3'}\n" in said


@pytest.mark.parametrize(("given", "patient"), [("7", "007"), ("7.0", "007"), ("007", "007"), ("8", "8")])
def test_what_excel_makes_of_a_filled_in_template_is_the_study_s_own(given, patient, tmp_path, capsys):
    """It drops leading zeros; the study is named by its UID."""
    path = tmp_path / "labels.csv"
    path.write_text(f"StudyInstanceUID;PatientID;AccessionNumber;target\n1.1;{given};A1;1\n1.3;Ab8;A3;0\n1.2;;;0\n")
    studies = STUDIES | {"1.3": Study(patient="Ab8", accession="0A3")}
    found = join_labels(read_labels(path), studies, KEY)
    assert found["1.1"].values == {"target": 1, "patient_id": patient}
    assert ("warning" in capsys.readouterr().out) == (given == "8")


def test_an_excel_error_counts_in_columns_that_are_used(tmp_path):
    path = tmp_path / "labels.xlsx"
    pd.DataFrame({"StudyInstanceUID": ["1.1"], "target": [1], "looked_up": ["#N/A"]}).to_excel(path, index=False)
    assert [row.names for row in read_labels(path).rows] == [{"StudyInstanceUID": "1.1"}]
    with pytest.raises(InputError, match="row 2, column looked_up: holds an Excel error"):
        read_labels(path, ["looked_up"])


def test_rows_without_study_are_counted(tmp_path, capsys):
    assert joined("patient_id,StudyDate,target\n007,2024-03-11,1\nZ,2024-03-10,1\n", tmp_path) == {}
    said = capsys.readouterr().out
    assert "in --input: 2 rows of" in said
    assert "line 2, 3; of these the patient has one on another day: line 2\n" in said


@pytest.mark.parametrize(("text", "target"), [
    ("3", 0), ("4.0", 1), ("DS 4", 1), ("ds3", 0), ("Deauville 5", 1), ("Deauville score: 2", 0), ("DS 6", None),
    ("-4", None), ("DS", None), ("4a", None), ("DS -4", None), ("X", None), ("DS 4 DS 2", None)])
def test_deauville_scores_are_read_as_people_write_them(text, target, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(f"StudyInstanceUID,deauville\n1.1,{text}\n")
    if target is None:
        with pytest.raises(InputError, match=f"line 2: deauville '{text}' is not 1 to 5; correct it"):
            read_labels(path)
    else:
        (row,) = read_labels(path).rows
        assert row.values == {"deauville": text, "target": target}
    path.write_text("StudyInstanceUID,target\n1.1,DS 1\n")  # 0 or 1 is no Deauville score
    with pytest.raises(InputError, match="target 'DS 1' is not 0 to 1"):
        read_labels(path)


def test_columns_are_carried_by_name_only(tmp_path, capsys):
    path = tmp_path / "labels.csv"
    path.write_text("StudyInstanceUID,Geburtsdatum,deauville,initials,sex,target_loc\n1.1,1970,5,JD,F,7\n")
    (row,) = read_labels(path, ["sex"]).rows
    assert row.values == {"deauville": "5", "sex": "F", "target": 1, "target_loc": "7"}
    assert "carried into data.csv: deauville, sex; left out: Geburtsdatum, initials (--carry" in capsys.readouterr().out
    assert read_labels(path).carried == ["deauville"]
    with pytest.raises(InputError, match="--carry age: .* has no such column; it has StudyInstanceUID, Geburtsdatum"):
        read_labels(path, ["age"])
    with pytest.raises(InputError, match="--carry sex: data.csv has a column of this name"):
        read_labels(path, ["sex"], ["sex"])


@pytest.mark.parametrize(("written", "codes"), [("51", "51"), ("6;20", "6;20"), ("6.0; 20", "6;20"),
                                                 ("39607008", "39607008")])
def test_codes_of_sites_as_training_takes_them(tmp_path, written, codes):
    """One or several (--site_multi), of any size (--site_map)."""
    path = tmp_path / "labels.csv"
    path.write_text(f"StudyInstanceUID,target,target_loc\n1.1,1,{written}\n")
    assert read_labels(path).rows[0].values["target_loc"] == codes


def test_an_empty_cell_of_a_carried_column_stays_empty(tmp_path):
    """Though rows know values of that name, for qc.html; what a mask or a phantom says is kept."""
    carried = ["weight_kg", "dose_MBq", "liver_suv", "frame_min", "suv_body", "sex", "lesions", "synthetic"]
    known = {"weight_kg": 70.0, "dose_MBq": 370.0, "liver_suv": 2.1, "frame_min": 3.0, "suv_body": 1.02}
    made = {"1.1": [{"scan_id": "a", "lesions": "1:2:3", "synthetic": 1, **known}]}
    (row,) = with_labels(made, {"1.1": Label(2, {}, dict.fromkeys(carried, ""))}, KEY, False)
    assert [row[name] for name in carried] == [""] * 6 + ["1:2:3", 1]
    assert (row["recorded_kg"], row["recorded_MBq"], row["recorded_body"]) == (70, 370, 1.02)
    (row,) = with_labels(made, {"1.1": Label(2, {}, dict.fromkeys(carried, "9"))}, KEY, False)
    assert [row[name] for name in carried] == ["9"] * 8 and row["recorded_body"] == 1.02


def test_the_template_is_filled_in_and_taken(tmp_path):
    for folder, uid in (("A", "1.2.3"), ("B", "1.2.4")):
        write_series(tmp_path / "dicom" / folder, uid=uid, PatientID=f"00{folder}", spacing=(20.0, 5.0, 4.0))
    path = tmp_path / "labels.csv"
    args = ("--input", tmp_path / "dicom", "--workers", 1)
    assert call(prepro_script, *args, "--labels_template", path) is None
    assert path.read_text() == ("StudyInstanceUID,PatientID,StudyDate,AccessionNumber,deauville,target\n"
                                "1.2.3,00A,2024-03-10,ACC0815,,\n1.2.4,00B,2024-03-10,ACC0815,,\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dicom", "labels.csv"]
    with pytest.raises(InputError, match="is there, and may be filled in; name a new file"):
        write_template({}, path)
    read_csv(path).assign(deauville=["5", "2"]).to_excel(tmp_path / "filled.xlsx", index=False)
    assert call(prepro_script, *args, "--labels", tmp_path / "filled.xlsx", "--output", tmp_path / "out",
                "--keep_ids") is None
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert dict(zip(table["patient_id"], table["target"], strict=True)) == {"00A": 1, "00B": 0}


@pytest.mark.parametrize(("ids", "given", "alike"), [
    (("0012", "12", "A1", "a 1", "B"), {}, [(0, 1), (2, 3)]), (("0012", "012", "12"), {}, [(0, 1, 2)]),
    (("7", "7", "8"), {}, []), (("", "", "8"), {}, []), (("0012", "12"), {0: "new", 1: "new"}, []),
    (("x", "y"), {0: "P1", 1: "p1"}, [(0, 1)])])
def test_patients_that_are_spelled_alike_are_named_before_they_are_hashed(ids, given, alike, capsys):
    studies = {f"1.{k}": Study(patient=name) for k, name in enumerate(ids)}
    made = {uid: [{"scan_id": hash_id(uid, KEY)}] * 2 for uid in studies}
    labelled = {uid: Label(2, {}, {"patient_id": given[k]} if k in given else {}) for k, uid in enumerate(studies)}
    print_alike(made, studies, labelled if given else None)
    said = capsys.readouterr().out
    assert said.startswith("warning: PatientIDs that differ in blanks, case or zeros only") if alike else not said
    assert all(", ".join(hash_id(f"1.{k}", KEY) for k in group) in said for group in alike)
    assert sum(said.count(hash_id(uid, KEY)) for uid in studies) == sum(map(len, alike)) and "0012" not in said


@pytest.mark.parametrize(("patients", "said"), [
    (["x"] * 20 + ["a", "b"], "20 of 22 studies"), (["x"] * 2, "all 2 studies"), (["x"] * 19 + ["a"], ""),
    ([""] * 25, ""), (["x"], "")])
def test_a_patient_of_many_studies_is_warned_of(patients, said, tmp_path, capsys):
    """ANONYMOUS, or the folder of a centre's volumes: else those patients count as one."""
    print_results([{"scan_id": str(k), "patient_id": name, "warnings": ""} for k, name in enumerate(patients) for _ in
                   "cs"], [], 0, tmp_path)
    out = capsys.readouterr().out
    assert ("have one PatientID" in out) == bool(said) and said in out


def test_one_new_patient_id_joins_them(tmp_path, capsys):
    for name, uid in (("0012", "1.2.3"), ("12", "1.2.4")):
        write_series(tmp_path / "dicom" / name, uid=uid, PatientID=name, spacing=(28.0, 20.0, 20.0))
    (tmp_path / "labels.csv").write_text("StudyInstanceUID,target,patient_id\n1.2.3,1,same\n1.2.4,0,same\n")
    args = ("--input", tmp_path / "dicom", "--output", tmp_path / "out", "--workers", 1)
    for labels, patients in (((), 2), (("--labels", tmp_path / "labels.csv"), 1)):
        assert call(prepro_script, *args, *labels) is None
        assert ("PatientIDs that differ" in capsys.readouterr().out) == (patients == 2)
        assert pd.read_csv(tmp_path / "out" / "data.csv")["patient_id"].nunique() == patients
