"""`data.csv`, the manifest: one row per view, read and checked. Imports no torch.

Columns: scan_id, filename, target, matrix_size_1 (rows), matrix_size_2 (columns), split0, split1, ... (SETS), and
optionally patient_id, view, spacing_mm, suv_type and anything else, which is carried through.
"""
import contextlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, progress, read_csv, sha256, without_na
from common.text import counted, some

LEARNED = ("train", "val")  # what training reads
SETS = (*LEARNED, "test", "cal")  # cal, a calibration set, is the same scans in every split
LEAKAGE = "leakage"  # the column that --allow_leakage adds: what is in two sets
MARK = "LEAKAGE"  # the word for it on pages and in messages
LEAKED = "patients or images are in two sets (--allow_leakage)"  # for others, in place of texts that name them
SYNTHETIC = "The cohort is SYNTHETIC: these numbers say nothing about patients."
MAY_BE_EMPTY = ["target", "patient_id", "target_loc", "view", "mask", "lesions", "image_sha256"]
VIEW_NAMES = {"cor": "coronal", "sag": "sagittal"}  # rotating projections are rot030, ...: their angle in degrees
VIEWS = tuple(VIEW_NAMES)
_NUMBER = re.compile(r"\+?([0-9]+)(?:\.([0-9]*))?(?:e([+-]?[0-9]{1,9}))?")


def read_manifest(path: str | Path, splits: Iterable[int] = (), need_target: bool = True,
                  need_images: bool = True, allow_leakage: bool = False) -> pd.DataFrame:
    """Read and check a manifest.

    Parameters
    ----------
    splits : iterable of int
        Split columns that must be there and hold one of SETS.
    need_target : bool
        `target` must be there, 0 or 1 in every row.
    need_images : bool
        The matrix sizes must be there.
    allow_leakage : bool
        Mark a patient or an image in two sets of a split in the column LEAKAGE, instead of refusing it.

    Returns
    -------
    DataFrame
        The CSV's columns as text, but (needed) target and matrix sizes int64, spacing_mm float64; `view` and `row` (the
        line in the CSV) added.

    Raises
    ------
    InputError
        Naming the file, the row and the value.
    """
    sizes = ["matrix_size_1", "matrix_size_2"] * need_images
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; give the manifest, such as --data mips/data_resplit.csv")
    table = read_csv(path, ["scan_id", "filename", *sizes])
    if need_target and "target" not in table:
        raise InputError(f"{path}: no column target; add it: 0 for Deauville 1-3, 1 for Deauville 4-5")
    if missing := [f"split{s}" for s in splits if f"split{s}" not in table]:
        raise InputError(f"{path}: no column {', '.join(missing)}; make_splits.py adds split columns"
                         + ", --set all predicts every row without them" * (need_images and not need_target))
    if table.empty:
        raise InputError(f"{path}: no rows")
    for name in table.columns.intersection(MAY_BE_EMPTY):
        table[name] = without_na(table[name])
    table = table.assign(row=table.index).reset_index(drop=True)

    def refuse(bad, column, remedy):
        if bad.any():
            first = table[bad].iloc[0]
            raise InputError(f"{path} row {first['row']} (scan {first['scan_id']}): {column} = {str(first[column])!r} "
                             f"{remedy}")

    refuse(table["scan_id"] == "", "scan_id", "is empty")
    refuse(table["filename"] == "", "filename", "is empty")
    refuse(table.duplicated("filename"), "filename", "is there twice: keep one row per view")
    for column in sizes:
        refuse(~table[column].str.fullmatch(r"[1-9][0-9]{0,3}(\.0+)?"), column,
               "is not a number of pixels below 10,000")
        table[column] = table[column].astype("float64").astype("int64")
    if "target" in table:
        number = pd.to_numeric(table["target"], errors="coerce")
        refuse(~(number.isin((0, 1)) | ((table["target"] == "") & (not need_target))), "target",
               "is not 0 (Deauville 1-3) or 1 (Deauville 4-5)")
        if need_target:
            table["target"] = number.astype("int64")
    for split in splits:
        refuse(~table[f"split{split}"].isin(SETS), f"split{split}", "is not train, val, test or cal")
    if "spacing_mm" in table:
        spacing = pd.to_numeric(table["spacing_mm"], errors="coerce")
        refuse(~((spacing > 0) & (spacing < np.inf)), "spacing_mm", "is not a length in mm")
        refuse((spacing - spacing.iloc[0]).abs() > 1e-3, "spacing_mm",
               f"differs from the first row's {spacing.iloc[0]}: make all MIPs with one --spacing")
        table["spacing_mm"] = spacing
    if "suv_type" in table:
        refuse(table["suv_type"] != table["suv_type"].iloc[0], "suv_type",
               f"differs from the first row's {table['suv_type'].iloc[0]!r}: make all MIPs with one --suv")
    table["view"] = _views(table)
    refuse(table["view"] == "", "view", "and the file name holds no cor, sag or rot030: fill in the column view")
    refuse(table.duplicated(["scan_id", "view"]), "view", "is there twice for this scan: keep one")
    for column in [c for c in ("target", "patient_id", *[f"split{s}" for s in splits]) if c in table]:
        first = table.groupby("scan_id")[column].transform("first")
        refuse(table[column] != first, column, "differs between the rows of this scan: correct the CSV")
    for check in (check_patients, check_images):
        with leakage(table, allow_leakage, f"{path}: "):
            check(table, [f"split{s}" for s in splits])
    return table


