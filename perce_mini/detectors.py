"""Which tokens are personal? PIR and its rivals as detectors, against what is known of the default world."""

import numpy as np
import torch

from perce_mini import scoring
from perce_mini.cells import exact_of, held_out, key_of, load
from perce_mini.dataset import collate
from perce_mini.percontrast import CLIP_MIN, project, token_entropies

RIVALS = ["PIR", "exact PIR", "word matching", "loss", "entropy"]


def detector_scores(folder, split, contrast):
    """Over all response tokens of a split: what every detector says, and the truth."""
    model, tokenizer, _ = load(folder)
    examples = held_out(split, model, tokenizer, contrast=contrast)
    answer = exact_of(split, [e.row for e in examples], tokenizer)
    columns = {name: [] for name in [*RIVALS, "personal", "later in its span"]}
    for i in range(0, len(examples), 30):
        group = examples[i : i + 30]
        batch = collate(group, model.head.device)
        with torch.no_grad():
            entropy = project(token_entropies, model.states(batch.persona), model.head, batch.labels)
        columns["entropy"].append(entropy.float().cpu().numpy())
        scores = scoring.score_tokens(model, group, model.head.device)
        for e, score in zip(group, scores):
            columns["PIR"].append(score["logp"] - score["logp_plain"])
            columns["loss"].append(-score["logp"])
            columns["exact PIR"].append(answer[key_of(e.row)])
            columns["word matching"].append(matches(e, tokenizer))
            columns["personal"].append(e.personal)
            columns["later in its span"].append([a and b for a, b in zip([False, *e.personal], e.personal)])
    return {name: np.concatenate(parts).astype(float) for name, parts in columns.items()}


def matches(example, tokenizer):
    """1 for every token of a word that stands in the profile, else 0."""
    words = lambda text: text.lower().replace(".", " ").replace(",", " ").split()
    there = {word for item in example.row["profile"] for word in words(item["response"])}
    text, found = example.row["response"], []
    for start, end in tokenizer.spans(example.response):
        while start < end and text[start : start + 1] == " ":
            start += 1
        first, last = text.rfind(" ", 0, start + 1) + 1, text.find(" ", end)
        word = text[first : last if last >= 0 else None].lower().strip(".,!")
        found.append(bool(word) and start < end and word in there)
    return found


def detection(folder, contrast="none"):
    """How well each detector finds the personal tokens of test users, at validation users' best threshold."""
    val, test = detector_scores(folder, "val", contrast), detector_scores(folder, "test", contrast)
    mine, found = test["personal"] > 0, {}
    for name in RIVALS:
        threshold = best_threshold(val[name], val["personal"] > 0)
        found[name] = {"auc": auc(test[name], mine), "average_precision": average_precision(test[name], mine)}
        found[name] |= {"threshold": threshold, **precision_recall(test[name] > threshold, mine)}
    fixed, exact = test["PIR"] > CLIP_MIN, test["exact PIR"] > CLIP_MIN
    missed, wrong = mine & ~fixed, ~mine & fixed
    bins = np.digitize(test["PIR"], np.unique(np.quantile(test["PIR"], np.linspace(0.05, 0.95, 19))))
    later, matched = test["later in its span"] > 0, test["word matching"] > 0
    count, mean = lambda tokens: int(tokens.sum()), lambda name, tokens: float(test[name][tokens].mean())
    return {
        "detectors": found,
        "at_0.8": precision_recall(fixed, mine),
        "correlation": float(np.corrcoef(test["PIR"], test["exact PIR"])[0, 1]),
        "calibration": [[mean("PIR", bins == b), mean("exact PIR", bins == b)] for b in np.unique(bins)],
        "missed": {"all": count(missed), "second or later token of a span": count(missed & later),
                   "exact PIR at most 0.8 too": count(missed & ~exact)},
        "wrong": {"all": count(wrong), "word stands in the profile": count(wrong & matched),
                  "exact PIR above 0.8 too": count(wrong & exact)},
    }  # fmt: skip


def precision_recall(said, true):
    hits, n_said, n_true = (said & true).sum(), said.sum(), true.sum()
    return {"precision": float(hits / max(1, n_said)), "recall": float(hits / max(1, n_true)),
            "f1": float(2 * hits / max(1, n_said + n_true))}  # fmt: skip


def best_threshold(score, true):
    """The threshold of the best F1: what scores above it is called personal."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + true.sum())
    f1[np.append(score[order][:-1] == score[order][1:], False)] = 0  # no threshold parts equals
    return float(np.nextafter(score[order][f1.argmax()], -np.inf))


def auc(score, true):
    """The probability that a personal token scores above another one; ties count half."""
    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = true.sum()
    return float((rank[true].sum() - n * (n + 1) / 2) / (n * (len(true) - n)))


def average_precision(score, true):
    """Precision averaged over the recall that every threshold adds."""
    order = np.argsort(-score, kind="stable")
    last = np.append(score[order][:-1] != score[order][1:], True)
    hits, said = np.cumsum(true[order])[last], np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0) * hits / said).sum() / true.sum())
