"""`benchmark.py prepro`: PET series to MIPs, against reading the same files and against plain pydicom and SimpleITK."""
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom

from benchmarks.measuring import SCRIPTS, in_new_process, peak_memory
from common.files import InputError, progress
from common.text import counted
from preprocessing import geometry, suv, volumes
from synthetic import cohort, pet_series

try:
    import SimpleITK as sitk
except ImportError:
    sitk = None

VOXEL, NEW_VOXEL = 1.65, 3.27  # mm: of a long axial field of view; of the MIPs
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
RAW, OWN, NIFTI, PLAIN = "files read raw", "suv.py + geometry.py", "the same from .nii", "pydicom + SimpleITK"


def compare(size: Sequence[int], studies: int, repeats: int, folder: Path) -> None:
    """Print what a study costs in each way, and the throughput of prepro_script.py.

    Parameters
    ----------
    size : (slices, rows, columns)
        Of each series, voxels.
    studies : int
        How many series prepro_script.py is given.
    repeats : int
        The fastest counts.
    folder : Path
        For temporary files.

    Raises
    ------
    InputError
        A side of less than 8 voxels; prepro_script.py fails; the two ways give different MIPs.
    """
    if min(size) < 8:
        raise InputError(f"--size {' '.join(map(str, size))}: give 8 voxels or more along each axis")
    os.environ.update(ONE_THREAD)  # of the processes started from here
    with progress(range(studies), "building series", "series") as bar:
        for number in bar:
            build_series(folder / "studies" / f"{number:03d}", size, number + 1)
    _report_steps(folder / "studies" / "000", size, repeats)
    _report_workers(folder / "studies", studies, repeats)


def _report_steps(folder, size, repeats):
    """Measure each way, each time in a new process, and print the table."""
    nifti = folder.parents[1] / "volume.nii"  # where prepro_script.py does not find it
    volumes.write_volume(suv.suv_volume(folder), nifti.with_suffix(".nii.gz"))
    nibabel.load(nifti.with_suffix(".nii.gz")).to_filename(nifti)  # without its decompression
    ways = {RAW: (read_raw, folder), OWN: (ours, folder), NIFTI: (ours_nifti, nifti)}
    ways |= {PLAIN: (plain, folder)} if sitk else {}
    measured = {name: [] for name in ways}
    with progress(range(repeats), "measuring", "round") as bar:
        for _ in bar:
            for name, way in ways.items():  # in turn, so that a busy moment meets all of them
                measured[name].append(in_new_process(measure, *way))
    best, cpu = ({name: min(each[n] for each in rounds) for name, rounds in measured.items()} for n in (0, 1))
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{' x '.join(map(str, size))} int16, {counted(size[0], 'file')}, {megabytes:.1f} MB, in the page cache; "
          f"one core, fastest of {repeats}; memory above the interpreter with its imports")
    print(f"{'':22}{'s/study':>9}{'CPU s':>9}{'MB/s':>9}{'peak MB':>9}{'x raw':>8}")
    for name, taken in best.items():
        memory = max(each[2] for each in measured[name])
        print(f"{name:22}{taken:9.3f}{cpu[name]:9.3f}{megabytes / taken:9.0f}{memory:9.0f}{taken / best[RAW]:8.1f}")
    if any(best[name] > 1.2 * cpu[name] + 0.05 for name in best):
        print("warning: the processes waited (s/study well above CPU s): repeat this on a quiet machine")
    print(f"a study takes {best[NIFTI] / best[OWN]:.2f} times as long from .nii as from DICOM")
    if not sitk:
        print("SimpleITK is not installed, so there is no comparison: pip install -r requirements-benchmark.txt")
        return
    mips = zip(measured[OWN][0][3], measured[PLAIN][0][3], strict=True)
    if any(a.shape != b.shape or abs(a - b).max() > 1e-4 * b.max() for a, b in mips):
        raise InputError("the two ways give different MIPs, so their times cannot be compared: report this as a fault")
    ratio, ratio_cpu = (taken[PLAIN] / taken[OWN] for taken in (best, cpu))
    print(f"{ratio:.2f} times as fast as pydicom + SimpleITK ({ratio_cpu:.2f} by CPU time); the MIPs agree to 1e-4 of "
          "their maximum")


