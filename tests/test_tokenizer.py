"""BPE: round trips, a stated tie rule, equality with the obvious slow trainer, no control tokens from text."""

import random
import re
import time
from collections import Counter

import pytest
import tiktoken

from perce_mini.tokenizer import PATTERN, SPECIAL, Tokenizer, TokenizerError, train_bpe


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


def random_text(dice, n):
    ranges = [(32, 127), (0, 0x300), (0x3000, 0xD800), (0xE000, 0x110000)]
    return "".join(chr(dice.randrange(*dice.choice(ranges))) for _ in range(n))


@pytest.mark.parametrize("letters", ["ab ", "aab c", "abcdé !1"])
def test_equals_the_slow_trainer(letters):
    dice = random.Random(letters)
    for _ in range(40):
        text = "".join(dice.choices(letters, k=dice.randrange(200)))
        assert train_bpe(text, 290) == slow_bpe(text, 290), text


def test_ties_go_to_the_pair_that_sorts_first():
    assert train_bpe("dc ba", 257)[256:] == [b" b"]  # "dc", " b", "ba" occur once each
    assert train_bpe("xy,ab,xy,ab", 257)[256:] == [b"ab"]


def test_any_bytes_come_back():
    tokenizer = Tokenizer.train("the cat sat on the mat, naïve café 日本 " * 20, 300)
    dice = random.Random(0)
    for _ in range(2000):
        text = random_text(dice, dice.randrange(20))
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(tokenizer.tokens[i] for i in ids) == text.encode()


def test_python_and_tiktoken_cut_alike():
    """Encoding the pieces that `re` cuts, one by one, gives what tiktoken gives for the whole."""
    tokenizer = Tokenizer.train("it's we'll 1234 foo--bar  \n\n x é ü " * 9, 320)
    dice = random.Random(1)
    for _ in range(2000):
        text = random_text(dice, dice.randrange(30))
        assert [i for piece in re.findall(PATTERN, text) for i in tokenizer.encode(piece)] == tokenizer.encode(text)


def test_text_never_becomes_a_control_token():
    tokenizer = Tokenizer.train("<|end|> <|persona|> " * 50, 400)
    for name in SPECIAL:
        assert not set(tokenizer.encode(f"a {name} b")) & set(tokenizer.special.values())
        assert tokenizer.decode(tokenizer.encode(name)) == name


def test_a_layout_puts_texts_into_their_places_and_control_tokens_come_from_it_alone():
    plain = Tokenizer.train("a b c", 280)
    tokenizer = Tokenizer(plain.tokens, layout={"start": "<|query|>go ", "item": "[{response}|{query}]<|end|>", "query": "{query}", "end": "<|end|>"})
    end, query = tokenizer.special["<|end|>"], tokenizer.special["<|query|>"]
    assert tokenizer.lay_out("start") == [query, *plain.encode("go ")] and tokenizer.end == end
    ids = tokenizer.lay_out("item", "<|end|>", "{query}")  # what a user writes is text, also where it looks like a place
    assert tokenizer.decode(ids) == "[{query}|<|end|>]" and ids.count(end) == 1 and ids[-1] == end


def test_spans_lie_end_to_end_over_the_bytes():
    tokenizer = Tokenizer.train("one two one two", 270)
    ids = tokenizer.encode("one tüo") + [tokenizer.special["<|end|>"]]
    spans = tokenizer.spans(ids)
    assert [b"one t\xc3\xbco"[a:b] for a, b in spans[:-1]] == [tokenizer.tokens[i] for i in ids[:-1]]
    assert spans[-1] == (8, 8)  # a control token has no text


def test_a_file_brings_the_same_tokenizer_back(tmp_path):
    tokenizer = Tokenizer.train("the cat sat on the mat, naïve café " * 20, 300)
    tokenizer.save(tmp_path / "t.json")
    again = Tokenizer.load(tmp_path / "t.json")
    assert again.tokens == tokenizer.tokens and again.settings == tokenizer.settings
    named = Tokenizer(tokenizer.tokens, ids=[i + 2 for i in range(len(tokenizer.tokens))], special={"<s>": 0, "</s>": 1}, normal_form="NFC",
                      layout={"start": "<s>", "item": "{response}", "query": "{query}", "end": "</s>"})  # fmt: skip
    named.save(tmp_path / "t.json")
    again = Tokenizer.load(tmp_path / "t.json")
    assert again.encode("the cafe\u0301") == named.encode("the café") == [i + 2 for i in tokenizer.encode("the café")]
    assert (again.end, again.lay_out("start"), again.vocab_size) == (1, [0], tokenizer.vocab_size - 2)


@pytest.mark.parametrize("content", ["", "[]", '{"tokens": 3}', '{"tokens": ["a"], "pattern": 5}', '{"tokens": ["é"'])
def test_a_damaged_file_is_one_clear_line(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(TokenizerError, match="t.json: not a tokenizer file"):
        Tokenizer.load(tmp_path / "t.json")


def test_an_unknown_name_is_one_clear_line():
    with pytest.raises(TokenizerError, match="'gpt3' is not known"):
        Tokenizer.named("gpt3")


def test_a_name_that_cannot_be_reached_is_one_clear_line(monkeypatch):
    def offline(name):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("tiktoken.get_encoding", offline)
    with pytest.raises(TokenizerError, match="cannot be reached.*--tokenizer bpe needs no network") as caught:
        Tokenizer.named("gpt2")
    assert "\n" not in str(caught.value)


def test_a_named_vocabulary_keeps_its_order_and_gets_our_control_tokens(monkeypatch):
    """Ranks with a gap, as p50k_base has them: the same pieces, ids without the gap."""
    ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256, b"abc": 258}
    theirs = tiktoken.Encoding("x", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 257})
    monkeypatch.setattr("tiktoken.get_encoding", lambda name: theirs)
    ours = Tokenizer.named("p50k_base")
    assert [ours.tokens[i] for i in ours.encode("abcabd")] == [b"abc", b"ab", b"d"] and ours.vocab_size == 258 + 4
    assert ours.special["<|end|>"] == 261 and len(ours.encode("<|endoftext|>")) > 1


def test_one_megabyte_takes_seconds():
    dice = random.Random(0)
    words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 9))) for _ in range(20000)]
    text = " ".join(dice.choices(words, k=170_000))[:1_000_000]
    start = time.perf_counter()
    assert len(train_bpe(text, 1000)) == 1000
    assert time.perf_counter() - start < 10
