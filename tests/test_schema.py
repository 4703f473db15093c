"""What a checkpoint may hold: every field is held against its table before anything is built of it."""

import math
from dataclasses import asdict, fields

import pytest
import torch

from perce_mini import checkpoint, lora, schema
from perce_mini.errors import UserError
from perce_mini.model import GPT, GPTConfig
from perce_mini.tokenizer import LAYOUT, PATTERN, Tokenizer
from perce_mini.trainer import Settings, make_optimizer

TOKENIZER = Tokenizer.train("a b a b", 262)


def make_state(tmp_path, rank=0):
    """A checkpoint of a run that has made a step, as it is read."""
    model = GPT(GPTConfig(TOKENIZER.vocab_size, n_layer=1, n_embd=16, n_head=2, n_hidden=16))
    if rank:
        lora.add(model, rank)
    optimizer = make_optimizer(model, Settings())
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()
    log = [{"step": 1, "loss": 2.5}]
    checkpoint.save(tmp_path / "run", model, TOKENIZER, asdict(Settings(lora_rank=rank)), 1, log, optimizer)
    return checkpoint.read(tmp_path / "run")


@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_saved_is_accepted(tmp_path, rank):
    state = make_state(tmp_path, rank)
    schema.check_checkpoint(state, "run")
    schema.check_checkpoint(state | {"settings": {"loss": "ce"}, "optimizer": None}, "run")  # of before other fields


def test_the_tables_name_every_field(tmp_path):
    assert schema.SETTINGS.keys() == {field.name for field in fields(Settings)}
    assert schema.GPT_CONFIG.keys() == {field.name for field in fields(GPTConfig)}
    assert schema.CHECKPOINT.keys() == make_state(tmp_path).keys()
    assert schema.TOKENIZER.keys() == TOKENIZER.state().keys() and schema.LAYOUT.keys() == LAYOUT.keys()


FLOATS = torch.zeros(2)
META = torch.empty(2, device="meta")


