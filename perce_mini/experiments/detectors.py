"""Which tokens are personal? PIR and other detectors, against what the generator marked."""

import re

import numpy as np
from tqdm import tqdm

from perce_mini.experiments.picture import example_of
from perce_mini.experiments.records import chart, of_seeds, table, write
from perce_mini.experiments.rows import exact_tokens, solved_rows
from perce_mini.experiments.runs import TEST, Run, encode, load
from perce_mini.experiments.suite import COLUMNS, PAIRED, difference
from perce_mini.percontrast import CLIP_MIN
from perce_mini.scoring import MAX_NEW_TOKENS, evaluate

LOSS, ENTROPY = "−log P (LossCE's score)", "entropy (EntCE's score)"
WORDS, EXACT = "word stands in the profile", "exact PIR"  # no model is needed for these
FIXED = f"PIR > {CLIP_MIN}"  # the threshold that is the floor of the weights


def token_table(run, split, contrast="none"):
    """{name: array (N,)} over the response tokens of a split: detectors' scores, and the truth."""
    model, tokenizer, _ = load(run)
    examples = encode(solved_rows(split), run, model, tokenizer, contrast, MAX_NEW_TOKENS)
    parts = []
    for record in evaluate(model, tokenizer, examples, 0, 0, batch_size=30, desc=split):
        row, personal = record["row"], record["personal"]
        parts.append(
            {
                "PIR": record["pir"],
                LOSS: -record["logp"],
                ENTROPY: record["entropy"],
                WORDS: stands_in_profile(row, tokenizer),
                EXACT: exact_tokens(row, tokenizer),
                "exact loss": -exact_tokens(row, tokenizer, "exact_logp"),
                "personal": personal,
                "later in its span": personal & [False, *personal[:-1]],
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def stands_in_profile(row, tokenizer):
    """One number per response token: 1 if it touches a word that stands in the profile, else 0."""
    profile = " ".join(item["response"] for item in row["profile"])
    profile_words = set(re.sub("[.,]", " ", profile.lower()).split())
    words = re.finditer(r"\S+", row["response"])
    spans = [word.span() for word in words if word[0].lower().strip(".,!") in profile_words]
    tokens = tokenizer.spans(row["response"])
    touches = [any(start < b and a < end for a, b in spans) for start, end in tokens]
    return np.array([*touches, False], dtype=float)  # the last is the end token


def detect(run, contrast="none"):
    """What the detectors find among test users' tokens; validation users choose thresholds.

    {detector: its figures}, "fixed": those of PIR > 0.8, "mistakes" of that, "calibration", and how
    likely the texts are to "the model" and to an "exact reader".
    """
    val, test = token_table(run, "val", contrast), token_table(run, "test", contrast)
    true, pir = test["personal"], test["PIR"]
    results = {}
    for name in ["PIR", LOSS, ENTROPY, WORDS, EXACT]:
        flagged = test[name] > best_threshold(val[name], val["personal"])
        results[name] = {"AUC": auc(test[name], true)} | precision_recall(flagged, true)
    correlation = float(np.corrcoef(pir, test[EXACT])[0, 1])
    results["fixed"] = precision_recall(pir > CLIP_MIN, true)
    results["fixed"]["correlation with the exact PIR"] = correlation
    missed = true & (pir <= CLIP_MIN)
    kinds = {"all": missed, "second or later token of a span": missed & test["later in its span"]}
    kinds[f"exact PIR at most {CLIP_MIN} too"] = missed & (test[EXACT] <= CLIP_MIN)
    wrong = {f"personal, PIR ≤ {CLIP_MIN}: {kind}": tokens for kind, tokens in kinds.items()}
    wrong[f"not personal, {FIXED}: all"] = ~true & (pir > CLIP_MIN)
    results["mistakes"] = {kind: int(tokens.sum()) for kind, tokens in wrong.items()}
    results["calibration"] = calibration(pir, test[EXACT])
    for reader, losses in [("the model", test[LOSS]), ("exact reader", test["exact loss"])]:
        parts = {"logp_personal": losses[true], "logp_other": losses[~true], "logp": losses}
        results[reader] = {name: -float(part.mean()) for name, part in parts.items()}
    return results


def calibration(pir, exact):
    """[[mean PIR, mean exact PIR], ...] of twenty equally large groups of tokens, sorted by PIR."""
    group = np.digitize(pir, np.unique(np.quantile(pir, np.linspace(0.05, 0.95, 19))))
    return [[float(x[group == g].mean()) for x in (pir, exact)] for g in np.unique(group)]


def precision_recall(flagged, true):
    hits, n_flagged, n_true = (flagged & true).sum(), flagged.sum(), true.sum()
    f1 = 2 * hits / max(1, n_flagged + n_true)
    values = {"precision": hits / max(1, n_flagged), "recall": hits / max(1, n_true), "F1": f1}
    return {name: float(value) for name, value in values.items()}


def best_threshold(score, true):
    """The threshold with the best F1; tokens that score above it are called personal."""
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, len(score) + 1) + true.sum())  # of the first 1, 2, ... tokens
    f1[:-1][score[:-1] == score[1:]] = 0  # no threshold separates equal scores
    return np.nextafter(score[f1.argmax()], -np.inf)


