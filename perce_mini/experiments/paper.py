"""The paper's experiments: which runs are compared, and which of their figures are shown, as tables and charts.

The docstring of an experiment is its title. Whatever is chosen (a learning rate, a threshold) is chosen on validation
users.
"""

from collections import ChainMap
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from perce_mini.device import pick_device
from perce_mini.experiments import bench, records
from perce_mini.experiments.detectors import measure_contrast, measure_identify
from perce_mini.experiments.few import measure_few
from perce_mini.experiments.general import measure_ability, measure_dialogue
from perce_mini.experiments.others import cost_table
from perce_mini.experiments.records import FIRST, RESULTS, SHOWN, chart, line, of_seeds, regrouped, table, with_more
from perce_mini.experiments.rows import SCORED, rows_of
from perce_mini.experiments.runs import Run
from perce_mini.experiments.suite import RATES, SHORT, base_row, difference, make_start, versus
from perce_mini.experiments.tabulate import named
from perce_mini.percontrast import LOSSES
from perce_mini.rouge import rouge_l

MORE_RATES = [5e-4, *RATES, 1.6e-2, 3.2e-2, 6.4e-2]  # up to collapse
FLOORS, CAPS = [-1.0, 0.0, 0.2, 0.5, 0.8, 1.0], [2.0, 5.0, 8.0]
EXAMPLES = [125, 500, 2000, 0]  # training examples, 0 for all
TASKS, BOTH = ["abstract", "review", "topic"], ["ce", "perce"]
KINDS = {loss: Run(loss) for loss in LOSSES} | {"oracle": Run(weights="exact")}
PAPER = "PerCE, m 0.8, M 5"
PAIRED = "Differences have paired bootstrap intervals over users, which know nothing of the spread over seeds."


def measure_main(suite):
    """CE, LossCE, EntCE, PerCE and an oracle."""
    groups, _ = suite.at_best_rates(KINDS)
    rates = ", ".join(f"{named(name)} {runs[0].lr:g}" for name, runs in groups.items())
    cost = (records.read("cost") if (RESULTS / "cost.json").exists() else measure_cost(suite))["figures"]
    steps = round(Run.steps / cost["perce_over_ce"])
    groups["perce, CE's time"] = [replace(run, steps=steps) for run in groups["perce"]]
    rows = {"base": base_row()} | suite.figures(groups, "main")
    columns = [SHOWN[0], *(f"rouge_l, {task}" for task in TASKS), *SHOWN[1:]]
    caption = f"{SCORED} test examples, {Run.steps} steps of 16 examples. Best learning rates: {rates}."
    scores = table(caption, columns, rows, transposed=True)
    caption = "Differences to CE: paired bootstrap over users, every example averaged over the seeds."
    minus = table(caption, SHOWN, versus(groups, "ce"), "minus CE, the same examples", transposed=True)
    return {"tables": [scores, minus]}


def measure_again(suite):
    """How high can ROUGE-L go?"""
    from data.personas.exact import style_of, write_again  # importable in the project's folder only
    from data.personas.prepare import Rng

    writers = {"a stranger": (False, False), "the user": (True, False), "the user, true to every habit": (True, True)}
    rng, scores = Rng("again"), {who: {task: [] for task in ["all", *TASKS]} for who in writers}
    for row in tqdm(rows_of("test"), desc="again", unit="row", dynamic_ncols=True):
        style = style_of(row)
        for who, (same_style, faithful) in writers.items():
            texts = write_again(row, style if same_style else {}, rng, 20, faithful)
            found = np.mean([rouge_l(text, row["response"]).fmeasure for text in texts])
            for task in ["all", row["task"]]:
                scores[who][task].append(found)
    rows = {who: [{task: float(np.mean(found)) for task, found in by.items()}] for who, by in scores.items()}
    caption = "ROUGE-L F against the test users' own texts; 20 texts by the generator for each query."
    return {"tables": [table(caption, ["all", *TASKS], rows, "who writes again")]}


