"""What a report says about where its numbers come from: this run, the models' settings, the flow of the cohort."""
import collections
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from common import __version__
from common.files import InputError, read_csv, sha256, without_na
from common.manifest import SETS, leakage_of, read_manifest
from common.model_files import is_export, read_settings
from common.run_files import run_file
from common.settings import base_names, commit
from common.text import counted, ranges, some
from evaluation import cohort_table
from evaluation.ensemble import Model, rows_of

VALUES = {"commit": "commit", "data_hash": "data hash", "epoch": "epoch kept", "device": "device",
          "precision": "precision", "threads": "threads", "processes": "processes"}  # of the settings -> name shown
GROUPS = {"versions": "version of ", "input": "input: ", "args": "--"}  # dicts among them -> prefix of their names
LIBRARIES = ("numpy", "pandas", "scipy", "scikit-learn", "matplotlib")
IMAGES = {"spacing_mm": "pixels in mm:", "suv_type": "type of SUV:"}  # columns of a manifest -> what they tell
ACQUISITION = ("scanner", "uptake_min", "units")
REMEDY = "train.py --resume with the options of a finished run writes its settings without training"


def this_run(files: Iterable[str | Path | None]) -> dict:
    """What made the numbers of this process: `provenance` of metrics.json; no date, so that a run can be repeated.

    Parameters
    ----------
    files
        What it may have read; None and what is not there are left out.

    Returns
    -------
    dict
        version; commit (of `settings.commit`); command, without folders; versions {library: version}; inputs {file's
        name, after that of its folder where several have it: SHA-256}.
    """
    paths = [path for path in dict.fromkeys(Path(path) for path in files if path) if path.is_file()]
    names = collections.Counter(path.name for path in paths)
    inputs: dict[str, str] = {}
    for path in paths:
        name = path.name if names[path.name] == 1 else f"{path.resolve().parent.name}/{path.name}"
        inputs[name + f" ({len(inputs)})" * (name in inputs)] = sha256(path)
    words = [before + equals + base_names(word) for before, equals, word in (word.rpartition("=") for word in sys.argv)]
    return {"version": __version__, "commit": commit(), "command": shlex.join(words),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            "inputs": inputs}


def model_files(folder: Path, models: list[Model]) -> list[Path]:
    """Each model's predictions, and in `folder` its settings, there or not; a zip of models as a whole."""
    return [path for model in models for path in (
        model.path, folder if is_export(folder) else run_file(folder, "settings", model.split, model.run))]


def models_settings(folder: Path, models: list[Model]) -> tuple[list[dict], list[str]]:
    """The models' settings by settings_splitS_runR.json in `folder`, which train.py writes beside a checkpoint, or by a
    zip of models.

    Returns
    -------
    rows : list of dict
        {"name": setting, "values": [text for each model]}; [] where no model has the file.
    warnings : list of str
        Which files are missing or cannot be read.
    """
    found, missing, warnings = [], [], []
    for model in models:
        content: dict | None = {}
        try:
            content = read_settings(folder, model.split, model.run)
        except InputError as error:
            warnings.append(str(error))
        if content is None:
            missing.append(run_file(folder, "settings", model.split, model.run).name)
            content = {}
        values = {shown: content[key] for key, shown in VALUES.items() if key in content}
        for key, before in GROUPS.items():
            values |= {f"{before}{name}": value for name, value in content.get(key, {}).items() if name != "help_all"}
        found.append({name: " ".join(map(str, value)) if isinstance(value, list) else str(value)
                      for name, value in values.items()})
    rows = [{"name": name, "values": [each.get(name, "not stored") for each in found]}
            for name in dict.fromkeys(name for each in found for name in each)]
    if missing and len(missing) < len(found):
        warnings.insert(0, f"no settings in {folder} of {counted(len(missing), 'model')}: {some(missing)}; {REMEDY}")
    return rows, warnings


def cohort_flow(models: list[Model], wanted: str, data: str | None = None, by: Sequence[str] = (),
                cohorts: Mapping[str, list[Model]] | None = None) -> dict:
    """Scans, patients and scans with target 1 of each split's sets; from a manifest exclusions and Table 1, too.

    Parameters
    ----------
    models
        Of `ensemble.read_models`.
    wanted : str
        The set that is measured.
    data : str or None
        A manifest, for the training sets and, in errors.csv beside it, the refused studies; None: what the prediction
        files hold.
    by : sequence of str
        Columns of Table 1's further groups.
    cohorts : mapping or None
        {name: the models' files of another cohort}, which Table 1 has beside the sets.

    Returns
    -------
    dict
        rows: list of dict (split, set, scans, patients, positive); source; manifest: of `manifest_facts`, None without
        `data`; excluded: {attribute: lines of errors.csv} or None. With `data` refused: studies in errors.csv; masks:
        scans whose lesion mask is there, too; scans: DataFrame by scan_id (set, labelled, positive, patient);
        table_one, left_out: of `cohort_table.table_one` and `described`.
    """
    if data:
        return _manifest_flow(models, wanted, Path(data), by, cohorts or {})
    rows = []
    for model in models:
        rows.append(_counts(model.rows, model.file, wanted))
        rows += [_counts(of, model.file, name) for name, of in {"val": model.val_rows, "cal": model.cal_rows}.items()
                 if len(of) and wanted != name]
    return {"rows": rows, "excluded": None, "manifest": None, "source": "the prediction files, which hold no training "
            "scans and no exclusions; aggregate.py --data CSV counts them"}


