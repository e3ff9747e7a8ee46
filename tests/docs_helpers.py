"""README and docs/ as tests read them: their commands, and the pages that are made from the code."""
import ast
import importlib
import importlib.metadata
import os
import re
import shlex
import sys
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
COMMAND = re.compile(r"^\s*(?:python|torchrun --nproc_per_node \d+) (\w+)\.py([^#\n]*)", re.MULTILINE)
CHAPTERS = {"The chain": ["prepro_script", "make_splits", "train", "find_best_model", "predict", "aggregate",
                          "compare"],
            "New patients": ["score"],
            "Lesion sites and heat maps": ["train_loca", "predict_loca", "explain"],
            "Giving networks to others": ["export_models"], "Searching": ["optun", "optuna_finetuning"],
            "Synthetic cohort and benchmarks": ["phantom", "demo", "benchmark"]}


def commands(text):
    """The commands that a text shows, in its order: [(script without .py, its arguments as a list of words)]."""
    return [(script, shlex.split(words)) for script, words in COMMAND.findall(text)]


def scripts_page():
    """docs/reference/scripts.md as text: per script its --help without the usage."""
    lines = ["# Scripts", "", "What `python SCRIPT --help_all` prints. `make docs` writes this page.", ""]
    lines += [f"- {title}: " + ", ".join(f"[{name}.py](#{name}py)" for name in names)
              for title, names in CHAPTERS.items()]
    for name in (name for names in CHAPTERS.values() for name in names):
        with patch.dict(os.environ, COLUMNS="122"):
            text = importlib.import_module(name).get_args_parser().format_help(every=True)
        text = re.sub(r"\Ausage: .*?\n\n", "", text, flags=re.DOTALL)
        lines += ["", f"## {name}.py", "", "```text", text.strip(), "```"]
    return "\n".join(lines) + "\n"


def modules_page():
    """docs/reference/modules.md as text: per module the first paragraph of its docstring."""
    folders = [ROOT, *sorted(path.parent for path in ROOT.glob("*/__init__.py"))]
    lines = ["# Modules", "", "What each file says of itself. `make docs` writes this page."]
    for folder in folders:
        lines += ["", f"## {'Top level' if folder == ROOT else folder.name}", ""]
        if folder != ROOT:
            lines += [first_paragraph(folder / "__init__.py"), ""]
        lines += ["| module | |", "|---|---|"]
        lines += [f"| `{path.relative_to(ROOT)}` | {first_paragraph(path)} |" for path in sorted(folder.glob("*.py"))
                  if path.name != "__init__.py"]
    return "\n".join(lines) + "\n"


def pinned():
    """requirements.txt and requirements-dev.txt as [(what it is for, package, version)]; "" is for everything."""
    found, extra = [], ""
    for name in ("requirements.txt", "requirements-dev.txt"):
        extra = "dev" if "dev" in name else ""
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if heading := re.fullmatch(r"# extra: (\w+)", line):
                extra = heading[1]
            elif pin := re.fullmatch(r"([\w-]+)(?:\[\w+\])?==(\S+)", line):
                found.append((extra, pin[1], pin[2]))
    return found


def required_packages():
    """Those that are always installed."""
    return [name for extra, name, _ in pinned() if not extra]


def licences_page():
    """docs/reference/licences.md as text: what each pinned package says of its licence."""
    lines = ["# Licences of what is installed", "",
             "What the metadata of the packages of requirements.txt and requirements-dev.txt say; `make docs` writes",
             "this page. None that is always installed is under a GPL, nor is one that it needs",
             "(`tests/test_install.py`). psycopg, for PostgreSQL, is under the LGPL, and codespell, which checks",
             "spelling, under the GPL: both are optional. PyTorch's wheels for CUDA bring NVIDIA's libraries, which",
             "have licences of their own.", "",
             "| package | version | licence | for |", "|---|---|---|---|"]
    lines += [f"| {name} | {version} | {licence(name)} | {extra or 'all'} |" for extra, name, version in pinned()]
    return "\n".join(lines) + "\n"


def licence(name):
    """What a package's metadata say of its licence, on one line."""
    about = importlib.metadata.metadata(name)
    said = about.get("License-Expression") or "; ".join(
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if line.startswith("License"))
    return said or (about.get("License") or "not said").splitlines()[0][:60]


def first_paragraph(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    return " ".join(docstring.partition("\n\n")[0].split()).replace("|", "\\|")


MADE = {"scripts.md": scripts_page, "modules.md": modules_page, "licences.md": licences_page}  # in docs/reference

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for name, page in MADE.items():
        (ROOT / "docs" / "reference" / name).write_text(page())
