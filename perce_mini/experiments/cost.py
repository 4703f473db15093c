"""Measure the time and memory of a PerCE step and of a CE step, on a GPU if there is one."""

import random
import statistics
import time
import weakref
from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from perce_mini.dataset import Example
from perce_mini.experiments.records import table
from perce_mini.model import GPT, GPTConfig
from perce_mini.runtime.device import pick_device
from perce_mini.trainer import Settings, make_optimizer, training_step

PERSONA, QUERY, RESPONSE = 430, 12, 96  # tokens in each part of an example
BATCHES = {4096: 16, 50304: 8, 151936: 2}  # {vocabulary: examples}; on CUDA 4 times as many
SMALL = {"n_layer": 4, "n_head": 4, "n_kv_head": 4, "n_shifted": 0, "n_embd": 128}
GPT2 = {"n_layer": 12, "n_head": 12, "n_kv_head": 12, "n_shifted": 0, "n_embd": 768}  # on CUDA
ROUNDS = 10


class Model(GPT):
    """A GPT. If `naive` is set, it computes the logits of all positions and then selects some."""

    naive = False

    def forward(self, ids, positions=None):
        if self.naive and positions is not None:
            return super().forward(ids).flatten(0, 1)[positions]
        return super().forward(ids, positions)


def take_step(model, optimizer, examples, loss, naive):
    model.naive = naive
    training_step(model, optimizer, [examples], Settings(loss=loss), 0)


class PeakMemory(TorchDispatchMode):
    """While active, `peak` records the most bytes that new tensors occupied at once."""

    def __enter__(self):
        self.now = self.peak = 0
        self.storages = set()
        return super().__enter__()

    def free(self, key, n_bytes):
        self.now -= n_bytes
        self.storages.discard(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for tensor in results if isinstance(results, (tuple, list)) else [results]:
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.storages:
                self.storages.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return results


def peak_bytes(step, device):
    """Return the peak memory of a step in bytes.

    On the CPU, only tensors that the step creates count.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device)
    with PeakMemory() as memory:
        step()
    return memory.peak


def median_seconds(functions, device, desc=""):
    """Time the functions in turn, round after round: {name: median seconds}.

    The first round is a warm-up.
    """
    seconds = {name: [] for name in functions}
    for _ in tqdm(range(ROUNDS + 1), desc, dynamic_ncols=True, disable=not desc):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def matrix_peak(device):
    """Return how many floating-point operations per second a large matrix product reaches."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / median_seconds({"product": lambda: a @ a}, device)["product"]


def ce_operations(config, n_examples):
    """Count the floating-point operations of a CE step: 6 per weight and token, plus attention."""
    length = PERSONA + QUERY + RESPONSE - 1
    block = 4 * config.n_embd**2 + 3 * config.n_embd * config.n_hidden
    attention = length * config.n_embd  # a query attends to half of the keys and values on average
    head = RESPONSE * config.n_embd * config.vocab_size
    return 6 * n_examples * (length * config.n_layer * (block + attention) + head)


def measure(config, n_examples, device, peak):
    """Return {figure: value} for one model and batch size. peak: see `matrix_peak`."""
    torch.manual_seed(0)
    model = Model(config).to(device)
    draw = partial(random.Random(0).choices, range(config.vocab_size))
    examples = []
    for _ in range(n_examples):
        persona, query, response = draw(k=PERSONA), draw(k=QUERY), draw(k=RESPONSE)
        examples.append(Example({}, persona + query, query, response, []))
    step = partial(take_step, model, make_optimizer(model, Settings()), examples)
    steps = {"ce": partial(step, "ce", False), "perce": partial(step, "perce", False)}
    steps["naive"] = partial(step, "perce", True)  # computes the logits of all positions
    seconds = median_seconds(steps, device, f"vocabulary {config.vocab_size:,}")
    memory = {name: peak_bytes(steps[name], device) for name in steps}
    n_tokens = n_examples * (PERSONA + QUERY + RESPONSE)
    operations = ce_operations(config, n_examples) / seconds["ce"]  # per second
    naive = "naive PerCE (logits at all positions)"
    return {
        "PerCE step / CE step, time": seconds["perce"] / seconds["ce"],
        "PerCE step / CE step, peak memory": memory["perce"] / memory["ce"],
        f"{naive} / CE, time": seconds["naive"] / seconds["ce"],
        f"{naive} / CE, peak memory": memory["naive"] / memory["ce"],
        "GB, CE": memory["ce"] / 1e9,
        "tokens/s, CE": round(n_tokens / seconds["ce"]),
        "CE, speed relative to a matrix product": operations / peak,
    }


def measure_cost(suite):
    """What does PerCE cost?"""
    device = pick_device("auto")
    shape, factor, where = SMALL, 1, "the CPU"
    if device.type == "cuda":
        shape, factor, where = GPT2, 4, torch.cuda.get_device_name(device)
    peak, figures = matrix_peak(device), {}
    for vocab_size, n_examples in BATCHES.items():
        config = GPTConfig(vocab_size, **shape)
        figures[vocab_size] = measure(config, factor * n_examples, device, peak)
    rows = {name: [{n: values[name] for n, values in figures.items()}] for name in figures[4096]}
    caption = f"Median of {ROUNDS} steps on {where}; the losses take turns. The model has"
    caption += f" {shape['n_layer']} layers of width {shape['n_embd']}; an example has {PERSONA}"
    caption += f" persona, {QUERY} query and {RESPONSE} response tokens."
    return {"tables": [table(caption, list(figures), rows, "vocabulary", digits=2)]}
