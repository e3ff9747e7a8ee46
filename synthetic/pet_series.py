"""One scan of the phantom as a PET series: how it was acquired and stored, and its DICOM files.

The scanners differ as those of public series do. Dose and uptake time follow Boellaard et al., Eur J Nucl Med Mol
Imaging 2015, doi:10.1007/s00259-014-2961-x.
"""
import io
import math
import os
import shutil
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid

HALF_LIFE = 6586.2  # s, fluorine-18
# What differs from slice to slice, as text of the width that it may take.
PLACEHOLDERS = {"InstanceNumber": "1000000001", "AcquisitionTime": "235958.123456"} | dict.fromkeys(
    ("SliceLocation", "FrameReferenceTime", "DecayFactor", "RescaleSlope"), "1000000000000001")
# What every series says.
ELEMENTS = {
    "ImageType": ["ORIGINAL", "PRIMARY"], "SOPClassUID": uid.PositronEmissionTomographyImageStorage, "Modality": "PT",
    "AccessionNumber": "", "ReferringPhysicianName": "", "PatientBirthDate": "", "PositionReferenceIndicator": "",
    "StudyDescription": "SYNTHETIC FDG PET", "SeriesDescription": "SYNTHETIC phantom PET WB AC", "SeriesNumber": "1",
    "ImageComments": "SYNTHETIC: drawn by phantom.py, no patient", "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
    "PixelRepresentation": 1, "RescaleIntercept": "0", "SeriesType": ["WHOLE BODY", "IMAGE"],
    "CountsSource": "EMISSION", "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"],
    "RandomsCorrectionMethod": "DLYD", "ScatterCorrectionMethod": "Model-based", "AttenuationCorrectionMethod": "CT",
    "CollimatorType": "NONE"}
# Manufacturer, model, reconstruction. What else vendors differ in: _vendor_changes, _add_private.
VENDORS = {"siemens": ("SIEMENS", "Biograph mCT", "OSEM3D+PSF+TOF"),
           "ge": ("GE MEDICAL SYSTEMS", "Discovery 710", "VPFX"),
           "philips": ("Philips Medical Systems", "Gemini TF", "BLOB-OS-TF")}


def plan_acquisition(patient: dict, scan: dict, vendor: str = "mixed") -> dict:
    """Draw how one scan was acquired and stored.

    Parameters
    ----------
    patient, scan : dict
        From `cohort.plan_patient`.
    vendor : str
        One of VENDORS, whose private attributes are written, too; or "mixed": any of the names, without them. Start,
        injection and SUV are the same for each.

    Returns
    -------
    dict
        Scanner, times, dose, decay correction, bed positions, units, orientation and order of the slices.
    """
    rng = np.random.default_rng([patient["seed"], patient["index"], 4, scan["number"]])
    start = datetime(2018, 1, 1, 8) + timedelta(days=scan["day"], seconds=int(rng.integers(0, 8 * 3600)))
    acquisition = {
        "vendor": str(rng.choice(list(VENDORS))), "start": start,
        "injection": start - timedelta(seconds=round(60 * float(np.clip(rng.normal(62, 6), 50, 80)))),
        "dose": round(1e6 * patient["weight_kg"] * rng.uniform(3, 4)),  # Bq
        "decay_correction": "ADMIN" if rng.random() < 0.15 else "START",
        "dated": bool(rng.random() < 0.4),  # RadiopharmaceuticalStartDateTime as well as StartTime
        "series_time_s": 3000 if rng.random() < 0.15 else 0,  # SeriesTime after the start: of a late reconstruction
        "bed_slices": int(rng.integers(28, 45)) if rng.random() < 0.6 else None,
        "frame_s": int(rng.choice([90, 120, 150, 180])),
        "feet_first": bool(rng.random() < 0.1), "head_to_feet": bool(rng.random() < 0.5),
        "explicit": bool(rng.random() < 0.7),
        "private": False, "one_slope": False, "activity_factor": None, "suv_factor": False}
    if vendor != "mixed":
        rng = np.random.default_rng([patient["seed"], patient["index"], 5, scan["number"]])
        acquisition |= {"vendor": vendor, "private": True} | _vendor_changes(vendor, acquisition, rng)
    return acquisition


def _vendor_changes(vendor, acquisition, rng):
    """Where the files of `vendor` differ from `acquisition`."""
    if vendor == "siemens":
        return {"bed_slices": acquisition["bed_slices"] or int(rng.integers(28, 45))}
    if vendor == "ge":  # SeriesTime is not the scan's in a quarter: late, or of the moment the series was set up
        early = not acquisition["series_time_s"] and rng.random() < 0.12
        return {"series_time_s": -int(rng.integers(120, 900))} if early else {}
    return {"activity_factor": round(rng.uniform(0.5, 5), 3),  # Bq/ml of a rescaled count
            "suv_factor": bool(rng.random() < 0.7),  # else 0, which leaves the activity factor
            "one_slope": bool(rng.random() < 0.5)}  # one RescaleSlope for the series


