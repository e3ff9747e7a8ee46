"""The stored values of a frame. Compressed pixels are decoded by pydicom and its plug-ins."""
import warnings
from typing import Any

import numpy as np

from preprocessing.dicom_reader import DEFLATED, UNCOMPRESSED, UNDEFINED
from preprocessing.dicom_values import Header, Refused, integer, number


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


def _read_uncompressed(header: Header, kind: np.dtype, shape: tuple[int, int]) -> np.ndarray:
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


def _decode(header: Header, shape: tuple[int, int]) -> np.ndarray:
    """Compressed pixels, by pydicom's plug-ins (requirements.txt names those for JPEG; RLE needs none)."""
    from pydicom import dcmread
    from pydicom.pixels import get_decoder, pixel_array
    remedy = "copy the file again from its source, or export it uncompressed"
    try:
        if header["syntax"] != DEFLATED and not get_decoder(header["syntax"]).is_available:
            remedy = "pip install -r requirements.txt (pylibjpeg and its plug-ins), or export it uncompressed"
            raise ImportError("its decoder is not installed")
        index = {"index": header["frame"]} if "frame" in header else {}
        source: Any = header["path"]
        if header["syntax"] == DEFLATED or "irregular" in header:
            source = dcmread(header["path"], force=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = pixel_array(source, raw=True, **index)
    except Exception as error:  # pydicom and its decoders raise whatever they like on damaged data
        reason = "cannot be decoded (" + " ".join(str(error).split())[:200] + ")"
        raise Refused("TransferSyntaxUID", _syntax_name(header), reason, remedy) from error
    if pixels.shape != shape or pixels.dtype.kind not in "iu":
        raise Refused("PixelData", pixels.shape, "decodes to another shape than Rows x Columns", "export it again")
    return pixels


def _syntax_name(header: Header) -> str:
    from pydicom.config import IGNORE
    from pydicom.uid import UID
    return UID(header["syntax"], validation_mode=IGNORE).name
