"""--overrides, --suv and --frames: what sites keep on paper, other masses than the body's, dynamic series."""
import numpy as np
import pandas as pd
import pytest
from conftest import call
from hypothesis import given
from hypothesis import strategies as st
from pet import (
    BACKGROUND,
    DOSE,
    HALF_LIFE,
    HEIGHT,
    HOT,
    LEGACY,
    PER_SUV,
    SUV,
    WEIGHT,
    datasets,
    save,
    value_at,
    write_multiframe,
    write_series,
)

import prepro_script
from common.files import InputError
from preprocessing.dicom_values import Refused
from preprocessing.overrides import read_overrides
from preprocessing.suv import suv_volume

COARSE = {"spacing": (20.0, 10.0, 10.0)}
BMI = WEIGHT / HEIGHT**2
LBM = 9270 * WEIGHT / (8780 + 244 * BMI)  # Janmahasatian, F
JAMES = 1.07 * WEIGHT - 148 * (WEIGHT / (100 * HEIGHT)) ** 2
BSA = 0.007184 * (100 * HEIGHT) ** 0.725 * WEIGHT ** 0.425  # m2


def hot(folder, **options):
    volume = suv_volume(folder, **options)
    return value_at(volume, HOT), volume


# --overrides

@pytest.mark.parametrize(("changed", "given", "said"), [
    ({"PatientWeight": None}, {"weight_kg": "70"}, "weight_kg 70 from --overrides, PatientWeight is empty"),
    ({"PatientWeight": 154}, {"weight_kg": "70.0"}, "weight_kg 70.0 from --overrides, PatientWeight is 154"),
    ({"RadionuclideTotalDose": 10.0}, {"dose_MBq": "370"},
     "dose_MBq 370 from --overrides, RadionuclideTotalDose is 10.0 Bq"),
    ({"RadionuclideTotalDose": None}, {"dose_MBq": "370"},
     "dose_MBq 370 from --overrides, RadionuclideTotalDose is empty"),
    ({"RadiopharmaceuticalStartDateTime": "20240310093000"}, {"injection_time": "10:00"},
     "injection_time from --overrides"),
    ({"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": None},
     {"injection_time": "2024-03-10 10:00:00"}, "injection_time from --overrides"),
    ({"SeriesTime": "103000"}, {"series_time": "11:00"}, "series_time from --overrides"),
    ({"SeriesTime": "103000", "p0009_100D": "20240310103000.00"}, {"series_time": "11:00:00"},
     "series_time from --overrides"),
    ({"SeriesTime": "113000"}, {"series_time": "2024-03-10T11:00:00"}, "series_time from --overrides")])
def test_overridden_values_give_the_right_suv_and_are_named(changed, given, said, tmp_path):
    write_series(tmp_path, **changed)
    value, volume = hot(tmp_path, overrides=given)
    assert value == pytest.approx(4, rel=1e-3) and any(text.startswith(said) for text in volume.warnings)


def test_height_and_sex_decide_on_lean_body_mass(tmp_path):
    write_series(tmp_path, PatientSize=None, PatientSex="O")
    with pytest.raises(Refused, match="PatientSize"):
        suv_volume(tmp_path, suv_type="lbm")
    value, volume = hot(tmp_path, suv_type="lbm", overrides={"height_m": "1.75", "sex": "F"})
    assert value == pytest.approx(4 * LBM / WEIGHT, rel=1e-3) and volume.suv_type == "lbm"
    assert volume.warnings == ["height_m 1.75 from --overrides, PatientSize is empty",
                               "sex F from --overrides, PatientSex is O"]


def test_series_time_needs_a_day_and_a_use(tmp_path):
    write_series(tmp_path / "A", SeriesDate=None, AcquisitionDate=None, StudyDate=None)
    with pytest.raises(Refused, match="is of no day"):
        suv_volume(tmp_path / "A", overrides={"series_time": "11:00"})
    write_series(tmp_path / "B", DecayCorrection="ADMIN", per_suv=DOSE / (WEIGHT * 1000))
    value, volume = hot(tmp_path / "B", overrides={"series_time": "11:00"})
    assert value == pytest.approx(4, rel=1e-3)
    assert volume.warnings == ["series_time from --overrides (not used: DecayCorrection is not START)"]


