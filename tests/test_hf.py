"""Hugging Face folders: loaded models match known logits, and unsupported ones are rejected."""

import json
import math
import os
import shutil
import struct
import time

import pytest
import torch

import eval as evaluation
import train
from perce_mini.dataset import encode_example
from perce_mini.hf import load, read_template, safetensors, save
from perce_mini.hf.__main__ import main
from perce_mini.hf.folder import read_config, their_name
from perce_mini.hf.safetensors import read_safetensors
from perce_mini.hf.tokenizer import PATTERNS, PretrainedTokenizer, bytes_of_characters, split_at
from perce_mini.model import GPT
from perce_mini.rows import Row
from perce_mini.runtime import checkpoint
from perce_mini.runtime import flags as train_flags
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.models import load_model
from perce_mini.trainer import Settings
from tests.conftest import spy

CONFIG = {"architectures": ["LlamaForCausalLM"], "vocab_size": 258, "hidden_size": 8}
CONFIG |= {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIG |= {"num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}
CONFIG |= {"rope_theta": 1e4, "tie_word_embeddings": True}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "head_dim": 6}
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3_ROPE |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
VOCAB = {c: i for i, c in enumerate(bytes_of_characters())} | {"he": 256, "<|im_end|>": 257}
IM_END = {"content": "<|im_end|>", "id": 257, "special": True}
TOKENIZER_JSON = {"model": {"type": "BPE", "vocab": VOCAB, "merges": ["h e"]}}
TOKENIZER_JSON |= {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}
TOKENIZER_JSON |= {"added_tokens": [IM_END]}


def shapes_of(config):
    """Return {name: shape} for the weights of a model with this config."""
    with torch.device("meta"):
        weights = GPT(config).state_dict()
    return {their_name(name): list(weight.shape) for name, weight in weights.items()}


def write_folder(folder, change=None, tensors=None, tokenizer=None):
    """Write a tiny model folder with random weights and a vocabulary of 256 bytes and one merge.

    change: overrides settings of CONFIG; tensors: {name: shape, or None to omit it} overrides
    what fits CONFIG; tokenizer: overrides parts of TOKENIZER_JSON (default: vocab.json and
    merges.txt).
    """
    folder.mkdir(exist_ok=True, parents=True)
    config = CONFIG | (change or {})
    if tokenizer is None:
        (folder / "vocab.json").write_text(json.dumps(VOCAB))
        (folder / "merges.txt").write_text("#version: 0.2\nh e\n")
    else:
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER_JSON | tokenizer))
    (folder / "config.json").write_text(json.dumps(config))
    shapes = shapes_of(read_config(folder)[1]) | (tensors or {})
    write_safetensors(folder / "model.safetensors", shapes)
    return folder


def write_safetensors(path, shapes, entries=None):
    """Write random weights of these shapes; entries: overrides for header entries."""
    rng, header, data = torch.Generator().manual_seed(1), {}, b""
    for name, shape in sorted(shapes.items()):
        if shape is not None:
            middle = 1.0 if "norm" in name else 0.0
            raw = (middle + 0.5 * torch.randn(shape, generator=rng)).numpy().tobytes()
            offsets = [len(data), len(data) + len(raw)]
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
            data += raw
    head = json.dumps(header | (entries or {})).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def edit_json(path, changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder):
    """Return the error message for an invalid folder."""
    with pytest.raises(UserError) as error:
        load(folder)
    line = str(error.value)
    assert line.startswith(str(folder)) and "\n" not in line and len(line) < 500
    return line


# --------------------------------------------------------------------------------------- the model

# eps is large and theta small, so that forgetting either one shows
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"hidden_size": 24, "rms_norm_eps": 0.05, "rope_theta": 50.0}
# The first three logits after the ids in the test, as `transformers` computes them.
# (tests/reference compares all logits of more models.)
LOGITS = [
    ({"tie_word_embeddings": False}, [-3.6204, -6.4989, 0.9547]),
    ({"rope_parameters": LLAMA3_ROPE}, [2.6124, 0.571, -3.764]),
    (QWEN2, [-6.7664, -4.1565, 5.6231]),
    (QWEN3, [1.3967, -0.1423, -2.4773]),
]


@pytest.mark.parametrize("change, logits", LOGITS, ids=["llama", "llama 3.1", "qwen2", "qwen3"])
def test_logits_are_those_of_transformers(tmp_path, change, logits):
    model, _ = load(write_folder(tmp_path / "m", SMALL | change))
    ids = torch.tensor([[3, 200, 17, 17, 256, 90, 4, 200]])
    assert model(ids)[0, -1, :3].tolist() == pytest.approx(logits, abs=1e-3)


