"""score.py and the model card by networks of other kinds: combined by median, of rotating views, of folds."""
import base64
import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call
from page_helpers import Page
from pet import write_series
from PIL import Image
from prediction_helpers import splits
from score_helpers import COARSE, CPU, save_model, scored_by, write_results

import export_models
import predict
import score
from common.files import InputError
from common.manifest import read_manifest, view_name
from common.mips import read_image
from dataset import Bodies, NetworkInput
from evaluation.model_card import INPUT
from inference import score_page, scoring
from inference.prediction import predict_mips


@pytest.fixture
def study(tmp_path):
    """A folder with a study, dicom."""
    write_series(tmp_path / "dicom", **COARSE)
    return tmp_path


def words(folder):
    return " ".join(" ".join(Page((folder / "score.html").read_text()).words).split())


def card(models):
    """The model card of a folder of networks."""
    call(export_models, "--dir", models, "--output", models / "models.zip")
    with zipfile.ZipFile(models / "models.zip") as archive:
        return archive.read("README.md").decode()


def test_networks_combined_by_their_median_are_said_to_be(study, no_picture):
    models = write_results(study / "models", "--combine", "median", networks=3)
    assert scored_by(study, models) is None
    said = words(study / "out")
    assert "median over 3 networks" in said and "a score there is the median over 1 network" in said
    assert "mean over" not in said
    text = card(models)
    assert "The median over the networks of each one's mean over a scan's views is LARS-avg" in " ".join(text.split())
    assert "aggregate.py --dir new --output new --combine median --operating_points models.zip" in text


def test_networks_of_rotating_views_alone_have_a_picture(study):
    models = write_results(study / "models", networks=1, views=("rot045", "rot135"))
    assert scored_by(study, models) is None
    page = Page((study / "out" / "score.html").read_text())
    with Image.open(io.BytesIO(base64.b64decode(page.sources[0].partition(",")[2]))) as picture:
        assert picture.width > 700
    assert "Blue circle" not in words(study / "out")
    assert "from maximum intensity projections (45°, 135°) of an FDG PET/CT scan" in " ".join(card(models).split())


def test_networks_of_several_views_score_alike_in_any_order(study, no_picture):
    for split, views in enumerate((("cor", "sag"), ("cor", "sag", "rot045"), ("rot060",))):
        save_model(study, split, views=views)
    paths, found = sorted(study.glob("checkpoint_*.pth")), []
    for out, files in (("one", paths), ("other", paths[::-1])):
        call(score, "--input", study / "dicom", "--checkpoints", *files, "--output", study / out, *CPU)
        found.append(pd.read_csv(study / out / "scores.csv"))
    assert found[0]["ensemble_prob"][0] == pytest.approx(found[1]["ensemble_prob"][0], abs=1e-9)
    assert found[0]["n_models"][0] == 3 and "the scan lacks" not in found[0]["warnings"][0]


def test_networks_of_one_name_in_two_folders_are_scored_by(study, no_picture, capsys):
    files = []
    for split, folder in enumerate(("a", "b", "c")):  # called split 0, 0, 1
        (study / folder).mkdir()
        save_model(study / folder, split)
        files.append((study / folder / f"checkpoint_split{split}_run1.pth").rename(
            study / folder / f"checkpoint_split{split // 2}_run1.pth"))
    call(score, "--input", study / "dicom", "--checkpoints", *files, "--output", study / "all", *CPU)
    said = capsys.readouterr().out
    assert f"{files[0]} is called split 0 run 1\n{files[1]} is called split 2 run 1\n" in said
    assert f"{files[2]} is called" not in said
    alone = []
    for k, file in enumerate(files):
        call(score, "--input", study / "dicom", "--checkpoints", file, "--output", study / str(k), *CPU)
        alone.append(pd.read_csv(study / str(k) / "scores.csv")["ensemble_prob"][0])
    found = pd.read_csv(study / "all" / "scores.csv").iloc[0]
    assert found["ensemble_prob"] == pytest.approx(np.mean(alone), abs=1e-9) and found["n_models"] == 3
    assert len(set(alone)) == 3
    with pytest.raises(InputError, match=r"a.checkpoint_split0_run1\.pth is given twice"):
        call(score, "--input", study / "dicom", "--checkpoints", files[0], study / "b" / ".." / "a" / files[0].name,
             "--output", study / "all", *CPU)


def test_a_view_that_no_network_takes_may_be_larger_than_their_frame(study, no_picture):
    save_model(study, 0, views=("sag",), frame=(64, 32))
    assert call(score, "--input", study / "dicom", "--checkpoints", study / "checkpoint_split0_run1.pth", "--output",
                study / "out", *CPU) is None
    assert len(pd.read_csv(study / "out" / "scores.csv")) == 1


def test_views_have_names():
    assert [view_name(view) for view in ("cor", "sag", "rot030", "ant")] == ["coronal", "sagittal", "30°", "ant"]


