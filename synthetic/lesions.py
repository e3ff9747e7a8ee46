"""Lesions of the phantom: where they lie, how they are drawn, and the Deauville score that follows from them.

The score follows from what was drawn (Barrington et al., J Clin Oncol 2014, doi:10.1200/JCO.2013.53.5229): the hottest
lesion against liver and mediastinal blood pool.
"""
import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from common.files import InputError
from common.sites import NO_LESION
from synthetic.canvas import Canvas, box, squared_distance, voi

# Code (its name: common.sites.SITES) -> places: mm in the standard body, (to the left, to the back, below the vertex).
SITES = {1: ((40, 8, 232), (-40, 8, 232)), 2: ((66, -8, 296), (-66, -8, 296)), 5: ((142, 5, 372), (-142, 5, 372)),
         6: ((14, -62, 392), (-16, -60, 405)), 7: ((46, 10, 440), (-46, 10, 436)), 8: ((22, 22, 668), (-18, 20, 690)),
         9: ((30, -48, 668), (-30, -48, 690)), 10: ((66, 8, 758), (-66, 8, 758)), 11: ((84, -58, 832), (-84, -58, 832)),
         20: ((100, 38, 565), (98, 36, 590)), 25: ((-60, -30, 565), (-95, 15, 560), (0, -48, 556)),
         27: ((88, -25, 410), (-90, -25, 420), (85, 35, 470), (-85, 35, 480)),
         28: ((0, 64, 470), (0, 34, 640), (100, 42, 712), (-100, 42, 712), (108, 8, 835), (-108, 8, 835))}
SOLID_ORGANS = (20, 25)
AMBIGUOUS = 1.3  # no lesion lies between 1.0 and this many times the liver


def draw_lesions(canvas: Canvas, clean: np.ndarray, patient: dict, scan: dict, truth: dict,
                 sigma: Sequence[float]) -> None:
    """Add the planned lesions to the blurred volume, in place, and list them in `truth["lesions"]`.

    Blurring is linear, so a lesion is an excess that is blurred alone and scaled to give its planned SUV. A lesion is
    moved where the place is too hot for it to be seen, or close to another lesion or a reference sphere; it is left out
    after thirty tries.

    Parameters
    ----------
    canvas : Canvas
        Where the standard body lies.
    clean : (z, y, x) float32 array
        The blurred body without lesions and noise, SUV; changed.
    patient, scan : dict
        From `cohort.plan_patient`.
    truth : dict
        See `body.draw`: `axes`, `liver`, `pool`, `liver_voi` and `pool_voi` are read, `lesions` is set.
    sigma : three floats
        Of the blur along z, y, x; voxels.
    """
    truth["lesions"] = []
    coronal, sagittal = clean.max(1), clean.max(2)
    for order, (site, reference, factor) in enumerate(scan["lesions"]):
        suv = truth[reference] * factor
        bright = suv > truth["liver"]
        rng = np.random.default_rng([patient["seed"], patient["index"], 3, site])  # the same place in every scan
        for attempt in range(30):
            nodes = _cluster(canvas, rng, site, bright + (bright and order == 0), 4 + 0.5 * attempt)
            hidden = max(voi(clean, truth["axes"], node).max(initial=0) for node in nodes) > 0.75 * suv
            taken = [truth["liver_voi"], truth["pool_voi"], *(_sphere(lesion) for lesion in truth["lesions"])]
            hidden |= any(math.dist(node[:3], other[:3]) < (node[3] + other[3]) / 2 + 12
                          for node in nodes for other in taken)
            if bright and not hidden:
                x, y, z, _ = nodes[0]
                k, j, i = (int(np.abs(axis - c).argmin()) for axis, c in zip(truth["axes"], (z, y, x), strict=True))
                hidden = coronal[k, i] > 0.8 * suv or sagittal[k, j] > 0.8 * suv
            if not hidden:
                goals = suv * np.concatenate([[1], rng.uniform(0.85, 1, len(nodes) - 1)])
                goals = np.maximum(goals, 1.45 * truth["liver"]) if bright else goals
                _add_cluster(clean, truth["axes"], nodes, goals, sigma)
                truth["lesions"] += [dict(zip(("site", "x", "y", "z", "diameter"), (site, *node), strict=True))
                                     for node in nodes]
                break


