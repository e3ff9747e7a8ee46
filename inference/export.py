"""The zip of export_models.py: see common/model_files.py for how it is read."""
import contextlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch

from common import __version__
from common.files import InputError, read_json_object, replace_file, sha256
from common.manifest import LEAKAGE, LEAKED, leakage_unnamed
from common.model_files import HEADER, SUFFIX
from common.run_files import run_file
from common.settings import base_names, commit, plain
from common.text import some
from evaluation.operating_points import FILE, check_stored
from evaluation.ranking import read_ranks
from inference.prediction import best_runs, check_best, no_best_run
from training.recorder import WEIGHTS
from utils import read_checkpoint

COLUMNS = ("split", "run", "epoch", "metric", "value", "rank")  # of best_run.csv
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the files' date in the zip: the same models give the same bytes


def best_models(folder: Path, top: int | None) -> list[dict]:
    """Rows of `prediction.best_runs` of the `top` best ranks, best first; None: all. Raises InputError."""
    path = folder / "best_run.csv"
    if not path.is_file():
        raise no_best_run(folder)
    splits = [split for split, _ in read_ranks(path)]
    if top and top > len(splits):
        raise InputError(f"--top {top}: {path} ranks {len(splits)}")
    return best_runs(folder, splits[:top])[0]


@contextlib.contextmanager
def new_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to write to, there whole or not at all. Raises InputError for a name that does not say what it is."""
    if path.suffix.lower() != ".zip":
        raise InputError(f"--output {path}: must end in .zip, by which other scripts know it")
    with replace_file(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        yield archive


def add_model(archive: zipfile.ZipFile, run: dict, precision: str, folder: Path) -> dict[str, Any]:
    """Write a model into the zip.

    Parameters
    ----------
    run : dict
        Of `best_models`.
    precision : {"half", "float32"}
    folder : Path
        Where it comes from.

    Returns
    -------
    dict
        What its file's header says, and split, run, rank, value (validation AUC).

    Raises
    ------
    InputError
        It is another checkpoint than was ranked, LARS's own, or its weights do not fit half precision.
    """
    path = run["path"]
    content = read_checkpoint(path)
    if "input" not in content:
        raise InputError(f"{path}: stores no network input, so that nobody could tell how to use it; export "
                         "networks of train.py")
    check_best(path, content, run, folder)
    header = plain({name: value for name, value in content.items() if name not in WEIGHTS})
    header["args"] = base_names(header.get("args", {}))
    if header.get(LEAKAGE):
        header[LEAKAGE] = LEAKED  # its own text names patients or scans
    header["export"] = {"version": __version__, "commit": commit(), "precision": precision,
                      "checkpoint_sha256": sha256(path)}
    tensors = {name: value.contiguous() for name, value in content["state_dict"].items()}
    if precision == "half":
        tensors = as_half(tensors, path)
    data = safetensors.torch.save(tensors, {HEADER: json.dumps(header, allow_nan=False)})
    archive.writestr(_entry(path.with_suffix(SUFFIX).name), data)
    return header | {name: run[name] for name in ("split", "run", "rank", "value")}


def as_half(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Matrices and convolutions as float16; biases and batch norms, a thousandth of the size, as they are."""
    found = {name: value.half() if value.is_floating_point() and value.dim() > 1 else value
             for name, value in tensors.items()}
    for name, value in found.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name} has values beyond half precision; give --precision float32")
    return found


def find_rules(folder: Path, models: list[dict]) -> dict | None:
    """operating_points.json, where it is of these models; None, and a line that says so, where it is not."""
    if not (stored := _of_aggregate(folder / FILE, "thresholds but 0.5")):
        return None
    now, before = checkpoints(models), stored.get("checkpoints", {})
    others = set(stored["models"]) ^ set(now)
    others |= {file for file in now if before.get(file) not in (None, now[file])}
    stored["derived_from"]["optimistic"] = leakage_unnamed(stored["derived_from"].get("optimistic"))
    return _unless(folder / FILE, others, stored, models)


def find_metrics(folder: Path, models: list[dict]) -> dict | None:
    """metrics.json, where it is of these models; None, and a line that says so, where it is not."""
    if not (stored := _of_aggregate(folder / "metrics.json", "results")):
        return None
    before, now = stored["checkpoints"], checkpoints(models)
    others = {file for file in {*before, *now} if before.get(file) != now.get(file)}
    return _unless(folder / "metrics.json", others, stored, models)


def _of_aggregate(path, what):
    """A JSON of aggregate.py; None, and a warning that the zip has no `what`, where there is none."""
    if not path.is_file():
        print(f"warning: no {path}: the zip has no {what}; aggregate.py writes it")
        return None
    stored = read_json_object(path, "models", '{"models": []}')
    try:
        if path.name == FILE:
            check_stored(stored)
        elif not isinstance(stored.get("checkpoints"), dict):
            raise ValueError("it names no checkpoints")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not of aggregate.py ({error}), or of an earlier version; run aggregate.py again, "
                         "then this") from None
    return stored


def checkpoints(models: list[dict]) -> dict[str, str]:
    """{prediction file: SHA-256 of its checkpoint} of models of `add_model`."""
    return {run_file("", "pred", each["split"], each["run"]).name: each["export"]["checkpoint_sha256"]
            for each in models}


def _unless(path, others, stored, models):
    if not others:
        return stored
    print(f"warning: {path} is of other models ({some(sorted(others), 3)}) and was left out; run predict.py and "
          f"aggregate.py --top {len(models)} again, then this")
    return None


def ranking(runs: list[dict]) -> str:
    """best_run.csv of the exported models, as text."""
    return pd.DataFrame(runs).reindex(columns=COLUMNS).to_csv(index=False, lineterminator="\n")


def add_texts(archive: zipfile.ZipFile, texts: dict[str, Any]) -> None:
    """Write texts, and JSON, into the zip; what is None is left out."""
    for name, text in texts.items():
        if text is not None:
            archive.writestr(_entry(name), text if isinstance(text, str) else json.dumps(text, indent=2) + "\n")


def _entry(name):
    entry = zipfile.ZipInfo(name, LONG_AGO)
    entry.external_attr = 0o644 << 16
    return entry
