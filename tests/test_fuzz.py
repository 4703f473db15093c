"""A few cases of damaged and hostile input (`python tests/fuzz.py` goes on for longer)."""

from tests import fuzz


def test_everything_is_refused_in_one_line_or_is_what_was_written():
    counts = fuzz.run(seed=0, cases=100)
    assert {name for name, _ in counts} == set(fuzz.CASES), counts
    assert all(counts[name, outcome] > 0 for name in ["rows", "folders"] for outcome in ["refused", "accepted"]), counts
