"""What a hyperparameter search found: tables, and one page that needs no network. Imports no torch.

A study is an optuna.Study with one objective, trained epochs as its steps. Of a trial's user attributes the page reads
kept_epoch (best_epoch in earlier versions), and reason: why it was pruned or failed; of the study's own, notices.
"""
import math
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import optuna
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState
from plotly.offline import get_plotlyjs

from common import files, html, renamed
from common.run_files import safe_name
from common.text import as_text, counted, ranges

DEFAULT = "optun"  # --study of optun.py; of optuna_finetuning.py it is the label
COLUMNS = ("number", "value", "datetime_start", "datetime_complete", "duration")
VALUE = "Validation AUC"
BEST = 10  # trials of a split's table
ENOUGH, FEW = 5, 50  # complete trials below which there are no importances; below which they are called rough: Optuna
# advises five in the best tenth
HEIGHT, SLICE_HEIGHT = 320, 250  # pixels
STATES = {  # name shown, why trials are in that state where they do not say it themselves
    TrialState.COMPLETE: ("complete", ""), TrialState.PRUNED: ("pruned", "by the pruner"),
    TrialState.FAIL: ("failed", "not recorded: the process was killed or lost"),
    TrialState.RUNNING: ("running", "or their process died a moment ago"),
    TrialState.WAITING: ("waiting", "for a process to take them")}
_AXIS = {"gridcolor": "#e4e4e4", "linecolor": "#888", "ticks": "outside", "zeroline": False, "automargin": True}
TEMPLATE = go.layout.Template(layout={
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#111"}, "paper_bgcolor": "#fff",
    "plot_bgcolor": "#fff", "margin": {"l": 60, "r": 15, "t": 30, "b": 50}, "hovermode": "closest",
    "colorway": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"],
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}, "xaxis": _AXIS, "yaxis": _AXIS})


# ---------------------------------------------------------------- tables

class Files:
    """The files of a search.

    Parameters
    ----------
    folder : Path
        --output.
    label : str
        "finetuning" or "", part of their names.
    study : str
        --study; another than the default is part of their names, too: it has tables of its own.

    Attributes
    ----------
    summary : Path
        The best trial of each split, for train.py --params.
    report : Path
        The page.
    """

    def __init__(self, folder: Path, label: str = "", study: str = DEFAULT) -> None:
        self.folder, self.label, joined = folder, label, f"_{label}" if label else ""
        self.end = "" if study == (label or DEFAULT) else f"_{safe_name(study)}"
        self.summary = folder / f"best_params{joined}_summary{self.end}.csv"
        self.report = folder / f"optuna{joined}_report{self.end}.html"

    def results(self, split: int | str) -> Path:
        """The trials of a split's study."""
        return self.folder / f"optuna_results{self.label}_split{split}{self.end}.csv"


def check_tables(paths: Files, load: Callable[[], dict[int, optuna.Study]], where: str) -> None:
    """Refuse a folder with tables of other studies than this search's: they would be replaced.

    Parameters
    ----------
    load : callable
        -> the studies by their split, of any splits; called when the tables are read, since other workers write them.
    where : str
        The studies' storage as the error names it.

    Raises
    ------
    InputError
        A table has a trial that its split's study, if there is one, has not.
    """
    before, after = paths.results("*").name.split("*")
    tables = {path: files.read_csv(path, ("datetime_start",))["datetime_start"]
              for path in sorted(paths.folder.glob(f"{before}*{after}"))
              if _split_of(path, before, after).isdecimal()}  # else of a --study whose name goes on
    studies = load() if tables else {}
    for path, starts in tables.items():
        study = studies.get(int(_split_of(path, before, after)))
        known = {trial.datetime_start for trial in study.get_trials(deepcopy=False)} if study else set()
        if not set(pd.to_datetime(starts, format="ISO8601", errors="coerce").dropna()) <= known:
            raise files.InputError(f"{path}: has trials that no study in {where} has: of another --storage, or deleted "
                                   "there; give another --study or --output, or move that search's files away")


