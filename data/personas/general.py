"""The world without ordinary sentences, and two things more for the base model to read: turns of chats, and questions.

    python data/personas/general.py --out DIR

Writes what prepare.py --ordinary 0 writes, with another base.jsonl, and two files to be tested on: conversations.json,
ten-turn chats of held-out users in the form of ALOE, and passages.json, passages and questions in the form of DROP.
"""

import json
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, so that this runs from any folder

from data.personas import prepare
from data.personas.prepare import POOLS, WRITERS, Rng, User, Writer, as_row, base_rows, compose, splits, write
from perce_mini import cli
from perce_mini.files import write_text_atomic

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


def general_rows(n_rows, share, same_author, rng):
    """Base rows, of which a share makes way for questions and turns (behind turns of strangers or their own author)."""
    rows = base_rows(n_rows, same_author, prepare.LISTS, 4, rng)
    for k, row in enumerate(rows):
        if row["task"] != "list" and rng.chance(share):
            author, known = User(rng), rng.chance(same_author)
            task = rng.choice(["turn", "question"])
            n_before = 4 if task == "turn" and k % 5 else 0
            before = [compose(task, author if known else User(rng), rng) for _ in range(n_before)]
            rows[k] = as_row(f"base-{k}", task, [*before, compose(task, author, rng)])
    return rows


def conversation(rng):
    """Ten turns of a held-out user in the form of ALOE: every answer in the user's own words, beside anybody's."""
    user, turns = User(rng, held_out=True), []
    for _ in range(10):
        asked, own, base = rng.choice(TURNS)
        mine, anybodys = Writer(user, rng), Writer(user, rng)
        mine.fill(own + ".")
        anybodys.fill(base + ".")
        answers = {"preferred": mine.text, "rejected": anybodys.text}
        turns.append({"user": asked, "assistant": answers, "chosen": "preferred", "personal": mine.personal})
    style = {}
    for (trait, _), part in sorted(user.style.items()):
        style[trait] = style.get(trait, "") + part
    profile = "; ".join(f"{trait}: {value}" for trait, value in style.items())
    return {"profile": profile, "personality": "", "conversations": turns}


def passages(n, rng):
    """Passages and questions in the form of DROP: {id: {"passage", "qa_pairs"}}."""
    found = {}
    for i in range(n):
        text = compose("question", User(rng), rng)
        passage, asked = text["query"].rsplit(". ", 1)
        answer, kind = text["response"].rstrip("."), asked.split()[0]
        gold = {
            "number": answer if kind == "How" else "",
            "date": {"day": "", "month": answer, "year": ""} if kind == "When" else {},
            "spans": [answer] if kind == "Who" else [],
        }
        pair = {"question": asked, "query_id": f"question-{i}", "answer": gold}
        found[f"passage-{i}"] = {"passage": passage + ".", "qa_pairs": [pair]}
    return found


def main():
    p = cli.Parser(description=__doc__)
    p.add_argument("--out", type=Path, required=True, help="folder to write to")
    p.add_argument("--train", type=cli.COUNT, default=2000, help="training rows per task")
    p.add_argument("--share", type=prepare.SHARE, default=0.6, help="share of base texts that make way")
    args = p.parse_args()
    base = partial(general_rows, 4 * args.train, args.share, prepare.SAME_AUTHOR)
    write(args.out, splits(args.train, max(1, args.train // 10), ordinary=0) | {"base": base})
    rng = Rng("general")
    for name, found in [("conversations", [conversation(rng) for _ in range(60)]), ("passages", passages(300, rng))]:
        path = args.out / f"{name}.json"
        write_text_atomic(path, json.dumps(found) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main)
