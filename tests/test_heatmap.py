"""The page and the picture show what was measured, and no text can become markup."""

import base64
import hashlib
import json
import math
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest

from perce_mini.experiments.picture import example_of, response_svg
from perce_mini.heatmap import page, pieces, shade
from perce_mini.rouge import RougeL
from perce_mini.tokenizer import Tokenizer

TOKENIZER = Tokenizer([bytes([i]) for i in range(256)])  # one token per byte
EVIL = "\u202e\u2066abc</span><script>alert(1)</script><img src=x>\u2029\x00\x1b\x7f\x85&amp;\"'"


def record(text="abc", pir=(0.0,), personal=(), **row):
    """Make a record as scoring.evaluate does. pir: repeated to fit; personal: token indices."""
    ids = [*TOKENIZER.encode(text), TOKENIZER.end]
    n, pir = len(ids), np.resize(np.array(pir, dtype=float), len(ids))
    row = {"user": "u1", "task": "t", "query": "q", "response": text, "profile": []} | row
    scores = {"pir": pir, "logp": pir - 9, "logp_plain": np.full(n, -9.0), "hit": np.ones(n)}
    marks = {"personal": np.array([i in personal for i in range(n)])}
    texts = {"row": row, "profile_indices": list(range(len(row["profile"])))[-2:]}
    return texts | {"response": ids, "prediction": "", "rouge": None} | scores | marks


def make_page(*records, prefix="out/", **options):
    """Make the page for runs out/0, out/1, ... with one record each."""
    runs = {f"{prefix}{i}": [one] for i, one in enumerate(records)}
    return page(runs, dict.fromkeys(runs, TOKENIZER), **options)


def tokens_of(html):
    """[(class, style, formula, text), ...]"""
    span = r'<span class="(.*?)" tabindex="0" style="(.*?)" data-pir="(.*?)">(.*?)</span>'
    return re.findall(span, html, flags=re.DOTALL)


def words_of(html):
    return " ".join(re.sub("<.*?>", " ", html).split())


# ------------------------------------------------------------------------------- what it shows


def test_what_is_drawn_as_one_character_is_one_piece_with_the_sum_of_its_pir():
    assert pieces([b"a", b"\xc3", b"\xa9", b"\xff"]) == [("a", [0]), ("é", [1, 2]), ("\ufffd", [3])]
    texts = ["\u200b", "b", "👨\u200d👩\u200d👧", "e\u0301", "ی\u200c", "خ"]
    assert [text for text, _ in pieces([x.encode() for x in "".join(texts)])] == texts
    formula = f"ln({math.exp(6 - 27):.3g} / {math.exp(-27):.3g}) = +6.00 nats"
    html = make_page(record("e\u0301", [1, 2, 3, 0], personal=[2]))
    assert tokens_of(html) == [("token personal", shade(6), formula, "e\u0301")]


def test_hues_show_the_sign_and_personal_tokens_are_underlined():
    hues = [shade(x).split(",")[:3] for x in [0.01, 9, -0.01, -9]]
    assert hues[0] == hues[1] != hues[2] == hues[3] and shade(9) == shade(5) != shade(1)
    styles = [part[:2] for part in tokens_of(make_page(record("ab", [1, -1], personal=[1])))]
    assert styles == [("token", shade(1)), ("token personal", shade(-1))]


def test_every_character_is_kept_and_white_space_is_shaded_only_on_its_own():
    text = "Oui\u00a0!\u3000日本 👨‍👩‍👧 می‌خواهم soft\u00adhyphen\n\n  e\u0301\tend\u3000\u3000"
    html = make_page(record(text) | {"prediction": text, "rouge": RougeL(0, 0, 0)})
    blocks = re.findall('<bdi class="text">(.*?)</bdi>', html, flags=re.DOTALL)
    assert [re.sub("<.*?>|␤", "", block) for block in blocks] == [text, text]
    words = Tokenizer([b" a", b" ", b"\n", b"b\n", b"a", b"b"])
    html = page({"run": [record("xxxx") | {"response": [0, 1, 2, 3, words.end]}]}, {"run": words})
    assert [text for *_, text in tokens_of(html)] == ["a", " ", "␤\n", "b"]
    assert '<bdi class="text"> <' in html and "b</span>\n</bdi>" in html


def test_examples_whose_pir_varies_most_come_first():
    records = [record(pir=[0, spread], user=f"u{spread}") for spread in [1, 5, 2, 5.5, 0]]
    records.append(record(pir=[9], user="high, but does not vary"))
    html = page({"run": records}, {"run": TOKENIZER}, n=3)
    assert re.findall(r"user <bdi>(.*?)</bdi>", html) == ["u5.5", "u5", "u2"] and "3 of 6" in html


