"""Write a synthetic FDG PET cohort (DICOM series and labels.csv), so that everything runs without patient data.

python phantom.py --output cohort --patients 250 --seed 0 --workers 2
python phantom.py --output one --patients 1 --arms down
python phantom.py --output gemini --patients 20 --vendor philips   # that vendor's files, private attributes included

It writes OUTPUT/PATIENT/STUDY/NNN.dcm (one slice a file) and OUTPUT/labels.csv. Every image says SYNTHETIC.

The bodies, their uptake and the Deauville rule are in phantom_body.py; here are the patients, the scanners' habits and
the files. Dose and uptake time follow Boellaard et al., Eur J Nucl Med Mol Imaging 2015,
doi:10.1007/s00259-014-2961-x.
"""
import io
import math
import os
import shutil
import signal
import uuid
from datetime import datetime, timedelta
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from common.arguments import Parser, run_script
from common.files import InputError, progress, write_csv
from synthetic.body import SITES, SOLID_ORGANS, STANDARD_TRUNK, draw

GRIDS = ((96, 5.3, 4.7), (92, 5.6, 5.0), (100, 5.15, 4.9))  # columns and rows, pixel, slice distance; mm
HALF_LIFE = 6586.2  # s, fluorine-18
PET_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.128"
# What differs from slice to slice, as text of fixed width that occurs nowhere else in a file.
PLACEHOLDERS = {"SOPInstanceUID": ".9999", "InstanceNumber": "1000000001", "ImagePositionPatient": "1000000000000002",
                "SliceLocation": "1000000000000003", "FrameReferenceTime": "1000000000000004",
                "DecayFactor": "1000000000000005", "RescaleSlope": "1000000000000006",
                "AcquisitionTime": "235958.123456"}
# Manufacturer, model, reconstruction. What else vendors differ in: vendor_habits, add_private.
VENDORS = {
    "siemens": ("SIEMENS", "Biograph mCT", "OSEM3D+PSF+TOF"),
    "ge": ("GE MEDICAL SYSTEMS", "Discovery 710", "VPFX"),
    "philips": ("Philips Medical Systems", "Gemini TF", "BLOB-OS-TF"),
}
DECOYS = ("bowel", "brown_fat", "marrow", "injection", "bladder", "heart", "ureter", "muscle")
# Probability of each decoy in negative and positive scans: the difference balances what lesions add to intensity.
DECOY_RATE = {
    "bowel": (0.40, 0.15), "brown_fat": (0.14, 0.10), "marrow": (0.26, 0.06), "injection": (0.20, 0.15),
    "bladder": (0.30, 0.25), "heart": (0.40, 0.35), "ureter": (0.25, 0.25), "muscle": (0.20, 0.08),
}


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("output")
    group.add_argument("--output", required=True, metavar="DIR", help="folder of the cohort; its studies are replaced")
    group = parser.add_argument_group("cohort")
    group.add_argument("--patients", type=int, default=250, metavar="N", help="patients; each has one to three scans")
    group.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    group.add_argument("--arms", choices=("mixed", "up", "down"), default="mixed", help="position of the arms")
    group.add_argument("--vendor", choices=("mixed", *VENDORS), default="mixed", help="whose files: mixed is BQML with "
                       "any of the names; siemens has bed positions of several acquisition times, ge its private scan "
                       "datetime, philips counts (CNTS) with private factors; the same patients and SUV from each")
    group.add_argument("--workers", type=int, default=os.cpu_count() or 1,
                       metavar="W", help="processes; they do not change the result")
    return parser


def main(args):
    import pandas as pd

    for name, lowest in (("patients", 1), ("seed", 0), ("workers", 1)):
        if getattr(args, name) < lowest:
            raise InputError(f"--{name} {getattr(args, name)}: give {lowest} or more")
    output = Path(args.output)
    patients = [patient_parameters(args.seed, index, args.arms) for index in range(args.patients)]
    check_output(output, {patient["patient"] for patient in patients})
    with Pool(args.workers, leave_interrupts) as pool:
        made = pool.imap(partial(write_patient, output=output, vendor=args.vendor), patients)
        with progress(made, "phantom", "patient", len(patients)) as bar:
            table = pd.DataFrame([row for rows in bar for row in rows])
    write_csv(table, output / "labels.csv")
    print(f"{len(table)} SYNTHETIC scans of {len(patients)} patients, {table.target.sum()} with target 1: {output}")
    print(f"labels: {output / 'labels.csv'}")


