"""Did the models see the scans that they are measured on? By the manifest, and by the digests of their training."""
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.digests import BY_ID, BY_IMAGE, NONE, NOT_CHECKED, SEEN, name_scans, overlap
from common.files import InputError, without_na
from common.manifest import LEAKAGE, LEARNED, leakage_of, read_manifest
from common.model_files import checkpoint_file, checkpoint_sha256, exists, read_settings
from common.text import counted, some
from evaluation.ensemble import Model, number

WORST = (*LEARNED, NOT_CHECKED, BY_IMAGE, BY_ID, NONE)  # values of `common.digests.overlap`, the worst first
SAID = {NONE: "by identifiers and images", BY_ID: "by identifiers alone, for lack of images' digests",
        BY_IMAGE: "by images alone: the patients could not be compared, their identifiers are of another key",
        NOT_CHECKED: "not checked"}


def rows_by_set(model: Model, wanted: str) -> dict[str, pd.DataFrame]:
    """A model's rows that thresholds may be derived from, and those that are measured, by the name of the set."""
    return {"val": model.val_rows, "cal": model.cal_rows, wanted: model.rows}


def check_manifest(models: list[Model], wanted: str, data: str | None, columns: Sequence[str] = ()) -> list[str]:
    """Compare the prediction files' sets, targets and patients with a manifest's, and these `columns`.

    Parameters
    ----------
    models
        Of `ensemble.read_models`.
    wanted : str
        The set that is measured.
    data : str or None
        The manifest; None: nothing is compared.

    Returns
    -------
    list of str
        Warnings of scans of the set that a file lacks, and of other images than the manifest's image_sha256 says.

    Raises
    ------
    InputError
        A scan is in another set than its file says, not in the manifest, or has another value there.
    """
    if not data:
        return []
    splits = sorted({model.split for model in models}) if wanted != "all" else []
    table = read_manifest(data, splits, need_target=False, need_images=False,
                          allow_leakage=bool(find_leakage(models, wanted))).assign(all="all")
    scans = table.drop_duplicates("scan_id").set_index("scan_id")
    lacking: set[str] = set()
    changed: set[str] = set()
    for model in models:
        for name, rows in rows_by_set(model, wanted).items():
            column = "all" if name == "all" else f"split{model.split}"
            if column not in scans or rows.empty:
                continue
            given = scans[column].reindex(rows["scan_id"].unique())
            if len(wrong := given[given != name].fillna("missing")):
                are = counted(len(wrong), "scan is", "scans are")
                raise InputError(f"{model.path}: of its set {name} {are} {wrong.iloc[0]} in {data} "
                                 f"({some(wrong.index, 3)}): give the manifest that was predicted, or predict again")
            for value in ("target", "patient_id", *columns):
                if value != "view" and (others := _other_values(rows, table, value)):
                    raise InputError(f"{model.path}: {value} of {counted(len(others), 'scan')} is not what {data} has "
                                     f"({some(others, 3)}): changed since? predict again, or give the manifest that "
                                     "was predicted")
            changed |= set(_other_values(rows, table, "image_sha256"))
            if name == wanted:
                lacking |= set(scans.index[scans[column] == name]) - set(rows["scan_id"])
    told = {"are in the set, but not predicted by every model: added since?": lacking,
            "have another image_sha256 than was predicted: made anew since?": changed}
    return [f"{counted(len(found), 'scan')} of {data} {text} run predict.py again: {some(sorted(found))}"
            for text, found in told.items() if found]


def _other_values(rows, table, column):
    """The scans of both tables of which `rows` has a value of `column` that `table` has not; none where it has no such
    column, or `rows` nothing in it."""
    if not {column} <= {*rows} & {*table} or (without_na(rows[column].fillna("").astype(str)) == "").all():
        return []
    if column == "image_sha256":
        rows, filled = rows[rows[column].fillna("") != ""], table[column] != ""
        table = table[filled.groupby(table["scan_id"]).transform("all")]

    def pairs(part):
        texts = without_na(part[column].fillna("").astype(str))
        same = {text: text if number(text) != number(text) else str(number(text)) for text in texts.unique()}
        return pd.MultiIndex.from_arrays([part["scan_id"], texts.map(same)])

    rows = rows[rows["scan_id"].isin(table["scan_id"])]
    return sorted(rows["scan_id"][~pairs(rows).isin(pairs(table))].unique())


