"""The phantom's body: one scan's plan -> a SUV volume and the truth about its lesions. No DICOM here.

Ellipsoids and tubes are painted one over the other, blurred to 6 mm (partial volume) and given noise whose variance
follows the activity. The liver is measured in a sphere of 3 cm in the right lobe (Wahl et al., PERCIST, J Nucl Med
2009, doi:10.2967/jnumed.108.057307). Uptakes and their spread are typical values, not fitted to patients.
"""
import math

import numpy as np
from scipy.ndimage import gaussian_filter

from synthetic.canvas import Canvas, voi
from synthetic.lesions import draw_lesions, score_truth

LIVER_VOI, LIVER_VOI_DIAMETER = (-80, 5, 605), 30.0  # clear of the liver lesions' places
POOL_VOI, POOL_VOI_DIAMETER = (20, 37, 540), 14.0  # lower descending aorta
FWHM = 6.0  # mm, partial volume
SIDES = np.array([(-1, 1, 1), (1, 1, 1)])  # right and left: what places on the left are multiplied by
NOISE = 0.11  # standard deviation at SUV 1
# Half-width, front and back of the body at depths below the vertex; mm.
OUTLINE = np.array([
    (-2, 0, -12, -8), (3, 25, -45, 20), (12, 45, -65, 42), (30, 62, -85, 64), (60, 73, -98, 80), (100, 75, -104, 85),
    (140, 71, -108, 80), (180, 65, -106, 66), (205, 60, -96, 58), (222, 57, -66, 58), (258, 59, -55, 68),
    (282, 80, -56, 85), (298, 128, -62, 94), (318, 162, -74, 101), (350, 170, -88, 106), (420, 162, -103, 108),
    (500, 157, -110, 105), (560, 154, -110, 100), (620, 147, -106, 95), (660, 146, -104, 95), (720, 160, -102, 101),
    (780, 172, -98, 108), (825, 174, -92, 108), (845, 172, -85, 104), (862, 60, -40, 60), (866, 0, -1, 1)], float).T
SPINE = np.array([(195, 20), (235, 22), (275, 35), (320, 52), (380, 62), (440, 66), (500, 62), (560, 50), (620, 38),
                  (670, 30), (710, 35), (740, 52)], float).T  # depth, y
COLON = ((-98, -32, 752), (-104, -25, 705), (-98, -20, 665), (-55, -62, 672), (0, -76, 690), (52, -68, 668),
         (98, -30, 622), (110, 15, 660), (108, 5, 725), (84, -12, 762), (45, -8, 772), (12, 38, 778), (0, 58, 802),
         (0, 62, 832))


def _uptakes(rng, decoys):
    """SUV of every tissue in one scan, before blur and noise; g/ml."""
    def spread(middle, sd, low, high):
        return float(np.clip(rng.lognormal(math.log(middle), sd), low, high))

    liver = spread(2.25, 0.11, 1.75, 2.9)
    blood = liver * rng.uniform(0.58, 0.78)
    heart = spread(8, 0.3, 1.3 * blood, 14) if "heart" in decoys else spread(2.6, 0.45, 1.3 * blood, 14)
    return {"liver": liver, "blood": blood, "mediastinum": 0.6 * blood, "heart": heart,
            "bladder": spread(24, 0.55, 8, 70), "spleen": liver * rng.uniform(0.7, 0.9),
            "brain": spread(9.5, 0.25, 6, 15), "kidney": spread(3.6, 0.25, 2.3, 7), "pelvis": spread(6, 0.3, 3, 12),
            "marrow": liver * rng.uniform(1.1, 2.0) if "marrow" in decoys else rng.uniform(0.9, 1.4),
            "muscle": rng.uniform(0.42, 0.85), "fat": rng.uniform(0.17, 0.33), "lung": rng.uniform(0.3, 0.5),
            "bowel": rng.uniform(0.8, 1.7), "stomach": rng.uniform(1.2, 2.4), "pancreas": rng.uniform(1.2, 1.8),
            "tonsil": rng.uniform(2, 4), "salivary": rng.uniform(1.3, 2.4), "oral": rng.uniform(1, 2),
            "thyroid": rng.uniform(0.9, 1.6), "eye": rng.uniform(1.2, 2.6), "gonad": rng.uniform(1.5, 3)}


