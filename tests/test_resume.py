"""Training stopped at any moment goes on to the same bits; what may not differ is refused."""
import json
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from faults_helpers import Script
from training_helpers import SMALL, fit, same_run, signal_at

import utils
from common.files import InputError, sha256
from common.text import counted
from training import recorder
from training.batches import ImageBatches

pytestmark = pytest.mark.usefixtures("shallow")


@pytest.mark.parametrize(("options", "epoch", "batch"), [
    (("--cls_arch", "complex", "--optimizer", "sgd", "--lr_schedule", "plateau", "--augm", 45, "--oversample"), 1, 0),
    (("--optimizer", "adamw", "--lr_schedule", "onecycle", "--augm", 3, "--balance", "--eval_train"), 2, 1),
    (("--optimizer", "adam", "--lr_schedule", "cosine", "--warmup_epochs", 1, "--ema", 0.9, "--label_smoothing", 0.1),
     3, 0),
])
def test_resumed_run_is_the_undisturbed_one_to_the_bit(cohort, monkeypatch, capsys, options, epoch, batch):
    options = (*options, "--nepochs", 3)
    fit(cohort, *options, output="whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_at(patch, epoch, batch)
        fit(cohort, *options, output="cut")
    last = cohort / "cut" / "last_split0_run1.pth"
    assert utils.read_checkpoint(last)["position"]["epoch"] == epoch
    assert utils.read_checkpoint(last)["position"]["batches"] == batch + 1
    assert f"holds epoch {epoch} after {counted(batch + 1, 'batch', 'batches')}" in capsys.readouterr().err
    with pytest.raises(InputError, match="--resume goes on with it"):
        fit(cohort, *options, output="cut")
    fit(cohort, *options, "--resume", output="cut")
    assert not last.exists()
    same_run(cohort / "cut", cohort / "whole")


def test_run_that_was_to_overwrite_says_how_to_go_on(cohort, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_at(patch, 1, 0)
        fit(cohort, "--nepochs", 1, "--overwrite")
    assert "the same command with --resume in place of --overwrite goes on from there" in capsys.readouterr().err


def test_signal_while_evaluating_is_kept_too(cohort, monkeypatch):
    fit(cohort, "--nepochs", 2, output="whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        centred = ImageBatches.centred
        patch.setattr(ImageBatches, "centred", lambda *args: signal.raise_signal(signal.SIGINT) or centred(*args))
        fit(cohort, "--nepochs", 2, output="cut")
    fit(cohort, "--nepochs", 2, "--resume", output="cut")
    same_run(cohort / "cut", cohort / "whole")


def test_early_stopping_stops_a_resumed_run_as_well(cohort, monkeypatch):
    options = ("--nepochs", 30, "--early_stopping", "--patience", 1, "--lr", "1e-9")
    fit(cohort, *options, output="whole")

    def killed(self):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(recorder.Recorder, "finish", killed)
        fit(cohort, *options, output="cut")
    fit(cohort, *options, "--resume", output="cut")
    same_run(cohort / "cut", cohort / "whole")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_run_begun_without_fused_kernels_goes_on_without_them(cohort, monkeypatch, optimizer, amp):
    options = ("--nepochs", 2, "--optimizer", optimizer, "--lr", 1e-4, "--amp", amp)
    build = utils.build_optimizer

    def unfused(*args, **kwargs):
        built = build(*args, **kwargs)
        built.param_groups[0]["fused"] = built.defaults["fused"] = None
        built._step_supports_amp_scaling = False
        return built

    with monkeypatch.context() as patch:
        patch.setattr(utils, "build_optimizer", unfused)
        fit(cohort, *options, output="whole")
        signal_at(patch, 2, 0)
        with pytest.raises(KeyboardInterrupt):
            fit(cohort, *options, output="cut")
    fit(cohort, *options, "--resume", output="cut")
    same_run(cohort / "cut", cohort / "whole")


def test_resume_with_other_circumstances_is_refused_by_name(cohort, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_at(patch, 2, 0)
        fit(cohort, "--nepochs", 3)
    with pytest.raises(InputError, match=r"other values of --optimizer \(sgd, now adam\), --augm \(0, now 3\); give"):
        fit(cohort, "--nepochs", 3, "--resume", "--augm", 3, "--optimizer", "adam")
    with pytest.raises(InputError, match=r"precision \(float32, now bfloat16\)"):
        fit(cohort, "--nepochs", 3, "--resume", "--amp", "bf16")
    with pytest.raises(InputError, match=r"threads \(1, now 2\)"):
        fit(cohort, "--nepochs", 3, "--resume", "--threads", 2)
    torch.set_num_threads(1)
    image = cohort / "images" / "s023_cor.bin"  # a training image
    pixels = np.fromfile(image, "<f4")
    pixels[pixels.argmax()] += 1e-3
    pixels.tofile(image)
    with pytest.raises(InputError, match="other values of data hash"):
        fit(cohort, "--nepochs", 3, "--resume")
    fit(cohort, "--nepochs", 3, "--force_resume")
    assert "goes on with other values of data hash" in capsys.readouterr().err
    log = pd.read_csv(cohort / "results" / "convergence_split0_run1.csv")
    assert log["epoch"].unique().tolist() == [1, 2, 3]


def test_a_finished_run_on_other_images_than_the_manifest_s_is_named(cohort, capsys):
    table = pd.read_csv(cohort / "data.csv")

    def resumed():
        table["image_sha256"] = [sha256(cohort / name) for name in table["filename"]]
        table.to_csv(cohort / "data.csv", index=False)
        fit(cohort, "--nepochs", 1, "--resume")
        return "warning: split 0 run 1 was trained on other images than " in capsys.readouterr().out

    assert not resumed() and not resumed()
    pixels = np.fromfile(cohort / "images" / "s000_cor.bin", "<f4")  # of the test set
    (pixels * 1.01).tofile(cohort / "images" / "s000_cor.bin")
    assert not resumed()
    pixels = np.fromfile(cohort / "images" / "s023_cor.bin", "<f4")
    (pixels * 1.01).tofile(cohort / "images" / "s023_cor.bin")
    assert resumed()
    fit(cohort, "--nepochs", 1, "--run", 2)
    pixels.tofile(cohort / "images" / "s023_cor.bin")
    table.drop(columns="image_sha256").sample(frac=1, random_state=0).to_csv(cohort / "data.csv", index=False)
    fit(cohort, "--nepochs", 1, "--pool", 1, "--run", 3)
    paths = [cohort / "results" / f"settings_split0_run{run}.json" for run in (1, 2, 3)]
    one, other, same = (json.loads(path.read_text())["images_hash"] for path in paths)
    assert one == same != other


def test_run_of_before_the_options_were_renamed_goes_on(cohort, monkeypatch):
    fit(cohort, "--nepochs", 2, "--norm", "none", output="whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_at(patch, 2, 0)
        fit(cohort, "--nepochs", 2, "--norm", "none", output="cut")
    last = cohort / "cut" / "last_split0_run1.pth"
    content = utils.read_checkpoint(last)
    del content["input"]["suv_type"]
    content["args"] = {("resume_anyway" if name == "force_resume" else name): value
                       for name, value in content["args"].items()} | {"norm": "lars", "normalize": False}
    torch.save(content, last)
    with pytest.raises(InputError, match=r"other values of --norm \(none, now auto\)"):
        fit(cohort, "--nepochs", 2, "--resume", output="cut")
    fit(cohort, "--nepochs", 2, "--no-normalize", "--resume", output="cut")
    same_run(cohort / "cut", cohort / "whole")
    torch.save(content | {"args": content["args"] | {"speed": 3}}, last)
    (cohort / "cut" / "checkpoint_split0_run1.pth").unlink()
    with pytest.raises(InputError, match=r"other values of --speed \(3, now unknown\)"):
        fit(cohort, "--nepochs", 2, "--norm", "none", "--resume", output="cut")


def test_sigterm_leaves_a_state_to_go_on_from(cohort):
    process = start_training(cohort, "cut", "--nepochs", 400)
    last = cohort / "cut" / "last_split0_run1.pth"
    while not last.exists() and process.alive():
        time.sleep(0.1)
    process.kill(signal.SIGTERM)
    assert process.end() == 143 and "interrupted by SIGTERM" in process.last() and "--resume" in process.output()
    assert utils.read_checkpoint(last)["position"]["epoch"] >= 1
    assert not list((cohort / "cut").glob(".*.tmp"))


def start_training(folder, output, *args):
    return Script(folder, "train.py", "--data", folder / "data.csv", "--output", folder / output, *SMALL, *args)


def kill_and_resume(cohort, kills, *options):
    """Train, killed `kills` times at random moments with its state written all the time -> the number of kills met."""
    fit(cohort, *options, output="whole")
    rng, met = np.random.default_rng(0), 0
    options = (*options, "--checkpoint_minutes", 1e-4)
    (cohort / "cut").mkdir()
    while not (cohort / "cut" / "checkpoint_split0_run1.pth").exists() or list((cohort / "cut").glob("last_*")):
        process = start_training(cohort, "cut", *options, "--resume")
        if met < kills:
            while not list((cohort / "cut").glob(".*last_*")) and process.alive():
                time.sleep(0.005)  # until it writes its first state
            process.process.join(rng.uniform(0, 0.5))  # the whole run takes seconds
            met += process.alive()
            process.kill(signal.SIGKILL)
        assert process.end(900) in (0, -signal.SIGKILL), process.output()
    same_run(cohort / "cut", cohort / "whole")
    assert not list((cohort / "cut").glob(".*.tmp"))
    return met


def test_killed_run_goes_on_to_the_same_bits(cohort):
    assert kill_and_resume(cohort, 2, "--nepochs", 8, "--augm", 34) == 2


@pytest.mark.slow
def test_run_killed_twenty_times_goes_on_to_the_same_bits(cohort):
    assert kill_and_resume(cohort, 20, "--nepochs", 40, "--augm", 45, "--optimizer", "adam", "--cls_arch",
                           "complex") == 20
