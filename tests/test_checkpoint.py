"""Whole or refused, code-free, and resumed bit for bit wherever a run was killed."""

import json
import random
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import train
from perce_mini import checkpoint
from perce_mini.errors import UserError
from perce_mini.model import GPT, GPTConfig
from perce_mini.tokenizer import Tokenizer
from perce_mini.trainer import Settings, make_optimizer
from tests.conftest import call, start_process

TOKENIZER = Tokenizer.train("a b a b", 262)


def make_model():
    torch.manual_seed(1)
    return GPT(GPTConfig(TOKENIZER.vocab_size, n_layer=1, n_embd=16, n_head=2, n_hidden=16))


@pytest.fixture
def run(tmp_path):
    model, settings = make_model(), Settings(loss="ce")
    optimizer = make_optimizer(model, settings)
    model(torch.tensor([[1, 2]])).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path / "run", model, TOKENIZER, asdict(settings), 1, [{"step": 1, "lr": 0.1}], optimizer)
    return tmp_path / "run"


def test_what_is_saved_comes_back(run):
    model, tokenizer, state = checkpoint.load(run)
    assert state["step"] == 1 and state["settings"] == asdict(Settings(loss="ce")) and state["log"][0]["lr"] == 0.1
    again, _, _ = checkpoint.load(run)
    ids = torch.tensor([tokenizer.encode("a b")])
    assert torch.equal(model(ids), again(ids)) and not torch.equal(model(ids), make_model()(ids))
    assert model.config == make_model().config and tokenizer.state() == TOKENIZER.state()


@pytest.mark.parametrize("cut", [0, 100, 0.5, -1])
def test_a_truncated_checkpoint_is_one_clear_line(run, cut):
    path = run / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
    with pytest.raises(UserError, match="checkpoint.pt: damaged") as caught:
        checkpoint.load(run)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(run, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zipfile.ZipFile", refused)
    with pytest.raises(UserError, match="checkpoint.pt: Permission denied"):
        checkpoint.load(run)


def same(a, b):
    """Are two values equal, with the tensors that they hold?"""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_no_bit_changes_unseen(run):
    """Of 150 single flipped bits each is refused, or changes nothing (the archive has bytes that mean nothing)."""
    path, rng = run / "checkpoint.pt", random.Random(0)
    whole, state, refused = path.read_bytes(), checkpoint.read(run), 0
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert same(checkpoint.read(run), state)
        except UserError as error:
            assert "damaged" in str(error)
            refused += 1
    assert refused > 75


def test_a_checkpoint_can_hold_no_code(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"model": Evil()}, run / "checkpoint.pt")
    with pytest.raises(UserError, match="damaged, or not a checkpoint"):
        checkpoint.load(run)
    assert not (tmp_path / "owned").exists()


def change(run, **parts):
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save(state | parts, run / "checkpoint.pt")


def test_another_shape_is_one_clear_line(run):
    change(run, config=asdict(make_model().config) | {"n_hidden": 32})
    with pytest.raises(UserError, match="another shape.*size mismatch") as caught:
        checkpoint.load(run)
    assert "\n" not in str(caught.value)


def test_another_tokenizer_is_one_clear_line(run):
    change(run, tokenizer=Tokenizer.train("c d c d e e", 265).state())
    with pytest.raises(UserError, match="tokenizer has"):
        checkpoint.load(run)


def test_a_full_disk_is_an_oserror_that_leaves_the_checkpoint(run):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    model, tokenizer, _ = checkpoint.load(run)
    (run / "checkpoint.pt.new").symlink_to("/dev/full")
    before = (run / "checkpoint.pt").read_bytes()
    with pytest.raises(OSError):
        checkpoint.save(run, model, tokenizer, {}, 8)
    assert (run / "checkpoint.pt").read_bytes() == before


def flags(world, trained, out, *more):
    base = next((trained / "out").glob("base-*"))
    given = ["--data", world, "--init", base, "--out", out, "--seed", 3, "--steps", 16, "--save-every", 4]
    return [*given, "--batch-size", 4, "--grad-accum", 2, "--eval-examples", 0, "--device", "cpu", *more]


def timeless(log):
    return [{key: value for key, value in line.items() if key != "tokens_s"} for line in log]


def test_a_killed_run_resumes_bit_for_bit(command, trained, world, tmp_path):
    """One run straight through; one killed (SIGKILL) after its first checkpoint and resumed: all is equal."""
    assert command(train.main, *flags(world, trained, tmp_path / "straight")).status == 0
    process = start_process(call, train.main, *flags(world, trained, tmp_path / "killed"))
    while not (tmp_path / "killed/checkpoint.pt").exists():
        assert process.is_alive(), process.result().err
        time.sleep(0.01)
    process.kill()
    process.join()
    assert 0 < checkpoint.read(tmp_path / "killed")["step"] < 16
    assert command(train.main, *flags(world, trained, tmp_path / "killed", "--resume")).status == 0
    straight, killed = (checkpoint.read(tmp_path / name) for name in ("straight", "killed"))
    for part in ["model", "optimizer", "step", "random"]:
        assert same(straight[part], killed[part]), part
    assert timeless(straight["log"]) == timeless(killed["log"])


def test_the_log_is_whole_when_the_kill_came_before_it_was_written(command, trained, world, tmp_path, monkeypatch):
    """The checkpoint holds the log, so log.jsonl may be missing or old."""
    real, calls = checkpoint.write_jsonl_atomic, []

    def killed(path, rows):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(path, rows)

    monkeypatch.setattr(checkpoint, "write_jsonl_atomic", killed)
    assert command(train.main, *flags(world, trained, tmp_path / "run")).status == 130
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 4 < checkpoint.read(tmp_path / "run")["step"]
    (tmp_path / "run/log.jsonl").unlink()
    assert command(train.main, *flags(world, trained, tmp_path / "run", "--resume")).status == 0
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, 17))
