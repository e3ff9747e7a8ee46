"""The synthetic cohort: the same bytes, labels that follow from the volumes, valid DICOM, and no label in intensity."""
import csv
import filecmp
import math
import os
import subprocess
import sys
import time
from datetime import datetime
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import demo
import phantom
from common.files import InputError
from preprocessing.suv import suv_volume
from synthetic.body import draw
from synthetic.canvas import Canvas
from synthetic.cohort import check_output, plan_patient
from synthetic.lesions import SITES, deauville
from synthetic.pet_series import VENDORS, make_uid, plan_acquisition, write_series

ROOT = Path(__file__).parents[1]
COARSE = (64, 8.0, 8.0)  # columns, pixel, slice distance: a quarter of the voxels, for speed


def run(*arguments):
    return subprocess.run([sys.executable, ROOT / "phantom.py", *map(str, arguments)], capture_output=True, text=True)


def coarse_patient(seed, index, **changes):
    return {**plan_patient(seed, index), "grid": COARSE, **changes}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three patients on disk, as the command writes them, with their rows of labels.csv."""
    folder = tmp_path_factory.mktemp("cohort")
    done = run("--output", folder, "--patients", 3, "--seed", 3, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout and str(folder / "labels.csv") in done.stdout
    with open(folder / "labels.csv", newline="") as file:
        return folder, list(csv.DictReader(file))


def test_workers_do_not_change_a_byte(cohort, tmp_path):
    folder, _ = cohort
    assert run("--output", tmp_path / "again", "--patients", 3, "--seed", 3).returncode == 0
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    same, different, errors = filecmp.cmpfiles(folder, tmp_path / "again", files, shallow=False)
    assert len(same) == len(files) > 3 * 150 and not different and not errors


def test_workers_end_with_a_main_process_that_is_killed(tmp_path):
    """They would wait for work for ever, deaf to Ctrl-C."""
    with subprocess.Popen([sys.executable, ROOT / "phantom.py", "--output", tmp_path, "--patients", "50", "--workers",
                           "2"], stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("*/study1")):
            time.sleep(0.1)
        workers = psutil.Process(process.pid).children()
        process.kill()
    assert len(workers) == 2 and not psutil.wait_procs(workers, 20)[1]


def test_another_seed_is_another_cohort(tmp_path):
    volumes = [draw(p := coarse_patient(seed, 0), p["scans"][0])[0] for seed in (0, 1)]
    assert volumes[0].shape != volumes[1].shape or np.abs(volumes[0] - volumes[1]).max() > 1
    assert make_uid(0, 0, 1, "study") != make_uid(1, 0, 1, "study")


def test_one_to_three_scans_and_dicom_on_disk(cohort):
    folder, rows = cohort
    assert {p.name for p in folder.iterdir()} == {row["patient"] for row in rows} | {"labels.csv"}
    for patient in {row["patient"] for row in rows}:
        studies = sorted(p.name for p in (folder / patient).iterdir())
        assert studies == sorted(row["study"] for row in rows if row["patient"] == patient)
        assert 1 <= len(studies) <= 3
    counts = {len(plan_patient(0, index)["scans"]) for index in range(60)}
    assert counts == {1, 2, 3}


def seconds(text):
    return datetime.strptime(str(text).split(".")[0], "%H%M%S")


def independent_suv(slices):
    """SUV by suv.md, plainly: rule 7 for START by FrameReferenceTime, no decay for ADMIN; (z, y, x), feet first."""
    first = slices[0]
    item = first.RadiopharmaceuticalInformationSequence[0]
    rate = math.log(2) / float(item.RadionuclideHalfLife)
    volume = []
    for ds in slices:
        dose = float(item.RadionuclideTotalDose)
        if ds.DecayCorrection == "START":
            frame = float(ds.ActualFrameDuration) / 1000
            average = math.log(rate * frame / (1 - math.exp(-rate * frame))) / rate
            offset = average - float(ds.FrameReferenceTime) / 1000
            waited = (seconds(ds.AcquisitionTime) - seconds(item.RadiopharmaceuticalStartTime)).total_seconds() + offset
            assert 45 * 60 < waited < 85 * 60
            dose *= 2 ** (-waited / float(item.RadionuclideHalfLife))
        values = ds.pixel_array.astype(float) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        volume.append(values * float(ds.PatientWeight) * 1000 / dose)
    return np.array(volume)


def check_study(folder, volume, axes, patient, uid):
    """Assert that a folder is one valid PET series that gives `volume` back; return its slices, feet first."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    assert len(slices) == len(volume) == int(slices[0].NumberOfSlices)
    assert [int(ds.InstanceNumber) for ds in slices] == list(range(1, len(slices) + 1))
    for ds in slices:
        assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.128" and ds.Modality == "PT" and ds.Units == "BQML"
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID and ds.SOPInstanceUID.is_valid
        assert not any(element.tag.is_private for element in ds)
        assert "ATTN" in ds.CorrectedImage and "DECY" in ds.CorrectedImage and float(ds.RescaleIntercept) == 0
        assert all("SYNTHETIC" in ds[k].value for k in ("SeriesDescription", "StudyDescription", "ImageComments"))
        assert ds.StudyInstanceUID == uid and ds.StudyInstanceUID.is_valid and ds.pixel_array.dtype == np.int16
        assert float(ds.ImagePositionPatient[2]) == float(ds.SliceLocation)
    assert len({ds.SOPInstanceUID for ds in slices}) == len(slices)
    assert len({float(ds.RescaleSlope) for ds in slices}) > len(slices) // 2
    slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    assert np.allclose([float(ds.ImagePositionPatient[2]) for ds in slices], axes[0], atol=6e-4)
    suv, right_to_left = independent_suv(slices), slices[0].ImageOrientationPatient[0] == 1
    assert np.allclose(slices[0].ImagePositionPatient[:2], [axes[2][0 if right_to_left else -1], axes[1][0]], atol=6e-4)
    assert float(slices[0].PatientSize) == pytest.approx(patient["height_cm"] / 100)
    suv = suv if right_to_left else suv[:, :, ::-1]
    step = volume.max((1, 2), keepdims=True) / 32767
    assert np.all(np.abs(suv - volume) <= 0.51 * step + 1e-5 * volume)
    return slices


