"""The site head's outputs as columns of a prediction file, and what its classes mean."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, read_json_object
from common.parameter_names import find_sites, network_state
from common.renamed import current_names
from common.run_files import find_run_files
from common.sites import read_sites
from common.text import counted
from evaluation import site_metrics
from training.objectives import site_probabilities
from utils import read_checkpoint


def stored_settings(path: str | Path, site_map: str | None = None) -> dict:
    """A checkpoint's sites, site_on and site_multi; from --site_map or the 14 codes where it stores none.

    Raises InputError for a checkpoint without site head, or with another number of sites than there are names.
    """
    content = read_checkpoint(path)
    known = find_sites(network_state(content, path), {})[1]
    if not known:
        raise InputError(f"{path}: has no site head; predict.py predicts with it")
    settings = {name: content.get("model", {}).get(name) for name in ("sites", "site_on", "site_multi")}
    sites = {str(code): name for code, name in read_sites(site_map).items()}
    if settings["sites"] is None:
        settings = {"sites": sites, "site_on": "all", "site_multi": False}
    elif site_map and sites != settings["sites"]:
        raise InputError(f"{path}: was trained with other sites than those of --site_map {site_map}; leave it out")
    if len(settings["sites"]) != len(known):
        raise InputError(f"{path}: its site head has {counted(len(known), 'class', 'classes')}, not "
                         f"{len(settings['sites'])}; name them with --site_map")
    return settings


def common_settings(runs: list[dict], site_map: str | None = None) -> dict:
    """`stored_settings` of all the runs (`prediction.find_runs`). Raises InputError where they differ."""
    paths = [run["path"] for run in runs]
    settings = stored_settings(paths[0], site_map)
    for path in paths[1:]:
        if stored_settings(path, site_map) != settings:
            raise InputError(f"{path}: its site head is for other sites, --site_on or --site_multi than that of "
                             f"{paths[0]}; predict them into two folders, with --splits or --run")
    return settings


def refuse_other_sites(output: str | Path, settings: dict, runs: list[dict]) -> None:
    """Refuse (InputError) an output folder with predictions of other sites, whose sites.json `settings` would replace.

    The files of `runs` (`prediction.find_runs`) are going to be replaced.
    """
    path, replaced = Path(output) / "sites.json", {(run["split"], run["run"]) for run in runs}
    kept = [file for split, run, file in find_run_files(output, "pred") if (split, run) not in replaced]
    if kept and path.exists() and current_names(read_json_object(path, "sites", '{"sites": {}}')) != settings:
        raise InputError(f"{kept[0]}: was predicted for other sites, --site_on or --site_multi than those of "
                         f"{runs[0]['path']}: give another --output, or remove the file")


def site_columns(logits: np.ndarray, settings: dict, scan_ids: Sequence, true_loc: Sequence) -> pd.DataFrame:
    """(n, sites) logits of views -> DataFrame of L0.., pred_loc, pred_loc_name, true_loc, true_loc_name, n rows."""
    names, scores = list(settings["sites"].values()), site_probabilities(logits, settings)
    _, mean = site_metrics.mean_by_scan(scan_ids, scores)
    _, scan = np.unique(scan_ids, return_inverse=True)
    predicted = site_metrics.predicted_sites(mean, settings["site_multi"])
    columns = pd.DataFrame(scores, columns=[f"L{k}" for k in range(len(names))])
    columns["pred_loc"] = [predicted[k] for k in scan]
    columns["true_loc"] = list(true_loc)
    for kind in ("true", "pred"):
        columns.insert(columns.columns.get_loc(f"{kind}_loc") + 1, f"{kind}_loc_name",
                       [site_metrics.name_of(text, names) for text in columns[f"{kind}_loc"]])
    return columns
