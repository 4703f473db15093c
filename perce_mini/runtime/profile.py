"""Read an author's earlier texts from a text file, a folder of text files, or JSONL."""

import re
from pathlib import Path

from perce_mini.rows import DataError, check_texts
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import parse_json, read_text

MAX_BYTES = 2**24  # maximum file size


def read_profile(path):
    """Read a profile [{"query", "response"}, ...], oldest first. Raises UserError.

    In a text file, each paragraph is an item (blank lines separate paragraphs). In a folder, each
    *.txt or *.md file is an item, sorted by name. In a JSONL file, each line is an item, with
    "response" and optionally "query".
    """
    path = Path(path)
    if path.is_dir():
        files = sorted([*path.glob("*.txt"), *path.glob("*.md")])
        texts = [read_text(file, MAX_BYTES) for file in files]
    elif path.suffix == ".jsonl":
        return read_items(path)
    else:
        texts = re.split(r"\n[^\S\n]*\n", read_text(path, MAX_BYTES))
    texts = [" ".join(text.replace("\0", "").split()) for text in texts]
    profile = [{"query": "", "response": text} for text in texts if text]
    if not profile:
        kind = "no *.txt or *.md file with text" if path.is_dir() else "no text"
        raise UserError(f"{path} contains {kind}")
    return profile


def read_items(path):
    """Read the items of a JSONL file."""
    profile = []
    for number, line in enumerate(read_text(path, MAX_BYTES).split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            item = parse_json(line, where)
            if isinstance(item, dict):
                item = {"query": "", **item}
            check_texts(item, ["query", "response"], where)
            profile.append({key: item[key] for key in ["query", "response"]})
    if not profile:
        raise DataError(f"{path} contains no items")
    return profile
