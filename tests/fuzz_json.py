"""Hostile JSON: operating points, spaces, lesion sites, settings."""
import copy
import json
from argparse import Namespace

import pandas as pd
from fuzz_harness import ANY, REFUSED, SAME, Case, mutated, no_file, pick

from common.digests import COLUMNS
from common.model_files import read_settings
from common.sites import read_sites
from evaluation import ensemble, operating_points
from search.space import SEARCH, read_space

FILE = "pred_split0_run1.csv"
ODD = [None, True, -1, 2, 10**400, 1.5, 1e308, "", "x", "0.5", [], [[]], {}, {"a": 1}, [None] * 3, "9" * 5000, "\ud800",
       {"low": 3, "high": 1}, {"low": "a", "high": 2}, [1, 1], [[1]], "<script>", {"": {}}]
DIGESTS = {"salt": "00", "id_keys": [""], **{name: {column: [] for column in COLUMNS} for name in ("train", "val")}}
RULE = {"recalibration": {"method": "platt", "a": 0.1, "b": 1.2}, "thresholds": {"youden": 0.4, "sensitivity95": None}}
ISOTONIC = {"recalibration": {"method": "isotonic", "x": [0.1, 0.5], "y": [0.2, 0.7], "n": 40},
            "thresholds": {"youden": 0.4}}
POINTS = {"combine": "mean", "models": [FILE], "checkpoints": {FILE: None}, "derived_scans": DIGESTS,
          "derived_from": {"source": "calibration set", "n_scans": 40, "n_positive": 20, "n_patients": None,
                           "models_per_scan": {"1": 40}, "scans_per_model": [40, 40], "optimistic": None,
                           "left_out_because_measured": 0, "synthetic": False, "by": "mean"},
          "avg": RULE | {"of_models": [{"models": [FILE], **RULE}]}, "max": ISOTONIC | {"of_models": []}}
SPACE = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "batch_size": [16, 32], "dropout": {"low": 0.1, "high": 0.5}}
SITES = {"1": "cervical", "2": "axillary", "51": "no lesion"}
SETTINGS = {"args": {"lr": 0.1}, "epoch": 3, "auc": 0.75, "model": {"dropout": 0.5}, "trained_on": DIGESTS,
            "input": {"frame": [96, 64], "norm": [1.0, 2.0]}, "versions": {"python": "3"}}


def _places(value, at=()):
    yield at
    if isinstance(value, dict | list):
        for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield from _places(each, (*at, key))


def _changed(value, rng):
    """An odd value in one place, or a key that is gone or new."""
    value = copy.deepcopy(value)
    at = pick(rng, list(_places(value)))
    if not at:
        return pick(rng, ODD)
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if rng.random() < 0.2:
        del inner[at[-1]]
    elif isinstance(inner, dict) and rng.random() < 0.15:
        inner[pick(rng, ["", "x", "__proto__", "a" * 10**5])] = inner.pop(at[-1])
    else:
        inner[at[-1]] = pick(rng, ODD)
    return value


def _rules(path):
    rows = pd.DataFrame({"scan_id": ["a"], "checkpoint_sha256": [""]})
    model = ensemble.Model(path.with_name(FILE), FILE, 0, 1, rows=rows)
    return operating_points.read_rules(path, [model], "mean", [])


def _rules_hold(found):
    rules, about = found
    thresholds = [value for each in rules.values() for rule in each.values() for value in rule["thresholds"].values()]
    json.dumps(about)
    return all(value is None or 0 <= value <= 1 for value in thresholds)


KINDS = {
    "operating_points.json": (POINTS, _rules, _rules_hold),
    "space.json": (SPACE, lambda path: read_space(Namespace(space=str(path), given={}, recipe=None, **dict.fromkeys(
        (*SEARCH, "momentum", "lr_anneal", "ema", "warmup_epochs"))), SEARCH), lambda found: found[0]),
    "sites.json": (SITES, read_sites, lambda found: 51 in found and all(isinstance(code, int) for code in found)),
    "settings_split0_run1.json": (SETTINGS, lambda path: read_settings(path.parent, 0, 1), None)}


def parameters(rng, folder):
    name = pick(rng, list(KINDS))
    good, read, right = KINDS[name]
    path, kind = folder / name, pick(rng, ["right"] + ["value"] * 6 + ["bytes", "form", "no file"])
    expected, said = ANY, kind
    if kind == "no file":
        said = no_file(path, rng)
        expected = REFUSED if name != "settings_split0_run1.json" else ANY
    elif kind == "form":
        said, text = pick(rng, [("deep", "[" * 50_000), ("deep objects", '{"a":' * 50_000), ("NaN", '{"lr": NaN}'), (
            "twice", '{"lr": null, "lr": [1]}'), ("UTF-16", "\ufeff{"), ("digits", '{"1": ' + "9" * 10_000 + "}"), (
            "a million", "[" + "1," * 10**6 + "1]"), ("text", '"x"'), ("surrogate", '{"\\ud800": 1}')])
        path.write_bytes(text.encode("utf-16" if said == "UTF-16" else "utf-8"))
        expected = ANY if said == "surrogate" else REFUSED
    else:
        value = _changed(good, rng) if kind == "value" else good
        content = json.dumps(value).encode()
        path.write_bytes(mutated(content, rng) if kind == "bytes" else content)
    return Case(f"{name}: {said}", lambda: read(path), SAME if kind == "right" else expected, right)
