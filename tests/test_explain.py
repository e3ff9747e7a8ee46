"""Heat maps: the formula of Grad-CAM, the way back to the MIP, the pointing game, explain.py as a user runs it."""
import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, error_line, run, write_cohort
from matplotlib.image import imread
from PIL import Image

import explain
import find_best_model
import train
import train_loca
import utils
from common.files import InputError
from common.manifest import read_manifest
from common.mips import pooled
from dataset import Bodies, NetworkInput, body_box, fit_bodies
from evaluation import metrics
from inference import gradcam, heat_maps, overlays, pointing_game
from preprocessing import conversion, geometry
from training.batches import Batch, ImageBatches, Pass, batch_indices

SMALL = ("--weights", "none", "--image_size", "auto", "--pool", 2, "--batch_size", 12, "--lr", 0.01, "--threads", 1,
         "--device", "cpu", "--amp", "off", "--nepochs", 1, "--augm", 4)


# ---------------------------------------------------------------- Grad-CAM

WHOLE = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])  # the box of a body that fills the frame


class Given:
    """Stands for ImageBatches: images as they are, in batches of two."""

    def __init__(self, x):
        self.x = x

    def centred(self, index):
        return Pass(index, (Batch(self.x[index[places]], WHOLE.repeat(len(places), 1, 1), index[places], places,
                                  len(places), slice(None)) for places in batch_indices(len(index), 2)))


@pytest.mark.parametrize(("method", "layer", "site_head"), [
    *(("gradcam", layer, "linear") for layer in gradcam.LAYERS), *(("gradcam", layer, "grid") for layer in
                                                                   gradcam.LAYERS[:3]),
    ("hirescam", "layer1", "linear"), ("hirescam", "layer3", "grid")])
def test_heat_map_is_the_positive_part_of_channels_weighed_by_their_gradient(method, layer, site_head):
    torch.manual_seed(0)
    network = utils.SiteResNet34({"1": "a", "2": "b", "3": "c"}, site_head, cls_arch="complex", hidden=16).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    x, classes = torch.rand(3, 1, 96, 64), np.array([-1, 2, 0])
    found = np.stack(list(gradcam.heat_maps(network, Given(x), np.arange(3), classes, method, layer, None)))
    depth = 5 + gradcam.LAYERS.index(layer)  # conv, batch norm, ReLU, max-pool, layer1
    cells = network.features[:depth](x).detach().requires_grad_()
    with network.features[depth - 1].register_forward_hook(lambda *_: cells):
        outputs = network(x, 0, WHOLE.repeat(3, 1, 1))
    (outputs[0, 1] - outputs[0, 0] + outputs[1, 2 + 2] + outputs[2, 2 + 0]).backward()
    weights = cells.grad.mean((2, 3), keepdim=True) if method == "gradcam" else cells.grad
    expected = (weights * cells).sum(1).clamp(min=0).detach().numpy()
    assert found.shape == expected.shape == (3, 96 // gradcam.layer_stride(layer), 64 // gradcam.layer_stride(layer))
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_a_cell_lies_in_the_middle_of_its_receptive_field():
    features = utils.ResNet34().features
    for module in features[:8].modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.MaxPool2d):
            size, padding = np.ravel(module.kernel_size), np.ravel(module.padding)
            assert (size % 2 == 1).all() and (padding == (size - 1) // 2).all()  # so cell i is centred on i x stride


class Marker(torch.nn.Module):
    """A network whose layer3 shows every 16th pixel of the frame as it is, and whose score is their mean."""
    sites = None

    def __init__(self):
        super().__init__()
        pick = torch.nn.Conv2d(1, 1, 1, stride=16, bias=False)
        torch.nn.init.ones_(pick.weight)
        self.features = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(6)], pick)

    def forward(self, x, start, boxes):
        score = self.features(x).mean((1, 2, 3))
        return torch.stack([0 * score, score], 1)


