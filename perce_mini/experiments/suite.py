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

from perce_mini import base, scoring
from perce_mini.device import pick_device
from perce_mini.errors import UserError
from perce_mini.experiments.records import regrouped, table
from perce_mini.experiments.rows import DATA, RUNS, WORLDS, solve_rows
from perce_mini.experiments.runs import SOME, VAL, score, scores_of

RATES = [5e-4, 1e-3, 2e-3]
PAIRED = "paired bootstrap over users and seeds"  # how sure a `difference` is


def call(*command):
    """Run one of the project's commands on one core; its output is shown only when it fails."""
    words, one_core = list(map(str, command)), os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=one_core)
    if done.returncode:
        raise UserError(f"{' '.join(words)} failed: {(done.stderr.strip().splitlines() or [''])[-1]}")


def prepare(jobs):
    """What all runs need: the default data, and the exact PIR of some of their characters."""
    if not (DATA / "base.jsonl").exists():
        call("data/personas/prepare.py")
    for split in ["val", "test", "train"]:
        if not (RUNS / f"{split}.jsonl").exists():
            solve_rows(split, jobs)


def make_world(name, *flags):
    """Write the rows of out/worlds/NAME, once. flags: what prepare.py is told. Returns how a run there differs."""
    if not (WORLDS / name / "test.jsonl").exists():
        call("data/personas/prepare.py", *flags, "--out", WORLDS / name)
    return {"world": name}


def make_base(folder, rows, steps, seed=0, **shape):
    """The folder of a base model, trained once on what rows() returns, with base.SHAPE but for what `shape` names."""
    if not base.is_finished(folder, steps):
        settings = replace(base.SETTINGS, steps=steps, seed=seed)
        base.make(settings, base.SHAPE | shape, rows(), folder, pick_device("auto"))
    return str(folder)


def finished(run, scored):
    """The figures of a run; a process of its own trains and scores it where it has to."""
    if not (run.folder / f"{scored.name}.json").exists():
        call("-m", "perce_mini.experiments.runs", json.dumps(asdict(run)), json.dumps(asdict(scored)))
    return scores_of(run.folder, scored)[0]


class Suite:
    """Runs many runs, `jobs` at a time; an experiment repeats its runs with as many as `seeds` seeds."""

    def __init__(self, seeds, jobs):
        self.seeds, self.jobs = seeds, jobs

    def repeat(self, kinds, most=None):
        """{name: run} -> {name: the run with every seed}, or with so many seeds at most (to save time)."""
        seeds = range(self.seeds)[:most]
        return {name: [replace(run, seed=seed) for seed in seeds] for name, run in kinds.items()}

    def at_best_rates(self, kinds):
        """{name: run} -> the same at the rate with the best validation ROUGE-L; and the table of these."""
        groups = {(name, lr): [replace(run, lr=lr)] for name, run in kinds.items() for lr in RATES}
        found = self.figures(groups, "rates", VAL)
        rows = {name: regrouped({lr: found[name, lr] for lr in RATES}, "rouge_l") for name in kinds}
        best = {name: replace(run, lr=max(RATES, key=rows[name][0].get)) for name, run in kinds.items()}
        return best, table("Validation ROUGE-L by learning rate, seed 0.", RATES, rows)

    def figures(self, groups, desc, scored=SOME):
        """{name: runs} -> {name: the figures of each}."""
        runs = list(dict.fromkeys(run for some in groups.values() for run in some))
        with ThreadPoolExecutor(self.jobs) as pool:
            results = pool.map(partial(finished, scored=scored), runs)
            found = dict(zip(runs, tqdm(results, desc, len(runs), unit="run", dynamic_ncols=True)))
        return {name: [found[run] for run in some] for name, some in groups.items()}


def base_row(run, scored=SOME):
    """The figures of the model that a run starts from, as a row."""
    out = RUNS / Path(run.base).name
    if not (out / f"{scored.name}.json").exists():
        score(Path(run.base), scored, run, out)
    return [scores_of(out, scored)[0]]


def difference(runs, reference, scored=SOME):
    """[{metric: (difference, low, high)}]."""
    users = [row["user"] for row in scored.rows(runs[0])]
    tables = [[scores_of(run.folder, scored)[1] for run in some] for some in (runs, reference)]
    return [scoring.paired(users, *tables)]


def versus(groups, reference, scored=SOME):
    """The difference of every other group to one of {name: runs}, paired by seed."""
    others = {name: runs for name, runs in groups.items() if name != reference}
    return {name: difference(runs, groups[reference][: len(runs)], scored) for name, runs in others.items()}
