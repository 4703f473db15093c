"""A made-up world of writers whose personal words are known: the default data.

    python data/personas/prepare.py          writes train, val, test and base.jsonl beside this file

Every user has a hidden style: invented names (a friend, a town, a project), words from large pools
(a greeting, a comparison, favourite aspects) and habits (British spelling, exclamation marks). A
text is a chain of random choices. Most of them have the same chances for every user. Where a habit
may show, the user's style decides with probability --faith, and the generator marks that text as a
personal span. All other text is base text.

Every response also holds --ordinary N sentences of random words that belong to nobody's style.
Without them a model could predict nearly all the text that is not personal. In real text it cannot.
"""

import random
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that this runs from any folder

from data.personas import words
from data.splits import write_splits
from perce_mini.runtime import cli
from perce_mini.runtime.files import check_writable

TASKS = ["abstract", "review", "topic"]
TRAIN, HELD_OUT = 84, 500  # rows per task in train, and in val and test each
BASE, SAME_AUTHOR, LISTS = 16_000, 0.3, 0.4  # the arguments of base_rows
N_ORDINARY = 4  # ordinary sentences in a response
FAITH = 0.8  # how often users follow a habit when there is an occasion
MARKED = 0.25  # the share of users who spell British, and of those who shout

# ------------------------------------------------------------------------------- users and writers


class Rng(random.Random):
    def chance(self, p):
        """True with probability p."""
        return self.random() < p


def is_reserved(name):
    """Is this one of the names for held-out users? They get a quarter of all names.

    None of these is in the base corpus or the training rows: a model can only copy it from the
    profile.
    """
    return sum(name.lower().encode()) % 4 == 0


class User:
    """A hidden style. Each part of it is drawn when a text first needs it, and never changes.

    held_out: True draws the reserved names, False the others, None any. ordinary: the number of
    ordinary sentences in a response. faith: how often the user follows a habit.
    """

    def __init__(self, rng, held_out=False, ordinary=0, faith=FAITH):
        self.rng, self.held_out, self.ordinary, self.faith = rng, held_out, ordinary, faith
        self.style = {}  # habit -> bool, and (trait, number of the part) -> word

    def has(self, habit):
        """Does the user have the habit, "british" or "shouts"?"""
        if habit not in self.style:
            self.style[habit] = self.rng.chance(MARKED)
        return self.style[habit]

    def parts(self, trait):
        """Yield the user's word for a trait part by part, as "Vera", " ", "Bor", "ren"."""
        name = ""
        for i, pool in enumerate(words.TRAITS[trait]):
            if (trait, i) not in self.style:
                if pool is words.ENDINGS and self.held_out is not None:
                    pool = [end for end in pool if is_reserved(name + end) == self.held_out]
                self.style[trait, i] = self.rng.choice(pool)
            part = self.style[trait, i]
            name = "" if part == " " else name + part
            yield part


class Writer:
    """Composes a query and its response choice by choice, and records the personal spans."""

    sentences = words.SENTENCES["everyday"]  # templates of the ordinary sentences

    def __init__(self, user, rng):
        self.user, self.rng = user, rng
        self.query, self.text, self.personal = "", "", []
        self.n_sentences = 0  # after the first, not counting ordinary ones

    def say(self, text):
        self.text += text

    def end_query(self):
        """The text so far was the query. The response follows."""
        self.query, self.text = self.text, ""

    def pick(self, *pool):
        """Choose how to continue, without saying anything yet."""
        return self.rng.choice(pool)

    def draw(self, pool):
        """Say a random word of the pool and return it."""
        word = self.rng.choice(pool)
        self.say(word)
        return word

    def follows_habit(self):
        return self.rng.chance(self.user.faith)

    def say_personal(self, parts):
        start = len(self.text)
        for part in parts:
            self.say(part)
        self.personal.append([start, len(self.text)])

    def mark(self, habit, marked, plain):
        """Say the marked form if the user has the habit and follows it, else the plain form."""
        if self.user.has(habit) and self.follows_habit():
            self.say_personal([marked])
        else:
            self.say(plain)

    def fill(self, template, pools=words.POOLS, **before):
        """Say a template and return the words that were drawn for it, {name: word}.

        {name} is the word of that name in `before`, or else one drawn from the pool of that name.
        {*trait} is the user's own word, {~word} a word that some users spell the British way.
        """
        drawn = {}
        for i, piece in enumerate(template.replace("}", "{").split("{")):
            if i % 2 == 0:  # outside the braces
                self.say(piece)
            elif piece[0] == "*":
                self.say_personal(self.user.parts(piece[1:]))
            elif piece[0] == "~":
                self.mark("british", words.BRITISH[piece[1:]], piece[1:])
            elif piece in before:
                self.say(before[piece])
            else:
                drawn[piece] = self.draw(pools[piece])
        return drawn

    def say_one_of(self, templates, **before):
        self.fill(self.pick(*templates), **before)

    def habit(self, personal, common, **before):
        """Say a sentence: one of the user's personal templates, or one that anybody might say."""
        self.say_one_of(personal if self.follows_habit() else common, **before)
        self.end_sentence()

    def end_opening(self):
        """End the first sentence."""
        self.mark("shouts", "!", ".")
        self.say(" ")

    def end_sentence(self):
        """End a later sentence, and say the ordinary sentences that follow it.

        They are spread evenly: 3 of them follow the first, second and third later sentence.
        """
        self.say(". ")
        for i in range(self.user.ordinary):
            if 4 * i // self.user.ordinary == self.n_sentences:
                self.say_ordinary()
        self.n_sentences += 1

    def say_ordinary(self):
        self.say_one_of(self.sentences, pools=words.ORDINARY)
        self.say(". ")


