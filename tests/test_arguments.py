"""The command line that the scripts share."""
import sys

import pytest
from conftest import ROOT, run

import optuna_finetuning
import predict
import train
from common import __version__, arguments

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py") if "def get_args_parser" in path.read_text())


def parse(script, *words):
    return script.get_args_parser().parse_args([str(word) for word in words])


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_a_version_and_titled_groups(script):
    assert run(script, "--version", check=0).stdout == f"{script} {__version__}\n"
    options = run(script, "--help", check=0).stdout.partition("\noptions:\n")[2].partition("\n\n")[0]
    assert [line.split()[0].strip(",") for line in options.splitlines() if line.lstrip().startswith("-")] == [
        "-h", "--version"]


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


@pytest.mark.parametrize(("option", "value", "said"), [
    ("nepochs", 0, "0 is not 1 or more"), ("nepochs", 1.5, "'1.5' is not a whole number"),
    ("seed", -1, "-1 is not 0 or more"), ("lr", 0, "0 is not above 0"), ("lr", "nan", "nan is not above 0"),
    ("lr", "fast", "'fast' is not a number"), ("wd", -1e-3, "-0.001 is not 0 or more"),
    ("dropout", 1, "1 is not in 0..1 (1 excluded)")])
def test_numbers_out_of_range_are_refused(capsys, option, value, said):
    with pytest.raises(SystemExit):
        parse(train, f"--{option}={value}")
    assert f"error: argument --{option}: {said} (see" in capsys.readouterr().err


def test_given_is_what_the_command_line_gives(monkeypatch):
    parser = train.get_args_parser()
    args = parser.parse_args(["--lr", "0.001", "--no-balance", "--lr_scheduler", "--no-normalize", "--resume_anyway"])
    assert args.given == {"lr": 0.001, "balance": False, "lr_schedule": "plateau", "norm": "none", "force_resume": True}
    again = parser.parse_args([])
    assert again.given == {} and (again.lr_schedule, again.norm, again.nepochs) == ("step", "auto", 40)
    monkeypatch.setattr(sys, "argv", ["x", "--ema", "0.9"])
    assert arguments.training_parser("").parse_args().given == {"ema": 0.9}