def test_every_study_is_valid_and_gives_its_suv_back(cohort):
    folder, rows = cohort
    for row in rows:
        patient = plan_patient(3, int(row["patient"].rsplit("-", 1)[1]))
        scan = next(scan for scan in patient["scans"] if scan["study"] == row["study"])
        volume, truth = draw(patient, scan)
        check_study(folder / row["patient"] / row["study"], volume, truth["axes"], patient, row["StudyInstanceUID"])
        assert row["synthetic"] == "1" and row["sex"] == patient["sex"]
    assert len({row["StudyInstanceUID"] for row in rows}) == len(rows)


@pytest.mark.parametrize("change", [
    {"decay_correction": "ADMIN"}, {"decay_correction": "START", "series_time_s": 3000, "bed_slices": 30},
    {"feet_first": True}, {"head_to_feet": True, "bed_slices": 30}, {"head_to_feet": False, "bed_slices": None},
    {"explicit": False, "dated": False}, {"explicit": True, "dated": True}])
def test_every_acquisition_gives_the_suv_back(tmp_path, change):
    patient = coarse_patient(4, 0)
    scan = patient["scans"][0]
    volume, truth = draw(patient, scan)
    acquisition = {**plan_acquisition(patient, scan), **change}
    write_series(volume, truth["axes"], patient, scan, acquisition, tmp_path / "study")
    assert [p.name for p in tmp_path.iterdir()] == ["study"]
    slices = check_study(tmp_path / "study", volume, truth["axes"], patient, make_uid(4, 0, 1, "study"))
    first, times = slices[0], {ds.AcquisitionTime for ds in slices}
    item = first.RadiopharmaceuticalInformationSequence[0]
    assert first.DecayCorrection == acquisition["decay_correction"]
    assert (first.PatientPosition == "FFS") == acquisition["feet_first"] == (first.ImageOrientationPatient[0] == -1)
    assert (int(first.InstanceNumber) != 1) == acquisition["head_to_feet"]
    assert (first.SeriesTime > max(times)) == (acquisition["series_time_s"] > 0)
    assert len(times) == (math.ceil(len(slices) / acquisition["bed_slices"]) if acquisition["bed_slices"] else 1)
    assert first.file_meta.TransferSyntaxUID.is_implicit_VR != acquisition["explicit"]
    assert ("RadiopharmaceuticalStartDateTime" in item) == acquisition["dated"]