# --------------------------------------------------------------------------------------- the tasks


def review(w):
    common, personal = words.TEMPLATES["review"], words.PERSONAL["review"]
    drawn = w.fill("Review a {colour} {product}, {rating} of 5: ")
    drawn["verdict"] = w.draw(words.VERDICTS[drawn["rating"]])
    drawn |= w.fill(", mostly the {part}")
    w.end_query()
    greet(w)
    w.say_one_of(common["opening"], **drawn)
    w.end_opening()
    w.say_one_of(common["verdict"], **drawn)
    w.end_sentence()
    w.habit(personal[w.pick("aspect", "second aspect")], common["aspect"])
    w.habit(personal["friend"], common["friend"])
    w.habit(personal["likeness"], common["likeness"])
    sign(w)


def abstract(w):
    w.sentences = words.SENTENCES["abstract"]
    common, personal = words.TEMPLATES["abstract"], words.PERSONAL["abstract"]
    drawn = w.fill("Abstract for {goal} {field} {method}: {item}, ")
    drawn["second"] = w.draw([item for item in words.POOLS["item"] if item != drawn["item"]])
    w.end_query()
    w.say_one_of(common["opening"], **drawn)
    w.end_opening()
    w.habit(personal["system"], common["system"], **drawn)
    w.habit(personal["corpus"], common["corpus"])
    w.say_one_of(common["finding"])
    w.end_sentence()
    w.habit(personal["outlook"], common["outlook"])
    w.habit(personal["thanks"], common["thanks"])


def topic(w):
    common, personal = words.TEMPLATES["topic"], words.PERSONAL["topic"]
    drawn = w.fill("Post about {hobby} during the {event}: {feeling}")
    w.end_query()
    greet(w)
    w.say_one_of(common["opening"], **drawn)
    w.end_opening()
    w.habit(personal["friend"], common["friend"])
    w.say_one_of(common["feeling"], **drawn)
    w.end_sentence()
    w.habit(personal["likeness"], common["likeness"])
    w.habit(personal["slang"], common["slang"])
    sign(w)


def greet(w):
    if w.follows_habit():
        w.fill("{*greeting}, ")


def sign(w):
    if w.follows_habit():
        w.fill("{*farewell}, {*nickname}")


def read_back(w):
    """A list of words, and the same list again. It teaches a small model to copy within minutes."""
    names = ["".join(User(w.rng).parts("slang")) for _ in range(40)]
    pool = names + words.STYLE["first"] + words.STYLE["place"] + sum(words.POOLS.values(), [])
    text = " ".join(w.rng.sample(pool, w.pick(*range(10, 41))))
    w.say(f"Read back: {text}")
    w.end_query()
    w.say(f"Well, {text}")


WRITERS = {"review": review, "abstract": abstract, "topic": topic, "list": read_back}

# ---------------------------------------------------------------------------------------- the rows


def as_response(text):
    """A response starts with a capital and does not end with a space."""
    text = text.rstrip()
    return text[:1].upper() + text[1:]


def compose(task, user, rng):
    """One text by the user: {"query", "response", "personal"}."""
    w = Writer(user, rng)
    WRITERS[task](w)
    return {"query": w.query, "response": as_response(w.text), "personal": w.personal}


