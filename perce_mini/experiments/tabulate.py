"""Recorded tables (see records.table) as text."""

from perce_mini.experiments.statistics import interval
from perce_mini.scoring import METRICS

NAMES = METRICS | {"ce": "CE", "lossce": "LossCE", "entce": "EntCE", "perce": "PerCE"}
NAMES |= {"perce-stranger": "PerCE, against a stranger", "perce-cap-2": "PerCE, cap 2"}
NAMES |= {"ce-then-perce": "CE, then PerCE", "base": "base model", "before": "base model"}
NAMES |= {"rate": "learning rate"}


def named(text):
    """Replace short names by full ones: "rouge_l, ce" -> "ROUGE-L F of generated text, CE"."""
    return ", ".join(NAMES.get(part, part) for part in text.split(", "))


def cell(figures, digits=3):
    """Format the figures of the seeds as a mean and its 95 % interval.

    [0.5] -> "0.500"; [0.5, 0.52] -> "0.510 (0.500 to 0.520)"; [1, 2, 3] -> "2.000 ± 2.484"
    A difference with its interval: [[0.1, -0.2, 0.3]] -> "+0.100 [-0.200, +0.300]"
    """
    if not figures:
        return ""
    if isinstance(figures[0], (list, tuple)):
        change, low, high = (f"{x:+.{digits}f}" for x in figures[0])
        return f"{change} [{low}, {high}]"
    mean, low, high = interval(figures)
    if len(figures) == 1:
        return f"{figures[0]:,}" if isinstance(figures[0], int) else f"{mean:.{digits}f}"
    if len(figures) == 2:
        return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{mean:.{digits}f} ± {high - mean:.{digits}f}"


def texts(table):
    """Convert a table to rows of strings. The first row is the header."""
    corner = table["corner"]
    headings = [corner] if isinstance(corner, str) else list(corner)
    rows = [[named(text) for text in headings + table["columns"]]]
    for row in table["rows"]:
        cells = [named(text) for text in row["labels"]]
        for column in table["columns"]:
            figures = [seed[column] for seed in row["seeds"] if column in seed]
            cells.append(cell(figures, table["digits"]))
        rows.append(cells)
    return [list(column) for column in zip(*rows)] if table["transposed"] else rows


def caption(table):
    """Return the table's caption, followed by the number of seeds if there are several."""
    text, counts = named(table["caption"]), {len(row["seeds"]) for row in table["rows"]} - {1}
    if not counts:
        return text
    n = " to ".join(map(str, sorted({min(counts), max(counts)})))
    half = "mean ± half the width of the 95 % interval"
    form = "mean (lowest to highest)" if counts == {2} else half
    return f"{text} {n} seeds: {form}."
