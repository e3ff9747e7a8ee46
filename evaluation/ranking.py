"""best_run.csv: the best run of every split by its validation AUC, and the rank of the splits."""
import contextlib
from pathlib import Path
from typing import Any

import pandas as pd

from common.files import InputError, read_csv
from common.model_files import read_settings
from common.run_files import find_run_files, run_file
from common.text import counted, ranges


def read_runs(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The runs of a folder with the epochs that they kept, and what is left out.

    Returns
    -------
    runs : DataFrame
        split, run, epoch, metric ("auc") and value, its validation AUC.
    left_out : list of str
        A line for each run without checkpoint or validation AUC.

    Raises
    ------
    InputError
        There is no run, or as in `best_epoch`.
    """
    found = find_run_files(folder, "convergence")
    if not found:
        raise InputError(f"{folder}: holds no convergence_splitS_runR.csv; run train.py first, or correct --dir")
    runs, left_out = [], []
    for split, run, path in found:
        best, checkpoint = best_epoch(path), run_file(folder, "checkpoint", split, run)
        if not checkpoint.is_file():
            left_out.append(f"{path.name}: there is no {checkpoint.name}")
        elif best is None:
            left_out.append(f"{path.name}: no epoch has a validation AUC, or a value of selected")
        else:
            runs.append((split, run, best[0], "auc", best[1]))
    return pd.DataFrame(runs, columns=["split", "run", "epoch", "metric", "value"]), left_out


def best_epoch(path: Path) -> tuple[int, float] | None:
    """The first epoch with the highest validation AUC, and that AUC; None where every AUC is NaN or none is there.

    Where the file has the metric `selected`, its highest value chooses the epoch: what train_loca.py --select follows,
    or with --keep last the epoch's number. None where it has no value.

    Raises
    ------
    InputError
        Not a CSV, a column missing, an epoch that is no integer or comes twice, an AUC outside 0..1.
    """
    table = read_csv(path, ("epoch", "split", "metric", "value"))
    table = table[table["split"] == "validation"]
    selected = table[table["metric"] == "selected"]
    rows = table[table["metric"] == "auc"]
    if len(selected):
        known: Any = pd.to_numeric(selected["value"], errors="coerce").dropna()
        rows = rows[rows["epoch"] == selected.loc[known.idxmax(), "epoch"]] if len(known) else rows[:0]
    lines: dict[int, int] = {}
    values: dict[int, float] = {}
    for number, text, auc in rows[["epoch", "value"]].itertuples():
        line = f"{path}, line {number}"
        try:
            epoch, value = int(text), float(auc or "nan")
        except ValueError:
            raise InputError(f"{line}: epoch {text!r}, value {auc!r} are no numbers; train that run again") from None
        if epoch in lines:
            raise InputError(f"{line}: the validation AUC of epoch {epoch} is in line {lines[epoch]}, too; remove one")
        if value < 0 or value > 1:
            raise InputError(f"{line}: validation AUC {value}; it must lie in 0..1; train that run again")
        lines[epoch] = number
        if value == value:
            values[epoch] = value
    return max(values.items(), key=lambda item: (item[1], -item[0]), default=None)


def other_validations(folder: Path, runs: pd.DataFrame) -> list[str]:
    """A warning for each split whose runs, by their settings, were trained on different scans, images, labels or sets;
    `runs`: of `read_runs`."""
    warnings = []
    for split in sorted(map(int, runs["split"].unique())):
        found: dict[tuple, dict[str, list[int]]] = {}  # labels_hash of train_loca.py is of the sites, too
        for run in runs.loc[runs["split"] == split, "run"]:
            with contextlib.suppress(InputError):
                settings = read_settings(folder, split, run) or {}
                for name in ("labels_hash", "images_hash"):
                    if digest := settings.get(name):
                        kind = found.setdefault((name, "sites" in settings.get("model", {})), {})
                        kind.setdefault(digest, []).append(run)
        for groups in found.values():
            if len(groups) > 1:
                named = " and ".join(f"{counted(len(each), 'run')} ({ranges(each)})" for each in groups.values())
                warnings.append(f"warning: split {split}: {named} were trained and validated on different scans, "
                                "images, labels or sets: their AUCs do not compare; train the older ones again "
                                "(--overwrite), or give them a folder of their own")
    return list(dict.fromkeys(warnings))


def rank_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """best_run.csv, of `read_runs`: each split's best run, best first, of equal ones the lowest run and split."""
    best = runs.sort_values(["value", "run"], ascending=[False, True]).drop_duplicates("split")
    ranked = best.sort_values(["value", "split"], ascending=[False, True], ignore_index=True)
    return ranked.assign(rank=ranked.index + 1)


def newer_runs(folder: Path, chosen: dict[int, int]) -> list[str]:
    """"split 0 run 3" of each split whose best run by the logs in a folder is not the one that best_run.csv has
    (`chosen`: split -> run); [] without logs, as in a zip of models."""
    try:
        best = rank_runs(read_runs(folder)[0])
    except InputError:
        return []
    return [f"split {split} run {run}" for split, run in zip(best["split"], best["run"], strict=True)
            if chosen.get(split) != run]


def read_ranks(path: Path) -> dict[tuple[int, int], int]:
    """best_run.csv as {(split, run): rank}, best first. Raises InputError unless the ranks are 1, 2, ..., each once."""
    table = read_csv(path, ("split", "run", "rank"))
    try:
        ranks = {(int(split), int(run)): int(rank)
                 for split, run, rank in zip(table["split"], table["run"], table["rank"], strict=True)}
    except ValueError as error:
        raise InputError(f"{path}: {error}; split, run and rank must be integers") from None
    if sorted(ranks.values()) != list(range(1, len(table) + 1)):
        raise InputError(f"{path}: its ranks must be 1 to {len(table)}, each once; run find_best_model.py again")
    return dict(sorted(ranks.items(), key=lambda item: item[1]))
