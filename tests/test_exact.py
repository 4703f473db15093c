"""The exact answers of the default world, against counting: many texts of the same user, or all texts there are."""

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


def small_row(response):
    return {"task": "small", "query": "Tell", "response": response}


def frequencies(response, responses):
    """How often `responses` begin with the first j characters of `response`, and how often they are the whole of it."""
    prefixes = [response[:j] for j in range(len(response) + 1)]
    counted = [sum(other.startswith(prefix) for other in responses) for prefix in prefixes]
    return np.array([*counted, responses.count(response)]) / len(responses)


def test_probabilities_with_and_without_persona_are_the_frequencies_of_a_simulation(small_world):
    rng, users = prepare.Rng(0), []
    for _ in range(40_000):
        user = prepare.User(rng)
        users.append([prepare.compose("small", user, rng)["response"] for _ in range(3)])
    for profile in [[], ["Xz so. I xz."], ["So. I xz.", "So. I xz."], ["Xz so! I b.", "Xz so! I xz."]]:
        responses = [texts[-1] for texts in users if texts[: len(profile)] == profile]
        assert len(responses) > 80
        items = [{"query": "Tell", "response": response} for response in profile]
        for response in ["Xz so. I xz.", "So! I xz.", "Yw so. I b.", "Xz so! I xz."]:
            p = exact.begins(small_row(response), items)
            error = 4.5 * np.sqrt(p * (1 - p) / len(responses)) + 1e-9
            assert (abs(frequencies(response, responses) - p) <= error).all()


class Everything:
    """An rng that takes every way in turn: `for p in Everything()` runs the loop once per chain of choices."""

    def __iter__(self):
        self.taken = []  # [index of the option, probabilities of the options]
        while True:
            self.made = 0
            yield self
            self.taken = self.taken[: self.made]
            while self.taken and self.taken[-1][0] + 1 == len(self.taken[-1][1]):
                self.taken.pop()
            if not self.taken:
                return
            self.taken[-1][0] += 1

    def take(self, probabilities):
        if self.made == len(self.taken):
            self.taken.append([0, probabilities])
        self.made += 1
        return self.taken[self.made - 1][0]

    def choice(self, pool):
        return pool[self.take([1 / len(pool)] * len(pool))]

    def chance(self, p):
        return not self.take([p, 1 - p])

    @property
    def p(self):
        return np.prod([probabilities[i] for i, probabilities in self.taken])


@pytest.fixture
def ordinary_world(small_world, monkeypatch):
    """The small world with more sentences and with ordinary ones, some of which come about in several ways. Some texts
    end where others go on."""
    write = prepare.WRITERS["small"]

    def write_more(w):
        write(w)
        for _ in range(3):
            w.say("Go")
            w.end_sentence()
        if w.keeps():
            w.say("Bye")

    monkeypatch.setitem(prepare.WRITERS, "small", write_more)
    monkeypatch.setitem(prepare.ORDINARY, "person", ["cat", "cattle"])
    monkeypatch.setitem(prepare.ORDINARY, "moved", ["sat", "sat on"])
    sentences = ["The {person} {moved}", "The {person} sat on", "A dog {moved}", "The cat"]
    monkeypatch.setattr(prepare.Writer, "sentences", sentences)


def all_texts(ordinary, style, profile=()):
    """{response: probability, given that the texts before it are those of `profile`}, by writing all of them."""
    found = {}
    for rng in Everything():
        user = prepare.User(rng, ordinary=ordinary)
        user.style = dict(style)
        if all(prepare.compose("small", user, rng)["response"] == text for text in profile):
            response = prepare.compose("small", user, rng)["response"]
            found[response] = found.get(response, 0) + rng.p
    total = sum(found.values())
    return {response: p / total for response, p in found.items()}


def sums(response, texts):
    """The probability of texts that begin with the first j characters of `response`, and of the whole of it."""
    prefixes = [response[:j] for j in range(len(response) + 1)]
    found = [sum(p for text, p in texts.items() if text.startswith(prefix)) for prefix in prefixes]
    return np.array([*found, texts[response]])


