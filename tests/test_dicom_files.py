"""PET series as files: orientation, gaps and copies of slices, syntaxes, multi-frame objects, damage."""
import math

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pet import (
    AXIAL,
    CORONAL,
    ENHANCED,
    FEET_FIRST,
    LEGACY,
    PER_SUV,
    PRONE,
    REAL,
    SAGITTAL,
    SUV,
    SYNTAXES,
    change,
    changed,
    datasets,
    needs_real_series,
    save,
    value_at,
    write_multiframe,
    write_series,
)

from preprocessing import dicom_pixels, dicom_reader, dicom_values, suv


@pytest.mark.parametrize(("orientation", "spacing"), [
    (AXIAL, (10, 5, 4)), (FEET_FIRST, (10, 5, 4)), (PRONE, (10, 5, 4)), (SAGITTAL, (5, 4, 10)), (CORONAL, (5, 10, 4)),
    ((0.9962, 0, 0.0872, 0, 1, 0), (10, 5, 4)), ((math.cos(0.5), math.sin(0.5), 0, 0, 0, -1), (5, 10, 4))])
def test_every_orientation_gives_the_same_patient(orientation, spacing, tmp_path):
    volume = suv.suv_volume(write_series(tmp_path / "pet", orientation=orientation))
    for centre, expected in SUV.items():
        assert value_at(volume, centre) == pytest.approx(expected, rel=2e-4)
    assert volume.spacing == pytest.approx(spacing, rel=1e-3)
    middle = np.array(volume.origin) + (np.array(volume.array.shape) - 1) / 2 * volume.spacing
    assert np.abs(middle).max() < max(spacing) / 2  # the object is centred on the patient's 0, 0, 0
    hot = np.argwhere(volume.array > 3).mean(axis=0) * volume.spacing + volume.origin
    assert hot[::-1] == pytest.approx(np.array(list(SUV)[0]), abs=3)
    assert volume.array.flags.c_contiguous and np.isfinite(volume.array).all()
    oblique = max(sorted(map(abs, orientation))[:-2]) > 0.01
    assert (["oblique"] == [w.split()[1] for w in volume.warnings]) == oblique


def test_an_oblique_series_keeps_its_activity(tmp_path):
    straight = suv.suv_volume(write_series(tmp_path / "a"))
    oblique = suv.suv_volume(write_series(tmp_path / "b", orientation=(math.cos(0.3), math.sin(0.3), 0, 0, 0, -1)))
    totals = [v.array.sum(dtype=float) * math.prod(v.spacing) for v in (straight, oblique)]
    assert totals[1] == pytest.approx(totals[0], rel=0.03)


def test_position_decides_not_name_number_or_thickness(tmp_path):
    series = datasets(SliceThickness=3)
    rng = np.random.default_rng(0)
    for ds, number in zip(series, rng.permutation(len(series)), strict=True):
        ds.InstanceNumber = int(number)
    rng.shuffle(series)
    volume = suv.suv_volume(save(series, tmp_path / "pet"))
    assert volume.spacing[0] == pytest.approx(10)
    assert [value_at(volume, c) for c in SUV] == pytest.approx(list(SUV.values()), rel=2e-4)


@pytest.mark.parametrize(("keep", "words"), [
    (lambda s: s[:9] + s[10:], "slices are missing"), (lambda s: s[:1], "one slice"),
    (lambda s: s + changed(datasets(), InstitutionName="X", SOPInstanceUID="1.2.3"), "14 slices lie where"),
    (lambda s: s + changed(datasets(), AcquisitionTime="110001"), "14 slices lie where")])
def test_missing_and_duplicated_slices(keep, words, tmp_path):
    series = keep(datasets())
    with pytest.raises(suv.Refused, match=words):
        suv.suv_volume(save(series, tmp_path / "pet"))


def test_shifted_and_overlapping_slices(tmp_path):
    series = datasets()
    x, y, z = series[5].ImagePositionPatient
    change(series[5], ImagePositionPatient=[x + 5, y, z])
    with pytest.raises(suv.Refused, match="sideways"):
        suv.suv_volume(save(series, tmp_path / "a"))
    change(series[5], ImagePositionPatient=[x, y, z])
    change(series[0], ImagePositionPatient=[x, y, z + 4])
    with pytest.raises(suv.Refused, match="slices overlap"):
        suv.suv_volume(save(series, tmp_path / "b"))


