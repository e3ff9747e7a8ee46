"""The commit of this code, arguments as they are stored, and how stored settings differ from new ones.

Imports no torch.
"""
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

FILES = ("weights", "checkpoint", "site_map")  # arguments that name a file on whose content the result depends
HASHED = re.compile(r" \([0-9a-f]{12}\)$")


def commit() -> str | None:
    """The hash of the git commit, with "+" where files were changed since; None outside a checkout of this toolkit."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # installed: the repository around it, if any, is another one
        return None

    def git(*words):
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    return None


def plain(value: Any) -> Any:
    """The value as it comes back from JSON: tuples become lists, keys become texts."""
    return json.loads(json.dumps(value))


def base_names(value: Any) -> Any:
    """Arguments without folders, which may name a user or a patient."""
    if isinstance(value, dict):
        return {name: base_names(each) for name, each in value.items()}
    if isinstance(value, list):
        return [base_names(each) for each in value]
    return value.replace("\\", "/").rstrip("/").split("/")[-1] if isinstance(value, str) else value


def stored_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as checkpoints and studies store them: without folders, those of FILES followed by the start of the
    file's SHA-256, so that another file of the same name is another value. Stored arguments stay as they are."""
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
        Stored settings under their present names, and those of this run. Names that only `before` has differ; names
        that only `now` has are newer and do not, nor does a file's SHA-256 that `before` lacks.
    but : tuple of str
        Names that may differ.
    prefix : str
        Put before a name: "--" for options.
    """
    return [f"{prefix}{name} ({value}, now {now.get(name, 'unknown')})" for name, value in before.items()
            if name not in but and plain(value) not in _same_values(name, value, now)]


def _same_values(name: str, before: Any, now: dict) -> list[Any]:
    """The stored values that `differences` takes for the same as that of now."""
    value = plain(now.get(name, "unknown"))
    older = name in FILES and isinstance(value, str) and not HASHED.search(str(before))  # stored without SHA-256
    return [value, HASHED.sub("", value)] if older else [value]
