"""The toolkit as a package: `from deauville_mip import suv_volume`, and every module as deauville_mip.folder.module.

Scripts and folders import each other by bare names (`from common.text import ...`, `import utils`), as `python
train.py` needs it. Here they are loaded under this package's name, and what they import by a bare name of ours is found
here: no `utils` or `common` enters sys.modules, and another package's of that name stays itself. Worker processes find
what these modules send them by the same names.
"""
import builtins
import importlib
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path

_HERE = Path(__file__).resolve().parent
HOME = _HERE if (_HERE / "train.py").exists() else _HERE.parent  # installed, or a checkout
OURS = {path.stem for path in HOME.glob("*.py")} | {path.parent.name for path in HOME.glob("*/__init__.py")}
OURS -= {__name__, "__init__", "setup", "commands"}
API = {"suv_volume": "preprocessing.suv", "SuvVolume": "preprocessing.suv", "Refused": "preprocessing.dicom_values",
       "project": "preprocessing.geometry", "read_image": "common.mips", "read_manifest": "common.manifest",
       "InputError": "common.files", "ResNet34": "utils", "load_model": "utils", "predict_mips": "inference.prediction",
       "all_metrics": "evaluation.metrics",
       "auc_interval": "evaluation.metrics", "choose_thresholds": "evaluation.metrics"}
__all__ = sorted(API)  # noqa: PLE0605
__path__ = [str(HOME), *([str(_HERE)] if HOME != _HERE else [])]


def _import(name, globals=None, locals=None, fromlist=(), level=0):
    """`import` as our modules see it: a bare name of ours is that module of this package."""
    top = name.partition(".")[0]
    if level or top not in OURS:
        return builtins.__import__(name, globals, locals, fromlist, level)
    module = builtins.__import__(f"{__name__}.{name}", globals, locals, fromlist, 0)
    return module if fromlist else sys.modules[f"{__name__}.{top}"]


class _Loader(SourceFileLoader):
    def exec_module(self, module):
        module.__builtins__ = vars(builtins) | {"__import__": _import}
        super().exec_module(module)


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if not name.startswith(f"{__name__}."):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder)
from deauville_mip.common import __version__  # noqa: E402, F401


def __getattr__(name):
    if name in API:
        return getattr(importlib.import_module(f"{__name__}.{API[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *API})
