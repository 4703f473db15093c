"""The loss math, against pencil, paper and slow float64 loops."""

import math

import pytest
import torch

from perce_mini.percontrast import (LOSSES, perce_loss, perce_weights, personal_influence_ratio, project, token_entropies, token_logprobs,
                                    weighted_nll)  # fmt: skip


def log(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_three_tokens_by_hand():
    """P with persona 0.5, 0.9, 0.2; without 0.1, 0.9, 0.4. PIR = ln 5, 0, -ln 2; weights ln 5 (1.609), 0.8, 0.8."""
    with_persona, without = log(0.5, 0.9, 0.2), log(0.1, 0.9, 0.4)
    pir = personal_influence_ratio(with_persona, without)
    assert pir.tolist() == pytest.approx([math.log(5), 0, -math.log(2)])
    assert perce_weights(pir).tolist() == pytest.approx([math.log(5), 0.8, 0.8])
    by_hand = (math.log(5) * math.log(2) + 0.8 * math.log(1 / 0.9) + 0.8 * math.log(5)) / 3
    assert perce_loss(with_persona, without).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("pir, weight", [(-3.0, 0.8), (0.79, 0.8), (0.81, 0.81), (4.9, 4.9), (5.1, 5.0), (40.0, 5.0)])
def test_the_log_ratio_itself_is_clipped_at_both_ends(pir, weight):
    assert perce_weights(torch.tensor([pir])).item() == pytest.approx(weight)
    assert perce_weights(torch.tensor([pir]), clip_min=-9, clip_max=99).item() == pytest.approx(pir)


def test_the_bounds_of_the_loss_can_be_set():
    with_persona, without = log(0.5, 0.9, 0.2), log(0.1, 0.9, 0.4)
    unclipped = (math.log(5) * math.log(2) - math.log(2) * math.log(5)) / 3  # weights ln 5, 0, -ln 2
    assert perce_loss(with_persona, without, clip_min=-9, clip_max=9).item() == pytest.approx(unclipped, abs=1e-12)
    assert perce_loss(with_persona, without, 0.2, 0.3).item() == pytest.approx((0.3 * math.log(2) - 0.2 * math.log(0.9) + 0.2 * math.log(5)) / 3)


def test_an_empty_interval_is_refused():
    with pytest.raises(ValueError, match="clip_min"):
        perce_weights(torch.zeros(1), clip_min=2, clip_max=1)


def test_views_of_different_length_are_refused():
    with pytest.raises(ValueError, match="views differ"):
        personal_influence_ratio(torch.zeros(3), torch.zeros(1))  # would broadcast in silence


def test_identical_contexts_give_exactly_the_floor_times_ce():
    logp = log(0.5, 0.3, 0.01)
    assert perce_loss(logp, logp).item() == 0.8 * weighted_nll(logp, torch.full((3,), 1.0, dtype=torch.float64)).item()


def test_gradient_flows_through_the_persona_view_alone():
    """dL/dlogp_i = -w_i / n: the weight is a constant. If it carried gradient, a PIR within the clip would add to it."""
    with_persona, without = log(0.5, 0.9, 0.2).requires_grad_(), log(0.1, 0.9, 0.01).requires_grad_()
    perce_loss(with_persona, without).backward()
    assert with_persona.grad.tolist() == pytest.approx([-math.log(5) / 3, -0.8 / 3, -math.log(20) / 3])
    assert without.grad is None


def test_loss_and_gradient_equal_a_slow_loop():
    """From logits, with prompt and padding masked: value and gradient of a plain Python loop over positions."""
    torch.manual_seed(0)
    logits, plain = (3 * torch.randn(2, 6, 11) for _ in range(2))
    labels = torch.tensor([[-100, -100, 4, 7, 0, -100], [-100, 10, 3, -100, -100, -100]])
    logits.requires_grad_()
    perce_loss(token_logprobs(logits, labels), token_logprobs(plain, labels)).backward()

    loss, gradient, n, weights = 0.0, torch.zeros(2, 6, 11, dtype=torch.float64), 0, []
    for b in range(2):
        for t in range(6):
            y = labels[b, t].item()
            if y == -100:
                continue
            p = [math.exp(z) for z in logits[b, t].tolist()]
            q = [math.exp(z) for z in plain[b, t].tolist()]
            p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
            w = min(max(math.log(p[y]) - math.log(q[y]), 0.8), 5.0)
            weights.append(w)
            loss, n = loss - w * math.log(p[y]), n + 1
            for v in range(11):
                gradient[b, t, v] = w * (p[v] - (v == y))
    assert len({round(w, 3) for w in weights}) >= 3  # the weights are not all alike, or this would test CE
    value = perce_loss(token_logprobs(logits, labels), token_logprobs(plain, labels))
    assert value.item() == pytest.approx(loss / n, rel=1e-5)
    assert torch.allclose(logits.grad.double(), gradient / n, atol=1e-6)


def test_tokens_come_row_by_row_and_masked_ones_are_left_out():
    logits = torch.zeros(2, 2, 2)
    logits[0, 1, 1], logits[1, 0, 0] = 1.0, 2.0
    labels = torch.tensor([[-100, 1], [0, -100]])
    expected = [1 - math.log(1 + math.e), 2 - math.log(1 + math.e**2)]
    assert token_logprobs(logits, labels).tolist() == pytest.approx(expected)


def test_entropy():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [1.0, 1e-30, 1e-30]]))
    assert token_entropies(logits, torch.zeros(2, dtype=torch.long)).tolist() == pytest.approx([1.5 * math.log(2), 0], abs=1e-6)


