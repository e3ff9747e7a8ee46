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
    """Whether each row of the manifest has a mask that is not empty. Raises InputError for a mask that is no mask."""
    with progress(list(zip(table.itertuples(), table["mask"], strict=True)), "lesion masks", "mask") as rows:
        return [name != "" and bool(read_mask(row, images, name).any()) for row, name in rows]


def distances(row: pd.Series, images: str | Path) -> np.ndarray:
    """(rows, columns) float64: each pixel's distance from the nearest pixel of the MIP's mask, in pixels; the mask must
    not be empty."""
    return distance_transform_edt(~read_mask(row, images, row["mask"]))


def radius(row: pd.Series) -> float:
    """How near to the mask a peak must lie to hit, in pixels."""
    return RADIUS_MM / row["spacing_mm"] if "spacing_mm" in row else RADIUS_PIXELS


def chance(places: np.ndarray, rows: pd.DataFrame, images: str | Path) -> pd.DataFrame:
    """How often pixels hit that no network chose, as rows of `pointing_game.find_peaks`.

    BRIGHTEST: the brightest pixel of a MIP, a random one if there are several; BODY: a random pixel above BODY_SUV.
    `hit` is the probability: the share of these pixels that hit.
    """
    found = {}
    for place in places:
        row, image = rows.iloc[place], read_image(rows.iloc[place], images)
        near = distances(row, images) <= radius(row)
        found[place] = [dict(row) | {"kind": kind, "draw": 0, "heat": float(image.max()), "hit": float(near[of].mean())}
                        for kind, of in ((BRIGHTEST, image == image.max()), (BODY, image > BODY_SUV))]
    return pd.DataFrame([each for both in found.values() for each in both])


def false_alarms(peaks: pd.DataFrame) -> dict:
    """The share of controls (target 0) with a peak at least as high as those of KEPT of the hits.

    A scan's peak is the highest of its views.

    Parameters
    ----------
    peaks : DataFrame
        A row for each map: scan_id, patient, target (0 or 1), heat, hit (NaN where no mask is known).

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
