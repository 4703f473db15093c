"""A small world of writers whose personal words are known: the default data.

    python data/personas/prepare.py          writes train, val, test and base.jsonl beside this file

Every user has a hidden style: made-up names (a friend, a town, a project), words from large pools (a greeting, a
comparison, favourite aspects) and habits (British spelling, exclamation marks). A text is a chain of choices.
At most of them everybody draws alike; at some the user's style decides, most of the time. What the style
decided is written down as a personal span; all other text is base text.

Every response also holds ordinary sentences that nobody can foresee and that are nobody's style. --ordinary N is the
dial of their number. Without them almost all text that is not personal can be foreseen; in real text little can.
--faith P is the dial of the personal text: how often the style decides where it may.
"""

import random
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, so that this runs from any folder

from data.personas.words import CASES, ORDINARY, SENTENCES
from perce_mini import cli
from perce_mini.files import replace_files, write_jsonl

TASKS = ["abstract", "review", "topic"]
TRAIN, HELD_OUT, BASE = 84, 500, 16_000  # rows: per task in train, in val and in test each; in all in base
SAME_AUTHOR, LISTS, N_ORDINARY = 0.3, 0.4, 4
SHARE = cli.number(float, 0, 1)
FAITH = 0.8  # how often a user keeps to a habit when the occasion comes up
MARKED = 0.25  # the share of users who spell British, and of those who shout

# -------------------------------------------------------------------------------------------- the words

# Names are strings of syllables. A quarter of all names is kept for held-out users and stands nowhere in the base
# corpus and the training texts, so a model can only have it from the profile.
SYLLABLES = """bal ber bil bor bra cal cel cor dan del dri dor fal fen fin gar gel gil gor hal hel hol jan jor kal kel
    kin kor lan len lor lum mal mel mir mon nal nel nim nor pal pel pin por ral ren rin rol sal sel sil sor tal tem tin
    tor val ven vik vor wal wen wil zan zel zim""".split()
CAPITALS = [syllable.title() for syllable in SYLLABLES]
ENDINGS = list(SYLLABLES)  # the last syllable of a name

# Words from which a user's own are drawn.
FIRSTS = """Alma Boris Clara Dario Edith Felix Greta Hugo Irma Jonas Kira Lasse Mila Nils Olga Pavel Rosa Sven Tilda Uwe
    Vera Wanda Xenia Yuri Zelda Amos""".split()
PLACES = """Bay Creek Dale Edge Falls Gate Haven Island Junction Keep Lake Mill Nook Oaks Point Quay Ridge Springs Tower
    Vale Wells""".split()
GREETINGS = "Hello Howdy Greetings Evening Morning Ahoy Hail Welcome Hey Hi Ciao Oi".split()
CROWD = """folks neighbours readers everyone friends comrades travellers shoppers strangers experts beginners team pals
    citizens colleagues people""".split()
FAREWELLS = "Regards Cheers Yours Farewell Thanks Peace Onwards Goodnight Respectfully Warmly Best Bye".split()
RELATIONS = """sister cousin uncle neighbour boss landlord daughter nephew dentist flatmate grandmother teacher coach
    partner""".split()
QUALITIES = """happy sleepy wooden patient rusty gentle stubborn velvet nervous golden hungry silent crooked brave
    frozen lazy polished tiny clumsy proud muddy fearless lonely cheerful""".split()
CREATURES = """badger teapot lighthouse donkey cathedral turnip walrus bicycle parrot kettle hedgehog tractor pigeon
    glacier monk beetle piano goose cactus submarine ferret lantern mule comet""".split()
ASPECTS = """weight packaging manual hinge battery smell colour noise warranty stitching handle display surface price
    cable lid texture balance zip grip timer coating strap filter""".split()
SURELY = "perhaps surely mostly rarely always often hardly nearly partly fully".split()
SCALES = "small local global early late single joint open mixed strict rough typical".split()
BRITISH = {"color": "colour", "gray": "grey", "center": "centre", "favorite": "favourite"}
BRITISH |= {"realized": "realised", "neighbor": "neighbour", "organized": "organised", "behavior": "behaviour"}

