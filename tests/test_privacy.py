"""What the chain writes, searched for marks in every text attribute, name of a file and column of the labels."""
import base64
import contextlib
import gzip
import io
import re
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, run
from pet import datasets, save
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from preprocessing.dicom_reader import WANTED

COARSE = {"spacing": (20.0, 5.0, 4.0)}
MARK, UID = "qzxv", "1.2.826.0.1.47474747"
DAYS = "19470313", "1947-03-13", "19510419", "1951-04-19"  # of the scan, of birth
MARKS = [text.encode(kind) for text in (MARK, UID[-8:], *DAYS) for kind in ("utf-8", "utf-16-le")]
TEXTS = {"PN": f"{MARK}^Jane", "LO": f"{MARK} lo", "SH": f"{MARK} sh", "LT": f"{MARK} lt", "ST": f"{MARK} st",
         "UT": f"{MARK} ut", "UC": f"{MARK} uc", "UI": f"{UID}.7", "DA": DAYS[2], "TM": "041951",
         "DT": f"{DAYS[2]}041951"}
MEANT = ("Manufacturer", "ManufacturerModelName")  # the scanner's name
NEEDED = {"TimezoneOffsetFromUTC", "SOPClassUID", "CodeValue", "AcquisitionTime", "SeriesTime"} | {
    f"{name}{kind}" for name in ("Study", "Series", "Acquisition") for kind in ("Date", "DateTime")} | {
    f"RadiopharmaceuticalStart{kind}" for kind in ("Time", "DateTime")}
MAY_NAME = {"crosswalk.csv", "errors.csv", "labels_template.csv", "labels.csv"}  # docs/reference/privacy.md


def marked(number, everything):
    """The slices of a study with marks in its text attributes, in all that there are or in the usual ones."""
    uid = f"{UID}.{number}"
    series = datasets(uid=uid, **COARSE, per_suv=370e6 * 2 ** (-3600 / 6586.2) / 70e3)
    for ds in series:
        for name in ("StudyDate", "SeriesDate", "AcquisitionDate"):
            setattr(ds, name, DAYS[0])
        injection = ds.RadiopharmaceuticalInformationSequence[0]
        injection.RadiopharmaceuticalStartDateTime = f"{DAYS[0]}100000"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{MARK}^Jane", f"{MARK}{number}", DAYS[2]
        ds.PatientWeight = 60 + number % 40  # so that no two have the same image
        ds.AccessionNumber, ds.SeriesDescription = f"{MARK}{number}", f"{MARK} series"
        if everything:
            for tag, (vr, vm, _, _, keyword) in DicomDictionary.items():
                if vr in TEXTS and keyword and keyword not in (*NEEDED, *MEANT) and tag not in ds and tag >> 16 not in (
                        0, 2, 4) and tag not in WANTED and vm in ("1", "1-n"):
                    ds.add_new(tag, vr, TEXTS[vr])
            injection.Radiopharmaceutical = f"{MARK} FDG"
            item = Dataset()
            item.PatientID, item.IssuerOfPatientID = f"{MARK} other", f"{MARK} issuer"
            ds.OtherPatientIDsSequence = [item]
            for group, creator in ((0x0009, "GEMS_PETD_01"), (0x7053, "Philips PET Private Group"), (0x0099, MARK)):
                block = ds.private_block(group, creator, create=True)
                for element, vr in enumerate(("LO", "PN", "LT", "UT", "DA", "UI", "SH"), start=0x60):
                    block.add_new(element, vr, TEXTS[vr])
    return series


def write_study(root, number, everything=False):
    return save(marked(number, everything), root / f"{MARK}_Doe" / f"study{number}")


