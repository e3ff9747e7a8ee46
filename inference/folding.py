"""A trained network made ready to predict: batch norms folded away, sums kept in float32."""
import torch
from torch import nn

from utils import ResNet34


def for_prediction(model: ResNet34) -> ResNet34:
    """The model (in evaluation mode), changed in place: less work, and smaller errors under autocast.

    Batch norms are folded into the convolutions before them. The sums of layer1, which carry the image's own range of
    values, stay in float32: rounded to bfloat16 they cost more than all that follows.
    """
    fuse, features = nn.utils.fusion.fuse_conv_bn_eval, model.features
    features[0], features[1] = fuse(features[0], features[1]), nn.Identity()
    for block in (block for layer in features[4:8] for block in layer):
        block.conv1, block.bn1 = fuse(block.conv1, block.bn1), nn.Identity()
        block.conv2, block.bn2 = fuse(block.conv2, block.bn2), nn.Identity()
        if block.downsample:
            block.downsample = fuse(*block.downsample)
    features[4] = nn.Sequential(*map(Float32Sum, features[4]))
    return model


class Float32Sum(nn.Module):
    """A torchvision BasicBlock without downsampling whose sum is float32 under autocast, too."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block = self.block
        residual = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
        return block.relu(x.float() + residual)
