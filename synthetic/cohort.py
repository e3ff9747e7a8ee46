"""The patients of a synthetic cohort: what each scan is to show, its files, its row of labels.csv."""
import math
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, progress
from common.workers import processes
from synthetic import body, canvas, lesions, pet_series

GRIDS = ((96, 5.3, 4.7), (92, 5.6, 5.0), (100, 5.15, 4.9))  # columns and rows, pixel, slice distance; mm
# Probability of each decoy in negative and positive scans: the difference balances what lesions add to intensity.
DECOY_RATES = {"bowel": (0.40, 0.15), "brown_fat": (0.14, 0.10), "marrow": (0.26, 0.06), "injection": (0.20, 0.15),
               "bladder": (0.30, 0.25), "heart": (0.40, 0.35), "ureter": (0.25, 0.25), "muscle": (0.20, 0.08)}
LABELS = ("StudyInstanceUID", "patient", "study", "deauville", "target", "target_loc", "n_lesions", "lesions",
          "liver_suv", "pool_suv", "decoys", "sex", "age", "weight_kg", "height_cm", "arms", "vendor",
          "decay_correction", "uptake_min", "synthetic")  # columns of labels.csv


def plan_patient(seed: int, index: int, arms: str = "mixed") -> dict:
    """Draw one patient and the plan of the scans.

    Parameters
    ----------
    seed : int
        The cohort's.
    index : int
        The patient's number in the cohort.
    arms : "mixed", "up" or "down"

    Returns
    -------
    dict
        Sex, age, height_cm, weight_kg, the body's scales, the voxel grid, and `scans`, a list of one to three dicts:
        planned Deauville score, lesions (see `_plan_lesions`), decoys, day.
    """
    rng = np.random.default_rng([seed, index])
    sex = str(rng.choice(["M", "F"]))
    height = float(np.clip(rng.normal(176 if sex == "M" else 163, 7), 150, 192))
    bmi = float(np.clip(rng.lognormal(math.log(25), 0.15), 18.5, 36))
    patient = {"seed": seed, "index": index, "patient": f"SYN-{seed}-{index:04d}", "sex": sex,
               "age": int(rng.integers(18, 80)), "height_cm": round(height),
               "weight_kg": round(bmi * (height / 100) ** 2, 1), "girth": math.sqrt(bmi / 23),
               "long": (820 + 2.4 * (height - 170)) / canvas.STANDARD_TRUNK,
               "wide": float(np.clip(math.sqrt(height / 172) * rng.normal(1, 0.02), 0.93, 1.05)),
               "grid": GRIDS[rng.integers(len(GRIDS))], "thigh": float(rng.uniform(70, 110)), "scans": [],
               "arms": arms if arms != "mixed" else "up" if rng.random() < 0.75 else "down"}
    sites = [int(s) for s in rng.permutation(list(lesions.SITES))[:rng.integers(6, 9)]]
    day, seen = int(rng.integers(0, 700)), set()
    for number in range(1, 1 + int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))):
        score = int(rng.choice([1, 2, 3, 4, 5], p=[0.2, 0.2, 0.15, 0.2, 0.25]))
        scan = {"number": number, "study": f"study{number}", "planned": score, "day": day, "known_sites": sorted(seen),
                "lesions": _plan_lesions(rng, score, sites, seen)}
        scan["decoys"] = [name for name, rates in DECOY_RATES.items() if rng.random() < rates[score >= 4]]
        patient["scans"].append(scan)
        seen |= {site for site, _, _ in scan["lesions"]}
        day += int(rng.integers(40, 150))
    return patient


