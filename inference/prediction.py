"""What predict.py, predict_loca.py and explain.py share: the models asked for, the rows that each may predict, the
prediction files."""
import io
import itertools
import math
import re
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import utils
from common import arguments
from common.arguments import EXIT_SOME_FAILED
from common.digests import overlap
from common.files import InputError, write_csv
from common.manifest import (
    LEAKAGE,
    MARK,
    VIEWS,
    add_leakage,
    compare_images,
    is_synthetic,
    leakage,
    report_views,
    suv_type_of,
)
from common.mips import no_suv
from common.model_files import (
    checkpoint_file,
    checkpoint_sha256,
    checkpoints_in,
    is_export,
    only_checkpoint,
    read_file,
)
from common.run_files import run_file, run_of
from common.text import counted, some
from dataset import LARS, NORMS, NetworkInput, fit_bodies, read_bodies, stack_bodies
from evaluation import ranking
from inference.folding import for_prediction
from inference.provenance import overlap_notes, refuse_mixing
from training import engine
from training.batches import ImageBatches, Outputs
from training.objectives import probabilities

LARS_INPUT = ("checkpoints without an input of their own are given LARS's: its box, frame {} x {}, mean {} and "
              "standard deviation {} SUV")
OWN_COLUMNS = re.compile(r"set|probs|overlap|checkpoint_sha256|[FL]\d+|pred_loc|(pred|true)_loc_name")
NO_SPACING = "the pixel size of the training is not stored; it is taken to be the {:g} mm of these MIPs"


@dataclass
class Model:
    """A model, and the images that it is to predict.

    Attributes
    ----------
    split, run : int
    path : Path
        Of the checkpoint; `sha256`: of `checkpoint_sha256`; `content`: what it holds.
    network : utils.ResNet34
        In evaluation mode, on the device.
    batches : ImageBatches
        Of the images of all rows, as this model's input.
    index : (n,) int array
        The rows to predict: those of its sets and views.
    rows : DataFrame
        These rows of the manifest, with the columns `overlap` (of `common.digests.overlap`) and checkpoint_sha256.
    amp : torch.dtype or None
    """
    split: int
    run: int
    path: Path
    sha256: str
    content: dict
    network: torch.nn.Module
    batches: ImageBatches
    index: np.ndarray
    rows: pd.DataFrame
    amp: torch.dtype | None

    def outputs(self) -> Outputs:
        """`engine.evaluate` of the rows, if there are any. Raises InputError where a score is NaN or infinite."""
        if not len(self.index):
            columns = 2 + len(self.network.sites or ()), utils.FEATURES
            return Outputs(self.index, *(np.empty((0, count), "float32") for count in columns))
        outputs = engine.evaluate(self.network, self.batches.centred(self.index), self.amp,
                                  f"split {self.split} run {self.run}")
        if len(bad := np.flatnonzero(~np.isfinite(outputs.logits).all(1))):
            raise InputError(f"{self.path}: gives no finite score for {counted(len(bad), 'image')}, such as "
                             f"{self.rows['filename'].iloc[bad[0]]}: give another checkpoint, or --amp off")
        return outputs


