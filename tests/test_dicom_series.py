"""What is found in folders, archives and DICOM media, and which series is taken."""
import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import zipfile

import pandas as pd
import pytest
from conftest import call, error_line, run
from pet import COARSE, CORONAL, datasets, write_multiframe, write_series
from pydicom.fileset import FileSet
from series_helpers import contents, pack, prepro, table

import prepro_script
from common.files import InputError
from preprocessing import archives, dicom_series, series_choice
from preprocessing.dicom_values import Refused


def one_study(folder, series):
    """Series of one study, by SeriesNumber."""
    for number, changed in series.items():
        write_series(folder / "dicom" / str(number), SeriesInstanceUID=f"1.2.3.{number}", SeriesNumber=number,
                     **(COARSE | changed))


# Archives

def test_an_archive_gives_what_its_files_give(two_studies, monkeypatch):
    prepro(two_studies)
    expected = contents(two_studies / "out")
    expected.pop("done.json")
    shutil.rmtree(two_studies / "out")
    root, used = two_studies / "dicom", two_studies / "tmp"
    used.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(used))
    for path in (root / "A" / "1").iterdir():
        path.rename(path.with_suffix(""))  # DICOM needs no extension
    (root / "A" / "report.pdf").write_bytes(b"%PDF")
    (root / "A" / "._001.dcm").write_bytes(b"resource fork")
    (root / "A" / "__MACOSX").mkdir()
    (root / "A" / "__MACOSX" / "001.dcm").write_bytes(b"resource fork")
    write_series(root / "A" / "ct", SeriesInstanceUID="1.2.3.7", Modality="CT", **COARSE)
    pack(root / "A", root / "a.ZIP", name="./{}")
    pack(root / "B", root / "b.zip", zipfile.ZIP_STORED)
    before = contents(root)
    assert prepro(two_studies) is None
    found = contents(two_studies / "out")
    found.pop("done.json")
    assert found == expected and contents(root) == before and not list(used.iterdir())
    assert call(prepro_script, "--input", root / "b.zip", "--output", two_studies / "b", "--workers", 1,
                "--keep_ids") is None
    assert set(pd.read_csv(two_studies / "b" / "data.csv")["scan_id"]) == {"1.2.4"}


def test_a_study_may_lie_in_several_archives(two_studies):
    prepro(two_studies)
    expected = (two_studies / "out" / "data.csv").read_bytes()
    root = two_studies / "dicom"
    for number in range(1, 4):
        (root / "part").mkdir()
        (root / "A" / "1" / f"{number:03d}.dcm").rename(root / "part" / f"{number:03d}.dcm")
        pack(root / "part", root / f"{number}.zip")
    assert prepro(two_studies) is None
    assert (two_studies / "out" / "data.csv").read_bytes() == expected


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _add(name, content=b"", compression=zipfile.ZIP_DEFLATED):
    def add(path):
        with zipfile.ZipFile(path, "a", compression) as archive:
            archive.writestr(name, content)
    return add


def _encrypt(path):
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2")  # the last entry of the central directory; its flags follow 8 bytes in
    content[at + 8] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "words"), [
    (_cut, "not a zip file"), (_add("../../evil.dcm"), "unsafe name"), (_add("/etc/evil.dcm"), "unsafe name"),
    (_add("C:\\evil.dcm"), "unsafe name"), (_add("a\\..\\..\\evil.dcm"), "unsafe name"),
    (_add("zeros.dcm", b"", zipfile.ZIP_LZMA), "than deflate"),
    (_add("zeros.dcm", bytes(1 << 24)), "times its size"), (_encrypt, "encrypted")])
def test_a_bad_archive_is_listed_and_the_others_go_on(damage, words, two_studies):
    archive = pack(two_studies / "dicom" / "A", two_studies / "dicom" / "a.zip")
    damage(archive)
    before = contents(two_studies / "dicom")
    assert prepro(two_studies) == 1
    errors = table(two_studies, "errors.csv")
    assert errors["study"].tolist() == ["a.zip"] and errors["attribute"].tolist() == ["archive"]
    assert words in errors["reason"][0] and errors["remedy"][0] != ""
    assert set(table(two_studies)["scan_id"]) == {"1.2.4"}
    assert contents(two_studies / "dicom") == before and not list(two_studies.parent.rglob("*evil*"))


