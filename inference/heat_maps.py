"""Heat maps of one model, or the mean over the models of an ensemble, a file for each MIP.

A map explains a score, the log-odds of Deauville 4-5 or the logit of a site, and is in its units: the mean of the
models' maps explains the mean of their scores. The mean is over the models that predict the scan: with --set test and
several splits, those that have it in their test set.
"""
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from common.files import InputError, progress, read_csv, read_json_object, replace_file, write_csv, write_json
from common.mips import read_image
from common.run_files import heat_map, panel
from common.settings import differences
from common.sites import scored_classes
from common.text import counted, whole_number
from evaluation.disagreement import per_scan
from evaluation.metrics import THRESHOLD
from evaluation.overlap import WORST
from inference import gradcam
from inference.gradcam import BINARY
from inference.prediction import Model
from training.batches import batch_indices
from training.objectives import probabilities, site_probabilities

BLOCK = 16  # images that go through all models before the next ones
QUANTILE = 0.99  # of the scans' highest values: drawn darkest
UNIT, FEW = 1.0, 10  # a standard deviation of the score, and a number of scans: see `darkest`


def chosen_scans(table: pd.DataFrame, scans: list[str] | None, data: str) -> pd.DataFrame:
    """The manifest's rows of --scans; without it all. Raises InputError for a scan that is not there."""
    if not scans:
        return table
    if unknown := sorted(set(scans) - set(table["scan_id"])):
        raise InputError(f"{data}: no scan_id {', '.join(unknown)} (--scans)")
    return table[table["scan_id"].isin(scans)].reset_index(drop=True)


def check_scans(scans: list[str] | None, models: Sequence[Model], sets: list[str]) -> None:
    """Refuse (InputError) a scan of --scans that no model predicts: it is in none of their sets, or has other views;
    without --scans, models that predict none."""
    if gone := sorted(set(scans or ()) - {scan for model in models for scan in model.rows["scan_id"]}):
        raise InputError(f"scan {gone[0]} is not in {' or '.join(sets)} of {names_of(models)}, or has no view that "
                         "they know; --set all takes every row")
    if not any(len(model.rows) for model in models):
        raise InputError(f"{names_of(models)}: no scan in {' or '.join(sets)}, or none with a view that they know; "
                         "explain others (--splits), or give --set all")


def names_of(models: Sequence[Model]) -> str:
    """"split 0 run 1", or of several "10 models"."""
    return f"split {models[0].split} run {models[0].run}" if len(models) == 1 else f"{counted(len(models), 'model')}"


def find_class(target: str, layer: str, models: Sequence[Model]) -> int | None:
    """The class that --target names: BINARY or the index of a site; None: each scan's predicted site.

    Raises
    ------
    InputError
        A model has no site head, its site head does not use the layer, the models know different sites, or not this
        one.
    """
    if target == "binary":
        return BINARY
    settings = sites_of(models[0])
    for model in models:
        if not model.network.sites:
            raise InputError(f"--target {target}: {model.path} has no site head; train_loca.py trains one")
        if layer == "layer4" and model.network.site_head == "grid":
            raise InputError(f"--target {target} --cam_layer layer4: the site head of {model.path} looks at layer2 and "
                             "layer3; give --cam_layer layer3 or one below it")
        if sites_of(model) != settings:
            raise InputError(f"--target {target}: the models know different sites; --each explains each by itself")
    if target == "site":
        return None
    codes, names = list(settings["sites"]), list(settings["sites"].values())
    trained = scored_classes(settings)
    for k in trained:
        if target.removeprefix("site:").strip().lower() in (names[k].lower(), codes[k]):
            return int(k)
    raise InputError(f"--target {target}: {models[0].path} knows no such site; it knows "
                     f"{', '.join(names[k] for k in trained)}")


def sites_of(model: Model) -> dict:
    """sites (code -> name, or None), site_on, site_multi of a model's checkpoint; all classes where it stores none."""
    stored = model.content.get("model", {})
    return {"sites": model.network.sites, "site_on": stored.get("site_on", "all"),
            "site_multi": stored.get("site_multi", False)}


def claim_folder(folder: Path, settings: dict, models: Sequence[Model], overwrite: bool) -> None:
    """Write settings.json: `settings`, the models' precision and checkpoints ("split 0 run 1" -> SHA-256).

    Raises
    ------
    InputError
        The folder's maps were made with other settings; with `overwrite` they are removed instead.
    """
    made_of = {names_of([model]): model.sha256 for model in models}
    path, now = folder / "settings.json", settings | {"amp": str(models[0].amp), "checkpoints": made_of}
    if path.exists() and (differing := differences(read_json_object(path, "settings", "{}"), now)):
        if not overwrite:
            raise InputError(f"{folder}: holds heat maps with another {', '.join(differing)}; --overwrite makes them "
                             "again, or give another --output")
        for name in ("maps/*.npy", "panels/*.*", "scale.json", "peaks.csv", "pointing.*", "review.html"):
            for old in folder.glob(name):
                old.unlink()  # a later call, or a reader, would take it for its own
    write_json(now, path)


