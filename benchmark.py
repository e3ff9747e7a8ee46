"""What a stage costs, against its own ceiling.

python benchmark.py prepro                                              # 600 x 400 x 400: 1.6 GB of temporary files
python benchmark.py prepro --size 60 100 100 --studies 2 --repeats 1    # a quick look
python benchmark.py train                                               # minutes; quiet, or the ratios mean little
python benchmark.py predict --chptfolder demo/results --data demo/data_resplit.csv      # 2 GB of temporary files
python benchmark.py recipes --data demo/data_resplit.csv --split_index 0 1 --output results_recipes     # an hour

prepro: PET series to SUV to both MIPs, files in the page cache, against reading the same files raw and against the same
steps written plainly with pydicom and SimpleITK (pip install -r requirements-benchmark.txt; for that line only).
train: images/s against the same model on tensors in memory (the ceiling), against a plain loop (one file read per image
and epoch, worker processes, float32, 310 x 310) and against that loop with LARS's evaluation of the training set after
it; the ceiling in --amp's precision against the other one; and an epoch with frozen layers, cached and not.
predict: ten models in one go against ten plain loops; memory; with --chptfolder, bfloat16 against float32.
recipes: train.py under several recipes, as validation AUC against seconds of training.
"""
import argparse
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from common import arguments
from common.arguments import Parser, positive_int, run_script
from common.files import InputError, progress

VOXEL, NEW_VOXEL = 1.65, 3.27  # mm: of a long axial field of view; of the MIPs
DOSE, WEIGHT, HALF_LIFE, UPTAKE = 250e6, 70.0, 6586.2, 3600.0  # Bq, kg, s, s
MEGABYTE = 1e6
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")


def get_args_parser():
    parser = Parser(__doc__)
    parser.add_argument("stage", choices=("prepro", "train", "predict", "recipes"), help="what to measure")
    group = parser.add_argument_group("prepro")
    group.add_argument("--size", type=positive_int, nargs=3, default=[600, 400, 400],
                       metavar=("SLICES", "ROWS", "COLUMNS"), help="of each int16 series, voxels")
    group.add_argument("--studies", type=positive_int, default=8, help="for the throughput of two workers")
    group = parser.add_argument_group("train and predict")
    group.add_argument("--batch_sizes", type=positive_int, nargs="+", default=[16, 50], metavar="N",
                       help="of training, images a step (default: 16 50)")
    group.add_argument("--n_images", type=at_least(8), default=100, metavar="N", help="per round")
    group.add_argument("--frozen_images", type=at_least(8), default=1000, metavar="N",
                       help="of an epoch with frozen layers")
    group.add_argument("--scans", type=at_least(2), default=3000, metavar="N",
                       help="of which the memory of predicting is measured")
    group.add_argument("--chptfolder", metavar="DIR", help="trained models whose bfloat16 predictions are compared")
    group = parser.add_argument_group("recipes")
    group.add_argument("--split_index", nargs="+", type=arguments.number_range, action=arguments.Numbers, metavar="S",
                       help="data splits to train, numbers and ranges (default: 0)")
    group.add_argument("--only", metavar="TEXT", help="the recipes whose names hold this")
    group.add_argument("--output", type=Path, default="results_recipes", metavar="DIR", help="for tables and models")
    group = parser.add_argument_group("running")
    group.add_argument("--folder", metavar="FOLDER", help="where the temporary files go (default: the system's)")
    group.add_argument("--repeats", type=positive_int, default=3, help="the fastest counts")
    arguments.add_data_arguments(parser)
    arguments.add_device_arguments(parser)
    return parser


def at_least(least):
    def number(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)
    return number


def main(args):
    if args.folder and not Path(args.folder).is_dir():
        raise InputError(f"--folder {args.folder}: no such folder; make it, or leave it out")
    if args.stage == "recipes":
        from benchmarks import recipes
        return recipes.compare(args)
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=args.folder) as folder:
        if args.stage == "prepro":
            return measure_prepro(args, Path(folder))
        from benchmarks import network
        return getattr(network, args.stage)(args, Path(folder))


def measure_prepro(args, folder):
    if min(args.size) < 8:
        raise InputError(f"--size {' '.join(map(str, args.size))}: give 8 voxels or more along each axis")
    os.environ.update(ONE_THREAD)  # of the processes started from here
    studies = folder / "studies"
    with progress(range(args.studies), "building series", "series") as bar:
        for number in bar:
            build_series(studies / f"{number:03d}", args.size, number + 1)
    report_steps(studies / "000", args)
    report_workers(studies, args)


