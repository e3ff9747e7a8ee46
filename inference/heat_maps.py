"""What explain.py does with each model: heat maps, panels, contact sheets, the pointing game."""
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from common import arguments
from common.files import InputError, progress, replace_file, write_csv, write_json
from common.manifest import SYNTHETIC, is_synthetic, patient_column, read_manifest, views_of
from common.sites import scored_classes
from dataset import read_image
from inference import gradcam, overlays, pointing_game
from inference.prediction import asked_rows, find_runs, open_models, say_missing, splits_of
from training.device import choose_amp, choose_device, set_threads
from training.objectives import probabilities, site_probabilities

BINARY = -1  # the class that stands for Deauville 4-5
LABELS = {0: "DS 1–3", 1: "DS 4–5"}
SHOWN_ID = 12  # characters of a scan_id on a contact sheet
NAMES = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}
RANDOM, BRIGHTEST = "random weights", "brightest pixel"


def explain_all(args):
    """Explain with each model of `prediction.open_models`; `args` of explain.py. Returns the exit code."""
    set_threads(args.threads)
    device = choose_device(args.device)
    runs, missing = find_runs(args.chptfolder, args.splits, args.run)
    table = asked_rows(read_table(args, () if "all" in args.set else splits_of(runs)), args.data, args.set, runs)
    for model in open_models(runs, table, args.chptfolder, args.data, arguments.images_folder(args), args.set, device,
                             choose_amp(args.amp, device),
                             **arguments.pick(args, "batch_size", "norm", "image_size", "crop_bodies")):
        Explanation(args, model).run()
    return say_missing(missing)


def read_table(args, splits):
    """The manifest's rows of --scans; with `_lesions` (lists) where lesions' places are known and asked for."""
    table = read_manifest(args.data, splits, need_target=False)
    if args.scans:
        if unknown := sorted(set(args.scans) - set(table["scan_id"])):
            raise InputError(f"{args.data}: no scan_id {', '.join(unknown)} (--scans)")
        table = table[table["scan_id"].isin(args.scans)].reset_index(drop=True)
    if args.no_pointing:
        return table
    if missing := [name for name in (*pointing_game.NEEDED, "target") if name not in table]:
        print(f"no pointing game: {args.data} has no column {', '.join(missing)}")
        return table
    return table.assign(_lesions=pointing_game.read_lesions(args.data, table))


