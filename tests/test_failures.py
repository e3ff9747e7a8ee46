"""The scans that are wrong at 0.5: the list, their pictures and heat maps, the command that makes these."""
import base64
import io
import json
import shlex

import numpy as np
import pandas as pd
import pytest
from conftest import call
from page_helpers import Page
from PIL import Image
from prediction_helpers import predictions, splits, write

import aggregate
import explain
from common.files import InputError
from common.mips import greys, under_heat
from common.run_files import heat_folder, heat_map
from evaluation import failures

pytestmark = pytest.mark.usefixtures("no_figure")  # they take most of the time

SHAPE = (20, 12)


@pytest.fixture
def case(tmp_path):
    """Predictions of two models, a manifest and its MIPs: 0 everywhere, one pixel of the scan's number / 10."""
    noise = np.random.default_rng(0).uniform(0.02, 0.98, (2, 48))
    tables = [table.assign(checkpoint_sha256=f"{k}" * 64, probs=noise[k]) for k, table in enumerate(splits(2, n_val=0))]
    write(tmp_path / "preds", *tables)
    rows = tables[0][["scan_id", "filename", "target", "patient_id", "view"]].copy()
    rows["matrix_size_1"], rows["matrix_size_2"] = SHAPE
    rows.assign(split0="test", split1="test").to_csv(tmp_path / "data.csv", index=False)
    for name in rows["filename"]:
        image = np.zeros(SHAPE, "<f4")
        image[3, 4] = int(name[1:4]) / 10
        image.tofile(tmp_path / name)
    return tmp_path


def run(case, *options):
    call(aggregate, "--dir", case / "preds", "--output", case / "out", "--resamples", 20, *options)
    table = pd.read_csv(case / "out" / "failures.csv")
    text = (case / "out" / "report.html").read_text()
    return table, Page(text), text


def pictures(page):
    return [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in page.sources
            if source.startswith("data:image/png")]


def test_every_wrong_scan_is_listed_the_most_certain_first(case):
    table, page, text = run(case)
    whole = pd.read_csv(case / "out" / "ensemble_avg.csv").set_index("scan_id")
    wrong = whole[(whole["ensemble_prob"] >= 0.5) != (whole["target"] == 1)]
    assert set(table["scan_id"]) == set(wrong.index) and len(table) > 3
    assert (table["error"] == np.where(table["target"] == 1, "false negative", "false positive")).all()
    for _, rows in table.groupby("error"):
        assert (rows["ensemble_prob"] - 0.5).abs().is_monotonic_decreasing
    assert (table["ensemble_prob"] == whole.loc[table["scan_id"], "ensemble_prob"].to_numpy()).all()
    assert all(scan in text for scan in table["scan_id"]) and not pictures(page) and "--data CSV shows" in text
    metrics = json.loads((case / "out" / "metrics.json").read_text())["avg"]
    counts = table["error"].value_counts()
    assert (counts["false negative"], counts["false positive"]) == (metrics["fn"], metrics["fp"])


def test_a_small_hot_spot_has_its_colour(tmp_path):
    rows, columns = np.indices((200, 100))
    image = ((rows + columns) % 80 / 10).astype("<f4")
    image.tofile(tmp_path / "a_cor.bin")
    heat = np.exp(-((rows - 40)**2 + (columns - 30)**2) / 20)
    (tmp_path / "maps").mkdir()
    np.save(heat_map(tmp_path, "a", "cor"), heat)
    table = pd.DataFrame({"scan_id": ["a"], "view": "cor", "filename": "a_cor.bin", "matrix_size_1": 200,
                          "matrix_size_2": 100})
    shown = Image.open(io.BytesIO(base64.b64decode(failures._picture(table, tmp_path, [(tmp_path, 1.0)]))))
    under = np.asarray(shown.convert("RGB"))[:, 104:204]  # right of the MIP alone
    assert np.abs(under - 255 * under_heat(greys(image, 7), heat)).max() <= 12


def test_pictures_are_the_manifests_mips(case):
    table, page, text = run(case, "--data", case / "data.csv")
    shown = pictures(page)
    assert len(shown) == len(table)
    for scan, picture in zip(table["scan_id"], shown, strict=True):
        pixels = np.asarray(picture.convert("L"))
        assert pixels.shape == (SHAPE[0], 2 * (SHAPE[1] + 4))  # both views
        number = int(scan[1:])
        assert pixels[3, 4] == pytest.approx(255 * (1 - min(number / 10 / 7, 1)), abs=1) and pixels[0, 0] == 255
    assert page.open == []
    (case / f"{table['scan_id'][0]}_cor.bin").unlink()
    _, page, text = run(case, "--data", case / "data.csv")
    assert len(pictures(page)) == len(table) - 1 and "1 scan has no picture" in text


