"""What data/results/ says, as the README's tables and as one page with figures. Nothing is measured here."""

import json
import math
import re
import statistics
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from perce_mini import cli
from perce_mini.checkpoint import replace_file
from perce_mini.scoring import METRICS

RESULTS, README = Path("data/results"), Path("README.md")
T95 = [0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]  # of Student's t, by degrees of freedom
SHOWN = ["rouge_l", "personal_accuracy", "logp_personal", "logp_base", "logp", "contrast_f1", "contrast_auc"]
NAMES = {"base": "base", "ce": "CE", "lossce": "LossCE", "entce": "EntCE", "perce": "PerCE", "perce, CE's time": "PerCE, CE's time", "oracle": "oracle"}
COST_ROWS = {"perce_over_ce": ("PerCE step / CE step, time", 2), "floor_over_ce": ("the floor: one forward of the short view more, by arithmetic", 2),
             "naive_over_ce": ("PerCE with logits of every position / CE step, time", 2), "lossce_over_ce": ("LossCE step / CE step, time", 2),
             "entce_over_ce": ("EntCE step / CE step, time", 2), "perce_memory_over_ce": ("PerCE step / CE step, peak memory", 2),
             "naive_memory_over_ce": ("PerCE with logits of every position / CE step, peak memory", 2), "lossce_memory_over_ce": ("LossCE step / CE step, peak memory", 2),
             "entce_memory_over_ce": ("EntCE step / CE step, peak memory", 2), "ce_tokens_per_s": ("CE, tokens/s (this machine)", 0), "perce_tokens_per_s": ("PerCE, tokens/s", 0),
             "ce_peak_mb": ("CE step, peak memory, MB", 0), "rouge_speedup": ("ROUGE-L: quadratic table / bits, 500 words", 0),
             "cache_speedup": ("generation: uncached / cached", 1), "loader_over_trainer": ("loader's tokens/s / trainer's", 0)}  # fmt: skip


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
    """Mean ± half of the 95 % interval over seeds; of two seeds, which tell little of their spread, mean (low to high)."""
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


# ------------------------------------------------------------------------------- a section an experiment


def cost_section(r):
    figures = r["figures"]
    rows = [["16 examples of 300 persona, 12 query and 65 response tokens", figures["device"]]]
    rows += [[label, f"{figures[name]:,.{digits}f}"] for name, (label, digits) in COST_ROWS.items()]
    says = (f"A PerCE step takes {figures['perce_over_ce']:.2f} of a CE step's time ({figures['floor_over_ce']:.2f} is what arithmetic allows)"
            f" and {figures['perce_memory_over_ce']:.2f} of its memory.")  # fmt: skip
    return Section("What it costs", says, "cost", [("Ratios of medians within one run.", rows)])


def rates_section(r):
    rows = [["", *r["rates"]["ce"]]] + [[NAMES[name], *(f"{x:.3f}" for x in by_rate.values())] for name, by_rate in r["rates"].items()]
    says = "Best: " + ", ".join(f"{NAMES[name]} {lr:g}" for name, lr in r["best"].items()) + "."
    return Section("Each loss at its own learning rate", says, "rates", [("Validation ROUGE-L by learning rate, seed 0.", rows)])


def main_section(r):
    figures, n = r["figures"], r["seeds"]
    columns = {"base": [r["base"]]} | figures
    tasks = [task for task in r["base"] if task != "all"]
    rows = [["", *(NAMES[name] for name in columns)]]
    for metric in SHOWN:
        rows.append([METRICS[metric], *(spread(of_seeds(f, metric)) for f in columns.values())])
        if metric == "rouge_l":
            rows += [[f"ROUGE-L F, {task}", *(spread(of_seeds(f, metric, task)) for f in columns.values())] for task in tasks]
    versus = [["minus CE, the same examples", *(NAMES[name] for name in r["minus_ce"])]]
    for metric in SHOWN:
        versus.append([METRICS[metric], *(change_text(change[metric]) for change in r["minus_ce"].values())])
    default = r["default"]
    caption = (f"{n} seeds, mean ± 95 % interval over seeds; {default['steps']} steps of 16 examples from the same base model, in the same order;"
               f" {r['scored']} test examples; learning rates by validation ROUGE-L: " + ", ".join(f"{NAMES[k]} {v:g}" for k, v in r["best"].items()) + ".")  # fmt: skip
    return Section("CE, LossCE, EntCE, PerCE and an oracle", main_verdict(r), "main", [
        (caption, rows), ("Differences to CE with paired bootstrap intervals over users, every example averaged over the seeds.", versus)])  # fmt: skip


