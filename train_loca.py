"""Train the network with two heads, for the Deauville score and the lesion's site, on one or several data splits.

python train_loca.py --split_index 0 --run 1 --output results_loca
python train_loca.py --split_index 0-19 --run 1 --output results_loca --site_balance --select sum
python train_loca.py --split_index 0 --output results_loca --checkpoint results/checkpoint_split0_run1.pth --site_detach

The manifest's target_loc holds the site's code (51: no lesion). Everything else is as in train.py: the files, --resume,
torchrun. The log also has the site's accuracy (loc_acc), balanced accuracy (loc_bacc) and top-3 accuracy (loc_top3).
"""
from common import arguments
from common.arguments import pick, run_script


def get_args_parser():
    parser = arguments.training_parser(__doc__, "results_loca")
    arguments.add_site_arguments(parser)
    return parser


def main(args):
    from common.sites import mirrored_sites, read_sites
    from dataset_loca import read_loca_manifest
    from training import distributed
    from training.batches import steps_per_epoch
    from training.device import open_device
    from training.distributed import say
    from training.engine import evaluate, train_one_epoch
    from training.images import Cohort
    from training.objectives import BinaryAndSite, site_settings
    from training.runs import Runs, begin, seed_weights, start_model
    from utils import Schedule, SiteResNet34, build_optimizer

    site = site_settings(read_sites(args.site_map), **pick(args, "site_head", "site_detach", "site_on", "site_multi"))
    device, amp = open_device(args.device, args.amp, args.threads)
    table, warnings = read_loca_manifest(args.data, args.split_index, read_sites(args.site_map), args.site_multi,
                                         args.site_strict, allow_leakage=args.allow_leakage)
    for line in warnings:
        say(f"warning: {line}")
    runs = Runs(args, device, amp, table)
    if runs.todo:
        cohort = Cohort(table, args.data, arguments.images_folder(args), runs.splits, device, args.allow_leakage)

    for run in runs.todo:  # as in train.py, with a site head and its part of the loss
        options = run.options
        cohort.read(options.pool)
        with runs.failures_listed(run):
            images = cohort.split_images(run.split, arguments.image_size(options.image_size),
                                         **pick(options, "margin", "pool", "crop_bodies", "norm"))
            runs.claim(run)
            head = pick(options, "cls_arch", "hidden", "dropout")
            seed_weights(*run.seed)
            model = SiteResNet34(site["sites"], site["site_head"], site["site_detach"], **head)
            model = start_model(model, device, images.network_input,
                                **pick(options, "weights", "checkpoint", "transfer_learning", "finetune"))
            network = distributed.wrap(model, device)
            objective = BinaryAndSite(images.table, images.train, device, site, **pick(
                options, "balance", "label_smoothing", "select", "site_lambda", "site_balance", "site_smoothing",
                "oversample"))
            if objective.untaught:
                say(f"warning: no training image shows {', '.join(objective.untaught)}: the site head cannot learn it")
            if wrong := mirrored_sites(site["sites"], options.augm):
                say(f"warning: --augm {options.augm} mirrors the images but not the names of {', '.join(wrong)}: give "
                    "--augm 0, 4 or 5")
            optimizer = build_optimizer(model.parameters(), **pick(options, "optimizer", "lr", "wd", "momentum"))
            steps = steps_per_epoch(images.train, objective.y_true, **pick(options, "batch_size", "oversample"))
            schedule = Schedule(optimizer, steps,
                                **pick(options, "nepochs", "lr_schedule", "lr_anneal", "warmup_epochs"))
            state, recorder, batches = begin(run, images, model, objective, optimizer, schedule, head | site, device,
                                             amp)

            with recorder.interruptible():
                for epoch in state.epochs(options.nepochs, options.early_stopping):
                    train = train_one_epoch(network, objective, optimizer, batches.training(epoch, state.batches),
                                            state, recorder.after_batch)
                    if options.eval_train:
                        train = evaluate(state.kept, batches.training_set(), amp, "training set", recorder.check)
                    validation = evaluate(state.kept, batches.validation(), amp, check=recorder.check)
                    recorder.epoch(state.end_epoch(objective, train, validation))
            runs.finished(run, state)
    return runs.summary()


if __name__ == "__main__":
    run_script(get_args_parser, main)
