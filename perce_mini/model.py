"""A small GPT, from scratch: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embedding.

    ids (B, T) -> embedding -> n_layer x [x + attention(norm(x)), x + mlp(norm(x))] -> norm -> hidden (B, T, C)
    logits (B, T, V) = hidden @ embedding.T

Positions enter only as rotations of queries and keys, so attention sees distances, never places: taking the persona
away from the front of a sequence changes no token's relation to the tokens that remain.

One thing is not from the textbook. To copy from context (after "My sister Kira", "My sister" goes on with "Kira"), a
model must find what FOLLOWED the words that it just read. Large models learn a pair of attention heads for that from
billions of tokens; this one sees too few. So half of the key heads here are shifted by one: a token is found by the one
before it ("smeared keys", Olsson et al. 2022, arXiv 2209.11895). `n_shifted=0` is the textbook.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


@dataclass
class GPTConfig:
    vocab_size: int
    block_size: int = 512  # the longest sequence that training shows, in tokens
    n_layer: int = 4
    n_head: int = 4
    n_kv_head: int = 2  # keys and values are shared by n_head / n_kv_head query heads
    n_shifted: int = 1  # of these, those whose keys are the previous token's
    n_embd: int = 128
    n_hidden: int = 0  # width of the MLP; 0: 8/3 of n_embd, rounded to a multiple of 8
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    # What pretrained models have otherwise:
    head_size: int = 0  # width of a head, even; 0: n_embd / n_head
    qk_norm: bool = False  # RMSNorm on every query and key (Qwen3)
    tied: bool = True  # the output embedding is the input embedding

    def __post_init__(self):
        self.n_hidden = self.n_hidden or round(self.n_embd / 3) * 8
        if self.n_head % self.n_kv_head or (not self.head_size and self.n_embd % (2 * self.n_head)):
            raise ValueError(
                f"n_embd {self.n_embd} must be an even multiple of n_head {self.n_head},"
                f" and n_head a multiple of n_kv_head {self.n_kv_head}"
            )
        self.head_size = self.head_size or self.n_embd // self.n_head
        if self.head_size % 2:
            raise ValueError(f"head_size {self.head_size} must be even: positions turn pairs of numbers")
        if not 0 <= self.n_shifted <= self.n_kv_head:
            raise ValueError(f"n_shifted {self.n_shifted} must be from 0 to n_kv_head {self.n_kv_head}")


def rotary_table(positions, head_size, theta):
    """cos and sin (..., head_size / 2) of the angle position * theta^(-2i / head_size) (RoPE, arXiv 2104.09864)."""
    frequency = theta ** (-torch.arange(0, head_size, 2, device=positions.device).float() / head_size)
    angle = positions.float()[..., None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Turn the pairs (x_i, x_{i + head_size/2}) of x (B, heads, T, head_size) by the table's angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).type_as(x)


@dataclass
class KVCache:
    """What an attention layer keeps of the tokens before."""

    keys: torch.Tensor  # (B, n_kv_head, room, head_size), filled up to `length`
    values: torch.Tensor  # the same
    own: torch.Tensor  # (B, n_shifted, 1, head_size): the last token's unshifted keys, the next position's shifted ones
    length: int


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.n_kv_head, self.n_shifted = config.n_head, config.n_kv_head, config.n_shifted
        self.head_size = config.head_size
        self.q = nn.Linear(config.n_embd, config.n_head * self.head_size, bias=False)
        self.k = nn.Linear(config.n_embd, config.n_kv_head * self.head_size, bias=False)
        self.v = nn.Linear(config.n_embd, config.n_kv_head * self.head_size, bias=False)
        self.out = nn.Linear(config.n_head * self.head_size, config.n_embd, bias=False)
        self.norm_q = nn.RMSNorm(self.head_size, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.norm_k = nn.RMSNorm(self.head_size, eps=config.norm_eps) if config.qk_norm else nn.Identity()

    def init_shifted_queries(self):
        """Start the queries of shifted keys as those keys' own projection: a token then looks for its own kind."""
        k = self.k.weight.data.view(self.n_kv_head, self.head_size, -1)[: self.n_shifted]
        q = self.q.weight.data.view(self.n_kv_head, -1, self.head_size, k.shape[-1])
        q[: self.n_shifted] = 2 * k[:, None]

    def forward(self, x, cos, sin, cache=None, mask=None):
        """x (B, T, C); cos, sin (T or B x 1 x T, head_size / 2).

        cache: of the P tokens before, with room for T more. mask (B, 1, T, P + T): True where a query may look; None:
        causal. Returns (B, T, C) and the new cache, whose `own` still holds the unshifted keys of all T tokens.
        """
        B, T, _ = x.shape
        q = self.q(x).view(B, T, self.n_head, self.head_size).transpose(1, 2)
        k = self.k(x).view(B, T, self.n_kv_head, self.head_size).transpose(1, 2)
        v = self.v(x).view(B, T, self.n_kv_head, self.head_size).transpose(1, 2)
        q, k = self.norm_q(q), self.norm_k(k)
        own, rest = k[:, : self.n_shifted], k[:, self.n_shifted :]
        before = own.new_zeros(B, self.n_shifted, 1, self.head_size) if cache is None else cache.own
        k = torch.cat([torch.cat([before, own[:, :, :-1]], dim=2), rest], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        new = KVCache(k, v, own, T)
        if cache is not None:
            new = KVCache(cache.keys, cache.values, own, cache.length + T)
            new.keys[:, :, cache.length : new.length], new.values[:, :, cache.length : new.length] = k, v
            k, v = new.keys[:, :, : new.length], new.values[:, :, : new.length]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
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
        self.output = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.recompute = False  # keep blocks' inputs only, and run blocks again in the backward pass: less memory
        if not self.embedding.weight.is_meta:  # else its weights come from a file
            self.init_weights()

    def init_weights(self):
        nn.init.normal_(self.embedding.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for block in self.blocks:  # what is added to the stream starts small
            for layer in (block.attention.out, block.down):
                layer.weight.data /= (2 * self.config.n_layer) ** 0.5
            block.attention.init_shifted_queries()

    @property
    def head(self):
        """The output embedding (V, C): the input embedding itself, where the two are tied."""
        return self.embedding.weight if self.config.tied else self.output.weight

    def run(self, ids, positions, caches=None, mask=None):
        """ids (B, T) int64 at positions (T,) or (B, 1, T) -> hidden (B, T, C), and the cache of each layer."""
        cos, sin = rotary_table(positions, self.config.head_size, self.config.rope_theta)
        x, new_caches = self.embedding(ids), []
        for i, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x, _ = checkpoint(block, x, cos, sin, use_reentrant=False)
            else:
                x, cache = block(x, cos, sin, caches[i] if caches else None, mask)
                new_caches.append(cache)
        return self.norm(x), new_caches

    def hidden(self, ids):
        """ids (B, T) int64 -> the states (B, T, C) that predict the next tokens. Causal; pad on the right."""
        return self.run(ids, torch.arange(ids.shape[1], device=ids.device))[0]

    def forward(self, ids):
        """ids (B, T) int64 -> logits (B, T, V)."""
        return self.hidden(ids) @ self.head.T

    def n_parameters(self):
        return sum(p.numel() for p in self.parameters())

    def compile_blocks(self):
        """torch.compile every block: compiles faster than the whole model, and runs nearly as fast."""
        for block in self.blocks:
            block.compile(dynamic=True)

    @torch.no_grad()
    def generate(self, prompts, max_new_tokens, end_id, temperature=0.0, seed=0):
        """Continue a batch of prompts (lists of ids, any lengths) until `end_id` or `max_new_tokens`.

        temperature 0 takes the likeliest token. The same seed and prompts give the same text.
        Returns one list of new ids per prompt, without `end_id`.
        """
        rng = torch.Generator(self.head.device).manual_seed(seed)
        hidden, caches, real, lengths = self.read_prompts(prompts, max_new_tokens)
        replies, live = [[] for _ in prompts], list(range(len(prompts)))
        for n in range(max_new_tokens):
            new = sample((hidden @ self.head.T).float(), temperature, rng)
            goes_on = (new != end_id).nonzero()[:, 0]
            for row in goes_on.tolist():
                replies[live[row]].append(int(new[row]))
            if len(goes_on) == 0 or n + 1 == max_new_tokens:
                break
            if len(goes_on) < len(live):  # rows that have ended are taken out of the batch
                live = [live[row] for row in goes_on.tolist()]
                caches = [KVCache(c.keys[goes_on], c.values[goes_on], c.own[goes_on], c.length) for c in caches]
                new, real, lengths = new[goes_on], real[goes_on], lengths[goes_on]
            real = F.pad(real, (0, 1), value=True)
            hidden, caches = self.run(new[:, None], (lengths + n)[:, None, None], caches, real[:, None, None])
            hidden = hidden[:, 0]
        return replies

    def read_prompts(self, prompts, room):
        """Prompts are padded on the right to T slots; what is generated goes into the `room` slots after these, at the
        position that it has in its own row. A row never looks at its padding.

        Returns the last hidden state of each prompt (B, C), the caches, which slots are real (B, T), the lengths (B,).
        """
        device = self.head.device
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        T, last = int(lengths.max()), lengths - 1
        ids = torch.tensor([p + [0] * (T - len(p)) for p in prompts], device=device)
        rows = torch.arange(len(prompts), device=device)
        hidden, caches = self.run(ids, torch.arange(T, device=device))
        for layer in caches:
            layer.keys, layer.values = F.pad(layer.keys, (0, 0, 0, room)), F.pad(layer.values, (0, 0, 0, room))
            layer.own = layer.own[rows, :, last][:, :, None]
        return hidden[rows, last], caches, torch.arange(T, device=device) < lengths[:, None], lengths


def sample(logits, temperature, rng):
    """One token id per row of logits (B, V), drawn from softmax(logits / temperature) by its cumulative sums."""
    if temperature < 0.01:  # the likeliest; float32 cannot divide by much less
        return logits.argmax(-1)
    sums = (logits / temperature).softmax(-1).double().cumsum(-1)
    point = torch.rand(len(sums), 1, dtype=torch.float64, device=sums.device, generator=rng) * sums[:, -1:]
    return torch.searchsorted(sums, point, right=True)[:, 0]
