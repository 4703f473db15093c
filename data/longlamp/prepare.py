"""Official LongLaMP rows, or LaMP's questions and outputs, as rows of this project.

    python data/longlamp/prepare.py --task review --input train.json val.json [--out DIR]
    python data/longlamp/prepare.py --input dev_questions.json dev_outputs.json

LongLaMP rows come as a JSON list or as JSONL (`Dataset.to_json`). A file whose name says train, val, dev or test
keeps its split; the users of any other file are split 8 : 1 : 1. LaMP's pair is recognised by itself.
"""

import hashlib
import math
import os
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, so that this runs from any folder

from data.splits import print_dropped, write_splits
from perce_mini import cli
from perce_mini.errors import UserError
from perce_mini.files import check_writable, parse_json

# How a task's profile item is said as query and response, in the wording of the task's own input. {a|b}: whichever key
# is there.
TASKS = {
    "abstract": ('Generate an abstract for the title "{title}"', "{abstract}"),
    "review": (
        'Generate the review text written by a reviewer who has a given an overall rating of "{overall}" for a'
        ' product with description "{description}". The summary of the review text is "{summary}".',
        "{reviewText}",
    ),
    "topic": ("Generate the content for a reddit post {summary|input}", "{content|output}"),
    "LaMP_4": ("Generate a headline for the following article: {text}", "{title}"),
    "LaMP_5": ("Generate a title for the following abstract of a paper: {abstract}", "{title}"),
    "LaMP_7": ("", "{text}"),
}
USER = "name|reviewerId|author|user|id"  # whichever key is there; LaMP's rows have an id only
PARQUET = (
    "parquet is not read here; write JSON Lines in Python: "
    'datasets.load_dataset("LongLaMP/LongLaMP", "product_review_user")["train"].to_json("train.jsonl")'
)
SPLITS = ["train", "val", "test"]

# ---------------------------------------------------------------------------------------- reading files


def check(ok, where, reason):
    if not ok:
        raise UserError(f"{where}: {reason}")


