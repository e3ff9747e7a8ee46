"""`benchmark.py aggregate`: what measuring ten models' predictions costs."""
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from benchmarks.measuring import SCRIPTS, in_new_process
from common import files, run_files
from common.text import counted

MODELS = 10
COMPARED = "ensemble_avg.csv", "ensemble_max.csv"


def compare(folder: Path, scans: int) -> None:
    """Print time and memory of aggregate.py and compare.py on so many scans.

    Parameters
    ----------
    folder : Path
        For temporary files.
    scans : int
        Of the test set.
    """
    write_predictions(folder, scans)
    print(f"{counted(scans, 'scan')} of two views, {MODELS} models")
    for name, given in {"aggregate.py": ["--dir", folder], "compare.py": [folder / name for name in COMPARED]}.items():
        wall, cpu, peak = in_new_process(run, name, *given, "--output", folder)
        print(f"  {name}: {wall:.1f} s, {cpu:.1f} s of a processor, {peak:.2f} GB at most", flush=True)


def run(name: str, *arguments: object) -> tuple[float, float, float]:
    """Run a script: wall and processor seconds, peak memory in GB. For a process of its own: counts all it started."""
    import resource  # not on Windows

    start = time.perf_counter()
    done = subprocess.run([sys.executable, SCRIPTS / name, *map(str, arguments)], capture_output=True, text=True)
    wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise files.InputError(f"{name} ended with {done.returncode}: {done.stderr[-300:]}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def scored(scans: int, models: int) -> tuple[np.ndarray, np.ndarray]:
    """(scans,) targets, 3 of 10 positive, and (models, scans) probabilities that share what makes a scan hard."""
    rng = np.random.default_rng(0)
    target = rng.random(scans) < 0.3
    shared = rng.normal(2.5 * target - 1.25, 1.2)
    return target.astype(int), expit(shared + rng.normal(0, 0.8, (models, scans))).astype(np.float32)


def write_predictions(folder: Path, scans: int) -> None:
    """Write pred_splitS_run1.csv of ten models as predict.py does, without features: two views a scan, two scans a
    patient; beside the test scans, which the models share, each has a tenth as many validation scans of its own."""
    own = scans // 10
    target, probability = scored(scans + MODELS * own, 2 * MODELS)
    with files.progress(range(MODELS), "writing", "model") as bar:
        for k in bar:
            scan = np.r_[:scans, scans + k * own:scans + (k + 1) * own].repeat(2)
            view = np.arange(len(scan)) % 2
            table = pd.DataFrame({"scan_id": scan, "patient_id": scan // 2, "target": target[scan],
                                  "view": np.where(view, "sag", "cor"), "probs": probability[2 * k + view, scan],
                                  "set": np.where(scan < scans, "test", "val")})
            table.insert(1, "filename", table["scan_id"].astype(str) + "_" + table["view"] + ".bin")
            files.write_csv(table, run_files.run_file(folder, "pred", k, 1))
