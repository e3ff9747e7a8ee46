import re

import numpy as np
import pandas as pd
import pytest
from conftest import call, error_line, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prediction_helpers import SCANS, aggregated, predictions, splits, write, write_folds
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

import aggregate
from common.files import InputError
from evaluation import figure_style, figures, provenance, report

FIGURES = set(report.FIGURES) - {"site_confusion"}


def write_best(path, ranked):
    pd.DataFrame([(split, run, 1, "auc", 0.9 - rank / 100, rank) for rank, (split, run) in enumerate(ranked, 1)],
                 columns=["split", "run", "epoch", "metric", "value", "rank"]).to_csv(path, index=False)


def test_label_at_the_threshold(tmp_path):
    write(tmp_path, predictions(scans=SCANS[:3]).assign(probs=[0.25, 0.75, 0.49, 0.49, 0.51, 0.51]))
    assert list(aggregated(tmp_path)[0]["pred_label"]) == [1, 0, 1]


@pytest.mark.usefixtures("no_figure")
def test_ensembles_by_hand(tmp_path):
    scans = SCANS.iloc[[0, 4]]
    write(tmp_path, predictions(scans=scans).assign(probs=[0.1, 0.3, 0.5, 0.9]),
          predictions(scans=scans).assign(probs=[0.2, 0.9, 0.4, 0.4]))
    avg, largest, metrics = aggregated(tmp_path)
    assert list(avg.columns) == ["scan_id", "target", "probs_0", "probs_1", "ensemble_prob", "pred_label"]
    assert list(avg["scan_id"]) == ["s0", "s4"] and list(avg["target"]) == [0, 1]
    np.testing.assert_allclose(avg[["probs_0", "probs_1", "ensemble_prob"]], [[0.2, 0.55, 0.375], [0.7, 0.4, 0.55]])
    np.testing.assert_allclose(largest[["probs_0", "probs_1", "ensemble_prob"]], [[0.3, 0.9, 0.6], [0.9, 0.4, 0.65]])
    assert list(avg["pred_label"]) == [0, 1] and list(largest["pred_label"]) == [1, 1]
    assert (metrics["avg"]["specificity"]["value"], metrics["max"]["specificity"]["value"]) == (1, 0)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0, 1), min_size=12, max_size=12))
@pytest.mark.usefixtures("no_figure")
def test_ensembles_lie_within_their_models(tmp_path_factory, probs):
    folder = tmp_path_factory.mktemp("p")
    write(folder, *(predictions(scans=SCANS[:2]).assign(probs=probs[4 * k:4 * k + 4]) for k in range(3)))
    avg, largest, _ = aggregated(folder)
    for table in (avg, largest):
        each = table[["probs_0", "probs_1", "probs_2"]]
        assert (table["ensemble_prob"] >= each.min(axis=1) - 1e-12).all()
        assert (table["ensemble_prob"] <= each.max(axis=1) + 1e-12).all()
    assert (largest["ensemble_prob"] >= avg["ensemble_prob"] - 1e-12).all()


