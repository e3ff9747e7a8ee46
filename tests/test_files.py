import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ROOT, error_line, run
from hypothesis import given, settings
from hypothesis import strategies as st

from common import arguments
from common.files import FORMULA, InputError, read_csv, replace_file, write_csv, write_json


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


ROWS = [("scan_id", "target", "spacing_mm", "centre"), ("007", "1", "3.27", "Köln"), ("1e3", "0", "3.27", "NA")]


def saved(rows, separator=",", end="\n", comma=False):
    lines = [separator.join(row) for row in rows]
    return end.join([lines[0], *(line.replace("3.27", "3,27") if comma else line for line in lines[1:])]) + end


@pytest.mark.parametrize(("content", "encoding"), [
    (saved(ROWS), "utf-8"), (saved(ROWS, end="\r\n"), "utf-8-sig"), (saved(ROWS), "cp1252"), (saved(ROWS), "utf-16"),
    (saved(ROWS, ";"), "utf-8"), (saved(ROWS, ";", comma=True), "cp1252"), (saved(ROWS, "\t", "\r\n"), "utf-16"),
    (saved(ROWS) + ",,,\n,,,\n\n", "utf-8"), ("sep=;\n" + saved(ROWS, ";", comma=True), "cp1252"),
    (saved([tuple(f" {value}  " for value in row) for row in ROWS], "\t"), "utf-8"),
    (saved([("Scan ID", " TARGET", "Spacing mm", "centre"), *ROWS[1:]]), "utf-8"),
    (saved(ROWS).replace("007", '"007"').replace("Köln", ' "Köln"'), "utf-8")])
def test_tables_as_people_save_them(content, encoding, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode(encoding))
    table = read_csv(path, ("scan_id", "target"))
    assert list(table.columns) == list(ROWS[0]) and table.to_numpy().tolist() == [list(row) for row in ROWS[1:]]


def test_an_excel_sheet_is_a_table(tmp_path):
    frame = pd.DataFrame(ROWS[1:], columns=["Scan_ID", "Target", "spacing_mm", "centre"]).astype({"Target": int})
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    table = read_csv(tmp_path / "a.xlsx", ("scan_id",), lambda name: name != "centre")
    assert table.to_numpy().tolist() == [list(row[:3]) for row in ROWS[1:]] and list(table.columns) == list(ROWS[0][:3])


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?"])
def test_an_excel_error_is_no_empty_cell(error, tmp_path):
    pd.DataFrame({"scan_id": ["007", "8"], "target": [1, error], "centre": ["a", "b"]}).to_excel(
        tmp_path / "a.xlsx", index=False)
    with pytest.raises(InputError, match="a.xlsx: row 3, column target: holds an Excel error such as #N/A; correct or"):
        read_csv(tmp_path / "a.xlsx")
    assert read_csv(tmp_path / "a.xlsx", usecols=lambda name: name != "target")["centre"].tolist() == ["a", "b"]


