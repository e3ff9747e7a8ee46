"""train.py, find_best_model.py and predict.py on a small cohort, and the engine under them."""
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, error_line, run
from training_helpers import SMALL, fit, same, same_run, weights

import find_best_model
import predict
import train
import utils
from common.files import InputError
from common.manifest import read_manifest
from dataset import NetworkInput, eval_batch, read_bodies
from training import engine, objectives
from training.batches import FrozenBatches, ImageBatches

pytestmark = pytest.mark.usefixtures("shallow")


def best(folder, output="results"):
    return call(find_best_model, "--dir", folder / output)


# ---------------------------------------------------------------- the engine

def binary(*targets, train=None, **options):
    table = pd.DataFrame({"scan_id": [f"s{i}" for i in range(len(targets))], "target": targets})
    train = np.arange(len(targets)) if train is None else train
    return objectives.Binary(table, train, torch.device("cpu"), **options)


def test_loss_is_binary_cross_entropy_of_both_logits():
    logits, index = torch.tensor([[0.2, 1.5], [-1.0, 0.3]]), np.array([3, 1])  # targets 1, 0

    def term(z, y, weight=1.0):
        p = 1 / (1 + np.exp(-z))
        return -(weight * y * np.log(p) + (1 - y) * np.log(1 - p))

    plain = [[term(0.2, 0), term(1.5, 1)], [term(-1.0, 1), term(0.3, 0)]]
    np.testing.assert_allclose(binary(0, 0, 0, 1).loss(logits, index), np.mean(plain, axis=1), rtol=1e-6)
    weighted = [[term(0.2, 0, 1 / 3), term(1.5, 1, 3)], [term(-1.0, 1, 1 / 3), term(0.3, 0, 3)]]
    balanced = binary(0, 0, 0, 1, balance=True)  # 3 negatives, 1 positive
    np.testing.assert_allclose(balanced.loss(logits, index), np.mean(weighted, axis=1), rtol=1e-6)
    smooth = [[term(0.2, 0.1), term(1.5, 0.9)], [term(-1.0, 0.9), term(0.3, 0.1)]]
    smoothed = binary(0, 0, 0, 1, label_smoothing=0.2)
    np.testing.assert_allclose(smoothed.loss(logits, index), np.mean(smooth, axis=1), rtol=1e-6)


def test_metrics_are_those_of_the_scans_mean():
    scans, y = np.array(list("aabbccdd")), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    p = np.array([0.1, 0.3, 0.9, 0.5, 0.2, 0.9, 0.4, 0.2])  # scans 0.2, 0.7 | 0.55, 0.3
    assert objectives.scan_metrics(scans, y, p) == pytest.approx({"auc": 0.5, "ber": 0.5, "fpr": 0.5, "fnr": 0.5})
    p[4] = 0.8  # 0.85
    assert objectives.scan_metrics(scans, y, p) == pytest.approx({"auc": 0.75, "ber": 0.5, "fpr": 0.5, "fnr": 0.5})


def test_probability_is_the_softmax_of_class_1():
    p = objectives.probabilities(np.array([[0.0, np.log(3.0)], [50.0, -50.0]]))
    assert p == pytest.approx([0.75, np.exp(-100)])


