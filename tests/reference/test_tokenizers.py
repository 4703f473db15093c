"""Token ids and spans equal those of `tokenizers`, on texts of many scripts."""

import json
import math
import os
import random
from collections import Counter
from pathlib import Path
from unicodedata import combining

import pytest
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, processors

from perce_mini.dataset import encode_example
from perce_mini.hf import load
from perce_mini.hf.tokenizer import PATTERNS
from perce_mini.rows import Row
from perce_mini.runtime.errors import UserError
from tests.test_hf import QWEN2, QWEN3, write_folder

ASCII, DIGITS = (32, 126), (48, 57)
SCRIPTS = [(160, 591), (880, 1023), (1040, 1103), (1425, 1524), (1569, 1610), (2309, 2361)]
SCRIPTS += [(3585, 3642), (4352, 4607), (12353, 12438), (19968, 20100), (44032, 44100)]
SCRIPTS += [(127744, 127800), (9, 13), (768, 790), (8192, 8208), (1632, 1641)]


def texts(n, seed=0):
    """Texts of many scripts, with runs of white space, digits and combining marks."""
    rng = random.Random(seed)

    def word():
        scripts = [ASCII, ASCII, DIGITS, *(SCRIPTS if rng.random() < 0.5 else [])]
        return "".join(chr(rng.randint(*rng.choice(scripts))) for _ in range(rng.randint(1, 8)))

    ends = ["", " ", "  ", "\n", "'s", "'LL", "12345", " 7", "\r\n\r\n", "!\n"]
    for _ in range(n):
        words = [word() + rng.choice(ends) for _ in range(rng.randint(1, 8))]
        yield rng.choice(["", " ", "\n\n"]).join(words)


def byte_level(**how):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **how)


def split_at(pattern):
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, byte_level(use_regex=False)])


CUTS = {
    "GPT-2": byte_level(),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level()]
    ),
    **{f"pattern {i}": split_at(pattern) for i, pattern in enumerate(PATTERNS)},
}


def train(cut, seed=1, nfc=False):
    """A tokenizer of theirs, trained on random texts."""
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = cut
    if nfc:
        theirs.normalizer = normalizers.NFC()
    how = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1200, special_tokens=["<|end|>"], **how)
    theirs.train_from_iterator(texts(500, seed), trainer)
    theirs.encode_special_tokens = (
        True  # so that "<|end|>" in a text is ordinary text, as it is here
    )
    return theirs


def read(theirs, folder):
    """The same tokenizer, read from a tokenizer.json."""
    write_folder(folder, {"vocab_size": 1200})
    theirs.save(str(folder / "tokenizer.json"))
    return load(folder)[1]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("nfc", [False, True])
def test_ids_are_equal(cut, nfc, tmp_path):
    theirs = train(CUTS[cut], nfc=nfc)
    ours = read(theirs, tmp_path / "m")
    assert len(ours.tokens) == 1199
    for text in ["a <|end|> b", *texts(1500)]:
        encoding = theirs.encode(text)
        assert ours.encode(text) == encoding.ids, text
        assert nfc or ours.decode(encoding.ids) == text


@pytest.mark.parametrize("nfc", [False, True])
def test_personal_tokens_are_those_that_their_offsets_find(nfc, tmp_path):
    theirs = train(CUTS["GPT-2"], nfc=nfc)
    ours = read(theirs, tmp_path / "m")
    for text in ["a\u0300 co\u0302te\u0301, e\u0301te\u0301: yes no", *texts(300)]:
        first = random.Random(text).randrange(len(text))
        span = [text.index("yes"), text.index("yes") + 3] if "yes" in text else [first, first + 1]
        row = {"user": "u", "task": "t", "query": "q", "response": text, "profile": []}
        example = encode_example(Row(row, personal=[span]), ours, 10_000)
        offsets = theirs.encode(text).offsets
        expected = [start < span[1] and span[0] < end for start, end in offsets]
        if nfc and any(combining(char) for char in text[span[0] : span[1] + 1]):
            continue  # a span that begins or ends inside of a character
        assert example.personal[:-1] == expected, text


@pytest.mark.parametrize("change", [QWEN2, QWEN3])
def test_vocab_and_merges_of_a_qwen_model_are_cut_as_transformers_does(tmp_path, change):
    theirs = train(split_at(PATTERNS[3]), seed=2, nfc=True)
    folder = write_folder(tmp_path / "m", change | {"vocab_size": 1200})
    theirs.model.save(str(folder))
    ours = load(folder)[1]
    for text in texts(1000):
        assert ours.encode(text) == theirs.encode(text).ids, text


def test_tokens_that_start_a_text_are_equal(tmp_path):
    theirs = train(byte_level())
    theirs.add_special_tokens(["<s>"])
    pair = [("<s>", theirs.token_to_id("<s>"))]
    template = processors.TemplateProcessing("<s> $A", special_tokens=pair)
    theirs.post_processor = processors.Sequence([processors.ByteLevel(), template])
    folder = write_folder(tmp_path / "m", {"vocab_size": 1300})
    theirs.save(str(folder / "tokenizer.json"))
    ours = load(folder)[1]
    ids = [*ours.encode_template("start"), *ours.encode("some text")]
    assert ids == theirs.encode("some text").ids


