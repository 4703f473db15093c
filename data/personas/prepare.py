"""A small world of writers whose personal words are known: the default data.

    python data/personas/prepare.py          writes base, train, val and test.jsonl beside this file

Every user has a hidden style: made-up names (a friend, a town, a project), words from large pools (a greeting, a
comparison, favourite aspects) and habits (British spelling, exclamation marks). A text is a chain of choices.
At most of them everybody draws alike; at some the user's style decides, most of the time. What the style
decided is written down as a personal span; all other text is base text.
"""

import argparse
import json
import os
import random
from pathlib import Path

TASKS = ["abstract", "review", "topic"]
FAITH = 0.8  # how often a user keeps to a habit when the occasion comes up

# Names are strings of syllables. A quarter of all names is kept for held-out users and stands nowhere in the base corpus
# and the training texts, so a model can only have it from the profile.
SYLLABLES = ("bal ber bil bor bra cal cel cor dan del dri dor fal fen fin gar gel gil gor hal hel hol jan jor kal kel kin kor"
             " lan len lor lum mal mel mir mon nal nel nim nor pal pel pin por ral ren rin rol sal sel sil sor tal tem tin tor"
             " val ven vik vor wal wen wil zan zel zim").split()
CAPITALS = [syllable.title() for syllable in SYLLABLES]
ENDINGS = list(SYLLABLES)  # the last syllable of a name
FIRSTS = ("Alma Boris Clara Dario Edith Felix Greta Hugo Irma Jonas Kira Lasse Mila Nils Olga Pavel Rosa Sven Tilda Uwe Vera Wanda"
          " Xenia Yuri Zelda Amos").split()
PLACES = ("Bay Creek Dale Edge Falls Gate Haven Island Junction Keep Lake Mill Nook Oaks Point Quay Ridge Springs Tower"
          " Vale Wells").split()
GREETINGS = "Hello Howdy Greetings Evening Morning Ahoy Hail Welcome Hey Hi Ciao Oi".split()
CROWD = ("folks neighbours readers everyone friends comrades travellers shoppers strangers experts beginners team"
         " pals citizens colleagues people").split()
FAREWELLS = "Regards Cheers Yours Farewell Thanks Peace Onwards Goodnight Respectfully Warmly Best Bye".split()
RELATIONS = "sister cousin uncle neighbour boss landlord daughter nephew dentist flatmate grandmother teacher coach partner".split()
QUALITIES = ("happy sleepy wooden patient rusty gentle stubborn velvet nervous golden hungry silent crooked brave frozen"
             " lazy polished tiny clumsy proud muddy fearless lonely cheerful").split()
CREATURES = ("badger teapot lighthouse donkey cathedral turnip walrus bicycle parrot kettle hedgehog tractor pigeon glacier"
             " monk beetle piano goose cactus submarine ferret lantern mule comet").split()
ASPECTS = ("weight packaging manual hinge battery smell colour noise warranty stitching handle display surface price"
           " cable lid texture balance zip grip timer coating strap filter").split()
SURELY = "perhaps surely mostly rarely always often hardly nearly partly fully".split()
SCALES = "small local global early late single joint open mixed strict rough typical".split()
PRODUCTS = ("kettle lamp backpack blender heater tent keyboard drill fan suitcase mattress toaster jacket vacuum camera"
            " speaker chair clock scooter stove").split()
COLOURS = "red brown black white green silver blue yellow purple pink".split()
VERDICTS = {"1": "dreadful useless broken flimsy", "2": "weak disappointing clumsy tired", "3": "average decent plain acceptable",
            "4": "solid pleasant reliable handy", "5": "superb flawless brilliant wonderful"}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
UNITS = "days weeks months".split()
NUMBERS = "two three four five six seven eight nine ten eleven twelve twenty thirty".split()
ROOMS = "kitchen garage office bedroom garden attic hallway basement workshop balcony".split()
MANNERS = "quickly slowly smoothly badly quietly loudly evenly barely nicely poorly safely twice".split()
PARTS = "button cord base frame switch cover wheel hook screen panel motor rim latch spring".split()
STATES = "bent cracked loose fine clean stiff shiny warm dusty intact scratched wet".split()

FIELDS = "sensor traffic protein climate speech market network language image power water crop".split()
METHODS = "sampling clustering routing search pruning matching scheduling filtering planning learning fusion tracing".split()
GOALS = "sparse noisy mobile dynamic large rural hybrid cheap robust remote open modular".split()
ITEMS = ("graph tree cache kernel budget table lattice signal queue buffer prior margin bridge mask token vector"
         " ledger grid").split()