def again_section(r):
    figures = r["figures"]
    tasks = list(figures["the user"])
    rows = [["who writes again", *tasks]] + [[who, *(f"{by_task[task]:.3f}" for task in tasks)] for who, by_task in figures.items()]
    score = {who: by_task["all"] for who, by_task in figures.items()}
    says = (f"Strangers who know how such texts go reach a ROUGE-L of {score['a stranger']:.3f} against the test users' own texts; the users themselves, asked the same again,"
            f" {score['the user']:.3f}, and {score['the user, true to every habit']:.3f} if they kept to every habit. No loss can lead far beyond that.")  # fmt: skip
    if (RESULTS / "main.json").exists():
        reached = read_results("main")["figures"]
        way = {name: (mean(reached[name], "rouge_l") - score["a stranger"]) / (score["the user"] - score["a stranger"]) for name in ["ce", "perce", "oracle"]}
        says += (f" From the strangers to the users, CE goes {way['ce']:.0%} of the way, PerCE {way['perce']:.0%} and the oracle {way['oracle']:.0%};"
                 f" a gain of 10 % over CE would be a ROUGE-L of {1.1 * mean(reached['ce'], 'rouge_l'):.3f}.")  # fmt: skip
    return Section("How high can ROUGE-L go?", says, "again", [("ROUGE-L F against the test users' own texts; 20 texts by the generator to each query.", rows)])


def change_text(change):
    d, low, high = change
    return f"{d:+.3f} [{low:+.3f}, {high:+.3f}]"


def ahead(figures, metric, a="perce", b="ce"):
    won = sum(x > y for x, y in zip(of_seeds(figures[a], metric), of_seeds(figures[b], metric)))
    return f"ahead in {won} of {len(figures[a])} seeds"


def main_verdict(r):
    figures, change = r["figures"], r["minus_ce"]["perce"]
    relative = change["rouge_l"][0] / mean(figures["ce"], "rouge_l")
    clear = lambda metric: "clear of zero" if change[metric][1] * change[metric][2] > 0 else "not clear of zero"
    return (f"PerCE changes ROUGE-L by {relative:+.1%} of CE's ({ahead(figures, 'rouge_l')}; paired interval {clear('rouge_l')}), personal tokens predicted"
            f" right by {change['personal_accuracy'][0]:+.3f} ({ahead(figures, 'personal_accuracy')}; {clear('personal_accuracy')}), and the log-likelihood of the"
            f" other tokens by {change['logp_base'][0]:+.3f} nats ({ahead(figures, 'logp_base')}; {clear('logp_base')}). Weights from the exact answer instead of the"
            f" model's own PIR change ROUGE-L by {r['minus_ce']['oracle']['rouge_l'][0] / mean(figures['ce'], 'rouge_l'):+.1%}.")  # fmt: skip


