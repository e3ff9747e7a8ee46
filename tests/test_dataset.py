import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_cohort
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset
from common import manifest
from common.files import InputError
from common.manifest import read_manifest
from common.mips import pooled
from dataset import Bodies, NetworkInput, body_box, eval_batch, read_bodies, read_image
from training import batches

NORM = (2.0, 4.0)
ZERO = (0 - 2.0) / 4.0  # what SUV 0 is after NORM


# ---------------------------------------------------------------- the manifest

def test_manifest_is_read_with_its_columns(cohort):
    table = read_manifest(cohort / "data.csv", splits=(0, 1))
    assert len(table) == 48 and table["view"].tolist()[:2] == ["cor", "sag"]
    assert table["target"].dtype == np.int64 and table["matrix_size_1"].dtype == np.int64
    assert table["hospital"].unique().tolist() == ["007"]  # carried through as it stands in the file
    assert table["row"].iloc[0] == 2
    lines = (cohort / "data.csv").read_text().splitlines()
    (cohort / "data.csv").write_text("\n".join([*lines[:3], "", " ", *lines[3:], ""]))
    assert read_manifest(cohort / "data.csv")["row"].tolist() == [2, 3, *range(6, 52)]


@pytest.mark.parametrize(("row", "column", "value", "expected"), [
    (4, "split0", "validation", "row 6 (scan s002): split0 = 'validation' is not train, val, test or cal"),
    (4, "split0", "", "row 6 (scan s002): split0 = ''"),
    (6, "target", "2", "row 8 (scan s003): target = '2' is not 0"),
    (6, "target", "", "row 8 (scan s003): target = ''"),
    (7, "target", "0", "row 9 (scan s003): target = '0' differs between the rows of this scan"),
    (7, "split1", "train", "row 9 (scan s003): split1 = 'train' differs"),
    (3, "matrix_size_1", "-3", "matrix_size_1 = '-3'"),
    (3, "filename", "images/s000_cor.bin", "filename = 'images/s000_cor.bin' is there twice"),
    (3, "filename", "images/s000_cor_copy.bin", "view = 'cor' is there twice"),
    (3, "filename", "images/s000.bin", "view = '' and the file name holds no cor"),
    (3, "spacing_mm", "4", "spacing_mm = '4' differs from the first row's 3.27"),
    (3, "spacing_mm", "wide", "spacing_mm = 'wide' is not a length"),
    (0, "patient_id", "p023", "patient_id = 'p000' differs"),
])
def test_bad_rows_are_named(cohort, row, column, value, expected):
    table = pd.read_csv(cohort / "data.csv", dtype=str)
    table.loc[row, column] = value
    if expected.startswith("view"):
        table.loc[row, "scan_id"] = "s000"
    table.to_csv(cohort / "data.csv", index=False)
    with pytest.raises(InputError) as error:
        read_manifest(cohort / "data.csv", splits=(0, 1))
    assert expected in str(error.value) and "data.csv" in str(error.value)


def test_numbers_and_views_as_other_programs_write_them(cohort):
    plain = pd.read_csv(cohort / "data.csv", dtype=str, keep_default_na=False).drop(columns="view", errors="ignore")
    views = plain["filename"].str.contains("cor").map({True: "Coronal", False: "SAG"})
    plain.assign(view=views, matrix_size_1=plain["matrix_size_1"] + ".0").to_csv(cohort / "floats.csv", index=False)
    table, other = read_manifest(cohort / "data.csv"), read_manifest(cohort / "floats.csv")
    pd.testing.assert_frame_equal(other[table.columns], table, check_dtype=False)
    plain.assign(view=views.replace("SAG", "frontal")).to_csv(cohort / "floats.csv", index=False)
    assert set(read_manifest(cohort / "floats.csv")["view"]) == {"cor", "frontal"}


