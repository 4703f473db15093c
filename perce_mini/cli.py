"""What both commands share: short errors, exit statuses, and the choice of a device."""

import argparse
import sys

import torch

from perce_mini.checkpoint import CheckpointError
from perce_mini.dataset import DataError
from perce_mini.tokenizer import TokenizerError


class RunError(ValueError):
    """A run that cannot start or go on, in one line that says what to do."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Says the default of every flag that has one and does not say it itself."""

    def _get_help_string(self, action):
        silent = any(action.default is x for x in (None, False, argparse.SUPPRESS)) or "default" in action.help
        return action.help if silent else f"{action.help} (default %(default)s)"


class Parser(argparse.ArgumentParser):
    """Help that shows defaults; errors of one line."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=Help, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} ({self.prog} -h explains every flag)\n")


def run(main):
    """Call main(); wrong input ends in one line and status 2, Ctrl-C in status 130."""
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except (RunError, DataError, CheckpointError, TokenizerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        print(f"error: {reason}: lower --batch-size or --block-size, or train with --recompute", file=sys.stderr)
        sys.exit(2)


def pick_device(name):
    """ "auto" -> CUDA, else MPS, else CPU. Raises RunError for one that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in there if there[kind])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RunError(f"--device {name}: not a device; use auto, cpu, cuda, cuda:1 or mps") from None
    if not there.get(device.type, False):
        raise RunError(f"--device {name}: not available on this machine")
    return device


def autocast(device):
    """Compute in bfloat16 where the device is good at it (weights stay float32)."""
    good = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=good)
