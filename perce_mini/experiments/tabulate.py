"""Recorded tables (records.table) as texts. A cell shows a mean over seeds and its interval."""

from perce_mini.experiments.records import as_labels
from perce_mini.experiments.statistics import interval
from perce_mini.scoring import METRICS

NAMES = METRICS | {"ce": "CE", "lossce": "LossCE", "entce": "EntCE", "perce": "PerCE"}
NAMES |= {"perce-stranger": "PerCE, against a stranger", "perce-cap-2": "PerCE, cap 2"}
NAMES |= {"base": "base model", "before": "base model", "rate": "learning rate", "dial": "varied"}


def named(text):
    """Losses and metrics by full names: "rouge_l, ce" -> "ROUGE-L F of generated text, CE"."""
    return ", ".join(NAMES.get(part, part) for part in text.split(", "))


def cell(figures, digits=3):
    """One figure per seed as text: the mean, with its 95 % interval over the seeds.

    [0.5] -> "0.500"; [0.5, 0.52] -> "0.510 (0.500 to 0.520)"; [1, 2, 3] -> "2.000 ± 2.484"
    [[0.1, -0.2, 0.3]], a difference with its own interval -> "+0.100 [-0.200, +0.300]"
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
    """The table as rows of cells. The first row is its head."""
    rows = [[*as_labels(table["corner"]), *table["columns"]]]
    for label, seeds in table["rows"].items():
        figures = [[seed[c] for seed in seeds if c in seed] for c in table["columns"]]
        rows.append(
            [*map(named, as_labels(label)), *(cell(some, table["digits"]) for some in figures)]
        )
    rows[0] = list(map(named, rows[0]))
    return [list(row) for row in zip(*rows)] if table["transposed"] else rows


def caption(table):
    """The table's caption, with the number of seeds behind a cell."""
    text, counts = named(table["caption"]), {len(seeds) for seeds in table["rows"].values()} - {1}
    if not counts:
        return text
    n = " to ".join(map(str, sorted({min(counts), max(counts)})))
    form = "mean (lowest to highest)" if counts == {2} else "mean ± half of the 95 % interval"
    return f"{text} {n} seeds: {form}."
