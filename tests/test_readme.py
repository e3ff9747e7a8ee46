"""README, docstrings and examples: every command they show is one that its script accepts."""
import importlib
import re
import shlex
import subprocess

import pytest
from conftest import ROOT

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if "def get_args_parser" in path.read_text())


def commands():
    texts = [(ROOT / "README.md").read_text()] + [importlib.import_module(name).__doc__ for name in SCRIPTS]
    found = re.findall(r"^\s*python ((\w+)\.py[^#\n]*)", "\n".join(texts), re.MULTILINE)
    return sorted({(name, command.strip()) for command, name in found})


def test_there_are_commands():
    shown = {name for name, _ in commands()}
    assert shown == set(SCRIPTS), "each script's docstring shows how to run it"


@pytest.mark.parametrize(("name", "command"), commands())
def test_command_is_accepted(name, command):
    words = shlex.split(command)[1:]
    importlib.import_module(name).get_args_parser().parse_args(words)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_the_docstring_and_defaults(name):
    module = importlib.import_module(name)
    shown = module.get_args_parser().format_help()
    assert module.__doc__.strip().splitlines()[0] in shown and "default" in shown


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.sh")), ids=lambda path: path.name)
def test_example_is_shell_whose_commands_are_accepted(path):
    subprocess.run(["bash", "-n", path], check=True)
    code = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    found = re.findall(r"^[^#\n]*?\b(\w+)\.py ([^\n]*)", code.replace("\\\n", " "), re.MULTILINE)
    assert found, "runs no script"
    for name, words in found:
        words = [re.sub(r"\$\{?\w+\}?", "1", word) for word in shlex.split(words)]  # whatever Slurm says
        importlib.import_module(name).get_args_parser().parse_args(words)