class Explanation:
    """One model's heat maps and what follows from them, in a folder of its own.

    Attributes:
        rows (DataFrame): the manifest's rows, a map each, in the order of model.index; beside the manifest's columns
            probs (of the view), _probs (of the scan), _class (the site whose logit the map explains, or BINARY), _site
            (the sites that were called and are true, for titles), _image and _map (Paths).
        sites (dict): code -> name of the model's sites, empty without a site head.
    """

    def __init__(self, args, model):
        self.args, self.model, self.layer = args, model, args.cam_layer
        self.settings = site_settings(model)
        self.sites, self.method = self.settings["sites"] or {}, NAMES[args.method]
        self.source = f"{self.method} of {self.layer}, split {model.split} run {model.run}"
        self.site = chosen_class(args.target, self.settings, model.path)
        if args.target != "binary" and self.layer == "layer4" and model.network.site_head == "grid":
            raise InputError(f"--target {args.target} --cam_layer layer4: the site head of {model.path} looks at "
                             "layer2 and layer3; give --cam_layer layer3 or one below it")
        self.folder = Path(args.output) / f"{safe_name(args.target)}_split{model.split}_run{model.run}"
        self.images = arguments.images_folder(args)
        self.rows = model.rows
        if gone := sorted(set(args.scans or ()) - set(self.rows["scan_id"])):
            raise InputError(f"scan {gone[0]} is not in {' or '.join(args.set)} of split {model.split}, or has no view "
                             "that the model knows; --set all takes every row")

    def run(self):
        self.claim_folder()
        self.add_columns()
        self.write_maps()
        self.write_panels()
        peaks = self.peaks(self.method, ((place, np.load(path)) for place, path in enumerate(self.rows["_map"])))
        columns = ["scan_id", "view", "filename", "probs", "peak_row", "peak_column", "heat", "distance_mm"]
        write_csv(peaks[columns].replace(np.inf, np.nan), self.folder / "peaks.csv")
        print(f"split {self.model.split} run {self.model.run}: {len(self.rows)} heat maps of "
              f"{self.rows['scan_id'].nunique()} scans -> {self.folder}")
        if "_lesions" in self.rows:
            self.play(peaks)

    # ------------------------------------------------------------ what it is about

    def claim_folder(self):
        """Write settings.json, or refuse a folder whose maps were made with other settings (InputError)."""
        with open(self.model.path, "rb") as file:
            checkpoint = hashlib.file_digest(file, "sha256").hexdigest()
        names = ("target", "method", "cam_layer", "suv_max", "image_size", "norm", "crop_bodies")
        now = {name: getattr(self.args, name) for name in names} | {"amp": str(self.model.amp),
                                                                   "checkpoint_sha256": checkpoint}
        path = self.folder / "settings.json"
        if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != now:
            if not self.args.overwrite:
                differing = [f"{name} ({before.get(name)}, now {value})" for name, value in now.items()
                             if before.get(name) != value]
                raise InputError(f"{self.folder}: holds heat maps with another {', '.join(differing)}; --overwrite "
                                 "makes them again, or give another --output")
            for old in (*self.folder.glob("maps/*.npy"), *self.folder.glob("panels/*.png")):
                old.unlink()  # else a later call would take them for its own
        write_json(now, path)

    def add_columns(self):
        """Run the network once over the rows, as predict.py does: probabilities, sites, and the class to explain."""
        rows, outputs = self.rows, self.model.outputs().logits
        rows["probs"] = probabilities(outputs)
        rows["_probs"] = rows.groupby("scan_id")["probs"].transform("mean")
        rows["_class"], rows["_site"] = BINARY if self.site is None else self.site, ""
        if self.sites:
            names, classes = list(self.sites.values()), scored_classes(self.settings)
            found = pd.DataFrame(site_probabilities(outputs[:, 2:], self.settings)[:, classes])
            found = found.groupby(rows["scan_id"]).transform("mean").to_numpy()
            called = classes[found.argmax(1)]
            if self.site is None and self.args.target != "binary":
                rows["_class"] = called
            true = [" and ".join(self.sites.get(code, code) for code in codes.split(";"))
                    for codes in rows.get("target_loc", pd.Series("", rows.index))]
            rows["_site"] = [f"site: {names[k]} ({share:.2f})" + f", true: {truth}" * bool(truth)
                             for k, share, truth in zip(called, found.max(1), true, strict=True)]
        names = [safe_name(f"{row.scan_id}_{row.view}") for row in rows.itertuples()]
        if len(set(names)) < len(names):
            raise InputError(f"{self.args.data}: two scan_id differ only in characters that file names do not take; "
                             "use letters, digits, -, _ and .")
        rows["_map"] = [self.folder / "maps" / f"{name}.npy" for name in names]
        rows["_image"] = [Path(self.images) / name for name in rows["filename"]]

    # ------------------------------------------------------------ heat maps and pictures

    def maps(self, network, places, label):
        """Yield (place, heat map on the MIP's grid) of the rows at `places` (int array)."""
        stride, size = gradcam.layer_stride(self.layer), self.args.batch_size
        classes = self.rows["_class"].to_numpy()
        with progress(None, label, "image", len(places)) as bar:
            for start in range(0, len(places), size):
                here = places[start:start + size]
                cells = gradcam.heat_maps(network, self.model.batches, self.model.index[here], self.args.method,
                                          self.layer, classes[here], self.model.amp)
                for place, cell in zip(here, cells, strict=True):
                    row = self.rows.iloc[place]
                    image = read_image(row, self.images)
                    where = gradcam.Placement.of(image, row["filename"], self.model.batches.network_input)
                    yield place, where.to_mip(cell, stride)
                    bar.update()

    def write_maps(self):
        stale = [k for k, row in self.rows.iterrows() if self.args.overwrite or not newer(row["_map"], row["_image"])]
        for place, heat in self.maps(self.model.network, np.array(stale, int), "heat maps"):
            with replace_file(self.rows["_map"][place], "wb") as file:
                np.save(file, heat)

    def write_panels(self):
        """A panel per scan, highest probability first, and the contact sheets of these."""
        scans = [part for _, part in self.rows.groupby("scan_id", sort=False)]
        scans = sorted(scans, key=lambda part: -part["_probs"].iloc[0])[:self.args.max_scans]
        spacing = self.model.batches.network_input.spacing_mm
        with progress(scans, "panels", "scan") as bar:
            for part in bar:
                path = self.folder / "panels" / f"{safe_name(part['scan_id'].iloc[0])}.png"
                if self.args.overwrite or not newer(path, *part["_map"]):
                    overlays.draw_panel(path, *self.pictures(part), self.title(part), self.heat_label(part),
                                      self.args.suv_max, spacing)
        for old in self.folder.glob("sheet*.png"):
            old.unlink()
        pages = [scans[k:k + overlays.PER_SHEET] for k in range(0, len(scans), overlays.PER_SHEET)]
        with progress(pages, "contact sheets", "page") as bar:
            for number, page in enumerate(bar, 1):
                overlays.draw_sheet(self.folder / f"sheet{number:03d}.png",
                                  [(self.caption(part), *self.pictures(part)) for part in page],
                                  self.sheet_title(number, len(pages)), self.args.suv_max, self.heat_label())

    def pictures(self, part):
        """A scan's rows -> ({view: MIP}, {view: heat map}), coronal and sagittal first."""
        rows = {view: part[part["view"] == view].iloc[0] for view in views_of(part)}
        return ({view: read_image(row, self.images) for view, row in rows.items()},
                {view: np.load(row["_map"]) for view, row in rows.items()})

    def title(self, part):
        """Of a panel: scan, probability, sites, model."""
        first = part.iloc[0]
        views = ", ".join(f"{overlays.view_name(row.view)} {row.probs:.2f}" for row in part.itertuples())
        lines = [f"scan {first['scan_id']}",
                 f"probability of DS 4–5: {first['_probs']:.2f} ({views})" + self.label(part),
                 first["_site"], self.source + self.notice(part)]
        return "\n".join(filter(None, lines))

    def caption(self, part):
        """Of a scan on a contact sheet."""
        first, scan = part.iloc[0], part["scan_id"].iloc[0]
        short = scan if len(scan) <= SHOWN_ID else "…" + scan[1 - SHOWN_ID:]
        return "\n".join(filter(None, [f"{short}  {first['_probs']:.2f}{self.label(part)}", first["_site"]]))

    def label(self, part):
        known = LABELS.get(pd.to_numeric(part["target"]).iloc[0]) if "target" in part else None
        return f", label {known}" if known else ""

    def notice(self, part):
        return " – SYNTHETIC" * bool(is_synthetic(part).any())

    def sheet_title(self, number, pages):
        return (f"{self.source}, page {number} of {pages}; probability of DS 4–5 after the scan's name"
                + self.notice(self.rows))

    def heat_label(self, part=None):
        """Of the heat map's colour bar: what it speaks for, and the scale."""
        names, found = list(self.sites.values()), self.rows if part is None else part
        classes = found["_class"].unique()
        what = "DS 4–5" if classes[0] == BINARY else names[classes[0]] if len(classes) == 1 else "the called site"
        if part is None:
            return f"speaks for {what}, share of each scan's maximum"
        highest = max(np.load(path).max() for path in part["_map"])
        return f"speaks for {what}, share of this scan's maximum ({highest:.2g})" if highest else (
            f"nothing speaks for {what}")

    # ------------------------------------------------------------ the pointing game

    def peaks(self, kind, maps, draw=0):
        """(place, map) pairs -> DataFrame: those rows, and each map's peak and how far from a lesion it lies."""
        found = {}
        for place, heat in maps:
            row, (line, column, value) = self.rows.iloc[place], pointing_game.peak(heat)
            lesions = row.get("_lesions") or []
            code = list(self.sites)[row["_class"]] if row["_class"] != BINARY else None
            found[place] = {"kind": kind, "draw": draw, "peak_row": line, "peak_column": column, "heat": value,
                            "distance_mm": pointing_game.distance_mm(line, column, lesions, row),
                            "site_distance_mm": pointing_game.distance_mm(line, column, [lesion for lesion in lesions
                                                                                    if lesion[0] == code], row)}
        new = pd.DataFrame.from_dict(found, orient="index")
        return self.rows.loc[new.index].join(new)

    def play(self, peaks):
        """Print and write the pointing game over the positive scans with lesions: pointing.csv, pointing.json."""
        rows, args = self.rows, self.args
        code = None if self.site in (None, BINARY) else list(self.sites)[self.site]
        played = (pd.to_numeric(rows["target"]) == 1) & rows["_lesions"].map(
            lambda lesions: any(code in (None, lesion[0]) for lesion in lesions))
        places = np.flatnonzero(played)
        if not len(places):
            print("no pointing game: no positive scan has a lesion" + f" of site {args.target[5:]}" * bool(code)
                  + " in the column lesions")
            return
        parts = [peaks[played]]
        for draw in range(args.random):
            network = gradcam.random_network(self.model.network, (draw, self.model.split, self.model.run))
            label = f"random weights {draw + 1} of {args.random}"
            parts.append(self.peaks(RANDOM, self.maps(network, places, label), draw))
        parts.append(self.peaks(BRIGHTEST, ((place, read_image(rows.iloc[place], self.images)) for place in places)))
        every = pd.concat(parts)
        patient = every[patient_column(every)]
        every["patient"] = patient.where(patient != "", every["scan_id"])
        tables = {"any lesion": pointing_game.summarize(every)}
        if args.target != "binary":
            every["distance_mm"] = every["site_distance_mm"]
            tables["lesion of the site"] = pointing_game.summarize(every)
        table = pd.concat([each.assign(near=near) for near, each in tables.items()], ignore_index=True)
        notice = SYNTHETIC if self.notice(rows) else None
        write_csv(table, self.folder / "pointing.csv")
        rows_of = json.loads(table.to_json(orient="records", double_precision=15))
        write_json({"within_mm": pointing_game.RADIUS_MM, "target": args.target, "method": args.method,
                    "cam_layer": self.layer,
                    "set": args.set, "notice": notice, "rows": rows_of}, self.folder / "pointing.json")
        print(f"pointing game: peak within {pointing_game.RADIUS_MM / 10:g} cm of a lesion's centre; {len(places)} "
              f"views of {rows['scan_id'][places].nunique()} positive scans, {every['patient'].nunique()} patients")
        print(pointing_game.as_text(table))
        if notice:
            print(notice)