def test_patient_in_two_sets_is_refused(cohort):
    table = pd.read_csv(cohort / "data.csv")
    table.loc[table["scan_id"].isin(["s000", "s010"]), "patient_id"] = "p999"
    table.to_csv(cohort / "data.csv", index=False)
    with pytest.raises(InputError, match="patient_id p999 is in test and train of split0"):
        read_manifest(cohort / "data.csv", splits=(0,))


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(InputError, match="none.csv: no such file; give the manifest, such as --data"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_manifest(tmp_path / "empty.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column scan_id, filename"):
        read_manifest(tmp_path / "other.csv")


def test_new_patients_need_neither_target_nor_splits(cohort):
    table = pd.read_csv(cohort / "data.csv").drop(columns=["target", "split0", "split1"])
    table.to_csv(cohort / "new.csv", index=False)
    assert len(read_manifest(cohort / "new.csv", need_target=False)) == 48
    with pytest.raises(InputError, match="no column target; add it: 0 for Deauville 1-3, 1 for"):
        read_manifest(cohort / "new.csv")
    with pytest.raises(InputError, match="no column split0; make_splits.py .*, --set all predicts every row without"):
        read_manifest(cohort / "new.csv", (0,), need_target=False)


def test_split_with_one_class_is_refused(cohort):
    table = read_manifest(cohort / "data.csv", splits=(0,))
    manifest.check_classes("data.csv", table, 0)
    table.loc[table["split0"] == "val", "target"] = 1
    with pytest.raises(InputError, match="split0 val holds target 1 only"):
        manifest.check_classes("data.csv", table, 0)
    with pytest.raises(InputError, match="split0 train holds no rows"):
        manifest.check_classes("data.csv", table[table["split0"] != "train"], 0)


def test_single_views_are_reported(cohort):
    table = read_manifest(cohort / "data.csv")
    assert manifest.report_views(table) is None
    assert manifest.report_views(table.drop(index=[3, 5])) == "one view only: 2 of 24 scans, for example s001"


# ---------------------------------------------------------------- the images

def test_networks_take_no_suv_of_body_surface_area(cohort):
    table = read_manifest(cohort / "data.csv")
    assert len(read_bodies(table.assign(suv_type="lbm"), cohort).images) == len(table)
    for reading in (lambda: read_bodies(table.assign(suv_type="bsa"), cohort),
                    lambda: NetworkInput((64, 64), (1.0, 1.0), suv_type="bsa")):
        with pytest.raises(InputError, match="bsa: no network reads such MIPs: .* prepro_script.py --suv bw or lbm$"):
            reading()


def test_bin_and_npy_hold_the_same_image(cohort):
    row = next(read_manifest(cohort / "data.csv").itertuples())
    image = read_image(row, cohort)
    assert image.shape == (60, 36) and image.dtype == np.float32
    np.save(cohort / "images" / "s000_cor.npy", image.astype(np.float64))
    np.testing.assert_array_equal(read_image(row._replace(filename="images/s000_cor.npy"), cohort), image)


@pytest.mark.parametrize(("damage", "expected"), [
    (lambda path: path.unlink(), "missing .row 2 of the manifest.; give their folder with --images"),
    (lambda path: path.write_bytes(path.read_bytes()[:-4]), "8636 bytes, but row 2 of the manifest says 60 x 36"),
    (lambda path: path.write_bytes(path.read_bytes() + b"0"), "8641 bytes"),
    (lambda path: np.full(60 * 36, np.nan, "<f4").tofile(path), "NaN or infinity"),
    (lambda path: np.zeros(60 * 36, "<f4").tofile(path), "no pixel above SUV 0.3 .maximum 0.; are the values SUV"),
])
def test_bad_images_are_named(cohort, damage, expected):
    table = read_manifest(cohort / "data.csv")
    damage(cohort / "images" / "s000_cor.bin")
    with pytest.raises(InputError, match=expected) as error:
        read_bodies(table, cohort)
    assert "s000_cor.bin" in str(error.value)


def test_npy_of_another_shape_or_with_objects_is_refused(cohort):
    row = next(read_manifest(cohort / "data.csv").itertuples())._replace(filename="a.npy")
    np.save(cohort / "a.npy", np.ones((36, 60)))
    with pytest.raises(InputError, match="(36, 60)"):
        read_image(row, cohort)
    np.save(cohort / "a.npy", np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match="not a readable image"):
        read_image(row, cohort)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1))
def test_body_box_holds_every_body_pixel_and_is_tight(height, width, points):
    image = np.zeros((height, width), np.float32)
    for row, column in points:
        image[row % height, column % width] = 1
    crop = image[body_box(image, "x")]
    assert crop.sum() == image.sum()
    assert crop[0].any() and crop[-1].any() and crop[:, 0].any() and crop[:, -1].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31))
