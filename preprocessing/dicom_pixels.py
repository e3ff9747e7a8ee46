"""The stored values of a frame. Compressed pixels are decoded by imagecodecs, pydicom and its plug-ins."""
import struct
import warnings
from typing import Any

import numpy as np

from common.files import open_file
from preprocessing.dicom_reader import DEFLATED, UNCOMPRESSED, UNDEFINED, inflated
from preprocessing.dicom_values import Header, Refused, integer, number

MOST_SIDE = 4096  # rows or columns of a PET image
JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))  # baseline, extended, lossless
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")  # lossless, near-lossless
SOF = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of JPEG's and JPEG-LS's start of frame

def read_pixels(header: Header) -> np.ndarray:
    """The stored values of one frame.

    Parameters
    ----------
    header : dict
        Of a single-frame file, or one of `dicom_reader.frames`.

    Returns
    -------
    ndarray
        (rows, columns), the integer type of the file; overlay bits above BitsStored are gone.

    Raises
    ------
    Refused
        Pixels missing, broken off, not grey integers, or compressed in a way that cannot be decoded.
    """
    rows, columns, bits = (integer(header, k) for k in ("Rows", "Columns", "BitsAllocated"))
    stored, high, signed = (integer(header, k) for k in ("BitsStored", "HighBit", "PixelRepresentation"))
    if integer(header, "SamplesPerPixel") != 1:
        raise Refused("SamplesPerPixel", integer(header, "SamplesPerPixel"), "not a grey image", "export it as grey")
    if max(rows, columns) > MOST_SIDE:
        raise Refused("Rows/Columns", f"{rows}/{columns}", "is not the size of a PET image", "export the series again")
    if "PixelData" not in header:
        raise Refused("PixelData", "", "no integer pixels in the file", "export the series again")
    if bits not in (8, 16, 32) or not 0 < stored <= bits or high != stored - 1 or signed > 1:
        raise Refused("BitsAllocated/BitsStored/HighBit/PixelRepresentation", f"{bits}/{stored}/{high}/{signed}",
                      "not a layout of grey PET pixels", "export the series again")
    offset, length = header["PixelData"]
    if length == UNDEFINED:
        pixels = _decode(header, (rows, columns), bits // 8)
    elif header["syntax"] not in (*UNCOMPRESSED, DEFLATED):
        raise Refused("TransferSyntaxUID", _syntax_name(header), "is one of compressed pixels, and these are not",
                      "copy the file again from its source")
    else:
        pixels = _read_uncompressed(header, np.dtype(f"{header['order']}{'ui'[signed]}{bits // 8}"), (rows, columns))
    if stored < bits:
        unused = 8 * pixels.itemsize - stored
        pixels = np.left_shift(pixels, unused) >> unused  # drops the bits above, extends the sign
    return pixels


def _read_uncompressed(header: Header, kind: np.dtype, shape: tuple[int, int]) -> np.ndarray:
    offset, length = header["PixelData"]
    need = shape[0] * shape[1] * kind.itemsize
    total = need * int(number(header, "NumberOfFrames") or 1)
    if length not in (total, total + total % 2):
        raise Refused("PixelData", f"{length} bytes", f"Rows x Columns need {total}", "export the series again")
    start = offset + header.get("frame", 0) * need
    with open_file(header["path"]) as file:
        if header["syntax"] == DEFLATED:
            unpacked = inflated(file.read(), start + need)
            pixels = np.frombuffer(unpacked[start:start + need][:len(unpacked) // kind.itemsize * kind.itemsize], kind)
        else:
            file.seek(start)
            pixels = np.fromfile(file, kind, need // kind.itemsize)
    if pixels.nbytes != need:
        raise Refused("PixelData", f"{pixels.nbytes} bytes", f"the file breaks off, {length} announced",
                      "copy the file again from its source")
    return pixels.reshape(shape)


def _decode(header: Header, shape: tuple[int, int], size: int) -> np.ndarray:
    """Compressed pixels of `size` bytes: JPEG and JPEG-LS by imagecodecs, JPEG 2000 by pydicom's plug-in, RLE by
    pydicom."""
    remedy = "copy the file again from its source, or export it uncompressed"
    try:
        frame = _read_frame(header, shape, size)
        if header["syntax"] in (*JPEG, *JPEG_LS):
            import imagecodecs  # robust where frames are damaged, which other decoders hang in or die of
            pixels = (imagecodecs.jpegls_decode if header["syntax"] in JPEG_LS else imagecodecs.jpeg_decode)(frame)
            if integer(header, "PixelRepresentation"):
                pixels = pixels.view(f"i{pixels.itemsize}")
        else:
            pixels = _decode_with_pydicom(header)
    except ImportError as error:
        remedy = "pip install imagecodecs pylibjpeg-openjpeg, or export it uncompressed"
        raise Refused("TransferSyntaxUID", _syntax_name(header), "its decoder is not installed", remedy) from error
    except Exception as error:  # decoders raise whatever they like on damaged data
        reason = "cannot be decoded (" + " ".join(str(error).split())[:200] + ")"
        raise Refused("TransferSyntaxUID", _syntax_name(header), reason, remedy) from error
    if pixels.shape != shape or pixels.dtype.kind not in "iu":
        raise Refused("PixelData", pixels.shape, "decodes to another shape than Rows x Columns", "export it again")
    return pixels


def _decode_with_pydicom(header: Header) -> np.ndarray:
    from pydicom import dcmread
    from pydicom.pixels import get_decoder, pixel_array

    if not get_decoder(header["syntax"]).is_available:
        raise ImportError(header["syntax"])
    index = {"index": header["frame"]} if "frame" in header else {}
    source: Any = dcmread(header["path"], force=True) if "irregular" in header else header["path"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pixel_array(source, raw=True, **index)


def _read_frame(header: Header, shape: tuple[int, int], size: int) -> bytes:
    """A frame as it is stored. Raises ValueError where it would unpack to far more than Rows x Columns, whatever they
    say."""
    from pydicom.encaps import get_frame

    most = 2 * shape[0] * shape[1] * size + (1 << 16)
    with open_file(header["path"]) as file:
        file.seek(header["PixelData"][0])
        frame = get_frame(file, header.get("frame", 0), number_of_frames=int(number(header, "NumberOfFrames") or 1))
    if len(frame) > most:
        raise ValueError(f"{len(frame)} bytes for {shape[0]} x {shape[1]} pixels")
    if header["syntax"] in JPEG_LS and b"\xff\xd9" not in frame[-4:]:  # decoders may look for the rest for ever
        raise ValueError("its frame breaks off")
    said, at = shape, 2
    if frame[:4] == b"\xff\x4f\xff\x51":  # the header of JPEG 2000
        width, height, left, top = struct.unpack(">4I", frame[8:24])
        said = height - top, width - left
    elif frame[:2] == b"\xff\xd8":
        while at + 9 <= len(frame) and frame[at] == 0xFF and frame[at + 1] not in SOF:
            at += 2 + int.from_bytes(frame[at + 2:at + 4])
        said = struct.unpack(">2H", frame[at + 5:at + 9])
    if said != shape:
        raise ValueError(f"its pixels are {said[0]} x {said[1]}, not {shape[0]} x {shape[1]}")
    return frame


def _syntax_name(header: Header) -> str:
    from pydicom.config import IGNORE
    from pydicom.uid import UID
    return UID(header["syntax"], validation_mode=IGNORE).name
