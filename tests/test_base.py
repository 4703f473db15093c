"""The base model: documents, tokenizers by name, shapes that are refused."""

import json

import pytest
import tiktoken
import torch

from data.personas import ship
from perce_mini import base, checkpoint
from perce_mini.dataset import Row, collate, encode_example
from perce_mini.errors import UserError
from perce_mini.experiments import regimes
from perce_mini.files import sha256
from perce_mini.tokenizer import PATTERN, Tokenizer
from tests.conftest import ROOT

ROW = Row(
    user="u", task="t", query="a red", response="it is", profile=[{"query": "a", "response": "it"}], personal=[[0, 2]]
)


def test_a_document_is_predicted_from_its_second_token_on():
    e = encode_example(ROW, Tokenizer.train("a red it is", 280), 64)
    document = base.as_document(e)
    batch = collate([document])
    assert batch.labels.tolist() == (e.prompt + e.response)[1:]
    assert batch.persona.at.tolist() == list(range(len(batch.labels))) and not any(document.personal)


def test_an_unknown_tokenizer_is_one_clear_line():
    with pytest.raises(UserError, match="'gpt3' is not known"):
        base.make_tokenizer("gpt3", 300, [ROW])


def test_a_tokenizer_that_cannot_be_reached_is_one_clear_line(monkeypatch):
    def offline(name):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("tiktoken.get_encoding", offline)
    with pytest.raises(UserError, match="cannot be reached.*--tokenizer bpe needs no network") as caught:
        base.make_tokenizer("gpt2", 300, [ROW])
    assert "\n" not in str(caught.value)


def test_a_named_vocabulary_keeps_its_order_and_gets_our_control_tokens(monkeypatch):
    """Ranks with a gap, as p50k_base has them: the same pieces, ids without the gap."""
    ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256, b"abc": 258}
    theirs = tiktoken.Encoding("x", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 257})
    monkeypatch.setattr("tiktoken.get_encoding", lambda name: theirs)
    ours = base.make_tokenizer("p50k_base", 300, [ROW])
    assert [ours.tokens[i] for i in ours.encode("abcabd")] == [b"abc", b"ab", b"d"] and ours.vocab_size == 258 + 4
    assert ours.special["<|end|>"] == 261 and len(ours.encode("<|endoftext|>")) > 1


def test_a_learned_vocabulary_reads_every_text_once():
    """Queries, responses and profiles; a text that stands in many rows counts once."""
    rows = [ROW] * 3 + [ROW | {"query": "zz zz", "profile": [{"query": "qqq", "response": "q"}]}]
    texts = ["a red", "it is", "a", "it", "zz zz", "qqq", "q"]
    assert base.make_tokenizer("bpe", 270, rows).tokens == Tokenizer.train("\n".join(texts), 270).tokens


def test_a_shape_too_large_to_train_is_refused_before_it_is_built():
    base.check_shape(2048, base.SHAPE)
    with pytest.raises(ValueError, match="billion parameters"):
        base.check_shape(10**6, base.SHAPE | {"n_embd": 2**15})
    with pytest.raises(ValueError, match="n_head"):
        base.check_shape(2048, base.SHAPE | {"n_head": 5})


def test_a_base_model_is_shipped_in_half_precision_and_used_in_full(command, trained, tmp_path):
    source = next((trained / "out").glob("base-*"))
    assert command(ship.main, source, "--out", tmp_path / "base").status == 0
    (mine, tokenizer, state), (given, _, _) = checkpoint.load(tmp_path / "base"), checkpoint.load(source)
    for (name, p), q in zip(mine.named_parameters(), given.parameters()):
        assert p.dtype is torch.float32 and torch.equal(p, q.bfloat16().float()), name
    assert state["optimizer"] is None and state["settings"] == checkpoint.read(source)["settings"]
    assert (tmp_path / "base/checkpoint.pt").stat().st_size < (source / "checkpoint.pt").stat().st_size / 3
    assert tokenizer.vocab_size == mine.config.vocab_size
    for wrong in [[trained / "out/perce", "--out", tmp_path / "x"], [source, "--out", source]]:
        assert command(ship.main, *wrong).status == 2 and not (tmp_path / "x").exists()
    assert checkpoint.read(source)["optimizer"] is not None


def test_base_models_of_other_widths_are_trained_as_long_as_the_one_that_comes_with_the_project():
    assert regimes.BASE_STEPS == checkpoint.read(ROOT / "data/base")["step"]


def test_results_are_recorded_from_the_base_model_that_comes_with_the_project():
    """After another one is shipped, everything is to be recorded anew."""
    digest = sha256(ROOT / "data/base/checkpoint.pt")[:16]
    for name in ["main", "identify"]:
        assert json.loads((ROOT / f"data/results/{name}.json").read_text())["base"] == digest