def test_acquisitions_of_a_cohort_cover_what_is_found_in_public_series():
    patients = [plan_patient(0, index) for index in range(120)]
    acquisitions = [plan_acquisition(patient, scan) for patient in patients for scan in patient["scans"]]
    share = {key: np.mean([bool(h[key]) for h in acquisitions])
             for key in ("dated", "series_time_s", "bed_slices", "feet_first", "head_to_feet", "explicit")}
    assert all(0.03 < value < 0.9 for value in share.values()), share
    assert share["dated"] < 0.6 and share["bed_slices"] > 0.5
    assert {h["vendor"] for h in acquisitions} == set(VENDORS) and not any(h["private"] for h in acquisitions)
    assert 0.05 < np.mean([h["decay_correction"] == "ADMIN" for h in acquisitions]) < 0.3


def test_data_csv_holds_the_default_cohort():
    """The repository's manifest names the images of `make demo-data`: a change of the draws breaks it."""
    asked = demo.get_args_parser().parse_args([])
    with open(ROOT / "data.csv", newline="") as file:
        rows = {row["scan_id"]: row for row in csv.DictReader(file)}
    scans = [(patient, scan) for patient in (plan_patient(asked.seed, i) for i in range(asked.patients))
             for scan in patient["scans"]]
    assert len(scans) == len(rows)
    for patient, scan in scans:
        row = rows[make_uid(asked.seed, patient["index"], scan["number"], "study")]
        acquisition = plan_acquisition(patient, scan)
        assert (row["vendor"], row["decay_correction"]) == (acquisition["vendor"], acquisition["decay_correction"])
        waited = (acquisition["start"] - acquisition["injection"]).seconds / 60
        assert float(row["uptake_min"]) == pytest.approx(waited, abs=0.06)
        assert float(row["weight_kg"]) == patient["weight_kg"] and row["units"] == "BQML"


# What the vendors' own files differ in: (vendor, what is forced)
VENDOR_FILES = [("siemens", {}), ("siemens", {"series_time_s": 3000}),
           ("ge", {"series_time_s": 0, "explicit": True}), ("ge", {"series_time_s": -600, "explicit": False}),
           ("ge", {"series_time_s": 3000, "bed_slices": 30}),
           ("philips", {"suv_factor": True, "one_slope": True, "explicit": False}),
           ("philips", {"suv_factor": False, "one_slope": True, "explicit": True}),
           ("philips", {"suv_factor": False, "one_slope": False})]


def suv_steps(slices, patient, acquisition):
    """SUV of one stored unit, slice by slice from the feet: the slopes, by the patient's true dose, weight and wait."""
    dose = acquisition["dose"]
    if acquisition["decay_correction"] == "START":
        dose *= 2 ** (-(acquisition["start"] - acquisition["injection"]).total_seconds() / 6586.2)
    slopes = np.array([float(ds.RescaleSlope) for ds in slices])
    if slices[0].Units == "CNTS":  # to Bq/ml
        slopes *= float(slices[0].get_private_item(0x7053, 0x09, "Philips PET Private Group").value)
    return slopes * patient["weight_kg"] * 1000 / dose


def check_vendor_files(slices, acquisition):
    """What each vendor's files hold, and the others' do not."""
    first, vendor = slices[0], acquisition["vendor"]
    creators = {element.value for element in first if element.tag.is_private_creator}
    assert creators == {"siemens": set(), "ge": {"GEMS_PETD_01"}, "philips": {"Philips PET Private Group"}}[vendor]
    assert first.Units == ("CNTS" if vendor == "philips" else "BQML")
    if vendor == "siemens":
        assert len({ds.AcquisitionTime for ds in slices}) > 1
    elif vendor == "ge":
        scan, injected = (first.get_private_item(0x0009, element, "GEMS_PETD_01") for element in (0x0D, 0x3B))
        assert (scan.tag, injected.tag, scan.VR, injected.VR) == ((0x0009, 0x100D), (0x0009, 0x103B), "DT", "DT")
        scan, injected, series = (datetime.strptime(str(text)[:14], "%Y%m%d%H%M%S") for text in (
            scan.value, injected.value, first.SeriesDate + first.SeriesTime))
        assert (scan, injected) == (acquisition["start"], acquisition["injection"])
        assert (series - scan).total_seconds() == acquisition["series_time_s"]
    else:
        factor = first.get_private_item(0x7053, 0x00, "Philips PET Private Group")
        assert factor.tag == (0x7053, 0x1000) and factor.VR == "DS" and (factor.value != 0) == acquisition["suv_factor"]
        assert (len({ds.RescaleSlope for ds in slices}) == 1) == acquisition["one_slope"]


