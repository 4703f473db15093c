"""What a file may hold: a table of its fields, and one function that checks a value against a table.

A checkpoint may be damaged, of another version, or made to do harm. So types, ranges and sizes are checked after
reading and before anything is built of them; what comes after may rely on them. (hf/ has the tables of others' files.)
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import tiktoken
import torch

from perce_mini import tokenizer
from perce_mini.dataset import CONTRASTS
from perce_mini.errors import UserError
from perce_mini.percontrast import LOSSES

# --------------------------------------------------------------------------------- kinds of values, and `check`


class Kind(NamedTuple):
    words: str  # "a whole number from 1 to 512"
    fits: Callable  # value -> bool


def whole(low, high):
    return Kind(f"a whole number from {low} to {high}", lambda x: type(x) is int and low <= x <= high)


def real(low, high):  # neither NaN nor infinity
    return Kind(f"a number from {low:g} to {high:g}", lambda x: type(x) in (int, float) and low <= x <= high)


def text(longest):
    return Kind(f"a text of at most {longest} characters", lambda x: isinstance(x, str) and len(x) <= longest)


def either(*values):
    words = " or ".join(map(repr, values))
    return Kind(words, lambda x: any(type(x) is type(value) and x == value for value in values))


def optional(kind):
    return Kind(f"{kind.words}, or left out", lambda x: x is None or kind.fits(x))


def list_of(kind, low, high):
    words = f"a list of {low} to {high} times {kind.words}"
    return Kind(words, lambda x: isinstance(x, list) and low <= len(x) <= high and all(map(kind.fits, x)))


def tensor(dtype):
    def fits(x):
        plain = isinstance(x, torch.Tensor) and x.dtype is dtype and x.layout is torch.strided and x.is_cpu
        return plain and x.is_contiguous() and bool(x.isfinite().all())  # in this order: its memory is really there

    return Kind(f"a tensor of finite {dtype}", fits)


def object_of(most):
    return Kind(f"an object of at most {most} fields", lambda x: isinstance(x, dict) and len(x) <= most)


FLAG, OBJECT = either(True, False), Kind("an object", lambda x: isinstance(x, dict))
ABSENT = Kind("left out", lambda x: x in (None, False, 0, ""))
OTHERS = object()  # in a table: fields that it does not name are allowed


def check(value, table, where):
    """Raises UserError, in one line, unless value is an object with the fields of the table {name: Kind}.

    A field that is not there counts as None. where: what the line starts with, such as the file.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be an object, not {shown(value)}")
    for name, kind in table.items():
        found = value.get(name)
        if name is not OTHERS and not kind.fits(found):
            what = "and is missing" if found is None else f"not {shown(found)}"
            raise UserError(f"{where}: {shown(name)} must be {kind.words}, {what}")
    if OTHERS not in table and (unknown := [name for name in value if name not in table]):
        raise UserError(f"{where}: {shown(unknown[0])} is not known")


