"""METEOR with exact matches, computed by hand (tests/reference compares it with NLTK)."""

import pytest

from perce_mini.meteor import match, meteor_exact


@pytest.mark.parametrize(
    "reference, prediction, score",
    [
        # 5 matches in 3 chunks: P = R = 5/6
        ("the cat sat on the mat", "on the mat sat a cat", 5 / 6 * (1 - 0.5 * (3 / 5) ** 3)),
        ("a b c", "a b c", 1 - 0.5 / 27),  # a perfect match is still one chunk
        ("a b c d", "a b", 0.5 / (0.9 + 0.1 * 0.5) * (1 - 0.5 / 8)),  # P = 1, R = 1/2
        ("a b", "a b c d", 0.5 / (0.9 * 0.5 + 0.1) * (1 - 0.5 / 8)),  # P = 1/2, R = 1
        ("a b", "b a", 0.5),
        ("a b", "c", 0.0),
        ("", "a", 0.0),
        ("a", "", 0.0),
    ],
)
def test_known_values(reference, prediction, score):
    assert meteor_exact(prediction, reference) == pytest.approx(score)


def test_a_word_matches_once_and_from_the_end():
    assert match(["a", "a", "b"], ["a", "b", "a", "a"]) == [(0, 2), (1, 3), (2, 1)]
    assert match(["a", "a", "a"], ["a"]) == [(2, 0)]