def test_pooling_is_max_pooling(height, width, k, seed):
    image = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(image)[None], k, ceil_mode=True)[0]
    np.testing.assert_array_equal(pooled(image, k), expected)


def bodies_of(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    images = torch.zeros(len(shapes), max(s[0] for s in shapes), max(s[1] for s in shapes))
    for image, (height, width) in zip(images, shapes, strict=True):
        image[:height, :width] = torch.from_numpy(rng.uniform(1, 9, (height, width)))
    return Bodies(images, torch.tensor(shapes), [f"image{i}" for i in range(len(shapes))])


def test_frame_auto_is_the_smallest_box_of_32s_with_room():
    bodies, both = bodies_of((100, 20), (64, 40)), np.array([0, 1])
    assert dataset.choose_frame("auto", bodies, both, 0) == (128, 64)
    assert dataset.choose_frame("auto", bodies, both, 25) == (128, 96)
    assert dataset.choose_frame("auto", bodies, both, 29) == (160, 96)
    assert dataset.choose_frame((310, 310), bodies, both, 8) == (310, 310)


def test_frame_auto_gives_training_bodies_their_room_and_lets_the_others_in():
    bodies = bodies_of((60, 20), (70, 40))
    assert dataset.choose_frame("auto", bodies, np.array([0]), 4) == (96, 64)  # 64 x 24, but image 1 is 70 x 40
    assert dataset.choose_frame("auto", bodies, np.array([1]), 30) == (128, 96)


def test_images_that_do_not_fit_into_memory_are_refused_with_the_remedy(tmp_path, monkeypatch):
    write_cohort(tmp_path, n_scans=4)
    table = read_manifest(tmp_path / "data.csv")
    monkeypatch.setattr(dataset, "available_memory", lambda device: 1000)
    with pytest.raises(InputError, match=r"8 images of 60 x 36 pixels do not fit into the free memory; use --pool 2"):
        read_bodies(table, tmp_path)


def test_data_hash_sees_images_targets_and_splits(tmp_path):
    table = write_cohort(tmp_path, n_scans=4)
    bodies = read_bodies(table.assign(row=0), tmp_path)
    first = dataset.data_hash(bodies, table, 0)
    assert first == dataset.data_hash(read_bodies(table.assign(row=0), tmp_path), table.assign(other=1), 0)
    assert first != dataset.data_hash(bodies, table, 1)
    assert first != dataset.data_hash(bodies, table.assign(target=1 - table["target"]), 0)
    bodies.images[3, 2, 2] += 1e-3
    assert first != dataset.data_hash(bodies, table, 0)


def test_body_larger_than_the_frame_is_refused_by_name_or_cut_about_its_middle():
    bodies = bodies_of((20, 10), (24, 13))
    with pytest.raises(InputError, match="image1: body of 24 x 13 pixels is larger than the frame 20 x 20"):
        dataset.fit_bodies(bodies, (20, 20))
    cut = dataset.fit_bodies(bodies, (20, 12), crop=True)
    assert cut.sizes.tolist() == [[20, 10], [20, 12]]
    assert torch.equal(cut.images[0, :20, :10], bodies.images[0, :20, :10])
    assert torch.equal(cut.images[1, :20, :12], bodies.images[1, 2:22, :12])


def test_norm_is_that_of_the_body_boxes_alone():
    bodies = bodies_of((20, 10), (24, 13), (3, 3))
    bodies.images[1, 0, 0] = 500  # clipped to 30
    pixels = np.concatenate([bodies.images[0, :20, :10].flatten(), bodies.images[1, :24, :13].flatten()]).clip(0, 30)
    assert dataset.norm_constants(bodies, np.array([0, 1])) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-6)


def test_norm_does_not_depend_on_the_size_of_other_images():
    """A sweep reads those of other splits, too: its runs are to have the same bits as alone."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        images = [rng.gamma(1, 1.2, shape).astype("float32") + 0.31 for shape in ((40, 23), (40, 23), (47, 28))]
        alone, sweep = (dataset.stack_bodies(images[:n], "abc"[:n], (60, 60)) for n in (2, 3))
        assert dataset.norm_constants(alone, np.arange(2)) == dataset.norm_constants(sweep, np.arange(2))


class OnMPS(torch.Tensor):
    """A tensor on a device without float64, as Apple's MPS."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        out = super().__torch_function__(func, types, args, kwargs)
        if isinstance(out, OnMPS) and out.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return out