def check_checkpoints(models: list[Model], folder: Path) -> None:
    """Compare the checkpoints that the models' rows are of with those that lie in `folder`, where there are any.

    Raises
    ------
    InputError
        Another one lies there: ranking, settings and training digests beside it are not of these rows.
    """
    for model in models:
        made_by = set(model.rows.get("checkpoint_sha256", ())) - {""}
        checkpoint = checkpoint_file(folder, model.split, model.run)
        if made_by and exists(checkpoint) and made_by != {checkpoint_sha256(checkpoint)}:
            raise InputError(f"{model.path}: is of another checkpoint than lies in {folder}: run predict.py again, or "
                             "give --chptfolder, the folder of its own")


def find_overlap(models: list[Model], wanted: str, folder: Path) -> tuple[dict, list[str]]:
    """Look for scans that a model was trained or validated on.

    Parameters
    ----------
    models
        Of `ensemble.read_models`, after `check_checkpoints`.
    wanted : str
        The set that is measured.
    folder : Path
        Of the models or their settings, or a zip of models, for prediction files that do not say it.

    Returns
    -------
    found : dict
        `overlap` of metrics.json: scans {value of `common.digests.overlap`, the worst of the models: scans}, text,
        optimistic, what a reader of set all must know, or None, and leakage, of `find_leakage`, where there is any.
    warnings : list of str

    Raises
    ------
    InputError
        A scan of val, test or cal was trained on, or one of test or cal validated on, without --allow_leakage.
    """
    worst: list[pd.Series] = []
    for model in models:
        for name, rows in rows_by_set(model, wanted).items():
            if rows.empty:
                continue
            known = "overlap" in rows and rows["overlap"].isin(WORST).all() and (rows["overlap"] != NOT_CHECKED).all()
            found = rows["overlap"].array if known else overlap(
                rows, (read_settings(folder, model.split, model.run) or {}).get("trained_on"))
            value = pd.Series(found, rows["scan_id"])
            for learned, (does, refused) in SEEN.items():
                if name in refused and (seen := (value == learned).to_numpy()).any() and not leakage_of(rows):
                    raise InputError(f"{model.path}: its model was {does} on {name_scans(rows, seen)} of set {name}, "
                                     "or on their patients: was make_splits.py run again since? train again, or "
                                     "predict with the splits of then")
            if name == wanted:
                worst.append(value)
    found = count_scans(pd.concat(worst))
    counts, n_seen = found["scans"], sum(found["scans"].get(name, 0) for name in LEARNED)
    warnings = [f"overlap with the models' training: {found['text']}"] if set(counts) - {NONE, *LEARNED} else []
    optimistic = (f"{n_seen} of {counted(sum(counts.values()), 'scan')}, or their patients, were trained or validated "
                  "on by a model")
    leaked = find_leakage(models, wanted)
    return found | {"optimistic": optimistic if wanted == "all" and n_seen else None} | (
        {LEAKAGE: leaked} if leaked else {}), warnings


def count_scans(values: pd.Series) -> dict:
    """How many scans the models have learned from, by the worst of what they say of a scan.

    Parameters
    ----------
    values : Series of str
        Values of `common.digests.overlap` of each model, by scan_id.

    Returns
    -------
    dict
        scans {value: scans} and text, of `overlap` of metrics.json.
    """
    ranks = values.map(WORST.index).groupby(level=0).min()
    counts = {value: n for rank, value in enumerate(WORST) if (n := int((ranks == rank).sum()))}
    return {"scans": counts, "text": _text(counts)}


def find_leakage(models: list[Model], wanted: str) -> str:
    """What was let through by --allow_leakage where the models were trained or predicted; "" where nothing was."""
    found = [leakage_of(rows) for model in models for rows in rows_by_set(model, wanted).values()]
    return some(dict.fromkeys(filter(None, found)), 3)


def _text(counts):
    seen = {name: counts.get(name, 0) for name in LEARNED}
    parts = [f"{counted(n, 'scan')} {SAID[value]}" for value, n in counts.items() if value in SAID]
    found = "none" if not any(seen.values()) else f"{seen['train']} trained on, {seen['val']} validated on"
    if not set(counts) - {NOT_CHECKED}:
        return "not checked"
    return f"{found}; compared: {', '.join(parts)}" if parts else found
