"""A small GPT, from scratch: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    x = embedding(ids)                   ids (B, T) -> x (B, T, C)
    n_layer times:
        x = x + attention(norm(x))       look at earlier tokens
        x = x + mlp(norm(x))             transform each token separately
    logits = norm(x) @ embedding.T       (B, T, V), the scores for the next token

Positions enter only as rotations of queries and keys, so attention depends on relative positions,
not on absolute ones. Removing the persona from the front of the prompt does not change the relative
positions of the remaining tokens.

One thing is unusual. To copy from its context, for example to continue "My sister" with "Kira" if
the prompt mentions "My sister Kira", a model must find what FOLLOWED the words it has just read.
Large models learn a pair of attention heads for this from billions of tokens. This model sees too
few tokens for that, so half of its key heads are shifted by one position: each token is looked up
by the key of the token before it ("smeared keys", Olsson et al. 2022, arXiv 2209.11895).
`n_shifted=0` gives the standard model.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


@dataclass
class GPTConfig:
    vocab_size: int
    block_size: int = 512  # maximum sequence length in tokens
    n_layer: int = 4
    n_head: int = 4
    n_kv_head: int = 2  # n_head / n_kv_head query heads share one head of keys and values
    n_shifted: int = 1  # number of key heads that are shifted by one token
    n_embd: int = 128
    n_hidden: int = 0  # width of the MLP; 0: 8/3 of n_embd, rounded to a multiple of 8
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    # Only pretrained models set these:
    head_size: int = 0  # width of a head, even; 0: n_embd / n_head
    qk_norm: bool = False  # RMSNorm on every query and key (Qwen3)
    qkv_bias: bool = False  # biases in the query, key and value projections (Qwen2)
    tied: bool = True  # the output embedding is the input embedding
    rope_factor: float = 1.0  # Llama 3.1 slows rotations by this factor (stretch_rotations)
    rope_low: float = 1.0
    rope_high: float = 4.0
    rope_original: float = 8192.0

    def __post_init__(self):
        self.n_hidden = self.n_hidden or round(self.n_embd / 3) * 8
        if self.n_head % self.n_kv_head or (not self.head_size and self.n_embd % (2 * self.n_head)):
            raise ValueError(
                f"n_embd {self.n_embd} must be an even multiple of n_head {self.n_head},"
                f" and n_head a multiple of n_kv_head {self.n_kv_head}"
            )
        self.head_size = self.head_size or self.n_embd // self.n_head
        if self.head_size % 2:
            raise ValueError(
                f"head_size {self.head_size} must be even: rotary positions rotate pairs"
            )
        if not 0 <= self.n_shifted <= self.n_kv_head:
            raise ValueError(f"n_shifted {self.n_shifted} must be between 0 and {self.n_kv_head}")


def rotary_table(positions, config):
    """Return cos and sin (..., head_size / 2) of the angles position * theta^(-2i / head_size)
    (RoPE, arXiv 2104.09864)."""
    exponents = torch.arange(0, config.head_size, 2, device=positions.device).float()
    speeds = config.rope_theta ** (-exponents / config.head_size)
    if config.rope_factor != 1:
        speeds = stretch_rotations(speeds, config)
    angle = positions.float()[..., None] * speeds
    return angle.cos(), angle.sin()


def stretch_rotations(speeds, config):
    """Slow down rotations as Llama 3.1 does, to read texts longer than rope_original tokens.

    Rotations that turn less than rope_low times within rope_original tokens become rope_factor
    times slower. Those that turn more than rope_high times stay unchanged, and those in between are
    interpolated.
    """
    turns = config.rope_original * speeds / (2 * math.pi)
    kept = ((turns - config.rope_low) / (config.rope_high - config.rope_low)).clamp(0, 1)
    return kept * speeds + (1 - kept) * speeds / config.rope_factor


def rotate(x, cos, sin):
    """Rotate the pairs (x_i, x_{i + head_size/2}) of x (B, heads, T, head_size) by the angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).type_as(x)


