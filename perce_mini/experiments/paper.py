"""The paper's experiments. Each one returns the tables and charts to record.

The docstring of an experiment is its title. Learning rates and thresholds are always chosen on
validation users.
"""

from dataclasses import replace

import numpy as np
from tqdm import tqdm

from data.personas.exact import style_of, write_again
from data.personas.prepare import Rng
from perce_mini.experiments.cost import measure_cost
from perce_mini.experiments.detectors import measure_contrast, measure_identify
from perce_mini.experiments.general import measure_ability, measure_dialogue
from perce_mini.experiments.records import chart, of_seeds, table
from perce_mini.experiments.regimes import measure_regimes, measure_worlds
from perce_mini.experiments.rows import rows_of
from perce_mini.experiments.runs import SOME, TEST, VAL, Run
from perce_mini.experiments.suite import BOTH, COLUMNS, METHODS, PAIRED, differences
from perce_mini.experiments.tabulate import named
from perce_mini.rouge import rouge_l

MORE_RATES = [4e-3, 1.6e-2, 3.2e-2, 6.4e-2]  # from the best one to where training collapses
TASKS = ["abstract", "review", "topic"]
PAPER = "PerCE, floor 0.8, cap 5"
RULES = {  # rules for the weights, in addition to METHODS
    "perce, mean weight for the end token": Run("end"),
    "perce, mean over each response first": Run("per_response"),
    "LongCE": Run("longce"),
    "absolute PIR": Run("absolute"),
    "NextQuill": Run("nextquill"),
    "DFT": Run("dft"),
}


def measure_main(suite):
    """CE, LossCE, EntCE, PerCE and an oracle."""
    return compare(suite, "main", METHODS, ["perce", "lossce", "entce", "oracle"])


def measure_weights(suite):
    """Other rules for the weights."""
    return compare(suite, "weights", METHODS | RULES, ["perce", *RULES], 3)


def compare(suite, desc, methods, compared_with_perce, most_seeds=None):
    """Compare `methods` ({name: run}), each at its best learning rate.

    Returns four tables: the figures, the differences from CE, the differences from PerCE (only for
    the names in `compared_with_perce`), and log P by learning rate.
    """
    best, rates_table = suite.at_best_rates(methods)
    groups = suite.repeat(best, most_seeds)
    rows = suite.run_all({"base": [Run(steps=0)]} | groups, desc, TEST)
    rates = ", ".join(f"{named(name)} {run.lr:g}" for name, run in best.items())
    caption = f"{TEST.n} test examples, {Run.steps} steps of {Run.batch_size} examples."
    caption += f" Learning rates: {rates}."
    by_task = [f"rouge_l, {task}" for task in TASKS]
    columns = ["rouge_l", "rouge_p", "rouge_r", *by_task, *COLUMNS[1:]]
    tables = [table(caption, columns, rows, transposed=True)]
    others = {name: groups[name] for name in compared_with_perce}
    for reference, compared in [("ce", groups), ("perce", others)]:
        changes = {k: [change] for k, change in differences(compared, reference, TEST).items()}
        caption = f"Differences from {named(reference)} on the same examples: {PAIRED}."
        corner = f"minus {named(reference)}"
        tables.append(table(caption, COLUMNS, changes, corner, transposed=True))
    return {"tables": [*tables, rates_table]}


def measure_again(suite):
    """How high can ROUGE-L go?"""
    writers = {  # who writes a second response: (in the user's style?, following every habit?)
        "a stranger": (False, False),
        "the user": (True, False),
        "the user, true to every habit": (True, True),
    }
    rng, columns = Rng("again"), ["all", *TASKS]
    scores = {who: {task: [] for task in columns} for who in writers}
    for row in tqdm(rows_of("test", n=TEST.n), "again", unit="row", dynamic_ncols=True):
        style = style_of(row)
        for who, (same_style, faithful) in writers.items():
            how = style if same_style else {}, rng, faithful
            texts = [write_again(row, *how) for _ in range(20)]
            score = np.mean([rouge_l(text, row["response"]).fmeasure for text in texts])
            for task in ["all", row["task"]]:
                scores[who][task].append(score)
    rows = {who: [{task: float(np.mean(x)) for task, x in s.items()}] for who, s in scores.items()}
    caption = (
        "The generator answers each query 20 times. ROUGE-L F against the test user's own text."
    )
    return {"tables": [table(caption, columns, rows, "who writes again")]}


