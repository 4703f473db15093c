"""Pretrained models: a Hugging Face folder becomes the GPT of model.py and a tokenizer of tokenizer.py, and goes back.

    model, tokenizer = load("SmolLM2-135M")        config.json, *.safetensors, vocab.json + merges.txt or tokenizer.json
    save(model, "SmolLM2-135M", "out/mine")        the same, for others to load
    python -m perce_mini.pretrained out/perce --out out/mine        what train.py made of such a folder, LoRA merged

LlamaForCausalLM and Qwen3ForCausalLM with byte-level BPE. What the folder holds is checked before it is used: every
offset, dtype and shape, and every setting that would make another model of it. Whatever is not understood is refused by
name, because a model that is nearly right gives finite, wrong numbers.
"""

import json
import math
import mmap
import re
import shutil
from pathlib import Path

import torch

from perce_mini import checkpoint, cli, lora
from perce_mini.checkpoint import CheckpointError, replace_file
from perce_mini.model import GPT, GPTConfig
from perce_mini.tokenizer import Tokenizer

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same, where digits are split off first, one by one: a digit ends what comes before it, white space too.
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"


class PretrainedError(CheckpointError):
    """What is wrong with a model folder, in one line that names the file."""


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PretrainedError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PretrainedError(f"{path}: not JSON ({str(error).splitlines()[0]})") from None


# ------------------------------------------------------------------------------------------- safetensors


def read_safetensors(path):
    """{name: tensor} of a file: 8 bytes of length (little-endian), a JSON header of that length, raw bytes.

    Nothing is copied: tensors are views of the memory-mapped file. Raises PretrainedError unless every tensor has a
    known dtype, a shape of its size, and a place of its own within the file.
    """

    def check(ok, reason):
        if not ok:
            raise PretrainedError(f"{path}: {reason}")

    try:
        with open(path, "rb") as f:
            check(f.seek(0, 2) >= 8, "too short for a safetensors file")
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise PretrainedError(f"{path}: {error.strerror}") from None
    n = int.from_bytes(data[:8], "little")
    check(n <= len(data) - 8, f"the header of {n} bytes does not fit into the file: truncated?")
    try:
        header = json.loads(data[8 : 8 + n])
        check(isinstance(header, dict), "the header is not a JSON object")
    except (ValueError, RecursionError):
        check(False, "the header is not JSON")
    header.pop("__metadata__", None)
    tensors, taken, size = {}, [], len(data) - 8 - n
    for name, entry in header.items():
        check(isinstance(entry, dict), f"{name!r} is not described by an object")
        known = entry.get("dtype") in list(DTYPES)
        check(known, f"{name!r} has dtype {entry.get('dtype')!r}; known are {', '.join(DTYPES)}")
        shape, place = entry.get("shape"), entry.get("data_offsets")
        whole = lambda xs: isinstance(xs, list) and all(type(x) is int and x >= 0 for x in xs)
        check(whole(shape) and whole(place) and len(place) == 2, f"{name!r} has no proper shape and data_offsets")
        (start, end), dtype = place, DTYPES[entry["dtype"]]
        check(start <= end <= size, f"{name!r} lies at {start} to {end}, beyond the {size} bytes of data: truncated?")
        count = math.prod(shape)
        fits = end - start == count * dtype.itemsize
        check(fits, f"{name!r} has {end - start} bytes, not those of {entry['dtype']} {shape}")
        taken.append((start, end, name))
        if count:
            tensors[name] = torch.frombuffer(data, dtype=dtype, count=count, offset=8 + n + start).view(shape)
        else:
            tensors[name] = torch.empty(shape, dtype=dtype)
    taken.sort()
    for (_, end, name), (start, _, other) in zip(taken, taken[1:]):
        check(end <= start, f"{name!r} and {other!r} overlap")
    return tensors


