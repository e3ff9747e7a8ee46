"""The whole chain as a user runs it: the commands of README and docs, each a process of its own, on a tiny cohort."""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, error_line, run
from docs_helpers import PAGES, commands
from pet import REAL, needs_real_series

import utils

OF_LARS = "epoch", "state_dict", "optimizer", "lr_scheduler", "early_stopping", "auc"
TRAINING = "--weights none --image_size auto --pool 6 --nepochs 1 --batch_size 16 --threads 1"
SMALLER = {  # what makes a command of the documentation quick, added at its end, where it wins
    "prepro_script": "--workers 1", "make_splits": "--n_splits 3 --test 0.25 --val 0.25",
    "train": f"{TRAINING} --split_index 0 1", "train_loca": f"{TRAINING} --split_index 0", "explain": "--max_scans 1",
    "score": "--workers 1 --threads 1",
    "optun": f"{TRAINING} --splits 0-1 --trials 1",
    "optuna_finetuning": "--nepochs 1 --batch_size 16 --threads 1 --splits 0-1 --trials 1",
    "aggregate": "--resamples 200", "compare": "--resamples 200"}


GUIDES = ("comparing", "training_and_resuming", "fine_tuning", "lars_weights", "sharing_models", "searching",
          "lesion_sites", "heat_maps", "reading_room")
NOT_RUN = {  # pages whose commands no test runs as written, and why
    "several_machines": "a PostgreSQL server: tests/test_search_postgres.py",
    "scripts": "the scripts' docstrings, each command of which stands in a guide or is checked by its parser",
    "recipes": "real MIPs, and hours: tests/test_recipes.py", "speed": "minutes a table: tests/test_benchmark.py"}


def without_network(folder):
    """The environment of a script that may reach no network; folder/network.txt will say what it asked for."""
    return {"PYTHONPATH": str(ROOT / "tests" / "no_network"), "NO_NETWORK": str(folder / "network.txt")}


