"""Draw the picture at the top of the README: a user's own text, each token shaded by PIR (SVG).

The text and its PIR are recorded in data/results/example.json.
"""

import re
import textwrap

from perce_mini.heatmap import COLOURS, SCALE, parts_of, signed, tint, visible

LEFT, TOP = 16, 62  # where the text starts, in pixels
LINE, CELL = 30, 8.6  # height of a line and width of a character, in pixels
COLUMNS = 80  # characters per line
HEAD = "A user's own text. Orange tokens are more likely given this user's earlier texts."
FORMULA = "PIR = ln P(token | persona, query, prefix) − ln P(token | query, prefix)"


def example_of(record, tokenizer):
    """Extract from a record of scoring.evaluate what `response_svg` needs, as JSON values."""
    texts, pir, personal, _ = zip(*parts_of(record, tokenizer))
    row = {key: record["row"][key] for key in ["user", "task", "query"]}
    return row | {"texts": texts, "pir": [round(x, 2) for x in pir], "personal": personal}


def positions(text):
    """Wrap a text: {index of a character: (line, column)}. Spaces at line breaks are left out."""
    text, start, result = re.sub(r"\s", " ", text), 0, {}
    for y, line in enumerate(textwrap.wrap(text, COLUMNS, break_on_hyphens=False)):
        start = text.index(line, start)
        result |= {start + x: (y, x) for x in range(len(line))}
        start += len(line)
    return result


def box(x, y, width, pir):
    (red, green, blue), opacity = tint(pir)
    fill = f'fill="rgb({red},{green},{blue})" fill-opacity="{opacity:.2f}"'
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" rx="2" {fill}/>'


def words(x, y, text, kind="small"):
    return f'<text x="{x}" y="{y}" class="{kind}">{visible(text)}</text>'


def tokens_svg(example):
    """Draw the tokens, underlined if personal. Returns the SVG and the y below the last line."""
    place, start, svg = positions("".join(example["texts"])), 0, []
    for text, pir, personal in zip(example["texts"], example["pir"], example["personal"]):
        if core := text.strip():
            line, column = place[start + text.index(core)]
            x, y, width = LEFT + CELL * column, TOP + LINE * line, CELL * len(core)
            length = f'textLength="{width:.1f}"'
            svg.append(box(x, y, width, pir))
            svg.append(f'<text x="{x:.1f}" y="{y + 16}" {length}>{visible(core)}</text>')
            if personal:
                svg.append(f'<path d="M{x + 1:.1f} {y + 23}h{width - 2:.1f}"/>')
        start += len(text)
    return "\n".join(svg), TOP + LINE * (1 + max(line for line, _ in place.values()))


def response_svg(example):
    """Draw an example (see `example_of`) with a legend. Returns the text of an SVG file."""
    tokens, bottom = tokens_svg(example)
    scale = ""
    for x, pir in zip(range(LEFT + 80, 720, 54), SCALE):
        scale += box(x, bottom + 14, 50, pir)
        scale += words(x + 25, bottom + 30, signed(pir, "+g"), "small middle")
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {bottom + 70}" role="img">
<title>{HEAD}</title>
<style>{COLOURS}text{{font:14px ui-monospace,monospace;fill:var(--ink)}}
path{{stroke:var(--ink);stroke-width:2}}.paper{{fill:var(--paper)}}.soft{{fill:var(--soft)}}
.small{{font:14px system-ui,sans-serif}}.middle{{text-anchor:middle}}</style>
<rect width="720" height="{bottom + 70}" rx="6" class="paper"/>
{words(LEFT, 26, HEAD)}
{words(LEFT, 48, f"Query: {example['query']}", "small soft")}
{tokens}
{words(LEFT, bottom + 30, "PIR, nats")}
{scale}
{words(442, bottom + 30, "underlined: labelled as personal")}
{words(LEFT, bottom + 56, FORMULA, "small soft")}
</svg>
"""
