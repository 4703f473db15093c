"""The same world with two things more for the base model to read: turns of chats, and questions about passages.

    python -m data.personas.general --out DIR

Writes what prepare.py writes, with another base.jsonl, and two files to be tested on: conversations.json, ten-turn
chats of held-out users in the form of ALOE, and passages.json, passages and questions in the form of DROP.
"""

import argparse
import json
from pathlib import Path

from data.personas.prepare import ROOMS, STATES, THINGS, WRITERS, Dice, User, Writer
from data.personas.prepare import as_row, base_rows, compose, splits, write

MONTHS = "January February March April May June July August September October November December".split()
TURNS = [("How do I greet them?", "{*greeting}, it is {day}", "Good day, it is {day}"),
         ("Who came by?", "My {*relation} {*friend} from {*town}", "Somebody from the {room}"),
         ("What was it like?", "Like a {*likeness}", "Like a {thing} in the {room}"),
         ("What do I call it?", "Pure {*slang}", "A {state} {thing}"),
         ("How do I end it?", "{*farewell}, {*nickname}", "With a {thing}")]  # fmt: skip


def turn(w):
    """A turn of a chat: an assistant answers in the user's own words, or as it would answer anybody."""
    asked, own, base = w.pick(*TURNS)
    w.say(asked)
    w.end_query()
    w.habit([own], [base])


def question(w):
    """Who sold what, how many and when, beside something else, and a question about one of these."""
    who, number = "".join(User(w.dice).parts("friend")), w.pick(*range(2, 21))
    thing, month = w.pick(*THINGS), w.pick(*MONTHS)
    beside = f"The {w.pick(*THINGS)} in the {w.pick(*ROOMS)} was {w.pick(*STATES)}. "
    for sentence in w.dice.sample([f"{who} sold {number} {thing}s in {month}. ", beside], 2):
        w.say(sentence)
    questions = [(f"Who sold the {thing}s?", who), ("How many were sold?", number), ("When were they sold?", month)]
    asked, answer = w.pick(*questions)
    w.say(asked)
    w.end_query()
    w.say(f"{answer}.")


WRITERS |= {"turn": turn, "question": question}


def general_rows(n_rows, share, same_author, dice):
    """Base rows, of which a share makes way for questions and turns (behind turns of strangers or their own author)."""
    rows = base_rows(n_rows, same_author, 0.4, 4, dice)
    for k, row in enumerate(rows):
        if row["task"] != "list" and dice.chance(share):
            author, known = User(dice), dice.chance(same_author)
            task = dice.choice(["turn", "question"])
            n_before = 4 if task == "turn" and k % 5 else 0
            before = [compose(task, author if known else User(dice), dice) for _ in range(n_before)]
            rows[k] = as_row(f"base-{k}", task, [*before, compose(task, author, dice)])
    return rows


def conversation(dice):
    """Ten turns of a held-out user in the form of ALOE: every answer in the user's own words, beside anybody's."""
    user, turns = User(dice, held_out=True), []
    for _ in range(10):
        asked, own, base = dice.choice(TURNS)
        mine, anybodys = Writer(user, dice), Writer(user, dice)
        mine.fill(own + ".")
        anybodys.fill(base + ".")
        answers = {"preferred": mine.text, "rejected": anybodys.text}
        turns.append({"user": asked, "assistant": answers, "chosen": "preferred", "personal": mine.personal})
    style = {}
    for (trait, _), part in sorted(user.style.items()):
        style[trait] = style.get(trait, "") + part
    profile = "; ".join(f"{trait}: {value}" for trait, value in style.items())
    return {"profile": profile, "personality": "", "conversations": turns}


def passages(n, dice):
    """Passages and questions in the form of DROP: {id: {"passage", "qa_pairs"}}."""
    found = {}
    for i in range(n):
        text = compose("question", User(dice), dice)
        passage, asked = text["query"].rsplit(". ", 1)
        answer, kind = text["response"].rstrip("."), asked.split()[0]
        gold = {"number": answer if kind == "How" else "",
                "date": {"day": "", "month": answer, "year": ""} if kind == "When" else {},
                "spans": [answer] if kind == "Who" else []}  # fmt: skip
        pair = {"question": asked, "query_id": f"question-{i}", "answer": gold}
        found[f"passage-{i}"] = {"passage": passage + ".", "qa_pairs": [pair]}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--examples", type=int, default=2000, help="training examples a task (default 2000)")
    parser.add_argument("--share", type=float, default=0.6, help="share of the base texts that make way (default 0.6)")
    args = parser.parse_args()
    base = lambda dice: general_rows(args.examples * 4, args.share, 0.12, dice)
    write(args.out, splits(args.examples, 0.12, 0.4) | {"base": base}, seed=0)
    dice = Dice("general")
    for name, found in [("conversations", [conversation(dice) for _ in range(60)]), ("passages", passages(300, dice))]:
        (args.out / f"{name}.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
        print(f"wrote {args.out / name}.json")


if __name__ == "__main__":
    main()
