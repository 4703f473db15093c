"""The score of DROP (Dua et al. 2019, arXiv 1903.00161) for answers to questions about a passage, as by its authors.

An answer is a number, else some spans, else a date. Texts are normalised (lower case, no punctuation but in numbers, no
articles, 7 -> 7.0, split at spaces and hyphens) into bags of words. F1 of two answers: each gold bag is matched with
one predicted bag so that the sum of their F1 is highest, over the number of bags of the longer answer; bags match at
all only if they share a number, where the gold bag has one.
"""

import re
import string
from itertools import permutations


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def normalize(text):
    words = []
    for word in re.split("[ -]", text.lower()):
        if is_number(word):
            words.append(str(float(word)))
        else:
            word = "".join(c for c in word if c not in string.punctuation)
            word = str(float(word)) if is_number(word) else re.sub(r"\b(a|an|the)\b", " ", word)
            words += word.split()
    return " ".join(words)


def gold_spans(answer):
    """The answer's texts: its number, else its spans, else its date."""
    if answer.get("number"):
        return [str(answer["number"])]
    if answer.get("spans"):
        return list(answer["spans"])
    date = answer.get("date") or {}
    return [" ".join(date.get(key, "") for key in ["day", "month", "year"]).strip()]


def bag_f1(predicted, gold):
    numbers = set(filter(is_number, gold))
    hits = len(predicted & gold)
    if hits == 0 or numbers and not numbers & predicted:
        return 0.0
    return 2 * hits / (len(predicted) + len(gold))


def best_sum(scores):
    """The highest sum of scores[i][j] (none below 0) with every row and column taken at most once, by trying all."""
    wide = scores if len(scores) <= len(scores[0]) else list(zip(*scores))
    orders = permutations(range(len(wide[0])), len(wide))
    return max(sum(row[j] for row, j in zip(wide, columns)) for columns in orders)


def drop_score(predicted, answers):
    """(exact match, F1), 0 to 1, of a predicted text or list of texts: the best over gold `answers` (DROP's dicts)."""
    spans = [predicted] if isinstance(predicted, str) else predicted
    said = [normalize(span) for span in spans]
    scores = [(0.0, 0.0)]
    for answer in answers:
        gold = [normalize(span) for span in gold_spans(answer)]
        if not any(gold):
            continue
        overlaps = [[bag_f1(set(p.split()), set(g.split())) for p in said] for g in gold]
        f1 = best_sum(overlaps) / max(len(gold), len(said))
        scores.append((float(sorted(set(said)) == sorted(set(gold)) and len(said) == len(gold)), round(f1, 2)))
    return max(scores)
