"""The names of a run's files, S = split, R = run. Imports no torch."""
from pathlib import Path


def run_file(folder, kind, split, run):
    """The path of a run's file: kind is checkpoint, last, settings, convergence, figure (its curve), or pred."""
    kind, suffix = {"checkpoint": (kind, ".pth"), "last": (kind, ".pth"), "settings": (kind, ".json"),
                    "figure": ("convergence", ".png")}.get(kind, (kind, ".csv"))
    return Path(folder) / f"{kind}_split{split}_run{run}{suffix}"