def test_an_archive_that_lies_about_a_size(two_studies):
    archive = pack(two_studies / "dicom" / "A", two_studies / "dicom" / "a.zip")
    _add("zeros.dcm", bytes(1 << 24))(archive)
    content = bytearray(archive.read_bytes())
    at = content.rindex(b"PK\1\2")
    content[at + 24:at + 28] = (200).to_bytes(4, "little")  # the unpacked size
    archive.write_bytes(content)
    assert prepro(two_studies) == 1
    errors = table(two_studies, "errors.csv")
    assert errors["study"].tolist() == ["a.zip/zeros.dcm"] and "Bad CRC-32" in errors["reason"][0]


def test_an_announced_size_beyond_the_limit(two_studies, monkeypatch):
    pack(two_studies / "dicom" / "A", two_studies / "dicom" / "a.zip")
    monkeypatch.setattr(archives, "MAX_MEMBER", 1000)
    assert prepro(two_studies) == 1
    assert "would unpack to" in table(two_studies, "errors.csv")["reason"][0]


def test_an_archive_in_an_archive_is_listed(two_studies):
    root = two_studies / "dicom"
    (root / "outer").mkdir()
    pack(root / "A", root / "outer" / "a.zip")
    (root / "B").rename(root / "outer" / "B")
    pack(root / "outer", root / "outer.zip")
    assert prepro(two_studies) == 1
    errors = table(two_studies, "errors.csv")
    assert errors["study"].tolist() == ["outer.zip/a.zip"] and "not searched" in errors["reason"][0]
    assert set(table(two_studies)["scan_id"]) == {"1.2.4"}


def test_a_flipped_pixel_in_an_archive_is_found_by_its_crc(tmp_path):
    write_series(tmp_path / "dicom" / "A", spacing=(20.0, 0.6, 0.6))  # files larger than what the search reads
    archive = pack(tmp_path / "dicom" / "A", tmp_path / "dicom" / "a.zip", zipfile.ZIP_STORED)
    assert prepro(tmp_path) is None
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as packed:
        info = packed.infolist()[3]
        assert info.file_size > 70_000
    content[info.header_offset + info.file_size - 1000] ^= 1
    archive.write_bytes(content)
    assert prepro(tmp_path) == 1
    errors = table(tmp_path, "errors.csv")
    assert errors["study"].tolist() == ["a.zip"] and "Bad CRC-32" in errors["reason"][0]
    assert table(tmp_path).empty


def test_a_damaged_member_refuses_the_study_beside_it(two_studies):
    path = two_studies / "dicom" / "A" / "1" / "007.dcm"
    path.write_bytes(path.read_bytes()[:200])
    pack(two_studies / "dicom" / "A", two_studies / "dicom" / "a.zip")
    assert prepro(two_studies) == 1
    assert table(two_studies, "errors.csv")[["study", "value"]].to_numpy().tolist() == [["a.zip/1", "007.dcm"]]


# DICOM media

def write_medium(folder):
    """A DICOMDIR and its files, whose names have no extension."""
    medium = FileSet()
    for ds in datasets(StudyID="1", StudyTime="100000", **COARSE):
        ds.InstanceNumber = int(ds.SOPInstanceUID.rsplit(".", 1)[1])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        medium.add(ds)
    medium.write(folder)
    return folder / "DICOMDIR"


def test_dicomdir(tmp_path):
    index = write_medium(tmp_path / "dicom")
    assert all(not path.suffix for path in (tmp_path / "dicom").rglob("*"))
    assert call(prepro_script, "--input", index, "--output", tmp_path / "out", "--workers", 1, "--keep_ids") is None
    assert table(tmp_path)["warnings"].tolist() == ["", ""]
    for path in list((tmp_path / "dicom").rglob("*")):  # all in one folder, and the index unreadable
        if path.is_file() and path != index:
            path.rename(tmp_path / "dicom" / path.name)
    index.write_bytes(index.read_bytes()[:300])
    assert prepro(tmp_path) is None and len(table(tmp_path)) == 2


