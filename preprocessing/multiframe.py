"""Multi-frame PET objects, Enhanced and Legacy Converted, as one flat header a frame."""
import struct

from preprocessing.dicom_reader import ENHANCED_PET
from preprocessing.dicom_values import Header, number, text
from preprocessing.refusal import Refused

FUNCTIONAL_GROUPS = ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence",
                     "PixelValueTransformationSequence", "FrameContentSequence", "RealWorldValueMappingSequence",
                     "UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")
UCUM = {"Bq/ml": ("BQML", ""), "g/ml{SUVbw}": ("GML", "BW"), "g/ml{SUVlbm}": ("GML", "LBM"),
        "g/ml{SUVlbm(James128)}": ("GML", "LBMJAMES128"), "g/ml{SUVlbm(Janma)}": ("GML", "LBMJANMA"),
        "g/ml{SUVibw}": ("GML", "IBW"), "cm2/ml{SUVbsa}": ("CM2ML", "BSA"), "{counts}": ("CNTS", ""),
        "{counts}/s": ("CPS", "")}


def frames(header: Header) -> list[Header]:
    """Split a multi-frame header into one flat header a frame (PS3.3 C.7.6.16).

    Parameters
    ----------
    header : dict
        As `dicom_reader.read_header` gives it.

    Returns
    -------
    list of dict
        A single frame as it is. Of several, each with the attributes of the shared and per-frame functional groups, and
        those that a legacy conversion left unassigned, beside the top-level ones; `frame` is the index into the pixels.

    Raises
    ------
    Refused
        Frames without functional groups, or with fewer than NumberOfFrames.
    """
    count = number(header, "NumberOfFrames") or 1
    if "PerFrameFunctionalGroupsSequence" not in header:
        if count != 1:
            raise Refused("NumberOfFrames", count, "several frames without PerFrameFunctionalGroupsSequence",
                          "export the series as one file a slice")
        return [header]
    shared, each = header.get("SharedFunctionalGroupsSequence", []), header["PerFrameFunctionalGroupsSequence"]
    if len(each) != count:
        raise Refused("NumberOfFrames", count, f"PerFrameFunctionalGroupsSequence has {len(each)} items",
                      "export the series again")
    top = {k: v for k, v in header.items() if k != "PerFrameFunctionalGroupsSequence"}
    flat = top | _flatten(shared[0] if shared else {})
    return [_classic(flat | _flatten(groups)) | {"frame": index} for index, groups in enumerate(each)]


def _classic(header: Header) -> Header:
    """Say what an Enhanced PET frame says (PS3.3 C.8.22) in the attributes of the PET Image module."""
    if text(header, "SOPClassUID") != ENHANCED_PET:
        return header
    codes = header.get("MeasurementUnitsCodeSequence") or [{}]
    unit = text(codes[0], "CodeValue")
    if unit not in UCUM:
        raise Refused("MeasurementUnitsCodeSequence", unit, "not a unit this project converts", "export the series "
                      "as Bq/ml")
    units, suv_type = UCUM[unit]
    decay = {"YES": b"START", "NO": b"NONE"}.get(text(header, "DecayCorrected"), b"")
    return header | {
        "Units": units.encode(), "SUVType": suv_type.encode(), "DecayCorrection": decay,
        "CorrectedImage": b"ATTN" if text(header, "AttenuationCorrected") == "YES" else b"",
        "AcquisitionDateTime": header.get("FrameAcquisitionDateTime", b""),
        "ActualFrameDuration": _double(header, "FrameAcquisitionDuration"),
        "RescaleSlope": _double(header, "RealWorldValueSlope") or header.get("RescaleSlope", b""),
        "RescaleIntercept": _double(header, "RealWorldValueIntercept") or header.get("RescaleIntercept", b"")}


def _double(header: Header, keyword: str) -> bytes:
    """An FD attribute as the text that a DS would hold; b"" where it is missing."""
    value = header.get(keyword, b"")
    return repr(struct.unpack(header["order"] + "d", value)[0]).encode() if len(value) == 8 else b""


def _flatten(groups: Header) -> Header:
    flat: Header = {}
    for name in FUNCTIONAL_GROUPS:
        for item in groups.get(name, [])[:1]:
            flat.update(item)
    return flat
