"""NIfTI and NRRD volumes of SUV: the same patient in any orientation, autoPET's tree, what is refused."""
import contextlib
import itertools
import os
import zipfile

import nibabel
import nrrd
import numpy as np
import pandas as pd
import pytest
from conftest import call
from pet import drawn_suv, write_series

import prepro_script
from common.files import InputError
from preprocessing.dicom_values import Refused
from preprocessing.volumes import read_volume, suv_volumes

SPACING = np.array([4.0, 5.0, 8.0])  # x, y, z, mm


def drawn():
    """(x, y, z) float32 SUV in LPS, and the coordinates of its first voxel."""
    grid = [np.arange(n) * s - (n - 1) * s / 2 for n, s in zip((40, 24, 20), SPACING, strict=True)]
    points = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1)
    return drawn_suv(points).astype("float32") + np.float32(0.01), np.array([g[0] for g in grid])


def affine_of(array, order, flips, origin):
    """The array with its axes in another order and direction, and its RAS affine."""
    steps = np.diag(SPACING)[:, list(order)]
    corner = origin.copy()
    turned = array.transpose(order)
    for k, flip in enumerate(flips):
        if flip:
            corner += steps[:, k] * (turned.shape[k] - 1)
            steps[:, k] *= -1
            turned = np.flip(turned, k)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = steps, corner
    return turned, np.diag([-1, -1, 1, 1]) @ matrix


def turn_by(degrees):
    """A matrix that turns about the body's axis."""
    turn, angle = np.eye(4), np.radians(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


def save(array, affine, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), affine), path)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_orientation_gives_the_same_patient(order, tmp_path):
    array, origin = drawn()
    for flips in itertools.product((False, True), repeat=3):
        save(*affine_of(array, order, flips, origin), tmp_path / "a.nii.gz")
        volume = read_volume(str(tmp_path / "a.nii.gz"))
        assert np.array_equal(volume.array, array.transpose(2, 1, 0)) and volume.spacing == (8, 5, 4)
        assert volume.origin == pytest.approx(tuple(origin[::-1])) and volume.warnings == []


def test_whole_numbers_are_warned_of(tmp_path):
    array, _ = drawn()
    save(np.round(array), np.diag([*SPACING, 1]), tmp_path / "a.nii.gz")
    assert read_volume(str(tmp_path / "a.nii.gz")).warnings == ["whole numbers only: a mask, or rounded SUV"]


@pytest.mark.parametrize(("factor", "warned"), [(0.45, False), (1, False), (1.8, False), (3.6, True), (0.3, True)])
def test_values_that_may_be_kilobecquerels_are_warned_of(factor, warned, tmp_path):
    array, _ = drawn()
    save(array * np.float32(factor), np.diag([*SPACING, 1]), tmp_path / "a.nii.gz")
    said = "; ".join(read_volume(str(tmp_path / "a.nii.gz")).warnings)
    assert ("not near 1: are its values SUV, not kBq/ml?" in said) == warned


