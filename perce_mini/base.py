"""The small base model that fine-tuning starts from: next-token prediction on whole documents.

    python -m perce_mini.base --data out/commits

It reads DIR/base.jsonl, or train.jsonl where there is none, learns a tokenizer from it, and trains
a model into out/base-NAME. train.py starts from that folder, and calls this by itself if it is
missing. The default data come with a base model in data/base.
"""

from dataclasses import replace
from pathlib import Path

import torch

from perce_mini.dataset import Example, encode_rows, read_examples
from perce_mini.model import GPT, GPTConfig
from perce_mini.runtime import checkpoint, cli
from perce_mini.runtime.cli import COUNT, number
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import check_writable, sha256
from perce_mini.runtime.run import SAVE_EVERY, check_same_run, fit
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
SETTINGS = Settings(loss="ce", lr=3e-3, steps=1000)
MAX_PARAMETERS = 2 * 10**9


def base_folder(data):
    """Where the base model of a data folder lives."""
    return Path(f"out/base-{Path(data).resolve().name}")


def base_file(data):
    """The rows that the base model of a data folder reads."""
    file = Path(data) / "base.jsonl"
    return file if file.exists() else Path(data) / "train.jsonl"


def is_finished(folder):
    """Is there a base model whose training has ended?"""
    if not (Path(folder) / "checkpoint.pt").exists():
        return False
    state = checkpoint.read(folder)
    return state["step"] == state["settings"].steps


def as_document(example):
    """The same tokens as running text: everything after the first token is to be predicted."""
    ids = example.prompt + example.response
    return Example(example.row, ids[:1], ids[:1], ids[1:], [False] * len(ids[1:]))


def train_tokenizer(rows, vocab_size):
    """Learn a vocabulary from the texts of the rows; a text in several rows counts once."""
    items = [item for row in rows for item in [row, *row["profile"]]]
    texts = dict.fromkeys(item[key] for item in items for key in ["query", "response"])
    return Tokenizer.train("\n".join(texts), vocab_size)


def train_base(data, out, device, settings=SETTINGS, shape=SHAPE, must_fit=(), **options):
    """Train the base model of a data folder into `out`, or continue there. Raises UserError.

    must_fit: [(rows, max_new_tokens), ...] that will be used later and must fit into its block.
    options: vocab_size, save_every, compile.
    """
    file = base_file(data)
    rows = read_examples(file)
    settings = replace(settings, data=str(data), data_sha256=sha256(file), examples=len(rows))
    state = None
    if (out / "checkpoint.pt").exists():
        model, tokenizer, state = checkpoint.load(out, device)
        check_same_run(state, settings, out)
        for name, value in shape.items():
            if getattr(model.config, name) != value:
                raise UserError(f"{out} holds a model of another {name}: give another --out")
    else:
        tokenizer = train_tokenizer(rows, options.get("vocab_size", VOCAB_SIZE))
        torch.manual_seed(settings.seed)
        model = GPT(GPTConfig(tokenizer.vocab_size, **shape)).to(device)
    if options.get("compile"):
        model.compile_blocks()
    for later_rows, max_new_tokens in must_fit:
        encode_rows(later_rows, tokenizer, model.config.block_size, 0, max_new_tokens)
    examples = encode_rows(rows, tokenizer, model.config.block_size, settings.top_k)
    documents = [as_document(e) for e in examples]
    check_writable(out / "checkpoint.pt")
    fit(model, tokenizer, documents, settings, out, options.get("save_every", SAVE_EVERY), state)


def export(source, out):
    """Write a finished base model without optimiser and in bfloat16: a sixth of the size."""
    model, tokenizer, state = checkpoint.load(source)
    if state["settings"].init:
        raise UserError(f"{source} is a fine-tuned run, not a base model")
    every_20th = state["log"][19::20]
    checkpoint.save(out, model.bfloat16(), tokenizer, state["settings"], state["step"], every_20th)


def parse_args():
    p = cli.Parser(prog="python -m perce_mini.base", description=__doc__)
    data = Path("data/personas")
    p.add_argument("--data", type=Path, default=data, metavar="DIR", help="folder with the rows")
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write (default: out/base-NAME)"
    )
    help = "when it is finished, also write it here without optimiser, in bfloat16 (as data/base)"
    p.add_argument("--export", type=Path, metavar="DIR", help=help)
    p.add_argument("--steps", type=COUNT, default=SETTINGS.steps, help="optimisation steps")
    p.add_argument("--lr", type=cli.RATE, default=SETTINGS.lr, help="peak learning rate of AdamW")
    p.add_argument(
        "--seed", type=cli.SEED, default=0, help="of weights and of the order of batches"
    )
    p.add_argument("--save-every", type=COUNT, default=SAVE_EVERY, help="steps between checkpoints")
    entries = number(int, 256 + len(SPECIAL), 10**6)
    p.add_argument("--vocab-size", type=entries, default=VOCAB_SIZE, help="size of the tokenizer")
    shape = {
        "block_size": ("longest sequence in tokens", COUNT),
        "n_layer": ("blocks", number(int, 1, 256)),
        "n_head": ("query heads", number(int, 1, 256)),
        "n_kv_head": ("key and value heads", number(int, 1, 256)),
        "n_shifted": ("key heads shifted by one token (model.py)", number(int, 0, 256)),
        "n_embd": ("width", number(int, 2, 2**15)),
    }
    for name, (what, kind) in shape.items():
        flag = f"--{name.replace('_', '-')}"
        p.add_argument(flag, type=kind, default=SHAPE[name], help=what)
    p.add_argument("--compile", action="store_true", help="torch.compile the blocks")
    p.add_argument("--device", **cli.DEVICE)
    args = p.parse_args()
    args.shape = {name: getattr(args, name) for name in SHAPE}
    try:
        with torch.device("meta"):  # no memory is allocated
            n = GPT(GPTConfig(args.vocab_size, **args.shape)).n_parameters()
    except ValueError as error:
        p.error(str(error))
    if n > MAX_PARAMETERS:
        p.error(
            f"{n / 1e9:.1f} billion parameters; the limit is {MAX_PARAMETERS / 1e9:.0f} billion"
        )
    return args


def main():
    args = parse_args()
    if (args.data / "prepare.py").exists() and not (args.data / "base.jsonl").exists():
        raise UserError(
            f"{args.data}/base.jsonl not found: run python {args.data}/prepare.py first"
        )
    out = args.out or base_folder(args.data)
    settings = replace(SETTINGS, steps=args.steps, lr=args.lr, seed=args.seed)
    options = {name: getattr(args, name) for name in ["vocab_size", "save_every", "compile"]}
    device = pick_device(args.device)
    print(f"training a base model on {base_file(args.data)} into {out}, {args.steps} steps")
    train_base(args.data, out, device, settings, args.shape, **options)
    if args.export:
        export(out, args.export)


if __name__ == "__main__":
    cli.run(main)
