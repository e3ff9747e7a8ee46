"""Lesion masks on their PET's voxels, as mask MIPs and as places of lesions."""
import os
import shutil
import zipfile
from copy import deepcopy

import highdicom
import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import call
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from pet import AXIAL, ENHANCED, FEET_FIRST, HOT, RADIUS, SAGITTAL, datasets, drawn_suv, save, write_multiframe
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

import prepro_script
from common.files import InputError
from common.manifest import read_manifest
from inference import pointing_game
from preprocessing import masks
from preprocessing.dicom_masks import MaskFile, fill_polygons
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


def prepro(folder, *args):
    folders = "--input", folder / "in", "--output", folder / "out"
    code = call(prepro_script, *folders, "--keep_ids", "--workers", 1, *args)
    return code, pd.read_csv(folder / "out" / "data.csv", keep_default_na=False)


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


# DICOM

FOR_SEG = {"StudyID": "1", "StudyTime": "100000", "ReferringPhysicianName": "", "PositionReferenceIndicator": "",
           "SliceThickness": 5}  # what highdicom copies
BOXED = slice(5, 8), slice(3, 6), slice(4, 9)  # slice, row, column


def pet_series(**kwargs):
    return datasets(**{"spacing": (5.0, 5.0, 4.0), **FOR_SEG, **kwargs})


def segment(series, array, kind="BINARY", labels=("lesion",), **kwargs):
    """A DICOM SEG of datasets by highdicom; `array`: slices x rows x columns, x segments."""
    described = [highdicom.seg.SegmentDescription(
        number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm,
        highdicom.seg.SegmentAlgorithmTypeValues.MANUAL) for number, label in enumerate(labels, start=1)]
    return deepcopy(highdicom.seg.Segmentation(  # it shares elements with the series
        series, array, kind, described, "1.2.3.80", 80, "1.2.3.80.1", 1, "ACME", "Pen", "1", "2", **kwargs))


