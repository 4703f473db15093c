"""Which tokens are personal? PIR and its rivals as detectors, against what is known of the default data."""

import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from perce_mini import scoring
from perce_mini.experiments.picture import example_of
from perce_mini.experiments.records import FIRST, chart, of_seeds, table, write
from perce_mini.experiments.rows import exact_tokens, held_out, solved_rows
from perce_mini.experiments.runs import TEST, Run, load
from perce_mini.experiments.suite import PAIRED, difference
from perce_mini.percontrast import CLIP_MIN

DETECTORS = ["PIR", "exact PIR", "word matching", "loss", "entropy"]


def token_table(folder, split, contrast):
    """{name: array over all response tokens of a split}: what every detector says, and the truth."""
    model, tokenizer, _ = load(folder)
    examples = held_out(solved_rows(split), model, tokenizer, contrast)
    columns = {name: [] for name in [*DETECTORS, "exact loss", "personal", "later in its span"]}
    for i in range(0, len(examples), 30):
        group = examples[i : i + 30]
        for e, score in zip(group, scoring.score_tokens(model, group)):
            columns["PIR"].append(score["pir"])
            columns["loss"].append(-score["logp"])
            columns["entropy"].append(score["entropy"])
            columns["exact PIR"].append(exact_tokens(e.row, tokenizer))
            columns["exact loss"].append(-exact_tokens(e.row, tokenizer, "exact_logp"))
            columns["word matching"].append(stands_in_profile(e, tokenizer))
            columns["personal"].append(e.personal)
            columns["later in its span"].append([a and b for a, b in zip([False, *e.personal], e.personal)])
    return {name: np.concatenate(parts).astype(float) for name, parts in columns.items()}


def stands_in_profile(example, tokenizer):
    """True for every token of a word that stands in the profile."""
    profile = " ".join(item["response"] for item in example.row["profile"])
    known = set(profile.lower().replace(".", " ").replace(",", " ").split())
    words = re.finditer(r"\S+", example.row["response"])
    hits = [word.span() for word in words if word[0].lower().strip(".,!") in known]
    spans = tokenizer.spans(example.response)
    return [any(start < last and first < end for first, last in hits) for start, end in spans]


def detect(folder, contrast="none"):
    """How well each detector finds the personal tokens of test users, at validation users' best threshold.

    {detector: {measure: value}}; what PIR finds and takes wrongly at the fixed threshold, the floor of the weights; and
    how well the texts are known, by the model and by an exact reader.
    """
    val, test = token_table(folder, "val", contrast), token_table(folder, "test", contrast)
    true, found = test["personal"] > 0, {}
    for name in DETECTORS:
        best = best_threshold(val[name], val["personal"] > 0)
        found[name] = {"AUC": auc(test[name], true)} | precision_recall(test[name] > best, true)
    correlation = float(np.corrcoef(test["PIR"], test["exact PIR"])[0, 1])
    found["fixed"] = precision_recall(test["PIR"] > CLIP_MIN, true) | {"correlation with the exact PIR": correlation}
    for name in ["loss", "exact loss"]:
        means = {"logp_personal": -test[name][true].mean(), "logp_other": -test[name][~true].mean()}
        found[f"known, {name}"] = means | {"logp": -test[name].mean()}
    return found | {"mistakes": mistakes(test, true), "calibration": calibration(test["PIR"], test["exact PIR"])}


def mistakes(test, true):
    """How many personal tokens the fixed threshold misses, and what these are; how many others it takes."""
    missed = true & (test["PIR"] <= CLIP_MIN)
    tokens = {
        f"personal, PIR ≤ {CLIP_MIN}: all": missed,
        f"personal, PIR ≤ {CLIP_MIN}: second or later token of a span": missed & (test["later in its span"] > 0),
        f"personal, PIR ≤ {CLIP_MIN}: exact PIR at most {CLIP_MIN} too": missed & (test["exact PIR"] <= CLIP_MIN),
        f"not personal, PIR > {CLIP_MIN}: all": ~true & (test["PIR"] > CLIP_MIN),
    }
    return {name: int(chosen.sum()) for name, chosen in tokens.items()}


def calibration(pir, exact):
    """[[mean PIR, mean exact PIR], ...] of twenty equally large groups of tokens, by PIR."""
    group = np.digitize(pir, np.unique(np.quantile(pir, np.linspace(0.05, 0.95, 19))))
    return [[float(x[group == g].mean()) for x in (pir, exact)] for g in np.unique(group)]


def precision_recall(said, true):
    hits, n_said, n_true = (said & true).sum(), said.sum(), true.sum()
    precision, recall, f1 = hits / max(1, n_said), hits / max(1, n_true), 2 * hits / max(1, n_said + n_true)
    return {"precision": float(precision), "recall": float(recall), "F1": float(f1)}