def describe(models: Sequence[Model], asked: int | None, folder: Path) -> pd.DataFrame:
    """Predict the models' rows, and say of each view what its heat map is to explain.

    Parameters
    ----------
    asked : int or None
        Of `find_class`.
    folder : Path
        Of the maps.

    Returns
    -------
    DataFrame
        A row for each view: the manifest's columns, and
        place : its index among the models' images
        models, probs : the models that predict it, and the mean of their probabilities
        overlap : with their training, the worst of `evaluation.overlap.WORST`
        scan_probs, sd, n_models : of its scan, over the models' means over the views (sd: n - 1; NaN of one model)
        class, code, speaks_for : the class that the map explains, its site's code ("" of BINARY), and its name
        sites : the predicted and the true site, for titles
        map : path of the heat map

    Raises
    ------
    InputError
        Two scans would have the same file.
    """
    settings = sites_of(models[0])
    same = all(sites_of(model) == settings for model in models)
    sites = (settings["sites"] or {}) if same else {}
    logits = np.concatenate([model.outputs().logits[:, :2 + len(sites)] for model in models])
    views = pd.concat([model.rows.assign(place=model.index, model=names_of([model])) for model in models],
                      ignore_index=True).assign(probs=probabilities(logits))
    rows = views.drop_duplicates("place").sort_values("place", ignore_index=True)
    rows = rows.drop(columns=["model", "checkpoint_sha256"]).assign(sites="")
    worst = views.groupby("place")["overlap"].agg(lambda values: min(values, key=WORST.index))
    rows["overlap"] = worst.to_numpy()
    rows["probs"] = views.groupby("place")["probs"].mean().to_numpy()  # both are in the order of the places
    rows["models"] = views.groupby("place")["model"].agg(", ".join).to_numpy()
    scores = _of_scans(views["probs"], views).unstack()
    spread = per_scan(scores, THRESHOLD).assign(scan_probs=scores.mean(axis=1))
    spread = spread[["scan_probs", "sd", "n_models"]]  # in place of columns of the manifest of these names
    rows = rows.drop(columns=spread.columns, errors="ignore").join(spread, on="scan_id")
    codes, names = [*sites, ""], [*sites.values(), "DS 4–5"]  # BINARY, -1, is the last
    rows["class"] = asked
    if sites:
        classes = scored_classes(settings)
        shares = _of_scans(pd.DataFrame(site_probabilities(logits[:, 2:], settings)[:, classes]), views)
        shares = shares.groupby("scan_id").mean().loc[rows["scan_id"]].to_numpy()
        predicted = classes[shares.argmax(1)]
        if asked is None:
            rows["class"] = predicted
        true = [true_names(codes, sites) for codes in rows.get("target_loc", pd.Series("", rows.index))]
        rows["sites"] = [f"predicted site: {names[k]} ({share:.2f})" + f", true: {truth}" * bool(truth)
                         for k, share, truth in zip(predicted, shares.max(1), true, strict=True)]
    rows["code"], rows["speaks_for"] = ([texts[k] for k in rows["class"]] for texts in (codes, names))
    rows["map"] = [heat_map(folder, row.scan_id, row.view) for row in rows.itertuples()]
    if rows["map"].duplicated().any():
        raise InputError("two scan_id differ only in characters that file names do not take; use letters, digits, -, _ "
                         "and .")
    return rows


def true_names(codes: str, sites: dict[str, str]) -> str:
    """"6.0; 20", as the manifest may write codes -> "anterior mediastinal and spleen"; an unknown code stays."""
    return " and ".join(sites.get(str(whole_number(code.strip())), code.strip()) for code in codes.split(";"))


def _of_scans(values, views):
    """The mean over each scan's views, for each model: by scan_id and model."""
    return values.groupby([views["scan_id"], views["model"]]).mean()


def mean_maps(models: Sequence[Model], places: np.ndarray, classes: np.ndarray, images: Sequence[np.ndarray],
              names: Sequence[str], method: str, layer: str) -> list[np.ndarray]:
    """The means over the models of the heat maps of some images, on the pixels of the MIPs.

    Parameters
    ----------
    models : sequence of Model
        Only their network, batches, index and amp are used.
    places : (n,) int array
        Indices of the images among the models'; an image's map is the mean over the models whose index has it.
    classes : (n,) int array
        The class that each map explains: see `gradcam.heat_maps`.
    images : n arrays (rows, columns) float32, SUV
        The MIPs; `names`: their files.
    method, layer
        Of gradcam.METHODS and gradcam.LAYERS.

    Returns
    -------
    list of (rows, columns) float32 arrays
        In units of the score; 0 outside the body.
    """
    sums, counts = [np.zeros(image.shape) for image in images], np.zeros(len(places), int)
    for model in models:
        own = np.flatnonzero(np.isin(places, model.index))
        cells = gradcam.heat_maps(model.network, model.batches, places[own], classes[own], method, layer, model.amp)
        for k, cell in zip(own, cells, strict=True):
            sums[k] += gradcam.to_mip(cell, layer, images[k], names[k], model.batches.network_input)
        counts[own] += 1
    return [(total / count).astype("float32") for total, count in zip(sums, counts, strict=True)]


