"""The files of a folder tree and of the archives in it (.zip, .tar, .tar.gz, .tgz, .dcm.gz), and their checksums.

A member of an archive has the path archive.zip/member; archives are read where they lie.
"""
import contextlib
import gzip
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar, cast

from common.files import InputError, progress
from preprocessing.dicom_reader import is_dicomdir, read_header
from preprocessing.dicom_values import Header, Refused

TARS, UNREAD = (".tar", ".tar.gz", ".tgz"), (".7z", ".rar", ".tar.bz2", ".tar.xz", ".tar.zst", ".iso")
MAX_RATIO, MAX_MEMBER = 100, 1 << 31  # unpacked to packed size of an archive; bytes of one member. PET packs 2 to 5
T = TypeVar("T")


def list_files(*sources: str | os.PathLike[str]) -> tuple[Path, list[str]]:
    """What to search.

    Parameters
    ----------
    *sources : str or path
        Folders, DICOMDIRs (their folder is taken), archives or single files.

    Returns
    -------
    folder : Path
        What names in messages are relative to: the source, or what several have in common.
    paths : list of str
        The files, sorted. Hidden ones are left out.

    Raises
    ------
    InputError
        Nothing there.
    """
    if len(sources) == 1:
        return _list_files(Path(sources[0]))
    found = [_list_files(Path(os.path.abspath(source))) for source in sources]
    return Path(os.path.commonpath([folder for folder, _ in found])), sorted({p for _, paths in found for p in paths})


def _list_files(source: Path) -> tuple[Path, list[str]]:
    if source.is_file() and not is_dicomdir(source):
        return source.parent, [str(source)]
    folder = source.parent if source.is_file() else source
    if not folder.is_dir():
        raise InputError(f"--input {source}: no such folder; give the folder that holds the DICOM files, a .zip or a "
                         "DICOMDIR")
    paths: list[str] = []
    seen: set[str] = set()
    closed: list[OSError] = []
    with progress(None, "searching folders", "file") as bar:
        for where, folders, names in os.walk(folder, followlinks=True, onerror=closed.append):
            if (real := os.path.realpath(where)) in seen:  # a link to a folder that was searched, or back up: a loop
                folders.clear()
                continue
            seen.add(real)
            found = [os.path.join(where, name) for name in names if name[0] != "."]
            # what cannot be entered or leads nowhere stays in the list: whoever reads it names it
            paths += [path for path in found if os.path.isfile(path) or os.path.islink(path)]
            bar.update(len(found))
    return folder, sorted(paths + [error.filename for error in closed])


def read_checksums(path: str, folder: Path, files: Sequence[str]) -> dict[str, str]:
    """Read a file as `sha256sum` writes it.

    Parameters
    ----------
    path : str
        The file.
    folder : Path
        What its names are relative to.
    files : sequence of str
        The paths that will be searched.

    Returns
    -------
    dict of str to str
        Path of each named file -> its SHA-256 in lower-case hexadecimal.

    Raises
    ------
    InputError
        Unreadable, a line of another form, or no name is one of `files`.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise InputError(f"--checksums {path}: {error.strerror}; give a readable file") from error
    sums = {}
    for line, content in enumerate(lines, start=1):
        match = re.fullmatch(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)", content)
        if match is None and content.strip():
            raise InputError(f"--checksums {path}: line {line}: {content[:80]!r} is not <SHA-256> <two spaces> <name>, "
                             "as sha256sum writes it")
        if match:
            escaped, digest, name = match.groups()
            if escaped:  # GNU coreutils: the name has a backslash or a line end
                name = re.sub(r"\\([\\nr])", lambda found: {"\\": "\\", "n": "\n", "r": "\r"}[found[1]], name)
            sums[os.path.abspath(os.path.join(folder, name))] = digest.lower()
    sums.pop(os.path.abspath(path), None)  # `sha256sum * > FILE` sums up the unfinished FILE too
    if not sums.keys() & {os.path.abspath(name) for name in files}:
        raise InputError(f"--checksums {path}: names no file under {folder}; write it with: cd {folder} && "
                         "find . -type f -exec sha256sum {} +")
    return sums


@contextlib.contextmanager
def archive_errors(path: str) -> Iterator[None]:
    """Whatever a damaged archive makes zipfile raise comes out as Refused."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
            OSError) as error:  # of a full disk see `unexpected`
        said = getattr(error, "strerror", None) or re.sub(r"(['\"]).*\1", "a member", " ".join(str(error).split()))
        raise Refused("archive", Path(path).name, f"cannot be read: {said[:200]}",
                      "copy it again from its source, or unpack it and give the folder") from error


