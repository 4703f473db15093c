"""When does PerCE help? One thing is varied at a time around the default run. Each loss has its own best rate there,
after the fewest and the most steps, and with models of other widths.

What may explain it is tested beside it: from few texts CE learns by heart what nobody can foresee, which lowers its
loss and is worth nothing for new users; PerCE gives these tokens the weight of the floor.

And is it so in other worlds, from other base models?
"""

from dataclasses import replace
from pathlib import Path

from perce_mini import base
from perce_mini.experiments.records import FIRST, SHOWN, chart, table
from perce_mini.experiments.rows import rows_of
from perce_mini.experiments.runs import NEW, SOME, TEST, TRAINED, VAL, Run
from perce_mini.experiments.suite import PAIRED, RATES, base_row, make_base, make_world, versus
from perce_mini.experiments.tabulate import interval
from perce_mini.percontrast import LOSSES

KINDS = {loss: Run(loss) for loss in LOSSES} | {"perce, cap 2": Run(clip_max=2.0)}
KINDS |= {"perce, weights of mean one": Run(weights="mean_one"), "oracle": Run(weights="exact")}
BOTH = ["ce", "perce"]
DECAYED = "ce, weight decay 1"
METRICS = FIRST[:4]
DRAWN = ["personal_accuracy", "logp_other"]
SHARE, AHEAD = "share of personal tokens", "worlds with more personal tokens right"
# The settings beside that of the default run:
SENTENCES, HABITS, STEPS, EXAMPLES = [0, 2, 6], [40, 100], [30, 120, 240], [125, 500, 1000, 6000]
WIDTHS, SEEDS = [64, 96], [*range(1, 10)]
BASE_STEPS = 1500  # of their base models, each made as data/base was


def base_of_width(n_embd):
    """The folder of a base model of that width."""
    return make_base(Path(f"out/width-{n_embd}"), lambda: rows_of("base"), BASE_STEPS, n_embd=n_embd)


def dials():
    """{dial: {setting: how a run differs from the default}}."""
    many = make_world("many", "--train", 2000)
    found = {
        "steps": {Run.steps: {}} | {n: {"steps": n} for n in STEPS},
        "ordinary sentences": {4: {}} | {n: make_world(f"ordinary-{n}", "--ordinary", n) for n in SENTENCES},
        "% of habits kept": {80: {}} | {n: make_world(f"faith-{n}", "--faith", n / 100) for n in HABITS},
        "examples": {252: {}} | {n: many | {"examples": n} for n in EXAMPLES},
        "dimensions": {base.SHAPE["n_embd"]: {}} | {n: {"base": base_of_width(n)} for n in WIDTHS},
    }
    return {dial: {str(n): settings[n] for n in sorted(settings)} for dial, settings in found.items()}


def measure_regimes(suite):
    """When does it help?"""
    centre, _ = suite.at_best_rates(KINDS)
    changes, rows, panels = {}, {}, {metric: {} for metric in DRAWN}
    for dial, settings in dials().items():
        for setting, how in settings.items():
            runs = {loss: replace(centre[loss], **how) for loss in BOTH}
            if "base" in how or how.get("steps") in (min(STEPS), max(STEPS)):  # what the best rate depends on
                runs, _ = suite.at_best_rates(runs)
            groups = suite.repeat(runs, 3)
            found = suite.figures(groups, f"{dial} {setting}")
            (change,) = versus(groups, "ce")["perce"]
            share = share_of_personal(found["ce"][0])
            changes[f"{dial} | {setting}"] = [{metric: change[metric] for metric in METRICS} | {SHARE: share}]
            for loss in BOTH:
                label = f"{dial} | {setting} | {loss} | {runs[loss].lr:g}"
                rows[label] = [{metric: one[metric] for metric in METRICS} for one in found[loss]]
            for metric in DRAWN:
                panels[metric].setdefault(dial, {}).setdefault("perce", []).append([setting, change[metric]])
    caption = f"PerCE − CE on {SOME.n} test examples, 3 seeds: {PAIRED}."
    rates = (
        "Both on these examples. Learning rates by validation ROUGE-L for the default, the fewest and the most steps"
        " and each width; the default run's elsewhere."
    )
    tables = [
        table(caption, [*METRICS, SHARE], changes, "dial | setting"),
        table(rates, METRICS, rows, "dial | setting | loss | rate"),
        by_heart(suite, centre),
    ]
    charts = [chart(metric, "", f"PerCE − CE, {metric}", panels[metric]) for metric in DRAWN]
    return {"tables": tables, "charts": charts}


