"""Official LongLaMP rows, or LaMP's questions and outputs, as rows of this project.

    python data/longlamp/prepare.py --task review --input train.json val.json [--out DIR]
    python data/longlamp/prepare.py --input dev_questions.json dev_outputs.json

LongLaMP rows come as a JSON list or as JSONL (`Dataset.to_json`). A file whose name says train, val, dev or test
keeps its split; the users of any other file are split 8 : 1 : 1. LaMP's pair is recognised by itself.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

# How a task's profile item is said as query and response, in the wording of the task's own input. {a|b}: whichever key
# is there.
TASKS = {
    "abstract": ('Generate an abstract for the title "{title}"', "{abstract}"),
    "review": ('Generate the review text written by a reviewer who has a given an overall rating of "{overall}" for a'
               ' product with description "{description}". The summary of the review text is "{summary}".', "{reviewText}"),
    "topic": ("Generate the content for a reddit post {summary|input}", "{content|output}"),
    "LaMP_4": ("Generate a headline for the following article: {text}", "{title}"),
    "LaMP_5": ("Generate a title for the following abstract of a paper: {abstract}", "{title}"),
    "LaMP_7": ("", "{text}"),
}  # fmt: skip
USER_KEYS = ["name", "reviewerId", "author", "user"]


class Bad(Exception):
    """One line: file, line or row, and reason."""


def read_rows(path):
    """(where, row) of a JSON list, of LaMP's outputs object, or of JSONL."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Bad(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):  # not one JSON value: a value a line
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield f"{path}:{number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise Bad(f"{path}:{number}: not JSON ({error})") from None
        return
    if isinstance(whole, dict) and "golds" in whole:
        whole = whole["golds"]
    for number, row in enumerate(whole if isinstance(whole, list) else [whole], 1):
        yield f"{path}: row {number}", row


def field(item, names, where):
    """The text of the first key of "a|b" that the item has; a rating 5.0 reads "5"."""
    for name in names.split("|"):
        if name in item:
            value = item[name]
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise Bad(f"{where}: {name!r} must be a string or a number, not {type(value).__name__}")
            return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    raise Bad(f"{where}: no {' or '.join(map(repr, names.split('|')))}")


def say(template, item, where):
    return re.sub("{(.*?)}", lambda match: field(item, match[1], where), template)


def convert(where, row, task, gold):
    """One official row -> a row of this project."""
    if not isinstance(row, dict):
        raise Bad(f"{where}: must be an object, not {type(row).__name__}")
    if not isinstance(row.get("profile"), list):
        raise Bad(f"{where}: 'profile' must be a list")
    if not task:  # LaMP does not say it in the questions: the keys of its profiles do
        keys = set(row["profile"][0]) if row["profile"] and isinstance(row["profile"][0], dict) else {"text"}
        task = "LaMP_5" if "abstract" in keys else "LaMP_4" if "title" in keys else "LaMP_7"
    profile = []
    for i, item in enumerate(row["profile"]):
        if not isinstance(item, dict):
            raise Bad(f"{where}, profile item {i}: must be an object, not {type(item).__name__}")
        query, response = (say(template, item, f"{where}, profile item {i}") for template in TASKS[task])
        profile.append({"query": query, "response": response})
    user = next((str(row[key]) for key in USER_KEYS if key in row), None) or field(row, "id", where)
    response = gold if gold is not None else field(row, "output", where)
    return {"user": user, "task": task, "query": field(row, "input", where), "response": response, "profile": profile}


def split_of(path, user):
    named = re.search("train|val|dev|test", path.name.lower())
    if named:
        return named[0].replace("dev", "val")
    return (["train"] * 8 + ["val", "test"])[int(hashlib.sha256(user.encode(errors="replace")).hexdigest(), 16) % 10]


def prepare(args):
    golds, questions = {}, []
    for path in args.input:
        for where, row in read_rows(path):
            if isinstance(row, dict) and set(row) == {"id", "output"}:
                golds[str(row["id"])] = field(row, "output", where)
            else:
                questions.append((path, where, row))
    if not golds and not args.task:
        raise Bad("--task abstract, review or topic is needed for LongLaMP rows")
    splits, dropped = {"train": [], "val": [], "test": []}, Counter()
    for path, where, row in questions:
        gold = None
        if golds:
            key = str(row.get("id")) if isinstance(row, dict) else None
            if key not in golds:
                raise Bad(f"{where}: no output for id {key!r}")
            gold = golds[key]
        row = convert(where, row, None if golds else args.task, gold)
        useless = ("", row["response"].strip())
        kept = [item for item in row["profile"] if item["response"].strip() not in useless]
        dropped["profile items that are empty or equal to the response"] += len(row["profile"]) - len(kept)
        row["profile"] = kept
        if not row["response"].strip():
            dropped["rows with an empty response"] += 1
        elif args.max_chars and len(row["response"]) > args.max_chars:
            dropped[f"rows with a response over {args.max_chars} characters"] += 1
        else:
            splits[split_of(path, row["user"])].append(row)
    if not any(splits.values()):
        raise Bad(f"{', '.join(map(str, args.input))}: no rows left")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        path = args.out / f"{name}.jsonl"
        path.unlink(missing_ok=True)  # no rows, no file: a split of an earlier call must not stay
        if rows:
            new = Path(f"{path}.new")
            new.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            os.replace(new, path)
            print(f"wrote {path}: {len(rows)} rows of {len({row['user'] for row in rows})} users")
    print("dropped:", ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n) or "nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["abstract", "review", "topic"],
                        help="the LongLaMP task of the rows; not needed for LaMP")  # fmt: skip
    parser.add_argument("--input", nargs="+", type=Path, required=True, metavar="FILE", help="official files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent,
                        help="folder to write to (default: beside this file)")  # fmt: skip
    parser.add_argument("--max-chars", type=int, metavar="N",
                        help="drop rows whose response is longer (default: keep all)")  # fmt: skip
    try:
        prepare(parser.parse_args())
    except (Bad, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
