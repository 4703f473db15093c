"""The GPT is causal, uses only relative positions, is exact with a KV cache, is reproducible."""

import pytest
import torch

from perce_mini.model import GPT, GPTConfig, rotary_table, sample

SHAPE = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32, "n_hidden": 48}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GPT(GPTConfig(50, **SHAPE))
    for block in model.blocks:  # larger than at initialisation, so that context matters
        block.attention.out.weight.data *= 4
        block.down.weight.data *= 4
    return model


def random_ids(*shape):
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_attention_equals_a_slow_loop(model):
    """Compute the softmax over earlier tokens by hand, for every head and position. Two query heads
    share a key head. Rotations are computed as products of complex numbers."""
    attention, x = model.blocks[0].attention, torch.randn(1, 5, 32)
    y, _ = attention(x, *rotary_table(torch.arange(5), model.config))

    def turn(v, t):
        angle = t * 10000.0 ** (-torch.arange(0, 8, 2) / 8)
        z = torch.complex(v[:4], v[4:]) * torch.polar(torch.ones(4), angle)
        return torch.cat([z.real, z.imag])

    heads = []
    for h in range(4):
        part = slice(8 * (h // 2), 8 * (h // 2) + 8)
        q = attention.q(x)[0, :, 8 * h : 8 * h + 8]
        k, v = attention.k(x)[0, :, part], attention.v(x)[0, :, part]
        if h < 2:  # the first key head is shifted: tokens get the previous token's key
            k = torch.cat([torch.zeros(1, 8), k[:-1]])
        rows = []
        for t in range(5):
            scores = torch.stack([turn(q[t], t) @ turn(k[s], s) for s in range(t + 1)]) / 8**0.5
            rows.append(scores.softmax(0) @ v[: t + 1])
        heads.append(torch.stack(rows))
    assert torch.allclose(y[0], attention.out(torch.cat(heads, dim=-1)), atol=1e-4)


@torch.no_grad()
def test_the_blocks_and_the_head_by_hand(model):
    """SwiGLU is down(silu(gate(y)) * up(y)), and RMSNorm divides by the root mean square."""
    cos, sin = rotary_table(torch.arange(3), model.config)

    def norm(v):
        return v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    x = model.embedding(random_ids(1, 3))
    for block in model.blocks:
        x = x + block.attention(norm(x), cos, sin)[0]
        gate, up = norm(x) @ block.gate.weight.T, norm(x) @ block.up.weight.T
        x = x + (gate * torch.sigmoid(gate) * up) @ block.down.weight.T
    logits = norm(x) @ model.embedding.weight.T
    assert torch.allclose(model(random_ids(1, 3)), logits, atol=1e-4)
    untied = GPT(GPTConfig(50, **SHAPE, tied=False))
    untied.load_state_dict(model.state_dict() | {"output.weight": 2 * model.embedding.weight})
    assert torch.allclose(untied(random_ids(1, 3)), 2 * logits, atol=1e-4)


@torch.no_grad()
def greedy_without_cache(model, prompt, n):
    ids = list(prompt)
    for _ in range(n):
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
    return ids[len(prompt) :]


def test_batched_generation_with_a_cache_equals_one_full_forward_pass_per_token(model):
    """Prompts have different lengths, and rows end at different times."""
    prompts = [random_ids(1, n)[0].tolist() for n in (3, 9, 1, 6, 14, 11)]
    slow = [greedy_without_cache(model, prompt, 12) for prompt in prompts]
    end = slow[1][4]  # a token that the model generates, so that some rows end early
    cut = [ids[: ids.index(end)] if end in ids else ids for ids in slow]
    assert len(set(map(len, cut))) > 1
    assert model.generate(prompts, 12, end_id=end) == cut
    assert model.generate(prompts, 12, end_id=-1) == slow  # no token ends a text


def test_sampling_follows_seed_and_temperature(model):
    texts = [model.generate([[5, 6], [7]], 20, 0, temperature=1.0, seed=n) for n in [1, 1, 2]]
    assert texts[0] == texts[1] != texts[2]
    p, rng = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.Generator().manual_seed(0)

    def shares(temperature):
        chosen = sample(p.log().expand(4000, 4), temperature, rng)
        return (chosen.bincount(minlength=4) / 4000).tolist()

    assert shares(0) == shares(1e-3) == [1, 0, 0, 0]
    assert shares(1.0) == pytest.approx(p.tolist(), abs=0.03)
    assert shares(0.5) == pytest.approx((p**2 / (p**2).sum()).tolist(), abs=0.03)


def test_weights_start_as_documented():
    torch.manual_seed(0)
    model = GPT(GPTConfig(500, n_layer=8))
    block = model.blocks[3]
    stds = {model.embedding: 0.02, block.up: 128**-0.5, block.attention.v: 128**-0.5}
    stds |= {block.attention.out: (128 * 16) ** -0.5, block.down: (344 * 16) ** -0.5}
    for layer, std in stds.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
    k = block.attention.k.weight.view(2, 32, 128)
    q = block.attention.q.weight.view(2, 2, 32, 128)
    assert torch.equal(q[0], 2 * k[:1].expand(2, -1, -1))  # queries of the shifted key head
    assert not torch.allclose(q[1, 0], 2 * k[1], atol=0.1)