class _Unpacked(contextlib.AbstractContextManager["_Unpacked"]):
    """A .tar, .tar.gz, .tgz or .gz file as a zipfile.ZipFile; gzip is unpacked to a temporary file.

    Raises ValueError where it would unpack to more than MAX_RATIO times its size.
    """

    def __init__(self, path: str):
        self.file: IO[bytes] = open(path, "rb")
        if path.lower().endswith(("gz", "tgz")):
            packed, self.file = self.file, tempfile.TemporaryFile()
            most = MAX_RATIO * max(1, os.path.getsize(path))
            with packed, gzip.open(packed) as content:
                while block := content.read(1 << 20):
                    if self.file.write(block) and self.file.tell() > most:
                        raise ValueError(f"would unpack to more than {MAX_RATIO} times its size")
            self.file.seek(0)
        self.tar = tarfile.open(fileobj=self.file) if path.lower().endswith(TARS) else None
        self.name = Path(path).stem

    def infolist(self) -> list[zipfile.ZipInfo]:
        members = [(m.name, m.size) for m in self.tar if m.isfile()] if self.tar else [(self.name, 0)]
        found = [zipfile.ZipInfo(name) for name, _ in members]
        for info, (_, size) in zip(found, members, strict=True):
            info.file_size = size
        return found

    def open(self, member: str | zipfile.ZipInfo) -> IO[bytes]:
        name = member if isinstance(member, str) else member.filename
        if self.tar is None:
            self.file.seek(0)
            return contextlib.nullcontext(self.file)  # type: ignore[return-value]  # stays open for another look
        return cast(IO[bytes], self.tar.extractfile(name))

    def __exit__(self, *error: object) -> None:
        self.file.close()


def open_archive(path: str) -> zipfile.ZipFile | _Unpacked:
    """An archive, to be used in a `with`, within `archive_errors`. Raises Refused for a kind that is not read."""
    if path.lower().endswith(UNREAD):
        raise Refused("archive", Path(path).name, "is of a kind that is not searched", "unpack it and give the folder")
    return zipfile.ZipFile(path) if path.lower().endswith(".zip") else _Unpacked(path)


def archive_members(archive: zipfile.ZipFile | _Unpacked, path: str) -> list[zipfile.ZipInfo]:
    """The files of an archive. Raises Refused where a name is unsafe, or unpacking would be."""
    def refuse(reason: str, remedy: str = "unpack it and give the folder", member: str = "") -> None:
        raise Refused("archive", Path(path).name + f": {member[:80]!r}" * bool(member), reason, remedy)

    members = [info for info in archive.infolist() if not info.is_dir()]
    if_right = "if that is right, unpack it and give the folder"
    for info in members:
        if re.match(r"[/\\]|[A-Za-z]:", info.filename) or ".." in re.split(r"[/\\]", info.filename):
            refuse("holds an unsafe name", "do not unpack it; ask its source for another", info.filename)
        if info.flag_bits & 1:
            refuse("is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile inflates others unbounded
            refuse("is packed by another method than deflate")
        if info.file_size > MAX_MEMBER:
            refuse(f"has a member that would unpack to {info.file_size >> 20} MiB", if_right, info.filename)
    unpacked, packed = sum(info.file_size for info in members), max(1, os.path.getsize(path))
    if unpacked > MAX_RATIO * packed:
        refuse(f"would unpack to {unpacked / packed:.0f} times its size", if_right)
    if len({info.filename for info in members}) < len(members):
        refuse("holds one name twice")
    return members


def split_member(path: str) -> tuple[str, str | None]:
    """(archive, member) of the path of an archive's member, (path, None) of that of a file."""
    for parent in Path(path).parents if not os.path.exists(path) else ():
        if parent.is_file():
            return str(parent), path[len(str(parent)) + 1:]
    return path, None


def _for_each(paths: Sequence[str], read: Callable[[str, IO[bytes] | None], T]) -> list[T]:
    """[read(path, None or the open binary file of an archive's member), ...]; each archive is opened once, one at a
    time."""
    members: dict[str, list[str]] = {}
    done: dict[str, T] = {}
    for path in paths:
        members.setdefault(split_member(path)[0], []).append(path)
    for source, inside in members.items():
        if inside == [source]:
            done[source] = read(source, None)
            continue
        with archive_errors(source), open_archive(source) as archive:
            archive_members(archive, source)  # it may be another file than `find_studies` saw
            for path in inside:
                with archive.open(path[len(source) + 1:]) as file:
                    done[path] = read(path, file)
    return [done[path] for path in paths]


def read_headers(paths: Sequence[str]) -> list[Header]:
    """`dicom_reader.read_header` of each path, archives' members included. Raises Refused."""
    return _for_each(paths, lambda path, file: read_header(path, file=file))


@contextlib.contextmanager
def local_files(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    """The same files, members of archives as copies in a temporary folder that goes when the `with` ends.

    Raises
    ------
    Refused
        A member cannot be read, or is not what its CRC-32 says.
    """
    if all(map(os.path.exists, paths)):
        yield paths
        return
    with tempfile.TemporaryDirectory(prefix="prepro-") as folder:
        def copy(path: str, file: IO[bytes] | None) -> str:
            if file is None:
                return path
            name = re.split(r"[/\\]", path)[-1][-100:]
            with tempfile.NamedTemporaryFile(suffix=f"-{name}", dir=folder, delete=False) as target:
                shutil.copyfileobj(file, target, 1 << 20)
            return target.name

        yield _for_each(paths, copy)


def is_archive(path: str) -> bool:
    """Whether a file's name is that of an archive that is searched."""
    name = path.lower()
    return name.endswith((".zip", *TARS, *UNREAD)) or name.endswith(".gz") and not name.endswith(".nii.gz")
