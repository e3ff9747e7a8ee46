import json

import numpy as np
import pandas as pd
import pytest
from conftest import call, error_line, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

import aggregate
from files import InputError

SCANS = pd.DataFrame({"scan_id": [f"s{k}" for k in range(8)], "target": [0, 0, 0, 0, 1, 1, 1, 1]})


def predictions(seed=0, scans=SCANS, **columns):
    """Two views per scan as predict.py writes them, a few features included."""
    rng = np.random.default_rng(seed)
    table = scans.loc[scans.index.repeat(2)].reset_index(drop=True)
    table["view"] = ["cor", "sag"] * len(scans)
    table["filename"] = table["scan_id"] + "_" + table["view"] + ".bin"
    table["set"] = "test"
    table["probs"] = np.clip(rng.normal(0.35 + 0.3 * table.get("target", 0), 0.2), 0.01, 0.99)
    return table.assign(**columns, F1=0.5, F2=-1.5, F512=2.5)


def write(folder, *tables, run=1):
    folder.mkdir(exist_ok=True)
    for split, table in enumerate(tables):
        table.to_csv(folder / f"pred_split{split}_run{run}.csv", index=False)


def write_best(path, ranked):
    pd.DataFrame([(split, run, 1, "auc", 0.9 - rank / 100, rank) for rank, (split, run) in enumerate(ranked, 1)],
                 columns=["split", "run", "epoch", "metric", "value", "rank"]).to_csv(path, index=False)


def aggregated(tmp_path, *options):
    call(aggregate, "--dir", tmp_path, "--output", tmp_path / "out", *options)
    tables = [pd.read_csv(tmp_path / "out" / f"ensemble_{name}.csv") for name in ("avg", "max")]
    path = tmp_path / "out" / "metrics.json"
    return *tables, json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def no_figure(monkeypatch):
    """Most of the time of a call goes into the figure."""
    monkeypatch.setattr(aggregate, "draw_roc", lambda *arguments: [])


def test_label_at_the_threshold(tmp_path):
    write(tmp_path, predictions(scans=SCANS[:3]).assign(probs=[0.25, 0.75, 0.49, 0.49, 0.51, 0.51]))
    assert list(aggregated(tmp_path)[0]["pred_label"]) == [1, 0, 1]


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


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=12, max_size=12))
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
            assert f"{hits / trials:.3f} [{interval.low:.3f}, {interval.high:.3f}]" in printed
        for k, model in enumerate(metrics["models"]):
            assert model["file"] == f"pred_split{k}_run1.csv"
            assert model[f"auc_{name}"]["value"] == pytest.approx(roc_auc_score(y_true, table[f"probs_{k}"]), abs=1e-12)
    for name in ("ensemble_avg.csv", "ensemble_max.csv", "metrics.json", "roc.png", "roc.svg"):
        assert str(tmp_path / "out" / name) in printed and (tmp_path / "out" / name).stat().st_size < 300_000


def test_same_bytes_whatever_the_order_of_rows(tmp_path):
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
        assert path.read_bytes() == (tmp_path / "b" / "out" / path.name).read_bytes(), path.name


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
    assert any("2 prediction files are not in best_run.csv" in line for line in metrics["warnings"])


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
    assert metrics["set"] == "test" and metrics["warnings"] == [] and metrics["synthetic"] is False
    write(tmp_path, pd.concat([tables[0], tables[0].iloc[:1]]))
    metrics = aggregated(tmp_path)[2]
    assert any("more than two rows" in line and "s0" in line for line in metrics["warnings"])


@pytest.mark.usefixtures("no_figure")
def test_only_the_rows_of_the_set_are_used(tmp_path, capsys):
    table = predictions()
    more = pd.concat([table, predictions(5).assign(set="val", scan_id=lambda t: "v" + t["scan_id"])])
    write(tmp_path, more)
    avg, _, metrics = aggregated(tmp_path)
    assert list(avg["scan_id"]) == list(SCANS["scan_id"]) and metrics["warnings"] == []
    avg, _, metrics = aggregated(tmp_path, "--set", "val")
    assert list(avg["scan_id"]) == ["v" + name for name in SCANS["scan_id"]]
    assert "OPTIMISTIC" in metrics["warnings"][0] and "OPTIMISTIC" in capsys.readouterr().out
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
def test_single_and_differing_views_are_reported(tmp_path):
    write(tmp_path, predictions(0), predictions(1).drop(index=1))
    warnings = aggregated(tmp_path)[2]["warnings"]
    assert any("more views in one model's file than in another's: s0" in line for line in warnings)
    write(tmp_path, predictions(0).drop(index=1), predictions(1).drop(index=1))
    assert any("1 of 8 scans have one view only: s0" in line for line in aggregated(tmp_path)[2]["warnings"])


