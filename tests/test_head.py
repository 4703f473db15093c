"""The head in slices: the value and the gradient of the whole, and never more logits than those of ROWS tokens."""

import pytest
import torch

from perce_mini import head
from perce_mini.head import backward_in_slices, score_in_slices
from perce_mini.percontrast import perce_loss, token_entropies, token_logprobs, weighted_nll

N, C, V = 10, 4, 7


@pytest.fixture
def given(monkeypatch):
    """Small tensors in float64, in slices of 3, 3, 3 and 1 tokens."""
    monkeypatch.setattr(head, "ROWS", 3)
    torch.manual_seed(0)
    inputs, weight = torch.randn(N, C, dtype=torch.float64), torch.randn(V, C, dtype=torch.float64)
    return inputs.requires_grad_(), weight.requires_grad_(), torch.randint(0, V, (N,))


@pytest.mark.parametrize("score", [token_logprobs, token_entropies])
def test_scores_are_those_of_the_whole(given, score):
    hidden, weight, labels = given
    scores = score_in_slices(score, 9 * hidden, weight, labels)
    assert torch.allclose(scores, score(9 * hidden @ weight.T, labels)) and not scores.requires_grad


def test_value_and_gradient_are_those_of_perce_loss_on_the_whole(given):
    """`percontrast.perce_loss` on all logits at once, by autograd, against slices; the hidden states have a past."""
    hidden, weight, labels = given
    logp_plain = torch.randn(N, dtype=torch.float64) - 3
    whole = perce_loss(token_logprobs(torch.tanh(hidden) @ weight.T, labels), logp_plain)
    expected = torch.autograd.grad(whole, [hidden, weight])
    parts = []

    def loss_of(logp, logits, at):
        assert logits.numel() <= 3 * V
        assert torch.allclose(logp, token_logprobs(logits, labels[at]))
        parts.append(perce_loss(logp, logp_plain[at], n_tokens=N))
        return parts[-1]

    backward_in_slices(loss_of, torch.tanh(hidden), weight, labels)
    assert len(parts) == 4 and sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)
    for mine, theirs in zip([hidden.grad, weight.grad], expected):
        assert torch.allclose(mine, theirs, atol=1e-6) and theirs.abs().max() > 0.01


def test_gradients_are_added_to_those_that_are_there_and_frozen_heads_have_none(given):
    hidden, weight, labels = given
    frozen = weight.detach()

    def loss_of(logp, logits, at):
        return weighted_nll(logp, torch.ones(len(logp)), N)

    backward_in_slices(loss_of, 1 * hidden, frozen, labels)
    once = hidden.grad.clone()
    backward_in_slices(loss_of, 1 * hidden, frozen, labels)
    assert torch.allclose(hidden.grad, 2 * once) and once.norm() > 0 and frozen.grad is None


def test_the_gradient_is_that_of_finite_differences(given):
    """gradcheck of the slices: their gradient, wrapped as a function of hidden states and head."""
    hidden, weight, labels = given
    weights = torch.rand(N, dtype=torch.float64)

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden, weight):
            inputs = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
            losses = []
            with torch.enable_grad():

                def loss_of(logp, logits, at):
                    losses.append(weighted_nll(logp, weights[at], N))
                    return losses[-1]

                backward_in_slices(loss_of, *inputs, labels)
            ctx.gradients = [x.grad for x in inputs]
            return sum(losses).detach()

        @staticmethod
        def backward(ctx, grad):
            return tuple(grad * g for g in ctx.gradients)

    assert torch.autograd.gradcheck(Loss.apply, (hidden, weight))


def test_frozen_weights_in_half_precision_take_part(given):
    hidden, weight, labels = given
    whole = -token_logprobs(hidden @ weight.detach().T, labels).sum() / N
    (expected,) = torch.autograd.grad(whole, hidden)
    rows = hidden.detach().bfloat16().requires_grad_()

    def loss_of(logp, logits, at):
        return weighted_nll(logp, torch.ones(len(logp)), N)

    backward_in_slices(loss_of, 1 * rows, weight.detach().bfloat16(), labels)
    assert (rows.grad - expected).norm() < 0.05 * expected.norm()
