"""The pointing game on lesion masks: distances and chance against brute force, false alarms by hand, explain.py."""
import json

import numpy as np
import pandas as pd
import pytest
from conftest import call, error_line, run, write_cohort
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import explain
import train
from common.files import InputError
from common.mips import read_mask
from evaluation.metrics import proportion_estimate
from inference import lesion_masks, pointing_game

SHAPE = (9, 14)


def write_row(folder, mask, name="m.npy", image=None, **more):
    """A row of a manifest, and its mask (and image) in `folder`."""
    if name.endswith(".npy"):
        np.save(folder / name, mask)
    else:
        np.asarray(mask, "<f4").tofile(folder / name)
    if image is not None:
        image.astype("<f4").tofile(folder / "i.bin")
    return pd.Series({"row": 2, "scan_id": "a", "view": "cor", "filename": "i.bin", "mask": name, "code": "",
                      "matrix_size_1": SHAPE[0], "matrix_size_2": SHAPE[1], "known_mask": True} | more)


@pytest.mark.parametrize("name", ["m.npy", "m.bin"])
def test_masks_are_read_as_they_were_written(tmp_path, name):
    mask = np.random.default_rng(0).random(SHAPE) < 0.3
    found = read_mask(write_row(tmp_path, mask, name), tmp_path, name)
    assert found.dtype == bool and np.array_equal(found, mask)


@pytest.mark.parametrize(("mask", "said"), [
    (np.full(SHAPE, 2, "uint8"), "m.npy: holds 2 (mask of row 2 of the manifest); a mask is 1 in a lesion, 0 else"),
    (np.full(SHAPE, 0.5), "holds 0.5"), (np.ones((9, 13), bool), "(9, 13), but row 2 of the manifest says (9, 14)"),
    (np.full(SHAPE, "x"), "its values are <U1, not numbers")])
def test_what_is_no_mask_is_refused_in_a_line(tmp_path, mask, said):
    with pytest.raises(InputError) as error:
        read_mask(write_row(tmp_path, mask), tmp_path, "m.npy")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_mask_that_is_missing_or_empty_is_refused_in_a_line(tmp_path):
    row = write_row(tmp_path, np.ones(SHAPE))
    for change in ((tmp_path / "m.npy").write_bytes(b"") is None, (tmp_path / "m.npy").unlink()):
        assert not change
        with pytest.raises(InputError, match=r"m\.npy: (missing|not a readable)"):
            read_mask(row, tmp_path, "m.npy")


@settings(max_examples=40, deadline=None)
@given(arrays(bool, SHAPE).filter(np.any), st.tuples(st.integers(0, 8), st.integers(0, 13)),
       st.sampled_from([None, 3.0, 7.5, 12.0]))
def test_a_hit_is_a_mask_pixel_within_30_mm_or_8_pixels(tmp_path_factory, mask, place, spacing):
    """Against every pixel of the mask, one after another."""
    folder = tmp_path_factory.mktemp("mask")
    row = write_row(folder, mask, **({} if spacing is None else {"spacing_mm": spacing}))
    heat = np.zeros(SHAPE, "float32")
    heat[place] = 1
    found = pointing_game.find_peaks("a", [(0, heat)], pd.DataFrame([row]), folder).iloc[0]
    nearest = min(np.hypot(r - place[0], c - place[1]) for r, c in np.argwhere(mask))
    assert found["distance_pixels"] == pytest.approx(nearest)
    assert found["hit"] == (nearest <= 8 if spacing is None else nearest * spacing <= 30)
    assert np.isnan(found["distance_mm"]) if spacing is None else found["distance_mm"] == pytest.approx(
        nearest * spacing)


def test_lesions_need_a_view_of_known_direction(tmp_path):
    rows = pd.DataFrame({"scan_id": ["a"], "view": ["frontal"], "row": [2], "lesions": [":0:0:0"], "row0_mm": ["0"],
                         "column0_mm": ["0"]})
    assert pointing_game.read_lesions("data.csv", rows.assign(view="rot030")) == [[("", 0, 0, 0)]]
    with pytest.raises(InputError, match=r"row 2 \(scan a\): view = 'frontal' does not say"):
        pointing_game.read_lesions("data.csv", rows)


def test_a_map_without_peak_misses_and_a_view_without_mask_has_no_hit(tmp_path):
    row = write_row(tmp_path, np.ones(SHAPE, bool))
    rows = pd.DataFrame([{**row}, {**row, "known_mask": False, "mask": ""}])
    found = pointing_game.find_peaks("a", [(0, np.zeros(SHAPE)), (1, np.ones(SHAPE))], rows, tmp_path)
    assert found["hit"][0] == 0 and np.isinf(found["distance_pixels"][0]) and np.isnan(found["hit"][1])


