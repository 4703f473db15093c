"""The experiments: detectors against slow ones, the weight rules, and the suite from runs to tables and page."""

import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass, replace
from functools import partial
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from data.personas.exact import exact_logprobs
from data.personas.general import chats, general_rows, questions
from data.personas.prepare import N_ORDINARY, TASKS, TRAIN
from perce_mini import base, checkpoint, trainer
from perce_mini.base import make_tokenizer
from perce_mini.dataset import collate, encode_example, encode_rows, read_examples
from perce_mini.errors import UserError
from perce_mini.experiments import __main__ as experiments
from perce_mini.experiments import (
    bench,
    charts,
    detectors,
    general,
    html,
    paper,
    records,
    regimes,
    report,
    rows,
    runs,
    suite,
    tabulate,
    weights,
)
from perce_mini.files import write_jsonl_atomic
from perce_mini.model import GPT, GPTConfig
from perce_mini.tokenizer import Tokenizer
from perce_mini.trainer import Settings
from tests.conftest import ROOT, run_inside

RNG = np.random.default_rng(0)
CALL = suite.call
ANYWHERE = [name for name in experiments.EXPERIMENTS if name != "gpu"]
SCORES, TRUE = RNG.integers(0, 12, 200) / 4, RNG.random(200) < 0.3  # with many ties


# ------------------------------------------------------------------------------------------- detectors


def test_auc_is_the_share_of_pairs_in_order():
    pairs = [(a > b) + 0.5 * (a == b) for a in SCORES[TRUE] for b in SCORES[~TRUE]]
    assert detectors.auc(SCORES, TRUE) == pytest.approx(np.mean(pairs))


def test_the_best_threshold_is_the_best_of_all():
    def f1(threshold):
        said = SCORES > threshold
        hits = sum(a and b for a, b in zip(said, TRUE))
        return 2 * hits / (sum(said) + sum(TRUE))

    best = detectors.best_threshold(SCORES, TRUE)
    assert f1(best) == max(map(f1, [-1, *SCORES])) == detectors.precision_recall(SCORES > best, TRUE)["F1"]


def test_word_matching_looks_at_whole_words():
    profile = [{"query": "lamp", "response": "the howdy. News"}]
    row = {"user": "u", "task": "t", "query": "q", "response": "Howdy folks, the new lamp!", "profile": profile}
    tokenizer = Tokenizer.train("abc", 262)  # a token a byte
    found = detectors.stands_in_profile(encode_example(row, tokenizer, 512), tokenizer)
    assert "".join(c for c, hit in zip(row["response"], found) if hit) == "Howdythe" and not found[-1]


def test_exact_values_of_characters_add_up_over_tokens():
    tokenizer = Tokenizer.train("kettle kettle kettle", 280)
    row = {"response": "a kettle", "exact": list(range(9)), "exact_logp": [-1] * 9}
    sums = rows.exact_tokens(row, tokenizer)
    assert sums.sum() == sum(range(9)) and sums[-1] == 8
    assert rows.exact_tokens(row, tokenizer, "exact_logp").sum() == -9
    assert len(sums) == len(tokenizer.encode("a kettle")) + 1 < 9


def test_mistakes_and_calibration_by_hand():
    test = {
        "PIR": np.array([2.0, 0.1, 0.2, 1.0, 3.0, -0.5]),
        "exact PIR": np.array([2.0, 0.3, 0.4, 0.0, 0.9, 0.0]),
        "later in its span": np.array([0, 1, 0, 0, 0, 0]),
    }
    found = detectors.mistakes(test, true=np.array([True, True, True, False, False, False]))
    assert list(found.values()) == [2, 1, 2, 2]  # 0.1 and 0.2 are missed, 1.0 and 3.0 are wrong
    pir, exact = np.arange(100.0), np.arange(100.0) * 2
    groups = detectors.calibration(pir, exact)
    assert len(groups) == 20 and groups[0] == [2, 4] and groups[-1] == [97, 194]


def test_thresholds_are_chosen_on_validation_users(monkeypatch):
    def tables(folder, split, contrast):
        score = np.array([1.0, 2.0, 3.0, 4.0]) + (0 if split == "val" else 1.2)
        true = [0, 0, 1, 1]
        columns = {name: score for name in [*detectors.DETECTORS, "exact loss"]}
        return columns | {"personal": np.array(true), "later in its span": np.zeros(4)}

    monkeypatch.setattr(detectors, "token_table", tables)
    found = detectors.detect("a folder")
    assert found["loss"] == {"AUC": 1, "precision": 2 / 3, "recall": 1, "F1": 0.8}
    assert found["fixed"]["recall"] == 1 and found["fixed"]["precision"] == 0.5  # all are above 0.8


def test_the_best_rate_is_the_best_on_validation_users(monkeypatch):
    scores, asked = {1e-3: 0.3, 2e-3: 0.5, 4e-3: 0.4, 8e-3: 0.1}, []

    def finished(run, scored):
        asked.append((run.seed, scored.split))
        return {"rouge_l": scores[run.lr] if run.loss == "ce" else 1 - scores[run.lr]}

    monkeypatch.setattr(suite, "finished", finished)
    monkeypatch.setattr(suite, "RATES", list(scores))
    best, table = suite.Suite(5, 2).at_best_rates({"ce": runs.Run("ce"), "perce": runs.Run()})
    assert best == {"ce": runs.Run("ce", 2e-3), "perce": runs.Run("perce", 8e-3)} and set(asked) == {(0, "val")}
    groups = suite.Suite(5, 2).repeat(best, 3)
    assert [(run.lr, run.seed) for run in groups["ce"]] == [(2e-3, 0), (2e-3, 1), (2e-3, 2)]
    assert tabulate.texts(table)[1] == ["CE", "0.300", "0.500", "0.400", "0.100"]


# ------------------------------------------------------------------------------- the suite, very small


REAL_RUN, REAL_KINDS, REAL_RATES, REAL_TIME = runs.Run, regimes.KINDS, suite.RATES, paper.EQUAL_TIME


SCORED = [("VAL", "val", 2, True), ("TRAINED", "train", 0, False), ("NEW", "test", 3, False), ("TEST", "test", 4, True)]
SCORED += [("SOME", "test", 3, True)]


@dataclass(frozen=True)
class TinyRun(runs.Run):
    steps: int = 2


