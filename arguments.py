"""What the scripts share at the command line: the parser, argument groups, exit codes. Imports no torch."""
import argparse
import os
import signal
import sys

from files import InputError

EXIT_DONE, EXIT_SOME_FAILED, EXIT_BAD_INPUT = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose --help shows the script's docstring and every default, and whose errors are one line."""

    def __init__(self, doc):
        """`doc` is the script's `__doc__`: one line of what it does, then the commands to run it."""
        super().__init__(description=doc, formatter_class=_HelpFormatter, allow_abbrev=False)

    def error(self, message):
        self.exit(EXIT_BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action):
        if action.default in (None, False, True) or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def run_script(get_args_parser, main):
    """Parse the command line, run `main(args)`, and end the process with the exit code of the design.

    0 done; what `main` returns (1: some items failed and are listed); 2 bad input, one line on stderr; 130/143 after
    SIGINT/SIGTERM, which arrive in `main` as KeyboardInterrupt so that it can save what it has.
    """
    received = []

    def interrupt(signum, frame):
        received.append(signum)
        raise KeyboardInterrupt

    args = get_args_parser().parse_args()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, interrupt)
    try:
        sys.exit(main(args) or EXIT_DONE)
    except InputError as error:
        sys.exit(_fail(error))
    except KeyboardInterrupt:
        print(f"\ninterrupted by {signal.Signals((received or [signal.SIGINT])[0]).name}", file=sys.stderr)
        sys.exit(128 + (received or [signal.SIGINT])[0])
    except BrokenPipeError:  # the reader of our output went away, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_SOME_FAILED)


def _fail(error):
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return EXIT_BAD_INPUT