def test_series_time_across_midnight(tmp_path):
    """The scan began at 23:50, the first bed was written at 00:10: a time without a date is the nearest one."""
    write_series(tmp_path, per_suv=DOSE * 2 ** (-50 * 60 / HALF_LIFE) / (WEIGHT * 1000), SeriesTime="001000",
                 AcquisitionTime="001000", RadiopharmaceuticalStartDateTime="20240309230000",
                 RadiopharmaceuticalStartTime="230000")
    value, _ = hot(tmp_path, overrides={"series_time": "23:50"})
    assert value == pytest.approx(4, rel=1e-3)


# 154 kg, 1.75 m, F: LBM 1.07 x 154 - 148 x 0.88^2 = 50.1688 kg, LBMJANMA 9270 x 154 / (8780 + 244 x 50.2857) = 67.8194
# kg, and as M by James 1.10 x 154 - 128 x 0.88^2 = 70.2768 kg; BSA 1.84814 m2 (70 kg) x 2.2^0.425 = 2.58383 m2
GML = {"PatientWeight": 154, "Units": "GML"}


@pytest.mark.parametrize(("changed", "per_suv", "given", "suv_type", "expected", "unused"), [
    ({}, 1, {"weight_kg": "70", "height_m": "1.6", "sex": "M", "dose_MBq": "300", "series_time": "10:00"}, "bw", 4,
     ("weight_kg", "height_m", "sex", "dose_MBq", "series_time")),
    ({}, 1, {"weight_kg": "70"}, "lbm", 4 * 67.8194 / 154, ("weight_kg",)),
    ({}, 1, {"weight_kg": "70", "sex": "M"}, "lbm_james", 4 * 70.2768 / 154, ("weight_kg",)),
    ({}, 1, {"weight_kg": "70", "sex": "M"}, "bsa", 4 * 25.8383 / 154, ("weight_kg", "sex")),
    ({"PatientSize": 1.6}, 1, {"height_m": "1.75"}, "lbm", 4 * 67.8194 / 154, ()),
    ({"PatientWeight": None}, 1, {"weight_kg": "154"}, "lbm", 4 * 67.8194 / 154, ()),
    ({"PatientWeight": 0}, 1, {"weight_kg": "154"}, "bw", 4, ("weight_kg",)),
    ({"Units": "CNTS", "p7053_1000": "0.0005"}, 2000, {"weight_kg": "70", "dose_MBq": "300"}, "lbm", 4 * 67.8194 / 154,
     ("weight_kg", "dose_MBq")),
    ({"SUVType": "LBM"}, 50.1688 / 154, {"weight_kg": "70", "height_m": "1.6", "sex": "M"}, "bw", 4,
     ("weight_kg", "height_m", "sex")),
    ({"SUVType": "LBM"}, 50.1688 / 154, {"weight_kg": "70", "sex": "M"}, "lbm_james", 4 * 70.2768 / 154,
     ("weight_kg",)),
    ({"SUVType": "LBM", "PatientWeight": None, "PatientSize": None, "PatientSex": "O"}, 50.1688 / 154,
     {"weight_kg": "154", "height_m": "1.75", "sex": "F"}, "bw", 4, ()),
    ({"Units": "CM2ML", "SUVType": "BSA"}, 25.8383 / 154, {"weight_kg": "70", "height_m": "1.6"}, "bw", 4,
     ("weight_kg", "height_m")),
    ({"PatientWeight": 1}, 1, {"weight_kg": "154"}, "lbm", 4 * 67.8194 / 154, ()),  # a dummy
    ({"SUVType": "LBM", "PatientSize": 0.1}, 50.1688 / 154, {"height_m": "1.75"}, "bw", 4, ())])
