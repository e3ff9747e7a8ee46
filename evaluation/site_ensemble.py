"""Site columns of predict_loca.py's files -> a probability for each site and scan, and how good they are. No torch.

A scan's probabilities are the mean over its views, then over the models that have the scan. Measured are the scans
with a known site that the models decide between (sites.scored_classes): with --site_on positive, the positive
ones.
"""
import json
import re

import numpy as np
import pandas as pd

from common.files import InputError
from common.renamed import current_names
from common.sites import NO_LESION, SITES, scored_classes, truth_matrix
from evaluation import ensemble, site_metrics


def join_sites(folder, models, scans, warnings):
    """The models' site columns -> dict, or None where no file has any. Adds to `warnings`.

    Args:
        folder (Path): of the prediction files, with predict_loca.py's sites.json.
        models: of ensemble.read_models; scans: of ensemble.join_scans.

    Returns:
        dict: settings (of sites.json), names (list of str), models (those with site columns), each ({file: DataFrame of
        the scan's probabilities, a column a site, NaN where the model lacks the scan}), mean (the same, over the
        models; only scans that a model has), true_loc (Series of texts, "" unknown).

    Raises:
        InputError: a site column is missing or too many, a probability or a class index is none.
    """
    mine = [model for model in models if site_columns(model)]
    if not mine:
        return None
    if len(mine) < len(models):
        warnings.append(f"{len(models) - len(mine)} of {len(models)} models have no site columns; the sites are those "
                        "of the others")
    settings = read_settings(folder, mine[0], warnings)
    names = list(settings["sites"].values())
    each = {model["file"]: probabilities(model, len(names), scans) for model in mine}
    ordered = np.sort(np.stack([table.to_numpy() for table in each.values()]), axis=0)  # a sum depends on its order
    has = ~np.isnan(ordered[0, :, 0])  # NaN is sorted to the end
    mean = pd.DataFrame(np.nanmean(ordered[:, has], axis=0), scans.index[has], [f"L{k}" for k in range(len(names))])
    return {"settings": settings, "names": names, "models": mine, "each": each, "mean": mean,
            "true_loc": true_sites(mine, len(names), scans)}


def site_columns(model):
    return {name for name in model["rows"] if re.fullmatch(r"L\d+", name)}


