"""Prognosis by the model's call and score: outcomes from columns of the prediction files, one scan a patient.

Outcome is the patient's, so a patient counts once: of several scans the one with the longest time, which is the
earliest where the time runs from the scan. metrics.json's `prognosis` is {name of the time's column: a block}:

    event, unit                              of --survival
    n_scans, n_missing                       scans measured; without time or event, left out
    n_patients, n_events, n_several, n_equal patients, events; patients of several scans; of those, with equal times
    follow_up                                median by the reverse Kaplan-Meier estimate (an estimate, in `unit`)
    years                                    {years: the same in `unit`}: when survival and AUC are given
    markers                                  {avg, max, label: a marker}; label: the reader's, where all have one
    marker: negative, positive               n, n_events, median, survival {years: estimate}, by the call at 0.5
            log_rank, hazard_ratio, c_index, auc {years: estimate}      of `survival`; the latter two of the score
"""
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.files import InputError
from common.text import counted, file_stems, some
from evaluation import survival
from evaluation.averaging import Ensemble
from evaluation.ensemble import ENSEMBLES, Model, number, refuse_conflicts
from evaluation.estimates import long_text, no_estimate, p_text
from evaluation.metrics import THRESHOLD

UNITS = {"days": 365.25, "weeks": 365.25 / 7, "months": 12.0, "years": 1.0}  # a year in each
YEARS = (1, 2, 5)  # when survival and AUC are given
DOUBTED = 0.25, 30.0  # years: a longest time outside of them may be of another unit
LONGEST = 100  # years
FEW = 20  # events, of which the report warns
MARKERS = ENSEMBLES | {"label": "Reader's label"}
CALLS = {"negative": "1–3", "positive": "4–5"}


@dataclass
class Endpoint:
    """One outcome of the patients.

    Attributes
    ----------
    patients : DataFrame
        One scan a patient, by scan_id, sorted: time (float64, in the unit), event (bool).
    about : dict
        What metrics.json says of it, markers not included.
    """
    patients: pd.DataFrame
    about: dict


def columns(asked: Iterable[Sequence[str]]) -> list[str]:
    """The columns that --survival (TIME, EVENT, UNIT; several times) needs."""
    return [name for time, event, _ in asked for name in (time, event)]


def read_endpoints(models: list[Model], scans: pd.DataFrame, asked: Iterable[Sequence[str]],
                   warnings: list[str]) -> dict[str, Endpoint]:
    """The outcomes asked for, {name of the time's column: Endpoint}.

    Parameters
    ----------
    models, scans
        Of `ensemble.read_models`, with `columns`, and `ensemble.join_scans`.
    asked
        (TIME, EVENT, UNIT), each.
    warnings : list of str
        To which more are added.

    Raises
    ------
    InputError
        Another unit, a negative time, an event that is not 0 or 1, two values of a scan, no value at all.
    """
    found: dict[str, Endpoint] = {}
    for time, event, unit in asked:
        if unit not in UNITS:
            raise InputError(f"--survival {time} {event} {unit}: the unit must be {', '.join(UNITS)}")
        if time in found:
            raise InputError(f"--survival {time}: is given twice")
        known = {"time": _values(models, time, None), "event": _values(models, event, (0, 1))}
        table = pd.DataFrame(known, index=scans.index).dropna()
        if table.empty:
            raise InputError(f"--survival {time} {event}: no scan that is measured has both; fill in the manifest and "
                             "predict again")
        if (longest := table["time"].max() / UNITS[unit]) > LONGEST:
            raise InputError(f"--survival {time} {event} {unit}: the longest time, {table['time'].max():g} {unit}, is "
                             f"{longest:.0f} years; give its unit ({', '.join(UNITS)})")
        about = {"event": event, "unit": unit, "n_scans": len(scans), "n_missing": len(scans) - len(table)}
        found[time], more = _one_a_patient(table, scans, about)
        warnings += [f"{time}: {line}" for line in more]
    return found


