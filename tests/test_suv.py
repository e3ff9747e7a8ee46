"""Digital reference objects: each rule of SUV as a DICOM series whose right answer is known, and each refusal.

pytest -q -s -n 0 tests/test_suv.py -k "reference_object or test_refusal"    # the list of them with measured values
"""
import math
import re
import warnings
from datetime import datetime, timedelta

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pet import (
    DECAYED,
    DOSE,
    FRAME_LOSS,
    HALF_LIFE,
    HEIGHT,
    PER_SUV,
    RATE,
    SUV,
    UPTAKE,
    WEIGHT,
    change,
    code,
    datasets,
    save,
    value_at,
    write_series,
)
from pydicom.dataset import Dataset

from preprocessing import suv

AT_INJECTION = DOSE / (WEIGHT * 1000)  # Bq/ml of SUV 1, decay-corrected to the injection
BMI = WEIGHT / HEIGHT**2  # 70 kg, 1.75 m: 22.857
LBM_F, LBM_M = 1.07 * 70 - 148 * 0.16, 1.10 * 70 - 120 * 0.16  # (70 / 175)^2 = 0.16: 51.22 kg, 57.80 kg
VOXEL_ML = 0.2  # 10 x 5 x 4 mm
NO_TIMES = dict.fromkeys(("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime", "RadionuclideTotalDose",
                          "SeriesTime", "AcquisitionTime"))


def decayed(minutes, half_life=HALF_LIFE):
    return AT_INJECTION * 2 ** (-60 * minutes / half_life)


