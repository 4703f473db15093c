"""More to read for a base model that is to know more than the three tasks: chats, and questions about passages."""

from data.personas.prepare import BASE, POOLS, WRITERS, Rng, User, as_row, compose, splits

SHARE = 0.6  # of the base corpus's texts: chats and questions
MONTHS = "January February March April May June July August September October November December".split()
TURNS = [  # (what the user asks, the answer in the user's own words, anybody's answer)
    ("How do I greet them?", "{*greeting}, it is {day}", "Good day, it is {day}"),
    ("Who came by?", "My {*relation} {*friend} from {*town}", "Somebody from the {room}"),
    ("What was it like?", "Like a {*likeness}", "Like a {thing} in the {room}"),
    ("What do I call it?", "Pure {*slang}", "A {state} {thing}"),
    ("How do I end it?", "{*farewell}, {*nickname}", "With a {thing}"),
]


def turn(w):
    """A turn of a chat: an assistant answers in the user's own words, or as it would answer anybody."""
    asked, own, base = w.pick(*TURNS)
    w.say(asked)
    w.end_query()
    w.habit([own], [base])


def question(w):
    """Who sold what, how many and when, beside something else, and a question about one of these."""
    who, number = "".join(User(w.rng).parts("friend")), w.pick(*range(2, 21))
    thing, month = w.pick(*POOLS["thing"]), w.pick(*MONTHS)
    beside = f"The {w.pick(*POOLS['thing'])} in the {w.pick(*POOLS['room'])} was {w.pick(*POOLS['state'])}. "
    for sentence in w.rng.sample([f"{who} sold {number} {thing}s in {month}. ", beside], 2):
        w.say(sentence)
    questions = [(f"Who sold the {thing}s?", who), ("How many were sold?", number), ("When were they sold?", month)]
    asked, answer = w.pick(*questions)
    w.say(asked)
    w.end_query()
    w.say(f"{answer}.")


WRITERS |= {"turn": turn, "question": question}


def general_rows(seed, n_rows=BASE):
    """The base corpus, in which a share of the texts makes way for questions, and for turns of chats.

    Turns stand behind four turns of their own author or of strangers, or behind none.
    """
    rng = Rng(seed)
    rows = splits(base=n_rows)["base"](rng)
    for k, row in enumerate(rows):
        if row["task"] != "list" and rng.chance(SHARE):
            author, known, task = User(rng), rng.chance(0.5), rng.choice(["turn", "question"])
            n_before = 4 if task == "turn" and k % 5 else 0
            before = [compose(task, author if known else User(rng), rng) for _ in range(n_before)]
            rows[k] = as_row(f"base-{k}", task, [*before, compose(task, author, rng)])
    return rows


def chats(seed, n_users):
    """Ten turns of each of so many held-out users, those before as the profile; turns that show nothing of the user
    are left out."""
    rng, rows = Rng(seed), []
    for i in range(n_users):
        user = User(rng, held_out=True)
        turns = [compose("turn", user, rng) for _ in range(10)]
        rows += [as_row(f"chat-{i}", "turn", turns[: k + 1]) for k in range(10) if turns[k]["personal"]]
    return rows


def questions(seed, n):
    """n questions about a passage each."""
    rng = Rng(seed)
    return [as_row(f"question-{i}", "question", [compose("question", User(rng), rng)]) for i in range(n)]
