"""A page that shows what PerContrast sees: every token of a user's own text shaded by its PIR.

One self-contained HTML file: nothing is fetched, no script runs but its own, and no text becomes markup.
"""

import base64
import codecs
import hashlib
import math
import re
from html import escape
from typing import NamedTuple

import numpy as np

from perce_mini.percontrast import CLIP_MIN
from perce_mini.scoring import summarize

LIGHT = {"paper": "#ffffff", "ink": "#1f2328", "soft": "#59636e"}
DARK = {"paper": "#0d1117", "ink": "#f0f6fc", "soft": "#9198a1"}
SCALE = [-5, -2, 0, 0.8, 2, 5]  # nats
STYLE = """
html { scroll-padding-bottom: 6rem; } h1 { font-size: 1.5rem; line-height: 1.3; margin: 0; }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper); overflow-wrap: anywhere;
  max-width: 76rem; margin: 0 auto; padding: 1rem 1rem 6rem; }
p, ol, h2, h3, summary { margin: .3rem 0; } h2 { font-size: 1.1rem; } h3 { font-size: .85rem; margin-top: .8rem; }
h3, summary, .soft { color: var(--soft); } ol, summary { font-size: .85rem; } ol { padding-left: 2rem; }
article, .runs { border-top: 1px solid var(--soft); margin-top: .8rem; padding-top: .4rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 2rem; }
.scale { display: flex; flex-wrap: wrap; gap: .3rem; font-size: .85rem; } .scale span { padding: 0 .5rem; }
svg { width: 100%; max-width: 25rem; font-size: 11px; fill: var(--ink); } .formula { font-weight: 600; }
.text { display: block; white-space: pre-wrap; overflow: hidden; padding: .2rem; margin: 0 -.2rem; }
.token { border-radius: .15rem; } .personal { border-bottom: 2px solid; } .token:focus { outline: 2px solid; }
mark { color: inherit; background: none; box-shadow: inset 0 -.5em rgba(240,140,0,.4); }
footer { position: fixed; inset: auto 0 0; padding: .4rem 1rem; border-top: 1px solid; background: var(--paper); }
output { display: block; font-weight: 600; font-variant-numeric: tabular-nums; }
"""
SCRIPT = """
const output = document.querySelector("output");
function show(event) {
  const token = event.target.closest("[data-pir]");
  if (token) output.textContent = token.dataset.pir;
}
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, show);
"""
# Control characters are shown as block pictures, and as U+FFFD where there is none.
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
PICTURES |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0x2028, 0x2029], 0xFFFD)


def visible(text):
    """Text for HTML or XML: no markup, no control characters."""
    return escape(text.translate(PICTURES))


def isolated(text):
    """The same as HTML that cannot reorder what stands around it."""
    return f"<bdi>{visible(text)}</bdi>"


def signed(x, form="+.2f"):
    """A number with its sign, in print: +0.50, −2.00."""
    return f"{x:{form}}".replace("-", "−") if round(x, 2) else "0"


def tint(pir):
    """PIR in nats -> hue (r, g, b), opacity, full at 5 nats: so strong that text on it can still be read."""
    return (240, 140, 0) if pir > 0 else (60, 120, 255), min(abs(pir) / 5, 1) ** 0.6 * 0.6


def shade(pir, what="background"):
    """CSS: orange where the persona speaks for a token, blue where it speaks against it."""
    (red, green, blue), opacity = tint(pir)
    return f"{what}:rgba({red},{green},{blue},{opacity:.2f})"


# ------------------------------------------------------------------------------------- a response in parts


class Part(NamedTuple):
    """A piece of a response and what there is to say of it."""

    text: str
    pir: float  # nats, the sum over its tokens: log-ratios add up
    personal: bool
    figures: str


def pieces(tokens):
    """Tokens (bytes) -> (text, [their indices]): a character cut across tokens is shown as one piece."""
    decoder, pending = codecs.getincrementaldecoder("utf-8")("replace"), []
    for i, token in enumerate(tokens):
        pending.append(i)
        text = decoder.decode(token, final=i + 1 == len(tokens))
        if text:
            yield text, pending
            pending = []