# ---------------------------------------------------------------- a run and its files

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cohort with two splits trained for three epochs, and best_run.csv."""
    from conftest import write_cohort
    folder = tmp_path_factory.mktemp("trained")
    write_cohort(folder)
    assert fit(folder, "--split_index", 0, 1, "--nepochs", 3, "--augm", 34, "--early_stopping") is None
    assert best(folder) is None
    return folder


def test_run_writes_its_log_and_its_best_epoch(trained):
    for split in (0, 1):
        log = pd.read_csv(trained / "results" / f"convergence_split{split}_run1.csv")
        assert list(log.columns) == ["epoch", "split", "metric", "value"]
        assert len(log) == 3 * 2 * 5 and set(log["metric"]) == {"loss", "auc", "ber", "fpr", "fnr"}
        auc = log[(log["split"] == "validation") & (log["metric"] == "auc")].set_index("epoch")["value"]
        content = utils.read_checkpoint(trained / "results" / f"checkpoint_split{split}_run1.pth")
        assert content["auc"] == auc.max() and content["epoch"] == auc.idxmax()
        plain = torch.load(trained / "results" / f"checkpoint_split{split}_run1.pth", weights_only=True)
        assert type(plain["auc"]) is float and plain["optimizer"] == plain["lr_scheduler"] == {}
        assert content["input"]["pool"] == 2 and content["input"]["spacing_mm"] == 3.27
        assert tuple(content["input"]["frame"]) == (32, 32)
    assert not list((trained / "results").glob("last_*")) and not list((trained / "results").glob(".*"))


def test_logged_validation_is_what_the_kept_weights_give(trained):
    table = read_manifest(trained / "data.csv", (0,))
    table = table[table["split0"] == "val"].reset_index(drop=True)
    model, content = utils.load_model(trained / "results" / "checkpoint_split0_run1.pth")
    bodies = read_bodies(table, trained, pool=2)
    images = ImageBatches(bodies, NetworkInput(**content["input"]), 8)
    logits = engine.evaluate(model, images.centred(np.arange(len(table)))).logits
    metrics = objectives.scan_metrics(table["scan_id"], table["target"], objectives.probabilities(logits))
    assert metrics["auc"] == content["auc"]


def test_predictions_are_the_forward_pass_of_the_checkpoint(trained):
    assert call(predict, "--data", trained / "data.csv", "--output", trained / "pred", "--chptfolder",
                trained / "results", "--splits", 0, 1, "--set", "val", "test", "--amp", "off") is None
    table = pd.read_csv(trained / "pred" / "pred_split1_run1.csv", dtype={"hospital": str})
    assert table["set"].value_counts().to_dict() == {"test": 12, "val": 12}
    assert (table["set"] == table["split1"]).all() and (table["hospital"] == "007").all()
    assert [c for c in table if c.startswith("F")] == [f"F{i}" for i in range(1, 513)]
    rows = read_manifest(trained / "data.csv").set_index("filename").loc[table["filename"]].reset_index()
    model, content = utils.load_model(trained / "results" / "checkpoint_split1_run1.pth")
    bodies = read_bodies(rows, trained, pool=2)
    x, _ = eval_batch(bodies, np.arange(len(rows)), content["input"]["frame"], content["input"]["norm"])
    with torch.inference_mode():
        expected = model(x).double().softmax(1)[:, 1].numpy()
        features = model.embed(x).numpy()
    np.testing.assert_allclose(table["probs"], expected, rtol=1e-4)
    np.testing.assert_allclose(table[[f"F{i}" for i in range(1, 513)]], features, rtol=1e-3, atol=1e-5)


def test_new_patients_without_target_or_splits(trained):
    new = pd.read_csv(trained / "data.csv").drop(columns=["target", "split0", "split1"])
    new.to_csv(trained / "new.csv", index=False)
    assert call(predict, "--data", trained / "new.csv", "--output", trained / "new", "--chptfolder",
                trained / "results", "--splits", 0, 1, "--set", "all") is None
    table = pd.read_csv(trained / "new" / "pred_split0_run1.csv")
    assert len(table) == 48 and (table["set"] == "all").all() and table["probs"].between(0, 1).all()


def test_splits_without_a_model_are_listed_and_exit_1(trained, capsys):
    assert call(predict, "--data", trained / "data.csv", "--output", trained / "range", "--chptfolder",
                trained / "results", "--splits", 0, 3) == 1
    out = capsys.readouterr().out
    assert "split 2: no model" in out and "split 3: no model" in out
    assert len(list((trained / "range").glob("pred_*.csv"))) == 2
    with pytest.raises(InputError, match="--set test all: all holds the others"):
        call(predict, "--data", trained / "data.csv", "--output", trained / "range", "--chptfolder",
             trained / "results", "--splits", 0, 0, "--set", "test", "all")


def test_seed_split_and_run_make_the_weights(trained):
    fit(trained, "--split_index", 1, "--nepochs", 3, "--augm", 34, "--early_stopping", output="again")
    fit(trained, "--split_index", 1, "--nepochs", 1, "--augm", 34, "--run", 2, output="again")
    fit(trained, "--split_index", 1, "--nepochs", 1, "--augm", 34, output="again1")
    assert same(weights(trained / "again" / "checkpoint_split1_run1.pth"),
                weights(trained / "results" / "checkpoint_split1_run1.pth"))
    assert not same(weights(trained / "again" / "checkpoint_split1_run2.pth"),
                    weights(trained / "again1" / "checkpoint_split1_run1.pth"))


def test_bad_checkpoints_and_folders_of_checkpoints(trained, tmp_path):
    args = ("--data", trained / "data.csv", "--output", tmp_path / "pred", "--chptfolder", tmp_path, "--splits", 0, 0)
    with pytest.raises(InputError, match="best_run.csv: missing; find_best_model.py --dir"):
        call(predict, *args)
    with pytest.raises(InputError, match="gone.zip: no such folder of networks, and no such zip; correct its name"):
        call(predict, *args, "--chptfolder", tmp_path / "gone.zip")
    (tmp_path / "best_run.csv").write_text("split,run,epoch,metric,value,rank\n0,1,1,auc,0.9,1\n")
    with pytest.raises(InputError, match="checkpoint_split0_run1.pth: no such checkpoint"):
        call(predict, *args)
    (tmp_path / "checkpoint_split0_run1.pth").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InputError, match="checkpoint_split0_run1.pth: not a readable checkpoint"):
        call(predict, *args)
    with pytest.raises(InputError, match="no model of splits 5 to 9; it has .0."):
        call(predict, *args[:-2], 5, 9)
    (tmp_path / "best_run.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not a best_run.csv"):
        call(predict, *args)


def test_checkpoint_that_best_run_did_not_rank_is_refused(trained, tmp_path):
    best = pd.read_csv(trained / "results" / "best_run.csv")
    for column, value in (("epoch", 99), ("value", 0.123)):
        best.assign(**{column: value}).to_csv(tmp_path / "best_run.csv", index=False)
        shutil.copy(trained / "results" / "checkpoint_split0_run1.pth", tmp_path)
        with pytest.raises(InputError, match=f"best_run.csv has epoch .*{value}.*trained again since"):
            call(predict, "--data", trained / "data.csv", "--output", tmp_path, "--chptfolder", tmp_path)


def test_another_spacing_is_refused(trained):
    table = pd.read_csv(trained / "data.csv")
    table["spacing_mm"] = 4.0
    table.to_csv(trained / "wide.csv", index=False)
    with pytest.raises(InputError, match="trained on pixels of 3.27 mm, but .*wide.csv has 4.0 mm.*--spacing 3.27"):
        call(predict, "--data", trained / "wide.csv", "--output", trained / "wide", "--chptfolder", trained / "results")


def test_another_type_of_suv_is_refused(trained, capsys):
    pd.read_csv(trained / "data.csv").assign(suv_type="lbm").to_csv(trained / "lean.csv", index=False)
    with pytest.raises(InputError, match="trained on SUV of type bw, but .*lean.csv has lbm; run .* with --suv bw"):
        call(predict, "--data", trained / "lean.csv", "--output", trained / "lean", "--chptfolder", trained / "results")
    fit(trained, "--nepochs", 1, "--data", trained / "lean.csv", "--checkpoint",
        trained / "results" / "checkpoint_split0_run1.pth", output="lean")
    assert "trained on SUV of type bw, this run has lbm" in capsys.readouterr().out
    content = utils.read_checkpoint(trained / "lean" / "checkpoint_split0_run1.pth")
    assert content["input"]["suv_type"] == "lbm"
    mixed = pd.read_csv(trained / "lean.csv").assign(suv_type=lambda t: ["lbm"] * (len(t) - 1) + ["bw"])
    mixed.to_csv(trained / "mixed.csv", index=False)
    with pytest.raises(InputError, match="suv_type = 'bw' differs from the first row's 'lbm'"):
        fit(trained, "--nepochs", 1, "--data", trained / "mixed.csv", output="mixed")


def test_views_that_a_model_was_not_trained_on_are_left_out(trained, capsys):
    """A rotating projection is none of the images that the network knows: it must not change a scan's score."""
    def predicted(name, table):
        table.to_csv(trained / f"{name}.csv", index=False)
        call(predict, "--data", trained / f"{name}.csv", "--output", trained / name, "--chptfolder",
             trained / "results", "--splits", 0, 1, "--set", "all")
        return pd.read_csv(trained / name / "pred_split0_run1.csv")["filename"].tolist()

    plain, turned = (pd.read_csv(trained / "data.csv").assign(view=view) for view in (["cor", "sag"] * 24, "rot030"))
    turned = turned.iloc[::2].assign(filename=turned["filename"].str.replace("_cor", "_rot030"))
    for name, source in zip(turned["filename"], plain["filename"][::2], strict=True):
        (trained / name).write_bytes((trained / source).read_bytes())
    assert predicted("six", pd.concat([plain, turned])) == plain["filename"].tolist()
    assert capsys.readouterr().out.count("warning: models trained on the views cor, sag; left out: rot030") == 1
    with pytest.raises(InputError, match="trained on the views cor, sag; the manifest has none of them"):
        predicted("turned", turned)
    pd.concat([plain, turned]).to_csv(trained / "three.csv", index=False)
    call(train, "--data", trained / "three.csv", "--output", trained / "three", *SMALL, "--nepochs", 1)
    content = utils.read_checkpoint(trained / "three" / "checkpoint_split0_run1.pth")
    assert tuple(content["input"]["views"]) == ("cor", "sag", "rot030")
    best(trained, "three")
    call(predict, "--data", trained / "data.csv", "--output", trained / "three", "--chptfolder", trained / "three",
         "--splits", 0, 0)
    assert "trained on the views cor, sag, rot030; the manifest has no rot030" in capsys.readouterr().out


