"""`benchmark.py train` and `predict`: the network's paths against their own ceiling and against a plain loop."""
import contextlib
import io
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import nn

import utils
from benchmarks.measuring import in_new_process, peak_memory
from common import arguments
from common.arguments import pick
from common.files import progress, write_csv
from common.manifest import VIEWS, read_manifest
from common.run_files import run_file
from dataset import Bodies, NetworkInput
from evaluation.metrics import delong
from inference import prediction
from training.batches import RunBatches, batch_indices
from training.device import autocast, choose_amp, choose_device, set_threads
from training.engine import evaluate, train_one_epoch
from training.images import Cohort, SplitImages
from training.objectives import Binary
from training.runs import start_model
from training.state import TrainState

BODY = (310, 160)  # pixels, the largest; the smallest is 20 less each way
SQUARE = 310  # LARS's frame, pixels
FRAMES = {"310 x 310": ("--image_size", str(SQUARE)), "auto": ("--image_size", "auto")}
MODELS = 10
LOADERS = 2  # worker processes of the plain loop
NORM = (1.5, 1.0)  # mean and standard deviation, SUV


def start(args):
    """-> (device, amp, a line that says what is measured on)."""
    set_threads(args.threads)
    device = choose_device(args.device)
    amp = choose_amp(args.amp, device)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.cpu.get_capabilities()["architecture"]
    return device, amp, f"{device} ({kind}), {precision(amp)}, {torch.get_num_threads()} threads"


def precision(amp):
    return str(amp or torch.float32).removeprefix("torch.")


def in_turn(paths, repeats, device):
    """Time the functions of a dict, each `repeats` times, in turn, so that a busy moment meets all -> fastest, s."""
    taken = {name: [] for name in paths}
    for path in paths.values():
        path()  # the first time is another one: caches, threads, worker processes
    with progress(range(repeats), "measuring", "round") as bar:
        for _ in bar:
            for name, path in paths.items():
                synchronize(device)
                begin = time.perf_counter()
                path()
                synchronize(device)
                taken[name].append(time.perf_counter() - begin)
    return {name: min(times) for name, times in taken.items()}


def synchronize(device):
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


# ---------------------------------------------------------------- training

def train(args, folder):
    """Print images/s of the training paths and their ratios.

    Args:
        args: device, threads, amp, batch_sizes, n_images, frozen_images, repeats.
        folder (Path): for temporary files.
    """
    device, amp, machine = start(args)
    other = None if amp else torch.bfloat16
    for batch_size in args.batch_sizes:
        n = max(2, round(args.n_images / batch_size)) * batch_size  # whole batches, alike for all
        images = folder / str(batch_size)
        table = write_images(images, n, ("train",) * (n - 4) + ("val",) * 4)
        paths, others = {}, {}
        for name, options in FRAMES.items():
            given = training_args(args, images, *options, "--batch_size", str(batch_size))
            cohort = quietly(Cohort, read_manifest(given.data, (0,)), given.data, images, [0], device)
            data = quietly(cohort.split_images, 0, arguments.image_size(given.image_size),
                           **pick(given, "margin", "pool", "crop_bodies", "norm"))
            data.train = np.arange(n)  # all of them, as the plain loop's
            path = TrainingPath(given, data, device, amp)
            paths[name, "real path"], paths[name, "its ceiling"] = path.real, path.ceiling
            others[name, other] = TrainingPath(given, data, device, other).ceiling
        loop = PlainLoop(images, table, batch_size, device)
        others["plain loop"], others["evaluation of the training set"] = loop.train, loop.evaluate
        taken = in_turn(paths | others, args.repeats, device)
        plain = taken["plain loop"]
        lars = plain + taken["evaluation of the training set"]
        print(f"training, batch {batch_size}, {n} images: {machine}, fastest of {args.repeats}")
        for name in FRAMES:
            real, ceiling = taken[name, "real path"], taken[name, "its ceiling"]
            print(f"  {name:10} {n / real:8.1f} images/s   ceiling {n / ceiling:8.1f}   real/ceiling "
                  f"{ceiling / real:.2f}   real/plain loop {plain / real:.2f}   real/LARS's epoch {lars / real:.2f}   "
                  f"ceiling/in {precision(other)} {taken[name, other] / ceiling:.2f}")
        print(f"  plain loop {n / plain:8.1f} images/s   LARS's epoch {n / lars:8.1f}", flush=True)
    frozen(args, device, amp, machine)