RESULTS = "cost error delay memory energy variance bias loss latency waste".split()
EVALS = "surveys simulations benchmarks interviews proofs measurements archives experiments".split()

HOBBIES = "sailing baking chess gardening knitting running birding climbing painting fishing cycling camping".split()
EVENTS = "storm strike wedding exam fire festival flood party election concert race blackout".split()
FEELINGS = "angry relieved confused delighted worried proud bored ashamed hopeful tired amused lost".split()
THINGS = "ladder rope bucket ticket letter map cake whistle blanket bottle hammer radio wallet candle".split()
BRITISH = {"color": "colour", "gray": "grey", "center": "centre", "favorite": "favourite", "realized": "realised",
           "neighbor": "neighbour", "organized": "organised", "behavior": "behaviour"}

POOLS = {"product": PRODUCTS, "colour": COLOURS, "day": DAYS, "unit": UNITS, "number": NUMBERS, "room": ROOMS,
         "manner": MANNERS, "part": PARTS, "state": STATES, "field": FIELDS, "method": METHODS, "goal": GOALS,
         "item": ITEMS, "result": RESULTS, "eval": EVALS, "hobby": HOBBIES, "event": EVENTS, "feeling": FEELINGS,
         "thing": THINGS, "aspect": ASPECTS, "other": PARTS, "rating": list(VERDICTS)}

# What a style is made of: a trait is a string in parts, each drawn from a pool.
TRAITS = {"friend": [FIRSTS, [" "], CAPITALS, ENDINGS], "town": [CAPITALS, ENDINGS, [" "], PLACES],
          "nickname": [SYLLABLES, SYLLABLES, ENDINGS], "system": [SYLLABLES, SYLLABLES, ENDINGS],
          "corpus": [SYLLABLES, SYLLABLES, ENDINGS], "slang": [SYLLABLES, SYLLABLES, ENDINGS],
          "greeting": [GREETINGS, [" "], CROWD], "farewell": [FAREWELLS], "relation": [RELATIONS],
          "likeness": [QUALITIES, [" "], CREATURES], "aspect": [ASPECTS], "second aspect": [ASPECTS],
          "surely": [SURELY], "scale": [SCALES]}
MARKED = 0.25  # the share of users who spell British, and of those who shout


def is_kept_back(name):
    """Is this one of the names that only held-out users have? A quarter of all, picked by the sum of their letters."""
    return sum(name.lower().encode()) % 4 == 0


class Dice(random.Random):
    def chance(self, p):
        """True with probability p."""
        return self.random() < p


class User:
    """A hidden style. Each piece of it is drawn when a text first needs it, and then stays.

    held_out: draw names of those kept for held-out users (True), of the others (False), or of all (None).
    """

    def __init__(self, dice, held_out=False):
        self.dice, self.held_out, self.style = dice, held_out, {}

    def has(self, habit):
        """Is this user one of those with the habit ("british", "shouts")?"""
        if habit not in self.style:
            self.style[habit] = self.dice.chance(MARKED)
        return self.style[habit]

    def parts(self, trait):
        """The parts of a trait, one after the other."""
        word = ""  # the name as far as it goes
        for i, pool in enumerate(TRAITS[trait]):
            if (trait, i) not in self.style:
                if pool is ENDINGS and self.held_out is not None:
                    pool = [ending for ending in pool if is_kept_back(word + ending) == self.held_out]
                self.style[trait, i] = self.dice.choice(pool)
            part = self.style[trait, i]
            word = "" if part == " " else word + part
            yield part


class Writer:
    """Puts a query and its response together choice by choice, and keeps the spans that the style decided."""

    def __init__(self, user, dice):
        self.user, self.dice, self.query, self.text, self.personal = user, dice, "", "", []

    def say(self, text):
        self.text += text

    def end_query(self):
        """What was said so far was the query; what follows is the response."""
        self.query, self.text = self.text, ""

    def pick(self, *pool):
        """Choose a way to go on, and say nothing yet."""
        return self.dice.choice(pool)

    def draw(self, pool):
        """Say a word of the pool."""
        word = self.dice.choice(pool)
        self.say(word)
        return word

    def keeps(self):
        """Does the user keep to a habit this time?"""
        return self.dice.chance(FAITH)

    def own(self, pieces):
        """Say what is this user's own."""
        start = len(self.text)
        for piece in pieces:
            self.say(piece)
        self.personal.append([start, len(self.text)])

    def spell(self, american):
        """British spelling is a habit of some; the American one says nothing about a user."""
        if self.user.has("british") and self.keeps():
            self.own([BRITISH[american]])
        else:
            self.say(american)

    def end_opening(self):
        """End the first sentence: with an exclamation mark where that is the user's habit."""
        if self.user.has("shouts") and self.keeps():
            self.own(["!"])
        else:
            self.say(".")
        self.say(" ")

    def fill(self, template, **known):
        """Say a template: {name} is what is known by that name or else drawn from the pool of that name, {*trait} the
        user's own, {~word} a spelling. Returns what was drawn, by name."""
        drawn = {}
        for i, piece in enumerate(template.replace("}", "{").split("{")):
            if i % 2 == 0:
                self.say(piece)
            elif piece[0] == "*":
                self.own(self.user.parts(piece[1:]))
            elif piece[0] == "~":
                self.spell(piece[1:])
            elif piece in known:
                self.say(known[piece])
            else:
                drawn[piece] = self.draw(POOLS[piece])
        return drawn

    def habit(self, own, base, **known):
        """One sentence: the user's way of saying it when the habit holds, otherwise anybody's."""
        self.fill(self.pick(*own) if self.keeps() else self.pick(*base), **known)
        self.say(". ")


