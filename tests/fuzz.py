"""Feed damaged and malicious input to all readers: of rows, checkpoints and model folders.

    python tests/fuzz.py --seconds 600 --seed 1

Each case must be rejected with a one-line error within two seconds, or be read back exactly as
written. Any other outcome stops the script and reports the number of the case. The tests run only a
few cases.
"""

import argparse
import copy
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from perce_mini import hf  # noqa: E402
from perce_mini.dataset import encode_example  # noqa: E402
from perce_mini.model import GPT, GPTConfig  # noqa: E402
from perce_mini.rows import Row, read_examples  # noqa: E402
from perce_mini.runtime import checkpoint  # noqa: E402
from perce_mini.runtime.errors import UserError  # noqa: E402
from perce_mini.runtime.run import fit  # noqa: E402
from perce_mini.tokenizer import Tokenizer  # noqa: E402
from perce_mini.trainer import Settings  # noqa: E402
from tests.conftest import same  # noqa: E402
from tests.test_hf import write_folder  # noqa: E402

LIMIT = 2.0  # seconds
ROW = {"user": "u", "task": "t", "query": "a red", "response": "it is red", "personal": [[0, 2]]}
ROW |= {"profile": [{"query": "a", "response": "it is blue"}]}
TOKENIZER = Tokenizer.train("a red it is blue", 280)
HOSTILE = [None, True, -1, 0, 1, 2**31, 2**70, 1.5, 1e308, math.nan, math.inf, "", "x", "\0", b"x"]
HOSTILE += ["\ud800", "<|end|>", "\u202e", "9" * 5000, [], {}, [[]], {"": None}, [[0, 10**30]]]
DEEP = b"[" * 50_000


def damage(rng, content):
    """Flip a bit in the bytes, or delete, duplicate or overwrite a piece of them."""
    start, n = rng.randrange(len(content)), rng.choice([1, 4, 64, len(content)])
    piece = content[start : start + n]
    flipped = bytes([piece[0] ^ 1 << rng.randrange(8)]) + piece[1:]
    new = rng.choice([flipped, b"", piece * 2, rng.randbytes(len(piece))])
    return content[:start] + new + content[start + n :]


def change(rng, value):
    """Copy a nested value, and remove one of its parts or replace it with a malicious value."""
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


# --------------------------------------- each runs one case; any error but UserError is a failure


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
        examples = [encode_example(Row(ROW), TOKENIZER, 512)] * 4
        fit(model, TOKENIZER, examples, Settings(steps=2, batch_size=2), folder)
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
    rest["model"] = state["model"]  # load_state_dict checked it
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


CASES = {case.__name__: case for case in [checkpoints, rows, folders]}


def run(seed, seconds=math.inf, cases=10**9):
    """Run the cases. Returns {(kind of case, outcome): count}, or raises AssertionError."""
    counts, end = Counter(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as parent:
        for number in range(cases):
            if time.monotonic() > end:
                break
            name = list(CASES)[number % len(CASES)]
            folder, case = Path(parent, name), f"case {seed}/{number} ({name})"
            folder.mkdir(exist_ok=True)
            outcome, start = "accepted", time.monotonic()
            try:
                CASES[name](random.Random(f"{seed}/{number}"), folder)
            except UserError as error:
                outcome = "refused"
                assert "\n" not in str(error) and len(str(error)) < 2000, (case, str(error)[:300])
            except Exception as error:
                raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
            took = time.monotonic() - start
            # case 0 also trains a run
            assert took < LIMIT or number == 0, f"{case} took {took:.1f} s"
            counts[name, outcome] += 1
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Throw hostile input at everything that reads.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for (name, outcome), n in sorted(run(args.seed, args.seconds).items()):
        print(f"{name:12} {outcome:10} {n}")