@pytest.mark.usefixtures("no_figure")
def test_several_scans_of_a_patient_are_reported(tmp_path):
    write(tmp_path, predictions(patient_id=["p0"] * 6 + [f"p{k}" for k in range(1, 6) for _ in range(2)]))
    assert any("1 patients have several scans" in line for line in aggregated(tmp_path)[2]["warnings"])


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
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ensemble_avg.csv", "ensemble_max.csv"}
    printed = capsys.readouterr().out
    assert "no scan has a target: no metrics, no figure" in printed and "removed" in printed


@pytest.mark.usefixtures("no_figure")
def test_scans_without_target_are_left_out_of_the_metrics(tmp_path):
    table = predictions(0).astype({"target": object})
    table.loc[table["scan_id"] == "s7", "target"] = ""
    write(tmp_path, table, predictions(1).query("scan_id == 's7'").assign(target=""))
    avg, _, metrics = aggregated(tmp_path)
    assert len(avg) == 8 and metrics["avg"]["n"] == 7 and metrics["n_scans"] == 8
    assert metrics["avg"]["auc"]["value"] == pytest.approx(roc_auc_score(SCANS["target"][:7], avg["ensemble_prob"][:7]))
    assert metrics["models"][1]["auc_avg"]["value"] is None
    assert any("1 of 8 scans have no target" in line for line in metrics["warnings"])


def test_one_class_gives_no_auc(tmp_path, capsys):
    write(tmp_path, predictions(0, SCANS[SCANS["target"] == 1]))
    avg, _, metrics = aggregated(tmp_path)
    assert len(avg) == 4 and metrics["avg"]["auc"]["value"] is None and "target 1" in metrics["avg"]["auc"]["reason"]
    assert metrics["avg"]["specificity"]["value"] is None and metrics["avg"]["sensitivity"]["value"] is not None
    assert not (tmp_path / "out" / "roc.png").exists()
    assert "warning: no AUC and no figure: the AUC needs both classes" in capsys.readouterr().out


@pytest.mark.parametrize("column, value", [("synthetic", 1), ("synthetic", True),
                                           ("series_description", "WB SYNTHETIC PET")])
def test_synthetic_mark_is_passed_on(tmp_path, capsys, monkeypatch, column, value):
    from matplotlib.figure import Figure
    texts = []
    monkeypatch.setattr(Figure, "text", lambda self, x, y, text, **options: texts.append(text))
    write(tmp_path, predictions(**{column: value}))
    metrics = aggregated(tmp_path)[2]
    line = "The cohort is SYNTHETIC: these numbers say nothing about patients."
    assert metrics["synthetic"] is True and metrics["notice"] == line and texts == [line]
    assert line in capsys.readouterr().out
    write(tmp_path, predictions(synthetic=0, series_description="WB PET"))
    metrics = aggregated(tmp_path)[2]
    assert metrics["synthetic"] is False and metrics["notice"] is None and len(texts) == 1


def test_figure_is_square_at_300_dpi_with_both_curves(tmp_path, monkeypatch):
    from matplotlib import pyplot as plt
    from matplotlib.image import imread
    shown = []
    monkeypatch.setattr(plt, "close", lambda figure: shown.append(figure))
    write(tmp_path, predictions(0), predictions(1))
    avg, _, metrics = aggregated(tmp_path)
    axes = shown[0].axes[0]
    assert axes.get_xlabel().startswith("False positive rate") and axes.get_ylabel().startswith("True positive rate")
    assert axes.get_aspect() == 1 and axes.get_xlim() == axes.get_ylim() == (0, 1)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith(f"LARS-avg: AUC {metrics['avg']['auc']['value']:.3f} (95 % CI")
    assert labels[1].startswith("LARS-max")
    curve = axes.get_lines()[1]
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(metrics["avg"]["auc"]["value"])
    assert min(imread(tmp_path / "out" / "roc.png").shape[:2]) > 1100  # four inches
    shown[0].clear()


def test_exit_codes_of_the_process(tmp_path):
    assert "pred_splitS_runR.csv" in error_line(run("aggregate.py", "--dir", tmp_path, "--output", tmp_path))
    write(tmp_path, predictions(0))
    done = run("aggregate.py", "--dir", tmp_path, "--output", tmp_path, check=0)
    assert "LARS-avg" in done.stdout and "roc.svg" in done.stdout
    assert "--top 1" in error_line(run("aggregate.py", "--dir", tmp_path, "--output", tmp_path, "--top", 1))
