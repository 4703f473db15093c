"""How good a run is: what its model knows of held-out responses, token by token, and what it writes itself.

Every figure is a ratio of two sums over examples, so that figures add up over tasks and users. A difference of two runs
on the same examples has a paired bootstrap interval: users, and seeds, are drawn with replacement again and again, and
of the differences that these samples show, the middle 95 % are the interval.
"""

import numpy as np
import torch
from tqdm import tqdm

from perce_mini.dataset import collate
from perce_mini.device import autocast
from perce_mini.errors import UserError
from perce_mini.head import score_in_slices
from perce_mini.percontrast import CLIP_MIN, personal_influence_ratio, token_entropies, token_logprobs
from perce_mini.rouge import RougeL, rouge_l

# name: what it says, in the order of the table. "personal" tokens are known where the data names them.
METRICS = {
    "rouge_l": "ROUGE-L F of generated text",
    "rouge_p": "ROUGE-L precision",
    "rouge_r": "ROUGE-L recall",
    "logp": "log P with persona, nats/token",
    "logp_plain": "log P without persona",
    "logp_personal": "log P of personal tokens",
    "logp_other": "log P of the other tokens",
    "personal_accuracy": "personal tokens predicted right",
    "pir": "mean PIR, nats per token",
    "pir_precision": f"precision of PIR > {CLIP_MIN}",
    "pir_recall": f"recall of PIR > {CLIP_MIN}",
    "pir_f1": f"F1 of PIR > {CLIP_MIN}",
}
MAX_NEW_TOKENS = 160  # of a generated text
DRAWS = 10_000  # samples of a bootstrap
T95 = [0, 0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]  # of Student's t, by number of values


def with_persona(logits, labels):
    """(3, N): log P, whether the likeliest token was right, entropy; of the same logits, which are computed once."""
    logp = token_logprobs(logits, labels)
    return torch.stack([logp, (logits.argmax(-1) == labels).to(logp), token_entropies(logits, labels)])


@torch.no_grad()
def score_tokens(model, examples):
    """Per example, {name: array over its response tokens}: log P in both views, PIR, hit and entropy."""
    head = model.head
    batch = collate(examples, head.device)
    with autocast(head.device):
        persona = model.hidden(batch.persona.ids).flatten(0, 1)[batch.persona.at]
        plain = model.hidden(batch.plain.ids).flatten(0, 1)[batch.plain.at]
        logp, hit, entropy = score_in_slices(with_persona, persona, head, batch.labels).double()
        logp_plain = score_in_slices(token_logprobs, plain, head, batch.labels).double()
    per_token = {"logp": logp, "logp_plain": logp_plain, "hit": hit, "entropy": entropy}
    per_token["pir"] = personal_influence_ratio(logp, logp_plain)
    ends = np.cumsum([len(e.response) for e in examples])[:-1]
    split = {name: np.split(values.cpu().numpy(), ends) for name, values in per_token.items()}
    return [{name: values[i] for name, values in split.items()} for i in range(len(examples))]


def evaluate(model, tokenizer, examples, max_new_tokens, temperature, seed=0, batch_size=32, desc="score"):
    """Score and generate. Returns one record (dict) per example, in the order given. Raises UserError."""
    records = []
    for i in tqdm(range(0, len(examples), batch_size), desc=desc, unit="batch", dynamic_ncols=True):
        group = examples[i : i + batch_size]
        scores, replies = score_tokens(model, group), [[]] * len(group)
        if not all(np.isfinite(score["pir"]).all() for score in scores):
            raise UserError(f"{desc}: the model's probabilities are not finite; was the rate too high?")
        if max_new_tokens:
            with autocast(model.head.device):
                prompts = [e.prompt for e in group]
                replies = model.generate(prompts, max_new_tokens, tokenizer.end, temperature, seed=seed + i)
        for e, score, reply in zip(group, scores, replies):
            text = tokenizer.decode(reply)
            record = {"row": e.row, "read": e.read, "response": e.response, "personal": np.array(e.personal)}
            rouge = rouge_l(text, e.row["response"]) if max_new_tokens else None
            records.append(record | score | {"prediction": text, "rouge": rouge})
    return records


