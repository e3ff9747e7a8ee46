"""The one PET series of a study to use, and the table of --list."""
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from common.files import progress
from common.text import counted
from common.workers import Run
from preprocessing.archives import read_headers
from preprocessing.dicom_reader import frames, without_copies
from preprocessing.dicom_series import Refusals, Study
from preprocessing.dicom_values import Header, Refused, corrections, numbers, text, unexpected
from preprocessing.dose import tracer_of
from preprocessing.suv import convertible
from preprocessing.volumes import is_volume

SAME_EXTENT = 10  # mm: reconstructions of one scan differ by about a slice in extent
WIDTH, ID_WIDTH = 100, 20  # of --list: characters of a line, of PatientID at least


@dataclass
class Series:
    """What ranks and lists a PET series.

    Attributes
    ----------
    uid : str
        SeriesInstanceUID.
    number : int or None
        SeriesNumber.
    description, frame_of_reference : str
        SeriesDescription, FrameOfReferenceUID.
    places : set of tuple
        ImagePositionPatient of the slices, (x, y, z) in mm.
    slices : int
        Number of places.
    extent : float
        Head to feet, mm, between the outermost voxel centres; 0 where unknown.
    units : str
        Units and SUVType.
    corrected : bool
        Whether it is attenuation corrected.
    derived, dynamic, axial, fdg, convertible : bool
        Whether it is a reformat or reprojection, has several time frames or gates, has axial slices, shows FDG or does
        not say what, has units that give SUV.
    taken : bool
        Whether it is the series to use.
    why : str
        What decided.
    """

    uid: str
    number: int | None
    description: str
    frame_of_reference: str
    places: set[tuple[float, ...]]
    slices: int
    extent: float
    units: str
    corrected: bool
    derived: bool = False
    dynamic: bool = False
    axial: bool = True
    fdg: bool = True
    convertible: bool = True
    taken: bool = False
    why: str = ""

    def name(self) -> str:
        """SeriesNumber, "?" where there is none."""
        return "?" if self.number is None else str(self.number)


def describe_series(uid: str, paths: Sequence[str]) -> Series:
    """Read the headers of a series. Raises Refused where one cannot be read."""
    if is_volume(paths[0]):
        return Series(uid, None, "", "", set(), 0, 0, "SUV", True)
    headers = [frame for header in without_copies(read_headers(paths)) for frame in frames(header)]
    first = headers[0]
    places = [numbers(header, "ImagePositionPatient", 3) for header in headers]
    known = {tuple(place) for place in places if place}
    series_number, kind = text(first, "SeriesNumber"), text(first, "SeriesType").split("\\")
    turned = numbers(first, "ImageOrientationPatient", 6) or [1, 0, 0, 0, 1, 0]
    nuclide, tracer = tracer_of((first.get("RadiopharmaceuticalInformationSequence") or [{}])[0])
    return Series(
        uid=uid, number=int(series_number) if series_number.isdecimal() else None,
        description=text(first, "SeriesDescription"), frame_of_reference=text(first, "FrameOfReferenceUID"),
        places=known, slices=len(known) if known else len(headers), extent=_extent(first, known),
        units=" ".join(filter(None, (text(first, "Units"), text(first, "SUVType")))),
        corrected="ATTN" in corrections(first),
        derived=text(first, "ImageType").startswith("DERIVED") or "REPROJECTION" in kind,
        dynamic=kind[0] in ("DYNAMIC", "GATED") or 0 < len(known) <= len(headers) / 2,
        axial=abs(turned[0] * turned[4] - turned[1] * turned[3]) > 0.8,
        fdg=nuclide in ("F-18", "") and tracer in ("FDG", ""), convertible=convertible(first))


def _extent(header: Header, places: set[tuple[float, ...]]) -> float:
    """Head to feet, mm, between the outermost voxel centres, however the slices lie; 0 where unknown."""
    turned, spacing = numbers(header, "ImageOrientationPatient", 6), numbers(header, "PixelSpacing", 2)
    if not places or not turned or not spacing:
        return 0
    rows, columns = (int.from_bytes(header.get(k, b""), "big" if header["order"] == ">" else "little")
                     for k in ("Rows", "Columns"))
    sides = (rows - 1) * spacing[0] * turned[5], (columns - 1) * spacing[1] * turned[2]
    heights = [z for _, _, z in places]
    return max(heights) - min(heights) + abs(sides[0]) + abs(sides[1])


