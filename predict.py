"""Probabilities of Deauville 4-5 for every view, from the best run of each split of a range.

python predict.py --output results --chptfolder results --splits 0 19                      # test set of each split
python predict.py --output results --chptfolder results --splits 0 19 --set val test
python predict.py --output new --chptfolder results --splits 0 19 --data NEW.csv --set all  # new patients

Writes pred_splitS_runR.csv to --output: the manifest's columns, set, probs, F1..F512. Run find_best_model.py first: it
writes the best_run.csv that names each split's run.
"""
import arguments
from arguments import EXIT_SOME_FAILED, Parser, natural_int, positive_int, run_script
from files import InputError, write_csv


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("models")
    group.add_argument("--chptfolder", default="results", metavar="DIR", help="folder of checkpoints and best_run.csv")
    group.add_argument("--splits", nargs=2, type=natural_int, default=[0, 19], metavar=("A", "B"),
                       help="first and last split, both included (default: 0 19)")
    group.add_argument("--set", nargs="+", default=["test"], choices=("train", "val", "test", "all"),
                       help="rows to predict, by the split's own column; all: every row, no split columns needed "
                            "(default: test)")
    group.add_argument("--output", default="results", metavar="DIR", help="where pred_splitS_runR.csv go")
    group.add_argument("--batch_size", type=positive_int, default=50, metavar="N", help="images at a time")
    group.add_argument("--no_features", action="store_true", help="leave out the columns F1..F512")
    arguments.add_data_arguments(parser)
    group = parser.add_argument_group("network input (only for checkpoints that store none, such as LARS's)")
    group.add_argument("--image_size", nargs="+", type=arguments.side_or_auto, metavar="PIXELS",
                       help="frame: a side or rows and columns")
    group.add_argument("--norm", choices=("lars", "thesis"), help="lars: 2.13, 3.39; thesis: 0.6089, 1.8575 (SUV)")
    group.add_argument("--crop_bodies", action="store_true",
                       help="for any checkpoint: cut bodies larger than the frame instead of refusing them")
    arguments.add_device_arguments(parser)
    return parser


def main(args):
    import numpy as np

    import utils
    from dataset import fit_bodies, read_bodies
    from manifest import read_manifest, report_views

    if args.splits[0] > args.splits[1]:
        raise InputError(f"--splits {args.splits[0]} {args.splits[1]}: the first is larger than the last")
    utils.set_threads(args.threads)
    device = utils.choose_device(args.device)
    amp = utils.choose_amp(args.amp, device)
    runs, missing = find_runs(args.chptfolder, range(args.splits[0], args.splits[1] + 1))
    everything = "all" in args.set
    table = read_manifest(args.data, () if everything else list(runs), need_target=False)
    if not everything:
        table = table[table[[f"split{s}" for s in runs]].isin(args.set).any(axis=1)].reset_index(drop=True)
        if table.empty:
            raise InputError(f"{args.data}: no row in {' or '.join(args.set)} of splits {', '.join(map(str, runs))}; "
                             "--set all predicts every row")
    print(report_views(table) or f"{table['scan_id'].nunique()} scans, {len(table)} images")

    said = {""}
    cache = {}  # one reading per pooling factor, however many models
    for split, run in runs.items():
        path = utils.run_file(args.chptfolder, "checkpoint", split, run)
        model, content = utils.load_model(path)
        given = stored_input(args, path, content, table)
        if given.pool not in cache:
            cache[given.pool] = read_bodies(table, arguments.images_folder(args), given.pool).to(device)
        wanted, note = rows_of_views(table, given.views, path)
        if note not in said:
            said.add(note)
            print(note)
        if not everything:
            wanted &= table[f"split{split}"].isin(args.set)
        mine = np.flatnonzero(wanted)
        bodies = fit_bodies(cache[given.pool].subset(mine), given.frame, args.crop_bodies or given.crop_bodies)
        write_predictions(args, table.iloc[mine], bodies, model.to(device), given, amp, split, run)
    for split in missing:
        print(f"split {split}: no model in {args.chptfolder}/best_run.csv")
    return EXIT_SOME_FAILED if missing else None


