"""Errors caused by the user's input: one line that says what is wrong, where, and what to do."""

import unicodedata
from contextlib import contextmanager

# Characters that could steer a terminal or reorder the text around them: controls, lone surrogates,
# line and paragraph separators, direction overrides. Spaces and joiners of all kinds are harmless.
UNSAFE_CATEGORIES = ["Cc", "Cs", "Zl", "Zp"]
UNSAFE = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff")


class UserError(ValueError):
    """Every command prints its message on one line and exits with status 2 (see cli.py)."""


def printable(text):
    """The text with unsafe characters as U+FFFD; line breaks and tabs stay."""

    def safe(c):
        return c in "\n\t" or (c not in UNSAFE and unicodedata.category(c) not in UNSAFE_CATEGORIES)

    return "".join(c if safe(c) else "\ufffd" for c in text.replace("\r\n", "\n"))


def short_repr(value):
    """repr(value) in at most 60 characters, for error messages."""
    text = repr(value[:60] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def plural(n, noun):
    """plural(2, "earlier text") -> "2 earlier texts" """
    return f"{n} {noun}{'s' * (n != 1)}"


@contextmanager
def one_line(where, kind):
    """Turn every exception of a block that reads a file into a UserError with a one-line message.

    A damaged or malicious file can raise nearly anything: KeyError, RuntimeError,
    struct.error, RecursionError. tiktoken even raises an exception that is not an Exception (a
    panic of its Rust engine). A UserError passes through as it is.
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
