"""DROP's metric: its rules one by one, and its real answers."""

import itertools
import json
import random

import pytest

from perce_mini.experiments.drop_metric import best_sum, drop_score, gold_spans, normalize


def spans(*texts):
    return [{"number": "", "date": {}, "spans": list(texts)}]


def number(n):
    return [{"number": n, "date": {}, "spans": []}]


def date(day, month, year):
    return [{"number": "", "spans": [], "date": {"day": day, "month": month, "year": year}}]


@pytest.mark.parametrize(
    "text, normal",
    [
        ("The Port of Charleston's", "port of charlestons"),
        ("a 7-yard  run!", "7.0 yard run"),
        ("7.50", "7.5"),
        ("$3,000", "3000.0"),
        ("an", ""),
        ("Anna", "anna"),
    ],
)
def test_normalised_texts(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    "said, answers, expected",
    [
        ("The sixth terminal.", spans("sixth terminal"), (1, 1)),
        ("terminal", spans("sixth terminal"), (0, 0.67)),
        ("2 contenders", number("2"), (0, 0.67)),
        ("3 contenders", spans("2 contenders"), (0, 0)),  # the gold bag has a number, and it is another
        ("2.0", number("2"), (1, 1)),
        (["north", "south"], spans("south", "north"), (1, 1)),
        ("north", spans("south", "north"), (0, 0.5)),
        ("3 May 1987", date("3", "May", "1987"), (1, 1)),
        ("south", spans("north") + spans("south"), (1, 1)),  # the best of several annotations
        ("", spans("south"), (0, 0)),
    ],
)
def test_scores(said, answers, expected):
    assert drop_score(said, answers) == pytest.approx(expected)


def test_the_best_sum_is_the_best_of_all_matchings():
    rng = random.Random(0)
    for _ in range(200):
        n, m = rng.randint(1, 4), rng.randint(1, 4)
        scores = [[rng.choice([0, 0.5, rng.random()]) for _ in range(m)] for _ in range(n)]
        padded = [row + [0] * n for row in scores]
        matchings = itertools.permutations(range(m + n), n)
        best = max(sum(row[j] for row, j in zip(padded, matching)) for matching in matchings)
        assert best_sum(scores) == pytest.approx(best)


def test_real_questions_score_their_own_answers(shared):
    passages = json.loads((shared / "data/drop_fixture.json").read_text())
    questions = [qa for passage in passages.values() for qa in passage["qa_pairs"]]
    assert len(questions) == 19
    for qa in questions:
        assert drop_score(gold_spans(qa["answer"]), [qa["answer"]]) == (1, 1)
        assert drop_score("nothing of the sort", [qa["answer"]]) == (0, 0)