def test_norm_on_a_device_without_float64():
    bodies = bodies_of((20, 10), (24, 13))
    there = dataset.Bodies(bodies.images.as_subclass(OnMPS), bodies.sizes, bodies.names)
    with pytest.raises(TypeError, match="MPS"):
        there.images.double()
    assert dataset.norm_constants(there, np.arange(2)) == dataset.norm_constants(bodies, np.arange(2))


# ---------------------------------------------------------------- the batches

def denormalized(x):
    return x.squeeze(1) * NORM[1] + NORM[0]


def train_batch(bodies, index, frame, norm, augm, seed):
    images = batches.ImageBatches(bodies, NetworkInput(frame, norm), len(index), augm)
    return next(images.training(index, seed).batches).x


def pixel_boxes(x):
    """First and end row and column of what is above the background, in shares of the frame."""
    inside = (x > x.amin((1, 2, 3), keepdim=True))[:, 0]
    return torch.stack([torch.stack([lines.float().argmax(1), lines.shape[1] - lines.flip(1).float().argmax(1)], 1)
                        / lines.shape[1] for lines in (inside.any(2), inside.any(1))], 1)


@pytest.mark.parametrize("augm", [0, 1, 2, 3, 12, 4, 14, 34])
def test_boxes_travel_with_the_bodies(augm):
    images = batches.ImageBatches(bodies_of((20, 10), (24, 13), (8, 30)), NetworkInput((32, 32), NORM), 200, augm)
    for batch in (*images.training(np.arange(3).repeat(60), (0, 1)).batches, *images.centred(np.arange(3)).batches):
        assert torch.equal(batch.boxes, pixel_boxes(batch.x))


def test_evaluation_puts_the_body_in_the_middle():
    bodies = bodies_of((20, 10), (24, 13))
    x, _ = eval_batch(bodies, np.array([1, 0]), (30, 16), NORM)
    assert x.shape == (2, 1, 30, 16)
    expected = np.full((30, 16), ZERO, np.float32)
    expected[3:27, 1:14] = (bodies.images[1, :24, :13] - 2) / 4
    np.testing.assert_allclose(x[0, 0], expected, rtol=1e-6)


def test_body_that_fills_the_frame():
    bodies = bodies_of((32, 32))
    x = train_batch(bodies, np.array([0]), (32, 32), NORM, 0, (0, 1))
    torch.testing.assert_close(x, eval_batch(bodies, np.array([0]), (32, 32), NORM)[0])


def test_training_moves_the_body_anywhere_in_the_frame():
    bodies = bodies_of((20, 10))
    x = train_batch(bodies, np.zeros(400, int), (22, 11), (0.0, 1.0), 0, (0, 1))[:, 0]
    places = {tuple(place.tolist()) for place in (torch.stack([image.nonzero().amin(0) for image in x]))}
    assert places == {(row, column) for row in range(3) for column in range(2)}
    assert torch.allclose(x.sum((1, 2)), bodies.images[0].sum())


@pytest.mark.parametrize("augm", [0, 1, 2, 3, 12, 4, 5, 14, 34, 45])
def test_augmentation_depends_on_seed_and_position_alone(augm):
    given = bodies_of((20, 10), (24, 13), (8, 8)), NetworkInput((32, 32), NORM), 4, augm
    images, order = batches.ImageBatches(*given), np.array([2, 0, 1, 1, 0, 2, 1])
    whole = [batch.x for batch in images.training(order, (3, 1)).batches]
    parts = [list(batches.ImageBatches(*given, lambda n, part=part: part).training(order, (3, 1)).batches)
             for part in (slice(0, 1), slice(1, None))]  # of two processes
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([first.x, second.x]), batch)
    later = list(images.training(order, (3, 1), done=1).batches)
    assert len(later) == 1 and torch.equal(later[0].x, whole[1])
    assert not torch.equal(whole[0], next(images.training(order, (3, 2)).batches).x)
    assert not torch.equal(whole[0][2], whole[1][0])  # the same image at two places of the epoch


