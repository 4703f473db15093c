"""Many runs at a time, and what they need before."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from perce_mini import scoring
from perce_mini.errors import UserError
from perce_mini.experiments.records import regrouped, table
from perce_mini.experiments.rows import DATA, RUNS, make_rows, rows_of
from perce_mini.experiments.runs import score, scores_of

SHORT = {"lr": 1e-3, "steps": 60}  # what else a model knew is mostly still there after such a training
RATES = [1e-3, 2e-3, 4e-3, 8e-3]
# These make a base model, and a run of one step that is of no use.
ONE_STEP = ["--loss", "ce", "--steps", 1, "--out", RUNS / "first", "--overwrite", "--eval-examples", 0]
STARTS = {  # other base models: the command that writes what they read, and for how many steps they read it
    "strong": (["data.personas.prepare", "--same-author", 0.6], 400),
    "general": (["data.personas.general"], 2400),
}


def call(*command):
    """Run one of the project's commands on one core; its output is shown only when it fails."""
    words, one_core = list(map(str, command)), os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=one_core)
    if done.returncode:
        raise UserError(f"{' '.join(words)} failed: {(done.stderr.strip().splitlines() or [''])[-1]}")


def prepare(jobs):
    """What all runs need: the default data, the base model and the exact PIR of every character."""
    if not (Path("out/base/checkpoint.pt").exists() and (DATA / "test.jsonl").exists()):
        call("train.py", *ONE_STEP)
    for split in ["val", "test", "train"]:
        if not (RUNS / f"{split}.jsonl").exists():
            make_rows(split, jobs)


def make_start(name):
    """Train a base model of STARTS into out/NAME, once; its data stay in out/NAME-data."""
    command, steps = STARTS[name]
    if not Path(f"out/{name}/checkpoint.pt").exists():
        call("-m", *command, "--out", f"out/{name}-data")
        call("train.py", "--data", f"out/{name}-data", "--base-steps", steps, *ONE_STEP)
        os.replace(f"out/base-{name}-data", f"out/{name}")


def finished(run, split):
    """The figures of a run on a split; a process of its own trains and scores it where it has to."""
    if not (run.folder / f"{split}.json").exists():
        call("-m", "perce_mini.experiments.runs", json.dumps(asdict(run)), split)
    return scores_of(run.folder, split)[0]


class Suite:
    """Runs many runs, `jobs` at a time; an experiment repeats its runs with as many as `seeds` seeds."""

    def __init__(self, seeds, jobs):
        self.seeds, self.jobs = seeds, jobs

    def repeat(self, kinds, most=None):
        """{name: run} -> {name: the run with every seed}, or with so many seeds at most (to save time)."""
        seeds = range(min(self.seeds, most or self.seeds))
        return {name: [replace(run, seed=seed) for seed in seeds] for name, run in kinds.items()}

    def at_best_rates(self, kinds, most=None):
        """The same, each run at the rate of RATES with the best validation ROUGE-L; and the table of these scores."""
        groups = {(name, lr): [replace(run, lr=lr)] for name, run in kinds.items() for lr in RATES}
        found = self.figures(groups, "rates", "val")
        rows = {name: regrouped({lr: found[name, lr] for lr in RATES}, "rouge_l") for name in kinds}
        best = {name: replace(run, lr=max(RATES, key=rows[name][0].get)) for name, run in kinds.items()}
        return self.repeat(best, most), table("Validation ROUGE-L by learning rate.", RATES, rows)

    def figures(self, groups, desc, split="test"):
        """{name: runs} -> {name: the figures of each}."""
        runs = list(dict.fromkeys(run for some in groups.values() for run in some))
        with ThreadPoolExecutor(self.jobs) as pool:
            results = pool.map(partial(finished, split=split), runs)
            found = dict(zip(runs, tqdm(results, desc, len(runs), unit="run", dynamic_ncols=True)))
        return {name: [found[run] for run in some] for name, some in groups.items()}


def base_row(name="base"):
    """The figures of a model that runs start from, on test users, as a row."""
    if not (RUNS / name / "test.json").exists():
        score(Path("out") / name, "test", out=RUNS / name)
    return [scores_of(RUNS / name, "test")[0]]


def difference(runs, reference, split="test"):
    """[{metric: (difference, low, high)}]: paired bootstrap over users, every example averaged over the seeds."""
    users = [row["user"] for row in rows_of(split)]
    tables = [sum(scores_of(run.folder, split)[1] for run in some) for some in (runs, reference)]
    return [scoring.paired(users, *tables)]


def versus(groups, reference):
    """The difference of every other group to one of {name: runs}."""
    return {name: difference(runs, groups[reference]) for name, runs in groups.items() if name != reference}
