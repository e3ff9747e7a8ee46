"""What a report says about where its numbers come from: the models' settings, the cohort's flow, TRIPOD+AI items.

No torch: of a checkpoint only the part that holds names and numbers is read, and nothing in it is executed.
"""
import collections
import pickle
import zipfile
from pathlib import Path

from common.files import InputError, read_csv
from common.manifest import read_manifest

VALUES = {"commit": "commit", "data_hash": "data hash", "epoch": "best epoch", "device": "device",
          "precision": "precision", "threads": "threads", "processes": "processes"}  # of a checkpoint -> name shown
GROUPS = {"versions": "version of ", "input": "input: ", "args": "--"}  # dicts of it -> what stands before their names


class Placeholder:
    """Stands for every object that is no plain data: tensors, NumPy scalars."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


class _PlainData(pickle.Unpickler):
    """Unpickles dicts, lists, texts and numbers; resolves no other name, so that nothing is imported or called."""

    def find_class(self, module, name):
        return collections.OrderedDict if (module, name) == ("collections", "OrderedDict") else Placeholder

    def persistent_load(self, pid):
        return None


def read_settings(path):
    """A checkpoint -> what it holds of VALUES and GROUPS; of LARS's own that is the epoch only.

    Raises InputError where the file is no checkpoint as torch.save writes them (since PyTorch 1.6, a zip archive).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as file:
                content = _PlainData(file).load()
        kept = {key: content.get(key) for key in (*VALUES, *GROUPS)}
    except (OSError, StopIteration, zipfile.BadZipFile, pickle.UnpicklingError, EOFError, AttributeError, TypeError,
            ValueError, IndexError, KeyError, ImportError) as error:
        raise InputError(f"{path}: its settings cannot be read: {error}") from None
    return {key: value for key, value in kept.items() if isinstance(value, dict if key in GROUPS else str | int)}


def models_settings(folder, models):
    """(table rows, warnings) of the models' settings: each a dict model -> shown text, by the checkpoints in `folder`.

    Rows: {"name": setting, "values": [text per model]}, in the order of the checkpoints' args.
    """
    found, missing, unreadable = [], [], []
    for model in models:
        path = Path(folder) / f"checkpoint_split{model['split']}_run{model['run']}.pth"
        if not path.is_file():
            found.append({})
            missing.append(path.name)
            continue
        try:
            found.append(read_settings(path))
        except InputError as error:
            found.append({})
            unreadable.append(str(error))
    if len(missing) == len(models):
        return [], []
    flat = [{shown: content[key] for key, shown in VALUES.items() if key in content}
            | {f"{before}{name}": value for key, before in GROUPS.items()
               for name, value in content.get(key, {}).items()}
            for content in found]
    names = dict.fromkeys(name for each in flat for name in each)
    rows = [{"name": name, "values": [_shown(each[name]) if name in each else "not stored" for each in flat]}
            for name in names]
    lacking = [f"{len(missing)} models have no checkpoint in {folder}: {', '.join(missing[:5])}"] if missing else []
    return rows, lacking + unreadable


def _shown(value):
    if isinstance(value, Placeholder):
        return "not readable"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def cohort_flow(models, measured, data=None):
    """Scans, patients and scans with target 1 per set, as rows of texts, and what was excluded.

    Args:
        models: of ensemble.read_models; measured (dict): metrics.json. data: a manifest, for the training sets and, in
            errors.csv beside it, the refused studies; None: what the prediction files hold.

    Returns:
        dict: rows (list of dicts), excluded ({reason: count} or None), source (text).
    """
    excluded = None
    if data:
        splits = sorted({model["split"] for model in models})
        table = read_manifest(data, splits, need_target=False, need_images=False)
        rows = [_counts(table[table[f"split{split}"] == name], f"split {split}", name)
                for split in splits for name in ("train", "val", "test")]
        rows.insert(0, _counts(table, "manifest", "all"))
        errors = Path(data).with_name("errors.csv")
        if errors.is_file():
            excluded = dict(collections.Counter(read_csv(errors, ("attribute",))["attribute"]).most_common())
        return {"rows": rows, "excluded": excluded, "source": f"{Path(data).name}"}
    rows = []
    for model in models:
        rows.append(_counts(model["rows"], model["file"], measured["set"]))
        if len(model["val_rows"]) and measured["set"] != "val":
            rows.append(_counts(model["val_rows"], model["file"], "val"))
    return {"rows": rows, "excluded": excluded, "source": "the prediction files, which hold no training scans and no "
            "exclusions; aggregate.py --data CSV counts them"}


def _counts(table, split, name):
    scans = table.drop_duplicates("scan_id")
    known = "target" in scans
    return {"split": split, "set": name, "scans": len(scans),
            "patients": int(scans["patient_id"].nunique()) if "patient_id" in scans else None,
            "positive": int((scans["target"].astype(str).isin(("1", "1.0"))).sum()) if known else None}


