"""The header parser against pydicom, and the files that it leaves to pydicom."""
import struct

import numpy as np
import pydicom
import pytest
from conftest import call
from pet import (
    ENHANCED,
    LEGACY,
    SUV,
    SYNTAXES,
    code,
    datasets,
    save,
    value_at,
    write_multiframe,
    write_series,
)
from pydicom import uid
from pydicom.dataset import Dataset

import prepro_script
from preprocessing import dicom_reader, dicom_values, suv

COARSE = {"spacing": (20.0, 5.0, 4.0)}  # 7 slices


def _private(folder):
    return write_series(folder, p7053_1000="0.5", p7053_1009="2", p0009_100D="20240310105000.00", **COARSE)


def _nested(folder):
    """Sequences in sequences, empty ones, items without content, an icon with pixels of its own, empty values."""
    series = datasets(PatientSize=None, PatientSex="", SUVType=None, **COARSE)
    for ds in series:
        icon, outer = Dataset(), Dataset()
        icon.Rows, icon.Columns, icon.BitsAllocated, icon.PixelData = 2, 2, 8, bytes(4)
        ds.IconImageSequence = [icon]
        outer.RealWorldValueMappingSequence = [Dataset(), Dataset()]
        outer.RealWorldValueMappingSequence[1].MeasurementUnitsCodeSequence = [code("Bq/ml")]
        ds.SharedFunctionalGroupsSequence = [outer]
        ds.UnassignedSharedConvertedAttributesSequence = []
        ds.PerFrameFunctionalGroupsSequence = [Dataset()]
        ds["PixelData"].VR = "OW"
    return save(series, folder)


def _undefined(folder):
    """Sequences and items of undefined length, known and unknown ones."""
    series = datasets(**COARSE)
    for ds in series:
        ds.ReferencedStudySequence = [code("1"), code("2")]
        for element in (ds["RadiopharmaceuticalInformationSequence"], ds["ReferencedStudySequence"]):
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
    return save(series, folder)


def _unknown_undefined(folder):
    """The injection as UN of undefined length: implicit within (PS3.5 6.2.2, note 2)."""
    return _as_unknown(save(datasets(**COARSE), folder), undefined=True)


def _as_unknown(folder, undefined):
    for path in folder.iterdir():
        data = path.read_bytes()
        at = data.index(b"\x54\0\x16\0SQ\0\0")
        length = struct.unpack_from("<I", data, at + 8)[0]
        item = Dataset()
        item.RadiopharmaceuticalInformationSequence = pydicom.dcmread(path).RadiopharmaceuticalInformationSequence
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, True
        pydicom.filewriter.write_dataset(buffer, item)
        content = buffer.getvalue()[8:]
        if undefined:
            content += b"\xfe\xff\xdd\xe0\0\0\0\0"
        head = b"\x54\0\x16\0UN\0\0" + (b"\xff" * 4 if undefined else struct.pack("<I", len(content)))
        path.write_bytes(data[:at] + head + content + data[at + 12 + length:])
    return folder


def _compressed(folder):
    series = datasets(**COARSE)
    for ds in series:
        ds.compress(uid.RLELossless)
    return save(series, folder)


