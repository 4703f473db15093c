"""Files of others: regular ones only, JSON of a bounded size, and one kind of error."""

from perce_mini import files
from perce_mini.errors import UserError

MAX_BYTES, MAX_VALUES = 40 * 2**20, 1_500_000  # of JSON; Llama 3.1's tokenizer.json has 17 MB and 1 million values


def open_file(path):
    """A regular file, open for reading bytes. What might never end, such as a pipe, is not opened. Raises UserError."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def read_text(path):
    with open_file(path) as f:
        return decode(f.read(MAX_BYTES + 1), path)


def read_json(path):
    return parse_json(read_text(path), path)


def decode(raw, where):
    """UTF-8 -> text. Raises UserError, and for far too much of it as well; `where` is what its line starts with."""
    if len(raw) > MAX_BYTES:
        raise UserError(f"{where}: longer than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None


def parse_json(text, where):
    """JSON -> value. Raises UserError, and for far too many values before memory is spent on them."""
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise UserError(f"{where}: JSON of more than {MAX_VALUES} values")
    return files.parse_json(text, where, parse_constant=refuse)


def refuse(word):
    raise ValueError(f"{word} is no number in it")
