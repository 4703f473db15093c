"""Turn rows of text into batches of two aligned views.

    JSONL line -> Row (a dict, see rows.py) -> Example (ids of two prompts and a response) -> Batch

Persona, query and response are encoded separately, and the response y is encoded only ONCE:

    persona view   [item][item] [query] response            plain view   [query] response

So both views contain the same response ids, and PIR can compare them token by token.
"""

import math
import random
from collections import Counter
from dataclasses import dataclass

import torch
from tqdm import tqdm

# Others may import read_examples and DataError from here, too.
from perce_mini.rows import DataError, Row, check, gives_answer, read_examples  # noqa: F401
from perce_mini.runtime.errors import one_line

# -------------------------------------------------------------- which texts go into the prompt


def bm25(query, documents, k1=1.5, b=0.75):
    """Score how relevant each document is to the query, with Okapi BM25: a list of floats.

        sum over the query's words of rarity * tf (k1 + 1) / (tf + k1 (1 - b + b length / average))

    Rare words count more, each repetition of a word adds less, and long documents are penalised.
    Words are split at white space, as in LongLaMP's own BM25 baseline.
    """
    counts = [Counter(document.split()) for document in documents]
    lengths = [count.total() for count in counts]
    average = sum(lengths) / max(1, len(lengths)) or 1
    scores = [0.0] * len(documents)
    for word in query.split():
        n = sum(word in count for count in counts)  # number of documents that contain the word
        rarity = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
        for i, count in enumerate(counts):
            tf = count[word]
            scores[i] += rarity * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths[i] / average))
    return scores


def retrieve(query, profile, top_k):
    """Return the indices of the `top_k` most relevant profile items; ties go to the newest."""
    scores = bm25(query, [f"{item['query']} {item['response']}" for item in profile])
    return sorted(range(len(profile)), key=lambda i: (-scores[i], -i))[:top_k]


# ----------------------------------------------------------------------------- rows to token ids


@dataclass
class Example:
    row: dict
    prompt: list  # ids of persona (oldest item first) and query, up to where the response starts
    plain_prompt: list  # the same without the persona
    response: list  # ids of the response and the end token
    personal: list  # one bool per response token: does it overlap a personal span?
    profile_indices: list = ()  # which items of the profile are in the prompt


def encode_example(row, tokenizer, block_size, top_k=4, max_new_tokens=0):
    """Encode a row as an Example of at most `block_size` tokens. Only the persona is shortened.

    max_new_tokens: leave room for a generated response of this length, even if the row's response
    is shorter.
    Raises DataError if the prompt is empty, or if query and response do not fit without a persona.
    """
    where = getattr(row, "where", Row.where)
    with one_line(where, "text that can be encoded"):
        start = tokenizer.encode_template("start")
        query = tokenizer.encode_template("query", row["query"])
        response = [*tokenizer.encode(row["response"]), tokenizer.end]
        answer = max(len(response), max_new_tokens)
        room = block_size - len(start) - len(query) - answer
        advice = "add a query, or use a template with a start"
        check(start + query, f"{where}: the prompt is empty: {advice}")
        sizes = f"query ({len(start + query)} tokens) and response ({answer})"
        check(room >= 0, f"{where}: {sizes} exceed the block size {block_size}: shorten them")
        persona, indices = encode_profile(row["profile"], row, tokenizer, top_k, room)
        contrast, _ = encode_profile(getattr(row, "plain_profile", ()), row, tokenizer, top_k, room)
        personal = personal_tokens(row, tokenizer)
    prompts = start + persona + query, start + contrast + query
    return Example(row, *prompts, response, personal, indices)