def _views(table: pd.DataFrame) -> pd.Series:
    """The view of each row: what the column says, Coronal and SAG being cor and sag; where there is none what the file
    name holds, or "".
    """
    if "view" in table:
        views = table["view"].str.lower().replace({name: view for view, name in VIEW_NAMES.items()})
        return views.where(views.str.fullmatch(r"cor|sag|rot\d{3}"), table["view"])
    names = table["filename"].map(lambda name: Path(name).name.lower())
    return names.str.findall(r"(?<![a-z])(cor|sag|rot\d{3}(?!\d))").str[-1].fillna("")


@contextlib.contextmanager
def leakage(table: pd.DataFrame, allow: bool, where: str = "") -> Iterator[None]:
    """Within, a check may find (raise InputError) that something is in two sets of `table`.

    The error is raised again, with `where` before it; or, with --allow_leakage, printed as a warning and written into
    the column LEAKAGE, which prediction files copy.
    """
    try:
        yield
    except InputError as error:
        if not allow:
            raise InputError(f"{where}{error}; scripts with --allow_leakage go on, and mark what they make") from None
        add_leakage(table, f"{where}{error}")
        print(f"warning: {MARK}: {where}{error}")


def add_leakage(table: pd.DataFrame, text: str) -> None:
    """Add a text to the column LEAKAGE of every row, in place."""
    before = leakage_of(table)
    if text not in before:
        table[LEAKAGE] = "; ".join(filter(None, (before, text)))


def leakage_of(table: pd.DataFrame) -> str:
    """The texts in the column LEAKAGE; "" where nothing leaked."""
    return "; ".join(text for text in dict.fromkeys(table.get(LEAKAGE, ())) if text)


def leakage_unnamed(optimistic: str | None) -> str | None:
    """`optimistic` of metrics.json with LEAKED for the text at its end that names who or what is in two sets."""
    before, mark, _ = (optimistic or "").partition(f"{MARK}: ")
    return before + mark + LEAKED if mark else optimistic


def check_classes(path: str | Path, table: pd.DataFrame, split: int) -> None:
    """Refuse a split whose training or validation set is empty or holds one class only (InputError)."""
    for name in LEARNED:
        classes = sorted(table.loc[table[f"split{split}"] == name, "target"].unique())
        if len(classes) < 2:
            held = f"target {classes[0]} only" if classes else "no rows"
            raise InputError(f"{path}: split{split} {name} holds {held}; both classes are needed: make_splits.py makes "
                             "stratified splits")


