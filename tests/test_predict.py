"""predict.py and explain.py of several networks whose sets differ, by small networks of random weights."""
from dataclasses import asdict

import pandas as pd
import pytest
from conftest import call, write_cohort
from score_helpers import CPU, INPUT, save_model

import explain
import predict
import predict_loca
import utils
from common.files import InputError, sha256
from evaluation import ensemble
from inference import overlays

BEST = "split,run,epoch,metric,value,rank\n0,1,1,auc,0.75,1\n1,1,1,auc,0.75,2\n"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two networks, and eight scans of which two are in the test set of split 0, none in that of split 1."""
    folder = tmp_path_factory.mktemp("sets")
    write_cohort(folder, 8)
    table = pd.read_csv(folder / "data.csv")
    table.assign(split0=["test"] * 4 + ["train"] * 12, split1="train").to_csv(folder / "data.csv", index=False)
    for split in (0, 1):
        save_model(folder, split)
    (folder / "best_run.csv").write_text(BEST)
    return folder


def options(cohort, output, *more):
    return "--data", cohort / "data.csv", "--chptfolder", cohort, "--output", cohort / output, *CPU[:-2], *more


def test_a_split_without_a_row_in_the_set_is_named_before_anything_is_written(cohort):
    with pytest.raises(InputError, match=r"no row in test of split 1; predict other splits \(--splits\)"):
        call(predict, *options(cohort, "named"))
    assert not (cohort / "named").exists()
    call(predict, *options(cohort, "one", "--splits", "0-0"))
    assert [path.name for path in (cohort / "one").iterdir()] == ["pred_split0_run1.csv"]


def test_scans_are_explained_by_the_networks_that_have_them(cohort):
    call(explain, *options(cohort, "maps", "--scans", "s000", "--max_scans", 0))
    peaks = pd.read_csv(cohort / "maps" / "binary_ensemble" / "peaks.csv")
    assert set(peaks["scan_id"]) == {"s000"} and (peaks["n_models"] == 1).all()
    with pytest.raises(InputError, match="split 1 run 1: no scan in test, .*--splits"):
        call(explain, *options(cohort, "each", "--each", "--max_scans", 0))


def test_predictions_of_images_that_were_made_anew_are_not_mixed(cohort):
    common, image = options(cohort, "anew", "--set", "all"), cohort / "images" / "s000_cor.bin"
    call(predict, *common)
    before, content = ensemble.find_models(cohort / "anew")[0], image.read_bytes()
    ensemble.read_models(before, None, ())
    assert not [text for text in ensemble.join_scans(before)[1] if "other images" in text]
    image.write_bytes(content[:-4] + b"\0\0\0\x3f")
    try:
        with pytest.raises(InputError, match="split1_run1.csv: was predicted of other images of 1 scan than .*s000"):
            call(predict, *common, "--splits", "0-0")
        call(predict, *common)
    finally:
        image.write_bytes(content)
    after = ensemble.find_models(cohort / "anew")[0]
    ensemble.read_models(after, None, ())
    (said,) = [text for text in ensemble.join_scans([before[0], after[1]])[1] if "other images" in text]
    assert said.startswith("1 of 8 scans have other images in one model's file than in another's") and "s000" in said


def test_manifest_that_is_older_than_its_images(cohort, capsys):
    """Its image_sha256 is not believed: predictions say of which images they are, and may be joined by that."""
    table = pd.read_csv(cohort / "data.csv").assign(image_sha256="")
    table.loc[0, "image_sha256"] = "of before"
    table.to_csv(cohort / "older.csv", index=False)
    common = options(cohort, "older", "--set", "all")[2:]
    call(predict, "--data", cohort / "older.csv", *common)
    assert f"warning: 1 of {len(table)} images in {cohort} are not those that the manifest was written for " \
        f"({table['filename'][0]})" in capsys.readouterr().out
    found = pd.read_csv(cohort / "older" / "pred_split0_run1.csv").set_index("filename")["image_sha256"]
    assert found[table["filename"][0]] == sha256(cohort / table["filename"][0])
    call(predict, "--data", cohort / "older.csv", *common, "--splits", "0-0")  # beside split 1's, which are of the same


def test_predictions_of_other_sites_are_not_mixed(cohort, tmp_path):
    for split, names in enumerate((("cervical", "hilar"), ("hilar", "cervical"))):
        sites = dict(zip("18", names, strict=True))
        utils.save_checkpoint(tmp_path / f"checkpoint_split{split}_run1.pth", {
            "epoch": 1, "auc": 0.75, "state_dict": utils.SiteResNet34(sites).state_dict(), "input": asdict(INPUT),
            "args": {}, "model": {"sites": sites, "site_on": "positive", "site_multi": False}})
    (tmp_path / "best_run.csv").write_text(BEST)
    common = ("--data", cohort / "data.csv", "--images", cohort, "--chptfolder", tmp_path, "--output", tmp_path / "out",
              "--set", "all", *CPU[:-2])
    call(predict_loca, *common, "--splits", "0-0")
    with pytest.raises(InputError, match="pred_split0_run1.csv: was predicted for other sites"):
        call(predict_loca, *common, "--splits", "1-1")
    assert "cervical" in (tmp_path / "out" / "sites.json").read_text().partition(",")[0]
    call(predict_loca, *common, "--splits", "0-0")  # is replaced


def test_pictures_say_that_their_network_was_trained_on_what_leaked(cohort, tmp_path, monkeypatch):
    save_model(tmp_path, 0)
    path, sources = tmp_path / "checkpoint_split0_run1.pth", []
    utils.save_checkpoint(path, utils.read_checkpoint(path) | {"leakage": "patient A is in train and test"})
    monkeypatch.setattr(overlays, "draw_panels", lambda scans, folder, images, source, *rest: sources.append(source))
    call(explain, "--data", cohort / "data.csv", "--images", cohort, "--checkpoints", path, "--set", "all", "--output",
         tmp_path / "maps", "--max_scans", 1, *CPU[:-2])
    assert sources == ["HiResCAM of layer1, LEAKAGE: trained with --allow_leakage"]
