"""One training epoch, evaluation, and the loop around them with its log, checkpoint and resume."""
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from dataset import batch_indices, epoch_order, eval_batch, train_batch
from files import InputError, progress, write_csv
from manifest import VIEWS
from metrics import delong
from utils import EarlyStopping, read_checkpoint, run_file, save_checkpoint, set_train_mode, step_batch, step_epoch

THRESHOLD = 0.5
RESUME_MAY_CHANGE = ("resume", "overwrite", "output", "data", "images", "split_index", "device", "threads")


@dataclass
class Input:
    """What the network is given; stored in the checkpoint as "input".

    Attributes:
        frame: (rows, columns) in pixels, after pooling.
        norm: (mean, standard deviation), SUV.
        pool: K of the K x K max-pooling of each MIP.
        spacing_mm: pixel spacing of the MIPs before pooling, or None where the manifest does not say.
        crop_bodies: whether bodies larger than the frame are cut to it.
        views: the manifest's views that it was trained on.
    """
    frame: tuple
    norm: tuple
    pool: int = 1
    spacing_mm: float | None = None
    crop_bodies: bool = False
    views: tuple = VIEWS


@dataclass
class Trainer:
    """Everything that training changes, and what it is given. `amp` is torch.bfloat16 or None (float32)."""
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: object
    stopper: EarlyStopping
    given: Input
    amp: torch.dtype | None

    def state_dict(self):
        return {"state_dict": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "lr_scheduler": self.scheduler.state_dict() if self.scheduler else None,
                "early_stopping": self.stopper.state_dict(), "input": asdict(self.given)}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["lr_scheduler"])
        self.stopper.load_state_dict(state["early_stopping"])


# ---------------------------------------------------------------- one pass

def binary_loss(y_true, balance=False):
    """BCE with logits on the one-hot target.

    Args:
        y_true: (n,) int array of 0/1, the training split's.
        balance (bool): weigh each class's positive term by (rows of the other class) / (rows of the class).

    Returns:
        function of ((B, 2) logits, (B,) int64 targets) -> the mean loss.
    """
    counts = np.bincount(y_true, minlength=2)
    weight = torch.tensor(counts[::-1] / counts, dtype=torch.float32) if balance else None

    def loss(logits, target):
        one_hot = nn.functional.one_hot(target, 2).to(logits)
        pos_weight = None if weight is None else weight.to(logits.device)
        return nn.functional.binary_cross_entropy_with_logits(logits, one_hot, pos_weight=pos_weight)

    return loss


def autocast(device, amp):
    """The autocast context of --amp (None: float32)."""
    return torch.autocast(device.type, dtype=amp or torch.bfloat16, enabled=amp is not None)


def train_one_epoch(trainer, bodies, targets, order, loss_function, batch_size, augm, seed):
    """One pass over the images `order` in training mode.

    Args:
        bodies: Bodies on the model's device.
        targets: (N,) int64 tensor on it, of all bodies.
        order: (n,) int array, the epoch's images in their order.
        augm (int): code of --augm.
        seed (tuple of int): of the epoch; augmentation and dropout depend on it alone. Its last number is the epoch.

    Returns:
        (n, 2) float32 logits of the training pass itself, and its mean loss.
    """
    set_train_mode(trainer.model)
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    outputs, total = [], 0.0
    with progress(batch_indices(order, batch_size), f"epoch {seed[-1]}", "batch") as bar:
        for positions in bar:
            x = train_batch(bodies, order[positions], trainer.given.frame, trainer.given.norm, augm, seed, positions)
            y = targets[torch.as_tensor(order[positions], device=targets.device)]
            trainer.optimizer.zero_grad(set_to_none=True)
            with autocast(x.device, trainer.amp):
                logits = trainer.model(x.contiguous(memory_format=torch.channels_last))
            loss = loss_function(logits.float(), y)
            loss.backward()
            trainer.optimizer.step()
            step_batch(trainer.scheduler)
            outputs.append(logits.detach().float().cpu())
            total += loss.item() * len(positions)
            bar.set_postfix(loss=f"{total / (positions[-1] + 1):.3f}", refresh=False)
    return torch.cat(outputs).numpy(), total / len(order)


@torch.inference_mode()
def evaluate(model, bodies, index, given, batch_size, amp, description="validation"):
    """The images `index` in the middle of the frame, in evaluation mode.

    Returns:
        (n, 2) float32 logits and (n, 512) float32 features, NumPy.
    """
    model.eval()
    logits, features = [], []
    with progress(batch_indices(index, batch_size), description, "batch") as bar:
        for positions in bar:
            x = eval_batch(bodies, index[positions], given.frame, given.norm)
            with autocast(x.device, amp):
                embedded = model.embed(x.contiguous(memory_format=torch.channels_last))
                output = model.fc(embedded)
            logits.append(output.float().cpu())
            features.append(embedded.float().cpu())
    return torch.cat(logits).numpy(), torch.cat(features).numpy()


def probabilities(logits):
    """(n, 2) logits -> (n,) float64 probability of Deauville 4-5: softmax, class 1."""
    logits = torch.from_numpy(np.asarray(logits)).double()
    return logits.softmax(1)[:, 1].numpy()


def scan_metrics(scan_ids, y_true, y_score):
    """AUC, and balanced error, false positive and false negative rate at 0.5, of the scans' mean over their views."""
    scans = pd.DataFrame({"scan": scan_ids, "y": y_true, "p": y_score}).groupby("scan").mean()
    y, positive = scans["y"].to_numpy().astype(int), scans["p"].to_numpy() >= THRESHOLD
    fpr, fnr = positive[y == 0].mean(), (~positive[y == 1]).mean()
    return {"auc": delong(y, scans["p"])[0], "ber": (fpr + fnr) / 2, "fpr": fpr, "fnr": fnr}