def rank_series(study: Study) -> list[Series]:
    """The PET series of a study, the one to use first (rule 1 of docs/reference/suv_rules.md).

    That of --series; else original before derived, static before dynamic or gated, axial before others, FDG before
    other tracers, attenuation corrected before not, then the larger extent from head to feet (within 1 cm counts as the
    same), units that give SUV, more slices, the lower SeriesNumber.

    Parameters
    ----------
    study : Study
        Of `find_studies`.

    Returns
    -------
    list of Series
        With `taken` and `why`.

    Raises
    ------
    Refused
        A header cannot be read.
    """
    ranked = [describe_series(uid, paths) for uid, paths in study.series.items()]
    longest = {kind: max((s.extent for s in ranked if s.corrected == kind), default=0) for kind in (True, False)}

    def order(series: Series) -> tuple[float, ...]:
        missing = longest[series.corrected] - series.extent
        return (series.uid != study.wanted if study.wanted else False, series.derived, series.dynamic,
                not series.axial, not series.fdg, not series.corrected,
                missing if missing > SAME_EXTENT else 0, not series.convertible, -series.slices)

    ranked.sort(key=lambda s: (*order(s), s.number is None, s.number or 0, s.uid))
    best = ranked[0]
    words = ("not the one of --series", "derived", "dynamic or gated", "not axial", "another tracer",
             "not attenuation corrected", "shorter", "its units give no SUV", "fewer slices")
    for series in ranked:
        differing = [word for word, mine, its in zip(words, order(series), order(best), strict=True) if mine != its]
        series.why = differing[0] if differing else "equal; its SeriesNumber comes later"
    whole = "attenuation corrected, " * best.corrected + "longest, most slices"
    best.taken = True
    best.why = "--series" if study.wanted else whole if len(ranked) > 1 else "the only PET series"
    return ranked


def choose_series(study: Study, dynamic: bool = False) -> tuple[list[str], list[str]]:
    """The files of the one PET series of a study to use, and a warning where there was a choice.

    Parameters
    ----------
    study : Study
        Of `find_studies`.
    dynamic : bool
        Where every series is dynamic, take one.

    Raises
    ------
    Refused
        The slices of one series have several SeriesInstanceUIDs, or a header cannot be read.
    """
    if len(study.series) == 1:
        return next(iter(study.series.values())), []
    best, *others = rank_series(study)
    ties = [series.name() for series in others if series.why.startswith("equal")]
    alike = attrgetter("number", "description", "units", "corrected", "frame_of_reference")
    torn = [s for s in others if s.places and s.places.isdisjoint(best.places) and alike(s) == alike(best)]
    if torn and not study.wanted:
        raise Refused("SeriesInstanceUID", "", f"slices of series number {best.name()} have {len(torn) + 1} of them",
                      "copy the series again from its source, or choose one with --series")
    if best.dynamic and not study.wanted and not dynamic:
        raise Refused("SeriesType", "", "every PET series is dynamic or gated",
                      "give the static series of the study, or choose time frames with --frames")
    passed = [f"number {s.name()} ({s.why})" for s in others if not (study.wanted or s.why.startswith("equal"))]
    warning = (f"{len(others) + 1} PET series: number {best.name()} ({counted(best.slices, 'slice')}, "
               f"{best.extent:.0f} mm) was used" + " by --series" * bool(study.wanted))
    return study.series[best.uid], [warning + f" (equal: number {', '.join(ties)})" * bool(ties)
                                    + f", not {', '.join(passed)}" * bool(passed)]


# --list

def list_series(item: tuple[str, Study]) -> tuple[list[tuple[str, Series]], Refusals]:
    """The PET series of one study for --list.

    Parameters
    ----------
    item : (str, Study)
        StudyInstanceUID and the study.

    Returns
    -------
    rows : list of (str, Series)
        StudyInstanceUID and series, the one to use first.
    refused : list of (str, Refused)
        None or one: the study's folder and why.
    """
    uid, study = item
    try:
        ranked = rank_series(study)
    except Exception as error:  # as in peek
        return [], [(study.folder, study.refused or unexpected(error))]
    for series in ranked if study.refused else ():
        series.taken, series.why = False, "the study is refused"
    return [(uid, series) for series in ranked], [(study.folder, study.refused)] if study.refused else []


def print_list(studies: dict[str, Study], refused: Refusals, run: Run) -> bool:
    """Print every study, the one patient's together, its PET series, the one to use first, and what was refused.

    Returns whether anything was refused. Lines have at most WIDTH characters.
    """
    ordered = sorted(studies.items(), key=lambda item: (item[1].patient, item[1].date, item[0]))
    errors, count = list(refused), 0
    print(f"{'PatientID':{ID_WIDTH}}  StudyDate   StudyInstanceUID")
    with progress(run(list_series, ordered, 1), "reading headers", "study", len(studies)) as bar:
        listed = list(bar)
    for (uid, study), (rows, error) in zip(ordered, listed, strict=True):
        errors += error
        count += len(rows)
        print(_line(f"{_cell(study.patient):{ID_WIDTH}}  {study.date or '-':10}  {_cell(uid)}", "", "  "))
        for _, s in rows:
            said = (f"number {s.name()}, {_cell(s.description)}, {counted(s.slices, 'slice')}, {s.extent:.0f} mm, "
                    f"{_cell(s.units)}, {'' if s.corrected else 'not '}attenuation corrected" if s.slices else
                    "a volume of SUV")
            print(_line(f"{_cell(s.uid)}: {said}; {'' if s.taken else 'not '}taken: {s.why}",
                        "  + " if s.taken else "  - ", " " * 6))
    print(f"{counted(len(studies), 'study', 'studies')}, {count} PET series (+ taken, - not); nothing was converted")
    for where, fault in sorted(errors, key=lambda one: one[0]):
        print(_line(f"refused: {_cell(where)}: {fault}", "", "  "))
    return bool(errors)


def _cell(value: str) -> str:
    """Text of a file for the terminal, on one line."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(value.split())) or "-"


def _line(text: str, first: str, others: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)
