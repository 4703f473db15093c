"""The small base model that fine-tuning starts from: trained here, once for each data, on whole documents."""

import torch

from perce_mini import checkpoint, cli
from perce_mini.dataset import Example, encode_rows
from perce_mini.model import GPT, GPTConfig
from perce_mini.percontrast import CLIP_MAX, CLIP_MIN
from perce_mini.tokenizer import Tokenizer
from perce_mini.trainer import check_same_run, fit

VOCAB_SIZE = 2048
SHAPE = {"block_size": 512, "n_layer": 4, "n_head": 4, "n_kv_head": 2, "n_shifted": 1, "n_embd": 128}
SETTINGS = {"loss": "ce", "clip_min": CLIP_MIN, "clip_max": CLIP_MAX, "lr": 3e-3, "warmup": 0.1, "batch_size": 16,
            "grad_accum": 1, "seed": 0}  # fmt: skip


def shape(args):
    """The flags of train.py, and SHAPE where they say nothing."""
    return {name: default if getattr(args, name) is None else getattr(args, name) for name, default in SHAPE.items()}


def is_finished(folder, steps):
    return (folder / "checkpoint.pt").exists() and checkpoint.read(folder)["step"] >= steps


def as_document(example):
    """The same tokens as running text: everything after the first is to be predicted."""
    ids = example.prompt + example.response
    return Example(example.row, [], ids[:1], ids[1:], [False] * len(ids[1:]))


def make(args, out, rows, device):
    """Train the base model into `out`, or go on with it: next-token prediction."""
    settings = SETTINGS | {"steps": args.base_steps, "examples": len(rows), "data": str(args.data)}
    settings |= {"tokenizer": args.tokenizer or "bpe", "vocab_size": args.vocab_size or VOCAB_SIZE}
    state = None
    if (out / "checkpoint.pt").exists():
        model, tokenizer, state = checkpoint.load(out, device)
        check_same_run(state, settings, out)
    else:
        items = [item for row in rows for item in [row, *row["profile"]]]
        texts = dict.fromkeys(item[key] for item in items for key in ["query", "response"])
        if settings["tokenizer"] == "bpe":
            tokenizer = Tokenizer.train("\n".join(texts), settings["vocab_size"])
        else:
            tokenizer = Tokenizer.named(args.tokenizer)
        torch.manual_seed(settings["seed"])
        model = GPT(GPTConfig(tokenizer.vocab_size, **shape(args))).to(device)
    if args.compile:
        model.compile_blocks()
    examples = encode_rows(rows, tokenizer, model.config.block_size, args.top_k)
    fit(model, tokenizer, [as_document(e) for e in examples], out, settings, device, args.save_every, state)


def check_flags(args, model, settings, init):
    """A flag that describes the base model must not be without effect unseen. Raises RunError."""
    there = {name: getattr(model.config, name) for name in SHAPE}
    there |= {name: settings[name] for name in ["tokenizer", "vocab_size"]}
    for name, value in there.items():
        if getattr(args, name) not in (None, value):
            raise cli.RunError(f"{init} exists with {name} {value}, not {getattr(args, name)}:"
                               " move it away to train another base")