def run_commands(page, folder):
    """Run the commands of a page in `folder` -> {script: what it printed last}; 1 (listed items failed) is success."""
    printed = {}
    for script, words in commands((ROOT / page).read_text().replace("--top 10", "--top 2")):
        smaller = "" if {"--cv", "--group"} & set(words) else SMALLER.get(script, "")
        smaller += " --calibration 0.2" * ("--calibration" in words)
        real = page == "README.md"  # the others are forked, which is quicker
        done = run(f"{script}.py", *words, *smaller.split(), cwd=folder, env=without_network(folder) if real else None)
        assert done.returncode in (0, 1), f"{script}.py {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        printed[script] = done.stdout
    return printed


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Fourteen patients through the seven steps of the README, two of three splits trained for one epoch."""
    folder = tmp_path_factory.mktemp("chain")
    run("phantom.py", "--output", "DICOM_ROOT", "--patients", 14, "--seed", 3, "--workers", 1, cwd=folder, check=0)
    shutil.copy(folder / "DICOM_ROOT" / "labels.csv", folder)
    shutil.copytree(next((folder / "DICOM_ROOT").glob("*/study1")), folder / "NEW_DICOM")
    (folder / "hash_key.txt").write_text("6" * 64 + "\n")  # the same scan_id, and so the same splits, every time
    (folder / "hash_key.txt").chmod(0o600)
    printed = run_commands("README.md", folder)
    assert list(printed) == ["prepro_script", "make_splits", "train", "find_best_model", "predict",
                             "aggregate", "compare", "score"]
    (folder / "printed.json").write_text(json.dumps(printed))
    return folder


def test_manifest_matches_labels_and_images(chain):
    table, labels = pd.read_csv(chain / "mips" / "data_resplit.csv"), pd.read_csv(chain / "labels.csv")
    assert len(table) == 2 * len(labels) and table["scan_id"].nunique() == len(labels)
    assert not (set(table["scan_id"]) & set(labels["StudyInstanceUID"])), "scan_id is hashed"
    scans = table.drop_duplicates("scan_id")
    assert scans["target"].sum() == labels["target"].sum() == (labels["deauville"] >= 4).sum()
    assert (table["synthetic"] == 1).all() and (table["spacing_mm"] == 3.27).all()
    for row in table.itertuples():
        content = (chain / "mips" / row.filename).read_bytes()
        assert len(content) == 4 * row.matrix_size_1 * row.matrix_size_2
        assert hashlib.sha256(content).hexdigest() == row.image_sha256
    errors = chain / "mips" / "errors.csv"
    assert not errors.exists() or pd.read_csv(errors).empty


def test_only_splits_that_were_asked_for_are_missed(chain):
    printed = json.loads((chain / "printed.json").read_text())["predict"]
    assert "no model" not in printed and "split 0 run 1: " in printed
    asked = run("predict.py", "--data", "mips/data_resplit.csv", "--chptfolder", "results", "--output", "asked",
                "--splits", "0-2", cwd=chain, check=1)
    assert "split 2: no model in results/best_run.csv" in asked.stdout
    assert "trained on a SYNTHETIC" not in printed, "the cohort is marked as such itself"


def test_synthetic_is_said_first_and_carried_through(chain):
    printed = json.loads((chain / "printed.json").read_text())
    for script in ("train", "predict"):
        assert printed[script].startswith("manifest: mips/data_resplit.csv, SYNTHETIC; splits: "), printed[script]
    results = chain / "results"
    for name in ("ensemble_avg.csv", "ensemble_max.csv", "disagreement.csv"):
        assert (pd.read_csv(results / name)["synthetic"] == 1).all()
    assert pd.read_csv(results / "compare.csv")["notice"].str.contains("SYNTHETIC").all()
    for name in ("compare.json", "compare.html"):
        assert "SYNTHETIC" in (results / name).read_text()


def test_ensemble_is_the_mean_of_the_models_over_views(chain):
    models = [pd.read_csv(chain / "results" / f"pred_split{s}_run1.csv") for s in (0, 1)]
    for name, over_views in (("avg", "mean"), ("max", "max")):
        ensemble = pd.read_csv(chain / "results" / f"ensemble_{name}.csv").set_index("scan_id")
        expected = sum(m[m["set"] == "test"].groupby("scan_id")["probs"].agg(over_views) for m in models) / 2
        np.testing.assert_allclose(ensemble["ensemble_prob"], expected.loc[ensemble.index], rtol=1e-12)
        assert (ensemble["pred_label"] == (ensemble["ensemble_prob"] >= 0.5)).all()
        metrics = json.loads((chain / "results" / "metrics.json").read_text())[name]
        predicted, target = ensemble["pred_label"], ensemble["target"]
        assert metrics["accuracy"]["value"] == pytest.approx((predicted == target).mean())
        assert metrics["sensitivity"]["value"] == pytest.approx(predicted[target == 1].mean())
        assert metrics["specificity"]["value"] == pytest.approx((1 - predicted[target == 0]).mean())
        assert metrics["auc"]["ci_low"] <= metrics["auc"]["value"] <= metrics["auc"]["ci_high"]


def test_output_says_synthetic_and_where_the_figures_are(chain):
    printed = json.loads((chain / "printed.json").read_text())["aggregate"]
    assert "SYNTHETIC" in printed and "LARS-avg" in printed and "report.html" in printed
    assert (chain / "results" / "roc.png").read_bytes()[:4] == b"\x89PNG"
    assert "SYNTHETIC" in (chain / "results" / "roc.svg").read_text()


def test_report_tells_thresholds_settings_and_cohort(chain):
    metrics = json.loads((chain / "results" / "metrics.json").read_text())
    table = pd.read_csv(chain / "mips" / "data_resplit.csv").drop_duplicates("scan_id")
    about = metrics["validation"]
    assert about["source"] == "calibration set" and about["n_scans"] == (table["split0"] == "cal").sum() >= 2
    assert metrics["independent_unit"] == "patient" and set(metrics["views"]) == {"cor", "sag"}
    page = (chain / "results" / "report.html").read_text()
    for text in ("SYNTHETIC", "Youden", "The same for all 2 models", "--pool", "data hash", "data_resplit.csv"):
        assert text in page, text
    printed = json.loads((chain / "printed.json").read_text())["compare"]
    assert "AUC, DeLong" in printed and (chain / "results" / "compare.html").exists()


def test_new_patients_get_a_probability_per_view_and_scan(chain):
    printed = run_commands("docs/how_to/new_patients.md", chain)
    assert "target" not in pd.read_csv(chain / "new" / "data.csv")
    assert printed["predict"].startswith("manifest: new/data.csv, SYNTHETIC")  # by its DICOM files
    views = pd.read_csv(chain / "new" / "pred_split0_run1.csv")
    ensemble = pd.read_csv(chain / "new" / "ensemble_avg.csv")
    scored = pd.read_csv(chain / "scored" / "scores.csv")
    for column in ("scan_id", "ensemble_prob", "pred_label", "pred_youden"):
        assert scored[column].tolist() == ensemble[column].tolist(), column
    assert "OPTIMISTIC" in scored["warnings"][0] or (table := pd.read_csv(chain / "mips" / "data_resplit.csv").query(
        f"scan_id == '{scored['scan_id'][0]}'"))["split0"].iloc[0] in ("test", "cal"), table
    assert "SYNTHETIC" in (chain / "scored" / "score.html").read_text() and "<svg" in (
        chain / "scored" / "score.html").read_text()
    assert len(list((chain / "scored" / "dicom").iterdir())) == 2 and "SYNTHETIC" in printed["score"]
    assert set(views["view"]) == {"cor", "sag"} and len(ensemble) == 1
    assert 0 <= ensemble["ensemble_prob"][0] <= 1 and not (chain / "new" / "metrics.json").exists()


def test_another_centre_is_measured_beside_the_first(chain):
    run("phantom.py", "--output", "NORTH_DICOM", "--patients", 6, "--seed", 11, "--workers", 1, cwd=chain, check=0)
    shutil.copy(chain / "NORTH_DICOM" / "labels.csv", chain / "north.csv")
    run_commands("docs/how_to/other_centres.md", chain)
    metrics = json.loads((chain / "centres" / "metrics.json").read_text())
    assert list(metrics["cohorts"]) == ["internal", "north"] and metrics["primary"]["metric"] == "auc"
    assert metrics["cohorts"]["north"]["overlap"].startswith("none; compared: ")
    assert metrics["cohorts"]["north"]["n_scans"] == len(pd.read_csv(chain / "north.csv"))


@needs_real_series
def test_the_real_series_is_predicted(chain):
    run("prepro_script.py", "--input", REAL, "--output", "real", "--workers", 1, cwd=chain, check=0)
    run("predict.py", "--data", "real/data.csv", "--set", "all", "--splits", 0, 1, "--output", "real",
        cwd=chain, check=0)
    assert pd.read_csv(chain / "real" / "pred_split1_run1.csv")["probs"].between(0, 1).sum() == 2


def test_prediction_without_best_run(chain):
    assert "find_best_model.py --dir DICOM_ROOT writes it" in error_line(
        run("predict.py", "--data", "mips/data_resplit.csv", "--chptfolder", "DICOM_ROOT", cwd=chain))


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_commands_of_the_guides_run(chain, page):
    """With data.csv and images where `make demo-data` puts them, and checkpoints with the contents of LARS's."""
    if not (chain / "data.csv").exists():
        shutil.copy(chain / "mips" / "data_resplit.csv", chain / "data.csv")
        (chain / "images").symlink_to(chain / "mips" / "images")
        (chain / "lars").mkdir()
        shutil.copy(chain / "results" / "best_run.csv", chain / "lars")
        for name in ("checkpoint_split0_run1.pth", "checkpoint_split1_run1.pth"):
            content = utils.read_checkpoint(chain / "results" / name)
            torch.save({key: content[key] for key in OF_LARS}, chain / "lars" / name)
    if page == "comparing":
        add_readers_and_outcomes(chain)
    if page == "heat_maps" and not (chain / "results_loca").exists():  # in a process of its own
        run_commands("docs/how_to/lesion_sites.md", chain)
    run_commands(f"docs/how_to/{page}.md", chain)


