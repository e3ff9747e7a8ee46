"""The wheel: one folder, deauville_mip, with scripts and folders as they stand here and the package's own files beside
them; a command for each script; what it needs, by requirements.txt. The rest is in pyproject.toml."""
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE, PACKAGE = Path(__file__).resolve().parent, "deauville_mip"


class BuildPy(build_py):
    def run(self):
        shutil.rmtree(self.build_lib, ignore_errors=True)  # of an earlier version
        super().run()

    def find_package_modules(self, package, package_dir):
        own = super().find_package_modules(package, package) if package == PACKAGE else []
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[1] != "setup"] + own


def pins(text):
    return [line for line in text.splitlines() if line and not line.startswith(("#", "-r"))]


needed, *more = re.split(r"^# extra: (\w+)$", (HERE / "requirements.txt").read_text(encoding="utf-8"), flags=re.M)
extras = {name: pins(text) for name, text in zip(more[::2], more[1::2], strict=True)}
extras["dev"] = pins((HERE / "requirements-dev.txt").read_text(encoding="utf-8"))
folders = sorted(path.parent.name for path in HERE.glob("*/__init__.py") if path.parent.name != PACKAGE)
scripts = sorted(path.stem for path in HERE.glob("*.py") if "\ndef get_args_parser" in path.read_text(encoding="utf-8"))
setup(
    cmdclass={"build_py": BuildPy},
    install_requires=pins(needed),
    extras_require=extras,
    package_dir={PACKAGE: "."},
    packages=[PACKAGE, *(f"{PACKAGE}.{folder}" for folder in folders)],
    package_data={f"{PACKAGE}.common": ["templates/*"], f"{PACKAGE}.evaluation": ["*.csv"]},
    entry_points={"console_scripts": [f"deauville-{name.replace('_', '-')} = {PACKAGE}.commands:main"
                                      for name in scripts]},
)
