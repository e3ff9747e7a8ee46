"""Console commands: deauville-train runs train.py, with its folder first on sys.path."""
import runpy
import sys
from pathlib import Path

from deauville_mip import HOME


def main() -> None:
    """Run the script that the command is called after, as `python train.py` does."""
    name = Path(sys.argv[0]).stem.removeprefix("deauville-").replace("-", "_")
    sys.path.insert(0, str(HOME))
    runpy.run_path(str(HOME / f"{name}.py"), run_name="__main__")