def report_steps(folder, args):
    """Measure reading raw, this project and the plain script, each time in a new process, and print the table."""
    paths = {"files read raw": read_raw, "suv.py + geometry.py": ours}
    if importlib.util.find_spec("SimpleITK"):
        paths["pydicom + SimpleITK"] = plain
    times, memory, mips = {name: [] for name in paths}, dict.fromkeys(paths, 0), {}
    with progress(range(args.repeats), "measuring", "round") as bar:
        for _ in bar:
            for name, prepare in paths.items():  # in turn, so that a busy moment meets all of them
                wall, processor, peak, mips[name] = in_new_process(measure, prepare, folder)
                times[name].append((wall, processor))
                memory[name] = max(memory[name], peak)
    best, cpu = ({name: min(time[i] for time in pairs) for name, pairs in times.items()} for i in (0, 1))
    size = sum(path.stat().st_size for path in folder.iterdir()) / MEGABYTE
    print(f"{' x '.join(map(str, args.size))} int16, {args.size[0]} files, {size:.1f} MB, in the page cache; one core, "
          f"fastest of {args.repeats}; memory above the interpreter with its imports")
    print(f"{'':22}{'s/study':>9}{'CPU s':>9}{'MB/s':>9}{'peak MB':>9}{'x raw':>8}")
    raw = best["files read raw"]
    for name, taken in best.items():
        print(f"{name:22}{taken:9.3f}{cpu[name]:9.3f}{size / taken:9.0f}{memory[name]:9.0f}{taken / raw:8.1f}")
    if any(best[name] > 1.2 * cpu[name] + 0.05 for name in best):
        print("warning: the processes waited (s/study well above CPU s): repeat this on a quiet machine")
    if "pydicom + SimpleITK" not in best:
        print("SimpleITK is not installed, so there is no comparison: pip install -r requirements-benchmark.txt")
        return
    own, other = mips["suv.py + geometry.py"], mips["pydicom + SimpleITK"]
    if any(a.shape != b.shape or abs(a - b).max() > 1e-4 * b.max() for a, b in zip(own, other, strict=True)):
        raise InputError("the two ways give different MIPs, so their times cannot be compared: report this as a fault")
    ratio, ratio_cpu = (t["pydicom + SimpleITK"] / t["suv.py + geometry.py"] for t in (best, cpu))
    print(f"{ratio:.2f} times as fast as pydicom + SimpleITK ({ratio_cpu:.2f} by CPU time); the MIPs agree to 1e-4 of "
          "their maximum")


def report_workers(studies, args):
    """Throughput of prepro_script.py, the whole command, with one and with two workers."""
    taken = {}
    for workers in (1, 2):
        times = []
        for repeat in range(args.repeats):
            output = studies.parent / f"mips_{workers}_{repeat}"
            start = time.perf_counter()
            done = subprocess.run([sys.executable, Path(__file__).with_name("prepro_script.py"), "--input", studies,
                                   "--output", output, "--workers", str(workers)], capture_output=True, text=True)
            times.append(time.perf_counter() - start)
            if done.returncode:
                said = (done.stderr or done.stdout)[-300:]
                raise InputError(f"prepro_script.py ended with {done.returncode}: {said}")
        taken[workers] = min(times)
    print(f"prepro_script.py, {args.studies} studies, start and discovery included: {taken[1]:.2f} s with one worker, "
          f"{taken[2]:.2f} s with two: {taken[1] / taken[2]:.2f} times the throughput")


# Measuring

def in_new_process(function, *args):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def measure(prepare, folder):
    """One conversion: wall and CPU seconds, peak memory in MB above that after `prepare`'s imports, the MIPs."""
    convert = prepare()
    before, start, start_cpu = peak_memory(), time.perf_counter(), time.process_time()
    mips = convert(folder)
    return time.perf_counter() - start, time.process_time() - start_cpu, peak_memory() - before, mips