def identify_section(r):
    runs = {name: r[name] for name in ["base", "ce", "perce"]}
    head = ["", "AUC", "average precision", "precision", "recall", "F1"]
    rows, keys = [head], ["auc", "average_precision", "precision", "recall", "f1"]
    detectors = {"PIR": "PIR", "loss": "−log P (LossCE's score)", "entropy": "entropy (EntCE's score)"}
    for run, found in runs.items():
        for name, label in detectors.items():
            rows.append([f"{label}, {NAMES[run]}", *(spread([one["detectors"][name][key] for one in found]) for key in keys)])
    for name, label in {"word matching": "word stands in the profile", "exact PIR": "exact PIR"}.items():
        rows.append([label, *(f"{runs['perce'][0]['detectors'][name][key]:.3f}" for key in keys)])
    fixed = [["PIR > 0.8", "precision", "recall", "F1", "correlation with the exact PIR"]]
    for run, found in runs.items():
        fixed.append([NAMES[run], *(spread([one["at_0.8"][key] for one in found]) for key in ["precision", "recall", "f1"]), spread([one["correlation"] for one in found])])
    failures = [["PerCE, seed 0", "tokens"]]
    one = runs["perce"][0]
    failures += [[f"personal, PIR ≤ 0.8: {kind}", str(n)] for kind, n in one["missed"].items()] + [[f"not personal, PIR > 0.8: {kind}", str(n)] for kind, n in one["wrong"].items()]
    perce = runs["perce"]
    says = (f"PIR of the PerCE model finds personal tokens with F1 {spread([x['detectors']['PIR']['f1'] for x in perce])} at the validation threshold; the exact PIR"
            f" itself reaches {perce[0]['detectors']['exact PIR']['f1']:.3f}, word matching {perce[0]['detectors']['word matching']['f1']:.3f}. Estimated and exact PIR correlate"
            f" with {spread([x['correlation'] for x in perce])}. Of the {one['missed']['all']} personal tokens that it misses, {one['missed']['second or later token of a span']}"
            f" are second or later tokens of their span, and {one['missed']['exact PIR at most 0.8 too']} would be missed by the exact PIR as well.")  # fmt: skip
    chart = {NAMES[run]: [tuple(point) for point in found[0]["calibration"]] for run, found in runs.items()}
    chart["exact = estimated"] = [(-1, -1), (5, 5)]
    return Section("Which tokens are personal?", says, "identify", [
        ("Test users; thresholds of the best F1 on validation users.", rows), ("The fixed threshold, the floor of the weights.", fixed), ("What it gets wrong.", failures)],
        [("Calibration: tokens in twenty groups by estimated PIR; the mean exact PIR of each group", "estimated PIR, nats", "exact PIR, nats", chart)])  # fmt: skip


def lr_section(r):
    rows = [["", *(f"{lr:g}" for lr in r["rates"])]]
    for metric, digits in [("rouge_l", 3), ("personal_accuracy", 3), ("logp_base", 3), ("grad_norm", 2)]:
        for loss, by_rate in r["figures"].items():
            rows.append([f"{METRICS.get(metric, 'mean gradient norm')}, {NAMES[loss]}", *(spread(of_seeds(found, metric), digits) for found in by_rate)])
    collapsed = [f"{NAMES[loss]} at {lr:g}" for loss, by_rate in r["figures"].items() for lr, found in zip(r["rates"], by_rate)
                 if min(of_seeds(found, "steps_taken")) < r["default"]["steps"]]  # fmt: skip
    scores = {loss: [mean(found, "rouge_l") for found in by_rate] for loss, by_rate in r["figures"].items()}
    says = (f"At the best rate validation ROUGE-L is {max(scores['ce']):.3f} (CE) and {max(scores['perce']):.3f} (PerCE), at the highest one {scores['ce'][-1]:.3f} and"
            f" {scores['perce'][-1]:.3f}." + (f" No finite loss to the end: {', '.join(collapsed)}." if collapsed else ""))  # fmt: skip
    chart = {NAMES[loss]: list(zip(r["rates"], by_rate)) for loss, by_rate in scores.items()}
    caption = f"Validation users, {len(r['figures']['ce'][0])} seeds, mean (low to high)."
    return Section("Learning rates up to collapse", says, "lr", [(caption, rows)], [("Validation ROUGE-L by learning rate", "learning rate (log)", "ROUGE-L F", chart)])


