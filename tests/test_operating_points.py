"""Thresholds and recalibration: what they are derived from, and where they are applied."""
import json

import numpy as np
import pandas as pd
import pytest
from conftest import call
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_helpers import aggregated, by_hand, mislabelled, splits, with_cal, write, write_folds
from scipy.special import expit

import aggregate
from common.files import InputError
from evaluation import calibration
from evaluation.averaging import average_models
from evaluation.ensemble import Model, join_scans
from evaluation.metrics import choose_thresholds
from evaluation.operating_points import derive_rules


def by_model(tables, over_views="mean", of="val"):
    """Each model's own scores of its scans of that set, and their targets: [(Series, Series), ...]."""
    return [by_hand([table], over_views, of)[::2] for table in tables]


@pytest.mark.usefixtures("no_figure")
def test_each_model_has_its_own_thresholds_and_the_majority_decides(tmp_path):
    """A validation scan has the models alone that did not train on it: no threshold on means over all of them."""
    tables = splits()
    for table in tables:  # a trained model is certain of its training scans: they would move every threshold
        table.loc[table["set"] == "train", "probs"] = table["target"]
    write(tmp_path, *tables)
    avg, largest, metrics = aggregated(tmp_path)
    for name, over_views, table in (("avg", "mean", avg), ("max", "max", largest)):
        expected = [choose_thresholds(y, p) for p, y in by_model(tables, over_views)]
        for point, block in metrics[name]["operating_points"].items():
            assert block["threshold"] is None and block["by"] == "majority"
            cuts = [each[point] for each in expected]
            assert list(block["thresholds"].values()) == pytest.approx(cuts, abs=1e-12)
            votes = (table[[f"probs_{k}" for k in range(4)]] >= cuts).sum(axis=1)
            predicted = votes > 2 if point == "specificity95" else votes >= 2  # 2 of 4: a tie
            assert list(table[f"pred_{point}"]) == list(predicted.astype(int))
            assert block["sensitivity"]["value"] == pytest.approx(predicted[table["target"] == 1].mean())
    about, (_, counts, _) = metrics["validation"], by_hand(tables)
    assert about["source"] == "validation predictions" and about["n_scans"] == len(counts) < 41
    assert about["models_per_scan"] == {str(k): int((counts == k).sum()) for k in sorted(set(counts))}
    sizes = [len(y) for _, y in by_model(tables)]
    assert about["scans_per_model"] == [min(sizes), max(sizes)] and about["by"] == "majority"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "the majority\nof the models' calls" in page and " of the models" in page
    without = [table[table["set"] != "train"] for table in tables]
    write(tmp_path, *without)
    again = aggregated(tmp_path)[2]
    assert again | {"provenance": metrics["provenance"]} == metrics  # training rows are never used


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize("method", [None, "platt", "logistic", "temperature", "isotonic"])
def test_calibration_set_gives_the_rule_of_the_mean(tmp_path, method):
    tables = mislabelled(with_cal(splits()))
    write(tmp_path, *tables)
    avg, largest, metrics = aggregated(tmp_path, *(["--recalibrate", method] if method else []))
    for name, over_views, table in (("avg", "mean", avg), ("max", "max", largest)):
        p, counts, y = by_hand(tables, over_views, "cal")
        assert (counts == 4).all()
        fit = calibration.fit_recalibration(method, y, p) if method else None
        test = calibration.recalibrate(fit, by_hand(tables, over_views, "test")[0])
        np.testing.assert_allclose(table["ensemble_prob"], test, atol=1e-9)
        expected = choose_thresholds(y, calibration.recalibrate(fit, p))
        for point, block in metrics[name]["operating_points"].items():
            if expected[point] is None:  # isotonic recalibration ties scores
                assert block == {"threshold": None, "by": "mean", "reason": "not reached on these predictions"}, block
                assert table[f"pred_{point}"].isna().all()
                continue
            assert block["threshold"] == pytest.approx(expected[point], abs=1e-9) and block["by"] == "mean"
            assert list(table[f"pred_{point}"]) == list((table["ensemble_prob"] >= block["threshold"]).astype(int))
        for k, (scores, y_k) in enumerate(by_model(tables, over_views, "cal")):  # the same scale: each model's own
            own = calibration.fit_recalibration(method, y_k, scores) if method else None
            expected = calibration.recalibrate(own, by_model(tables, over_views, "test")[k][0])
            np.testing.assert_allclose(table[f"probs_{k}"], expected, atol=1e-9)
    about = metrics["validation"]
    assert (about["source"], about["n_scans"], about["models_per_scan"]) == ("calibration set", 60, {"4": 60})
    raw = metrics["avg"].get("before_recalibration", metrics["avg"])["auc"]["value"]  # isotonic recalibration ties
    assert about["by"] == "mean" and metrics["avg"]["ensemble_size"][-1]["mean"] == pytest.approx(raw)
    assert metrics["scales"]["ensemble_size"] == "as predicted"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "calibration set" in page and "Ranjan" not in page
    assert ("At the bounds of isotonic" in page) == (method == "isotonic")


