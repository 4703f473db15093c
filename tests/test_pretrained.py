"""Model folders of others: equal to `transformers` and `tokenizers` where those are installed, and refused by name where not understood."""

import json
import math
import os
import random
import struct
from pathlib import Path

import pytest
import torch

import eval as evaluation
import train
from perce_mini import checkpoint, cli, real
from perce_mini.dataset import encode_example
from perce_mini.pretrained import PretrainedError, bytes_of_characters, load, load_any, main, read_safetensors, read_template, save
from tests.conftest import ROOT

SCRIPTS = [(32, 126), (32, 126), (48, 57), (160, 591), (880, 1023), (1040, 1103), (1425, 1524), (1569, 1610), (2309, 2361), (3585, 3642), (4352, 4607), (12353, 12438),
           (19968, 20100), (44032, 44100), (127744, 127800), (9, 13), (768, 790), (8192, 8208), (1632, 1641)]  # fmt: skip


def strings(n, seed=0):
    """Texts of many scripts, with runs of white space, digits and combining marks."""
    dice = random.Random(seed)
    for _ in range(n):
        words = ["".join(chr(dice.randint(*dice.choice(SCRIPTS[:3] if dice.random() < 0.5 else SCRIPTS))) for _ in range(dice.randint(1, 8))) for _ in range(dice.randint(1, 8))]
        yield dice.choice(["", " ", "\n\n"]).join(word + dice.choice(["", " ", "  ", "\n", "'s", "12345", " 7"]) for word in words)


def write_folder(folder, change=None, tensors=None, kind="LlamaForCausalLM"):
    """A tiny model folder, written by hand: one layer, the 256 bytes and one merge as vocabulary."""
    folder.mkdir(exist_ok=True)
    vocab = {c: i for i, c in enumerate(bytes_of_characters())} | {"he": 256, "<|im_end|>": 257}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\nh e\n")
    config = {"architectures": [kind], "vocab_size": 258, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | (change or {})))
    layer = "model.layers.0."
    shapes = {"model.embed_tokens.weight": [258, 8], "model.norm.weight": [8], layer + "input_layernorm.weight": [8], layer + "post_attention_layernorm.weight": [8],
              layer + "self_attn.q_proj.weight": [8, 8], layer + "self_attn.k_proj.weight": [4, 8], layer + "self_attn.v_proj.weight": [4, 8], layer + "self_attn.o_proj.weight": [8, 8],
              layer + "mlp.gate_proj.weight": [16, 8], layer + "mlp.up_proj.weight": [16, 8], layer + "mlp.down_proj.weight": [8, 16]}  # fmt: skip
    write_safetensors(folder / "model.safetensors", shapes | (tensors or {}))
    return folder


def write_safetensors(path, shapes, header_change=None):
    header, data = {}, b""
    for name, shape in shapes.items():
        if shape is not None:
            raw = torch.ones(shape).numpy().tobytes()
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
    head = json.dumps(header | (header_change or {})).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


# ------------------------------------------------------------------------------------------ what is understood


def test_a_folder_becomes_a_model_that_generates(tmp_path):
    model, tokenizer = load(write_folder(tmp_path / "m"))
    ids = tokenizer.encode("hehe <|im_end|>")
    assert ids[:2] == [256, 256] and 257 not in ids  # text never becomes a control token
    assert tokenizer.decode([*ids, 257]) == "hehe <|im_end|>" and tokenizer.spans(ids)[:2] == [(0, 2), (2, 4)]
    assert model(torch.tensor([ids])).shape == (1, len(ids), 258)
    assert len(model.generate([ids], 5, end_id=257)[0]) <= 5


def test_weights_may_lie_in_several_files_and_in_bfloat16(tmp_path):
    folder = write_folder(tmp_path / "m")
    whole, places = read_safetensors(folder / "model.safetensors"), {}
    (folder / "model.safetensors").unlink()
    names = list(whole)
    for part, some in enumerate([names[:4], names[4:]]):
        file = f"model-0000{part + 1}-of-00002.safetensors"
        places |= dict.fromkeys(some, file)
        write_safetensors(folder / file, {name: list(whole[name].shape) for name in some})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    model, _ = load(folder, dtype=torch.bfloat16)
    assert model.head.dtype == torch.bfloat16 and model.head.shape == (258, 8)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(PretrainedError, match="model-00002-of-00002.safetensors: a part of the model is missing"):
        load(folder)


