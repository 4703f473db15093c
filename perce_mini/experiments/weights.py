"""Rules for the weights beyond those of the paper, added to percontrast.LOSSES by name.

A rule is called once per optimisation step here (no gradient accumulation), so a mean over its
tokens is a mean over the step.
"""

import numpy as np
import torch

from perce_mini.experiments.rows import exact_tokens
from perce_mini.percontrast import LOSSES, perce_weights, personal_influence_ratio, pir_weights


def mean_one(weights):
    return weights / weights.mean()


def by_response(weights, examples):
    """The weights (N,) as a list of tensors, one per response."""
    return weights.split([len(e.response) for e in examples])


# ------------------------------------------------------------------------- variants of PerCE


def mean_one_weights(**step):
    """PerCE's weights, divided by their mean."""
    return mean_one(pir_weights(**step))


def end_weights(examples, **step):
    """PerCE's weights, but the end token gets the mean weight of its response.

    Its PIR is near 0, so PerCE gives it the floor while other tokens have more. The model then
    learns less well where to stop, and its texts may grow longer.
    """
    parts = by_response(pir_weights(**step).clone(), examples)
    for weights in parts:
        weights[-1] = weights.mean()
    return torch.cat(parts)


def per_response_weights(examples, **step):
    """PerCE with the mean over each response first and then over responses, as in LongCE's code.

    The tokens of short responses then count more.
    """
    weights = pir_weights(**step)
    parts = by_response(weights, examples)
    return torch.cat([part * len(weights) / (len(parts) * len(part)) for part in parts])


def add_exact_pir(examples, tokenizer):
    """Put the exact PIR of their tokens into Examples of solved rows, for `oracle_weights`."""
    for e in examples:
        e.row["exact_tokens"] = exact_tokens(e.row, tokenizer)


def oracle_weights(logp_persona, examples, clip_min, clip_max, **others):
    """PerCE's weights if the model's PIR were exact."""
    pir = np.concatenate([e.row["exact_tokens"] for e in examples])
    return perce_weights(torch.tensor(pir).to(logp_persona), clip_min, clip_max)


# ------------------------------------------------------------------------- other papers' rules


def longce_weights(logp_persona, logp_plain, **others):
    """LongCE, earlier work by the same group: the ratio of the probabilities itself, at most 5."""
    pir = personal_influence_ratio(logp_persona.detach(), logp_plain)
    return pir.exp().clamp(max=5.0)


def absolute_weights(logp_persona, logp_plain, **others):
    """|PIR| with mean one (UKP's token weighting, without its mixture with CE)."""
    return mean_one(personal_influence_ratio(logp_persona.detach(), logp_plain).abs())


def nextquill_weights(logp_persona, logp_plain, **others):
    """NextQuill: 0.9 where the persona adds more than 0.05 to the probability, else 0.1."""
    gain = logp_persona.detach().exp() - logp_plain.exp()
    return mean_one(torch.where(gain > 0.05, 0.9, 0.1))


def dft_weights(logp_persona, **others):
    """DFT: the model's probability of the token itself."""
    return logp_persona.detach().exp()


LOSSES |= {
    "mean_one": mean_one_weights,
    "end": end_weights,
    "per_response": per_response_weights,
    "oracle": oracle_weights,
    "longce": longce_weights,
    "absolute": absolute_weights,
    "nextquill": nextquill_weights,
    "dft": dft_weights,
}