def check_output(output, patients):
    """Refuse a folder that holds anything but this cohort's patients, which another cohort's labels would not cover."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file: name a folder")
    strange = sorted({p.name for p in output.iterdir()} - patients - {"labels.csv"}) if output.is_dir() else []
    if strange:
        raise InputError(f"--output {output} holds {strange[0]}, no patient of this cohort: name an empty folder")


def leave_interrupts():
    """Let a worker be ended by the parent, which is interrupted too and knows what to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def write_patient(patient, output, vendor="mixed"):
    """Draw and write every scan of one patient; return their rows of labels.csv."""
    rows = []
    for scan in patient["scans"]:
        volume, truth = draw(patient, scan)
        habits = study_habits(patient, scan, vendor)
        write_study(volume, truth["axes"], patient, scan, habits, output / patient["patient"] / scan["study"])
        rows.append(label_row(patient, scan, habits, truth))
    return rows


# ---------------------------------------------------------------------------------------------- patients and scans


def patient_parameters(seed, index, arms="mixed"):
    """Draw one patient and the plan of the scans.

    Args:
        seed (int): the cohort's seed. index (int): the patient's number in it. arms (str): "mixed", "up" or "down".

    Returns:
        dict: sex, age, height_cm, weight_kg, the body's scales, the voxel grid, and `scans`, a list of one to three
        dicts (planned Deauville score, sites with their uptake relative to liver or blood pool, decoys, day).
    """
    rng = np.random.default_rng([seed, index])
    sex = str(rng.choice(["M", "F"]))
    height = float(np.clip(rng.normal(176 if sex == "M" else 163, 7), 150, 192))
    bmi = float(np.clip(rng.lognormal(math.log(25), 0.15), 18.5, 36))
    patient = {
        "seed": seed, "index": index, "patient": f"SYN-{seed}-{index:04d}", "sex": sex,
        "age": int(rng.integers(18, 80)), "height_cm": round(height),
        "weight_kg": round(bmi * (height / 100) ** 2, 1),
        "long": (820 + 2.4 * (height - 170)) / STANDARD_TRUNK,
        "wide": float(np.clip(math.sqrt(height / 172) * rng.normal(1, 0.02), 0.93, 1.05)),
        "girth": math.sqrt(bmi / 23), "grid": GRIDS[rng.integers(len(GRIDS))],
        "thigh": float(rng.uniform(70, 110)), "arms": arms, "scans": []}
    if arms == "mixed":
        patient["arms"] = "up" if rng.random() < 0.75 else "down"
    sites = [int(s) for s in rng.permutation(list(SITES))[:rng.integers(6, 9)]]
    day, seen = int(rng.integers(0, 700)), set()
    for number in range(1, 1 + int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))):
        score = int(rng.choice([1, 2, 3, 4, 5], p=[0.2, 0.2, 0.15, 0.2, 0.25]))
        scan = {"number": number, "study": f"study{number}", "planned": score, "day": day, "known_sites": sorted(seen),
                "lesions": plan_lesions(rng, score, sites, seen)}
        rates = {name: DECOY_RATE[name][score >= 4] for name in DECOYS}
        scan["decoys"] = [name for name in DECOYS if rng.random() < rates[name]]
        patient["scans"].append(scan)
        seen |= {site for site, _, _ in scan["lesions"]}
        day += int(rng.integers(40, 150))
    return patient


def plan_lesions(rng, score, sites, seen):
    """Sites of one scan as (site, reference, factor): the hottest first, reference "liver" or "pool".

    Residuals (DS 2 and 3) are not planned in liver and spleen, where nothing fainter than liver stands out. Earlier
    scans' sites, `seen`, decide what is new: a new site clearly above liver is DS 5 whatever its uptake.
    """
    sites = [int(s) for s in rng.permutation(sites)]
    if score == 1:
        return []
    if score in (2, 3):
        sites = [s for s in sites if s not in SOLID_ORGANS][:rng.integers(1, 3)]
        reference, low, high = ("pool", 0.75, 0.97) if score == 2 else ("liver", 0.84, 0.95)
        return [(site, reference, rng.uniform(low, high)) for site in sites]
    top = rng.uniform(1.8, 1.98) if score == 4 else rng.uniform(2.5, 4.4)
    if score == 4 and seen:
        sites = [int(s) for s in rng.permutation(sorted(seen))]
    if score == 5 and seen and rng.random() < 0.3:
        top = rng.uniform(1.8, 3)
        sites = [int(s) for s in rng.permutation(sorted(set(SITES) - seen))][:1] + sites
    lesions = [(sites[0], "liver", top)]
    for site in list(dict.fromkeys(sites))[1:rng.integers(3, 6) if score == 4 else rng.integers(4, 8)]:
        if rng.random() < 0.93:
            lesions.append((site, "liver", max(1.6, top * rng.uniform(0.65, 0.85))))
        elif site not in SOLID_ORGANS:
            lesions.append((site, "liver", rng.uniform(0.7, 0.95)))
    return lesions


