"""What `pip install .` gives: one folder, commands, an API beside a foreign `utils`; and imports that Windows has."""
import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from conftest import ROOT, error_line, run
from docs_helpers import licence, pinned, required_packages
from packaging.requirements import Requirement
from pet import datasets, save

from common.faults import EXTRAS

POSIX_ONLY = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if "\ndef get_args_parser" in path.read_text(encoding="utf-8"))
USES_BOTH = """
import sys
import utils  # another package's
import deauville_mip
from deauville_mip import Refused, ResNet34, __version__, all_metrics, suv_volume
from deauville_mip.common.text import counted
import deauville_mip.search.worker, deauville_mip.training.runs
import utils as again
assert utils is again is sys.modules["utils"] and utils.WHO == "foreign"
ours = {"common", "preprocessing", "evaluation", "inference", "training", "search", "synthetic", "benchmarks", "train",
        "dataset", "dataset_loca"}
assert not ours & set(sys.modules), ours & set(sys.modules)
volume = suv_volume(sys.argv[1])
assert 3.9 < volume.array.max() < 4.1, volume.array.max()
try:
    suv_volume(sys.argv[1] + "/none")
except Refused as error:
    assert type(error).__module__ == "deauville_mip.preprocessing.dicom_values"
assert all(callable(getattr(deauville_mip, name)) for name in deauville_mip.API)
assert counted(1, "scan") == "1 scan" and ResNet34.__module__ == "deauville_mip.utils"
assert all_metrics([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])["auc"]["value"] == 1
from concurrent.futures import ProcessPoolExecutor
from deauville_mip.common.text import duration
if __name__ == "__main__":
    with ProcessPoolExecutor(1) as pool:  # its worker finds our function by its name
        assert list(pool.map(duration, [40])) == ["40 s"]
"""


def test_no_script_needs_a_module_that_windows_lacks():
    code = ("import importlib, sys\nimport psutil  # it has other modules there\n"
            f"for name in {POSIX_ONLY}: sys.modules[name] = None\n"
            "import signal\nfor name in ('SIGHUP', 'SIGUSR1', 'SIGKILL', 'SIGSTOP'):\n    delattr(signal, name)\n"
            "import os\nfor name in ('fork', 'getuid', 'geteuid', 'mkfifo', 'sched_getaffinity'):\n"
            "    delattr(os, name)\n"
            "for name in sys.argv[1:]: importlib.import_module(name).get_args_parser().format_help()\n")
    done = subprocess.run([sys.executable, "-c", code, *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_posix_only_modules_are_imported_where_they_are_used():
    """At the top of no module, so that what `main` imports is found on Windows, too."""
    found = {}
    for path in [*ROOT.glob("*.py"), *(p for p in ROOT.glob("*/*.py") if p.parent.name not in ("tests", ".venv"))]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                if names & set(POSIX_ONLY):
                    found[path.name] = names
    assert not found


def test_package_in_the_checkout_leaves_no_bare_names():
    code = ("import sys\nimport deauville_mip\nfrom deauville_mip import train, suv_volume\n"
            "assert 'common' not in sys.modules and 'train' not in sys.modules\n"
            "assert train.get_args_parser().parse_args([]).nepochs == 40 and callable(suv_volume)\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def closure(names):
    """Those packages and what they need here, extras aside."""
    found, todo = set(), list(names)
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name not in found:
            found.add(name)
            for text in importlib.metadata.requires(name) or ():
                need = Requirement(text)
                if need.marker is None or need.marker.evaluate({"extra": ""}):
                    todo.append(need.name)
    return found


def test_no_required_package_is_under_the_gpl():
    packages = closure(required_packages())
    assert {"torch", "numpy", "pydicom", "imagecodecs", "sympy"} <= packages and len(packages) > 30
    under = {name: licence(name) for name in packages}
    assert not {name for name in under if re.search("gpl|gnu", under[name], re.IGNORECASE)}
    assert "LGPL" in licence("psycopg") and "psycopg" not in packages


def test_a_missing_extra_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['optuna'] = None\n")
    line = error_line(run("optun.py", "--output", tmp_path, env={"PYTHONPATH": str(tmp_path)}))
    assert line == ("error: optuna is not installed: pip install 'deauville-scoring[search]', or -r requirements.txt")


def test_every_extra_is_known_to_the_message():
    assert set(EXTRAS.values()) == {extra for extra, *_ in pinned()} - {"", "dev"}


def test_the_lock_has_every_pin_and_a_hash_of_everything():
    entries = re.split(r"^(?=[\w.-]+==)", Path(ROOT, "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    locked = {re.match(r"[\w.-]+", entry)[0]: re.match(r"[\w.-]+==(\S+)", entry)[1] for entry in entries}
    assert all("--hash=sha256:" in entry for entry in entries)
    assert {name: version for extra, name, version in pinned() if extra != "dev"}.items() <= locked.items()
    assert closure(required_packages()) <= set(locked)


@pytest.mark.slow
def test_installed_it_is_one_folder_beside_a_foreign_utils(tmp_path):
    """In a fresh environment that sees this one's packages; build and install need no network."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True,
                               capture_output=True, check=True).stdout.strip())
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
                           "--target", site, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")} <= {
        "deauville_mip", "bin", "__pycache__"}
    folder = site / "deauville_mip"
    for path in (path for pattern in ("*.py", "*/*.py", "common/templates/*", "evaluation/*.csv")
                 for path in ROOT.glob(pattern)):
        ours = path.relative_to(ROOT).parts[0] not in ("tests", "build", "deauville_mip", "setup.py")
        copy = folder / path.relative_to(ROOT)
        assert copy.exists() == ours and (not ours or copy.read_bytes() == path.read_bytes()), path
    assert not list(folder.glob("setup.py"))

    (site / "utils.py").write_text("WHO = 'foreign'\n")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    save(datasets(), tmp_path / "pet")
    (tmp_path / "both.py").write_text(USES_BOTH)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def call(*words):
        done = subprocess.run([python, *words], cwd=tmp_path, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    call("both.py", "pet")

    commands = {path.name for path in (site / "bin").iterdir()}
    assert commands == {f"deauville-{name.replace('_', '-')}" for name in SCRIPTS}
    call(site / "bin" / "deauville-prepro-script", "-i", "pet", "-o", "out")
    assert (tmp_path / "out" / "qc.html").exists()
    assert call(site / "bin" / "deauville-train", "--help").startswith("usage: train.py [options]")
