"""PerContrast and the PerCE loss (arXiv 2603.06595), complete, in one file that needs only torch.

A training example is (p, x, y): a persona p (texts that the user wrote before), a query x, and the
response y that the user actually wrote. The same response is scored in two contexts:

    persona view   p + x + y              plain view   x + y

A token that becomes more likely when the persona is present is a personal token:

    PIR(y_i) = log P(y_i | p, x, y_<i) - log P(y_i | x, y_<i)                            (Eq. 2)
    w(y_i)   = clip(PIR(y_i), m, M),        m = 0.8, M = 5.0, no gradient                (Eq. 7)
    L        = -(1/n) sum_i w(y_i) log P(y_i | p, x, y_<i)                               (Eq. 8)

Everything below treats the response tokens of a batch as ONE flat vector of length N: row after
row, in the same order in both views. So PIR is a subtraction, and no mask is needed.

    logp_persona = token_logprobs(logits_persona, labels_persona)        # with gradient
    logp_plain   = token_logprobs(logits_plain, labels_plain)            # under torch.no_grad()
    perce_loss(logp_persona, logp_plain).backward()
"""

import torch
import torch.nn.functional as F

CLIP_MIN, CLIP_MAX = 0.8, 5.0  # the floor m and the cap M of Eq. 7, in nats: the paper's defaults

# ------------------------------------------------------ from logits to one number per token


