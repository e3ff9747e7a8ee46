"""Search spaces, and train.py's arguments from the best values of a search."""
import json

import optuna
import pytest
from conftest import call

import optun
import optuna_finetuning
import train
from common import arguments, params
from common.files import InputError


def searching(*words, script=optun):
    return script.get_args_parser().parse_args([str(word) for word in words])


def space_file(folder, content):
    path = folder / "space.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(folder, content, *words):
    return params.read_space(searching("--space", space_file(folder, content), *words), params.SEARCH)


# ---------------------------------------------------------------- the space

def test_default_spaces_are_the_theses():
    switches = {"batch_size": [16, 32, 64, 128], "optimizer": ["sgd", "adam"], "balance": [False, True],
                "oversample": [False, True]}
    for space in (params.SEARCH, params.FINETUNING):
        assert switches.items() <= space.items() and {"lr_schedule", "augm"} <= set(space)
    assert params.SEARCH["lr"] == params.SEARCH["wd"] == {"low": 1e-5, "high": 1e-2, "log": True}
    assert params.SEARCH["cls_arch"] == ["simple", "complex"]
    assert params.SEARCH["hidden"] == {"low": 64, "high": 512, "step": 64}
    assert params.SEARCH["dropout"] == {"low": 0, "high": 0.5}
    assert params.FINETUNING["lr"] == {"low": 1e-5, "high": 1e-3, "log": True}
    assert params.FINETUNING["wd"] == {"low": 1e-6, "high": 1e-3, "log": True}
    assert params.FINETUNING["mode"] == ["transfer_learning", "finetune", "full_retrain"]
    args = searching()
    assert (args.trials, args.nepochs) == (20, 10) and params.read_space(args, params.SEARCH) == (params.SEARCH, {})
    args = searching(script=optuna_finetuning)
    assert (args.trials, args.nepochs) == (10, 12)
    assert params.read_space(args, params.FINETUNING) == (params.FINETUNING, {})


def test_space_file_narrows_widens_and_fixes(tmp_path):
    space, fixed = read(tmp_path, {"lr": {"low": 1e-4, "high": 0.1, "log": True}, "optimizer": ["adamw"], "wd": 0.01,
                                   "dropout": None, "ema": {"low": 0.9, "high": 0.99}, "balance": True})
    assert space["lr"] == {"low": 1e-4, "high": 0.1, "log": True} and space["optimizer"] == ["adamw"]
    assert space["ema"] == {"low": 0.9, "high": 0.99} and space["hidden"] == params.SEARCH["hidden"]
    assert not {"wd", "dropout", "balance"} & set(space) and fixed == {"wd": 0.01, "balance": True}


@pytest.mark.parametrize(("content", "said"), [
    ({"learning_rate": [1]}, "unknown name 'learning_rate'; it may hold"), ({"nepochs": [1, 2]}, "unknown name"),
    ({"mode": ["finetune"]}, "unknown name"), ({"checkpoint": ["a"]}, "unknown name"),
    ({"lr": {"low": 1e-2, "high": 1e-4}}, "lr: an empty range: low 0.01 is above high 0.0001"),
    ({"lr": []}, "lr: an empty list"), ({"lr": {"low": 1e-4}}, "has low and high"),
    ({"lr": {"low": 0.1, "high": 1, "by": 2}}, "has low and high"), ({"lr": {"low": "a", "high": 1}}, "are numbers"),
    ({"wd": {"low": 0, "high": 1, "log": True}}, "log needs low above 0"),
    ({"lr": {"low": -1, "high": 1}}, "not above 0"),
    ({"hidden": {"low": 64, "high": 128, "step": 0.5}}, "not a whole number"),
    ({"hidden": {"low": 64.5, "high": 128}}, "hidden: "), ({"dropout": {"low": 0, "high": 1.5}}, "not in 0..1"),
    ({"optimizer": {"low": 1, "high": 2}}, "list of choices"),
    ({"optimizer": ["sgd", "lion"]}, "'lion' is none of sgd"),
    ({"augm": [7]}, "'7' is none of"), ({"batch_size": [16, 16]}, "twice"), ({"batch_size": [0]}, "not 1 or more"),
    ({"balance": ["yes"]}, "not true or false"), ("[1]", "must be an object"), ("{", "cannot be read as JSON"),
    ('{"lr": [1], "lr": [2]}', "'lr' is there twice"),
    (dict.fromkeys(params.SEARCH), "nothing is left to search"),
])
def test_bad_space_is_refused(tmp_path, content, said):
    with pytest.raises(InputError) as error:
        read(tmp_path, content)
    assert said in str(error.value)


def test_command_line_fixes(tmp_path):
    space, fixed = params.read_space(searching("--lr", 0.1, "--augm", 4, "--pool", 2), params.SEARCH)
    assert set(params.SEARCH) - set(space) == {"lr", "augm"} and fixed == {}
    args = params.fixed_args(searching("--lr", 0.1, "--augm", 4, "--pool", 2, "--image_size", "auto"))
    assert (args.lr, args.augm, args.nepochs) == (0.1, 4, 10) and args.wd == 0.0001
    assert params.worth_keeping(args) == {"image_size": ["auto"], "pool": 2, "lr": 0.1, "augm": 4}
    with pytest.raises(InputError, match="--lr fixes what --space .* searches"):
        read(tmp_path, {"lr": [1]}, "--lr", 0.1)
    space, fixed = params.read_space(searching("--mode", "finetune", script=optuna_finetuning), params.FINETUNING)
    assert "mode" not in space and fixed == {"mode": "finetune"}
    args = params.with_values(params.fixed_args(searching(script=optuna_finetuning)), fixed)
    assert args.finetune and not args.transfer_learning and not hasattr(args, "mode")


