"""Write the README of data/results, and the marked parts of other READMEs.

The prose is in data/results/findings.md, in one part "## NAME" per experiment. Its numbers are
fields, such as {value main perce rouge_l:.3f}: the name of one of the functions below, its
arguments, and a format. findings.md explains each function.
"""

import ast
import re
import shlex
from pathlib import Path

from perce_mini.experiments import records, tabulate
from perce_mini.experiments.charts import svg
from perce_mini.experiments.picture import response_svg
from perce_mini.experiments.records import RESULTS
from perce_mini.experiments.statistics import interval
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.files import read_json, read_text, write_text_atomic

FINDINGS = RESULTS / "findings.md"
READMES = [Path("README.md"), Path("perce_mini/README.md")]
TRAINER = Path("perce_mini/hf/trainer.py")


def table_of(name):
    """Read a recorded table: "regimes" is the first one of regimes.json, "regimes.2" the second."""
    name, _, number = name.partition(".")
    return records.read(name)["tables"][int(number or 1) - 1]


def figures_of(table, row, column):
    """Return the figures of a row, one per seed.

    row: one or more of the row's first labels, as in "new form/30/ce".
    Raises UserError if there is no such row or column.
    """
    rows = {"/".join(row["labels"]): row["seeds"] for row in table_of(table)["rows"]}
    label = next((label for label in rows if f"{label}/".startswith(f"{row}/")), None)
    if label is None:
        raise UserError(f"no row {row!r}; choose from {'; '.join(rows)}")
    figures = [seed[column] for seed in rows[label] if column in seed]
    if not figures:
        raise UserError(f"no column {column!r}; choose from {'; '.join(rows[label][0])}")
    return figures


def value(table, row, column):
    figures = figures_of(table, row, column)
    return figures[0][0] if isinstance(figures[0], list) else interval(figures)[0]


def cell(table, row, column):
    return tabulate.cell(figures_of(table, row, column), table_of(table)["digits"])


def relative_gain(table, row, column, _over, *other):
    return value(table, row, column) / value(*other) - 1


def change(table, row, column, _minus, *other):
    return value(table, row, column) - value(*other)


def wins(table, row, column, _over, *other):
    pairs = list(zip(figures_of(table, row, column), figures_of(*other)))
    return f"{sum(a > b for a, b in pairs)} of {len(pairs)}"


def significance(table, row, column):
    _, low, high = figures_of(table, row, column)[0]
    return "significant" if low * high > 0 else "not significant"


FUNCTIONS = {f.__name__: f for f in [value, cell, relative_gain, change, wins, significance]}


def fill(text):
    """Replace the fields of a text with their values. Raises a UserError that names the field."""

    def call(field):
        try:
            name, *words = shlex.split(field[1])
            if name not in FUNCTIONS:
                raise UserError(f"no function {name!r}; choose from {', '.join(FUNCTIONS)}")
            return format(FUNCTIONS[name](*words), field[2] or "").replace("%", " %")
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"{FINDINGS}: {field[0]}: {error}") from None

    return re.sub(r'\{([^{}]*?)(?::([^\s:"{}]*))?\}', call, text)


def findings():
    """Read findings.md: {name: text of the part, with its fields}."""
    _, *parts = re.split(r"^## (\w+)\n", read_text(FINDINGS), flags=re.M)
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2])}


def experiments():
    """Read all recorded results, in the order of findings.md: {name: results}."""
    files = sorted(path.stem for path in RESULTS.glob("*.json") if path.stem != "example")
    names = [name for name in findings() if name in files]
    return {name: records.read(name) for name in dict.fromkeys([*names, *files])}


def markdown_table(table):
    head, *rows = ["| " + " | ".join(cells) + " |" for cells in tabulate.texts(table)]
    line = "|---" * (head.count(" | ") + 1) + "|"
    return "\n".join([tabulate.caption(table), "", head, line, *rows]).strip()


def section(name, result, text):
    """Write an experiment's section: where the results come from, the prose, and the tables."""
    made = f"Made by `{result.get('command', f'python -m perce_mini.experiments {name}')}`"
    made += f" on one {result['gpu']}" if "gpu" in result else ""
    made += f", commit {result['commit'][:7]}, {result['date']}." if "commit" in result else "."
    parts = [result.get("source", made), text, *map(markdown_table, result["tables"])]
    return "\n\n".join(filter(None, parts))


def results_readme():
    """Return the text of data/results/README.md."""
    contents, sections = [], []
    texts = {name: fill(text) for name, text in findings().items()}
    for name, result in experiments().items():
        title = f"{result['title']} (`{name}`)"
        link = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        contents.append(f"- [{title}](#{link})")
        sections.append(f"## {title}\n\n{section(name, result, texts.get(name, ''))}")
    head = ["# Recorded results", texts.get("verdict", ""), texts["overview"]]
    head += ["## The paper's claims", texts["claims"], "All experiments:", "\n".join(contents)]
    text = "\n\n".join([*filter(None, head), *sections]) + "\n"
    return re.sub(r"!\[(.*)\]\(\S+\.svg\)", r"\g<0>\n\n*\1*", text)  # captions of the figures


def part(name):
    """Return a part of findings.md, or data/results/NAME.txt, or section B of it for "NAME B"."""
    if name in (parts := findings()):
        return fill(parts[name])
    if name == "trainer":  # the code in the docstring of hf/trainer.py
        docstring = ast.get_docstring(ast.parse(read_text(TRAINER)))
        code = "\n".join(re.findall(r"^(?:    (.*))?$", docstring, flags=re.M))
        return "```python\n" + re.sub(r"\n{3,}", "\n\n", code).strip() + "\n```"
    file, _, letter = name.partition(" ")
    text = read_text(RESULTS / f"{file}.txt")
    sections = dict(re.findall(r"^(?==+ (\w)\. )(.*?)(?=^=+ \w\. |\Z)", text, flags=re.M | re.S))
    if letter and letter not in sections:
        raise UserError(f"{RESULTS / file}.txt has no section {letter}")
    return "```text\n" + (sections[letter] if letter else text).strip("\n") + "\n```"


def with_parts(readme):
    """Update a README: its line counts, and the text between <!-- NAME: ... --> and
    <!-- end of NAME -->."""

    def count(row):
        return f"{row[1]}{round(len(read_text(row[2]).splitlines()), -1)} |"

    readme = re.sub(r"(\]\((\S+\.py)\) \| )\d+ \|", count, readme)
    pattern = r"(<!-- ([\w -]+): [^\n]*-->\n).*?(<!-- end of \2 -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{part(m[2])}\n{m[3]}", readme, flags=re.S)


def generated_files():
    """Return all files that are made from the records and findings.md: {path: text}."""
    files = {RESULTS / "README.md": results_readme()}
    for name, result in experiments().items():
        for chart in result.get("charts", []):
            files[RESULTS / f"{name}-{chart['name']}.svg"] = svg(chart, result["title"])
    if (RESULTS / "example.json").exists():
        files[RESULTS / "example.svg"] = response_svg(read_json(RESULTS / "example.json"))
    return files | {path: with_parts(read_text(path)) for path in READMES if path.exists()}


def write_readmes():
    for path, text in generated_files().items():
        write_text_atomic(path, text)
        print(f"wrote {path}")
