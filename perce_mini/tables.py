"""Print tables, differences and texts for scored runs, and write result files.

Most functions take {run: its records from scoring.evaluate}. All runs are scored on the same
examples, and every run is compared with the first one.
"""

import json
import re
import textwrap
from pathlib import Path

import numpy as np

from perce_mini.percontrast import CLIP_MAX, CLIP_MIN
from perce_mini.rouge import words
from perce_mini.rows import subsample
from perce_mini.runtime.errors import plural, printable
from perce_mini.runtime.files import write_jsonl_atomic, write_text_atomic
from perce_mini.scoring import METRICS, by_task, difference, summarize

HEADLINES = ["rouge_l", "meteor_exact", "length"]
HEADLINES += ["logp", "logp_plain", "pir", "personal_accuracy", "pir_f1"]
NOTHING = "(nothing)"  # shown in place of a blank text
FEW_USERS = 20  # with fewer, no difference is called significant
COMPARED = ["rouge_l", "logp", "personal_accuracy", "pir_f1"]  # higher is better


def short_names(runs):
    """Map each run to the last part of its path, or to the whole path if these are not unique."""
    names = {run: Path(run).name or run for run in runs}
    return names if len(set(names.values())) == len(names) else {run: run for run in runs}


def show_table(runs, every_figure=False):
    """Print a column per run: the main metrics and ROUGE-L by task, or every metric by task."""
    names, first = list(short_names(runs).values()), next(iter(runs.values()))
    tasks, users = list(by_task(first)), len({record["row"]["user"] for record in first})
    rows = [(label, task, metric) for task in tasks for metric, label in METRICS.items()]
    if not every_figure:
        rows = [(METRICS[metric], "all", metric) for metric in HEADLINES]
        rows[1:1] = [(f"  task {task}", task, "rouge_l") for task in tasks[1:]]  # below ROUGE-L
    width = max(11, *map(len, names))
    print()
    show_row(f"{plural(len(first), 'example')} from {plural(users, 'user')}", names, width)
    scores = [scores_by_task(records) for records in runs.values()]
    for label, task, metric in rows:
        if every_figure and metric == "rouge_l":  # the first row of a task
            say(f"{task}:")
        values = [score[task][metric] for score in scores]
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        if any(cells):  # otherwise nothing was counted, for example because no text was generated
            show_row(label, cells, width)
    if users < FEW_USERS:
        say(f"Warning: only {plural(users, 'user')}. The results may differ for other users.")


def show_row(label, cells, width):
    """Print a row of a table: a label and a right-aligned cell per run."""
    print(printable(f"{label:<32}" + "".join(f" {cell:>{width}}" for cell in cells)))


def show_verdicts(runs):
    """Print how runs differ from the first, with paired bootstrap 95 % intervals over users."""
    names, first = short_names(runs), next(iter(runs))
    users = len({record["row"]["user"] for record in runs[first]})
    for run in list(runs)[1:]:
        how = "with a 95 % interval over users (significant: it excludes 0)"
        say(f"{names[run]} minus {names[first]}, one training run each, {how}")
        for metric, (change, low, high) in difference(runs[run], runs[first]).items():
            if metric in COMPARED:
                verdict = "significant" if low > 0 or high < 0 else "not significant"
                if users < FEW_USERS:
                    verdict = "too few users"
                print(f"{METRICS[metric]:<32} {change:+.3f} [{low:+.3f}, {high:+.3f}]  {verdict}")


def show_summary(name, before, after):
    """Summarise in a few sentences what fine-tuning changed. before, after: records."""
    old, new = summarize(before), summarize(after)
    parts = [f"the log-likelihood went from {old['logp']:.2f} to {new['logp']:.2f} nats per token"]
    if new["personal_accuracy"] is not None:
        a, b = old["personal_accuracy"], new["personal_accuracy"]
        parts.append(f"accuracy on personal tokens from {a:.0%} to {b:.0%}")
    if new["rouge_l"] is not None:
        parts.append(f"ROUGE-L from {old['rouge_l']:.3f} to {new['rouge_l']:.3f}")
    pir = np.concatenate([record["pir"] for record in after])
    say(f"{name}: {', '.join(parts)}.")
    say(
        f"{(pir <= CLIP_MIN).mean():.0%} of the tokens have a PIR of at most {CLIP_MIN}: PerCE"
        " gives them the floor weight. The others are weighted by their PIR;"
        f" {(pir >= CLIP_MAX).mean():.1%} of the tokens reach the cap of {CLIP_MAX:g}."
    )


def warn_of_other_scripts(records):
    """Print a warning if ROUGE-L ignores most letters of some references."""
    n = 0
    for record in records:
        response = record["row"]["response"]
        n_counted = sum(map(len, words(response)))
        n += n_counted == 0 or n_counted < sum(c.isalnum() for c in response) / 2
    if n:
        say(
            f"Warning: ROUGE-L counts only a-z and 0-9, which make up less than half of the letters"
            f" in {n} of {len(records)} references. Look at the log-likelihood instead."
        )


def show_samples(runs, n):
    """Print the texts generated by each run for n of the examples, next to the reference."""
    names = short_names(runs)
    for records in subsample(list(zip(*runs.values())), n) if n else []:
        row = records[0]["row"]
        say(f"[{row['task']}, user {row['user']}]")
        show_text("query", printable(row["query"]))
        show_text("reference", printable(row["response"]))
        for run, record in zip(runs, records):
            title = f"{names[run]} (ROUGE-L {record['rouge'].fmeasure:.2f})"
            show_text(title, printable(record["prediction"]))


def say(sentence):
    """Print an empty line and a sentence, wrapped to 80 columns."""
    print("\n" + textwrap.fill(printable(sentence), 80, break_on_hyphens=False))


def show_text(title, text):
    """Print a text under its title, wrapped to 80 columns."""
    print(textwrap.fill(f"{printable(title)}:", 80))
    for line in re.sub(r"\n{3,}", "\n\n", text if text.strip() else NOTHING).splitlines():
        print(textwrap.fill(line, 78, initial_indent="  ", subsequent_indent="  "))


def scores_by_task(records):
    return {task: summarize(some) for task, some in by_task(records).items()}


def differences_by_task(records, reference):
    references, result = by_task(reference), {}
    for task, some in by_task(records).items():
        changes = difference(some, references[task]).items()
        result[task] = {name: dict(zip(["difference", "low", "high"], x)) for name, x in changes}
    return result


def write_scores(path, runs):
    """Write all metrics of all runs, by task, and the differences from the first run, as JSON."""
    first, *others = runs
    scores = {run: scores_by_task(records) for run, records in runs.items()}
    changes = {run: differences_by_task(runs[run], runs[first]) for run in others}
    content = {"examples": len(runs[first]), "runs": scores, f"minus {first}": changes}
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)  # JSON has no NaN
    write_text_atomic(path, json.dumps(content, indent=1) + "\n")


def write_predictions(path, runs):
    """Write a JSON line per run and example: user, task, query, reference, prediction, ROUGE-L."""
    lines = []
    for run, records in runs.items():
        for record in records:
            row, rouge = record["row"], record["rouge"].fmeasure
            line = {"run": run, "user": row["user"], "task": row["task"], "query": row["query"]}
            line |= {"reference": row["response"], "prediction": record["prediction"]}
            lines.append(line | {"rouge_l": rouge})
    write_jsonl_atomic(path, lines)
