"""What goes wrong for a user's reason: one line that names the file, says why, and what to do."""


class UserError(ValueError):
    """The commands print it as one line and end with status 2 (cli.py). Subclassed where a caller tells kinds apart."""


def printable(text):
    """Users' texts cannot steer the terminal: control characters become U+FFFD."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