def _split_of(path, before, after):
    return path.name[len(before):len(path.name) - len(after)]


def write_tables(paths: Files, studies: dict[int, optuna.Study]) -> None:
    """Write the table of each study and, where a trial is complete, the summary; `studies` has them by their split."""
    for split, study in studies.items():
        write_results(paths.results(split), study)
    if rows := [_winner(split, study) for split, study in studies.items() if best_trials(study)]:
        files.write_csv(pd.DataFrame(rows), paths.summary)


def write_results(path: str | Path, study: optuna.Study) -> None:
    """optuna_results_splitS.csv: one row per trial; what a trial does not have is empty.

    As Optuna's trials_dataframe writes it, but for whole numbers that only some trials have: 128, not 128.0.
    """
    trials = study.get_trials(deepcopy=False)
    columns = {name: [getattr(trial, name) for trial in trials] for name in COLUMNS}
    for kind in ("params", "user_attrs"):
        for name in sorted({name for trial in trials for name in getattr(trial, kind)}):
            columns[f"{kind}_{name}"] = pd.Series([getattr(trial, kind).get(name) for trial in trials], dtype=object)
    files.write_csv(pd.DataFrame(columns | {"state": [trial.state.name for trial in trials]}), path)


def _winner(split, study):
    """A row of best_params_summary.csv, for common.params: its SEARCH, what all trials have, and what was drawn."""
    best, settings = best_trials(study)[0], study.user_attrs["settings"]
    drawn = {name: as_text(value) for name, value in best.params.items()}
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    begun = {"labels_hash": settings.get("labels_hash"),
             "checkpoint_sha256": settings["checkpoint"] or settings.get("weights")}
    return ({"split": split, "number": best.number, "value": best.value, "trials": len(finished)}
            | {name: digest for name, digest in begun.items() if digest}
            | renamed.current_names(settings["fixed"]) | drawn)


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials, best first; of equal ones the earlier."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: (sign * trial.value, trial.number))


# ---------------------------------------------------------------- the page

def snapshot(study: optuna.Study) -> optuna.Study:
    """The study as it is now, in memory: other processes may go on with it, and each plot would ask its database."""
    copy = optuna.create_study(study_name=study.study_name, direction=study.direction)
    copy.add_trials(study.get_trials(deepcopy=False))
    return copy


def write_report(path: str | Path, title: str, studies: dict[int, optuna.Study]) -> None:
    """Write the page: a table over the splits, then each split's plots and best trials, folded where there are several.

    Parameters
    ----------
    path : str or Path
    title : str
        Of the page.
    studies : dict
        Split -> study, in any state.
    """
    notices = dict.fromkeys(line for study in studies.values() for line in study.user_attrs.get("notices", ()))
    studies = {split: snapshot(study) for split, study in sorted(studies.items())}
    trials = [trial for study in studies.values() for trial in study.get_trials(deepcopy=False)]
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    when = (f" from {date(min(starts))}" if starts else "") + (f" to {date(max(ends))}" if ends else "")
    names = ["Split", f"Best {VALUE[0].lower()}{VALUE[1:]}", "Trial", "Epoch kept",
             *(name.capitalize() for name, _ in STATES.values()), "Hours"]
    with warnings.catch_warnings(), files.progress(studies.items(), Path(path).name, "split") as bar:
        warnings.simplefilter("ignore")  # what Optuna would warn of, the page says
        parts = [split_part(split, study) for split, study in bar]
        html.write_page(path, "search.html", title=title, n_trials=counted(len(trials), "trial"), value=VALUE,
                        when=when, n_splits=counted(len(studies), "split"), splits=parts, plotly=Markup(get_plotlyjs()),
                        notices=list(notices), summary=(names, [part["row"] for part in parts]))


