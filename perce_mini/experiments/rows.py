"""What runs need: rows, the exact PIR of the default data's rows, other worlds, base models."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from perce_mini import base
from perce_mini.dataset import retrieve
from perce_mini.rows import read_examples, subsample
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import write_jsonl_atomic
from perce_mini.trainer import Settings

DATA, RUNS = Path("data/personas"), Path("out/experiments")
SOLVED = 240  # held-out rows of each split whose exact PIR is computed


def rows_of(split, data=DATA, task="", n=0):
    """The rows of a split of a data folder: all, those of one task, or a subsample of n."""
    rows = read_examples(Path(data) / f"{split}.jsonl")
    return subsample([row for row in rows if task in ("", row["task"])], n)


def solve_rows(split, jobs):
    """Write rows of the default data with their exact PIR: all of train, SOLVED of val and test."""
    rows = rows_of(split, n=0 if split == "train" else SOLVED)
    with ProcessPoolExecutor(jobs) as pool:  # it takes minutes
        results = pool.map(solve, rows, chunksize=10)
        solved = list(tqdm(results, f"exact PIR, {split}", len(rows), dynamic_ncols=True))
    write_jsonl_atomic(RUNS / f"{split}.jsonl", solved)


def solve(row):
    """The row with "exact", the exact PIR of its characters, and "exact_logp", their exact log P.

    The reader who knows the generator has read the items that stand in the prompt.
    """
    from data.personas.exact import exact_logprobs  # importable in the project's folder only

    indices = retrieve(row["query"], row["profile"], Settings.top_k)
    logp = exact_logprobs(row, [row["profile"][i] for i in sorted(indices)])
    exact = {"exact": logp - exact_logprobs(row, []), "exact_logp": logp}
    return row | {name: np.round(values, 4).tolist() for name, values in exact.items()}


def solved_rows(split):
    return read_examples(RUNS / f"{split}.jsonl")


def exact_tokens(row, tokenizer, name="exact"):
    """The exact PIR (N,) of a solved row's response tokens, the end included; or "exact_logp".

    A token's value is the sum over its characters. (In the default data they are a byte each.)
    """
    values = row[name]
    sums = [sum(values[start:end]) for start, end in tokenizer.spans(row["response"])]
    return np.array([*sums, values[-1]])


def call(*command):
    """Run a Python command of the project. Its output is shown only if it fails."""
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last_line = done.stderr.strip().split("\n")[-1].removeprefix("error: ")
        raise UserError(f"{' '.join(words[1:3])} failed: {last_line}")


def prepare(jobs):
    """Make the default data, and compute the exact PIR of some of its rows."""
    if not (DATA / "base.jsonl").exists():
        call("data/personas/prepare.py")
    for split in ["val", "test", "train"]:
        if not (RUNS / f"{split}.jsonl").exists():
            solve_rows(split, jobs)


def make_world(name, *flags):
    """Make a world with these flags of prepare.py, once. Returns how a run in it differs."""
    folder = Path("out/worlds") / name
    if not (folder / "test.jsonl").exists():
        call("data/personas/prepare.py", *flags, "--out", folder)
    return {"data": str(folder)}


def make_base(name, data, steps, seed=0, **shape):
    """Train a base model on a data folder, once. Returns how a run that starts from it differs."""
    folder = Path("out") / name
    if not base.is_finished(folder):
        settings = replace(base.SETTINGS, steps=steps, seed=seed)
        base.train_base(data, folder, pick_device("auto"), settings, base.SHAPE | shape)
    return {"base": str(folder)}