def open_models(runs: list[dict], table: pd.DataFrame, chptfolder: str, data: str, images: str, sets: Sequence[str],
                device: torch.device, amp: torch.dtype | None, batch_size: int = 50, norm: str | None = None,
                image_size: list | None = None, crop_bodies: bool = False,
                allow_leakage: bool = False, say: Callable[[str], None] = print) -> Iterator[Model]:
    """Open the models of `runs`, one after another; each image is read once, however many models there are.

    Parameters
    ----------
    runs : list of dict
        Of `find_runs`.
    table : DataFrame
        Of `asked_rows`.
    chptfolder, data, images : str
        Folder of the checkpoints, path of the manifest, folder of its file names.
    sets : list of str
        --set.
    norm, image_size, crop_bodies
        Arguments of predict.py, for checkpoints that store no input; crop_bodies for any.
    allow_leakage : bool
        Mark rows in the column LEAKAGE, instead of refusing them.
    say : callable
        Called with each note and warning, once.
    """
    said, bodies = set(), {}  # bodies: one reading per pooling and box, however many models
    for best in runs:
        split, path = best["split"], best["path"]
        network, content = utils.load_model(path)
        content.pop("state_dict", None)  # the network has it: many models stay in memory together
        check_best(path, content, best, chptfolder)
        network_input = stored_input(path, content, table, data, norm, image_size)
        cut = network_input.pool, network_input.box
        if cut not in bodies:
            bodies[cut] = read_bodies(table, images, *cut).to(device)
            table = compare_images(table, images, data, splits_of(runs, sets), allow_leakage)
        wanted, note = rows_of_views(table, network_input.views, path)
        notes = [note, *checkpoint_notes(path, content, network_input, table)]
        if "all" not in sets:
            wanted &= table[f"split{split}"].isin(sets)
        index, digest = np.flatnonzero(wanted), checkpoint_sha256(path)
        rows = table.iloc[index].reset_index(drop=True)
        rows = rows.assign(overlap=overlap(rows, content.get("trained_on")), checkpoint_sha256=digest)
        if content.get(LEAKAGE):
            add_leakage(rows, f"{path.name}: {content[LEAKAGE]}")
        with leakage(rows, allow_leakage):
            notes += overlap_notes(rows, "all" if "all" in sets else f"split{split}", path, data)
        for note in filter(None, notes):
            if note not in said:
                said.add(note)
                say(note)
        fitting = fit_bodies(bodies[cut], network_input.frame, crop_bodies or network_input.crop_bodies, index)
        network = for_prediction(network).to(device, memory_format=torch.channels_last)
        yield Model(split, best["run"], path, digest, content, network,
                    ImageBatches(fitting, network_input, batch_size), index, rows, amp)


def checkpoint_notes(path: Path, content: dict, network_input: NetworkInput, table: pd.DataFrame) -> list[str]:
    """What a user must know of a checkpoint: LARS's input, no pixel size, training on a SYNTHETIC cohort or with
    --allow_leakage."""
    notes = []
    if "input" not in content:
        notes.append(LARS_INPUT.format(*network_input.frame, *network_input.norm))
    elif "spacing_mm" in table and not network_input.spacing_mm:
        notes.append("warning: " + NO_SPACING.format(table["spacing_mm"].iloc[0]))
    if content.get("synthetic") and not is_synthetic(table).all():
        notes.append("warning: trained on a SYNTHETIC cohort: the scores say nothing about patients")
    if content.get(LEAKAGE):
        notes.append(f"warning: {path.name} was trained with --allow_leakage: {MARK}: {content[LEAKAGE]}")
    return notes


def predict_mips(checkpoint: str | Path, images: Mapping[str, np.ndarray], spacing_mm: float, suv_type: str = "bw",
                 batch_size: int = 50) -> np.ndarray:
    """Probabilities of these MIPs as predict.py gives them, without a manifest.

    Parameters
    ----------
    checkpoint : str or Path
        Of this toolkit, or of LARS.
    images : dict of str to (rows, columns) float32 array
        By name: MIPs as `preprocessing.geometry.project` makes them.
    spacing_mm, suv_type : float, str
        Of their pixels, and of `SuvVolume`; those of training are in `load_model(checkpoint)[1]["input"]`.
    batch_size : int

    Returns
    -------
    (n,) float64 array
        Probability of Deauville 4-5 for each image.

    Warns
    -----
    UserWarning
        The network was trained on a SYNTHETIC cohort, or with --allow_leakage; it does not store its pixel size.

    Raises
    ------
    InputError
        No image, no checkpoint, other pixels or SUV than those of training, an image that is no SUV, has no body or a
        larger one than the frame, a score that is not finite.
    """
    if not images:
        raise InputError("no image: give a dict of MIPs by name")
    if not isinstance(spacing_mm, Real) or not 0 < spacing_mm < math.inf:
        raise InputError(f"spacing_mm is {spacing_mm!r}: give the side of the MIPs' pixels in mm")
    network, content = utils.load_model(checkpoint)
    table = pd.DataFrame({"filename": list(images), "spacing_mm": spacing_mm, "suv_type": suv_type})
    given = stored_input(checkpoint, content, table, "the call", None, None)
    for note in checkpoint_notes(Path(checkpoint), content, given, table):
        if note.startswith("warning: "):
            warnings.warn(f"{checkpoint}: {note.removeprefix('warning: ')}", stacklevel=2)
    arrays = [np.ascontiguousarray(image, np.float32) for image in images.values()]
    for name, image in zip(images, arrays, strict=True):
        if reason := (f"is of shape {image.shape}, not (rows, columns)" if image.ndim != 2 or not image.size else
                      "holds NaN or infinity" if not np.isfinite(image).all() else no_suv(image)):
            raise InputError(f"{name}: {reason}; give a MIP in SUV")
    largest = (max(image.shape[0] for image in arrays), max(image.shape[1] for image in arrays))
    bodies = fit_bodies(stack_bodies(arrays, list(images), largest, given.pool, given.box), given.frame,
                        given.crop_bodies)
    index, path = np.arange(len(arrays)), Path(checkpoint)
    network = for_prediction(network).to(memory_format=torch.channels_last)
    model = Model(0, 1, path, checkpoint_sha256(path), content, network, ImageBatches(bodies, given, batch_size), index,
                  table, None)
    return probabilities(model.outputs().logits)


