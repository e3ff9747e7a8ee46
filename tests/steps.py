"""Some training steps in float64 or float32, as one process or as several: torchrun steps.py COHORT OUT DTYPE STEPS
[DEVICE [AUGM]].

Writes the first step's gradients and the weights after the last one. See test_parallel.py, test_gpu.py.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from training_helpers import quiet_branches

import dataset
import utils
from common.manifest import read_manifest
from training import distributed, engine
from training.batches import ImageBatches, epoch_order
from training.objectives import Binary
from training.state import TrainState

BATCH = 7


def main(cohort, out, dtype, steps, device="cpu", augm=45):
    torch.set_num_threads(1)
    device = distributed.start(torch.device(device))
    table = read_manifest(Path(cohort) / "data.csv", (0,))
    bodies = dataset.read_bodies(table, cohort, pool=2)
    bodies.images = bodies.images.to(dtype)
    bodies = bodies.to(device)
    torch.manual_seed(0)
    model = utils.ResNet34("complex", 16).to(device, dtype)
    if steps > 1:  # through random branches, in so small a frame, rounding grows to five times in every step
        quiet_branches(model)
    distributed.synchronize_batch_norm(model, device)
    optimizer = utils.build_optimizer(model.parameters(), lr=0.01)
    network_input = dataset.NetworkInput((32, 32), (1.5, 1.0))
    state = TrainState(model, optimizer, utils.Schedule(optimizer, 1, 99), utils.EarlyStopping(), network_input, None)
    network = distributed.wrap(model, device)
    objective = Binary(table, np.arange(len(table)), device, balance=True)
    batches, done, gradients = ImageBatches(bodies, network_input, BATCH, augm), 0, {}

    def after_batch():
        nonlocal done
        done += 1
        if not gradients:
            gradients.update({name: p.grad.cpu().clone() for name, p in model.named_parameters()})
        if done == steps:
            raise StopIteration

    train = np.flatnonzero(table["split0"] == "train")
    for epoch in range(1, steps + 1):
        seed = (3, epoch)
        state.epoch, state.batches, state.outputs = epoch, 0, None
        try:
            engine.train_one_epoch(network, objective, optimizer, batches.training(
                epoch_order(train, objective.y_true, seed), seed), state, after_batch)
        except StopIteration:
            break
    scores = engine.evaluate(model, batches.centred(np.arange(len(table)))).logits
    if distributed.is_main():
        weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        torch.save({"gradients": gradients, "weights": weights, "scores": torch.from_numpy(scores)}, out)
    distributed.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
