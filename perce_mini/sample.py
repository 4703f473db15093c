"""Answer the same query for different people, and without a profile.

    python -m perce_mini.sample out/perce
    python -m perce_mini.sample out/perce --query "Review of a red toaster: solid, the rim"
    python -m perce_mini.sample out/perce --query "Post about sailing" --profile my-texts.txt

Tokens that the profile makes more likely are marked. To find them, each answer is scored again with
and without the profile. Tokens with PIR > 0.8 are coloured, or put in [brackets] if the output is
not a terminal.
"""

import os
import re
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from perce_mini.dataset import bm25, encode_example
from perce_mini.heatmap import pieces
from perce_mini.percontrast import CLIP_MIN
from perce_mini.rows import held_out_file, read_examples
from perce_mini.runtime import cli
from perce_mini.runtime.cli import COUNT
from perce_mini.runtime.device import autocast, pick_device
from perce_mini.runtime.errors import UserError, printable
from perce_mini.runtime.files import read_text
from perce_mini.runtime.models import load_model
from perce_mini.scoring import MAX_NEW_TOKENS, score_tokens
from perce_mini.tables import say, show_text

CANDIDATES = 8  # number of users tried per task; two of them are shown


def answers(model, tokenizer, profiles, query, n=MAX_NEW_TOKENS, top_k=4, temperature=0.0, seed=0):
    """Answer the query for each profile, in at most n tokens. Returns one list per profile:
    [(piece of text, is it personal?), ...]."""
    block_size = model.config.block_size
    examples = []
    for profile in profiles:
        row = {"query": query, "response": "?", "profile": profile}
        examples.append(encode_example(row, tokenizer, block_size, top_k, n))
    prompts = [e.prompt for e in examples]
    with autocast(model.head.device):
        replies = model.generate(prompts, n, tokenizer.end, temperature, seed)
    written = [
        replace(e, response=[*reply, tokenizer.end], personal=[False] * (len(reply) + 1))
        for e, reply in zip(examples, replies)
    ]
    texts = []
    for reply, scores in zip(replies, score_tokens(model, written)):
        tokens = [tokenizer.bytes_of.get(i, b"") for i in reply]
        pir = scores["pir"]
        texts.append([(text, pir[group].sum() > CLIP_MIN) for text, group in pieces(tokens)])
    return texts


def marked(parts, colour):
    """Join the parts into one string, with runs of personal parts in colour or in [brackets]."""
    start, end = ("\033[1;33m", "\033[0m") if colour else ("[", "]")
    text = ""
    for personal, group in groupby(parts, key=lambda part: part[1]):
        piece = printable("".join(part for part, _ in group))
        core = piece.strip()
        if personal and core:  # white space at the edges stays outside the mark
            piece = piece.replace(core, start + core + end)
        text += piece
    return text


def uses_colour():
    return bool(sys.stdout and sys.stdout.isatty()) and "NO_COLOR" not in os.environ


def note_made_up_world(settings):
    """Print a note if the model was trained only on the default data."""
    folders = [settings.data, settings.init]
    if any(folder.endswith(("data/personas", "data/base")) for folder in folders):
        world = "the made-up world of data/personas"
        say(f"Note: this model only knows {world}. For real texts, use a pretrained model.")


def show_answers(model, tokenizer, people, query, **how):
    """Print the answers for [(name, profile), ...] and the answer without a profile.

    Returns the texts. how: see `answers`.
    """
    headings = [*(f"for {name}" for name, _ in people), "without a profile"]
    profiles = [*(profile for _, profile in people), []]
    texts = answers(model, tokenizer, profiles, query, **how)
    for heading, parts in zip(headings, texts):
        print()
        show_text(heading, marked(parts, uses_colour()))
    mark = "coloured tokens" if uses_colour() else "tokens in [brackets]"
    print(f"\n({mark} are more likely with the profile: PIR > {CLIP_MIN})")
    return ["".join(text for text, _ in parts) for parts in texts]


def show_two_users(model, tokenizer, rows, n, top_k):
    """Answer one query for two users and without a profile.

    To make the difference visible, the model answers the first query of every task for several
    users. The two users whose answers contain the most words from their own profiles are shown.
    """
    best = (-1, [], "")
    n_users = CANDIDATES
    if tokenizer.pretrained:  # a large model takes minutes on a CPU
        n_users = 2
        print("\ngenerating texts for two users per task ...", flush=True)
    for query, candidates in pick_candidates(rows, n_users):
        profiles = [row["profile"] for row in candidates]
        texts = answers(model, tokenizer, profiles, query, n, top_k)
        n_own = [len(own_words(parts, row)) for parts, row in zip(texts, candidates)]
        order = sorted(range(len(candidates)), key=lambda i: -n_own[i])[:2]
        people = [(f"user {candidates[i]['user']}", profiles[i]) for i in order]
        best = max(best, (sum(n_own[i] for i in order), people, query), key=lambda item: item[0])
    _, people, query = best
    who = "two held-out users" if len(people) > 1 else "a held-out user"
    say(f"The same query, answered for {who} and without a profile:")
    show_text("query", printable(query))
    show_answers(model, tokenizer, people, query, n=n, top_k=top_k)


