"""METEOR from scratch, with exact matches only.

The official METEOR also matches stems and synonyms (WordNet), so its scores are higher and must
not be compared with these. Both texts become lists of words, as for ROUGE-L, and equal words are
matched one to one. A chunk is a run of matched words that are adjacent in both texts:

    reference    the cat sat on the mat         matches: 5 words (all but "a")
    prediction   on the mat sat a cat           chunks:  3 (on the mat / sat / cat)

    precision P = matches / words in the prediction = 5 / 6
    recall    R = matches / words in the reference  = 5 / 6
    score = P R / (0.9 P + 0.1 R) x (1 - 0.5 (chunks / matches)^3) = 0.833 x 0.892 = 0.743

Recall has nine times the weight of precision, so a longer text usually scores higher.
"""

from collections import defaultdict

from perce_mini.rouge import words

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # as in NLTK and in the METEOR paper of 2007


def match(predicted, true):
    """Pair equal words: (i, j) with predicted[i] == true[j], in order of i, each word at most once.

    As in NLTK, matching starts at the end: the last "the" is paired with the last "the".
    """
    places = defaultdict(list)  # word -> its unmatched positions in the reference
    for j, word in enumerate(true):
        places[word].append(j)
    pairs = [(i, places[w].pop()) for i, w in reversed(list(enumerate(predicted))) if places[w]]
    return pairs[::-1]


def meteor_exact(prediction: str, reference: str) -> float:
    """Compute METEOR (0 to 1) of a text against one reference, counting exact matches only."""
    predicted, true = words(prediction), words(reference)
    pairs = match(predicted, true)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(predicted), len(pairs) / len(true)
    f_mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    continued = sum((i + 1, j + 1) == following for (i, j), following in zip(pairs, pairs[1:]))
    chunks = len(pairs) - continued
    return f_mean * (1 - GAMMA * (chunks / len(pairs)) ** BETA)
