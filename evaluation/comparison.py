"""Ensembles compared on the same scans, pair by pair: what compare.py writes.

compare.json holds ensembles [{name, file, threshold}], n_scans, n_positive, n_patients (null without patient_id),
independent_unit (scan or patient), confidence, resamples, seed, warnings, notices, provenance (of
`provenance.this_run`), auc {name: estimate, see `estimates`} and pairs: of each a and b, delong, bootstrap (both of the
AUC), mcnemar, accuracy, sensitivity, specificity and nri, as `paired_tests` gives them, p_holm being p adjusted over
the pairs; primary, and what the primary test holds beside them, are of `margins.name_primary`.
"""
import itertools
from pathlib import Path

import pandas as pd

from common.files import InputError, progress, read_csv
from common.manifest import LEARNED, MARK, SYNTHETIC, is_synthetic, leakage_of
from common.text import counted, some
from evaluation import paired_tests
from evaluation.bootstrap import CONFIDENCE
from evaluation.cautions import few_patients, high_aucs, rarer_class, swapped_labels
from evaluation.cohorts import check_ids
from evaluation.ensemble import COLUMNS, Model, check_rows, doubts, join_scans, number, patients, score_models
from evaluation.estimates import difference_text, long_text, p_text
from evaluation.margins import name_primary
from evaluation.metrics import auc_estimate
from evaluation.provenance import this_run

# each adjusted over the pairs by itself
TESTS = ("delong", "bootstrap", "mcnemar", "accuracy", "sensitivity", "specificity", "nri")


def read_scores(path: Path, name: str, threshold: str, wanted: str) -> Model:
    """An ensemble's or a model's file, `name` being its name in messages.

    Parameters
    ----------
    threshold : str
        A probability, or the name of a threshold that aggregate.py derived.
    wanted : str
        Rows to use, where the file has a column `set`.

    Raises
    ------
    InputError
        A column or the set is missing, a value is wrong, a scan is there twice.
    """
    columns = (*COLUMNS, "ensemble_prob", "notice", f"pred_{threshold}")
    rows = read_csv(path, ("scan_id", "target"), lambda name: name in columns, whole=True)
    if not {"ensemble_prob", "probs"} & set(rows):
        raise InputError(f"{path}: has neither ensemble_prob nor probs; give what aggregate.py or predict.py wrote")
    if "set" in rows:
        rows = rows[rows["set"] == wanted]
        if rows.empty:
            raise InputError(f"{path}: has no row with set {wanted}; give --set")
    if "ensemble_prob" in rows:
        rows["probs"] = rows["ensemble_prob"]
        for row, scan in rows.loc[rows.duplicated("scan_id"), "scan_id"].items():
            raise InputError(f"{path}, line {row}: scan {scan} is there twice; remove one")
    return Model(path, name, rows=check_rows(rows, path))


