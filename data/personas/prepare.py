"""A small world of writers whose personal words are known: the default data.

    python data/personas/prepare.py          writes base, train, val and test.jsonl beside this file

Every user has a hidden style: names drawn from hundreds (a town, a friend, a project), words from large
pools (a greeting, a comparison, favourite aspects) and habits (British spelling, exclamation marks). A text
is a chain of choices. At most of them everybody draws alike; at some the user's style decides, most of the
time. What the style decided is written down as a personal span; all other text is base text.
"""

import argparse
import json
import os
import random
from pathlib import Path

TASKS = ["abstract", "review", "topic"]
FAITH = 0.8  # how often a user keeps to a habit when the occasion comes up

# Names: any first with any second. The pairs are many but not endless: those of held-out users occur in the base corpus
# too, with other users. A name says nothing about its owner until the profile is read, but it is no new string.
PEOPLE = ("Alma Boris Clara Dario Edith Felix Greta Hugo Irma Jonas Kira Lasse Mila Nils Olga Pavel Rosa Sven Tilda Uwe Vera Wanda Xenia"
          " Yuri Zelda Amos Berta Cyril Doris Emil Flora Gilda",
          "Abbot Birch Crane Drake Elgar Finch Grove Hart Ives Joyce Knox Lark Moss Nash Orton Pike Quill Rook Stark Thorn Ulm Vance Wolfe"
          " Yates Zorn Ash Bell Cole Dunn Ellis Frost Gale")
TOWNS = ("Amber Bitter Copper Dusty Elder Fallen Glass Hollow Iron Jade Kings Little Marble North Old Pearl Queens Raven Salt Timber Upper"
         " Violet West Ivory", "Bay Creek Dale Edge Falls Gate Haven Island Junction Keep Lake Mill Nook Oaks Point Quay Ridge Springs Tower"
         " Vale Wells Yard Cross Moor")
COINED = ("zan flib orbi luma snor wub plon grim tera kilo vex pico drib chuff mog yop skiv nexa quag twad",
          "gast ble loo mesh dle tron nik zing forge bop fest rak lume pod wick dax zoom tide plex mania")
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
VERDICTS = {1: "dreadful useless broken flimsy", 2: "weak disappointing clumsy tired", 3: "average decent plain acceptable",
            4: "solid pleasant reliable handy", 5: "superb flawless brilliant wonderful"}
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


class User:
    """A hidden style: one value a trait."""

    def __init__(self, dice):
        pair = lambda pools, between: between.join(dice.choice(pool.split()) for pool in pools)
        self.friend, self.town = pair(PEOPLE, " "), pair(TOWNS, " ")
        self.nickname, self.system, self.corpus, self.slang = (pair(COINED, "") for _ in range(4))
        self.greeting = f"{dice.choice(GREETINGS)} {dice.choice(CROWD)}"
        self.farewell = dice.choice(FAREWELLS)
        self.relation = dice.choice(RELATIONS)
        self.likeness = f"{dice.choice(QUALITIES)} {dice.choice(CREATURES)}"
        self.aspects = dice.sample(ASPECTS, 2)
        self.surely, self.scale = dice.choice(SURELY), dice.choice(SCALES)
        self.british = dice.random() < 0.25
        self.shouts = dice.random() < 0.25


class Writer:
    """Puts a text together choice by choice and keeps the spans that the style decided."""

    def __init__(self, user, dice):
        self.user, self.dice, self.text, self.personal = user, dice, "", []

    def say(self, text):
        self.text += text

    def own(self, text):
        """Say what is this user's own."""
        self.personal.append([len(self.text), len(self.text) + len(text)])
        self.text += text

    def pick(self, *pool):
        return self.dice.choice(pool)

    def keeps(self):
        """Does the user keep to a habit this time?"""
        return self.dice.random() < FAITH

    def spell(self, american):
        """British spelling is a habit of some; the American one says nothing about a user."""
        if self.user.british and self.keeps():
            self.own(BRITISH[american])
        else:
            self.say(american)

    def opening(self):
        """End the first sentence: with an exclamation mark where that is the user's habit."""
        if self.user.shouts and self.keeps():
            self.own("!")
        else:
            self.say(".")
        self.say(" ")


def fill(w, template, **pools):
    """Say a template, every {name} drawn from its pool; {*name} is the user's own word, {~word} a spelling."""
    for piece in template.replace("}", "{").split("{"):
        if piece.startswith("*"):
            w.own(getattr(w.user, piece[1:]))
        elif piece.startswith("~"):
            w.spell(piece[1:])
        elif piece in pools:
            w.say(w.pick(*pools[piece]))
        elif piece in POOLS:
            w.say(w.pick(*POOLS[piece]))
        else:
            w.say(piece)


