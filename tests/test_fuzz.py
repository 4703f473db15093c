"""Throw damaged and hostile input at everything that reads files: rows, checkpoints, model folders.

Each case must be refused in one line within two seconds, or be read exactly as written. Only a few
cases run by default; FUZZ_CASES=10000 pytest tests/test_fuzz.py runs many more.
"""

import copy
import json
import math
import os
import random
import time

import pytest
import torch

from perce_mini import hf
from perce_mini.dataset import encode_example
from perce_mini.model import GPT, GPTConfig
from perce_mini.rows import read_examples
from perce_mini.runtime import checkpoint
from perce_mini.runtime.errors import UserError
from perce_mini.tokenizer import Tokenizer
from perce_mini.trainer import Settings, make_optimizer
from tests.conftest import same
from tests.test_hf import write_folder

N_CASES = int(os.environ.get("FUZZ_CASES", 30))  # of each kind
ROW = {"user": "u", "task": "t", "query": "a red", "response": "it is red", "personal": [[0, 2]]}
ROW |= {"profile": [{"query": "a", "response": "it is blue"}]}
TOKENIZER = Tokenizer.train("a red it is blue", 280)
HOSTILE = [None, True, -1, 0, 1, 2**31, 2**70, 1.5, 1e308, math.nan, math.inf, "", "x", "\0", b"x"]
HOSTILE += ["\ud800", "<|end|>", "\u202e", "9" * 5000, [], {}, [[]], {"": None}, [[0, 10**30]]]
DEEP = b"[" * 50_000


def damage(rng, content):
    """Return the bytes with a bit flipped, or with a piece cut out, doubled or overwritten."""
    start, n = rng.randrange(len(content)), rng.choice([1, 4, 64, len(content)])
    piece = content[start : start + n]
    flipped = bytes([piece[0] ^ 1 << rng.randrange(8)]) + piece[1:]
    new = rng.choice([flipped, b"", piece * 2, rng.randbytes(len(piece))])
    return content[:start] + new + content[start + n :]


def change(rng, value):
    """Return a copy in which one value, perhaps deeply nested, is removed or made hostile."""
    if isinstance(value, torch.Tensor) and rng.random() < 0.8:
        others = [value.half(), value.double(), value * math.nan, value / 0, value.to("meta")]
        others += [value[None], value.flatten()[:-1].clone(), value.to_sparse(), -value.float()]
        return rng.choice(others)
    if not isinstance(value, dict | list) or not value or rng.random() < 0.05:
        return rng.choice(HOSTILE)
    value = copy.copy(value)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if rng.random() < 0.1:
        del value[key]
    elif rng.random() < 0.1 and isinstance(value, dict):
        value[rng.choice(["x", 7, "weights"])] = rng.choice(HOSTILE)
    else:
        value[key] = change(rng, value[key])
    return value


def as_json(value):
    return json.dumps(value, default=str).encode("utf-8", "surrogatepass")


# ------------------------------------------ one case each: raises UserError, or everything is fine


def rows(rng, folder):
    line = rng.choice([as_json(change(rng, ROW)), damage(rng, as_json(ROW))])
    line = DEEP if rng.random() < 0.01 else line
    (folder / "rows.jsonl").write_bytes(as_json(ROW) + b"\n" + line + b"\n")
    examples = read_examples(folder / "rows.jsonl")
    if b"\n" not in line and line.strip():
        assert examples == [ROW, json.loads(line)]
    for row in examples:
        encode_example(row, TOKENIZER, 10_000)


def checkpoints(rng, folder):
    path, original = folder / "checkpoint.pt", folder / "original"
    if not original.exists():
        model = GPT(GPTConfig(TOKENIZER.vocab_size, n_layer=1, n_head=2, n_kv_head=1, n_embd=8))
        optimizer = make_optimizer(model, Settings())
        model(torch.tensor([[1, 2]])).sum().backward()
        optimizer.step()
        checkpoint.save(folder, model, TOKENIZER, Settings(), 1, [{"loss": 0.5}], optimizer)
        path.rename(original)
    state = torch.load(original, weights_only=True)
    if rng.random() < 0.5:
        path.write_bytes(damage(rng, original.read_bytes()))
    else:
        state = change(rng, state)
        torch.save(state, path)
    model, tokenizer, rest = checkpoint.load(folder)
    assert model(torch.tensor([tokenizer.encode("it is")])).isfinite().all()
    checkpoint.restore(rest, torch.optim.AdamW(model.parameters()))
    rest["settings"] = {name: vars(rest["settings"])[name] for name in state["settings"]}
    rest["model"] = state["model"]  # load_state_dict has checked it
    assert same(rest, state), "not what was written"


def folders(rng, folder):
    folder = write_folder(folder / "model", {"eos_token_id": 257})
    path = rng.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.7:
        changed = as_json(change(rng, json.loads(content)))
        content = DEEP if rng.random() < 0.02 else changed
    elif path.suffix == ".safetensors" and rng.random() < 0.6:
        end = 8 + int.from_bytes(content[:8], "little")
        header = as_json(change(rng, json.loads(content[8:end])))
        content = len(header).to_bytes(8, "little") + header + content[end:]
    else:
        content = damage(rng, content)
    path.write_bytes(content)
    model, tokenizer = hf.load(folder)
    ids = tokenizer.encode("he <|im_end|> he")
    assert not set(ids) & set(tokenizer.special.values()), "a text became a control token"
    assert model(torch.tensor([ids])).shape == (1, len(ids), model.config.vocab_size)


@pytest.mark.parametrize("case", [checkpoints, rows, folders])
def test_hostile_input_is_refused_in_one_line_or_is_read_as_it_was_written(tmp_path, case):
    n_refused = 0
    for seed in range(N_CASES):
        start = time.monotonic()
        try:
            case(random.Random(f"{seed}"), tmp_path)
        except UserError as error:
            n_refused += 1
            assert "\n" not in str(error) and len(str(error)) < 2000, seed
        assert time.monotonic() - start < 2 or seed == 0, seed  # the first one imports modules
    assert 0 < n_refused < N_CASES or case is checkpoints
