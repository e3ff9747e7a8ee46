"""Compressed transfer syntaxes: the same SUV as uncompressed, to the bit where nothing is lost."""
import io
import struct
import sys

import imagecodecs
import numpy as np
import pydicom
import pytest
from pet import LEGACY, PER_SUV, SUV, datasets, save, value_at, write_multiframe
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from preprocessing import dicom_pixels, dicom_reader, suv

FINE = (10.0, 2.5, 2.0)  # JPEG 2000 needs 32 pixels along each side
NEGATIVE = -7  # a stored value that PET may have, and that compression must bring back


def jpeg_lossless(pixels, predictor):
    """A JPEG image of process 14 (ITU-T T.81, annex H): 16 bits, one component, predictor 1 (left) or 2 (above).

    No plug-in of pydicom writes it. Its Huffman code gives each of the 17 sizes of a difference 5 bits.
    """
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[1:] = values[:-1]  # the first row by what is left, the first column by what is above, the corner by half
    rest = slice(None) if predictor == 1 else slice(1)
    predicted[rest, 1:], predicted[0, 0] = values[rest, :-1], 1 << 15
    bits = []
    for difference in ((values - predicted) & 0xFFFF).ravel().tolist():
        difference -= (difference > 1 << 15) << 16
        size = abs(difference).bit_length() if difference != 1 << 15 else 16
        bits.append(f"{size:05b}")
        if 0 < size < 16:
            bits.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    bits = "".join(bits)
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")

    def segment(marker, content):
        return struct.pack(">HH", marker, len(content) + 2) + content

    rows, columns = pixels.shape
    return (b"\xff\xd8" + segment(0xFFC4, bytes([0, *(17 if n == 5 else 0 for n in range(1, 17)), *range(17)]))
            + segment(0xFFC3, struct.pack(">BHHB3B", 16, rows, columns, 1, 1, 0x11, 0))
            + segment(0xFFDA, bytes([1, 1, 0, predictor, 0, 0])) + coded + b"\xff\xd9")


def compress(ds, syntax):
    """Compress a dataset in place: by pydicom's plug-ins, JPEG lossless by `jpeg_lossless`."""
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        ds.PixelData = encapsulate([jpeg_lossless(pixels, 1 if syntax == uid.JPEGLosslessSV1 else 2)])
        ds["PixelData"].is_undefined_length, ds.file_meta.TransferSyntaxUID = True, syntax
        return
    ds.compress(syntax, generate_instance_uid=False, **({"jls_error": 2} if syntax == uid.JPEGLSNearLossless else {}))


def series(syntax=None, **kwargs):
    made = datasets(spacing=FINE, **kwargs)
    for ds in made:
        pixels = np.frombuffer(ds.PixelData, "<i2").copy()
        pixels[0] = NEGATIVE
        ds.PixelData = pixels.tobytes()
        if syntax:
            compress(ds, syntax)
    return made


@pytest.fixture(scope="module")
def uncompressed(tmp_path_factory):
    return suv.suv_volume(save(series(), tmp_path_factory.mktemp("plain") / "pet"))


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless,
                                    uid.RLELossless], ids=lambda syntax: syntax.name)
def test_lossless(syntax, uncompressed, tmp_path):
    folder = save(series(syntax), tmp_path / "pet")
    stored = pydicom.dcmread(folder / "001.dcm")
    assert stored.file_meta.TransferSyntaxUID == syntax and stored["PixelData"].is_undefined_length
    volume = suv.suv_volume(folder)
    assert (volume.array == uncompressed.array).all() and volume.array.min() < 0 and volume.warnings == []
    assert [value_at(volume, centre) for centre in SUV] == pytest.approx(list(SUV.values()), rel=2e-4)


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLSLossless, uid.JPEG2000Lossless],
                         ids=lambda syntax: syntax.name)