def save_untrained_base(data, folder):
    """A model that has learned nothing, as a base model."""
    texts = read_examples(data / "train.jsonl")
    tokenizer = make_tokenizer("bpe", 420, texts)
    torch.manual_seed(0)
    config = GPTConfig(tokenizer.vocab_size, 700, n_layer=1, n_head=2, n_kv_head=1, n_shifted=1, n_embd=16)
    log = [{"grad_norm": 1.0, "weight": 1.0}]
    checkpoint.save(folder, GPT(config), tokenizer, asdict(Settings(vocab_size=420)), 1, log)


def call_inside(*command):
    """A run is trained and scored inside this process."""
    assert command[:2] == ("-m", "perce_mini.experiments.runs")
    runs.finish(TinyRun(**json.loads(command[2])), runs.Scored(**json.loads(command[3])))


@pytest.fixture(scope="module")
def tiny(world, tmp_path_factory):
    """The suite with tiny runs, in a folder of its own."""
    folder = tmp_path_factory.mktemp("suite")
    shutil.copytree(world, folder / "data/personas")
    write_jsonl_atomic(folder / "data/personas/train.jsonl", read_examples(world / "train.jsonl")[::3])
    for name in ["data/base", "out/general", "out/width-64", "out/seed-1"]:
        save_untrained_base(world, folder / name)
    for name in ["many", "ordinary-0", "faith-40", "seed-1"]:
        shutil.copytree(world, folder / "out/worlds" / name)
    (folder / "data/results").mkdir()
    (folder / "README.md").write_text(
        "a\n<!-- claims: new -->\nold\n<!-- end of claims -->\n<!-- test: no part -->\nz\n"
    )
    (folder / "data/results/findings.md").write_text(
        "## verdict\n\nyes\n\n## overview\n\nall\n\n## claims\n\n| paper | here |\n|---|---|\n| a | b |\n"
    )
    (folder / "data/results/train_output.txt").write_text("output\n")
    figures = records.read("cost")["figures"]  # not measured again here: test_bench.py does
    small = {
        "SOLVED": 4,
        "SAVE_EVERY": 2,
        **{name: runs.Scored(*which) for name, *which in SCORED},
        "TOP_K": 1,
        "MAX_NEW_TOKENS": 4,
        "RATES": [1e-3],
        "Run": TinyRun,
        "MORE_RATES": [1e-3, 4e-3],
        "STEPS": [3],
        "EXAMPLES": [5],
        "SENTENCES": [0],
        "HABITS": [40],
        "WIDTHS": [64],
        "SEEDS": [1],
        "EQUAL_TIME": 1,
        "BASE_STEPS": 1,
        "N_CHATS": 2,
        "N_QUESTIONS": 9,
        "KINDS": {name: TinyRun(**vars(run) | {"steps": 2}) for name, run in regimes.KINDS.items()},
        "call": call_inside,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in small.items():
            for module in [rows, runs, suite, paper, regimes, detectors, general]:
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        patch.setattr(bench, "measure", lambda: figures)
        suite.prepare(jobs=1)
        yield suite.Suite(seeds=1, jobs=1)


def test_every_experiment_runs_and_is_reported(tiny):
    for name in ANYWHERE:
        experiments.record(name, tiny)
    report.write_readmes()
    text = Path("data/results/README.md").read_text()
    assert text.count("\n## ") == 1 + len(ANYWHERE) and "\n\nall\n\n## The paper's claims" in text
    assert len(list(Path("data/results").glob("*.svg"))) == 7 and not re.search(r"\bnan\b", text.lower())
    page = html.page()
    assert page.count("<h2") == 1 + len(ANYWHERE) and page.count("<svg") == 4
    tables = re.findall(r"<table>(.*?)</table>", page)
    assert sum(table.count("<tr>") for table in tables) == len(re.findall(r"^\| ", text, flags=re.M))
    assert len(tables) == text.count("|---|---|\n") and not any("---" in table for table in tables)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    readme = Path("README.md").read_text()
    start, end = "a\n<!-- claims: new -->\n", "\n<!-- end of claims -->\n<!-- test: no part -->\nz\n"
    assert readme == f"{start}| paper | here |\n|---|---|\n| a | b |{end}" and "experiments lr`, commit" in text
    identify = records.read("identify")["tables"][0]["rows"]
    found = detectors.detect(Path("data/base"))
    rounded = {score: pytest.approx(x, abs=1e-6) for score, x in found["PIR"].items()}
    assert identify["PIR, base"] == [rounded] and identify["exact PIR"][0]["AUC"] != rounded["AUC"]


def test_finished_runs_are_used_as_they_are(tiny):
    experiments.record("lr", tiny)
    before = {path: path.stat().st_mtime_ns for path in Path("out/experiments").rglob("*.json")}
    experiments.record("lr", tiny)
    assert len(before) >= 4
    assert before == {path: path.stat().st_mtime_ns for path in Path("out/experiments").rglob("*.json")}


def test_a_run_is_a_command_of_its_own(tiny, monkeypatch):
    def run(command, env, **options):
        assert env["OMP_NUM_THREADS"] == "1"  # several run at a time
        return run_inside(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(suite, "call", CALL)
    scored = runs.Scored("val", 3, True)
    figures = suite.finished(runs.Run("ce", seed=3, steps=1, examples=2), scored)
    folder = Path("out/experiments/loss=ce,seed=3,steps=1,examples=2")
    assert json.loads((folder / "val-3-texts.json").read_text())["figures"] == figures and 0 <= figures["rouge_l"] <= 1
    with pytest.raises(UserError, match="-c .* failed: the reason"):
        CALL("-c", "import sys; sys.exit('much\\nthe reason')")


def test_a_run_whose_loss_is_no_number_any_more_is_scored_as_it_was_saved(tiny, monkeypatch):
    nll, step, steps = trainer.weighted_nll, trainer.training_step, []

    def poisoned(*args):
        return nll(*args) * (float("nan") if len(steps) > 3 else 1)

    def counted(*args):
        steps.append(1)
        return step(*args)

    monkeypatch.setattr(trainer, "weighted_nll", poisoned)
    monkeypatch.setattr(trainer, "training_step", counted)
    figures = tiny.figures({"a": [TinyRun("ce", 0.5, steps=6)]}, "broken")["a"][0]
    assert figures["steps"] == 2 and figures["rouge_l"] >= 0  # three steps were good, two of them saved
    with pytest.raises(UserError, match="the loss is nan"):
        tiny.figures({"a": [TinyRun("ce", 0.25, steps=6)]}, "broken")


def test_differences_are_paired_over_seeds(tiny):
    groups = tiny.repeat({"ce": TinyRun("ce"), "perce": TinyRun()})
    figures = tiny.figures(groups, "pair")
    (change,) = suite.difference(groups["perce"], groups["ce"])
    expected = figures["perce"][0]["logp"] - figures["ce"][0]["logp"]
    assert change["logp"][0] == pytest.approx(expected) and expected != 0
    assert change["logp"][1] <= expected <= change["logp"][2]


def test_runs_with_fewer_seeds_are_compared_with_the_same_seeds(monkeypatch):
    monkeypatch.setattr(suite, "difference", lambda mine, reference, scored: (mine, reference))
    groups = {"ce": ["ce 0", "ce 1", "ce 2"], "oracle": ["oracle 0", "oracle 1"]}
    assert suite.versus(groups, "ce") == {"oracle": (["oracle 0", "oracle 1"], ["ce 0", "ce 1"])}


def test_what_the_detectors_say_of_every_token(tiny):
    """Against the logits of one example at a time."""
    found = detectors.token_table(Path("data/base"), "val", "none")
    model, tokenizer, _ = runs.load(Path("data/base"))
    examples = rows.held_out(rows.solved_rows("val"), model, tokenizer)
    columns = {"loss": [], "entropy": [], "PIR": [], "personal": [], "later in its span": []}
    for e in examples:
        logp = {}
        for prompt in [e.prompt, e.plain_prompt]:
            logits = model(torch.tensor([prompt + e.response]))[0, len(prompt) - 1 : -1].detach()
            logp[len(prompt)] = logits.log_softmax(-1)
        persona, plain = logp[len(e.prompt)], logp[len(e.plain_prompt)]
        for i, token in enumerate(e.response):
            columns["loss"].append(-persona[i, token].item())
            columns["entropy"].append(-(persona[i].exp() * persona[i]).sum().item())
            columns["PIR"].append((persona[i, token] - plain[i, token]).item())
            columns["personal"].append(e.personal[i])
            columns["later in its span"].append(i > 0 and e.personal[i] and e.personal[i - 1])
    for name, values in columns.items():
        assert np.allclose(found[name], values, atol=1e-5), name
    assert np.allclose(found["exact PIR"], np.concatenate([rows.exact_tokens(e.row, tokenizer) for e in examples]))
    for e in examples:  # the texts of a profile that stand in the prompt are those that the exact reader has read
        items = [e.row["profile"][i] for i in sorted(e.read)]
        assert np.allclose(e.row["exact_logp"], exact_logprobs(e.row, items), atol=1e-4)
        plain = exact_logprobs(e.row, [])
        assert np.allclose(np.subtract(e.row["exact_logp"], e.row["exact"]), plain, atol=2e-4)
    known = detectors.detect(Path("data/base"))["known, exact loss"]
    table = detectors.token_table(Path("data/base"), "test", "none")
    assert known["logp_personal"] == pytest.approx(-np.mean(table["exact loss"][table["personal"] == 1]))
    assert known["logp_other"] == pytest.approx(-np.mean(table["exact loss"][table["personal"] == 0]))
    assert any(columns["later in its span"]) and np.ptp(columns["PIR"]) > 0


def test_weight_rules(tiny):
    model, tokenizer, _ = runs.load(TinyRun.base)
    some = [row for row in rows.solved_rows("train") if row["profile"]][:3]
    batch = collate(encode_rows(some, tokenizer, model.config.block_size, 4))
    a, b = torch.randn(len(batch.labels)), torch.randn(len(batch.labels))

    def rule(name):
        return partial(getattr(weights, name), TinyRun(clip_min=0.5, clip_max=2.0), tokenizer)

    assert torch.allclose(rule("longce")(batch, a, b), (a - b).exp().clamp(max=5))
    clipped = (a - b).clamp(0.5, 2)
    assert torch.allclose(rule("mean_one")(batch, a, b), clipped / clipped.mean())
    exact = torch.cat([torch.tensor(rows.exact_tokens(row, tokenizer)) for row in some]).float()
    assert torch.allclose(rule("exact")(batch, a, b), exact.clamp(0.5, 2)) and (exact > 0.5).any()


def test_the_commands_that_make_worlds_are_valid(command, monkeypatch, tmp_path):
    """The flags are those of the commands; nothing is made here."""
    called = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suite, "call", lambda *command: called.append(list(map(str, command))))
    monkeypatch.setattr(suite, "solve_rows", lambda *split: None)
    Path("data/personas").mkdir(parents=True)
    Path("data/personas/test.jsonl").touch()  # a run of train.py leaves this, without a base corpus
    suite.prepare(1)
    monkeypatch.setattr(regimes, "make_base", lambda *what, **shape: None)
    regimes.dials()
    regimes.world_of(7)
    for script, *words in called:
        told = command(importlib.import_module(script.removesuffix(".py").replace("/", ".")).main, "-h").out
        assert all(word in told for word in words if word.startswith("--"))
    assert len(called) == 1 + len(regimes.SENTENCES) + len(regimes.HABITS) + 1 + 1
    assert called[-1] == ["data/personas/prepare.py", "--seed", "7", "--out", "out/worlds/seed-7"]


def with_tiny_bases(monkeypatch):
    small = {"block_size": 700, "n_layer": 1, "n_head": 2, "n_kv_head": 1, "n_shifted": 1, "n_embd": 16}
    monkeypatch.setattr(base, "SHAPE", small)
    monkeypatch.setattr(base, "SETTINGS", replace(base.SETTINGS, vocab_size=420))


def test_the_base_model_that_reads_more_is_made_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    few = general_rows("0", 40)
    monkeypatch.setattr("data.personas.general.general_rows", lambda seed: few)
    monkeypatch.setattr(general, "BASE_STEPS", 1)
    with_tiny_bases(monkeypatch)
    made = Path(general.base_folder(), "checkpoint.pt")
    assert checkpoint.read(made.parent)["settings"]["steps"] == 1
    monkeypatch.setattr("data.personas.general.general_rows", None)  # is not asked for again
    assert general.base_folder() == "out/general"


def test_the_base_models_of_another_width_and_of_another_world_are_made_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_jsonl_atomic(Path("data/personas/base.jsonl"), few := general_rows("0", 40))
    monkeypatch.setattr(regimes, "BASE_STEPS", 1)
    with_tiny_bases(monkeypatch)
    made = checkpoint.read(Path(regimes.base_of_width(24)))
    assert made["config"]["n_embd"] == 24 and made["config"]["n_layer"] == 1 and made["step"] == 1
    assert made["settings"]["examples"] == len(few) and made["settings"]["loss"] == "ce"
    Path("data/personas/base.jsonl").unlink()  # is not read again
    assert regimes.base_of_width(24) == "out/width-24"
    for file in ["base", "test"]:
        write_jsonl_atomic(Path(f"out/worlds/seed-7/{file}.jsonl"), few[:30])
    how = regimes.world_of(7)
    made = checkpoint.read(Path(how["base"]))
    assert how == {"world": "seed-7", "base": "out/seed-7"} and made["step"] == 1
    assert (made["settings"]["examples"], made["settings"]["seed"]) == (30, 7)


# ------------------------------------------------------------------------------ what stands in which cell


def value(*what):
    """A number of its own for everything."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:4], "big") / 2**32


def where(scored):
    """A word for what is scored, but for VAL and SOME, which are so most of the time."""
    return {runs.TRAINED: ["trained"], runs.NEW: ["new"], runs.TEST: ["test"]}.get(scored, [])


class Imagined(suite.Suite):
    """A suite whose runs have figures without being run."""

    def figures(self, groups, desc, scored=None):
        names = [*records.SHOWN, "pir"]
        names += [f"{metric}, {task}" for metric in records.SHOWN for task in ["abstract", "review", "topic"]]
        figures = {
            run: {name: value(run, name, *where(scored)) for name in names} for some in groups.values() for run in some
        }
        return {name: [figures[run] | {"steps": run.steps} for run in some] for name, some in groups.items()}


@pytest.fixture
def imagined(monkeypatch):
    def difference(some, reference, scored=None):
        return [{metric: [value(some, reference, metric, *where(scored)), 0, 1] for metric in records.SHOWN}]

    fakes = {"difference": difference, "Run": REAL_RUN, "RATES": REAL_RATES, "KINDS": REAL_KINDS}
    fakes |= {"make_world": lambda name, *flags: {"world": name}, "EQUAL_TIME": REAL_TIME}
    fakes |= {"make_base": lambda folder, *what, **shape: str(folder)}
    for module in [suite, paper, regimes, detectors, general, runs]:
        for name, fake in fakes.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, fake)

    def base_row(run, scored=None):
        return Imagined(1, 1).figures({0: [before(run)]}, "", scored)[0]

    for module in [paper, general, regimes]:
        monkeypatch.setattr(module, "base_row", base_row)
    return Imagined(3, 1)


def before(run):
    return runs.Run(base=f"before, {run.base}")


def best_of(**how):
    """{loss: its run with the best imagined rate}."""
    some = {loss: [runs.Run(loss, lr, **how) for lr in suite.RATES] for loss in ["ce", "perce"]}
    return {loss: max(some[loss], key=lambda run: value(run, "rouge_l")) for loss in some}


def test_cells_of_transfer(imagined):
    right, personal = paper.measure_transfer(imagined)["tables"]
    run = runs.Run("perce", task="review", seed=2)
    assert personal["rows"]["review"][2]["topic, perce"] == value(run, "personal_accuracy, topic")
    assert right["rows"]["nothing"] == [
        {f"{on}, {loss}": value(before(runs.Run()), f"rouge_l, {on}") for on in paper.TASKS for loss in paper.BOTH}
    ]


def test_cells_of_clip(imagined):
    (made,) = (table["rows"] for table in paper.measure_clip(imagined)["tables"])
    assert made["floor 0.8, cap 2"][1]["rouge_l"] == value(runs.Run(clip_max=2.0, seed=1), "rouge_l")
    ce, default = ([runs.Run(loss, seed=seed) for seed in range(3)] for loss in ["ce", "perce"])
    assert made["CE"][0]["ROUGE-L minus the first row's"] == [value(ce, default, "rouge_l"), 0, 1]
    assert made["CE"][2]["logp"] == value(ce[2], "logp") and list(made)[0] == paper.PAPER


def test_cells_of_lr_and_main(imagined):
    (scores,) = paper.measure_lr(imagined)["tables"]
    rate = paper.MORE_RATES[-1]
    assert scores["rows"]["logp_other, ce"][1][str(rate)] == value(runs.Run("ce", rate, seed=1), "logp_other")
    scores, minus, minus_perce, rates = (table["rows"] for table in paper.measure_main(imagined)["tables"])
    best = {kind: max(suite.RATES, key=lambda lr: seeds[0][str(lr)]) for kind, seeds in rates.items()}
    assert rates["oracle"][0]["0.001"] == value(runs.Run(weights="exact", lr=1e-3), "rouge_l")
    assert scores["perce"][2]["rouge_l, topic"] == value(
        runs.Run("perce", best["perce"], seed=2), "rouge_l, topic", "test"
    )
    mine, ce = ([runs.Run(loss, best[loss], seed=seed) for seed in range(3)] for loss in ["perce", "ce"])
    assert minus["perce"][0]["logp"] == [value(mine, ce, "logp", "test"), 0, 1]
    entce = [runs.Run("entce", float(best["entce"]), seed=seed) for seed in range(3)]
    assert minus_perce["entce"][0]["logp"] == [value(entce, mine, "logp", "test"), 0, 1]
    assert {*minus_perce} == {"lossce", "entce"}
    shorter = f"perce, {paper.EQUAL_TIME} steps"
    assert set(minus) == {*REAL_KINDS, shorter} - {"ce"}
    measured = records.read("cost")["figures"]["perce_over_ce"]  # which moves by a few points from run to run
    assert runs.Run.steps / paper.EQUAL_TIME == pytest.approx(measured, abs=0.03)
    run = runs.Run(lr=float(best["perce"]), steps=paper.EQUAL_TIME)
    assert scores[shorter][0]["logp"] == value(run, "logp", "test")


def test_cells_of_worlds(imagined):
    changes, figures, same = (table["rows"] for table in paper.measure_worlds(imagined)["tables"])
    assert list(changes) == ["0", *map(str, regimes.SEEDS), "all"]
    others = {str(n): {"world": f"seed-{n}", "base": f"out/seed-{n}"} for n in regimes.SEEDS}
    for seed, how in ({"0": {}} | others).items():
        groups = imagined.repeat(best_of(**how), 3)
        (change,) = changes[seed]
        assert change == {m: [value(groups["perce"], groups["ce"], m, "test"), 0, 1] for m in records.SHOWN}
        for loss, some in groups.items():
            row = figures[f"{seed} | {loss} | {some[0].lr:g}"]
            assert [one["logp"] for one in row] == [value(run, "logp", "test") for run in some]
        assert figures[f"{seed} | base | "][0]["logp"] == value(before(groups["ce"][0]), "logp", "test")
    differences = [changes[seed][0]["rouge_l"][0] for seed in list(changes)[:-1]]
    assert changes["all"][0]["rouge_l"] == list(tabulate.interval(differences))
    for lr in REAL_RATES:
        mine, ce = (
            {
                m: np.array([value(runs.Run(loss, lr, **how), m) for how in [{}, *others.values()]])
                for m in records.SHOWN
            }
            for loss in ["perce", "ce"]
        )
        assert same[lr][0]["logp"] == pytest.approx(tabulate.interval(mine["logp"] - ce["logp"]))
        assert same[lr][0][regimes.AHEAD] == sum(mine["personal_accuracy"] > ce["personal_accuracy"])


def test_cells_of_regimes(imagined):
    found = regimes.measure_regimes(imagined)
    changes, figures, heart = (table["rows"] for table in found["tables"])
    steps, n = [60, *regimes.STEPS], regimes.EXAMPLES[-1]
    assert (N_ORDINARY, len(TASKS) * TRAIN) == (4, 252)  # of the default run
    dials = [regimes.SENTENCES, regimes.HABITS, regimes.STEPS, regimes.EXAMPLES, regimes.WIDTHS]
    assert len(changes) == sum(1 + len(settings) for settings in dials)
    assert len(figures) == 2 * len(changes)

    def check(dial, setting, rates, **how):
        kinds = {loss: replace(run, lr=rates[loss].lr, **how) for loss, run in best_of().items()}
        groups, label = imagined.repeat(kinds), f"{dial} | {setting}"
        logp, personal, other = (value(groups["ce"][0], m) for m in ["logp", "logp_personal", "logp_other"])
        share = pytest.approx((logp - other) / (personal - other))
        minus = {m: [value(groups["perce"], groups["ce"], m), 0, 1] for m in regimes.METRICS}
        assert changes[label] == [minus | {regimes.SHARE: share}]
        for loss, some in groups.items():
            row = figures[f"{label} | {loss} | {kinds[loss].lr:g}"]
            assert row == [{m: value(run, m) for m in regimes.METRICS} for run in some]
        (chart,) = [chart for chart in found["charts"] if chart["name"] == "logp_other"]
        (point,) = [point for point in chart["panels"][dial]["perce"] if point[0] == str(setting)]
        assert point[1:] == [changes[label][0]["logp_other"]]
        assert [point[0] for point in chart["panels"]["steps"]["perce"]] == list(map(str, sorted(steps)))

    own = {("steps", n): {"steps": n} for n in [min(steps), max(steps)]}
    own |= {("dimensions", n): {"base": f"out/width-{n}"} for n in regimes.WIDTHS}
    with_own_rates = set()
    for (dial, setting), how in own.items():  # which have rates of their own
        check(dial, setting, best_of(**how), **how)
        if [run.lr for run in best_of(**how).values()] != [run.lr for run in best_of().values()]:
            with_own_rates.add(dial)
    assert with_own_rates == {"steps", "dimensions"}
    check("dimensions", 128, best_of())
    sentences, percent = regimes.SENTENCES[-1], regimes.HABITS[-1]
    check("ordinary sentences", sentences, best_of(), world=f"ordinary-{sentences}")  # others have the default run's
    check("% of habits kept", percent, best_of(), world=f"faith-{percent}")
    check("examples", n, best_of(), world="many", examples=n)
    check("steps", 60, best_of())
    longer = {f"{loss}, {regimes.STEPS[-1]} steps" for loss in ["ce", "perce"]}
    assert set(heart) == {"base", *REAL_KINDS, regimes.DECAYED, *longer} - {"oracle"}
    for where in ["trained", "new"]:
        assert heart["base"][0][f"logp_other, {where}"] == value(before(runs.Run()), "logp_other", where)
    assert (runs.TRAINED.split, runs.NEW.split) == ("train", "test")
    for name, run in {
        regimes.DECAYED: replace(best_of()["ce"], weight_decay=1.0, seed=1),
        f"perce, {regimes.STEPS[-1]} steps": replace(best_of()["perce"], steps=regimes.STEPS[-1], seed=1),
    }.items():
        trained, new = (value(run, "logp_other", where) for where in ["trained", "new"])
        assert heart[name][1]["logp_other, trained"] == trained and heart[name][1]["logp_other, new"] == new
        assert heart[name][1]["other tokens by heart"] == trained - new


def test_cells_of_contrast_and_identify(imagined, monkeypatch):
    def detect(folder, contrast="none"):
        scores = {name: value(folder, contrast, name) for name in ["AUC", "F1", "precision"]}
        fixed = {name: value(folder, contrast, name, "fixed") for name in ["F1", "precision"]}
        others = {name: {"AUC": value(folder, name)} for name in ["loss", "entropy", "exact PIR", "word matching"]}
        known = {f"known, {name}": {"logp_other": value(folder, "known", name)} for name in ["loss", "exact loss"]}
        found = {"PIR": scores, "fixed": fixed, "mistakes": {"missed": 7}, "calibration": [[0, 1], [2, 3]]}
        return found | others | known

    monkeypatch.setattr(detectors, "detect", detect)
    monkeypatch.setattr(detectors, "record_example", lambda run: None)
    found, trained = (table["rows"] for table in detectors.measure_contrast(imagined)["tables"])
    base = found["base | a stranger's"][0]
    assert base["F1, best validation threshold"] == value(Path("data/base"), "stranger", "F1")
    assert base["precision, PIR > 0.8"] == value(Path("data/base"), "stranger", "precision", "fixed")
    assert set(trained) == {"nobody's", "a stranger's", "difference"}
    mine = found["PerCE, trained with a stranger's | nobody's"]
    runs_of_it = imagined.repeat(imagined.at_best_rates({"": runs.Run(contrast="stranger")})[0], 3)[""]
    assert [one["AUC"] for one in mine] == [value(run.folder, "none", "AUC") for run in runs_of_it]
    results = detectors.measure_identify(imagined)
    rows_of_table = results["tables"][0]["rows"]
    assert rows_of_table["entropy (EntCE's score), base"][0]["AUC"] == value(Path("data/base"), "entropy")
    assert results["tables"][2]["rows"] == {"missed": [{"tokens": 7}]}
    base, *_, exact = results["tables"][3]["rows"].values()
    perce = runs.Run(lr=max(suite.RATES, key=lambda lr: value(runs.Run(lr=lr), "rouge_l"))).folder
    assert base == [{"logp_other": value(Path("data/base"), "known", "loss")}]
    assert exact == [{"logp_other": value(perce, "known", "exact loss")}]
    assert results["charts"][0]["panels"][""]["ce"] == [[0, 1, 1, 1], [2, 3, 3, 3]]


def test_cells_of_ability(imagined, monkeypatch):
    def answers(folder):
        right = {"loss=ce": 0.0, "loss=lossce": 0.5}.get(folder.name.split(",")[0], 1.0)  # PerCE is the default
        return np.array([[0.0, right], [0.5, right]])

    monkeypatch.setattr(general, "answer_questions", answers)
    (made,) = (table["rows"] for table in general.measure_ability(imagined)["tables"])
    for loss, d in {"perce": 1, "lossce": 0.5}.items():
        assert made[loss][0]["F1 minus CE"] == pytest.approx((d, d, d))
    assert made["base"][0]["F1"] == 1 and made["ce"][2]["F1"] == 0 and "F1 minus CE" not in made["ce"][0]
    run = runs.Run("ce", seed=1, base="out/general")
    assert made["ce"][1]["rouge_l"] == value(run, "rouge_l") and made["ce"][1]["exact match"] == 0.25
    assert made["base"][0]["rouge_l"] == value(before(runs.Run(base="out/general")), "rouge_l")


def test_cells_of_dialogue(imagined, monkeypatch):
    def judge(folder):
        return {f"turn {k}": value(folder, k) for k in range(1, 11)}

    monkeypatch.setattr(general, "judge_chats", judge)
    (made,) = (table["rows"] for table in general.measure_dialogue(imagined)["tables"])
    mine = [runs.Run(seed=seed, base="out/general").folder for seed in range(3)]
    assert [one["turn 6"] for one in made["perce"]] == [value(folder, 6) for folder in mine]
    assert made["base"][0]["turn 1"] == value(general.BASE, 1)


# ------------------------------------------------------------------------- chats, questions, intervals


def test_the_judge_counts_what_the_answer_shows_of_the_user(tiny, monkeypatch):
    seen = []

    def replies(folder, asked, top_k):
        """All that is personal at turn 6, the first of it at turn 10, else nothing."""
        seen.extend(asked)
        first = [row["response"][slice(*row["personal"][0])] for row in asked]
        return [{5: row["response"], 9: own}.get(len(row["profile"]), "") for row, own in zip(asked, first)]

    monkeypatch.setattr(general, "replies", replies)
    monkeypatch.setattr(general, "N_CHATS", 9)
    scores = general.judge_chats(Path("out/general"))
    firsts = [1 / len(row["personal"]) for row in seen if len(row["profile"]) == 9]
    assert list(scores) == [f"turn {k}" for k in range(1, 11)] and len(set(firsts)) > 1
    assert scores["turn 6"] == 5 and scores["turn 1"] == 1
    assert scores["turn 10"] == pytest.approx(1 + 4 * np.mean(firsts))


def test_chats_are_turns_of_held_out_users_behind_the_turns_before():
    found = chats("0", 9)
    assert len({row["user"] for row in found}) == 9 and 45 < len(found) < 90
    for row, later in zip(found, found[1:]):
        assert row["personal"] and len(row["profile"]) <= 9
        if row["user"] == later["user"]:
            said = {"query": row["query"], "response": row["response"]}
            assert later["profile"][: len(row["profile"]) + 1] == [*row["profile"], said]


def test_answers_are_scored(tiny, monkeypatch):
    """The generator's own answers are right; a wrong one is wrong."""
    gold = [row["response"] for row in questions("questions", 9)]
    monkeypatch.setattr(general, "replies", lambda *args, **how: gold)
    assert (general.answer_questions(Path("out/general")) == np.ones((9, 2))).all()
    monkeypatch.setattr(general, "replies", lambda *args, **how: ["nobody"] * len(gold))
    assert (general.answer_questions(Path("out/general")) == 0).all()


def test_an_answer_stands_in_its_passage():
    for row in questions("0", 50):
        passage, asked = row["query"].rsplit(". ", 1)
        assert row["response"].rstrip(".") in passage and asked.endswith("?") and not row["profile"]


def test_replies_are_greedy_and_in_order(tiny):
    model, tokenizer, _ = runs.load(Path("data/base"))
    asked = rows.rows_of("test")[:3]
    texts = general.replies(Path("data/base"), asked, 2)
    for row, text in zip(asked, texts):
        example = encode_example(row, tokenizer, model.config.block_size, 2)
        (ids,) = model.generate([example.prompt], 40, tokenizer.end)
        assert text == tokenizer.decode(ids)


def test_an_interval_of_questions():
    d, low, high = general.interval(np.array([[1.0] * 50 + [0.0] * 50]))
    half = 1.96 * 0.5 / 10  # of a mean of 100 coins
    assert d == 0.5 and low == pytest.approx(0.5 - half, abs=0.02) and high == pytest.approx(0.5 + half, abs=0.02)
    d, low, high = general.interval(np.array([[1.0] * 9, [0.5] * 9, [0.0] * 9]))  # the seeds are drawn, too
    assert d == 0.5 and high - d == pytest.approx(4.303 * 0.5 / 3**0.5, rel=0.1) == d - low


# ------------------------------------------------------------------------------------ tables and charts


def test_a_spread_is_of_the_seeds():
    assert tabulate.spread([0.5]) == "0.500" and tabulate.spread([0.52, 0.5]) == "0.510 (0.500 to 0.520)"
    # 4.303, Student's t of two degrees of freedom, x 1 / sqrt(3)
    assert tabulate.spread([1.0, 2.0, 3.0], 2) == "2.00 ± 2.48"
    assert tabulate.spread([18664]) == "18,664"


def test_a_table_as_texts():
    seeds = [{"logp": 0.5, "x": [0.1, -0.2, 0.3]}, {"logp": 0.7, "pir": 9}]
    made = records.table("logp, a caption.", ["logp", "x"], {"3 | ce": seeds, "none": [{}]}, "steps | loss")
    assert tabulate.caption(made) == "log P with persona, nats/token, a caption. Two seeds: mean (low to high)."
    head, first, second = tabulate.texts(made)
    assert head == ["steps", "loss", "log P with persona, nats/token", "x"]
    assert first == ["3", "CE", "0.600 (0.500 to 0.700)", "+0.100 [-0.200, +0.300]"] and second == ["none", "", ""]
    assert made["rows"]["3 | ce"][1] == {"logp": 0.7}  # what no column shows is not recorded
    turned = records.table("", ["a", "b"], {"ce": [{"a": 1.0, "b": 2.0}]}, "corner", transposed=True)
    assert tabulate.texts(turned) == [["corner", "CE"], ["a", "1.000"], ["b", "2.000"]]


@pytest.mark.parametrize(
    "counts, said",
    [
        ([1, 1], ""),
        ([1, 2], " Two seeds: mean (low to high)."),
        ([1, 3, 3], " 3 seeds: mean ± 95 % interval over these."),
    ]
    + [([10, 1, 5, 7], " 5 to 10 seeds: mean ± 95 % interval over these.")],
)
def test_a_caption_says_how_many_seeds_there_are(counts, said):
    rows = {str(i): [{"a": 1.0}] * n for i, n in enumerate(counts)}
    assert tabulate.caption(records.table("It.", ["a"], rows)) == f"It.{said}"


def test_rows_regrouped():
    groups = {"M 2": [{"f": 1, "g": 5}, {"f": 2, "g": 6}], "M 5": [{"f": 3}, {"f": 4}]}
    assert records.regrouped(groups, "f") == [{"M 2": 1, "M 5": 3}, {"M 2": 2, "M 5": 4}]


def test_records_are_short_and_read_line_by_line():
    results = {"runs": [{"a": 1 / 3, "b": 7, "c": float("nan")}, {"a": np.float64(2e-5)}], "best": {0.1: "ö"}, "n": 3}
    text = records.dump(results)
    assert (
        text
        == """{
 "runs": [
  {"a": 0.3333333, "b": 7, "c": null},
  {"a": 2e-05}
 ],
 "best": {"0.1": "ö"},
 "n": 3
}
"""
    )


def test_a_chart_shows_its_points_and_their_spread():
    lines = {"ce": [[1, 2, 4], [10, 3, 3], [100, 6, 6]], "<two>": [[1, 2], [100, 5]]}
    svg = charts.svg(records.chart("c", "x & y", "logp", {"": lines}, log=True), "a < b")
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert root[1].text == "a < b" and {"x & y", "<two>", "log P with persona, nats/token"} <= set(texts)
    drawn = [element.get("points") for element in root.iter() if element.tag.endswith("polyline")]
    (first, middle, last), _ = ([tuple(map(float, at.split(","))) for at in places.split()] for places in drawn)
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.2)  # half of the way on the logarithmic axis
    assert first[1] == pytest.approx(middle[1]) and last[1] < first[1]  # 3, 3, and 6 above
    bars = [element.get("d") for element in root.iter() if (element.get("d") or "").count("V")]
    assert len(bars) == 1 and bars[0].count("M") == 1  # the one point whose seeds differ
    top, bottom = sorted(map(float, re.fullmatch(r"M\S+ (\S+)V(\S+)", bars[0]).groups()))
    assert (top + bottom) / 2 == pytest.approx(first[1], abs=0.2)  # from 2 to 4 around 3