def add_readers_and_outcomes(chain):
    """What the guide to comparing takes of its users: readers' calls, outcomes in the manifest, a second ensemble."""
    scans = pd.read_csv(chain / "results" / "ensemble_avg.csv")["scan_id"]
    pd.DataFrame({"scan_id": scans, "ann": [k % 2 for k in range(len(scans))], "bo": 1}).to_csv(
        chain / "readers.csv", index=False)
    for path in (chain / "results").glob("pred_*.csv"):
        table = pd.read_csv(path, dtype=str)
        months = table["patient_id"].rank(method="dense")  # alike in a patient's scans
        table.assign(pfs_months=months, pfs_event=(months % 2).astype(int)).to_csv(path, index=False)
    for name in ("a", "b"):
        (chain / name).mkdir()
        shutil.copy(chain / "results" / f"ensemble_{'avg' if name == 'a' else 'max'}.csv",
                    chain / name / "ensemble_avg.csv")


@pytest.mark.slow
def test_commands_of_the_guide_to_splits_run(chain, tmp_path):
    (tmp_path / "mips").mkdir()
    (tmp_path / "mips" / "images").symlink_to(chain / "mips" / "images")
    table = pd.read_csv(chain / "mips" / "data.csv", dtype=str)
    number = table["patient_id"].rank(method="dense").astype(int)
    table["target"] = number % 2  # so few patients must be balanced
    table["scanner_site"] = np.select([number <= 3, number <= 6], ["north", "south"], "east")
    table.to_csv(tmp_path / "mips" / "data.csv", index=False)
    run_commands("docs/how_to/splits.md", tmp_path)
    folds = pd.read_csv(tmp_path / "mips" / "cv.csv").set_index("scan_id")
    ensemble = pd.read_csv(tmp_path / "results_cv" / "ensemble_avg.csv")
    assert set(ensemble["scan_id"]) == set(folds.index[(folds[["split0", "split1"]] == "test").any(axis=1)])
    cal = pd.read_csv(tmp_path / "mips" / "cal.csv").query("split0 == 'cal'")
    for split in (0, 1):
        predicted = pd.read_csv(tmp_path / "results_cal" / f"pred_split{split}_run1.csv")
        assert set(predicted.loc[predicted["set"] == "cal", "scan_id"]) == set(cal["scan_id"])