@pytest.mark.parametrize(
    "n, text", [(3, "2 of 3 examples"), (2, ">2 examples<"), (1, ">1 example<")]
)
def test_the_page_says_how_many_examples_it_shows(n, text):
    assert text in page({"run": [record()] * n}, {"run": TOKENIZER}, n=2)


def test_words_that_recur_with_a_high_pir_are_marked_in_the_persona():
    profile = [{"query": f"q{i}", "response": f"AHOY <{i}> the Ahoyer"} for i in range(5)]
    html = make_page(record("the Ahoy", [0.7, 0, 0, 0, 1, 0, 0, 0], profile=profile))
    assert "2 of 5" in html and html.count("<details>") == 1
    items = re.findall(r'<li value="(\d)"><bdi class="text">(.*?)\n', html)
    assert items == [("4", "q3"), ("5", "q4")]
    assert re.findall("<mark>(.*?)</mark>", html) == ["AHOY"] * 2


def test_columns_show_the_short_name_of_a_run_and_what_it_wrote():
    one, rouge = record(), RougeL(0.1, 0.2, 0.375)
    wrote = [one | {"prediction": text, "rouge": rouge} for text in ["I wrote", "\n" * 9]]
    text = words_of(make_page(*wrote, one, prefix="out/run-"))
    assert "by run-0 (ROUGE-L 0.38) I wrote" in text and "out/" not in text
    assert "by run-1 (ROUGE-L 0.38) (nothing)" in text and text.count("by run-2") == 2


def test_the_example_of_the_head_is_the_highest_pir_of_the_last_run():
    html = make_page(record("the Ahoy", [3] + [0] * 8), record("the Ahoy", [1, 2, 0, 9] + [0] * 5))
    example = re.search("For example, (.*?)</p>", html)[1]
    assert "= +2.00 nats, scored by" in example and ">h<" in example


# ------------------------------------------------------------------------------------ hostile texts


def test_text_never_becomes_markup_nor_reorders_the_page():
    row = dict.fromkeys(["user", "task", "query"], EVIL)
    row["profile"] = [{"query": EVIL, "response": EVIL}]
    one = record(EVIL, [0, 2], **row) | {"prediction": EVIL, "rouge": RougeL(0, 0, 0)}
    html = make_page(one, one, prefix=EVIL + "\udcff")
    plain = make_page(*[record(profile=row["profile"]) | {"rouge": RougeL(0, 0, 0)}] * 2)
    opened, closed = (Counter(re.findall(rf"<{x}(\w+)", html)) for x in ["", "/"])
    assert opened - Counter(["meta"] * 3) == closed and opened["script"] == 1
    assert set(opened) - {"mark"} == set(re.findall(r"<(\w+)", plain))
    isolated = re.findall("<bdi.*?</bdi>|<title>.*?</title>", html, flags=re.DOTALL)
    assert sum("&lt;img" in x for x in isolated) > 8 and "&amp;amp;" in isolated[0]
    assert html.count("&lt;") == sum(x.count("&lt;") for x in isolated)
    steering = [*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029]
    steering += [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    assert not set(html) & set(map(chr, steering))
    html.encode()  # raises if it cannot be written to a file


def test_only_its_own_script_runs_and_nothing_is_loaded():
    html = make_page(record(), record())
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', html)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("script-src") == f"'sha256-{digest}'"
    assert rules.pop("style-src") == "'unsafe-inline'"
    assert rules == {"default-src": "'none'", "form-action": "'none'"}
    assert html.index("Content-Security-Policy") < html.index("<style>") < html.index("<script>")
    assert not re.search(r"https?:|url\(|@import|src=|href=|\son\w+=", html)


# ------------------------------------------------------------------------------------ the picture


def test_the_picture_is_shaded_and_underlined_and_holds_every_word():
    words = ["ab", "c&<d\x00", *["x" * n for n in range(1, 60)]]
    example = example_of(record(" ".join(words), [0, 1.25, 0, -4], personal=[3]), TOKENIZER)
    assert example["pir"][:4] == [0, 1.25, 0, -4]
    svg = response_svg(json.loads(json.dumps(example)))
    blue = f'fill="rgb(60,120,255)" fill-opacity="{0.6 * 0.8**0.6:.2f}"'
    assert blue in svg and svg.count("<path") == 1
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    tokens = [text for text in texts if text.get("textLength")]
    assert "".join(text.text for text in tokens) == "".join(words).replace("\0", "\ufffd")
    assert max(float(text.get("x")) for text in tokens) < 720