# name: (rescaled value of SUV 1, attributes, what a warning says or "", uptake in min)
CASES = {
    "BQML START": (PER_SUV, {}, "", 60),
    "BQML ADMIN": (AT_INJECTION, {"DecayCorrection": "ADMIN"}, "", 60),
    "ADMIN needs no times": (AT_INJECTION, {"DecayCorrection": "ADMIN", "RadiopharmaceuticalStartTime": None,
                             "RadiopharmaceuticalStartDateTime": None, "AcquisitionTime": None}, "", None),
    "NONE": (PER_SUV * FRAME_LOSS, {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}, "", 60),
    "NONE, DECY contradicts": (PER_SUV * FRAME_LOSS, {"DecayCorrection": "NONE"}, "disagree about DECY", 60),
    "GML without type": (1, {"Units": "GML", **NO_TIMES, "PatientWeight": None}, "", None),
    "GML BW": (1, {"Units": "GML", "SUVType": "BW"}, "", 60),
    "GML LBM F": (LBM_F / 70, {"Units": "GML", "SUVType": "LBM", **NO_TIMES}, "", None),
    "GML LBM M": (LBM_M / 70, {"Units": "GML", "SUVType": "LBM", "PatientSex": "M"}, "", 60),
    "GML LBM O": ((LBM_F + LBM_M) / 140, {"Units": "GML", "SUVType": "LBM", "PatientSex": "O"}, "mean of the male", 60),
    "GML LBM no sex": ((LBM_F + LBM_M) / 140, {"Units": "GML", "SUVType": "LBM", "PatientSex": None}, "mean of", 60),
    "GML LBMJAMES128 M": ((77 - 128 * 0.16) / 70, {"Units": "GML", "SUVType": "LBMJAMES128", "PatientSex": "M"}, "",
                          60),
    "GML LBMJAMES128 F": (LBM_F / 70, {"Units": "GML", "SUVType": "LBMJAMES128"}, "", 60),
    "GML LBMJANMA M": (9270 / (6680 + 216 * BMI), {"Units": "GML", "SUVType": "LBMJANMA", "PatientSex": "M"}, "", 60),
    "GML LBMJANMA F": (9270 / (8780 + 244 * BMI), {"Units": "GML", "SUVType": "LBMJANMA"}, "", 60),
    "GML IBW M": ((48 + 1.06 * 23) / 70, {"Units": "GML", "SUVType": "IBW", "PatientSex": "M"}, "", 60),
    "GML IBW F": ((45.5 + 0.91 * 23) / 70, {"Units": "GML", "SUVType": "IBW"}, "", 60),
    "CM2ML BSA": (18481.4 / 70000, {"Units": "CM2ML", "SUVType": "BSA"}, "", 60),  # 70 kg, 175 cm: 1.84814 m2
    "height in cm": (LBM_F / 70, {"Units": "GML", "SUVType": "LBM", "PatientSize": 175}, "centimetres", 60),
    "CNTS SUV factor": (1 / 0.0005, {"Units": "CNTS", "p7053_1000": "0.0005", "p7053_1009": "0", **NO_TIMES,
                                     "PatientWeight": None}, "SUV factor", None),
    "CNTS activity factor": (PER_SUV / 2.5, {"Units": "CNTS", "p7053_1000": "0", "p7053_1009": "2.5"},
                             "activity factor", 60),
    "CPS DCAL": (PER_SUV * VOXEL_ML, {"Units": "CPS", "CorrectedImage": ["DECY", "ATTN", "DCAL"]}, "", 60),
    "CPS factor": (PER_SUV * VOXEL_ML / 8, {"Units": "CPS", "DoseCalibrationFactor": 8}, "", 60),
    "weight in grams": (PER_SUV, {"PatientWeight": 70000}, "grams: 70 kg", 60),
    "dose in MBq": (PER_SUV, {"RadionuclideTotalDose": 370}, "MBq: 370 MBq", 60),
    "time without date": (PER_SUV, {"RadiopharmaceuticalStartDateTime": None}, "day of the scan was assumed", 60),
    "date without time": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20240310"}, "day of the scan was", 60),
    "midnight, dated": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20240309233000", "SeriesTime": "003000",
                        "AcquisitionTime": "003000", "RadiopharmaceuticalStartTime": "233000"}, "", 60),
    "midnight, no date": (PER_SUV, {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "2330",
                          "SeriesTime": "003000", "AcquisitionTime": "003000"}, "the day before", 60),
    "date moved": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20190705100000"}, "only its time of day", 60),
    "date moved, midnight": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20190705233000", "SeriesTime": "003000",
                             "AcquisitionTime": "003000", "RadiopharmaceuticalStartTime": None}, "only its time", 60),
    "zones": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20240310090000.00+0000",
                        "TimezoneOffsetFromUTC": "+0100"}, "", 60),
    "zone of the injection alone": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20240310100000+0100"},
                                    "offset from UTC was ignored", 60),
    "two injection times": (PER_SUV, {"RadiopharmaceuticalStartTime": "095000"}, "StartDateTime, which was used", 60),
    "injection from GE": (PER_SUV, {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": None,
                          "p0009_103B": "20240310100000.00"}, "GE (0009,103B)", 60),
    "START from GE": (decayed(50), {"p0009_100D": "20240310105000.00"}, "reference is GE (0009,100D)", 50),
    "START, late SeriesTime, frame times": (decayed(50), {"SeriesTime": "130000", "FrameReferenceTime": 1000 * (
        600 + math.log(1 / FRAME_LOSS) / RATE)}, "FrameReferenceTime", 50),
    "START, late SeriesTime alone": (PER_SUV, {"SeriesTime": "130000"}, "assumed to be the earliest Acq", 60),
    "START, no SeriesTime": (PER_SUV, {"SeriesTime": None}, "assumed to be the earliest Acq", 60),
    "START, no AcquisitionTime": (PER_SUV, {"AcquisitionTime": None}, "no AcquisitionTime to compare", 60),
    "START, candidates disagree": (decayed(55), {"SeriesTime": "105500"}, "others disagree: earliest Acqu", 55),
    "half-life by code": (PER_SUV, {"RadionuclideHalfLife": None}, "", 60),
    "half-life by SNOMED CT": (PER_SUV, {"RadionuclideHalfLife": None, "RadionuclideCodeSequence": [code("77004003")]},
                               "", 60),
    "half-life without code": (PER_SUV, {"RadionuclideCodeSequence": None}, "", 60),
    "Ga-68": (decayed(60, 4062.6), {"RadionuclideHalfLife": None, "RadionuclideCodeSequence": [code("C-131A3")]},
              "not FDG: Ga-68", 60),
    "AcquisitionDateTime cut to a date": (PER_SUV, {"AcquisitionDateTime": "20240310"}, "", 60),
    "AcquisitionDateTime cut to a date west of Greenwich": (PER_SUV, {"AcquisitionDateTime": "20240310-0500"}, "", 60),
    "StartDateTime cut to a date west of Greenwich": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20240310-0500"},
                                                      "day of the scan was assumed", 60),
    "two acquisition times": (decayed(30), {"AcquisitionDateTime": "20240310103000"},
                              "AcquisitionTime differs from AcquisitionDateTime", 30),
    "UTC without zone": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20240310080000+0000"},
                         "StartTime, which was used, differs from RadiopharmaceuticalStartDateTime", 60),
    "UTC of the day before without zone": (PER_SUV, {
        "RadiopharmaceuticalStartDateTime": "20240309223000+0000", "RadiopharmaceuticalStartTime": "003000",
        "SeriesTime": "013000", "AcquisitionTime": "013000"}, "StartTime, which was used, differs from", 60),
    "UTC of the acquisition without zone": (PER_SUV, {"AcquisitionDateTime": "20240310100000+0000"},
                                            "AcquisitionTime, which was used, differs from AcquisitionDateTime", 60),
    "zone of the acquisition alone": (PER_SUV, {"AcquisitionDateTime": "20240310110000+0100"},
                                      "the acquisition's offset from UTC was ignored", 60),
    "AcquisitionDateTime without its time": (PER_SUV, {"AcquisitionDateTime": "20240310000000.00"}, "", 60),
    "StartDateTime without its time": (PER_SUV, {"RadiopharmaceuticalStartDateTime": "20240310000000"},
                                       "StartDateTime has no time of day", 60),
    "SeriesDate a dummy": (PER_SUV, {"SeriesDate": "19000101"}, "date of SeriesDate", 60),
    "SeriesDate a dummy, SeriesTime late": (PER_SUV, {"SeriesDate": "19000101", "SeriesTime": "130000"},
                                            "assumed to be the earliest Acq", 60),
    "SeriesDate a dummy, midnight": (PER_SUV, {
        "SeriesDate": "21000101", "SeriesTime": "235959", "AcquisitionTime": "000000.5", "AcquisitionDate": "20240311",
        "RadiopharmaceuticalStartTime": "225959", "RadiopharmaceuticalStartDateTime": "20240310225959"},
        "date of SeriesDate", 60),
    "GE date a dummy": (decayed(50), {"p0009_100D": "19000101105000.00"}, "date of (0009,100D)", 50),
    "FrameReferenceTime 0": (PER_SUV, {"SeriesTime": "130000", "FrameReferenceTime": 0}, "earliest Acq", 60),
    "Zr-89 after four days": (decayed(5760, 282276.0), {
        "RadionuclideHalfLife": None, "RadionuclideCodeSequence": [code("C-168A4")],
        "RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20240306110000"}, "not FDG: Zr-89",
        5760),
    "Cu-64 after two days": (decayed(2880, 45721.0), {
        "RadionuclideHalfLife": 45721.0, "RadionuclideCodeSequence": None, "RadiopharmaceuticalStartTime": None,
        "RadiopharmaceuticalStartDateTime": "20240308110000", "Radiopharmaceutical": "Cu-64 DOTATATE"}, "not FDG: Cu",
        2880),
    "F-18, not FDG": (PER_SUV, {"Radiopharmaceutical": "PSMA-1007"}, "not FDG: F-18 PSMA-1007", 60),
    "weight in pounds": (PER_SUV * 70 / 154, {"PatientWeight": 154}, "BMI of 50: is it in kg", 60),
    "early": (decayed(20), {"SeriesTime": "102000", "AcquisitionTime": "102000"}, "outside 30 to 120 min", 20),
    "late": (decayed(150), {"SeriesTime": "123000", "AcquisitionTime": "123000"}, "outside 30 to 120 min", 150),
    "unit as some write it": (PER_SUV, {"Units": "BQ/ML"}, "", 60),
    "derived": (PER_SUV, {"ImageType": ["DERIVED", "PRIMARY"]}, "ImageType is DERIVED", 60),
    "one gate": (PER_SUV, {"SeriesType": ["GATED", "IMAGE"]}, r"SeriesType is GATED\IMAGE: one time frame or gate", 60),
    "C-11 glucose": (decayed(60, 1224.0), {"RadionuclideHalfLife": 1224.0, "Radiopharmaceutical": "glucose",
                     "RadionuclideCodeSequence": [code("C-105A1")]}, "not FDG: C-11 glucose", 60),
    "fewer slices than announced": (PER_SUV, {"NumberOfSlices": 90}, "NumberOfSlices says 90, 14", 60),
}