@pytest.mark.usefixtures("no_figure")
def test_the_scans_that_a_mean_s_thresholds_rest_on_are_counted(tmp_path):
    """Of 60 calibration scans 8 lack a model and 4 others the other one: the mean of both has 48, the page said 60."""
    lacked = [f"c{k:02d}" for k in range(8)], [f"c{k:02d}" for k in range(8, 12)]
    write(tmp_path, *(table[~table["scan_id"].isin(lacking)]
                      for table, lacking in zip(with_cal(splits(2)), lacked, strict=True)))
    about = aggregated(tmp_path)[2]["validation"]
    assert about["by"] == "mean" and about["scans_per_model"] == [52, 56]
    assert (about["n_scans"], about["n_positive"], about["models_per_scan"]) == (48, 24, {"2": 48})


@pytest.mark.usefixtures("no_figure")
def test_calibration_set_of_some_models_only_is_refused(tmp_path):
    tables = with_cal(splits())
    tables[2] = tables[2][tables[2]["set"] != "cal"]
    write(tmp_path, *tables)
    with pytest.raises(InputError, match="no calibration set in 1 of 4 prediction files: pred_split2.*--set cal val"):
        aggregated(tmp_path)
    assert aggregated(tmp_path, "--threshold_on_test")[2]["validation"]["source"] == "the scans that are measured"
    write(tmp_path, *with_cal(splits()))
    about = aggregated(tmp_path, "--set", "cal")[2]["validation"]
    assert about["source"] == "validation predictions", "what is measured is no calibration set"


@pytest.mark.usefixtures("no_figure")
def test_a_scan_that_lacks_a_model_gets_no_threshold_of_the_mean_over_all(tmp_path, capsys):
    tables = with_cal(splits())
    tables[1] = tables[1].query("scan_id != 's050'")
    write(tmp_path, *tables)
    avg, _, metrics = aggregated(tmp_path, "--recalibrate", "platt")
    row = avg.set_index("scan_id").loc["s050"]
    assert row["ensemble_prob"] == pytest.approx(row[["probs_0", "probs_2", "probs_3"]].mean())
    point = metrics["avg"]["operating_points"]["youden"]
    assert metrics["validation"]["by"] == point["by"] == "mean and majority" and point["threshold"] is not None
    votes = sum(row[f"probs_{k}"] >= point["thresholds"][f"pred_split{k}_run1.csv"] for k in (0, 2, 3))
    assert row["pred_youden"] == (votes >= 2)
    assert "of 1 of 24 scans not those models predicted for whose mean" in capsys.readouterr().out
    assert metrics["scales"]["avg"].startswith("the models' mean, recalibrated (platt); of scans that lack a model")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "A scan that lacks one of the models" in page and "Ranjan" not in page


