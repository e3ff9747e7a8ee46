"""Which of train.py's options have no effect, or another than meant, beside the others. Imports no torch.

The runs of a search are what its trials may be: an effect in one of them is one.
"""
from argparse import Namespace
from collections.abc import Iterable

from common.text import as_text

ONLY_WITH = {"hidden": ("cls_arch", "complex"), "dropout": ("cls_arch", "complex"), "momentum": ("optimizer", "sgd"),
             "lr_anneal": ("lr_schedule", "step"), "patience": ("early_stopping", True),
             "margin": ("image_size", ["auto"])}  # option: the other one, and the value without which it has no effect


def has_effect(name: str, args: Namespace) -> bool:
    """Whether the option `name`, of ONLY_WITH or not, has an effect beside the others of ONLY_WITH."""
    return name not in ONLY_WITH or getattr(args, ONLY_WITH[name][0]) == ONLY_WITH[name][1]


def without_effect(given: dict, runs: Iterable[Namespace]) -> list[str]:
    """A warning for each option of the command line that has no effect in any run.

    Parameters
    ----------
    given : dict
        {name: value} of the command line.
    runs : iterable of Namespace
        train.py's or train_loca.py's arguments of each run, with the values of recipe and --params.
    """
    reasons = [_reasons(args) for args in runs]
    return [f"warning: --{name}{'' if value is True else ' ' + as_text(value)} has no effect {reasons[0][name]}"
            for name, value in given.items() if reasons and all(name in each for each in reasons)]


def odd_together(given: dict, runs: Iterable[Namespace]) -> list[str]:
    """Warnings of options, one of them on the command line, whose effect together is hardly meant in one of the runs;
    as `without_effect`."""
    odd = []
    for args in runs:
        if args.balance and args.oversample and given.keys() & {"balance", "oversample"}:
            odd.append("warning: --balance beside --oversample: the rarer class, drawn as often as the other one, also "
                       "weighs more")
        if (args.warmup_epochs >= args.nepochs and args.lr_schedule != "onecycle"
                and given.keys() & {"warmup_epochs", "nepochs"}):
            odd.append(f"warning: --warmup_epochs {args.warmup_epochs} takes all of --nepochs {args.nepochs}: no epoch "
                       "has the learning rate --lr")
    return list(dict.fromkeys(odd))


def _reasons(args):
    """{name: why it has no effect, "without --early_stopping"}."""
    found = {name: f"without --{other}" + f" {as_text(needed)}" * (needed is not True)
             for name, (other, needed) in ONLY_WITH.items() if not has_effect(name, args)}
    if args.checkpoint and args.weights != "none":
        found["weights"] = "beside --checkpoint"
    if not (args.transfer_learning or args.finetune):
        found["cached_placements"] = "without --transfer_learning or --finetune"
    elif getattr(args, "site_head", None) == "grid":
        found["cached_placements"] = "with --site_head grid, which reads layers that are not kept"
    if getattr(args, "site_lambda", 1) == 0:
        found |= dict.fromkeys(("site_balance", "site_smoothing", "site_detach"), "with --site_lambda 0")
    elif args.transfer_learning:
        found["site_detach"] = "with --transfer_learning, which trains no backbone"
    if args.keep == "last" and not args.early_stopping and args.lr_schedule != "plateau":
        found["select"] = "with --keep last, without --early_stopping and --lr_schedule plateau"
    return found