def test_a_validation_auc_is_shown_where_it_is_known():
    inputs = SimpleNamespace(network_input=SimpleNamespace(**dict.fromkeys(INPUT)))
    models = [SimpleNamespace(content={"auc": auc}, split=0, run=1, batches=inputs) for auc in (0.0, 0.75, None)]
    assert [row[2] for row in score_page.about_models(models)["trained"]] == ["0.000", "0.750", "unknown"]


def test_what_folds_reach_is_not_said_of_all_networks(study, no_picture):
    whole = splits(2)
    tested = sorted(set(whole[0].query("set == 'test'")["patient_id"]))
    folds = [table[(table["set"] != "test") | table["patient_id"].isin(tested[k::2])] for k, table in enumerate(whole)]
    models = write_results(study / "models", "--pooled_folds", tables=folds)
    said = "2 networks, 1 a scan: 2 folds of a cross-validation, pooled; the mean over all of them was not measured."
    assert scored_by(study, models) is None and said in words(study / "out")
    assert said in " ".join(card(models).split())
    assert scored_by(study, models / "models.zip", out="zip") is None and said in words(study / "zip")


@pytest.mark.parametrize(("rows", "changed", "warned"), [
    (266, {}, []), (133, {"pool": 2}, []), (133, {}, ["fills 43%"]), (70, {"pool": 2}, ["fills 45%"]),
    (133, {"pool": 2, "frame": (160, 96)}, []), (266, {"norm": (0.6089, 1.8575)}, []),
    (266, {"norm": (0.0, 1.0)}, []), (266, {"norm": (0.7, 1.0)}, ["is 1.5, of the training images it was 0.7"])])
def test_a_scan_is_unlike_the_training_by_what_is_known_of_it(rows, changed, warned):
    images = torch.ones(2, rows, 60)
    images[:, ::2] = 2
    bodies = Bodies(images, torch.tensor([[rows, 60], [rows, 50]]), ["cor", "sag"])
    given = NetworkInput(**{"frame": (310, 310), "norm": (1.6, 3.0)} | changed)
    model = SimpleNamespace(rows=pd.DataFrame({"scan_id": ["s", "s"], "view": ["cor", "sag"]}), index=np.arange(2),
                            content={"input": {}}, batches=SimpleNamespace(network_input=given, bodies=bodies))
    found = scoring._unlike("s", [model])
    assert len(found) == len(warned) and all(part in text for part, text in zip(warned, found, strict=True))


def test_a_network_that_stores_no_pixel_size_is_said_to(study, no_picture, capsys):
    save_model(study, 0, spacing_mm=None)
    path = study / "checkpoint_split0_run1.pth"
    call(score, "--input", study / "dicom", "--checkpoints", path, "--output", study / "out", *CPU)
    said = "the pixel size of the training is not stored; it is taken to be the 3.27 mm of these MIPs"
    assert f"warning: {said}" in capsys.readouterr().out and said in words(study / "out")
    assert said.replace(";", ",") in pd.read_csv(study / "out" / "scores.csv")["warnings"][0]
    call(predict, "--data", study / "out" / "scans" / "data.csv", "--set", "all", "--checkpoints", path, "--output",
         study / "out", *CPU[:-2])
    assert f"warning: {said}" in capsys.readouterr().out
    cor = read_image(read_manifest(study / "out" / "scans" / "data.csv", need_target=False).iloc[0],
                     study / "out" / "scans")
    with pytest.warns(UserWarning, match="not stored"):
        predict_mips(path, {"cor": cor}, 3.27)


def test_what_the_page_warns_of_is_in_the_table(study, no_picture):
    models = write_results(study / "models")
    save_model(models, 1, norm=(1.5, 1.0))  # trained again
    assert scored_by(study, models) is None
    said = "the stored thresholds are not of these models and were not applied"
    assert said in words(study / "out") and said in pd.read_csv(study / "out" / "scores.csv")["warnings"][0]


def test_a_file_in_place_of_a_folder_of_networks_is_told_apart(study):
    save_model(study, 0)
    with pytest.raises(InputError, match=r"checkpoint_split0_run1\.pth: a file, not a folder .*--checkpoints"):
        scored_by(study, study / "checkpoint_split0_run1.pth")


@pytest.mark.parametrize(("images", "spacing", "said"), [
    ({}, 3.27, "no image"), ({"a": np.ones((9, 9))}, float("nan"), "spacing_mm is nan"),
    ({"a": np.ones((9, 9))}, 0, "spacing_mm is 0"), ({"a": np.ones((9, 9))}, None, "spacing_mm is None"),
    ({"a": np.ones((2, 9, 9))}, 3.27, "a: is of shape"), ({"a": np.ones((0, 9))}, 3.27, "a: is of shape"),
    ({"a": np.ones(9)}, 3.27, "a: is of shape")])
def test_mips_of_the_api_that_are_none_are_refused(tmp_path, images, spacing, said):
    save_model(tmp_path, 0)
    with pytest.raises(InputError, match=said):
        predict_mips(tmp_path / "checkpoint_split0_run1.pth", images, spacing)
