"""The small base model that fine-tuning starts from: trained here, once for each data, on whole documents."""

from dataclasses import replace

import tiktoken
import torch

from perce_mini import checkpoint
from perce_mini.dataset import Example, encode_rows
from perce_mini.errors import UserError
from perce_mini.files import check_writable
from perce_mini.model import GPT, GPTConfig
from perce_mini.tokenizer import Tokenizer
from perce_mini.trainer import SAVE_EVERY, Settings, check_same_run, fit

VOCAB_SIZE = 4096
SHAPE = {"block_size": 768, "n_layer": 4, "n_head": 4, "n_kv_head": 2, "n_shifted": 1, "n_embd": 128}
MAX_PARAMETERS = 2 * 10**9
SETTINGS = Settings(loss="ce", lr=3e-3, steps=1000, vocab_size=VOCAB_SIZE)


def is_finished(folder, steps):
    return (folder / "checkpoint.pt").exists() and checkpoint.read(folder)["step"] >= steps


def as_document(example):
    """The same tokens as running text: everything after the first is to be predicted."""
    ids = example.prompt + example.response
    return Example(example.row, ids[:1], ids[:1], ids[1:], [False] * len(ids[1:]))


def make_tokenizer(name, vocab_size, rows):
    """ "bpe" learns `vocab_size` entries from the rows' texts; other names are tiktoken's. Raises UserError."""
    if name == "bpe":
        items = [item for row in rows for item in [row, *row["profile"]]]
        texts = dict.fromkeys(item[key] for item in items for key in ["query", "response"])
        return Tokenizer.train("\n".join(texts), vocab_size)
    try:
        encoding = tiktoken.get_encoding(name)
    except ValueError:
        known = ", ".join(tiktoken.list_encoding_names())
        raise UserError(f"tokenizer {name!r} is not known; tiktoken has {known}, and 'bpe' trains one here") from None
    except OSError as error:  # requests' errors are OSErrors
        reason = f"has to be downloaded and cannot be reached ({type(error).__name__})"
        raise UserError(f"tokenizer {name!r} {reason}; --tokenizer bpe needs no network") from None
    ranks = encoding._mergeable_ranks
    return Tokenizer(sorted(ranks, key=ranks.get), encoding._pat_str)


def make(settings, shape, rows, out, device, save_every=SAVE_EVERY, compiled=False, also=()):
    """Train the base model into `out`, or go on with it: next-token prediction. shape: fields of GPTConfig.

    also: [(rows, reserve), ...] that the model is to read later, and that must fit into its block.
    """
    settings, state = replace(settings, examples=len(rows)), None
    if (out / "checkpoint.pt").exists():
        model, tokenizer, state = checkpoint.load(out, device)
        check_same_run(state, settings, out)
        check_flags(shape, model, state, out)
    else:
        tokenizer = make_tokenizer(settings.tokenizer, settings.vocab_size, rows)
        torch.manual_seed(settings.seed)
        model = GPT(GPTConfig(tokenizer.vocab_size, **shape)).to(device)
    if compiled:
        model.compile_blocks()
    for some, reserve in also:
        encode_rows(some, tokenizer, model.config.block_size, 0, reserve)
    examples = encode_rows(rows, tokenizer, model.config.block_size, settings.top_k)
    check_writable(out / "checkpoint.pt")
    fit(model, tokenizer, [as_document(e) for e in examples], settings, out, save_every, state)


def check_shape(vocab_size, shape):
    """Raises ValueError for a shape that cannot be, or is too large to be trained here."""
    with torch.device("meta"):  # no weights, only their sizes
        n = GPT(GPTConfig(vocab_size, **shape)).n_parameters()
    if n > MAX_PARAMETERS:
        raise ValueError(f"{n / 1e9:.1f} billion parameters: a base model may have {MAX_PARAMETERS // 10**9} billion")


def check_flags(asked, model, state, init):
    """A flag that says the base model otherwise than it is may not be ignored in silence. Raises UserError."""
    existing = {name: getattr(model.config, name) for name in SHAPE}
    existing |= {name: state["settings"].get(name) for name in ["tokenizer", "vocab_size"]}
    if not state["settings"].get("init"):  # else it is of a run, whose own steps these are
        existing["base_steps"] = state["settings"].get("steps")
    for name, value in existing.items():
        if asked.get(name, value) != value:
            raise UserError(f"{init} exists with {name} {value}, not {asked[name]}: drop the flag or move it away")
