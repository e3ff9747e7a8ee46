"""`benchmark.py train` and `predict`: the network's paths against their own ceiling and against a plain loop."""
import contextlib
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import utils
from benchmarks.measuring import in_new_process, peak_memory
from benchmarks.plain_loop import NORM, SQUARE, PlainLoop
from common import files, manifest, run_files
from common.text import counted
from dataset import Bodies, NetworkInput, read_bodies
from evaluation.metrics import delong
from inference import prediction
from training import engine, objectives, runs
from training.batches import RunBatches, batch_indices
from training.device import autocast, open_device, precision_name
from training.images import SplitImages
from training.state import TrainState

BODY = (310, 160)  # pixels, the largest; the smallest is 20 less each way
FRAMES = {"310 x 310": (SQUARE, SQUARE), "auto": (320, 160)}  # auto: what --image_size auto chooses for BODY
MODELS, SCANS = 10, 3000
BATCH = 50  # images, where nothing else is asked for


def train(folder: Path, batch_sizes: Sequence[int], n_images: int, frozen_images: int, scans: int | None, repeats: int,
          device: str, amp: str, threads: int | None) -> None:
    """Print images/s of the training paths and their ratios.

    Parameters
    ----------
    folder : Path
        For temporary files.
    batch_sizes : sequence of int
        Images a step.
    n_images, frozen_images : int
        Images of a round, and of an epoch with frozen layers.
    scans : int or None
        Of an epoch with all layers; None: SCANS, but none on a CPU, where they take minutes.
    repeats : int
        Rounds; the fastest counts.
    device, amp, threads
        Arguments of train.py.
    """
    device, amp, machine = start(device, amp, threads)
    other = None if amp else torch.bfloat16
    for batch_size in batch_sizes:
        n = max(2, round(n_images / batch_size)) * batch_size  # whole batches, alike for all
        images = folder / str(batch_size)
        table = write_images(images, n)
        bodies, loop = read_bodies(table, images), PlainLoop(images, table, batch_size, device)
        paths = {"plain loop": loop.train, "evaluation of the training set": loop.evaluate}
        for name, frame in FRAMES.items():
            own = training_paths(table, bodies, n, frame, device, amp, batch_size)
            paths |= {(name, kind): own[kind] for kind in ("real path", "its ceiling")}
            paths[name, other] = training_paths(table, bodies, n, frame, device, other, batch_size)["its ceiling"]
        taken = _in_turn(paths, repeats, device)
        plain = taken["plain loop"]
        lars = plain + taken["evaluation of the training set"]
        print(f"training, batch {batch_size}, {counted(n, 'image')}: {machine}, fastest of {repeats}")
        for name in FRAMES:
            real, ceiling = taken[name, "real path"], taken[name, "its ceiling"]
            print(f"  {name:10} {n / real:8.1f} images/s   ceiling {n / ceiling:8.1f}   real/ceiling "
                  f"{ceiling / real:.2f}   real/plain loop {plain / real:.2f}   real/LARS's epoch {lars / real:.2f}   "
                  f"ceiling/in {precision_name(other)} {taken[name, other] / ceiling:.2f}")
        print(f"  plain loop {n / plain:8.1f} images/s   LARS's epoch {n / lars:8.1f}", flush=True)
    _frozen(frozen_images, device, amp, machine)
    if scans or device.type != "cpu":
        _whole_epoch(scans or SCANS, device, amp, machine)