def write_series(volume: np.ndarray, axes: Sequence[np.ndarray], patient: dict, scan: dict, acquisition: dict,
                 folder: Path) -> None:
    """Write one SUV volume as a PET series, NNN.dcm a slice; the folder appears whole or not at all.

    The slices share all but a few elements: those are placeholders in a template that pydicom serializes once, and are
    overwritten in its bytes (1.5 ms a slice less). No fsync a slice: a cohort has 100 000.

    Parameters
    ----------
    volume : (z, y, x) float32 array
        SUV, feet to head, front to back, the patient's right to left.
    axes : three float arrays
        z, y, x of the voxel centres, LPS mm.
    patient, scan : dict
        From `cohort.plan_patient`.
    acquisition : dict
        From `plan_acquisition`.
    folder : Path
        Of the series; replaced.
    """
    dataset, first_x = _series_dataset(patient, scan, acquisition, volume.shape), axes[2][0]
    if acquisition["feet_first"]:
        volume, first_x = volume[:, :, ::-1], axes[2][-1]  # ImageOrientationPatient runs to the patient's right
    corner = [f"{first_x:.3f}", f"{axes[1][0]:.3f}"]
    dataset.ImagePositionPatient = [*corner, PLACEHOLDERS["SliceLocation"]]
    template, offsets = _serialize(dataset)
    temporary = folder.with_name(f".{folder.name}.tmp")
    for old in (temporary, folder):
        shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(parents=True)
    peaks = np.maximum(volume.max((1, 2)), 1e-3)
    if acquisition["one_slope"]:
        peaks[:] = peaks.max()
    rescaled = _activity_per_suv(patient, acquisition) / (acquisition["activity_factor"] or 1)  # value of SUV 1
    for number, k in enumerate(range(len(volume))[::-1 if acquisition["head_to_feet"] else 1], 1):
        slope, location = f"{peaks[k] * rescaled / 32767:.9e}", f"{axes[0][k]:.3f}".ljust(16)
        values = _slice_values(acquisition, k) | {
            "SOPInstanceUID": f"{dataset.SeriesInstanceUID}.{1000 + number}", "InstanceNumber": str(number),
            "RescaleSlope": slope, "SliceLocation": location, "ImagePositionPatient": "\\".join([*corner, location])}
        for keyword, place in offsets:
            text = values[keyword].ljust(len(PLACEHOLDERS.get(keyword, ""))).encode()
            template[place:place + len(text)] = text
        pixels = np.rint(volume[k] * np.float32(rescaled / float(slope))).astype("<i2")
        template[-pixels.nbytes:] = pixels.tobytes()
        (temporary / f"{number:03d}.dcm").write_bytes(template)
    os.rename(temporary, folder)


def uptake_seconds(acquisition: dict) -> float:
    """Seconds from the injection to the start of the scan."""
    return (acquisition["start"] - acquisition["injection"]).total_seconds()


def _activity_per_suv(patient, acquisition):
    """The Bq/ml of SUV 1, decay corrected as DecayCorrection says."""
    waited = uptake_seconds(acquisition) if acquisition["decay_correction"] == "START" else 0
    return acquisition["dose"] * math.exp(-math.log(2) / HALF_LIFE * waited) / (1000 * patient["weight_kg"])


def _slice_values(acquisition, k):
    """The text of a slice's times, k from the feet.

    The decay within a frame makes its activity that of the time T_ave after its start (PS3.3 C.8.9.4, suv.md rule 7).
    """
    rate = math.log(2) / HALF_LIFE
    frame = acquisition["frame_s"]
    bed = k // acquisition["bed_slices"] if acquisition["bed_slices"] else 0
    acquired = bed * (frame + 3)  # s after the start; the table goes from the feet to the head
    average = math.log(rate * frame / -math.expm1(-rate * frame)) / rate
    decayed = uptake_seconds(acquisition) if acquisition["decay_correction"] == "ADMIN" else 0
    return {"AcquisitionTime": f"{acquisition['start'] + timedelta(seconds=acquired):%H%M%S}",
            "FrameReferenceTime": f"{1000 * (acquired + average):.3f}",
            "DecayFactor": f"{math.exp(rate * (acquired + average + decayed)):.9f}"}


