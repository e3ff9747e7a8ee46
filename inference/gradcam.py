"""Heat maps of a trained network, and the way from its cells back to the pixels of the MIP.

gradcam, Selvaraju et al., ICCV 2017 (arXiv:1610.02391): the gradient of a score, averaged over the cells of a layer,
weighs the layer's channels; the positive part of their weighted sum is the map. hirescam, Draelos and Carin 2020
(arXiv:2011.08891): each cell's own gradient weighs it, so that a lesion's cells are not weighed by the background's.
Both through captum. The score is the log-odds of Deauville 4-5, or the logit of a site.
"""
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from scipy.ndimage import map_coordinates
from torch import nn

import utils
from dataset import body_box
from inference.folding import for_prediction
from training.device import autocast

FIRST_LAYER = 4  # the place of layer1 in ResNet34.features
FIRST_STRIDE = 4  # pixels of the frame from one cell of layer1 to the next; twice as many with each layer
METHODS = {"gradcam": LayerGradCam, "hirescam": LayerGradientXActivation}
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def layer_stride(layer):
    """Pixels of the network's frame from one cell of a layer to the next: 4, 8, 16, 32."""
    return FIRST_STRIDE * 2 ** LAYERS.index(layer)


def heat_maps(network, batches, index, method, layer, classes, amp):
    """The heat maps of the images `index`.

    Args:
        network (utils.ResNet34): in evaluation mode, on the device of the batches.
        batches (training.batches.ImageBatches): gives the images in the middle of the frame.
        index: (n,) int array.
        method (str), layer (str): of METHODS, of LAYERS.
        classes: (n,) int array, the site whose logit is the score; -1: the log-odds of Deauville 4-5.
        amp: torch.bfloat16, torch.float16 or None.

    Returns:
        (n, rows, columns) float32, one value a cell; all 0 where nothing speaks for the score.
    """
    maps = []
    for batch in batches.centred(index).batches:
        x = batch.x.contiguous(memory_format=torch.channels_last)
        wanted = torch.as_tensor(classes[batch.places], device=x.device)

        def score(x, wanted=wanted, boxes=batch.boxes):
            with autocast(x.device, amp):
                return scores(network(x, 0, boxes).float(), wanted)

        found = METHODS[method](score, network.features[FIRST_LAYER + LAYERS.index(layer)]).attribute(x)
        maps.append(found.detach().float().sum(1).clamp(min=0).cpu().numpy())  # gradcam has summed the channels already
    return np.concatenate(maps)


def scores(outputs, classes):
    """(B, 2 + sites) logits, (B,) sites or -1 -> (B,): the logit of the site; of -1 the log-odds of Deauville 4-5."""
    choices = torch.cat([outputs[:, 2:], outputs[:, 1:2] - outputs[:, :1]], 1)
    return choices[torch.arange(len(choices), device=choices.device), classes]


def random_network(network, seed):
    """A network of the same shape before any training, in evaluation mode, on the same device; `seed`: ints."""
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))  # as training.runs.seed_weights does
    head = {} if isinstance(network.fc, nn.Linear) else {"cls_arch": "complex", "hidden": network.fc[0].out_features}
    fresh = utils.SiteResNet34(network.sites, network.site_head, **head) if network.sites else utils.ResNet34(**head)
    fresh = for_prediction(fresh.eval())
    return fresh.to(next(network.parameters()).device, memory_format=torch.channels_last)


# ---------------------------------------------------------------- from cells to pixels

@dataclass
class Placement:
    """Where the pixels of a MIP lie in the network's frame: dataset.read_bodies, fit_bodies and eval_batch in one.

    The MIP is cut to its body's box, max-pooled K x K from the box's top left corner, and put into the middle of the
    frame; of a body larger than the frame (--crop_bodies) the middle is taken. The middle of pixel r of the MIP lies at
    (r - first row of the box - (K - 1) / 2) / K + offset pixels of the frame.

    Attributes:
        shape: (rows, columns) of the MIP.
        box: (rows, columns), slices of the MIP.
        offset: (rows, columns) in pixels of the frame, of the box's first pooled pixel; negative where it is cut off.
        frame: (rows, columns) of the network's input.
        pool: K.
    """
    shape: tuple
    box: tuple
    offset: tuple
    frame: tuple
    pool: int

    @classmethod
    def of(cls, image, name, given):
        """Of a whole MIP (rows, columns), for the network input `given` (NetworkInput)."""
        box, offset = body_box(image, name), []
        for part, side in zip(box, given.frame, strict=True):
            size = -(-(part.stop - part.start) // given.pool)
            offset.append((side - size) // 2 if size <= side else -((size - side) // 2))
        return cls(image.shape, box, tuple(offset), tuple(given.frame), given.pool)

    def in_frame(self, axis):
        """Where the pixels of the box lie in the frame, in its pixels, along axis 0 or 1: (n,) float64."""
        pixels = np.arange(self.box[axis].stop - self.box[axis].start)
        return (pixels - (self.pool - 1) / 2) / self.pool + self.offset[axis]

    def to_mip(self, cells, stride):
        """A heat map on the layer's cells -> on the MIP's pixels: (rows, columns) float32, 0 where nothing was seen.

        Cell i stands for the middle of its receptive field, pixel i * stride of the frame: all convolutions and pools
        of the ResNet have an odd size and pad half of it. (Upsampling the map to the frame's size would shift it by
        (stride - 1) / 2 pixels.) The map is linear between the cells; beyond the outer ones the nearest
        counts.
        """
        heat, rows, columns = np.zeros(self.shape, "float32"), self.in_frame(0), self.in_frame(1)
        places = [(place / stride).clip(0, n - 1) for place, n in zip((rows, columns), cells.shape, strict=True)]
        found = map_coordinates(cells.astype(float), np.meshgrid(*places, indexing="ij"), order=1)
        rows, columns = ((place > -0.5) & (place < side - 0.5) for place, side in zip((rows, columns), self.frame,
                                                                                      strict=True))
        heat[self.box] = found * np.outer(rows, columns)  # of a body cut to the frame the rest is 0
        return heat
