"""A folder tree, archives in it and DICOM media -> its PET series by study.

studies, refused = find_studies(*list_files("dicom"))
files, warnings = choose_series(studies[uid])            # series_choice.py
"""
import functools
import os
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from common.files import InputError, progress, sha256
from common.text import counted, some
from common.workers import Run, run_here
from preprocessing.archives import archive_errors, archive_members, is_archive, open_archive
from preprocessing.dates import to_date
from preprocessing.dicom_masks import MaskFile, describe_mask, is_mask
from preprocessing.dicom_reader import SERIES_UID, is_dicomdir, is_pet, read_header, series_of
from preprocessing.dicom_values import NotDicom, Refused, damaged, text, unexpected
from preprocessing.masks import mask_names
from preprocessing.volumes import NNUNET, is_volume, suv_volumes, unread

Refusals = list[tuple[str, Refused]]  # path relative to the searched folder, and why
IDENTITY = ("PatientID", "StudyDate", "AccessionNumber")


@functools.lru_cache(maxsize=1024)  # the slices of a study share one tuple
def _identity(*values: str) -> tuple[str, ...]:
    return values


class FoundFile(NamedTuple):
    """What one file, or one member of an archive, holds.

    Attributes
    ----------
    path : str
        Of the file, or archive.zip/member.
    kind : str
        "pet", "mask", "volume", "other" (a DICOM file), "none", or "archive" (or a volume; `fault`: why it was not
        read).
    study, series : str
        StudyInstanceUID and SeriesInstanceUID of a DICOM file.
    fault : Refused or None
        What is wrong with it.
    mask : MaskFile or None
        What a mask refers to.
    identity : tuple of str
        The attributes of `IDENTITY` of a PET image.
    """

    path: str
    kind: str
    study: str = ""
    series: str = ""
    fault: Refused | None = None
    mask: MaskFile | None = None
    identity: tuple[str, ...] = ("", "", "")


@dataclass
class Study:
    """The PET series of a study.

    Attributes
    ----------
    series : dict of str to list of str
        SeriesInstanceUID -> paths of its files.
    folder : str
        Where they lie, relative to the searched folder.
    refused : Refused or None
        Why the study cannot be converted.
    wanted : str or None
        SeriesInstanceUID that the user chose.
    patient, date, accession : str
        PatientID, StudyDate (as 2024-03-10) and AccessionNumber; "" where files differ or do not say. Of a volume
        `patient` is the first folder of its path.
    overrides : dict of str to str
        Its row of --overrides.
    masks : list of MaskFile
        Of its lesions.
    """

    series: dict[str, list[str]] = field(default_factory=dict)
    folder: str = ""
    refused: Refused | None = None
    wanted: str | None = None
    patient: str = ""
    date: str = ""
    accession: str = ""
    overrides: dict[str, str] = field(default_factory=dict)
    masks: list[MaskFile] = field(default_factory=list)


def find_studies(folder: Path, paths: Sequence[str], sums: dict[str, str] | None = None, run: Run = run_here
                 ) -> tuple[dict[str, Study], Refusals]:
    """Search files for PET series.

    Parameters
    ----------
    folder, paths
        As `archives.list_files` gives them.
    sums : dict, optional
        As `archives.read_checksums` gives it: every PET file must be there.
    run : Run
        Of `common.workers.processes`.

    Returns
    -------
    studies : dict of str to Study
        By StudyInstanceUID.
    refused : list of (str, Refused)
        Archives, and damaged files in folders without any PET image (alike ones of a folder together).
    """
    items = [(path, None if sums is None else sums.get(os.path.abspath(path), "")) for path in paths]
    found = []
    for packed, chunk in ((False, 256), (True, 1)):
        these = [item for item in items if is_archive(item[0]) == packed]
        with progress(run(peek, these, chunk), "finding PET series", "file", len(these)) as bar:
            found += [one for several in bar for one in several]
    found += [FoundFile(path, "none", fault=damaged(path, "is missing: --checksums"))
              for path in sums or () if not os.path.isfile(path)]
    return group_series(found, folder)


def add_overrides(studies: dict[str, Study], given: dict[str, tuple[int, dict[str, str]]], path: str) -> str:
    """Set each study's `overrides`; `given`: of `read_overrides`. Returns a line that says how many have any, and which
    rows have no study."""
    for uid in studies.keys() & given.keys():
        studies[uid].overrides = given[uid][1]
    missing = [line for uid, (line, _) in given.items() if uid not in studies]
    return f"{path}: {counted(len(given) - len(missing), 'study', 'studies')} with values that override the files'" + (
        f"; {counted(len(missing), 'row')} without a study: line {some(missing, 10)}" if missing else "")