def test_stored_suv_hold_the_scanner_s_own_weight(changed, per_suv, given, suv_type, expected, unused, tmp_path):
    """The files' weight is in the pixels: another one for the mass would mix two; what changes nothing is said so."""
    write_series(tmp_path, per_suv=per_suv, **(GML | changed))
    value, volume = hot(tmp_path, overrides=given, suv_type=suv_type)
    assert value == pytest.approx(expected, rel=2e-4)
    assert [any(said.startswith(f"{name} ") and f"(not used: Units {(GML | changed)['Units']})" in said
                for said in volume.warnings) for name in given] == [name in unused for name in given]


def test_an_override_hides_no_slice_of_another_weight_where_the_pixels_hold_it(tmp_path):
    for units, per_suv in (("BQML", PER_SUV), ("GML", 1)):
        series = datasets(Units=units, per_suv=per_suv)
        series[3].PatientWeight = 80
        save(series, tmp_path / units)
    assert hot(tmp_path / "BQML", overrides={"weight_kg": "70"})[0] == pytest.approx(4, rel=1e-3)
    with pytest.raises(Refused, match="PatientWeight '70.0 and 80.0': differs"):
        suv_volume(tmp_path / "GML", suv_type="lbm", overrides={"weight_kg": "70"})
    series = datasets(**GML, per_suv=1)
    for keyword in ("PatientWeight", "PatientSize", "PatientSex"):  # no other patient
        del series[3][keyword]
    assert hot(save(series, tmp_path / "lacks"), overrides={"weight_kg": "70", "height_m": "1.75", "sex": "F"},
               suv_type="lbm")[0] == pytest.approx(4 * 67.8194 / 154, rel=1e-3)


@given(st.integers(30, 200), st.floats(1.2, 2.1), st.integers(50, 900))
def test_any_weight_and_dose(weight, height, dose):
    """SUV is proportional to the weight and inverse to the dose, whatever the files said."""
    from preprocessing.dicom_values import Header
    from preprocessing.dose import body_height, body_weight, injected_dose, radiopharmaceutical
    from preprocessing.overrides import override
    headers: list[Header] = [{"PatientWeight": b"0 "}, {}]
    override(headers, {"weight_kg": str(weight), "height_m": f"{height:.3f}", "dose_MBq": str(dose)}, lambda text: None)
    for header in headers:
        assert body_weight(header, lambda text: None) == weight
        assert body_height(header, lambda text: None) == pytest.approx(height * 100, abs=0.1)
        assert injected_dose(radiopharmaceutical(header), lambda text: None) == dose * 1e6


@pytest.mark.parametrize(("table", "said"), [
    ("StudyInstanceUID,weight\n1.2,70\n", "no such columns: weight; known are weight_kg"),
    ("StudyInstanceUID,weight_kg\n1.2,70\n\n1.2,71\n", "line 4: StudyInstanceUID is there twice"),
    ("StudyInstanceUID,weight_kg\n1.2,heavy\n", "line 2: weight_kg 'heavy' is not a number"),
    ("StudyInstanceUID,weight_kg\n1.2,nan\n", "is not 1 to 400"),
    ("StudyInstanceUID,height_m\n1.2,175\n", "height_m '175' is not 0.3 to 2.5"),
    ("StudyInstanceUID,dose_MBq\n1.2,370000000\n", "dose_MBq '370000000' is not 1 to 5000"),
    ("StudyInstanceUID,sex\n1.2,W\n", "sex 'W' is not M, F or O"),
    ("StudyInstanceUID,injection_time\n1.2,25:00\n", "injection_time '25:00' is not HH:MM"),
    ("StudyInstanceUID,injection_time\n1.2,2024-02-30 10:00\n", "is not HH:MM"),
    ("StudyInstanceUID,series_time\n1.2,10\n", "series_time '10' is not HH:MM"),
    ("weight_kg\n70\n", "no column StudyInstanceUID")])
def test_tables_that_could_be_misread_are_refused(table, said, tmp_path):
    (tmp_path / "o.csv").write_text(table)
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        read_overrides(str(tmp_path / "o.csv"))


