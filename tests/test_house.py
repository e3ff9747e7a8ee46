"""The house of docs/design.md: who may import whom, how long a file may be, what the package contains.

import-linter (`make lint`) holds the folders too, through chains of imports; it cannot see the files of the top level.
"""
import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT

LAYERS = ["common", "utils", "dataset", "dataset_loca", "evaluation", "training", "inference", "search", "benchmarks"]
MAY_USE = {layer: set(LAYERS[:n]) for n, layer in enumerate(LAYERS)}
MAY_USE["dataset"].remove("utils")  # these two stand side by side
MAY_USE["evaluation"] = {"common"}  # dataset imports torch
MAY_USE["preprocessing"] = MAY_USE["synthetic"] = {"common"}
MAY_USE["benchmarks"] |= {"preprocessing", "synthetic"}
FOLDERS = [name for name in MAY_USE if (ROOT / name).is_dir()]
FILES = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])
LONGEST = 450
PACKAGE = "deauville_mip"  # what `pip install .` adds to them


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def imports(path):
    """The modules of this repository that a file imports anywhere in it, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the top, not relative to the file"
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= modules or {node.module}
    return found & set(MODULES)


def test_every_folder_of_code_has_its_place():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", PACKAGE)}
    assert folders == set(FOLDERS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards(name):
    top = name.split(".")[0]
    may = MAY_USE.get(top, set(MAY_USE)) | ({top} if top in FOLDERS else set())
    used = {module.split(".")[0] for module in imports(MODULES[name])}
    assert used <= may, f"{name} may not import {', '.join(sorted(used - may))}: see docs/design.md"


def test_imports_have_no_circle():
    list(TopologicalSorter({name: imports(path) - {name} for name, path in MODULES.items()}).static_order())


def test_common_and_evaluation_import_no_torch():
    names = [name for name in MODULES if name.split(".")[0] in ("common", "evaluation")]
    code = ("import importlib, sys\n"
            "for name in sys.argv[1:]:\n"
            "    importlib.import_module(name)\n"
            "    if 'torch' in sys.modules: sys.exit(f'{name} imports torch')\n")
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_scan_is_not_called_one_scans():
    """Numbers of things are written by `common.text.counted`, in messages and pages."""
    things = (r" ((?:[a-z]+ )?(?:scans|models|images|files|networks|patients|events|studies|rows|trials|epochs|splits|"
              r"runs|views|slices|folds|columns|resamples|figures|checkpoints))\b(?!/s)")
    found = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            for before, after in zip(parts, parts[1:], strict=False):
                if isinstance(before, ast.FormattedValue) and isinstance(after, ast.Constant):
                    value = ast.unparse(before.value)
                    hit = re.match(things, after.value)
                    if hit and not value.isupper() and not re.search(r"counted|join|path|\[-?\d", value):
                        found.append(f"{name}: {value} {hit[1]}")
    for path in (ROOT / "common" / "templates").iterdir():
        found += [f"{path.name}: {hit}" for hit in re.findall(r"\}\}" + things, path.read_text())]
    assert not found


def test_files_are_short_enough_to_read():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > LONGEST}


def test_import_linter_knows_every_folder():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["importlinter"]["root_packages"] == sorted(FOLDERS)


def test_test_modules_share_by_helpers_alone():
    for path in (ROOT / "tests").glob("*.py"):
        names = {getattr(node, "module", "") for node in ast.walk(ast.parse(path.read_text()))}
        assert not {name for name in names if str(name).startswith("test_")}, path.name
