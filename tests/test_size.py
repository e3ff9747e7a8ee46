"""Large cohorts: what reading them costs, seconds of one core (printed: pytest -s) and memory; see robustness.md."""
import hashlib
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from pet import datasets
from prediction_helpers import predictions, write

pytestmark = pytest.mark.slow
MEASURE = """import json, re, resource, sys
{work}
usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
most = re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1]  # ru_maxrss is that of pytest, too
print(json.dumps([sum(u.ru_utime + u.ru_stime for u in usage), int(most) / 1024]))
"""


def cost(work, *words):
    """Run Python lines in a process of their own -> seconds of processor time with workers, its memory in MB."""
    done = subprocess.run([sys.executable, "-c", MEASURE.format(work=work), *map(str, words)], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("\n")[-2])


def test_100000_rows_are_read_and_checked_in_500_mb(tmp_path):
    n, rng = 50_000, np.random.default_rng(0)
    scans = pd.DataFrame({"scan_id": [f"{k:024x}" for k in range(n)], "target": np.arange(n) % 2,
                          "matrix_size_1": 300, "matrix_size_2": 180, "spacing_mm": 3.27, "id_key": "0a1b2c3d"})
    patients = np.arange(n) // 2
    scans["patient_id"] = [hashlib.sha256(str(k).encode()).hexdigest()[:24] for k in patients]
    for split in range(20):
        scans[f"split{split}"] = rng.choice(["train", "val", "test"], n, p=[0.7, 0.1, 0.2])[patients]
    table = scans.loc[scans.index.repeat(2)].reset_index(drop=True)
    table["view"] = ["cor", "sag"] * n
    table["filename"] = "images/" + table["scan_id"] + "_" + table["view"] + ".bin"
    table["image_sha256"] = [hashlib.sha256(name.encode()).hexdigest() for name in table["filename"]]
    table.to_csv(tmp_path / "data.csv", index=False)
    seconds, memory = cost("from common.arguments import cohort_line\nfrom common.manifest import read_manifest\n"
                           "cohort_line(sys.argv[1])\nassert len(read_manifest(sys.argv[1], range(20))) == 100_000",
                           tmp_path / "data.csv")
    print(f"{seconds:.1f} s, {memory:.0f} MB")
    assert memory < 500


def test_finding_2000_studies_takes_200_mb(tmp_path):
    """A tenth of what docs/reference/robustness.md speaks of: 40,000 files without pixels."""
    slices = []
    for number, ds in enumerate(datasets(spacing=(7.5, 5.0, 4.0), uid="1.2.300000", PatientID="P00000")[:20]):
        ds.pop("PixelData", None)
        ds.save_as(tmp_path / "one.dcm", enforce_file_format=True)
        slices.append((f"{number:03d}.dcm", (tmp_path / "one.dcm").read_bytes()))
    (tmp_path / "one.dcm").unlink()
    for study in range(2000):
        folder = tmp_path / "dicom" / f"{study // 100:02d}" / f"S{study:04d}"
        folder.mkdir(parents=True)
        for name, content in slices:
            (folder / name).write_bytes(content.replace(b"1.2.300000", b"1.2.3%05d" % study))
    seconds, memory = cost(
        "from common.workers import processes\nfrom preprocessing.archives import list_files\n"
        "from preprocessing.dicom_series import find_studies\n"
        "with processes(2) as run:\n studies, refused = find_studies(*list_files(sys.argv[1]), run=run)\n"
        "assert len(studies) == 2000 and not refused\n"
        "assert sum(len(paths) for study in studies.values() for paths in study.series.values()) == int(sys.argv[2])",
        tmp_path / "dicom", 2000 * len(slices))
    print(f"{seconds:.1f} s, {memory:.0f} MB")
    assert memory < 200


def test_100000_prediction_rows_are_measured(tmp_path):
    n = 50_000
    scans = pd.DataFrame({"scan_id": [f"s{k:06d}" for k in range(n)], "target": np.arange(n) % 2,
                          "patient_id": [f"p{k // 2:06d}" for k in range(n)]})
    write(tmp_path / "predictions", predictions(0, scans).drop(columns=["F1", "F2", "F512"]))
    seconds, memory = cost("import aggregate\nassert not aggregate.main(aggregate.get_args_parser().parse_args(["
                           "'--dir', sys.argv[1], '--output', sys.argv[2], '--resamples', '200']))",
                           tmp_path / "predictions", tmp_path / "out")
    print(f"{seconds:.1f} s, {memory:.0f} MB")
    assert memory < 1000
