"""Losses and metrics: of the Deauville score, or of the score and the lesion's site.

The network's output is (B, 2), the logits of Deauville 1-3 and 4-5, or (B, 2 + sites), with a logit for each site in
ascending order of the codes (common.sites). A checkpoint's "model" holds what the sites are (`site_settings`).
"""
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from common.files import InputError
from common.sites import scored_classes, truth_matrix
from evaluation import site_metrics
from evaluation.metrics import THRESHOLD, delong
from training.batches import epoch_order

# ---------------------------------------------------------------- Deauville score

class Binary:
    """Deauville 4-5 or not: BCE with logits on the one-hot target.

    Parameters
    ----------
    table : DataFrame
        scan_id and target (0/1) of every image.
    train : (n,) int array
        The training split's images.
    balance : bool
        Weight the positive term of each class by (rows of the other class) / (rows of the class).
    label_smoothing : float
        S moves the one-hot target to 1 - S/2 and S/2.
    """
    columns = 2  # of the network's output
    select = "auc"  # the validation metric that early stopping and the kept checkpoint follow

    def __init__(self, table: pd.DataFrame, train: np.ndarray, device: torch.device, balance: bool = False,
                 label_smoothing: float = 0.0):
        self.scans, self.y_true = table["scan_id"].to_numpy(), table["target"].to_numpy(copy=True)
        self.files = table.get("filename", table["scan_id"]).to_numpy()
        self.target, self.label_smoothing = torch.from_numpy(self.y_true).to(device), label_smoothing
        counts = np.bincount(self.y_true[train], minlength=2)
        self.weight = torch.tensor(counts[::-1] / counts, dtype=torch.float32, device=device) if balance else None

    def loss(self, outputs: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """(B, 2) logits of the images `index` -> (B,) losses, one an image."""
        one_hot = nn.functional.one_hot(self.target[torch.as_tensor(index, device=self.target.device)], 2)
        target = one_hot.to(outputs) * (1 - self.label_smoothing) + self.label_smoothing / 2
        return nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="none",
                                                              pos_weight=self.weight).mean(1)

    def mean_loss(self, outputs: torch.Tensor, index: np.ndarray) -> float:
        """The mean loss over a whole pass over the images `index`, for the log."""
        return self.loss(outputs, index).cpu().double().mean().item()

    def metrics(self, outputs: np.ndarray, index: np.ndarray) -> dict:
        """(n, 2) logits, NumPy -> dict of scan_metrics, with the key `select`."""
        return scan_metrics(self.scans[index], self.y_true[index], probabilities(outputs))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(n, 2 or more) logits -> (n,) float64 probability of Deauville 4-5: softmax of the first two, class 1."""
    logits = torch.from_numpy(np.asarray(logits)[:, :2]).double()
    return logits.softmax(1)[:, 1].numpy()


def scan_metrics(scan_ids: Sequence, y_true: np.ndarray, y_score: np.ndarray) -> dict:
    """AUC, and balanced error, false positive and false negative rate at 0.5, of the scans' means over their views."""
    scan = np.unique(np.asarray(scan_ids), return_inverse=True)[1]
    views = np.bincount(scan)
    y, p = np.bincount(scan, y_true).astype(int) // views, np.bincount(scan, y_score) / views
    positive = p >= THRESHOLD
    fpr, fnr = positive[y == 0].mean(), (~positive[y == 1]).mean()
    return {"auc": delong(y, p)[0], "ber": (fpr + fnr) / 2, "fpr": fpr, "fnr": fnr}


# ---------------------------------------------------------------- Deauville score and site

def site_settings(sites: dict, site_head: str, site_detach: bool, site_on: str, site_multi: bool) -> dict:
    """What a checkpoint stores of its site head, ready for JSON; `sites`: of `common.sites.read_sites`."""
    return {"sites": {str(code): name for code, name in sites.items()}, "site_head": site_head,
            "site_detach": site_detach, "site_on": site_on, "site_multi": site_multi}


def site_probabilities(logits: np.ndarray, settings: dict) -> np.ndarray:
    """(n, sites) logits, NumPy -> (n, sites) float64: softmax, or with site_multi sigmoid, 0 where not trained."""
    logits = torch.from_numpy(np.asarray(logits)).double()
    found, classes = torch.zeros_like(logits), scored_classes(settings)
    found[:, classes] = logits[:, classes].sigmoid() if settings["site_multi"] else logits[:, classes].softmax(1)
    return found.numpy()