def test_metrics_equal_sklearn_and_scipy(tmp_path, capsys):
    scans = pd.DataFrame({"scan_id": [f"s{k:03d}" for k in range(60)], "target": [0, 1, 0] * 20})
    write(tmp_path, *(predictions(seed, scans) for seed in range(3)))
    avg, largest, metrics = aggregated(tmp_path)
    printed = capsys.readouterr().out
    for name, table in (("avg", avg), ("max", largest)):
        got, y_true, y_pred = metrics[name], table["target"], table["ensemble_prob"] >= 0.5
        assert (got["n"], got["n_positive"]) == (60, 20)
        assert got["auc"]["value"] == pytest.approx(roc_auc_score(y_true, table["ensemble_prob"]), abs=1e-12)
        assert got["auc"]["ci_low"] < got["auc"]["value"] < got["auc"]["ci_high"]
        assert got["accuracy"]["value"] == pytest.approx((y_pred == y_true).mean())
        for metric, hits, trials in (("accuracy", (y_pred == y_true).sum(), 60),
                                     ("sensitivity", (y_pred & (y_true == 1)).sum(), 20),
                                     ("specificity", (~y_pred & (y_true == 0)).sum(), 40)):
            interval = binomtest(int(hits), trials).proportion_ci(method="wilson")
            assert got[metric]["value"] == hits / trials
            assert (got[metric]["ci_low"], got[metric]["ci_high"]) == pytest.approx(tuple(interval))
            assert got[metric]["ci_method"] == "Wilson"
            assert f"{hits / trials:.3f} ({interval.low:.3f}–{interval.high:.3f})" in printed
        for k, model in enumerate(metrics["models"]):
            assert model["file"] == f"pred_split{k}_run1.csv"
            assert model[name]["auc"]["value"] == pytest.approx(roc_auc_score(y_true, table[f"probs_{k}"]), abs=1e-12)
    for name in ("ensemble_avg.csv", "ensemble_max.csv", "disagreement.csv", "metrics.json", "report.html"):
        assert name in printed and (tmp_path / "out" / name).exists()
    for name in FIGURES:
        files = [tmp_path / "out" / f"{name}.{suffix}" for suffix in ("png", "svg", "pdf")]
        assert all(file.stat().st_size < 1_000_000 for file in files)


def test_same_bytes_whatever_the_order_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "model_files", lambda folder, models: [])  # their digests differ
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    tables = [predictions(seed) for seed in range(3)]
    more = predictions(3).assign(probs=np.random.default_rng(0).random(16) ** 8)
    more[["view", "filename"]] += " later"  # a sum of more than two floats depends on its order
    tables[0] = pd.concat([tables[0], more])
    write(tmp_path / "a", *tables)
    write(tmp_path / "b", *(table.sample(frac=1, random_state=11) for table in tables))
    for folder in ("a", "b"):
        aggregated(tmp_path / folder)
    for path in sorted((tmp_path / "a" / "out").iterdir()):
        content = path.read_bytes().replace(bytes(tmp_path / "a"), bytes(tmp_path / "b"))  # in explain.py's command
        assert content == (tmp_path / "b" / "out" / path.name).read_bytes(), path.name


@pytest.mark.usefixtures("no_figure")
def test_order_of_models_is_split_and_run_or_rank(tmp_path):
    write(tmp_path, predictions(0), predictions(1), predictions(2))
    write(tmp_path, predictions(3), run=10)
    write(tmp_path, predictions(4), run=9)
    files = [model["file"] for model in aggregated(tmp_path)[2]["models"]]
    assert files == ["pred_split0_run1.csv", "pred_split0_run9.csv", "pred_split0_run10.csv", "pred_split1_run1.csv",
                     "pred_split2_run1.csv"]
    write_best(tmp_path / "best_run.csv", [(2, 1), (0, 9), (1, 1)])
    metrics = aggregated(tmp_path)[2]
    assert [(model["split"], model["run"], model["rank"]) for model in metrics["models"]] == [
        (2, 1, 1), (0, 9, 2), (1, 1, 3), (0, 1, None), (0, 10, None)]
    assert any("used, though not in best_run.csv: 2 prediction files" in line and "; --top 3 takes those" in line
               for line in metrics["warnings"])


