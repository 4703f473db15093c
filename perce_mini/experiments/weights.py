"""Rules for the weights beyond percontrast.LOSSES, called as `fit` does: weight_fn(batch, logp_persona, logp_plain)."""

import copy

import numpy as np
import torch

from perce_mini.experiments.rows import exact_tokens
from perce_mini.head import score_in_slices
from perce_mini.percontrast import perce_weights, personal_influence_ratio, token_logprobs


class WeightRule:
    """The rule that a run names: one of the methods below."""

    def __init__(self, run, model, tokenizer):
        self.run, self.model, self.tokenizer, self.calls = run, model, tokenizer, 0
        self.copy = copy.deepcopy(model) if run.weights in ("frozen", "stale") else None
        self.rule = getattr(self, run.weights)

    def __call__(self, batch, logp_persona, logp_plain):
        self.calls += 1
        return self.rule(batch, logp_persona, logp_plain)

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

    def warm_up(self, batch, logp_persona, logp_plain):
        """From CE's weights to PerCE's within the first half of the steps."""
        share = min(1, 2 * self.calls / self.run.steps)
        return 1 + share * (self.clip(logp_persona - logp_plain) - 1)

    def frozen(self, batch, logp_persona, logp_plain):
        """From a copy of the model as it started."""
        scores = [score_view(token_logprobs, self.copy, view, batch.labels) for view in [batch.persona, batch.plain]]
        return self.clip(personal_influence_ratio(*scores))

    def stale(self, batch, logp_persona, logp_plain):
        """From a copy of the model that is renewed every 50 steps."""
        if self.calls % 50 == 1:
            self.copy.load_state_dict(self.model.state_dict())
        return self.frozen(batch, logp_persona, logp_plain)


@torch.no_grad()
def score_view(score, model, view, labels):
    """score(logits, labels) (N,) of the response tokens in a view."""
    return score_in_slices(score, model.hidden(view.ids).flatten(0, 1)[view.at], model.head, labels)
