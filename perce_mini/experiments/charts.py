"""Recorded charts (records.chart) as SVG: one colour and one marker per loss, error bars over seeds, light and dark."""

import math
from html import escape

from perce_mini.experiments.tabulate import interval, named

# Of the colours of Okabe and Ito, which the colour-blind tell apart, those that show on white and on black.
LOOKS = {  # of a line: colour, marker
    "ce": ("#0072b2", "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0"),
    "perce": ("#d55e00", "M0-6L5 4H-5z"),
    "lossce": ("#009e73", "M-4-4h8v8h-8z"),
    "entce": ("#cc79a7", "M0-6l6 6l-6 6l-6-6z"),
    "oracle": ("#8a63d2", "M-5-3H5v6H-5z"),
    "base": ("#8c8c8c", "M-5-1h4v-4h2v4h4v2h-4v4h-2v-4h-4z"),
}
START = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 360" role="img">
<style>svg{font:14px system-ui,sans-serif;color:#1f2328}text{fill:currentColor}
@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"""
LEFT, TOP, WIDTH, HEIGHT, GAP = 64, 76, 720, 236, 14  # of all panels together


class Axis:
    """From values to places between `start` and `end`, with round ticks; texts stand side by side."""

    def __init__(self, values, start, end, log=False):
        self.start, self.end = start, end
        if isinstance(values[0], str):
            self.ticks = list(dict.fromkeys(values))
            self.scale, self.low, self.high = self.ticks.index, -0.5, len(self.ticks) - 0.5
            return
        self.scale = math.log10 if log else float
        self.low, self.high = self.scale(min(values)), self.scale(max(values))
        most = abs(end - start) // 45
        self.ticks = log_ticks(min(values), max(values)) if log else ticks(self.low, self.high, most)

    def place(self, value):
        return self.start + (self.end - self.start) * (self.scale(value) - self.low) / (self.high - self.low or 1)


def ticks(low, high, most):
    """At most so many steps of 1, 2 or 5 times a power of ten, from low to high."""
    size = (high - low or 1) / most
    power = 10.0 ** math.floor(math.log10(size))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= size)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low, high):
    """1, 2 and 5 times the powers of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [x for power in powers for k in (1, 2, 5) if low <= (x := float(f"{k}e{power}")) <= high]


def text(x, y, words, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def number(value):
    return value if isinstance(value, str) else f"{round(value, 9) + 0:g}".replace("-", "−")


def legend(names):
    parts, x = [], LEFT + 8
    for name in names:
        colour, marker = LOOKS.get(name, ("#8c8c8c", "M-9 0h4m4 0h4"))
        parts.append(f'<path d="{marker}" transform="translate({x} 41)" fill="{colour}" stroke="{colour}"/>')
        parts.append(text(x + 12, 46, named(name)))
        x += 44 + 8 * len(name)
    return parts


def line(name, points, shift, x_axis, y_axis):
    """One line: points (x, mean, low, high), moved to the right by `shift`, so that error bars stand side by side."""
    colour, marker = LOOKS.get(name, ("#8c8c8c", ""))
    at = [(x_axis.place(x) + shift, *map(y_axis.place, ys)) for x, *ys in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in at)
    bars = "".join(f"M{x:.1f} {low:.1f}V{high:.1f}" for x, _, low, high in at if low != high)
    dash = "" if marker else ' stroke-dasharray="4 4"'
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']
    parts += [f'<path d="{bars}" stroke="{colour}" stroke-width="1.5"/>'] if bars else []
    places = [f"translate({x:.1f} {y:.1f})" for x, y, _, _ in at] if marker else []
    return parts + [f'<path d="{marker}" transform="{place}" fill="{colour}"/>' for place in places]


def panel(title, lines, x_axis, y_axis, width):
    """One panel, its upper left corner at 0, 0."""
    grid = "".join(f"M0 {y_axis.place(y):.1f}H{width:.1f}" for y in y_axis.ticks)
    parts = [f'<path d="{grid}" stroke="currentColor" opacity=".2"/>', text(width / 2, -10, title, "middle")]
    if y_axis.low < 0 < y_axis.high:
        parts.append(f'<path d="M0 {y_axis.place(0):.1f}H{width:.1f}" stroke="currentColor" opacity=".6"/>')
    parts += [text(x_axis.place(x), HEIGHT + 18, number(x), "middle") for x in x_axis.ticks]
    for i, (name, points) in enumerate(lines.items()):
        parts += line(name, points, 3 * (i - (len(lines) - 1) / 2), x_axis, y_axis)
    return parts


def differences(rows, title, alt):
    """Differences beside a zero line, as the text of an SVG file: rows (label, loss, difference, low, high)."""
    axis = Axis([0, *(x for _, _, *values in rows for x in values)], 330, 780)
    end = 60 + 24 * len(rows)
    grid = "".join(f"M{axis.place(x):.1f} 44V{end}" for x in axis.ticks)
    parts = [START.replace("360", str(end + 30)), f"<title>{escape(alt)}</title>", text(8, 24, title)]
    parts.append(f'<path d="{grid}" stroke="currentColor" opacity=".2"/>')
    parts.append(f'<path d="M{axis.place(0):.1f} 44V{end}" stroke="currentColor" opacity=".6"/>')
    parts += [text(axis.place(x), end + 18, number(x), "middle") for x in axis.ticks]
    for i, (label, loss, *values) in enumerate(rows):
        (colour, marker), y = LOOKS[loss], 60 + 24 * i
        middle, low, high = map(axis.place, values)
        parts.append(text(8, y + 5, label))
        parts.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<path d="{marker}" transform="translate({middle:.1f} {y})" fill="{colour}"/>')
    return "\n".join(parts) + "\n</svg>\n"


def bar(values):
    """(middle, low, high): of a difference, which has an interval, or of the values of each seed."""
    return values[0] if isinstance(values[0], list) else interval(values)


def room(title, lines):
    """The characters that stand side by side in a panel: its title, or the settings, as wide as the longest each."""
    settings = {x for points in lines.values() for x, *_ in points}
    return max(len(title), len(settings) * (2 + max(map(len, settings))))


def svg(chart, alt):
    """The chart as the text of an SVG file; alt: what it shows, in words."""
    panels = {}
    for title, lines in chart["panels"].items():
        panels[title] = {name: [(x, *bar(values)) for x, *values in points] for name, points in lines.items()}
    points = sum((some for lines in panels.values() for some in lines.values()), [])
    sizes = [1 if chart["x"] else room(title, lines) for title, lines in panels.items()]
    widths = [(WIDTH - GAP * (len(panels) - 1)) * size / sum(sizes) for size in sizes]
    left = LEFT
    y_axis = Axis([y for _, *ys in points for y in ys], HEIGHT - 6, 6)
    parts = [START, f"<title>{escape(alt)}</title>", text(8, 20, named(chart["y"]))]
    parts.append(text(LEFT + WIDTH / 2, TOP + HEIGHT + 40, named(chart["x"]), "middle"))
    names = dict.fromkeys(name for lines in panels.values() for name in lines)
    parts += legend(names) if len(names) > 1 else []
    parts += [text(56, TOP + y_axis.place(y) + 5, number(y), "end") for y in y_axis.ticks]
    for (title, lines), width in zip(panels.items(), widths):
        edge = 8 if chart["x"] else 0  # settings keep from the edge by themselves
        x_axis = Axis([x for some in lines.values() for x, *_ in some], edge, width - edge, chart["log"])
        parts.append(f'<g transform="translate({left:.1f} {TOP})">')
        parts += [*panel(title, lines, x_axis, y_axis, width), "</g>"]
        left += width + GAP
    return "\n".join(parts) + "\n</svg>\n"
