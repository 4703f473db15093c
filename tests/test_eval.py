"""The figures of the table, against slow counts."""

import json

import numpy as np
import pytest
import torch

import eval as evaluation
from perce_mini import checkpoint, scoring
from perce_mini.dataset import encode_example, read_examples
from perce_mini.rouge import rouge_l


def record(logp, plain, hit, personal, user="u", prediction="a b", reference="a c", known=True):
    row = {"user": user, "task": "t", "response": reference} | ({"personal": []} if known else {})
    return {"row": row, "logp": np.array(logp), "logp_plain": np.array(plain), "hit": np.array(hit), "personal": np.array(personal),
            "prediction": prediction, "rouge": rouge_l(prediction, reference)}  # fmt: skip


RECORDS = [record([-1.0, -2, -3, 0], [-4.0, -2, -3.5, -1], [1, 0, 1, 1], [True, True, False, False]),
           record([-0.5, -6], [-0.5, -7], [0, 1], [False, True], user="v", prediction="a c")]  # fmt: skip


def test_summary_by_hand():
    """PIR is 3, 0, 0.5, 1 | 0, 1; personal are the 1st, 2nd and 6th token; found (PIR > 0.8) the 1st, 4th and 6th."""
    summary = scoring.summarize(RECORDS)
    assert summary["logp"] == pytest.approx((-1 - 2 - 3 - 0.5 - 6) / 6)
    assert summary["logp_personal"] == pytest.approx((-1 - 2 - 6) / 3)
    assert summary["logp_base"] == pytest.approx((-3 + 0 - 0.5) / 3)
    assert summary["personal_accuracy"] == pytest.approx(2 / 3)
    assert summary["pir"] == pytest.approx(5.5 / 6)
    assert (summary["contrast_p"], summary["contrast_r"], summary["contrast_f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert summary["contrast_auc"] == pytest.approx((2 + 0 + 1) / 5)  # pairs won: 3 > 0.5, 3 > 1; 0 loses twice; 1 > 0
    assert summary["rouge_l"] == pytest.approx((0.5 + 1) / 2)


def test_unknown_personal_tokens_are_unknown_rather_than_none():
    summary = scoring.summarize([record([-1.0], [-3.0], [1], [False], known=False)])
    assert summary["contrast_f1"] is None and summary["personal_accuracy"] is None and summary["logp"] == -1


def test_a_difference_has_an_interval_and_none_with_itself():
    worse = [dict(r, logp=r["logp"] - 1) for r in RECORDS]
    d, low, high = scoring.difference(worse, RECORDS)["logp"]
    assert (d, low, high) == pytest.approx((-1, -1, -1))  # the same on every example: no spread when paired
    assert scoring.difference(RECORDS, RECORDS)["rouge_l"] == (0, 0, 0)


def test_the_bootstrap_draws_users():
    """20 users of 50 equal examples each are 20 observations: the interval is that of 20."""
    dice = np.random.default_rng(0)
    effects = dice.normal(size=20)
    zero = [record([0.0], [0.0], [0], [False], user=f"u{u}") for u in range(20) for _ in range(50)]
    moved = [dict(r, logp=np.array([effects[i // 50]])) for i, r in enumerate(zero)]
    d, low, high = scoring.difference(moved, zero)["logp"]
    assert d == pytest.approx(effects.mean())
    assert high - low == pytest.approx(2 * 1.96 * effects.std() / 20**0.5, rel=0.15)


def test_token_scores_equal_a_full_forward(trained, world):
    model, tokenizer, _ = checkpoint.load(trained / "out/perce")
    examples = [encode_example(row, tokenizer, 1100) for row in read_examples(world / "test.jsonl")[:3]]
    for e, scores in zip(examples, scoring.score_tokens(model, examples, torch.device("cpu"))):
        for name, prompt in [("logp", e.persona + e.query), ("logp_plain", e.query)]:
            logp = model(torch.tensor([prompt + e.response]))[0].log_softmax(-1)
            slow = [logp[len(prompt) + i - 1, token].item() for i, token in enumerate(e.response)]
            assert scores[name].tolist() == pytest.approx(slow, abs=1e-4)


def test_compare_two_runs_and_write_everything(trained, world, tmp_path, command):
    runs = [trained / "out/ce", trained / "out/perce"]
    files = {name: tmp_path / name for name in ["figures.json", "texts.jsonl", "heat.html"]}
    result = command(evaluation.main, *runs, "--data", world, "--examples", 3, "--max-new-tokens", 8, "--samples", 2, "--device", "cpu",
                     "--json", files["figures.json"], "--predictions", files["texts.jsonl"], "--heatmap", files["heat.html"])  # fmt: skip
    assert result.status == 0, result.err
    assert "ROUGE-L F" in result.out and "reference:" in result.out and "[" in result.out
    figures = json.loads(files["figures.json"].read_text())
    assert set(figures["runs"]) == set(map(str, runs)) and set(figures["runs"][str(runs[0])]) == {"all", "abstract", "review", "topic"}
    change = figures[f"minus {runs[0]}"][str(runs[1])]["all"]["logp"]
    both = [figures["runs"][str(run)]["all"]["logp"] for run in runs]
    assert change["difference"] == pytest.approx(both[1] - both[0]) and change["low"] <= change["difference"] <= change["high"]
    lines = [json.loads(line) for line in files["texts.jsonl"].read_text().splitlines()]
    assert len(lines) == 6 and lines[0]["rouge_l"] == rouge_l(lines[0]["prediction"], lines[0]["reference"]).fmeasure
    assert str(runs[1]) in files["heat.html"].read_text()


def test_what_cannot_be_written_is_said_before_anything_is_scored(trained, world, tmp_path, command, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", lambda *args, **kwargs: pytest.fail("scored"))
    (tmp_path / "file").write_text("")
    result = command(evaluation.main, trained / "out/ce", "--data", world, "--device", "cpu", "--json", tmp_path / "file/scores.json")
    assert result.status == 2 and "file" in result.error and "Traceback" not in result.err


def test_folders_for_what_is_written_are_made(trained, world, tmp_path, command):
    result = command(evaluation.main, trained / "out/ce", "--data", world, "--device", "cpu", "--examples", 1, "--max-new-tokens", 0,
                     "--samples", 0, "--json", tmp_path / "new/folder/scores.json")  # fmt: skip
    assert result.status == 0, result.err
    scores = json.loads((tmp_path / "new/folder/scores.json").read_text())
    assert scores["examples"] == 1 and scores["runs"][str(trained / "out/ce")]["all"]["rouge_l"] is None and "ROUGE-L" not in result.out  # nothing was written