def shown(value):
    """A value in a few characters, however large it is."""
    if isinstance(value, (str, bytes)):
        return repr(value[:60])
    if isinstance(value, float) or isinstance(value, int) and abs(value) < 10**30:
        return repr(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return f"[{shown(value[0])}]"
    return f"<{value.dtype if isinstance(value, torch.Tensor) else type(value).__name__}>"


# --------------------------------------------------------------------------------------------- the tokenizer

IDS = 2**24  # more than any vocabulary has
ID = whole(0, IDS - 1)
TEXT = text(100_000)
TOKENIZER = {
    "tokens": list_of(Kind("bytes", lambda x: isinstance(x, bytes) and len(x) > 0), 256, IDS),
    "pattern": text(2000),
    "ids": optional(list_of(optional(ID), 256, IDS)),
    "special": optional(object_of(4096)),
    "layout": OBJECT,
    "normal_form": optional(either("NFC")),
}
LAYOUT = dict.fromkeys(tokenizer.LAYOUT, TEXT)
SAMPLE = "".join(map(chr, range(1, 0x250))) + "it's 12 345\t\r\n\n  漢字 한국어 हिन्दी \U0001f642 x"


def check_tokenizer_state(state, where, needs_end=True):
    """What Tokenizer.state() gave. needs_end: a control token ends a response. Raises UserError, in one line."""
    check(state, TOKENIZER, where)
    check(state["layout"], LAYOUT, f"{where}: layout")
    tokens, special, ids = state["tokens"], state.get("special"), state.get("ids")
    if special is None:
        special = {name: len(tokens) + i for i, name in enumerate(tokenizer.SPECIAL)}
    ids = list(range(len(tokens))) if ids is None else ids
    check(special, dict.fromkeys(special, ID), f"{where}: control tokens")
    texts = all(isinstance(name, str) and 0 < len(name) <= 100 for name in special)
    used = Counter([*(i for i in ids if i is not None), *special.values()])
    twice = [i for i, n in used.items() if n > 1]
    spelled = {token for token, i in zip(tokens[:256], ids) if i is not None}
    demands = {
        "tokens must differ from each other": len(set(tokens)) == len(tokens),
        "the first 256 tokens must be the 256 bytes": set(tokens[:256]) == {bytes([i]) for i in range(256)},
        "every printable ASCII character must have an id": spelled >= {bytes([i]) for i in range(32, 127)},
        f"{len(ids)} ids are given to {len(tokens)} tokens": len(ids) == len(tokens),
        f"id {twice and twice[0]} belongs to two tokens": not twice,
        "control tokens must be texts of 1 to 100 characters": texts,
        "{query} and {response} must not be control tokens": not {"{query}", "{response}"} & special.keys(),
        f"{shown(state['layout']['end'])} is not a control token": state["layout"]["end"] in special or not needs_end,
        f"the pattern {shown(state['pattern'])} does not cut every text": cuts_every_text(state["pattern"]),
    }
    for reason, is_met in demands.items():
        if not is_met:
            raise UserError(f"{where}: {reason}")


def cuts_every_text(pattern):
    """Whether a pattern compiles without exhausting the memory, loses no character and never finds an empty piece."""
    repetitions = math.prod(max(1, int(n)) for n in re.findall(r"\{\s*(?:\d+\s*,\s*)?(\d+)", pattern))
    if repetitions > 1000:
        return False
    ranks = {bytes([i]): i for i in range(256)} | {b"": 256}  # without a rank for it, tiktoken dies of an empty piece
    try:
        encoding = tiktoken.Encoding("sample", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        ids = encoding.encode_ordinary(SAMPLE) + encoding.encode_ordinary("")
    except BaseException as error:  # Rust's panic is not an Exception
        if isinstance(error, ValueError) or type(error).__name__ == "PanicException":
            return False
        raise
    return 256 not in ids and encoding.decode(ids) == SAMPLE


# -------------------------------------------------------------------------------------------- the checkpoint

GPT_CONFIG = {  # model.GPTConfig
    "vocab_size": whole(1, IDS),
    "block_size": whole(1, 2**24),
    "n_layer": whole(1, 512),
    "n_head": whole(1, 1024),
    "n_kv_head": whole(1, 1024),
    "n_shifted": whole(0, 1024),
    "n_embd": whole(1, 2**17),
    "n_hidden": whole(1, 2**20),
    "rope_theta": real(1, 1e12),
    "norm_eps": real(1e-12, 1),
    "head_size": whole(1, 4096),
    "qk_norm": FLAG,
    "tied": FLAG,
}
COUNT = whole(0, 10**9)
SETTINGS = {  # trainer.Settings; a checkpoint may be older than a field
    "loss": optional(either(*LOSSES)),
    "contrast": optional(either(*CONTRASTS)),
    "lora_rank": optional(whole(0, 4096)),
    "seed": optional(whole(0, 2**63 - 1)),
    **dict.fromkeys(["warmup", "weight_decay"], optional(real(0, 1))),
    **dict.fromkeys(["clip_min", "clip_max", "lr"], optional(real(-1e300, 1e300))),
    **dict.fromkeys(["steps", "batch_size", "grad_accum", "processes", "examples"], optional(COUNT)),
    **dict.fromkeys(["top_k", "vocab_size"], optional(COUNT)),
    **dict.fromkeys(["data", "data_sha256", "init", "template", "tokenizer"], optional(TEXT)),
}
NUMBERS = Kind(
    "an object of numbers",
    lambda x: isinstance(x, dict) and all(isinstance(key, str) and type(x[key]) in (int, float) for key in x),
)
CHECKPOINT = {
    **dict.fromkeys(["config", "model", "tokenizer", "settings"], OBJECT),
    "step": COUNT,
    "log": list_of(NUMBERS, 0, 10**9),
    "optimizer": optional(OBJECT),
    "random": tensor(torch.uint8),
    "random_device": optional(tensor(torch.uint8)),
}
OPTIMIZER = {"state": OBJECT, "param_groups": list_of(OBJECT, 1, 1)}
MOMENTS = dict.fromkeys(["step", "exp_avg", "exp_avg_sq"], tensor(torch.float32))  # AdamW's, of one weight
LORA = (".a.weight", ".b.weight")


def check_checkpoint(state, where):
    """What checkpoint.save wrote, before anything is built of it. Raises UserError, in one line."""
    check(state, CHECKPOINT, where)
    check(state["config"], GPT_CONFIG, f"{where}: config")
    check(state["settings"], SETTINGS, f"{where}: settings")
    check_tokenizer_state(state["tokenizer"], f"{where}: tokenizer")
    weights, lora = state["model"], [name for name in state["model"] if str(name).endswith(LORA)]
    first = getattr(weights.get("embedding.weight"), "dtype", None)
    dtype = torch.bfloat16 if first is torch.bfloat16 else torch.float32  # one for all; what LoRA trains is float32
    table = dict.fromkeys(weights, tensor(dtype)) | dict.fromkeys(lora, tensor(torch.float32))
    check(weights, table, f"{where}: model")
    if (last := f"blocks.{state['config']['n_layer'] - 1}.norm_mlp.weight") not in weights:  # else many would be built
        raise UserError(f"{where}: model: {last!r} is missing")
    if state.get("optimizer") is not None:
        check_optimizer(state["optimizer"], [weights[name] for name in lora or weights], f"{where}: optimizer")


def check_optimizer(optimizer, trained, where):
    """AdamW's moments, {number of the weight: moments}, belong to the weights that were trained."""
    check(optimizer, OPTIMIZER, where)
    check(optimizer["state"], dict.fromkeys(range(len(trained)), optional(OBJECT)), where)
    for i, moments in optimizer["state"].items():
        check(moments, MOMENTS, f"{where}: {i}")
        shape = trained[i].shape
        if [moments[name].shape for name in MOMENTS] != [(), shape, shape]:
            raise UserError(f"{where}: the moments {i} have another shape than their weight")
