"""The command line that the scripts share."""
import importlib
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT, call, run
from training_helpers import SMALL

import aggregate
import compare
import explain
import find_best_model
import optuna_finetuning
import predict
import prepro_script
import score
import train
import train_loca
from common import __version__, arguments, effects, recipes
from common.files import InputError
from common.renamed import current_words

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py") if "\ndef get_args_parser" in path.read_text())


def parse(script, *words):
    return script.get_args_parser().parse_args([str(word) for word in words])


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_a_version_and_titled_groups(script):
    assert run(script, "--version", check=0).stdout == f"{script} {__version__}\n"
    options = run(script, "--help", check=0).stdout.partition("\noptions:\n")[2].partition("\n\n")[0]
    assert [line.split()[0].strip(",") for line in options.splitlines() if line.lstrip().startswith("-")] == [
        "-h", "--help_all", "--version", "-q", "-v"]


@pytest.mark.parametrize("script", [predict, optuna_finetuning])
def test_splits_are_one_range(script, capsys):
    assert parse(script).splits == (None if script is predict else list(range(20)))
    assert parse(script, "--splits", "0-19").splits == list(range(20))
    assert parse(script, "--splits", 0, 2).splits == [0, 1, 2] and parse(script, "--splits", "3-3").splits == [3]
    for words in ((5,), (0, 1, 2), ("0-1", 2), (3, 1), ("3-1",), ("a-b",), ("0-",)):
        with pytest.raises(SystemExit) as ended:
            parse(script, "--splits", *words)
        assert ended.value.code == 2 and "write 0-2 for splits 0, 1 and 2" in capsys.readouterr().err


def test_split_index_is_a_list_of_numbers_and_ranges(capsys):
    assert parse(train).split_index == [0] and parse(train, "--split_index", 0, 19).split_index == [0, 19]
    assert parse(train, "--split_index", "0-3", 2, 7, "--run", "1-2").split_index == [0, 1, 2, 3, 7]
    for word, said in (("3-1", "the first number is larger"), ("x", "neither a number nor a range"), (-1, "neither")):
        with pytest.raises(SystemExit):
            parse(train, "--split_index", word)
        assert said in capsys.readouterr().err


def test_the_first_line_names_manifest_and_splits(tmp_path):
    none, phantom = tmp_path / "none.csv", tmp_path / "phantom.csv"
    phantom.write_text("scan_id,series_description\n1,FDG\n2,WB SYNTHETIC PET\n")
    for words, said in ((("train.py", "--split_index", "3-5", 0), "splits: 0, 3-5\n"),
                        (("train_loca.py", "--split_index", 1), "splits: 1\n"),
                        (("predict.py", "--splits", 0, 2), "splits: 0-2\n"),
                        (("predict.py",), "splits: all that have a model\n"),
                        (("predict_loca.py", "--splits", 0, 2), "splits: 0-2\n")):
        assert run(*words, "--data", none, check=2).stdout.startswith(f"manifest: {none}; {said}")
        assert run(*words, "--data", phantom, check=2).stdout.startswith(f"manifest: {phantom}, SYNTHETIC; {said}")


def test_help_shows_essentials_and_help_all_the_rest():
    short, every = (run("train.py", option, check=0, env={"COLUMNS": "122"}).stdout for option in
                    ("--help", "--help_all"))
    assert short.startswith("usage: train.py [options]\n") and train.__doc__.strip() in short
    shown, known = (set(re.findall(r"^ +(?:-\w(?: [A-Z]+)?, )?(--\w+)", text, re.MULTILINE)) for text in (short, every))
    assert {"--data", "--output", "--split_index", "--recipe", "--resume", "--device"} <= shown < known
    assert {"--lr_anneal", "--ema", "--checkpoint_minutes"} <= known - shown and len(short.splitlines()) < 70
    assert f"{len(known - shown)} more options: train.py --help_all" in short and "more options" not in every
    assert "(default: 0)" in every and "(default: 1)" in every, "defaults of 0 and 1 count"
    assert all(f"{name}: {purpose}" in " ".join(short.split()) for name, (purpose, _) in recipes.RECIPES.items())
    assert "usage: prepro_script.py -i FOLDER [FOLDER ...] [options]" in run("prepro_script.py", "-h", check=0).stdout


