"""Two more tasks for a base model: turns of a chat, and questions about a passage."""

from data.personas.prepare import WRITERS, Rng, User, as_row, base_rows, compose
from data.personas.words import POOLS

SHARE = 0.6  # share of the texts in the base corpus that are replaced
MONTHS = """January February March April May June July August September October November
    December""".split()
TURNS = [  # (request, answer in the user's own words, answer in common words)
    ("How do I greet them?", "{*greeting}, it is {day}", "Good day, it is {day}"),
    ("Who came by?", "My {*relation} {*friend} from {*town}", "Somebody from the {room}"),
    ("What was it like?", "Like a {*likeness}", "Like a {thing} in the {room}"),
    ("What do I say then?", "Oh {*phrase}, it is {state}", "Well, it is {state}"),
    ("How do I end it?", "Many {*farewell} from {*nickname}", "With a {thing}"),
]


def turn(w):
    """Write one turn of a chat. The answer uses the user's own words if the user follows habits."""
    request, personal, common = w.pick(*TURNS)
    w.say(request)
    w.end_query()
    w.habit([personal], [common])


def question(w):
    """Write a passage of two sentences, one of them about a sale, and a question about the sale."""
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


def general_rows(seed, n_rows):
    """Make a base corpus in which some of the texts are replaced by chat turns and questions.

    The profile of a turn holds four turns, by the same author or by strangers. A fifth of the turns
    have no profile.
    """
    rng = Rng(seed)
    rows = base_rows(n_rows, rng)
    for k, row in enumerate(rows):
        if row["task"] != "list" and rng.chance(SHARE):
            author, same = User(rng), rng.chance(0.5)
            task = rng.choice(["turn", "question"])
            n_before = 4 if task == "turn" and k % 5 else 0
            texts = [compose(task, author if same else User(rng), rng) for _ in range(n_before)]
            rows[k] = as_row(f"base-{k}", task, [*texts, compose(task, author, rng)])
    return rows


def chats(seed, n_users):
    """Make chats of ten turns by held-out users. The profile of a turn is the turns before it.

    Only turns with personal words become rows.
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
    """Make n rows, each with a passage and a question about it."""
    rng = Rng(seed)
    texts = [compose("question", User(rng), rng) for _ in range(n)]
    return [as_row(f"question-{i}", "question", [text]) for i, text in enumerate(texts)]
