"""The terminal output shows the scores, and verdicts match the intervals."""

import json

import numpy as np
import pytest

from perce_mini import tables
from perce_mini.rouge import rouge_l
from perce_mini.scoring import METRICS, summarize
from tests.test_heatmap import record


def scored(shift=0.0, users=30, **fields):
    """One record per user, in two tasks. shift: added to log P; one number or several, in turn."""
    rng, records = np.random.default_rng(0), []
    for i, x in enumerate(np.resize(shift, users)):
        row = {"user": f"u{i}", "task": ["review", "topic"][i % 2]} | fields
        one = record("abc", rng.normal(1, 1, 4), personal=[0], **row)
        one["row"]["personal"] = [[0, 1]]
        one["logp"] = one["logp"] + x
        records.append(one | {"prediction": "a b", "rouge": rouge_l("a b", "a c"), "meteor": 0.5})
    return records


def cells(out, label):
    (line,) = [line for line in out.splitlines() if line.startswith(label)]
    return line.removeprefix(label).split()


def test_the_table_shows_the_figures_of_scoring(capsys):
    runs = {"out/first": scored(), "out/second": scored(1)}
    tables.show_table(runs)
    out = capsys.readouterr().out
    assert cells(out, "30 examples from 30 users") == ["first", "second"] and "arning" not in out
    for metric in tables.HEADLINES:
        expected = [f"{summarize(records)[metric]:.3f}" for records in runs.values()]
        assert cells(out, METRICS[metric]) == expected
    assert cells(out, "  task topic") and METRICS["pir_recall"] not in out
    tables.show_table({"run": [one | {"rouge": None} for one in scored()]})
    assert METRICS["rouge_l"] not in capsys.readouterr().out


def test_output_fits_80_columns(capsys):
    names = [f"out/{'long' * 20}/{name}" for name in ["first", "second"]]
    runs = dict.fromkeys(names, scored(user="u" * 90) + scored())
    tables.show_table(runs)
    tables.show_verdicts(runs)
    tables.show_samples(runs, 2)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_short_names_tell_runs_apart():
    assert tables.short_names(["out/a", "b", "."]) == {"out/a": "a", "b": "b", ".": "."}
    assert tables.short_names(["x/a", "y/a"]) == {"x/a": "x/a", "y/a": "y/a"}


@pytest.mark.parametrize("shift", [[0.4, 0.6], [-0.6, -0.4], [1.1, -1.0]])
def test_a_verdict_follows_from_the_interval(capsys, shift):
    tables.show_verdicts({"out/a": scored(), "out/b": scored(shift)})
    change, low, high, *verdict = cells(capsys.readouterr().out, METRICS["logp"])
    assert float(change) == pytest.approx(np.mean(shift), abs=0.001)
    low, high = float(low.strip("[,")), float(high.strip("]"))
    assert low < float(change) < high
    assert verdict == (["not", "significant"] if low <= 0 <= high else ["significant"])


def test_few_users_are_warned_of_and_one_gives_no_interval(capsys, tmp_path):
    runs = {"a": scored(users=1), "b": scored(1, users=1)}
    tables.show_table(runs)
    tables.show_verdicts(runs)
    out = capsys.readouterr().out
    assert "1 user " in out and "significant\n" not in out
    assert out.count("too few users") == len(tables.COMPARED)
    for users in [19, 20]:
        tables.show_table({"a": scored(users=users)})
        assert ("Warning" in capsys.readouterr().out) == (users == 19)
    tables.write_scores(tmp_path / "s.json", runs)
    scores = json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)
    assert list(scores["minus a"]) == ["b"] and list(scores["runs"]) == ["a", "b"]
    change = scores["minus a"]["b"]["all"]["logp"]
    assert change == {"difference": pytest.approx(1), "low": None, "high": None}


def test_texts_cannot_steer_the_terminal(capsys):
    bad = "\x1b[31m\x07\x9bc\u202e"
    runs = {f"out/{bad}{i}": scored(users=2, user=bad, query=bad) for i in range(2)}
    for records in runs.values():
        records[0]["row"]["task"] = records[0]["prediction"] = bad
    tables.show_table(runs)
    tables.show_verdicts(runs)
    tables.show_samples(runs, 2)
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable() and "\ufffd[31m" in out


def test_texts_are_wrapped_and_empty_ones_are_described(capsys):
    for text in ["word " * 40 + "\n" * 300 + "next", "", "\n" * 300, " "]:
        tables.show_text("title", text)
    out = capsys.readouterr().out
    assert out.split("title:\n  ")[2:] == ["(nothing)\n"] * 3
    assert max(map(len, out.splitlines())) <= 80 and out.count("\n") < 20


def test_predictions_are_written_for_every_run(tmp_path):
    tables.write_predictions(tmp_path / "p.jsonl", dict.fromkeys("ab", scored(users=2)))
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [x["run"] + x["user"] for x in lines] == ["au0", "au1", "bu0", "bu1"]
    assert lines[0]["reference"] == "abc" and lines[0]["rouge_l"] == 0.5


def test_references_that_rouge_l_cannot_read_are_warned_of(capsys):
    for texts, n in [(["日本", "abc", "é" * 9 + "e"], 2), (["a é", "1"], 0)]:
        tables.warn_of_other_scripts([{"row": {"response": text}} for text in texts])
        assert (f"in {n} of 3 references" in " ".join(capsys.readouterr().out.split())) == (n > 0)