def compute(models: Sequence[Model], rows: pd.DataFrame, chosen: np.ndarray, method: str, layer: str,
            images: str | Path, label: str) -> Iterator[tuple[int, np.ndarray]]:
    """`mean_maps` of the rows `chosen` (int array) of `describe`, BLOCK images at a time: yields (row, map).

    `images`: folder of the MIPs; `label`: of the progress bar.
    """
    with progress(None, label, "image", len(chosen)) as bar:
        for block in (chosen[places] for places in batch_indices(len(chosen), BLOCK)):
            some = rows.iloc[block]
            yield from zip(block, mean_maps(models, some["place"].to_numpy(), some["class"].to_numpy(),
                                            [read_image(row, images) for row in some.itertuples()],
                                            list(some["filename"]), method, layer), strict=True)
            bar.update(len(block))


def write_maps(models: Sequence[Model], rows: pd.DataFrame, folder: Path, method: str, layer: str, images: str | Path,
               overwrite: bool) -> None:
    """Write the maps that are missing or out of date (their MIP has changed, or their models), with `overwrite` all.

    models.csv holds the models of each map. A map gets the modification time of its MIP, so that any other time, also
    an earlier one, tells that the MIP has changed. Panels of maps that are out of date are removed.
    """
    path, now = folder / "models.csv", rows[["scan_id", "view", "models"]]
    if path.exists():
        before = read_csv(path, list(now))
        others = before.merge(now, on=["scan_id", "view"], suffixes=("", "_now")).query("models != models_now")
        for row in others.itertuples():
            heat_map(folder, row.scan_id, row.view).unlink(missing_ok=True)
        now = pd.concat([now, before]).drop_duplicates(["scan_id", "view"])
    write_csv(now, path)
    times = [(Path(images) / name).stat().st_mtime_ns for name in rows["filename"]]
    stale = [k for k, path in enumerate(rows["map"])
             if overwrite or not path.exists() or path.stat().st_mtime_ns != times[k]]
    for k in stale:
        for suffix in (".png", ".pdf"):
            panel(folder, rows["scan_id"][k], suffix).unlink(missing_ok=True)
    for k, heat in compute(models, rows, np.array(stale, int), method, layer, images,
                           f"heat maps of {names_of(models)}"):
        with replace_file(rows["map"][k], "wb") as file:
            np.save(file, heat)
        os.utime(rows["map"][k], ns=(times[k], times[k]))


def write_peaks(peaks: pd.DataFrame, path: Path, some: bool) -> bool:
    """Write peaks.csv. With `some` (--scans), other scans that it holds stay -> whether there are any."""
    others = peaks[:0]
    if some and path.exists():
        others = read_csv(path, ["scan_id"])
        others = others[~others["scan_id"].isin(peaks["scan_id"])]
    write_csv(pd.concat([others, peaks]) if len(others) else peaks, path)
    return len(others) > 0


def darkest(highest: Sequence[float], probs: Sequence[float]) -> float:
    """The value of the heat maps that is drawn darkest.

    It is the QUANTILE of the scans' highest values. An untrained network's maps are as high as a trained one's, but its
    scores hardly differ between scans: where their standard deviation is below UNIT, the value is raised in proportion,
    so that such maps look empty. Of fewer than FEW scans, which do not show either, it is at least UNIT.

    Parameters
    ----------
    highest, probs : (n,) float
        Each scan's highest value, and its probability of Deauville 4-5.
    """
    found = float(np.quantile(highest, QUANTILE))
    if len(highest) < FEW:
        return max(found, UNIT)
    return (found or UNIT) * max(1.0, UNIT / max(float(np.std(logit(np.clip(probs, 1e-6, 1 - 1e-6)))), 1e-3))


def cohort_scale(folder: Path, peaks: pd.DataFrame, some: bool) -> float:
    """`darkest` of the maps in a folder, stored in scale.json; panels drawn on another scale are removed.

    Parameters
    ----------
    peaks : DataFrame
        `pointing_game.find_peaks` of the maps, whose rows are of `describe`.
    some : bool
        The peaks are of some scans only (--scans): a scale that the folder has stays as it is.
    """
    path = folder / "scale.json"
    before = read_json_object(path, "scale", "{}")["heat_max"] if path.exists() else None
    if some and before:
        return before
    scans = peaks.groupby("scan_id")[["heat", "scan_probs"]].max()
    if (now := darkest(scans["heat"], scans["scan_probs"])) != before:
        for old in folder.glob("panels/*.*"):
            old.unlink()
    write_json({"heat_max": now, "scans": len(scans), "quantile": QUANTILE}, path)
    return now


def models_line(rows: pd.DataFrame) -> str:
    """"each the mean of 2 to 5 models", of the maps of `describe`."""
    counts = rows["models"].str.count(",") + 1
    least = f"{counts.min()} to " * int(counts.min() < counts.max())
    return f"each the mean of {least}{counted(counts.max(), 'model')}"
