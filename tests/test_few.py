"""The experiment on few examples: what is typed, which rate is chosen, and what the differences are."""

import json
from pathlib import Path
from statistics import mean

import pytest

import eval as evaluation
import train
from perce_mini.experiments import few
from perce_mini.experiments.suite import Suite
from tests.conftest import call


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """The commands that are typed; eval.py answers with figures that depend on loss, rate and seed."""
    monkeypatch.chdir(tmp_path)
    commands = []

    def answer(script, *args):
        commands.append([script, *map(str, args)])
        words = commands[-1]
        if script == "eval.py":
            loss, _, rest = Path(words[1]).name.partition("-")
            rate, _, seed = rest.rpartition("-")
            good = {"ce": 0.001, "perce": 0.002}[loss]
            value = 1 + 0.01 * (loss == "perce") * (1 + int(seed)) - abs(float(rate) - good)
            figures = dict.fromkeys(few.SHOWN, value)
            file = Path(words[words.index("--json") + 1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"runs": {words[1]: {"all": figures}}}))

    monkeypatch.setattr(few, "call", answer)
    return commands


def test_each_loss_takes_its_own_best_validation_rate_and_differences_are_paired(typed):
    results = few.measure_few(Suite(seeds=3, jobs=1))
    rows, rates = (table["rows"] for table in results["tables"])
    assert "CE 0.001, PerCE 0.002" in results["tables"][0]["caption"] and len(rates["ce"][0]) == len(few.RATES)
    assert [one["logp"] for one in rows["ce"]] == pytest.approx([1, 1, 1])
    assert [one["logp"] for one in rows["perce"]] == pytest.approx([1.01, 1.02, 1.03])
    d, low, high = rows["PerCE − CE"][0]["logp"]
    half = 4.303 * 0.01 / 3**0.5
    assert (d, low, high) == pytest.approx((0.02, 0.02 - half, 0.02 + half)) and mean([low, high]) == pytest.approx(d)


def test_the_commands_are_ones_that_train_and_eval_understand(typed):
    few.measure_few(Suite(seeds=1, jobs=1))
    assert typed[0][:3] == ["data/personas/prepare.py", "--ordinary", "4"]
    scored_on = [words[words.index("--data") + 1] for words in typed if words[0] == "eval.py"]
    assert set(scored_on) == {"out/ordinary/val.jsonl", "out/ordinary/test.jsonl"}
    for script, *words in typed[1:]:
        parse = train.parse_args if script == "train.py" else evaluation.parse_args
        assert call(parse, *words).status == 0, words


def test_what_was_scored_is_kept(typed):
    few.measure_few(Suite(seeds=1, jobs=1))
    scored = [words for words in typed if words[0] == "eval.py"]
    few.measure_few(Suite(seeds=1, jobs=1))
    assert [words for words in typed if words[0] == "eval.py"] == scored
