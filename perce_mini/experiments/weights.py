"""Rules for the weights beyond those of the paper, added to percontrast.LOSSES by name."""

import numpy as np
import torch

from perce_mini.experiments.rows import exact_tokens
from perce_mini.percontrast import LOSSES, perce_weights, personal_influence_ratio, pir_weights


def longce_weights(logp_persona, logp_plain, **others):
    """LongCE, earlier work by the same group: the ratio of the probabilities itself, at most 5."""
    pir = personal_influence_ratio(logp_persona.detach(), logp_plain)
    return pir.exp().clamp(max=5.0)


def mean_one_weights(**step):
    """PerCE's weights, divided by their mean over the micro-batch."""
    weights = pir_weights(**step)
    return weights / weights.mean()


def add_exact_pir(examples, tokenizer):
    """Put the exact PIR of their tokens into Examples of solved rows, for `oracle_weights`."""
    for e in examples:
        e.row["exact_tokens"] = exact_tokens(e.row, tokenizer)


def oracle_weights(logp_persona, examples, clip_min, clip_max, **others):
    """PerCE's weights if the model's PIR were exact."""
    pir = np.concatenate([e.row["exact_tokens"] for e in examples])
    return perce_weights(torch.tensor(pir).to(logp_persona), clip_min, clip_max)


LOSSES |= {"longce": longce_weights, "mean_one": mean_one_weights, "oracle": oracle_weights}