# ----------------------------------------------------------------------------------------------------------- DICOM


def study_habits(patient, scan, vendor="mixed"):
    """How one scan was made and stored: scanner, times, decay correction, bed positions, units, orientation, order.

    The injection, the scan's start and the volume are the same for every vendor.
    """
    rng = np.random.default_rng([patient["seed"], patient["index"], 4, scan["number"]])
    start = datetime(2018, 1, 1, 8) + timedelta(days=scan["day"], seconds=int(rng.integers(0, 8 * 3600)))
    habits = {
        "vendor": str(rng.choice(list(VENDORS))), "start": start,
        "injection": start - timedelta(seconds=round(60 * float(np.clip(rng.normal(62, 6), 50, 80)))),
        "dose": round(1e6 * patient["weight_kg"] * rng.uniform(3, 4)),  # Bq
        "decay_correction": "ADMIN" if rng.random() < 0.15 else "START",
        "dated": bool(rng.random() < 0.4),  # RadiopharmaceuticalStartDateTime as well as StartTime
        "series_time_s": 3000 if rng.random() < 0.15 else 0,  # SeriesTime after the start: of a late reconstruction
        "bed_slices": int(rng.integers(28, 45)) if rng.random() < 0.6 else None,
        "frame_s": int(rng.choice([90, 120, 150, 180])),
        "feet_first": bool(rng.random() < 0.1), "head_to_feet": bool(rng.random() < 0.5),
        "explicit": bool(rng.random() < 0.7),
        "private": False, "one_slope": False, "activity_factor": None, "suv_factor": False}
    if vendor != "mixed":
        rng = np.random.default_rng([patient["seed"], patient["index"], 5, scan["number"]])
        habits |= {"vendor": vendor, "private": True} | vendor_habits(vendor, habits, rng)
    return habits


def vendor_habits(vendor, habits, rng):
    """What `vendor` does otherwise than `habits` say."""
    if vendor == "siemens":
        return {"bed_slices": habits["bed_slices"] or int(rng.integers(28, 45))}
    if vendor == "ge":  # SeriesTime is not the scan's in a quarter: late, or of the moment the series was set up
        early = not habits["series_time_s"] and rng.random() < 0.12
        return {"series_time_s": -int(rng.integers(120, 900))} if early else {}
    return {"activity_factor": round(rng.uniform(0.5, 5), 3),  # Bq/ml of a rescaled count
            "suv_factor": bool(rng.random() < 0.7),  # else 0, which leaves the activity factor
            "one_slope": bool(rng.random() < 0.5)}  # one RescaleSlope for the series


def write_study(volume, axes, patient, scan, habits, folder):
    """Write one SUV volume as a PET series, NNN.dcm a slice; the folder appears whole or not at all.

    The slices share all but a few elements: those are placeholders of fixed width in a template that pydicom
    serialises once, and are overwritten in its bytes (1.5 ms a slice less). No fsync a slice: a cohort has 100 000.
    """
    slices = len(volume)
    dataset = study_dataset(patient, scan, habits, volume.shape)
    first_x = axes[2][-1] if habits["feet_first"] else axes[2][0]
    dataset.ImagePositionPatient = [f"{first_x:.3f}", f"{axes[1][0]:.3f}", PLACEHOLDERS["ImagePositionPatient"]]
    template, offsets = serialise(dataset, habits)
    temporary = folder.with_name(f".{folder.name}.tmp")
    for old in (temporary, folder):
        shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(parents=True)
    if habits["feet_first"]:
        volume = volume[:, :, ::-1]  # ImageOrientationPatient runs to the patient's right
    peaks = np.maximum(volume.max((1, 2)), 1e-3)
    if habits["one_slope"]:
        peaks[:] = peaks.max()
    factor = activity_per_suv(patient, habits) / (habits["activity_factor"] or 1)  # the rescaled value of SUV 1
    for number in range(1, slices + 1):
        k = slices - number if habits["head_to_feet"] else number - 1
        values = slice_values(habits, k, number)
        values["RescaleSlope"] = f"{peaks[k] * factor / 32767:.9e}"
        values["SliceLocation"] = values["ImagePositionPatient"] = f"{axes[0][k]:.3f}"
        pixels = np.rint(volume[k] * np.float32(factor / float(values["RescaleSlope"]))).astype("<i2")
        for keyword, place, width in offsets:
            template[place:place + width] = values[keyword].ljust(width).encode()
        template[-pixels.nbytes:] = pixels.tobytes()
        (temporary / f"{number:03d}.dcm").write_bytes(template)
    os.rename(temporary, folder)