def test_input_of_a_checkpoint_that_stores_none_can_be_named(trained, tmp_path):
    content = utils.read_checkpoint(trained / "results" / "checkpoint_split0_run1.pth")
    torch.save({k: content[k] for k in ("epoch", "state_dict", "optimizer", "lr_scheduler", "early_stopping", "auc")},
               tmp_path / "checkpoint_split0_run1.pth")
    (tmp_path / "best_run.csv").write_text("split,run,epoch,metric,value,rank\n0,1,1,auc,0.9,1\n")
    args = ("--data", trained / "data.csv", "--output", tmp_path, "--chptfolder", tmp_path, "--splits", 0, 0)
    assert call(predict, *args, "--norm", "thesis", "--image_size", 64, "--amp", "off") is None
    table = read_manifest(trained / "data.csv", (0,))
    table = table[table["split0"] == "test"].reset_index(drop=True)
    bodies = read_bodies(table, trained, box="lars")
    x, _ = eval_batch(bodies, np.arange(len(table)), (64, 64), (0.6089, 1.8575))
    model, _ = utils.load_model(tmp_path / "checkpoint_split0_run1.pth")
    with torch.inference_mode():
        expected = model(x).double().softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(pd.read_csv(tmp_path / "pred_split0_run1.csv")["probs"], expected, rtol=1e-4)


