"""Save and load run folders.

checkpoint.pt contains everything: weights, optimiser state, log and random state. log.jsonl is a
readable copy of the log. A LoRA run stores only its adapters, along with the path and hash of the
model they adapt. Loading such a run also loads that model.

A checkpoint may be damaged or malicious, so it is checked in three steps. First, the file must be a
zip archive whose entries are stored uncompressed, each with a CRC-32. This way, a small file cannot
expand into a large one, and no flipped bit goes unnoticed. Second, `weights_only=True` unpickles
only tensors and plain values, so no code runs. Third, every value is checked before anything is
built from it.
"""

import math
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

import torch

from perce_mini.model import GPT, GPTConfig
from perce_mini.runtime import lora
from perce_mini.runtime.errors import UserError, one_line, short_repr
from perce_mini.runtime.files import replace_file, write_jsonl_atomic
from perce_mini.tokenizer import Tokenizer
from perce_mini.trainer import Settings

KIND = "a checkpoint of this project"


class LoadedModel(NamedTuple):
    """The result of `load`. For a pretrained model, `state` is empty."""

    model: GPT
    tokenizer: Tokenizer
    state: dict  # the rest of the checkpoint

    @property
    def settings(self):
        """The settings of the run, or the defaults for a pretrained model."""
        return self.state.get("settings", Settings())


def save(folder, model, tokenizer, settings, step, log=(), optimizer=None):
    """Write a run folder. settings: a Settings object; step: the number of completed steps."""
    on_gpu = model.head.device.type == "cuda"
    state = {
        "config": asdict(model.config),
        "model": lora.adapters(model) if settings.lora_rank else model.state_dict(),
        "tokenizer": tokenizer.state(),
        "settings": asdict(settings),
        "step": step,
        "log": list(log),
        "optimizer": optimizer and optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_device": torch.cuda.get_rng_state() if on_gpu else None,
    }
    replace_file(f"{folder}/checkpoint.pt", lambda path: torch.save(state, path))
    write_jsonl_atomic(f"{folder}/log.jsonl", log)


def read(folder):
    """Load the dict written by `save`: tensors on the CPU, "settings" as a Settings object.

    Raises UserError.
    """
    path = Path(folder) / "checkpoint.pt"
    if not path.is_file():
        what = "give the folder of a run, or of a Hugging Face model on your disk"
        raise UserError(f"{path} not found: {what} (nothing is downloaded)")
    with one_line(path, KIND):
        check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_state(state)
        state["settings"] = Settings(**state["settings"])
    return state


def load(folder, device="cpu", dtype=torch.float32):
    """Load a run folder as a LoadedModel (model, tokenizer, state). Raises UserError.

    dtype: the dtype of the frozen weights of a LoRA run; all other weights are float32.
    """
    state, path = read(folder), Path(folder) / "checkpoint.pt"
    with one_line(path, KIND):
        tokenizer = build_tokenizer(state["tokenizer"])
        if state["settings"].lora_rank:
            model = load_adapted(path, state, device, dtype)
        else:
            with torch.device("meta"):  # shapes only; the weights come from the file
                model = GPT(GPTConfig(**state["config"]))
            model.load_state_dict(state.pop("model"), assign=True)
            model = model.float().to(device)  # weights may be stored as bfloat16
        check(tokenizer.vocab_size <= model.config.vocab_size, "too many tokens")
    return LoadedModel(model, tokenizer, state)


def load_adapted(path, state, device, dtype):
    """Load the model that a LoRA run started from, and add the run's adapters."""
    from perce_mini.runtime import models  # only LoRA runs need it

    source = state["settings"].init
    if not source or models.fingerprint(source) != state["settings"].init_sha256:
        what = f"{path} needs the model in {source or 'an unknown folder'}, which is missing"
        advice = "restore it, and run from the same working directory as for training"
        raise UserError(f"{what} or has changed: {advice}")
    load_source = models.hf.load if models.hf.is_folder(source) else load
    model = load_source(source, device, dtype)[0]
    model.config.block_size = state["config"]["block_size"]
    lora.merge(model)  # in case the source is also a LoRA run
    lora.add(model, state["settings"].lora_rank, "meta")  # takes no memory, whatever the rank
    weights = state.pop("model")
    check(weights.keys() == lora.adapters(model).keys(), "adapters for other layers")
    model.load_state_dict(weights, strict=False, assign=True)
    return model.to(device)