def encode_profile(profile, row, tokenizer, top_k, room):
    """Encode the `top_k` most relevant items, oldest first: (at most `room` ids, item indices).

    An item that equals the response would give the answer away, so it is never used. If the items
    do not fit, the least relevant ones are dropped, and the end of the last one is cut off.
    """
    if room == 0:
        return [], []
    usable = [i for i, item in enumerate(profile) if not gives_answer(item, row)]
    best = retrieve(row["query"], [profile[i] for i in usable], top_k)
    ids = {}  # index -> token ids, most relevant first
    for i in [usable[j] for j in best]:
        ids[i] = tokenizer.encode_template("item", profile[i]["query"], profile[i]["response"])
    while len(ids) > 1 and sum(map(len, ids.values())) > room:
        ids.popitem()
    indices = sorted(ids)
    return [token for i in indices for token in ids[i]][:room], indices


def personal_tokens(row, tokenizer):
    """Return one bool per response token: True if it overlaps a personal span of the row."""
    text = row["response"]
    spans = [[byte_offset(text, at, tokenizer) for at in span] for span in row.get("personal", [])]
    tokens = tokenizer.spans(text)
    touches = [any(start < e and s < end for s, e in spans) for start, end in tokens]
    return [*touches, False]  # the end token


def byte_offset(text, at, tokenizer):
    """Convert a character position in the text to a byte position in the encoded text."""
    return len(tokenizer.normalize(text[:at]).encode())


def encode_rows(rows, tokenizer, block_size, top_k, max_new_tokens=0):
    """Encode rows as Examples. Raises DataError."""
    examples = []
    for row in tqdm(rows, "encode", unit="row", dynamic_ncols=True, leave=False, delay=2):
        examples.append(encode_example(row, tokenizer, block_size, top_k, max_new_tokens))
    return examples


# ---------------------------------------------------------------------------- examples to batches


@dataclass
class View:
    ids: torch.Tensor  # (B, T) int64, padded on the right
    target_positions: torch.Tensor  # (N,) int64: the positions in ids.flatten() that predict y


@dataclass
class Batch:
    """The same responses in both views."""

    examples: list
    persona: View
    plain: View
    labels: torch.Tensor  # (N,) int64: the response tokens, row after row, the same in both views


def make_view(prompts, responses, device):
    """Build a View. Each position predicts the next token, so the last token is never an input."""
    sequences = [(prompt + response)[:-1] for prompt, response in zip(prompts, responses)]
    T = max(map(len, sequences))
    ids = [sequence + [0] * (T - len(sequence)) for sequence in sequences]
    positions = []
    for b, prompt in enumerate(prompts):
        positions += range(b * T + len(prompt) - 1, b * T + len(sequences[b]))
    return View(torch.tensor(ids, device=device), torch.tensor(positions, device=device))


def collate(examples, device="cpu"):
    """Build a Batch from Examples."""
    responses = [e.response for e in examples]
    persona = make_view([e.prompt for e in examples], responses, device)
    plain = make_view([e.plain_prompt for e in examples], responses, device)
    return Batch(examples, persona, plain, torch.tensor(sum(responses, []), device=device))


def size(example):
    return len(example.prompt) + len(example.response)


def epoch_batches(examples, batch_size, seed, epoch):
    """Split an epoch into lists of `batch_size` examples. The order depends only on (seed, epoch).

    Shuffle, sort by length within every 16 batches to reduce padding, and shuffle the batches.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = rng.sample(examples, len(examples))
    by_length = []
    for i in range(0, len(order), 16 * batch_size):
        by_length += sorted(order[i : i + 16 * batch_size], key=size)
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return rng.sample(batches, len(batches))


def steps_per_epoch(n_examples, batch_size, micro_batches):
    """Count the optimisation steps in one pass over the examples; the last one may be smaller."""
    return math.ceil(n_examples / (batch_size * micro_batches))


def training_steps(examples, batch_size, micro_batches, seed, first=0):
    """Yield each step's micro-batches (lists of examples) forever, starting at step `first`."""
    epoch, skip = divmod(first, steps_per_epoch(len(examples), batch_size, micro_batches))
    while True:
        batches = epoch_batches(examples, batch_size, seed, epoch)
        steps = [batches[i : i + micro_batches] for i in range(0, len(batches), micro_batches)]
        yield from steps[skip:]
        epoch, skip = epoch + 1, 0