def _manifest_flow(models, wanted, data, by, cohorts):
    splits = sorted({model.split for model in models})
    if wanted == "all" and not read_csv(data, (), lambda name: name in {f"split{split}" for split in splits}).size:
        splits = []  # new patients
    table = read_manifest(data, splits, need_target=False, need_images=False, allow_leakage=True)  # said before
    scans = table.drop_duplicates("scan_id")[table.columns.intersection(
        ["scan_id", "patient_id", "target", *(f"split{split}" for split in splits)])]
    sets = [(scans[scans[f"split{split}"] == name], f"split {split}", name) for split in splits for name in SETS
            if name != "cal" or "cal" in set(scans[f"split{split}"])]
    flow = {"rows": [_counts(*each) for each in [(scans, "manifest", "all"), *sets]], "excluded": None,
            "source": data.name, "manifest": manifest_facts(table, splits), "masks": 0}
    errors = data.with_name("errors.csv")
    if errors.is_file():
        lines = read_csv(errors, ("attribute",))
        flow["excluded"] = dict(collections.Counter(lines["attribute"]).most_common())
        flow["refused"] = lines["study"].nunique() if "study" in lines else len(lines)
        if "warnings" in table:
            flow["masks"] = table.loc[table["warnings"].str.contains("no mask was used"), "scan_id"].nunique()
    measured = {scan for model in models if "target" in model.rows for scan in model.rows.dropna(
        subset="target")["scan_id"]}
    return flow | cohort_table.of_manifest(
        table, splits, {column: rows_of(models, measured, column)[1] for column in by},
        {name: _cohort_rows(of, set(table.columns)) for name, of in cohorts.items()})


def _cohort_rows(models, columns):
    """A cohort's rows with the manifest's columns, each scan's of the first model that has it."""
    found: list[pd.DataFrame] = []
    for model in models:
        known = set().union(*(rows["scan_id"] for rows in found))
        if not set(model.rows["scan_id"]) <= known:
            rows = read_csv(model.path, ("scan_id",), columns.__contains__)
            found.append(rows[rows["scan_id"].isin(model.rows["scan_id"]) & ~rows["scan_id"].isin(known)])
    return pd.concat(found)


def manifest_facts(table: pd.DataFrame, splits: list[int]) -> dict:
    """What a checklist can say of a manifest.

    Returns
    -------
    dict
        splits: names of the models' split columns, "" without; patients: whether it says whose scans are; leaks:
        whether something is in two sets; images: texts about their making; acquisition: columns that tell how a scan
        was acquired, and of how many scans.
    """
    scans = table.drop_duplicates("scan_id")
    images = [f"{name} {scans[column].iloc[0]}" for column, name in IMAGES.items() if column in scans]
    if "warnings" in scans:
        images.append(f"with warnings: {(scans['warnings'] != '').sum()} of {counted(len(scans), 'scan')} (column "
                      "warnings)")
    filled = {name: int((without_na(scans[name]) != "").sum()) for name in ACQUISITION if name in scans}
    acquisition = [f"{name} of " + ("each scan" if n == len(scans) else f"{n} of {counted(len(scans), 'scan')}")
                   for name, n in filled.items() if n]
    return {"splits": f"split{ranges(splits)}" if splits else "", "patients": "patient_id" in scans,
            "leaks": bool(leakage_of(table)), "images": images, "acquisition": acquisition}


def _counts(table, split, name):
    scans = table.drop_duplicates("scan_id")
    positive = int((pd.to_numeric(scans["target"], errors="coerce") == 1).sum()) if "target" in scans else None
    patients = None
    if "patient_id" in scans:  # a scan without one counts as a patient, as in `ensemble.join_scans`
        known = scans["patient_id"].str.strip() != ""
        patients = int(scans.loc[known, "patient_id"].nunique() + (~known).sum())
    return {"split": split, "set": name, "scans": len(scans), "patients": patients, "positive": positive}
