"""The pointing game: does a heat map peak near a lesion whose place is known?

Zhang et al., IJCV 2018 (arXiv:1608.00507). A view's map hits where its highest pixel lies within RADIUS_MM of a pixel
of the view's lesion mask (see `lesion_masks`); for the maps of sites, and where the manifest has no masks, of a
lesion's centre, in the plane of the projection. A scan's peak is the highest pixel of all its views' maps, which are of
one network and one score (of equal ones the first view's, coronal); it hits or misses as that view does. A map without
a peak, all 0, misses.
"""
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, write_csv, write_json
from common.manifest import LEARNED, SYNTHETIC, VIEWS, is_synthetic, patient_column
from common.mips import read_image
from common.text import aligned, counted
from evaluation.estimates import short_text
from evaluation.metrics import proportion_estimate
from evaluation.overlap import count_scans
from inference import lesion_masks
from inference.lesion_masks import BODY, BRIGHTEST, RADIUS_MM

NEEDED = ("lesions", "row0_mm", "column0_mm", "spacing_mm", "target")  # columns of the manifest
SCAN = "scan"  # in the column view of the results: the scan's views together
RANDOM = "random weights"


def add_lesions(table: pd.DataFrame, path: str | Path, images: str | Path, target: str) -> pd.DataFrame:
    """The manifest's rows with the lesions that the pointing game needs.

    For the binary `target`, where there are masks: a column known_mask, of `lesion_masks.lesions_in_masks`. Else a
    column known_lesions, of `read_lesions`; or neither, and a line that says so, where columns are missing.
    """
    if target == "binary" and "target" in table and table.get("mask", pd.Series("", table.index)).any():
        return table.assign(known_mask=lesion_masks.lesions_in_masks(table, images))
    if missing := [name for name in NEEDED if name not in table]:
        print(f"no pointing game: {path} has no {'mask, and no ' * (target == 'binary')}column {', '.join(missing)}")
        return table
    return table.assign(known_lesions=read_lesions(path, table))


def read_lesions(path: str | Path, table: pd.DataFrame) -> list[list[tuple]]:
    """The manifest's column `lesions`: site:x:y:z, which may go on after another colon, separated by semicolons.

    Parameters
    ----------
    path : str or Path
        The manifest's, for messages.
    table : DataFrame
        Its rows; row0_mm and column0_mm become float64, in place.

    Returns
    -------
    list of lists
        Of each row (site, x, y, z): code as text, "" where it is unknown; mm, LPS.

    Raises
    ------
    InputError
        Names the row and the value.
    """
    for row in table[~table["view"].str.fullmatch(r"cor|sag|rot\d{3}")].itertuples():
        raise InputError(f"{path} row {row.row} (scan {row.scan_id}): view = {row.view!r} does not say from where "
                         "it was projected, as cor, sag and rot030 do; fix the CSV, or give --no_pointing")
    for name in ("row0_mm", "column0_mm"):
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (bad := ~np.isfinite(numbers)).any():
            row = table[bad].iloc[0]
            raise InputError(f"{path} row {row['row']} (scan {row['scan_id']}): {name} = {row[name]!r} is not a "
                             "position in mm; fix the CSV, or give --no_pointing")
        table[name] = numbers
    found = []
    for row in table.itertuples():
        lesions = []
        for text in filter(None, map(str.strip, row.lesions.split(";"))):
            try:
                site, x, y, z = text.split(":")[:4]
                lesions.append((site, float(x), float(y), float(z)))
            except ValueError:
                lesions.append((text, math.nan))
            if not np.isfinite(lesions[-1][1:]).all():
                raise InputError(f"{path} row {row.row} (scan {row.scan_id}): lesions holds {text!r}, not "
                                 "site:x:y:z in mm; fix the CSV, or give --no_pointing")
        found.append(lesions)
    return found


def project(lesions: list[tuple], row: pd.Series) -> np.ndarray:
    """The pixels of lesions' centres in the MIP of a row of the manifest.

    Row r lies at row0_mm - r * spacing_mm, column c at column0_mm + c * spacing_mm, along x cos(angle) + y sin(angle),
    angle 0 for cor, 90 for sag, N for rotN (preprocessing.conversion.pixel_origin).

    Parameters
    ----------
    lesions : list of (site, x, y, z)
        mm, LPS.

    Returns
    -------
    (n, 2) float64 array
        Row and column of each.
    """
    angle = math.radians({"cor": 0, "sag": 90}[row.view] if row.view in VIEWS else int(row.view[3:]))
    x, y, z = np.array([lesion[1:] for lesion in lesions]).T
    across = x * math.cos(angle) + y * math.sin(angle)
    return np.stack([row.row0_mm - z, across - row.column0_mm], 1) / row.spacing_mm


