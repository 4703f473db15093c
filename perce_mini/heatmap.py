"""Build a web page that shows what PerContrast finds: a user's text, each token shaded by PIR.

The page is a single HTML file that loads no external resources. Text from the data is escaped, so
it cannot become markup.
"""

import base64
import codecs
import hashlib
import math
import re
import unicodedata
from html import escape
from typing import NamedTuple

import numpy as np

from perce_mini.percontrast import CLIP_MIN
from perce_mini.runtime.errors import plural, printable
from perce_mini.tables import NOTHING, short_names

COLOURS = """
:root { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #f0f6fc; --soft: #9198a1; } }
"""
SCALE = [-5, -2, 0, 0.8, 2, 5]  # nats
MARKS = ["Mn", "Mc", "Me", "Cf"]  # Unicode categories of accents and joiners
STYLE = """
html { scroll-padding-bottom: 6rem; } h1 { font-size: 1.5rem; line-height: 1.3; margin: 0; }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  overflow-wrap: anywhere; max-width: 76rem; margin: 0 auto; padding: 1rem 1rem 6rem; }
p, ol, h2, h3, summary { margin: .3rem 0; } h2 { font-size: 1.1rem; } ol { padding-left: 2rem; }
h3, summary, .soft { color: var(--soft); } h3, ol, summary, .scale { font-size: .85rem; }
article { border-top: 1px solid var(--soft); margin-top: .8rem; padding-top: .4rem; }
.columns { display: flex; flex-wrap: wrap; gap: 0 2rem; } section { flex: 1 1 20rem; }
.scale span { display: inline-block; padding: 0 .5rem; margin-right: .3rem; }
bdi { white-space: break-spaces; } .text { display: block; padding: .2rem; margin: 0 -.2rem; }
.token { border-radius: .15rem; } .token:focus { outline: 2px solid; } output { display: block; }
.personal { border-bottom: 2px solid; } output, .formula { font-weight: 600; }
mark { color: inherit; background: none; box-shadow: inset 0 -.5em rgba(240,140,0,.4); }
footer { position: fixed; inset: auto 0 0; padding: .4rem 1rem; border-top: 1px solid;
  background: var(--paper); }
"""
SCRIPT = """
for (const kind of ["pointerover", "focusin"]) addEventListener(kind, event => {
  const token = event.target.closest("[data-pir]");
  if (token) document.querySelector("output").textContent = token.dataset.pir;
});
"""


def visible(text):
    """Escape text for HTML or XML, and replace control characters."""
    return escape(printable(text))


def isolated(text):
    """Wrap text in HTML that keeps right-to-left text from reordering the text around it."""
    return f"<bdi>{visible(text)}</bdi>"


def signed(x, form="+.2f"):
    """Format a number with its sign, using a real minus sign: +0.50, −2.00."""
    return f"{x:{form}}".replace("-", "−") if round(x, 2) else "0"


def tint(pir):
    """Convert PIR to a hue (r, g, b) and an opacity. Text stays readable on the strongest shade."""
    hue = (240, 140, 0) if pir > 0 else (60, 120, 255)  # orange: more likely
    return hue, min(abs(pir) / 5, 1) ** 0.6 * 0.6


def shade(pir):
    (red, green, blue), opacity = tint(pir)
    return f"background:rgba({red},{green},{blue},{opacity:.2f})"


class Part(NamedTuple):
    text: str
    pir: float  # nats, summed over its tokens, because log-ratios add up
    personal: bool
    formula: str  # for example "ln(0.246 / 0.0805) = +1.12 nats"


def pieces(tokens):
    """Join tokens (bytes) into pieces of text: [(text, [indices of its tokens]), ...].

    A displayed character is never split, even if it spans several tokens: the bytes of a letter, a
    letter and its accent, or an emoji and its joiners.

    [b"caf", b"\\xc3", b"\\xa9"] -> [("caf", [0]), ("é", [1, 2])]
    """
    decoder, result, indices = codecs.getincrementaldecoder("utf-8")("replace"), [], []
    for i, token in enumerate(tokens):
        indices.append(i)
        text = decoder.decode(token, final=i + 1 == len(tokens))
        if text:
            before, its_indices = result[-1] if result else ("", [])
            if unicodedata.category(text[0]) in MARKS or before.endswith("\u200d"):
                text, indices = before + text, its_indices + indices
                del result[-1:]
            result.append((text, indices))
            indices = []
    return result


def parts_of(record, tokenizer):
    """Convert a record from scoring.evaluate to a list of Parts, without the end token."""
    parts = []
    for text, indices in pieces([tokenizer.bytes_of[i] for i in record["response"][:-1]]):
        logp, plain, pir = (float(record[k][indices].sum()) for k in ["logp", "logp_plain", "pir"])
        formula = f"ln({math.exp(logp):.3g} / {math.exp(plain):.3g}) = {signed(pir)} nats"
        parts.append(Part(text, pir, bool(record["personal"][indices].any()), formula))
    return parts


def words_with_high_pir(parts):
    """Return the words, in lower case, that contain a part with PIR > 0.8."""
    text = "".join(part.text for part in parts)
    high = [part.pir > CLIP_MIN for part in parts for _ in part.text]  # one per character
    words = re.finditer(r"\w+", text)
    return {word[0].lower() for word in words if any(high[word.start() : word.end()])}


