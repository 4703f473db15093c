"""From hidden states to log P over a large vocabulary, a slice of tokens at a time.

    logits (N, V) = hidden (N, C) @ head.T (C, V)

are the largest tensor of a training step by far, and log P needs one number of each row. So nothing here ever holds
more than ROWS of them, and none is computed twice: a slice's loss is known as soon as its logits are, losses add up
(Eq. 8 divides once), and so a slice's gradient is taken at once, in the place of its logits:

    dL/dlogits = dL/dlog P(y) * (one-hot(y) - softmax(logits))
"""

import torch

from perce_mini.percontrast import precise

ROWS = 256  # tokens in a slice: few enough to stay in a processor's cache, enough for fast matrix products


@torch.no_grad()
def logits_in_slices(hidden, head):
    """(slice, its logits), float32 at least, in memory that is used again: to take it anew costs half a product."""
    room = torch.empty(min(ROWS, len(hidden)), len(head), device=hidden.device, dtype=head.dtype)
    for at in (slice(i, i + ROWS) for i in range(0, len(hidden), ROWS)):
        if torch.is_autocast_enabled(hidden.device.type):  # which chooses the precision, and the memory
            yield at, precise(hidden[at] @ head.T)
        else:
            yield at, precise(torch.mm(hidden[at], head.T, out=room[: len(hidden[at])]))


@torch.no_grad()
def score_in_slices(score, hidden, head, labels):
    """score(logits, labels) of every token, (N,), without gradient; score: a function like `token_logprobs`.

    hidden (N, C): the states that predict the N response tokens; head (V, C): the output embedding; labels (N,) int64.
    """
    return torch.cat([score(logits, labels[at]) for at, logits in logits_in_slices(hidden, head)])


def logprobs_in_place(logits, labels):
    """`token_logprobs` of logits that nobody needs any more: one log-sum-exp, and no other memory."""
    logits -= logits.amax(-1, keepdim=True)
    right = logits.gather(-1, labels[:, None])[:, 0]
    return right - logits.exp_().sum(-1).log()


def backward_in_slices(loss_of, hidden, head, labels):
    """Add up loss_of(logp, logits, at) over all slices `at`, and send its gradient into what hidden and head come from.

    loss_of: a scalar, the sum over a slice's tokens of a function of their log P (the logits are there to be looked
    at). The same as autograd on the whole (N, V) at once. Shapes as in `score_in_slices`.
    """
    to_hidden = torch.empty_like(hidden)
    to_head = torch.zeros_like(head) if head.requires_grad else None
    for at, logits in logits_in_slices(hidden, head):
        y = labels[at, None]
        logits -= logits.logsumexp(-1, keepdim=True)  # now log P of every entry
        logp = logits.gather(-1, y)[:, 0].requires_grad_()
        (factor,) = torch.autograd.grad(loss_of(logp, logits, at), logp)  # dL/dlog P(y)
        with torch.no_grad():
            gradient = logits.exp_().mul_(-factor[:, None]).scatter_add_(-1, y, factor[:, None]).to(head.dtype)
            to_hidden[at] = gradient @ head
            if to_head is not None:
                to_head.addmm_(gradient.T, hidden[at].to(head.dtype))
    if to_head is None:
        hidden.backward(to_hidden)
    else:
        torch.autograd.backward([hidden, head], [to_hidden, to_head])