def test_a_difference_is_drawn_with_its_own_interval():
    points = [["a", [0.5, 0.25, 1.0]], ["b", [0.0, 0.0, 0.0]]]
    svg = charts.svg(records.chart("c", "", "y", {"dial": {"perce": points}}), "alt")
    (bar,) = re.findall(r'd="M\S+ (\S+)V(\S+)" stroke="#d55e00"', svg)
    at = {
        y: float(place)
        for y, place in zip([0.5, 0.0], re.findall(r'transform="translate\(\S+ (\S+)\)" fill="#d55e00"/>', svg))
    }
    low, high = map(float, bar)
    assert (at[0.0] - low) / (at[0.0] - at[0.5]) == pytest.approx(0.5, abs=0.01)
    assert (at[0.0] - high) / (at[0.0] - at[0.5]) == pytest.approx(2, abs=0.01)


def test_settings_of_a_dial_stand_side_by_side_and_have_room():
    """A panel is as wide as its title, or as its settings with two characters between them."""
    panels = {"steps": {"perce": [["20", -1.0], ["4000", 1.0]]}, "examples": {"perce": [["x", 0.5]]}}
    root = ET.fromstring(charts.svg(records.chart("c", "", "y", panels), "alt"))
    lines = [element.get("points") for element in root.iter() if element.tag.endswith("polyline")]
    character = (charts.WIDTH - charts.GAP) / (2 * (2 + len("4000")) + len("examples"))
    places = [[float(at.split(",")[0]) for at in line.split()] for line in lines]
    assert places == [[pytest.approx(k * character, abs=0.1) for k in ks] for ks in [[3, 9], [4]]]
    moved = [element.get("transform") for element in root.iter() if element.tag.endswith("}g")]
    lefts = [charts.LEFT, charts.LEFT + 12 * character + charts.GAP]
    assert moved == [f"translate({left:.1f} {charts.TOP})" for left in lefts]
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"20", "4000", "x", "steps", "examples"} <= set(texts)


