"""A page that shows what PerContrast sees: every response token shaded by its PIR.

One self-contained HTML file, no script and nothing fetched; all text is escaped.
"""

import codecs
import math
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.65 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
article { border-top: 1px solid var(--line); padding: .8rem 0 1.2rem; }
h2 { font-size: 1rem; margin: .3rem 0; }
h3 { font-size: .85rem; margin: .8rem 0 .2rem; opacity: .75; font-weight: 600; }
ol, p { margin: .2rem 0; } ol { padding-left: 1.4rem; font-size: .85rem; }
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 2rem; }
.response { white-space: pre-wrap; overflow-wrap: anywhere; }
.token { position: relative; border-radius: .15rem; } .personal { border-bottom: 2px solid currentColor; }
.token:hover::after, .token:focus::after { content: attr(data-pir); position: absolute; left: 0; top: 1.5em;
  z-index: 1; background: Canvas; color: CanvasText; border: 1px solid var(--line); padding: 0 .4rem;
  font-size: .8rem; white-space: pre; }
.scale { display: flex; flex-wrap: wrap; gap: .3rem; align-items: center; font-size: .85rem; margin: .6rem 0; }
.scale span { padding: 0 .5rem; }
"""


def shade(pir):
    """Orange where the persona speaks for a token, blue where it speaks against it; full at 5 nats."""
    hue = "240,140,0" if pir > 0 else "60,120,255"
    return f"background:rgba({hue},{min(abs(pir) / 5, 1) ** 0.6 * 0.75:.2f})"


def pieces(tokens):
    """Tokens (bytes) -> (text, [their indices]): a character cut across tokens is shown as one piece."""
    decoder, pending = codecs.getincrementaldecoder("utf-8")("replace"), []
    for i, token in enumerate(tokens):
        pending.append(i)
        text = decoder.decode(token, final=i + 1 == len(tokens))
        if text:
            yield text, pending
            pending = []


def response_html(record, tokens):
    """One response: a span a piece, with the sum of its tokens' PIR (log-ratios add up)."""
    html = []
    for text, group in pieces(tokens):
        logp, plain = record["logp"][group].sum(), record["logp_plain"][group].sum()
        kind = "token personal" if record["personal"][group].any() else "token"
        figures = f"PIR {logp - plain:+.2f} nats  P {math.exp(logp):.3f} / {math.exp(plain):.3f}"
        html.append(f'<span class="{kind}" tabindex="-1" style="{shade(logp - plain)}" data-pir="{figures}">'
                    f"{escape(text)}</span>")  # fmt: skip
    return f'<div class="response">{"".join(html)}</div>'


def page(runs, tokenizers, contrast="none"):
    """The page (HTML) of {run: records of scoring.evaluate}, {run: Tokenizer}; runs stand side by side.

    contrast: what took the persona's place in the plain view.
    """
    other = "a stranger's texts, " if contrast == "stranger" else ""
    legend = "".join(f'<span style="{shade(x)}">{x:+g}</span>' for x in [-3, -1, -0.3, 0, 0.3, 0.8, 2, 5])
    articles = []
    for i, record in enumerate(next(iter(runs.values()))):
        row = record["row"]
        read = {n + 1: row["profile"][n] for n in record["read"]}
        texts = [f"<li value={n}><b>{escape(x['query'])}</b> {escape(x['response'])}</li>" for n, x in read.items()]
        columns = []
        for run, records in runs.items():
            tokens = [tokenizers[run].bytes_of[t] for t in records[i]["response"][:-1]]  # without the end token
            columns.append(f"<section><h3>response, {escape(run)}</h3>{response_html(records[i], tokens)}</section>")
        articles.append(f"""<article><h2>{escape(row["task"])}, user {escape(row["user"])}</h2>
<details open><summary>profile: {len(read)} of {len(row["profile"])} texts stand in the prompt</summary>
<ol>{"".join(texts)}</ol></details>
<h3>query</h3><p>{escape(row["query"])}</p>
<div class="runs">{"".join(columns)}</div></article>""")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>PerContrast</title><style>{STYLE}</style></head><body>
<h1>PerContrast</h1>
<p>PIR = log P(token | persona, query, prefix) − log P(token | {other}query, prefix), in nats. Orange: the persona speaks
for the token. Blue: it speaks against it. Underlined: known to be personal. Point at a token, or tap it, for its figures
(P with the persona / without it).</p>
<div class="scale">PIR {legend} nats</div>
{"".join(articles)}
</body></html>
"""