# ------------------------------------------------------------------------ weights and configuration


def test_weights_may_be_in_several_files_but_not_in_others_beside_them(tmp_path):
    folder, places = write_folder(tmp_path / "m"), {}
    shapes = shapes_of(read_config(folder)[1])
    (folder / "model.safetensors").unlink()
    for file, names in [("a.safetensors", list(shapes)[:4]), ("b.safetensors", list(shapes)[4:])]:
        places |= dict.fromkeys(names, file)
        write_safetensors(folder / file, {name: shapes[name] for name in names})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert load(folder, dtype=torch.bfloat16)[0].head.dtype == torch.bfloat16
    write_safetensors(folder / "model.safetensors", shapes)  # transformers would read this file
    assert "'model.safetensors'" in refusal(folder)
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "b.safetensors", shapes)
    assert "is also in another file" in refusal(folder)
    (folder / "b.safetensors").unlink()
    assert "'b.safetensors' is missing" in refusal(folder)


def test_a_tied_head_is_in_the_file_once_or_twice_but_does_not_differ(tmp_path):
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    folder = write_folder(tmp_path / "once", tensors={embedding: None, head: [258, 8]})
    expected = read_safetensors(folder / "model.safetensors")[head]
    assert torch.equal(load(folder)[0].head, expected)
    twice = write_folder(tmp_path / "twice", tensors={head: [258, 8]})
    assert "lm_head" in refusal(twice)
    path = twice / "model.safetensors"
    raw = path.read_bytes()
    embedding, head = (read_safetensors(path)[name].numpy().tobytes() for name in [embedding, head])
    path.write_bytes(raw.replace(head, embedding))
    assert load(twice)[0].head.numel() == 258 * 8


def test_wrong_weights_are_named(tmp_path):
    bias = "model.layers.0.self_attn.q_proj.bias"
    for name, shape in {"model.norm.weight": [9], "extra": [3], bias: [8]}.items():
        assert name in refusal(write_folder(tmp_path / "m", tensors={name: shape}))
    missing = {"model.norm.weight": None}
    assert "model.norm.weight" in refusal(write_folder(tmp_path / "m", tensors=missing))
    path = write_folder(tmp_path / "m") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", math.inf))
    assert "model.norm.weight contains NaN" in refusal(tmp_path / "m")


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}
HOSTILE = [{"dtype": "I9"}, {"shape": [3]}, {"shape": [7 * 10**4000] * 100}]
HOSTILE += [{"data_offsets": [0, 16], "shape": [4]}]  # overlaps another tensor
HOSTILE += [{"data_offsets": [8, 15], "shape": [1]}]
HOSTILE += [{"data_offsets": offsets} for offsets in [[0, 4000], [16, 8], [8.0, 16.0], [-8, 0]]]


@pytest.mark.parametrize("change", HOSTILE)
def test_hostile_headers_are_refused_at_once(tmp_path, change):
    path, start = tmp_path / "model.safetensors", time.process_time()
    write_safetensors(path, {"a": [2], "b": [2]}, {"b": ENTRY | change})
    with pytest.raises(UserError, match="model.safetensors"):
        read_safetensors(path)
    assert time.process_time() - start < 1


def test_truncated_and_foreign_files(tmp_path, monkeypatch):
    path = write_folder(tmp_path / "m") / "model.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "MAX_BYTES", 200)
        assert "a header of" in refusal(tmp_path / "m")
    cuts = [path.read_bytes()[:n] for n in [0, 5, 8, 40, 2000, -1]]
    for content in [*cuts, b"\xff" * 100, struct.pack("<Q", 2) + b"[]", bytes(100)]:
        path.write_bytes(content)
        assert "model.safetensors" in refusal(tmp_path / "m")


FILES = ["config.json", "model.safetensors.index.json", "vocab.json", "merges.txt"]
FILES += ["tokenizer.json", "generation_config.json", "model.safetensors"]


@pytest.mark.parametrize("file", FILES)
def test_files_that_are_no_object(tmp_path, file):
    path = write_folder(tmp_path / "m") / file
    for content in [b"[]", b"[" * 10**5, b"\xff\xfe{}"]:
        path.write_bytes(content)
        assert refusal(tmp_path / "m")
    path.unlink()
    os.mkfifo(path)  # reading it would never end
    assert file in refusal(tmp_path / "m")


