"""TRIPOD+AI and CLAIM 2024 beside a report: their items, what a run says of itself, what an author filled in."""
import datetime
import hashlib
import json
import re

import docx
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, call
from page_helpers import Page
from prediction_helpers import predictions, splits, write

import aggregate
from common.files import InputError
from evaluation import checklist_answers, model_card, reference

pytestmark = pytest.mark.usefixtures("no_figure")  # they take most of the time

LISTS = {name: pd.read_csv(ROOT / "evaluation" / f"{name}.csv", keep_default_na=False, dtype=str)
         for name in ("tripod_ai", "claim")}


def run(folder, *options):
    """What a run says to each item: {list: {item: text}}."""
    call(aggregate, "--dir", folder, "--output", folder / "out", "--resamples", 20, *options)
    tables = {name: pd.read_csv(folder / "out" / f"checklist_{name}.csv", keep_default_na=False, dtype=str)
              for name in LISTS}
    return {name: dict(zip(table["item"], table["this_run"], strict=True)) for name, table in tables.items()}


def write_everything(folder, **columns):
    """Predictions, their manifest with errors.csv, a ranking and settings: all that a run can read."""
    tables = splits(2)
    tables[1]["set"] = tables[0]["set"]
    write(folder, *(table.assign(**columns) for table in tables))
    manifest = tables[0][["scan_id", "filename", "target", "patient_id", "view"]].copy()
    for k, table in enumerate(tables):
        manifest[f"split{k}"] = table["set"]
        (folder / f"settings_split{k}_run1.json").write_text(json.dumps({
            "args": {"lr": 0.01, "balance": True, "weights": "none", "cls_arch": "simple"}, "versions": {"torch": "2"},
            "epoch": 3, "auc": 0.9,
            "input": {"frame": [64, 32], "norm": [2, 3]}}))
    manifest.assign(spacing_mm=3.27, suv_type="bw", warnings="", scanner="A").to_csv(folder / "data.csv", index=False)
    pd.DataFrame({"attribute": ["Units", "Units"]}).to_csv(folder / "errors.csv", index=False)
    (folder / "best_run.csv").write_text("split,run,epoch,metric,value,rank\n0,1,1,auc,0.9,1\n1,1,1,auc,0.9,2\n")
    return "--data", folder / "data.csv", "--by", "view", "--recalibrate", "platt"


# ---------------------------------------------------------------- the items

def test_items_of_tripod_ai_are_those_of_the_paper():
    """Collins 2024, table 1: 27 items, 52 with their parts; D where only development, E where only evaluation asks."""
    table = LISTS["tripod_ai"]
    assert len(set(table["item"])) == len(table) == 52
    parts = "1 2 3abc 4 5ab 6abc 7 8abc 9abc 10 11 12abcdefg 13 14 15 16 17 18abcdef 19 20abc 21 22 23ab 24 25 26 27abc"
    expected = [number + part for number, letters in re.findall(r"(\d+)([a-g]*)", parts) for part in letters or [""]]
    assert list(table["item"]) == expected
    by = table.set_index("item")["applies"]
    assert set(by[by == "D"].index) == {"9a", "12a", "12b", "12c", "15", "22", "27a", "27b"}
    assert set(by[by == "E"].index) == {"12f", "12g", "20c", "24"} and set(by) == {"D", "E", "D;E"}


def test_items_of_claim_are_those_of_the_paper():
    """Tejani 2024: 44 items; a few of them by their place."""
    table = LISTS["claim"].set_index("item")
    assert list(table.index) == [str(k) for k in range(1, 45)]
    for item, word in {11: "De-identification", 20: "apart", 27: "Ensembling", 33: "external", 39: "Failure",
                       44: "Funding"}.items():
        assert word in table.loc[str(item), "asks_for"]
    sections = {"Data": 7, "Reference standard": 5, "Data partitions": 2, "Testing data": 1, "Model": 3, "Training": 3,
                "Evaluation": 7, "Results: data": 2, "Results: performance": 3}
    assert table["section"].value_counts()[list(sections)].to_dict() == sections


def test_every_answer_belongs_to_an_item_and_every_item_names_a_known_answer(tmp_path, monkeypatch):
    given = {}
    kept = checklist_answers.answers
    monkeypatch.setattr("evaluation.checklists.answers", lambda *what: given.update(kept(*what)) or given)
    options = write_everything(tmp_path)
    (tmp_path / "settings_split0_run1.json").unlink()  # a warning
    run(tmp_path, *options)
    named = {name for table in LISTS.values() for name in table["answer"] if name}
    assert set(given) == named - {"variability", "external"}


# ---------------------------------------------------------------- what a run says

