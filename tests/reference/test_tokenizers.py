"""Token ids equal those of `tokenizers`, for every way of cutting a text that is known, on texts of many scripts."""

import json
import math
import os
import random
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import pre_tokenizers

from perce_mini.hf import load
from perce_mini.hf.tokenizer import PATTERNS
from tests.test_hf import write_folder

ASCII, DIGITS = (32, 126), (48, 57)
SCRIPTS = [(160, 591), (880, 1023), (1040, 1103), (1425, 1524), (1569, 1610), (2309, 2361), (3585, 3642), (4352, 4607)]
SCRIPTS += [(12353, 12438), (19968, 20100), (44032, 44100), (127744, 127800)]
SCRIPTS += [(9, 13), (768, 790), (8192, 8208), (1632, 1641)]  # white space, combining marks, other spaces and digits


def texts(n, seed=0):
    """Texts of many scripts, with runs of white space, digits and combining marks."""
    rng = random.Random(seed)

    def word():
        scripts = [ASCII, ASCII, DIGITS] if rng.random() < 0.5 else [ASCII, ASCII, DIGITS, *SCRIPTS]
        return "".join(chr(rng.randint(*rng.choice(scripts))) for _ in range(rng.randint(1, 8)))

    ends = ["", " ", "  ", "\n", "'s", "'LL", "12345", " 7", "\r\n\r\n", "!\n"]
    for _ in range(n):
        yield rng.choice(["", " ", "\n\n"]).join(word() + rng.choice(ends) for _ in range(rng.randint(1, 8)))


def byte_level(**how):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **how)


def split_at(pattern):
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, byte_level(use_regex=False)])


CUTS = {
    "GPT-2": byte_level(),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]),
    "GPT-2 spelled out": split_at(PATTERNS["GPT-2"]),
    "Llama 3": split_at(PATTERNS["Llama 3"]),
    "Qwen": split_at(PATTERNS["Qwen"]),
}


@pytest.mark.parametrize("cut", CUTS)
def test_ids_are_equal(cut, tmp_path):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = CUTS[cut]
    if cut == "Qwen":
        theirs.normalizer = tokenizers.normalizers.NFC()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<|end|>"]
    how = {"initial_alphabet": alphabet, "special_tokens": special, "show_progress": False}
    theirs.train_from_iterator(texts(500, seed=1), tokenizers.trainers.BpeTrainer(vocab_size=1200, **how))
    folder = write_folder(tmp_path / "m", {"vocab_size": 1200})
    theirs.save(str(folder / "tokenizer.json"))
    _, ours = load(folder)
    assert len(ours.tokens) == 1199
    theirs.encode_special_tokens = True
    for text in ["a <|end|> b", *texts(3000)]:
        assert ours.encode(text) == theirs.encode(text).ids, text
        assert cut == "Qwen" or ours.decode(ours.encode(text)) == text


def test_vocabulary_and_merges_of_a_qwen3_model_are_cut_as_transformers_does(tmp_path):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer, theirs.normalizer = CUTS["Qwen"], tokenizers.normalizers.NFC()
    how = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    theirs.train_from_iterator(texts(500, seed=2), tokenizers.trainers.BpeTrainer(vocab_size=1000, **how))
    change = {"vocab_size": 1000, "architectures": ["Qwen3ForCausalLM"], "head_dim": 6}
    folder = write_folder(tmp_path / "m", change)
    theirs.model.save(str(folder))
    _, ours = load(folder)
    for text in texts(1000):
        assert ours.encode(text) == theirs.encode(text).ids, text


@pytest.mark.skipif("SMOLLM2" not in os.environ, reason="SMOLLM2 does not name a folder with SmolLM2-135M")
def test_ids_of_a_real_tokenizer():
    folder = Path(os.environ["SMOLLM2"])
    _, ours = load(folder, dtype=torch.bfloat16)
    files = [str(folder / "vocab.json"), str(folder / "merges.txt")]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(*files))
    theirs.pre_tokenizer = CUTS["digits"]
    for text in texts(3000):
        assert ours.encode(text) == theirs.encode(text).ids, text


@pytest.mark.skipif("SMOLLM2" not in os.environ, reason="SMOLLM2 does not name a folder with SmolLM2-135M")
@pytest.mark.skipif("PERCE_SHARED" not in os.environ, reason="PERCE_SHARED does not name a folder with the passage")
def test_perplexity_of_a_real_model_on_a_real_passage():
    """15.04 on the first 87 tokens, as `transformers` computes it."""
    model, ours = load(os.environ["SMOLLM2"])
    fixture = json.loads((Path(os.environ["PERCE_SHARED"]) / "data/drop_fixture.json").read_text())
    ids = torch.tensor(ours.encode(next(iter(fixture.values()))["passage"])[:87])
    with torch.no_grad():
        logp = model(ids[None])[0, :-1].log_softmax(-1)
    assert math.exp(-logp.gather(-1, ids[1:, None]).mean()) == pytest.approx(15.04, abs=0.01)