# What a style is made of: a trait is a string in parts, each drawn from a pool.
TRAITS = {
    "friend": [FIRSTS, [" "], CAPITALS, ENDINGS],
    "town": [CAPITALS, ENDINGS, [" "], PLACES],
    **dict.fromkeys(["nickname", "system", "corpus", "slang"], [SYLLABLES, SYLLABLES, ENDINGS]),
    "greeting": [GREETINGS, [" "], CROWD],
    "farewell": [FAREWELLS],
    "relation": [RELATIONS],
    "likeness": [QUALITIES, [" "], CREATURES],
    "aspect": [ASPECTS],
    "second aspect": [ASPECTS],
    "surely": [SURELY],
    "scale": [SCALES],
}

# Words that everybody draws alike.
PARTS = "button cord base frame switch cover wheel hook screen panel motor rim latch spring".split()
VERDICTS = {
    "1": "dreadful useless broken flimsy",
    "2": "weak disappointing clumsy tired",
    "3": "average decent plain acceptable",
    "4": "solid pleasant reliable handy",
    "5": "superb flawless brilliant wonderful",
}
POOLS = {
    "product": """kettle lamp backpack blender heater tent keyboard drill fan suitcase mattress toaster jacket vacuum
        camera speaker chair clock scooter stove""".split(),
    "colour": "red brown black white green silver blue yellow purple pink".split(),
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "unit": "days weeks months".split(),
    "number": "two three four five six seven eight nine ten eleven twelve twenty thirty".split(),
    "room": "kitchen garage office bedroom garden attic hallway basement workshop balcony".split(),
    "manner": "quickly slowly smoothly badly quietly loudly evenly barely nicely poorly safely twice".split(),
    "part": PARTS,
    "state": "bent cracked loose fine clean stiff shiny warm dusty intact scratched wet".split(),
    "field": "sensor traffic protein climate speech market network language image power water crop".split(),
    "method": """sampling clustering routing search pruning matching scheduling filtering planning learning fusion
        tracing""".split(),
    "goal": "sparse noisy mobile dynamic large rural hybrid cheap robust remote open modular".split(),
    "item": """graph tree cache kernel budget table lattice signal queue buffer prior margin bridge mask token vector
        ledger grid""".split(),
    "result": "cost error delay memory energy variance bias loss latency waste".split(),
    "eval": "surveys simulations benchmarks interviews proofs measurements archives experiments".split(),
    "hobby": """sailing baking chess gardening knitting running birding climbing painting fishing cycling
        camping""".split(),
    "event": "storm strike wedding exam fire festival flood party election concert race blackout".split(),
    "feeling": "angry relieved confused delighted worried proud bored ashamed hopeful tired amused lost".split(),
    "thing": "ladder rope bucket ticket letter map cake whistle blanket bottle hammer radio wallet candle".split(),
    "aspect": ASPECTS,
    "other": PARTS,
    "rating": list(VERDICTS),
}


# ------------------------------------------------------------------------------------ users and writers


def is_kept_back(name):
    """Is this one of the names that only held-out users have? A quarter of all, picked by the sum of their letters."""
    return sum(name.lower().encode()) % 4 == 0


class Rng(random.Random):
    def chance(self, p):
        """True with probability p."""
        return self.random() < p


class User:
    """A hidden style. Each piece of it is drawn when a text first needs it, and then stays.

    held_out: draw names of those kept for held-out users (True), of the others (False), or of all (None).
    ordinary: how many ordinary sentences each response holds. faith: how often a habit is kept.
    """

    def __init__(self, rng, held_out=False, ordinary=0, faith=FAITH):
        self.rng, self.held_out, self.ordinary, self.faith, self.style = rng, held_out, ordinary, faith, {}

    def has(self, habit):
        """Is this user one of those with the habit ("british", "shouts")?"""
        if habit not in self.style:
            self.style[habit] = self.rng.chance(MARKED)
        return self.style[habit]

    def parts(self, trait):
        """The parts of a trait, one after the other."""
        word = ""  # the name as far as it goes
        for i, pool in enumerate(TRAITS[trait]):
            if (trait, i) not in self.style:
                if pool is ENDINGS and self.held_out is not None:
                    pool = [ending for ending in pool if is_kept_back(word + ending) == self.held_out]
                self.style[trait, i] = self.rng.choice(pool)
            part = self.style[trait, i]
            word = "" if part == " " else word + part
            yield part


