"""LARS's checkpoints: its own box, files by any name; and weights under the names that others give them."""
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from conftest import call
from lars_helpers import lars_checkpoint, lars_frame, lars_probability, one_channel_torchvision

import dataset
import predict
import utils
from common.files import InputError
from dataset import NORMS, NetworkInput
from inference.prediction import predict_mips
from training.runs import warn_other_input

SIZES = [(211, 130), (311, 97), (160, 311), (200, 121)]  # of the body; 311: its first 310 pixels fill LARS's frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four MIPs with a margin of zeros, a faint rim below BODY_SUV, values above 30 and below 0; two LARS files."""
    folder, rng, rows = tmp_path_factory.mktemp("lars"), np.random.default_rng(5), []
    for scan, size in enumerate(SIZES):
        image = np.zeros((size[0] + 9, size[1] + 6), "<f4")
        body = rng.gamma(0.4, 5, size)
        body[0, :], body[-5:, :], body[:, -4:], body[2, 2], body[20:25, 30:35] = 0.1, 0.15, 0.2, -0.5, 41
        image[4:4 + size[0], 3:3 + size[1]] = body
        image.tofile(folder / f"s{scan}_cor.bin")
        rows.append({"scan_id": f"s{scan}", "filename": f"s{scan}_cor.bin", "matrix_size_1": image.shape[0],
                     "matrix_size_2": image.shape[1], "split3": "test" if scan < 2 else "train"})
    pd.DataFrame(rows).to_csv(folder / "data.csv", index=False)
    for seed, name in enumerate(("published weights.pth", "checkpoint_split3_run2.pth")):
        lars_checkpoint(network(seed, folder), folder / name)
    return folder


def network(seed, folder):
    """With batch norms that have seen such images: scores that are not all 0 or 1."""
    net = one_channel_torchvision(seed)
    seen = torch.stack([torch.from_numpy(lars_frame(image)).float()[None] for image in images(folder)])
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1
    with torch.no_grad():
        net.train()(seen)
        logits = net.eval()(seen)
        net.fc.weight /= logits.diff(dim=1).std()
        net.fc.bias.copy_(-(net(seen) - net.fc.bias).mean(0))
    return net


def images(folder):
    return [np.fromfile(folder / row.filename, "<f4").reshape(row.matrix_size_1, row.matrix_size_2)
            for row in pd.read_csv(folder / "data.csv").itertuples()]


def predicted(folder, output, *args):
    assert call(predict, "--data", folder / "data.csv", "--output", output, "--amp", "off", *args) is None


def test_predictions_are_those_of_lars(folder, tmp_path, capsys):
    predicted(folder, tmp_path, "--set", "all", "--checkpoints", folder / "published weights.pth",
              folder / "checkpoint_split3_run2.pth")
    said = capsys.readouterr().out
    assert said.count("are given LARS's: its box, frame 310 x 310, mean 2.13 and standard deviation 3.39 SUV") == 1
    assert f"{folder / 'published weights.pth'} is called split 0 run 1" in said
    for seed, name in enumerate(("split0_run1", "split3_run2")):
        net = network(seed, folder)
        expected = [lars_probability(net, image) for image in images(folder)]
        found = pd.read_csv(tmp_path / f"pred_{name}.csv")
        np.testing.assert_allclose(found["probs"], expected, rtol=0, atol=1e-5)
        assert np.ptp(expected) > 0.01
        cut = [image[dataset.body_box(image, "")] for image in images(folder)]  # that of our own networks would not do
        other = lars_probability(net, np.pad(cut[0], (0, 1), constant_values=0.1))  # whose last row and column go
        assert abs(other - expected[0]) > 1e-4


@pytest.mark.parametrize("kind", ["lbm", "bsa"])
def test_other_suv_than_by_body_weight_are_refused(folder, tmp_path, kind):
    words = f"published weights.pth: trained on SUV of type bw, but .* has {kind}; run prepro_script.py with --suv bw"
    checkpoint = folder / "published weights.pth"
    with pytest.raises(InputError, match=words):
        predict_mips(checkpoint, {"one": images(folder)[0]}, 3.27, kind)
    if kind != "bsa":  # refused before, by whoever reads such images
        pd.read_csv(folder / "data.csv").assign(suv_type=kind).to_csv(folder / f"{kind}.csv", index=False)
        with pytest.raises(InputError, match=words):
            call(predict, "--data", folder / f"{kind}.csv", "--output", tmp_path, "--set", "all", "--checkpoints",
                 checkpoint)


def test_a_file_that_says_its_split_is_asked_for_that_splits_set(folder, tmp_path):
    predicted(folder, tmp_path, "--checkpoints", folder / "checkpoint_split3_run2.pth", "--no_features")
    assert list(pd.read_csv(tmp_path / "pred_split3_run2.csv")["scan_id"]) == ["s0", "s1"]


