"""Steps per second where vocabularies are large: ours beside a step of nanoGPT's shape, PerCE beside CE and its floor.

nanoGPT's shape is written down here as plain torch: learned positions, LayerNorm, GELU of width 4 C, one product for
queries, keys and values, and logits of all positions through `F.cross_entropy`. Both train on as many tokens.
"""

import random
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from perce_mini.base import as_document
from perce_mini.dataset import Example, collate
from perce_mini.distributed import replicate
from perce_mini.experiments.memory import PeakMemory, forward_flops
from perce_mini.model import GPT, GPTConfig
from perce_mini.trainer import Settings, backward, make_optimizer

LAYERS, WIDTH, HEADS, LENGTH = 4, 128, 4, 256
BATCHES = {2048: 16, 50304: 8, 151936: 4}  # vocabulary: examples in a step
PERSONA, QUERY, RESPONSE = 150, 10, 96  # of LENGTH tokens, when 3/8 are scored


def times(functions, rounds, device, desc):
    """{name: median seconds} of functions called in turns."""
    taken = {name: [] for name in functions}
    for _ in tqdm(range(rounds + 1), desc=desc, dynamic_ncols=True):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}  # the first round warms up


def some_examples(n, persona, query, response, vocab_size):
    rng = random.Random(0)

    def some(n):
        return [rng.randrange(vocab_size) for _ in range(n)]

    return [Example({}, some(persona), some(query), some(response), []) for _ in range(n)]


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


def our_step(vocab_size, batch_size, loss, whole_documents):
    """The same for the project's own step; every token is scored, or 3/8 of them, the response."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size, n_layer=LAYERS, n_head=HEADS, n_kv_head=HEADS, n_shifted=0, n_embd=WIDTH))
    settings, run = Settings(loss=loss), replicate(model)
    optimizer = make_optimizer(model, settings)
    examples = some_examples(batch_size, PERSONA, QUERY, RESPONSE + 1, vocab_size)
    batch = collate([as_document(e) for e in examples] if whole_documents else examples)

    def step():
        optimizer.zero_grad()
        backward(run, model, batch, settings, len(batch.labels))
        optimizer.step()

    return step


def floor(vocab_size):
    """PerCE / CE by arithmetic: one forward of the short view more, its head included."""
    config = GPTConfig(vocab_size, n_layer=LAYERS, n_head=HEADS, n_kv_head=HEADS, n_shifted=0, n_embd=WIDTH)
    long = forward_flops(config, LENGTH, RESPONSE + 1)
    return 1 + forward_flops(config, QUERY + RESPONSE, RESPONSE + 1) / (3 * long)


def peak(step):
    with PeakMemory() as memory:
        step()
    return memory.peak


def speed(rounds, batches=BATCHES):
    """{name: ratio or tokens/s} for each vocabulary, on the CPU."""
    found = {}
    for vocab_size, batch_size in batches.items():
        steps = {
            "nanogpt": nanogpt_step(vocab_size, batch_size),
            "ours": our_step(vocab_size, batch_size, "ce", whole_documents=True),
            "ce": our_step(vocab_size, batch_size, "ce", whole_documents=False),
            "perce": our_step(vocab_size, batch_size, "perce", whole_documents=False),
        }
        seconds = times(steps, rounds, torch.device("cpu"), f"vocabulary {vocab_size:,}")
        for name, value in seconds.items():
            found[f"{name}_tokens_per_s_{vocab_size}"] = batch_size * LENGTH / value
        found[f"ours_over_nanogpt_{vocab_size}"] = seconds["nanogpt"] / seconds["ours"]
        found[f"perce_over_ce_{vocab_size}"] = seconds["perce"] / seconds["ce"]
        found[f"floor_over_ce_{vocab_size}"] = floor(vocab_size)
        found[f"perce_memory_over_ce_{vocab_size}"] = peak(steps["perce"]) / peak(steps["ce"])
    return found
