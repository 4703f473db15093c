"""A few cases of damaged and malicious input; `python tests/fuzz.py` runs many more."""

from tests import fuzz


def test_hostile_input_is_refused_in_one_line_or_is_read_as_it_was_written():
    counts = fuzz.run(seed=0, cases=90)
    for name in fuzz.CASES:
        assert counts[name, "refused"] > 0, counts
    assert counts["rows", "accepted"] > 0 and counts["folders", "accepted"] > 0, counts