@pytest.mark.usefixtures("no_figure")
def test_top_takes_the_best_ranks(tmp_path):
    tables = [predictions(seed) for seed in range(4)]
    write(tmp_path, *tables)
    write_best(tmp_path / "ranking.csv", [(3, 1), (1, 1), (0, 1), (2, 1)])
    avg, _, metrics = aggregated(tmp_path, "--top", 2, "--best_run", tmp_path / "ranking.csv")
    assert [model["file"] for model in metrics["models"]] == ["pred_split3_run1.csv", "pred_split1_run1.csv"]
    expected = (tables[3].groupby("scan_id")["probs"].mean() + tables[1].groupby("scan_id")["probs"].mean()) / 2
    np.testing.assert_allclose(avg["ensemble_prob"], expected)
    with pytest.raises(InputError, match="--top 5: .* the predictions of 4"):
        aggregated(tmp_path, "--top", 5, "--best_run", tmp_path / "ranking.csv")
    with pytest.raises(InputError, match="no .*best_run.csv to rank"):
        aggregated(tmp_path, "--top", 2)
    (tmp_path / "pred_split1_run1.csv").unlink()
    with pytest.raises(InputError, match="pred_split1_run1.csv is missing, rank 2"):
        aggregated(tmp_path, "--top", 2, "--best_run", tmp_path / "ranking.csv")


@pytest.mark.usefixtures("no_figure")
@pytest.mark.parametrize("text, message", [
    ("split,run\n0,1\n", "no column rank"), ("split,run,rank\n0,1,first\n", "must be integers"),
    ("split,run,rank\n0,1,1\n1,1,1\n", "each once"), ("split,run,rank\n0,1,1\n0,1,2\n", "each once"),
    ("split,run,rank\n0,1,1,7\n", "line 2: has more fields")])
def test_bad_best_run(tmp_path, text, message):
    write(tmp_path, predictions())
    (tmp_path / "best_run.csv").write_text(text)
    with pytest.raises(InputError, match=f"best_run.csv.*{message}"):
        aggregated(tmp_path)


@pytest.mark.usefixtures("no_figure")
def test_files_of_lars_suffice(tmp_path):
    tables = [predictions(seed)[["scan_id", "target", "probs"]] for seed in range(2)]
    write(tmp_path, *tables)
    avg, _, metrics = aggregated(tmp_path)
    expected = pd.concat(tables).groupby("scan_id")["probs"].mean()
    np.testing.assert_allclose(avg["ensemble_prob"], expected)
    assert metrics["set"] == "test" and metrics["synthetic"] is False and metrics["independent_unit"] == "scan"
    assert [line.split(":")[0].split(",")[0] for line in metrics["warnings"]] == [
        "overlap with the models' training",
        "no threshold but 0.5 is used", "the files have no patient_id", "only 4 scans in one of the classes"]
    write(tmp_path, pd.concat([tables[0], tables[0].iloc[:1]]))
    metrics = aggregated(tmp_path)[2]
    assert any("more than two rows" in line and "s0" in line for line in metrics["warnings"])


@pytest.mark.usefixtures("no_figure")
def test_only_the_rows_of_the_set_are_used(tmp_path, capsys):
    table = predictions()
    more = pd.concat([table, predictions(5).assign(set="val", scan_id=lambda t: "v" + t["scan_id"])])
    write(tmp_path, more)
    avg, _, metrics = aggregated(tmp_path)
    assert list(avg["scan_id"]) == list(SCANS["scan_id"]) and metrics["optimistic"] is None
    avg, _, metrics = aggregated(tmp_path, "--set", "val")
    assert list(avg["scan_id"]) == ["v" + name for name in SCANS["scan_id"]]
    assert "OPTIMISTIC" in metrics["optimistic"] and "OPTIMISTIC" in capsys.readouterr().out
    assert metrics["avg"]["operating_points"] == {} and metrics["validation"]["source"] is None
    assert (avg["notice"] == metrics["optimistic"]).all()
    with pytest.raises(InputError, match="no row with set train; the files hold test, val"):
        aggregated(tmp_path, "--set", "train")


