import contextlib
import io
import os
import sys
from pathlib import Path

import pytest

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
