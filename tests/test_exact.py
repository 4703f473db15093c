"""The exact answers of the synthetic world, against simulated texts and all possible texts."""

import numpy as np
import pytest

from data.personas import exact, prepare, words
from perce_mini.rows import read_examples


@pytest.fixture
def small_world(monkeypatch):
    """A world with so few words that every text occurs often. "xz" may be a user's own word or an
    ordinary one."""

    def write(w):
        w.say("Tell")
        w.end_query()
        if w.follows_habit():
            w.fill("{*farewell} ")
        w.say("so")
        w.end_opening()
        w.habit(["I {*farewell}"], ["I {thing}"])

    monkeypatch.setitem(words.TRAITS, "farewell", [["x", "y"], ["z", "w"]])
    monkeypatch.setitem(words.POOLS, "thing", ["xz", "b"])
    monkeypatch.setitem(prepare.WRITERS, "small", write)


class Everything:
    """An rng that enumerates all choices: `for rng in Everything()` loops over all chains."""

    def __iter__(self):
        self.path = []  # [index of the option, probabilities of the options] of every choice
        while True:
            self.n_made = 0
            yield self
            while self.path and self.path[-1][0] + 1 == len(self.path[-1][1]):
                self.path.pop()
            if not self.path:
                return
            self.path[-1][0] += 1

    def take(self, probabilities):
        if self.n_made == len(self.path):
            self.path.append([0, probabilities])
        self.n_made += 1
        return self.path[self.n_made - 1][0]

    def choice(self, pool):
        return pool[self.take([1 / len(pool)] * len(pool))]

    def chance(self, p):
        return not self.take([p, 1 - p])

    @property
    def p(self):
        return np.prod([probabilities[i] for i, probabilities in self.path])


@pytest.fixture
def ordinary_world(small_world, monkeypatch):
    """The small world with more sentences, including ordinary ones. Some sentences can be produced
    in several ways, and some texts are prefixes of others."""
    write = prepare.WRITERS["small"]

    def write_more(w):
        write(w)
        for _ in range(3):
            w.say("Go")
            w.end_sentence()
        if w.follows_habit():
            w.say("Bye")

    monkeypatch.setitem(prepare.WRITERS, "small", write_more)
    monkeypatch.setitem(words.ORDINARY, "person", ["cat", "cattle"])
    monkeypatch.setitem(words.ORDINARY, "moved", ["sat", "sat on"])
    sentences = ["The {person} {moved}", "The {person} sat on", "A dog {moved}", "The cat"]
    monkeypatch.setattr(prepare.Writer, "sentences", sentences)


def all_texts(ordinary, profile):
    """{response: P(response | profile)}, by generating all possible texts."""
    texts = {}
    for rng in Everything():
        user = prepare.User(rng, ordinary=ordinary)
        if all(prepare.compose("small", user, rng)["response"] == text for text in profile):
            response = prepare.compose("small", user, rng)["response"]
            texts[response] = texts.get(response, 0) + rng.p
    total = sum(texts.values())
    assert profile or total == pytest.approx(1)
    return {response: p / total for response, p in texts.items()}


@pytest.mark.parametrize(
    "ordinary, n_items, seeds", [(0, 2, [0, 15, 455]), (1, 1, [0, 1, 3, 5]), (2, 1, [0, 5])]
)
def test_probabilities_are_sums_over_all_texts(ordinary_world, ordinary, n_items, seeds):
    for seed in seeds:
        rng = prepare.Rng(seed)
        user = prepare.User(rng, ordinary=ordinary)
        texts = [prepare.compose("small", user, rng) for _ in range(n_items + 1)]
        row = prepare.as_row("user", "small", texts)
        for items in [row["profile"], []]:
            p = all_texts(ordinary, [item["response"] for item in items])
            prefixes = [row["response"][:j] for j in range(len(row["response"]) + 1)]
            sums = [sum(p[text] for text in p if text.startswith(prefix)) for prefix in prefixes]
            sums.append(p[row["response"]])
            assert exact.prefix_probs(row, items) == pytest.approx(sums, rel=1e-9)
            logp = exact.exact_logprobs(row, items)
            assert logp.cumsum() == pytest.approx(np.log(sums[1:]), rel=1e-6, abs=1e-9)


def test_the_profile_makes_personal_words_likelier_and_no_others(world):
    personal, rest = [], []
    for row in read_examples(world / "test.jsonl")[:9]:
        pir = exact.exact_logprobs(row, row["profile"]) - exact.exact_logprobs(row, [])
        assert np.isfinite(pir).all() and len(pir) == len(row["response"]) + 1
        for start, end in row["personal"]:
            personal.append(pir[start:end].sum())
            pir[start:end] = 0
        rest.append(pir.sum())
    assert np.mean(personal) > 3 and abs(np.mean(rest)) < 1


def test_a_second_text_answers_the_same_query_in_the_same_style(world):
    # for each kind of text: does each personal word of the row occur in it?
    shares = {"stranger": [], "user": [], "faithful": []}
    long = prepare.user_rows("test", 1, prepare.Rng(0), ordinary=3)[-1]
    for i, row in enumerate([*read_examples(world / "test.jsonl"), long]):
        ordinary = 3 if row is long else 0
        personal = [row["response"][a:b] for a, b in row["personal"] if b - a > 5]
        for who in shares:
            style = {} if who == "stranger" else exact.style_of(row)
            rng = prepare.Rng(i)
            texts = [
                exact.write_again(row, style, rng, who == "faithful")
                for _ in range(2 if ordinary else 9)
            ]
            assert len(set(texts)) > 1
            for text in texts:
                assert exact.n_ordinary(row["task"], text) == ordinary
                # the text is possible
                assert exact.follow_all_choices(row["task"], row["query"], text, {})[0][-1] > 0
            shares[who] += [word in text for word in personal for text in texts]
    stranger, user, faithful = map(np.mean, shares.values())
    assert stranger < 0.1 and 0.4 < user < faithful - 0.05
