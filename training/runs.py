"""From the arguments of train.py or train_loca.py to trained runs: every split and run, one after another."""
import sys
import time

import numpy as np
import torch

import utils
from common import arguments, params
from common.files import InputError
from common.manifest import check_classes, is_synthetic, report_views, views_of
from common.run_files import run_file
from dataset import NORMS, NetworkInput, choose_frame, data_hash, fit_bodies, norm_constants, read_bodies
from training import distributed, engine
from training.batches import Features, Images, batch_indices, epoch_order, step_seed
from training.device import choose_amp, choose_device, set_threads
from training.recorder import MAY_CHANGE, Recorder, plain, provenance


def train_all(args, read_table, build_model, build_task):
    """Train --run of every --split_index; finished runs are left alone.

    Args:
        read_table: (args, splits) -> the manifest, checked.
        build_model: args -> (random network, its settings as a dict).
        build_task: (args, table, train, device) -> what is learned, such as objectives.Binary.

    Returns:
        int or None: the exit code.
    """
    of_split = {split: params.for_split(args, split, say) for split in args.split_index}
    set_threads(args.threads)
    device = distributed.start(choose_device(args.device))
    amp = choose_amp(args.amp, device)
    for each in of_split.values():
        arguments.image_size(each.image_size)
        if each.batch_size < distributed.world():
            raise InputError(f"--batch_size {each.batch_size}: no image for some of the "
                             f"{distributed.world()} processes")
    asked = [(split, run) for split in args.split_index for run in args.run]
    results = {pair: distributed.from_main(find_result(of_split[pair[0]], *pair)) for pair in asked}
    splits = sorted({split for (split, run), result in results.items() if result is None})
    if splits:
        cohort = Cohort(args, read_table, splits, device, amp)
        for split in splits:
            data = cohort.split(of_split[split], split)
            for run in [run for (s, run), result in results.items() if s == split and result is None]:
                results[split, run] = train_run(of_split[split], data, run, amp, build_model, build_task,
                                                len(asked) > 1)
    print_summary(args, results)
    distributed.stop()
    failed = sum(result.get("failed", False) for result in results.values())
    return arguments.EXIT_SOME_FAILED if failed else None


def say(text):
    if distributed.is_main():
        print(text, flush=True)


def find_result(args, split, run):
    """The result of a finished run, None for one to be trained; refuses to overwrite or to mix up runs unasked."""
    done, last = (run_file(args.output, kind, split, run) for kind in ("checkpoint", "last"))
    if not distributed.is_main():
        return None
    if args.overwrite:
        return None
    if last.exists() or not done.exists():
        if last.exists() and not (args.resume or args.force_resume):
            raise InputError(f"{last} exists: --resume goes on with it, --overwrite trains it again, or give another "
                             "--run")
        return None
    content = utils.read_checkpoint(done)
    now = plain(vars(args))
    differing = [f"--{name} ({value}, now {now[name]})" for name, value in content.get("args", {}).items()
                 if name in now and name not in MAY_CHANGE and value != now[name]]
    if differing or "args" not in content:
        raise InputError(f"{done} exists, trained with other values of {', '.join(differing) or 'its arguments'}: "
                         "--overwrite trains it again, or give another --run or --output")
    return {"epochs": "", "best_epoch": content["epoch"], "auc": float(content["auc"]), "seconds": "",
            "ended": "finished before"}


class Cohort:
    """The manifest and the images of several splits' training and validation sets, each image read once.

    Test rows are dropped before an image is read.
    """

    def __init__(self, args, read_table, splits, device, amp):
        table = read_table(args, splits)
        for split in splits:
            check_classes(args.data, table, split)
        used = (table[[f"split{split}" for split in splits]] != "test").any(axis=1)
        self.table, self.device = table[used].reset_index(drop=True), device
        self.folder, self.pool, self.bodies = arguments.images_folder(args), None, None
        say(report_views(self.table) or f"{self.table['scan_id'].nunique()} scans, {len(self.table)} images")
        say(f"device {device}, {str(amp or torch.float32).removeprefix('torch.')}"
            + f", {distributed.world()} processes" * (distributed.world() > 1))

    def split(self, args, split):
        """The Split of a number; reads the images, should they not be there with this --pool."""
        if self.pool != args.pool:
            self.bodies, self.pool = None, args.pool
            self.bodies = read_bodies(self.table, self.folder, args.pool)
        mine = np.flatnonzero(self.table[f"split{split}"] != "test")
        return Split(args, self.table.iloc[mine].reset_index(drop=True), self.bodies.subset(mine), split,
                     arguments.image_size(args.image_size), self.device)