def in_series(series, *boxes):
    mask = np.zeros((len(series), series[0].Rows, series[0].Columns), np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


def study(folder, series, *masks):
    """A study in FOLDER/in with masks; run prepro: its exit code, data.csv of the coronal views, errors.csv."""
    shutil.rmtree(folder / "in", ignore_errors=True)
    save(series, folder / "in" / "A" / "pet")
    for number, mask in enumerate(masks):
        (folder / "in" / "A" / f"mask{number}").mkdir()
        mask.save_as(folder / "in" / "A" / f"mask{number}" / "1.dcm")
    code, table = prepro(folder)
    errors = folder / "out" / "errors.csv"
    return code, table[table["view"] == "cor"].to_dict("records"), pd.read_csv(errors) if errors.exists() else None


def place(row):
    """(x, y, z) of the one lesion of a row of data.csv."""
    assert row["lesions"].count(":") == 5, row
    return [float(value) for value in row["lesions"].split(":")[1:4]]


def at(series, k, row, column):
    """Patient coordinates, from the DICOM attributes, of a place in voxels from the first one's centre."""
    first, turned = np.array(series[0].ImagePositionPatient, float), np.array(series[0].ImageOrientationPatient, float)
    along = np.array(series[1].ImagePositionPatient, float) - first
    rows, columns = map(float, series[0].PixelSpacing)
    return first + k * along + row * rows * turned[3:] + column * columns * turned[:3]


def middle(series, box):
    """(x, y, z) of the middle of a box of voxels."""
    return at(series, *((side.start + side.stop - 1) / 2 for side in box))


@pytest.mark.parametrize("orientation", [AXIAL, FEET_FIRST, SAGITTAL, (0.9848, 0.1736, 0, -0.1736, 0.9848, 0)])
def test_a_segmentation_lies_where_the_pet_does(orientation, tmp_path):
    series = pet_series(orientation=orientation)
    code, rows, _ = study(tmp_path, series, segment(series, in_series(series, BOXED)))
    oblique = [] if 1 in np.abs(orientation) else ["an oblique series was resampled along the body"]
    assert code is None and rows[0]["warnings"] == "; ".join(oblique)
    np.testing.assert_allclose(place(rows[0]), middle(series, BOXED), atol=1.5 if oblique else 0.051)
    diameter = float(rows[0]["lesions"].split(":")[4])
    assert np.pi / 6 * diameter ** 3 == pytest.approx(45 * 100, rel=0.15 if oblique else 0.02)  # voxels of 100 mm3


def test_frames_that_are_missing_are_empty(tmp_path):
    """Frames of slices 4, 6 and 20 alone, and with or without their spacing."""
    series = pet_series()
    boxes = [(slice(k, k + 1), slice(3, 6), slice(4, 9)) for k in (4, 6, 20)]
    mask = segment(series, in_series(series, *boxes))
    assert mask.NumberOfFrames == 3
    _, rows, _ = study(tmp_path, series, mask)
    assert rows[0]["lesions"].count(";") == 2 and rows[0]["warnings"] == ""
    del mask.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    assert study(tmp_path, series, mask)[1][0]["lesions"] == rows[0]["lesions"]


def test_a_segmentation_of_the_ct_in_its_frame_of_reference(tmp_path):
    """Slices of 2.5 mm and pixels of 2 x 2 mm: only the frame of reference is shared."""
    series = pet_series()
    fine = pet_series(spacing=(2.5, 2.0, 2.0), SeriesInstanceUID="1.2.3.7", Modality="CT",
                      SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    mask = segment(fine, in_series(fine, (slice(10, 16), slice(7, 15), slice(8, 18))))
    _, rows, _ = study(tmp_path, series, mask)
    assert rows[0]["warnings"].startswith("the mask has other voxels than the PET, the nearest were taken: 4.8 ml")
    np.testing.assert_allclose(place(rows[0]), middle(fine, (slice(10, 16), slice(7, 15), slice(8, 18))), atol=2.5)


def test_fractions_count_from_a_half_and_segments_are_united(tmp_path):
    series = pet_series()
    fraction = in_series(series, BOXED) * 0.6
    fraction[20, 3, 4] = 0.4
    _, rows, _ = study(tmp_path, series, segment(series, fraction, "FRACTIONAL"))
    assert rows[0]["lesions"].count(":") == 5 and rows[0]["warnings"] == ""
    several = np.stack([in_series(series, BOXED), in_series(series, (slice(20, 22), *BOXED[1:])),
                        in_series(series, (slice(12, 14), *BOXED[1:]))], -1)
    _, rows, _ = study(tmp_path, series, segment(series, several, labels=("Lesion_1", "Doe Jane", "liver 2")))
    assert rows[0]["lesions"].count(";") == 2
    assert rows[0]["warnings"] == "the mask holds 3 segments, 1 (lesion), 2, 3 (liver): all were united"


def test_an_empty_segmentation_says_that_there_is_no_lesion(tmp_path):
    series = pet_series()
    _, rows, _ = study(tmp_path, series, segment(series, in_series(series), omit_empty_frames=False))
    assert rows[0]["lesions"] == "" and rows[0]["mask"] == "images/1.2.3_cor_mask.bin" and rows[0]["warnings"] == ""


def test_masks_that_fit_no_pet_series_are_named(tmp_path):
    """In another frame of reference; of another study; of another PET series: the study is converted without."""
    series = pet_series()
    mask = segment(series, in_series(series, BOXED))
    mask.FrameOfReferenceUID = "1.2.9"
    code, rows, errors = study(tmp_path, series, mask)
    assert code == 1 and "mask" not in rows[0] and rows[0]["warnings"] == "no mask was used, errors.csv says why"
    assert errors[["study", "attribute"]].values.tolist() == [["A/mask0", "FrameOfReferenceUID"]]
    other = pet_series(uid="1.2.5")
    code, rows, errors = study(tmp_path, series, segment(other, in_series(series, BOXED)))
    assert code == 1 and rows[0]["warnings"] == "" and errors["attribute"].tolist() == ["ReferencedSeriesSequence"]
    assert errors["study"].tolist() == ["A/mask0/1.dcm"] and "fits no PET series" in errors["reason"][0]
    short = pet_series(SeriesInstanceUID="1.2.3.9", SeriesNumber=2)[:15]
    code, rows, errors = study(tmp_path, series + short, segment(short, in_series(short, BOXED)))
    assert code == 1 and "another PET series" in errors["reason"][0] and len(rows) == 1
    of_short, of_series = (segment(one, in_series(one, BOXED)) for one in (short, series))
    of_short.SOPInstanceUID = of_short.file_meta.MediaStorageSOPInstanceUID = "1.2.3.80.2"
    code, rows, errors = study(tmp_path, series + short, of_short, of_series)
    assert code is None and rows[0]["warnings"].endswith("; masks of other series of the study were left out: 1")


def test_several_masks_of_a_series_are_refused_and_copies_are_not(tmp_path):
    series = pet_series()
    one, two = (segment(series, in_series(series, BOXED)) for _ in range(2))
    assert study(tmp_path, series, one, two)[0] is None
    two.SOPInstanceUID = two.file_meta.MediaStorageSOPInstanceUID = "1.2.3.80.2"
    code, rows, errors = study(tmp_path, series, one, two)
    assert code == 1 and errors["value"].tolist() == ["2 masks"] and "mask" not in rows[0]
    two.FrameOfReferenceUID = "1.2.9"  # named, and the other used
    code, rows, errors = study(tmp_path, series, one, two)
    assert code == 1 and errors["study"].tolist() == ["A/mask1"] and rows[0]["mask"]


def test_a_mask_without_references_and_one_of_another_study_uid(tmp_path):
    series = pet_series()
    mask = segment(series, in_series(series, BOXED))
    del mask.ReferencedSeriesSequence, mask.FrameOfReferenceUID  # its images are left
    assert study(tmp_path, series, mask)[1][0]["mask"]
    mask = segment(series, in_series(series, BOXED))
    mask.StudyInstanceUID = "1.2.99"
    assert study(tmp_path, series, mask)[1][0]["mask"]


def test_a_damaged_segmentation_and_one_in_an_archive(tmp_path):
    series = pet_series()
    mask = segment(series, in_series(series, BOXED))
    good = study(tmp_path, series, mask)[1]
    path = tmp_path / "in" / "A" / "pet" / "mask.dcm"
    shutil.move(tmp_path / "in" / "A" / "mask0" / "1.dcm", path)
    with zipfile.ZipFile(tmp_path / "in" / "A" / "all.zip", "w") as archive:
        for file in (tmp_path / "in" / "A" / "pet").iterdir():
            archive.write(file, file.name)
            if file != path:
                file.unlink()
    content = path.read_bytes()
    path.unlink()
    assert prepro(tmp_path)[0] is None and prepro(tmp_path)[1]["lesions"][0] == good[0]["lesions"]
    path.write_bytes(content[:-300])
    os.remove(tmp_path / "in" / "A" / "all.zip")
    save(series, tmp_path / "in" / "A" / "pet")
    code, table = prepro(tmp_path)
    assert code == 1 and len(table) == 2 and "mask" not in table
    assert pd.read_csv(tmp_path / "out" / "errors.csv")["study"].tolist() == ["A/pet"]


def test_a_segmentation_of_an_enhanced_pet(tmp_path):
    series = pet_series()
    mask = segment(series, in_series(series, BOXED))
    write_multiframe(tmp_path / "in" / "A", ENHANCED, spacing=(5.0, 5.0, 4.0))
    mask.save_as(tmp_path / "in" / "A" / "mask.dcm")
    code, table = prepro(tmp_path)
    assert code is None
    np.testing.assert_allclose(place(table.iloc[0]), middle(series, BOXED), atol=0.051)


# Contours

def item(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def square(low_row, high_row, low_column, high_column):
    return [(low_row, low_column), (low_row, high_column), (high_row, high_column), (high_row, low_column)]


def disc(row, column, radius):
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    return np.stack([row + radius * np.sin(angles), column + radius * np.cos(angles)], -1)


def rtstruct(series, *rois, refers="1.2.3.1", kind="CLOSED_PLANAR"):
    """An RTSTRUCT of ROIs (name, RTROIInterpretedType, [(slice, [(row, column), ...]), ...]), in voxels of a series."""
    frame = series[0].FrameOfReferenceUID
    mask = item(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", SOPInstanceUID="1.2.3.90.1", StudyInstanceUID="1.2.3",
                SeriesInstanceUID="1.2.3.90", Modality="RTSTRUCT", StructureSetLabel="Doe", PatientName="Doe^Jane")
    mask.file_meta = FileMetaDataset()
    mask.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    mask.file_meta.MediaStorageSOPClassUID = mask.SOPClassUID
    mask.file_meta.MediaStorageSOPInstanceUID = mask.SOPInstanceUID
    of_series = [item(RTReferencedSeriesSequence=[item(SeriesInstanceUID=refers)], ReferencedSOPInstanceUID="1.2.3",
                      ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1")]
    mask.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=frame, RTReferencedStudySequence=of_series)]
    mask.StructureSetROISequence, mask.ROIContourSequence, mask.RTROIObservationsSequence = [], [], []
    for number, (name, type_, contours) in enumerate(rois, start=1):
        mask.StructureSetROISequence.append(item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame))
        mask.RTROIObservationsSequence.append(item(ReferencedROINumber=number, RTROIInterpretedType=type_))
        mask.ROIContourSequence.append(item(ReferencedROINumber=number, ContourSequence=[item(
            ContourGeometricType=kind, NumberOfContourPoints=len(corners),
            ContourData=[f"{value:.4f}" for corner in corners for value in at(series, k, *corner)])
            for k, corners in contours]))
    return mask


def boxes_of(box, offset=0.0):
    """A box of voxels as contours along the voxels' edges."""
    k, rows, columns = box
    return [(level + offset, square(rows.start - 0.5, rows.stop - 0.5, columns.start - 0.5, columns.stop - 0.5))
            for level in range(k.start, k.stop)]


def voxels(row):
    """How many voxels of 100 mm3 each lesion of a row of data.csv has."""
    return [round(np.pi / 6 * float(lesion.split(":")[4]) ** 3 / 100) for lesion in row["lesions"].split(";")]


def filled(*polygons, shape=(20, 20), tolerance=(0.001, 0.001)):
    return fill_polygons([np.array(polygon, float) for polygon in polygons], shape, tolerance)


def test_pixels_whose_centre_lies_inside_are_filled():
    """Squares and discs at known places between pixels; holes as a second polygon and by a keyhole."""
    mask = filled(square(1.4, 4.6, 0.5, 3.2))
    assert np.argwhere(mask).tolist() == [[row, column] for row in (2, 3, 4) for column in (1, 2, 3)]
    assert np.array_equal(mask, filled(square(1.4, 4.6, 0.5, 3.2)[::-1]))
    centres = filled(square(2, 4, 1, 3))  # an outline through centres counts, as rounded coordinates leave it or not
    assert np.array_equal(mask, centres) and np.array_equal(mask, filled(square(2.0009, 3.9991, 0.9991, 3.0009)))
    assert not filled(square(2.002, 2.998, 1, 3)).any()
    rows, columns = np.indices((20, 20))
    for row, column, radius in ((10.3, 9.6, 4.25), (7.77, 11.21, 6.5), (1.3, 18.8, 3.7)):
        assert np.array_equal(filled(disc(row, column, radius)), np.hypot(rows - row, columns - column) < radius)
    hole = filled(square(0.5, 6.5, 0.5, 6.5), square(2.5, 4.5, 2.5, 4.5))
    assert hole.sum() == 36 - 4 and not hole[3:5, 3:5].any()
    keyhole = [(0.5, 3.4), *square(0.5, 6.5, 0.5, 6.5)[1:], (0.5, 0.5), (0.5, 3.4), (2.5, 3.4),
               (2.5, 2.5), (4.5, 2.5), (4.5, 4.5), (2.5, 4.5), (2.5, 3.4)]
    assert np.array_equal(hole, filled(keyhole))
    island = filled(square(0.5, 6.5, 0.5, 6.5), square(2.5, 4.5, 2.5, 4.5), square(2.6, 3.4, 2.6, 3.4))
    assert island.sum() == 33 and island[3, 3]
    assert filled(square(-9, 30, 17.5, 40)).sum() == 40 and not filled(square(-9, -5, 3, 5)).any()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.tuples(*[st.floats(-4, 24)] * 2), min_size=3, max_size=9), min_size=1, max_size=3))