def activity_per_suv(patient, habits):
    """The Bq/ml of SUV 1, decay corrected as DecayCorrection says."""
    waited = 0 if habits["decay_correction"] == "ADMIN" else (habits["start"] - habits["injection"]).total_seconds()
    return habits["dose"] * math.exp(-math.log(2) / HALF_LIFE * waited) / (1000 * patient["weight_kg"])


def slice_values(habits, k, number):
    """The text of the elements that vary over slices, in slice k from the feet.

    The decay within a frame makes its activity that of the time T_ave after its start (PS3.3 C.8.9.4, suv.md rule 7).
    """
    rate = math.log(2) / HALF_LIFE
    frame = habits["frame_s"]
    bed = k // habits["bed_slices"] if habits["bed_slices"] else 0
    acquired = bed * (frame + 3)  # s after the start; the table goes from the feet to the head
    average = math.log(rate * frame / -math.expm1(-rate * frame)) / rate
    uptake = (habits["start"] - habits["injection"]).total_seconds()
    admin = habits["decay_correction"] == "ADMIN"
    return {
        "SOPInstanceUID": f".{1000 + number}", "InstanceNumber": str(number),
        "AcquisitionTime": f"{habits['start'] + timedelta(seconds=acquired):%H%M%S}",
        "FrameReferenceTime": f"{1000 * (acquired + average):.3f}",
        "DecayFactor": f"{math.exp(rate * (acquired + average + (uptake if admin else 0))):.9f}"}


def serialise(dataset, habits):
    """The bytes of a dataset whose placeholders are to be overwritten, and those places: [(keyword, offset, width)]."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    places = []
    for keyword, text in PLACEHOLDERS.items():
        # some UID has the text of the placeholder in its number: look for the whole one
        whole = str(dataset.SOPInstanceUID) if keyword == "SOPInstanceUID" else text
        found = data.find(whole.encode())
        while found >= 0:
            places.append((keyword, found + len(whole) - len(text), len(text)))
            found = data.find(whole.encode(), found + 1)
    if len(places) != len(PLACEHOLDERS) + 1:  # the SOP instance UID is in the file meta information too
        raise RuntimeError(f"placeholders found in the template: {places}")
    return bytearray(data), places


def make_uid(*names):
    """A UID of a UUID (PS3.5 B.2) that depends on nothing but `names`."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, ('phantom', *names)))).int}"


