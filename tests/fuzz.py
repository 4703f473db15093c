"""Throws damaged and hostile input at everything that reads: rows, checkpoints, model folders, flags.

    python tests/fuzz.py --seconds 600 --seed 1

Each case must end as a refusal of one line within two seconds, or be accepted and be what was written. Whatever else
happens is printed with its seed and ends the script with status 1. The test command runs ten seconds of it.
"""

import argparse
import contextlib
import copy
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

import train  # noqa: E402
from perce_mini import checkpoint, hf  # noqa: E402
from perce_mini.dataset import Row, encode_example, read_examples  # noqa: E402
from perce_mini.errors import UserError  # noqa: E402
from perce_mini.model import GPT, GPTConfig  # noqa: E402
from perce_mini.tokenizer import Tokenizer  # noqa: E402
from perce_mini.trainer import Settings, fit  # noqa: E402
from tests.conftest import call  # noqa: E402
from tests.test_hf import write_folder  # noqa: E402

LIMIT = 2.0  # seconds
ROW = {"user": "u", "task": "t", "query": "a red", "response": "it is red", "personal": [[0, 2]]}
ROW |= {"profile": [{"query": "a", "response": "it is blue"}]}
HOSTILE = [None, True, -1, 0, 1, 3, 2**31, 2**70, -(2**70), 1.5, 1e308, -0.0, float("nan"), float("inf"), "", "x", "\0"]
HOSTILE += ["\ud800", "<|end|>", "\u202e", "9" * 5000, [], {}, [[]], [None], {"": None}, b"x", [[0, 10**30]]]
DEEP = "[" * 50_000
FLAGS = ["steps", "epochs", "lr", "warmup", "batch-size", "grad-accum", "top-k", "examples", "seed", "save-every"]
FLAGS += ["clip-min", "clip-max", "lora-rank", "n-layer", "n-embd", "n-head", "vocab-size", "block-size", "base-steps"]
FLAGS += ["temperature", "eval-examples", "loss", "contrast", "device", "init", "data", "template", "tokenizer", "out"]
WORDS = [
    "0",
    "1",
    "-1",
    "2",
    "1e308",
    "-1e308",
    "nan",
    "inf",
    "1e-320",
    "9" * 400,
    str(2**70),
    "x",
    "",
    "\udcff",
    "/dev/null",
]
WORDS += [".", "ce", "0x10", "1_000", "٣", "--steps", "3.5"]


def mutate_bytes(rng, raw):
    """A few bits flipped, a piece cut out, doubled or overwritten."""
    raw = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 3])):
        at, n = rng.randrange(len(raw) + 1), rng.choice([1, 4, 64, len(raw)])
        kind = rng.randrange(4)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del raw[at : at + n]
        elif kind == 2:
            raw[at:at] = raw[at : at + n]
        else:
            raw[at : at + n] = rng.randbytes(min(n, 64))
    return bytes(raw)


def mutate_value(rng, value):
    """A copy in which one place holds something else, or is missing, or there is one place more."""
    value = copy.deepcopy(value)
    holder = value
    while True:
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else []
        if not keys:
            return rng.choice(HOSTILE)
        key = rng.choice(list(keys)[:200])
        if isinstance(holder[key], (dict, list)) and holder[key] and rng.random() < 0.8:
            holder = holder[key]
            continue
        kind = rng.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(["x", 7, "weights"])] = rng.choice(HOSTILE)
        else:
            holder[key] = rng.choice(HOSTILE)
        return value


def as_json(value):
    return json.dumps(value, default=str).encode("utf-8", "surrogatepass")


# ----------------------------------------------------------------- one case each: refused, or what was written


def rows(rng, tmp):
    line = as_json(mutate_value(rng, ROW)) if rng.random() < 0.6 else mutate_bytes(rng, as_json(ROW))
    line = DEEP.encode() if rng.random() < 0.01 else line
    (tmp / "rows.jsonl").write_bytes(as_json(ROW) + b"\n" + line + b"\n")
    read = read_examples(tmp / "rows.jsonl")
    if b"\n" not in line and line.strip():
        assert read == [ROW, json.loads(line)]
    for row in read:
        encode_example(row, TOKENIZER, 10_000)


TOKENIZER = Tokenizer.train("a red it is blue", 280)


