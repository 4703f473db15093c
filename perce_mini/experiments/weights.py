"""Rules for the weights of a run beyond percontrast.LOSSES. `fit` calls them with what follows run and tokenizer."""

import numpy as np
import torch

from perce_mini.experiments.rows import exact_tokens
from perce_mini.percontrast import perce_weights, personal_influence_ratio


def exact(run, tokenizer, batch, logp_persona, logp_plain):
    """From the generator of the default data."""
    pir = np.concatenate([exact_tokens(e.row, tokenizer) for e in batch.examples])
    pir = torch.tensor(pir, dtype=logp_persona.dtype, device=logp_persona.device)
    return perce_weights(pir, run.clip_min, run.clip_max)


def longce(run, tokenizer, batch, logp_persona, logp_plain):
    """The ratio itself, clipped from above: the loss of earlier work by the same group."""
    return personal_influence_ratio(logp_persona, logp_plain).exp().clamp(max=5.0)


def mean_one(run, tokenizer, batch, logp_persona, logp_plain):
    weights = perce_weights(personal_influence_ratio(logp_persona, logp_plain), run.clip_min, run.clip_max)
    return weights / weights.mean()
