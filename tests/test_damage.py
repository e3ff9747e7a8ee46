"""Damage that is random, and damage that hides: each is refused, said, or changes nothing."""
import collections
import hashlib
import math
import warnings

import numpy as np
import pandas as pd
import pydicom
import pytest
from conftest import call
from pet import COARSE, datasets, save, write_series

import prepro_script
from preprocessing import archives, dicom_series, suv

MUST_AGREE = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "SOPClassUID",
              "Units", "DecayCorrection", "CorrectedImage", "PatientWeight", "PatientSize", "PatientSex",
              "PixelSpacing", "SeriesDate", "SeriesTime", "Rows", "Columns", "ImageOrientationPatient",
              "PixelRepresentation", "RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime",
              "RadionuclideTotalDose", "RadionuclideHalfLife")


def prepro(folder, *args):
    return call(prepro_script, "--input", folder / "dicom", "--output", folder / "out", "--workers", 1, "--keep_ids",
                "--overwrite", *args)


def table(folder, name="data.csv"):
    return pd.read_csv(folder / "out" / name, keep_default_na=False)


def raw(ds, keyword):
    """An attribute's bytes as pydicom finds them, numbers as numbers: what pydicom makes of a VR is left out."""
    holder = ds.RadiopharmaceuticalInformationSequence[0] if keyword.startswith("Radio") else ds
    element = holder.get_item(keyword)
    value = element.value if element is not None else b""
    value = value if isinstance(value, bytes) else str(value).encode()
    if keyword in ("Rows", "Columns", "PixelRepresentation"):
        return int.from_bytes(value, "little")
    value = value.strip(b"\0 ")
    try:
        return [float(part) for part in value.split(b"\\")]
    except ValueError:
        return value


def plain_suv(slices):
    """SUV of BQML decayed to START at SeriesTime, from pydicom alone: [slice from the feet] -> (rows, columns)."""
    def seconds(text):
        return int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:])

    first, made = slices[0], []
    injected = raw(first, "RadiopharmaceuticalStartDateTime")[0]
    waited = seconds(f"{raw(first, 'SeriesTime')[0]:06.0f}") - seconds(f"{injected % 1e6:06.0f}")
    dose = raw(first, "RadionuclideTotalDose")[0] * 2 ** (-waited / raw(first, "RadionuclideHalfLife")[0])
    for ds in sorted(slices, key=lambda ds: raw(ds, "ImagePositionPatient")[2]):
        stored = np.frombuffer(ds.get_item("PixelData").value, "<i2").reshape(raw(ds, "Rows"), raw(ds, "Columns"))
        made.append(stored * raw(ds, "RescaleSlope")[0] * raw(ds, "PatientWeight")[0] * 1000 / dose)
    return np.array(made)


def check_accepted(folder):
    """Of a damaged series that was converted: no slice disagrees, and without a warning the SUV is the formula's."""
    rows = table(folder)
    assert len(rows) == 2
    for row in rows.itertuples():
        assert np.isfinite(np.fromfile(folder / "out" / row.filename, "<f4")).all() and math.isfinite(row.suv_max)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slices = [pydicom.dcmread(path) for path in sorted((folder / "dicom").iterdir())]
        for keyword in MUST_AGREE:
            assert all(raw(ds, keyword) == raw(slices[0], keyword) for ds in slices), keyword
        if not rows["warnings"][0]:
            expected, got = plain_suv(slices), suv.suv_volume(folder / "dicom").array
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_two_thousand_flipped_bytes(tmp_path, capsys, monkeypatch):
    """One byte of a series' files at a time, most of them in headers; every flip is refused by --checksums."""
    monkeypatch.setattr("os.fsync", lambda file: None)  # 20 000 of them: minutes of waiting for the disk
    folder = write_series(tmp_path / "dicom", spacing=(20.0, 20.0, 20.0))
    for path in folder.iterdir():
        path.rename(path.with_suffix(""))
    paths, rng, refused = sorted(folder.iterdir()), np.random.default_rng(0), collections.Counter()
    sums = tmp_path / "sums"
    sums.write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths))
    for _ in range(2000):
        path = paths[rng.integers(len(paths))]
        original = path.read_bytes()
        damaged = bytearray(original)
        place = rng.integers(len(damaged))
        damaged[place] ^= rng.integers(1, 256)
        path.write_bytes(damaged)
        if prepro(tmp_path) is None:
            check_accepted(tmp_path)
            refused["accepted"] += 1
        else:
            errors = table(tmp_path, "errors.csv")
            assert (errors[["attribute", "reason", "remedy"]] != "").all(axis=None)
            refused[errors["attribute"][0]] += 1
        assert prepro(tmp_path, "--checksums", sums) == 1 and table(tmp_path).empty, place
        path.write_bytes(original)
        capsys.readouterr()
    assert prepro(tmp_path, "--checksums", sums) is None
    with capsys.disabled():
        print(f"\n2000 flipped bytes: {dict(refused.most_common())}")
    assert 200 < refused["accepted"] < 1800 and len(refused) > 20


