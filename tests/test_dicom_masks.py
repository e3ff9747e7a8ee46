"""Lesion masks of DICOM: segmentations and contours (RTSTRUCT), on the voxels of their PET."""
import os
import shutil
import zipfile
from copy import deepcopy

import highdicom
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from masks_helpers import prepro
from matplotlib.path import Path as Outline
from pet import AXIAL, ENHANCED, FEET_FIRST, SAGITTAL, datasets, save, write_multiframe
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from preprocessing.dicom_masks import fill_polygons

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
