"""Generate the default data: texts by made-up users whose personal words are known.

    python data/personas/prepare.py          writes the files into this folder

Every user has a hidden style: names (a friend, a town, a project), favourite words (a greeting, a
comparison, a drink) and habits (British spelling, exclamation marks). A text is the result of many
random choices. Most of them do not depend on the user. Wherever the style can show, the user
follows it with probability --faith. The generator marks the words that follow it as a personal
span.

base.jsonl is the corpus of the base model: letters, diaries, recipes, notices and lists of words.
train.jsonl, val.jsonl and test.jsonl contain abstracts, reviews and posts on a topic. The base
model has never read texts of these kinds, but the users' styles are made of the same words.
familiar.jsonl contains letters, diaries, recipes and notices by held-out users.

Every response also contains --ordinary N sentences of random words that are not part of any style.
Without them, a model could predict nearly all text that is not personal. In real text it cannot.
"""

import random
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that this runs from any folder

from data.personas import words
from data.personas.words import BASE_TASKS, TASKS
from data.splits import write_splits
from perce_mini.runtime import cli
from perce_mini.runtime.files import check_writable

TRAIN, HELD_OUT = 252, 500  # rows per task in train, and in each of val and test
FAMILIAR = 20  # rows per kind of text in familiar
BASE = 16_000  # rows in base
LISTS = 0.3  # share of the base rows that are lists of words
SAME_AUTHOR = 0.6  # share of the profiles in base that are by the author of the text
N_ORDINARY = 4  # ordinary sentences in a response
FAITH = 0.8  # how often a user follows a habit
MARKED = 0.25  # share of users with British spelling, and of users with exclamation marks


class Rng(random.Random):
    def chance(self, p):
        """True with probability p."""
        return self.random() < p


def is_reserved(name):
    """Is the name reserved for held-out users? A quarter of all names are.

    Reserved names occur neither in base nor in train, so a model can only copy them from a profile.
    """
    return sum(name.lower().encode()) % 4 == 0


class User:
    """A user with a hidden style. Each part of the style is drawn when a text first needs it.

    held_out: True gives the user reserved names, False other names, None any name. ordinary: number
    of ordinary sentences in a response. faith: probability of following a habit.
    """

    def __init__(self, rng, held_out=False, ordinary=0, faith=FAITH):
        self.rng, self.held_out, self.ordinary, self.faith = rng, held_out, ordinary, faith
        self.style = {}  # {habit: bool} and {(trait, index of the part): word}

    def has(self, habit):
        """Does the user have this habit ("british" or "shouts")?"""
        if habit not in self.style:
            self.style[habit] = self.rng.chance(MARKED)
        return self.style[habit]

    def parts(self, trait):
        """Yield the user's words for a trait in parts, such as "Vera", " ", "Ash", "ford"."""
        name = ""
        for i, pool in enumerate(words.TRAITS[trait]):
            if (trait, i) not in self.style:
                if pool in words.ENDINGS and self.held_out is not None:
                    pool = [end for end in pool if is_reserved(name + end) == self.held_out]
                self.style[trait, i] = self.rng.choice(pool)
            part = self.style[trait, i]
            name = "" if part == " " else name + part
            yield part