def study_dataset(patient, scan, habits, shape):
    """The elements that all slices share, and placeholders for the others; shape is the volume's (z, y, x)."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    names = patient["seed"], patient["index"], scan["number"]
    manufacturer, model, reconstruction = VENDORS[habits["vendor"]]
    start = habits["start"]
    series_time = start + timedelta(seconds=habits["series_time_s"])
    series_uid = make_uid(*names, "series", *([habits["vendor"]] if habits["private"] else []))
    _, pixel, distance = patient["grid"]
    ds = Dataset()
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = PET_IMAGE_STORAGE
    ds.SOPInstanceUID = series_uid + PLACEHOLDERS["SOPInstanceUID"]
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = f"{start:%Y%m%d}"
    ds.StudyTime, ds.SeriesTime = f"{start:%H%M%S}", f"{series_time:%H%M%S}"
    ds.AcquisitionTime = PLACEHOLDERS["AcquisitionTime"]
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Modality = "PT"
    ds.Manufacturer, ds.ManufacturerModelName, ds.ReconstructionMethod = manufacturer, model, reconstruction
    ds.StudyDescription, ds.SeriesDescription = "SYNTHETIC FDG PET", "SYNTHETIC phantom PET WB AC"
    ds.ImageComments = "SYNTHETIC: drawn by phantom.py, no patient"
    ds.PatientName, ds.PatientID = f"SYNTHETIC^{patient['patient']}", patient["patient"]
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", patient["sex"], f"{patient['age']:03d}Y"
    ds.PatientSize, ds.PatientWeight = f"{patient['height_cm'] / 100:.2f}", f"{patient['weight_kg']:.1f}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = make_uid(*names, "study"), series_uid
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = make_uid(*names, "frame"), ""
    ds.StudyID, ds.SeriesNumber = str(scan["number"]), "1"
    ds.PatientPosition = "FFS" if habits["feet_first"] else "HFS"
    ds.ImageOrientationPatient = [-1 if habits["feet_first"] else 1, 0, 0, 0, 1, 0]
    for keyword in ("InstanceNumber", "SliceLocation", "FrameReferenceTime", "DecayFactor", "RescaleSlope"):
        setattr(ds, keyword, PLACEHOLDERS[keyword])
    ds.ActualFrameDuration = str(1000 * habits["frame_s"])
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfSlices, ds.Rows, ds.Columns = shape
    ds.PixelSpacing, ds.SliceThickness = [str(pixel), str(pixel)], str(distance)
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.RescaleIntercept = 15, 1, "0"
    ds.SeriesType, ds.CountsSource = ["WHOLE BODY", "IMAGE"], "EMISSION"
    ds.Units = "CNTS" if habits["activity_factor"] else "BQML"
    ds.DecayCorrection, ds.CorrectedImage = habits["decay_correction"], ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"]
    ds.RandomsCorrectionMethod, ds.ScatterCorrectionMethod = "DLYD", "Model-based"
    ds.AttenuationCorrectionMethod, ds.CollimatorType = "CT", "NONE"
    ds.RadiopharmaceuticalInformationSequence = [radiopharmaceutical(habits)]
    if habits["private"]:
        add_private(ds, patient, habits)
    ds.PixelData = bytes(2 * shape[1] * shape[2])
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if habits["explicit"] else ImplicitVRLittleEndian
    return ds


def add_private(ds, patient, habits):
    """The vendor's private elements that SUV may need (suv.md rules 3, 6 and 7)."""
    if habits["vendor"] == "ge":
        block = ds.private_block(0x0009, "GEMS_PETD_01", create=True)
        block.add_new(0x0D, "DT", f"{habits['start']:%Y%m%d%H%M%S}.00")  # of the scan, to which START decays
        block.add_new(0x3B, "DT", f"{habits['injection']:%Y%m%d%H%M%S}.00")
    if habits["vendor"] == "philips":
        suv_factor = habits["activity_factor"] / activity_per_suv(patient, habits) if habits["suv_factor"] else 0
        block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", f"{suv_factor:.9e}")  # SUV of a rescaled count
        block.add_new(0x09, "DS", f"{habits['activity_factor']:.9e}")  # Bq/ml of a rescaled count


def radiopharmaceutical(habits):
    from pydicom.dataset import Dataset

    item, injection = Dataset(), habits["injection"]
    item.Radiopharmaceutical = "FDG"
    item.RadiopharmaceuticalStartTime = f"{injection:%H%M%S}"
    if habits["dated"]:
        item.RadiopharmaceuticalStartDateTime = f"{injection:%Y%m%d%H%M%S}"
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = str(habits["dose"]), str(HALF_LIFE)
    item.RadionuclidePositronFraction = "0.967"
    item.RadionuclideCodeSequence = [code("C-111A1", "SRT", "^18^Fluorine")]
    item.RadiopharmaceuticalCodeSequence = [code("C-B1031", "SRT", "Fluorodeoxyglucose F^18^")]
    return item


def code(value, scheme, meaning):
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


# ---------------------------------------------------------------------------------------------------------- labels


def label_row(patient, scan, habits, truth):
    """One row of labels.csv. Lesions are `site:x:y:z:diameter:suv`, millimetres in the patient frame (LPS)."""
    lesions = truth["lesions"]
    return {
        "StudyInstanceUID": make_uid(patient["seed"], patient["index"], scan["number"], "study"),
        "patient": patient["patient"], "study": scan["study"], "deauville": truth["deauville"],
        "target": truth["target"], "target_loc": truth["target_loc"], "n_lesions": len(lesions),
        "lesions": ";".join("{site}:{x:.1f}:{y:.1f}:{z:.1f}:{diameter:.1f}:{suv:.3f}".format(**lesion)
                            for lesion in lesions),
        "liver_suv": round(truth["liver"], 3), "pool_suv": round(truth["pool"], 3),
        "decoys": ";".join(scan["decoys"]), "sex": patient["sex"], "age": patient["age"],
        "weight_kg": patient["weight_kg"], "height_cm": patient["height_cm"], "arms": patient["arms"],
        "vendor": habits["vendor"], "decay_correction": habits["decay_correction"],
        "uptake_min": round((habits["start"] - habits["injection"]).total_seconds() / 60, 2), "synthetic": 1}


if __name__ == "__main__":
    run_script(get_args_parser, main)