def write_refused(root):
    """What is refused: damaged files and archives with marks in their names and values."""
    folder = write_study(root, 900)
    (folder / "003.dcm").rename(folder / f"{MARK}.dcm")
    (folder / f"{MARK}.dcm").write_bytes((folder / f"{MARK}.dcm").read_bytes()[:-50])
    for number, (name, value) in enumerate([("PatientWeight", DAYS[2]), ("SeriesTime", f"{MARK}"), ("Units", MARK),
                                            ("DecayCorrection", f"{MARK}^x")], start=901):
        series = marked(number, False)
        for ds in series:
            ds[name] = ds[name]
            ds[name]._value = value
        save(series, root / f"bad{number}")
    with zipfile.ZipFile(root / f"{MARK}1.zip", "w") as archive:
        archive.writestr(f"{MARK}^Jane/001.dcm", b"x" * 500)
        archive.writestr(f"../{MARK}", b"x")
    with zipfile.ZipFile(root / f"{MARK}2.zip", "w") as archive:
        archive.writestr(f"{MARK}^Jane/001.dcm", (folder / "001.dcm").read_bytes())
    content = bytearray((root / f"{MARK}2.zip").read_bytes())
    content[200] ^= 0xFF  # its CRC-32 no longer fits
    (root / f"{MARK}2.zip").write_bytes(content)
    with tarfile.open(root / f"{MARK}3.tar", "w") as archive:
        for _ in range(2):
            archive.add(folder / "001.dcm", f"{MARK}/001.dcm")
    (root / f"{MARK}4.zip").write_bytes(b"PK\3\4 no zip")
    (root / f"{MARK}.nii.gz").write_bytes(gzip.compress(b"no volume"))


def write_labels(root, path, numbers):
    pd.DataFrame([{"StudyInstanceUID": f"{UID}.{n}", "deauville": 5 if n % 2 else 2, "target_loc": 7 if n % 2 else 51,
                   "sex": "FM"[n % 3 == 0], "Geburtsdatum": DAYS[2], "Anschrift": f"{MARK}gasse 1", "initials": MARK,
                   "case_no": f"{MARK}{n}", "StudyDate": DAYS[0], "PatientID": f"{MARK}{n}"} for n in numbers]).to_csv(
        path, index=False)


def parts(content, depth=0):
    """A file's bytes, and those of what is packed in it."""
    yield content
    if depth > 4:
        return
    inner = []
    if content[:2] == b"PK":
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(content)) as archive:
            inner += ["\n".join(archive.namelist()).encode(), *(archive.read(name) for name in archive.namelist())]
    if content[:2] == b"\x1f\x8b":
        inner.append(gzip.decompress(content))
    if content[:4] == b"\x89PNG":
        at = 8
        while at < len(content):
            size, kind = int.from_bytes(content[at:at + 4], "big"), content[at + 4:at + 8]
            if kind in (b"zTXt", b"iTXt", b"eXIf"):
                inner.append(_inflated(content[at + 8:at + 8 + size]))
            at += 12 + size
    if content[:4] == b"%PDF":
        inner += [_inflated(part) for part in re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL)]
    for part in re.findall(rb"base64,([A-Za-z0-9+/=]+)", content):
        with contextlib.suppress(ValueError):
            inner.append(base64.b64decode(part + b"=="))
    for part in inner:
        yield from parts(part, depth + 1)


def _inflated(content):
    for start in range(min(len(content), 40)):
        try:
            return zlib.decompressobj().decompress(content[start:])
        except zlib.error:
            continue
    return b""


def found_in(content):
    """The marks in a file and what it holds; base64, whose letters may be anything, counts as what it stands for."""
    plain = (re.sub(rb"base64,[A-Za-z0-9+/=]+", b"", part).lower() for part in parts(content))
    return sorted({mark.decode("latin-1") for part in plain for mark in MARKS if mark in part})


def check(folder, private):
    """No file's content or name in `folder` has a mark but those of `private`, which nobody else may read."""
    named = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        marks = found_in(path.read_bytes()) + found_in(str(path.relative_to(folder)).encode())
        if path.name in private and marks:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        elif marks:
            named[str(path.relative_to(folder))] = marks
    assert not named