# ---------------------------------------------------------------- starting from a checkpoint, going on, refusing

@pytest.mark.parametrize(("mode", "moved"), [("--transfer_learning", {"fc"}), ("--finetune", {"fc", "features.7"})])
def test_frozen_layers_do_not_move_nor_do_their_batch_norms(trained, mode, moved):
    start = trained / "results" / "checkpoint_split0_run1.pth"
    fit(trained, "--nepochs", 1, "--checkpoint", start, mode, output=mode.strip("-"))
    old, new = weights(start), weights(trained / mode.strip("-") / "checkpoint_split0_run1.pth")
    changed = {k for k in new if not torch.equal(new[k], old[k])}
    assert {k.split(".")[0] if k.startswith("fc") else ".".join(k.split(".")[:2]) for k in changed} == moved


def test_checkpoint_with_another_head_keeps_its_backbone(trained):
    start = trained / "results" / "checkpoint_split0_run1.pth"
    model = utils.ResNet34("complex", hidden=64)
    _, taken = utils.load_weights(model, start)
    assert torch.equal(model.features[0].weight, weights(start)["features.0.weight"])
    assert "left random, since the checkpoint has another head: 4 keys of fc" in taken


def test_settings_stand_beside_the_checkpoint(cohort):
    fit(cohort, "--nepochs", 2, "--augm", 3)
    path = cohort / "results" / "settings_split0_run1.json"
    written, content = json.loads(path.read_text()), utils.read_checkpoint(cohort / "results" /
                                                                           "checkpoint_split0_run1.pth")
    assert written["args"]["augm"] == 3 and written["input"]["pool"] == 2 and written["version"]
    assert written["epoch"] == content["epoch"] and written["auc"] == content["auc"] and "state_dict" not in written
    path.unlink()  # as of runs of before
    fit(cohort, "--nepochs", 2, "--augm", 3, "--resume")
    assert json.loads(path.read_text()) == written


