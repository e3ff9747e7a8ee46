"""One DICOM file -> the attributes that suv.py needs, and its pixels. Reads headers some ten times faster than pydicom.

pydicom builds an object for every element of every slice (2 to 3 ms a file); a PET series repeats the same hundred
elements on each of its slices. Here only the wanted ones are kept, as bytes. Compressed pixels are pydicom's work.
"""
import contextlib
import os
import struct
import warnings
import zlib
from datetime import date
from pathlib import Path

import numpy as np

from common.files import InputError

# Tag and keyword (PS3.6). From a table, as importing pydicom for them takes longer than reading a series' headers.
TAGS = """
00080008 ImageType 00080016 SOPClassUID 00080018 SOPInstanceUID 00080020 StudyDate 00080021 SeriesDate
00080022 AcquisitionDate 00080023 ContentDate 0008002A AcquisitionDateTime 00080031 SeriesTime
00080032 AcquisitionTime 00080060 Modality 00080070 Manufacturer 00080100 CodeValue 00080201 TimezoneOffsetFromUTC
0008103E SeriesDescription 00081090 ManufacturerModelName 00100020 PatientID 00100040 PatientSex 00101020 PatientSize
00101030 PatientWeight 00180031 Radiopharmaceutical 00181072 RadiopharmaceuticalStartTime
00181074 RadionuclideTotalDose 00181075 RadionuclideHalfLife 00181078 RadiopharmaceuticalStartDateTime
00181242 ActualFrameDuration 00189074 FrameAcquisitionDateTime 00189151 FrameReferenceDateTime
00189220 FrameAcquisitionDuration 00189701 DecayCorrectionDateTime 00189758 DecayCorrected
00189759 AttenuationCorrected 0020000D StudyInstanceUID 0020000E SeriesInstanceUID 00200011 SeriesNumber
00200032 ImagePositionPatient 00200037 ImageOrientationPatient 00200052 FrameOfReferenceUID
00209111 FrameContentSequence 00209113 PlanePositionSequence 00209116 PlaneOrientationSequence
00209170 UnassignedSharedConvertedAttributesSequence 00209171 UnassignedPerFrameConvertedAttributesSequence
00280002 SamplesPerPixel 00280008 NumberOfFrames 00280010 Rows 00280011 Columns 00280030 PixelSpacing
00280051 CorrectedImage 00280100 BitsAllocated 00280101 BitsStored 00280102 HighBit 00280103 PixelRepresentation
00281052 RescaleIntercept 00281053 RescaleSlope 00282110 LossyImageCompression 00289110 PixelMeasuresSequence
00289145 PixelValueTransformationSequence 004008EA MeasurementUnitsCodeSequence 00409096 RealWorldValueMappingSequence
00409224 RealWorldValueIntercept 00409225 RealWorldValueSlope 00540016 RadiopharmaceuticalInformationSequence
00540081 NumberOfSlices 00540300 RadionuclideCodeSequence 00541000 SeriesType 00541001 Units 00541006 SUVType
00541102 DecayCorrection 00541300 FrameReferenceTime 00541322 DoseCalibrationFactor
52009229 SharedFunctionalGroupsSequence 52009230 PerFrameFunctionalGroupsSequence 7FE00008 FloatPixelData
7FE00009 DoubleFloatPixelData 7FE00010 PixelData
""".split()
WANTED = {int(tag, 16): keyword for tag, keyword in zip(TAGS[::2], TAGS[1::2], strict=True)}
SEQUENCES = {tag for tag, keyword in WANTED.items() if keyword.endswith("Sequence")}
PRIVATE_GROUPS = (0x0009, 0x7053)  # GE times, Philips factors: kept under their tag, an int
FUNCTIONAL_GROUPS = ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence",
                     "PixelValueTransformationSequence", "FrameContentSequence", "RealWorldValueMappingSequence",
                     "UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")
