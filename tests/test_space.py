"""Search spaces, and what is drawn from them."""
import json

import optuna
import pytest

import optun
import optuna_finetuning
from common import arguments, params
from common.files import InputError
from search.space import FINETUNING, SEARCH, doubts, fixed_args, read_space, suggest, worth_keeping


def searching(*words, script=optun):
    return script.get_args_parser().parse_args([str(word) for word in words])


def space_file(folder, content):
    path = folder / "space.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(folder, content, *words):
    return read_space(searching("--space", space_file(folder, content), *words), SEARCH)


def test_default_spaces_are_the_theses():
    switches = {"batch_size": [16, 32, 64, 128], "optimizer": ["sgd", "adam"], "balance": [False, True],
                "oversample": [False, True]}
    for space in (SEARCH, FINETUNING):
        assert switches.items() <= space.items() and {"lr_schedule", "augm"} <= set(space)
    assert SEARCH["lr"] == SEARCH["wd"] == {"low": 1e-5, "high": 1e-2, "log": True}
    assert SEARCH["cls_arch"] == ["simple", "complex"]
    assert SEARCH["hidden"] == {"low": 64, "high": 512, "step": 64}
    assert SEARCH["dropout"] == {"low": 0, "high": 0.5}
    assert FINETUNING["lr"] == {"low": 1e-5, "high": 1e-3, "log": True}
    assert FINETUNING["wd"] == {"low": 1e-6, "high": 1e-3, "log": True}
    assert FINETUNING["mode"] == ["transfer_learning", "finetune", "full_retrain"]
    args = searching()
    assert (args.trials, args.nepochs) == (20, 10) and read_space(args, SEARCH) == (SEARCH, {})
    args = searching(script=optuna_finetuning)
    assert (args.trials, args.nepochs) == (10, 12)
    assert read_space(args, FINETUNING) == (FINETUNING, {})


def test_space_file_narrows_widens_and_fixes(tmp_path):
    space, fixed = read(tmp_path, {"lr": {"low": 1e-4, "high": 0.1, "log": True}, "optimizer": ["adamw"], "wd": 0.01,
                                   "dropout": None, "ema": {"low": 0.9, "high": 0.99}, "balance": True})
    assert space["lr"] == {"low": 1e-4, "high": 0.1, "log": True} and space["optimizer"] == ["adamw"]
    assert space["ema"] == {"low": 0.9, "high": 0.99} and space["hidden"] == SEARCH["hidden"]
    assert not {"wd", "dropout", "balance"} & set(space) and fixed == {"wd": 0.01, "balance": True}


