"""The device to compute on, and the precision."""

import torch

from perce_mini.runtime.errors import UserError


def pick_device(name):
    """ "auto" picks CUDA, else MPS, else the CPU. Raises UserError for a device that is missing."""
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
        torch.set_float32_matmul_precision("high")  # TF32 for products that stay in float32
    return device


def autocast(device):
    """A context that computes in bfloat16 on a GPU that supports it; weights stay float32."""
    supported = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=supported)