def chain(root, out, script, *args, code=(0,)):
    """Run a script from `root`; what it prints has no mark."""
    done = run(script, *args, cwd=root)
    assert done.returncode in code, done.stdout + done.stderr
    said = (done.stdout + done.stderr).replace(str(out), "OUT")
    assert not found_in(said.encode()), said
    return said


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Two studies with marks everywhere and fourteen with the usual ones, beside what is refused -> (root, output)."""
    root = tmp_path_factory.mktemp("privacy")
    dicom = root / "in"
    for number in range(16):
        write_study(dicom, number, number < 2)
    write_refused(dicom)
    write_labels(dicom, root / "labels.csv", [*range(16), *range(900, 905), 77])
    out = root / MARK / "mips"  # folders above the output have marks, too
    said = chain(root, root / MARK, "prepro_script.py", "--input", "in", "--output", out, "--labels", "labels.csv",
                 "--carry", "sex", "--views", 3, "--workers", 1, code=(1,))
    assert "16 studies" in said and "10 refused" in said, said
    return root, out


def test_the_search_finds_marks_wherever_they_are_packed():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", f"xx{MARK.upper()}xx")
    pdf = b"%PDF-1.4\nstream\n" + zlib.compress(MARK.encode()) + b"endstream"
    png = b"\x89PNG\r\n\x1a\n" + (9 + 20).to_bytes(4, "big") + b"zTXt" + b"Title\0\0" + zlib.compress(MARK.encode())
    for content in (packed.getvalue(), pdf, png, gzip.compress(MARK.encode()), MARK.encode("utf-16-le"),
                    b'src="data:image/png;base64,' + base64.b64encode(packed.getvalue()) + b'"'):
        assert found_in(content) and found_in(gzip.compress(content)), content[:9]
    assert not found_in(b"nothing")


def test_conversion_leaves_names_behind(converted):
    root, out = converted
    check(root / MARK, MAY_NAME)
    table = pd.read_csv(out / "data.csv")
    assert table["scan_id"].nunique() == 16 and {"sex", "deauville"} <= set(table)
    assert not {"Geburtsdatum", "Anschrift", "initials", "case_no"} & set(table)
    assert "not FDG: F-18 another tracer" in set(table["warnings"].dropna()) or table["warnings"].isna().all()
    values = pd.read_csv(out / "errors.csv", keep_default_na=False)
    text = values[["attribute", "value", "reason", "remedy"]].query("attribute not in ('file', 'archive')").to_csv()
    assert not found_in(text.encode()), text
    assert not found_in(values[["reason", "remedy"]].to_csv().encode())


def test_the_files_that_may_name_patients_do(converted):
    """Else the test above would hold for a search that finds nothing."""
    root, out = converted
    assert found_in((root / MARK / "crosswalk.csv").read_bytes()) and found_in((out / "errors.csv").read_bytes())
    assert found_in(run("prepro_script.py", "--input", "in", "--list", "--workers", 1, cwd=root).stdout.encode())


@pytest.mark.slow
def test_the_whole_chain_leaves_names_behind(converted):
    root, mips = converted
    out, data = root / MARK / "results", root / MARK / "mips" / "data_resplit.csv"
    small = ("--weights", "none", "--image_size", "auto", "--pool", 2, "--nepochs", 1, "--batch_size", 8)
    chain(root, root / MARK, "make_splits.py", "--data", mips / "data.csv", "--n_splits", 2, "--test", 0.3,
          "--val", 0.3)
    chain(root, root / MARK, "train.py", "--data", data, "--split_index", "0-1", "--output", out, *small,
          "--tensorboard", out / "board")
    chain(root, root / MARK, "find_best_model.py", "--dir", out)
    chain(root, root / MARK, "predict.py", "--data", data, "--chptfolder", out, "--output", out, "--set", "val", "test")
    chain(root, root / MARK, "explain.py", "--data", data, "--chptfolder", out, "--output", root / MARK / "heat",
          "--max_scans", 2, "--review", code=(0, 1))
    chain(root, root / MARK, "aggregate.py", "--dir", out, "--output", out, "--data", data, "--by", "view", "sex",
          "--resamples", 200, "--heatmaps", root / MARK / "heat")
    chain(root, root / MARK, "compare.py", out / "ensemble_avg.csv", out / "ensemble_max.csv", "--output", out,
          "--resamples", 200)
    chain(root, root / MARK, "export_models.py", "--dir", out, "--output", root / MARK / "models.zip")
    chain(root, root / MARK, "score.py", "--input", root / "in", "--models", root / MARK / "models.zip", "--output",
          root / MARK / "scored", "--key", root / MARK / "hash_key.txt", "--workers", 1, code=(1,))
    chain(root, root / MARK, "optun.py", "--data", data, "--splits", "0-0", "--trials", 1, *small, "--output",
          root / MARK / "search")
    check(root / MARK, MAY_NAME)


def test_the_page_lists_what_may_name_patients():
    page = Path(ROOT, "docs/reference/privacy.md").read_text()
    for name in ("crosswalk.csv", "errors.csv", "--labels_template", "--list", "--carry", "--keep_ids",
                 "score.py --dicom"):
        assert f"`{name}" in page, name
