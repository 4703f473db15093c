"""Load a model from a run folder or a Hugging Face folder."""

from pathlib import Path

import torch

from perce_mini import hf
from perce_mini.runtime import checkpoint
from perce_mini.runtime.checkpoint import LoadedModel
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import sha256

MAX_BLOCK_SIZE = 5000  # the longest prompts in the paper


def fingerprint(folder):
    """Hash a model's weights: the checkpoint of a run, or the files of a Hugging Face folder.

    Returns "" if the folder is gone: a run can be resumed without its starting model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return ""
    files = [folder / "checkpoint.pt"]
    if hf.is_folder(folder):
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return "+".join(sha256(file)[:16] for file in files)


def is_pretrained(folder):
    """True for a Hugging Face folder, and for a run that started from one, even indirectly."""
    return hf.is_folder(folder) or "pattern" in checkpoint.read(folder)["tokenizer"]


def load_model(folder, device, dtype=torch.float32, template=None, block_size=None):
    """Load a folder as a LoadedModel. The last two arguments are for Hugging Face folders.

    dtype: the dtype of a Hugging Face model's weights, even if a LoRA run adapts it; template: see
    hf.read_template; block_size: the maximum sequence length (default: the model's limit, at most
    5000 tokens). Raises UserError.
    """
    if not hf.is_folder(folder):
        if template:
            raise UserError(f"{folder} has no config.json: --template needs a Hugging Face folder")
        loaded = checkpoint.load(folder, device, dtype)
        own = loaded.model.config.block_size
        if block_size not in (None, own):
            raise UserError(f"{folder} was trained with --block-size {own}, not {block_size}")
        return loaded
    model, tokenizer = hf.load(folder, device, dtype, template)
    if tokenizer.end is None:
        advice = 'set "end" in a --template file'
        raise UserError(f"{folder}: no end-of-text token found (eos_token_id); {advice}")
    positions = model.config.block_size
    if block_size and block_size > positions:
        raise UserError(
            f"{folder} allows at most {positions} positions: lower --block-size {block_size}"
        )
    model.config.block_size = block_size or min(positions, MAX_BLOCK_SIZE)
    return LoadedModel(model, tokenizer, {})
