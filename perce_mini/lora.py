"""LoRA (arXiv 2106.09685): train a small step beside frozen weights, y = W x + 2 B A x.

W (out, in) stays as it is; A (rank, in) starts random and B (out, rank) at 0, so a model starts as what it was.
Gradients and optimiser state are then needed for A and B only: of a 4 B model with rank 16 that is less than 1 % of
the weights.
"""

from functools import partial

import torch
from torch import nn

SCALE = 2.0


class LoRA(nn.Module):
    def __init__(self, layer, rank):
        super().__init__()
        self.layer = layer
        device = layer.weight.device
        self.a = nn.Linear(layer.in_features, rank, bias=False, device=device, dtype=torch.float32)
        self.b = nn.Linear(rank, layer.out_features, bias=False, device=device, dtype=torch.float32)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        step = self.b(self.a(x.to(self.a.weight.dtype)))
        return self.layer(x) + SCALE * step.to(x.dtype)

    @torch.no_grad()
    def merged(self):
        """The layer with W + 2 B A."""
        self.layer.weight += (SCALE * self.b.weight @ self.a.weight).to(self.layer.weight.dtype)
        return self.layer


def replace_layers(model, kind, new):
    """Put new(layer) in the place of every layer of this kind in the blocks."""
    for parent in list(model.blocks.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, kind):
                setattr(parent, name, new(layer))


def add(model, rank):
    """Freeze the model and put a step of `rank` beside every linear layer of its blocks."""
    model.requires_grad_(False)
    replace_layers(model, nn.Linear, partial(LoRA, rank=rank))


def merge(model):
    """Add the steps to the weights, and let all weights be trained again."""
    replace_layers(model, LoRA, LoRA.merged)
    model.requires_grad_(True)
