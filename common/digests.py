"""Digests of scans, patients and images in a checkpoint, which tell whether a model was trained on them.

The first 128 bits of HMAC-SHA-256 (RFC 2104) under a random salt that is stored with them. They hide identifiers from
casual reading only: whoever has an identifier can tell whether it was trained on.
"""
import hmac
import secrets
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from common.manifest import LEARNED
from common.text import counted, some

COLUMNS = ("scan_id", "patient_id", "image_sha256")  # of the manifest
START_UNKNOWN = "start_unknown"
# What the column `overlap` of a prediction file says, beside LEARNED
NONE, BY_IMAGE, BY_ID, NOT_CHECKED = "none", "none by image", "none by id", "not checked"
# The two of LEARNED: what a model did with such scans, and the sets that must hold none of them
SEEN = {"train": ("trained", ("val", "test", "cal")), "val": ("validated", ("test", "cal"))}


def row_digests(table: pd.DataFrame, column: str, salt: str) -> list[str]:
    """The digest of a column's value in each row, "" where it is empty or there is no such column.

    The digest of an identifier includes the fingerprint of the key that hashed it (column id_key), so that identifiers
    under different keys never match.
    """
    if column not in table:
        return [""] * len(table)
    keys = table["id_key"] if "id_key" in table and column != "image_sha256" else [""] * len(table)
    known: dict[tuple[str, str], str] = {}  # a scan has several rows
    for pair in zip(keys, table[column], strict=True):
        if pair not in known:
            message = "\0".join((column, *pair)).encode(errors="surrogateescape")
            known[pair] = hmac.digest(salt.encode(), message, "sha256").hex()[:32] if pair[1] else ""
    return [known[pair] for pair in zip(keys, table[column], strict=True)]


def training_digests(table: pd.DataFrame, sets: Iterable[str], salt: str | None = None) -> dict[str, Any]:
    """What a checkpoint stores of the scans that it was trained and validated on.

    Parameters
    ----------
    table : DataFrame
        Rows of a manifest, as text.
    sets : iterable of str
        The set of each row; those that are not of LEARNED are left out.
    salt : str or None
        None: a random one.

    Returns
    -------
    dict
        salt (hexadecimal); id_keys, the fingerprints of the keys that hashed the identifiers; train and val, each
        column -> its distinct digests, sorted. Training adds START_UNKNOWN, true, where it starts from a network of
        which nobody knows what scans it was trained on.
    """
    salt, names = salt or secrets.token_hex(16), np.array(list(sets))
    keys = sorted(set(table["id_key"])) if "id_key" in table else [""]
    found: dict[str, Any] = {"salt": salt, "id_keys": keys}
    for name in LEARNED:
        rows = table[names == name]
        found[name] = {column: sorted(set(row_digests(rows, column, salt)) - {""}) for column in COLUMNS}
    return found


def with_earlier(stored: dict[str, Any], table: pd.DataFrame, sets: Iterable[str]) -> dict[str, Any]:
    """`training_digests` of a model that was first trained on the scans of `stored`, then on those of `table`."""
    found = training_digests(table, sets, stored["salt"])
    found["id_keys"] = sorted({*stored["id_keys"], *found["id_keys"]})
    found |= {START_UNKNOWN: True} if stored.get(START_UNKNOWN) else {}
    for name in LEARNED:
        found[name] = {column: sorted({*stored[name][column], *digests}) for column, digests in found[name].items()}
    return found


def are_digests(stored: Any) -> bool:
    """Whether a value from a file is what `training_digests` gives."""
    def texts(value):
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)

    return (isinstance(stored, dict) and isinstance(stored.get("salt"), str) and texts(stored.get("id_keys"))
            and all(isinstance(stored.get(name), dict) and all(texts(stored[name].get(column)) for column in COLUMNS)
                    for name in LEARNED))


def overlap(table: pd.DataFrame, stored: dict[str, Any] | None) -> np.ndarray:
    """What each row shares with a model's training, by its scan, its patient and its image.

    Parameters
    ----------
    table : DataFrame
        Rows of a manifest, as text.
    stored : dict or None
        Of `training_digests`; None: a checkpoint that holds none.

    Returns
    -------
    (n,) array of str
        "train" or "val", where it was trained or validated on; else NONE, BY_IMAGE or BY_ID, where identifiers are of
        another key or images lack their digest, or NOT_CHECKED, where nothing could be compared.
    """
    if stored is None:
        return np.full(len(table), NOT_CHECKED, dtype=object)
    shared = {name: np.zeros(len(table), bool) for name in LEARNED}
    for column in COLUMNS:
        digests = np.array(row_digests(table, column, stored["salt"]), dtype=object)
        for name, rows in shared.items():
            rows |= (digests != "") & np.isin(digests, stored[name][column])
    ids = table["id_key"].isin(stored["id_keys"]) if "id_key" in table else np.full(len(table), "" in stored["id_keys"])
    images = table.get("image_sha256", pd.Series("", table.index)).ne("") & bool(stored["train"]["image_sha256"])
    known = not stored.get(START_UNKNOWN)
    return np.select([shared["train"], shared["val"], ids & images & known, ids & known, images & known],
                     [*LEARNED, NONE, BY_ID, BY_IMAGE], NOT_CHECKED).astype(object)


def name_scans(table: pd.DataFrame, rows: np.ndarray) -> str:
    """"12 scans (a, b, c, d, e and 7 more)"."""
    scans = table["scan_id"][rows].unique()
    return f"{counted(len(scans), 'scan')} ({some(scans)})"
