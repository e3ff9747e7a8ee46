"""score.py: from studies to probabilities, pages and DICOM objects, with small networks of random weights."""
import base64
import io
import json
import re
import sys
import warnings

import highdicom
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from browser_helpers import Browser, needs_chromium
from conftest import call
from page_helpers import Page
from pet import BODY, datasets, save, write_series
from PIL import Image
from score_helpers import COARSE, CPU, save_model, scored_by, write_results

import aggregate
import predict
import prepro_script
import score
import utils
from common import acquisition
from common.digests import training_digests
from common.files import InputError, sha256
from evaluation import reference
from inference import score_page, scoring
from inference.prediction import predict_mips
from preprocessing.geometry import project
from preprocessing.suv import suv_volume

NAMES = ("Doe", "Jane", "MRN4711", "19700101", "ACC0815", "1.2.3", "1.2.4", "MRN4712", "PATIENT")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two networks, their validation and test predictions (made up), thresholds and metrics."""
    return write_results(tmp_path_factory.mktemp("models") / "results")


@pytest.fixture(scope="module")
def scored(results, tmp_path_factory):
    """A folder with two studies, dicom, and what was made of them, out."""
    folder = tmp_path_factory.mktemp("scored")
    write_series(folder / "dicom" / "A", **COARSE)
    write_series(folder / "dicom" / "B", uid="1.2.4", PatientID="MRN4712", PatientName="Doe^Jörg",
                 SpecificCharacterSet="ISO_IR 100", per_suv=5000.0, PatientWeight=55.0, **COARSE)
    assert scored_by(folder, results, "--dicom") is None
    return folder


def pages(folder):
    return {path.name: path.read_text() for path in folder.rglob("*.html")}


# ---------------------------------------------------------------- numbers

def test_mips_of_the_api_score_as_those_of_a_study(scored, results, tmp_path):
    volume = suv_volume(scored / "dicom" / "A")
    cor, sag = project(volume.array, volume.spacing, 3.27)
    paths = sorted(results.glob("checkpoint_*.pth"))
    probs = [predict_mips(path, {"cor": cor, "sag": sag}, 3.27) for path in paths]
    of_scan = pd.read_csv(scored / "crosswalk.csv", dtype=str).set_index("StudyInstanceUID")["scan_id"]
    expected = pd.read_csv(scored / "out" / "scores.csv").set_index("scan_id").loc[of_scan["1.2.3"], "ensemble_prob"]
    assert np.mean(probs) == pytest.approx(expected, abs=1e-6)
    empty = cor.copy()
    empty[0, 0] = np.nan
    for image, message in ((empty, "NaN"), (cor * 5000, "Bq/ml"), (cor * 0, "no pixel above SUV"),
                           (np.tile(sag, (9, 9)), "larger than the frame")):
        with pytest.raises(InputError, match=f"one: .*{message}"):
            predict_mips(paths[0], {"one": image}, 3.27)
    for other, message in (((4.0,), "pixels of 3.27 mm"), ((3.27, "lbm"), "SUV of type bw")):
        with pytest.raises(InputError, match=message):
            predict_mips(paths[0], {"one": cor}, *other)
    marked = tmp_path / paths[0].name
    utils.save_checkpoint(marked, torch.load(paths[0]) | {"synthetic": True, "leakage": "1 patient in train and test"})
    with pytest.warns(UserWarning) as said:
        assert predict_mips(marked, {"cor": cor}, 3.27) == pytest.approx(probs[0][0])
    assert all(word in str(each.message) for word, each in zip(("SYNTHETIC", "LEAKAGE: 1 pat"), said, strict=True))


def test_numbers_are_those_of_predict_and_aggregate(scored, results, tmp_path):
    call(prepro_script, "--input", scored / "dicom", "--output", tmp_path, "--key", scored / "hash_key.txt",
         "--workers", 1)
    call(predict, "--data", tmp_path / "data.csv", "--set", "all", "--output", tmp_path, "--chptfolder", results,
         *CPU[:-2])
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--operating_points", results / "operating_points.json")
    found = pd.read_csv(scored / "out" / "scores.csv").set_index("scan_id")
    expected = pd.read_csv(tmp_path / "ensemble_avg.csv").set_index("scan_id")
    pd.testing.assert_series_equal(found["ensemble_prob"].sort_index(), expected["ensemble_prob"], check_exact=True)
    for name in ("pred_label", "pred_youden", "pred_sensitivity95", "pred_specificity95"):
        pd.testing.assert_series_equal(found[name].sort_index(), expected[name])
    spread = pd.read_csv(tmp_path / "disagreement.csv").set_index("scan_id")
    pd.testing.assert_series_equal(found["sd"].sort_index(), spread["sd"].sort_index(), check_exact=True)
    assert found["ensemble_prob"].nunique() == 2 and (found["n_models"] == 2).all()


def test_terminal_has_a_line_a_scan_of_80_columns(scored, results, capsys, no_picture):
    assert scored_by(scored, results, out="lines") is None
    said = capsys.readouterr().out.splitlines()
    table = pd.read_csv(scored / "lines" / "scores.csv")
    for row in table.itertuples():
        (line,) = [line for line in said if line.startswith(row.scan_id)]
        assert [f"{row.ensemble_prob:.3f}", f"{row.sd:.3f}"] == line.split()[1:3] and len(line) <= 80
        assert ("4-5" in line.split()[3:4]) == (row.pred_label == 1)
    assert "2 scans, 2 networks: " in said[-1] and "research use only" in said[-1]


# ---------------------------------------------------------------- pages

def test_no_page_or_table_holds_an_identifier(scored):
    out = scored / "out"
    for path in [*out.rglob("*.html"), *out.rglob("*.csv"), *out.rglob("*.json")]:
        text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", path.read_text())
        assert not [name for name in NAMES if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text)], path
        assert str(scored) not in text
    crosswalk = pd.read_csv(scored / "crosswalk.csv", dtype=str)
    assert set(crosswalk["StudyInstanceUID"]) == {"1.2.3", "1.2.4"}


def test_page_of_a_scan(scored):
    table = pd.read_csv(scored / "out" / "scores.csv")
    for row in table.itertuples():
        text = (scored / "out" / "scans" / f"{row.scan_id}.html").read_text()
        page = Page(text)
        assert not page.open and page.links == ["../score.html"]
        words = " ".join(" ".join(page.words).split())
        for part in (row.scan_id, f"{row.ensemble_prob:.3f}", "For research use only", "mean over 2 networks",
                     "Youden", "60 min; 55 to 75 are accepted", "cohort.csv", "validation predictions"):
            assert part in words, part
        with Image.open(io.BytesIO(base64.b64decode(page.sources[0].partition(",")[2]))) as picture:
            assert picture.width > 700
    assert "370 MBq" in words or "5.3 MBq/kg × 3 min a bed = 15.9 MBq·min/kg" in words


def test_index_of_several_links_to_each_and_says_what_was_refused(scored, results, tmp_path, no_picture):
    page = Page((scored / "out" / "score.html").read_text())
    table = pd.read_csv(scored / "out" / "scores.csv")
    assert page.links == [f"scans/{scan}.html" for scan in table["scan_id"]] and not page.open
    write_series(tmp_path / "dicom" / "A", **COARSE)
    write_series(tmp_path / "dicom" / "B", uid="1.2.4", **COARSE)
    write_series(tmp_path / "dicom" / "C", uid="1.2.5", PatientWeight=None, **COARSE)
    assert scored_by(tmp_path, results) == 1
    said = " ".join((tmp_path / "out" / "score.html").read_text().split())
    assert "1 refusal: scans/errors.csv says of which studies, or masks, and why" in said
    assert pd.read_csv(tmp_path / "out" / "scans" / "errors.csv")["attribute"].tolist() == ["PatientWeight"]


def test_one_study_is_the_page_itself(results, tmp_path, no_picture):
    write_series(tmp_path / "dicom", **COARSE)
    assert scored_by(tmp_path, results) is None
    assert list(pages(tmp_path / "out")) == ["score.html"] and "All scans" not in pages(tmp_path / "out")["score.html"]


def test_pages_of_scans_that_are_refused_now_go(results, tmp_path, capsys, no_picture):
    write_series(tmp_path / "dicom" / "A", **COARSE)
    write_series(tmp_path / "dicom" / "B", uid="1.2.4", **COARSE)
    assert scored_by(tmp_path, results) is None and len(pages(tmp_path / "out")) == 3
    write_series(tmp_path / "dicom" / "B", uid="1.2.4", PatientWeight=None, **COARSE)
    assert scored_by(tmp_path, results) == 1 and list(pages(tmp_path / "out")) == ["score.html"]
    write_series(tmp_path / "dicom" / "A", PatientWeight=None, **COARSE)
    capsys.readouterr()
    (tmp_path / "out" / "scans" / "notes.html").write_text("mine")
    assert scored_by(tmp_path, results) == 1 and list(pages(tmp_path / "out")) == ["notes.html"]
    assert not (tmp_path / "out" / "scores.csv").exists()
    assert "removed, of an earlier call: score.html, scores.csv" in capsys.readouterr().out


def test_links_to_scans_of_any_name(tmp_path):
    names = ["Müller #1_50%", "a?b &<c>", "d"]
    scans = [scoring.Scan(name, 0.5, None, 0.1, [0.5], [], acquisition.facts({}), [], None, None) for name in names]
    score_page.write_index(tmp_path / "score.html", scoring.Scores(scans, []),
                           {name: f"scans/{name}.html" for name in names}, [],
                           {"trained": [], "inputs": [], "versions": "1", "data": "x"})
    assert Page((tmp_path / "score.html").read_text()).links == [
        "scans/M%C3%BCller%20%231_50%25.html", "scans/a%3Fb%20%26%3Cc%3E.html", "scans/d.html"]


@needs_chromium
def test_warnings_of_the_index_are_in_sight(tmp_path):
    """The last column, on a screen of 1200 pixels, of a scanner with a long name."""
    facts = acquisition.facts({"scanner": "GE MEDICAL SYSTEMS Discovery MI Gen 2 (4 rings)", "uptake_min": "61.0"})
    calls = [scoring.Call(name, name, "0.500", True) for name in ("0.5", "Youden", "sensitivity ≥ 0.95",
                                                                  "specificity ≥ 0.95")]
    scan = scoring.Scan("a" * 24, 0.5, None, 0.1, [0.5], calls, facts, ["dose in MBq"], None, None)
    score_page.write_index(tmp_path / "score.html", scoring.Scores([scan], []), {scan.scan_id: "a.html"}, [],
                           {"trained": [], "inputs": [], "versions": "1", "data": "x"})
    with Browser(tmp_path / "browser") as browser:
        tab = browser.open(tmp_path / "score.html", width=1200)
        assert tab.run("document.querySelector('.scroll').scrollWidth <= document.querySelector('.scroll').clientWidth")


def test_chart_counts_and_places_by_hand():
    found = score_page.chart_of(scoring.Scan("s", 0.6, None, 0.1, [0.5, 0.7], [], [], [], None, None), {
        "source": "validation predictions", "models_per_scan": [1, 2], "negative": [0.11, 0.11, 0.31, 0.71],
        "positive": [0.51, 0.91]})
    assert found["counts"] == [(2, 1), (4, 3)] and found["at"] == 384 and found["models"] == "1 to 2"
    bars = {(x, name): (y, height) for x, y, _, height, name in found["bars"]}
    assert bars == {(64, "negative"): (70, 70), (192, "negative"): (70, 35), (448, "negative"): (70, 35),
                    (320, "positive"): (0, 70), (576, "positive"): (0, 70)}
    assert score_page.chart_of(None, None) is None


# ---------------------------------------------------------------- what must be warned of

def test_acquisition_beside_the_guideline():
    row = {"uptake_min": 90, "dose_MBq": "210", "weight_kg": 70.0, "frame_min": 2, "suv_max": 12.34, "scanner": "X",
           "units": "BQML", "liver_suv": 3.4}
    known = {fact.name: fact for fact in acquisition.facts(row)}
    assert known["Uptake time"][1:] == ("90 min", "60 min; 55 to 75 are accepted", False)
    assert known["Dose per weight"].value == "3.0 MBq/kg × 2 min a bed = 6.0 MBq·min/kg"
    assert known["Mean SUV of the liver"].within is False and known["Highest SUV"].value == "12.3"
    assert [line.partition(":")[0] for line in acquisition.outside(list(known.values()))] == [
        "uptake time 90 min", "dose per weight 3.0 MBq/kg × 2 min a bed = 6.0 MBq·min/kg",
        "mean SUV of the liver 3.40"]
    for uptake, within in ((54.4, False), (54.6, True), (75.4, True), (75.6, False)):  # as they are shown
        assert acquisition.facts({"uptake_min": uptake})[0].within is within
    for liver, within in ((1.294, False), (1.296, True)):
        assert acquisition.facts({"liver_suv": liver})[4].within is within
    for product, within in ((14, True), (13.97, True), (13.9, None), (7, None), (6.97, None), (6.9, False)):
        assert acquisition.dose_per_weight(product * 10, 10, 1).within is within
    assert [fact.value for fact in acquisition.facts({"units": ""})] == [
        *["not stored"] * 4, "not found for certain", *["not stored"] * 3]
    assert all(fact.within is None for fact in acquisition.facts({}))
    lean = {fact.name: fact for fact in acquisition.facts({"suv_max": 8.04, "suv_type": "lbm", "uptake_min": 60})}
    assert lean["Highest SUV"].value == "8.0 (--suv lbm)"
    assert lean["Mean SUV of the liver"].value == "not measured: SUV is of --suv lbm"
    scan = scoring.Scan("a", 0.5, None, 0.1, [0.5], [], list(lean.values()), [], None, None)
    assert ("8.0 (--suv lbm)", "8.0") in score_page._cells(scan)
    assert acquisition.facts({"suv_max": 8.04, "suv_type": "bw"})[-3].value == "8.0"


def test_scan_of_the_training_is_marked(scored, results, tmp_path, no_picture):
    table = pd.read_csv(scored / "out" / "scans" / "data.csv", dtype=str, keep_default_na=False)
    first, second = table["scan_id"].unique()
    stored = training_digests(table[table["scan_id"] == first], ["train"] * 2)
    save_model(tmp_path, 0, stored)
    save_model(tmp_path, 1, None)
    call(score, "--input", scored / "dicom", "--checkpoints", tmp_path / "checkpoint_split0_run1.pth",
         tmp_path / "checkpoint_split1_run1.pth", "--output", tmp_path / "out", "--key", scored / "hash_key.txt", *CPU)
    said = pd.read_csv(tmp_path / "out" / "scores.csv", keep_default_na=False).set_index("scan_id")["warnings"]
    assert "OPTIMISTIC: 1 of 2 networks was trained on this scan" in said[first]
    assert "OPTIMISTIC" not in said[second]
    assert "could not be checked" in said[first] and "could not be checked" in said[second]  # the other network's
    assert "OPTIMISTIC" in (tmp_path / "out" / "score.html").read_text()
    assert list(pd.read_csv(tmp_path / "out" / "scores.csv").filter(like="pred_")) == ["pred_label"]


def test_synthetic_networks_and_unlike_images_are_said_loudly(tmp_path, capsys, no_picture):
    write_series(tmp_path / "dicom", **COARSE)
    save_model(tmp_path, 0, norm=(5.0, 2.0), frame=(256, 256), views=("cor", "sag", "rot045"))
    path = tmp_path / "checkpoint_split0_run1.pth"
    torch.save(torch.load(path) | {"synthetic": True}, path)
    call(score, "--input", tmp_path / "dicom", "--checkpoints", path, "--output", tmp_path / "out", *CPU)
    said, page = capsys.readouterr().out, (tmp_path / "out" / "score.html").read_text()
    for text in ("trained on a SYNTHETIC cohort", "of the training images it was 5.0", "is it a whole-body scan?"):
        assert text in said and text in page
    assert set(pd.read_csv(tmp_path / "out" / "scans" / "data.csv")["view"]) == {"cor", "sag", "rot045", "rot135"}
    assert "that the scan lacks" not in said
    assert pd.read_csv(tmp_path / "out" / "scores.csv")["notice"].str.contains("SYNTHETIC").all()


def test_thresholds_of_other_networks_are_not_applied(scored, results, tmp_path, capsys, no_picture):
    for path in results.glob("*"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "checkpoint_split1_run1.pth").unlink()
    save_model(tmp_path, 1, norm=(1.5, 1.0))  # trained again
    assert scored_by(scored, tmp_path, out="again") is None
    assert "the stored thresholds are not of these models" in capsys.readouterr().out
    table = pd.read_csv(scored / "again" / "scores.csv")
    assert list(table.filter(like="pred_")) == ["pred_label"]
    page = pages(scored / "again")[f"{table['scan_id'][0]}.html"]
    assert "bring no scores of scans of known class" in page and "was not measured" in page


@pytest.mark.parametrize("recalibrated", [False, True])
def test_reference_is_made_as_the_scores_are(results, tmp_path, recalibrated):
    """Each model's scores recalibrated by a rule of its own (Platt's, on the log-odds), then averaged."""
    for path in results.glob("*"):
        if path.suffix in (".csv", ".json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    if recalibrated:
        rules = json.loads((tmp_path / "operating_points.json").read_text())
        for rule in rules["avg"]["of_models"]:
            rule["recalibration"] = {"method": "platt", "a": 1.0, "b": 0.5}
        (tmp_path / "operating_points.json").write_text(json.dumps(rules))
    names = {f"pred_split{k}_run1.csv": sha256(results / f"checkpoint_split{k}_run1.pth") for k in (0, 1)}
    found = reference.find_reference(tmp_path, names)
    tables = [pd.read_csv(tmp_path / name).query("set == 'val'") for name in names]
    scores = [table.groupby("scan_id")["probs"].mean() for table in tables]
    if recalibrated:
        scores = [1 / (1 + np.exp(-(1 + 0.5 * np.log(score / (1 - score))))) for score in scores]
    expected = pd.concat(scores, axis=1).mean(axis=1)
    target = pd.concat(tables).groupby("scan_id")["target"].first()
    assert found["scores"]["source"] == "validation predictions" and found["scores"]["models_per_scan"] == [1, 1]
    for value, name in enumerate(("negative", "positive")):
        np.testing.assert_allclose(found["scores"][name], np.sort(expected[target == value]), atol=6e-5)
    metrics = json.loads((results / "metrics.json").read_text())
    assert found["results"]["n_scans"] == metrics["n_scans"] and found["results"]["auc"].startswith(
        f"{metrics['avg']['auc']['value']:.3f}")
    assert reference.find_reference(tmp_path, names | {"pred_split0_run1.csv": "other"})["scores"] is None


# ---------------------------------------------------------------- DICOM

def test_dicom_objects_are_of_the_study_and_hold_the_numbers(scored):
    table = pd.read_csv(scored / "out" / "scores.csv").set_index("scan_id")
    crosswalk = pd.read_csv(scored / "crosswalk.csv", dtype=str).set_index("scan_id")
    paths = sorted((scored / "out" / "dicom").iterdir())
    assert len(paths) == 4 and len({path.name for path in paths}) == 4
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}  # they name the patient
    uids = set()
    for scan, row in table.iterrows():
        (picture,), (report,) = ([path for path in paths if path.name.startswith(f"{scan}_{kind}_")]
                                 for kind in ("sc", "sr"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image, numbers = pydicom.dcmread(picture), highdicom.sr.srread(report)
        first = pydicom.dcmread(next((scored / "dicom" / "AB"[row.name == scan and crosswalk.loc[
            scan, "StudyInstanceUID"] == "1.2.4"]).iterdir()))
        for found in (image, numbers):
            for name in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyDate",
                         "AccessionNumber"):
                assert (found.get(name) or None) == (first.get(name) or None), name
            assert found.SeriesInstanceUID != first.SeriesInstanceUID and "research only" in found.SeriesDescription
            uids |= {found.SOPInstanceUID, found.SeriesInstanceUID}
        assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7" and image.pixel_array.shape[2] == 3
        assert image.pixel_array.std() > 10
        (group,) = numbers.content.get_image_measurement_groups()
        measured = {each.name.value: each.value for each in group.get_measurements()}
        assert measured["P45"] == pytest.approx(row["ensemble_prob"], abs=1e-6)
        assert measured["SD"] == pytest.approx(row["sd"], abs=1e-6) and measured["NMODELS"] == 2
        calls = [each.value.value for each in group.get_qualitative_evaluations()]
        assert calls == ["DS45" if row[name] else "DS13" for name in table.filter(like="pred_")]
        assert len(group.source_images) == len(list((scored / "dicom" / "A").iterdir()))
    assert len(uids) == 8


def test_dicom_objects_are_never_written_over(scored, results, monkeypatch):
    picture = io.BytesIO()
    Image.new("RGB", (20, 10)).save(picture, "PNG")
    monkeypatch.setattr("inference.scan_picture.draw", lambda *arguments: picture.getvalue())
    before = {path: path.read_bytes() for path in (scored / "out" / "dicom").iterdir()}
    assert scored_by(scored, results, "--dicom") is None
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list((scored / "out" / "dicom").iterdir())) == 2 * len(before)


# ---------------------------------------------------------------- volumes, errors

def test_a_volume_of_suv_scores_as_its_dicom(scored, results, tmp_path, no_picture):
    call(prepro_script, "--input", scored / "dicom" / "A", "--output", tmp_path, "--save_suv", "--workers", 1,
         "--key", scored / "hash_key.txt")
    (suv,) = (tmp_path / "suv").iterdir()
    (tmp_path / "nifti" / "P1" / "S1").mkdir(parents=True)
    suv.rename(tmp_path / "nifti" / "P1" / "S1" / "SUV.nii.gz")
    assert nibabel.load(tmp_path / "nifti" / "P1" / "S1" / "SUV.nii.gz").shape[0] > 30
    assert scored_by(tmp_path, results, study="nifti") is None
    found = pd.read_csv(tmp_path / "out" / "scores.csv")
    crosswalk = pd.read_csv(scored / "crosswalk.csv", dtype=str).set_index("StudyInstanceUID")
    of_dicom = pd.read_csv(scored / "out" / "scores.csv").set_index("scan_id")
    assert found["ensemble_prob"][0] == pytest.approx(of_dicom.loc[crosswalk.loc["1.2.3", "scan_id"], "ensemble_prob"],
                                                      abs=1e-6)
    assert "not stored" in (tmp_path / "out" / "score.html").read_text()
    with pytest.raises(InputError, match="--dicom: .*SUV.nii.gz is no DICOM study"):
        scored_by(tmp_path, results, "--dicom", study="nifti")


def test_errors_are_one_line(scored, results, tmp_path):
    with pytest.raises(InputError, match="best_run.csv: missing; find_best_model.py --dir"):
        scored_by(scored, tmp_path, out="none")
    assert not (scored / "none").exists()
    with pytest.raises(InputError, match="--top 3: .* ranks 2"):
        scored_by(scored, results, "--top", 3)
    (tmp_path / "best_run.csv").write_text((results / "best_run.csv").read_text())
    (tmp_path / "checkpoint_split0_run1.pth").symlink_to(results / "checkpoint_split0_run1.pth")
    save_model(tmp_path, 1, spacing_mm=4.0)
    with pytest.raises(InputError, match="split0_run1.pth needs MIPs of spacing_mm 3.27, .*1_run1.pth those of 4.0"):
        scored_by(scored, tmp_path)
    with pytest.raises(SystemExit):
        score.get_args_parser().parse_args(["--input", "x", "--output", "y"])


def test_a_body_larger_than_the_frame_is_refused_by_itself(scored, tmp_path, capsys, no_picture):
    write_series(tmp_path / "dicom" / "A", **COARSE)
    save(datasets(size=(150, 100, 60), **COARSE | {"uid": "1.2.7"}), tmp_path / "dicom" / "B")  # a short one
    save_model(tmp_path, 0, frame=(32, 64))
    assert int(2 * BODY[2] / 3.27) > 32
    path = tmp_path / "checkpoint_split0_run1.pth"
    options = ("--input", tmp_path / "dicom", "--checkpoints", path, "--output", tmp_path / "out", *CPU)
    assert call(score, *options) == 1
    assert "larger than a network's frame" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "scores.csv")) == 1
    assert call(score, *options, "--crop_bodies") is None
    said = pd.read_csv(tmp_path / "out" / "scores.csv")["warnings"]
    cut = said.str.contains("larger than a network's frame, 32 x 64, and was cut")
    assert sorted(cut) == [False, True] and "and was cut" in capsys.readouterr().out


def test_without_highdicom_one_line_says_how_to_get_it(scored, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match="--dicom: needs highdicom, .*pip install highdicom"):
        scored_by(scored, results, "--dicom")


def test_views_of_networks_are_made():
    assert [scoring.projections(views) for views in (("cor", "sag"), ("cor",), ("cor", "sag", "rot060", "rot120"),
                                                     ("cor", "rot045", "sag", "rot135"))] == [2, 2, 3, 4]


def test_an_image_that_is_no_suv_refuses_its_scan_alone(tmp_path):
    """As of Ga-68 whose dose is in mCi: prepro_script.py warns of its maximum only."""
    rows = []
    for scan, value in (("a", 2), ("b", 50)):
        image = np.zeros((60, 40), "<f4")
        image[5:-5, 5:-5] = value
        image.tofile(tmp_path / f"{scan}.bin")
        rows.append({"scan_id": scan, "filename": f"{scan}.bin", "view": "cor", "matrix_size_1": 60,
                     "matrix_size_2": 40})
    (refused,) = scoring.unusable(rows, tmp_path, [scoring.LARS], False)[0].items()
    assert refused[0] == "b" and "are the values Bq/ml?" in refused[1]