def test_any_polygons_are_filled_as_matplotlib_does(polygons):
    """Crossing themselves and each other. What lies within the tolerance of an outline is left out."""
    assume(all(np.ptp(polygon, axis=0).min() > 0.1 for polygon in polygons))
    mask = filled(*polygons)
    centres = np.argwhere(np.ones((20, 20)))
    expected = np.logical_xor.reduce([Outline([*polygon, polygon[0]]).contains_points(centres)
                                      for polygon in polygons]).reshape(20, 20)
    for row, column in np.argwhere(mask != expected):
        near = []
        for polygon in map(np.array, polygons):
            start, side = polygon, np.roll(polygon, -1, axis=0) - polygon
            to = np.array([row, column]) - start
            share = np.clip((to * side).sum(1) / np.maximum((side ** 2).sum(1), 1e-12), 0, 1)
            near += np.linalg.norm(to - share[:, None] * side, axis=1).tolist()
        assert min(near) < 0.0015 and (mask[row, column] or min(near) < 1e-9)


@pytest.mark.parametrize("orientation", [AXIAL, FEET_FIRST, SAGITTAL, (0.9848, 0.1736, 0, -0.1736, 0.9848, 0)])
def test_contours_give_what_the_segmentation_of_the_same_voxels_gives(orientation, tmp_path):
    series = pet_series(orientation=orientation)
    box = (slice(20, 22), *BOXED[1:])
    segmented = study(tmp_path, series, segment(series, in_series(series, BOXED, box)))[1][0]
    code, rows, _ = study(tmp_path, series, rtstruct(series, ("lesion", "GTV", boxes_of(BOXED) + boxes_of(box))))
    assert code is None and rows[0] == segmented and rows[0]["lesions"].count(";") == 1


