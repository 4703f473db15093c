"""The exact PIR of the default world, against counting: many pairs of texts written by the same user."""

import numpy as np
import pytest

from data.personas import exact, prepare
from perce_mini.dataset import read_examples


@pytest.fixture
def small_world(monkeypatch):
    """A writer of few words, so that every text comes up often. "xz" may be a user's own or anybody's."""

    def write(w):
        w.say("Tell")
        w.end_query()
        if w.keeps():
            w.fill("{*farewell} ")
        w.say("so")
        w.end_opening()
        w.habit(["I {*farewell}"], ["I {thing}"])

    monkeypatch.setitem(prepare.TRAITS, "farewell", [["x", "y"], ["z", "w"]])
    monkeypatch.setitem(prepare.POOLS, "thing", ["xz", "b"])
    monkeypatch.setitem(prepare.WRITERS, "small", write)


def test_probabilities_with_and_without_persona_are_the_frequencies_of_a_simulation(small_world):
    dice, users = prepare.Dice(0), []
    for _ in range(60_000):
        user = prepare.User(dice)
        users.append([prepare.compose("small", user, dice)["response"] for _ in range(3)])
    for profile in [[], ["Xz so. I xz."], ["So. I xz.", "So. I xz."], ["Xz so! I b.", "Xz so! I xz."]]:
        responses = [texts[-1] for texts in users if texts[: len(profile)] == profile]
        assert len(responses) > 80
        items = [{"query": "Tell", "response": response} for response in profile]
        for row in [{"task": "small", "query": "Tell", "response": response} for response in ["Xz so. I xz.", "So! I xz.", "Yw so. I b.", "Xz so! I xz."]]:
            counted = [sum(response.startswith(row["response"][:j]) for response in responses) / len(responses) for j in range(len(row["response"]) + 1)]
            counted.append(sum(response == row["response"] for response in responses) / len(responses))
            p = exact.begins(row, items)
            assert (abs(counted - p) <= 4.5 * np.sqrt(p * (1 - p) / len(responses)) + 1e-9).all()


def test_the_ways_to_go_on_add_up_to_one(small_world):
    first = lambda letter: exact.begins({"task": "small", "query": "Tell", "response": letter}, [])[1]
    assert first("X") + first("Y") + first("S") == pytest.approx(1)


def test_every_text_of_the_world_can_be_read_and_its_own_words_gain_by_the_profile(world):
    mine, rest = [], []
    for row in read_examples(world / "test.jsonl")[:9]:
        gain = exact.exact_pir(row, row["profile"], range(1, len(row["response"]) + 2))
        assert np.isfinite(gain).all() and len(gain) == len(row["response"]) + 1
        for start, end in row["personal"]:
            mine.append(gain[start:end].sum())
            gain[start:end] = 0
        rest.append(gain.sum())
    assert np.mean(mine) > 3 and abs(np.mean(rest)) < 1


def test_what_is_known_of_the_user_after_a_text_adds_up_to_the_texts_probability(small_world):
    mass, after = exact.read("small", "Tell", "Xz so. I xz.", {})
    assert sum(after.values()) == pytest.approx(mass[-1]) and len(after) == 2  # shouts or not; the second "xz" is an own or any word


def test_a_user_who_writes_again_answers_the_same_query_in_the_same_style(world):
    shown = {"stranger": [], "user": [], "faithful": []}  # which of the row's personal words the new texts hold
    for i, row in enumerate(read_examples(world / "test.jsonl")):
        for who in shown:
            texts = exact.write_again(row, {} if who == "stranger" else exact.style_of(row), prepare.Dice(i), 9, who == "faithful")
            assert len(set(texts)) > 1
            assert all(exact.read(row["task"], row["query"], text, {})[0][-1] > 0 for text in texts)  # query and text fit the grammar
            words = [row["response"][start:end] for start, end in row["personal"] if end - start > 5]
            shown[who] += [word in text for word in words for text in texts]
    assert np.mean(shown["stranger"]) < 0.1 and 0.4 < np.mean(shown["user"]) < np.mean(shown["faithful"]) - 0.05