def test_the_pages_tables_hold_what_the_readmes_hold(monkeypatch):
    monkeypatch.chdir(ROOT)
    cells = [unescape(re.sub("<.*?>", "", cell)) for cell in re.findall("<t[hd]>(.*?)</t[hd]>", html.page())]
    rows = [line for line in report.results_readme().splitlines() if line.startswith("|") and "|---" not in line]
    assert cells == [cell.strip().strip("*").replace("`", "") for row in rows for cell in row[1:-1].split("|")]
    assert html.block("| a | |\n|---|---|\n| *b* | |", {}).count("<td></td>") == 1  # an empty cell is one
    assert "<em>b</em>" in html.block("| a |\n|---|\n| *b* |", {})
    assert html.block("*Here* it is *seen*.", {}) == "<p><em>Here</em> it is <em>seen</em>.</p>"


def test_differences_lie_where_their_numbers_say():
    svg = charts.differences([("a & b", "ce", 0.5, 0.0, 1.0), ("c", "oracle", -0.5, -1.0, 0.0)], "title", "alt")
    root = ET.fromstring(svg)
    bars = [tuple(map(float, found)) for found in re.findall(r'd="M(\d\S*) \d+H(\d\S*)"', svg)]
    markers = [float(x) for x in re.findall(r"translate\((\S+) ", svg)]
    zero = (330 + 780) / 2
    assert bars == [(zero, 780), (330, zero)] and markers == [(zero + 780) / 2, (zero + 330) / 2]
    looks = re.findall(r'd="(\S[^"]*)" transform=.*? fill="(.*?)"', svg)
    assert [(colour, marker) for marker, colour in looks] == [charts.LOOKS[loss] for loss in ["ce", "oracle"]]
    assert f"M{zero} 44V" in svg and "a & b" in [element.text for element in root.iter()]


