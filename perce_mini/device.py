"""Where tensors live, and how precisely they are multiplied there."""

import torch

from perce_mini.errors import UserError


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
