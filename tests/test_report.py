"""report.html and what it says of models and cohort; disagreement and selective prediction."""
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from conftest import call
from hypothesis import given
from hypothesis import strategies as st
from page_helpers import Page
from prediction_helpers import splits, write
from sklearn.metrics import roc_auc_score

import aggregate
from evaluation import disagreement, estimates, figures, provenance, report
from evaluation.ensemble import Model


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    tables = [table.assign(ward="<b>A&B</b>") for table in splits()]
    for table in tables:
        table.loc[table["scan_id"] == "s050", "scan_id"] = "<script>s050"
    write(folder, *tables)
    call(aggregate, "--dir", folder, "--output", folder / "out", "--resamples", 60, "--by", "ward", "--recalibrate",
         "isotonic")
    page = Page((folder / "out" / "report.html").read_text())
    page.folder = folder / "out"
    return page


def test_page_is_whole_offline_and_escaped(page):
    assert page.open == []
    assert all(link[1:] in page.ids if link[0] == "#" else (page.folder / link).is_file() for link in page.links)
    assert len(page.sources) == len(report.FIGURES)  # a forest plot, and no site confusion
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert len(page.ids) == len(set(page.ids))
    text = "".join(page.words)
    assert "<b>A&B</b>" in text and "script" not in page.open
    for part in ("For research use only", "LARS-avg", "Operating points", "validation predictions", "Calibration slope",
                 "TRIPOD+AI", "Methods", "No settings found", "after isotonic"):
        assert part in text, part


def test_page_without_validation_targets_of_both_classes_or_several_models(tmp_path):
    table = splits(1)[0]
    write(tmp_path, table[(table["set"] == "test") & (table["target"] == 1)][["scan_id", "target", "probs"]])
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--resamples", 20)
    text = "".join(Page((tmp_path / "report.html").read_text()).words)
    assert "No threshold but 0.5" in text and "One model only" in text and "No figures: they need scans of both" in text
    assert "\n1 model. Intervals are" in text
    said = pd.read_csv(tmp_path / "checklist_claim.csv", index_col="item")["this_run"]
    assert "over its views; one model, no ensemble." in said[27]


@pytest.mark.parametrize(("values", "text"), [
    ([0.25, 0.5, 0.75], "0.250 to 0.750 of the models"), ([0.5], "0.500 of one model"),
    ([None, 0.5], "0.500 of one model; not reached by 1 of 2"), ([None], "not reached by 1 of 1")])
def test_thresholds_of_several_models_as_text(values, text):
    point = {"threshold": None, "by": "majority", "thresholds": dict(enumerate(values))}
    assert report.thresholds_text(point) == text


# ---------------------------------------------------------------- settings of the models, cohort

def write_settings(folder, split, **content):
    (folder / f"settings_split{split}_run1.json").write_text(json.dumps(content))


def test_settings_are_shown_as_texts(tmp_path):
    assert provenance.models_settings(tmp_path, [Model(tmp_path, "m", 0, 1)]) == ([], [])
    write_settings(tmp_path, 0, args={"lr": 0.01, "image_size": [310], "checkpoint": None, "balance": True},
                   epoch=3, auc=0.9,
                   commit="abc", versions={"torch": "2"}, data_hash="f00", model={"drop": 1},
                   input={"frame": [64, 32], "norm": [2, 3]})
    rows, _ = provenance.models_settings(tmp_path, [Model(tmp_path, "m", 0, 1)])
    assert {row["name"]: row["values"] for row in rows} == {
        "commit": ["abc"], "data hash": ["f00"], "epoch kept": ["3"], "version of torch": ["2"],
        "input: frame": ["64 32"], "input: norm": ["2 3"],
        "--lr": ["0.01"], "--image_size": ["310"], "--checkpoint": ["None"],
        "--balance": ["True"]}


@pytest.mark.parametrize("text", ["", "[1]", '{"args": {"lr": 1}'])
def test_settings_that_cannot_be_read_are_said(tmp_path, text):
    (tmp_path / "settings_split0_run1.json").write_text(text)
    rows, (warning,) = provenance.models_settings(tmp_path, [Model(tmp_path, "m", 0, 1)])
    assert rows == [] and "settings_split0_run1.json" in warning


def test_report_shows_what_is_common_and_what_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "score_figures", lambda *arguments: {})
    write(tmp_path, *splits(3))
    for k, lr in enumerate((0.01, 0.02)):
        write_settings(tmp_path, k, args={"lr": lr, "wd": 7e-5, "balance": True}, commit="c0ffee")
    call(aggregate, "--dir", tmp_path, "--output", tmp_path / "out", "--resamples", 20)
    models = [Model(tmp_path, "m", k, 1) for k in range(3)]
    rows, warnings = provenance.models_settings(tmp_path, models)
    shown = {row["name"]: row["values"] for row in rows}
    assert shown["--lr"] == ["0.01", "0.02", "not stored"] and shown["commit"] == ["c0ffee", "c0ffee", "not stored"]
    assert warnings == [f"no settings in {tmp_path} of 1 model: settings_split2_run1.json; {provenance.REMEDY}"]
    assert "c0ffee" in (tmp_path / "out" / "report.html").read_text()
    list_of = pd.read_csv(tmp_path / "out" / "checklist_tripod_ai.csv", index_col="item")["this_run"]
    assert list_of["13"] == "Section Models: --balance True / not stored. For the author: why."