def measure_cost(suite):
    """What it costs."""
    figures = bench.measure(pick_device("auto"))
    shape = "16 examples of 300 persona, 12 query and 65 response tokens"
    return {"figures": figures, "tables": [cost_table("Ratios of medians within one run.", figures, shape)]}


def measure_rates(suite):
    """Each loss at its own learning rate."""
    return {"tables": [suite.at_best_rates(KINDS)[1]]}


def measure_lr(suite):
    """Learning rates up to collapse."""
    groups = suite.repeat({(loss, lr): Run(loss, lr) for loss in BOTH for lr in MORE_RATES}, 2)
    found = suite.figures(groups, "lr", "val")
    by_loss = {loss: {lr: found[loss, lr] for lr in MORE_RATES} for loss in BOTH}
    metrics, norm = [*FIRST[:2], "logp_other"], "mean gradient norm"
    rows = {f"{metric}, {loss}": regrouped(by_loss[loss], metric) for metric in metrics for loss in BOTH}
    norms = {f"{norm}, {loss}": regrouped(by_loss[loss], norm) for loss in BOTH}
    broken = [f"{loss} at {lr:g}" for (loss, lr), row in found.items() if min(of_seeds(row, "steps")) < Run.steps]
    caption = "Validation users." + (f" The loss was no number any more: {'; '.join(broken)}." if broken else "")
    tables = [table(caption, MORE_RATES, rows), table("The same runs.", MORE_RATES, norms, digits=2)]
    lines = {loss: line(by_rate, "rouge_l") for loss, by_rate in by_loss.items()}
    return {"tables": tables, "charts": [chart("rouge_l", "learning rate", "rouge_l", {"": lines}, log=True)]}


def measure_clip(suite):
    """Floors and caps."""
    kinds = {f"m {low:g}, M {high:g}": Run(clip_min=low, clip_max=high) for low in FLOORS for high in CAPS}
    others = {PAPER: Run(), "LongCE: min(P/P, 5)": Run(weights="longce")}
    others |= {"PerCE, weights of mean one": Run(weights="mean_one"), "CE": Run("ce")}
    groups = suite.repeat(kinds | others, 2)
    found, more = suite.figures(groups, "clip"), "ROUGE-L minus the first row's"
    minus = {name: change["rouge_l"] for name, (change,) in versus(groups, PAPER).items()}
    tables = [floors_and_caps(found, metric) for metric in [*FIRST[:2], "logp_other"]]
    rows = {name: with_more(found[name], {more: minus[name]} if name != PAPER else {}) for name in others}
    tables.append(table(f"Other weights. {PAIRED}", [*FIRST, "mean weight of the last step", more], rows))
    # The low cap was noticed on test users; so it is set against the others on validation users, with more seeds.
    low = suite.repeat({"M 2": Run(clip_max=2.0), "M 5": Run(), "CE": Run("ce")})
    rows = suite.figures(low, "clip, low cap", "val")
    rows |= {f"M 2 − {name}": difference(low["M 2"], low[name], "val") for name in ["M 5", "CE"]}
    tables.append(table(f"The low cap, noticed above, on validation users: m 0.8. {PAIRED}", FIRST, rows))
    return {"tables": tables, "rouge_l minus the paper's": minus}


def floors_and_caps(found, metric):
    """One row per floor, one column per cap, and averages; those of the last row leave out what breaks the model."""
    rows, caps = {}, [f"M {high:g}" for high in CAPS]
    for low in FLOORS:
        row = regrouped({f"M {high:g}": found[f"m {low:g}, M {high:g}"] for high in CAPS}, metric)
        rows[f"m {low:g}"] = with_more(row, {"all M": average(row, caps)})
    sound = [one for low in FLOORS if low >= 0 for one in rows[f"m {low:g}"]]
    rows["m 0 and above"] = [{cap: average(sound, [cap]) for cap in caps}]
    return table(f"{metric}: floor m, cap M; test users, all at the default rate.", [*caps, "all M"], rows)


def average(row, columns):
    return float(np.mean([[one[column] for column in columns] for one in row]))