def test_what_was_not_read_is_left_to_the_author(tmp_path):
    write(tmp_path, predictions()[["scan_id", "target", "probs"]])  # LARS's own file
    said = run(tmp_path)
    tripod, claim = said["tripod_ai"], said["claim"]
    for item in ("5b", "6b", "7", "9a", "9b", "9c", "12a", "12b", "12c", "12d", "13", "14", "22", "23b", "27a"):
        assert tripod[item] == "", item
    for item in (8, 9, 11, 13, 19, 20, 22, 24, 25, 26, 30):
        assert claim[str(item)] == "", item
    text = " ".join((*tripod.values(), *claim.values()))
    for word in ("prepro", "MIP", "projection", "coronal", "ResNet", "checkpoint", "split", "settings", "errors.csv"):
        assert word not in text, word
    assert tripod["10"] == "8 scans, 4 with Deauville 4-5, are measured. For the author: how the size was chosen."
    assert tripod["12f"] == "Recalibration: none. For the author: other updating."


def test_scans_and_their_patients_are_those_that_are_measured(tmp_path):
    """Eight scans of seven patients, three of whose scans have no target: five of four."""
    table = predictions(patient_id=np.repeat(["p0", "p0", "p1", "p2", "p3", "p4", "p5", "p6"], 2))
    write(tmp_path, table.assign(target=table["target"].where(~table["scan_id"].isin(["s3", "s6", "s7"]))))
    assert run(tmp_path)["tripod_ai"]["5a"].startswith("5 scans of 4 patients measured, counted in")
    page = " ".join(" ".join(Page((tmp_path / "out" / "report.html").read_text()).words).split())
    assert "Test set: 5 scans (2 with Deauville 4–5) of 4 patients." in page  # not: 4 patients, 2 with
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["n_scans"] == 8 and reference.results_of(metrics)["n_scans"] == 5
    assert "Test set: 5 scans (2 with Deauville 4-5) of 4 patients." in model_card.write_card([], metrics, None, "half")


def test_scans_that_were_learned_from_are_named(tmp_path):
    write(tmp_path, splits(1)[0].assign(overlap="none"))
    assert run(tmp_path)["claim"]["20"].startswith("Measured scans that a model learned from, or whose patients: none")


def test_what_was_read_is_said(tmp_path):
    said = run(tmp_path, *write_everything(tmp_path))
    tripod, claim = said["tripod_ai"], said["claim"]
    assert tripod["7"].startswith("pixels in mm: 3.27; type of SUV: bw; with warnings: 0 of 64 scans (column "
                                  "warnings); errors.csv beside the manifest lists 2 refusals.")
    assert tripod["9b"].startswith("Images, of the views cor, sag.")
    assert tripod["12a"].startswith("Columns split0-1 of data.csv")
    assert tripod["12f"].startswith("Recalibration: platt")
    assert "table1.csv): by set, with differences and missing values. For" in tripod["20c"]
    assert "--lr 0.01" in tripod["12c"] and "version of torch 2" in claim["23"]
    assert claim["20"] == "In data.csv no known patient is in two sets of a split."
    assert claim["26"].startswith("all 2 that have predictions; best_run.csv ranks 2: section Models")


def test_leaks_and_missing_fields_are_not_claimed_away(tmp_path):
    """A patient in training and test, let through; a scanner of two scans; uptake of none; no manifest's splits."""
    options = write_everything(tmp_path, leakage="patient p00 is in test and train")
    table = pd.read_csv(tmp_path / "data.csv", dtype=str)
    table.loc[table["scan_id"].isin(["s041", "s042", "s043"]), "patient_id"] = "p00"
    scanner = table["scanner"].where(table["scan_id"].isin(["s000", "s001"]), "NA")
    table.assign(scanner=scanner, uptake_min="").to_csv(tmp_path / "data.csv", index=False)
    for path in tmp_path.glob("pred_*"):
        rows = pd.read_csv(path, dtype=str).drop(columns="patient_id")
        rows.merge(table[["filename", "patient_id"]]).to_csv(path, index=False)
    claim = run(tmp_path, *options)["claim"]
    assert claim["20"].startswith("Not apart: patients or images are in two sets (--allow_leakage).")
    assert claim["13"].startswith("data.csv holds scanner of 2 of 64 scans. For")
    assert claim["30"].startswith("Models and views alone: section Views and models; AUC by number of models: section "
                                  "Disagreement.")
    assert run(tmp_path)["claim"]["20"].startswith("Not apart: ")  # without the manifest
    for path in tmp_path.glob("pred_*"):
        pd.read_csv(path, dtype=str).drop(columns="leakage").assign(set="all").to_csv(path, index=False)
    table.drop(columns=["split0", "split1"]).to_csv(tmp_path / "data.csv", index=False)
    said = run(tmp_path, "--data", tmp_path / "data.csv")
    assert said["claim"]["20"] == said["claim"]["19"] == said["tripod_ai"]["12a"] == ""
    assert "table1.csv): of all scans together, with missing values. For" in said["claim"]["36"]


def test_validation_scans_of_an_earlier_run_are_not_said_to_be_on_the_page(tmp_path):
    write(tmp_path, *splits(2))
    assert run(tmp_path)["claim"]["19"].startswith("Validation scans of each model: section Participants")
    write(tmp_path / "new", *(table[table["set"] == "test"] for table in splits(2)))
    said = run(tmp_path / "new", "--operating_points", tmp_path / "out" / "operating_points.json")
    assert said["claim"]["19"] == ""


