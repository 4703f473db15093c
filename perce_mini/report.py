"""What data/results/ says: a section an experiment, and the README's tables. Nothing is measured here."""

import json
import math
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from perce_mini import cli
from perce_mini.checkpoint import replace_file
from perce_mini.scoring import METRICS

RESULTS, README = Path("data/results"), Path("README.md")
T95 = [0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]  # of Student's t, by degrees of freedom
SHOWN = ["rouge_l", "personal_accuracy", "logp_personal", "logp_base", "logp", "contrast_f1", "contrast_auc"]
FIRST = SHOWN[:5]
NAMES = {"base": "base", "ce": "CE", "lossce": "LossCE", "entce": "EntCE", "perce": "PerCE",
         "perce, CE's time": "PerCE, CE's time", "oracle": "oracle"}  # fmt: skip
COST_ROWS = {  # name of a figure: what it says, digits
    "perce_over_ce": ("PerCE step / CE step, time", 2),
    "floor_over_ce": ("the floor: one forward of the short view more, by arithmetic", 2),
    "naive_over_ce": ("PerCE with logits of every position / CE step, time", 2),
    "lossce_over_ce": ("LossCE step / CE step, time", 2),
    "entce_over_ce": ("EntCE step / CE step, time", 2),
    "perce_memory_over_ce": ("PerCE step / CE step, peak memory", 2),
    "naive_memory_over_ce": ("PerCE with logits of every position / CE step, peak memory", 2),
    "lossce_memory_over_ce": ("LossCE step / CE step, peak memory", 2),
    "entce_memory_over_ce": ("EntCE step / CE step, peak memory", 2),
    "ce_tokens_per_s": ("CE, tokens/s (this machine)", 0),
    "perce_tokens_per_s": ("PerCE, tokens/s", 0),
    "ce_peak_mb": ("CE step, peak memory, MB", 0),
    "rouge_speedup": ("ROUGE-L: quadratic table / bits, 500 words", 0),
    "cache_speedup": ("generation: uncached / cached", 1),
    "loader_over_trainer": ("loader's tokens/s / trainer's", 0),
}


@dataclass
class Section:
    title: str
    says: str  # what the tables show, in sentences
    command: str
    tables: list = field(default_factory=list)  # (caption, rows of cells, the first one being the head)
    charts: list = field(default_factory=list)  # (caption, x label, y label, {name: [(x, y), ...]})


