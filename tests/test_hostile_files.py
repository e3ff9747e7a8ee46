"""Damaged, odd and malicious files, one of each kind, are refused in one line; tests/test_robustness.py tries many."""
import gzip
import json
import os
import tracemalloc
import zipfile
import zlib
from types import SimpleNamespace

import nibabel
import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from conftest import write_cohort
from pet import code, datasets, save
from pydicom.uid import DeflatedExplicitVRLittleEndian

from common.checkpoint_content import check_content
from common.digests import training_digests
from common.files import InputError, parse_json, read_csv, read_json_object, sha256
from common.manifest import check_patients, read_manifest, spelled_alike
from common.mips import read_image
from common.parameter_names import network_state
from dataset import norm_constants, read_bodies
from evaluation import ensemble
from inference.prediction import best_runs
from preprocessing import suv
from preprocessing.conversion import _done
from preprocessing.dicom_values import Refused
from preprocessing.splits import read_sorted
from preprocessing.volumes import read_volume
from utils import read_checkpoint


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    return tmp_path / "pipe.npy"


# ---------------------------------------------------------------- files that are none, tables, JSON

def test_a_pipe_or_folder_in_place_of_a_file_is_refused_at_once(pipe, tmp_path):
    for path in (pipe, tmp_path):
        with pytest.raises(InputError, match="not a file, but a folder, pipe or device"):
            read_csv(path)
        with pytest.raises(InputError, match="not a file"):
            read_json_object(path, "--space", "{}")
        with pytest.raises(OSError, match="not a file"):
            sha256(path)
        with pytest.raises(InputError, match="not a file"):
            read_checkpoint(path)


@pytest.mark.parametrize(("text", "whole", "message"), [
    ("a,b\n1,2\n3", False, "its last line breaks off, '3'"), ("a,b\n1,2\n3,0.", True, "its last line breaks off"),
    ("a,target,target\n1,2,3\n", False, "two columns read as target"),
    ("a,target,target.1\n1,2,3\n", False, "target.1 is what pandas calls a second column")])
def test_a_table_that_breaks_off_or_has_a_column_twice(tmp_path, text, whole, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_csv(tmp_path / "a.csv", whole=whole)


def test_the_last_line_of_other_people_s_tables_need_not_end(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4")
    assert read_csv(tmp_path / "a.csv").to_numpy().tolist() == [["1", "2"], ["3", "4"]]


def test_a_prediction_file_cut_within_its_last_number_is_refused(tmp_path):
    (tmp_path / "pred_split0_run1.csv").write_text("scan_id,target,probs\na,1,0.75\nb,0,0.")
    models, _ = ensemble.find_models(tmp_path)
    with pytest.raises(InputError, match="pred_split0_run1.csv: its last line breaks off, 'b,0,0.'"):
        ensemble.read_models(models, None, [])


def test_a_workbook_with_two_cells_at_its_far_corners_is_refused(tmp_path):
    book = openpyxl.Workbook()
    book.active["A1"], book.active["ZZ1"], book.active["A20000"] = "a", "b", "c"
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match="20000 rows of up to 702 cells; save it as CSV"):
        read_csv(tmp_path / "a.xlsx")


@pytest.mark.parametrize("text", ["[" * 50_000 + "]" * 50_000, '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}', "{"])
def test_json_that_is_deep_doubled_or_not_finite_is_refused(text):
    with pytest.raises(ValueError):
        parse_json(text)


# ---------------------------------------------------------------- MIPs

def row(name):
    return SimpleNamespace(filename=name, matrix_size_1=60, matrix_size_2=30, row=2)


def mip(shape=(60, 30)):
    rows, columns = np.indices(shape)
    return (5 * np.exp(-((rows - 20) / 9) ** 2 - ((columns - 15) / 5) ** 2)).astype("<f4")


@pytest.mark.parametrize(("content", "message"), [
    (mip().astype(">f4").tobytes(), "its m|NaN"), (mip()[:30].astype("<f8").tobytes(), "its m"),
    (np.round(mip()[:30]).astype("<f8").tobytes(), "every second value is 0, as if it were float64"),
    (np.full((60, 30), 1e30, "<f4").tobytes(), "its maximum is 1e.30"), ((mip() * 9000).tobytes(), "values Bq/ml"),
    (b"", "0 bytes"), ((-mip() - 1).tobytes(), "its minimum is"),
    ((b"12.5;8.25\n" * 720), "it is text"), (mip((30, 60)).tobytes(), "as if rows and columns were swapped"),
    (np.where(mip() > 1, np.nan, mip()).astype("<f4").tobytes(), "NaN"), (mip().tobytes()[:-1], "7199 bytes")])
def test_a_bin_that_is_no_mip(tmp_path, content, message):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image(row("a.bin"), tmp_path)


def test_every_mip_reads_as_it_was_written(tmp_path):
    mip().tofile(tmp_path / "a.bin")
    assert np.array_equal(read_image(row("a.bin"), tmp_path), mip())
    for k, array in enumerate((mip(), np.asfortranarray(mip()), mip().astype(">f8"), mip().astype("f2"))):
        np.save(tmp_path / f"{k}.npy", array)
        found = read_image(row(f"{k}.npy"), tmp_path)
        assert np.array_equal(found, array.astype("f4")) and found.dtype == np.float32


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("1.0 2.0\n"), lambda path: path.write_bytes(b""),
    lambda path: np.savez(path.open("wb"), a=mip()), lambda path: np.save(path, np.zeros((60, 30), "f4,i4")),
    lambda path: np.save(path, np.array([None] * 1800).reshape(60, 30)), lambda path: np.save(path, mip().astype("U4")),
    lambda path: path.write_bytes(_lying(np.lib.format.header_data_from_array_1_0(mip()), b"1234")),
    lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535), os.mkdir, os.mkfifo])
