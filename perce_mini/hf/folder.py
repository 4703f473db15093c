"""Convert a Hugging Face folder to the GPT of model.py and a tokenizer, and back.

    model, tokenizer = load("SmolLM2-135M")     config.json, *.safetensors, tokenizer.json
    save(model, "SmolLM2-135M", "out/mine")     the same files, for other programs

Supports Llama 3, SmolLM2, Qwen2, Qwen2.5 and Qwen3. A model that is almost right gives
plausible but wrong numbers, so any unsupported setting raises an error that names it.
"""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from perce_mini.hf.safetensors import read_weights, write_safetensors
from perce_mini.hf.tokenizer import read_tokenizer
from perce_mini.model import GPT, GPTConfig
from perce_mini.runtime.checkpoint import check, check_fields
from perce_mini.runtime.errors import UserError, one_line, short_repr
from perce_mini.runtime.files import read_json, replace_file, write_text_atomic

KINDS = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
FIELDS = {"vocab_size": "vocab_size", "hidden_size": "n_embd", "intermediate_size": "n_hidden"}
FIELDS |= {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}  # theirs: ours
FIELDS |= {"num_key_value_heads": "n_kv_head", "head_dim": "head_size", "rms_norm_eps": "norm_eps"}
FIELDS |= {"max_position_embeddings": "block_size", "tie_word_embeddings": "tied"}
ROPE = {"factor": "rope_factor", "low_freq_factor": "rope_low", "high_freq_factor": "rope_high"}
ROPE |= {"original_max_position_embeddings": "rope_original"}
# Settings for which our GPT supports only one value.
ABSENT = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
ABSENT |= {"use_sliding_window": False, "partial_rotary_factor": 1, "quantization_config": None}


def read_config(folder):
    """Read config.json, as a dict and as the GPTConfig of the same model. Raises UserError."""
    with one_line(folder / "config.json", "the configuration of a supported model"):
        settings = read_json(folder / "config.json")
        (architecture,) = settings["architectures"]
        kind = KINDS.get(architecture)
        check(kind, f"architecture {short_repr(architecture)}")
        for name, value in (ABSENT | {"model_type": kind}).items():
            other = settings.get(name)
            check(other in (None, value), f"{name} {short_repr(other)}")
        layers = settings.get("layer_types") or []
        check({*layers} <= {"full_attention"}, f"layer_types {short_repr(layers)}")
        usual = {"num_key_value_heads": settings["num_attention_heads"], "rms_norm_eps": 1e-6}
        usual |= {"max_position_embeddings": 2048, "tie_word_embeddings": False}
        usual |= {"head_dim": 128 if kind == "qwen3" else 0}
        usual |= {name: value for name, value in settings.items() if value is not None}
        fields = {ours: usual[theirs] for theirs, ours in FIELDS.items()} | rope_fields(settings)
        fields |= {"qk_norm": kind == "qwen3", "qkv_bias": kind == "qwen2", "n_shifted": 0}
        check_fields(fields, GPTConfig)
        return settings, GPTConfig(**fields)


def rope_fields(settings):
    """The GPTConfig fields for rotary positions, which newer configs keep in a single object."""
    old, new = settings.get("rope_scaling"), settings.get("rope_parameters")
    check(not (old and new) or old == new, "rope_scaling and rope_parameters differ")
    rope = dict(old or new or {})
    for name in ["rope_theta", "original_max_position_embeddings"]:
        value = settings.get(name)
        check(value is None or rope.setdefault(name, value) == value, f"two values for {name}")
    kinds = {rope.pop(name) for name in ["type", "rope_type"] if name in rope} or {"default"}
    check(kinds in ({"default"}, {"llama3"}), f"rope_type {short_repr(kinds)}")
    fields = {"rope_theta": float(rope.pop("rope_theta", 10000))}
    if kinds == {"llama3"}:
        fields |= {ours: float(rope.pop(theirs)) for theirs, ours in ROPE.items()}
        check(fields["rope_low"] < fields["rope_high"], "low_freq_factor >= high_freq_factor")
    check(not rope, f"unknown rope settings {short_repr(rope)}")
    return fields


