"""Errors that bad input raises, files written whole or not at all, progress bars. Imports no torch."""
import collections
import contextlib
import csv
import errno
import functools
import hashlib
import itertools
import json
import math
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pandas as pd
from tqdm import tqdm

from common.faults import of_file
from common.processes import is_left_over, tag
from common.text import counted, some

NAMES = ("scan_id", "filename", "patient_id", "StudyInstanceUID", "StudyDate", "AccessionNumber",
         "target_loc")  # columns whose values may look like decimal numbers, but are names
COLUMNS = (*NAMES, "target", "deauville", "matrix_size_1", "matrix_size_2", "view", "spacing_mm", "probs", "set")
_searched: set[tuple[int, Path]] = set()  # (process, folder) that `remove_leftovers` has been to
MOST_SHEET, MOST_CELLS = 2**27, 10**7  # bytes of an unpacked workbook; cells of a sheet
SILENT = False  # no progress bars: --quiet
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets may run a text that starts with one of these
BLANK = ("", "na", "n/a", "#n/a", "nan", "<na>", "null")  # what programs write for an empty field
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)"
_SPELLINGS = {name.replace("_", "").lower(): name for name in COLUMNS}


class InputError(Exception):
    """Bad input. Scripts show it as one line, `error: ...`, and exit with 2.

    The text names the file, row or attribute, its value, and what to do about it.
    """