def want_series(studies: dict[str, Study], uids: Sequence[str]) -> None:
    """Note in `studies` which series the user wants. Raises InputError: not there, or two of one study."""
    for uid in dict.fromkeys(uids):
        holding = [study for study in studies.values() if uid in study.series]
        if not holding:
            raise InputError(f"--series {uid}: no such PET series; --list shows those that are there")
        for study in holding:
            if study.wanted:
                raise InputError(f"--series {uid}: of the same study as {study.wanted}; give one series a study")
            study.wanted = uid


# One file

def peek(item: tuple[str, str | None]) -> list[FoundFile]:
    """What one file holds.

    Parameters
    ----------
    item : (str, str or None)
        The path; its SHA-256: "" where the list has none, None where there is no list.

    Returns
    -------
    list of FoundFile
        One, or one for each member of an archive.
    """
    path, expected = item
    try:
        fault = None
        if expected and sha256(path) != expected:
            fault = damaged(path, "has another SHA-256 than is listed: --checksums")
        if not is_archive(path):
            found = [_peek_file(path)]
        elif fault:
            found = [FoundFile(path, "archive", fault=fault)]
        else:
            found = _peek_archive(path)
    except (Refused, OSError) as error:
        kind = "archive" if is_archive(path) else "none"
        return [FoundFile(path, kind, fault=unexpected(error, os.path.basename(path)))]
    if expected == "" and any(one.kind in ("pet", "mask") for one in found):
        fault = damaged(path, "is not listed: --checksums")
    return [one._replace(fault=fault) for one in found] if fault else found


def _peek_archive(path: str) -> list[FoundFile]:
    found = []
    with archive_errors(path), open_archive(path) as archive:
        for info in archive_members(archive, path):
            name, inner = os.path.basename(info.filename), f"{path}/{info.filename}"
            if name[:1] == "." or info.filename.startswith("__MACOSX/"):
                continue
            if is_archive(name):
                found.append(FoundFile(inner, "archive", fault=Refused(
                    "archive", name, "lies in an archive and was not searched", "unpack the outer one")))
                continue
            try:
                with archive_errors(inner), archive.open(info) as file:
                    found.append(_peek_file(inner, file))
            except Refused as error:
                found.append(FoundFile(inner, "none", fault=unexpected(error)))
    return found


def _peek_file(path: str, file: IO[bytes] | None = None) -> FoundFile:
    if is_dicomdir(path):
        return FoundFile(path, "none")
    if fault := unread(path, file is not None):
        return FoundFile(path, "archive", fault=fault)
    if is_volume(path):
        return FoundFile(path, "none" if file else "volume")
    kind, mask = "none", None
    try:
        header = read_header(path, SERIES_UID, file)
        study, series = series_of(header)
        kind = "pet" if is_pet(header) else "mask" if is_mask(header) else "other"
        if kind == "mask":
            mask = describe_mask(path, file)
        wrong = [keyword for keyword, uid in (("StudyInstanceUID", study), ("SeriesInstanceUID", series))
                 if kind == "pet" and not re.fullmatch(r"[0-9.]{1,64}", uid)]
        fault = Refused(wrong[0], "", "is not a UID", "export the series again") if wrong else None
        identity = _identity(*(text(header, keyword) if kind == "pet" else "" for keyword in IDENTITY))
        return FoundFile(path, kind, study, series, fault, mask, identity)
    except zipfile.BadZipFile:
        raise
    except Exception as error:  # a damaged file may break anything; it must not end the run
        harmless = isinstance(error, NotDicom) and not error.suspect
        fault = None if harmless else unexpected(error, os.path.basename(path))
        return FoundFile(path, "mask" if kind == "mask" else "none", fault=fault)


# All files

def group_series(found: Sequence[FoundFile], folder: Path) -> tuple[dict[str, Study], Refusals]:
    """Files by study and series: `find_studies` after its search."""
    studies, namesakes = _volume_studies([one.path for one in found if one.kind == "volume"], folder)
    identities: dict[str, set[tuple[str, ...]]] = {}
    for one in found:
        if one.kind == "pet":
            studies.setdefault(one.study, Study()).series.setdefault(one.series, []).append(one.path)
            identities.setdefault(one.study, set()).add(one.identity)
    for uid, several in identities.items():
        patient, day, accession = (values.pop() if len(values := set(of_files)) == 1 else ""
                                   for of_files in zip(*several, strict=True))
        studies[uid].patient, studies[uid].date, studies[uid].accession = patient, to_date(day), accession
    others = {one.series for one in found if one.kind == "other"}
    n_studies = Counter(series for study in studies.values() for series in study.series)
    for study in studies.values():
        if study.folder:  # a volume
            continue
        where = os.path.commonpath([os.path.dirname(path) for paths in study.series.values() for path in paths])
        study.folder = os.path.relpath(where, folder)
        if others & set(study.series):
            study.refused = Refused("Modality", "", "some files of the PET series are no PET images",
                                    "remove them, or copy the series again from its source")
        if any(n_studies[series] > 1 for series in study.series):
            study.refused = Refused("StudyInstanceUID", "", "files of one series name several studies",
                                    "copy the series again from its source")
    return studies, namesakes + _assign_faults(_assign_masks(found, studies, folder), studies, folder)