def test_units_and_a_missing_affine(tmp_path):
    array, origin = drawn()
    path = tmp_path / "a.nii.gz"
    image = nibabel.Nifti1Image(array, np.diag([*SPACING / 1000, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, path)
    assert read_volume(str(path)).spacing == (8, 5, 4)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, path)
    with pytest.raises(Refused, match="right side is unknown"):
        read_volume(str(path))


def test_an_sform_and_a_qform_that_differ_are_refused(tmp_path):
    """nibabel takes the one, other programs the other: right and left, or the size of a voxel, may hang on it."""
    array, origin = drawn()
    path, affine = tmp_path / "a.nii.gz", affine_of(array, (0, 1, 2), (False,) * 3, origin)[1]
    moved = np.eye(4)
    moved[:3, 3] = 20, -7, 100  # of another space, as after registration: no matter for projections
    for change, differ in ((np.eye(4), ""), (np.diag([1, 1, 1.0001, 1]), ""), (moved, ""), (turn_by(0.5), ""),
                           (np.diag([-1, 1, 1, 1]), "180 degrees"), (np.diag([0.5, 0.5, 0.5, 1]), "0 degrees"),
                           (turn_by(10), "10 degrees")):
        image = nibabel.Nifti1Image(array, affine)
        image.set_sform(affine, 1)
        image.set_qform(change @ affine, 1)
        nibabel.save(image, path)
        if differ:
            with pytest.raises(Refused, match=f"sform and qform differ by {differ}: [A-Z]{{3}} with voxels of .* and "):
                read_volume(str(path))
        else:
            assert read_volume(str(path)).warnings == []


@pytest.mark.parametrize(("space", "signs"), [("left-posterior-superior", (1, 1, 1)), ("RAS", (-1, -1, 1))])
def test_nrrd(space, signs, tmp_path):
    array, origin = drawn()
    nrrd.write(str(tmp_path / "a.nrrd"), array, {"space": space, "space directions": np.diag(SPACING * signs),
                                                 "space origin": origin * signs})
    volume = read_volume(str(tmp_path / "a.nrrd"))
    assert np.array_equal(volume.array, array.transpose(2, 1, 0))
    assert volume.origin == pytest.approx(tuple(origin[::-1]))
    for units, said in ((["mm"] * 3, None), (["cm", "cm", "mm"], "space units cm")):
        nrrd.write(str(tmp_path / "a.nrrd"), array, {"space": space, "space directions": np.diag(SPACING * signs),
                                                     "space units": units})
        with pytest.raises(Refused, match=said) if said else contextlib.nullcontext():
            assert read_volume(str(tmp_path / "a.nrrd")).spacing == volume.spacing
    nrrd.write(str(tmp_path / "b.nrrd"), array)
    with pytest.raises(Refused, match="does not say where the patient is"):
        read_volume(str(tmp_path / "b.nrrd"))


def test_an_oblique_volume_keeps_its_patient(tmp_path):
    array, origin = drawn()
    save(array, turn_by(20) @ affine_of(array, (0, 1, 2), (False,) * 3, origin)[1], tmp_path / "a.nii")
    volume = read_volume(str(tmp_path / "a.nii"))
    assert volume.warnings == ["an oblique series was resampled along the body"]
    whole = array.sum(dtype=float) * SPACING.prod()
    assert volume.array.sum(dtype=float) * np.prod(volume.spacing) == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize(("change", "said"), [
    (lambda a: a * 5000, "not SUV"), (lambda a: a * 400 - 1000, "not SUV"), (lambda a: a * 0, "not SUV"),
    (lambda a: a > 3, "a mask"),
    (lambda a: np.where(a > 3, np.nan, a), "holds NaN"),
    (lambda a: np.stack([a, a], -1), "has the shape 40 x 24 x 20 x 2"),
    (lambda a: a[0], "has the shape")])
def test_what_is_no_suv_volume_is_refused(change, said, tmp_path):
    array, _ = drawn()
    save(change(array).astype("float32"), np.diag([*SPACING, 1]), tmp_path / "a.nii.gz")
    with pytest.raises(Refused, match=said):
        read_volume(str(tmp_path / "a.nii.gz"))


def test_sheared_and_broken_volumes_are_refused(tmp_path):
    array, _ = drawn()
    sheared = np.diag([*SPACING, 1])
    sheared[0, 1] = 2
    save(array, sheared, tmp_path / "a.nii.gz")
    with pytest.raises(Refused, match="not perpendicular"):
        read_volume(str(tmp_path / "a.nii.gz"))
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:500])
    with pytest.raises(Refused, match="cannot be read"):
        read_volume(str(tmp_path / "b.nii.gz"))


@pytest.mark.parametrize(("paths", "studies"), [
    (["P/S/CT.nii.gz", "P/S/CTres.nii.gz", "P/S/PET.nii.gz", "P/S/SEG.nii.gz", "P/S/SUV.nii.gz"], ["P/S of P"]),
    (["north/P/S/SUV.nii.gz"], ["north/P/S of P"]), (["P/SUV.nii.gz"], ["P of P"]),
    (["north/P/a.nii.gz"], ["north/P/a of P"]),
    (["001.nii", "001_seg.nii", "001-CT.nrrd", "sector.nii"], ["001 of ", "sector of "]),
    (["suv.nii"], ["suv of "]), (["P/SUV.nii", "P/SUV.nii.gz", "P/b.nii"], ["P of P", "P of P"]),
    (["P/a_pet.nii", "P/b.nii.gz"], ["P/a_pet of P", "P/b of P"]),
    (["x/imagesTr/fdg_1a_03-23-2003_0000.nii.gz", "x/imagesTr/fdg_1a_03-23-2003_0001.nii.gz"],
     ["fdg_1a_03-23-2003 of fdg_1a"]),
    (["P/PET-CT/a.nii.gz"], ["P/PET-CT/a of PET-CT"]),
    (["P/petct/a_PET_CT.nii", "P/petct/a_PET.nii"], ["P/petct/a_PET of petct"]),  # the first is the CT of a PET/CT
    (["P/PET_CT/CT.nii", "P/PET_CT/PET-CT_seg.nii", "P/PET_CT/carpet-CT-ct.nii"], []), (["P/CT-PET/a.nii.gz"], []),
    (["x/labelsTr/fdg_1a_03-23-2003.nii.gz"], []), (["P/masks/a.nii.gz"], [])])
