"""What a step computes and holds, counted: by arithmetic, and by watching every tensor that is made."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from perce_mini import lora
from perce_mini.head import ROWS
from perce_mini.model import GPT


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


def peak_of(step):
    with PeakMemory() as memory:
        step()
    return memory.peak


def forward_flops(config, length, scored):
    """Multiply-adds of one forward of `length` tokens: in the blocks' weights, between tokens, and in the head, which
    `scored` of them go through."""
    projections = config.n_embd * config.head_size * (2 * config.n_head + 2 * config.n_kv_head)
    weights = length * config.n_layer * (projections + 3 * config.n_embd * config.n_hidden)
    between = length * config.n_layer * config.n_head * config.head_size * length  # causal: half of 2 T C
    return weights, between, scored * config.n_embd * config.vocab_size


def training_bytes(config, batch, length, scored, lora_rank=0, recompute=True, cast=True):
    """What a PerCE step needs, by arithmetic: {part: bytes}. `scored` response tokens in all.

    cast: compute in bfloat16. Weights are float32, or bfloat16 where they are frozen beside LoRA and `cast`.
    """
    with torch.device("meta"):
        model = GPT(config)
        if lora_rank:
            lora.add(model, lora_rank)
    n, trained = model.n_parameters(), sum(p.numel() for p in model.parameters() if p.requires_grad)
    low, stream = (2, 2 if lora_rank else 4) if cast else (4, 4)  # bytes of a number in a layer, between layers
    heads, shared = config.n_head * config.head_size, config.n_kv_head * config.head_size
    inside = low * (2 * config.n_embd + 4 * heads + 4 * shared + 4 * config.n_hidden)
    a_block = 2 * stream * config.n_embd + inside  # what backward reads, a token
    gradients = 3 * low * config.n_hidden  # what it writes meanwhile, in the MLP of one block
    blocks = config.n_layer * stream * config.n_embd + a_block if recompute else config.n_layer * a_block
    logits = min(scored, ROWS) * config.vocab_size * (16 if cast else 12)  # of one slice, and what becomes of them
    return {
        "weights": (n - trained) * low + trained * 4 + (trained * 2 if cast else 0),
        "gradients": 4 * trained,
        "AdamW": 8 * trained,
        "activations": batch * length * (blocks + gradients),
        "head": logits + (0 if lora_rank else 4 * config.n_embd * config.vocab_size),
    }
