"""What a report says about where its numbers come from: the models' settings and the flow of the cohort."""
import collections
from pathlib import Path

import pandas as pd

from common.files import InputError, read_csv, read_json_object
from common.manifest import SETS, read_manifest
from common.run_files import run_file
from common.text import some
from evaluation.ensemble import Model

VALUES = {"commit": "commit", "data_hash": "data hash", "epoch": "best epoch", "device": "device",
          "precision": "precision", "threads": "threads", "processes": "processes"}  # of the settings -> name shown
GROUPS = {"versions": "version of ", "input": "input: ", "args": "--"}  # dicts among them -> prefix of their names
REMEDY = "train.py --resume with the options of a finished run writes its settings without training"


def models_settings(folder: Path, models: list[Model]) -> tuple[list[dict], list[str]]:
    """The models' settings by their settings_splitS_runR.json in `folder`, which train.py writes beside a checkpoint.

    Returns
    -------
    rows : list of dict
        {"name": setting, "values": [text for each model]}; [] where no model has the file.
    warnings : list of str
        Which files are missing or cannot be read.
    """
    found, missing, warnings = [], [], []
    for model in models:
        path, content = run_file(folder, "settings", model.split, model.run), {}
        if not path.is_file():
            missing.append(path.name)
        else:
            try:
                content = read_json_object(path, "settings", '{"args": {"lr": 0.01}}')
            except InputError as error:
                warnings.append(str(error))
        values = {shown: content[key] for key, shown in VALUES.items() if key in content}
        for key, before in GROUPS.items():
            values |= {f"{before}{name}": value for name, value in content.get(key, {}).items()}
        found.append({name: " ".join(map(str, value)) if isinstance(value, list) else str(value)
                      for name, value in values.items()})
    rows = [{"name": name, "values": [each.get(name, "not stored") for each in found]}
            for name in dict.fromkeys(name for each in found for name in each)]
    if missing and len(missing) < len(found):
        warnings.insert(0, f"{len(missing)} models have no settings in {folder}: {some(missing)}; {REMEDY}")
    return rows, warnings


def cohort_flow(models: list[Model], wanted: str, data: str | None = None) -> dict:
    """Scans, patients and scans with target 1 of each split's sets, and the studies that were excluded.

    Parameters
    ----------
    models
        Of `ensemble.read_models`.
    wanted : str
        The set that is measured.
    data : str or None
        A manifest, for the training sets and, in errors.csv beside it, the refused studies; None: what the prediction
        files hold.

    Returns
    -------
    dict
        rows: list of dict (split, set, scans, patients, positive); excluded: {attribute: studies} or None; source.
    """
    if data:
        excluded, splits = None, sorted({model.split for model in models})
        table = read_manifest(data, splits, need_target=False, need_images=False)
        sets = [(table[table[f"split{split}"] == name], f"split {split}", name) for split in splits for name in SETS
                if name != "cal" or "cal" in set(table[f"split{split}"])]
        errors = Path(data).with_name("errors.csv")
        if errors.is_file():
            excluded = dict(collections.Counter(read_csv(errors, ("attribute",))["attribute"]).most_common())
        rows = [_counts(*each) for each in [(table, "manifest", "all"), *sets]]
        return {"rows": rows, "excluded": excluded, "source": Path(data).name}
    rows = []
    for model in models:
        rows.append(_counts(model.rows, model.file, wanted))
        if len(model.val_rows) and wanted != "val":
            rows.append(_counts(model.val_rows, model.file, "val"))
    return {"rows": rows, "excluded": None, "source": "the prediction files, which hold no training scans and no "
            "exclusions; aggregate.py --data CSV counts them"}


def _counts(table, split, name):
    scans = table.drop_duplicates("scan_id")
    positive = int((pd.to_numeric(scans["target"], errors="coerce") == 1).sum()) if "target" in scans else None
    return {"split": split, "set": name, "scans": len(scans),
            "patients": int(scans["patient_id"].nunique()) if "patient_id" in scans else None,
            "positive": positive}
