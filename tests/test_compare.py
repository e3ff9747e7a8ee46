import json

import numpy as np
import pandas as pd
import pytest
from conftest import call, error_line, run
from prediction_helpers import predictions
from sklearn.metrics import roc_auc_score

import compare
from common.files import InputError
from evaluation import comparison


def ensembles(folder, n=60, seed=0, names=("a", "b", "c"), **columns):
    """Ensemble files of the same scans, as aggregate.py writes them, each noisier than the one before."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    tables = []
    for k, name in enumerate(names):
        p = np.clip(rng.normal(0.35 + 0.3 * y, 0.2 + 0.15 * k), 0.01, 0.99)
        table = pd.DataFrame({"scan_id": [f"s{i:03d}" for i in range(n)], "target": y, "ensemble_prob": p,
                              "pred_label": (p >= 0.5).astype(int), "pred_youden": (p >= 0.45).astype(int),
                              "patient_id": [f"p{i // 3}" for i in range(n)]}).assign(**columns)
        table.to_csv(folder / f"{name}.csv", index=False)
        tables.append(table)
    return tables


def compared(tmp_path, *files, options=()):
    paths = (tmp_path / f"{name}.csv" for name in files)
    call(compare, *paths, "--output", tmp_path / "out", "--resamples", 199, *options)
    return json.loads((tmp_path / "out" / "compare.json").read_text())


def test_three_ensembles(tmp_path, capsys):
    tables = ensembles(tmp_path)
    result = compared(tmp_path, "a", "b", "c")
    assert [(pair["a"], pair["b"]) for pair in result["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (result["n_scans"], result["n_patients"], result["independent_unit"]) == (60, 20, "patient")
    aucs = [roc_auc_score(table["target"], table["ensemble_prob"]) for table in tables]
    for (first, second), pair in zip([(0, 1), (0, 2), (1, 2)], result["pairs"], strict=True):
        for test in ("delong", "bootstrap"):
            assert pair[test]["difference"] == pytest.approx(aucs[first] - aucs[second])
            assert pair[test]["p"] <= pair[test]["p_holm"] <= 3 * pair[test]["p"] + 1e-12
            assert (pair[test]["p"] < 0.05) == (not pair[test]["ci_low"] <= 0 <= pair[test]["ci_high"])
        right = [table["pred_label"] == table["target"] for table in (tables[first], tables[second])]
        assert pair["mcnemar"]["only_a_right"] == (right[0] & ~right[1]).sum()
        assert pair["accuracy"]["difference"] == pytest.approx(right[0].mean() - right[1].mean())
    table = pd.read_csv(tmp_path / "out" / "compare.csv")
    assert len(table) == 21 and "notice" not in table
    out, page = capsys.readouterr().out, (tmp_path / "out" / "compare.html").read_text()
    for text in ("AUC, DeLong", "Errors, exact McNemar", "a less b"):
        assert text in out and text in page
    assert "McNemar's p takes scans as independent" in out


def test_what_is_odd_about_scans_and_views_is_said(tmp_path):
    """Of eight scans s0 has no patient; the first file has three rows of a scan, the second one; an ensemble's has no
    views to doubt."""
    tables = [predictions(k, patient_id="p").drop(columns=["view", "filename"]) for k in (0, 1)]
    tables = [table.assign(patient_id=table["scan_id"].where(table["scan_id"] != "s0", "")) for table in tables]
    pd.concat([tables[0], tables[0][::2]]).to_csv(tmp_path / "a.csv", index=False)
    tables[1][::2].to_csv(tmp_path / "b.csv", index=False)
    tables[1][::2].rename(columns={"probs": "ensemble_prob"}).to_csv(tmp_path / "c.csv", index=False)
    blank, views, rows, one = (
        "1 of 8 scans have no patient_id and count as a patient each: s0",
        "8 of 8 scans have more views in one model's file than in another's",
        "8 of 8 scans have more than two rows; without column filename or view", "8 of 8 scans have one view only")
    (tmp_path / "d.csv").write_text((tmp_path / "c.csv").read_text())
    for files, said in (("ab", [blank, views, rows]), ("bc", [blank, one]), ("ac", [blank, rows]), ("cd", [blank])):
        warnings = compared(tmp_path, *files)["warnings"]
        assert [text for text in (blank, views, rows, one) for line in warnings if line.startswith(text)] == said


def test_swapped_files_mirror_the_result(tmp_path):
    ensembles(tmp_path)
    one, two = (compared(tmp_path, *names)["pairs"][0] for names in (("a", "b"), ("b", "a")))
    for test in comparison.TESTS:
        assert one[test]["p"] == pytest.approx(two[test]["p"])
    for test in ("delong", "bootstrap", "accuracy", "nri"):
        assert one[test]["difference"] == pytest.approx(-two[test]["difference"])
        assert one[test]["ci_low"] == pytest.approx(-two[test]["ci_high"])


def test_scans_are_paired_by_id_and_what_is_missing_is_named(tmp_path, capsys):
    tables = ensembles(tmp_path)
    tables[1].sample(frac=1, random_state=0).query("scan_id != 's007'").to_csv(tmp_path / "b.csv", index=False)
    result = compared(tmp_path, "a", "b")
    assert result["n_scans"] == 59 and "b lacks 1 of 60 scans, which are left out: s007" in capsys.readouterr().out
    keep = tables[0]["scan_id"] != "s007"
    expected = (roc_auc_score(tables[0]["target"][keep], tables[0]["ensemble_prob"][keep])
                - roc_auc_score(tables[1]["target"][keep], tables[1]["ensemble_prob"][keep]))
    assert result["pairs"][0]["delong"]["difference"] == pytest.approx(expected)


def test_thresholds(tmp_path):
    tables = ensembles(tmp_path)
    counts = [compared(tmp_path, "a", "b", options=["--threshold", *values])["pairs"][0]["mcnemar"]
              for values in (["youden"], ["0.45"], ["0.45", "0.6"])]
    assert counts[0] == counts[1]
    y = tables[0]["target"]
    right = [(table["ensemble_prob"] >= at) == y for table, at in zip(tables, (0.45, 0.6), strict=False)]
    assert counts[2]["only_a_right"] == (right[0] & ~right[1]).sum()


@pytest.mark.parametrize("texts", [("0", "1"), ("0.0", "1.0"), (" 0 ", "1.00"), ("0e0", "1e0")])
def test_calls_are_read_as_numbers(tmp_path, texts):
    """As text, "1.0" was negative: McNemar's p of 0.250 became one below 0.001."""
    tables = ensembles(tmp_path, names=("a", "b"))
    y = tables[0]["target"].to_numpy()
    wrong = np.isin(np.arange(60), [3, 4, 5])
    for name, table, calls in (("a", tables[0], y), ("b", tables[1], np.where(wrong, 1 - y, y))):
        table.assign(pred_youden=np.array(texts)[calls]).to_csv(tmp_path / f"{name}.csv", index=False)
    pair = compared(tmp_path, "a", "b", options=["--threshold", "youden"])["pairs"][0]
    assert (pair["mcnemar"]["only_a_right"], pair["mcnemar"]["only_b_right"]) == (3, 0)
    assert pair["mcnemar"]["p"] == pytest.approx(0.25)