def test_sweep_trains_what_is_missing_and_sums_up(trained, capsys):
    before = (trained / "results" / "checkpoint_split0_run1.pth").stat().st_mtime_ns
    fit(trained, "--split_index", "0-1", "--run", "1-2", "--nepochs", 3, "--augm", 34, "--early_stopping")
    out = capsys.readouterr().out
    assert (trained / "results" / "checkpoint_split0_run1.pth").stat().st_mtime_ns == before
    rows = [line.split() for line in out.splitlines() if line.endswith(("before", "3 epochs"))]
    assert [row[:2] for row in rows] == [["0", "1"], ["0", "2"], ["1", "1"], ["1", "2"]]
    assert [row[-1] for row in rows] == ["before", "epochs", "before", "epochs"]
    for split in (0, 1):
        content = utils.read_checkpoint(trained / "results" / f"checkpoint_split{split}_run2.pth")
        assert rows[2 * split + 1][4] == f"{content['auc']:.4f}"
        (trained / "results" / f"convergence_split{split}_run2.csv").unlink()  # other tests know one run


def test_sweep_goes_on_after_a_run_that_failed(cohort, capsys):
    assert fit(cohort, "--split_index", 0, 1, "--nepochs", 1, "--lr", "1e30") == 1
    out, err = capsys.readouterr()
    assert err.count("the loss is not finite in epoch 1 from batch 2 on (images/s0") == 2 and out.count("failed: ") == 2


def test_sweep_goes_on_after_a_split_whose_bodies_exceed_the_frame(cohort, capsys):
    (cohort / "params.csv").write_text("split,image_size\n0,32 16\n1,32\n")
    size = SMALL.index("--image_size")
    assert call(train, "--data", cohort / "data.csv", "--output", cohort / "results", *SMALL[:size], *SMALL[size + 2:],
                "--params", cohort / "params.csv", "--split_index", 0, 1, "--nepochs", 1) == 1
    out, err = capsys.readouterr()
    assert "error: split 0 run 1: images/s006_cor.bin: body of 30 x 18 pixels is larger than the frame 32 x 16" in err
    assert "failed: images/s006_cor.bin" in out and (cohort / "results" / "checkpoint_split1_run1.pth").exists()


def test_finished_run_with_other_arguments_is_refused(trained):
    with pytest.raises(InputError, match=r"exists, trained with other values of --augm \(34, now 0\).*--overwrite"):
        fit(trained, "--nepochs", 3, "--early_stopping")


def test_overwrite_leaves_the_checkpoint_that_a_run_starts_from(trained):
    start = trained / "results" / "checkpoint_split0_run1.pth"
    before = start.read_bytes()
    with pytest.raises(InputError, match="split 0 run 2 starts from it, and --overwrite would replace it: "):
        fit(trained, "--nepochs", 1, "--checkpoint", start, "--run", 2, 1, "--overwrite")
    assert start.read_bytes() == before and not (trained / "results" / "last_split0_run2.pth").exists()


