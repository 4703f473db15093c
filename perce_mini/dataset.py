"""From rows of text to batches of two aligned views.

    JSONL line -> row (dict, checked) -> Example (ids of two prompts and a response) -> Batch (two views)

y is encoded ONCE. Persona, query and response are encoded each by itself; the views are `persona + query + response`
and `query + response`, so the response ids are the same in both, and token i of one view is token i of the other.
(What stands between the parts is the tokenizer's layout.)
"""

import json
import math
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from perce_mini.errors import UserError
from perce_mini.retrieval import retrieve, strangers

CONTRASTS = ["none", "stranger"]  # what stands in the persona's place in the plain view


class DataError(UserError):
    """What is wrong with the data: file, line and reason."""


# ------------------------------------------------------------------------------------- reading rows


class Row(dict):
    """One example as its JSON object says it; `where` tells "file:line", if it was read from a file."""


def read_examples(path):
    """Read a JSONL file into a list of rows (dicts; the format stands in data/README.md).

    Raises DataError naming file, line and reason at the first bad row. Blank lines are skipped.
    """
    rows = []
    try:
        with open(path, "rb") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    rows.append(read_row(line.strip(), f"{path}:{number}"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if not rows:
        raise DataError(f"{path}: no examples in it")
    return rows


def held_out_file(path):
    """test.jsonl of a data folder, or val.jsonl where there is no test; a file is itself. Raises DataError."""
    if not Path(path).is_dir():
        return Path(path)
    for file in [Path(path) / "test.jsonl", Path(path) / "val.jsonl"]:
        if file.exists():
            return file
    raise DataError(f"{path} has no test.jsonl and no val.jsonl to score; train.py needs none with --eval-examples 0")


def subsample(rows, n):
    """n of the rows, one drawn from each n-th part of the file, always the same; all of them for 0 or None.

    So every task and many users are among them, and nothing that recurs every few rows is left out.
    """
    if not n or n >= len(rows):
        return rows
    rng = random.Random(0)
    return [rows[rng.randrange(i * len(rows) // n, (i + 1) * len(rows) // n)] for i in range(n)]


def read_row(line, where):
    """One line of a file -> Row. Raises DataError with the first thing that is wrong."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({str(error).splitlines()[0]})") from None
    check_texts(row, ["user", "task", "query", "response"], f"{where}: the row")
    check(row["response"].strip(), f"{where}: 'response' is empty")
    check(row["task"] != "all", f"{where}: a task cannot be called 'all', as tables call all tasks together")
    check(isinstance(row.get("profile"), list), f"{where}: the row has no 'profile', or it is not a list")
    for i, item in enumerate(row["profile"]):
        check_texts(item, ["query", "response"], f"{where}: profile item {i}")
    spans = row.get("personal", [])
    check(isinstance(spans, list), f"{where}: 'personal' must be a list of [start, end]")
    for span in spans:
        whole = isinstance(span, list) and len(span) == 2 and all(type(x) is int for x in span)
        inside = whole and 0 <= span[0] < span[1] <= len(row["response"])
        check(inside, f"{where}: personal span {str(span)[:40]} is not in the response")
    row = Row(row)
    row.where = where
    return row


def check(ok, reason):
    if not ok:
        raise DataError(reason)


def check_texts(item, keys, where):
    """An object that has these keys, each with a text that can be encoded."""
    check(isinstance(item, dict), f"{where} must be an object, not {type(item).__name__}")
    for key in keys:
        check(key in item, f"{where} has no {key!r}")
        text = item[key]
        check(isinstance(text, str), f"{where}: {key!r} must be a string, not {type(text).__name__}")
        check("\0" not in text, f"{where}: {key!r} holds a NUL character")
        check(not re.search("[\ud800-\udfff]", text), f"{where}: {key!r} holds a lone surrogate")


# ------------------------------------------------------------------------------------ rows to token ids


@dataclass
class Example:
    row: dict
    prompt: list  # ids of the profile's items, oldest first, and of the query, up to where the response starts
    plain_prompt: list  # the same without these items, or with a stranger's
    response: list  # ids of the response and the end token
    personal: list  # one bool per response token: does it lie in a span that the row calls personal?
    read: list = ()  # which items of the profile stand in the prompt


def encode_example(row, tokenizer, block_size, top_k=4, reserve=0, stranger=None):
    """Row -> Example of at most `block_size` tokens. Only the profile is shortened.

    reserve: room to keep for a response of that many tokens, if the row's own is shorter. stranger: a row whose profile
    is the plain view's. Raises DataError when query and response alone do not fit.
    """
    start, query = tokenizer.lay_out("start"), tokenizer.lay_out("query", row["query"])
    response = [*tokenizer.encode(row["response"]), tokenizer.end]
    asked, answered = len(start) + len(query), max(len(response), reserve)
    room = block_size - asked - answered
    if room < 0:
        answer = "response" if answered == len(response) else "room for an answer"
        sizes = f"query ({asked} tokens) and {answer} ({answered}) do not fit into the block of {block_size}"
        advice = "shorten them or give a larger --block-size (a base model is trained with one)"
        raise DataError(f"{getattr(row, 'where', 'row')}: {sizes}; {advice}")
    persona, read = encode_profile(row["profile"], row["query"], tokenizer, top_k, room)
    contrast = []
    if stranger and row["profile"]:
        contrast, _ = encode_profile(stranger["profile"], row["query"], tokenizer, top_k, room)
    personal = personal_tokens(row, tokenizer, response)
    return Example(row, start + persona + query, start + contrast + query, response, personal, read)


def encode_profile(profile, query, tokenizer, top_k, room):
    """The `top_k` most relevant items, oldest first, as at most `room` ids; and which items these are.

    What does not fit is left out: whole items from the least relevant on, then the tail of the one that is left.
    """
    if room == 0:
        return [], []
    chosen = retrieve(query, profile, top_k)
    items = {i: tokenizer.lay_out("item", profile[i]["query"], profile[i]["response"]) for i in chosen}
    while len(chosen) > 1 and sum(len(items[i]) for i in chosen) > room:
        chosen.pop()
    return [token for i in sorted(chosen) for token in items[i]][:room], sorted(chosen)


def personal_tokens(row, tokenizer, response):
    """One bool per response token: True where it shares a byte with one of the row's personal spans."""
    spans = [[len(row["response"][:at].encode()) for at in span] for span in row.get("personal", [])]  # in bytes
    return [any(start < e and s < end for s, e in spans) for start, end in tokenizer.spans(response)]


def encode_rows(rows, tokenizer, block_size, top_k, reserve=0, contrast="none"):
    """Rows -> Examples. contrast: what takes the persona's place in the plain view, "none" or a "stranger"'s texts."""
    others = strangers(rows) if contrast == "stranger" else [None] * len(rows)
    if contrast == "stranger" and (alone := others.count(None)):
        print(f"note: {alone} of {len(rows)} rows find no stranger in their task", file=sys.stderr)
    bar = tqdm(rows, desc="encode", unit="row", dynamic_ncols=True, leave=False, delay=2)
    return [encode_example(row, tokenizer, block_size, top_k, reserve, other) for row, other in zip(bar, others)]


# --------------------------------------------------------------------------------- examples to batches


@dataclass
class View:
    ids: torch.Tensor  # (B, T) int64, padded on the right
    at: torch.Tensor  # (N,) int64: which of the B * T positions predict the response tokens, row by row


@dataclass
class Batch:
    """The same responses in both views. Labels are flat, since `at` already picks the response tokens; a trainer that
    has logits of whole padded sequences marks all other positions with -100 instead (percontrast.token_logprobs)."""

    examples: list
    persona: View
    plain: View
    labels: torch.Tensor  # (N,) int64: the response tokens, row by row, the same for both views


def make_view(prompts, responses, device):
    sequences = [(prompt + response)[:-1] for prompt, response in zip(prompts, responses)]
    T = max(map(len, sequences))
    ids = torch.tensor([sequence + [0] * (T - len(sequence)) for sequence in sequences])
    at = [b * T + t for b, prompt in enumerate(prompts) for t in range(len(prompt) - 1, len(sequences[b]))]
    return View(ids.to(device), torch.tensor(at).to(device))


def collate(examples, device="cpu"):
    """Examples -> Batch. A position predicts the token after it, so the last token is never an input."""
    responses = [e.response for e in examples]
    persona = make_view([e.prompt for e in examples], responses, device)
    plain = make_view([e.plain_prompt for e in examples], responses, device)
    return Batch(examples, persona, plain, torch.tensor(sum(responses, [])).to(device))


def size(example):
    return len(example.prompt) + len(example.response)


def epoch_batches(examples, batch_size, seed, epoch):
    """One epoch as lists of examples, batches of similar length; the order depends on (seed, epoch) alone.

    Shuffle, sort by length within every run of 16 batches (so that little padding is computed), shuffle the batches.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = rng.sample(examples, len(examples))
    span = 16 * batch_size
    by_length = [e for i in range(0, len(order), span) for e in sorted(order[i : i + span], key=size)]
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return rng.sample(batches, len(batches))


def steps_per_epoch(n_examples, batch_size, micro_batches):
    """Optimisation steps in one pass over the examples; the last one may be smaller."""
    return math.ceil(n_examples / (batch_size * micro_batches))


def training_steps(examples, batch_size, micro_batches, seed, first=0):
    """Without end, from step `first` on: the micro-batches (lists of examples) of one optimisation step."""
    epoch, skip = divmod(first, steps_per_epoch(len(examples), batch_size, micro_batches))
    while True:
        batches = epoch_batches(examples, batch_size, seed, epoch)
        steps = [batches[i : i + micro_batches] for i in range(0, len(batches), micro_batches)]
        yield from steps[skip:]
        epoch, skip = epoch + 1, 0