@pytest.mark.usefixtures("no_figure")
def test_runs_of_one_split_share_their_validation_set(tmp_path):
    first, *others = splits(2)
    tables = [first] + [first.assign(probs=np.clip(first["probs"] + 0.05 * k, 0, 1)) for k in (1, 2)]
    for number, table in enumerate(tables, 1):
        write(tmp_path, table, run=number)
    avg, _, metrics = aggregated(tmp_path)
    p, counts, y = by_hand(tables)
    assert (counts == 3).all() and metrics["validation"]["by"] == "mean"
    for point, threshold in choose_thresholds(y, p).items():
        assert metrics["avg"]["operating_points"][point]["threshold"] == pytest.approx(threshold)


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize("runs", [1, 2])
def test_folds_have_thresholds_of_their_own_validation_scans(tmp_path, runs):
    write_folds(tmp_path, runs=runs)
    avg, _, metrics = aggregated(tmp_path, "--pooled_folds", "--recalibrate", "platt")
    tables = [[pd.read_csv(tmp_path / f"pred_split{split}_run{run}.csv") for run in range(1, runs + 1)]
              for split in range(3)]
    avg = avg.set_index("scan_id")
    for of_split in tables:
        p, _, y = by_hand(of_split)
        fit = calibration.fit_recalibration("platt", y, p)
        test = by_hand(of_split, of="test")[0]
        np.testing.assert_allclose(avg.loc[test.index, "ensemble_prob"], calibration.recalibrate(fit, test), atol=1e-9)
        expected = calibration.recalibrate(fit, test) >= choose_thresholds(y, calibration.recalibrate(fit, p))["youden"]
        assert list(avg.loc[test.index, "pred_youden"]) == list(expected.astype(int))
    point = metrics["avg"]["operating_points"]["youden"]
    assert point["threshold"] is None and point["by"] == "mean" and len(point["thresholds"]) == 3
    assert " of the folds" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("no_figure")
def test_measured_scans_and_their_patients_derive_no_threshold(tmp_path):
    tables = splits()
    extra = tables[0][tables[0]["set"] == "test"].iloc[:2].assign(set="val")  # test for others, validation here
    tables[0] = pd.concat([tables[0][~tables[0]["scan_id"].isin(extra["scan_id"])], extra])
    tables = [table.assign(patient_id=table["patient_id"].replace({"p002": "p025"})) for table in tables]
    write(tmp_path, *tables)
    about = aggregated(tmp_path)[2]["validation"]
    assert about["left_out_because_measured"] == 1 + 2  # one scan; two of a patient with scans in the test set


@pytest.mark.usefixtures("no_figure")
def test_without_validation_predictions_thresholds_are_refused(tmp_path, capsys):
    tables = [table[table["set"] == "test"] for table in splits()]
    write(tmp_path, *tables)
    avg, _, metrics = aggregated(tmp_path)
    assert metrics["avg"]["operating_points"] == {} and "pred_youden" not in avg and metrics["optimistic"] is None
    assert "no threshold but 0.5 is used" in capsys.readouterr().out
    assert not (tmp_path / "out" / "operating_points.json").exists()
    for options, message in ((["--recalibrate", "platt"], "hold no validation predictions; predict.py --set val"),
                             (["--set", "val"], "no row with set val")):
        with pytest.raises(InputError, match=message):
            aggregated(tmp_path, *options)
    write(tmp_path, *splits())
    metrics = aggregated(tmp_path, "--set", "val")[2]
    assert metrics["avg"]["operating_points"] == {} and "are measured" in metrics["validation"]["reason"]
    with pytest.raises(InputError, match="are measured"):
        aggregated(tmp_path, "--set", "val", "--recalibrate", "isotonic")


@pytest.mark.usefixtures("no_figure")
def test_thresholds_of_few_scans_are_warned_of_where_they_are_applied(tmp_path):
    write(tmp_path, *splits())
    few = aggregated(tmp_path)[2]["warnings"]
    write(tmp_path / "new", *(table[table["set"] == "test"] for table in splits(seed=1)))
    new = aggregated(tmp_path / "new", "--operating_points", tmp_path / "out" / "operating_points.json")[2]["warnings"]
    few, new = ([line for line in lines if "derived from as few as" in line] for lines in (few, new))
    assert len(few) == 1 and few == new


@pytest.mark.usefixtures("no_figure")
def test_a_model_whose_validation_scans_are_of_one_class_is_named_with_what_helps(tmp_path, capsys):
    tables = splits()
    first = tables[1].loc[tables[1]["set"] == "val", "scan_id"].unique()
    write(tmp_path, *(table.assign(target=table["target"].where(~table["scan_id"].isin(first), 0)) for table in tables))
    reason = aggregated(tmp_path)[2]["validation"]["reason"]
    assert "predictions of pred_split1_run1.csv" in reason and reason.endswith("can be used: they are of one class")
    said = capsys.readouterr().out
    assert "leave that model out, or give all a calibration set" in said and "--set val test" not in said
    with pytest.raises(InputError, match="of one class; leave that model out"):
        aggregated(tmp_path, "--recalibrate", "platt")