def read_results(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def spread(values, digits=3):
    """Mean ± half of the 95 % interval over seeds; of two, which tell little of it, mean (low to high)."""
    n = len(values)
    if n == 1:
        return f"{values[0]:.{digits}f}"
    if n == 2:
        return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
    half = (T95[n - 1] if n <= len(T95) else 1.96) * statistics.stdev(values) / math.sqrt(n)
    return f"{statistics.mean(values):.{digits}f} ± {half:.{digits}f}"


def of_seeds(figures, metric, task="all"):
    return [one[task][metric] for one in figures]


def mean(figures, metric, task="all"):
    return statistics.mean(of_seeds(figures, metric, task))


def cells_of(figures, metrics):
    """A table's cells: the spread of each metric over the seeds."""
    return [spread(of_seeds(figures, metric)) for metric in metrics]


def heads(metrics):
    return [METRICS[metric] for metric in metrics]


def change_text(change):
    d, low, high = change
    return f"{d:+.3f} [{low:+.3f}, {high:+.3f}]"


def ahead(figures, metric, a="perce", b="ce"):
    won = sum(x > y for x, y in zip(of_seeds(figures[a], metric), of_seeds(figures[b], metric)))
    return f"ahead in {won} of {len(figures[a])} seeds"


# ------------------------------------------------------------------------------- a section an experiment


def cost_section(r):
    figures = r["figures"]
    rows = [["16 examples of 300 persona, 12 query and 65 response tokens", figures["device"]]]
    rows += [[label, f"{figures[name]:,.{digits}f}"] for name, (label, digits) in COST_ROWS.items()]
    says = (
        f"A PerCE step takes {figures['perce_over_ce']:.2f} of a CE step's time ({figures['floor_over_ce']:.2f} is what"
        f" arithmetic allows) and {figures['perce_memory_over_ce']:.2f} of its memory."
    )
    return Section("What it costs", says, "cost", [("Ratios of medians within one run.", rows)])


def rates_section(r):
    rows = [["", *r["rates"]["ce"]]]
    rows += [[NAMES[name], *(f"{x:.3f}" for x in by_rate.values())] for name, by_rate in r["rates"].items()]
    says = "Best: " + ", ".join(f"{NAMES[name]} {lr:g}" for name, lr in r["best"].items()) + "."
    table = ("Validation ROUGE-L by learning rate, seed 0.", rows)
    return Section("Each loss at its own learning rate", says, "rates", [table])


def main_section(r):
    figures, columns = r["figures"], {"base": [r["base"]]} | r["figures"]
    tasks = [task for task in r["base"] if task != "all"]
    rows = [["", *(NAMES[name] for name in columns)]]
    for metric in SHOWN:
        rows.append([METRICS[metric], *(spread(of_seeds(f, metric)) for f in columns.values())])
        if metric == "rouge_l":
            for task in tasks:
                rows.append([f"ROUGE-L F, {task}", *(spread(of_seeds(f, metric, task)) for f in columns.values())])
    versus = [["minus CE, the same examples", *(NAMES[name] for name in r["minus_ce"])]]
    for metric in SHOWN:
        versus.append([METRICS[metric], *(change_text(change[metric]) for change in r["minus_ce"].values())])
    rates = ", ".join(f"{NAMES[name]} {lr:g}" for name, lr in r["best"].items())
    caption = (
        f"{r['seeds']} seeds, mean ± 95 % interval over seeds; {r['default']['steps']} steps of 16 examples from the"
        f" same base model, in the same order; {r['scored']} test examples; learning rates by validation ROUGE-L:"
        f" {rates}."
    )
    intervals = "Differences to CE with paired bootstrap intervals over users, every example averaged over the seeds."
    change, ce = r["minus_ce"]["perce"], mean(figures["ce"], "rouge_l")
    clear = lambda metric: "clear of zero" if change[metric][1] * change[metric][2] > 0 else "not clear of zero"
    sure = lambda metric: f"{ahead(figures, metric)}; {clear(metric)}"
    says = (
        f"PerCE changes ROUGE-L by {change['rouge_l'][0] / ce:+.1%} of CE's ({ahead(figures, 'rouge_l')}; paired"
        f" interval {clear('rouge_l')}), personal tokens predicted right by {change['personal_accuracy'][0]:+.3f}"
        f" ({sure('personal_accuracy')}), and the log-likelihood of the other tokens by {change['logp_base'][0]:+.3f}"
        f" nats ({sure('logp_base')}). Weights from the exact answer instead of the model's own PIR change ROUGE-L by"
        f" {r['minus_ce']['oracle']['rouge_l'][0] / ce:+.1%}."
    )
    tables = [(caption, rows), (intervals, versus)]
    return Section("CE, LossCE, EntCE, PerCE and an oracle", says, "main", tables)


def again_section(r):
    figures = r["figures"]
    tasks = list(figures["the user"])
    rows = [["who writes again", *tasks]]
    rows += [[who, *(f"{by_task[task]:.3f}" for task in tasks)] for who, by_task in figures.items()]
    score = {who: by_task["all"] for who, by_task in figures.items()}
    says = (
        f"Strangers who know how such texts go reach a ROUGE-L of {score['a stranger']:.3f} against the test users' own"
        f" texts; the users themselves, asked the same again, {score['the user']:.3f}, and"
        f" {score['the user, true to every habit']:.3f} if they kept to every habit. No loss can lead far beyond that."
    )
    if (RESULTS / "main.json").exists():
        reached = {name: mean(found, "rouge_l") for name, found in read_results("main")["figures"].items()}
        way = lambda name: (reached[name] - score["a stranger"]) / (score["the user"] - score["a stranger"])
        says += (
            f" From the strangers to the users, CE goes {way('ce'):.0%} of the way, PerCE {way('perce'):.0%} and the"
            f" oracle {way('oracle'):.0%}; a gain of 10 % over CE would be a ROUGE-L of {1.1 * reached['ce']:.3f}."
        )
    table = ("ROUGE-L F against the test users' own texts; 20 texts by the generator to each query.", rows)
    return Section("How high can ROUGE-L go?", says, "again", [table])


def identify_section(r):
    runs = {name: r[name] for name in ["base", "ce", "perce"]}
    head = ["", "AUC", "average precision", "precision", "recall", "F1"]
    rows, keys = [head], ["auc", "average_precision", "precision", "recall", "f1"]
    detectors = {"PIR": "PIR", "loss": "−log P (LossCE's score)", "entropy": "entropy (EntCE's score)"}
    for run, found in runs.items():
        for name, label in detectors.items():
            ones = [one["detectors"][name] for one in found]
            rows.append([f"{label}, {NAMES[run]}", *(spread([one[key] for one in ones]) for key in keys)])
    perce, first = runs["perce"], runs["perce"][0]
    for name, label in {"word matching": "word stands in the profile", "exact PIR": "exact PIR"}.items():
        rows.append([label, *(f"{first['detectors'][name][key]:.3f}" for key in keys)])
    fixed = [["PIR > 0.8", "precision", "recall", "F1", "correlation with the exact PIR"]]
    for run, found in runs.items():
        at = [spread([one["at_0.8"][key] for one in found]) for key in ["precision", "recall", "f1"]]
        fixed.append([NAMES[run], *at, spread([one["correlation"] for one in found])])
    failures = [["PerCE, seed 0", "tokens"]]
    failures += [[f"personal, PIR ≤ 0.8: {kind}", str(n)] for kind, n in first["missed"].items()]
    failures += [[f"not personal, PIR > 0.8: {kind}", str(n)] for kind, n in first["wrong"].items()]
    missed = first["missed"]
    f1 = {name: one["f1"] for name, one in first["detectors"].items()}
    f1_pir = spread([one["detectors"]["PIR"]["f1"] for one in perce])
    says = (
        f"PIR of the PerCE model finds personal tokens with F1 {f1_pir} at the validation threshold; the exact PIR"
        f" itself reaches {f1['exact PIR']:.3f}, word matching {f1['word matching']:.3f}. Estimated and exact PIR"
        f" correlate with {spread([x['correlation'] for x in perce])}. Of the {missed['all']} personal tokens that it"
        f" misses, {missed['second or later token of a span']} are second or later tokens of their span, and"
        f" {missed['exact PIR at most 0.8 too']} would be missed by the exact PIR as well."
    )
    if (RESULTS / "strong.json").exists():
        strong = read_results("strong")["figures"]["perce"]
        says += f" From the base model of `strong`, F1 with PIR > 0.8 is {spread(of_seeds(strong, 'contrast_f1'))}."
    lines = {NAMES[run]: [tuple(point) for point in found[0]["calibration"]] for run, found in runs.items()}
    lines["exact = estimated"] = [(-1, -1), (5, 5)]
    calibration = "Calibration: tokens in twenty groups by estimated PIR; the mean exact PIR of each group"
    tables = [
        ("Test users; thresholds of the best F1 on validation users.", rows),
        ("The fixed threshold, the floor of the weights.", fixed),
        ("What it gets wrong.", failures),
    ]
    charts = [(calibration, "estimated PIR, nats", "exact PIR, nats", lines)]
    return Section("Which tokens are personal?", says, "identify", tables, charts)


def lr_section(r):
    figures, rates = r["figures"], r["rates"]
    rows = [["", *(f"{lr:g}" for lr in rates)]]
    for metric, digits in [("rouge_l", 3), ("personal_accuracy", 3), ("logp_base", 3), ("grad_norm", 2)]:
        for loss, by_rate in figures.items():
            name = METRICS.get(metric, "mean gradient norm")
            rows.append([f"{name}, {NAMES[loss]}", *(spread(of_seeds(found, metric), digits) for found in by_rate)])
    collapsed = [
        f"{NAMES[loss]} at {lr:g}"
        for loss, by_rate in figures.items()
        for lr, found in zip(rates, by_rate)
        if min(of_seeds(found, "steps_taken")) < r["default"]["steps"]
    ]
    scores = {loss: [mean(found, "rouge_l") for found in by_rate] for loss, by_rate in figures.items()}
    says = (
        f"At the best rate validation ROUGE-L is {max(scores['ce']):.3f} (CE) and {max(scores['perce']):.3f} (PerCE),"
        f" at the highest one {scores['ce'][-1]:.3f} and {scores['perce'][-1]:.3f}."
        + (f" No finite loss to the end: {', '.join(collapsed)}." if collapsed else "")
    )
    table = (f"Validation users, {len(figures['ce'][0])} seeds, mean (low to high).", rows)
    lines = {NAMES[loss]: list(zip(rates, by_rate)) for loss, by_rate in scores.items()}
    chart = ("Validation ROUGE-L by learning rate", "learning rate (log)", "ROUGE-L F", lines)
    return Section("Learning rates up to collapse", says, "lr", [table], [chart])


INTERVALS = "Differences have paired bootstrap intervals over users, which know nothing of the spread over seeds."


def clip_section(r):
    names = {"longce": "LongCE: min(P/P, 5)", "mean one": "PerCE, weights of mean one"}
    grid, others = {}, []
    for cell, found, change in zip(r["cells"], r["figures"], r["minus_paper"]):
        if "clip_min" in cell:
            grid[cell["clip_min"], cell["clip_max"]] = found, change
        else:
            others.append((names.get(cell.get("weigh"), "CE"), found, change))
    floors, caps = [sorted(set(side)) for side in zip(*grid)]
    sound = [m for m in floors if m >= 0]
    average = lambda metric, floors, caps: statistics.mean(mean(grid[m, M][0], metric) for m in floors for M in caps)
    of = f"Test users, {len(r['figures'][0])} seeds, mean (low to high), all at the rate {r['default']['lr']:g}."
    tables = []
    for metric in ["rouge_l", "personal_accuracy", "logp_base"]:
        rows = [["", *(f"M {M:g}" for M in caps), "all M"]]
        for m in floors:
            cells = [spread(of_seeds(grid[m, M][0], metric)) for M in caps]
            rows.append([f"m {m:g}", *cells, f"{average(metric, [m], caps):.3f}"])
        rows.append(["m 0 and above", *(f"{average(metric, sound, [M]):.3f}" for M in caps), ""])
        tables.append((f"{METRICS[metric]}: floor m, cap M. {of}", rows))
    rows = [["", *heads(FIRST), "mean weight of the last step", "ROUGE-L minus the first row's"]]
    for name, found, change in [("PerCE, m 0.8, M 5", *grid[0.8, 5.0]), *others]:
        difference = change_text(change["rouge_l"]) if len(rows) > 1 else ""
        rows.append([name, *cells_of(found, [*FIRST, "weight"]), difference])
    tables.append((f"Other weights. {INTERVALS}", rows))
    by_floor = ", ".join(f"{average('rouge_l', [m], caps):.3f} with m {m:g}" for m in floors)
    by_cap = ", ".join(f"{average('rouge_l', sound, [M]):.3f} with M {M:g}" for M in caps)
    better = [f"m {m:g}, M {M:g}" for (m, M), (_, change) in grid.items() if change["rouge_l"][1] > 0]
    says = (
        f"ROUGE-L, averaged over the caps: {by_floor}; averaged over floors from 0 on: {by_cap}. Above the paper's"
        f" m 0.8, M 5 by a paired interval clear of zero: {'; '.join(better) or 'none'}."
    )
    low = r["low_cap"]
    rows = [["", *heads(FIRST)]] + [[name, *cells_of(found, FIRST)] for name, found in low["figures"].items()]
    for name, change in low["m2_minus"].items():
        rows.append([f"M 2 − {name}", *(change_text(change[metric]) for metric in FIRST)])
    seeds = f"{len(low['figures']['CE'])} seeds, mean ± 95 % interval"
    tables.append((f"The low cap, noticed above, on validation users: m 0.8, {seeds}. {INTERVALS}", rows))
    for name, change in low["m2_minus"].items():
        says += (
            f" M 2 minus {name} on validation users: ROUGE-L {change_text(change['rouge_l'])}, personal tokens right"
            f" {change_text(change['personal_accuracy'])}, log-likelihood {change_text(change['logp'])}."
        )
    return Section("Floors and caps", says, "clip", tables)


def curve_section(r):
    at = lambda entry, i, metric: statistics.mean(curve[i][metric] for curve in entry["curves"])
    steps = [point["step"] for point in r["curves"][0]["curves"][0]]
    shown = {metric: METRICS[metric] for metric in ["rouge_l", "personal_accuracy", "logp_base", "pir"]}
    charts = []
    for metric, name in (shown | {"exact_correlation": "correlation of PIR with the exact PIR"}).items():
        lines = {
            f"{NAMES[e['loss']]}, {e['examples']} examples": [(step, at(e, i, metric)) for i, step in enumerate(steps)]
            for e in r["curves"]
        }
        charts.append((f"{name}, along training (validation users)", "steps", name, lines))
    rows, gain = [["examples", "epochs", "loss", *heads(FIRST), "mean PIR"]], {}
    for e in r["curves"]:
        epochs = f"{16 * r['default']['steps'] / e['examples']:.1f}"
        rows.append([str(e["examples"]), epochs, NAMES[e["loss"]], *cells_of(e["figures"], [*FIRST, "pir"])])
        gain.setdefault(e["examples"], {})[e["loss"]] = mean(e["figures"], "rouge_l")
    gains = ", ".join(f"{g['perce'] - g['ce']:+.3f} with {n} examples" for n, g in gain.items())
    says = f"At the last step PerCE's ROUGE-L minus CE's is {gains}."
    caption = f"Test users after the last step, {len(r['curves'][0]['figures'])} seeds, mean (low to high)."
    return Section("Along training, and with few examples", says, "curve", [(caption, rows)], charts)


def bootstrap_section(r):
    tables, scores, online, shown = [], [], "PerCE, online", ["rouge_l", "personal_accuracy"]
    for start, kinds in r["figures"].items():
        rows = [["weights from", *heads(FIRST), "ROUGE-L minus online", "personal tokens right minus online"]]
        for kind, found in kinds.items():
            change = r["minus_online"][start][kind]
            changes = [change_text(change[metric]) if kind != online else "" for metric in shown]
            rows.append([kind, *cells_of(found, FIRST), *changes])
        origin = "random weights" if start == "scratch" else f"the {start} model"
        tables.append((f"From {origin}, test users, {len(kinds[online])} seeds, mean (low to high). {INTERVALS}", rows))
        reached = ", ".join(f"{kind} {mean(found, 'rouge_l'):.3f}" for kind, found in kinds.items())
        scores.append(f"from {start}: {reached}")
    return Section("How the loop feeds itself", f"ROUGE-L F {'; '.join(scores)}.", "bootstrap", tables)


def strong_section(r):
    figures, metrics, change = r["figures"], SHOWN[:6], r["minus_ce"]["perce"]
    rows = [["", "learning rate", *heads(metrics)], ["before", "", *cells_of([r["base"]], metrics)]]
    rows += [[NAMES[name], f"{r['best'][name]:g}", *cells_of(found, metrics)] for name, found in figures.items()]
    for name, by_metric in r["minus_ce"].items():
        rows.append([f"{NAMES[name]} − CE", "", *(change_text(by_metric[metric]) for metric in metrics)])
    says = (
        f"From a base model that predicts {r['base']['all']['personal_accuracy']:.0%} of the personal tokens right"
        f" before fine-tuning, PerCE changes ROUGE-L by {change_text(change['rouge_l'])}"
        f" ({change['rouge_l'][0] / mean(figures['ce'], 'rouge_l'):+.1%} of CE's; {ahead(figures, 'rouge_l')}),"
        f" personal tokens predicted right by {change_text(change['personal_accuracy'])}."
    )
    caption = f"Test users, {len(figures['ce'])} seeds, mean ± 95 % interval; differences: paired bootstrap over users."
    tables = [(caption, rows), *rates_section(r).tables]
    return Section("From a base model that reads its context better", says, "strong", tables)


def transfer_section(r):
    figures, base, losses = r["figures"], r["base"], ["ce", "perce"]
    tasks, tables, away = list(figures["ce"]), [], []
    for metric in ["rouge_l", "personal_accuracy"]:
        rows = [["trained on", *(f"{task}, {NAMES[loss]}" for task in tasks for loss in losses)]]
        rows.append(["nothing", *(f"{base[on][metric]:.3f}" for on in tasks for _ in losses)])
        for task in tasks:
            rows.append([task, *(spread(of_seeds(figures[loss][task], metric, on)) for on in tasks for loss in losses)])
        seeds = len(figures["ce"][tasks[0]])
        caption = f"{METRICS[metric]}, test users, {seeds} seeds, mean ± 95 % interval; a row a training task."
        tables.append((caption, rows))
        others = [(task, on) for task in tasks for on in tasks if on != task]
        before = statistics.mean(base[on][metric] for on in tasks)
        ce, perce = [statistics.mean(mean(figures[loss][task], metric, on) for task, on in others) for loss in losses]
        away.append(f"{METRICS[metric]}: {before:.3f} before, {ce:.3f} with CE, {perce:.3f} with PerCE")
    says = (
        f"On the tasks that were not trained, {'; '.join(away)}. {r['setting']['steps']} steps at"
        f" {r['setting']['lr']:g}: a long training forgets the form of the other tasks with either loss."
    )
    return Section("From one task to the others", says, "transfer", tables)


def contrast_section(r):
    trained = {"base": "base model", "none": "PerCE, nobody's", "stranger": "PerCE, a stranger's"}
    against = {"none": "nobody", "stranger": "a stranger"}
    keys = {"auc": "AUC", "average_precision": "average precision", "f1": "F1, best validation threshold",
            "f1 at 0.8": "F1, PIR > 0.8", "precision at 0.8": "precision, PIR > 0.8"}  # fmt: skip
    rows = [["model; profile in the plain view", *keys.values()]]
    for name, by_contrast in r["detection"].items():
        for contrast, ones in by_contrast.items():
            figures = [spread([one[key] for one in ones]) for key in keys]
            rows.append([f"{trained[name]}; {against[contrast]}", *figures])
    scores, change = [["", "nobody's", "a stranger's", "difference"]], r["minus_none"]
    for metric in FIRST:
        both = [spread(of_seeds(found, metric)) for found in r["figures"].values()]
        scores.append([METRICS[metric], *both, change_text(change[metric])])
    f1 = lambda name, contrast: spread([one["f1"] for one in r["detection"][name][contrast]])
    says = (
        "F1 at the best validation threshold, with nobody's and with a stranger's profile in the plain view:"
        f" {f1('base', 'none')} and {f1('base', 'stranger')} (base model), {f1('none', 'none')} and"
        f" {f1('none', 'stranger')} (PerCE). Trained against a stranger's profile, ROUGE-L changes by"
        f" {change_text(change['rouge_l'])}."
    )
    caption = (
        f"PerCE trained with either contrast, {len(r['figures']['none'])} seeds, rates {r['best']['none']:g} and"
        f" {r['best']['stranger']:g} by validation ROUGE-L; paired bootstrap over users."
    )
    tables = [("PIR as a detector, test users.", rows), (caption, scores)]
    return Section("Against nobody, or against a stranger", says, "contrast", tables)


def by_length(r):
    """What is known before fine-tuning, and after each number of steps with each loss."""
    return [{"steps": 0, "loss": "base"} | r["base"], *r["after"]]


def dialogue_section(r):
    rows, at6, lines = [["steps", "loss", *(f"turn {k}" for k in range(1, 11))]], {}, {}
    for one in by_length(r):
        turns = list(zip(*one["turns"]))  # the seeds' scores, turn by turn
        rows.append([str(one["steps"]), NAMES[one["loss"]], *(spread(scores, 2) for scores in turns)])
        at6.setdefault(one["steps"], []).append(f"{spread(turns[5], 2)} ({NAMES[one['loss']]})")
        lines[f"{NAMES[one['loss']]}, {one['steps']} steps"] = [(k + 1, statistics.mean(turns[k])) for k in range(10)]
    scores = "; ".join(f"{', '.join(some)} after {steps} steps" for steps, some in at6.items())
    says = f"At turn 6 the score is {scores}. 5 shows all that is called for, 1 nothing; at turn 1 nothing is known."
    lines["base"] = lines.pop("base, 0 steps")  # behind the pairs of losses
    caption = f"Score at every turn, 60 chats; rate {r['setting']['lr']:g}, {len(r['after'][0]['turns'])} seeds."
    chart = ("Score by turn", "turn", "score, 1 to 5", lines)
    return Section("From writing to chats", says, "dialogue", [(caption, rows)], [chart])


def ability_section(r):
    asked = {"exact match, all": ("all", "exact match")}
    asked |= {f"F1, {kind}": (kind, "f1") for kind in ["all", "number", "span", "date"]}
    answers = lambda one, kind, metric: spread([found[kind][metric] for found in one["answers"]])
    rows, by_steps = [["steps", "loss", *heads(SHOWN[:2]), *asked, "F1, all, minus CE"]], {}
    for one in by_length(r):
        figures = [*cells_of(one["figures"], SHOWN[:2]), *(answers(one, *what) for what in asked.values())]
        minus_ce = "" if one["loss"] in ("base", "ce") else change_text(one["f1_minus_ce"])
        rows.append([str(one["steps"]), NAMES[one["loss"]], *figures, minus_ce])
        by_steps.setdefault(one["steps"], []).append(f"{answers(one, 'all', 'f1')} ({NAMES[one['loss']]})")
    f1 = "; ".join(f"{', '.join(some)} after {steps} steps" for steps, some in by_steps.items())
    caption = (
        f"300 questions about passages, beside what was learned of the users; {len(r['after'][0]['answers'])} seeds,"
        f" rate {r['setting']['lr']:g}. Differences to CE: bootstrap over questions, each averaged over the seeds."
    )
    return Section("Is general ability kept?", f"DROP's F1 is {f1}.", "ability", [(caption, rows)])


IN_ORDER = [cost_section, rates_section, main_section, again_section, identify_section, lr_section, clip_section,
            curve_section, bootstrap_section, strong_section, transfer_section, contrast_section, dialogue_section,
            ability_section]  # fmt: skip
SECTIONS = {section.__name__.removesuffix("_section"): section for section in IN_ORDER}


def recorded():
    """The sections of the experiments that are recorded, by name, in the order of SECTIONS."""
    there = {name: section for name, section in SECTIONS.items() if (RESULTS / f"{name}.json").exists()}
    return {name: section(read_results(name)) for name, section in there.items()}


# --------------------------------------------------------------------------------------------- the README


def markdown_table(rows):
    line = lambda cells: "| " + " | ".join(cells) + " |\n"
    return line(rows[0]) + "|---" * len(rows[0]) + "|\n" + "".join(map(line, rows[1:]))


def markdown(section):
    return section.says + "\n\n" + "\n".join(f"{caption}\n\n{markdown_table(rows)}" for caption, rows in section.tables)


GPU_ROWS = {
    "perce_over_ce": "PerCE step / CE step, time",
    "floor_over_ce": "the floor by arithmetic",
    "ce_tokens_per_s": "CE, tokens/s",
    "perce_tokens_per_s": "PerCE, tokens/s",
    "ce_utilisation": "CE, model FLOP utilisation",
    "perce_utilisation": "PerCE, model FLOP utilisation",
    "peak_gb": "peak memory, GB",
}


def gpu_text():
    if not (RESULTS / "gpu.json").exists():
        return "Not recorded yet: no CUDA device was at hand.\n"
    figures = read_results("gpu")
    show = lambda x: f"{x:,.2f}" if x < 1000 else f"{x:,.0f}"
    rows = [["", figures["device"]]]
    rows += [[label, show(figures[name])] for name, label in GPU_ROWS.items() if figures.get(name)]
    size = f"{figures['parameters'] / 1e6:.0f} M parameters"
    return f"{size}, length 1,024, bfloat16, compiled.\n\n{markdown_table(rows)}"


def memory_text():
    figures = read_results("memory")
    parts = list(next(iter(figures.values())))
    rows = [[name, *(f"{size:.1f}" for size in by_part.values())] for name, by_part in figures.items()]
    return markdown_table([["GB", *parts], *rows])


REAL_RUNS = {"before": "before", "ce": "CE", "perce": "PerCE", "perce-stranger": "PerCE against a stranger"}


def real_text():
    """Before and after fine-tuning on real texts, with nobody's and with a stranger's profile in the plain view."""
    parts = []
    for path in sorted(RESULTS.glob("real-*.json")):
        r = json.loads(path.read_text(encoding="utf-8"))
        setting, seeds, batch = r["settings"], r["seeds"], r["settings"]["batch_size"] * r["settings"]["grad_accum"]
        rates = [f"{r['rates'][run]:g}" if run in r["rates"] else "" for run in REAL_RUNS]
        rows = [["", *REAL_RUNS.values()], ["learning rate", *rates]]

        def found(contrast, kind, run):
            return [seed[contrast][kind][run] for seed in seeds if run in seed[contrast][kind]]

        def add(label, contrast, value, digits):
            of = lambda run: spread([value(one) for one in found(contrast, "runs", run)], digits)
            rows.append([label, *map(of, REAL_RUNS)])

        for metric in ["rouge_l", "logp", "logp_plain", "pir"]:
            add(METRICS[metric], "none", lambda one: one[metric], 3)
        add("mean PIR against a stranger", "stranger", lambda one: one["pir"], 3)
        for contrast, words in {"none": "", "stranger": " against a stranger"}.items():
            for share in ["0.05", "0.5", "0.95"]:
                label = f"{float(share):.0%} of tokens have PIR{words} below"
                add(label, contrast, lambda one: one["pir_quantiles"][share], 2)

        def changes(metric):
            of = lambda run: ", ".join(change_text(one[metric].values()) for one in found("none", "minus ce", run))
            return "; ".join(f"{REAL_RUNS[run]} {of(run)}" for run in seeds[0]["none"]["minus ce"])

        trained = f"LoRA of rank {setting['lora_rank']}" if setting["lora_rank"] else "all weights"
        tried = ", ".join(f"{float(rate):g}" for rate in r["validation log-likelihood"].get("ce", {}))
        chosen = f", rates chosen among {tried} on validation users" if tried else ""
        n_seeds = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
        parts.append(
            f"{r['model']} on {r['data']}: {setting['steps']} steps of {batch} examples ({trained}){chosen},"
            f" {r['examples']} held-out examples, {n_seeds}.\n\n{markdown_table(rows)}\n"
            f"Difference to CE, paired bootstrap over users{', seed by seed' * (len(seeds) > 1)}."
            f" ROUGE-L: {changes('rouge_l')}. Log-likelihood with persona: {changes('logp')}.\n"
        )
    return "\n".join(parts) or "Not recorded yet.\n"


def readme_parts():
    """{name: what the README says from <!-- name: ... --> to <!-- end of name -->}, from the recorded files."""
    sections = recorded()
    one = lambda name: markdown(sections[name]) if name in sections else "Not recorded yet.\n"
    command = "python -m perce_mini.experiments"
    others = [
        f"**{section.title}** (`{command} {name}`). {markdown(section)}"
        for name, section in sections.items()
        if name not in ("cost", "main", "again")
    ]
    if missing := [name for name in SECTIONS if name not in sections]:
        others.append(f"Not recorded yet: {', '.join(missing)}.\n")
    return {
        "example": f"```text\n{(RESULTS / 'train_output.txt').read_text(encoding='utf-8')}```\n",
        "results": one("main") + "\n" + one("again"),
        "experiments": "\n".join(others),
        "cost": one("cost"),
        "gpu": gpu_text(),
        "memory": memory_text(),
        "real": real_text(),
    }


def with_parts(readme):
    for name, text in readme_parts().items():
        part = f"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
        readme, n = re.subn(part, lambda match: match[1] + text + match[2], readme, flags=re.S)
        if n != 1:
            raise cli.RunError(f"{README} must have one section {name!r}, not {n}")
    return readme


def write_readme():
    text = with_parts(README.read_text(encoding="utf-8"))
    replace_file(README, lambda new: Path(new).write_text(text, encoding="utf-8"))
    print(f"wrote {README}")
