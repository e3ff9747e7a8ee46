"""export_models.py, and every script on its zip."""
import json
import shutil
import zipfile
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from conftest import call, error_line, run, write_cohort
from hypothesis import given
from hypothesis import strategies as st
from prediction_helpers import SCANS, predictions, write
from training_helpers import SMALL

import aggregate
import explain
import export_models
import find_best_model
import predict
import utils
from common import model_files
from common.arguments import search_parser
from common.files import InputError, sha256
from common.settings import base_names
from dataset import NetworkInput
from evaluation import reference
from evaluation.model_card import write_card
from inference import export, prediction
from inference.sites import common_settings
from search import trials

CPU = ("--device", "cpu", "--amp", "off", "--threads", 1)
SPLITS = ("--splits", 0, 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two networks of one epoch each, predicted and measured, and their zips in half precision and in float32."""
    folder = tmp_path_factory.mktemp("study")
    write_cohort(folder, 24)
    results = folder / "results"
    run("train.py", "--output", results, *SMALL, "--nepochs", 1, "--split_index", 0, 1, "--cls_arch", "complex",
        "--data", folder / "data.csv", cwd=folder, check=0)
    call(find_best_model, "--dir", results)
    predicted(folder, results, results, "--set", "val", "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.figures.score_figures", lambda *arguments: {})
        call(aggregate, "--dir", results, "--output", results, "--resamples", 50)
    for precision in ("half", "float32"):
        exported(results, folder / f"{precision}.zip", "--precision", precision)
    return folder


def predicted(folder, models, output, *arguments):
    return call(predict, "--data", folder / "data.csv", "--chptfolder", models, "--output", output, *SPLITS,
                "--no_features", *CPU, *arguments)


def exported(results, path, *arguments):
    assert call(export_models, "--dir", results, "--output", path, *arguments) is None
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_float32_predicts_to_the_bit_and_half_within_a_thousandth(study, tmp_path):
    for name, apart in (("float32", 0), ("half", 1e-3)):
        assert predicted(study, study / f"{name}.zip", tmp_path / name, "--set", "val", "test") is None
        for split in (0, 1):
            file = f"pred_split{split}_run1.csv"
            found, expected = (pd.read_csv(folder / file) for folder in (tmp_path / name, study / "results"))
            np.testing.assert_allclose(found.pop("probs"), expected.pop("probs"), rtol=0, atol=apart)
            pd.testing.assert_frame_equal(found, expected)  # overlap and checkpoint_sha256, too
            assert set(found["overlap"]) == {"none", "val"}


def test_ten_half_networks_take_less_than_450_mb(study):
    assert (study / "half.zip").stat().st_size < 2 * 45e6
    tensors = safetensors.torch.load(contents(study / "half.zip")["checkpoint_split0_run1.safetensors"])
    kinds = {name: tensors[name].dtype for name in ("features.7.0.conv1.weight", "fc.0.weight", "fc.0.bias",
                                                    "features.1.running_var")}
    assert list(kinds.values()) == [torch.float16] * 2 + [torch.float32] * 2


def test_zip_holds_what_a_centre_needs_and_says_nothing_of_folders(study):
    found = contents(study / "half.zip")
    assert set(found) == {"README.md", "best_run.csv", "operating_points.json", "reference.json",
                          "checkpoint_split0_run1.safetensors", "checkpoint_split1_run1.safetensors"}
    assert not [name for name, content in found.items() if str(study).encode() in content]
    stored = utils.read_checkpoint(study / "results" / "checkpoint_split0_run1.pth")
    said = model_files.read_settings(study / "half.zip", 0, 1)
    assert said["trained_on"] == stored["trained_on"] and said["auc"] == stored["auc"]
    assert tuple(said["input"]["frame"]) == tuple(stored["input"]["frame"])
    assert said["args"]["data"] == stored["args"]["data"] == "data.csv"
    assert said["export"]["checkpoint_sha256"] == sha256(study / "results" / "checkpoint_split0_run1.pth")
    assert json.loads(found["operating_points.json"]) == json.loads(
        (study / "results" / "operating_points.json").read_text())


def test_reference_of_the_zip_is_that_of_the_folder_and_of_all_its_models(study, tmp_path):
    names = {f"pred_split{k}_run1.csv": sha256(study / "results" / f"checkpoint_split{k}_run1.pth") for k in (0, 1)}
    found = reference.find_reference(study / "half.zip", names)
    assert found == reference.collect(study / "results", names)
    scores = found["scores"]
    table = pd.read_csv(study / "data.csv")
    validated = table[(table[["split0", "split1"]] == "val").any(axis=1)].drop_duplicates("scan_id")
    assert [len(scores[name]) for name in ("negative", "positive")] == validated["target"].value_counts().sort_index(
        ).tolist() and scores["source"] == "validation predictions"
    assert reference.find_reference(study / "half.zip", dict([names.popitem()]))["scores"] is None  # one of the two
    with zipfile.ZipFile(tmp_path / "before.zip", "w") as archive:  # of an earlier version
        archive.writestr("best_run.csv", "split,run\n")
    assert reference.find_reference(tmp_path / "before.zip", names)["results"] is None


def test_model_card_has_the_numbers_of_the_run(study):
    card = contents(study / "half.zip")["README.md"].decode()
    metrics = json.loads((study / "results" / "metrics.json").read_text())
    for name in ("auc", "sensitivity", "brier"):
        assert f"{metrics['avg'][name]['value']:.3f}" in card
    counts = f"{metrics['n_scans']} scans ({metrics['avg']['n_positive']} with Deauville 4-5)"
    assert f"Test set: {counts} of {metrics['n_patients']} patients" in card
    assert "For research use only" in card and "SYNTHETIC" not in card and "--lr 0.01" in card
    stored = utils.read_checkpoint(study / "results" / "checkpoint_split0_run1.pth")["trained_on"]
    n_train, n_val = len(stored["train"]["scan_id"]), len(stored["val"]["scan_id"])
    assert f"| {n_train} | {n_train} | {n_val} | {n_val} |" in card  # one scan a patient


def test_model_card_names_options_that_are_zero():
    """`--recipe fast` without `--augm 0` beside it would say that the images were mirrored."""
    args = {"recipe": "fast", "augm": 0, "wd": 0.0, "balance": False, "oversample": True, "checkpoint": None}
    card = write_card([{"split": 0, "run": 1, "value": 0.9, "args": args}], None, None, "half")
    assert "`--recipe fast --augm 0 --wd 0.0 --oversample True`" in card


@pytest.mark.usefixtures("no_figure")
def test_model_card_names_no_scan_patient_or_reader(tmp_path):
    """The zip goes to other centres; warnings of metrics.json stay."""
    scans = SCANS.assign(patient_id=["Doe^Jane"] * 2 + [f"P{k}" for k in range(6)], months=range(8), event=[0, 1] * 4)
    write(tmp_path, predictions(scans=scans.assign(scan_id="Doe-" + scans["scan_id"])).iloc[:-1])  # a view is missing
    pd.DataFrame({"scan_id": ["Doe-s1", "Roe-s9"], "Ann Reader": [0, 1]}).to_csv(tmp_path / "readers.csv", index=False)
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--resamples", 20, "--survival", "months", "event",
         "months", "--readers", tmp_path / "readers.csv")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    names = ("Doe", "Roe", "Ann Reader")
    assert all(any(name in line for line in metrics["warnings"]) for name in names)
    card = write_card([{"split": 0, "run": 1, "value": 0.5}], metrics, None, "half")
    assert "only 3 patients in one of the classes" in card and not [name for name in names if name in card]


def test_same_models_give_the_same_bytes(study, tmp_path):
    again = exported(study / "results", tmp_path / "again.zip")
    assert again.read_bytes() == (study / "half.zip").read_bytes()
    best = exported(study / "results", tmp_path / "best.zip", "--top", 1)
    ranked = pd.read_csv(study / "results" / "best_run.csv").query("rank == 1")
    assert contents(best)["best_run.csv"].decode() == ranked.to_csv(index=False)


def test_unzipped_folder_is_read_as_the_zip(study, tmp_path):
    shutil.unpack_archive(study / "half.zip", tmp_path / "models")
    for models in (study / "half.zip", tmp_path / "models"):
        predicted(study, models, tmp_path / models.name / "new", "--set", "test") if models.is_dir() else predicted(
            study, models, tmp_path / "new", "--set", "test")
    assert (tmp_path / "new" / "pred_split1_run1.csv").read_bytes() == (
        tmp_path / "models" / "new" / "pred_split1_run1.csv").read_bytes()


def test_thresholds_and_settings_of_the_zip_are_applied(study, tmp_path, capsys, no_figure):
    predicted(study, study / "half.zip", tmp_path, "--set", "test")
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--resamples", 50, "--chptfolder", study / "half.zip",
         "--operating_points", study / "half.zip")
    said = capsys.readouterr().out
    assert "by their files' names alone" not in said and "not checked" not in said
    assert (tmp_path / "operating_points.json").read_bytes() == contents(study / "half.zip")["operating_points.json"]
    page = (tmp_path / "report.html").read_text()
    assert "--cls_arch" in page and "data hash" in page and "--help_all" not in page
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["provenance"]["inputs"]["half.zip"] == sha256(study / "half.zip")
    first = json.loads((study / "results" / "metrics.json").read_text())["avg"]["operating_points"]["youden"]
    assert metrics["avg"]["operating_points"]["youden"]["thresholds"] == first["thresholds"]


def test_heat_maps_of_the_zip(study, tmp_path):
    assert call(explain, "--data", study / "data.csv", "--chptfolder", study / "float32.zip", "--output", tmp_path,
                "--splits", 0, 0, "--scans", "s000", "--no_pointing", *CPU) is None
    settings = json.loads((tmp_path / "binary_split0_run1" / "settings.json").read_text())
    assert settings["checkpoints"] == {"split 0 run 1": sha256(study / "results" / "checkpoint_split0_run1.pth")}


def test_fine_tuning_and_training_start_from_the_zip(study, tmp_path):
    args = search_parser("", "finetuning", 1, 1, finetuning=True).parse_args([])
    start = trials.from_checkpoint(args, prediction.best_runs(study / "float32.zip", [1])[0][0])
    assert start.checkpoint == str(study / "float32.zip" / "checkpoint_split1_run1.safetensors")
    assert (start.cls_arch, start.pool) == ("complex", 2)
    best = exported(study / "results", tmp_path / "best.zip", "--top", 1, "--precision", "float32")
    split = pd.read_csv(study / "results" / "best_run.csv")["split"][0]
    own = utils.load_model(study / "results" / f"checkpoint_split{split}_run1.pth")[0].state_dict()
    model = utils.ResNet34("complex")
    assert utils.load_weights(model, best)[0]["pool"] == 2  # a zip of one model
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match=r"half.zip: holds 2 models; give one, such as .*split0_run1.safetensors"):
        utils.load_weights(model, study / "half.zip")


def test_predicting_with_a_file_of_the_zip(study, tmp_path):
    shutil.unpack_archive(study / "half.zip", tmp_path)
    for k, path in enumerate((tmp_path, study / "half.zip")):
        assert call(predict, "--data", study / "data.csv", "--output", tmp_path / str(k), *CPU, "--checkpoints",
                    path / "checkpoint_split1_run1.safetensors") is None
    assert (tmp_path / "0" / "pred_split1_run1.csv").read_bytes() == (tmp_path / "1" / "pred_split1_run1.csv"
                                                                      ).read_bytes()


def test_predicting_with_a_zip_of_one_model(study, tmp_path):
    """Under its own split, and as of the checkpoint that was exported, so that its thresholds are known."""
    best = pd.read_csv(study / "results" / "best_run.csv").set_index("rank")["split"][1]
    call(predict, "--data", study / "data.csv", "--output", tmp_path, *CPU, "--checkpoints",
         exported(study / "results", tmp_path / "one.zip", "--top", 1))
    rows = pd.read_csv(tmp_path / f"pred_split{best}_run1.csv")
    assert set(rows["checkpoint_sha256"]) == {sha256(study / "results" / f"checkpoint_split{best}_run1.pth")}


def test_site_head_of_the_zip(tmp_path):
    sites = {"1": "cervical", "8": "hilar"}
    model = utils.SiteResNet34(sites, "grid", cls_arch="complex", hidden=16).eval()
    told = {"sites": sites, "site_on": "positive", "site_multi": False, "dropout": 0.2}
    utils.save_checkpoint(tmp_path / "checkpoint_split4_run2.pth", {
        "epoch": 3, "auc": 0.75, "state_dict": model.state_dict(), "model": told, "args": {},
        "input": asdict(NetworkInput((64, 64), (1.5, 2.0)))})
    (tmp_path / "best_run.csv").write_text("split,run,epoch,metric,value,rank\n4,2,3,auc,0.75,1\n")
    path = exported(tmp_path, tmp_path / "sites.zip", "--precision", "float32")
    runs, _ = prediction.find_runs(path, [4])
    assert common_settings(runs) == {name: told[name] for name in ("sites", "site_on", "site_multi")}
    loaded, content = utils.load_model(runs[0]["path"])
    x, boxes = torch.randn(2, 1, 64, 64), torch.tensor([[[0.1, 0.9], [0.2, 0.8]]] * 2)
    assert torch.equal(loaded(x, 0, boxes), model(x, 0, boxes)) and loaded.fc[2].p == 0.2
    assert prediction.find_runs(path, [3, 4], [2]) == (
        [{"split": 4, "run": 2, "path": path / "checkpoint_split4_run2.safetensors"}],
        [f"split 3 run 2: no checkpoint in {path}"])
    there = [{"split": 4, "run": 2, "path": path / "checkpoint_split4_run2.safetensors"}]
    assert prediction.find_runs(path, None, [1, 2]) == (there, [])
    (row,), missing = prediction.find_runs(path)  # of best_run.csv
    assert {name: row[name] for name in there[0]} == there[0] and not missing
    with pytest.raises(InputError, match="holds no checkpoint of runs 7; correct --chptfolder or --run"):
        prediction.find_runs(path, None, [7])


# ---------------------------------------------------------------- what does not fit together

@pytest.mark.parametrize(("name", "find"), [("operating_points.json", export.find_rules),
                                            ("metrics.json", export.find_metrics)])
def test_a_file_that_lists_no_models_is_refused(tmp_path, name, find, capsys):
    assert find(tmp_path, []) is None and f"warning: no {tmp_path / name}: the zip has no " in capsys.readouterr().out
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="of an earlier version; run aggregate.py again, then this"):
        find(tmp_path, [])


def test_thresholds_and_numbers_of_other_models_are_left_out(study, tmp_path, capsys):
    best = exported(study / "results", tmp_path / "best.zip", "--top", 1)
    said = capsys.readouterr().out
    assert "operating_points.json is of other models" in said and "metrics.json is of other models" in said
    assert "operating_points.json" not in contents(best) and "None but 0.5." in contents(best)["README.md"].decode()
    results = shutil.copytree(study / "results", tmp_path / "results")
    (results / "checkpoint_split1_run1.pth").write_bytes((results / "checkpoint_split0_run1.pth").read_bytes())
    other = exported(results, tmp_path / "other.zip")  # trained again, to the same validation AUC
    said = capsys.readouterr().out
    assert "operating_points.json is of other models (pred_split1_run1.csv)" in said
    assert "metrics.json is of other models (pred_split1_run1.csv)" in said
    assert "operating_points.json" not in contents(other)
    (results / "best_run.csv").write_text("split,run,epoch,metric,value,rank\n0,1,1,auc,0.123,1\n")
    with pytest.raises(InputError, match="find_best_model.py --dir"):
        exported(results, tmp_path / "unranked.zip")
    assert not (tmp_path / "unranked.zip").exists()


@pytest.mark.usefixtures("no_figure")
def test_numbers_of_the_networks_of_before_are_not_those_of_todays(tmp_path, capsys):
    """Trained and predicted again, but not measured again: the files' names are the same."""
    file, before, now = "pred_split0_run1.csv", "a" * 64, "b" * 64
    write(tmp_path, predictions(checkpoint_sha256=before))
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--resamples", 20)
    assert reference.collect(tmp_path, {file: before})["results"]["auc"]
    write(tmp_path, predictions(1, checkpoint_sha256=now))
    models = [{"split": 0, "run": 1, "export": {"checkpoint_sha256": now}}]
    assert reference.collect(tmp_path, {file: now})["results"] is None
    assert export.find_metrics(tmp_path, models) is None
    assert f"metrics.json is of other models ({file}) and was left out; run" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics.pop("checkpoints") == {file: before}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))  # of an earlier version
    assert reference.collect(tmp_path, {file: now})["results"] is None
    with pytest.raises(InputError, match="metrics.json: .* of an earlier version; run aggregate.py again, then this"):
        export.find_metrics(tmp_path, models)
    write(tmp_path, predictions())  # do not say of which checkpoint they are
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--resamples", 20)
    assert export.find_metrics(tmp_path, models) is None