def draw(patient: dict, scan: dict, noise: bool = True) -> tuple[np.ndarray, dict]:
    """Draw one scan.

    Parameters
    ----------
    patient, scan : dict
        From `cohort.plan_patient`.
    noise : bool
        False gives the noise-free volume.

    Returns
    -------
    volume : (z, y, x) float32 array
        SUV, feet to head, front to back, the patient's right to left.
    truth : dict
        Places are LPS, lengths mm: `axes` (z, y, x of the voxel centres), `origin` (x, y, z of the vertex); `liver` and
        `pool` (mean SUV in `liver_voi` and `pool_voi`: x, y, z, diameter); `lesions` (dicts of site, x, y, z, diameter
        and suv, the noise-free maximum in that sphere); `deauville`, `target`, `target_loc`.

    Raises
    ------
    InputError
        A lesion lies between liver and 1.3 times liver, where its label would be doubtful.
    """
    shape = np.random.default_rng([patient["seed"], patient["index"], 1])  # the body, alike in all scans
    rng = np.random.default_rng([patient["seed"], patient["index"], 2, scan["number"]])
    origin = np.array([rng.uniform(-3, 3), rng.uniform(-10, 10), round(rng.uniform(-200, 200), 1)])
    canvas = Canvas(patient, origin)
    suv = _uptakes(rng, scan["decoys"])
    _draw_outline(canvas, patient, suv, rng)
    _draw_chest(canvas, suv, shape)
    _draw_skeleton(canvas, suv)
    _draw_heart(canvas, suv, shape)
    _draw_abdomen(canvas, suv, shape)
    _draw_bowel(canvas, scan, suv, shape, rng)
    _draw_urinary(canvas, patient, scan, suv, shape, rng)
    _draw_head(canvas, suv, shape)
    _draw_decoys(canvas, patient, scan, suv, rng)
    sigma = [FWHM / math.sqrt(8 * math.log(2)) / v for v in (canvas.distance, canvas.pixel, canvas.pixel)]
    clean = gaussian_filter(canvas.volume, sigma, truncate=3)
    truth = {"origin": origin, "axes": (canvas.z, canvas.y, canvas.x),
             "liver_voi": (*canvas.to_mm(LIVER_VOI), LIVER_VOI_DIAMETER),
             "pool_voi": (*canvas.to_mm(POOL_VOI), POOL_VOI_DIAMETER)}
    for name in ("liver", "pool"):
        truth[name] = float(voi(clean, truth["axes"], truth[f"{name}_voi"]).mean())
    draw_lesions(canvas, clean, patient, scan, truth, sigma)
    score_truth(clean, scan, truth)
    return (_add_noise(clean, rng) if noise else clean), truth


def _add_noise(clean, rng):
    """Noise of variance proportional to activity, correlated between neighbouring voxels; SUV stays at 0 or more."""
    white = rng.standard_normal(clean.shape, dtype=np.float32)
    for axis in range(3):
        white = np.moveaxis(white, axis, 0)
        white[1:] += white[:-1]
        white = np.moveaxis(white, 0, axis)
    white *= np.float32(NOISE / math.sqrt(8))
    white *= np.sqrt(clean)
    white += clean
    return np.maximum(white, 0, out=white)