def test_a_loss_looks_the_same_in_every_chart(monkeypatch):
    monkeypatch.chdir(ROOT)
    for text in report.figures().values():
        for name, (colour, marker) in charts.LOOKS.items():
            if f">{tabulate.named(name)}<" in text:
                assert f'd="{marker}"' in text and f'stroke="{colour}"' in text
        assert "prefers-color-scheme:dark" in text and min(map(int, re.findall(r"font:(\d+)px", text))) >= 14
    assert len({colour for colour, _ in charts.LOOKS.values()}) == len(charts.LOOKS) == len(dict(charts.LOOKS.values()))


@pytest.mark.parametrize("colour", [colour for colour, _ in charts.LOOKS.values()])
def test_colours_show_on_white_and_on_black(colour):
    def luminance(code):
        parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return sum(share * x for share, x in zip([0.2126, 0.7152, 0.0722], linear))

    own, dark = luminance(colour), luminance("#0d1117")
    assert 1.05 / (own + 0.05) > 2.9 and (own + 0.05) / (dark + 0.05) > 3


@pytest.mark.parametrize("low, high", [(0, 300), (0.35, 0.52), (-2.4, -0.5), (1, 10), (-0.7, 5.3), (3, 3)])
def test_ticks_are_round_and_inside(low, high):
    found = charts.ticks(low, high, 6)
    steps = {round(b - a, 9) for a, b in zip(found, found[1:])}
    assert low == high or (2 <= len(found) <= 7 and len(steps) == 1)
    assert all(low - 1e-9 <= x <= high + 1e-9 for x in found)
    assert all(f"{step:e}"[0] in "125" and float(f"{step:.0e}") == pytest.approx(step) for step in steps)
    assert charts.log_ticks(5e-4, 6.4e-2) == [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05]