def auc(score, true):
    """The probability that a personal token scores above another one; ties count half."""
    others = np.sort(score[~true])
    places = [np.searchsorted(others, score[true], side).mean() for side in ["left", "right"]]
    return float(np.mean(places)) / len(others)


def detect_all(groups, desc, contrast="none"):
    """{name: runs} -> {name: what `detect` returns for each run}."""
    results = {}
    for name, runs in groups.items():
        bar = tqdm(runs, f"{desc}, {name}", unit="run", dynamic_ncols=True)
        results[name] = [detect(run, contrast) for run in bar]
    return results


def record_example(run):
    """Write example.json for the picture in the README: the review with the most personal words."""
    model, tokenizer, _ = load(run)
    reviews = [row for row in solved_rows("test") if row["task"] == "review"]
    row = max(reviews, key=lambda row: len(row["personal"]))
    examples = encode([row], run, model, tokenizer, "none", MAX_NEW_TOKENS)
    write("example", example_of(evaluate(model, tokenizer, examples, 0, 0)[0], tokenizer))


def measure_identify(suite):
    """Which tokens are personal?"""
    best, _ = suite.at_best_rates({"ce": Run("ce"), "perce": Run()})
    groups = {"base": [Run(steps=0)]} | suite.repeat(best, 3)
    suite.figures(groups, "identify", TEST)
    record_example(groups["perce"][0])
    results = detect_all(groups, "identify")
    rows, fixed, readers, lines = {}, {}, {}, {}
    for name, seeds in results.items():
        for detector in ["PIR", LOSS, ENTROPY]:
            rows[f"{detector}, {name}"] = of_seeds(seeds, detector)
        fixed[name], readers[name] = of_seeds(seeds, "fixed"), of_seeds(seeds, "the model")
        points = np.array(of_seeds(seeds, "calibration"))  # (seeds, groups, 2)
        lines[name] = [[np.mean(x), *y] for x, y in zip(points[:, :, 0].T, points[:, :, 1].T)]
    first = results["perce"][0]
    rows |= {WORDS: [first[WORDS]], EXACT: [first[EXACT]]}
    readers["who knows the grammar and has read as much"] = [first["exact reader"]]
    lines["exact = estimated"] = [[-1, -1], [5, 5]]
    wrong = {kind: [{"tokens": n}] for kind, n in first["mistakes"].items()}
    caption = "Test users; thresholds with the best F1 on validation users."
    tables = [
        table(caption, first["PIR"], rows),
        table("The fixed threshold, the floor of the weights.", first["fixed"], fixed, FIXED),
        table("What it gets wrong.", ["tokens"], wrong, "PerCE, seed 0"),
        table("What is left to learn.", COLUMNS[2:5], readers, "reader"),
    ]
    axes = "estimated PIR, nats", "exact PIR, nats"
    return {"tables": tables, "charts": [chart("calibration", *axes, {"": lines})]}


def measure_contrast(suite):
    """Against nobody, or against a stranger."""
    profiles = {"none": "nobody's", "stranger": "a stranger's"}
    best, _ = suite.at_best_rates({contrast: Run(contrast=contrast) for contrast in profiles})
    groups = {"base": [Run(steps=0)]} | suite.repeat(best, 3)
    figures = suite.figures(groups, "contrast")
    detected = {contrast: detect_all(groups, profiles[contrast], contrast) for contrast in profiles}
    rows = {}
    for name in groups:
        model = "base" if name == "base" else f"PerCE, trained with {profiles[name]}"
        for contrast, profile in profiles.items():
            rows[model, profile] = []
            for one in detected[contrast][name]:
                row = {"AUC": one["PIR"]["AUC"], "F1, best validation threshold": one["PIR"]["F1"]}
                row |= {f"{key}, {FIXED}": one["fixed"][key] for key in ["F1", "precision"]}
                rows[model, profile].append(row)
    columns, corner = list(rows["base", "nobody's"][0]), ("model", "profile in the plain view")
    first = table("PIR as a detector, test users.", columns, rows, corner)
    trained = {profile: figures[contrast] for contrast, profile in profiles.items()}
    trained["difference"] = [difference(groups["stranger"], groups["none"])]
    rates = " and ".join(f"{run.lr:g}" for run in best.values())
    caption = f"PerCE trained with either contrast, rates {rates}; {PAIRED}."
    return {"tables": [first, table(caption, COLUMNS[:5], trained, transposed=True)]}
