"""The DROP metric: each of its rules, and the answers in the real data set."""

import json

import pytest

from perce_mini.experiments.drop_metric import drop_score, gold_texts, normalize


def spans(*texts):
    return {"number": "", "date": {}, "spans": list(texts)}


def number(n):
    return {"number": n, "date": {}, "spans": []}


def date(day, month, year):
    return {"number": "", "spans": [], "date": {"day": day, "month": month, "year": year}}


@pytest.mark.parametrize(
    "text, normal",
    [
        ("The Port of Charleston's", "port of charlestons"),
        ("a 7-yard  run!", "7.0 yard run"),
        ("$3,000", "3000.0"),
        ("an", ""),
        ("Anna", "anna"),
    ],
)
def test_normalised_texts(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    "text, answers, score",
    [
        ("The sixth terminal.", [spans("sixth terminal")], (1, 1)),
        ("terminal", [spans("sixth terminal")], (0, 0.67)),
        ("2 contenders", [number("2")], (0, 0.67)),
        ("3 contenders", [spans("2 contenders")], (0, 0)),  # the reference has a different number
        ("2.0", [number("2")], (1, 1)),
        ("north", [spans("south", "north")], (0, 0.5)),
        ("3 May 1987", [date("3", "May", "1987")], (1, 1)),
        # the best match among several annotations counts
        ("south", [spans("north"), spans("south")], (1, 1)),
        ("", [spans("south"), date("", "", "")], (0, 0)),
    ],
)
def test_scores(text, answers, score):
    assert drop_score(text, answers) == pytest.approx(score)


def test_real_questions_score_their_own_answers(shared):
    passages = json.loads((shared / "data/drop_fixture.json").read_text())
    answers = [qa["answer"] for passage in passages.values() for qa in passage["qa_pairs"]]
    assert len(answers) == 19
    for answer in answers:
        texts = gold_texts(answer)
        assert drop_score(texts[0], [answer]) == (len(texts) == 1, round(1 / len(texts), 2))
        assert drop_score("nothing of the sort", [answer]) == (0, 0)
