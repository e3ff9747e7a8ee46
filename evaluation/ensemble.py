"""Prediction files of several models -> one score per scan: reading, checking, joining. Imports no torch.

A model is a dict: path, file, split, run, rank (None: unranked), rows (of the set that is measured), val_rows (its own
validation scans). LARS-avg: per model the mean over a scan's views; LARS-max: their maximum; then over the models.
LARS's own files (scan_id, target, probs; no column `set`: all test) are read too.
"""
import re

import numpy as np
import pandas as pd

from common.files import InputError, progress, read_csv
from common.manifest import is_synthetic
from common.text import some

PRED_FILE = re.compile(r"pred_split(\d+)_run(\d+)\.csv")
COLUMNS = ("scan_id", "target", "probs", "set", "view", "filename", "patient_id", "synthetic", "series_description")
SITE_COLUMN = re.compile(r"L\d+|true_loc")  # of predict_loca.py, see site_ensemble.py
ENSEMBLES = {"avg": "LARS-avg", "max": "LARS-max"}
OVER_VIEWS = {"avg": "mean", "max": "max"}
MOST_VALUES = 8  # of a numeric column of --by; with more of them it is cut at its tertiles


# ---------------------------------------------------------------- models

def find_models(folder, best_run=None, top=None):
    """(models, warnings): the prediction files to use, best first.

    Args:
        folder (Path): of pred_splitS_runR.csv.
        best_run (Path): ranking by find_best_model.py; None: best_run.csv in `folder`, where it is there.
        top (int): use the models of the `top` best ranks; None: all, ranked or not.

    Raises:
        InputError: no predictions, a bad ranking, fewer models than `top`.
    """
    models = [{"path": path, "file": path.name, "split": int(match[1]), "run": int(match[2]), "rank": None}
              for path in sorted(folder.glob("pred_split*_run*.csv")) if (match := PRED_FILE.fullmatch(path.name))]
    if not models:
        raise InputError(f"{folder}: holds no pred_splitS_runR.csv; run predict.py first, or mend --dir")
    ranking = best_run or folder / "best_run.csv"
    if not best_run and not ranking.is_file():
        if top:
            raise InputError(f"--top {top}: there is no {ranking} to rank the models by; copy it there, or give "
                             "--best_run FILE (find_best_model.py writes it)")
        return sorted(models, key=lambda model: (model["split"], model["run"])), []
    ranks = read_ranks(ranking)
    for model in models:
        model["rank"] = ranks.get((model["split"], model["run"]))
    models.sort(key=lambda model: (model["rank"] is None, model["rank"], model["split"], model["run"]))
    ranked = [model for model in models if model["rank"] is not None]
    if top:
        return top_models(ranked, ranks, folder, top, ranking), []
    unranked = [model["file"] for model in models[len(ranked):]]
    return models, [f"{len(unranked)} prediction files are not in {ranking.name} and were used too: "
                    f"{some(unranked)}"] if unranked else []


def top_models(ranked, ranks, folder, top, ranking):
    """The models with the `top` best ranks; InputError where there are fewer, or the prediction of one is missing."""
    if top > len(ranked):
        raise InputError(f"--top {top}: of the models that {ranking} ranks, {folder} holds the predictions of "
                         f"{len(ranked)}; lower --top, or run predict.py with more of them")
    have = {(model["split"], model["run"]) for model in ranked}
    for split, run in sorted(ranks, key=ranks.get)[:top]:
        if (split, run) not in have:
            raise InputError(f"--top {top}: {folder}/pred_split{split}_run{run}.csv is missing, rank "
                             f"{ranks[split, run]} in {ranking}; run predict.py for split {split}")
    return ranked[:top]


def read_ranks(path):
    """best_run.csv -> {(split, run): rank}, ranks 1, 2, 3, ... each once."""
    table = read_csv(path, ("split", "run", "rank"))
    try:
        ranks = {(int(row.split), int(row.run)): int(row.rank) for row in table.itertuples()}
    except ValueError as error:
        raise InputError(f"{path}: {error}; split, run and rank must be integers") from None
    if sorted(ranks.values()) != list(range(1, len(table) + 1)):
        raise InputError(f"{path}: its ranks must be 1 to {len(table)}, each once; run find_best_model.py again")
    return ranks


# ---------------------------------------------------------------- reading

