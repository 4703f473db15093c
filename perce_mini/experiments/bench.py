"""What the method costs: `python -m perce_mini.experiments.bench [--json FILE]`, from the project's folder.

Steps (forward, backward, AdamW) are taken in turns within one run on the CPU, and only their ratios mean anything:
medians over rounds. PerCE stands beside CE, beside its floor by arithmetic, and beside PerCE as first written down.

Beside all that stands a step of nanoGPT's shape, written down here as plain torch: learned positions, LayerNorm, GELU
of width 4 C, one product for queries, keys and values, and logits of all positions through `F.cross_entropy`. Ours
then scores every token, too.
"""

import random
import statistics
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from perce_mini import cli
from perce_mini.base import VOCAB_SIZE, as_document
from perce_mini.dataset import Example, collate
from perce_mini.distributed import replicate
from perce_mini.experiments.memory import forward_flops, peak_of
from perce_mini.experiments.records import dump, provenance
from perce_mini.files import check_writable, write_text_atomic
from perce_mini.model import GPT, GPTConfig
from perce_mini.percontrast import perce_loss, token_logprobs
from perce_mini.trainer import Settings, backward, make_optimizer

LAYERS, WIDTH, HEADS = 4, 128, 4
PERSONA, QUERY, RESPONSE = 430, 12, 96  # tokens of an example
LENGTH = PERSONA + QUERY + RESPONSE - 1
BATCHES = {VOCAB_SIZE: 16, 50304: 8, 151936: 2}  # vocabulary: examples in a step
LABELS = {  # figures, in the order of the table
    "perce_over_ce": "PerCE step / CE step, time",
    "floor_over_ce": "its floor: one forward of the short view more, by arithmetic",
    "naive_over_ce": "PerCE with logits of every position / CE step, time",
    "perce_memory_over_ce": "PerCE step / CE step, peak memory",
    "naive_memory_over_ce": "PerCE with logits of every position / CE step, peak memory",
    "ours_over_nanogpt": "tokens/s over nanoGPT's shape, all scored",
}


def times(functions, rounds, desc):
    """{name: median seconds} of functions called in turns."""
    taken = {name: [] for name in functions}
    for _ in tqdm(range(rounds + 1), desc=desc, dynamic_ncols=True):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}  # the first round warms up


def some_examples(n, persona, query, response, vocab_size):
    draw = partial(random.Random(0).choices, range(vocab_size))
    return [Example({}, draw(k=persona) + (asked := draw(k=query)), asked, draw(k=response), []) for _ in range(n)]


class NanoBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(B, T, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class NanoGPT(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(NanoBlock() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        for embedding in [self.tokens, self.positions]:
            nn.init.normal_(embedding.weight, std=0.02)

    def loss(self, ids):
        """Next-token prediction of all positions; ids (B, LENGTH + 1)."""
        x = self.tokens(ids[:, :-1]) + self.positions.weight
        logits = self.norm(self.blocks(x)) @ self.tokens.weight.T
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def nanogpt_step(vocab_size, batch_size):
    """A function that takes one step: forward, backward, AdamW."""
    torch.manual_seed(0)
    model = NanoGPT(vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(0, vocab_size, (batch_size, LENGTH + 1))

    def step():
        optimizer.zero_grad()
        model.loss(ids).backward()
        optimizer.step()

    return step


def config_of(vocab_size):
    return GPTConfig(vocab_size, n_layer=LAYERS, n_head=HEADS, n_kv_head=HEADS, n_shifted=0, n_embd=WIDTH)


def our_step(kind, vocab_size, batch_size):
    """The same for the project's own step: a loss, "all scored" (CE of every token), or "naive" (PerCE)."""
    torch.manual_seed(0)
    model = GPT(config_of(vocab_size))
    settings, run = Settings(loss="perce" if kind == "perce" else "ce"), replicate(model)
    optimizer = make_optimizer(model, settings)
    examples = some_examples(batch_size, PERSONA, QUERY, RESPONSE, vocab_size)
    batch = collate([as_document(e) for e in examples] if kind == "all scored" else examples)

    def step():
        optimizer.zero_grad()
        if kind == "naive":
            naive_backward(model, batch)
        else:
            backward(run, model, batch, settings, len(batch.labels))
        optimizer.step()

    return step


def naive_backward(model, batch):
    """PerCE as first written down: logits of every position, in both views."""

    def logp(view):
        labels = torch.full((view.ids.numel(),), -100).scatter(0, view.at, batch.labels)
        return token_logprobs(model(view.ids), labels.view_as(view.ids))

    with torch.no_grad():
        plain = logp(batch.plain)
    perce_loss(logp(batch.persona), plain).backward()


def floor(vocab_size):
    """PerCE / CE by arithmetic: one forward of the short view more, its head included."""
    lengths = LENGTH, QUERY + RESPONSE - 1
    long, short = (sum(forward_flops(config_of(vocab_size), length, RESPONSE)) for length in lengths)
    return 1 + short / (3 * long)


def measure(rounds=10, batches=BATCHES):
    """{figure, "figure_VOCABULARY" beside the default one: value}."""
    figures = {}
    for vocab_size, batch_size in batches.items():
        kinds = ["all scored", "ce", "perce", *(["naive"] if vocab_size == VOCAB_SIZE else [])]
        steps = {kind: our_step(kind, vocab_size, batch_size) for kind in kinds}
        steps["nanogpt"] = nanogpt_step(vocab_size, batch_size)
        seconds = times(steps, rounds, f"vocabulary {vocab_size:,}")
        found = {"floor_over_ce": floor(vocab_size), "ours_over_nanogpt": seconds["nanogpt"] / seconds["all scored"]}
        for kind in kinds[2:]:
            found[f"{kind}_over_ce"] = seconds[kind] / seconds["ce"]
            found[f"{kind}_memory_over_ce"] = peak_of(steps[kind]) / peak_of(steps["ce"])
        figures |= {key_of(name, vocab_size): value for name, value in found.items()}
    return figures


def key_of(figure, vocab_size):
    return figure if vocab_size == VOCAB_SIZE else f"{figure}_{vocab_size}"


def main():
    p = cli.Parser(prog="python -m perce_mini.experiments.bench", description=__doc__)
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    p.add_argument("--rounds", type=cli.COUNT, default=10, help="times that every step is taken")
    args = p.parse_args()
    if args.json:
        check_writable(args.json)
    figures = measure(args.rounds)
    for name, value in figures.items():
        print(f"{name:28} {value:.3f}")
    if args.json:
        write_text_atomic(args.json, dump(figures | provenance()))


if __name__ == "__main__":
    cli.run(main)
