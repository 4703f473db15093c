"""A user's own text, every token shaded by its PIR, as the picture at the top of the README: SVG, light and dark.

What it draws is recorded in data/results/example.json, so that it can be drawn again, byte for byte.
"""

import re
import textwrap

from perce_mini.heatmap import DARK, LIGHT, SCALE, parts_of, signed, tint, visible

LEFT, TOP, LINE, CELL = 16, 62, 30, 8.6  # pixels; a cell is as wide as a character
COLUMNS = 80


def example_of(record, tokenizer):
    """A record of scoring.evaluate as plain values (for JSON): what response_svg draws of it."""
    texts, pir, personal, _ = zip(*parts_of(record, tokenizer))
    row = {key: record["row"][key] for key in ["user", "task", "query"]}
    return row | {"texts": texts, "pir": [round(x, 2) for x in pir], "personal": personal}


def places(texts):
    """Texts that follow each other, wrapped to lines: {character number: (line, column)}."""
    whole, at, found = re.sub(r"\s", " ", "".join(texts)), 0, {}
    for y, line in enumerate(textwrap.wrap(whole, COLUMNS, break_on_hyphens=False)):
        at = whole.index(line, at)
        found |= {at + x: (y, x) for x in range(len(line))}
        at += len(line)
    return found


def box(x, y, width, pir):
    (red, green, blue), opacity = tint(pir)
    fill = f'fill="rgb({red},{green},{blue})" fill-opacity="{opacity:.2f}"'
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" rx="2" {fill}/>'


def words(x, y, text, kind="small"):
    return f'<text x="{x}" y="{y}" class="{kind}">{visible(text)}</text>'


def response(example):
    """The tokens, shaded and, where personal, underlined: (list of SVG elements, where the last line ends)."""
    place, at, svg = places(example["texts"]), 0, []
    for text, pir, personal in zip(example["texts"], example["pir"], example["personal"]):
        if core := text.strip():
            line, column = place[at + text.index(core)]
            x, y, width = LEFT + CELL * column, TOP + LINE * line, CELL * len(core)
            svg.append(box(x, y, width, pir))
            svg.append(f'<text x="{x:.1f}" y="{y + 16}" textLength="{width:.1f}">{visible(core)}</text>')
            if personal:
                svg.append(f'<path d="M{x + 1:.1f} {y + 23}h{width - 2:.1f}"/>')
        at += len(text)
    return svg, TOP + LINE * (1 + max(line for line, _ in place.values()))


def response_svg(example, dark):
    """One response (of example_of) with a legend, as the text of an SVG file 720 pixels wide."""
    paper, ink, soft = (DARK if dark else LIGHT).values()
    tokens, bottom = response(example)
    legend = [words(LEFT, bottom + 30, "PIR, nats"), words(442, bottom + 30, "Underlined: known to be personal")]
    for i, pir in enumerate(SCALE):
        x = LEFT + 80 + 54 * i
        legend += [box(x, bottom + 14, 50, pir), words(x + 25, bottom + 30, signed(pir, "+g"), "small middle")]
    formula = "PIR = ln P(token | persona, query, prefix) − ln P(token | query, prefix)"
    title = f"A {example['task']}, every token shaded by its PIR: orange is what the persona makes likelier"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {bottom + 70}" role="img">',
        f"<title>{visible(title)}</title>",
        f"<style>text{{font:14px ui-monospace,monospace;fill:{ink}}}path{{stroke:{ink};stroke-width:2}}",
        f".small{{font:14px system-ui,sans-serif}}.soft{{fill:{soft}}}.middle{{text-anchor:middle}}</style>",
        f'<rect width="720" height="{bottom + 70}" rx="6" fill="{paper}"/>',
        words(LEFT, 26, "What a user really wrote. Orange: made likelier by this user's earlier texts (the persona)"),
        words(LEFT, 48, f"Asked: {example['query']}", "small soft"),
        *tokens,
        *legend,
        words(LEFT, bottom + 56, formula, "small soft"),
    ]
    return "\n".join(lines) + "\n</svg>\n"
