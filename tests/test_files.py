import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ROOT, error_line, run

from common import arguments
from common.files import InputError, read_csv, replace_file, write_csv, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    with replace_file(path) as file:
        file.write("old")
    with pytest.raises(ZeroDivisionError), replace_file(path) as file:
        file.write("half of the new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(path.parent) == ["a.txt"]


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = ("import sys, time; from common.files import replace_file\n"
            "with replace_file(sys.argv[1], 'wb') as f:\n"
            " f.write(b'x' * 100000); f.flush(); print('half', flush=True)\n time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_bytes() == b"old"


def test_files_have_the_rights_that_the_umask_leaves(tmp_path):
    old = os.umask(0o027)
    try:
        write_json({"a": 1}, tmp_path / "a.json")
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_json_without_nan(tmp_path):
    write_json({"a": [1.5, None]}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.5, None]}


def test_csv_comes_back_to_the_last_digit(tmp_path):
    table = pd.DataFrame({"x": [0.1 + 0.2, 1e-300, 1 / 3], "name": ["a,b", 'c"d', "é"]})
    write_csv(table, tmp_path / "a.csv")
    back = read_csv(tmp_path / "a.csv", needed=["x"])
    assert [float(x) for x in back["x"]] == table["x"].tolist() and back["name"].tolist() == table["name"].tolist()


@pytest.mark.parametrize(("text", "expected"), [("a,b\n1,2,3\n", "more fields"), ("a\n1\n", "no column b"),
                                                ("", "cannot be read"), ('a,b\n"1,2\n', "cannot be read")])
def test_bad_csv(tmp_path, text, expected):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=f"a.csv.*{expected}"):
        read_csv(tmp_path / "a.csv", needed=["b"])


def test_image_size():
    assert arguments.image_size([310]) == (310, 310) and arguments.image_size([288, 160]) == (288, 160)
    assert arguments.image_size(["auto"]) == "auto"
    with pytest.raises(InputError, match="give one side"):
        arguments.image_size(["auto", 310])


def test_a_wrong_argument_is_one_line(tmp_path):
    assert "--nepochs: 0 is not 1 or more" in error_line(run("train.py", "--nepochs", 0))
    assert "invalid choice: 'rmsprop'" in error_line(run("train.py", "--optimizer", "rmsprop"))
    assert "unrecognized arguments: --epochs 3" in error_line(run("train.py", "--epochs", 3))


def test_interrupt_is_exit_code_130(tmp_path):
    code = ("import sys, time; sys.argv = ['x']\nfrom common.arguments import Parser, run_script\n"
            "def main(args):\n print('in main', flush=True); time.sleep(60)\n"
            "run_script(lambda: Parser('doc'), main)")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "in main\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and stderr.strip() == "interrupted by SIGINT"
