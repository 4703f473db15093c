"""The paper's experiments: which runs are compared, and which of their figures are shown, as tables and charts.

The docstring of an experiment is its title. Whatever is chosen (a learning rate, a threshold) is chosen on validation
users.
"""

from collections import ChainMap
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from perce_mini.experiments import bench
from perce_mini.experiments.detectors import measure_contrast, measure_identify
from perce_mini.experiments.general import measure_ability, measure_dialogue
from perce_mini.experiments.gpu import measure_gpu
from perce_mini.experiments.records import FIRST, SHOWN, chart, of_seeds, regrouped, table, with_more
from perce_mini.experiments.regimes import BOTH, KINDS, measure_regimes, measure_worlds
from perce_mini.experiments.rows import rows_of
from perce_mini.experiments.runs import SOME, TEST, VAL, Run
from perce_mini.experiments.suite import PAIRED, RATES, base_row, versus
from perce_mini.experiments.tabulate import named
from perce_mini.rouge import rouge_l

MORE_RATES, TASKS = [*RATES, 8e-3, 1.6e-2, 3.2e-2], ["abstract", "review", "topic"]  # up to collapse
PAPER = "PerCE, floor 0.8, cap 5"
EQUAL_TIME = 56  # steps of PerCE in the time of CE's 60, see `cost`


def measure_main(suite):
    """CE, LossCE, EntCE, PerCE and an oracle."""
    best, rates_tried = suite.at_best_rates(KINDS)
    best[f"perce, {EQUAL_TIME} steps"] = replace(best["perce"], steps=EQUAL_TIME)
    groups = {name: suite.repeat({name: run}, None if name in BOTH else 5)[name] for name, run in best.items()}
    rates = ", ".join(f"{named(name)} {run.lr:g}" for name, run in best.items())
    rows = {"base": base_row(Run(), TEST)} | suite.figures(groups, "main", TEST)
    columns = [SHOWN[0], "rouge_p", "rouge_r", *(f"rouge_l, {task}" for task in TASKS), *SHOWN[1:]]
    caption = f"{TEST.n} test examples, {Run.steps} steps of 16 examples. Best learning rates: {rates}."
    scores = table(caption, columns, rows, transposed=True)
    against = [minus(groups, "ce", [*groups]), minus(groups, "perce", ["lossce", "entce"])]
    return {"tables": [scores, *against, rates_tried]}


def minus(groups, reference, names):
    """The table of the differences to one of {name: runs}."""
    changes = versus({name: groups[name] for name in [reference, *names]}, reference, TEST)
    caption = f"Differences to {named(reference)} on the same examples: {PAIRED}."
    return table(caption, SHOWN, changes, f"minus {named(reference)}", transposed=True)


def measure_again(suite):
    """How high can ROUGE-L go?"""
    from data.personas.exact import style_of, write_again  # importable in the project's folder only
    from data.personas.prepare import Rng

    writers = {"a stranger": (False, False), "the user": (True, False), "the user, true to every habit": (True, True)}
    rng, scores = Rng("again"), {who: {task: [] for task in ["all", *TASKS]} for who in writers}
    for row in tqdm(rows_of("test", n=TEST.n), desc="again", unit="row", dynamic_ncols=True):
        style = style_of(row)
        for who, (same_style, faithful) in writers.items():
            texts = [write_again(row, style if same_style else {}, rng, faithful) for _ in range(20)]
            found = np.mean([rouge_l(text, row["response"]).fmeasure for text in texts])
            for task in ["all", row["task"]]:
                scores[who][task].append(found)
    rows = {who: [{task: float(np.mean(found)) for task, found in by.items()}] for who, by in scores.items()}
    caption = "ROUGE-L F against the test users' own texts; 20 texts by the generator for each query."
    return {"tables": [table(caption, ["all", *TASKS], rows, "who writes again")]}


