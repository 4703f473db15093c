"""A checkpoint is loaded exactly or rejected with a one-line error. Code in it never runs."""

import io
import math
import shutil
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch

from perce_mini.runtime import checkpoint, lora
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.models import fingerprint
from perce_mini.trainer import Settings, make_optimizer
from tests.conftest import same
from tests.tiny import TOKENIZER, make_model

IDS = torch.tensor([[1, 2, 3]])


def make_run(folder, rank=0, source=None):
    """Save a run after one step. Returns the model's output.

    source: the folder of the model that a LoRA run adapts (default: another run made like this).
    """
    model, settings = make_model(n_embd=16), Settings(loss="ce", lora_rank=rank, warmup=0)
    if rank:
        if source is None:
            source = folder / "source"
            make_run(source)
        settings.init, settings.init_sha256 = str(source), fingerprint(source)
        model = checkpoint.load(source).model
        lora.merge(model)
        lora.add(model, rank)
    optimizer = make_optimizer(model, settings)
    model(IDS).sum().backward()
    optimizer.step()
    log = [{"step": 1, "lr": 0.1}]
    checkpoint.save(folder, model, TOKENIZER, settings, 1, log, optimizer)
    return model(IDS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes and the content of a valid checkpoint (test_fuzz.py damages another one)."""
    folder = tmp_path_factory.mktemp("whole")
    make_run(folder)
    checkpoint.load(folder)  # it is accepted
    path = folder / "checkpoint.pt"
    return path.read_bytes(), torch.load(path, weights_only=True)


def refuse(folder, reason=""):
    """Check that loading fails with a one-line error within two seconds."""
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        state = checkpoint.load(folder).state
        checkpoint.restore(state, make_optimizer(make_model(n_embd=16), Settings()))
    line = str(caught.value)
    assert "checkpoint" in line and reason in line and "\n" not in line and len(line) < 400
    assert time.process_time() - start < 2


@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_saved_comes_back(tmp_path, rank):
    logits = make_run(tmp_path, rank)
    model, tokenizer, state = loaded = checkpoint.load(tmp_path)
    assert torch.equal(model(IDS), logits) and tokenizer.state() == TOKENIZER.state()
    assert state["step"] == 1 and state["log"] == [{"step": 1, "lr": 0.1}]
    assert (loaded.settings.loss, loaded.settings.lora_rank) == ("ce", rank)
    assert model.head.requires_grad == (rank == 0)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "lr": 0.1}\n'
    state["optimizer"]["param_groups"][0]["lr"] = 1e9  # the file's settings must be ignored
    optimizer = make_optimizer(model, Settings(lr=0.5))
    checkpoint.restore(state, optimizer)
    assert same(optimizer.state_dict()["state"], state["optimizer"]["state"])
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_adapters_are_saved_alone_and_need_the_model_that_they_adapt(tmp_path):
    """The adapted model may itself be a LoRA run. Loading fails if it is missing or has changed."""
    make_run(tmp_path / "a", 2)
    logits = make_run(tmp_path / "b", 3, source=tmp_path / "a")
    assert torch.equal(checkpoint.load(tmp_path / "b").model(IDS), logits)
    path = tmp_path / "b/checkpoint.pt"
    state = torch.load(path, weights_only=True)
    assert {name.split(".")[-2] for name in state["model"]} == {"a", "b"}
    for rank in [2, 3 * 10**6]:  # wrong ranks; millions would take seconds to build
        torch.save(change(state, "settings/lora_rank", rank), path)
        refuse(tmp_path / "b", "damaged")
    torch.save(change(state, "model/new", FLOATS), path)
    refuse(tmp_path / "b", "other layers")
    torch.save(state, path)
    make_run(tmp_path / "a")
    refuse(tmp_path / "b", f"{tmp_path}/a")
    shutil.rmtree(tmp_path / "a")
    refuse(tmp_path / "b", f"{tmp_path}/a")


def test_a_missing_or_truncated_file_is_refused(tmp_path, whole):
    refuse(tmp_path, f"{tmp_path}/checkpoint.pt")
    for share in [0, 0.01, 0.5, 0.999]:
        (tmp_path / "checkpoint.pt").write_bytes(whole[0][: int(share * len(whole[0]))])
        refuse(tmp_path, "damaged")


def test_a_small_file_cannot_unpack_into_a_large_one(tmp_path, whole):
    """Neither with compressed entries nor with 5,000 entries that share the same bytes."""
    path, packed = tmp_path / "checkpoint.pt", io.BytesIO()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**20)
    refuse(tmp_path, "compressed")

    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**20)
    raw = packed.getvalue()
    start = raw.index(b"PK\1\2")
    entries = raw[start : raw.index(b"PK\5\6")] * 5000
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 5000, 5000, len(entries), start, 0)
    path.write_bytes(raw[:start] + entries + end)
    refuse(tmp_path, "overlap")


def test_no_code_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"model": Evil()}, tmp_path / "checkpoint.pt")
    refuse(tmp_path, "damaged")
    assert not (tmp_path / "owned").exists()


FLOATS = torch.ones(16)  # as large as the last norm and the optimiser's weight 1
BYTES = [bytes([i]) for i in range(256)]
ALIAS = FLOATS[:1].expand(16)  # claims more memory than it has
BAD_VALUES = {
    "step": [-1, True, Settings.steps + 1, 10**4000],
    "log": [[{"loss": "x"}]],
    "config/n_layer": [3000],  # would take seconds to build
    "config/n_head": [3, 2.0],
    "config/n_embd": [2**70],
    "config/vocab_size": [2**40, 261],
    "config/norm_eps": [math.nan],
    "config/tied": [1],
    "settings": [None],
    "settings/lora_rank": [2],
    "settings/lr": [-1.0],
    "settings/steps": ["60"],
    "settings/clip_min": [-math.inf],
    "model": [{}],
    "model/5": [FLOATS],
    "model/unknown": [FLOATS],
    "model/norm.weight": [[1.0] * 16, FLOATS[:15].clone(), FLOATS / 0, FLOATS.half(), ALIAS]
    + [FLOATS.to_sparse(), FLOATS.to("meta")],
    "tokenizer/tokens": [["a"] * 256, [b"%d" % i for i in range(1000)], [*BYTES, b"a"]]
    + [BYTES[:97] + BYTES[98:]],
    "optimizer": [None],
    "optimizer/state": [{}],
    "optimizer/state/99": [{}],
    "optimizer/state/1/step": [torch.tensor(-1.0), torch.tensor(math.nan)],
    "optimizer/state/1/exp_avg": [FLOATS[:15].clone(), FLOATS.half()],
    "optimizer/state/1/exp_avg_sq": [FLOATS * math.nan, -FLOATS],  # their square roots would be NaN
    "random": [FLOATS.byte()],
}


def change(state, place, value):
    """Copy the nested dicts, with a different value under "key/key"."""
    key, _, rest = place.partition("/")
    key = int(key) if key.isdigit() else key
    return {**state, key: change(state[key], rest, value) if rest else value}


@pytest.mark.parametrize("place", BAD_VALUES)
def test_bad_values_are_refused_in_one_line(tmp_path, whole, place):
    for value in BAD_VALUES[place]:
        torch.save(change(whole[1], place, value), tmp_path / "checkpoint.pt")
        refuse(tmp_path)