@pytest.mark.parametrize("said", ["Fluorodeoxyglucose", "FDG -- fluorodeoxyglucose", "18F-FDG", "Fludeoxyglucose F18",
                                  "2-deoxy-2-[18F]fluoro-D-glucose", "Fluordesoxyglukose", "fluorodésoxyglucose",
                                  "Fluorodeoksyglukoza", "fluorodeoxyglukóza", "", "F-18", "Solution", "F18 solution",
                                  "Unknown", "Fluorine F18", "FLUORINE F^18^", "18F-Fluor"])
def test_names_of_fdg_are_no_warning(said, tmp_path):
    assert suv.suv_volume(write_series(tmp_path, Radiopharmaceutical=said, spacing=(28.0, 20.0, 20.0))).warnings == []


def stamp(seconds):
    """Seconds after 2024-03-10 00:00 -> (date, time) as DICOM has them."""
    moment = datetime(2024, 3, 10) + timedelta(seconds=seconds)
    return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")


@settings(max_examples=25)
@given(st.integers(0, 86399), st.integers(31, 119), st.booleans(), st.sampled_from([None, "20240310"]))
@example(85800, 60, False, "20240310")
def test_beds_without_dates_of_their_own_around_midnight(tmp_path_factory, begun, uptake, dated, day):
    """Beds of five minutes from `begun` (s of the day): whatever lies across midnight, SUV and uptake are right."""
    series = datasets(spacing=(28.0, 20.0, 20.0), per_suv=decayed(uptake), AcquisitionDate=day,
                      SeriesTime=stamp(begun)[1], RadiopharmaceuticalStartTime=stamp(begun - 60 * uptake)[1],
                      RadiopharmaceuticalStartDateTime="".join(stamp(begun - 60 * uptake)) if dated else None)
    for k, ds in enumerate(series):
        ds.AcquisitionTime = stamp(begun + 300 * k)[1]
    volume = suv.suv_volume(save(series, tmp_path_factory.mktemp("beds")))
    assert value_at(volume, (0, 0, 0)) == pytest.approx(1, rel=1e-3) and volume.uptake_min == pytest.approx(uptake)
    across = begun + 300 * (len(series) - 1) >= 86400
    assert ("after midnight" in "; ".join(volume.warnings)) == across