def peak(heat: np.ndarray) -> tuple[int | None, int | None, float]:
    """(row, column, value) of the highest pixel; (None, None, 0.0) of a map that is 0 everywhere."""
    if not heat.max() > 0:
        return None, None, 0.0
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return int(row), int(column), float(heat[row, column])


def distance_mm(line: int | None, column: int | None, lesions: list[tuple], row: pd.Series) -> float:
    """Distance from a map's peak to the nearest lesion's centre in the projection; infinite without peak or lesion."""
    if line is None or not lesions:
        return math.inf
    return float(np.hypot(*(project(lesions, row) - (line, column)).T).min() * row.spacing_mm)


def find_peaks(kind: str, maps: Iterable[tuple[int, np.ndarray]], rows: pd.DataFrame, images: str | Path,
               draw: int = 0) -> pd.DataFrame:
    """Each map's peak, and how far from a lesion it lies.

    Parameters
    ----------
    kind : str
        Name of the kind of maps; `draw`: 0, 1, ... where there are several of a kind.
    maps : iterable of (row, heat map)
        The row by its index.
    rows : DataFrame
        From `heat_maps.describe`; with `known_mask` or `known_lesions` of `add_lesions`, if there are any.
    images : str or Path
        Folder of MIPs and masks.

    Returns
    -------
    DataFrame
        Those rows with kind, draw, peak_row, peak_column, heat, distance_mm (to the mask, or to the nearest lesion's
        centre), hit (0 or 1; NaN where the view's mask is not known); with masks distance_pixels; with centres
        site_hit: whether a lesion of the map's site is hit.
    """
    found = {}
    for place, heat in maps:
        row, (line, column, value) = rows.iloc[place], peak(heat)
        near = _to_mask(row, line, column, images) if "known_mask" in row else _to_centres(row, line, column)
        found[place] = dict(row) | {"kind": kind, "draw": draw, "peak_row": line, "peak_column": column,
                                    "heat": value} | near
    return pd.DataFrame.from_dict(found, orient="index")


def _to_mask(row, line, column, images):
    """Distances of a peak from the mask of its view."""
    if not row["known_mask"]:
        return {"distance_mm": math.nan, "distance_pixels": math.nan, "hit": math.nan}
    pixels = math.inf if line is None else lesion_masks.distances(row, images)[line, column]
    return {"distance_mm": pixels * row.get("spacing_mm", math.nan), "distance_pixels": pixels,
            "hit": float(pixels <= lesion_masks.radius(row))}


def _to_centres(row, line, column):
    """Distances of a peak from the centres of lesions, if they are known."""
    lesions = row.get("known_lesions") or []
    any_mm, site_mm = (distance_mm(line, column, those, row)
                       for those in (lesions, [lesion for lesion in lesions if lesion[0] == row["code"]]))
    return {"distance_mm": any_mm, "hit": float(any_mm <= RADIUS_MM), "site_hit": float(site_mm <= RADIUS_MM)}


