"""The page and the picture: what they say is what was measured, and nothing in a text becomes a part of the page."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from perce_mini.experiments.picture import COLUMNS, example_of, response_svg
from perce_mini.heatmap import DARK, LIGHT, page, pieces, shade
from perce_mini.rouge import RougeL
from perce_mini.tokenizer import Tokenizer
from tests.conftest import ROOT

TOKENIZER = Tokenizer([bytes([i]) for i in range(256)])  # one token per byte
EVIL = "\u202eabc</span><script>alert(1)</script><img src=x>\u2029\x00\x1b\x7f\x85\r\u200b&amp;\"'"


def record(text="abc", pir=(0.0,), personal=(), profile=(), tokenizer=TOKENIZER, **row):
    """A record of scoring.evaluate. pir: of its tokens, over and over; personal: which tokens are."""
    ids = [*tokenizer.encode(text), tokenizer.end]
    n, pir = len(ids), np.resize(np.array(pir, dtype=float), len(ids))
    row = {"user": "u1", "task": "review", "query": "q", "response": text, "profile": list(profile)} | row
    made = {"row": row, "read": list(range(len(profile)))[-2:], "response": ids, "pir": pir, "hit": np.zeros(n)}
    made |= {"logp": pir - 9, "logp_plain": np.full(n, -9.0), "personal": np.array([i in personal for i in range(n)])}
    return made | {"prediction": "", "rouge": None}


def make_page(*records, **options):
    """The page of one run for each record, out/0, out/1, ..."""
    runs = {f"out/{i}": [one] for i, one in enumerate(records)}
    return page(runs, dict.fromkeys(runs, TOKENIZER), **options)


class Reader(HTMLParser):
    """What a browser makes of a page: its tags, and each text with the tags that it stands in."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.tokens, self.open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ["meta", "path", "rect"]:
            self.open.append(tag)
        if "data-pir" in dict(attributes):
            self.tokens.append(["", dict(attributes)])

    def handle_endtag(self, tag):
        if tag not in ["meta", "path", "rect"]:
            assert self.open.pop() == tag
        if tag not in ["b", "bdi", "mark", "span"]:
            self.texts.append((" ", []))

    def handle_data(self, text):
        self.texts.append((text, list(self.open)))
        if self.open and self.open[-1] == "span" and "article" in self.open:
            self.tokens[-1][0] += text


def words_of(html):
    return " ".join("".join(text for text, _ in Reader(html).texts).split())


def luminance(colour):
    channels = [x / 255 / 12.92 if x / 255 <= 0.04045 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in colour]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def contrast(a, b):
    """Of two colours (r, g, b), as WCAG 2 defines it."""
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


# ------------------------------------------------------------------------------------------ what it says


def test_a_character_cut_across_tokens_is_one_piece_with_the_sum_of_their_pir():
    assert list(pieces([b"a", b"\xc3", b"\xa9", b"\xff"])) == [("a", [0]), ("é", [1, 2]), ("\ufffd", [3])]
    ((text, attributes),) = Reader(make_page(record("é", [1, 2, 0]))).tokens
    figures = f"ln({math.exp(3 - 18):.3g} / {math.exp(-18):.3g}) = +3.00 nats"
    assert (text, attributes["data-pir"]) == ("é", figures)


def test_hues_tell_the_sign_and_personal_tokens_are_underlined():
    assert shade(2).split(",")[:3] != shade(-2).split(",")[:3]
    assert shade(9) == shade(5) and shade(5) != shade(1)
    assert (
        shade(0.01).split(",")[:3] == shade(9).split(",")[:3]
        and shade(-0.01).split(",")[:3] == shade(-9).split(",")[:3]
    )
    tokens = Reader(make_page(record("ab", [1, -1], personal=[1]))).tokens
    assert [(x["style"], x["class"]) for _, x in tokens] == [(shade(1), "token"), (shade(-1), "token personal")]


