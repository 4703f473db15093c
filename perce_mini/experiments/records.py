"""What is recorded: data/results/NAME.json, one line per run, so that a change of it can be read.

A row of a table is a list of figures {column: value}, one for each seed. A value is a number, or a difference and its
interval [d, low, high].
"""

import json
import platform
import subprocess
from datetime import date
from pathlib import Path

import tiktoken
import torch

from perce_mini.files import parse_json, sha256, write_text_atomic

ROOT, RESULTS = Path(__file__).resolve().parents[2], Path("data/results")
SHOWN = ["rouge_l", "personal_accuracy", "logp_personal", "logp_other", "logp", "pir_f1"]
FIRST = SHOWN[:5]


def table(caption, columns, rows, corner="", digits=3, transposed=False):
    """{label: row} as it is recorded. " | " parts two cells in corner and labels; a row may leave out columns.

    digits: after the point. transposed: it is shown with rows as columns.
    """
    kept = {label: [{str(c): one[c] for c in columns if c in one} for one in row] for label, row in rows.items()}
    form = {"corner": corner, "columns": list(map(str, columns)), "digits": digits, "transposed": transposed}
    return {"caption": caption, **form, "rows": kept}


def chart(name, x, y, panels, log=False):
    """A figure: panels {title: {line: [[x, the value of each seed ...], ...]}}; x, y: what the axes say.

    For the values a difference and its interval may stand. Without words for x, every panel has its own: the settings
    of a dial, as texts.
    """
    return {"name": name, "x": x, "y": y, "log": log, "panels": panels}


def of_seeds(row, column):
    return [one[column] for one in row]


def regrouped(groups, metric):
    """{column: row} -> the row of one metric in these columns."""
    return [dict(zip(groups, values)) for values in zip(*(of_seeds(row, metric) for row in groups.values()))]


def with_more(row, more):
    """A row with more cells, which belong to no single seed."""
    return [row[0] | more, *row[1:]]


def read(name):
    path = RESULTS / f"{name}.json"
    return parse_json(path.read_text(encoding="utf-8"), path)


def write(name, results):
    write_text_atomic(RESULTS / f"{name}.json", dump(results))
    print(f"wrote {RESULTS / name}.json")


def dump(results):
    """Results as JSON: seven significant digits, no number as null, one line for what is short and holds no dict."""
    text = json.dumps(results)
    short = json.loads(text, parse_float=lambda x: float(f"{float(x):.7g}"), parse_constant=lambda x: None)
    return lines(short, "\n") + "\n"


def lines(value, indent):
    text = json.dumps(value, ensure_ascii=False)
    if "{" not in text[1:] and len(text) < 2000:
        return text
    inner = indent + " "
    parts = [lines(x, inner) for x in (value.values() if isinstance(value, dict) else value)]
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {part}" for key, part in zip(value, parts)]
    return text[0] + inner + f",{inner}".join(parts) + indent + text[-1]


def provenance():
    """The state of the project, the base model and the machine that make a result."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "tiktoken": tiktoken.__version__}
    base = sha256(ROOT / "data/base/checkpoint.pt")[:16]
    cpu = torch.backends.cpu.get_cpu_capability()  # its instructions round in their own way
    made = {"commit": git.stdout.strip(), "date": date.today().isoformat(), "base": base}
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return made | {"versions": versions, "cpu": cpu} | gpu
