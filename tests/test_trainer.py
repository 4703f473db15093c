"""One optimisation step matches slow computations."""

import copy
import math

import pytest
import torch

from perce_mini import trainer
from perce_mini.dataset import collate
from perce_mini.trainer import NotFiniteError, Settings, micro_batch_loss, training_step
from tests import tiny
from tests.tiny import gradient, make_model

EXAMPLES = tiny.make_examples()
N_TOKENS = sum(len(e.response) for e in EXAMPLES)
LOG = ["loss", "ce", "weight", "floor", "cap", "pir"]


def loss_of(model, examples, settings):
    """The loss of one micro-batch, the sums for the log, and the gradient."""
    model.zero_grad()
    loss, sums = micro_batch_loss(model, collate(examples), settings, N_TOKENS)
    loss.backward()
    return loss.item(), sums, gradient(model)


def take_steps(model, settings, groups, n):
    """Return the log lines of `n` steps on the same examples."""
    optimizer = trainer.make_optimizer(model, settings)
    return [training_step(model, optimizer, groups, settings, step) for step in range(n)]


@pytest.mark.parametrize("loss", ["ce", "lossce", "entce", "perce"])
def test_a_step_equals_a_plain_loop_over_tokens(loss):
    """A step with two unequal micro-batches divides only once, by the total number of tokens."""
    model, low, high = make_model(), 0.25, 1.5
    total, logged = 0.0, dict.fromkeys(LOG, 0.0)
    for e in EXAMPLES:
        views = [tiny.response_logprobs(model, x, e.response) for x in (e.prompt, e.plain_prompt)]
        for token, here, there in zip(e.response, *views):
            entropy = -sum(x.exp() * x for x in here)
            scores = {"lossce": -here[token], "entce": entropy, "perce": here[token] - there[token]}
            w = 1.0 if loss == "ce" else min(max(scores[loss].item(), low), high)
            total -= w * here[token]
            logged["loss"] -= w * here[token].item()
            logged["ce"] -= here[token].item()
            logged["weight"] += w
            logged["floor"] += w <= low
            logged["cap"] += w >= high
            logged["pir"] += 0.0 if loss == "ce" else scores["perce"].item()
    (total / N_TOKENS).backward()
    slow, settings = gradient(model), Settings(loss=loss, clip_min=low, clip_max=high)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    (line,) = take_steps(model, settings, [EXAMPLES[:1], EXAMPLES[1:]], 1)
    # CE does not need the plain view
    assert passes == ([True] if loss == "ce" else [False, True]) * 2
    for name in LOG:
        assert line[name] == pytest.approx(logged[name] / N_TOKENS, rel=1e-4, abs=1e-6), name
    assert line["grad_norm"] == pytest.approx(slow.norm().item(), rel=1e-4)
    clipped = slow / slow.norm().clamp(min=1)
    assert torch.allclose(gradient(model), clipped, atol=1e-5, rtol=1e-3)
    assert loss != "perce" or 0 < logged["cap"] < logged["floor"]


def test_ce_first_uses_ce_for_the_first_steps():
    """With ce_first = 0.5, two of four steps use CE and log no PIR. The others use PerCE."""
    model, settings = make_model(), Settings(steps=4, ce_first=0.5)
    lines = take_steps(model, settings, [EXAMPLES], 4)
    assert [line["pir"] != 0 for line in lines] == [False, False, True, True]
    ce_lines = take_steps(make_model(), Settings(loss="ce", steps=4), [EXAMPLES], 2)
    assert [line["loss"] for line in ce_lines] == [line["loss"] for line in lines[:2]]


def test_a_step_computes_in_bfloat16_where_the_device_can(monkeypatch):
    gradients = []
    for enabled in [False, True]:
        cast = torch.autocast("cpu", torch.bfloat16, enabled=enabled)
        monkeypatch.setattr(trainer, "autocast", lambda device, cast=cast: cast)
        model = make_model()
        take_steps(model, Settings(), [EXAMPLES], 1)
        gradients.append(gradient(model))
    assert 0 < (gradients[1] - gradients[0]).norm() < 0.1 * gradients[0].norm()


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    settings = Settings(lr=0.5, steps=20, warmup=0.25)
    rates = [trainer.learning_rate(step, settings) for step in range(21)]
    rising, falling = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5 * i / 15 for i in range(15, -1, -1)]
    assert rates == pytest.approx(rising + falling)
    assert trainer.learning_rate(0, Settings(lr=0.5, steps=20, warmup=0.0)) == 0.5
    assert trainer.learning_rate(0, Settings(lr=0.5, steps=20, warmup=1.0)) == pytest.approx(0.025)


def test_an_update_is_adamw_with_the_clipped_gradient_by_hand():
    """At the first step Adam's bias-corrected moments are g and g^2, so w changes by
    lr (g / |g| + decay w). The learning rate is the first of five warm-up values up to 0.5."""
    settings = Settings(loss="ce", lr=0.5, steps=10, warmup=0.5, weight_decay=0.04)
    model = make_model()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    _, _, raw = loss_of(model, EXAMPLES, settings)
    optimizer = trainer.make_optimizer(model, settings)
    line = training_step(model, optimizer, [EXAMPLES], settings, 0)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    g = raw / raw.norm()
    assert raw.norm() > 1 and torch.allclose(gradient(model), g, atol=1e-6)
    expected = before - 0.1 * (g / (g.abs() + 1e-8) + 0.04 * before)
    large = g.abs() > 1e-5
    assert large.sum() > 1000 and torch.allclose(after[large], expected[large], atol=1e-4)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    assert line["lr"] == optimizer.param_groups[0]["lr"] == 0.1
    # without older gradients
    assert line["grad_norm"] == pytest.approx(raw.norm().item(), rel=1e-4)


def test_nothing_is_updated_if_the_gradient_is_not_finite():
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    # the loss is still finite
    model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFiniteError, match="step 1"):
        take_steps(model, Settings(), [EXAMPLES], 1)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