def parts_of(record, tokenizer):
    """A record of scoring.evaluate -> list of Part."""
    parts = []
    for text, group in pieces([tokenizer.bytes_of[t] for t in record["response"][:-1]]):  # without the end token
        logp, plain, pir = (float(record[name][group].sum()) for name in ["logp", "logp_plain", "pir"])
        figures = f"ln({math.exp(logp):.3g} / {math.exp(plain):.3g}) = {signed(pir)} nats"
        parts.append(Part(text, pir, bool(record["personal"][group].any()), figures))
    return parts


def pir_changes(first, second):
    """Parts of one text in two runs -> parts with PIR second − first; [] where the runs cut the text differently."""
    if [p.text for p in first] != [p.text for p in second]:
        return []
    changes = []
    for old, new in zip(first, second):
        figures = f"({signed(new.pir)}) − ({signed(old.pir)}) = {signed(new.pir - old.pir)} nats"
        changes.append(old._replace(pir=new.pir - old.pir, figures=figures))
    return changes


def telling_words(parts):
    """The words, in lower case, that hold a part with PIR > 0.8."""
    text, high = "".join(p.text for p in parts), [p.pir > CLIP_MIN for p in parts for _ in p.text]
    return {word[0].lower() for word in re.finditer(r"\w+", text) if any(high[word.start() : word.end()])}


# ------------------------------------------------------------------------------------------------ the page


def response_html(parts):
    """A span per part. White space at its edges is not shaded; a part of nothing visible is drawn as a symbol."""
    html = []
    for part in parts:
        before, core, after = re.fullmatch(r"([ \t\n]*)(.*?)([ \t\n]*)", part.text, re.DOTALL).groups()
        core = visible(core)
        if not any(map(str.isprintable, core)):
            before, core, after = "", "␤" if "\n" in before else "␣", before
        kind = "token personal" if part.personal else "token"
        span = f'<span class="{kind}" tabindex="0" style="{shade(part.pir)}" data-pir="{part.figures}">{core}</span>'
        html += [before, span, after]
    return f'<bdi class="text">{"".join(html)}</bdi>'


def column(run, record, parts):
    """The user's own text as a run reads it, and what the run wrote itself."""
    html = f"<h3>The user's own text, as {isolated(run)} reads it</h3>{response_html(parts)}"
    if record["rouge"] is not None:
        head = f"What {isolated(run)} wrote itself (ROUGE-L {record['rouge'].fmeasure:.2f})"
        html += f'<h3>{head}</h3><bdi class="text">{visible(record["prediction"])}</bdi>'
    return html


def profile_html(row, read, words):
    """The texts of the profile that stand in the prompt, with these words marked."""
    items = []
    for n in read:
        split = re.split(r"(\w+)", "\n".join(row["profile"][n][key] for key in ["query", "response"]))
        html = [f"<mark>{visible(x)}</mark>" if x.lower() in words else visible(x) for x in split]
        items.append(f'<li value="{n + 1}"><bdi class="text">{"".join(html)}</bdi></li>')
    head = f"The persona: {len(read)} of {len(row['profile'])} earlier texts of the user"
    head += f"; marked: words that recur in the response with PIR &gt; {CLIP_MIN}" * any(words)
    return f"<details><summary>{head}</summary><ol>{''.join(items)}</ol></details>"


def example_html(records, tokenizers):
    """One example, {run: its record}: query, persona, a column per run; with two runs, one of their difference."""
    row, read = (next(iter(records.values()))[key] for key in ["row", "read"])
    parts = {run: parts_of(record, tokenizers[run]) for run, record in records.items()}
    columns = [column(run, record, parts[run]) for run, record in records.items()]
    if len(parts) == 2 and (change := pir_changes(*parts.values())):
        first, second = map(isolated, parts)
        columns.append(f"<h3>Difference: PIR in {second} − PIR in {first}</h3>{response_html(change)}")
    return f"""<article><h2>{isolated(row["task"])}, user {isolated(row["user"])}</h2>
<p class="soft">Asked: {isolated(row["query"])}</p>
<div class="columns">{"".join(f"<section>{html}</section>" for html in columns)}</div>
{profile_html(row, read, set().union(*map(telling_words, parts.values())))}</article>
"""


