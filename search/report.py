"""What a hyperparameter search found: a CSV of each study's trials, and one page that needs no network. No torch.

A study is an optuna.Study with one objective, trained epochs as its steps. Of a trial's user attributes the page reads
best_epoch, and reason: why it was pruned or failed.
"""
import contextlib
import math
import warnings
from html import escape
from pathlib import Path

import optuna
import pandas as pd
import plotly.graph_objects as go
from optuna import visualization
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from common.files import progress, replace_file, write_csv
from common.text import ranges
from evaluation.report import head, section, table

VALUE = "Validation AUC"
COLUMNS = ("number", "value", "datetime_start", "datetime_complete", "duration")
BEST = 10  # trials of a split's table
ENOUGH, FEW = 5, 50  # complete trials below which there are no importances; below which they are called rough: Optuna
# advises five in the best tenth
HEIGHT, SLICE_HEIGHT = 320, 250  # pixels
STATES = {  # name shown, why trials are in that state where they do not say it themselves
    TrialState.COMPLETE: ("complete", ""), TrialState.PRUNED: ("pruned", "by the pruner"),
    TrialState.FAIL: ("failed", "not recorded: the process was killed or lost"),
    TrialState.RUNNING: ("running", "or their process died and its heartbeat is not missed yet"),
    TrialState.WAITING: ("waiting", "for a process to take them"),
}
TEMPLATE = go.layout.Template(layout={
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#111"}, "paper_bgcolor": "#fff",
    "plot_bgcolor": "#fff", "margin": {"l": 60, "r": 15, "t": 30, "b": 50}, "hovermode": "closest",
    "colorway": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"],
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    "xaxis": {"gridcolor": "#e4e4e4", "linecolor": "#888", "ticks": "outside", "zeroline": False, "automargin": True},
    "yaxis": {"gridcolor": "#e4e4e4", "linecolor": "#888", "ticks": "outside", "zeroline": False, "automargin": True},
})


# ---------------------------------------------------------------- results as a table

def write_results(path, study):
    """optuna_results_splitS.csv: a row a trial; what a trial does not have is empty.

    As Optuna's trials_dataframe writes it, but for whole numbers that only some trials have: 128, not 128.0.
    """
    trials = study.get_trials(deepcopy=False)
    columns = {name: [getattr(trial, name) for trial in trials] for name in COLUMNS}
    for kind in ("params", "user_attrs"):
        for name in sorted({name for trial in trials for name in getattr(trial, kind)}):
            columns[f"{kind}_{name}"] = pd.Series([getattr(trial, kind).get(name) for trial in trials], dtype=object)
    write_csv(pd.DataFrame(columns | {"state": [trial.state.name for trial in trials]}), path)


def snapshot(study):
    """The study as it is now, in memory: other processes may go on with it, and each plot would ask its database."""
    with quiet():
        copy = optuna.create_study(study_name=study.study_name, direction=study.direction)
        copy.add_trials(study.get_trials(deepcopy=False))
    return copy


@contextlib.contextmanager
def quiet():
    """Optuna says errors only: what it would warn of, the page says."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)


# ---------------------------------------------------------------- the page

def write_report(path, title, studies):
    """Write the page: a table over the splits, then each split's plots and best trials, folded where there are several.

    Args:
        title (str): of the page.
        studies (dict): split -> optuna.Study, in any state.
    """
    studies = {split: snapshot(study) for split, study in sorted(studies.items())}
    with replace_file(path) as file, quiet(), progress(studies.items(), Path(path).name, "split") as bar:
        file.write(head(title, STYLE, scripts=True) + f"<h1>{escape(title)}</h1>\n" + introduction(studies))
        for split, study in bar:
            file.write(split_part(split, study, len(studies) == 1))
        file.write(f"<script>{get_plotlyjs()}</script>\n{SCRIPT}</main>\n</body>\n</html>\n")


def introduction(studies):
    """What the values are, and the table over the splits."""
    trials = [trial for study in studies.values() for trial in study.get_trials(deepcopy=False)]
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    when = (f" from {date(min(starts))}" if starts else "") + (f" to {date(max(ends))}" if ends else "")
    rows = [[f"<a href='#split{split}'>{split}</a>", *summary(study)] for split, study in studies.items()]
    names = ["Split", f"Best {VALUE[0].lower()}{VALUE[1:]}", "Trial", "Best epoch",
             *(name.capitalize() for name, _ in STATES.values()), "Hours"]
    return (
        "<p class='notice'><b>For research use only.</b> Not a medical device; not for diagnosis or treatment.</p>\n"
        f"<p><b>{count(len(trials), 'trial')}</b> of {count(len(studies), 'split')}{when}. A trial's value is the "
        "validation AUC of its best epoch, at scan level (mean over the views). The best of many trials was chosen on "
        "these validation scans, so its value is too good; the test set, which a search never reads, measures the "
        "model that is trained from it.</p>\n"
        + section("Splits") + table(names, rows, raw=True)
        + "<p class='small'>Hours: of all trials together, on all processes.</p>\n")


def summary(study):
    """A split's row: best value, its trial and epoch, trials in each state, hours."""
    trials, ranked = study.get_trials(deepcopy=False), best_trials(study)
    best = [auc(ranked[0].value), str(ranked[0].number), epoch(ranked[0])] if ranked else ["none", "", ""]
    hours = sum(trial.duration.total_seconds() for trial in trials if trial.duration) / 3600
    return [*best, *(str(sum(trial.state == state for trial in trials)) for state in STATES), f"{hours:.2f}"]


