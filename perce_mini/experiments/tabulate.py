"""Recorded tables (records.table) as texts: a cell for every number, with its spread over the seeds."""

import math
import statistics

from perce_mini.scoring import METRICS, t95

NAMES = METRICS | {"ce": "CE", "lossce": "LossCE", "entce": "EntCE", "perce": "PerCE"}
NAMES |= {"perce-stranger": "PerCE, against a stranger", "perce-cap-2": "PerCE, cap 2"}


def named(text):
    """Losses and metrics by their full names; what is separated by commas is named part by part."""
    return ", ".join(NAMES.get(part, part) for part in text.split(", "))


def interval(values):
    """(mean, low, high) over seeds: the 95 % interval of the mean; of two, which tell little of it, the two."""
    n, mean = len(values), statistics.mean(values)
    if n < 3:
        return mean, min(values), max(values)
    half = t95(n) * statistics.stdev(values) / math.sqrt(n)
    return mean, mean - half, mean + half


def spread(values, digits=3):
    """An interval over seeds as text: mean ± half of it; of two, mean (low to high)."""
    mean, low, high = interval(values)
    if len(values) == 1:
        return f"{mean:,}" if isinstance(mean, int) else f"{mean:.{digits}f}"
    if len(values) == 2:
        return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{mean:.{digits}f} ± {high - mean:.{digits}f}"


def cell(seeds, column, digits):
    """The text of a row's column: nothing, a spread over its seeds, or a difference and its interval."""
    values = [one[column] for one in seeds if column in one]
    if values and isinstance(values[0], list):
        return "{:+.{n}f} [{:+.{n}f}, {:+.{n}f}]".format(*values[0], n=digits)
    return spread(values, digits) if values else ""


def texts(table):
    """Rows of cells, the first one being the head."""
    rows = [[table["corner"], *map(named, table["columns"])]]
    for label, seeds in table["rows"].items():
        rows.append([named(label), *(cell(seeds, column, table["digits"]) for column in table["columns"])])
    if table["transposed"]:
        return [list(row) for row in zip(*rows)]
    return [[*map(named, row[0].split(" | ")), *row[1:]] for row in rows]


def caption(table):
    """The table's caption, and how many seeds stand behind a cell."""
    counts = sorted({len(seeds) for seeds in table["rows"].values()} - {1})
    n = " to ".join(dict.fromkeys(map(str, counts[:1] + counts[-1:])))
    how = {"": "", "2": " Two seeds: mean (low to high)."}.get(n, f" {n} seeds: mean ± 95 % interval over these.")
    return named(table["caption"]) + how