def histogram(records):
    """How PIR is distributed, as SVG: bars of personal and bars of other tokens, each up to a height of their own."""
    pir, personal = (np.concatenate([r[name] for r in records]) for name in ["pir", "personal"])
    rows = {"personal": pir[personal], "other": pir[~personal]} if personal.any() else {"tokens": pir}
    edges, bottom = np.linspace(-2, 5.2, 19), 40 * len(rows)  # 0 and 0.8 are edges
    svg = [f'<path d="M175 4V{bottom}" stroke="currentColor" stroke-dasharray="3"/>']  # at 0.8
    for y, (name, values) in zip([40, 80], rows.items()):
        svg.append(f'<text y="{y - 4}">{name}</text><path d="M70 {y}h270" stroke="currentColor"/>')
        counts, _ = np.histogram(values.clip(-2, 5.1), edges)
        for x, middle, height in zip(range(70, 340, 15), edges + 0.2, 30 * counts / max(counts.max(), 1)):
            box = f'x="{x}" y="{y - height:.1f}" width="15" height="{height:.1f}" style="{shade(middle, "fill")}"'
            svg.append(f'<rect {box} stroke="currentColor" stroke-width=".5"/>')
    svg.append(f'<text y="{bottom + 13}">PIR, nats</text>')
    for x in [-2, 0, CLIP_MIN, 2, 5]:
        svg.append(f'<text x="{145 + 37.5 * x:g}" y="{bottom + 13}" text-anchor="middle">{signed(x, "+g")}</text>')
    return f'<svg viewBox="0 0 350 {bottom + 18}" role="img"><title>PIR of tokens, nats</title>{"".join(svg)}</svg>'


def run_html(run, records):
    """What a run's PIR is on average, how well it finds personal tokens, and how it is distributed."""
    mean, precision, recall = (summarize(records)[name] for name in ["pir", "pir_precision", "pir_recall"])
    text = f"<b>{isolated(run)}</b>: " + ("PIR is not a number" if mean is None else f"mean PIR {signed(mean)} nats")
    if recall is not None:
        text += f"; PIR &gt; {CLIP_MIN} finds personal tokens with precision {precision or 0:.2f}, recall {recall:.2f}"
    return f"<section><p>{text}</p>{histogram(records)}</section>"


def head_html(parts, without, given):
    """What PIR is: in words, as a formula, of one of these parts, and as a scale."""
    first = next((part for part in parts if part.pir > CLIP_MIN), None)
    word = first and f'<span style="{shade(first.pir)}">{isolated(first.text.strip())}</span>: PIR = {first.figures}.'
    scale = [f'<span style="{shade(x)}">{signed(x, "+g")} (×{math.exp(x):.3g})</span>' for x in SCALE]
    return f"""<h1>PIR: what the persona makes likelier</h1>
<p>A model reads what a user really wrote, token by token, twice: with earlier texts of this user (the <b>persona</b>)
and {without}. The log-ratio of a token's two probabilities is its <b>personal influence ratio</b>:</p>
<p class="formula">PIR = ln P(token | persona, query, prefix) − ln P(token | {given}query, prefix)</p>
<p>{f"The first token below with PIR &gt; {CLIP_MIN} is {word}" if first else ""}</p>
<div class="scale">{"".join(scale)} nats</div>
<p>Orange: likelier with the persona. Blue: less likely. Underlined: personal, as the data say.</p>
"""


def page(runs, tokenizers, contrast="none", n=10):
    """The page (HTML) of {run: records of scoring.evaluate}, {run: Tokenizer}; runs stand side by side.

    contrast: what took the persona's place in the plain view. n: how many examples are shown, those whose PIR spreads
    most first. The figures of a run are those of all its records.
    """
    spread = sum(np.array([record["pir"].std() for record in records]) for records in runs.values())
    shown = [{run: records[i] for run, records in runs.items()} for i in np.argsort(-spread, kind="stable")[:n]]
    run, record = next(iter(shown[0].items()))
    without, given = ("with a stranger's", "stranger, ") if contrast == "stranger" else ("without", "")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; form-action 'none'"
    light, dark = (";".join(f"--{name}:{colour}" for name, colour in look.items()) for look in [LIGHT, DARK])
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>PerContrast</title><style>
:root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{STYLE}</style></head><body>
{head_html(parts_of(record, tokenizers[run]), without, given)}
<div class="runs columns">{"".join(run_html(run, records) for run, records in runs.items())}</div>
<p class="soft">{len(shown)} of {len(spread)} examples, those whose PIR spreads most.</p>
{"".join(example_html(records, tokenizers) for records in shown)}
<footer>PIR = ln(P with the persona / P {without})<output>Point at a token, tap it or press Tab.</output></footer>
<script>{SCRIPT}</script></body></html>
"""
