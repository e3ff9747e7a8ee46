"""A folder tree, .zip archives in it and DICOM media -> its PET series by study, and the one series of a study to use.

studies, refused = discovery.find_studies(folder, discovery.list_files("dicom")[1])
files, warnings = discovery.choose_series(studies[uid])

A member of an archive has the path archive.zip/member; archives are read where they lie. Imports no torch.
"""
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

from common.files import InputError, progress
from preprocessing.dicom_reader import (
    SERIES_UID,
    NotDicom,
    Refused,
    frames,
    is_dicomdir,
    is_pet,
    numbers,
    read_header,
    series_of,
    text,
)

MAX_RATIO, MAX_MEMBER = 100, 1 << 31  # unpacked to packed size of an archive; bytes of one member. PET packs 2 to 5
SAME_EXTENT = 10  # mm: reconstructions of one scan differ by about a slice in extent
LISTED = {"study": "StudyInstanceUID", "uid": "SeriesInstanceUID", "number": "SeriesNumber", "description":
          "SeriesDescription", "slices": "slices", "extent": "extent_mm", "units": "Units", "corrected":
          "attenuation_corrected", "taken": "taken", "why": "why"}


# Files

def list_files(source):
    """What to search.

    Args:
        source (str | Path): a folder, a DICOMDIR (its folder is taken), an archive or a single file.

    Returns:
        (folder that names in messages are relative to, sorted paths of the files). Hidden files are left out.

    Raises:
        InputError: nothing there.
    """
    source = Path(source)
    if source.is_file() and not is_dicomdir(source):
        return source.parent, [str(source)]
    folder = source.parent if source.is_file() else source
    if not folder.is_dir():
        raise InputError(f"--input {source}: no such folder; give the folder that holds the DICOM files, a .zip or a "
                         "DICOMDIR")
    paths = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names if name[0] != "."]
    return folder, sorted(filter(os.path.isfile, paths))


def read_checksums(path, folder, files):
    """Read a file as `sha256sum` writes it, names relative to `folder`.

    Returns:
        dict: path of each named file below `folder` -> its SHA-256 in lower-case hexadecimal.

    Raises:
        InputError: unreadable, a line of another form, or no name is one of `files`.
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
def _archive_errors(path):
    """Whatever a damaged archive makes zipfile raise comes out as Refused."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise Refused("archive", Path(path).name, f"cannot be read: {' '.join(str(error).split())[:200]}",
                      "copy it again from its source, or unpack it and give the folder") from error


def _members(archive, path):
    """The files of an archive. Raises Refused where a name is unsafe, or unpacking would be."""
    members = [info for info in archive.infolist() if not info.is_dir()]
    for info in members:
        if re.match(r"[/\\]|[A-Za-z]:", info.filename) or ".." in re.split(r"[/\\]", info.filename):
            raise Refused("archive", Path(path).name, f"holds the unsafe name {info.filename[:80]!r}",
                          "do not unpack it; ask its source for another")
        if info.flag_bits & 1:
            raise Refused("archive", Path(path).name, "is encrypted", "unpack it and give the folder")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile inflates others unbounded
            raise Refused("archive", Path(path).name, "is packed by another method than deflate",
                          "unpack it and give the folder")
        if info.file_size > MAX_MEMBER:
            raise Refused("archive", Path(path).name, f"{info.filename[:80]!r} would unpack to "
                          f"{info.file_size >> 20} MiB", "if that is right, unpack it and give the folder")
    unpacked, packed = sum(info.file_size for info in members), max(1, os.path.getsize(path))
    if unpacked > MAX_RATIO * packed:
        raise Refused("archive", Path(path).name, f"would unpack to {unpacked / packed:.0f} times its size",
                      "if that is right, unpack it and give the folder")
    if len({info.filename for info in members}) < len(members):
        raise Refused("archive", Path(path).name, "holds one name twice", "unpack it and give the folder")
    return members


def split_member(path):
    """(archive, member) of the path of an archive's member, (path, None) of that of a file."""
    for parent in Path(path).parents if not os.path.exists(path) else ():
        if parent.is_file():
            return str(parent), path[len(str(parent)) + 1:]
    return path, None