def test_contours_with_holes(tmp_path):
    """Of 3 x 6 x 6 voxels 3 x 2 x 2 are a hole; copies count once; what overlaps in part is warned of as well."""
    series = pet_series()
    outer, inner = (slice(5, 8), slice(2, 8), slice(2, 8)), (slice(5, 8), slice(4, 6), slice(4, 6))
    contours = boxes_of(outer) + boxes_of(inner)
    _, rows, _ = study(tmp_path, series, rtstruct(series, ("x", "GTV", contours), kind="CLOSEDPLANAR_XOR"))
    assert voxels(rows[0]) == [96] and rows[0]["warnings"] == ""
    _, rows, _ = study(tmp_path, series, rtstruct(series, ("x", "GTV", contours + contours[::-1])))
    assert voxels(rows[0]) == [96] and rows[0]["warnings"] == (
        "contours of one ROI lie over one another: where an even number does was taken for a hole")
    _, rows, _ = study(tmp_path, series, rtstruct(series, ("x", "GTV", boxes_of(outer)), ("y", "GTV", boxes_of(inner))))
    assert voxels(rows[0]) == [108] and rows[0]["warnings"] == "the mask holds 2 ROIs, 1, 2: all were united"


def test_rois_that_are_no_lesions_are_left_out_and_named(tmp_path):
    series = pet_series()
    body, point = (slice(0, 29), slice(0, 20), slice(0, 30)), [(9, [(4, 4)])]
    mask = rtstruct(series, ("Body", "EXTERNAL", boxes_of(body)), ("Lesion 1", "GTV", boxes_of(BOXED)),
                    ("PTV Doe", "PTV", boxes_of(body)), ("Node", "", boxes_of((slice(20, 22), *BOXED[1:]))),
                    ("iso", "ISOCENTER", point), ("liver", "ORGAN", []))
    mask.ROIContourSequence[4].ContourSequence[0].ContourGeometricType = "POINT"
    code, rows, _ = study(tmp_path, series, mask)
    assert code is None and sorted(voxels(rows[0])) == [30, 45]
    assert rows[0]["warnings"].split("; ") == [
        "ROIs of type EXTERNAL, no lesions, were left out: 1 (body)", "ROIs of type PTV, no lesions, were left out: 3",
        "ROIs without type were taken for lesions: 4 (node)", "ROIs of type ISOCENTER, no lesions, were left out: 5",
        "the mask holds 2 ROIs, 2 (lesion), 4 (node): all were united"]
    mask.StructureSetROISequence[3].ReferencedFrameOfReferenceUID = "1.2.9"
    _, rows, _ = study(tmp_path, series, mask)
    assert voxels(rows[0]) == [45]
    assert "ROIs of another frame of reference were left out: 4 (node)" in rows[0]["warnings"]
    del mask.RTROIObservationsSequence[1], mask.ROIContourSequence[0]  # no type at all
    assert voxels(study(tmp_path, series, mask)[1][0]) == [45]


