"""What goes wrong for a user's reason: one line that names the file, says why, and what to do. It can be printed."""


class UserError(ValueError):
    """The commands print it as one line and end with status 2 (cli.py). Subclassed where a caller tells kinds apart."""


def printable(text):
    """Users' texts cannot steer the terminal: what is not to be printed, such as control characters, becomes U+FFFD."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
