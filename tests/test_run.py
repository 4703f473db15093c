"""A run from its first to its last step, no matter how often it is interrupted."""

import os
import shutil
import signal
from dataclasses import fields, replace

import pytest
import torch

from perce_mini.runtime import checkpoint, run
from perce_mini.runtime.errors import UserError
from perce_mini.runtime.run import check_same_run, fit
from perce_mini.trainer import NotFiniteError, Settings, learning_rate
from tests.conftest import same
from tests.tiny import TOKENIZER, make_examples, make_model

EXAMPLES = make_examples() * 2
SETTINGS = Settings(steps=7, batch_size=1, grad_accum=2, lr=1e-2)  # an epoch has four steps


def start(out, settings=SETTINGS, save_every=2):
    torch.manual_seed(5)
    fit(make_model(), TOKENIZER, EXAMPLES, settings, out, save_every)


def resume(out):
    model, tokenizer, state = checkpoint.load(out)
    torch.manual_seed(99)
    fit(model, tokenizer, EXAMPLES, SETTINGS, out, 2, state)


def outcome(out):
    """Return everything in a finished run except the times."""
    state = checkpoint.read(out)
    assert (out / "log.jsonl").read_text().count("\n") == len(state["log"]) == state["step"]
    for line in state["log"]:
        del line["tokens_s"]
    return state


def before_each_step(monkeypatch, action):
    """Call action(step) before every training step."""
    real_step = run.training_step

    def step_with_action(*args):
        action(args[-1])
        return real_step(*args)

    monkeypatch.setattr(run, "training_step", step_with_action)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The outcome of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("straight")
    start(folder)
    return outcome(folder)


def test_a_run_killed_at_any_step_resumes_to_equal_weights(tmp_path, monkeypatch, straight):
    """A killed run leaves its files as they are. We copy them at every step and resume the copy."""
    log = [(line["step"], line["lr"]) for line in straight["log"]]
    assert log == [(step + 1, learning_rate(step, SETTINGS)) for step in range(7)]
    assert straight["settings"] == SETTINGS
    with monkeypatch.context() as patch:
        out = tmp_path / "run"
        before_each_step(patch, lambda n: out.exists() and shutil.copytree(out, tmp_path / f"{n}"))
        start(out)
    (tmp_path / "4/log.jsonl").unlink()  # it is only a copy
    for n, saved in [(2, 2), (3, 2), (4, 4), (5, 4), (6, 6), ("run", 7)]:
        assert checkpoint.read(tmp_path / f"{n}")["step"] == saved
        resume(tmp_path / f"{n}")
        assert same(outcome(tmp_path / f"{n}"), straight), n


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    """The first one lets the step finish and saves it (see test_commands.py)."""

    def interrupt_twice(n):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("still running")

    handler = signal.getsignal(signal.SIGINT)
    before_each_step(monkeypatch, interrupt_twice)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_absurd_learning_rate_ends_the_run_and_saves_no_nan(tmp_path):
    with pytest.raises(NotFiniteError, match=f"1e\\+30.*step 1 is saved in {tmp_path}") as caught:
        start(tmp_path, replace(SETTINGS, lr=1e30), save_every=1)
    assert "\n" not in str(caught.value)
    assert checkpoint.read(tmp_path)["step"] == 1  # `read` rejects weights that are not finite


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), OSError(28, "No space left")])
def test_a_run_that_breaks_says_what_is_saved(tmp_path, monkeypatch, capsys, error):
    def fail(step):
        if step == 4:
            raise error

    before_each_step(monkeypatch, fail)
    with pytest.raises(type(error)):
        start(tmp_path)
    assert f"step 4 is saved in {tmp_path}" in capsys.readouterr().err


def test_a_run_continues_with_the_same_settings_only():
    state = {"settings": SETTINGS}
    check_same_run(state, replace(SETTINGS, data="the same rows in another folder"), "out/x")
    for name in {field.name for field in fields(Settings)} - {"data"}:
        value = getattr(SETTINGS, name)
        other = value + "x" if isinstance(value, str) else value + 1
        with pytest.raises(UserError, match="^out/x"):
            check_same_run(state, replace(SETTINGS, **{name: other}), "out/x")