# ------------------------------------------------------------------------------------------ the command


def test_the_longest_call_says_how_long_it_takes(tmp_path, monkeypatch):
    def toy(suite):
        """A toy."""
        return {}

    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", toy)
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    times = iter([0, 50, 100, 103])  # the second call finds everything done
    monkeypatch.setattr(experiments.time, "perf_counter", lambda: next(times))
    for jobs in [3, 1]:
        experiments.record("toy", suite.Suite(1, jobs))
    assert (records.read("toy")["seconds"], records.read("toy")["jobs"]) == (50, 3)


def test_unknown_experiments_are_named(command):
    result = command(experiments.main, "mian")
    assert result.status == 2 and "mian" in result.error and "identify" in result.error


def test_without_a_name_it_lists_what_there_is(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = command(experiments.main)
    lines = result.out.splitlines()
    assert result.status == 0 and len(lines) == len(experiments.EXPERIMENTS) + 1 and "`all`" in lines[-1]
    recorded = records.read("lr")
    (line,) = [line for line in lines if line.split()[0] == "lr"]
    assert recorded["title"] in line and f"{recorded['seconds'] / 60:.0f} min with 2 jobs" in line


def test_all_runs_everything_once(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    ran, most = [], [name for name in experiments.EXPERIMENTS if name not in ("worlds", "gpu")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(experiments, "prepare", lambda jobs: ran.append(jobs))
    monkeypatch.setattr(experiments, "record", lambda name, suite: ran.append((name, suite.seeds)))
    monkeypatch.setattr(report, "write_readmes", lambda: ran.append("readme"))
    assert command(experiments.main, "all", "--seeds", 2, "--jobs", 3).status == 0
    assert ran == [3, *((name, 2) for name in most), "readme"]
    ran.clear()
    assert command(experiments.main, "gpu", "all", "worlds", "lr").status == 0
    assert ran == [2, *((name, 10) for name in experiments.EXPERIMENTS), "readme"]
    ran.clear()
    assert command(experiments.main, "gpu").status == 0 and ran == [("gpu", 10), "readme"]  # needs no data
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = command(experiments.main, "gpu")
    assert result.status == 2 and "no CUDA device" in result.error and len(ran) == 2
    assert command(experiments.main, "lr", "--seeds", 0).status == 2


def test_a_record_names_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "abacus")
    assert records.provenance()["gpu"] == "abacus"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "gpu" not in records.provenance()


def test_a_damaged_record_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    (tmp_path / "lr.json").write_text("{")
    with pytest.raises(UserError, match="lr.json: not JSON"):
        records.read("lr")


def test_elsewhere_it_is_one_line(tmp_path):
    """A folder of another project, with a package `data` of its own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/__init__.py").touch()
    command = [sys.executable, "-m", "perce_mini.experiments", "lr"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "project's folder" in done.stderr
