"""Prediction files of several models -> one score per scan: reading, checking, joining.

LARS-avg: per model the mean over a scan's views; LARS-max: their maximum; then over the models. LARS's own files
(scan_id, target, probs; no column `set`: all test) are read too.
"""
import collections
import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from common.files import InputError, progress, read_csv, without_na
from common.manifest import LEAKAGE, is_synthetic
from common.run_files import find_run_files, run_file
from common.text import counted, some
from evaluation.ranking import read_ranks

COLUMNS = ("scan_id", "target", "probs", "set", "view", "filename", "patient_id", "synthetic", "series_description",
           "image_sha256", "id_key", "overlap", "checkpoint_sha256", LEAKAGE)
ENSEMBLES = {"avg": "LARS-avg", "max": "LARS-max"}
OVER_VIEWS = {"avg": "mean", "max": "max"}
MOST_VALUES = 8  # of a numeric column of --by; with more of them it is cut at its tertiles
MOST_GROUPS = 30  # of another column
MISSING = "(missing)"  # the subgroup of the scans whose field is empty
NO_GROUPS = ("scan_id", "target", "probs", "set", "file")  # for --by, as site scores are not


@dataclass
class Model:
    """One model's predictions.

    Attributes
    ----------
    path : Path
        The prediction file.
    file : str
        Its name in messages and metrics.json.
    split, run : int
    rank : int or None
        In best_run.csv; None: unranked.
    rows : DataFrame
        A row for each view of the set that is measured: of `check_rows`.
    val_rows, cal_rows : DataFrame
        The same of the model's own validation scans, and of the calibration set.
    """
    path: Path
    file: str
    split: int = 0
    run: int = 0
    rank: int | None = None
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    val_rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    cal_rows: pd.DataFrame = field(default_factory=pd.DataFrame)

    def about(self) -> dict:
        """What metrics.json says of it."""
        return {"file": self.file, "split": self.split, "run": self.run, "rank": self.rank}


# ---------------------------------------------------------------- models

def find_models(folder: Path, best_run: Path | None = None, top: int | None = None) -> tuple[list[Model], list[str]]:
    """The models to use, best first, their files not read yet; and warnings.

    Parameters
    ----------
    folder : Path
        Of pred_splitS_runR.csv.
    best_run : Path or None
        Ranking by find_best_model.py; None: best_run.csv in `folder`, where there is one.
    top : int or None
        Use the models of the `top` best ranks; None: all, ranked or not.

    Raises
    ------
    InputError
        No predictions, a bad ranking, fewer models than `top`.
    """
    models = [Model(path, path.name, split, run) for split, run, path in find_run_files(folder, "pred")]
    if not models:
        raise InputError(f"{folder}: holds no pred_splitS_runR.csv; run predict.py first, or correct --dir")
    ranking = best_run or folder / "best_run.csv"
    if not best_run and not ranking.is_file():
        if top:
            raise InputError(f"--top {top}: there is no {ranking} to rank the models by; copy it there, or give "
                             "--best_run FILE (find_best_model.py writes it)")
        return models, []
    ranks = read_ranks(ranking)
    by_run = {(model.split, model.run): model for model in models}
    ranked = [replace(by_run[run], rank=rank) for run, rank in ranks.items() if run in by_run]
    unranked = [model for run, model in by_run.items() if run not in ranks]
    if not top:
        without = f"; --top {len(ranked)} takes those in it alone" * bool(ranked)
        return ranked + unranked, [f"used, though not in {ranking.name}: {counted(len(unranked), 'prediction file')}: "
                                   f"{some(model.file for model in unranked)}{without}"] * bool(unranked)
    if top > len(ranked):
        raise InputError(f"--top {top}: of the models that {ranking} ranks, {folder} holds the predictions of "
                         f"{len(ranked)}; lower --top, or run predict.py with more of them")
    for (split, run), rank in ranks.items():
        if rank <= top and (split, run) not in by_run:
            raise InputError(f"--top {top}: {run_file(folder, 'pred', split, run)} is missing, rank {rank} in "
                             f"{ranking}; run predict.py for split {split}")
    return ranked[:top], []


# ---------------------------------------------------------------- reading

