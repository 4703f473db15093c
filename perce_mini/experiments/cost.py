"""What a step of PerCE costs beside a step of CE, in time and memory, on the device there is."""

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

PERSONA, QUERY, RESPONSE = 430, 12, 96  # tokens of an example
BATCHES = {4096: 16, 50304: 8, 151936: 2}  # vocabulary: examples in a step; four times more on CUDA
SMALL = {"n_layer": 4, "n_head": 4, "n_kv_head": 4, "n_shifted": 0, "n_embd": 128}
GPT2 = {"n_layer": 12, "n_head": 12, "n_kv_head": 12, "n_shifted": 0, "n_embd": 768}  # on CUDA
ROUNDS = 10


class Model(GPT):
    """A GPT that, when `naive`, computes the logits of every position before it selects some."""

    naive = False

    def forward(self, ids, positions=None):
        if self.naive and positions is not None:
            return super().forward(ids).flatten(0, 1)[positions]
        return super().forward(ids, positions)


def take_step(model, optimizer, examples, loss, naive):
    model.naive = naive
    training_step(model, optimizer, [examples], Settings(loss=loss), 0)


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made under it; `peak` is the most at one time."""

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
    """The most memory in use during a step: all of it on CUDA, else what the step itself makes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device)
    with PeakMemory() as memory:
        step()
    return memory.peak


def median_seconds(functions, device, desc=""):
    """{name: median seconds} of functions that are called in turns; the first round warms up."""
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
    """Floating-point operations a second in one large matrix product."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / median_seconds({"product": lambda: a @ a}, device)["product"]


def ce_operations(config, n_examples):
    """Floating-point operations of a CE step: 2 per weight and token, and twice that backward."""
    length = PERSONA + QUERY + RESPONSE - 1
    block = 4 * config.n_embd**2 + 3 * config.n_embd * config.n_hidden
    attention = length * config.n_embd  # queries see half of the keys, and of the values
    head = RESPONSE * config.n_embd * config.vocab_size
    return 6 * n_examples * (length * config.n_layer * (block + attention) + head)


def measure(config, n_examples, device, peak):
    """{figure: value} for one model and batch. peak: see `matrix_peak`."""
    torch.manual_seed(0)
    model = Model(config).to(device)
    draw = partial(random.Random(0).choices, range(config.vocab_size))
    examples = []
    for _ in range(n_examples):
        persona, query, response = draw(k=PERSONA), draw(k=QUERY), draw(k=RESPONSE)
        examples.append(Example({}, persona + query, query, response, []))
    step = partial(take_step, model, make_optimizer(model, Settings()), examples)
    steps = {"ce": partial(step, "ce", False), "perce": partial(step, "perce", False)}
    steps["naive"] = partial(step, "perce", True)
    seconds = median_seconds(steps, device, f"vocabulary {config.vocab_size:,}")
    memory = {name: peak_bytes(steps[name], device) for name in steps}
    n_tokens = n_examples * (PERSONA + QUERY + RESPONSE)
    every, share = "PerCE with logits of every position", ce_operations(config, n_examples) / peak
    return {
        "PerCE step / CE step, time": seconds["perce"] / seconds["ce"],
        "PerCE step / CE step, peak memory": memory["perce"] / memory["ce"],
        f"{every} / CE step, time": seconds["naive"] / seconds["ce"],
        f"{every} / CE step, peak memory": memory["naive"] / memory["ce"],
        "GB, CE": memory["ce"] / 1e9,
        "tokens/s, CE": round(n_tokens / seconds["ce"]),
        "share of the matrix peak, CE": share / seconds["ce"],
    }


def measure_cost(suite):
    """What it costs."""
    device = pick_device("auto")
    on_cuda, peak = device.type == "cuda", matrix_peak(device)
    shape, factor, where = SMALL, 1, "the CPU"
    if on_cuda:
        shape, factor, where = GPT2, 4, torch.cuda.get_device_name(device)
    figures = {}
    for vocab_size, n_examples in BATCHES.items():
        config = GPTConfig(vocab_size, **shape)
        figures[vocab_size] = measure(config, factor * n_examples, device, peak)
    rows = {name: [{n: values[name] for n, values in figures.items()}] for name in figures[4096]}
    caption = f"Medians of {ROUNDS} steps, in turns, on {where}; {shape['n_layer']} layers of width"
    caption += f" {shape['n_embd']}, examples of {PERSONA} persona, {QUERY} query and {RESPONSE}"
    caption += " response tokens."
    return {"tables": [table(caption, list(figures), rows, "vocabulary", digits=2)]}
