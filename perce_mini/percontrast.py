"""PerContrast and the PerCE loss (arXiv 2603.06595), complete, in one file that needs only torch.

A training example is (p, x, y): a persona p (texts that the user wrote before), a query x, and the response y that the
user really wrote. The same response is scored in two contexts,

    persona view   p + x + y         plain view   x + y

and a token that becomes likelier when the persona is there is a personal token:

    PIR(y_i) = log P(y_i | p, x, y_<i) - log P(y_i | x, y_<i)                           (Eq. 2)
    w(y_i)   = clip(PIR(y_i), m, M),        m = 0.8, M = 5.0, no gradient               (Eq. 7)
    L        = -(1/n) sum_i w(y_i) log P(y_i | p, x, y_<i)                              (Eq. 8)

Everything below speaks of the response tokens of a batch as ONE flat vector of length N: row after row, in the same
order in both views. So PIR is a subtraction, and no mask travels along.

    logp_persona = token_logprobs(logits_persona, labels_persona)        # with gradient
    logp_plain   = token_logprobs(logits_plain, labels_plain)            # under torch.no_grad()
    perce_loss(logp_persona, logp_plain).backward()
"""

import torch
import torch.nn.functional as F

CLIP_MIN, CLIP_MAX = 0.8, 5.0  # m, the floor, and M, the cap, of Eq. 7: the paper's defaults, in nats

# ---------------------------------------------------------------- from logits to one number per token


def precise(x):
    """Half precision becomes float32, in which differences and long sums are exact enough."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def labelled(logits, labels, ignore_index):
    """The logits (N, V) and labels (N,) of scored positions.

    Raises ValueError for labels of another shape, and for one outside the vocabulary.
    """
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels {tuple(labels.shape)} do not belong to logits {tuple(logits.shape)}")
    keep = labels != ignore_index
    if not keep.all():  # else all are scored, and nothing has to be copied
        logits, labels = logits[keep], labels[keep]
    if ((labels < 0) | (labels >= logits.shape[-1])).any():
        raise ValueError(f"labels must be {ignore_index} or from 0 to {logits.shape[-1] - 1}")
    return logits.reshape(-1, logits.shape[-1]), labels.flatten()


def token_logprobs(logits, labels, ignore_index=-100):
    """log P of every labelled token, in nats.

    logits (..., V); labels (...) int64, already SHIFTED: labels[b, t] is the token predicted from position t, or
    `ignore_index` where nothing is scored (prompt, padding). Returns (N,) float32 or more: the labelled positions, row
    by row. Unshifted ones (see `causal_lm_logprobs`) raise nothing: a model that copies its input has a low loss then.
    """
    logits, labels = labelled(logits, labels, ignore_index)
    return -F.cross_entropy(precise(logits), labels, reduction="none")


def causal_lm_logprobs(logits, labels, ignore_index=-100):
    """`token_logprobs` of logits (B, T, V) and labels (B, T) as Hugging Face has them: labels[b, t] is token t."""
    return token_logprobs(logits[:, :-1], labels[:, 1:], ignore_index)


def token_entropies(logits, labels, ignore_index=-100):
    """Entropy of the prediction at every labelled position, in nats. Shapes as in `token_logprobs`."""
    logits, _ = labelled(logits, labels, ignore_index)
    return torch.special.entr(precise(logits).softmax(-1)).sum(-1)  # entr(p) = -p log p, and 0 at p = 0


# ------------------------------------------------------------ PerContrast: which tokens are personal


def personal_influence_ratio(logp_persona, logp_plain):
    """PIR of every token in nats (Eq. 2). Both arguments and the result are (N,).

    It is a conditional pointwise mutual information between token and persona, and a *direct* effect: y_<i is held
    fixed, so the second token of a fixed phrase has PIR near 0 though the phrase is personal. It is negative where the
    persona speaks against the token, and 0 where both views give probability 0. Raises ValueError if the views
    differ in length.
    """
    if logp_persona.shape != logp_plain.shape:
        raise ValueError(f"the views differ: {tuple(logp_persona.shape)} and {tuple(logp_plain.shape)} tokens")
    logp_persona, logp_plain = precise(logp_persona), precise(logp_plain)
    return torch.where(logp_persona == logp_plain, 0.0, logp_persona - logp_plain)


def perce_weights(pir, clip_min=CLIP_MIN, clip_max=CLIP_MAX):
    """The weights w (N,) of Eq. 7, without gradient. The log-ratio itself is clipped, not its exponential.

    Raises ValueError unless clip_min <= clip_max.
    """
    if not clip_min <= clip_max:
        raise ValueError(f"clip_min {clip_min} must not be above clip_max {clip_max}")
    return precise(pir.detach()).clamp(clip_min, clip_max)


# -------------------------------------------------- PerCE: train on every token, most on the personal


def weighted_nll(logp, weights, n_tokens=None):
    """sum_i w_i * (-log P_i) / n, a scalar (Eq. 8). logp and weights are (N,).

    n_tokens: the response tokens of the WHOLE optimisation step, default N. Pass it when the step is made of several
    micro-batches, and add up what they return: a mean of means would be another loss. Raises ValueError if there
    are no tokens.
    """
    n_tokens = logp.numel() if n_tokens is None else n_tokens
    if n_tokens < 1:
        raise ValueError("no response tokens: the loss is a mean over them")
    return -(weights * precise(logp)).sum() / n_tokens


def perce_loss(logp_persona, logp_plain, clip_min=CLIP_MIN, clip_max=CLIP_MAX, n_tokens=None):
    """The PerCE loss, a scalar in nats per token (Eq. 8), of any causal language model.

    logp_persona, logp_plain (N,): log P of the same response tokens with and without the persona. Gradient flows
    through logp_persona alone. n_tokens as in `weighted_nll`.
    """
    weights = perce_weights(personal_influence_ratio(logp_persona, logp_plain), clip_min, clip_max)
    return weighted_nll(logp_persona, weights, n_tokens)


# ------------------------------------------------------------------------------------ the baselines
# All four losses are Eq. 8 and differ in the weights alone. The paper does not give the formulas of LossCE and EntCE;
# here they clip another score than PIR, also in nats, to the same interval. No score depends on the rest of the batch,
# so gradient accumulation changes nothing.

LOSSES = {
    "ce": "every token counts 1: ordinary fine-tuning",
    "lossce": "clip(-log P(y_i | p, x, y_<i)): tokens that are hard now count more",
    "entce": "clip(entropy of P(. | p, x, y_<i)): tokens predicted with doubt count more",
    "perce": "clip(PIR(y_i)): tokens that need the persona count more",
}


def loss_weights(loss, logp_persona, logp_plain=None, entropy=None, clip_min=CLIP_MIN, clip_max=CLIP_MAX):
    """The weights (N,) of a loss of LOSSES, without gradient. logp_plain is for perce, entropy for entce; all (N,)."""
    if loss == "ce":
        return torch.ones_like(logp_persona)
    if loss == "lossce":
        score = -logp_persona
    elif loss == "entce":
        score = entropy
    elif loss == "perce":
        score = personal_influence_ratio(logp_persona, logp_plain)
    else:
        raise ValueError(f"no loss {loss!r}; there are {', '.join(LOSSES)}")
    return perce_weights(score, clip_min, clip_max)
