"""Low-rank adapters on frozen weights."""

import pytest
import torch

from perce_mini.model import GPT, GPTConfig
from perce_mini.runtime import lora
from tests.tiny import gradient

IDS = torch.arange(12).view(2, 6)


def make(**shape):
    torch.manual_seed(0)
    return GPT(GPTConfig(20, n_layer=2, n_embd=32, n_hidden=24, **shape))


def adapted(dtype=torch.float32, std=0.1, **shape):
    """Make a model with adapters that have an effect."""
    model = make(**shape).to(dtype)
    lora.add(model, 3)
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if name.endswith("b.weight"):
            p.data.normal_(std=std)
    return model


def test_training_starts_from_the_same_model_and_changes_the_adapters_alone():
    model, plain = make(), make()
    lora.add(model, 3)
    assert torch.equal(model(IDS), plain(IDS))
    model(IDS).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    assert all(name.endswith(("a.weight", "b.weight")) for name in trained)
    assert len(trained) == 2 * 7 * 2  # 2 blocks with 7 layers each


@pytest.mark.parametrize("dtype, std", [(torch.float32, 0.1), (torch.bfloat16, 1e-3)])
def test_merging_adds_two_b_a_in_float32(dtype, std):
    """bfloat16 would lose small updates, or change them by 3 % or more."""
    model = adapted(dtype, std=std)
    layer, before = model.blocks[0].up, model(IDS)
    old, update = layer.layer.weight.float().clone(), 2 * layer.b.weight @ layer.a.weight
    lora.merge(model)
    assert (model.blocks[0].up.weight - old - update).norm() < 1e-3 * update.norm()
    assert model.state_dict().keys() == make().state_dict().keys()
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert dtype == torch.bfloat16 or torch.allclose(model(IDS), before, atol=1e-5)


def test_merging_leaves_a_model_without_adapters_alone():
    """On a GPU, LoRA starts from a bfloat16 model."""
    model = make().bfloat16()
    lora.merge(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_gradients_with_frozen_bfloat16_weights_or_recomputed_blocks():
    """As on a GPU: frozen weights and computation in bfloat16, adapters in float32."""
    gradients = {}
    for dtype, recompute in [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)]:
        model = adapted(dtype, qk_norm=True, qkv_bias=True)
        model.recompute = recompute
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            model(IDS).float().square().mean().backward()
        assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
        gradients[dtype, recompute] = gradient(model)
    exact, recomputed, half = gradients.values()
    assert torch.equal(exact, recomputed) and exact.norm() > 0
    assert (exact - half).norm() < 0.1 * exact.norm()
