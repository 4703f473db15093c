"""data/results/README.md as one self-contained page: inline SVG, no script, light and dark."""

import re
from html import escape

from perce_mini.experiments.report import IMAGE, anchor, figures, results_readme

HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>perce-mini: recorded results</title><style>
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h2 { font-size: 1.15rem; border-top: 1px solid var(--line); padding-top: .6rem; } code { font-size: .85rem; }
.wide { overflow-x: auto; background: /* a shadow where there is more to scroll to */
linear-gradient(90deg, Canvas, transparent 2rem) local, linear-gradient(270deg, Canvas, transparent 2rem) local,
linear-gradient(90deg, var(--line), transparent .6rem), linear-gradient(270deg, var(--line), transparent .6rem); }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom; }
th, td { white-space: nowrap; } th:not(:first-child) { white-space: normal; min-width: 4rem; }
th:first-child, td:first-child { text-align: left; }
.prose table { min-width: 43rem; } .prose th, .prose td { white-space: normal; text-align: left; vertical-align: top; }
svg { width: 100%; min-width: 43rem; max-width: 50rem; height: auto; }
</style>
"""
LONG = 40  # characters of a cell: a table with longer ones holds sentences rather than numbers


def inline(text):
    """What stands within a paragraph: links, `code`, *emphasis*."""
    text = re.sub("`(.+?)`", r"<code>\1</code>", escape(text))
    text = re.sub(r"\[(.+?)\]\((#\S+?)\)", r'<a href="\2">\1</a>', text)
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", text)


def html_table(text):
    head, _, *rows = [[inline(cell.strip()) for cell in line[1:-1].split("|")] for line in text.splitlines()]
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    prose = " prose" * any(len(cell) > LONG for row in rows for cell in row[1:])
    top = "".join(f"<th>{cell}</th>" for cell in head)
    return f'<div class="wide{prose}"><table><tr>{top}</tr>{body}</table></div>'


def block(text, svgs):
    """A paragraph of the Markdown that report.py writes."""
    if image := IMAGE.fullmatch(text):
        return f'<div class="wide">{svgs[image[2]]}</div>'
    if text.startswith("#"):
        marks, title = text.split(" ", 1)
        return f'<h{len(marks)} id="{anchor(title)}">{inline(title)}</h{len(marks)}>'
    if text.startswith("- "):
        return "<ul>" + "".join(f"<li>{inline(line[2:])}</li>" for line in text.splitlines()) + "</ul>"
    return html_table(text) if text.startswith("|") else f"<p>{inline(text)}</p>"


def page():
    svgs, blocks = figures(), re.split("\n\n+", results_readme().strip())
    return HEAD + "\n".join(block(text, svgs) for text in blocks) + "\n</html>\n"
