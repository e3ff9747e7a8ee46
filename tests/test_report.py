"""report.html and what it says of models and cohort; disagreement and selective prediction."""
import collections
import itertools

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
from common.files import InputError
from evaluation import disagreement, provenance, report


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    tables = [table.assign(ward="<b>A&B</b>") for table in splits()]
    for table in tables:
        table.loc[table["scan_id"] == "s050", "scan_id"] = "<script>s050"
    write(folder, *tables)
    call(aggregate, "--dir", folder, "--output", folder / "out", "--resamples", 60, "--by", "ward", "--recalibrate",
         "isotonic")
    return Page((folder / "out" / "report.html").read_text())


def test_page_is_whole_offline_and_escaped(page):
    assert page.open == [] and all(link[0] == "#" and link[1:] in page.ids for link in page.links)
    assert len(page.sources) == len(aggregate.FIGURES) + 1  # and a forest plot
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert len(page.ids) == len(set(page.ids))
    text = "".join(page.words)
    assert "<b>A&B</b>" in text and "script" not in page.open
    for part in ("For research use only", "LARS-avg", "Operating points", "validation predictions", "Calibration slope",
                 "TRIPOD+AI", "Methods", "No checkpoints found", "after isotonic"):
        assert part in text, part


def test_every_item_of_tripod_ai_is_there_once():
    items = [item for item, _, _ in provenance.TRIPOD_AI]
    assert len(items) == len(set(items)) == 52  # Collins 2024: 27 items, 52 with their parts
    assert {int(item.rstrip("abcdefg")) for item in items} == set(range(1, 28))


def test_page_without_validation_targets_of_both_classes_or_several_models(tmp_path):
    table = splits(1)[0]
    write(tmp_path, table[(table["set"] == "test") & (table["target"] == 1)][["scan_id", "target", "probs"]])
    call(aggregate, "--dir", tmp_path, "--output", tmp_path, "--resamples", 20)
    text = "".join(Page((tmp_path / "report.html").read_text()).words)
    assert "No threshold but 0.5" in text and "One model only" in text and "None: they need scans of both" in text


# ---------------------------------------------------------------- settings of the models, cohort

def checkpoint(path, **content):
    import torch
    torch.save({"epoch": 3, "state_dict": collections.OrderedDict(w=torch.zeros(3)), "auc": np.float64(0.9)} | content,
               path)


def test_settings_are_read_without_weights(tmp_path):
    args = {"lr": 0.01, "image_size": [310], "checkpoint": None, "balance": True}
    held = {"args": args, "commit": "abc", "versions": {"torch": "2"}, "data_hash": "f00", "input": {"frame": (64, 32)}}
    checkpoint(tmp_path / "c.pth", **held, model={"hidden": 1})
    assert provenance.read_settings(tmp_path / "c.pth") == held | {"epoch": 3}
    rows, _ = provenance.models_settings(tmp_path, [{"split": 0, "run": 1}])
    assert rows == []
    (tmp_path / "c.pth").rename(tmp_path / "checkpoint_split0_run1.pth")
    rows, _ = provenance.models_settings(tmp_path, [{"split": 0, "run": 1}])
    shown = {row["name"]: row["values"] for row in rows}
    assert shown["--image_size"] == ["310"] and shown["--checkpoint"] == ["None"] and shown["data hash"] == ["f00"]
    assert shown["input: frame"] == ["64 32"] and shown["best epoch"] == ["3"]
    checkpoint(tmp_path / "lars.pth", args="no dict")
    assert provenance.read_settings(tmp_path / "lars.pth") == {"epoch": 3}


class Harmful:
    def __reduce__(self):
        return open, ("harmed", "w")


def test_no_code_in_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "c.pth", args={"lr": 1}, commit=Harmful())
    assert provenance.read_settings(tmp_path / "c.pth")["args"] == {"lr": 1}
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_checkpoint_is_said(tmp_path, data):
    (tmp_path / "c.pth").write_bytes(data)
    with pytest.raises(InputError, match="c.pth: its settings cannot be read"):
        provenance.read_settings(tmp_path / "c.pth")


def test_report_shows_what_is_common_and_what_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(aggregate, "draw", lambda *arguments: [])
    write(tmp_path, *splits(3))
    for k, lr in enumerate((0.01, 0.02)):
        checkpoint(tmp_path / f"checkpoint_split{k}_run1.pth", args={"lr": lr, "wd": 7e-5}, commit="c0ffee")
    call(aggregate, "--dir", tmp_path, "--output", tmp_path / "out", "--resamples", 20)
    models = [{"split": k, "run": 1} for k in range(3)]
    rows, warnings = provenance.models_settings(tmp_path, models)
    shown = {row["name"]: row["values"] for row in rows}
    assert shown["--lr"] == ["0.01", "0.02", "not stored"] and shown["commit"] == ["c0ffee", "c0ffee", "not stored"]
    assert warnings == [f"1 models have no checkpoint in {tmp_path}: checkpoint_split2_run1.pth"]
    assert "c0ffee" in (tmp_path / "out" / "report.html").read_text()


def test_cohort_flow_from_the_manifest(tmp_path):
    tables = splits(2)
    manifest = tables[0][["scan_id", "filename", "target", "patient_id", "view"]].copy()
    for k, table in enumerate(tables):
        manifest[f"split{k}"] = table["set"]
    manifest.to_csv(tmp_path / "data.csv", index=False)
    pd.DataFrame({"attribute": ["Units", "Units", "PatientWeight"]}).to_csv(tmp_path / "errors.csv", index=False)
    models = [{"split": k, "file": f"m{k}", "rows": t[t["set"] == "test"], "val_rows": t[t["set"] == "val"]}
              for k, t in enumerate(tables)]
    flow = provenance.cohort_flow(models, {"set": "test"}, tmp_path / "data.csv")
    assert flow["excluded"] == {"Units": 2, "PatientWeight": 1} and flow["rows"][0]["scans"] == 64
    for row in flow["rows"][1:]:
        mine = manifest[manifest[row["split"].replace(" ", "")] == row["set"]].drop_duplicates("scan_id")
        assert (row["scans"], row["patients"], row["positive"]) == (
            len(mine), mine["patient_id"].nunique(), mine["target"].sum())
    without = provenance.cohort_flow(models, {"set": "test"})
    assert [row["set"] for row in without["rows"]] == ["test", "val"] * 2 and without["excluded"] is None
    assert without["rows"][0] == flow["rows"][3] | {"split": "m0"}


def test_an_estimate_in_words():
    entry = {"value": -0.1234, "ci_low": -0.5, "ci_high": 0.25, "ci_method": "x"}
    assert report.estimate(entry) == "−0.123 (−0.500 to 0.250)"
    assert report.estimate(entry | {"ci_low": None, "reason": "few"}) == "−0.123 (no interval: few)"
    assert report.estimate({"value": None, "reason": "one class"}) == "none: one class"


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


def test_random_subsets_are_different_and_seeded():
    members = disagreement.subsets_of(20, 10, 0)
    assert members.shape == (200, 10) and len({tuple(row) for row in members.tolist()}) == 200
    assert (np.diff(members, axis=1) > 0).all()
    np.testing.assert_array_equal(members, disagreement.subsets_of(20, 10, 0))
    assert len(disagreement.subsets_of(20, 2, 0)) == 190
