"""ROUGE-L equals that of Google's `rouge_score`, to the last bit, on 2,000 pairs of texts."""

import random

from rouge_score.rouge_scorer import RougeScorer

from perce_mini.rouge import rouge_l

WORDS = "the The cat Cat's sat on mat 3 42nd 3.14 don't x_y re-do a É été naïve".split()
WORDS += "İstanbul ſtraße Kelvin 漢字 हिन्दी 🙂 e\u0301 -- ﬁne K".split() + ["", "\n"]


def texts(rng):
    """Two texts that share words, in about the same order."""
    words = [rng.choice(WORDS) for _ in range(rng.choice([0, 1, 2, 5, 30, 90]))]
    other = [w if rng.random() < 0.7 else rng.choice(WORDS) for w in words if rng.random() < 0.9]
    spaces = [" ", "  ", "\n", ", ", "\u00a0"]
    return rng.choice(spaces).join(words), rng.choice(spaces).join(other)


def test_rouge_l_is_equal_on_random_pairs():
    rng, scorer = random.Random(0), RougeScorer(["rougeL"], use_stemmer=False)
    scores = set()
    for _ in range(2000):
        prediction, reference = texts(rng)
        ours = rouge_l(prediction, reference)
        theirs = scorer.score(reference, prediction)["rougeL"]
        assert tuple(ours) == tuple(theirs), (prediction, reference)
        scores.add(ours.fmeasure)
    assert len(scores) > 400 and {0.0, 1.0} < scores