def test_what_is_saved_is_what_was_loaded(tmp_path):
    folder = write_folder(tmp_path / "m")
    model, tokenizer = load(folder)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    for dtype in [torch.float32, torch.bfloat16]:
        save(model, folder, tmp_path / "saved", dtype)
        again, same = load(tmp_path / "saved")
        assert all(torch.equal(a.to(dtype), b.to(dtype)) for a, b in zip(model.parameters(), again.parameters()))
        assert same.encode("hehe x") == tokenizer.encode("hehe x")


# -------------------------------------------------------------------------------------------- how prompts look


def shown(tokenizer, ids):
    names = {i: f"⟨{name}⟩" for name, i in tokenizer.special.items()}
    return "".join(names.get(i) or tokenizer.decode([i]) for i in ids)


@pytest.mark.parametrize("special, end, expected", [
    (["<|endoftext|>"], "<|endoftext|>", "q\nr\n\nQ\n"),
    (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|endoftext|>", "q\nr\n\nQ\n"),  # a base model that only knows the tokens of chats
    (["<|im_start|>", "<|im_end|>"], "<|im_end|>", "⟨<|im_start|>⟩user\nq\nr\n\nQ⟨<|im_end|>⟩\n⟨<|im_start|>⟩assistant\n"),
    (["<|im_start|>", "<|im_end|>", "<think>", "</think>"], "<|im_end|>",
     "⟨<|im_start|>⟩user\nq\nr\n\nQ⟨<|im_end|>⟩\n⟨<|im_start|>⟩assistant\n⟨<think>⟩\n\n⟨</think>⟩\n\n"),
    (["<|begin_of_text|>", "<|end_of_text|>"], "<|end_of_text|>", "⟨<|begin_of_text|>⟩q\nr\n\nQ\n"),
    (["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>",
     "⟨<|begin_of_text|>⟩⟨<|start_header_id|>⟩user⟨<|end_header_id|>⟩\n\nq\nr\n\nQ⟨<|eot_id|>⟩⟨<|start_header_id|>⟩assistant⟨<|end_header_id|>⟩\n\n")])  # fmt: skip
def test_prompts_take_the_models_own_form(tmp_path, special, end, expected):
    ids = {name: 257 + i for i, name in enumerate(special)}
    folder = write_folder(tmp_path / "m", {"eos_token_id": ids[end], "vocab_size": 270}, {"model.embed_tokens.weight": [270, 8]})
    vocab = {c: i for i, c in enumerate(bytes_of_characters())} | {"he": 256} | ids
    (folder / "vocab.json").write_text(json.dumps(vocab))
    _, tokenizer, _ = load_any(folder, "cpu")
    row = {"user": "u", "task": "t", "query": "Q", "response": "R", "profile": [{"query": "q", "response": "r"}]}
    e = encode_example(row, tokenizer, 64)
    assert shown(tokenizer, e.prompt) == expected and shown(tokenizer, e.plain_prompt) == expected.replace("q\nr\n\n", "")
    assert shown(tokenizer, e.response) == f"R⟨{end}⟩"
    again = load_any(folder, "cpu", template={"item": "{response} <|im_end|>{query};"})[1]
    assert ids.get("<|im_end|>", 0) in [0, *again.lay_out("item", "q", "r")] and again.decode(again.lay_out("item", "q", "r")).endswith("q;")


@pytest.mark.parametrize("template, reason", [
    ("[1]", "an object of strings"), ('{"item": 3}', "an object of strings"), ('{"itme": ""}', "an object of strings"), ("{", "not JSON"),
    ('{"item": "{query}"}', "'item' does not say where {response} goes"), ('{"query": "x"}', "'query' does not say where {query} goes")])  # fmt: skip
def test_a_wrong_template_is_named(tmp_path, template, reason):
    (tmp_path / "t.json").write_text(template)
    with pytest.raises(PretrainedError) as error:
        read_template(tmp_path / "t.json")
    assert "t.json: " in str(error.value) and reason in str(error.value)


def test_a_folder_without_an_end_token_cannot_be_trained(tmp_path):
    folder = write_folder(tmp_path / "m")
    with pytest.raises(PretrainedError, match="no control token ends a text"):
        load_any(folder, "cpu")
    assert load_any(folder, "cpu", template={"end": "<|im_end|>"})[1].end == 257


# ------------------------------------------------------------------------------------------ training and back


@pytest.fixture
def folder(tmp_path):
    """A tiny folder with weights that do something, and data whose rows it can hold."""
    folder = write_folder(tmp_path / "m", {"eos_token_id": 257, "max_position_embeddings": 400})
    model, _ = load(folder)
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    save(model, folder, folder)
    (tmp_path / "data").mkdir()
    row = {"user": "u", "task": "t", "query": "say he", "response": "he he!", "profile": [{"query": "say", "response": "hehe"}]}
    for name in ["train", "test"]:
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row | {"user": f"u{i}"}) + "\n" for i in range(6)))
    return folder