@pytest.mark.parametrize("decay_correction", ["START", "ADMIN"])
def test_the_same_patient_has_the_same_suv_from_every_vendor(tmp_path, decay_correction):
    """To half a stored unit of each: float32 adds 2^-22 of the value, on the way in and out."""
    patient = coarse_patient(4, 0)
    scan = patient["scans"][0]
    volume, truth = draw(patient, scan)
    read = []
    for vendor, change in VENDOR_FILES:
        acquisition = {**plan_acquisition(patient, scan, vendor), "decay_correction": decay_correction, **change}
        write_series(volume, truth["axes"], patient, scan, acquisition, tmp_path / "study")
        slices = [pydicom.dcmread(path) for path in sorted((tmp_path / "study").glob("*.dcm"))]
        slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
        check_vendor_files(slices, acquisition)
        got = suv_volume(tmp_path / "study")
        half = suv_steps(slices, patient, acquisition)[:, None, None] / 2 + 2 ** -22 * volume
        assert half.max() < volume.max() / 60000
        assert got.array.shape == volume.shape and np.all(np.abs(got.array.astype(float) - volume) <= half)
        waited = (acquisition["start"] - acquisition["injection"]).total_seconds() / 60
        assert got.uptake_min == pytest.approx(waited, abs=1e-6)
        assert got.units == slices[0].Units and got.series_uid == slices[0].SeriesInstanceUID
        early = vendor == "ge" and acquisition["series_time_s"] < 0 and decay_correction == "START"
        assert any("reference is GE (0009,100D), others disagree: SeriesTime -10.0 min" in text
                   for text in got.warnings) == early
        assert any("CNTS converted with Philips" in text for text in got.warnings) == (vendor == "philips")
        read.append((vendor, got, half))
    for i, (_, one, half) in enumerate(read):
        for _, other, other_half in read[:i]:
            assert np.all(np.abs(one.array.astype(float) - other.array) <= half + other_half)
            assert (one.spacing, one.origin, one.study_uid) == (other.spacing, other.origin, other.study_uid)
    assert len({(vendor, got.series_uid) for vendor, got, _ in read}) == 3
    assert any(not np.array_equal(read[0][1].array, got.array) for _, got, _ in read)  # other pixels, not one's copies


@pytest.mark.parametrize("vendor", list(VENDORS))
def test_acquisitions_of_one_vendor(vendor):
    assert phantom.get_args_parser().parse_args(["--output", "x", "--vendor", vendor]).vendor == vendor
    patients = [plan_patient(0, index) for index in range(200)]
    mixed, own = ([plan_acquisition(patient, scan, name) for patient in patients for scan in patient["scans"]]
                  for name in ("mixed", vendor))
    share = {key: np.mean([bool(h[key]) for h in own]) for key in ("bed_slices", "series_time_s", "suv_factor",
                                                                   "one_slope", "activity_factor")}
    assert all(h["vendor"] == vendor and h["private"] for h in own)
    assert all(a[key] == b[key] for a, b in zip(mixed, own, strict=True)
               for key in ("start", "injection", "dose", "decay_correction", "frame_s"))
    assert (share["bed_slices"] == 1) == (vendor == "siemens")
    late = [h["series_time_s"] for h in own]
    assert 0.2 < share["series_time_s"] < 0.3 and min(late) < 0 < max(late) if vendor == "ge" else min(late) == 0
    if vendor == "philips":
        assert share["activity_factor"] == 1 and 0.6 < share["suv_factor"] < 0.8 and 0.4 < share["one_slope"] < 0.6
    else:
        assert share["activity_factor"] == share["suv_factor"] == share["one_slope"] == 0


def test_vendor_option(tmp_path):
    done = run("--output", tmp_path / "one", "--patients", 1, "--seed", 5, "--workers", 1, "--vendor", "philips")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "one" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["vendor"] for row in rows} == {"philips"}
    patient = plan_patient(5, 0)
    for row, scan in zip(rows, patient["scans"], strict=True):
        slices = [pydicom.dcmread(path) for path in (tmp_path / "one" / row["patient"] / row["study"]).glob("*.dcm")]
        check_vendor_files(slices, plan_acquisition(patient, scan, "philips"))
        assert {ds.StudyInstanceUID for ds in slices} == {row["StudyInstanceUID"]}


