"""Draw recorded charts (see records.chart) as SVG: lines with markers and error bars."""

import math
from html import escape

from perce_mini.experiments.statistics import interval
from perce_mini.experiments.tabulate import named

# {name: (colour, marker)}. Okabe and Ito's colours suit colour-blind readers, and are visible on
# white and on black.
LOOKS = {
    "ce": ("#0072b2", "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0"),
    "perce": ("#d55e00", "M0-6L5 4H-5z"),
    "lossce": ("#009e73", "M-4-4h8v8h-8z"),
    "entce": ("#cc79a7", "M0-6l6 6l-6 6l-6-6z"),
    "base": ("#8c8c8c", "M-5-1h4v-4h2v4h4v2h-4v4h-2v-4h-4z"),
}
LOOKS |= {"known form": LOOKS["ce"], "new form": LOOKS["perce"]}
DASHED = ("#8c8c8c", "")  # other lines are dashed and have no markers
START = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 360" role="img">
<style>svg{font:14px system-ui,sans-serif;color:#1f2328}text{fill:currentColor}
@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"""
LEFT, TOP, WIDTH, HEIGHT = 64, 76, 720, 236  # the area that holds all panels, in pixels
GAP = 20  # between panels


class Axis:
    """Maps values to pixels between `start` and `end`."""

    def __init__(self, values, start, end, log=False):
        self.start, self.end, self.scale = start, end, math.log10 if log else float
        self.low, self.high = self.scale(min(values)), self.scale(max(values))
        steps = abs(end - start) // 40
        self.ticks = sorted(set(values)) if log else ticks(self.low, self.high, steps)

    def place(self, value):
        share = (self.scale(value) - self.low) / (self.high - self.low or 1)
        return self.start + (self.end - self.start) * share


def ticks(low, high, most):
    """Choose round values for at most `most` + 1 ticks: (0.1, 1.1, 3) -> [0.5, 1.0]."""
    size = (high - low or 1) / most
    power = 10.0 ** math.floor(math.log10(size))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= size)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def text(x, y, label, anchor="start"):
    """Draw a label: a string, or a number, which is rounded."""
    words = label if isinstance(label, str) else f"{round(label, 9) + 0:g}".replace("-", "−")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(named(words))}</text>'


def legend(names):
    parts, x = [], LEFT + 8
    for name in names:
        colour, marker = LOOKS.get(name, DASHED)
        look = f'fill="{colour}" stroke="{colour}" transform="translate({x} 41)"'
        parts += [f'<path d="{marker or "M-9 0h4m4 0h4"}" {look}/>', text(x + 12, 46, name)]
        x += 44 + 8 * len(named(name))
    return parts


def line(name, points, shift, x_axis, y_axis):
    """Draw a line through points (x, mean, low, high), moved to the right by `shift` pixels."""
    colour, marker = LOOKS.get(name, DASHED)
    corners, bars, markers = [], "", []
    for x, *ys in points:
        x, (y, low, high) = x_axis.place(x) + shift, map(y_axis.place, ys)
        corners.append(f"{x:.1f},{y:.1f}")
        bars += f"M{x:.1f} {low:.1f}V{high:.1f}"
        where = f'transform="translate({x:.1f} {y:.1f})"'
        markers.append(f'<path d="{marker}" {where} fill="{colour}"/>')
    dash = "" if marker else 'stroke-dasharray="4 4"'
    look = f'stroke="{colour}" stroke-width="2"'
    parts = [f'<polyline points="{" ".join(corners)}" fill="none" {look} {dash}/>']
    return parts + ([f'<path d="{bars}" {look}/>', *markers] if marker else [])


def panel(title, lines, x_axis, y_axis, width):
    """Draw the lines {name: points} in a panel with its upper left corner at (0, 0)."""
    levels = {y: f"M0 {y_axis.place(y):.1f}H{width:.1f}" for y in y_axis.ticks}
    parts = [f'<path d="{"".join(levels.values())}" stroke="currentColor" opacity=".2"/>']
    if 0 in levels:
        parts.append(f'<path d="{levels[0]}" stroke="currentColor" opacity=".5"/>')
    parts.append(text(width / 2, -10, title, "middle"))
    parts += [text(x_axis.place(x), HEIGHT + 18, x, "middle") for x in x_axis.ticks]
    for i, (name, points) in enumerate(lines.items()):
        shift = 3 * (i - (len(lines) - 1) / 2)  # otherwise error bars would overlap
        parts += line(name, points, shift, x_axis, y_axis)
    return parts


def with_bars(points):
    """Points [x, y of each seed ...] or [x, [difference, low, high]] -> (x, mean, low, high)."""
    return [(x, *(ys[0] if isinstance(ys[0], list) else interval(ys))) for x, *ys in points]


def svg(chart, alt):
    """Draw a chart. Returns the text of an SVG file. alt: a description of the chart."""
    panels, xs, ys = {}, {}, []
    for title, lines in chart["panels"].items():
        panels[title] = {name: with_bars(points) for name, points in lines.items()}
        points = sum(panels[title].values(), [])
        xs[title] = [x for x, *_ in points]
        ys += [y for _, *bar in points for y in bar]
    y_axis = Axis(ys, HEIGHT - 6, 6)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    parts = [START, f"<title>{escape(alt)}</title>", text(8, 20, chart["y"])]
    parts.append(text(LEFT + WIDTH / 2, TOP + HEIGHT + 40, chart["x"], "middle"))
    parts += legend(names) if len(names) > 1 else []
    parts += [text(56, TOP + y_axis.place(y) + 5, y, "end") for y in y_axis.ticks]
    left, width = LEFT, (WIDTH - GAP * (len(panels) - 1)) / len(panels)
    for title, lines in panels.items():
        x_axis = Axis(xs[title], 8, width - 8, chart["log"])
        parts.append(f'<g transform="translate({left:.1f} {TOP})">')
        parts += [*panel(title, lines, x_axis, y_axis, width), "</g>"]
        left += width + GAP
    return "\n".join(parts) + "\n</svg>\n"