def make_theirs(merges, **options):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys(
        [*letters, *("".join(merge) for merge in merges), *options.pop("words", [])]
    )
    vocab = {token: i for i, token in enumerate(words)}
    theirs = tokenizers.Tokenizer(models.BPE(vocab, merges, **options))
    theirs.pre_tokenizer = byte_level()
    return theirs


def test_merges_that_tiktoken_would_not_follow_are_refused(tmp_path):
    pairs = [("b", "c"), ("a", "b"), ("ab", "c")]
    theirs = make_theirs(pairs)
    assert theirs.encode("abc").tokens == ["a", "bc"]  # tiktoken takes a whole piece as it is
    with pytest.raises(UserError, match="'abc'"):
        read(theirs, tmp_path / "a")
    theirs = make_theirs([("a", "b")], ignore_merges=True, words=["abc"])
    assert theirs.encode("abc").tokens == ["abc"]
    assert theirs.encode("abcd").tokens == ["ab", "c", "d"]  # tiktoken would merge ab and c
    with pytest.raises(UserError, match="'abc'"):
        read(theirs, tmp_path / "b")
    theirs = make_theirs([("a", "b")])
    theirs.add_tokens(["  "])  # which ordinary text uses
    assert theirs.encode("a  b").tokens == ["a", "  ", "b"]
    with pytest.raises(UserError, match="added token"):
        read(theirs, tmp_path / "d")


@pytest.mark.parametrize("style", ["as trained", "in another order", "all pairs, as in Llama 3"])
def test_random_merges_are_followed_or_refused(style, tmp_path):
    outcomes = Counter()
    for seed in range(60):
        rng, words, merges = random.Random(seed), list("abc"), []
        while len(merges) < 6:
            merges.append((rng.choice(words), rng.choice(words)))
            words = list(dict.fromkeys([*words, "".join(merges[-1])]))
        if style == "in another order":
            rng.shuffle(merges)
        elif style == "all pairs, as in Llama 3":
            splits = [(word[:i], word[i:]) for word in words for i in range(1, len(word))]
            merges = [pair for pair in splits if {*words} >= {*pair}]
        theirs = make_theirs(list(dict.fromkeys(merges)), ignore_merges=seed % 2 == 1)
        try:
            ours = read(theirs, tmp_path / "m")
        except UserError:
            outcomes["refused"] += 1
            continue
        outcomes["followed"] += 1
        for _ in range(50):
            text = "".join(rng.choice("abc") for _ in range(rng.randint(1, 14)))
            assert ours.encode(text) == theirs.encode(text).ids, (seed, text)
    assert outcomes["followed"] > 5


def test_bytes_that_the_vocabulary_lacks_are_left_out(tmp_path):
    theirs = make_theirs([("a", "b")])
    state = json.loads(theirs.to_str())
    state["model"]["vocab"].pop("\u0104")  # byte 4
    theirs = tokenizers.Tokenizer.from_str(json.dumps(state))
    ours, text = read(theirs, tmp_path / "m"), "ab\x04cab"
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.spans(text) == theirs.encode(text).offsets == [(0, 2), (3, 4), (4, 6)]


# ------------------------------------------------------------------------------------- a real model

needs_smollm2 = pytest.mark.skipif("SMOLLM2" not in os.environ, reason="SMOLLM2 names no folder")
needs_shared = pytest.mark.skipif(
    "PERCE_SHARED" not in os.environ, reason="PERCE_SHARED is not set"
)


@needs_smollm2
def test_ids_of_a_real_tokenizer():
    folder = Path(os.environ["SMOLLM2"])
    _, ours = load(folder, dtype=torch.bfloat16)
    files = [str(folder / "vocab.json"), str(folder / "merges.txt")]
    theirs = tokenizers.Tokenizer(models.BPE.from_file(*files))
    theirs.pre_tokenizer = CUTS["digits"]
    for text in texts(3000):
        assert ours.encode(text) == theirs.encode(text).ids, text


@needs_smollm2
@needs_shared
def test_perplexity_of_a_real_model_on_a_real_passage():
    """15.04 on the first 87 tokens, as `transformers` computes it."""
    model, ours = load(os.environ["SMOLLM2"])
    passages = json.loads((Path(os.environ["PERCE_SHARED"]) / "data/drop_fixture.json").read_text())
    ids = torch.tensor(ours.encode(next(iter(passages.values()))["passage"])[:87])
    with torch.no_grad():
        logp = model(ids[None])[0, :-1].log_softmax(-1)
    assert math.exp(-logp.gather(-1, ids[1:, None]).mean()) == pytest.approx(15.04, abs=0.01)
