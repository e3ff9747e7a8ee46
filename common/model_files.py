"""Trained models in a folder, or in the zip that export_models.py makes of it, which has the same file names.

The path of a file in a zip goes through the zip: models.zip/best_run.csv. It is read without unpacking, so that a zip
can write nowhere, and refused where it is larger than such a file can be. An exported model is a .safetensors file: its
header holds as text what its checkpoint holds beside tensors. Imports no torch.
"""
import zipfile
import zlib
from pathlib import Path
from typing import Any

from common.checkpoint_content import check_content
from common.files import InputError, open_file, parse_json, read_json_object, sha256
from common.run_files import run_file, run_of
from common.text import counted, short

SUFFIX = ".safetensors"
HEADER = "deauville"  # the name of that text in the header
MOST_BYTES = {SUFFIX: 2**30}  # of a file in a zip: ten times a ResNet34 in float32
MOST_TEXT = 2**26  # bytes of any other file in a zip, or of a header
DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError)


def is_export(path: str | Path) -> bool:
    """Whether a path is a zip of models."""
    return Path(path).suffix.lower() == ".zip" and Path(path).is_file()


def names_in(archive: str | Path) -> list[str]:
    """The names of a zip's files, sorted; or InputError."""
    try:
        with zipfile.ZipFile(archive) as file:
            return sorted(set(file.namelist()))
    except DAMAGED as error:
        raise InputError(f"{archive}: not a zip of export_models.py: {short(error)}") from None


def exists(path: str | Path) -> bool:
    """Whether there is such a file, in a folder or in a zip."""
    path = Path(path)
    return path.name in names_in(path.parent) if is_export(path.parent) else path.is_file()


def read_file(path: str | Path, count: int | None = None) -> bytes:
    """The first `count` bytes of a file in a folder or in a zip; None: all of them.

    Raises
    ------
    FileNotFoundError
        There is none.
    InputError
        It is larger than a file of a model can be, or the zip is damaged.
    """
    path = Path(path)
    most = MOST_BYTES.get(path.suffix, MOST_TEXT)
    if not is_export(path.parent):
        with open_file(path) as file:
            return file.read(-1 if count is None else count)
    if not exists(path):
        raise FileNotFoundError(path)
    try:
        with zipfile.ZipFile(path.parent) as archive:
            if (size := archive.getinfo(path.name).file_size) > most:
                raise InputError(f"{path}: {size} bytes, more than the {most} that such a file may have; not of "
                                 "export_models.py")
            with archive.open(path.name) as file:  # never reads more than this size
                return file.read(-1 if count is None else count)
    except DAMAGED as error:
        raise InputError(f"{path}: cannot be read: {short(error)}; export it again") from None


def inside(path: str | Path, name: str) -> Path:
    """The path of the file `name` in a zip of models; a path that is no zip stays as it is."""
    return Path(path) / name if is_export(path) else Path(path)


def checkpoint_file(folder: str | Path, split: int, run: int) -> Path:
    """The path of a model's weights, there or not: checkpoint_splitS_runR.pth, or .safetensors where exported."""
    path = run_file(folder, "checkpoint", split, run)
    exported = path.with_suffix(SUFFIX)
    return exported if is_export(folder) or exported.is_file() and not path.is_file() else path


def checkpoints_in(folder: str | Path) -> list[tuple[int, int, Path]]:
    """[(split, run, path), ...] of the models in a folder or in a zip, in ascending order."""
    names = names_in(folder) if is_export(folder) else [path.name for path in Path(folder).glob("checkpoint_*")]
    pairs = {found for name in names if name.endswith((SUFFIX, ".pth"))
             and (found := run_of(Path(name).with_suffix(".pth"), "checkpoint"))}
    return [(*pair, checkpoint_file(folder, *pair)) for pair in sorted(pairs)]


def only_checkpoint(path: str | Path) -> Path:
    """The only model in a zip (InputError where it holds several, or none); a path that is no zip stays as it is."""
    if not is_export(path):
        return Path(path)
    found = [file for *_, file in checkpoints_in(path)]
    if len(found) != 1:
        example = f"; give one, such as {found[0]}" if found else ""
        raise InputError(f"{path}: holds {counted(len(found), 'model')}{example}")
    return found[0]


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of an exported model: its checkpoint's content without the weights, and `export` (version, commit,
    precision of the weights, checkpoint_sha256). {} of another .safetensors file. Raises InputError.
    """
    try:
        size = int.from_bytes(read_file(path, 8), "little")
        if not 0 < size <= MOST_TEXT:
            raise InputError(f"{path}: not a .safetensors file")
        header = parse_json(read_file(path, 8 + size)[8:])
        content = dict(parse_json(header.get("__metadata__", {}).get(HEADER, "{}")))
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its header cannot be read: {short(error)}; export it again") from None
    check_content(content, path)
    return content


def check_records(path: str | Path) -> None:
    """Check the CRC-32 of every record in a checkpoint. Raises ValueError or one of DAMAGED. Files of torch before 1.6
    are no zips and have none.
    """
    with open_file(path) as file:
        if file.read(4) != b"PK\x03\x04":
            return
        with zipfile.ZipFile(file) as archive:
            if any(info.compress_type or info.file_size != info.compress_size for info in archive.infolist()):
                raise ValueError("its records are packed, as torch.save never does")
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} is not what its CRC-32 says: damaged; copy it again")


def read_settings(folder: str | Path, split: int, run: int) -> dict[str, Any] | None:
    """settings_splitS_runR.json of a folder, or the header of an exported model; None where there is neither. Raises
    InputError."""
    path, exported = run_file(folder, "settings", split, run), checkpoint_file(folder, split, run)
    if path.is_file():
        settings = read_json_object(path, "settings", '{"args": {"lr": 0.01}}')
        check_content(settings, path)
        return settings
    return read_header(exported) or None if exported.suffix == SUFFIX and exists(exported) else None


def checkpoint_sha256(path: str | Path) -> str:
    """SHA-256 of a checkpoint; for an exported model, of the checkpoint that it was made from. Raises OSError."""
    if Path(path).suffix == SUFFIX and (made_of := read_header(path).get("export", {}).get("checkpoint_sha256")):
        return str(made_of)
    return sha256(path)
