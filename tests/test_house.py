"""The house of docs/design.md: who may import whom, how long a file may be, what the package contains.

import-linter (`make lint`) holds the folders too, through chains of imports; it cannot see the files of the top level.
"""
import ast
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
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"}
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


def test_files_are_short_enough_to_read():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > LONGEST}


def test_the_package_lists_every_module_and_folder():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["setuptools"]["packages"] == sorted(FOLDERS) == tools["importlinter"]["root_packages"]
    assert tools["setuptools"]["py-modules"] == sorted(path.stem for path in ROOT.glob("*.py"))


def test_test_modules_share_by_helpers_alone():
    for path in (ROOT / "tests").glob("*.py"):
        names = {getattr(node, "module", "") for node in ast.walk(ast.parse(path.read_text()))}
        assert not {name for name in names if str(name).startswith("test_")}, path.name
