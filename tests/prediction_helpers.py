"""Prediction files as predict.py writes them, of made-up scores."""
import numpy as np
import pandas as pd

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
