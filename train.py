"""Train the binary Deauville network (DS 1-3 against DS 4-5) on one or several data splits.

python train.py --split_index 0 --run 1 --output results --recipe small
python train.py --split_index 0 --run 1 --output lars --cls_arch complex --optimizer sgd --lr 0.01 --early_stopping
python train.py --split_index 0-19 --run 1 2 --output results --recipe small    # a sweep
python train.py --split_index 0-19 --run 1 2 --output results --recipe small --resume
python train.py --params results/best_params_summary.csv --split_index 0 --output results    # the best of optun.py
torchrun --nproc_per_node 4 train.py --split_index 0 --run 1 --output results    # on four GPUs, or CPU processes

Writes convergence_splitS_runR.csv and .png, checkpoint_splitS_runR.pth (the best validation epoch, or by --keep the
last one) and its settings, settings_splitS_runR.json, to --output. After an interruption at any moment the same command
with --resume continues, and gives the same bits; finished runs are left alone.
"""
from common import arguments
from common.arguments import pick, run_script


def get_args_parser():
    return arguments.training_parser(__doc__)


def main(args):
    from common.manifest import read_manifest
    from training import distributed
    from training.batches import steps_per_epoch
    from training.device import open_device
    from training.engine import evaluate, train_one_epoch
    from training.images import Cohort
    from training.objectives import Binary
    from training.runs import Runs, begin, seed_weights, start_model
    from utils import ResNet34, Schedule, build_optimizer

    device, amp = open_device(args.device, args.amp, args.threads)
    table = read_manifest(args.data, args.split_index, allow_leakage=args.allow_leakage)
    runs = Runs(args, device, amp, table)  # --split_index x --run; what is finished is left alone
    if runs.todo:
        cohort = Cohort(table, args.data, arguments.images_folder(args), runs.splits, device, args.allow_leakage)

    for run in runs.todo:
        options = run.options  # args, with the values of --params for this split
        cohort.read(options.pool)  # a file that cannot be read ends all runs
        with runs.failures_listed(run):
            images = cohort.split_images(run.split, arguments.image_size(options.image_size),
                                         **pick(options, "margin", "pool", "crop_bodies", "norm"))
            runs.claim(run)  # no other process trains it
            head = pick(options, "cls_arch", "hidden", "dropout")
            seed_weights(*run.seed)
            model = start_model(ResNet34(**head), device, images.network_input,
                                **pick(options, "weights", "checkpoint", "transfer_learning", "finetune"))
            network = distributed.wrap(model, device)  # the model itself, unless there are several processes
            objective = Binary(images.table, images.train, device, **pick(options, "balance", "label_smoothing"))
            optimizer = build_optimizer(model.parameters(), **pick(options, "optimizer", "lr", "wd", "momentum"))
            steps = steps_per_epoch(images.train, objective.y_true, **pick(options, "batch_size", "oversample"))
            schedule = Schedule(optimizer, steps,
                                **pick(options, "nepochs", "lr_schedule", "lr_anneal", "warmup_epochs"))
            state, recorder, batches = begin(run, images, model, objective, optimizer, schedule, head, device, amp)

            with recorder.interruptible():  # signals wait for the next batch
                for epoch in state.epochs(options.nepochs, options.early_stopping):
                    train = train_one_epoch(network, objective, optimizer, batches.training(epoch, state.batches),
                                            state, recorder.after_batch)
                    if options.eval_train:  # log the training set as it is after the epoch, as LARS does
                        train = evaluate(state.kept, batches.training_set(), amp, "training set", recorder.check)
                    validation = evaluate(state.kept, batches.validation(), amp, check=recorder.check)
                    kept = state.end_epoch(objective, train, validation)  # schedule, early stopping
                    recorder.epoch(kept)
            runs.finished(run, state)
    return runs.summary()


if __name__ == "__main__":
    run_script(get_args_parser, main)