def test_the_script_takes_them_and_converts_again_where_they_change(tmp_path, capsys):
    write_series(tmp_path / "in" / "A", **COARSE, PatientWeight=None)
    options = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--keep_ids", "--workers", 1)
    assert call(prepro_script, *options) == 1
    (tmp_path / "o.csv").write_text("StudyInstanceUID;weight_kg\n1.2.3;70,0\n\n9.9;80\n")
    assert call(prepro_script, *options, "--overrides", tmp_path / "o.csv") is None
    assert "1 study with values that override the files'; 1 row without a study: line 4" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert set(table["warnings"]) == {"weight_kg 70.0 from --overrides, PatientWeight is empty"}
    assert table["suv_max"][0] == pytest.approx(4, rel=1e-2) and set(table["suv_type"]) == {"bw"}
    (tmp_path / "o.csv").write_text("StudyInstanceUID,weight_kg\n1.2.3,35\n")
    assert call(prepro_script, *options, "--overrides", tmp_path / "o.csv") is None
    assert pd.read_csv(tmp_path / "out" / "data.csv")["suv_max"][0] == pytest.approx(2, rel=1e-2)


# --suv

@pytest.mark.parametrize(("kind", "factor"), [
    ("bw", 1), ("lbm", LBM / WEIGHT), ("lbm_james", JAMES / WEIGHT), ("bsa", 10 * BSA / WEIGHT)])
def test_suv_types(kind, factor, tmp_path):
    write_series(tmp_path)
    for centre, suv in SUV.items():
        assert value_at(suv_volume(tmp_path, suv_type=kind), centre) == pytest.approx(suv * factor, rel=1e-3)
    assert suv_volume(tmp_path, suv_type=kind).suv_type == kind


def test_a_stored_lean_body_mass_comes_out_as_it_was(tmp_path):
    """GML of type LBMJANMA, asked for as lbm: the stored values."""
    write_series(tmp_path, Units="GML", SUVType="LBMJANMA", per_suv=1, DecayCorrection="START")
    assert hot(tmp_path, suv_type="lbm")[0] == pytest.approx(4, rel=1e-3)


def test_another_type_is_never_taken_for_body_weight(tmp_path):
    write_series(tmp_path / "in" / "A", **COARSE)
    options = ("--keep_ids", "--workers", 1, "--save_suv")
    call(prepro_script, "--input", tmp_path / "in", "--output", tmp_path / "out", "--suv", "lbm", *options)
    assert set(pd.read_csv(tmp_path / "out" / "data.csv")["suv_type"]) == {"lbm"}
    assert call(prepro_script, "--input", tmp_path / "out" / "suv", "--output", tmp_path / "again", *options) == 1
    assert "is not SUV by body weight" in pd.read_csv(tmp_path / "again" / "errors.csv")["reason"][0]
    call(prepro_script, "--input", tmp_path / "in", "--output", tmp_path / "bw", *options)
    assert call(prepro_script, "--input", tmp_path / "bw" / "suv", "--output", tmp_path / "lbm", "--suv", "lbm",
                *options) == 1
    assert "cannot change it" in pd.read_csv(tmp_path / "lbm" / "errors.csv")["reason"][0]


# --frames

MINUTES = (0, 10, 30)  # of the frames' starts after the scan's, decay-corrected to which
SCALES = (0.5, 1.0, 2.0)  # what each frame's uptake is of the drawn one


def dynamic(folder, kind="DYNAMIC", **changed):
    series = []
    for k, (minute, scale) in enumerate(zip(MINUTES, SCALES, strict=True)):
        frame = datasets(per_suv=PER_SUV * scale, SeriesType=[kind, "IMAGE"], AcquisitionTime=f"11{minute:02d}00",
                         ActualFrameDuration=(k + 1) * 60000, **changed)
        for ds in frame:
            ds.SOPInstanceUID += f".{k}"
        series += frame
    save(series[::-1], folder)


