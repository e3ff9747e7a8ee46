"""Deauville score and lesion site together: what is learned, and what the site head's outputs say.

The network's output is (B, 2 + sites): engine.Binary's two logits, then a logit for each site, in ascending order of
the codes (dataset_loca). What a model's sites mean stands in its checkpoint under "model" (`site_settings`).
"""
import numpy as np
import pandas as pd
import torch
from torch import nn

from common.files import InputError
from dataset_loca import read_sites, scored_classes, truth_matrix
from evaluation import site_metrics
from training import engine
from utils import find_site_head, read_checkpoint


def site_settings(args, sites):
    """What a checkpoint says about its site head, and ResNet34 is built from: plain values."""
    return {"sites": {str(code): name for code, name in sites.items()}, "site_head": args.site_head,
            "detach_loc": args.detach_loc, "loc_on": args.loc_on, "sites_multi": args.sites_multi}


def site_probabilities(logits, settings):
    """(n, sites) logits, NumPy -> (n, sites) float64: softmax, or with sites_multi sigmoid, 0 where not trained."""
    logits = torch.from_numpy(np.asarray(logits)).double()
    found, classes = torch.zeros_like(logits), scored_classes(settings)
    found[:, classes] = logits[:, classes].sigmoid() if settings["sites_multi"] else logits[:, classes].softmax(1)
    return found.numpy()


class Sites(engine.Binary):
    """Deauville 4-5 or not, plus lambda_loc times the site's loss.

    The site's loss of an image is the cross-entropy of its site (sites_multi: the mean binary cross-entropy of all
    sites), 0 for an image without a site to learn (a negative one with loc_on positive; an unknown site). It is divided
    by the share of training images with a site, so that its mean over an epoch is the mean over those images, whatever
    the batches.

    Args:
        table (DataFrame): scan_id, target, true_loc (dataset_loca) of every image.
        train: (n,) int array, the training split's images.
        args: lambda_loc, loc_balance, loc_smoothing, select, balance, label_smoothing.
        settings (dict): of `site_settings`.
    """

    def __init__(self, table, train, device, args, settings):
        super().__init__(table, train, device, args.balance, args.label_smoothing)
        truth = truth_matrix(table["true_loc"], len(settings["sites"]))
        self.settings, self.classes, self.multi = settings, scored_classes(settings), settings["sites_multi"]
        self.columns, self.factor, self.loc_smoothing = 2 + truth.shape[1], args.lambda_loc, args.loc_smoothing
        self.select = {"auc": "auc", "loc": site_metrics.SELECTED[self.multi], "sum": "sum"}[args.select]
        self.truth = truth[:, self.classes]
        if settings["loc_on"] == "positive":
            self.truth &= (self.y_true == 1)[:, None]
        self.used = self.truth.any(1)  # images with a site to learn
        counts, rows = self.truth[train].sum(0), self.used[train].sum()
        others = np.setdiff1d(np.arange(len(table)), train)
        if not rows or (args.select != "auc" and not self.used[others].any()):
            raise InputError(f"no {'validation' if rows else 'training'} image has a site to learn (target_loc); "
                             + ("give --select auc" if rows else "train.py trains without sites"))
        self.share = rows / len(train)
        names = np.array(list(settings["sites"].values()))[self.classes]
        self.untaught = [str(name) for name in names[counts == 0]]  # sites that no training image shows
        weight = class_weights(counts, rows, self.multi) if args.loc_balance else np.ones(len(counts))
        self.loc_weight = torch.tensor(weight, dtype=torch.float32, device=device)
        self.site = torch.from_numpy(self.truth).to(device)

    def loss(self, outputs, index):
        """(B, 2 + sites) logits of the images `index` -> (B,) losses, one an image."""
        return super().loss(outputs[:, :2], index) + self.factor * self.site_loss(outputs[:, 2:], index)

    def site_loss(self, logits, index):
        """(B, sites) logits -> (B,) losses, before lambda_loc; 0 for images without a site to learn."""
        logits, site = logits[:, self.classes], self.site[torch.as_tensor(index, device=self.site.device)]
        weight, used = self.loc_weight.to(logits), site.any(1)
        if self.multi:
            target = site.to(logits) * (1 - self.loc_smoothing) + self.loc_smoothing / 2
            each = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none",
                                                                  pos_weight=weight).mean(1)
        else:
            each = nn.functional.cross_entropy(logits, site.to(torch.uint8).argmax(1), weight, reduction="none",
                                               label_smoothing=self.loc_smoothing)
        return torch.where(used, each, 0) / self.share

    def metrics(self, outputs, index):
        """(n, 2 + sites) logits, NumPy -> engine.scan_metrics and, of the scans with a site, site_metrics.measure.

        `sum` is AUC + loc_bacc (several sites a scan: loc_ap); `selected`, where it is not the AUC, is what the kept
        checkpoint followed, for find_best_model.py.
        """
        found, used = super().metrics(outputs, index), self.used[index]
        sites = dict.fromkeys(site_metrics.MULTI if self.multi else site_metrics.SINGLE, float("nan"))
        if used.any():
            mine = index[used]
            first, scores = site_metrics.mean_by_scan(self.scans[mine], site_probabilities(
                outputs[used, 2:], self.settings)[:, self.classes])
            sites = {name: float(value[0]) for name, value in site_metrics.measure(
                self.truth[mine][first], scores, multi=self.multi).items()}
        found |= sites | {"sum": found["auc"] + sites[site_metrics.SELECTED[self.multi]]}
        return found if self.select == "auc" else found | {"selected": found[self.select]}