def read_models(models: list[Model], wanted: str | None, columns: Sequence[str]) -> str:
    """Read the models' rows, check them, and return the name of the set that these are of.

    Parameters
    ----------
    models
        Of `find_models`.
    wanted : str or None
        train, val, test, cal, all; None: test, or all where the files hold nothing but that.
    columns : sequence of str
        Further columns that every file must have, those of --by and --survival.

    Raises
    ------
    InputError
        A column is of NO_GROUPS; a file cannot be read, lacks a column or the set, holds a wrong value, or a scan in
        two sets.
    """
    for column in columns:
        if column in NO_GROUPS or re.fullmatch(r"L\d+", column):
            raise InputError(f"--by {column}: is of the predictions, not of the scans; give one such as view or sex")
    needed = "scan_id", "probs", *columns

    def wished(name):
        return name in (*COLUMNS, *needed) or re.fullmatch(r"split\d+", name) is not None or is_site_column(name)

    with progress(models, "reading", "model") as bar:
        for model in bar:
            table = read_csv(model.path, needed, wished, whole=True)
            for name in table.columns.intersection(["target", "patient_id", *columns]):
                table[name] = without_na(table[name])
            model.rows = table if "set" in table else table.assign(set="test")
    sets = set().union(*(model.rows["set"].unique() for model in models))
    wanted = wanted or ("all" if sets == {"all"} else "test")
    for model in models:
        if wanted not in model.rows["set"].unique():
            raise InputError(f"{model.path}: has no row with set {wanted}; the files hold "
                             f"{some(sorted(sets)) or 'no rows'}: give --set, or run predict.py --set {wanted}")
        in_sets = model.rows[["scan_id", "set"]].drop_duplicates()
        for scan in in_sets.loc[in_sets.duplicated("scan_id"), "scan_id"].sort_values()[:1]:
            names = " and ".join(sorted(in_sets.loc[in_sets["scan_id"] == scan, "set"]))
            raise InputError(f"{model.path}: scan {scan} is in {names}; a scan belongs to one set of a model: correct "
                             "the splits and predict again")
        model.rows, model.val_rows, model.cal_rows = (check_rows(model.rows[model.rows["set"] == name], model.path)
                                                      for name in (wanted, "val", "cal"))
    return wanted