@pytest.mark.parametrize("ordinary, seeds", [(0, [0, 1, 3, 5]), (1, [0, 1, 3, 5]), (2, [0, 5])])
def test_probabilities_are_sums_over_all_texts_with_ordinary_sentences_among_them(ordinary_world, ordinary, seeds):
    without, seen = all_texts(ordinary, {}), ""
    assert sum(without.values()) == pytest.approx(1)
    for seed in seeds:
        rng = prepare.Rng(seed)
        user = prepare.User(rng, ordinary=ordinary)
        texts = [prepare.compose("small", user, rng) for _ in range(2)]
        row = prepare.as_row("user", "small", texts)
        response, profile = row["response"], row["profile"]
        with_persona = all_texts(ordinary, {}, [profile[0]["response"]])
        assert exact.begins(row, profile) == pytest.approx(sums(response, with_persona), rel=1e-9)
        assert exact.begins(row, []) == pytest.approx(sums(response, without), rel=1e-9)
        seen += response
    assert ordinary == 0 or (
        "The cat sat on" in seen and seen.count("The ") + seen.count("A dog") == len(seeds) * ordinary
    )


def test_the_ways_to_go_on_add_up_to_one(small_world):
    assert sum(exact.begins(small_row(letter), [])[1] for letter in "XYS") == pytest.approx(1)


def exact_pir(row, items):
    return exact.exact_logprobs(row, items) - exact.exact_logprobs(row, [])


def test_pir_is_the_gain_in_log_probability_character_by_character(small_world):
    row, items = small_row("Xz so. I xz."), [{"query": "Tell", "response": "Xz so. I xz."}]
    gain = np.log(exact.begins(row, items) / exact.begins(row, []))
    pir = exact_pir(row, items)
    assert len(pir) == len(row["response"]) + 1 and pir.cumsum() == pytest.approx(gain[1:])


def test_every_text_of_the_world_can_be_read_and_its_own_words_gain_by_the_profile(world):
    mine, rest = [], []
    for row in read_examples(world / "test.jsonl")[:9]:
        gain = exact_pir(row, row["profile"])
        assert np.isfinite(gain).all() and len(gain) == len(row["response"]) + 1
        for start, end in row["personal"]:
            mine.append(gain[start:end].sum())
            gain[start:end] = 0
        rest.append(gain.sum())
    assert np.mean(mine) > 3 and abs(np.mean(rest)) < 1


def test_what_is_known_of_the_user_after_a_text_adds_up_to_the_texts_probability(small_world):
    mass, after = exact.read("small", "Tell", "Xz so. I xz.", {})
    assert sum(after.values()) == pytest.approx(mass[-1])
    assert len(after) == 2  # shouts or not; the second "xz" is an own or any word


def test_a_user_who_writes_again_answers_the_same_query_in_the_same_style(world):
    shown = {"stranger": [], "user": [], "faithful": [], "heard once": []}  # the row's personal words in new texts
    for i, row in enumerate(read_examples(world / "test.jsonl")):
        words = [row["response"][start:end] for start, end in row["personal"] if end - start > 5]
        style = exact.style_of(row)
        for who in shown:
            known = {"stranger": {}, "heard once": exact.style_of(row | {"profile": []})}.get(who, style)
            rng, faithful = prepare.Rng(i), who in ("faithful", "heard once")
            texts = [exact.write_again(row, known, rng, faithful) for _ in range(9)]
            assert len(set(texts)) > 1
            fits = [exact.read(row["task"], row["query"], text, {})[0][-1] > 0 for text in texts]
            assert all(fits)  # query and text are one the grammar can write
            shown[who] += [word in text for word in words for text in texts]
    stranger, user, faithful, once = map(np.mean, shown.values())
    assert stranger < 0.1 and 0.4 < user < faithful - 0.05 and once > 0.9


def test_a_user_who_writes_again_puts_in_as_many_ordinary_sentences():
    for row in prepare.user_rows("test", 1, prepare.Rng(0), ordinary=3):
        style, rng = exact.style_of(row), prepare.Rng(0)
        texts = [exact.write_again(row, style, rng) for _ in range(4)]
        assert [exact.n_ordinary(row["task"], text) for text in texts] == [3] * 4
        assert all(exact.read(row["task"], row["query"], text, {})[0][-1] > 0 for text in texts)
