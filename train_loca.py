"""Train the network of two heads, Deauville score and site of the lesion, on one or several data splits.

python train_loca.py --split_index 0 --run 1 --output results_loca
python train_loca.py --split_index 0-19 --run 1 --output results_loca --site_balance --select sum
python train_loca.py --split_index 0 --output results_loca --checkpoint results/checkpoint_split0_run1.pth --site_detach

The manifest's target_loc holds the site's code (51: no lesion). Everything else is as in train.py: the files, --resume,
torchrun. The log has the site's accuracy (loc_acc), balanced accuracy (loc_bacc) and top-3 accuracy (loc_top3) too.
"""
from common import arguments
from common.arguments import run_script


def get_args_parser():
    parser = arguments.training_parser(__doc__, "results_loca")
    arguments.add_site_arguments(parser)
    return parser


def main(args):
    import utils
    from common.sites import read_sites
    from dataset_loca import read_loca_manifest
    from training import objectives, runs

    sites = read_sites(args.site_map)
    settings = objectives.site_settings(args, sites)

    def read_table(args, splits):
        table, warnings = read_loca_manifest(args.data, splits, sites, args.site_multi, args.site_strict)
        for line in warnings:
            runs.say(f"warning: {line}")
        return table

    def build_model(args):
        head = utils.head_settings(args)
        model = utils.ResNet34(**head, sites=settings["sites"], site_head=args.site_head, site_detach=args.site_detach)
        return model, head | settings

    def build_task(args, table, train, device):
        task = objectives.Sites(table, train, device, args, settings)
        if task.untaught:
            runs.say(f"warning: no training image shows {', '.join(task.untaught)}: the site head cannot learn it")
        return task

    return runs.train_all(args, read_table, build_model, build_task)


if __name__ == "__main__":
    run_script(get_args_parser, main)