def write_predictions(model: Model, outputs: Outputs, sets: Sequence[str], output: str, features: bool = True,
                      more: pd.DataFrame | None = None) -> None:
    """pred_splitS_runR.csv of one model: the manifest's columns, set, probs, the columns `more`, F1..F512."""
    rows = model.rows.drop(columns="row").assign(probs=probabilities(outputs.logits))
    rows.insert(len(rows.columns) - 1, "set", "all" if "all" in sets else rows[f"split{model.split}"])
    embeddings = pd.DataFrame(outputs.embeddings).rename(columns=lambda k: f"F{k + 1}") if features else None
    path = run_file(output, "pred", model.split, model.run)
    write_csv(pd.concat([rows, more, embeddings], axis=1), path)  # None is left out
    print(f"split {model.split} run {model.run}: {counted(len(rows), 'view')} -> {path}")


def say_missing(missing: list[str]) -> int | None:
    """Print the lines of `find_runs` -> the exit code."""
    for line in missing:
        print(f"error: {line}")
    return EXIT_SOME_FAILED if missing else None


def asked_rows(table: pd.DataFrame, data: str, sets: Sequence[str], runs: list[dict]) -> pd.DataFrame:
    """The manifest's rows that --set asks for in any of the runs' splits, without OWN_COLUMNS, which are those that
    prediction files add. Raises InputError where there are none."""
    if "all" in sets and set(sets) != {"all"}:
        raise InputError(f"--set {' '.join(sets)}: all holds the others; leave out one or the other")
    if own := [name for name in table if OWN_COLUMNS.fullmatch(name)]:
        print(f"warning: {data}: {some(own)} left out: names that prediction files keep for columns of their own")
        table = table.drop(columns=own)
    if splits := splits_of(runs, sets):
        table = table[table[[f"split{split}" for split in splits]].isin(sets).any(axis=1)].reset_index(drop=True)
        if table.empty:
            raise InputError(f"{data}: no row in {' or '.join(sets)} of splits {', '.join(map(str, splits))}; "
                             "--set all predicts every row")
    print(report_views(table) or f"{counted(table['scan_id'].nunique(), 'scan')}, {counted(len(table), 'image')}")
    return table


def rows_to_predict(table: pd.DataFrame, data: str, images: str, sets: Sequence[str], runs: list[dict],
                    output: str) -> pd.DataFrame:
    """`asked_rows` for prediction files in `output`. Raises InputError, too, where a split has none of them, and as
    `refuse_mixing`; nothing is written by then."""
    if none := [split for split in splits_of(runs, sets) if not table[f"split{split}"].isin(sets).any()]:
        raise InputError(f"{data}: no row in {' or '.join(sets)} of split {', '.join(map(str, none))}; predict other "
                         "splits (--splits), or give --set all")
    refuse_mixing(output, runs, table, data, images, sets)
    return asked_rows(table, data, sets, runs)


def splits_of(runs: list[dict], sets: Sequence[str]) -> list[int]:
    """The splits of `find_runs` whose columns the manifest needs for these of --set: none for all."""
    return [] if "all" in sets else list(dict.fromkeys(run["split"] for run in runs))