@pytest.mark.parametrize(("frame", "pool"), [((64, 64), 1), ((96, 48), 1), ((64, 64), 2), ((32, 32), 1), ((32, 32), 3)])
def test_the_map_marks_the_pixel_that_the_layer_marks(frame, pool):
    """For every pixel of a body of 55 x 35 in a MIP of 61 x 47: what lights up in the frame, lights up in the map."""
    shape, given, found = (61, 47), NetworkInput(frame, (0.0, 1.0), pool, crop_bodies=True), []
    for row, column in np.ndindex(55, 35):
        image = np.zeros(shape, "float32")
        image[4:59, 7:42] = 1
        image[4 + row, 7 + column] = 9
        body = torch.from_numpy(pooled(image[body_box(image, "a")], pool))
        bodies = fit_bodies(Bodies(body[None], torch.tensor([body.shape]), ["a"]), frame, crop=True)
        images = ImageBatches(bodies, given, 1)
        x = next(images.centred(np.array([0])).batches).x[0, 0]
        place = np.unravel_index(int(x.argmax()), frame)
        if x.max() < 9 or place[0] % 16 or place[1] % 16:
            continue  # cut off, or between two cells
        cells, = gradcam.heat_maps(Marker(), images, np.array([0]), np.array([-1]), "gradcam", "layer3", None)
        heat = gradcam.to_mip(cells, "layer3", image, "a", given)
        assert heat.shape == shape and heat.dtype == np.float32
        assert not heat[:4].any() and not heat[59:].any() and not heat[:, :7].any() and not heat[:, 42:].any()
        found.append(np.subtract(np.unravel_index(heat.argmax(), shape), (4 + row, 7 + column)))
    assert len(found) >= pool**2
    assert np.abs(found).max() <= pool - 1 and (pool > 1 or not np.any(found))


