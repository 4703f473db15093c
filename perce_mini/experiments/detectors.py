"""Which tokens are personal? Compare PIR and simpler detectors with the generator's spans."""

import re

import numpy as np
from tqdm import tqdm

from perce_mini.experiments.picture import example_of
from perce_mini.experiments.records import chart, of_seeds, table, write
from perce_mini.experiments.rows import exact_tokens, rows_with_exact_pir
from perce_mini.experiments.runs import TEST, Run, encode, load
from perce_mini.experiments.suite import COLUMNS, PAIRED, difference
from perce_mini.percontrast import CLIP_MIN
from perce_mini.scoring import MAX_NEW_TOKENS, evaluate

LOSS, ENTROPY = "−log P (LossCE's score)", "entropy (EntCE's score)"
WORDS, EXACT = "word occurs in the profile", "exact PIR"  # detectors without a model
OPTIMAL = "optimal predictor (knows the generator)"
FIXED = f"PIR > {CLIP_MIN}"


def token_table(run, split, contrast="none"):
    """Return {name: array (N,)} over the response tokens of a split: detector scores and labels."""
    model, tokenizer, _ = load(run)
    examples = encode(rows_with_exact_pir(split), run, model, tokenizer, contrast, MAX_NEW_TOKENS)
    parts = []
    for record in evaluate(model, tokenizer, examples, 0, 0, batch_size=30, desc=split):
        row, personal = record["row"], record["personal"]
        part = {"PIR": record["pir"], LOSS: -record["logp"], ENTROPY: record["entropy"]}
        part |= {WORDS: occurs_in_profile(row, tokenizer), EXACT: exact_tokens(row, tokenizer)}
        part["exact loss"] = -exact_tokens(row, tokenizer, "exact_logp")
        part |= {"personal": personal, "later in its span": personal & [False, *personal[:-1]]}
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def occurs_in_profile(row, tokenizer):
    """Return 1.0 for response tokens that overlap a word of the profile, else 0.0: (N,)."""
    profile = " ".join(item["response"] for item in row["profile"])
    profile_words = set(re.sub("[.,]", " ", profile.lower()).split())
    words = re.finditer(r"\S+", row["response"])
    spans = [word.span() for word in words if word[0].lower().strip(".,!") in profile_words]
    tokens = tokenizer.spans(row["response"])
    overlaps = [any(start < b and a < end for a, b in spans) for start, end in tokens]
    return np.array([*overlaps, False], dtype=float)  # the last one is the end token


def detect(run, contrast="none"):
    """Evaluate the detectors on test users. Thresholds are chosen on validation users.

    Returns {detector: {AUC, precision, recall, F1}}, and under further keys: "fixed" (the figures
    of the threshold PIR > 0.8), "mistakes" (of that threshold), "calibration" (of PIR), and log P
    under "the model" and OPTIMAL.
    """
    val, test = token_table(run, "val", contrast), token_table(run, "test", contrast)
    true, pir, exact = test["personal"], test["PIR"], test[EXACT]
    results = {}
    for name in ["PIR", LOSS, ENTROPY, WORDS, EXACT]:
        flagged = test[name] > best_threshold(val[name], val["personal"])
        results[name] = {"AUC": auc(test[name], true)} | precision_recall(flagged, true)
    correlation = {"correlation with the exact PIR": float(np.corrcoef(pir, exact)[0, 1])}
    results["fixed"] = precision_recall(pir > CLIP_MIN, true) | correlation
    missed = true & (pir <= CLIP_MIN)
    prefix = f"personal, PIR ≤ {CLIP_MIN}"
    mistakes = {
        f"{prefix}: all": missed,
        f"{prefix}: second or later token of a span": missed & test["later in its span"],
        f"{prefix}: exact PIR at most {CLIP_MIN} too": missed & (exact <= CLIP_MIN),
        f"not personal, {FIXED}: all": ~true & (pir > CLIP_MIN),
    }
    results["mistakes"] = {kind: int(tokens.sum()) for kind, tokens in mistakes.items()}
    results["calibration"] = calibration(pir, exact)
    for reader, losses in [("the model", test[LOSS]), (OPTIMAL, test["exact loss"])]:
        parts = {"logp_personal": losses[true], "logp_other": losses[~true], "logp": losses}
        results[reader] = {name: -float(part.mean()) for name, part in parts.items()}
    return results


