"""Lesion sites: codes, the two losses, both heads' gradients, checkpoints of either network, the site statistics."""
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, error_line, run
from training_helpers import SMALL, same_run, signal_at, site_cohort

import find_best_model
import train
import train_loca
import utils
from common.files import InputError
from common.manifest import read_manifest
from common.sites import mirrored_sites, read_sites, truth_matrix
from dataset_loca import read_loca_manifest
from evaluation import site_metrics
from training import objectives, recorder
from training.batches import epoch_order

pytestmark = pytest.mark.usefixtures("shallow")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loca")
    site_cohort(folder)
    return folder


def fit(folder, *args, module=train_loca, output="loca"):
    return call(module, "--data", folder / "data.csv", "--output", folder / output, *SMALL, "--nepochs", 1, *args)


# ---------------------------------------------------------------- codes

def manifest(folder, **columns):
    table = pd.DataFrame({"scan_id": ["a", "a", "b", "b"], "filename": ["a_cor.bin", "a_sag.bin", "b_cor.bin",
                          "b_sag.bin"], "target": [1, 1, 0, 0], "matrix_size_1": 9, "matrix_size_2": 9,
                          "target_loc": [6, 6, 51, 51]} | columns)
    table.to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


def test_the_fourteen_codes_are_classes_0_to_13():
    codes = [1, 2, 5, 6, 7, 8, 9, 10, 11, 20, 25, 27, 28, 51]
    assert list(read_sites()) == codes and len(set(read_sites().values())) == 14


def test_codes_become_class_indices(tmp_path):
    table, warnings = read_loca_manifest(manifest(tmp_path), (), read_sites())
    assert table["true_loc"].tolist() == ["3", "3", "13", "13"] and not warnings
    path = manifest(tmp_path, target_loc=["6.0", "6.0", "", ""])  # as pandas writes a column with gaps
    table, warnings = read_loca_manifest(path, (), read_sites())
    assert table["true_loc"].tolist() == ["3", "3", "13", "13"]
    assert warnings == [f"{path}: 2 negative rows without target_loc: taken as 51, no lesion"]
    path = manifest(tmp_path, target_loc=["", "", 51, 51])
    table, warnings = read_loca_manifest(path, (), read_sites())
    assert table["true_loc"].tolist() == ["", "", "13", "13"]
    assert "2 positive rows without target_loc: rows 2, 3" in warnings[0]
    path = manifest(tmp_path, true_loc="x")
    table, warnings = read_loca_manifest(path, (), read_sites())
    assert table["true_loc"].tolist() == ["3", "3", "13", "13"]
    assert warnings == [f"{path}: true_loc is replaced by what target_loc says"]


@pytest.mark.parametrize(("codes", "said"), [
    ([6, 6, 51, 3], "row 5 (scan b): target_loc = '3' is not a code of a site (1, 2, 5,"),
    ([6, "six", 51, 51], "row 3 (scan a): target_loc = 'six' is not a code"),
    ([6, 7, 51, 51], "row 3 (scan a): target_loc = '7' differs between the rows of this scan"),
    (["6;7", "6;7", 51, 51], "row 2 (scan a): target_loc = '6;7' holds several sites; give --site_multi"),
])
def test_bad_codes_are_refused_by_row(tmp_path, codes, said):
    with pytest.raises(InputError) as error:
        read_loca_manifest(manifest(tmp_path, target_loc=codes), (), read_sites())
    assert said in str(error.value)


def test_contradictions_are_named_by_row_and_refused_when_strict(tmp_path):
    path = manifest(tmp_path, target_loc=[51, 51, 20, 20])
    table, warnings = read_loca_manifest(path, (), read_sites())
    assert table["true_loc"].tolist() == [""] * 4
    assert "positive (target 1) with target_loc 51, no lesion: 2 rows of 1 scan: rows 2, 3;" in warnings[0]
    assert "negative (target 0) with the code of a lesion's site: 2 rows of 1 scan: rows 4, 5;" in warnings[1]
    with pytest.raises(InputError, match="rows 2, 3; .* rows 4, 5; correct them, or leave out --site_strict"):
        read_loca_manifest(path, (), read_sites(), strict=True)