@pytest.mark.parametrize("day", ["20240310", "20240311"])
@pytest.mark.parametrize("kind", ["START", "NONE"])
def test_beds_of_one_date_in_a_series_that_was_written_after_midnight(day, kind, tmp_path):
    """Beds from 23:50 on, dated as the first or as the last, an hour after the injection."""
    beds, none = 300 * np.arange(5), kind == "NONE"
    series = datasets(spacing=(28.0, 20.0, 20.0), per_suv=decayed(60 + beds / 60) * FRAME_LOSS if none else decayed(60),
                      SeriesDate="20240311", SeriesTime="002000", AcquisitionDate=day, DecayCorrection=kind,
                      CorrectedImage=["ATTN"] if none else ["ATTN", "DECY"], RadiopharmaceuticalStartTime="225000",
                      RadiopharmaceuticalStartDateTime="20240310225000")
    for ds, bed in zip(series, beds, strict=True):
        ds.AcquisitionTime = stamp(85800 + int(bed))[1]
    volume = suv.suv_volume(save(series, tmp_path))
    assert [value_at(volume, (0, 0, z)) for z in (-56, 0, 56)] == pytest.approx([1] * 3, rel=1e-3)
    assert volume.uptake_min == pytest.approx(60)
    assert any("AcquisitionDate is the same at times over 12 h apart: the beds after" in said
               for said in volume.warnings)


@settings(max_examples=25)
@given(st.floats(68 * 60, 78 * 3600), st.floats(0.05, 5.9))
def test_a_date_within_six_half_lives_is_believed(tmp_path_factory, half_life, lives):
    uptake = round(half_life * lives)
    day, time = stamp(11 * 3600 - uptake)
    series = datasets(spacing=(28.0, 20.0, 20.0), per_suv=decayed(uptake / 60, half_life),
                      RadionuclideHalfLife=half_life, RadionuclideCodeSequence=None, RadiopharmaceuticalStartTime=None,
                      RadiopharmaceuticalStartDateTime=day + time)
    volume = suv.suv_volume(save(series, tmp_path_factory.mktemp("late")))
    assert value_at(volume, (0, 0, 0)) == pytest.approx(1, rel=1e-3)
    assert volume.uptake_min == pytest.approx(uptake / 60)


YEARS_OFF = st.one_of(st.just(0), st.integers(366, 40000), st.integers(-40000, -366))  # days


@settings(max_examples=50)
@given(st.integers(60, 86400 + 3600), st.integers(31, 119), st.one_of(YEARS_OFF, st.integers(-365, -1)), YEARS_OFF)
def test_dummy_dates_leave_the_times_of_day(tmp_path_factory, begun, uptake, series_days, injection_days):
    """Dates that de-identification moved apart from each other, around midnight; none writes a series before its time.
    """
    series = datasets(
        spacing=(28.0, 20.0, 20.0), per_suv=decayed(uptake), RadiopharmaceuticalStartTime=None,
        AcquisitionDate=stamp(begun + 30)[0], AcquisitionTime=stamp(begun + 30)[1], SeriesTime=stamp(begun)[1],
        SeriesDate=stamp(begun + 86400 * series_days)[0],
        RadiopharmaceuticalStartDateTime="".join(stamp(begun - 60 * uptake + 86400 * injection_days)))
    volume = suv.suv_volume(save(series, tmp_path_factory.mktemp("dummy")))
    assert value_at(volume, (0, 0, 0)) == pytest.approx(1, rel=1e-3)
    assert volume.uptake_min == pytest.approx(uptake + 0.5, abs=0.6)
    said = "; ".join(volume.warnings)
    assert ("date of SeriesDate is not the acquisition's" in said) == bool(series_days)
    assert ("injection's date is not the scan's" in said) == bool(injection_days)


