"""One DICOM file -> the attributes that suv.py needs, as bytes.

The headers of a series of 267 files take 0.02 s here, and 0.14 s by pydicom.dcmread(specific_tags=...,
stop_before_pixels=True), which builds an object for every element. What the parser here does not understand with
certainty it declines, and pydicom reads it: files without preamble or file meta information, sequences of unknown value
representation, elements out of order, a transfer syntax that is not the one the data are in.
"""
import contextlib
import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import IO, Any

from pydicom import dcmread
from pydicom.tag import Tag

from common.files import open_file
from common.text import counted
from preprocessing.dicom_values import Header, NotDicom, Refused, damaged, number, text

KEYWORDS = """
TransferSyntaxUID ImageType SOPClassUID SOPInstanceUID StudyDate SeriesDate AcquisitionDate AcquisitionDateTime
SeriesTime AcquisitionTime AccessionNumber Modality Manufacturer CodeValue TimezoneOffsetFromUTC SeriesDescription
ManufacturerModelName PatientID PatientSex PatientSize PatientWeight Radiopharmaceutical RadiopharmaceuticalStartTime
RadionuclideTotalDose RadionuclideHalfLife RadiopharmaceuticalStartDateTime ActualFrameDuration
FrameAcquisitionDateTime FrameAcquisitionDuration DecayCorrectionDateTime DecayCorrected AttenuationCorrected
StudyInstanceUID SeriesInstanceUID SeriesNumber ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID
FrameContentSequence PlanePositionSequence PlaneOrientationSequence UnassignedSharedConvertedAttributesSequence
UnassignedPerFrameConvertedAttributesSequence SamplesPerPixel NumberOfFrames Rows Columns PixelSpacing CorrectedImage
BitsAllocated BitsStored HighBit PixelRepresentation RescaleIntercept RescaleSlope LossyImageCompression
PixelMeasuresSequence PixelValueTransformationSequence MeasurementUnitsCodeSequence RealWorldValueMappingSequence
RealWorldValueIntercept RealWorldValueSlope RadiopharmaceuticalInformationSequence NumberOfSlices
RadionuclideCodeSequence SeriesType Units SUVType DecayCorrection FrameReferenceTime DoseCalibrationFactor
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelData
""".split()
WANTED = {int(Tag(keyword)): keyword for keyword in KEYWORDS}
SEQUENCES = {tag for tag, keyword in WANTED.items() if keyword.endswith("Sequence")}
PRIVATE_GROUPS = (0x0009, 0x7053)  # GE times, Philips factors: kept under their tag, an int
SHORT_VR = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VR = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
HEAD = {order: struct.Struct(order + "HHI") for order in "<>"}  # group, element, length
UNDEFINED, PIXEL_DATA, SERIES_UID = 0xFFFFFFFF, 0x7FE00010, 0x0020000E
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNCOMPRESSED = IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
# JPEG, extended JPEG, JPEG-LS near-lossless
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")
CHUNK, SMALL_CHUNK = 1 << 16, 1 << 13  # bytes read at first: for a whole header, for its identifiers
MOST_HEADER = 1 << 28  # bytes up to the pixels
PET, LEGACY_PET, ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.128.1", \
    "1.2.840.10008.5.1.4.1.1.130"
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
UCUM = {"Bq/ml": ("BQML", ""), "g/ml{SUVbw}": ("GML", "BW"), "g/ml{SUVlbm}": ("GML", "LBM"),
        "g/ml{SUVlbm(James128)}": ("GML", "LBMJAMES128"), "g/ml{SUVlbm(Janma)}": ("GML", "LBMJANMA"),
        "g/ml{SUVibw}": ("GML", "IBW"), "cm2/ml{SUVbsa}": ("CM2ML", "BSA"), "{counts}": ("CNTS", ""),
        "{counts}/s": ("CPS", "")}


class _Truncated(Exception):
    """The file ends before an element does."""


class _Declined(Exception):
    """The fast parser does not read such a file: the argument says why. pydicom may."""


