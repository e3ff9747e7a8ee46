"""The pointing game on lesion masks: how far a pixel is from the mask, what chance hits, and false alarms.

A peak hits where a pixel of the mask of its view lies within RADIUS_MM, or, where the manifest has no spacing_mm,
within RADIUS_PIXELS.
"""
import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt

from common.files import progress
from common.mips import read_image, read_mask
from dataset import BODY_SUV
from evaluation.metrics import proportion_estimate

RADIUS_MM, RADIUS_PIXELS = 30.0, 8
BRIGHTEST, BODY = "brightest pixel", "random body pixel"
KEPT = 0.8  # share of the hits whose peak is at least as high as the value that a false alarm reaches


def lesions_in_masks(table: pd.DataFrame, images: str | Path) -> list[bool]:
    """Read every mask of the manifest's rows once -> whether it holds a pixel; False without mask. Or InputError."""
    with progress(list(zip(table.itertuples(), table["mask"], strict=True)), "lesion masks", "mask") as rows:
        return [name != "" and bool(read_mask(row, images, name).any()) for row, name in rows]


def distances(row: pd.Series, images: str | Path) -> np.ndarray:
    """From each pixel of a MIP to the nearest pixel of its mask, which holds some: (rows, columns) float64, pixels."""
    return distance_transform_edt(~read_mask(row, images, row["mask"]))


def radius(row: pd.Series) -> float:
    """Of a hit, pixels."""
    return RADIUS_MM / row["spacing_mm"] if "spacing_mm" in row else RADIUS_PIXELS


def chance(places: np.ndarray, rows: pd.DataFrame, images: str | Path) -> pd.DataFrame:
    """What hits without any network, as rows of `pointing_game.find_peaks`.

    BRIGHTEST, the brightest pixel of a MIP (of several alike, one at random), and BODY, one at random of those above
    BODY_SUV: `hit` is the probability, the share of these pixels that hit.
    """
    found = {}
    for place in places:
        row, image = rows.iloc[place], read_image(rows.iloc[place], images)
        near = distances(row, images) <= radius(row)
        found[place] = [dict(row) | {"kind": kind, "draw": 0, "heat": float(image.max()), "hit": float(near[of].mean())}
                        for kind, of in ((BRIGHTEST, image == image.max()), (BODY, image > BODY_SUV))]
    return pd.DataFrame([each for both in found.values() for each in both])


def false_alarms(peaks: pd.DataFrame) -> dict:
    """The share of controls whose map peaks as high as KEPT of the hits do; a scan's peak is the highest of its views.

    Parameters
    ----------
    peaks : DataFrame
        A row a map of one network: scan_id, patient, target (0 or 1), heat, hit (NaN where no mask is known).

    Returns
    -------
    dict
        heat: the highest value that KEPT of the hits reach, None without a hit; controls; alarms; and the entry of the
        share (see `evaluation.estimates`), by patient, for that value as it is.
    """
    hottest = peaks.loc[peaks.groupby("scan_id", sort=False)["heat"].idxmax()]
    hits, controls = hottest.loc[hottest["hit"] == 1, "heat"], hottest[pd.to_numeric(hottest["target"]) == 0]
    heat = float(hits.nlargest(math.ceil(KEPT * len(hits) - 1e-9)).iloc[-1]) if len(hits) else None
    alarms = (controls["heat"] >= heat).to_numpy() if len(hits) else np.zeros(0, bool)
    return {"heat": heat, "controls": len(controls), "alarms": int(alarms.sum()),
            **proportion_estimate(alarms, "control, or no hit", controls["patient"].to_numpy()[:len(alarms)])}
