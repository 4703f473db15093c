"""What data/results/ says, as one self-contained page with figures: inline SVG, no script, light and dark."""

import math
from html import escape
from pathlib import Path

from perce_mini.checkpoint import replace_file
from perce_mini.report import recorded

STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
section { border-top: 1px solid var(--line); padding: .6rem 0 1rem; } h2 { font-size: 1.15rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom; }
th, td { white-space: nowrap; } th:not(:first-child) { white-space: normal; min-width: 4rem; }
th:first-child, td:first-child { text-align: left; }
figcaption, .caption { text-align: left; font-size: .85rem; opacity: .8; padding: .3rem 0; }
figure { margin: 1rem 0; } svg { width: 100%; max-width: 40rem; height: auto; } code { font-size: .85rem; }
"""
COLOURS = ["#d97706", "#3b82f6", "#16a34a", "#a855f7", "#dc2626", "#0891b2", "#ca8a04", "#64748b"]


def line_chart(caption, x_label, y_label, series):
    """An SVG (640 x 320) of lines, axes labelled at their ends; the x axis is logarithmic where its label says so."""
    scale = math.log10 if "(log)" in x_label else float
    points = [(scale(x), y) for line in series.values() for x, y in line]
    (x0, x1), (y0, y1) = [(min(c), max(c)) for c in zip(*points)]
    right, up = lambda x: 50 + 380 * (x - x0) / (x1 - x0 or 1), lambda y: 280 - 255 * (y - y0) / (y1 - y0 or 1)
    parts = [
        f'<svg viewBox="0 0 640 320" role="img" aria-label="{escape(caption)}" font-size="12" fill="currentColor">',
        '<path d="M50 20V280H430" fill="none" stroke="currentColor" opacity=".5"/>',
        f'<text x="240" y="312" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="50" y="12">{escape(y_label)}</text>',
    ]
    for y in [y0, (y0 + y1) / 2, y1]:
        parts.append(f'<text x="45" y="{up(y) + 4:.0f}" text-anchor="end">{y:.3g}</text>')
    for x in [x0, x1]:
        shown = 10**x if scale is math.log10 else x
        parts.append(f'<text x="{right(x):.0f}" y="296" text-anchor="middle">{shown:.3g}</text>')
    in_pairs = len(series) > 4  # two lines of one colour, the first of them dashed
    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i // 2 % 8 if in_pairs else i]
        dash = ' stroke-dasharray="5 3"' if in_pairs and i % 2 == 0 else ""
        stroke = f'stroke="{colour}" stroke-width="2"{dash}'
        places = " ".join(f"{right(scale(x)):.1f},{up(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{places}" fill="none" {stroke}/><path d="M440 {30 + 18 * i}h22" {stroke}/>')
        parts.append(f'<text x="468" y="{34 + 18 * i}">{escape(name)}</text>')
    return "".join(parts) + "</svg>"


def html_table(caption, rows):
    line = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
    head, body = line(rows[0], "th"), "".join(line(row, "td") for row in rows[1:])
    table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
    return f'<p class="caption">{escape(caption)}</p><div class="wide">{table}</div>'


HEAD = f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>perce-mini: the paper in miniature</title><style>{STYLE}</style>
<h1>The paper in miniature</h1>
<p>PerContrast and the PerCE loss (arXiv 2603.06595), in a world whose personal words are known.</p>
"""


def page():
    """Every recorded table and figure, as one self-contained page."""
    parts = [HEAD]
    for name, section in recorded().items():
        parts.append(f"<section><h2>{escape(section.title)}</h2><p>{escape(section.says)}</p>\n")
        for chart in section.charts:
            parts.append(f"<figure>{line_chart(*chart)}<figcaption>{escape(chart[0])}</figcaption></figure>\n")
        parts += [html_table(caption, rows) + "\n" for caption, rows in section.tables]
        parts.append(f"<p><code>python -m perce_mini.experiments {name}</code></p></section>\n")
    return "".join(parts) + "</html>\n"


def write_page(path):
    replace_file(path, lambda new: Path(new).write_text(page(), encoding="utf-8"))
    print(f"wrote {path}")
