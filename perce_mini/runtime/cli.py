"""Shared by all commands: flags that are validated when parsed, and one-line errors."""

import argparse
import math
import os
import sys

from perce_mini.runtime.errors import UserError, printable


class Help(argparse.RawDescriptionHelpFormatter):
    """Append the default to a flag's help, unless there is none or the help already mentions it."""

    def _get_help_string(self, action):
        no_default = any(action.default is x for x in (None, False, argparse.SUPPRESS))
        if no_default or "default" in action.help:
            return action.help
        return f"{action.help} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that uses `Help` and does not allow abbreviated flags."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=Help, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} ({self.prog} -h explains every flag)\n")


def number(kind, low, high):
    """Make a `type` for add_argument: an int or float from low to high."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            word = "a whole number" if kind is int else "a number"
            reason = f"must be {word} from {low} to {high}, not {text[:40]!r}"
            raise argparse.ArgumentTypeError(reason)
        return value

    return parse


COUNT = number(int, 1, 10**9)
COUNT_OR_NONE = number(int, 0, 10**9)
SEED = number(int, 0, 2**32 - 1)
RATE = number(float, 1e-12, 1)  # learning rates for AdamW

# Flags shared by several commands: p.add_argument("--device", **DEVICE).
DEVICE = {"default": "auto", "help": "auto, cpu, cuda, cuda:1 or mps (default: fastest available)"}
TEXT_SEED = {"type": SEED, "default": 0, "help": "seed for sampling texts"}
TEMPERATURE = {
    "type": number(float, 0, 100),
    "default": 0.4,
    "help": "sampling temperature; 0 picks the most likely token",
}
TOP_K = {
    "type": COUNT_OR_NONE,
    "help": "number of profile items in the prompt (the most relevant according to BM25)",
}


def run(main):
    """Call main(), turning invalid input, Ctrl-C and a closed pipe into exit statuses."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for ASCII-only terminals
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, for example `| head`, has exited
        discard_output()
        sys.exit(141)
    except (UserError, OSError) as error:
        print("error:", printable(" ".join(str(error).split())), file=sys.stderr)
        if isinstance(error, OSError):  # stdout may be a file on a full disk
            discard_output()
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # by name, so torch is not imported
            raise
        reason = str(error).split(". ")[0]
        advice = "use a smaller batch size (README.md says what else helps)"
        print(f"error: {reason}: {advice}", file=sys.stderr)
        sys.exit(2)


def discard_output():
    """Discard whatever stdout still buffers, so that Python's final flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
