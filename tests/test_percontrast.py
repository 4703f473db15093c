"""The loss math, against pencil, paper and slow float64 loops."""

import math

import pytest
import torch

from perce_mini.percontrast import (
    LOSSES,
    loss_weights,
    perce_loss,
    perce_weights,
    personal_influence_ratio,
    token_entropies,
    token_logprobs,
    weighted_nll,
)


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
    by_hand = (0.3 * math.log(2) - 0.2 * math.log(0.9) + 0.2 * math.log(5)) / 3
    assert perce_loss(with_persona, without, 0.2, 0.3).item() == pytest.approx(by_hand)


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
    """dL/dlogp_i = -w_i / n: the weight is a constant. With a gradient of its own, a PIR within the clip would add."""
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
    entropies = token_entropies(logits, torch.zeros(2, dtype=torch.long))
    assert entropies.tolist() == pytest.approx([1.5 * math.log(2), 0], abs=1e-6)


def test_micro_batches_add_up_when_they_divide_by_the_tokens_of_the_whole_step():
    """2 + 1 tokens: the sum of the parts is the whole; the mean of their means is not."""
    with_persona, without = log(0.5, 0.9, 0.2), log(0.1, 0.9, 0.4)
    whole = perce_loss(with_persona, without)
    parts = [perce_loss(with_persona[s], without[s], n_tokens=3) for s in (slice(0, 2), slice(2, 3))]
    means = [perce_loss(with_persona[s], without[s]) for s in (slice(0, 2), slice(2, 3))]
    assert sum(parts).item() == pytest.approx(whole.item())
    assert sum(means).item() / 2 != pytest.approx(whole.item(), rel=0.05)


def weights_of(loss, with_persona, without, entropy, clip_min=0.8, clip_max=5.0):
    return loss_weights(loss, with_persona, without, entropy, clip_min, clip_max)


def test_the_four_losses_differ_in_their_weights_alone():
    given = log(0.5, 0.9, 0.001), log(0.1, 0.9, 0.4), torch.tensor([2.0, 0.1, 9.0])
    assert set(LOSSES) == {"ce", "lossce", "entce", "perce"}
    assert weights_of("ce", *given).tolist() == [1, 1, 1]
    assert weights_of("lossce", *given).tolist() == pytest.approx([0.8, 0.8, 5.0])  # -log P = 0.69, 0.11, 6.9
    assert weights_of("entce", *given).tolist() == pytest.approx([2.0, 0.8, 5.0])
    assert weights_of("perce", *given).tolist() == pytest.approx([math.log(5), 0.8, 0.8])
    by_parts = weighted_nll(given[0], weights_of("perce", *given)).item()
    assert by_parts == pytest.approx(perce_loss(*given[:2]).item())


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_obeys_its_clip_and_sends_no_gradient_through_its_weights(loss):
    with_persona, entropy = log(0.5, 0.1, 0.2).requires_grad_(), torch.tensor([2.0, 1.0, 3.0], requires_grad=True)
    weights = weights_of(loss, with_persona, log(0.1, 0.05, 0.01), entropy, 1.25, 1.5)
    assert not weights.requires_grad
    assert loss == "ce" or (weights.min() >= 1.25 and weights.max() == 1.5)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="no loss 'dpo'; there are ce, lossce"):
        loss_weights("dpo", torch.zeros(1))


# ------------------------------------------------------------------------- numbers that go wrong in silence


def test_a_loss_of_no_tokens_is_refused_rather_than_nan():
    with pytest.raises(ValueError, match="no response tokens"):
        perce_loss(torch.zeros(0), torch.zeros(0))
    assert perce_loss(torch.zeros(0), torch.zeros(0), n_tokens=7) == 0  # a micro-batch without any, of a step with some


def test_two_views_that_exclude_a_token_say_nothing_of_the_persona():
    never = torch.tensor([-math.inf, -1.0])
    assert personal_influence_ratio(never, never).tolist() == [0, 0]
    assert personal_influence_ratio(torch.tensor([-1.0]), never[:1]).item() == math.inf
    assert personal_influence_ratio(torch.tensor([math.nan]), never[:1]).isnan().all()


@pytest.mark.parametrize("bounds", [(math.nan, 5.0), (0.8, math.nan)])
def test_bounds_that_are_no_numbers_are_refused(bounds):
    with pytest.raises(ValueError, match="clip_min"):
        perce_weights(torch.zeros(2), *bounds)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_exact_whatever_comes_in(dtype):
    """100,000 tokens of -log P = 5.8: a sum in half precision is inf, or off by a part in 300."""
    logp = torch.full((100_000,), -5.8).to(dtype)
    assert perce_loss(logp, logp).item() == pytest.approx(-0.8 * logp[0].item(), rel=1e-5)
    assert perce_loss(logp, logp).dtype == torch.float32
    assert weighted_nll(logp, torch.ones_like(logp)).item() == pytest.approx(-logp[0].item(), rel=1e-5)
    assert perce_loss(logp.double(), logp.double()).dtype == torch.float64


@pytest.mark.parametrize("labels", [[-100, 0], [3, -1], [0, -2]])
def test_labels_outside_the_vocabulary_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be -1 or from 0 to 2"):
        token_logprobs(torch.zeros(2, 3), torch.tensor(labels), ignore_index=-1)


def test_what_cannot_come_adds_nothing_to_the_entropy():
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    assert token_entropies(logits, torch.tensor([0])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 2), (2, 3, 1)])
@pytest.mark.parametrize("ignored", [False, True])
def test_labels_of_another_shape_are_refused(shape, ignored):
    labels = torch.zeros(shape, dtype=torch.long)
    if ignored:
        labels.view(-1)[0] = -100
    for score in [token_logprobs, token_entropies]:
        with pytest.raises(ValueError, match="do not belong to logits"):
            score(torch.zeros(2, 3, 5), labels)


def test_a_single_prediction_is_one_number():
    logits = torch.randn(5)
    assert token_logprobs(logits, torch.tensor(2)).tolist() == pytest.approx([logits.log_softmax(-1)[2].item()])