@dataclass
class KVCache:
    """What an attention layer stores about the earlier tokens."""

    keys: torch.Tensor  # (B, n_kv_head, capacity, head_size), filled up to `length`
    values: torch.Tensor  # the same shape
    last_unshifted_keys: torch.Tensor  # (B, n_shifted, 1, head_size), for the next token
    length: int


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.n_shifted, self.head_size = config.n_shifted, config.head_size
        self.q = nn.Linear(config.n_embd, config.n_head * self.head_size, bias=config.qkv_bias)
        self.k = nn.Linear(config.n_embd, config.n_kv_head * self.head_size, bias=config.qkv_bias)
        self.v = nn.Linear(config.n_embd, config.n_kv_head * self.head_size, bias=config.qkv_bias)
        self.out = nn.Linear(config.n_head * self.head_size, config.n_embd, bias=False)
        self.norm_q = self.norm_k = nn.Identity()
        if config.qk_norm:
            self.norm_q = nn.RMSNorm(self.head_size, eps=config.norm_eps)
            self.norm_k = nn.RMSNorm(self.head_size, eps=config.norm_eps)

    def init_shifted_queries(self):
        """Initialise the shifted heads' queries from their keys: tokens attend to similar ones."""
        k = self.k.weight.data.view(self.n_kv_head, self.head_size, -1)[: self.n_shifted]
        q = self.q.weight.data.view(self.n_kv_head, -1, self.head_size, k.shape[-1])
        q[: self.n_shifted] = 2 * k[:, None]

    def forward(self, x, cos, sin, cache=None, mask=None):
        """x (B, T, C); cos, sin (T, head_size / 2), or (B, 1, T, head_size / 2).

        cache: for the P earlier tokens, with capacity for T more. mask (B, 1, T, P + T): True where
        a query may attend; None means causal. Returns (B, T, C) and the new cache, whose
        last_unshifted_keys still contain the keys of all T tokens.
        """
        B, T, _ = x.shape
        q = self.q(x).view(B, T, self.n_head, self.head_size).transpose(1, 2)
        k = self.k(x).view(B, T, self.n_kv_head, self.head_size).transpose(1, 2)
        v = self.v(x).view(B, T, self.n_kv_head, self.head_size).transpose(1, 2)
        q, k = self.norm_q(q), self.norm_k(k)
        unshifted, rest = k[:, : self.n_shifted], k[:, self.n_shifted :]
        if cache is None:
            before = unshifted.new_zeros(B, self.n_shifted, 1, self.head_size)
        else:
            before = cache.last_unshifted_keys
        shifted = torch.cat([before, unshifted[:, :, :-1]], dim=2)
        k = torch.cat([shifted, rest], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        new = KVCache(k, v, unshifted, T)
        if cache is not None:
            new = KVCache(cache.keys, cache.values, unshifted, cache.length + T)
            new.keys[:, :, cache.length : new.length] = k
            new.values[:, :, cache.length : new.length] = v
            k, v = new.keys[:, :, : new.length], new.values[:, :, : new.length]
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
        return self.out(y.transpose(1, 2).reshape(B, T, -1)), new


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm_attention = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.attention = Attention(config)
        self.norm_mlp = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.gate = nn.Linear(config.n_embd, config.n_hidden, bias=False)
        self.up = nn.Linear(config.n_embd, config.n_hidden, bias=False)
        self.down = nn.Linear(config.n_hidden, config.n_embd, bias=False)

    def forward(self, x, cos, sin, cache=None, mask=None):
        y, cache = self.attention(self.norm_attention(x), cos, sin, cache, mask)
        x = x + y
        y = self.norm_mlp(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), cache


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.output = None
        if not config.tied:
            self.output = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.recompute = False  # recompute activations in the backward pass to save memory
        if not self.embedding.weight.is_meta:  # otherwise the weights come from a file
            self.init_weights()

    def init_weights(self):
        nn.init.normal_(self.embedding.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for block in self.blocks:  # blocks initially add little to the residual stream
            for layer in (block.attention.out, block.down):
                layer.weight.data /= (2 * self.config.n_layer) ** 0.5
            block.attention.init_shifted_queries()

    @property
    def head(self):
        """The output embedding (V, C): the same tensor as the input embedding if they are tied."""
        return self.embedding.weight if self.config.tied else self.output.weight

    def forward(self, ids, target_positions=None):
        """ids (B, T) int64, padded on the right -> logits (B, T, V).

        target_positions (N,) int64: indices into ids.flatten(). If given, only the logits at these
        positions are computed (N, V). With a large vocabulary the logits are by far the largest
        tensor of a training step, and the loss needs only those of the response.
        """
        hidden, _ = self.forward_cached(ids, torch.arange(ids.shape[1], device=ids.device))
        if target_positions is not None:
            hidden = hidden.flatten(0, 1)[target_positions]
        return F.linear(hidden, self.head)

    def forward_cached(self, ids, positions, caches=None, mask=None):
        """ids (B, T) at positions (T,) or (B, 1, T) -> hidden (B, T, C), one cache per layer."""
        cos, sin = rotary_table(positions, self.config)
        x, new_caches = self.embedding(ids), []
        for i, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x, _ = checkpoint(block, x, cos, sin, use_reentrant=False)
            else:
                x, cache = block(x, cos, sin, caches[i] if caches else None, mask)
                new_caches.append(cache)
        return self.norm(x), new_caches

    def n_parameters(self):
        return sum(p.numel() for p in self.parameters())

    def compile_blocks(self):
        """Compile each block: faster to compile than the whole model, and nearly as fast to run."""
        for block in self.blocks:
            block.compile(dynamic=True)

    @torch.no_grad()
    def generate(self, prompts, max_new_tokens, end_id, temperature=0.0, seed=0):
        """Continue prompts (lists of ids, any lengths >= 1) until `end_id` or `max_new_tokens`.

        temperature 0 picks the most likely token. The same seed and prompts give the same texts.
        Returns one list of new ids per prompt, without `end_id`.
        """
        rng = torch.Generator(self.head.device).manual_seed(seed)
        hidden, caches, real, lengths = self.read_prompts(prompts, max_new_tokens)
        replies = [[] for _ in prompts]
        live = list(range(len(prompts)))  # prompts whose texts are unfinished
        for n in range(max_new_tokens):
            new = sample(F.linear(hidden, self.head).float(), temperature, rng)
            unfinished = (new != end_id).nonzero()[:, 0]
            for row in unfinished.tolist():
                replies[live[row]].append(int(new[row]))
            if len(unfinished) == 0 or n + 1 == max_new_tokens:
                break
            if len(unfinished) < len(live):  # remove finished rows from the batch
                live = [live[row] for row in unfinished.tolist()]
                new, real, lengths = new[unfinished], real[unfinished], lengths[unfinished]
                for layer in caches:
                    layer.keys, layer.values = layer.keys[unfinished], layer.values[unfinished]
                    layer.last_unshifted_keys = layer.last_unshifted_keys[unfinished]
            real = F.pad(real, (0, 1), value=True)
            position = (lengths + n)[:, None, None]  # of the new token in each row
            mask = real[:, None, None]
            hidden, caches = self.forward_cached(new[:, None], position, caches, mask)
            hidden = hidden[:, 0]
        return replies

    def read_prompts(self, prompts, capacity):
        """Run the prompts, padded on the right to T slots, and add `capacity` slots for new tokens.

        Real tokens never attend to padding. Returns the last hidden state of each prompt (B, C),
        the caches, a mask of the slots with real tokens (B, T), and the lengths (B,).
        """
        device = self.head.device
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        T, last = int(lengths.max()), lengths - 1
        ids = torch.tensor([p + [0] * (T - len(p)) for p in prompts], device=device)
        rows = torch.arange(len(prompts), device=device)
        hidden, caches = self.forward_cached(ids, torch.arange(T, device=device))
        for layer in caches:
            layer.keys = F.pad(layer.keys, (0, 0, 0, capacity))
            layer.values = F.pad(layer.values, (0, 0, 0, capacity))
            layer.last_unshifted_keys = layer.last_unshifted_keys[rows, :, last][:, :, None]
        real = torch.arange(T, device=device) < lengths[:, None]
        return hidden[rows, last], caches, real, lengths


def sample(logits, temperature, rng):
    """Draw a token id for each row of logits (B, V) from softmax(logits / temperature)."""
    if temperature < 0.01:  # dividing by much less would overflow float32
        return logits.argmax(-1)
    sums = (logits / temperature).softmax(-1).double().cumsum(-1)
    size = (len(sums), 1)
    point = torch.rand(size, dtype=torch.float64, device=sums.device, generator=rng) * sums[:, -1:]
    return torch.searchsorted(sums, point, right=True)[:, 0]