def tallies(record):
    """One example's share of every metric, as {name: (numerator, denominator)}."""
    logp, pir, personal = record["logp"], record["pir"], record["personal"]
    n, wrote = len(logp), record["rouge"] is not None
    known = "personal" in record["row"]  # without it, personal tokens are unknown rather than none
    mine, other, found = personal & known, ~personal & known, (pir > CLIP_MIN) & known
    hits = (found & mine).sum()
    rouge = record["rouge"] or RougeL(0, 0, 0)
    return {
        "rouge_l": (rouge.fmeasure, wrote),
        "rouge_p": (rouge.precision, wrote),
        "rouge_r": (rouge.recall, wrote),
        "logp": (logp.sum(), n),
        "logp_plain": (record["logp_plain"].sum(), n),
        "logp_personal": (logp[mine].sum(), mine.sum()),
        "logp_other": (logp[other].sum(), other.sum()),
        "personal_accuracy": (record["hit"][mine].sum(), mine.sum()),
        "pir": (pir.sum(), n),
        "pir_precision": (hits, found.sum()),
        "pir_recall": (hits, mine.sum()),
        "pir_f1": (2 * hits, found.sum() + mine.sum()),
    }


def table_of(records):
    """(examples, metrics, 2): numerators and denominators."""
    return np.array([[t[name] for name in METRICS] for t in map(tallies, records)], dtype=float)


def ratio(sums):
    """numerator / denominator over the last axis; NaN where there is nothing to count."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] > 0)


def summarize(records):
    """{metric: value}; None where there is nothing to count: personal tokens unknown, no text generated."""
    return {name: None if np.isnan(x) else float(x) for name, x in zip(METRICS, ratio(table_of(records).sum(0)))}


def difference(records, reference):
    """{metric: (difference, low, high)}: paired bootstrap 95 % interval over users."""
    return paired([r["row"]["user"] for r in records], [table_of(records)], [table_of(reference)])


def paired(users, tables, references):
    """`difference`, of the tables of two runs with several seeds: one per seed, all of the same examples by `users`.

    Users and seeds are drawn with replacement, a run and its reference alike; how seeds are, `drawn_seeds` says. One
    user tells nothing of others: low and high are NaN.
    """
    users, index = np.unique(users, return_inverse=True)
    sums = np.zeros((2, len(tables), len(users), len(METRICS), 2))
    for run, some in enumerate([references, tables]):
        for k, rows in enumerate(some):
            np.add.at(sums[run, k], index, rows)
    rng = np.random.default_rng(0)
    of_users, of_seeds = drawn(len(users), rng), drawn_seeds(len(tables), rng)
    means = ratio(np.einsum("dk,du,rkumx->rdmx", of_seeds, of_users, sums, optimize=True))
    change, middle = means[1] - means[0], ratio(sums[1].sum((0, 1))) - ratio(sums[0].sum((0, 1)))

    def bounds(i):
        return np.nanquantile(change[:, i], [0.025, 0.975]) if len(users) > 1 else [np.nan, np.nan]

    known = {name: i for i, name in enumerate(METRICS) if not np.isnan(middle[i])}
    return {name: (middle[i], *bounds(i)) for name, i in known.items()}


def drawn(n, rng):
    """Shares (DRAWS, n) of n things in samples of n, drawn with replacement."""
    return rng.multinomial(n, np.full(n, 1 / n), size=DRAWS) / n


def drawn_seeds(n, rng):
    """The same of a few: their shares are spread so much wider that the interval becomes that of Student's t.

    (Of three seeds the plain bootstrap makes too little: its 95 % interval holds the true mean in 75 % of cases.)
    """
    wider = t95(n) / 1.96 * (n / (n - 1)) ** 0.5 if n > 1 else 1
    return 1 / n + wider * (drawn(n, rng) - 1 / n)


def t95(n):
    """Student's t of a 95 % interval of the mean of n values (above ten within 1 %)."""
    return T95[n] if n < len(T95) else 1.96 + 2.5 / (n - 1)


def by_task(records):
    """{"all": records, task: its records, ...}; one entry where there is one task."""
    tasks = sorted({r["row"]["task"] for r in records})
    split = {task: [r for r in records if r["row"]["task"] == task] for task in tasks}
    return {"all": records} | (split if len(tasks) > 1 else {})