def report_views(table: pd.DataFrame) -> str | None:
    """How many scans have a single view, or fewer than the others, as a line; None where there are no such scans."""
    counts = table.groupby("scan_id").size()
    few = counts[counts < counts.max() if counts.max() > len(VIEWS) else counts == 1]
    if len(few):
        count = "one view only" if few.max() == 1 else f"fewer than {counted(counts.max(), 'view')}"
        return f"{count}: {len(few)} of {counted(len(counts), 'scan')}, for example {few.index[0]}"
    return None


def views_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The views in a table, coronal and sagittal first."""
    found = set(table["view"])
    return tuple(view for view in VIEWS if view in found) + tuple(sorted(found - set(VIEWS)))


def view_name(view: str) -> str:
    """cor -> coronal, rot030 -> 30°; another view's own name."""
    return f"{int(view[3:])}°" if re.fullmatch(r"rot\d{3}", view) else VIEW_NAMES.get(view, view)


def suv_type_of(table: pd.DataFrame) -> str:
    """What the SUV is normalised to (--suv of prepro_script.py): "bw", body weight, where the manifest does not say."""
    return table["suv_type"].iloc[0] or "bw" if "suv_type" in table else "bw"


def patient_column(table: pd.DataFrame) -> str:
    """What counts as a patient: `patient_id`, or where it is missing `scan_id`."""
    return "patient_id" if "patient_id" in table else "scan_id"


def canonical(text: str) -> str:
    """An id in a form that typing and spreadsheets do not change: no case, no blanks, whole numbers in one notation."""
    folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    number = _NUMBER.fullmatch(folded)
    if not number:
        return folded
    whole, fraction, power = (part or "" for part in number.groups())
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    zeros = len(digits) - len(significant) - len(fraction) + int(power or 0)
    if zeros < 0 and significant:  # 1.2 and 1.20: may be patient 1's scans 2 and 20
        return folded
    return f"{significant}e{zeros}" if significant else "0"


def spelled_alike(names: pd.Series) -> pd.Series:
    """Names in a form that is equal for spellings of one name: `canonical`, without leading zeros of numbers. P007 and
    P7 become equal, and so do 007 and 7.0.
    """
    alike = {name: re.sub(r"(?<![\d.])0+(?=\d)", "", canonical(name)) for name in names.unique()}
    return names.map(alike)


def written_twice(column: pd.Series) -> pd.Series:
    """The first names of a column that are `spelled_alike`, each where it first stands; none where no two are."""
    names = column.drop_duplicates()
    alike = spelled_alike(names)
    return names[alike == alike[alike.duplicated()].iloc[0]] if alike.duplicated().any() else names[:0]


def check_patients(table: pd.DataFrame, split_columns: Iterable[str]) -> None:
    """Refuse (InputError) a patient in two sets of one split, under one name or two that are `spelled_alike`. Rows
    without an id are not compared."""
    patient = patient_column(table)
    known = table[table[patient] != ""]
    known = known.assign(alike=spelled_alike(known[patient]))
    for column in split_columns:
        n_sets = known.groupby("alike")[column].nunique()
        for alike in n_sets.index[n_sets > 1]:
            rows = known[known["alike"] == alike]
            names = list(rows[patient].unique())
            sets = " and ".join(sorted(set(rows[column])))
            where = f"is in {sets} of {column} ({rows_of(rows, column)})"
            if len(names) == 1:
                raise InputError(f"{patient} {names[0]} {where}; a patient's scans belong in one set: run "
                                 "make_splits.py --overwrite")
            raise InputError(f"{patient} {' or '.join(map(repr, names))} {where}: if this is one patient, write it in "
                             "one way, then run make_splits.py --overwrite; if not, give them names that differ by "
                             "more than blanks, case or zeros")


def rows_of(rows: pd.DataFrame, column: str) -> str:
    """"train: rows 2, 3; val: row 8": the lines of a manifest by their set in a split's column."""
    if "row" not in rows:
        return f"scans {some(rows['scan_id'].unique())}"
    return "; ".join(f"{name}: row{'s' * (len(part) > 1)} {some(part['row'])}"
                     for name, part in ((name, rows[rows[column] == name]) for name in sorted(set(rows[column]))))


