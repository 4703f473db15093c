"""ROUGE-L from scratch: Google's `rouge_score` without stemming, which LaMP and LongLaMP use.

Both texts become lists of words. LCS is the length of their longest common subsequence:

    reference    police killed the gunman       precision P = LCS / words of the prediction = 3 / 4
    prediction   police kill the gunman         recall    R = LCS / words of the reference  = 3 / 4
    LCS = 3      police ... the gunman          F = 2PR / (P + R)                           = 3 / 4
"""

import re
from typing import NamedTuple


class RougeL(NamedTuple):
    precision: float
    recall: float
    fmeasure: float


def words(text):
    """Runs of a-z and 0-9 in lower case: "Don't stop" -> ["don", "t", "stop"]."""
    return re.findall("[a-z0-9]+", text.lower())


def lcs_length(a, b):
    """Length of the longest common subsequence of two lists of words: [a b c], [a x c] -> 2.

    The textbook algorithm fills a table L[i][j] = LCS(a[:i], b[:j]). From one column to the next, a
    row grows by 0 or 1, so we can store it as bits: bit j is 0 where the row grows. One Python
    integer holds a row. One addition updates it for a word of a: the carry runs from each match up
    to the next place where the row grew (Hyyro 2004, "Bit-parallel LCS-length computation
    revisited").
    """
    positions = {}  # word -> bits of its positions in b
    for j, word in enumerate(b):
        positions[word] = positions.get(word, 0) | 1 << j
    all_ones = (1 << len(b)) - 1
    row = all_ones  # before the first word of a, the row is all 0, so it never grows
    for word in a:
        matches = row & positions.get(word, 0)
        row = (row + matches | row - matches) & all_ones
    return len(b) - row.bit_count()  # the number of zeros


def rouge_l(prediction: str, reference: str) -> RougeL:
    """ROUGE-L of one text against one reference, each in [0, 1]; all 0 if nothing matches."""
    predicted, true = words(prediction), words(reference)
    lcs = lcs_length(predicted, true)
    if lcs == 0:
        return RougeL(0.0, 0.0, 0.0)
    precision, recall = lcs / len(predicted), lcs / len(true)
    return RougeL(precision, recall, 2 * precision * recall / (precision + recall))