def run_train(command, folder, *args):
    data = folder.parent / "data"
    return command(train.main, "--init", folder, "--data", data, "--out", folder.parent / "run", "--batch-size", 2, "--eval-examples", 2, "--device", "cpu", *args)


@pytest.mark.parametrize("flags", [["--lr", 1e-2], ["--lora-rank", 2, "--lr", 1e-2, "--recompute"], ["--contrast", "stranger"]])
def test_a_folder_is_trained_resumed_scored_and_written_back(command, folder, tmp_path, flags, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_train(command, folder, "--steps", 3, *flags)
    assert result.status == 0 and "ROUGE-L" in result.out, result.err
    assert run_train(command, folder, "--steps", 3, "--resume", *flags).status == 0
    result = command(evaluation.main, "run", "--init", folder, "--data", tmp_path / "data", "--heatmap", tmp_path / "h.html", "--json", tmp_path / "s.json", "--device", "cpu",
                     "--max-new-tokens", 5, *flags[:2] if "--contrast" in flags else [])
    assert result.status == 0 and "<html" in (tmp_path / "h.html").read_text(), result.err
    assert set(json.loads((tmp_path / "s.json").read_text())["runs"]) == {str(folder), "run"}
    assert command(main, "run", "--out", tmp_path / "back").status == 0
    ids = torch.arange(9)[None]
    trained, written, start = checkpoint.load("run")[0](ids), load(tmp_path / "back")[0](ids), load(folder)[0](ids)
    assert torch.allclose(trained, written, atol=1e-4) and not torch.allclose(trained, start, atol=1e-4)
    assert run_train(command, folder, "--steps", 1, "--init", "run", "--out", "next").status == 0  # a run of such a run, now of all weights
    assert load_any("next", "cpu")[2]["settings"]["tokenizer"] == "pretrained"
    assert command(main, "next", "--out", tmp_path / "back").status == 0


def test_learning_rates_fit_what_is_trained(command, folder):
    for flags, lr in [([], train.LR_PRETRAINED), (["--lora-rank", 1], train.LR_LORA)]:
        assert run_train(command, folder, "--steps", 1, *flags).status == 0
        assert checkpoint.read(folder.parent / "run")["settings"]["lr"] == lr


@pytest.mark.parametrize("flags, reason", [
    (["--block-size", 401], "the model has 400 positions, --block-size asks for 401"), (["--block-size", 20], "do not fit into the block of 20"), (["--n-layer", 2], "n_layer 1, not 2"),
    (["--tokenizer", "gpt2"], "tokenizer pretrained, not gpt2"), (["--template", "nowhere.json"], "nowhere.json: No such file"), (["--lora-rank", -1], "--lora-rank must not be below 0")])  # fmt: skip
def test_wrong_flags_end_in_one_line_before_any_training(command, folder, flags, reason):
    result = run_train(command, folder, "--steps", 1, *flags)
    assert result.status == 2 and reason in result.error and not (folder.parent / "run/checkpoint.pt").exists()


def test_a_run_from_nothing_pretrained_is_not_written_back(command, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    result = command(main, "out/perce", "--out", tmp_path / "back")
    assert result.status == 2 and "did not start from a Hugging Face folder" in result.error
    result = command(evaluation.main, "nowhere")
    assert result.status == 2 and "nowhere/checkpoint.pt: no checkpoint" in result.error


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("change, reason", [
    ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"), ({"rope_scaling": {"rope_type": "yarn"}}, "rope scaling 'yarn'"), ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ({"attention_bias": True}, "attention_bias"), ({"vocab_size": "many"}, "vocab_size must be a number"), ({"hidden_size": 16}, "shape"),
    ({"vocab_size": 200}, "ids up to 257, the embedding 200 rows"), ({"num_hidden_layers": 2}, "no 'model.layers.1."), ({"quantization_config": {"bits": 4}}, "quantised")])  # fmt: skip
def test_another_model_is_refused_by_name(tmp_path, change, reason):
    with pytest.raises(PretrainedError, match=reason) as error:
        load(write_folder(tmp_path / "m", change))
    assert str(tmp_path / "m") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("tensors, reason", [
    ({"model.norm.weight": [9]}, r"'model.norm.weight' has shape \[9\], config.json asks for \[8\]"), ({"model.norm.weight": None}, "no 'model.norm.weight'"), ({"extra": [3]}, "'extra' has no place")])
def test_wrong_weights_are_named(tmp_path, tensors, reason):
    with pytest.raises(PretrainedError, match=reason):
        load(write_folder(tmp_path / "m", tensors=tensors))


@pytest.mark.parametrize("entry, reason", [
    ({"dtype": "I9", "shape": [2], "data_offsets": [0, 8]}, "dtype 'I9'"), ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4000]}, "beyond"),
    ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "not those of F32"), ({"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}, "no proper shape"),
    ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "beyond"), ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "overlap"), ("x", "not described"), ({"dtype": [], "shape": [2], "data_offsets": [0, 8]}, "dtype")])  # fmt: skip