def clip_section(r):
    grid, others = {}, []
    for cell, found, change in zip(r["cells"], r["figures"], r["minus_paper"]):
        if "clip_min" in cell:
            grid[cell["clip_min"], cell["clip_max"]] = found, change
        else:
            others.append(({"longce": "LongCE: min(P/P, 5)", "mean one": "PerCE, weights of mean one"}.get(cell.get("weigh"), "CE"), found, change))
    floors, caps = [sorted(set(side)) for side in zip(*grid)]
    average = lambda metric, floors, caps: statistics.mean(mean(grid[m, M][0], metric) for m in floors for M in caps)
    tables = []
    for metric in ["rouge_l", "personal_accuracy", "logp_base"]:
        rows = [["", *(f"M {M:g}" for M in caps), "all M"]]
        rows += [[f"m {m:g}", *(spread(of_seeds(grid[m, M][0], metric)) for M in caps), f"{average(metric, [m], caps):.3f}"] for m in floors]
        rows.append(["m 0 and above", *(f"{average(metric, [m for m in floors if m >= 0], [M]):.3f}" for M in caps), ""])
        tables.append((f"{METRICS[metric]}: floor m, cap M. Test users, {len(r['figures'][0])} seeds, mean (low to high), all at the rate {r['default']['lr']:g}.", rows))
    paper = ("PerCE, m 0.8, M 5", *grid[0.8, 5.0])
    rows = [["", *(METRICS[metric] for metric in SHOWN[:5]), "mean weight", "ROUGE-L minus the first row's"]]
    rows += [[name, *(spread(of_seeds(found, metric)) for metric in [*SHOWN[:5], "weight"]), "" if name == paper[0] else change_text(change["rouge_l"])]
             for name, found, change in [paper, *others]]  # fmt: skip
    tables.append(("Other weights; differences with paired bootstrap intervals over users.", rows))
    better = [f"m {m:g}, M {M:g} ({change_text(change['rouge_l'])})" for (m, M), (_, change) in grid.items() if change["rouge_l"][1] > 0]
    says = ("ROUGE-L, averaged over the caps: " + ", ".join(f"{average('rouge_l', [m], caps):.3f} with m {m:g}" for m in floors)
            + "; averaged over floors from 0 on: " + ", ".join(f"{average('rouge_l', [m for m in floors if m >= 0], [M]):.3f} with M {M:g}" for M in caps)
            + f". Clearly above the paper's m 0.8, M 5: {', '.join(better) or 'none'}.")  # fmt: skip
    return Section("Floors and caps", says, "clip", tables)


def transfer_section(r):
    tasks, base = list(r["figures"]["ce"]), r["base"]
    tables, away = [], {}
    for metric in ["rouge_l", "personal_accuracy"]:
        rows = [["trained on", *(f"{task}, {NAMES[loss]}" for task in tasks for loss in ["ce", "perce"])]]
        rows.append(["nothing", *(f"{base[on][metric]:.3f}" for on in tasks for _ in range(2))])
        rows += [[task, *(spread(of_seeds(r["figures"][loss][task], metric, on)) for on in tasks for loss in ["ce", "perce"])] for task in tasks]
        seeds = len(r["figures"]["ce"][tasks[0]])
        tables.append((f"{METRICS[metric]}, test users, {seeds} seeds, mean ± 95 % interval; a row a training task.", rows))
        mean_away = lambda loss: statistics.mean(mean(r["figures"][loss][task], metric, on) for task in tasks for on in tasks if on != task)
        away[metric] = {"base": statistics.mean(base[on][metric] for on in tasks), "ce": mean_away("ce"), "perce": mean_away("perce")}
    says = ("On the tasks that were not trained, " + "; ".join(f"{METRICS[metric]}: {one['base']:.3f} before, {one['ce']:.3f} with CE, {one['perce']:.3f} with PerCE" for metric, one in away.items())
            + f". {r['setting']['steps']} steps at {r['setting']['lr']:g}: a long training forgets the form of the other tasks with either loss.")  # fmt: skip
    return Section("From one task to the others", says, "transfer", tables)


def contrast_section(r):
    trained = {"base": "base model", "none": "PerCE, nobody's", "stranger": "PerCE, a stranger's"}
    keys = {"auc": "AUC", "average_precision": "average precision", "f1": "F1, best validation threshold", "f1 at 0.8": "F1, PIR > 0.8", "precision at 0.8": "precision, PIR > 0.8"}
    rows = [["model; profile in the plain view", *keys.values()]]
    for name, by_contrast in r["detection"].items():
        for contrast, ones in by_contrast.items():
            rows.append([f"{trained[name]}; {'nobody' if contrast == 'none' else 'a stranger'}", *(spread([one[key] for one in ones]) for key in keys)])
    scores = [["", "nobody's", "a stranger's", "difference"]]
    for metric in SHOWN[:5]:
        scores.append([METRICS[metric], *(spread(of_seeds(found, metric)) for found in r["figures"].values()), change_text(r["minus_none"][metric])])
    f1 = lambda name, contrast: spread([one["f1"] for one in r["detection"][name][contrast]])
    says = (f"F1 at the best validation threshold, with nobody's and with a stranger's profile in the plain view: {f1('base', 'none')} and {f1('base', 'stranger')} (base model),"
            f" {f1('none', 'none')} and {f1('none', 'stranger')} (PerCE). Trained against a stranger's profile, ROUGE-L changes by {change_text(r['minus_none']['rouge_l'])}.")  # fmt: skip
    caption = f"PerCE trained with either contrast, {len(r['figures']['none'])} seeds, rates {r['best']['none']:g} and {r['best']['stranger']:g} by validation ROUGE-L; paired bootstrap over users."
    return Section("Against nobody, or against a stranger", says, "contrast", [("PIR as a detector, test users.", rows), (caption, scores)])