def peak_memory():
    """The process's largest resident size so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone; ru_maxrss may hold its parent's
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / MEGABYTE
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE


# The ways. Each imports what it needs and returns its conversion: folder -> (coronal, sagittal).

def read_raw():
    def convert(folder):
        for path in sorted(folder.iterdir()):
            path.read_bytes()
    return convert


def ours():
    from preprocessing.geometry import project
    from preprocessing.suv import suv_volume

    def convert(folder):
        volume = suv_volume(folder)
        return project(volume.array, volume.spacing, NEW_VOXEL)
    return convert


def plain():
    """Read, stack, SUV in float64, resample, maximum: as such scripts are usually written."""
    import numpy as np
    import pydicom
    import SimpleITK as sitk
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def convert(folder):
        slices = [pydicom.dcmread(path) for path in folder.iterdir()]
        slices.sort(key=lambda ds: ds.ImagePositionPatient[2])
        activity = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])
        first = slices[0]
        injection = first.RadiopharmaceuticalInformationSequence[0]
        start, scan = (pydicom.valuerep.DT(text) for text in (injection.RadiopharmaceuticalStartDateTime,
                                                              first.SeriesDate + first.SeriesTime))
        decay = 2 ** (-(scan - start).total_seconds() / float(injection.RadionuclideHalfLife))
        suv = activity * (float(first.PatientWeight) * 1000 / (float(injection.RadionuclideTotalDose) * decay))
        rows, columns = map(float, first.PixelSpacing)
        image = sitk.GetImageFromArray(suv)
        image.SetSpacing((columns, rows, slices[1].ImagePositionPatient[2] - first.ImagePositionPatient[2]))
        old = list(zip(image.GetSize(), image.GetSpacing(), strict=True))
        size = [round(n * spacing / NEW_VOXEL) for n, spacing in old]
        origin = [((n - 1) * spacing - (m - 1) * NEW_VOXEL) / 2 for (n, spacing), m in zip(old, size, strict=True)]
        volume = sitk.GetArrayFromImage(sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, origin,
                                                      (NEW_VOXEL,) * 3, image.GetDirection(), 0.0, sitk.sitkFloat64))
        return volume.max(axis=1)[::-1], volume.max(axis=2)[::-1]
    return convert


# The series

def build_series(folder, size, number):
    """A PET series (BQML, START) of a noisy body with hot spots, one uncompressed int16 file a slice."""
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage
    rng, uid = np.random.default_rng(number), f"1.2.826.0.1.{number}"
    ds, injection = Dataset(), Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.Modality = PositronEmissionTomographyImageStorage, "PT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uid, f"{uid}.1", f"{uid}.2"
    ds.PatientID, ds.PatientName, ds.PatientWeight = f"BENCHMARK-{number}", "SYNTHETIC", WEIGHT
    ds.Manufacturer, ds.SeriesDescription, ds.SeriesNumber = "SYNTHETIC", "benchmark", 1
    ds.SeriesDate = ds.AcquisitionDate = "20240310"
    ds.SeriesTime = ds.AcquisitionTime = "110000"
    ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
    injection.RadiopharmaceuticalStartDateTime, injection.RadionuclideTotalDose = "20240310100000", DOSE
    injection.RadionuclideHalfLife = HALF_LIFE
    ds.RadiopharmaceuticalInformationSequence = [injection]
    ds.NumberOfSlices, ds.Rows, ds.Columns = size
    ds.PixelSpacing, ds.ImageOrientationPatient = [VOXEL, VOXEL], [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept = 0
    y, x = (np.linspace(-1, 1, n) for n in size[1:])
    body = (y[:, None] ** 2 / 0.3 + x**2 / 0.6 < 1) * 1000.0
    per_suv = DOSE * 2 ** (-UPTAKE / HALF_LIFE) / (WEIGHT * 1000)
    folder.mkdir(parents=True)
    for k in range(size[0]):
        row, column = rng.integers(0, size[1] - 4), rng.integers(0, size[2] - 4)
        pixels = body * rng.uniform(0.5, 1.5, body.shape)
        pixels[row:row + 4, column:column + 4] = 8000
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{uid}.1.{k + 1}"
        ds.ImagePositionPatient = [0, 0, round(k * VOXEL, 4)]
        ds.RescaleSlope = round(per_suv / 1000 * (1 + 0.1 * (k % 3)), 6)  # a slope of its own for every slice
        ds.PixelData = pixels.astype("<i2").tobytes()
        ds.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)


if __name__ == "__main__":
    run_script(get_args_parser, main)