def _values(models, name, allowed):
    """A column of the prediction files by scan_id, float64, without empty fields."""
    for model in models:
        texts = model.rows[name].str.strip()
        values = texts.map(number)
        wrong = (texts != "") & ~(values.isin(allowed) if allowed else (values >= 0) & (values < np.inf))
        for row in model.rows.index[wrong][:1]:
            must = "0 (censored) or 1 (event)" if allowed else "a time of 0 or more"
            raise InputError(f"{model.path}, line {row} (scan {model.rows.loc[row, 'scan_id']}): {name} "
                             f"{texts[row]!r}; it must be {must}, or empty")
    rows = pd.concat([model.rows[["scan_id"]].assign(file=model.file, **{name: model.rows[name].map(number)})
                      for model in models]).dropna(subset=name)
    refuse_conflicts(rows, name)
    return rows.groupby("scan_id")[name].first()


def _one_a_patient(table, scans, about):
    """The Endpoint of the scans with time and event, and warnings."""
    who = scans["patient_id"] if "patient_id" in scans else pd.Series(scans.index, index=scans.index)
    table = table.assign(patient=who, event=table["event"] == 1).rename_axis("scan_id").reset_index()
    table = table.sort_values(["patient", "time", "scan_id"], ascending=[True, False, True])
    groups = table.groupby("patient")
    several, equal = groups.size() > 1, groups["time"].agg(lambda times: (times == times.max()).sum()) > 1
    differ = groups["event"].nunique() > 1
    patients = groups.first().set_index("scan_id").sort_index()
    events, longest = int(patients["event"].sum()), patients["time"].max() / UNITS[about["unit"]]
    lines = [f"left out of the prognosis, without time or event: {about['n_missing']} of "
             f"{counted(about['n_scans'], 'scan')}"] * bool(about["n_missing"])
    if equal.any():
        lines.append(f"scans of equal times, which do not tell the earliest: {counted(equal.sum(), 'patient')}; the "
                     f"first by scan_id counts: {some(equal.index[equal])}")
    if differ.any():
        lines.append(f"{counted(differ.sum(), 'patient has', 'patients have')} an event after one scan and none after "
                     f"another: {some(differ.index[differ])}; check them")
    if events < FEW:
        lines.append(f"only {counted(events, 'event')}: the prognosis rests on few patients")
    if not DOUBTED[0] <= longest <= DOUBTED[1]:
        lines.append(f"the longest time is {patients['time'].max():g} {about['unit']}, {longest:.2g} years: is the "
                     "unit right?")
    followed = survival.median_time(survival.kaplan_meier(patients["time"], ~patients["event"]))
    years = {str(year): year * UNITS[about["unit"]] for year in YEARS if year < longest}
    return Endpoint(patients, about | {
        "n_patients": len(patients), "n_events": events, "n_several": int(several.sum()), "n_equal": int(equal.sum()),
        "follow_up": followed, "years": years}), lines


def markers(endpoint: Endpoint, scans: pd.DataFrame, ensembles: dict[str, Ensemble]) -> Iterator[tuple]:
    """(name of MARKERS, score, call) of the patients, (n,) float64 and bool; the label where all have one."""
    ids = endpoint.patients.index
    for name, each in ensembles.items():
        score = each.prob[ids].to_numpy(dtype=float)
        yield name, score, score >= THRESHOLD
    target = scans.loc[ids, "target"]
    if target.notna().all():
        yield "label", target.to_numpy(dtype=float), (target == 1).to_numpy()


def measure(endpoints: dict[str, Endpoint], scans: pd.DataFrame, ensembles: dict[str, Ensemble],
            warnings: list[str]) -> dict:
    """`prognosis` of metrics.json; warnings are added to the list."""
    found = {}
    for name, endpoint in endpoints.items():
        time, event = (endpoint.patients[column].to_numpy() for column in ("time", "event"))
        years = endpoint.about["years"]
        result = {}
        for marker, score, call in markers(endpoint, scans, ensembles):
            result[marker] = {group: _group(time[rows], event[rows], years)
                              for group, rows in (("negative", ~call), ("positive", call))}
            result[marker] |= {
                "log_rank": survival.log_rank(time, event, call), "hazard_ratio": survival.cox(time, event, call),
                "c_index": survival.concordance_estimate(time, event, score),
                "auc": {year: survival.auc_at(time, event, score, at) for year, at in years.items()}}
            p = result[marker]["hazard_ratio"].get("p_proportional")
            if p is not None and p < 0.05:
                warnings.append(f"{name}, {MARKERS[marker]}: the hazards are not proportional (p = {p_text(p)}); the "
                                "hazard ratio is an average over the follow-up")
        found[name] = endpoint.about | {"markers": result}
    return found