@pytest.mark.parametrize(
    "place, value, reason",
    [
        ([], None, "run: must be an object"),
        (["step"], -1, "run: 'step' must be a whole number from 0 to 1000000000, not -1"),
        (["step"], 1.0, "'step'"),
        (["step"], True, "'step'"),
        pytest.param(["step"], 10**5000, "'step' must be a whole number from 0 to 1000000000, not <int>", id="long"),
        (["more"], 1, "'more' is not known"),
        (["log"], {}, "'log' must be a list"),
        (["log"], [{"loss": "x"}], "'log' must be a list"),
        (["random"], [1], "'random' must be a tensor"),
        (["random"], FLOATS, "'random' must be a tensor of finite torch.uint8, not <torch.float32>"),
        (["random_device"], 3, "'random_device'"),
        (["config"], [1], "'config' must be an object"),
        (["config", "n_layer"], 30_000, "run: config: 'n_layer' must be a whole number from 1 to 512, not 30000"),
        (["config", "n_layer"], 2, "run: model: 'blocks.1.norm_mlp.weight' is missing"),
        (["config", "n_head"], 0, "'n_head'"),
        (["config", "n_kv_head"], 0, "'n_kv_head'"),
        (["config", "n_embd"], 2**70, "'n_embd'"),
        (["config", "norm_eps"], math.nan, "'norm_eps' must be a number from 1e-12 to 1, not nan"),
        (["config", "norm_eps"], 0.0, "'norm_eps'"),
        (["config", "rope_theta"], math.inf, "'rope_theta'"),
        (["config", "tied"], "false", "'tied' must be True or False, not 'false'"),
        (["config", "tied"], 1, "'tied'"),
        (["config", "head"], 1, "'head' is not known"),
        (["config", 5], 1, "5 is not known"),
        (["settings", "lora_rank"], -2, "run: settings: 'lora_rank'"),
        (["settings", "lr"], math.nan, "'lr'"),
        (["settings", "loss"], "mse", "'loss' must be 'ce' or 'lossce' or 'entce' or 'perce', or left out, not 'mse'"),
        (["settings", "init"], 5, "'init'"),
        (["settings", "contrast"], ["none"], "'contrast'"),
        (["model"], [FLOATS], "'model' must be an object"),
        (["model", "norm.weight"], [1.0], "run: model: 'norm.weight' must be a tensor of finite torch.float32"),
        (["model", "norm.weight"], torch.full([16], math.nan), "'norm.weight' must be a tensor of finite"),
        (["model", "norm.weight"], torch.ones(16).half(), "not <torch.float16>"),
        (["model", "norm.weight"], torch.ones(16).bfloat16(), "not <torch.bfloat16>"),
        (["model", "norm.weight"], torch.ones(16, dtype=torch.complex64), "not <torch.complex64>"),
        (["model", "norm.weight"], torch.ones(16).to_sparse(), "'norm.weight'"),
        (["model", "norm.weight"], torch.ones(16).to_mkldnn(), "'norm.weight'"),
        (["model", "norm.weight"], torch.ones(1).expand(2**40), "'norm.weight'"),  # claims memory that it has not
        (["model", "norm.weight"], META, "'norm.weight'"),
        (["optimizer"], 5, "'optimizer' must be an object"),
        (["optimizer", "state"], 5, "run: optimizer: 'state' must be an object"),
        (["optimizer", "state", 0], 5, "optimizer: 0 must be an object, or left out, not 5"),
        (["optimizer", "state", 0, "exp_avg"], FLOATS, "optimizer: the moments 0 have another shape"),
        (["optimizer", "state", 0, "exp_avg_sq"], FLOATS, "optimizer: the moments 0 have another shape"),
        (["optimizer", "state", 0, "exp_avg"], FLOATS.half(), "optimizer: 0: 'exp_avg' must be"),
        (
            ["optimizer", "state", 99],
            {"step": FLOATS, "exp_avg": FLOATS, "exp_avg_sq": FLOATS},
            "optimizer: 99 is not known",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path, place, value, reason):
    state = changed(make_state(tmp_path), place, value)
    with pytest.raises(UserError) as error:
        schema.check_checkpoint(state, "run")
    line = str(error.value)
    assert line.startswith("run: ") and reason in line and "\n" not in line and len(line) < 400


def changed(state, place, value):
    """A copy of nested objects in which the value at this place is another."""
    return dict(state) | {place[0]: changed(state.get(place[0]), place[1:], value)} if place else value


MAY_BE_LEFT_OUT = ["ids", "special", "normal_form", "optimizer", "random_device"]


@pytest.mark.parametrize("part", ["config", "tokenizer", ""])
def test_every_field_is_needed_but_those_that_say_nothing(tmp_path, part):
    state = make_state(tmp_path)
    for name in state[part] if part else state:
        fewer = {key: value for key, value in (state[part] if part else state).items() if key != name}
        changed_state = state | {part: fewer} if part else fewer
        if name in MAY_BE_LEFT_OUT:
            schema.check_checkpoint(changed_state, "run")
        else:
            with pytest.raises(UserError, match=f"'{name}' must be .*, and is missing"):
                schema.check_checkpoint(changed_state, "run")


def test_lora_beside_frozen_bfloat16_is_accepted(tmp_path):
    state = make_state(tmp_path, rank=2)
    trained = [name for name in state["model"] if name.endswith(schema.LORA)]
    half = {name: weight if name in trained else weight.bfloat16() for name, weight in state["model"].items()}
    schema.check_checkpoint(state | {"model": half}, "run")
    with pytest.raises(UserError, match="not <torch.bfloat16>"):
        other = half | {trained[0]: half[trained[0]].bfloat16()}
        schema.check_checkpoint(state | {"model": other}, "run")


BYTES = [bytes([i]) for i in range(256)]
IDS = list(range(256))
SPECIAL = {"<|end|>": 300}


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"tokens": 5}, "'tokens' must be a list"),
        ({"tokens": BYTES[:255]}, "'tokens' must be a list"),
        ({"tokens": [*BYTES[:255], "x"]}, "'tokens' must be a list"),
        ({"tokens": [*BYTES, b""]}, "'tokens' must be a list"),
        ({"tokens": [*BYTES, b"a"]}, "tokens must differ"),
        ({"tokens": [*BYTES[:255], b"ab"]}, "the first 256 tokens must be the 256 bytes"),
        ({"ids": IDS[:255]}, "'ids' must be a list"),
        ({"ids": [*IDS, 256]}, "257 ids are given to 256 tokens"),
        ({"ids": [*IDS[:255], 0]}, "id 0 belongs to two tokens"),
        ({"ids": [*IDS[:255], -1]}, "'ids' must be a list"),
        ({"ids": [*IDS[:255], 2**40]}, "'ids' must be a list"),
        ({"ids": [*IDS[:255], 1.0]}, "'ids' must be a list"),
        ({"ids": [*IDS[:255], 300]}, "id 300 belongs to two tokens"),
        ({"ids": [None] * 256}, "every printable ASCII character must have an id"),
        ({"special": []}, "'special' must be an object"),
        ({"special": {"<|end|>": 255}}, "id 255 belongs to two tokens"),
        ({"special": SPECIAL | {"x": 300}}, "id 300 belongs to two tokens"),
        ({"special": SPECIAL | {"x": -1}}, "control tokens: 'x' must be a whole number"),
        ({"special": SPECIAL | {"x": None}}, "control tokens: 'x' must be a whole number"),
        ({"special": SPECIAL | {"": 301}}, "control tokens must be texts of 1 to 100"),
        ({"special": SPECIAL | {"x" * 101: 301}}, "control tokens must be texts of 1 to 100"),
        ({"special": SPECIAL | {5: 301}}, "control tokens must be texts of 1 to 100"),
        ({"special": SPECIAL | {"{query}": 301}}, "must not be control tokens"),
        ({"special": {"<|and|>": 300}}, "'<|end|>' is not a control token"),
        ({"special": {f"{i}": 300 + i for i in range(4097)}}, "'special' must be an object of at most 4096"),
        ({"layout": 5}, "'layout' must be an object"),
        ({"layout": {"start": "", "item": "", "end": "<|end|>"}}, "layout: 'query' must be a text"),
        ({"layout": LAYOUT | {"more": ""}}, "layout: 'more' is not known"),
        ({"layout": LAYOUT | {"end": ""}}, "'' is not a control token"),
        ({"layout": LAYOUT | {"start": b""}}, "layout: 'start' must be a text"),
        ({"normal_form": "NFKC"}, "'normal_form' must be 'NFC', or left out, not 'NFKC'"),
        ({"more": 1}, "'more' is not known"),
        ({"pattern": 5}, "'pattern' must be a text"),
        ({"pattern": "a" * 2001}, "'pattern' must be a text of at most 2000 characters"),
        *[
            ({"pattern": pattern}, "does not cut every text")
            for pattern in [
                "(",  # no pattern
                r"\1",
                "",  # empty pieces, of which tiktoken dies
                r"(?s:.)|",
                r"(?=\d\d)|(?s:.)",
                r"\w+",  # loses what is no letter
                r"[^\n]+",
                r"(?s:.){1,1001}",  # memory
                r"(?:(?s:.){1,40}){1,40}",
                r"(?:\p{L}{90}(?=a))" * 99 + r"|(?s:.)",
                "(?s:.)|" + "(?:" * 450 + "x" + ")" * 450,
            ]
        ],
    ],
)
def test_a_wrong_tokenizer_is_named(change, reason):
    state = {
        "tokens": BYTES,
        "pattern": PATTERN,
        "ids": None,
        "special": SPECIAL,
        "layout": LAYOUT,
        "normal_form": None,
    }
    state["layout"] = LAYOUT | {"item": "{query}{response}", "query": "{query}"}
    schema.check_tokenizer_state(state, "run: tokenizer")
    with pytest.raises(UserError) as error:
        schema.check_tokenizer_state(state | change, "run: tokenizer")
    assert str(error.value).startswith("run: tokenizer: ") or str(error.value).startswith("run: tokenizer: layout")
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_a_pattern_that_panics_says_nothing_itself(capfd):
    for pattern in ["", "x{0,9}", "(?:a|(?=b)c)*"]:
        assert not schema.cuts_every_text(pattern)
    assert capfd.readouterr() == ("", "")