SHORT_VR = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VR = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
UNDEFINED, PIXEL_DATA, SERIES_UID = 0xFFFFFFFF, 0x7FE00010, 0x0020000E
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
UNCOMPRESSED = (IMPLICIT, "1.2.840.10008.1.2.1", BIG_ENDIAN)
# JPEG, extended JPEG, JPEG-LS near-lossless
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")
CHUNK, SMALL_CHUNK, DAY = 1 << 16, 1 << 13, 86400.0  # bytes read at first: for a whole header, for its identifiers
PET, LEGACY_PET, ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.128.1", \
    "1.2.840.10008.5.1.4.1.1.130"
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
UCUM = {"Bq/ml": ("BQML", ""), "g/ml{SUVbw}": ("GML", "BW"), "g/ml{SUVlbm}": ("GML", "LBM"),
        "g/ml{SUVlbm(James128)}": ("GML", "LBMJAMES128"), "g/ml{SUVlbm(Janma)}": ("GML", "LBMJANMA"),
        "g/ml{SUVibw}": ("GML", "IBW"), "cm2/ml{SUVbsa}": ("CM2ML", "BSA"), "{counts}": ("CNTS", ""),
        "{counts}/s": ("CPS", "")}
IDENTIFYING = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


class Refused(InputError):
    """A file or series that gives no trustworthy SUV: the attribute, its value, the reason, and what would mend it.

    Values of identifying attributes are withheld: the text goes to files that may be shared.
    """

    def __init__(self, attribute, value, reason, remedy):
        if isinstance(attribute, int):
            attribute = f"({attribute >> 16:04X},{attribute & 0xFFFF:04X})"
        text = "(withheld)" if attribute in IDENTIFYING else " ".join(str(value).split())[:120]
        super().__init__(f"{attribute} {text!r}: {reason}; {remedy}")
        self.attribute, self.value, self.reason, self.remedy = attribute, text, reason, remedy

    def __reduce__(self):  # crosses process boundaries
        return Refused, (self.attribute, self.value, self.reason, self.remedy)


class NotDicom(Refused):
    """The file has no DICOM preamble. `suspect`: by its name or its bytes it should have one."""

    def __init__(self, path, suspect=False):
        super().__init__("file", Path(path).name, "has no DICOM preamble" if suspect else "is not a DICOM file",
                         "copy it again from its source, or remove it")
        self.suspect = suspect

    def __reduce__(self):
        return NotDicom, (self.value, self.suspect)


class _Truncated(Exception):
    pass


def read_header(path, last=PIXEL_DATA, file=None):
    """The wanted attributes of one DICOM file (PS3.5 clause 7, PS3.10 clause 7.1).

    Args:
        path (str | Path): a DICOM file, any transfer syntax.
        last (int): the last tag to read.
        file (binary file): what to read in place of `path`, such as a member of an archive; it stays open.

    Returns:
        dict: keyword -> bytes as stored, or a list of such dicts for a sequence; private elements under their integer
        tag. Plus `path`, `syntax` (transfer syntax UID), `order` ("<" or ">"), and, where the file has pixels,
        `PixelData` as (offset, length).

    Raises:
        NotDicom: no preamble. Refused: the file breaks off, or its elements make no sense.
    """
    try:
        with open(path, "rb") if file is None else contextlib.nullcontext(file) as file:
            start = file.read(CHUNK if last >= PIXEL_DATA else SMALL_CHUNK)
            if start[128:132] != b"DICM":
                raise NotDicom(path, _was_dicom(str(path), start))
            try:
                header = _parse_file(start, path, last)
            except (_Truncated, struct.error, zlib.error):
                header = {}
            if header and (last < PIXEL_DATA or "PixelData" in header or len(start) < CHUNK):
                return header
            return _parse_file(start + file.read(), path, last)
    except (_Truncated, struct.error, zlib.error) as error:
        raise Refused("file", Path(path).name, "breaks off in its header", "copy it again from its source") from error
    except (ValueError, RecursionError, UnicodeError) as error:
        raise Refused("file", Path(path).name, f"is damaged: {error}", "copy it again from its source") from error
    except OSError as error:
        raise Refused("file", Path(path).name, f"cannot be read: {error.strerror}", "check the disk and the "
                      "permissions") from error


def _was_dicom(path, start):
    """Whether a file without preamble should have one: .dcm and the like, or no extension and bytes that say so.

    Those bytes: zeros where the preamble was, group 0002 after it, or group 0002 or 0008 without one.
    """
    extension = os.path.splitext(path)[1].lower()
    return extension in DICOM_SUFFIXES or bool(start) and (not extension or extension[1:].isdecimal()) and (
        not start[:132].strip(b"\0") or start[132:134] == b"\x02\0" or start[:2] in (b"\x02\0", b"\x08\0"))