def maps_of(case, scans, splits, value, sha256=None, highest=4.0):
    place = heat_folder(case / "heat", "binary", [(split, 1) for split in splits])
    (place / "maps").mkdir(parents=True)
    made_of = {f"split {split} run 1": sha256 or f"{split}" * 64 for split in splits}
    (place / "settings.json").write_text(json.dumps({"checkpoints": made_of}))
    (place / "scale.json").write_text(json.dumps({"heat_max": highest}))
    for scan in scans:
        for view in ("cor", "sag"):
            heat = np.zeros(SHAPE, "float32")
            heat[10, 6] = value * (1 if view == "cor" else 0.5)
            np.save(heat_map(place, scan, view), heat)


@pytest.mark.parametrize("each", [False, True])
def test_heat_maps_lie_over_the_mips_and_the_command_makes_those_that_are_missing(case, each):
    table, _, text = run(case, "--data", case / "data.csv")
    command = shlex.split(next(line for line in Page(text).words if line.startswith("python explain.py")))
    given = vars(explain.get_args_parser().parse_args(command[2:]))  # is one that explain.py takes
    assert given["scans"] == list(table["scan_id"]) and given["data"] == str(case / "data.csv")
    assert given["checkpoints"] == [str(case / "preds" / f"checkpoint_split{k}_run1.pth") for k in (0, 1)]
    assert given["set"] == ["test"] and not given["each"]
    some = list(table["scan_id"][::2])
    if each:  # a folder of each model: means of maps and of their scales
        maps_of(case, some, [0], 4.0)
        maps_of(case, some, [1], 8.0, highest=8.0)
    else:
        maps_of(case, some, [0, 1], 4.0)
    _, page, text = run(case, "--data", case / "data.csv", "--heatmaps", case / "heat")
    assert "The heat maps are of" not in text
    for scan, picture in zip(table["scan_id"], pictures(page), strict=True):
        pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert pixels.shape[1] == 2 * (SHAPE[1] + 4) * (2 if scan in some else 1)
        if scan in some:
            red, half = pixels[10, 2 * (SHAPE[1] + 4) + 6], pixels[10, 3 * (SHAPE[1] + 4) + 6]
            assert red == pytest.approx((207, 64, 83), abs=8)  # 0.75 of dark red over white
            assert half == pytest.approx((255, 185, 128), abs=8)
    command = shlex.split(next(line for line in page.words if line.startswith("python explain.py")))
    assert explain.get_args_parser().parse_args(command[2:]).scans == [scan for scan in table["scan_id"]
                                                                       if scan not in some]


def test_maps_of_other_models_than_the_scores_are_said(case):
    table, _, _ = run(case)
    maps_of(case, table["scan_id"], [0, 1, 2], 4.0)
    _, page, text = run(case, "--data", case / "data.csv", "--heatmaps", case / "heat")
    assert "The heat maps are of 3 models, 2 of which are among the 2 of the scores." in text
    assert not any(line.startswith("python explain.py") for line in page.words)
    (heat_folder(case / "heat", "binary") / "settings.json").write_text("{")
    assert "its settings.json or scale.json cannot be read; run explain.py again" in run(
        case, "--data", case / "data.csv", "--heatmaps", case / "heat")[2]


def test_heat_maps_of_another_checkpoint_are_refused(case):
    maps_of(case, ["s000"], [0, 1], 1.0, "f" * 64)
    for folder, said in (("heat", "another checkpoint than pred_split._run1.csv"), ("none", "--heatmaps")):
        with pytest.raises(InputError, match=said):
            run(case, "--heatmaps", case / folder)
    assert not (case / "out").exists()


def test_of_many_the_first_are_shown_and_all_are_in_the_file(tmp_path):
    scans = pd.DataFrame({"scan_id": [f"s{k:03d}" for k in range(120)], "target": [0, 1] * 60})
    write(tmp_path / "preds", predictions(0, scans, probs=0.9))
    table, page, text = run(tmp_path)
    assert len(table) == 60 and (table["error"] == "false positive").all()
    assert "the first 24" in text and "".join(page.words).count("0.900") >= 24 and "0 false negatives" in text