POOLS = {"product": PRODUCTS, "colour": COLOURS, "day": DAYS, "unit": UNITS, "number": NUMBERS, "room": ROOMS,
         "manner": MANNERS, "part": PARTS, "state": STATES, "field": FIELDS, "method": METHODS, "goal": GOALS,
         "item": ITEMS, "result": RESULTS, "eval": EVALS, "hobby": HOBBIES, "event": EVENTS, "feeling": FEELINGS,
         "thing": THINGS, "aspect": ASPECTS, "relation": RELATIONS}


def habit(w, own, base, **pools):
    """One sentence: the user's way of saying it when the habit holds, otherwise anybody's."""
    fill(w, w.pick(*own) if w.keeps() else w.pick(*base), **pools)
    w.say(". ")


def review(w):
    product, rating = w.pick(*PRODUCTS), w.pick(1, 2, 3, 4, 5)
    verdict = w.pick(*VERDICTS[rating].split())
    part = w.pick(*PARTS)
    query = f"Review a {w.pick(*COLOURS)} {product}, {rating} of 5: {verdict}, mostly the {part}"
    if w.keeps():
        fill(w, "{*greeting}, ")
    fill(w, w.pick("I bought this {it} on {day} for the {room}", "this {it} came {number} {unit} ago",
                   "we used the {it} {manner} in the {room}"), it=[product])
    w.opening()
    fill(w, w.pick("The {it} is {how} and the {part} turned {state}", "After {number} {unit} the {it} looked {how}, the {part} {state}",
                   "It has a {how} {it}, but my {~favorite} {part} got {state}"), it=[part], how=[verdict])
    w.say(". ")
    w.user.aspect = w.pick(*w.user.aspects)
    habit(w, ["I always check the {*aspect}", "What matters is the {*aspect}", "Look at the {*aspect} first"],
          ["I rarely check the {aspect}", "What matters is the {part}", "Look at the {part} first"])
    habit(w, ["My {*relation} {*friend} in {*town} calls it {*slang}", "My {*relation} {*friend} took it to {*town}"],
          ["The {part} went {state} on {day}", "Then the {~color} of the {part} went {state}"])
    habit(w, ["It works like a {*likeness}", "It sits there like a {*likeness}"], ["It works {manner} by the {room}", "It sits by the {thing}"])
    sign(w)
    return query


def abstract(w):
    goal, field, method = w.pick(*GOALS), w.pick(*FIELDS), w.pick(*METHODS)
    items = w.dice.sample(ITEMS, 2)
    query = f"Abstract for {goal} {field} {method}: {items[0]}, {items[1]}"
    fill(w, w.pick("We study {m} for {g} {f} data", "This paper treats {g} {f} {m}", "Work on {f} {m} is often {goal}"),
         m=[method], g=[goal], f=[field])
    w.opening()
    habit(w, ["Our system {*system} joins a {a} with a {b}", "We present {*system} as a {a} over each {b}"],
          ["We join a {a} with a {b}", "We present a {a} over each {b}"], a=items[:1], b=items[1:])
    habit(w, ["On the {*corpus} corpus it cuts {result} by {number} percent", "Tests on {*corpus} show {number} times less {result}"],
          ["In {eval} it cuts {result} by {number} percent", "Tests with {eval} show {number} times less {result}"])
    fill(w, w.pick("The {~behavior} of the {item} is {goal} near the {~center}", "Each {item} is {~organized} in {number} {goal} steps",
                   "The {item} limits {result} and {result}"))
    w.say(". ")
    habit(w, ["The gain in {result} holds, {*surely} at {*scale} scale", "Less {result} is possible, {*surely} at {*scale} scale"],
          ["The gain in {result} holds for the {item}", "Less {result} is possible with {eval}"])
    habit(w, ["Code is kept in {*town} by {*friend}", "We thank {*friend} of {*town} for the {item}"],
          ["Code is kept with the {item}", "We thank the reviewers for {eval}"])
    return query