def _for_each(paths, read):
    """[read(path, None or the open binary file of an archive's member), ...]; every archive is opened once."""
    done = []
    with contextlib.ExitStack() as stack:
        archives = {}
        for path in paths:
            source, member = split_member(path)
            if member is None:
                done.append(read(path, None))
                continue
            with _archive_errors(source):
                if source not in archives:
                    archives[source] = stack.enter_context(zipfile.ZipFile(source))
                    _members(archives[source], source)  # it may be another file than `find_studies` saw
                with archives[source].open(member) as file:
                    done.append(read(path, file))
    return done


def read_headers(paths):
    """`dicom_file.read_header` of each path. Raises Refused."""
    return _for_each(paths, lambda path, file: read_header(path, file=file))


@contextlib.contextmanager
def local_files(paths):
    """The same files, members of archives as copies in a temporary folder that goes when the `with` ends.

    Raises:
        Refused: a member cannot be read, or is not what its CRC-32 says.
    """
    if all(map(os.path.exists, paths)):
        yield paths
        return
    with tempfile.TemporaryDirectory(prefix="prepro-") as folder:
        def copy(path, file):
            if file is None:
                return path
            handle, name = tempfile.mkstemp("-" + re.split(r"[/\\]", path)[-1][-100:], "", folder)
            with os.fdopen(handle, "wb") as target:
                shutil.copyfileobj(file, target, 1 << 20)
            return name

        yield _for_each(paths, copy)


# Series

def find_studies(folder, paths, sums=None, run=lambda function, items, chunk: map(function, items)):
    """Search files for PET series.

    Args:
        folder, paths: as `list_files` gives them. sums: as `read_checksums` gives them: every PET file must be there.
        run: run(function, items, chunk) -> results in order; a pool of processes, say.

    Returns:
        studies: StudyInstanceUID -> {"folder": text, "series": {SeriesInstanceUID: [paths]}, "refused": Refused or
        None}; list of (path relative to `folder`, Refused): damaged files in folders without any PET image (alike ones
        of a folder together), archives.
    """
    items = [(path, None if sums is None else sums.get(os.path.abspath(path), "")) for path in paths]
    archives = [item for item in items if _is_archive(item[0])]
    files = [item for item in items if not _is_archive(item[0])]
    found = []
    for these, chunk in ((files, 256), (archives, 1)):
        with progress(run(peek, these, chunk), "finding PET series", "file", len(these)) as bar:
            found += [one for several in bar for one in several]
    for path in sums or ():
        if not os.path.isfile(path):
            found.append((path, "none", "", "", _not_as_listed(path, "is missing")))
    return group_series(found, folder)


def _is_archive(path):
    return path.lower().endswith(".zip")


def _not_as_listed(path, reason):
    return Refused("file", os.path.basename(path), f"{reason}: --checksums", "copy it again from its source")


def peek(item):
    """What one file holds.

    Args:
        item: (path, its SHA-256: "" where the list has none, None where there is no list).

    Returns:
        list of (path, kind, StudyInstanceUID, SeriesInstanceUID, Refused or None), one, or one for each member of an
        archive; kind: pet, other (a DICOM file), none, archive (Refused: why it was not searched).
    """
    path, expected = item
    try:
        fault = None
        if expected and _sha256(path) != expected:
            fault = _not_as_listed(path, "has another SHA-256 than is listed")
        if not _is_archive(path):
            found = [_peek_file(path)]
        elif fault:
            found = [(path, "archive", "", "", fault)]
        else:
            found = _peek_archive(path)
    except (Refused, OSError) as error:
        fault = error if isinstance(error, Refused) else unexpected(error, os.path.basename(path))
        return [(path, "archive" if _is_archive(path) else "none", "", "", fault)]
    if expected == "" and any(kind == "pet" for _, kind, *_ in found):
        fault = _not_as_listed(path, "is not listed")
    return [(*one[:4], fault or one[4]) for one in found]


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _peek_archive(path):
    found = []
    with _archive_errors(path), zipfile.ZipFile(path) as archive:
        for info in _members(archive, path):
            name, inner = os.path.basename(info.filename), f"{path}/{info.filename}"
            if name[:1] == "." or info.filename.startswith("__MACOSX/"):
                continue
            if _is_archive(name):
                found.append((inner, "archive", "", "", Refused("archive", name, "lies in an archive and was not "
                                                                "searched", "unpack the outer one")))
                continue
            try:
                with _archive_errors(inner), archive.open(info) as file:
                    found.append(_peek_file(inner, file))
            except Refused as error:
                found.append((inner, "none", "", "", error))
    return found


