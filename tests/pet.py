"""Small PET DICOM series for the tests: a body of SUV 1.00, in it a hot sphere of 4.00 and a cold one of 0.20.

The object is drawn in patient coordinates (mm; x to the left, y to the back, z to the head), so every orientation shows
the same patient. Stored values come from SUV x `per_suv`, which each test works out by hand.
"""
import math
import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

_DATA = os.environ.get("DEAUVILLE_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = Path(_DATA) / "sts_001_fdg_pet"  # a public FDG PET series
needs_real_series = pytest.mark.skipif(not REAL.is_dir(), reason="no real series: set DEAUVILLE_REAL_DATA")
HOT, COLD, BACKGROUND = (-30.0, -15.0, 40.0), (30.0, 15.0, -40.0), (30.0, -15.0, 40.0)  # centres: right front head, ...
SUV = {HOT: 4.00, COLD: 0.20, BACKGROUND: 1.00}
RADIUS, BODY = 14.0, (65.0, 45.0, 70.0)
DOSE, WEIGHT, HEIGHT, HALF_LIFE, UPTAKE, FRAME = 370e6, 70.0, 1.75, 6586.2, 3600.0, 180.0  # Bq, kg, m, s, s, s
RATE = math.log(2) / HALF_LIFE
FRAME_LOSS = (1 - math.exp(-RATE * FRAME)) / (RATE * FRAME)  # mean over a frame / value at its start
DECAYED = 2 ** (-UPTAKE / HALF_LIFE)
PER_SUV = DOSE * DECAYED / (WEIGHT * 1000)  # Bq/ml of SUV 1 at the start of the scan
AXIAL, FEET_FIRST, PRONE = (1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0)
COARSE = {"spacing": (20.0, 5.0, 4.0)}  # 7 slices, 120 mm between the outer ones
SAGITTAL, CORONAL = (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)
PET, LEGACY = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.128.1"
ENHANCED = "1.2.840.10008.5.1.4.1.1.130"
IN_RADIOPHARMACEUTICAL = ("Radiopharmaceutical", "RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime",
                          "RadionuclideTotalDose", "RadionuclideHalfLife", "RadionuclideCodeSequence")
CREATORS = {0x0009: "GEMS_PETD_01", 0x7053: "Philips PET Private Group"}


def drawn_suv(points):
    """SUV at patient coordinates (..., 3)."""
    suv = np.where((np.abs(points) < BODY).all(axis=-1), 1.0, 0.0)
    for centre in (HOT, COLD):
        suv[np.linalg.norm(points - np.array(centre), axis=-1) < RADIUS] = SUV[centre]
    return suv


def value_at(volume, centre):
    """The voxel of a SuvVolume nearest to a point; the object is centred in the volume."""
    x, y, z = centre
    middle = (np.array(volume.array.shape) - 1) / 2
    return volume.array[tuple(np.round(middle + np.array((z, y, x)) / volume.spacing).astype(int))]


def code(value):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SRT", value
    return item


def datasets(spacing=(10.0, 5.0, 4.0), orientation=AXIAL, per_suv=PER_SUV, size=(150, 100, 140), uid="1.2.3",
             slopes=None, **changed):
    """The slices of a series, in memory.

    Args:
        spacing (tuple): of slices, rows and columns, mm.
        orientation (tuple): ImageOrientationPatient. size (tuple): extent along x, y, z, mm.
        per_suv (float | array): what the rescaled value of SUV 1 is, for every slice or slice by slice.
        slopes (float | array): RescaleSlope; default: what makes the brightest voxel of each slice 30000.
        **changed: attributes to set; None deletes. Those of the injection go to its sequence. "p7053_1000"-like names
            are private elements, with the creator of GE or Philips.

    Returns:
        list of pydicom Datasets, sorted along their normal.
    """
    across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    axes = np.array([np.cross(across, down), down, across])
    counts = np.round(np.abs(axes) @ np.array(size) / spacing).astype(int)
    grid = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(counts, spacing, strict=True)]
    per_suv = np.broadcast_to(per_suv, counts[0])
    series = []
    for k, along in enumerate(grid[0]):
        points = along * axes[0] + grid[1][:, None, None] * axes[1] + grid[2][:, None] * axes[2]
        values = drawn_suv(points) * per_suv[k]
        slope = float(f"{max(values.max(), 1e-3 * per_suv[k]) / 30000:.10g}") if slopes is None else np.broadcast_to(
            slopes, counts[0])[k]
        ds = _dataset(uid, k, counts, slope)
        ds.ImageOrientationPatient = [float(f"{v:.10g}") for v in orientation]
        ds.ImagePositionPatient = [float(f"{v:.10g}") for v in points[0, 0]]
        ds.PixelSpacing = list(spacing[1:])
        ds.PixelData = np.round(values / slope).astype("<i2").tobytes()
        change(ds, **changed)
        series.append(ds)
    return series