def test_what_the_network_did_not_see_has_no_heat():
    image, given = np.ones((61, 47), "float32"), NetworkInput((32, 32), (0.0, 1.0), crop_bodies=True)
    heat = gradcam.to_mip(np.ones((2, 2), "float32"), "layer3", image, "a", given)
    rows, columns = (np.flatnonzero(heat.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (14, 45, 7, 38)  # 32 x 32 pixels about the middle


def test_heat_beside_the_body_is_left_out_and_holes_in_it_are_not():
    image = np.zeros((32, 32), "float32")
    image[4:28, 8:24] = 1
    image[4:8, 8:12] = image[15:17, 15:17] = 0.2  # a corner of the box, and a hole
    heat = gradcam.to_mip(np.ones((2, 2), "float32"), "layer3", image, "a", NetworkInput((32, 32), (0.0, 1.0)))
    expected = image > 0
    expected[4:8, 8:12] = False
    assert np.array_equal(heat > 0, expected)


def test_random_networks_have_the_shape_and_differ_by_seed():
    network = utils.SiteResNet34({"1": "a", "2": "b"}, cls_arch="complex", hidden=24).eval()
    first, again, other = (gradcam.random_network(network, (seed, 0, 1)) for seed in (0, 0, 1))
    given = torch.rand(1, 1, 64, 64), 0, WHOLE
    assert first.fc[0].out_features == 24 and first(*given).shape == network(*given).shape and not first.training
    assert torch.equal(first(*given), again(*given)) and not torch.equal(first(*given), other(*given))


# ---------------------------------------------------------------- the pointing game

@pytest.mark.parametrize(("view", "angle"), [("cor", 0), ("sag", 90), ("rot030", 30)])
def test_a_lesion_is_projected_onto_its_lump(view, angle):
    """A hot voxel at known patient coordinates, through the projections of prepro_script.py."""
    array, spacing, isotropic = np.zeros((30, 41, 52), "float32"), (3.0, 2.0, 2.5), 3.27
    volume = SimpleNamespace(array=array, spacing=spacing, origin=(-70.0, 12.0, -33.0))  # z, y, x
    for k, j, i in ((4, 30, 9), (25, 8, 40), (14, 20, 26)):
        array[:] = 0
        array[k, j, i] = 9
        images = geometry.project(array, spacing, isotropic, (30,))
        image = images[("cor", "sag", "rot030").index(view)]
        row0, column0 = conversion.pixel_origin(volume, spacing=isotropic, angle=angle, shape=image.shape)
        row = SimpleNamespace(view=view, row0_mm=row0, column0_mm=column0, spacing_mm=isotropic)
        lesion = ("7", -33.0 + 2.5 * i, 12.0 + 2.0 * j, -70.0 + 3.0 * k)
        place = pointing_game.project([lesion], row)[0]
        assert np.abs(place - np.unravel_index(image.argmax(), image.shape)).max() <= 1
        assert pointing_game.distance_mm(*place, [lesion], row) == pytest.approx(0, abs=1e-9)
        off = place + (3, -4)
        off = pointing_game.distance_mm(*off, [("1", 900.0, 900.0, 900.0), lesion], row)
        assert off == pytest.approx(5 * isotropic)


def test_lesions_are_read_and_bad_ones_refused_by_row():
    table = pd.DataFrame({"row": [2, 3], "scan_id": ["a", "b"], "view": "cor", "row0_mm": ["5", "6"],
                          "column0_mm": ["1", "2"], "lesions": ["7:1:2:-3.5:20:4.1;10:0:0:9", ""]})
    assert pointing_game.read_lesions("d.csv", table) == [[("7", 1, 2, -3.5), ("10", 0, 0, 9)], []]
    for column, value, said in (("lesions", "7:1:2", "lesions holds '7:1:2'"),
                                ("lesions", "7:1:2:x", "lesions holds '7:1:2:x'"),
                                ("row0_mm", "", "row0_mm = ''"), ("column0_mm", "nan", "column0_mm = 'nan'")):
        bad = table.astype(str)
        bad.loc[1, column] = value
        with pytest.raises(InputError, match=f"^d.csv row 3 .scan b.: {said}"):
            pointing_game.read_lesions("d.csv", bad)


def test_shares_by_view_and_by_scan():
    """Three patients of four scans: hits by hand; the scan takes the hotter view, of equal ones the first."""
    def rows(kind, draw, *maps):
        return [{"kind": kind, "draw": draw, "scan_id": scan, "view": view, "heat": heat, "hit": float(mm <= 30),
                 "patient": patient} for scan, patient, view, heat, mm in maps]

    maps = [("s1", "p1", "cor", 2.0, 10.0), ("s1", "p1", "sag", 3.0, 40.0),  # the sagittal one counts: a miss
            ("s2", "p1", "cor", 5.0, 30.0), ("s2", "p1", "sag", 5.0, 99.0),  # coronal first: a hit
            ("s3", "p2", "cor", 0.0, np.inf), ("s3", "p2", "sag", 1.0, 29.0),
            ("s4", "p3", "cor", 0.0, np.inf), ("s4", "p3", "sag", 0.0, np.inf)]
    table = pointing_game.summarize(pd.DataFrame(rows("Grad-CAM", 0, *maps) + rows("random weights", 0, *maps)
                                            + rows("random weights", 1, *[(*m[:4], 0.0) for m in maps]),
                                            index=[0, 1, 2, 3, 4, 5, 6, 7] * 3))  # as pandas.concat leaves it
    found = table.set_index(["kind", "view"])
    assert found["hits"].tolist() == [2, 1, 2, 6, 5, 6] and found["maps"].tolist() == [4, 4, 4, 8, 8, 8]
    assert found["no_peak"].tolist() == [2, 1, 1, 4, 2, 2] and set(found["scans"]) == {4}
    expected = metrics.proportion_estimate([False, True, True, False], "", ["p1", "p1", "p2", "p3"])
    assert found.loc[("Grad-CAM", "scan"), ["share", "ci_low", "ci_high"]].tolist() == [
        expected[name] for name in ("value", "ci_low", "ci_high")]


def test_a_map_without_heat_has_no_peak():
    assert pointing_game.peak(np.zeros((4, 5), "float32")) == (None, None, 0.0)
    heat = np.zeros((4, 5), "float32")
    heat[2, 3] = 0.5
    assert pointing_game.peak(heat) == (2, 3, 0.5)
    assert pointing_game.distance_mm(None, None, [("1", 0, 0, 0)], None) == np.inf


# ---------------------------------------------------------------- explain.py

@pytest.fixture(scope="module")
def cohort(tmp_path_factory, shallow):
    """A cohort whose bright squares are lesions of known place, a binary model and one of two heads, an epoch each."""
    folder = tmp_path_factory.mktemp("explain")
    table = write_cohort(folder, n_scans=16)
    table["target_loc"], table["row0_mm"], table["column0_mm"] = 51, 100.0, -60.0
    table["lesions"] = ""
    for scan, part in table[table["target"] == 1].groupby("scan_id"):
        lesions, site = [], (1, 2)[int(scan[1:]) // 2 % 2]
        for row in part.itertuples():  # a square has a place of its own in each view: nothing of it in the other one
            image = np.fromfile(folder / row.filename, "<f4").reshape(row.matrix_size_1, row.matrix_size_2)
            r, c = (places.mean() for places in np.nonzero(image > 5))
            x, y = (-60 + c * 3.27, 9999) if row.filename.endswith("cor.bin") else (9999, -60 + c * 3.27)
            lesions.append(f"{site}:{x:.2f}:{y:.2f}:{100 - r * 3.27:.2f}:26:7")
        table.loc[part.index, "lesions"] = ";".join(lesions)
        table.loc[part.index, "target_loc"] = site
    table["synthetic"] = 1
    table.to_csv(folder / "data.csv", index=False)
    for module, output, splits in ((train, "binary", (0, 1)), (train_loca, "loca", (0,))):
        call(module, "--data", folder / "data.csv", "--output", folder / output, *SMALL, "--split_index", *splits)
        call(find_best_model, "--dir", folder / output)
    return folder


def options(cohort, *args, models="binary", output="heatmaps", scans="all"):
    sets = () if "--set" in args else ("--set", scans)
    return ("--data", cohort / "data.csv", "--chptfolder", cohort / models, "--splits", 0, 0, *sets,
            "--output", cohort / output, "--threads", 1, "--device", "cpu", "--amp", "off", "--random", 1, *args)


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".npy", ".png")
            and "sheet" not in path.name}


def test_explain_writes_maps_panels_sheets_and_the_pointing_game(cohort):
    done = run("explain.py", *options(cohort, scans="test"), check=0)
    folder = cohort / "heatmaps" / "binary_split0_run1"
    table = read_manifest(cohort / "data.csv", (0,))
    table = table[table["split0"] == "test"]
    peaks = pd.read_csv(folder / "peaks.csv")
    assert sorted(peaks["filename"]) == sorted(table["filename"])
    for row in table.itertuples():
        heat = np.load(folder / "maps" / f"{row.scan_id}_{row.view}.npy")
        assert heat.shape == (row.matrix_size_1, row.matrix_size_2) and heat.dtype == np.float32
        assert (heat >= 0).all() and np.isfinite(heat).all()
        mine = peaks[peaks["filename"] == row.filename].iloc[0]
        assert mine["heat"] == pytest.approx(heat.max(), rel=1e-6)
        if heat.max() > 0:
            assert heat[int(mine["peak_row"]), int(mine["peak_column"])] == heat.max()
    assert {path.stem for path in (folder / "panels").iterdir()} == set(table["scan_id"])
    assert [path.name for path in folder.glob("sheet*")] == ["sheet001.png"]
    for path in folder.rglob("*.png"):
        assert imread(path).std() > 0.05  # a picture, not an empty page
    game, data = pd.read_csv(folder / "pointing.csv"), json.loads((folder / "pointing.json").read_text())
    assert game["kind"].tolist() == [k for k in ("HiResCAM", "random weights", "brightest pixel") for _ in range(3)]
    assert game["view"].tolist() == ["cor", "sag", "scan"] * 3 and set(game["scans"]) == {2}
    assert game["hits"].tolist()[-3:] == [2, 2, 2]  # the brightest pixel lies in the square
    assert data["within_mm"] == 30 and [row["share"] for row in data["rows"]] == game["share"].tolist()
    assert "SYNTHETIC" in done.stdout and "peaks near any lesion:" in done.stdout
    assert "brightest pixel  scan  2/2" in done.stdout


def test_a_picture_says_that_its_network_is_of_a_synthetic_cohort(cohort, monkeypatch):
    sources = []
    monkeypatch.setattr(overlays, "draw_panels", lambda scans, folder, images, source, *rest: sources.append(source))
    call(explain, *options(cohort, "--no_pointing", "--max_scans", 1, output="said"))
    assert sources == ["HiResCAM of layer1, trained on a SYNTHETIC cohort"]


def test_finished_scans_are_left_alone_and_settings_are_not_mixed(cohort, capsys):
    args = options(cohort, "--max_scans", 3, output="again")
    call(explain, *args)
    folder = cohort / "again" / "binary_split0_run1"
    first = written(folder)
    assert len(first) == 32 + 3  # every map, three panels
    call(explain, *args)
    assert written(folder) == first
    one, _, other = sorted(path.stem for path in first if path.suffix == ".png")
    changed = folder / "maps" / f"{one}_cor.npy"
    os.utime(cohort / "images" / f"{one}_cor.bin", (1e9, 1e9))  # replaced by an older one
    (folder / "maps" / f"{other}_sag.npy").unlink()
    before = np.load(changed)
    call(explain, *args)
    now = written(folder)
    assert {path.name for path in now if now[path] != first.get(path)} == {changed.name, f"{one}.png", f"{other}.png"}
    assert now.keys() == first.keys()
    assert np.array_equal(np.load(changed), before)
    with pytest.raises(InputError, match=r"holds heat maps with another cam_layer \(layer1, now layer2\); --overwrite"):
        call(explain, *args, "--cam_layer", "layer2")
    call(explain, *args, "--cam_layer", "layer2", "--overwrite", "--scans", one, "--no_pointing")
    assert {path.name for path in written(folder)} == {f"{one}_cor.npy", f"{one}_sag.npy", f"{one}.png"}
    assert not np.array_equal(np.load(changed), before)


def test_a_panel_whose_label_was_corrected_is_drawn_again(cohort):
    table = pd.read_csv(cohort / "data.csv", dtype=str, keep_default_na=False)
    table.to_csv(cohort / "corrected.csv", index=False)
    args = options(cohort, "--no_pointing", "--scans", "s000", "s001", output="labels", models="binary")
    args = (*args, "--data", cohort / "corrected.csv")
    call(explain, *args)
    first = written(cohort / "labels")
    table.loc[table["scan_id"] == "s001", "target"] = "0"
    table.to_csv(cohort / "corrected.csv", index=False)
    call(explain, *args)
    now = written(cohort / "labels")
    assert [path.name for path in now if now[path] != first[path]] == ["s001.png"]


def test_some_scans_leave_what_is_of_all(cohort, capsys):
    call(explain, *options(cohort, "--review", "--max_scans", 2, output="some"))
    folder = cohort / "some" / "binary_split0_run1"
    kept = {path: path.read_bytes() for path in folder.iterdir() if path.name.startswith(("sheet", "review", "point"))}
    assert {path.name for path in kept} == {"sheet001.png", "review.html", "pointing.csv", "pointing.json"}
    before = pd.read_csv(folder / "peaks.csv").sort_values("filename", ignore_index=True)
    assert f"page to read and score scans in: {folder / 'review.html'}" in capsys.readouterr().out
    call(explain, *options(cohort, "--review", "--scans", "s001", output="some"))
    pd.testing.assert_frame_equal(pd.read_csv(folder / "peaks.csv").sort_values("filename", ignore_index=True), before)
    assert {path: path.read_bytes() for path in kept} == kept
    assert "sheets, review.html and the pointing game are of the folder's other scans" in capsys.readouterr().out
    call(explain, *options(cohort, "--review", "--scans", "s001", output="some", scans="all"), "--overwrite",
         "--cam_layer", "layer2")  # nothing of the others is left
    assert set(pd.read_csv(folder / "peaks.csv")["scan_id"]) == {"s001"}


def maps(folder):
    return {path.stem: np.load(path) for path in (folder / "maps").iterdir()}


def test_the_map_of_an_ensemble_is_the_mean_over_the_models_that_have_the_scan(cohort, capsys):
    args = ("--splits", 0, 1, "--set", "val", "test")
    call(explain, *options(cohort, *args, "--each", "--max_scans", 0, output="each"))
    call(explain, *options(cohort, *args, "--max_scans", 2, "--pdf", "--review", output="mean"))
    said = capsys.readouterr().out
    each = [maps(cohort / "each" / f"binary_split{k}_run1") for k in (0, 1)]
    folder = cohort / "mean" / "binary_ensemble"
    found, peaks = maps(folder), pd.read_csv(folder / "peaks.csv").set_index(["scan_id", "view"])
    assert set(found) == set(each[0]) | set(each[1])
    names = pd.read_csv(folder / "models.csv").set_index(["scan_id", "view"])["models"]
    for name, heat in found.items():
        having, key = [k for k in (0, 1) if name in each[k]], tuple(name.split("_"))
        np.testing.assert_allclose(heat, np.mean([each[k][name] for k in having], 0), rtol=1e-4, atol=1e-7)
        assert peaks.loc[key, "n_models"] == len(having)
        assert names[key] == ", ".join(f"split {k} run 1" for k in having)
    assert "2 models: " in said and "each the mean of 1 to 2 models" in said
    assert heat_maps.models_line(pd.DataFrame({"models": ["a, b", "b, c"]})) == "each the mean of 2 models"
    for table in (pd.read_csv(cohort / "each" / "binary_split0_run1" / "pointing.csv"),
                  pd.read_csv(folder / "pointing.csv")):
        assert table["kind"].tolist() == [k for k in ("HiResCAM", "random weights", "brightest pixel") for _ in "123"]
    page = (folder / "review.html").read_text()
    assert page.count('<script type="text/plain"') == len(found) and all(scan in page for scan, _ in peaks.index)
    panels = sorted((folder / "panels").iterdir())
    assert [path.suffix for path in panels] == [".pdf", ".png"] * 2
    assert panels[0].read_bytes()[:4] == b"%PDF" and max(path.stat().st_size for path in panels) < 400_000
    with Image.open(panels[1]) as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_map_of_other_models_than_now_is_made_again(cohort):
    args = ("--splits", 0, 1, "--max_scans", 0, "--no_pointing")
    call(explain, *options(cohort, *args, "--set", "val", "test", output="grown"))
    folder = cohort / "grown" / "binary_ensemble"
    for path in (folder / "maps").iterdir():  # marked, at the same time
        time = path.stat().st_mtime_ns
        np.save(path, np.load(path) * 0 - 1)
        os.utime(path, ns=(time, time))
    call(explain, *options(cohort, *args, output="grown", scans="all"))
    table = read_manifest(cohort / "data.csv", (0, 1))
    left = {name for name, heat in maps(folder).items() if (heat == -1).all()}
    assert left == {f"{row.scan_id}_{row.view}" for row in table.itertuples() if row.split0 == "test"}  # both had them
    assert len(maps(folder)) == 32


def test_one_scale_for_the_cohort(tmp_path):
    """0.99 of the scans' highest values, of the two views the higher one; it stays when some scans are asked for."""
    peaks = pd.DataFrame({"scan_id": [f"s{k}" for k in range(101) for _ in "12"],
                          "scan_probs": [0.1, 0.1, 0.9, 0.9] * 50 + [0.1, 0.1],
                          "heat": [k / 10 + view for k in range(101) for view in (0, -5)]})
    (tmp_path / "panels").mkdir()
    panel = tmp_path / "panels" / "s1.png"
    panel.touch()
    assert heat_maps.cohort_scale(tmp_path, peaks, False) == pytest.approx(9.9) and not panel.exists()
    panel.touch()
    assert heat_maps.cohort_scale(tmp_path, peaks[:2], True) == pytest.approx(9.9) and panel.exists()
    assert heat_maps.cohort_scale(tmp_path, peaks, False) == pytest.approx(9.9) and panel.exists()
    assert heat_maps.cohort_scale(tmp_path, peaks[:102], False) == pytest.approx(4.95) and not panel.exists()


def test_colours_of_few_pixels_are_those_of_the_colour_bar(tmp_path):
    """A hot spot and its cross in a picture that is grey but for them: in the file as drawn."""
    rows, columns = np.indices((120, 60))
    image = (rows + columns) % 80 / 10 + 0.4
    heat = 3 * np.exp(-((rows - 40)**2 + (columns - 30)**2) / 20)
    figure = overlays.panel_figure({"cor": image}, {"cor": heat}, {"suv_max": 7, "heat_max": 3}, 3.27, "DS 4-5", "a")
    overlays._save(figure, tmp_path / "a.png")
    drawn = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)
    saved = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert 1000 < (np.ptp(drawn, axis=2) > 100).sum() < drawn[:, :, 0].size / 50
    assert np.abs(saved - drawn).max() <= 12