@pytest.mark.parametrize("augm", [1, 2, 3, 12])
def test_geometric_augmentations_give_just_the_turned_images(augm):
    bodies = bodies_of((32, 32))
    image = (bodies.images[0] - 2) / 4
    flips = [image.flip(1)] + [image.flip(0)] * (augm in (1, 12))
    expected = [image, *flips] if augm != 2 else []
    if augm in (2, 12):
        expected = [e.rot90(k) for e in expected or [image] for k in range(4)]
    x = train_batch(bodies, np.zeros(200, int), (32, 32), NORM, augm, (0, 0))[:, 0]
    seen = [next(i for i, e in enumerate(expected) if torch.allclose(one, e)) for one in x]
    distinct = {next(i for i, other in enumerate(expected) if torch.equal(other, expected[k])) for k in seen}
    assert len(distinct) == {1: 3, 2: 4, 3: 2, 12: 8}[augm]
    share = np.mean([i == 0 for i in seen])
    assert abs(share - {1: 0.5, 2: 0.25, 3: 0.5, 12: 0.125}[augm]) < 0.12


def test_intensity_scales_the_suv_and_leaves_the_background():
    bodies = bodies_of((20, 10))
    x = train_batch(bodies, np.zeros(300, int), (32, 32), NORM, 4, (0, 0))
    factors = denormalized(x).sum((1, 2)) / bodies.images[0].sum()
    assert 0.85 <= factors.min() < 0.86 and 1.14 < factors.max() <= 1.15
    assert torch.all(x[:, 0].flatten(1).amin(1) == ZERO)


def test_noise_is_a_tenth_of_an_suv_in_the_body_alone():
    bodies = bodies_of((32, 20))
    x = denormalized(train_batch(bodies, np.zeros(50, int), (32, 32), NORM, 5, (0, 0)))
    clean = denormalized(train_batch(bodies, np.zeros(50, int), (32, 32), NORM, 0, (0, 0)))
    noise = (x - clean)[clean > 0.5]
    assert noise.std().item() == pytest.approx(0.1, rel=0.02) and abs(noise.mean().item()) < 0.002
    assert torch.equal(x[clean == 0], clean[clean == 0])


def test_turning_needs_a_square_frame():
    with pytest.raises(InputError, match="square frame, not 32 x 64"):
        train_batch(bodies_of((20, 10)), np.array([0]), (32, 64), NORM, 12, (0, 0))


def test_oversampling_evens_the_classes_and_keeps_every_image():
    index, y_true = np.arange(100, 120), np.array([0] * 100 + [1] * 5 + [0] * 15)
    order = batches.epoch_order(index, y_true, (0, 1), oversample=True)
    assert batches.steps_per_epoch(index, y_true, 7, oversample=True) == 5
    assert len(order) == 30 and set(order) == set(index)
    repeats = np.bincount(order - 100)
    assert (repeats[:5] == 3).all() and (repeats[5:] == 1).all()
    assert sorted(batches.epoch_order(index, y_true, (0, 1))) == index.tolist()
    assert batches.epoch_order(index, y_true, (0, 1)).tolist() != batches.epoch_order(index, y_true, (0, 2)).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(2, 60))
def test_batches_cover_everything_and_leave_no_single_image(n, batch_size):
    found = batches.batch_indices(n, batch_size)
    assert np.concatenate(found).tolist() == list(range(n))
    assert max(map(len, found)) <= batch_size
    assert min(map(len, found)) >= 2 or n == 1 or batch_size == 2


def test_batch_that_has_no_image_for_some_process_is_refused(monkeypatch):
    """Batch normalization over processes would take the mean of nothing, NaN."""
    for processes in (2, 3, 8):
        monkeypatch.setattr(batches.distributed, "world", lambda processes=processes: processes)
        with pytest.raises(InputError, match=f"--batch_size {processes}: 25 images leave a batch of .* give "
                                             f"{2 * processes - 1} or more, or start fewer processes"):
            batches.check_batch_size(processes, 25, (64, 64))
        for n in range(processes, 100):
            batches.check_batch_size(2 * processes - 1, n, (32, 32))