@pytest.mark.usefixtures("no_figure")
def test_scans_that_some_model_lacks_are_reported_and_averaged_over_the_others(tmp_path, capsys):
    tables = [predictions(0), predictions(1).query("scan_id != 's2'")]
    write(tmp_path, *tables)
    avg, _, metrics = aggregated(tmp_path)
    row = avg.set_index("scan_id").loc["s2"]
    assert np.isnan(row["probs_1"]) and row["ensemble_prob"] == row["probs_0"]
    assert metrics["scans_lacking_a_model"] == {"s2": 1}
    assert [model["n_scans"] for model in metrics["models"]] == [8, 7]
    assert "warning: 1 of 8 scans lack some model's prediction" in capsys.readouterr().out
    assert metrics["avg"]["n"] == 8


@pytest.mark.usefixtures("no_figure")
def test_folds_are_pooled_over_the_runs_of_each(tmp_path, capsys):
    write_folds(tmp_path)
    with pytest.raises(InputError, match="no scan is in the sets of two splits: .*--pooled_folds"):
        aggregated(tmp_path)
    avg, _, metrics = aggregated(tmp_path, "--pooled_folds")
    rows = pd.concat([pd.read_csv(path) for path in sorted(tmp_path.glob("pred_*.csv"))])
    expected = rows[rows["set"] == "test"].groupby("scan_id")["probs"].mean()  # 2 runs x 2 views
    np.testing.assert_allclose(avg["ensemble_prob"], expected, rtol=1e-12)
    assert metrics["avg"]["auc"]["value"] == pytest.approx(roc_auc_score(avg["target"], expected))
    assert metrics["scans_lacking_a_model"] == {} and list(metrics["folds"]) == ["0", "1", "2"]
    for split, blocks in metrics["folds"].items():
        mine = avg[avg["scan_id"].str[1:].astype(int) % 3 == int(split)]
        assert blocks["avg"]["n"] == 12
        assert blocks["avg"]["auc"]["value"] == pytest.approx(roc_auc_score(mine["target"], mine["ensemble_prob"]))
    text = "6 models, 2 a scan: 3 folds of a cross-validation, pooled"
    out, page = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()
    assert text in out and text in page
    for label, block in [("All folds, pooled", metrics), *((f"Fold split{k}", metrics["folds"][k]) for k in "012")]:
        row = page[page.index(f">{label}</th>"):].partition("</tr>")[0]
        for name in ("avg", "max"):
            assert f"{block[name]['auc']['value']:.3f}" in row
            assert f"{block[name]['auc']['value']:.3f}" in out


@pytest.mark.usefixtures("no_figure")
def test_folds_of_one_run_have_no_disagreement(tmp_path):
    write_folds(tmp_path, runs=1)
    metrics = aggregated(tmp_path, "--pooled_folds", "--combine", "median")[2]
    assert metrics["avg"]["ensemble_size"] == [] and list(metrics["avg"]["selective"]) == ["probability nearest 0.5"]
    assert "One model a scan." in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("no_figure")
def test_a_run_that_lacks_a_scan_of_its_fold_is_reported(tmp_path, capsys):
    write_folds(tmp_path)
    path = tmp_path / "pred_split1_run2.csv"
    pd.read_csv(path).query("scan_id != 's04'").to_csv(path, index=False)
    _, _, metrics = aggregated(tmp_path, "--pooled_folds")
    assert metrics["scans_lacking_a_model"] == {"s04": 1} and "warning: 1 of 36 scans lack" in capsys.readouterr().out


@pytest.mark.usefixtures("no_figure")
def test_pooled_folds_are_folds_and_all_of_them(tmp_path):
    write_folds(tmp_path)
    write_best(tmp_path / "best_run.csv", [(0, 1), (1, 1), (2, 1)])
    with pytest.raises(InputError, match="--top 2 with --pooled_folds: leaves out the scans of whole folds"):
        aggregated(tmp_path, "--pooled_folds", "--top", 2)
    write(tmp_path / "lars", *splits(3))
    with pytest.raises(InputError, match="two have scans in common"):
        aggregated(tmp_path / "lars", "--pooled_folds")
    write(tmp_path / "one", predictions())
    with pytest.raises(InputError, match="there is one split only"):
        aggregated(tmp_path / "one", "--pooled_folds")


