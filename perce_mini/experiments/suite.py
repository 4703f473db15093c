"""Run many runs in parallel and with several seeds, and compare them."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from perce_mini.experiments.records import table
from perce_mini.experiments.rows import run_python
from perce_mini.experiments.runs import SOME, VAL, Run, scores_of
from perce_mini.experiments.statistics import paired
from perce_mini.scoring import METRICS

RATES = [2e-3, 4e-3]  # the learning rates to try first
BOTH, LOSSES = ["ce", "perce"], ["ce", "lossce", "entce", "perce"]
METHODS = {loss: Run(loss) for loss in LOSSES}
METHODS |= {"ce-then-perce": Run(ce_first=0.5), "oracle": Run("oracle")}
COLUMNS = ["rouge_l", "meteor_exact", "length", "personal_accuracy"]
COLUMNS += ["logp_personal", "logp_other", "logp", "pir_f1"]
PAIRED = "paired bootstrap over users and seeds"  # for captions: where intervals come from


def ensure_scored(run, scored):
    """Return a run's scores. If there are none yet, train and score the run in a new process."""
    if not (run.folder / f"{scored.name}.json").exists():
        words = json.dumps(asdict(run)), json.dumps(asdict(scored))
        run_python("-m", "perce_mini.experiments.runs", *words)
    return scores_of(run, scored)[0]


class Suite:
    """Executes `jobs` runs at a time. Experiments use up to `seeds` seeds."""

    def __init__(self, seeds, jobs):
        self.seeds, self.jobs = seeds, jobs
        if jobs > 1:
            os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the processes: one core per run

    def repeat(self, methods, most=None, **changes):
        """{name: run} -> {name: [the run with each seed]}.

        most: use only that many seeds, to save time. changes: fields of Run to replace.
        """
        seeds = range(self.seeds)[:most]
        methods = {name: replace(run, **changes) for name, run in methods.items()}
        return {name: [replace(run, seed=seed) for seed in seeds] for name, run in methods.items()}

    def run_all(self, groups, desc, scored=SOME):
        """{name: runs} -> {name: the figures of each run}. Trains and scores what is missing."""
        runs = list(dict.fromkeys(run for some in groups.values() for run in some))
        with ThreadPoolExecutor(self.jobs) as pool:
            results = pool.map(partial(ensure_scored, scored=scored), runs)
            results = list(tqdm(results, desc, len(runs), unit="run", dynamic_ncols=True))
        by_run = dict(zip(runs, results))
        return {name: [by_run[run] for run in some] for name, some in groups.items()}

    def at_best_rates(self, methods, rates=RATES, scored=VAL):
        """Choose the learning rate of every run by log P of the validation users' texts.

        Returns {name: the run at its best rate} and the table of log P by rate. While the best rate
        of a run is the lowest or highest one tried, half or twice that rate is tried too. (ROUGE-L
        is not used: it differs less between neighbouring rates than between seeds.)
        """
        scores = {name: {} for name in methods}  # {name: {learning rate: log P}}
        best, missing = {}, {(name, lr) for name in methods for lr in rates}
        while missing:
            tried = {(name, lr): [replace(methods[name], lr=lr)] for name, lr in sorted(missing)}
            for (name, lr), (figures,) in self.run_all(tried, "learning rates", scored).items():
                scores[name][lr] = figures["logp"]
            missing = set()
            for name, by_rate in scores.items():
                lr = max(by_rate, key=by_rate.get)
                best[name] = replace(methods[name], lr=lr)
                missing |= {(name, x) for x in (lr / 2, lr * 2) if x not in by_rate}
        columns = sorted(set().union(*scores.values()))
        caption = "Validation users: log P with persona by learning rate, nats/token, seed 0."
        return best, table(caption, columns, {name: [x] for name, x in scores.items()})

    def tuned(self, **fields):
        """{"ce": run, "perce": run}: two runs with these fields, each at its best learning rate."""
        return self.at_best_rates({loss: Run(loss, **fields) for loss in BOTH})[0]


def difference(runs, references, scored=SOME):
    """Compare runs with reference runs of the same seeds: {metric: [difference, low, high]}."""
    users = [row["user"] for row in scored.rows(runs[0])]
    tables = [[scores_of(run, scored)[1] for run in some] for some in (runs, references)]
    changes = dict(zip(METRICS, paired(users, *tables)))
    return {metric: change for metric, change in changes.items() if not np.isnan(change[0])}


def differences(groups, reference, scored=SOME):
    """Compare all other groups of runs with the group `reference`: {name: its `difference`}."""
    others = {name: runs for name, runs in groups.items() if name != reference}
    first = groups[reference]
    return {name: difference(runs, first[: len(runs)], scored) for name, runs in others.items()}