def test_uneven_slices_are_put_on_an_even_grid(tmp_path):
    series = datasets()
    for k, ds in enumerate(series):  # 8 mm apart below the middle, 10 mm above
        x, y, z = ds.ImagePositionPatient
        change(ds, ImagePositionPatient=[x, y, z * 0.8 if k < 7 else z],
               PixelData=np.full((20, 38), 1000, "<i2").tobytes())
        ds.RescaleSlope = float(ds.ImagePositionPatient[2] + 100) * PER_SUV / 1e5  # SUV linear in z
    volume = suv.suv_volume(save(series, tmp_path / "pet"))
    line = volume.array[:, 3, 3].astype(float)
    assert "uneven slice positions" in "; ".join(volume.warnings)
    assert np.diff(line) == pytest.approx(volume.spacing[0] / 100, rel=1e-3)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_headers_read_as_pydicom_reads_them(syntax, tmp_path):
    path = sorted(write_series(tmp_path / "pet", syntax, p7053_1000="0.5").iterdir())[3]
    header, ds = dicom_reader.read_header(path), pydicom.dcmread(path)
    for keyword in ("PatientID", "Units", "SeriesTime", "StudyInstanceUID", "Manufacturer"):
        assert dicom_values.text(header, keyword) == str(ds[keyword].value)
    assert dicom_values.numbers(header, "ImagePositionPatient", 3) == list(ds.ImagePositionPatient)
    assert dicom_values.integer(header, "Columns") == ds.Columns
    assert dicom_values.number(header, dicom_values.private(header, 0x7053, "Philips PET Private Group", 0)) == 0.5
    assert header["RadiopharmaceuticalInformationSequence"][0]["RadionuclideTotalDose"].strip() == b"370000000.0"
    assert (dicom_pixels.read_pixels(header) == ds.pixel_array).all()
    assert [value_at(suv.suv_volume(path.parent), c) for c in SUV] == pytest.approx(list(SUV.values()), rel=2e-4)


def test_private_elements_follow_their_creator(tmp_path):
    series = datasets(Units="CNTS", per_suv=4)
    for ds in series:
        ds.private_block(0x7053, "SOMEONE ELSE", create=True).add_new(0x00, "DS", "7")
        ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.25")
        assert ds[0x7053, 0x1100].value == 0.25
    assert value_at(suv.suv_volume(save(series, tmp_path / "pet")), list(SUV)[0]) == pytest.approx(4, rel=2e-4)


def test_compressed_pixels(tmp_path):
    series = datasets()
    for ds in series:
        ds.compress(pydicom.uid.RLELossless)
    volume = suv.suv_volume(save(series, tmp_path / "pet"))
    assert [value_at(volume, c) for c in SUV] == pytest.approx(list(SUV.values()), rel=2e-4)


def test_pixels_that_cannot_be_decoded_are_refused(tmp_path):
    series = datasets()
    for ds in series:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xc3no JPEG\xff\xd9"])
        ds["PixelData"].is_undefined_length = True
    with pytest.raises(suv.Refused, match="JPEG Lossless.*cannot be decoded"):
        suv.suv_volume(save(series, tmp_path / "pet"))


def test_deflated(tmp_path):
    folder = write_series(tmp_path / "pet", pydicom.uid.DeflatedExplicitVRLittleEndian)
    assert [value_at(suv.suv_volume(folder), c) for c in SUV] == pytest.approx(list(SUV.values()), rel=2e-4)


@pytest.mark.parametrize("sop_class", [LEGACY, ENHANCED])
def test_multiframe(sop_class, tmp_path):
    volume = suv.suv_volume(write_multiframe(tmp_path / "pet", sop_class))
    assert [value_at(volume, c) for c in SUV] == pytest.approx(list(SUV.values()), rel=2e-4)
    assert volume.units == "BQML" and volume.uptake_min == pytest.approx(60)


def test_enhanced_pet_in_another_unit_is_refused(tmp_path):
    path = write_multiframe(tmp_path / "pet", ENHANCED)
    path.write_bytes(path.read_bytes().replace(b"Bq/ml", b"Bq/kg"))
    with pytest.raises(suv.Refused, match="MeasurementUnitsCodeSequence 'Bq/kg'"):
        suv.suv_volume(path)