def share_of_personal(figures):
    """Of all tokens: log P of all is the mean of personal and other tokens, weighted by how many there are."""
    personal, other = figures["logp_personal"], figures["logp_other"]
    return (figures["logp"] - other) / (personal - other)


def by_heart(suite, kinds):
    """What is known better of the training texts than of new users' texts."""
    longer = {f"{loss}, {STEPS[-1]} steps": replace(kinds[loss], steps=STEPS[-1]) for loss in BOTH}
    kinds = {name: run for name, run in kinds.items() if name != "oracle"}
    groups = suite.repeat(kinds | {DECAYED: replace(kinds["ce"], weight_decay=1.0)} | longer, 3)

    def known(scored):
        return {"base": base_row(Run(), scored)} | suite.figures(groups, f"by heart, {scored.split}", scored)

    trained, new, rows = known(TRAINED), known(NEW), {}
    for name in trained:
        rows[name] = [
            {f"{metric}, {where}": one[metric] for metric in METRICS[2:] for where, one in [("trained", a), ("new", b)]}
            | {"other tokens by heart": a["logp_other"] - b["logp_other"]}
            for a, b in zip(trained[name], new[name])
        ]
    caption = "Log-likelihood of the training texts and of new users' texts, nats a token; rates as in `main`."
    return table(caption, list(rows["ce"][0]), rows)


def world_of(seed):
    """How a run in the world of that seed differs: in its rows, and in a base model that has read this world alone."""
    world = f"seed-{seed}"
    how = make_world(world, "--seed", seed)
    return how | {"base": make_base(Path(f"out/{world}"), lambda: rows_of("base", world), BASE_STEPS, seed)}


def measure_worlds(suite):
    """In other worlds, from other base models."""
    best, rows, same = {}, {}, {lr: [] for lr in RATES}
    for seed in [0, *SEEDS]:
        how = world_of(seed) if seed else {}  # 0: the default world and its base model
        runs = {loss: replace(KINDS[loss], **how) for loss in BOTH}
        at_rates = {(loss, lr): [replace(run, lr=lr)] for loss, run in runs.items() for lr in RATES}
        tried = suite.figures(at_rates, f"world {seed}, rates", VAL)
        for lr in RATES:
            (perce,), (ce,) = tried["perce", lr], tried["ce", lr]
            same[lr].append({metric: perce[metric] - ce[metric] for metric in SHOWN})
        runs, _ = suite.at_best_rates(runs)  # of those
        groups = suite.repeat(runs, 3)
        found = suite.figures(groups, f"world {seed}", TEST)
        best[str(seed)] = versus(groups, "ce", TEST)["perce"]
        rows[f"{seed} | base | "] = base_row(runs["ce"], TEST)
        rows |= {f"{seed} | {loss} | {runs[loss].lr:g}": found[loss] for loss in BOTH}
    best["all"] = over_worlds([{metric: change[metric][0] for metric in SHOWN} for (change,) in best.values()])
    caption = f"PerCE − CE on {TEST.n} test examples, 3 seeds in each world: {PAIRED}. Last row: over the worlds."
    equal = f"PerCE − CE at the same rate on {VAL.n} validation examples, one seed in each world: over the worlds."
    return {
        "tables": [
            table(caption, SHOWN, best, "world"),
            table("Learning rates by validation ROUGE-L, in each world.", SHOWN, rows, "world | loss | rate"),
            table(equal, [*SHOWN, AHEAD], {lr: over_worlds(changes) for lr, changes in same.items()}, "rate"),
        ]
    }


def over_worlds(changes):
    """[{metric: difference}] of the worlds as one row: mean and t interval over them, and in how many PerCE leads."""
    row = {metric: list(interval([one[metric] for one in changes])) for metric in SHOWN}
    return [row | {AHEAD: sum(one["personal_accuracy"] > 0 for one in changes)}]
