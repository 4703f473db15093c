"""The paper's experiments: which runs are compared, and which of their figures are recorded.

The docstring of an experiment is its title. Whatever is chosen, a learning rate or a threshold, is
chosen on validation users.
"""

from dataclasses import replace

import numpy as np
from tqdm import tqdm

from perce_mini.experiments.cost import measure_cost
from perce_mini.experiments.detectors import measure_contrast, measure_identify
from perce_mini.experiments.general import measure_ability, measure_dialogue
from perce_mini.experiments.records import chart, of_seeds, regrouped, table, with_more
from perce_mini.experiments.regimes import measure_regimes, measure_worlds
from perce_mini.experiments.rows import rows_of
from perce_mini.experiments.runs import SOME, TEST, VAL, Run
from perce_mini.experiments.suite import BOTH, COLUMNS, KINDS, PAIRED, RATES, differences
from perce_mini.experiments.tabulate import named
from perce_mini.rouge import rouge_l

MORE_RATES = [*RATES, 8e-3, 1.6e-2, 3.2e-2]  # until training collapses
TASKS = ["abstract", "review", "topic"]
PAPER = "PerCE, floor 0.8, cap 5"
EQUAL_TIME = 56  # steps of PerCE that take as long as 60 of CE, see `cost`


def measure_main(suite):
    """CE, LossCE, EntCE, PerCE and an oracle."""
    best, rates_table = suite.at_best_rates(KINDS)
    best[f"perce, {EQUAL_TIME} steps"] = replace(best["perce"], steps=EQUAL_TIME)
    groups = {}
    for name, run in best.items():
        groups |= suite.repeat({name: run}, None if name in BOTH else 5)
    rows = suite.figures({"base": [Run(steps=0)]} | groups, "main", TEST)
    rates = ", ".join(f"{named(name)} {run.lr:g}" for name, run in best.items())
    caption = f"{TEST.n} test examples, {Run.steps} steps of 16. Best learning rates: {rates}."
    columns = ["rouge_l", "rouge_p", "rouge_r", *(f"rouge_l, {t}" for t in TASKS), *COLUMNS[1:]]
    tables = [table(caption, columns, rows, transposed=True)]
    others = {name: groups[name] for name in ["perce", "lossce", "entce"]}
    for reference, compared in [("ce", groups), ("perce", others)]:
        changes = {k: [change] for k, change in differences(compared, reference, TEST).items()}
        caption = f"Differences to {named(reference)} on the same examples: {PAIRED}."
        corner = f"minus {named(reference)}"
        tables.append(table(caption, COLUMNS, changes, corner, transposed=True))
    return {"tables": [*tables, rates_table]}


def measure_again(suite):
    """How high can ROUGE-L go?"""
    from data.personas.exact import style_of, write_again  # importable in the project's folder only
    from data.personas.prepare import Rng

    writers = {  # who writes again: in the user's style? following every habit?
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
    caption = "ROUGE-L F of texts by the generator, 20 a query, against the test users' own texts."
    return {"tables": [table(caption, columns, rows, "who writes again")]}


def measure_lr(suite):
    """Learning rates up to collapse."""
    kinds = {(loss, lr): Run(loss, lr) for loss in BOTH for lr in MORE_RATES}
    figures = suite.figures(suite.repeat(kinds, 3), "lr", VAL)
    rows = {}
    for metric in ["rouge_l", "personal_accuracy", "logp_other"]:
        for loss in BOTH:
            by_rate = {lr: figures[loss, lr] for lr in MORE_RATES}
            rows[f"{metric}, {loss}"] = regrouped(by_rate, metric)
    caption, lines = "Validation users.", {loss: [] for loss in BOTH}
    for (loss, lr), seeds in figures.items():
        lines[loss].append([lr, *of_seeds(seeds, "rouge_l")])
        if min(of_seeds(seeds, "steps")) < Run.steps:
            caption += f" {named(loss)} at {lr:g}: the loss became NaN or infinite."
    drawn = chart("rouge_l", "learning rate", "rouge_l", {"": lines}, log=True)
    return {"tables": [table(caption, MORE_RATES, rows)], "charts": [drawn]}


def measure_clip(suite):
    """Floors and caps."""
    kinds = {PAPER: Run()}
    kinds |= {f"floor {low:g}, cap 5": Run(clip_min=low) for low in [-1.0, 0.2, 0.5]}
    kinds |= {f"floor 0.8, cap {high:g}": Run(clip_max=high) for high in [2.0, 8.0]}
    kinds |= {"LongCE: min(P/P, 5)": Run("longce"), "CE": Run("ce")}
    groups = suite.repeat(kinds, 3)
    rows, column = suite.figures(groups, "clip"), "ROUGE-L minus the first row's"
    for name, change in differences(groups, PAPER).items():
        rows[name] = with_more(rows[name], {column: change["rouge_l"]})
    caption = f"{SOME.n} test examples, all at the default learning rate. Differences: {PAIRED}."
    return {"tables": [table(caption, [*COLUMNS[:5], column], rows)]}


def measure_transfer(suite):
    """From one task to the others."""
    kinds = {(task, loss): Run(loss, task=task) for task in TASKS for loss in BOTH}
    groups = {("nothing", loss): [Run(steps=0)] for loss in BOTH} | suite.repeat(kinds, 3)
    figures = suite.figures(groups, "transfer")
    tables = []
    for metric in ["rouge_l", "personal_accuracy"]:
        rows = {}
        for trained_on in ["nothing", *TASKS]:
            seeds = zip(*(figures[trained_on, loss] for loss in BOTH))
            rows[trained_on] = [on_each_task(metric, *pair) for pair in seeds]
        caption = f"{metric}, test users; one row per training task."
        tables.append(table(caption, list(rows["nothing"][0]), rows, "trained on"))
    return {"tables": tables}


def on_each_task(metric, ce, perce):
    """The figures of a CE and a PerCE run -> {"TASK, LOSS": metric on this task}."""
    columns = {}
    for task in TASKS:
        columns[f"{task}, ce"] = ce[f"{metric}, {task}"]
        columns[f"{task}, perce"] = perce[f"{metric}, {task}"]
    return columns


ALL = [measure_main, measure_worlds, measure_regimes, measure_again, measure_cost, measure_identify]
ALL += [measure_lr, measure_clip, measure_transfer, measure_contrast, measure_dialogue]
ALL += [measure_ability]
EXPERIMENTS = {measure.__name__.removeprefix("measure_"): measure for measure in ALL}
