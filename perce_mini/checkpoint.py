"""A run's folder: checkpoint.pt is the truth (weights, optimiser, log, random state); log.jsonl is there to look at.

Files are replaced, never rewritten (files.py), so a kill at any moment leaves the previous checkpoint whole. Loading
unpickles tensors and plain values only (`weights_only=True`): a checkpoint can hold no code. The file is a zip archive,
which keeps a CRC-32 of every part; it is compared on loading, so not a single bit can change unseen.
"""

import zipfile
from dataclasses import asdict
from pathlib import Path

import torch

from perce_mini import lora
from perce_mini.errors import UserError
from perce_mini.files import replace_file, write_jsonl_atomic
from perce_mini.model import GPT, GPTConfig
from perce_mini.schema import CHECKPOINT, check_checkpoint
from perce_mini.tokenizer import Tokenizer


def save(folder, model, tokenizer, settings, step, log=(), optimizer=None):
    """Write `folder`. settings: a flat dict that tells how the run was made; step: optimisation steps done."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    device = model.head.device
    state = {
        "config": asdict(model.config),
        "model": model.state_dict(),
        "tokenizer": tokenizer.state(),
        "settings": settings,
        "step": step,
        "log": list(log),
        "optimizer": optimizer and optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_device": torch.cuda.get_rng_state() if device.type == "cuda" else None,
    }
    replace_file(f"{folder}/checkpoint.pt", lambda path: torch.save(state, path))
    write_jsonl_atomic(f"{folder}/log.jsonl", log)


def read(folder):
    """The dict that `save` wrote, on the CPU. Raises UserError."""
    path = Path(folder) / "checkpoint.pt"
    if not path.is_file():
        raise UserError(f"{path}: no checkpoint there")
    try:
        with zipfile.ZipFile(path) as archive:
            # Nothing is packed in a checkpoint, so that a small file cannot become a large one.
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
            if packed or archive.testzip() is not None:
                raise zipfile.BadZipFile("checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except Exception as error:  # whatever zipfile and torch.load raise for such bytes
        reason = f"damaged, or not a checkpoint of this project ({type(error).__name__})"
        raise UserError(f"{path}: {reason}") from None
    check_checkpoint(state, path)
    steps = state["settings"].get("steps")
    if steps is not None and state["step"] > steps:
        raise UserError(f"{path}: damaged: it says step {state['step']} of {steps}")
    return dict.fromkeys(CHECKPOINT) | state


def load(folder, device="cpu"):
    """The model of a run, its tokenizer and the rest of its checkpoint. Raises UserError."""
    state = read(folder)
    path = Path(folder) / "checkpoint.pt"
    try:
        tokenizer = Tokenizer(**state["tokenizer"])
        with torch.device("meta"):  # no weights yet
            model = GPT(GPTConfig(**state["config"]))
            if state["settings"].get("lora_rank"):
                lora.add(model, state["settings"]["lora_rank"])
        model.load_state_dict(state["model"], assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split("\n\t")[-1].split())[:160]
        raise UserError(f"{path}: another shape than its configuration ({reason})") from None
    if tokenizer.vocab_size > model.config.vocab_size:
        sizes = f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}"
        raise UserError(f"{path}: {sizes}")
    if not state["settings"].get("lora_rank"):  # a model may be kept in half precision, and is trained in full
        model.float()
    return model.to(device), tokenizer, state


def restore(state, optimizer):
    """Put optimiser and random state back, so that the run goes on exactly as if it had not stopped.

    Raises UserError for a state of another model, or of another kind of device.
    """
    if state["optimizer"] is None:
        raise UserError("the checkpoint holds no state of the optimiser: training cannot go on from it")
    try:
        groups = optimizer.state_dict()["param_groups"]  # its own: rates and decay are no affair of a file
        optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        torch.set_rng_state(state["random"])
        if state["random_device"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random_device"])
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"training cannot go on from the checkpoint: {str(error).splitlines()[0]}") from None
