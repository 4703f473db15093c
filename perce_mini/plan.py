"""Says before the work about how long it will take."""

import math
import time

import torch

from perce_mini.device import autocast


def seconds_per_example(model, length, device):
    """The time of a training step here, for an example of `length` tokens."""
    ids = torch.zeros(max(1, 2048 // length), length, dtype=torch.long, device=device)
    seconds = 0
    for _ in range(3):  # the first ones warm up
        if seconds < 5:
            start = time.perf_counter()
            with autocast(device):
                model(ids).float().logsumexp(-1).sum().backward()
            next(p for p in model.parameters() if p.requires_grad).grad.sum().item()  # waits for the device
            seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds / len(ids)


def print_plan(tasks, model, device):
    """tasks: [(what, how many examples it reads), ...]; model: one of the size that will be trained."""
    per_example = seconds_per_example(model, min(384, model.config.block_size), device)
    print(f"on {device}, with {model.n_parameters() / 1e6:.2f} M parameters:")
    for i, (what, n_examples) in enumerate(tasks, start=1):
        seconds = n_examples * per_example
        duration = f"{math.ceil(seconds / 10) * 10} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        print(f"  {i}. {what} (about {duration})")