def test_an_npy_that_is_no_array_of_this_shape(tmp_path, make):
    make(tmp_path / "a.npy")
    with pytest.raises(InputError, match="a.npy: not a readable image"):
        read_image(row("a.npy"), tmp_path)


def _lying(header, content):
    text = (repr(header) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def test_images_of_one_value_cannot_be_normalized(tmp_path):
    table = write_cohort(tmp_path, n_scans=4)
    for name in table["filename"]:
        path = tmp_path / name
        np.full(path.stat().st_size // 4, 2, "<f4").tofile(path)
    bodies = read_bodies(read_manifest(tmp_path / "data.csv"), tmp_path)
    with pytest.raises(InputError, match="every pixel of the training images' bodies is 2 SUV"):
        norm_constants(bodies, np.arange(8))


# ---------------------------------------------------------------- manifests

@pytest.mark.parametrize(("change", "message"), [
    ({"spacing_mm": "inf"}, "spacing_mm = 'inf' is not a length"),
    ({"matrix_size_1": "9" * 30}, "is not a number of pixels")])
def test_numbers_that_no_image_has(tmp_path, change, message):
    write_cohort(tmp_path, n_scans=4).assign(**change).to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "data.csv")


def test_names_are_alike_but_for_zeros_blanks_case_and_width():
    alike = (["7", "007", "7.0", " 7", "7.", "+7"], ["100000", "1e5", "1E+05"], ["P 7", "p07", "Ｐ7"], ["1.10"],
             ["1.1"], ["1.01"], ["70"], ["a7b"], ["a70b"])
    found = [set(spelled_alike(pd.Series(names))) for names in alike]
    assert all(len(each) == 1 for each in found) and len(set().union(*found)) == len(alike)


@pytest.mark.parametrize(("name", "other"), [("007", "7"), ("Q007", "Q 007"), ("Q007", "q007"), ("Q007", "Ｑ007")])
def test_one_patient_under_two_spellings_in_two_sets(tmp_path, name, other):
    table = write_cohort(tmp_path, n_scans=8).astype(str)
    table.loc[table["scan_id"] == "s000", "patient_id"] = name  # test
    table.loc[table["scan_id"] == "s005", "patient_id"] = other  # train
    table.to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(InputError, match=f"'{name}' or '{other}' is in test and train of split0 .test: rows 2, 3; "
                                         "train: rows 12, 13.: if this is one patient, write it in one way"):
        read_manifest(tmp_path / "data.csv", [0])
    with pytest.raises(InputError, match="rows 2 and 12: patient_id .* if this is one patient, write it in one way"):
        read_sorted(tmp_path / "data.csv")
    check_patients(table.assign(split0="train"), ["split0"])


# ---------------------------------------------------------------- checkpoints

def test_a_pickle_that_runs_code_is_refused_without_advice_to_run_it(tmp_path):
    for k, zipped in enumerate((True, False)):
        torch.save({"state_dict": {}, "epoch": RunsCode(tmp_path / "ran")}, tmp_path / f"{k}.pth",
                   _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match="which may be code: it was not read") as error:
            read_checkpoint(tmp_path / f"{k}.pth")
        assert not any(word in str(error.value) for word in ("weights_only", "safe_globals", "trust"))
    assert not (tmp_path / "ran").exists()


def test_a_flipped_bit_is_found_by_the_record_s_own_checksum(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"fc.weight": torch.ones(2, 512)}}, path)
    content = bytearray(path.read_bytes())
    at = content.index(np.ones(512, "<f4").tobytes())
    content[at + 3] ^= 0x40  # of 1.0's exponent
    path.write_bytes(content)
    with pytest.raises(InputError, match="a/data/0 is not what its CRC-32 says"):
        read_checkpoint(path)
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/data.pkl", b"\0" * 10**6)
    with pytest.raises(InputError, match="its records are packed"):
        read_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize(("name", "value", "message"), [
    ("fc.weight", torch.tensor([[1.0, float("nan")]]), "holds NaN or infinity"),
    ("fc.bias", torch.tensor([float("inf"), 1]), "holds NaN or infinity"),
    ("fc.bias", torch.tensor([1e300, 1], dtype=torch.float64), "holds NaN or infinity"),
    ("features.1.running_var", torch.tensor([1.0, -1]), "holds a negative variance"),
    ("fc.weight", torch.ones(1).expand(10**9, 10**9), "more than what is stored of it"),
    ("fc.weight", torch.ones(2, 2, dtype=torch.int64), "holds torch.int64"),
    ("fc.weight", torch.ones(2, 2).to_sparse(), "no stored tensor"), ("fc.weight", np.float64(1), "no stored tensor"),
    ("fc.weight", torch.ones(2, 2, device="meta"), "no stored tensor"), (7, torch.ones(2), "which is no name")])
