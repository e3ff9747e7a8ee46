"""The argument parser: --help, spellings of options, --quiet and --verbose. Imports no torch."""
import argparse
import contextlib
import importlib.metadata
import io
import platform
import re
import sys
import time
import traceback
from collections.abc import Iterator

from common import __version__, files, recipes, renamed
from common.settings import commit
from common.text import as_text

FEW = 12  # options; of a script that has more, --help shows the ESSENTIAL ones
ESSENTIAL = {"input", "labels", "labels_template", "carry", "list", "suv", "output", "workers", "data", "images",
             "n_splits", "cv", "test", "val", "calibration", "group", "split_index", "run", "resume", "overwrite",
             "recipe", "params", "weights", "checkpoint", "nepochs", "batch_size", "lr", "device", "dir", "set",
             "top", "by", "operating_points", "cohort", "chptfolder", "checkpoints", "splits", "trials", "space",
             "storage", "mode", "target", "method", "max_scans", "stages", "n_images", "models", "dicom"}
KEPT_WHEN_QUIET = re.compile(r"^(warning|error|refused|left out)\b|SYNTHETIC|OPTIMISTIC")
SHOWN_VERSIONS = ("torch", "numpy", "pandas", "pydicom")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose --help shows the script's docstring and every default, and whose errors are one line.

    --help shows the options that most users need, --help_all all of them. Option names may be written with dashes. The
    parsed Namespace also holds `given`, {name: value} of the options on the command line; --recipe replaces the
    defaults of others. -q and -v are kept as the parser's `quiet` and `verbose`.

    Parameters
    ----------
    doc : str
        The script's `__doc__`: one line of what it does, then the commands to run it.
    exit_on_error : bool
        Whether a bad value ends the process; else it raises argparse.ArgumentError.
    """

    def __init__(self, doc: str | None, exit_on_error: bool = True):
        super().__init__(description=doc, formatter_class=_Help, allow_abbrev=False, exit_on_error=exit_on_error,
                         add_help=False)
        self.quiet = self.verbose = False
        add = self.add_argument
        add("-h", "--help", action="help", help="show this help message and exit")
        add("--help_all", action=_HelpAll, nargs=0, help="the same with every option")
        add("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")
        add("-q", "--quiet", action="store_true", help="print warnings and errors only, no progress bars")
        add("-v", "--verbose", action="store_true",
            help="also print versions and every argument, seconds, and where an error comes from")

    def parse_known_args(self, args=None, namespace=None):
        words = renamed.current_words(sys.argv[1:] if args is None else args, self._option_string_actions)
        parsed, rest = super().parse_known_args(words, namespace)
        nothing = argparse.Namespace(**dict.fromkeys(vars(parsed)))  # argparse sets no default where there is a value
        given, _ = super().parse_known_args(words, nothing)
        self.quiet, self.verbose = (parsed.__dict__.pop(name) for name in ("quiet", "verbose"))
        parsed.given = {name: value for name, value in vars(given).items()
                        if value is not None and name not in ("quiet", "verbose")}
        parsed.__dict__.update(recipes.taken(parsed))
        return parsed, rest

    def format_help(self, every: bool = False) -> str:
        """The text of --help, or of --help_all."""
        own = [action for action in self._actions if action not in self._optionals._group_actions]
        self.formatter_class = _Help if every or len(own) <= FEW else _Essentials
        text = super().format_help()
        hidden = sum(not _is_essential(action) for action in own) if self.formatter_class is _Essentials else 0
        return text + f"\n{hidden} more options: {self.prog} --help_all\n" * bool(hidden)

    def error(self, message):
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


class _HelpAll(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        print(parser.format_help(every=True), end="")
        parser.exit()


def _is_essential(action):
    return action.required or not action.option_strings or action.dest in ESSENTIAL or action.dest in (
        "help", "help_all", "version", "quiet", "verbose")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action):
        if action.default is None or isinstance(action.default, bool) or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)

    def _format_usage(self, usage, actions, groups, prefix):
        needed = [action for action in actions if action.required or not action.option_strings]
        return super()._format_usage(usage, needed, [], prefix).rstrip() + " [options]\n\n"


class _Essentials(_Help):
    """Without rare options and the groups' descriptions."""

    def add_argument(self, action):
        if _is_essential(action):
            super().add_argument(action)

    def add_text(self, text):
        if self._current_section is self._root_section:
            super().add_text(text)


@contextlib.contextmanager
def loudness(parser: Parser, args: argparse.Namespace) -> Iterator[None]:
    """Within, a script prints as much as -q or -v ask for."""
    begun, stdout = time.monotonic(), sys.stdout
    if parser.quiet:
        files.SILENT, sys.stdout = True, _Quiet()
    if parser.verbose:
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN_VERSIONS)
        print(f"{parser.prog} {__version__}, commit {commit()}, Python {platform.python_version()}, {versions}, "
              f"{platform.platform()}", file=sys.stderr)
        for name, value in sorted(vars(args).items()):
            if name != "given":
                print(f"  --{name} {as_text(value)}", file=sys.stderr)
    try:
        yield
    except Exception:
        if parser.verbose:
            traceback.print_exc()
        raise
    finally:
        sys.stdout = stdout
        if parser.verbose:
            print(f"{parser.prog}: {time.monotonic() - begun:.1f} s", file=sys.stderr)


class _Quiet(io.TextIOBase):
    """Writes to stderr the lines that nobody may miss, and drops others."""

    def __init__(self):
        self.line = ""

    def writable(self):
        return True

    def write(self, text):
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            if KEPT_WHEN_QUIET.search(line):
                print(line, file=sys.stderr)
        return len(text)