@pytest.mark.usefixtures("no_figure")
def test_single_and_differing_views_are_reported(tmp_path):
    write(tmp_path, predictions(0), predictions(1).drop(index=1))
    warnings = aggregated(tmp_path)[2]["warnings"]
    assert any("more views in one model's file than in another's: s0" in line for line in warnings)
    write(tmp_path, predictions(0).drop(index=1), predictions(1).drop(index=1))
    assert any("1 of 8 scans have one view only: s0" in line for line in aggregated(tmp_path)[2]["warnings"])


@pytest.mark.usefixtures("no_figure")
def test_the_patient_is_the_unit_where_there_is_one(tmp_path):
    scans = pd.DataFrame({"scan_id": [f"s{k:02d}" for k in range(48)], "target": [0, 1] * 24})
    write(tmp_path, predictions(0, scans, patient_id=[f"p{k // 6}" for k in range(96)]))
    metrics = aggregated(tmp_path)[2]
    assert (metrics["independent_unit"], metrics["n_patients"], metrics["avg"]["n_groups"]) == ("patient", 16, 16)
    assert "Obuchowski" in metrics["avg"]["auc"]["ci_method"]
    assert metrics["avg"]["mcc"]["ci_method"] == metrics["avg"]["auc"]["bootstrap"]["method"] == (
        "bootstrap by patient, BCa")
    blank = predictions(0, scans, patient_id=[""] * 6 + [f"p{k // 6}" for k in range(90)])
    write(tmp_path, blank)
    metrics = aggregated(tmp_path)[2]
    assert metrics["n_patients"] == 3 + 15 and any("3 of 48 scans have no patient_id" in line
                                                   for line in metrics["warnings"])
    write(tmp_path, blank, blank.assign(patient_id="other"))
    with pytest.raises(InputError, match="scan s03 has patient_id other in .* and patient_id p0 in"):
        aggregated(tmp_path)


def broken(change):
    table = predictions(1).astype(object)
    change(table)
    return table


@pytest.mark.parametrize("change, message", [
    (lambda t: t.__setitem__("probs", [np.nan] + list(t["probs"][1:])), r"line 2 \(scan s0\): probs ''"),
    (lambda t: t.__setitem__("probs", list(t["probs"][:-1]) + [1.0001]), r"line 17 \(scan s7\): probs '1.0001'"),
    (lambda t: t.__setitem__("probs", [-0.1] + list(t["probs"][1:])), "line 2 .*'-0.1'"),
    (lambda t: t.__setitem__("probs", ["high"] + list(t["probs"][1:])), "line 2 .*'high'"),
    (lambda t: t.__setitem__("target", [2] + list(t["target"][1:])), r"line 2 \(scan s0\): target '2'"),
    (lambda t: t.__setitem__("scan_id", [""] + list(t["scan_id"][1:])), "line 2: scan_id is empty"),
    (lambda t: t.__setitem__("filename", [t["filename"][1]] + list(t["filename"][1:])),
     "line 3: scan s0 has filename s0_sag.bin twice"),
    (lambda t: t.__setitem__("view", "cor"), "line 3: scan s0 has view cor twice"),
    (lambda t: t.__delitem__("probs"), "no column probs"),
])
def test_bad_predictions(tmp_path, change, message):
    write(tmp_path, predictions(0), broken(change))
    with pytest.raises(InputError, match=f"pred_split1_run1.csv.*{message}"):
        aggregated(tmp_path)
    assert not (tmp_path / "out").exists()


def test_conflicting_targets_are_refused(tmp_path):
    write(tmp_path, predictions(0), predictions(1))
    write(tmp_path, predictions(2, SCANS.replace({"target": {0: 1}})), run=2)
    with pytest.raises(InputError, match="scan s0 has target 0 in pred_split0_run1.csv, pred_split1_run1.csv and "
                                         "target 1 in pred_split0_run2.csv"):
        aggregated(tmp_path)


