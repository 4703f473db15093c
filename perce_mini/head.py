"""From hidden states to log P over a large vocabulary, a slice of tokens at a time.

    logits (N, V) = hidden (N, C) @ head.T (C, V)

are the largest tensor of a training step by far, and log P needs one number of each row. Losses add up (Eq. 8 divides
once), so a slice's gradient is taken as soon as its loss is known, and its logits make room for those of the next.
"""

import torch
import torch.nn.functional as F

from perce_mini.percontrast import token_logprobs

ROWS = 256  # tokens in a slice: few enough to stay in a processor's cache, enough for fast matrix products


@torch.no_grad()
def score_in_slices(score, hidden, head, labels):
    """score(logits, labels) of every token, (..., N), without gradient; score: a function like `token_logprobs`.

    hidden (N, C): the states that predict the N response tokens; head (V, C): the output embedding; labels (N,) int64.
    """
    slices = zip(hidden.split(ROWS), labels.split(ROWS))
    return torch.cat([score(F.linear(h, head), y) for h, y in slices], dim=-1)


def backward_in_slices(loss_of, hidden, head, labels):
    """Add up loss_of(logp, logits, at) over all slices `at`, and send its gradient into what hidden and head come from.

    loss_of returns a scalar, the sum over a slice's tokens. The same as autograd on the whole (N, V) at once. Shapes as
    in `score_in_slices`.
    """
    own_head = head.detach().requires_grad_(head.requires_grad)
    slices = [part.detach().requires_grad_() for part in hidden.split(ROWS)]
    for i, part in enumerate(slices):
        at = slice(i * ROWS, i * ROWS + len(part))
        logits = F.linear(part, own_head)  # part @ own_head.T; autocast keeps what it casts of a trained head
        loss_of(token_logprobs(logits, labels[at]), logits, at).backward()
    to_hidden = torch.cat([part.grad for part in slices])
    if head.requires_grad:  # in one go: several processes exchange a tied weight's gradient once
        torch.autograd.backward([hidden, head], [to_hidden, own_head.grad])
    else:
        hidden.backward(to_hidden)
