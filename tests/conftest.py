import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from perce_mini import cli  # noqa: E402

TINY = ["--base-steps", "4", "--steps", "4", "--batch-size", "4", "--n-layer", "1", "--n-head", "2", "--n-kv-head", "1", "--n-embd", "16",
        "--vocab-size", "400", "--block-size", "1100", "--eval-examples", "3", "--device", "cpu"]  # fmt: skip


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def error(self):
        """The last line on stderr: what went wrong."""
        return (self.err.strip().splitlines() or [""])[-1]


@pytest.fixture
def command(monkeypatch, capsys):
    """command(main, *args): run a command of the project inside this process; returns status, output and errors."""

    def run(main, *args):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, args)])
        status = 0
        try:
            cli.run(main)
        except SystemExit as stop:
            status = stop.code or 0
        out, err = capsys.readouterr()
        return Result(status, out, err)

    return run


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A very small world of the default data."""
    folder = tmp_path_factory.mktemp("world")
    subprocess.run([sys.executable, ROOT / "data/personas/prepare.py", "--examples", "12", "--out", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def trained(world, tmp_path_factory):
    """A folder in which a tiny base, CE and PerCE were trained: out/base-..., out/ce, out/perce."""
    folder = tmp_path_factory.mktemp("trained")
    for loss in ["ce", "perce"]:
        done = subprocess.run([sys.executable, ROOT / "train.py", "--loss", loss, "--data", world, *TINY], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder / f"{loss}.txt").write_text(done.stdout)
    return folder