def _parse_file(buffer, path, last):
    meta, at = {}, 132
    while buffer[at:at + 2] == b"\x02\x00":
        element, vr, length = struct.unpack_from("<H2sH", buffer, at + 2)
        at += 8
        if vr in LONG_VR:
            length, at = struct.unpack_from("<I", buffer, at)[0], at + 4
        elif vr not in SHORT_VR:
            raise ValueError(f"element (0002,{element:04X}) has the value representation {vr!r}")
        meta[element] = buffer[at:at + length]
        at += length
    syntax = meta.get(0x0010, b"").strip(b"\0 ").decode("ascii")
    if not syntax:
        raise ValueError("no TransferSyntaxUID")
    if syntax == DEFLATED:
        buffer, at = zlib.decompressobj(-15).decompress(buffer[at:]), 0
    if at > len(buffer):
        raise _Truncated
    order = ">" if syntax == BIG_ENDIAN else "<"
    header, _ = _parse(buffer, at, len(buffer), syntax != IMPLICIT, order, last)
    return header | {"path": str(path), "syntax": syntax, "order": order}


def _parse(buffer, at, end, explicit, order, last, nested=False):
    """Data elements up to `end`, an item's end, or the first tag beyond `last`. Returns the dict and the place."""
    head, size, found, previous = struct.Struct(order + "HHI").unpack_from, order + "I", {}, -1
    while at < end:
        group, element, length = head(buffer, at)
        tag, vr, at = group << 16 | element, None, at + 8
        if tag == ITEM_END and nested:
            break
        if tag > last:
            break
        if tag <= previous:
            raise ValueError(f"element ({group:04X},{element:04X}) is out of order")
        previous = tag
        if explicit:
            vr = buffer[at - 4:at - 2]
            if vr in SHORT_VR:
                length = length >> 16 if order == "<" else length & 0xFFFF
            elif vr in LONG_VR:
                length, at = struct.unpack_from(size, buffer, at)[0], at + 4
            else:
                raise ValueError(f"element ({group:04X},{element:04X}) has the value representation {vr!r}")
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


def _parse_items(buffer, at, end, explicit, order, datasets):
    items = []
    while at < end:
        group, element, length = struct.unpack_from(order + "HHI", buffer, at)
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