def test_white_space_is_not_shaded_and_a_token_of_nothing_else_is_drawn():
    words = Tokenizer(
        [b" a", b" ", b"\n", b"b\n", "\u200b".encode(), b"a", b"b", *(bytes([i]) for i in [226, 128, 139])]
    )
    ids = [0, 1, 2, 3, 4]
    one = record("x", tokenizer=TOKENIZER) | {"response": [*ids, words.end]}
    one |= {name: np.zeros(6) for name in ["pir", "logp", "logp_plain", "hit"]} | {"personal": np.zeros(6, bool)}
    html = page({"run": [one]}, {"run": words})
    assert [text for text, _ in Reader(html).tokens] == ["a", "␣", "␤", "b", "␣"]
    assert re.sub(r"<span[^>]*>|</span>", "|", re.search('<bdi class="text">(.*?)</bdi>', html, re.S)[1]) == (
        " |a||␣| |␤|\n|b|\n|␣|"
    )


def test_the_telling_examples_come_first():
    records = [record(pir=[0, spread], user=f"u{spread}") for spread in [1, 5, 2, 5.5, 0]]
    records.append(record(pir=[9], user="high, with no spread"))
    html = page({"run": records}, {"run": TOKENIZER}, n=3)
    assert re.findall(r"user <bdi>(.*?)</bdi>", html) == ["u5.5", "u5", "u2"] and "3 of 6 examples" in html
    more = page({"run": [record()] * 12}, {"run": TOKENIZER})
    assert more.count("<article>") == 10 and more == page({"run": [record()] * 12}, {"run": TOKENIZER})


def test_the_persona_is_closed_and_words_that_recur_with_a_high_pir_are_marked():
    profile = [{"query": f"q{i}", "response": f"AHOY <{i}> the Ahoyer"} for i in range(5)]
    html = make_page(record("the Ahoy", [0.7, 0, 0, 0, 1, 0, 0, 0], profile=profile))
    assert "2 of 5 earlier texts" in html and "<details open" not in html and html.count("<details>") == 1
    assert re.findall(r'<li value="(\d)"><bdi class="text">(.*?)\n', html) == [("4", "q3"), ("5", "q4")]
    assert re.findall("<mark>(.*?)</mark>", html) == ["AHOY"] * 2


def test_two_runs_have_a_column_of_their_difference():
    tokens = Reader(make_page(record("ab", [1, 2], personal=[1]), record("ab", [4, -1]))).tokens
    assert [(text, x["style"]) for text, x in tokens[4:]] == [("a", shade(3)), ("b", shade(-3))]
    assert [x["data-pir"] for _, x in tokens[4:]] == [
        "(+4.00) − (+1.00) = +3.00 nats",
        "(−1.00) − (+2.00) = −3.00 nats",
    ]
    assert [x["class"] for _, x in tokens[4:]] == ["token", "token personal"]
    assert "Difference: PIR in out/1 − PIR in out/0" in words_of(make_page(record(), record()))
    assert "Difference" not in make_page(record()) + make_page(record(), record(), record())
    pairs = Tokenizer([*(bytes([i]) for i in range(256)), b"ab"])
    cut = page({"a": [record("ab")], "b": [record("ab", tokenizer=pairs)]}, {"a": TOKENIZER, "b": pairs})
    assert "Difference" not in cut and len(Reader(cut).tokens) == 3


def test_heads_say_who_wrote_what():
    text = words_of(make_page(record() | {"prediction": "I wrote", "rouge": RougeL(0.1, 0.2, 0.375)}, record()))
    assert text.count("The user's own text, as out/0 reads it abc") == 1
    assert text.count("What out/0 wrote itself (ROUGE-L 0.38) I wrote") == 1 and "out/1 wrote" not in text