NAMES = {f"attention.{x}": f"self_attn.{x}_proj" for x in "qkv"}
NAMES |= {f"attention.norm_{x}": f"self_attn.{x}_norm" for x in "qk"}
NAMES |= {x: f"mlp.{x}_proj" for x in ["gate", "up", "down"]}
NAMES |= {"attention.out": "self_attn.o_proj", "norm_attention": "input_layernorm"}
NAMES |= {"norm_mlp": "post_attention_layernorm", "output": "lm_head"}
NAMES |= {"embedding": "model.embed_tokens", "norm": "model.norm"}


def their_name(name):
    """blocks.3.attention.q.weight -> model.layers.3.self_attn.q_proj.weight"""
    name, kind = name.rsplit(".", 1)
    if name in NAMES:
        return f"{NAMES[name]}.{kind}"
    _, layer, part = name.split(".", 2)
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def read_state(folder, config):
    """Read {our name: tensor}, exactly the weights that this config needs. Raises UserError."""
    tensors = read_weights(folder)
    with one_line(folder, "the weights that config.json describes"):
        check(config.n_layer <= len(tensors), f"too few weights for {config.n_layer} layers")
        with torch.device("meta"):  # takes no memory
            state = GPT(config).state_dict()
        if config.tied and "lm_head.weight" in tensors:  # some files store a tied head twice
            head = tensors.pop("lm_head.weight")
            embedding = tensors.setdefault("model.embed_tokens.weight", head)
            check(torch.equal(embedding, head), "lm_head differs from the embedding")
        for name, weight in state.items():
            state[name] = tensors.pop(their_name(name))
            shapes = f"{[*state[name].shape]}, not {[*weight.shape]}"
            check(state[name].shape == weight.shape, f"{their_name(name)} has shape {shapes}")
        extra = [name for name in tensors if not name.endswith("rotary_emb.inv_freq")]
        check(not extra, f"unexpected {short_repr(extra)}")
    return state


def is_folder(path):
    return (Path(path) / "config.json").exists()


def load(path, device="cpu", dtype=torch.float32, template=None):
    """Load a Hugging Face folder as (GPT, PretrainedTokenizer). Raises UserError.

    template: overrides parts of the model's own template (see `read_template`).
    """
    folder = Path(path)
    settings, config = read_config(folder)
    tokenizer = read_tokenizer(folder, settings, template)
    if tokenizer.vocab_size > config.vocab_size:
        ids = f"the tokenizer has ids up to {tokenizer.vocab_size - 1}"
        raise UserError(f"{folder}: {ids}, but the embedding has {config.vocab_size} rows")
    state = read_state(folder, config)
    for name, weight in state.items():
        state[name] = weight.to(device, dtype, copy=True)
        if not state[name].isfinite().all():
            raise UserError(f"{folder}: {their_name(name)} contains NaN or infinity")
    with torch.device("meta"):
        model = GPT(config)
    model.load_state_dict(state, assign=True)
    return model, tokenizer


COPIED = ["tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"]
COPIED += ["tokenizer_config.json", "special_tokens_map.json"]
COPIED += ["generation_config.json", "chat_template.jinja"]


def save(model, source, folder, dtype=None):
    """Write `model` as a Hugging Face folder with the configuration and tokenizer of `source`.

    Merge any LoRA adapters first (`lora.merge`). dtype: the dtype of the saved weights (default:
    the same as in `source`). Raises UserError if the model's configuration differs from that of
    `source`, or if `folder` already contains a model.
    """
    source, folder = Path(source), Path(folder)
    settings, config = read_config(source)
    if replace(model.config, block_size=config.block_size) != config:
        raise UserError(f"{folder}: the model's configuration differs from that of {source}")
    for path in [folder / "checkpoint.pt", folder / "config.json", *folder.glob("*.safetensors*")]:
        if path.exists():
            raise UserError(f"{path} already exists: choose another folder")
    old = read_state(source, config)
    weights = {}
    for name, weight in model.state_dict().items():
        weights[their_name(name)] = weight.to(dtype or old[name].dtype)
    write_safetensors(folder / "model.safetensors", weights)
    for name in COPIED:
        if (source / name).exists():
            replace_file(folder / name, partial(shutil.copyfile, source / name))
    if dtype:
        settings |= {"torch_dtype": str(dtype).removeprefix("torch.")}
        settings.pop("dtype", None)
    write_text_atomic(folder / "config.json", json.dumps(settings, indent=2) + "\n")
