"""When does PerCE help, and when does it harm? We vary three things:

1. How much the model still has to learn. It is trained for 30 to 240 steps, on texts of a *new
   form* (the default tasks, which the base model has never read) or of a *known form* (letters,
   diaries, recipes and notices, of which it has read many).
2. How long CE is used before PerCE takes over, so that the model learns the form first.
3. How well the base model uses its context: we start from several checkpoints of one training run.

A second experiment repeats the comparison of PerCE and CE in other synthetic worlds, with other
base models.
"""

from dataclasses import replace

from perce_mini.experiments.records import chart, of_seeds, table
from perce_mini.experiments.rows import DEFAULT_BASE_STEPS, keep_bases, make_base, make_world
from perce_mini.experiments.runs import SOME, TEST, Run
from perce_mini.experiments.statistics import interval
from perce_mini.experiments.suite import BOTH, COLUMNS, PAIRED, difference, differences

NEW, KNOWN = "new form", "known form"
STEPS = [30, 60, 120, 240]
BASES = [1000, 2500]  # training steps after which a checkpoint is saved
WORLDS, BASE_STEPS = [0, 1, 2], BASES[0]  # seeds; training steps of their base models

# `known_form`, `on_form` and `world_of` return fields of Run.


def known_form():
    """Generate letters, diaries, recipes and notices: as many rows as in the default data."""
    tasks = "--tasks letter diary recipe notice".split()
    return make_world("known", *tasks, "--train", 189, "--held-out", 375, "--base", 1)


def on_form(form):
    """Return the fields of Run for texts of this form: data and base model, or {} for the defaults.

    For the known form, the base model is an early checkpoint, which already knows the form but does
    not use its context well yet. The finished base model has nothing left to learn there.
    """
    return known_form() | keep_bases(BASES)[BASES[0]] if form == KNOWN else {}


def world_of(seed):
    """Generate a world and train a base model in it, for only BASE_STEPS steps to save time."""
    if seed == 0:
        return keep_bases(BASES)[BASE_STEPS]
    world = make_world(f"seed-{seed}", "--seed", seed)
    return world | make_base(f"seed-{seed}", world["data"], BASE_STEPS, seed)


def measure_regimes(suite):
    """When does it help, and when does it harm?"""
    tables, lead = vary_steps(suite)
    return {"tables": [*tables, *vary_share(suite), vary_base(suite)], "charts": [lead]}


def vary_steps(suite):
    """Vary the form and the number of steps. Returns two tables and a chart."""
    changes, figures = {}, {}
    panels = {"personal_accuracy": {NEW: [], KNOWN: []}, "rouge_l": {NEW: [], KNOWN: []}}
    for form in [NEW, KNOWN]:
        for steps in STEPS:
            # Learning rates are tuned for 60 and for 240 steps, and also used for 30 and for 120.
            best = suite.tuned(steps=60 if steps <= 60 else Run.steps, **on_form(form))
            same = best | {"ce": replace(best["ce"], lr=best["perce"].lr)}
            rates = {"own best": best} | ({} if same == best else {"PerCE's for both": same})
            for which, pair in rates.items():
                groups = suite.repeat(pair, 3, steps=steps)
                scores = suite.run_all(groups, f"{form}, {steps} steps")
                changes[form, steps, which] = [difference(groups["perce"], groups["ce"])]
                for loss in BOTH:
                    figures[form, steps, loss, f"{pair[loss].lr:g}"] = scores[loss]
            ce = figures[form, steps, "ce", f"{best['ce'].lr:g}"]
            x = interval(of_seeds(ce, "logp_other"))[0]
            for metric, lines in panels.items():
                lines[form].append([x, changes[form, steps, "own best"][0][metric]])
    minus = f"PerCE − CE on {SOME.n} test examples, 3 seeds: {PAIRED}."
    both = "Both losses on these examples. Runs of 30 and 60 steps use the learning rate with the"
    both += " best validation log P after 60 steps; the other runs use the best one after"
    both += f" {Run.steps}."
    changes_table = table(minus, COLUMNS, changes, ("form", "steps", "learning rates"))
    figures_table = table(both, COLUMNS, figures, ("form", "steps", "loss", "rate"))
    axes = "log P of the other tokens after CE, nats", "PerCE − CE"
    return [changes_table, figures_table], chart("lead", *axes, panels)


