"""Which studies a script is asked for: the arguments, and the search. Of prepro_script.py and score.py."""
import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from common.arguments import SEVERAL, Parser
from common.files import InputError
from common.text import counted
from common.workers import Run
from preprocessing.archives import list_files, read_checksums
from preprocessing.dicom_series import Refusals, Study, add_overrides, find_studies, want_series
from preprocessing.identifiers import hash_id
from preprocessing.overrides import read_overrides


def add_study_arguments(parser: Parser) -> argparse._ArgumentGroup:
    """What to read, and how -> the group "input"."""
    group = parser.add_argument_group("input")
    add = group.add_argument
    add("-i", "--input", required=True, **SEVERAL, metavar="FOLDER",
        help="searched with its subfolders and archives (.zip, .tar, .tar.gz, .dcm.gz) for PET series and SUV volumes "
             "(.nii, .nii.gz, .nrrd); or one archive or volume, or a DICOMDIR (its folder is searched); one or "
             "several")
    add("--series", **SEVERAL, default=[], metavar="UID", help="SeriesInstanceUID to use in its study; one or several "
        "(default, and in other studies: original, static, axial, FDG, attenuation corrected, then "
        "the longest from head to feet, units that give SUV, then the most slices)")
    add("--overrides", metavar="TABLE", help="CSV or .xlsx of StudyInstanceUID and any of weight_kg, height_m, sex, "
        "dose_MBq, injection_time, series_time (the decay correction's; HH:MM:SS, or YYYY-MM-DD HH:MM:SS): used "
        "instead of what the files say, and named in `warnings`")
    add("--frames", metavar="WHICH", help="of a dynamic series, where there is no static one or --series names it: "
        "last, mean (weighted by duration), or the number of a time frame, from 1")
    add("--allow_uncorrected", action="store_true", help="take series without attenuation correction")
    return group


def add_key_argument(group: argparse._ArgumentGroup) -> None:
    """What hashes identifiers: `given` of `identifiers.find_key`."""
    group.add_argument("--key", metavar="FILE", help="secret, 16 bytes or more, for hashing StudyInstanceUID and "
                       "PatientID into scan_id and patient_id (default: the nearest hash_key.txt in --output or above "
                       "it, else made in the folder above it); crosswalk.csv beside it leads back to patients")


def crosswalk_rows(studies: Mapping[str, Study], key: bytes) -> list[tuple[str, ...]]:
    """Rows for `identifiers.update_crosswalk` of studies by StudyInstanceUID."""
    return [(hash_id(uid, key), uid, study.patient, study.date, study.accession) for uid, study in studies.items()]


def check_study_arguments(args: argparse.Namespace) -> None:
    """Raises InputError for a --frames that is none."""
    if args.frames and not re.fullmatch(r"last|mean|[1-9]\d{0,4}", args.frames):
        raise InputError(f"--frames {args.frames}: must be last, mean or a number from 1")


def find_asked(args: argparse.Namespace, run: Run, checksums: str | None = None
               ) -> tuple[Path, dict[str, Study], Refusals]:
    """Search --input; note in its studies what --series and --overrides say of them.

    Parameters
    ----------
    args : Namespace
        Of `add_study_arguments`.
    run : Run
        Of `common.workers.processes`.
    checksums : str or None
        File of SHA-256 sums that every PET file must have.

    Returns
    -------
    folder : Path
        What paths in refusals are relative to.
    studies, refused
        Of `dicom_series.find_studies`.

    Raises
    ------
    InputError
        There is no PET image, or no such series.
    """
    folder, paths = list_files(*args.input)
    overrides = read_overrides(args.overrides) if args.overrides else {}
    sums = read_checksums(checksums, folder, paths) if checksums else None
    studies, refused = find_studies(folder, paths, sums, run)
    if not studies and not refused:
        raise InputError(f"--input {', '.join(args.input)}: no PET image (Modality PT) among "
                         f"{counted(len(paths), 'file')}; give the folder that holds the DICOM studies")
    want_series(studies, args.series)
    if overrides:
        print(add_overrides(studies, overrides, args.overrides))
    return folder, studies, refused
