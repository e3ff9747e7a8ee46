"""The site of the lesion, `target_loc`, in a manifest: codes, their names, their class indices. Imports no torch.

A code per row (51: no lesion), or with several sites a scan codes separated by semicolons. Class indices follow the
codes in ascending order.
"""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import InputError
from common.manifest import read_manifest
from common.sites import NO_LESION
from common.text import counted, some, whole_number

LISTED = 20  # rows named in a warning


def read_loca_manifest(path: str | Path, splits: Sequence[int], sites: dict, multi: bool = False, strict: bool = False,
                       need_target: bool = True, allow_leakage: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """`manifest.read_manifest`, with the column true_loc: class indices as text, "3" or, with `multi`, "3;9"; "" where
    the site is unknown.

    Parameters
    ----------
    sites : dict
        Of `common.sites.read_sites`.
    multi : bool
        Several codes a row are allowed.
    strict : bool
        Refuse rows whose target and site contradict each other; else their site is left unknown.
    need_target, allow_leakage
        Of read_manifest.

    Returns
    -------
    DataFrame
        Of read_manifest, with true_loc.
    list of str
        Warnings.

    Raises
    ------
    InputError
        An unknown code, several codes without `multi`, scans whose rows differ, and what read_manifest refuses.
    """
    table = read_manifest(path, splits, need_target=need_target, allow_leakage=allow_leakage)
    warnings = [f"{path}: true_loc is replaced by what target_loc says"] * ("true_loc" in table)
    if "target_loc" not in table:
        if need_target:
            raise InputError(f"{path}: no column target_loc (code of the lesion's site, {NO_LESION}: none)")
        return table.assign(true_loc=""), warnings
    codes = [_codes(path, row, sites, multi) for row in table.itertuples()]
    table["target_loc"] = [";".join(map(str, each)) for each in codes]
    differing = table["target_loc"] != table.groupby("scan_id")["target_loc"].transform("first")
    for row in table[differing].itertuples():
        raise InputError(f"{path} row {row.row} (scan {row.scan_id}): target_loc = {row.target_loc!r} differs between "
                         "the rows of this scan: correct the CSV")
    none = np.array([each == [NO_LESION] for each in codes])
    known = np.array([bool(each) for each in codes])
    target = pd.to_numeric(table["target"] if "target" in table else pd.Series(np.nan, table.index), errors="coerce")
    positive, negative = (target == 1).to_numpy(), (target == 0).to_numpy()
    lines, contradicting = [], np.zeros(len(table), bool)
    for wrong, text in ((positive & known & none, f"positive (target 1) with target_loc {NO_LESION}, no lesion"),
                        (negative & known & ~none, "negative (target 0) with the code of a lesion's site")):
        if wrong.any():
            scans = table.loc[wrong, "scan_id"].nunique()
            lines.append(f"{text}: {counted(wrong.sum(), 'row')} of {counted(scans, 'scan')}: {_rows(table[wrong])}")
            contradicting |= wrong
    if strict and lines:
        raise InputError(f"{path}: {'; '.join(lines)}; correct them, or leave out --site_strict")
    if (unknown := positive & ~known).any():
        lines.append(f"{counted(unknown.sum(), 'positive row')} without target_loc: {_rows(table[unknown])}")
    warnings += [f"{path}: {line}; their site is left out" for line in lines]
    if (empty := negative & ~known).any():
        warnings.append(f"{path}: {counted(empty.sum(), 'negative row')} without target_loc: taken as {NO_LESION}, no "
                        "lesion")
    place = {code: k for k, code in enumerate(sites)}
    codes = [[] if left_out else [NO_LESION] if none_given else each
             for each, left_out, none_given in zip(codes, contradicting, empty, strict=True)]
    table["true_loc"] = [";".join(str(place[code]) for code in each) for each in codes]
    return table, warnings


def _codes(path, row, sites, multi):
    """The codes of a row, sorted, each once. Raises InputError naming the row."""
    where = f"{path} row {row.row} (scan {row.scan_id}): target_loc = {row.target_loc!r}"
    codes = set()
    for text in filter(None, map(str.strip, row.target_loc.split(";"))):
        if (code := whole_number(text)) not in sites:
            raise InputError(f"{where} is not a code of a site ({', '.join(map(str, sites))}); correct the CSV, or "
                             "give your codes' names with --site_map")
        codes.add(code)
    if len(codes) > 1 and not multi:
        raise InputError(f"{where} holds several sites; give --site_multi, or one code")
    if len(codes) > 1 and NO_LESION in codes:
        raise InputError(f"{where} holds {NO_LESION}, no lesion, beside a site; remove one of them")
    return sorted(codes)


def _rows(table):
    """"rows 4, 5, 9 and 12 more"."""
    return f"row{'s' * (len(table) > 1)} {some(table['row'], LISTED)}"