@pytest.mark.parametrize(("content", "said"), [
    (b"scan_id,target;x\n1,2;3\n", "reads as 2 columns with ',' and with ';'"),
    (b"scan_id,target\n1,2,\n", "line 2: has more fields than the header"),
    (b"scan_id,target\n1,2\n3,4,5\n", "line 3: has more fields than the header"),
    (b"scan_id,target,Target\n1,2,3\n", "two columns read as target"),
    (b"scan_id,target,centre,centre\n1,2,3,4\n", "two columns read as centre"),
    (b"scan_id\ttarget\tdose\n1\t1\t1,234\n", "column dose: 1,234 may be a thousand or a decimal comma"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is no text in UTF-8, UTF-16 or cp1252 and no"),
    (b"scan_id,target\na\x81b,2\n", "is no text in UTF-8, UTF-16 or cp1252 and no .xlsx; save it as CSV or .xlsx"),
    (b"PK\x03\x04junk", "cannot be read as a table"), (b"", "cannot be read as a table")])
def test_a_table_that_cannot_be_told_is_refused(content, said, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(said)):
        read_csv(tmp_path / "a.csv", ("scan_id", "target"))


def test_a_missing_table_and_a_missing_column_say_what_is_there(tmp_path):
    with pytest.raises(InputError, match="none.csv: no such file; correct its name or folder"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_text(f"scan_id,probs,sex,{','.join(f'F{k}' for k in range(1, 31))}\n")
    with pytest.raises(InputError, match="no column age; it has scan_id, probs, sex, F1, .*, F17 and 13 more"):
        read_csv(tmp_path / "a.csv", ("scan_id", "age"), lambda name: name in ("scan_id", "age"))


@pytest.mark.parametrize(("content", "lines"), [
    ("scan_id,x\n1,2\n\n3,4\n", [2, 4]), ("\n\nscan_id,x\n1,2\n  \t\n\n3,4\n,\n\n", [4, 7]), ("scan_id\n\n1\n", [3]),
    ("\nsep=;\nscan_id;x\n\n1;2\n", [5]), ('scan_id,"a\nb"\n\n1,"2\n\n3"\r\n\r\n4,5\n', [4, 8]), ("scan_id,x\n", []),
    ("scan_id,x\n,,,\n1,2\n", [2, 3])])  # a longer row without texts: pandas took the first column for an index
def test_the_index_is_the_line_of_the_file(content, lines, tmp_path):
    (tmp_path / "a.csv").write_text(content, newline="")
    table = read_csv(tmp_path / "a.csv")
    assert table.index.tolist() == lines and set(table["scan_id"]) <= {"", "1", "3", "4"}


def test_the_index_is_the_row_of_the_sheet(tmp_path):
    pd.DataFrame([["scan_id", "x"], ["", ""], ["1", "2"], ["3", "4"]]).to_excel(
        tmp_path / "a.xlsx", header=False, index=False)
    assert read_csv(tmp_path / "a.xlsx").index.tolist() == [2, 3, 4]


def test_quotes_that_are_not_closed_are_named_by_their_line(tmp_path):
    for text in ('scan_id,x\n1,2\n\n3,"4\n5,6\n', 'scan_id,x\n1,2\n\n3,"4" or 5\n'):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(InputError, match=r"a.csv, line 4: cannot be read \(.*\); correct its quotation marks"):
            read_csv(tmp_path / "a.csv")


def test_a_longer_line_is_refused_where_some_columns_are_read(tmp_path):
    """pandas drops the surplus: WB, AC without quotes would move the probability into another column."""
    (tmp_path / "a.csv").write_text("scan_id,series,probs,x\n1,WB,0.5,1\n2,WB, AC,0.9,1\n")
    with pytest.raises(InputError, match="line 3: has more fields than the header"):
        read_csv(tmp_path / "a.csv", ("scan_id", "probs"), lambda name: name in ("scan_id", "probs"))


@pytest.mark.parametrize("number", ["1,5", "1,23E-05", "-0,5", "0,123", "1,234"])
def test_decimal_commas_between_semicolons(number, tmp_path):
    (tmp_path / "a.csv").write_text(f"scan_id;x\n1,5;{number}\n")
    assert read_csv(tmp_path / "a.csv").to_numpy().tolist() == [["1,5", number.replace(",", ".")]]


def test_decimal_commas_beside_an_na(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("scan_id;kg\na;70,5\nb;NA\nc;\nd;81\n")
    assert read_csv(path)["kg"].tolist() == ["70.5", "NA", "", "81"]


@pytest.mark.parametrize("separator", [", ", "; ", "\t "])
def test_a_quote_after_a_separator_and_a_blank(separator, tmp_path):
    rows = ['"scan_id"', '"target"', '"centre"'], ["007", "1", f'"Lyon{separator}Sud"'], ["008", "0", '"say ""x"""']
    path = tmp_path / "a.csv"
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    table = read_csv(path, ("scan_id", "target"))
    assert table.to_numpy().tolist() == [["007", "1", f"Lyon{separator}Sud"], ["008", "0", 'say "x"']]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_output_of_another_encoding_is_no_traceback(encoding, tmp_path):
    code = ("import sys; sys.argv = ['x']\nfrom common.arguments import Parser, run_script\n"
            "def main(args): print('sensitivity ' + chr(0x2265) + ' 0.95', chr(0xdcff))\n"
            "run_script(lambda: Parser('doc'), main)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, env={
        **os.environ, "PYTHONIOENCODING": encoding, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert done.returncode == 0 and done.stdout.split() == [b"sensitivity", b"\\u2265", b"0.95", b"\\udcff"]


FORMULAS = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\tx", "\rx", "'quoted'", "''", "'=1", "=", "-", "'"]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")).map(str.strip),
    st.sampled_from(FORMULAS), st.builds(lambda mark, rest: mark + rest.strip() + "x", st.sampled_from("=+-@\t\r'"),
                                         st.text(st.sampled_from("=+-@'\t\r\n,;\"a1. "), max_size=8)))


@pytest.fixture(scope="module")
def one_path(tmp_path_factory):
    return tmp_path_factory.mktemp("csv") / "a.csv"


@settings(max_examples=150)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5), number=st.floats(allow_nan=False))
def test_texts_come_back_and_no_cell_is_a_formula(texts, number, one_path):
    path = one_path
    write_csv(pd.DataFrame({"x": texts, "y": number, "z": str(number)}), path)
    back = read_csv(path)
    assert back["x"].tolist() == texts and [float(y) for y in [*back["y"], *back["z"]]] == [number] * 2 * len(texts)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[1] for row in rows] == [row[2] for row in rows] == [repr(number)] * len(texts)  # not touched
    for cell, _, _ in rows:
        assert not cell.startswith(FORMULA) or float(cell) is not None


def test_names_of_columns_are_guarded_too(tmp_path):
    texts = ["-1.5", "-1.5e3", "-inf", "+2", "-1+2"]
    write_csv(pd.DataFrame({"=cmd": texts, "b": [-1, 2, 3, 4, 5]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "'=cmd,b\n-1.5,-1\n-1.5e3,2\n-inf,3\n+2,4\n'-1+2,5\n"
    assert read_csv(tmp_path / "a.csv")["=cmd"].tolist() == texts


def test_a_column_of_texts_and_numbers_keeps_its_numbers(tmp_path):
    values = [-1, "-x", None, 2.5, float("nan"), ("=", 1), True]
    write_csv(pd.DataFrame({"a": pd.Series(values, dtype=object), "b": pd.Series([1, -2] * 3 + [3], dtype=object)}),
              tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == (
        "a,b\n-1,1\n'-x,-2\n,1\n2.5,-2\n,1\n\"('=', 1)\",-2\nTrue,3\n")
