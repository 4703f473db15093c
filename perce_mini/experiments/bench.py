"""What the method costs: `python -m perce_mini.experiments.bench [--json FILE]`, from the project's folder.

All times of a kind are taken in turns within one run, and only their ratios mean anything: medians over
rounds. The shape is that of the default data: 16 examples, each 300 persona, 12 query and 65 response tokens.

    --gpu       tokens/s and model FLOP utilisation of a 124 M model (length 1,024, bfloat16, compiled) on a CUDA device
    --memory    by arithmetic alone: what fine-tuning pretrained models takes
"""

import random
import statistics
import time
import weakref
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from perce_mini import cli, lora
from perce_mini.dataset import Example, collate, size, training_steps
from perce_mini.device import pick_device
from perce_mini.distributed import replicate
from perce_mini.errors import UserError
from perce_mini.experiments.records import dump, provenance
from perce_mini.files import check_writable, write_text_atomic
from perce_mini.model import GPT, GPTConfig
from perce_mini.percontrast import LOSSES, perce_loss, token_logprobs
from perce_mini.rouge import lcs_length
from perce_mini.trainer import Settings, backward

PERSONA, QUERY, RESPONSE = 300, 12, 65
LABELS = {  # figures that the report shows, in its order
    "perce_over_ce": "PerCE step / CE step, time",
    "floor_over_ce": "the floor: one forward of the short view more, by arithmetic",
    "naive_over_ce": "PerCE with logits of every position / CE step, time",
    "lossce_over_ce": "LossCE step / CE step, time",
    "entce_over_ce": "EntCE step / CE step, time",
    "perce_memory_over_ce": "PerCE step / CE step, peak memory",
    "naive_memory_over_ce": "PerCE with logits of every position / CE step, peak memory",
    "lossce_memory_over_ce": "LossCE step / CE step, peak memory",
    "entce_memory_over_ce": "EntCE step / CE step, peak memory",
    "ce_tokens_per_s": "CE, tokens/s (this machine)",
    "perce_tokens_per_s": "PerCE, tokens/s",
    "ce_utilisation": "CE, model FLOP utilisation",
    "perce_utilisation": "PerCE, model FLOP utilisation",
    "ce_peak_mb": "CE step, peak memory, MB",
    "peak_gb": "peak memory, GB",
    "rouge_speedup": "ROUGE-L: quadratic table / bits, 500 words",
    "cache_speedup": "generation: uncached / cached",
    "loader_over_trainer": "loader's tokens/s / trainer's",
}


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made under it held at once, on any device."""

    def __enter__(self):
        self.now = self.peak = 0
        self.seen = set()
        return super().__enter__()

    def free(self, key, n):
        self.now -= n
        self.seen.discard(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.seen:
                    self.seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out


def naive_step(model, batch):
    """PerCE as first written down: logits of every position, in both views."""

    def logp(view):
        labels = torch.full((view.ids.numel(),), -100, device=view.ids.device).scatter(0, view.at, batch.labels)
        return token_logprobs(model(view.ids), labels.view_as(view.ids))

    with torch.no_grad():
        plain = logp(batch.plain)
    perce_loss(logp(batch.persona), plain).backward()


def forward_flops(config, length, scored):
    """Multiply-adds of one forward of `length` tokens, of which `scored` are projected on the vocabulary."""
    attention = config.n_embd * config.head_size * (2 * config.n_head + 2 * config.n_kv_head)
    block = attention + 3 * config.n_embd * config.n_hidden + config.n_embd * length  # causal: half of 2 T C
    return length * config.n_layer * block + scored * config.n_embd * config.vocab_size


def training_bytes(config, batch, length, scored, lora_rank=0, recompute=True, cast=True):
    """What a PerCE step needs, by arithmetic: {part: bytes}. `scored` response tokens in all.

    cast: compute in bfloat16. Weights are float32, or bfloat16 where they are frozen beside LoRA and `cast`.
    """
    with torch.device("meta"):
        model = GPT(config)
        if lora_rank:
            lora.add(model, lora_rank)
    n, trained = model.n_parameters(), sum(p.numel() for p in model.parameters() if p.requires_grad)
    low, stream = (2, 2 if lora_rank else 4) if cast else (4, 4)  # bytes of a number in a layer, between layers
    heads, shared = config.n_head * config.head_size, config.n_kv_head * config.head_size
    inside = low * (2 * config.n_embd + 4 * heads + 4 * shared + 4 * config.n_hidden)
    a_block = 2 * stream * config.n_embd + inside  # what backward reads, a token
    blocks = config.n_layer * stream * config.n_embd + a_block if recompute else config.n_layer * a_block
    slice_of_logits = min(scored * config.vocab_size, 2**26)
    return {
        "weights": (n - trained) * low + trained * 4 + (trained * 2 if cast else 0),
        "gradients": 4 * trained,
        "AdamW": 8 * trained,
        "activations": batch * length * blocks,
        "logits": slice_of_logits * (12 + (low if cast else 0)),
    }


def quadratic_lcs(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        above, row = row, [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
    return row[-1]


def uncached(model, prompts, n):
    """Greedy generation that reads the whole text again for every token. Prompts of one length."""
    ids = torch.tensor(prompts, device=model.head.device)
    with torch.no_grad():
        for _ in range(n):
            ids = torch.cat([ids, (model.hidden(ids)[:, -1] @ model.head.T).argmax(-1, keepdim=True)], dim=1)


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


def measure(device, rounds=10, batch_size=16):
    """{name: ratio or figure}, of steps of a model of the default shape, of ROUGE-L, generation and the loader."""
    config = GPTConfig(2048)
    torch.manual_seed(0)
    model = GPT(config).to(device)
    examples = some_examples(batch_size, PERSONA, QUERY, RESPONSE, config.vocab_size)
    batch = collate(examples, device)
    n_tokens = sum(map(size, examples))

    def step(loss):
        model.zero_grad()
        backward(replicate(model), model, batch, Settings(loss), len(batch.labels))

    def naive():
        model.zero_grad()
        naive_step(model, batch)

    steps = {loss: lambda loss=loss: step(loss) for loss in LOSSES} | {"naive": naive}
    seconds = times(steps, rounds, device, "training steps")
    peak = {}
    for name, take in steps.items():
        model.zero_grad()
        with PeakMemory() as memory:
            take()
        peak[name] = memory.peak

    loader = training_steps(examples * 64, batch_size, 1, seed=0)
    load = times({"load": lambda: collate(next(loader)[0], device)}, rounds, device, "loader")["load"]
    rng = random.Random(0)
    words = [[str(rng.randrange(150)) for _ in range(500)] for _ in range(2)]
    lcs = times({"bits": lambda: lcs_length(*words), "table": lambda: quadratic_lcs(*words)}, 5, device, "ROUGE-L")
    prompts, new = [e.persona + e.query for e in examples[:8]], 64
    ways = {
        "cached": lambda: model.generate(prompts, new, end_id=-1),
        "uncached": lambda: uncached(model, prompts, new),
    }
    generate = times(ways, 2, device, "generation")

    persona, plain = PERSONA + QUERY + RESPONSE - 1, QUERY + RESPONSE - 1
    ce = seconds["ce"]
    others = [name for name in steps if name != "ce"]
    return {
        "device": str(device),
        "floor_over_ce": 1 + forward_flops(config, plain, RESPONSE) / (3 * forward_flops(config, persona, RESPONSE)),
        **{f"{name}_over_ce": seconds[name] / ce for name in others},
        **{f"{name}_memory_over_ce": peak[name] / peak["ce"] for name in others},
        **{f"{name}_tokens_per_s": n_tokens / seconds[name] for name in steps},
        "ce_peak_mb": peak["ce"] / 2**20,
        "rouge_speedup": lcs["table"] / lcs["bits"],
        "cache_speedup": generate["uncached"] / generate["cached"],
        "loader_over_trainer": ce / load,
    }


# dense bfloat16 operations a second, by name of the device; a multiplication and its addition are two
PEAK_FLOPS = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}


def utilisation(args, device, config=None, persona=800, query=24, response=201):
    """What a 124 M model reaches on one GPU: tokens/s, and its own operations as a share of the device's peak."""
    config = config or GPTConfig(50304, 1024, n_layer=12, n_head=12, n_kv_head=12, n_shifted=0, n_embd=768)
    torch.manual_seed(0)
    model = GPT(config).to(device)
    model.compile_blocks()
    batch = collate(some_examples(args.batch_size, persona, query, response, config.vocab_size), device)
    n_tokens = args.batch_size * (persona + query + response - 1)

    def step(loss):
        model.zero_grad()
        backward(replicate(model), model, batch, Settings(loss), len(batch.labels))

    steps = {loss: lambda loss=loss: step(loss) for loss in ["ce", "perce"]}
    seconds = times(steps, args.rounds, device, "training steps")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = next((flops for kind, flops in PEAK_FLOPS.items() if kind in name), None)
    long = 3 * 2 * forward_flops(config, persona + query + response - 1, response)  # forward, twice as much backward
    short = 2 * forward_flops(config, query + response - 1, response)
    used = {"ce": args.batch_size * long, "perce": args.batch_size * (long + short)}
    figures = {"device": name, "parameters": model.n_parameters()}
    figures |= {"perce_over_ce": seconds["perce"] / seconds["ce"], "floor_over_ce": 1 + short / long}
    for loss in seconds:
        figures[f"{loss}_tokens_per_s"] = n_tokens / seconds[loss]
        figures[f"{loss}_utilisation"] = used[loss] / seconds[loss] / peak if peak else None
    if device.type == "cuda":
        figures["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return figures


SMOLLM2 = GPTConfig(49152, 8192, n_layer=30, n_head=9, n_kv_head=3, n_shifted=0, n_embd=576, n_hidden=1536)
QWEN3_4B = GPTConfig(
    151936,
    40960,
    n_layer=36,
    n_head=32,
    n_kv_head=8,
    n_shifted=0,
    n_embd=2560,
    n_hidden=9728,
    head_size=128,
    qk_norm=True,
)
NEEDS = {
    "SmolLM2-135M, all weights": (SMOLLM2, 0),
    "SmolLM2-135M, LoRA 16": (SMOLLM2, 16),
    "Qwen3-4B, LoRA 16": (QWEN3_4B, 16),
}


def memory_table():
    """GB by part, of one example of 5,000 tokens (1,000 of them scored) in a micro-batch, blocks being recomputed."""
    table = {}
    for name, (config, rank) in NEEDS.items():
        parts = training_bytes(config, 1, 5000, 1000, rank)
        table[name] = {part: round(size / 1e9, 2) for part, size in (parts | {"all": sum(parts.values())}).items()}
    return table


def main():
    p = cli.Parser(prog="python -m perce_mini.experiments.bench", description=__doc__)
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    p.add_argument("--gpu", action="store_true", help="measure a 124 M model on a CUDA device instead")
    p.add_argument("--memory", action="store_true", help="say what pretrained models take instead, by arithmetic (GB)")
    p.add_argument("--rounds", type=cli.COUNT, default=10, help="times that every step is taken")
    p.add_argument("--batch-size", type=cli.COUNT, default=16, help="examples in the step")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    args = p.parse_args()
    if args.gpu and args.memory:
        p.error("--gpu and --memory exclude each other")
    device = pick_device("cuda" if args.gpu and args.device == "auto" else args.device)
    if args.gpu and device.type != "cuda":
        raise UserError(f"--gpu measures a CUDA device, not {device}")
    if args.json:
        check_writable(args.json)
    made = provenance()
    if args.memory:
        figures = memory_table()
    else:
        figures = utilisation(args, device) if args.gpu else measure(device, args.rounds, args.batch_size)
    for name, value in figures.items():
        if isinstance(value, (int, float)):
            value = f"{value:,.3f}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}"
        print(f"{name:26}", value)
    if args.json:
        write_text_atomic(args.json, dump(figures | made))


if __name__ == "__main__":
    cli.run(main)