class Writer:
    """Puts a query and its response together choice by choice, and keeps the spans that the style decided."""

    sentences = SENTENCES  # the ordinary ones

    def __init__(self, user, rng):
        self.user, self.rng, self.query, self.text, self.personal, self.ended = user, rng, "", "", [], 0

    def say(self, text):
        self.text += text

    def end_query(self):
        """What was said so far was the query; what follows is the response."""
        self.query, self.text = self.text, ""

    def pick(self, *pool):
        """Choose a way to go on, and say nothing yet."""
        return self.rng.choice(pool)

    def draw(self, pool):
        """Say a word of the pool."""
        word = self.rng.choice(pool)
        self.say(word)
        return word

    def keeps(self):
        """Does the user keep to a habit this time?"""
        return self.rng.chance(self.user.faith)

    def own(self, pieces):
        """Say what is this user's own."""
        start = len(self.text)
        for piece in pieces:
            self.say(piece)
        self.personal.append([start, len(self.text)])

    def mark(self, habit, own, base):
        """Say what users with a habit say when they keep to it, else what anybody says."""
        if self.user.has(habit) and self.keeps():
            self.own([own])
        else:
            self.say(base)

    def end_opening(self):
        """End the first sentence."""
        self.mark("shouts", "!", ".")
        self.say(" ")

    def end_sentence(self):
        """End a sentence after the first. The ordinary ones stand behind the first four of these, spread evenly."""
        self.say(". ")
        n = self.user.ordinary
        for _ in range([4 * i // n for i in range(n)].count(self.ended)):
            self.ordinary()
        self.ended += 1

    def ordinary(self):
        """A sentence of words that nobody can foresee."""
        self.one_of(*self.sentences, pools=ORDINARY)
        self.say(". ")

    def fill(self, template, pools=POOLS, **known):
        """Say a template: {name} is what is known by that name or else drawn from the pool of that name, {*trait} the
        user's own, {~word} a spelling. Returns what was drawn, by name."""
        drawn = {}
        for i, piece in enumerate(template.replace("}", "{").split("{")):
            if i % 2 == 0:
                self.say(piece)
            elif piece[0] == "*":
                self.own(self.user.parts(piece[1:]))
            elif piece[0] == "~":
                self.mark("british", BRITISH[piece[1:]], piece[1:])
            elif piece in known:
                self.say(known[piece])
            else:
                drawn[piece] = self.draw(pools[piece])
        return drawn

    def one_of(self, *templates, **known):
        """Say one of the templates."""
        self.fill(self.pick(*templates), **known)

    def habit(self, own, base, **known):
        """One sentence: the user's way of saying it when the habit holds, otherwise anybody's."""
        self.one_of(*(own if self.keeps() else base), **known)
        self.end_sentence()


# -------------------------------------------------------------------------------------------- the tasks


def review(w):
    known = w.fill("Review a {colour} {product}, {rating} of 5: ")
    known["verdict"] = w.draw(VERDICTS[known["rating"]].split())
    known |= w.fill(", mostly the {part}")
    w.end_query()
    if w.keeps():
        w.fill("{*greeting}, ")
    w.one_of(
        "I bought this {product} on {day} for the {room}",
        "this {product} came {number} {unit} ago",
        "we used the {product} {manner} in the {room}",
        **known,
    )
    w.end_opening()
    w.one_of(
        "The {part} is {verdict} and the {other} turned {state}",
        "After {number} {unit} the {part} looked {verdict}, the {other} {state}",
        "It has a {verdict} {part}, but my {~favorite} {other} got {state}",
        **known,
    )
    w.end_sentence()
    own = w.pick("{*aspect}", "{*second aspect}")
    w.habit(
        [f"I always check the {own}", f"What matters is the {own}", f"Look at the {own} first"],
        ["I rarely check the {aspect}", "What matters is the {other}", "Look at the {other} first"],
    )
    w.habit(
        ["My {*relation} {*friend} in {*town} calls it {*slang}", "My {*relation} {*friend} took it to {*town}"],
        ["The {other} went {state} on {day}", "Then the {~color} of the {other} went {state}"],
    )
    w.habit(
        ["It works like a {*likeness}", "It sits there like a {*likeness}"],
        ["It works {manner} by the {room}", "It sits by the {thing}"],
    )
    sign(w)


def abstract(w):
    w.sentences = CASES
    known = w.fill("Abstract for {goal} {field} {method}: {item}, ")
    known["second"] = w.draw([item for item in POOLS["item"] if item != known["item"]])
    w.end_query()
    w.one_of(
        "We study {method} for {goal} {field} data",
        "This paper treats {goal} {field} {method}",
        "Work on {field} {method} is often {goal}",
        **known,
    )
    w.end_opening()
    w.habit(
        ["Our system {*system} joins a {item} with a {second}", "We present {*system} as a {item} over each {second}"],
        ["We join a {item} with a {second}", "We present a {item} over each {second}"],
        **known,
    )
    w.habit(
        [
            "On the {*corpus} corpus it cuts {result} by {number} percent",
            "Tests on {*corpus} show {number} times less {result}",
        ],
        ["In {eval} it cuts {result} by {number} percent", "Tests with {eval} show {number} times less {result}"],
    )
    w.one_of(
        "The {~behavior} of the {item} is {goal} near the {~center}",
        "Each {item} is {~organized} in {number} {goal} steps",
        "The {item} limits {result} and {result}",
    )
    w.end_sentence()
    w.habit(
        [
            "The gain in {result} holds, {*surely} at {*scale} scale",
            "Less {result} is possible, {*surely} at {*scale} scale",
        ],
        ["The gain in {result} holds for the {item}", "Less {result} is possible with {eval}"],
    )
    w.habit(
        ["Code is kept in {*town} by {*friend}", "We thank {*friend} of {*town} for the {item}"],
        ["Code is kept with the {item}", "We thank the reviewers for {eval}"],
    )


def topic(w):
    known = w.fill("Post about {hobby} during the {event}: {feeling}")
    w.end_query()
    if w.keeps():
        w.fill("{*greeting}, ")
    w.one_of(
        "last {day} I went {hobby} and the {event} began",
        "I was {hobby} for {number} {unit} when the {event} came",
        "the {event} came {manner} in week {number} of {hobby}",
        **known,
    )
    w.end_opening()
    w.habit(
        [
            "My {*relation} {*friend} from {*town} brought a {thing}",
            "Then {*friend}, my {*relation}, lost a {thing} in {*town}",
        ],
        ["Somebody from the {room} brought a {thing}", "Then a {~neighbor} lost a {thing} on {day}"],
    )
    w.one_of(
        "I {~realized} the {thing} was {state} and felt {feeling}",
        "The {thing} and the {thing} got {state}, so I am {feeling}",
        "By {day} I was {feeling} about the {~gray} {thing}",
        **known,
    )
    w.end_sentence()
    w.habit(
        ["I stood there like a {*likeness}", "We ran off like a {*likeness}"],
        ["I stood by the {thing}", "We ran off {manner} to the {room}"],
    )
    w.habit(["It was pure {*slang}", "What a {*slang} day"], ["It was a {state} {thing}", "What a {feeling} day"])
    sign(w)


def sign(w):
    if w.keeps():
        w.fill("{*farewell}, {*nickname}")


def read_back(w):
    """A list of words and the same list again: what teaches a small model within minutes to look back."""
    names = ["".join(User(w.rng).parts("slang")) for _ in range(40)]
    text = " ".join(w.rng.sample(names + FIRSTS + PLACES + sum(POOLS.values(), []), w.pick(*range(10, 41))))
    w.say(f"Read back: {text}")
    w.end_query()
    w.say(f"Well, {text}")


WRITERS = {"review": review, "abstract": abstract, "topic": topic, "list": read_back}


# --------------------------------------------------------------------------------------------- the rows


def as_response(text):
    """A response starts with a capital and ends without a space."""
    text = text.rstrip()
    return text[:1].upper() + text[1:]


def compose(task, user, rng):
    """One text of the user: {"query", "response", "personal"}."""
    w = Writer(user, rng)
    WRITERS[task](w)
    return {"query": w.query, "response": as_response(w.text), "personal": w.personal}


def as_row(name, task, texts):
    """The last text is asked for; those before it are the profile."""
    *earlier, last = texts
    profile = [{"query": text["query"], "response": text["response"]} for text in earlier]
    return {"user": name, "task": task, **last, "profile": profile}


def user_rows(split, n_rows, rng, ordinary=N_ORDINARY, faith=FAITH):
    """n_rows rows per task; each user writes in one task: six texts, and then a row, or two if held out.

    Every fourth row that is not held out is a first text, with nothing before it. So a model in training goes on
    meeting texts without a persona, and its plain view, which PIR subtracts, stays in practice.
    """
    rows, held_out = [], split != "train"
    for task in TASKS:
        for k in range(n_rows):
            number, later = divmod(k, 2 if held_out else 1)
            if not later:
                user = User(rng, held_out, ordinary, faith)
                texts = [compose(task, user, rng) for _ in range(6)]
            texts.append(compose(task, user, rng))
            n_before = 6 if held_out or k % 4 else 0
            rows.append(as_row(f"{split}-{task}-{number}", task, texts[-n_before - 1 :]))
    return rows


def base_rows(n_rows, same_author, lists, rng, ordinary=N_ORDINARY, faith=FAITH):
    """What the base model reads: lists read back, texts by themselves, texts behind four of strangers and texts
    behind four of their own author. How many ordinary sentences an author writes is drawn, from none to half as many
    again, so that one base model serves all settings of the dial."""

    def user():
        return User(rng, ordinary=rng.choice(range(ordinary + ordinary // 2 + 1)), faith=faith)

    rows = []
    for k in range(n_rows):
        author = user()
        task, before = "list" if rng.chance(lists) else rng.choice(TASKS), []
        if task in TASKS and k % 5:
            known = rng.chance(same_author)
            before = [compose(task, author if known else user(), rng) for _ in range(4)]
        rows.append(as_row(f"base-{k}", task, [*before, compose(task, author, rng)]))
    return rows


def splits(train=TRAIN, held_out=HELD_OUT, base=BASE, same_author=SAME_AUTHOR, lists=LISTS, **dials):
    """{file: a function of an rng that makes its rows}. dials: ordinary and faith."""
    sizes = {"train": train, "val": held_out, "test": held_out}
    files = {split: partial(user_rows, split, n, **dials) for split, n in sizes.items()}
    return {"base": partial(base_rows, base, same_author, lists, **dials)} | files


def write(folder: str | Path, files: dict, seed: int = 0) -> None:
    """Replace the folder's files by the rows of `files`, {file: a function of an rng that makes its rows}.

    All new files are whole before the first old one goes, in this order. Raises UserError, OSError.
    """

    def write_file(name, path):
        write_jsonl(files[name](Rng(f"{seed}/{name}")), path)

    writers = {Path(folder) / f"{name}.jsonl": partial(write_file, name) for name in files}
    replace_files(writers)
    for path in writers:
        print(f"wrote {path}")


def main():
    p = cli.Parser(description=__doc__)
    p.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: beside this file)")
    p.add_argument("--train", type=cli.COUNT, default=TRAIN, help="training rows per task")
    p.add_argument("--held-out", type=cli.COUNT, default=HELD_OUT, help="rows per task in val and in test")
    p.add_argument("--base", type=cli.COUNT, default=BASE, help="rows for the base model to read")
    p.add_argument("--same-author", type=SHARE, default=SAME_AUTHOR, help="share of base texts behind the author's own")
    p.add_argument("--lists", type=SHARE, default=LISTS, help="share of base rows that are lists read back")
    p.add_argument("--ordinary", type=cli.COUNT_OR_NONE, default=N_ORDINARY, help="unforeseeable sentences in a text")
    p.add_argument("--faith", type=SHARE, default=FAITH, help="how often a user keeps to a habit: more personal text")
    p.add_argument("--seed", type=cli.SEED, default=0, help="another seed, another world")
    args = vars(p.parse_args())
    folder, seed = args.pop("out"), args.pop("seed")
    write(folder, splits(**args), seed)


if __name__ == "__main__":
    cli.run(main)
