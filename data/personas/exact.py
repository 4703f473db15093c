"""The exact answer of the default world: what a reader who knows the grammar, but not the user, would expect next.

A text is a chain of choices, so its probability is a sum over all chains that write it (its derivations), and

    P(y_i | y_<i) = [chains whose text begins with y_1 ... y_i] / [chains whose text begins with y_1 ... y_i-1].

The chains are found by running the generator itself with a `Reader` in the place of the writer: at every choice it
goes on with what fits the text and notes how much probability is lost to what does not. Reading the profile
first, with the style kept from text to text, gives P(y | persona); starting from nothing gives P(y) without it. Their
log-ratio is PIR, exact but for one thing: characters are counted here, and a model's tokens are cut at fixed places.

`write_again` lets a known style answer a query once more: what two texts by one user have in common.
"""

import numpy as np

from data.personas.prepare import WRITERS, User, Writer


class Dead(Exception):
    """This chain of choices writes another text."""


class Reader(Writer):
    """Follows one derivation of a known text; it is its own dice. Others are put on `todo`, as lists of choices."""

    def __init__(self, style, choices, query, response, todo, lost):
        super().__init__(User(self, held_out=None), self)
        self.user.style = dict(style)
        self.choices, self.made, self.p = choices, 0, 1.0
        self.target, self.response, self.in_response, self.todo, self.lost = query, response, False, todo, lost

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
                self.lose(self.text + word, self.p / len(pool))
        if not fits:
            raise Dead
        return self.decide([(word, 1 / len(pool)) for word in fits])

    def say(self, text):
        fits = self.fits(text)
        self.text += text
        if not fits:
            self.lose(self.text, self.p)
            raise Dead

    def end_query(self):
        if self.text != self.target:
            raise Dead
        super().end_query()
        self.target, self.in_response = self.response, True

    def fits(self, more):
        return self.target.startswith(self.as_written(self.text + more))

    def as_written(self, text):
        text = text.rstrip()
        return text[:1].upper() + text[1:] if self.in_response else text

    def lose(self, text, p):
        """A text of probability p agrees with the target up to some character only."""
        if self.in_response:  # what has another query is no alternative
            text = self.as_written(text)
            differ = (i for i, (a, b) in enumerate(zip(text, self.target)) if a != b)
            self.lost[next(differ, min(len(text), len(self.target)))] += p


def read(task, query, response, style):
    """All derivations of a text by a user of whom `style` is known.

    Returns begins (len(response) + 2,): the probability of query and first j characters, and last of the whole text
    and its end; and {style after the text, as a frozenset of items: probability of query and text}.
    """
    todo, lost, after = [[]], np.zeros(len(response) + 2), {}
    while todo:
        reader = Reader(style, todo.pop(), query, response, todo, lost)
        try:
            WRITERS[task](reader)
        except Dead:
            continue
        if reader.as_written(reader.text) == response:
            lost[-1] += reader.p
            key = frozenset(reader.user.style.items())
            after[key] = after.get(key, 0) + reader.p
        else:
            reader.lose(reader.text, reader.p)
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


def exact_pir(row, items, ends):
    """The exact PIR (N,) of tokens that end before the characters `ends` of the response, its end being the last."""
    ends = [0, *ends]
    return np.diff(np.log(begins(row, items)[ends]) - np.log(begins(row, [])[ends]))


class Again(Writer):
    """Answers a query once more."""

    def __init__(self, user, dice, query, faithful):
        super().__init__(user, dice)
        self.asked, self.in_query, self.faithful = query, True, faithful

    def draw(self, pool):
        """While the query is said, its own words are drawn."""
        if self.in_query:
            pool = [max(filter(self.asked[len(self.text) :].startswith, pool), key=len)]
        return super().draw(pool)

    def end_query(self):
        self.in_query = False
        super().end_query()

    def keeps(self):
        return self.faithful or super().keeps()


def style_of(row):
    """The likeliest style of a row's user, after the profile and the response itself."""
    styles = styles_after(row["task"], [*row["profile"], row])
    return max(styles, key=styles.get)


def write_again(row, style, dice, times, faithful=False):
    """What a user of this style might as well have written, `times` texts to the query, all other choices drawn anew.

    faithful: keep to every habit.
    """
    texts = []
    for _ in range(times):
        user = User(dice, held_out=None)
        user.style = dict(style)
        w = Again(user, dice, row["query"], faithful)
        WRITERS[row["task"]](w)
        text = w.text.rstrip()
        texts.append(text[:1].upper() + text[1:])
    return texts
