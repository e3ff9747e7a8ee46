"""README, docs, docstrings, examples: their commands are accepted, links lead somewhere, options exist."""
import importlib
import re
import shlex
import subprocess

import pytest
from conftest import ROOT
from docs_helpers import CHAPTERS, MADE, PAGES, commands

from common.renamed import RENAMED

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if "\ndef get_args_parser" in path.read_text())
PARSERS = {name: importlib.import_module(name).get_args_parser() for name in SCRIPTS}
DOCSTRINGS = {name: importlib.import_module(name).__doc__ for name in SCRIPTS}
SHOWN = sorted({(name, shlex.join(words)) for text in (*DOCSTRINGS.values(), *(page.read_text() for page in PAGES))
                for name, words in commands(text)})
FOLDERS = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"tests", "docs", "examples", "figures"}
OTHERS_OPTIONS = {"--split-index", "--gpus", "--require-hashes", "--logdir", "--help", "--version", "--nproc_per_node",
                  "--no-normalize", "--pdb"}


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170


def test_each_docstring_shows_how_to_run_its_script():
    assert all(name in dict(commands(text)) for name, text in DOCSTRINGS.items())


@pytest.mark.parametrize(("name", "words"), SHOWN)
def test_command_is_accepted(name, words):
    PARSERS[name].parse_args(shlex.split(words))


@pytest.mark.parametrize("name", MADE)
def test_page_that_is_made_from_the_code_is_up_to_date(name):
    assert (ROOT / "docs" / "reference" / name).read_text() == MADE[name](), "make docs writes it anew"


def test_page_of_the_scripts_has_all_of_them():
    assert sorted(name for names in CHAPTERS.values() for name in names) == SCRIPTS


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_options_in_the_text_exist(page):
    known = {option for parser in PARSERS.values() for action in parser._actions for option in action.option_strings}
    known |= OTHERS_OPTIONS | ({f"--{name}" for name in RENAMED} if page.name == "CHANGELOG.md" else set())
    assert not {option for span in spans(page.read_text()) for option in re.findall(r"(?<!\S)--\w[\w-]*", span)} - known


def anchors(page):
    """The anchors that GitHub gives the headings of a Markdown page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading.lower())).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and ROOT in target.parents, link
        assert not anchor or anchor in anchors(target), link


def spans(text):
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_files_of_the_repository_that_a_page_names_are_there(page):
    named = {span for span in spans(page.read_text()) if re.fullmatch(r"(?:\w+/)+[\w.]*|[a-z_]+\.py", span)}
    ours = {name for name in named if name.split("/")[0] in FOLDERS or name.endswith(".py")}
    assert not {name for name in ours if not (ROOT / name).exists()}


def test_names_in_the_table_of_contributing_stand_in_the_files_of_their_row():
    rows = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 12
    for row in rows:
        files = "".join((ROOT / span).read_text() for span in spans(row) if (ROOT / span).is_file())
        assert not {span for span in spans(row) if re.fullmatch(r"\w+", span) and span not in files}, row


def test_every_page_is_linked_from_the_readme():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in
              re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())}
    assert set(PAGES[1:]) <= linked


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_the_docstring_and_every_default(name):
    shown = " ".join(PARSERS[name].format_help(every=True).split())
    assert " ".join(DOCSTRINGS[name].split()) in shown
    for action in PARSERS[name]._actions:
        if action.option_strings and action.nargs != 0 and not action.required and action.default is not None:
            assert "(default" in action.help or f"(default: {action.default})" in shown, action.option_strings[0]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.sh")), ids=lambda path: path.name)
def test_example_is_shell_whose_commands_are_accepted(path):
    subprocess.run(["bash", "-n", path], check=True)
    code = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    found = re.findall(r"^[^#\n]*?\b(\w+)\.py ([^\n]*)", code.replace("\\\n", " "), re.MULTILINE)
    assert found, "runs no script"
    for name, words in found:
        words = [re.sub(r"\$\{?\w+\}?", "1", word) for word in shlex.split(words)]  # whatever Slurm says
        PARSERS[name].parse_args(words)