def test_hostile_headers(tmp_path, entry, reason):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": [2], "b": [2]}, {"b": entry})
    with pytest.raises(PretrainedError, match=reason):
        read_safetensors(path)


def test_truncated_and_foreign_files(tmp_path):
    path = write_folder(tmp_path / "m") / "model.safetensors"
    whole = path.read_bytes()
    for cut in [0, 5, 8, 40, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(PretrainedError, match="model.safetensors"):
            read_safetensors(path)
    for junk in [b"\xff" * 100, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"[" * 9]:
        path.write_bytes(junk)
        with pytest.raises(PretrainedError, match="header"):
            read_safetensors(path)


@pytest.mark.parametrize("change, reason", [
    ({"model": {"type": "Unigram", "vocab": [], "merges": []}}, "Unigram is not byte-level BPE"), ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
    ({"pre_tokenizer": {"type": "Metaspace"}}, "Metaspace"), ({"pre_tokenizer": None}, "not byte-level"), ({"model": {"type": "BPE", "vocab": {"h": 0, "e": 1}, "merges": ["h e"]}}, "not in the vocabulary")])
def test_other_tokenizers_are_refused(tmp_path, change, reason):
    folder = write_folder(tmp_path / "m")
    vocab = json.loads((folder / "vocab.json").read_text())
    state = {"model": {"type": "BPE", "vocab": vocab, "merges": ["h e"]}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    assert load(folder)[1].encode("he") == [256]
    (folder / "tokenizer.json").write_text(json.dumps(state | change))
    with pytest.raises(PretrainedError, match=reason):
        load(folder)


# ------------------------------------------------------------------------------- equal to other people's code


@pytest.mark.parametrize("kind", ["llama", "llama untied", "qwen3"])
def test_logits_and_greedy_text_equal_transformers(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    shape = dict(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
    if kind == "qwen3":
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**shape, head_dim=16, rope_theta=1e6, tie_word_embeddings=True))
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, rms_norm_eps=1e-5, rope_theta=5e4, tie_word_embeddings=kind == "llama"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in theirs.named_parameters():  # norms away from one, so that forgetting one shows
            p.normal_(1 if "norm" in name else 0, 0.3 if "norm" in name else p.shape[-1] ** -0.5)
    theirs.save_pretrained(write_folder(tmp_path / "m"))
    model, _ = load(tmp_path / "m")
    ids = torch.randint(0, 300, (2, 40))
    assert (model(ids) - theirs(ids).logits).abs().max() < 1e-4
    for row in ids.tolist():
        prompt = torch.tensor([row])
        greedy = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 40:].tolist()
        assert model.generate([row], 20, end_id=-1)[0] == greedy

    save(model, tmp_path / "m", tmp_path / "saved")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("cut", ["bytes", "digits", "split"])
def test_ids_equal_tokenizers(cut, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import pre_tokenizers as pre

    llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    level = lambda **kw: pre.ByteLevel(add_prefix_space=False, **kw)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = {"bytes": level(), "digits": pre.Sequence([pre.Digits(individual_digits=True), level()]),
                            "split": pre.Sequence([pre.Split(tokenizers.Regex(llama3), "isolated"), level(use_regex=False)])}[cut]  # fmt: skip
    if cut == "split":
        theirs.normalizer = tokenizers.normalizers.NFC()
    theirs.train_from_iterator(strings(500, seed=1), tokenizers.trainers.BpeTrainer(vocab_size=1200, initial_alphabet=pre.ByteLevel.alphabet(), special_tokens=["<|end|>"], show_progress=False))
    folder = write_folder(tmp_path / "m", {"vocab_size": 1200}, {"model.embed_tokens.weight": [1200, 8]})
    theirs.save(str(folder / "tokenizer.json"))
    _, mine = load(folder)
    theirs.encode_special_tokens = True
    for text in strings(3000):
        assert mine.encode(text) == theirs.encode(text).ids, text
        assert cut == "split" or mine.decode(mine.encode(text)) == text


@pytest.mark.skipif("SMOLLM2" not in os.environ, reason="SMOLLM2 does not name a folder with SmolLM2-135M")
def test_real_weights():
    """Perplexity and token ids of a real model on a real passage, as `transformers` and `tokenizers` have them."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = Path(os.environ["SMOLLM2"])
    model, mine = load(folder)
    passage = next(iter(json.loads((ROOT.parent / "shared/data/drop_fixture.json").read_text()).values()))["passage"]
    ids = torch.tensor(mine.encode(passage)[:87])
    with torch.no_grad():
        logp = model(ids[None])[0, :-1].log_softmax(-1)
    assert math.exp(-logp.gather(-1, ids[1:, None]).mean()) == pytest.approx(15.04, abs=0.01)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    pre = tokenizers.pre_tokenizers
    theirs.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    for text in [passage, *strings(3000)]:
        assert mine.encode(text) == theirs.encode(text).ids, text


def test_kept_runs_on_real_texts_belong_to_their_settings(tmp_path, monkeypatch):
    def asked(*flags):
        monkeypatch.setattr("sys.argv", ["real", "model", "data", "--out", str(tmp_path), *flags])
        real.check_same_settings(*real.parse_args())

    asked("--steps", "3")
    asked("--steps", "3", "--json", "elsewhere.json", "--lr", "1e-4")  # a rate may be added
    for other in [["--steps", "4"], ["--steps", "3", "--top-k", "1"]]:
        with pytest.raises(cli.RunError, match="another --out"):
            asked(*other)
    with pytest.raises(SystemExit):
        asked("--steps", "3", "--lr", "1e-4", "2e-4")  # nothing to choose by


def test_a_seed_of_ones_own_is_refused_on_real_texts(command):
    for flags in [["--seed", 3], ["--seed=3"]]:
        result = command(real.main, "model", "data", *flags)
        assert result.status == 2 and "give --seeds N" in result.error