def test_parameters_that_no_trained_network_has(name, value, message):
    with pytest.raises(InputError, match=message):
        network_state({"state_dict": {"fc.weight": torch.ones(2, 512), name: value}}, "a.pth")


@pytest.mark.parametrize("prefix", ["", "module.", "resnet.", "student.resnet34.body.", "net.encoder_q."])
def test_any_prefix_of_a_resnet_s_names(prefix):
    names = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight")
    state = network_state({prefix + name: torch.ones(4, 4) for name in names}, "a.pth")
    assert set(state) == {"features.0.weight", "features.1.weight", "features.4.0.conv1.weight", "fc.weight"}


def test_two_networks_in_one_file():
    with pytest.raises(InputError, match="several networks, student. and teacher.; give a file of one"):
        network_state({f"{name}.conv1.weight": torch.ones(4, 4) for name in ("student", "teacher")}, "a.pth")


GOOD = {"epoch": 3, "auc": np.float64(0.75), "args": {"lr": 0.1}, "model": {"dropout": 0.5, "sites": {"51": "none"}},
        "input": {"frame": (96, 64), "norm": [1.0, 2.0], "pool": 1, "spacing_mm": 3.27, "views": ("cor", "sag")},
        "trained_on": training_digests(pd.DataFrame({"scan_id": ["a"]}), ["train"])}


def shared_lists():
    value = []
    for _ in range(60):
        value = [value] * 60
    return value


@pytest.mark.parametrize(("name", "value"), [
    ("epoch", "3"), ("epoch", None), ("epoch", -1), ("auc", "x"), ("auc", float("nan")), ("auc", [1]), ("auc", 7),
    ("args", [1]), ("model", [1]), ("model", {"dropout": "x"}), ("model", {"sites": {"a": "b"}}), ("trained_on", {}),
    ("trained_on", {"salt": 3}), ("extra", shared_lists()), ("input", []),
    *[("input", GOOD["input"] | change) for change in (
        {"norm": (1.0, 0.0)}, {"norm": (1.0, float("nan"))}, {"norm": (1.0, "x")}, {"norm": 3}, {"frame": (0, 9)},
        {"frame": (10**9, 9)}, {"frame": "ab"}, {"pool": 0}, {"pool": 1.5}, {"spacing_mm": -1}, {"views": ()},
        {"views": None}, {"box": "x"}, {"suv_type": 1}, {"unknown": 1})]])