def test_without_targets_no_metrics(tmp_path, capsys):
    write(tmp_path, predictions(0))
    aggregated(tmp_path)
    write(tmp_path, predictions(0, SCANS[["scan_id"]], set="all"), predictions(1, SCANS[["scan_id"]], set="all"))
    avg, largest, metrics = aggregated(tmp_path)
    assert avg["target"].isna().all() and avg["ensemble_prob"].notna().all() and len(largest) == 8
    assert metrics is None, "metrics.json of the earlier predictions is gone"
    left = {path.name for path in (tmp_path / "out").iterdir() if "checklist" not in path.name}  # the author's
    assert left == {"ensemble_avg.csv", "ensemble_max.csv", "disagreement.csv"}
    printed = capsys.readouterr().out
    assert "no scan has a target: no metrics, no figures, no report" in printed and "removed" in printed


@pytest.mark.usefixtures("no_figure")
def test_scans_without_target_are_left_out_of_the_metrics(tmp_path):
    table = predictions(0).astype({"target": object})
    table.loc[table["scan_id"] == "s7", "target"] = ""
    write(tmp_path, table, predictions(1).query("scan_id == 's7'").assign(target=""))
    avg, _, metrics = aggregated(tmp_path)
    assert len(avg) == 8 and metrics["avg"]["n"] == 7 and metrics["n_scans"] == 8
    assert metrics["avg"]["auc"]["value"] == pytest.approx(roc_auc_score(SCANS["target"][:7], avg["ensemble_prob"][:7]))
    assert metrics["models"][1]["avg"]["auc"]["value"] is None and metrics["models"][1]["avg"]["n"] == 0
    assert any("1 of 8 scans have no target" in line for line in metrics["warnings"])


def test_one_class_gives_no_auc(tmp_path, capsys):
    write(tmp_path, predictions(0, SCANS[SCANS["target"] == 1]))
    avg, _, metrics = aggregated(tmp_path)
    assert len(avg) == 4 and metrics["avg"]["auc"]["value"] is None and "target 1" in metrics["avg"]["auc"]["reason"]
    assert metrics["avg"]["specificity"]["value"] is None and metrics["avg"]["sensitivity"]["value"] is not None
    assert not (tmp_path / "out" / "roc.png").exists()
    assert "warning: no AUC and no figures: the AUC needs both classes" in capsys.readouterr().out
    assert "the AUC needs both classes" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("column, value", [("synthetic", 1), ("series_description", "WB SYNTHETIC PET")])
def test_synthetic_mark_is_passed_on(tmp_path, capsys, monkeypatch, column, value):
    notes, write_figure = [], figure_style.write_figure

    def written(folder, name, figure, *rest):
        paths = write_figure(folder, name, figure, *rest)
        notes.append(figure.texts[-1].get_text())
        return paths

    monkeypatch.setattr(figure_style, "write_figure", written)
    write(tmp_path, predictions(**{column: value}), predictions(3, **{column: value}))
    metrics = aggregated(tmp_path)[2]
    line = "The cohort is SYNTHETIC: these numbers say nothing about patients."
    assert metrics["synthetic"] is True and metrics["notice"] == line
    for name in ("ensemble_avg.csv", "ensemble_max.csv", "disagreement.csv"):
        assert (pd.read_csv(tmp_path / "out" / name)["synthetic"] == 1).all()
    assert len(notes) == len(FIGURES) and {" ".join(note.split()) for note in notes} == {line}
    assert line in capsys.readouterr().out and line in (tmp_path / "out" / "report.html").read_text()
    monkeypatch.setattr(figures, "score_figures", lambda *arguments: {})
    write(tmp_path, *[predictions(synthetic=0, series_description="WB PET")] * 2)
    metrics = aggregated(tmp_path)[2]
    assert metrics["synthetic"] is False and metrics["notice"] is None


