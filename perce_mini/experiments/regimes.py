"""When does PerCE help? One thing is varied at a time around the default run, and each loss has its own best rate.

What may explain it is tested beside it: from few texts CE learns by heart what nobody can foresee, which lowers its
loss and is worth nothing for new users; PerCE gives these tokens the weight of the floor.
"""

from dataclasses import replace

from perce_mini.experiments.records import chart, of_seeds, table
from perce_mini.experiments.runs import SOME, TEST, TRAINED, Run
from perce_mini.experiments.suite import make_world, versus
from perce_mini.percontrast import LOSSES

KINDS = {loss: Run(loss) for loss in LOSSES} | {"perce, M 2": Run(clip_max=2.0)}
KINDS |= {"perce, weights of mean one": Run(weights="mean_one"), "oracle": Run(weights="exact")}
BOTH, FEW_RATES = ["ce", "perce"], [5e-4, 1e-3]
DECAYED = "ce, weight decay 1"
METRICS = ["rouge_l", "personal_accuracy", "logp_personal", "logp_other"]
SENTENCES, STEPS, EXAMPLES = [0, 2, 6], [20, 40, 120], [125, 500, 1000, 6000]  # beside those of the default run


def best_kinds(suite):
    """The KINDS at their best rates, of fewer ones for all but CE and PerCE; and the tables of what was tried."""
    best, tried = suite.at_best_rates({name: KINDS[name] for name in BOTH})
    others = {name: run for name, run in KINDS.items() if name not in BOTH}
    others, tried_others = suite.at_best_rates(others, FEW_RATES)
    return best | others, [tried, tried_others]


def dials():
    """{dial: {setting: how a run differs from the default}}."""
    found = {"ordinary sentences": {"4": {}}, "steps": {str(Run.steps): {}}, "examples": {"252": {}}}
    for n in SENTENCES:
        make_world(f"ordinary-{n}", "--ordinary", n)
        found["ordinary sentences"][str(n)] = {"world": f"ordinary-{n}"}
    found["steps"] |= {str(n): {"steps": n} for n in STEPS}
    make_world("many", "--train", 2000)
    found["examples"] |= {str(n): {"world": "many", "examples": n} for n in EXAMPLES}
    return {dial: dict(sorted(settings.items(), key=lambda item: int(item[0]))) for dial, settings in found.items()}


def measure_regimes(suite):
    """When does it help?"""
    rows, panels = {}, {metric: {} for metric in METRICS}
    for dial, settings in dials().items():
        for setting, how in settings.items():
            best, _ = suite.at_best_rates({loss: replace(Run(loss), **how) for loss in BOTH})
            groups = suite.repeat(best, 3)
            found = suite.figures(groups, f"{dial} {setting}")
            (change,) = versus(groups, "ce")["perce"]
            rates = f"{best['ce'].lr:g} | {best['perce'].lr:g}"
            rows[f"{dial} | {setting} | {rates}"] = [{metric: change[metric] for metric in METRICS}]
            for metric in METRICS:
                pairs = zip(of_seeds(found["perce"], metric), of_seeds(found["ce"], metric))
                panels[metric].setdefault(dial, {}).setdefault("perce", []).append(
                    [setting, *(a - b for a, b in pairs)]
                )
    caption = (
        f"PerCE − CE on {SOME.n} test examples, 3 seeds: paired bootstrap over users, every example averaged over the"
        " seeds. Learning rates by validation ROUGE-L."
    )
    tables = [table(caption, METRICS, rows, "dial | setting | CE's rate | PerCE's rate"), by_heart(suite)]
    charts = [chart(metric, "", f"PerCE − CE, {metric}", panels[metric]) for metric in METRICS]
    return {"tables": tables, "charts": charts}


def by_heart(suite):
    """What is known better of the training texts than of new users' texts."""
    kinds = {name: run for name, run in best_kinds(suite)[0].items() if name != "oracle"}
    groups = suite.repeat(kinds | {DECAYED: replace(kinds["ce"], weight_decay=1.0)}, 3)
    trained, new, rows = suite.figures(groups, "trained texts", TRAINED), suite.figures(groups, "new texts", TEST), {}
    for name in groups:
        rows[name] = [
            {f"{metric}, {where}": one[metric] for metric in METRICS[2:] for where, one in [("trained", a), ("new", b)]}
            | {"other tokens by heart": a["logp_other"] - b["logp_other"]}
            for a, b in zip(trained[name], new[name])
        ]
    caption = "Log-likelihood of the training texts and of new users' texts, nats a token, in `main`'s runs."
    return table(caption, list(rows["ce"][0]), rows)