def open_file(path: str | os.PathLike[str], mode: str = "rb", **options: Any) -> Any:
    """`open` for reading. Raises OSError for a pipe, device or folder, which might never end."""
    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to would hang
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file, but a folder, pipe or device", name)

    return open(path, mode, opener=opener, **options)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replace_file(path: str | Path, mode: str = "w", private: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success flush it to disk and rename it to `path`, on failure remove it.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder is made where it is missing.
    mode : {"w", "wb"}
        UTF-8 text with newlines as given (names of files that are not UTF-8 with \\udcXX for a byte), or bytes.
    private : bool
        Only its owner may read it (mode 600): it may name patients.

    Yields
    ------
    file
        The open temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding, newline, errors = (None, None, None) if "b" in mode else ("utf-8", "", "backslashreplace")
    remove_leftovers(path.parent)
    temporary = path.with_name(f".{path.name}.{tag()}{secrets.token_hex(4)}.tmp")
    opener = functools.partial(os.open, mode=0o600 if private else 0o666)  # less what umask takes
    try:
        with open(temporary, mode.replace("w", "x"), encoding=encoding, newline=newline, errors=errors,
                  opener=opener) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if fault := of_file(error, path, temporary):
            raise fault from error
        raise


def _sync_folder(folder: Path) -> None:
    """Let new names survive a power cut, in their order; Windows has nothing of the kind."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def remove_leftovers(folder: Path) -> None:
    """Remove, once a process and folder, the temporary files that killed processes left there."""
    if (os.getpid(), folder) in _searched:
        return
    _searched.add((os.getpid(), folder))
    for path in [Path(each) for each in os.scandir(folder) if each.name[0] == "." and each.name.endswith(".tmp")]:
        if is_left_over(path, r"\..+\."):
            with contextlib.suppress(OSError):
                path.unlink()


def read_csv(path: str | Path, needed: Iterable[str] = (),
             usecols: Callable[[str], bool] | None = None, whole: bool = False) -> pd.DataFrame:
    """Read a table, a CSV or .xlsx as people save them, as a DataFrame of stripped texts; empty fields are "".

    Fields may be separated by commas, semicolons or tabs (also after a line `sep=;`), the text be UTF-8, UTF-16 or
    cp1252; of an .xlsx the first sheet is read. Names of COLUMNS are recognized in any case and with blanks. Where no
    comma separates, decimal commas become points. Empty lines, and empty rows at the end, are dropped. Texts stay as
    they are (007, 1e3 and NA are names), but for the apostrophe that `guarded` puts before them.

    The index is where each row begins, for messages: the line of the file, or the row of the sheet, from 1.

    Parameters
    ----------
    needed : iterable of str
        Columns that must be there.
    usecols : callable, optional
        Whether to read the column of this name.
    whole : bool
        Refuse a last line without a line feed even where it has all fields: programs end every line.

    Raises
    ------
    InputError
        The table is missing, unreadable or ambiguous, a cell holds an Excel error, a line is longer than the header,
        the last line breaks off, two columns have one name, a column of `needed` is missing.
    """
    try:
        with open_file(path) as file:
            start = file.read(4)
        if start == b"PK\x03\x04":  # a zip archive, as every .xlsx is
            separator, (table, names) = "", _read_sheet(path, usecols)
        else:
            for encoding in _encodings(start):
                with contextlib.suppress(UnicodeDecodeError):
                    separator, table, names = _read_text(path, encoding, usecols, whole)
                    break
            else:
                raise InputError(f"{path}: is no text in UTF-8, UTF-16 or cp1252 and no .xlsx; save it as CSV or .xlsx")
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct its name or folder") from None
    except Exception as error:  # whatever damage provokes in pandas and openpyxl
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a table: {reason}; give a CSV or .xlsx") from error
    table = table.apply(lambda column: _unguarded(column.str.strip()))
    filled = (table != "").any(axis=1).to_numpy().nonzero()[0]
    table = table.iloc[:filled[-1] + 1 if len(filled) else 0]
    if separator != ",":
        for name in table.columns.difference(list(NAMES)):
            table[name] = _with_points(path, table[name], separator)
    if missing := [name for name in needed if name not in table]:
        raise InputError(f"{path}: no column {', '.join(missing)}; it has {some(names, 20)}")
    return table


def without_na(column: pd.Series) -> pd.Series:
    """A column of texts, empty where it says NA, NaN or the like: as a name, NA would be one patient, or one group."""
    return column.mask(column.str.strip().str.lower().isin(BLANK), "")


def _encodings(start: bytes) -> tuple[str, ...]:
    """What a text file that begins so may be in; none where it is .xls or another of Office's old files."""
    if start == b"\xd0\xcf\x11\xe0":
        return ()
    return ("utf-16",) if start[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")


def _read_sheet(path: str | Path, usecols: Callable[[str], bool] | None) -> tuple[pd.DataFrame, list[str]]:
    """The first sheet of a workbook, and the names of all its columns. InputError at Excel's errors."""
    _check_sheet(path)
    table = pd.read_excel(path, header=None, dtype=str, keep_default_na=False)
    names = _names(path, table.iloc[0] if len(table) else [])
    table = table.set_axis(names, axis=1).iloc[1:, [k for k, name in enumerate(names) if not usecols or usecols(name)]]
    table.index += 1
    for row, column in zip(*table.isna().to_numpy().nonzero(), strict=True):  # NaN is how pandas reads them
        raise InputError(f"{path}: row {table.index[row]}, column {table.columns[column]}: holds an Excel error such "
                         "as #N/A; correct or empty it")
    return table, names


def _check_sheet(path: str | Path) -> None:
    """Refuse a workbook that unpacks to more than MOST_CELLS; pandas fills every row to the width of the widest."""
    import openpyxl

    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        if (size := sum(info.file_size for info in archive.infolist())) > MOST_SHEET:
            raise InputError(f"{path}: unpacks to {size >> 20} MiB; save it as CSV")
        widths = [len(row) for row in openpyxl.load_workbook(file, read_only=True).worksheets[0].iter_rows()]
    if len(widths) * max(widths, default=0) > MOST_CELLS:
        raise InputError(f"{path}: its sheet has {counted(len(widths), 'row')} of up to {max(widths)} cells; save it "
                         "as CSV")


def _names(path: str | Path, header: Iterable[Any]) -> list[str]:
    """The columns' names as this project writes them, where they are of COLUMNS in another case or with blanks."""
    found = [re.sub(r"\s+", " ", re.sub(r"^'(?=[-=+@\t\r'])", "", str(name).strip())).strip() for name in header]
    names = [_SPELLINGS.get(re.sub(r"[\s_]", "", name).lower(), name) for name in found]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"{path}: two columns read as {twice[0]}; keep one")
    if second := [name for name in names if re.sub(r"\.\d+$", "", name) in COLUMNS and name not in COLUMNS]:
        raise InputError(f"{path}: {second[0]} is what pandas calls a second column of that name; keep one")
    return [name or f"Unnamed: {k}" for k, name in enumerate(names)]


def _read_text(path: str | Path, encoding: str, usecols: Callable[[str], bool] | None, whole: bool
               ) -> tuple[str, pd.DataFrame, list[str]]:
    """A text file's separator, its table, and the names of all its columns. InputError at a line longer than the
    header, at a last line that breaks off and at quotation marks that do."""
    n_read, last, fields, found = 0, "", [], {}

    def each_line(file):
        nonlocal n_read, last
        for last in file:
            n_read += 1
            yield last

    with open_file(path, "r", encoding=encoding, newline="") as file:
        lines = itertools.dropwhile(lambda line: not line.strip(), each_line(file))
        first = next(lines, "")
        declared = re.fullmatch(r'"?sep=(.)"?[,;\s]*', first)
        separator = declared[1] if declared else _separator(path, first)
        rows = csv.reader(lines if declared else itertools.chain([first], lines), delimiter=separator,
                          skipinitialspace=True, strict=True)
        begin = n_read + bool(declared)
        try:
            if not any(header := next(rows, [])):
                raise ValueError("it has no header")
            names = _names(path, header)
            used = [k for k, name in enumerate(names) if not usecols or usecols(name)]
            begin = n_read + 1
            for fields in rows:
                if len(fields) > len(names) and any(fields):
                    raise InputError(f"{path}, line {begin}: has more fields than the header; correct the file")
                if len(fields) > 1 or "".join(fields).strip():
                    padded = fields + [""] * (len(names) - len(fields))
                    found[begin] = [padded[k] for k in used]
                begin = n_read + 1
        except csv.Error as error:
            raise InputError(f"{path}, line {begin}: cannot be read ({error}); correct its quotation marks") from None
    if last.strip() and last[-1] not in "\r\n" and (whole or fields and len(fields) < len(names)):
        raise InputError(f"{path}: its last line breaks off, {last[-30:]!r}: copy or make the file again; if it is "
                         "whole, end it with a line feed")
    return separator, pd.DataFrame(list(found.values()), list(found), [names[k] for k in used], dtype=str), names


def _with_points(path: str | Path, column: pd.Series, separator: str) -> pd.Series:
    """A column of numbers with its decimal commas as points; InputError where they may be thousands."""
    known = column[without_na(column) != ""]
    if not known.str.contains(",").any() or not known.str.fullmatch(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?").all():
        return column
    commas = column[column.str.contains(",")]
    if separator != ";" and commas.str.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}").all():  # of a semicolon: Excel, decimals
        raise InputError(f"{path}: column {column.name}: {commas.iloc[0]} may be a thousand or a decimal comma; write "
                         "decimal points")
    return column.str.replace(",", ".")


def _separator(path: str | Path, header: str) -> str:
    """What separates the fields of the header line; refused where two answers are as good (InputError)."""
    fields = {sep: len(next(csv.reader([header], delimiter=sep, skipinitialspace=True), []))
              for sep in (",", ";", "\t")}
    most = [sep for sep, count in fields.items() if count == max(fields.values())]
    if len(most) > 1 and max(fields.values()) > 1:
        raise InputError(f"{path}: its header reads as {counted(fields[most[0]], 'column')} with "
                         f"{' and with '.join(map(repr, most))} between them; separate the columns in one way")
    return most[0]


def guarded(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each name and text (not number) that starts as in FORMULA or with an
    apostrophe, so that no spreadsheet takes it for a formula; `read_csv` removes it again."""
    def guard(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value.startswith((*FORMULA, "'")) and value.strip() \
            and not re.fullmatch(_NUMBER, value) else value

    texts = {name: pd.Series(list(map(guard, column)), column.index, column.dtype)  # of whole numbers and None, too
             for name, column in table.items() if column.dtype in ("object", "string", "str")}
    return table.assign(**{str(name): column for name, column in texts.items()}).rename(columns=guard)


def _unguarded(column: pd.Series) -> pd.Series:
    return column.str.replace(r"^'(?=[-=+@\t\r'])", "", regex=True)


def write_csv(table: pd.DataFrame, path: str | Path, private: bool = False) -> None:
    """Write a pandas DataFrame, `guarded`, without its index; floats in their shortest exact form, lines end in "\\n".

    `private`: as of `replace_file`.
    """
    with replace_file(path, private=private) as file:
        to_csv(table, file)


def to_csv(table: pd.DataFrame, file: IO[str]) -> None:
    """`write_csv` into an open file."""
    table = guarded(table)
    returns = any("\r" in value for _, column in table.select_dtypes(["object", "string"]).items() for value in column
                  if isinstance(value, str))
    table.to_csv(file, index=False, lineterminator="\n",  # without quotes, a carriage return would end the line
                 quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)


def write_json(data: Any, path: str | Path) -> None:
    """Write JSON that every parser reads: indented, and NaN or infinity refused (ValueError)."""
    with replace_file(path) as file:
        json.dump(data, file, indent=2, allow_nan=False)
        file.write("\n")


def read_json_object(path: str | Path, option: str, example: str) -> dict[str, Any]:
    """The JSON object in the file of an option. Raises InputError, also for a name that is there twice."""
    try:
        with open_file(path) as file:
            found = parse_json(file.read())
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {path}: cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{option} {path}: must be an object, such as {example}")
    return found


def parse_json(content: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also for a name that is there twice, a number that is not finite and
    nesting that is too deep.
    """
    def each_once(pairs):
        names = collections.Counter(name for name, _ in pairs)
        if len(names) < len(pairs):
            raise ValueError(f"{names.most_common(1)[0][0]!r} is there twice")
        return dict(pairs)

    def finite(text):
        if not math.isfinite(float(text)):
            raise ValueError(f"{text} is no finite number")
        return float(text)

    try:
        return json.loads(content, object_pairs_hook=each_once, parse_constant=finite, parse_float=finite)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def progress(items: Iterable[Any] | None, description: str, unit: str, total: int | None = None) -> tqdm:
    """A tqdm bar over `items`, for use in a `with`: shown after a second, and removed at the end."""
    silent = SILENT or os.environ.get("RANK", "0") != "0"  # only torchrun's first process shows it
    return tqdm(items, desc=description, unit=unit, total=total, delay=1, leave=False, disable=silent)