def test_what_has_no_effect_is_not_drawn():
    args = params.fixed_args(searching())
    values = {"lr": 1e-3, "wd": 1e-3, "batch_size": 16, "optimizer": "sgd", "lr_schedule": "step", "balance": False,
              "oversample": True, "augm": 4, "cls_arch": "simple", "hidden": 128, "dropout": 0.25}
    drawn = params.suggest(optuna.trial.FixedTrial(values), params.SEARCH, args)
    assert drawn == {name: value for name, value in values.items() if name not in ("hidden", "dropout")}
    complex_head = values | {"cls_arch": "complex"}
    assert params.suggest(optuna.trial.FixedTrial(complex_head), params.SEARCH, args) == complex_head
    tuning = {**values, "mode": "transfer_learning"}
    assert "augm" not in params.suggest(optuna.trial.FixedTrial(tuning), params.FINETUNING, args), "seen once"
    args.cached_placements = 4
    assert "augm" in params.suggest(optuna.trial.FixedTrial(tuning), params.FINETUNING, args)
    args.cached_placements, tuning["mode"] = 1, "full_retrain"
    assert "augm" in params.suggest(optuna.trial.FixedTrial(tuning), params.FINETUNING, args)
    space = {name: given for name, given in params.SEARCH.items() if name != "cls_arch"}  # and so the default, simple
    assert "hidden" not in params.suggest(optuna.trial.FixedTrial(values), space, args)


# ---------------------------------------------------------------- --params

def summary(folder, text):
    path = folder / "best_params_summary.csv"
    path.write_text(text)
    return path


ROWS = """split,number,value,lr,optimizer,balance,cls_arch,hidden,image_size,augm
0,7,0.91,0.00123,adam,True,complex,192,160 96,45
3,2,0.85,0.01,sgd,False,simple,,auto,0
"""


def of_split(path, split, *words):
    said = []
    args = train.get_args_parser().parse_args(["--params", str(path), *map(str, words)])
    return params.of_split(args, split, said.append), "\n".join(said)


def test_values_come_from_the_split_s_row(tmp_path):
    args, said = of_split(summary(tmp_path, ROWS), 0)
    assert (args.lr, args.optimizer, args.balance, args.cls_arch, args.hidden, args.image_size, args.augm) == (
        0.00123, "adam", True, "complex", 192, [160, 96], 45)
    assert "best_params_summary.csv: lr 0.00123, optimizer adam" in said and "command line" not in said
    other, _ = of_split(summary(tmp_path, ROWS), 3)
    assert (other.lr, other.balance, other.hidden, other.image_size) == (0.01, False, 256, ["auto"])
    plain = train.get_args_parser().parse_args(["--lr", "0.01", "--image_size", "auto"])
    del plain.params, plain.given
    assert vars(other) == vars(plain), "the same run, wherever its values come from"


def test_command_line_wins_and_the_log_says_so(tmp_path):
    args, said = of_split(summary(tmp_path, ROWS), 0, "--lr", 0.5, "--no-balance", "--nepochs", 3, "--augm", 0)
    assert (args.lr, args.balance, args.augm, args.nepochs, args.optimizer) == (0.5, False, 0, 3, "adam")
    first, second = said.splitlines()
    assert "optimizer adam" in first and " lr " not in first
    assert "command line: " in second and "lr 0.5 (file: 0.00123)" in second and "balance False (file: True)" in second


def test_mode_is_the_two_switches(tmp_path):
    path = summary(tmp_path, "split,mode\n0,finetune\n1,full_retrain\n")
    assert of_split(path, 0)[0].finetune and not of_split(path, 1)[0].finetune
    args, said = of_split(path, 0, "--transfer_learning")
    assert args.transfer_learning and not args.finetune and "(file: finetune)" in said


@pytest.mark.parametrize(("text", "said"), [
    (ROWS, "no row of split 1; it has 0, 3"), (ROWS + "1,1,0,1,sgd,,,,,\n" * 2, "more than one row of split 1"),
    ("split,speed\n1,2\n", "unknown column speed"), ("lr\n1\n", "no column split"), ("", "cannot be read"),
    ("split,lr\n1,fast\n", "split 1: lr = 'fast'"), ("split,balance\n1,1\n", "'1' is not true or false"),
    ("split,optimizer\n1,lion\n", "none of sgd"), ("split,image_size\n1,big\n", "image_size = 'big'"),
])
def test_bad_params_are_refused(tmp_path, text, said):
    with pytest.raises(InputError) as error:
        of_split(summary(tmp_path, text), 1)
    assert said in str(error.value)


@pytest.mark.parametrize(("name", "value"), [
    ("lr", 1e-05), ("lr", 0.0031622776601683794), ("hidden", 64), ("balance", False), ("image_size", [310]),
    ("image_size", ["auto"]), ("optimizer", "adamw"), ("mode", "full_retrain"), ("checkpoint", "a b/c.pth"),
    ("norm", "none"), ("ema", 0.99),
])
def test_text_and_back(name, value):
    assert params.convert(name, params.as_text(value)) == value


def test_bad_params_are_one_line_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match="no row of split 5"):
        call(train, "--params", summary(tmp_path, ROWS), "--split_index", 5, "--data", "missing.csv")


def test_every_default_of_the_space_is_train_s(tmp_path):
    parser = arguments.training_parser("")
    for space in (params.SEARCH, params.FINETUNING):
        for name, given in space.items():
            for value in given if isinstance(given, list) else (given["low"], given["high"]):
                if name != "mode":
                    parser.parse_args([f"--{name}", str(value)] if not isinstance(value, bool) else [f"--{name}"])
