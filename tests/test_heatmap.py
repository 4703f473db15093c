"""The page: nothing in a text becomes markup, characters cut across tokens come back whole."""

import re
from html import unescape

import numpy as np

from perce_mini.heatmap import page, pieces, shade
from perce_mini.tokenizer import Tokenizer

TOKENIZER = Tokenizer([bytes([i]) for i in range(256)])  # a byte a token


def make_page(text, pir, personal=(), profile=()):
    ids = TOKENIZER.encode(text) + [TOKENIZER.special["<|end|>"]]
    pir = np.resize(np.array(pir, dtype=float), len(ids))
    record = {"row": {"user": "<u>", "task": "review", "query": "<script>alert(1)</script>", "profile": list(profile)}, "read": list(range(len(profile)))[-2:], "response": ids,
              "logp": pir - 9, "logp_plain": np.full(len(ids), -9.0), "personal": np.array([i in personal for i in range(len(ids))])}  # fmt: skip
    return page({"out/<b>": [record], "out/two": [record]}, {"out/<b>": TOKENIZER, "out/two": TOKENIZER})


def test_text_never_becomes_markup():
    html = make_page("</span><img src=x onerror=alert(1)>", [0.1], profile=[{"query": "<h1>", "response": "&amp;<i>"}])
    assert not re.search(r"<(script|img|h1>|i>|u>|b>out)", html.split("</h1>", 1)[1].replace("<b>&lt;h1", ""))
    shown = "".join(unescape(piece) for piece in re.findall(r'data-pir="[^"]*">(.*?)</span>', html))
    assert shown == "</span><img src=x onerror=alert(1)>" * 2
    assert "http" not in html.replace("http-equiv", "")  # nothing is fetched


def test_a_character_cut_across_tokens_is_one_piece_with_the_sum_of_their_pir():
    assert list(pieces([b"a", b"\xc3", b"\xa9", b"\xff"])) == [("a", [0]), ("é", [1, 2]), ("\ufffd", [3])]
    assert "PIR +3.00 nats" in make_page("é", [1, 2, 0])


def test_the_texts_that_stand_in_the_prompt_are_shown():
    html = make_page("a", [1], profile=[{"query": f"q{i}", "response": "r"} for i in range(5)])
    assert re.findall(r"<li value=(\d)><b>(q\d)", html) == [("4", "q3"), ("5", "q4")] and "2 of 5 texts" in html


def test_hues_tell_the_sign_and_personal_tokens_are_underlined():
    assert shade(2).split(",")[:3] != shade(-2).split(",")[:3]
    assert shade(9) == shade(5) and shade(5) != shade(1)
    assert make_page("ab", [1], personal=[1]).count('class="token personal"') == 2  # one a run
