"""What the method costs: `python -m perce_mini.bench [--json FILE]`, from the project's folder.

All times of a kind are taken in turns within one run, and only their ratios mean anything: medians over
rounds. The shape is that of the default data: 16 examples, each 300 persona, 12 query and 65 response tokens.
"""

import json
import random
import statistics
import time
import weakref
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from perce_mini import checkpoint, cli
from perce_mini.dataset import Example, collate, size, training_steps
from perce_mini.model import GPT, GPTConfig
from perce_mini.percontrast import LOSSES, perce_loss, token_logprobs
from perce_mini.rouge import lcs_length
from perce_mini.trainer import backward

PERSONA, QUERY, RESPONSE = 300, 12, 65


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
    head_size = config.n_embd // config.n_head
    attention = config.n_embd * head_size * (2 * config.n_head + 2 * config.n_kv_head)
    block = attention + 3 * config.n_embd * config.n_hidden + config.n_embd * length  # causal: half of 2 T C
    return length * config.n_layer * block + scored * config.n_embd * config.vocab_size


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


def measure(args, device):
    dice = random.Random(0)
    config = GPTConfig(2048)
    torch.manual_seed(0)
    model = GPT(config).to(device)
    some = lambda n: [dice.randrange(2048) for _ in range(n)]
    examples = [Example({}, some(PERSONA), some(QUERY), some(RESPONSE), []) for _ in range(args.batch_size)]
    batch = collate(examples, device)
    n_tokens = sum(map(size, examples))

    def step(loss):
        model.zero_grad()
        backward(model, [batch], {"loss": loss, "clip_min": 0.8, "clip_max": 5.0}, device)

    def naive():
        model.zero_grad()
        naive_step(model, batch)

    steps = {loss: lambda loss=loss: step(loss) for loss in LOSSES} | {"naive": naive}
    seconds = times(steps, args.rounds, device, "training steps")
    peak = {}
    for name in ["ce", "perce", "naive"]:
        model.zero_grad()
        with PeakMemory() as memory:
            steps[name]()
        peak[name] = memory.peak

    loader = training_steps(examples * 64, args.batch_size, 1, seed=0)
    load = times({"load": lambda: collate(next(loader)[0], device)}, args.rounds, device, "loader")["load"]
    words = [[str(dice.randrange(150)) for _ in range(500)] for _ in range(2)]
    lcs = times({"bits": lambda: lcs_length(*words), "table": lambda: quadratic_lcs(*words)}, 5, device, "ROUGE-L")
    prompts, new = [e.persona + e.query for e in examples[:8]], 64
    both = {"cached": lambda: model.generate(prompts, new, end_id=-1), "uncached": lambda: uncached(model, prompts, new)}
    generate = times(both, 2, device, "generation")

    persona, plain = PERSONA + QUERY + RESPONSE - 1, QUERY + RESPONSE - 1
    ce = seconds["ce"]
    return {
        "device": str(device),
        "perce_over_ce": seconds["perce"] / ce,
        "floor_over_ce": 1 + forward_flops(config, plain, RESPONSE) / (3 * forward_flops(config, persona, RESPONSE)),
        "naive_over_ce": seconds["naive"] / ce,
        "lossce_over_ce": seconds["lossce"] / ce,
        "entce_over_ce": seconds["entce"] / ce,
        "perce_memory_over_ce": peak["perce"] / peak["ce"],
        "naive_memory_over_ce": peak["naive"] / peak["ce"],
        "rouge_speedup": lcs["table"] / lcs["bits"],
        "cache_speedup": generate["uncached"] / generate["cached"],
        "loader_over_trainer": ce / load,
        "loader_tokens_per_s": n_tokens / load,
        "ce_tokens_per_s": n_tokens / ce,
        "perce_tokens_per_s": n_tokens / seconds["perce"],
        "ce_peak_mb": peak["ce"] / 2**20,
    }


def main():
    p = cli.Parser(prog="python -m perce_mini.bench", description=__doc__)
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    p.add_argument("--rounds", type=int, default=10, help="times that every step is taken (default 10)")
    p.add_argument("--batch-size", type=int, default=16, help="examples in the step (default 16)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    args = p.parse_args()
    if args.rounds < 1 or args.batch_size < 1:
        p.error("--rounds and --batch-size must be above 0")
    figures = measure(args, cli.pick_device(args.device))
    for name, value in figures.items():
        print(f"{name:24}", value if isinstance(value, str) else f"{value:,.3f}" if value < 1000 else f"{value:,.0f}")
    if args.json:
        checkpoint.replace_file(args.json, lambda new: Path(new).write_text(json.dumps(figures, indent=1) + "\n"))


if __name__ == "__main__":
    cli.run(main)
