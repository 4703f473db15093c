"""Token ids and spans equal those of `tokenizers`, on texts of many scripts."""

import random

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from perce_mini.dataset import encode_example
from perce_mini.hf import load
from perce_mini.hf.tokenizer import PATTERNS
from perce_mini.runtime.errors import UserError
from tests.test_hf import write_folder

ASCII, DIGITS = (32, 126), (48, 57)  # code points
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


DIGITS_FIRST = [pre_tokenizers.Digits(individual_digits=True), byte_level()]
CUTS = {"GPT-2": byte_level(), "digits": pre_tokenizers.Sequence(DIGITS_FIRST)}
CUTS |= {f"pattern {i}": split_at(pattern) for i, pattern in enumerate(PATTERNS)}


def train(cut, nfc=False):
    """A tokenizer of theirs, trained on random texts."""
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = cut
    if nfc:
        theirs.normalizer = normalizers.NFC()
    how = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1200, special_tokens=["<|end|>"], **how)
    theirs.train_from_iterator(texts(500, seed=1), trainer)
    theirs.encode_special_tokens = True  # in a text, "<|end|>" is ordinary text, as it is here
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


def test_personal_tokens_are_those_that_their_offsets_find(tmp_path):
    theirs = train(CUTS["GPT-2"])
    ours = read(theirs, tmp_path / "m")
    for text in texts(300):
        first = random.Random(text).randrange(len(text))
        row = {"user": "u", "task": "t", "query": "q", "response": text, "profile": []}
        example = encode_example(row | {"personal": [[first, first + 1]]}, ours, 10_000)
        offsets = theirs.encode(text).offsets
        assert example.personal[:-1] == [start <= first < end for start, end in offsets], text


@pytest.mark.parametrize("style", ["as trained", "in another order", "all pairs, as in Llama 3"])
def test_random_merges_are_followed_or_refused(style, tmp_path):
    n_followed, letters = 0, sorted(pre_tokenizers.ByteLevel.alphabet())
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
        merges = list(dict.fromkeys(merges))
        vocab = dict.fromkeys([*letters, *("".join(pair) for pair in merges)])
        vocab = {token: i for i, token in enumerate(vocab)}
        bpe = models.BPE(vocab, merges, ignore_merges=seed % 2 == 1)
        theirs = tokenizers.Tokenizer(bpe)
        theirs.pre_tokenizer = byte_level()
        try:
            ours = read(theirs, tmp_path / "m")
        except UserError:
            continue
        n_followed += 1
        for _ in range(50):
            text = "".join(rng.choice("abc") for _ in range(rng.randint(1, 14)))
            assert ours.encode(text) == theirs.encode(text).ids, (seed, text)
    assert n_followed > 5
