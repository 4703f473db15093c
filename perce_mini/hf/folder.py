"""A Hugging Face folder becomes the GPT of model.py and a tokenizer of tokenizer.py, and goes back.

    model, tokenizer = load("SmolLM2-135M")     config.json, *.safetensors, vocab.json + merges.txt or tokenizer.json
    save(model, "SmolLM2-135M", "out/mine")     the same, for others to load

LlamaForCausalLM and Qwen3ForCausalLM. What the folder holds is checked before it is used: every offset, dtype and
shape, and every setting that would make another model of it. Whatever is not understood is refused by name, because a
model that is nearly right gives finite, wrong numbers.
"""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from perce_mini import checkpoint
from perce_mini.errors import UserError
from perce_mini.files import replace_file, write_text_atomic
from perce_mini.hf.reading import read_json
from perce_mini.hf.safetensors import read_weights, write_safetensors
from perce_mini.hf.tokenizer import read_tokenizer
from perce_mini.model import GPT, GPTConfig
from perce_mini.schema import ABSENT, GPT_CONFIG, ID, OBJECT, OTHERS, Kind, check, either, list_of, optional, shown

# ---------------------------------------------------------------------------------- configuration and names

NEEDED = {"vocab_size": "vocab_size", "hidden_size": "n_embd", "intermediate_size": "n_hidden"}  # theirs -> ours
NEEDED |= {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
USUAL = {"num_key_value_heads": "n_kv_head", "head_dim": "head_size", "max_position_embeddings": "block_size"}
USUAL |= {"rms_norm_eps": "norm_eps", "tie_word_embeddings": "tied"}
QWEN3 = ["Qwen3ForCausalLM"]
CONFIG = {
    "architectures": either(["LlamaForCausalLM"], QWEN3),
    **{theirs: GPT_CONFIG[ours] for theirs, ours in NEEDED.items()},
    **{theirs: optional(GPT_CONFIG[ours]) for theirs, ours in USUAL.items()},
    **dict.fromkeys(["attention_bias", "mlp_bias", "use_sliding_window", "quantization_config"], ABSENT),
    **dict.fromkeys(["pretraining_tp", "partial_rotary_factor"], optional(either(1, 1.0))),
    **dict.fromkeys(["rope_parameters", "rope_scaling"], optional(OBJECT)),
    "rope_theta": optional(GPT_CONFIG["rope_theta"]),
    "hidden_act": optional(either("silu")),
    "layer_types": optional(list_of(either("full_attention"), 0, 512)),
    "eos_token_id": Kind("ids", lambda x: all(map(ID.fits, x)) if isinstance(x, list) else x is None or ID.fits(x)),
    OTHERS: None,
}
ROPE = dict.fromkeys(["type", "rope_type"], optional(either("default"))) | {"rope_theta": CONFIG["rope_theta"]}


def read_config(folder):
    """config.json as it is, and as GPTConfig. Raises UserError for what the GPT of model.py is not."""
    path = folder / "config.json"
    config = read_json(path)
    check(config, CONFIG, path)
    qwen3, n_head = config["architectures"] == QWEN3, config["num_attention_heads"]
    ropes = [config.get(key) or {} for key in ["rope_parameters", "rope_scaling"]]
    for rope in ropes:
        check(rope, ROPE, f"{path}: rope")
    thetas = {place["rope_theta"] for place in [config, *ropes] if place.get("rope_theta") is not None} or {10000.0}
    if len(thetas) > 1:
        raise UserError(f"{path}: rope_theta stands there twice, as {' and '.join(map(str, thetas))}")
    given = {ours: config[name] for name, ours in (NEEDED | USUAL).items() if config.get(name) is not None}
    usual = {"n_kv_head": n_head, "head_size": 128 if qwen3 else 0, "block_size": 2048, "norm_eps": 1e-6, "tied": False}
    try:
        return config, GPTConfig(**usual | given, rope_theta=float(*thetas), qk_norm=qwen3, n_shifted=0)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


NAMES = {f"attention.{x}": f"self_attn.{x}_proj" for x in "qkv"} | {"attention.out": "self_attn.o_proj"}
NAMES |= {f"attention.norm_{x}": f"self_attn.{x}_norm" for x in "qk"}
NAMES |= {x: f"mlp.{x}_proj" for x in ["gate", "up", "down"]}
NAMES |= {"norm_attention": "input_layernorm", "norm_mlp": "post_attention_layernorm"}
OUTSIDE = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
OUTSIDE |= {"output.weight": "lm_head.weight"}


def their_name(name):
    """Our name of a weight -> theirs: blocks.3.attention.q.weight -> model.layers.3.self_attn.q_proj.weight."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def check_weights(tensors, config, folder):
    """tensors {their name: tensor} are the weights of such a model, each in its shape, no others. Raises UserError."""
    with torch.device("meta"):  # no memory is taken, and of all layers one is made
        model = GPT(replace(config, n_layer=1)).state_dict()
    needed = {}
    for layer in range(config.n_layer):
        needed |= {their_name(name).replace("layers.0.", f"layers.{layer}."): model[name].shape for name in model}
    for name, shape in needed.items():
        if name not in tensors:
            raise UserError(f"{folder}: no {name!r} in its weights")
        if tensors[name].shape != shape:
            found, asked = list(tensors[name].shape), list(shape)
            raise UserError(f"{folder}: {name!r} has shape {found}, config.json asks for {asked}")
    head = tensors.get("lm_head.weight")
    if config.tied and head is not None and not torch.equal(head, tensors[OUTSIDE["embedding.weight"]]):
        raise UserError(f"{folder}: 'lm_head.weight' differs from the embedding, to which config.json ties it")
    for name in tensors.keys() - needed.keys():
        if not (name.endswith("rotary_emb.inv_freq") or config.tied and name == "lm_head.weight"):
            raise UserError(f"{folder}: {shown(name)} has no place in the model")


# ---------------------------------------------------------------------------------------------- load and save


def is_folder(path):
    return (Path(path) / "config.json").exists()


def load(path, device="cpu", dtype=torch.float32, template=None):
    """A Hugging Face model folder -> (GPT, Tokenizer). template: see `read_template`. Raises UserError."""
    folder = Path(path)
    settings, config = read_config(folder)
    tokenizer = read_tokenizer(folder, settings, template)
    if tokenizer.vocab_size > config.vocab_size:
        ids = f"the tokenizer has ids up to {tokenizer.vocab_size - 1}"
        raise UserError(f"{folder}: {ids}, the embedding {config.vocab_size} rows")
    tensors = read_weights(folder)
    check_weights(tensors, config, folder)
    with torch.device("meta"):
        model = GPT(config)
    weights = {}
    for name in model.state_dict():
        weights[name] = tensors[their_name(name)].to(device, dtype, copy=True)
        if not weights[name].isfinite().all():
            raise UserError(f"{folder}: {their_name(name)!r} holds numbers that are not finite")
    model.load_state_dict(weights, assign=True)
    return model, tokenizer


def load_any(folder, device, dtype=torch.float32, template=None, block_size=None):
    """A run of this project or a Hugging Face folder -> model, tokenizer, and a checkpoint (of a folder: its settings).

    template, block_size: for a Hugging Face folder; see `read_template`. Raises UserError.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: not a folder on this machine; nothing is downloaded here")
    if not is_folder(folder):
        if template:
            raise UserError(f"{folder}: no config.json there; a template is for Hugging Face folders")
        return checkpoint.load(folder, device)
    model, tokenizer = load(folder, device, dtype, template)
    if tokenizer.end is None:
        advice = '("eos_token_id" of config.json); name one as "end" in a template'
        raise UserError(f"{folder}: no control token ends a text {advice}")
    positions = model.config.block_size
    if block_size and block_size > positions:
        raise UserError(f"{folder}: the model has {positions} positions, --block-size asks for {block_size}")
    model.config.block_size = block_size or min(positions, 5000)  # the paper's longest
    return model, tokenizer, {"settings": {"tokenizer": "pretrained", "vocab_size": tokenizer.vocab_size}}


AS_THEY_ARE = ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]
AS_THEY_ARE += ["generation_config.json", "chat_template.jinja"]


def save(model, source, folder, dtype=torch.float32):
    """Write `model` as a Hugging Face folder, with configuration and tokenizer of `source`, which it came from.

    Raises UserError where the model is another (LoRA has to be merged), or other weights lie in `folder`.
    """
    source, folder = Path(source), Path(folder)
    settings, config = read_config(source)
    if any("attention.q.layer" in name for name in model.state_dict()):
        raise UserError(f"{folder}: LoRA has to be merged before a model is written (lora.merge)")
    if replace(model.config, block_size=config.block_size) != config:
        raise UserError(f"{folder}: the model is another than that of {source}")
    weights = {their_name(name): tensor.to(dtype) for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        if path.name != "model.safetensors":
            raise UserError(f"{path}: there are other weights; give another folder")
    for name in AS_THEY_ARE:
        if (source / name).exists() and source.resolve() != folder.resolve():
            replace_file(folder / name, partial(shutil.copyfile, source / name))
    write_safetensors(folder / "model.safetensors", weights)
    settings = {key: settings[key] for key in settings if key != "dtype"}
    settings["torch_dtype"] = str(dtype).removeprefix("torch.")
    write_text_atomic(folder / "config.json", json.dumps(settings, indent=2) + "\n")