def read_weights(folder):
    """{name: tensor} of all the folder's *.safetensors."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        places = read_json(index).get("weight_map")
        is_plain = lambda name: isinstance(name, str) and Path(name).name == name
        if not isinstance(places, dict) or not all(map(is_plain, places.values())):
            raise PretrainedError(f"{index}: weight_map must map tensors to files of this folder")
        files = sorted({folder / name for name in places.values()})
    else:
        places, files = {}, sorted(folder.glob("*.safetensors"))
    if not files:
        raise PretrainedError(f"{folder}: no *.safetensors in it")
    for path in files:
        if not path.exists():
            raise PretrainedError(f"{path}: a part of the model is missing")
    tensors = {}
    for path in files:
        for name, tensor in read_safetensors(path).items():
            if name in tensors:
                raise PretrainedError(f"{path}: {name!r} stands in another file too")
            tensors[name] = tensor
    for name in places:
        if name not in tensors:
            raise PretrainedError(f"{index}: {name!r} is in no file")
    return tensors


# ---------------------------------------------------------------------------------- configuration and names


ONLY = {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "use_sliding_window": False,
        "pretraining_tp": 1}  # fmt: skip


def read_config(folder):
    """config.json -> GPTConfig. Raises PretrainedError for what the GPT of model.py is not."""
    path = folder / "config.json"
    config = read_json(path)

    def refuse(reason):
        raise PretrainedError(f"{path}: {reason}")

    kind = (config.get("architectures") or [None])[0]
    if kind not in ("LlamaForCausalLM", "Qwen3ForCausalLM"):
        refuse(f"architecture {kind!r} is not supported; LlamaForCausalLM and Qwen3ForCausalLM are")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        refuse(f"rope scaling {scaling!r} is not supported")
    for name, only in ONLY.items():
        if config.get(name, only) != only:
            refuse(f"{name} {config[name]!r} is not supported, only {only!r}")
    if config.get("quantization_config"):
        refuse("quantised weights are not supported")

    def number(name, default=None, kind=int):
        value = config.get(name)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0 or kind(value) != value:
            refuse(f"{name} must be a number above 0, not {value!r}")
        return kind(value)

    n_head = number("num_attention_heads")
    head_size = number("head_dim", 128 if kind == "Qwen3ForCausalLM" else number("hidden_size") // n_head)
    try:
        return GPTConfig(
            vocab_size=number("vocab_size"),
            block_size=number("max_position_embeddings", 2048),
            n_layer=number("num_hidden_layers"),
            n_head=n_head,
            n_kv_head=number("num_key_value_heads", n_head),
            n_shifted=0,
            n_embd=number("hidden_size"),
            n_hidden=number("intermediate_size"),
            rope_theta=number("rope_theta", rope.get("rope_theta", 10000.0), float),
            norm_eps=number("rms_norm_eps", 1e-6, float),
            head_size=head_size,
            qk_norm=kind == "Qwen3ForCausalLM",
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except ValueError as error:
        refuse(str(error))


NAMES = {"self_attn.q_proj": "attention.q", "self_attn.k_proj": "attention.k", "self_attn.v_proj": "attention.v",
         "self_attn.o_proj": "attention.out",
         "self_attn.q_norm": "attention.norm_q", "self_attn.k_norm": "attention.norm_k",
         "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down",
         "input_layernorm": "norm_attention", "post_attention_layernorm": "norm_mlp"}  # fmt: skip
OUTSIDE = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight",
           "output.weight": "lm_head.weight"}  # fmt: skip


def hugging_face_name(name):
    """Our name of a weight -> theirs: blocks.3.attention.q.weight -> model.layers.3.self_attn.q_proj.weight."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, rest = name.split(".", 2)
    theirs = {ours: their for their, ours in NAMES.items()}
    return f"model.layers.{layer}.{theirs[rest.removesuffix('.weight')]}.weight"


# --------------------------------------------------------------------------------------------- the tokenizer


def bytes_of_characters():
    """Byte-level BPE files spell a byte as a character: printable ones as themselves, others from U+0100 on (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def make_tokenizer(vocab, merges, pattern, special, layout, normal_form=None):
    """vocab {token as spelled: id}; merges [(left, right), ...], first ones first; special {name: id} -> Tokenizer."""
    letters = bytes_of_characters()
    as_bytes = lambda token: bytes(letters[c] for c in token)
    spelled = {bytes([byte]): c for c, byte in sorted(letters.items(), key=lambda pair: pair[1])}
    for left, right in merges:
        spelled.setdefault(as_bytes(left + right), left + right)
    ids = [vocab.get(name) for name in spelled.values()]
    if None in ids[256:]:
        missing = list(spelled.values())[ids.index(None, 256)]
        raise ValueError(f"{missing!r} is made by the merges but not in the vocabulary")
    return Tokenizer(list(spelled), pattern, ids, special, layout, normal_form)


# How prompts look: few-shot, in the words of the rows themselves (of data/longlamp: LongLaMP's own instructions).
PLAIN = {"start": "", "item": "{query}\n{response}\n\n", "query": "{query}\n", "end": ""}
# Chat models, known by the token that ends their texts: persona and query are what the user says.
CHATS = {"<|im_end|>": {"start": "<|im_start|>user\n", "query": "{query}<|im_end|>\n<|im_start|>assistant\n"},
         "<|eot_id|>": {"start": "<|start_header_id|>user<|end_header_id|>\n\n",
                        "query": "{query}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"}}  # fmt: skip


def layout_of(folder, special):
    """The prompt's layout (tokenizer.LAYOUT) that fits a folder: plain text, or the form of its chats."""
    ends = read_json(folder / "config.json").get("eos_token_id")
    named = [name for name, i in special.items() if i in (ends if isinstance(ends, list) else [ends])]
    end = next((name for name in CHATS if name in named), named[0] if named else "")
    layout = PLAIN | CHATS.get(end, {}) | {"end": end}
    if "<|begin_of_text|>" in special:  # Llama 3
        layout["start"] = "<|begin_of_text|>" + layout["start"]
    if end in CHATS and "<think>" in special:  # Qwen3 answers at once after an empty thought
        layout["query"] += "<think>\n\n</think>\n\n"
    return layout


