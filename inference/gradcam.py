"""Heat maps of a trained network, and the way from its cells back to the pixels of the MIP.

gradcam, Selvaraju et al., ICCV 2017 (arXiv:1610.02391): the gradient of a score, averaged over the cells of a layer,
weights the layer's channels; the positive part of their weighted sum is the map. hirescam, Draelos and Carin 2020
(arXiv:2011.08891): each cell's own gradient weights it, so that a lesion's cells are not weighted by the background's.
Both through captum. The score is the log-odds of Deauville 4-5, or the logit of a site.
"""
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from scipy.ndimage import binary_fill_holes, map_coordinates
from torch import nn

import utils
from dataset import NetworkInput, body_box, body_pixels
from inference.folding import for_prediction
from training.batches import ImageBatches
from training.device import autocast

FIRST_LAYER = 4  # the place of layer1 in ResNet34.features
FIRST_STRIDE = 4  # pixels of the frame from one cell of layer1 to the next; twice as many with each layer
METHODS = {"gradcam": LayerGradCam, "hirescam": LayerGradientXActivation}
LAYERS = ("layer1", "layer2", "layer3", "layer4")
BINARY = -1  # the class that stands for Deauville 4-5


def layer_stride(layer: str) -> int:
    """Pixels of the network's input from one cell of a layer to the next: 4, 8, 16 or 32."""
    return FIRST_STRIDE * 2 ** LAYERS.index(layer)


def heat_maps(network: nn.Module, batches: ImageBatches, index: np.ndarray, classes: np.ndarray, method: str,
              layer: str, amp: torch.dtype | None) -> Iterator[np.ndarray]:
    """The heat maps of some images, one after another.

    Parameters
    ----------
    network : utils.ResNet34
        In evaluation mode, on the device of the batches.
    batches : ImageBatches
        Gives the images in the middle of the frame.
    index : (n,) int array of images.
    classes : (n,) int array
        The site whose logit is the score; BINARY: the log-odds of Deauville 4-5.
    method : of METHODS.
    layer : of LAYERS.
    amp : torch.bfloat16, torch.float16 or None

    Yields
    ------
    (rows, columns) float32 array
        A value of 0 or more for each cell of the layer, in units of the score; all 0 where nothing speaks for it.
    """
    attribution = METHODS[method]
    for batch in batches.centred(index).batches:
        x = batch.x.contiguous(memory_format=torch.channels_last)
        wanted = torch.as_tensor(classes[batch.places], device=x.device)

        def score(x, wanted=wanted, boxes=batch.boxes):
            with autocast(x, amp):
                return _scores(network(x, 0, boxes).float(), wanted)

        found = attribution(score, network.features[FIRST_LAYER + LAYERS.index(layer)]).attribute(x)
        yield from found.detach().float().sum(1).clamp(min=0).cpu().numpy()  # gradcam has summed the channels already


def _scores(outputs, classes):
    """(B, 2 + sites) logits, (B,) classes -> (B,): the logit of the site; of BINARY the log-odds of Deauville 4-5."""
    choices = torch.cat([outputs[:, 2:], outputs[:, 1:2] - outputs[:, :1]], 1)  # BINARY, -1, is the last of these
    return choices[torch.arange(len(choices), device=choices.device), classes]


def random_network(network: nn.Module, seed: Sequence[int]) -> nn.Module:
    """A network of the same shape before any training, in evaluation mode, on the same device."""
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))  # as training.runs.seed_weights does
    head = {} if isinstance(network.fc, nn.Linear) else {"cls_arch": "complex", "hidden": network.fc[0].out_features}
    fresh = utils.SiteResNet34(network.sites, network.site_head, **head) if network.sites else utils.ResNet34(**head)
    return for_prediction(fresh.eval()).to(next(network.parameters()).device, memory_format=torch.channels_last)


def to_mip(cells: np.ndarray, layer: str, image: np.ndarray, name: str, network_input: NetworkInput) -> np.ndarray:
    """Interpolate a heat map from a layer's cells to the pixels of the MIP.

    The MIP was cropped to the body's box, max-pooled K x K from the box's top left corner, and centred in the frame (of
    a body larger than the frame, with --crop_bodies, the centre was taken). So pixel r of the box has its centre at
    (r - (K - 1) / 2) / K + first in the frame, where `first` is the frame's pixel at which the box begins (negative
    where it was cropped). Cell i has its receptive field centred at pixel i * stride of the frame, since all kernels of
    the ResNet are odd and padded by half their size; upsampling the map to the frame's size would shift it by
    (stride - 1) / 2 pixels. Interpolation is linear between the cells, nearest outside of them.

    Parameters
    ----------
    cells : (rows, columns) float32 array
        From `heat_maps`.
    layer : of LAYERS.
    image : (rows, columns) float32 array
        The MIP, SUV; `name`: its file.
    network_input : NetworkInput
        Frame and pooling.

    Returns
    -------
    (rows, columns) float32 array
        0 outside the body and where the network saw nothing.
    """
    box, pool = body_box(image, name, network_input.box), network_input.pool
    places, seen = [], []
    for part, side, count in zip(box, network_input.frame, cells.shape, strict=True):
        pixels = part.stop - part.start
        first = int((side - -(-pixels // pool)) / 2)  # towards 0, as dataset.fit_bodies and eval_batch
        place = (np.arange(pixels) - (pool - 1) / 2) / pool + first
        places.append((place / layer_stride(layer)).clip(0, count - 1))
        seen.append((place > -0.5) & (place < side - 0.5))
    heat = np.zeros(image.shape, "float32")
    heat[box] = map_coordinates(cells.astype(float), np.meshgrid(*places, indexing="ij"), order=1) * np.outer(*seen)
    return heat * binary_fill_holes(body_pixels(image, network_input.box))
