"""--recipe: which value wins, what the log says, what checkpoints and searches hold."""
import json

import pandas as pd
import pytest
from conftest import call, run, write_cohort
from hypothesis import given
from hypothesis import strategies as st

import optun
import optuna_finetuning
import train
import train_loca
import utils
from common import arguments, params, recipes
from common.files import InputError
from search.space import FINETUNING, SEARCH, fixed_args, read_space, worth_keeping

pytestmark = pytest.mark.usefixtures("shallow")
OPTIONS = {"lr": (0.5, 0.25), "wd": (0.5, 0.25), "nepochs": (3, 4), "augm": (4, 5), "optimizer": ("adam", "sgd"),
           "image_size": ([64], ["auto"]), "keep": ("best", "last"), "dropout": (0.1, 0.2)}


def parse(script, *words):
    return script.get_args_parser().parse_args([str(word) for word in words])


@given(st.sampled_from([None, *recipes.RECIPES]), st.sets(st.sampled_from(sorted(OPTIONS))),
       st.sets(st.sampled_from(sorted(OPTIONS))))
def test_command_line_then_params_then_recipe_then_default(tmp_path_factory, recipe, given_names, in_file):
    words = [word for name in given_names for word in (f"--{name}", params.as_text(OPTIONS[name][0]))]
    words += ["--recipe", recipe] if recipe else []
    if in_file:
        path = tmp_path_factory.mktemp("recipe") / "params.csv"
        row = {name: params.as_text(OPTIONS[name][1]) for name in in_file}
        pd.DataFrame([{"split": 0} | row]).to_csv(path, index=False)
        words += ["--params", path]
    said = []
    args, default = params.for_split(parse(train, *words), 0, said.append), params.defaults()
    values = recipes.values(recipe)
    for name in default.keys() - {"mode"}:
        expected = (OPTIONS[name][0] if name in given_names else OPTIONS[name][1] if name in in_file
                    else values.get(name, default[name]))
        assert getattr(args, name) == expected, name
    from_recipe = {name: value for name, value in values.items() if name not in given_names | in_file}
    assert (f"split 0: from recipe {recipe}: {params.listed(from_recipe) or 'nothing'}" in said) == bool(
        recipe and in_file)
    assert args.recipe == recipe and not hasattr(args, "given") and not hasattr(args, "params")


@pytest.mark.parametrize("script", [train, train_loca, optun])
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_value_is_one_that_the_command_line_takes(script, name):
    words = [word for option, value in recipes.values(name).items() for word in (f"--{option}", *map(
        str, value if isinstance(value, list) else [value]))]
    written, named = vars(parse(script, *words)), vars(parse(script, "--recipe", name))
    differing = {key for key in written if written[key] != named[key]}
    assert differing <= {"recipe", "given"} and named["given"] == {"recipe": name}
    shown = " ".join(script.get_args_parser().format_help(every=True).split())
    assert f"{name}: {recipes.RECIPES[name][0]}" in shown and f"{name}: {' '.join(words)}" in shown


def test_lars_is_the_default():
    default, chosen = vars(parse(train)), vars(parse(train, "--recipe", "lars"))
    assert {name for name in default if default[name] != chosen[name]} == {"recipe", "given"}
    assert (chosen["nepochs"], chosen["batch_size"], chosen["lr"], chosen["lr_anneal"]) == (40, 50, 0.001, 15)


def test_a_default_that_is_written_out_wins():
    args = parse(train, "--recipe", "small", "--optimizer", "sgd", "--augm", 0, "--image_size", 310)
    assert (args.optimizer, args.augm, args.image_size, args.keep) == ("sgd", 0, [310], "last")
    parser = train.get_args_parser()
    parser.parse_args(["--recipe", "small"])
    assert parser.parse_args([]).optimizer == "sgd", "a parser can be used again"


@pytest.mark.parametrize(("words", "better"), [
    (("--weights", "none"), True), (("--weights", "none", "--nepochs", 3, "--image_size", "auto"), True), ((), False),
    (("--weights", "none", "--lr", 0.01), False), (("--weights", "none", "--recipe", "lars"), False),
    (("--recipe", "small"), False), (("--weights", "none", "--params", "best.csv"), False),
    (("--weights", "none", "--checkpoint", "a.pth"), False), (("--weights", "resnet34.pth"), False)])
def test_better_values_are_named_where_random_weights_meet_the_defaults(words, better):
    assert (recipes.advice(parse(train, *words)) is not None) == better


# ---------------------------------------------------------------- training

QUICK = ("--nepochs", 2, "--batch_size", 12, "--pool", 2, "--threads", 1, "--device", "cpu", "--amp", "off")


