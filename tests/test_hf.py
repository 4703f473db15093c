"""Model folders of others: the model that they say, against a slow one of plain loops; or refused by name, at once."""

import contextlib
import io
import json
import math
import os
import re
import resource
import shutil
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import eval as evaluation
import train
from perce_mini import checkpoint, lora
from perce_mini.dataset import encode_example
from perce_mini.errors import UserError
from perce_mini.hf import compare, load, load_any, read_template, reading, safetensors, save
from perce_mini.hf.__main__ import main
from perce_mini.hf.safetensors import read_safetensors
from perce_mini.hf.tokenizer import PATTERNS, bytes_of_characters
from perce_mini.rouge import rouge_l
from tests.conftest import ROOT, spy, start_process

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 258,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "head_dim": 6}
VOCAB = {c: i for i, c in enumerate(bytes_of_characters())} | {"he": 256, "<|im_end|>": 257}
TOKENIZER_JSON = {
    "model": {"type": "BPE", "vocab": VOCAB, "merges": ["h e"]},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    "added_tokens": [],
}


def shapes_of(config):
    """{name: shape} of the weights of such a model."""
    width, hidden, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or width // heads
    q, kv = heads * size, config["num_key_value_heads"] * size
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], width], "model.norm.weight": [width]}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [config["vocab_size"], width]
    for i in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm": [width],
            "self_attn.q_proj": [q, width],
            "self_attn.k_proj": [kv, width],
            "self_attn.v_proj": [kv, width],
            "self_attn.o_proj": [width, q],
            "post_attention_layernorm": [width],
            "mlp.gate_proj": [hidden, width],
            "mlp.up_proj": [hidden, width],
            "mlp.down_proj": [width, hidden],
        }
        if config["architectures"] == QWEN3["architectures"]:
            layer |= {"self_attn.q_norm": [size], "self_attn.k_norm": [size]}
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def write_folder(folder, change=None, tensors=None):
    """A tiny model folder, written by hand: random weights, the 256 bytes and one merge as vocabulary.

    change: settings in place of CONFIG's; tensors: {name: shape, or None to leave it out} in place of what fits these.
    """
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(VOCAB))
    (folder / "merges.txt").write_text("#version: 0.2\nh e\n")
    (folder / "config.json").write_text(json.dumps(CONFIG | (change or {})))
    write_safetensors(folder / "model.safetensors", shapes_of(CONFIG | (change or {})) | (tensors or {}))
    return folder


def write_safetensors(path, shapes, entries=None):
    """Random weights of these shapes; entries: of the header, in place of the true ones."""
    rng, header, data = torch.Generator().manual_seed(1), {}, b""
    for name, shape in shapes.items():
        if shape is not None:
            middle = 1.0 if "norm" in name else 0.0
            raw = (middle + 0.5 * torch.randn(shape, generator=rng)).numpy().tobytes()
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
    head = json.dumps(header | (entries or {})).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


# ----------------------------------------------------------------------------------- the model, by plain loops


def rms_norm(x, weight, eps):
    return weight * x / math.sqrt(sum(float(number) ** 2 for number in x) / len(x) + eps)


