"""Tables and page of a hyperparameter search."""
import datetime
import json
import math
import re
import shutil
import subprocess

import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from page_helpers import Page
from plotly.offline import get_plotlyjs

from search import report, studies

SPACE = {"lr": FloatDistribution(1e-5, 1e-2, log=True), "batch_size": CategoricalDistribution((16, 32, 64)),
         "cls_arch": CategoricalDistribution(("simple", "complex")), "hidden": IntDistribution(64, 512, step=64),
         "balance": CategoricalDistribution((False, True))}
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
START = datetime.datetime(2026, 3, 4, 5, 6, 7)


def trial(number, value=None, state=TrialState.COMPLETE, system=None, epochs=(), lr=1e-3, hidden=None, **attributes):
    """Trial `number` began that many minutes after START; a finished one took 90 s."""
    params = {"lr": lr, "batch_size": 32, "cls_arch": "complex" if hidden else "simple", "balance": bool(number % 2)}
    params |= {"hidden": hidden} if hidden else {}
    made = create_trial(state=state, value=value, params=params, distributions={name: SPACE[name] for name in params},
                        user_attrs=attributes, system_attrs=system or {},
                        intermediate_values=dict(enumerate(epochs, start=1)))
    made.datetime_start = START + datetime.timedelta(minutes=number)
    if state.is_finished():
        made.datetime_complete = made.datetime_start + datetime.timedelta(seconds=90)
    return made


def study_of(*trials):
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def mixed():
    """Trials in every state but waiting: 2 complete, 3 pruned, 1 failed and done again as 6, which runs."""
    return study_of(
        trial(0, 0.81, epochs=(0.7, 0.81), kept_epoch=2), trial(1, 0.93, hidden=128, lr=2e-4, kept_epoch=1),
        trial(2, 0.6, TrialState.PRUNED, epochs=(0.6,)), trial(3, 0.5, TrialState.PRUNED, epochs=(0.5,)),
        trial(4, None, TrialState.PRUNED, reason="out of memory: <script>alert(1)</script> & more"),
        trial(5, None, TrialState.FAIL), trial(6, None, TrialState.RUNNING, {"retry_history": [5]}))


def pages(path, studies, title="Search"):
    report.write_report(path, title, studies)
    return path.read_text()


def words(text):
    page = Page(text)
    assert page.open == [] and page.sources == [] and len(page.ids) == len(set(page.ids))
    assert all(link[0] == "#" and link[1:] in page.ids for link in page.links)
    shown = Page(re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL))
    return re.sub(r"\s+", " ", " ".join(shown.words))


def figures(text):
    found = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [json.loads(each) for each in found]


def slice_of(text, name):
    return next(each for each in figures(text) if each["layout"]["xaxis"].get("title", {}).get("text") == name)


# ---------------------------------------------------------------- results

def test_results_have_the_thesis_columns_and_the_drawn_values(tmp_path):
    report.write_results(tmp_path / "r.csv", mixed())
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines[0] == ("number,value,datetime_start,datetime_complete,duration,params_balance,params_batch_size,"
                        "params_cls_arch,params_hidden,params_lr,user_attrs_kept_epoch,user_attrs_reason,state")
    assert lines[1] == ("0,0.81,2026-03-04 05:06:07,2026-03-04 05:07:37,0 days 00:01:30,"
                        "False,32,simple,,0.001,2,,COMPLETE")
    assert lines[2].split(",")[5:] == ["True", "32", "complex", "128", "0.0002", "1", "", "COMPLETE"]
    assert lines[5].split(",")[1] == "" and lines[5].endswith("& more,PRUNED")
    assert lines[7].split(",")[3:5] == ["", ""] and lines[7].endswith("RUNNING") and len(lines) == 8


def test_results_are_optunas_own_table_where_no_trial_lacks_a_parameter(tmp_path):
    study = study_of(*(trial(number, 0.1 * number, hidden=64, kept_epoch=number) for number in range(12)))
    report.write_results(tmp_path / "r.csv", study)
    attributes = (*report.COLUMNS, "params", "user_attrs", "state")
    assert (tmp_path / "r.csv").read_text() == study.trials_dataframe(attributes).to_csv(index=False)


def test_results_of_a_study_without_trials(tmp_path):
    report.write_results(tmp_path / "r.csv", study_of())
    assert (tmp_path / "r.csv").read_text() == "number,value,datetime_start,datetime_complete,duration,state\n"


# ---------------------------------------------------------------- page