def join(models: list[Model], thresholds: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The scans that every file has, with a target.

    Parameters
    ----------
    models
        Of `read_scores`.
    thresholds : list of str
        Of each.

    Returns
    -------
    scans : DataFrame
        By scan_id: target (0, 1), patient_id where every file has it, and of each file "score NAME", its probability,
        and "predicted NAME", whether it predicts positive.
    warnings : list of str

    Raises
    ------
    InputError
        Targets or patients conflict, ids as in `cohorts.check_ids`, no scan is common, a threshold is none.
    """
    warnings = check_ids(models)
    joined, _ = join_scans(models)
    scores = score_models(models, joined, "avg").set_axis([model.file for model in models], axis=1)
    lacking = {model.file: joined.index[scores[model.file].isna()] for model in models}
    warnings += [f"{name} lacks {len(scans)} of {counted(len(joined), 'scan')}, which are left out: {some(scans)}"
                 for name, scans in lacking.items() if len(scans)]
    common = joined[scores.notna().all(axis=1)]
    scans = common.loc[common["target"].notna(), ["target"]].astype(int)
    if len(scans) < len(common):
        warnings.append(f"left out, without a target: {len(common) - len(scans)} of "
                        f"{counted(len(common), 'common scan')}")
    if scans.empty:
        raise InputError(f"{' and '.join(lacking)}: no scan with a target is in every file; are the scans the same?")
    without = [model.file for model in models if "patient_id" not in model.rows]
    if without:
        warnings.append(f"no patient_id in {some(without)}: scans are taken as independent, which is too certain where "
                        "a patient has several")
    else:
        scans["patient_id"] = common["patient_id"]
        if scans["patient_id"].nunique() < len(scans):
            warnings.append("some patients have several scans: McNemar's p takes scans as independent; the bootstrap's "
                            "accuracy and NRI differences do not")
    rows = pd.concat([model.rows.assign(file=model.file) for model in models if "ensemble_prob" not in model.rows]
                     or [pd.DataFrame(columns=["scan_id", "file"])])  # an ensemble's file has no views
    warnings += doubts(rows[rows["scan_id"].isin(scans.index)], scans)
    for model, threshold in zip(models, thresholds, strict=True):
        score = scans[f"score {model.file}"] = scores.loc[scans.index, model.file]
        scans[f"predicted {model.file}"] = predicted_positive(model, threshold, score)
    return scans, warnings


def predicted_positive(model: Model, threshold: str, score: pd.Series) -> pd.Series:
    """Which scans are predicted positive: at a probability, or as the column pred_NAME of aggregate.py says.

    Raises
    ------
    InputError
        No such column, or an empty one, and no probability; a field of it that is not 0 or 1 (0.0 and 1.0 are).
    """
    value, column = number(threshold), f"pred_{threshold}"
    if column in model.rows and (model.rows[column] != "").any():
        calls = model.rows[column].map(number)
        for row in calls.index[~calls.isin((0, 1))][:1]:
            raise InputError(f"{model.path}, line {row} (scan {model.rows['scan_id'][row]}): {column} "
                             f"{model.rows[column][row]!r}; it must be 0 or 1; run aggregate.py again")
        of_scan = calls.groupby(model.rows["scan_id"])
        for scan in score.index[of_scan.nunique().reindex(score.index) > 1][:1]:
            raise InputError(f"{model.path}: scan {scan} has {column} 0 and 1; it must be the same in its rows")
        return of_scan.first().reindex(score.index) == 1
    if value < 0 or value > 1:
        raise InputError(f"--threshold {threshold}: a probability lies in 0..1")
    if value != value:
        raise InputError(f"--threshold {threshold}: {model.path} has no column {column} that is filled in; give "
                         "a number, or the name of a threshold that aggregate.py derived for it and its scores reach")
    return score >= value


def compare(models: list[Model], thresholds: list[str], scans: pd.DataFrame, resamples: int, seed: int,
            warnings: list[str], primary: str | None = None, margin: float | None = None) -> dict:
    """What compare.json holds: the AUC of each file, the tests of each pair.

    Parameters
    ----------
    models, thresholds, scans, warnings
        Of `join`.
    resamples, seed : int
        Of the bootstrap.
    primary : str or None
        One of `margins.PRIMARY`, the test that was declared beforehand.
    margin : float or None
        The largest difference that does not matter, in units of the primary metric.
    """
    y, groups = scans["target"].to_numpy(), patients(scans)
    pairs = []
    with progress(list(itertools.combinations(models, 2)), "comparing", "pair") as bar:
        for files in bar:
            a, b = (scans[f"score {model.file}"].to_numpy() for model in files)
            pred_a, pred_b = (scans[f"predicted {model.file}"].to_numpy(dtype=bool) for model in files)
            differences = paired_tests.bootstrap_prediction_differences(y, pred_a, pred_b, groups, resamples, seed)
            differences["nri"]["asymptotic"] = paired_tests.net_reclassification(y, pred_a, pred_b)
            pairs.append({"a": files[0].file, "b": files[1].file, "delong": paired_tests.delong_test(y, a, b, groups),
                          "bootstrap": paired_tests.bootstrap_auc_difference(y, a, b, groups, resamples, seed),
                          "mcnemar": paired_tests.mcnemar_exact(y, pred_a, pred_b), **differences})
    for test in TESTS:
        paired_tests.holm([pair[test] for pair in pairs])
    declared = name_primary(pairs, primary, margin)
    if margin is not None and len(pairs) > 1:
        warnings.append(f"the verdicts at the margin are not adjusted for {counted(len(pairs), 'pair')}")
    notices: list[str] = []
    for model in models:
        notices += [SYNTHETIC] * bool(is_synthetic(model.rows).any()) + [*model.rows.get("notice", ())]
        notices += [f"{MARK}: {leaked}"] if (leaked := leakage_of(model.rows)) else []
        notices += optimistic(model, scans)
    unit, n_patients = ("scan", None) if groups is None else ("patient", len(set(groups)))
    aucs = {model.file: auc_estimate(y, scans[f"score {model.file}"].to_numpy(), groups) for model in models}
    rarer = rarer_class(y, groups)
    warnings += few_patients(rarer, unit) + swapped_labels(aucs)
    warnings += high_aucs({name: (auc, rarer) for name, auc in aucs.items()}, unit)
    return {"ensembles": [{"name": model.file, "file": model.path.name, "threshold": threshold}
                          for model, threshold in zip(models, thresholds, strict=True)],
            "n_scans": len(scans), "n_positive": int(y.sum()), "n_patients": n_patients, "independent_unit": unit,
            "confidence": CONFIDENCE, "resamples": resamples, "seed": seed, "warnings": warnings,
            "notices": [notice for notice in dict.fromkeys(notices) if notice],
            "provenance": this_run(model.path for model in models), "primary": declared, "auc": aucs, "pairs": pairs}


def optimistic(model: Model, scans: pd.DataFrame) -> list[str]:
    """What no reader may miss of a model's file whose scans the model learned from, by its columns set and overlap."""
    rows = model.rows[model.rows["scan_id"].isin(scans.index)]
    learned = rows.reindex(columns=["set", "overlap"]).isin(LEARNED).any(axis=1)
    count = rows.loc[learned, "scan_id"].nunique()
    return [f"OPTIMISTIC: {count} of {counted(len(scans), 'scan')}, or their patients, were trained or validated on by "
            f"{model.file}"] * bool(count)


def tests_of(pair: dict) -> list[dict]:
    """The tests of a pair for tables, a primary one first: test, difference, ci_low, ci_high, p, p_holm (where there
    are), detail."""
    def row(what, test, detail):
        entry = pair[test]
        return {"test": what} | {key: entry[key] for key in ("difference", "ci_low", "ci_high", "p", "p_holm")
                                 if key in entry} | {"detail": "; ".join(filter(None, (
                                     entry.get("primary"), detail, entry.get("reason")))).replace(" -", " −")}

    z, counts, nri = pair["delong"]["z"], pair["mcnemar"], pair["nri"]["asymptotic"]
    parts = "" if nri["nri"] is None else (f"Deauville 4–5 {nri['positives']:+.3f} ({nri['positives_up']} up, "
                                           f"{nri['positives_down']} down), Deauville 1–3 {nri['negatives']:+.3f} "
                                           f"({nri['negatives_down']} down, {nri['negatives_up']} up)")
    rows = [row("AUC, DeLong", "delong", "" if z is None else f"z = {z:.2f}"), row("AUC, bootstrap", "bootstrap", ""),
            row("Errors, exact McNemar", "mcnemar", f"only the first right: {counts['only_a_right']}, only the "
                f"second: {counts['only_b_right']}"),
            *(row(f"{name.capitalize()}, bootstrap", name, "") for name in ("accuracy", "sensitivity", "specificity")),
            row("Net reclassification, bootstrap", "nri", parts)]
    return sorted(rows, key=lambda each: not each["detail"].startswith("primary"))


def comparison_table(result: dict) -> pd.DataFrame:
    """compare.csv: a row for each test of each pair."""
    rows = [{"first": pair["a"], "second": pair["b"]} | row for pair in result["pairs"] for row in tests_of(pair)]
    columns = ["first", "second", "test", "difference", "ci_low", "ci_high", "p", "p_holm", "detail"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(notice=" ".join(result["notices"])) if result["notices"] else table


def print_comparison(result: dict) -> None:
    """The AUCs and the tests of each pair on the terminal."""
    print(f"{counted(result['n_scans'], 'scan')}, {result['n_positive']} with target 1; intervals and bootstrap by "
          f"{result['independent_unit']}")
    for name, auc in result["auc"].items():
        print(f"{name}: AUC {long_text(auc)}")
    for pair in result["pairs"]:
        print(f"\n{pair['a']} less {pair['b']}\n{'':<34}{'difference (95 % CI)':<27}{'p':<8}p (Holm)")
        for row in tests_of(pair):
            print(f"  {row['test']:<32}{difference_text(row):<27}{p_text(row['p']):<8}{p_text(row['p_holm'])}")
            if row["detail"].startswith("primary"):
                print(f"    {row['detail']}")
