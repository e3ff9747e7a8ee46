"""The heat maps of one model: what they speak for, and a file for each MIP."""
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from common.files import InputError, progress, read_json_object, replace_file, write_json
from common.mips import read_image
from common.run_files import heat_map, panel
from common.settings import differences
from common.sites import scored_classes
from inference import gradcam
from inference.gradcam import BINARY
from inference.prediction import Model
from training.objectives import probabilities, site_probabilities


def chosen_scans(table: pd.DataFrame, scans: list[str] | None, data: str) -> pd.DataFrame:
    """The manifest's rows of --scans; without it all. Raises InputError for a scan that is not there."""
    if not scans:
        return table
    if unknown := sorted(set(scans) - set(table["scan_id"])):
        raise InputError(f"{data}: no scan_id {', '.join(unknown)} (--scans)")
    return table[table["scan_id"].isin(scans)].reset_index(drop=True)


def check_scans(scans: list[str] | None, model: Model, sets: list[str]) -> None:
    """Refuse a scan of --scans that the model is not asked for, or of whose views it knows none (InputError)."""
    if gone := sorted(set(scans or ()) - set(model.rows["scan_id"])):
        raise InputError(f"scan {gone[0]} is not in {' or '.join(sets)} of split {model.split}, or has no view that "
                         "the model knows; --set all takes every row")


def find_class(target: str, layer: str, model: Model) -> int | None:
    """What --target asks for: BINARY, the class index of a site, or None, the predicted site of each scan.

    Raises
    ------
    InputError
        The model has no site head, does not know the site, or its site head does not see the layer.
    """
    if target == "binary":
        return BINARY
    settings = site_settings(model)
    if not settings["sites"]:
        raise InputError(f"--target {target}: {model.path} has no site head; train_loca.py trains one")
    if layer == "layer4" and model.network.site_head == "grid":
        raise InputError(f"--target {target} --cam_layer layer4: the site head of {model.path} looks at layer2 and "
                         "layer3; give --cam_layer layer3 or one below it")
    if target == "site":
        return None
    codes, names = list(settings["sites"]), list(settings["sites"].values())
    trained = scored_classes(settings)
    for k in trained:
        if target.removeprefix("site:").strip().lower() in (names[k].lower(), codes[k]):
            return int(k)
    raise InputError(f"--target {target}: {model.path} knows no such site; it knows "
                     f"{', '.join(names[k] for k in trained)}")


def site_settings(model: Model) -> dict:
    """sites (code -> name, or None), site_on, site_multi of a model's checkpoint; all classes where it does not say."""
    stored = model.content.get("model", {})
    return {"sites": model.network.sites, "site_on": stored.get("site_on", "all"),
            "site_multi": stored.get("site_multi", False)}


def claim_folder(folder: Path, settings: dict, model: Model, overwrite: bool) -> None:
    """Write settings.json: `settings`, the model's precision and checkpoint.

    Raises
    ------
    InputError
        The folder's maps were made with other settings; with `overwrite` they are removed instead.
    """
    path, now = folder / "settings.json", settings | {"amp": str(model.amp), "checkpoint_sha256": model.sha256}
    if path.exists() and (differing := differences(read_json_object(path, "settings", "{}"), now)):
        if not overwrite:
            raise InputError(f"{folder}: holds heat maps with another {', '.join(differing)}; --overwrite makes them "
                             "again, or give another --output")
        for old in (*folder.glob("maps/*.npy"), *folder.glob("panels/*.png")):
            old.unlink()  # else a later call would take them for its own
    write_json(now, path)