def test_the_figures_of_a_run_are_those_of_all_its_records():
    a = record("abcd", [2, 2, 0, -1, 0.5], personal=[0, 2])
    b = record("a", [0.9, 3], personal=[0])
    a["row"]["personal"] = b["row"]["personal"] = [[0, 1]]
    text = words_of(page({"run": [a, b]}, {"run": TOKENIZER}, n=1))
    mean = (2 + 2 + 0 - 1 + 0.5 + 0.9 + 3) / 7  # found: 2, 2, 0.9, 3; of them personal: 2, 0.9; personal: 2, 0, 0.9
    assert f"run: mean PIR +{mean:.2f} nats; PIR > 0.8 finds personal tokens with precision 0.50, recall 0.67" in text
    assert "finds personal" not in words_of(make_page(record(pir=[2])))
    assert "precision 0.00, recall 0.00" in make_page(record(pir=[0], personal=[0]) | {"row": a["row"]})


def test_the_histogram_counts_personal_and_other_tokens():
    pir = [-0.1, -0.3, 0.1, 2.1, -9, 9, 0.7, 0.9]
    html = make_page(record("abcdefg", pir, personal=[3, 5]))
    bars = re.findall(r'<rect x="(\d+)" y="(.*?)" width="15" height="(.*?)"', html)
    heights = [
        {round((int(x) - 145) / 37.5, 9): float(h) for x, _, h in bars[at : at + 18] if float(h)} for at in [0, 18]
    ]
    assert len(bars) == 36 and heights[0] == pytest.approx({2: 30, 4.8: 30})
    assert heights[1] == pytest.approx({-2: 15, -0.4: 30, 0: 15, 0.4: 15, 0.8: 15})
    assert ">personal</text>" in html and make_page(record(pir=pir)).count("<rect") == 18


def test_the_head_tells_what_pir_is():
    text = words_of(make_page(record("abc", [0.5, 2, 3])))
    assert "PIR = ln P(token | persona, query, prefix) − ln P(token | query, prefix)" in text
    assert f"with PIR > 0.8 is b: PIR = ln({math.exp(-7):.3g} / {math.exp(-9):.3g}) = +2.00 nats" in text
    for x in [-2, 5]:
        assert f"{x:+g} (×{math.exp(x):.3g})".replace("-", "−") in text
    text = words_of(make_page(record(), contrast="stranger"))
    assert "− ln P(token | stranger, query, prefix)" in text and "P with a stranger's)" in text
    assert "first token below" not in text


def test_a_run_that_knows_nothing_has_a_page():
    html = make_page(record("ab", [math.nan]))
    assert len(Reader(html).tokens) == 2 and "PIR is not a number" in html


# ---------------------------------------------------------------------------------------- what it is


def evil_page():
    runs = {f"out/{EVIL}": [], "out/\udcff": []}  # a name that is not UTF-8
    for records in runs.values():
        wrote = {"prediction": EVIL, "rouge": RougeL(0, 0, 0)}
        profile = [{"query": EVIL, "response": EVIL}]
        records.append(record(EVIL, [0, 2], profile=profile, user=EVIL, task=EVIL, query=EVIL) | wrote)
    return page(runs, dict.fromkeys(runs, TOKENIZER))


def test_text_never_becomes_markup():
    html = evil_page()
    reader, plain = Reader(html), Reader(make_page(*[record(profile=[{"query": "a", "response": "b"}])] * 2))
    assert reader.open == [] and set(reader.tags) - {"mark"} == set(plain.tags) and reader.tags.count("script") == 1
    shown = "".join(text for text, _ in reader.tokens)
    assert shown.count("</span><script>alert(1)</script><img") == 3 and shown.count("&amp;\"'") == 3
    html.encode()  # there is nothing in it that a file could not hold


def test_nothing_reorders_or_hides_the_pages_own_words():
    html = evil_page()
    assert not set(html) & {*map(chr, [*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029])}
    assert "\u202e" not in re.sub("<bdi.*?</bdi>", "", html, flags=re.S) and "\u202e" in html
    assert all("bdi" in tags for text, tags in Reader(html).texts if "alert(1)" in text)
    text = "".join(text for text, _ in Reader(html).texts)
    assert text.count("␀␛␡\ufffd␍") == text.count("alert(1)") > 10


