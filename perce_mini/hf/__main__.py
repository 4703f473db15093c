"""Export a fine-tuned Hugging Face model to a new folder, with any LoRA adapters merged."""

from pathlib import Path

import torch

from perce_mini.hf.folder import is_folder, save
from perce_mini.runtime import checkpoint, cli, lora
from perce_mini.runtime.errors import UserError


def find_source(run):
    """Find the Hugging Face folder that a run started from, directly or via other runs."""
    path, seen = str(run), set()
    while path and path not in seen and not is_folder(path):
        seen.add(path)
        path = checkpoint.read(path)["settings"].init
    if not path or path in seen:
        raise UserError(f"{run} did not start from a Hugging Face folder")
    return Path(path)


def main():
    p = cli.Parser(prog="python -m perce_mini.hf", description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="run folder written by train.py")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder")
    help = "dtype of the weights (default: the same as in the original model)"
    p.add_argument("--dtype", choices=["float32", "bfloat16"], help=help)
    args = p.parse_args()
    model = checkpoint.load(args.run).model
    source = find_source(args.run)
    lora.merge(model)
    save(model, source, args.out, args.dtype and getattr(torch, args.dtype))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    cli.run(main)