def split_part(split: int, study: optuna.Study) -> dict:
    """Everything about one split, as the template takes it; `row` is its row of the table over the splits."""
    trials, ranked = study.get_trials(deepcopy=False), best_trials(study)
    head, rows = best_table(ranked)
    number, value, epoch = rows[0][:3] if rows else ("", "none", "")
    hours = sum(trial.duration.total_seconds() for trial in trials if trial.duration and not _was_lost(trial)) / 3600
    return {"number": split, "n_trials": counted(len(trials), "trial"), "n_complete": len(ranked),
            "row": [Markup('<a href="#split{0}">{0}</a>').format(split), value, number, epoch,
                    *(str(sum(trial.state == state for trial in trials)) for state in STATES), f"{hours:.2f}"],
            "best": f"{value} in trial {number}" if ranked else "no complete trial",
            "states": states(trials), "best_table": (head, rows), "importances": importances(study, ranked),
            "plots": [history(study, trials, ranked), intermediate(study, trials)], "slices": slices(study, ranked)}


def _was_lost(trial):
    """Whether its process was killed: the trial then ended when another one noticed, perhaps days later."""
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs


def states(trials: list[FrozenTrial]) -> list[list[str]]:
    """A row for each state and reason: how many trials, which, and as which they were repeated."""
    again = {number: trial.number for trial in trials for number in trial.system_attrs.get("retry_history", [])[-1:]}
    groups = {}
    for trial in sorted(trials, key=lambda trial: (list(STATES).index(trial.state), trial.number)):
        name, reason = STATES[trial.state]
        reason = reason if trial.state == TrialState.COMPLETE else str(trial.user_attrs.get("reason", reason))
        groups.setdefault((name, reason), []).append(trial.number)
    return [[name, str(len(which)), reason, ranges(which), ", ".join(f"{n} as {again[n]}" for n in which if n in again)]
            for (name, reason), which in groups.items()]


