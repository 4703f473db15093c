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


def number(kind, low=-math.inf, high=math.inf, above=None):
    """A `type` for add_argument: a finite int or float, at least `low` (or above `above`) and at most `high`."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {word}") from None
        if kind is float and not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"must be a finite number, not {text[:40]}")
        if not low <= value <= high or (above is not None and value <= above):
            bounds = [f"above {above}"] if above is not None else [f"at least {low}"] if low > -math.inf else []
            bounds += [f"at most {high}"] if high < math.inf else []
            raise argparse.ArgumentTypeError(f"must be {' and '.join(bounds)}, not {text[:40]}")
        return value

    return parse


def path(text):
    """What type=Path means: not the empty text, which pathlib takes for the present folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def temperature(text):
    """0, which takes the likeliest token, or a temperature that float32 can divide by."""
    value = number(float, low=0, high=100)(text)
    return value if value == 0 else number(float, low=0.01)(text)


COUNT = number(int, low=1, high=10**9)  # of steps, examples, tokens
COUNT_OR_NONE = number(int, low=0, high=10**9)  # 0 switches something off
SEED = number(int, low=0, high=2**32 - 1)
RATE = number(float, above=0, high=1e30)  # of learning: float32 holds it


FLAGS = {  # those that several commands have
    "--device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1, mps (default auto: the fastest there is)"},
    "--seed": {"type": SEED, "default": 0, "help": "of the sampled text"},
    "--temperature": {"type": temperature, "default": 0.4, "help": "of decoding; 0 takes the likeliest token"},
    "--top-k": {"type": COUNT_OR_NONE, "help": "profile items in the prompt, the best by BM25"},
}


def add(group, flag, **other):
    """Add a flag of FLAGS; other: what is said of it otherwise."""
    group.add_argument(flag, **FLAGS[flag] | other)


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
