"""Training as such scripts are written: a file read for each image and epoch, float32, a frame of 310 x 310."""
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader

SQUARE = 310  # LARS's frame, pixels
LOADERS = 2  # worker processes
NORM = (1.5, 1.0)  # mean and standard deviation, SUV


class PlainLoop:
    """A network, and the images that it is trained on, in the middle of the frame, by two worker processes that stay.

    Parameters
    ----------
    folder : Path
        What the table's file names are relative to.
    table : DataFrame
        Rows of a manifest, to train on.
    """

    def __init__(self, folder: Path, table: pd.DataFrame, batch_size: int, device: torch.device, lr: float = 0.001):
        self.device, self.loader = device, load(folder, table, batch_size, device, shuffle=True, num_workers=LOADERS,
                                                persistent_workers=True)
        self.model = torchvision.models.resnet34(weights=None, num_classes=2)
        self.model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.model.to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr, 0.9, weight_decay=1e-4, nesterov=True)
        self.criterion = nn.BCEWithLogitsLoss()

    def train(self) -> None:
        """One pass over the images."""
        self.model.train()
        for x, y in self.loader:
            loss = self.criterion(self.model(x.to(self.device)), nn.functional.one_hot(y, 2).float().to(self.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()

    def evaluate(self, loader: DataLoader | None = None) -> torch.Tensor:
        """-> (n,) probabilities, in the order of the loader (default: that of training)."""
        self.model.eval()
        with torch.no_grad():
            return torch.cat([self.model(x.to(self.device)).softmax(1)[:, 1].cpu() for x, _ in loader or self.loader])


def load(folder: Path, table: pd.DataFrame, batch_size: int, device: torch.device, at_random: bool = False,
         norm: tuple[float, float] = NORM, **options: object) -> DataLoader:
    """A loader of the table's images in batches (`plain_batch`); `options`: of DataLoader."""
    rows = [(folder / row.filename, row.matrix_size_1, row.matrix_size_2, row.target) for row in table.itertuples()]
    return DataLoader(rows, batch_size, collate_fn=partial(plain_batch, at_random=at_random, norm=norm),
                      pin_memory=device.type == "cuda", **options)


def plain_batch(rows: Sequence[tuple[Path, int, int, int]], at_random: bool = False,
                norm: tuple[float, float] = NORM) -> tuple[torch.Tensor, torch.Tensor]:
    """Files, their shapes and targets -> images and targets.

    Each image is cropped to the body, in the middle of the frame or somewhere in it, clipped to SUV 0..30, less the
    mean and divided by the standard deviation in `norm`.
    """
    frames = np.zeros((len(rows), 1, SQUARE, SQUARE), "float32")
    for frame, (path, *shape, _) in zip(frames, rows, strict=True):
        image = np.fromfile(path, "<f4").reshape(shape)
        ys, xs = (np.flatnonzero((image > 0.3).any(axis)) for axis in (1, 0))
        body = image[ys[0]:ys[-1] + 1, xs[0]:xs[-1] + 1]
        room = [SQUARE - side for side in body.shape]
        top, left = (int(torch.randint(free + 1, ())) if at_random else free // 2 for free in room)
        frame[0, top:top + body.shape[0], left:left + body.shape[1]] = body
    images = (frames.clip(0, 30) - norm[0]) / np.float32(norm[1])
    return torch.from_numpy(images), torch.tensor([target for *_, target in rows])
