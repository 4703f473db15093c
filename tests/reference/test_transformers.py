"""Logits, greedy text and saved folders equal those of `transformers`."""

import pytest
import torch
import transformers

from perce_mini.hf import load, save
from tests.test_hf import write_folder

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def make_theirs(kind):
    if kind == "qwen3":
        config = transformers.Qwen3Config(**SHAPE, head_dim=16, rope_theta=1e6, tie_word_embeddings=True)
        return transformers.Qwen3ForCausalLM(config)
    tied = kind == "llama"
    config = transformers.LlamaConfig(**SHAPE, rms_norm_eps=1e-3, rope_theta=5e4, tie_word_embeddings=tied)
    return transformers.LlamaForCausalLM(config)


@pytest.fixture(params=["llama", "llama untied", "qwen3"])
def theirs(request):
    """A random model of theirs, with norms away from one, so that forgetting one shows."""
    torch.manual_seed(0)
    model = make_theirs(request.param)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1 if "norm" in name else 0, 0.3 if "norm" in name else p.shape[-1] ** -0.5)
    return model.eval()


@pytest.fixture
def folder(theirs, tmp_path):
    theirs.save_pretrained(write_folder(tmp_path / "m"))
    return tmp_path / "m"


def test_logits_are_equal(theirs, folder):
    model, _ = load(folder)
    ids = torch.randint(0, 300, (2, 40))
    with torch.no_grad():
        assert (model(ids) - theirs(ids).logits).abs().max() < 1e-4


def test_greedy_text_is_equal(theirs, folder):
    model, _ = load(folder)
    for row in torch.randint(0, 300, (3, 40)).tolist():
        ids = torch.tensor([row])
        how = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "max_new_tokens": 20}
        greedy = theirs.generate(ids, attention_mask=torch.ones_like(ids), **how)[0, 40:].tolist()
        assert model.generate([row], 20, end_id=-1)[0] == greedy


def test_what_is_saved_is_read_by_transformers(theirs, folder, tmp_path):
    save(load(folder)[0], folder, tmp_path / "saved")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(again) is type(theirs) and again.config.tie_word_embeddings == theirs.config.tie_word_embeddings
    weights = again.state_dict()
    assert weights.keys() == theirs.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in theirs.state_dict().items())
    ids = torch.randint(0, 300, (2, 40))
    with torch.no_grad():
        assert torch.equal(again(ids).logits, theirs(ids).logits)
