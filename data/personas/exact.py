"""The exact answer of the default world: what a reader who knows the grammar, but not the user, would expect next.

A text is a chain of choices, so its probability is a sum over all chains that write it (its derivations), and

    P(y_i | y_<i) = [chains whose text begins with y_1 ... y_i] / [chains whose text begins with y_1 ... y_i-1].

The chains are found by running the generator itself with a `Reader` in the place of the writer: at every choice it
goes on with what fits the text and notes how much probability is lost to what does not. Reading the profile
first, with the style kept from text to text, gives P(y | persona); starting from nothing gives P(y) without it. Their
log-ratio is PIR, exact but for one thing: characters are counted here, and a model's tokens are cut at fixed places.

`write_again` lets a known style answer a query once more: what two texts by one user have in common.
"""

from contextlib import suppress
from os.path import commonprefix

import numpy as np

from data.personas.prepare import WRITERS, Rng, User, Writer, as_response, compose


class Dead(Exception):
    """This chain of choices writes another text."""


class Reader(Writer):
    """Follows one derivation of a known text; it is its own rng. Others are put on `todo`, as lists of choices."""

    def __init__(self, style, ordinary, choices, query, response, todo, lost):
        super().__init__(User(self, held_out=None, ordinary=ordinary), self)
        self.user.style = dict(style)
        self.choices, self.made, self.p = choices, 0, 1.0
        self.target, self.response, self.todo, self.lost = query, response, todo, lost

    def decide(self, options):
        """Take the next choice: one made before, or the first of [(value, probability), ...]; others are for later."""
        if self.made == len(self.choices):
            self.todo += [[*self.choices, other] for other in options[1:]]
            self.choices = [*self.choices, options[0]]
        value, p = self.choices[self.made]
        self.made += 1
        self.p *= p
        return value

    def pick(self, *pool):
        return self.decide([(value, 1 / len(pool)) for value in pool])

    def chance(self, p):
        return self.decide([(True, p), (False, 1 - p)])

    def choice(self, pool):
        """A word that is said at once: only what fits is followed."""
        if self.made < len(self.choices):
            return self.decide(None)
        fits = [word for word in pool if self.fits(word)]
        for word in pool:
            if word not in fits:
                self.lose(word, self.p / len(pool))
        if not fits:
            raise Dead
        return self.decide([(word, 1 / len(pool)) for word in fits])

    def say(self, text):
        if not self.fits(text):
            self.lose(text, self.p)
            raise Dead
        self.text += text

    def end_query(self):
        if self.text != self.target:
            raise Dead
        super().end_query()
        self.target = self.response

    def fits(self, more):
        return self.target.startswith(self.as_written(self.text + more))

    def as_written(self, text):
        return as_response(text) if self.query else text.rstrip()

    def lose(self, more, p):
        """What was said agrees with the target; with `more` behind it, of probability p, up to some character only."""
        if self.query:  # what has another query is no alternative
            start = len(self.as_written(self.text))
            text = self.as_written(self.text + more)
            self.lost[start + len(commonprefix([text[start:], self.target[start:]]))] += p


def n_ordinary(task, response):
    """How many ordinary sentences a response holds. All texts of a task have the same number of others."""
    others = compose(task, User(Rng(0)), Rng(0))["response"]
    return sum(response.count(end) - others.count(end) for end in ".!")


def read(task, query, response, style):
    """All derivations of a text by a user of whom `style` is known.

    Returns begins (len(response) + 2,): the probability of query and first j characters, and last of the whole text
    and its end; and {style after the text, as a frozenset of items: probability of query and text}.
    """
    todo, after, ordinary = [[]], {}, n_ordinary(task, response)
    lost = np.zeros(len(response) + 2)  # the probability of texts that begin with j characters of it and then differ
    while todo:
        reader = Reader(style, ordinary, todo.pop(), query, response, todo, lost)
        with suppress(Dead):
            WRITERS[task](reader)
            if reader.as_written(reader.text) == response:
                lost[-1] += reader.p
                key = frozenset(reader.user.style.items())
                after[key] = after.get(key, 0) + reader.p
            else:
                reader.lose("", reader.p)
    return lost[::-1].cumsum()[::-1], after


def styles_after(task, items):
    """{style, as a frozenset of items: its probability} of a user, for a reader of these texts."""
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
    """The probability that the response begins with its first j characters, and last that it ends there too,
    (len(response) + 2,), for a reader of the query and of the profile's `items`."""
    styles = styles_after(row["task"], items)
    mass = sum(p * read(row["task"], row["query"], row["response"], style)[0] for style, p in styles.items())
    return mass / mass[0]


def exact_logprobs(row: dict, items: list) -> np.ndarray:
    """The exact log P, (len(response) + 1,) float64 in nats, of every character of the response, and last of its end.

    items: the part of the profile that is read; with it minus with none is the exact PIR.
    """
    return np.diff(np.log(begins(row, items)))


class Again(Writer):
    """Answers a query once more."""

    def __init__(self, user, rng, query, faithful):
        super().__init__(user, rng)
        self.asked, self.faithful = query, faithful

    def draw(self, pool):
        """While the query is said, its own words are drawn."""
        if not self.query:
            pool = [max(filter(self.asked[len(self.text) :].startswith, pool), key=len)]
        return super().draw(pool)

    def keeps(self):
        return self.faithful or super().keeps()


def style_of(row: dict) -> frozenset:
    """The likeliest style of a row's user, after the profile and the response itself."""
    styles = styles_after(row["task"], [*row["profile"], row])
    return max(styles, key=styles.get)


def write_again(row: dict, style, rng: Rng, faithful=False) -> str:
    """What a user of this style might as well have answered to the query, all other choices drawn anew.

    faithful: keep to every habit.
    """
    user = User(rng, held_out=None, ordinary=n_ordinary(row["task"], row["response"]))
    user.style = dict(style)
    w = Again(user, rng, row["query"], faithful)
    WRITERS[row["task"]](w)
    return as_response(w.text)
