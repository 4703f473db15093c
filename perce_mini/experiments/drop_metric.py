"""DROP's score (Dua et al. 2019, arXiv 1903.00161) of an answer to a question about a passage.

The right answer is a number, else one or more spans of text, else a date. Texts are normalised:
lower case, no articles, no punctuation but in numbers, 7 becomes 7.0. F1 compares sets of words. It
is 0 if the right answer has numbers and the model's answer has none of them.

    "The sixth terminal." / "terminal"    precision 1, recall 1/2, F1 0.67, no exact match
"""

import re
import string


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def normalize(text):
    words = []
    for word in re.split("[ -]", text.lower()):
        if not is_number(word):
            word = "".join(c for c in word if c not in string.punctuation)
        if is_number(word):
            word = str(float(word))
        words += re.sub(r"\b(a|an|the)\b", " ", word).split()
    return " ".join(words)


def gold_texts(answer):
    """The texts of one of DROP's answers, {"number", "spans", "date"}."""
    if answer.get("number"):
        return [str(answer["number"])]
    if answer.get("spans"):
        return answer["spans"]
    date = answer.get("date") or {}
    return [" ".join(date.get(key, "") for key in ["day", "month", "year"]).strip()]


def word_f1(text, gold):
    words, gold_words = set(text.split()), set(gold.split())
    numbers = set(filter(is_number, gold_words))
    hits = len(words & gold_words)
    if hits == 0 or numbers and not numbers & words:
        return 0.0
    return 2 * hits / (len(words) + len(gold_words))


def drop_score(text, answers):
    """(exact match, F1) of a text, from 0 to 1: the best over the right `answers`.

    A text is one span. So where the answer has n of them, the best one counts, divided by n.
    """
    text = normalize(text)
    scores = [(0.0, 0.0)]
    for answer in answers:
        gold = [normalize(span) for span in gold_texts(answer)]
        f1 = max(word_f1(text, span) for span in gold) / len(gold)
        scores.append((float(gold == [text] and text != ""), round(f1, 2)))
    return max(scores)