def class_weights(counts, rows, multi):
    """(k,) weights of the sites from the number of training images of each, `counts`, and with any, `rows`.

    One site an image: rows / (sites there are x count), which average to 1 over the images. Several: those without the
    site / those with it, of the site's positive term. 1 for a site that is in none or in all.
    """
    weight = (rows - counts) if multi else np.full(len(counts), rows / max(1, (counts > 0).sum()))
    weight = weight / np.maximum(counts, 1)
    return np.where((counts > 0) & (weight > 0), weight, 1.0)


# ---------------------------------------------------------------- prediction

def stored_settings(path, loc_map=None):
    """A checkpoint's sites, loc_on and sites_multi; from --loc_map or the 14 codes where it stores none.

    Raises InputError for a checkpoint without site head, or with another number of sites than there are names.
    """
    content = read_checkpoint(path)
    site_head, count = find_site_head({name.removeprefix("module."): value
                                       for name, value in content.get("state_dict", {}).items()})
    if not site_head:
        raise InputError(f"{path}: has no site head; predict.py predicts with it")
    settings = {name: content.get("model", {}).get(name) for name in ("sites", "loc_on", "sites_multi")}
    if settings["sites"] is None:
        sites = {str(code): name for code, name in read_sites(loc_map).items()}
        settings = {"sites": sites, "loc_on": "all", "sites_multi": False}
    elif loc_map and {str(code): name for code, name in read_sites(loc_map).items()} != settings["sites"]:
        raise InputError(f"{path}: was trained with other sites than those of --loc_map {loc_map}; leave it out")
    if len(settings["sites"]) != count:
        raise InputError(f"{path}: its site head has {count} classes, not {len(settings['sites'])}; name them with "
                         "--loc_map")
    return settings


def site_columns(logits, settings, scan_ids, true_loc):
    """(n, sites) logits of views -> DataFrame of L0.., pred_loc, pred_loc_name, true_loc, true_loc_name, n rows."""
    names, scores = list(settings["sites"].values()), site_probabilities(logits, settings)
    _, mean = site_metrics.mean_by_scan(scan_ids, scores)
    _, scan = np.unique(scan_ids, return_inverse=True)
    called = site_metrics.called(mean, settings["sites_multi"])
    columns = pd.DataFrame(scores, columns=[f"L{k}" for k in range(len(names))])
    columns["pred_loc"] = [called[k] for k in scan]
    columns["true_loc"] = list(true_loc)
    for kind in ("true", "pred"):
        columns.insert(columns.columns.get_loc(f"{kind}_loc") + 1, f"{kind}_loc_name",
                       [site_metrics.name_of(text, names) for text in columns[f"{kind}_loc"]])
    return columns