def test_chance_is_the_share_of_pixels_that_hit(tmp_path):
    rng = np.random.default_rng(3)
    image, mask = rng.uniform(0, 1, SHAPE).astype("float32"), np.zeros(SHAPE, bool)
    mask[1, 2] = True
    image[[0, 8], [0, 13]] = 2  # two pixels are the brightest: one of them hits
    row = write_row(tmp_path, mask, image=image, spacing_mm=10.0)
    found = lesion_masks.chance(np.array([0]), pd.DataFrame([row]), tmp_path).set_index("kind")["hit"]
    body = [(r, c) for r, c in np.ndindex(SHAPE) if image[r, c] > 0.3]
    assert found["brightest pixel"] == 0.5
    assert found["random body pixel"] == pytest.approx(np.mean([np.hypot(r - 1, c - 2) <= 3 for r, c in body]))


def test_a_random_body_pixel_is_one_of_a_random_view():
    rows = [{"kind": lesion_masks.BODY, "draw": 0, "scan_id": scan, "view": view, "heat": heat, "hit": hit,
             "patient": scan} for scan, view, heat, hit in (("a", "cor", 9.0, 0.2), ("a", "sag", 8.0, 0.4),
                                                            ("b", "cor", 7.0, 0.1), ("b", "sag", 9.0, 0.5))]
    found = pointing_game.summarize(pd.DataFrame(rows)).set_index("view")["share"]
    assert found.to_dict() == pytest.approx({"cor": 0.15, "sag": 0.45, "scan": 0.3})


def test_false_alarms_by_hand():
    """Six hits of 1..6: five of them, 80 %, reach 2. Of three controls, whose hotter view counts, one does not."""
    hits = [(f"h{k}", 1, float(k), 1.0) for k in range(1, 7)] + [("miss", 1, 0.1, 0.0), ("unknown", 1, 0.2, np.nan)]
    controls = [("c1", 0, 0.5, np.nan), ("c1", 0, 1.9, np.nan), ("c2", 0, 0.0, np.nan), ("c2", 0, 2.0, np.nan),
                ("c3", 0, 9.0, np.nan)]
    peaks = pd.DataFrame(hits + controls, columns=["scan_id", "target", "heat", "hit"])
    peaks["patient"] = peaks["scan_id"].replace("c3", "c2")  # one patient's, both alarms
    found = lesion_masks.false_alarms(peaks.sample(frac=1, random_state=0))
    assert (found["heat"], found["controls"], found["alarms"]) == (2.0, 3, 2)
    expected = proportion_estimate([False, True, True], "", ["c1", "c2", "c2"])
    assert {key: found[key] for key in expected} == expected
    nothing = lesion_masks.false_alarms(peaks[peaks["hit"] != 1])
    assert nothing["heat"] is None and nothing["value"] is None and nothing["reason"] == "no control, or no hit"


# ---------------------------------------------------------------- explain.py