def _sphere(lesion):
    """A lesion as (x, y, z, diameter)."""
    return [lesion[key] for key in ("x", "y", "z", "diameter")]


def _cluster(canvas, rng, site, bulk, scatter):
    """Spheres (x, y, z, diameter; mm) of one site; bulk 0 is a residual, 1 a lump of nodes, 2 the largest lump."""
    places = SITES[site]
    centre = canvas.to_mm(np.array(places[rng.integers(len(places))]) + rng.normal(0, scatter, 3))
    organ = site in SOLID_ORGANS
    count, smallest, largest = ((1, 14, 26), (6, 18, 34), (8, 22, 40))[bulk]
    nodes = []
    for k in range(rng.integers(count, count + 1 + (bulk > 0) * 3)):
        diameter = rng.uniform(smallest, largest)
        step = rng.normal(0, 1, 3)
        step *= (0 if k == 0 else (11 if organ else rng.uniform(16, 38))) / np.linalg.norm(step)
        nodes.append((*(centre + step), diameter * (0.85 if organ else 1)))
    return nodes


def _add_cluster(clean, axes, nodes, goals, sigma):
    """Add blurred spheres to `clean`, in place, each scaled so that the maximum in it is its goal.

    Where nodes overlap the larger excess counts, so that a lump is no hotter than its hottest node.
    """
    reach = max(node[3] for node in nodes) / 2 + 15
    places = np.array([node[2::-1] for node in nodes])  # z, y, x
    cut, grids = box(axes, places.min(0) - reach, places.max(0) + reach)
    step = float(np.diff(axes[1][:2])[0])
    base, excess, inside = clean[cut], np.float32(0), False
    for place, node, goal in zip(places, nodes, goals, strict=True):
        distance = np.sqrt(squared_distance(grids, place))
        cover = np.clip((node[3] / 2 - distance) / step + 0.5, 0, 1).astype(np.float32)
        blurred = gaussian_filter(cover, sigma, truncate=3)
        sphere = distance <= node[3] / 2
        excess, inside = np.maximum(excess, blurred * ((goal - base[sphere]) / blurred[sphere]).min()), inside | sphere
    base += excess * min(1, ((max(goals) - base[inside]) / excess[inside]).min())


def score_truth(clean: np.ndarray, scan: dict, truth: dict) -> None:
    """Measure every lesion in the noise-free volume; set each one's `suv`, and the scan's score, target and site.

    Parameters
    ----------
    clean : (z, y, x) float32 array
        SUV with the lesions, without noise.
    scan : dict
        From `cohort.plan_patient`.
    truth : dict
        See `body.draw`; `deauville`, `target` and `target_loc` are set.

    Raises
    ------
    InputError
        A lesion lies between liver and 1.3 times liver, where its label would be doubtful.
    """
    liver, pool = truth["liver"], truth["pool"]
    for lesion in truth["lesions"]:
        lesion["suv"] = float(voi(clean, truth["axes"], _sphere(lesion)).max())
        if liver < lesion["suv"] < AMBIGUOUS * liver:
            raise InputError(f"a lesion of SUV {lesion['suv']:.2f} lies between liver ({liver:.2f}) and 1.3 x it: its "
                             "label would be doubtful; give another --seed")
    hottest = max(truth["lesions"], key=lambda lesion: lesion["suv"], default=None)
    new = any(lesion["site"] not in scan["known_sites"] and lesion["suv"] > liver for lesion in truth["lesions"])
    truth["deauville"] = deauville(hottest["suv"] if hottest else None, pool, liver, new and scan["number"] > 1)
    truth["target"] = int(truth["deauville"] >= 4)
    truth["target_loc"] = hottest["site"] if truth["target"] else NO_LESION


def deauville(suv: float | None, pool: float, liver: float, new_site: bool) -> int:
    """Deauville score, 1 to 5, of the hottest lesion's SUV (None: no lesion) against blood pool and liver.

    `new_site`: a lesion above the liver lies at a site where the earlier scans had none.
    """
    if suv is None:
        return 1
    if suv <= pool:
        return 2
    if suv <= liver:
        return 3
    return 5 if new_site or suv >= 2 * liver else 4
