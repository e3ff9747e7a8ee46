"""train.py's arguments from the best values of a search."""
import pytest
from conftest import ROOT, call

import train
from common import params
from common.files import InputError, sha256
from common.text import as_text


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
    return params.for_split(args, split, said.append), "\n".join(said)


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
    assert args.transfer_learning and not args.finetune and "mode transfer_learning (file: finetune)" in said
    args, _ = of_split(summary(tmp_path, "split,transfer_learning\n0,True\n"), 0, "--finetune")
    assert args.finetune and not args.transfer_learning


def test_another_start_than_the_search_s_is_refused(tmp_path):
    start = tmp_path / "checkpoint_split0_run1.pth"
    start.write_bytes(b"weights")
    path = summary(tmp_path, f"split,checkpoint_sha256,checkpoint\n0,{sha256(start)},{start}\n1,,{start}\n")
    assert of_split(path, 0)[0].checkpoint == str(start)
    start.write_bytes(b"others")
    with pytest.raises(InputError, match="split 0: .*checkpoint_split0_run1.pth is not the file that the search"):
        of_split(path, 0)
    assert of_split(path, 0, "--checkpoint", start)[0].checkpoint == str(start), "asked for by name"
    assert of_split(path, 1)[0].checkpoint == str(start), "a search of before, which did not say"
    start.unlink()
    with pytest.raises(InputError, match="No such file or directory; give its path as --checkpoint"):
        of_split(path, 0)


def test_former_names_are_understood(tmp_path):
    path = summary(tmp_path, "split,lr,normalize\n0,0.5,False\n1,0.5,\n")
    assert [of_split(path, split)[0].norm for split in (0, 1)] == ["none", "auto"]
    assert of_split(path, 0, "--norm", "lars")[0].norm == "lars"


@pytest.mark.parametrize(("text", "said"), [
    (ROWS, "no row of split 1; it has 0, 3"), (ROWS + "1,1,0,1,sgd,,,,,\n" * 2, "more than one row of split 1"),
    ("split,speed\n1,2\n", "unknown column speed"), ("lr\n1\n", "no column split"), ("", "cannot be read"),
    ("split,lr\n1,fast\n", "split 1: lr: 'fast' is not a number"), ("split,balance\n1,1\n", "'1' is not true or false"),
    ("split,optimizer\n1,lion\n", "optimizer: invalid choice: 'lion'"),
    ("split,transfer_learning,finetune\n1,True,True\n", "not allowed with"),
    ("split,image_size\n1,big\n", "image_size: 'big' is not a whole number"),
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
    assert params.convert({name: as_text(value)}) == {name: value}


def test_bad_params_are_one_line_before_any_image_is_read(tmp_path):
    with pytest.raises(InputError, match="no row of split 5"):
        call(train, "--params", summary(tmp_path, ROWS), "--split_index", 5, "--data", ROOT / "data.csv")