def test_checkpoint_says_how_it_was_made(trained):
    content = utils.read_checkpoint(trained / "results" / "checkpoint_split0_run1.pth")
    assert content["args"]["augm"] == 34 and content["versions"]["torch"] == str(torch.__version__)
    assert len(content["data_hash"]) == 64 and content["precision"] == "float32" and content["threads"] == 1
    assert content["device"].startswith("cpu (") and content["processes"] == 1
    assert (trained / "results" / "convergence_split0_run1.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_holds_the_log(cohort):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    fit(cohort, "--nepochs", 2, "--tensorboard", cohort / "board")
    events = EventAccumulator(str(cohort / "board" / "split0_run1")).Reload()
    log = pd.read_csv(cohort / "results" / "convergence_split0_run1.csv")
    auc = log[(log["split"] == "validation") & (log["metric"] == "auc")]["value"]
    assert [event.value for event in events.Scalars("auc/validation")] == pytest.approx(auc.tolist())


@pytest.mark.parametrize("mode", ["--transfer_learning", "--finetune"])
def test_cached_features_give_the_uncached_epoch(trained, mode, monkeypatch):
    """In evaluation mode a layer's output does not know of the batch: the cache changes nothing but the time."""
    start, filled = trained / "results" / "checkpoint_split0_run1.pth", []
    options = ("--nepochs", 3, "--checkpoint", start, mode, "--augm", 34, "--eval_train")
    computed = FrozenBatches.computed

    def counted(self, placement, images, *args):
        if (self.start, placement, images.index.tobytes()) not in self.cache:
            filled.append((placement, len(images.index)))
        return computed(self, placement, images, *args)

    monkeypatch.setattr(FrozenBatches, "computed", counted)
    fit(trained, *options, "--cached_placements", 2, output=f"cached{mode}")
    assert [f for f in filled if f[0] != "centred"] == [((34, 0), 24), ((34, 1), 24)]
    assert sum(n for key, n in filled if key == "centred") == 36  # training and validation images, once
    training = ImageBatches._training

    def same_placements(self, order, seed, done):  # those of the cache: (seed, split, placement), images sorted
        images = np.unique(order)
        drawn = np.random.default_rng((0, 0, (seed[-1] - 1) % 2)).random((len(images), 6))
        with monkeypatch.context() as patch:
            patch.setattr(np.random, "default_rng", lambda _: SimpleNamespace(
                random=lambda size: drawn[np.searchsorted(images, order)]))
            yield from training(self, order, seed, done)

    monkeypatch.setattr(ImageBatches, "_training", same_placements)
    fit(trained, *options, "--cached_placements", 2, "--resume", output=f"cached{mode}")
    fit(trained, *options, "--cached_placements", 0, output=f"uncached{mode}")
    one, other = (pd.read_csv(trained / f"{kind}{mode}" / "convergence_split0_run1.csv") for kind in ("cached",
                                                                                                       "uncached"))
    np.testing.assert_allclose(one["value"], other["value"], rtol=1e-4, atol=1e-6)


def test_features_that_do_not_fit_are_said(trained, monkeypatch):
    from training import batches
    monkeypatch.setattr(batches, "available_memory", lambda device: 1000)
    with pytest.raises(InputError, match="the frozen layers' output of 24 images needs 0.0 GB.*--cached_placements 0"):
        fit(trained, "--nepochs", 1, "--checkpoint", trained / "results" / "checkpoint_split0_run1.pth", "--finetune",
            output="nomemory")


def test_fp16_on_this_device_trains(cohort):
    fit(cohort, "--nepochs", 1, "--amp", "fp16")
    content = utils.read_checkpoint(cohort / "results" / "checkpoint_split0_run1.pth")
    assert content["precision"] == "float16" and content["state_dict"]["fc.weight"].dtype == torch.float32


def test_eval_train_logs_the_training_set_as_evaluated(cohort):
    fit(cohort, "--nepochs", 1, "--eval_train")
    table = read_manifest(cohort / "data.csv", (0,))
    train = table[table["split0"] == "train"].reset_index(drop=True)
    model, content = utils.load_model(cohort / "results" / "checkpoint_split0_run1.pth")
    images = ImageBatches(read_bodies(train, cohort, pool=2), NetworkInput(**content["input"]), 12)
    logits = engine.evaluate(model, images.centred(np.arange(len(train)))).logits
    log = pd.read_csv(cohort / "results" / "convergence_split0_run1.csv").set_index(["split", "metric"])["value"]
    index = np.arange(len(train))
    objective = objectives.Binary(train, index, torch.device("cpu"))
    assert log["train", "loss"] == pytest.approx(objective.loss(torch.from_numpy(logits), index).mean().item())
    assert log["train", "auc"] == objective.metrics(logits, index)["auc"]


def test_calibration_scans_are_not_trained_on_and_predicted_apart(cohort, tmp_path_factory):
    """As if the manifest did not have them: the same bits, and their images need not even be there."""
    table, without = pd.read_csv(cohort / "data.csv"), tmp_path_factory.mktemp("without")
    cal = table["scan_id"].isin(["s007", "s008", "s016", "s017"])
    table.assign(split0=table["split0"].mask(cal, "cal"), split1=table["split1"].mask(cal, "cal")).to_csv(
        cohort / "data.csv", index=False)
    table[~cal].to_csv(without / "data.csv", index=False)
    shutil.copytree(cohort / "images", without / "images")
    for name in table.loc[cal, "filename"]:
        (cohort / name).rename(cohort / name.replace("images/", ""))
    for folder in (cohort, without):
        fit(folder, "--split_index", 0, 1, "--nepochs", 2, "--augm", 4)
        best(folder)
    same_run(cohort / "results", without / "results")
    same_run(cohort / "results", without / "results", "split1_run1")
    for name in table.loc[cal, "filename"]:
        (cohort / name.replace("images/", "")).rename(cohort / name)
    call(predict, "--data", cohort / "data.csv", "--output", cohort / "cal", "--chptfolder", cohort / "results",
         "--splits", 0, 1, "--set", "cal", "--no_features")
    for split in (0, 1):
        predicted = pd.read_csv(cohort / "cal" / f"pred_split{split}_run1.csv")
        assert list(predicted["filename"]) == list(table.loc[cal, "filename"]) and (predicted["set"] == "cal").all()


def test_bad_input_of_the_commands_is_one_line_and_exit_2(cohort):
    table = pd.read_csv(cohort / "data.csv")
    (cohort / "images" / "s007_cor.bin").unlink()
    assert "s007_cor.bin: missing (row 16" in error_line(run("train.py", "--data", cohort / "data.csv", *SMALL,
                                                            "--output", cohort / "r"))
    table[table["split0"] == "train"].to_csv(cohort / "one.csv", index=False)
    with pytest.raises(InputError, match="split0 val holds no rows"):
        call(train, "--data", cohort / "one.csv", "--output", cohort / "r")
    assert "--lr: 'fast' is not a number" in error_line(run("train.py", "--lr", "fast"))
    assert not (cohort / "r").exists()


def test_diverging_training_is_said(cohort):
    with pytest.raises(InputError, match=r"not finite in epoch 1 from batch 2 on \(images/s0.* more\); lower --lr"):
        fit(cohort, "--nepochs", 1, "--lr", "1e30")


def test_batch_of_one_image_that_leaves_one_pixel_is_refused(cohort):
    with pytest.raises(InputError, match="--batch_size 1: a batch of one image of 32 x 32 pixels cannot be normalized"):
        fit(cohort, "--nepochs", 1, "--batch_size", 1)
    fit(cohort, "--nepochs", 1, "--batch_size", 1, "--transfer_learning")  # nothing is normalized anew


@pytest.mark.parametrize("script", ["train.py", "predict.py", "train_loca.py", "predict_loca.py", "optun.py",
                                    "optuna_finetuning.py"])
def test_help_answers_without_torch(script, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    done = run(script, "--help", check=0, env={"PYTHONPATH": str(tmp_path)})
    assert "python " + script in done.stdout and "default:" in done.stdout
