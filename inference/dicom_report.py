"""A scan's score as DICOM objects of the patient's study: its picture, its numbers.

The picture is a Secondary Capture Image (PS3.3 A.8.1), the numbers are an Enhanced SR (PS3.3 A.35.2) after the
Measurement Report, TID 1500 (PS3.16). Both take patient and study from the PET series, and are series of their own.
Codes that no standard has are of the scheme 99DEAUVILLE.
"""
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DA, TM

from common import __version__
from common.files import InputError, replace_file
from inference.scoring import Scan, Scores

NAME, SCHEME = "deauville-scoring", "99DEAUVILLE"
RESEARCH = "For research use only, not for diagnosis"
DESCRIPTION = "Deauville 4-5 by MIP, research only"  # SeriesDescription: at most 64 characters
MAY_BE_EMPTY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                "AccessionNumber", "ReferringPhysicianName")
PARSED = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
SEXES = ("M", "F", "O")
PICTURE_SERIES, NUMBERS_SERIES = 9801, 9802
CLASSES = {True: Code("DS45", SCHEME, "Deauville score 4 or 5"), False: Code("DS13", SCHEME, "Deauville score 1 to 3"),
           None: Code("DSNONE", SCHEME, "Threshold cannot be reached")}


def plain(text: str) -> str:
    """In ASCII, which every character set of a study has."""
    return text.translate(str.maketrans({"≥": ">=", "–": "-", "×": "x", "·": "*"})).encode("ascii", "replace").decode()


def find_highdicom():
    """The library; InputError where it is not installed."""
    try:
        import highdicom
    except ImportError:
        raise InputError("--dicom: needs highdicom, which is not installed: pip install highdicom") from None
    return highdicom


def write_objects(scan: Scan, scores: Scores, picture: bytes, files: Sequence[str | Path], folder: Path) -> list[Path]:
    """Write both objects, under new UIDs, which name the files.

    Parameters
    ----------
    picture : bytes
        PNG.
    files : sequence of path
        Of the PET series that was scored.
    folder : Path
        Gets SCAN_sc_UID.dcm and SCAN_sr_UID.dcm.

    Returns
    -------
    list of Path
        Of the picture, of the numbers.

    Raises
    ------
    InputError
        highdicom is not installed, or a file of that name is there.
    """
    with warnings.catch_warnings(action="ignore"):  # which quote names of patients on the terminal
        images = [_with_study(dcmread(path, stop_before_pixels=True, force=True)) for path in files]  # no preamble
        captured = capture(picture, images[0])
        report = numbers(scan, scores, images)
    paths = [folder / f"{scan.scan_id}_{kind}_{each.SOPInstanceUID}.dcm"
             for kind, each in (("sc", captured), ("sr", report))]
    for path, each in zip(paths, (captured, report), strict=True):
        each.SeriesDescription, each.SoftwareVersions, each.ManufacturerModelName = DESCRIPTION, __version__, NAME
        if "SpecificCharacterSet" in images[0]:  # as it is: highdicom refuses some, as an empty first one
            each.SpecificCharacterSet = images[0].SpecificCharacterSet
        if path.exists():
            raise InputError(f"{path}: is there already; nothing was written over it")
        with replace_file(path, "wb", private=True) as file:
            each.save_as(file, enforce_file_format=True)
    return paths


def _with_study(image: Dataset) -> Dataset:
    """The image with the attributes of patient and study that may be empty, but must be there (type 2).

    Empty, too, is a date, a time or a sex that the standard does not know, as 1970 or W.
    """
    for name in MAY_BE_EMPTY:
        if name not in image or not _valid(name, image[name].value):
            setattr(image, name, "")
    return image


def _valid(name, value):
    try:
        PARSED.get(name, str)(value or "")
    except ValueError:
        return False
    return name != "PatientSex" or value in SEXES


def capture(picture: bytes, image: Dataset) -> Dataset:
    """The picture as a Secondary Capture Image of the study of `image`."""
    highdicom = find_highdicom()
    with Image.open(io.BytesIO(picture)) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    found = highdicom.sc.SCImage.from_ref_dataset(
        image, pixel_array=pixels, photometric_interpretation="RGB", bits_allocated=8, coordinate_system="PATIENT",
        series_instance_uid=highdicom.UID(), series_number=PICTURE_SERIES, sop_instance_uid=highdicom.UID(),
        instance_number=1, manufacturer=NAME, patient_orientation=("L", "F"), specific_character_set=None,
        transfer_syntax_uid="1.2.840.10008.1.2.1")
    found.PatientOrientation = None  # of several views
    found.BodyPartExamined, found.BurnedInAnnotation = "WHOLEBODY", "NO"  # neither left nor right
    found.ImageComments = RESEARCH
    return found


def numbers(scan: Scan, scores: Scores, images: Sequence[Dataset]) -> Dataset:
    """The scan's numbers as an Enhanced SR of the study of `images`, its evidence."""
    highdicom = find_highdicom()
    sr = highdicom.sr
    remarks = [RESEARCH, *scores.notices, *scan.warnings, *scores.warnings]
    values = [("P45", "Probability of Deauville score 4 or 5", scan.probability),
              ("P45RAW", "Probability before recalibration", scan.predicted),
              ("SD", "Standard deviation over the networks", scan.sd), ("NMODELS", "Networks", len(scan.scores))]
    measured = [sr.Measurement(Code(code, SCHEME, meaning), round(float(value), 6), codes.UCUM.NoUnits)
                for code, meaning, value in values if value is not None and not math.isnan(value)]
    names = [plain(f"Predicted at {call.name} ({call.threshold})")[:64] for call in scan.calls]
    calls = [sr.QualitativeEvaluation(Code(f"CALL{k}", SCHEME, name), CLASSES[call.positive])
             for k, (name, call) in enumerate(zip(names, scan.calls, strict=True))]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(highdicom.UID(), f"Score of scan {scan.scan_id}"),
        algorithm_id=sr.AlgorithmIdentification(NAME, __version__, parameters=list(map(plain, remarks))),
        measurements=measured, qualitative_evaluations=calls,
        source_images=[sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID) for image in images])
    device = sr.ObserverContext(codes.DCM.Device, sr.DeviceObserverIdentifyingAttributes(
        highdicom.UID(), name=NAME, manufacturer_name=NAME, model_name=__version__))
    report = sr.MeasurementReport(sr.ObservationContext(observer_device_context=device), codes.LN.PETWholeBody, [group],
                                  title=codes.DCM.ImagingMeasurementReport)
    return sr.EnhancedSR(evidence=images, content=report, series_instance_uid=highdicom.UID(),
                         series_number=NUMBERS_SERIES, sop_instance_uid=highdicom.UID(), instance_number=1,
                         manufacturer=NAME, is_complete=True, is_final=False, is_verified=False,
                         specific_character_set=None)
