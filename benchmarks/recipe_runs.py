"""One network of a recipe: train.py and predict.py as processes, and the seconds of the training, over interruptions.

A network's folder holds the files of its run and bench_splitS_runR.json: options (of train.py), seconds, done.
"""
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.measuring import SCRIPTS
from common import arguments
from common.files import InputError, read_csv, read_json_object, write_json
from common.run_files import run_file
from common.settings import differences
from common.text import counted
from evaluation.ensemble import check_rows
from training.recorder import labels_hash
from training.runs import on_other_images

BEGINS, EPOCH = re.compile(r"split \d+: \d+ training and"), re.compile(r"split \d+ run \d+ epoch \d+/\d+: ")
SETS = ("val", "test")
MACHINE = ("device", "threads", "amp")  # options that train.py may be called with again for a finished run


def seconds_of(folder: Path, options: Sequence[str], split: int, run: int) -> float | None:
    """What `train_and_predict` returned of a network that it has finished with these options; None: of no such one."""
    record = _record(folder, split, run)
    return _known(record["seconds"]) if record.get("done") and record["options"] == list(options) else None


def train_and_predict(folder: Path, options: Sequence[str], split: int, run: int, shared: Sequence[str]) -> float:
    """Write a network's checkpoint and predictions to `folder`; what was begun there goes on -> its seconds.

    Parameters
    ----------
    options : sequence of str
        Of train.py; where `shared` has the same, these count.
    shared : sequence of str
        Options that train.py and predict.py take: data and device.

    Returns
    -------
    float
        Seconds from the first step to the last epoch's end, validation and saving included; NaN where the network was
        not trained here.

    Raises
    ------
    InputError
        What train.py or predict.py says, such as that the folder's network was trained with other options; it was
        trained with others of MACHINE, by which train.py leaves a finished run alone.
    """
    record = _record(folder, split, run)
    if record.get("done"):
        changed = differences(machine_of(record["options"]), machine_of(options), prefix="--")
        if changed:
            raise InputError(f"{folder}: its network was trained with other values of {', '.join(changed)}: give the "
                             "recipe another name, or another --output")
    _train(folder, record, [*shared, *options], list(options), split, run)
    _finish(*_start("predict.py", *shared, "--splits", f"{split}-{split}", "--run", run, "--set", *SETS,
                    "--no_features", "--chptfolder", folder, "--output", folder))
    record |= {"options": list(options), "seconds": record.get("seconds"), "done": True}
    write_json(record, run_file(folder, "bench", split, run))
    return _known(record["seconds"])


def _record(folder, split, run):
    path = run_file(folder, "bench", split, run)
    return read_json_object(path, "the record", "{}") if path.exists() else {}


def machine_of(options: Sequence[str]) -> dict[str, Any]:
    """The values of MACHINE in options of train.py."""
    return arguments.pick(arguments.training_parser(None).parse_args(options), *MACHINE)


def _known(seconds):
    return float("nan") if seconds is None else seconds


def _train(folder, record, words, options, split, run):
    """Run train.py; the seconds go into `record` and its file after each epoch, and where a signal ends it."""
    process, said = _start("train.py", *words, "--split_index", split, "--run", run, "--output", folder, "--resume")
    before, began = record.get("seconds") or 0.0, None

    def write():
        record.update(options=options, seconds=before + time.monotonic() - began, done=False)
        write_json(record, run_file(folder, "bench", split, run))

    try:
        for line in process.stdout:
            if BEGINS.match(line):  # the images are read
                began = time.monotonic()
            elif EPOCH.match(line):
                write()
        _finish(process, said)
    except KeyboardInterrupt:
        _stop(process)
        if began:
            write()
        raise


def _start(script, *words):
    """A process in a session of its own, which Ctrl-C does not reach: (it, the file of what it says on stderr)."""
    said = tempfile.TemporaryFile(mode="w+", errors="replace")
    return subprocess.Popen([sys.executable, "-u", SCRIPTS / script, *map(str, words)], stdout=subprocess.PIPE,
                            stderr=said, text=True, errors="replace", start_new_session=True), said


def _finish(process, said):
    """Wait for a process of `_start`; InputError with its last line where it fails."""
    try:
        process.communicate()
    except KeyboardInterrupt:
        _stop(process)
        raise
    with said:
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()]
    if process.returncode:
        last = lines[-1].removeprefix("error: ") if lines else "without a word"
        raise InputError(f"{Path(process.args[2]).name} ended with {process.returncode}: {last[-300:]}")


def _stop(process):
    """End a process as a user would: train.py saves its state."""
    process.terminate()
    process.communicate()


def read_scores(folder: Path, split: int, run: int, scans: dict[str, pd.DataFrame],
                table: pd.DataFrame) -> dict[str, pd.Series]:
    """A network's score of each scan, the mean of its views -> {set: Series by scan_id}.

    Parameters
    ----------
    scans : dict
        {set: `scans_of` the manifest}.
    table : DataFrame
        The manifest.

    Raises
    ------
    InputError
        The predictions are not of the scans, or of the targets, that the manifest has in these sets, or the network was
        trained on others, or on other images.
    """
    settings, labels = run_file(folder, "settings", split, run), labels_hash(table, split)
    stored = read_json_object(settings, "the settings", "{}")
    if stored.get("labels_hash", labels) != labels or on_other_images(stored.get("trained_on"), table, split):
        raise InputError(f"{settings}: its network was trained on other scans, images, labels or sets than the "
                         "manifest has, which has changed since; give another --output")
    path = run_file(folder, "pred", split, run)
    wanted = ("scan_id", "target", "probs", "set")
    rows, scores = check_rows(read_csv(path, wanted, lambda name: name in wanted), path), {}
    for name, known in scans.items():
        of_set = rows[rows["set"] == name].groupby("scan_id")
        if not of_set["target"].first().equals(known["target"].astype(float)):
            raise InputError(f"{path}: its scans of set {name}, or their targets, are not those of the manifest, which "
                             "has changed since; give another --output")
        scores[name] = of_set["probs"].mean()
    return scores


def other_machines(networks: Sequence[tuple[Path, int, int]]) -> str:
    """"cpu (AVX512), bfloat16, 1 thread; cpu (AVX512), bfloat16, 2 threads", where networks (folder, split, run) were
    trained on several machines, precisions or numbers of threads; else ""."""
    found = set()
    for network in networks:
        stored = read_json_object(run_file(network[0], "settings", *network[1:]), "the settings", "{}")
        found.add(f"{stored.get('device')}, {stored.get('precision')}, {counted(stored.get('threads', 0), 'thread')}")
    return "; ".join(sorted(found)) if len(found) > 1 else ""


def scans_of(table: pd.DataFrame, split: int, name: str) -> pd.DataFrame:
    """The scans of a set of a split, by scan_id, sorted: target, patient (a scan without one is its own)."""
    rows = table[table[f"split{split}"] == name]
    patient = rows.get("patient_id", rows["scan_id"])
    patient = patient.where(patient != "", "scan " + rows["scan_id"])
    return rows.assign(patient=patient).groupby("scan_id")[["target", "patient"]].first()
