"""Hostile manifests and prediction files; tables that people save in all ways are read as they are meant."""
from pathlib import Path

import numpy as np
import pandas as pd
from fuzz_harness import REFUSED, SAME, Case, mutated, no_file, pick

from common.manifest import read_manifest
from evaluation import ensemble

N = 12


def _manifest():
    scans = np.repeat(np.arange(N), 2)
    return pd.DataFrame({
        "scan_id": [f"s{k:03d}" for k in scans], "filename": [f"s{k:03d}_{view}.bin" for k, view in zip(
            scans, ["cor", "sag"] * N, strict=True)], "target": scans % 2, "matrix_size_1": 60 + scans % 3,
        "matrix_size_2": 36, "patient_id": [f"P{k:02d}x" for k in scans], "view": ["cor", "sag"] * N,
        "spacing_mm": 3.27, "split0": [("train", "train", "val", "test")[k // 2 % 4] for k in scans],
        "image_sha256": [f"{k:064x}" for k in range(2 * N)]}).astype(str)


def _predictions():
    table = _manifest()[["scan_id", "target", "view", "patient_id"]]
    return table.assign(set="test", probs=[repr(round((k * 37 % 97 + 0.5) / 98, 4)) for k in range(2 * N)])


def _as_saved(table: pd.DataFrame, path: Path, rng) -> str:
    """A table in one of the forms that people save it in -> which."""
    form = pick(rng, ["comma", "semicolon", "tab", "sep=", "excel"])
    if rng.random() < 0.5:
        table = table[list(rng.permutation(table.columns))]
    if rng.random() < 0.3:
        table = table.rename(columns={"scan_id": "Scan ID", "target": " TARGET", "probs": "Probs"})
    if form == "excel":
        with open(path, "wb") as file:
            table.to_excel(file, index=False, engine="openpyxl")
        return form
    if form in ("semicolon", "sep=") and "spacing_mm" in table and rng.random() < 0.5:
        table = table.assign(spacing_mm=table["spacing_mm"].str.replace(".", ","))
    separator = {"comma": ",", "tab": "\t"}.get(form, ";")
    text = table.to_csv(index=False, sep=separator, lineterminator=pick(rng, ["\n", "\r\n"]),
                        quoting=int(rng.integers(2)))
    encoding = pick(rng, ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    blank = (separator * (len(table.columns) - 1) + "\n") * int(rng.integers(3))
    path.write_bytes(("sep=;\n" * (form == "sep=") + text + blank).encode(encoding))
    return f"{form}, {encoding}"


def _damage(table: pd.DataFrame, values: dict[str, list[str]], rng) -> tuple[pd.DataFrame, str]:
    """A value that its column cannot hold."""
    column = pick(rng, list(values))
    value = pick(rng, values[column])
    table, row = table.copy(), int(rng.integers(len(table)))
    table.loc[row if table.loc[row, column] != value else (row + 1) % len(table), column] = value
    return table, f"{column} {value[:20]!r}"


NO_NUMBER = ["", "x", "nan", "inf", "-1", "1e400", "9" * 30, "0x1", "1;2", "½", "NaN", "2.5", "--"]
OF_MANIFEST = {"target": [*NO_NUMBER, "2"], "matrix_size_1": [*NO_NUMBER, "0", "1e3"], "spacing_mm": [
    "", "x", "inf", "-inf", "nan", "0", "-3.27", "3.3"], "split0": ["", "Train", "tra", "x", "0"], "filename": [
        "", "s001_cor.bin", "s002_cor.bin"], "scan_id": [""], "view": [""]}
OF_PREDICTIONS = {"probs": [*NO_NUMBER, "1.0001", "-1e-9", "-0.5"], "scan_id": [""],
                  "target": [*(text for text in NO_NUMBER if text.lower() not in ("", "nan")), "2"]}  # no label


def _leak(table, rng):
    """One patient or image in two sets."""
    one, other = table.index[table["split0"] == "train"][0], table.index[table["split0"] == "test"][0]
    rows = table["scan_id"] == table.loc[other, "scan_id"]
    kind, name = pick(rng, ["same", "case", "blank", "zeros", "image"]), table.loc[one, "patient_id"]
    if kind == "image":
        table.loc[other, "image_sha256"] = table.loc[one, "image_sha256"]
    else:
        table.loc[rows, "patient_id"] = {"same": name, "case": name.lower(), "blank": f"{name[0]} {name[1:]}",
                                         "zeros": name.replace("P", "P00")}[kind]
    return table, f"a leak: {kind}"


def _structure(table, rng):
    """Rows or columns that should not be, or are not."""
    kind = pick(rng, ["row twice", "column gone", "column twice", "pandas' second column", "no rows", "differing scan"])
    if kind == "row twice":
        table = pd.concat([table, table.sample(1, random_state=int(rng.integers(99)))])
    elif kind == "column gone":
        table = table.drop(columns=pick(rng, ["scan_id", "probs" if "probs" in table else "filename"]))
    elif kind in ("column twice", "pandas' second column"):
        table = table.assign(again=1 - table["target"].astype(int))
        table.columns = [{"again": "target" if kind == "column twice" else "target.1"}.get(c, c) for c in table]
    elif kind == "no rows":
        table = table.iloc[:0]
    else:
        table.loc[0, "target"] = "1"  # of two views
        table.loc[1, "target"] = "0"
    return table, kind


def _case(rng, folder, table, values, read, right, name):
    kind = pick(rng, ["saved"] * 3 + ["value"] * 4 + ["structure", "bytes"] * 2 + ["cut", "no file", "large"]
                + ["leak"] * 3 * ("split0" in table))
    path, expected = folder / name, REFUSED
    if kind == "saved":
        return Case(f"saved as {_as_saved(table, path, rng)}", read, SAME, right)
    if kind == "value":
        table, said = _damage(table, values, rng)
    elif kind == "structure":
        table, said = _structure(table, rng)
    elif kind == "leak":
        table, said = _leak(table, rng)
    elif kind == "large":
        text = table.to_csv(index=False)
        header, rest = text.split("\n", 1)
        said, text = pick(rng, [
            ("a field of a million", header + "\n" + "x" * 10**6 + rest), ("NUL", text.replace("s", "\0")),
            ("many columns", header + ",a" * 20000 + "\n" + rest), ("a quote", text.replace("s005", '"s5', 1)),
            ("many rows", header + "\n" + rest * int(pick(rng, [40, 400, 4000])))])
        path.write_text(text)
        return Case(said, read)
    else:
        path.write_bytes(content := table.to_csv(index=False).encode())
        if kind == "no file":
            return Case(no_file(path, rng), read, REFUSED)
        if kind == "cut":
            at = int(rng.integers(len(content) - 8, len(content))) if "probs" in table else content.rindex(b",")
            path.write_bytes(content[:at])
            return Case(f"cut to {at} bytes", read, REFUSED)
        path.write_bytes(mutated(content, rng))
        return Case("bytes", read)
    table.to_csv(path, index=False)
    return Case(said, read, expected)


def manifest(rng, folder):
    table = _manifest()
    columns = ["scan_id", "filename", "target", "matrix_size_1", "matrix_size_2", "patient_id", "split0"]
    wanted = table[columns].to_numpy().tolist()

    def right(found):
        return found[columns].astype(str).to_numpy().tolist() == wanted and set(found["spacing_mm"]) == {3.27}

    return _case(rng, folder, table, OF_MANIFEST, lambda: read_manifest(folder / "data.csv", [0]), right, "data.csv")


def prediction_file(rng, folder):
    table = _predictions()
    wanted = table["probs"].astype(float).groupby(table["scan_id"]).mean()

    def read():
        models, _ = ensemble.find_models(folder)
        ensemble.read_models(models, None, [])
        scans, _ = ensemble.join_scans(models)
        return ensemble.combine(ensemble.score_models(models, scans, "avg"))

    return _case(rng, folder, table, OF_PREDICTIONS, read,
                 lambda found: found.index.equals(wanted.index) and np.allclose(found, wanted, 0, 1e-12),
                 "pred_split0_run1.csv")