@pytest.mark.parametrize(("frames", "scale", "said"), [
    ("1", 0.5, "dynamic: time frame 1 of 3 was used, by --frames"),
    ("2", 1.0, "dynamic: time frame 2 of 3 was used, by --frames"),
    ("last", 2.0, "dynamic: time frame 3 of 3 was used, by --frames"),
    ("mean", (0.5 + 2 * 1.0 + 3 * 2.0) / 6, "dynamic: the mean of its 3 time frames was used, by --frames, weighted by "
     "their durations, 6 min in all")])
def test_time_frames(frames, scale, said, tmp_path):
    dynamic(tmp_path)
    volume = suv_volume(tmp_path, frames=frames)
    for centre, suv in SUV.items():
        assert value_at(volume, centre) == pytest.approx(suv * scale, rel=1e-3)
    assert volume.warnings[0] == said and len(volume.warnings) == len(set(volume.warnings))


def test_a_scan_that_begins_with_the_injection(tmp_path):
    at_injection = DOSE / (WEIGHT * 1000) / PER_SUV
    dynamic(tmp_path, RadiopharmaceuticalStartDateTime="20240310110000", RadiopharmaceuticalStartTime="110000")
    for frames in ("last", "mean", "1"):
        volume = suv_volume(tmp_path, frames=frames)
        assert value_at(volume, BACKGROUND) > 0 and volume.uptake_min in (0, 30)
    assert value_at(suv_volume(tmp_path, frames="2"), BACKGROUND) == pytest.approx(1 / at_injection, rel=1e-3)


def test_dynamic_series_are_not_taken_unasked(tmp_path):
    dynamic(tmp_path / "in" / "A", **COARSE)
    with pytest.raises(Refused, match="choose time frames with --frames"):
        suv_volume(tmp_path / "in" / "A")
    options = ("--input", tmp_path / "in", "--keep_ids", "--workers", 1)
    assert call(prepro_script, *options, "--output", tmp_path / "no") == 1
    assert call(prepro_script, *options, "--output", tmp_path / "out", "--frames", "last") is None
    assert "time frame 3 of 3" in pd.read_csv(tmp_path / "out" / "data.csv")["warnings"][0]
    write_series(tmp_path / "in" / "B", uid="1.2.3", **COARSE, SeriesInstanceUID="1.2.3.9", SeriesNumber=2)
    assert call(prepro_script, *options, "--output", tmp_path / "out", "--frames", "last") is None
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert "number 2 (" in table["warnings"][0] and "time frame" not in table["warnings"][0]
    assert table["suv_max"][0] == pytest.approx(4, rel=1e-2)


def test_what_is_no_time_frame_is_refused(tmp_path):
    dynamic(tmp_path / "A")
    with pytest.raises(Refused, match="has 3 time frames, --frames 4 is not one of them"):
        suv_volume(tmp_path / "A", frames="4")
    (tmp_path / "A" / "005.dcm").unlink()
    with pytest.raises(Refused, match="2 to 3 time frames at one slice"):
        suv_volume(tmp_path / "A", frames="last")
    dynamic(tmp_path / "B", kind="GATED")
    with pytest.raises(Refused, match="has gates"):
        suv_volume(tmp_path / "B", frames="mean")
    save([ds for k in range(2) for ds in datasets(SOPInstanceUID=f"1.{k}")], tmp_path / "C")
    with pytest.raises(Refused, match="have the same time"):
        suv_volume(tmp_path / "C", frames="last")


@pytest.mark.parametrize("frames", ["0", "first", "-1", "1.5"])
def test_other_frames_are_refused(frames, tmp_path):
    with pytest.raises(InputError, match="--frames"):
        call(prepro_script, "--input", tmp_path, "--output", tmp_path / "out", f"--frames={frames}")


def test_a_static_series_needs_no_frames(tmp_path):
    write_series(tmp_path / "A")
    write_multiframe(tmp_path / "B", LEGACY)
    for folder in ("A", "B"):
        value, volume = hot(tmp_path / folder, frames="last")
        assert value == pytest.approx(4, rel=1e-3) and not any("frame" in text for text in volume.warnings)
        assert np.array_equal(volume.array, suv_volume(tmp_path / folder).array)
