"""Which texts stand in the prompt: the best of a profile by BM25, as in LongLaMP's own baseline; or a stranger's."""

import math
import random
from collections import Counter


def bm25(query, documents, k1=1.5, b=0.75):
    """Okapi BM25 of every document for a query, over words split at white space: a list of floats."""
    counts = [Counter(document.split()) for document in documents]
    lengths = [sum(count.values()) for count in counts]
    average = sum(lengths) / max(1, len(lengths)) or 1
    scores = [0.0] * len(documents)
    for word in query.split():
        n = sum(word in count for count in counts)  # documents that hold the word
        rarity = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
        for i, count in enumerate(counts):
            tf = count[word]
            scores[i] += rarity * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths[i] / average))
    return scores


def retrieve(query, profile, top_k):
    """Indices of the `top_k` items of a profile, most relevant to the query first; ties go to the newest."""
    scores = bm25(query, [f"{item['query']} {item['response']}" for item in profile])
    return sorted(range(len(scores)), key=lambda i: (-scores[i], -i))[:top_k]


def strangers(rows):
    """For each row a fixed random one of the same task, by another user who has a profile; None where none was found.

    With its profile in the plain view, PIR no longer counts what any profile tells: the form of the texts.
    """
    rng, by_task = random.Random(0), {row["task"]: [] for row in rows}
    for row in rows:
        by_task[row["task"]] += [row] if row["profile"] else []
    found = []
    for row in rows:
        others = by_task[row["task"]]
        tries = (rng.choice(others) for _ in range(100 if others else 0))
        found.append(next((other for other in tries if other["user"] != row["user"]), None))
    return found
