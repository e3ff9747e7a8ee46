"""The commit of this code; are two sets of settings the same? Imports no torch."""
import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any


def commit() -> str | None:
    """git's, with "+" where files differ from it; None outside git."""
    def git(*words):
        return subprocess.run(["git", *words], cwd=Path(__file__).parents[1], capture_output=True, text=True,
                              check=True).stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    return None


def plain(value: Any) -> Any:
    """As it comes back from JSON: tuples are lists, keys are texts."""
    return json.loads(json.dumps(value))


def differences(before: dict, now: dict, but: tuple = (), prefix: str = "") -> list[str]:
    """What differs, ["--lr (0.01, now 0.1)", ...], in the order of `before`; [] where the two agree.

    Parameters
    ----------
    before, now : dict
        Stored settings under the names of today, and those of this run. A name that `now` lacks differs; one that
        `before` lacks is newer than it and does not.
    but : tuple of str
        Names that may differ.
    prefix : str
        What stands before a name: "--" for options.
    """
    return [f"{prefix}{name} ({value}, now {now.get(name, 'unknown')})" for name, value in before.items()
            if name not in but and plain(value) != plain(now.get(name, "unknown"))]
