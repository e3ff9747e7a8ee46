"""Scans that a model was trained on are found, whatever the manifest says of them now: predict.py and aggregate.py."""
import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, run, write_cohort
from prediction_helpers import predictions, write
from training_helpers import SMALL

import aggregate
import compare
import export_models
import find_best_model
import optun
import optuna_finetuning
import predict
import train
import train_loca
import utils
from common.digests import BY_IMAGE, NONE, NOT_CHECKED, overlap
from common.files import InputError, sha256
from common.manifest import LEAKED
from evaluation.overlap import count_scans

pytestmark = pytest.mark.usefixtures("shallow", "no_figure")

CPU = ("--device", "cpu", "--amp", "off", "--threads", 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cohort, and one epoch of two splits' networks on it."""
    folder = tmp_path_factory.mktemp("trained")
    table = write_cohort(folder, 24)
    table["patient_id"], table["split1"] = table["scan_id"].str.replace("s", "p"), table["split0"]
    table.to_csv(folder / "data.csv", index=False)
    run("train.py", "--output", "results", *SMALL, "--nepochs", 1, "--split_index", 0, 1, "--run", 1, cwd=folder,
        check=0)
    call(find_best_model, "--dir", folder / "results")
    return folder


@pytest.fixture
def study(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "study")


def manifest(folder):
    return pd.read_csv(folder / "data.csv", dtype=str, keep_default_na=False)


def predicted(folder, *arguments, data="data.csv", output="results", splits=(0, 1)):
    return call(predict, "--data", folder / data, "--images", folder, "--chptfolder", folder / "results", "--output",
                folder / output, "--splits", *splits, "--no_features", *CPU, *arguments)


def aggregated(folder, *arguments, output="results"):
    call(aggregate, "--dir", folder / output, "--output", folder / output, "--resamples", 50, *arguments)
    return json.loads((folder / output / "metrics.json").read_text())


def test_scans_count_by_the_worst_that_a_model_says():
    values = pd.Series([NONE, "val", "train", NONE, NONE], ["a", "a", "b", "b", "c"])
    assert count_scans(values) == {"scans": {"train": 1, "val": 1, NONE: 1}, "text": (
        "1 trained on, 1 validated on; compared: 1 scan by identifiers and images")}
    assert count_scans(values[:3])["text"] == "1 trained on, 1 validated on"
    assert count_scans(values[:1].replace(NONE, NOT_CHECKED))["text"] == "not checked"


def test_a_checkpoint_knows_its_scans_and_tells_none_of_them(trained):
    content = utils.read_checkpoint(trained / "results" / "checkpoint_split0_run1.pth")
    table = manifest(trained)
    assert [len(content["trained_on"][name]["scan_id"]) for name in ("train", "val")] == [
        table["scan_id"][table["split0"] == name].nunique() for name in ("train", "val")]
    settings = json.loads((trained / "results" / "settings_split0_run1.json").read_text())
    assert settings["trained_on"] == content["trained_on"]
    known = overlap(table.assign(image_sha256=""), content["trained_on"])
    assert ((known == "train") == (table["split0"] == "train")).all()
    assert ((known == "val") == (table["split0"] == "val")).all()


def test_the_splits_of_the_training_are_predicted_and_measured(study, capsys):
    predicted(study, "--set", "val", "test")
    table = pd.read_csv(study / "results" / "pred_split0_run1.csv")
    assert (table["overlap"] == table["set"].map({"val": "val", "test": NONE})).all()
    assert "could not be compared" not in capsys.readouterr().out
    metrics = aggregated(study, "--data", study / "data.csv")
    assert metrics["overlap"] == {"scans": {NONE: metrics["n_scans"]}, "optimistic": None,
                                  "text": f"none; compared: {metrics['n_scans']} scans by identifiers and images"}
    assert "validation, or whose patients are: none; compared" in (study / "results" / "report.html").read_text()


def split_again(folder, name):
    """again.csv: four of split 0's training scans are in set `name`, of which four are trained on."""
    table = manifest(folder)
    for before, after in (("train", name), (name, "train")):
        scans = manifest(folder).query(f"split0 == '{before}'")["scan_id"].unique()[:4]
        table.loc[table["scan_id"].isin(scans), "split0"] = after
    table.to_csv(folder / "again.csv", index=False)


def tuned(folder, *words, script=train):
    small = SMALL if script is not optuna_finetuning else CPU
    return call(script, "--data", folder / "again.csv", "--output", folder / "tuned", *small, "--nepochs", 1, *words)


@pytest.mark.parametrize("words", [("--transfer_learning", "--checkpoint"), ("--weights",)])
def test_a_network_was_trained_on_what_its_start_was_trained_on(study, words):
    split_again(study, "test")
    tuned(study, *words, study / "results" / "checkpoint_split0_run1.pth")
    call(find_best_model, "--dir", study / "tuned")
    with pytest.raises(InputError, match=r"tuned.*: was trained on 4 scans \(.* split0 test, or on their patients"):
        predicted(study, "--chptfolder", study / "tuned", data="again.csv", splits=(0, 0))


def test_a_start_that_was_trained_on_validation_scans_is_refused(study, capsys):
    split_again(study, "val")
    start = "--checkpoint", study / "results" / "checkpoint_split0_run1.pth"
    said = r"checkpoint_split0_run1.pth: was trained on 4 scans \(.*\) of split0 val, or on their patients; start from"
    for script, words in ((train, ()), (optun, ("--splits", 0, 0)),
                          (optuna_finetuning, ("--splits", 0, 0, "--chptfolder", study / "results"))):
        given = start if script is not optuna_finetuning else ()
        with pytest.raises(InputError, match=said):
            tuned(study, *given, *words, script=script)
    tuned(study, *start, "--allow_leakage")
    assert "warning: LEAKAGE: " in capsys.readouterr().out
    content = utils.read_checkpoint(study / "tuned" / "checkpoint_split0_run1.pth")
    assert "of split0 val, or on their patients" in content["leakage"]


@pytest.mark.parametrize(("disguise", "said"), [
    ({}, "was trained on"),
    ({"patient_id": "scan_id"}, "was trained on"),  # the scan alone
    ({"id_key": "other"}, "was trained on"),  # by the image
])
def test_predicting_after_splitting_again_is_refused(study, disguise, said):
    run("make_splits.py", "--n_splits", 2, "--seed", 5, "--test", 0.4, "--overwrite", cwd=study, check=0)
    table = pd.read_csv(study / "data_resplit.csv", dtype=str)
    for column, value in disguise.items():
        table[column] = table.get(value, value)
    table.to_csv(study / "data_resplit.csv", index=False)
    wrong = manifest(study).merge(table[["filename", "split0"]], on="filename")
    wrong = wrong[(wrong["split0_x"] == "train") & (wrong["split0_y"] == "test")]["scan_id"].nunique()
    assert wrong > 0
    with pytest.raises(InputError, match=f"{said} {wrong} scans? .* split0 test, or on their patients"):
        predicted(study, "--set", "test", data="data_resplit.csv")
    assert not list((study / "results").glob("pred_*"))


def test_all_scans_are_predicted_and_marked(study, capsys):
    predicted(study, "--set", "all")
    counts = manifest(study).drop_duplicates("scan_id")["split0"].value_counts()
    out = capsys.readouterr().out
    assert f"warning: checkpoint_split0_run1.pth was trained on {counts['train']} scans (" in out
    assert f"warning: checkpoint_split1_run1.pth was validated on {counts['val']} scans (" in out
    metrics = aggregated(study)
    assert metrics["optimistic"] == (f"OPTIMISTIC: {counts['train'] + counts['val']} of {counts.sum()} scans, or their "
                                     "patients, were trained or validated on by a model")
    assert (pd.read_csv(study / "results" / "ensemble_avg.csv")["notice"] == metrics["optimistic"]).all()


def test_patients_under_another_key_are_not_compared_and_it_says_so(study, capsys):
    table = manifest(study).assign(id_key="ab12cd34")
    table["filename"] = table["filename"].str.replace("images/", "images/x")
    for before, after in zip(manifest(study)["filename"], table["filename"], strict=True):
        np.fromfile(study / before, "<f4")[::-1].tofile(study / after)  # other images
    table.to_csv(study / "far.csv", index=False)
    predicted(study, "--set", "all", data="far.csv", output="far")
    assert "patients could not be compared: other key" in capsys.readouterr().out
    metrics = aggregated(study, output="far")
    assert list(metrics["overlap"]["scans"]) == [BY_IMAGE] and not metrics["optimistic"]
    assert any("the patients could not be compared, their identifiers are of another key" in line
               for line in metrics["warnings"])


def test_checkpoints_without_digests_are_not_checked_and_it_says_so(study, capsys):
    for split in (0, 1):
        path = study / "results" / f"checkpoint_split{split}_run1.pth"
        content = utils.read_checkpoint(path)
        del content["trained_on"]
        torch.save(content, path)
        (study / "results" / f"settings_split{split}_run1.json").unlink()
    predicted(study)
    assert capsys.readouterr().out.count("they started from, hold no digests") == 1
    metrics = aggregated(study)
    assert metrics["overlap"]["text"] == "not checked" and list(metrics["overlap"]["scans"]) == [NOT_CHECKED]
    assert "overlap with the models' training: not checked" in metrics["warnings"]
    assert "or whose patients are: not checked" in (study / "results" / "report.html").read_text()


@pytest.mark.parametrize("option", ["--checkpoint", "--weights"])
def test_a_start_without_digests_leaves_its_networks_not_checked(study, option):
    split_again(study, "test")
    start = study / "results" / "checkpoint_split1_run1.pth"
    content = utils.read_checkpoint(start)
    torch.save({name: value for name, value in content.items() if name != "trained_on"}, start)
    tuned(study, option, start)
    known = utils.read_checkpoint(study / "tuned" / "checkpoint_split0_run1.pth")["trained_on"]
    table = pd.read_csv(study / "again.csv", dtype=str, keep_default_na=False)
    assert {*overlap(table[table["split0"] == "test"], known)} == {NOT_CHECKED}
    assert {*overlap(table[table["split0"] == "train"], known)} == {"train"}


# ---------------------------------------------------------------- aggregate.py alone

def test_sets_are_compared_with_the_manifest(study):
    predicted(study, "--set", "val", "test")
    table = manifest(study)
    table.loc[table["split1"] == "test", "split1"] = "cal"
    table.to_csv(study / "other.csv", index=False)
    n = table["scan_id"][table["split1"] == "cal"].nunique()
    with pytest.raises(InputError, match=f"pred_split1_run1.csv: of its set test {n} scans are cal in .*other.csv"):
        aggregated(study, "--data", study / "other.csv")
    table[table["split0"] != "val"].to_csv(study / "other.csv", index=False)
    with pytest.raises(InputError, match="of its set val .* missing in"):
        aggregated(study, "--data", study / "other.csv")


def test_values_and_images_are_compared_with_the_manifest(study, capsys):
    predicted(study, "--set", "val", "test")
    table = manifest(study).assign(sex="M")
    scans, test = table["scan_id"], (table["split0"] == "test").to_numpy()
    few = scans.isin(scans[test].unique()[:2])
    table["image_sha256"] = [sha256(study / name) for name in table["filename"]]
    for column, value in (("target", 1 - table["target"].astype(int)), ("patient_id", table["patient_id"] + "b")):
        table.assign(**{column: table[column].mask(few, value)}).to_csv(study / "other.csv", index=False)
        with pytest.raises(InputError, match=rf"run1.csv: {column} of 2 scans is not what .*other.csv has \(.*again"):
            aggregated(study, "--data", study / "other.csv")
    for path in (study / "results").glob("pred_*"):
        pd.read_csv(path).assign(sex="M", age="63").to_csv(path, index=False)
    table.assign(sex=table["sex"].mask(few, ""), age="63.0").to_csv(study / "other.csv", index=False)
    aggregated(study, "--data", study / "other.csv", "--by", "age")
    assert "predict.py again" not in capsys.readouterr().out
    with pytest.raises(InputError, match="pred_split0_run1.csv: sex of 2 scans is not what"):
        aggregated(study, "--data", study / "other.csv", "--by", "sex")
    more = table[test][:2].assign(scan_id="new", patient_id="new", filename=["new_cor", "new_sag"], image_sha256="")
    others = table.assign(image_sha256=table["image_sha256"].mask(few, "0" + table["image_sha256"].str[1:]))
    pd.concat([others, more]).to_csv(study / "other.csv", index=False)
    said = "\n".join(aggregated(study, "--data", study / "other.csv")["warnings"])
    assert "1 scan of " in said and "not predicted by every model: added since? run predict.py again: new" in said
    assert "2 scans of " in said and "have another image_sha256 than was predicted: made anew since? run" in said


def test_files_of_before_are_checked_by_the_settings_beside_the_checkpoints(study):
    predicted(study, "--set", "val", "test")
    path = study / "results" / "pred_split0_run1.csv"
    table = pd.read_csv(path).drop(columns=["overlap", "image_sha256", "checkpoint_sha256"])
    table.to_csv(path, index=False)
    assert aggregated(study)["overlap"]["scans"] == {"none by id": table[table["set"] == "test"]["scan_id"].nunique()}
    first = manifest(study).query("split0 == 'train'")["scan_id"].iloc[0]
    table.loc[table["set"] == "test", "scan_id"] = table.loc[table["set"] == "test", "scan_id"].replace(
        table.loc[table["set"] == "test", "scan_id"].iloc[0], first)
    table.drop(columns="patient_id").to_csv(path, index=False)
    (study / "results" / "pred_split1_run1.csv").unlink()
    with pytest.raises(InputError, match=rf"its model was trained on 1 scan \({first}\) of set test"):
        aggregated(study)


def test_the_worst_of_the_models_counts(tmp_path):
    write(tmp_path, predictions(overlap=NONE), predictions(1, overlap=NOT_CHECKED))
    metrics = aggregated(tmp_path, output=".")
    assert metrics["overlap"]["scans"] == {NOT_CHECKED: 8}
    write(tmp_path, predictions(overlap=NONE), predictions(1, overlap="val"))
    with pytest.raises(InputError, match="validated on 8 scans"):
        aggregated(tmp_path, output=".")


# ---------------------------------------------------------------- what lies in a folder

def test_predictions_of_another_manifest_are_not_mixed(study):
    predicted(study, "--set", "test")
    table = manifest(study)
    test = table["scan_id"][table["split0"] == "test"].iloc[0]
    table[table["scan_id"] != test].to_csv(study / "fewer.csv", index=False)
    with pytest.raises(InputError, match=rf"pred_split1_run1.csv: was predicted with another manifest: 1 scan of set "
                                         rf"test not so in .*fewer.csv \({test}\)"):
        predicted(study, "--set", "test", data="fewer.csv", splits=(0, 0))
    predicted(study, "--set", "test", data="fewer.csv")  # both are replaced
    predicted(study, "--set", "test", splits=(0, 0))  # has these scans, and one more


def test_predictions_of_a_changed_checkpoint_are_not_mixed(study):
    predicted(study, "--set", "test")
    path = study / "results" / "checkpoint_split1_run1.pth"
    content = utils.read_checkpoint(path)
    next(iter(content["state_dict"].values())).add_(1)
    torch.save(content, path)
    with pytest.raises(InputError, match="pred_split1_run1.csv: was predicted by another checkpoint than .*: predict "
                                         "split 1 run 1, too"):
        predicted(study, "--set", "test", splits=(0, 0))
    predicted(study, "--set", "test")
    predicted(study, "--set", "test", splits=(0, 0))


def test_predictions_of_a_network_that_was_trained_again_are_refused(tmp_path):
    path = tmp_path / "checkpoint_split1_run1.pth"
    path.write_bytes(b"first")
    write(tmp_path, predictions(overlap=NONE, checkpoint_sha256="f" * 64),  # its own is not there
          predictions(1, overlap=NONE, checkpoint_sha256=sha256(path)))
    assert aggregated(tmp_path, output=".")["avg"]["n"] == 8
    path.write_bytes(b"second")
    with pytest.raises(InputError, match=r"pred_split1_run1.csv: is of another checkpoint than lies in .*: run "
                                         "predict.py again"):
        aggregated(tmp_path, output=".")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / path.name).write_bytes(b"first")
    aggregated(tmp_path, "--chptfolder", tmp_path / "own", output=".")