def turned(x, position, theta):
    """Number i and number i + half of a head turn together, by position * theta^(-2i / size)."""
    y, half = x.clone(), len(x) // 2
    for i in range(half):
        angle = position * theta ** (-2 * i / len(x))
        y[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        y[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return y


def slow_attention(xs, weight, config, prefix):
    """What every position reads of those before it, head by head. weight(name): a matrix or vector."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size, eps, read = weight(prefix + "self_attn.q_proj").shape[0] // heads, config["rms_norm_eps"], []
    for t, x in enumerate(xs):
        parts = []
        for h in range(heads):
            group = h // (heads // kv_heads)
            scores, values = [], []
            for s in range(t + 1):
                q = (weight(prefix + "self_attn.q_proj") @ x)[h * size : (h + 1) * size]
                k = (weight(prefix + "self_attn.k_proj") @ xs[s])[group * size : (group + 1) * size]
                if config["architectures"] == ["Qwen3ForCausalLM"]:
                    q = rms_norm(q, weight(prefix + "self_attn.q_norm"), eps)
                    k = rms_norm(k, weight(prefix + "self_attn.k_norm"), eps)
                q, k = turned(q, t, config["rope_theta"]), turned(k, s, config["rope_theta"])
                scores.append(math.exp(float(q @ k) / math.sqrt(size)))
                values.append((weight(prefix + "self_attn.v_proj") @ xs[s])[group * size : (group + 1) * size])
            parts.append(sum(score * value for score, value in zip(scores, values)) / sum(scores))
        read.append(weight(prefix + "self_attn.o_proj") @ torch.cat(parts))
    return read


def slow_logits(tensors, config, ids):
    """Logits (T, V) of a Llama or Qwen3 model, from its weights as they stand in the file."""

    def weight(name):
        return tensors[f"{name}.weight"].double()

    eps, xs = config["rms_norm_eps"], [weight("model.embed_tokens")[i] for i in ids]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        normed = [rms_norm(x, weight(prefix + "input_layernorm"), eps) for x in xs]
        xs = [x + y for x, y in zip(xs, slow_attention(normed, weight, config, prefix))]
        for t, x in enumerate(xs):
            y = rms_norm(x, weight(prefix + "post_attention_layernorm"), eps)
            gate, up = weight(prefix + "mlp.gate_proj") @ y, weight(prefix + "mlp.up_proj") @ y
            xs[t] = x + weight(prefix + "mlp.down_proj") @ (gate / (1 + torch.exp(-gate)) * up)
    output = weight("model.embed_tokens" if config["tie_word_embeddings"] else "lm_head")
    return torch.stack([output @ rms_norm(x, weight("model.norm"), eps) for x in xs])


# eps is large, and theta small, so that forgetting either shows
SLOW = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 0.05,
    "rope_theta": 50.0,
}


@pytest.mark.parametrize("change", [{"tie_word_embeddings": False}, QWEN3], ids=["llama", "qwen3"])
def test_logits_are_those_of_plain_loops(tmp_path, change):
    config = CONFIG | SLOW | change
    folder = write_folder(tmp_path / "m", config)
    model, _ = load(folder, dtype=torch.float64)
    ids = [3, 200, 17, 17, 256, 90, 4, 200]
    expected = slow_logits(read_safetensors(folder / "model.safetensors"), config, ids)
    assert (model(torch.tensor([ids]))[0] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_setting_may_stand_where_newer_folders_have_it(tmp_path):
    ids = torch.arange(9)[None]
    old = load(write_folder(tmp_path / "a", {"rope_theta": 50.0}))[0](ids)
    new = {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
    assert torch.equal(old, load(write_folder(tmp_path / "b", new))[0](ids))


def test_a_folder_becomes_a_model_that_generates(tmp_path):
    model, tokenizer = load(write_folder(tmp_path / "m"))
    ids = tokenizer.encode("hehe <|im_end|>")
    assert ids[:2] == [256, 256] and 257 not in ids
    assert tokenizer.decode([*ids, 257]) == "hehe <|im_end|>" and tokenizer.spans(ids)[:2] == [(0, 2), (2, 4)]
    assert model(torch.tensor([ids])).shape == (1, len(ids), 258)
    assert len(model.generate([ids], 5, end_id=257)[0]) <= 5


def split_in_two(folder):
    """The same weights in two files and an index."""
    shapes, places = shapes_of(CONFIG), {}
    (folder / "model.safetensors").unlink()
    for part, names in enumerate([list(shapes)[:4], list(shapes)[4:]], 1):
        file = f"model-0000{part}-of-00002.safetensors"
        places |= dict.fromkeys(names, file)
        write_safetensors(folder / file, {name: shapes[name] for name in names})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_weights_may_lie_in_several_files_and_in_bfloat16(tmp_path):
    folder = write_folder(tmp_path / "m")
    split_in_two(folder)
    model, _ = load(folder, dtype=torch.bfloat16)
    assert model.head.dtype == torch.bfloat16 and model.head.shape == (258, 8)
    with pytest.raises(UserError, match="model-00001-of-00002.safetensors: there are other weights"):
        save(model, folder, folder)  # the index would still name the old ones
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="model-00002-of-00002.safetensors: No such file"):
        load(folder)


def test_a_tied_head_may_stand_there_twice_but_not_differ(tmp_path):
    folder = write_folder(tmp_path / "m", tensors={"lm_head.weight": [258, 8]})
    with pytest.raises(UserError, match="'lm_head.weight' differs from the embedding"):
        load(folder)
    tensors = {name: tensor.clone() for name, tensor in safetensors.read_weights(folder).items()}
    same = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    safetensors.write_safetensors(folder / "model.safetensors", same)
    assert torch.equal(load(folder)[0].head, same["lm_head.weight"])


@pytest.mark.parametrize("change", [{"tie_word_embeddings": False}, QWEN3], ids=["llama", "qwen3"])
def test_what_is_saved_is_what_was_loaded(tmp_path, change):
    folder = write_folder(tmp_path / "m", change)
    model, tokenizer = load(folder)
    for dtype in [torch.float32, torch.bfloat16]:
        save(model, folder, tmp_path / "saved", dtype)
        again, same = load(tmp_path / "saved")
        assert all(torch.equal(a.to(dtype), b.to(dtype)) for a, b in zip(model.parameters(), again.parameters()))
        assert same.encode("hehe x") == tokenizer.encode("hehe x")
        assert {b["dtype"] for b in header_of(tmp_path / "saved").values()} == {
            "F32" if dtype == torch.float32 else "BF16"
        }


def header_of(folder):
    raw = (folder / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    header.pop("__metadata__")
    return header


# -------------------------------------------------------------------------------------------- how prompts look


def shown(tokenizer, ids):
    names = {i: f"⟨{name}⟩" for name, i in tokenizer.special.items()}
    return "".join(names.get(i) or tokenizer.decode([i]) for i in ids)


IM = ["<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@pytest.mark.parametrize(
    "special, end, expected",
    [
        (["<|endoftext|>"], "<|endoftext|>", "q\nr\n\nQ\n"),
        (["<|endoftext|>", *IM, "<think>"], "<|endoftext|>", "q\nr\n\nQ\n"),  # a base model that knows tokens of chats
        (IM, "<|im_end|>", "⟨<|im_start|>⟩user\nq\nr\n\nQ⟨<|im_end|>⟩\n⟨<|im_start|>⟩assistant\n"),
        (
            [*IM, "<think>", "</think>"],
            "<|im_end|>",
            "⟨<|im_start|>⟩user\nq\nr\n\nQ⟨<|im_end|>⟩\n⟨<|im_start|>⟩assistant\n⟨<think>⟩\n\n⟨</think>⟩\n\n",
        ),
        (["<|begin_of_text|>", "<|end_of_text|>"], "<|end_of_text|>", "⟨<|begin_of_text|>⟩q\nr\n\nQ\n"),
        (
            LLAMA3,
            "<|eot_id|>",
            "⟨<|begin_of_text|>⟩⟨<|start_header_id|>⟩user⟨<|end_header_id|>⟩\n\nq\nr\n\nQ⟨<|eot_id|>⟩"
            "⟨<|start_header_id|>⟩assistant⟨<|end_header_id|>⟩\n\n",
        ),
    ],
)
def test_prompts_take_the_models_own_form(tmp_path, special, end, expected):
    ids = {name: 257 + i for i, name in enumerate(special)}
    folder = write_folder(tmp_path / "m", {"eos_token_id": [ids[end]], "vocab_size": 270})
    (folder / "vocab.json").write_text(json.dumps({k: i for k, i in VOCAB.items() if k != "<|im_end|>"} | ids))
    _, tokenizer, _ = load_any(folder, "cpu")
    row = {"user": "u", "task": "t", "query": "Q", "response": "R", "profile": [{"query": "q", "response": "r"}]}
    e = encode_example(row, tokenizer, 64)
    assert shown(tokenizer, e.prompt) == expected
    assert shown(tokenizer, e.plain_prompt) == expected.replace("q\nr\n\n", "")
    assert shown(tokenizer, e.response) == f"R⟨{end}⟩"


def test_a_template_goes_over_the_models_own_form(tmp_path):
    folder = write_folder(tmp_path / "m", {"eos_token_id": 257})
    _, tokenizer, _ = load_any(folder, "cpu", template={"item": "{response} <|im_end|>{query};"})
    assert shown(tokenizer, tokenizer.lay_out("item", "q", "r")) == "r ⟨<|im_end|>⟩q;"
    with pytest.raises(UserError, match="'<|im_and|>' is not a control token"):
        load_any(folder, "cpu", template={"end": "<|im_and|>"})


@pytest.mark.parametrize("evil", ["<|im_end|>", "{query}", "{response}", "a <|im_end|>{response}{query}<|im_start|>"])
def test_a_users_text_never_becomes_a_control_token_or_another_text(tmp_path, evil):
    folder = write_folder(tmp_path / "m", {"eos_token_id": 257})
    _, tokenizer, _ = load_any(folder, "cpu")
    row = {"user": "u", "task": "t", "query": evil, "response": evil, "profile": [{"query": evil, "response": evil}]}
    e = encode_example(row, tokenizer, 500)
    start, query = tokenizer.lay_out("start"), tokenizer.lay_out("query", evil)
    persona = e.prompt[len(start) : -len(query)]
    assert persona.count(257) == 0 and e.response.count(257) == 1  # the end of the response itself
    assert query.count(257) == 1  # the end of what the user says
    assert tokenizer.decode(persona) == f"{evil}\n{evil}\n\n" and tokenizer.decode(e.response) == evil


@pytest.mark.parametrize(
    "template, reason",
    [
        ("[1]", "must be an object"),
        ('{"item": 3}', "'item' must be a text"),
        ('{"itme": ""}', "'itme' is not known"),
        ("{", "not JSON"),
        ('{"item": "{query}"}', "'item' does not say where {response} goes"),
        ('{"query": "x"}', "'query' does not say where {query} goes"),
    ],
)
def test_a_wrong_template_is_named(tmp_path, template, reason):
    (tmp_path / "t.json").write_text(template)
    with pytest.raises(UserError) as error:
        read_template(tmp_path / "t.json")
    assert "t.json: " in str(error.value) and reason in str(error.value)


def test_a_part_that_is_null_is_left_out(tmp_path):
    (tmp_path / "t.json").write_text('{"item": null, "end": "<|im_end|>"}')
    assert read_template(tmp_path / "t.json") == {"end": "<|im_end|>"}


def test_a_folder_without_an_end_token_cannot_be_trained(tmp_path):
    folder = write_folder(tmp_path / "m")
    with pytest.raises(UserError, match="no control token ends a text"):
        load_any(folder, "cpu")
    assert load_any(folder, "cpu", template={"end": "<|im_end|>"})[1].end == 257


# ------------------------------------------------------------------------------------------- training and back


@pytest.fixture
def folder(tmp_path):
    """A tiny folder, and data whose rows it can hold."""
    folder = write_folder(tmp_path / "m", {"eos_token_id": 257, "max_position_embeddings": 400})
    (tmp_path / "data").mkdir()
    item = {"query": "say", "response": "hehe"}
    rows = [
        {"user": f"u{i}", "task": "t", "query": "say he", "response": "he he!", "profile": [item]} for i in range(6)
    ]
    for name in ["train", "test"]:
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run_train(command, folder, *flags):
    given = ["--init", folder, "--data", folder.parent / "data", "--out", folder.parent / "run"]
    small = ["--batch-size", 2, "--eval-examples", 2, "--device", "cpu"]
    return command(train.main, *given, *small, *flags)


@pytest.mark.parametrize(
    "flags", [["--lr", 1e-2], ["--lora-rank", 2, "--lr", 1e-2, "--recompute"], ["--contrast", "stranger"]]
)
def test_a_folder_is_trained_resumed_scored_and_written_back(command, folder, tmp_path, flags, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_train(command, folder, "--steps", 3, *flags)
    assert result.status == 0 and "ROUGE-L" in result.out, result.err
    assert run_train(command, folder, "--steps", 3, "--resume", *flags).status == 0
    written = ["--heatmap", tmp_path / "h.html", "--json", tmp_path / "s.json"]
    contrast = flags if "--contrast" in flags else []
    given = ["run", "--init", folder, "--data", tmp_path / "data", "--device", "cpu", "--max-new-tokens", 5]
    result = command(evaluation.main, *given, *written, *contrast)
    assert result.status == 0 and "<html" in (tmp_path / "h.html").read_text(), result.err
    assert set(json.loads((tmp_path / "s.json").read_text())["runs"]) == {str(folder), "run"}
    result = command(evaluation.main, "run", "--init", folder, "--json", folder / "config.json")
    assert result.status == 2 and "config.json is read here, so it cannot be written" in result.error
    assert command(main, "run", "--out", tmp_path / "back").status == 0
    ids = torch.arange(9)[None]
    trained, back, start = checkpoint.load("run")[0](ids), load(tmp_path / "back")[0](ids), load(folder)[0](ids)
    assert torch.allclose(trained, back, atol=1e-4) and not torch.allclose(trained, start, atol=1e-4)
    result = command(main, "run", "--out", folder)
    assert result.status == 2 and "holds the model that run started from" in result.error
    assert torch.equal(load(folder)[0](ids), start)
    assert "run holds a run: give another folder" in command(main, "run", "--out", "run").error
    result = run_train(command, folder, "--steps", 1, "--init", "run", "--out", "next")  # a run of such a run
    assert result.status == 0 and load_any("next", "cpu")[2]["settings"]["tokenizer"] == "pretrained", result.err
    assert command(main, "next", "--out", tmp_path / "back").status == 0


def test_a_run_beside_its_pretrained_model_is_scored_as_it_was_trained(command, folder, monkeypatch):
    assert run_train(command, folder, "--steps", 1, "--top-k", 1).status == 0
    calls = spy(monkeypatch, evaluation, "encode_rows")
    data = ["--data", folder.parent / "data", "--device", "cpu", "--max-new-tokens", 0]
    result = command(evaluation.main, folder.parent / "run", "--init", folder, *data)
    assert result.status == 0 and [args[3] for args, _ in calls] == [1, 1], result.err


def test_a_run_keeps_its_template(command, folder, tmp_path):
    (tmp_path / "t.json").write_text('{"query": "Q: {query} A: "}')
    assert run_train(command, folder, "--steps", 1, "--template", tmp_path / "t.json").status == 0
    result = run_train(command, folder, "--steps", 1, "--resume")
    assert result.status == 2 and "was made with template {" in result.error


def test_lora_starts_as_the_seed_says(command, folder):
    weights = []
    for seed in [0, 0, 1]:
        result = run_train(command, folder, "--steps", 1, "--lora-rank", 1, "--seed", seed, "--overwrite")
        assert result.status == 0, result.err
        weights.append(checkpoint.read(folder.parent / "run")["model"]["blocks.0.attention.q.a.weight"])
    assert torch.equal(weights[0], weights[1]) and not torch.allclose(weights[0], weights[2], atol=0.01)


def test_a_run_is_not_put_into_a_hugging_face_folder(command, folder):
    other = shutil.copytree(folder, folder.parent / "other")
    result = run_train(command, folder, "--steps", 1, "--out", other)
    assert result.status == 2 and "holds a Hugging Face model" in result.error
    assert not (other / "checkpoint.pt").exists()


def test_learning_rates_fit_what_is_trained(command, folder):
    for flags, lr in [([], train.LR_PRETRAINED), (["--lora-rank", 1, "--overwrite"], train.LR_LORA)]:
        result = run_train(command, folder, "--steps", 1, *flags)
        assert result.status == 0, result.err
        assert checkpoint.read(folder.parent / "run")["settings"]["lr"] == lr


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--block-size", 401], "the model has 400 positions, --block-size asks for 401"),
        (["--block-size", 20], "do not fit into the block of 20"),
        (["--n-layer", 2], "n_layer 1, not 2"),
        (["--tokenizer", "gpt2"], "tokenizer pretrained, not gpt2"),
        (["--template", "nowhere.json"], "nowhere.json: No such file"),
        (["--lora-rank", -1], "argument --lora-rank: must be a whole number from 0"),
    ],
)
def test_wrong_flags_end_in_one_line_before_any_training(command, folder, flags, reason):
    result = run_train(command, folder, "--steps", 1, *flags)
    assert result.status == 2 and reason in result.error and not (folder.parent / "run/checkpoint.pt").exists()


def test_a_run_from_nothing_pretrained_is_not_written_back(command, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    result = command(main, "out/perce", "--out", tmp_path / "back")
    assert result.status == 2 and "did not start from a Hugging Face folder" in result.error
    result = command(evaluation.main, "nowhere")
    assert result.status == 2 and "nowhere: not a folder on this machine" in result.error


def test_a_run_that_says_it_started_from_itself_is_not_followed_for_ever(command, folder, tmp_path):
    model, tokenizer, _ = load_any(folder, "cpu")
    checkpoint.save(tmp_path / "run", model, tokenizer, {"init": str(tmp_path / "run")}, 0)
    result = command(main, tmp_path / "run", "--out", tmp_path / "back")
    assert result.status == 2 and "did not start from a Hugging Face folder" in result.error


@pytest.mark.parametrize("change", [{"intermediate_size": 24}, {"rope_theta": 1e5}, {"rms_norm_eps": 1e-6}])
def test_only_what_fits_its_source_is_saved(folder, tmp_path, change):
    model, _ = load(folder)
    other = write_folder(tmp_path / "other", change)
    with pytest.raises(UserError, match=f"{tmp_path}/back: the model is another than that of {other}"):
        save(model, other, tmp_path / "back")
    lora.add(model, 2)
    with pytest.raises(UserError, match="LoRA has to be merged"):
        save(model, folder, tmp_path / "back")
    assert not (tmp_path / "back").exists()


# --------------------------------------------------------------------------------------------- what is refused


def refusal(folder):
    """The line with which a folder is refused."""
    with pytest.raises(UserError) as error:
        load(folder)
    line = str(error.value)
    assert line.startswith(str(folder)) and "\n" not in line and len(line) < 500
    return line


NUMBER_FIELDS = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
NUMBER_FIELDS += ["num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta"]


@pytest.mark.parametrize("field", NUMBER_FIELDS)
@pytest.mark.parametrize("value", [0, -1, 2**70, 10**18, "8", [8], {}, True, 1.5e300, -0.5])
def test_numbers_out_of_their_range_are_named(tmp_path, field, value):
    assert f"config.json: {field!r} must be a" in refusal_of_config(tmp_path, json.dumps(CONFIG | {field: value}))


def refusal_of_config(tmp_path, text):
    folder = write_folder(tmp_path / "m")
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return refusal(folder)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"architectures": ["MistralForCausalLM"]}, "not ['MistralForCausalLM']"),
        ({"architectures": 5}, "'architectures' must be"),
        ({"architectures": {"0": "LlamaForCausalLM"}}, "'architectures' must be"),
        ({"architectures": []}, "'architectures' must be"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope: 'rope_type' must be 'default', or left out, not 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'type' must be 'default', or left out, not 'linear'"),
        ({"rope_scaling": {"rope_type": "default", "factor": 2.0}}, "rope: 'factor' is not known"),
        ({"rope_scaling": ["yarn"]}, "'rope_scaling' must be an object"),
        ({"rope_scaling": "yarn"}, "'rope_scaling' must be an object"),
        ({"rope_parameters": {"rope_theta": 500.0}}, "rope_theta stands there twice"),
        ({"rope_parameters": {"full_attention": {}}}, "'full_attention' is not known"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor'"),
        ({"hidden_act": "gelu"}, "'hidden_act' must be 'silu', or left out, not 'gelu'"),
        ({"attention_bias": True}, "'attention_bias' must be left out, not True"),
        ({"layer_types": ["sliding_attention"]}, "'layer_types'"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config' must be left out"),
        ({"tie_word_embeddings": "false"}, "'tie_word_embeddings' must be True or False, or left out, not 'false'"),
        ({"eos_token_id": "</s>"}, "'eos_token_id'"),
        ({"num_hidden_layers": 30_000}, "'num_hidden_layers' must be a whole number from 1 to 512, not 30000"),
        ({"num_attention_heads": 3}, "n_embd 8"),
        ({"num_key_value_heads": 2, "num_attention_heads": 1}, "n_kv_head"),
        ({"vocab_size": 200}, "ids up to 257, the embedding 200 rows"),
    ],
)
def test_another_model_is_refused_by_name(tmp_path, change, reason):
    assert reason in refusal_of_config(tmp_path, json.dumps(CONFIG | change))


def test_a_head_of_odd_width_is_refused_though_its_weights_fit(tmp_path):
    assert "head_size 3 must be even" in refusal(write_folder(tmp_path / "m", {"head_dim": 3}))


@pytest.mark.parametrize("change", [{"hidden_size": 16}, {"num_hidden_layers": 2}, {"intermediate_size": 17}])
def test_a_configuration_that_its_weights_do_not_fit(tmp_path, change):
    line = refusal_of_config(tmp_path, json.dumps(CONFIG | change))
    assert "config.json asks for" in line or "no 'model.layers.1." in line


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1" * 5000, "1e999"])
@pytest.mark.parametrize("field", ["rope_theta", "rms_norm_eps", "vocab_size", "initializer_range"])
def test_numbers_that_are_none(tmp_path, word, field):
    if word != "1e999" or field != "initializer_range":  # which is not read
        text = json.dumps(CONFIG | {field: "HERE"}).replace('"HERE"', word)
        assert "config.json: " in refusal_of_config(tmp_path, text)


def test_files_that_are_too_long_are_not_read_to_their_end(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "m")
    monkeypatch.setattr(reading, "MAX_BYTES", 200)
    assert "config.json: longer than 200 bytes" in refusal(folder)
    with pytest.raises(UserError, match="model.safetensors: the header: longer than 200 bytes"):
        read_safetensors(folder / "model.safetensors")


@pytest.mark.parametrize(
    "text", ["[]", "null", "5", '"x"', "{", "", "[" * 10**5, '{"a":' * 10**5, b"\xff\xfe{}", b"\0"]
)
@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors.index.json", "vocab.json", "tokenizer.json", "merges.txt"]
)
def test_files_that_are_no_object(tmp_path, file, text):
    folder = write_folder(tmp_path / "m")
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    if file == "merges.txt" and text in ("", "{", "5"):
        return  # no merges, or none of two tokens
    assert file in refusal(folder)


@pytest.mark.parametrize(
    "places, reason",
    [
        ([], "'weight_map' must be an object"),
        ({"model.norm.weight": 5}, "'model.norm.weight' must be a file of this folder"),
        ({"model.norm.weight": "../m/model.safetensors"}, "must be a file of this folder"),
        ({"model.norm.weight": "a\0.safetensors"}, "must be a file of this folder"),
        ({"model.norm.weight": "other.safetensors"}, "other.safetensors: No such file"),
        ({}, "no *.safetensors"),
    ],
)
def test_a_wrong_index_is_named(tmp_path, places, reason):
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert reason in refusal(folder)


def test_a_weight_that_stands_in_two_files(tmp_path):
    folder = write_folder(tmp_path / "m")
    write_safetensors(folder / "more.safetensors", {"model.norm.weight": [8]})
    assert "more.safetensors: 'model.norm.weight' stands in another file" in refusal(folder)


@pytest.mark.parametrize(
    "tensors, reason",
    [
        ({"model.norm.weight": [9]}, "'model.norm.weight' has shape [9], config.json asks for [8]"),
        ({"model.norm.weight": None}, "no 'model.norm.weight'"),
        ({"extra": [3]}, "'extra' has no place"),
    ],
)
def test_wrong_weights_are_named(tmp_path, tensors, reason):
    assert reason in refusal(write_folder(tmp_path / "m", tensors=tensors))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named(tmp_path, number):
    folder = write_folder(tmp_path / "m")
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-4:] = struct.pack("<f", number)  # the last number of the last weight
    (folder / "model.safetensors").write_bytes(raw)
    assert "'model.layers.0.mlp.down_proj.weight' holds numbers that are not finite" in refusal(folder)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}


@pytest.mark.parametrize(
    "entry, reason",
    [
        (ENTRY | {"dtype": "I9"}, "'dtype' must be 'F64' or 'F32' or 'F16' or 'BF16', not 'I9'"),
        (ENTRY | {"dtype": "C64", "shape": [1]}, "'dtype'"),
        (ENTRY | {"dtype": []}, "'dtype'"),
        (ENTRY | {"data_offsets": [0, 4000]}, "beyond the 16 bytes of data"),
        (ENTRY | {"data_offsets": [16, 8]}, "beyond"),
        (ENTRY | {"data_offsets": [8]}, "'data_offsets'"),
        (ENTRY | {"data_offsets": [8.0, 16.0]}, "'data_offsets'"),
        (ENTRY | {"data_offsets": [-8, 0]}, "'data_offsets'"),
        (ENTRY | {"data_offsets": [4, 12]}, "overlap"),
        (ENTRY | {"shape": [3]}, "has 8 bytes, not those of F32 [3]"),
        (ENTRY | {"shape": [-2, -1]}, "'shape'"),
        (ENTRY | {"shape": [0, 10**18], "data_offsets": [8, 8]}, "'shape'"),
        (ENTRY | {"shape": [2**31] * 8}, "not those of F32"),
        (ENTRY | {"shape": [True, 2]}, "'shape'"),
        (ENTRY | {"more": 1}, "'more' is not known"),
        ("x", "must be an object, not 'x'"),
    ],
)
def test_hostile_headers(tmp_path, entry, reason):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": [2], "b": [2]}, {"b": entry})
    with pytest.raises(UserError) as error:
        read_safetensors(path)
    assert str(error.value).startswith(f"{path}: ") and "'b'" in str(error.value) and reason in str(error.value)


def test_truncated_and_foreign_files(tmp_path):
    path = write_folder(tmp_path / "m") / "model.safetensors"
    whole = path.read_bytes()
    for cut in [0, 5, 8, 40, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="model.safetensors"):
            read_safetensors(path)
    for junk in [b"\xff" * 100, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"[" * 9, bytes(8), bytes(100)]:
        path.write_bytes(junk)
        with pytest.raises(UserError, match="header"):
            read_safetensors(path)


# ----------------------------------------------------------------------------------------- refused tokenizers


def changed(state, keys, value):
    """A copy of nested objects in which the value at keys is another."""
    return state | {keys[0]: changed(state[keys[0]], keys[1:], value) if len(keys) > 1 else value}


def split(pattern, **other):
    """A pre_tokenizer as Llama 3 and Qwen have it."""
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [cut | other, level]}


IM_END = [{"content": "<|im_end|>", "id": 257}]
HOLE = {token: i for token, i in VOCAB.items() if token != "a"}


@pytest.mark.parametrize(
    "keys, value, reason",
    [
        (["model", "type"], "Unigram", "'type' must be 'BPE', or left out, not 'Unigram'"),
        (["model", "vocab"], [], "'vocab' must be an object"),
        (["model", "byte_fallback"], True, "'byte_fallback' must be left out"),
        (["model", "unk_token"], "<unk>", "'unk_token'"),
        (["model", "dropout"], 0.1, "'dropout'"),
        (["model", "end_of_word_suffix"], "</w>", "'end_of_word_suffix'"),
        (["model", "merges"], 5, "'merges'"),
        (["model", "merges"], ["h e e"], "'merges'"),
        (["model", "merges"], [["h"]], "'merges'"),
        (["model", "merges"], [[1, 2]], "'merges'"),
        (["model", "merges"], [["h", "a"]], "'ha' is made by the merges"),
        (["model", "merges"], ["h €"], "'h€' is made by the merges"),
        (["model", "merges"], [["", ""]], "'' is made by the merges"),
        (["model", "vocab"], VOCAB | {"he": 5}, "id 5 belongs to two tokens"),
        (["model", "vocab"], VOCAB | {"he": -1}, "'ids' must be"),
        (["model", "vocab"], VOCAB | {"he": 2**40}, "'ids' must be"),
        (["model", "vocab"], VOCAB | {"he": "256"}, "'ids' must be"),
        (["model", "vocab"], VOCAB | {"he": [256]}, "'ids' must be"),
        (["model", "vocab"], VOCAB | {"he": 300}, "ids up to 300, the embedding 258 rows"),
        (["model", "vocab"], HOLE, "every printable ASCII character must have an id"),
        (["added_tokens"], 5, "'added_tokens' must be"),
        (["added_tokens"], ["<|im_end|>"], "'added_tokens' must be"),
        (["added_tokens"], [{"content": "<|im_end|>"}], "'id' must be a whole number"),
        (["added_tokens"], [{"content": "<|im_end|>", "id": 256}], "'<|im_end|>' has two ids"),
        (["added_tokens"], [{"content": "<x>", "id": 256}], "id 256 belongs to two tokens"),
        (["added_tokens"], [{"content": "<x>", "id": -2}], "'id' must be a whole number"),
        (["added_tokens"], [{"content": "<x>", "id": 900}], "ids up to 900"),
        (["added_tokens"], IM_END + [{"content": "<x>", "id": 257}], "id 257 belongs to two tokens"),
        (["added_tokens"], [{"content": "{query}", "id": 257}], "{query} and {response} must not be control tokens"),
        (["added_tokens"], [{"content": "", "id": 257}], "control tokens must be"),
        (["added_tokens"], [{"content": f"<{i}>", "id": 1000 + i} for i in range(5000)], "'added_tokens' must be"),
        (["normalizer"], {"type": "Lowercase"}, "'type' must be 'NFC', not 'Lowercase'"),
        (["normalizer"], "NFC", "'normalizer' must be an object"),
        (["pre_tokenizer"], {"type": "Metaspace"}, "'Metaspace' is not supported"),
        (["pre_tokenizer"], None, "'pre_tokenizer' must be an object, and is missing"),
        (["pre_tokenizer"], {"type": "Sequence"}, "'pre_tokenizer' must be a list"),
        (["pre_tokenizer"], {"type": "Sequence", "pretokenizers": [5]}, "'pre_tokenizer' must be a list"),
        (["pre_tokenizer", "add_prefix_space"], True, "not supported, or not with its settings"),
        (["pre_tokenizer", "use_regex"], False, "not supported, or not with its settings"),
        (["pre_tokenizer"], split(r"\s+"), "another pattern than those known: GPT-2, digits and GPT-2, Llama 3, Qwen"),
        (["pre_tokenizer"], split("("), "another pattern"),
        (["pre_tokenizer"], split(5), "another pattern"),
        (["pre_tokenizer"], split("(?:(?:a{99}){99}){99}"), "another pattern"),
        (["pre_tokenizer"], split(PATTERNS["Qwen"], behavior="Removed"), "not supported, or not with its settings"),
        (["pre_tokenizer"], split(PATTERNS["Qwen"], invert=True), "not supported, or not with its settings"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, keys, value, reason):
    folder = write_folder(tmp_path / "m")
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER_JSON))
    assert load(folder)[1].encode("he") == [256]
    (folder / "tokenizer.json").write_text(json.dumps(changed(TOKENIZER_JSON, keys, value)))
    line = refusal(folder)
    assert reason in line and ("tokenizer.json" in line or "the embedding" in line)


@pytest.mark.parametrize(
    "vocab, merges, reason",
    [
        (VOCAB | {"he": 257}, "h e", "id 257 belongs to two tokens"),  # the token that ends a text would be a text's
        (VOCAB | {"<|im_end|>": "x"}, "h e", "'<|im_end|>' must be a whole number"),
        (VOCAB | {"<|im_end|>": -5}, "h e", "'<|im_end|>' must be a whole number"),
        (VOCAB, "h e\nhe", "merges.txt: 'merges' must be"),
        (VOCAB, "h e\nh a", "'ha' is made by the merges"),
        (VOCAB | {str(i): i for i in range(5000, 10_000)}, "h e", "at most 4096"),
        (HOLE, "h e", "every printable ASCII character"),
    ],
)
def test_vocabularies_that_contradict_themselves(tmp_path, vocab, merges, reason):
    folder = write_folder(tmp_path / "m")
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text(merges)
    assert reason in refusal(folder)


@pytest.mark.parametrize("name", PATTERNS)
def test_known_patterns_in_a_split_are_taken(tmp_path, name):
    folder = write_folder(tmp_path / "m")
    state = TOKENIZER_JSON | {"pre_tokenizer": split(PATTERNS[name]), "normalizer": {"type": "NFC"}}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    tokenizer = load(folder)[1]
    assert tokenizer.state()["pattern"] == PATTERNS[name] and tokenizer.encode("e\u0301") == tokenizer.encode("\xe9")


def test_how_a_text_is_cut_follows_from_vocabulary_and_model(tmp_path):
    folder = write_folder(tmp_path / "m")
    assert load(folder)[1].state()["pattern"] == PATTERNS["digits and GPT-2"]
    (folder / "vocab.json").write_text(json.dumps(VOCAB | {"12": 258}))
    (folder / "merges.txt").write_text("h e\n1 2\n")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": 259}))
    write_safetensors(folder / "model.safetensors", shapes_of(CONFIG | {"vocab_size": 259}))
    assert load(folder)[1].state()["pattern"] == PATTERNS["GPT-2"]
    state = load(write_folder(tmp_path / "q", QWEN3))[1].state()
    assert state["pattern"] == PATTERNS["Qwen"] and state["normal_form"] == "NFC"


# ------------------------------------------------------------------------------------- refused without delay


def hostile_folders(path):
    """Folders that would take a minute, gigabytes or for ever to be refused by what they hold."""
    path.mkdir()
    header = {"a": {"dtype": "F32", "shape": ["N"] * 3000, "data_offsets": [0, 4]}}
    headers = {
        "digits": json.dumps(header).replace('"N"', "7" * 4200),
        "entries": "{"
        + ",".join(f'"{i}":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}}' for i in range(10**6))
        + "}",
        "lists": "[" + "[]," * 12 * 10**6 + "0]",
    }
    for name, text in headers.items():
        raw = struct.pack("<Q", len(text)) + text.encode() + bytes(4)
        (write_folder(path / name) / "model.safetensors").write_bytes(raw)
    long_names = {f"<{i}>" + "(x" * 4500: 300 + i for i in range(3000)}
    places = {"weight_map": {f"t{i}": f"x{i}.safetensors" for i in range(400_000)}}
    huge = {"num_hidden_layers": 512, "vocab_size": 2**24, "hidden_size": 2**17, "num_attention_heads": 2**10}
    for file, text in {
        "vocab.json": json.dumps(VOCAB | long_names),
        "model.safetensors.index.json": json.dumps(places),
        "tokenizer.json": '{"a":[' + "{}," * 10**7 + "0]}",
        "config.json": json.dumps(CONFIG | huge),
    }.items():
        (write_folder(path / f"long {file}") / file).write_text(text)
    for file in ["config.json", "model.safetensors", "tokenizer.json", "vocab.json", "merges.txt"]:
        for name in ["pipe", "device"]:
            (write_folder(path / f"{name} {file}") / file).unlink(missing_ok=True)
        os.mkfifo(path / f"pipe {file}" / file)
        (path / f"device {file}" / file).symlink_to("/dev/zero")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)  # MB


def refuse_all(hostile, sound):
    """What is wrong with how folders are refused: {folder: what}."""
    load(sound)  # torch imports much of itself when it first makes a model without memory
    before, found, said = peak(), {}, io.StringIO()
    for folder in hostile.iterdir():
        began = time.process_time()  # of this process alone: others may keep the machine busy
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                load(folder)
            found[folder.name] = "accepted"
        except UserError as error:
            if len(str(error)) >= 500:
                found[folder.name] = str(error)
        if (seconds := time.process_time() - began) > 2:
            found[folder.name] = f"{seconds} s"
    found |= {"all": f"{peak() - before} MB taken"} if peak() - before > 500 else {}
    return found | ({"said": said.getvalue()} if said.getvalue() else {})


def test_refusals_take_two_seconds_and_500_mb_at_most(tmp_path):
    hostile_folders(tmp_path / "hostile")
    process = start_process(refuse_all, tmp_path / "hostile", write_folder(tmp_path / "sound"))
    assert process.result() == {}  # comes never where a folder's pipe is waited for


# ------------------------------------------------------------------------------------ a comparison on real texts


def test_kept_runs_on_real_texts_belong_to_their_settings_and_data(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    (data / "test.jsonl").write_text("old")

    def asked(*flags):
        monkeypatch.setattr("sys.argv", ["compare", "model", str(data), "--out", str(tmp_path / "runs"), *flags])
        compare.check_same_settings(compare.parse_args())

    asked("--steps", "9")  # nothing came of it
    asked("--steps", "3")
    (tmp_path / "runs/ce-0.0001-seed-0").mkdir()
    asked("--steps", "3", "--json", "elsewhere.json", "--lr", "1e-4")  # a rate may be added
    for other in [["--steps", "4"], ["--steps", "3", "--top-k", "1"]]:
        with pytest.raises(UserError, match="another --out"):
            asked(*other)
    (data / "test.jsonl").write_text("new")
    with pytest.raises(UserError, match="another --out"):
        asked("--steps", "3")
    with pytest.raises(SystemExit):
        asked("--steps", "3", "--lr", "1e-4", "2e-4")  # nothing to choose by


@pytest.mark.parametrize("flags", ["--seed 3", "--seed=3", "--loss ce", "--init x", "--template t", "--clip-max 3"])
def test_what_differs_from_run_to_run_on_real_texts_is_no_flag(command, flags):
    result = command(compare.main, "model", "data", *flags.split())
    assert result.status == 2 and f"{flags.split()[0]} is not for train.py here" in result.error


def test_a_comparison_takes_the_best_rate_of_each_loss_and_keeps_what_is_done(command, folder, tmp_path, monkeypatch):
    """With train.py and the scoring of texts replaced by what they give."""
    asked, scored, out = [], [], tmp_path / "real"
    likely = {"ce-0.002-seed-0": -1 / 3, "perce-0.002-seed-0": -1 / 3}  # others: the lower rate is better

    def run(words, **how):
        assert words[:2] == [sys.executable, str(ROOT / "train.py")]
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", words[1:])
            train.parse_args()  # knows all these flags
        asked.append(" ".join(words[2:]))
        Path(words[words.index("--out") + 1]).mkdir(parents=True)
        return SimpleNamespace(returncode=0)

    def evaluate(model, tokenizer, examples, n, temperature, seed, at_once, desc):
        assert (n > 0) == (temperature is not None) and at_once == 32
        scored.append((desc, temperature, seed))
        name, split = Path(desc).parts[-2:]
        logp = likely.get(name, -0.5 - float(name.split("-")[-3])) if split == "val-none.json" else -1.0 - seed
        hit = "perce-0" in desc and seed == 0 and temperature == 0.4  # these texts alone are the user's own words
        return [
            {"row": e.row, "logp": np.array([logp]), "logp_plain": np.array([-2.0]), "pir": np.array([1.0 + i % 2])}
            | {"prediction": e.row["response"] if hit else "no", "rouge": rouge_l("a b" if hit else "a", "a b")}
            | {"hit": np.array([0]), "personal": np.array([False])}
            for i, e in enumerate(examples)
        ]

    monkeypatch.setattr(compare.subprocess, "run", run)
    monkeypatch.setattr(compare.scoring, "evaluate", evaluate)
    monkeypatch.setattr(compare, "load_any", lambda *args, **how: load_any(folder, "cpu"))
    monkeypatch.setattr(compare, "provenance", lambda: {"commit": "c0ffee"})
    rooms, encode = set(), compare.encode_rows
    monkeypatch.setattr(compare, "encode_rows", lambda *args: rooms.add(args[4]) or encode(*args))
    for split in ["val", "test"]:
        shutil.copy(folder.parent / "data/test.jsonl", tmp_path / f"{split}.jsonl")
    record = tmp_path / "real_git_long.json"
    given = [folder, tmp_path, "--out", out, "--lr", 1e-3, 2e-3, "--seeds", 2, "--json", record]
    result = command(compare.main, *given, "--steps", 3)
    assert result.status == 0, result.err
    found = json.loads(record.read_text())
    figures, minus, tried = (table["rows"] for table in found["tables"])
    assert "CE 0.002, PerCE 0.002, PerCE, against a stranger 0.001" in found["tables"][0]["caption"]
    assert tried["ce"] == [{"0.001": -0.501, "0.002": -0.3333333}] and found["commit"] == "c0ffee"
    assert found["title"] == "Real texts: git, long"
    assert {name: len(seeds) for name, seeds in figures.items()} == {"before": 1} | dict.fromkeys(compare.TRAININGS, 2)
    half = 12.706 / 1.96 * 2**0.5 / 6  # PerCE is 1/3 better with one of the two seeds: as wide as Student's t has it
    assert minus["perce"][0]["rouge_l"] == pytest.approx([1 / 6, 1 / 6 - half, 1 / 6 + half], abs=1e-5)
    assert minus["before"][0]["rouge_l"] == [0, 0, 0] and minus["before"][0]["logp"][0] == 0.5  # -1; CE's are -1 and -2
    assert figures["perce"][0][compare.LENGTH] == 1 > figures["perce"][1][compare.LENGTH] > 0
    assert figures["perce"][1][compare.SHARE] == 1
    assert minus["perce"][0]["rouge_l, greedy"] == [0, 0, 0]
    assert figures["perce"][0]["rouge_l, greedy"] == pytest.approx(2 / 3)
    assert "pir, against a stranger" in figures["ce"][0] and "pir, against a stranger" not in figures["ce"][1]
    assert "pir, against a stranger" not in figures["perce-cap-2"][0] | figures["perce-stranger"][0]
    losses = "ce perce perce-stranger perce-cap-2"
    flags = f"--losses {losses} --lr 0.001 0.002 --seeds 2 --examples 60 --top-k 4 --block-size 2048 --steps 3"
    assert found["command"] == f"python -m perce_mini.hf.compare MODEL_FOLDER DATA_FOLDER {flags}"
    assert rooms == {compare.MAX_NEW_TOKENS}  # all scores are of the same prompts
    assert len(asked) == 8 + 4 and all("--steps 3" in line for line in asked)
    assert sum("--contrast stranger" in line for line in asked) == 3 == sum("--clip-max 2" in line for line in asked)
    written = {(temperature, seed) for desc, temperature, seed in scored if "test-none" in desc}
    assert written == {(0.4, 0), (0.4, 1), (0, 0), (0, 1)}
    assert len(scored) == len(set(scored)) == 8 + 2 * 9 + 3
    assert command(compare.main, *given, "--steps", 3).status == 0 and len(asked) == 12 and len(scored) == 29

    result = command(compare.main, *given[:-1], tmp_path / "test.jsonl", "--steps", 3)
    assert result.status == 2 and "test.jsonl is read here" in result.error
    kept = out / "before/test-none-0.4.json"
    whole = kept.read_text()
    kept.write_text("x")
    result = command(compare.main, *given, "--steps", 3)
    assert result.status == 2 and "test-none-0.4.json: not JSON" in result.error
    kept.write_text(whole)

    alone = [*given[:-1], tmp_path / "b.json", "--steps", 3, "--losses"]  # the model before, and no other
    assert command(compare.main, *alone).status == 0
    twice = [*given[:-1], tmp_path / "c.json", "--steps", 3, "--losses", "ce", "ce", "perce"]
    assert command(compare.main, *twice).status == 0
    assert list(json.loads((tmp_path / "c.json").read_text())["tables"][0]["rows"]) == ["before", "ce", "perce"]
    assert "DATA_FOLDER --losses --lr 0.001 " in json.loads((tmp_path / "b.json").read_text())["command"]
    (alone,) = json.loads((tmp_path / "b.json").read_text())["tables"]
    assert list(alone["rows"]) == ["before"] and alone["caption"].endswith("users.") and len(scored) == 29


def test_a_training_that_fails_ends_a_comparison_before_anything_is_scored(command, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "score", lambda *args, **how: pytest.fail("scored"))
    monkeypatch.setattr(compare, "provenance", dict)
    monkeypatch.setattr(compare.subprocess, "run", lambda *what, **how: SimpleNamespace(returncode=2))
    result = command(compare.main, folder, folder.parent / "data", "--out", tmp_path, "--stpes", 4)
    assert result.status == 2 and re.search("stopped at: .*train.py .*--loss ce .*--stpes 4", result.error)