@pytest.mark.parametrize("days", [-400, -40, -1, 1, 40, 400])
def test_a_moved_date_of_ge_leaves_its_time_of_day(days, tmp_path):
    scan = "".join(stamp(39600 + 86400 * days))
    volume = suv.suv_volume(write_series(tmp_path, p0009_100D=scan, SeriesTime="113000", AcquisitionTime="110200"))
    assert value_at(volume, (0, 0, 0)) == pytest.approx(1, rel=1e-3) and volume.uptake_min == pytest.approx(60)
    assert any("the date of (0009,100D) is not the acquisition's" in said for said in volume.warnings)


@pytest.mark.parametrize(("series_time", "injection", "words"), [
    ("090000", "20240310100000", "'(withheld)': -60.0 min before the time that the decay is corrected to, is not"),
    ("110000", "20240309210000", "'(withheld)': 840.0 min before the time that the decay is corrected to, is not"),
    ("110000", "20240310110500", "'(withheld)': -5.0 min before the image, is not within 0 and six half-lives")])
def test_a_time_that_is_refused_is_the_one_that_is_named(series_time, injection, words, tmp_path):
    with pytest.raises(suv.Refused, match=re.escape(words)):
        suv.suv_volume(write_series(tmp_path, RadiopharmaceuticalStartDateTime=injection, SeriesTime=series_time,
                                    RadiopharmaceuticalStartTime=None))


def offset_of(minutes):
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


@settings(max_examples=25)
@given(st.integers(0, 86399), st.integers(31, 119), st.integers(-48, 56), st.integers(-48, 56))
def test_time_zones(tmp_path_factory, begun, uptake, local, stored):
    """The injection in another zone (in quarters of an hour from UTC) than the files: the same instant."""
    injection = begun - 60 * uptake + 900 * (stored - local)
    series = datasets(
        spacing=(28.0, 20.0, 20.0), per_suv=decayed(uptake), TimezoneOffsetFromUTC=offset_of(15 * local),
        AcquisitionDate=stamp(begun)[0], AcquisitionTime=stamp(begun)[1], SeriesDate=stamp(begun)[0],
        SeriesTime=stamp(begun)[1], RadiopharmaceuticalStartTime=None,
        RadiopharmaceuticalStartDateTime="".join(stamp(injection)) + offset_of(15 * stored))
    volume = suv.suv_volume(save(series, tmp_path_factory.mktemp("zone")))
    assert value_at(volume, (0, 0, 0)) == pytest.approx(1, rel=1e-3)
    assert volume.uptake_min == pytest.approx(uptake) and volume.warnings == []


@pytest.mark.parametrize("offset", [-14, -1, 4, 300])
def test_a_late_window_of_an_acquisition_that_ran_at_the_injection(offset, tmp_path):
    """SeriesTime, which the decay is corrected to, `offset` s after the injection; the window 50 min later."""
    volume = suv.suv_volume(write_series(tmp_path, per_suv=decayed(offset / 60), SeriesTime=stamp(39600)[1],
                                         AcquisitionTime=stamp(39600 + 3000)[1],
                                         RadiopharmaceuticalStartTime=stamp(39600 - offset)[1],
                                         RadiopharmaceuticalStartDateTime="".join(stamp(39600 - offset))))
    assert value_at(volume, (0, 0, 0)) == pytest.approx(1, rel=1e-3)
    assert volume.uptake_min == pytest.approx(50 + offset / 60)


@pytest.mark.parametrize(("changed", "question"), [
    ({"PatientWeight": 154}, "are dose, weight and times right?"),  # pounds, of an unknown height
    ({"RadionuclideTotalDose": DOSE * 3}, "are dose, weight and times right?"),
    ({"Units": "GML", "per_suv": 3.6}, "are its values SUV?")])  # kBq/ml, perhaps
def test_a_body_of_an_unusual_mean_is_warned_of(changed, question, tmp_path):
    volume = suv.suv_volume(write_series(tmp_path, PatientSize=None, **changed))
    assert re.search(r"the mean SUV of the body is \S+, not near 1: ", warned := "; ".join(volume.warnings))
    assert question in warned