def test_cohort_flow_from_the_manifest(tmp_path):
    tables = splits(2)
    manifest = tables[0][["scan_id", "filename", "target", "patient_id", "view"]].copy()
    for k, table in enumerate(tables):
        manifest[f"split{k}"] = table["set"]
    manifest.to_csv(tmp_path / "data.csv", index=False)
    pd.DataFrame({"attribute": ["Units", "Units", "PatientWeight"]}).to_csv(tmp_path / "errors.csv", index=False)
    models = [Model(tmp_path, f"m{k}", k, rows=t[t["set"] == "test"], val_rows=t[t["set"] == "val"])
              for k, t in enumerate(tables)]
    flow = provenance.cohort_flow(models, "test", tmp_path / "data.csv")
    assert flow["excluded"] == {"Units": 2, "PatientWeight": 1} and flow["rows"][0]["scans"] == 64
    for row in flow["rows"][1:]:
        mine = manifest[manifest[row["split"].replace(" ", "")] == row["set"]].drop_duplicates("scan_id")
        assert (row["scans"], row["patients"], row["positive"]) == (
            len(mine), mine["patient_id"].nunique(), mine["target"].sum())
    without = provenance.cohort_flow(models, "test")
    assert [row["set"] for row in without["rows"]] == ["test", "val"] * 2 and without["excluded"] is None
    assert without["rows"][0] == flow["rows"][3] | {"split": "m0"}
    manifest.replace({"patient_id": {"p000": " "}}).to_csv(tmp_path / "data.csv", index=False)  # of two scans
    assert provenance.cohort_flow(models, "test", tmp_path / "data.csv")["rows"][0]["patients"] == 32 + 1


def test_referral_has_a_column_for_each_share():
    curve = [{"referred": 0.0, "accuracy": 0.75, "n_kept": 8}, {"referred": 0.5, "accuracy": 1.0, "n_kept": 4}]
    assert report.referral_table({"sd": curve}) == (["Referred first", "0 % referred", "50 % referred"],
                                                    [["sd", "0.750 of 8 scans", "1.000 of 4 scans"]])


def test_an_estimate_in_words():
    entry = {"value": -0.1234, "ci_low": -0.5, "ci_high": 0.25, "ci_method": "x"}
    assert estimates.long_text(entry) == "−0.123 (−0.500 to 0.250)"
    assert estimates.long_text(entry | {"ci_low": None, "reason": "few"}) == "−0.123 (no interval: few)"
    assert estimates.long_text({key: -0.0004 for key in ("value", "ci_low", "ci_high")}) == "0.000 (0.000 to 0.000)"
    assert estimates.long_text({"value": None, "reason": "one class"}) == "none: one class"


# ---------------------------------------------------------------- disagreement, selective prediction

@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=12))
def test_selective_accuracy_is_the_mean_over_all_orders_of_ties(scans):
    correct, doubt = (np.array(values) for values in zip(*scans, strict=True))
    referred, accuracy = disagreement.selective_accuracy(correct, doubt)
    assert accuracy[0] == pytest.approx(correct.mean()) and referred[0] == 0
    for level in set(doubt):
        keep = doubt <= level
        assert accuracy[len(scans) - keep.sum()] == pytest.approx(correct[keep].mean())
    assert accuracy[-1] == pytest.approx(correct[doubt == doubt.min()].mean())
    shuffled = disagreement.selective_accuracy(correct[::-1], np.exp(doubt[::-1]))
    np.testing.assert_allclose(shuffled[1], accuracy)


def test_auc_by_size_equals_all_subsets():
    rng = np.random.default_rng(0)
    y, scores = np.arange(30) % 2, rng.random((30, 5)).round(1) + 0.2 * (np.arange(30) % 2)[:, None]
    for row, size in zip(disagreement.auc_by_size(scores, y), range(1, 6), strict=True):
        aucs = [roc_auc_score(y, scores[:, list(members)].mean(axis=1))
                for members in itertools.combinations(range(5), size)]
        assert (row["n_subsets"], row["mean"]) == (len(aucs), pytest.approx(np.mean(aucs)))
    assert disagreement.auc_by_size(scores, np.ones(30)) == []


def test_a_mean_outside_of_its_bar_is_drawn():
    """One subset of 200 that fails: the mean is below the 2.5 % quantile, which is 1."""
    sizes = [{"size": size, "mean": 0.9999, "low": 1.0, "high": 1.0} for size in (1, 2)]
    assert figures.ensemble_size({"LARS-avg": {"ensemble_size": sizes}}).axes


def test_random_subsets_are_different_and_seeded():
    members = disagreement.subsets_of(20, 10, 0)
    assert members.shape == (200, 10) and len({tuple(row) for row in members.tolist()}) == 200
    assert (np.diff(members, axis=1) > 0).all()
    np.testing.assert_array_equal(members, disagreement.subsets_of(20, 10, 0))
    assert len(disagreement.subsets_of(20, 2, 0)) == 190