def test_suv_study_and_patient_are_told_by_the_path(paths, studies):
    assert [f"{study} of {patient}" for _, study, patient in suv_volumes(paths)] == studies


def test_autopet_s_tree_becomes_a_manifest(tmp_path):
    """Two studies of one patient and one of another, one of them in Bq/ml: in data.csv or errors.csv, with labels."""
    array, origin = drawn()
    turned = affine_of(array, (0, 1, 2), (False,) * 3, origin)
    for study, factor in (("P1/2001", 1), ("P1/2002", 1), ("P2/2001", 5000)):
        save(turned[0] * np.float32(factor), turned[1], tmp_path / "in" / study / "SUV.nii.gz")
        save((turned[0] > 3).astype("uint8"), turned[1], tmp_path / "in" / study / "SEG.nii.gz")
    (tmp_path / "labels.csv").write_text("StudyInstanceUID,deauville\nP1/2001,5\nP1/2002,2\nP2/2001,4\n")
    options = ("--input", tmp_path / "in", "--labels", tmp_path / "labels.csv", "--workers", 1)
    assert call(prepro_script, *options, "--output", tmp_path / "out") == 1
    table = pd.read_csv(tmp_path / "out" / "data.csv")
    assert len(table) == 4 and table["patient_id"].nunique() == 1 and sorted(table["target"]) == [0, 0, 1, 1]
    assert not (table == "P1").any(axis=None) and (table["units"] == "SUV").all()
    errors = pd.read_csv(tmp_path / "out" / "errors.csv")
    assert errors["study"].tolist() == ["P2/2001/SUV.nii.gz"] and "not SUV" in errors["reason"][0]
    assert call(prepro_script, *options, "--output", tmp_path / "plain", "--keep_ids") == 1
    assert set(pd.read_csv(tmp_path / "plain" / "data.csv")["scan_id"]) == {"P1_2001", "P1_2002"}


def test_volumes_that_are_passed_over_by_name_are_counted(tmp_path, capsys):
    """A folder CT and what lies beside SUV.nii.gz, but neither SUV nor the masks that are used."""
    for name in ("P1/A/SUV", "P1/A/SEG", "P1/A/PET", "P1/A/CTres", "P2/CT/a", "P3/b", "P3/b_mask"):
        save(drawn()[0], np.diag([4.0, 4.0, 4.0, 1.0]), tmp_path / "in" / f"{name}.nii.gz")
    call(prepro_script, "--input", tmp_path / "in", "--list", "--workers", 1)
    said = capsys.readouterr().out
    assert "passed over, by their names no SUV (CT, PET, masks): 3 volumes\n" in said
    assert "P1/A: a volume of SUV; taken: " in said and "0 slices" not in said