def _group(time, event, years):
    """n, n_events, median, survival of the patients of one call."""
    if not len(time):
        nothing = no_estimate("no patient")
        return {"n": 0, "n_events": 0, "median": nothing, "survival": dict.fromkeys(years, nothing)}
    curve = survival.kaplan_meier(time, event)
    return {"n": len(time), "n_events": int(event.sum()), "median": survival.median_time(curve),
            "survival": {year: survival.survival_at(curve, at, time.max()) for year, at in years.items()}}


# ---------------------------------------------------------------- tables

def rows_of(block: dict) -> Iterator[tuple]:
    """(marker, statistic, call, years, estimate or test) of a block, each number once."""
    for marker, each in block["markers"].items():
        for call in CALLS:
            yield marker, "median", call, "", each[call]["median"]
            for year, entry in each[call]["survival"].items():
                yield marker, "survival", call, year, entry
        yield marker, "hazard_ratio", "", "", each["hazard_ratio"]
        yield marker, "log_rank_p", "", "", {"value": each["log_rank"]["p"], "reason": each["log_rank"].get("reason")}
        yield marker, "c_index", "", "", each["c_index"]
        for year, entry in each["auc"].items():
            yield marker, "auc", "", year, entry


def csv_table(prognosis: dict) -> pd.DataFrame:
    """The table of prognosis.csv."""
    rows = []
    for name, block in prognosis.items():
        for marker, statistic, call, year, entry in rows_of(block):
            group = block["markers"][marker].get(call)
            n, events = (group or block)["n" if group else "n_patients"], (group or block)["n_events"]
            rows.append({"endpoint": name, "unit": block["unit"], "marker": marker, "statistic": statistic,
                         "call": call, "years": year, "n": n, "n_events": events}
                        | {key: entry.get(key) for key in ("value", "ci_low", "ci_high", "ci_method", "reason")})
    return pd.DataFrame(rows)


def report_tables(prognosis: dict) -> list[dict]:
    """For each endpoint what the report shows: name, block, figure (its file's stem), table, median follow-up."""
    stems = file_stems("survival_", prognosis)
    return [{"name": name, "block": block, "figure": stems[name], "table": _report_table(block),
             "follow_up": _time_text(block["follow_up"], block["unit"])} for name, block in prognosis.items()]


def _report_table(block):
    """A column for each marker: (headings, rows)."""
    found, years = block["markers"].values(), {year: counted(int(year), "year") for year in block["years"]}
    rows = []
    for call, scores in CALLS.items():
        groups = [each[call] for each in found]
        rows.append([f"Deauville {scores}: patients (events)", *(f"{of['n']} ({of['n_events']})" for of in groups)])
        rows.append([f"Deauville {scores}: median", *(_time_text(of["median"], block["unit"]) for of in groups)])
    for year, text in years.items():
        for call, scores in CALLS.items():
            shares = [each[call]["survival"][year] for each in found]
            rows.append([f"Deauville {scores}: no event at {text}", *map(long_text, shares)])
    ratios = [each["hazard_ratio"] for each in found]
    rows += [["Hazard ratio, 4–5 against 1–3", *map(long_text, ratios)],
             ["Log-rank p", *(p_text(each["log_rank"]["p"]) for each in found)],
             ["Proportional hazards, p", *(p_text(ratio.get("p_proportional")) for ratio in ratios)],
             ["C-index", *(long_text(each["c_index"]) for each in found)]]
    for year, text in years.items():
        aucs = [each["auc"][year] for each in found]  # their counts are of the outcome alone
        rows.append([f"AUC, event within {text} ({aucs[0]['n_cases']}) against none ({aucs[0]['n_controls']})",
                     *map(long_text, aucs)])
    return ["", *(MARKERS[marker] for marker in block["markers"])], rows


def _time_text(entry, unit):
    """A median with its limits, as `23.0 months (13.0 to not reached)`."""
    value, low, high = ("not reached" if entry[key] is None else f"{entry[key]:.1f}"
                        for key in ("value", "ci_low", "ci_high"))
    if entry["value"] is None and entry["reason"] != "not reached":
        return long_text(entry)
    if entry["ci_low"] is None:
        return value if entry["value"] is None else f"{value} {unit}"
    return f"{value}{f' {unit}' if entry['value'] is not None else ''} ({low} to {high})"