@pytest.mark.slow
def test_commands_of_the_guides_to_files_run(chain, tmp_path):
    """DICOM files of the chain, and NIfTI volumes of the same with a mask each."""
    dicom, nifti, masks = (tmp_path / name for name in ("dicom", "nifti", "masks"))
    for folder in (dicom, nifti):
        folder.mkdir()
        (folder / "DICOM_ROOT").symlink_to(chain / "DICOM_ROOT")
    labels = pd.read_csv(chain / "labels.csv")
    labels.to_csv(dicom / "labels.csv", index=False)
    pd.DataFrame({"StudyInstanceUID": labels["StudyInstanceUID"][:1], "weight_kg": 71.5}).to_csv(
        dicom / "overrides.csv", index=False)
    run_commands("docs/how_to/dicom_and_labels.md", dicom)
    assert "71.5" in pd.read_csv(dicom / "mips" / "data.csv")["warnings"].str.cat(sep=" ", na_rep="")

    run("prepro_script.py", "--input", "DICOM_ROOT", "--output", "first", "--save_suv", "--workers", 1, cwd=nifti,
        check=0)
    volumes = sorted((nifti / "first" / "suv").glob("*.nii.gz"))
    table = pd.DataFrame({"StudyInstanceUID": [f"p{k}/study" for k in range(len(volumes))],
                          "target": [k % 2 for k in range(len(volumes))], "sex": "F", "age": 50})
    table.to_csv(nifti / "labels.csv", index=False)
    for k, volume in enumerate(volumes):
        for name in ("NIFTI_ROOT", "FDG-PET-CT-Lesions"):
            (nifti / name / f"p{k}" / "study").mkdir(parents=True)
            (nifti / name / f"p{k}" / "study" / "SUV.nii.gz").symlink_to(volume)
    run_commands("docs/how_to/nifti.md", nifti)

    for k, volume in enumerate(volumes[:2]):
        place = masks / "ROOT" / f"p{k}" / "study"
        place.mkdir(parents=True)
        (place / "SUV.nii.gz").symlink_to(volume)
        image = nibabel.load(volume)
        nibabel.save(nibabel.Nifti1Image((image.get_fdata() > (5, 1e9)[k]).astype(np.uint8), image.affine),
                     place / "SEG.nii.gz")
    run_commands("docs/how_to/masks.md", masks)
    assert sorted(pd.read_csv(masks / "mips" / "data.csv")["target"]) == [0, 0, 1, 1]


def test_the_notebook_runs_and_agrees_with_the_scripts(chain, tmp_path):
    """The code of examples/quickstart.ipynb, in order, on the chain's cohort in place of the demo's."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "dicom").symlink_to(chain / "DICOM_ROOT")
    (tmp_path / "demo" / "results").symlink_to(chain / "results")
    cells = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (tmp_path / "examples" / "notebook.py").write_text(code)
    done = subprocess.run([sys.executable, "notebook.py"], cwd=tmp_path / "examples", capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    metrics = json.loads((chain / "results" / "metrics.json").read_text())["avg"]["auc"]
    assert f"auc          {metrics['value']:.3f} ({metrics['ci_low']:.3f} to" in done.stdout, done.stdout
    study = sorted((chain / "DICOM_ROOT").glob("*/study1"))[0]
    run("score.py", "--input", study, "--models", chain / "results", "--output", tmp_path / "scored", "--workers", 1,
        "--threads", 1, "--amp", "off", cwd=tmp_path, check=0)
    score = pd.read_csv(tmp_path / "scored" / "scores.csv")["ensemble_prob"][0]
    assert f"scan: {score:.3f}" in done.stdout, done.stdout


def test_every_page_with_commands_is_run_or_says_why_not():
    ran = {"README"} | set(re.findall(r'"docs/how_to/(\w+)\.md"', Path(__file__).read_text())) | {*GUIDES}
    assert {page.stem for page in PAGES if list(commands(page.read_text()))} == ran | {*NOT_RUN}
    assert not ran & {*NOT_RUN} and len(NOT_RUN) == 4


def test_nothing_asks_a_network(chain, tmp_path):
    """Of the README's seven steps and score.py."""
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=os.environ | without_network(tmp_path))
    assert "the tests refuse" in done.stderr and "192.0.2.1" in (tmp_path / "network.txt").read_text()
    assert not (chain / "network.txt").exists(), (chain / "network.txt").read_text()