def _plan_lesions(rng, score, sites, seen):
    """Lesions of one scan as (site, reference, uptake as a multiple of it): the hottest first; "liver" or "pool".

    Residuals (DS 2 and 3) are not planned in liver and spleen, where nothing fainter than liver stands out. Earlier
    scans' sites, `seen`, decide what is new: a new site clearly above liver is DS 5 whatever its uptake.
    """
    sites = [int(s) for s in rng.permutation(sites)]
    if score == 1:
        return []
    if score in (2, 3):
        sites = [s for s in sites if s not in lesions.SOLID_ORGANS][:rng.integers(1, 3)]
        reference, low, high = ("pool", 0.75, 0.97) if score == 2 else ("liver", 0.84, 0.95)
        return [(site, reference, rng.uniform(low, high)) for site in sites]
    top = rng.uniform(1.8, 1.98) if score == 4 else rng.uniform(2.5, 4.4)
    if score == 4 and seen:
        sites = [int(s) for s in rng.permutation(sorted(seen))]
    if score == 5 and seen and rng.random() < 0.3:
        top = rng.uniform(1.8, 3)
        sites = [int(s) for s in rng.permutation(sorted(set(lesions.SITES) - seen))][:1] + sites
    planned = [(sites[0], "liver", top)]
    for site in list(dict.fromkeys(sites))[1:rng.integers(3, 6) if score == 4 else rng.integers(4, 8)]:
        if rng.random() < 0.93:
            planned.append((site, "liver", max(1.6, top * rng.uniform(0.65, 0.85))))
        elif site not in lesions.SOLID_ORGANS:
            planned.append((site, "liver", rng.uniform(0.7, 0.95)))
    return planned


def check_output(output: Path, patients: Collection[dict]) -> None:
    """Refuse a folder that holds anything but these patients and their scans, which this cohort's labels would not
    cover.

    Parameters
    ----------
    patients : collection of dict
        From `plan_patient`.

    Raises
    ------
    InputError
        Names what the folder holds.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file: name a folder")
    studies = {f"{patient['patient']}/{scan['study']}" for patient in patients for scan in patient["scans"]}
    known = {"labels.csv", *studies, *(patient["patient"] for patient in patients)}
    there = {path.relative_to(output).as_posix() for pattern in ("*", "*/*") for path in output.glob(pattern)
             if not (path.is_file() and path.name.startswith((".", "Thumbs.db", "desktop.ini")))}  # of file managers
    left = {study.replace("/", "/.") + ".tmp" for study in studies}  # by a run that was killed: replaced
    if strange := sorted(there - known - left):
        raise InputError(f"--output {output} holds {strange[0]}, nothing of this cohort: name an empty folder")


def write_patients(patients: Sequence[dict], output: Path, vendor: str, workers: int) -> pd.DataFrame:
    """Draw every scan and write it to OUTPUT/PATIENT/STUDY/NNN.dcm, in several processes.

    Parameters
    ----------
    patients : sequence of dict
        From `plan_patient`.
    output : Path
        The cohort's folder.
    vendor : str
        See `pet_series.plan_acquisition`.
    workers : int
        Processes; the files do not depend on it.

    Returns
    -------
    DataFrame
        A row a scan, in the order of the patients: labels.csv.
    """
    with processes(workers) as run:
        written = run(partial(_write_patient, output=output, vendor=vendor), patients, 1)
        with progress(written, "phantom", "patient", len(patients)) as bar:
            return pd.DataFrame([row for rows in bar for row in rows])


def _write_patient(patient, output, vendor):
    """Draw and write every scan of one patient -> their rows of labels.csv."""
    rows = []
    for scan in patient["scans"]:
        volume, truth = body.draw(patient, scan)
        acquisition = pet_series.plan_acquisition(patient, scan, vendor)
        folder = output / patient["patient"] / scan["study"]
        pet_series.write_series(volume, truth["axes"], patient, scan, acquisition, folder)
        rows.append(_label_row(patient, scan, acquisition, truth))
    return rows


def _label_row(patient, scan, acquisition, truth):
    """One row of labels.csv. Lesions are `site:x:y:z:diameter:suv`, millimetres in the patient frame (LPS)."""
    lesion = "{site}:{x:.0f}:{y:.0f}:{z:.0f}:{diameter:.0f}:{suv:.3f}"
    known = patient | scan | acquisition | truth | {
        "StudyInstanceUID": pet_series.make_uid(patient["seed"], patient["index"], scan["number"], "study"),
        "n_lesions": len(truth["lesions"]), "lesions": ";".join(lesion.format(**each) for each in truth["lesions"]),
        "liver_suv": round(truth["liver"], 3), "pool_suv": round(truth["pool"], 3), "decoys": ";".join(scan["decoys"]),
        "uptake_min": round(pet_series.uptake_seconds(acquisition) / 60, 2), "synthetic": 1}
    return {name: known[name] for name in LABELS}