KINDS = {
    **{syntax.name: lambda folder, syntax=syntax: write_series(folder, syntax, **COARSE) for syntax in SYNTAXES},
    "deflated": lambda folder: write_series(folder, uid.DeflatedExplicitVRLittleEndian, **COARSE),
    "legacy multi-frame": lambda folder: write_multiframe(folder, LEGACY).parent,
    "enhanced multi-frame": lambda folder: write_multiframe(folder, ENHANCED).parent,
    "private": _private, "nested": _nested, "undefined length": _undefined, "unknown": _unknown_undefined,
    "compressed": _compressed,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_as_pydicom_reads_it(kind, tmp_path):
    for path in KINDS[kind](tmp_path / "pet").iterdir():
        ours = dicom_reader.read_header(path)
        theirs = dicom_reader.read_with_pydicom(path.read_bytes())
        assert ours == theirs | {"path": str(path)}
        ds = pydicom.dcmread(path)
        for element in ds:  # as values, not bytes
            if element.keyword in ours and element.VR in ("DS", "IS") and not element.is_empty:
                values = list(element.value) if element.VM > 1 else [element.value]
                assert dicom_values.numbers(ours, element.keyword, element.VM) == values
            elif element.keyword in ours and element.VR in ("CS", "LO", "SH", "UI", "DA", "TM", "DT"):
                several = element.value if element.VM > 1 else [element.value or ""]
                assert dicom_values.text(ours, element.keyword) == "\\".join(map(str, several))
            elif element.keyword in ours and element.VR == "US":
                assert dicom_values.integer(ours, element.keyword) == element.value
        identifiers = dicom_reader.read_header(path, dicom_reader.SERIES_UID)
        assert {k: identifiers[k] for k in identifiers} == {k: ours[k] for k in identifiers}
        assert max(tag for tag, keyword in dicom_reader.WANTED.items() if keyword in identifiers) \
            == dicom_reader.SERIES_UID


@pytest.mark.parametrize(("last", "chunk", "syntax"), [
    (dicom_reader.SERIES_UID, dicom_reader.SMALL_CHUNK, uid.ExplicitVRLittleEndian),
    (dicom_reader.PIXEL_DATA, dicom_reader.CHUNK, uid.DeflatedExplicitVRLittleEndian)])
def test_a_first_read_that_ends_between_two_elements_is_not_the_end(last, chunk, syntax, tmp_path):
    """A private block as large as the first read, moved by 2 bytes at a time: a good file wherever that read ends."""
    ds, length = datasets(**COARSE)[0], chunk // 238  # of an element, with 8 bytes before its value
    ds.file_meta.TransferSyntaxUID = syntax
    block = ds.private_block(0x0019, "ACME", create=True)
    for element in range(0x11, 0xFF):
        block.add_new(element, "ST", "x" * (length - 8))
    for pad in range(0, length + 2, 2):
        block.add_new(0x10, "ST", "y" * pad)
        save([ds], tmp_path)
        header = dicom_reader.read_header(tmp_path / "001.dcm", last)
        assert dicom_reader.WANTED[last] in header and header["SeriesInstanceUID"], pad


@pytest.mark.parametrize("path", ["a/DICOMDIR", "x.zip/dicomdir", "x.zip/EXPORT\\DICOMDIR", "x.zip/A/B\\DICOMDIR."])
def test_the_index_of_a_medium_is_known_in_an_archive_of_windows_too(path):
    assert dicom_reader.is_dicomdir(path) and not dicom_reader.is_dicomdir(path + "x")


# What the parser declines

def _bare(folder, implicit):
    folder.mkdir()
    for number, ds in enumerate(datasets(**COARSE)):
        del ds.file_meta
        ds.save_as(folder / f"{number}.dcm", implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    return folder


def _without_preamble(folder):
    for path in save(datasets(**COARSE), folder).iterdir():
        path.write_bytes(path.read_bytes()[132:])
    return folder


def _implicit_under_explicit_meta(folder):
    for path in write_series(folder, uid.ImplicitVRLittleEndian, **COARSE).iterdir():
        data = path.read_bytes()
        path.write_bytes(data.replace(b"\x12\0" + b"1.2.840.10008.1.2\0", b"\x14\0" + b"1.2.840.10008.1.2.1\0", 1))
    return folder


def _explicit_under_implicit_meta(folder):
    for path in save(datasets(**COARSE), folder).iterdir():
        data = path.read_bytes()
        path.write_bytes(data.replace(b"\x14\0" + b"1.2.840.10008.1.2.1\0", b"\x12\0" + b"1.2.840.10008.1.2\0", 1))
    return folder


def _out_of_order(folder):
    for path in save(datasets(**COARSE), folder).iterdir():
        data = path.read_bytes()
        start, end = data.index(b"\x10\0\x20\0LO"), data.index(b"\x18\0\x42\x12IS")
        first, second = data[start:data.index(b"\x10\0\x40\0CS")], data[data.index(b"\x10\0\x40\0CS"):end]
        path.write_bytes(data[:start] + second + first + data[end:])
    return folder


def _without_syntax(folder):
    for path in save(datasets(**COARSE), folder).iterdir():
        data = path.read_bytes()
        at = data.index(b"\x02\0\x10\0UI")
        end = at + 8 + struct.unpack_from("<H", data, at + 6)[0]
        path.write_bytes(data[:at] + data[end:])
    return folder


DECLINED = {
    "bare, implicit": (lambda folder: _bare(folder, True), "no preamble"),
    "bare, explicit": (lambda folder: _bare(folder, False), "no preamble"),
    "no preamble": (_without_preamble, "no preamble"),
    "implicit under explicit meta": (_implicit_under_explicit_meta, "value representation"),
    "explicit under implicit meta": (_explicit_under_implicit_meta, "under the implicit transfer syntax"),
    "out of order": (_out_of_order, "(0010,0020) is out of order"),
    "no transfer syntax": (_without_syntax, "no TransferSyntaxUID"),
    "sequence as UN": (lambda folder: _as_unknown(save(datasets(**COARSE), folder), False),
                       "sequence (0054,0016) is of unknown"),
}


@pytest.mark.parametrize("kind", DECLINED)
@pytest.mark.parametrize("name", ["{}", "{}.dcm", "{}.img"])
def test_what_is_declined_is_read_by_pydicom_and_said(kind, name, tmp_path):
    write, words = DECLINED[kind]
    expected = suv.suv_volume(save(datasets(**COARSE), tmp_path / "regular")).array
    folder = write(tmp_path / "pet")
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / name.format(f"IM{number}"))
    volume = suv.suv_volume(folder)
    assert (volume.array == expected).all() and value_at(volume, list(SUV)[0]) == pytest.approx(4, rel=2e-4)
    assert len(volume.warnings) == 1 and volume.warnings[0].startswith("7 irregular DICOM files were read by pydicom")
    assert words in volume.warnings[0]
    assert call(prepro_script, "--input", folder, "--output", tmp_path / "out", "--workers", 1) is None


@pytest.mark.parametrize("content", [b"\x08\0" + bytes(500), b"\x02\0\x10\0UI\x06\0" + b"1.2.3\0" * 20, b"\x08\0",
                                     b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100" + bytes(200)])
def test_what_only_begins_like_dicom_is_no_dicom(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(dicom_reader.NotDicom):
        dicom_reader.read_header(tmp_path / "a")


def test_an_element_that_is_there_twice_is_damage(tmp_path):
    path = sorted(save(datasets(**COARSE), tmp_path / "pet").iterdir())[0]
    data = path.read_bytes()
    at = data.index(b"\x10\0\x30\x10DS")
    end = at + 8 + struct.unpack_from("<H", data, at + 6)[0]
    path.write_bytes(data[:end] + data[at:])
    with pytest.raises(suv.Refused, match=r"\(0010,1030\) is there twice"):
        suv.suv_volume(tmp_path / "pet")


def test_a_declined_file_that_breaks_off_is_refused(tmp_path):
    folder = _bare(tmp_path / "pet", True)
    whole = (folder / "3.dcm").read_bytes()
    for length in [*range(2, len(whole) - 1600, 97), len(whole) - 1, len(whole) - 1000]:
        (folder / "3.dcm").write_bytes(whole[:length])
        with pytest.raises(suv.Refused):
            suv.suv_volume(folder)


def test_pixels_of_a_declined_compressed_file(tmp_path):
    expected = suv.suv_volume(save(datasets(**COARSE), tmp_path / "regular")).array
    folder = _compressed(tmp_path / "pet")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(suv.suv_volume(folder).array, expected)
