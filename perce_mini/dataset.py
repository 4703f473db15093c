"""From rows of text to batches of two aligned views.

    JSONL line -> row (dict, checked) -> Example (ids of persona, query, response) -> Batch (two views)

y is encoded ONCE. An Example holds the ids of persona, query and response, each encoded by itself; the
views are `persona + query + response` and `query + response`, so the response ids are the same objects in
both, and token i of one view is token i of the other.
"""

import json
import math
import random
import re
from collections import Counter
from dataclasses import dataclass

import torch

from perce_mini.tokenizer import END, PERSONA, QUERY, RESPONSE


class DataError(ValueError):
    """What is wrong with the data, in one line: file, line and reason."""


# ------------------------------------------------------------------------------------- reading rows


class Row(dict):
    """One example as its JSON object says it; `where` tells "file:line"."""

    where = "row"


def read_examples(path):
    """Read a JSONL file into a list of rows (dicts; the format stands in data/README.md).

    Raises DataError naming file, line and reason at the first bad row. Blank lines are skipped.
    """
    rows = []
    try:
        with open(path, "rb") as f:
            for number, line in enumerate(f, 1):
                if line.strip():
                    rows.append(read_row(line, f"{path}:{number}"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if not rows:
        raise DataError(f"{path}: no examples in it")
    return rows


def read_row(line, where):
    def check(ok, reason):
        if not ok:
            raise DataError(f"{where}: {reason}")

    def check_text(text, name):
        check(isinstance(text, str), f"{name} must be a string, not {type(text).__name__}")
        check("\0" not in text, f"{name} holds a NUL character")
        check(not re.search("[\ud800-\udfff]", text), f"{name} holds a lone surrogate, which no text can encode")

    def check_keys(item, keys, name):
        check(isinstance(item, dict), f"{name} must be an object, not {type(item).__name__}")
        for key in keys:
            check(key in item, f"{name} has no {key!r}")

    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({str(error).splitlines()[0]})") from None
    check_keys(row, ["user", "task", "query", "response", "profile"], "the row")
    for key in ["user", "task", "query", "response"]:
        check_text(row[key], repr(key))
    check(row["response"].strip(), "'response' is empty")
    check(isinstance(row["profile"], list), "'profile' must be a list")
    for i, item in enumerate(row["profile"]):
        check_keys(item, ["query", "response"], f"profile item {i}")
        for key in ["query", "response"]:
            check_text(item[key], f"{key!r} of profile item {i}")
    check(isinstance(row.get("personal", []), list), "'personal' must be a list of [start, end]")
    for span in row.get("personal", []):
        good = isinstance(span, list) and len(span) == 2 and all(type(x) is int for x in span)
        check(good and 0 <= span[0] < span[1] <= len(row["response"]), f"personal span {span} is not within the response")
    row = Row(row)
    row.where = where
    return row


# --------------------------------------------------------------------- choosing the profile's items


def bm25(query, documents, k1=1.5, b=0.75):
    """Okapi BM25 of every document for a query, over words split at white space: a list of floats."""
    counts = [Counter(document.split()) for document in documents]
    lengths = [sum(count.values()) for count in counts]
    average = sum(lengths) / max(1, len(lengths)) or 1
    scores = [0.0] * len(documents)
    for word in query.split():
        n = sum(word in count for count in counts)  # documents that hold the word
        rarity = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
        for i, count in enumerate(counts):
            tf = count[word]
            scores[i] += rarity * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths[i] / average))
    return scores


def retrieve(row, top_k):
    """Indices of the row's `top_k` profile items, most relevant to the query first; of equals the newest."""
    scores = bm25(row["query"], [f"{item['query']} {item['response']}" for item in row["profile"]])
    return sorted(range(len(scores)), key=lambda i: (-scores[i], -i))[:top_k]


# ------------------------------------------------------------------------------------ rows to token ids