def read_template(path):
    """A JSON file with any of "start", "item", "query", "end", in place of the folder's own. Raises PretrainedError."""
    template = read_json(path)
    is_part = lambda key: key in PLAIN and isinstance(template[key], str)
    if not isinstance(template, dict) or not all(map(is_part, template)):
        raise PretrainedError(f"{path}: a template is an object of strings, of {', '.join(PLAIN)}")
    for part, name in [("item", "{response}"), ("query", "{query}")]:
        if name not in template.get(part, name):
            raise PretrainedError(f"{path}: {part!r} does not say where {name} goes")
    return template


def pattern_of(step, refuse):
    """The pattern at which a tokenizer.json cuts a text ("pre_tokenizer")."""
    steps = step.get("pretokenizers", []) if step.get("type") == "Sequence" else [step]
    kinds = [s.get("type") for s in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        refuse(f"pre-tokeniser {kinds} is not byte-level BPE without an added space")
    own = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and own:
        return GPT2_PATTERN
    if kinds == ["Digits", "ByteLevel"] and own and steps[0].get("individual_digits"):
        return DIGITS_PATTERN
    first = steps[0]
    isolated = first.get("behavior") == "Isolated" and not first.get("invert")
    if kinds == ["Split", "ByteLevel"] and not own and isolated and "Regex" in first.get("pattern", {}):
        return first["pattern"]["Regex"]
    refuse(f"pre-tokeniser {kinds} is not supported")


def read_tokenizer(folder, template=None):
    """tokenizer.json, or vocab.json and merges.txt -> Tokenizer; `template` goes over its layout. Raises PretrainedError."""
    path = folder / "tokenizer.json"
    layout = lambda special: layout_of(folder, special) | (template or {})

    def refuse(reason):
        raise PretrainedError(f"{path}: {reason}")

    try:
        if path.exists():
            state = read_json(path)
            model, normalizer = state["model"], state.get("normalizer") or {"type": None}
            if model.get("type", "BPE") != "BPE" or model.get("byte_fallback") or model.get("unk_token"):
                refuse(f"{model.get('type')} is not byte-level BPE")
            if normalizer["type"] not in (None, "NFC"):
                refuse(f"normaliser {normalizer['type']!r} is not supported")
            merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
            special = {token["content"]: token["id"] for token in state.get("added_tokens", [])}
            pattern = pattern_of(state["pre_tokenizer"] or {}, refuse)
            return make_tokenizer(model["vocab"], merges, pattern, special, layout(special), normalizer["type"])
        path = folder / "vocab.json"
        vocab = read_json(path)
        path = folder / "merges.txt"
        lines = path.read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        made = {left + right for left, right in merges} | set(bytes_of_characters())
        special = {token: i for token, i in vocab.items() if token not in made}
        alone = not any(re.search("[0-9]{2}", token) for token in made)  # no token of two digits: they are split first
        return make_tokenizer(vocab, merges, DIGITS_PATTERN if alone else GPT2_PATTERN, special, layout(special))
    except OSError as error:
        refuse(error.strerror)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, PretrainedError):
            raise
        refuse(f"not byte-level BPE ({type(error).__name__}: {error})")


# ---------------------------------------------------------------------------------------------------- load


def is_folder(path):
    return (Path(path) / "config.json").exists()


