"""Lesion masks on their PET's voxels, as mask MIPs and as places of lesions."""
import os

import nibabel
import numpy as np
import pandas as pd
import pytest
from masks_helpers import prepro
from pet import HOT, RADIUS, drawn_suv

from common.files import InputError
from common.manifest import read_manifest
from inference import pointing_game
from preprocessing import masks
from preprocessing.dicom_masks import MaskFile
from preprocessing.masks import lesions_of, mask_names, study_mask
from preprocessing.volumes import read_volume

SPACING, SHAPE = np.array([4.0, 5.0, 8.0]), (40, 24, 20)  # x, y, z; mm
ORIGIN = -(np.array(SHAPE) - 1) * SPACING / 2
BOX = slice(10, 13), slice(5, 7), slice(3, 8)  # x, y, z
BOX_LESION = "-34.0:-30.0:-36.0:20.9"  # centre in voxels 11, 5.5, 5; a sphere of 30 voxels of 160 mm3


def points():
    grid = [np.arange(n) * s + o for n, s, o in zip(SHAPE, SPACING, ORIGIN, strict=True)]
    return np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1)


def nifti(array, path, spacing=SPACING, origin=ORIGIN, order=None):
    """Write an (x, y, z) array, patient's left, back and head up, turned to `order`, such as "PSR"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-1, -1, 1, 1]) @ nibabel.affines.from_matvec(np.diag(spacing), origin)
    image = nibabel.Nifti1Image(array, affine)
    if order:
        turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine),
                                                   nibabel.orientations.axcodes2ornt(order))
        image = image.as_reoriented(turn)
    nibabel.save(image, path)
    return path


def boxed(*boxes, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


def read(folder, mask, **kwargs):
    """A NIfTI mask of the drawn patient: `study_mask` and the volume."""
    volume = read_volume(str(nifti(drawn_suv(points()).astype("f4"), folder / "a.nii.gz")))
    path = nifti(mask, folder / "a_seg.nii.gz", **kwargs)
    return *study_mask([MaskFile(str(path), "a_seg.nii.gz")], [], volume), volume


# Places

@pytest.mark.parametrize("order", ["LPS", "RAS", "PSR", "SAL", "IRP"])
def test_a_box_in_known_voxels_whatever_the_orientation(order, tmp_path):
    mask, warnings, refused, volume = read(tmp_path, boxed(BOX), order=order)
    assert warnings == refused == [] and np.array_equal(mask.transpose(2, 1, 0), boxed(BOX))
    assert lesions_of(mask, volume) == f":{BOX_LESION}:{volume.array[mask].max():.3f}"
    volume = read_volume(str(nifti(drawn_suv(points()).astype("f4"), tmp_path / "a.nii.gz", order=order)))
    again, warnings, _ = study_mask([MaskFile(str(tmp_path / "a_seg.nii.gz"), "")], [], volume)
    assert np.array_equal(again, mask) and warnings == []


def test_lesions_are_parts_that_touch_nowhere_the_hottest_first(tmp_path):
    touching = boxed(BOX, (slice(13, 14), slice(7, 8), slice(8, 9)))  # by a corner
    mask, *_, volume = read(tmp_path, touching)
    assert lesions_of(mask, volume).count(";") == 0
    hot = (*(slice(round((c - o) / s), round((c - o) / s) + 1) for c, o, s in zip(HOT, ORIGIN, SPACING, strict=True)),)
    mask, *_, volume = read(tmp_path, boxed((slice(25, 26), slice(5, 7), slice(3, 8)), hot))
    first, second = lesions_of(mask, volume).split(";")
    place = [float(x) for x in first.split(":")[1:]]
    assert np.abs(np.array(place[:3]) - HOT).max() <= 4 and place[3:] == [pytest.approx(6.7, abs=0.05), 4]
    assert second == ":22.0:-30.0:-36.0:14.5:1.000"


def test_an_empty_mask_has_no_lesion(tmp_path):
    mask, warnings, refused, volume = read(tmp_path, boxed())
    assert mask.shape == volume.array.shape and not mask.any() and warnings == refused == []
    assert lesions_of(mask, volume) == ""


def test_a_finer_mask_is_taken_at_the_nearest_voxel(tmp_path):
    """Half the spacing, and a corner cut off: the box of 30 voxels is 240 of these."""
    fine = boxed(BOX).repeat(2, 0).repeat(2, 1).repeat(2, 2)[4:, 4:, 4:]
    mask, warnings, _, _ = read(tmp_path, fine, spacing=SPACING / 2, origin=ORIGIN - SPACING / 4 + 2 * SPACING)
    assert np.array_equal(mask.transpose(2, 1, 0), boxed(BOX))
    assert warnings == ["the mask has other voxels than the PET, the nearest were taken: 4.8 ml became 4.8 ml"]


def test_lesions_that_vanish_between_the_voxels_are_counted(tmp_path):
    """Half the spacing: a voxel's centre lies on a corner of eight of these, the last of which counts as nearest."""
    fine = boxed(BOX).repeat(2, 0).repeat(2, 1).repeat(2, 2)[4:, 4:, 4:]
    place = np.argwhere(fine)[-1] + 6
    for shift, said in ((0, 0), (1, 1)):
        spot = fine.copy()
        spot[tuple(place + shift)] = 1
        mask, warnings, _, volume = read(tmp_path, spot, spacing=SPACING / 2, origin=ORIGIN - SPACING / 4 + 2 * SPACING)
        assert lesions_of(mask, volume).count(";") == 1 - said
        assert warnings[1:] == ["1 of 2 parts of the mask hold the centre of no voxel of the PET: left out"] * said


