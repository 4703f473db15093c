"""Write for a user: the same query, answered for different people and for nobody.

    python -m perce_mini.sample out/perce
    python -m perce_mini.sample out/perce --query "Review a red kettle, 4 of 5: solid, mostly the rim"
    python -m perce_mini.sample out/perce --profile my-texts.txt

What an answer owes to the profile is marked: tokens with PIR > 0.8, when it is scored with and without the profile.
"""

import os
import sys
from itertools import groupby
from pathlib import Path

from perce_mini import cli, hf
from perce_mini.cli import COUNT
from perce_mini.dataset import encode_example, held_out_file, read_examples
from perce_mini.device import autocast, pick_device
from perce_mini.errors import UserError, printable
from perce_mini.heatmap import pieces
from perce_mini.percontrast import CLIP_MIN
from perce_mini.retrieval import bm25
from perce_mini.scoring import MAX_NEW_TOKENS, score_tokens
from perce_mini.tables import say, show_text
from perce_mini.trainer import Settings

NOBODY = ("nobody", [])


def parse_args():
    p = cli.Parser(prog="python -m perce_mini.sample", description=__doc__)
    p.add_argument("run", type=Path, metavar="DIR", help="folder that train.py wrote, or a Hugging Face folder")
    p.add_argument("--query", help="what is asked (default: typed, or that of a held-out user where nobody types)")
    help = "your own texts, with empty lines between them, in place of the held-out users"
    people = p.add_mutually_exclusive_group()
    people.add_argument("--profile", type=Path, metavar="FILE", help=help)
    help = "folder or JSONL file with the users (default: held-out users of the run's data)"
    people.add_argument("--data", type=Path, metavar="PATH", help=help)
    p.add_argument("--user", type=COUNT, default=1, metavar="N", help="start at the N-th of the users")
    p.add_argument("--temperature", **cli.TEMPERATURE | {"default": 0.0})
    p.add_argument("--seed", **cli.TEXT_SEED)
    p.add_argument("--device", **cli.DEVICE)
    return p.parse_args()


def read_profile(path):
    """A text file -> profile: one item per paragraph. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig").replace("\0", "")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    texts = [" ".join(part.split()) for part in text.split("\n\n")]
    profile = [{"query": "", "response": text} for text in texts if text]
    if not profile:
        raise UserError(f"{path}: no texts in it")
    return profile


def find_people(args, settings):
    """[(name, profile), ...] and a query: the owner of --profile, or three held-out users who write in one task."""
    if args.profile:
        return [(str(args.profile), read_profile(args.profile))], ""
    data = args.data or settings.get("data")
    if not data:
        raise UserError("--data or --profile must say for whom to write")
    path = held_out_file(data)
    rows = list({row["user"]: row for row in read_examples(path) if row["profile"]}.values())
    if args.user > len(rows):
        raise UserError(f"--user {args.user}: {path} has {len(rows)} users with a profile")
    if args.query:  # those first who were asked something like it
        likeness = bm25(args.query, [row["query"] for row in rows])
        rows = [rows[i] for i in sorted(range(len(rows)), key=lambda i: -likeness[i])]
    return three_users(rows, args.user - 1)


def three_users(rows, first):
    """[(name, profile), ...] of row number `first` and two other users' in its task, and the first one's query."""
    row, users = rows[first], {}
    for other in [row, *rows]:
        if other["task"] == row["task"]:
            users.setdefault(f"user {other['user']}", other["profile"])
    return list(users.items())[:3], row["query"]


def answer(model, tokenizer, profile, query, top_k=Settings.top_k, temperature=0.0, seed=0):
    """What the model writes for a profile: [(text, does it come from the profile?), ...] piece by piece."""
    row = {"query": query, "response": "?", "profile": profile}
    example = encode_example(row, tokenizer, model.config.block_size, top_k, MAX_NEW_TOKENS)
    with autocast(model.head.device):
        (ids,) = model.generate([example.prompt], MAX_NEW_TOKENS, tokenizer.end, temperature, seed=seed)
    example.response = [*ids, tokenizer.end]
    (scores,) = score_tokens(model, [example])
    tokens = [tokenizer.bytes_of.get(i, b"") for i in ids]
    return [(text, scores["pir"][group].sum() > CLIP_MIN) for text, group in pieces(tokens)]


def marked(parts, colour):
    """The text, with what comes from the profile in bold colour, or in [brackets] where there are no colours."""
    start, end = ("\033[1;33m", "\033[0m") if colour else ("[", "]")
    text = ""
    for personal, group in groupby(parts, key=lambda part: part[1]):
        piece = printable("".join(piece for piece, _ in group))
        space = " " if personal and piece.startswith(" ") else ""
        text += space + start + piece[len(space) :] + end if personal else piece
    return text


def show_answers(model, tokenizer, people, query, **how):
    """Print the answers to one query for [(name, profile), ...], one after the other. how: top_k, temperature, seed."""
    colour = bool(sys.stdout and sys.stdout.isatty()) and "NO_COLOR" not in os.environ
    for name, profile in people:
        print()
        show_text(f"for {name}", marked(answer(model, tokenizer, profile, query, **how), colour))
    mark = "in colour" if colour else "in [brackets]"
    print(f"\n({mark}: tokens that the profile makes likelier, PIR > {CLIP_MIN})")


def main():
    args = parse_args()
    model, tokenizer, state = hf.load_any(args.run, pick_device(args.device))
    people, query = find_people(args, state["settings"])
    name, profile = people[0]
    print(printable(f"{name} wrote before:"))
    for item in profile[-4:]:
        show_text(printable(item["query"]) or "text", printable(item["response"]))
    if args.query is not None:
        query = args.query
    elif sys.stdin and sys.stdin.isatty():
        query = input(f"\nWhat is asked? [{query}] ").strip() or query
    say(f"asked: {query}")
    how = {"top_k": state["settings"].get("top_k", Settings.top_k), "temperature": args.temperature, "seed": args.seed}
    show_answers(model, tokenizer, [*people, NOBODY], query, **how)


if __name__ == "__main__":
    cli.run(main)