class BinaryAndSite(Binary):
    """Deauville 4-5 or not, plus site_lambda times the site's loss.

    The site's loss of an image is the cross-entropy of its site (site_multi: the mean binary cross-entropy of all
    sites); 0 for images without a site to learn: with an unknown site or, with site_on positive, negative ones. It is
    divided by the share of an epoch's images that have one, so that its mean over an epoch is the mean over those,
    however the batches fall.

    Parameters
    ----------
    table : DataFrame
        scan_id, target, true_loc (`dataset_loca`) of every image.
    train : (n,) int array
        The training split's images.
    settings : dict
        Of `site_settings`.
    balance, label_smoothing : bool, float
        Of Binary.
    select : {"auc", "loc", "sum"}
        What early stopping and the kept epoch follow.
    site_lambda : float
        Weight of the site's loss beside the binary one.
    site_balance : bool
        Weight the sites by their rarity.
    site_smoothing : float
        Label smoothing of the sites.
    oversample : bool
        Whether an epoch draws the rarer class again (`batches.epoch_order`).
    """

    def __init__(self, table: pd.DataFrame, train: np.ndarray, device: torch.device, settings: dict,
                 balance: bool = False, label_smoothing: float = 0.0, select: str = "auc", site_lambda: float = 1.0,
                 site_balance: bool = False, site_smoothing: float = 0.0, oversample: bool = False):
        super().__init__(table, train, device, balance, label_smoothing)
        truth = truth_matrix(table["true_loc"], len(settings["sites"]))
        self.settings, self.classes, self.multi = settings, scored_classes(settings), settings["site_multi"]
        self.columns, self.site_lambda, self.site_smoothing = 2 + truth.shape[1], site_lambda, site_smoothing
        self.select = {"auc": "auc", "loc": site_metrics.SELECTED[self.multi], "sum": "sum"}[select]
        self.truth = truth[:, self.classes]
        if settings["site_on"] == "positive":
            self.truth &= (self.y_true == 1)[:, None]
        self.used = self.truth.any(1)  # images with a site to learn
        counts, rows = self.truth[train].sum(0), self.used[train].sum()
        others = np.setdiff1d(np.arange(len(table)), train)
        if not rows or (select != "auc" and not self.used[others].any()):
            raise InputError(f"no {'validation' if rows else 'training'} image has a site to learn (target_loc); "
                             + ("give --select auc" if rows else "train.py trains without sites"))
        self.share = float(self.used[epoch_order(train, self.y_true, 0, oversample)].mean())
        names = np.array(list(settings["sites"].values()))[self.classes]
        self.untaught = [str(name) for name in names[counts == 0]]  # sites that no training image shows
        weight = class_weights(counts, rows, self.multi) if site_balance else np.ones(len(counts))
        self.loc_weight = torch.tensor(weight, dtype=torch.float32, device=device)
        self.site = torch.from_numpy(self.truth).to(device)

    def loss(self, outputs: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """(B, 2 + sites) logits of the images `index` -> (B,) losses, one an image."""
        return super().loss(outputs[:, :2], index) + self.site_lambda * self.site_loss(outputs[:, 2:], index)

    def mean_loss(self, outputs: torch.Tensor, index: np.ndarray) -> float:
        """As of Binary; the site's part is the mean over the images of this pass that have a site to learn."""
        site = self.site_loss(outputs[:, 2:], index).cpu().double().sum() * self.share / max(1, self.used[index].sum())
        return super().loss(outputs[:, :2], index).cpu().double().mean().item() + self.site_lambda * site.item()

    def site_loss(self, logits: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """(B, sites) logits -> (B,) losses, before site_lambda; 0 for images without a site to learn."""
        logits, site = logits[:, self.classes], self.site[torch.as_tensor(index, device=self.site.device)]
        weight, used = self.loc_weight.to(logits), site.any(1)
        if self.multi:
            target = site.to(logits) * (1 - self.site_smoothing) + self.site_smoothing / 2
            each = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none",
                                                                  pos_weight=weight).mean(1)
        else:
            each = nn.functional.cross_entropy(logits, site.to(torch.uint8).argmax(1), weight, reduction="none",
                                               label_smoothing=self.site_smoothing)
        return torch.where(used, each, 0) / self.share

    def metrics(self, outputs: np.ndarray, index: np.ndarray) -> dict:
        """(n, 2 + sites) logits, NumPy -> scan_metrics and, of the scans with a site, site_metrics.weighted_metrics.

        `sum` is AUC + loc_bacc (several sites a scan: loc_ap). `selected`, for find_best_model.py, is the metric that
        chooses the epoch, where that is not the AUC.
        """
        found, used = super().metrics(outputs, index), self.used[index]
        sites = dict.fromkeys(site_metrics.MULTI if self.multi else site_metrics.SINGLE, float("nan"))
        if used.any():
            mine = index[used]
            first, scores = site_metrics.mean_by_scan(self.scans[mine], site_probabilities(
                outputs[used, 2:], self.settings)[:, self.classes])
            sites = {name: float(value[0]) for name, value in site_metrics.weighted_metrics(
                self.truth[mine][first], scores, multi=self.multi).items()}
        found |= sites | {"sum": found["auc"] + sites[site_metrics.SELECTED[self.multi]]}
        return found if self.select == "auc" else found | {"selected": found[self.select]}


def class_weights(counts: np.ndarray, rows: int, multi: bool) -> np.ndarray:
    """(k,) weights of the sites from the number of training images of each, `counts`, and with any, `rows`.

    With one site an image: rows / (number of sites x count), which averages to 1 over the images. With several, of the
    site's positive term: images without the site / images with it. 1 for a site that no image has, or all.
    """
    weight = (rows - counts) if multi else np.full(len(counts), rows / max(1, (counts > 0).sum()))
    weight = weight / np.maximum(counts, 1)
    return np.where((counts > 0) & (weight > 0), weight, 1.0)