def test_figures_are_a_journals_columns_wide_and_the_roc_square_with_both_curves(tmp_path, monkeypatch):
    from matplotlib.image import imread
    shown, write_figure = {}, figure_style.write_figure
    monkeypatch.setattr(figure_style, "write_figure", lambda folder, name, figure, *rest: (
        shown.__setitem__(name, figure), write_figure(folder, name, figure, *rest))[1])
    write(tmp_path, predictions(0), predictions(1))
    avg, _, metrics = aggregated(tmp_path)
    axes = shown["roc"].axes[0]
    assert axes.get_xlabel().startswith("False positive rate") and axes.get_ylabel().startswith("True positive rate")
    assert axes.get_aspect() == 1 and axes.get_xlim() == axes.get_ylim() == (0, 1)
    curves = {line.get_label(): line for line in axes.get_lines()}
    for name, label in (("avg", "LARS-avg"), ("max", "LARS-max")):
        auc = metrics[name]["auc"]
        curve = curves[f"{label}: AUC {auc['value']:.3f} ({auc['ci_low']:.3f}–{auc['ci_high']:.3f})"]
        assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(auc["value"])
    for figure in shown.values():
        assert all(axis.get_xlabel() or axis.get_ylabel() or axis.get_title() for axis in figure.axes)
        assert not figure.legends  # they would lie on the note below, "SYNTHETIC" among others
    widths = {imread(tmp_path / "out" / f"{name}.png").shape[1] / 600 * 25.4 for name in shown}
    assert {round(width) for width in widths} == {85, 174}
    svg = (tmp_path / "out" / "roc.svg").read_text()
    assert "specificity" in svg and "<title>Test set" in svg and "Arial" in svg  # text as text
    assert {float(size) for size in re.findall(r"font(?:-size)?: (?:bold )?([\d.]+)px", svg)} == {7}


def test_exit_codes_of_the_process(tmp_path):
    assert "pred_splitS_runR.csv" in error_line(run("aggregate.py", "--dir", tmp_path, "--output", tmp_path))
    write(tmp_path, predictions(0))
    done = run("aggregate.py", "--dir", tmp_path, "--output", tmp_path, check=0)
    assert "LARS-avg" in done.stdout and "report.html" in done.stdout
    assert "--top 1" in error_line(run("aggregate.py", "--dir", tmp_path, "--output", tmp_path, "--top", 1))


@pytest.mark.usefixtures("no_figure")
def test_median(tmp_path):
    tables = [predictions(seed) for seed in range(3)]
    write(tmp_path, *tables)
    avg = aggregated(tmp_path, "--combine", "median")[0]
    np.testing.assert_allclose(avg["ensemble_prob"], avg[["probs_0", "probs_1", "probs_2"]].median(axis=1))


def test_a_scan_in_two_sets_of_a_model_is_refused(tmp_path):
    table = splits(1)[0]
    table.loc[table.index[-1], "set"] = "train"
    write(tmp_path, table)
    with pytest.raises(InputError, match="scan s063 is in test and train; a scan belongs to one set"):
        aggregated(tmp_path)


# ---------------------------------------------------------------- subgroups, disagreement

