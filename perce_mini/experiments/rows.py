"""The rows of the experiments: those of the default data, each with the exact PIR of its characters ("exact").

Solving takes minutes, so the rows are kept in out/experiments: all to train on, SCORED ones to validate and to test.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from perce_mini.dataset import encode_rows, read_examples, subsample
from perce_mini.files import write_jsonl_atomic
from perce_mini.retrieval import retrieve

DATA, RUNS = Path("data/personas"), Path("out/experiments")
SCORED, TOP_K, MAX_NEW_TOKENS = 300, 4, 128  # rows to score; texts in a prompt; tokens of a response


def make_rows(split, jobs):
    rows = subsample(read_examples(DATA / f"{split}.jsonl"), 0 if split == "train" else SCORED)
    with ProcessPoolExecutor(jobs) as pool:
        solved = list(tqdm(pool.map(solve, rows, chunksize=10), f"exact PIR, {split}", len(rows), dynamic_ncols=True))
    write_jsonl_atomic(RUNS / f"{split}.jsonl", solved)


def solve(row):
    from data.personas.exact import exact_pir  # importable in the project's folder only, where the command has to run

    items = [row["profile"][i] for i in sorted(retrieve(row, TOP_K))]
    return row | {"exact": np.round(exact_pir(row, items, range(1, len(row["response"]) + 2)), 4).tolist()}


def rows_of(split, task="", n=0):
    """The rows of a split, or those of one task, or a subsample of n."""
    return subsample([row for row in read_examples(RUNS / f"{split}.jsonl") if task in ("", row["task"])], n)


def held_out(split, model, tokenizer, n=0, contrast="none"):
    """The Examples of a split, or n of these."""
    return encode_rows(rows_of(split, n=n), tokenizer, model.config.block_size, TOP_K, MAX_NEW_TOKENS, contrast)


def exact_tokens(row, tokenizer):
    """The exact PIR (N,) of a row's response tokens: the sums over their characters; the last is the end."""
    spans = tokenizer.spans(tokenizer.encode(row["response"]))  # bytes are characters: the default data are ASCII
    return np.array([sum(row["exact"][start:end]) for start, end in spans] + [row["exact"][-1]])