def test_multiframe_without_functional_groups(tmp_path):
    path = write_multiframe(tmp_path / "pet", LEGACY)
    ds = pydicom.dcmread(path)
    del ds.PerFrameFunctionalGroupsSequence
    ds.save_as(path)
    with pytest.raises(suv.Refused, match="NumberOfFrames '14"):
        suv.suv_volume(path)


def test_twelve_bits_with_an_overlay_above(tmp_path):
    series = datasets(slopes=20.0, BitsStored=12, HighBit=11)
    for ds in series:
        pixels = np.frombuffer(ds.PixelData, "<i2")
        assert 0 <= pixels.min() and pixels.max() < 2048
        ds.PixelData = (pixels | 0x3000).tobytes()
    volume = suv.suv_volume(save(series, tmp_path / "pet"))
    assert [value_at(volume, c) for c in SUV] == pytest.approx(list(SUV.values()), rel=6e-3)


def test_other_objects_are_passed_over_and_two_series_are_not(tmp_path):
    write_series(tmp_path / "a" / "pet")
    write_series(tmp_path / "a" / "ct", uid="1.2.4", Modality="CT", size=(10, 10, 10))
    (tmp_path / "a" / "notes.txt").write_text("no DICOM")
    assert suv.suv_volume(tmp_path / "a").series_uid == "1.2.3.1"
    write_series(tmp_path / "a" / "pet2", uid="1.2.5")
    with pytest.raises(suv.Refused, match="2 PET series"):
        suv.suv_volume(tmp_path / "a")
    assert suv.suv_volume(sorted((tmp_path / "a" / "pet2").iterdir())).series_uid == "1.2.5.1"


@pytest.mark.parametrize(("changed", "known"), [
    ({}, {"weight_kg": 70.0, "dose_MBq": 370.0, "frame_min": 3.0}),
    ({"Units": "GML", "PatientWeight": 82.5, "RadionuclideTotalDose": 250.0, "ActualFrameDuration": 150000},
     {"weight_kg": 82.5, "dose_MBq": 250.0, "frame_min": 2.5}),  # a dose in MBq
    ({"Units": "GML", "PatientWeight": None, "RadionuclideTotalDose": None, "ActualFrameDuration": None}, {})])
def test_weight_dose_and_frame_are_recorded_whether_the_suv_needs_them_or_not(changed, known, tmp_path):
    volume = suv.suv_volume(write_series(tmp_path, spacing=(20.0, 5.0, 4.0), **changed, **(
        {"per_suv": 1.0} if "Units" in changed else {})))
    assert volume.recorded == pytest.approx(known)


def test_uncorrected_only_when_asked(tmp_path):
    folder = write_series(tmp_path / "pet", CorrectedImage=["DECY"])
    assert suv.suv_volume(folder, allow_uncorrected=True).array.max() == pytest.approx(4, rel=2e-4)


@pytest.mark.parametrize("length", [0, 100, 300, 900, -300])
def test_truncated_file(length, tmp_path):
    folder = write_series(tmp_path / "pet")
    path = folder / "005.dcm"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(suv.Refused, match="005.dcm|breaks off"):
        suv.suv_volume(folder)


@pytest.fixture(scope="module")
def small_series(tmp_path_factory):
    return write_series(tmp_path_factory.mktemp("flips") / "pet", spacing=(20.0, 20.0, 20.0))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_flipped_bytes_give_a_refusal_or_a_finite_volume(small_series, data):
    path = data.draw(st.sampled_from(sorted(small_series.glob("*.dcm"))))
    original = path.read_bytes()
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        path.write_bytes(damaged)
        volume = suv.suv_volume(small_series)
        assert np.isfinite(volume.array).all()
    except suv.Refused as refused:
        assert refused.reason and refused.remedy
    finally:
        path.write_bytes(original)


@needs_real_series
def test_real_series():
    volume = suv.suv_volume(REAL)
    assert volume.array.shape == (267, 128, 128) and volume.spacing == pytest.approx((3.27, 4.6875, 4.6875))
    assert volume.array.max() == pytest.approx(66.5, abs=0.05)
    assert volume.array.mean(dtype=float) == pytest.approx(0.149, abs=0.0005)
    bladder = np.unravel_index(volume.array.argmax(), volume.array.shape)[0]
    assert bladder < 100 and volume.array[250:, :, 40:90].max() > 7  # brain at the upper end: the head is at the top
    assert volume.units == "BQML" and volume.uptake_min == pytest.approx(45.18, abs=0.01)
    assert any("no date" in warning for warning in volume.warnings)
