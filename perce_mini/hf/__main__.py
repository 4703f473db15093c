"""Write a run that started from a Hugging Face folder as such a folder, LoRA merged."""

import os
from pathlib import Path

import torch

from perce_mini import checkpoint, cli, lora
from perce_mini.errors import UserError
from perce_mini.hf.folder import is_folder, save


def source_of(run, settings):
    """The folder that a run started from, or the run that it started from, and so on. Raises UserError."""
    init, seen = settings.get("init"), []
    while init and init not in seen:
        if is_folder(init):
            return init
        seen.append(init)
        init = checkpoint.read(init)["settings"].get("init")
    raise UserError(f"{run} did not start from a Hugging Face folder")


def main():
    p = cli.Parser(prog="python -m perce_mini.hf", description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="folder that train.py wrote")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of weights")
    args = p.parse_args()
    model, _, state = checkpoint.load(args.run)
    source = source_of(args.run, state["settings"])
    if os.path.realpath(args.out) == os.path.realpath(source):
        raise UserError(f"{args.out} holds the model that {args.run} started from: give another folder")
    if (args.out / "checkpoint.pt").exists():
        raise UserError(f"{args.out} holds a run: give another folder")
    lora.merge(model)
    save(model, source, args.out, getattr(torch, args.dtype))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    cli.run(main)