def read_header(path: str | os.PathLike[str], last: int = PIXEL_DATA, file: IO[bytes] | None = None) -> Header:
    """The wanted attributes of one DICOM file (PS3.5 clause 7, PS3.10 clause 7.1).

    Parameters
    ----------
    path : str or path
        A DICOM file, any transfer syntax.
    last : int
        The last tag to read, of `WANTED`.
    file : binary file, optional
        What to read in place of `path`, such as a member of an archive; it stays open.

    Returns
    -------
    dict
        Keyword -> bytes as stored, or a list of such dicts for a sequence; private elements under their integer tag.
        Plus `path`, `syntax` (transfer syntax UID), `order` ("<" or ">"); where the file has pixels, `PixelData` as
        (offset, length); where pydicom had to read it, `irregular`: why.

    Raises
    ------
    NotDicom
        Neither preamble nor DICOM's first elements.
    Refused
        The file breaks off, or its elements make no sense.
    """
    try:
        with open_file(path) if file is None else contextlib.nullcontext(file) as opened:
            size = CHUNK if last >= PIXEL_DATA else SMALL_CHUNK
            content = opened.read(size)
            try:
                header: Header = {}
                with contextlib.suppress(_Truncated, struct.error, zlib.error):
                    header = _parse_file(content, path, last)
                if WANTED[last] in header or header and len(content) < size:
                    return header
                content += opened.read(MOST_HEADER)
                return _parse_file(content, path, last)
            except _Declined as declined:
                return _read_irregular(content + opened.read(MOST_HEADER), path, str(declined))
    except (_Truncated, struct.error, zlib.error) as error:
        raise damaged(path, "breaks off in its header") from error
    except (ValueError, RecursionError, UnicodeError) as error:
        raise damaged(path, f"is damaged: {error}") from error
    except OSError as error:
        reason, remedy = f"cannot be read: {error.strerror}", "check the disk and the permissions"
        raise Refused("file", os.path.basename(path), reason, remedy) from error


