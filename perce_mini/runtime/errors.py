"""Errors caused by the user's input: one line that says what is wrong, where, and what to do."""

import unicodedata
from contextlib import contextmanager

# Characters that could control a terminal or reorder the text around them: control characters, lone
# surrogates, line and paragraph separators, direction overrides. All spaces and joiners are safe.
UNSAFE_CATEGORIES = ["Cc", "Cs", "Zl", "Zp"]
UNSAFE = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff")


class UserError(ValueError):
    """An error that every command prints on one line before exiting with status 2 (see cli.py)."""


def printable(text):
    """Replace unsafe characters with U+FFFD, but keep line breaks and tabs."""

    def safe(c):
        return c in "\n\t" or (c not in UNSAFE and unicodedata.category(c) not in UNSAFE_CATEGORIES)

    return "".join(c if safe(c) else "\ufffd" for c in text.replace("\r\n", "\n"))


def short_repr(value):
    """repr(value), shortened to at most 60 characters for error messages."""
    text = repr(value[:60] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def plural(n, noun):
    """plural(2, "earlier text") -> "2 earlier texts" """
    return f"{n} {noun}{'s' * (n != 1)}"


@contextmanager
def one_line(where, kind):
    """Turn any exception raised in the block into a UserError with a one-line message.

    Use it around code that reads a file: a damaged or malicious one can cause almost any exception,
    such as KeyError, RuntimeError, struct.error or RecursionError. A panic in tiktoken's Rust code
    even raises something that is not an Exception. A UserError passes through unchanged.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{where}: {error.strerror}") from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{where}: damaged, or not {kind} ({printable(reason)})") from None