def describe(model: Model, site: int | None, folder: Path) -> pd.DataFrame:
    """Run the network once over the model's rows, as predict.py does.

    Parameters
    ----------
    site : int or None
        From `find_class`.
    folder : Path
        The model's.

    Returns
    -------
    DataFrame
        The manifest's columns and, of each view: `probs`; `scan_probs`, the scan's mean; `class`, whose score the map
        explains, its `code` ("" of BINARY) and name, `speaks_for`; `sites`, what was predicted and is true, for titles;
        `map`, the path of the map.

    Raises
    ------
    InputError
        Two scans would have the same file.
    """
    logits, settings = model.outputs().logits, site_settings(model)
    sites = settings["sites"] or {}
    codes, names = [*sites, ""], [*sites.values(), "DS 4–5"]  # BINARY, -1, is the last
    rows = model.rows.assign(probs=probabilities(logits), sites="")
    rows["scan_probs"] = rows.groupby("scan_id")["probs"].transform("mean")
    rows["class"] = site
    if sites:
        classes = scored_classes(settings)
        shares = pd.DataFrame(site_probabilities(logits[:, 2:], settings)[:, classes])
        shares = shares.groupby(rows["scan_id"]).transform("mean").to_numpy()
        predicted = classes[shares.argmax(1)]
        if site is None:
            rows["class"] = predicted
        true = [" and ".join(sites.get(code, code) for code in codes.split(";"))
                for codes in rows.get("target_loc", pd.Series("", rows.index))]
        rows["sites"] = [f"predicted site: {names[k]} ({share:.2f})" + f", true: {truth}" * bool(truth)
                         for k, share, truth in zip(predicted, shares.max(1), true, strict=True)]
    rows["code"], rows["speaks_for"] = ([texts[k] for k in rows["class"]] for texts in (codes, names))
    rows["map"] = [heat_map(folder, row.scan_id, row.view) for row in rows.itertuples()]
    if rows["map"].duplicated().any():
        raise InputError("two scan_id differ only in characters that file names do not take; use letters, digits, -, _ "
                         "and .")
    return rows


def compute(network: nn.Module, places: np.ndarray, label: str, model: Model, rows: pd.DataFrame, method: str,
            layer: str, images: str | Path) -> Iterator[tuple[int, np.ndarray]]:
    """Heat maps on the MIPs' pixels, one after another.

    Parameters
    ----------
    network : utils.ResNet34
        The model's, or one of its shape.
    places : (n,) int array
        Which of the rows.
    label : str
        Of the progress bar.
    rows : DataFrame
        From `describe`.
    method, layer : of gradcam.METHODS, of gradcam.LAYERS.
    images : str or Path
        Folder of the MIPs.

    Yields
    ------
    place : int
    heat : (rows, columns) float32 array, in units of the score.
    """
    cells = gradcam.heat_maps(network, model.batches, model.index[places], rows["class"].to_numpy()[places], method,
                              layer, model.amp)
    with progress(zip(places, cells, strict=True), label, "image", len(places)) as bar:
        for place, cell in bar:
            row = rows.iloc[place]
            yield place, gradcam.to_mip(cell, layer, read_image(row, images), row["filename"],
                                        model.batches.network_input)


def write_maps(maps_of: Callable, folder: Path, model: Model, rows: pd.DataFrame, images: str | Path,
               overwrite: bool) -> None:
    """Save the maps that are missing or of another MIP, with `overwrite` all; `maps_of`: `compute`, but for its first
    three arguments.

    A map has the time of the MIP that it was made of, which may well be older than the one that it replaces. The panel
    that shows an old map is removed.
    """
    times = [(Path(images) / name).stat().st_mtime_ns for name in rows["filename"]]
    stale = [k for k, path in enumerate(rows["map"])
             if overwrite or not path.exists() or path.stat().st_mtime_ns != times[k]]
    for k in stale:
        panel(folder, rows["scan_id"][k]).unlink(missing_ok=True)
    for place, heat in maps_of(model.network, np.array(stale, int), "heat maps"):
        with replace_file(rows["map"][place], "wb") as file:
            np.save(file, heat)
        os.utime(rows["map"][place], ns=(times[place], times[place]))
