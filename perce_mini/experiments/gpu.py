"""What a step takes on a GPU: models of known shapes with random weights, against arithmetic."""

import statistics
import time

import torch
from tqdm import tqdm

from perce_mini import lora
from perce_mini.device import pick_device
from perce_mini.distributed import replicate
from perce_mini.experiments.bench import some_examples
from perce_mini.experiments.memory import forward_flops, training_bytes
from perce_mini.experiments.records import table
from perce_mini.model import GPT, GPTConfig
from perce_mini.trainer import Settings, make_optimizer, training_step

GPT2 = GPTConfig(50304, 1024, n_layer=12, n_head=12, n_kv_head=12, n_shifted=0, n_embd=768)
SMOLLM2 = GPTConfig(49152, 8192, n_layer=30, n_head=9, n_kv_head=3, n_shifted=0, n_embd=576, n_hidden=1536)
WIDE = {"n_embd": 2560, "n_hidden": 9728, "head_size": 128, "qk_norm": True}
QWEN3_4B = GPTConfig(151936, 40960, n_layer=36, n_head=32, n_kv_head=8, n_shifted=0, **WIDE)
SHORT, LONG = (640, 128, 256), (3900, 100, 1000)  # tokens of persona, query and response
CASES = {  # name: shape, rank of LoRA, examples in a step, their tokens, blocks are recomputed, and compiled
    "124 M": (GPT2, 0, 32, SHORT, False, False),
    "124 M, compiled": (GPT2, 0, 32, SHORT, False, True),
    "SmolLM2-135M, all weights": (SMOLLM2, 0, 1, LONG, True, False),
    "SmolLM2-135M, LoRA 16": (SMOLLM2, 16, 1, LONG, True, False),
    "Qwen3-4B, LoRA 16": (QWEN3_4B, 16, 1, LONG, True, False),
    "Qwen3-4B, LoRA 16, compiled": (QWEN3_4B, 16, 1, LONG, True, True),
}
WARM, ROUNDS, BOTH = 3, 10, ["ce", "perce"]


def measure_gpu(suite):
    """What a step takes on a GPU."""
    device = pick_device("cuda")
    peak, rows = peak_flops(device), {}
    for name, case in tqdm(CASES.items(), desc="gpu", dynamic_ncols=True):
        rows[name] = [figures(*case, peak, device)]
    short, long = (", ".join(f"{n:,}" for n in lengths) for lengths in [SHORT, LONG])
    caption = (
        f"Steps of CE and PerCE in turns, medians of {ROUNDS}, on one {torch.cuda.get_device_name(device)}. Tokens of"
        f" persona, query and response: {short} in 32 examples of 124 M; {long} in one, blocks recomputed, which is no"
        f" part of the share. The peak: {peak / 1e12:.0f} TFLOP/s in a product of two bfloat16 matrices."
    )
    return {"tables": [table(caption, rows[name][0], rows, digits=2, transposed=True)]}


def peak_flops(device):
    """Operations a second of a large product of two bfloat16 matrices: twice its multiply-adds."""
    n, seconds = 8192, []
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(10):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / statistics.median(seconds)


def figures(config, rank, n, lengths, recompute, compiled, peak, device):
    """{figure: value} of a model's steps."""
    torch.manual_seed(0)
    with device:
        model = GPT(config)
        if rank:
            model.to(torch.bfloat16)
            lora.add(model, rank)
    model.recompute = recompute
    if compiled:
        model.compile_blocks()
    seconds, most = steps_of(model, some_examples(n, *lengths, config.vocab_size))
    persona, query, scored = lengths
    length, plain = persona + query + scored - 1, query + scored - 1
    weights, between, head = (n * x for x in forward_flops(config, length, scored))
    needed = (3 - bool(rank)) * (weights + head) + 3 * between  # frozen weights have no gradient, attention has
    again, short = recompute * (weights + between), n * sum(forward_flops(config, plain, scored))
    by_arithmetic = training_bytes(config, n, length, n * scored, rank, recompute)
    return {
        "tokens/s, CE": round(n * length / seconds["ce"]),
        "share of the peak, CE": 2 * needed / seconds["ce"] / peak,
        "PerCE / CE, time": seconds["perce"] / seconds["ce"],
        "its floor by arithmetic": 1 + short / (needed + again),
        "GB, CE": most["ce"] / 1e9,
        "GB, PerCE": most["perce"] / 1e9,
        "GB by arithmetic": sum(by_arithmetic.values()) / 1e9,
    }


def steps_of(model, examples):
    """({loss: median seconds}, {loss: peak bytes}) of training steps of both losses, in turns."""
    settings, run = {loss: Settings(loss=loss, batch_size=len(examples)) for loss in BOTH}, replicate(model)
    optimizer, seconds, most = make_optimizer(model, settings["ce"]), {loss: [] for loss in BOTH}, {}
    for step in range(WARM + ROUNDS):
        for loss in BOTH:
            torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            training_step(run, model, optimizer, [examples], settings[loss], step)  # ends by reading its loss
            torch.cuda.synchronize()
            seconds[loss].append(time.perf_counter() - start)
            most[loss] = torch.cuda.max_memory_allocated()
    return {loss: statistics.median(values[WARM:]) for loss, values in seconds.items()}, most