def _peek_file(path, file=None):
    if is_dicomdir(path):
        return path, "none", "", "", None
    try:
        header = read_header(path, SERIES_UID, file)
        kind, (study, series) = "pet" if is_pet(header) else "other", series_of(header)
        wrong = [keyword for keyword, uid in (("StudyInstanceUID", study), ("SeriesInstanceUID", series))
                 if kind == "pet" and not re.fullmatch(r"[0-9.]{1,64}", uid)]
        fault = Refused(wrong[0], "", "is not a UID", "export the series again") if wrong else None
        return path, kind, study, series, fault
    except NotDicom as error:
        return path, "none", "", "", error if error.suspect else None
    except Refused as error:
        return path, "none", "", "", error
    except zipfile.BadZipFile:
        raise
    except Exception as error:  # a damaged file may break anything; it must not end the run
        return path, "none", "", "", unexpected(error, os.path.basename(path))


def unexpected(error, name=""):
    """The Refused for an exception that nothing foresaw."""
    return Refused("file", name, f"cannot be converted ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
                   "check that the series is complete and undamaged")


def group_series(found, folder):
    """Files by study and series: `find_studies` after its search. `found`: what `peek` returned, as one list."""
    studies, others, of_folder, of_series = {}, set(), {}, {}
    for path, kind, study, series, _ in found:
        if kind == "pet":
            studies.setdefault(study, {"series": {}, "refused": None})["series"].setdefault(series, []).append(path)
            of_folder.setdefault(os.path.dirname(path), set()).add(study)
            of_series.setdefault(series, set()).add(study)
        elif kind == "other":
            others.add(series)
    for study in studies.values():
        where = os.path.commonpath([os.path.dirname(path) for paths in study["series"].values() for path in paths])
        study["folder"] = os.path.relpath(where, folder)
        if others & set(study["series"]):
            study["refused"] = Refused("Modality", "", "some files of the PET series are no PET images",
                                       "remove them, or copy the series again from its source")
        if any(len(of_series[series]) > 1 for series in study["series"]):
            study["refused"] = Refused("StudyInstanceUID", "", "files of one series name several studies",
                                       "copy the series again from its source")
    faults, alone = {}, {}
    for path, kind, _, _, fault in found:
        beside = of_folder.get(os.path.dirname(path), ()) if kind != "archive" else ()
        for study in beside if fault else ():  # it may have been a slice of any PET series beside it
            faults.setdefault(study, []).append(fault)
        if fault and not beside:
            alike = path if kind == "archive" else os.path.dirname(path), fault.attribute, fault.reason, fault.remedy
            alone.setdefault(alike, []).append((path, fault))
    for study, several in faults.items():
        studies[study]["refused"] = _first_of(several)
    errors = [(where[0] if len(several) > 1 else several[0][0], _first_of([fault for _, fault in several]))
              for where, several in alone.items()]  # a folder of damaged files is one refusal
    return studies, [(os.path.relpath(path, folder), fault) for path, fault in errors]


def _first_of(faults):
    """One Refused for several: the first, and how many more."""
    first, more = faults[0], len(faults) - 1
    return Refused(first.attribute, first.value + f" and {more} more" * bool(more), first.reason, first.remedy)


# One series of a study

def want_series(studies, uids):
    """Note in `studies` which series the user wants, for `rank_series`. Raises InputError: not there, or two of one."""
    for uid in dict.fromkeys(uids):
        holding = [study for study in studies.values() if uid in study["series"]]
        if not holding:
            raise InputError(f"--series {uid}: no such PET series; --list shows those that are there")
        for study in holding:
            if "wanted" in study:
                raise InputError(f"--series {uid}: of the same study as {study['wanted']}; give one series a study")
            study["wanted"] = uid


def describe_series(uid, paths):
    """What ranks and lists a series: the keys of LISTED but for study, taken and why; places, frame_of_reference."""
    headers = [frame for header in read_headers(paths) for frame in frames(header)]
    first = headers[0]
    places = [numbers(header, "ImagePositionPatient", 3) for header in headers]
    known = [tuple(place) for place in places if place]
    series_number = text(first, "SeriesNumber")
    return {"uid": uid, "number": int(series_number) if series_number.isdecimal() else None,
            "description": text(first, "SeriesDescription"), "places": set(known), "frame_of_reference": text(
                first, "FrameOfReferenceUID"), "slices": len(set(known)) if known else len(headers),
            "extent": _extent(first, known), "units": " ".join(filter(None, (text(first, "Units"), text(
                first, "SUVType")))), "corrected": "ATTN" in text(first, "CorrectedImage").split("\\")}


