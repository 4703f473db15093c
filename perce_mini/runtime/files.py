"""Read and write files. Files are never overwritten in place.

The new file is written next to the old one and then renamed, so the old file stays intact if the
process is killed or the disk is full.
"""

import hashlib
import json
import os
from functools import partial
from pathlib import Path

from perce_mini.runtime.errors import UserError

MAX_BYTES = 40 * 2**20  # maximum size of a text or JSON file; Llama 3's tokenizer.json has 17 MB

# ------------------------------------------------------------------------------------------ writing


def replace_file(path, write):
    """Call write(temporary path), and then move the new file to `path`.

    Raises UserError if the path is not writable, and OSError if the disk is full.
    """
    check_writable(path)
    new = new_name(path)
    try:
        write(new)
        with open(new, "rb+") as file:
            os.fsync(file.fileno())  # force it to disk before it replaces the old file
        os.replace(new, path)
    except RuntimeError as error:  # torch.save raises it when the disk is full
        reason = str(error).splitlines()[0]
        raise OSError(f"cannot write {path}: is the disk full? ({reason})") from None
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        new.unlink(missing_ok=True)


def new_name(path):
    """The path of the temporary file for the new content of `path`, unique to this process."""
    return Path(f"{path}.{os.getpid()}.new")


def check_writable(path):
    """Raise UserError if `path` is not writable; create its folder. Call this before long jobs."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a regular file: choose another path")
        new = new_name(path)
        new.unlink(missing_ok=True)  # touch would follow a link
        new.touch()
        new.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def check_output(path, inputs):
    """Like `check_writable`, but also refuse to replace an input."""
    check_writable(path)
    if os.path.realpath(path) in map(os.path.realpath, inputs):
        raise UserError(f"{path} is an input of this command: choose another file")


def write_text_atomic(path, text):
    """Replace `path` with a UTF-8 file that contains this text."""
    replace_file(path, lambda new: new.write_text(text, encoding="utf-8"))


def write_jsonl(rows, path):
    """Write one JSON object per line; `rows` may be a generator."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_jsonl_atomic(path, rows):
    """Replace `path` with a file that has one JSON object per line."""
    replace_file(path, partial(write_jsonl, rows))


# ------------------------------------------------------------------------------------------ reading


def open_regular(path):
    """Open a regular file in binary mode. Raises UserError for a pipe or device (may block)."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a regular file")
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def read_text(path):
    """Read a UTF-8 file and drop any byte order mark. Raises UserError."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES} bytes")
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def parse_json(text, where):
    """Parse JSON. Raises a UserError whose message starts with `where` ("file" or "file:line")."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({str(error).splitlines()[0]})") from None


def read_json(path):
    """Parse a JSON file. Raises UserError."""
    return parse_json(read_text(path), path)


def sha256(path):
    """The SHA-256 hex digest of a file's content."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