def test_padding_is_no_suv(tmp_path):
    """No negative SUV of padding reaches a MIP, where whoever reads it refuses the cohort; noise stays."""
    series = datasets()
    for ds in series:
        pixels = np.frombuffer(ds.PixelData, "<i2").reshape(ds.Rows, ds.Columns).copy()
        pixels[:, :2], pixels[:, -1] = -32768, -1
        ds.PixelData, ds.PixelPaddingValue = pixels.tobytes(), -32768
    volume = suv.suv_volume(save(series, tmp_path))
    n_padded = 2 * volume.array.shape[0] * volume.array.shape[1]
    assert volume.warnings == [f"{n_padded} voxels are below SUV -1: taken for padding, and for 0"]
    assert (volume.array[:, :, :2] == 0).all() and (volume.array[:, :, -1] < 0).all()
    assert value_at(volume, (0, 0, 0)) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_reference_object(name, tmp_path):
    per_suv, attributes, warning, uptake = CASES[name]
    volume = suv.suv_volume(write_series(tmp_path / "pet", per_suv=per_suv, **attributes))
    error = max(abs(value_at(volume, centre) / expected - 1) for centre, expected in SUV.items())
    print(f"\n{name:36}", *(f"{value_at(volume, centre):9.5f}" for centre in SUV), f"{error:9.4%} ", volume.warnings)
    for centre, expected in SUV.items():
        assert value_at(volume, centre) == pytest.approx(expected, rel=2e-4)
    assert volume.array.dtype == np.float32 and volume.spacing == pytest.approx((10, 5, 4))
    assert warning in "; ".join(volume.warnings) if warning else volume.warnings == []
    assert volume.uptake_min == (uptake if uptake is None else pytest.approx(uptake, abs=1e-3))