def as_row(name, task, texts):
    """A row that asks for the last of the texts. Those before it are the profile."""
    *earlier, last = texts
    profile = [{"query": text["query"], "response": text["response"]} for text in earlier]
    return {"user": name, "task": task, **last, "profile": profile}


def user_rows(split, n_rows, rng, ordinary=N_ORDINARY, faith=FAITH):
    """n_rows rows per task with a profile of six texts; one row per user, or two if held out.

    In train, every fourth row has an empty profile. Otherwise the model would forget how to
    predict without a persona, and PIR needs that prediction.
    """
    rows, held_out = [], split != "train"
    for task in TASKS:
        for k in range(n_rows):
            number, second = divmod(k, 2 if held_out else 1)
            if not second:
                user = User(rng, held_out, ordinary, faith)
                texts = [compose(task, user, rng) for _ in range(6)]
            texts.append(compose(task, user, rng))
            n_before = 6 if held_out or k % 4 else 0
            rows.append(as_row(f"{split}-{task}-{number}", task, texts[-n_before - 1 :]))
    return rows


def base_rows(n_rows, same_author, lists, rng, ordinary=N_ORDINARY, faith=FAITH):
    """The corpus of the base model: a share `lists` of lists to read back, and texts of the tasks.

    A fifth of the texts has no profile. The profile of the others is four texts, of the same author
    in a share `same_author`, else of strangers. An author writes 0 to 1.5 * `ordinary` ordinary
    sentences, so that one base model suits every setting of --ordinary.
    """

    def new_user():
        return User(rng, ordinary=rng.choice(range(ordinary + ordinary // 2 + 1)), faith=faith)

    rows = []
    for k in range(n_rows):
        author, before = new_user(), []
        task = "list" if rng.chance(lists) else rng.choice(TASKS)
        if task in TASKS and k % 5:
            same = rng.chance(same_author)
            before = [compose(task, author if same else new_user(), rng) for _ in range(4)]
        rows.append(as_row(f"base-{k}", task, [*before, compose(task, author, rng)]))
    return rows


def splits(train=TRAIN, held_out=HELD_OUT, base=BASE, same_author=SAME_AUTHOR, lists=LISTS, **how):
    """{split: function of an rng that makes its rows}. how: arguments `ordinary` and `faith`."""
    sizes = {"train": train, "val": held_out, "test": held_out}
    files = {split: partial(user_rows, split, n, **how) for split, n in sizes.items()}
    return {"base": partial(base_rows, base, same_author, lists, **how)} | files


def write(folder: str | Path, files: dict, seed: int = 0) -> None:
    """Write folder/SPLIT.jsonl for `files`, {split: function of an rng that makes its rows}.

    An error leaves all old files as they were. Raises UserError, OSError.
    """
    for split in files:
        check_writable(Path(folder) / f"{split}.jsonl")
    write_splits(folder, {split: make(Rng(f"{seed}/{split}")) for split, make in files.items()})


def write_once(folder: str | Path) -> None:
    """Write train, val and test of the default world, unless the folder has a test.jsonl."""
    if not (Path(folder) / "test.jsonl").exists():
        files = splits()
        write(folder, {split: files[split] for split in ["train", "val", "test"]})


def main():
    p = cli.Parser(description=__doc__)
    add, share = p.add_argument, cli.number(float, 0, 1)
    add("--out", type=Path, default=Path(__file__).parent, help="output folder (default: this one)")
    add("--train", type=cli.COUNT, default=TRAIN, help="training rows per task")
    add("--held-out", type=cli.COUNT, default=HELD_OUT, help="rows per task in val, and in test")
    add("--base", type=cli.COUNT, default=BASE, help="rows for the base model")
    add(
        "--same-author",
        type=share,
        default=SAME_AUTHOR,
        help="share of base profiles by one author",
    )
    add("--lists", type=share, default=LISTS, help="share of base rows that are lists to read back")
    add("--ordinary", type=cli.COUNT_OR_NONE, default=N_ORDINARY, help="random sentences per text")
    add("--faith", type=share, default=FAITH, help="how often users follow a habit")
    add("--seed", type=cli.SEED, default=0, help="another seed makes another world")
    args = vars(p.parse_args())
    folder, seed = args.pop("out"), args.pop("seed")
    write(folder, splits(**args), seed)


if __name__ == "__main__":
    cli.run(main)
