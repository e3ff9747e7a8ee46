"""The training and validation images of the splits to train, each read once."""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from common.files import InputError
from common.manifest import LEARNED, check_classes, compare_images, report_views, suv_type_of, views_of
from common.text import counted
from dataset import NORMS, Bodies, NetworkInput, choose_frame, data_hash, fit_bodies, norm_constants, read_bodies
from training import distributed
from training.distributed import say


@dataclass
class SplitImages:
    """The images of one split, for all of its runs.

    Attributes
    ----------
    split : int
    table : DataFrame
        Training and validation rows of the manifest, in the order of `bodies`.
    bodies : Bodies
        On the device, cut to the frame where --crop_bodies says so.
    train, val : int arrays of images
    network_input : NetworkInput
        Frame and normalization.
    hash : str
        `dataset.data_hash`.
    """
    split: int
    table: pd.DataFrame
    bodies: Bodies
    train: np.ndarray
    val: np.ndarray
    network_input: NetworkInput
    hash: str


class Cohort:
    """The images of the training and validation sets of several splits, each read once; others are not read.

    Parameters
    ----------
    table : DataFrame
        Of `common.manifest.read_manifest`.
    data, folder : str
        Path of the manifest; folder that its file names are relative to.
    splits : list of int
    device : torch.device
    allow_leakage : bool
        Of `manifest.read_manifest`, for images that the manifest has no digests of.
    """

    def __init__(self, table: pd.DataFrame, data: str, folder: str | Path, splits: Sequence[int], device: torch.device,
                 allow_leakage: bool = False):
        for split in splits:
            check_classes(data, table, split)
        used = table[[f"split{split}" for split in splits]].isin(LEARNED).any(axis=1)
        self.table, self.data, self.folder, self.device = table[used].reset_index(drop=True), data, folder, device
        self.pool, self.bodies, self.last = None, None, (None, None)
        self.splits, self.allow_leakage = splits, allow_leakage
        say(report_views(self.table) or f"{counted(self.table['scan_id'].nunique(), 'scan')}, "
                                        f"{counted(len(self.table), 'image')}")

    def read(self, pool: int) -> None:
        """Read the files, again for another `pool`. Raises InputError, whatever the split, as `dataset.read_bodies`."""
        if self.pool != pool:
            self.bodies, self.pool, self.last = None, None, (None, None)  # free the others first
            self.bodies = read_bodies(self.table, self.folder, pool)
            self.table = compare_images(self.table, self.folder, self.data, self.splits, self.allow_leakage)
            self.pool = pool

    def split_images(self, split: int, image_size: str | tuple[int, int], margin: int, pool: int, crop_bodies: bool,
                     norm: str) -> SplitImages:
        """The images of one split, `read` first. Raises InputError, too, where they do not fit the frame.

        `image_size` is "auto" or (rows, columns); the others are arguments of train.py.
        """
        asked = (split, image_size, margin, pool, crop_bodies, norm)
        if self.last[0] == asked:
            return self.last[1]
        self.read(pool)
        sets = self.table[f"split{split}"]
        rows = np.flatnonzero(sets.isin(LEARNED))
        table, bodies = self.table.iloc[rows].reset_index(drop=True), self.bodies.subset(rows)
        train, val = (np.flatnonzero(sets.iloc[rows] == name) for name in LEARNED)
        if min(len(train), len(val)) < distributed.world():
            raise InputError(f"{self.data}: split{split} has fewer training or validation images than there are "
                             f"processes ({distributed.world()}); start fewer")
        frame = choose_frame(image_size, bodies, train, margin)
        bodies = fit_bodies(bodies, frame, crop_bodies)
        mean, sd = NORMS.get(norm) or norm_constants(bodies, train)
        spacing = float(table["spacing_mm"].iloc[0]) if "spacing_mm" in table else None
        network_input = NetworkInput(frame, (mean, sd), pool, spacing, crop_bodies, views_of(table), suv_type_of(table))
        say(f"split {split}: {len(train)} training and {counted(len(val), 'validation image')}, frame {frame[0]} x "
            f"{frame[1]}, mean {mean:.4f} and standard deviation {sd:.4f} SUV")
        self.last = asked, SplitImages(split, table, bodies.to(self.device), train, val, network_input,
                                       data_hash(bodies, table, split))
        return self.last[1]
