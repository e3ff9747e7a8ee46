"""The scans that LARS-avg gets wrong at 0.5: a list, and on the page their MIPs and explain.py's heat maps.

The heat map of a scan is the ensemble's; where explain.py made none, the mean over the models whose own are there.
"""
import base64
import io
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from common.files import InputError, read_json_object
from common.manifest import VIEWS, read_manifest
from common.mips import greys, pooled, read_image, under_heat
from common.model_files import checkpoint_file
from common.run_files import heat_folder, heat_map
from common.text import counted
from evaluation.averaging import Ensemble
from evaluation.disagreement import per_scan
from evaluation.ensemble import Model
from evaluation.metrics import THRESHOLD

KINDS = {"false negative": "Deauville 4–5, predicted 1–3", "false positive": "Deauville 1–3, predicted 4–5"}
MOST_SHOWN = 24  # of each kind, on the page
SUV_BLACK = 7
MOST_ROWS = 300  # pixels of a picture's height; larger MIPs are pooled


def list_failures(scans: pd.DataFrame, each: Ensemble) -> pd.DataFrame:
    """The table of failures.csv: false negatives, then false positives, the most certain first.

    Parameters
    ----------
    scans
        Of `ensemble.join_scans`.
    each
        LARS-avg.

    Returns
    -------
    DataFrame
        scan_id, patient_id where it is known, error (of KINDS), target, ensemble_prob, sd (between models), n_models.
    """
    about = pd.DataFrame({"target": scans["target"], "ensemble_prob": each.prob}, index=scans.index)
    about.insert(0, "error", np.where(about["target"] == 1, *KINDS))
    if "patient_id" in scans:
        about.insert(0, "patient_id", scans["patient_id"].str.strip())
    wrong = about["target"].notna() & ((about["ensemble_prob"] >= THRESHOLD) != (about["target"] == 1))
    table = about.join(per_scan(each.scores, THRESHOLD)[["sd", "n_models"]])[wrong].reset_index(names="scan_id")
    table["target"] = table["target"].astype(int)
    certain = (table["ensemble_prob"] - THRESHOLD).abs()
    return table.assign(certain=certain).sort_values(["error", "certain", "scan_id"], ascending=[True, False, True],
                                                     ignore_index=True).drop(columns="certain")


def on_page(table: pd.DataFrame, models: list[Model], wanted: str, data: str | None, images: str | None,
            heatmaps: Path | None, chptfolder: Path) -> dict:
    """What the report shows of `list_failures`.

    Parameters
    ----------
    models
        Of `ensemble.read_models`, the best first.
    wanted : str
        The set that is measured.
    data, images : str or None
        Manifest and folder of its MIPs; None: no pictures.
    heatmaps : Path or None
        --output of explain.py.
    chptfolder : Path
        Of the checkpoints, for the command.

    Returns
    -------
    dict
        kinds: of each of KINDS its name, meaning, total and cards (scan_id, text, picture: PNG in base64 or None);
        notes: texts; suv_black; heat, pictures: whether there are any; commands: of explain.py, for missing maps.

    Raises
    ------
    InputError
        --heatmaps is no folder, or holds maps of another checkpoint.
    """
    shown = table.groupby("error").head(MOST_SHOWN)
    rows, notes = _manifest_rows(data, shown) if data else (None, ["--data CSV shows their MIPs"])
    maps, more = _find_maps(heatmaps, models, list(shown["scan_id"])) if heatmaps else ({}, [])
    notes += more
    cards: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    unread: list[str] = []
    for scan in shown.to_dict("records"):
        name, picture, sd = scan["scan_id"], None, scan["sd"]
        if rows is not None:
            try:
                picture = _picture(rows[rows["scan_id"] == name], images or ".", maps.get(name, []))
            except InputError as error:
                unread.append(str(error))
        text = f"{scan['ensemble_prob']:.3f}" + ("" if sd != sd else f" ± {sd:.3f}")
        cards[scan["error"]].append({"scan_id": name, "picture": picture, "text": text})
    if unread:
        notes = [*notes, f"{counted(len(unread), 'scan has', 'scans have')} no picture: {unread[0]}"]
    missing = [scan for scan in shown["scan_id"] if scan not in maps]
    kinds = [{"name": kind, "meaning": text, "total": int((table["error"] == kind).sum()), "cards": cards[kind]}
             for kind, text in KINDS.items()]
    return {"kinds": kinds, "notes": notes, "suv_black": SUV_BLACK, "heat": bool(maps),
            "pictures": any(card["picture"] for each in cards.values() for card in each),
            "commands": _commands(missing, models, wanted, data, images, heatmaps or Path("heatmaps"), chptfolder)}