def measure_curve(suite):
    """Along training, and with few examples."""
    everything = len(rows_of("train"))
    runs = {(n or everything, loss): Run(loss, examples=n, watch=True) for n in EXAMPLES for loss in BOTH}
    groups = suite.repeat(runs, 2)
    found = suite.figures(groups, "curve")
    rows = {f"{n} | {16 * Run.steps / n:.1f} | {loss}": figures for (n, loss), figures in found.items()}
    corner = "examples | epochs | loss"
    tables = [table("Test users after the last step.", [*FIRST, "pir"], rows, corner)]
    charts = []
    for metric in ["rouge_l", "personal_accuracy", "logp_other", "pir", "exact_correlation"]:
        panels = {}
        for (n, loss), some in groups.items():
            points = {at[0]["step"]: at for at in zip(*(run.curve() for run in some))}
            panels.setdefault(f"{n} examples", {})[loss] = line(points, metric)
        charts.append(chart(metric, "steps", metric, panels))
    return {"tables": tables, "charts": charts}


def measure_bootstrap(suite):
    """How the loop feeds itself."""
    make_start("strong")
    kinds = {"CE": Run("ce"), "PerCE, online": Run(), "frozen start": Run(weights="frozen")}
    kinds |= {"copy every 50 steps": Run(weights="stale"), "warm-up": Run(weights="warm_up")}
    kinds |= {"exact answer": Run(weights="exact")}
    starts = {"scratch": "random weights", "base": "the base model", "strong": "the strong model"}
    more, tables = ["ROUGE-L minus online", "personal tokens right minus online"], []
    for start, words in starts.items():
        groups = suite.repeat({name: replace(run, start=start) for name, run in kinds.items()}, 2)
        rows = suite.figures(groups, f"bootstrap, {start}")
        for name, (change,) in versus(groups, "PerCE, online").items():
            rows[name] = with_more(rows[name], dict(zip(more, [change["rouge_l"], change["personal_accuracy"]])))
        tables.append(table(f"From {words}, test users. {PAIRED}", [*FIRST, *more], rows, "weights from"))
    return {"tables": tables}


def measure_strong(suite):
    """From a base model that reads its context better."""
    make_start("strong")
    kinds = {name: replace(KINDS[name], start="strong") for name in [*BOTH, "oracle"]}
    groups, rates = suite.at_best_rates(kinds, 3)
    found, minus = suite.figures(groups, "strong"), versus(groups, "ce")
    rows = {"before | ": base_row("strong")} | {f"{name} | {groups[name][0].lr:g}": row for name, row in found.items()}
    rows |= {"PerCE − CE | ": minus["perce"], "oracle − CE | ": minus["oracle"]}
    caption = "Test users; differences: paired bootstrap over users."
    return {"tables": [table(caption, SHOWN[:6], rows, " | learning rate"), rates]}


def measure_transfer(suite):
    """From one task to the others."""
    groups = suite.repeat({(task, loss): Run(loss, task=task, **SHORT) for task in TASKS for loss in BOTH}, 3)
    found, tables = suite.figures(groups, "transfer"), []
    columns = [f"{on}, {loss}" for on in TASKS for loss in BOTH]
    for metric in FIRST[:2]:
        rows = {"nothing": on_each_task(dict.fromkeys(BOTH, base_row()), metric)}
        rows |= {task: on_each_task({loss: found[task, loss] for loss in BOTH}, metric) for task in TASKS}
        tables.append(table(f"{metric}, test users; one row per training task.", columns, rows, "trained on"))
    return {"tables": tables}


def on_each_task(by_loss, metric):
    """{loss: row} -> the row of a metric on each task."""
    parts = [regrouped({f"{on}, {loss}": row for loss, row in by_loss.items()}, f"{metric}, {on}") for on in TASKS]
    return [ChainMap(*seed) for seed in zip(*parts)]


TABLE = [measure_main, measure_again, measure_cost, measure_rates, measure_identify, measure_lr, measure_clip]
TABLE += [measure_curve, measure_bootstrap, measure_strong, measure_transfer, measure_contrast, measure_dialogue]
TABLE += [measure_ability, measure_few]
EXPERIMENTS = {measure.__name__.removeprefix("measure_"): measure for measure in TABLE}