def sphere_values(volume, axes, sphere):
    """Independent of canvas.voi: a mask over the whole volume."""
    z, y, x = np.meshgrid(*axes, indexing="ij")
    cx, cy, cz, diameter = sphere
    return volume[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= (diameter / 2) ** 2]


def test_labels_follow_from_the_volume_by_the_deauville_rule():
    scores, sites = [], set()
    for index in range(10):
        patient = coarse_patient(11, index)
        for scan in patient["scans"]:
            volume, truth = draw(patient, scan, noise=False)
            liver = sphere_values(volume, truth["axes"], truth["liver_voi"]).mean()
            pool = sphere_values(volume, truth["axes"], truth["pool_voi"]).mean()
            assert pool < liver and 1.6 < liver < 3.1 and 0.9 < pool < 2.2
            found = [(sphere_values(volume, truth["axes"], [lesion[k] for k in ("x", "y", "z", "diameter")]).max(),
                      lesion["site"]) for lesion in truth["lesions"]]
            suv, site = max(found, default=(0, 51))
            assert all(not liver < value < 1.3 * liver for value, _ in found)
            new = scan["number"] > 1 and any(s not in scan["known_sites"] and v > 1.3 * liver for v, s in found)
            score = 1 if not found else 2 if suv <= pool else 3 if suv <= liver else 4
            if score == 4 and (suv >= 2 * liver or new):
                score = 5
            assert truth["deauville"] == score and truth["target"] == (score >= 4)
            assert truth["target_loc"] == (site if score >= 4 else 51)
            scores.append(score)
            sites |= {site for _, site in found}
    assert set(scores) == {1, 2, 3, 4, 5} and len(sites) >= 10


@pytest.mark.parametrize(("suv", "new", "score"), [
    (None, False, 1), (1.4, False, 2), (1.5, False, 2), (1.6, False, 3), (2.0, True, 3), (2.8, False, 4),
    (3.99, False, 4), (4.0, False, 5), (2.8, True, 5)])
def test_deauville_rule_by_hand(suv, new, score):
    assert deauville(suv, pool=1.5, liver=2.0, new_site=new) == score


def test_planned_scores_come_about():
    scans = [(patient, scan) for patient in (coarse_patient(5, i) for i in range(8)) for scan in patient["scans"]]
    planned = [scan["planned"] for _, scan in scans]
    drawn = [draw(*pair, noise=False)[1]["deauville"] for pair in scans]
    assert sum(a == b for a, b in zip(planned, drawn, strict=True)) >= 0.85 * len(scans)


def test_lesions_lie_in_the_body_and_at_their_sites(cohort):
    _, rows = cohort
    assert any(row["lesions"] for row in rows)
    for row in rows:
        lesions = [entry.split(":") for entry in row["lesions"].split(";") if entry]
        assert len(lesions) == int(row["n_lesions"]) and all(int(site) in SITES for site, *_ in lesions)
        if int(row["target"]):
            hottest = max(lesions, key=lambda entry: float(entry[-1]))
            assert int(row["target_loc"]) == int(hottest[0])
            assert float(hottest[-1]) > 1.3 * float(row["liver_suv"]) - 2e-3
        else:
            assert row["target_loc"] == "51"
    assert sorted(SITES) == [1, 2, 5, 6, 7, 8, 9, 10, 11, 20, 25, 27, 28]


def test_the_body_fits_the_frame():
    """930 mm are 288 rows of 3.27 mm; 500 mm fit into 160 columns."""
    for index in range(0, 300, 6):
        patient = plan_patient(0, index)
        columns, pixel, distance = patient["grid"]
        canvas = Canvas(patient, np.zeros(3))
        assert len(canvas.z) * distance <= 930 and columns * pixel <= 523
        assert -12.1 < canvas.z[-1] + distance / 2 - 12 < 0.1
        assert canvas.z[0] < -800 * patient["long"]
    for index in range(0, 300, 50):
        patient = coarse_patient(0, index, arms="down")
        volume, truth = draw(patient, patient["scans"][0], noise=False)
        wide = truth["axes"][2][(volume.max((0, 1)) > 0.15)]
        assert wide.max() - wide.min() <= 500 + COARSE[1]


