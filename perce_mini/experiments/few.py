"""Few examples, several passes, text that nobody can foresee: where PerCE should help the most.

In the default world the text between the personal tokens is almost fully predictable. Here every response has four
ordinary sentences more (data/personas/words.py). From few texts CE learns their words by heart, which lowers its loss
and is worth nothing for new users; PerCE gives them the weight of the floor.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from perce_mini.experiments.records import SHOWN, table
from perce_mini.experiments.rows import SCORED
from perce_mini.experiments.suite import call
from perce_mini.experiments.tabulate import interval

DATA, RUNS, BOTH = Path("out/ordinary"), Path("out/few"), ["ce", "perce"]
RATES = [5e-4, 1e-3, 2e-3, 4e-3]
EXAMPLES, STEPS, BASE_STEPS, SENTENCES = 250, 120, 1000, 4
SAME = ["--data", DATA, "--base-steps", BASE_STEPS, "--block-size", 768, "--eval-examples", 0]


def trained(loss, lr, seed):
    """The folder of a run."""
    folder = RUNS / f"{loss}-{lr:g}-{seed}"
    how = ["--examples", EXAMPLES, "--steps", STEPS, "--loss", loss, "--lr", lr, "--seed", seed, "--out", folder]
    call("train.py", *SAME, *how, *(["--resume"] if (folder / "checkpoint.pt").exists() else []))
    return folder


def scores(folder, split, max_new_tokens):
    """{metric: value} of a run on users of a split."""
    file = folder / f"{split}.json"
    if not file.exists():
        how = ["--examples", SCORED, "--max-new-tokens", max_new_tokens, "--samples", 0, "--json", file]
        call("eval.py", folder, "--data", DATA / f"{split}.jsonl", *how)
    return json.loads(file.read_text(encoding="utf-8"))["runs"][str(folder)]["all"]


def log_likelihood(run):
    return scores(trained(*run), "val", 0)["logp"]


def tested(run):
    return scores(trained(*run), "test", 160)


def measure_few(suite):
    """Few examples, and text that nobody can foresee."""
    if not (DATA / "test.jsonl").exists():
        call("data/personas/prepare.py", "--ordinary", SENTENCES, "--out", DATA)
    call("train.py", *SAME, "--loss", "ce", "--steps", 1, "--out", RUNS / "first", "--overwrite")  # the base model
    with ThreadPoolExecutor(suite.jobs) as pool:
        tried = [(loss, lr, 0) for loss in BOTH for lr in RATES]
        found = dict(zip(tried, pool.map(log_likelihood, tried)))
        best = {loss: max(RATES, key=lambda lr, loss=loss: found[loss, lr, 0]) for loss in BOTH}
        runs = [(loss, best[loss], seed) for loss in BOTH for seed in range(suite.seeds)]
        results = dict(zip(runs, pool.map(tested, runs)))
    rows = {loss: [results[loss, best[loss], seed] for seed in range(suite.seeds)] for loss in BOTH}
    pairs = list(zip(rows["perce"], rows["ce"]))
    rows["PerCE − CE"] = [{m: list(interval([a[m] - b[m] for a, b in pairs])) for m in SHOWN}]
    passes = 16 * STEPS / EXAMPLES
    caption = (
        f"{EXAMPLES} training examples, {STEPS} steps of 16 ({passes:.1f} passes), from a base model of {BASE_STEPS}"
        f" steps; {SCORED} test examples. Learning rates by validation log-likelihood: CE {best['ce']:g}, PerCE"
        f" {best['perce']:g}. Differences: 95 % interval over the seeds' paired differences."
    )
    rates = {loss: [{str(lr): found[loss, lr, 0] for lr in RATES}] for loss in BOTH}
    caption_of_rates = "Validation log-likelihood by learning rate, seed 0."
    return {"tables": [table(caption, SHOWN, rows), table(caption_of_rates, map(str, RATES), rates)]}
