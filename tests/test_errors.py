"""Error messages are a single line that is safe to print."""

import pytest
import tiktoken

from perce_mini.runtime.errors import UserError, one_line, printable


def test_printable_keeps_spaces_and_joiners_and_replaces_what_steers_a_terminal():
    family, persian = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "می\u200cخواهم"
    for text in ["Oui\u00a0!", "\u3000日本", family, persian, "co\u00adop", "\n\t", "é\ufe0f", ""]:
        assert printable(text) == text
    overrides = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    controls = "\0\a\b\r\x0b\x1b\x7f\x85\x9b\u2028\u2029\ud800"
    for c in overrides + controls:
        assert printable(f"a{c}b") == "a\ufffdb", repr(c)


def panic():
    """Make tiktoken's engine panic, which raises something that is not an Exception."""
    ranks = {bytes([i]): i for i in range(256)}
    pattern = r"\S+|\s+(?!\S)|\s+"
    encoding = tiktoken.Encoding("t", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    encoding.encode_ordinary(" " * 1_200_000)


def fail(error):
    raise error


@pytest.mark.parametrize(
    "reader, reason",
    [
        (panic, "Panic"),
        (lambda: {}["x"], "KeyError: 'x'"),
        (lambda: fail(RuntimeError("two\nlines\x1b[31m" + "x" * 9999)), "two lines\ufffd"),
        (lambda: fail(PermissionError(13, "Permission denied")), "Permission denied$"),
    ],
)
def test_every_exception_of_a_reader_becomes_one_line(reader, reason):
    with pytest.raises(UserError, match=f"^f.txt: .*{reason}") as caught:
        with one_line("f.txt", "a table"):
            reader()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    assert ("damaged" in message) == ("Permission" not in message)


def test_errors_that_are_meant_for_others_pass_through():
    for error in [UserError("as it was"), KeyboardInterrupt(), SystemExit(3)]:
        with pytest.raises(type(error)) as caught, one_line("f.txt", "a table"):
            raise error
        assert caught.value is error
