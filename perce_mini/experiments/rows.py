"""The inputs of the runs: rows, exact PIR, other worlds and base models. Each is made only once."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.personas.exact import exact_logprobs
from perce_mini import base
from perce_mini.dataset import retrieve
from perce_mini.rows import read_examples, subsample
from perce_mini.runtime.device import pick_device
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import write_jsonl_atomic
from perce_mini.trainer import Settings

DATA, RUNS = Path("data/personas"), Path("out/experiments")
DEFAULT_BASE_STEPS = 4000  # training steps of the base model in data/base
N_EXACT = 240  # number of rows in each of val and test whose exact PIR is computed


def rows_of(split, data=DATA, task="", n=0):
    """Read the rows of a split. task: only rows of this task. n: a random subset of this size."""
    rows = read_examples(Path(data) / f"{split}.jsonl")
    return subsample([row for row in rows if task in ("", row["task"])], n)


def prepare(jobs):
    """Generate the default data, and compute the exact PIR of its rows with `jobs` processes."""
    if not (DATA / "base.jsonl").exists():
        run_python("data/personas/prepare.py")
    for split in ["val", "test", "train"]:
        if not (RUNS / f"{split}.jsonl").exists():
            rows = rows_of(split, n=0 if split == "train" else N_EXACT)
            with ProcessPoolExecutor(jobs) as pool:  # takes minutes
                results = pool.map(with_exact_pir, rows, chunksize=10)
                bar = tqdm(results, f"exact PIR, {split}", len(rows), dynamic_ncols=True)
                rows = list(bar)
            write_jsonl_atomic(RUNS / f"{split}.jsonl", rows)


def with_exact_pir(row):
    """Add "exact" and "exact_logp" to a row: exact PIR and log P of the response's characters, in
    nats.

    They are for a reader who sees the same profile items as the model's prompt contains.
    """
    indices = retrieve(row["query"], row["profile"], Settings.top_k)
    logp = exact_logprobs(row, [row["profile"][i] for i in sorted(indices)])
    exact = {"exact": logp - exact_logprobs(row, []), "exact_logp": logp}
    return row | {name: np.round(values, 4).tolist() for name, values in exact.items()}


def rows_with_exact_pir(split):
    """Read the rows of the default data, with the exact PIR that `prepare` added."""
    return read_examples(RUNS / f"{split}.jsonl")


def exact_tokens(row, tokenizer, name="exact"):
    """Return the exact PIR of the response tokens and the end token: (N,), in nats.

    A token's PIR is the sum of its characters' PIR. In the default data every character is one
    byte. name: "exact_logp" returns log P instead.
    """
    values = row[name]
    sums = [sum(values[start:end]) for start, end in tokenizer.spans(row["response"])]
    return np.array([*sums, values[-1]])


def run_python(*command):
    """Run Python with these arguments, and hide its output. Raises UserError if it fails."""
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last_line = done.stderr.strip().split("\n")[-1].removeprefix("error: ")
        raise UserError(f"{' '.join(words[1:3])} failed: {last_line}")


# The next three functions return fields of Run: {"data": folder} or {"base": folder}.


def make_world(name, *flags):
    """Generate data in out/worlds/NAME with these flags of data/personas/prepare.py."""
    folder = Path("out/worlds") / name
    if not (folder / "test.jsonl").exists():
        run_python("data/personas/prepare.py", *flags, "--out", folder)
    return {"data": str(folder)}


def make_base(name, data, steps, seed=0, keep=()):
    """Train a base model in out/NAME. keep: steps after which a checkpoint is saved in
    step-N.
    """
    folder = Path("out") / name
    if not base.is_finished(folder):
        settings = replace(base.SETTINGS, steps=steps, seed=seed)
        how = settings, base.SHAPE, base.VOCAB_SIZE
        base.train_base(data, folder, pick_device("auto"), *how, keep=keep)
    return {"base": str(folder)}


def keep_bases(steps):
    """Train the default base model, which takes 44 minutes on two cores, and save checkpoints.

    Returns {step: {"base": folder of the checkpoint after this step}}.
    """
    folder = make_base("base-kept", DATA, DEFAULT_BASE_STEPS, keep=steps)["base"]
    return {n: {"base": f"{folder}/step-{n}"} for n in steps}
