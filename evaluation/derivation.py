"""Which scans thresholds and recalibration are derived from: the calibration set, or each model's own validation scans.

A mean over many models varies less than one over few: what is derived from means over few does not fit means over many
(a threshold misses its target, a recalibration leaves slopes above 1). So a score is given only what was derived from
scores of the same models. The calibration set, on which no model was trained or chosen, gives means over all of them.
Validation sets differ from split to split: they give a threshold and a recalibration for each model alone, and for a
mean only where its models share most of them, as the runs of one split do.
"""
from dataclasses import dataclass, replace

import pandas as pd

from common.files import InputError
from common.text import counted, some
from evaluation.ensemble import Model, folds, join_scans

CALIBRATION, VALIDATION = "calibration set", "validation predictions"
MEASURED = "the scans that are measured"
PREDICT = "predict.py --set val test writes validation predictions"
LEAVE_OUT = "leave that model out, or give all a calibration set of both classes (make_splits.py --calibration)"
SHARED = 0.5  # share of the scans that any of some models has, which all must have for their mean to be used


@dataclass
class Basis:
    """Models, their rows being those to derive from, and the scans of both classes that all of them have."""
    models: list[Model]
    scans: pd.DataFrame


def averaged_together(models: list[Model]) -> list[list[Model]]:
    """The models that a scan's score is the mean of: all, or of folds the runs of each."""
    return [[model for model in models if model.split == split] for split in folds(models)] or [models]


def find_bases(models: list[Model], scans: pd.DataFrame, on_test: bool) -> tuple[dict[frozenset[str], Basis], dict]:
    """What to derive from for each model alone, and for the means that can be.

    Scans, and scans of patients, that are measured are left out; of folds those that are measured by the same models.

    Parameters
    ----------
    models, scans
        Of `ensemble.read_models` and `ensemble.join_scans`.
    on_test : bool
        Derive from the scans that are measured.

    Returns
    -------
    bases : dict
        {files of the models: Basis}; {} where a model has no scans, or none of a class.
    about : dict
        What metrics.json says of them; n_scans, n_positive, n_patients, models_per_scan: of those for the means or,
        where a mean has none, of all; without bases reason, and remedy.

    Raises
    ------
    InputError
        Some files hold a calibration set, others do not; the targets or patients of a scan conflict.
    """
    source, members = _sources(models, scans, on_test)
    if all(model.rows.empty for model in members):
        return {}, {"source": None, "n_scans": 0, "reason": "the files hold no validation predictions",
                    "remedy": PREDICT}
    by_file = {model.file: model for model in members}
    found = scans if on_test else join_scans(members)[0]
    found = found[found["target"].notna()]
    has = pd.DataFrame({file: found.index.isin(model.rows.get("scan_id", ())) for file, model in by_file.items()},
                       index=found.index)
    bases: dict[frozenset[str], Basis] = {}
    left, reasons, groups = 0, [], averaged_together(models)
    for group in groups:
        files = [model.file for model in group]
        measured = _measured(found, scans, group, len(files) < len(models)) & (not on_test)
        left += int((measured & has[files].any(axis=1)).sum())
        for subset in dict.fromkeys([(*files,), *((file,) for file in files)]):
            held = has[[*subset]]
            kept = found[held.all(axis=1) & ~measured]
            if kept["target"].nunique() == 2 and len(kept) >= SHARED * (held.any(axis=1) & ~measured).sum():
                bases[frozenset(subset)] = Basis([by_file[file] for file in subset], kept)
            elif len(subset) == 1:
                why = "they are of one class" if len(kept) else "all of them, or scans of their patients, are measured"
                reasons.append({"reason": f"of {counted(int(held[subset[0]].sum()), 'scan')} in the {source} of "
                                          f"{subset[0]} {len(kept)} can be used: {why}", "remedy": LEAVE_OUT}
                               if held.any(axis=None) else
                               {"reason": f"{subset[0]} holds no {source}", "remedy": PREDICT})
    means = [bases[key] for key in (frozenset(model.file for model in group) for group in groups) if key in bases]
    counted_from = means if len(means) == len(groups) else bases.values()
    used = found.index.isin([scan for basis in counted_from for scan in basis.scans.index])
    kept, sizes = found[used], has[used].sum(axis=1).value_counts().sort_index()
    about = {"source": source, "n_scans": len(kept), "n_positive": int((kept["target"] == 1).sum()),
             "n_patients": int(kept["patient_id"].nunique()) if "patient_id" in kept else None,
             "models_per_scan": {str(size): int(n) for size, n in sizes.items()}, "left_out_because_measured": left}
    return ({}, about | {"source": None} | reasons[0]) if reasons else (bases, about)


def _sources(models, scans, on_test):
    """Where from, and the models with the rows to derive from."""
    if on_test:
        return MEASURED, models
    with_cal = {model.file for model in models
                if len(model.cal_rows) and not model.cal_rows["scan_id"].isin(scans.index).all()}
    lacking = [model.file for model in models if model.file not in with_cal]
    if with_cal and lacking:
        raise InputError(f"no calibration set in {len(lacking)} of {counted(len(models), 'prediction file')}: "
                         f"{some(lacking)}; run predict.py --set cal val test with these models, too")
    return ((CALIBRATION, [replace(model, rows=model.cal_rows) for model in models]) if with_cal else
            (VALIDATION, [replace(model, rows=model.val_rows) for model in models]))


def _measured(found, scans, group, is_fold):
    """Which of the scans, or of their patients, are measured: of folds, by the models of the group."""
    if is_fold:
        scans = scans[scans.index.isin(pd.concat([model.rows["scan_id"] for model in group]))]
    shared = pd.Series(found.index.isin(scans.index), index=found.index)
    if "patient_id" in found and "patient_id" in scans:
        shared |= found["patient_id"].isin(scans["patient_id"])
    return shared
