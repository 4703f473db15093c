"""When does PerCE help? One thing at a time is varied around the default run.

A possible reason is measured too: with few texts CE memorises words that nobody can foresee. That
lowers its training loss and is worth nothing for new users. PerCE gives such words little weight.

And does it hold in other worlds, from other base models?
"""

from dataclasses import replace

from perce_mini.experiments.records import chart, of_seeds, table
from perce_mini.experiments.rows import DATA, make_base, make_world
from perce_mini.experiments.runs import NEW, PERSONAL_SHARE, SOME, TEST, TRAINED, VAL, Run
from perce_mini.experiments.statistics import interval
from perce_mini.experiments.suite import BOTH, COLUMNS, KINDS, PAIRED, RATES, difference

METRICS = COLUMNS[:4]
DRAWN = ["personal_accuracy", "logp_other"]  # the metrics of the charts
DECAYED = "ce, weight decay 1"
AHEAD = "worlds with more personal tokens right"
FEWEST, MOST = 30, 240  # steps
SEEDS = [1, 2]  # of the worlds beside the default one
BASE_STEPS = 1500  # of their base models, as of data/base


def dials():
    """{dial: {setting: how a run differs from the default run}}; {} for the default setting."""
    many = make_world("many", "--train", 2000)
    ordinary = {n: make_world(f"ordinary-{n}", "--ordinary", n) for n in [0, 2, 6]}
    faith = {n: make_world(f"faith-{n}", "--faith", n / 100) for n in [40, 100]}
    widths = {n: make_base(f"width-{n}", DATA, BASE_STEPS, n_embd=n) for n in [64, 96]}
    return {
        "steps": {60: {}} | {n: {"steps": n} for n in [FEWEST, 120, MOST]},
        "ordinary sentences": {4: {}} | ordinary,
        "% of habits kept": {80: {}} | faith,
        "examples": {252: {}} | {n: many | {"examples": n} for n in [125, 500, 1000, 6000]},
        "dimensions": {128: {}} | widths,
    }


def measure_regimes(suite):
    """When does it help?"""
    usual, _ = suite.at_best_rates(KINDS)
    changes, rows, panels = {}, {}, {metric: {} for metric in DRAWN}
    for dial, settings in dials().items():
        for setting, how in sorted(settings.items()):
            runs = {loss: replace(usual[loss], **how) for loss in BOTH}
            if "base" in how or how.get("steps") in (FEWEST, MOST):  # these need rates of their own
                runs, _ = suite.at_best_rates(runs)
            groups = suite.repeat(runs, 3)
            figures = suite.figures(groups, f"{dial} {setting}")
            change = difference(groups["perce"], groups["ce"])
            changes[dial, setting] = [change | {PERSONAL_SHARE: figures["ce"][0][PERSONAL_SHARE]}]
            for loss in BOTH:
                rows[dial, setting, loss, f"{runs[loss].lr:g}"] = figures[loss]
            for metric in DRAWN:
                line = panels[metric].setdefault(dial, {"perce": []})["perce"]
                line.append([str(setting), change[metric]])
    minus = f"PerCE − CE on {SOME.n} test examples, 3 seeds: {PAIRED}."
    both = "Both on these examples. The learning rate is the best by validation ROUGE-L for the"
    both += " default run, the fewest and the most steps and each width, else the default run's."
    tables = [
        table(minus, [*METRICS, PERSONAL_SHARE], changes, ("dial", "setting")),
        table(both, METRICS, rows, ("dial", "setting", "loss", "rate")),
        memorised(suite, usual),
    ]
    charts = [chart(metric, "", f"PerCE − CE, {metric}", panels[metric]) for metric in DRAWN]
    return {"tables": tables, "charts": charts}


def memorised(suite, kinds):
    """The table of how much likelier the training texts are than new users' texts."""
    kinds = {name: run for name, run in kinds.items() if name != "oracle"}
    kinds |= {DECAYED: replace(kinds["ce"], weight_decay=1.0)}
    kinds |= {f"{loss}, {MOST} steps": replace(kinds[loss], steps=MOST) for loss in BOTH}
    groups = {"base": [Run(steps=0)]} | suite.repeat(kinds, 3)
    trained = suite.figures(groups, "training texts", TRAINED)
    new = suite.figures(groups, "new users", NEW)
    rows = {name: [] for name in groups}
    for name in groups:
        for a, b in zip(trained[name], new[name]):
            row = {}
            for metric in ["logp_personal", "logp_other"]:
                row |= {f"{metric}, trained": a[metric], f"{metric}, new": b[metric]}
            row["other tokens memorised"] = a["logp_other"] - b["logp_other"]
            rows[name].append(row)
    caption = "log P of training texts and of new users' texts, nats/token; rates as in `main`."
    return table(caption, list(rows["ce"][0]), rows)


def world_of(seed):
    """How a run in this world differs: in its rows, and in a base model trained in this world."""
    if seed == 0:
        return {}  # the default world and its base model
    world = make_world(f"seed-{seed}", "--seed", seed)
    return world | make_base(f"seed-{seed}", world["data"], BASE_STEPS, seed)


def measure_worlds(suite):
    """In other worlds, from other base models."""
    changes, rows, at_rate = {}, {}, {lr: [] for lr in RATES}
    for seed in [0, *SEEDS]:
        how = world_of(seed)
        kinds = {loss: replace(KINDS[loss], **how) for loss in BOTH}
        runs, _ = suite.at_best_rates(kinds)
        for lr in RATES:
            pair = {loss: [replace(run, lr=lr)] for loss, run in kinds.items()}
            (ce,), (perce,) = suite.figures(pair, f"world {seed}, rates", VAL).values()
            at_rate[lr].append({metric: perce[metric] - ce[metric] for metric in COLUMNS})
        groups = {"base": [Run(steps=0, **how)]} | suite.repeat(runs, 3)
        for name, seeds in suite.figures(groups, f"world {seed}", TEST).items():
            rows[seed, name, f"{runs[name].lr:g}" if name in BOTH else ""] = seeds
        changes[seed] = [difference(groups["perce"], groups["ce"], TEST)]
    each = [{metric: change[metric][0] for metric in COLUMNS} for (change,) in changes.values()]
    changes["all"] = [over_worlds(each)]
    same_rate = {}
    for lr, each in at_rate.items():
        ahead = sum(one["personal_accuracy"] > 0 for one in each)
        same_rate[lr] = [over_worlds(each) | {AHEAD: ahead}]
    minus = f"PerCE − CE on {TEST.n} test examples, 3 seeds in each world: {PAIRED}."
    minus += " Last row: mean and interval over the worlds."
    both = "Both on these examples, at the best learning rates by validation ROUGE-L in each world."
    equal = f"PerCE − CE at the same rate on {VAL.n} validation examples, one seed in each world:"
    tables = [
        table(minus, COLUMNS, changes, "world"),
        table(both, COLUMNS, rows, ("world", "loss", "rate")),
        table(f"{equal} over the worlds.", [*COLUMNS, AHEAD], same_rate, "rate"),
    ]
    return {"tables": tables}


def over_worlds(differences):
    """Each world's {metric: difference} -> {metric: [mean, low, high]} over the worlds."""
    return {metric: list(interval(of_seeds(differences, metric))) for metric in COLUMNS}
