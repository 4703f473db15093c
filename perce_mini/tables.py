"""What is shown and kept of scored runs: tables that fit 80 columns, verdicts, samples, and the same figures as files.

All functions take {name of a run: its records of scoring.evaluate}, on the same examples; the first run is the one that
others are compared with.
"""

import json
import textwrap
from pathlib import Path

import numpy as np

from perce_mini.dataset import subsample
from perce_mini.errors import printable
from perce_mini.files import write_jsonl_atomic, write_text_atomic
from perce_mini.scoring import METRICS, by_task, difference, summarize

HEADLINES = ["rouge_l", "logp", "personal_accuracy", "pir_f1"]  # more is better, for all of these
WIDTH = 32  # of a row's head


def show_table(runs, every_figure=False):
    """One row per figure, one column per run: headlines and ROUGE-L by task, or all there is for every task."""
    records = next(iter(runs.values()))
    users = len({r["row"]["user"] for r in records})
    names = "".join(f" {Path(name).name[-11:]:>11}" for name in runs)
    print(f"\n{f'{len(records)} examples of {users} users':<{WIDTH}}{names}")
    by_run = [{task: summarize(some) for task, some in by_task(records).items()} for records in runs.values()]
    _, *tasks = by_run[0]
    for task in ["all", *tasks] if every_figure else ["all"]:
        if task != "all":
            print(f"\n{printable(task)}")
        for metric in METRICS if every_figure else HEADLINES:
            show_row(METRICS[metric], [found[task][metric] for found in by_run])
            for part in tasks if metric == "rouge_l" and not every_figure else []:
                show_row(f"  of {part}", [found[part][metric] for found in by_run])


def show_row(label, values):
    if values[0] is not None:
        print(f"{printable(label):<{WIDTH}}" + "".join(f" {'' if x is None else f'{x:.3f}':>11}" for x in values))


def show_verdicts(runs):
    """For each run but the first: is it better than the first? Paired bootstrap 95 % intervals over users."""
    first, *others = runs
    for run in others:
        print(f"\n{run} against {first}, of one seed: difference and 95 % interval over users")
        change = difference(runs[run], runs[first])
        for metric in HEADLINES:
            if metric in change:
                d, low, high = change[metric]
                verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
                verdict = verdict if low <= high else "one user tells nothing of others"
                print(f"{METRICS[metric]:<{WIDTH}} {d:+.3f} [{low:+.3f}, {high:+.3f}]  {verdict}")


def show_samples(runs, n):
    """Print what the runs wrote for n of the examples, beside the reference."""
    for records in subsample(list(zip(*runs.values())), n) if n else []:
        row = records[0]["row"]
        print(printable(f"\n[{row['task']}, user {row['user']}]"))
        show_text("asked", printable(row["query"]))
        show_text("reference", printable(row["response"]))
        for run, record in zip(runs, records):
            show_text(f"{run} (ROUGE-L {record['rouge'].fmeasure:.2f})", printable(record["prediction"]))


def say(sentence):
    """A sentence, wrapped to 80 columns, after an empty line."""
    print("\n" + textwrap.fill(printable(sentence), 80, break_on_hyphens=False))


def show_text(title, text):
    """A text under its title, wrapped to 80 columns."""
    print(f"{printable(title)}:")
    for line in text.splitlines() or ["(nothing)"]:
        print(textwrap.fill(line, 78, initial_indent="  ", subsequent_indent="  "))


def write_scores(path, runs):
    """Every figure of every run, overall and per task, and the differences to the first run, as JSON."""
    first, *others = runs
    tasks = {run: by_task(records) for run, records in runs.items()}
    figures = {run: {task: summarize(records) for task, records in tasks[run].items()} for run in runs}
    changes = {run: {task: changes_of(tasks[run][task], tasks[first][task]) for task in tasks[run]} for run in others}
    text = json.dumps({"examples": len(runs[first]), "runs": figures, f"minus {first}": changes}, indent=1)
    write_text_atomic(path, text + "\n")


def changes_of(records, reference):
    changes = difference(records, reference)
    known = {metric: [None if np.isnan(x) else x for x in change] for metric, change in changes.items()}  # for JSON
    return {metric: dict(zip(["difference", "low", "high"], change)) for metric, change in known.items()}


def write_predictions(path, runs):
    """JSONL, one line per example and run: user, task, query, reference, prediction, ROUGE-L."""
    lines = []
    for run, records in runs.items():
        for r in records:
            asked = {"run": run} | {key: r["row"][key] for key in ["user", "task", "query"]}
            written = {"reference": r["row"]["response"], "prediction": r["prediction"], "rouge_l": r["rouge"].fmeasure}
            lines.append(asked | written)
    write_jsonl_atomic(path, lines)