# Damage that hides

@pytest.mark.parametrize("damage", [
    lambda data: data[:128] + b"D\0CM" + data[132:], lambda data: bytes(400) + data[400:],
    lambda data: bytes(len(data))])
@pytest.mark.parametrize("name", ["IM7", "1.2.840.7", "007.dcm"])
def test_the_last_slice_without_preamble_refuses_its_study(name, damage, tmp_path):
    last = write_series(tmp_path / "dicom", **COARSE) / "007.dcm"
    data = last.read_bytes()
    last.unlink()
    (tmp_path / "dicom" / name).write_bytes(damage(data))
    (tmp_path / "dicom" / "DONE").write_bytes(b"")  # no damage: such files are no slices
    (tmp_path / "dicom" / "README").write_text("patient 7")
    assert prepro(tmp_path) == 1
    assert table(tmp_path, "errors.csv")[["attribute", "value"]].to_numpy().tolist() == [["file", name]]
    with pytest.raises(suv.Refused, match="preamble"):
        suv.suv_volume(tmp_path / "dicom")


def test_a_slice_with_another_series_uid_refuses_its_study(tmp_path, capsys):
    series = datasets(**COARSE)
    series[6].SeriesInstanceUID = "1.2.3.9"  # the uppermost: no gap would show it
    save(series, tmp_path / "dicom")
    assert prepro(tmp_path) == 1
    errors = table(tmp_path, "errors.csv")
    assert errors["attribute"].tolist() == ["SeriesInstanceUID"] and "series number 1 have 2" in errors["reason"][0]
    assert prepro(tmp_path, "--series", "1.2.3.1") is None and len(table(tmp_path)) == 2


def test_a_study_with_a_bad_uid_is_one_row(tmp_path):
    write_series(tmp_path / "dicom" / "good", **COARSE)
    for name, uid, study in (("A", "SeriesInstanceUID", "1.2.4"), ("B", "StudyInstanceUID", "1.2.5")):
        series = datasets(uid=study, **COARSE)
        for ds in series:
            ds[uid].VR, ds[uid].value = "LO", "../../etc"
        save(series, tmp_path / "dicom" / name)
    assert prepro(tmp_path) == 1
    errors = table(tmp_path, "errors.csv")
    assert errors[["study", "attribute", "reason"]].to_numpy().tolist() == [
        ["A", "SeriesInstanceUID", "is not a UID"], ["B", "StudyInstanceUID", "is not a UID"]]
    assert table(tmp_path)["scan_id"].unique().tolist() == ["1.2.3"]


def test_damaged_files_of_one_folder_are_one_row(tmp_path):
    write_series(tmp_path / "dicom" / "good", **COARSE)
    for path in write_series(tmp_path / "dicom" / "cut", uid="1.2.4", **COARSE).iterdir():
        path.write_bytes(path.read_bytes()[:200])
    _, refused = dicom_series.find_studies(*archives.list_files(tmp_path / "dicom"))
    assert [(where, error.value) for where, error in refused] == [("cut", "001.dcm and 6 more")]


def test_warnings_can_be_counted(tmp_path):
    """Each is one of the texts that "; " separates."""
    write_series(tmp_path / "dicom" / "1", SeriesTime="105500", RadionuclideTotalDose=370, **COARSE)
    write_series(tmp_path / "dicom" / "2", SeriesInstanceUID="1.2.3.7", SeriesNumber=2, **COARSE)
    prepro(tmp_path)
    found = table(tmp_path)["warnings"][0].split("; ")
    assert [text.split()[0] for text in found] == ["2", "RadionuclideTotalDose", "decay"], found
