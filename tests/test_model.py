"""The GPT: causal, blind to absolute place, exact with a KV cache, repeatable."""

import pytest
import torch

from perce_mini.model import GPT, GPTConfig, rotary_table, sample

END = 0


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=50, block_size=64, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, n_hidden=48))
    for block in model.blocks:  # blocks that say more than at birth, so that tokens and places matter
        block.attention.out.weight.data *= 4
        block.down.weight.data *= 4
    return model


def random_ids(*shape):
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_shapes_and_tied_embedding(model):
    assert model(random_ids(3, 7)).shape == (3, 7, 50)
    assert model.head is model.embedding.weight


def test_causal_a_later_token_changes_nothing_before_it(model):
    ids = random_ids(1, 10)
    changed = ids.clone()
    changed[0, 6] = 1 + ids[0, 6] % 49
    before, after = model(ids), model(changed)
    assert torch.allclose(before[:, :6], after[:, :6], atol=1e-5)
    assert not torch.allclose(before[:, 6:], after[:, 6:], atol=1e-2)


def test_attention_against_a_slow_loop(model):
    """Softmax over the past by hand, for every head and position, with keys shared by pairs of heads."""
    attention, x = model.blocks[0].attention, torch.randn(1, 5, 32)
    angle = torch.arange(5.0)[:, None] * 10000.0 ** (-torch.arange(0, 8, 2) / 8)
    y, _ = attention(x, angle.cos(), angle.sin())
    shifted = torch.cat([torch.zeros(1, 1, 32), x[:, :-1]], dim=1)

    def turn(v, t):  # the pair (v_i, v_{i+4}) as a complex number, turned by the angle
        z = torch.complex(v[:4], v[4:]) * torch.polar(torch.ones(4), angle[t])
        return torch.cat([z.real, z.imag])

    heads = []
    for h in range(4):
        q = attention.q(x)[0, :, 8 * h : 8 * h + 8]
        seen_by = shifted if h // 2 == 0 else x  # the first of the two key heads is the shifted one
        k, v = (
            layer(y)[0, :, 8 * (h // 2) : 8 * (h // 2) + 8] for layer, y in ((attention.k, seen_by), (attention.v, x))
        )
        rows = []
        for t in range(5):
            scores = torch.stack([turn(q[t], t) @ turn(k[s], s) for s in range(t + 1)]) / 8**0.5
            rows.append(scores.softmax(0) @ v[: t + 1])
        heads.append(torch.stack(rows))
    assert torch.allclose(y[0], attention.out(torch.cat(heads, dim=-1)), atol=1e-4)


def test_only_distances_matter(model):
    """The same tokens at positions 0.. and at positions 100..: the same states."""
    ids = random_ids(2, 8)
    assert torch.allclose(model.run(ids, torch.arange(8))[0], model.run(ids, torch.arange(100, 108))[0], atol=1e-3)


@torch.no_grad()
def greedy_without_cache(model, prompt, n):
    ids = list(prompt)
    for _ in range(n):
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
    return ids[len(prompt) :]


def test_batched_cached_generation_equals_one_full_forward_a_token(model):
    """Prompts of different lengths in one batch, rows ending at different times."""
    prompts = [random_ids(1, n)[0].tolist() for n in (3, 9, 1, 6, 14, 11)]
    slow = [greedy_without_cache(model, p, 12) for p in prompts]
    end = slow[1][4]  # a token that is really produced, so that some rows end early
    cut = [s[: s.index(end)] if end in s else s for s in slow]
    assert len(set(map(len, cut))) > 1
    assert model.generate(prompts, 12, end_id=end) == cut
    assert model.generate(prompts, 12, end_id=-1) == slow  # no token ends a text


def test_cached_logits_equal_the_full_forward(model):
    ids = random_ids(2, 9)
    hidden, caches, _, _ = model.read_prompts(ids[:, :4].tolist(), room=5)
    assert torch.allclose(hidden, model.hidden(ids)[:, 3], atol=1e-4)
    for t in range(4, 9):
        mask = torch.ones(2, 1, 1, t + 1, dtype=torch.bool)
        hidden, caches = model.run(ids[:, t : t + 1], torch.tensor([t]), caches, mask)
        assert torch.allclose(hidden[:, 0], model.hidden(ids)[:, t], atol=1e-4) and caches[0].length == t + 1


def test_a_seed_makes_sampling_repeatable(model):
    prompts = [[5, 6], [7]]
    one, again, other = (model.generate(prompts, 20, END, temperature=1.0, seed=seed) for seed in [1, 1, 2])
    assert one == again != other


def test_temperature():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(4000, 4)
    rng = torch.Generator().manual_seed(0)

    def shares(**how):
        return (sample(logits, rng=rng, **how).bincount(minlength=4) / 4000).tolist()

    assert shares(temperature=0) == [1, 0, 0, 0]
    assert shares(temperature=1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    squared = torch.tensor([0.5, 0.3, 0.15, 0.05]) ** 2
    assert shares(temperature=0.5) == pytest.approx((squared / squared.sum()).tolist(), abs=0.03)


def test_a_shape_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="n_head"):
        GPTConfig(vocab_size=10, n_embd=30, n_head=4)
    with pytest.raises(ValueError, match="head_size 3 must be even"):
        GPTConfig(vocab_size=10, head_size=3)
    with pytest.raises(ValueError, match="n_shifted 3"):
        GPTConfig(vocab_size=10, n_shifted=3)


def test_queries_of_shifted_keys_start_as_twice_these_keys():
    """So that a token looks for its own kind, and finds what followed it; other heads start at random."""
    attention = GPT(GPTConfig(50, n_head=4, n_kv_head=2, n_shifted=1, n_embd=32)).blocks[0].attention
    k, q = attention.k.weight.view(2, 8, 32), attention.q.weight.view(2, 2, 8, 32)
    assert torch.equal(q[0, 0], 2 * k[0]) and torch.equal(q[0, 1], 2 * k[0])
    assert not torch.allclose(q[1, 0], 2 * k[1], atol=0.1)


def test_weights_start_small_where_they_add_to_the_stream():
    torch.manual_seed(0)
    config = GPTConfig(500, n_layer=8, n_embd=128)
    model = GPT(config)
    block = model.blocks[3]
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.up.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert block.attention.out.weight.std().item() == pytest.approx((128 * 2 * 8) ** -0.5, rel=0.05)
    assert block.down.weight.std().item() == pytest.approx((config.n_hidden * 2 * 8) ** -0.5, rel=0.05)


def test_computing_blocks_again_gives_the_same_gradient(model):
    gradients = []
    for recompute in [False, True]:
        model.recompute = recompute
        model.zero_grad()
        model(random_ids(2, 9)).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    model.recompute = False
    assert torch.equal(*gradients) and gradients[0].norm() > 0


def test_the_gate_is_what_goes_through_silu():
    """SwiGLU by hand: down(silu(gate(y)) * up(y)), where gate and up differ."""
    block, x = GPT(GPTConfig(50, n_embd=32)).blocks[0], torch.randn(1, 3, 32)
    block.attention.out.weight.data.zero_()
    y = block.norm_mlp(x)
    gate, up = y @ block.gate.weight.T, y @ block.up.weight.T
    expected = x + (gate * torch.sigmoid(gate) * up) @ block.down.weight.T
    cos, sin = rotary_table(torch.arange(3), 8, 10000.0)
    assert torch.allclose(block(x, cos, sin)[0], expected, atol=1e-5)