def _draw_outline(canvas, patient, suv, rng):
    """Body surface, fat under it, soft tissue inside with a slow texture, legs, breasts, arms."""
    up, y, x = canvas.axes
    depth = -up
    half, front, back = (np.interp(depth, OUTLINE[0], row) for row in OUTLINE[1:])
    head = np.interp(depth, (215, 300), (0, 1))  # the head does not grow with weight
    girth = 1 + (patient["girth"] - 1) * head
    half, middle, thick = half * girth, (front + back) / 2, np.maximum((back - front) / 2 * girth, 1)
    middle = middle - (girth - 1) * 0.3 * thick  # the belly grows to the front
    u = np.minimum((x / np.maximum(half, 1)[:, None]) ** 2, 4).astype(np.float32)[:, None, :]
    v = np.minimum(((y - middle[:, None]) / thick[:, None]) ** 2, 4).astype(np.float32)[:, :, None]
    inside = np.sqrt(np.maximum(u + v * (1 - np.float32(0.3) * np.minimum(u, 1)), 0))
    inside = (1 - inside) * np.minimum(np.maximum(half, 1), thick).astype(np.float32)[:, None, None]
    inside[(depth < OUTLINE[0, 0]) | (depth > OUTLINE[0, -1])] = -canvas.edge
    fat = (4 + np.clip(6 + 90 * (patient["girth"] - 1), 3, 32) * head).astype(np.float32)[:, None, None]
    edge = canvas.edge
    texture = _slow_field(rng, canvas.volume.shape, 8) * np.float32(0.12) + 1
    canvas.volume[:] = suv["fat"] * np.clip(inside / edge + np.float32(0.5), 0, 1)
    canvas.volume += (suv["muscle"] * texture - suv["fat"]) * np.clip((inside - fat) / edge + np.float32(0.5), 0, 1)
    leg, arm = 80 * patient["girth"] ** 0.7, 36 * patient["girth"] ** 0.5
    for side in (-1, 1):
        points = [(side * 92, 4, 815), (side * 90, 4, 1100)]
        canvas.tube(points, leg, suv["fat"])
        canvas.tube(points, leg - 6 - 0.5 * float(fat.max()), suv["muscle"])
        if patient["sex"] == "F":
            canvas.ellipsoid((side * 72, -102 * patient["girth"], 425), (46, 30, 42), suv["fat"] * 1.4)
        points = _arm_points(canvas, patient, side)
        canvas.tube(points, [arm + 4, arm, arm - 4], suv["fat"])
        canvas.tube(points, [arm - 4, arm - 9, arm - 12], suv["muscle"])