def measure_cost(suite):
    """What it costs."""
    figures, rows = bench.measure(), {}
    for name, words in bench.LABELS.items():
        rows[words] = [{n: figures[key] for n in bench.BATCHES if (key := bench.key_of(name, n)) in figures}]
    caption = f"Examples of {bench.PERSONA} persona, {bench.QUERY} query and {bench.RESPONSE} response tokens."
    return {"figures": figures, "tables": [table(caption, bench.BATCHES, rows, "vocabulary", digits=2)]}


def measure_lr(suite):
    """Learning rates up to collapse."""
    groups = suite.repeat({(loss, lr): Run(loss, lr) for loss in BOTH for lr in MORE_RATES}, 3)
    found = suite.figures(groups, "lr", VAL)
    by_loss = {loss: {lr: found[loss, lr] for lr in MORE_RATES} for loss in BOTH}
    metrics = [*FIRST[:2], "logp_other"]
    rows = {f"{metric}, {loss}": regrouped(by_loss[loss], metric) for metric in metrics for loss in BOTH}
    broken = [f"{loss} at {lr:g}" for (loss, lr), row in found.items() if min(of_seeds(row, "steps")) < Run.steps]
    caption = "Validation users." + (f" The loss was no number any more: {'; '.join(broken)}." if broken else "")
    lines = {loss: [[lr, *of_seeds(found[loss, lr], "rouge_l")] for lr in MORE_RATES] for loss in BOTH}
    tables = [table(caption, MORE_RATES, rows)]
    return {"tables": tables, "charts": [chart("rouge_l", "learning rate", "rouge_l", {"": lines}, log=True)]}


def measure_clip(suite):
    """Floors and caps."""
    kinds = {PAPER: Run()} | {f"floor {low:g}, cap 5": Run(clip_min=low) for low in [-1.0, 0.2, 0.5]}
    kinds |= {f"floor 0.8, cap {high:g}": Run(clip_max=high) for high in [2.0, 8.0]}
    kinds |= {"LongCE: min(P/P, 5)": Run(weights="longce"), "CE": Run("ce")}
    groups = suite.repeat(kinds, 3)
    found, more = suite.figures(groups, "clip"), "ROUGE-L minus the first row's"
    rows = {PAPER: found.pop(PAPER)}
    for name, (change,) in versus(groups, PAPER).items():
        rows[name] = with_more(found[name], {more: change["rouge_l"]})
    caption = f"{SOME.n} test examples, all at the default rate. Differences: {PAIRED}."
    return {"tables": [table(caption, [*FIRST, more], rows)]}


def measure_transfer(suite):
    """From one task to the others."""
    groups = suite.repeat({(task, loss): Run(loss, task=task) for task in TASKS for loss in BOTH}, 3)
    found, tables = suite.figures(groups, "transfer"), []
    columns = [f"{on}, {loss}" for on in TASKS for loss in BOTH]
    for metric in FIRST[:2]:
        rows = {"nothing": on_each_task(dict.fromkeys(BOTH, base_row(Run())), metric)}
        rows |= {task: on_each_task({loss: found[task, loss] for loss in BOTH}, metric) for task in TASKS}
        tables.append(table(f"{metric}, test users; one row per training task.", columns, rows, "trained on"))
    return {"tables": tables}


def on_each_task(by_loss, metric):
    """{loss: row} -> the row of a metric on each task."""
    parts = [regrouped({f"{on}, {loss}": row for loss, row in by_loss.items()}, f"{metric}, {on}") for on in TASKS]
    return [ChainMap(*seed) for seed in zip(*parts)]


TABLE = [measure_main, measure_worlds, measure_regimes, measure_again, measure_cost, measure_identify, measure_lr]
TABLE += [measure_clip, measure_transfer, measure_contrast, measure_dialogue, measure_ability, measure_gpu]
EXPERIMENTS = {measure.__name__.removeprefix("measure_"): measure for measure in TABLE}