def _dataset(uid, k, counts, slope):
    ds, injection = Dataset(), Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = PET, f"{uid}.1.{k + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{uid}", f"{uid}.1", f"{uid}.2"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "PT", "ACME", "Ring 1"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Doe^Jane", "MRN4711", "19700101"
    ds.AccessionNumber, ds.SeriesDescription, ds.SeriesNumber = "ACC0815", "PET WB", 1
    ds.PatientSex, ds.PatientSize, ds.PatientWeight = "F", HEIGHT, WEIGHT
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20240310"
    ds.SeriesTime = ds.AcquisitionTime = "110000"
    ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
    ds.ActualFrameDuration = int(FRAME * 1000)
    injection.RadiopharmaceuticalStartTime, injection.RadionuclideTotalDose = "100000", DOSE
    injection.RadiopharmaceuticalStartDateTime, injection.RadionuclideHalfLife = "20240310100000", HALF_LIFE
    injection.RadionuclideCodeSequence = [code("C-111A1")]
    ds.RadiopharmaceuticalInformationSequence = [injection]
    ds.NumberOfSlices, ds.Rows, ds.Columns = (int(n) for n in counts)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = slope, 0
    return ds


def change(ds, **changed):
    """Set attributes, or delete those whose new value is None."""
    for keyword, value in changed.items():
        if keyword.startswith("p"):
            group, element = int(keyword[1:5], 16), int(keyword[6:], 16)
            block = ds.private_block(group, CREATORS[group], create=True)
            block.add_new(element & 0xFF, "DT" if group == 9 else "DS", value)
            continue
        target = ds.RadiopharmaceuticalInformationSequence[0] if keyword in IN_RADIOPHARMACEUTICAL else ds
        if value is None:
            if keyword in target:
                delattr(target, keyword)
        else:
            setattr(target, keyword, value)


def save(series, folder):
    """Write datasets as 001.dcm, 002.dcm, ... Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(series, start=1):
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return folder


def write_series(folder, syntax=ExplicitVRLittleEndian, **kwargs):
    """`datasets(**kwargs)` as files in a transfer syntax of uncompressed pixels. Returns the folder."""
    series = datasets(**kwargs)
    for ds in series:
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
    return save(series, folder)


def write_multiframe(folder, sop_class, **kwargs):
    """The same series as one multi-frame object, Legacy Converted or Enhanced. Returns the file."""
    series = datasets(SOPClassUID=sop_class, **kwargs)
    ds, shared = series[0], Dataset()
    plane = Dataset()
    plane.PixelSpacing = ds.PixelSpacing
    shared.PixelMeasuresSequence = [plane]
    orientation = Dataset()
    orientation.ImageOrientationPatient = ds.ImageOrientationPatient
    shared.PlaneOrientationSequence = [orientation]
    if sop_class == ENHANCED:
        _enhance(ds, shared)
    else:
        unassigned = Dataset()
        for keyword in ("Units", "DecayCorrection", "CorrectedImage", "ActualFrameDuration"):
            setattr(unassigned, keyword, getattr(ds, keyword))
            delattr(ds, keyword)
        shared.UnassignedSharedConvertedAttributesSequence = [unassigned]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_frame(one, sop_class) for one in series]
    ds.NumberOfFrames, ds.PixelData = len(series), b"".join(one.PixelData for one in series)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                    "RescaleIntercept", "NumberOfSlices"):
        delattr(ds, keyword)
    save([ds], folder)
    return folder / "001.dcm"


def _enhance(ds, shared):
    ds.DecayCorrected, ds.DecayCorrectionDateTime, ds.AttenuationCorrected = "YES", "20240310110000", "YES"
    ds.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose = DOSE / 1e6  # MBq there
    unit = Dataset()
    unit.MeasurementUnitsCodeSequence = [code("Bq/ml")]
    shared.RealWorldValueMappingSequence = [unit]
    for keyword in ("Units", "DecayCorrection", "CorrectedImage", "ActualFrameDuration", "AcquisitionTime"):
        delattr(ds, keyword)


def _frame(one, sop_class):
    groups, position, values, content = (Dataset() for _ in range(4))
    position.ImagePositionPatient = one.ImagePositionPatient
    groups.PlanePositionSequence = [position]
    values.RescaleSlope, values.RescaleIntercept = one.RescaleSlope, 0
    groups.PixelValueTransformationSequence = [values]
    content.FrameAcquisitionDateTime, content.FrameAcquisitionDuration = "20240310110000", FRAME * 1000
    groups.FrameContentSequence = [content]
    return groups


SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def changed(series, **attributes):
    for ds in series:
        change(ds, **attributes)
    return series