def test_twelve_bits(syntax, tmp_path):
    twelve = {"slopes": 20.0, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    made = datasets(spacing=FINE, **twelve)
    plain = suv.suv_volume(save(made, tmp_path / "plain"))
    for ds in made:
        compress(ds, syntax)
    assert (suv.suv_volume(save(made, tmp_path / "pet")).array == plain.array).all() and plain.array.max() > 3.9


def test_frames_of_a_multiframe_file(tmp_path):
    path = write_multiframe(tmp_path / "pet", LEGACY, spacing=FINE)
    plain = suv.suv_volume(path).array
    ds = pydicom.dcmread(path)
    ds.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    ds.save_as(path)
    assert (suv.suv_volume(path).array == plain).all()


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit], ids=lambda syntax: syntax.name)
def test_lossy_jpeg_of_eight_bits(syntax, tmp_path):
    """Pillow encodes and, independently of pydicom's plug-ins, decodes; extended is the same but for its marker."""
    made = datasets(spacing=FINE, slopes=20.0, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    expected = []
    for ds in made:
        stored = np.frombuffer(ds.PixelData, np.uint8 if len(ds.PixelData) == ds.Rows * ds.Columns else "<u2")
        coded = io.BytesIO()
        Image.fromarray(stored.astype(np.uint8).reshape(ds.Rows, ds.Columns)).save(coded, "JPEG", quality=95)
        expected.append(np.asarray(Image.open(coded)))
        content = coded.getvalue()
        if syntax == uid.JPEGExtended12Bit:
            content = content.replace(b"\xff\xc0", b"\xff\xc1", 1)
        ds.PixelData = encapsulate([content])
        ds["PixelData"].is_undefined_length, ds.file_meta.TransferSyntaxUID = True, syntax
    folder = save(made, tmp_path / "pet")
    assert "the pixels were compressed with loss" in suv.suv_volume(folder).warnings
    for path, pixels in zip(sorted(folder.iterdir()), expected, strict=True):
        found = dicom_pixels.read_pixels(dicom_reader.read_header(path))
        assert np.abs(found.astype(int) - pixels).max() <= 1 and pixels.max() > 20


def test_lossy_jpeg_of_twelve_bits(tmp_path):
    made = datasets(spacing=FINE, slopes=20.0, BitsStored=12, HighBit=11, PixelRepresentation=0)
    plain = suv.suv_volume(save(made, tmp_path / "plain")).array
    for ds in made:
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        ds.PixelData = encapsulate([imagecodecs.jpeg_encode(pixels, level=98, bitspersample=12)])
        ds["PixelData"].is_undefined_length, ds.file_meta.TransferSyntaxUID = True, uid.JPEGExtended12Bit
    found = suv.suv_volume(save(made, tmp_path / "pet"))
    assert found.warnings == ["the pixels were compressed with loss"] and plain.max() > 3.9
    assert 0 < np.abs(found.array - plain).mean() < 0.02


def test_what_was_lost_is_said(uncompressed, tmp_path):
    volume = suv.suv_volume(save(series(uid.JPEGLSNearLossless), tmp_path / "near"))
    assert volume.warnings == ["the pixels were compressed with loss"]
    unit = max(float(ds.RescaleSlope) for ds in datasets(spacing=FINE)) / PER_SUV
    assert 0 < abs(volume.array - uncompressed.array).max() <= 2.001 * unit  # jls_error: two stored units
    flagged = suv.suv_volume(save(series(uid.JPEG2000Lossless, LossyImageCompression="01"), tmp_path / "flag"))
    assert flagged.warnings == volume.warnings


@pytest.mark.parametrize("damage", [lambda data: data[:len(data) // 2], lambda data: data[:40] + bytes(len(data) - 40)])
@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless],
                         ids=lambda syntax: syntax.name)
def test_damaged_pixels_are_refused_or_finite(syntax, damage, tmp_path):
    made = series(syntax)
    content = next(pydicom.encaps.generate_frames(made[3].PixelData, number_of_frames=1))
    made[3].PixelData = encapsulate([damage(content)])
    try:
        assert np.isfinite(suv.suv_volume(save(made, tmp_path / "pet")).array).all()
    except suv.Refused as refused:
        assert refused.remedy and "\n" not in str(refused)


def test_a_missing_decoder_is_one_line(tmp_path, monkeypatch):
    coded = {syntax: series(syntax) for syntax in (uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless)}
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setattr(pydicom.pixels.get_decoder(uid.JPEG2000Lossless), "_available", {})
    for syntax in coded:
        folder = save(coded[syntax], tmp_path / syntax)
        with pytest.raises(suv.Refused) as caught:
            suv.suv_volume(folder)
        assert caught.value.attribute == "TransferSyntaxUID" and caught.value.value.startswith("JPEG")
        assert "decoder is not installed" in caught.value.reason and "imagecodecs" in caught.value.remedy
        assert "\n" not in str(caught.value)


def test_compressed_syntax_of_pixels_that_are_not(tmp_path):
    made = datasets()
    for ds in made:
        ds.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    folder = tmp_path / "pet"
    folder.mkdir()
    for number, ds in enumerate(made):  # pydicom refuses to write this
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        path = folder / f"{number}.dcm"
        ds.save_as(path, enforce_file_format=True)
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    with pytest.raises(suv.Refused, match="RLE Lossless.*compressed pixels, and these are not"):
        suv.suv_volume(folder)


def test_tags_are_those_of_the_standard():
    assert {pydicom.datadict.keyword_for_tag(tag) for tag in dicom_reader.WANTED} == set(dicom_reader.WANTED.values())
    assert all(pydicom.datadict.tag_for_keyword(keyword) == tag for tag, keyword in dicom_reader.WANTED.items())
    assert {tag for tag in dicom_reader.WANTED if pydicom.datadict.dictionary_VR(tag) == "SQ"} == dicom_reader.SEQUENCES