def _report_workers(folder, studies, repeats):
    """Throughput of prepro_script.py, the whole command, with one and with two workers."""
    taken = {1: math.inf, 2: math.inf}
    for workers in taken:
        for repeat in range(repeats):
            start = time.perf_counter()
            done = subprocess.run([sys.executable, SCRIPTS / "prepro_script.py", "--input", folder, "--output",
                                   folder.parent / f"mips_{workers}_{repeat}", "--workers", str(workers)],
                                  capture_output=True, text=True)
            taken[workers] = min(taken[workers], time.perf_counter() - start)
            if done.returncode:
                said = (done.stderr or done.stdout)[-300:]
                raise InputError(f"prepro_script.py ended with {done.returncode}: {said}")
    print(f"prepro_script.py, {counted(studies, 'study', 'studies')}, start and discovery included: {taken[1]:.2f} s "
          f"with one worker, {taken[2]:.2f} s with two: {taken[1] / taken[2]:.2f} times the throughput")


def measure(convert: Callable[[Path], object], folder: Path) -> tuple[float, float, float, object]:
    """One conversion -> wall and CPU seconds, peak memory in MB above that before it, what it returns."""
    before, start, start_cpu = peak_memory(), time.perf_counter(), time.process_time()
    mips = convert(folder)
    return time.perf_counter() - start, time.process_time() - start_cpu, peak_memory() - before, mips


# ---------------------------------------------------------------- the ways: folder -> (coronal, sagittal) MIP, SUV

def read_raw(folder: Path) -> None:
    """No conversion: the files' bytes, which every way must read."""
    for path in sorted(folder.iterdir()):
        path.read_bytes()


def ours(folder: Path) -> Sequence[np.ndarray]:
    """As prepro_script.py does it."""
    volume = suv.suv_volume(folder)
    return geometry.project(volume.array, volume.spacing, NEW_VOXEL)


def ours_nifti(path: Path) -> Sequence[np.ndarray]:
    """The same study from an uncompressed NIfTI volume of its SUV."""
    volume = volumes.read_volume(str(path))
    return geometry.project(volume.array, volume.spacing, NEW_VOXEL)


def plain(folder: Path) -> Sequence[np.ndarray]:
    """Read, stack, SUV in float64, resample, maximum: as such scripts are usually written."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda ds: ds.ImagePositionPatient[2])
    activity = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])
    first = slices[0]
    injection = first.RadiopharmaceuticalInformationSequence[0]
    start = pydicom.valuerep.DT(injection.RadiopharmaceuticalStartDateTime)
    waited = pydicom.valuerep.DT(first.SeriesDate + first.SeriesTime) - start
    decay = 2 ** (-waited.total_seconds() / float(injection.RadionuclideHalfLife))
    factor = float(first.PatientWeight) * 1000 / (float(injection.RadionuclideTotalDose) * decay)
    rows, columns = map(float, first.PixelSpacing)
    image = sitk.GetImageFromArray(activity * factor)
    image.SetSpacing((columns, rows, slices[1].ImagePositionPatient[2] - first.ImagePositionPatient[2]))
    old = list(zip(image.GetSize(), image.GetSpacing(), strict=True))
    size = [round(n * spacing / NEW_VOXEL) for n, spacing in old]
    origin = [((n - 1) * spacing - (m - 1) * NEW_VOXEL) / 2 for (n, spacing), m in zip(old, size, strict=True)]
    volume = sitk.GetArrayFromImage(sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, origin,
                                                  (NEW_VOXEL,) * 3, image.GetDirection(), 0.0, sitk.sitkFloat64))
    return volume.max(axis=1)[::-1], volume.max(axis=2)[::-1]


def build_series(folder: Path, size: Sequence[int], number: int) -> None:
    """Write a PET series (BQML, START) of a noisy body with a hot spot in each slice, as phantom.py writes its own.

    Parameters
    ----------
    folder : Path
        Of the series.
    size : (slices, rows, columns)
        voxels.
    number : int
        Which series: other numbers give other noise and UIDs.
    """
    rng = np.random.default_rng(number)
    volume = rng.random(size, np.float32) + np.float32(0.5)
    y, x = (np.linspace(-1, 1, n) for n in size[1:])
    volume *= y[:, None] ** 2 / 0.3 + x**2 / 0.6 < 1
    for k, plane in enumerate(volume):
        row, column = (rng.integers(0, n - 4) for n in size[1:])
        plane[row:row + 4, column:column + 4] = 8
        plane *= 1 + 0.1 * (k % 3)  # a slope of its own for every slice
    patient = cohort.plan_patient(0, number) | {"grid": (size[2], VOXEL, VOXEL)}
    scan = patient["scans"][0]
    acquisition = pet_series.plan_acquisition(patient, scan) | {
        "decay_correction": "START", "dated": True, "series_time_s": 0, "bed_slices": None, "feet_first": False,
        "head_to_feet": False, "explicit": True}
    pet_series.write_series(volume, [VOXEL * np.arange(n) for n in size], patient, scan, acquisition, folder)
