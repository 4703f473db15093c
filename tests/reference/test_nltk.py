"""METEOR with exact matches against NLTK's, with an empty WordNet and no stemming."""

import random

import pytest
from nltk.translate.meteor_score import meteor_score

from perce_mini.meteor import meteor_exact
from perce_mini.rouge import words


class NoStems:
    def stem(self, word):
        return word


class EmptyWordNet:
    def synsets(self, word):
        return []


def test_equals_nltk_for_random_texts():
    rng = random.Random(0)
    for _ in range(1000):
        letters = "abcdefgh"[: rng.randint(1, 8)]
        a, b = (" ".join(rng.choices(letters, k=rng.randint(0, 20))) for _ in range(2))
        expected = meteor_score([words(b)], words(a), stemmer=NoStems(), wordnet=EmptyWordNet())
        assert meteor_exact(a, b) == pytest.approx(expected, abs=1e-12), (a, b)
