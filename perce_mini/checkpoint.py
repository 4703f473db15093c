"""A run's folder: checkpoint.pt (weights, optimiser, position, random state) and tokenizer.json.

Files are replaced, never rewritten: a new one is written beside the old, forced to the disk and renamed over
it, so a kill at any moment leaves the previous checkpoint whole. Loading unpickles tensors and plain
values only (`weights_only=True`): a checkpoint can hold no code.
"""

import os
import pickle
from dataclasses import asdict
from pathlib import Path

import torch

from perce_mini import lora
from perce_mini.model import GPT, GPTConfig
from perce_mini.tokenizer import Tokenizer


KEYS = ["config", "model", "optimizer", "step", "settings", "random", "random_device"]  # of what `save` writes


class CheckpointError(ValueError):
    """What is wrong with a checkpoint, in one line that names the file."""


def replace_file(path, write):
    """write(path of a new file), then put it in the place of `path` in one step. Raises OSError (disk full, ...)."""
    new = f"{path}.new"
    try:
        write(new)
        with open(new, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(new, path)
    except BaseException as error:
        Path(new).unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # torch's word for a write that fell short
            raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from None
        raise


def save(folder, model, tokenizer, step, settings, optimizer=None):
    """Write `folder`. step: optimisation steps done; settings: a flat dict that tells how the run was made."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    device = model.head.device
    state = {
        "config": asdict(model.config),
        "model": model.state_dict(),
        "optimizer": optimizer and optimizer.state_dict(),
        "step": step,
        "settings": settings,
        "random": torch.get_rng_state(),
        "random_device": torch.cuda.get_rng_state() if device.type == "cuda" else None,
    }
    replace_file(f"{folder}/tokenizer.json", tokenizer.save)
    replace_file(f"{folder}/checkpoint.pt", lambda path: torch.save(state, path))


def read(folder):
    """The dict that `save` wrote, on the CPU. Raises CheckpointError."""
    path = Path(folder) / "checkpoint.pt"
    if not path.exists():
        raise CheckpointError(f"{path}: no checkpoint there")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {key: state[key] for key in KEYS}
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, OSError) as error:
        name = type(error).__name__
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of this project ({name})") from None


def load(folder, device="cpu"):
    """The model of a run, its tokenizer and the rest of its checkpoint. Raises CheckpointError, TokenizerError."""
    state = read(folder)
    if not (Path(folder) / "tokenizer.json").exists():
        raise CheckpointError(f"{folder}/tokenizer.json: missing; it belongs to the checkpoint")
    tokenizer = Tokenizer.load(f"{folder}/tokenizer.json")
    try:
        with torch.device("meta"):  # no weights yet
            model = GPT(GPTConfig(**state["config"]))
            if state["settings"].get("lora_rank"):
                lora.add(model, state["settings"]["lora_rank"])
        model.load_state_dict(state["model"], assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split("\n\t")[-1].split())[:160]
        raise CheckpointError(f"{folder}/checkpoint.pt: another shape than its configuration ({reason})") from None
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens,"
                              f" the model {model.config.vocab_size}")
    return model.to(device), tokenizer, state


def restore(state, optimizer):
    """Put optimiser and random state back, so that the run goes on exactly as if it had not stopped."""
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if state["random_device"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random_device"])