def test_only_its_own_script_runs_and_nothing_is_fetched():
    html = make_page(record(), record())
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', html)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "form-action": "'none'",
    }
    assert html.index("Content-Security-Policy") < html.index("<style>") < html.index("<script>")
    assert not re.search(r"https?:|url\(|@import|src=|href=|\son\w+=", html)


def test_tokens_are_reached_by_keyboard():
    html = make_page(record("abc"))
    tokens = Reader(html).tokens
    assert len(tokens) == 3 and all(x["tabindex"] == "0" and x["data-pir"] for _, x in tokens)
    assert re.search(r"\.token:focus \{ outline: 2px", html) and "focusin" in html and "<output>" in html


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_on_every_shade(dark):
    html = make_page(*[record("x" * 400, np.linspace(-8, 8, 400)) for _ in range(2)])
    assert (DARK if dark else LIGHT).items() <= dict(
        re.findall(r"--(\w+):(#\w+)", html.split("prefers-color-scheme:dark")[dark])
    ).items()
    paper, ink, soft = (bytes.fromhex(colour[1:]) for colour in (DARK if dark else LIGHT).values())
    shades = {tuple(map(float, found.split(","))) for found in re.findall(r"rgba\((.*?)\)", html)}
    assert len(shades) > 80 and contrast(paper, soft) >= 4.5
    for *hue, opacity in shades:
        background = [opacity * x + (1 - opacity) * y for x, y in zip(hue, paper)]
        assert contrast(background, ink) >= 4.5, (hue, opacity)


# ------------------------------------------------------------------------------------- the picture


def texts_of(svg):
    """[(x, y, text), ...] of the tokens of a picture."""
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return [(float(x.get("x")), float(x.get("y")), x.text) for x in elements if x.get("textLength")]


def test_the_picture_holds_the_whole_response_in_lines():
    words = [f"w{i}" + "<&>\x00"[i % 4] * (i % 9) for i in range(60)] + [
        "x",
        "x" * 79,
        "x",
    ]  # a line ends as the next starts
    example = {"user": "u", "task": "<t>", "query": "&q", "texts": [words[0], *(f" {word}" for word in words[1:])]}
    example |= {"pir": [0.0] * len(words), "personal": [False] * len(words)}
    tokens = texts_of(response_svg(example, dark=False))
    assert [text for _, _, text in tokens] == [word.replace("\x00", "␀") for word in words]
    columns, lines = zip(*((round((x - 16) / 8.6), y) for x, y, _ in tokens))
    assert max(x + len(text) for x, (_, _, text) in zip(columns, tokens)) <= COLUMNS and len(set(lines)) > 2
    expected = [(lines[i - 1], columns[i - 1] + len(words[i - 1]) + 1) for i in range(1, len(words))]
    for now, after in zip(zip(lines[1:], columns[1:]), expected):
        assert now == after or now[0] == after[0] + 30 and now[1] == 0  # right behind the one before, or on a new line


def test_the_picture_is_shaded_and_underlined():
    example = example_of(record("ab cd", [0, 1.25, 0, -4, 0], personal=[3]), TOKENIZER)
    assert example["texts"] == tuple("ab cd") and example["pir"] == [0, 1.25, 0, -4, 0]
    svg = response_svg(json.loads(json.dumps(example)), dark=True)
    fill = f'fill="rgb(60,120,255)" fill-opacity="{0.6 * 0.8**0.6:.2f}"'
    assert f'<rect x="{16 + 3 * 8.6:.1f}" y="62" width="8.6" height="22" rx="2" {fill}/>' in svg
    assert svg.count("<path") == 1 and f"M{17 + 3 * 8.6:.1f} " in svg and DARK["paper"] in svg


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_recorded_picture_is_drawn_again_byte_for_byte(name):
    results = ROOT / "data/results"
    example = json.loads((results / "example.json").read_text(encoding="utf-8"))
    svg = response_svg(example, name == "dark")
    assert svg == (results / f"example-{name}.svg").read_text(encoding="utf-8")
    assert "".join(text for _, _, text in texts_of(svg)) == re.sub(r"\s", "", "".join(example["texts"]))