def frames(header):
    """Split a multi-frame header into one flat header a frame (PS3.3 C.7.6.16); a single frame is returned as it is.

    Attributes of the shared and per-frame functional groups, and those that a legacy conversion left unassigned, take
    their place beside the top-level ones. `frame` is the index into the pixels.
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


def is_dicomdir(path):
    """True for the index of a DICOM medium: the files it names are found without it."""
    return os.path.basename(path).upper() in ("DICOMDIR", "DICOMDIR.")  # "DICOMDIR.": ISO 9660


def series_of(header):
    """(StudyInstanceUID, SeriesInstanceUID). Every DICOM object but a DICOMDIR has both (PS3.3 C.7.2.1, C.7.3.1).

    Raises Refused where one is missing: the file breaks off between two elements, or one is damaged.
    """
    uids = text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID")
    if not all(uids):
        raise Refused("file", os.path.basename(header["path"]), "breaks off before its StudyInstanceUID or "
                      "SeriesInstanceUID", "copy it again from its source")
    return uids


def is_pet(header):
    """True where a header belongs to a PET image: Modality PT and one of the three PET storage classes."""
    return text(header, "Modality") == "PT" and text(header, "SOPClassUID") in (PET, LEGACY_PET, ENHANCED_PET)


def _classic(header):
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


def _double(header, keyword):
    """An FD attribute as the text that a DS would hold; b"" where it is missing."""
    value = header.get(keyword, b"")
    return repr(struct.unpack(header["order"] + "d", value)[0]).encode() if len(value) == 8 else b""


def _flatten(groups):
    flat = {}
    for name in FUNCTIONAL_GROUPS:
        for item in groups.get(name, [])[:1]:
            flat.update(item)
    return flat


def text(header, keyword):
    """The value as text without padding; "" where the attribute is missing or empty."""
    value = header.get(keyword, b"")
    if not isinstance(value, bytes):
        raise Refused(keyword, type(value).__name__, "is a sequence, not a value", "export the series again")
    try:
        return value.decode("utf-8").strip("\0 ")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip("\0 ")


def numbers(header, keyword, count):
    """`count` finite numbers of a DS or IS attribute, or None where it is missing or empty. Raises Refused."""
    value = text(header, keyword)
    if not value:
        return None
    try:
        result = [float(part) for part in value.split("\\")]
    except ValueError:
        result = []
    if "_" in value or not value.isascii() or len(result) != count or not np.isfinite(result).all():
        raise Refused(keyword, value, f"is not {count} number{'s'[:count > 1]}", "correct the attribute")
    return result


def number(header, keyword):
    """One finite number, or None where the attribute is missing or empty. Raises Refused."""
    value = numbers(header, keyword, 1)
    return value and value[0]


def required(header, keyword, count=1):
    """As `number` or `numbers`, but Refused where the attribute is missing or empty."""
    value = numbers(header, keyword, count)
    if value is None:
        raise Refused(keyword, "", "is missing", "export the series again")
    return value if count > 1 else value[0]


def date_and_time(header, date_keyword, time_keyword):
    """Seconds since year 0 from a date and a time, or None where one is missing. Another date of the series will do."""
    dated = next((k for k in (date_keyword, "SeriesDate", "AcquisitionDate", "StudyDate") if text(header, k)), None)
    if not dated or not text(header, time_keyword):
        return None
    return _day(header, dated, text(header, dated)) + time_of_day(header, time_keyword)


def date_time(header, keyword, zone_header=None):
    """A DT value as wall-clock time of the files' own zone (PS3.5 6.2; TimezoneOffsetFromUTC where the DT has one)."""
    value = text(header, keyword)
    sign = max(value.find("+"), value.find("-"))
    stamp, offset = (value, "") if sign < 0 else (value[:sign], value[sign:])
    seconds = _day(header, keyword, stamp[:8]) + time_of_day(header, keyword, stamp[8:])
    local = text(zone_header or header, "TimezoneOffsetFromUTC")
    if offset and local:
        seconds += _offset(header, keyword, local) - _offset(header, keyword, offset)
    return seconds


def _offset(header, keyword, value):
    if len(value) != 5 or value[0] not in "+-" or not value[1:].isdecimal():
        raise Refused(keyword, value, "is not an offset from UTC", "correct the attribute")
    return float(value[0] + "1") * (int(value[1:3]) * 3600 + int(value[3:]) * 60)


def _day(header, keyword, value):
    try:
        digits = value.replace(".", "")  # 2000.09.07: ACR-NEMA
        if len(digits) != 8 or not digits.isdecimal() or not digits.isascii():
            raise ValueError
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).toordinal() * DAY
    except ValueError as error:
        raise Refused(keyword, text(header, keyword), "is not a date", "correct the attribute") from error


def time_of_day(header, keyword, value=None):
    """A TM value, HHMMSS.FFFFFF with at least the hour and minute, in s since midnight."""
    value = text(header, keyword) if value is None else value
    whole, _, fraction = value.replace(":", "").partition(".")
    if value.isascii() and len(whole) in (4, 6) and whole.isdecimal() and (not fraction or fraction.isdecimal()):
        hour, minute, second = int(whole[:2]), int(whole[2:4]), int(whole[4:] or 0)
        if hour < 24 and minute < 60 and second < 61:
            return hour * 3600 + minute * 60 + second + float(f"0.{fraction or 0}")
    raise Refused(keyword, text(header, keyword), "is not a time of day", "correct the attribute")


def integer(header, keyword):
    """A US attribute. Raises Refused where it is missing."""
    value = header.get(keyword, b"")
    if not isinstance(value, bytes) or len(value) != 2:
        raise Refused(keyword, "" if not value else value, "missing or not one 16-bit integer", "export the series "
                      "again")
    return struct.unpack(header["order"] + "H", value)[0]


