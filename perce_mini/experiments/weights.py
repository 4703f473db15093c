"""More rules for the token weights, added to percontrast.LOSSES by name.

Every rule takes the keyword arguments of the training step and returns weights (N,) without
gradient. The runs here do not accumulate gradients, so the mean over the N tokens of one call is
the mean over the whole optimisation step.
"""

import numpy as np
import torch

from perce_mini.experiments.rows import exact_tokens
from perce_mini.percontrast import LOSSES, perce_weights, personal_influence_ratio, pir_weights


def by_response(weights, examples):
    """Split weights (N,) into one tensor per response."""
    return weights.split([len(e.response) for e in examples])


def end_weights(examples, **step):
    """PerCE, except that the end token gets the mean weight of its response.

    The PIR of the end token is near 0, so PerCE gives it a lower weight than most tokens. The model
    might then learn less well where to stop, and write longer texts.
    """
    parts = by_response(pir_weights(**step).clone(), examples)
    for weights in parts:
        weights[-1] = weights.mean()
    return torch.cat(parts)


def per_response_weights(examples, **step):
    """PerCE averaged over the tokens of each response, then over responses, as in LongCE's code.

    Tokens of short responses count more than in PerCE.
    """
    weights = pir_weights(**step)
    parts = by_response(weights, examples)
    return torch.cat([part * len(weights) / (len(parts) * len(part)) for part in parts])


def add_exact_pir(examples, tokenizer):
    """Store the exact PIR of the response tokens in each Example.

    The rows must come from `rows_with_exact_pir`.
    """
    for e in examples:
        e.row["exact_tokens"] = exact_tokens(e.row, tokenizer)


def oracle_weights(logp_persona, examples, clip_min, clip_max, **others):
    """PerCE with the exact PIR (see `add_exact_pir`) instead of the model's PIR."""
    pir = np.concatenate([e.row["exact_tokens"] for e in examples])
    return perce_weights(torch.tensor(pir).to(logp_persona), clip_min, clip_max)


def longce_weights(logp_persona, logp_plain, **others):
    """LongCE, earlier work by the same group: the ratio of the probabilities, at most 5."""
    pir = personal_influence_ratio(logp_persona.detach(), logp_plain)
    return pir.exp().clamp(max=5.0)


def absolute_weights(logp_persona, logp_plain, **others):
    """|PIR|, divided by its mean: the token weights of UKP, without mixing in CE."""
    size = personal_influence_ratio(logp_persona.detach(), logp_plain).abs()
    return size / size.mean().clamp(min=1e-6)  # PIR is 0 in a batch of rows without a profile


def nextquill_weights(logp_persona, logp_plain, **others):
    """NextQuill: 0.9 where the persona raises P by over 0.05, else 0.1; divided by their mean."""
    gain = logp_persona.detach().exp() - logp_plain.exp()
    weights = torch.where(gain > 0.05, 0.9, 0.1)
    return weights / weights.mean()


def dft_weights(logp_persona, **others):
    """DFT: the model's probability of the token."""
    return logp_persona.detach().exp()


LOSSES |= {
    "end": end_weights,
    "per_response": per_response_weights,
    "oracle": oracle_weights,
    "longce": longce_weights,
    "absolute": absolute_weights,
    "nextquill": nextquill_weights,
    "dft": dft_weights,
}