def test_uptake_is_physiological():
    """The organs have the uptake that was asked for, in every scan: brain and bladder hot, lung cold."""
    for index in range(5):
        patient = coarse_patient(2, index)
        volume, truth = draw(patient, {**patient["scans"][0], "lesions": []}, noise=False)
        assert truth["deauville"] == 1 and truth["lesions"] == []
        canvas = Canvas(patient, np.zeros(3))

        def at(point, volume=volume, truth=truth, canvas=canvas):
            canvas.origin = truth["origin"]
            return sphere_values(volume, truth["axes"], (*canvas.to_mm(point), 20)).mean()

        assert 5 < at((0, -70, 60)) < 15 and at((0, -34, 800)) > 6
        assert at((-95, 20, 480)) < 0.9 < truth["pool"]
        assert 0.2 < at((90, 0, 860)) < 1


def test_arms_option():
    for arms in ("up", "down"):
        assert plan_patient(0, 1, arms)["arms"] == arms
    assert {plan_patient(0, i)["arms"] for i in range(30)} == {"up", "down"}


@pytest.mark.parametrize(("argument", "word"), [
    ("--patients=0", "--patients: 0 is"), ("--workers=0", "--workers: 0 is"), ("--seed=-1", "--seed: -1 is")])
def test_bad_arguments_are_refused(tmp_path, argument, word):
    done = run("--output", tmp_path / "x", argument)
    assert done.returncode == 2 and word in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "SYN-9-0000").mkdir()
    done = run("--output", tmp_path, "--patients", 1)
    assert done.returncode == 2 and "SYN-9-0000" in done.stderr and done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["SYN-9-0000"]


def test_studies_of_an_earlier_cohort_are_refused(tmp_path):
    """Its labels would not cover them."""
    before, now = next(pair for pair in ((plan_patient(0, i), plan_patient(0, i, "down")) for i in range(30))
                       if len(pair[0]["scans"]) > len(pair[1]["scans"]))
    for scan in before["scans"]:
        (tmp_path / before["patient"] / scan["study"]).mkdir(parents=True)
    (tmp_path / before["patient"] / ".study1.tmp").mkdir()  # of a run that was killed
    for name in ("labels.csv", ".DS_Store", f"{before['patient']}/Thumbs.db"):
        (tmp_path / name).touch()
    check_output(tmp_path, [before])
    with pytest.raises(InputError, match=f"holds {before['patient']}/study{len(now['scans']) + 1}, nothing of this"):
        check_output(tmp_path, [now])


def intensity_statistics(volume):
    """Ten features: maximum, mean, deviation, 95th and 99th percentile of the body's pixels in both MIPs."""
    features = []
    for axis in (1, 2):
        mip = volume.max(axis)
        body = mip[mip > 0.1]
        features += [body.max(), body.mean(), body.std(), *np.percentile(body, (95, 99))]
    return features


def statistics_of_patient(job):
    seed, index, grid = job
    patient = plan_patient(seed, index)
    patient["grid"] = grid or patient["grid"]
    drawn = [draw(patient, scan) for scan in patient["scans"]]
    return [(index, truth["target"], *intensity_statistics(volume)) for volume, truth in drawn]


def intensity_aucs(patients, grid):
    """Test AUC of the MIP maximum, and of logistic regression on ten statistics by five-fold tests over patients."""
    with Pool(os.cpu_count()) as pool:
        jobs = [(0, index, grid) for index in range(patients)]
        table = np.array([row for rows in pool.imap(statistics_of_patient, jobs) for row in rows], float)
    y_true, y_score = table[:, 1].astype(int), np.zeros(len(table))
    assert 0.3 < y_true.mean() < 0.6
    for train, test in GroupKFold(5).split(table, groups=table[:, 0]):
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(table[train, 2:], y_true[train])
        y_score[test] = model.predict_proba(table[test, 2:])[:, 1]
    return roc_auc_score(y_true, table[:, 2]), roc_auc_score(y_true, y_score)


def test_intensity_does_not_give_the_label_away():
    maximum, statistics = intensity_aucs(80, COARSE)
    assert maximum < 0.75 and statistics < 0.80


@pytest.mark.slow
def test_intensity_does_not_give_the_label_away_at_full_size():
    maximum, statistics = intensity_aucs(300, None)
    assert maximum < 0.75 and statistics < 0.80