def vary_share(suite):
    """Vary the share of the steps that use CE. Returns two tables."""
    changes, figures = {}, {}
    for form, steps in [(NEW, Run.steps), (NEW, 60), (KNOWN, 60)]:
        overrides = on_form(form) | {"steps": steps}
        methods = {"ce": Run("ce"), "perce": Run(), "half": Run(ce_first=0.5)}
        methods = {name: replace(run, **overrides) for name, run in methods.items()}
        best, _ = suite.at_best_rates(methods)
        groups = suite.repeat({0.0: best["perce"], 0.5: best["half"], 1.0: best["ce"]}, 5)
        if (form, steps) != (NEW, 60):  # to save time
            more = {share: replace(best["half"], ce_first=share) for share in [0.25, 0.75]}
            groups = dict(sorted((groups | suite.repeat(more, 3)).items()))
        for share, seeds in suite.run_all(groups, f"CE first, {form}, {steps} steps").items():
            figures[form, steps, f"{share:.0%}"] = seeds
        for share, change in differences(groups, 1.0).items():
            changes[form, steps, f"{share:.0%}"] = [change]
    labels = ("form", "steps", "share of steps with CE")
    minus = "CE first and then PerCE, minus CE alone, with 5 seeds (3 seeds for 25% and 75%);"
    minus += f" {PAIRED}."
    both = "All runs on these examples; 100% is CE alone, 0% PerCE alone."
    return [table(minus, COLUMNS, changes, labels), table(both, COLUMNS, figures, labels)]


def vary_base(suite):
    """Vary the base model: several checkpoints of one training run. Returns a table."""
    best, changes = suite.tuned(), {}
    for steps, overrides in (keep_bases(BASES) | {DEFAULT_BASE_STEPS: {}}).items():
        groups = suite.repeat(best, 3, **overrides)
        base = Run(steps=0, **overrides)
        before = {NEW: [base], KNOWN: [replace(base, **known_form())]}
        scores = suite.run_all(groups | before, f"base of {steps} steps")
        row = {f"before, {form}": scores[form][0]["personal_accuracy"] for form in before}
        row["after CE"] = interval(of_seeds(scores["ce"], "personal_accuracy"))[0]
        changes[steps] = [row | difference(groups["perce"], groups["ce"])]
    caption = (
        "Accuracy on personal tokens before fine-tuning and after CE shows how well the base model"
    )
    caption += f" uses its context. The other columns are PerCE − CE with 3 seeds: {PAIRED}."
    caption += " Learning rates: the best ones for the default base model."
    columns = [f"before, {NEW}", f"before, {KNOWN}", "after CE", *COLUMNS]
    return table(caption, columns, changes, "steps of the base model")


def measure_worlds(suite):
    """In other synthetic worlds, with other base models."""
    best, changes, rows = suite.tuned(), {}, {}
    for seed in WORLDS:
        overrides = world_of(seed)
        groups = {"base": [Run(steps=0, **overrides)]} | suite.repeat(best, 3, **overrides)
        for name, seeds in suite.run_all(groups, f"world {seed}", TEST).items():
            rows[seed, name] = seeds
        changes[seed] = [difference(groups["perce"], groups["ce"], TEST)]
    each = [{metric: change[metric][0] for metric in COLUMNS} for (change,) in changes.values()]
    changes["all"] = [{metric: list(interval(of_seeds(each, metric))) for metric in COLUMNS}]
    minus = f"PerCE − CE on {TEST.n} test examples, 3 seeds in each world: {PAIRED}."
    minus += " Last row: mean and interval over the worlds."
    both = "Both losses on these examples, at the best learning rates in world 0."
    changes_table = table(minus, COLUMNS, changes, "world")
    return {"tables": [changes_table, table(both, COLUMNS, rows, ("world", "loss"))]}