def response_html(parts):
    """Render a <span> per part. White space at its edges is shaded only if it is all there is."""
    html = ""
    for part in parts:
        text = visible(part.text)
        core = text.strip() or text
        before, _, after = text.partition(core)
        kind = "token personal" if part.personal else "token"
        attributes = f'class="{kind}" tabindex="0" style="{shade(part.pir)}"'
        core = core.replace("\n", "␤\n")
        html += f'{before}<span {attributes} data-pir="{part.formula}">{core}</span>{after}'
    return f'<bdi class="text">{html}</bdi>'


def item_html(number, item, marked):
    """Render a profile item as HTML, highlighting the words in the set `marked`."""
    words = re.split(r"(\w+)", f"{item['query']}\n{item['response']}")  # \w+ needs no escaping
    html = [f"<mark>{x}</mark>" if x.lower() in marked else visible(x) for x in words]
    return f'<li value="{number}"><bdi class="text">{"".join(html)}</bdi></li>'


def example_html(records, tokenizers, names):
    """Render an example: the query, a column per run, and the persona. records: {run: record}."""
    columns, marked = "", set()
    for run, record in records.items():
        name, parts = isolated(names[run]), parts_of(record, tokenizers[run])
        marked |= words_with_high_pir(parts)
        columns += f"<section><h3>The user's own text, scored by {name}</h3>{response_html(parts)}"
        if record["rouge"]:
            text = visible(record["prediction"] if record["prediction"].strip() else NOTHING)
            columns += f"<h3>Generated by {name} (ROUGE-L {record['rouge'].fmeasure:.2f})</h3>"
            columns += f'<bdi class="text">{text}</bdi>'
        columns += "</section>"
    row, indices = record["row"], record["profile_indices"]
    earlier = plural(len(row["profile"]), "earlier text")
    items = [item_html(i + 1, row["profile"][i], marked) for i in indices]
    note = f"; highlighted words recur above with PIR &gt; {CLIP_MIN}" if marked else ""
    return f"""<article><h2>{isolated(row["task"])}, user {isolated(row["user"])}</h2>
<p class="soft">Query: {isolated(row["query"])}</p><div class="columns">{columns}</div><details>
<summary>Persona in the prompt: {len(items)} of {earlier}{note}</summary>
<ol>{"".join(items)}</ol></details></article>
"""


def head_html(names, parts, other, stranger, labelled):
    """Explain PIR in words, with a formula, an example and a colour scale."""
    underlined = " Underlined tokens are marked as personal in the data." if labelled else ""
    visible_parts = [part for part in parts if part.text.strip()]
    example = max(visible_parts, key=lambda part: part.pir)
    token = f'<span style="{shade(example.pir)}">{isolated(example.text.strip())}</span>'
    scored_by = f", scored by {isolated(names[-1])}" if len(names) > 1 else ""
    bar = ""
    for pir in SCALE:
        bar += f'<span style="{shade(pir)}">{signed(pir, "+g")} (×{math.exp(pir):.3g})</span>'
    return f"""<h1>PIR of every token: {", ".join(map(isolated, names))}</h1>
<p>The model reads the user's own text twice: with earlier texts by this user in the prompt (the
<b>persona</b>) and {other}. PIR compares the two probabilities of each token:</p>
<p class="formula">PIR = ln P(token | persona, query, prefix)
− ln P(token | {stranger}query, prefix)</p>
<p>For example, {token} in the first text below has PIR = {example.formula}{scored_by}.</p>
<p class="scale">{bar}nats (× change in probability)</p>
<p>Orange tokens are more likely with the persona, blue tokens less likely.{underlined}</p>
"""


def page(runs, tokenizers, contrast="none", n=10):
    """Build the HTML page from {run: records from scoring.evaluate} and {run: its Tokenizer}.

    The page shows the n examples whose PIR varies most. contrast: see contrast.py.
    """
    stranger = "stranger's texts, " if contrast == "stranger" else ""
    other = "with a stranger's texts instead" if stranger else "without it"
    spread = sum(np.array([record["pir"].std() for record in records]) for records in runs.values())
    order, names = np.argsort(-spread, kind="stable")[:n], short_names(runs)
    examples = [{run: records[i] for run, records in runs.items()} for i in order]
    articles = [example_html(records, tokenizers, names) for records in examples]
    run, record = list(examples[0].items())[-1]  # the base model comes first: it knows the least
    labelled = any("personal" in one["row"] for one in runs[run])
    parts = parts_of(record, tokenizers[run])
    head = head_html(list(names.values()), parts, other, stranger, labelled)
    which = plural(len(spread), "example")
    if len(examples) < len(spread):
        which = f"The {len(examples)} of {which} whose PIR varies most:"
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{visible(", ".join(names.values()))}: PIR</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}; form-action 'none'">
<style>{COLOURS}{STYLE}</style></head><body>
{head}<p class="soft">{which}</p>
{"".join(articles)}<footer>PIR = ln(P with the persona / P {other})
<output>Point at a token, tap it, or press Tab.</output></footer>
<script>{SCRIPT}</script></body></html>
"""
