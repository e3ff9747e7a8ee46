"""The pointing game: does a heat map peak near a lesion whose place is known?

Zhang et al., IJCV 2018 (arXiv:1608.00507), with a distance in place of a mask. A view's map hits where its highest
pixel lies within RADIUS_MM of a lesion's centre, both in the plane of the projection. A scan's peak is the highest
pixel of all its views' maps, which are of one network and one score (of equal ones the first view's, coronal); it hits
or misses as that view does. A map without a peak, all 0, misses.
"""
import math

import numpy as np
import pandas as pd

from common.files import InputError
from common.manifest import VIEWS
from evaluation.metrics import proportion_estimate

RADIUS_MM = 30.0
NEEDED = ("lesions", "row0_mm", "column0_mm", "spacing_mm")  # the manifest's columns without which nothing is known
SCAN = "scan"  # the row of a table that takes a scan's views together


def read_lesions(path, table):
    """The column `lesions` -> for each row of the manifest a list of (site, x, y, z): code as text; mm, LPS.

    A lesion is site:x:y:z, whatever may follow after another colon; lesions are separated by semicolons. row0_mm and
    column0_mm become float64, in place. Raises InputError naming the row.
    """
    for name in ("row0_mm", "column0_mm"):
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (bad := ~np.isfinite(numbers)).any():
            row = table[bad].iloc[0]
            raise InputError(f"{path} row {row['row']} (scan {row['scan_id']}): {name} = {row[name]!r} is not a "
                             "position in mm; mend the CSV, or give --no_pointing")
        table[name] = numbers
    found = []
    for row in table.itertuples():
        lesions = []
        for text in filter(None, map(str.strip, row.lesions.split(";"))):
            site, *numbers = text.split(":")
            try:
                place = [float(number) for number in numbers[:3]]
            except ValueError:
                place = []
            if len(place) < 3 or not all(map(math.isfinite, place)):
                raise InputError(f"{path} row {row.row} (scan {row.scan_id}): lesions holds {text!r}, not "
                                 "site:x:y:z in mm; mend the CSV, or give --no_pointing")
            lesions.append((site, *place))
        found.append(lesions)
    return found


def project(lesions, row):
    """[(site, x, y, z), ...] -> (n, 2) float64: row and column of each in the MIP of this row of the manifest.

    As preprocessing.conversion.pixel_origin says: row r lies at row0_mm - r * spacing_mm, column c at
    column0_mm + c * spacing_mm, along x cos(angle) + y sin(angle), angle 0 for cor, 90 for sag, N for rotN.
    """
    angle = math.radians({"cor": 0, "sag": 90}[row.view] if row.view in VIEWS else int(row.view[3:]))
    x, y, z = np.array([lesion[1:] for lesion in lesions]).T
    across = x * math.cos(angle) + y * math.sin(angle)
    return np.stack([row.row0_mm - z, across - row.column0_mm], 1) / row.spacing_mm


def peak(heat):
    """(row, column, value) of the highest pixel; (None, None, 0.0) of a map that is 0 everywhere."""
    if not heat.max() > 0:
        return None, None, 0.0
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return int(row), int(column), float(heat[row, column])


def distance_mm(line, column, lesions, row):
    """From a map's peak to the nearest lesion's centre, in the plane; infinite without a peak or a lesion."""
    if line is None or not lesions:
        return math.inf
    return float(np.hypot(*(project(lesions, row) - (line, column)).T).min() * row.spacing_mm)


def summarize(peaks):
    """The share of hits of each kind of map, by view and by scan.

    Args:
        peaks (DataFrame): a row per map: kind, draw (0, 1, ... of repeated kinds), scan_id, view, heat (the peak's
            value), distance_mm, patient.

    Returns:
        DataFrame: kind, view (or "scan"), scans, maps (scans x draws), hits, share, ci_low, ci_high, ci_method,
        no_peak.
    """
    rows, peaks = [], peaks.reset_index(drop=True)
    for kind, mine in peaks.groupby("kind", sort=False):
        hottest = mine.loc[mine.groupby(["draw", "scan_id"], sort=False)["heat"].idxmax()]
        for view, part in [*mine.groupby("view", sort=False), (SCAN, hottest)]:
            hits = (part["distance_mm"] <= RADIUS_MM).to_numpy()
            share = proportion_estimate(hits, "scan with a known lesion", part["patient"])
            rows.append({"kind": kind, "view": view, "scans": part["scan_id"].nunique(), "maps": len(part),
                         "hits": int(hits.sum()), "share": share["value"]}
                        | {name: share[name] for name in ("ci_low", "ci_high", "ci_method")}
                        | {"no_peak": int((part["heat"] == 0).sum())})
    return pd.DataFrame(rows)


def as_text(table):
    """`summarize`'s rows, lined up; with a column `near`, of several tables."""
    lines = [("heat map", "view", "peaks near", "hits", "share (95 % CI)", "maps without peak")]
    for row in table.itertuples():
        lines.append((row.kind, row.view, row.near, f"{row.hits}/{row.maps}",
                      f"{row.share:.3f} ({row.ci_low:.3f}–{row.ci_high:.3f})", str(row.no_peak)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)
