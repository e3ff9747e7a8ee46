"""Whether prediction files belong together: ids written alike, one cohort, or the folds of a cross-validation."""
import collections
import itertools
import re

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from common.files import InputError
from common.manifest import canonical
from common.text import ranges, some
from evaluation.ensemble import Model, folds


def check_ids(models: list[Model]) -> list[str]:
    """Refuse scan and patient ids that are the same but for how two files write them: 007 and 7, S1 and "s1 ".

    Parameters
    ----------
    models
        With the rows that are measured and, where they are read, the validation rows.

    Returns
    -------
    list of str
        Warnings that name those which one file holds side by side: they are two, as far as that file knows.

    Raises
    ------
    InputError
        Two such ids are in different files, and no file holds both: joined, the scan or patient would count twice.
    """
    warnings = []
    for column in ("scan_id", "patient_id"):
        files: dict[str, set[str]] = collections.defaultdict(set)
        alike: dict[str, list[str]] = collections.defaultdict(list)
        for model in models:
            for rows in (model.rows, model.val_rows, model.cal_rows):
                for text in rows[column].unique() if column in rows else ():
                    files[text].add(model.file)
        for text in sorted(files):
            if text.strip():
                alike[canonical(text)].append(text)
        pairs = [pair for texts in alike.values() for pair in itertools.combinations(texts, 2)]
        apart = [pair for pair in pairs if not files[pair[0]] & files[pair[1]]]
        for one, other in apart[:1]:
            raise InputError(f"{column} {one!r} in {some(sorted(files[one]), 2)} and {other!r} in "
                             f"{some(sorted(files[other]), 2)}{f', and {len(apart) - 1} more' * (len(apart) > 1)}: one "
                             "id, written in two ways? Write it alike in both files or, where they are two, rename one")
        if pairs:
            named = some((f"{one!r} and {other!r}" for one, other in pairs), 3)
            warnings.append(f"{column} {named} differ only in how they are written; they count as two")
    return warnings


def check_cohort(models: list[Model], pooled: bool, top: int | None) -> list[str]:
    """Refuse files of different cohorts, folds without --pooled_folds, and --pooled_folds without whole folds.

    Parameters
    ----------
    models
        Of `ensemble.read_models`.
    pooled : bool
        --pooled_folds.
    top : int or None
        --top.

    Returns
    -------
    list of str
        Warnings of `check_ids`.

    Raises
    ------
    InputError
        Those, and what `check_ids` and `refuse_other_cohorts` refuse.
    """
    warnings = check_ids(models)
    refuse_other_cohorts(models)
    of_folds = folds(models)
    if of_folds and not pooled:
        raise InputError("no scan is in the sets of two splits: for the folds of a cross-validation (make_splits.py "
                         "--cv) give --pooled_folds; predictions of different cohorts belong in different folders")
    if not pooled:
        return warnings
    if not of_folds:
        raise InputError("--pooled_folds: there is one split only, or two have scans in common; leave it out")
    known = {int(name[5:]) for model in models for name in map(str, model.rows) if re.fullmatch(r"split\d+", name)}
    if missing := known - {model.split for model in models}:
        warnings.append(f"there are no predictions of split {ranges(sorted(missing))}, which the manifest has, too: if "
                        "that is a fold, its scans are not measured")
    if top:
        raise InputError(f"--top {top} with --pooled_folds: leaves out the scans of whole folds; leave out --top")
    rows = pd.concat([model.rows[["patient_id"]].assign(split=model.split) for model in models
                      if "patient_id" in model.rows] or [pd.DataFrame(columns=["patient_id", "split"])])
    splits = rows[rows["patient_id"] != ""].groupby("patient_id")["split"].unique()
    for patient, found in splits[splits.map(len) > 1].items():
        raise InputError(f"--pooled_folds: patient {patient} is in the sets of splits {some(sorted(found))}, so that "
                         "each was trained on the patient's other scans; make_splits.py --cv keeps patients together")
    return warnings


def refuse_other_cohorts(models: list[Model]) -> None:
    """Raise InputError where two files each lack scans of the other that they should have, or have none in common.

    A file should have the scans that its split's column (of make_splits.py, copied by predict.py) sets apart for it, in
    whichever file they are. Without these columns it should have those of the other runs of its split, and of --set all
    those of every file. Models that see other views are not compared.
    """
    names = ["set", *dict.fromkeys(f"split{model.split}" for model in models)]
    rows = pd.concat([model.rows.drop_duplicates("scan_id").reindex(columns=["scan_id", *names]) for model in models])
    sets = rows.astype(object).groupby("scan_id").first().fillna("")  # the first that is known
    scans, wanted = sets.index, rows["set"].iloc[0]
    has = np.array([scans.isin(model.rows["scan_id"]) for model in models])  # (models, scans)
    asked = np.empty_like(has)
    for k, model in enumerate(models):
        held = sets[f"split{model.split}"]
        of_split = has[[other.split == model.split for other in models]].any(axis=0)
        asked[k] = np.where(held == "", of_split, held == wanted) | (wanted == "all")
    lacks = asked & ~has
    missing = has.astype(float) @ lacks.T.astype(float) > 0  # [i, j]: i has a scan that j lacks
    views = [frozenset(model.rows["view"]) if "view" in model.rows else None for model in models]
    missing &= np.array([[one == other for one in views] for other in views])  # else a scan may lack a model's view
    for one, other in np.argwhere(missing & missing.T)[:1]:
        raise InputError(f"{models[one].file} and {models[other].file} are of different cohorts or manifests: the "
                         f"first lacks {some(scans[has[other] & lacks[one]], 3)}, the second "
                         f"{some(scans[has[one] & lacks[other]], 3)}; predict both from one manifest, or keep them in "
                         "different folders")
    count, part = connected_components(has.astype(float) @ has.T.astype(float) > 0, directed=False)
    if count > 1 and wanted != "val" and not folds(models) and (sets[names[1:]] == "").all(axis=None):
        files = [some((model.file for model, its in zip(models, part, strict=True) if its == k), 3) for k in (0, 1)]
        raise InputError(f"no scan of {files[0]} is in {files[1]}: predictions of different cohorts belong in "
                         "different folders")
