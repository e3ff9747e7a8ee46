from urllib.error import URLError

import pytest
import torch
import torchvision
from lars_helpers import lars_checkpoint, one_channel_torchvision
from training_helpers import quiet_branches

import utils
from common.files import InputError
from inference.folding import for_prediction
from training.device import autocast, choose_amp, choose_device
from training.state import build_ema
from utils import EarlyStopping, ResNet34

LARS_HEAD = {"simple": {"fc.weight": (2, 512), "fc.bias": (2,)},
             "complex": {"fc.0.weight": (128, 512), "fc.0.bias": (128,), "fc.3.weight": (2, 128), "fc.3.bias": (2,)}}


@pytest.mark.parametrize("cls_arch", ["simple", "complex"])
def test_parameters_have_the_names_of_lars(cls_arch):
    state = ResNet34(cls_arch, hidden=128).state_dict()
    assert state["features.0.weight"].shape == (64, 1, 7, 7)
    assert state["features.7.2.conv2.weight"].shape == (512, 512, 3, 3)  # layer4
    assert {k: tuple(v.shape) for k, v in state.items() if k.startswith("fc")} == LARS_HEAD[cls_arch]


def test_lars_checkpoint_gives_the_probabilities_of_plain_torchvision(tmp_path):
    net = one_channel_torchvision()
    lars_checkpoint(net, tmp_path / "lars.pth")
    model, content = utils.load_model(tmp_path / "lars.pth")
    assert set(content) == {"epoch", "state_dict", "optimizer", "lr_scheduler", "early_stopping", "auc"}
    assert content["auc"] == 0.93 and not model.training
    x = torch.randn(3, 1, 96, 64)
    with torch.inference_mode():
        assert torch.equal(model(x).softmax(1), net(x).softmax(1))


def test_auc_under_the_name_of_numpy_1_is_read(tmp_path):
    """NumPy 1 pickled its scalars as numpy.core.multiarray.scalar."""
    lars_checkpoint(one_channel_torchvision(), tmp_path / "new.pth")
    import zipfile
    with zipfile.ZipFile(tmp_path / "new.pth") as old, zipfile.ZipFile(tmp_path / "old.pth", "w") as new:
        for item in old.infolist():
            new.writestr(item, old.read(item).replace(b"numpy._core", b"numpy.core"))
    assert utils.load_model(tmp_path / "old.pth")[1]["auc"] == 0.93


class Evil:
    def __reduce__(self):
        return print, ("code of the checkpoint ran",)


def test_unreadable_checkpoints_are_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="none.pth: no such checkpoint"):
        utils.load_model(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save({"state_dict": {}, "x": Evil()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 512)}}, tmp_path / "part.pth")
    torch.save({"weights": 1}, tmp_path / "other.pth")
    lars_checkpoint(one_channel_torchvision(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:100000])
    for name in ("text", "evil", "list", "part", "other", "cut"):
        with pytest.raises(InputError, match=f"{name}.pth: "):
            utils.load_model(tmp_path / f"{name}.pth")
    assert "ran" not in capsys.readouterr().out


def test_backbone_from_a_torchvision_file_averages_the_first_convolution(tmp_path):
    torch.manual_seed(0)
    net = torchvision.models.resnet34(weights=None).eval()
    torch.save(net.state_dict(), tmp_path / "resnet34.pth")
    model = ResNet34().eval()
    utils.load_backbone(model, tmp_path / "resnet34.pth")
    x = torch.randn(2, 1, 64, 64)
    net.fc = torch.nn.Identity()
    with torch.inference_mode():  # grey as three channels of a third each is the mean filter
        torch.testing.assert_close(model.embed(x), net(x.expand(-1, 3, -1, -1) / 3), rtol=1e-3, atol=1e-5)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pth")
    with pytest.raises(InputError, match="not a state_dict of torchvision's ResNet34"):
        utils.load_backbone(model, tmp_path / "part.pth")


