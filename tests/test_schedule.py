"""The learning rate over a run."""
import signal

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_helpers import fit

import utils
from common.files import InputError
from training.batches import ImageBatches


def one_parameter(optimizer="sgd"):
    return utils.build_optimizer([torch.nn.Parameter(torch.zeros(1))], optimizer, 0.1, 1e-4, 0.9)


def learning_rates(aucs, steps_per_epoch=3, **changes):
    """The learning rate of each epoch's first batch, as training steps the schedule."""
    optimizer = one_parameter()
    schedule = utils.Schedule(optimizer, steps_per_epoch, 4, **changes)
    rates = []
    for auc in aucs:
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(steps_per_epoch):
            optimizer.step()
            schedule.step_batch()
        schedule.step_epoch(auc)
    return rates


def test_schedules():
    assert learning_rates([0.5] * 5, lr_schedule="none") == [0.1] * 5
    assert learning_rates([0.5] * 5, lr_anneal=2) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    # plateau alone, without the step schedule over it: patience 1, factor 0.1, cooldown 1, floor 1e-5
    assert learning_rates([0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], lr_schedule="plateau", lr_anneal=1) == pytest.approx(
        [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert min(learning_rates([0.5] * 30, lr_schedule="plateau")) == pytest.approx(1e-5)
    cycle = learning_rates([0.5] * 4, lr_schedule="onecycle")
    assert cycle[0] == pytest.approx(0.1 / 25) and max(cycle) > 0.09 and cycle[-1] < 0.03
    cosine = learning_rates([0.5] * 4, lr_schedule="cosine")
    assert cosine == pytest.approx([0.05 * (1 + np.cos(np.pi * epoch / 4)) for epoch in range(4)])


@pytest.mark.parametrize("kind", ["none", "step", "plateau", "cosine"])
def test_warm_up_rises_linearly_to_the_learning_rate(kind):
    rates = learning_rates([0.5] * 2 + [0.6, 0.7], lr_schedule=kind, warmup_epochs=2)  # of steps 0, 3, 6, 9; 6 warm
    after = {"cosine": [0.1, 0.05]}.get(kind, [0.1, 0.1])
    assert rates == pytest.approx([0.1 / 6, 0.4 / 6, *after])


def test_tensorboard_has_the_rate_of_each_epoch_s_last_step(cohort, shallow, monkeypatch):
    options = ("--nepochs", 3, "--lr_anneal", 1, "--tensorboard", cohort / "board")  # 0.01 in the first epoch
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # when its steps are done
        centred = ImageBatches.centred
        patch.setattr(ImageBatches, "centred", lambda *args: signal.raise_signal(signal.SIGINT) or centred(*args))
        fit(cohort, *options)
    fit(cohort, *options, "--resume")
    events = EventAccumulator(str(cohort / "board" / "split0_run1")).Reload().Scalars("lr")
    assert [event.step for event in events] == [1, 2, 3]
    assert [event.value for event in events] == pytest.approx([0.01, 0.001, 0.0001])


def test_one_cycle_has_its_highest_rate_after_the_warm_up():
    rates = learning_rates([0.5] * 4, lr_schedule="onecycle", warmup_epochs=2, steps_per_epoch=50)
    assert np.argmax(rates) == 2 and rates[2] == pytest.approx(0.1, rel=1e-2)


def test_schedule_goes_on_from_its_state():
    for kind in ("step", "plateau", "cosine", "onecycle"):
        options = {"nepochs": 4, "lr_schedule": kind, "warmup_epochs": 1, "lr_anneal": 1}
        runs = []
        for pause in (None, 2):
            optimizer = one_parameter()
            schedule, rates = utils.Schedule(optimizer, 3, **options), []
            for epoch in range(4):
                if epoch == pause:
                    state, groups = schedule.state_dict(), optimizer.state_dict()
                    optimizer = one_parameter()
                    schedule = utils.Schedule(optimizer, 3, **options)
                    optimizer.load_state_dict(groups)
                    schedule.load_state_dict(state)
                for _ in range(3):
                    rates.append(optimizer.param_groups[0]["lr"])
                    optimizer.step()
                    schedule.step_batch()
                schedule.step_epoch(0.5)
            runs.append(rates)
        assert runs[0] == runs[1]


@pytest.mark.parametrize("options", [{"lr_schedule": "none", "warmup_epochs": 2}, {"lr_schedule": "onecycle"},
                                     {"lr_schedule": "cosine", "warmup_epochs": 1}, {"lr_anneal": 1}])
def test_schedule_stands_at_the_epoch_whatever_the_steps_before(options):
    def begun(steps):
        optimizer = one_parameter()
        return optimizer, utils.Schedule(optimizer, steps, 4, **options)

    def step(optimizer, schedule, count):
        rates = []
        for _ in range(count):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step_batch()
        return rates

    whole, (old, before), (optimizer, schedule) = step(*begun(5), 20), begun(3), begun(5)
    step(old, before, 3 + 1)  # cut in the second epoch
    optimizer.load_state_dict(old.state_dict())
    schedule.load_state_dict(before.state_dict(), 2)
    assert step(optimizer, schedule, 15) == pytest.approx(whole[5:])


@pytest.mark.parametrize(("kind", "momenta"), [("sgd", [0.9] * 10), ("adamw", [0.95, 0.9, 0.85])])
def test_one_cycle_leaves_momentum_as_asked_and_cycles_beta1(kind, momenta):
    optimizer = one_parameter(kind)
    schedule, found = utils.Schedule(optimizer, 5, 2, "onecycle"), []  # a warm-up of 3 steps
    for _ in momenta:
        group = optimizer.param_groups[0]
        found.append(group["momentum"] if kind == "sgd" else group["betas"][0])
        optimizer.step()
        schedule.step_batch()
    assert found == pytest.approx(momenta)


def test_one_cycle_of_before_goes_on_with_its_momentum():
    def step(optimizer, schedule):
        optimizer.step()
        schedule.step()
        return optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]

    old = one_parameter()
    before = torch.optim.lr_scheduler.OneCycleLR(old, 0.1, total_steps=10)
    for _ in range(4):
        step(old, before)
    optimizer = one_parameter()
    schedule = utils.Schedule(optimizer, 5, 2, "onecycle")
    optimizer.load_state_dict(old.state_dict())
    schedule.load_state_dict({"per_batch": before.state_dict()})
    assert [step(optimizer, schedule.per_batch) for _ in range(5)] == [step(old, before) for _ in range(5)]


@pytest.mark.parametrize(("warmup_epochs", "nepochs", "steps"), [(4, 2, 5), (2, 2, 5), (1, 3, 1)])
def test_warm_up_that_one_cycle_cannot_take_is_refused(warmup_epochs, nepochs, steps):
    with pytest.raises(InputError, match=f"--warmup_epochs {warmup_epochs}: onecycle needs a warm-up of two steps"):
        utils.Schedule(one_parameter(), steps, nepochs, "onecycle", warmup_epochs=warmup_epochs)
