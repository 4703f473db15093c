"""LoRA (arXiv 2106.09685): train y = W x + 2 B A x with W frozen.

W (out, in) does not change. A (rank, in) is initialised randomly and B (out, rank) with zeros, so
training starts from the unchanged model. Only A and B need gradients and optimiser state. At rank
16, they amount to less than 1 % of the weights of a 4B model.
"""

from functools import partial

import torch
from torch import nn

SCALE = 2.0


class LoRA(nn.Module):
    """A frozen linear layer and its adapter."""

    def __init__(self, layer, rank, device=None):
        super().__init__()
        self.layer = layer
        device = device or layer.weight.device
        options = {"bias": False, "device": device, "dtype": torch.float32}
        self.a = nn.Linear(layer.in_features, rank, **options)
        self.b = nn.Linear(rank, layer.out_features, **options)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        update = self.b(self.a(x.to(self.a.weight.dtype)))
        return self.layer(x) + SCALE * update.to(x.dtype)

    @torch.no_grad()
    def merged(self):
        """Return the layer with W + 2 B A in float32: bfloat16 would round small updates away."""
        self.layer.float()
        self.layer.weight += SCALE * self.b.weight @ self.a.weight
        return self.layer


def replace_layers(model, kind, make_new):
    """Replace every layer of the given kind in the blocks with make_new(layer)."""
    for parent in list(model.blocks.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, kind):
                setattr(parent, name, make_new(layer))


def add(model, rank, device=None):
    """Freeze the model and add an adapter to every linear layer of its blocks.

    device: the adapters' device (default: that of each layer).
    """
    model.requires_grad_(False)
    replace_layers(model, nn.Linear, partial(LoRA, rank=rank, device=device))


def adapters(model):
    """Return {name: weight} for the adapters, which are the only trainable weights."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def merge(model):
    """Merge the adapters, if any, into the weights, and make all weights trainable and float32."""
    if any(isinstance(module, LoRA) for module in model.modules()):
        replace_layers(model, LoRA, LoRA.merged)
        model.float().requires_grad_(True)