def _slow_field(rng, shape, cells):
    """Standard normal values on a coarse grid of `cells` a side, interpolated linearly to `shape`; float32."""
    field = rng.standard_normal([cells] * 3).astype(np.float32)
    for axis, n in enumerate(shape):
        place = np.linspace(0, cells - 1.001, n)
        low = place.astype(int)
        weight = (place - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        field = np.take(field, low, axis) * (1 - weight) + np.take(field, low + 1, axis) * weight
    return field


def _arm_points(canvas, patient, side):
    """Shoulder, middle, elbow and further along the arm; the outside stays within 244 mm of the midline."""
    most = 244 / canvas.wide - 36 * patient["girth"] ** 0.5
    points = [(150, 0, 325), (min(190 * patient["girth"], most), 5, 460), (most, 10, 600), (most, -25, 830)]
    if patient["arms"] == "up":
        points = [(150, 0, 325), (min(178, most), -15, 225), (min(192, most), -35, 70), (150, -50, -90)]
    return np.multiply(points, (side, 1, 1))


def _draw_chest(canvas, suv, shape):
    size = shape.normal(1, 0.03)
    for side in (-1, 1):
        canvas.ellipsoid((side * 76, 6, 430), (60 * size, 78 * size, 122), suv["lung"], side * -0.08)
    canvas.ellipsoid((0, 0, 425), (34, 74, 120), suv["mediastinum"])
    canvas.tube([(0, 0, 250), (0, 12, 340), (0, 25, 420)], 8, suv["lung"])  # trachea


def _draw_skeleton(canvas, suv):
    marrow, depth = suv["marrow"], 200.0
    while depth < 745:
        height = 15 + 20 * (depth - 200) / 545
        width = 10 + 11 * (depth - 200) / 545
        y = float(np.interp(depth, *SPINE))
        canvas.ellipsoid((0, y, depth), (width * 1.15, width, height * 0.5), marrow)
        canvas.tube([(0, y + width, depth), (0, y + width + 14, depth + 5)], 5, marrow * 0.8)
        depth += height
    canvas.ellipsoid((0, 66, 762), (38, 18, 34), marrow * 0.9)
    canvas.tube([(0, -64, 330), (0, -84, 400), (0, -92, 470)], 8, marrow * 0.85)
    for side in SIDES:
        for rib in range(9):
            top, out = 322 + 23 * rib, 92 + 9 * min(rib, 4)
            points = [(22, 68, top), (out * 0.8, 72, top + 14), (out, 5, top + 42), (out * 0.75, -72, top + 62)]
            canvas.tube(side * points, 4.5, marrow * 0.6)
        canvas.tube(side * [(18, -60, 322), (135, -10, 303)], 6, marrow * 0.6)
        canvas.tube(side * [(44, 62, 732), (90, 48, 702), (118, 8, 712), (110, -25, 745)], 10, marrow * 0.85)
        canvas.tube(side * [(90, 40, 720), (80, 10, 800), (50, 42, 835), (15, -45, 822)], 11, marrow * 0.7)
        canvas.tube(side * [(88, 5, 800), (118, 10, 828), (104, 8, 1000)], [15, 13], marrow * 0.55)
        canvas.ellipsoid(side * (150, 2, 325), (18, 18, 20), marrow * 0.6)


def _draw_heart(canvas, suv, shape):
    blood = suv["blood"]
    turn, size = shape.normal(0.7, 0.12), shape.normal(1, 0.05)
    canvas.ellipsoid((-4, -22, 468), (38 * size, 42 * size, 42 * size), blood)
    canvas.ellipsoid((34, -26, 482), (33 * size, 34 * size, 46 * size), suv["heart"], -turn)
    canvas.ellipsoid((26, -22, 474), (20 * size, 21 * size, 36 * size), blood, -turn)
    canvas.tube([(0, -28, 450), (-18, -30, 420), (-16, -26, 400)], 16, blood)
    canvas.tube([(-16, -26, 400), (2, 0, 378), (20, 34, 398), (24, 42, 500), (12, 26, 600), (10, 8, 705)],
                [14, 13, 12, 12, 9], blood)
    canvas.tube([(-28, -18, 450), (-26, -18, 350), (-45, -5, 270)], [10, 7], blood)
    canvas.tube([(-26, -5, 490), (-20, 12, 600), (-14, 14, 705)], 10, blood)
    for side in SIDES:
        canvas.tube(side * [(0, 8, 705), (45, 22, 760), (80, -50, 825), (86, -45, 950)], [8, 6, 5], blood * 0.85)


def _draw_abdomen(canvas, suv, shape):
    size, move = shape.normal(1, 0.05), shape.normal(0, 6)
    canvas.ellipsoid((-72, -2, 582 + move), (66 * size, 76 * size, 84 * size), suv["liver"], 0.15)
    canvas.ellipsoid((-4, -46, 556 + move), (68 * size, 36, 38 * size), suv["liver"], -0.2)
    canvas.ellipsoid((70, -32, 572 + move), (32, 30, 40), suv["stomach"], -0.4)
    canvas.ellipsoid((100, 36, 576 + move), (22 * size, 40 * size, 48 * size), suv["spleen"], 0.25)
    canvas.tube([(-30, -8, 640), (0, -18, 632), (75, 10, 612)], [13, 11], suv["pancreas"])
    for side in SIDES:
        canvas.tube(side * [(24, 38, 600), (42, 34, 690), (66, 4, 775)], [14, 17], suv["muscle"] * 1.1)


def _draw_bowel(canvas, scan, suv, shape, rng):
    """Colon along its frame and loops of small bowel; as a decoy some runs of them are hot."""
    points = np.repeat(np.array(COLON, float), 2, axis=0)
    points[1:-1:2] = (points[2::2] + points[1:-1:2]) / 2
    points = points[:-1] + shape.normal(0, 4, (len(points) - 1, 3))
    values = suv["bowel"] * rng.lognormal(0, 0.25, len(points) - 1)
    loops = []
    for x, depth in ((-42, 705), (40, 700), (0, 735)):
        steps = shape.normal(0, 1, (9, 3)) * (28, 14, 20)
        loops.append((np.array([x, -48, depth]) + steps, suv["bowel"] * rng.lognormal(0, 0.25, 8)))
    if "bowel" in scan["decoys"]:
        for _ in range(rng.integers(1, 3)):
            first, length = rng.integers(len(values) - 8), rng.integers(8, 18)
            values[first:first + length] = suv["liver"] * rng.uniform(1.2, 3.5) * rng.uniform(0.85, 1.15)
        if rng.random() < 0.4:
            loops[rng.integers(3)][1][:] = suv["liver"] * rng.uniform(1, 2.2)
    for loop, loop_values in loops:
        canvas.tube(loop, 9, loop_values)
    canvas.tube(points, shape.uniform(12, 16, len(values)), values)


def _draw_urinary(canvas, patient, scan, suv, shape, rng):
    for side in (-1, 1):
        move = shape.normal(0, 5)
        canvas.ellipsoid((side * 60, 46, 642 + move), (26, 22, 52), suv["kidney"], side * 0.2)
        canvas.ellipsoid((side * 52, 42, 645 + move), (9, 10, 24), suv["pelvis"], side * 0.2)
        points = np.linspace((side * 46, 40, 672), (side * 52, 34, 768), 7)
        points = np.vstack([points, [(side * 14, 12, 796)]]) + shape.normal(0, 2, (8, 3))
        values = np.full(7, suv["muscle"] * 1.5)
        if "ureter" in scan["decoys"]:
            values[rng.integers(4):] = rng.uniform(4, 12) * (rng.random() < 0.7) + suv["muscle"]
        canvas.tube(points, 3.5, values)
    full = rng.uniform(1.35, 1.7) if "bladder" in scan["decoys"] else rng.uniform(0.75, 1.15)
    canvas.ellipsoid((0, -34, 812 - 16 * full), (34 * full, 28 * full, 24 * full), suv["bladder"])
    if patient["sex"] == "M":
        canvas.ellipsoid((0, 2, 826), (20, 16, 15), suv["muscle"] * 2)
        for side in (-1, 1):
            canvas.ellipsoid((side * 17, -58, 870), (12, 14, 18), suv["gonad"])
    else:
        canvas.ellipsoid((0, 14, 788), (26, 20, 22), suv["muscle"] * 2)


def _draw_head(canvas, suv, shape):
    brain, size = suv["brain"], shape.normal(1, 0.03)
    canvas.ellipsoid((0, -10, 76), (61 * size, 78 * size, 58), brain)
    for side in SIDES:
        canvas.ellipsoid(side * (24, -10, 70), (15, 46, 22), brain * 0.4)
        canvas.ellipsoid(side * (30, -82, 118), (10, 10, 8), suv["eye"])
        canvas.ellipsoid(side * (54, -12, 168), (9, 15, 20), suv["salivary"])
        canvas.ellipsoid(side * (16, -24, 182), (8, 9, 11), suv["tonsil"])
        canvas.ellipsoid(side * (27, -42, 206), (10, 12, 9), suv["salivary"])
        canvas.ellipsoid(side * (15, -30, 276), (7, 8, 16), suv["thyroid"])
    canvas.ellipsoid((0, 36, 116), (46, 28, 22), brain * 0.8)
    canvas.tube([(0, 8, 110), (0, 14, 150), (0, 24, 280)], [10, 5], [brain * 0.5, suv["muscle"] * 2])
    canvas.ellipsoid((0, -76, 146), (20, 22, 18), suv["lung"])
    canvas.ellipsoid((0, -62, 188), (22, 26, 14), suv["oral"])
    canvas.ellipsoid((0, -32, 248), (11, 10, 12), suv["oral"])
    canvas.ellipsoid((0, -32, 248), (6, 6, 14), suv["lung"])


def _draw_decoys(canvas, patient, scan, suv, rng):
    """Uptake that is as bright as lesions but told apart by place and shape: paired, long, or outside the trunk."""
    if "brown_fat" in scan["decoys"]:
        hot = suv["liver"] * rng.uniform(1.2, 3.2)
        spread = rng.uniform(0.7, 1.1, 12)
        points = [(32, 6, 252), (46, 6, 275), (66, 6, 290), (88, 10, 298), (108, 12, 306), (126, 14, 318)]
        for side in SIDES:
            canvas.tube(side * points, 6 + 2 * spread[:5], hot * spread[:5])
            for k in range(7):
                canvas.ellipsoid(side * (25, 60, 335 + 24 * k), (6, 7, 6), 0.6 * hot * spread[5 + k])
    if "muscle" in scan["decoys"]:
        hot = suv["liver"] * rng.uniform(0.9, 2.0)
        muscle = [[(30, 5, 205), (34, -20, 260), (16, -52, 316)], [(60, 88, 320), (40, 86, 420), (30, 82, 520)],
                  [(30, 36, 610), (46, 32, 700), (70, 0, 785)]][rng.integers(3)]
        for side in SIDES:
            canvas.tube(side * muscle, 10, hot * rng.uniform(0.9, 1.1))
    if "injection" in scan["decoys"]:
        side = int(rng.choice([-1, 1]))
        arm = _arm_points(canvas, patient, side)
        canvas.ellipsoid(arm[2], (8, 8, 10), rng.uniform(6, 40))
        if rng.random() < 0.5:
            canvas.tube(arm[:3], 4, rng.uniform(2, 6))
