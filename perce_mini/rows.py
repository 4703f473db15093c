"""Read and check the rows of a JSONL file, line by line (data/README.md describes the format).

Users' texts are never interpreted. A bad row stops the program with an error that names the file,
the line and the reason.
"""

import json
import random
import re
import sys
from pathlib import Path

from perce_mini.runtime.errors import UserError, plural, short_repr
from perce_mini.runtime.files import open_regular


class DataError(UserError):
    """A problem with the data; the message names the file, the line and the reason."""


class Row(dict):
    """One example: {"user", "task", "query", "response", "profile"[, "personal"]}."""

    where = "the row"  # "file:line", if it was read from a file
    plain_profile = ()  # items for the plain view (see contrast.py); usually empty


def read_examples(path):
    """Read a JSONL file into a list of Rows (data/README.md describes the format).

    Raises DataError at the first bad row. Blank lines are skipped.
    """
    rows = []
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(read_row(line, f"{path}:{number}"))
    if not rows:
        raise DataError(f"{path}: the file contains no examples")
    n_answers = sum(gives_answer(item, row) for row in rows for item in row["profile"])
    if n_answers:  # encode_profile skips them
        items = plural(n_answers, "profile item")
        print(f"note: {path}: ignoring {items} equal to the row's response", file=sys.stderr)
    return rows


def read_row(line, where):
    """Parse one line of a file into a Row. Raises DataError."""
    try:
        row = json.loads(line)
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        advice = "each row must be on a single line (see data/README.md)"
        raise DataError(f"{where}: not JSON ({reason}); {advice}") from None
    check_texts(row, ["user", "task", "query", "response"], where)
    row = Row(row)
    row.where = where
    check(row["response"].strip(), f"{where}: 'response' is empty")
    check(row["task"] != "all", f"{where}: a task must not be named 'all': tables use that name")
    check(
        isinstance(row.get("profile"), list),
        f"{where}: 'profile' must be a list ([] if there is none)",
    )
    for i, item in enumerate(row["profile"]):
        check_texts(item, ["query", "response"], f"{where}: profile item {i}")
    check(isinstance(row.get("personal", []), list), f"{where}: 'personal' must be a list of spans")
    for span in row.get("personal", []):
        pair = isinstance(span, list) and [type(x) for x in span] == [int, int]
        inside = pair and 0 <= span[0] < span[1] <= len(row["response"])
        check(inside, f"{where}: personal span {short_repr(span)} does not fit the response")
    return row


def check(condition, reason):
    if not condition:
        raise DataError(reason)


def check_texts(item, keys, where):
    """Check that `item` is an object with a string under each of the keys. Raises DataError."""
    form = " and ".join(f'"{key}"' for key in keys)
    check(isinstance(item, dict), f"{where}: must be an object with {form}, not {short_repr(item)}")
    for key in keys:
        text = item.get(key)
        check(key in item, f"{where}: {key!r} is missing")
        check(isinstance(text, str), f"{where}: {key!r} must be a string, not {short_repr(text)}")
        bad = re.search("[\0\ud800-\udfff]", text)  # NUL can end a text; surrogates are not UTF-8
        check(not bad, f"{where}: {key!r} contains a NUL character or a lone surrogate")


def held_out_file(path):
    """Find the file to score: a data folder's test.jsonl, or val.jsonl if there is no test.jsonl.
    A file path is returned unchanged. Raises DataError."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; set the data with --data")
    if not path.is_dir():
        return path
    for name in ["test.jsonl", "val.jsonl"]:
        if (path / name).exists():
            return path / name
    advice = "add one, or skip scoring with train.py --eval-examples 0"
    raise DataError(f"{path}: no test.jsonl or val.jsonl to score; {advice}")


def subsample(rows, n):
    """Pick n rows, always the same ones; all rows if n is 0 or None.

    The list is cut into n parts of about equal length, and one row is drawn from each. Taking every
    k-th row instead would give a biased sample if a pattern in the list repeats with that period.
    """
    if not n or n >= len(rows):
        return rows
    rng = random.Random(0)
    ends = [i * len(rows) // n for i in range(n + 1)]
    return [rows[rng.randrange(start, end)] for start, end in zip(ends, ends[1:])]


def gives_answer(item, row):
    """Return True if a profile item equals the row's response, ignoring white space.

    With the answer in the prompt, the model would only have to copy it.
    """
    return item["response"].split() == row["response"].split()