def play(peaks: pd.DataFrame, rows: pd.DataFrame, images: str | Path, draws: int,
         random_maps: Callable[[int, np.ndarray], Iterable], settings: dict, folder: Path) -> None:
    """Play the pointing game on the positive scans with lesions; print and write it (pointing.csv, pointing.json).

    Parameters
    ----------
    peaks : DataFrame
        `find_peaks` of the model's own maps of all `rows`.
    images : str or Path
        Folder of the MIPs.
    draws : int
        How many networks with random weights take part; `random_maps`: (number, rows) -> the maps of one of them.
    settings : dict
        Written to pointing.json; holds `target`.
    """
    masks, peaks, played = "known_mask" in rows, _with_patients(peaks), _in_game(rows, settings["target"])
    places = np.flatnonzero(played)
    if not len(places):
        print(f"no pointing game: no positive scan has a lesion{' of the site' * (':' in settings['target'])} in the "
              f"column {'mask, in each of its views' if masks else 'lesions'}")
        return
    brightest = ((place, read_image(rows.iloc[place], images)) for place in places)
    every = pd.concat([peaks.loc[places],
                       *(find_peaks(RANDOM, random_maps(draw, places), rows, images, draw) for draw in range(draws)),
                       lesion_masks.chance(places, rows, images) if masks
                       else find_peaks(BRIGHTEST, brightest, rows, images)])
    every = _with_patients(every)
    tables = [summarize(every).assign(near="lesion mask" if masks else "any lesion")]
    if settings["target"] != "binary" and any(lesion[0] for place in places for lesion in rows["known_lesions"][place]):
        tables.append(summarize(every.assign(hit=every["site_hit"])).assign(near="lesion of the site"))
    table = pd.concat(tables, ignore_index=True)
    notice, spacing = SYNTHETIC if is_synthetic(rows).any() else None, not masks or "spacing_mm" in rows
    within = {"within_mm": RADIUS_MM} if spacing else {"within_pixels": lesion_masks.RADIUS_PIXELS}
    distance = f"{RADIUS_MM / 10:g} cm" if spacing else f"{lesion_masks.RADIUS_PIXELS} pixels"
    alarms = {"false_alarms": lesion_masks.false_alarms(peaks)} if masks else {}
    controls = masks & (pd.to_numeric(rows["target"]) == 0).to_numpy()  # of false alarms
    learned = count_scans(rows[played | controls].set_index("scan_id")["overlap"])
    write_csv(table, folder / "pointing.csv")
    write_json({**within, **settings, "notice": notice, "overlap": learned, **alarms,
                "rows": json.loads(table.to_json(orient="records", double_precision=15))}, folder / "pointing.json")
    print(f"pointing game: peak within {distance} of a lesion's {'mask' if masks else 'centre'}; "
          f"{counted(len(places), 'view')} of {counted(rows['scan_id'][places].nunique(), 'positive scan')}, "
          f"{counted(every['patient'].nunique(), 'patient')}")
    print(as_text(table))
    for each in alarms.values():
        print(f"false alarms: {each['alarms']} of {counted(each['controls'], 'control')} with a peak as high as "
              f"{lesion_masks.KEPT:.0%} of the hits: {short_text(each)}")
    if set(learned["scans"]) & set(LEARNED):
        print(f"warning: optimistic: of the pointing game's {counted(sum(learned['scans'].values()), 'scan')}, or "
              f"their patients: {learned['text']}")
    if notice:
        print(notice)


def _with_patients(peaks):
    """With the column patient; a scan whose patient is not known stands for one."""
    patient = peaks[patient_column(peaks)]
    return peaks.assign(patient=patient.where(patient != "", peaks["scan_id"]))


def _in_game(rows, target):
    """(n,) bool: rows of positive scans whose lesions (with a site as target, lesions of that site) are known: by masks
    in all views, or by centres."""
    positive = (pd.to_numeric(rows["target"]) == 1).to_numpy()
    if "known_mask" in rows:
        return positive & rows.groupby("scan_id")["known_mask"].transform("all").to_numpy()
    return positive & [any(":" not in target or code == lesion[0] for lesion in lesions)
                       for code, lesions in zip(rows["code"], rows["known_lesions"], strict=True)]


def summarize(peaks: pd.DataFrame) -> pd.DataFrame:
    """The share of hits of each kind of map, by view and by scan.

    Parameters
    ----------
    peaks : DataFrame
        A row for each map: kind, draw (0, 1, ... where there are several of a kind), scan_id, view, heat (the peak's
        value), hit (0 or 1, or its probability), patient.

    Returns
    -------
    DataFrame
        kind, view (or "scan"), scans, maps (scans x draws), hits, share, ci_low, ci_high, ci_method, no_peak.
    """
    rows, peaks = [], peaks.reset_index(drop=True)
    for kind, own in peaks.groupby("kind", sort=False):
        hottest = own.loc[own.groupby(["draw", "scan_id"], sort=False)["heat"].idxmax()]
        if kind == BODY:  # of a view at random
            hottest = hottest.assign(hit=own.groupby("scan_id", sort=False)["hit"].mean().to_numpy())
        for view, part in [*own.groupby("view", sort=False), (SCAN, hottest)]:
            hits = part["hit"].to_numpy(float)
            share = proportion_estimate(hits, "scan with a known lesion", part["patient"])
            rows.append({"kind": kind, "view": view, "scans": part["scan_id"].nunique(), "maps": len(part),
                         "hits": round(float(hits.sum()), 2), "share": share["value"]}
                        | {name: share[name] for name in ("ci_low", "ci_high", "ci_method")}
                        | {"no_peak": int((part["heat"] == 0).sum())})
    return pd.DataFrame(rows)


def as_text(table: pd.DataFrame) -> str:
    """The rows of `summarize` as aligned text, a table for each value of the column `near`."""
    texts = []
    for near, rows in table.groupby("near", sort=False):
        lines = [("heat map", "view", "hits", "share (95 % CI)", "maps without peak")]
        for row in rows.itertuples():
            lines.append((row.kind, row.view, f"{row.hits:g}/{row.maps}",
                          f"{row.share:.3f} ({row.ci_low:.3f}–{row.ci_high:.3f})", str(row.no_peak)))
        texts.append(f"peaks near {near}:\n{aligned(lines)}")
    return "\n".join(texts)
