"""The experiments: the detectors' measures against slow ones, the weight rules, and the suite from cells to page."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from perce_mini import cells, cli, detectors, experiments, page, report, trainer
from perce_mini.dataset import collate, encode_example, encode_rows
from perce_mini.tokenizer import Tokenizer
from tests.conftest import ROOT

DICE = np.random.default_rng(0)
SCORES, TRUE = DICE.integers(0, 12, 200) / 4, DICE.random(200) < 0.3  # with many ties


def test_auc_is_the_share_of_pairs_in_order():
    pairs = [(a > b) + 0.5 * (a == b) for a in SCORES[TRUE] for b in SCORES[~TRUE]]
    assert detectors.auc(SCORES, TRUE) == pytest.approx(np.mean(pairs))


def test_average_precision_adds_up_threshold_by_threshold():
    total = recall = 0
    for threshold in sorted(set(SCORES), reverse=True):
        said = SCORES >= threshold
        hits = (said & TRUE).sum()
        total += (hits / TRUE.sum() - recall) * hits / said.sum()
        recall = hits / TRUE.sum()
    assert detectors.average_precision(SCORES, TRUE) == pytest.approx(total)


def test_the_best_threshold_is_the_best_of_all():
    f1 = lambda threshold: detectors.precision_recall(SCORES > threshold, TRUE)["f1"]
    assert f1(detectors.best_threshold(SCORES, TRUE)) == max(f1(t) for t in [-1, *SCORES])


def test_word_matching_looks_at_whole_words():
    row = {"user": "u", "task": "t", "query": "q", "response": "Howdy folks, the new lamp!", "personal": [],
           "profile": [{"query": "lamp", "response": "the howdy. News"}]}  # fmt: skip
    tokenizer = Tokenizer.train("abc", 262)  # a token a byte
    found = detectors.matches(encode_example(row, tokenizer, 512), tokenizer)
    assert "".join(c for c, hit in zip(row["response"], found) if hit) == "Howdythe" and not found[-1]


def test_exact_values_of_characters_add_up_over_tokens():
    tokenizer = Tokenizer.train("kettle kettle kettle", 280)
    per_character = list(range(len("a kettle") + 1))
    sums = cells.token_sums(per_character, "a kettle", tokenizer)
    assert sums.sum() == sum(per_character) and sums[-1] == 8 and len(sums) == len(tokenizer.encode("a kettle")) + 1 < 9


@pytest.fixture(scope="module")
def suite(trained, world, tmp_path_factory):
    """The suite with tiny cells, in a folder of its own, run inside this process."""
    folder = tmp_path_factory.mktemp("suite")
    shutil.copytree(world, folder / "data/personas")
    (base,) = [path for path in (trained / "out").iterdir() if path.name.startswith("base")]
    for name in ["base", "strong", "general"]:
        shutil.copytree(base, folder / "out" / name)
    subprocess.run([sys.executable, "-m", "data.personas.general", "--examples", "12", "--out", folder / "out/general-data"], cwd=ROOT, check=True)
    (folder / "data/results").mkdir()
    for name in ["memory.json", "train_output.txt"]:
        shutil.copy(ROOT / "data/results" / name, folder / "data/results")
    costs = json.loads((ROOT / "data/results/cost.json").read_text())["figures"]  # not measured again here: test_bench.py does
    tiny = {"SCORED": 4, "WATCHED": 2, "WATCH_EVERY": 2, "RATES": [1e-3, 2e-3], "DEFAULT": cells.DEFAULT | {"steps": 2}, "GENTLE": {"lr": 1e-3, "steps": 1},
            "call": lambda *command: cells.run_cell(**json.loads(command[-1]))}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in tiny.items():
            for module in [cells, experiments, detectors]:
                patch.setattr(module, name, value, raising=False)
        patch.setattr(cells.train, "MAX_NEW_TOKENS", 4)
        patch.setattr(experiments.bench, "measure", lambda device: costs)
        cells.prepare(jobs=1)
        yield experiments.Suite(seeds=1, jobs=1)


def test_every_experiment_runs_and_is_reported(suite):
    for name in experiments.EXPERIMENTS:
        experiments.record(name, suite)
    sections = report.recorded()
    assert set(sections) == set(experiments.EXPERIMENTS)
    html = page.page()
    assert html.count("<section>") == len(sections) and html.count("<svg") >= 5 and "NaN" not in html and "nan" not in html
    for name in experiments.EXPERIMENTS:
        results = json.loads(Path(f"data/results/{name}.json").read_text())
        assert results["commit"] is not None and results["versions"]["torch"] and results["default"]["steps"] == 2
    # finished cells are used as they are: nothing runs again
    before = {path: path.stat().st_mtime_ns for path in Path("out/experiments").rglob("*.npy")}
    experiments.record("lr", suite)
    assert before == {path: path.stat().st_mtime_ns for path in Path("out/experiments").rglob("*.npy")}


def test_a_cell_whose_loss_is_no_number_any_more_is_scored_as_it_was_saved(suite, monkeypatch):
    real, calls = trainer.weighted_nll, []

    def poisoned(logp, weights, n_tokens):
        calls.append(1)
        return real(logp, weights, n_tokens) * (float("nan") if len(calls) > 3 else 1)

    monkeypatch.setattr(trainer, "weighted_nll", poisoned)
    (figures,) = suite.run([{"loss": "ce", "lr": 0.5, "steps": 6}])
    assert figures["all"]["steps_taken"] == 2 and figures["all"]["rouge_l"] >= 0  # three steps were good, two of them saved
    calls[:] = [1] * 9
    with pytest.raises(cli.RunError, match="the loss is nan"):
        suite.run([{"loss": "ce", "lr": 0.25, "steps": 6}])


def test_weight_rules(suite):
    model, tokenizer, _ = cells.start_of("base", 0)
    rows = cells.rows_of("train")[1:4]
    batch = collate(encode_rows(rows, tokenizer, model.config.block_size, 4))
    a, b = torch.randn(len(batch.labels)), torch.randn(len(batch.labels))
    rule = lambda kind, cell={}: cells.weight_rule(kind, cells.DEFAULT | cell, model, tokenizer, rows)
    online = (a - b).clamp(0.8, 5)
    assert rule("") is None
    assert torch.allclose(rule("longce")(batch, a, b), (a - b).exp().clamp(max=5))
    assert rule("mean one")(batch, a, b).mean().item() == pytest.approx(1)
    exact = torch.cat([torch.tensor(cells.exact_of("train", rows, tokenizer)[cells.key_of(row)]) for row in rows]).float()
    assert torch.allclose(rule("exact")(batch, a, b), exact.clamp(0.8, 5))
    warm_up = rule("warm-up", {"steps": 4})
    assert torch.allclose(warm_up(batch, a, b), 1 + (online - 1) / 2) and torch.allclose(warm_up(batch, a, b), online)
    own = lambda: torch.tensor(np.concatenate([s["logp"] - s["logp_plain"] for s in cells.scoring.score_tokens(model, batch.examples, torch.device("cpu"))]))
    frozen, stale, before = rule("frozen"), rule("stale"), own()
    with torch.no_grad():
        for p in model.parameters():
            p *= 1.5
    assert torch.allclose(frozen(batch, a, b).double(), before.clamp(0.8, 5), atol=1e-5)
    assert torch.allclose(stale(batch, a, b).double(), own().clamp(0.8, 5), atol=1e-5)  # its copy is made at the first call


def test_a_spread_is_of_the_seeds():
    assert report.spread([0.5]) == "0.500" and report.spread([0.52, 0.5]) == "0.510 (0.500 to 0.520)"
    assert report.spread([1.0, 2.0, 3.0], 2) == "2.00 ± 2.48"  # 4.303, Student's t of two degrees of freedom, x 1 / sqrt(3)


def test_unknown_experiments_are_named(command):
    result = command(experiments.main, "mian")
    assert result.status == 2 and "mian" in result.error and "identify" in result.error


def test_a_chart_has_a_line_a_series_and_escapes_its_text():
    svg = page.line_chart("a < b", "x (log)", "y", {"one": [(1, 2), (10, 3)], "<two>": [(1, 1), (100, 5)]})
    assert svg.count("<polyline") == 2 and "a &lt; b" in svg and "&lt;two&gt;" in svg
    assert 'points="50.0,216.2 240.0,152.5"' in svg  # half of the way on the logarithmic axis


def test_the_judge_counts_what_the_answer_shows_of_the_user(suite, monkeypatch):
    rows = []
    monkeypatch.setattr(experiments, "replies", lambda model, tokenizer, asked, top_k: rows.extend(asked) or [
        row["response"] if len(row["profile"]) == 5 else row["response"][slice(*row["personal"][0])] if len(row["profile"]) == 9 else "" for row in asked])
    scores = experiments.judged(Path("out/general"))
    firsts = [1 / len(row["personal"]) for row in rows if len(row["profile"]) == 9]
    assert scores[5] == 5 and scores[0] == 1 and scores[9] == pytest.approx(1 + 4 * np.mean(firsts))
    assert rows[3]["profile"][0]["response"] == rows[0]["response"]  # the context carries the preferred answers


def test_answers_are_scored_by_kind(suite, monkeypatch):
    """The generator's own answers are right; a wrong one is wrong."""
    passages = json.loads(Path("out/general-data/passages.json").read_text())
    gold = ["".join(qa["answer"]["spans"]) or qa["answer"]["number"] or qa["answer"]["date"]["month"] for p in passages.values() for qa in p["qa_pairs"]]
    monkeypatch.setattr(experiments, "replies", lambda *args: [f"{answer}." for answer in gold])
    right = experiments.answered(Path("out/general"))
    assert all((scores == 1).all() for scores in right.values())
    assert experiments.by_kind(right)["date"] == {"exact match": 1, "f1": 1}
    monkeypatch.setattr(experiments, "replies", lambda *args: ["nobody"] * len(gold))
    assert (experiments.answered(Path("out/general"))["all"] == 0).all()


def test_an_interval_of_questions():
    d, low, high = experiments.interval(np.array([1.0] * 50 + [0.0] * 50))
    half = 1.96 * 0.5 / 10  # of a mean of 100 coins
    assert d == 0.5 and low == pytest.approx(0.5 - half, abs=0.02) and high == pytest.approx(0.5 + half, abs=0.02)
