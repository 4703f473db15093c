"""Train the small base model that fine-tuning starts from: next-token prediction on documents.

    python -m perce_mini.base --data out/commits

This reads base.jsonl in the data folder, or train.jsonl if there is none, trains a tokenizer and a
model on it, and saves both in out/base-NAME. train.py starts from that folder; if it is missing,
train.py trains the base model first. The default data come with a base model in data/base.
"""

from dataclasses import replace
from pathlib import Path

import torch

from perce_mini.dataset import Example, encode_rows
from perce_mini.model import GPT, GPTConfig
from perce_mini.rows import read_examples
from perce_mini.runtime import checkpoint, cli, distributed
from perce_mini.runtime.cli import COUNT, number
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import sha256
from perce_mini.runtime.run import check_folder, check_same_run, fit
from perce_mini.tokenizer import SPECIAL, Tokenizer
from perce_mini.trainer import Settings

VOCAB_SIZE = 4096
SHAPE = {
    "block_size": 768,
    "n_layer": 4,
    "n_head": 4,
    "n_kv_head": 2,
    "n_shifted": 1,
    "n_embd": 128,
}
SETTINGS = Settings(loss="ce", lr=3e-3, steps=1000, batch_size=16)


def base_folder(data):
    """Return the folder of the base model for a data folder."""
    return Path(f"out/base-{Path(data).resolve().name}")


def base_file(data):
    """Return the file on which the base model for a data folder is trained."""
    file = Path(data) / "base.jsonl"
    return file if file.exists() else Path(data) / "train.jsonl"


def is_finished(folder):
    """Return True if the folder contains a fully trained base model."""
    if not (Path(folder) / "checkpoint.pt").exists():
        return False
    state = checkpoint.read(folder)
    return state["step"] == state["settings"].steps


def as_document(example):
    """Turn an example into one plain document: every token after the first is predicted."""
    ids = example.prompt + example.response
    return Example(example.row, ids[:1], ids[:1], ids[1:], [False] * len(ids[1:]))


def train_tokenizer(rows, vocab_size):
    """Learn a vocabulary from the texts of the rows. A text in several rows counts only once."""
    items = [item for row in rows for item in [row, *row["profile"]]]
    texts = dict.fromkeys(item[key] for item in items for key in ["query", "response"])
    return Tokenizer.train("\n".join(texts), vocab_size)


def train_base(data, out, device, settings, shape, vocab_size, must_fit=(), keep=()):
    """Train the base model for a data folder and save it in `out`, or resume training there.

    must_fit: [(rows, max_new_tokens), ...], rows for later use. They are checked against the block
    size before training starts. keep: see `fit`. Raises UserError.
    """
    file = base_file(data)
    rows = read_examples(file)
    where = {"data": str(data), "data_sha256": sha256(file), "examples": len(rows)}
    settings = replace(settings, processes=distributed.world_size(), **where)
    state = None
    if (out / "checkpoint.pt").exists():
        model, tokenizer, state = checkpoint.load(out, device)
        check_same_run(state, settings, out)
        for name, value in shape.items():
            if getattr(model.config, name) != value:
                raise UserError(f"{out} has a model with a different {name}: choose another --out")
    else:
        tokenizer = train_tokenizer(rows, vocab_size)
        torch.manual_seed(settings.seed)
        model = GPT(GPTConfig(tokenizer.vocab_size, **shape)).to(device)
    for later_rows, max_new_tokens in must_fit:
        encode_rows(later_rows, tokenizer, model.config.block_size, 0, max_new_tokens)
    examples = encode_rows(rows, tokenizer, model.config.block_size, settings.top_k)
    documents = [as_document(e) for e in examples]
    check_folder(out)
    fit(model, tokenizer, documents, settings, out, state=state, keep=keep)


def export(source, out):
    """Write a base model in bfloat16 without optimiser state, at a sixth of the size."""
    model, tokenizer, state = checkpoint.load(source)
    every_20th = state["log"][19::20]
    checkpoint.save(out, model.bfloat16(), tokenizer, state["settings"], state["step"], every_20th)


def parse_args():
    p = cli.Parser(prog="python -m perce_mini.base", description=__doc__)
    data = Path("data/personas")
    p.add_argument("--data", type=Path, default=data, metavar="DIR", help="folder with the rows")
    p.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: out/base-NAME)")
    p.add_argument("--steps", type=COUNT, default=SETTINGS.steps, help="optimisation steps")
    p.add_argument("--lr", type=cli.RATE, default=SETTINGS.lr, help="peak learning rate of AdamW")
    p.add_argument(
        "--seed", type=cli.SEED, default=0, help="seed for the initial weights and the batch order"
    )
    entries = number(int, 256 + len(SPECIAL), 10**6)
    p.add_argument("--vocab-size", type=entries, default=VOCAB_SIZE, help="vocabulary size")
    shape = {
        "block_size": ("maximum sequence length in tokens", COUNT),
        "n_layer": ("number of blocks", number(int, 1, 256)),
        "n_head": ("number of query heads", number(int, 1, 256)),
        "n_kv_head": ("number of key and value heads", number(int, 1, 256)),
        "n_shifted": ("number of key heads shifted by one token (model.py)", number(int, 0, 256)),
        "n_embd": ("width of the model", number(int, 2, 2**15)),
    }
    for name, (what, kind) in shape.items():
        flag = f"--{name.replace('_', '-')}"
        p.add_argument(flag, type=kind, default=SHAPE[name], help=what)
    p.add_argument("--device", **cli.DEVICE)
    args = p.parse_args()
    args.shape = {name: getattr(args, name) for name in SHAPE}
    try:
        GPTConfig(args.vocab_size, **args.shape)
    except ValueError as error:
        p.error(str(error))
    return args


def main():
    args = parse_args()
    if (args.data / "prepare.py").exists() and not (args.data / "base.jsonl").exists():
        raise UserError(
            f"{args.data}/base.jsonl not found: run python {args.data}/prepare.py first"
        )
    out = args.out or base_folder(args.data)
    settings = replace(SETTINGS, steps=args.steps, lr=args.lr, seed=args.seed)
    device = pick_device(args.device)
    print(f"training a base model on {base_file(args.data)} into {out} ({args.steps} steps)")
    train_base(args.data, out, device, settings, args.shape, args.vocab_size)


if __name__ == "__main__":
    cli.run(main)
