"""Exact probabilities in the made-up world: what a reader who knows the generator expects.

A text is a chain of random choices, so its probability is a sum over all chains that write it, and

    P(y_i | y_<i) = P(text starts with y_1 ... y_i) / P(text starts with y_1 ... y_i-1)

We find the chains by running the generator with a `Reader` in place of the writer. At every choice
it follows the options that agree with the text, and records the probability of those that do not.
Reading the profile first, and keeping the style from text to text, gives P(y | persona). Starting
without a style gives P(y). Their log-ratio is the exact PIR, of characters instead of tokens.

`write_again` answers a query again in a given style, to show what two texts by one user share.
"""

from contextlib import suppress
from os.path import commonprefix

import numpy as np

from data.personas.prepare import WRITERS, Rng, User, Writer, as_response, compose


class DeadEnd(Exception):
    """This chain of choices writes another text."""


class Reader(Writer):
    """Follows one chain of choices that writes `query` and `response`. It is its own rng.

    choices: the first choices to make, [(value, probability), ...]. Chains that branch off later
    are added to `todo`. lost[j] grows by the probability of texts that differ after j characters.
    """

    def __init__(self, style, ordinary, choices, query, response, todo, lost):
        super().__init__(User(self, held_out=None, ordinary=ordinary), self)
        self.user.style = dict(style)
        self.choices, self.n_made, self.p = choices, 0, 1.0
        self.target, self.response, self.todo, self.lost = query, response, todo, lost

    def decide(self, options):
        """Make the next choice: a prescribed one, or the first of [(value, probability), ...]."""
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
        """Choose a word that is said at once, so that only words that fit need to be followed."""
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
        """Record that with probability p the text goes on with `more`, which differs somewhere."""
        if self.query:  # texts for another query are no alternative
            start = len(self.as_written(self.text))
            text = self.as_written(self.text + more)
            self.lost[start + len(commonprefix([text[start:], self.target[start:]]))] += p


def n_ordinary(task, response):
    """How many ordinary sentences a response has. The number of others is fixed for each task."""
    others = compose(task, User(Rng(0)), Rng(0))["response"]
    return sum(response.count(end) - others.count(end) for end in ".!")


def read(task, query, response, style):
    """Follow all chains that write a text by a user of this (partial) style.

    Returns (begins, after). begins, (len(response) + 2,): P(query, and a response that starts with
    the first j characters), and last P(query and response). after: {style after the text, as a
    frozenset of items: P(query, response, and this style)}.
    """
    todo, after, ordinary = [[]], {}, n_ordinary(task, response)
    lost = np.zeros(len(response) + 2)
    while todo:
        reader = Reader(style, ordinary, todo.pop(), query, response, todo, lost)
        with suppress(DeadEnd):
            WRITERS[task](reader)
            if reader.as_written(reader.text) == response:
                lost[-1] += reader.p
                key = frozenset(reader.user.style.items())
                after[key] = after.get(key, 0) + reader.p
            else:
                reader.lose("", reader.p)
    return lost[::-1].cumsum()[::-1], after


def styles_after(task, items):
    """{style, as a frozenset of items: P(style | texts)}, for a reader of these texts of a user."""
    styles = {frozenset(): 1.0}
    for item in items:
        later = {}
        for style, p in styles.items():
            for key, q in read(task, item["query"], item["response"], style)[1].items():
                later[key] = later.get(key, 0) + p * q
        total = sum(later.values())
        styles = {style: p / total for style, p in later.items()}
    return styles


def begins(row, items):
    """P(response starts with its first j characters | query, items), and last P(response | ...).

    Shape (len(response) + 2,). items: the part of the profile that the reader knows.
    """
    task, query, response = row["task"], row["query"], row["response"]
    styles = styles_after(task, items)
    mass = sum(p * read(task, query, response, style)[0] for style, p in styles.items())
    return mass / mass[0]


def exact_logprobs(row: dict, items: list) -> np.ndarray:
    """The exact log P in nats of every character of the response and of its end.

    Shape (len(response) + 1,), float64. items: the part of the profile that the reader knows. The
    values with the profile minus those with an empty list are the exact PIR.
    """
    return np.diff(np.log(begins(row, items)))


class SecondWriter(Writer):
    """Writes the same query, and then another response."""

    def __init__(self, user, rng, query, faithful):
        super().__init__(user, rng)
        self.target, self.faithful = query, faithful

    def draw(self, pool):
        if not self.query:  # still in the query: draw the word that stands there
            pool = [max(filter(self.target[len(self.text) :].startswith, pool), key=len)]
        return super().draw(pool)

    def follows_habit(self):
        return self.faithful or super().follows_habit()


def style_of(row: dict) -> frozenset:
    """The most likely style of the row's user, given the profile and the response itself."""
    styles = styles_after(row["task"], [*row["profile"], row])
    return max(styles, key=styles.get)


def write_again(row: dict, style, rng: Rng, faithful=False) -> str:
    """Another response to the row's query in this style; faithful: one that follows every habit."""
    user = User(rng, held_out=None, ordinary=n_ordinary(row["task"], row["response"]))
    user.style = dict(style)
    w = SecondWriter(user, rng, row["query"], faithful)
    WRITERS[row["task"]](w)
    return as_response(w.text)
