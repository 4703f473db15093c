"""What all commands share: flags that are checked when they are read, help that shows defaults, one-line errors."""

import argparse
import math
import os
import sys
from pathlib import Path

from perce_mini.errors import UserError, printable


class Help(argparse.RawDescriptionHelpFormatter):
    """Adds its default to the help of a flag that has one and does not name it."""

    def _get_help_string(self, action):
        silent = any(action.default is x for x in (None, False, argparse.SUPPRESS)) or "default" in action.help
        return action.help if silent else f"{action.help} (default %(default)s)"


class Parser(argparse.ArgumentParser):
    """Help that shows defaults; errors of one line."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=Help, allow_abbrev=False, **kwargs)
        self.register("type", Path, path)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} ({self.prog} -h explains every flag)\n")


def number(kind, low, high):
    """A `type` for add_argument: an int or a float from low to high."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {word} from {low} to {high}, not {text[:40]!r}")
        return value

    return parse


def path(text):
    """What type=Path means: not the empty text, which pathlib takes for the present folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


COUNT = number(int, 1, 10**9)  # of steps, examples, tokens
COUNT_OR_NONE = number(int, 0, 10**9)  # 0 switches something off
SEED = number(int, 0, 2**32 - 1)
RATE = number(float, 1e-30, 1e30)  # of learning: float32 holds it


# What several commands have in common: add_argument(flag, **these).
DEVICE = {"default": "auto", "help": "auto, cpu, cuda, cuda:1, mps (default auto: the fastest there is)"}
TEXT_SEED = {"type": SEED, "default": 0, "help": "of the sampled text"}
TEMPERATURE = {"type": number(float, 0, 100), "default": 0.4, "help": "of decoding; 0 takes the likeliest token"}
TOP_K = {"type": COUNT_OR_NONE, "help": "profile items in the prompt, the best by BM25"}


def run(main):
    """Call main(). Wrong input ends in one line and status 2, Ctrl-C in status 130, a closed pipe in silence."""
    sys.stderr = sys.stderr or open(os.devnull, "w")  # None where it was closed from the start
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII only shows users' texts, too
    try:
        main()
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: `| head` has seen enough
        sys.exit(141)
    except (UserError, OSError) as error:
        print("error:", printable(" ".join(str(error).split())), file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, told by its name: importing torch takes a second
            raise
        reason = str(error).split(". ")[0]
        print(f"error: {reason}: lower --batch-size or --block-size, or train with --recompute", file=sys.stderr)
        sys.exit(2)
