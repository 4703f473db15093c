"""Rules for the weights beyond percontrast.LOSSES, called as `fit` does: weight_fn(batch, logp_persona, logp_plain)."""

import numpy as np
import torch

from perce_mini.experiments.rows import exact_tokens
from perce_mini.percontrast import perce_weights


class WeightRules:
    """Of a run, which names one of the methods below."""

    def __init__(self, run, tokenizer):
        self.run, self.tokenizer = run, tokenizer

    def clip(self, pir):
        return perce_weights(pir, self.run.clip_min, self.run.clip_max)

    def exact(self, batch, logp_persona, logp_plain):
        """From the generator of the default data."""
        pir = np.concatenate([exact_tokens(e.row, self.tokenizer) for e in batch.examples])
        return self.clip(torch.tensor(pir, dtype=logp_persona.dtype, device=logp_persona.device))

    def longce(self, batch, logp_persona, logp_plain):
        """The ratio itself, clipped from above: the loss of earlier work by the same group."""
        return (logp_persona - logp_plain).exp().clamp(max=5.0)

    def mean_one(self, batch, logp_persona, logp_plain):
        weights = self.clip(logp_persona - logp_plain)
        return weights / weights.mean()