def test_dicom_and_its_own_nifti_give_the_same_mips(tmp_path):
    write_series(tmp_path / "dicom" / "A", spacing=(20.0, 5.0, 4.0))
    options = ("--keep_ids", "--workers", 1)
    assert call(prepro_script, "--input", tmp_path / "dicom", "--output", tmp_path / "one",
                "--save_suv", *options) is None
    assert call(prepro_script, "--input", tmp_path / "one" / "suv", "--output", tmp_path / "two", *options) is None
    one, two = (pd.read_csv(tmp_path / name / "data.csv") for name in ("one", "two"))
    assert one[["view", "matrix_size_1", "matrix_size_2"]].equals(two[["view", "matrix_size_1", "matrix_size_2"]])
    for first, second in zip(one["filename"], two["filename"], strict=True):
        a, b = np.fromfile(tmp_path / "one" / first, "<f4"), np.fromfile(tmp_path / "two" / second, "<f4")
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_names_in_any_encoding_and_names_that_become_one(tmp_path):
    """A Latin-1 name on a UTF-8 system; with --keep_ids, a/b and a_b."""
    array, origin = drawn()
    image = affine_of(array, (0, 1, 2), (False,) * 3, origin)
    latin = os.fsdecode(b"M\xfcller")
    save(*image, tmp_path / "in" / latin / "1" / "SUV.nii.gz")
    (tmp_path / "in" / latin / "2").mkdir()
    (tmp_path / "in" / latin / "2" / "SUV.nii.gz").write_bytes(b"none")
    options = ("--input", tmp_path / "in", "--workers", 1)
    assert call(prepro_script, *options, "--output", tmp_path / "hashed") == 1
    assert len(pd.read_csv(tmp_path / "hashed" / "data.csv")) == 2
    assert pd.read_csv(tmp_path / "hashed" / "errors.csv")["study"][0] == r"M\udcfcller/2/SUV.nii.gz"
    assert call(prepro_script, *options, "--output", tmp_path / "kept", "--keep_ids") == 1
    assert set(pd.read_csv(tmp_path / "kept" / "data.csv")["scan_id"]) == {"M_ller_1"}
    save(*image, tmp_path / "in" / "M_ller_1" / "SUV.nii.gz")
    with pytest.raises(InputError, match="would both be scan M_ller_1; rename one"):
        call(prepro_script, *options, "--output", tmp_path / "kept", "--keep_ids")
    assert call(prepro_script, *options, "--output", tmp_path / "hashed") == 1
    assert len(pd.read_csv(tmp_path / "hashed" / "data.csv")) == 4


def test_volumes_that_are_not_read_are_named(tmp_path):
    """A volume in an archive, or of another kind, costs no other study its images."""
    folder = tmp_path / "in"
    save(drawn()[0], np.diag([4.0, 4.0, 4.0, 1.0]), folder / "P1" / "A" / "SUV.nii.gz")
    with zipfile.ZipFile(folder / "P2.zip", "w") as archive:
        archive.write(folder / "P1" / "A" / "SUV.nii.gz", "B/SUV.nii.gz")
        archive.write(folder / "P1" / "A" / "SUV.nii.gz", "B/SEG.nii.gz")
    for name in ("c.mha", "d.mhd", "E.MGZ", "f.hdr"):
        (folder / name).write_bytes(bytes(400))
    assert call(prepro_script, "--input", folder, "--output", tmp_path / "out", "--keep_ids") == 1
    assert pd.read_csv(tmp_path / "out" / "data.csv")["scan_id"].nunique() == 1
    errors = pd.read_csv(tmp_path / "out" / "errors.csv").set_index("study")["reason"]
    assert errors.index.tolist() == ["E.MGZ", "P2.zip/B/SUV.nii.gz", "c.mha", "d.mhd", "f.hdr"]
    assert errors["P2.zip/B/SUV.nii.gz"] == "is a volume in an archive, which is not read"
    assert set(errors.drop("P2.zip/B/SUV.nii.gz")) == {"is a volume of a kind that is not read"}


@pytest.mark.parametrize(("one", "other"), [
    ("a/imagesTr/case_001_0001.nii.gz", "b/imagesTr/case_001_0001.nii.gz"), ("P1/S1/SUV.nii.gz", "P1/S1.nii.gz"),
    ("P1/s.nii", "P1/s.nii.gz"), ("P1/S1/SUV.nii.gz", "P1/S1/suv.nii")])
def test_volumes_that_would_be_one_study_are_refused(one, other, tmp_path, capsys):
    """None of them goes in the other's place; another study goes on, and the terminal names no folder."""
    for name in (one, other, "P9/S9/SUV.nii.gz"):
        save(drawn()[0], np.diag([4.0, 4.0, 4.0, 1.0]), tmp_path / "in" / name)
    assert call(prepro_script, "--input", tmp_path / "in", "--output", tmp_path / "out", "--keep_ids") == 1
    assert set(pd.read_csv(tmp_path / "out" / "data.csv")["scan_id"]) == {"P9_S9"}
    errors = pd.read_csv(tmp_path / "out" / "errors.csv")
    assert sorted(errors["study"]) == sorted([one, other])
    assert errors["reason"].str.fullmatch(r"2 volumes are one study \((case_001|P1/s|P1/S1)\): .*, .*").all()
    assert ": file: 2 volumes are one study; rename one, or convert them in two runs" in capsys.readouterr().out
