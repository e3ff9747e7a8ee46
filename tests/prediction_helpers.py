"""Prediction files as predict.py writes them, of made-up scores; aggregate.py on them; simulated studies."""
import json
import math

import numpy as np
import pandas as pd
from conftest import call
from scipy.stats import norm

import aggregate

SCANS = pd.DataFrame({"scan_id": [f"s{k}" for k in range(8)], "target": [0, 0, 0, 0, 1, 1, 1, 1]})


def predictions(seed=0, scans=SCANS, **columns):
    """Two views per scan as predict.py writes them, a few features included."""
    rng = np.random.default_rng(seed)
    table = scans.loc[scans.index.repeat(2)].reset_index(drop=True)
    table["view"] = ["cor", "sag"] * len(scans)
    table["filename"] = table["scan_id"] + "_" + table["view"] + ".bin"
    table["set"] = "test"
    table["probs"] = np.clip(rng.normal(0.35 + 0.3 * table.get("target", 0), 0.2), 0.01, 0.99)
    return table.assign(**columns, F1=0.5, F2=-1.5, F512=2.5)


def write(folder, *tables, run=1):
    folder.mkdir(exist_ok=True)
    for split, table in enumerate(tables):
        table.to_csv(folder / f"pred_split{split}_run{run}.csv", index=False)


def splits(n_models=4, n_val=40, n_test=24, seed=0):
    """Prediction files with validation sets that differ from split to split, around one test set, as tables."""
    rng = np.random.default_rng(seed)
    n = n_val + n_test
    scans = pd.DataFrame({"scan_id": [f"s{k:03d}" for k in range(n)], "target": rng.integers(0, 2, n),
                          "patient_id": [f"p{k // 2:03d}" for k in range(n)]})
    tables = []
    for k in range(n_models):
        table = predictions(k, scans)
        held = np.repeat([(i // 2 + k) % 3 for i in range(n)], 2) == 0
        table["set"] = np.where(np.repeat(np.arange(n) >= n_val, 2), "test", np.where(held, "val", "train"))
        tables.append(table)
    return tables


def binormal(rng, clustered, patients=80):
    """y, two equally good scores, patients: with clusters of 1 to 3 scans that share much of their error."""
    sizes = rng.integers(1, 4, patients) if clustered else np.ones(2 * patients, dtype=int)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y = (rng.random(len(groups)) < np.where(rng.random(len(sizes)) < 0.45, 0.8, 0.2)[groups]).astype(int)
    rho = 0.6 if clustered else 0

    def noise():
        return math.sqrt(rho) * rng.normal(size=len(sizes))[groups] + math.sqrt(1 - rho) * rng.normal(size=len(groups))

    base = y * norm.ppf(0.85) * math.sqrt(2) + math.sqrt(0.7) * noise()
    return y, base + math.sqrt(0.3) * noise(), base + math.sqrt(0.3) * noise(), groups


def share_inside(limits, truth):
    return np.mean([low <= truth <= high for low, high in limits])


def mislabelled(tables):
    """The same with wrong targets here and there: the classes are not apart."""
    return [table.assign(target=np.where(table["scan_id"].str[1:].astype(int) % 7 == 3, 1 - table["target"],
                                         table["target"])) for table in tables]


def with_cal(tables, n=60, seed=7):
    """The same with a calibration set: scans that every model has."""
    scans = pd.DataFrame({"scan_id": [f"c{k:02d}" for k in range(n)], "target": np.arange(n) % 2,
                          "patient_id": [f"q{k // 2:02d}" for k in range(n)]})
    return [pd.concat([table, predictions(seed + k, scans, set="cal")], ignore_index=True)
            for k, table in enumerate(tables)]


def write_folds(folder, k=3, runs=2, n=36):
    """Predictions of k folds with `runs` runs each: every scan in test once, in val once more."""
    scans = pd.DataFrame({"scan_id": [f"s{i:02d}" for i in range(n)], "target": [0, 1] * (n // 2)})
    fold = np.repeat(np.arange(n) % k, 2)
    for split in range(k):
        for number in range(1, runs + 1):
            table = predictions(10 * split + number, scans).assign(set=np.select(
                [fold == split, fold == (split + 1) % k], ["test", "val"], "train"))
            table[table["set"] != "train"].to_csv(folder / f"pred_split{split}_run{number}.csv", index=False)


def by_hand(tables, over_views="mean", of="val"):
    """A scan's score from the models alone that hold it in that set: {scan: mean}, counts, targets."""
    rows = [table[table["set"] == of].groupby("scan_id").agg(p=("probs", over_views), y=("target", "first"))
            for table in tables]
    joined = pd.concat(rows).groupby("scan_id")
    return joined["p"].mean(), joined.size(), joined["y"].first()


def measured(folder, *options):
    """metrics.json of aggregate.py on a folder's predictions; None without targets. Its output is the folder's out."""
    call(aggregate, "--dir", folder, "--output", folder / "out", "--resamples", 50, *options)
    path = folder / "out" / "metrics.json"
    return json.loads(path.read_text()) if path.exists() else None


def aggregated(folder, *options):
    metrics = measured(folder, "--resamples", 60, *options)
    return *(pd.read_csv(folder / "out" / f"ensemble_{name}.csv") for name in ("avg", "max")), metrics
