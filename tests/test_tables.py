"""What the terminal shows: 80 columns, the figures of scoring, and verdicts that follow from intervals."""

import json

import numpy as np
import pytest

from perce_mini import tables
from perce_mini.scoring import METRICS, summarize
from tests.test_scoring import RECORDS, record


def moved(shift, n=30):
    """Records of n users in two tasks whose log P is shifted by about `shift`."""
    rng, records = np.random.default_rng(0), []
    for i in range(n):
        logp = rng.normal(-2, 1, 4) + shift + rng.normal(0, 0.1)
        one = record(logp, logp - 1, [1, 0, 1, 0], [True, False, False, True], user=f"u{i}")
        one["row"] |= {"task": "review" if i % 2 else "topic", "query": "q"}
        records.append(one)
    return records


def test_the_table_shows_the_figures_of_scoring(capsys):
    tables.show_table({"out/first": RECORDS, "out/second": RECORDS[:1]})
    out = capsys.readouterr().out
    assert "2 examples of 2 users" in out and "first" in out and "second" in out
    for metric in tables.HEADLINES:
        values = [f"{summarize(records)[metric]:.3f}" for records in (RECORDS, RECORDS[:1])]
        (line,) = [line for line in out.splitlines() if line.startswith(METRICS[metric])]
        assert line.split()[-2:] == values
    assert METRICS["pir_recall"] not in out


def test_names_cannot_steer_the_terminal(capsys):
    records = [record([-1.0], [-2.0], [1], [True], user="\x1b[31mu") | {"read": []} for _ in range(2)]
    for one, task in zip(records, ["\x1b]0;x\x07", "b\x9bc"]):
        one["row"] |= {"task": task, "query": "\x1b[1m"}
    for every_figure in [False, True]:
        tables.show_table({"a": records}, every_figure)
    tables.show_verdicts({"a": records, "b": records})
    tables.show_samples({"a": records}, 2)
    out = capsys.readouterr().out
    assert out.isprintable() or set(filter(lambda c: not c.isprintable(), out)) == {"\n"}
    assert "one user tells nothing of others" in out and "\ufffd[31mu" in out


def test_the_figures_of_one_user_are_json(tmp_path):
    tables.write_scores(tmp_path / "s.json", {"a": RECORDS[:1], "b": RECORDS[:1]})
    found = json.loads((tmp_path / "s.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert found["minus a"]["b"]["all"]["logp"] == {"difference": 0, "low": None, "high": None}


def test_tasks_have_a_row_each_and_all_figures_on_demand(capsys):
    tables.show_table({"out/a-name-that-is-very-long-indeed": moved(0)})
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("  of")] == [
        ["of", "review"],
        ["of", "topic"],
    ]
    tables.show_table({"a": moved(0), "b": moved(1), "c": moved(2), "d": moved(3)}, every_figure=True)
    full = capsys.readouterr().out
    assert full.count(METRICS["pir_recall"]) == 3 and max(map(len, (out + full).splitlines())) <= 80


@pytest.mark.parametrize("shift, verdict", [(0.5, "better"), (-0.5, "worse"), (0, "no clear difference")])
def test_a_verdict_follows_from_the_interval(capsys, shift, verdict):
    noisy = moved(shift)
    if shift == 0:
        for i, one in enumerate(noisy):
            one["logp"] = one["logp"] + (0.3 if i % 2 else -0.3)
    tables.show_verdicts({"out/a": moved(0), "out/b": noisy})
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith(METRICS["logp"])]
    assert line.endswith(verdict) and max(map(len, out.splitlines())) <= 80 and "out/b against out/a" in out


def test_a_small_difference_that_chance_explains_is_not_called_better(capsys):
    """The mean is above 0, the interval holds 0."""
    noisy = moved(0)
    for i, one in enumerate(noisy):
        one["logp"] = one["logp"] + (1.1 if i % 2 else -1.0)
    tables.show_verdicts({"a": moved(0), "b": noisy})
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(METRICS["logp"])]
    assert "+0.0" in line and line.endswith("no clear difference")


def test_texts_are_wrapped_and_cannot_steer_the_terminal(capsys):
    tables.show_text("head", tables.printable("\x1b[31mred\x07 " + "word " * 40 + "\nnext"))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "\ufffd[31mred" in out and "  next" in out
    assert max(map(len, out.splitlines())) <= 80
    tables.show_text("head", "")
    assert "(nothing)" in capsys.readouterr().out