def test_page_is_whole_offline_and_escaped(tmp_path):
    text = pages(tmp_path / "r.html", {3: mixed()}, "Search & <b>report</b>")
    assert text.count(get_plotlyjs()) == 1 and "default-src 'none'" in text
    said = words(text)
    assert "Search & <b>report</b>" in said and "<script>alert(1)</script> & more" in said
    assert "from 4 March 2026, 05:06 to 4 March 2026, 05:12" in said and "7 trials" in said
    assert '<details id="split3" open>' in text


def test_page_says_what_no_reader_may_miss(tmp_path):
    study = mixed()
    assert 'class="notice loud"' not in pages(tmp_path / "r.html", {0: study})
    table = pd.DataFrame({"synthetic": ["1", ""], "leakage": "patient P-4711-Q is in train and val"})
    for _ in range(2):  # two workers
        studies.mark(study, table)
    text = pages(tmp_path / "r.html", {0: mixed(), 1: study})
    assert text.count('class="notice loud"') == 2 and "4711-Q" not in text
    assert "The cohort is SYNTHETIC" in text and "LEAKAGE: patients or images are in two sets" in text


def rows(text, first):
    """The texts of the table's rows that begin with `first`."""
    found = re.findall(rf'<tr><th scope="row">(?:<a [^>]*>)?{first}(?:</a>)?</th>(.*?)</tr>', text, re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", row) for row in found]


def test_states_reasons_and_repetitions(tmp_path):
    text = pages(tmp_path / "r.html", {0: mixed()})
    assert rows(text, "complete") == [["2", "", "0-1", ""]]
    assert rows(text, "pruned") == [["2", "by the pruner", "2-3", ""],
                                    ["1", "out of memory: &lt;script&gt;alert(1)&lt;/script&gt; &amp; more", "4", ""]]
    assert rows(text, "failed")[0][2:] == ["5", "5 as 6"]
    assert rows(text, "running")[0][2:] == ["6", ""]
    # split, best value, trial, its epoch, complete, pruned, failed, running, waiting, hours: 5 x 90 s
    assert rows(text, "0")[0] == ["0.9300", "1", "1", "2", "3", "1", "1", "0", "0.12"]


def test_hours_are_without_the_time_until_a_killed_process_was_noticed(tmp_path):
    killed, interrupted = (trial(number, None, TrialState.FAIL, **more)
                           for number, more in ((1, {}), (2, {"reason": "interrupted"})))
    killed.datetime_complete += datetime.timedelta(days=3)  # the search was started again after the weekend
    interrupted.datetime_complete += datetime.timedelta(hours=1)
    assert rows(pages(tmp_path / "r.html", {0: study_of(trial(0, 0.8), killed, interrupted)}), "0")[0][-1] == "1.05"


def test_best_trials_are_ranked_and_show_what_was_drawn(tmp_path):
    values = [0.5 + 0.01 * (7 * number % 12) for number in range(12)]
    study = study_of(*(trial(number, value, hidden=64 if number == 5 else None, kept_epoch=number + 1)
                       for number, value in enumerate(values)))
    text = pages(tmp_path / "r.html", {0: study})
    table = text[text.index("The 10 best trials of 12"):text.index('class="plots"')]
    shown = re.findall(r'<th scope="row">(\d+)</th>', table)
    assert [int(number) for number in shown] == sorted(range(12), key=lambda number: -values[number])[:10]
    assert shown[0] == "5" and rows(table, "5") == [["0.6100", "6", "90", "0.001", "32", "complex", "True", "64"]]
    assert rows(table, shown[1])[0][-1] == "–"
    assert "Rough: of 12 complete trials" in words(text)


def test_of_minimized_values_the_lowest_is_best():
    study = optuna.create_study(direction="minimize")
    study.add_trials([trial(0, 0.3), trial(1, 0.2), trial(2, 0.2)])
    assert [each.number for each in report.best_trials(study)] == [1, 2, 0]


@pytest.mark.parametrize(("trials", "plots", "phrases"), [
    ((), 0, ("The study has no trials yet.", "no complete trial, 0 trials")),
    ((trial(0, None, TrialState.WAITING),), 0, ("No trial has reported an epoch", "no complete trial, 1 trial")),
    ((trial(0, None, TrialState.PRUNED, epochs=(0.6,)), trial(1, None, TrialState.PRUNED, epochs=(0.5,))), 1,
     ("No trial is complete yet: there is no value to compare", "They need 5 complete trials", "no complete trial")),
    ((trial(0, 0.7, best_epoch=1),), 1 + 4,
     ("The best trial of 1", "5 complete trials, and parameters that were drawn; complete: 1.")),
    (tuple(trial(number, 0.7) for number in range(6)), 1 + 4,
     ("The 6 best trials of 6", "6 complete trials do not tell")),
    (tuple(create_trial(value=0.5, params={}, distributions={}) for _ in range(6)), 1,
     ("parameters that were drawn; complete: 6.",)),
], ids=["none", "waiting", "pruned", "one", "equal", "nothing drawn"])
def test_what_cannot_be_drawn_is_said(tmp_path, trials, plots, phrases):
    text = pages(tmp_path / "r.html", {0: study_of(*trials)})
    assert len(figures(text)) == plots
    said = words(text)
    for phrase in phrases:
        assert phrase in said, phrase


def test_plots_show_the_trials(tmp_path):
    text = pages(tmp_path / "r.html", {0: mixed()})
    found = figures(text)
    assert len(found) == 2 + 5  # history, intermediate values; five parameters
    points, best = found[0]["data"][:2]
    assert points["x"] == [0, 1] and points["y"] == [0.81, 0.93] and best["name"] == "best so far"
    lines = {each["name"]: each for each in found[1]["data"]}
    assert lines["trial 0"]["x"] == [1, 2] and lines["trial 0"]["y"] == [0.7, 0.81]
    assert lines["trial 2"]["line"]["dash"] == "dot" and "dash" not in lines["trial 0"]["line"]


def test_slices_show_the_whole_range_that_was_searched(tmp_path):
    wide = trial(7, 0.7)
    wide.distributions["lr"] = FloatDistribution(1e-6, 1e-3, log=True)  # a search that went on with another --space
    study = mixed()
    study.add_trial(wide)
    text = pages(tmp_path / "r.html", {0: study})
    axis = slice_of(text, "lr")["layout"]["xaxis"]
    assert axis["type"] == "log" and axis["range"] == pytest.approx([-6.2, -1.8])  # 1e-6 to 1e-2, and 5 % room
    hidden = slice_of(text, "hidden")
    assert hidden["data"][0]["x"] == [128] and hidden["layout"]["xaxis"]["range"] == pytest.approx([41.6, 534.4])
    for name, choices in (("cls_arch", ["simple", "complex"]), ("batch_size", ["16", "32", "64"]),
                          ("balance", ["False", "True"])):
        shown = slice_of(text, name)
        assert shown["layout"]["xaxis"]["type"] == "category" and shown["layout"]["xaxis"]["categoryarray"] == choices
        assert set(shown["data"][0]["x"]) <= set(choices)
    heights = [slice_of(text, name)["layout"]["yaxis"]["range"] for name in ("lr", "balance")]
    assert heights[0] == heights[1] and heights[0][0] < 0.7 and heights[0][1] > 0.93


def test_importances_find_the_parameter_that_matters(tmp_path):
    def objective(trial):
        lr = trial.suggest_float("lr", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("balance", (False, True))
        return 0.9 - 0.1 * abs(math.log10(lr) + 3)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=60)
    text = pages(tmp_path / "r.html", {0: study})
    bars = figures(text)[1]["data"][0]  # no intermediate values
    assert dict(zip(bars["y"], bars["x"], strict=True))["lr"] > 0.8 and sum(bars["x"]) == pytest.approx(1)
    assert "Rough" not in words(text)


def test_several_splits_are_folded_and_summed_up(tmp_path):
    studies = {split: study_of(trial(0, 0.7 + 0.01 * split, kept_epoch=1)) for split in (10, 2, 0)}
    studies[5] = study_of()
    text = pages(tmp_path / "r.html", studies)
    assert re.findall(r'<details id="split(\d+)">', text) == ["0", "2", "5", "10"]
    assert rows(text, "10")[0][:3] == ["0.8000", "0", "1"] and rows(text, "5")[0][0] == "none"
    assert "3 trials of 4 splits" in words(text) and text.count(get_plotlyjs()) == 1


def test_a_study_that_grows_meanwhile_is_not_changed(tmp_path):
    study = mixed()
    pages(tmp_path / "r.html", {0: study})
    assert len(study.trials) == 7


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
def test_a_browser_draws_every_plot(tmp_path):
    pages(tmp_path / "r.html", {0: mixed()})
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,4000",
                           "--virtual-time-budget=8000", "--dump-dom", (tmp_path / "r.html").as_uri()],
                          capture_output=True, text=True, timeout=300)
    assert done.stdout.count("class=\"plot js-plotly-plot\"") == 7