def test_another_cohort_is_compared_with_the_checkpoints_where_the_first_does_not_say_which(tmp_path):
    (tmp_path / "checkpoint_split0_run1.pth").write_bytes(b"now")
    write(tmp_path, predictions())
    write(tmp_path / "north", predictions(checkpoint_sha256="f" * 64, id_key="other"))
    with pytest.raises(InputError, match="north/pred_split0_run1.csv: is of another checkpoint than lies in"):
        aggregated(tmp_path, "--cohort", f"n={tmp_path / 'north'}", output=".")


# ---------------------------------------------------------------- what is in two sets

def trained_again(folder, script, *arguments):
    return call(script, "--data", folder / "data.csv", "--output", folder / "results", *SMALL, "--nepochs", 1,
                *arguments)


def test_a_finished_run_is_not_one_of_other_labels_sets_or_kind(study):
    assert trained_again(study, train) is None  # left alone
    table = manifest(study)
    table.assign(target=1 - table["target"].astype(int)).to_csv(study / "data.csv", index=False)
    with pytest.raises(InputError, match="checkpoint_split0_run1.pth exists, trained on other scans, labels or sets"):
        trained_again(study, train)
    table.sample(frac=1, random_state=0).to_csv(study / "data.csv", index=False)
    assert trained_again(study, train) is None  # the order of rows is none of its content
    table.assign(target_loc=51).to_csv(study / "data.csv", index=False)
    with pytest.raises(InputError, match="checkpoint_split0_run1.pth exists, a network of train.py: give another"):
        trained_again(study, train_loca)
    (study / "data.csv").unlink()
    with pytest.raises(InputError, match="data.csv: no such file"):
        trained_again(study, train)