def calibration(pir, exact):
    """Sort tokens by PIR into twenty groups of equal size: [[mean PIR, mean exact PIR], ...]."""
    group = np.digitize(pir, np.unique(np.quantile(pir, np.linspace(0.05, 0.95, 19))))
    return [[float(x[group == g].mean()) for x in (pir, exact)] for g in np.unique(group)]


def precision_recall(flagged, true):
    """Return precision, recall and F1 of the flagged tokens. Both arguments are bools (N,)."""
    hits, n_flagged, n_true = (int(x.sum()) for x in (flagged & true, flagged, true))
    f1 = 2 * hits / max(1, n_flagged + n_true)
    return {"precision": hits / max(1, n_flagged), "recall": hits / max(1, n_true), "F1": f1}


def best_threshold(score, true):
    """Return the threshold with the best F1. Tokens with a higher score are flagged."""
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(true[order])
    # F1 if the top 1, 2, ... tokens are flagged
    f1 = 2 * hits / (np.arange(1, len(score) + 1) + true.sum())
    f1[:-1][score[:-1] == score[1:]] = 0  # no threshold separates equal scores
    return np.nextafter(score[f1.argmax()], -np.inf)


def auc(score, true):
    """Return the probability that a personal token scores above one that is not personal.

    Ties count half.
    """
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
    """Write example.json for the picture in the README: the review with the most personal spans."""
    model, tokenizer, _ = load(run)
    reviews = [row for row in rows_with_exact_pir("test") if row["task"] == "review"]
    row = max(reviews, key=lambda row: len(row["personal"]))
    examples = encode([row], run, model, tokenizer, "none", MAX_NEW_TOKENS)
    write("example", example_of(evaluate(model, tokenizer, examples, 0, 0)[0], tokenizer))


def measure_identify(suite):
    """Which tokens are personal?"""
    groups = {"base": [Run(steps=0)]} | suite.repeat(suite.tuned(), 3)
    suite.run_all(groups, "identify", TEST)  # trains them
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
    readers[OPTIMAL] = [first[OPTIMAL]]
    lines["exact = estimated"] = [[-1, -1], [5, 5]]
    wrong = {kind: [{"tokens": n}] for kind, n in first["mistakes"].items()}
    caption = "Test users. The thresholds have the best F1 on validation users."
    parts = ["logp_personal", "logp_other", "logp"]
    tables = [
        table(caption, first["PIR"], rows),
        table("A fixed threshold: the floor of PerCE's weights.", first["fixed"], fixed, FIXED),
        table("Mistakes of this threshold.", ["tokens"], wrong, "PerCE, seed 0"),
        table("How much is left to learn.", parts, readers, "reader"),
    ]
    axes = "estimated PIR, nats", "exact PIR, nats"
    return {"tables": tables, "charts": [chart("calibration", *axes, {"": lines})]}


def measure_contrast(suite):
    """PIR against no profile, or against a stranger's."""
    profiles = {"none": "no profile", "stranger": "a stranger's profile"}
    best, _ = suite.at_best_rates({contrast: Run(contrast=contrast) for contrast in profiles})
    groups = {"base": [Run(steps=0)]} | suite.repeat(best, 3)
    figures = suite.run_all(groups, "contrast")
    detected = {contrast: detect_all(groups, profiles[contrast], contrast) for contrast in profiles}
    rows = {}
    for name in groups:
        model = "base" if name == "base" else f"PerCE, trained against {profiles[name]}"
        for contrast, profile in profiles.items():
            rows[model, profile] = []
            for one in detected[contrast][name]:
                row = {"AUC": one["PIR"]["AUC"], "F1, best validation threshold": one["PIR"]["F1"]}
                row |= {f"{key}, {FIXED}": one["fixed"][key] for key in ["F1", "precision"]}
                rows[model, profile].append(row)
    columns, corner = rows["base", "no profile"][0], ("model", "profile in the plain view")
    first = table("PIR as a detector on test users.", columns, rows, corner)
    trained = {profile: figures[contrast] for contrast, profile in profiles.items()}
    trained["difference"] = [difference(groups["stranger"], groups["none"])]
    rates = " and ".join(f"{run.lr:g}" for run in best.values())
    caption = "PerCE, trained with no profile or with a stranger's profile in the plain view"
    caption += f" (learning rates {rates}). Difference (a stranger's minus none): {PAIRED}."
    return {"tables": [first, table(caption, COLUMNS[:7], trained, transposed=True)]}