def between(millimetres):
    return f"the contours are not on the PET's slices, which took the nearest within {millimetres} mm"


@pytest.mark.parametrize(("planes", "refers", "levels", "said"), [
    ([5, 6, 7], True, [5, 6, 7], ""), ([5.09, 6.05, 6.95], True, [5, 6, 7], ""),
    ([5.3, 6.3, 7.3], True, [5, 6, 7], between("2.5")), ([5.5, 6.5], True, [5, 6], between("2.5")),
    ([4.7], False, [5], between("2.5")), ([5, 5.5, 6, 6.5, 7], False, [5, 6, 7], between("2.5")),
    ([5, 7, 9], True, [5, 7, 9], ""), ([5.1, 6.6, 8.1, 11.1], False, [5, 6, 7, 8, 11], between("3.75")),
    ([5.2, 20.2], False, [5, 20], between("2.5"))])
def test_slices_take_the_nearest_contours(planes, refers, levels, said, tmp_path):
    """Slices of 5 mm. Planes may be finer, wider, or between them, as those drawn on the CT are."""
    series = pet_series()
    contours = [(plane, square(2.5, 5.5, 3.5, 8.5)) for plane in planes]
    mask = rtstruct(series, ("x", "GTV", contours), refers="1.2.3.1" if refers else "1.2.3.99")
    _, rows, _ = study(tmp_path, series, mask)
    assert rows[0]["warnings"] == said and sum(voxels(rows[0])) == 15 * len(levels)
    heights = [float(lesion.split(":")[3]) for lesion in rows[0]["lesions"].split(";")]
    parts = np.split(levels, np.flatnonzero(np.diff(levels) > 1) + 1)
    assert sorted(heights) == pytest.approx(sorted(at(series, np.mean(part), 0, 0)[2] for part in parts), abs=0.06)


