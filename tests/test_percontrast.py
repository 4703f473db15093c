"""The loss matches hand calculations and slow float64 loops."""

import math

import pytest
import torch

from perce_mini.percontrast import (
    LOSSES,
    causal_lm_logprobs,
    perce_loss,
    perce_weights,
    personal_influence_ratio,
    token_entropies,
    token_logprobs,
    weighted_nll,
)

ZEROS = torch.zeros(3)


def log(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_three_tokens_by_hand():
    """PIR is ln 5, 0, -ln 2, so the weights are ln 5 = 1.609, 0.8, 0.8."""
    persona, plain = log(0.5, 0.9, 0.2), log(0.1, 0.9, 0.4)
    pir = personal_influence_ratio(persona, plain)
    assert pir.tolist() == pytest.approx([math.log(5), 0, -math.log(2)])
    assert perce_weights(pir).tolist() == pytest.approx([math.log(5), 0.8, 0.8])
    far = torch.tensor([-3.0, 0.79, 0.81, 4.9, 5.1, 40.0])
    assert perce_weights(far).tolist() == pytest.approx([0.8, 0.8, 0.81, 4.9, 5.0, 5.0])
    by_hand = (math.log(5) * math.log(2) + 0.8 * math.log(1 / 0.9) + 0.8 * math.log(5)) / 3
    assert perce_loss(persona, plain).item() == pytest.approx(by_hand)
    by_hand = (0.3 * math.log(2) - 0.2 * math.log(0.9) + 0.2 * math.log(5)) / 3
    assert perce_loss(persona, plain, 0.2, 0.3).item() == pytest.approx(by_hand)
    part = perce_loss(persona, plain, 0.2, 0.3, n_tokens=30)  # one micro-batch of a larger step
    assert part.item() == pytest.approx(by_hand / 10)


def test_loss_and_gradient_equal_a_slow_loop_over_positions():
    torch.manual_seed(0)
    logits, plain = 3 * torch.randn(2, 6, 11), 3 * torch.randn(2, 6, 11)
    labels = torch.tensor([[-100, -100, 4, 7, 0, -100], [-100, 10, 3, -100, -100, -100]])
    logits.requires_grad_()
    loss = perce_loss(token_logprobs(logits, labels), token_logprobs(plain, labels))
    loss.backward()

    total, gradient, weights = 0.0, torch.zeros(2, 6, 11, dtype=torch.float64), []
    for b, t in (labels != -100).nonzero().tolist():
        y = labels[b, t].item()
        p = [math.exp(z) for z in logits[b, t].tolist()]
        q = [math.exp(z) for z in plain[b, t].tolist()]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        w = min(max(math.log(p[y]) - math.log(q[y]), 0.8), 5.0)
        weights.append(round(w, 3))
        total -= w * math.log(p[y])
        for v in range(11):
            gradient[b, t, v] = w * (p[v] - (v == y))
    assert len(set(weights)) >= 3  # otherwise this would only test cross-entropy
    assert loss.item() == pytest.approx(total / 5, rel=1e-5)
    assert torch.allclose(logits.grad.double(), gradient / 5, atol=1e-6)


def test_tokens_come_row_by_row_without_the_masked_ones():
    torch.manual_seed(0)
    logits, labels = torch.randn(30, 20, 7), torch.randint(0, 7, (30, 20))
    labels[torch.rand(30, 20) < 0.1] = -100
    logp, expected = logits.log_softmax(-1).tolist(), []
    for b, t in (labels != -100).nonzero().tolist():
        expected.append(logp[b][t][labels[b, t]])
    assert token_logprobs(logits, labels).tolist() == pytest.approx(expected, rel=1e-5)
    # nothing predicts the first token
    unshifted = torch.cat([torch.full((30, 1), 6), labels], dim=1)
    # and the last position predicts nothing
    longer = torch.cat([logits, torch.full((30, 1, 7), math.nan)], dim=1)
    assert causal_lm_logprobs(longer, unshifted).tolist() == pytest.approx(expected, rel=1e-5)


def test_each_loss_has_its_documented_weights():
    persona, plain = log(0.5, 0.9, 0.001).requires_grad_(), log(0.1, 0.9, 0.4)
    logits = torch.tensor([[0] * 8, [0] + [-math.inf] * 7, [0] * 2 + [-math.inf] * 6])
    known = {"logp_persona": persona, "logp_plain": plain, "logits": logits.requires_grad_()}
    expected = {
        "ce": [1, 1, 1],
        "lossce": [0.7, 0.7, 5.0],  # -log P is 0.69, 0.11, 6.9
        "entce": [math.log(8), 0.7, 0.7],  # entropies ln 8, 0, ln 2
        "perce": [math.log(5), 0.7, 0.7],
    }
    assert set(LOSSES) >= set(expected)  # experiments may have added more
    for loss, values in expected.items():
        weights = LOSSES[loss](**known, clip_min=0.7, clip_max=5.0, examples=[])
        assert weights.tolist() == pytest.approx(values) and not weights.requires_grad
    total = weighted_nll(persona, weights)
    assert total.item() == pytest.approx(perce_loss(persona, plain, clip_min=0.7).item())


def test_a_token_that_is_impossible_in_both_views_has_pir_0():
    never = torch.tensor([-math.inf, -1.0])
    assert personal_influence_ratio(never, never).tolist() == [0, 0]
    assert personal_influence_ratio(torch.tensor([-1.0]), never[:1]).item() == math.inf
    assert personal_influence_ratio(torch.tensor([math.nan]), never[:1]).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_exact_in_half_precision(dtype):
    """For 100,000 tokens with -log P = 5.8, a half-precision sum is infinite or off by 0.3 %."""
    logp = torch.full((100_000,), -5.8).to(dtype)
    exact = -logp[0].item()
    assert perce_loss(logp, logp).item() == pytest.approx(0.8 * exact, rel=1e-5)
    assert weighted_nll(logp, torch.ones_like(logp)).item() == pytest.approx(exact, rel=1e-5)
    logits, labels = torch.zeros(1, 5, dtype=dtype), torch.tensor([0])
    assert token_logprobs(logits, labels).tolist() == pytest.approx([-math.log(5)], rel=1e-6)
    assert token_entropies(logits).tolist() == pytest.approx([math.log(5)], rel=1e-6)
    assert perce_loss(logp.double(), logp.double()).dtype == torch.float64


@pytest.mark.parametrize(
    "call, reason",
    [
        (lambda: perce_weights(ZEROS, 2, 1), "clip_min"),
        (lambda: perce_weights(ZEROS, math.nan, 5), "clip_min"),
        # torch would broadcast silently
        (lambda: personal_influence_ratio(ZEROS, ZEROS[:1]), "3.*1"),
        (lambda: perce_loss(ZEROS[:0], ZEROS[:0]), "no response tokens"),  # the mean would be NaN
        (lambda: token_logprobs(torch.zeros(2, 3), torch.tensor([-100, 3])), "between 0 and 2"),
        (lambda: token_logprobs(torch.zeros(2, 3), torch.tensor([2, -1])), "between 0 and 2"),
        (lambda: token_logprobs(torch.zeros(2, 3, 5), torch.zeros(3, 2).long()), "2, 3, 5"),
        (lambda: token_logprobs(torch.zeros(2, 3, 5), torch.full((2, 1), -100)), "2, 3, 5"),
    ],
)
def test_wrong_arguments_are_refused(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