def curve_section(r):
    at = lambda entry, i, metric: statistics.mean(curve[i][metric] for curve in entry["curves"])
    steps = [point["step"] for point in r["curves"][0]["curves"][0]]
    shown = {metric: METRICS[metric] for metric in ["rouge_l", "personal_accuracy", "logp_base", "pir"]} | {"exact_correlation": "correlation of PIR with the exact PIR"}
    charts = [(f"{name}, along training (validation users)", "steps", name,
               {f"{NAMES[e['loss']]}, {e['examples']} examples": [(step, at(e, i, metric)) for i, step in enumerate(steps)] for e in r["curves"]})
              for metric, name in shown.items()]  # fmt: skip
    rows = [["examples", "epochs", "loss", *(METRICS[metric] for metric in SHOWN[:5]), "mean PIR"]]
    for e in r["curves"]:
        rows.append([str(e["examples"]), f"{16 * r['default']['steps'] / e['examples']:.1f}", NAMES[e["loss"]], *(spread(of_seeds(e["figures"], metric)) for metric in [*SHOWN[:5], "pir"])])
    gain = {}
    for e in r["curves"]:
        gain.setdefault(e["examples"], {})[e["loss"]] = mean(e["figures"], "rouge_l")
    says = "At the last step PerCE's ROUGE-L minus CE's is " + ", ".join(f"{g['perce'] - g['ce']:+.3f} with {n} examples" for n, g in gain.items()) + "."
    return Section("Along training, and with few examples", says, "curve", [("Test users after the last step.", rows)], charts)


def bootstrap_section(r):
    tables = []
    for start, kinds in r["figures"].items():
        rows = [["weights from", *(METRICS[metric] for metric in SHOWN[:5]), "ROUGE-L minus online", "personal tokens right minus online"]]
        for kind, found in kinds.items():
            change = r["minus_online"][start][kind]
            rows.append([kind, *(spread(of_seeds(found, metric)) for metric in SHOWN[:5]),
                         *("" if kind == "PerCE, online" else change_text(change[metric]) for metric in ["rouge_l", "personal_accuracy"])])  # fmt: skip
        tables.append((f"From {'random weights' if start == 'scratch' else f'the {start} model'}, test users, {len(kinds['CE'])} seeds, mean (low to high); paired bootstrap over users.", rows))
    says = "; ".join(f"from {start}: " + ", ".join(f"{kind} {mean(found, 'rouge_l'):.3f}" for kind, found in kinds.items()) for start, kinds in r["figures"].items())
    return Section("How the loop feeds itself", f"ROUGE-L F {says}.", "bootstrap", tables)


def strong_section(r):
    shown = SHOWN[:6]
    rows = [["", "learning rate", *(METRICS[metric] for metric in shown)], ["before", "", *(f"{r['base']['all'][metric]:.3f}" for metric in shown)]]
    rows += [[NAMES[name], f"{r['best'][name]:g}", *(spread(of_seeds(found, metric)) for metric in shown)] for name, found in r["figures"].items()]
    rows += [[f"{NAMES[name]} − CE", "", *(change_text(change[metric]) for metric in shown)] for name, change in r["minus_ce"].items()]
    change = r["minus_ce"]["perce"]
    says = (f"From a base model that predicts {r['base']['all']['personal_accuracy']:.0%} of the personal tokens right before fine-tuning, PerCE changes ROUGE-L by {change_text(change['rouge_l'])}"
            f" ({change['rouge_l'][0] / mean(r['figures']['ce'], 'rouge_l'):+.1%} of CE's; {ahead(r['figures'], 'rouge_l')}), personal tokens predicted right by"
            f" {change_text(change['personal_accuracy'])}.")  # fmt: skip
    caption = f"Test users, {len(r['figures']['ce'])} seeds, mean ± 95 % interval; differences: paired bootstrap over users."
    return Section("From a base model that reads its context better", says, "strong", [(caption, rows), *rates_section(r).tables])