def test_a_slice_cut_anywhere_refuses_its_study(two_studies):
    """The cut may fall between two elements, where what is left is a valid but shorter file."""
    last = sorted((two_studies / "dicom" / "A" / "1").iterdir())[-1]
    whole = last.read_bytes()
    for length in [*range(132, 900, 41), len(whole) - 1, len(whole) - 1000]:
        last.write_bytes(whole[:length])
        assert prepro(two_studies) == 1, length
        errors = table(two_studies, "errors.csv")
        assert len(errors) == 1 and "A" in errors["study"][0], length
        assert len(table(two_studies)) == 2, "the other study is converted"


def test_slices_without_extension_that_break_off_are_damaged(tmp_path):
    write_medium(tmp_path / "dicom")
    path = next(path for path in (tmp_path / "dicom").rglob("*") if path.is_file() and path.name != "DICOMDIR")
    path.write_bytes(path.read_bytes()[:200])
    assert prepro(tmp_path) == 1 and table(tmp_path, "errors.csv")["value"].tolist() == [path.name]


# The choice of a series

@pytest.mark.parametrize(("series", "number", "more"), [
    ({1: {"CorrectedImage": ["DECY"], "size": (150, 100, 300)}, 2: {}}, 2,
     ", not number 1 (not attenuation corrected)"),
    ({1: {"spacing": (5.0, 5.0, 4.0)}, 2: {"size": (150, 100, 180)}}, 2, ", not number 1 (shorter)"),  # 135 and 160 mm
    ({1: {"size": (150, 100, 160)}, 2: {"spacing": (5.0, 5.0, 4.0)}}, 2,
     ", not number 1 (fewer slices)"),  # as long within 1 cm
    ({1: {}, 2: {"spacing": (10.0, 5.0, 4.0), "size": (150, 100, 130)}}, 2, ", not number 1 (fewer slices)"),  # 120 mm
    ({1: {"spacing": (4.0, 5.0, 5.0), "size": (150, 90, 150), "orientation": CORONAL}, 2: {}}, 2,
     ", not number 1 (not axial)"),  # though 145 mm high
    ({3: {}, 1: {}, 2: {}}, 1, " (equal: number 2, 3)"),
    ({1: {"ImageType": ["DERIVED", "SECONDARY"], "size": (150, 100, 300)}, 2: {}}, 2, ", not number 1 (derived)"),
    ({1: {"SeriesType": ["WHOLE BODY", "REPROJECTION"]}, 2: {}}, 2, ", not number 1 (derived)"),
    ({1: {"SeriesType": ["DYNAMIC", "IMAGE"]}, 2: {"CorrectedImage": ["DECY"]}}, 2,
     ", not number 1 (dynamic or gated)"),
    ({1: {"SeriesType": ["GATED", "IMAGE"], "size": (150, 100, 300)}, 2: {}}, 2, ", not number 1 (dynamic or gated)"),
    ({1: {"Units": "PROPCNTS", "spacing": (10.0, 5.0, 4.0), "size": (150, 100, 130)}, 2: {}}, 2,
     ", not number 1 (its units give no SUV)"),  # 120 mm, more slices
    ({1: {"Units": "CNTS"}, 2: {"Units": "GML"}}, 2, ", not number 1 (its units give no SUV)"),
    ({1: {"Units": "CNTS", "size": (150, 100, 300)}, 2: {}}, 1, ", not number 2 (shorter)"),
    ({1: {"Radiopharmaceutical": "Ga-68 DOTATATE", "size": (150, 100, 300)}, 2: {}}, 2,
     ", not number 1 (another tracer)")])
def test_choice(series, number, more, tmp_path):
    one_study(tmp_path, series)
    studies, refused = dicom_series.find_studies(*archives.list_files(tmp_path / "dicom"))
    files, warnings = series_choice.choose_series(studies["1.2.3"])
    assert {os.path.basename(os.path.dirname(path)) for path in files} == {str(number)} and not refused
    assert warnings[0].startswith(f"{len(series)} PET series: number {number} (") and warnings[0].endswith(
        f"was used{more}")