def check_images(table: pd.DataFrame, split_columns: Iterable[str]) -> None:
    """Refuse (InputError) one image, by image_sha256, in two sets of one split."""
    if "image_sha256" not in table:
        return
    copies = table[table.duplicated("image_sha256", keep=False) & (table["image_sha256"] != "")]
    for column in split_columns:
        n_sets = copies.groupby("image_sha256")[column].nunique()
        for digest in n_sets.index[n_sets > 1]:
            rows = copies[copies["image_sha256"] == digest].drop_duplicates(column)
            scans = " and ".join(f"{row['scan_id']} ({row[column]}" + (f", row {row['row']})" if "row" in row else ")")
                                 for _, row in rows.iterrows())
            raise InputError(f"scans {scans} of {column} have the same image, {rows['filename'].iloc[0]}; remove one "
                             "of them or, where both are one patient's, correct patient_id: then run make_splits.py "
                             "--overwrite")


def warn_copies(table: pd.DataFrame) -> None:
    """Print a warning of images (image_sha256) that are there under another name, too."""
    digests = table.get("image_sha256", pd.Series("", table.index))
    if len(copies := table[digests.duplicated() & (digests != "")]):
        print(f"warning: under another name, too, and so counted twice: {counted(len(copies), 'image')}: "
              f"{some(copies['filename'], 3)}")


def file_digests(table: pd.DataFrame, folder: str | Path) -> list[str]:
    """The SHA-256 of each row's image in `folder`; image_sha256, or "", where it cannot be read."""
    digests = list(table.get("image_sha256", pd.Series("", table.index)))
    with progress(enumerate(table["filename"]), "SHA-256 of images", "image", len(table)) as rows:
        for k, name in rows:
            with contextlib.suppress(OSError):
                digests[k] = sha256(Path(folder, name))
    return digests


def add_digests(table: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """`table` with `file_digests` as image_sha256. Warns of images for which another stood there, and without one."""
    known, digests = table.get("image_sha256", pd.Series("", table.index)), file_digests(table, folder)
    if len(others := table["filename"][(known != "") & (known != digests)]):
        print(f"warning: {len(others)} of {counted(len(table), 'image')} in {folder} are not those that the manifest "
              f"was written for ({some(others, 2)}): image_sha256 differs; make_splits.py --overwrite corrects it")
    if len(unread := table["filename"][[not digest for digest in digests]]):
        print(f"warning: not in {folder}: {len(unread)} of {counted(len(table), 'image')} ({some(unread, 2)}): "
              "their image_sha256 stays empty, and whether an image is there under two names is not checked; give "
              "--images")
    return table.assign(image_sha256=digests)


def compare_images(table: pd.DataFrame, folder: str | Path, data: str, splits: Iterable[int],
                   allow_leakage: bool = False) -> pd.DataFrame:
    """`add_digests` of the images that a script reads, which are then compared: `check_images`, `warn_copies`.

    Parameters
    ----------
    data : str
        Path of the manifest, of which `table` may hold some rows only.
    splits, allow_leakage
        Of `read_manifest`.
    """
    before = table.get("image_sha256", pd.Series("", table.index))
    table = add_digests(table, folder)
    if (before == "").any():
        print(f"{data} lacks image_sha256: whether an image is in two sets was looked for among the {len(table)} that "
              "are read here; make_splits.py adds the column, for all of them")
    if not table["image_sha256"].equals(before):  # read_manifest has compared those of before
        with leakage(table, allow_leakage, f"{data}: "):
            check_images(table, [f"split{split}" for split in splits])
    warn_copies(table)
    return table


def is_synthetic(rows: pd.DataFrame) -> pd.Series:
    """Rows of a manifest or of predictions -> (n,) bool Series: drawn by phantom.py, or marked as such."""
    marks, described = (rows.get(name, pd.Series("", rows.index)).astype(str).fillna("")
                        for name in ("synthetic", "series_description"))
    return marks.str.strip().str.lower().isin(("1", "1.0", "true", "yes")) | described.str.contains("SYNTHETIC")