def test_several_sites_a_scan(tmp_path):
    path = manifest(tmp_path, target_loc=["20;6", "6; 20", 51, 51])
    table, _ = read_loca_manifest(path, (), read_sites(), multi=True)
    assert table["true_loc"].tolist() == ["3;9", "3;9", "13", "13"]
    truth = truth_matrix(table["true_loc"], 14)
    assert [np.flatnonzero(row).tolist() for row in truth] == [[3, 9], [3, 9], [13], [13]]
    with pytest.raises(InputError, match="holds 51, no lesion, beside a site"):
        read_loca_manifest(manifest(tmp_path, target_loc=["20;51", "20;51", 51, 51]), (), read_sites(), multi=True)


def test_another_map(tmp_path):
    def file(text):
        (tmp_path / "map.json").write_text(text)
        return tmp_path / "map.json"

    assert read_sites(file('{"100": "leg", "7": " arm "}')) == {7: "arm", 51: "no lesion", 100: "leg"}
    for text, said in (('{"1": "a", "1": "b"}', "'1' is there twice"), ('{"x": "a", "2": "b"}', "code 'x' is not"),
                       ('{"1": "a", "2": "a"}', "the name 'a' is there twice"), ('{"1": ""}', "is not a text"),
                       ("[1]", "must be an object"), ("{", "cannot be read as JSON"),
                       ('{"1": "a"}', "two sites or more")):
        with pytest.raises(InputError, match=said):
            read_sites(file(text))


# ---------------------------------------------------------------- the losses

def build_objective(true_loc, target, train=None, sites=4, site_on="positive", site_multi=False, **options):
    """Of `sites` classes, the last one no lesion; codes 48, 49, ... 51."""
    settings = objectives.site_settings({52 - sites + k: f"site {k}" for k in range(sites)}, "grid", False, site_on,
                                        site_multi)
    table = pd.DataFrame({"scan_id": [f"s{i}" for i in range(len(target))], "target": target, "true_loc": true_loc})
    return objectives.BinaryAndSite(table, np.arange(len(target)) if train is None else train, torch.device("cpu"),
                                    settings, **options)