def test_a_study_of_dynamic_series_alone_is_refused(tmp_path):
    one_study(tmp_path, {1: {"SeriesType": ["DYNAMIC", "IMAGE"]}, 2: {"SeriesType": ["GATED", "IMAGE"]}})
    studies, _ = dicom_series.find_studies(*archives.list_files(tmp_path / "dicom"))
    with pytest.raises(Refused, match="every PET series is dynamic or gated"):
        series_choice.choose_series(studies["1.2.3"])


def test_links_are_followed_once_and_broken_ones_named(tmp_path):
    write_series(tmp_path / "elsewhere" / "A", **COARSE)
    (tmp_path / "dicom").mkdir()
    for name, target in (("A", tmp_path / "elsewhere" / "A"), ("again", tmp_path / "elsewhere" / "A"),
                         ("loop", tmp_path / "dicom"), ("gone", tmp_path / "nowhere")):
        (tmp_path / "dicom" / name).symlink_to(target)
    assert prepro(tmp_path) == 1
    assert table(tmp_path)["warnings"].tolist() == ["", ""] and len(table(tmp_path)) == 2
    errors = table(tmp_path, "errors.csv")
    assert errors["value"].tolist() == ["gone"] and "No such file" in errors["reason"][0]


@pytest.mark.parametrize("name", ["A.tar", "A.tar.gz", "A.tgz", "slices"])
def test_other_archives_are_read(name, tmp_path):
    write_series(tmp_path / "A", **COARSE)
    (tmp_path / "dicom").mkdir()
    if name == "slices":
        for path in (tmp_path / "A").iterdir():
            (tmp_path / "dicom" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    else:
        with tarfile.open(tmp_path / "dicom" / name, "w:gz" if name != "A.tar" else "w") as archive:
            archive.add(tmp_path / "A", "study/A")
    assert prepro(tmp_path) is None and table(tmp_path)["warnings"].tolist() == ["", ""]
    (tmp_path / "plain").mkdir()
    assert call(prepro_script, "--input", tmp_path / "A", "--output", tmp_path / "plain", "--keep_ids") is None
    for path in (tmp_path / "plain" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / "images" / path.name).read_bytes()


def test_archives_that_are_not_searched_are_named(tmp_path):
    write_series(tmp_path / "dicom" / "A", **COARSE)
    for name, content in (("a.7z", b"7z"), ("b.RAR", b"Rar!"), ("c.tar", b"junk" * 300), ("d.tar.gz", b"junk"),
                          ("e.gz", gzip.compress(bytes(1 << 22)))):
        (tmp_path / "dicom" / name).write_bytes(content)
    assert prepro(tmp_path) == 1 and len(table(tmp_path)) == 2
    errors = table(tmp_path, "errors.csv").set_index("value")["reason"]
    assert errors.index.tolist() == ["a.7z", "b.RAR", "c.tar", "d.tar.gz", "e.gz"]
    assert errors["a.7z"] == errors["b.RAR"] == "is of a kind that is not searched"
    assert errors["e.gz"].endswith("would unpack to more than 100 times its size")


def test_copies_are_used_once(tmp_path):
    write_series(tmp_path / "dicom" / "A", **COARSE)
    files = sorted((tmp_path / "dicom" / "A").iterdir())
    for path in files[:3]:
        (path.parent / f"{path.stem}(1).dcm").write_bytes(path.read_bytes())
    with zipfile.ZipFile(tmp_path / "dicom" / "A.zip", "w") as archive:
        for path in files:
            archive.write(path, path.name)
    assert prepro(tmp_path) is None
    assert table(tmp_path)["warnings"][0] == (
        f"{len(files) + 3} files are copies of others (same SOPInstanceUID): each slice was used once")


@pytest.mark.parametrize("copies", ["all in an archive", "of the better series"])
def test_copies_make_no_series_dynamic(copies, tmp_path):
    """One that is not attenuation corrected beside it: copied or not, the same series is used."""
    one_study(tmp_path, {1: {}, 2: {"CorrectedImage": ["DECY"]}})
    if copies == "of the better series":
        for path in list((tmp_path / "dicom" / "1").iterdir()):
            shutil.copy(path, path.with_suffix(".copy"))
    else:
        shutil.copytree(tmp_path / "dicom", tmp_path / "packed")
        pack(tmp_path / "packed", tmp_path / "dicom" / "study.zip")
    assert prepro(tmp_path) is None
    said = table(tmp_path)["warnings"][0]
    assert said.startswith("2 PET series: number 1 (7 slices, 120 mm) was used, not number 2 (not atten")
    assert "7 files are copies of others" in said and table(tmp_path)["suv_max"][0] == pytest.approx(4, rel=1e-3)


def test_multiframe_series_are_ranked_by_their_frames(tmp_path):
    one_study(tmp_path, {1: {}})
    write_multiframe(tmp_path / "dicom" / "2", "1.2.840.10008.5.1.4.1.1.130", SeriesInstanceUID="1.2.3.2",
                     SeriesNumber=2, spacing=(10.0, 5.0, 4.0))
    study = dicom_series.find_studies(*archives.list_files(tmp_path / "dicom"))[0]["1.2.3"]
    assert [(s.number, s.slices, s.extent, s.corrected, s.units) for s in series_choice.rank_series(
        study)] == [(2, 14, 130, True, "BQML"), (1, 7, 120, True, "BQML")]


def test_series(tmp_path):
    one_study(tmp_path, {1: {}, 2: {"spacing": (28.0, 5.0, 4.0)}})
    write_series(tmp_path / "dicom" / "B", uid="1.2.4", **COARSE)
    assert prepro(tmp_path, "--series", "1.2.3.2") is None
    assert table(tmp_path)["scan_id"].tolist() == ["1.2.3", "1.2.3", "1.2.4", "1.2.4"]  # other studies: by the rule
    assert table(tmp_path)["warnings"].tolist()[::2] == [
        "2 PET series: number 2 (5 slices, 112 mm) was used by --series", ""]
    assert prepro(tmp_path) is None  # another series is another result: not skipped
    assert "number 1 (7" in table(tmp_path)["warnings"][0]
    with pytest.raises(InputError, match="--series 1.2.9: no such PET series"):
        prepro(tmp_path, "--series", "1.2.9")
    with pytest.raises(InputError, match="of the same study as 1.2.3.2"):
        prepro(tmp_path, "--series", "1.2.3.2", "--series", "1.2.3.1")


def test_one_series_in_two_studies_is_refused(two_studies):
    folder = two_studies / "dicom" / "A" / "1"
    content = (folder / "007.dcm").read_bytes()
    assert content.count(b"1.2.3\0") == 1  # StudyInstanceUID
    (folder / "007.dcm").write_bytes(content.replace(b"1.2.3\0", b"1.2.7\0"))
    assert prepro(two_studies) == 1
    assert table(two_studies, "errors.csv")["attribute"].tolist() == ["StudyInstanceUID"] * 2
    assert set(table(two_studies)["scan_id"]) == {"1.2.4"}


def test_list(tmp_path):
    one_study(tmp_path, {1: {"CorrectedImage": ["DECY"]}, 2: {"SeriesDescription": "PET\tWB \x1b[31m"},
                         3: {"spacing": (28.0, 5.0, 4.0)}})
    write_series(tmp_path / "dicom" / "C", uid="1.2.5", Units="GML", SUVType="BW", **COARSE)
    bad = write_series(tmp_path / "dicom" / "D", uid="1.2.6", **COARSE) / "007.dcm"
    bad.write_bytes(bad.read_bytes()[:200])
    before = contents(tmp_path)
    done = run("prepro_script.py", "--input", tmp_path / "dicom", "--list", "--workers", 2, cwd=tmp_path, check=1)
    assert contents(tmp_path) == before
    assert done.stdout.splitlines() == [
        "PatientID             StudyDate   StudyInstanceUID",
        "MRN4711               2024-03-10  1.2.3",
        "  + 1.2.3.2: number 2, PET WB ?[31m, 7 slices, 120 mm, BQML, attenuation corrected; taken:",
        "      attenuation corrected, longest, most slices",
        "  - 1.2.3.3: number 3, PET WB, 5 slices, 112 mm, BQML, attenuation corrected; not taken: fewer",
        "      slices",
        "  - 1.2.3.1: number 1, PET WB, 7 slices, 120 mm, BQML, not attenuation corrected; not taken: not",
        "      attenuation corrected",
        "MRN4711               2024-03-10  1.2.5",
        "  + 1.2.5.1: number 1, PET WB, 7 slices, 120 mm, GML BW, attenuation corrected; taken: the only PET",
        "      series",
        "MRN4711               2024-03-10  1.2.6"] + done.stdout.splitlines()[12:]
    assert "\n3 studies, 5 PET series (+ taken, - not)" in done.stdout and "\nrefused: D: file '007.dcm'" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    shutil.rmtree(tmp_path / "dicom" / "D")
    assert "refused" not in run("prepro_script.py", "--input", tmp_path / "dicom", "--list", check=0).stdout
    assert "--output: missing" in error_line(run("prepro_script.py", "--input", tmp_path / "dicom"))


# Checksums

def sums_of(folder):
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(folder)}\n"
                   for path in sorted(folder.rglob("*")) if path.is_file())