def dialogue_section(r):
    rows = [["turn", *(str(k) for k in range(1, 11))]]
    rows += [[NAMES[name], *(spread([one[k] for one in found], 2) for k in range(10))] for name, found in r["turns"].items()]
    at6 = {name: spread([one[5] for one in found], 2) for name, found in r["turns"].items()}
    chart = {NAMES[name]: [(k + 1, statistics.mean(one[k] for one in found)) for k in range(10)] for name, found in r["turns"].items()}
    says = f"At turn 6 the score is {at6['base']} before fine-tuning, {at6['ce']} with CE and {at6['perce']} with PerCE. 5 shows all that is called for, 1 nothing; at turn 1 nothing is known yet."
    return Section("From writing to chats", says, "dialogue", [("Score at every turn, 60 chats.", rows)], [("Score by turn", "turn", "score, 1 to 5", chart)])


def ability_section(r):
    kinds = ["all", "number", "span", "date"]
    rows = [["steps", "loss", *(METRICS[metric] for metric in SHOWN[:2]), "exact match, all", *(f"F1, {kind}" for kind in kinds)]]
    for one in [{"steps": 0, "loss": "base"} | r["base"], *r["after"]]:
        asked = [spread([x[kind][metric] for x in one["answers"]]) for kind, metric in [("all", "exact match"), *((kind, "f1") for kind in kinds)]]
        rows.append([str(one["steps"]), NAMES[one["loss"]], *(spread(of_seeds(one["figures"], metric)) for metric in SHOWN[:2]), *asked])
    f1 = lambda one: spread([x["all"]["f1"] for x in one["answers"]])
    by_steps = {}
    for one in r["after"]:
        by_steps.setdefault(one["steps"], []).append(f"{f1(one)} ({NAMES[one['loss']]})")
    says = f"DROP's F1 is {f1(r['base'])} before fine-tuning; " + "; ".join(f"after {steps} steps {', '.join(some)}" for steps, some in by_steps.items()) + "."
    return Section("Is general ability kept?", says, "ability", [("300 questions about passages, beside what was learned of the users.", rows)])


SECTIONS = {"cost": cost_section, "rates": rates_section, "main": main_section, "again": again_section, "identify": identify_section, "lr": lr_section, "clip": clip_section, "curve": curve_section,
            "bootstrap": bootstrap_section, "strong": strong_section, "transfer": transfer_section, "contrast": contrast_section, "dialogue": dialogue_section, "ability": ability_section}  # fmt: skip


def recorded():
    """The sections of the experiments that are recorded, by name, in the order of SECTIONS."""
    return {name: section(read_results(name)) for name, section in SECTIONS.items() if (RESULTS / f"{name}.json").exists()}


# --------------------------------------------------------------------------------------------- the README


def markdown_table(rows):
    line = lambda cells: "| " + " | ".join(cells) + " |\n"
    return line(rows[0]) + "|---" * len(rows[0]) + "|\n" + "".join(map(line, rows[1:]))


def markdown(section):
    return section.says + "\n\n" + "\n".join(f"{caption}\n\n{markdown_table(rows)}" for caption, rows in section.tables)


GPU_ROWS = {"perce_over_ce": "PerCE step / CE step, time", "floor_over_ce": "the floor by arithmetic", "ce_tokens_per_s": "CE, tokens/s", "perce_tokens_per_s": "PerCE, tokens/s",
            "ce_utilisation": "CE, model FLOP utilisation", "perce_utilisation": "PerCE, model FLOP utilisation", "peak_gb": "peak memory, GB"}  # fmt: skip