@pytest.mark.parametrize(("attribute", "said", "change"), [
    *[("ContourGeometricType", kind, lambda mask, contour, kind=kind: setattr(contour, "ContourGeometricType", kind))
      for kind in ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")],
    ("RTROIInterpretedType", "no ROI that has contours is a lesion",
     lambda mask, contour: setattr(mask.RTROIObservationsSequence[0], "RTROIInterpretedType", "ORGAN")),
    ("RTROIInterpretedType", "no ROI that has contours is a lesion",
     lambda mask, contour: delattr(mask, "ROIContourSequence")),
    ("ContourData", "beyond the slices", lambda mask, contour: contour.ContourData.__setitem__(
        slice(2, None, 3), [999.0] * 4)),
    ("ContourData", "not parallel", lambda mask, contour: contour.ContourData.__setitem__(2, 0.0)),
    ("ContourData", "no list of points", lambda mask, contour: contour.ContourData.pop()),
    ("ContourData", "no list of points", lambda mask, contour: setattr(contour, "ContourData", None)),
    ("ContourData", "no list of points", lambda mask, contour: delattr(contour, "ContourData")),
    ("ContourData", "the centre of no voxel", lambda mask, contour: [
        part.ContourData.__setitem__(slice(0, None, 3), [999.0] * 4)
        for part in mask.ROIContourSequence[0].ContourSequence]),
    ("FrameOfReferenceUID", "another frame of reference", lambda mask, contour: [
        setattr(mask.ReferencedFrameOfReferenceSequence[0], "FrameOfReferenceUID", "1.2.9"),
        setattr(mask.StructureSetROISequence[0], "ReferencedFrameOfReferenceUID", "1.2.9")])])
def test_contours_that_cannot_be_used_are_named(attribute, said, change, tmp_path):
    series = pet_series()
    mask = rtstruct(series, ("Doe Jane", "GTV", boxes_of(BOXED)))
    change(mask, mask.ROIContourSequence[0].ContourSequence[1])
    code, rows, errors = study(tmp_path, series, mask)
    assert code == 1 and "mask" not in rows[0] and rows[0]["warnings"] == "no mask was used, errors.csv says why"
    assert errors[["study", "attribute"]].values.tolist() == [["A/mask0", attribute]]
    assert said in f"{errors['value'][0]} {errors['reason'][0]}" and "Doe" not in str(errors.values)


def test_small_and_cut_contours_are_warned_of(tmp_path):
    series = pet_series()
    cut, small = [(5, square(-3, 2.4, 3.5, 8.5))], [(9, square(4.1, 4.9, 4.1, 4.9))]
    _, rows, _ = study(tmp_path, series, rtstruct(series, ("lesion", "GTV", cut), ("node 2", "GTV", small)))
    assert voxels(rows[0]) == [15] and rows[0]["warnings"].split("; ")[1:] == [
        "the centre of no voxel of the PET lies in ROI 2 (node): left out",
        "contours reach beyond the PET's pixels: what lies there was left out"]


def test_contours_of_the_ct_in_the_frame_of_reference_or_of_another_study(tmp_path):
    series = pet_series()
    good = study(tmp_path, series, rtstruct(series, ("x", "GTV", boxes_of(BOXED))))[1]
    mask = rtstruct(series, ("x", "GTV", boxes_of(BOXED)), refers="1.2.3.99")
    mask.StudyInstanceUID = "1.2.77"  # it refers to the study
    assert study(tmp_path, series, mask)[1] == good
    del mask.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    code, rows, errors = study(tmp_path, series, mask)
    assert code == 1 and rows[0]["warnings"] == "" and "fits no PET series" in errors["reason"][0]
    mask.StudyInstanceUID = "1.2.3"
    assert study(tmp_path, series, mask)[1] == good
    short = pet_series(SeriesInstanceUID="1.2.3.9", SeriesNumber=2)[:15]
    mask = rtstruct(series, ("x", "GTV", boxes_of(BOXED)), refers="1.2.3.9")
    code, rows, errors = study(tmp_path, series + short, mask)
    assert code == 1 and "another PET series" in errors["reason"][0] and "mask" not in rows[0]


@pytest.mark.filterwarnings("ignore:The value for the data element:UserWarning")
def test_a_contour_of_more_points_than_an_explicit_value_may_have(tmp_path):
    series = pet_series()
    ends = square(2.5, 5.5, 3.5, 8.5)
    corners = np.concatenate([np.linspace(ends[k - 1], ends[k], 1000, endpoint=False) for k in range(4)])
    mask = rtstruct(series, ("x", "GTV", [(k, corners) for k in (5, 6, 7)]))
    assert voxels(study(tmp_path, series, mask)[1][0]) == [45]