def asked_runs(args: Namespace) -> tuple[list[dict], list[str]]:
    """`find_runs` of --chptfolder, --splits and --run, or `runs_of_files` of --checkpoints. Raises InputError."""
    if not args.checkpoints:
        return find_runs(args.chptfolder, args.splits, args.run)
    if given := [f"--{name}" for name in ("splits", "run") if name in args.given]:
        raise InputError(f"{' and '.join(given)}: --checkpoints names the files; leave out one or the other")
    return runs_of_files(args.checkpoints, args.set), []


def runs_of_files(files: Sequence[str], sets: Sequence[str]) -> list[dict]:
    """The models in these files, as of `find_runs`; of a zip its only model.

    Split and run are those of the file's name. A file whose name has none, or that of another file, gets run 1 of its
    place among the files, from 0, or of the next split that is free.

    Parameters
    ----------
    sets : sequence of str
        --set.

    Raises
    ------
    InputError
        --set needs a split, and a name says none, or two files are of one split and run; a file is given twice.
    """
    paths = list(map(only_checkpoint, files))
    places = [path.resolve() for path in paths]
    if twice := [path for path, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"--checkpoints: {twice[0]} is given twice; give each file once")
    named = [run_of(path.with_suffix(".pth"), "checkpoint") for path in paths]
    own = {pair for pair in named if pair and named.count(pair) == 1}
    taken, runs = set(own), []
    for number, (path, pair) in enumerate(zip(paths, named, strict=True)):
        if pair not in own and "all" not in sets:
            raise InputError(f"{path}: " + (
                f"another file is split {pair[0]} run {pair[1]}, too; give --set all, or predict them into two folders"
                if pair else f"its name says no split, whose {' and '.join(sets)} set is asked for; give --set all, or "
                "call it checkpoint_splitS_runR.pth"))
        if pair not in own:
            pair = next((split, 1) for split in itertools.count(number) if (split, 1) not in taken)
            taken.add(pair)
            print(f"{path} is called split {pair[0]} run {pair[1]}")
        runs.append({"split": pair[0], "run": pair[1], "path": path})
    return runs


def find_runs(folder: str | Path, splits: Sequence[int] | None = None,
              runs: list[int] | None = None) -> tuple[list[dict], list[str]]:
    """The models of --splits and --run in a folder or a zip of models.

    Parameters
    ----------
    splits : sequence of int, optional
        By default all that have a model of `runs`.
    runs : list of int, optional
        By default each split's run of best_run.csv.

    Returns
    -------
    found : list of dict
        {split, run, path} of each model; without `runs` its whole row of best_run.csv, for `check_best`.
    missing : list of str
        A line for each model that is not there.

    Raises
    ------
    InputError
        There is none at all.
    """
    if not runs:
        return best_runs(folder, splits)
    paths = {(split, run): path for split, run, path in checkpoints_in(folder)}
    asked = [pair for pair in paths if pair[1] in runs] if splits is None else list(itertools.product(splits, runs))
    found = [{"split": split, "run": run, "path": paths[split, run]} for split, run in asked if (split, run) in paths]
    if not found:
        of_splits, option = (f"splits {splits[0]} to {splits[-1]} and ", ", --splits") if splits else ("", "")
        raise InputError(f"{folder}: holds no checkpoint of {of_splits}runs {', '.join(map(str, runs))}; correct "
                         f"--chptfolder{option} or --run")
    return found, [f"split {split} run {run}: no checkpoint in {folder}" for split, run in asked
                   if (split, run) not in paths]


def best_runs(folder: str | Path, splits: Sequence[int] | None = None) -> tuple[list[dict], list[str]]:
    """`find_runs` of the runs that best_run.csv names; without `splits` all of them, by split."""
    path = Path(folder) / "best_run.csv"
    if Path(folder).is_file() and not is_export(folder):
        raise InputError(f"{folder}: a file, not a folder of networks or their zip; --checkpoints takes files")
    try:
        best = pd.read_csv(io.BytesIO(read_file(path)), dtype={"split": str, "run": str})
        for name in best.columns.intersection(["epoch", "value"]):
            best[name] = pd.to_numeric(best[name])
        pairs = [(int(row["split"]), int(row["run"]), row) for row in best.to_dict("records")]
        rows = {split: row | {"split": split, "run": run, "path": checkpoint_file(folder, split, run)}
                for split, run, row in pairs}
    except FileNotFoundError:
        raise no_best_run(folder) from None
    except (ValueError, TypeError, pd.errors.ParserError, KeyError) as error:
        raise InputError(f"{path}: not a best_run.csv ({error}); find_best_model.py --dir {folder} writes it") from None
    if newer := ranking.newer_runs(Path(folder), {split: row["run"] for split, row in rows.items()}):
        print(f"warning: {path}: by the logs beside it {some(newer)} would now be the best of a split; "
              f"find_best_model.py --dir {folder} writes it anew")
    splits = sorted(rows) if splits is None else splits
    found = [rows[split] for split in splits if split in rows]
    if not splits:
        raise InputError(f"{path}: no row; find_best_model.py --dir {folder} writes it")
    if not found:
        raise InputError(f"{path}: no model of splits {splits[0]} to {splits[-1]}; it has {sorted(rows)}")
    return found, [f"split {split}: no model in {path}" for split in splits if split not in rows]


