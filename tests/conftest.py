"""Shared by several test files: a tiny world, a tiny base model with two runs, and helpers."""

import contextlib
import io
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from data.personas import prepare  # noqa: E402
from perce_mini import base  # noqa: E402
from perce_mini.runtime import cli  # noqa: E402
from perce_mini.runtime import run as training  # noqa: E402

# Flags of a base model and a run that train in a fraction of a second.
TINY_SHAPE = ["--n-layer", 1, "--n-head", 2, "--n-kv-head", 1, "--n-embd", 16, "--block-size", 1100]
TINY_BASE = [*TINY_SHAPE, "--vocab-size", 400, "--steps", 4, "--device", "cpu"]
TINY = ["--steps", 4, "--batch-size", 4, "--eval-examples", 3, "--device", "cpu"]


@dataclass
class Result:
    """The output of a command and its exit status."""

    status: int
    out: str
    err: str

    @property
    def error(self):
        """The last line of stderr, which is the error message."""
        return (self.err.strip().splitlines() or [""])[-1]

    def is_refusal(self, *words):
        """Did the command exit with status 2 and a one-line error that contains these words?"""
        in_line = len(self.error) < 500 and all(word in self.error for word in words)
        return self.status == 2 and in_line and "Traceback" not in self.err


def call(main, *args):
    """Run one of the project's commands in this process, as if typed in a shell."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, args)])
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                cli.run(main)
        except SystemExit as stop:
            status = stop.code or 0
    return Result(status, out.getvalue(), err.getvalue())


@pytest.fixture
def command():
    return call


def spy(monkeypatch, module, name):
    """Record the (arguments, keywords) of every call to a function from now on."""
    calls, function = [], getattr(module, name)

    def spied(*args, **keywords):
        calls.append((args, keywords))
        return function(*args, **keywords)

    monkeypatch.setattr(module, name, spied)
    return calls


def same(a, b):
    """Are two values equal, including the tensors inside them?"""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)  # here NaN equals NaN


def press_ctrl_c(monkeypatch, step, times=1):
    """Simulate Ctrl-C during the given optimisation step, counted from now on."""
    real, calls = training.training_step, []

    def interrupted(*args):
        calls.append(1)
        for _ in range(times if len(calls) == step else 0):
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(training, "training_step", interrupted)


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


real_run = subprocess.run


def run_inside(command, **options):
    """Like subprocess.run, but run `python FILE` and `python -m MODULE` in this process, which has
    already imported torch. Fails if the exit status is not 0. Ignores the options."""
    words = [*map(str, command)]
    if words[0] not in ("python", sys.executable) or words[1] == "-c":
        return real_run(words, **options)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess, "run", run_inside)
            if words[1] == "-m":
                patch.setattr(sys, "argv", words[2:])
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            else:
                patch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, words
    return subprocess.CompletedProcess(words, 0)


# Some tests need other processes. They are forked from a server that has done nothing except the
# slow imports, so forking it is safe.
processes = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def pytest_sessionstart(session):
    os.fsync = lambda file: None  # slow, and matters only if the power fails
    if sys.platform == "linux":
        processes.set_forkserver_preload(["torch._dynamo", "train"])  # optimizers import it
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))
            forkserver.ensure_running()  # does its imports while the first tests run


def call_with_new_lock(function, args):
    tqdm.set_lock(threading.RLock())  # tqdm's own lock, a semaphore, would be left behind
    return function(*args)


def start_process(function, *args):
    """Call function(*args) in another process. The result's `get(seconds)` waits for it."""
    pool = processes.Pool(1)
    result = pool.apply_async(call_with_new_lock, (function, args))
    pool.close()
    return result


@pytest.fixture(scope="session")
def shared():
    """The folder with real data, from the environment variable PERCE_SHARED."""
    if "PERCE_SHARED" not in os.environ:
        pytest.skip("PERCE_SHARED does not name a folder of real data")
    return Path(os.environ["PERCE_SHARED"])


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A very small version of the default data."""
    folder = tmp_path_factory.mktemp("world")
    with contextlib.redirect_stdout(None):
        prepare.write(folder, prepare.splits(train=12, held_out=1, base=48, ordinary=0))
    return folder


@pytest.fixture(scope="session")
def trained(world, tmp_path_factory):
    """A folder with a tiny base model out/base-... and the runs out/ce and out/perce.

    out.txt contains the output of train.py.
    """
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        made = call(base.main, "--data", world, *TINY_BASE)
        assert made.status == 0, made.err
        done = call(train.main, "--data", world, "--loss", "ce", "perce", *TINY)
        assert done.status == 0, done.err
    (folder / "out.txt").write_text(done.out)
    return folder


@pytest.fixture(scope="session")
def start(trained):
    """The folder of the tiny base model."""
    return next((trained / "out").glob("base-*"))
