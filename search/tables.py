"""What a search found as CSVs: every trial of each study, and the best one of each. Imports no torch."""
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from common.files import write_csv
from common.params import as_text
from common.renamed import current_names

COLUMNS = ("number", "value", "datetime_start", "datetime_complete", "duration")


@dataclass
class Files:
    """The files of a search.

    Attributes
    ----------
    folder : Path
        --output.
    label : str
        "finetuning" or "", part of their names.
    """
    folder: Path
    label: str = ""

    def results(self, split: int | str) -> Path:
        """The trials of a split's study."""
        return self.folder / f"optuna_results{self.label}_split{split}.csv"

    @property
    def summary(self) -> Path:
        """The best trial of each split, for train.py --params."""
        return self.folder / f"best_params{'_' * bool(self.label)}{self.label}_summary.csv"

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / f"optuna{'_' * bool(self.label)}{self.label}_report.html"


def write_tables(files: Files, studies: dict[int, optuna.Study]) -> None:
    """Write the table of each study and, where a trial is complete, the summary; `studies` has them by their split."""
    for split, study in studies.items():
        write_results(files.results(split), study)
    if rows := [_winner(split, study) for split, study in studies.items() if best_trials(study)]:
        write_csv(pd.DataFrame(rows), files.summary)


def write_results(path: str | Path, study: optuna.Study) -> None:
    """optuna_results_splitS.csv: one row per trial; what a trial does not have is empty.

    As Optuna's trials_dataframe writes it, but for whole numbers that only some trials have: 128, not 128.0.
    """
    trials = study.get_trials(deepcopy=False)
    columns = {name: [getattr(trial, name) for trial in trials] for name in COLUMNS}
    for kind in ("params", "user_attrs"):
        for name in sorted({name for trial in trials for name in getattr(trial, kind)}):
            columns[f"{kind}_{name}"] = pd.Series([getattr(trial, kind).get(name) for trial in trials], dtype=object)
    write_csv(pd.DataFrame(columns | {"state": [trial.state.name for trial in trials]}), path)


def _winner(split, study):
    """A row of best_params_summary.csv, as common.params.read_values reads it."""
    best = best_trials(study)[0]
    drawn = {name: as_text(value) for name, value in best.params.items()}
    return {"split": split, "number": best.number, "value": best.value} | drawn | current_names(
        study.user_attrs["settings"]["fixed"])


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials, best first; of equal ones the earlier."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: (sign * trial.value, trial.number))