def read_rows(path):
    """[(where, row)] of a JSON list, of LaMP's outputs object, or of JSONL. Raises UserError."""
    try:
        content = path.read_bytes()
        check(not content.startswith(b"PAR1"), path, PARQUET)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text in UTF-8 ({error})") from None
    try:
        whole = parse_json(text, path)
    except UserError:
        if text.lstrip().startswith("["):
            raise
        lines = [(f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        return [(where, parse_json(line, where)) for where, line in lines]
    if isinstance(whole, dict) and "golds" in whole:
        task = str(whole.get("task", ""))
        check(task in ["", *TASKS], path, f"task {task[:40]!r} is not read here; LaMP_4, LaMP_5 and LaMP_7 are")
        whole = whole["golds"]
    rows = whole if isinstance(whole, list) else [whole]
    return [(f"{path}: row {number}", row) for number, row in enumerate(rows, 1)]


def read_files(paths):
    """({id: output} of LaMP's outputs, [(path, where, row)] of all other rows). Raises UserError."""
    golds, rows = {}, []
    for path in paths:
        for where, row in read_rows(path):
            if isinstance(row, dict) and set(row) == {"id", "output"}:
                key, output = field(row, "id", where), field(row, "output", where)
                check(golds.setdefault(key, output) == output, where, f"id {key!r} had another output before")
            else:
                rows.append((path, where, row))
    return golds, rows


# -------------------------------------------------------------------------------- official rows to rows


def field(item, names, where):
    """The text of the first key of "a|b" that the item has; a rating 5.0 reads "5". Raises UserError."""
    name = next((name for name in names.split("|") if name in item), None)
    check(name, where, f"no {' or '.join(map(repr, names.split('|')))}")
    value = item[name]
    good = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    check(good, where, f"{name!r} must be a string or a number, not {type(value).__name__}")
    if isinstance(value, float):
        check(math.isfinite(value), where, f"{name!r} is {value}, which is no number")
        value = str(value).removesuffix(".0")
    text = str(value)
    check("\0" not in text, where, f"{name!r} holds a NUL character")
    check(not re.search("[\ud800-\udfff]", text), where, f"{name!r} holds a lone surrogate, which no text can encode")
    return text


def say(template, item, where):
    return re.sub("{(.*?)}", lambda match: field(item, match[1], where), template)


def lamp_task(profile):
    """LaMP's questions do not name their task: the keys of their profiles tell it."""
    if not profile:
        return None
    keys = set(profile[0]) if isinstance(profile[0], dict) else {"text"}
    return "LaMP_5" if "abstract" in keys else "LaMP_4" if "title" in keys else "LaMP_7"


def convert(row, where, task, golds):
    """One official row -> a row of this project. golds: LaMP's outputs; empty for LongLaMP. Raises UserError."""
    check(isinstance(row, dict), where, f"must be an object, not {type(row).__name__}")
    check(isinstance(row.get("profile"), list), where, "'profile' must be a list")
    if golds:
        task, key = lamp_task(row["profile"]) or task, field(row, "id", where)
        check(key in golds, where, f"no output for id {key!r}")
    profile = []
    for i, item in enumerate(row["profile"]):
        place = f"{where}, profile item {i}"
        check(isinstance(item, dict), place, f"must be an object, not {type(item).__name__}")
        query, response = (say(template, item, place) for template in TASKS[task])
        profile.append({"query": query, "response": response})
    user = field(row, USER, where)
    check(user.strip(), where, "the user's name is empty")
    response = golds[key] if golds else field(row, "output", where)
    return {"user": user, "task": task, "query": field(row, "input", where), "response": response, "profile": profile}


# ------------------------------------------------------------------------------------- rows to splits


def split_of(path, user):
    named = re.search("(?<![a-z])(train|val|dev|test)(ing|idation)?(?![a-z])", path.name.lower())
    if named:
        return named[1].replace("dev", "val")
    return (["train"] * 8 + ["val", "test"])[int(hashlib.sha256(user.encode()).hexdigest(), 16) % 10]


def make_splits(files, task, max_chars):
    """({split: rows}, {reason: how many were dropped}). Raises UserError."""
    golds, official = read_files(files)
    if not golds and not task:
        raise UserError("--task abstract, review or topic is needed for LongLaMP rows")
    if golds:  # of rows that have no profile
        profiles = [one.get("profile") for _, _, one in official if isinstance(one, dict)]
        task = next((lamp_task(profile) for profile in profiles if profile and isinstance(profile, list)), "LaMP_7")
    splits, dropped = {split: [] for split in SPLITS}, Counter()
    for path, where, one in official:
        row = convert(one, where, task, golds)
        useless = ("", row["response"].strip())
        kept = [item for item in row["profile"] if item["response"].strip() not in useless]
        dropped["profile items that are empty or equal to the response"] += len(row["profile"]) - len(kept)
        row["profile"] = kept
        if not row["response"].strip():
            dropped["rows with an empty response"] += 1
        elif max_chars and len(row["response"]) > max_chars:
            dropped[f"rows with a response over {max_chars} characters"] += 1
        else:
            splits[split_of(path, row["user"])].append(row)
    if not any(splits.values()):
        print_dropped(dropped)
        raise UserError(f"{', '.join(map(str, files))}: no rows left")
    return splits, dropped


def main():
    p = cli.Parser(description=__doc__)
    p.add_argument("--task", choices=["abstract", "review", "topic"], help="the LongLaMP task; not needed for LaMP")
    p.add_argument("--input", nargs="+", type=Path, required=True, metavar="FILE", help="official files")
    p.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: beside this file)")
    p.add_argument("--max-chars", type=cli.COUNT, help="drop rows with a longer response (default: keep all)")
    args = p.parse_args()
    outputs = [args.out / f"{split}.jsonl" for split in SPLITS]
    for path in outputs:
        check_writable(path)
    both = set(map(os.path.realpath, outputs)) & set(map(os.path.realpath, args.input))
    check(not both, ", ".join(both), "is to be read, so it cannot be written; give another --out")
    write_splits(args.out, *make_splits(args.input, args.task, args.max_chars))


if __name__ == "__main__":
    cli.run(main)