def no_best_run(folder: str | Path) -> InputError:
    """Why a folder of networks has no best_run.csv."""
    if not Path(folder).exists():
        return InputError(f"{folder}: no such folder of networks, and no such zip; correct its name")
    return InputError(f"{Path(folder) / 'best_run.csv'}: missing; find_best_model.py --dir {folder} writes it")


def check_best(path: str | Path, content: dict, best: dict, folder: str | Path) -> None:
    """Refuse (InputError) a checkpoint of train.py that is not the one that best_run.csv ranked."""
    epoch, auc = best.get("epoch", content.get("epoch")), best.get("value", content.get("auc"))
    ours = {"args", "input"} <= content.keys()
    if ours and (epoch != content["epoch"] or not abs(auc - float(content["auc"])) <= 1e-6):
        raise InputError(f"{path}: of epoch {content['epoch']} with validation AUC {float(content['auc']):.6f}, but "
                         f"best_run.csv has epoch {epoch} with {auc:.6f}: trained again since? run "
                         f"find_best_model.py --dir {folder}")


def stored_input(path: str | Path, content: dict, table: pd.DataFrame, data: str, norm: str | None,
                 image_size: list | None) -> NetworkInput:
    """The input of a checkpoint's network; where it stores none, LARS's with --norm and --image_size."""
    spacing = float(table["spacing_mm"].iloc[0]) if "spacing_mm" in table else None
    if "input" not in content:
        size = arguments.image_size(image_size or list(LARS.frame))
        if size == "auto":
            raise InputError(f"{path}: --image_size auto needs a training split; give that of training (LARS: 310)")
        stored = replace(LARS, frame=size, norm=NORMS[norm] if norm else LARS.norm)
    elif norm or image_size:
        raise InputError(f"{path}: stores its own frame and normalization; leave out --norm and --image_size")
    else:
        stored = NetworkInput(**content["input"])
    if spacing and stored.spacing_mm and abs(spacing - stored.spacing_mm) > 1e-3:
        raise InputError(f"{path}: trained on pixels of {stored.spacing_mm} mm, but {data} has {spacing} mm; run "
                         f"prepro_script.py with --spacing {stored.spacing_mm}")
    if (suv_type := suv_type_of(table)) != stored.suv_type:
        raise InputError(f"{path}: trained on SUV of type {stored.suv_type}, but {data} has {suv_type}; run "
                         f"prepro_script.py with --suv {stored.suv_type}")
    if stored.spacing_mm and not spacing:
        print(f"warning: {data} has no spacing_mm; taken to be the checkpoint's {stored.spacing_mm} mm")
    return stored


def rows_of_views(table: pd.DataFrame, views: tuple, path: str | Path) -> tuple[pd.Series, str]:
    """The rows whose view the checkpoint `path` was trained on (bool Series), and a warning where views differ, or "".

    Raises InputError where there are no such rows: a network cannot score projections that it has never seen.
    """
    known = table["view"].isin(views)
    if not known.any():
        raise InputError(f"{path}: trained on the views {', '.join(views)}; the manifest has none of them; run "
                         "prepro_script.py with the --views of training")
    left = sorted(set(table.loc[~known, "view"]))
    missing = sorted(set(views) - set(table["view"])) if set(views) - set(VIEWS) else []
    note = f"; left out: {', '.join(left)}" * bool(left) + f"; the manifest has no {', '.join(missing)}" * bool(missing)
    return known, note and f"warning: models trained on the views {', '.join(views)}{note}"
