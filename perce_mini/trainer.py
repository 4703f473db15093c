"""One optimisation step: two views, one weighted loss, one update.

For every micro-batch, the step does what the README shows for your own trainer:

    1. log P of the response in the plain view, under no_grad      token_logprobs
    2. log P of the response in the persona view, with gradient    token_logprobs
    3. the weights and the weighted loss, together perce_loss      LOSSES["perce"], weighted_nll
    4. loss.backward()

runtime/run.py calls `training_step` in a loop that saves checkpoints and can be resumed.
"""

import math
import time
from dataclasses import dataclass, replace

import torch

from perce_mini.dataset import collate, size
from perce_mini.percontrast import (
    CLIP_MAX,
    CLIP_MIN,
    LOSSES,
    personal_influence_ratio,
    token_logprobs,
    weighted_nll,
)
from perce_mini.runtime import distributed
from perce_mini.runtime.device import autocast
from perce_mini.runtime.errors import UserError


@dataclass
class Settings:
    """How to train a run. Checkpoints store the settings; resuming a run needs the same ones."""

    loss: str = "perce"  # one of percontrast.LOSSES
    clip_min: float = CLIP_MIN
    clip_max: float = CLIP_MAX
    ce_first: float = 0.0  # fraction of the steps that use CE before the loss takes over
    lr: float = 4e-3  # peak learning rate of AdamW
    steps: int = 240  # optimisation steps
    warmup: float = 0.1  # fraction of the steps used for learning-rate warm-up
    weight_decay: float = 0.01
    batch_size: int = 8  # examples per micro-batch
    grad_accum: int = 1  # micro-batches per optimisation step and process
    processes: int = 1
    seed: int = 0  # for the batch order and for randomly initialised weights
    data: str = ""  # folder with the rows
    data_sha256: str = ""  # hash of the file with the rows
    examples: int = 0  # number of training rows
    contrast: str = "none"  # the profile in the plain view (contrast.py)
    top_k: int = 4  # number of profile items in the prompt
    init: str = ""  # folder of the starting model; "" for a base model
    init_sha256: str = ""  # hash of its weights
    template: str = ""  # --template, as JSON
    lora_rank: int = 0  # 0: all weights are trained


class NotFiniteError(UserError):
    """The loss or the gradient became NaN or infinite."""


# ---------------------------------------------------------------------------- one optimisation step


# What a step logs, as means over its response tokens. Losses with different weights cannot be
# compared, but "ce" is always the unweighted cross-entropy. "pir" is 0 if it is not computed.
LOGGED = ["loss", "ce", "weight", "floor", "cap", "pir"]


def micro_batch_loss(model, batch, settings, n_tokens):
    """Return this micro-batch's part of Eq. 8 (a scalar with gradient) and the sums for the log.

    n_tokens: the number of response tokens in the whole optimisation step.
    """
    logp_plain = None
    if settings.loss != "ce":
        # PerCE's only extra work: one forward pass over the shorter view, without gradient.
        # The other losses need it only for the log.
        with torch.no_grad():
            logits = model(batch.plain.ids, batch.plain.target_positions)
            logp_plain = token_logprobs(logits, batch.labels)
    logits = model(batch.persona.ids, batch.persona.target_positions)
    logp_persona = token_logprobs(logits, batch.labels)
    weights = LOSSES[settings.loss](
        logp_persona=logp_persona,
        logp_plain=logp_plain,
        logits=logits,
        clip_min=settings.clip_min,
        clip_max=settings.clip_max,
        examples=batch.examples,  # for weights that depend on the rows (experiments/weights.py)
    )
    loss = weighted_nll(logp_persona, weights, n_tokens)

    logp = logp_persona.detach()
    pir = logp * 0 if logp_plain is None else personal_influence_ratio(logp, logp_plain)
    at_floor, at_cap = weights <= settings.clip_min, weights >= settings.clip_max
    logged = [loss.detach() * n_tokens, -logp, weights, at_floor, at_cap, pir]  # in LOGGED's order
    return loss, torch.stack([values.sum() for values in logged])


def training_step(model, optimizer, micro_batches, settings, step):
    """Update the weights once. micro_batches: lists of Examples. Returns a log line.

    The gradients of all micro-batches add up. Each loss is divided by the number of response tokens
    in the whole step. Raises NotFiniteError instead of updating with NaN or infinity.
    """
    start, device = time.perf_counter(), model.head.device
    if step < settings.ce_first * settings.steps:
        settings = replace(settings, loss="ce")
    n_tokens = sum(len(e.response) for examples in micro_batches for e in examples)
    sums = torch.zeros(len(LOGGED), device=device)
    optimizer.zero_grad()
    for examples in distributed.my_share(micro_batches):  # without torchrun: all of them
        with autocast(device):
            loss, part = micro_batch_loss(model, collate(examples, device), settings, n_tokens)
        loss.backward()
        sums += part
    distributed.sum_gradients(model)
    means = (distributed.sum_over_processes(sums) / n_tokens).tolist()
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    if not math.isfinite(means[0] + grad_norm):
        what = f"the loss is {means[0]} and the gradient norm {grad_norm}"
        raise NotFiniteError(f"{what} at step {step + 1}")
    lr = optimizer.param_groups[0]["lr"] = learning_rate(step, settings)
    optimizer.step()
    n_inputs = sum(size(e) for examples in micro_batches for e in examples)
    tokens_s = n_inputs / (time.perf_counter() - start)
    line = {"step": step + 1, "lr": lr, "grad_norm": grad_norm, "tokens_s": tokens_s}
    return line | dict(zip(LOGGED, means))


def learning_rate(step, settings):
    """Linear warm-up to the peak, then linear decay towards 0."""
    warmup_steps = settings.warmup * settings.steps
    rising = (step + 1) / max(warmup_steps, 1)
    falling = (settings.steps - step) / max(settings.steps - warmup_steps, 1)
    return settings.lr * min(rising, falling)


def make_optimizer(model, settings):
    """Create AdamW for the trained weights (all of them, or the LoRA adapters)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    decay = settings.weight_decay
    return torch.optim.AdamW(trained, lr=settings.lr, betas=(0.9, 0.95), weight_decay=decay)