def split_part(split, study, opened):
    """Everything about one split."""
    trials, ranked = study.get_trials(deepcopy=False), best_trials(study)
    best = f"{auc(ranked[0].value)} in trial {ranked[0].number}" if ranked else "no complete trial"
    parts = [f"<details id='split{split}'{' open' if opened else ''}>\n<summary><h2>Split {split}</h2> {best}, "
             f"{count(len(trials), 'trial')}</summary>\n"]
    if not trials:
        return parts[0] + "<p>The study has no trials yet.</p>\n</details>\n"
    parts += [states(trials), best_table(ranked), "<div class='plots'>\n"]
    parts += [history(study, trials, ranked), intermediate(study, trials), "</div>\n"]
    parts += [importances(study, ranked), slices(study, ranked), "</details>\n"]
    return "".join(parts)


def best_trials(study):
    """The complete trials, best first; of equal ones the earlier."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: (sign * trial.value, trial.number))


def states(trials):
    """How many trials are in which state, why, which, and as which they were done again."""
    again = {number: trial.number for trial in trials for number in trial.system_attrs.get("retry_history", [])[-1:]}
    groups = {}
    for trial in sorted(trials, key=lambda trial: (list(STATES).index(trial.state), trial.number)):
        name, reason = STATES[trial.state]
        reason = reason if trial.state == TrialState.COMPLETE else str(trial.user_attrs.get("reason", reason))
        groups.setdefault((name, reason), []).append(trial.number)
    rows = [[name, str(len(numbers)), reason, ranges(numbers),
             ", ".join(f"{n} as {again[n]}" for n in numbers if n in again)]
            for (name, reason), numbers in groups.items()]
    return "<h3>Trials by state</h3>\n" + table(["State", "Trials", "Reason", "Which", "Done again"], rows)


def best_table(ranked):
    if not ranked:
        return "<h3>Best trials</h3>\n<p>No trial is complete yet: there is no value to compare.</p>\n"
    names = parameters(ranked)
    rows = [[str(trial.number), auc(trial.value), epoch(trial), f"{trial.duration.total_seconds():.0f}",
             *(number(trial.params[name]) if name in trial.params else "–" for name in names)]
            for trial in ranked[:BEST]]
    shown = "The best trial" if len(rows) == 1 else f"The {len(rows)} best trials"
    return (f"<h3>Best trials</h3>\n<p class='small'>{shown} of {len(ranked)} that are complete; –: was not drawn, "
            "since it has no effect there.</p>\n" + table(["Trial", VALUE, "Best epoch", "Seconds", *names], rows))


# ---------------------------------------------------------------- Optuna's plots

def history(study, trials, ranked):
    name, text = "History", f"{VALUE} of each complete trial, and the best so far."
    if not ranked:
        return plot(name, "No trial is complete yet.")
    figure = visualization.plot_optimization_history(study, target_name=VALUE)
    figure.update_traces(hovertemplate="trial %{x}: %{y:.4f}<extra></extra>")
    figure.update_traces({"name": "best so far", "line_shape": "hv"}, {"name": "Best Value"})
    return plot(name, text, whole_numbers(figure, max(trial.number for trial in trials)))


def intermediate(study, trials):
    name, text = "Intermediate values", f"{VALUE} after each epoch; dotted: pruned trials."
    epochs = [epoch for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
              for epoch in trial.intermediate_values]
    if not epochs:
        return plot(name, "No trial has reported an epoch yet.")
    figure = visualization.plot_intermediate_values(study)
    pruned = {f"Trial{trial.number}" for trial in trials if trial.state == TrialState.PRUNED}
    figure.for_each_trace(lambda trace: trace.update(
        name=trace.name.replace("Trial", "trial "), marker_size=5, hovertemplate="epoch %{x}: %{y:.4f}",
        line={"width": 1.5, "dash": "dot" if trace.name in pruned else None}))
    figure.update_layout(xaxis_title="Epoch", yaxis_title=VALUE)
    return plot(name, text, whole_numbers(figure, max(epochs)))


def importances(study, ranked):
    """How far the best tenth of the trials differs from all of them in each parameter."""
    name, drawn = "Importances", parameters(ranked)
    if len(ranked) < ENOUGH or not drawn:
        return plot(name, f"They need {ENOUGH} complete trials, and parameters that were drawn; complete: "
                          f"{len(ranked)}.")
    found = optuna.importance.get_param_importances(study, normalize=False)
    if not any(found.values()):
        return plot(name, f"The {len(ranked)} complete trials do not tell the parameters apart.")
    rough = (f" Rough: of {len(ranked)} complete trials, a parameter without any effect may come first."
             if len(ranked) < FEW else "")
    figure = visualization.plot_param_importances(study, target_name=VALUE)
    figure.update_traces(hovertemplate="%{y}: %{x:.2f}<extra></extra>", marker_color="#0072B2")
    figure.update_layout(xaxis={"title": "Share", "rangemode": "tozero"}, yaxis_title=None, margin_r=50)
    return plot(name, "How much each parameter has to do with being among the best tenth of the trials (PED-ANOVA, "
                f"Watanabe 2023), as shares of 1.{rough}", figure, 90 + 24 * len(drawn))


def slices(study, ranked):
    """A plot a parameter, all with the same vertical axis; the horizontal one shows the whole range of the search."""
    if not parameters(ranked):
        return ""
    values, latest = [trial.value for trial in ranked], max(trial.number for trial in ranked)
    room = 0.08 * (max(values) - min(values)) or 0.01
    parts = ["<h3>Slices</h3>\n<p class='small'>", f"{VALUE} of the complete trials (vertical) against each "
             "parameter, over the range that is searched; darker points are later trials.</p>\n<div class='slices'>\n"]
    for name in parameters(ranked):
        figure = visualization.plot_slice(study, [name], target_name=VALUE)
        figure.update_traces(marker={"showscale": False, "size": 8, "cmin": -0.5 * latest - 1, "cmax": latest},
                             hovertemplate="%{x}: %{y:.4f} (trial %{marker.color})<extra></extra>")
        figure.update_layout(yaxis={"title": None, "range": [min(values) - room, max(values) + room]},
                             margin={"l": 45, "r": 10, "t": 10, "b": 45})
        asked = [trial.distributions[name] for trial in study.get_trials(deepcopy=False) if name in trial.distributions]
        horizontal_axis(figure, asked)
        parts.append(plot("", "", figure, SLICE_HEIGHT))
    return "".join(parts) + "</div>\n"


def horizontal_axis(figure, asked):
    """Of a slice: the range that was searched, or the choices without quotation marks."""
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


def whole_numbers(figure, largest):
    """Ticks of the horizontal axis at whole numbers."""
    figure.update_xaxes(dtick=max(1, math.ceil(largest / 10)), tick0=0)
    return figure


def plot(name, text, figure=None, height=HEIGHT):
    """A figure with its heading, drawn by SCRIPT when it comes into view; without a figure the text says why."""
    drawn = ""
    if figure is not None:
        figure.update_layout(template=TEMPLATE, title=None, height=height, width=None)
        drawn = (f"<div class='plot' style='height:{height}px'><script type='application/json'>{figure.to_json()}"
                 "</script></div>\n")
    heading = f"<h3>{escape(name)}</h3>\n<p class='small'>{escape(text)}</p>\n" if name else ""
    return f"<section>{heading}{drawn}</section>\n"


# ---------------------------------------------------------------- texts

def parameters(trials):
    """The names of all parameters that were drawn, in the order of the first trial that has them."""
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def auc(value):
    return f"{value:.4f}"


def number(value):
    """A parameter as text: floats with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def epoch(trial):
    return str(trial.user_attrs.get("best_epoch", ""))


def date(when):
    return f"{when.day} {when:%B %Y, %H:%M}"


def count(n, name):
    return f"{n} {name}{'' if n == 1 else 's'}"


STYLE = """
details { border-top: 1px solid var(--line); }
summary { cursor: pointer; padding: .5rem 0; } summary h2 { display: inline; margin: 0 .6rem 0 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 0 1.5rem; }
.slices { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); gap: .5rem 1rem; }
section { min-width: 0; }
"""

SCRIPT = """<script>
// Each plot is drawn when it comes near the window, those of a folded split when it is opened. A finger scrolls.
const touched = matchMedia("(pointer: coarse)").matches;
function draw(div) {
  const figure = JSON.parse(div.firstElementChild.textContent);
  seen.unobserve(div);
  Plotly.newPlot(div, figure.data, {...figure.layout, dragmode: touched ? false : "zoom"},
                 {responsive: true, modeBarButtons: [["toImage"]], displaylogo: false});
}
const seen = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, {rootMargin: "800px"});
for (const div of document.querySelectorAll(".plot")) seen.observe(div);
function unfold() {
  const part = document.getElementById(location.hash.slice(1));
  if (part) part.open = true;
}
addEventListener("hashchange", unfold);
unfold();
</script>
"""