# name: (attributes, the attribute that the refusal names, part of its text)
REFUSALS = {
    "dose in mCi": ({"RadionuclideTotalDose": 8.1}, "RadionuclideTotalDose", "in mCi it would be 299.7 MBq"),
    "dose in GBq": ({"RadionuclideTotalDose": 0.3}, "RadionuclideTotalDose", "in GBq it would be 300 MBq"),
    "dose in kBq": ({"RadionuclideTotalDose": 300000}, "RadionuclideTotalDose", "in kBq it would be 300 MBq"),
    "dose in µCi": ({"RadionuclideTotalDose": 8100}, "RadionuclideTotalDose", "in µCi it would be 299.7 MBq"),
    "dose in mCi that MBq could be": ({"RadionuclideTotalDose": 10}, "RadionuclideTotalDose", "a mean SUV of 3"),
    "all times zero": ({"SeriesTime": "000000", "AcquisitionTime": "000000", "RadiopharmaceuticalStartTime": "000000",
                        "RadiopharmaceuticalStartDateTime": None}, "RadiopharmaceuticalStartTime", "the same time"),
    "all times equal": ({"RadiopharmaceuticalStartTime": "110000", "RadiopharmaceuticalStartDateTime": None},
                        "RadiopharmaceuticalStartTime", "the same time"),
    "Bq/ml that are called SUV": ({"Units": "GML"}, "Units", "a mean SUV of"),
    "rotating MIP": ({"SeriesType": ["WHOLE BODY", "REPROJECTION"]}, "SeriesType", "no volume"),
    "PROPCNTS": ({"Units": "PROPCNTS"}, "Units", "PROPCNTS"),
    "PROPCPS": ({"Units": "PROPCPS"}, "Units", "PROPCPS"),
    "1CM": ({"Units": "1CM"}, "Units", "BQML"),
    "unknown unit": ({"Units": "FURLONG"}, "Units", "withheld"),
    "no unit": ({"Units": None}, "Units", "BQML"),
    "GML BSA": ({"Units": "GML", "SUVType": "BSA"}, "SUVType", "BSA"),
    "CM2ML LBM": ({"Units": "CM2ML", "SUVType": "LBM"}, "SUVType", "LBM"),
    "CNTS without factors": ({"Units": "CNTS"}, "Units", "7053"),
    "CNTS factors 0": ({"Units": "CNTS", "p7053_1000": "0", "p7053_1009": "0"}, "Units", "7053"),
    "CPS uncalibrated": ({"Units": "CPS"}, "DoseCalibrationFactor", "calibrates"),
    "CPS factor 0": ({"Units": "CPS", "DoseCalibrationFactor": 0}, "DoseCalibrationFactor", "calibrates"),
    "no weight": ({"PatientWeight": None}, "PatientWeight", "kg"),
    "weight 0": ({"PatientWeight": 0}, "PatientWeight", "not positive"),
    "weight 0 for LBM": ({"Units": "GML", "SUVType": "LBM", "PatientWeight": 0}, "PatientWeight", "not positive"),
    "no height for LBM": ({"Units": "GML", "SUVType": "LBM", "PatientSize": None}, "PatientSize", "height"),
    "IBW of a dwarf": ({"Units": "GML", "SUVType": "IBW", "PatientSize": 0.9}, "PatientSize", "kg"),
    "no dose": ({"RadionuclideTotalDose": None}, "RadionuclideTotalDose", "missing"),
    "dose 0": ({"RadionuclideTotalDose": 0}, "RadionuclideTotalDose", "0"),
    "no injection": ({"RadiopharmaceuticalInformationSequence": None}, "RadionuclideTotalDose", "missing"),
    "two injections": ({"RadiopharmaceuticalInformationSequence": [Dataset(), Dataset()]},
                       "RadiopharmaceuticalInformationSequence", "more than one"),
    "half-life below 0": ({"RadionuclideHalfLife": -1}, "RadionuclideHalfLife", "missing"),
    "no half-life, no code": ({"RadionuclideHalfLife": None, "RadionuclideCodeSequence": None},
                              "RadionuclideHalfLife", "half-life"),
    "half-life in minutes": ({"RadionuclideHalfLife": 109.77}, "RadionuclideHalfLife", "F-18 has 6586.2"),
    "no injection time": ({"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": None},
                          "RadiopharmaceuticalStartTime", "missing"),
    "injection after the scan": ({"RadiopharmaceuticalStartDateTime": "20240310113000"},
                                 "RadiopharmaceuticalStartTime", "-30.0 min"),
    "six half-lives": ({"RadiopharmaceuticalStartDateTime": "20240309230000"}, "RadiopharmaceuticalStartTime", "six"),
    "injection after the scan, no date": ({"RadiopharmaceuticalStartDateTime": None,
                                          "RadiopharmaceuticalStartTime": "113000"},
                                          "RadiopharmaceuticalStartTime", "six half-lives"),
    "hour 25": ({"RadiopharmaceuticalStartDateTime": "20240310250000"}, "RadiopharmaceuticalStartDateTime", "time of"),
    "month 13": ({"RadiopharmaceuticalStartDateTime": "20241310100000"}, "RadiopharmaceuticalStartDateTime", "date"),
    "no reference": ({"SeriesTime": None, "AcquisitionTime": None}, "AcquisitionTime", "SeriesTime"),
    "NONE without acquisition": ({"DecayCorrection": "NONE", "AcquisitionTime": None}, "AcquisitionTime", "missing"),
    "NONE without duration": ({"DecayCorrection": "NONE", "ActualFrameDuration": None}, "ActualFrameDuration",
                              "missing"),
    "NONE, duration 0": ({"DecayCorrection": "NONE", "ActualFrameDuration": 0}, "ActualFrameDuration", "positive"),
    "no DecayCorrection": ({"DecayCorrection": None}, "DecayCorrection", "START"),
    "decay correction": ({"DecayCorrection": "SOME"}, "DecayCorrection", "START"),
    "not attenuation corrected": ({"CorrectedImage": ["DECY"]}, "CorrectedImage", "ATTN"),
    "no CorrectedImage": ({"CorrectedImage": None}, "CorrectedImage", "ATTN"),
    "intercept": ({"RescaleIntercept": -5}, "RescaleIntercept", "must be 0"),
    "slope 0": ({"RescaleSlope": 0}, "RescaleSlope", "positive"),
    "no slope": ({"RescaleSlope": None}, "RescaleSlope", "missing"),
    "no positions": ({"ImagePositionPatient": None}, "ImagePositionPatient", "missing"),
    "all in one place": ({"ImagePositionPatient": [0, 0, 0]}, "ImagePositionPatient", "4 slices lie where"),
    "no orientation": ({"ImageOrientationPatient": None}, "ImageOrientationPatient", "missing"),
    "skewed axes": ({"ImageOrientationPatient": [1, 0, 0, 0.5, 0.8, 0]}, "ImageOrientationPatient", "perpendicular"),
    "no spacing": ({"PixelSpacing": None}, "PixelSpacing", "missing"),
    "spacing 0": ({"PixelSpacing": [0, 4]}, "PixelSpacing", "0 mm"),
    "no PET": ({"Modality": "CT"}, "Modality", "no PET"),
    "no bits": ({"BitsStored": None}, "BitsStored", "missing"),
    "colour": ({"SamplesPerPixel": 3}, "SamplesPerPixel", "grey"),
    "wrong size": ({"Rows": 21}, "PixelData", "Rows x Columns"),
    "bits": ({"BitsAllocated": 24}, "BitsAllocated/BitsStored/HighBit/PixelRepresentation", "24/16"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name, tmp_path):
    attributes, attribute, words = REFUSALS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on writing what no scanner should write
        folder = write_series(tmp_path / "pet", spacing=(28.0, 5.0, 4.0), **attributes)
    with pytest.raises(suv.Refused) as caught:
        suv.suv_volume(folder)
    print(f"\n{name:36} refused: {caught.value.attribute} {caught.value.value!r}: {caught.value.reason}; "
          f"{caught.value.remedy}")
    assert caught.value.attribute == attribute and words in str(caught.value) and str(folder) in str(caught.value)
    assert caught.value.remedy and "\n" not in str(caught.value)


@pytest.mark.parametrize(("changed", "attribute"), [
    ({"PatientID": "OTHER"}, "PatientID"), ({"PatientWeight": 80}, "PatientWeight"), ({"Units": "GML"}, "Units"),
    ({"RadionuclideTotalDose": 1e8}, "RadionuclideTotalDose"), ({"Rows": 10}, "Rows"),
    ({"FrameOfReferenceUID": "1.2.9"}, "FrameOfReferenceUID"), ({"DecayCorrection": "ADMIN"}, "DecayCorrection"),
    ({"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}, "ImageOrientationPatient"), ({"Modality": "CT"}, "Modality"),
    ({"PixelSpacing": [4, 4]}, "PixelSpacing"), ({"ImagePositionPatient": [-74, -47.5, 75]}, "ImagePositionPatient"),
    ({"RescaleIntercept": 3}, "RescaleIntercept"), ({"SeriesInstanceUID": "1.2.8"}, "SeriesInstanceUID"),
    ({"RescaleSlope": "1_0"}, "RescaleSlope"), ({"RescaleSlope": "nan"}, "RescaleSlope"),
])
def test_one_slice_that_differs_is_refused(changed, attribute, tmp_path):
    series = datasets()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(series[7], **changed)
        folder = save(series, tmp_path / "pet")
    with pytest.raises(suv.Refused) as caught:
        suv.suv_volume(folder)
    assert caught.value.attribute == attribute
    assert "OTHER" not in str(caught.value) and "MRN4711" not in str(caught.value)


def test_numbers_written_differently_are_the_same_number(tmp_path):
    series = datasets()
    change(series[3], PatientWeight="70.00", RadionuclideTotalDose="3.7E8")
    assert value_at(suv.suv_volume(save(series, tmp_path / "pet")), list(SUV)[0]) == pytest.approx(4, rel=2e-4)


def test_slopes_of_slices_and_start_of_beds(tmp_path):
    beds = np.arange(14) // 7 * 180.0  # two bed positions, from START by the frame's own times
    average = math.log(1 / FRAME_LOSS) / RATE
    series = datasets(slopes=np.linspace(0.5, 2, 14), SeriesTime="130000")
    for ds, start in zip(series, beds, strict=True):
        change(ds, AcquisitionTime=f"11{int(start // 60):02d}00", FrameReferenceTime=1000 * (start + average))
    volume = suv.suv_volume(save(series, tmp_path / "pet"))
    assert [value_at(volume, c) for c in SUV] == pytest.approx(list(SUV.values()), rel=1e-3)
    assert volume.uptake_min == pytest.approx(60, abs=1e-3)


def test_frame_times_that_restart_at_each_bed_are_said(tmp_path):
    """FrameReferenceTime from the bed's own start: then every bed is decayed to itself, as the rule has it."""
    beds, average = np.arange(14) // 7 * 180.0, math.log(1 / FRAME_LOSS) / RATE
    series = datasets(SeriesTime="130000", FrameReferenceTime=1000 * average, per_suv=PER_SUV * np.exp(-RATE * beds))
    for ds, start in zip(series, beds, strict=True):
        ds.AcquisitionTime = f"11{int(start // 60):02d}00"
    volume = suv.suv_volume(save(series, tmp_path / "pet"))
    assert [value_at(volume, c) for c in SUV] == pytest.approx(list(SUV.values()), rel=1e-3)
    assert volume.warnings == ["decay reference by FrameReferenceTime differs between slices by up to 3.0 min"]


def test_none_with_several_acquisition_times(tmp_path):
    beds = np.arange(14) // 7 * 180.0
    series = datasets(per_suv=PER_SUV * FRAME_LOSS * np.exp(-RATE * beds), DecayCorrection="NONE",
                      CorrectedImage=["ATTN"])
    for ds, start in zip(series, beds, strict=True):
        ds.AcquisitionTime = f"11{int(start // 60):02d}00"
    volume = suv.suv_volume(save(series, tmp_path / "pet"))
    assert [value_at(volume, c) for c in SUV] == pytest.approx(list(SUV.values()), rel=2e-4)


def test_start_equals_the_formula_in_float32(tmp_path):
    folder = write_series(tmp_path / "pet", slopes=np.linspace(0.5, 2, 14))
    volume = suv.suv_volume(folder)
    for k, path in enumerate(sorted(folder.iterdir())):
        ds = pydicom.dcmread(path)
        expected = ds.pixel_array * float(ds.RescaleSlope) * (70 * 1000) / (370e6 * 2 ** (-UPTAKE / HALF_LIFE))
        np.testing.assert_allclose(volume.array[k], expected, rtol=2**-23)
    assert pytest.approx(2 ** (-UPTAKE / HALF_LIFE)) == DECAYED