# Items of TRIPOD+AI in short words of our own: Collins GS et al. BMJ 2024;385:e078378. None: the author must.
AUTHOR = None
TRIPOD_AI = (
    ("1", "Title: development or evaluation, of a prediction model, population, outcome", AUTHOR),
    ("2", "Abstract, by TRIPOD+AI for Abstracts", AUTHOR),
    ("3a", "Background: healthcare context and why the model is needed, existing models", AUTHOR),
    ("3b", "Target population, purpose and place in care, intended users", AUTHOR),
    ("3c", "Known inequalities in health between groups", AUTHOR),
    ("4", "Objectives: development, evaluation or both", AUTHOR),
    ("5a", "Sources of data, and how representative they are", "cohort"),
    ("5b", "Dates of the data", AUTHOR),
    ("6a", "Setting: number and place of centres", AUTHOR),
    ("6b", "Eligibility of participants", AUTHOR),
    ("6c", "Treatments received", AUTHOR),
    ("7", "Data preparation and quality checks", "preparation"),
    ("8a", "Outcome: definition, time, how it was assessed", "outcome"),
    ("8b", "Who assessed the outcome, their experience", AUTHOR),
    ("8c", "Blinding of that assessment", AUTHOR),
    ("9a", "Choice of predictors", "predictors"),
    ("9b", "Definition and measurement of predictors", "predictors"),
    ("9c", "Who assessed predictors that need judgement", "no_judgement"),
    ("10", "Sample size and how it was reached", "sample_size"),
    ("11", "Missing data", "missing"),
    ("12a", "How the data were used and divided", "partition"),
    ("12b", "How predictors were handled in the analysis", "predictors"),
    ("12c", "Type of model, all steps of building it, internal validation", "model"),
    ("12d", "Differences between clusters (hospitals, scanners)", "heterogeneity"),
    ("12e", "Measures and plots of performance, and why", "measures"),
    ("12f", "Updating of the model (recalibration)", "updating"),
    ("12g", "How the predictions were computed", "prediction"),
    ("13", "Class imbalance and what was done about it", "imbalance"),
    ("14", "Fairness: approaches and their reasons", "fairness"),
    ("15", "Output of the model: probabilities, classes, thresholds", "output"),
    ("16", "Differences between training and evaluation data", AUTHOR),
    ("17", "Ethical approval and consent", AUTHOR),
    ("18a", "Funding", AUTHOR),
    ("18b", "Conflicts of interest", AUTHOR),
    ("18c", "Protocol", AUTHOR),
    ("18d", "Registration", AUTHOR),
    ("18e", "Availability of data", AUTHOR),
    ("18f", "Availability of code", "code"),
    ("19", "Involvement of patients and the public", AUTHOR),
    ("20a", "Flow of participants", "cohort"),
    ("20b", "Characteristics of participants", AUTHOR),
    ("20c", "Development and evaluation data compared", AUTHOR),
    ("21", "Numbers of participants and outcomes in each analysis", "sample_size"),
    ("22", "The full model, so that others can predict with it", "specification"),
    ("23a", "Performance with intervals, also in subgroups", "performance"),
    ("23b", "Heterogeneity of performance between clusters", "heterogeneity"),
    ("24", "Results of updating", "updating"),
    ("25", "Interpretation, with fairness, in context", AUTHOR),
    ("26", "Limitations", AUTHOR),
    ("27a", "Handling of poor or missing input in use", "preparation"),
    ("27b", "What users must do and know", AUTHOR),
    ("27c", "Next steps of research", AUTHOR),
)


def tripod_answers(metrics, flow, settings):
    """{key of TRIPOD_AI: what this run can say about it}; keys without an answer are left to the author."""
    measured, about = metrics["avg"], metrics["validation"]
    unit = metrics["independent_unit"]
    by = ", ".join(metrics["subgroups"])
    arch = {name: next((row["values"] for row in settings if row["name"] == f"--{name}"), None)
            for name in ("weights", "balance", "oversample")}

    def one(name):
        return " / ".join(dict.fromkeys(arch[name])) if arch[name] else "not stored"

    answers = {
        "cohort": f"In part: section Cohort, from {flow['source']}.",
        "preparation": "In part: DICOM to SUV and MIPs by prepro_script.py, which refuses studies that give no "
                       "trustworthy SUV; its qc.html and errors.csv list them.",
        "outcome": "In part: Deauville 4–5 against 1–3, column target. Who read it and how is the author's.",
        "predictors": "Coronal and sagittal maximum intensity projections of the SUV of one FDG PET series; no others.",
        "no_judgement": "No predictor needs a reader's judgement.",
        "sample_size": f"In part: {measured['n']} scans, {measured['n_positive']} with Deauville 4–5, measured; see "
                       "Cohort. Why so many is the author's.",
        "missing": f"{len(metrics['scans_lacking_a_model'])} scans lack a model's prediction and are averaged over the "
                   f"others; {metrics['n_scans'] - measured['n']} have no label and are left out.",
        "partition": f"{len(metrics['models'])} models, each with its own training and validation scans (Cohort); "
                     f"thresholds: {about['source'] or 'none but 0.5'}.",
        "model": "In part: ResNet34 with one input channel, an ensemble of them; settings under Models.",
        "measures": "Section Methods of this page.",
        "updating": f"Recalibration: {metrics['recalibrate'] or 'none'}.",
        "prediction": f"Per model the mean (LARS-avg) or maximum (LARS-max) over the views, then the "
                      f"{metrics['combine']} over the models.",
        "output": "Probability of Deauville 4–5; thresholds and where they come from: section Operating points.",
        "performance": f"Results; intervals by {unit}" + (f"; subgroups: {by}." if by else "; subgroups: none (--by)."),
    }
    if settings:
        answers |= {"imbalance": f"Weights by class (--balance): {one('balance')}; repetition of the rarer class "
                                 f"(--oversample): {one('oversample')}.",
                    "specification": "In part: architecture and settings under Models; weights in the checkpoints.",
                    "code": "In part: the commit under Models."}
    if by:
        answers |= {"heterogeneity": f"In part: performance by {by}.", "fairness": f"In part: performance by {by}."}
    return answers