def predict(folder: Path, scans: int | None, chptfolder: str | None, data: str, images: str, n_images: int,
            repeats: int, device: str, amp: str, threads: int | None) -> None:
    """Print what predicting with ten models costs against ten plain loops, memory, and bfloat16 against float32.

    Parameters
    ----------
    folder : Path
        For temporary files.
    scans : int or None
        Of which seconds and memory are measured, with all models, but with two on a CPU; None: SCANS.
    chptfolder, data, images : str
        Trained models whose bfloat16 predictions are compared, if any, their manifest and its images.
    n_images : int
        Images of a round.
    repeats : int
        Rounds; the fastest counts.
    device, amp, threads
        Arguments of predict.py.
    """
    device, amp, machine = start(device, amp, threads)
    table = write_images(folder, n_images, n_images)
    paths = {"plain loop": PlainLoop(folder, table, BATCH, device).evaluate}
    for name, frame in FRAMES.items():
        _write_models(folder / name, frame)
        paths[name] = lambda models=folder / name: _predict(models, folder / "data.csv", folder, folder / "predictions",
                                                            MODELS, device, amp)
    taken = _in_turn(paths, repeats, device)
    print(f"prediction, {counted(n_images, 'image')}, {MODELS} models, with reading and writing: {machine}, fastest "
          f"of {repeats}")
    for name in FRAMES:
        print(f"  {name:10} {MODELS * n_images / taken[name]:8.1f} images/s a model   {MODELS} models / {MODELS} plain "
              f"loops {MODELS * taken['plain loop'] / taken[name]:.2f}")
    print(f"  plain loop {n_images / taken['plain loop']:8.1f} images/s", flush=True)
    _many_scans(folder, scans or SCANS, device, amp)
    if chptfolder:
        _compare_precisions(chptfolder, data, images, folder, device)
    else:
        print("bfloat16 against float32: give --chptfolder and --data of trained models")


# ---------------------------------------------------------------- measuring

def start(device: str, amp: str, threads: int | None) -> tuple[torch.device, torch.dtype | None, str]:
    """Arguments of train.py -> device, precision, and a line that says what is measured on."""
    device, amp = open_device(device, amp, threads)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.cpu.get_capabilities()["architecture"]
    return device, amp, f"{device} ({kind}), {precision_name(amp)}, {counted(torch.get_num_threads(), 'thread')}"


def _in_turn(paths, repeats, device):
    """Time the functions of a dict, each `repeats` times, in turn, so that a busy moment meets all -> fastest, s."""
    taken = {name: [] for name in paths}
    synchronize = torch.cpu.synchronize if device.type == "cpu" else torch.accelerator.synchronize
    for path in paths.values():
        path()  # the first time is another one: caches, threads, worker processes
    with files.progress(range(repeats), "measuring", "round") as bar:
        for _ in bar:
            for name, path in paths.items():
                synchronize(device)
                begin = time.perf_counter()
                path()
                synchronize(device)
                taken[name].append(time.perf_counter() - begin)
    return {name: min(times) for name, times in taken.items()}


# ---------------------------------------------------------------- training

def training_paths(table: pd.DataFrame, bodies: Bodies, n: int, frame: tuple[int, int], device: torch.device,
                   amp: torch.dtype | None, batch_size: int, cached: int = 1, **freezing: bool) -> dict[str, Callable]:
    """One model, trained by this project, or on tensors of the same shape that lie in memory.

    Parameters
    ----------
    table : DataFrame
        Rows of a manifest; `bodies`: their images.
    n : int
        The first n are trained, the others validate.
    frame : (rows, columns)
    device, amp
        From `open_device`.
    batch_size, cached, transfer_learning, finetune
        Arguments of train.py (cached: --cached_placements).

    Returns
    -------
    dict
        "real path": a pass over the training images; "its ceiling": as many steps on the tensors; "epoch": a pass with
        validation.
    """
    given = NetworkInput(frame, NORM)
    images = SplitImages(0, table, bodies.to(device), np.arange(n), np.arange(n, len(table)), given, "")
    model = runs.start_model(utils.ResNet34(), device, given, **freezing)
    objective, optimizer = objectives.Binary(table, images.train, device), utils.build_optimizer(model.parameters())
    state = TrainState(model, optimizer, utils.Schedule(optimizer, 1, 40), utils.EarlyStopping(), given, amp)
    batches = RunBatches(images, model, objective.y_true, (0, 0, 1), amp, batch_size, cached_placements=cached)
    parts = batch_indices(n, batch_size)
    tensors = [torch.randn(len(part), 1, *frame, device=device).to(memory_format=torch.channels_last) for part in parts]

    def real():
        outputs = engine.train_one_epoch(model, objective, optimizer, batches.training(state.epoch), state)
        state.epoch, state.batches, state.outputs = state.epoch + 1, 0, None
        return outputs

    def epoch():
        state.end_epoch(objective, real(), engine.evaluate(model, batches.validation(), amp))

    def ceiling():
        model.train()
        for part, x in zip(parts, tensors, strict=True):
            optimizer.zero_grad(set_to_none=True)
            with autocast(x, amp):
                output = model(x)
            objective.loss(output.float(), part).mean().backward()
            optimizer.step()

    return {"real path": real, "its ceiling": ceiling, "epoch": epoch}


