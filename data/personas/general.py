"""Two more tasks for a base model that can do more: turns of a chat, questions about a passage."""

from data.personas.prepare import BASE, WRITERS, Rng, User, as_row, compose, splits
from data.personas.words import POOLS

SHARE = 0.6  # of the texts in the base corpus
MONTHS = """January February March April May June July August September October November
    December""".split()
TURNS = [  # (what the user asks, the answer in the user's own words, the answer for anybody)
    ("How do I greet them?", "{*greeting}, it is {day}", "Good day, it is {day}"),
    ("Who came by?", "My {*relation} {*friend} from {*town}", "Somebody from the {room}"),
    ("What was it like?", "Like a {*likeness}", "Like a {thing} in the {room}"),
    ("What do I call it?", "Pure {*slang}", "A {state} {thing}"),
    ("How do I end it?", "{*farewell}, {*nickname}", "With a {thing}"),
]


def turn(w):
    """One turn of a chat: the assistant answers in the user's own words, or as it would anybody."""
    request, personal, common = w.pick(*TURNS)
    w.say(request)
    w.end_query()
    w.habit([personal], [common])


def question(w):
    """A passage on who sold what, how many and when, a second sentence, and a question about it."""
    who, number = "".join(User(w.rng).parts("friend")), w.pick(*range(2, 21))
    thing, month = w.pick(*POOLS["thing"]), w.pick(*MONTHS)
    other, room, state = (w.pick(*POOLS[name]) for name in ["thing", "room", "state"])
    sold = f"{who} sold {number} {thing}s in {month}. "
    for sentence in w.rng.sample([sold, f"The {other} in the {room} was {state}. "], 2):
        w.say(sentence)
    request, answer = w.pick(
        (f"Who sold the {thing}s?", who),
        ("How many were sold?", number),
        ("When were they sold?", month),
    )
    w.say(request)
    w.end_query()
    w.say(f"{answer}.")


WRITERS |= {"turn": turn, "question": question}


def general_rows(seed, n_rows=BASE):
    """The base corpus of this seed, with turns and questions in place of a share of its texts.

    A turn has a profile of four turns, by its own author or by strangers; every fifth has none.
    """
    rng = Rng(seed)
    rows = splits(base=n_rows)["base"](rng)
    for k, row in enumerate(rows):
        if row["task"] != "list" and rng.chance(SHARE):
            author, same = User(rng), rng.chance(0.5)
            task = rng.choice(["turn", "question"])
            n_before = 4 if task == "turn" and k % 5 else 0
            texts = [compose(task, author if same else User(rng), rng) for _ in range(n_before)]
            rows[k] = as_row(f"base-{k}", task, [*texts, compose(task, author, rng)])
    return rows


def chats(seed, n_users):
    """Rows of held-out users, with ten turns each. The profile of a turn is the turns before it.

    Turns that show nothing of the user are left out.
    """
    rng, rows = Rng(seed), []
    for i in range(n_users):
        user = User(rng, held_out=True)
        turns = [compose("turn", user, rng) for _ in range(10)]
        for k in range(10):
            if turns[k]["personal"]:
                rows.append(as_row(f"chat-{i}", "turn", turns[: k + 1]))
    return rows


def questions(seed, n):
    """n rows, each with a question about a passage."""
    rng = Rng(seed)
    texts = [compose("question", User(rng), rng) for _ in range(n)]
    return [as_row(f"question-{i}", "question", [text]) for i, text in enumerate(texts)]