def test_an_oblique_volume_and_its_mask_are_turned_alike(tmp_path):
    turn, angle = np.eye(4), np.radians(20)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    suv = drawn_suv(points()).astype("f4")
    for name, array in (("a", suv), ("a_seg", (suv > 3).astype("u1"))):
        image = nibabel.load(nifti(array, tmp_path / f"{name}.nii.gz"))
        nibabel.save(nibabel.Nifti1Image(array, turn @ image.affine), tmp_path / f"{name}.nii.gz")
    volume = read_volume(str(tmp_path / "a.nii.gz"))
    mask, warnings, _ = study_mask([MaskFile(str(tmp_path / "a_seg.nii.gz"), "")], [], volume)
    assert warnings == [] and volume.warnings == ["an oblique series was resampled along the body"]
    x, y, z, diameter = map(float, lesions_of(mask, volume).split(":")[1:5])
    turned = np.diag([-1, -1, 1, 1]) @ turn @ np.diag([-1, -1, 1, 1]) @ [*HOT, 1]
    assert np.abs(turned[:3] - [x, y, z]).max() < 2.5 and diameter == pytest.approx(2 * RADIUS, rel=0.1)
    assert volume.array[mask].mean() > 3


@pytest.mark.parametrize(("change", "kwargs", "said"), [
    (lambda m: m, {"origin": ORIGIN + 1000}, "lies beyond the PET"),
    (lambda m: m, {"origin": ORIGIN - [52, 0, 0]}, "no voxel of the PET is in the mask"),
    (lambda m: m * 0.3 + m[::-1] * 7.7, {}, "values that are no labels"),
    (lambda m: m - 1.0, {}, "values that are no labels"), (lambda m: m * np.nan, {}, "values that are no labels"),
    (lambda m: m[0], {}, "has the shape"), (lambda m: np.stack([m, m], -1), {}, "has the shape")])
def test_what_is_no_mask_of_the_volume_is_refused(change, kwargs, said, tmp_path):
    mask, warnings, refused, _ = read(tmp_path, change(boxed(BOX)), **kwargs)
    assert mask is None and warnings == ["no mask was used, errors.csv says why"]
    assert refused[0][0] == "a_seg.nii.gz" and said in str(refused[0][1])


def test_labels_probabilities_and_whole_bodies_are_warned_of(tmp_path, monkeypatch):
    several = boxed(BOX) + 3 * boxed((slice(25, 26), slice(5, 7), slice(3, 8)))
    mask, warnings, _, _ = read(tmp_path, several)
    assert mask.sum() == 40 and warnings == ["the mask holds 2 labels: all were united"]
    mask, warnings, _, _ = read(tmp_path, boxed(BOX) * 0.5 + boxed((slice(25, 26), slice(5, 7), slice(3, 8))) * 0.49)
    assert mask.sum() == 30 and warnings == ["the mask holds probabilities: 0.5 and above counts"]
    monkeypatch.setattr(masks, "LITRES", 3)
    assert read(tmp_path, boxed(...))[1] == ["the mask holds 3.1 litres: lesions alone?"]


# Files

@pytest.mark.parametrize(("path", "beside", "found"), [
    ("P/S/SUV.nii.gz", ["P/S/SEG.nii.gz", "P/S/CTres.nii.gz", "P/S/liver_seg.nii.gz"], ["P/S/SEG.nii.gz"]),
    ("P/suv.nii", ["P/mask.nrrd"], ["P/mask.nrrd"]),
    ("001.nii", ["001_seg.nii", "0010_seg.nii", "001-Mask.nii.gz", "001_liver_seg.nii", "seg.nii"],
     ["001_seg.nii", "001-Mask.nii.gz"]),
    ("a/1_PET.nii", ["a/1_seg.nii", "a/1_pet_labels.nii", "a/seg.nii"], ["a/1_seg.nii", "a/1_pet_labels.nii"]),
    ("x/imagesTr/c1_0001.nii.gz", ["x/labelsTr/c1.nii.gz", "x/labelsTr/c10.nii.gz"], ["x/labelsTr/c1.nii.gz"])])