def leak(folder):
    """A test scan's patient becomes that of a training scan."""
    table = manifest(folder).set_index("scan_id", drop=False)
    (test, trained) = (table[table["split0"] == name].iloc[0] for name in ("test", "train"))
    table.loc[test["scan_id"], "patient_id"] = trained["patient_id"]
    table.to_csv(folder / "data.csv", index=False)


def test_what_leaks_is_refused_with_its_rows_or_marks_everything(study, capsys):
    leak(study)
    for script in (lambda *more: trained_again(study, train, "--overwrite", *more),
                   lambda *more: predicted(study, "--set", "val", "test", *more)):
        with pytest.raises(InputError, match="patient_id p0.. is in test and train of split0 .test: rows 2, 3; train: "
                                             "rows .*; scripts with --allow_leakage go on, and mark what they make"):
            script()
        script("--allow_leakage")
        assert "warning: LEAKAGE: " in capsys.readouterr().out
        call(find_best_model, "--dir", study / "results")
    content = utils.read_checkpoint(study / "results" / "checkpoint_split0_run1.pth")
    assert "is in test and train of split0" in content["leakage"]
    assert pd.read_csv(study / "results" / "pred_split0_run1.csv")["leakage"].str.contains("test and train").all()
    metrics = aggregated(study, "--data", study / "data.csv")
    assert metrics["optimistic"].startswith("LEAKAGE: ") and "is in test and train" in metrics["overlap"]["leakage"]
    assert "LEAKAGE: " in (study / "results" / "report.html").read_text()
    assert pd.read_csv(study / "results" / "ensemble_avg.csv")["notice"].str.contains("LEAKAGE").all()
    call(compare, *(study / "results" / f"ensemble_{name}.csv" for name in ("avg", "max")), "--output",
         study / "results", "--resamples", 20)
    assert "LEAKAGE" in (study / "results" / "compare.html").read_text()
    call(export_models, "--dir", study / "results", "--output", study / "models.zip")
    with zipfile.ZipFile(study / "models.zip") as archive:
        texts = {name: archive.read(name).decode("latin-1") for name in archive.namelist()}
    assert not [name for name, text in texts.items() if "in test and train" in text]  # whose name stands there
    assert f"LEAKAGE: {LEAKED}" in texts["README.md"] and LEAKED in texts["checkpoint_split0_run1.safetensors"]
    assert f"LEAKAGE: {LEAKED}" in texts["reference.json"]