@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A cohort of bright squares with their masks, of coronal views booleans (.npy), and a network of one epoch."""
    folder = tmp_path_factory.mktemp("masks")
    table = write_cohort(folder, n_scans=16)
    table["mask"] = ""
    for k, row in table[table["target"] == 1].iterrows():
        name = f"images/{row['scan_id']}_mask{k % 2}." + ("npy", "bin")[k % 2]
        mask = np.fromfile(folder / row["filename"], "<f4").reshape(row["matrix_size_1"], row["matrix_size_2"]) > 5
        np.save(folder / name, mask) if k % 2 == 0 else mask.astype("<f4").tofile(folder / name)
        table.loc[k, "mask"] = name
    table.to_csv(folder / "data.csv", index=False)
    call(train, "--data", folder / "data.csv", "--output", folder / "results", "--weights", "none", "--image_size",
         "auto", "--pool", 2, "--batch_size", 12, "--lr", 0.01, "--threads", 1, "--device", "cpu", "--amp", "off",
         "--nepochs", 1)
    return folder


def options(cohort, data="data.csv", output="heatmaps"):
    return ("--data", cohort / data, "--chptfolder", cohort / "results", "--splits", 0, 0, "--run", 1, "--set", "all",
            "--output", cohort / output, "--threads", 1, "--device", "cpu", "--amp", "off", "--random", 1,
            "--max_scans", 0)


@pytest.mark.parametrize("spacing", [True, False])
def test_explain_plays_on_the_masks(cohort, capsys, spacing):
    table = pd.read_csv(cohort / "data.csv", dtype=str, keep_default_na=False)
    (table if spacing else table.drop(columns="spacing_mm")).to_csv(cohort / "now.csv", index=False)
    output = f"heatmaps{spacing:d}"
    call(explain, *options(cohort, "now.csv", output))
    folder, said, radius = cohort / output / "binary_split0_run1", capsys.readouterr().out, 30 / 3.27 if spacing else 8
    hits, highest = {}, {}
    for row in table.itertuples():
        heat = np.load(folder / "maps" / f"{row.scan_id}_{row.filename[-7:-4]}.npy")
        place, peak = np.unravel_index(heat.argmax(), heat.shape), float(heat.max())
        if peak <= highest.get(row.scan_id, (-1,))[0]:
            continue
        highest[row.scan_id] = peak, int(row.target)
        if row.target == "1":
            shape = int(row.matrix_size_1), int(row.matrix_size_2)
            mask = (np.load if row.mask.endswith("npy") else lambda p: np.fromfile(p, "<f4"))(cohort / row.mask)
            hits[row.scan_id] = peak > 0 and min(
                np.hypot(*(np.array(place) - pixel)) for pixel in np.argwhere(mask.reshape(shape))) <= radius
    game = pd.read_csv(folder / "pointing.csv")
    data = json.loads((folder / "pointing.json").read_text())
    scan = game[game["view"] == "scan"].set_index("kind")
    assert list(scan.index) == ["HiResCAM", "random weights", "brightest pixel", "random body pixel"]
    assert scan["hits"].iloc[0] == sum(hits.values()) and set(scan["scans"]) == {8}
    assert scan.loc["brightest pixel", "share"] == 1 and 0 < scan.loc["random body pixel", "share"] < 1
    assert data.get("within_mm", data.get("within_pixels")) == (30 if spacing else 8)
    assert ("within 3 cm of a lesion's mask" if spacing else "within 8 pixels of a lesion's mask") in said
    alarms = data["false_alarms"]
    assert alarms["controls"] == 8 and (alarms["heat"] is None) == (not any(hits.values()))
    if any(hits.values()):
        heats = sorted(highest[name][0] for name in hits if hits[name])
        assert sum(heat >= alarms["heat"] - 1e-9 for heat in heats) >= 0.8 * len(heats)
        assert alarms["alarms"] == sum(heat >= alarms["heat"] - 1e-9 for heat, target in highest.values() if not target)
    sets = table.drop_duplicates("scan_id")["split0"].replace({"test": "none", "cal": "none"}).value_counts()
    assert data["overlap"]["scans"] == sets.to_dict() and set(sets.index) == {"train", "val", "none"}
    assert (f"warning: optimistic: of the pointing game's 16 scans, or their patients: {sets['train']} trained on, "
            f"{sets['val']} validated on; compared: {sets['none']} scans by identifiers and images") in said


def test_scans_without_a_lesion_in_each_view_are_left_out(cohort, capsys):
    table = pd.read_csv(cohort / "data.csv", dtype=str, keep_default_na=False)
    first = table.index[table["target"] == "1"][0]
    table.loc[first, "mask"] = ""
    table.to_csv(cohort / "less.csv", index=False)
    call(explain, *options(cohort, "less.csv", "less"))
    assert "14 views of 7 positive scans, 7 patients" in capsys.readouterr().out


def test_what_was_made_of_other_maps_is_removed_with_them(cohort):
    folder = cohort / "other" / "binary_split0_run1"
    call(explain, *options(cohort, output="other"), "--review")
    assert all((folder / name).exists() for name in ("pointing.csv", "pointing.json", "review.html"))
    call(explain, *options(cohort, output="other"), "--no_pointing")  # the same maps
    assert (folder / "pointing.json").exists() and (folder / "review.html").exists()
    call(explain, *options(cohort, output="other"), "--no_pointing", "--method", "gradcam", "--overwrite")
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "settings.json", "models.csv", "scale.json", "peaks.csv", "panels.json"}


def test_a_bad_mask_ends_with_exit_code_2_before_any_map(cohort):
    table = pd.read_csv(cohort / "data.csv", dtype=str, keep_default_na=False)
    np.save(cohort / "images" / "small.npy", np.ones((3, 4), bool))
    table.loc[3, "mask"] = "images/small.npy"
    table.to_csv(cohort / "bad.csv", index=False)
    done = run("explain.py", *options(cohort, "bad.csv", "bad"))
    assert "small.npy: (3, 4), but row 5 of the manifest says" in error_line(done) and not (cohort / "bad").exists()