def test_what_cannot_be_exported_is_refused(study, tmp_path):
    with pytest.raises(InputError, match="best_run.csv: missing; find_best_model.py --dir"):
        exported(tmp_path, tmp_path / "x.zip")
    with pytest.raises(InputError, match="--top 3: .*best_run.csv ranks 2"):
        exported(study / "results", tmp_path / "x.zip", "--top", 3)
    with pytest.raises(InputError, match="fc.weight has values beyond half precision"):
        export.as_half({"fc.weight": torch.full((2, 2), 1e5)}, tmp_path)
    torch.save({"epoch": 1, "state_dict": {}, "auc": 0.5}, tmp_path / "checkpoint_split0_run1.pth")
    (tmp_path / "best_run.csv").write_text("split,run,epoch,metric,value,rank\n0,1,1,auc,0.5,1\n")
    with pytest.raises(InputError, match="stores no network input"):
        exported(tmp_path, tmp_path / "x.zip")
    before = (study / "results" / "best_run.csv").read_bytes()
    for name in ("models", "best_run.csv"):  # no script would take the one, and the other is lost
        with pytest.raises(InputError, match=f"{name}: must end in .zip"):
            exported(study / "results", study / "results" / name)
    assert (study / "results" / "best_run.csv").read_bytes() == before and not (study / "results" / "models").exists()


