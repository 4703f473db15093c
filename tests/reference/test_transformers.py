"""Logits, greedy text and written folders equal those of `transformers`."""

import pytest
import torch
import transformers

from perce_mini.hf import load, save
from tests.test_hf import write_folder

SHAPE = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
THETA = {"rope_type": "default", "rope_theta": 5e4}


def make_config(kind):
    family, *rest = kind.split()
    options = SHAPE | {"rms_norm_eps": 1e-3, "tie_word_embeddings": "untied" not in rest}
    if family == "qwen2":
        return transformers.Qwen2Config(**options, rope_parameters=THETA)
    if family == "qwen3":
        return transformers.Qwen3Config(**options, head_dim=16, rope_parameters=THETA)
    rope = LLAMA3 if "3.1" in rest else THETA
    return transformers.LlamaConfig(**options, rope_parameters=rope)


KINDS = ["llama", "llama untied", "llama 3.1", "llama 3.1 untied"]
KINDS += ["qwen2", "qwen2 untied", "qwen3", "qwen3 untied"]


@pytest.fixture(params=KINDS)
def theirs(request):
    """A random model of theirs, with norms away from one and biases away from zero."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(make_config(request.param))
    with torch.no_grad():
        for name, p in model.named_parameters():
            wide = "norm" in name or "bias" in name
            p.normal_(1 if "norm" in name else 0, 0.3 if wide else p.shape[-1] ** -0.5)
    return model.eval()


@pytest.fixture(params=["one file", "shards"])
def folder(request, theirs, tmp_path):
    size = "10KB" if request.param == "shards" else "1GB"
    write_folder(tmp_path / "m")
    (tmp_path / "m/model.safetensors").unlink()
    theirs.save_pretrained(tmp_path / "m", max_shard_size=size)
    index = tmp_path / "m/model.safetensors.index.json"
    assert index.exists() == (request.param == "shards")
    return tmp_path / "m"


def test_logits_are_equal(theirs, folder):
    model, _ = load(folder)
    ids = torch.randint(0, 300, (2, 120))
    with torch.no_grad():
        difference = (model(ids) - theirs(ids).logits).abs().max().item()
    print(f"{type(theirs).__name__}: {difference:.1e}")
    assert difference < 1e-5


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_is_written_is_read_by_transformers(theirs, folder, tmp_path, dtype):
    save(load(folder)[0], folder, tmp_path / "saved", dtype)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    original = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=again.dtype)
    assert type(again) is type(theirs) and again.dtype == (dtype or torch.float32)
    assert again.state_dict().keys() == theirs.state_dict().keys()
    ids = torch.randint(0, 300, (2, 40))
    with torch.no_grad():
        assert torch.equal(again(ids).logits, original(ids).logits)