def private(header, group, creator, element):
    """A private element's tag in `header`, found by its creator (PS3.5 7.8.1).

    Where de-identification removed every creator of the group, block 10 is taken, as all known files have it.
    """
    creators = {tag & 0xFF: text(header, tag) for tag in header
                if isinstance(tag, int) and tag >> 16 == group and 0x10 <= tag & 0xFFFF <= 0xFF}
    blocks = [block for block, name in creators.items() if name == creator] or ([] if creators else [0x10])
    return next((tag for block in blocks if (tag := group << 16 | block << 8 | element) in header), None)


def read_pixels(header):
    """The stored values of one frame.

    Returns:
        ndarray: (rows, columns), the integer type of the file; overlay bits above BitsStored are gone.

    Raises:
        Refused: pixels missing, broken off, not grey integers, or compressed in a way that cannot be decoded.
    """
    rows, columns, bits = (integer(header, k) for k in ("Rows", "Columns", "BitsAllocated"))
    stored, high, signed = (integer(header, k) for k in ("BitsStored", "HighBit", "PixelRepresentation"))
    if integer(header, "SamplesPerPixel") != 1:
        raise Refused("SamplesPerPixel", integer(header, "SamplesPerPixel"), "not a grey image", "export it as grey")
    if "PixelData" not in header:
        raise Refused("PixelData", "", "no integer pixels in the file", "export the series again")
    if bits not in (8, 16, 32) or not 0 < stored <= bits or high != stored - 1 or signed > 1:
        raise Refused("BitsAllocated/BitsStored/HighBit/PixelRepresentation", f"{bits}/{stored}/{high}/{signed}",
                      "not a layout of grey PET pixels", "export the series again")
    offset, length = header["PixelData"]
    if length == UNDEFINED or header["syntax"] == DEFLATED:
        pixels = _decode(header, (rows, columns))
    elif header["syntax"] not in UNCOMPRESSED:
        raise Refused("TransferSyntaxUID", _syntax_name(header), "is one of compressed pixels, and these are not",
                      "copy the file again from its source")
    else:
        pixels = _read_uncompressed(header, np.dtype(f"{header['order']}{'ui'[signed]}{bits // 8}"), (rows, columns))
    if stored < bits:
        unused = 8 * pixels.itemsize - stored
        pixels = np.left_shift(pixels, unused) >> unused  # drops the bits above, extends the sign
    return pixels


def _read_uncompressed(header, kind, shape):
    offset, length = header["PixelData"]
    need = shape[0] * shape[1] * kind.itemsize
    total = need * int(number(header, "NumberOfFrames") or 1)
    if length not in (total, total + total % 2):
        raise Refused("PixelData", f"{length} bytes", f"Rows x Columns need {total}", "export the series again")
    pixels = np.fromfile(header["path"], kind, shape[0] * shape[1], offset=offset + header.get("frame", 0) * need)
    if pixels.nbytes != need:
        raise Refused("PixelData", f"{pixels.nbytes} bytes", f"the file breaks off, {length} announced",
                      "copy the file again from its source")
    return pixels.reshape(shape)


def _decode(header, shape):
    """Compressed pixels, by pydicom's plug-ins (requirements.txt names those for JPEG; RLE needs none)."""
    from pydicom import dcmread
    from pydicom.pixels import get_decoder, pixel_array
    remedy = "copy the file again from its source, or export it uncompressed"
    try:
        if header["syntax"] != DEFLATED and not get_decoder(header["syntax"]).is_available:
            remedy = "pip install -r requirements.txt (pylibjpeg and its plug-ins), or export it uncompressed"
            raise ImportError("its decoder is not installed")
        index = {"index": header["frame"]} if "frame" in header else {}
        source = dcmread(header["path"]) if header["syntax"] == DEFLATED else header["path"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pixel_array(source, raw=True, **index)
    except Exception as error:  # pydicom and its decoders raise whatever they like on damaged data
        reason = "cannot be decoded (" + " ".join(str(error).split())[:200] + ")"
        raise Refused("TransferSyntaxUID", _syntax_name(header), reason, remedy) from error
    if pixels.shape != shape or pixels.dtype.kind not in "iu":
        raise Refused("PixelData", pixels.shape, "decodes to another shape than Rows x Columns", "export it again")
    return pixels


def _syntax_name(header):
    from pydicom.config import IGNORE
    from pydicom.uid import UID
    return UID(header["syntax"], validation_mode=IGNORE).name