def test_threshold_on_test_stamps_every_output(tmp_path, capsys, monkeypatch):
    write(tmp_path, *splits(2))
    avg, _, metrics = aggregated(tmp_path, "--threshold_on_test", "--recalibrate", "platt", "--by", "view")
    out = tmp_path / "out"
    assert metrics["optimistic"].startswith("OPTIMISTIC: thresholds and recalibration were derived from the very scans")
    assert "OPTIMISTIC" in capsys.readouterr().out
    for name in ("ensemble_avg.csv", "ensemble_max.csv", "disagreement.csv"):
        assert pd.read_csv(out / name)["notice"].str.startswith("OPTIMISTIC").all()
    for name in ("metrics.json", "operating_points.json", "report.html"):
        assert "OPTIMISTIC" in (out / name).read_text()
    from sklearn.metrics import roc_curve
    fpr, tpr, _ = roc_curve(avg["target"], avg["ensemble_prob"])
    youden = metrics["avg"]["operating_points"]["youden"]
    assert youden["sensitivity"]["value"] + youden["specificity"]["value"] - 1 == pytest.approx((tpr - fpr).max())
    monkeypatch.setattr("evaluation.figures.score_figures", lambda *arguments: {})
    new = tmp_path / "new"
    write(new, *splits(2))
    applied = ("--dir", new, "--output", new / "out", "--resamples", 20, "--operating_points",
               out / "operating_points.json")
    call(aggregate, *applied)
    assert json.loads((new / "out" / "metrics.json").read_text())["optimistic"] == (
        "OPTIMISTIC: thresholds were derived from 24 of the scans that are measured, or from their patients' scans.")
    write(new, *(table.assign(scan_id="n" + table["scan_id"], patient_id="n" + table["patient_id"])
                 for table in splits(2)))
    call(aggregate, *applied)  # other patients: nothing is optimistic any more
    metrics = json.loads((new / "out" / "metrics.json").read_text())
    assert metrics["optimistic"] is None and metrics["validation"]["source"] == "the scans that are measured"
    assert "measured</b> of an earlier run" in (new / "out" / "report.html").read_text().replace("\n", " ")


@pytest.mark.usefixtures("no_figure")
def test_applied_operating_points_keep_their_provenance_and_go_with_checkpoints(tmp_path, capsys):
    """By the SHA-256 of the checkpoint, whatever the files are called and in whatever order."""
    tables = [table.assign(checkpoint_sha256=f"{k:064x}", id_key="k1", image_sha256=table["filename"])
              for k, table in enumerate(with_cal(splits()))]
    write(tmp_path, *tables)
    avg = aggregated(tmp_path)[0]
    points = tmp_path / "out" / "operating_points.json"
    stored = json.loads(points.read_text())
    assert stored["checkpoints"] == {f"pred_split{k}_run1.csv": f"{k:064x}" for k in range(4)}
    assert stored["derived_from"]["synthetic"] is False and "s0" not in json.dumps(stored["derived_scans"])

    def applied(*changed):
        write(tmp_path / "new", *changed)
        capsys.readouterr()
        call(aggregate, "--dir", tmp_path / "new", "--output", tmp_path / "new", "--resamples", 20,
             "--operating_points", points)
        return pd.read_csv(tmp_path / "new" / "ensemble_avg.csv"), capsys.readouterr().out

    test = [table[table["set"] == "test"] for table in tables]
    turned, out = applied(*reversed(test))
    assert list(turned["pred_youden"]) == list(avg["pred_youden"]) and "operating_points.json: " not in out
    assert (tmp_path / "new" / "operating_points.json").read_bytes() == points.read_bytes()
    with pytest.raises(InputError, match="no thresholds for pred_split2_run1.csv, but for .* of another checkpoint"):
        applied(*test[:2], test[2].assign(checkpoint_sha256="f" * 64), test[3])
    _, out = applied(*(table.drop(columns="checkpoint_sha256") for table in test))
    assert "whether its models are these was checked by their files' names alone" in out
    cal = [table[table["set"] == "cal"].assign(set="test") for table in tables]
    applied(*cal)
    assert "OPTIMISTIC: thresholds were derived from" in json.loads(
        (tmp_path / "new" / "metrics.json").read_text())["optimistic"]
    _, out = applied(*(table.assign(id_key="k2", image_sha256=table["filename"] + "x") for table in cal))
    assert "images alone: patients could not be compared, other key" in out
    applied(*(table.assign(id_key="k2", scan_id="x" + table["scan_id"], patient_id="y") for table in cal))  # by image
    assert "derived from" in json.loads((tmp_path / "new" / "metrics.json").read_text())["optimistic"]
    del stored["derived_scans"]
    points.write_text(json.dumps(stored | {"derived_from": stored["derived_from"] | {"synthetic": True}}))
    _, out = applied(*test)
    assert "patients measured here was not checked" in out and "were derived from a SYNTHETIC cohort" in out