def check_rows(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Rows of a prediction file (texts) with target as 1, 0 or NaN and probs in 0..1, both float64.

    Raises
    ------
    InputError
        Names the line of a wrong value, or of a view that a scan has twice.
    """
    def refuse(wrong, text):
        for row in rows.index[wrong][:1]:
            raise InputError(f"{path}, line {row}{text.format_map(rows.loc[row])}")

    rows = rows.assign(target=rows["target"].str.strip() if "target" in rows else "")
    probs, target = (rows[name].map(number).to_numpy(dtype=float) for name in ("probs", "target"))
    refuse(rows["scan_id"] == "", ": scan_id is empty")
    outside, unclear = ~((probs >= 0) & (probs <= 1)), (rows["target"] != "") & ~np.isin(target, (0, 1))
    refuse(outside, " (scan {scan_id}): probs {probs!r}; it must lie in 0..1; run predict.py again")
    refuse(unclear, " (scan {scan_id}): target {target!r}; it must be 0, 1 or empty")
    for column in rows.columns.intersection(["filename", "view"]):
        refuse(rows.duplicated(["scan_id", column]) & (rows[column] != ""),
               f": scan {{scan_id}} has {column} {{{column}}} twice; remove one of the two rows")
    return rows.assign(probs=probs, target=target)


def is_site_column(name: str) -> bool:
    """Whether a column is of predict_loca.py, see site_ensemble.py."""
    return bool(re.fullmatch(r"L\d+|true_loc", name))


def number(text: str) -> float:
    """A text as a number; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def by_value(text: str) -> tuple[float, str]:
    """What texts are sorted by: numbers by their value, then the others by their letters."""
    value = number(text)
    return (value if value == value else np.inf), text


# ---------------------------------------------------------------- joining

def join_scans(models: list[Model]) -> tuple[pd.DataFrame, list[str]]:
    """Every scan of any model once, and warnings.

    Parameters
    ----------
    models
        Of `read_models`.

    Returns
    -------
    scans : DataFrame
        By scan_id, sorted: target (1, 0, NaN), n_models, n_asked (models that should have it: all, of folds the runs of
        its fold), n_views, synthetic (bool) and, where the files have it, patient_id; a scan without one counts as a
        patient of its own.
    warnings : list of str

    Raises
    ------
    InputError
        The targets or patients of a scan conflict.
    """
    rows = pd.concat([model.rows.assign(file=model.file, split=model.split) for model in models], ignore_index=True)
    refuse_conflicts(rows.dropna(subset="target"), "target")
    scans = rows.groupby("scan_id").agg(target=("target", "first"), n_models=("file", "nunique"))
    runs = rows["split"].map(collections.Counter(model.split for model in models))
    scans["n_asked"] = runs.groupby(rows["scan_id"]).first() if folds(models) else len(models)
    scans["n_views"] = rows.groupby(["scan_id", "file"]).size().groupby("scan_id").max()
    scans["synthetic"] = is_synthetic(rows).groupby(rows["scan_id"]).any()
    if "patient_id" in rows:
        known = rows[rows["patient_id"].fillna("").str.strip() != ""]
        refuse_conflicts(known, "patient_id")
        scans["patient_id"] = known.groupby("scan_id")["patient_id"].first().reindex(scans.index)
        # two blanks: the name of no patient
        scans["patient_id"] = scans["patient_id"].fillna(pd.Series("  " + scans.index, index=scans.index))
    warnings = told(scans["n_models"] < scans["n_asked"], "lack some model's prediction; their mean is over the models "
                    "that have one") + doubts(rows, scans)
    if scans["target"].notna().any():
        warnings += told(scans["target"].isna(), "have no target and are left out of the metrics")
    return scans, warnings


def doubts(rows: pd.DataFrame, scans: pd.DataFrame) -> list[str]:
    """Warnings of scans of `join_scans` that have no patient, or in models' rows (with file) odd views, an image twice
    or other images in another's."""
    views = rows.groupby(["scan_id", "file"]).size().groupby("scan_id")
    warnings = []
    if "patient_id" in scans:
        warnings += told(scans["patient_id"].str.startswith("  "), "have no patient_id and count as a patient each")
    warnings += told(views.nunique() > 1, "have more views in one model's file than in another's")
    warnings += told(views.max() == 1, "have one view only")
    if not rows.columns.intersection(["filename", "view"]).size:
        warnings += told(views.max() > 2, "have more than two rows; without column filename or view they may be "
                         "duplicates")
    if "image_sha256" in rows:
        images = rows.loc[rows["image_sha256"].fillna("") != "", ["image_sha256", "scan_id"]].drop_duplicates()
        copies = images.loc[images.duplicated("image_sha256", keep=False), "scan_id"]
        warnings += told(pd.Series(scans.index.isin(copies), scans.index), "have an image that another has, too, and "
                         "so count twice; keep one of each")
        if "view" in rows:
            known = rows[rows["image_sha256"].fillna("") != ""].groupby(["scan_id", "view"])["image_sha256"].nunique()
            changed = known[known > 1].index.get_level_values("scan_id")
            warnings += told(pd.Series(scans.index.isin(changed), scans.index), "have other images in one model's file "
                             "than in another's: made anew since? predict with all models again")
    return warnings


def told(which: pd.Series, text: str) -> list[str]:
    """A warning that names the scans (the index) of which it is true; [] where it is of none."""
    return [f"{which.sum()} of {counted(len(which), 'scan')} {text}: {some(which.index[which])}"] * bool(which.any())


def folds(models: list[Model]) -> dict[int, set[str]]:
    """{split: its scans} where there are several splits and no scan is in two, as in a cross-validation; else {}."""
    found: dict[int, set[str]] = {}
    for split in sorted({model.split for model in models}):
        scans = set().union(*(model.rows["scan_id"].unique() for model in models if model.split == split))
        if not all(map(scans.isdisjoint, found.values())):
            return {}
        found[split] = scans
    return found if len(found) > 1 else {}


def folds_text(models: list[Model]) -> str:
    """What a reader must know of folds: ", 2 a scan: 5 folds of a cross-validation, pooled", or ""."""
    runs = collections.Counter(model.split for model in models).values()
    sizes = " to ".join(map(str, sorted({min(runs), max(runs)})))
    return f", {sizes} a scan: {counted(len(runs), 'fold')} of a cross-validation, pooled" if folds(models) else ""


def refuse_conflicts(rows: pd.DataFrame, column: str) -> None:
    """Raise InputError where a scan has two values of a column; rows has scan_id, that column and file."""
    counts = rows.groupby("scan_id")[column].nunique()
    for scan in counts.index[counts > 1][:1]:
        files = rows[rows["scan_id"] == scan].groupby(column)["file"].unique()[:2]
        held = " and ".join(f"{column} {int(value) if column == 'target' else value} in {some(sorted(names))}"
                            for value, names in files.items())
        raise InputError(f"scan {scan} has {held}; correct the manifest and predict again")


def patients(scans: pd.DataFrame) -> ndarray | None:
    """(n,) ids of what the statistics take as independent, or None: every scan."""
    return scans["patient_id"].to_numpy() if "patient_id" in scans else None


def score_models(models: list[Model], scans: pd.DataFrame, name: str) -> pd.DataFrame:
    """Each model's own score of each scan, 0..1; NaN where it lacks the scan.

    Parameters
    ----------
    models
        As in `join_scans`.
    scans : DataFrame
        By scan_id.
    name : {"avg", "max"}
        Mean or maximum over a scan's views.

    Returns
    -------
    DataFrame
        In the order of `scans`, a column probs_K a model.
    """
    tables = (model.rows.sort_values("probs") for model in models)  # a sum of floats depends on its order
    scores = (table.groupby("scan_id", sort=False)["probs"].agg(OVER_VIEWS[name]) for table in tables)
    return pd.DataFrame({f"probs_{k}": score for k, score in enumerate(scores)}, index=scans.index)


def combine(scores: pd.DataFrame, how: str = "mean") -> pd.Series:
    """The mean or median over the models that have the scan; the sum is over sorted values, whatever the order."""
    ordered = np.sort(scores.to_numpy(dtype=float), axis=1)
    return pd.Series(getattr(np, f"nan{how}")(ordered, axis=1), index=scores.index)


# ---------------------------------------------------------------- subgroups

def subgroups(models: list[Model], scans: pd.DataFrame, column: str) -> dict[str, tuple[list[Model], pd.DataFrame]]:
    """{value of a column: (the models with its rows only, its scans)}, sorted.

    A column that differs between the rows of a scan, as view does, splits them; one that is empty in some of them does
    not. A numeric column of more than eight values is cut at the tertiles of `scans`. Empty fields: MISSING.

    Raises
    ------
    InputError
        Two values for one scan, or more than 30 values.
    """
    models, rows = rows_of(models, scans.index, column)
    labels = label_values(rows, column)
    groups = {}
    for value in dict.fromkeys(labels.values()):
        members = [replace(model, rows=model.rows[model.rows[column].map(labels) == value]) for model in models]
        groups[value] = members, scans[scans.index.isin(pd.concat([model.rows["scan_id"] for model in members]))]
    return groups


def rows_of(models: list[Model], scans: Collection[str], column: str) -> tuple[list[Model], pd.DataFrame]:
    """The models with the rows of these scans only, and scan_id and a column of all of them. Where the column is of the
    scan, not of its views, a field that is empty in some rows of a scan is filled from the others."""
    models = [replace(model, rows=model.rows[model.rows["scan_id"].isin(scans)]) for model in models]
    rows = pd.concat([model.rows[["scan_id", column]].assign(file=model.file) for model in models])
    known = rows[rows[column] != ""]
    if column != "view" and (known.groupby(["scan_id", "file"])[column].nunique() == 1).all():
        refuse_conflicts(known, column)
        of_scan = known.groupby("scan_id")[column].first()
        models = [replace(model, rows=model.rows.assign(**{column: model.rows["scan_id"].map(of_scan).fillna("")}))
                  for model in models]
        rows = pd.concat([model.rows[["scan_id", column]] for model in models])
    return models, rows


def label_values(rows: pd.DataFrame, column: str, others: Iterable[str] = ()) -> dict[str, str]:
    """{text of a column: name of its subgroup}, in the order of the subgroups, which are those of `rows`, of `rows_of`.

    Of `others`, fields of other scans, numbers are cut where those of `rows` are; other texts have no subgroup.
    """
    texts = set(rows[column])
    numbers = {text: number(text) for text in texts - {""}}
    if len(set(numbers.values())) <= MOST_VALUES or np.isnan(list(numbers.values())).any():
        if len(numbers) > MOST_GROUPS:
            raise InputError(f"--by {column}: has {counted(len(numbers), 'different value')}; give a column of groups")
        return {text: text or MISSING for text in [*sorted(numbers, key=by_value), *texts - set(numbers)]}
    per_scan = rows[rows[column] != ""].groupby("scan_id")[column].first().map(numbers)
    cut = np.unique(np.quantile(per_scan, [1 / 3, 2 / 3], method="lower"))
    names = [f"up to {cut[0]:g}", *(f"above {low:g}, up to {high:g}" for low, high in itertools.pairwise(cut)),
             f"above {cut[-1]:g}"]
    numbers |= {text: value for text in others if (value := number(text)) == value}
    return {text: names[int(np.searchsorted(cut, value))]
            for text, value in sorted(numbers.items(), key=lambda item: item[::-1])} | (
                {"": MISSING} if "" in texts else {})
