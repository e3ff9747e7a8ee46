"""Train the binary Deauville network (DS 1-3 against DS 4-5) on one or several data splits.

python train.py --split_index 0 --run 1 --output results --cls_arch complex --optimizer sgd --lr 0.01 --early_stopping
python train.py --split_index 0 1 --run 1 --output results --weights none --image_size auto --pool 2
python train.py --split_index 0 --run 1 --output results --resume        # go on after a stop

Writes convergence_splitS_runR.csv and checkpoint_splitS_runR.pth (the best validation epoch) to --output.
"""
import arguments
from arguments import Parser, natural_int, run_script
from files import InputError


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("run")
    group.add_argument("--split_index", nargs="+", type=natural_int, default=[0], metavar="S",
                       help="data splits to train")
    group.add_argument("--run", type=natural_int, default=1, metavar="R", help="number of this run; part of the seed")
    group.add_argument("--output", default="results", metavar="DIR", help="where the run's files go")
    arguments.add_data_arguments(parser)
    arguments.add_input_arguments(parser)
    arguments.add_model_arguments(parser)
    arguments.add_training_arguments(parser)
    arguments.add_device_arguments(parser)
    return parser


def main(args):
    import numpy as np

    import utils
    from dataset import read_bodies
    from manifest import check_classes, read_manifest, report_views

    size = arguments.image_size(args.image_size)
    utils.set_threads(args.threads)
    device = utils.choose_device(args.device)
    amp = utils.choose_amp(args.amp, device)
    splits = [split for split in dict.fromkeys(args.split_index) if _to_do(args, split)]
    if not splits:
        return
    table = read_manifest(args.data, splits)
    for split in splits:
        check_classes(args.data, table, split)
    used = (table[[f"split{split}" for split in splits]] != "test").any(axis=1)
    table = table[used].reset_index(drop=True)
    print(report_views(table) or f"{table['scan_id'].nunique()} scans, {len(table)} images")
    bodies = read_bodies(table, arguments.images_folder(args), args.pool)
    print(f"device {device}, {'bfloat16' if amp else 'float32'}")
    results = []
    for split in splits:
        mine = np.flatnonzero(table[f"split{split}"] != "test")
        rows = table.iloc[mine].reset_index(drop=True)
        results.append(train_split(args, rows, bodies.subset(mine), split, size, device, amp))
    for r in results:
        print(f"split {r['split']} run {r['run']}: best validation AUC {r['auc']:.4f} in epoch {r['best_epoch']} of "
              f"{r['epochs']} ({r['ended']}); {utils.run_file(args.output, 'checkpoint', r['split'], r['run'])}")


def _to_do(args, split):
    """Whether this split is to be trained; refuses to overwrite a run unasked."""
    import utils
    done, last = (utils.run_file(args.output, kind, split, args.run) for kind in ("checkpoint", "last"))
    if args.overwrite or not (done.exists() or last.exists()):
        last.unlink(missing_ok=True)
        return True
    if not args.resume:
        raise InputError(f"{done if done.exists() else last} exists: --resume goes on with it, --overwrite trains it "
                         "again, or give another --run")
    if not last.exists():
        print(f"split {split} run {args.run} is finished: {done}")
    return last.exists()


def train_split(args, table, bodies, split, size, device, amp):
    """Build the network, its input and optimizer for one split, and fit it; returns `engine.fit`'s summary."""
    import numpy as np
    import torch

    import engine
    import utils
    from dataset import NORMS, batch_indices, choose_frame, epoch_order, fit_bodies, norm_constants
    from manifest import views_of

    frame = choose_frame(size, bodies, args.margin)
    bodies = fit_bodies(bodies, frame, args.crop_bodies)
    train = np.flatnonzero(table[f"split{split}"] == "train")
    norm = NORMS.get(args.norm) or norm_constants(bodies, train)
    if not args.normalize:
        norm = (0.0, 1.0)
    spacing = float(table["spacing_mm"].iloc[0]) if "spacing_mm" in table else None
    given = engine.Input(frame, norm, args.pool, spacing, args.crop_bodies, views_of(table))
    print(f"split {split}: {len(train)} training and {len(table) - len(train)} validation images, frame {frame[0]} x "
          f"{frame[1]}, mean {norm[0]:.4f} and standard deviation {norm[1]:.4f} SUV")

    torch.manual_seed(int(np.random.SeedSequence((args.seed, split, args.run)).generate_state(1)[0]))
    model_settings = {name: getattr(args, name) for name in ("cls_arch", "hidden", "dropout")}
    model = utils.ResNet34(**model_settings)
    if args.checkpoint:
        utils.load_weights(model, args.checkpoint)
    else:
        utils.load_backbone(model, args.weights)
    utils.freeze(model, args.transfer_learning, args.finetune)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = utils.build_optimizer(args, model.parameters())
    epoch = epoch_order(train, table["target"].to_numpy()[train], 0, args.oversample)
    scheduler = utils.build_scheduler(args, optimizer, len(batch_indices(epoch, args.batch_size)))
    trainer = engine.Trainer(model, optimizer, scheduler, utils.EarlyStopping(args.patience), given, amp)
    return engine.fit(trainer, bodies.to(device), table, split, args.run, args, engine.provenance(args, model_settings))


if __name__ == "__main__":
    run_script(get_args_parser, main)