def test_columns_of_prediction_files_in_the_manifest_are_left_out(study, capsys):
    predicted(study, output="plain")
    capsys.readouterr()
    own = dict.fromkeys(("set", "probs", "overlap", "checkpoint_sha256", "F1", "pred_loc"), "x")
    manifest(study).assign(**own).to_csv(study / "own.csv", index=False)
    predicted(study, data="own.csv", output="own")
    assert ("own.csv: set, probs, overlap, checkpoint_sha256, F1 and 1 more left out: names that prediction "
            "files keep for columns of their own") in capsys.readouterr().out
    for name in ("pred_split0_run1.csv", "pred_split1_run1.csv"):
        assert (study / "own" / name).read_bytes() == (study / "plain" / name).read_bytes()


def test_images_that_are_read_are_compared_where_the_manifest_has_no_digests(study, capsys):
    table = manifest(study)
    names = [table["filename"][table["split0"] == name].iloc[0] for name in ("train", "val")]
    shutil.copy(study / names[0], study / names[1])
    sizes = table.set_index("filename").loc[names[0], ["matrix_size_1", "matrix_size_2"]]
    table.loc[table["filename"] == names[1], list(sizes.index)] = list(sizes)
    table.to_csv(study / "data.csv", index=False)
    with pytest.raises(InputError, match="of split0 have the same image, .*--allow_leakage"):
        trained_again(study, train, "--overwrite", "--split_index", 0)
    assert "lacks image_sha256: whether an image is in two sets was looked for among the" in capsys.readouterr().out