def _serialize(dataset):
    """The bytes of a dataset, and where the values that vary over slices begin in it: [(keyword, offset), ...]."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    read = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
    varying = [*PLACEHOLDERS, "SOPInstanceUID", "ImagePositionPatient"]
    return bytearray(buffer.getvalue()), [(keyword, read.get_item(keyword).value_tell) for keyword in varying] + [
        ("SOPInstanceUID", read.file_meta.get_item("MediaStorageSOPInstanceUID").value_tell)]


def make_uid(*names: object) -> str:
    """A UID made of a UUID (PS3.5 B.2) that depends on nothing but `names`."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, ('phantom', *names)))).int}"


def _series_dataset(patient, scan, acquisition, shape):
    """The elements that all slices share, and placeholders for the others; shape is the volume's (z, y, x)."""
    names, start = (patient["seed"], patient["index"], scan["number"]), acquisition["start"]
    series_uid = make_uid(*names, "series", *([acquisition["vendor"]] if acquisition["private"] else []))
    _, pixel, distance = patient["grid"]
    ds = _dataset(ELEMENTS | PLACEHOLDERS | {
        "SOPInstanceUID": f"{series_uid}.9999", "SeriesInstanceUID": series_uid,
        "StudyInstanceUID": make_uid(*names, "study"), "FrameOfReferenceUID": make_uid(*names, "frame"),
        **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"), f"{start:%Y%m%d}"),
        "StudyTime": f"{start:%H%M%S}",
        "SeriesTime": f"{start + timedelta(seconds=acquisition['series_time_s']):%H%M%S}",
        "PatientName": f"SYNTHETIC^{patient['patient']}", "PatientID": patient["patient"], "PatientSex": patient["sex"],
        "PatientAge": f"{patient['age']:03d}Y", "PatientSize": f"{patient['height_cm'] / 100:.2f}",
        "PatientWeight": f"{patient['weight_kg']:.1f}", "StudyID": str(scan["number"]),
        "PatientPosition": "FFS" if acquisition["feet_first"] else "HFS",
        "ImageOrientationPatient": [-1 if acquisition["feet_first"] else 1, 0, 0, 0, 1, 0],
        "ActualFrameDuration": str(1000 * acquisition["frame_s"]), "NumberOfSlices": shape[0], "Rows": shape[1],
        "Columns": shape[2], "PixelSpacing": [str(pixel), str(pixel)], "SliceThickness": str(distance),
        "Units": "CNTS" if acquisition["activity_factor"] else "BQML",
        "DecayCorrection": acquisition["decay_correction"],
        "RadiopharmaceuticalInformationSequence": [_radiopharmaceutical(acquisition)],
        "PixelData": bytes(2 * shape[1] * shape[2])})
    ds.Manufacturer, ds.ManufacturerModelName, ds.ReconstructionMethod = VENDORS[acquisition["vendor"]]
    if acquisition["private"]:
        _add_private(ds, patient, acquisition)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    syntax = "ExplicitVRLittleEndian" if acquisition["explicit"] else "ImplicitVRLittleEndian"
    ds.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    return ds


def _dataset(elements):
    """{keyword: value} -> Dataset."""
    dataset = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def _add_private(ds, patient, acquisition):
    """The vendor's private elements that SUV may need (suv.md rules 3, 6 and 7)."""
    if acquisition["vendor"] == "ge":
        block = ds.private_block(0x0009, "GEMS_PETD_01", create=True)
        block.add_new(0x0D, "DT", f"{acquisition['start']:%Y%m%d%H%M%S}.00")  # of the scan, to which START decays
        block.add_new(0x3B, "DT", f"{acquisition['injection']:%Y%m%d%H%M%S}.00")
    if acquisition["vendor"] == "philips":
        activity = acquisition["activity_factor"]
        suv_factor = activity / _activity_per_suv(patient, acquisition) if acquisition["suv_factor"] else 0
        block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", f"{suv_factor:.9e}")  # SUV of a rescaled count
        block.add_new(0x09, "DS", f"{activity:.9e}")  # Bq/ml of a rescaled count


def _radiopharmaceutical(acquisition):
    injection = acquisition["injection"]
    dated = {"RadiopharmaceuticalStartDateTime": f"{injection:%Y%m%d%H%M%S}"} if acquisition["dated"] else {}
    return _dataset({"Radiopharmaceutical": "FDG", "RadiopharmaceuticalStartTime": f"{injection:%H%M%S}", **dated,
                     "RadionuclideTotalDose": str(acquisition["dose"]), "RadionuclideHalfLife": str(HALF_LIFE),
                     "RadionuclidePositronFraction": "0.967",
                     "RadionuclideCodeSequence": [_code("C-111A1", "^18^Fluorine")],
                     "RadiopharmaceuticalCodeSequence": [_code("C-B1031", "Fluorodeoxyglucose F^18^")]})


def _code(value, meaning):
    return _dataset({"CodeValue": value, "CodingSchemeDesignator": "SRT", "CodeMeaning": meaning})
