"""Results are recorded in data/results/NAME.json, one line per seed so that a diff is readable.

    table("600 test examples", ["rouge_l"], {"ce": [{"rouge_l": 0.359}, {"rouge_l": 0.361}]})

is a table with one row, "ce", and two seeds. A figure is a number, or a difference with its 95 %
interval: [difference, low, high].
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
    """Make a table that can be recorded.

    rows: {label: [{column: figure}, ...]} with a dict per seed, in which columns may be missing. A
    label may be a tuple, such as ("new form", 30, "ce"): each part gets its own column, and
    `corner` is the tuple of their headings. digits: decimal places. transposed: the rows are
    printed as columns.
    """
    recorded = []
    for label, seeds in rows.items():
        labels = label if isinstance(label, tuple) else (label,)
        cells = [{str(c): seed[c] for c in columns if c in seed} for seed in seeds]
        recorded.append({"labels": list(map(str, labels)), "seeds": cells})
    columns = list(map(str, columns))
    form = {"caption": caption, "corner": corner, "columns": columns, "digits": digits}
    return form | {"transposed": transposed, "rows": recorded}


def chart(name, x, y, panels, log=False):
    """Make a chart that can be recorded. x, y: labels of the axes. log: logarithmic x axis.

    panels: {title: {line: [[x, y of each seed ...], ...]}}. A point may also be [x, [difference,
    low, high]].
    """
    return {"name": name, "x": x, "y": y, "log": log, "panels": panels}


def of_seeds(row, column):
    return [seed[column] for seed in row]


def read(name):
    return read_json(RESULTS / f"{name}.json")


def write(name, results):
    write_text_atomic(RESULTS / f"{name}.json", dump(results))
    print(f"wrote {RESULTS / name}.json")


def dump(results):
    """Convert results to JSON, with seven significant digits per number and null for NaN."""

    def shorten(number):
        return float(f"{float(number):.7g}")

    text = json.dumps(results)
    results = json.loads(text, parse_float=shorten, parse_constant=lambda name: None)
    return lines(results, "\n") + "\n"


def lines(value, indent):
    """Format JSON: on one line if it is short and contains no inner dict, otherwise with one line
    per part.
    """
    text = json.dumps(value, ensure_ascii=False)
    if "{" not in text[1:] and len(text) < 2000:
        return text
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(k, ensure_ascii=False)}: {lines(value[k], inner)}" for k in value]
    else:
        parts = [lines(x, inner) for x in value]
    return text[0] + inner + f",{inner}".join(parts) + indent + text[-1]


def provenance():
    """Return the commit, base model, versions and hardware that produce a result."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    made = {"commit": git.stdout.strip(), "date": date.today().isoformat()}
    made["base"] = sha256(ROOT / "data/base/checkpoint.pt")[:16]
    made["versions"] = {"python": platform.python_version(), "torch": torch.__version__}
    made["versions"]["tiktoken"] = tiktoken.__version__
    # CPUs with other instruction sets round differently.
    made["cpu"] = torch.backends.cpu.get_cpu_capability()
    return made | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})