def topic(w):
    hobby, event, feeling = w.pick(*HOBBIES), w.pick(*EVENTS), w.pick(*FEELINGS)
    query = f"Post about {hobby} during the {event}: {feeling}"
    if w.keeps():
        fill(w, "{*greeting}, ")
    fill(w, w.pick("last {day} I went {h} and the {e} began", "I was {h} for {number} {unit} when the {e} came",
                   "the {e} came {manner} in week {number} of {h}"), h=[hobby], e=[event])
    w.opening()
    habit(w, ["My {*relation} {*friend} from {*town} brought a {thing}", "Then {*friend}, my {*relation}, lost a {thing} in {*town}"],
          ["Somebody from the {room} brought a {thing}", "Then a {~neighbor} lost a {thing} on {day}"])
    fill(w, w.pick("I {~realized} the {thing} was {state} and felt {f}", "The {thing} and the {thing} got {state}, so I am {f}",
                   "By {day} I was {f} about the {~gray} {thing}"), f=[feeling])
    w.say(". ")
    habit(w, ["I stood there like a {*likeness}", "We ran off like a {*likeness}"], ["I stood by the {thing}", "We ran off {manner} to the {room}"])
    habit(w, ["It was pure {*slang}", "What a {*slang} day"], ["It was a {state} {thing}", "What a {feeling} day"])
    sign(w)
    return query


def sign(w):
    if w.keeps():
        fill(w, "{*farewell}, {*nickname}")


def compose(task, user, dice):
    """One text of the user: {"query", "response", "personal"}."""
    w = Writer(user, dice)
    query = {"review": review, "abstract": abstract, "topic": topic}[task](w)
    text = w.text.rstrip()
    return {"query": query, "response": text[:1].upper() + text[1:], "personal": w.personal}


def as_row(name, task, texts):
    """The last text is asked for; those before it are the profile."""
    *earlier, last = texts
    profile = [{"query": text["query"], "response": text["response"]} for text in earlier]
    return {"user": name, "task": task, **last, "profile": profile}


def user_rows(prefix, n_rows, rows_per_user, n_profile, newcomers, dice):
    """n_rows rows a task; each user writes in one task, `n_profile` texts before the rows.

    newcomers: a user's first row is the first text ever, with nothing before it. So a model in training goes on
    meeting texts without a persona, and its plain view, which PIR subtracts, stays in practice.
    """
    rows = []
    for task in TASKS:
        for k in range(n_rows):
            name = f"{prefix}-{task}-{k // rows_per_user}"
            if k % rows_per_user == 0:
                user = User(dice)
                texts = [compose(task, user, dice) for _ in range(n_profile)]
                if newcomers:
                    rows.append(as_row(name, task, texts[:1]))
                    continue
            texts.append(compose(task, user, dice))
            rows.append(as_row(name, task, texts[-n_profile - 1 :]))
    return rows


def read_back(dice):
    """A list of words and the same list again: what teaches a small model within minutes to look back."""
    words = [word for pools in (PEOPLE, TOWNS, COINED) for pool in pools for word in pool.split()] + sum(POOLS.values(), [])
    text = " ".join(dice.sample(words, dice.randint(10, 40)))
    return {"query": f"Read back: {text}", "response": f"Well, {text}", "personal": []}


def base_rows(n_rows, same_author, lists, n_profile, dice):
    """What the base model reads: lists read back, texts by themselves, texts behind those of strangers and texts
    behind those of their own author."""
    rows = []
    for k in range(n_rows):
        author, task = User(dice), dice.choice(TASKS)
        if dice.random() < lists:
            rows.append(as_row(f"base-{k}", "list", [read_back(dice)]))
        else:
            known = dice.random() < same_author
            before = [compose(task, author if known else User(dice), dice) for _ in range(n_profile if k % 5 else 0)]
            rows.append(as_row(f"base-{k}", task, [*before, compose(task, author, dice)]))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to (default: beside this file)")
    parser.add_argument("--examples", type=int, default=2000, help="training examples a task (default 2000)")
    parser.add_argument("--same-author", type=float, default=0.12, help="share of the base texts that follow their own author's (default 0.12)")
    parser.add_argument("--lists", type=float, default=0.4, help="share of the base rows that are lists read back (default 0.4)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world (default 0)")
    args = parser.parse_args()

    held_out = max(1, args.examples // 10)
    splits = {"base": lambda dice: base_rows(args.examples * 4, args.same_author, args.lists, 4, dice),
              "train": lambda dice: user_rows("train", args.examples, 4, 6, True, dice),
              "val": lambda dice: user_rows("val", held_out, 2, 6, False, dice),
              "test": lambda dice: user_rows("test", held_out, 2, 6, False, dice)}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, make in splits.items():
        path = args.out / f"{name}.jsonl"
        with open(f"{path}.new", "w", encoding="utf-8") as f:
            for row in make(random.Random(f"{args.seed}/{name}")):
                f.write(json.dumps(row) + "\n")
        os.replace(f"{path}.new", path)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
