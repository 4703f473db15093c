"""What the method costs: `python -m perce_mini.experiments.bench [--json FILE]`, from the project's folder.

All times of a kind are taken in turns within one run, and only their ratios mean anything: medians over rounds. The
shape: 16 examples, each 300 persona, 12 query and 65 response tokens.

    --gpu       tokens/s and model FLOP utilisation of a 124 M model (length 1,024, bfloat16, compiled) on a CUDA device
    --memory    by arithmetic alone: what fine-tuning pretrained models takes
"""

import random
from functools import partial
from pathlib import Path

import torch

from perce_mini import cli
from perce_mini.dataset import collate, size, training_steps
from perce_mini.device import pick_device
from perce_mini.distributed import replicate
from perce_mini.errors import UserError
from perce_mini.experiments.memory import PeakMemory, forward_flops, memory_table
from perce_mini.experiments.records import dump, provenance
from perce_mini.experiments.speed import some_examples, speed, times
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
    "ours_over_nanogpt_2048": "tokens/s over nanoGPT's shape, all scored, vocabulary 2,048",
    "ours_over_nanogpt_50304": "tokens/s over nanoGPT's shape, all scored, vocabulary 50,304",
    "ours_over_nanogpt_151936": "tokens/s over nanoGPT's shape, all scored, vocabulary 151,936",
    "perce_over_ce_2048": "PerCE / CE, AdamW included, 3/8 scored, vocabulary 2,048",
    "floor_over_ce_2048": "its floor, head included, vocabulary 2,048",
    "perce_over_ce_50304": "PerCE / CE, AdamW included, 3/8 scored, vocabulary 50,304",
    "floor_over_ce_50304": "its floor, head included, vocabulary 50,304",
    "perce_over_ce_151936": "PerCE / CE, AdamW included, 3/8 scored, vocabulary 151,936",
    "floor_over_ce_151936": "its floor, head included, vocabulary 151,936",
    "perce_memory_over_ce_151936": "PerCE / CE, peak memory, vocabulary 151,936",
    "loader_over_trainer": "loader's tokens/s / trainer's",
}


def naive_step(model, batch):
    """PerCE as first written down: logits of every position, in both views."""

    def logp(view):
        labels = torch.full((view.ids.numel(),), -100, device=view.ids.device).scatter(0, view.at, batch.labels)
        return token_logprobs(model(view.ids), labels.view_as(view.ids))

    with torch.no_grad():
        plain = logp(batch.plain)
    perce_loss(logp(batch.persona), plain).backward()


def take_step(model, batch, loss):
    """Forward and backward of one of LOSSES, or of the "naive" PerCE."""
    model.zero_grad()
    if loss == "naive":
        naive_step(model, batch)
    else:
        backward(replicate(model), model, batch, Settings(loss), len(batch.labels))


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


def measure_steps(model, examples, rounds, device):
    """Steps of every loss against CE's: time, memory, tokens/s; and the loader's against the trainer's."""
    batch, config = collate(examples, device), model.config
    steps = {name: partial(take_step, model, batch, name) for name in [*LOSSES, "naive"]}
    seconds, peak = times(steps, rounds, device, "training steps"), {}
    for name, take in steps.items():
        model.zero_grad()
        with PeakMemory() as memory:
            take()
        peak[name] = memory.peak
    loader = training_steps(examples * 64, len(examples), 1, seed=0)
    load = times({"load": lambda: collate(next(loader)[0], device)}, rounds, device, "loader")["load"]
    persona, plain = PERSONA + QUERY + RESPONSE - 1, QUERY + RESPONSE - 1
    others = [name for name in steps if name != "ce"]
    return {
        "floor_over_ce": 1 + forward_flops(config, plain, RESPONSE) / (3 * forward_flops(config, persona, RESPONSE)),
        **{f"{name}_over_ce": seconds[name] / seconds["ce"] for name in others},
        **{f"{name}_memory_over_ce": peak[name] / peak["ce"] for name in others},
        **{f"{name}_tokens_per_s": sum(map(size, examples)) / seconds[name] for name in steps},
        "ce_peak_mb": peak["ce"] / 2**20,
        "loader_over_trainer": seconds["ce"] / load,
    }


def measure_rest(model, examples, device):
    """ROUGE-L and generation, against their slow forms."""
    rng = random.Random(0)
    words = [[str(rng.randrange(150)) for _ in range(500)] for _ in range(2)]
    lcs = times({"bits": lambda: lcs_length(*words), "table": lambda: quadratic_lcs(*words)}, 5, device, "ROUGE-L")
    prompts, new = [e.persona + e.query for e in examples[:8]], 64
    cached, slow = partial(model.generate, prompts, new, end_id=-1), partial(uncached, model, prompts, new)
    generate = times({"cached": cached, "uncached": slow}, 2, device, "generation")
    return {"rouge_speedup": lcs["table"] / lcs["bits"], "cache_speedup": generate["uncached"] / generate["cached"]}


def measure(device, rounds=10, batch_size=16):
    """{name: ratio or figure} of a model of the default shape, and of vocabularies of all sizes."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(2048)).to(device)
    examples = some_examples(batch_size, PERSONA, QUERY, RESPONSE, model.config.vocab_size)
    figures = {"device": str(device)} | measure_steps(model, examples, rounds, device)
    figures |= measure_rest(model, examples, device)
    return figures | (speed(rounds) if device.type == "cpu" else {})


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

    steps = {loss: partial(take_step, model, batch, loss) for loss in ["ce", "perce"]}
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