def gpu_text():
    if not (RESULTS / "gpu.json").exists():
        return "Not recorded yet: no CUDA device was at hand.\n"
    figures = read_results("gpu")
    rows = [["", figures["device"]]] + [[label, f"{figures[name]:,.2f}" if figures[name] < 1000 else f"{figures[name]:,.0f}"] for name, label in GPU_ROWS.items() if figures.get(name)]
    return f"{figures['parameters'] / 1e6:.0f} M parameters, length 1,024, bfloat16, compiled.\n\n{markdown_table(rows)}"


def memory_text():
    figures = read_results("memory")
    parts = list(next(iter(figures.values())))
    return markdown_table([["GB", *parts]] + [[name, *(f"{size:.1f}" for size in by_part.values())] for name, by_part in figures.items()])


REAL_RUNS = {"before": "before", "ce": "CE", "perce": "PerCE", "perce-stranger": "PerCE against a stranger"}


def real_text():
    """Before and after fine-tuning on real texts, with nobody's and with a stranger's profile in the plain view."""
    parts = []
    for path in sorted(RESULTS.glob("real-*.json")):
        r = json.loads(path.read_text(encoding="utf-8"))
        setting, against = r["settings"], {"none": "", "stranger": " against a stranger"}
        figures = {contrast: [r[contrast]["runs"][run] for run in REAL_RUNS] for contrast in against}
        rows = [["", *REAL_RUNS.values()], ["learning rate", "", *(f"{r['rates'][run]:g}" for run in list(REAL_RUNS)[1:])]]
        rows += [[METRICS[metric], *(f"{one[metric]:.3f}" for one in figures["none"])] for metric in ["rouge_l", "logp", "logp_plain", "pir"]]
        rows.append(["mean PIR against a stranger", *(f"{one['pir']:.3f}" for one in figures["stranger"])])
        for contrast, words in against.items():
            for share in ["0.05", "0.5", "0.95"]:
                rows.append([f"{float(share):.0%} of tokens have PIR{words} below", *(f"{one['pir_quantiles'][share]:.2f}" for one in figures[contrast])])
        change = lambda metric: "; ".join(f"{REAL_RUNS[run]} {change_text(by[metric].values())}" for run, by in r["none"]["minus ce"].items())
        chosen = f", rates chosen among {', '.join(f'{float(rate):g}' for rate in r['validation log-likelihood']['ce'])} on validation users" if r["validation log-likelihood"] else ""
        parts.append(f"{r['model']} on {r['data']}: {setting['steps']} steps of {setting['batch_size'] * setting['grad_accum']} examples"
                     f" ({'LoRA of rank %d' % setting['lora_rank'] if setting['lora_rank'] else 'all weights'}){chosen}, {r['examples']} held-out examples, one seed.\n\n"
                     f"{markdown_table(rows)}\nDifference to CE, paired bootstrap over users. ROUGE-L: {change('rouge_l')}. Log-likelihood with persona: {change('logp')}.\n")  # fmt: skip
    return "\n".join(parts) or "Not recorded yet.\n"


def readme_parts():
    """{name: what the README says between <!-- name: ... --> and <!-- end of name -->}, from the recorded files."""
    sections = recorded()
    one = lambda name: markdown(sections[name]) if name in sections else "Not recorded yet.\n"
    others = [f"**{s.title}** (`python -m perce_mini.experiments {name}`). {markdown(s)}" for name, s in sections.items() if name not in ("cost", "main", "again")]
    if missing := [name for name in SECTIONS if name not in sections]:
        others.append(f"Not recorded yet: {', '.join(missing)}.\n")
    return {"example": f"```text\n{(RESULTS / 'train_output.txt').read_text(encoding='utf-8')}```\n", "results": one("main") + "\n" + one("again"),
            "experiments": "\n".join(others), "cost": one("cost"),
            "gpu": gpu_text(), "memory": memory_text(), "real": real_text()}  # fmt: skip


def with_parts(readme):
    for name, text in readme_parts().items():
        readme, n = re.subn(f"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)", lambda match: match[1] + text + match[2], readme, flags=re.S)
        if n != 1:
            raise cli.RunError(f"{README} must have one section {name!r}, not {n}")
    return readme


