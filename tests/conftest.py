import contextlib
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
import traceback
from multiprocessing import forkserver
from pathlib import Path

import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from data.personas import prepare  # noqa: E402
from perce_mini import cli  # noqa: E402

# A model and a training that take a second.
TINY = """--base-steps 4 --steps 4 --batch-size 4 --n-layer 1 --n-head 2 --n-kv-head 1 --n-embd 16 --vocab-size 400
          --block-size 1100 --eval-examples 3 --device cpu""".split()


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def error(self):
        """The last line on stderr: what went wrong."""
        return (self.err.strip().splitlines() or [""])[-1]


def call(main, *args):
    """Run a command of the project inside this process, as if typed."""
    out, err, status, before = io.StringIO(), io.StringIO(), 0, sys.argv
    sys.argv = ["command", *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.run(main)
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        sys.argv = before
    return Result(status, out.getvalue(), err.getvalue())


@pytest.fixture
def command():
    return call


def spy(monkeypatch, module, name):
    """The (arguments, keywords) of every call of a function from now on."""
    calls, function = [], getattr(module, name)

    def spied(*args, **keywords):
        calls.append((args, keywords))
        return function(*args, **keywords)

    monkeypatch.setattr(module, name, spied)
    return calls


real_run = subprocess.run


def run_inside(command, **options):
    """subprocess.run, but `python FILE` and `python -m MODULE` run inside this process, which has imported torch. A
    status other than 0 fails; the options are not used."""
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


# Where a test needs a process of its own, to kill it or to meet another, that is forked from one which has imported
# what takes seconds and has done nothing else (where forking is safe). It has the environment of the session's start.
processes = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def pytest_sessionstart(session):
    os.fsync = lambda file: None  # takes milliseconds, and no test cuts the power
    if sys.platform == "linux":
        processes.set_forkserver_preload(["torch._dynamo", "train"])  # an optimizer imports the first
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))
            forkserver.ensure_running()  # it imports while the first tests run


def send_result(sender, function, args):
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    try:
        sender.send((function(*args), ""))
    except BaseException:
        sender.send((None, traceback.format_exc()))


def start_process(function, *args):
    """A process that calls function(*args); its `result()` waits for what that returns."""
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=send_result, args=(sender, function, args), daemon=True)
    process.start()
    sender.close()

    def result():
        if not receiver.poll(120):
            process.kill()
            raise AssertionError("no result after two minutes")
        value, error = receiver.recv()
        assert not error, error
        return value

    process.result = result
    return process


@pytest.fixture(scope="session")
def shared():
    """The folder of real data, where PERCE_SHARED names one."""
    if "PERCE_SHARED" not in os.environ:
        pytest.skip("PERCE_SHARED does not name a folder of real data")
    return Path(os.environ["PERCE_SHARED"])


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A very small world of the default data."""
    folder = tmp_path_factory.mktemp("world")
    with contextlib.redirect_stdout(None):
        prepare.write(folder, prepare.splits(train=12, held_out=1, base=48, ordinary=0))
    return folder


@pytest.fixture(scope="session")
def trained(world, tmp_path_factory):
    """A folder in which a tiny base model, CE and PerCE were trained: out/base-..., out/ce, out/perce."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        for loss in ["ce", "perce"]:
            done = call(train.main, "--loss", loss, "--data", world, *TINY)
            assert done.status == 0, done.err
            (folder / f"{loss}.txt").write_text(done.out)
    return folder