def pick_candidates(rows, n_users):
    """For every task, yield its first query and rows of its first users: (query, rows)."""
    tasks = {}
    for row in rows:
        tasks.setdefault(row["task"], {}).setdefault(row["user"], row)
    for users in tasks.values():
        candidates = sorted(users.values(), key=lambda row: not row["profile"])[:n_users]
        yield candidates[0]["query"], candidates


def own_words(parts, row):
    """Return the words of an answer that are marked and occur in the user's profile."""
    personal = re.findall(r"\[(.*?)\]", marked(parts, colour=False))
    profile = set(re.findall(r"\w+", " ".join(item["response"] for item in row["profile"])))
    return {word for text in personal for word in re.findall(r"\w{3,}", text) if word in profile}


# -------------------------------------------------------------------------------------- the command


def parse_args():
    p = cli.Parser(prog="python -m perce_mini.sample", description=__doc__)
    help = "output folder of a train.py run, or a Hugging Face folder"
    p.add_argument("run", type=Path, metavar="DIR", help=help)
    p.add_argument("--query", help="what to ask (default: the query of the first user shown)")
    people = p.add_mutually_exclusive_group()
    help = "your own texts instead of held-out users: a text file (blank lines between texts), or a"
    help += " folder of text files"
    people.add_argument("--profile", type=Path, metavar="PATH", help=help)
    help = "folder or JSONL file with the users (default: the held-out users of the run's data)"
    people.add_argument("--data", type=Path, metavar="PATH", help=help)
    p.add_argument("--user", type=COUNT, default=1, metavar="N", help="start at the N-th user")
    p.add_argument("--temperature", **cli.TEMPERATURE | {"default": 0.0})
    p.add_argument("--seed", **cli.TEXT_SEED)
    p.add_argument("--device", **cli.DEVICE)
    return p.parse_args()


def read_profile(path):
    """Read a profile [{"query", "response"}, ...], oldest first. Raises UserError.

    In a text file, each paragraph is an item (blank lines separate paragraphs). In a folder, each
    *.txt or *.md file is an item, sorted by name.
    """
    if path.is_dir():
        texts = [read_text(file) for file in sorted([*path.glob("*.txt"), *path.glob("*.md")])]
    else:
        texts = re.split(r"\n[^\S\n]*\n", read_text(path))
    texts = [" ".join(text.split()) for text in texts]
    profile = [{"query": "", "response": text} for text in texts if text]
    if not profile:
        raise UserError(f"{path} contains no text (in a folder, only *.txt and *.md files count)")
    return profile


def find_people(args, settings):
    """Return [(name, profile), ...] and a default query, for --profile or three users of a task."""
    if args.profile:
        return [(str(args.profile), read_profile(args.profile))], ""
    data = args.data or settings.data
    if not data:
        raise UserError("give --profile or --data to say who the model should write for")
    path = held_out_file(data)
    rows = {row["user"]: row for row in read_examples(path) if row["profile"]}
    rows = list(rows.values())
    if args.query:  # users of the task with the most similar query come first
        likeness = bm25(args.query, [row["query"] for row in rows])
        best = rows[likeness.index(max(likeness, default=0))]["task"] if rows else ""
        rows.sort(key=lambda row: row["task"] != best)
    rows = rows[args.user - 1 :]
    if not rows:
        raise UserError(f"--user {args.user}: {path} does not have that many users with a profile")
    same_task = [row for row in rows if row["task"] == rows[0]["task"]]
    return [(f"user {row['user']}", row["profile"]) for row in same_task[:3]], rows[0]["query"]


def main():
    args = parse_args()
    print(f"loading {args.run}", flush=True)
    run = load_model(args.run, pick_device(args.device))
    if args.profile:
        note_made_up_world(run.settings)
    people, query = find_people(args, run.settings)
    query = args.query or query
    if args.profile and not query:
        raise UserError("--profile also needs --query, to say what the model should write")
    name, profile = people[0]
    print(printable(f"earlier texts ({name}):"))
    for item in profile[-4:]:
        show_text(item["query"] or "text", printable(item["response"]))
    say(f"Query: {query}")
    how = {"n": MAX_NEW_TOKENS, "top_k": run.settings.top_k}
    how |= {"temperature": args.temperature, "seed": args.seed}
    show_answers(run.model, run.tokenizer, people, query, **how)


if __name__ == "__main__":
    cli.run(main)