def at_least_float32(x):
    """Convert half precision to float32: bfloat16 is too coarse for differences and long sums."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def select_scored(logits, labels, ignore_index):
    """Select the logits (N, V) and labels (N,) at positions whose label is not `ignore_index`.

    Raises ValueError if the shapes do not match or a label lies outside the vocabulary.
    """
    if labels.shape != logits.shape[:-1]:
        shapes = f"{tuple(labels.shape)} do not match logits {tuple(logits.shape)}"
        raise ValueError(f"labels {shapes}")
    scored = labels != ignore_index
    if not scored.all():  # no copy if every position is scored
        logits, labels = logits[scored], labels[scored]
    vocab_size = logits.shape[-1]
    if ((labels < 0) | (labels >= vocab_size)).any():
        raise ValueError(f"labels must be {ignore_index} or between 0 and {vocab_size - 1}")
    return logits.reshape(-1, vocab_size), labels.flatten()


def token_logprobs(logits, labels, ignore_index=-100):
    """Return log P of every labelled token, in nats.

    logits (..., V); labels (...) int64, already SHIFTED: labels[b, t] is the token predicted from
    position t, or `ignore_index` where nothing is scored (prompt, padding). Returns (N,), float32
    or float64. If you forget the shift, you get no error: the model learns to copy its input, and
    the loss looks good. `causal_lm_logprobs` shifts the labels for you.
    """
    logits, labels = select_scored(logits, labels, ignore_index)
    nll = []  # work in slices, because the backward pass of cross_entropy copies its logits
    for some_logits, some_labels in zip(logits.split(256), labels.split(256)):
        some_logits = at_least_float32(some_logits)
        nll.append(F.cross_entropy(some_logits, some_labels, reduction="none"))
    return -torch.cat(nll)


def causal_lm_logprobs(logits, labels, ignore_index=-100):
    """`token_logprobs` for unshifted labels (Hugging Face): logits (B, T, V), labels (B, T)."""
    return token_logprobs(logits[:, :-1], labels[:, 1:], ignore_index)


def token_entropies(logits):
    """Return the entropy of every predicted distribution, in nats: logits (..., V) -> (...)."""
    p = at_least_float32(logits).softmax(-1)
    return torch.special.entr(p).sum(-1)  # entr(p) = -p log p, and 0 at p = 0


# ------------------------------------------------------ PerContrast: which tokens are personal


def personal_influence_ratio(logp_persona, logp_plain):
    """Return the PIR of every token, in nats (Eq. 2). Both arguments and the result are (N,).

    Example: if P(token) is 0.5 with the persona and 0.1 without it, PIR is ln 5 = 1.609.

    PIR is the pointwise mutual information of token and persona, given the query and y_<i. It is a
    *direct* effect, because y_<i is held fixed. If y_<i already determines the rest of a phrase, as
    in "Eliza|beth", the PIR of the rest is near 0, even if the phrase is personal. PIR is negative
    where the persona makes a token less likely. It is 0, not NaN, where both views give
    probability 0.
    Raises ValueError if the views differ in length.
    """
    if logp_persona.shape != logp_plain.shape:
        shapes = f"{tuple(logp_persona.shape)} and {tuple(logp_plain.shape)}"
        raise ValueError(f"the two views must score the same tokens, not {shapes}")
    logp_persona, logp_plain = at_least_float32(logp_persona), at_least_float32(logp_plain)
    return torch.where(logp_persona == logp_plain, 0.0, logp_persona - logp_plain)


def perce_weights(pir, clip_min=CLIP_MIN, clip_max=CLIP_MAX):
    """The weights (N,) of Eq. 7, without gradient. The log-ratio is clipped, not its exponential.

    Without `detach` the model could lower its loss by making a personal token less likely, which
    lowers its weight. The floor keeps every token in the loss. With clip_min < 0, a token with a
    negative PIR could get a negative weight, and the model would be trained *away* from what the
    user wrote. Raises ValueError unless clip_min <= clip_max.
    """
    if not clip_min <= clip_max:  # also rejects NaN
        raise ValueError(f"clip_min {clip_min} must not be above clip_max {clip_max}")
    return at_least_float32(pir.detach()).clamp(clip_min, clip_max)


# ------------------------------------------------------ PerCE: a weighted cross-entropy


def weighted_nll(logp, weights, n_tokens=None):
    """sum_i w_i * (-log P_i) / n, a scalar (Eq. 8). logp and weights are (N,).

    n_tokens: the number of response tokens in the WHOLE optimisation step (default: N). If the step
    has several micro-batches, pass the same n_tokens for each and add up the results; a mean of
    means would be a different loss. Raises ValueError if n_tokens is below 1.
    """
    n_tokens = logp.numel() if n_tokens is None else n_tokens
    if n_tokens < 1:
        raise ValueError("no response tokens: the loss is a mean over them")
    return -(weights * at_least_float32(logp)).sum() / n_tokens


def perce_loss(logp_persona, logp_plain, clip_min=CLIP_MIN, clip_max=CLIP_MAX, n_tokens=None):
    """The PerCE loss for any causal language model: a scalar, in nats per token (Eq. 8).

    logp_persona, logp_plain (N,): log P of the same response tokens with and without the persona.
    The gradient flows only through logp_persona. n_tokens: see `weighted_nll`. Score both views
    without dropout: PIR would mistake its noise for the persona's influence.
    """
    pir = personal_influence_ratio(logp_persona, logp_plain)
    return weighted_nll(logp_persona, perce_weights(pir, clip_min, clip_max), n_tokens)


# ------------------------------------------------------ the baselines
# All losses use Eq. 8; only the weights differ. The training step passes each weight function the
# same keyword arguments, and the function returns weights (N,) without gradient. The paper gives no
# formulas for LossCE and EntCE; here they clip the loss or the entropy to the same interval.


def ce_weights(logp_persona, **others):
    """Ordinary fine-tuning: every token has weight 1."""
    return torch.ones_like(logp_persona)


def lossce_weights(logp_persona, clip_min, clip_max, **others):
    """Tokens that are hard for the model get a larger weight: clip(-log P)."""
    return perce_weights(-logp_persona, clip_min, clip_max)


def entce_weights(logits, clip_min, clip_max, **others):
    """Tokens where the model is uncertain get a larger weight: clip(entropy)."""
    return perce_weights(token_entropies(logits.detach()), clip_min, clip_max)


def pir_weights(logp_persona, logp_plain, clip_min, clip_max, **others):
    """Tokens that depend on the persona get a larger weight: clip(PIR). Eq. 8 is then PerCE."""
    pir = personal_influence_ratio(logp_persona, logp_plain)
    return perce_weights(pir, clip_min, clip_max)


LOSSES = {
    "ce": ce_weights,
    "lossce": lossce_weights,
    "entce": entce_weights,
    "perce": pir_weights,
}