OTHER_MODELS = [
    ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
    ({"model_type": "granite"}, "granite"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"use_sliding_window": True}, "use_sliding_window"),
    ({"layer_types": ["sliding_attention"]}, "layer_types"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "yarn"),
    ({"rope_scaling": {"type": "default", "factor": 2.0}}, "factor"),
    ({"rope_scaling": LLAMA3_ROPE, "rope_parameters": {"rope_theta": 1e4}}, "rope_parameters"),
    ({"rope_scaling": LLAMA3_ROPE | {"high_freq_factor": 1.0}}, "high_freq_factor"),
    ({"rope_parameters": {"rope_theta": 500.0}}, "rope_theta"),
    ({"rms_norm_eps": math.nan}, "norm_eps"),
    ({"num_hidden_layers": 10**9}, "layers"),
    ({"hidden_size": 2**60}, "config.json"),
    ({"num_attention_heads": None}, "num_attention_heads"),
    ({"head_dim": 3}, "head_size 3"),
    ({"tie_word_embeddings": "false"}, "tied"),
    ({"vocab_size": 200}, "ids up to 257"),
]


@pytest.mark.parametrize("change, reason", OTHER_MODELS)
def test_another_model_is_refused_by_name(tmp_path, change, reason):
    edit_json(write_folder(tmp_path / "m") / "config.json", change)
    assert reason in refusal(tmp_path / "m")


# -------------------------------------------------------------------------------------- tokenizers


def bpe(**changes):
    return {"model": TOKENIZER_JSON["model"] | changes}


def vocabulary(*tokens):
    return {token: i for i, token in enumerate([*bytes_of_characters(), *tokens])}


def starting_with(name, i):
    """A post_processor that adds a token at the start of every text."""
    single = [{"SpecialToken": {"id": name}}, {"Sequence": {"id": "A"}}]
    return {"type": "TemplateProcessing", "single": single, "special_tokens": {name: {"ids": [i]}}}


LACKS_A = {token: i for token, i in VOCAB.items() if token != "a"}
ABC = {"vocab": vocabulary("bc", "ab", "abc"), "merges": ["b c", "a b", "ab c"]}
ABCD = {"vocab": vocabulary("bc", "ab", "cd", "abcd"), "merges": ["b c", "a b", "c d", "ab cd"]}
START = starting_with("<|im_end|>", 257)


