"""Lesion sites: their codes in `target_loc`, their names, their class indices. Imports no torch.

Class indices follow the codes in ascending order. 51 is no lesion.
"""
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.files import InputError, read_json_object

NO_LESION = 51
SITES = {1: "cervical", 2: "supraclavicular", 5: "axillary", 6: "anterior mediastinal", 7: "hilar", 8: "para-aortic",
         9: "mesenteric", 10: "iliac", 11: "inguinal", 20: "spleen", 25: "liver", 27: "lung", 28: "bone",
         NO_LESION: "no lesion"}


def read_sites(path: str | Path | None = None) -> dict[int, str]:
    """{code: name} in ascending order of the codes: SITES, or --site_map's JSON object {"code": "name", ...}.

    Code 51 is no lesion in every map, and added where the file lacks it. Raises InputError.
    """
    if path is None:
        return dict(SITES)

    found = read_json_object(path, "--site_map", '{"1": "cervical", "51": "no lesion"}')
    for code, name in found.items():
        if not re.fullmatch(r"0|[1-9]\d*", code):
            raise InputError(f"--site_map {path}: code {code!r} is not a whole number")
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"--site_map {path}: the name of code {code}, {name!r}, is not a text")
    names = [name.strip() for name in found.values()]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--site_map {path}: the name {twice[0]!r} is there twice; give every code its own")
    sites = {NO_LESION: SITES[NO_LESION]} | {int(code): name.strip() for code, name in found.items()}
    if len(sites) < 3:
        raise InputError(f"--site_map {path}: give two sites or more beside {NO_LESION} (no lesion)")
    return dict(sorted(sites.items()))


# A side in English (L, R), French, German, Dutch, Spanish, Italian, Portuguese; a word ends at "_", too.
_SIDE = re.compile(r"(?<![^\W_])(left|right|lt?|rt?|gauche|droite?|link(s|e[rs]?)|recht(s|e[rs]?)|izquierd[ao]"
                   r"|derech[ao]|sinistr[ao]|destr[ao]|esquerd[ao]|direit[ao])(?![^\W_])", re.IGNORECASE)


def mirrored_sites(sites: Mapping[Any, str], augm: int) -> list[str]:
    """The names with a side, such as "neck_left", which are wrong for images that --augm `augm` flips or turns."""
    flips = bool(set("123") & set(str(augm)))
    return [name for name in sites.values() if flips and _SIDE.search(name)]


def truth_matrix(true_loc: Sequence[str] | pd.Series, count: int) -> np.ndarray:
    """(n,) texts of class indices, as in the column true_loc -> (n, count) bool; a row without True is unknown."""
    found = pd.Series(true_loc, dtype=str).str.get_dummies(";")
    return found.reindex(columns=[str(k) for k in range(count)], fill_value=0).to_numpy(bool)


def scored_classes(settings: Mapping[str, Any]) -> np.ndarray:
    """(k,) class indices that a site head is trained for: without 51 where only positive scans have a site loss."""
    codes = [int(code) for code in settings["sites"]]
    return np.array([k for k, code in enumerate(codes) if settings["site_on"] == "all" or code != NO_LESION])
