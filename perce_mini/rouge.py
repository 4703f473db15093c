"""ROUGE-L from scratch, like Google's `rouge_score` without stemming (used by LaMP and LongLaMP).

Both texts become lists of words. LCS is the length of their longest common subsequence:

    reference    police killed the gunman       precision P = LCS / words in the prediction = 3 / 4
    prediction   police kill the gunman         recall    R = LCS / words in the reference  = 3 / 4
    LCS = 3      police ... the gunman          F = 2PR / (P + R)                           = 3 / 4
"""

import re
from typing import NamedTuple


class RougeL(NamedTuple):
    precision: float
    recall: float
    fmeasure: float


def words(text):
    """Split a text into lower-case runs of a-z and 0-9: "Don't stop" -> ["don", "t", "stop"]."""
    return re.findall("[a-z0-9]+", text.lower())


def lcs_length(a, b):
    """Find the length of the longest common subsequence of two word lists: [a b c], [a x c] -> 2.

    The textbook algorithm fills a table L[i][j] = LCS(a[:i], b[:j]). From one column to the next, a
    row grows by 0 or 1, so it can be packed into the bits of one Python integer: bit j is 0 where
    the row grows. One addition updates the row for a word of a: the carry runs from each match up
    to the next place where the row grew (Hyyro 2004, "Bit-parallel LCS-length computation
    revisited").
    """
    positions = {}  # word -> bits of its positions in b
    for j, word in enumerate(b):
        positions[word] = positions.get(word, 0) | 1 << j
    all_ones = (1 << len(b)) - 1
    row = all_ones  # the first row of the table is all zeros and never grows: every bit is 1
    for word in a:
        matches = row & positions.get(word, 0)
        row = (row + matches | row - matches) & all_ones
    return len(b) - row.bit_count()  # the number of zeros


def rouge_l(prediction: str, reference: str) -> RougeL:
    """Compute ROUGE-L of a text against one reference: values in [0, 1], 0 if nothing matches."""
    predicted, true = words(prediction), words(reference)
    lcs = lcs_length(predicted, true)
    if lcs == 0:
        return RougeL(0.0, 0.0, 0.0)
    precision, recall = lcs / len(predicted), lcs / len(true)
    return RougeL(precision, recall, 2 * precision * recall / (precision + recall))
