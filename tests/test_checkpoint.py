"""Atomic, code-free, and resumed bit for bit after SIGKILL."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from perce_mini import checkpoint
from perce_mini.checkpoint import CheckpointError
from perce_mini.model import GPT, GPTConfig
from perce_mini.tokenizer import Tokenizer
from tests.conftest import ROOT

TOKENIZER = Tokenizer.train("a b a b", 262)


def make_model():
    torch.manual_seed(1)
    return GPT(GPTConfig(TOKENIZER.vocab_size, n_layer=1, n_embd=16, n_head=2, n_hidden=16))


@pytest.fixture
def run(tmp_path):
    checkpoint.save(tmp_path / "run", make_model(), TOKENIZER, 7, {"loss": "ce"})
    return tmp_path / "run"


def test_what_is_saved_comes_back(run):
    model, tokenizer, state = checkpoint.load(run)
    assert state["step"] == 7 and state["settings"] == {"loss": "ce"}
    ids = torch.tensor([tokenizer.encode("a b")])
    assert torch.equal(model(ids), make_model()(ids)) and model.config == make_model().config
    assert tokenizer.tokens == TOKENIZER.tokens


@pytest.mark.parametrize("cut", [0, 100, 0.5, -1])
def test_a_truncated_checkpoint_is_one_clear_line(run, cut):
    path = run / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
    with pytest.raises(CheckpointError, match="checkpoint.pt: damaged") as caught:
        checkpoint.load(run)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_can_hold_no_code(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"model": Evil()}, run / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
        checkpoint.load(run)
    assert not (tmp_path / "owned").exists()


def test_another_shape_is_one_clear_line(run):
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["config"]["n_hidden"] = 32
    torch.save(state, run / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="another shape.*size mismatch") as caught:
        checkpoint.load(run)
    assert "\n" not in str(caught.value)


def test_another_tokenizer_is_one_clear_line(run):
    Tokenizer.train("c d c d e e", 265).save(run / "tokenizer.json")
    with pytest.raises(CheckpointError, match="tokenizer has"):
        checkpoint.load(run)


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")

    def half_a_write(new):
        Path(new).write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoint.replace_file(path, half_a_write)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_oserror_that_names_the_file(run):
    model, tokenizer, _ = checkpoint.load(run)
    (run / "checkpoint.pt.new").symlink_to("/dev/full")
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    before = (run / "checkpoint.pt").read_bytes()
    with pytest.raises(OSError):
        checkpoint.save(run, model, tokenizer, 8, {})
    assert (run / "checkpoint.pt").read_bytes() == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_run_resumes_bit_for_bit(trained, world, tmp_path):
    """One run straight through; one killed (SIGKILL) after its first checkpoint and resumed: equal weights, optimiser, log."""
    base = next((trained / "out").glob("base-*"))
    command = [sys.executable, ROOT / "train.py", "--data", world, "--init", base, "--loss", "perce", "--seed", "3", "--steps", "60",
               "--batch-size", "4", "--grad-accum", "2", "--save-every", "10", "--eval-examples", "0", "--device", "cpu", "--out"]  # fmt: skip
    subprocess.run([*command, tmp_path / "straight"], check=True, capture_output=True)
    process = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed/log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    step = checkpoint.read(tmp_path / "killed")["step"]
    assert 0 < step < 60
    subprocess.run([*command, tmp_path / "killed", "--resume"], check=True, capture_output=True)

    straight, killed = (checkpoint.read(tmp_path / name) for name in ("straight", "killed"))
    assert straight["step"] == killed["step"] == 60
    for name, weights in straight["model"].items():
        assert torch.equal(weights, killed["model"][name]), name
    for a, b in zip(straight["optimizer"]["state"].values(), killed["optimizer"]["state"].values()):
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("straight", "killed")]
    assert [line.split(', "tokens_s"')[0] for line in lines[0]] == [line.split(', "tokens_s"')[0] for line in lines[1]]