def test_folders_go_from_arguments_whatever_the_system():
    assert base_names({"data": "/home/a b/data.csv", "given": {"images": "C:\\Users\\me\\mips\\"}, "lr": 0.1,
                              "run": [1], "weights": "imagenet", "checkpoint": None}) == {
        "data": "data.csv", "given": {"images": "mips"}, "lr": 0.1, "run": [1], "weights": "imagenet",
        "checkpoint": None}


# ---------------------------------------------------------------- zips that are not what they say

def test_damaged_and_foreign_zips_are_refused(study, tmp_path, monkeypatch):
    whole = (study / "half.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "text.zip").write_text("no zip")
    changed = bytearray(whole)
    changed[len(whole) // 3] ^= 255
    (tmp_path / "changed.zip").write_bytes(changed)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("../best_run.csv", "split,run,epoch,metric,value,rank\n0,1,1,auc,0.5,1\n")
    for name, message in (("cut", "not a zip"), ("text", "not a zip"), ("changed", "CRC-32"), ("other", "missing")):
        done = run("predict.py", "--data", study / "data.csv", "--chptfolder", tmp_path / f"{name}.zip", "--output",
                   tmp_path, *SPLITS, *CPU)
        assert message in error_line(done) and f"{name}.zip" in error_line(done)
    monkeypatch.setitem(model_files.MOST_BYTES, ".safetensors", 10**6)
    with pytest.raises(InputError, match="more than the 1000000 that such a file may have"):
        utils.load_model(study / "half.zip" / "checkpoint_split0_run1.safetensors")


def test_size_that_a_zip_declares_is_all_that_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best_run.csv", b"0" * (model_files.MOST_TEXT + 1))
    assert (tmp_path / "bomb.zip").stat().st_size < 10**6
    with pytest.raises(InputError, match=f"{model_files.MOST_TEXT + 1} bytes, more than"):
        model_files.read_file(tmp_path / "bomb.zip" / "best_run.csv")


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x10\0\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0{}"]))
def test_any_header_is_read_or_refused_in_one_line(tmp_path_factory, data, start):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(start + data)
    for read in (model_files.read_header, utils.read_checkpoint):
        try:
            assert isinstance(read(path), dict)
        except InputError as error:
            assert "any.safetensors: " in str(error) and "\n" not in str(error)
