"""Real models: read and write Hugging Face folders; train with PerCE in transformers and TRL."""

from perce_mini.hf.folder import is_folder, load, save
from perce_mini.hf.tokenizer import read_template

__all__ = ["is_folder", "load", "read_template", "save"]
