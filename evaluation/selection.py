"""What validation patients chose before anything was measured: epoch, run, trial, top K, thresholds.

What was chosen by a score looks better on that score's patients than on others. Nothing is claimed that the files of a
run do not say: best_run.csv, settings, logs, and the tables of a search.
"""
import argparse
import collections
from collections.abc import Iterable
from pathlib import Path

from common import params
from common.files import InputError, read_csv
from common.model_files import read_settings
from common.run_files import find_run_files
from common.settings import base_names, differences
from common.text import counted, ranges
from evaluation.ensemble import Model
from evaluation.ranking import read_ranks

FOLLOWED = {"auc": "validation AUC", "loc": "balanced accuracy of the site in validation",
            "sum": "sum of both"}  # --select of train_loca.py
SEARCHES = {"best_params_summary.csv": "optuna_results_split{}.csv",
            "best_params_finetuning_summary.csv": "optuna_resultsfinetuning_split{}.csv"}


def describe_selection(models: list[Model], top: int | None, ranking: Path, folder: Path,
                       thresholds: str | None) -> dict:
    """How the models that are measured were chosen: `selection` of metrics.json.

    Parameters
    ----------
    models
        Of `ensemble.find_models`.
    top : int or None
        --top.
    ranking : Path
        best_run.csv, there or not.
    folder : Path
        Of the models' settings and logs, and of a search.
    thresholds : str or None
        Where they come from: `source` of `operating_points.derive_rules`.

    Returns
    -------
    dict
        models, top (None where it is all that are ranked), ranked (how many there are in best_run.csv; None without
        it), splits (whose validation patients chose), epochs {file: kept epoch}, criteria {file: what chose it; None:
        it is the last one of a fixed number}, runs, trials {split: of how many the model is the best; None: of an
        unknown number}, together (splits of which several runs are used), thresholds; and steps and summary of
        `in_words`.
    """
    ranks = read_ranks(ranking) if ranking.is_file() else {}
    top = None if top == len(ranks) else top  # all that are ranked: none was chosen
    settings = {model.file: _settings(folder, model) for model in models}
    known = {file: each for file, each in settings.items() if "epoch" in each}
    trials = ((model.split, _trials(folder, model.split, settings[model.file])) for model in models)
    used = collections.Counter(model.split for model in models)
    found = {
        "models": len(models), "top": top, "ranked": len(ranks) or None,
        "splits": sorted({split for split, _ in ranks} if top else {model.split for model in models}),
        "epochs": {file: each["epoch"] for file, each in known.items()},
        "criteria": {file: _criterion(each.get("args", {})) for file, each in known.items()},
        "runs": {model.split: _runs((ranking.parent, folder), model.split) for model in models
                 if model.rank and used[model.split] == 1},
        "together": sorted(split for split, count in used.items() if count > 1),
        "trials": {split: count for split, count in trials if count != 0}, "thresholds": thresholds}
    return found | in_words(found, ranking.name)


def in_words(found: dict, ranking: str) -> dict:
    """steps, {what was chosen: how, as far as it is known}, and summary, what they mean together (or None)."""
    count, top, ranked, criteria, runs, trials = (found[key] for key in ("models", "top", "ranked", "criteria", "runs",
                                                                         "trials"))
    steps = {"Epoch": "not known: there are no settings", "Run": f"not known: not in {ranking}",
             "Trial": "no search is known that gave these settings",
             "Models": f"all {count} that have predictions" + f"; {ranking} ranks {ranked}" * bool(ranked),
             "Thresholds": "0.5 alone"}
    if criteria:
        kept = collections.Counter(f"the {how or 'last one, whatever its validation'}" for how in criteria.values())
        steps["Epoch"] = "; ".join(f"{how}, in {n} of {counted(count, 'model')}" for how, n in sorted(kept.items()))
    if runs:
        steps["Run"] = f"the best of {_many(runs)} by validation AUC, in {_splits(runs)}"
    if set(runs.values()) == {1}:
        steps["Run"] = "the only one of its split"
    if found["together"]:
        steps["Run"] = f"{steps['Run']}; " * bool(runs) + f"several together, in {_splits(found['together'])}"
    if trials:
        steps["Trial"] = f"the best of {_many(trials)} of a search by validation AUC, in {_splits(trials)}"
    if top:
        steps["Models"] = (f"{count} of {ranked} by validation AUC, each over the validation set of its own split "
                           f"({_splits(found['splits'])})")
    if found["thresholds"]:
        steps["Thresholds"] = f"derived from {found['thresholds']}"
    by_validation = {"epoch": any(criteria.values()), "run": any(of != 1 for of in runs.values()), "trial": trials,
                     "models": top, "thresholds": str(found["thresholds"]).startswith("validation")}
    chosen = [name for name, known in by_validation.items() if known]
    of = _splits(found["splits"]) + " (each split its own)" * (len(found["splits"]) > 1)
    summary = f"The validation patients of {of} chose {', '.join(chosen[:-1])} and {''.join(chosen[-1:])}: on them the "
    return {"steps": steps, "summary": f"{summary}models look better than on others." if len(chosen) > 1 else None}


def _splits(numbers: Iterable[int]) -> str:
    """[0, 1, 2] -> "splits 0-2"."""
    found = sorted(numbers)
    return f"split{'s' * (len(found) > 1)} {ranges(found)}"


def _many(counts: dict[int, int | None]) -> str:
    """{split: 2, another: 3} -> "2 to 3"; "an unknown number" where no number is known."""
    known = sorted({count for count in counts.values() if count is not None})
    return " to ".join(map(str, dict.fromkeys((known[0], known[-1])))) if known else "an unknown number"


def _settings(folder: Path, model: Model) -> dict:
    """The model's settings, or {}; `provenance.models_settings` warns where they cannot be read."""
    try:
        return read_settings(folder, model.split, model.run) or {}
    except InputError:
        return {}


def _criterion(args: dict) -> str | None:
    """What chose the epoch that a run kept, by its arguments; None: nothing that was measured in validation."""
    followed = FOLLOWED[args.get("select") or "auc"]
    if args.get("keep", "best") == "best":
        return f"one with the best {followed}"
    return f"last one, under early stopping by {followed}" if args.get("early_stopping") else None


def _runs(folders: Iterable[Path], split: int) -> int | None:
    """How many runs of a split have a log in the first folder that has any; None where none has."""
    counts = (sum(found == split for found, _, _ in find_run_files(folder, "convergence")) for folder in folders)
    return next((count for count in counts if count), None)


def _trials(folder: Path, split: int, settings: dict) -> int | None:
    """Of how many trials, pruned ones included, the arguments are the best; 0: no search found them, None: unknown.

    By what train.py --params has stored, and by a search's tables in `folder`.
    """
    search, args = settings.get("search"), settings.get("args", {})
    found: list[int | None] = [search.get("trials")] if search else []
    for name, results in SEARCHES.items():
        stem = Path(name).stem
        for summary in [folder / name, *sorted(folder.glob(f"{stem}_*.csv"))]:  # of the default study, of others
            try:
                best = vars(params.with_values(argparse.Namespace(), params.read_values(str(summary), split)))
            except InputError:  # none of this split
                continue
            if args and not differences(base_names(best), args):
                path = folder / results.format(f"{split}{summary.stem.removeprefix(stem)}")
                states = read_csv(path, ("state",))["state"] if path.is_file() else None
                found.append(None if states is None else int(states.isin(("COMPLETE", "PRUNED")).sum()))
    return max((count for count in found if count is not None), default=None if found else 0)