# ---------------------------------------------------------------- small parts

def site_settings(model):
    """sites (code -> name, or None), site_on, site_multi of a model's checkpoint; all classes where it does not say."""
    stored = model.content.get("model", {})
    return {"sites": model.network.sites, "site_on": stored.get("site_on", "all"),
            "site_multi": stored.get("site_multi", False)}


def chosen_class(target, settings, path):
    """--target -> BINARY; None, the called site of each scan; or the class index of site:NAME. Raises InputError."""
    if target == "binary":
        return BINARY
    if not settings["sites"]:
        raise InputError(f"--target {target}: {path} has no site head; train_loca.py trains one")
    if target == "site":
        return None
    codes, names = list(settings["sites"]), list(settings["sites"].values())
    trained = scored_classes(settings)
    for k in trained:
        if target.removeprefix("site:").strip().lower() in (names[k].lower(), codes[k]):
            return int(k)
    raise InputError(f"--target {target}: {path} knows no such site; it knows {', '.join(names[k] for k in trained)}")


def safe_name(text):
    """A text as part of a file name."""
    return re.sub(r"[^\w.-]", "_", text)


def newer(path, *sources):
    """Whether `path` exists and is not older than any of `sources`."""
    return path.exists() and all(path.stat().st_mtime_ns >= source.stat().st_mtime_ns for source in sources)
