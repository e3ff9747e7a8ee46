"""Whether a model was trained on the scans it is to predict, and whether --output holds predictions that do not match.
"""
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.digests import BY_ID, BY_IMAGE, NOT_CHECKED, SEEN, name_scans
from common.files import InputError, read_csv
from common.manifest import file_digests
from common.model_files import checkpoint_file, checkpoint_sha256, exists
from common.run_files import find_run_files
from common.text import counted, some

# Value of the column `overlap` -> what could not be checked
COULD_NOT = {
    NOT_CHECKED: "warning: whether the networks were trained on these scans was not checked: the checkpoints, or "
                 "those that they started from, hold no digests of their training (LARS's, or an earlier version's), "
                 "or none that could be compared",
    BY_IMAGE: "warning: patients could not be compared: other key; the images alone were, which finds a scan only as "
              "made with the same --spacing by the same version of prepro_script.py",
    BY_ID: "warning: images could not be compared with those of the training: one of the manifests lacks image_sha256"}

IMAGE = ("scan_id", "view", "image_sha256")


def overlap_notes(rows: pd.DataFrame, column: str, path: Path, data: str) -> list[str]:
    """Warnings where a model was trained on scans that it is to predict, or where that could not be checked.

    Parameters
    ----------
    rows : DataFrame
        Of `prediction.Model`.
    column : str
        That holds their sets, such as "split0"; or "all".
    path : Path
        The checkpoint.
    data : str
        Path of the manifest.

    Raises
    ------
    InputError
        Rows of a set that `digests.SEEN` refuses were trained or validated on.
    """
    notes = [text for value, text in COULD_NOT.items() if (rows["overlap"] == value).any()]
    for learned, (does, refused) in SEEN.items():
        shared = rows["overlap"] == learned
        if column == "all":
            notes += [f"warning: {path.name} was {does} on {name_scans(rows, shared)}: optimistic"] * bool(shared.any())
            continue
        for name in refused:
            wrong = (shared & (rows[column] == name)).to_numpy()
            if wrong.any():
                raise InputError(f"{path}: was {does} on {name_scans(rows, wrong)} of {data}'s {column} {name}, or on "
                                 "their patients; give --data the manifest of the training, train again, or give "
                                 "--set all, which marks them" + _kept_names(rows[wrong]))
    return notes


def _kept_names(rows):
    kept = "id_key" in rows and (rows["id_key"] == "kept").any()
    return ("; should other patients have the same names, hash them: prepro_script.py without --keep_ids") * bool(kept)


def refuse_mixing(output: str, runs: Sequence[dict], table: pd.DataFrame, data: str, images: str,
                  sets: Sequence[str]) -> None:
    """Refuse (InputError) an output folder whose predictions could not be averaged with those that are to be written.

    The files of `runs` are going to be replaced. In any other file the scans of each of `sets` must be in that set of
    the manifest, the images must be those in the folder `images`, and the checkpoint must be the one that lies beside
    those of `runs` now.

    Parameters
    ----------
    output, data, images : str
        Folder of predictions, path of the manifest, folder of its file names.
    runs : list of dict
        Of `prediction.asked_runs`.
    table : DataFrame
        All rows of the manifest.
    sets : list of str
        --set.
    """
    replaced, folders = {(run["split"], run["run"]) for run in runs}, {run["path"].parent for run in runs}
    if kept := [each for each in find_run_files(output, "pred") if each[:2] not in replaced]:
        table = table.assign(image_sha256=file_digests(table, images))
    for split, run, path in kept:
        rows = read_csv(path, ("scan_id",), lambda name: name in (*IMAGE, "set", "checkpoint_sha256"))
        for name in set(rows.get("set", ())) & set(sets):
            column = table.assign(all="all").get(f"split{split}" if name != "all" else name)
            scans = () if column is None else table["scan_id"][column == name]
            if others := sorted(set(rows["scan_id"][rows["set"] == name]) - set(scans)):
                raise InputError(f"{path}: was predicted with another manifest: {counted(len(others), 'scan')} of set "
                                 f"{name} not so in {data} ({some(others, 3)}); give another --output, predict "
                                 f"split {split} run {run}, too, or remove the file")
        if set(IMAGE) <= {*rows} & {*table}:
            known = rows.merge(table[list(IMAGE)], on=["scan_id", "view"], suffixes=("", "_now")).query(
                "image_sha256 != image_sha256_now and image_sha256 != '' and image_sha256_now != ''")
            if others := sorted(set(known["scan_id"])):
                raise InputError(f"{path}: was predicted of other images of {counted(len(others), 'scan')} than are "
                                 f"in {images} now ({some(others, 3)}): predict split {split} run {run}, too, give "
                                 "another --output, or remove the file")
        beside = [checkpoint_file(folder, split, run) for folder in folders]
        now = {checkpoint_sha256(checkpoint): checkpoint for checkpoint in beside if exists(checkpoint)}
        made_by = set(rows.get("checkpoint_sha256", ()))
        if made_by and now and not made_by <= set(now):
            raise InputError(f"{path}: was predicted by another checkpoint than {next(iter(now.values()))} is now: "
                             f"predict split {split} run {run}, too, give another --output, or remove the file")