def training_args(args, folder, *options):
    """What train.py would be given, for random weights."""
    parser = arguments.training_parser("")
    return parser.parse_args(["--data", str(folder / "data.csv"), "--weights", "none", "--device", args.device, "--amp",
                              args.amp, "--norm", "thesis", *options])


class TrainingPath:
    """One model, trained by this project, or on tensors of the same shape that lie in memory: the ceiling."""

    def __init__(self, args, images, device, amp, cache=None):
        self.model = start_model(utils.ResNet34(), device, images.network_input,
                                 **pick(args, "transfer_learning", "finetune"))
        self.objective = Binary(images.table, images.train, device)
        self.optimizer = utils.build_optimizer(self.model.parameters(), **pick(args, "optimizer", "lr", "wd",
                                                                               "momentum"))
        schedule = utils.Schedule(self.optimizer, 1, args.nepochs)
        self.state = TrainState(self.model, self.optimizer, schedule, utils.EarlyStopping(), images.network_input, amp)
        self.batches = RunBatches(images, self.model, self.objective.y_true, (0, 0, 1), amp,
                                  **pick(args, "batch_size", "cached_placements"))
        self.images, self.device, self.amp = images, device, amp

    def real(self):
        train_one_epoch(self.model, self.objective, self.optimizer, self.batches.training(self.state.epoch), self.state)
        self.state.epoch, self.state.batches, self.state.outputs = self.state.epoch + 1, 0, None

    def epoch(self):
        """A whole one, with validation."""
        train = train_one_epoch(self.model, self.objective, self.optimizer, self.batches.training(self.state.epoch),
                                self.state)
        validation = evaluate(self.model, self.batches.validation(), self.amp)
        self.state.end_epoch(self.objective, train, validation)

    def ceiling(self):
        self.model.train()
        train, frame = self.images.train, self.images.network_input.frame
        if not hasattr(self, "tensors"):
            parts = batch_indices(len(train), self.batches.source.batch_size)
            self.tensors = [torch.randn(len(part), 1, *frame, device=self.device).to(memory_format=torch.channels_last)
                            for part in parts]
        done = 0
        for x in self.tensors:
            self.optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, self.amp):
                output = self.model(x)
            self.objective.loss(output.float(), train[done:done + len(x)]).mean().backward()
            self.optimizer.step()
            done += len(x)