def _extent(header, places):
    """Head to feet, mm, between the outermost voxel centres, however the slices lie; 0 where unknown."""
    turned, spacing = numbers(header, "ImageOrientationPatient", 6), numbers(header, "PixelSpacing", 2)
    if not places or not turned or not spacing:
        return 0
    rows, columns = (int.from_bytes(header.get(k, b""), "big" if header["order"] == ">" else "little")
                     for k in ("Rows", "Columns"))
    sides = (rows - 1) * spacing[0] * turned[5], (columns - 1) * spacing[1] * turned[2]
    heights = [z for _, _, z in places]
    return max(heights) - min(heights) + abs(sides[0]) + abs(sides[1])


def rank_series(study):
    """The PET series of a study, the one to use first.

    That of --series; else attenuation corrected before not, then the larger extent from head to feet (within 1 cm
    counts as the same), more slices, the lower SeriesNumber.

    Returns:
        list of `describe_series` dicts with `taken` (yes or no) and `why`. Raises Refused: a header cannot be read.
    """
    ranked = [describe_series(uid, paths) for uid, paths in study["series"].items()]
    longest = {kind: max((s["extent"] for s in ranked if s["corrected"] == kind), default=0) for kind in (True, False)}

    def order(series):
        missing = longest[series["corrected"]] - series["extent"]
        return (series["uid"] != study.get("wanted"), not series["corrected"],
                missing if missing > SAME_EXTENT else 0, -series["slices"])

    ranked.sort(key=lambda s: (*order(s), s["number"] is None, s["number"], s["uid"]))
    best, wanted = ranked[0], "wanted" in study
    words = ("not the one of --series", "not attenuation corrected", "shorter", "fewer slices")
    for series in ranked:
        differing = [word for word, mine, its in zip(words, order(series), order(best), strict=True) if mine != its]
        series["taken"], series["why"] = "no", differing[0] if differing else "equal; its SeriesNumber comes later"
    whole = "attenuation corrected, " * best["corrected"] + "longest, most slices"
    best["taken"] = "yes"
    best["why"] = "--series" if wanted else whole if len(ranked) > 1 else "the only PET series"
    return ranked


def choose_series(study):
    """The files of the one PET series of a study to use, and a warning where there was a choice. Raises Refused."""
    if len(study["series"]) == 1:
        return next(iter(study["series"].values())), []
    best, *others = rank_series(study)
    ties = [_name(series) for series in others if series["why"].startswith("equal")]
    torn = [s for s in others if s["places"] and s["places"].isdisjoint(best["places"]) and all(
        s[key] == best[key] for key in ("number", "description", "units", "corrected", "frame_of_reference"))]
    if torn and "wanted" not in study:
        raise Refused("SeriesInstanceUID", "", f"slices of series number {_name(best)} have {len(torn) + 1} of them",
                      "copy the series again from its source, or choose one with --series")
    warning = (f"{len(others) + 1} PET series: number {_name(best)} ({best['slices']} slices, {best['extent']:.0f} mm) "
               f"was used" + " by --series" * ("wanted" in study))
    return study["series"][best["uid"]], [warning + f" (equal: number {', '.join(ties)})" * bool(ties)]


def _name(series):
    return "?" if series["number"] is None else str(series["number"])


def list_series(item):
    """Rows of --list for one study.

    Args:
        item: (StudyInstanceUID, study as `find_studies` gives it).

    Returns:
        list of dicts with the keys of LISTED; list of (folder, Refused): none or one.
    """
    uid, study = item
    try:
        ranked = rank_series(study)
        for series in ranked:
            series["study"] = uid
            if study["refused"]:
                series["taken"], series["why"] = "no", "the study is refused"
        return ranked, [(study["folder"], study["refused"])] * bool(study["refused"])
    except Refused as error:
        return [], [(study["folder"], study["refused"] or error)]
    except Exception as error:  # as in peek
        return [], [(study["folder"], study["refused"] or unexpected(error))]


def format_table(rows):
    """Rows of `list_series` as aligned text under a header line."""
    shown = [list(LISTED.values())]
    for row in rows:
        row = row | {"extent": f"{row['extent']:.0f}", "corrected": "yes" if row["corrected"] else "no",
                     "number": _name(row)}
        cells = (" ".join(str(row[key]).split()) or "-" for key in LISTED)
        shown.append(["".join(c if c.isprintable() else "?" for c in cell) for cell in cells])
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)