def read_settings(folder, model, warnings):
    """sites.json: {"sites": {code: name}, "site_on", "site_multi"}; without it the 14 codes, if there are as many."""
    path, count = folder / "sites.json", len(site_columns(model))
    if not path.exists() and count == len(SITES):
        warnings.append(f"{path} is missing: L0..L{count - 1} are taken for the {count} codes of README.md, with "
                        f"{NO_LESION}, no lesion")
        return {"sites": {str(code): name for code, name in SITES.items()}, "site_on": "all", "site_multi": False}
    try:
        found = current_names(json.loads(path.read_text(encoding="utf-8")))
        return {"sites": {str(int(code)): str(name) for code, name in found["sites"].items()},
                "site_on": found["site_on"], "site_multi": bool(found["site_multi"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a sites.json of predict_loca.py ({error}); copy it from where it wrote the "
                         "predictions, or predict again") from None


def probabilities(model, count, scans):
    """(scans, count) DataFrame: the mean over each scan's views of one model."""
    rows, columns = model["rows"], [f"L{k}" for k in range(count)]
    found = site_columns(model)
    if found != set(columns):
        raise InputError(f"{model['path']}: has {len(found)} site columns, but sites.json names {count} sites "
                         f"(L0..L{count - 1}); predict again with predict_loca.py")
    values = rows[columns].map(ensemble.number)
    wrong = ~((values >= 0) & (values <= 1))
    for row in rows.index[wrong.any(axis=1)][:1]:
        name = wrong.columns[wrong.loc[row]][0]
        raise InputError(f"{model['path']}, line {row + 2} (scan {rows.at[row, 'scan_id']}): {name} "
                         f"{rows.at[row, name]!r}; it must lie in 0..1; run predict_loca.py again")
    return values.groupby(rows["scan_id"]).mean().reindex(scans.index)


def true_sites(models, count, scans):
    """true_loc of every scan: "3", "0;2", "" where it is unknown."""
    known = [model["rows"][["scan_id"]].assign(file=model["file"], true_loc=model["rows"]["true_loc"].str.strip(),
                                               path=str(model["path"]), line=model["rows"].index + 2)
             for model in models if "true_loc" in model["rows"]]
    if not known:
        return pd.Series("", index=scans.index)
    known = pd.concat(known)
    known["true_loc"] = known["true_loc"].str.removesuffix(".0")  # as pandas writes a column with gaps
    known = known[known["true_loc"] != ""]
    for row in known.itertuples():
        if not re.fullmatch(r"\d+(;\d+)*", row.true_loc) or max(map(int, row.true_loc.split(";"))) >= count:
            raise InputError(f"{row.path}, line {row.line} (scan {row.scan_id}): true_loc {row.true_loc!r} is not a "
                             f"class index, 0 to {count - 1}; run predict_loca.py again")
    ensemble.refuse_conflicts(known, "true_loc")
    return known.groupby("scan_id")["true_loc"].first().reindex(scans.index, fill_value="")


def measure(sites, scans, resamples, seed, warnings):
    """The part `sites` of metrics.json: what site_metrics.evaluate gives for the mean and for each model."""
    settings, classes = sites["settings"], scored_classes(sites["settings"])
    truth = truth_matrix(sites["true_loc"], len(sites["names"]))[:, classes]
    known = scans.index[truth.any(axis=1)]
    names = [sites["names"][k] for k in classes]
    result = {"names": names, "site_on": settings["site_on"], "multi": settings["site_multi"]}
    if not len(known.intersection(sites["mean"].index)):
        warnings.append("no scan has a known site: the sites are predicted, not measured")
        return result | {"ensemble": None, "models": []}

    def evaluate(scores):
        mine = known.intersection(scores.dropna().index).sort_values()
        if mine.empty:
            return {"n": 0}
        rows = scans.index.get_indexer(mine)
        return site_metrics.evaluate(truth[rows], scores.loc[mine].to_numpy()[:, classes], names,
                                     settings["site_multi"], ensemble.patients(scans.loc[mine]), resamples, seed)

    result["ensemble"] = evaluate(sites["mean"])
    result["models"] = [{key: model[key] for key in ("file", "split", "run", "rank")} | evaluate(
        sites["each"][model["file"]]) for model in sites["models"]]
    lacking = [entry["name"] for entry in result["ensemble"]["sites"] if not entry["n"]]
    if lacking:
        warnings.append(f"no measured scan has the site {', '.join(lacking)}: the balanced accuracy is over the others")
    return result


def scan_table(sites, scans):
    """ensemble_sites.csv: scan_id, target, true and called site, the mean probabilities, how many models."""
    mean, names = sites["mean"], sites["names"]
    called = site_metrics.called(mean.to_numpy(), sites["settings"]["site_multi"])
    true = sites["true_loc"][mean.index]
    models = sum(table.loc[mean.index, "L0"].notna().astype(int) for table in sites["each"].values())
    about = pd.DataFrame({"target": scans.loc[mean.index, "target"].astype("Int64"), "true_loc": true,
                          "true_loc_name": [site_metrics.name_of(text, names) for text in true], "pred_loc": called,
                          "pred_loc_name": [site_metrics.name_of(text, names) for text in called]}, index=mean.index)
    return pd.concat([about, mean, models.rename("n_models")], axis=1).reset_index(names="scan_id")


def metrics_table(result):
    """site_metrics.csv: a row for each number of `measure`, of all scans (site empty) and of each site."""
    def row(model, site, metric, n, entry):
        return {"model": model, "site": site, "metric": metric, "n": n, "value": entry["value"],
                "ci_low": entry["ci_low"], "ci_high": entry["ci_high"], "ci_method": entry["ci_method"]}

    rows = []
    for model, block in [("ensemble", result["ensemble"]), *((each["file"], each) for each in result["models"])]:
        if block["n"]:
            rows += [row(model, "", name, block["n"], block[name]) for name in shown(result)]
            rows += [row(model, site["name"], name, site["called"] if name == "precision" else site["n"], site[name])
                     for site in block["sites"] for name in ("recall", "precision", "auc") if name in site]
    return pd.DataFrame(rows)


def shown(result):
    """The names of the metrics over all sites."""
    return site_metrics.MULTI if result["multi"] else site_metrics.SINGLE


def chance(result):
    """"balanced accuracy of a guess: 0.077" (1 / number of sites that the measured scans have); "" for several."""
    n_sites = sum(site["n"] > 0 for site in result["ensemble"]["sites"])
    return "" if result["multi"] else f"balanced accuracy of a guess: {1 / n_sites:.3f}"