def _manifest_rows(data, shown):
    """(the manifest's rows of these scans, notes); (None, why) where it does not describe images."""
    try:
        rows = read_manifest(data, need_target=False)
    except InputError as error:
        return None, [f"no MIPs: {error}"]
    return rows[rows["scan_id"].isin(shown["scan_id"])], []


def _find_maps(folder: Path, models: list[Model], scans: list[str]) -> tuple[dict[str, list[tuple[Path, float]]],
                                                                               list[str]]:
    """({scan: [(folder of its maps, the value that is drawn darkest)]}: the ensemble's, else of each model; notes)."""
    found: dict[str, list[tuple[Path, float]]] = {}
    notes, ensemble = [], heat_folder(folder, "binary")
    pairs = [(model.split, model.run) for model in models]
    for place in [ensemble] if ensemble.is_dir() else [heat_folder(folder, "binary", [pair]) for pair in pairs]:
        try:
            made_of, highest = (read_json_object(place / f"{name}.json", "--heatmaps", "{}")[key]
                                for name, key in (("settings", "checkpoints"), ("scale", "heat_max")))
        except (InputError, KeyError):
            notes += [f"No heat maps of {place.name}: its settings.json or scale.json cannot be read; run explain.py "
                      "again with --overwrite"] * place.is_dir()
            continue
        names = {f"split {model.split} run {model.run}": model for model in models}
        for name in set(made_of) & set(names):
            predicted = set(names[name].rows.get("checkpoint_sha256", ())) - {""}
            if predicted and predicted != {made_of[name]}:
                raise InputError(f"{place}: heat maps of another checkpoint than {names[name].file} is of; run "
                                 "explain.py again with --overwrite")
        if place == ensemble and set(made_of) != set(names):
            notes.append(f"The heat maps are of {counted(len(made_of), 'model')}, {len(set(made_of) & set(names))} of "
                         f"which are among the {len(names)} of the scores")
        for scan in scans:
            if any(heat_map(place, scan, view).is_file() for view in VIEWS):
                found.setdefault(scan, []).append((place, highest))
    return found, notes


def _picture(rows: pd.DataFrame, images: str, places: list[tuple[Path, float]]) -> str | None:
    """The views of a scan side by side, with heat maps again with them over it: a PNG in base64; None without rows."""
    rows = rows[rows["view"].isin(VIEWS)].sort_values("view")
    if rows.empty:
        return None
    mips = [read_image(row, images) for row in rows.itertuples()]
    views, heats = list(zip(rows["scan_id"], rows["view"], mips, strict=True)), []
    for place, _ in places:
        heat = [np.load(path) if (path := heat_map(place, scan, view)).is_file() else np.zeros(mip.shape)
                for scan, view, mip in views]
        heats.append(heat)
        if any(each.shape != mip.shape for each, mip in zip(heat, mips, strict=True)):
            raise InputError(f"{place}: heat maps of other MIPs than those of {images}; run explain.py again")
    step = -(-max(map(len, mips)) // MOST_ROWS)
    grey = _beside([pooled(greys(mip, SUV_BLACK), step, np.min) for mip in mips])
    pixels = np.repeat(grey[:, :, None], 3, axis=2)
    if heats:
        highest = np.mean([highest for _, highest in places])
        shares = [np.clip(np.mean(each, axis=0) / highest, 0, 1) for each in zip(*heats, strict=True)]
        share = _beside([pooled(each, step, np.max) for each in shares], fill=0)
        pixels = np.concatenate([pixels, under_heat(grey, share)], axis=1)
    png = io.BytesIO()
    picture = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
    picture = picture.quantize(128, Image.Quantize.MAXCOVERAGE) if heats else picture.convert("L").quantize(32)
    picture.save(png, "PNG", optimize=True)
    return base64.b64encode(png.getvalue()).decode()


def _beside(pictures, fill=1.0):
    rows = max(map(len, pictures))
    return np.concatenate([np.pad(each, ((0, rows - len(each)), (0, 4)), constant_values=fill) for each in pictures], 1)


def _commands(scans, models, wanted, data, images, output, chptfolder):
    """Of explain.py for these scans, by the models of the scores."""
    if not scans:
        return []
    files = [str(checkpoint_file(chptfolder, model.split, model.run)) for model in models]
    given = (["--data", data] if data else []) + (["--images", images] if images else [])
    return [shlex.join(["python", "explain.py", "--checkpoints", *files, *given, "--set", wanted, "--no_pointing",
                        "--output", str(output), "--scans", *scans])]
