"""Make rows from official LongLaMP files, or from LaMP's pairs of question and output files.

    python data/longlamp/prepare.py --task review --input train.json val.json [--out DIR]
    python data/longlamp/prepare.py --input dev_questions.json dev_outputs.json

LongLaMP rows are read from a JSON list or from JSON Lines. If a file name contains train, val, dev
or test, all rows of the file go into that split. The users in other files are split 8 : 1 : 1.
"""

import hashlib
import math
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that this runs from any folder

from data.splits import print_dropped, write_splits
from perce_mini.rows import gives_answer
from perce_mini.runtime import cli
from perce_mini.runtime.errors import UserError, one_line, short_repr
from perce_mini.runtime.files import check_writable, open_regular, parse_json

# Templates for the query and the response of a profile item, worded like the task's own input.
# {a|b} stands for the value of key a, or of key b if there is no a.
TASKS = {
    "abstract": ('Generate an abstract for the title "{title}"', "{abstract}"),
    "review": (
        "Generate the review text written by a reviewer who has a given an overall rating of"
        ' "{overall}" for a product with description "{description}". The summary of the review'
        ' text is "{summary}".',
        "{reviewText}",
    ),
    "topic": ("Generate the content for a reddit post {summary|input}", "{content|output}"),
    "LaMP_4": ("Generate a headline for the following article: {text}", "{title}"),
    "LaMP_5": ("Generate a title for the following abstract of a paper: {abstract}", "{title}"),
    "LaMP_7": ("", "{text}"),
}
USER = "name|reviewerId|author|user|id"  # LaMP rows have only an id
PARQUET = (
    "parquet is not supported; convert it to JSON Lines in Python: datasets.load_dataset("
    '"LongLaMP/LongLaMP", "product_review_user")["train"].to_json("train.jsonl")'
)
SPLITS = ["train", "val", "test"]

# ----------------------------------------------------------------------------------- reading files


def check(ok, where, reason):
    if not ok:
        raise UserError(f"{where}: {reason}")


def read_rows(path):
    """Read [(where, row, task)] from a JSON list, LaMP's outputs, or JSON Lines.

    Only LaMP's output files name their task; it is None for all other rows. Raises UserError.
    """
    check(path.suffix != ".parquet", path, PARQUET)
    with one_line(path, "UTF-8 text"), open_regular(path) as file:
        text = file.read().decode("utf-8-sig")
    try:
        rows = parse_json(text, path)
    except UserError:
        if text.lstrip().startswith("["):
            raise
        lines = [(f"{path}:{i}", line) for i, line in enumerate(text.split("\n"), 1)]
        return [(where, parse_json(line, where), None) for where, line in lines if line.strip()]
    task = None
    if isinstance(rows, dict) and "golds" in rows:
        task, rows = str(rows.get("task")), rows["golds"]
        check(task in TASKS, path, f"task {short_repr(task)} is not LaMP_4, LaMP_5 or LaMP_7")
    rows = rows if isinstance(rows, list) else [rows]
    return [(f"{path}: row {i}", row, task) for i, row in enumerate(rows, 1)]


def read_files(paths):
    """Return LaMP's {id: (task, output)}, and [(path, where, row)] for all other rows.

    Raises UserError.
    """
    outputs, rows = {}, []
    for path in paths:
        for where, row, task in read_rows(path):
            check(isinstance(row, dict), where, f"must be an object, not {short_repr(row)}")
            if task:
                name, output = field(row, "id", where), (task, field(row, "output", where))
                same = outputs.setdefault(name, output) == output
                check(same, where, f"id {name!r} has two different outputs")
            else:
                reason = "'profile' must be a list (and LaMP's outputs must name their task)"
                check(isinstance(row.get("profile"), list), where, reason)
                rows.append((path, where, row))
    return outputs, rows