def test_pictures_of_many_views_are_not_wider_than_a_screen(tmp_path):
    views = ["cor", "sag", *(f"rot{angle:03d}" for angle in range(15, 90, 15))]
    picture, scale = np.ones((80, 44), "float32"), {"suv_max": 7, "heat_max": 3}
    figure = overlays.panel_figure(*2 * [dict.fromkeys(views, picture)], scale, 3.27, "DS 4-5", "a")
    shown = [place for place in figure.axes if place.images]
    assert len(shown) == 14 and [place.get_title() for place in shown[8:11]] == ["45°", "highest: 1", "60°"]
    assert figure.get_size_inches()[0] < 24
    np.save(tmp_path / "map.npy", picture)
    picture.tofile(tmp_path / "a.bin")
    scan = pd.DataFrame({"scan_id": "a", "view": views, "filename": "a.bin", "map": tmp_path / "map.npy", "sites": "",
                         "matrix_size_1": 80, "matrix_size_2": 44, "scan_probs": 0.5, "speaks_for": "DS 4-5"})
    sheet = overlays._sheet([scan], tmp_path, "a", scale)
    assert sheet.axes[0].images[0].get_array().shape[1] == 4 * 44 + 3 * overlays.GAP  # two views, and their maps


def test_a_network_whose_scores_do_not_differ_looks_empty():
    highest = [2.0] * 20
    assert heat_maps.darkest(highest, [0.02, 0.98] * 10) == 2
    odds = np.exp(0.1)  # log-odds of -0.1 and 0.1: a tenth of a unit, so ten times the value
    assert heat_maps.darkest(highest, [1 / (1 + odds), odds / (1 + odds)] * 10) == pytest.approx(20)
    assert heat_maps.darkest([0.0] * 20, [0.02, 0.98] * 10) == 1
    assert heat_maps.darkest([0.25], [0.5]) == 1 and heat_maps.darkest([3.0], [0.5]) == 3  # single scans