class Writer:
    """Writes a query and then the response, and records the personal spans of the response."""

    sentences = words.SENTENCES["everyday"]  # templates of the ordinary sentences

    def __init__(self, user, rng):
        self.user, self.rng = user, rng
        self.query, self.text, self.personal = "", "", []
        # number of sentences so far, not counting the first one and the ordinary ones
        self.n_sentences = 0

    def say(self, text):
        self.text += text

    def end_query(self):
        """Use the text so far as the query, and begin the response."""
        self.query, self.text = self.text, ""

    def pick(self, *pool):
        """Return one of the options at random, without saying it."""
        return self.rng.choice(pool)

    def draw(self, pool):
        """Say a random word from the pool, and return it."""
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
        """Fill in the template's fields and append the result to the text.

        Returns the words that were drawn: {name: word}.

        {name} is replaced by before[name], or by a random word from the pool of this name. {*trait}
        is replaced by the user's own words, and {~word} by the British spelling if the user has
        that habit.
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
        """Say a sentence: a personal template if the user follows the habit, else a common one."""
        self.say_one_of(personal if self.follows_habit() else common, **before)
        self.end_sentence()

    def end_opening(self):
        """End the first sentence, with an exclamation mark if the user has that habit."""
        self.mark("shouts", "!", ".")
        self.say(" ")

    def end_sentence(self):
        """End a later sentence, and say the ordinary sentences that follow it.

        The ordinary sentences are spread evenly over the first four later sentences.
        """
        self.say(". ")
        for i in range(self.user.ordinary):
            if 4 * i // self.user.ordinary == self.n_sentences:
                self.say_one_of(self.sentences, pools=words.ORDINARY)
                self.say(". ")
        self.n_sentences += 1


def write_kind(kind, w):
    """Write a text of this kind from its templates: query, greeting, sentences, closing."""
    common, personal = words.TEMPLATES[kind], words.PERSONAL[kind]
    w.sentences = words.SENTENCES.get(kind, w.sentences)
    drawn = w.fill(*common["query"])
    w.end_query()
    if "greeting" in personal and w.follows_habit():
        w.say_one_of(personal["greeting"])
        w.say(" ")
    w.say_one_of(common["opening"], **drawn)
    w.end_opening()
    for name in list(common)[2:]:  # the sentences after query and opening
        if name in personal:
            w.habit(personal[name], common[name], **drawn)
        else:
            w.say_one_of(common[name], **drawn)
            w.end_sentence()
    if "closing" in personal and w.follows_habit():
        w.say_one_of(personal["closing"])


def read_back(w):
    """Write a list of words, and then the same list again.

    These lists teach a small model to copy within minutes. A third of the words are names. The
    others occur in the tasks for fine-tuning, so that the tokenizer and the base model know them.
    """
    listed = {}  # a dict keeps the words in order, and each of them only once
    for _ in range(w.pick(*range(10, 41))):
        if w.rng.chance(1 / 3):
            word = "".join(User(w.rng).parts(w.pick("workplace", "nickname", "project")))
        else:
            word = w.rng.choice(words.LISTED)
        listed[word] = None
    text = " ".join(listed)
    w.say(f"Read back: {text}")
    w.end_query()
    w.say(f"Well, {text}")


WRITERS = {kind: partial(write_kind, kind) for kind in TASKS + BASE_TASKS} | {"list": read_back}


def as_response(text):
    """Make the first letter a capital, and remove spaces at the end."""
    text = text.rstrip()
    return text[:1].upper() + text[1:]


def compose(task, user, rng):
    """Let the user write a text: {"query", "response", "personal": [[start, end], ...]}."""
    w = Writer(user, rng)
    WRITERS[task](w)
    return {"query": w.query, "response": as_response(w.text), "personal": w.personal}


def as_row(name, task, texts):
    """Make a row from texts of `compose`. The last one is the response, the others the profile."""
    *earlier, last = texts
    profile = [{"query": text["query"], "response": text["response"]} for text in earlier]
    return {"user": name, "task": task, **last, "profile": profile}


def user_rows(split, n_rows, rng, tasks=TASKS, ordinary=N_ORDINARY, faith=FAITH):
    """Make n_rows rows per task.

    Each training user has one row; each user in the other splits has two. A profile holds six
    texts. In train, every fourth profile is empty: otherwise the model would forget how to predict
    without a persona, and PIR needs that prediction.
    """
    rows, held_out = [], split != "train"
    for task in tasks:
        for k in range(n_rows):
            number, second = divmod(k, 2 if held_out else 1)
            if not second:
                user = User(rng, held_out, ordinary, faith)
                texts = [compose(task, user, rng) for _ in range(6)]
            texts.append(compose(task, user, rng))
            n_before = 6 if held_out or k % 4 else 0
            rows.append(as_row(f"{split}-{task}-{number}", task, texts[-n_before - 1 :]))
    return rows


def base_rows(n_rows, rng, ordinary=N_ORDINARY, faith=FAITH):
    """Make the corpus of the base model: lists of words to read back, and texts of BASE_TASKS.

    A fifth of the texts have no profile. The others have a profile of four texts of the same kind,
    by the same author or by strangers. An author writes between 0 and 1.5 * `ordinary` ordinary
    sentences, so that the same base model can be used with any value of --ordinary.
    """

    def new_user():
        return User(rng, ordinary=rng.choice(range(ordinary + ordinary // 2 + 1)), faith=faith)

    rows = []
    for k in range(n_rows):
        author, before = new_user(), []
        kind = "list" if rng.chance(LISTS) else rng.choice(BASE_TASKS)
        if kind != "list" and k % 5:
            same = rng.chance(SAME_AUTHOR)
            before = [compose(kind, author if same else new_user(), rng) for _ in range(4)]
        rows.append(as_row(f"base-{k}", kind, [*before, compose(kind, author, rng)]))
    return rows


def splits(train=TRAIN, held_out=HELD_OUT, base=BASE, tasks=TASKS, **how):
    """{split: function of an rng that returns its rows}. how: `ordinary` and `faith` (see User)."""
    of_tasks = partial(user_rows, tasks=tasks, **how)
    return {
        "base": partial(base_rows, base, **how),
        "train": partial(of_tasks, "train", train),
        "val": partial(of_tasks, "val", held_out),
        "test": partial(of_tasks, "test", held_out),
        "familiar": partial(user_rows, "familiar", FAMILIAR, tasks=BASE_TASKS, **how),
    }


def write(folder: str | Path, files: dict, seed: int = 0) -> None:
    """Write folder/SPLIT.jsonl for every split of `files`, which `splits` returns.

    If an error occurs, all old files stay unchanged. Raises UserError or OSError.
    """
    for split in files:
        check_writable(Path(folder) / f"{split}.jsonl")
    write_splits(folder, {split: make(Rng(f"{seed}/{split}")) for split, make in files.items()})


def write_once(folder: str | Path) -> None:
    """Write the default data except base.jsonl.

    Do nothing if familiar.jsonl exists, which is written last.
    """
    if not (Path(folder) / "familiar.jsonl").exists():
        files = splits()
        del files["base"]
        write(folder, files)


def main():
    p = cli.Parser(description=__doc__)
    add = p.add_argument
    add("--out", type=Path, default=Path(__file__).parent, help="output folder (default: this one)")
    add("--train", type=cli.COUNT, default=TRAIN, help="training rows per task")
    add("--held-out", type=cli.COUNT, default=HELD_OUT, help="rows per task in val, and in test")
    add("--base", type=cli.COUNT, default=BASE, help="rows for the base model")
    kinds = TASKS + BASE_TASKS
    help = f"kinds of text in train, val and test: {', '.join(kinds)} (default: the first three)"
    add("--tasks", nargs="+", choices=kinds, default=TASKS, metavar="KIND", help=help)
    help = "ordinary sentences per response"
    add("--ordinary", type=cli.COUNT_OR_NONE, default=N_ORDINARY, help=help)
    help = "probability that a user follows their style"
    add("--faith", type=cli.number(float, 0, 1), default=FAITH, help=help)
    help = "random seed; another seed gives other users and texts"
    add("--seed", type=cli.SEED, default=0, help=help)
    args = vars(p.parse_args())
    folder, seed = args.pop("out"), args.pop("seed")
    write(folder, splits(**args), seed)


if __name__ == "__main__":
    cli.run(main)