def test_training_says_and_stores_what_the_recipe_gave(cohort):
    words = ("--data", cohort / "data.csv", "--output", cohort / "results", *QUICK)
    done = run("train.py", *words, "--recipe", "small", check=0)
    left = {name: value for name, value in recipes.values("small").items() if name not in ("nepochs", "batch_size")}
    assert f"\nrecipe small: {params.listed(left)}\n" in done.stdout and recipes.FOR_RANDOM not in done.stdout
    content = utils.read_checkpoint(cohort / "results" / "checkpoint_split0_run1.pth")
    assert content["epoch"] == 2 and content["args"]["recipe"] == "small" and content["args"]["nepochs"] == 2
    assert left.items() <= content["args"].items()
    settings = json.loads((cohort / "results" / "settings_split0_run1.json").read_text())
    assert settings["args"] == content["args"]
    written = [word for name, value in left.items() for word in (f"--{name}", params.as_text(value))]
    call(train, *words, *written, "--resume")  # the same values by another way: the same run
    with pytest.raises(InputError, match=r"other values of --keep \(last, now best\)"):
        call(train, *words, "--recipe", "small", "--keep", "best", "--resume")


def test_training_from_random_weights_by_default_names_the_recipe(cohort, capsys):
    call(train, "--data", cohort / "data.csv", "--output", cohort / "results", *QUICK, "--nepochs", 1, "--weights",
         "none", "--image_size", "auto")
    assert capsys.readouterr().out.count(recipes.FOR_RANDOM) == 1


# ---------------------------------------------------------------- searching

def test_a_search_fixes_what_the_recipe_gives(tmp_path):
    args = parse(optun, "--recipe", "small", "--augm", 0)
    space, fixed = read_space(args, SEARCH)
    assert set(SEARCH) - set(space) == {"lr", "wd", "batch_size", "optimizer", "lr_schedule", "augm"} and not fixed
    base = fixed_args(args)
    assert (base.nepochs, base.keep, base.augm, base.weights) == (20, "last", 0, "none")
    assert worth_keeping(base) == recipes.values("small") | {"augm": 0}
    (tmp_path / "space.json").write_text('{"lr": [0.1, 0.2], "wd": 0, "batch_size": null}')
    args = parse(optun, "--recipe", "small", "--space", tmp_path / "space.json", "--nepochs", 3)
    space, fixed = read_space(args, SEARCH)
    assert space["lr"] == [0.1, 0.2] and fixed == {"wd": 0} and not {"batch_size", "augm"} & set(space)
    assert args.batch_size == 16 and "nepochs" not in worth_keeping(fixed_args(args))


def test_fine_tuning_takes_no_input_from_a_recipe():
    args = parse(optuna_finetuning, "--recipe", "fast")
    assert (args.image_size, args.pool, args.keep, args.nepochs) == ([310], 1, "last", 20)
    assert not hasattr(args, "weights") and set(read_space(args, FINETUNING)[0]) == {"balance", "oversample", "mode"}
    assert "image_size" not in params.recipe_line(args) and "weights" not in params.recipe_line(args)


def test_the_winner_of_a_search_with_a_recipe_is_trained_to_the_trial_s_bits(tmp_path, capsys):
    write_cohort(tmp_path)
    (tmp_path / "space.json").write_text('{"lr": [0.002, 0.003]}')
    data = ("--data", tmp_path / "data.csv", "--threads", 1, "--device", "cpu", "--amp", "off")
    small = {name: value for name, value in recipes.values("fast").items() if name != "lr"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.values("fast"), "nepochs", 2)
        call(optun, *data, "--recipe", "fast", "--space", tmp_path / "space.json", "--splits", 0, 0, "--trials", 1,
             "--output", tmp_path / "search", "--pruner", "none")
    said = capsys.readouterr().out
    assert f"recipe fast: {params.listed(small | {'nepochs': 2})}\n" in said
    row = pd.read_csv(tmp_path / "search" / "best_params_summary.csv").iloc[0]
    assert row["lr"] in (0.002, 0.003) and (row["nepochs"], row["keep"], row["augm"]) == (2, "last", 3)
    call(train, *data, "--params", tmp_path / "search" / "best_params_summary.csv", "--output", tmp_path / "winner")
    content = utils.read_checkpoint(tmp_path / "winner" / "checkpoint_split0_run1.pth")
    assert content["auc"] == row["value"] and content["epoch"] == 2 and content["args"]["lr"] == row["lr"]
    assert arguments.image_size(content["args"]["image_size"]) == "auto"