def _read_irregular(content: bytes, path: str | os.PathLike[str], why: str) -> Header:
    """A declined file, as pydicom reads it. Refused where it lacks what every DICOM object has (PS3.3 C.12.1, C.7)."""
    header: Header = {}
    with contextlib.suppress(Exception):  # pydicom raises whatever it likes on damaged data
        header = read_with_pydicom(content)
    if all(isinstance(header.get(k), bytes) and header[k] for k in
           ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")):
        return header | {"path": str(path), "irregular": why}
    if content[128:132] != b"DICM":
        raise NotDicom(path, _was_dicom(str(path), content))
    raise damaged(path, f"is damaged: {why}")


def read_with_pydicom(content: bytes) -> Header:
    """What `read_header` gives, but for `path`, of a whole file in memory, with or without preamble and file meta.

    Raises
    ------
    Exception
        Whatever pydicom raises on damaged data.
    """
    plain = inflated(content, MOST_HEADER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(io.BytesIO(plain), force=True)
        found = _wanted_of(dataset)
        pixels: Any = dataset.get_item("PixelData")
    if pixels is not None:
        found["PixelData"] = pixels.value_tell, pixels.length
    implicit, little = dataset.original_encoding
    syntax = IMPLICIT if implicit else EXPLICIT if little else BIG_ENDIAN
    syntax = DEFLATED if plain is not content else str(dataset.file_meta.get("TransferSyntaxUID") or syntax)
    return found | {"syntax": syntax, "order": "<" if little else ">"}


def _wanted_of(dataset: Any) -> Header:
    stored = {int(tag): dataset.get_item(tag) for tag in dataset.keys()}  # before a sequence's conversion touches them
    return {WANTED.get(tag, tag): [_wanted_of(item) for item in dataset[tag].value] if tag in SEQUENCES else
            element.value or b"" for tag, element in stored.items() if tag in WANTED or tag >> 16 in PRIVATE_GROUPS}


def _was_dicom(path: str, start: bytes) -> bool:
    """Whether a file without preamble should have one: .dcm and the like, or no extension and bytes that say so.

    Those bytes: zeros where the preamble was, group 0002 after it, or group 0002 or 0008 without one.
    """
    extension = os.path.splitext(path)[1].lower()
    return extension in DICOM_SUFFIXES or bool(start) and (not extension or extension[1:].isdecimal()) and (
        not start[:132].strip(b"\0") or start[132:134] == b"\x02\0" or start[:2] in (b"\x02\0", b"\x08\0"))


def _parse_file(buffer: bytes, path: str | os.PathLike[str], last: int) -> Header:
    if buffer[128:132] != b"DICM":
        if buffer[:2] in (b"\x02\0", b"\x08\0"):  # the groups that a data set begins with
            raise _Declined("no preamble")
        raise NotDicom(path, _was_dicom(str(path), buffer))
    syntax, at = _file_meta(buffer)
    if not syntax:
        raise _Declined("no TransferSyntaxUID")
    if syntax == DEFLATED:
        for most in (CHUNK, MOST_HEADER):
            unpacked = inflated(buffer, most)
            with contextlib.suppress(_Truncated, struct.error):
                header = _parse_dataset(unpacked, at, path, syntax, last)
                if WANTED[last] in header or len(unpacked) < at + most:  # else it may be cut between two elements
                    return header
        raise _Truncated
    return _parse_dataset(buffer, at, path, syntax, last)


def _file_meta(buffer: bytes) -> tuple[str, int]:
    """The transfer syntax in the file meta information, and where this ends."""
    meta, at = _parse(buffer, 132, len(buffer), True, "<", 0x0002FFFF)
    value = meta.get("TransferSyntaxUID", b"")
    return value.strip(b"\0 ").decode("ascii") if isinstance(value, bytes) else "", at


def inflated(content: bytes, most: int) -> bytes:
    """A file in the deflated transfer syntax as one in the plain syntax that it unpacks to, cut after `most` unpacked
    bytes; another file as it is.

    A few MB may unpack to many GB: nothing is unpacked without saying how much of it is needed.
    """
    try:
        syntax, at = _file_meta(content) if content[128:132] == b"DICM" else ("", 0)
    except (_Truncated, _Declined, struct.error, ValueError, RecursionError):
        return content
    if syntax != DEFLATED:
        return content
    meta = content[:at].replace(DEFLATED.encode(), EXPLICIT.encode().ljust(len(DEFLATED), b"\0"))
    return meta + zlib.decompressobj(-15).decompress(content[at:], most)


def readable(path: str | os.PathLike[str], file: IO[bytes] | None = None) -> Any:
    """What pydicom is to read in place of a file (or of the open member of an archive), which unpacks the deflated
    transfer syntax without bounds. Raises Refused where that would be more than MOST_HEADER bytes.
    """
    with open_file(path) if file is None else contextlib.nullcontext(file) as opened:
        opened.seek(0)
        start = opened.read(CHUNK)
        if DEFLATED.encode() in start:
            content = start + opened.read(MOST_HEADER)
            if (unpacked := inflated(content, MOST_HEADER)) is not content:
                if len(unpacked) >= MOST_HEADER:
                    raise damaged(path, f"would unpack to more than {MOST_HEADER >> 20} MiB")
                return io.BytesIO(unpacked)
        opened.seek(0)
    return path if file is None else file


def _parse_dataset(buffer: bytes, at: int, path: str | os.PathLike[str], syntax: str, last: int) -> Header:
    if syntax == IMPLICIT and buffer[at + 4:at + 6] in SHORT_VR:  # as a length, these two letters would be absurd
        raise _Declined("explicit value representations under the implicit transfer syntax")
    order = ">" if syntax == BIG_ENDIAN else "<"
    header, _ = _parse(buffer, at, len(buffer), syntax != IMPLICIT, order, last)
    return header | {"path": str(path), "syntax": syntax, "order": order}


def _parse(buffer: bytes, at: int, end: int, explicit: bool, order: str, last: int, nested: bool = False
           ) -> tuple[Header, int]:
    """Data elements up to `end`, an item's end, or the first tag beyond `last`. Returns the dict and the place."""
    head, size, previous = HEAD[order].unpack_from, order + "I", -1
    found: dict[Any, Any] = {}
    while at < end:
        group, element, length = head(buffer, at)
        tag, vr = group << 16 | element, None
        if tag > last:
            break
        at += 8
        if tag == ITEM_END and nested:
            break
        if tag <= previous:
            if tag == previous:
                raise ValueError(f"element ({group:04X},{element:04X}) is there twice")
            raise _Declined(f"element ({group:04X},{element:04X}) is out of order")
        previous = tag
        if explicit:
            vr = buffer[at - 4:at - 2]
            if vr in SHORT_VR:
                length = length >> 16 if order == "<" else length & 0xFFFF
            elif vr in LONG_VR:
                length, at = struct.unpack_from(size, buffer, at)[0], at + 4
            else:
                raise _Declined(f"element ({group:04X},{element:04X}) has the value representation {vr!r}")
            if vr == b"UN" and tag in SEQUENCES and length != UNDEFINED:
                raise _Declined(f"sequence ({group:04X},{element:04X}) is of unknown value representation")
        keyword = WANTED.get(tag) or (tag if group in PRIVATE_GROUPS else None)
        if tag == PIXEL_DATA and not nested:
            found[keyword] = (at, length)
            break
        if length == UNDEFINED:
            items, at = _parse_items(buffer, at, end, explicit and vr != b"UN", order, tag != PIXEL_DATA)
            found[keyword] = items
        elif at + length > end:
            raise _Truncated
        else:
            if tag in SEQUENCES:
                found[keyword], _ = _parse_items(buffer, at, at + length, explicit, order, True)
            elif keyword:
                found[keyword] = buffer[at:at + length]
            at += length
    found.pop(None, None)
    return found, at


def _parse_items(buffer: bytes, at: int, end: int, explicit: bool, order: str, datasets: bool
                 ) -> tuple[list[Header], int]:
    items = []
    while at < end:
        group, element, length = HEAD[order].unpack_from(buffer, at)
        tag, at = group << 16 | element, at + 8
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise ValueError(f"a sequence holds ({group:04X},{element:04X}) in place of an item")
        stop = end if length == UNDEFINED else at + length
        if stop > end:
            raise _Truncated
        if datasets:
            item, reached = _parse(buffer, at, stop, explicit, order, UNDEFINED, nested=True)
            items.append(item)
        at = reached if length == UNDEFINED and datasets else stop
    return items, at


def is_dicomdir(path: str | os.PathLike[str]) -> bool:
    """True for the index of a DICOM medium: the files it names are found without it."""
    name = re.split(r"[/\\]", os.fspath(path))[-1]  # Windows writes members of archives with backslashes
    return name.upper() in ("DICOMDIR", "DICOMDIR.")  # "DICOMDIR.": ISO 9660


def series_of(header: Header) -> tuple[str, str]:
    """(StudyInstanceUID, SeriesInstanceUID). Every DICOM object but a DICOMDIR has both (PS3.3 C.7.2.1, C.7.3.1).

    Raises Refused where one is missing: the file breaks off between two elements, or one is damaged.
    """
    uids = text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID")
    if not all(uids):
        raise damaged(header["path"], "breaks off before its StudyInstanceUID or SeriesInstanceUID")
    return uids


def is_pet(header: Header) -> bool:
    """True where a header belongs to a PET image: Modality PT and one of the three PET storage classes."""
    return text(header, "Modality") == "PT" and text(header, "SOPClassUID") in (PET, LEGACY_PET, ENHANCED_PET)


def without_copies(headers: Sequence[Header]) -> list[Header]:
    """The headers of `read_header` without those of copies: files of one SOPInstanceUID and the same content."""
    kept: dict[Any, Header] = {}
    for header in headers:
        first = kept.setdefault(text(header, "SOPInstanceUID") or id(header), header)
        if first is not header and first | {"path": ""} != header | {"path": ""}:
            kept[id(header)] = header  # another image under the same UID: the geometry refuses it
    return list(kept.values())


# Multi-frame objects

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
        raise Refused("NumberOfFrames", count, f"PerFrameFunctionalGroupsSequence has {counted(len(each), 'item')}",
                      "export the series again")
    top = {k: v for k, v in header.items() if k != "PerFrameFunctionalGroupsSequence"}
    flat = top | _flatten(shared[0] if shared else {})
    return [_classic(flat | _flatten(groups)) | {"frame": index} for index, groups in enumerate(each)]


def _classic(header: Header) -> Header:
    """Say what an Enhanced PET frame says (PS3.3 C.8.22) in the attributes of the PET Image module."""
    if text(header, "SOPClassUID") != ENHANCED_PET:
        return header
    unit = _unit(header)
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


def _unit(header: Header) -> str:
    """The code of the unit, spelled as in UCUM: Bq/mL is Bq/ml."""
    code = text((header.get("MeasurementUnitsCodeSequence") or [{}])[0], "CodeValue")
    return next((known for known in UCUM if known.lower() == code.lower().replace(" ", "")), code)


def _double(header: Header, keyword: str) -> bytes:
    """An FD attribute as the text that a DS would hold; b"" where it is missing."""
    value = header.get(keyword, b"")
    return repr(struct.unpack(header["order"] + "d", value)[0]).encode() if len(value) == 8 else b""


def _flatten(groups: Header) -> Header:
    """The attributes in the first item of every functional group."""
    flat: Header = {}
    order = [unit for unit in UCUM if not unit.startswith("{")]  # of several units, one that SUV can be computed from
    for items in groups.values():
        if isinstance(items, list) and items:
            flat = flat | min(items, key=lambda item: order.index(u) if (u := _unit(item)) in order else len(order))
    return flat
