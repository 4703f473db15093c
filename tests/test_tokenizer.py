"""BPE matches a slow, obvious trainer and is lossless, and text never becomes a control token."""

import random
import re
from collections import Counter

import pytest

from perce_mini.tokenizer import PATTERN, Tokenizer, train_bpe

TOKENIZER = Tokenizer.train("the cat sat, it's 1234 naïve café 日本 foo--bar  \n\n " * 20, 320)


def slow_bpe(text, n_tokens):
    """Recount every pair before every merge."""
    pieces = [[bytes([b]) for b in piece.encode()] for piece in re.findall(PATTERN, text)]
    tokens = [bytes([i]) for i in range(256)]
    while len(tokens) < n_tokens:
        pairs = Counter(pair for piece in pieces for pair in zip(piece, piece[1:]))
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if left + right not in tokens:
            tokens.append(left + right)
        for piece in pieces:
            i = 0
            while i + 1 < len(piece):
                if (piece[i], piece[i + 1]) == (left, right):
                    piece[i : i + 2] = [left + right]
                i += 1
    return tokens


@pytest.mark.parametrize("letters", ["a", "ab ", "aab c", "abcdé !1"])
def test_training_equals_the_slow_trainer(letters):
    rng = random.Random(letters)
    for _ in range(40):
        text = "".join(rng.choices(letters, k=rng.randrange(200)))
        assert train_bpe(text, 290) == slow_bpe(text, 290), text


def test_every_text_comes_back_and_python_cuts_it_as_tiktoken_does():
    rng = random.Random(0)
    ranges = [(32, 127), (0, 0x300), (0x3000, 0xD800), (0xE000, 0x110000)]
    for _ in range(2000):
        text = "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(30)))
        ids = TOKENIZER.encode(text)
        assert TOKENIZER.decode(ids) == text
        assert b"".join(TOKENIZER.tokens[i] for i in ids) == text.encode()
        pieces = [TOKENIZER.encode(piece) for piece in re.findall(PATTERN, text)]
        assert sum(pieces, []) == ids
    assert TOKENIZER.decode([0xFF, TOKENIZER.end, ord("a")]) == "\ufffda"


def test_how_a_text_is_cut():
    text = "it's  I'll go—to Köln12345,ok?!\r\n x"
    pieces = ["it", "'s", "  ", "I", "'ll", " go—to", " Köln", "123", "45", ",", "ok", "?!"]
    assert re.findall(PATTERN, text) == [*pieces, "\r\n ", "x"]


def test_a_template_is_filled_and_control_tokens_come_from_it_alone():
    tokenizer = Tokenizer(TOKENIZER.tokens)
    tokenizer.template = {"start": "<|query|>go ", "query": "{query}", "end": "<|response|>"}
    tokenizer.template["item"] = "[{response}|{query}]<|end|>"
    tokenizer.prepare_template()
    query, end = (tokenizer.special[name] for name in ["<|query|>", "<|end|>"])
    assert tokenizer.encode_template("start") == [query, *tokenizer.encode("go ")]
    assert tokenizer.end == tokenizer.special["<|response|>"]
    ids = tokenizer.encode_template("item", "<|end|>", " {query}")  # user text stays text
    assert tokenizer.decode(ids) == "[ {query}|<|end|>]" and ids.count(end) == 1 and ids[-1] == end