def read_models(models, wanted=None, columns=()):
    """Add to every model its `rows` of the set `wanted` and its `val_rows`, checked; return the name of that set.

    Args:
        wanted (str): train, val, test, all; None: test, or all where the files hold nothing but that.
        columns (iterable of str): further columns that every file must have.
    """
    sets = set()
    with progress(models, "reading", "model") as bar:
        for model in bar:
            table = read_csv(model["path"], ("scan_id", "probs", *columns),
                             lambda name: name in COLUMNS or name in columns or SITE_COLUMN.fullmatch(name))
            if "set" not in table:
                table["set"] = "test"
            model["rows"] = table
            sets |= set(table["set"])
    wanted = wanted or ("all" if sets == {"all"} else "test")
    for model in models:
        table, path = model["rows"], model["path"]
        if not (table["set"] == wanted).any():
            raise InputError(f"{path}: has no row with set {wanted}; the files hold "
                             f"{some(sorted(sets)) or 'no rows'}: give --set, or run predict.py --set {wanted}")
        in_sets = table.groupby("scan_id")["set"].nunique()
        for scan in in_sets.index[in_sets > 1][:1]:
            both = " and ".join(sorted(set(table.loc[table["scan_id"] == scan, "set"])))
            raise InputError(f"{path}: scan {scan} is in {both}; a scan belongs to one set of a model: mend the splits "
                             "and predict again")
        model["rows"] = check_rows(table[table["set"] == wanted], path)
        model["val_rows"] = check_rows(table[table["set"] == "val"], path)
    return wanted


def check_rows(rows, path):
    """Rows of one file as scan_id, target (1, 0 or NaN), probs and what else there is; InputError naming the line."""
    for row in rows.index[rows["scan_id"] == ""][:1]:
        raise InputError(f"{path}, line {row + 2}: scan_id is empty")
    probs = np.array([number(text) for text in rows["probs"]], dtype=float)
    for row in rows.index[~((probs >= 0) & (probs <= 1))][:1]:
        raise InputError(f"{path}, line {row + 2} (scan {rows.at[row, 'scan_id']}): probs {rows.at[row, 'probs']!r}; "
                         "it must lie in 0..1; run predict.py again")
    text = rows["target"].str.strip() if "target" in rows else rows["scan_id"].map(lambda _: "")
    target = np.array([number(value) for value in text], dtype=float)
    for row in rows.index[(text != "") & ~np.isin(target, (0, 1))][:1]:
        raise InputError(f"{path}, line {row + 2} (scan {rows.at[row, 'scan_id']}): target {text[row]!r}; it must be "
                         "0, 1 or empty")
    for column in ("filename", "view"):
        if column in rows:
            for row in rows.index[rows.duplicated(["scan_id", column]) & (rows[column] != "")][:1]:
                raise InputError(f"{path}, line {row + 2}: scan {rows.at[row, 'scan_id']} has {column} "
                                 f"{rows.at[row, column]} twice; remove one of the two rows")
    return rows.assign(probs=probs, target=target)


def number(text):
    try:
        return float(text)
    except ValueError:
        return float("nan")


# ---------------------------------------------------------------- joining

def join_scans(models, rows_of="rows"):
    """One row per scan of any model, sorted by scan_id: (DataFrame with target, patient_id where the files have it,
    n_models, n_views, synthetic; warnings). InputError where the targets or patients of a scan conflict."""
    rows = pd.concat([model[rows_of].assign(file=model["file"]) for model in models], ignore_index=True)
    refuse_conflicts(rows.dropna(subset="target"), "target")
    by_scan = rows.groupby("scan_id")
    views = rows.groupby(["scan_id", "file"]).size().groupby("scan_id")
    scans = pd.DataFrame({"target": by_scan["target"].first(), "n_models": by_scan["file"].nunique(),
                          "n_views": views.max()})
    scans["synthetic"] = is_synthetic(rows).groupby(rows["scan_id"]).any()
    warnings = []

    def warn(which, text):
        if which.any():
            warnings.append(f"{which.sum()} of {len(scans)} scans {text}: {some(scans.index[which])}")

    if "patient_id" in rows:
        known = rows[rows["patient_id"].fillna("") != ""]
        refuse_conflicts(known, "patient_id")
        scans["patient_id"] = known.groupby("scan_id")["patient_id"].first().reindex(scans.index)
        warn(scans["patient_id"].isna(), "have no patient_id and count as a patient each")
        # two blanks: the name of no patient
        scans["patient_id"] = scans["patient_id"].fillna(pd.Series("  " + scans.index, index=scans.index))
    warn(scans["n_models"] < len(models), "lack some model's prediction; their mean is over the models that have one")
    warn(views.nunique() > 1, "have more views in one model's file than in another's")
    warn(scans["n_views"] == 1, "have one view only")
    if not rows.columns.intersection(["filename", "view"]).size:
        warn(scans["n_views"] > 2, "have more than two rows; without column filename or view they may be duplicates")
    if scans["target"].notna().any():
        warn(scans["target"].isna(), "have no target and are left out of the metrics")
    return scans, warnings