class Split:
    """One split's images, frame and normalization, for any number of runs.

    Attributes:
        table (DataFrame): training and validation rows, in the order of `bodies`.
        bodies (dataset.Bodies): on the device, cut to the frame where --crop_bodies says so.
        sets (dict): "train" and "val", int arrays of images.
        given (NetworkInput): frame and normalization.
        hash (str): dataset.data_hash.
    """

    def __init__(self, args, table, bodies, split, size, device):
        self.table, self.split, self.device = table, split, device
        self.sets = {name: np.flatnonzero(table[f"split{split}"] == name) for name in ("train", "val")}
        frame = choose_frame(size, bodies, self.sets["train"], args.margin)
        bodies = fit_bodies(bodies, frame, args.crop_bodies)
        norm = NORMS.get(args.norm) or norm_constants(bodies, self.sets["train"])
        spacing = float(table["spacing_mm"].iloc[0]) if "spacing_mm" in table else None
        self.given = NetworkInput(frame, norm, args.pool, spacing, args.crop_bodies, views_of(table))
        self.hash = data_hash(bodies, table, split)
        self.bodies = bodies.to(device)
        if min(map(len, self.sets.values())) < distributed.world():
            raise InputError(f"{args.data}: split{split} has fewer training or validation images than there are "
                             f"processes ({distributed.world()}); start fewer")
        say(f"split {split}: {len(self.sets['train'])} training and {len(self.sets['val'])} validation images, frame "
            f"{frame[0]} x {frame[1]}, mean {norm[0]:.4f} and standard deviation {norm[1]:.4f} SUV")


def train_run(args, data, run, amp, build_model, build_task, several):
    """Train or go on with one run -> dict of its row in the summary; a failure among several runs is such a row too."""
    start = time.monotonic()
    try:
        torch.manual_seed(step_seed((args.seed, data.split), run))
        model, settings = build_model(args)
        trainer, feed, task = prepare(args, data, amp, model, build_task)
        recorder = Recorder(args, data.split, run,
                                   provenance(args, settings, data.device, amp, data.hash)
                                   | {"synthetic": bool(is_synthetic(data.table).any())})
        if distributed.from_main(not args.overwrite and recorder.files["last"].exists()):
            position = recorder.restore(trainer)
            distributed.wait()
        else:
            position = engine.Position()
            recorder.save(position, trainer)
        ended = engine.fit(trainer, feed, task, data.sets, args, (args.seed, data.split, run), recorder, position)
    except InputError as error:
        if not several:
            raise InputError(f"split {data.split} run {run}: {error}") from None
        if distributed.is_main():
            print(f"error: split {data.split} run {run}: {error}", file=sys.stderr)
        return {"epochs": "", "best_epoch": "", "auc": float("nan"), "seconds": time.monotonic() - start,
                "ended": f"failed: {error}", "failed": True}
    return {"epochs": position.epoch - 1, "best_epoch": position.best["epoch"], "auc": position.best["auc"],
            "seconds": time.monotonic() - start, "ended": ended}


def prepare(args, data, amp, model, build_task, cache=None):
    """The network with its start weights on the device, its optimizer and schedule -> (Trainer, feed, task).

    Args:
        data (Split): the images.
        model (utils.ResNet34): as built.
        cache (feed.FeatureCache): to share between runs on these images that start from the same backbone.
    """
    if args.checkpoint:
        trained, taken = utils.load_weights(model, args.checkpoint)
        say(taken)
        warn_pixel_size(args.checkpoint, trained, data.given)
    else:
        utils.load_backbone(model, args.weights)
    utils.freeze(model, args.transfer_learning, args.finetune)
    distributed.synchronize_batch_norm(model, data.device)
    model.to(data.device, memory_format=torch.channels_last)
    optimizer = utils.build_optimizer(args, model.parameters())
    task = build_task(args, data.table, data.sets["train"], data.device)
    train = data.sets["train"]
    order = epoch_order(train, task.y_true[train], 0, args.oversample)  # for its length
    schedule = utils.Schedule(args, optimizer, len(batch_indices(len(order), args.batch_size)))
    ema = utils.build_ema(model, args.ema) if args.ema else None
    if args.compile:
        model.outputs = torch.compile(model.outputs)
    trainer = engine.Trainer(model, distributed.wrap(model, data.device), optimizer, schedule,
                             utils.EarlyStopping(args.patience), data.given, amp,
                             torch.amp.GradScaler(data.device.type, enabled=amp is torch.float16), ema)
    feed, start = Images(data.bodies, data.given, args.augm), utils.first_trained(model)
    if start and args.cached_placements:
        feed = Features(feed, model, start, args.cached_placements, amp, (args.seed, data.split), cache)
    return trainer, feed, task


def warn_pixel_size(path, trained, given):
    """Say where a checkpoint's input (dict) had other pixels than the run's (NetworkInput), pooling included; mm."""
    if trained.get("spacing_mm") and given.spacing_mm:
        before, now = trained["spacing_mm"] * trained["pool"], given.spacing_mm * given.pool
        if abs(before - now) > 1e-3:
            say(f"warning: {path}: trained on pixels of {before:g} mm, this run has {now:g} mm (spacing_mm x --pool): "
                "bodies have another size than its weights know")


def print_summary(args, results):
    """The runs as a table."""
    say(f"{'split':>5} {'run':>3} {'epochs':>6} {'best':>5} {'val. AUC':>8} {'seconds':>8}  ")
    for (split, run), row in results.items():
        seconds = f"{row['seconds']:.0f}" if row["seconds"] != "" else ""
        say(f"{split:5} {run:3} {row['epochs']:>6} {row['best_epoch']:>5} {row['auc']:8.4f} {seconds:>8}  "
            f"{row['ended']}")
    say(f"checkpoints: {run_file(args.output, 'checkpoint', 'S', 'R')}; find_best_model.py --dir {args.output} "
        "ranks them")

