"""ROUGE-L, written by hand: the score of Google's `rouge_score` (no stemming), which LaMP and LongLaMP use.

Both texts become words, the longest common subsequence (LCS) of the words is found, and

    precision = LCS / words predicted,    recall = LCS / words in the reference,    F = 2PR / (P + R).
"""

import re
from typing import NamedTuple


class RougeL(NamedTuple):
    precision: float
    recall: float
    fmeasure: float


def words(text):
    """Lower-case; whatever is not a-z or 0-9 separates. "Don't stop" -> ["don", "t", "stop"]."""
    return re.findall("[a-z0-9]+", text.lower())


def lcs_length(a, b):
    """Length of the longest common subsequence of two lists of words.

    The textbook table L[i][j] = LCS(a[:i], b[:j]) grows by 0 or 1 from one column to the next, so a row
    is a row of bits: bit j is 0 where it grows. One Python integer holds a row, and one addition moves
    it past a word of a: the carry runs from each match up to the next place where the row grew
    (Hyyro 2004, "Bit-parallel LCS-length computation revisited").
    """
    places = {}  # word -> bits of its positions in b
    for j, word in enumerate(b):
        places[word] = places.get(word, 0) | 1 << j
    full = (1 << len(b)) - 1
    row = full  # nothing of a read yet: the row does not grow anywhere
    for word in a:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & full
    return len(b) - row.bit_count()  # the zeros


def rouge_l(prediction: str, reference: str) -> RougeL:
    """ROUGE-L of one text against one reference, each figure in [0, 1]; all 0 when nothing matches."""
    predicted, true = words(prediction), words(reference)
    lcs = lcs_length(predicted, true)
    if lcs == 0:
        return RougeL(0.0, 0.0, 0.0)
    precision, recall = lcs / len(predicted), lcs / len(true)
    return RougeL(precision, recall, 2 * precision * recall / (precision + recall))
