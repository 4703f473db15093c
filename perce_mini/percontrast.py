"""PerContrast and the PerCE loss (arXiv 2603.06595), complete, in one file that needs only torch.

A training example is (p, x, y): a persona p (texts that the user wrote before), a query x, and the
response y that the user really wrote. The same response is scored in two contexts,

    persona view   p + x + y         plain view   x + y

and a token that becomes likelier when the persona is there is a personal token:

    PIR(y_i) = log P(y_i | p, x, y_<i) - log P(y_i | x, y_<i)                           (Eq. 2)
    w(y_i)   = clip(PIR(y_i), m, M),        m = 0.8, M = 5.0, no gradient               (Eq. 7)
    L        = -(1/n) sum_i w(y_i) log P(y_i | p, x, y_<i)                              (Eq. 8)

Everything below speaks of the response tokens of a batch as ONE flat vector of length N: row after row,
in the same order in both views. So PIR is a subtraction, and no mask travels along.

    logp_persona = token_logprobs(logits_persona, labels_persona)        # with gradient
    logp_plain   = token_logprobs(logits_plain, labels_plain)            # under torch.no_grad()
    perce_loss(logp_persona, logp_plain).backward()
"""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

CLIP_MIN, CLIP_MAX = 0.8, 5.0  # m and M of Eq. 7, the paper's defaults, in nats

# ---------------------------------------------------------------- from logits to one number a token


def token_logprobs(logits, labels, ignore_index=-100):
    """log P of every labelled token, in nats.

    logits (..., V); labels (...) int64, already shifted: labels[b, t] is the token predicted from
    position t, or `ignore_index` where nothing is scored (prompt and padding).
    Returns (N,) float32: the labelled positions, row by row.
    """
    keep = labels != ignore_index
    return -F.cross_entropy(logits[keep].float(), labels[keep], reduction="none")


def token_entropies(logits, labels, ignore_index=-100):
    """Entropy of the prediction at every labelled position, in nats. Shapes as in `token_logprobs`."""
    logp = logits[labels != ignore_index].float().log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


def project(score, hidden, head, labels, max_logits=2**26):
    """score(logits, labels) without ever holding more than about `max_logits` logits.

    hidden (N, C): the hidden states that predict the N response tokens; head (V, C): the output
    embedding; labels (N,) int64; score: `token_logprobs` or a function like it. Returns (N,).
    A slice's logits are dropped at once and computed again in the backward pass.
    """

    def score_slice(hidden, head, labels):
        return score(hidden @ head.T, labels)

    rows = max(1, max_logits // head.shape[0])
    if len(labels) <= rows:
        return score_slice(hidden, head, labels)
    slices = zip(hidden.split(rows), labels.split(rows))
    return torch.cat([checkpoint(score_slice, h, head, y, use_reentrant=False) for h, y in slices])


# ------------------------------------------------------------ PerContrast: which tokens are personal


def personal_influence_ratio(logp_persona, logp_plain):
    """PIR of every token in nats (Eq. 2). Both arguments and the result are (N,).

    It is a conditional pointwise mutual information between token and persona, and a *direct* effect:
    y_<i is held fixed, so the second token of a fixed phrase has PIR near 0 though the phrase is
    personal. It is negative where the persona speaks against the token.
    Raises ValueError if the views differ in length.
    """
    if logp_persona.shape != logp_plain.shape:
        raise ValueError(f"the views differ: {tuple(logp_persona.shape)} and {tuple(logp_plain.shape)} tokens")
    return logp_persona - logp_plain


def perce_weights(pir, clip_min=CLIP_MIN, clip_max=CLIP_MAX):
    """The weights w (N,) of Eq. 7, without gradient. The log-ratio itself is clipped, not its exponential.

    Raises ValueError if clip_min > clip_max.
    """
    if clip_min > clip_max:
        raise ValueError(f"clip_min {clip_min} is above clip_max {clip_max}")
    return pir.detach().clamp(clip_min, clip_max)


# -------------------------------------------------- PerCE: train on every token, on those the most


def weighted_nll(logp, weights, n_tokens=None):
    """sum_i w_i * (-log P_i) / n, a scalar (Eq. 8). logp and weights are (N,).

    n_tokens: the response tokens of the WHOLE optimisation step, default N. Pass it when the step is
    made of several micro-batches, and add up what they return: a mean of means would be wrong.
    """
    return -(weights * logp).sum() / (logp.numel() if n_tokens is None else n_tokens)


def perce_loss(logp_persona, logp_plain, clip_min=CLIP_MIN, clip_max=CLIP_MAX, n_tokens=None):
    """The PerCE loss, a scalar in nats a token (Eq. 8), of any causal language model.

    logp_persona, logp_plain (N,): log P of the same response tokens with and without the persona.
    Gradient flows through logp_persona alone. n_tokens as in `weighted_nll`.
    """
    weights = perce_weights(personal_influence_ratio(logp_persona, logp_plain), clip_min, clip_max)
    return weighted_nll(logp_persona, weights, n_tokens)


# ------------------------------------------------------------------------------------ the baselines
# All four losses are Eq. 8 and differ in the weights alone. The paper does not give the formulas of
# LossCE and EntCE; here they clip another score than PIR, in nats too, to the same interval. That is
# free of batch statistics, so gradient accumulation changes nothing.


def ce_weights(logp_persona, logp_plain, entropy, clip_min, clip_max):
    """CE: every token counts 1. Ordinary supervised fine-tuning."""
    return torch.ones_like(logp_persona)


def lossce_weights(logp_persona, logp_plain, entropy, clip_min, clip_max):
    """LossCE: w = clip(-log P(y_i | p, x, y_<i), m, M). Tokens that are hard now count more."""
    return (-logp_persona.detach()).clamp(clip_min, clip_max)


def entce_weights(logp_persona, logp_plain, entropy, clip_min, clip_max):
    """EntCE: w = clip(H[P(. | p, x, y_<i)], m, M). Tokens predicted with doubt count more."""
    return entropy.detach().clamp(clip_min, clip_max)


def pir_weights(logp_persona, logp_plain, entropy, clip_min, clip_max):
    """PerCE: w = clip(PIR, m, M). Tokens that need the persona count more."""
    return perce_weights(personal_influence_ratio(logp_persona, logp_plain), clip_min, clip_max)


LOSSES = {"ce": ce_weights, "lossce": lossce_weights, "entce": entce_weights, "perce": pir_weights}
