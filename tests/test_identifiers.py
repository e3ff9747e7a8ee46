"""The key that hashes identifiers, where it is found, and crosswalk.csv, which leads back."""
import multiprocessing
import os
import stat

import pandas as pd
import pytest
from conftest import call
from pet import write_series

import prepro_script
from common.files import InputError, read_csv
from preprocessing import identifiers
from preprocessing.identifiers import CROSSWALK, find_key, hash_id, read_key, update_crosswalk

COARSE = {"spacing": (20.0, 5.0, 4.0)}


@pytest.fixture(autouse=True)
def no_key_of_other_tests(tmp_path):
    """The nearest key above an output counts: those of outputs of other tests lie beside this one's folder."""
    for name in ("hash_key.txt", "crosswalk.csv"):
        (tmp_path.parent / name).unlink(missing_ok=True)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def rows(*scans, patient="007"):
    return [(scan, f"1.2.{scan}", patient, "2024-03-10", "") for scan in scans]


def test_one_key_for_all_folders_of_a_project(tmp_path, capsys):
    first = find_key(None, tmp_path / "project" / "mips")
    assert first == tmp_path / "project" / "hash_key.txt" and mode(first) == 0o600 and len(read_key(first)) == 64
    assert f"new key {first}" in capsys.readouterr().out
    for folder in ("new", "a/b/c", "mips"):
        assert find_key(None, tmp_path / "project" / folder) == first
    assert capsys.readouterr().out.splitlines() == [f"identifiers are hashed with the key {first}"] * 3
    own = tmp_path / "project" / "mips" / "hash_key.txt"
    own.parent.mkdir()
    own.write_text("the key of an older version")
    assert find_key(None, own.parent) == own and find_key(None, tmp_path / "project" / "new") == first
    assert find_key(str(first), own.parent) == first
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["hash_key.txt", "hash_key.txt", "mips", "project"]


def test_a_key_that_others_can_read_is_named(tmp_path, capsys):
    find_key(None, tmp_path / "out")
    (tmp_path / "hash_key.txt").chmod(0o644)
    find_key(None, tmp_path / "out")
    assert f"chmod 600 {tmp_path / 'hash_key.txt'}" in capsys.readouterr().out


@pytest.mark.parametrize(("content", "words"), [
    ("", "is empty; put its backup"), ("\n", "is empty"), ("short", "5 bytes; a key needs at least 16")])
def test_a_damaged_key_says_how_to_go_on(content, words, tmp_path):
    (tmp_path / "hash_key.txt").write_text(content)
    with pytest.raises(InputError, match=words):
        read_key(find_key(None, tmp_path / "out"))
    assert (tmp_path / "hash_key.txt").read_text() == content


def test_a_full_disk_leaves_no_key(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be made: No space left"):
        find_key(None, tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _key(folder):
    return read_key(find_key(None, folder))


def test_runs_at_once_make_one_key(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        keys = pool.map(_key, [tmp_path / f"mips{n}" for n in range(12)], chunksize=1)
    assert len(set(keys)) == 1 and [path.name for path in tmp_path.iterdir()] == ["hash_key.txt"]
    assert mode(tmp_path / "hash_key.txt") == 0o600


def test_a_key_made_meanwhile_stays(tmp_path):
    (tmp_path / "hash_key.txt").write_text("the first one's key")
    assert identifiers._make_key(tmp_path / "mips").read_text() == "the first one's key"


def test_a_disk_of_its_own_holds_its_key(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(tmp_path / "out"))
    assert find_key(None, tmp_path / "out") == tmp_path / "out" / "hash_key.txt"


def test_crosswalk_is_kept_and_merged(tmp_path):
    key = find_key(None, tmp_path / "out")
    path = update_crosswalk(key, rows("b", "c"))
    update_crosswalk(key, rows("a", "c", patient="1e5"))
    assert path == tmp_path / "crosswalk.csv" and mode(path) == 0o600
    assert path.read_text().splitlines() == [
        ",".join(CROSSWALK), "a,1.2.a,1e5,2024-03-10,", "b,1.2.b,007,2024-03-10,", "c,1.2.c,1e5,2024-03-10,"]
    read_csv(path).rename(columns={"patient_id": "PatientID"}).assign(note=["x", "", "y"]).to_csv(path, index=False)
    update_crosswalk(key, rows("c", "d"))  # a column that somebody has added
    assert path.read_text().splitlines() == [",".join((*CROSSWALK, "note")), "a,1.2.a,1e5,2024-03-10,,x",
        "b,1.2.b,007,2024-03-10,,", "c,1.2.c,007,2024-03-10,,y", "d,1.2.d,007,2024-03-10,,"]


def _add(folder, scan):
    update_crosswalk(folder / "hash_key.txt", rows(scan))


def test_runs_at_once_lose_no_row(tmp_path):
    names = [f"s{n:02d}" for n in range(12)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_add, [(tmp_path, name) for name in names])
    assert list(read_csv(tmp_path / "crosswalk.csv")["scan_id"]) == names
    assert [path.name for path in tmp_path.iterdir()] == ["crosswalk.csv"]


def test_prepro_leads_back_to_patients(tmp_path):
    for folder, uid, patient in (("A", "1.2.3", "MRN4711"), ("B", "1.2.4", "007")):
        write_series(tmp_path / folder, uid=uid, PatientID=patient, **COARSE)
        assert call(prepro_script, "--input", tmp_path / folder, "--output", tmp_path / f"mips{folder}",
                    "--workers", 1) is None
    made = {row.scan_id: row.patient_id for folder in "AB"
            for row in pd.read_csv(tmp_path / f"mips{folder}" / "data.csv").itertuples()}
    found = read_csv(tmp_path / "crosswalk.csv").set_index("scan_id").sort_values("StudyInstanceUID")
    key = read_key(tmp_path / "hash_key.txt")
    assert dict(zip(found.index, found["StudyInstanceUID"], strict=True)) == {
        hash_id("1.2.3", key): "1.2.3", hash_id("1.2.4", key): "1.2.4"}
    assert {scan: hash_id(patient, key) for scan, patient in found["patient_id"].items()} == made
    assert found["patient_id"].tolist() == ["MRN4711", "007"]
    assert set(found["StudyDate"]) == {"2024-03-10"} and set(found["AccessionNumber"]) == {"ACC0815"}