@pytest.mark.parametrize(("words", "message"), [
    (["published weights.pth"], "published weights.pth: its name says no split, whose test set .*--set all"),
    (["checkpoint_split3_run2.pth", "checkpoint_split3_run2.pth"], "split3_run2.pth is given twice"),
    (["checkpoint_split3_run2.pth", "other/checkpoint_split3_run2.pth"], "split 3 run 2, too; give --set all, or"),
    (["checkpoint_split3_run2.pth", "--splits", "0-3"], "--splits: --checkpoints names the files")])
def test_files_that_cannot_be_told_apart_are_refused(folder, tmp_path, words, message):
    words = [folder / word if word.endswith(".pth") else word for word in words]
    with pytest.raises(InputError, match=message):
        call(predict, "--data", folder / "data.csv", "--output", tmp_path, "--checkpoints", *words)


def test_a_mip_without_a_body_is_refused():
    image = np.zeros((20, 10), "float32")
    image[3, 2:5] = 7  # one row: nothing is left without the last
    for each in (image, np.zeros_like(image)):
        with pytest.raises(InputError, match="s1_cor.bin: no body of two rows and columns or more"):
            dataset.body_box(each, "s1_cor.bin", "lars")


# ---------------------------------------------------------------- weights as others save them

def colour_resnet(classes=1000):
    torch.manual_seed(4)
    net = torchvision.models.resnet34(weights=None)
    net.fc = torch.nn.Linear(512, classes)
    return net


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


SAVED = {  # of a torchvision ResNet34
    "bare": lambda state: state,
    "module": lambda state: {"state_dict": under("module.", state)},
    "compiled": lambda state: {"model_state_dict": under("module._orig_mod.", state)},
    "lightning": lambda state: {"state_dict": under("model.", state), "epoch": 3},
    "average": lambda state: under("module.", state) | {"n_averaged": torch.tensor(9)},
    "backbone": lambda state: {"model": under("backbone.", state) | {"head.weight": torch.zeros(7, 512)}},
    "old": lambda state: {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}}


@pytest.mark.parametrize("saved", SAVED)
def test_weights_of_others_are_taken_by_both_options(tmp_path, saved):
    net = colour_resnet()
    torch.save(SAVED[saved](net.state_dict()), tmp_path / "net.pth")
    for start in (lambda model: utils.load_backbone(model, str(tmp_path / "net.pth")),
                  lambda model: utils.load_weights(model, tmp_path / "net.pth")):
        model = utils.ResNet34("complex").eval()
        head = model.fc[0].weight.clone()
        start(model)
        own, given = model.features.state_dict(), list(net.children())[:-1]
        expected = torch.nn.Sequential(*given).state_dict()
        torch.testing.assert_close(own.pop("0.weight"), expected.pop("0.weight").mean(1, keepdim=True))
        assert all(torch.equal(own[name], expected[name]) for name in expected)
        assert torch.equal(model.fc[0].weight, head)
    assert "left random, since the checkpoint has another head: 4 keys of fc" in utils.load_weights(
        model, tmp_path / "net.pth")[1]


def test_head_of_the_same_shape_is_taken_too(tmp_path):
    net = colour_resnet(2)
    torch.save(under("module.", net.state_dict()), tmp_path / "net.pth")
    model = utils.ResNet34()
    assert utils.load_weights(model, tmp_path / "net.pth")[1].endswith("2 keys of fc")
    assert torch.equal(model.fc.weight, net.fc.weight)


def test_a_start_from_lars_is_told_of_its_normalization(capsys):
    for norm, said in (((1.1, 0.8), 1), (NORMS["lars"], 0)):
        warn_other_input("lars.pth", {}, NetworkInput((64, 64), norm))
        assert capsys.readouterr().out.count("lars.pth: does not say how its input was normalized, LARS's by ") == said


def test_wrapped_checkpoint_predicts_as_the_plain_one(tmp_path):
    model = utils.ResNet34("complex", 16)
    for name, state in (("plain", model.state_dict()), ("wrapped", under("_orig_mod.module.", model.state_dict()))):
        torch.save({"state_dict": state}, tmp_path / f"{name}.pth")
    x = torch.randn(2, 1, 64, 64)
    (plain, _), (wrapped, _) = (utils.load_model(tmp_path / f"{name}.pth") for name in ("plain", "wrapped"))
    assert torch.equal(plain(x), wrapped(x))


def test_other_networks_are_refused_in_one_line(tmp_path):
    state = colour_resnet().state_dict()
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    torch.save(state | under("module.", state), tmp_path / "two.pth")
    torch.save({"state_dict": {}}, tmp_path / "empty.pth")
    torch.save(state, tmp_path / "colour.pth")
    for name, message in (("resnet18", "not the weights of a ResNet34: "), ("two", "holds features.0.weight twice"),
                          ("empty", ".* it holds no tensors")):
        with pytest.raises(InputError, match=f"{name}.pth: {message}"):
            utils.load_weights(utils.ResNet34(), tmp_path / f"{name}.pth")
    with pytest.raises(InputError, match="colour.pth: its weights do not fit ResNet34"):
        utils.load_model(tmp_path / "colour.pth")