def test_other_cohorts_are_said(tmp_path):
    write(tmp_path, *splits(2))
    north = pd.DataFrame({"scan_id": [f"n{k}" for k in range(20)], "target": [0, 1] * 10})
    write(tmp_path / "north", *(predictions(k, north, set="all") for k in range(2)))
    said = run(tmp_path, "--cohort", f"north={tmp_path / 'north'}", "--primary", "LARS-avg auc in north")
    assert said["claim"]["33"].startswith("Cohorts north (20 scans), as --cohort names them: section Cohorts.")
    assert said["claim"]["33"] == said["tripod_ai"]["6a"]
    assert "Performance in north (20 scans), and differences from internal" in said["tripod_ai"]["23b"]
    assert "primary, declared with this run: LARS-avg auc in north" in said["tripod_ai"]["12e"]


# ---------------------------------------------------------------- the files

def table_of(path):
    return [[cell.text for cell in row.cells] for row in docx.Document(str(path)).tables[0].rows]


def test_document_holds_what_the_csv_holds_and_what_no_reader_may_miss(tmp_path):
    write_everything(tmp_path, synthetic="1")
    run(tmp_path, "--set", "val")
    for name, table in LISTS.items():
        rows = table_of(tmp_path / "out" / f"checklist_{name}.docx")
        written = pd.read_csv(tmp_path / "out" / f"checklist_{name}.csv", keep_default_na=False, dtype=str)
        assert rows[1:] == written.to_numpy().tolist() and len(rows) == len(table) + 1
        document = docx.Document(str(tmp_path / "out" / f"checklist_{name}.docx"))
        text = " ".join(paragraph.text for paragraph in document.paragraphs)
        assert "SYNTHETIC" in text and "OPTIMISTIC" in text
        assert "tblHeader" in document.tables[0].rows[0]._tr.xml


def test_checklists_of_earlier_predictions_go_unless_they_are_filled_in(tmp_path, capsys):
    write(tmp_path, predictions())
    run(tmp_path)
    path = tmp_path / "out" / "checklist_claim.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[3, "author"] = "mine"
    table.to_csv(path, index=False)
    write(tmp_path, predictions().drop(columns="target"))
    call(aggregate, "--dir", tmp_path, "--output", tmp_path / "out")
    assert [each.name for each in (tmp_path / "out").glob("checklist*")] == ["checklist_claim.csv"]
    assert f"kept {path}" in capsys.readouterr().out


def test_what_the_author_filled_in_stays(tmp_path):
    write(tmp_path, predictions())
    run(tmp_path)
    path = tmp_path / "out" / "checklist_claim.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[10, ["page", "author"]] = ["7", "by DICOM PS3.15, café"]
    table[["item", "page", "author"]].to_csv(path, index=False, sep=";", encoding="cp1252")  # as Excel saves it
    document = docx.Document(str(path.with_suffix(".docx")))
    document.tables[0].rows[11].cells[-1].text = "two\nlines"
    document.add_paragraph("More.")
    document.save(str(path.with_suffix(".docx")))
    run(tmp_path)
    again = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(again.loc[10, ["page", "author"]]) == ["7", "by DICOM PS3.15, café"] and (again["asks_for"] != "").all()
    rows = table_of(path.with_suffix(".docx"))
    assert rows[11][-1] == "two\nlines" and sum(row[-1] != "" for row in rows[1:]) == 1


@pytest.mark.parametrize("name", ["checklist_claim.csv", "checklist_tripod_ai.docx"])
def test_another_file_of_that_name_is_refused(tmp_path, name):
    write(tmp_path, predictions())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("notes\nfor myself\n")
    with pytest.raises(InputError, match=f"{name}: .*move"):
        run(tmp_path)
    assert (tmp_path / "out" / name).read_text() == "notes\nfor myself\n"


# ---------------------------------------------------------------- the evaluation's own provenance

def test_provenance_names_what_was_read_by_its_digest(tmp_path):
    options = write_everything(tmp_path)
    run(tmp_path, *options)
    made = json.loads((tmp_path / "out" / "metrics.json").read_text())["provenance"]
    names = {"pred_split0_run1.csv", "pred_split1_run1.csv", "settings_split0_run1.json", "settings_split1_run1.json",
             "best_run.csv", "data.csv", "errors.csv"}
    assert made["inputs"] == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
                              for name in names}
    assert made["versions"]["pandas"] == pd.__version__ and re.fullmatch(r"[0-9a-f]{40}\+?|None", str(made["commit"]))
    today = datetime.date.today().isoformat()
    page = " ".join(Page((tmp_path / "out" / "report.html").read_text()).words)
    assert today in page and made["version"] in page and made["inputs"]["data.csv"][:12] in page
    assert today not in (tmp_path / "out" / "metrics.json").read_text()