@dataclass
class Example:
    row: dict
    persona: list  # ids: <|persona|> item's query <|response|> item's response, for every item, oldest first
    query: list  # ids: <|query|> query <|response|>
    response: list  # ids: response <|end|>
    personal: list  # a bool a response token: does it lie in a span that the row calls personal?


def encode_example(row, tokenizer, block_size, top_k=4, reserve=0):
    """Row -> Example of at most `block_size` tokens. Only the profile is shortened: whole items from the
    least relevant on, then the tail of the one that is left.

    reserve: room to keep for a response of that many tokens, if the row's own is shorter.
    Raises DataError when query and response alone do not fit.
    """
    control = tokenizer.special
    query = [control[QUERY], *tokenizer.encode(row["query"]), control[RESPONSE]]
    response = [*tokenizer.encode(row["response"]), control[END]]
    room = block_size - len(query) - max(len(response), reserve)
    if room < 0:
        raise DataError(f"{row.where}: query ({len(query)} tokens) and response ({max(len(response), reserve)})"
                        f" do not fit into the block of {block_size}; shorten them or train a base with a larger --block-size")
    items, chosen = {}, retrieve(row, top_k)
    for i in chosen:
        item = row["profile"][i]
        items[i] = [control[PERSONA], *tokenizer.encode(item["query"]), control[RESPONSE], *tokenizer.encode(item["response"])]
    while len(chosen) > 1 and sum(len(items[i]) for i in chosen) > room:
        chosen.pop()
    persona = [token for i in sorted(chosen) for token in items[i]][:room]
    return Example(row, persona, query, response, personal_tokens(row, tokenizer, response))


def personal_tokens(row, tokenizer, response):
    """A bool a response token: True where it shares a byte with one of the row's personal spans."""
    to_bytes = lambda chars: len(row["response"][:chars].encode())
    spans = [(to_bytes(start), to_bytes(end)) for start, end in row.get("personal", [])]
    return [any(start < e and s < end for s, e in spans) for start, end in tokenizer.spans(response)]


def as_document(example):
    """The same tokens as running text: everything after the first is to be predicted (for the base model)."""
    ids = example.persona + example.query + example.response
    return Example(example.row, [], ids[:1], ids[1:], [False] * len(ids[1:]))


# --------------------------------------------------------------------------------- examples to batches


@dataclass
class View:
    ids: torch.Tensor  # (B, T) int64, padded on the right
    at: torch.Tensor  # (N,) int64: which of the B * T positions predict the response tokens, row by row


@dataclass
class Batch:
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
    return Batch(examples, make_view([e.persona + e.query for e in examples], responses, device),
                 make_view([e.query for e in examples], responses, device),
                 torch.tensor([token for response in responses for token in response]).to(device))


def size(example):
    return len(example.persona) + len(example.query) + len(example.response)


def epoch_batches(examples, batch_size, seed, epoch):
    """One epoch as lists of examples, batches of similar length; the order depends on (seed, epoch) alone.

    Shuffle, sort by length within every run of 16 batches (so that little padding is computed), shuffle the batches.
    """
    dice = random.Random(f"{seed}/{epoch}")
    order = dice.sample(examples, len(examples))
    run = 16 * batch_size
    near = [e for i in range(0, len(order), run) for e in sorted(order[i : i + run], key=size)]
    batches = [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    return dice.sample(batches, len(batches))


def training_steps(examples, batch_size, grad_accum, seed, first=0):
    """Without end, from step `first` on: the micro-batches (lists of examples) of one optimisation step."""
    steps_an_epoch = math.ceil(math.ceil(len(examples) / batch_size) / grad_accum)
    epoch, skip = divmod(first, steps_an_epoch)
    while True:
        batches = epoch_batches(examples, batch_size, seed, epoch)
        steps = [batches[i : i + grad_accum] for i in range(0, len(batches), grad_accum)]
        yield from steps[skip:]
        epoch, skip = epoch + 1, 0