def build_tokenizer(state):
    """Restore a Tokenizer from its `state()`. Raises ValueError if it lacks necessary tokens."""
    if "pattern" not in state:
        tokens = state["tokens"]
        check(len(set(tokens)) == len(tokens), "duplicate tokens")
        check(tokens[:256] == [bytes([i]) for i in range(256)], "no token for a byte")
        return Tokenizer(**state)
    from perce_mini.hf.tokenizer import PretrainedTokenizer  # only runs of real models need it

    return PretrainedTokenizer(**state)


def restore(state, optimizer):
    """Restore the optimiser and random state, so that training resumes exactly where it stopped.

    Raises UserError if the state is missing or belongs to a different model.
    """
    where = "the checkpoint's optimiser state"
    if state.get("optimizer") is None:
        raise UserError(f"{where} is missing, so training cannot be resumed from it")
    with one_line(where, "for this model"):
        moments = state["optimizer"]["state"]
        own = optimizer.state_dict()["param_groups"]  # ignores the saved lr and decay
        weights = optimizer.param_groups[0]["params"]
        check(set(moments) == set(range(len(weights))), "wrong number of weights")
        for i, weight in enumerate(weights):
            for name in ["step", "exp_avg", "exp_avg_sq"]:
                check_tensor(moments[i][name], name)
                shape = () if name == "step" else weight.shape
                check(moments[i][name].shape == shape, f"{name} has the wrong shape")
            check(moments[i]["step"] >= 1, "a step below 1")
            check(moments[i]["exp_avg_sq"].min() >= 0, "a negative second moment")
        optimizer.load_state_dict({"state": moments, "param_groups": own})
        torch.set_rng_state(state["random"])
        if state["random_device"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random_device"])


# -------------------------------------------- checks (one_line turns their errors into UserErrors)


def check(condition, reason):
    if not condition:
        raise ValueError(reason)


def check_archive(path):
    """Check that the zip entries are uncompressed, do not overlap, and have valid CRCs."""
    with zipfile.ZipFile(path) as archive:
        end = 0
        for part in sorted(archive.infolist(), key=lambda part: part.header_offset):
            check(part.compress_type == zipfile.ZIP_STORED, "compressed entries")
            check(part.compress_size == part.file_size, "sizes differ")
            check(not part.external_attr & 0x10, "a folder")  # torch would ignore its bytes
            check(part.header_offset >= end, "overlapping entries")
            end = part.header_offset + part.file_size
        check(archive.testzip() is None, "wrong checksum")


def check_state(state):
    """Check that every value has the right type and range, before anything is built from it."""
    check_fields(state["config"], GPTConfig)
    check_fields(state["settings"], Settings)
    config, settings, step = state["config"], state["settings"], state["step"]
    check(type(step) is int and 0 <= step <= settings["steps"], f"step {short_repr(step)}")
    weights = state["model"]
    check(config["n_layer"] <= len(weights), "fewer weights than blocks")
    for name, weight in weights.items():
        check_tensor(weight, name)
    check(isinstance(state["tokenizer"], dict), "no tokenizer")
    check(len(state["tokenizer"]["tokens"]) <= config["vocab_size"], "too many tokens")
    for line in state["log"]:
        check(all(type(value) in (int, float) for value in line.values()), "non-number in the log")


def check_fields(values, cls):
    """Check that every key is a field of the dataclass and its value has a valid type and range."""
    types = {field.name: field.type for field in fields(cls)}
    for name, value in values.items():
        kinds = [float, int] if types.get(name) is float else [types.get(name)]  # 1 is fine, too
        check(type(value) in kinds, f"{short_repr(name)} is {short_repr(value)}")
        if type(value) is not str:
            check(math.isfinite(value), f"{name} is {value}")
            check(value >= 0 or name.startswith("clip"), f"{name} is {value}")


def check_tensor(tensor, name):
    """Check that this is an ordinary contiguous tensor of finite float32 or bfloat16 values."""
    check(isinstance(name, str) and isinstance(tensor, torch.Tensor), f"{short_repr(name)}")
    check(tensor.dtype in (torch.float32, torch.bfloat16), f"{name} is {tensor.dtype}")
    check(tensor.layout is torch.strided and tensor.device.type == "cpu", f"{name} is not dense")
    check(tensor.is_contiguous() and bool(tensor.isfinite().all()), f"{name} is not finite")