def test_few_options_are_all_shown():
    assert find_best_model.get_args_parser().format_help() == find_best_model.get_args_parser().format_help(every=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_dashes_are_as_good_as_underscores(script):
    parser = importlib.import_module(script.removesuffix(".py")).get_args_parser()
    options = [option for action in parser._actions for option in action.option_strings]
    dashed = [option.replace("_", "-") for option in options if option.startswith("--")]
    for given in (dashed, [f"{option}=x=a_b" for option in dashed]):
        found = current_words(given, options)
        assert [word.split("=")[0] for word in found] == [option for option in options if option.startswith("--")]
        assert all(word.partition("=")[2] in ("", "x=a_b") for word in found)


def test_values_keep_their_dashes_and_messages_their_underscores(capsys):
    args = parse(train, "--split-index", "0-2", "-o", "my-runs", "--lr-schedule=step", "--no_balance",
                 "--label-smoothing", "1e-3")
    assert (args.split_index, args.output, args.label_smoothing) == ([0, 1, 2], "my-runs", 0.001)
    assert args.given == {"split_index": [0, 1, 2], "output": "my-runs", "lr_schedule": "step", "balance": False,
                          "label_smoothing": 0.001}
    assert parse(train_loca, "--lambda-loc", 2).site_lambda == 2
    assert parse(train, "--lr-scheduler").lr_schedule == "plateau"
    with pytest.raises(SystemExit):
        parse(train, "--label-smoothing", 2)
    assert "argument --label_smoothing: 2 is not in 0..1" in capsys.readouterr().err


def test_quiet_says_warnings_alone_and_verbose_more(cohort):
    rows = (f"s{k},s{k}_cor.bin,{k % 2}" for k in range(20))
    (cohort / "data.csv").write_text("\n".join(["scan_id,filename,target", *rows, ""]))
    words = "make_splits.py", "--data", cohort / "data.csv", "--n_splits", 2, "--overwrite"
    plain, quiet, verbose = (run(*words, *more, check=0) for more in ((), ("-q",), ("--verbose",)))
    assert "2 splits of 20 rows" in plain.stdout and "warning: " in plain.stdout
    assert quiet.stdout == "" and quiet.stderr.splitlines() == [
        line for line in plain.stdout.splitlines() if line.startswith("warning")]
    assert verbose.stdout == plain.stdout and f"make_splits.py {__version__}, commit" in verbose.stderr
    assert "  --n_splits 2\n" in verbose.stderr and re.search(r"make_splits.py: \d+\.\d s\n", verbose.stderr)
    failed = run("make_splits.py", "--data", cohort / "none.csv", "-v")
    assert failed.returncode == 2 and "read_manifest" in failed.stderr and failed.stderr.count("\nerror: ") == 1


@pytest.mark.parametrize("words", [("train.py", "--split_index", "0-99999999999"), ("train.py", "--run", "9" * 30),
                                   ("predict.py", "--splits", "0-99999999999"), ("optun.py", "--splits", 0, "9" * 30)])
def test_an_endless_range_is_refused_at_once(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(importlib.import_module(words[0].removesuffix(".py")), *words[1:])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: argument --") and said.count("\n") == 1


@pytest.mark.parametrize(("option", "value", "said"), [
    ("nepochs", 0, "0 is not 1 or more"), ("nepochs", 1.5, "'1.5' is not a whole number"),
    ("seed", -1, "-1 is not 0 or more"), ("lr", 0, "0 is not above 0"), ("lr", "nan", "nan is not above 0"),
    ("lr", "fast", "'fast' is not a number"), ("wd", -1e-3, "-0.001 is not 0 or more"),
    ("dropout", 1, "1 is not in 0..1 (1 excluded)")])
def test_numbers_out_of_range_are_refused(capsys, option, value, said):
    with pytest.raises(SystemExit):
        parse(train, f"--{option}={value}")
    assert f"error: argument --{option}: {said} (see" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--lr_scheduler=cosine", "--normalize=False", "--no-normalize=1"])
def test_former_switches_take_no_value(word, capsys):
    with pytest.raises(SystemExit):
        parse(train, word)
    assert f"unrecognized arguments: {word} (see" in capsys.readouterr().err


@pytest.mark.parametrize(("script", "option", "expected"), [
    (aggregate, "cohort", [("a", Path("b")), ("c", Path("d"))]), (aggregate, "by", ["a=b", "c=d"]),
    (aggregate, "readers", [Path("a=b"), Path("c=d")]), (compare, "names", ["a=b", "c=d"]),
    (predict, "checkpoints", ["a=b", "c=d"]), (explain, "scans", ["a=b", "c=d"])])
def test_a_list_that_is_given_in_two_parts_is_their_sum(script, option, expected):
    args = parse(script, f"--{option}", "a=b", f"--{option}", "c=d")
    assert getattr(args, option) == args.given[option] == expected
    assert getattr(parse(script, f"--{option}", "c=d"), option) == expected[1:], "a parser forgets"
    assert parse(aggregate, "--prevalence", 0.1, "--prevalence", 0.2, 0.3).prevalence == [0.1, 0.2, 0.3]


def test_given_is_what_the_command_line_gives(monkeypatch):
    parser = train.get_args_parser()
    args = parser.parse_args(["--lr", "0.001", "--no-balance", "--lr_scheduler", "--no-normalize", "--resume_anyway"])
    assert args.given == {"lr": 0.001, "balance": False, "lr_schedule": "plateau", "norm": "none", "force_resume": True}
    again = parser.parse_args([])
    assert again.given == {} and (again.lr_schedule, again.norm, again.nepochs) == ("step", "auto", 40)
    monkeypatch.setattr(sys, "argv", ["x", "--ema", "0.9"])
    assert arguments.training_parser("").parse_args().given == {"ema": 0.9}


@pytest.mark.parametrize(("script", "words"), [(prepro_script, ()), (score, ("--models", "m"))])
def test_several_inputs_follow_one_option_as_a_shell_writes_them(script, words):
    """`--input dicom/*` is several words."""
    args = parse(script, "--output", "out", "--input", "a", "b", "-i", "c", "--series", "1.2", "1.3", *words)
    assert args.input == ["a", "b", "c"] and args.series == ["1.2", "1.3"]


FULL = ("--early_stopping", "--cls_arch", "complex", "--image_size", "auto", "--finetune")
LOCA = (*FULL, "--site_head", "linear")


@pytest.mark.parametrize(("words", "said"), [
    (("--patience", 3), ["--patience 3 has no effect without --early_stopping"]),
    (("--patience", 3, "--early_stopping", "--image_size", "auto", "--margin", 8, "--lr_anneal", 5), []),
    (("--hidden", 64, "--dropout", 0.2, "--margin", 8), [
        "--margin 8 has no effect without --image_size auto", "--hidden 64 has no effect without --cls_arch complex",
        "--dropout 0.2 has no effect without --cls_arch complex"]),
    (("--recipe", "small", "--momentum", 0.8, "--lr_anneal", 5), [
        "--momentum 0.8 has no effect without --optimizer sgd",
        "--lr_anneal 5 has no effect without --lr_schedule step"]),
    (("--checkpoint", "a.pth", "--weights", "b.pth"), ["--weights b.pth has no effect beside --checkpoint"]),
    (("--checkpoint", "a.pth", "--weights", "none"), []),
    (("--cached_placements", 4), ["--cached_placements 4 has no effect without --transfer_learning or --finetune"]),
    (("--finetune", "--cached_placements", 4), []),
    (("--finetune", "--cached_placements", 4, "--site_lambda", 1), [
        "--cached_placements 4 has no effect with --site_head grid, which reads layers that are not kept"]),
    (("--site_lambda", 0, "--site_balance"), ["--site_balance has no effect with --site_lambda 0"]),
    (("--transfer_learning", "--site_detach"), [
        "--site_detach has no effect with --transfer_learning, which trains no backbone"]),
    (("--select", "loc", "--keep", "last"), [
        "--select loc has no effect with --keep last, without --early_stopping and --lr_schedule plateau"]),
    (("--select", "loc", "--keep", "last", "--lr_scheduler"), [])])
def test_options_without_effect_are_named(words, said):
    script = train_loca if any(str(word).startswith(("--site", "--select")) for word in words) else train
    args = parse(script, *words)
    assert effects.without_effect(args.given, [args, args]) == [f"warning: {line}" for line in said]
    other = parse(script, *(FULL if script == train else LOCA))
    assert effects.without_effect(args.given, [args, other]) == [], "it has one in another run"


@pytest.mark.parametrize(("words", "said"), [
    (("--balance", "--oversample"), "--balance beside --oversample: the rarer class"),
    (("--warmup_epochs", 3, "--nepochs", 3), "--warmup_epochs 3 takes all of --nepochs 3: no epoch has"),
    (("--warmup_epochs", 3, "--nepochs", 3, "--lr_schedule", "onecycle"), None),  # which refuses it
    (("--balance", "--warmup_epochs", 2, "--nepochs", 3), None)])
def test_what_is_hardly_meant_is_said(words, said):
    args = parse(train, *words)
    found = effects.odd_together(args.given, [parse(train), args, args])
    assert len(found) == bool(said) and (not said or f"warning: {said}" in found[0])
    assert effects.odd_together({}, [args]) == [], "a file of parameters may have searched for it"


def test_training_says_what_has_no_effect_and_takes_no_two_that_contradict(cohort, capsys):
    words = ("--data", cohort / "data.csv", "--output", cohort / "results", *SMALL, "--nepochs", 1, "--patience", 3,
             "--warmup_epochs", 1)
    call(train, *words)
    assert re.findall("warning: --(patience 3|warmup_epochs 1) ", capsys.readouterr().out) == [
        "patience 3", "warmup_epochs 1"]
    for option in ("--resume", "--force_resume"):
        with pytest.raises(InputError, match="--overwrite starts it anew: leave one of them out"):
            call(train, *words, "--overwrite", option)
    assert (cohort / "results" / "checkpoint_split0_run1.pth").exists()