def test_masks_are_found_by_their_names(path, beside, found):
    assert mask_names(path, beside) == found


@pytest.fixture
def tree(tmp_path):
    """Two studies with a mask, of which the second is empty, and one without."""
    suv = drawn_suv(points()).astype("f4")
    for study, mask in (("P1/S1", boxed(BOX)), ("P2/S1", boxed()), ("P3/S1", None)):
        nifti(suv, tmp_path / "in" / study / "SUV.nii.gz")
        if mask is not None:
            nifti(mask, tmp_path / "in" / study / "SEG.nii.gz")
    return tmp_path


def test_a_run_writes_mask_mips_lesions_and_targets(tree, capsys):
    code, table = prepro(tree, "--target_from_masks", "--views", 3)
    assert code is None and "target from masks: 1 in 1 study, 0 in 1; 1 have no mask" in capsys.readouterr().out
    first = table.set_index("scan_id").groupby(level=0).first()
    assert first["target"].tolist() == ["1", "0", ""] and first["lesions"].tolist() == [f":{BOX_LESION}:1.000", "", ""]
    assert table["mask"].tolist() == [name.replace(".bin", "_mask.bin") for name in table["filename"][:8]] + [""] * 4
    known = read_manifest(tree / "out" / "data.csv", need_target=False)
    known = pointing_game.add_lesions(known, "data.csv", tree / "out", "site")  # by centres
    for row in known[:4].itertuples():
        shape = int(row.matrix_size_1), int(row.matrix_size_2)
        mask = np.fromfile(tree / "out" / row.mask, "<f4").reshape(shape)
        assert set(np.unique(mask)) == {0, 1}
        middle = pointing_game.project(row.known_lesions, row)[0]
        np.testing.assert_allclose(np.argwhere(mask).mean(axis=0), middle, atol=0.51)
        assert mask.sum(axis=0).max() == pytest.approx(40 / 3.27, abs=1)  # five voxels of 8 mm
        assert pointing_game.distance_mm(*np.round(middle), row.known_lesions, row) < 3
    assert not np.fromfile(tree / "out" / table["mask"][4], "<f4").any()


def test_masks_are_part_of_what_is_done(tree, capsys):
    prepro(tree)
    assert "3 studies are done" not in capsys.readouterr().out
    prepro(tree)
    assert "3 studies are done" in capsys.readouterr().out
    nifti(boxed(BOX, (slice(25, 26), slice(5, 7), slice(3, 8))), tree / "in" / "P1" / "S1" / "SEG.nii.gz")
    os.remove(tree / "out" / "images" / "P2_S1_sag_mask.bin")
    _, table = prepro(tree)
    assert "1 study is done" in capsys.readouterr().out and table["lesions"][0].count(";") == 1
    os.remove(tree / "in" / "P1" / "S1" / "SEG.nii.gz")
    _, table = prepro(tree)
    assert "2 studies are done" in capsys.readouterr().out and table["mask"][0] == ""


def test_a_broken_mask_is_named_and_its_study_stays(tree, capsys):
    path = tree / "in" / "P1" / "S1" / "SEG.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    nifti(boxed(), tree / "in" / "P2" / "S1" / "mask.nii.gz")  # a second one
    for _ in range(2):
        code, table = prepro(tree)
        assert code == 1 and table["scan_id"].nunique() == 3 and "mask" not in table
        assert table["warnings"].str.contains("no mask was used").tolist() == [True] * 4 + [False] * 2
        errors = pd.read_csv(tree / "out" / "errors.csv")
        assert errors["study"].tolist() == ["P1/S1/SEG.nii.gz", "P2/S1/SEG.nii.gz"]
        assert "cannot be read" in errors["reason"][0] and errors["value"][1] == "2 masks"
    assert "1 study is done" in capsys.readouterr().out


def test_labels_beside_masks(tree):
    labels = tree / "labels.csv"
    labels.write_text("StudyInstanceUID,age,lesions,target\nP1/S1,30,,\nP2/S1,31,7:1:2:3,\nP3/S1,32,,1\n")
    _, table = prepro(tree, "--target_from_masks", "--labels", labels, "--carry", "lesions", "age")
    assert table["target"].tolist() == [1, 1, 0, 0, 1, 1] and table["age"].tolist()[::2] == [30, 31, 32]
    assert table["lesions"].tolist()[::2] == [f":{BOX_LESION}:1.000", "7:1:2:3", ""]
    labels.write_text("StudyInstanceUID,deauville\nP1/S1,\nP2/S1,4\nP3/S1,4\n")
    with pytest.raises(InputError, match="line 3: has a target, and its study a mask"):
        prepro(tree, "--target_from_masks", "--labels", labels)
    with pytest.raises(InputError, match="line 2: no target"):
        prepro(tree, "--labels", labels)