def frozen(args, device, amp, machine):
    """Print what an epoch with cached frozen layers costs against the same epoch without."""
    n, n_val = args.frozen_images, max(4, args.frozen_images // 5)
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.uniform(0.4, 5, (n + n_val, *BODY)).astype("float32"))
    bodies = Bodies(pixels, torch.tensor([BODY] * len(pixels)), [str(i) for i in range(len(pixels))])
    table = pd.DataFrame({"scan_id": bodies.names, "filename": bodies.names, "view": VIEWS[0],
                          "target": np.arange(len(pixels)) % 2, "split0": ["train"] * n + ["val"] * n_val})
    frame = tuple(-(-side // 32) * 32 for side in BODY)
    images = SplitImages(0, table, bodies.to(device), np.arange(n), np.arange(n, n + n_val), NetworkInput(frame, NORM),
                         "")
    for option in ("--transfer_learning", "--finetune"):
        taken = {}
        for cached in ("0", "1"):
            given = training_args(args, Path(), option, "--cached_placements", cached)
            path = TrainingPath(given, images, device, amp)
            for _ in range(2 if cached == "1" else 1):  # the first one fills the cache
                begin = time.perf_counter()
                path.epoch()
                synchronize(device)
                taken[cached] = time.perf_counter() - begin
        print(f"{option}, {n} training and {n_val} validation images, auto, batch {given.batch_size}: an epoch "
              f"{taken['0']:.2f} s uncached, {taken['1']:.3f} s cached: {taken['0'] / taken['1']:.1f} times; {machine}",
              flush=True)


# ---------------------------------------------------------------- prediction

def predict(args, folder):
    """Print what predicting with ten models costs against ten plain loops, memory, and bfloat16 against float32.

    Args:
        args: device, threads, amp, n_images, scans, repeats, chptfolder, data, images.
        folder (Path): for temporary files.
    """
    device, amp, machine = start(args)
    table = write_images(folder, args.n_images, ("test",) * args.n_images)
    paths = {}
    for name in FRAMES:
        frame = (SQUARE, SQUARE) if name != "auto" else tuple(-(-side // 32) * 32 for side in BODY)
        write_models(folder / name, frame)
        given = prediction_args(args, folder, "--chptfolder", str(folder / name))
        paths[name] = lambda given=given: quietly(predict_binary, given)
    paths["plain loop"] = PlainLoop(folder, table, 50, device).evaluate
    taken = in_turn(paths, args.repeats, device)
    n = args.n_images
    print(f"prediction, {n} images, {MODELS} models, reading and writing included: {machine}, "
          f"fastest of {args.repeats}")
    for name in FRAMES:
        print(f"  {name:10} {MODELS * n / taken[name]:8.1f} images/s a model   {MODELS} models / {MODELS} plain loops "
              f"{MODELS * taken['plain loop'] / taken[name]:.2f}")
    print(f"  plain loop {n / taken['plain loop']:8.1f} images/s", flush=True)
    write_images(folder / "many", 2 * args.scans, ("test",) * args.scans + ("val",) * args.scans)
    given = prediction_args(args, folder / "many", "--chptfolder", str(folder / "auto"), "--splits", "0", "1")
    peak = in_new_process(peak_of_predicting, given)
    array = 2 * args.scans * BODY[0] * BODY[1] * 4 / 1e9
    print(f"memory for {args.scans} scans of two views: {peak:.2f} GB at most, the interpreter and PyTorch included; "
          f"their array {array:.2f} GB; difference {peak - array:.2f} GB", flush=True)
    if args.chptfolder:
        precisions(args, folder)
    else:
        print("bfloat16 against float32: give --chptfolder and --data of trained models")


def prediction_args(args, folder, *options):
    """What predict.py would be given."""
    parser = arguments.Parser("")
    arguments.add_prediction_arguments(parser)
    arguments.add_data_arguments(parser)
    arguments.add_device_arguments(parser)
    return parser.parse_args(["--data", str(folder / "data.csv"), "--output", str(folder / "predictions"), "--device",
                              args.device, "--amp", args.amp, "--splits", "0", str(MODELS - 1), *options])


def predict_binary(args):
    """As predict.py does."""
    runs, _ = prediction.find_runs(args.chptfolder, args.splits, args.run)
    table = read_manifest(args.data, prediction.splits_of(runs), need_target=False)
    table = prediction.asked_rows(table, args.data, args.set, runs)
    device = choose_device(args.device)
    for model in prediction.open_models(runs, table, args.chptfolder, args.data, arguments.images_folder(args),
                                        args.set, device, choose_amp(args.amp, device), args.batch_size):
        prediction.write_predictions(model, model.outputs(), args.set, args.output, not args.no_features)


def quietly(function, *args, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*args, **options)


def peak_of_predicting(given):
    """In a process of its own: the most memory that it ever held, GB."""
    quietly(predict_binary, given)
    return peak_memory() / 1000


def write_models(folder, frame):
    """Checkpoints of random models for splits 0 to MODELS - 1, and best_run.csv."""
    for split in range(MODELS):
        torch.manual_seed(split)
        state = {"epoch": 1, "state_dict": utils.ResNet34().state_dict(), "auc": np.float64(0.5),
                 "input": vars(NetworkInput(frame, NORM, views=tuple(VIEWS)))}
        utils.save_checkpoint(run_file(folder, "checkpoint", split, 1), state)
    write_csv(pd.DataFrame({"split": range(MODELS), "run": 1, "epoch": 1, "metric": "auc", "value": 0.5,
                            "rank": range(1, MODELS + 1)}), folder / "best_run.csv")


def precisions(args, folder):
    """Print the probabilities of --chptfolder's models on the test set of --data, bfloat16 against float32."""
    options = ["--data", args.data, "--chptfolder", args.chptfolder, "--splits", "0", "999", "--no_features"]
    options += ["--images", args.images] if args.images else []
    rows = {}
    for amp in ("bf16", "off"):
        given = prediction_args(args, folder, *options, "--amp", amp, "--output", str(folder / amp))
        quietly(predict_binary, given)
        for path in sorted((folder / amp).glob("pred_*.csv")):
            rows.setdefault(path.stem, []).append(pd.read_csv(path))
    print(f"{'probabilities':22}{'views':>7}{'largest difference':>20}{'mean':>9}{'AUC bf16':>10}{'AUC fp32':>10}")
    for name, (bf16, fp32) in rows.items():
        difference = (bf16["probs"] - fp32["probs"]).abs()
        aucs = [delong(each["target"].to_numpy(), each["probs"])[0] for each in (bf16, fp32)]
        print(f"{name:22}{len(difference):7}{difference.max():20.4f}{difference.mean():9.4f}{aucs[0]:10.4f}"
              f"{aucs[1]:10.4f}")


# ---------------------------------------------------------------- the plain loop

class PlainLoop:
    """As such scripts are written: a file read per image and epoch in worker processes, float32, 310 x 310."""

    def __init__(self, folder, table, batch_size, device):
        self.device, dataset = device, PlainDataset(folder, table)
        self.loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, num_workers=LOADERS,
                                                  persistent_workers=True, pin_memory=device.type == "cuda")
        self.model = torchvision.models.resnet34(weights=None, num_classes=2)
        self.model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.model.to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.001, 0.9, weight_decay=1e-4, nesterov=True)
        self.criterion = nn.BCEWithLogitsLoss()

    def train(self):
        self.model.train()
        for x, y in self.loader:
            loss = self.criterion(self.model(x.to(self.device)), nn.functional.one_hot(y, 2).float().to(self.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()

    def evaluate(self):
        self.model.eval()
        with torch.no_grad():
            return torch.cat([self.model(x.to(self.device)).softmax(1)[:, 1].cpu() for x, _ in self.loader])


class PlainDataset(torch.utils.data.Dataset):
    """File -> crop to the body, into the middle of the frame, normalized."""

    def __init__(self, folder, table):
        self.rows = [(Path(folder) / row.filename, (row.matrix_size_1, row.matrix_size_2), row.target)
                     for row in table.itertuples()]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        path, shape, target = self.rows[i]
        image = np.fromfile(path, "<f4").reshape(shape)
        rows, columns = (np.flatnonzero((image > 0.3).any(axis)) for axis in (1, 0))
        body = image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
        frame = np.zeros((1, SQUARE, SQUARE), "float32")
        top, left = (SQUARE - body.shape[0]) // 2, (SQUARE - body.shape[1]) // 2
        frame[0, top:top + body.shape[0], left:left + body.shape[1]] = body
        return torch.from_numpy((frame.clip(0, 30) - NORM[0]) / np.float32(NORM[1])), target


def write_images(folder, n, sets):
    """n random bodies in frames of air as .bin files, and data.csv with their sets in every split -> its table."""
    rng = np.random.default_rng(0)
    (folder / "mips").mkdir(parents=True)
    noise = rng.uniform(0.4, 5, (2 * BODY[0], 2 * BODY[1])).astype("<f4")
    rows = []
    with progress(range(n), "writing images", "image") as bar:
        for i in bar:
            size = BODY if i == 0 else [side - int(rng.integers(21)) for side in BODY]
            row, column = (int(rng.integers(side)) for side in BODY)
            image = np.pad(noise[row:row + size[0], column:column + size[1]], 5)
            name = f"mips/{i // 2:05d}_{VIEWS[i % 2]}.bin"
            image.tofile(folder / name)
            rows.append({"scan_id": i // 2, "filename": name, "target": i // 2 % 2, "matrix_size_1": image.shape[0],
                         "matrix_size_2": image.shape[1]} | {f"split{s}": sets[i] for s in range(MODELS)})
    table = pd.DataFrame(rows)
    write_csv(table, folder / "data.csv")
    return table
