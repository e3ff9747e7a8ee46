"""LARS as its paper and its files have it: a plain torchvision network, its checkpoint, its way from MIP to score."""
import numpy as np
import torch
import torchvision


def one_channel_torchvision(seed=0):
    """The plain torchvision network that LARS's is built from: one input channel, two outputs."""
    torch.manual_seed(seed)
    net = torchvision.models.resnet34(weights=None)
    net.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    net.fc = torch.nn.Linear(512, 2)
    for module in net.modules():  # running statistics that are not the initial ones
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def lars_checkpoint(net, path):
    """What LARS saves: features = Sequential of all but the last layer, and its training state."""
    features = torch.nn.Sequential(*list(net.children())[:-1])
    state = {f"features.{k}": v for k, v in features.state_dict().items()}
    state |= {f"fc.{k}": v for k, v in net.fc.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True)
    torch.save({"epoch": 7, "state_dict": state, "optimizer": optimizer.state_dict(), "lr_scheduler": None,
                "early_stopping": None, "auc": np.float64(0.93)}, path)


def lars_frame(image, side=310):
    """The box of the pixels that are not 0, without its last row and column, in the middle of a frame of zeros."""
    rows, columns = np.nonzero(image)
    cut = image[min(rows):max(rows), min(columns):max(columns)]
    top, left = (int((side - n) / 2) for n in cut.shape)
    frame = np.zeros((side, side))
    frame[top:top + cut.shape[0], left:left + cut.shape[1]] = cut
    return (frame.clip(0, 30) - 2.13) / 3.39


def lars_probability(net, image):
    """Of Deauville 4-5; `net`: as `one_channel_torchvision`."""
    with torch.inference_mode():
        x = torch.from_numpy(lars_frame(image)).float()
        return net(x[None, None]).double().softmax(1)[0, 1].item()
