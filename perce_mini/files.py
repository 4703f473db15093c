"""Files are replaced, never rewritten: a new one is written beside the old, forced to the disk and renamed over it.

So a kill or a full disk at any moment leaves the old file whole.
"""

import hashlib
import json
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from perce_mini.errors import UserError


def replace_file(path, write):
    """write(path of a new file), then put it in the place of `path` in one step. Raises OSError (disk full, ...)."""
    replace_files({path: write})


def replace_files(writers):
    """The same for several files, {path: write}: all new ones are whole before the first old one goes.

    Raises UserError where a path is something else than a file (a folder, a device), OSError where the disk is full.
    """
    for path in writers:
        check_writable(path)
    with ExitStack() as leftovers:
        for path, write in writers.items():
            new = Path(f"{path}.new")
            leftovers.callback(new.unlink, missing_ok=True)
            try:
                write(new)
            except RuntimeError as error:  # torch's word for a write that fell short
                raise OSError(f"cannot write {path}, is the disk full? ({str(error).splitlines()[0]})") from None
            with open(new, "rb+") as file:
                os.fsync(file.fileno())
        for path in writers:
            os.replace(f"{path}.new", path)


def check_writable(path):
    """Say before the work that `path` cannot be written, rather than after it. Makes its folder. Raises UserError."""
    path, new = Path(path), Path(f"{path}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: there is something that is not a file; give another path")
        if not new.exists():
            new.touch()
            new.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(text, where, **how):
    """JSON -> value. Raises UserError, whose line starts with `where`. how: see json.loads."""
    try:
        return json.loads(text, **how)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({str(error).splitlines()[0]})") from None


def write_text_atomic(path, text):
    """Replace `path` by this text in UTF-8."""
    replace_file(path, lambda new: new.write_text(text, encoding="utf-8"))


def write_jsonl(rows, path):
    """One JSON object per line; rows may come one by one."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_jsonl_atomic(path, rows):
    """Replace `path` by a file with one JSON object per line."""
    replace_file(path, partial(write_jsonl, rows))
