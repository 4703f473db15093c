"""Where tensors live, how precisely they are multiplied there, and how long that takes."""

import math
import time

import torch

from perce_mini.errors import UserError
from perce_mini.head import backward_in_slices


def pick_device(name):
    """ "auto" -> CUDA, else MPS, else CPU; any other name as it is. Raises UserError for one that is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in available if available[kind])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: not a device; use auto, cpu, cuda, cuda:1 or mps") from None
    if not available.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise UserError(f"--device {name}: not available on this machine")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # what is left in float32 is multiplied as TF32
    return device


def autocast(device):
    """Compute in bfloat16 where the device is good at it (weights stay float32)."""
    good = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=good)


def seconds_per_example(model, length, device):
    """The time of a training step here, for an example of `length` tokens."""
    ids = torch.zeros(max(1, 2048 // length), length, dtype=torch.long, device=device)
    seconds = 0
    for _ in range(3):  # the first ones warm up
        if seconds < 5:
            start = time.perf_counter()
            with autocast(device):
                hidden = model.hidden(ids).flatten(0, 1)[::4]  # every fourth token is of a response
                backward_in_slices(lambda logp, logits, at: logp.sum(), hidden, model.head, ids.flatten()[::4])
            next(p for p in model.parameters() if p.requires_grad).grad.sum().item()  # waits for the device
            seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds / len(ids)


def print_plan(tasks, model, device):
    """tasks: [(what, how many examples it reads), ...]; model: one of the size that will be trained."""
    per_example = seconds_per_example(model, min(512, model.config.block_size), device)
    print(f"on {device}, with {model.n_parameters() / 1e6:.2f} M parameters:")
    for i, (what, n_examples) in enumerate(tasks, start=1):
        seconds = n_examples * per_example
        duration = f"{math.ceil(seconds / 10) * 10} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        print(f"  {i}. {what} (about {duration})")
