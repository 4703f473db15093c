"""What is recorded: data/results/NAME.json, one line per seed, so that a diff shows what changed.

    table("600 test examples", ["rouge_l"], {"ce": [{"rouge_l": 0.359}, {"rouge_l": 0.361}]})

is a table with one row, "ce", of two seeds. The figure of a seed is a number, or a difference with
its 95 % interval: [difference, low, high].
"""

import json
import platform
import subprocess
from datetime import date
from pathlib import Path

import tiktoken
import torch

from perce_mini.runtime.files import read_json, sha256, write_text_atomic

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("data/results")


def table(caption, columns, rows, corner="", digits=3, transposed=False):
    """A table as it is recorded.

    rows: {label: row}; a row is a list of {column: figure}, one per seed, and may lack columns.
    A key of `rows` may be a tuple of labels, such as ("steps", 30, "ce"): there is then a column
    for each label, and `corner` is the tuple of their headings. Labels and columns become texts.
    digits: after the decimal point. transposed: rows are shown as columns.
    """
    texts = {}
    for label, seeds in rows.items():
        key = tuple(map(str, label)) if isinstance(label, tuple) else str(label)
        texts[key] = [{str(c): seed[c] for c in columns if c in seed} for seed in seeds]
    form = {"corner": corner, "columns": list(map(str, columns))}
    return {"caption": caption} | form | {"digits": digits, "transposed": transposed, "rows": texts}


def chart(name, x, y, panels, log=False):
    """A figure with panels {title: {line: [[x, value of each seed ...], ...]}}.

    A difference with its interval may stand in place of the values. x, y: labels of the axes. With
    x = "" the x values are texts, and every panel has its own. log: the x axis is logarithmic.
    """
    return {"name": name, "x": x, "y": y, "log": log, "panels": panels}


def as_labels(label):
    """The labels of a row, or the headings of its label columns, as a list of one or more texts."""
    return [label] if isinstance(label, str) else list(label)


def of_seeds(row, column):
    return [seed[column] for seed in row]


def regrouped(groups, metric):
    """{column: row} -> the row of one metric in these columns."""
    seeds = zip(*(of_seeds(row, metric) for row in groups.values()))
    return [dict(zip(groups, values)) for values in seeds]


def with_more(row, more):
    """The row with more figures, which belong to no single seed."""
    return [row[0] | more, *row[1:]]


def read(name):
    """The results in data/results/NAME.json, with the rows of tables as `table` makes them."""
    results = read_json(RESULTS / f"{name}.json")
    for content in results.get("tables", []):
        rows = {tuple(row["labels"]): row["seeds"] for row in content["rows"]}
        content["rows"] = {k if len(k) > 1 else k[0]: seeds for k, seeds in rows.items()}
    return results


def write(name, results):
    write_text_atomic(RESULTS / f"{name}.json", dump(results))
    print(f"wrote {RESULTS / name}.json")


def dump(results):
    """Results as JSON: numbers with seven significant digits, NaN as null, one line per seed."""
    tables = []
    for content in results.get("tables", []):
        rows = [{"labels": as_labels(k), "seeds": seeds} for k, seeds in content["rows"].items()]
        tables.append(content | {"rows": rows})
    text = json.dumps(results | ({"tables": tables} if tables else {}))
    short = json.loads(
        text, parse_float=lambda x: float(f"{float(x):.7g}"), parse_constant=lambda x: None
    )
    return lines(short, "\n") + "\n"


def lines(value, indent):
    """JSON on one line if it is short and holds no dict, else with a line for each part."""
    text = json.dumps(value, ensure_ascii=False)
    if "{" not in text[1:] and len(text) < 2000:
        return text
    inner = indent + " "
    parts = [lines(x, inner) for x in (value.values() if isinstance(value, dict) else value)]
    if isinstance(value, dict):
        parts = [f"{json.dumps(k, ensure_ascii=False)}: {part}" for k, part in zip(value, parts)]
    return text[0] + inner + f",{inner}".join(parts) + indent + text[-1]


def provenance():
    """The state of the project, the base model and the machine that make a result."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    made = {"commit": git.stdout.strip(), "date": date.today().isoformat()}
    made["base"] = sha256(ROOT / "data/base/checkpoint.pt")[:16]
    made["versions"] = {"python": platform.python_version(), "torch": torch.__version__}
    made["versions"]["tiktoken"] = tiktoken.__version__
    made["cpu"] = torch.backends.cpu.get_cpu_capability()  # its instructions round in their own way
    return made | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})
