"""Real models: folders of Hugging Face are read, checked and written back.

folder.py has the model, safetensors.py its weights, tokenizer.py tokens and prompts, reading.py what all share;
compare.py trains and scores such a model on real texts. `python -m perce_mini.hf RUN --out FOLDER` writes a run back.
"""

from perce_mini.hf.folder import is_folder, load, load_any, save
from perce_mini.hf.tokenizer import read_template

__all__ = ["is_folder", "load", "load_any", "read_template", "save"]
