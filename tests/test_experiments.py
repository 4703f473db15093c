"""The experiments: statistics, weight rules, runs, detectors, and the cells of the tables."""

import contextlib
import hashlib
import importlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.personas.exact import exact_logprobs
from data.personas.general import chats, questions
from perce_mini import base
from perce_mini.dataset import encode_example, encode_rows
from perce_mini.experiments import __main__ as experiments
from perce_mini.experiments import (
    detectors,
    general,
    paper,
    records,
    regimes,
    rows,
    runs,
    statistics,
    suite,
)
from perce_mini.experiments.runs import Run, Scored
from perce_mini.percontrast import LOSSES
from perce_mini.rows import read_examples
from perce_mini.runtime import checkpoint
from perce_mini.runtime import run as runtime_run
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import write_jsonl
from perce_mini.scoring import METRICS
from perce_mini.tokenizer import Tokenizer
from tests.conftest import ROOT, call, run_inside, spy

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # see run_inside
RNG = np.random.default_rng(0)
ON = Scored("test", 6)  # the rows on which tiny runs are scored

# ------------------------------------------------------------------------------------- statistics


def test_an_interval_is_of_the_seeds():
    assert statistics.interval([0.52, 0.5]) == (0.51, 0.5, 0.52)
    mean, low, high = statistics.interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2, pytest.approx(4.303 / 3**0.5, abs=1e-3)) and low + high == 4


@pytest.mark.parametrize("n", [1, 3])
def test_paired_is_a_bootstrap_over_users_and_seeds(n, monkeypatch):
    """Compare with a loop over bootstrap samples. The last metric has nothing to count."""
    monkeypatch.setattr(statistics, "DRAWS", 50)
    users, counts = np.array([0, 1, 0, 2, 2]), RNG.integers(1, 9, (2, n, 5, 3, 2))
    counts[..., 1] = [5, 7, 0]  # denominators
    both, rng = counts.astype(float), np.random.default_rng(0)
    drawn_users = rng.multinomial(3, [1 / 3] * 3, 50)
    drawn_seeds = rng.multinomial(n, [1 / n] * n, 50) / n
    if n == 3:  # widened to Student's t
        drawn_seeds = 1 / 3 + 4.303 / 1.96 * (3 / 2) ** 0.5 * (drawn_seeds - 1 / 3)
    changes = []
    for times, shares in zip(drawn_users, drawn_seeds):
        a, b = sum(
            share * (both[:, k] * times[users, None, None]).sum(1) for k, share in enumerate(shares)
        )
        changes.append(a[:2, 0] / a[:2, 1] - b[:2, 0] / b[:2, 1])
    tables, references = map(list, both)
    *results, nothing = statistics.paired(users, tables, references)
    for result, drawn in zip(results, np.transpose(changes)):
        assert result[1:] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    a, b = both.sum((1, 2))
    assert results[0][0] == pytest.approx(a[0, 0] / a[0, 1] - b[0, 0] / b[0, 1])
    assert np.isnan(nothing).all()
    one_user = statistics.paired([0] * 5, tables, references)
    assert one_user[0][0] == results[0][0] and np.isnan(one_user[0][1:]).all()


# -------------------------------------------------------------------------------- detectors, rules

SCORES, TRUE = RNG.integers(0, 12, 200) / 4, RNG.random(200) < 0.3  # with many ties


def test_auc_is_the_share_of_pairs_in_order():
    pairs = [(a > b) + 0.5 * (a == b) for a in SCORES[TRUE] for b in SCORES[~TRUE]]
    assert detectors.auc(SCORES, TRUE) == pytest.approx(np.mean(pairs))


def test_the_best_threshold_is_the_best_of_all():
    f1 = [detectors.precision_recall(SCORES > x, TRUE)["F1"] for x in [-1, *SCORES]]
    best = SCORES > detectors.best_threshold(SCORES, TRUE)
    assert detectors.precision_recall(best, TRUE)["F1"] == max(f1)
    hits = sum(a and b for a, b in zip(best, TRUE))
    assert max(f1) == pytest.approx(2 * hits / (sum(best) + sum(TRUE)))
    score, true = np.array([2, 1, 1, 1, 1.0]), np.array([True, True, False, False, False])
    assert 1 < detectors.best_threshold(score, true) < 2  # a threshold cannot separate ties