def measure_lr(suite):
    """Learning rates up to collapse."""
    methods = {(loss, lr): Run(loss, lr) for loss in BOTH for lr in MORE_RATES}
    figures = suite.run_all(suite.repeat(methods, 2), "lr", replace(VAL, texts=True))
    rows = {}
    for metric in ["rouge_l", "personal_accuracy", "logp_other"]:
        for loss in BOTH:
            by_rate = [of_seeds(figures[loss, lr], metric) for lr in MORE_RATES]
            rows[f"{metric}, {loss}"] = [dict(zip(MORE_RATES, seed)) for seed in zip(*by_rate)]
    caption = f"{VAL.n} validation examples. Columns: learning rate."
    lines = {loss: [] for loss in BOTH}
    for (loss, lr), seeds in figures.items():
        lines[loss].append([lr, *of_seeds(seeds, "rouge_l")])
        if min(of_seeds(seeds, "steps")) < Run.steps:
            caption += f" {named(loss)} at {lr:g}: the loss became NaN or infinite."
    by_rate = chart("rouge_l", "learning rate", "rouge_l", {"": lines}, log=True)
    return {"tables": [table(caption, MORE_RATES, rows)], "charts": [by_rate]}


def measure_clip(suite):
    """Floors and caps."""
    best = suite.tuned()
    paper = best["perce"]
    methods = {PAPER: paper}
    methods |= {f"floor {low:g}, cap 5": replace(paper, clip_min=low) for low in [-1.0, 0.2]}
    methods["floor 0.8, cap 2"] = replace(paper, clip_max=2.0)
    groups = suite.repeat(methods | {"CE": best["ce"]}, 3)
    rows, column = suite.run_all(groups, "clip"), "ROUGE-L minus the first row's"
    for name, change in differences(groups, PAPER).items():
        rows[name][0] = rows[name][0] | {column: change["rouge_l"]}
    caption = f"{SOME.n} test examples. CE uses its best learning rate; all others use the best one"
    caption += f" for the paper's floor and cap ({paper.lr:g}). Differences: {PAIRED}."
    return {"tables": [table(caption, [*COLUMNS[:7], column], rows)]}


def measure_transfer(suite):
    """Training on one task, testing on the others."""
    best, groups = suite.tuned(), {("nothing", loss): [Run(steps=0)] for loss in BOTH}
    for task in TASKS:
        # A task has a third of the rows, so it gets a third of the steps.
        for loss, runs in suite.repeat(best, 3, task=task, steps=Run.steps // 3).items():
            groups[task, loss] = runs
    figures = suite.run_all(groups, "transfer")
    columns = [f"{task}, {loss}" for task in TASKS for loss in BOTH]
    tables = []
    for metric in ["rouge_l", "personal_accuracy"]:
        rows = {}
        for trained_on in ["nothing", *TASKS]:
            seeds = zip(*(figures[trained_on, loss] for loss in BOTH))
            rows[trained_on] = [on_each_task(metric, *pair) for pair in seeds]
        caption = f"{metric} on {SOME.n} test examples. Rows: training task ({Run.steps // 3} steps"
        caption += " on a third of the rows). Columns: test task and loss."
        tables.append(table(caption, columns, rows, "trained on"))
    return {"tables": tables}


def on_each_task(metric, ce, perce):
    """The figures of a CE and a PerCE run -> {"TASK, LOSS": metric on this task}."""
    row = {f"{task}, ce": ce[f"{metric}, {task}"] for task in TASKS}
    return row | {f"{task}, perce": perce[f"{metric}, {task}"] for task in TASKS}


ALL = [measure_main, measure_weights, measure_regimes, measure_worlds, measure_again, measure_cost]
ALL += [measure_identify, measure_lr, measure_clip, measure_transfer, measure_contrast]
ALL += [measure_dialogue, measure_ability]
EXPERIMENTS = {measure.__name__.removeprefix("measure_"): measure for measure in ALL}
