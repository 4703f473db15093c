"""The rows of the experiments: those of the default world, and of worlds that differ from it in one thing."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from perce_mini.dataset import encode_rows, read_examples, subsample
from perce_mini.files import write_jsonl_atomic
from perce_mini.retrieval import retrieve
from perce_mini.scoring import MAX_NEW_TOKENS

DATA, RUNS, WORLDS = Path("data/personas"), Path("out/experiments"), Path("out/worlds")
TOP_K, SOLVED = 4, 240  # texts in a prompt; held-out rows with exact PIR


def rows_of(split, world="", task="", n=0):
    """The rows of a split, or those of one task, or a subsample of n. world: a folder in out/worlds, or the default."""
    rows = read_examples((WORLDS / world if world else DATA) / f"{split}.jsonl")
    return subsample([row for row in rows if task in ("", row["task"])], n)


def solve_rows(split, jobs):
    """Write rows with exact PIR and log P of their characters: all to train on, SOLVED held-out ones. Minutes."""
    rows = rows_of(split, n=0 if split == "train" else SOLVED)
    with ProcessPoolExecutor(jobs) as pool:
        solved = list(tqdm(pool.map(solve, rows, chunksize=10), f"exact PIR, {split}", len(rows), dynamic_ncols=True))
    write_jsonl_atomic(RUNS / f"{split}.jsonl", solved)


def solve(row):
    from data.personas.exact import exact_logprobs  # importable in the project's folder only

    items = [row["profile"][i] for i in sorted(retrieve(row["query"], row["profile"], TOP_K))]
    logp, plain = (exact_logprobs(row, some) for some in [items, []])
    return row | {name: np.round(x, 4).tolist() for name, x in {"exact": logp - plain, "exact_logp": logp}.items()}


def solved_rows(split):
    return read_examples(RUNS / f"{split}.jsonl")


def held_out(rows, model, tokenizer, contrast="none"):
    """Rows as Examples to be scored."""
    return encode_rows(rows, tokenizer, model.config.block_size, TOP_K, MAX_NEW_TOKENS, contrast)


def exact_tokens(row, tokenizer, what="exact"):
    """The exact PIR (N,) of a solved row's response tokens: sums over their characters; the last is the end.

    what: "exact_logp" for the exact log P instead.
    """
    spans = tokenizer.spans(tokenizer.encode(row["response"]))  # bytes are characters: the default data are ASCII
    return np.array([sum(row[what][start:end]) for start, end in spans] + [row[what][-1]])