def test_word_matching_looks_at_whole_words():
    profile = [{"query": "lamp", "response": "the howdy. News"}]
    row = {"response": "Howdy folks, the new lamp!", "profile": profile}
    tokenizer = Tokenizer.train("abc", 262)  # one token per byte
    found = detectors.occurs_in_profile(row, tokenizer)
    assert "".join(c for c, hit in zip(row["response"], found) if hit) == "Howdythe"
    assert len(found) == len(row["response"]) + 1 and not found[-1]


def test_exact_values_of_characters_add_up_over_tokens():
    tokenizer = Tokenizer.train("kettle kettle kettle", 280)
    row = {"response": "a kettle", "exact": list(range(9)), "exact_logp": [-1] * 9}
    sums = rows.exact_tokens(row, tokenizer)
    assert sums.sum() == sum(range(9)) and sums[-1] == 8
    assert rows.exact_tokens(row, tokenizer, "exact_logp").sum() == -9
    assert len(sums) == len(tokenizer.encode("a kettle")) + 1 < 9


def test_thresholds_come_from_validation_users_and_mistakes_are_counted(monkeypatch):
    def token_table(run, split, contrast):
        score = np.array([0.0, 0.1, 1.5, 2.0, 3.0]) + (0 if split == "val" else 0.6)
        names = ["PIR", detectors.LOSS, detectors.ENTROPY, detectors.WORDS, detectors.EXACT]
        true = np.array([False, True, False, True, True])
        columns = {name: score for name in names} | {"exact loss": score, "personal": true}
        return columns | {detectors.EXACT: np.arange(5.0), "later in its span": true}

    monkeypatch.setattr(detectors, "token_table", token_table)
    found = detectors.detect(Run())
    assert (found["PIR"]["precision"], found["PIR"]["recall"]) == (0.6, 1)  # all are above 0.1
    assert (found["fixed"]["precision"], found["fixed"]["recall"]) == (2 / 3, 2 / 3)
    assert list(found["mistakes"].values()) == [1, 1, 0, 1]
    assert found["the model"]["logp_personal"] == -np.mean([0.7, 2.6, 3.6])
    pir = np.arange(100.0)
    groups = detectors.calibration(pir, 2 * pir)
    assert len(groups) == 20 and groups[0] == [2, 4] and groups[-1] == [97, 194]


def test_weight_rules():
    """PIR is 1, 0, 6 and PerCE's weights are 1, 0.5, 2. The responses have one and two tokens."""
    step = {"logp_persona": torch.tensor([-1.0, -2.0, -3.0]), "clip_min": 0.5, "clip_max": 2.0}
    step |= {"logp_plain": torch.tensor([-2.0, -2.0, -9.0]), "logits": None}
    step["examples"] = [
        SimpleNamespace(row={"exact_tokens": np.array(x)}, response=x) for x in [[9], [1, -1]]
    ]
    p = np.exp([-1, -2, -3])
    for name, expected in {
        "end": [1, 0.5, 1.25],
        "per_response": [1 * 3 / 2 / 1, 0.5 * 3 / 2 / 2, 2 * 3 / 2 / 2],
        "oracle": [2, 1, 0.5],
        "longce": [np.e, 1, 5],
        "absolute": np.array([1, 0, 6]) / 7 * 3,
        "nextquill": np.array([0.9, 0.1, 0.1]) / 1.1 * 3,  # P rises by 0.23, 0 and 0.0497
        "dft": p,
    }.items():
        assert LOSSES[name](**step).tolist() == pytest.approx(expected), name
    without_profiles = step | {"logp_plain": step["logp_persona"]}
    assert LOSSES["absolute"](**without_profiles).tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------- tiny runs for real