def test_columns_of_the_manifest_may_have_names_of_explains_own(cohort):
    table = pd.read_csv(cohort / "data.csv").assign(sd=1, n_models=2, scan_probs=3)
    table.to_csv(cohort / "joined.csv", index=False)
    call(explain, *options(cohort, "--no_pointing", "--max_scans", 1, "--data", cohort / "joined.csv", output="joined"))
    assert (pd.read_csv(cohort / "joined" / "binary_split0_run1" / "peaks.csv")["n_models"] == 1).all()


def test_true_sites_of_titles_are_read_as_training_reads_them():
    sites = {"6": "anterior mediastinal", "20": "spleen"}
    names = [heat_maps.true_names(codes, sites) for codes in ("6", "6.0", "6;20", "6; 20.0", "", "7")]
    assert names == ["anterior mediastinal"] * 2 + ["anterior mediastinal and spleen"] * 2 + ["", "7"]


def test_sites(cohort, capsys):
    call(explain, *options(cohort, "--target", "site:Cervical", "--max_scans", 0, models="loca"))
    out = capsys.readouterr().out
    positive = pd.read_csv(cohort / "data.csv").query("target == 1 and target_loc == 1")["scan_id"].nunique()
    assert f"brightest pixel  scan  {positive}/{positive}" in out.split("peaks near lesion of the site:")[1]
    assert not list((cohort / "heatmaps" / "site_Cervical_split0_run1").rglob("*.png"))
    call(explain, *options(cohort, "--target", "site", "--max_scans", 1, models="loca"))
    game = pd.read_csv(cohort / "heatmaps" / "site_split0_run1" / "pointing.csv")
    brightest = game[game["kind"] == "brightest pixel"].set_index("near")
    assert set(brightest.loc["any lesion", "share"]) == {1.0}
    assert set(game["near"]) == {"any lesion", "lesion of the site"} and set(game["scans"]) == {8}
    assert (brightest.loc["lesion of the site", "share"] < 1).all()  # none where another site is predicted


