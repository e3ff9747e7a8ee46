"""The whole chain as a user runs it: every script a process of its own, from DICOM to the ensemble's metrics."""
import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, error_line, run

TRAIN = ("--weights", "none", "--image_size", "auto", "--pool", 6, "--nepochs", 1, "--batch_size", 16, "--threads", 1)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Fourteen patients from DICOM to aggregate.py, two splits of one epoch."""
    folder = tmp_path_factory.mktemp("chain")
    run("phantom.py", "--output", "dicom", "--patients", 14, "--seed", 3, "--workers", 1, cwd=folder, check=0)
    run("prepro_script.py", "--input", "dicom", "--output", ".", "--labels", "dicom/labels.csv", "--workers", 1,
        cwd=folder, check=0)
    run("make_splits.py", "--n_splits", 3, "--test", 0.3, "--val", 0.3, cwd=folder, check=0)
    data = ("--data", "data_resplit.csv")
    run("train.py", *data, "--split_index", 0, 1, "--run", 1, *TRAIN, cwd=folder, check=0)
    run("find_best_model.py", "--dir", "results", cwd=folder, check=0)
    predicted = run("predict.py", *data, "--splits", 0, 19, "--set", "val", "test", cwd=folder, check=1)
    assert "split 2: no model" in predicted.stdout and "split 19: no model" in predicted.stdout
    assert "SYNTHETIC" not in predicted.stdout, "the cohort is marked as such itself"
    (folder / "aggregate.out").write_text(run("aggregate.py", "--dir", "results", *data, "--by", "view", "--resamples",
                                              200, cwd=folder, check=0).stdout)
    return folder


def test_manifest_matches_labels_and_images(chain):
    table, labels = pd.read_csv(chain / "data_resplit.csv"), pd.read_csv(chain / "dicom" / "labels.csv")
    assert len(table) == 2 * len(labels) and table["scan_id"].nunique() == len(labels)
    assert not (set(table["scan_id"]) & set(labels["StudyInstanceUID"])), "scan_id is hashed"
    scans = table.drop_duplicates("scan_id")
    assert scans["target"].sum() == labels["target"].sum() == (labels["deauville"] >= 4).sum()
    assert (table["synthetic"] == 1).all() and (table["spacing_mm"] == 3.27).all()
    for row in table.itertuples():
        assert (chain / row.filename).stat().st_size == 4 * row.matrix_size_1 * row.matrix_size_2
    assert not (chain / "errors.csv").exists() or pd.read_csv(chain / "errors.csv").empty


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
    out = (chain / "aggregate.out").read_text()
    assert "SYNTHETIC" in out and "LARS-avg" in out and "report.html" in out
    assert (chain / "results" / "roc.png").read_bytes()[:4] == b"\x89PNG"
    assert "SYNTHETIC" in (chain / "results" / "roc.svg").read_text()


def test_report_tells_thresholds_settings_and_cohort(chain):
    metrics = json.loads((chain / "results" / "metrics.json").read_text())
    table = pd.read_csv(chain / "data_resplit.csv").drop_duplicates("scan_id")
    held_out = (table[["split0", "split1"]] == "val").any(axis=1)
    about = metrics["validation"]
    assert about["source"] == "validation predictions" and about["n_scans"] == held_out.sum()
    assert metrics["independent_unit"] == "patient" and set(metrics["views"]) == {"cor", "sag"}
    page = (chain / "results" / "report.html").read_text()
    for text in ("SYNTHETIC", "Youden", "The same for all 2 models", "--pool", "data hash", "data_resplit.csv"):
        assert text in page, text
    done = run("compare.py", "results/ensemble_avg.csv", "results/ensemble_max.csv", cwd=chain, check=0)
    assert "AUC, DeLong" in done.stdout and (chain / "results" / "compare.html").exists()


def test_new_patients_get_a_probability_per_view_and_scan(chain):
    study = next((chain / "dicom").glob("*/study1"))
    run("prepro_script.py", "--input", study, "--output", "new", "--workers", 1, cwd=chain, check=0)
    assert "target" not in pd.read_csv(chain / "new" / "data.csv")
    predicted = run("predict.py", "--data", "new/data.csv", "--set", "all", "--splits", 0, 1, "--output", "new",
                    cwd=chain, check=0)
    assert predicted.stdout.count("warning: trained on a SYNTHETIC cohort") == 1  # once, not for every model
    run("aggregate.py", "--dir", "new", "--output", "new", "--operating_points", "results/operating_points.json",
        cwd=chain, check=0)
    views = pd.read_csv(chain / "new" / "pred_split0_run1.csv")
    ensemble = pd.read_csv(chain / "new" / "ensemble_avg.csv")
    assert set(views["view"]) == {"cor", "sag"} and len(ensemble) == 1
    assert 0 <= ensemble["ensemble_prob"][0] <= 1 and not (chain / "new" / "metrics.json").exists()


def test_the_real_series_is_predicted(chain):
    series = ROOT.parent / "shared" / "data" / "sts_001_fdg_pet"
    if not series.exists():
        pytest.skip("the real series is not here")
    run("prepro_script.py", "--input", series, "--output", "real", "--workers", 1, cwd=chain, check=0)
    run("predict.py", "--data", "real/data.csv", "--set", "all", "--splits", 0, 1, "--output", "real",
        cwd=chain, check=0)
    assert pd.read_csv(chain / "real" / "pred_split1_run1.csv")["probs"].between(0, 1).sum() == 2


def test_prediction_without_best_run(chain):
    assert "find_best_model.py --dir dicom writes it" in error_line(
        run("predict.py", "--data", "data_resplit.csv", "--chptfolder", "dicom", cwd=chain))