@pytest.fixture(scope="module")
def tiny(world, start, tmp_path_factory):
    """A suite in a folder with a tiny world and base model. It trains inside this process."""
    folder = tmp_path_factory.mktemp("suite")
    shutil.copytree(world, folder / "data/personas")
    shutil.copytree(start, folder / "data/base")
    some = [row for row in read_examples(world / "train.jsonl") if row["profile"]]
    splits = {"train": some[::3], "val": some[::6], "test": some[1::6]}  # two rows of each task
    for split, rows_of_split in splits.items():
        write_jsonl(rows_of_split, folder / f"data/personas/{split}.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(rows, "N_EXACT", 6)
        patch.setattr(runtime_run, "SAVE_EVERY", 2)
        patch.setattr(runs, "SAVE_EVERY", 2)
        patch.setattr(subprocess, "run", run_inside)
        main_thread = contextlib.nullcontext(SimpleNamespace(map=map))
        patch.setattr(suite, "ThreadPoolExecutor", lambda jobs: main_thread)
        rows.prepare(jobs=1)
        yield suite.Suite(seeds=2, jobs=1)


def test_a_run_is_trained_scored_and_used_again(tiny):
    methods = {"ce": Run("ce", steps=2), "perce": Run(steps=2), "base": Run(steps=0)}
    figures = tiny.run_all(tiny.repeat(methods), "tiny", ON)
    folder = Path("out/experiments/loss=ce,seed=1,steps=2")
    scores = json.loads((folder / "test-6-texts.json").read_text())
    assert scores["figures"] == figures["ce"][1] and scores["figures"]["steps"] == 2
    state = checkpoint.read(folder)
    assert (state["settings"].loss, state["settings"].seed, state["step"]) == ("ce", 1, 2)
    assert state["settings"].examples == 9 and state["settings"].init == "data/base"
    assert {"rouge_l, topic", "personal_accuracy", "length"} <= set(figures["base"][0])
    before = {path: path.stat().st_mtime_ns for path in Path("out/experiments").rglob("*.json")}
    assert tiny.run_all(tiny.repeat(methods), "tiny", ON) == figures and len(before) == 6
    assert before == {path: path.stat().st_mtime_ns for path in before}

    groups = tiny.repeat(methods)
    change = suite.difference(groups["perce"][:1], groups["ce"][:1], ON)
    expected = figures["perce"][0]["logp"] - figures["ce"][0]["logp"]
    assert change["logp"][0] == pytest.approx(expected) and expected != 0
    assert change["logp"][1] <= expected <= change["logp"][2]


def test_a_run_differs_in_what_its_name_says(tiny, monkeypatch):
    calls = spy(monkeypatch, runs, "fit")
    shutil.copytree("data/personas", "out/worlds/other")
    kinds = [Run(steps=1, contrast="stranger"), Run("oracle", steps=1, clip_max=2.0)]
    kinds += [Run("ce", steps=1, examples=5, data="out/worlds/other"), Run(steps=1, task="topic")]
    for run in kinds:
        runs.train(run)
    examples = [fit[0][2] for fit in calls]
    assert [len(some) for some in examples] == [9, 9, 5, 3]
    assert all(len(e.plain_prompt) > 40 for e in examples[0] if e.row["profile"])
    assert all("exact_tokens" in e.row for e in examples[1])
    assert {e.row["task"] for e in examples[3]} == {"topic"}
    names = [path.name for path in (run.folder for run in kinds)]
    assert names[:2] == ["steps=1,contrast=stranger", "loss=oracle,steps=1,clip_max=2"]
    digits = hashlib.sha256(Path("out/worlds/other/train.jsonl").read_bytes()).hexdigest()[:6]
    assert names[2] == f"loss=ce,steps=1,examples=5,data=other-{digits}"
    for parent in "ab":
        Path(parent, "m").mkdir(parents=True)
        Path(parent, "m/config.json").touch()
    assert Run(base="a/m").folder != Run(base="b/m").folder  # two models of the same name


def test_an_interrupted_run_continues_and_one_on_other_rows_is_refused(tiny, monkeypatch):
    run, step = Run(steps=5, seed=7), runtime_run.training_step
    runs.train(run)
    expected = checkpoint.load(run.folder).model.head
    shutil.rmtree(run.folder)

    def interrupted(*args):
        if args[-1] == 3:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(runtime_run, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.train(run)
    assert checkpoint.read(run.folder)["step"] == 2 and not (run.folder / "done").exists()
    monkeypatch.setattr(runtime_run, "training_step", step)
    runs.train(run)
    assert torch.equal(checkpoint.load(run.folder).model.head, expected)
    rows_read = rows.rows_of("train")
    write_jsonl(rows_read[::-1], "data/personas/train.jsonl")
    with pytest.raises(UserError, match="rows"):
        runs.train(run)
    write_jsonl(rows_read, "data/personas/train.jsonl")


def test_a_run_whose_loss_becomes_nan_is_scored_as_it_was_saved(tiny, monkeypatch):
    step = runtime_run.training_step

    def poisoned(model, optimizer, batches, settings, n):
        if n == 3:
            model.norm.weight.data += float("nan")
        return step(model, optimizer, batches, settings, n)

    monkeypatch.setattr(runtime_run, "training_step", poisoned)
    ((figures,),) = tiny.run_all({"": [Run("ce", 0.5, steps=6)]}, "broken", ON).values()
    assert figures["steps"] == 2 and figures["logp"] < 0  # two of three good steps were saved
    monkeypatch.setattr(runs, "SAVE_EVERY", 50)
    with pytest.raises(UserError, match="nan"):
        runs.train(Run("ce", 0.25, steps=6))


def test_a_failing_command_is_named(monkeypatch):
    with pytest.raises(UserError, match="-c .* failed: the reason"):
        rows.run_python("-c", "import sys; sys.exit('much\\nthe reason')")


def test_what_the_detectors_say_of_every_token(tiny):
    """Compare with the logits of one example at a time, and with exact PIR for the same items."""
    found = detectors.token_table(Run(steps=0), "val")
    model, tokenizer, _ = runs.load(Run(steps=0))
    columns = {detectors.LOSS: [], detectors.ENTROPY: [], "PIR": [], "personal": []}
    for e in encode_rows(rows.rows_with_exact_pir("val"), tokenizer, 1100, 4):
        logp = []
        for prompt in [e.prompt, e.plain_prompt]:
            logits = model(torch.tensor([prompt + e.response]))[0, len(prompt) - 1 : -1].detach()
            logp.append(logits.log_softmax(-1))
        persona, plain = (x[range(len(e.response)), e.response].tolist() for x in logp)
        columns[detectors.LOSS] += [-x for x in persona]
        columns[detectors.ENTROPY] += (-logp[0].exp() * logp[0]).sum(-1).tolist()
        columns["PIR"] += [a - b for a, b in zip(persona, plain)]
        columns["personal"] += e.personal
        exact = exact_logprobs(e.row, [e.row["profile"][i] for i in e.profile_indices])
        assert np.allclose(e.row["exact_logp"], exact, atol=1e-4)
        assert np.allclose(e.row["exact"], exact - exact_logprobs(e.row, []), atol=2e-4)
    for name, values in columns.items():
        assert np.allclose(found[name], values, atol=1e-5), name
    later = np.logical_and(columns["personal"], [False, *columns["personal"][:-1]])
    assert (found["later in its span"] == later).all() and later.any()
    stranger = detectors.token_table(Run(steps=0), "val", "stranger")
    assert np.allclose(stranger[detectors.LOSS], found[detectors.LOSS])
    assert not np.allclose(stranger["PIR"], found["PIR"])


def test_replies_are_greedy_and_in_order(tiny):
    model, tokenizer, _ = runs.load(Run(steps=0))
    some = rows.rows_of("test")
    for row, text in zip(some, general.replies(Run(steps=0), some, 2)):
        example = encode_example(row, tokenizer, 1100, 2)
        assert text == tokenizer.decode(*model.generate([example.prompt], 40, tokenizer.end))


def test_real_texts_are_an_experiment_of_the_same_kind(tiny, tmp_path):
    file = tmp_path / "real_tiny_world.json"
    words = ["real", "--model", "data/base", "--data", "data/personas", "--losses", "ce", "perce"]
    words += ["--lr", "1e-3", "2e-3", "--seeds", 2, "--steps", 2, "--batch-size", 3, "--top-k", 1]
    done = call(experiments.main, *words, "--block-size", 1100, "--examples", 0, "--json", file)
    assert done.status == 0, done.err
    result = json.loads(file.read_text())
    assert "--model MODEL --data DATA" in result["command"]  # nobody else has these folders
    scores, minus_ce, rates = (
        {row["labels"][0]: row["seeds"] for row in table["rows"]} for table in result["tables"]
    )
    assert (list(scores), list(minus_ce)) == (["before", "ce", "perce"], ["before", "perce"])
    (by_rate,) = rates["perce"]
    lr = float(max(by_rate, key=by_rate.get))
    run = Run(lr=lr, seed=1, steps=2, batch_size=3, top_k=1, block_size=1100)
    figures, _ = runs.scores_of(replace(run, seed=0), Scored("val", texts=False))
    assert by_rate[f"{lr:g}"] == pytest.approx(figures["logp"], abs=1e-6)
    test, seed = Scored("test"), scores["perce"][1]
    for column, scored in {
        "logp": test,
        "rouge_l, greedy": replace(test, temperature=0.0),
        "pir, against a stranger": replace(test, texts=False, contrast="stranger"),
    }.items():
        figures, _ = runs.scores_of(run, scored)
        assert seed[column] == pytest.approx(figures[column.split(",")[0]], abs=1e-6)
    assert seed["pir, against a stranger"] != seed["pir"]
    assert seed["length"] != seed["length, greedy"]
    shutil.copytree("data/personas", "out/val", ignore=shutil.ignore_patterns("test.jsonl"))
    words[4] = "out/val"
    assert "test.jsonl" in call(experiments.main, *words).error


def test_worlds_and_base_models_are_made_once(tiny, command, monkeypatch):
    """The flags of prepare.py exist, and the base model has the right shape and rows."""
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(rows, "run_python", lambda *words: calls.append(list(map(str, words))))
        patch.setattr(regimes, "make_base", lambda *what: {})
        patch.setattr(regimes, "keep_bases", lambda steps: {n: {"base": n} for n in steps})
        assert regimes.on_form(regimes.NEW) == {}
        known = {"data": "out/worlds/known", "base": 1000}
        assert regimes.on_form(regimes.KNOWN) == known
        regimes.world_of(7)
    told = command(importlib.import_module("data.personas.prepare").main, "-h").out
    flags = {word for words in calls for word in words if word.startswith("--")}
    assert all(flag in told for flag in flags) and len(calls) == 2
    assert calls[-1] == ["data/personas/prepare.py", *"--seed 7 --out out/worlds/seed-7".split()]
    for name, size in {"n_layer": 1, "n_embd": 16, "block_size": 1100}.items():
        monkeypatch.setitem(base.SHAPE, name, size)
    monkeypatch.setattr(base, "VOCAB_SIZE", 400)
    monkeypatch.setattr(rows, "DEFAULT_BASE_STEPS", 3)
    how = rows.make_base("other", rows.DATA, 1, seed=3)
    state = checkpoint.read("out/other")
    assert how == {"base": "out/other"}
    assert (state["step"], state["settings"].seed, state["settings"].loss) == (1, 3, "ce")
    bases = rows.keep_bases([1, 2])
    assert bases == {n: {"base": f"out/base-kept/step-{n}"} for n in [1, 2]}
    losses = []
    for folder in [*(how["base"] for how in bases.values()), "out/base-kept"]:
        state = checkpoint.read(folder)
        assert len(state["log"]) == state["step"] and state["settings"].steps == 3
        losses.append([line["loss"] for line in state["log"]])
    assert losses[0] == losses[2][:1] and losses[1] == losses[2][:2]
    monkeypatch.setattr(base, "train_base", None)  # is not called again
    assert rows.make_base("other", rows.DATA, 1, seed=3) == how and rows.keep_bases([1, 2]) == bases


# ---------------------------------------------------------------- the right value in each cell


def value(*what):
    """A different number for each set of arguments."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:4]) / 2**32


class Imagined(suite.Suite):
    """A suite whose runs get imagined figures instead of being trained."""

    def run_all(self, groups, desc, scored=runs.SOME):
        names = [f"{metric}, {task}" for metric in METRICS for task in paper.TASKS]
        names += METRICS
        figures = {}
        for run in {run for some in groups.values() for run in some}:
            figures[run] = {name: value(run, scored, name) for name in names} | {"steps": 60}
        return {name: [dict(figures[run]) for run in some] for name, some in groups.items()}


@pytest.fixture
def imagined(monkeypatch):
    def difference(some, references, scored=runs.SOME):
        return {metric: [value(some, references, scored, metric), 0, 1] for metric in METRICS}

    for module in [suite, regimes, detectors]:
        monkeypatch.setattr(module, "difference", difference)
    monkeypatch.setattr(regimes, "make_base", lambda name, *_: {"base": name})
    monkeypatch.setattr(regimes, "make_world", lambda name, *flags: {"data": name})
    kept = {n: {"base": f"kept-{n}"} for n in regimes.BASES}
    monkeypatch.setattr(regimes, "keep_bases", lambda steps: kept)
    monkeypatch.setattr(general, "N_ROWS", 9)
    monkeypatch.setattr(general, "train", lambda run: None)
    monkeypatch.setattr(Run, "folder", property(lambda run: Path(f"{run.steps} steps")))
    return Imagined(5, 1)


def tables_of(results):
    """The tables as dicts {label, or tuple of labels: row}."""
    tables = []
    for table in results["tables"]:
        rows = {tuple(row["labels"]): row["seeds"] for row in table["rows"]}
        tables.append({key if len(key) > 1 else key[0]: seeds for key, seeds in rows.items()})
    return tables


def best(run, n=3):
    """The run at its best imagined learning rate, with n seeds. A rate beside the best was tried,
    too."""
    rates = set(suite.RATES)
    while True:
        tried = [replace(run, lr=lr) for lr in rates]
        best_run = max(tried, key=lambda run: value(run, runs.VAL, "logp"))
        if {best_run.lr / 2, best_run.lr * 2} <= rates:
            return [replace(best_run, seed=seed) for seed in range(n)]
        rates |= {best_run.lr / 2, best_run.lr * 2}


def test_cells_of_main_and_weights(imagined):
    scores, to_ce, to_perce, rates = tables_of(paper.measure_main(Imagined(3, 1)))
    assert rates["oracle"][0]["0.004"] == value(Run("oracle", 4e-3), runs.VAL, "logp")
    perce, ce, entce = best(Run()), best(Run("ce")), best(Run("entce"))
    assert scores["perce"][2]["rouge_l, topic"] == value(perce[2], runs.TEST, "rouge_l, topic")
    assert scores["base"][0]["logp"] == value(Run(steps=0), runs.TEST, "logp")
    assert to_ce["perce"][0]["logp"] == [value(perce, ce, runs.TEST, "logp"), 0, 1]
    assert to_perce["entce"][0]["logp"] == [value(entce, perce, runs.TEST, "logp"), 0, 1]
    assert set(to_ce) == {*suite.METHODS} - {"ce"}
    assert set(to_perce) == {"lossce", "entce", "oracle"}
    scores, to_ce, to_perce, _ = tables_of(paper.measure_weights(Imagined(3, 1)))
    assert set(to_ce) == {*suite.METHODS, *paper.RULES} - {"ce"} and set(to_perce) == {*paper.RULES}
    dft = best(Run("dft"))
    assert to_perce["DFT"][0]["logp"] == [value(dft, perce, runs.TEST, "logp"), 0, 1]
    half = best(Run(ce_first=0.5))
    assert scores["ce-then-perce"][1]["length"] == value(half[1], runs.TEST, "length")


def test_cells_of_lr_clip_and_transfer(imagined):
    (scores,) = tables_of(paper.measure_lr(imagined))
    run = Run("ce", paper.MORE_RATES[-1], seed=1)
    expected = value(run, replace(runs.VAL, texts=True), "logp_other")
    assert scores["logp_other, ce"][1][str(run.lr)] == expected
    (scores,) = tables_of(paper.measure_clip(imagined))
    ce, perce = best(Run("ce")), best(Run())
    run = replace(perce[1], clip_max=2.0)
    assert scores["floor 0.8, cap 2"][1]["rouge_l"] == value(run, runs.SOME, "rouge_l")
    change = value(ce, perce, runs.SOME, "rouge_l")
    assert scores["CE"][0]["ROUGE-L minus the first row's"] == [change, 0, 1]
    scores, personal = tables_of(paper.measure_transfer(imagined))
    run = replace(perce[2], task="review", steps=80)
    name = "personal_accuracy, topic"
    assert personal["review"][2]["topic, perce"] == value(run, runs.SOME, name)
    (base,) = scores["nothing"]
    assert base["topic, ce"] == value(Run(steps=0), runs.SOME, "rouge_l, topic")


def test_cells_of_again(tiny, monkeypatch):
    def write_again(row, style, rng, faithful):
        return row["response"] if faithful else f"{style.get('word', 'nobody')} {rng.random()}"

    monkeypatch.setattr(paper, "write_again", write_again)
    monkeypatch.setattr(paper, "style_of", lambda row: {"word": row["response"]})
    (scores,) = tables_of(paper.measure_again(tiny))
    (stranger,), (user,), (faithful,) = scores.values()
    for task in ["all", *paper.TASKS]:
        assert stranger[task] == 0 < 0.5 < user[task] < faithful[task] == 1


KNOWN = {"data": "known", "base": "kept-1000"}


def test_cells_of_regimes(imagined):
    results = regimes.measure_regimes(imagined)
    changes, figures, share_changes, share_figures, bases = tables_of(results)
    assert len([key for key in changes if key[2] == "own best"]) == 8

    def pair(steps, n, **how):
        """[CE, PerCE]: n seeds each, with the rates that are the best after `steps`."""
        return [best(Run(loss, steps=steps, **how), n) for loss in suite.BOTH]

    for form, steps, typical, how in [("new form", 30, 60, {}), ("known form", 120, 240, KNOWN)]:
        ce, perce = ([replace(x, steps=steps) for x in some] for some in pair(typical, 3, **how))
        (row,) = changes[form, str(steps), "own best"]
        assert row["logp_other"] == [value(perce, ce, runs.SOME, "logp_other"), 0, 1]
        assert ce[0].lr != perce[0].lr
        slow = [replace(run, lr=perce[0].lr) for run in ce]
        (same,) = changes[form, str(steps), "PerCE's for both"]
        assert same["logp"] == [value(perce, slow, runs.SOME, "logp"), 0, 1]
        label = form, str(steps), "perce", f"{perce[0].lr:g}"
        assert figures[label][2]["rouge_l"] == value(perce[2], runs.SOME, "rouge_l")
        x = np.mean([value(run, runs.SOME, "logp_other") for run in ce])
        points = results["charts"][0]["panels"]["rouge_l"][form]
        assert [pytest.approx(x), row["rouge_l"]] in points

    ce, perce = pair(60, 5, **KNOWN)
    half = best(Run(ce_first=0.5, steps=60, **KNOWN), 5)
    for share, some in {"0%": perce, "50%": half, "100%": ce}.items():
        cells = share_figures["known form", "60", share]
        assert cells[4]["rouge_l"] == value(some[4], runs.SOME, "rouge_l")
    (row,) = share_changes["known form", "60", "75%"]
    later = [replace(run, ce_first=0.75) for run in half[:3]]
    assert row["logp"] == [value(later, ce[:3], runs.SOME, "logp"), 0, 1]
    assert ("known form", "60", "100%") not in share_changes

    ce, perce = ([replace(x, base="kept-2500") for x in some] for some in pair(Run.steps, 3))
    (row,) = bases["2500"]
    assert row["rouge_l"] == [value(perce, ce, runs.SOME, "rouge_l"), 0, 1]
    assert row["after CE"] == np.mean([value(x, runs.SOME, "personal_accuracy") for x in ce])
    before = Run(steps=0, base="kept-2500", data="known")
    assert row["before, known form"] == value(before, runs.SOME, "personal_accuracy")
    assert list(bases) == ["1000", "2500", "4000"]


def test_cells_of_worlds(imagined):
    changes, figures = tables_of(regimes.measure_worlds(imagined))
    other = Run(data="seed-2", base="seed-2")
    for seed, how in {
        "0": {"base": "kept-1000"},
        "2": {"data": "seed-2", "base": "seed-2"},
    }.items():
        perce, ce = ([replace(x, **how) for x in best(Run(loss))] for loss in ["perce", "ce"])
        assert changes[seed][0]["logp"] == [value(perce, ce, runs.TEST, "logp"), 0, 1]
        assert figures[seed, "ce"][2]["logp"] == value(ce[2], runs.TEST, "logp")
    base = figures["2", "base"][0]["logp"]
    assert base == value(replace(other, steps=0), runs.TEST, "logp")
    each = [changes[seed][0]["logp"][0] for seed in ["0", "1", "2"]]
    assert changes["all"][0]["logp"] == list(statistics.interval(each))


def test_cells_of_identify_and_contrast(imagined, monkeypatch):
    def detect(run, contrast="none"):
        names = ["PIR", detectors.LOSS, detectors.ENTROPY, detectors.WORDS, detectors.EXACT]
        names += ["fixed", "the model", detectors.OPTIMAL]
        keys = ["AUC", "F1", "precision", "logp"]
        found = {name: {key: value(run, contrast, name, key) for key in keys} for name in names}
        return found | {"mistakes": {"missed": 7}, "calibration": [[0, run.seed], [2, 3]]}

    monkeypatch.setattr(detectors, "detect", detect)
    monkeypatch.setattr(detectors, "record_example", lambda run: None)
    results = detectors.measure_identify(imagined)
    scores, _, mistakes, readers = tables_of(results)
    base, perce = Run(steps=0), best(Run())
    assert (
        scores["entropy (EntCE's score), base"][0]["AUC"] == detect(base)[detectors.ENTROPY]["AUC"]
    )
    assert scores["PIR, perce"][2]["F1"] == detect(perce[2])["PIR"]["F1"]
    assert mistakes == {"missed": [{"tokens": 7}]}
    assert readers["ce"][1] == {"logp": detect(best(Run("ce"))[1])["the model"]["logp"]}
    assert results["charts"][0]["panels"][""]["ce"] == [[0, 0, 1, 2], [2, 3, 3, 3]]
    detected, trained = tables_of(detectors.measure_contrast(imagined))
    run = best(Run(contrast="stranger"))[1]
    row = detected["PerCE, trained against a stranger's profile", "no profile"][1]
    assert row["AUC"] == detect(run)["PIR"]["AUC"]
    row = detected["base", "a stranger's profile"][0]
    assert row["precision, PIR > 0.8"] == detect(base, "stranger")["fixed"]["precision"]
    pair = best(Run(contrast="stranger")), best(Run())
    assert trained["difference"][0]["logp"] == [value(*pair, runs.SOME, "logp"), 0, 1]


def test_cells_of_ability_and_dialogue(imagined, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def answer_questions(run):
        share = {"ce": 0.0, "perce": 0.5}[run.loss] if run.steps else 0.25
        return np.arange(300) < 300 * share

    monkeypatch.setattr(general, "answer_questions", answer_questions)
    (scores,) = tables_of(general.measure_ability(imagined))
    for loss, change in {"perce": 0.5, "base": 0.25}.items():
        assert scores[loss][0]["right answers minus CE"][0] == pytest.approx(change)
    assert len(read_examples("out/worlds/general/train.jsonl")) == 9
    base = "1000 steps"  # the folder of the model that read chats and questions
    run = Run("ce", lr=1e-3, seed=1, base=base)
    assert scores["ce"][1]["rouge_l"] == value(run, runs.SOME, "rouge_l")
    assert scores["perce"][1]["right answers"] == 0.5
    assert scores["ce"][0]["right answers"] == 0
    assert "right answers minus CE" not in scores["ce"][0]
    monkeypatch.setattr(general, "judge_chats", lambda run: {"turn 1": value(run)})
    (scores,) = tables_of(general.measure_dialogue(imagined))
    assert scores["perce"][2] == {"turn 1": value(replace(run, loss="perce", seed=2))}


def test_the_judge_counts_personal_words_and_answers_are_scored(monkeypatch):
    def replies(run, some, top_k):
        """All personal words at turn 6, only the first one at turn 10, otherwise nothing."""
        texts = []
        for row in some:
            first = row["response"][slice(*row["personal"][0])]
            texts.append({5: row["response"], 9: first}.get(len(row["profile"]), ""))
        return texts

    monkeypatch.setattr(general, "replies", replies)
    monkeypatch.setattr(general, "N_CHATS", 9)
    scores = general.judge_chats(Run())
    shares = [1 / len(row["personal"]) for row in chats("chats", 9) if len(row["profile"]) == 9]
    assert len(set(shares)) > 1 and scores["turn 10"] == pytest.approx(1 + 4 * np.mean(shares))
    assert (len(scores), scores["turn 1"], scores["turn 6"]) == (11, 1, 5)
    assert 1 < scores["all"] < scores["turn 10"]
    golds = [row["response"] for row in questions("questions", 9)]
    monkeypatch.setattr(general, "N_QUESTIONS", 9)
    answers = [golds[0].upper(), *golds[1:6], *["nobody"] * 3]
    monkeypatch.setattr(general, "replies", lambda *what, **how: answers)
    assert general.answer_questions(Run()).tolist() == [True] * 6 + [False] * 3


# ------------------------------------------------------------------------------------- the command


def test_which_experiments_are_run(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    ran = []
    monkeypatch.setattr(experiments, "prepare", lambda jobs: ran.append(jobs))
    monkeypatch.setattr(experiments, "record", lambda name, suite: ran.append((name, suite.seeds)))
    monkeypatch.setattr(experiments.report, "write_readmes", lambda: ran.append("readme"))
    assert command(experiments.main, "all", "lr", "--seeds", 2, "--jobs", 3).status == 0
    assert ran == [3, *((name, 2) for name in experiments.EXPERIMENTS), "readme"]
    ran.clear()
    assert command(experiments.main, "cost").status == 0 and ran == [("cost", 5), "readme"]
    assert command(experiments.main, "--readme").status == 0 and ran[2:] == ["readme"]
    assert command(experiments.main, "mian").is_refusal("mian", "identify")
    listed = command(experiments.main).out.splitlines()
    assert [line.split()[0] for line in listed[:-1]] == list(experiments.EXPERIMENTS)
    assert len(ran) == 3  # a list of the experiments runs nothing


def test_the_time_of_the_longest_call_is_recorded(tmp_path, monkeypatch):
    def toy(suite):
        """A toy."""
        return {"tables": []}

    monkeypatch.setitem(experiments.EXPERIMENTS, "toy", toy)
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    times = iter([0, 50, 100, 103])  # the second call finds every run finished
    monkeypatch.setattr(experiments.time, "perf_counter", lambda: next(times))
    for jobs in [3, 1]:
        experiments.record("toy", suite.Suite(1, jobs))
    assert (records.read("toy")["seconds"], records.read("toy")["jobs"]) == (50, 3)