def test_checksums(two_studies):
    root, sums = two_studies / "dicom", two_studies / "sums.txt"
    pack(root / "B", root / "b.zip")
    write_series(root / "C", uid="1.2.5", **COARSE)
    write_series(root / "D", uid="1.2.6", **COARSE)
    sums.write_text(sums_of(root))
    assert prepro(two_studies, "--checksums", sums) is None
    assert table(two_studies)["scan_id"].nunique() == 4
    for name in ("A/1/002.dcm", "A/1/006.dcm"):
        content = bytearray((root / name).read_bytes())
        content[-700] ^= 1  # a pixel
        (root / name).write_bytes(content)
    os.remove(root / "C" / "001.dcm")  # the last slice: no gap would show it
    with zipfile.ZipFile(root / "b.zip", "a") as archive:
        archive.comment = b"changed"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "D/003" not in line))
    assert prepro(two_studies) is None  # nothing of this shows without the sums
    assert prepro(two_studies, "--checksums", sums) == 1
    errors = table(two_studies, "errors.csv")
    assert errors[["study", "value", "reason"]].to_numpy().tolist() == [
        ["A/1", "002.dcm and 1 more", "has another SHA-256 than is listed: --checksums"],
        ["C", "001.dcm", "is missing: --checksums"], ["D", "003.dcm", "is not listed: --checksums"],
        ["b.zip", "b.zip", "has another SHA-256 than is listed: --checksums"]]
    assert table(two_studies).empty


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not here")
def test_checksums_as_sha256sum_writes_them(two_studies):
    root = two_studies / "dicom"
    (root / "A" / "1" / "001.dcm").rename(root / "A" / "1" / "a\\b.dcm")  # escaped in the list
    subprocess.run("sha256sum */*/* > SUMS; sha256sum --binary SUMS >> SUMS", shell=True, cwd=root, check=True)
    assert "\n\\" in (root / "SUMS").read_text()
    assert prepro(two_studies, "--checksums", root / "SUMS") is None


@pytest.mark.parametrize(("content", "words"), [
    ("0123  a\n", "line 1: '0123  a' is not"), ("\n" + "0" * 64 + " a\n", "line 2"),
    ("0" * 64 + "  elsewhere.dcm\n", "names no file under"), (None, "No such file")])
def test_bad_checksums(content, words, two_studies):
    if content is not None:
        (two_studies / "sums").write_text(content)
    with pytest.raises(InputError, match=words):
        prepro(two_studies, "--checksums", two_studies / "sums")
    assert not (two_studies / "out").exists()


def test_a_folder_without_rights_is_named(tmp_path, monkeypatch):
    """By os.scandir as it fails there: the tests may run as root, who may read everything."""
    one_study(tmp_path, {1: {}})
    closed = tmp_path / "dicom" / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refuse(path):
        if path in (closed, str(closed)):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert prepro(tmp_path) == 1 and len(table(tmp_path)) == 2
    errors = table(tmp_path, "errors.csv")
    assert errors["study"].tolist() == ["closed"], errors