@pytest.mark.parametrize("score", [token_logprobs, token_entropies])
def test_the_chunked_projection_changes_neither_value_nor_gradient(score):
    torch.manual_seed(0)
    hidden, head, labels = torch.randn(10, 4), torch.randn(7, 4), torch.randint(0, 7, (10,))
    results = []
    for max_logits in (10**9, 21):  # all at once; three rows at a time
        h, w = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        values = score_values = project(score, h, w, labels, max_logits)
        (values * torch.arange(10)).sum().backward()
        results.append((score_values.detach(), h.grad, w.grad))
    for whole, chunked in zip(*results):
        assert torch.allclose(whole, chunked, atol=1e-5)
    assert torch.allclose(results[0][0], score(hidden @ head.T, labels))


def test_micro_batches_add_up_when_they_divide_by_the_tokens_of_the_whole_step():
    """2 + 1 tokens: the sum of the parts is the whole; the mean of their means is not."""
    with_persona, without = log(0.5, 0.9, 0.2), log(0.1, 0.9, 0.4)
    whole = perce_loss(with_persona, without)
    parts = [perce_loss(with_persona[s], without[s], n_tokens=3) for s in (slice(0, 2), slice(2, 3))]
    means = [perce_loss(with_persona[s], without[s]) for s in (slice(0, 2), slice(2, 3))]
    assert sum(parts).item() == pytest.approx(whole.item())
    assert sum(means).item() / 2 != pytest.approx(whole.item(), rel=0.05)


def test_the_four_losses_differ_in_their_weights_alone():
    with_persona, without, entropy = log(0.5, 0.9, 0.001), log(0.1, 0.9, 0.4), torch.tensor([2.0, 0.1, 9.0])
    given = (with_persona, without, entropy, 0.8, 5.0)
    assert set(LOSSES) == {"ce", "lossce", "entce", "perce"}
    assert LOSSES["ce"](*given).tolist() == [1, 1, 1]
    assert LOSSES["lossce"](*given).tolist() == pytest.approx([0.8, 0.8, 5.0])  # -log P = 0.69, 0.11, 6.9
    assert LOSSES["entce"](*given).tolist() == pytest.approx([2.0, 0.8, 5.0])
    assert LOSSES["perce"](*given).tolist() == pytest.approx([math.log(5), 0.8, 0.8])
    assert weighted_nll(with_persona, LOSSES["perce"](*given)).item() == pytest.approx(perce_loss(with_persona, without).item())


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_sends_gradient_through_its_weights(name):
    with_persona, entropy = log(0.5, 0.1, 0.2).requires_grad_(), torch.tensor([2.0, 1.0, 3.0], requires_grad=True)
    assert not LOSSES[name](with_persona, log(0.1, 0.05, 0.01), entropy, 0.8, 5.0).requires_grad