def _volume_studies(paths: Sequence[str], folder: Path) -> tuple[dict[str, Study], Refusals]:
    """Volumes as studies of their own, by their path in `folder`: PATIENT/STUDY of PATIENT/STUDY/SUV.nii.gz; those that
    would be one study are refused."""
    of_folder: dict[str, list[str]] = {}
    for path in paths:
        of_folder.setdefault(os.path.dirname(path), []).append(os.path.relpath(path, folder))
    named: dict[str, list[Study]] = {}
    for where, several in of_folder.items():
        head, tail = os.path.split(where)
        labels = os.path.join(head, tail.replace("images", "labels"))
        beside = of_folder.get(labels, []) if NNUNET.fullmatch(tail) else several
        for path, name, patient in suv_volumes(several):
            masks = [MaskFile(str(folder / mask), mask) for mask in mask_names(path, beside)]
            named.setdefault(name, []).append(Study({name: [str(folder / path)]}, path, patient=patient, masks=masks))
    used = {path for alike in named.values() for study in alike
            for path in (study.folder, *(mask.place for mask in study.masks))}
    if left := sum(map(len, of_folder.values())) - len(used):
        print(f"passed over, by their names no SUV (CT, PET, masks): {counted(left, 'volume')}")
    refused = [(study.folder, Refused("file", os.path.basename(study.folder), f"{len(alike)} volumes are one study "
                                      f"({name}): {some(one.folder for one in alike)}",
                                      "rename one, or convert them in two runs"))
               for name, alike in named.items() if len(alike) > 1 for study in alike]
    return {name: alike[0] for name, alike in named.items() if len(alike) == 1}, refused


def _assign_masks(found: Sequence[FoundFile], studies: dict[str, Study], folder: Path) -> list[FoundFile]:
    """Give the study that it refers to, or is in, each DICOM mask. Returns all files, masks without study as faults."""
    of_series = {series: study for study in studies.values() for series in study.series}
    left = []
    for one in found:
        if one.mask and not one.fault:
            refers = [of_series[series] for series in one.mask.series if series in of_series]
            if study := next(iter([*refers, *(studies[uid] for uid in one.mask.studies if uid in studies)]), None):
                place = os.path.relpath(os.path.dirname(one.path), folder)
                series = tuple(uid for uid in one.mask.series if uid in study.series)
                study.masks.append(one.mask._replace(place=place, series=series))
            else:
                one = one._replace(fault=Refused("ReferencedSeriesSequence", "", "the mask fits no PET series that is "
                                                 "there", "give the PET series, too, or remove the mask"))
        left.append(one)
    return left


def _assign_faults(found: Sequence[FoundFile], studies: dict[str, Study], folder: Path) -> Refusals:
    """Refuse the studies beside whose files a damaged one lies. Returns the faults that no study lies beside."""
    of_folder: dict[str, set[str]] = {}
    for one in found:
        if one.kind == "pet":
            of_folder.setdefault(os.path.dirname(one.path), set()).add(one.study)
    faults: dict[str, list[Refused]] = {}
    alone: dict[tuple[str, ...], list[tuple[str, Refused]]] = {}
    for one in found:
        if one.fault is None:
            continue
        beside = set() if one.kind in ("archive", "mask") else of_folder.get(os.path.dirname(one.path), set())
        for uid in beside:  # it may have been a slice of any PET series beside it
            faults.setdefault(uid, []).append(one.fault)
        if not beside:
            where = one.path if one.kind == "archive" else os.path.dirname(one.path)
            alike = where, one.fault.attribute, one.fault.reason, one.fault.remedy
            alone.setdefault(alike, []).append((one.path, one.fault))
    for uid, several in faults.items():
        studies[uid].refused = _first_of(several)
    return [(os.path.relpath(where[0] if len(pairs) > 1 else pairs[0][0], folder),
             _first_of([fault for _, fault in pairs]))
            for where, pairs in alone.items()]  # a folder of damaged files is one refusal


def _first_of(faults: Sequence[Refused]) -> Refused:
    """One refusal for several: the first, and how many more."""
    first, more = faults[0], len(faults) - 1
    return Refused(first.attribute, first.value + f" and {more} more" * bool(more), first.reason, first.remedy)
