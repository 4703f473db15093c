"""BPE: round trips, a stated tie rule, equality with the obvious slow trainer, no control tokens from text."""

import random
import re
import time
from collections import Counter

import pytest

from perce_mini.tokenizer import PATTERN, SPECIAL, Tokenizer, train_bpe


def slow_bpe(text, n_tokens):
    """Count every pair anew before every merge."""
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


def random_text(rng, n):
    ranges = [(32, 127), (0, 0x300), (0x3000, 0xD800), (0xE000, 0x110000)]
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(n))


@pytest.mark.parametrize("letters", ["ab ", "aab c", "abcdé !1"])
def test_equals_the_slow_trainer(letters):
    rng = random.Random(letters)
    for _ in range(40):
        text = "".join(rng.choices(letters, k=rng.randrange(200)))
        assert train_bpe(text, 290) == slow_bpe(text, 290), text


def test_ties_go_to_the_pair_that_sorts_first():
    assert train_bpe("dc ba", 257)[256:] == [b" b"]  # "dc", " b", "ba" occur once each
    assert train_bpe("xy,ab,xy,ab", 257)[256:] == [b"ab"]


def test_any_bytes_come_back():
    tokenizer = Tokenizer.train("the cat sat on the mat, naïve café 日本 " * 20, 300)
    rng = random.Random(0)
    for _ in range(2000):
        text = random_text(rng, rng.randrange(20))
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(tokenizer.tokens[i] for i in ids) == text.encode()


def test_python_and_tiktoken_cut_alike():
    """Encoding the pieces that `re` cuts, one by one, gives what tiktoken gives for the whole."""
    tokenizer = Tokenizer.train("it's we'll 1234 foo--bar  \n\n x é ü " * 9, 320)
    rng = random.Random(1)
    for _ in range(2000):
        text = random_text(rng, rng.randrange(30))
        assert [i for piece in re.findall(PATTERN, text) for i in tokenizer.encode(piece)] == tokenizer.encode(text)


def test_text_never_becomes_a_control_token():
    tokenizer = Tokenizer.train("<|end|> <|persona|> " * 50, 400)
    for name in SPECIAL:
        assert not set(tokenizer.encode(f"a {name} b")) & set(tokenizer.special.values())
        assert tokenizer.decode(tokenizer.encode(name)) == name


def test_a_layout_puts_texts_into_their_places_and_control_tokens_come_from_it_alone():
    plain = Tokenizer.train("a b c", 280)
    layout = {"start": "<|query|>go ", "item": "[{response}|{query}]<|end|>", "query": "{query}", "end": "<|end|>"}
    tokenizer = Tokenizer(plain.tokens, layout=layout)
    end, query = tokenizer.special["<|end|>"], tokenizer.special["<|query|>"]
    assert tokenizer.lay_out("start") == [query, *plain.encode("go ")] and tokenizer.end == end
    ids = tokenizer.lay_out(
        "item", "<|end|>", "{query}"
    )  # what a user writes is text, also where it looks like a place
    assert tokenizer.decode(ids) == "[{query}|<|end|>]" and ids.count(end) == 1 and ids[-1] == end


def test_spans_lie_end_to_end_over_the_bytes():
    tokenizer = Tokenizer.train("one two one two", 270)
    ids = tokenizer.encode("one tüo") + [tokenizer.special["<|end|>"]]
    spans = tokenizer.spans(ids)
    assert [b"one t\xc3\xbco"[a:b] for a, b in spans[:-1]] == [tokenizer.tokens[i] for i in ids[:-1]]
    assert spans[-1] == (8, 8)  # a control token has no text


def test_the_state_brings_the_same_tokenizer_back():
    tokenizer = Tokenizer.train("the cat sat on the mat, naïve café " * 20, 300)
    again = Tokenizer(**tokenizer.state())
    assert again.tokens == tokenizer.tokens and again.state() == tokenizer.state()
    given = Tokenizer(
        tokenizer.tokens,
        ids=[i + 2 for i in range(len(tokenizer.tokens))],
        special={"<s>": 0, "</s>": 1},
        normal_form="NFC",
        layout={"start": "<s>", "item": "{response}", "query": "{query}", "end": "</s>"},
    )
    again = Tokenizer(**given.state())
    assert again.encode("the cafe\u0301") == given.encode("the café") == [i + 2 for i in tokenizer.encode("the café")]
    assert (again.end, again.lay_out("start"), again.vocab_size) == (1, [0], tokenizer.vocab_size - 2)


def test_one_megabyte_takes_seconds():
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(20000)]
    text = " ".join(rng.choices(words, k=170_000))[:1_000_000]
    start = time.process_time()
    assert len(train_bpe(text, 1000)) == 1000
    assert time.process_time() - start < 10