# ---------------------------------------------------------------- the loop

def fit(trainer, bodies, table, split, run, args, provenance):
    """Train until --nepochs or early stopping; keep the weights of the best validation epoch.

    Writes convergence_splitS_runR.csv and last_splitS_runR.pth after every epoch, and checkpoint_splitS_runR.pth where
    the validation AUC is the highest so far; last_* goes when the run is finished.

    Args:
        table: manifest rows in the order of `bodies`.
        provenance (dict): stored in the checkpoint beside weights, architecture and Input.

    Returns:
        dict: split, run, best_epoch and its auc, epochs done, and why it ended.
    """
    files = {kind: run_file(args.output, kind, split, run) for kind in ("checkpoint", "last", "convergence")}
    log, best, start = [], {"epoch": 0, "auc": -np.inf}, 1
    if args.resume and files["last"].exists():
        log, best, start = _restore(files["last"], trainer, args)
    ended = f"{args.nepochs} epochs"
    try:
        for epoch in range(start, args.nepochs + 1):
            rows = _run_epoch(trainer, bodies, table, args, (args.seed, split, run, epoch))
            log += [(epoch, name, key, float(value)) for name, each in rows.items() for key, value in each.items()]
            auc = rows["validation"]["auc"]
            step_epoch(trainer.scheduler, auc)
            stop = trainer.stopper.step(auc)
            state = {"epoch": epoch, "auc": np.float64(auc)} | trainer.state_dict() | provenance
            if auc > best["auc"]:
                best = {"epoch": epoch, "auc": float(auc)}
                save_checkpoint(files["checkpoint"], state)
            write_csv(pd.DataFrame(log, columns=["epoch", "split", "metric", "value"]), files["convergence"])
            save_checkpoint(files["last"], state | {"log": log, "best": best})
            tqdm.write(f"split {split} run {run} epoch {epoch}: "
                       + ", ".join(f"{name} loss {each['loss']:.3f} AUC {each['auc']:.3f}"
                                   for name, each in rows.items())
                       + (" *" if best["epoch"] == epoch else ""), file=sys.stdout)
            if stop and args.early_stopping:
                ended = f"no better validation AUC for {trainer.stopper.patience} epochs"
                break
    except KeyboardInterrupt:
        if files["last"].exists():
            print(f"\n{files['last']} holds the last whole epoch: the same command with --resume goes on from there",
                  file=sys.stderr)
        raise
    files["last"].unlink(missing_ok=True)
    return {"split": split, "run": run, "epochs": log[-1][0], "best_epoch": best["epoch"], "auc": best["auc"],
            "ended": ended}


def _run_epoch(trainer, bodies, table, args, seed):
    """Train one epoch, then validate -> {"train" and "validation": {"loss", "auc", "ber", "fpr", "fnr"}}."""
    _, split, run, epoch = seed
    train, val = (np.flatnonzero(table[f"split{split}"] == name) for name in ("train", "val"))
    scans, y = table["scan_id"].to_numpy(), table["target"].to_numpy(copy=True)
    loss_function = binary_loss(y[train], args.balance)
    order = epoch_order(train, y[train], seed, args.oversample)
    targets = torch.from_numpy(y).to(bodies.images.device)
    logits, loss = train_one_epoch(trainer, bodies, targets, order, loss_function, args.batch_size, args.augm, seed)
    val_logits, _ = evaluate(trainer.model, bodies, val, trainer.given, args.batch_size, trainer.amp)
    if not (np.isfinite(loss) and np.isfinite(val_logits).all()):
        raise InputError(f"split {split} run {run}: the loss is not finite in epoch {epoch}; lower --lr {args.lr}")
    val_loss = loss_function(torch.from_numpy(val_logits), torch.from_numpy(y[val])).item()
    return {"train": {"loss": loss} | scan_metrics(scans[order], y[order], probabilities(logits)),
            "validation": {"loss": val_loss} | scan_metrics(scans[val], y[val], probabilities(val_logits))}


def _restore(path, trainer, args):
    """Load last_*.pth into the trainer -> (log, best, next epoch). Raises InputError."""
    state = read_checkpoint(path)
    differing = [name for name, value in state.get("args", {}).items()
                 if name not in RESUME_MAY_CHANGE and value != json.loads(json.dumps(getattr(args, name, None)))]
    if differing:
        raise InputError(f"{path} was trained with other values of {', '.join('--' + name for name in differing)}; "
                         "give the same, or --overwrite to train from the start")
    given = asdict(trainer.given)
    if state.get("input") != given:  # other images: another frame, spacing, or mean of the training split
        raise InputError(f"{path} was trained on other images: its input was {state.get('input')}, now it is {given}; "
                         "give the same --data and --images, or --overwrite to train from the start")
    try:
        trainer.load_state_dict(state)
        return [tuple(row) for row in state["log"]], state["best"], state["epoch"] + 1
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: does not fit this run ({error}); --overwrite trains from the start") from None


def provenance(args, model_settings):
    """What a checkpoint says about its making: architecture, arguments, package versions, commit (None outside git)."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                                check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {"model": model_settings, "args": json.loads(json.dumps(vars(args))), "commit": commit,
            "versions": {"python": sys.version.split()[0], "torch": str(torch.__version__), "numpy": np.__version__}}