@pytest.mark.usefixtures("no_figure")
def test_subgroups_by_hand(tmp_path):
    tables = splits(3)
    for table in tables:
        number = table["scan_id"].str[1:].astype(int)
        table["sex"], table["age"], table["grade"] = np.where(number % 4 < 2, "F", ""), number, 2 + number % 2 * 8
    write(tmp_path, *tables)
    avg, _, metrics = aggregated(tmp_path, "--by", "sex", "view", "age", "grade")
    found = metrics["subgroups"]
    assert list(found["sex"]) == ["F", "(missing)"] and list(found["view"]) == ["cor", "sag"]
    assert list(found["grade"]) == ["2", "10"]  # as numbers, not as texts
    assert list(found["age"]) == ["up to 47", "above 47, up to 55", "above 55"]
    number = avg["scan_id"].str[1:].astype(int)
    for rows, block in ((number % 4 < 2, found["sex"]["F"]), (number <= 47, found["age"]["up to 47"])):
        auc = roc_auc_score(avg["target"][rows], avg["ensemble_prob"][rows])
        assert block["avg"]["auc"]["value"] == pytest.approx(auc) and block["avg"]["n"] == rows.sum()
        assert block["avg"]["operating_points"]["youden"]["threshold"] == (
            metrics["avg"]["operating_points"]["youden"]["threshold"])
    cor = sum(t[(t["set"] == "test") & (t["view"] == "cor")].set_index("scan_id")["probs"] for t in tables) / 3
    expected = roc_auc_score(avg["target"], cor.loc[avg["scan_id"]])
    assert found["view"]["cor"]["avg"]["auc"]["value"] == pytest.approx(expected)
    assert metrics["views"]["cor"]["auc"]["value"] == pytest.approx(expected)
    with pytest.raises(InputError, match="no column scanner"):
        aggregated(tmp_path, "--by", "scanner")
    for column in ("scan_id", "target", "probs", "set", "file", "L0", "L12"):
        with pytest.raises(InputError, match=f"--by {column}: is of the predictions, not of the scans"):
            aggregated(tmp_path, "--by", "sex", column)
    tables[0]["sex"] = "M"
    write(tmp_path, *tables)
    with pytest.raises(InputError, match="has sex .* and sex M in"):
        aggregated(tmp_path, "--by", "sex")
    write(tmp_path, *(t.assign(sex=t["scan_id"]) for t in tables), )
    assert len(aggregated(tmp_path, "--by", "sex")[2]["subgroups"]["sex"]) == 24


@pytest.mark.usefixtures("no_figure")
def test_disagreement_is_listed_largest_first(tmp_path):
    write(tmp_path, *(predictions(seed) for seed in range(4)))
    avg, _, metrics = aggregated(tmp_path)
    table = pd.read_csv(tmp_path / "out" / "disagreement.csv")
    each = avg.set_index("scan_id")[[f"probs_{k}" for k in range(4)]]
    assert (np.diff(table["sd"]) <= 0).all()
    table = table.set_index("scan_id").loc[each.index]
    np.testing.assert_allclose(table["sd"], each.std(axis=1))
    np.testing.assert_allclose(table["vote_share"], (each >= 0.5).mean(axis=1))
    np.testing.assert_allclose(table["consistency"], np.maximum(table["vote_share"], 1 - table["vote_share"]))
    sizes = metrics["avg"]["ensemble_size"]
    assert [row["n_subsets"] for row in sizes] == [4, 6, 4, 1]
    assert sizes[-1]["mean"] == pytest.approx(metrics["avg"]["auc"]["value"])
    singles = [roc_auc_score(avg["target"], each[name]) for name in each]
    assert (sizes[0]["min"], sizes[0]["max"]) == pytest.approx((min(singles), max(singles)))


@pytest.mark.usefixtures("no_figure")
def test_same_metrics_whatever_the_order_of_the_files(tmp_path, monkeypatch):
    import random
    from pathlib import Path
    write(tmp_path, *splits())
    call(aggregate, "--dir", tmp_path, "--output", tmp_path / "a", "--recalibrate", "platt", "--resamples", 100)
    listed, shuffle = Path.glob, random.Random(1).shuffle

    def shuffled(self, pattern):
        paths = list(listed(self, pattern))
        shuffle(paths)
        return iter(paths)

    monkeypatch.setattr(Path, "glob", shuffled)
    call(aggregate, "--dir", tmp_path, "--output", tmp_path / "b", "--recalibrate", "platt", "--resamples", 100)
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {path.name for path in (tmp_path / "b").iterdir()}
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