@pytest.mark.parametrize(
    "content, reason",
    [
        (bpe(byte_fallback=True), "byte_fallback"),
        (bpe(merges=["h e", "h €"]), "merge"),
        (bpe(vocab=VOCAB | {"hey": 255}), "hey"),
        (bpe(**ABC), "'abc'"),  # `tokenizers` reads abc as two tokens, tiktoken as one
        (bpe(**ABCD), "'abcd'"),
        (bpe(vocab=VOCAB | {"ad": 255}, ignore_merges=True), "'ad'"),
        (bpe(vocab=VOCAB | {"he": 5}), "unique"),
        (bpe(vocab=LACKS_A), "ASCII"),
        (bpe(vocab=vocabulary("aa", "a" * 10**4), merges=["a a"]), "long"),
        ({"added_tokens": [IM_END, {"content": "  ", "id": 256, "special": False}]}, "added token"),
        ({"added_tokens": [IM_END | {"rstrip": True}]}, "added token"),
        ({"added_tokens": [IM_END | {"id": 256}]}, "two ids"),
        ({"post_processor": START | {"single": START["single"][::-1]}}, "post_processor"),
        ({"post_processor": {"type": "RobertaProcessing"}}, "RobertaProcessing"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "Metaspace"),
        ({"pre_tokenizer": split_at(r"\s+")}, "pre_tokenizer"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, content, reason):
    line = refusal(write_folder(tmp_path / "m", {"vocab_size": 300}, tokenizer=content))
    assert reason in line and "tokenizer.json" in line


# bcd is completed before abc
ORDER = {"vocab": vocabulary("bc", "ab", "abc", "bcd")}
ORDER["merges"] = ["b c", "a b", "ab c", "bc d", "a bc"]
WHOLE = ABCD | {"ignore_merges": True}
SPLITS = [(ORDER, ["a", "bcd"]), (WHOLE, ["d", "a", "bc", "d"]), (WHOLE, ["abcd"])]


@pytest.mark.parametrize("model, tokens", SPLITS)
def test_merges_are_followed_in_the_order_in_which_they_complete_tokens(tmp_path, model, tokens):
    content = bpe(**model) | {"added_tokens": []}
    tokenizer = load(write_folder(tmp_path / "m", {"vocab_size": 260}, tokenizer=content))[1]
    assert tokenizer.encode("".join(tokens)) == [model["vocab"][token] for token in tokens]


def test_how_a_text_is_cut_follows_from_vocabulary_and_model(tmp_path):
    gpt2, digits, _, qwen = PATTERNS
    folder = write_folder(tmp_path / "m", {"vocab_size": 259})
    assert load(folder)[1].pattern == digits
    edit_json(folder / "vocab.json", {"12": 258})
    (folder / "merges.txt").write_text("h e\n1 2\n")
    assert load(folder)[1].pattern == gpt2
    for change in [QWEN2, QWEN3]:
        tokenizer = load(write_folder(tmp_path / change["architectures"][0], change))[1]
        assert tokenizer.pattern == qwen and tokenizer.normal_form == "NFC"
    edit_json(folder / "vocab.json", {"word": 100})
    assert "'word'" in refusal(folder)  # neither a control token nor formed by merges


def test_personal_spans_follow_the_text_that_is_encoded(tmp_path):
    """With NFC normalisation, and with a byte that the vocabulary lacks."""
    letter = {byte: letter for letter, byte in bytes_of_characters().items()}[4]
    lacks = {token: i for token, i in VOCAB.items() if token != letter}
    content = bpe(vocab=lacks) | {"normalizer": {"type": "NFC"}}
    tokenizer = load(write_folder(tmp_path / "m", tokenizer=content))[1]
    text = "\x04a\u0300 co\u0302te\u0301, e\u0301te\u0301: yes no"
    row = Row(user="u", task="t", query="q", response=text, profile=[])
    row["personal"] = [[text.index("yes"), text.index("yes") + 3]]
    example = encode_example(row, tokenizer, 100)
    marked = [i for i, personal in zip(example.response, example.personal) if personal]
    assert tokenizer.decode(marked) == "yes" and tokenizer.spans("\x04a") == [(1, 2)]
    assert len(example.personal) == len(example.response)
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")  # NFC


def test_a_tokenizer_is_the_same_again_and_its_state_is_checked(tmp_path):
    tokenizer = load(write_folder(tmp_path / "m", {"eos_token_id": 257}))[1]
    state = tokenizer.state()
    tokens, ids, again = state["tokens"], state["ids"], PretrainedTokenizer(**state)
    assert again.state() == state and again.end == 257 and again.encode("he ") == [256, ids[220]]
    wrong = [{"ids": [*ids[:-1], i]} for i in [0, -1, 1.0]]
    wrong += [{"ids": ids[:-1]}, {"tokens": [*tokens[:-1], b"x"]}, {"special": {"<|im_end|>": 3}}]
    wrong += [{"tokens": tokens[1:], "ids": ids[1:]}, {"pattern": "(a{99}){99}"}]
    wrong += [{"normal_form": "NFKC"}, {"template": state["template"] | {"end": "<|end|>"}}]
    for change in wrong:
        with pytest.raises(ValueError):
            PretrainedTokenizer(**state | change)


# ----------------------------------------------------------------------------------------- prompts


def spelled(tokenizer, ids):
    names = {i: f"⟨{name}⟩" for name, i in tokenizer.special.items()}
    return "".join(names.get(i) or tokenizer.decode([i]) for i in ids)


IM = "⟨<|im_start|>⟩user\n@Q⟨<|im_end|>⟩\n⟨<|im_start|>⟩assistant\n"  # @ stands for the persona
HEADER = "⟨<|start_header_id|>⟩{}⟨<|end_header_id|>⟩\n\n"
LLAMA3 = f"⟨<|begin_of_text|>⟩{HEADER}@Q⟨<|eot_id|>⟩{HEADER}".format("user", "assistant")
NAMES = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
NAMES += ["<|begin_of_text|>", "<|end_of_text|>", "<s>", "<think>", "</think>"]
IDS = {name: 256 + i for i, name in enumerate(NAMES)}
END = "<|end_of_text|>"


@pytest.mark.parametrize(
    "names, ends, start, expected",
    [
        (NAMES[5:8], [END], "", "@Q\n"),
        (NAMES, [END], "<s>", "⟨<s>⟩@Q\n"),  # a base model with chat tokens in its vocabulary
        (NAMES[:8], ["<|im_end|>"], "", IM),
        (NAMES[:8], ["<|im_end|>"], "<|begin_of_text|>", "⟨<|begin_of_text|>⟩" + IM),
        (NAMES, ["<|im_end|>"], "", IM + "⟨<think>⟩\n\n⟨</think>⟩\n\n"),
        (NAMES[:8], [END, "<|eot_id|>"], "", LLAMA3),
        (NAMES[:8], [END, "<|eot_id|>"], "<|begin_of_text|>", LLAMA3),
    ],
)
def test_prompts_take_the_models_own_form(tmp_path, names, ends, start, expected):
    """ends: from generation_config.json; start: what the post_processor adds."""
    content = bpe(vocab=vocabulary(), merges=[])
    content["added_tokens"] = [{"content": n, "id": IDS[n], "special": n[1] == "|"} for n in names]
    if start:
        steps = [{"type": "ByteLevel"}, starting_with(start, IDS[start])]
        content["post_processor"] = {"type": "Sequence", "processors": steps}
    change = {"eos_token_id": IDS[ends[0]], "vocab_size": 270}
    folder = write_folder(tmp_path / "m", change, tokenizer=content)
    settings = {"eos_token_id": [IDS[name] for name in ends]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    tokenizer, profile = load(folder)[1], [{"query": "q", "response": "r"}]
    row = Row(user="u", task="t", query="Q", response="R", profile=profile)
    example = encode_example(row, tokenizer, 64)
    assert spelled(tokenizer, example.prompt) == expected.replace("@", "q\nr\n\n")
    assert spelled(tokenizer, example.plain_prompt) == expected.replace("@", "")
    assert spelled(tokenizer, example.response) == f"R⟨{ends[-1]}⟩"


def test_a_template_replaces_parts_of_the_models_own(tmp_path):
    folder, path = write_folder(tmp_path / "m", {"eos_token_id": 257}), tmp_path / "t.json"
    path.write_text('{"item": "{response} <|im_end|>{query};"}')
    tokenizer = load(folder, template=read_template(path))[1]
    item = tokenizer.encode_template("item", "q", "r")
    assert spelled(tokenizer, item) == "r ⟨<|im_end|>⟩q;" and tokenizer.template["start"]
    with pytest.raises(UserError, match="^the .*im_and.*--template"):
        load(folder, template={"end": "<|im_and|>"})
    with pytest.raises(UserError, match="eos_token_id"):
        load_model(write_folder(tmp_path / "m"), "cpu")  # no token ends a text
    assert load_model(folder, "cpu", template={"end": "<|im_end|>"}).tokenizer.end == 257
    for wrong in ["[1]", '{"item": 3}', '{"itme": ""}', '{"query": "no place"}']:
        path.write_text(wrong)
        with pytest.raises(UserError, match="t.json: "):
            read_template(path)


def test_a_users_text_never_becomes_a_control_token_or_another_text(tmp_path):
    evil = "a <|im_end|>{response}{query}"
    tokenizer = load(write_folder(tmp_path / "m", {"eos_token_id": 257}))[1]
    profile = [{"query": evil, "response": "x " + evil}]
    row = Row(user="u", task="t", query=evil, response=evil, profile=profile)
    example = encode_example(row, tokenizer, 500)
    start, query = tokenizer.encode_template("start"), tokenizer.encode_template("query", evil)
    persona = example.prompt[len(start) : -len(query)]
    assert [ids.count(257) for ids in [persona, query, example.response]] == [0, 1, 1]
    assert tokenizer.decode(persona) == f"{evil}\nx {evil}\n\n"
    assert tokenizer.decode(example.response) == evil


# ------------------------------------------------------------------------------ training and export


@pytest.fixture
def folder(tmp_path):
    """Write a tiny bfloat16 model folder, and data whose rows fit into the model."""
    change = {"eos_token_id": 257, "max_position_embeddings": 400}
    source = write_folder(tmp_path / "source", change)
    save(load(source)[0], source, tmp_path / "m", torch.bfloat16)
    row = {"task": "t", "query": "say he", "response": "he he!"}
    row |= {"profile": [{"query": "say", "response": "hehe"}]}
    (tmp_path / "data").mkdir()
    for name in ["train", "test"]:
        lines = [json.dumps(row | {"user": f"u{i}"}) + "\n" for i in range(6)]
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path / "m"


def run_train(command, start, *flags):
    data, out = start.parent / "data", start.parent / "run"
    small = ["--steps", 2, "--batch-size", 2, "--eval-examples", 0, "--device", "cpu"]
    result = command(train.main, "--init", start, "--data", data, "--out", out, *small, *flags)
    assert result.status in (0, 2), result.err
    return result


LORA = ["--lora-rank", 2, "--lr", 0.1, "--recompute", "--block-size", 390]


@pytest.mark.parametrize("flags", [["--lr", 1e-2], LORA])
def test_a_folder_is_trained_resumed_and_written_back(command, folder, tmp_path, flags):
    run, ids, dtypes = tmp_path / "run", torch.arange(9)[None], {}
    out = run_train(command, folder, *flags, "--eval-examples", 2).out
    assert "ROUGE-L" in out and "generating texts" in out
    assert run_train(command, folder, "--resume", *flags).status == 0
    for name, more in [("back", ["--dtype", "float32"]), ("as-it-was", [])]:
        assert command(main, run, "--out", tmp_path / name, *more).status == 0
        tensors = read_safetensors(tmp_path / name / "model.safetensors").values()
        dtypes[name] = {tensor.dtype for tensor in tensors}
    assert dtypes == {"back": {torch.float32}, "as-it-was": {torch.bfloat16}}
    model = checkpoint.load(run).model
    assert model.config.block_size == (390 if flags == LORA else 400)
    trained, back = model(ids), load(tmp_path / "back")[0](ids)
    assert torch.allclose(trained, back, atol=1e-5)
    assert not torch.allclose(trained, load(folder)[0](ids), atol=1e-4)
    # a run that started from another run
    assert run_train(command, run, *flags, "--out", tmp_path / "next").status == 0
    assert command(main, tmp_path / "next", "--out", tmp_path / "back-2").status == 0


def test_eval_gives_a_folder_and_its_runs_the_same_prompts(command, folder, tmp_path, monkeypatch):
    (tmp_path / "t.json").write_text(json.dumps({"item": "<{response}>"}))
    flags = ["--template", tmp_path / "t.json", "--block-size", 60, "--top-k", 1]
    assert run_train(command, folder, *flags).status == 0
    encoded = spy(monkeypatch, evaluation, "encode_rows")
    words = [folder, tmp_path / "run", "--max-new-tokens", 0, "--device", "cpu"]
    assert command(evaluation.main, *words).status == 0
    (rows, *before), (_, *after) = (args for args, _ in encoded)
    assert before[1:] == after[1:] == [60, 1, 0]
    tokenizers = before[0], after[0]
    first, second = (encode_example(rows[0], tokenizer, 60) for tokenizer in tokenizers)
    assert first == second and "<hehe>" in tokenizers[0].decode(first.prompt)


def test_nothing_that_holds_a_model_is_overwritten(command, folder, tmp_path):
    assert run_train(command, folder).status == 0
    for out in [folder, write_folder(tmp_path / "other"), tmp_path / "run"]:
        before = {path: path.read_bytes() for path in out.iterdir()}
        assert command(main, tmp_path / "run", "--out", out).is_refusal(f"{out}/")
        assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_source_that_has_changed_since_the_training_is_noticed(command, folder, tmp_path):
    assert run_train(command, folder).status == 0
    config = folder / "config.json"
    before = config.read_bytes()
    edit_json(config, {"rope_theta": 500.0})
    result = command(main, tmp_path / "run", "--out", tmp_path / "back")
    assert result.is_refusal(str(folder)) and not (tmp_path / "back").exists()
    config.write_bytes(before)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert run_train(command, folder, "--resume").is_refusal("model in")
    shutil.rmtree(folder)  # a run can be resumed without its source
    assert run_train(command, folder, "--resume").status == 0


@pytest.mark.parametrize("init", ["", "run"])  # no source, or itself
def test_a_run_that_no_folder_started_is_not_written_back(command, folder, monkeypatch, init):
    monkeypatch.chdir(folder.parent)
    model, tokenizer, _ = load_model(folder, "cpu")
    checkpoint.save("run", model, tokenizer, Settings(init=init), 0)
    assert command(main, "run", "--out", "back").is_refusal("did not start")


def test_learning_rates_fit_what_is_trained(command, folder):
    for rank, lr in [(0, train_flags.LR_PRETRAINED), (1, train_flags.LR_LORA)]:
        run_train(command, folder, "--lora-rank", rank, "--overwrite")
        assert checkpoint.read(folder.parent / "run")["settings"].lr == lr