def _random_cohort(n):
    """n training images of random pixels in memory, and a fifth as many to validate -> (their table, Bodies)."""
    total, rng = n + max(4, n // 5), np.random.default_rng(0)
    pixels = torch.from_numpy(rng.uniform(0.4, 5, (total, *BODY)).astype("float32"))
    bodies = Bodies(pixels, torch.tensor([BODY] * total), [str(i) for i in range(total)])
    return pd.DataFrame({"scan_id": bodies.names, "target": np.arange(total) % 2}), bodies


def _frozen(n, device, amp, machine):
    """Print what an epoch with cached frozen layers costs against the same epoch without."""
    table, bodies = _random_cohort(n)
    for option in ("transfer_learning", "finetune"):
        epochs = {cached: training_paths(table, bodies, n, FRAMES["auto"], device, amp, BATCH, cached,
                                         **{option: True})["epoch"] for cached in (0, 1)}
        taken = _in_turn(epochs, 1, device)  # before what it times, it fills the cache
        print(f"--{option}, {n} training and {counted(len(table) - n, 'validation image')}, auto, batch {BATCH}: an "
              f"epoch {taken[0]:.2f} s uncached, {taken[1]:.3f} s cached: {taken[0] / taken[1]:.1f} times; {machine}")


def _whole_epoch(scans, device, amp, machine):
    """Print what an epoch of so many scans of two views costs, validation included."""
    n = 2 * scans
    table, bodies = _random_cohort(n)
    paths = training_paths(table, bodies, n, FRAMES["auto"], device, amp, BATCH)
    taken = _in_turn({"epoch": paths["epoch"]}, 1, device)["epoch"]
    print(f"an epoch of {counted(scans, 'scan')} of two views, validated on {counted(len(table) - n, 'image')}, auto, "
          f"batch {BATCH}: {taken:.1f} s{_gpu_memory(device)}; {machine}", flush=True)


# ---------------------------------------------------------------- prediction

def _predict(chptfolder, data, images, output, splits, device, amp, features=True):
    """As predict.py does, with the models of the first splits."""
    with contextlib.redirect_stdout(io.StringIO()):
        found, _ = prediction.find_runs(chptfolder, range(splits))
        table = manifest.read_manifest(data, prediction.splits_of(found, ["test"]), need_target=False)
        table = prediction.asked_rows(table, data, ["test"], found)
        for model in prediction.open_models(found, table, chptfolder, data, images, ["test"], device, amp, BATCH):
            prediction.write_predictions(model, model.outputs(), ["test"], output, features)


def _many_scans(folder, scans, device, amp):
    """Print seconds and memory of predicting so many scans of two views, in a process of its own."""
    many, models = folder / "many", MODELS if device.type != "cpu" else 2
    write_images(many, 2 * scans, 2 * scans)
    taken, peak, gpu = in_new_process(_measured, folder / "auto", many / "data.csv", many, many, models, device, amp)
    array = 2 * scans * BODY[0] * BODY[1] * 4 / 1e9
    print(f"{counted(models, 'model')} over {counted(scans, 'scan')} of two views: {taken:.1f} s{gpu}; {peak:.2f} GB "
          f"of the host at most, interpreter and PyTorch included, {peak - array:.2f} GB above the array of "
          f"{array:.2f} GB", flush=True)


def _measured(*args):
    """`_predict` in a process of its own: seconds, the most memory that it ever held, GB, and the GPU's, as text."""
    device = args[5]
    torch.empty(1, device=device)  # a GPU's start is no prediction
    begin = time.perf_counter()
    _predict(*args)
    return time.perf_counter() - begin, peak_memory() / 1000, _gpu_memory(device)


def _gpu_memory(device):
    return f", {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB of the GPU at most" * (device.type == "cuda")


def _write_models(folder, frame):
    """Checkpoints of random models for splits 0 to MODELS - 1, and best_run.csv."""
    for split in range(MODELS):
        torch.manual_seed(split)
        state = {"epoch": 1, "state_dict": utils.ResNet34().state_dict(), "auc": np.float64(0.5),
                 "input": vars(NetworkInput(frame, NORM, views=tuple(manifest.VIEWS)))}
        utils.save_checkpoint(run_files.run_file(folder, "checkpoint", split, 1), state)
    files.write_csv(pd.DataFrame({"split": range(MODELS), "run": 1, "epoch": 1, "metric": "auc", "value": 0.5,
                                  "rank": range(1, MODELS + 1)}), folder / "best_run.csv")


def _compare_precisions(chptfolder, data, images, folder, device):
    """Print the probabilities of --chptfolder's models on the test set of --data, bfloat16 against float32."""
    rows = {}
    for amp in (torch.bfloat16, None):
        output = folder / precision_name(amp)
        _predict(chptfolder, data, images, output, 1000, device, amp, features=False)
        for path in sorted(output.glob("pred_*.csv")):
            rows.setdefault(path.stem, []).append(pd.read_csv(path))
    print(f"{'probabilities':22}{'views':>7}{'largest difference':>20}{'mean':>9}{'AUC bf16':>10}{'AUC fp32':>10}")
    for name, (bf16, fp32) in rows.items():
        apart = (bf16["probs"] - fp32["probs"]).abs()
        aucs = [delong(each["target"].to_numpy(), each["probs"])[0] for each in (bf16, fp32)]
        print(f"{name:22}{len(apart):7}{apart.max():20.4f}{apart.mean():9.4f}{aucs[0]:10.4f}{aucs[1]:10.4f}")


# ---------------------------------------------------------------- images

def write_images(folder: Path, n: int, n_test: int = 0) -> pd.DataFrame:
    """n random bodies in frames of air as .bin files, and data.csv, whose first n_test rows are test -> its table."""
    rng = np.random.default_rng(0)
    (folder / "mips").mkdir(parents=True)
    noise = rng.uniform(0.4, 5, (2 * BODY[0], 2 * BODY[1])).astype("<f4")
    rows = []
    with files.progress(range(n), "writing images", "image") as bar:
        for i in bar:
            size = BODY if i == 0 else [side - int(rng.integers(21)) for side in BODY]
            row, column = (int(rng.integers(side)) for side in BODY)
            image = np.pad(noise[row:row + size[0], column:column + size[1]], 5)
            name = f"mips/{i // 2:05d}_{manifest.VIEWS[i % 2]}.bin"
            image.tofile(folder / name)
            rows.append({"scan_id": i // 2, "filename": name, "target": i // 2 % 2, "matrix_size_1": image.shape[0],
                         "matrix_size_2": image.shape[1]} | dict.fromkeys(
                             (f"split{s}" for s in range(MODELS)), "test" if i < n_test else "val"))
    table = pd.DataFrame(rows)
    files.write_csv(table, folder / "data.csv")
    return table