@pytest.mark.parametrize("text", ["", " ", "positive", "True", "nan", "2", "0.5", "-1"])
def test_other_calls_are_refused(tmp_path, text):
    tables = ensembles(tmp_path, names=("a", "b"))
    column = tables[1]["pred_youden"].astype(object)
    column[7] = text
    tables[1].assign(pred_youden=column).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(InputError, match=rf"b.csv, line 9 \(scan s007\): pred_youden '{text.strip()} ?'; it must be 0"):
        compared(tmp_path, "a", "b", options=["--threshold", "youden"])
    assert compared(tmp_path, "a", "b")["n_scans"] == 60, "no call of that column is used"


def test_views_of_a_scan_have_the_same_call(tmp_path):
    table = ensembles(tmp_path, names=("a",))[0]
    views = pd.concat([table.assign(view=view, probs=table["ensemble_prob"]) for view in ("cor", "sag")])
    views = views.drop(columns="ensemble_prob").reset_index(drop=True)
    views.to_csv(tmp_path / "m.csv", index=False)
    counts = compared(tmp_path, "a", "m", options=["--threshold", "youden"])["pairs"][0]["mcnemar"]
    assert counts["only_a_right"] == counts["only_b_right"] == 0
    views.loc[60, "pred_youden"] = 1 - views.loc[60, "pred_youden"]
    views.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(InputError, match="m.csv: scan s000 has pred_youden 0 and 1"):
        compared(tmp_path, "a", "m", options=["--threshold", "youden"])


def test_notices_are_passed_on(tmp_path, capsys):
    ensembles(tmp_path, notice="OPTIMISTIC: thresholds from the test set", synthetic=1)
    result = compared(tmp_path, "a", "b")
    assert len(result["notices"]) == 2 and "OPTIMISTIC" in capsys.readouterr().out
    assert "OPTIMISTIC" in (tmp_path / "out" / "compare.html").read_text()
    assert pd.read_csv(tmp_path / "out" / "compare.csv")["notice"].str.contains("OPTIMISTIC").all()


def test_predictions_of_one_model_are_read_too(tmp_path, capsys):
    tables = ensembles(tmp_path)
    views = pd.concat([tables[0].assign(view=view) for view in ("cor", "sag")])
    views["probs"] = views["ensemble_prob"]
    views[["scan_id", "target", "probs", "view"]].to_csv(tmp_path / "m.csv", index=False)
    result = compared(tmp_path, "a", "m")
    assert result["pairs"][0]["bootstrap"]["difference"] == 0 and result["pairs"][0]["delong"]["p"] == 1
    assert result["independent_unit"] == "scan" and "no patient_id in m" in capsys.readouterr().out


