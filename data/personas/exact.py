"""Exact probabilities in the made-up world, for a reader who knows how the generator works.

Different sequences of random choices can produce the same text. The probability of the text is the
sum of their probabilities, and

    P(y_i | y_<i) = P(text starts with y_1 ... y_i) / P(text starts with y_1 ... y_i-1)

To find these sequences we run the generator with a `Reader` in place of the writer. At every choice
the Reader follows the options that agree with the text, and records the probability of the others.
To get P(y | persona), it reads the profile first and keeps the style from text to text. To get
P(y), it starts without a style. The log-ratio of the two is the exact PIR. These probabilities and
PIRs belong to characters, not to tokens.

`write_again` writes a second response in the same style, to show how similar two texts by one user
are.
"""

from contextlib import suppress
from os.path import commonprefix

import numpy as np

from data.personas.prepare import WRITERS, Rng, User, Writer, as_response, compose


class DeadEnd(Exception):
    """This sequence of choices produces a different text."""


class Reader(Writer):
    """Follows one sequence of choices that produces `query` and `response`.

    It replaces the rng as well, so that it makes every choice. choices: the first choices,
    [(value, probability), ...]. Sequences that branch off later are appended to `todo`. The
    probability of texts that differ from the response after j characters is added to
    diverged_mass[j].
    """

    def __init__(self, style, ordinary, choices, query, response, todo, diverged_mass):
        super().__init__(User(self, held_out=None, ordinary=ordinary), self)
        self.user.style = dict(style)
        self.choices, self.n_made, self.p = choices, 0, 1.0
        self.target, self.response = query, response
        self.todo, self.diverged_mass = todo, diverged_mass

    def decide(self, options):
        """Make the next choice: the next one in `choices`, or options[0] if none is left.

        Options are (value, probability).
        """
        if self.n_made == len(self.choices):
            self.todo += [[*self.choices, other] for other in options[1:]]
            self.choices = [*self.choices, options[0]]
        value, p = self.choices[self.n_made]
        self.n_made += 1
        self.p *= p
        return value

    def pick(self, *pool):
        return self.decide([(value, 1 / len(pool)) for value in pool])

    def chance(self, p):
        return self.decide([(True, p), (False, 1 - p)])

    def choice(self, pool):
        """Choose a word that is written straight away. Only words that agree with the text are
        followed.
        """
        if self.n_made < len(self.choices):
            return self.decide(None)
        fitting = [word for word in pool if self.fits(word)]
        for word in pool:
            if word not in fitting:
                self.lose(word, self.p / len(pool))
        if not fitting:
            raise DeadEnd
        return self.decide([(word, 1 / len(pool)) for word in fitting])

    def say(self, text):
        if not self.fits(text):
            self.lose(text, self.p)
            raise DeadEnd
        self.text += text

    def end_query(self):
        if self.text != self.target:
            raise DeadEnd
        super().end_query()
        self.target = self.response

    def fits(self, more):
        return self.target.startswith(self.as_written(self.text + more))

    def as_written(self, text):
        return as_response(text) if self.query else text.rstrip()

    def lose(self, more, p):
        """Record that with probability p the text continues with `more`, unlike the target."""
        if self.query:  # a text with another query does not count: P is conditional on the query
            start = len(self.as_written(self.text))
            text = self.as_written(self.text + more)
            self.diverged_mass[start + len(commonprefix([text[start:], self.target[start:]]))] += p


def n_ordinary(task, response):
    """Count the ordinary sentences. Each task has a fixed number of other sentences."""
    others = compose(task, User(Rng(0)), Rng(0))["response"]
    return sum(response.count(end) - others.count(end) for end in ".!")


def follow_all_choices(task, query, response, style):
    """Follow all sequences of choices that produce a text, given what is known of the style.

    Returns (prefix_probs, after). prefix_probs: array (len(response) + 2,) of P(query, and a
    response that starts with the first j characters), followed by P(query and response). after:
    {style: P(query, response and this style)}, where a style is a frozenset of the items of
    User.style.
    """
    todo, after, ordinary = [[]], {}, n_ordinary(task, response)
    diverged_mass = np.zeros(len(response) + 2)
    while todo:
        reader = Reader(style, ordinary, todo.pop(), query, response, todo, diverged_mass)
        with suppress(DeadEnd):
            WRITERS[task](reader)
            if reader.as_written(reader.text) == response:
                diverged_mass[-1] += reader.p
                key = frozenset(reader.user.style.items())
                after[key] = after.get(key, 0) + reader.p
            else:
                reader.lose("", reader.p)
    return diverged_mass[::-1].cumsum()[::-1], after


def styles_after(task, items):
    """{style: P(style | texts of the items)}, where a style is a frozenset of dictionary items."""
    styles = {frozenset(): 1.0}
    for item in items:
        later = {}
        for style, p in styles.items():
            _, after = follow_all_choices(task, item["query"], item["response"], style)
            for key, q in after.items():
                later[key] = later.get(key, 0) + p * q
        total = sum(later.values())
        styles = {style: p / total for style, p in later.items()}
    return styles


def prefix_probs(row, items):
    """Return P(response starts with its first j characters | query, items) for every j.

    Shape (len(response) + 2,): the last value is P(response | query, items). items: the profile
    items that the reader has read.
    """
    task, query, response = row["task"], row["query"], row["response"]
    styles = styles_after(task, items)
    mass = 0.0
    for style, p in styles.items():
        mass += p * follow_all_choices(task, query, response, style)[0]
    return mass / mass[0]


def exact_logprobs(row: dict, items: list) -> np.ndarray:
    """Return the exact log P, in nats, of every character of the response and of its end.

    Shape (len(response) + 1,), float64. items: the profile items that the reader has read. The
    exact PIR is the difference between the result for the profile and the result for an empty list.
    """
    return np.diff(np.log(prefix_probs(row, items)))


class SecondWriter(Writer):
    """Writes the same query, but a new response. faithful: it follows every habit."""

    def __init__(self, user, rng, query, faithful):
        super().__init__(user, rng)
        self.target, self.faithful = query, faithful

    def draw(self, pool):
        if not self.query:  # still in the query: draw the word that comes next in it
            pool = [max(filter(self.target[len(self.text) :].startswith, pool), key=len)]
        return super().draw(pool)

    def follows_habit(self):
        return self.faithful or super().follows_habit()


def style_of(row: dict) -> frozenset:
    """The most likely style of the row's user, given the profile and the response itself."""
    styles = styles_after(row["task"], [*row["profile"], row])
    return max(styles, key=styles.get)


def write_again(row: dict, style, rng: Rng, faithful=False) -> str:
    """Write another response to the row's query in this style. faithful: follow every habit."""
    user = User(rng, held_out=None, ordinary=n_ordinary(row["task"], row["response"]))
    user.style = dict(style)
    w = SecondWriter(user, rng, row["query"], faithful)
    WRITERS[row["task"]](w)
    return as_response(w.text)