def best_threshold(score, true):
    """The threshold of the best F1: what scores above it is called personal."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + true.sum())
    f1[np.append(score[order][:-1] == score[order][1:], False)] = 0  # no threshold parts equals
    return float(np.nextafter(score[order][f1.argmax()], -np.inf))


def auc(score, true):
    """The probability that a personal token scores above another one; ties count half."""
    others = np.sort(score[~true])
    below, not_above = (np.searchsorted(others, score[true], side).mean() for side in ["left", "right"])
    return float((below + not_above) / 2 / len(others))


# --------------------------------------------------------------------------------------- the experiments


def detect_all(groups, desc, contrast="none"):
    """{name: what the detectors find, for each seed}, by the base model and by {name: runs}."""
    folders = {"base": [Path(Run.base)]} | {name: [run.folder for run in runs] for name, runs in groups.items()}
    todo = [(name, folder) for name, some in folders.items() for folder in some]
    found = {name: [] for name in folders}
    for name, folder in tqdm(todo, desc, unit="run", dynamic_ncols=True):
        found[name].append(detect(folder, contrast))
    return found


def record_example(run):
    """Write example.json, for the picture at the top of the README: the test review with the most personal words."""
    model, tokenizer, _ = load(run.folder)
    row = max((row for row in solved_rows("test") if row["task"] == "review"), key=lambda row: len(row["personal"]))
    records = scoring.evaluate(model, tokenizer, held_out([row], model, tokenizer), 0, 0)
    write("example", example_of(records[0], tokenizer))


def measure_identify(suite):
    """Which tokens are personal?"""
    kinds, rows, lines = {"ce": Run("ce"), "perce": Run()}, {}, {}
    groups = suite.repeat(suite.at_best_rates(kinds)[0], 3)
    suite.figures(groups, "identify", TEST)
    record_example(groups["perce"][0])
    found = detect_all(groups, "identify")
    for run, seeds in found.items():
        rows[f"PIR, {run}"] = of_seeds(seeds, "PIR")
        rows[f"−log P (LossCE's score), {run}"] = of_seeds(seeds, "loss")
        rows[f"entropy (EntCE's score), {run}"] = of_seeds(seeds, "entropy")
        lines[run] = [[np.mean(g[:, 0]), *g[:, 1]] for g in np.array(of_seeds(seeds, "calibration")).swapaxes(0, 1)]
    first = found["perce"][0]
    rows |= {"word stands in the profile": [first["word matching"]], "exact PIR": [first["exact PIR"]]}
    lines["exact = estimated"] = [[-1, -1], [5, 5]]
    fixed = {run: of_seeds(seeds, "fixed") for run, seeds in found.items()}
    mistakes = {name: [{"tokens": n}] for name, n in first["mistakes"].items()}
    known = {run: of_seeds(seeds, "known, loss") for run, seeds in found.items()}
    known["who knows the grammar and has read as much"] = [first["known, exact loss"]]
    tables = [
        table("Test users; thresholds of the best F1 on validation users.", first["PIR"], rows),
        table("The fixed threshold, the floor of the weights.", first["fixed"], fixed, "PIR > 0.8"),
        table("What it gets wrong.", ["tokens"], mistakes, "PerCE, seed 0"),
        table("What is left to learn.", known["base"][0], known, "reader"),
    ]
    return {"tables": tables, "charts": [chart("calibration", "estimated PIR, nats", "exact PIR, nats", {"": lines})]}


def in_short(one):
    found = one["PIR"] | {f"{name}, PIR > 0.8": x for name, x in one["fixed"].items()}
    return found | {"F1, best validation threshold": found["F1"]}


def measure_contrast(suite):
    """Against nobody, or against a stranger."""
    kinds, rows = {"none": Run(), "stranger": Run(contrast="stranger")}, {}
    groups = suite.repeat(suite.at_best_rates(kinds)[0], 3)
    trained = suite.figures(groups, "contrast")
    found = {contrast: detect_all(groups, f"contrast, {contrast}", contrast) for contrast in kinds}
    models = {"base": "base", "none": "PerCE, trained with nobody's", "stranger": "PerCE, trained with a stranger's"}
    for name, model in models.items():
        rows[f"{model} | nobody's"] = list(map(in_short, found["none"][name]))
        rows[f"{model} | a stranger's"] = list(map(in_short, found["stranger"][name]))
    columns = ["AUC", "F1, best validation threshold", "F1, PIR > 0.8", "precision, PIR > 0.8"]
    detected = table("PIR as a detector, test users.", columns, rows, "model | profile in the plain view")
    rows = {"nobody's": trained["none"], "a stranger's": trained["stranger"]}
    rows["difference"] = difference(groups["stranger"], groups["none"])
    rates = " and ".join(f"{runs[0].lr:g}" for runs in groups.values())
    caption = f"PerCE trained with either contrast, rates {rates}; {PAIRED}."
    return {"tables": [detected, table(caption, FIRST, rows, transposed=True)]}