@pytest.mark.parametrize("change, options, message", [
    (lambda t: t.assign(target=1 - t["target"]), [], "scan s000 has target 0 in a and target 1 in b"),
    (lambda t: t.assign(patient_id="x"), [], "scan s000 has patient_id p0 in a and patient_id x in b"),
    (lambda t: pd.concat([t, t.iloc[:1]]), [], r"b.csv, line 62: scan s000 is there twice"),
    (lambda t: t.assign(ensemble_prob=np.nan), [], r"b.csv, line 2 \(scan s000\): probs ''"),
    (lambda t: t.assign(scan_id="other" + t["scan_id"]), [], "no scan with a target is in every file"),
    (lambda t: t.drop(columns="ensemble_prob"), [], "has neither ensemble_prob nor probs"),
    (lambda t: t.assign(set="val"), [], "has no row with set test"),
    (lambda t: t, ["--threshold", "sensitivity95"], "has no column pred_sensitivity95 that is filled in"),
    (lambda t: t.assign(pred_specificity95=""), ["--threshold", "0.5", "specificity95"],
     "b.csv has no column pred_specificity95 that is filled in; .* its scores reach"),
    (lambda t: t, ["--threshold", "1.5"], "a probability lies in 0..1"),
    (lambda t: t, ["--threshold", "0.5", "0.5", "0.5"], "3 values for 2 files"),
    (lambda t: t, ["--names", "same", "same"], "2 different ones"),
    (lambda t: t, ["--set", "val"], "--set val: no file has a column set"),
])
def test_bad_input(tmp_path, change, options, message):
    tables = ensembles(tmp_path)
    change(tables[1]).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(InputError, match=message):
        compared(tmp_path, "a", "b", options=options)
    assert not (tmp_path / "out").exists()


def test_one_class_only_gives_reasons(tmp_path, capsys):
    for name, table in zip("ab", ensembles(tmp_path), strict=False):
        table[table["target"] == 1].to_csv(tmp_path / f"{name}.csv", index=False)
    pair = compared(tmp_path, "a", "b")["pairs"][0]
    for test in ("delong", "bootstrap", "nri"):
        assert pair[test]["p"] is None and pair[test]["reason"]
    assert pair["mcnemar"]["p"] is not None and "none" in capsys.readouterr().out


def test_names_tell_files_of_the_same_name_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        ensembles(tmp_path / folder, names=("ensemble_avg",), seed=ord(folder))
    result = compared(tmp_path, "x/ensemble_avg", "y/ensemble_avg")
    assert [each["name"] for each in result["ensembles"]] == ["x/ensemble_avg", "y/ensemble_avg"]


def test_exit_codes_of_the_process(tmp_path):
    ensembles(tmp_path)
    run("compare.py", tmp_path / "a.csv", tmp_path / "b.csv", "--output", tmp_path / "out", check=0)
    assert "one file; give two" in error_line(run("compare.py", tmp_path / "a.csv", "--output", tmp_path))
    twice = run("compare.py", tmp_path / "b.csv", tmp_path / "a.csv", tmp_path / "a.csv", "--output", tmp_path)
    assert f"{tmp_path / 'a.csv'}: is given twice" in error_line(twice)


def test_scans_that_a_model_learned_from_are_marked(tmp_path, capsys):
    """--set train and val, and of set all what the column overlap says; of an ensemble aggregate.py's notice does."""
    known = predictions(0)["scan_id"].isin(["s1", "s6"])
    for name, columns in {"a": {"set": "val"}, "b": {"set": "val"}, "c": {"set": "all", "overlap": "none"}}.items():
        predictions(ord(name), **columns).to_csv(tmp_path / f"{name}.csv", index=False)
    predictions(3, set="all", overlap=np.where(known, "train", "none")).to_csv(tmp_path / "d.csv", index=False)
    both = [f"OPTIMISTIC: 8 of 8 scans, or their patients, were trained or validated on by {name}" for name in "ab"]
    assert compared(tmp_path, "a", "b", options=["--set", "val"])["notices"] == both
    pages = [capsys.readouterr().out, *((tmp_path / "out" / f"compare.{kind}").read_text() for kind in ("html", "csv"))]
    assert all(line in page for line in both for page in pages)
    assert compared(tmp_path, "c", "d", options=["--set", "all"])["notices"] == [
        "OPTIMISTIC: 2 of 8 scans, or their patients, were trained or validated on by d"]
    predictions(1).to_csv(tmp_path / "a.csv", index=False)
    predictions(2).to_csv(tmp_path / "b.csv", index=False)
    assert compared(tmp_path, "a", "b")["notices"] == []