@pytest.mark.parametrize(("models", "args", "said"), [
    ("binary", ("--target", "site"), "--target site: "),
    ("loca", ("--target", "site:nowhere"), "knows no such site; it knows cervical, supraclavicular, axillary"),
    ("loca", ("--target", "site:no lesion"), "knows no such site"),
    ("binary", ("--scans", "s003", "nobody"), "no scan_id nobody (--scans)"),
    ("binary", ("--set", "train", "--scans", "s001"), "no row in train of splits 0"),
    ("binary", ("--splits", 2, 2), "no model of splits 2 to 2"),
])
def test_bad_input_is_said_in_a_line(cohort, models, args, said):
    with pytest.raises(InputError) as error:
        call(explain, *options(cohort, *args, models=models, output="bad"))
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (cohort / "bad").exists()


def test_bad_lesions_end_with_exit_code_2(cohort):
    table = pd.read_csv(cohort / "data.csv", dtype=str, keep_default_na=False)
    table.loc[3, "lesions"] = "1:2:3"
    table.to_csv(cohort / "bad.csv", index=False)
    done = run("explain.py", *options(cohort, output="bad"), "--data", cohort / "bad.csv")
    assert "bad.csv row 5 (scan s001): lesions holds '1:2:3'" in error_line(done)


def test_without_lesions_there_is_no_pointing_game(cohort, capsys):
    table = pd.read_csv(cohort / "data.csv", dtype=str, keep_default_na=False).drop(columns=["lesions", "target"])
    table.to_csv(cohort / "new.csv", index=False)
    call(explain, *options(cohort, "--data", cohort / "new.csv", "--scans", "s001", "--max_scans", 0, output="new"))
    assert "no pointing game" in capsys.readouterr().out
    folder = cohort / "new" / "binary_split0_run1"
    assert not (folder / "pointing.csv").exists() and pd.read_csv(folder / "peaks.csv")["distance_mm"].isna().all()
