"""Some training steps in float64 or float32, as one process or as several: torchrun steps.py COHORT OUT DTYPE STEPS.

Writes the first step's gradients and the weights after the last one. See test_parallel.py.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import dataset
import utils
from common.arguments import Parser, add_model_arguments, add_training_arguments
from common.manifest import read_manifest
from dataset import NetworkInput
from training import distributed, engine, objectives
from training.batches import Images, epoch_order


def main(cohort, out, dtype, steps):
    torch.set_num_threads(1)
    device = distributed.start(torch.device("cpu"))
    table = read_manifest(Path(cohort) / "data.csv", (0,))
    bodies = dataset.read_bodies(table, cohort, pool=2)
    bodies.images = bodies.images.to(dtype)
    parser = Parser(__doc__)
    add_model_arguments(parser)
    add_training_arguments(parser)
    args = parser.parse_args(["--lr", "0.01", "--batch_size", "7", "--nepochs", "99"])
    torch.manual_seed(0)
    model = utils.ResNet34("complex", 16).to(dtype)
    distributed.synchronize_batch_norm(model, device)
    optimizer = utils.build_optimizer(args, model.parameters())
    trainer = engine.Trainer(model, distributed.wrap(model, device), optimizer, utils.Schedule(args, optimizer, 1),
                             None, NetworkInput((32, 32), (1.5, 1.0)), None, torch.amp.GradScaler("cpu", enabled=False))
    task = objectives.Binary(table, np.arange(len(table)), device, balance=True)
    feed, done, gradients = Images(bodies, trainer.given, 45), 0, {}

    def after_batch(batches, outputs):
        nonlocal done
        done += 1
        if not gradients:
            gradients.update({name: p.grad.clone() for name, p in model.named_parameters()})
        if done == steps:
            raise StopIteration

    train = np.flatnonzero(table["split0"] == "train")
    for epoch in range(1, steps + 1):
        seed = (3, epoch)
        try:
            engine.train_one_epoch(trainer, feed, task, epoch_order(train, task.y_true[train], seed), seed,
                                   args.batch_size, after_batch=after_batch)
        except StopIteration:
            break
    scores, _ = engine.evaluate(model, feed, np.arange(len(table)), 7, None)
    if distributed.is_main():
        torch.save({"gradients": gradients, "weights": model.state_dict(), "scores": torch.from_numpy(scores)}, out)
    distributed.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3]), int(sys.argv[4]))
