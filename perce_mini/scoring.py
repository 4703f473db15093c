"""Measure how well a model predicts held-out responses, and how good its own texts are.

Every metric is a ratio of two sums over examples, for instance

    accuracy on personal tokens = correctly predicted personal tokens / personal tokens

These sums can be computed per task or per user and added up, so the bootstrap only has to resample
users.
"""

import numpy as np
import torch
from tqdm import tqdm

from perce_mini.dataset import collate
from perce_mini.meteor import meteor_exact
from perce_mini.percontrast import (
    CLIP_MIN,
    personal_influence_ratio,
    token_entropies,
    token_logprobs,
)
from perce_mini.rouge import RougeL, rouge_l, words
from perce_mini.runtime.device import autocast, in_batches
from perce_mini.runtime.errors import UserError

# {metric: label}, in the order of the tables. The data say which tokens are personal.
METRICS = {
    "rouge_l": "ROUGE-L F of generated text",
    "rouge_p": "ROUGE-L precision",
    "rouge_r": "ROUGE-L recall",
    "meteor_exact": "METEOR, exact matches only",
    "length": "generated / reference length",
    "logp": "log P with persona, nats/token",
    "logp_plain": "log P without persona",
    "logp_personal": "log P of personal tokens",
    "logp_other": "log P of the other tokens",
    "personal_accuracy": "accuracy on personal tokens",
    "pir": "mean PIR, nats/token",
    "pir_precision": f"precision of PIR > {CLIP_MIN}",
    "pir_recall": f"recall of PIR > {CLIP_MIN}",
    "pir_f1": f"F1 of PIR > {CLIP_MIN}",
}
MAX_NEW_TOKENS = 160  # maximum length of a generated text
DRAWS = 10_000  # number of bootstrap samples


@torch.no_grad()
def score_tokens(model, examples):
    """Return a dict per example of float64 arrays over its response tokens: "logp", "logp_plain",
    "pir", "hit" (1.0 where the most likely token is correct) and "entropy"."""
    batch = collate(examples, model.head.device)
    with autocast(model.head.device):
        logits = model(batch.persona.ids, batch.persona.target_positions)
        plain_logits = model(batch.plain.ids, batch.plain.target_positions)
    logp = token_logprobs(logits, batch.labels).double()
    logp_plain = token_logprobs(plain_logits, batch.labels).double()
    scores = {
        "logp": logp,
        "logp_plain": logp_plain,
        "pir": personal_influence_ratio(logp, logp_plain),
        "hit": (logits.argmax(-1) == batch.labels).double(),
        "entropy": token_entropies(logits).double(),
    }
    ends = np.cumsum([len(e.response) for e in examples])[:-1]
    split = {name: np.split(values.cpu().numpy(), ends) for name, values in scores.items()}
    return [{name: arrays[i] for name, arrays in split.items()} for i in range(len(examples))]


def evaluate(
    model, tokenizer, examples, max_new_tokens, temperature, seed=0, desc="score", batch_size=None
):
    """Score every example, and generate a text for it unless max_new_tokens is 0.

    batch_size: 32 by default, or 8 for a pretrained model, which needs more memory.

    Returns one record (dict) per example: what `score_tokens` returns, plus "row",
    "profile_indices", "response" (ids), "personal" (bools), "prediction" (text), "rouge" (RougeL,
    or None without a text) and "meteor". Raises UserError if a probability is NaN or infinite.
    """

    def score_and_write(batch, start):
        scores, texts = score_tokens(model, batch), [""] * len(batch)
        if not all(np.isfinite(score["logp"] + score["pir"]).all() for score in scores):
            advice = "the learning rate was probably too high"
            raise UserError(f"{desc}: the model's probabilities are not finite; {advice}")
        if max_new_tokens:
            prompts, end = [e.prompt for e in batch], tokenizer.end
            with autocast(model.head.device):
                replies = model.generate(prompts, max_new_tokens, end, temperature, seed + start)
            texts = [tokenizer.decode(reply) for reply in replies]
        return zip(scores, texts)

    batch_size = batch_size or (8 if tokenizer.pretrained else 32)
    records, quiet = [], desc is None
    bar = tqdm(total=len(examples), desc=desc, unit="row", dynamic_ncols=True, disable=quiet)
    for batch, results in in_batches(examples, batch_size, score_and_write):
        for e, (score, text) in zip(batch, results):
            record = {
                "row": e.row,
                "profile_indices": e.profile_indices,
                "response": e.response,
                "personal": np.array(e.personal),
                "prediction": text,
                "rouge": rouge_l(text, e.row["response"]) if max_new_tokens else None,
                "meteor": meteor_exact(text, e.row["response"]),
            }
            records.append(record | score)
        bar.update(len(batch))
    bar.close()
    return records


