"""A step of low rank beside frozen weights."""

import torch

from perce_mini import lora
from perce_mini.model import GPT, GPTConfig

IDS = torch.arange(12).view(2, 6)


def make(**kwargs):
    torch.manual_seed(0)
    return GPT(GPTConfig(20, n_layer=2, n_embd=32, n_hidden=24, **kwargs))


def test_it_starts_as_what_it_was_and_only_the_step_is_trained():
    model, plain = make(), make()
    lora.add(model, 3)
    assert torch.equal(model(IDS), plain(IDS))
    model(IDS).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    layers = sum(isinstance(module, lora.LoRA) for module in model.modules())
    assert (
        layers == 2 * 7
        and len(trained) == 2 * layers
        and all(name.endswith(("a.weight", "b.weight")) for name in trained)
    )


def test_the_step_is_two_b_a_and_merging_changes_nothing():
    model = make()
    lora.add(model, 3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("b.weight"):
                p.normal_(std=0.1)
    layer, x = model.blocks[0].up, torch.randn(5, 32)
    assert torch.allclose(layer(x), x @ (layer.layer.weight + 2 * layer.b.weight @ layer.a.weight).T, atol=1e-5)
    before = model(IDS)
    lora.merge(model)
    assert not any(isinstance(module, lora.LoRA) for module in model.modules()) and all(
        p.requires_grad for p in model.parameters()
    )
    assert torch.allclose(model(IDS), before, atol=1e-5) and not torch.allclose(model(IDS), make()(IDS), atol=1e-2)


def test_computing_again_gives_the_same_gradient():
    gradients = []
    for recompute in [False, True]:
        model = make()
        lora.add(model, 3)
        model.recompute = recompute
        model(IDS).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.equal(*gradients) and gradients[0].norm() > 0


def test_frozen_weights_may_be_bfloat16():
    """As on a GPU: weights in bfloat16 that stay, a step in float32 that is trained, computing in bfloat16."""
    gradients = []
    for dtype in [torch.float32, torch.bfloat16]:
        model = make(qk_norm=True).to(dtype)
        torch.manual_seed(1)
        lora.add(model, 3)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("b.weight"):
                    p.normal_(std=0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            model(IDS).float().square().mean().backward()
        assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert (gradients[0] - gradients[1]).norm() < 0.1 * gradients[0].norm()
