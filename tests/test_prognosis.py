"""aggregate.py --survival: outcomes from the prediction files, one scan a patient, table, figure and page."""
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_helpers import Page
from prediction_helpers import predictions, write

import aggregate
from common.files import InputError
from evaluation import ensemble, prognosis, survival
from evaluation.averaging import average_models

ASKED = ("--survival", "pfs_months", "pfs_event", "months")
N = 60


def outcomes(seed=0, n=N):
    """Scans with a target, a patient each and their outcome."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, n)
    time, end = rng.exponential(60 / 3**target), rng.uniform(6, 72, n)
    return pd.DataFrame({"scan_id": [f"s{k:03d}" for k in range(n)], "target": target,
                         "patient_id": [f"p{k:03d}" for k in range(n)],
                         "pfs_months": np.minimum(time, end).round(1), "pfs_event": (time <= end).astype(int)})


def run(folder, *arguments):
    args = ["--dir", str(folder), "--output", str(folder), "--resamples", "20", *arguments]
    aggregate.main(aggregate.get_args_parser().parse_args(args))
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prognosis") / "results"
    scans = outcomes()
    write(folder, predictions(0, scans), predictions(1, scans))
    return folder, scans, run(folder, *ASKED)


def read(folder, asked=(ASKED[1:],)):
    models, warnings = ensemble.find_models(folder)
    ensemble.read_models(models, None, prognosis.columns(asked))
    scans, _ = ensemble.join_scans(models)
    return prognosis.read_endpoints(models, scans, asked, warnings), scans, models, warnings


def test_the_numbers_are_those_of_the_statistics(done):
    folder, scans, metrics = done
    block = metrics["prognosis"]["pfs_months"]
    assert (block["n_patients"], block["n_events"], block["unit"]) == (N, scans["pfs_event"].sum(), "months")
    assert block["years"] == {"1": 12, "2": 24, "5": 60}
    table = pd.read_csv(folder / "ensemble_avg.csv").merge(scans.drop(columns=["target", "patient_id"]), on="scan_id")
    time, event, score = table["pfs_months"].to_numpy(), table["pfs_event"].to_numpy(), table["ensemble_prob"]
    avg, label = block["markers"]["avg"], block["markers"]["label"]
    ratio = survival.cox(time, event, score >= 0.5)
    assert avg["hazard_ratio"]["value"] == pytest.approx(ratio["value"])
    assert avg["c_index"]["value"] == pytest.approx(survival.concordance(time, event, score)[0])
    assert avg["auc"]["2"]["value"] == pytest.approx(survival.auc_at(time, event, score, 24)["value"])
    assert label["hazard_ratio"]["value"] == pytest.approx(survival.cox(time, event, table["target"])["value"])
    positive = score >= 0.5
    assert (avg["positive"]["n"], avg["positive"]["n_events"]) == (positive.sum(), event[positive].sum())
    written = pd.read_csv(folder / "prognosis.csv")
    row = written[(written["marker"] == "avg") & (written["statistic"] == "hazard_ratio")].iloc[0]
    assert row["value"] == pytest.approx(ratio["value"]) and row["ci_low"] == pytest.approx(ratio["ci_low"])


@pytest.mark.usefixtures("no_figure")
def test_the_page_has_table_and_figure(done):
    folder, _, metrics = done
    page = Page((folder / "report.html").read_text())
    words = " ".join(page.words)
    assert not page.open and "prognosis" in page.ids and "#prognosis" in page.links
    for text in ("Hazard ratio, 4–5 against 1–3", "Reader's label", "of several scans the one with the longest time",
                 f"{N} patients", "Kaplan–Meier, pfs_months",
                 f"left out, since time or event is not filled in: 0 of {N} scans"):
        assert text in words, text
    assert (folder / "survival_pfs_months.png").stat().st_size > 10_000
    again = run(folder)  # without --survival
    assert "prognosis" not in again and not list(folder.glob("survival_*")) and not (folder / "prognosis.csv").exists()


def test_of_several_scans_the_earliest_counts(tmp_path):
    scans = outcomes().assign(patient_id=[f"p{k // 2:03d}" for k in range(N)])
    scans.loc[:1, "pfs_months"], scans.loc[:1, "pfs_event"] = [3.0, 30.0], [0, 1]
    scans.loc[2:3, "pfs_months"], scans.loc[2:3, "pfs_event"] = 8.0, 1
    write(tmp_path, predictions(0, scans))
    endpoints, _, _, warnings = read(tmp_path)
    endpoint = endpoints["pfs_months"]
    assert len(endpoint.patients) == N // 2 and endpoint.about["n_several"] == N // 2
    assert {"s001", "s002"} <= set(endpoint.patients.index) and not {"s000", "s003"} & set(endpoint.patients.index)
    text = " ".join(warnings)
    assert "scans of equal times, which do not tell the earliest: 1 patient;" in text
    assert "event after one scan and none after another: p000" in text


def test_what_is_missing_is_counted(tmp_path):
    scans = outcomes().astype({"pfs_months": object, "pfs_event": object})
    scans.loc[:4, "pfs_months"], scans.loc[3:9, "pfs_event"] = "", ""
    write(tmp_path, predictions(0, scans))
    endpoints, _, _, warnings = read(tmp_path)
    assert endpoints["pfs_months"].about["n_missing"] == 10 and len(endpoints["pfs_months"].patients) == N - 10
    assert any("without time or event: 10 of 60 scans" in line for line in warnings)


@pytest.mark.parametrize("column, value, message", [
    ("pfs_months", -1, "line 8 .scan s003.: pfs_months '-1'; it must be a time of 0 or more"),
    ("pfs_months", "inf", "a time of 0 or more"), ("pfs_months", "12m", "a time of 0 or more"),
    ("pfs_event", 2, "pfs_event '2'; it must be 0 .censored. or 1"), ("pfs_event", "dead", "must be 0"),
    ("pfs_months", 30000, "30000 months, is 2500 years; give its unit")])
def test_wrong_outcomes_are_refused(tmp_path, column, value, message):
    scans = outcomes().astype({column: object})
    scans.loc[3, column] = value
    write(tmp_path, predictions(0, scans))
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(("unit", "doubted"), [("days", "0.2 years"), ("months", ""), ("years", "72 years")])
def test_a_follow_up_that_none_has_is_doubted(tmp_path, unit, doubted):
    """The longest time is 72: of days that are said to be years, or years that are said to be days."""
    scans = outcomes()
    scans.loc[0, "pfs_months"] = 72
    write(tmp_path, predictions(0, scans))
    _, _, _, warnings = read(tmp_path, [("pfs_months", "pfs_event", unit)])
    said = [line for line in warnings if "is the unit right?" in line]
    assert said == [f"pfs_months: the longest time is 72 {unit}, {doubted}: is the unit right?"] * bool(doubted)


def test_other_refusals(tmp_path):
    scans = outcomes()
    write(tmp_path / "a", predictions(0, scans), predictions(1, scans.assign(pfs_months=scans["pfs_months"] + 1)))
    with pytest.raises(InputError, match="scan s000 has pfs_months"):
        read(tmp_path / "a")
    write(tmp_path / "b", predictions(0, scans.assign(pfs_event="")))
    with pytest.raises(InputError, match="no scan that is measured has both"):
        read(tmp_path / "b")
    with pytest.raises(InputError, match="unit must be days, weeks, months, years"):
        read(tmp_path / "b", [("pfs_months", "pfs_event", "month")])
    with pytest.raises(InputError, match="no column os"):
        read(tmp_path / "b", [("os", "pfs_event", "days")])
    with pytest.raises(InputError, match="is given twice"):
        write(tmp_path / "c", predictions(0, scans))
        read(tmp_path / "c", [ASKED[1:], ASKED[1:]])


@pytest.mark.usefixtures("no_figure")
def test_a_cohort_without_events_or_with_one_call_has_reasons(tmp_path):
    scans = outcomes().assign(pfs_event=0)
    write(tmp_path, predictions(0, scans).assign(probs=0.2))
    block = run(tmp_path, *ASKED)["prognosis"]["pfs_months"]
    avg = block["markers"]["avg"]
    assert avg["positive"]["n"] == 0 and avg["positive"]["survival"]["1"]["reason"] == "no patient"
    assert avg["hazard_ratio"]["reason"] == "no event" and avg["log_rank"]["reason"]
    assert avg["auc"]["1"]["reason"] == "no event until then" and avg["c_index"]["reason"]
    assert (tmp_path / "survival_pfs_months.svg").exists()
    page = (tmp_path / "report.html").read_text()
    assert "none: no event" in page
    row = page[page.index("Deauville 4–5: median"):].partition("</tr>")[0]
    assert row.count("none: no patient") == 2 and row.count("not reached") == 1  # those whom the reader calls so


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_order_of_rows_files_and_names_changes_nothing(tmp_path, random):
    scans = outcomes(1).assign(patient_id=[f"p{k % 40:03d}" for k in range(N)])
    names = [f"n{k:03d}" for k in range(40)]
    random.shuffle(names)
    renamed = scans.assign(patient_id=[names[int(name[1:])] for name in scans["patient_id"]])
    tables = [predictions(k, scans) for k in range(2)]
    others = [predictions(k, renamed).sample(frac=1, random_state=random.randrange(99)) for k in (1, 0)]
    results = []
    for folder, files in ((tmp_path / "a", tables), (tmp_path / "b", others)):
        write(folder, *files)
        endpoints, measured, models, warnings = read(folder)
        averages = {name: average_models(models, measured, name, "mean", {}) for name in ensemble.ENSEMBLES}
        results.append(prognosis.measure(endpoints, measured, averages, warnings))
    assert json.dumps(results[0]) == json.dumps(results[1])