# ------------------------------------------------------------------------------ records to metrics


def tallies(record):
    """Compute what an example contributes to every metric: {name: (numerator, denominator)}."""
    logp, pir = record["logp"], record["pir"]
    labelled = "personal" in record["row"]  # otherwise the personal tokens are unknown
    personal = record["personal"] & labelled
    other = ~record["personal"] & labelled
    flagged = (pir > CLIP_MIN) & labelled
    true_positives = (flagged & personal).sum()
    n, generated = len(logp), record["rouge"] is not None
    rouge = record["rouge"] or RougeL(0, 0, 0)
    n_written, n_words = len(words(record["prediction"])), len(words(record["row"]["response"]))
    return {
        "rouge_l": (rouge.fmeasure, generated),
        "rouge_p": (rouge.precision, generated),
        "rouge_r": (rouge.recall, generated),
        "meteor_exact": (record["meteor"], generated),
        "length": (n_written, n_words * generated),
        "logp": (logp.sum(), n),
        "logp_plain": (record["logp_plain"].sum(), n),
        "logp_personal": (logp[personal].sum(), personal.sum()),
        "logp_other": (logp[other].sum(), other.sum()),
        "personal_accuracy": (record["hit"][personal].sum(), personal.sum()),
        "pir": (pir.sum(), n),
        "pir_precision": (true_positives, flagged.sum()),
        "pir_recall": (true_positives, personal.sum()),
        "pir_f1": (2 * true_positives, flagged.sum() + personal.sum()),
    }


def tally_table(records):
    """Tabulate the numerators and denominators of all examples: (examples, metrics, 2)."""
    rows = [[tally[name] for name in METRICS] for tally in map(tallies, records)]
    return np.array(rows, dtype=float)


def ratio(sums):
    """Divide numerator by denominator along the last axis; NaN where the denominator is 0."""
    empty = np.full(sums.shape[:-1], np.nan)
    return np.divide(sums[..., 0], sums[..., 1], out=empty, where=sums[..., 1] > 0)


def summarize(records):
    """Return {metric: value}; a value is None if there is nothing to count (no generated texts)."""
    values = ratio(tally_table(records).sum(0))
    return {name: None if np.isnan(x) else float(x) for name, x in zip(METRICS, values)}


def by_task(records):
    """Group the records: {"all": records, task: its records, ...}, or just "all" for one task."""
    tasks = sorted({record["row"]["task"] for record in records})
    groups = {"all": records}
    if len(tasks) > 1:
        for task in tasks:
            groups[task] = [record for record in records if record["row"]["task"] == task]
    return groups


# ------------------------------------------------------------ confidence intervals of differences


def difference(records, reference):
    """Compare two runs on the same examples: {metric: (difference, low, high)}.

    [low, high] is a paired bootstrap 95 % interval over users. Each bootstrap sample draws n of the
    n users with replacement and computes the difference of the two runs' metrics on those users'
    examples. The interval contains the middle 95 % of 10,000 such differences. With a single user,
    low and high are NaN.
    """
    users = [record["row"]["user"] for record in records]
    names, index = np.unique(users, return_inverse=True)
    n = len(names)
    sums = np.zeros((2, n, len(METRICS), 2))  # per run and user
    np.add.at(sums[0], index, tally_table(reference))
    np.add.at(sums[1], index, tally_table(records))

    times_drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    drawn_sums = np.tensordot(times_drawn, sums, axes=(1, 1))  # (DRAWS, 2, metrics, 2)
    metrics = ratio(drawn_sums)
    changes = metrics[:, 1] - metrics[:, 0]
    observed = ratio(sums[1].sum(0)) - ratio(sums[0].sum(0))

    intervals = {}
    for i, name in enumerate(METRICS):
        if not np.isnan(observed[i]):
            low, high = np.nan, np.nan
            if n > 1:
                low, high = np.nanquantile(changes[:, i], [0.025, 0.975])
            intervals[name] = (observed[i], low, high)
    return intervals