def make_run(tmp):
    """A tiny run of two steps."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, n_layer=1, n_head=2, n_kv_head=1, n_embd=8))
    examples = [encode_example(Row(ROW), TOKENIZER, 512)] * 4
    fit(model, TOKENIZER, examples, Settings(steps=2, batch_size=2), tmp / "run")
    return tmp / "run"


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def checkpoints(rng, tmp):
    run = tmp / "run" if (tmp / "run").exists() else make_run(tmp)
    original = (tmp / "original").read_bytes() if (tmp / "original").exists() else None
    if original is None:
        original = (run / "checkpoint.pt").read_bytes()
        (tmp / "original").write_bytes(original)
    (run / "checkpoint.pt").write_bytes(original)
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    if rng.random() < 0.5:
        (run / "checkpoint.pt").write_bytes(mutate_bytes(rng, original))
        written = state
    else:
        written = mutate_state(rng, state)
        torch.save(written, run / "checkpoint.pt")
    model, tokenizer, read = checkpoint.load(run)
    assert same({key: read[key] for key in written}, written), "another state than the one that was written"
    assert model(torch.tensor([tokenizer.encode("it is")])).isfinite().all()
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.restore(read, optimizer)


def mutate_state(rng, state):
    """A checkpoint in which a value is changed, or a tensor has another shape, type or content."""
    if rng.random() < 0.5:
        return mutate_value(rng, state)
    state, name = copy.deepcopy(state), rng.choice(list(state["model"]))
    w = state["model"][name]
    changes = [w.half(), w.bfloat16(), w.double(), w.to(torch.complex64), w * float("nan"), w / 0, w.to("meta")]
    changes += [w[..., :-1].clone(), w.flatten(), w[None], w.to_sparse(), w.int(), torch.zeros(0)]
    state["model"][name] = rng.choice(changes)
    return state


def folders(rng, tmp):
    folder = write_folder(tmp / "model", {"eos_token_id": 257})
    path = folder / rng.choice(["config.json", "vocab.json", "merges.txt", "model.safetensors"])
    raw = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.7:
        raw = DEEP.encode() if rng.random() < 0.02 else as_json(mutate_value(rng, json.loads(raw)))
    elif path.suffix == ".safetensors" and rng.random() < 0.6:
        n = int.from_bytes(raw[:8], "little")
        head = as_json(mutate_value(rng, json.loads(raw[8 : 8 + n])))
        raw = len(head).to_bytes(8, "little") + head + raw[8 + n :]
    else:
        raw = mutate_bytes(rng, raw)
    path.write_bytes(raw)
    model, tokenizer, _ = hf.load_any(folder, "cpu")
    ids = tokenizer.encode("he <|im_end|> he")
    assert not set(ids) & set(tokenizer.special.values()), "a text became a control token"
    assert model(torch.tensor([ids])).shape == (1, len(ids), model.config.vocab_size)


def flags(rng, tmp):
    run = tmp / "start" if (tmp / "start").exists() else shutil.copytree(make_run(tmp), tmp / "start")
    (tmp / "data").mkdir(exist_ok=True)
    (tmp / "data/train.jsonl").write_bytes((as_json(ROW) + b"\n") * 4)
    given = ["--data", tmp / "data", "--init", run, "--out", tmp / "out", "--steps", 1, "--eval-examples", 0]
    for _ in range(rng.choice([1, 1, 2])):
        given += [f"--{rng.choice(FLAGS)}", rng.choice(WORDS)]
    for path in tmp.iterdir():
        if path.name not in ("run", "start", "data", "original"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with contextlib.chdir(tmp):  # where folders of all names may be made
        result = call(train.main, *given, "--device", "cpu")
    assert result.status in (0, 2) and "Traceback" not in result.err, result.err
    if result.status:
        raise UserError(result.error)


CASES = {case.__name__: case for case in [rows, checkpoints, folders, flags]}


def run(seed, seconds=math.inf, cases=10**9):
    """{(kind of case, outcome): how many}, of so many cases or seconds. Raises AssertionError that names the case."""
    counts, end = Counter(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder) / "first")  # torch imports more at its first step: no part of a refusal's time
        for number in range(cases):
            if time.monotonic() > end:
                break
            name = list(CASES)[number % len(CASES)]
            tmp = Path(folder) / name
            tmp.mkdir(exist_ok=True)
            start = time.monotonic()
            try:
                CASES[name](random.Random(f"{seed}/{number}"), tmp)
                counts[name, "accepted"] += 1
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 2000, (seed, number, str(error)[:300])
                counts[name, "refused"] += 1
                took = time.monotonic() - start
                assert took < LIMIT, f"case {seed}/{number} ({name}) was refused after {took:.1f} s: {error}"
            except Exception as error:
                raise AssertionError(f"case {seed}/{number} ({name}): {type(error).__name__}: {error}") from error
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for (name, outcome), n in sorted(run(args.seed, args.seconds).items()):
        print(f"{name:12} {outcome:10} {n}")