def load(path, device="cpu", dtype=torch.float32, template=None):
    """A Hugging Face model folder -> (GPT, Tokenizer). Raises PretrainedError."""
    folder = Path(path)
    config, tokenizer = read_config(folder), read_tokenizer(folder, template)
    if tokenizer.vocab_size > config.vocab_size:
        raise PretrainedError(f"{folder}: the tokenizer has ids up to {tokenizer.vocab_size - 1},"
                              f" the embedding {config.vocab_size} rows")  # fmt: skip
    with torch.device("meta"):
        model = GPT(config)
    tensors, state = read_weights(folder), {}
    for name, parameter in model.state_dict().items():
        theirs = hugging_face_name(name)
        if theirs not in tensors:
            raise PretrainedError(f"{folder}: no {theirs!r} in its *.safetensors")
        tensor = tensors.pop(theirs)
        if tensor.shape != parameter.shape:
            raise PretrainedError(f"{folder}: {theirs!r} has shape {list(tensor.shape)},"
                                  f" config.json asks for {list(parameter.shape)}")  # fmt: skip
        state[name] = tensor.to(device, dtype, copy=True)
    is_known = lambda name: name.endswith("rotary_emb.inv_freq") or config.tied and name == "lm_head.weight"
    if unused := [name for name in tensors if not is_known(name)]:
        raise PretrainedError(f"{folder}: {unused[0]!r} has no place in the model")
    model.load_state_dict(state, assign=True)
    return model, tokenizer


def load_any(folder, device, dtype=torch.float32, template=None, block_size=None):
    """A run of this project, or a Hugging Face folder -> model, tokenizer, and a checkpoint (of a folder: its settings).

    template, block_size: for a Hugging Face folder; see `read_template`. Raises CheckpointError, TokenizerError.
    """
    if not is_folder(folder):
        if template:
            raise PretrainedError(f"{folder}: no config.json there; a template is for Hugging Face folders")
        return checkpoint.load(folder, device)
    model, tokenizer = load(folder, device, dtype, template)
    if tokenizer.end is None:
        raise PretrainedError(f'{folder}: no control token ends a text ("eos_token_id" of config.json);'
                              ' name one as "end" in a template')  # fmt: skip
    positions = model.config.block_size
    if block_size and block_size > positions:
        raise PretrainedError(f"{folder}: the model has {positions} positions, --block-size asks for {block_size}")
    model.config.block_size = block_size or min(positions, 5000)  # the paper's longest
    return model, tokenizer, {"settings": {"tokenizer": "pretrained", "vocab_size": tokenizer.vocab_size}}


# ---------------------------------------------------------------------------------------------------- save


def write_safetensors(path, tensors):
    """What `read_safetensors` reads: {name: tensor} -> a file that takes the place of `path` in one step."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # the data starts at a multiple of 8

    def write(new):
        with open(new, "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head)
            for tensor in tensors.values():
                f.write(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())

    replace_file(path, write)


AS_THEY_ARE = ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
               "generation_config.json", "chat_template.jinja"]  # fmt: skip


def save(model, source, folder, dtype=torch.float32):
    """Write `model` as a Hugging Face folder, with configuration and tokenizer of `source`, which it came from."""
    source, folder = Path(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in AS_THEY_ARE:
        if (source / name).exists() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)
    config = read_json(source / "config.json") | {"torch_dtype": str(dtype).removeprefix("torch.")}
    config.pop("dtype", None)
    weights = {hugging_face_name(name): tensor.to(dtype) for name, tensor in model.state_dict().items()}
    write_safetensors(folder / "model.safetensors", weights)
    text = json.dumps(config, indent=2) + "\n"
    replace_file(folder / "config.json", lambda new: Path(new).write_text(text, encoding="utf-8"))


def main():
    p = cli.Parser(prog="python -m perce_mini.pretrained",
                   description="Write a run that started from a Hugging Face folder as such, LoRA merged.")  # fmt: skip
    p.add_argument("run", type=Path, metavar="DIR", help="folder that train.py wrote")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of weights (default float32)")
    args = p.parse_args()
    model, _, state = checkpoint.load(args.run)
    source = state["settings"].get("init", "")
    while not is_folder(source):
        if not source:
            raise PretrainedError(f"{args.run} did not start from a Hugging Face folder")
        source = checkpoint.read(source)["settings"].get("init", "")
    lora.merge(model)
    save(model, source, args.out, getattr(torch, args.dtype))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    cli.run(main)