def find_runs(folder, splits):
    """best_run.csv -> ({split: run} of the asked splits, [splits without a model]). Raises InputError."""
    from pathlib import Path

    import pandas as pd
    path = Path(folder) / "best_run.csv"
    try:
        best = pd.read_csv(path)
        runs = {int(row.split): int(row.run) for row in best.sort_values("split").itertuples()}
    except FileNotFoundError:
        raise InputError(f"{path}: missing; find_best_model.py --dir {folder} writes it") from None
    except (ValueError, AttributeError, pd.errors.ParserError, KeyError) as error:
        raise InputError(f"{path}: not a best_run.csv ({error}); find_best_model.py --dir {folder} writes it") from None
    found = {split: runs[split] for split in splits if split in runs}
    if not found:
        raise InputError(f"{path}: no model of splits {splits[0]} to {splits[-1]}; it has {sorted(runs)}")
    return found, [split for split in splits if split not in runs]


def stored_input(args, path, content, table):
    """The Input that a checkpoint was trained with; from --norm and --image_size where it stores none (LARS)."""
    from dataset import NORMS
    from engine import Input
    spacing = float(table["spacing_mm"].iloc[0]) if "spacing_mm" in table else None
    if "input" not in content:
        if not args.norm or not args.image_size:
            raise InputError(f"{path}: stores no frame and normalization (LARS's do not); give --norm and --image_size")
        size = arguments.image_size(args.image_size)
        if size == "auto":
            raise InputError(f"{path}: --image_size auto needs a training split; give that of training (LARS: 310)")
        return Input(size, NORMS[args.norm])
    if args.norm or args.image_size:
        raise InputError(f"{path}: stores its own frame and normalization; leave out --norm and --image_size")
    given = Input(**content["input"])
    if spacing and given.spacing_mm and abs(spacing - given.spacing_mm) > 1e-3:
        raise InputError(f"{path}: trained on pixels of {given.spacing_mm} mm, but {args.data} has {spacing} mm; run "
                         f"prepro_script.py with --spacing {given.spacing_mm}")
    if given.spacing_mm and not spacing:
        print(f"warning: {args.data} has no spacing_mm; taken to be the checkpoint's {given.spacing_mm} mm")
    return Input(tuple(given.frame), tuple(given.norm), given.pool, given.spacing_mm, given.crop_bodies,
                 tuple(given.views))


def rows_of_views(table, views, path):
    """The rows whose view the checkpoint `path` was trained on (bool Series), and a line on what does not match, or "".

    Raises InputError where there is none: a network has no say on projections that it has never seen.
    """
    from manifest import VIEWS
    known = table["view"].isin(views)
    if not known.any():
        raise InputError(f"{path}: trained on the views {', '.join(views)}; the manifest has none of them; run "
                         "prepro_script.py with the --views of training")
    left = sorted(set(table.loc[~known, "view"]))
    missing = sorted(set(views) - set(table["view"])) if set(views) - set(VIEWS) else []
    note = f"; left out: {', '.join(left)}" * bool(left) + f"; the manifest has no {', '.join(missing)}" * bool(missing)
    return known, note and f"warning: models trained on the views {', '.join(views)}{note}"


def write_predictions(args, table, bodies, model, given, amp, split, run):
    """Predict the rows of `table` with one model and write its pred_splitS_runR.csv."""
    import numpy as np
    import pandas as pd
    import torch

    import engine
    import utils
    from feed import Images
    model = model.to(memory_format=torch.channels_last)
    logits, features = engine.evaluate(model, Images(bodies, given), np.arange(len(table)), args.batch_size, amp,
                                       f"split {split} run {run}")
    carried = table.drop(columns=["row"]).reset_index(drop=True)
    carried["set"] = "all" if "all" in args.set else table[f"split{split}"].to_numpy()
    carried["probs"] = engine.probabilities(logits)
    if not args.no_features:
        columns = [f"F{i + 1}" for i in range(features.shape[1])]
        carried = pd.concat([carried, pd.DataFrame(features, columns=columns)], axis=1)
    path = utils.run_file(args.output, "pred", split, run)
    write_csv(carried, path)
    print(f"split {split} run {run}: {len(table)} views -> {path}")


if __name__ == "__main__":
    run_script(get_args_parser, main)