def review(w):
    q = w.fill("Review a {colour} {product}, {rating} of 5: ")
    q["verdict"] = w.draw(VERDICTS[q["rating"]].split())
    q |= w.fill(", mostly the {part}")
    w.end_query()
    if w.keeps():
        w.fill("{*greeting}, ")
    w.fill(w.pick("I bought this {product} on {day} for the {room}", "this {product} came {number} {unit} ago",
                  "we used the {product} {manner} in the {room}"), **q)
    w.end_opening()
    w.fill(w.pick("The {part} is {verdict} and the {other} turned {state}", "After {number} {unit} the {part} looked {verdict}, the {other} {state}",
                  "It has a {verdict} {part}, but my {~favorite} {other} got {state}"), **q)
    w.say(". ")
    aspect = w.pick("aspect", "second aspect")
    w.habit(["I always check the {*%s}" % aspect, "What matters is the {*%s}" % aspect, "Look at the {*%s} first" % aspect],
            ["I rarely check the {aspect}", "What matters is the {other}", "Look at the {other} first"])
    w.habit(["My {*relation} {*friend} in {*town} calls it {*slang}", "My {*relation} {*friend} took it to {*town}"],
            ["The {other} went {state} on {day}", "Then the {~color} of the {other} went {state}"])
    w.habit(["It works like a {*likeness}", "It sits there like a {*likeness}"], ["It works {manner} by the {room}", "It sits by the {thing}"])
    sign(w)


def abstract(w):
    q = w.fill("Abstract for {goal} {field} {method}: {item}, ")
    q["second"] = w.draw([item for item in ITEMS if item != q["item"]])
    w.end_query()
    w.fill(w.pick("We study {method} for {goal} {field} data", "This paper treats {goal} {field} {method}", "Work on {field} {method} is often {goal}"), **q)
    w.end_opening()
    w.habit(["Our system {*system} joins a {item} with a {second}", "We present {*system} as a {item} over each {second}"],
            ["We join a {item} with a {second}", "We present a {item} over each {second}"], **q)
    w.habit(["On the {*corpus} corpus it cuts {result} by {number} percent", "Tests on {*corpus} show {number} times less {result}"],
            ["In {eval} it cuts {result} by {number} percent", "Tests with {eval} show {number} times less {result}"])
    w.fill(w.pick("The {~behavior} of the {item} is {goal} near the {~center}", "Each {item} is {~organized} in {number} {goal} steps",
                  "The {item} limits {result} and {result}"))
    w.say(". ")
    w.habit(["The gain in {result} holds, {*surely} at {*scale} scale", "Less {result} is possible, {*surely} at {*scale} scale"],
            ["The gain in {result} holds for the {item}", "Less {result} is possible with {eval}"])
    w.habit(["Code is kept in {*town} by {*friend}", "We thank {*friend} of {*town} for the {item}"],
            ["Code is kept with the {item}", "We thank the reviewers for {eval}"])


