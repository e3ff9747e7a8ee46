"""Errors that bad input raises, files written whole or not at all, progress bars. Imports no torch."""
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:  # --help answers without pandas
    import pandas as pd


class InputError(Exception):
    """Bad input. Scripts show it as one line, `error: ...`, and exit with 2.

    The text names the file, row or attribute, its value, and what to do about it.
    """


@contextlib.contextmanager
def replace_file(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success flush it to disk and rename it to `path`, on failure remove it.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder is made where it is missing.
    mode : {"w", "wb"}
        UTF-8 text with newlines as given, or bytes.

    Yields
    ------
    file
        The open temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_csv(path: str | Path, needed: Iterable[str] = (),
             usecols: Callable[[str], bool] | None = None) -> "pd.DataFrame":
    """A CSV as a DataFrame of text, empty fields as "".

    Parameters
    ----------
    needed : iterable of str
        Columns that must be there.
    usecols : callable, optional
        Whether to read the column of this name.

    Raises
    ------
    InputError
        Unreadable, a line longer than the header, a column of `needed` missing.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", usecols=usecols)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas took surplus fields for an index
        raise InputError(f"{path}, line 2: has more fields than the header; correct the file")
    missing = [name for name in needed if name not in table]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table.columns[:9])}")
    return table


def write_csv(table: "pd.DataFrame", path: str | Path) -> None:
    """Write a pandas DataFrame without its index; floats in their shortest exact form, lines ended by a line feed."""
    with replace_file(path) as file:
        table.to_csv(file, index=False, lineterminator="\n")


def write_json(data: Any, path: str | Path) -> None:
    """Write JSON that every parser reads: indented, and NaN or infinity refused (ValueError)."""
    with replace_file(path) as file:
        json.dump(data, file, indent=2, allow_nan=False)
        file.write("\n")


def read_json_object(path: str | Path, option: str, example: str) -> dict[str, Any]:
    """The object in a JSON file that an option names -> dict. Raises InputError; also where a name is there twice."""
    def each_once(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
        return dict(pairs)

    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file, object_pairs_hook=each_once)
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {path}: cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{option} {path}: must be an object, such as {example}")
    return found


def progress(items: Iterable[Any] | None, description: str, unit: str, total: int | None = None) -> tqdm:
    """A tqdm bar over `items`, for use in a `with`: shown from the second second on, taken away at the end."""
    silent = os.environ.get("RANK", "0") != "0"  # of torchrun's processes one shows it
    return tqdm(items, desc=description, unit=unit, total=total, delay=1, leave=False, disable=silent)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
