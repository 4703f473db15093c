"""Many runs: several at a time, with several seeds, and compared."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from perce_mini.experiments.records import regrouped, table
from perce_mini.experiments.rows import call
from perce_mini.experiments.runs import SOME, VAL, Run, scores_of
from perce_mini.experiments.statistics import paired
from perce_mini.scoring import METRICS

RATES = [5e-4, 1e-3, 2e-3]
BOTH, LOSSES = ["ce", "perce"], ["ce", "lossce", "entce", "perce"]
KINDS = {loss: Run(loss) for loss in LOSSES} | {"perce, cap 2": Run(clip_max=2.0)}
KINDS |= {"perce, weights of mean one": Run("mean_one"), "oracle": Run("oracle")}
COLUMNS = ["rouge_l", "personal_accuracy", "logp_personal", "logp_other", "logp", "pir_f1"]
PAIRED = "paired bootstrap over users and seeds"  # how sure a `difference` is


def finished(run, scored):
    """The figures of a run. Where they are missing, another process trains and scores the run."""
    if not (run.folder / f"{scored.name}.json").exists():
        words = json.dumps(asdict(run)), json.dumps(asdict(scored))
        call("-m", "perce_mini.experiments.runs", *words)
    return scores_of(run, scored)[0]


class Suite:
    """Runs `jobs` runs at a time. Experiments repeat their runs with up to `seeds` seeds."""

    def __init__(self, seeds, jobs):
        self.seeds, self.jobs = seeds, jobs
        if jobs > 1:
            os.environ["OMP_NUM_THREADS"] = "1"  # of the runs' processes: each has one core

    def repeat(self, kinds, most=None):
        """{name: run} -> {name: the run with every seed, or with `most` seeds to save time}."""
        seeds = range(self.seeds)[:most]
        return {name: [replace(run, seed=seed) for seed in seeds] for name, run in kinds.items()}

    def figures(self, groups, desc, scored=SOME):
        """{name: runs} -> {name: the figures of each run}. Trains and scores what is missing."""
        runs = list(dict.fromkeys(run for some in groups.values() for run in some))
        with ThreadPoolExecutor(self.jobs) as pool:
            results = pool.map(partial(finished, scored=scored), runs)
            results = list(tqdm(results, desc, len(runs), unit="run", dynamic_ncols=True))
        by_run = dict(zip(runs, results))
        return {name: [by_run[run] for run in some] for name, some in groups.items()}

    def at_best_rates(self, kinds, rates=RATES, scored=VAL, metric="rouge_l"):
        """Choose a learning rate for each run by a metric of validation users.

        {name: run} -> ({name: the run at its best rate}, the table of the metric by rate).
        """
        tried = {(name, lr): [replace(run, lr=lr)] for name, run in kinds.items() for lr in rates}
        figures = self.figures(tried, "learning rates", scored)
        best, rows = {}, {}
        for name, run in kinds.items():
            rows[name] = regrouped({lr: figures[name, lr] for lr in rates}, metric)
            best[name] = replace(run, lr=max(rates, key=rows[name][0].get))
        caption = f"Validation {METRICS[metric]} by learning rate, seed 0."
        return best, table(caption, rates, rows)


def difference(runs, references, scored=SOME):
    """{metric: [difference, low, high]} of the runs to others with the same seeds."""
    users = [row["user"] for row in scored.rows(runs[0])]
    tables = [[scores_of(run, scored)[1] for run in some] for some in (runs, references)]
    changes = dict(zip(METRICS, paired(users, *tables)))
    return {metric: change for metric, change in changes.items() if not np.isnan(change[0])}


def differences(groups, reference, scored=SOME):
    """{name: the difference to the reference} of all other {name: runs}."""
    others = {name: runs for name, runs in groups.items() if name != reference}
    first = groups[reference]
    return {name: difference(runs, first[: len(runs)], scored) for name, runs in others.items()}
