"""The base model: its data, training, resuming, export and errors."""

import json
import shutil

import pytest
import torch

from perce_mini import base
from perce_mini.dataset import collate, encode_example
from perce_mini.rows import Row, read_examples
from perce_mini.runtime import checkpoint
from perce_mini.tokenizer import Tokenizer
from tests.conftest import TINY_BASE, call, press_ctrl_c, same, spy

PROFILE = [{"query": "a", "response": "it"}]
ROW = Row(user="u", task="t", query="a red", response="it is", profile=PROFILE, personal=[[0, 2]])


def test_a_document_is_predicted_from_its_second_token_on():
    e = encode_example(ROW, Tokenizer.train("a red it is", 280), 64)
    document = base.as_document(e)
    batch = collate([document])
    assert batch.labels.tolist() == (e.prompt + e.response)[1:]
    assert batch.persona.target_positions.tolist() == list(range(len(batch.labels)))
    assert not any(document.personal)


def test_the_tokenizer_reads_every_text_once():
    profile = [{"query": "qqq", "response": "q"}]
    rows = [ROW] * 3 + [Row(ROW | {"query": "zz zz", "profile": profile})]
    texts = ["a red", "it is", "a", "it", "zz zz", "qqq", "q"]
    expected = Tokenizer.train("\n".join(texts), 270)
    assert base.train_tokenizer(rows, 270).tokens == expected.tokens


def test_the_command_makes_the_model_that_the_flags_say(world, start):
    model, tokenizer, state = checkpoint.load(start)
    config, settings = model.config, vars(state["settings"])
    shape = [config.n_layer, config.n_head, config.n_kv_head, config.n_embd, config.block_size]
    assert shape == [1, 2, 1, 16, 1100] and tokenizer.vocab_size == config.vocab_size == 400
    expected = {"loss": "ce", "steps": 4, "data": str(world), "init": ""}
    expected["examples"] = len(read_examples(world / "base.jsonl"))
    assert expected.items() <= settings.items() and state["step"] == 4


def test_a_base_model_is_continued_but_never_changed(start, world, tmp_path, monkeypatch):
    words = ["--data", world, "--out", tmp_path / "base", *TINY_BASE]
    press_ctrl_c(monkeypatch, step=2)
    assert call(base.main, *words).status == 130
    assert checkpoint.read(tmp_path / "base")["step"] == 2
    assert call(base.main, *words).status == 0
    states = [checkpoint.read(folder) for folder in [tmp_path / "base", start]]
    for part in ["model", "optimizer", "random"]:  # as if it had not been interrupted
        assert same(states[0][part], states[1][part]), part

    data = shutil.copytree(world, tmp_path / "data")
    (data / "base.jsonl").unlink()  # without this file it reads train.jsonl
    assert base.base_file(data) == data / "train.jsonl"
    fits = spy(monkeypatch, base, "fit")
    changes = {"n_embd": ["--n-embd", 32], "steps 4": ["--steps", 5], "rows": ["--data", data]}
    for reason, change in changes.items():
        assert call(base.main, *words, *change).is_refusal(str(tmp_path / "base"), reason)
    assert not fits


def test_an_export_is_in_half_precision_and_trains_in_full(start, tmp_path):
    base.export(start, tmp_path / "small")
    small, full = checkpoint.load(tmp_path / "small"), checkpoint.load(start)
    for (name, p), q in zip(small.model.named_parameters(), full.model.parameters(), strict=True):
        assert p.dtype is torch.float32 and torch.equal(p, q.bfloat16().float()), name
    assert small.state["optimizer"] is None and small.settings == full.settings
    sizes = [(f / "checkpoint.pt").stat().st_size for f in [tmp_path / "small", start]]
    assert sizes[0] < sizes[1] / 3


WRONG = {
    "--n-shifted 7": "n_shifted 7",
    "--vocab-size 100": "--vocab-size",
    "--data nowhere": "nowhere",
    "--data long": "base.jsonl:1",
    "--out long/base.jsonl": "base.jsonl/checkpoint.pt",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_one_line(world, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long").mkdir()
    (tmp_path / "long/base.jsonl").write_text(json.dumps(ROW | {"response": "word " * 1000}))
    usual = ["--data", world, "--vocab-size", 300, "--out", tmp_path / "base", "--device", "cpu"]
    assert call(base.main, *usual, *words.split()).is_refusal(WRONG[words])
    assert not (tmp_path / "base").exists()
