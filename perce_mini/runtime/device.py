"""Pick a device and a precision, and choose batches that fit in the device's memory."""

import sys

import torch

from perce_mini.runtime.errors import UserError


def pick_device(name):
    """The torch.device; "auto" picks CUDA, else MPS, else the CPU.

    Raises UserError if the device is not available.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind in available if available[kind])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: use auto, cpu, cuda, cuda:1 or mps") from None
    n_devices = max(1, torch.cuda.device_count())
    if not available.get(device.type, False) or (device.index or 0) >= n_devices:
        raise UserError(f"--device {name} is not available on this machine")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for float32 matrix products
    return device


def autocast(device):
    """A context that computes in bfloat16 if the GPU supports it; the weights stay in float32."""
    supported = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=supported)


def in_batches(items, batch_size, compute):
    """Yield (batch, compute(batch, start)) for each batch of the list in turn.

    If a batch does not fit in GPU memory, the batch size is halved from then on.
    """
    start = 0
    while start < len(items):
        batch = items[start : start + batch_size]
        try:
            result = compute(batch, start)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            batch_size = len(batch) // 2
            note = f"not enough memory for a batch of {len(batch)} examples; trying {batch_size}"
            print(f"\n{note}", file=sys.stderr)
            continue
        yield batch, result
        start += len(batch)