def write_readme():
    text = with_parts(README.read_text(encoding="utf-8"))
    replace_file(README, lambda new: Path(new).write_text(text, encoding="utf-8"))
    print(f"wrote {README}")


# ----------------------------------------------------------------------------------------------- the page

STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
section { border-top: 1px solid var(--line); padding: .6rem 0 1rem; } h2 { font-size: 1.15rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; vertical-align: bottom; }
th:not(:first-child) { white-space: normal; min-width: 4rem; }
th:first-child, td:first-child { text-align: left; } figcaption, .caption { text-align: left; font-size: .85rem; opacity: .8; padding: .3rem 0; }
figure { margin: 1rem 0; } svg { width: 100%; max-width: 40rem; height: auto; } code { font-size: .85rem; }
"""
COLOURS = ["#d97706", "#3b82f6", "#16a34a", "#a855f7", "#dc2626", "#0891b2", "#ca8a04", "#64748b"]


def line_chart(caption, x_label, y_label, series):
    """An SVG (640 x 320) of lines, its axes labelled at their ends; the x axis is logarithmic where the label says so."""
    scale = math.log10 if "(log)" in x_label else float
    points = [(scale(x), y) for line in series.values() for x, y in line]
    (x0, x1), (y0, y1) = [(min(c), max(c)) for c in zip(*points)]
    at = lambda x, y: f"{50 + 380 * (scale(x) - x0) / (x1 - x0 or 1):.1f},{280 - 255 * (y - y0) / (y1 - y0 or 1):.1f}"
    parts = [f'<svg viewBox="0 0 640 320" role="img" aria-label="{escape(caption)}" font-size="12" fill="currentColor">',
             '<path d="M50 20V280H430" fill="none" stroke="currentColor" opacity=".5"/>']  # fmt: skip
    for y in [y0, (y0 + y1) / 2, y1]:
        parts.append(f'<text x="45" y="{284 - 255 * (y - y0) / (y1 - y0 or 1):.0f}" text-anchor="end">{y:.3g}</text>')
    for x in [x0, x1]:
        shown = 10**x if scale is math.log10 else x
        parts.append(f'<text x="{50 + 380 * (x - x0) / (x1 - x0 or 1):.0f}" y="296" text-anchor="middle">{shown:.3g}</text>')
    parts.append(f'<text x="240" y="312" text-anchor="middle">{escape(x_label)}</text><text x="50" y="12">{escape(y_label)}</text>')
    for i, (name, line) in enumerate(series.items()):
        colour, dash = COLOURS[i // 2 % 8 if len(series) > 4 else i], ' stroke-dasharray="5 3"' if len(series) > 4 and i % 2 == 0 else ""
        parts.append(f'<polyline points="{" ".join(at(x, y) for x, y in line)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<path d="M440 {30 + 18 * i}h22" stroke="{colour}" stroke-width="2"{dash}/><text x="468" y="{34 + 18 * i}">{escape(name)}</text>')
    return "".join(parts) + "</svg>"


def html_table(caption, rows):
    line = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
    body = "".join(line(row, "td") for row in rows[1:])
    return f'<p class="caption">{escape(caption)}</p><div class="wide"><table><thead>{line(rows[0], "th")}</thead><tbody>{body}</tbody></table></div>'


def page():
    """Every recorded table and figure, as one self-contained page."""
    parts = []
    for name, section in recorded().items():
        tables = "".join(html_table(caption, rows) for caption, rows in section.tables)
        charts = "".join(f"<figure>{line_chart(*chart)}<figcaption>{escape(chart[0])}</figcaption></figure>" for chart in section.charts)
        parts.append(f"<section><h2>{escape(section.title)}</h2><p>{escape(section.says)}</p>{charts}{tables}"
                     f"<p><code>python -m perce_mini.experiments {name}</code></p></section>")  # fmt: skip
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>perce-mini: the paper in miniature</title>'
            f"<style>{STYLE}</style><h1>The paper in miniature</h1><p>PerContrast and the PerCE loss (arXiv 2603.06595), in a world whose personal words are known.</p>"
            f"{''.join(parts)}</html>\n")  # fmt: skip


def write_page(path):
    replace_file(path, lambda new: Path(new).write_text(page(), encoding="utf-8"))
    print(f"wrote {path}")