def field(item, keys, where):
    """Return, as text, the value of the first key in "key1|key2" that has one. 5.0 becomes "5".

    Raises UserError if there is no value, or if it is not text that can be encoded.
    """
    key = next((key for key in keys.split("|") if item.get(key) is not None), None)
    check(key, where, f"no {' or '.join(map(repr, keys.split('|')))}")
    value = item[key]
    if type(value) in (int, float) and abs(value) < math.inf:
        value = str(value).removesuffix(".0")
    good = isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)
    reason = "must be a number, or text without NUL characters or lone surrogates"
    check(good, where, f"{key!r} {reason}, not {short_repr(value)}")
    return value


# ------------------------------------------------------------------------------- converting a row


def fill(template, item):
    """Fill the template with the item's values. A missing or unusable value becomes empty."""

    def value(match):
        try:
            return field(item, match[1], "item")
        except UserError:
            return ""

    return re.sub("{(.*?)}", value, template)


def convert(row, where, task, dropped):
    """Convert an official row to our format, and count dropped items. Raises UserError."""
    user, query = field(row, USER, where), field(row, "input", where)
    check(user.strip(), where, "the user's name is empty")
    response, templates = field(row, "output", where), TASKS[task]
    objects = [item for item in row["profile"] if isinstance(item, dict)]
    items = [{"query": fill(templates[0], x), "response": fill(templates[1], x)} for x in objects]
    texts = [item for item in items if item["response"].strip()]
    others = [item for item in texts if not gives_answer(item, {"response": response})]
    dropped["profile items without a text"] += len(row["profile"]) - len(texts)
    dropped["profile items equal to the response"] += len(texts) - len(others)
    return {"user": user, "task": task, "query": query, "response": response, "profile": others}


# ---------------------------------------------------------------------------------- rows to splits


def split_of(path, user):
    """Take the split from the file name or, failing that, from a hash of the user's name."""
    word = "(?<![a-z])(train|val|dev|test)(ing|idation)?(?![a-z])"
    if match := re.search(word, path.name.lower()):
        return match[1].replace("dev", "val")
    number = int(hashlib.sha256(user.encode()).hexdigest(), 16) % 10
    return (["train"] * 8 + ["val", "test"])[number]


def make_splits(paths, task, max_chars):
    """Return {split: rows} and {reason: number of dropped rows or items}. Raises UserError."""
    outputs, rows = read_files(paths)
    check(outputs or task, "--task", "must be abstract, review or topic for LongLaMP rows")
    splits, dropped = {split: [] for split in SPLITS}, Counter()
    for path, where, row in rows:
        if outputs:
            name = field(row, "id", where)
            check(name in outputs, where, f"no output for id {name!r}")
            task, row["output"] = outputs[name]
        row = convert(row, where, task, dropped)
        if not row["response"].strip():
            dropped["rows with an empty response"] += 1
        elif max_chars and len(row["response"]) > max_chars:
            dropped[f"rows with a response over {max_chars} characters"] += 1
        else:
            splits[split_of(path, row["user"])].append(row)
    if not any(splits.values()):
        print_dropped(dropped)
        raise UserError(f"{', '.join(map(str, paths))}: no rows left")
    return splits, dropped


def main():
    p = cli.Parser(description=__doc__)
    add = p.add_argument
    add("--task", choices=["abstract", "review", "topic"], help="LongLaMP task (ignored for LaMP)")
    add("--input", nargs="+", type=Path, required=True, metavar="FILE", help="official files")
    help = "output folder (default: the folder of this script)"
    add("--out", type=Path, default=Path(__file__).parent, help=help)
    add("--max-chars", type=cli.COUNT, help="drop rows with longer responses (default: keep all)")
    args = p.parse_args()
    outputs = [args.out / f"{split}.jsonl" for split in SPLITS]
    for path in outputs:
        check_writable(path)
        is_input = path.resolve() in [file.resolve() for file in args.input]
        check(not is_input, path, "would overwrite an input file; choose another --out")
    write_splits(args.out, *make_splits(args.input, args.task, args.max_chars))


if __name__ == "__main__":
    cli.run(main)