@pytest.mark.parametrize(("content", "said"), [
    ({"learning_rate": [1]}, "unknown name 'learning_rate'; it may hold"), ({"nepochs": [1, 2]}, "unknown name"),
    ({"mode": ["finetune"]}, "unknown name"), ({"checkpoint": ["a"]}, "unknown name"),
    ({"lr": {"low": 1e-2, "high": 1e-4}}, "lr: `low <= high` must hold, but got (low=0.01, high=0.0001)"),
    ({"lr": []}, "lr: an empty list"), ({"lr": {"low": 1e-4}}, "has low and high"),
    ({"lr": {"low": 0.1, "high": 1, "by": 2}}, "has low and high"),
    ({"lr": {"low": 0.1, "high": 1, "log": 1}}, "log (true or false)"),
    ({"lr": {"low": "a", "high": 1}}, "lr: 'a' is not a number"), ({"lr": {"low": True, "high": 1}}, "not a number"),
    ({"lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "`step` is not supported"),
    ({"hidden": {"low": 64, "high": 128, "step": 0}}, "hidden: 0 is not 1 or more"),
    ({"balance": {"low": True, "high": True}}, "balance: takes a list of choices"),
    ({"wd": {"low": 0, "high": 1, "log": True}}, "wd: `low > 0` must hold for `log=True`"),
    ({"lr": {"low": -1, "high": 1}}, "not above 0"),
    ({"hidden": {"low": 64, "high": 128, "step": 0.5}}, "not a whole number"),
    ({"hidden": {"low": 64.5, "high": 128}}, "hidden: "), ({"dropout": {"low": 0, "high": 1.5}}, "not in 0..1"),
    ({"optimizer": {"low": 1, "high": 2}}, "optimizer: invalid choice: '1'"),
    ({"augm": {"low": 1, "high": 5}}, "augm: takes a list of choices"),
    ({"optimizer": ["sgd", "lion"]}, "invalid choice: 'lion'"),
    ({"augm": [7]}, "invalid choice: 7"), ({"batch_size": [16, 16]}, "twice"), ({"batch_size": [0]}, "not 1 or more"),
    ({"balance": ["yes"]}, "not true or false"), ("[1]", "must be an object"), ("{", "cannot be read as JSON"),
    ('{"lr": [1], "lr": [2]}', "'lr' is there twice"),
    (dict.fromkeys(SEARCH), "nothing is left to search"),
])
def test_bad_space_is_refused(tmp_path, content, said):
    with pytest.raises(InputError) as error:
        read(tmp_path, content)
    assert said in str(error.value)


def test_command_line_fixes(tmp_path):
    space, fixed = read_space(searching("--lr", 0.1, "--augm", 4, "--pool", 2), SEARCH)
    assert set(SEARCH) - set(space) == {"lr", "augm"} and fixed == {}
    args = fixed_args(searching("--lr", 0.1, "--augm", 4, "--pool", 2, "--image_size", "auto"))
    assert (args.lr, args.augm, args.nepochs) == (0.1, 4, 10) and args.wd == 0.0001
    assert worth_keeping(args) == {"image_size": ["auto"], "pool": 2, "lr": 0.1, "augm": 4}
    with pytest.raises(InputError, match="--lr fixes what --space .* searches"):
        read(tmp_path, {"lr": [1]}, "--lr", 0.1)
    space, fixed = read_space(searching("--mode", "finetune", script=optuna_finetuning), FINETUNING)
    assert "mode" not in space and fixed == {"mode": "finetune"}
    args = params.with_values(fixed_args(searching(script=optuna_finetuning)), fixed)
    assert args.finetune and not args.transfer_learning and not hasattr(args, "mode")


def test_what_has_no_effect_is_not_drawn():
    args = fixed_args(searching())
    values = {"lr": 1e-3, "wd": 1e-3, "batch_size": 16, "optimizer": "sgd", "lr_schedule": "step", "balance": False,
              "oversample": True, "augm": 4, "cls_arch": "simple", "hidden": 128, "dropout": 0.25}
    drawn = suggest(optuna.trial.FixedTrial(values), SEARCH, args)
    assert drawn == {name: value for name, value in values.items() if name not in ("hidden", "dropout")}
    complex_head = values | {"cls_arch": "complex"}
    assert suggest(optuna.trial.FixedTrial(complex_head), SEARCH, args) == complex_head
    tuning = {**values, "mode": "transfer_learning"}
    assert "augm" not in suggest(optuna.trial.FixedTrial(tuning), FINETUNING, args), "seen once"
    args.cached_placements = 4
    assert "augm" in suggest(optuna.trial.FixedTrial(tuning), FINETUNING, args)
    args.cached_placements, tuning["mode"] = 1, "full_retrain"
    assert "augm" in suggest(optuna.trial.FixedTrial(tuning), FINETUNING, args)
    space = {name: given for name, given in SEARCH.items() if name != "cls_arch"}  # and so the default, simple
    assert "hidden" not in suggest(optuna.trial.FixedTrial(values), space, args)


@pytest.mark.parametrize(("words", "content", "said"), [
    (("--hidden", 64, "--momentum", 0.5, "--lr_anneal", 3), {}, []),  # in some trials
    ((), {"hidden": [64, 128]}, []), (("--nepochs", 2, "--warmup_epochs", 1), {}, []),
    (("--hidden", 64, "--cls_arch", "simple"), {}, ["--hidden 64 has no effect without --cls_arch complex"]),
    (("--momentum", 0.5), {"optimizer": ["adam", "adamw"]}, ["--momentum 0.5 has no effect without --optimizer sgd"]),
    (("--cls_arch", "simple"), {"hidden": [64, 128], "dropout": 0.1},
     ["--dropout 0.1 has no effect without --cls_arch complex", "--hidden has no effect without --cls_arch complex"]),
    (("--patience", 2, "--margin", 4), {}, ["--margin 4 has no effect without --image_size auto",
                                            "--patience 2 has no effect without --early_stopping"]),
    (("--balance",), {}, []), (("--oversample", "--balance"), {}, ["--balance beside --oversample: the rarer class"]),
    (("--nepochs", 2, "--warmup_epochs", 2), {}, ["--warmup_epochs 2 takes all of --nepochs 2"]),
    (("--nepochs", 2, "--warmup_epochs", 2), {"lr_schedule": ["onecycle", "step"]}, []),
])
def test_what_has_no_effect_in_any_trial_is_warned_of(tmp_path, words, content, said):
    args = searching("--space", space_file(tmp_path, content), *words)
    space, fixed = read_space(args, SEARCH)
    lines = sorted(doubts(args, SEARCH, space, fixed, [params.with_values(fixed_args(args), fixed)] * 2))
    assert [line.startswith(f"warning: {each}") for line, each in zip(lines, said, strict=True)] == [True] * len(said)


def test_what_has_no_effect_in_any_mode_is_warned_of(tmp_path):
    for words, n in ((("--mode", "finetune"), 1), (("--mode", "finetune", "--cached_placements", 4), 0), ((), 0)):
        args = searching("--space", space_file(tmp_path, {"augm": [0, 4]}), *words, script=optuna_finetuning)
        space, fixed = read_space(args, FINETUNING)
        lines = doubts(args, FINETUNING, space, fixed, [params.with_values(fixed_args(args), fixed)])
        assert len(lines) == n and all(line.startswith("warning: --augm is not searched: ") for line in lines)
    for mode, n in (("full_retrain", 1), ("finetune", 0)):
        args = searching("--mode", mode, "--cached_placements", 4, script=optuna_finetuning)
        space, fixed = read_space(args, FINETUNING)
        starts = [params.with_values(fixed_args(args), {"checkpoint": "a.pth", "weights": "imagenet"} | fixed)]
        assert len(doubts(args, FINETUNING, space, fixed, starts)) == n
    args = searching("--cached_placements", 4, script=optuna_finetuning)
    assert doubts(args, FINETUNING, FINETUNING, {}, [fixed_args(args)]) == []


def test_every_default_of_the_space_is_train_s(tmp_path):
    parser = arguments.training_parser("")
    for space in (SEARCH, FINETUNING):
        for name, given in space.items():
            for value in given if isinstance(given, list) else (given["low"], given["high"]):
                if name != "mode":
                    parser.parse_args([f"--{name}", str(value)] if not isinstance(value, bool) else [f"--{name}"])