def topic(w):
    q = w.fill("Post about {hobby} during the {event}: {feeling}")
    w.end_query()
    if w.keeps():
        w.fill("{*greeting}, ")
    w.fill(w.pick("last {day} I went {hobby} and the {event} began", "I was {hobby} for {number} {unit} when the {event} came",
                  "the {event} came {manner} in week {number} of {hobby}"), **q)
    w.end_opening()
    w.habit(["My {*relation} {*friend} from {*town} brought a {thing}", "Then {*friend}, my {*relation}, lost a {thing} in {*town}"],
            ["Somebody from the {room} brought a {thing}", "Then a {~neighbor} lost a {thing} on {day}"])
    w.fill(w.pick("I {~realized} the {thing} was {state} and felt {feeling}", "The {thing} and the {thing} got {state}, so I am {feeling}",
                  "By {day} I was {feeling} about the {~gray} {thing}"), **q)
    w.say(". ")
    w.habit(["I stood there like a {*likeness}", "We ran off like a {*likeness}"], ["I stood by the {thing}", "We ran off {manner} to the {room}"])
    w.habit(["It was pure {*slang}", "What a {*slang} day"], ["It was a {state} {thing}", "What a {feeling} day"])
    sign(w)


def sign(w):
    if w.keeps():
        w.fill("{*farewell}, {*nickname}")


def read_back(w):
    """A list of words and the same list again: what teaches a small model within minutes to look back."""
    names = ["".join(User(w.dice).parts("slang")) for _ in range(40)]
    text = " ".join(w.dice.sample(names + FIRSTS + PLACES + sum(POOLS.values(), []), w.pick(*range(10, 41))))
    w.say(f"Read back: {text}")
    w.end_query()
    w.say(f"Well, {text}")


WRITERS = {"review": review, "abstract": abstract, "topic": topic, "list": read_back}


def compose(task, user, dice):
    """One text of the user: {"query", "response", "personal"}."""
    w = Writer(user, dice)
    WRITERS[task](w)
    text = w.text.rstrip()
    return {"query": w.query, "response": text[:1].upper() + text[1:], "personal": w.personal}


def as_row(name, task, texts):
    """The last text is asked for; those before it are the profile."""
    *earlier, last = texts
    profile = [{"query": text["query"], "response": text["response"]} for text in earlier]
    return {"user": name, "task": task, **last, "profile": profile}


def user_rows(prefix, n_rows, rows_per_user, n_profile, held_out, dice):
    """n_rows rows a task; each user writes in one task, `n_profile` texts before the rows.

    newcomers: a user's first row is the first text ever, with nothing before it. So a model in training goes on
    meeting texts without a persona, and its plain view, which PIR subtracts, stays in practice.
    """
    rows = []
    for task in TASKS:
        for k in range(n_rows):
            name = f"{prefix}-{task}-{k // rows_per_user}"
            if k % rows_per_user == 0:
                user = User(dice, held_out)
                texts = [compose(task, user, dice) for _ in range(n_profile)]
                if not held_out:
                    rows.append(as_row(name, task, texts[:1]))
                    continue
            texts.append(compose(task, user, dice))
            rows.append(as_row(name, task, texts[-n_profile - 1 :]))
    return rows


def base_rows(n_rows, same_author, lists, n_profile, dice):
    """What the base model reads: lists read back, texts by themselves, texts behind those of strangers and texts
    behind those of their own author."""
    rows = []
    for k in range(n_rows):
        author, task, before = User(dice), "list" if dice.chance(lists) else dice.choice(TASKS), []
        if task in TASKS and k % 5:
            known = dice.chance(same_author)
            before = [compose(task, author if known else User(dice), dice) for _ in range(n_profile)]
        rows.append(as_row(f"base-{k}", task, [*before, compose(task, author, dice)]))
    return rows


def splits(examples, same_author, lists):
    """{file: a function of dice that makes its rows}."""
    held_out = max(1, examples // 10)
    return {"base": lambda dice: base_rows(examples * 4, same_author, lists, 4, dice),
            "train": lambda dice: user_rows("train", examples, 4, 6, False, dice),
            "val": lambda dice: user_rows("val", held_out, 2, 6, True, dice),
            "test": lambda dice: user_rows("test", held_out, 2, 6, True, dice)}


def write(folder, files, seed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in files.items():
        path = folder / f"{name}.jsonl"
        with open(f"{path}.new", "w", encoding="utf-8") as f:
            for row in make(Dice(f"{seed}/{name}")):
                f.write(json.dumps(row) + "\n")
        os.replace(f"{path}.new", path)
        print(f"wrote {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent,
                        help="folder to write to (default: beside this file)")  # fmt: skip
    parser.add_argument("--examples", type=int, default=2000, help="training examples a task (default 2000)")
    parser.add_argument("--same-author", type=float, default=0.12,
                        help="share of the base texts that follow their own author's (default 0.12)")  # fmt: skip
    parser.add_argument("--lists", type=float, default=0.4,
                        help="share of the base rows that are lists read back (default 0.4)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world (default 0)")
    args = parser.parse_args()

    write(args.out, splits(args.examples, args.same_author, args.lists), args.seed)


if __name__ == "__main__":
    main()
