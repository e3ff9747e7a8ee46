"""What predict.py, predict_loca.py and explain.py share: a range of models, the rows that each may see, the prediction
files."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import utils
from common import arguments
from common.files import InputError, write_csv
from common.manifest import VIEWS, is_synthetic, report_views
from common.run_files import run_file
from dataset import NORMS, NetworkInput, fit_bodies, read_bodies
from inference.folding import for_prediction
from training import engine, objectives
from training.batches import Images
from training.device import choose_amp, choose_device, set_threads


@dataclass
class Model:
    """One of a range of models, and the images that it is asked for.

    Attributes:
        split, run: numbers; path: of the checkpoint; content: what it holds.
        network (utils.ResNet34): in evaluation mode, on the device.
        feed (feed.Images): every row's image, as this model takes it.
        index: (n,) int array, the rows that it may see.
        rows (DataFrame): of the manifest, those of `index`.
        amp: torch.bfloat16, torch.float16 or None.
    """
    split: int
    run: int
    path: Path
    content: dict
    network: torch.nn.Module
    feed: Images
    index: np.ndarray
    rows: pd.DataFrame
    amp: torch.dtype | None

    def outputs(self, batch_size):
        """engine.evaluate of these rows: (n, columns) and (n, 512) float32."""
        return engine.evaluate(self.network, self.feed, self.index, batch_size, self.amp,
                               f"split {self.split} run {self.run}")


def open_models(args, read_table):
    """The best run of each split in --splits, or each --run of them, one after another.

    Every image is read once, whatever the number of models.

    Args:
        args: of arguments.add_model_range_arguments, add_data_arguments and add_device_arguments.
        read_table: (args, splits) -> the manifest, checked; without `splits` no split column is needed.

    Returns:
        (iterator of Model, [a line for each model that there is not]).
    """
    set_threads(args.threads)
    device = choose_device(args.device)
    amp = choose_amp(args.amp, device)
    runs, missing = find_runs(args)
    table = asked_rows(args, read_table, list(dict.fromkeys(best["split"] for best in runs)))
    print(report_views(table) or f"{table['scan_id'].nunique()} scans, {len(table)} images")
    return _models(args, runs, table, device, amp), missing


def _models(args, runs, table, device, amp):
    said, bodies = {""}, {}  # bodies: one reading per pooling factor, however many models
    for best in runs:
        split, path = best["split"], run_file(args.chptfolder, "checkpoint", best["split"], best["run"])
        network, content = utils.load_model(path)
        check_best(path, content, best, args.chptfolder)
        given = stored_input(args, path, content, table)
        if given.pool not in bodies:
            bodies[given.pool] = read_bodies(table, arguments.images_folder(args), given.pool).to(device)
        wanted, *notes = rows_of_views(table, given.views, path)
        if content.get("synthetic") and not is_synthetic(table).all():
            notes.append("warning: trained on a SYNTHETIC cohort: the scores say nothing about patients")
        for note in notes:
            if note not in said:
                said.add(note)
                print(note)
        if "all" not in args.set:
            wanted &= table[f"split{split}"].isin(args.set)
        index = np.flatnonzero(wanted)
        fitting = fit_bodies(bodies[given.pool], given.frame, args.crop_bodies or given.crop_bodies, index)
        network = for_prediction(network).to(device, memory_format=torch.channels_last)
        yield Model(split, best["run"], path, content, network, Images(fitting, given), index,
                    table.iloc[index].reset_index(drop=True), amp)


def predict_all(args, read_table, more_columns=None):
    """Write pred_splitS_runR.csv for each model of `open_models`.

    Args:
        args: of arguments.add_prediction_arguments, add_data_arguments and add_device_arguments.
        read_table: as `open_models` takes it.
        more_columns: (outputs (n, C) float32, the model, the checkpoint's content, the n rows) -> DataFrame of columns
            to stand after `probs`.

    Returns:
        int or None: the exit code.
    """
    models, missing = open_models(args, read_table)
    for model in models:
        outputs, features = model.outputs(args.batch_size)
        rows = model.rows.drop(columns=["row"])
        rows["set"] = "all" if "all" in args.set else rows[f"split{model.split}"]
        rows["probs"] = objectives.probabilities(outputs[:, :2])
        parts = [rows, more_columns(outputs, model.network, model.content, rows)] if more_columns else [rows]
        if not args.no_features:
            parts.append(pd.DataFrame(features, columns=[f"F{i + 1}" for i in range(features.shape[1])]))
        path = run_file(args.output, "pred", model.split, model.run)
        write_csv(pd.concat(parts, axis=1), path)
        print(f"split {model.split} run {model.run}: {len(rows)} views -> {path}")
    return say_missing(missing)


def say_missing(missing):
    """Print the lines of `open_models` -> the exit code."""
    for line in missing:
        print(line)
    return arguments.EXIT_SOME_FAILED if missing else None


def asked_rows(args, read_table, splits):
    """The manifest's rows that --set asks for in any of the splits. Raises InputError where there are none."""
    table = read_table(args, () if "all" in args.set else splits)
    if "all" in args.set:
        return table
    table = table[table[[f"split{s}" for s in splits]].isin(args.set).any(axis=1)].reset_index(drop=True)
    if table.empty:
        raise InputError(f"{args.data}: no row in {' or '.join(args.set)} of splits {', '.join(map(str, splits))}; "
                         "--set all predicts every row")
    return table


def find_runs(args):
    """What to predict with -> ([dict of split, run, ...], [a line for each that there is not]). Raises InputError.

    Without --run these are rows of best_run.csv, whose epoch and value `check_best` then compares.
    """
    folder, splits = args.chptfolder, args.splits
    if args.run:
        asked = [(split, run) for split in splits for run in args.run]
        found = [pair for pair in asked if run_file(folder, "checkpoint", *pair).exists()]
        if not found:
            raise InputError(f"{folder}: holds no checkpoint of splits {splits[0]} to {splits[-1]} and runs "
                             f"{', '.join(map(str, args.run))}; mend --chptfolder, --splits or --run")
        return ([{"split": split, "run": run} for split, run in found],
                [f"split {split} run {run}: no checkpoint in {folder}" for split, run in asked
                 if (split, run) not in found])
    return best_runs(folder, splits)


def best_runs(folder, splits):
    """best_run.csv -> ([its row of each asked split, a dict], [a line for each split that it lacks]). Or InputError."""
    path = Path(folder) / "best_run.csv"
    try:
        best = pd.read_csv(path)
        rows = {int(row["split"]): row | {"split": int(row["split"]), "run": int(row["run"])}
                for row in best.to_dict("records")}
    except FileNotFoundError:
        raise InputError(f"{path}: missing; find_best_model.py --dir {folder} writes it") from None
    except (ValueError, pd.errors.ParserError, KeyError) as error:
        raise InputError(f"{path}: not a best_run.csv ({error}); find_best_model.py --dir {folder} writes it") from None
    found = [rows[split] for split in splits if split in rows]
    if not found:
        raise InputError(f"{path}: no model of splits {splits[0]} to {splits[-1]}; it has {sorted(rows)}")
    return found, [f"split {split}: no model in {path}" for split in splits if split not in rows]


def check_best(path, content, best, folder):
    """Refuse a checkpoint of train.py that is another than best_run.csv ranked (InputError)."""
    epoch, auc = best.get("epoch", content.get("epoch")), best.get("value", content.get("auc"))
    if "args" in content and (epoch != content["epoch"] or abs(auc - float(content["auc"])) > 1e-6):
        raise InputError(f"{path}: of epoch {content['epoch']} with validation AUC {float(content['auc']):.6f}, but "
                         f"best_run.csv has epoch {epoch} with {auc:.6f}: trained again since? run "
                         f"find_best_model.py --dir {folder}")


def stored_input(args, path, content, table):
    """The Input that a checkpoint was trained with; from --norm and --image_size where it stores none (LARS)."""
    spacing = float(table["spacing_mm"].iloc[0]) if "spacing_mm" in table else None
    if "input" not in content:
        if not args.norm or not args.image_size:
            raise InputError(f"{path}: stores no frame and normalization (LARS's do not); give --norm and --image_size")
        size = arguments.image_size(args.image_size)
        if size == "auto":
            raise InputError(f"{path}: --image_size auto needs a training split; give that of training (LARS: 310)")
        return NetworkInput(size, NORMS[args.norm])
    if args.norm or args.image_size:
        raise InputError(f"{path}: stores its own frame and normalization; leave out --norm and --image_size")
    given = NetworkInput(**content["input"])
    if spacing and given.spacing_mm and abs(spacing - given.spacing_mm) > 1e-3:
        raise InputError(f"{path}: trained on pixels of {given.spacing_mm} mm, but {args.data} has {spacing} mm; run "
                         f"prepro_script.py with --spacing {given.spacing_mm}")
    if given.spacing_mm and not spacing:
        print(f"warning: {args.data} has no spacing_mm; taken to be the checkpoint's {given.spacing_mm} mm")
    return NetworkInput(tuple(given.frame), tuple(given.norm), given.pool, given.spacing_mm, given.crop_bodies,
                        tuple(given.views))


def rows_of_views(table, views, path):
    """The rows whose view the checkpoint `path` was trained on (bool Series), and a line on what does not match, or "".

    Raises InputError where there is none: a network has no say on projections that it has never seen.
    """
    known = table["view"].isin(views)
    if not known.any():
        raise InputError(f"{path}: trained on the views {', '.join(views)}; the manifest has none of them; run "
                         "prepro_script.py with the --views of training")
    left = sorted(set(table.loc[~known, "view"]))
    missing = sorted(set(views) - set(table["view"])) if set(views) - set(VIEWS) else []
    note = f"; left out: {', '.join(left)}" * bool(left) + f"; the manifest has no {', '.join(missing)}" * bool(missing)
    return known, note and f"warning: models trained on the views {', '.join(views)}{note}"
