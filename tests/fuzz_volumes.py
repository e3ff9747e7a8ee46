"""Hostile DICOM studies and archives, NIfTI and NRRD: what a folder holds is converted as prepro_script.py does."""
import functools
import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import nibabel
import nrrd
import numpy as np
from fuzz_harness import ANY, REFUSED, SAME, Case, Unread, mutated, no_file, pick
from pet import datasets
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from common.workers import run_here
from preprocessing.archives import list_files
from preprocessing.conversion import Options, convert_studies
from preprocessing.dicom_series import find_studies
from preprocessing.volumes import read_volume

ODD = ["", "0", "-1", "1e300", "nan", "inf", "x", "1\\2\\3", "9" * 16, "\0", "é", "1_0", " 1 "]
NUMBERS = ["PatientWeight", "PatientSize", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
           "RescaleSlope", "RescaleIntercept", "SeriesTime", "AcquisitionTime", "SeriesDate", "Units",
           "DecayCorrection", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfFrames"]


def _bytes(ds):
    buffer = io.BytesIO()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _series():
    return datasets(spacing=(25.0, 10.0, 10.0))


@functools.cache
def files():
    """A small study: name -> bytes."""
    return {f"{k:03d}.dcm": _bytes(ds) for k, ds in enumerate(_series())}


def _convert(folder):
    """What prepro_script.py makes of a folder: {view: MIP}. Raises Unread where something was refused."""
    output = folder.parent / f"{folder.name}_mips"
    studies, refused = find_studies(*list_files(folder))
    made, errors = convert_studies(studies, folder, output, None, Options(4.0, 2, False), True, run_here)
    if refused or errors or not made:
        print("error: listed")
        raise Unread
    return {row["view"]: np.fromfile(output / row["filename"], "<f4") for rows in made.values() for row in rows}


@functools.cache
def mips():
    """Of the undamaged study."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "in")
        place.mkdir()
        for name, data in files().items():
            (place / name).write_bytes(data)
        return _convert(place)


def _same(found):
    return found.keys() == mips().keys() and all(np.array_equal(found[view], mips()[view]) for view in found)


def _case(name, folder, expected=ANY, right=None):
    return Case(name, lambda: _convert(folder / "in"), expected, right)


def dicom(rng, folder):
    place = folder / "in"
    place.mkdir()
    named, victim = dict(files()), pick(rng, list(files()))
    kind = pick(rng, ["bytes", "attribute"] * 2 + ["cut", "pixels", "sequence", "syntax", "bomb", "no file"])
    expected, right = ANY, None
    series = _series()
    ds = series[int(victim[:3])]
    said = kind
    if kind == "bytes":
        named[victim] = mutated(named[victim], rng)
    elif kind == "cut":
        named[victim] = named[victim][:int(rng.integers(len(named[victim])))]
        expected = REFUSED if len(named[victim]) > 400 else ANY
    elif kind == "attribute":
        keyword, value = pick(rng, NUMBERS), pick(rng, ODD)
        said = f"{keyword} {value[:9]!r}"
        raw = ds[keyword] if keyword in ds else None
        encoded = value.encode() + b" " * (len(value.encode()) % 2)
        if raw is not None and (old := _element(named[victim], raw.tag)):
            start, length = old
            before, after = named[victim][:start - 2], named[victim][start + length:]
            named[victim] = before + len(encoded).to_bytes(2, "little") + encoded + after
    elif kind == "pixels":
        rows, columns = (int(pick(rng, [0, 1, 7, 512, 4096, 65535])) for _ in range(2))
        ds.Rows, ds.Columns, ds.BitsAllocated = rows, columns, pick(rng, [1, 8, 16, 32, 64])
        ds.SamplesPerPixel = pick(rng, [1, 3])
        named[victim], said = _bytes(ds), f"{rows} x {columns}"
        expected = REFUSED
    elif kind == "sequence":
        depth = int(pick(rng, [10, 900, 20000]))
        said, inner = f"depth {depth}", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        deep = b"\x54\x00\x16\x00SQ\0\0\xff\xff\xff\xff" + inner
        at = named[victim].index(b"\x54\x00\x16\x00SQ")
        named[victim] = named[victim][:at] + deep * depth + named[victim][at:]
        expected = REFUSED
    elif kind in ("syntax", "bomb"):
        named[victim], said, expected = _compressed(ds, rng, kind == "bomb")
        right = _same if kind == "syntax" else None
    for name, data in named.items():
        (place / name).write_bytes(data)
    if kind == "no file":
        said = no_file(place / victim, rng)
    return _case(f"DICOM: {said}", folder, expected, right)


def _element(content, tag):
    """Where the value of an element with a short explicit VR begins, and its length."""
    at = content.find(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little"), 132)
    return (at + 8, int.from_bytes(content[at + 6:at + 8], "little")) if at > 0 else None


def _compressed(ds, rng, bomb):
    kind = pick(rng, ["deflated", "RLE", "JPEG-LS"])
    if kind == "deflated":
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        content = _bytes(ds)
        if bomb:
            at = 144 + int.from_bytes(content[140:144], "little")
            pack, data = zlib.compressobj(1, wbits=-15), zlib.decompress(content[at:], -15)
            where = int(rng.integers(2))  # before the dataset's end, or in a private element of 1 GB
            parts = [data] + [bytes(1 << 24)] * 40
            if where:
                parts = [b"\x09\x00\x10\x00UN\0\0\0\0\0\x28"] + [bytes(1 << 24)] * 40 + [data]
            content = content[:at] + b"".join(map(pack.compress, parts)) + pack.flush()
        return content, f"{kind}{' bomb' * bomb}", ANY if bomb else SAME
    ds.compress(RLELossless if kind == "RLE" else JPEGLSLossless, generate_instance_uid=False)
    if bomb:
        ds.Rows, ds.Columns = int(pick(rng, [1, 4096])), 4096
    return _bytes(ds), f"{kind}{' bomb' * bomb}", REFUSED if bomb else SAME


def archive(rng, folder):
    place = folder / "in"
    place.mkdir()
    form = pick(rng, ["zip", "tar", "tar.gz", "tgz"])
    path = place / f"a.{form}"
    kind = pick(rng, ["right", "bytes", "cut", "escape", "nested", "bomb", "twice", "link", "device", "encrypted",
                      "no file"])
    members, expected = dict(files()), REFUSED
    if kind == "escape":
        members[pick(rng, ["../../canary", "/tmp/canary", "..\\canary", "C:\\canary", "a/../../canary"])] = b"x"
    elif kind == "nested":
        members["inner.zip"] = _packed({"x.dcm": b"x"}, "zip")
    elif kind == "bomb":
        members["zeros.dcm"] = bytes(60 << 20)
    path.write_bytes(_packed(members, form, kind))
    of_tar, of_zip = ("link", "device", "twice"), ("encrypted",)
    if kind == "right" or kind in of_tar and form == "zip" or kind in of_zip and form != "zip":
        expected = SAME
    elif kind == "bomb" and form == "tar" or kind in ("link", "device"):
        expected = ANY
    elif kind == "bytes":
        path.write_bytes(mutated(path.read_bytes(), rng))
        expected = ANY
    elif kind == "cut":
        content = path.read_bytes()
        path.write_bytes(content[:int(rng.integers(len(content) // 2))])
    elif kind == "no file":
        return _case(f"archive: {no_file(path, rng)}", folder)
    return _case(f"{form}: {kind}", folder, expected, _same if expected == SAME else None)


def _packed(members, form, kind=""):
    buffer = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        content = buffer.getvalue()
        if kind == "encrypted":
            at = content.index(b"PK\x01\x02")
            content = content[:at + 8] + b"\1" + content[at + 9:]
        return content
    with tarfile.open(fileobj=buffer, mode="w:gz" if form != "tar" else "w") as packed:
        for name, data in members.items():
            for _ in range(1 + (kind == "twice" and name == "000.dcm")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                packed.addfile(info, io.BytesIO(data))
        if kind in ("link", "device"):
            info = tarfile.TarInfo("x.dcm")
            info.type, info.linkname = (tarfile.SYMTYPE if kind == "link" else tarfile.CHRTYPE), "/etc/passwd"
            packed.addfile(info)
    return buffer.getvalue()


def _suv():
    grid = np.indices((16, 14, 12)) - np.array([8, 7, 6])[:, None, None, None]
    return (2 * np.exp(-(grid ** 2).sum(0) / 60)).astype(np.float32)


def volume(rng, folder):
    array, path = _suv(), folder / pick(rng, ["SUV.nii", "SUV.nii.gz", "SUV.nrrd"])
    kind = pick(rng, ["right", "bytes", "bytes", "cut", "lies", "lies", "values", "values", "bomb", "no file"])
    said, expected = kind, REFUSED
    if kind == "values":
        said, array = pick(rng, [
            ("NaN", array * np.float32("nan")), ("Bq/ml", array * 9000), ("mask", (array > 1).astype("f4")),
            ("negative", -array), ("flat", array[:, :, 0]), ("four axes", np.stack([array] * 3, -1)),
            ("one slice", array[:1])])
    if path.suffix == ".nrrd":
        nrrd.write(str(path), array, {"space": "left-posterior-superior", "space directions": np.diag([-4.0, -4, 4])}
                   if array.ndim == 3 else {})
    else:
        nibabel.Nifti1Image(array, np.diag([4, 4, 4, 1])).to_filename(path)
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[:int(rng.integers(len(content)))])
    elif kind == "bytes":
        path.write_bytes(mutated(content, rng))
        expected = ANY
    elif kind in ("lies", "bomb"):
        sizes = rng.integers(1 if kind == "lies" else 400, 30000 if kind == "lies" else 500, 3)
        path.write_bytes(_lying(content, path.suffix, sizes, kind == "bomb"))
        said = f"{kind}: {sizes}"
    elif kind == "no file":
        said = no_file(path, rng)
    return Case(f"{path.suffix}: {said}", lambda: read_volume(str(path)).array, SAME if kind == "right" else expected,
                (lambda found: sorted(found.shape) == sorted(array.shape) and found.max() == array.max())
                if kind == "right" else None)


def _lying(content, suffix, sizes, bomb):
    zeros = b"".join([bytes(1 << 24)] * 12) if bomb else b""
    if suffix == ".nrrd":
        head, data = content.split(b"\n\n", 1)
        if not bomb:
            head = head.replace(b"sizes: 16 14 12", f"sizes: {' '.join(map(str, sizes))}".encode())
        return head + b"\n\n" + (gzip.compress(zeros, 1) if bomb else data)
    raw = bytearray(gzip.decompress(content) if suffix == ".gz" else content)
    raw[42:48] = sizes.astype("<i2").tobytes()
    return gzip.compress(bytes(raw) + zeros, 1) if suffix == ".gz" else bytes(raw)