@pytest.mark.usefixtures("no_figure")
def test_the_file_that_is_applied_is_not_removed(tmp_path):
    write(tmp_path / "out", *splits())
    call(aggregate, "--dir", tmp_path / "out", "--output", tmp_path / "out", "--resamples", 20)
    points = tmp_path / "out" / "operating_points.json"
    before = points.read_bytes()
    call(aggregate, "--dir", tmp_path / "out", "--output", tmp_path / "out", "--operating_points", points,
         "--resamples", 20)
    assert points.read_bytes() == before


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize("method", ["platt", "isotonic", "logistic", "temperature"])
def test_without_calibration_set_each_model_is_recalibrated_then_averaged(tmp_path, method):
    tables = mislabelled(splits(n_val=200))
    for table in tables:
        logit = np.log(table["probs"] / (1 - table["probs"]))
        table["probs"] = 1 / (1 + np.exp(-3 * logit))
    write(tmp_path, *tables)
    avg, _, metrics = aggregated(tmp_path, "--recalibrate", method, "--by", "view")
    fits = [calibration.fit_recalibration(method, y, p) for p, y in by_model(tables)]
    each = pd.concat([calibration_of(fit, p) for fit, (p, _) in zip(fits, by_model(tables, of="test"), strict=True)],
                     axis=1)
    mean = each.mean(axis=1)
    np.testing.assert_allclose(avg[[f"probs_{k}" for k in range(4)]], each, atol=1e-9)
    np.testing.assert_allclose(avg["ensemble_prob"], mean, atol=1e-9)
    np.testing.assert_allclose(avg["ensemble_prob_uncalibrated"], by_hand(tables, of="test")[0], atol=1e-12)
    block = metrics["avg"]
    assert block["brier"]["value"] != block["before_recalibration"]["brier"]["value"]
    assert block["reliability"] and block["before_recalibration"]["reliability"] and metrics["recalibrate"] == method
    brier = ((each.iloc[:, 2] - avg["target"].to_numpy()) ** 2).mean()  # all parts are on the same scale
    assert metrics["models"][2]["avg"]["brier"]["value"] == pytest.approx(brier)
    disagreement = pd.read_csv(tmp_path / "out" / "disagreement.csv").set_index("scan_id").loc[avg["scan_id"]]
    np.testing.assert_allclose(disagreement["sd"], each.std(axis=1), atol=1e-9)
    cor = [table[(table["view"] == "cor") & (table["set"] == "test")].set_index("scan_id")["probs"] for table in tables]
    cor = pd.concat([calibration_of(fit, p) for fit, p in zip(fits, cor, strict=True)], axis=1).mean(axis=1)
    brier = ((cor.loc[avg["scan_id"]].to_numpy() - avg["target"]) ** 2).mean()
    for view in (metrics["views"]["cor"], metrics["subgroups"]["view"]["cor"]["avg"]):
        assert view["brier"]["value"] == pytest.approx(brier)
    scales = metrics["scales"]
    assert scales["models"].startswith(f"recalibrated ({method})") and scales["before_recalibration"] == "as predicted"
    assert scales["ensemble_size"] == scales["models"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Ranjan and Gneiting" in page and f"{block['calibration_slope']['value']:.3f}".replace("-", "−") in page
    stored = json.loads((tmp_path / "out" / "operating_points.json").read_text())["avg"]
    assert stored["recalibration"] is None and stored["thresholds"] == {}
    for entry, fit in zip(stored["of_models"], fits, strict=True):
        assert entry["recalibration"] == pytest.approx(fit) if method != "isotonic" else entry["recalibration"] == fit


def calibration_of(fit, p):
    return pd.Series(calibration.recalibrate(fit, p.to_numpy()), index=p.index)


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize("cal", [False, True])
def test_stored_operating_points_are_applied_to_new_patients(tmp_path, capsys, cal):
    tables = with_cal(splits()) if cal else splits()
    write(tmp_path, *tables)
    avg = aggregated(tmp_path, "--recalibrate", "platt")[0]
    points = tmp_path / "out" / "operating_points.json"
    new = tmp_path / "new"
    write(new, *(table[table["set"] == "test"].drop(columns="target").assign(set="all") for table in tables))
    call(aggregate, "--dir", new, "--output", new, "--operating_points", points)
    applied = pd.read_csv(new / "ensemble_avg.csv")
    for column in ("ensemble_prob", "pred_youden", "pred_sensitivity95"):
        assert list(applied[column]) == list(avg[column])
    for options, message in ((["--combine", "median"], "was made with --combine mean"),
                             (["--recalibrate", "platt"], "brings its own"),
                             (["--threshold_on_test"], "brings its own")):
        with pytest.raises(InputError, match=message):
            call(aggregate, "--dir", new, "--output", new, "--operating_points", points, *options)
    (tmp_path / "other.json").write_text('{"avg": 1}')
    with pytest.raises(InputError, match="not an operating_points.json"):
        call(aggregate, "--dir", new, "--output", new, "--operating_points", tmp_path / "other.json")
    (new / "pred_split3_run1.csv").unlink()
    capsys.readouterr()
    call(aggregate, "--dir", new, "--output", new, "--operating_points", points)
    assert "was made with 4 models; 1 of them are not here: pred_split3_run1.csv" in capsys.readouterr().out
    fewer = pd.read_csv(new / "ensemble_avg.csv")  # what each model brings: their thresholds do not depend on a fourth
    np.testing.assert_allclose(fewer["ensemble_prob"], avg[["probs_0", "probs_1", "probs_2"]].mean(axis=1))
    write(new, *[tables[0][tables[0]["set"] == "test"]] * 5)
    with pytest.raises(InputError, match="has no thresholds for pred_split4_run1.csv"):
        call(aggregate, "--dir", new, "--output", new, "--operating_points", points)


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize("models_per_scan, message", [
    ({"1": 20, "2": 5}, "from means over 1 model or 2 models; means over 4"), ({"4": 25}, None)])
def test_operating_points_of_an_earlier_version(tmp_path, models_per_scan, message):
    """They hold one rule, of means over so many models as models_per_scan says."""
    tables = [table[table["set"] == "test"] for table in splits()]
    rule = {"recalibration": {"method": "isotonic", "x": [0.2, 0.6], "y": [0.0, 1.0]}, "thresholds": {"youden": 0.4}}
    (tmp_path / "old.json").write_text(json.dumps({
        "combine": "mean", "models": [f"pred_split{k}_run1.csv" for k in range(4)], "avg": rule, "max": rule,
        "derived_from": {"source": "validation predictions", "n_scans": 25, "models_per_scan": models_per_scan}}))
    write(tmp_path, *tables)
    if message:
        with pytest.raises(InputError, match=f"old.json: is of an earlier version.*{message}"):
            aggregated(tmp_path, "--operating_points", tmp_path / "old.json")
        return
    avg, _, metrics = aggregated(tmp_path, "--operating_points", tmp_path / "old.json")
    p = by_hand(tables, of="test")[0]
    np.testing.assert_allclose(avg["ensemble_prob"], np.interp(p, [0.2, 0.6], [0, 1]), atol=1e-12)
    assert list(avg["pred_youden"]) == list((avg["ensemble_prob"] >= 0.4).astype(int))
    assert metrics["avg"]["operating_points"]["youden"]["threshold"] == 0.4
    write(tmp_path, tables[0].query("scan_id != 's050'"), *tables[1:])
    with pytest.raises(InputError, match="scan s050 has the predictions of pred_split1_run1.csv, pred_split2"):
        aggregated(tmp_path, "--operating_points", tmp_path / "old.json")


# ---------------------------------------------------------------- simulated scores

def simulated(n_models, cal=True, seed=0, sizes=(4000, 2000, 2000), own=0.4):
    """Models whose logits are twice the true one and noise of their own, each validated on a share `own` of the first
    scans; the second are the calibration set, the third the test set."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    y = (rng.random(n) < 0.4).astype(int)
    truth, part = rng.normal(2 * y - 1), np.repeat(["dev", "cal", "test"], sizes)
    rows, models = pd.DataFrame({"scan_id": [f"s{k:05d}" for k in range(n)], "target": y.astype(float)}), []
    for k in range(n_models):
        each = rows.assign(probs=expit(2 * (truth + rng.normal(size=n))))
        held = (part == "dev") & (rng.random(n) < own)
        models.append(Model(None, f"pred_split{k}_run1.csv", k, 1, rows=each[part == "test"], val_rows=each[held],
                            cal_rows=each[(part == "cal") & cal]))
    return models


def applied(models, method="logistic"):
    scans, _ = join_scans(models)
    rules, _ = derive_rules(models, scans, "mean", method, False, [])
    return scans["target"].to_numpy(dtype=int), average_models(models, scans, "avg", "mean", rules["avg"])


@pytest.mark.parametrize("n_models", [1, 3, 10])
def test_slope_and_sensitivity_by_number_of_models(n_models):
    """What was derived from means over few of ten models had slope 1.9 on means over all, and sensitivity 0.987."""
    y, each = applied(simulated(n_models))
    assert calibration.slope(y, each.prob.to_numpy()) == pytest.approx(1, abs=0.12)
    assert each.calls["sensitivity95"][y == 1].mean() == pytest.approx(0.95, abs=0.025)
    assert 1 - each.calls["specificity95"][y == 0].mean() == pytest.approx(0.95, abs=0.025)
    y, each = applied(simulated(n_models, cal=False))
    slope = calibration.slope(y, each.prob.to_numpy())
    assert (abs(slope - 1) < 0.12) if n_models == 1 else slope > 1.4  # Ranjan, Gneiting 2010
    assert each.calls["sensitivity95"][y == 1].mean() > (0.93 if n_models == 1 else 0.96)
    assert 1 - each.calls["specificity95"][y == 0].mean() > (0.93 if n_models == 1 else 0.96)


@pytest.mark.slow
@pytest.mark.parametrize("n_models, slope, sensitivity, specificity", [
    (1, (1.01, 1.01), (0.914, 0.930), (0.951, 0.950)), (3, (0.97, 1.70), (0.921, 0.964), (0.947, 0.975)),
    (10, (0.96, 2.13), (0.918, 0.985), (0.949, 0.990))])
def test_table_of_the_reference(n_models, slope, sensitivity, specificity):
    """docs/reference/statistics.md, with the calibration set and without, in 30 studies instead of 60."""
    for k, cal in enumerate((True, False)):
        found = []
        for seed in range(30):
            y, each = applied(simulated(n_models, cal, seed, sizes=(300, 60, 5000), own=0.2))
            found.append((calibration.slope(y, each.prob.to_numpy()), each.calls["sensitivity95"][y == 1].mean(),
                          1 - each.calls["specificity95"][y == 0].mean()))
        means, errors = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(30)
        for got, expected, error in zip(means, (slope[k], sensitivity[k], specificity[k]), errors, strict=True):
            assert got == pytest.approx(expected, abs=3.5 * error + 0.005)


@given(st.permutations(range(5)), st.floats(0.2, 5), st.sampled_from([None, "platt", "isotonic"]))
@settings(max_examples=10)
def test_rules_do_not_depend_on_order_or_names_and_calls_not_on_scale(order, power, method):
    models = simulated(5, cal=False, sizes=(200, 0, 60))
    y, each = applied(models, method)
    ids = {scan: f"r{k * 7919 % 10007}" for k, scan in enumerate(sorted({*models[0].rows["scan_id"]}))}
    others = [Model(None, m.file, m.split, 1, rows=m.rows.sample(frac=1, random_state=1), val_rows=m.val_rows[::-1],
                    cal_rows=m.cal_rows) for m in (models[k] for k in order)]
    for model in others:
        model.rows = model.rows.assign(scan_id=model.rows["scan_id"].map(ids))
    _, shuffled = applied(others, method)
    renamed = shuffled.prob.reindex([ids[scan] for scan in each.prob.index])
    np.testing.assert_allclose(renamed, each.prob, rtol=1e-9)
    for name in each.calls:
        assert list(shuffled.calls[name].reindex(renamed.index)) == list(each.calls[name])
    for k, model in enumerate(models):  # a strictly rising transform of every model's scores, another for each
        for rows in ("rows", "val_rows"):
            setattr(model, rows, getattr(model, rows).assign(
                probs=lambda t, k=k: t["probs"]**power / (1 + k)))
    for name, calls in applied(models, None)[1].calls.items():
        assert list(calls) == list(applied(simulated(5, cal=False, sizes=(200, 0, 60)), None)[1].calls[name])
