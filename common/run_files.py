"""The names of a run's files, S = split, R = run. Imports no torch."""
import re
from collections.abc import Sequence
from pathlib import Path


def run_file(folder: str | Path, kind: str, split: int | str, run: int | str) -> Path:
    """The path of a run's file: kind is checkpoint, last, settings, bench, convergence, figure (its curve),
    pred, or running (its lock)."""
    kind, suffix = {"checkpoint": (kind, ".pth"), "last": (kind, ".pth"), "settings": (kind, ".json"),
                    "bench": (kind, ".json"), "figure": ("convergence", ".png"),
                    "running": (kind, ".lock")}.get(kind, (kind, ".csv"))
    return Path(folder) / f"{kind}_split{split}_run{run}{suffix}"


def find_run_files(folder: str | Path, kind: str) -> list[tuple[int, int, Path]]:
    """[(split, run, path), ...] of a folder's files of a kind, in ascending order."""
    return sorted((*found, path) for path in run_file(folder, kind, "*", "*").parent.glob("*")
                  if (found := run_of(path, kind)))


def run_of(path: str | Path, kind: str) -> tuple[int, int] | None:
    """(split, run) of a run's file of a kind by its name; None for another name."""
    match = re.fullmatch(run_file("", kind, "([0-9]+)", "([0-9]+)").name, Path(path).name)
    return (int(match[1]), int(match[2])) if match else None


def safe_name(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^\w.-]", "_", text)


def heat_folder(folder: str | Path, target: str, models: Sequence[tuple[int, int]] = ()) -> Path:
    """Where explain.py writes what it makes of models; `folder` is its --output, `target` its --target.

    `models`: (split, run) of each; of one it is that model's own folder, else (or not given) the ensemble's.
    """
    of = "split{}_run{}".format(*models[0]) if len(models) == 1 else "ensemble"
    return Path(folder) / f"{safe_name(target)}_{of}"


def heat_map(folder: Path, scan: str, view: str) -> Path:
    """The file of a view's heat map in a `heat_folder`: (rows, columns) float32 on the MIP's pixels."""
    return folder / "maps" / f"{safe_name(f'{scan}_{view}')}.npy"


def panel(folder: Path, scan: str, suffix: str = ".png") -> Path:
    """The picture of a scan in a `heat_folder`; `suffix`: or ".pdf"."""
    return folder / "panels" / (safe_name(scan) + suffix)