def test_what_a_checkpoint_may_not_say_of_itself(name, value):
    check_content(GOOD, "a.pth")
    check_content({"model": "resnet34", "args": {}, "epoch": "best"}, "of others.pth")
    with pytest.raises(InputError, match=r"^a.pth: (its|holds more)"):
        check_content(GOOD | {name: value}, "a.pth")


def test_a_run_that_is_no_whole_number(tmp_path):
    (tmp_path / "best_run.csv").write_text("split,run,epoch,metric,value,rank\n0,1.7,3,auc,0.9,1\n")
    with pytest.raises(InputError, match="not a best_run.csv"):
        best_runs(tmp_path)


# ---------------------------------------------------------------- DICOM, volumes, done.json

def test_a_deflated_dicom_file_unpacks_to_no_more_than_it_needs(tmp_path):
    made = datasets()
    for ds in made:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    folder = save(made, tmp_path / "pet")
    good, first = suv.suv_volume(folder).array, folder / "001.dcm"
    content = first.read_bytes()
    at = 144 + int.from_bytes(content[140:144], "little")  # the end of the file meta information
    dataset, pack = zlib.decompress(content[at:], -15), zlib.compressobj(9, wbits=-15)
    bomb = b"".join(pack.compress(part) for part in [dataset, *[bytes(1 << 24)] * 12]) + pack.flush()
    first.write_bytes(content[:at] + bomb)  # 200 KB, which would be 200 MB
    assert len(bomb) < 1 << 19
    tracemalloc.start()
    assert np.array_equal(suv.suv_volume(folder).array, good)
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


def test_rows_and_columns_that_no_pet_image_has(tmp_path):
    folder = save(datasets(Rows=65535, Columns=65535), tmp_path)
    with pytest.raises(Refused, match="Rows"):
        suv.suv_volume(folder)


def test_coordinates_that_are_no_place_and_a_half_life_of_nothing(tmp_path):
    made = datasets()
    for ds in made:
        ds.RadiopharmaceuticalInformationSequence[0].RadionuclideHalfLife = 0
        ds.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence = [code("77004003")]
    warnings = suv.suv_volume(save(made, tmp_path / "a")).warnings
    assert any("RadionuclideHalfLife is 0: that of F-18, 6586.2 s, was taken" in text for text in warnings)
    for ds in made:
        ds.ImagePositionPatient = ["1e300", *ds.ImagePositionPatient[1:]]
    with pytest.raises(Refused, match="ImagePositionPatient .*: is no place in a scanner"):
        suv.suv_volume(save(made, tmp_path / "b"))


def test_volumes_whose_headers_lie(tmp_path):
    nibabel.Nifti1Image(np.ones((9, 9, 9), np.float32), np.diag([3, 3, 3, 1])).to_filename(tmp_path / "a.nii.gz")
    content = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    content[42:48] = np.array([30000] * 3, "<i2").tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(Refused, match="announces 102996826 MiB"):
        read_volume(str(tmp_path / "a.nii.gz"))
    head = ("NRRD0004\ntype: float\ndimension: 3\nspace: LPS\nsizes: 9 9 9\nencoding: {}\n"
            "space directions: (3,0,0) (0,3,0) (0,0,3)\nendian: little\n{}\n")
    pack = zlib.compressobj(9, wbits=31)
    bomb = b"".join(pack.compress(bytes(1 << 24)) for _ in range(2)) + pack.flush()
    (tmp_path / "a.nrrd").write_bytes(head.format("gzip", "").encode() + bomb)
    with pytest.raises(Refused, match="unpacks to more than its sizes say"):
        read_volume(str(tmp_path / "a.nrrd"))
    (tmp_path / "a.nrrd").write_text(head.format("raw", "data file: /etc/passwd\n"))
    with pytest.raises(Refused, match="values lie in another file"):
        read_volume(str(tmp_path / "a.nrrd"))


@pytest.mark.parametrize("rows", [[], [{"scan_id": "other", "filename": "a.bin", "matrix_size_1": 1,
                                        "matrix_size_2": 1}]])
def test_a_study_that_is_done_without_rows_of_its_own_is_refused(tmp_path, rows):
    (tmp_path / "done.json").write_text(json.dumps({"a": {"digest": "x", "rows": rows}}))
    with pytest.raises(InputError, match="done.json: cannot be read .*; remove it, or give --overwrite"):
        _done(tmp_path)