def refuse_conflicts(rows, column):
    """InputError where a scan has two values of a column; rows has scan_id, that column and file."""
    counts = rows.groupby("scan_id")[column].nunique()
    for scan in counts.index[counts > 1][:1]:
        files = rows[rows["scan_id"] == scan].groupby(column)["file"].unique()
        held = (f"{value if column != 'target' else int(value)} in {some(sorted(names))}"
                for value, names in list(files.items())[:2])
        raise InputError(f"scan {scan} has {column} {f' and {column} '.join(held)}; mend the manifest and predict "
                         "again")


def patients(scans):
    """(n,) ids of what the statistics take as independent, or None: every scan."""
    return scans["patient_id"].to_numpy() if "patient_id" in scans else None


def score_models(models, scans, name, rows_of="rows"):
    """DataFrame scan x model of each model's own score, in the order of `scans`; NaN where a model lacks the scan."""
    def scores(rows):  # sorted: a sum of floats depends on its order
        return rows.sort_values(["scan_id", "probs"]).groupby("scan_id")["probs"].agg(OVER_VIEWS[name])

    return pd.DataFrame({f"probs_{k}": scores(model[rows_of]) for k, model in enumerate(models)}, index=scans.index)


def combine(scores, how="mean"):
    """The mean or median over the models that have the scan; the sum is over sorted values, whatever the order."""
    ordered = np.sort(scores.to_numpy(dtype=float), axis=1)
    return pd.Series(getattr(np, f"nan{how}")(ordered, axis=1), index=scores.index)


# ---------------------------------------------------------------- validation

def validation_scans(models, scans):
    """The scans to derive thresholds from: (scans of `join_scans` or None, what happened as a dict for metrics.json).

    A scan counts for the models alone whose own validation set it is in: the others trained on it, or hold it for
    testing. Scans, and scans of patients, that are measured are left out.
    """
    if all(model["val_rows"].empty for model in models):
        return None, {"n_scans": 0, "reason": "the files hold no validation predictions"}
    found, _ = join_scans(models, "val_rows")
    found = found[found["target"].notna()]
    shared = found.index.isin(scans.index)
    if "patient_id" in found and "patient_id" in scans:
        shared |= found["patient_id"].isin(set(scans["patient_id"])).to_numpy()
    kept = found[~shared]
    counts = kept["n_models"].value_counts().sort_index()
    about = {"n_scans": len(kept), "n_positive": int((kept["target"] == 1).sum()),
             "n_patients": int(kept["patient_id"].nunique()) if "patient_id" in kept else None,
             "models_per_scan": {str(models_): int(count) for models_, count in counts.items()},
             "left_out_because_measured": int(shared.sum())}
    if kept["target"].nunique() < 2:
        reason = "all of them, or scans of their patients, are measured" if kept.empty else "they are of one class"
        return None, about | {"reason": f"of {len(found)} validation scans {len(kept)} can be used: {reason}"}
    return kept, about


# ---------------------------------------------------------------- subgroups

def subgroups(models, scans, column):
    """{value of a column: (models with only its rows, scans with only its scans)}, sorted; views split a scan's rows.

    A numeric column of more than eight values is cut at the tertiles of the scans. Empty fields: "(missing)".
    """
    rows = pd.concat([model["rows"][["scan_id", column]].assign(file=model["file"]) for model in models])
    if (rows.groupby(["scan_id", "file"])[column].nunique() == 1).all():  # of the scan, not of the view
        refuse_conflicts(rows, column)
    numbers = pd.to_numeric(rows[column].where(rows[column] != ""), errors="coerce")
    cut = None
    if numbers.nunique() > MOST_VALUES and numbers.notna().eq(rows[column] != "").all():
        per_scan = numbers.groupby(rows["scan_id"]).first().dropna()
        cut = np.unique(np.quantile(per_scan, [1 / 3, 2 / 3], method="lower"))

    def label(text):
        if text == "":
            return "(missing)"
        if cut is None:
            return text
        k = int(np.searchsorted(cut, float(text)))  # (.., low], (low, high], (high, ..)
        low, high = f"above {cut[k - 1]:g}" if k else "", f"up to {cut[k]:g}" if k < len(cut) else ""
        return ", ".join(filter(None, (low, high)))

    labels = {text: label(text) for text in rows[column].unique()}
    if cut is None and len(labels) > 30:
        raise InputError(f"--by {column}: has {len(labels)} different values; give a column of groups")
    order = sorted(labels, key=lambda text: (text == "", number(text) if cut is not None else 0, text))
    groups = {}
    for value in dict.fromkeys(labels[text] for text in order):
        mine = [model | {"rows": model["rows"][model["rows"][column].map(labels) == value]} for model in models]
        names = set().union(*(model["rows"]["scan_id"] for model in mine))
        groups[value] = mine, scans[scans.index.isin(names)]
    return groups