def test_imagenet_weights_come_from_torchvisions_cache(tmp_path, monkeypatch):
    """The real loading code, with a file of our own where torchvision keeps its download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = torchvision.models.ResNet34_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    net = torchvision.models.resnet34(weights=None)
    torch.save(net.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    model = ResNet34()
    utils.load_backbone(model, "imagenet")
    torch.testing.assert_close(model.features[0].weight, net.conv1.weight.mean(1, keepdim=True))
    assert torch.equal(model.features[7][0].conv1.weight, net.layer4[0].conv1.weight)


def test_imagenet_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(InputError, match="cannot be downloaded .*no network.*--weights none.*--weights PATH"):
        utils.load_backbone(ResNet34(), "imagenet")


def test_early_stopping_waits_for_a_thousandth_more():
    stopper = EarlyStopping(patience=3, min_delta=0.001)
    assert [stopper.step(v) for v in (0.7, 0.7009, 0.69, 0.702, 0.7029, 0.7, 0.7029)] == [False] * 6 + [True]
    other = EarlyStopping()
    other.load_state_dict(stopper.state_dict())
    assert vars(other) == vars(stopper)


def one_parameter(optimizer="sgd"):
    return utils.build_optimizer([torch.nn.Parameter(torch.zeros(1))], optimizer, 0.1, 1e-4, 0.9)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fused_steps_are_the_plain_ones_on_weights_that_lie_as_in_training(optimizer):
    """A fused kernel takes gradients in their order in memory, whatever their strides: wrong where these differ."""
    torch.manual_seed(0)
    models = [ResNet34().to(memory_format=torch.channels_last) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    fused, plain = (utils.build_optimizer(model.parameters(), optimizer, 0.01, 0.01) for model in models)
    state = plain.state_dict()
    state["param_groups"][0]["fused"] = None  # as of a version of before
    plain.load_state_dict(state)
    assert fused.param_groups[0]["fused"] and not plain.param_groups[0]["fused"]
    for x in torch.rand(3, 4, 1, 32, 32):
        fused.zero_grad()
        models[0](x.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            assert one.grad.stride() == one.stride()
            other.grad = one.grad.clone()
        fused.step()
        plain.step()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_moving_average_of_the_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = build_ema(model, 0.9)
    for value in (1.0, 2.0, 4.0):  # the first sets it
        model.weight.data.fill_(value)
        ema.update_parameters(model)
    assert ema.module.weight.item() == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4)


def test_dropout_mask_is_that_of_the_whole_batch_for_every_share():
    layer, x = utils.Dropout(0.4, 50), torch.ones(9, 50)
    layer.draw(3, 9, slice(0, 9), "cpu")
    whole = layer(x)
    assert whole.unique().tolist() == pytest.approx([0, 1 / 0.6]) and 0.3 < (whole == 0).float().mean() < 0.5
    for mine in (slice(0, 4), slice(4, 9)):
        layer.draw(3, 9, mine, "cpu")
        assert torch.equal(layer(x[mine]), whole[mine])
    layer.draw(4, 9, slice(0, 9), "cpu")
    assert not torch.equal(layer(x), whole)
    assert torch.equal(layer.eval()(x), x)


def test_random_weights_are_torchvisions_ordinary_ones():
    """A residual branch that starts at zero learns late."""
    torch.manual_seed(0)
    own = ResNet34().state_dict()
    assert all((value == 1).all() for name, value in own.items() if name.endswith("bn2.weight"))


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam),
                                            ("adamw", torch.optim.AdamW)])
def test_optimizers(name, kind):
    optimizer = one_parameter(name)
    assert type(optimizer) is kind and optimizer.defaults["weight_decay"] == 1e-4
    assert name != "sgd" or optimizer.defaults["nesterov"]


@pytest.mark.parametrize(("quiet", "share"), [(True, 0.8), (False, 0.95)])  # branches that add little gain most
def test_for_prediction_changes_nothing_in_float32_and_rounds_less_in_bfloat16(quiet, share):
    torch.manual_seed(3)
    model, x = ResNet34(), torch.rand(6, 1, 96, 64) * 20
    if quiet:
        quiet_branches(model)
    model.train()
    for _ in range(20):  # batch norm statistics that are not 0 and 1
        model(torch.rand(4, 1, 96, 64) * 20)
    model.eval()
    errors = []
    with torch.no_grad():
        expected = model(x)
        for changed in (False, True):
            net = for_prediction(model) if changed else model
            assert not changed or torch.allclose(net(x), expected, atol=1e-5, rtol=1e-5)
            with torch.autocast("cpu", torch.bfloat16):
                layer1 = net.features[:5](x)
            assert layer1.dtype == (torch.float32 if changed else torch.bfloat16)
            errors.append((layer1.float() - net.features[:5](x)).abs().mean())
    assert errors[1] < share * errors[0]
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())


def test_freezing_leaves_the_asked_part():
    model = ResNet34()
    utils.freeze(model, finetune=True)
    assert {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad and n.startswith("feat")} == {"7"}
    utils.set_train_mode(model)
    assert not model.features[6].training and model.features[7].training and model.fc.training
    utils.freeze(model, transfer_learning=True)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}


def test_precision_follows_the_processor(monkeypatch):
    cpu = torch.device("cpu")
    for features, chosen in (({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
                             ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
                             ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, None),
                             ({"avx512_f": True}, None)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features)
        assert choose_amp("auto", cpu) is chosen
    assert choose_amp("fp16", cpu) is torch.float16
    assert choose_amp("bf16", cpu) is torch.bfloat16 and choose_amp("off", cpu) is None


def test_device_that_is_not_there():
    with pytest.raises(InputError, match="--device nonsense: not on this machine"):
        choose_device("nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda:5"):
            choose_device("cuda:5")


@pytest.mark.parametrize("frame", [(64, 32), (96, 32), (64, 64)])
def test_bfloat16_is_float32_nearly_in_narrow_frames_too(frame):
    torch.manual_seed(0)
    model, x = utils.ResNet34().to(memory_format=torch.channels_last), torch.rand(4, 1, *frame) * 5
    with torch.no_grad():
        model(x)  # batch-norm statistics
        model.eval()
        expected = model(x)
        unused = [torch.full((n,), float("nan")) for n in (512, 2048, 16384, 65536)]
        del unused  # what memory that nobody wrote may hold
        with autocast(x, torch.bfloat16):
            found = model(x.contiguous(memory_format=torch.channels_last)).float()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("start", [4, 5, 6, 7])
def test_bfloat16_of_frozen_layers_output_is_float32_nearly_in_narrow_frames_too(start):
    """As training takes what frozen layers gave, once for all epochs."""
    torch.manual_seed(0)
    model, x = utils.ResNet34().to(memory_format=torch.channels_last), torch.rand(4, 1, 96, 32) * 5
    with torch.no_grad():
        model(x)
        model.eval()
        expected, maps = model(x), model.features[:start](x)
        unused = [torch.full((n,), float("nan")) for n in (512, 2048, 16384, 65536)]
        del unused
        with autocast(maps, torch.bfloat16):
            found = model(maps, start).float()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