def best_table(ranked: list[FrozenTrial]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of the best trials."""
    names = parameters(ranked)
    rows = [[str(trial.number), f"{trial.value:.4f}", kept_epoch(trial),
             f"{trial.duration.total_seconds():.0f}", *(as_shown(trial.params.get(name, "–")) for name in names)]
            for trial in ranked[:BEST]]
    return ["Trial", VALUE, "Epoch kept", "Seconds", *names], rows


# ---------------------------------------------------------------- Optuna's plots

def history(study: optuna.Study, trials: list[FrozenTrial], ranked: list[FrozenTrial]) -> dict:
    """The values of the complete trials."""
    if not ranked:
        return plot("History", "No trial is complete yet.")
    figure = optuna.visualization.plot_optimization_history(study, target_name=VALUE)
    figure.update_traces(hovertemplate="trial %{x}: %{y:.4f}<extra></extra>")
    figure.update_traces({"name": "best so far", "line_shape": "hv"}, {"name": "Best Value"})
    whole_numbers(figure, max(trial.number for trial in trials))
    return plot("History", f"{VALUE} of each complete trial, and the best so far.", figure)


def intermediate(study: optuna.Study, trials: list[FrozenTrial]) -> dict:
    """The values after each epoch."""
    epochs = [epoch for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
              for epoch in trial.intermediate_values]
    if not epochs:
        return plot("Intermediate values", "No trial has reported an epoch yet.")
    figure = optuna.visualization.plot_intermediate_values(study)
    pruned = {f"Trial{trial.number}" for trial in trials if trial.state == TrialState.PRUNED}
    figure.for_each_trace(lambda trace: trace.update(
        name=trace.name.replace("Trial", "trial "), marker_size=5, hovertemplate="epoch %{x}: %{y:.4f}",
        line={"width": 1.5, "dash": "dot" if trace.name in pruned else None}))
    figure.update_layout(xaxis_title="Epoch", yaxis_title=VALUE)
    whole_numbers(figure, max(epochs))
    return plot("Intermediate values", f"{VALUE} after each epoch; dotted: pruned trials.", figure)


def importances(study: optuna.Study, ranked: list[FrozenTrial]) -> dict:
    """How far the best tenth of the trials differs from all of them in each parameter."""
    name, drawn, n = "Importances", parameters(ranked), len(ranked)
    if n < ENOUGH or not drawn:
        return plot(name, f"They need {ENOUGH} complete trials, and parameters that were drawn; complete: {n}.")
    if not any(optuna.importance.get_param_importances(study, normalize=False).values()):
        return plot(name, f"{counted(n, 'complete trial does', 'complete trials do')} not tell the parameters apart.")
    rough = f" Rough: of {counted(n, 'complete trial')}, a parameter without any effect may come first."
    figure = optuna.visualization.plot_param_importances(study, target_name=VALUE)
    figure.update_traces(hovertemplate="%{y}: %{x:.2f}<extra></extra>", marker_color="#0072B2")
    figure.update_layout(xaxis={"title": "Share", "rangemode": "tozero"}, yaxis_title=None, margin_r=50)
    return plot(name, "How much each parameter has to do with being among the best tenth of the trials (PED-ANOVA, "
                f"Watanabe 2023), as shares of 1.{rough * (n < FEW)}", figure, 90 + 24 * len(drawn))


def slices(study: optuna.Study, ranked: list[FrozenTrial]) -> list[dict]:
    """One plot per parameter, all with the same vertical axis; the horizontal one is the range of the search."""
    plots, values, latest = [], [trial.value for trial in ranked], max((trial.number for trial in ranked), default=0)
    for name in parameters(ranked):
        room = 0.08 * (max(values) - min(values)) or 0.01
        figure = optuna.visualization.plot_slice(study, [name], target_name=VALUE)
        figure.update_traces(marker={"showscale": False, "size": 8, "cmin": -0.5 * latest - 1, "cmax": latest},
                             hovertemplate="%{x}: %{y:.4f} (trial %{marker.color})<extra></extra>")
        figure.update_layout(yaxis={"title": None, "range": [min(values) - room, max(values) + room]},
                             margin={"l": 45, "r": 10, "t": 10, "b": 45})
        every = [trial.distributions for trial in study.get_trials(deepcopy=False)]
        horizontal_axis(figure, [asked[name] for asked in every if name in asked])
        plots.append(plot("", "", figure, SLICE_HEIGHT))
    return plots


def horizontal_axis(figure: go.Figure, asked: list) -> None:
    """Of a slice: the range that was searched (`asked`, distributions), or the choices without quotation marks."""
    if isinstance(asked[0], optuna.distributions.CategoricalDistribution):
        figure.update_traces(x=[text.strip("'") for text in figure.data[0].x])
        figure.update_xaxes(categoryarray=[str(choice) for choice in asked[-1].choices],
                            range=[-0.5, len(asked[-1].choices) - 0.5])
        return
    low, high = min(each.low for each in asked), max(each.high for each in asked)
    if figure.layout.xaxis.type == "log":
        low, high = math.log10(low), math.log10(high)
        figure.update_xaxes(exponentformat="power", dtick=1 if high - low > 1 else None)
    room = 0.05 * (high - low) or 0.5
    figure.update_xaxes(range=[low - room, high + room], nticks=6)


def whole_numbers(figure: go.Figure, largest: int) -> None:
    """Ticks of the horizontal axis at whole numbers."""
    figure.update_xaxes(dtick=max(1, math.ceil(largest / 10)), tick0=0)


def plot(name: str, text: str, figure: go.Figure | None = None, height: int = HEIGHT) -> dict:
    """A figure with its heading, as the template takes it; without a figure the text says why."""
    if figure is not None:
        figure.update_layout(template=TEMPLATE, title=None, height=height, width=None)
    return {"name": name, "text": text, "height": height, "figure": figure and Markup(figure.to_json())}


# ---------------------------------------------------------------- texts

def parameters(trials: list[FrozenTrial]) -> list[str]:
    """The names of all parameters that were drawn, in the order of the first trial that has them."""
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def kept_epoch(trial: FrozenTrial) -> str:
    """The epoch whose validation AUC is the trial's value; "" where it is not stored."""
    return str(trial.user_attrs.get("kept_epoch", trial.user_attrs.get("best_epoch", "")))


def as_shown(value: object) -> str:
    """A parameter as text: floats with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def date(when: datetime) -> str:
    """Such as 4 March 2026, 05:06."""
    return f"{when.day} {when:%B %Y, %H:%M}"
