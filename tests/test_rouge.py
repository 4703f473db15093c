"""ROUGE-L matches known values from Google's rouge_score and the quadratic-table algorithm."""

import random

import pytest

from perce_mini.rouge import lcs_length, rouge_l


def table_lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            longer = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else longer
    return table[-1][-1]


@pytest.mark.parametrize(
    "reference, prediction, f",
    [
        ("don't stop", "dont stop", 0.4),
        ("a b c", "c b a", 1 / 3),
        ("a\nb c\nd", "d\nb c\na", 0.5),  # newlines do not matter
        ("police killed the gunman", "police kill the gunman", 0.75),  # no stemming
        ("The END", "the end!", 1.0),
        ("x_1 naïve", "x 1 na ve", 1.0),
        ("a b", "c d", 0.0),
        ("", "a", 0.0),
        ("a", "", 0.0),
        ("...", "...", 0.0),
        ("日本", "日本", 0.0),
    ],
)
def test_known_values(reference, prediction, f):
    assert rouge_l(prediction, reference).fmeasure == pytest.approx(f)


def test_bits_equal_the_table_for_thousands_of_random_pairs():
    rng = random.Random(0)
    for _ in range(2000):
        letters = "abcdefgh"[: rng.randint(1, 8)]
        a, b = (rng.choices(letters, k=rng.randint(0, 25)) for _ in range(2))
        assert lcs_length(a, b) == table_lcs(a, b), (a, b)
