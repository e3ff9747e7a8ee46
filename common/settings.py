"""The commit of this code; arguments as they are stored; are two sets of settings the same? Imports no torch."""
import contextlib
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import sha256
from common.model_files import exists, is_export, read_file

FILES = ("weights", "checkpoint", "site_map")  # arguments that decide, by what is in the file, on the result
HASHED = re.compile(r" \([0-9a-f]{12}\)$")


def commit() -> str | None:
    """git's, with "+" where files differ from it; None outside a checkout of this toolkit."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # installed: the repository around it, if any, is another one
        return None

    def git(*words):
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    return None


def plain(value: Any) -> Any:
    """As it comes back from JSON: tuples are lists, keys are texts."""
    return json.loads(json.dumps(value))


def base_names(value: Any) -> Any:
    """Arguments without the folders in them: they say where someone works, and who, or name a patient."""
    if isinstance(value, dict):
        return {name: base_names(each) for name, each in value.items()}
    if isinstance(value, list):
        return [base_names(each) for each in value]
    return value.replace("\\", "/").rstrip("/").split("/")[-1] if isinstance(value, str) else value


def stored_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as checkpoints and studies keep them: no folders; of `FILES` the name and the start of the SHA-256, so
    that another file of the same name is another value. What is stored already stays as it is."""
    found = plain(dict(args))
    for values in (found, found.get("given") or {}):
        for name in FILES:
            if digest := _digest(values.get(name)):
                values[name] = f"{values[name]} ({digest[:12]})"
    return dict(base_names(found))


def _digest(path: str | None) -> str | None:
    """SHA-256 of a file, in a zip of models, too; None where there is none."""
    if path and Path(path).is_file():
        return sha256(path)
    if path and is_export(Path(path).parent) and exists(path):
        return hashlib.sha256(read_file(path)).hexdigest()
    return None


def differences(before: dict, now: dict, but: tuple = (), prefix: str = "") -> list[str]:
    """What differs, ["--lr (0.01, now 0.1)", ...], in the order of `before`; [] where the two agree.

    Parameters
    ----------
    before, now : dict
        Stored settings under the names of today, and those of this run. A name that `now` lacks differs; one that
        `before` lacks is newer than it and does not, nor does the SHA-256 of a file that `before` has without.
    but : tuple of str
        Names that may differ.
    prefix : str
        What stands before a name: "--" for options.
    """
    return [f"{prefix}{name} ({value}, now {now.get(name, 'unknown')})" for name, value in before.items()
            if name not in but and plain(value) not in _as_stored(name, value, now)]


def _as_stored(name: str, before: Any, now: dict) -> list[Any]:
    """What `differences` takes for the same as the stored value."""
    value = plain(now.get(name, "unknown"))
    without = name in FILES and isinstance(value, str) and not HASHED.search(str(before))
    return [value, HASHED.sub("", value)] if without else [value]