LOGITS = torch.tensor([[0.2, 1.5, 1.0, 0.0, -1.0, 9.0], [0.2, 1.5, 0.5, 2.0, 0.0, 9.0],
                       [-1.0, 0.3, 0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
TRUE, TARGET = ["0", "2", "3"], [1, 1, 0]  # two positive scans, one negative


def binary_part(target=TARGET):
    def term(z, y):
        return -np.log(1 / (1 + np.exp(-z))) if y else -np.log(1 - 1 / (1 + np.exp(-z)))

    return np.array([(term(z[0], not y) + term(z[1], y)) / 2 for z, y in zip(LOGITS.numpy(), target, strict=True)])


def cross_entropy(logits, weights, smoothing=0.0):
    """-sum_k target_k weight_k log softmax_k, with `weights` a (k,) array and the true class first."""
    target = np.full(len(logits), smoothing / len(logits))
    target[0] += 1 - smoothing
    return -(target * weights * (logits - np.log(np.exp(logits).sum()))).sum()


def test_loss_on_positive_scans_leaves_51_out_and_averages_over_them():
    one, two = cross_entropy(np.array([1.0, 0, -1]), np.ones(3)), cross_entropy(np.array([0, 0.5, 2.0]), np.ones(3))
    expected = binary_part() + 0.7 * np.array([one, two, 0]) / (2 / 3)  # 2 of 3 images have a site
    found = build_objective(TRUE, TARGET, site_lambda=0.7).loss(LOGITS, np.arange(3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose((found - torch.tensor(binary_part())).mean(), 0.7 * (one + two) / 2, rtol=1e-6)


def test_site_has_its_weight_in_an_oversampled_epoch_and_in_the_log_of_any_set():
    """One positive training image among five is drawn four times: half of an epoch, not a fifth, has a site."""
    true, target = ["0", "3", "3", "3", "3", "2", "", "3"], [1, 0, 0, 0, 0, 1, 1, 0]
    train = np.arange(5)
    objective = build_objective(true, target, train, site_lambda=0.7, oversample=True)
    binary = objectives.Binary(pd.DataFrame({"scan_id": true, "target": target}), train, torch.device("cpu"))
    logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    site = [-logits[image, 2:5].log_softmax(0)[int(true[image])] for image in (0, 5)]
    epoch = epoch_order(train, objective.y_true, 1, oversample=True)
    for index, expected in ((epoch, site[0]), (train, site[0]), (np.arange(5, 8), site[1]), (np.arange(6, 8), 0)):
        plain = binary.loss(logits[index, :2], index).mean()
        assert objective.mean_loss(logits[index], index) == pytest.approx(float(plain + 0.7 * expected), rel=1e-5)
    found = objective.loss(logits[epoch], epoch) - binary.loss(logits[epoch, :2], epoch)
    assert len(epoch) == 8 and found.mean().item() == pytest.approx(0.7 * site[0].item(), rel=1e-5)


def test_loss_on_all_scans_has_51_as_a_class():
    rows = [np.array([1.0, 0, -1, 9]), np.array([0, 0.5, 2.0, 9]), np.array([0.4, 0.1, 0.2, 0.3])]  # true class first
    expected = binary_part() + [cross_entropy(row, np.ones(4)) for row in rows]
    every = build_objective(TRUE, TARGET, site_on="all")
    np.testing.assert_allclose(every.loss(LOGITS, np.arange(3)), expected, rtol=1e-6)


def test_loss_with_balance_and_smoothing():
    """Training: sites 0, 0, 0, 1 in four positive images, site 2 in none: weights 4 / (2 x 3), 4 / (2 x 1), 1."""
    weights = np.array([2 / 3, 2.0, 1.0])
    balanced = build_objective(["0", "0", "0", "1", "3"], [1, 1, 1, 1, 0], site_balance=True, site_smoothing=0.3)
    assert balanced.untaught == ["site 2"]
    one = cross_entropy(np.array([1.0, 0, -1]), weights, 0.3)
    two = cross_entropy(np.array([2.0, 0.5, 0.0]), weights[[1, 0, 2]], 0.3)
    found = balanced.site_loss(LOGITS[:2, 2:], np.array([0, 3]))
    np.testing.assert_allclose(found, np.array([one, two]) / (4 / 5), rtol=1e-6)


def test_loss_of_several_sites_is_binary_cross_entropy_of_each():
    def term(z, y, weight=1.0):
        p = 1 / (1 + np.exp(-z))
        return -(weight * y * np.log(p) + (1 - y) * np.log(1 - p))

    multi = build_objective(["0;2", "2", "3"], TARGET, site_multi=True, site_smoothing=0.2, site_balance=True)
    # of the two images with a site, one shows site 0: weight 1 / 1; both show site 2 and none site 1: weight 1
    one = np.mean([term(1.0, 0.9), term(0.0, 0.1), term(-1.0, 0.9)])
    two = np.mean([term(0.5, 0.1), term(2.0, 0.1), term(0.0, 0.9)])
    expected = binary_part() + np.array([one, two, 0]) / (2 / 3)
    np.testing.assert_allclose(multi.loss(LOGITS, np.arange(3)), expected, rtol=1e-6)


def test_nothing_to_learn_is_refused():
    with pytest.raises(InputError, match="no training image has a site"):
        build_objective(["", "", "3"], TARGET)
    with pytest.raises(InputError, match="no validation image has a site to learn .*; give --select auc"):
        build_objective(TRUE, TARGET, train=np.arange(2), select="loc")


@pytest.mark.parametrize("site_head", ["grid", "linear"])
@pytest.mark.parametrize("detach", [False, True])
def test_gradients_of_both_heads(detach, site_head):
    """Detached, the site's loss moves fc_loc as it does otherwise, and neither backbone nor the binary head."""
    torch.manual_seed(0)
    sites = {str(48 + k): f"site {k}" for k in range(4)}
    model = utils.SiteResNet34(sites, site_head, detach).double()
    moved = tuple(f"features.{k}." for k in ((0, 1, 4, 5, 6) if site_head == "grid" else range(8)))
    x, learn, index = torch.randn(3, 1, 64, 64, dtype=torch.float64), build_objective(TRUE, TARGET), np.arange(3)
    boxes = torch.tensor([[[0.0, 1.0]] * 2] * 3, dtype=torch.float64)

    def gradients(loss):
        model.zero_grad()
        loss(model(x, 0, boxes)).backward()
        return {name: p.grad.clone() if p.grad is not None else torch.zeros_like(p)
                for name, p in model.named_parameters()}

    site = gradients(lambda out: learn.site_loss(out[:, 2:], index).mean())
    assert all((g != 0).any() == (name.startswith("fc_loc") or (not detach and name.startswith(moved)))
               for name, g in site.items())
    binary = gradients(lambda out: super(objectives.BinaryAndSite, learn).loss(out[:, :2], index).mean())
    assert all((g != 0).any() == (not name.startswith("fc_loc")) for name, g in binary.items())
    both = gradients(lambda out: learn.loss(out, index).mean())
    for name, g in both.items():
        torch.testing.assert_close(g, binary[name] + site[name], rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- statistics

def test_site_probabilities():
    settings = {"sites": {"1": "a", "2": "b", "51": "none"}, "site_on": "positive", "site_multi": False}
    logits = np.array([[0.0, np.log(3), 50.0]])
    np.testing.assert_allclose(objectives.site_probabilities(logits, settings), [[0.25, 0.75, 0]])
    np.testing.assert_allclose(objectives.site_probabilities(logits, settings | {"site_multi": True}),
                               [[0.5, 0.75, 0]])
    every = objectives.site_probabilities(logits, settings | {"site_on": "all"})
    np.testing.assert_allclose(every[0, 2], 1, atol=1e-12)


def test_metrics_are_of_the_scans_mean_and_of_positive_scans():
    learn = build_objective(["0", "0", "1", "1", "3", "3"], [1, 1, 1, 1, 0, 0])
    learn.scans = np.array(list("aabbcc"))
    big = 10.0
    site = [[1, 0, 0, 99], [big, 0, 0, 0], [big, 0, 0, 0], [0, 9, 0, 0], [0] * 4, [0] * 4]
    out = np.hstack([np.array([[0, 1], [0, 1], [0, 2], [0, 2], [1, 0], [1, 0]], float), np.array(site, float)])
    found = learn.metrics(out.astype("float32"), np.arange(6))
    # a: right in both views. b: softmax (1, 0, 0) and (0, 1, 0) but for 1e-4: the mean is nearly even, site 0 wins by
    # the larger logit
    assert found["auc"] == 1 and found["loc_acc"] == 0.5 and found["loc_bacc"] == 0.5 and found["loc_top3"] == 1
    assert found["sum"] == 1.5 and "selected" not in found


def test_weighted_statistics_are_those_of_repeated_scans():
    from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score
    rng = np.random.default_rng(0)
    site, scores = rng.integers(0, 4, 60), rng.random((60, 4)).round(1)
    truth, times = np.eye(4, dtype=bool)[site], rng.integers(0, 4, (1, 60)).astype(float)
    rows = np.repeat(np.arange(60), times[0].astype(int))
    found = site_metrics.weighted_metrics(truth, scores, times)
    called = scores.argmax(1)
    assert found["loc_bacc"][0] == pytest.approx(balanced_accuracy_score(site[rows], called[rows]), abs=1e-12)
    assert found["loc_acc"][0] == pytest.approx(np.mean(site[rows] == called[rows]), abs=1e-12)
    lowest = np.argsort(-scores, axis=1, kind="stable")[:, 3]
    assert found["loc_top3"][0] == pytest.approx(np.mean(lowest[rows] != site[rows]), abs=1e-12)
    truth |= rng.random(truth.shape) < 0.2
    found = site_metrics.weighted_metrics(truth, scores, times, multi=True)
    for name, function in (("loc_auc", roc_auc_score), ("loc_ap", average_precision_score)):
        each = [function(truth[rows, k], scores[rows, k]) for k in range(4)]
        assert found[name][0] == pytest.approx(np.mean(each), abs=1e-12)


def test_site_evaluation_by_hand():
    truth = np.eye(3, dtype=bool)[[0, 0, 0, 1, 1, 2]]
    called = [0, 0, 1, 1, 0, 2]
    result = site_metrics.all_metrics(truth, np.eye(3)[called], ["a", "b", "c"], resamples=200)
    assert result["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert result["loc_acc"]["value"] == 4 / 6 and result["loc_bacc"]["value"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert result["loc_bacc"]["ci_low"] < 0.72 < result["loc_bacc"]["ci_high"]
    entry = result["sites"][0]
    assert (entry["name"], entry["n"], entry["called"]) == ("a", 3, 3)
    assert entry["recall"]["ci_low"] == pytest.approx(0.2077, abs=1e-4)  # Wilson, 2 of 3
    assert entry["recall"]["ci_high"] == pytest.approx(0.9385, abs=1e-4)
    json.dumps(result, allow_nan=False)


# ---------------------------------------------------------------- training

def test_checkpoints_go_from_one_network_to_the_other(cohort):
    fit(cohort, module=train, output="binary")
    binary = cohort / "binary" / "checkpoint_split0_run1.pth"
    sites = {str(code): name for code, name in read_sites().items()}
    model = utils.SiteResNet34(sites)
    first = {name: value.clone() for name, value in model.fc_loc.state_dict().items()}
    _, taken = utils.load_weights(model, binary)
    old = utils.read_checkpoint(binary)["state_dict"]
    assert all(torch.equal(value, old[name]) for name, value in model.state_dict().items() if name in old)
    assert all(torch.equal(value, first[name]) for name, value in model.fc_loc.state_dict().items())
    assert set(model.state_dict()) - set(old) == {f"fc_loc.{name}" for name in first}
    assert ("took 72 keys of features, 2 keys of fc; left random, since the checkpoint has another head: "
            "9 keys of fc_loc") in taken
    fit(cohort, "--checkpoint", binary, "--transfer_learning", output="moved")  # the heads alone
    multi = cohort / "moved" / "checkpoint_split0_run1.pth"
    new, content = utils.load_model(multi)
    assert new.sites == sites == content["model"]["sites"]
    assert all(torch.equal(new.state_dict()[name], value) for name, value in old.items() if "features" in name)
    back = utils.ResNet34()
    stored, taken = utils.load_weights(back, multi)
    assert stored == content["input"]
    assert torch.equal(back.fc.weight, new.fc.weight)
    assert taken.endswith("; not used: 9 keys of fc_loc")
    renamed = utils.SiteResNet34(sites | {"1": "elsewhere"})  # as many sites, but others
    utils.load_weights(renamed, multi)
    assert not torch.equal(renamed.fc_loc.linear.weight, new.fc_loc.linear.weight)


@pytest.mark.parametrize("options", [(), ("--site_on", "all", "--site_balance", "--select", "sum", "--site_detach"),
                                     ("--site_multi", "--select", "loc")])
def test_training_logs_the_site_metrics_and_keeps_what_is_selected(cohort, capsys, options):
    fit(cohort, "--overwrite", "--nepochs", 3, *options)
    log = pd.read_csv(cohort / "loca" / "convergence_split0_run1.csv")
    rows = log[log["split"] == "validation"].pivot(index="epoch", columns="metric", values="value")
    selected = "sum" if "sum" in options else "loc_ap" if "loc" in options else "auc"
    assert {"loss", "auc", "loc_acc", "loc_top3", "loc_ap" if "--site_multi" in options else "loc_bacc"} <= set(rows)
    content = utils.read_checkpoint(cohort / "loca" / "checkpoint_split0_run1.pth")
    assert content["epoch"] == rows[selected].idxmax() and content["model"]["site_on"] in ("positive", "all")
    assert content["auc"] == rows["auc"][content["epoch"]]
    assert ("selected" in rows) == (selected != "auc")
    call(find_best_model, "--dir", cohort / "loca")
    best = pd.read_csv(cohort / "loca" / "best_run.csv").iloc[0]
    assert best["epoch"] == content["epoch"] and best["value"] == content["auc"]
    said = capsys.readouterr().out
    assert "warning: no training image shows" in said and "loc_top3 " in said


def test_resumed_run_is_the_undisturbed_one_to_the_bit(cohort, monkeypatch):
    options = ("--nepochs", 2, "--select", "sum", "--site_balance", "--optimizer", "adamw", "--augm", 4)
    fit(cohort, *options, output="whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_at(patch, 2, 0)
        fit(cohort, *options, output="cut")
    last = cohort / "cut" / "last_split0_run1.pth"
    content = utils.read_checkpoint(last)  # under the names of before
    content["args"]["lambda_loc"], content["args"]["loc_balance"] = (content["args"].pop(name) for name in (
        "site_lambda", "site_balance"))
    content["model"]["loc_on"] = content["model"].pop("site_on")
    torch.save(content, last)
    with pytest.raises(InputError, match=r"other values of --site_lambda \(1.0, now 2.0\)"):
        fit(cohort, *options, "--site_lambda", 2, "--resume", output="cut")
    fit(cohort, *options, "--resume", output="cut")
    same_run(cohort / "cut", cohort / "whole")


def test_other_sites_are_other_labels_for_the_site_network_alone(cohort):
    words = ("--data", cohort / "sited.csv", "--images", cohort, "--output", cohort / "sited", *SMALL, "--nepochs", 1)
    table = pd.read_csv(cohort / "data.csv")
    table.drop(columns="target_loc").to_csv(cohort / "sited.csv", index=False)
    call(train, *words)
    table.to_csv(cohort / "sited.csv", index=False)
    call(train_loca, *words, "--run", 2)
    binary = utils.read_checkpoint(cohort / "sited" / "checkpoint_split0_run1.pth")
    utils.save_checkpoint(cohort / "sited" / "checkpoint_split0_run3.pth", binary | {
        "labels_hash": recorder.labels_hash(read_manifest(cohort / "sited.csv", (0,)), 0, sites=True)})  # of before
    call(train, *words, "--run", 1, 3)  # both are left alone
    table["target_loc"] = table["target_loc"].replace(1, 28)
    table.to_csv(cohort / "sited.csv", index=False)
    call(train, *words)
    with pytest.raises(InputError, match="trained on other scans, labels or sets than"):
        call(train_loca, *words, "--run", 2)


def test_a_binary_network_goes_on_from_two_heads(cohort, capsys):
    fit(cohort, "--site_on", "all", output="first")
    fit(cohort, "--checkpoint", cohort / "first" / "checkpoint_split0_run1.pth", "--transfer_learning", module=train,
        output="second")
    assert "took 72 keys of features, 2 keys of fc; not used: 9 keys of fc_loc" in capsys.readouterr().out
    states = [utils.read_checkpoint(cohort / name / "checkpoint_split0_run1.pth")["state_dict"]
              for name in ("first", "second")]
    assert not any(name.startswith("fc_loc") for name in states[1])
    assert all(torch.equal(value, states[0][name]) for name, value in states[1].items() if "features" in name)


def test_pixels_of_another_size_than_the_checkpoints_are_named(tmp_path, capsys):
    table = site_cohort(tmp_path)
    table.assign(spacing_mm=3.27).to_csv(tmp_path / "data.csv", index=False)
    fit(tmp_path, module=train, output="first")
    start = ("--checkpoint", tmp_path / "first" / "checkpoint_split0_run1.pth", "--transfer_learning")
    fit(tmp_path, *start, module=train, output="same")
    assert "warning" not in capsys.readouterr().out
    fit(tmp_path, *start, "--pool", 1, module=train, output="finer")
    assert "trained on pixels of 6.54 mm, this run has 3.27 mm (spacing_mm x --pool)" in capsys.readouterr().out


def test_other_normalization_than_the_checkpoints_is_said(cohort, capsys):
    fit(cohort, "--norm", "thesis", module=train, output="thesis")
    start = ("--checkpoint", cohort / "thesis" / "checkpoint_split0_run1.pth", "--transfer_learning")
    fit(cohort, *start, "--norm", "thesis", module=train, output="as_before")
    assert "normalized by" not in capsys.readouterr().out
    fit(cohort, *start, "--norm", "lars", module=train, output="lars")
    assert "deviation 0.6089 and 1.8575 SUV, this run by 2.1300 and 3.3900 SUV (--norm)" in capsys.readouterr().out


def test_mirrored_images_of_sites_with_a_side_are_warned_of(tmp_path, capsys):
    table = site_cohort(tmp_path)
    codes = sorted(set(table["target_loc"]) - {51})
    names = ["left neck", "Right groin", "bright spleen"] + [f"site {code}" for code in codes[3:]]
    (tmp_path / "map.json").write_text(json.dumps(dict(zip(map(str, codes), names, strict=True))))
    line = "warning: --augm 34 mirrors the images but not the names of left neck, Right groin: give --augm 0, 4 or 5"
    for augm, said in ((34, True), (4, False)):
        fit(tmp_path, "--site_map", tmp_path / "map.json", "--augm", augm, output=f"augm{augm}")
        assert (line in capsys.readouterr().out) == said
    sides = ["left", "neck_left", "Right-groin", "neck (L)", "R axilla", "cou gauche", "aine droite", "Hals links",
             "linker hals", "rechte Leiste", "axila izquierda", "ascella destra", "virilha direita"]
    without = ["bright spleen", "leftover", "Leiste", "dorsal", "rectal", "linkage", "LN 4R5"]
    assert mirrored_sites(dict(enumerate(sides + without)), 12) == sides and not mirrored_sites(read_sites(), 3)


def test_strict_and_unknown_codes_at_the_command_line(tmp_path):
    table = site_cohort(tmp_path)
    table.loc[:1, "target_loc"] = 5  # scan 0 is negative
    table.to_csv(tmp_path / "data.csv", index=False)
    arguments = ("--data", tmp_path / "data.csv", "--output", tmp_path / "out", *SMALL)
    assert "negative (target 0) with the code of a lesion's site: 2 rows of 1 scan: rows 2, 3" in error_line(
        run("train_loca.py", *arguments, "--site_strict"))
    (tmp_path / "map.json").write_text('{"1": "a", "2": "b"}')
    assert "row 2 (scan s000): target_loc = '5' is not a code of a site (1, 2, 51)" in error_line(
        run("train_loca.py", *arguments, "--site_map", tmp_path / "map.json"))
    assert not (tmp_path / "out").exists()
