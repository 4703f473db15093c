"""What goes wrong for a user's reason: one line that names the file, says why, and what to do."""


class UserError(ValueError):
    """The commands print it as one line and end with status 2 (cli.py). Subclassed where a caller tells kinds apart."""
