"""Site columns of predict_loca.py's files -> a probability for each site and scan, and how good they are.

A scan's probabilities are the mean over its views, then over the models that have the scan. Measured are the scans
with a known site that the models decide between (sites.scored_classes): with --site_on positive, the positive ones.
"""
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError, read_json_object
from common.renamed import current_names
from common.sites import NO_LESION, SITES, scored_classes, truth_matrix
from common.text import counted
from evaluation import site_metrics
from evaluation.ensemble import Model, is_site_column, number, patients, refuse_conflicts


@dataclass
class Sites:
    """The models' site columns.

    Attributes
    ----------
    settings : dict
        Of sites.json: sites {code: name}, site_on, site_multi.
    names : list of str
        Of the k sites.
    models : list of Model
        Those with site columns.
    each : list of (scans, k) DataFrame
        Their probabilities by scan_id, columns L0, L1, ...; NaN where the model lacks the scan.
    mean : DataFrame
        The same over the models, of the scans that a model has.
    true_loc : Series
        Text by scan_id: "3", "0;2", "" where it is unknown.
    """
    settings: dict
    names: list[str]
    models: list[Model]
    each: list[pd.DataFrame]
    mean: pd.DataFrame
    true_loc: pd.Series


def join_sites(folder: Path, models: list[Model], scans: pd.DataFrame, warnings: list[str]) -> Sites | None:
    """The models' site columns; None where no file has any.

    Parameters
    ----------
    folder : Path
        Of the prediction files, with predict_loca.py's sites.json.
    models, scans
        Of `ensemble.read_models` and `ensemble.join_scans`.
    warnings : list of str
        To which more are added.

    Raises
    ------
    InputError
        A site column is missing or too many, a probability or a class index is none.
    """
    with_sites = [model for model in models if site_columns(model)]
    if not with_sites:
        return None
    lacking = len(models) - len(with_sites)
    if lacking:
        warnings.append(f"no site columns in {lacking} of {counted(len(models), 'model')}; the sites are those of the "
                        "others")
    settings = read_settings(folder, len(site_columns(with_sites[0])), warnings)
    names = list(settings["sites"].values())
    each = [probabilities(model, len(names)).reindex(scans.index) for model in with_sites]
    ordered = np.sort(np.stack([table.to_numpy() for table in each]), axis=0)  # a sum depends on its order
    has = ~np.isnan(ordered[0, :, 0])  # NaN is sorted to the end
    mean = pd.DataFrame(np.nanmean(ordered[:, has], axis=0), scans.index[has], each[0].columns)
    true_loc = true_sites(with_sites, len(names)).reindex(scans.index, fill_value="")
    return Sites(settings, names, with_sites, each, mean, true_loc)


def site_columns(model: Model) -> set[str]:
    return set(filter(is_site_column, map(str, model.rows))) - {"true_loc"}


def read_settings(folder: Path, count: int, warnings: list[str]) -> dict:
    """sites.json; without it the 14 codes, if the files have as many site columns (`count`)."""
    path = folder / "sites.json"
    if not path.exists() and count == len(SITES):
        warnings.append(f"{path} is missing: L0..L{count - 1} are taken for the {count} codes of README.md, with "
                        f"{NO_LESION}, no lesion")
        return {"sites": {str(code): name for code, name in SITES.items()}, "site_on": "all", "site_multi": False}
    try:
        found = current_names(read_json_object(path, "sites", '{"sites": {"1": "cervical"}}'))
        return {"sites": {str(int(code)): str(name) for code, name in found["sites"].items()},
                "site_on": found["site_on"], "site_multi": bool(found["site_multi"])}
    except (InputError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a sites.json of predict_loca.py ({error}); copy it from where it wrote the "
                         "predictions, or predict again") from None


def probabilities(model: Model, count: int) -> pd.DataFrame:
    """(scans, count): one model's probabilities, the mean over each scan's views."""
    rows, columns, found = model.rows, [f"L{k}" for k in range(count)], site_columns(model)
    if found != set(columns):
        raise InputError(f"{model.path}: has {counted(len(found), 'site column')}, but sites.json names "
                         f"{counted(count, 'site')} (L0..L{count - 1}); predict again with predict_loca.py")
    values = rows[columns].map(number)
    wrong = ~((values >= 0) & (values <= 1))
    for line in rows.index[wrong.any(axis=1)][:1]:
        row, name = rows.loc[line], wrong.columns[wrong.loc[line]][0]
        raise InputError(f"{model.path}, line {line} (scan {row['scan_id']}): {name} {row[name]!r}; it must lie in "
                         "0..1; run predict_loca.py again")
    return values.groupby(rows["scan_id"]).mean()


