"""Print tables, differences and texts for scored runs in 80 columns, and write result files.

Most functions take {run: its records from scoring.evaluate}. All runs are scored on the same
examples, and every run is compared with the first one.
"""

import json
import re
import textwrap
from itertools import zip_longest
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
FEW_USERS = 20  # with fewer, no difference is called significant
COMPARED = ["rouge_l", "logp", "personal_accuracy", "pir_f1"]  # higher is better


def short_names(runs):
    """Map each run to the last part of its path, or to the whole path if these are not unique."""
    names = {run: Path(run).name or run for run in runs}
    return names if len(set(names.values())) == len(names) else {run: run for run in runs}


def show_table(runs, every_figure=False):
    """Print a column per run: the main metrics and ROUGE-L by task, or every metric by task."""
    names, first = list(short_names(runs).items()), next(iter(runs.values()))
    tasks, users = list(by_task(first)), len({record["row"]["user"] for record in first})
    rows = [(label, task, metric) for task in tasks for metric, label in METRICS.items()]
    if not every_figure:
        rows = [(METRICS[metric], "all", metric) for metric in HEADLINES]
        rows[1:1] = [(f"  task {task}", task, "rouge_l") for task in tasks[1:]]  # below ROUGE-L
    for i in range(0, len(names), 4):  # four runs fit side by side
        print()
        title = f"{plural(len(first), 'example')} of {plural(users, 'user')}"
        show_row(title, [name for _, name in names[i : i + 4]])
        scores = [scores_by_task(runs[run]) for run, _ in names[i : i + 4]]
        for label, task, metric in rows:
            if every_figure and metric == "rouge_l":  # the first row of a task
                say(f"{task}:")
            values = [score[task][metric] for score in scores]
            show_row(label, ["" if value is None else f"{value:.3f}" for value in values])
    if users == 1:
        say("Warning: with a single user, differences between users cannot be judged.")
    elif users < FEW_USERS:
        say(f"Warning: only {users} users. The results may be quite different for other users.")


def show_row(label, cells):
    """Print a row of a table. Text that is too long for its column wraps onto the next line."""
    label_lines = textwrap.wrap(printable(label), 32)
    columns = [textwrap.wrap(printable(cell), 11) for cell in cells]
    if any(columns):  # otherwise nothing was counted, for example because no text was generated
        for first, *others in zip_longest(label_lines, *columns, fillvalue=""):
            print(f"{first:<32}" + "".join(f" {text:>11}" for text in others))


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
                text = f"[{low:+.3f}, {high:+.3f}]  {verdict}"
                if users == 1:
                    text = "cannot be judged from one user"
                elif users < FEW_USERS:
                    text = f"[{low:+.3f}, {high:+.3f}]  too few users"
                print(f"{METRICS[metric]:<32} {change:+.3f} {text}")


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
        f"PIR is at most {CLIP_MIN} on {(pir <= CLIP_MIN).mean():.0%} of the tokens, where PerCE is"
        f" {CLIP_MIN} times CE. The other tokens count more, up to {CLIP_MAX:g} times"
        f" ({(pir >= CLIP_MAX).mean():.1%} of the tokens reach that cap)."
    )


def show_warnings(records, vocab_size):
    """Print a warning for every reason not to trust the scores of a run."""
    scores, n = summarize(records), len(records)
    if scores["pir"] < 0:
        say(f"Warning: the persona makes the texts less likely (mean PIR {scores['pir']:.3f}).")
    if scores["logp"] < -np.log(vocab_size):
        say(f"Warning: the model predicts worse than a uniform guess over {vocab_size} tokens.")
    silent = sum(not mostly_counted(record["row"]["response"]) for record in records)
    if silent:
        say(
            f"Warning: ROUGE-L counts only a-z and 0-9, which make up less than half of the letters"
            f" in {silent} of {n} references. Look at the log-likelihood instead."
        )
    blank = sum(not record["prediction"].strip() for record in records)
    if scores["rouge_l"] is not None and blank > 0.9 * n:
        say(f"Warning: {blank} of {n} generated texts are empty or contain only white space.")


def mostly_counted(text):
    """Return True if ROUGE-L counts at least half of the letters and digits in the text."""
    counted = sum(map(len, words(text)))
    return counted > 0 and counted >= sum(c.isalnum() for c in text) / 2


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
    for line in re.sub(r"\n{3,}", "\n\n", describe_blank(text)).splitlines():
        print(textwrap.fill(line, 78, initial_indent="  ", subsequent_indent="  "))


def describe_blank(text):
    """Return the text, or a note if it is blank."""
    blank = "(only line breaks)" if "\n" in text else "(nothing)"
    return text if text.strip() else blank


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