def true_sites(models: list[Model], count: int) -> pd.Series:
    """true_loc of the scans that have one, by scan_id."""
    known = pd.concat([model.rows.reindex(columns=["scan_id", "true_loc"], fill_value="").assign(
        file=model.file, path=str(model.path), line=model.rows.index) for model in models])
    known["true_loc"] = known["true_loc"].str.strip().str.removesuffix(".0")  # as pandas writes a column with gaps
    known = known[known["true_loc"] != ""]
    for row, text in zip(known.itertuples(), known["true_loc"], strict=True):
        if not re.fullmatch(r"\d+(;\d+)*", text) or max(map(int, text.split(";"))) >= count:
            raise InputError(f"{row.path}, line {row.line} (scan {row.scan_id}): true_loc {text!r} is not a class "
                             f"index, 0 to {count - 1}; run predict_loca.py again")
    refuse_conflicts(known, "true_loc")
    return known.groupby("scan_id")["true_loc"].first()


def measure_sites(sites: Sites, scans: pd.DataFrame, resamples: int, seed: int, warnings: list[str]) -> dict:
    """The part `sites` of metrics.json.

    Returns
    -------
    dict
        names (of the sites that the models decide between), site_on, multi; ensemble: of `site_metrics.all_metrics`,
        None where no scan has a known site; models: the same of each, with file, split, run and rank.
    """
    classes, multi = scored_classes(sites.settings), sites.settings["site_multi"]
    truth = truth_matrix(sites.true_loc, len(sites.names))[:, classes]
    known = scans.index[np.flatnonzero(truth.any(axis=1))]
    names = [sites.names[k] for k in classes]
    result = {"names": names, "site_on": sites.settings["site_on"], "multi": multi, "ensemble": None, "models": []}
    if not len(known.intersection(sites.mean.index)):
        warnings.append("no scan has a known site: the sites are predicted, not measured")
        return result

    def measured(scores):
        both = known.intersection(scores.dropna().index).sort_values()
        if both.empty:
            return {"n": 0}
        rows, decided = scans.index.get_indexer(both), scores.loc[both].to_numpy()[:, classes]
        return site_metrics.all_metrics(truth[rows], decided, names, multi, patients(scans.loc[both]), resamples, seed)

    result["ensemble"] = measured(sites.mean)
    result["models"] = [model.about() | measured(each) for model, each in zip(sites.models, sites.each, strict=True)]
    lacking = [entry["name"] for entry in result["ensemble"]["sites"] if not entry["n"]]
    if lacking:
        warnings.append(f"no measured scan has the site {', '.join(lacking)}: the balanced accuracy is over the others")
    return result


def scan_table(sites: Sites, scans: pd.DataFrame) -> pd.DataFrame:
    """ensemble_sites.csv: scan_id, target, true and predicted site, the mean probabilities, how many models."""
    index, multi = sites.mean.index, sites.settings["site_multi"]
    predicted = site_metrics.predicted_sites(sites.mean.to_numpy(), multi)
    about = pd.DataFrame({"target": scans.loc[index, "target"].astype("Int64")})
    for name, texts in (("true_loc", sites.true_loc[index]), ("pred_loc", predicted)):
        about[name] = texts
        about[f"{name}_name"] = [site_metrics.name_of(text, sites.names) for text in texts]
    models = sum(each.loc[index, "L0"].notna().astype(int) for each in sites.each)
    return pd.concat([about, sites.mean, models.rename("n_models")], axis=1).reset_index(names="scan_id")


def metrics_table(result: dict) -> pd.DataFrame:
    """site_metrics.csv: a row for each number of `measure_sites`, of all scans (site empty) and of each site."""
    rows = []
    for model, block in [("ensemble", result["ensemble"]), *((each["file"], each) for each in result["models"])]:
        if block["n"]:
            rows += [(model, "", name, block["n"], block[name]) for name in shown(result)]
            rows += [(model, site["name"], name, site["called"] if name == "precision" else site["n"], site[name])
                     for site in block["sites"] for name in ("recall", "precision", "auc") if name in site]
    keys = ["value", "ci_low", "ci_high", "ci_method"]
    rows = [(*about, *(entry[key] for key in keys)) for *about, entry in rows]
    return pd.DataFrame(rows, columns=["model", "site", "metric", "n", *keys])


def shown(result: dict) -> tuple[str, ...]:
    """The names of the metrics over all sites."""
    return site_metrics.MULTI if result["multi"] else site_metrics.SINGLE


def chance(result: dict) -> str:
    """"balanced accuracy of a guess: 0.077" (1 / number of sites that the measured scans have); "" for several."""
    n_sites = sum(site["n"] > 0 for site in result["ensemble"]["sites"])
    return "" if result["multi"] else f"balanced accuracy of a guess: {1 / n_sites:.3f}"
